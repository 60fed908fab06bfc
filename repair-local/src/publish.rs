//! Publishing: staged units become one object for each partition, of the table's repairs and of its exceptions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use repair_core::lake::overlay::{self, Op};
use repair_core::lake::{Published, rollup};
use repair_core::model::{Format, Table};
use repair_core::{Error, Result};

use crate::lake::Inner;
use crate::place::{self, Place};
use crate::stage::{self, Scope};
use crate::{shape, write};

/// Publishes units under the name of a batch.
pub(crate) fn publish(lake: &Inner, scope: &Scope, object: &str, units: &[String]) -> Result<Published> {
    let table = &scope.table;
    let place = Place::of(&lake.root, table);
    let mut published = Published::default();
    let mut staged = Vec::new();
    for unit in units {
        let (summary, batches) = stage::load(scope, unit)?;
        published.rows += summary.rows;
        published.absent += summary.absent;
        staged.extend(batches);
    }
    // What was staged alone says what is published, so that to publish again is to write the same bytes: the table may have changed.
    let mut fields = Vec::new();
    for batch in &staged {
        shape::merge(Format::Parquet, &mut fields, batch.schema_ref())?;
    }
    let own: Vec<Field> = fields.into_iter().filter(|field| !shape::RESERVED.contains(&field.name().as_str())).collect();
    let repairs_schema = overlay::repairs_schema(&Schema::new(own));
    let exceptions_schema = overlay::exceptions_schema(table);
    let (mut repairs, mut exceptions) = (Vec::new(), Vec::new());
    for batch in &staged {
        let op = rollup::column(batch, overlay::columns::OP)?
            .as_string_opt::<i32>()
            .ok_or_else(|| Error::invalid("a staged object has no op"))?;
        let absent: BooleanArray = op.iter().map(|op| Some(op == Some(Op::Absent.as_str()))).collect();
        let present = arrow::compute::not(&absent)?;
        repairs.extend(columns_of(&repairs_schema, &filter_record_batch(batch, &present)?)?);
        exceptions.extend(columns_of(&exceptions_schema, &filter_record_batch(batch, &absent)?)?);
    }
    for (folder, schema, batches) in [(&place.repairs, &repairs_schema, repairs), (&place.exceptions, &exceptions_schema, exceptions)] {
        for (path, batches) in objects(table, folder, object, batches)? {
            published.usage += write::parquet(&path, schema, &batches, Vec::new())?;
        }
    }
    Ok(published)
}

/// The columns of a schema, widened where units were staged with narrower ones; `None` if there is no row.
fn columns_of(schema: &SchemaRef, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
    if batch.num_rows() == 0 {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match batch.column_by_name(field.name()) {
            Some(column) => shape::cast_exact(column, field.data_type())?,
            None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    Ok(Some(RecordBatch::try_new(schema.clone(), columns)?))
}

/// The objects to write: their paths and rows.
fn objects(table: &Table, folder: &Path, object: &str, batches: Vec<RecordBatch>) -> Result<BTreeMap<PathBuf, Vec<RecordBatch>>> {
    if batches.is_empty() {
        return Ok(BTreeMap::new());
    }
    let Some(by) = place::time_partition(table)? else { return Ok(BTreeMap::from([(folder.join(object), batches)])) };
    let mut timed = Vec::with_capacity(batches.len());
    for batch in &batches {
        timed.push((batch, shape::instants(table, rollup::column(batch, &table.time)?)?));
    }
    let parts = write::by_partition(by.unit, timed)?;
    Ok(parts.into_iter().map(|(name, batches)| (folder.join(format!("{}={name}", by.column)).join(object), batches)).collect())
}
