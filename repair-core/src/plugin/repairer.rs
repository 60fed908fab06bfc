//! Repairs what a detector found.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::Usage;
use crate::model::{AnswerPrint, Findings, Fix, Table, Unit};
use crate::plugin::{StepContext, UserQuery};

/// Units of work, one after the other, so that a plan of millions need not fit in memory.
pub type PlannedUnits = Box<dyn Iterator<Item = Result<Unit>> + Send>;

/// How often a repairer reads its table, for the estimate of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Not at all.
    Nothing,
    /// Once for all units, from the first gap to the last.
    Once,
    /// Once for each unit, about as much as lies within it.
    EachUnit,
}

/// Repairs in one way what a detector found.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
/// use async_trait::async_trait;
/// use repair_core::model::{Cadence, Findings, Fix, Format, Table, Unit, Wanted};
/// use repair_core::plugin::{Detector, PlannedUnits, Plugin, PluginKind, Registry, Repairer, StepContext};
/// use repair_core::testing::{MemoryLake, VirtualClock, context, plugin_suite};
/// use repair_core::{Error, Result};
///
/// /// Writes a constant value into every missing slot of a table without key columns.
/// struct Constant(f64);
///
/// #[async_trait]
/// impl Repairer for Constant {
///     async fn plan(&self, _: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
///         let (grid, gaps) = (findings.scope.grid, findings.gaps.iter().map(|(key, gap)| (key.clone(), gap)).collect::<Vec<_>>());
///         Ok(Box::new(gaps.into_iter().map(move |(key, gap)| {
///             let interval = grid.interval_of(gap).ok_or_else(|| Error::invalid("a gap is out of the range of instants"))?;
///             Ok(Unit { interval, wanted: vec![Wanted { key, slots: vec![gap] }] })
///         })))
///     }
///
///     async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
///         context.check_cancelled()?;
///         let grid = findings.scope.grid;
///         let slots: Vec<i64> = unit.wanted.iter().flat_map(|wanted| &wanted.slots).flat_map(|gap| gap.first..gap.end).collect();
///         let times = slots.iter().map(|slot| grid.time_of_seconds(*slot) * 1_000_000);
///         let columns: [(&str, ArrayRef); 2] = [
///             ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
///             ("value", Arc::new(Float64Array::from(vec![self.0; slots.len()]))),
///         ];
///         Ok(Fix { rows: vec![RecordBatch::try_from_iter(columns)?], source: "constant".to_owned(), ..Fix::default() })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let readings = Table::new("readings", Format::Csv, "ts").with_cadence(Cadence::HOUR);
/// let midnight: jiff::Timestamp = "2024-03-04T00:00:00Z".parse()?;
/// let hours: Vec<i64> = (0..24).filter(|hour| *hour != 15).map(|hour| midnight.as_microsecond() + hour * 3_600_000_000).collect();
/// let columns: [(&str, ArrayRef); 2] = [
///     ("value", Arc::new(Float64Array::from(vec![1.0; hours.len()]))),
///     ("ts", Arc::new(TimestampMicrosecondArray::from(hours).with_timezone("UTC"))),
/// ];
/// let lake = MemoryLake::default();
/// lake.put_table(&readings, &[RecordBatch::try_from_iter(columns)?])?;
/// let context = context(Arc::new(lake), [readings], Arc::new(VirtualClock::starting_at("2024-03-05T00:00:00Z".parse()?)));
///
/// let with = serde_json::json!({ "table": "readings", "from": "2024-03-04", "to": "2024-03-04" });
/// let Plugin::Detector(gaps) = Registry::default().make(PluginKind::Detector, "gaps", &with)? else { unreachable!() };
/// let findings = gaps.detect(&context, None).await?;
/// let units: Vec<Unit> = Constant(0.0).plan(&context, &findings).await?.collect::<Result<_>>()?;
/// assert_eq!(units.len(), 1);
/// // The suite checks everything that a repairer promises.
/// plugin_suite::repairer(&Constant(0.0), &context, &findings).await;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Repairer: Send + Sync {
    /// Cuts the work into units. The list is fixed then: a visit of the step is planned once, unless it is interrupted while it plans. No two
    /// units may be the same work.
    ///
    /// # Errors
    /// If the work cannot be planned.
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits>;

    /// What a unit uses at worst. If there is a budget, this much is reserved before the unit starts. The default is one call.
    fn worst(&self, _context: &StepContext, _unit: &Unit) -> Usage {
        Usage { source_requests: 1, ..Usage::default() }
    }

    /// The SQL that it has the lake run, so that it can be checked before a run begins. The default runs none.
    fn query(&self) -> Option<UserQuery<'_>> {
        None
    }

    /// How often it reads its table. The default is once for each unit.
    fn reads(&self) -> Reads {
        Reads::EachUnit
    }

    /// Recalls what earlier attempts of this visit remembered of the answers of a source ([`Fix::answers`]). It is called before the first
    /// unit of an attempt. The default forgets.
    fn recall(&self, _answers: &[AnswerPrint]) {}

    /// Whether the order of the files of a table decides. A lake whose rows have no such order is then refused before the run begins, and in a plan.
    fn needs_files(&self, _table: &Table) -> bool {
        false
    }

    /// Does one unit. Rows and absences must belong to its wanted slots; the engine checks, stages and publishes them.
    ///
    /// # Errors
    /// Of the kind by which the workflow decides what to do.
    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix>;
}
