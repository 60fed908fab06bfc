//! The task `sql`: runs a user's query, so that later steps can decide by what it gives. It only reads.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use futures::TryStreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::builtin::sql;
use crate::error::{Error, Result};
use crate::model::Usage;
use crate::plugin::{QueryRows, Registry, StepContext, Task, UserQuery};
use crate::workflow::MapStep;

/// How many rows the output holds, unless the step says.
const MOST_ROWS: usize = 100;
/// How many bytes the list may have if the step says how many rows it holds, as JSON: the journal keeps it.
const MAX_LIST_BYTES: usize = 1024 * 1024;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqlConfig {
    /// The query, in the lake's own dialect. The output of the step is `rows`, how many rows it gives, `first`, the first of them, and `list`, the first
    /// hundred, each with its columns by name.
    query: String,
    /// Values that the query may name, as `:name`, beside `:now` and the parameters of the run.
    #[serde(default)]
    values: BTreeMap<String, Value>,
    /// How many rows `list` holds at most: 100 by default, and up to 10,000.
    #[serde(default)]
    list: Option<usize>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.task("sql", "runs a query, by which later steps decide", |config: SqlConfig| {
        sql::check(&config.query, &[], &config.values)?;
        if config.list.is_some_and(|list| list > MapStep::MAX_ITEMS) {
            return Err(Error::invalid(format!("`list` must be at most {}", MapStep::MAX_ITEMS)));
        }
        Ok(Sql { config })
    });
}

/// The task `sql`.
struct Sql {
    config: SqlConfig,
}

#[async_trait]
impl Task for Sql {
    fn query(&self) -> Option<UserQuery<'_>> {
        Some(UserQuery {
            sql: &self.config.query,
            lake: None,
            values: &self.config.values,
            has_interval: false,
            relations: &[],
            rows: QueryRows::Any,
        })
    }

    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        let values = sql::values(context, None, &self.config.values);
        let mut batches = sql::ask(context, &self.config.query, values, BTreeMap::new()).await?;
        let (mut rows, mut list, mut bytes) = (0u64, Vec::new(), 0);
        let most = self.config.list.unwrap_or(MOST_ROWS);
        while let Some(batch) = batches.try_next().await? {
            context.check_cancelled()?;
            rows += batch.num_rows() as u64;
            for row in (0..batch.num_rows()).take(most.saturating_sub(list.len())) {
                let row = as_json(&batch, row)?;
                bytes += row.to_string().len();
                if self.config.list.is_some() && bytes > MAX_LIST_BYTES {
                    return Err(Error::invalid(format!(
                        "the first {} rows of the query have more than {MAX_LIST_BYTES} bytes, which a list may not have; select fewer columns \
                         or rows",
                        list.len() + 1
                    )));
                }
                list.push(row);
            }
        }
        Ok((json!({ "rows": rows, "first": list.first(), "list": list }), Usage::default()))
    }
}

/// A row as a map: numbers, true and false as such, and everything else as text.
fn as_json(batch: &RecordBatch, row: usize) -> Result<Value> {
    let mut map = Map::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let kind = field.data_type();
        // A column of nulls alone has no list of them.
        let value = if column.is_null(row) || *kind == DataType::Null {
            Value::Null
        } else if *kind == DataType::Boolean {
            Value::Bool(column.as_boolean().value(row))
        } else if kind.is_integer() {
            let whole = cast(&column.slice(row, 1), &DataType::Int64)?;
            let whole = whole.as_primitive::<Int64Type>();
            // A number that is too large for this stays text, digit by digit.
            if whole.is_valid(0) { json!(whole.value(0)) } else { Value::String(array_value_to_string(column, row)?) }
        } else if kind.is_floating() {
            json!(cast(&column.slice(row, 1), &DataType::Float64)?.as_primitive::<Float64Type>().value(0))
        } else {
            Value::String(array_value_to_string(column, row)?)
        };
        map.insert(field.name().clone(), value);
    }
    Ok(Value::Object(map))
}
