//! What sources answer about a table whose key identifies a row: which answers are plausible, and which of several versions of a row counts. Pure.
//!
//! Nothing says which rows there should be, so a source is asked for all rows of a stretch of time, and not for keys or slots.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use jiff::Timestamp;

use crate::builtin::repair::keep::ranks;
use crate::error::{Error, Result};
use crate::lake::overlay::fingerprint::RowHashes;
use crate::lake::overlay::versions;
use crate::lake::shape::{self, KeyTime};
use crate::model::{Interval, Key, Table};

/// What was requested.
pub(in crate::builtin) struct Question<'a> {
    pub(in crate::builtin) source: &'a str,
    pub(in crate::builtin) table: &'a Table,
    pub(in crate::builtin) interval: Interval,
    pub(in crate::builtin) now: Timestamp,
    /// The columns that rows must have; none while the table is empty.
    pub(in crate::builtin) columns: Option<&'a Schema>,
}

impl Question<'_> {
    /// Checks that an answer is plausible.
    ///
    /// # Errors
    /// `invalid` if a row has no key or no time, if its time is outside the request or in the future, or if rows lack a column of the table, or a
    /// value that may not be null.
    pub(in crate::builtin) fn judge(&self, batches: &[RecordBatch]) -> Result<()> {
        let table = self.table;
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            let rows = KeyTime::of(table, batch).map_err(|error| error.on("source", self.source))?;
            if rows.times.null_count() > 0 || rows.keys.iter().any(|column| column.null_count() > 0) {
                return Err(self.implausible("a row without key or time"));
            }
            let (from_us, to_us) = (self.interval.from().as_microsecond(), self.interval.to().as_microsecond());
            for (row, &time_us) in rows.times.values().iter().enumerate() {
                let why = if time_us < from_us || time_us >= to_us {
                    format!("outside the requested {}", self.interval)
                } else if time_us > self.now.as_microsecond() {
                    format!("although it is only {}", self.now)
                } else {
                    continue;
                };
                let time = table.identity().grid().time_of(time_us);
                return Err(self.implausible(&format!("a row of {} at {time}, {why}", rows.key(row))));
            }
            for field in self.columns.into_iter().flat_map(|columns| columns.fields()) {
                let (name, of) = (field.name(), &table.name);
                match shape::find_column(batch, name)? {
                    None => return Err(self.implausible(&format!("rows without the column `{name}` of table `{of}`"))),
                    Some(values) if !field.is_nullable() && values.logical_null_count() > 0 => {
                        return Err(self.implausible(&format!("a row without a value of `{name}`, which every row of table `{of}` has")));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn implausible(&self, what: &str) -> Error {
        Error::invalid(format!("source `{}` answered with {what}; the answer was discarded, check the source", self.source))
    }
}

/// The rows of answers, and of each key those that count.
#[derive(Debug, Default)]
pub(in crate::builtin) struct Latest {
    /// All rows; `None` if there are none.
    pub(in crate::builtin) rows: Option<RecordBatch>,
    /// By key, the time of each row that counts, and where it is.
    pub(in crate::builtin) of_key: BTreeMap<Key, Vec<(i64, usize)>>,
    /// Rows of which none of several counts, in words.
    pub(in crate::builtin) unclear: Vec<String>,
}

impl Latest {
    /// The rows of answers that were judged plausible. Rows of one key that are no further apart than the lookback are versions of one row, and the
    /// latest counts.
    ///
    /// # Errors
    /// `invalid` if answers do not fit each other.
    pub(in crate::builtin) fn of(source: &str, table: &Table, answers: &[RecordBatch]) -> Result<Self> {
        let answers: Vec<&RecordBatch> = answers.iter().filter(|batch| batch.num_rows() > 0).collect();
        let Some(first) = answers.first() else { return Ok(Self::default()) };
        let rows = concat_batches(first.schema_ref(), answers.iter().copied()).map_err(|error| {
            Error::invalid(format!("source `{source}` answered with other columns than before; check the source")).because(error)
        })?;
        let identity = table.identity();
        let (places, hashes) = (KeyTime::of(table, &rows)?, RowHashes::of(table, &rows)?);
        let is_known = |name: &String| shape::find_column(&rows, name).is_ok_and(|column| column.is_some());
        let is_ranked = !table.version.is_empty() && table.version.iter().all(is_known);
        let ranks = if is_ranked { Some(ranks(table, &rows, &table.version, false)?) } else { None };
        let mut by_key: BTreeMap<Key, Vec<(i64, usize)>> = BTreeMap::new();
        for run in places.runs() {
            let of_key = by_key.entry(places.key(run.start)).or_default();
            of_key.extend(run.map(|row| (places.times.value(row), row)));
        }
        let (mut of_key, mut unclear) = (BTreeMap::new(), Vec::new());
        for (key, mut all) in by_key {
            all.sort_unstable();
            let times_us: Vec<i64> = all.iter().map(|(time_us, _)| *time_us).collect();
            let mut counting = Vec::new();
            for versions in versions::stretches(&times_us, identity) {
                let of_row = &all[versions.clone()];
                let why = match latest(of_row, &hashes, ranks.as_ref())? {
                    _ if !versions::are_near(&times_us[versions], identity) => "which lie further apart than the `lookback` of the table",
                    Some(row) => {
                        counting.push(row);
                        continue;
                    }
                    None if ranks.is_none() => "and nothing says which is the latest; name a column under `version` of the table",
                    None => "of which none is the latest by `version`",
                };
                let place = identity.grid().time_of(of_row.first().map_or(0, |row| row.0));
                unclear.push(format!("{key} at {place}: source `{source}` has {} different rows, {why}", of_row.len()));
            }
            of_key.insert(key, counting);
        }
        Ok(Self { rows: Some(rows.clone()), of_key, unclear })
    }

    /// How many rows count.
    pub(in crate::builtin) fn len(&self) -> u64 {
        self.of_key.values().map(|rows| rows.len() as u64).sum()
    }
}

/// The latest of some versions, by time and place; `None` if there is not one.
fn latest(versions: &[(i64, usize)], hashes: &RowHashes<'_>, ranks: Option<&arrow::row::Rows>) -> Result<Option<(i64, usize)>> {
    let Some((&first, rest)) = versions.split_first() else { return Ok(None) };
    let (mut best, mut is_single) = (first, true);
    for &other in rest {
        let order = ranks.map_or(Ordering::Equal, |ranks| ranks.row(other.1).cmp(&ranks.row(best.1)));
        match order {
            Ordering::Greater => (best, is_single) = (other, true),
            Ordering::Equal => is_single &= hashes.are_equal(other.1, best.1)?,
            Ordering::Less => {}
        }
    }
    Ok(is_single.then_some(best))
}
