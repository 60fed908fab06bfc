//! Looks whether something has happened outside.

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::plugin::StepContext;

/// Looks at something outside, such as whether a file has landed; a `wait` polls it until its condition holds.
#[async_trait]
pub trait Sensor: Send + Sync {
    /// Looks once.
    ///
    /// # Errors
    /// If it could not look.
    async fn sense(&self, context: &StepContext) -> Result<Value>;
}
