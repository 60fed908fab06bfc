//! A place to request missing rows from.

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::error::Result;
use crate::model::{Interval, Key, Table};
use crate::plugin::{StepContext, UserQuery};

/// What one request to a source may ask for. Requests are cut to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Rows that one request may bring, over all its keys.
    pub rows_per_request: u64,
    /// Keys that one request may name.
    pub keys_per_request: usize,
}

impl Limits {
    /// Limits of one request: rows over all its keys, and keys.
    pub const fn new(rows_per_request: u64, keys_per_request: usize) -> Self {
        Self { rows_per_request, keys_per_request }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(10_000, 1)
    }
}

/// One request: all rows of these keys whose slots begin within the interval.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The table the rows are for: the names of its key and time columns, its cadence.
    pub table: Table,
    /// The keys whose rows are wanted. None if the table has `rows: unique`, since nothing says which there are: then all rows are wanted.
    pub keys: Vec<Key>,
    /// The stretch of time.
    pub interval: Interval,
}

impl Request {
    /// A request for all rows of these keys within the interval.
    pub fn new(table: Table, keys: Vec<Key>, interval: Interval) -> Self {
        Self { table, keys, interval }
    }
}

/// A stretch of time for which a source vouches: what it did not return there did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// The key. One without values stands for all keys, in an answer about a table with `rows: unique`.
    pub key: Key,
    /// The stretch of time.
    pub interval: Interval,
}

/// The answer of a source.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Answer {
    /// Rows in the lake's shape: key columns as UTF-8, the time column as microseconds in UTC, then the values.
    pub rows: Vec<RecordBatch>,
    /// Where silence means that nothing happened. Only an explicit answer belongs here; a key that the source does not know does not.
    pub covered: Vec<Covered>,
    /// How many requests it took, each page one.
    pub requests: u64,
    /// What the source said, in a few words, as evidence.
    pub said: String,
}

impl Answer {
    /// Rows that one request brought.
    pub fn new(rows: Vec<RecordBatch>) -> Self {
        Self { rows, requests: 1, ..Self::default() }
    }

    /// Where silence means that nothing happened.
    #[must_use]
    pub fn with_covered(mut self, covered: Vec<Covered>) -> Self {
        self.covered = covered;
        self
    }

    /// How many requests it took, each page one.
    #[must_use]
    pub fn with_requests(mut self, requests: u64) -> Self {
        self.requests = requests;
        self
    }

    /// What the source said, in a few words, as evidence.
    #[must_use]
    pub fn with_said(mut self, said: impl Into<String>) -> Self {
        self.said = said.into();
        self
    }
}

/// A place to request missing rows from. Whoever asks decides whether its answers are believable, and what they prove.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
/// use async_trait::async_trait;
/// use repair_core::Result;
/// use repair_core::model::{Cadence, Format, Interval, Key, Table};
/// use repair_core::plugin::{Answer, Covered, Limits, Request, Source, StepContext};
/// use repair_core::testing::{MemoryLake, VirtualClock, context, plugin_suite};
///
/// /// Readings that somebody kept: by sensor, the value at every full hour.
/// struct Kept(BTreeMap<Key, f64>);
///
/// #[async_trait]
/// impl Source for Kept {
///     fn limits(&self) -> Limits {
///         Limits::new(1_000, 1)
///     }
///
///     async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
///         context.check_cancelled()?;
///         let slots = request.table.grid()?.slots_in(&request.interval);
///         let (mut rows, mut covered) = (Vec::new(), Vec::new());
///         // A key that is not known is neither answered nor covered.
///         for (key, value) in request.keys.iter().filter_map(|key| Some((key, self.0.get(key)?))) {
///             let times = (slots.first..slots.end).map(|slot| slot * 3_600_000_000);
///             let columns: [(&str, ArrayRef); 3] = [
///                 ("sensor", Arc::new(StringArray::from(vec![key.to_string(); slots.len() as usize]))),
///                 ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
///                 ("value", Arc::new(Float64Array::from(vec![*value; slots.len() as usize]))),
///             ];
///             rows.push(RecordBatch::try_from_iter(columns)?);
///             covered.push(Covered { key: key.clone(), interval: request.interval });
///         }
///         Ok(Answer::new(rows).with_covered(covered).with_said("the logbook"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let readings = Table::new("readings", Format::Csv, "ts").with_key(["sensor"]).with_cadence(Cadence::HOUR);
/// let context = context(Arc::new(MemoryLake::default()), [readings.clone()], Arc::new(VirtualClock::starting_at("2024-03-05T00:00:00Z".parse()?)));
/// let source = Kept([(Key::from("a"), 20.5)].into());
/// let request = Request::new(readings, vec!["a".into()], Interval::parse("2024-03-04T06:00:00Z", "2024-03-04T09:00:00Z")?);
/// let answer = source.fetch(&context, &request).await?;
/// assert_eq!(answer.rows[0].num_rows(), 3);
/// // The suite checks everything that a source promises; `b` is a key that it does not know.
/// plugin_suite::source(&source, &context, &request, Some(&"b".into())).await;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Source: Send + Sync {
    /// What one request may ask for.
    fn limits(&self) -> Limits;

    /// How many requests one [`Source::fetch`] makes at worst, each page one. A budget reserves this many calls before it asks, so a source
    /// that makes more exceeds budgets.
    fn requests_at_worst(&self) -> u64 {
        1
    }

    /// The SQL that it has the lake run, so that it can be checked before a run begins. The default runs none.
    fn query(&self) -> Option<UserQuery<'_>> {
        None
    }

    /// Checks, before a run begins, what can be known without asking: that the API keys it needs are there. An API key belongs in the
    /// environment, and must not be looked for when the source is made, because a workflow is also read where it is never run.
    ///
    /// # Errors
    /// `denied`, with what to set.
    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Why it does not vouch for what it does not have, although it otherwise would: rows of its files cannot be read, for example. It is asked this when a repair that used it
    /// leaves slots as they were, and the run reports it. By default, there is nothing to say.
    ///
    /// # Errors
    /// Those of looking.
    async fn doubt(&self, context: &StepContext, table: &Table) -> Result<Option<String>> {
        let _ = (context, table);
        Ok(None)
    }

    /// Asks. It must be safe to ask again.
    ///
    /// # Errors
    /// `throttled` with how long to wait, `denied`, `transient`, `timeout` or `invalid`, as the source says. A key that the source does not
    /// know is no error: the answer has no rows for it, and does not cover it.
    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer>;
}
