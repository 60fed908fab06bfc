//! Rows that are given to a user's SQL as tables. They are written as an object and declared as a table for as long as the query runs, so that no
//! statement grows with them.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use repair_core::lake::query::{Bound, Relation};
use repair_core::lake::{overlay, shape};
use repair_core::model::Usage;
use repair_core::{Error, Result};

use crate::lake::AwsLake;
use crate::objects::Condition;
use crate::place::PART;
use crate::write::{encode, in_lower_case};

/// A relation as an object, under a name that follows from its rows.
pub(crate) struct Given {
    /// The table's name.
    pub(crate) name: String,
    /// The folder of its object, within the lake.
    folder: String,
    columns: Vec<(String, String)>,
    body: Bytes,
    rows: u64,
}

impl Given {
    /// # Errors
    /// `invalid` if a column has a type that Athena reads in another way.
    pub(crate) fn of(name: &str, relation: &Relation, on_behalf: &str) -> Result<Self> {
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for field in relation.schema.fields() {
            let (declared, kind) = match field.data_type() {
                DataType::Utf8 => ("string", DataType::Utf8),
                DataType::Int64 => ("bigint", DataType::Int64),
                DataType::Float64 => ("double", DataType::Float64),
                DataType::Boolean => ("boolean", DataType::Boolean),
                DataType::Timestamp(_, Some(_)) => ("timestamp", overlay::instant_type()),
                other => return Err(Error::invalid(format!("column `{}` of `${name}` is {other}, which no query is given", field.name()))),
            };
            columns.push((field.name().to_lowercase(), declared.to_owned()));
            fields.push(Field::new(field.name(), kind, true));
        }
        let schema: SchemaRef = in_lower_case(&Arc::new(Schema::new(fields)));
        let mut batches = Vec::with_capacity(relation.rows.len());
        for batch in &relation.rows {
            let values = schema.fields().iter().zip(batch.columns()).map(|(field, column)| shape::cast_exact(column, field.data_type()));
            batches.push(RecordBatch::try_new(schema.clone(), values.collect::<Result<_>>()?)?);
        }
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let body = encode(&schema, &batches, Vec::new())?;
        // Whoever asks the same at the same time does not remove them from under this query.
        let digest = blake3::Hasher::new().update(on_behalf.as_bytes()).update(&body).finalize().to_hex();
        let digest = digest.get(..24).unwrap_or_default();
        // A folder with such an ending is none of the rows of a table whose location is above it.
        Ok(Self {
            name: format!("repair_given_{name}_{digest}").to_lowercase(),
            folder: overlay::repairs(&format!("given_{digest}")),
            columns,
            body,
            rows,
        })
    }
}

/// A relation as part of a statement: its name, and what it selects.
///
/// # Errors
/// `invalid` if a column is not text.
pub(crate) fn inline(name: &str, relation: &Relation) -> Result<String> {
    let columns = relation.schema.fields().iter().map(|field| quoted(&field.name().to_lowercase())).collect::<Vec<_>>();
    if let Some(other) = relation.schema.fields().iter().find(|field| *field.data_type() != DataType::Utf8) {
        return Err(Error::invalid(format!(
            "column `{}` of `${name}` is {}, which no statement is given",
            other.name(),
            other.data_type()
        )));
    }
    let mut rows: Vec<String> = Vec::new();
    for batch in &relation.rows {
        let values: Vec<&StringArray> = batch.columns().iter().filter_map(|column| column.as_string_opt::<i32>()).collect();
        for row in 0..batch.num_rows() {
            let literals: Vec<String> = values.iter().map(|column| Bound::Text(column.value(row).to_owned()).to_string()).collect();
            rows.push(format!("({})", literals.join(", ")));
        }
    }
    let body = if rows.is_empty() || columns.is_empty() {
        let nothing: Vec<String> = columns.iter().map(|column| format!("CAST(NULL AS varchar) AS {column}")).collect();
        format!("SELECT {} WHERE false", if nothing.is_empty() { "1 AS nothing".to_owned() } else { nothing.join(", ") })
    } else {
        let wide: Vec<String> = columns.iter().map(|column| format!("CAST({column} AS varchar) AS {column}")).collect();
        format!("SELECT {} FROM (VALUES {}) AS given ({})", wide.join(", "), rows.join(", "), columns.join(", "))
    };
    Ok(format!("{} AS ({body})", quoted(name)))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl AwsLake {
    fn folder_of(&self, given: &Given) -> String {
        self.shared.location.join(&given.folder).prefix
    }

    /// Writes and declares them.
    pub(crate) async fn give(&self, all: impl Iterator<Item = &Given>) -> Result<Usage> {
        let mut usage = Usage::default();
        for given in all {
            let folder = self.folder_of(given);
            self.shared.objects.put(&format!("{folder}/{PART}"), given.body.clone(), Condition::Always).await?;
            self.tables().make(&given.name, None, &given.columns, &[], &folder).await?;
            usage += Usage {
                rows_written: given.rows,
                bytes_written: given.body.len() as u64,
                objects_written: 1,
                storage_writes: 1,
                ..Usage::default()
            };
        }
        Ok(usage)
    }

    /// Removes them. What cannot be removed stays, and does no harm.
    pub(crate) async fn withdraw(&self, all: impl Iterator<Item = &Given>) {
        for given in all {
            let dropped = self.tables().drop(&given.name).await;
            let deleted = self.shared.objects.delete(&[format!("{}/{PART}", self.folder_of(given))]).await;
            if let Err(error) = dropped.and(deleted) {
                tracing::warn!(table = given.name, error = error.full(), "a table that was made for a query could not be removed");
            }
        }
    }
}
