//! Rows of a lake in memory: their shape, their slots, and which repairs are live. Slow and obvious, since other lakes are compared with
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::lake::overlay;
use crate::lake::rollup::{column, key_columns};
use crate::model::{Identity, Interval, Key, PartitionUnit, SlotRange, Table};

const SECOND_US: i64 = 1_000_000;

/// A cast that must not change a value.
pub(super) fn cast_exact(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let done = cast_with_options(array, to, &strict)?;
    if *array.data_type() != DataType::Null && cast_with_options(&done, array.data_type(), &strict)?.as_ref() != array.as_ref() {
        return Err(Error::invalid(format!("{} values would change as {to}", array.data_type())));
    }
    Ok(done)
}

/// The field of a column, in the shape of batches.
pub(super) fn field_in_shape(table: &Table, field: &Field) -> Field {
    let name = field.name();
    if *name == table.time {
        Field::new(name, overlay::instant_type(), false)
    } else if table.key.contains(name) {
        Field::new(name, DataType::Utf8, false)
    } else {
        Field::new(name, field.data_type().clone(), true)
    }
}

/// A batch in the shape of a lake's batches.
///
/// # Errors
/// `invalid` if a key or time column is missing, holds a null or is of an unusable type.
pub(super) fn in_shape(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let fields: Vec<Field> = batch.schema_ref().fields().iter().map(|field| field_in_shape(table, field)).collect();
    for name in table.key.iter().chain([&table.time]) {
        let column = column(batch, name).map_err(|error| error.on("table", &table.name))?;
        let usable = match column.data_type() {
            DataType::Timestamp(_, _) | DataType::Date32 => *name == table.time,
            kind => *name != table.time && (matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) || kind.is_integer()),
        };
        if !usable || column.logical_null_count() > 0 {
            let message = format!("column `{name}` of table `{}` is {}, or holds nulls", table.name, column.data_type());
            return Err(Error::invalid(message));
        }
    }
    let columns = fields.iter().zip(batch.columns()).map(|(field, column)| cast_exact(column, field.data_type())).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The columns of all batches, in the order of their first appearance.
///
/// # Errors
/// `invalid` if a column has two types.
pub(super) fn merged<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<Vec<Field>> {
    let mut fields: Vec<Field> = Vec::new();
    for batch in batches {
        for field in batch.schema_ref().fields() {
            match fields.iter().find(|known| known.name() == field.name()) {
                None => fields.push(field.as_ref().clone()),
                Some(known) if known.data_type() == field.data_type() => {}
                Some(known) => {
                    let (is, was) = (field.data_type(), known.data_type());
                    return Err(Error::invalid(format!("column `{}` is {is} here and {was} there", field.name())));
                }
            }
        }
    }
    Ok(fields)
}

/// A batch with exactly these columns: those that it lacks are null, any others are left out.
pub(super) fn conformed(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) => cast_exact(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// The time column of a batch in shape.
fn times<'a>(table: &Table, batch: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
    column(batch, &table.time)?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal("the time column is not in microseconds"))
}

/// The key and time, in microseconds, of each row of a batch in shape.
pub(super) fn key_times(table: &Table, batch: &RecordBatch) -> Result<Vec<(Key, i64)>> {
    let (keys, times) = (key_columns(table, batch)?, times(table, batch)?);
    let mut rows: Vec<(Key, i64)> = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let values = keys.iter().map(|column| column.value(row));
        let key = match rows.last() {
            Some((last, _)) if last.values().eq(values.clone()) => last.clone(),
            _ => Key::new(values),
        };
        rows.push((key, times.value(row)));
    }
    Ok(rows)
}

/// The bounds of an interval on the time of rows, in microseconds. In a series, they hold the slots that begin within the interval.
pub(super) fn bounds_us(table: &Table, interval: &Interval) -> (i64, i64) {
    match table.grid() {
        Ok(grid) => slot_bounds_us(table, grid.slots_in(interval)),
        Err(_) => (first_microsecond(interval.from()), first_microsecond(interval.to())),
    }
}

/// The bounds of slots on the time of rows.
fn slot_bounds_us(table: &Table, slots: SlotRange) -> (i64, i64) {
    let (from_s, to_s) = table.grid().map_or((slots.first, slots.end), |grid| grid.time_bounds_s(slots));
    (from_s.saturating_mul(SECOND_US), to_s.saturating_mul(SECOND_US))
}

fn first_microsecond(instant: Timestamp) -> i64 {
    let cut = instant.as_microsecond();
    cut + i64::from(instant.as_nanosecond() > i128::from(cut) * 1_000)
}

/// The start of the partition that a time is in.
pub(super) fn partition(unit: PartitionUnit, time_us: i64) -> Result<DateTime> {
    let time = Timestamp::from_microsecond(time_us).map_err(|error| Error::invalid("a time is out of range").because(error))?;
    let time = TimeZone::UTC.to_datetime(time);
    let date = time.date();
    Ok(match unit {
        PartitionUnit::Year => date.first_of_year().at(0, 0, 0, 0),
        PartitionUnit::Month => date.first_of_month().at(0, 0, 0, 0),
        PartitionUnit::Day => date.at(0, 0, 0, 0),
        PartitionUnit::Hour => date.at(time.hour(), 0, 0, 0),
    })
}

/// The number of partitions that rows are in.
pub(super) fn partitions(table: &Table, batches: &[RecordBatch]) -> Result<u64> {
    let mut found = BTreeSet::new();
    for batch in batches {
        for &time_us in times(table, batch)?.values() {
            found.insert(table.partition_by.first().map(|by| partition(by.unit, time_us)).transpose()?);
        }
    }
    Ok(found.len() as u64)
}

/// The rows of a batch whose key and time satisfy a condition.
pub(super) fn kept(table: &Table, batch: &RecordBatch, mut keep: impl FnMut(&Key, i64) -> bool) -> Result<RecordBatch> {
    let mask: BooleanArray = key_times(table, batch)?.iter().map(|(key, time_us)| Some(keep(key, *time_us))).collect();
    Ok(filter_record_batch(batch, &mask)?)
}

/// All values of batches, as text.
pub(super) fn text(batches: &[RecordBatch]) -> Result<String> {
    let mut text = String::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            for column in batch.columns() {
                text.push_str(&array_value_to_string(column, row)?);
                text.push('\u{1f}');
            }
        }
    }
    Ok(text)
}

/// A column with the same text in each row.
pub(super) fn constant(value: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)))
}

/// A column with the same instant in each row.
pub(super) fn constant_instant(value: Timestamp, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(value.as_microsecond(), rows).with_timezone("UTC"))
}

/// The live repairs, and what they replace.
pub(super) struct LiveRepairs {
    /// Their rows, with [`overlay::columns::STRATEGY`] as the last column.
    pub(super) batches: Vec<RecordBatch>,
    /// The slots whose own rows they replace; where the key alone identifies a row, the times of the rows that stand for it.
    pub(super) replaced: BTreeSet<(Key, i64)>,
    /// The slots whose newest repair fills them, though they now have a row of their own.
    pub(super) overtaken: BTreeSet<(Key, i64)>,
    /// The slots whose newest repair removes their rows; they are among the replaced ones.
    pub(super) removed: BTreeSet<(Key, i64)>,
}

impl LiveRepairs {
    /// Whether a repair replaces the row of a slot.
    pub(super) fn replaces(&self, identity: Identity, key: &Key, slot: i64) -> bool {
        let is_near = |(other, replaced): &(Key, i64)| other == key && identity.are_same_slots(*replaced, slot);
        self.replaced.contains(&(key.clone(), slot)) || (identity.lookback_us().is_some() && self.replaced.iter().any(is_near))
    }
}

/// The live repairs. For each slot the newest repair counts; of two from the same instant, the one whose run, then unit, sorts last by
/// name. Of these, replacements are live, and repairs that fill slots which raw lacks. Removals hide the rows of their slots.
pub(super) fn live_repairs(table: &Table, own: &SchemaRef, raw: &[RecordBatch], repairs: &[RecordBatch]) -> Result<LiveRepairs> {
    use overlay::columns as c;
    let identity = table.identity();
    let mut filled: BTreeSet<(Key, i64)> = BTreeSet::new();
    for batch in raw {
        filled.extend(key_times(table, batch)?.into_iter().filter_map(|(key, time_us)| Some((key, identity.of_row(time_us)?))));
    }
    let mut newest: BTreeMap<(Key, i64), Rank<'_>> = BTreeMap::new();
    for (number, batch) in repairs.iter().enumerate() {
        let (runs, units) = (column(batch, c::RUN)?.as_string::<i32>(), column(batch, c::UNIT)?.as_string::<i32>());
        let at = column(batch, c::AT)?.as_primitive::<TimestampMicrosecondType>();
        let op = column(batch, c::OP)?.as_string::<i32>();
        for (row, (key, time_us)) in key_times(table, batch)?.into_iter().enumerate().filter(|(row, _)| !is_patch(op, *row)) {
            let rank = (at.value(row), runs.value(row), units.value(row), (number, row));
            newest.entry((key, identity.slot(time_us))).and_modify(|known| *known = rank.max(*known)).or_insert(rank);
        }
    }
    let mut live: BTreeSet<(usize, usize)> = BTreeSet::new();
    let (mut replaced, mut overtaken, mut removed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    // Where the key alone identifies a row, a newer repair of the same row may have another time.
    let is_outdated = |(key, slot): &(Key, i64), rank: &Rank<'_>| {
        let newer = |((other_key, other), other_rank): (&(Key, i64), &Rank<'_>)| {
            other_key == key && other != slot && identity.are_same_slots(*other, *slot) && other_rank > rank
        };
        identity.lookback_us().is_some() && newest.iter().any(newer)
    };
    for (place, rank) in &newest {
        if is_outdated(place, rank) {
            continue;
        }
        let (place, (number, row)) = (place.clone(), rank.3);
        let op = column(&repairs[number], c::OP)?.as_string::<i32>();
        if op.value(row) == overlay::Op::Replace.as_str() {
            live.insert((number, row));
            replaced.insert(place);
        } else if op.value(row) == overlay::Op::Remove.as_str() {
            replaced.insert(place.clone());
            removed.insert(place);
        } else if filled.contains(&place) {
            overtaken.insert(place);
        } else {
            live.insert((number, row));
        }
    }
    let strategy = Arc::new(Field::new(c::STRATEGY, DataType::Utf8, true));
    let schema = Arc::new(Schema::new(own.fields().iter().cloned().chain([strategy]).collect::<Vec<_>>()));
    let mut batches = Vec::new();
    for (number, batch) in repairs.iter().enumerate() {
        let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(live.contains(&(number, row)))).collect();
        batches.push(conformed(&schema, &filter_record_batch(batch, &mask)?)?);
    }
    Ok(LiveRepairs { batches, replaced, overtaken, removed })
}

fn is_patch(op: &StringArray, row: usize) -> bool {
    op.value(row) == overlay::Op::Patch.as_str()
}

/// Rows with their repaired cells, and for each row what the view says of these. `repairs` are the repairs in force. Of the patches of a
/// cell, the newest counts whose old value is the value of the cell.
pub(super) fn patched(table: &Table, rows: &RecordBatch, repairs: &[RecordBatch]) -> Result<(RecordBatch, StringArray)> {
    use overlay::columns as c;
    let identity = table.identity();
    let mut by_slot: BTreeMap<(Key, i64), Vec<Rank<'_>>> = BTreeMap::new();
    for (number, batch) in repairs.iter().enumerate() {
        let [op, runs, units] = [c::OP, c::RUN, c::UNIT].map(|name| column(batch, name).map(|column| column.as_string::<i32>()));
        let (op, runs, units) = (op?, runs?, units?);
        let at = column(batch, c::AT)?.as_primitive::<TimestampMicrosecondType>();
        for (row, (key, time_us)) in key_times(table, batch)?.into_iter().enumerate().filter(|(row, _)| is_patch(op, *row)) {
            let rank = (at.value(row), runs.value(row), units.value(row), (number, row));
            by_slot.entry((key, identity.slot(time_us))).or_default().push(rank);
        }
    }
    if by_slot.is_empty() {
        return Ok((rows.clone(), StringArray::new_null(rows.num_rows())));
    }
    by_slot.values_mut().for_each(|ranks| ranks.sort_unstable_by(|one, other| other.cmp(one)));
    let mut cells: Vec<serde_json::Map<String, serde_json::Value>> = vec![serde_json::Map::new(); rows.num_rows()];
    let places = key_times(table, rows)?;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
    for (field, values) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let mut shown: Vec<ArrayRef> = Vec::with_capacity(rows.num_rows());
        for (row, (key, time_us)) in places.iter().enumerate() {
            let mut value = values.slice(row, 1);
            let ranks = identity.of_row(*time_us).and_then(|slot| by_slot.get(&(key.clone(), slot)));
            for (.., (number, of_patch)) in ranks.into_iter().flatten() {
                let patch = &repairs[*number];
                let Some(old) = patch.column_by_name(&format!("{}{}", c::WAS, field.name())) else { continue };
                let list: Vec<String> =
                    serde_json::from_str(column(patch, c::CELLS)?.as_string::<i32>().value(*of_patch)).unwrap_or_default();
                if list.contains(field.name()) && is_same(&cast_exact(&old.slice(*of_patch, 1), values.data_type())?, &value) {
                    value = cast_exact(&column(patch, field.name())?.slice(*of_patch, 1), values.data_type())?;
                    let strategy = column(patch, c::STRATEGY)?.as_string::<i32>().value(*of_patch);
                    cells[row].insert(field.name().clone(), strategy.into());
                    break;
                }
            }
            shown.push(value);
        }
        let shown: Vec<&dyn Array> = shown.iter().map(AsRef::as_ref).collect();
        columns.push(if shown.is_empty() { values.clone() } else { arrow::compute::concat(&shown)? });
    }
    let texts = cells.into_iter().map(|cells| (!cells.is_empty()).then(|| serde_json::Value::Object(cells).to_string())).collect();
    Ok((RecordBatch::try_new(rows.schema(), columns)?, texts))
}

/// Whether two values are equal; 0 is -0, and nulls are equal.
fn is_same(one: &ArrayRef, other: &ArrayRef) -> bool {
    let zero = |value: &ArrayRef| {
        let float = arrow::compute::cast(value, &DataType::Float64).ok();
        value.data_type().is_floating()
            && float.is_some_and(|float| !float.is_null(0) && float.as_primitive::<arrow::datatypes::Float64Type>().value(0) == 0.0)
    };
    one.as_ref() == other.as_ref() || (zero(one) && zero(other))
}

/// When a repair was made, by which run and unit, and its batch and row.
type Rank<'a> = (i64, &'a str, &'a str, (usize, usize));
