//! Repairs what a detector found.

use async_trait::async_trait;

use super::context::StepContext;
use crate::error::Result;
use crate::model::{Findings, Fix, Unit};

/// One repair idea.
#[async_trait]
pub trait Repairer: Send + Sync {
    /// Cuts the work into units. Called once a visit; what it returns is fixed then.
    ///
    /// # Errors
    /// If the work cannot be planned.
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<Vec<Unit>>;

    /// Does one unit. Rows and absences must be of its wanted slots; the engine checks, stages and publishes them.
    ///
    /// # Errors
    /// With the kind that tells the workflow what to do.
    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix>;
}
