//! Finds what is wrong.

use async_trait::async_trait;

use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::model::{Findings, GapList, Interval};
use crate::plugin::StepContext;
use crate::plugin::UserQuery;

/// Takes gaps as a detector finds them.
#[derive(Debug, Clone)]
pub struct GapSink(mpsc::Sender<GapList>);

impl GapSink {
    /// A sink that holds one list, until it is taken from the other end.
    pub fn new() -> (Self, mpsc::Receiver<GapList>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Hands over gaps of one stretch of time: in order of key, then time. Those of a key come after all that were handed over before.
    ///
    /// # Errors
    /// If nobody takes them any more.
    pub async fn put(&self, gaps: GapList) -> Result<()> {
        self.0.send(gaps).await.map_err(|_| Error::internal("the gaps that a detector finds are no longer taken"))
    }
}

/// What a detector asks of a source, or of a program that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asks {
    /// The source.
    pub source: String,
    /// The table that it compares with the source.
    pub table: String,
    /// The interval.
    pub interval: Interval,
    /// The slots that it asks for.
    pub slots: u64,
    /// The requests that it makes.
    pub requests: u64,
    /// The calls that one of them takes at worst.
    pub calls_at_worst: u64,
    /// How often it reads what the table has in the interval, at most.
    pub reads: u64,
    /// How often it reads that at least.
    pub least_reads: u64,
    /// The program that it runs; `None` if it asks a source.
    pub program: Option<String>,
}

impl Asks {
    /// So many requests to a source, for slots of a table in an interval. Each takes one call, and the table is read once.
    pub fn new(source: impl Into<String>, table: impl Into<String>, interval: Interval, slots: u64, requests: u64) -> Self {
        Self {
            source: source.into(),
            table: table.into(),
            interval,
            slots,
            requests,
            calls_at_worst: 1,
            reads: 1,
            least_reads: 1,
            program: None,
        }
    }

    /// It asks no source but this program, and `source` is the name under which a price book has the price of a call.
    #[must_use]
    pub fn of_program(mut self, program: impl Into<String>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// The calls that one request takes at worst.
    #[must_use]
    pub fn with_calls_at_worst(mut self, calls: u64) -> Self {
        self.calls_at_worst = calls.max(1);
        self
    }

    /// How often it reads what the table has in the interval, at least and at most.
    #[must_use]
    pub fn with_reads(mut self, least: u64, most: u64) -> Self {
        (self.least_reads, self.reads) = (least, most.max(least));
        self
    }
}

/// Finds what is wrong with a table.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
/// use async_trait::async_trait;
/// use repair_core::Result;
/// use repair_core::builtin::detect::find_gaps;
/// use repair_core::model::{Cadence, Findings, Format, Interval, Scope, Table};
/// use repair_core::plugin::{Detector, StepContext};
/// use repair_core::testing::{MemoryLake, VirtualClock, context, plugin_suite};
///
/// /// Expects a row for every hour of the day before the run.
/// struct Yesterday {
///     table: String,
/// }
///
/// #[async_trait]
/// impl Detector for Yesterday {
///     async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
///         let table = context.table(&self.table)?;
///         let scope = Scope {
///             table: table.name.clone(),
///             grid: table.grid()?,
///             keys: vec![Default::default()], // a table without key columns is one series
///             interval: Interval::parse_at("yesterday", "yesterday", &table.day_zone(), context.now)?,
///             calendar: "24x7".to_owned(),
///             lifetimes: Default::default(),
///         };
///         find_gaps(context, &scope, again).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let readings = Table::new("readings", Format::Csv, "ts").with_cadence(Cadence::HOUR);
/// let midnight: jiff::Timestamp = "2024-03-04T00:00:00Z".parse()?;
/// let hours = (0..24).filter(|hour| *hour != 15).map(|hour| midnight.as_microsecond() + hour * 3_600_000_000);
/// let times = TimestampMicrosecondArray::from_iter_values(hours).with_timezone("UTC");
/// let lake = MemoryLake::default();
/// lake.put_table(&readings, &[RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef)])?])?;
///
/// let clock = VirtualClock::starting_at("2024-03-05T06:00:00Z".parse()?);
/// let context = context(Arc::new(lake), [readings], Arc::new(clock));
/// let detector = Yesterday { table: "readings".to_owned() };
/// let found = detector.detect(&context, None).await?;
/// assert_eq!((found.counts.expected, found.counts.missing), (24, 1));
/// // The suite checks everything that a detector promises.
/// plugin_suite::detector(&detector, &context).await;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Detector: Send + Sync {
    /// Looks. With `again`, the findings of an earlier look, it looks only at the gaps found then: `counts` are over those slots alone, and
    /// the scope stays as it was.
    ///
    /// # Errors
    /// `blind` (or the lake's error) if it could not look at everything; never findings over a part.
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings>;

    /// As [`Detector::detect`], but gaps may be handed to `sink` as they are found, so that they need not fit in memory. Findings whose gaps were
    /// handed over have none of their own; all else in them, the counts among it, is of all gaps. What has judged rows, wrong cells or rows to be
    /// removed keeps its gaps.
    ///
    /// # Errors
    /// As [`Detector::detect`]; what was handed over until then does not count.
    async fn detect_into(&self, context: &StepContext, again: Option<&Findings>, _sink: &GapSink) -> Result<Findings> {
        self.detect(context, again).await
    }

    /// What a first look rests on, as a digest: the table and its overlay as they are listed, what is expected, and the configuration. As long as
    /// it stays the same, and until [`Findings::hold_until`], another look would find the same, so the engine takes the earlier findings over.
    /// `None` if the detector cannot say, and then it always looks.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    async fn rests_on(&self, _context: &StepContext) -> Result<Option<String>> {
        Ok(None)
    }

    /// The SQL that it has the lake run, so that it can be checked before a run begins. The default runs none.
    fn query(&self) -> Option<UserQuery<'_>> {
        None
    }

    /// The columns of which it finds wrong cells, in groups: the cells of a group are found wrong together. Columns have the names by which the
    /// configuration calls them. Empty for a detector that finds missing or wrong rows. A comparison of strategies hides such cells.
    fn cells(&self) -> Vec<Vec<String>> {
        Vec::new()
    }

    /// What [`Detector::detect`] would ask of a source, if it asks one. To find out, it asks none. A plan and a comparison, which ask no source to
    /// find something, do not call `detect` then.
    ///
    /// A detector asks only the sources of its context, and what it calls by itself it counts by [`StepContext::calls`]. The engine reserves all of these
    /// calls in budgets, so they are not in the usage of the findings.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    async fn asks(&self, _context: &StepContext) -> Result<Option<Asks>> {
        Ok(None)
    }
}
