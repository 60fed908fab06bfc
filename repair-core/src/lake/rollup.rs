//! Rows summed up by key and bucket of time: what a lake may compute in its own engine, and how it is computed without one.
//!
//! Sums are taken in order of time and each slot counts once, so neither the order of rows nor whether a row is the table's own or a repair
//! changes the result.
//!
//! With the rows come, if asked for, the counts of slots that are confirmed absent, from the same look at the rows: a slot is never counted both
//! by its row and as absent.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, SchemaRef};
use futures::StreamExt;
use jiff::Timestamp;

use super::{Layer, PresenceRequest, ReadLake, ScanRequest, overlay, shape};
use crate::error::{Error, Result};
use crate::model::open_slots;
use crate::model::{Cadence, Interval, Key, SlotGrid, SlotSet, Table, TablePresence, Usage};

/// How many slots of all keys are held as rows at a time, about 60 bytes each.
const MOST_ROWS: u64 = 4 << 20;

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
    /// Whether the result has the column [`ABSENT`]. Exceptions that have expired by this time do not count.
    pub absent_as_of: Option<Timestamp>,
}

/// The result's column with the start of the bucket.
pub const BUCKET: &str = "bucket";
/// The result's column with the number of slots that have a row of the table's own, none of whose cells are repaired.
pub const OBSERVED: &str = "observed";
/// The result's column with the number of slots that have only a repair, or a row with repaired cells.
pub const REPAIRED: &str = "repaired";
/// The result's column with the number of rows beyond one for each slot.
pub const DUPLICATES: &str = "duplicates";
/// The result's column with the number of slots without a row that are confirmed absent, or whose rows are removed. A bucket that has only such
/// slots is in the result, too, without measures.
pub const ABSENT: &str = "absent";

impl Rollup {
    /// The scan that it is computed from.
    pub fn scan(&self) -> ScanRequest {
        let mut columns: Vec<String> = self.measures.iter().map(|measure| measure.column.clone()).collect();
        columns.sort_unstable();
        columns.dedup();
        ScanRequest::new(Layer::Repaired).in_interval(self.interval).of_keys(self.keys.clone()).with_columns(columns)
    }

    /// The slots that count.
    ///
    /// # Errors
    /// If the table has no cadence.
    pub fn wanted(&self, table: &Table) -> Result<SlotSet> {
        let grid = table.grid()?;
        let slots = grid.slots_in(&self.interval);
        let all = [self.interval];
        Ok(open_slots(grid, slots, if self.within.is_empty() { &all } else { &self.within }))
    }

    /// The same, cut where buckets begin, into as few pieces as possible of at most `most_buckets` buckets. A single bucket is not cut.
    pub fn pieces(&self, most_buckets: u64) -> Vec<Self> {
        let every_s = i64::from(self.every.seconds());
        let step_s = every_s.saturating_mul(i64::try_from(most_buckets.max(1)).unwrap_or(i64::MAX));
        let mut pieces = Vec::new();
        let mut rest = self.interval;
        loop {
            let first = rest.from().as_second().div_euclid(every_s).saturating_mul(every_s);
            let cut = Timestamp::from_second(first.saturating_add(step_s)).ok().filter(|cut| rest.from() < *cut && *cut < rest.to());
            let halves = cut.and_then(|cut| Some((Interval::new(rest.from(), cut).ok()?, Interval::new(cut, rest.to()).ok()?)));
            let Some((piece, after)) = halves else {
                pieces.push(Self { interval: rest, ..self.clone() });
                return pieces;
            };
            pieces.push(Self { interval: piece, ..self.clone() });
            rest = after;
        }
    }

    /// How many buckets may be computed from rows that are all held in memory.
    ///
    /// # Errors
    /// If the table has no cadence.
    pub fn most_buckets_in_memory(&self, table: &Table) -> Result<u64> {
        let in_bucket = u64::from(self.every.seconds()) / u64::from(table.grid()?.cadence().seconds()).max(1);
        Ok(MOST_ROWS / (in_bucket.max(1) * (self.keys.len() as u64).max(1)))
    }

    /// The result's columns: key, [`BUCKET`], the measures, [`OBSERVED`], [`REPAIRED`], [`DUPLICATES`], and [`ABSENT`] if it is asked for.
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
        for count in [OBSERVED, REPAIRED, DUPLICATES].into_iter().chain(self.absent_as_of.map(|_| ABSENT)) {
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
            Self::Float(values) => Number::Float(apply(function, rows, values, least, greatest, |a, b| Some(a + b)).flatten()),
            Self::Exact(values, _) => match apply(function, rows, values, i128::min, i128::max, i128::checked_add) {
                Some(Some(value)) => Number::Exact(Some(value)),
                Some(None) => Number::Overflow,
                None => Number::Exact(None),
            },
        }
    }
}

/// A computed value.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// A float, if there was any.
    Float(Option<f64>),
    /// A whole number or the digits of a decimal, if there was any.
    Exact(Option<i128>),
    /// A sum that is too large.
    Overflow,
}

/// The smaller of two floats: of a number and a NaN, the number; of two zeros, the first.
#[inline]
pub fn least(one: f64, other: f64) -> f64 {
    if other < one || one.is_nan() { other } else { one }
}

/// The larger of two floats: of a number and a NaN, the number; of two zeros, the first.
#[inline]
pub fn greatest(one: f64, other: f64) -> f64 {
    if other > one || one.is_nan() { other } else { one }
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

/// Computes a rollup from scans, for a lake without an engine that could do it. Long intervals are read piece by piece; the batches are those
/// of the pieces, each in order of key, then time.
///
/// # Errors
/// Those of the scan, and of [`Gathered`].
pub async fn by_scan(lake: &dyn ReadLake, table: &Table, rollup: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
    let schema = lake.describe(table).await?;
    let (mut all, mut usage) = (Vec::new(), Usage::default());
    for piece in rollup.pieces(rollup.most_buckets_in_memory(table)?) {
        let mut gathered = Gathered::new(table, &schema, &piece)?;
        let mut scan = lake.scan(table, &piece.scan()).await?;
        while let Some(batch) = scan.next().await {
            gathered.add(&batch?)?;
        }
        let absent = match piece.absent_as_of {
            Some(as_of) => {
                let slots = table.grid()?.slots_in(&piece.interval);
                let presence = lake.presence(table, &PresenceRequest::new(slots, piece.keys.clone(), as_of)).await?;
                usage += presence.usage;
                absences(&presence)
            }
            None => BTreeMap::new(),
        };
        usage += gathered.usage;
        all.push(gathered.finish(&absent)?);
    }
    Ok((all, usage))
}

/// The slots of each key that are confirmed absent or removed, whether or not there is a row after all.
fn absences(presence: &TablePresence) -> BTreeMap<Key, SlotSet> {
    let mut absent = presence.absent.clone();
    for (key, removed) in &presence.removed {
        match absent.get_mut(key) {
            Some(slots) => slots.union(removed),
            None => {
                absent.insert(key.clone(), removed.clone());
            }
        }
    }
    absent
}

/// Adds the column [`ABSENT`] to a rollup without it, for a lake whose engine sums up rows. The presence is to be read after the rows, so that a
/// row that arrives in between is not counted at all, rather than twice.
///
/// # Errors
/// `invalid` or `internal` if the batches are not those of the rollup.
pub fn with_absent(table: &Table, rollup: &Rollup, batches: &[RecordBatch], presence: &TablePresence) -> Result<Vec<RecordBatch>> {
    let Some(first) = batches.first() else { return Err(Error::internal("a rollup has no columns")) };
    let fields = first.schema_ref().fields().iter().cloned().chain([Arc::new(Field::new(ABSENT, DataType::UInt64, false))]);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let (wanted, starts) = (rollup.wanted(table)?, Buckets::of(table, rollup)?);
    let mut counts: HashMap<Key, BTreeMap<i64, u64>> = HashMap::new();
    for (key, mut absent) in absences(presence) {
        absent.intersect(&wanted);
        if let Some(held) = presence.held(&key) {
            absent.subtract(&held);
        }
        let of_key = starts.count(&absent);
        if !of_key.is_empty() && rollup.keys.contains(&key) {
            counts.insert(key, of_key);
        }
    }
    let mut all = Vec::with_capacity(batches.len() + 1);
    for batch in batches {
        let keys = key_columns(table, batch)?;
        let buckets = column(batch, BUCKET)?
            .as_primitive_opt::<arrow::datatypes::TimestampMicrosecondType>()
            .ok_or_else(|| Error::internal("the buckets of a rollup are not microseconds"))?;
        let mut take = |row: usize| {
            // Without absences, no key is looked up.
            let of_key = if counts.is_empty() { None } else { counts.get_mut(&Key::new(keys.iter().map(|column| column.value(row)))) };
            of_key.and_then(|of_key| of_key.remove(&starts.number(buckets.value(row)))).unwrap_or(0)
        };
        let absent: UInt64Array = (0..batch.num_rows()).map(&mut take).collect();
        let columns = batch.columns().iter().cloned().chain([Arc::new(absent) as ArrayRef]).collect();
        all.push(RecordBatch::try_new(schema.clone(), columns)?);
    }
    let mut rest = Computed::new(table, rollup);
    for key in rollup.keys.iter().collect::<BTreeSet<_>>() {
        for (bucket, absent) in counts.remove(key).unwrap_or_default() {
            rest.push_absent(key, bucket, absent);
        }
    }
    all.push(rest.finish(rollup, &schema, &starts)?);
    Ok(all)
}

/// Which bucket a slot is in. Buckets have numbers, counted from the epoch.
struct Buckets {
    grid: SlotGrid,
    every_s: i64,
}

impl Buckets {
    fn of(table: &Table, rollup: &Rollup) -> Result<Self> {
        Ok(Self { grid: table.grid()?, every_s: i64::from(rollup.every.seconds()) })
    }

    fn at(&self, slot: i64) -> i64 {
        self.grid.start_of(slot).as_second().div_euclid(self.every_s)
    }

    fn start_us(&self, bucket: i64) -> i64 {
        bucket * self.every_s * 1_000_000
    }

    fn number(&self, start_us: i64) -> i64 {
        start_us.div_euclid(self.every_s * 1_000_000)
    }

    fn count(&self, slots: &SlotSet) -> BTreeMap<i64, u64> {
        let mut counts = BTreeMap::new();
        for slot in slots.iter() {
            *counts.entry(self.at(slot)).or_default() += 1;
        }
        counts
    }
}

/// The rows of a rollup, held in memory, of the needed columns only. Of a long interval, they are too many: see [`Rollup::pieces`].
pub struct Gathered<'a> {
    table: &'a Table,
    rollup: &'a Rollup,
    schema: SchemaRef,
    types: Vec<DataType>,
    wanted: SlotSet,
    by_key: HashMap<Key, Rows>,
    /// What was read.
    pub usage: Usage,
}

impl<'a> Gathered<'a> {
    /// No rows yet. `columns` are those of the table.
    ///
    /// # Errors
    /// `invalid` if a column is not a number, or the table has no cadence.
    pub fn new(table: &'a Table, columns: &Schema, rollup: &'a Rollup) -> Result<Self> {
        let schema = rollup.schema(table, columns)?;
        let types: Vec<DataType> =
            (0..rollup.measures.len()).map(|index| schema.field(table.key.len() + 1 + index).data_type().clone()).collect();
        let mut by_key: HashMap<Key, Rows> = HashMap::with_capacity(rollup.keys.len());
        for key in &rollup.keys {
            let values = types.iter().map(Values::new).collect();
            by_key.insert(key.clone(), Rows { slots: Vec::new(), repaired: Vec::new(), values });
        }
        Ok(Self { table, rollup, schema, types, wanted: rollup.wanted(table)?, by_key, usage: Usage::default() })
    }

    /// Adds rows of [`Rollup::scan`].
    ///
    /// # Errors
    /// `invalid` if a number does not fit.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.usage.rows_read += batch.num_rows() as u64;
        gather(self.table, batch, self.rollup, &self.types, &self.wanted, &mut self.by_key)
    }

    /// The rollup, in order of key, then time. `absent` are slots that are absent or removed; those with a row do not count as absent.
    ///
    /// # Errors
    /// `invalid` if a sum of integers overflows.
    pub fn finish(self, absent: &BTreeMap<Key, SlotSet>) -> Result<RecordBatch> {
        let Self { table, rollup, schema, wanted, by_key, .. } = self;
        finish(table, rollup, &schema, &wanted, &by_key, absent)
    }
}

/// A column of a batch as the numbers of a measure. A number that does not fit is an error, not a null.
///
/// # Errors
/// `invalid` if one does not fit.
pub fn numbers_of(table: &Table, measure: &Measure, column: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    if column.data_type() == kind {
        return Ok(column.clone());
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, kind, &exact).map_err(|error| {
        Error::invalid(format!("column `{}` of table `{}` does not fit {kind}", measure.column, table.name)).because(error)
    })
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
    let number = |(measure, kind): (&Measure, &DataType)| numbers_of(table, measure, column(batch, &measure.column)?, kind);
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

/// The result, as it is computed row by row.
struct Computed {
    keys: Vec<Vec<String>>,
    buckets: Vec<i64>,
    measures: Vec<Vec<Number>>,
    observed: Vec<u64>,
    repaired: Vec<u64>,
    duplicates: Vec<u64>,
    absent: Vec<u64>,
}

impl Computed {
    fn new(table: &Table, rollup: &Rollup) -> Self {
        Self {
            keys: vec![Vec::new(); table.key.len()],
            buckets: Vec::new(),
            measures: rollup.measures.iter().map(|_| Vec::new()).collect(),
            observed: Vec::new(),
            repaired: Vec::new(),
            duplicates: Vec::new(),
            absent: Vec::new(),
        }
    }

    fn push(&mut self, key: &Key, bucket: i64, numbers: impl IntoIterator<Item = Number>, counts: [u64; 4]) {
        for (column, value) in self.keys.iter_mut().zip(key.values()) {
            column.push(value.to_owned());
        }
        self.buckets.push(bucket);
        for (into, number) in self.measures.iter_mut().zip(numbers) {
            into.push(number);
        }
        let [observed, repaired, duplicates, absent] = counts;
        self.observed.push(observed);
        self.repaired.push(repaired);
        self.duplicates.push(duplicates);
        self.absent.push(absent);
    }

    fn push_absent(&mut self, key: &Key, bucket: i64, absent: u64) {
        let nothing = vec![Number::Float(None); self.measures.len()];
        self.push(key, bucket, nothing, [0, 0, 0, absent]);
    }

    fn finish(self, rollup: &Rollup, schema: &SchemaRef, starts: &Buckets) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = self.keys.into_iter().map(|values| Arc::new(StringArray::from(values)) as ArrayRef).collect();
        let buckets = self.buckets.into_iter().map(|bucket| starts.start_us(bucket));
        columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(buckets).with_timezone("UTC")));
        for (measure, numbers) in rollup.measures.iter().zip(self.measures) {
            let field = schema.field_with_name(&measure.name)?;
            columns.push(numbers_array(&measure.name, field.data_type(), numbers)?);
        }
        for counts in [self.observed, self.repaired, self.duplicates].into_iter().chain(rollup.absent_as_of.map(|_| self.absent)) {
            columns.push(Arc::new(UInt64Array::from(counts)));
        }
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}

fn finish(
    table: &Table,
    rollup: &Rollup,
    schema: &SchemaRef,
    wanted: &SlotSet,
    by_key: &HashMap<Key, Rows>,
    absent: &BTreeMap<Key, SlotSet>,
) -> Result<RecordBatch> {
    let starts = Buckets::of(table, rollup)?;
    let mut computed = Computed::new(table, rollup);
    // A key that is requested twice is still one series.
    for key in rollup.keys.iter().collect::<BTreeSet<_>>() {
        let Some(rows) = by_key.get(key) else { continue };
        let bucket_of = |row: usize| starts.at(rows.slots[row]);
        let mut order: Vec<usize> = (0..rows.slots.len()).collect();
        // Of several rows of one slot the smallest in value counts, so the order in which they came does not matter.
        order.sort_unstable_by(|&a, &b| rows.compare(a, b));
        let mut absent = match absent.get(key) {
            Some(absent) => {
                let mut absent = absent.clone();
                absent.intersect(wanted);
                let mut held = SlotSet::new(table.grid()?.cadence(), absent.range());
                rows.slots.iter().for_each(|slot| {
                    held.insert(*slot);
                });
                absent.subtract(&held);
                starts.count(&absent)
            }
            None => BTreeMap::new(),
        };
        for bucket in order.chunk_by(|&a, &b| bucket_of(a) == bucket_of(b)) {
            let number = bucket_of(bucket[0]);
            let later = absent.split_off(&number);
            for (bucket, count) in std::mem::replace(&mut absent, later) {
                computed.push_absent(key, bucket, count);
            }
            let mut once = bucket.to_vec();
            once.dedup_by_key(|row| rows.slots[*row]);
            let fixed = once.iter().filter(|&&row| rows.repaired[row]).count() as u64;
            let counts = [once.len() as u64 - fixed, fixed, (bucket.len() - once.len()) as u64, absent.remove(&number).unwrap_or_default()];
            let numbers = rollup.measures.iter().zip(&rows.values).map(|(measure, values)| values.compute(measure.function, &once));
            computed.push(key, number, numbers, counts);
        }
        for (bucket, count) in absent {
            computed.push_absent(key, bucket, count);
        }
    }
    computed.finish(rollup, schema, &starts)
}

/// Computed values as a column of a result.
///
/// # Errors
/// `invalid` with the column's name if a sum overflowed.
pub fn numbers_array(name: &str, kind: &DataType, numbers: Vec<Number>) -> Result<ArrayRef> {
    let overflow = || Error::invalid(format!("`{name}` is too large a number for {kind}"));
    let exact = |number: Number| match number {
        Number::Exact(value) => Ok(value),
        Number::Float(None) => Ok(None),
        Number::Float(Some(_)) | Number::Overflow => Err(overflow()),
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
