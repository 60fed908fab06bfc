//! Builds hours from a lake's rollup, its presence and the expected slots. It works on values only.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, Scalar, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type};
use repair_core::lake::{overlay, rollup};
use repair_core::model::{Cadence, Key, SlotRange, SlotSet, Table, TablePresence};
use repair_core::{Error, Result};

use crate::bar::{COLUMNS, VOLUME};

/// The columns of an hour without key and time.
pub(super) const VALUES: [&str; 10] = ["open", "high", "low", "close", "volume", "expected", "observed", "repaired", "absent", "complete"];

const HOUR_US: i64 = 3_600_000_000;

/// One hour of one key, as counts of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hour {
    /// The index of the key in the list of keys.
    pub(super) key: usize,
    /// The hour, in hours since the epoch.
    pub(super) hour: i64,
    /// The row of the lake's rollup, if the hour has any bar.
    pub(super) row: Option<u32>,
    /// Slots that the calendar expects; never 0.
    pub(super) expected: u64,
    /// Of the expected slots, those with a row of the table's own.
    pub(super) observed: u64,
    /// Of the expected slots, those with only a repair.
    pub(super) repaired: u64,
    /// Of the expected slots, those with neither that are confirmed absent.
    pub(super) absent: u64,
}

impl Hour {
    /// Whether every expected slot is observed, repaired or absent.
    pub(super) fn is_complete(&self) -> bool {
        self.expected == self.observed + self.repaired + self.absent
    }
}

/// The counts over all hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Rows written for these hours.
    pub(super) rows: u64,
    /// Rows of other hours that were written back.
    pub(super) kept: u64,
    /// Hours with an expected slot, over all keys.
    pub(super) hours: u64,
    /// Of these hours, the complete ones.
    pub(super) complete: u64,
    /// Expected slots.
    pub(super) expected: u64,
    /// Of the expected slots, those with a row of the table's own.
    pub(super) observed: u64,
    /// Of the expected slots, those with only a repair.
    pub(super) repaired: u64,
    /// Of the expected slots, those confirmed absent.
    pub(super) absent: u64,
}

impl Summary {
    /// Adds the counts of an hour.
    pub(super) fn add(&mut self, hour: &Hour) {
        self.hours += 1;
        self.complete += u64::from(hour.is_complete());
        self.expected += hour.expected;
        self.observed += hour.observed;
        self.repaired += hour.repaired;
        self.absent += hour.absent;
    }

    /// The expected slots about which nothing is known.
    pub(super) fn missing(&self) -> u64 {
        self.expected.saturating_sub(self.observed + self.repaired + self.absent)
    }
}

/// The hours in which something is expected, in order of key, then time. `rolled` is the lake's rollup by hour.
pub(super) fn hours(table: &Table, keys: &[Key], expected: &SlotSet, presence: &TablePresence, rolled: &RecordBatch) -> Result<Vec<Hour>> {
    let slots_an_hour = i64::from(Cadence::HOUR.seconds() / table.grid()?.cadence().seconds());
    let range = expected.range();
    let by_hour = by_key_and_hour(table, rolled)?;
    let (observed, repaired) = (count(rolled, rollup::OBSERVED)?, count(rolled, rollup::REPAIRED)?);
    let mut hours = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let absent = absent(key, expected, presence);
        let mut hour = range.first.div_euclid(slots_an_hour);
        while hour * slots_an_hour < range.end {
            let slots = SlotRange::new(hour * slots_an_hour, (hour + 1) * slots_an_hour);
            let wanted = expected.count_in(slots);
            if wanted > 0 {
                let row = by_hour.get(&(key.clone(), hour)).copied();
                let counted = |counts: &[u64]| row.and_then(|row| counts.get(row as usize)).copied().unwrap_or(0);
                hours.push(Hour {
                    key: index,
                    hour,
                    row,
                    expected: wanted,
                    observed: counted(observed),
                    repaired: counted(repaired),
                    absent: absent.as_ref().map_or(0, |absent| absent.count_in(slots)),
                });
            }
            hour += 1;
        }
    }
    Ok(hours)
}

/// The expected slots of a key that are confirmed absent and hold no row: a row that arrived after all takes precedence. Slots whose rows were
/// removed are among them.
fn absent(key: &Key, expected: &SlotSet, presence: &TablePresence) -> Option<SlotSet> {
    let mut absent = presence.absent.get(key)?.clone();
    if let Some(removed) = presence.removed.get(key) {
        absent.union(removed);
    }
    absent.intersect(expected);
    if let Some(held) = presence.held(key) {
        absent.subtract(&held);
    }
    Some(absent)
}

fn by_key_and_hour(table: &Table, rolled: &RecordBatch) -> Result<HashMap<(Key, i64), u32>> {
    let keys = rollup::key_columns(table, rolled)?;
    let buckets = rollup::column(rolled, rollup::BUCKET)?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal("the buckets of a rollup are not microseconds"))?;
    let mut by_hour = HashMap::with_capacity(rolled.num_rows());
    for (row, number) in (0..rolled.num_rows()).zip(0u32..) {
        let key = Key::new(keys.iter().map(|column| column.value(row)));
        by_hour.insert((key, buckets.value(row).div_euclid(HOUR_US)), number);
    }
    Ok(by_hour)
}

fn count<'a>(rolled: &'a RecordBatch, name: &str) -> Result<&'a [u64]> {
    let column = rollup::column(rolled, name)?.as_primitive_opt::<UInt64Type>();
    Ok(column.ok_or_else(|| Error::internal(format!("`{name}` of a rollup is not a count")))?.values())
}

/// The columns of hours: key, time, then [`VALUES`]. Prices and volumes have the types of the lake's rollup.
pub(super) fn schema(into: &Table, rolled: &Schema) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = into.key.iter().map(|name| Field::new(name, DataType::Utf8, false)).collect();
    fields.push(Field::new(&into.time, overlay::instant_type(), false));
    for name in COLUMNS {
        fields.push(Field::new(name, rolled.field_with_name(name)?.data_type().clone(), true));
    }
    // Counts are signed, because not every engine that reads a lake has unsigned numbers.
    for name in ["expected", "observed", "repaired", "absent"] {
        fields.push(Field::new(name, DataType::Int64, false));
    }
    fields.push(Field::new("complete", DataType::Boolean, false));
    Ok(Arc::new(Schema::new(fields)))
}

/// The hours as rows of the table that they are written to.
pub(super) fn rows(into: &Table, keys: &[Key], hours: &[Hour], rolled: &RecordBatch) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    for part in 0..into.key.len() {
        let values = hours.iter().map(|hour| keys.get(hour.key).and_then(|key| key.values().nth(part)));
        columns.push(Arc::new(values.collect::<StringArray>()));
    }
    let times = hours.iter().map(|hour| hour.hour * HOUR_US);
    columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")));
    let from: UInt32Array = hours.iter().map(|hour| hour.row).collect();
    for name in COLUMNS {
        let values = take(rollup::column(rolled, name)?, &from, None)?;
        columns.push(if name == VOLUME { nothing_traded(&values, hours)? } else { values });
    }
    let counts: [fn(&Hour) -> u64; 4] = [|hour| hour.expected, |hour| hour.observed, |hour| hour.repaired, |hour| hour.absent];
    for count in counts {
        let counts = hours.iter().map(|hour| i64::try_from(count(hour)).unwrap_or(i64::MAX));
        columns.push(Arc::new(Int64Array::from_iter_values(counts)));
    }
    columns.push(Arc::new(hours.iter().map(|hour| Some(hour.is_complete())).collect::<BooleanArray>()));
    Ok(RecordBatch::try_new(schema(into, rolled.schema_ref())?, columns)?)
}

/// Sets the volume of complete hours without a bar to 0, because it is known that nothing traded.
fn nothing_traded(volume: &ArrayRef, hours: &[Hour]) -> Result<ArrayRef> {
    let known: BooleanArray = hours.iter().map(|hour| Some(hour.row.is_none() && hour.is_complete())).collect();
    let zero = Scalar::new(cast(&Int64Array::from(vec![0]), volume.data_type())?);
    Ok(zip(&known, &zero, &volume.as_ref())?)
}
