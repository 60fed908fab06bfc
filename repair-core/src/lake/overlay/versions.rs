//! The versions of rows that their key alone identifies: rows with the same key, in whichever files they lie, none of which is further than the
//! table's lookback from the next.

use std::collections::BTreeMap;
use std::ops::Range;

use futures::TryStreamExt;

use crate::error::Result;
use crate::lake::overlay::fingerprint::{RowHash, RowHashes, of_hashes};
use crate::lake::shape::KeyTime;
use crate::lake::{Lake, Layer, ScanRequest};
use crate::model::{Fingerprint, Identity, Interval, Key, Table};

/// How many lookbacks around an interval versions are read, so that it is seen whether those of a row lie too far apart: a version within a
/// lookback of the interval has others within a lookback of itself.
pub const LOOKBACKS: i64 = 2;

/// The table's own versions of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    times_us: Vec<i64>,
    hashes: Vec<RowHash>,
}

impl Versions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.times_us.len()
    }

    /// Whether there are none, which does not happen.
    pub fn is_empty(&self) -> bool {
        self.times_us.is_empty()
    }

    /// Their times in microseconds, in order.
    pub fn times_us(&self) -> &[i64] {
        &self.times_us
    }

    /// The fingerprint of all of them.
    pub fn fingerprint(&self) -> Fingerprint {
        of_hashes(&mut self.hashes.clone())
    }

    /// Whether one row can stand for all of them: it must be within the lookback of each.
    pub fn are_near(&self, identity: Identity) -> bool {
        are_near(&self.times_us, identity)
    }
}

/// Whether the first and the last of some times in order are within the lookback of each other.
pub fn are_near(times_us: &[i64], identity: Identity) -> bool {
    times_us.first().zip(times_us.last()).is_none_or(|(first, last)| identity.are_same_slots(*first, *last))
}

/// Which of the rows of one key are versions of the same row, by their times in order: stretches of these.
pub fn stretches(times_us: &[i64], identity: Identity) -> Vec<Range<usize>> {
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for (at, time_us) in times_us.iter().enumerate() {
        let goes_on =
            at.checked_sub(1).and_then(|before| times_us.get(before)).is_some_and(|before| identity.are_same_slots(*before, *time_us));
        match stretches.last_mut().filter(|_| goes_on) {
            Some(last) => last.end = at + 1,
            None => stretches.push(at..at + 1),
        }
    }
    stretches
}

/// The versions of rows of some keys that lie around an interval, from one scan of the table's own rows. Holds about 50 bytes for each. Returns how
/// many rows were read too.
///
/// # Errors
/// Those of the lake.
pub async fn read(lake: &dyn Lake, table: &Table, interval: &Interval, keys: Vec<Key>) -> Result<(BTreeMap<Key, Vec<Versions>>, u64)> {
    let identity = table.identity();
    let request = ScanRequest::new(Layer::Raw).in_interval(identity.widened(interval, LOOKBACKS)).of_keys(keys);
    let mut rows: BTreeMap<Key, Vec<(i64, RowHash)>> = BTreeMap::new();
    let mut batches = lake.scan(table, &request).await?;
    let mut read = 0;
    while let Some(batch) = batches.try_next().await? {
        read += batch.num_rows() as u64;
        let (places, hashes) = (KeyTime::of(table, &batch)?, RowHashes::of(table, &batch)?);
        for run in places.runs() {
            let of_key = rows.entry(places.key(run.start)).or_default();
            for row in run {
                of_key.push((places.times.value(row), hashes.of_row(row)?));
            }
        }
    }
    let apart = |mut of_key: Vec<(i64, RowHash)>| -> Vec<Versions> {
        of_key.sort_unstable();
        let (times_us, hashes): (Vec<i64>, Vec<RowHash>) = of_key.into_iter().unzip();
        let stretches = stretches(&times_us, identity).into_iter();
        stretches.map(|rows| Versions { times_us: times_us[rows.clone()].to_vec(), hashes: hashes[rows].to_vec() }).collect()
    };
    Ok((rows.into_iter().map(|(key, of_key)| (key, apart(of_key))).collect(), read))
}
