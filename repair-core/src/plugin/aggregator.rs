//! Computes the numbers people look at.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::model::Findings;
use crate::model::Table;
use crate::model::Usage;
use crate::plugin::{StepContext, UserQuery};

/// The field of an aggregator's output that lists rows which the repaired views that it read leave out, because their times are off the grid: for
/// each table `table`, `misaligned`, and how many `rows` were looked at. The report of the run lists them.
pub const LEFT_OUT: &str = "left_out";

/// What an aggregator is given.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct AggregateRequest<'a> {
    /// The latest findings about the table: what was expected, and what is still missing. `None` if no detect step has run.
    pub findings: Option<&'a Findings>,
}

impl<'a> AggregateRequest<'a> {
    /// A request with the findings of a detect step, if one has run.
    pub fn new(findings: Option<&'a Findings>) -> Self {
        Self { findings }
    }
}

/// What an aggregator did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Aggregated {
    /// What later conditions see as `$output`.
    pub output: Value,
    /// What it used.
    pub usage: Usage,
}

impl Aggregated {
    /// What later conditions see as `$output`, and nothing used.
    pub fn new(output: impl Into<Value>) -> Self {
        Self { output: output.into(), usage: Usage::default() }
    }

    /// What it used.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }
}

/// Computes a table from the repaired view of others.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
/// use async_trait::async_trait;
/// use futures::TryStreamExt;
/// use repair_core::Result;
/// use repair_core::lake::{Layer, ScanRequest};
/// use repair_core::model::{Format, Interval, Table};
/// use repair_core::plugin::{AggregateRequest, Aggregated, Aggregator, StepContext};
/// use repair_core::testing::{MemoryLake, VirtualClock, context};
///
/// /// Counts the rows of a table, repairs included, and writes the number as the only row of another.
/// struct CountRows {
///     table: String,
///     into: Table,
/// }
///
/// #[async_trait]
/// impl Aggregator for CountRows {
///     async fn aggregate(&self, context: &StepContext, _: AggregateRequest<'_>) -> Result<Aggregated> {
///         let request = ScanRequest::new(Layer::Repaired);
///         let batches: Vec<RecordBatch> = context.lake.scan(context.table(&self.table)?, &request).await?.try_collect().await?;
///         let rows: i64 = batches.iter().map(|batch| batch.num_rows() as i64).sum();
///         let day = Interval::parse("2024-03-04", "2024-03-04")?;
///         let columns: [(&str, ArrayRef); 2] = [
///             ("day", Arc::new(TimestampMicrosecondArray::from(vec![day.from().as_microsecond()]).with_timezone("UTC"))),
///             ("rows", Arc::new(Int64Array::from(vec![rows]))),
///         ];
///         // Replacing the same stretch again has the same effect.
///         let usage = context.lake.replace(&self.into, &day, vec![RecordBatch::try_from_iter(columns)?]).await?;
///         Ok(Aggregated::new(rows).with_usage(usage))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (readings, counts) = (Table::new("readings", Format::Csv, "ts"), Table::new("counts", Format::Csv, "day"));
/// let lake = MemoryLake::default();
/// let times = TimestampMicrosecondArray::from(vec![0, 60_000_000]).with_timezone("UTC");
/// lake.put_table(&readings, &[RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef)])?])?;
///
/// let clock = VirtualClock::starting_at("2024-03-05T00:00:00Z".parse()?);
/// let context = context(Arc::new(lake.clone()), [readings], Arc::new(clock));
/// let count = CountRows { table: "readings".to_owned(), into: counts.clone() };
/// let done = count.aggregate(&context, AggregateRequest::new(None)).await?;
/// assert_eq!(done.output, 2);
/// assert_eq!(lake.rows(&counts, Layer::Raw)?.num_rows(), 1);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Aggregator: Send + Sync {
    /// Checks what can be checked before anything is read: that it may write where it would. `read` is the table whose findings the step gets, if
    /// that is known. A workflow that is refused here is refused when it is validated or planned, and before the first step of a run.
    ///
    /// # Errors
    /// `invalid` if [`Aggregator::aggregate`] would refuse to work on these tables.
    fn check(&self, _tables: &BTreeMap<String, Table>, _read: Option<&str>) -> Result<()> {
        Ok(())
    }

    /// The columns that it reads of tables, beside their keys and times: each table with its columns. They are looked for before a run begins, where
    /// the columns of these tables are known.
    fn columns(&self) -> Vec<(String, Vec<String>)> {
        Vec::new()
    }

    /// The SQL that it has the lake run ([`ReadLake::query`](crate::lake::ReadLake::query)), if it does. The columns that it names are then checked
    /// before anything is written, where the columns of its tables are known.
    fn query(&self) -> Option<UserQuery<'_>> {
        None
    }

    /// Whether it reads which slots were found, so that its request must hold them. Otherwise the request has the scope and the counts of the
    /// findings, and no gaps, which are then not read.
    fn needs_gaps(&self) -> bool {
        true
    }

    /// Computes and writes. Doing it twice has the effect of doing it once.
    ///
    /// # Errors
    /// Of the kind by which the workflow decides what to do.
    async fn aggregate(&self, context: &StepContext, request: AggregateRequest<'_>) -> Result<Aggregated>;
}
