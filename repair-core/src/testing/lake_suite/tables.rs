//! Tables and rows for the suite, and the slow, obvious way to compute what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimestampMicrosecondType};
use futures::TryStreamExt;
use jiff::Timestamp;

use super::LakeSetup;
use crate::lake::{BatchStream, Lake, Layer, ScanRequest, StageRequest, StageScope, overlay};
use crate::model::{Absence, Cadence, Fix, Format, Interval, Key, Partition, PartitionUnit, SlotRange, Table, TimeMark};

/// A row of the suite's tables.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) time_us: i64,
    pub(super) price: Option<f64>,
    pub(super) volume: Option<i64>,
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn row(key: &str, time: &str, price: f64, volume: i64) -> Row {
    Row { key: Key::from(key), time_us: at(time).as_microsecond(), price: Some(price), volume: Some(volume) }
}

/// A new table of minutes, partitioned by day.
pub(super) fn new_table() -> Table {
    let name = format!("suite_{}", uuid::Uuid::now_v7().simple());
    Table {
        location: name.clone(),
        name,
        format: Format::Parquet,
        partition_by: by(PartitionUnit::Day),
        key: vec!["symbol".to_owned()],
        time: "ts".to_owned(),
        time_marks: TimeMark::Start,
        cadence: Some(Cadence::MINUTE),
        ..Table::implicit("bars", "ts")
    }
}

pub(super) fn by(unit: PartitionUnit) -> Vec<Partition> {
    vec![Partition { column: "part".to_owned(), unit }]
}

pub(super) fn new_run() -> String {
    format!("suite-{}", uuid::Uuid::now_v7())
}

/// Rows in the shape of batches.
pub(super) fn batch(table: &Table, rows: &[Row]) -> RecordBatch {
    let value = |row: &Row, at: usize| row.key.values().nth(at).unwrap().to_owned();
    let keys = (0..table.key.len()).map(|at| Arc::new(StringArray::from_iter_values(rows.iter().map(|row| value(row, at)))) as ArrayRef);
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time_us)).with_timezone("UTC");
    let mut columns: Vec<ArrayRef> = keys.collect();
    columns.push(Arc::new(times));
    columns.push(Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.price))));
    columns.push(Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.volume))));
    let mut fields: Vec<Field> = table.key.iter().map(|key| Field::new(key, DataType::Utf8, false)).collect();
    fields.push(Field::new(&table.time, overlay::instant_type(), false));
    fields.push(Field::new("price", DataType::Float64, true));
    fields.push(Field::new("volume", DataType::Int64, true));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// A new table with these rows.
pub(super) async fn table_with(setup: &dyn LakeSetup, rows: &[Row]) -> Table {
    let table = new_table();
    put(setup, &table, rows).await;
    table
}

pub(super) async fn put(setup: &dyn LakeSetup, table: &Table, rows: &[Row]) {
    setup.add_rows(table, &[batch(table, rows)]).await.unwrap();
}

pub(super) async fn collect(stream: BatchStream) -> Vec<RecordBatch> {
    stream.try_collect().await.unwrap()
}

/// What is compared of a row: key, time, values, and who repaired it.
pub(super) type Seen = (Key, i64, Option<f64>, Option<i64>, Option<String>);

/// The rows of batches, in order of key and time. Missing columns are null.
pub(super) fn seen(table: &Table, batches: &[RecordBatch]) -> Vec<Seen> {
    let mut all = Vec::new();
    for batch in batches {
        let keys: Vec<&StringArray> = table.key.iter().map(|key| batch.column_by_name(key).unwrap().as_string::<i32>()).collect();
        let times = batch.column_by_name(&table.time).unwrap().as_primitive::<TimestampMicrosecondType>();
        let prices = batch.column_by_name("price").map(|column| column.as_primitive::<Float64Type>());
        let volumes = batch.column_by_name("volume").map(|column| column.as_primitive::<Int64Type>());
        let repaired = batch.column_by_name(overlay::REPAIRED_BY).map(|column| column.as_string::<i32>());
        for row in 0..batch.num_rows() {
            all.push((
                Key::new(keys.iter().map(|column| column.value(row))),
                times.value(row),
                prices.filter(|column| column.is_valid(row)).map(|column| column.value(row)),
                volumes.filter(|column| column.is_valid(row)).map(|column| column.value(row)),
                repaired.filter(|column| column.is_valid(row)).map(|column| column.value(row).to_owned()),
            ));
        }
    }
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all
}

/// As [`seen`], for rows that nobody repaired.
pub(super) fn own(rows: &[Row]) -> Vec<Seen> {
    repaired(rows, None)
}

/// As [`seen`], for rows that a strategy repaired.
pub(super) fn repaired(rows: &[Row], strategy: Option<&str>) -> Vec<Seen> {
    let mut all: Vec<Seen> =
        rows.iter().map(|row| (row.key.clone(), row.time_us, row.price, row.volume, strategy.map(str::to_owned))).collect();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all
}

/// Own and repaired rows together.
pub(super) fn both(rows: &[Row], strategy: &str, fixed: &[Row]) -> Vec<Seen> {
    let mut all = [own(rows), repaired(fixed, Some(strategy))].concat();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all
}

pub(super) fn everything(layer: Layer) -> ScanRequest {
    ScanRequest::new(layer)
}

/// All rows of a table.
pub(super) async fn read(lake: &dyn Lake, table: &Table, layer: Layer) -> Vec<Seen> {
    seen(table, &collect(lake.scan(table, &everything(layer)).await.unwrap()).await)
}

pub(super) fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

/// The slots of an interval.
pub(super) fn slots(table: &Table, from: &str, to: &str) -> SlotRange {
    table.grid().unwrap().slots_in(&Interval::parse(from, to).unwrap())
}

pub(super) fn fix(table: &Table, rows: &[Row], absent: Vec<Absence>) -> Fix {
    let rows = if rows.is_empty() { Vec::new() } else { vec![batch(table, rows)] };
    Fix { rows, absent, source: "market".to_owned(), ..Fix::default() }
}

pub(super) fn absence(key: &str, slots: SlotRange, recheck_after: &str) -> Absence {
    Absence {
        key: Key::from(key),
        slots,
        source: "market".to_owned(),
        asked_at: at("2024-04-01T00:00:00Z"),
        answer: "nothing traded".to_owned(),
        recheck_after: at(recheck_after),
    }
}

pub(super) fn scope<'a>(table: &'a Table, run: &'a str) -> StageScope<'a> {
    StageScope { run, step: "fill", visit: 1, table }
}

pub(super) fn request<'a>(unit: &'a str, fix: &'a Fix) -> StageRequest<'a> {
    StageRequest::new(unit, "backfill", at("2024-04-01T00:00:00Z"), fix)
}

/// Repairs a table in a new run.
pub(super) async fn repair(lake: &dyn Lake, table: &Table, strategy: &str, repaired_at: &str, fix: &Fix) {
    let run = new_run();
    let scope = scope(table, &run);
    let request = StageRequest::new("unit", strategy, at(repaired_at), fix);
    lake.stage(&scope, &request).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
}

/// Pseudo-random numbers that are the same each time.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The number of rows of each key and slot.
pub(super) type Counted = BTreeMap<(Key, i64), u32>;
