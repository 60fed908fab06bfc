//! The columns of tables, for plug-ins that turn answers into rows.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use repair_core::model::Table;
use repair_core::plugin::StepContext;
use repair_core::{ErrorKind, Result};
use tokio::sync::Mutex;

/// The columns of tables, each looked up once.
#[derive(Default)]
pub(crate) struct TableColumns(Mutex<BTreeMap<String, SchemaRef>>);

impl TableColumns {
    /// The columns of a table; `None` if it has no file yet.
    pub(crate) async fn of(&self, context: &StepContext, table: &Table) -> Result<Option<SchemaRef>> {
        let mut known = self.0.lock().await;
        if let Some(columns) = known.get(&table.name) {
            return Ok(Some(columns.clone()));
        }
        match context.lake.describe(table).await {
            Ok(columns) => {
                known.insert(table.name.clone(), columns.clone());
                Ok(Some(columns))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
