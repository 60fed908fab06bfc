//! What staging and publishing write: the same rows in every adapter, wherever it writes them. Values only, no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Builder, RecordBatch, RecordBatchOptions, StringArray, StringBuilder,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::lake::overlay;
use crate::lake::overlay::{Op, patch};
use crate::lake::{StageRequest, StageScope, Staged, partition, rollup, shape};
use crate::model::{Absence, Fix, Format, Key, Table};

/// The key in a staged object's footer under which its [`Staged`] is kept, as JSON.
pub const SUMMARY: &str = "repair.staged";

/// The most absent slots in one batch of rows.
const ABSENT_ROWS: usize = 65_536;

/// The summary of a unit, without the usage of staging it.
pub fn summary(request: &StageRequest<'_>) -> Staged {
    let rows = request.fix.rows.iter().chain(request.patches).map(|batch| batch.num_rows() as u64).sum::<u64>()
        + request.removed.iter().map(|absence| absence.slots.len()).sum::<u64>();
    let absent = request.fix.absent.iter().map(|absence| absence.slots.len()).sum();
    let (conflicts, suspects) = (request.fix.conflicts.clone(), request.fix.suspects.clone());
    let answers = request.fix.answers.clone();
    Staged { unit: request.unit.to_owned(), rows, absent, usage: request.fix.usage, conflicts, suspects, answers }
}

/// The columns of a table without rows, taken from the first rows it is to get.
///
/// # Errors
/// `invalid` if the batches contradict each other.
pub fn schema_of_fix(table: &Table, fix: &Fix) -> Result<SchemaRef> {
    let mut fields = Vec::new();
    for batch in &fix.rows {
        shape::merge(table.format, &mut fields, batch.schema_ref())?;
    }
    if fields.is_empty() {
        fields.push(shape::time_field(table));
    }
    shape::of_table(table, fields)
}

/// The column of intervals of estimates.
pub fn estimated_field() -> Field {
    Field::new(overlay::columns::ESTIMATED, DataType::Utf8, true)
}

/// The columns of a staged object: those of a table's repairs, the evidence of absences, what is needed for the cells it changes, and the intervals of
/// estimates.
fn staged_schema(table: &Schema, request: &StageRequest<'_>) -> Result<SchemaRef> {
    let patches = request.patches;
    let estimated = (!request.fix.estimates.is_empty()).then(estimated_field);
    let repairs = overlay::repairs_schema(table);
    let evidence = [
        Field::new(overlay::columns::ANSWER, DataType::Utf8, true),
        Field::new(overlay::columns::RECHECK_AFTER, overlay::instant_type(), true),
    ];
    let of_cells = if patches.is_empty() { Vec::new() } else { patch::fields(table, changed_columns(table, patches))? };
    Ok(Arc::new(Schema::new(
        repairs.fields().iter().cloned().chain(evidence.into_iter().chain(of_cells).chain(estimated).map(Arc::new)).collect::<Vec<_>>(),
    )))
}

/// The columns of which patches change cells, in the order of the table.
fn changed_columns<'a>(table: &'a Schema, patches: &[RecordBatch]) -> impl Iterator<Item = &'a str> {
    let names = table.fields().iter().map(|field| field.name().as_str());
    names.filter(|name| patches.iter().any(|batch| batch.column_by_name(&patch::was(name)).is_some()))
}

/// The schema and rows of a staged object, repaired rows and absences; `own` is the table's schema, in shape.
///
/// # Errors
/// `invalid` if the rows do not fit the table.
pub fn rows(scope: &StageScope<'_>, request: &StageRequest<'_>, own: &SchemaRef) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let schema = staged_schema(own, request)?;
    let mut batches = Vec::with_capacity(request.fix.rows.len() + 1);
    for rows in &request.fix.rows {
        batches.push(repaired(scope, request, own, &schema, rows).map_err(|error| error.on("unit", request.unit))?);
    }
    for rows in request.patches {
        batches.push(patched(scope, request, own, &schema, rows).map_err(|error| error.on("unit", request.unit))?);
    }
    let evidence = [(Op::Absent, request.fix.absent.as_slice()), (Op::Remove, request.removed)];
    for (op, absence) in evidence.into_iter().flat_map(|(op, all)| all.iter().map(move |absence| (op, absence))) {
        absences(scope, request, op, (own.fields().len(), &schema), absence, &mut batches)?;
    }
    Ok((schema, batches))
}

fn constant(value: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)))
}

fn constant_instant(value: Timestamp, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(value.as_microsecond(), rows).with_timezone("UTC"))
}

/// The provenance columns, in the order of the schema.
fn provenance(
    scope: &StageScope<'_>,
    request: &StageRequest<'_>,
    op: Op,
    source: &str,
    at: Timestamp,
    rows: usize,
) -> [ArrayRef; PROVENANCE] {
    [
        constant(op.as_str(), rows),
        constant(scope.run, rows),
        constant(scope.step, rows),
        constant(request.unit, rows),
        constant(request.strategy, rows),
        constant(source, rows),
        constant_instant(at, rows),
    ]
}

/// Repaired rows in the table's columns; columns that the fix lacks are null.
fn repaired(
    scope: &StageScope<'_>,
    request: &StageRequest<'_>,
    own: &SchemaRef,
    schema: &SchemaRef,
    rows: &RecordBatch,
) -> Result<RecordBatch> {
    let table = scope.table;
    let count = rows.num_rows();
    let rows = &in_own_names(table, own, rows)?;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in own.fields() {
        let name = field.name();
        columns.push(match rows.column_by_name(name) {
            Some(column) if *name == table.time => Arc::new(shape::instants(table, column)?),
            Some(column) if table.key.contains(name) => Arc::new(shape::key_text(table, name, column)?),
            Some(column) => shape::cast_exact(column, field.data_type()).map_err(|error| {
                let (from, to) = (column.data_type(), field.data_type());
                Error::invalid(format!(
                    "repaired values of column `{name}` do not fit table `{}`: {from} to {to}; correct them, or declare the column where they come from, \
                     under `columns`",
                    table.name
                ))
                .because(error)
            })?,
            None if *name == table.time || table.key.contains(name) => {
                return Err(Error::invalid(format!(
                    "repaired rows have no column `{name}`, so their slots are unknown; {}",
                    shape::names(&rows.schema())
                )));
            }
            None => new_null_array(field.data_type(), count),
        });
    }
    let replaced = replaced(table, request, rows)?;
    let [_, rest @ ..] = provenance(scope, request, Op::Insert, &request.fix.source, request.repaired_at, count);
    columns.push(ops_of(&replaced));
    columns.extend(rest);
    columns.push(replaced);
    for field in schema.fields().iter().skip(columns.len()) {
        columns.push(match field.name().as_str() {
            overlay::columns::ESTIMATED => estimated(table, request, rows, |_| true)?,
            _ => new_null_array(field.data_type(), count),
        });
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// The intervals of the estimates of rows, of those columns that are wanted.
///
/// # Errors
/// `invalid` if the slot of a row is unknown.
pub fn estimated(table: &Table, request: &StageRequest<'_>, rows: &RecordBatch, wanted: impl Fn(&str) -> bool) -> Result<ArrayRef> {
    let keys = table.key.iter().map(|name| shape::key_text(table, name, rollup::column(rows, name)?)).collect::<Result<Vec<_>>>()?;
    let times = shape::instants(table, rollup::column(rows, &table.time)?)?;
    let identity = table.identity();
    let text = |(row, time_us): (usize, &i64)| {
        let key = Key::new(keys.iter().map(|column| column.value(row)));
        request.fix.estimates.text(&key, identity.slot(*time_us), &wanted)
    };
    Ok(Arc::new(times.values().iter().enumerate().map(text).collect::<StringArray>()))
}

/// What repaired rows do, by the fingerprints of [`replaced`]: those that replace nothing fill.
pub fn ops_of(replaced: &ArrayRef) -> ArrayRef {
    let op = |row| if replaced.is_valid(row) { Op::Replace } else { Op::Insert };
    Arc::new(StringArray::from_iter_values((0..replaced.len()).map(|row| op(row).as_str())))
}

/// Rows that change cells, in the columns of a staged object.
fn patched(
    scope: &StageScope<'_>,
    request: &StageRequest<'_>,
    own: &SchemaRef,
    schema: &SchemaRef,
    rows: &RecordBatch,
) -> Result<RecordBatch> {
    let table = scope.table;
    let count = rows.num_rows();
    let unknown = rows.schema_ref().fields().iter().find(|field| schema.field_with_name(field.name()).is_err());
    if let Some(unknown) = unknown {
        let (name, names) = (unknown.name(), shape::names(own));
        return Err(Error::invalid(format!("repaired cells are of a column `{name}` that table `{}` lacks; {names}", table.name)));
    }
    let mut by_op = provenance(scope, request, Op::Patch, &request.fix.source, request.repaired_at, count).into_iter();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (at, field) in schema.fields().iter().enumerate() {
        let is_provenance = (own.fields().len()..own.fields().len() + PROVENANCE).contains(&at);
        columns.push(match rows.column_by_name(field.name()) {
            Some(column) if *field.name() == table.time => Arc::new(shape::instants(table, column)?),
            Some(column) => shape::cast_exact(column, field.data_type())?,
            None if field.name() == overlay::columns::ESTIMATED => {
                estimated(table, request, rows, |column| rows.column_by_name(&patch::was(column)).is_some())?
            }
            None if is_provenance => by_op.next().ok_or_else(|| Error::internal("a column of provenance is missing"))?,
            None => new_null_array(field.data_type(), count),
        });
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// How many columns say where a row comes from.
const PROVENANCE: usize = 7;

/// Repaired rows with the table's own names of their columns, which may differ in case.
///
/// # Errors
/// `invalid` if the table lacks a column, or its files disagree about one.
pub fn in_own_names(table: &Table, own: &Schema, rows: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(rows.num_columns());
    for field in rows.schema_ref().fields() {
        let found = shape::find(own, field.name()).map_err(|error| error.on("table", &table.name))?;
        let unknown = || {
            let (name, names) = (field.name(), shape::names(own));
            Error::invalid(format!("repaired rows have a column `{name}` that table `{}` lacks; {names}", table.name))
        };
        let name = found.ok_or_else(unknown)?.name();
        if fields.iter().any(|field| field.name() == name) {
            return Err(Error::invalid(format!("repaired rows have two columns for column `{name}` of table `{}`", table.name)));
        }
        fields.push(if name == field.name() { field.clone() } else { Arc::new(field.as_ref().clone().with_name(name)) });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), rows.columns().to_vec(), &options)?)
}

/// The fingerprint that each row replaces; all nulls if the rows fill missing slots. A null also stands for a row of
/// which it is known that the table has none: it fills, so a row that the table gets later counts.
///
/// # Errors
/// `invalid` if the fingerprint of a row's slot is unknown.
pub fn replaced(table: &Table, request: &StageRequest<'_>, rows: &RecordBatch) -> Result<ArrayRef> {
    let Some(replaces) = request.replaces else { return Ok(new_null_array(&DataType::Utf8, rows.num_rows())) };
    let identity = table.identity();
    let keys = table.key.iter().map(|name| shape::key_text(table, name, rollup::column(rows, name)?)).collect::<Result<Vec<_>>>()?;
    let times = shape::instants(table, rollup::column(rows, &table.time)?)?;
    let mut texts = StringBuilder::new();
    for (row, time_us) in times.values().iter().enumerate() {
        let key = Key::new(keys.iter().map(|column| column.value(row)));
        let slot = identity.slot(*time_us);
        let judged = identity.same_as(slot, replaces.slots_of(&key));
        if judged.is_some_and(|judged| replaces.is_nothing(&key, judged)) {
            texts.append_null();
            continue;
        }
        let Some(fingerprint) = judged.and_then(|judged| replaces.get(&key, judged)) else {
            let time = identity.grid().time_of(slot);
            return Err(Error::invalid(format!("which rows of table `{}` the row of {key} at {time} replaces is not known", table.name)));
        };
        texts.append_value(fingerprint.to_string());
    }
    Ok(Arc::new(texts.finish()))
}

/// The fingerprint of the rows that are removed in a slot, by the rule of [`replaced`].
///
/// # Errors
/// `invalid` if it is unknown.
pub fn removed(table: &Table, request: &StageRequest<'_>, key: &Key, slot: i64) -> Result<String> {
    let known = request.replaces.and_then(|replaces| {
        let judged = table.identity().same_as(slot, replaces.slots_of(key))?;
        replaces.get(key, judged)
    });
    let known = known.ok_or_else(|| {
        let time = table.identity().grid().time_of(slot);
        Error::invalid(format!("which rows of table `{}` are removed of {key} at {time} is not known", table.name))
    })?;
    Ok(known.to_string())
}

/// An absence as rows, one for each slot; with [`Op::Remove`], the table's own rows of the slot are removed.
fn absences(
    scope: &StageScope<'_>,
    request: &StageRequest<'_>,
    op: Op,
    (own, schema): (usize, &SchemaRef),
    absence: &Absence,
    batches: &mut Vec<RecordBatch>,
) -> Result<()> {
    let table = scope.table;
    let grid = table.identity().grid();
    let mut first = absence.slots.first;
    while first < absence.slots.end {
        let end = absence.slots.end.min(first.saturating_add(i64::try_from(ABSENT_ROWS).unwrap_or(i64::MAX)));
        let mut times = Int64Builder::new();
        (first..end).for_each(|slot| times.append_value(grid.time_of(slot).as_microsecond()));
        let times = times.finish();
        let count = times.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in &schema.fields()[..own] {
            let name = field.name();
            columns.push(match key_value(table, &absence.key, name)? {
                Some(value) => constant(value, count),
                None if *name == table.time => Arc::new(TimestampMicrosecondArray::new(times.values().clone(), None).with_timezone("UTC")),
                None => new_null_array(field.data_type(), count),
            });
        }
        columns.extend(provenance(scope, request, op, &absence.source, absence.asked_at, count));
        columns.push(match op {
            Op::Remove => {
                let prints = (first..end).map(|slot| removed(table, request, &absence.key, slot)).collect::<Result<Vec<_>>>()?;
                Arc::new(StringArray::from(prints))
            }
            _ => new_null_array(&DataType::Utf8, count),
        });
        let mut answer = StringBuilder::new();
        (0..count).for_each(|_| answer.append_value(&absence.answer));
        columns.push(Arc::new(answer.finish()));
        columns.push(match op {
            // A removal is in force until it is undone or another repair follows it, as a replacement is.
            Op::Remove => new_null_array(&overlay::instant_type(), count),
            _ => constant_instant(absence.recheck_after, count),
        });
        columns
            .extend(schema.fields().iter().skip(columns.len()).map(|field| new_null_array(field.data_type(), count)).collect::<Vec<_>>());
        batches.push(RecordBatch::try_new(schema.clone(), columns)?);
        first = end;
    }
    Ok(())
}

/// The value of a key in a column, if it is one of the key columns.
fn key_value<'a>(table: &Table, key: &'a Key, column: &str) -> Result<Option<&'a str>> {
    shape::check_keys(table, std::slice::from_ref(key))?;
    Ok(table.key.iter().position(|name| name == column).and_then(|at| key.values().nth(at)))
}

/// What publishing writes: the repairs and exceptions of a table, with one object for each partition.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The columns of repairs.
    pub repairs_schema: SchemaRef,
    /// The repaired rows by the name of their partition; `None` if the table has no partitions.
    pub repairs: Parts,
    /// The columns of exceptions.
    pub exceptions_schema: SchemaRef,
    /// The absent slots, in the same way.
    pub exceptions: Parts,
}

/// Rows by the name of their partition; `None` if the table has no partitions.
pub type Parts = BTreeMap<Option<String>, Vec<RecordBatch>>;

/// So many rows are joined to one batch.
const JOINED_ROWS: usize = 8_192;

/// So many batches wait at most to be joined.
const WAITING_BATCHES: usize = 256;

/// So many bytes wait at most to be joined, so that no text of a joined batch is too long for it.
const WAITING_BYTES: usize = 64 << 20;

/// The rows of staged units, in the order in which they are added, in few batches: each batch takes some kilobytes beside its rows, and most units
/// have few rows.
#[derive(Debug, Default)]
pub struct StagedRows {
    joined: Vec<RecordBatch>,
    /// Batches of the same columns.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
}

impl StagedRows {
    /// Adds the rows of a unit.
    ///
    /// # Errors
    /// If rows of the same columns cannot be joined.
    pub fn add(&mut self, batches: impl IntoIterator<Item = RecordBatch>) -> Result<()> {
        for batch in batches {
            let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
            let is_alike = self.waiting.first().is_none_or(|first| first.schema_ref().fields() == batch.schema_ref().fields());
            let has_room = self.waiting_rows + rows <= JOINED_ROWS
                && self.waiting.len() < WAITING_BATCHES
                && self.waiting_bytes.saturating_add(bytes) <= WAITING_BYTES;
            if !(is_alike && has_room) {
                self.join()?;
            }
            self.waiting.push(batch);
            self.waiting_rows += rows;
            self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
        }
        Ok(())
    }

    fn join(&mut self) -> Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        match waiting.as_slice() {
            [] => {}
            [_] => self.joined.append(&mut waiting),
            // What each file says of itself is not about the rows of all.
            [first, ..] => {
                let schema = Arc::new(Schema::new(first.schema_ref().fields().clone()));
                self.joined.push(concat_batches(&schema, &waiting)?);
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<RecordBatch>> {
        self.join()?;
        Ok(self.joined)
    }
}

/// What to publish of staged objects, with the rows in the order of the units.
///
/// # Errors
/// `invalid` if an object holds rows that were not staged as a unit.
pub fn publication(table: &Table, staged: StagedRows) -> Result<Publication> {
    let staged = staged.finish()?;
    // Only the staged rows decide, not the table, which may have changed: publishing again then writes the same bytes.
    let mut fields = Vec::new();
    for batch in &staged {
        shape::merge(Format::Parquet, &mut fields, batch.schema_ref())?;
    }
    let is_of_cells = |field: &Field| {
        [overlay::columns::CELLS, overlay::columns::ESTIMATED].contains(&field.name().as_str())
            || field.name().starts_with(overlay::columns::WAS)
    };
    let of_cells: Vec<Field> = fields.iter().filter(|field| is_of_cells(field)).cloned().collect();
    let own: Vec<Field> = fields.into_iter().filter(|field| !overlay::is_ours(field.name())).collect();
    let repairs_schema = overlay::repairs_schema(&Schema::new(own));
    let mut removes = false;
    for batch in &staged {
        removes |= ops(batch)?.iter().any(|op| op == Some(Op::Remove.as_str()));
    }
    let answer = removes.then(|| Field::new(overlay::columns::ANSWER, DataType::Utf8, true));
    let more: Vec<Field> = answer.into_iter().chain(of_cells).collect();
    let repairs_schema = match more.is_empty() {
        true => repairs_schema,
        false => Arc::new(Schema::new(repairs_schema.fields().iter().cloned().chain(more.into_iter().map(Arc::new)).collect::<Vec<_>>())),
    };
    let exceptions_schema = overlay::exceptions_schema(table);
    let (mut repairs, mut exceptions) = (Vec::new(), Vec::new());
    // Each batch is let go as soon as it is divided.
    for batch in staged {
        let absent: BooleanArray = ops(&batch)?.iter().map(|op| Some(op == Some(Op::Absent.as_str()))).collect();
        let present = arrow::compute::not(&absent)?;
        repairs.extend(columns_of(&repairs_schema, &filter_record_batch(&batch, &present)?)?);
        exceptions.extend(columns_of(&exceptions_schema, &filter_record_batch(&batch, &absent)?)?);
    }
    Ok(Publication { repairs: parts(table, repairs)?, repairs_schema, exceptions: parts(table, exceptions)?, exceptions_schema })
}

fn ops(batch: &RecordBatch) -> Result<&StringArray> {
    let column = rollup::column(batch, overlay::columns::OP)?.as_string_opt::<i32>();
    column.ok_or_else(|| Error::invalid("a staged object has no op"))
}

/// The rows with the columns of a schema, widened if the unit was staged with narrower ones; `None` if there is no row.
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

/// Rows by partition; empty if there are no rows.
fn parts(table: &Table, batches: Vec<RecordBatch>) -> Result<Parts> {
    if batches.is_empty() {
        return Ok(Parts::new());
    }
    let Some(by) = partition::time_partition(table)? else { return Ok(Parts::from([(None, batches)])) };
    let mut timed = Vec::with_capacity(batches.len());
    for batch in &batches {
        timed.push((batch, shape::instants(table, rollup::column(batch, &table.time)?)?));
    }
    Ok(partition::by_partition(by.unit, timed)?.into_iter().map(|(name, batches)| (Some(name), batches)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::Int64Array;

    use super::*;

    /// A batch as one is read from a staged object, with what the object says of itself.
    fn batch(column: &str, numbers: std::ops::Range<i64>) -> RecordBatch {
        let about = HashMap::from([(SUMMARY.to_owned(), format!("{numbers:?}"))]);
        let schema = Schema::new_with_metadata(vec![Field::new(column, DataType::Int64, true)], about);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from_iter_values(numbers))]).unwrap()
    }

    fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn rows_of_many_units_are_in_few_batches_and_in_order() {
        const UNITS: i64 = 4_096;
        let mut rows = StagedRows::default();
        for unit in 0..UNITS {
            rows.add([batch("value", 2 * unit..2 * unit + 2)]).unwrap();
            assert!(rows.waiting.len() <= WAITING_BATCHES, "few wait");
        }
        let joined = rows.finish().unwrap();
        assert_eq!(numbers(&joined), (0..2 * UNITS).collect::<Vec<_>>());
        assert!(joined.len() <= 16, "{} batches", joined.len());
        assert!(joined.iter().all(|batch| batch.schema_ref().metadata().is_empty()), "nothing is kept of single units");
    }

    #[test]
    fn rows_of_other_columns_and_large_ones_stay_apart() {
        let large = i64::try_from(JOINED_ROWS).unwrap() + 1;
        let mut rows = StagedRows::default();
        for one in [batch("value", 0..3), batch("value", 3..3), batch("other", 3..5), batch("other", 5..6), batch("other", 6..6 + large)] {
            rows.add([one]).unwrap();
        }
        rows.add([batch("other", 6 + large..7 + large), batch("value", 7 + large..8 + large)]).unwrap();
        let joined = rows.finish().unwrap();
        assert_eq!(numbers(&joined), (0..8 + large).collect::<Vec<_>>());
        let shapes: Vec<(String, usize)> =
            joined.iter().map(|batch| (batch.schema_ref().field(0).name().clone(), batch.num_rows())).collect();
        let large = JOINED_ROWS + 1;
        let expected = [("value", 3), ("other", 3), ("other", large), ("other", 1), ("value", 1)];
        assert_eq!(shapes, expected.map(|(name, rows)| (name.to_owned(), rows)));
    }
}
