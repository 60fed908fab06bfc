//! How many rows of a table lie in stretches of time of one length. For tables without a cadence: the rows of a series lie in slots, which
//! [`ReadLake::presence`] counts.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;

use super::read::{Layer, ReadLake, ScanRequest};
use super::shape::KeyTime;
use crate::error::{Error, Result};
use crate::lake::partition::SECOND_US;
use crate::model::{Interval, Key, Quarantine, Table, Usage};

/// Asks how many rows of its own a table has in each stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowCountRequest {
    /// Only rows whose time is within.
    pub interval: Interval,
    /// The length of a stretch in seconds. Stretches begin at multiples of it since the epoch.
    pub every_s: u32,
    /// Only rows of these keys, and those of each; `None` for all rows together.
    pub keys: Option<Vec<Key>>,
}

impl RowCountRequest {
    /// Asks for all rows together.
    pub fn new(interval: Interval, every_s: u32) -> Self {
        Self { interval, every_s, keys: None }
    }

    /// Only rows of these keys, and those of each; `None` for all rows together.
    #[must_use]
    pub fn of_keys(mut self, keys: impl Into<Option<Vec<Key>>>) -> Self {
        self.keys = keys.into();
        self
    }

    /// Checks that a table can be counted like this.
    ///
    /// # Errors
    /// `invalid` if it has a cadence, or the stretches no length.
    pub fn check(&self, table: &Table) -> Result<()> {
        if table.cadence.is_some() {
            return Err(Error::invalid(format!("table `{}` has a cadence; ask for its presence, which counts slots", table.name)));
        }
        if self.every_s == 0 {
            return Err(Error::invalid("rows cannot be counted in stretches of 0 s; give a longer one"));
        }
        Ok(())
    }

    /// The number of the stretch in which a time lies.
    pub fn stretch_of(&self, time_us: i64) -> i64 {
        time_us.div_euclid(SECOND_US).div_euclid(i64::from(self.every_s).max(1))
    }
}

/// How many rows a table has in each stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// The number of rows, by key and by number of the stretch: stretch `n` begins `n × every_s` seconds after the epoch. Stretches without
    /// a row may be left out. Every requested key has an entry; without requested keys, the empty key has all rows.
    pub rows: BTreeMap<Key, BTreeMap<i64, u64>>,
    /// The rows that could not be read, of all that were seen.
    pub quarantine: Quarantine,
    /// What counting consumed.
    pub usage: Usage,
}

impl RowCounts {
    /// Counts in which nothing is counted yet.
    pub fn new(request: &RowCountRequest) -> Self {
        let keys: BTreeSet<Key> = match &request.keys {
            Some(keys) => keys.iter().cloned().collect(),
            None => BTreeSet::from([Key::default()]),
        };
        Self { rows: keys.into_iter().map(|key| (key, BTreeMap::new())).collect(), ..Self::default() }
    }

    /// Counts the rows of a batch of the table. All of them must be within the interval.
    ///
    /// # Errors
    /// `invalid` or `internal` if the batch is not in shape.
    pub fn add(&mut self, table: &Table, request: &RowCountRequest, batch: &arrow::array::RecordBatch) -> Result<()> {
        let rows = KeyTime::of(table, batch)?;
        let whole = std::iter::once(0..batch.num_rows()).filter(|range| !range.is_empty());
        let runs: Box<dyn Iterator<Item = std::ops::Range<usize>>> =
            if request.keys.is_some() { Box::new(rows.runs()) } else { Box::new(whole) };
        for run in runs {
            let key = if request.keys.is_some() { rows.key(run.start) } else { Key::default() };
            let Some(counts) = self.rows.get_mut(&key) else { continue };
            // Rows mostly come in order of time, so one look-up serves many.
            let stretches: Vec<i64> = rows.times.values()[run].iter().map(|&time_us| request.stretch_of(time_us)).collect();
            for same in stretches.chunk_by(|one, other| one == other) {
                *counts.entry(same[0]).or_default() += same.len() as u64;
            }
        }
        Ok(())
    }

    /// Adds what was counted in another part of the table.
    pub fn merge(&mut self, other: Self) {
        for (key, stretches) in other.rows {
            let mine = self.rows.entry(key).or_default();
            for (stretch, rows) in stretches {
                *mine.entry(stretch).or_default() += rows;
            }
        }
        self.quarantine.merge(other.quarantine);
        self.usage += other.usage;
    }
}

/// Counts rows by a scan, for a lake without an engine that could do it.
///
/// # Errors
/// As [`ReadLake::row_counts`].
pub async fn by_scan(lake: &dyn ReadLake, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
    request.check(table)?;
    let scan = ScanRequest::new(Layer::Raw).in_interval(request.interval).of_keys(request.keys.clone()).with_columns(Vec::new());
    let mut batches = lake.scan(table, &scan).await?;
    let mut counted = RowCounts::new(request);
    while let Some(batch) = batches.try_next().await? {
        counted.usage.rows_read += batch.num_rows() as u64;
        counted.add(table, request, &batch)?;
    }
    Ok(counted)
}
