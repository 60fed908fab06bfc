//! The columns of tables, for plug-ins that turn answers into rows.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use repair_core::model::{ColumnType, Table};
use repair_core::plugin::StepContext;
use repair_core::{ErrorKind, Result};
use tokio::sync::Mutex;

/// Types of columns, by name.
pub(crate) type Types = BTreeMap<String, ColumnType>;

/// The columns of tables, each looked up once.
#[derive(Default)]
pub(crate) struct TableColumns(Mutex<BTreeMap<String, SchemaRef>>);

impl TableColumns {
    /// The columns of a table. Of one that has no file yet, those that it declares, and `others`, if these are given; `None` if there are none.
    pub(crate) async fn of(&self, context: &StepContext, table: &Table, others: Option<&Types>) -> Result<Option<SchemaRef>> {
        let mut known = self.0.lock().await;
        if let Some(columns) = known.get(&table.name) {
            return Ok(Some(columns.clone()));
        }
        match context.lake.describe(table).await {
            Ok(columns) => {
                known.insert(table.name.clone(), columns.clone());
                Ok(Some(columns))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(others.and_then(|others| declared(table, others))),
            Err(error) => Err(error),
        }
    }
}

/// The columns whose types are declared, by the table or else by `others`.
fn declared(table: &Table, others: &Types) -> Option<SchemaRef> {
    let own = table.columns.iter().filter_map(|(name, rule)| Some((name, rule.kind?)));
    let types: BTreeMap<&String, ColumnType> = others.iter().map(|(name, kind)| (name, *kind)).chain(own).collect();
    let fields: Vec<Field> = types.into_iter().map(|(name, kind)| Field::new(name, data_type(kind), true)).collect();
    (!fields.is_empty()).then(|| Schema::new(fields).into())
}

fn data_type(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Integer => DataType::Int64,
        ColumnType::Number => DataType::Float64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
        _ => DataType::Utf8,
    }
}
