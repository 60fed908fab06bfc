//! Finds what is wrong.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::Findings;
use crate::plugin::StepContext;

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

    /// The columns of which it finds wrong cells, in groups: the cells of a group are found wrong together. Columns have the names by which the
    /// configuration calls them. Empty for a detector that finds missing or wrong rows. A comparison of strategies hides such cells.
    fn cells(&self) -> Vec<Vec<String>> {
        Vec::new()
    }
}
