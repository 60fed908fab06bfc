//! Glue's JSON protocol, the catalog's calls.

use serde_json::Value;

use crate::catalog::Catalog;
use crate::server::AwsError;

/// Glue over a catalog. Clones share everything.
#[derive(Clone, Debug)]
pub struct Glue {}

impl Glue {
    /// Glue over a catalog.
    pub fn new(_catalog: &Catalog) -> Self {
        Self {}
    }

    /// Answers one request.
    #[expect(clippy::unused_async, reason = "the shape of Athena's")]
    pub async fn handle(&self, operation: &str, _input: Value) -> Result<Value, AwsError> {
        Err(AwsError::unknown_operation(operation))
    }
}
