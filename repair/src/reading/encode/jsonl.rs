//! Rows as JSON lines: one object for each row, with all columns, nulls too.

use std::io::{self, Write};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::json::WriterBuilder;
use arrow::json::writer::{LineDelimited, Writer};

use super::csv::in_utc;
use super::{Encode, parquet_instead, unwritten};
use repair_core::{Error, Result};

pub(super) struct Jsonl {
    lines: Writer<Box<dyn Write + Send>, LineDelimited>,
    name: String,
}

impl Jsonl {
    pub(super) fn new(out: Box<dyn Write + Send>, name: String) -> Self {
        Self { lines: WriterBuilder::new().with_explicit_nulls(true).build(out), name }
    }
}

impl Encode for Jsonl {
    fn begin(&mut self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if !is_finite(column) {
                let message = format!("JSON has no infinite numbers and no NaN, and column `{}` holds one", field.name());
                return Err(Error::invalid(message).hint(parquet_instead()));
            }
        }
        let columns = in_utc(batch)?;
        let of = |(field, column): (&std::sync::Arc<Field>, &ArrayRef)| field.as_ref().clone().with_data_type(column.data_type().clone());
        let schema = Schema::new(batch.schema_ref().fields().iter().zip(&columns).map(of).collect::<Vec<_>>());
        let batch = RecordBatch::try_new(std::sync::Arc::new(schema), columns)?;
        self.lines.write(&batch).map_err(|error| self.failed(error))
    }

    fn finish(&mut self) -> Result<()> {
        self.lines.finish().map_err(|error| self.failed(error))?;
        self.lines.get_mut().flush().map_err(|error| unwritten(&self.name, error))
    }
}

impl Jsonl {
    fn failed(&self, error: arrow::error::ArrowError) -> Error {
        match error {
            arrow::error::ArrowError::IoError(message, error) => {
                let kind = error.kind();
                unwritten(&self.name, if message.is_empty() { io::Error::from(kind) } else { io::Error::new(kind, message) })
            }
            other => Error::invalid("a row cannot be written as JSON").hint(parquet_instead()).because(other),
        }
    }
}

/// Whether all numbers of a column, nested ones too, can be written as JSON.
fn is_finite(array: &dyn Array) -> bool {
    match array.data_type() {
        DataType::Float16 => array.as_primitive::<Float16Type>().iter().flatten().all(|value| value.to_f32().is_finite()),
        DataType::Float32 => array.as_primitive::<Float32Type>().iter().flatten().all(f32::is_finite),
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().flatten().all(f64::is_finite),
        DataType::Struct(_) => array.as_struct().columns().iter().all(|column| is_finite(column)),
        DataType::List(_) => is_finite(array.as_list::<i32>().values()),
        DataType::LargeList(_) => is_finite(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => is_finite(array.as_fixed_size_list().values()),
        DataType::Map(..) => is_finite(array.as_map().entries()),
        DataType::Dictionary(..) => is_finite(array.as_any_dictionary().values()),
        _ => true,
    }
}
