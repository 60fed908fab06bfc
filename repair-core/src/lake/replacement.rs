//! What replacing an interval of a table writes. Values only, no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::partition::{self, TimeBounds};
use super::{rollup, shape};
use crate::error::{Error, Result};
use crate::lake::overlay::staging::Parts;
use crate::model::{Format, Interval, Table};

/// The new content of each partition that the interval touches.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The columns; `None` if there was no batch, not even an empty one.
    pub schema: Option<SchemaRef>,
    /// The rows by the name of their partition; a partition without rows is to be empty. `None` names a table without partitions.
    pub parts: Parts,
}

/// Checks that a table may be written: its files are Parquet.
///
/// # Errors
/// `invalid` if they are not.
pub fn check_format(table: &Table) -> Result<()> {
    if table.format == Format::Parquet {
        return Ok(());
    }
    Err(Error::invalid(format!("tables are written as Parquet only; set `format: parquet` for table `{}`", table.name)))
}

/// Checks the rows that are to replace an interval, and sorts them into partitions.
///
/// # Errors
/// `invalid` if rows lie outside the interval, or do not fit the table.
pub fn replacement(table: &Table, interval: &Interval, rows: &[RecordBatch]) -> Result<Replacement> {
    check_format(table)?;
    let bounds = TimeBounds::of_interval(table, Some(interval));
    let mut batches: Vec<RecordBatch> = rows.iter().map(|batch| in_shape(table, batch)).collect::<Result<_>>()?;
    let schema: Option<SchemaRef> = batches.first().map(RecordBatch::schema);
    batches.retain(|batch| batch.num_rows() > 0);
    if let Some(odd) = batches.iter().find(|batch| Some(batch.schema()) != schema) {
        return Err(Error::invalid(format!(
            "the rows for table `{}` do not all have the same columns; {}",
            table.name,
            shape::names(odd.schema_ref())
        )));
    }
    let mut timed = Vec::with_capacity(batches.len());
    for batch in &batches {
        let times = shape::instants(table, rollup::column(batch, &table.time)?)?;
        if let Some(outside) = times.values().iter().find(|time_us| !bounds.contains(**time_us)) {
            let time = jiff::Timestamp::from_microsecond(*outside).map_or_else(|_| outside.to_string(), |time| time.to_string());
            return Err(Error::invalid(format!(
                "a row of {time} for table `{}` lies outside the interval to replace, {interval}",
                table.name
            )));
        }
        timed.push((batch, times));
    }
    let Some(by) = partition::time_partition(table)? else {
        return Ok(Replacement { schema, parts: BTreeMap::from([(None, batches)]) });
    };
    let mut sorted = partition::by_partition(by.unit, timed)?;
    let parts = partition::all_in(by.unit, &bounds)?.into_iter().map(|name| {
        let rows = sorted.remove(&name).unwrap_or_default();
        (Some(name), rows)
    });
    Ok(Replacement { schema, parts: parts.collect() })
}

/// A batch with its key and time columns in shape.
fn in_shape(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let batch = &shape::in_workflow_names(table, batch)?;
    let missing = table.key.iter().chain([&table.time]).find(|name| batch.column_by_name(name).is_none());
    if let Some(missing) = missing {
        return Err(Error::invalid(format!(
            "rows for table `{}` have no column `{missing}`; {}",
            table.name,
            shape::names(batch.schema_ref())
        )));
    }
    let mut fields: Vec<Field> = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name();
        if *name == table.time {
            fields.push(shape::time_field(table));
            columns.push(Arc::new(shape::instants(table, column)?));
        } else if table.key.contains(name) {
            fields.push(shape::key_field(name));
            columns.push(Arc::new(shape::key_text(table, name, column)?));
        } else {
            fields.push(field.as_ref().clone().with_nullable(true));
            columns.push(column.clone());
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
