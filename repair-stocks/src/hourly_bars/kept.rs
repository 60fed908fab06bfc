//! Hours that lie in the replaced partitions but do not belong to the step: they are read first, and written back unchanged.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{SortColumn, concat_batches, filter_record_batch, lexsort_to_indices, max, min, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use repair_core::lake::shape::KeyTime;
use repair_core::lake::{Lake, Layer, ScanRequest, rollup};
use repair_core::model::Usage;
use repair_core::model::{Interval, Key, Scope, Table};
use repair_core::{Error, ErrorKind, Result};

use super::assemble::VALUES;
use crate::numbers::{cast_exact, common_type};

/// Hours that do not belong to the step.
#[derive(Debug, Default)]
pub(super) struct Kept {
    batches: Vec<RecordBatch>,
    /// The time from the first of these hours to the last.
    pub(super) hull: Option<Interval>,
    /// What reading them consumed.
    pub(super) usage: Usage,
}

/// Reads the hours of some partitions (of the whole table if it has none), except those of the scope's keys within the stretch.
///
/// # Errors
/// `invalid` if the table holds anything but hours.
pub(super) async fn read(lake: &dyn Lake, into: &Table, scope: &Scope, stretch: &Interval, partitions: Option<&Interval>) -> Result<Kept> {
    let request = ScanRequest::new(Layer::Raw).in_interval(partitions.copied());
    let mut rows = match lake.scan(into, &request).await {
        Ok(rows) => rows,
        // The table was never written.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error),
    };
    let keys: HashSet<&Key> = scope.keys.iter().collect();
    let mut kept = Kept::default();
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        check(into, &batch)?;
        kept.usage.rows_read += batch.num_rows() as u64;
        kept.add(into, &others(into, &batch, &keys, stretch)?)?;
        if kept.rows() > super::MOST_HOURS {
            return Err(Error::invalid(format!(
                "table `{}` holds more than {} hours in the partitions to be rewritten; give it a finer `partition_by`, \
                 e.g. `[{{ date: day }}]`",
                into.name,
                super::MOST_HOURS
            )));
        }
    }
    Ok(kept)
}

/// The rows of other keys or outside the stretch.
fn others(into: &Table, batch: &RecordBatch, keys: &HashSet<&Key>, stretch: &Interval) -> Result<RecordBatch> {
    let rows = KeyTime::of(into, batch)?;
    let mut keep = Vec::with_capacity(batch.num_rows());
    // Rows of one key follow each other, as we write them, so a key is looked up once for each run.
    for run in rows.runs() {
        let is_ours = keys.contains(&rows.key(run.start));
        let is_within = |time_us: i64| Timestamp::from_microsecond(time_us).is_ok_and(|hour| stretch.contains(hour));
        keep.extend(rows.times.values()[run].iter().map(|time_us| !(is_ours && is_within(*time_us))));
    }
    Ok(filter_record_batch(batch, &BooleanArray::from(keep))?)
}

fn times<'a>(into: &Table, batch: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
    let column = rollup::column(batch, &into.time)?.as_primitive_opt::<TimestampMicrosecondType>();
    column.ok_or_else(|| Error::invalid(format!("the time column `{}` does not hold microseconds", into.time)))
}

impl Kept {
    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// When each of these hours begins.
    ///
    /// # Errors
    /// If the times are not those of a lake.
    pub(super) fn times(&self, into: &Table) -> Result<Vec<Timestamp>> {
        let mut all = Vec::with_capacity(self.rows());
        for batch in &self.batches {
            all.extend(times(into, batch)?.values().iter().filter_map(|time_us| Timestamp::from_microsecond(*time_us).ok()));
        }
        Ok(all)
    }

    fn add(&mut self, into: &Table, batch: &RecordBatch) -> Result<()> {
        let times = times(into, batch)?;
        let (Some(first), Some(last)) = (min(times), max(times)) else { return Ok(()) };
        let hull = hull(first, last).ok_or_else(|| Error::invalid(format!("table `{}` holds an hour that is out of range", into.name)))?;
        self.hull = Some(self.hull.map_or(hull, |all| all.hull(&hull)));
        self.batches.push(batch.clone());
        Ok(())
    }

    /// The new hours and these, as one batch in order of key, then time, so that the file depends on its content only.
    ///
    /// # Errors
    /// `invalid` if the prices or volumes of both have no common type.
    pub(super) fn beside(self, into: &Table, new: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let mut batches = new;
        batches.extend(self.batches);
        // One without rows says which columns there are.
        let nothing = batches.first().cloned().filter(|_| batches.iter().all(|batch| batch.num_rows() == 0));
        batches.retain(|batch| batch.num_rows() > 0);
        batches.extend(nothing);
        let Some(schema) = common_schema(into, &batches)? else { return Ok(Vec::new()) };
        let batches = batches.iter().map(|batch| in_columns(batch, &schema)).collect::<Result<Vec<_>>>()?;
        let rows = match batches.as_slice() {
            [one] => one.clone(),
            all => concat_batches(&schema, all)?,
        };
        if is_in_order(into, &rows)? {
            return Ok(vec![rows]);
        }
        let order = schema.fields().iter().zip(rows.columns()).take(into.key.len() + 1);
        let order: Vec<SortColumn> = order.map(|(_, column)| SortColumn { values: column.clone(), options: None }).collect();
        Ok(vec![take_record_batch(&rows, &lexsort_to_indices(&order, None)?)?])
    }
}

/// Whether rows are in order of key, then time, as new hours are if nothing is kept.
fn is_in_order(into: &Table, rows: &RecordBatch) -> Result<bool> {
    let keys = rollup::key_columns(into, rows)?;
    let times = times(into, rows)?.values();
    let follows = |row: usize| {
        let by_key = keys.iter().map(|column| column.value(row).cmp(column.value(row + 1))).find(|order| order.is_ne());
        by_key.unwrap_or_else(|| times[row].cmp(&times[row + 1])).is_le()
    };
    Ok((0..rows.num_rows().saturating_sub(1)).all(follows))
}

fn hull(first_us: i64, last_us: i64) -> Option<Interval> {
    let first = Timestamp::from_microsecond(first_us).ok()?;
    let after = Timestamp::from_microsecond(last_us).ok()?.checked_add(SignedDuration::from_micros(1)).ok()?;
    Interval::new(first, after).ok()
}

/// Checks that rows are hours, because rows that we did not write must not be rewritten.
fn check(into: &Table, batch: &RecordBatch) -> Result<()> {
    // Some lakes also return the partition column, which follows from the time.
    let names_place =
        |name: &str| into.key.iter().chain([&into.time]).chain(into.partition_by.iter().map(|by| &by.column)).any(|own| own == name);
    let is_ours = |name: &str| VALUES.contains(&name) || names_place(name);
    let schema = batch.schema_ref();
    let odd = schema.fields().iter().map(|field| field.name().as_str()).find(|name| !is_ours(name));
    let lacking = VALUES.into_iter().find(|name| schema.field_with_name(name).is_err());
    let what = match (odd, lacking) {
        (Some(odd), _) => format!("has a column `{odd}`"),
        (None, Some(lacking)) => format!("has no column `{lacking}`"),
        (None, None) => return Ok(()),
    };
    Err(Error::invalid(format!(
        "table `{}` {what}, so it does not hold hourly bars and must not be rewritten; name another table under `into`",
        into.name
    )))
}

/// Columns that hold the values of all batches; `None` if there are no batches.
fn common_schema(into: &Table, batches: &[RecordBatch]) -> Result<Option<SchemaRef>> {
    let Some(first) = batches.first() else { return Ok(None) };
    let names = into.key.iter().chain([&into.time]).map(String::as_str).chain(VALUES);
    let mut fields: Vec<Field> = Vec::new();
    for name in names {
        let mut field = first.schema_ref().field_with_name(name)?.clone().with_nullable(false);
        for batch in batches {
            let other = batch.schema_ref().field_with_name(name)?;
            let kind = common_type(field.data_type(), other.data_type()).ok_or_else(|| {
                Error::invalid(format!(
                    "column `{name}` of table `{}` is {} in existing hours and would be {} in new ones; name another table under `into`",
                    into.name,
                    other.data_type(),
                    field.data_type()
                ))
            })?;
            let is_nullable = field.is_nullable() || other.is_nullable();
            field = field.with_data_type(kind).with_nullable(is_nullable);
        }
        fields.push(field);
    }
    Ok(Some(Arc::new(Schema::new(fields))))
}

/// The columns of a batch in the order and with the types of a schema.
fn in_columns(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> =
        schema.fields().iter().map(|field| cast_exact(rollup::column(batch, field.name())?, field.data_type())).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
