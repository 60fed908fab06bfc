//! Repairs what a detector found.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::Usage;
use crate::model::{Findings, Fix, Unit};
use crate::plugin::StepContext;

/// Units of work, one after the other, so that a plan of millions need not fit in memory.
pub type Units = Box<dyn Iterator<Item = Result<Unit>> + Send>;

/// How often a repairer reads its table, for a plan of what it will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Not at all.
    Nothing,
    /// Once for all units, from the first gap to the last.
    Once,
    /// For each unit, about as much as lies there.
    EachUnit,
}

/// One repair idea.
#[async_trait]
pub trait Repairer: Send + Sync {
    /// Cuts the work into units. What it returns is fixed then: a visit of the step is planned once, unless it is interrupted while it
    /// plans. No two units may be the same work.
    ///
    /// # Errors
    /// If the work cannot be planned.
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<Units>;

    /// What a unit takes at worst: so much is set aside in the budget, if there is one, before it starts. One call, unless said otherwise.
    fn worst(&self, _context: &StepContext, _unit: &Unit) -> Usage {
        Usage { source_requests: 1, ..Usage::default() }
    }

    /// How often it reads its table. For each unit, unless said otherwise.
    fn reads(&self) -> Reads {
        Reads::EachUnit
    }

    /// Does one unit. Rows and absences must be of its wanted slots; the engine checks, stages and publishes them.
    ///
    /// # Errors
    /// With the kind that tells the workflow what to do.
    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix>;
}
