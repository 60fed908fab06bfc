//! Rows as Parquet.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::{Encode, unwritten};
use repair_core::lake::shape;
use repair_core::{Error, Result};

/// A group of rows is written when it has this size in memory.
const MAX_WAITING_BYTES: usize = 64 << 20;

pub(super) struct Parquet {
    out: Option<Box<dyn Write + Send>>,
    writer: Option<ArrowWriter<Box<dyn Write + Send>>>,
    name: String,
}

impl Parquet {
    pub(super) fn new(out: Box<dyn Write + Send>, name: String) -> Self {
        Self { out: Some(out), writer: None, name }
    }

    fn failed(&self, error: ParquetError) -> Error {
        // The disk's own errors pass through the writer.
        match error {
            ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(error) => unwritten(&self.name, *error),
                Err(source) => Error::invalid("the rows cannot be written as Parquet").because(source),
            },
            other => Error::invalid("the rows cannot be written as Parquet").because(other),
        }
    }

    fn begun(&mut self) -> Result<&mut ArrowWriter<Box<dyn Write + Send>>> {
        self.writer.as_mut().ok_or_else(|| Error::invalid("there are no rows, so nothing says which columns a Parquet file would have"))
    }
}

impl Encode for Parquet {
    fn begin(&mut self, schema: &SchemaRef) -> Result<()> {
        let Some(out) = self.out.take() else { return Ok(()) };
        // Every tool reads Snappy.
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let plain = |field: &FieldRef| field.as_ref().clone().with_data_type(shape::plain_type(field.data_type()));
        let schema = Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()));
        self.writer = Some(ArrowWriter::try_new(out, schema, Some(properties)).map_err(|error| self.failed(error))?);
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let plain = |column: &ArrayRef| shape::cast_strict(column, &shape::plain_type(column.data_type()));
        let columns = batch.columns().iter().map(plain).collect::<Result<Vec<_>>>()?;
        let writer = self.begun()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let fields = batch.schema_ref().fields().iter().zip(&columns);
        let fields: Vec<Field> = fields.map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone())).collect();
        let batch = &RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let mut written = writer.write(batch);
        if written.is_ok() && writer.in_progress_size() > MAX_WAITING_BYTES {
            written = writer.flush();
        }
        written.map_err(|error| self.failed(error))
    }

    fn finish(&mut self) -> Result<()> {
        let writer = self.begun()?;
        let finished = writer.finish().map(drop);
        finished.map_err(|error| self.failed(error))?;
        let flushed = self.begun()?.inner_mut().flush();
        flushed.map_err(|error| unwritten(&self.name, error))
    }
}
