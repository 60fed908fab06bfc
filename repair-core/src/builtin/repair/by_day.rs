//! What repairers without a source share: units of one day of all keys, and the table's own rows from which such a unit computes.
//!
//! A unit costs one read of its day, however many keys it repairs, so a plan for many gaps is as cheap as one for few.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, filter_record_batch, is_null, nullif};
use arrow::datatypes::{Field, Schema};
use futures::TryStreamExt;

use crate::builtin::repair::judge::times;
use crate::builtin::repair::line;
use crate::error::{Error, Result};
use crate::lake::{Layer, ScanRequest, overlay, rollup};
use crate::model::{Findings, Key, SlotGrid, SlotRange, Table, Unit, Wanted};
use crate::plugin::PlannedUnits;

/// The maximum number of keys of one unit, so that its rows (one day of each) stay within some hundred megabytes.
const KEYS_PER_UNIT: usize = 1_000;

const DAY_S: i64 = 86_400;

/// Divides gaps (those of each key in order) into units of one day of all keys, up to a limit of keys.
pub fn units<'a>(grid: SlotGrid, missing: impl Iterator<Item = (&'a Key, SlotRange)>) -> PlannedUnits {
    let mut days: BTreeMap<i64, Vec<Wanted>> = BTreeMap::new();
    for (key, mut rest) in missing {
        while !rest.is_empty() {
            // A slot longer than a day is a unit by itself.
            let start_s = grid.start_of(rest.first).as_second();
            let day = start_s.div_euclid(DAY_S);
            let next = grid.first_from_seconds((day + 1) * DAY_S).max(rest.first + 1);
            let slots = SlotRange::new(rest.first, rest.end.min(next));
            let of_day = days.entry(day).or_default();
            match of_day.last_mut() {
                Some(last) if last.key == *key => last.slots.push(slots),
                _ => of_day.push(Wanted { key: key.clone(), slots: vec![slots] }),
            }
            rest.first = slots.end;
        }
    }
    let of_day = move |of_day: Vec<Wanted>| -> Vec<_> { of_day.chunks(KEYS_PER_UNIT).map(|wanted| unit(grid, wanted.to_vec())).collect() };
    Box::new(days.into_values().flat_map(of_day))
}

fn unit(grid: SlotGrid, wanted: Vec<Wanted>) -> Result<Unit> {
    let slots = || wanted.iter().flat_map(|wanted| &wanted.slots);
    let hull = slots().map(|slots| slots.first).min().zip(slots().map(|slots| slots.end).max());
    let interval = hull.and_then(|(first, end)| grid.interval_of(SlotRange::new(first, end)));
    Ok(Unit { interval: interval.ok_or_else(far)?, wanted })
}

fn far() -> Error {
    Error::invalid("the time of a gap is out of range")
}

/// The first slot that has not ended at an instant.
pub fn slots_over(grid: SlotGrid, instant: jiff::Timestamp) -> i64 {
    grid.slot_at(instant)
}

/// Rows of the table's own, without those that a repair replaces.
#[derive(Debug, Clone)]
pub struct OwnRows {
    /// The rows. A cell that a repair changes is null.
    pub rows: RecordBatch,
    /// The cells that a repair changes: for each column that has any, those of each row.
    repaired: BTreeMap<String, Vec<bool>>,
}

impl OwnRows {
    /// For each row, whether it may be copied as a whole. That takes two things: no repair changes a cell of a column that is `copied`, since what the
    /// table has there was found wrong, and the row has a value. If columns that are copied hold numbers, that is a number; a name or a unit beside an
    /// empty measurement is none.
    ///
    /// # Errors
    /// `invalid` if numbers cannot be read.
    pub fn copyable(&self, table: &Table, copied: impl Fn(&Field) -> bool) -> Result<Vec<bool>> {
        let is_value = |name: &str| name != table.time && table.key.iter().all(|key| key != name);
        let fields = self.rows.schema_ref().fields().iter().zip(self.rows.columns());
        let columns: Vec<(&Arc<Field>, &ArrayRef)> = fields.filter(|(field, _)| is_value(field.name()) && copied(field)).collect();
        let numbers: Vec<&ArrayRef> =
            columns.iter().filter(|(field, _)| line::is_number(field.data_type())).map(|(_, column)| *column).collect();
        let mut copyable = vec![columns.is_empty(); self.rows.num_rows()];
        for column in &numbers {
            copyable.iter_mut().zip(line::finite(column)?.values()).for_each(|(copyable, finite)| *copyable |= finite);
        }
        if numbers.is_empty() {
            for (_, column) in &columns {
                copyable.iter_mut().enumerate().for_each(|(row, copyable)| *copyable |= column.is_valid(row));
            }
        }
        for repaired in columns.iter().filter_map(|(field, _)| self.repaired.get(field.name())) {
            copyable.iter_mut().zip(repaired).for_each(|(copyable, repaired)| *copyable &= !repaired);
        }
        Ok(copyable)
    }
}

/// The table's own rows of some keys in a range of slots. Takes one scan; none if there are no rows.
///
/// # Errors
/// `invalid` if the range is out of the range of instants, and those of the lake.
pub async fn raw_rows(
    lake: &dyn crate::lake::Lake,
    table: &Table,
    grid: SlotGrid,
    slots: SlotRange,
    keys: Vec<Key>,
) -> Result<Option<OwnRows>> {
    let interval = grid.interval_of(slots).ok_or_else(far)?;
    let request = ScanRequest::new(Layer::Repaired).in_interval(interval).of_keys(keys);
    let own = lake.scan(table, &request).await?.and_then(async |batch| own_rows(table, &batch));
    let own: Vec<OwnRows> = own.try_collect().await?;
    let Some(first) = own.first() else { return Ok(None) };
    let rows = concat_batches(first.rows.schema_ref(), own.iter().map(|own| &own.rows))?;
    let mut repaired: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    let mut before = 0;
    for part in own {
        for (column, flags) in part.repaired {
            let all = repaired.entry(column).or_insert_with(|| vec![false; rows.num_rows()]);
            all.iter_mut().skip(before).zip(flags).for_each(|(all, flag)| *all = flag);
        }
        before += part.rows.num_rows();
    }
    Ok((rows.num_rows() > 0).then_some(OwnRows { rows, repaired }))
}

/// The rows of the repaired view that are the table's own, without repaired cells and without the columns that the view adds.
fn own_rows(table: &Table, batch: &RecordBatch) -> Result<OwnRows> {
    let by = rollup::column(batch, overlay::REPAIRED_BY)?;
    let own = filter_record_batch(batch, &is_null(by)?)?;
    let cells = rollup::column(&own, overlay::REPAIRED_CELLS)?
        .as_string_opt::<i32>()
        .ok_or_else(|| Error::internal(format!("column `{}` of a repaired view is not text", overlay::REPAIRED_CELLS)))?;
    let mut repaired: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for row in (0..own.num_rows()).filter(|&row| cells.is_valid(row)) {
        let of_row: BTreeMap<String, String> = serde_json::from_str(cells.value(row)).map_err(|error| {
            Error::invalid(format!("column `{}` is not what this program writes", overlay::REPAIRED_CELLS)).because(error)
        })?;
        for column in of_row.into_keys() {
            if let Some(flag) = repaired.entry(column).or_insert_with(|| vec![false; own.num_rows()]).get_mut(row) {
                *flag = true;
            }
        }
    }
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(own.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(own.num_columns());
    for (field, column) in own.schema_ref().fields().iter().zip(own.columns()) {
        match (field.name().as_str(), repaired.get(field.name())) {
            (overlay::REPAIRED_BY | overlay::REPAIRED_CELLS, _) => {}
            (name, repaired) => {
                let is_own = name == table.time || table.key.iter().any(|key| key == name);
                fields.push(Arc::new(field.as_ref().clone().with_nullable(!is_own || field.is_nullable())));
                columns
                    .push(repaired.map_or_else(|| Ok(column.clone()), |repaired| nullif(column, &BooleanArray::from(repaired.clone())))?);
            }
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(own.num_rows()));
    Ok(OwnRows { rows: RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?, repaired })
}

/// The index of the row of each slot in a batch, by key and slot.
pub type BySlot = BTreeMap<Key, BTreeMap<i64, u32>>;

/// The usable rows, by key and slot. `usable` gets the key, slot and index of each row. If a slot has several rows, the first counts, as
/// everywhere.
///
/// # Errors
/// `invalid` if the rows do not have the lake's shape.
pub fn by_slot(table: &Table, grid: SlotGrid, rows: &RecordBatch, usable: impl Fn(&Key, i64, usize) -> bool) -> Result<BySlot> {
    let keys = rollup::key_columns(table, rows)?;
    let times = times(table, rows)?;
    let mut by_slot = BySlot::new();
    for (row, number) in (0..rows.num_rows()).zip(0u32..) {
        let Some(slot) = grid.slot_of_row(times.value(row)).filter(|_| times.is_valid(row)) else { continue };
        let key = Key::new(keys.iter().map(|column| column.value(row)));
        if usable(&key, slot, row) {
            by_slot.entry(key).or_default().entry(slot).or_insert(number);
        }
    }
    Ok(by_slot)
}

/// Whether a row has usable values for all cells of a slot that are to be repaired: values of its own that were not found wrong. If the whole
/// row of the slot is to be repaired, the other row must be [copyable](OwnRows::copyable), and nothing in it found wrong.
pub fn serves(findings: &Findings, (key, slot): (&Key, i64), (other, row): (i64, usize), (own, copyable): (&OwnRows, &[bool])) -> bool {
    match findings.cells.get(key, slot) {
        None => copyable.get(row).copied().unwrap_or(false) && !findings.is_of_wrong_rows(key, other),
        Some(cells) => cells.columns.iter().all(|name| {
            let has_value = own.rows.column_by_name(name).is_some_and(|column| column.is_valid(row));
            has_value && !findings.is_of_wrong_values(key, other, name)
        }),
    }
}

/// The time of a row in a slot, in microseconds.
pub fn time_us(grid: SlotGrid, slot: i64) -> i64 {
    grid.time_of_seconds(slot) * 1_000_000
}

/// A column of times in the lake's shape.
pub fn time_column(times_us: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(times_us).with_timezone("UTC"))
}

/// The same rows with other times.
///
/// # Errors
/// `invalid` if there is no time column, or not as many times as rows.
pub fn with_times(table: &Table, rows: &RecordBatch, times_us: Vec<i64>) -> Result<RecordBatch> {
    let index = rows.schema_ref().index_of(&table.time)?;
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns[index] = time_column(times_us);
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}
