//! Bars in an in-memory lake, and a context to run plug-ins in.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::lake::{Overlay, StageRequest, StageScope};
use repair_core::model::Usage;
use repair_core::model::{
    Cadence, Calendar, Counts, Findings, Fix, Format, GapList, Interval, Key, Partition, PartitionUnit, Scope, Table, TimeMark,
};
use repair_core::plugin::{Clock, Plugin, PluginKind, Registry, StepContext};
use repair_core::testing::MemoryLake;
use repair_core::{Error, Result};
use serde_json::Value;

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn interval(from: &str, to: &str) -> Interval {
    Interval::parse(from, to).unwrap()
}

pub(crate) fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

/// A table of minute bars.
pub(crate) fn bars() -> Table {
    Table {
        name: "bars".to_owned(),
        location: "bars".to_owned(),
        format: Format::Parquet,
        partition_by: vec![Partition { column: "date".to_owned(), unit: PartitionUnit::Day }],
        key: vec!["symbol".to_owned()],
        time: "ts".to_owned(),
        time_marks: TimeMark::Start,
        cadence: Some(Cadence::MINUTE),
        ..Table::implicit("bars", "ts")
    }
}

/// A row: symbol, time, then open, high, low, close, volume.
pub(crate) type Row<'a> = (&'a str, &'a str, [f64; 5]);

/// Rows as a lake returns them.
pub(crate) fn batch(table: &Table, rows: &[Row<'_>]) -> RecordBatch {
    let number = |index: usize| Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2[index]))) as ArrayRef;
    let times = rows.iter().map(|row| at(row.1).as_microsecond());
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (&table.key[0], Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
        (&table.time, Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
    ];
    columns.extend(["open", "high", "low", "close", "volume"].into_iter().enumerate().map(|(index, name)| (name, number(index))));
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A bar at one price.
pub(crate) fn flat(price: f64, volume: f64) -> [f64; 5] {
    [price, price, price, price, volume]
}

/// A lake that holds this table.
pub(crate) fn lake_with(table: &Table, rows: &RecordBatch) -> Arc<MemoryLake> {
    let lake = MemoryLake::default();
    lake.put_table(table, std::slice::from_ref(rows)).unwrap();
    Arc::new(lake)
}

/// Repairs the bars, in a run of its own.
pub(crate) async fn repair_bars(lake: &MemoryLake, run: &str, fix: &Fix) {
    let table = bars();
    let scope = StageScope { run, step: "fill", visit: 1, table: &table };
    let request = StageRequest::new("unit", "backfill", Timestamp::UNIX_EPOCH, fix);
    lake.stage(&scope, &request).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
}

/// A clock that never advances.
struct Stopped(Timestamp);

#[async_trait]
impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }

    async fn sleep_until(&self, _: Timestamp) {}
}

/// A context with these tables and all calendars, at an instant.
pub(crate) fn context(lake: Arc<MemoryLake>, tables: Vec<Table>, now: &str) -> StepContext {
    repair_core::testing::context(lake, tables, Arc::new(Stopped(at(now)))).with_calendars(registry().calendars().values().cloned())
}

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    registry
}

/// A plug-in, made as a workflow makes it.
pub(crate) fn plugin(kind: PluginKind, name: &str, with: &Value) -> Result<Plugin> {
    registry().get(kind, name).unwrap().make(with).map_err(Error::from)
}

/// Findings about the bars, of which only the scope matters.
pub(crate) fn findings(keys: &[Key], interval: Interval, calendar: &dyn Calendar) -> Findings {
    let scope = Scope {
        table: "bars".to_owned(),
        grid: bars().grid().unwrap(),
        keys: keys.to_vec(),
        interval,
        calendar: calendar.name().to_owned(),
        lifetimes: Default::default(),
    };
    Findings::of_gaps(scope, Counts::default(), GapList::default(), Usage::default())
}

/// A value of a column of numbers.
pub(crate) fn number(rows: &RecordBatch, column: &str, row: usize) -> Option<f64> {
    let column = arrow::compute::cast(rows.column_by_name(column).unwrap(), &DataType::Float64).unwrap();
    let column = column.as_primitive::<Float64Type>();
    column.is_valid(row).then(|| column.value(row))
}
