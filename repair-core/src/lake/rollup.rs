//! Rows summed up by key and bucket of time: what a lake may compute in its own engine, and how it is computed without one.
//!
//! Sums are taken in order of time and each slot counts once, so neither the order of rows nor whether a row is the table's own or a repair
//! changes the result.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, SchemaRef};
use futures::StreamExt;

use super::{BatchStream, Layer, ReadLake, ScanRequest, overlay, shape};
use crate::error::{Error, Result};
use crate::model::Usage;
use crate::model::open_slots;
use crate::model::{Cadence, Interval, Key, SlotSet, Table};

/// How to combine the values of one column within a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// The value of the earliest slot that has one.
    First,
    /// The value of the latest slot that has one.
    Last,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The sum, added up in order of time.
    Sum,
}

/// One computed column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Measure {
    /// Its name in the result.
    pub name: String,
    /// The column it is computed from.
    pub column: String,
    /// How the values are combined.
    pub function: Function,
}

/// A request for rows summed up by key and bucket of time.
#[derive(Debug, Clone)]
pub struct Rollup {
    /// Only slots that begin within this interval.
    pub interval: Interval,
    /// If not empty, only slots that begin within one of these: those a calendar expects.
    pub within: Vec<Interval>,
    /// The keys.
    pub keys: Vec<Key>,
    /// The length of a bucket. Buckets begin at multiples of it since the epoch.
    pub every: Cadence,
    /// The columns to compute.
    pub measures: Vec<Measure>,
}

/// The result's column with the start of the bucket.
pub const BUCKET: &str = "bucket";
/// The result's column with the number of slots that have a row of the table's own, none of whose cells are repaired.
pub const OBSERVED: &str = "observed";
/// The result's column with the number of slots that have only a repair, or a row with repaired cells.
pub const REPAIRED: &str = "repaired";
/// The result's column with the number of rows beyond one for each slot.
pub const DUPLICATES: &str = "duplicates";

impl Rollup {
    /// The scan that it is computed from.
    pub fn scan(&self) -> ScanRequest {
        let mut columns: Vec<String> = self.measures.iter().map(|measure| measure.column.clone()).collect();
        columns.sort_unstable();
        columns.dedup();
        ScanRequest::new(Layer::Repaired).in_interval(self.interval).of_keys(self.keys.clone()).with_columns(columns)
    }

    /// The result's columns: key, [`BUCKET`], the measures, [`OBSERVED`], [`REPAIRED`], [`DUPLICATES`].
    ///
    /// # Errors
    /// `invalid` if a measure's column is missing or not a number.
    pub fn schema(&self, table: &Table, columns: &Schema) -> Result<SchemaRef> {
        let mut fields: Vec<Field> = table.key.iter().map(|key| Field::new(key, DataType::Utf8, false)).collect();
        fields.push(Field::new(BUCKET, overlay::instant_type(), false));
        for measure in &self.measures {
            let field = shape::find(columns, &measure.column).map_err(|error| error.on("table", &table.name))?;
            let field = field.ok_or_else(|| Error::invalid(format!("table `{}` has no column `{}`", table.name, measure.column)))?;
            fields.push(Field::new(&measure.name, result_type(table, field)?, true));
        }
        for count in [OBSERVED, REPAIRED, DUPLICATES] {
            fields.push(Field::new(count, DataType::UInt64, false));
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// Integers stay integers and decimals decimals, so nothing is rounded; all else is computed as 64-bit floats.
fn result_type(table: &Table, field: &Field) -> Result<DataType> {
    match field.data_type() {
        kind if kind.is_integer() => Ok(DataType::Int64),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            Ok(DataType::Decimal128(38, *scale))
        }
        kind if kind.is_floating() => Ok(DataType::Float64),
        other => Err(Error::invalid(format!("column `{}` of table `{}` is {other}, not a number", field.name(), table.name))),
    }
}

enum Values {
    Float(Vec<Option<f64>>),
    Exact(Vec<Option<i128>>, DataType),
}

impl Values {
    fn new(kind: &DataType) -> Self {
        if *kind == DataType::Float64 { Self::Float(Vec::new()) } else { Self::Exact(Vec::new(), kind.clone()) }
    }

    fn push(&mut self, column: &ArrayRef, row: usize) {
        let there = column.is_valid(row);
        match self {
            Self::Float(values) => values.push(there.then(|| column.as_primitive::<Float64Type>().value(row))),
            Self::Exact(values, DataType::Int64) => values.push(there.then(|| i128::from(column.as_primitive::<Int64Type>().value(row)))),
            Self::Exact(values, _) => values.push(there.then(|| column.as_primitive::<Decimal128Type>().value(row))),
        }
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Self::Float(values) => match (values[a], values[b]) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            },
            Self::Exact(values, _) => values[a].cmp(&values[b]),
        }
    }

    fn compute(&self, function: Function, rows: &[usize]) -> Number {
        match self {
            Self::Float(values) => Number::Float(apply(function, rows, values, f64::min, f64::max, |a, b| Some(a + b)).flatten()),
            Self::Exact(values, _) => match apply(function, rows, values, i128::min, i128::max, i128::checked_add) {
                Some(Some(value)) => Number::Exact(Some(value)),
                Some(None) => Number::Overflow,
                None => Number::Exact(None),
            },
        }
    }
}

enum Number {
    Float(Option<f64>),
    Exact(Option<i128>),
    Overflow,
}

/// Applies a function to the values of rows in order of time, leaving out nulls; the inner `None` is an overflow.
fn apply<T: Copy>(
    function: Function,
    rows: &[usize],
    values: &[Option<T>],
    min: impl Fn(T, T) -> T,
    max: impl Fn(T, T) -> T,
    add: impl Fn(T, T) -> Option<T>,
) -> Option<Option<T>> {
    let mut there = rows.iter().filter_map(|&row| values[row]);
    let first = there.next()?;
    Some(match function {
        Function::First => Some(first),
        Function::Last => Some(there.next_back().unwrap_or(first)),
        Function::Min => Some(there.fold(first, min)),
        Function::Max => Some(there.fold(first, max)),
        Function::Sum => there.try_fold(first, add),
    })
}

/// The rows of one key, as columns.
struct Rows {
    slots: Vec<i64>,
    repaired: Vec<bool>,
    values: Vec<Values>,
}

impl Rows {
    /// By slot; within a slot the table's own rows come first, then by value.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let by_slot = self.slots[a].cmp(&self.slots[b]).then_with(|| self.repaired[a].cmp(&self.repaired[b]));
        self.values.iter().fold(by_slot, |order, values| order.then_with(|| values.compare(a, b)))
    }
}

/// Computes a rollup from a scan, for a lake without an engine that could do it.
///
/// # Errors
/// Those of the scan, and of [`compute`].
pub async fn by_scan(lake: &dyn ReadLake, table: &Table, rollup: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
    let schema = lake.describe(table).await?;
    let scan = lake.scan(table, &rollup.scan()).await?;
    compute(table, &schema, rollup, scan).await
}

/// Computes a rollup from the batches of its scan. It holds all rows of the interval in memory, of the needed columns only, so split long
/// intervals.
///
/// # Errors
/// `invalid` if a column is not a number, or a sum of integers overflows; and those of the scan.
pub async fn compute(table: &Table, columns: &Schema, rollup: &Rollup, mut scan: BatchStream) -> Result<(Vec<RecordBatch>, Usage)> {
    let schema = rollup.schema(table, columns)?;
    let grid = table.grid()?;
    let slots = grid.slots_in(&rollup.interval);
    let within = if rollup.within.is_empty() { vec![rollup.interval] } else { rollup.within.clone() };
    let wanted: SlotSet = open_slots(grid, slots, &within);
    let types: Vec<DataType> =
        (0..rollup.measures.len()).map(|index| schema.field(table.key.len() + 1 + index).data_type().clone()).collect();
    let mut by_key: HashMap<Key, Rows> = HashMap::with_capacity(rollup.keys.len());
    for key in &rollup.keys {
        let values = types.iter().map(Values::new).collect();
        by_key.insert(key.clone(), Rows { slots: Vec::new(), repaired: Vec::new(), values });
    }
    let mut usage = Usage::default();
    while let Some(batch) = scan.next().await {
        let batch = batch?;
        usage.rows_read += batch.num_rows() as u64;
        gather(table, &batch, rollup, &types, &wanted, &mut by_key)?;
    }
    Ok((vec![finish(table, rollup, &schema, &by_key)?], usage))
}

fn gather(
    table: &Table,
    batch: &RecordBatch,
    rollup: &Rollup,
    types: &[DataType],
    wanted: &SlotSet,
    by_key: &mut HashMap<Key, Rows>,
) -> Result<()> {
    let grid = table.grid()?;
    let times = column(batch, &table.time)?;
    let times =
        times.as_any().downcast_ref::<TimestampMicrosecondArray>().ok_or_else(|| Error::internal("the time column is not microseconds"))?;
    let keys: Vec<&StringArray> = key_columns(table, batch)?;
    let (repaired, cells) = (column(batch, overlay::REPAIRED_BY)?, column(batch, overlay::REPAIRED_CELLS)?);
    // A number that does not fit is an error, not a null.
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let number = |(measure, kind): (&Measure, &DataType)| {
        cast_with_options(column(batch, &measure.column)?, kind, &exact).map_err(|error| {
            Error::invalid(format!("column `{}` of table `{}` does not fit {kind}", measure.column, table.name)).because(error)
        })
    };
    let values: Vec<ArrayRef> = rollup.measures.iter().zip(types).map(number).collect::<Result<_>>()?;
    let mut row = 0;
    while row < batch.num_rows() {
        // Rows of one key mostly follow each other, so each run of them needs one look-up.
        let same_key = |other: usize| keys.iter().all(|column| column.value(other) == column.value(row));
        let end = (row + 1..batch.num_rows()).find(|&other| !same_key(other)).unwrap_or(batch.num_rows());
        let key = Key::new(keys.iter().map(|column| column.value(row)));
        if let Some(rows) = by_key.get_mut(&key) {
            for row in row..end {
                let slot = grid.slot_of_row(times.value(row)).filter(|slot| times.is_valid(row) && wanted.contains(*slot));
                if let Some(slot) = slot {
                    rows.slots.push(slot);
                    rows.repaired.push(repaired.is_valid(row) || cells.is_valid(row));
                    for (into, from) in rows.values.iter_mut().zip(&values) {
                        into.push(from, row);
                    }
                }
            }
        }
        row = end;
    }
    Ok(())
}

fn finish(table: &Table, rollup: &Rollup, schema: &SchemaRef, by_key: &HashMap<Key, Rows>) -> Result<RecordBatch> {
    let grid = table.grid()?;
    let bucket_s = i64::from(rollup.every.seconds());
    let mut keys: Vec<Vec<String>> = vec![Vec::new(); table.key.len()];
    let mut buckets: Vec<i64> = Vec::new();
    let mut results: Vec<Vec<Number>> = rollup.measures.iter().map(|_| Vec::new()).collect();
    let (mut observed, mut repaired, mut duplicates) = (Vec::new(), Vec::new(), Vec::new());
    // A key that is requested twice is still one series.
    for key in rollup.keys.iter().collect::<BTreeSet<_>>() {
        let Some(rows) = by_key.get(key) else { continue };
        let bucket_of = |row: usize| grid.start_of(rows.slots[row]).as_second().div_euclid(bucket_s);
        let mut order: Vec<usize> = (0..rows.slots.len()).collect();
        // Of several rows of one slot the smallest in value counts, so the order in which they came does not matter.
        order.sort_unstable_by(|&a, &b| rows.compare(a, b));
        for bucket in order.chunk_by(|&a, &b| bucket_of(a) == bucket_of(b)) {
            let mut once = bucket.to_vec();
            once.dedup_by_key(|row| rows.slots[*row]);
            for (column, value) in keys.iter_mut().zip(key.values()) {
                column.push(value.to_owned());
            }
            buckets.push(bucket_of(bucket[0]) * bucket_s * 1_000_000);
            let fixed = once.iter().filter(|&&row| rows.repaired[row]).count() as u64;
            observed.push(once.len() as u64 - fixed);
            repaired.push(fixed);
            duplicates.push((bucket.len() - once.len()) as u64);
            for ((into, measure), values) in results.iter_mut().zip(&rollup.measures).zip(&rows.values) {
                into.push(values.compute(measure.function, &once));
            }
        }
    }
    let mut columns: Vec<ArrayRef> = keys.into_iter().map(|values| Arc::new(StringArray::from(values)) as ArrayRef).collect();
    columns.push(Arc::new(TimestampMicrosecondArray::from(buckets).with_timezone("UTC")));
    for (measure, numbers) in rollup.measures.iter().zip(results) {
        let field = schema.field_with_name(&measure.name)?;
        columns.push(numbers_array(&measure.name, field.data_type(), numbers)?);
    }
    for counts in [observed, repaired, duplicates] {
        columns.push(Arc::new(UInt64Array::from(counts)));
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn numbers_array(name: &str, kind: &DataType, numbers: Vec<Number>) -> Result<ArrayRef> {
    let overflow = || Error::invalid(format!("`{name}` is too large a number for {kind}"));
    let exact = |number: Number| match number {
        Number::Exact(value) => Ok(value),
        Number::Float(_) | Number::Overflow => Err(overflow()),
    };
    Ok(match kind {
        DataType::Float64 => Arc::new(Float64Array::from_iter(numbers.into_iter().map(|number| match number {
            Number::Float(value) => value,
            Number::Exact(_) | Number::Overflow => None,
        }))),
        DataType::Int64 => {
            let values: Vec<Option<i64>> = numbers
                .into_iter()
                .map(|number| exact(number)?.map(|value| i64::try_from(value).map_err(|_| overflow())).transpose())
                .collect::<Result<_>>()?;
            Arc::new(Int64Array::from(values))
        }
        _ => {
            let values: Vec<Option<i128>> = numbers.into_iter().map(exact).collect::<Result<_>>()?;
            Arc::new(Decimal128Array::from(values).with_data_type(kind.clone()))
        }
    })
}

/// A column of a batch, as [`shape::find`] finds it.
///
/// # Errors
/// `invalid` if there is no column of that name.
pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    shape::find_column(batch, name)?.ok_or_else(|| Error::invalid(format!("no column `{name}` among the rows")))
}

/// The key columns of a batch.
///
/// # Errors
/// `invalid` if one is missing or not UTF-8.
pub fn key_columns<'a>(table: &Table, batch: &'a RecordBatch) -> Result<Vec<&'a StringArray>> {
    table
        .key
        .iter()
        .map(|name| column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| Error::invalid(format!("key column `{name}` is not text"))))
        .collect()
}
