//! Finds what is wrong.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::Findings;
use crate::plugin::StepContext;

/// Finds what is wrong with a table.
#[async_trait]
pub trait Detector: Send + Sync {
    /// Looks. With `again`, which an earlier look found, it looks only at the gaps found then: `counts` are over those slots alone, and
    /// the scope stays as it was.
    ///
    /// # Errors
    /// `blind` (or the lake's error) if it could not look at everything; never findings over a part.
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings>;
}
