//! Athena's JSON protocol.

use serde_json::Value;

use crate::catalog::Catalog;
use crate::faults::Faults;
use crate::server::AwsError;
use crate::store::Store;

/// Athena over a store and a catalog. Clones share everything.
#[derive(Clone, Debug)]
pub struct Athena {}

impl Athena {
    /// Athena with no query yet.
    pub fn new(_store: &Store, _catalog: &Catalog, _faults: &Faults) -> Self {
        Self {}
    }

    /// Answers one request.
    #[expect(clippy::unused_async, reason = "queries will be awaited")]
    pub async fn handle(&self, operation: &str, _input: Value) -> Result<Value, AwsError> {
        Err(AwsError::unknown_operation(operation))
    }
}
