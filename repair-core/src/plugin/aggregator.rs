//! Computes the numbers people look at.

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::model::Findings;
use crate::model::Usage;
use crate::plugin::StepContext;

/// What an aggregator is given.
#[derive(Debug, Clone, Copy)]
pub struct AggregateRequest<'a> {
    /// The latest findings about the table: what was expected, and what is still missing. `None` if no detect step has run.
    pub findings: Option<&'a Findings>,
}

/// What an aggregator did.
#[derive(Debug, Clone)]
pub struct Aggregated {
    /// What later conditions see as `$output`.
    pub output: Value,
    /// What it took.
    pub usage: Usage,
}

/// Computes a table from the repaired view of others.
#[async_trait]
pub trait Aggregator: Send + Sync {
    /// Computes and writes. To do it twice is to do it once.
    ///
    /// # Errors
    /// With the kind that tells the workflow what to do.
    async fn aggregate(&self, context: &StepContext, request: AggregateRequest<'_>) -> Result<Aggregated>;
}
