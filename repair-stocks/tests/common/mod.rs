//! A lake in memory, with just what the plug-ins of bars ask of one, and a context to run them in.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::unimplemented, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Float64Type, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::lake::overlay::view_schema;
use repair_core::lake::{BatchStream, Lake, Layer, PresenceRequest, Published, ScanRequest, StageRequest, StageScope, Staged};
use repair_core::model::{
    Cadence, Calendar, Counts, Findings, Format, GapList, Interval, Key, Partition, PartitionUnit, Presence, Scope, SlotSet, Table,
    TablePresence, TimeMark,
};
use repair_core::plugin::{Clock, Plugin, PluginKind, Registry, StepContext};
use repair_core::{Error, ErrorKind, Result, Usage};
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
    }
}

/// A row: symbol, time, then open, high, low, close, volume.
pub(crate) type Row<'a> = (&'a str, &'a str, [f64; 5]);

/// Rows as a lake gives them.
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

/// Tables in memory, by location.
#[derive(Default)]
pub(crate) struct MemoryLake {
    pub(crate) raw: Mutex<BTreeMap<String, RecordBatch>>,
    /// Repaired rows.
    pub(crate) repaired: Mutex<BTreeMap<String, RecordBatch>>,
    /// Slots confirmed absent.
    pub(crate) absent: Mutex<BTreeMap<String, BTreeSet<(Key, i64)>>>,
    /// What was asked for with each scan.
    pub(crate) scans: Mutex<Vec<(String, ScanRequest)>>,
}

impl MemoryLake {
    pub(crate) fn with(table: &Table, rows: &RecordBatch) -> Self {
        let lake = Self::default();
        lake.raw.lock().unwrap().insert(table.location.clone(), rows.clone());
        lake
    }

    fn rows(&self, table: &Table) -> Result<RecordBatch> {
        let found = self.raw.lock().unwrap().get(&table.location).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no folder `{}`", table.location)))
    }
}

fn slots(table: &Table, rows: &RecordBatch) -> Vec<(Key, i64)> {
    let grid = table.grid().unwrap();
    let keys = rows.column_by_name(&table.key[0]).unwrap().as_string::<i32>();
    let times = rows.column_by_name(&table.time).unwrap().as_primitive::<TimestampMicrosecondType>();
    (0..rows.num_rows()).map(|row| (Key::from(keys.value(row)), grid.slot_of_seconds(times.value(row).div_euclid(1_000_000)))).collect()
}

fn keep(rows: &RecordBatch, keep: impl Iterator<Item = bool>) -> RecordBatch {
    filter_record_batch(rows, &keep.map(Some).collect::<BooleanArray>()).unwrap()
}

#[async_trait]
impl Lake for MemoryLake {
    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        Ok(self.rows(table)?.schema())
    }

    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        let grid = table.grid()?;
        let mut raw = Presence::new(grid, request.slots, &request.keys);
        for (key, slot) in slots(table, &self.rows(table)?) {
            if let Some(of_key) = raw.keys.get_mut(&key) {
                of_key.add_row(slot);
            }
        }
        let set = |of: &[(Key, i64)]| {
            let mut sets: BTreeMap<Key, SlotSet> = BTreeMap::new();
            for (key, slot) in of {
                sets.entry(key.clone()).or_insert_with(|| SlotSet::new(grid.cadence, request.slots)).insert(*slot);
            }
            sets
        };
        let repaired = self.repaired.lock().unwrap().get(&table.location).map(|rows| slots(table, rows)).unwrap_or_default();
        let absent: Vec<_> = self.absent.lock().unwrap().get(&table.location).into_iter().flatten().cloned().collect();
        Ok(TablePresence { raw, repaired: set(&repaired), absent: set(&absent), usage: Usage::default() })
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        self.scans.lock().unwrap().push((table.location.clone(), request.clone()));
        let mut rows = self.rows(table)?;
        if request.layer == Layer::Repaired {
            let nobody = new_null_array(&DataType::Utf8, rows.num_rows());
            let own = RecordBatch::try_new(view_schema(&rows.schema()), [rows.columns(), &[nobody]].concat()).unwrap();
            let mut all = vec![own];
            if let Some(repaired) = self.repaired.lock().unwrap().get(&table.location) {
                let by = Arc::new(StringArray::from(vec!["backfill"; repaired.num_rows()])) as ArrayRef;
                all.push(RecordBatch::try_new(all[0].schema(), [repaired.columns(), &[by]].concat()).unwrap());
            }
            rows = concat_batches(&all[0].schema(), &all).unwrap();
        }
        let range = request.interval.map(|interval| table.grid().unwrap().slots_in(&interval));
        let wanted = slots(table, &rows).into_iter().map(|(key, slot)| {
            range.is_none_or(|range| range.contains(slot)) && request.keys.as_ref().is_none_or(|keys| keys.contains(&key))
        });
        let mut rows = keep(&rows, wanted);
        if let Some(columns) = &request.columns {
            let schema = rows.schema();
            let own = |name: &String| *name == table.key[0] || *name == table.time || name == "repaired_by" || columns.contains(name);
            let wanted: Vec<usize> = (0..rows.num_columns()).filter(|&index| own(schema.field(index).name())).collect();
            rows = rows.project(&wanted).unwrap();
        }
        // In two batches, the later rows first: a lake promises no order.
        let half = rows.num_rows() / 2;
        let halves = [rows.slice(half, rows.num_rows() - half), rows.slice(0, half)];
        Ok(Box::pin(futures::stream::iter(halves.map(Ok))))
    }

    /// As a lake does: whole partitions, and no row outside of the interval.
    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage> {
        let inside = |row: &(Key, i64)| interval.contains(table.grid().unwrap().start_of(row.1));
        let mut all: Vec<RecordBatch> = rows;
        if all.iter().any(|batch| !slots(table, batch).iter().all(inside)) {
            return Err(Error::invalid("a row lies outside of the interval"));
        }
        if let (Ok(before), false) = (self.rows(table), table.partition_by.is_empty()) {
            let (first, last) = interval.dates();
            let stays = slots(table, &before).into_iter().map(|(_, slot)| {
                let (date, _) = Interval::new(table.grid().unwrap().start_of(slot), Timestamp::MAX).unwrap().dates();
                date < first || date > last
            });
            all.push(keep(&before, stays));
        }
        if let Some(schema) = all.first().map(RecordBatch::schema) {
            let all = concat_batches(&schema, &all).unwrap();
            self.raw.lock().unwrap().insert(table.location.clone(), all);
        }
        Ok(Usage { objects_written: 1, ..Usage::default() })
    }

    async fn check_writable(&self) -> Result<()> {
        unimplemented!()
    }
    async fn stage(&self, _: &StageScope<'_>, _: &StageRequest<'_>) -> Result<Staged> {
        unimplemented!()
    }
    async fn staged(&self, _: &StageScope<'_>) -> Result<Vec<Staged>> {
        unimplemented!()
    }
    async fn publish(&self, _: &StageScope<'_>, _: u32, _: &[String]) -> Result<Published> {
        unimplemented!()
    }
    async fn discard_staged(&self, _: &StageScope<'_>) -> Result<()> {
        unimplemented!()
    }
    async fn put_artifact(&self, _: &str, _: &str, _: &[RecordBatch]) -> Result<Usage> {
        unimplemented!()
    }
    async fn get_artifact(&self, _: &str, _: &str) -> Result<Vec<RecordBatch>> {
        unimplemented!()
    }
    async fn query(&self, _: &[Table], _: &str) -> Result<BatchStream> {
        unimplemented!()
    }
}

/// A clock that stands still.
struct Stopped(Timestamp);

#[async_trait]
impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }

    async fn sleep_until(&self, _: Timestamp) {}
}

/// A context of these tables, with all calendars, at an instant.
pub(crate) fn context(lake: Arc<MemoryLake>, tables: Vec<Table>, now: &str) -> StepContext {
    StepContext {
        run: "run".into(),
        step: "step".into(),
        visit: 1,
        lake,
        tables: Arc::new(tables.into_iter().map(|table| (table.name.clone(), table)).collect()),
        sources: Arc::default(),
        calendars: Arc::new(registry().calendars().clone()),
        clock: Arc::new(Stopped(at(now))),
        cancel: tokio_util::sync::CancellationToken::new(),
        progress: Arc::new(()),
    }
}

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    registry
}

/// A plug-in, as a workflow makes it.
pub(crate) fn plugin(kind: PluginKind, name: &str, with: &Value) -> Result<Plugin> {
    registry().get(kind, name).unwrap().make(with).map_err(Error::from)
}

/// Findings of a look at the bars, of which only the scope matters.
pub(crate) fn findings(keys: &[Key], interval: Interval, calendar: &dyn Calendar) -> Findings {
    let scope = Scope {
        table: "bars".to_owned(),
        grid: bars().grid().unwrap(),
        keys: keys.to_vec(),
        interval,
        calendar: calendar.name().to_owned(),
    };
    Findings { scope, counts: Counts::default(), gaps: GapList::default(), usage: Usage::default() }
}

/// A value of a column of numbers.
pub(crate) fn number(rows: &RecordBatch, column: &str, row: usize) -> Option<f64> {
    let column = arrow::compute::cast(rows.column_by_name(column).unwrap(), &DataType::Float64).unwrap();
    let column = column.as_primitive::<Float64Type>();
    column.is_valid(row).then(|| column.value(row))
}
