//! Where missing rows can be asked for.

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::error::Result;
use crate::model::{Interval, Key, Table};
use crate::plugin::StepContext;

/// What one request to a source may ask. Requests are cut to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows that one request may bring, over all its keys.
    pub rows_per_request: u64,
    /// Keys that one request may name.
    pub keys_per_request: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows_per_request: 10_000, keys_per_request: 1 }
    }
}

/// One request: all rows of these keys whose slots begin within the interval.
#[derive(Debug, Clone)]
pub struct Request {
    /// The table the rows are for: names of key and time columns, cadence.
    pub table: Table,
    /// Whose rows.
    pub keys: Vec<Key>,
    /// Which stretch of time.
    pub interval: Interval,
}

/// A stretch of time for which a source vouches: what it did not return there, did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// Of which key.
    pub key: Key,
    /// From when to when.
    pub interval: Interval,
}

/// What a source answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Rows in the lake's shape: key columns as UTF-8, the time column as microseconds in UTC, values beside them.
    pub rows: Vec<RecordBatch>,
    /// Where silence means that nothing happened. Only an explicit answer belongs here; a key the source does not know does not.
    pub covered: Vec<Covered>,
    /// How many requests it took, each page one.
    pub requests: u64,
    /// What it said, in a few words, as evidence.
    pub said: String,
}

/// Where missing rows can be asked for. Whether its answers are believable, and what they prove, is decided in the core.
#[async_trait]
pub trait Source: Send + Sync {
    /// What one request may ask.
    fn limits(&self) -> Limits;

    /// How many requests one [`Source::fetch`] makes at worst, each page one: so many calls are set aside before it is asked. A source that
    /// makes more breaks budgets.
    fn requests_at_worst(&self) -> u64 {
        1
    }

    /// Checks, before a run begins, what can be known without asking: that the keys it needs are there. A key belongs in the environment,
    /// and must not be looked for when the source is made, as a workflow is read also where it is never run.
    ///
    /// # Errors
    /// `denied`, with what to set.
    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Asks. Must be safe to ask again.
    ///
    /// # Errors
    /// `throttled` with a wait hint, `denied`, `transient`, `timeout` or `invalid`, as the source says. A key the source does not know
    /// is no error: its rows are simply not there, nor is it covered.
    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer>;
}
