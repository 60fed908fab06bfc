//! Reading files: whatever the format, rows come out in the shape of the lake's batches. Every error names its file.

mod csv;
mod jsonl;
pub(crate) mod parquet;
mod text;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use ::arrow::datatypes::{Field, Schema, SchemaRef};
use repair_core::model::Usage;
use repair_core::model::{Format, Table};
use repair_core::{Error, Result};

use crate::files::DataFile;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::shape;

/// Rows in a batch: enough to make the cost of each batch small, few enough that a batch of a wide table is small.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// Receives batches; breaks when no more are wanted.
pub(crate) type Sink<'a> = dyn FnMut(RecordBatch) -> Result<ControlFlow<()>> + 'a;

/// The columns of a file as it has them; for a text file, as inferred from its first rows.
pub(crate) fn columns(format: Format, file: &DataFile) -> Result<SchemaRef> {
    guarded(file, || match format {
        Format::Parquet => Ok(parquet::open(file)?.schema()),
        Format::Csv => csv::columns(file),
        Format::Jsonl => jsonl::columns(file),
        other => Err(unreadable(other)),
    })
}

/// Reads the columns of `shape` from a file of a table. Rows outside the bounds may come too: only those pieces of the file are left out
/// that are known to hold none.
pub(crate) fn rows(table: &Table, file: &DataFile, shape: &SchemaRef, bounds: &TimeBounds, sink: &mut Sink<'_>) -> Result<Usage> {
    guarded(file, || {
        let mut rows_read = 0;
        let mut into_shape = |batch: RecordBatch| {
            rows_read += batch.num_rows() as u64;
            sink(to_shape(table, file, shape, &batch)?)
        };
        let mut usage = match table.format {
            Format::Parquet => {
                let opened = parquet::open(file)?;
                let names: Vec<&str> = shape.fields().iter().map(|field| field.name().as_str()).collect();
                let groups = opened.groups(table, bounds)?;
                opened.read(&names, groups, BATCH_ROWS, &mut into_shape)?
            }
            Format::Csv => csv::rows(table, file, shape, &mut into_shape)?,
            Format::Jsonl => jsonl::rows(table, file, shape, &mut into_shape)?,
            other => return Err(unreadable(other)),
        };
        usage.rows_read = rows_read;
        Ok(usage)
    })
}

fn unreadable(format: Format) -> Error {
    Error::invalid(format!("files of the format {} cannot be read here; write `format: parquet`, `csv` or `jsonl`", format.as_str()))
}

/// Names the file in every error, and turns a panic into an error: a damaged file can make a decoder panic, and one bad file must not take
/// the program down.
pub(crate) fn guarded<T>(file: &DataFile, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(Error::invalid("the file is damaged; restore or remove it")));
    result.map_err(|error| error.on("file", file.path.display()))
}

fn to_shape(table: &Table, file: &DataFile, shape: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(shape.fields().len());
    for field in shape.fields() {
        let name = field.name();
        let found = batch.column_by_name(name);
        columns.push(if *name == table.time {
            Arc::new(shape::instants(table, found.ok_or_else(|| missing("time", table, name, &batch.schema()))?)?)
        } else if table.key.contains(name) {
            match (found, file.hive_value(name)) {
                (Some(column), _) => Arc::new(shape::key_text(table, name, column)?),
                (None, Some(value)) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows))),
                (None, None) => return Err(missing("key", table, name, &batch.schema())),
            }
        } else {
            match found {
                Some(column) => common(table, column, field)?,
                None => new_null_array(field.data_type(), rows),
            }
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(shape.clone(), columns, &options)?)
}

/// The values of a column in its type across all files. Text is parsed; any other value must stay what it is.
fn common(table: &Table, column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let (from, to) = (column.data_type(), field.data_type());
    let cast = if table.format == Format::Parquet { shape::cast_exact(column, to) } else { shape::cast_strict(column, to) };
    cast.map_err(|error| {
        let name = field.name();
        let why = format!(
            "column `{name}` is {from} in this file and {to} across all files of table `{}`, and not every value of the file is the same as {to}; \
             write the column with one type in all files",
            table.name
        );
        Error::invalid(why).because(error)
    })
}

/// Checks that a file has the table's key and time columns, of usable types.
pub(crate) fn check(table: &Table, file: &DataFile, columns: &Schema) -> Result<()> {
    let check = || {
        for key in &table.key {
            match columns.field_with_name(key) {
                Ok(field) if table.format == Format::Parquet => shape::check_key_type(table, key, field.data_type())?,
                Ok(_) => {}
                Err(_) if file.hive_value(key).is_some() => {}
                Err(_) => return Err(missing("key", table, key, columns)),
            }
        }
        let time = columns.field_with_name(&table.time).map_err(|_| missing("time", table, &table.time, columns))?;
        // In text files, times are parsed by us, whatever type was inferred.
        if table.format == Format::Parquet { shape::check_time_type(table, time.data_type()) } else { Ok(()) }
    };
    check().map_err(|error: Error| error.on("file", file.path.display()))
}

fn missing(role: &str, table: &Table, column: &str, columns: &Schema) -> Error {
    let setting = if role == "key" { "key" } else { "time" };
    Error::invalid(format!("no {role} column `{column}`; {}; correct `{setting}` of table `{}`", shape::names(columns), table.name))
}
