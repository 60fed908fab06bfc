//! Anything else a workflow does.

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::model::Usage;
use crate::plugin::StepContext;

/// A step of the user's own.
#[async_trait]
pub trait Task: Send + Sync {
    /// Does it. To do it twice must be to do it once: after a crash it is done again.
    ///
    /// # Errors
    /// With the kind that tells the workflow what to do.
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)>;
}
