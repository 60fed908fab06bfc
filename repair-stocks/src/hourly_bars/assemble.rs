//! Builds hours from a lake's rollup and the expected slots. It works on values only.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, Scalar, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type};
use repair_core::lake::{overlay, rollup};
use repair_core::model::{Cadence, Key, SlotRange, SlotSet, Table};
use repair_core::{Error, Result};
use serde::{Deserialize, Serialize};

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
    /// The row of the lake's rollup, if the hour has any bar, or any slot that is absent.
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

    fn has_bar(&self) -> bool {
        self.observed + self.repaired > 0
    }
}

/// The counts over all hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.kept += other.kept;
        self.hours += other.hours;
        self.complete += other.complete;
        self.expected += other.expected;
        self.observed += other.observed;
        self.repaired += other.repaired;
        self.absent += other.absent;
    }
}

/// The batches of a rollup as one.
pub(super) fn one(schema: &SchemaRef, mut rolled: Vec<RecordBatch>) -> Result<RecordBatch> {
    rolled.retain(|batch| batch.num_rows() > 0);
    match rolled.as_slice() {
        [one] => Ok(one.clone()),
        all => Ok(concat_batches(schema, all)?),
    }
}

/// The hours in which something is expected, in order of key, then time. `rolled` is the lake's rollup by hour.
pub(super) fn hours(table: &Table, keys: &[Key], expected: &SlotSet, rolled: &RecordBatch) -> Result<Vec<Hour>> {
    let slots_an_hour = i64::from(Cadence::HOUR.seconds() / table.grid()?.cadence().seconds());
    let range = expected.range();
    let mut open = Vec::new();
    let mut hour = range.first.div_euclid(slots_an_hour);
    while hour * slots_an_hour < range.end {
        let wanted = expected.count_in(SlotRange::new(hour * slots_an_hour, (hour + 1) * slots_an_hour));
        if wanted > 0 {
            open.push((hour, wanted));
        }
        hour += 1;
    }
    let [observed, repaired, absent] = [rollup::OBSERVED, rollup::REPAIRED, rollup::ABSENT].map(|name| count(rolled, name));
    let (observed, repaired, absent) = (observed?, repaired?, absent?);
    let rows = by_key_and_hour(table, keys, &open, rolled)?;
    let mut hours = Vec::with_capacity(keys.len() * open.len());
    for (index, of_key) in rows.chunks(open.len().max(1)).enumerate() {
        for (&(hour, expected), &row) in open.iter().zip(of_key) {
            let at = |counts: &[u64]| row.and_then(|row| counts.get(row as usize)).copied().unwrap_or(0);
            hours.push(Hour { key: index, hour, row, expected, observed: at(observed), repaired: at(repaired), absent: at(absent) });
        }
    }
    Ok(hours)
}

/// The row of each key and open hour, by key.
fn by_key_and_hour(table: &Table, keys: &[Key], open: &[(i64, u64)], rolled: &RecordBatch) -> Result<Vec<Option<u32>>> {
    let places = KeyBuckets::of(table, rolled)?;
    let mut known: HashMap<Key, Vec<usize>> = HashMap::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        known.entry(key.clone()).or_default().push(at);
    }
    let mut rows = vec![None; keys.len() * open.len()];
    let mut row = 0;
    while row < rolled.num_rows() {
        // Rows of one key follow each other, in order of time.
        let end = (row + 1..rolled.num_rows()).find(|&other| !places.same_key(row, other)).unwrap_or(rolled.num_rows());
        let of_key = known.get(&places.key(row)).map(Vec::as_slice).unwrap_or_default();
        let mut hour = 0;
        for row in row..end {
            let wanted = places.buckets.value(row).div_euclid(HOUR_US);
            if open.get(hour).is_none_or(|(hour, _)| *hour != wanted) {
                hour = open.partition_point(|(hour, _)| *hour < wanted);
            }
            if open.get(hour).is_some_and(|(hour, _)| *hour == wanted) {
                for at in of_key {
                    rows[at * open.len() + hour] = u32::try_from(row).ok();
                }
                hour += 1;
            }
        }
        row = end;
    }
    Ok(rows)
}

/// The keys and buckets of a rollup.
struct KeyBuckets<'a> {
    keys: Vec<&'a StringArray>,
    buckets: &'a TimestampMicrosecondArray,
}

impl<'a> KeyBuckets<'a> {
    fn of(table: &Table, rolled: &'a RecordBatch) -> Result<Self> {
        let buckets = rollup::column(rolled, rollup::BUCKET)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::internal("the buckets of a rollup are not microseconds"))?;
        Ok(Self { keys: rollup::key_columns(table, rolled)?, buckets })
    }

    fn key(&self, row: usize) -> Key {
        Key::new(self.keys.iter().map(|column| column.value(row)))
    }

    fn same_key(&self, row: usize, other: usize) -> bool {
        self.keys.iter().all(|column| column.value(row) == column.value(other))
    }
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
        // Each part of a key is looked up once, not in each of its hours.
        let values: Vec<&str> = keys.iter().map(|key| key.values().nth(part).unwrap_or_default()).collect();
        columns.push(Arc::new(StringArray::from_iter_values(hours.iter().map(|hour| values.get(hour.key).copied().unwrap_or_default()))));
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
    let known: BooleanArray = hours.iter().map(|hour| Some(!hour.has_bar() && hour.is_complete())).collect();
    let zero = Scalar::new(cast(&Int64Array::from(vec![0]), volume.data_type())?);
    Ok(zip(&known, &zero, &volume.as_ref())?)
}
