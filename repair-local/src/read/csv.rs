//! CSV files with a header. Columns are found by name, so files may order them differently.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::{BufReader as CsvReader, Format};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use repair_core::cost::Usage;
use repair_core::model::Table;
use repair_core::{Error, Result};

use super::text::{self, INFER_ROWS, Lines};
use super::{BATCH_ROWS, Sink};
use crate::files::{self, DataFile};

const BUFFER_BYTES: usize = 1 << 18;

/// Rows of a batch follow each other, a line each, after a header of one line.
struct FromLine(u64);

impl Lines for FromLine {
    fn line(&self, row: usize) -> u64 {
        self.0 + row as u64
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid("not readable as CSV with a header; mend the line, or restore the file").because(error)
}

/// Opens a file after its byte-order mark, which spreadsheets write.
fn open(file: &DataFile) -> Result<BufReader<File>> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, files::open(&file.path)?);
    let start = reader.fill_buf().map_err(|error| files::io_error(error, "read", &file.path))?;
    if start.starts_with(b"\xEF\xBB\xBF") {
        reader.consume(3);
    }
    Ok(reader)
}

/// The names in the header.
fn header(file: &DataFile) -> Result<Vec<String>> {
    let mut reader = open(file)?;
    if reader.fill_buf().map_err(|error| files::io_error(error, "read", &file.path))?.is_empty() {
        return Err(Error::invalid("the file is empty: not even a header line; its writer failed: remove it, or write it again"));
    }
    let (schema, _) = Format::default().with_header(true).infer_schema(reader, Some(0)).map_err(broken)?;
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Error::invalid(format!("the header names column `{}` twice; rename one", twice.1)));
    }
    Ok(names)
}

/// Reads columns as text.
fn reader(file: &DataFile, names: &[String], projection: Vec<usize>) -> Result<CsvReader<BufReader<File>>> {
    let fields: Vec<Field> = names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_header(true)
        .with_batch_size(BATCH_ROWS)
        .with_projection(projection)
        .build_buffered(open(file)?)
        .map_err(broken)
}

/// The columns, of types that their first rows are of; null if those hold nothing.
pub(crate) fn columns(file: &DataFile) -> Result<SchemaRef> {
    let names = header(file)?;
    let mut types = vec![DataType::Null; names.len()];
    let mut rows = 0;
    for batch in reader(file, &names, (0..names.len()).collect())? {
        let batch = batch.map_err(broken)?;
        for (kind, column) in types.iter_mut().zip(batch.columns()) {
            for text in column.as_string::<i32>().iter().flatten() {
                if *kind == DataType::Utf8 {
                    break;
                }
                *kind = text::widen(kind, &text::type_of(text));
            }
        }
        rows += batch.num_rows();
        if rows >= INFER_ROWS {
            break;
        }
    }
    let fields: Vec<Field> = names.into_iter().zip(types).map(|(name, kind)| Field::new(name, kind, true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Reads the columns of `shape` that the file has.
pub(crate) fn rows(table: &Table, file: &DataFile, shape: &SchemaRef, sink: &mut Sink<'_>) -> Result<Usage> {
    let names = header(file)?;
    let projection: Vec<usize> = (0..names.len()).filter(|&at| shape.field_with_name(&names[at]).is_ok()).collect();
    let mut lines = FromLine(2);
    for batch in reader(file, &names, projection)? {
        let batch = batch.map_err(broken)?;
        let rows = batch.num_rows() as u64;
        if sink(parsed(table, shape, &batch, &lines)?)? == ControlFlow::Break(()) {
            break;
        }
        lines.0 += rows;
    }
    Ok(Usage { bytes_scanned: file.bytes, ..Usage::default() })
}

/// The columns of text, as what they are in `shape`.
pub(crate) fn parsed(table: &Table, shape: &Schema, batch: &RecordBatch, lines: &dyn Lines) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name();
        let target = shape.field_with_name(name).map_or(&DataType::Utf8, Field::data_type);
        let column = match column.as_string_opt::<i32>() {
            None => column.clone(),
            Some(text) if *name == table.time => text::times(name, text, lines)?,
            Some(text) => text::values(name, text, target, lines)?,
        };
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}
