//! A rollup, which folds rows as they are decoded, is that of the rows of the repaired view, held in memory and sorted, to the last bit.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use std::path::Path;
use std::sync::Arc;

use crate::common::*;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use proptest::prelude::*;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::rollup::{Function, Measure, Rollup};
use repair_core::lake::{Overlay, ReadLake, overlay};
use repair_core::model::{Cadence, Format, Interval, PartitionUnit, SlotRange, Table, TimeMark};
use repair_core::testing::lake_suite::assert_rollup_is_that_of_a_scan;

/// The first instant of the tables here.
const START: &str = "2018-04-03T22:00:00Z";
/// The minutes that they cover.
const MINUTES: i64 = 240;

/// How a file of a table is written.
#[derive(Debug, Clone)]
struct File {
    rows: Vec<(u8, i64, Option<f64>)>,
    close: DataType,
    volume: Option<DataType>,
    key: DataType,
    row_group: usize,
}

fn number() -> impl Strategy<Value = Option<f64>> {
    let special = prop::sample::select(vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e16, -1e16]);
    prop::option::weighted(0.9, prop_oneof![8 => (-10_000i32..10_000).prop_map(|cents| f64::from(cents) / 100.0), 1 => special])
}

fn file() -> impl Strategy<Value = File> {
    let closes = vec![DataType::Float64, DataType::Float64, DataType::Float32, DataType::Int32];
    let volumes = vec![Some(DataType::Int64), Some(DataType::Int64), Some(DataType::Int16), Some(DataType::Decimal128(12, 2)), None];
    // Some lie between minutes.
    let minute = prop_oneof![9 => (0i64..MINUTES).prop_map(|minute| minute * 60), 1 => 0i64..MINUTES * 60];
    let rows = prop::collection::vec((0u8..4, minute, number()), 0..200);
    let stored = (prop::sample::select(closes), prop::sample::select(volumes), prop::sample::select(stored_keys()), 5usize..200);
    (rows, 0u8..3, stored).prop_map(|(mut rows, order, (close, volume, key, row_group))| {
        match order {
            0 => {
                rows.sort_by_key(|row| (row.0, row.1));
                rows.dedup_by_key(|row| (row.0, row.1));
            }
            1 => rows.sort_by_key(|row| row.1),
            _ => {}
        }
        File { rows, close, volume, key, row_group }
    })
}

fn time_us(second: i64) -> i64 {
    us(START) + second * 1_000_000
}

fn symbol(number: u8) -> &'static str {
    ["A", "B", "C", "other"][usize::from(number)]
}

impl File {
    fn batch(&self, rows: &[(u8, i64, Option<f64>)]) -> RecordBatch {
        let symbols: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| symbol(row.0))));
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| time_us(row.1))).with_timezone("UTC");
        let closes: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.2)));
        // What a type cannot hold is null.
        let closes = cast(&closes, &self.close).unwrap();
        let mut columns: Vec<(&str, ArrayRef)> =
            vec![("symbol", cast(&symbols, &self.key).unwrap()), ("ts", Arc::new(times)), ("close", closes)];
        if let Some(volume) = &self.volume {
            let volumes: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.2.map(|close| (close * 7.0).round()))));
            columns.push(("volume", cast(&volumes, volume).unwrap()));
        }
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn write(&self, root: &Path, table: &Table, number: usize) {
        let mut parts: std::collections::BTreeMap<String, Vec<(u8, i64, Option<f64>)>> = std::collections::BTreeMap::new();
        for row in &self.rows {
            let folder = table.partition_by.first().map(|by| format!("date={}", partition_of(by.unit, time_us(row.1))));
            parts.entry(folder.unwrap_or_default()).or_default().push(*row);
        }
        for (folder, rows) in parts {
            write_parquet(&root.join("bars").join(folder).join(format!("{number}.parquet")), &self.batch(&rows), self.row_group);
        }
    }
}

/// What is done to a table of rows.
#[derive(Debug, Clone)]
enum Change {
    Fill(Vec<(u8, i64, Option<f64>)>),
    Absent(u8, i64, i64),
    Undo,
}

fn change() -> impl Strategy<Value = Change> {
    let rows = prop::collection::vec((0u8..3, (0i64..MINUTES).prop_map(|minute| minute * 60), number()), 1..40);
    let fill = rows.prop_map(|mut rows: Vec<(u8, i64, Option<f64>)>| {
        rows.sort_by_key(|row| (row.0, row.1));
        rows.dedup_by_key(|row| (row.0, row.1));
        Change::Fill(rows)
    });
    prop_oneof![4 => fill, 3 => (0u8..3, 0i64..MINUTES, 1i64..90).prop_map(|(key, from, length)| Change::Absent(key, from, length)), 1 => Just(Change::Undo)]
}

fn measures(columns: &[&str]) -> Vec<Measure> {
    let all = [Function::First, Function::Last, Function::Min, Function::Max, Function::Sum];
    let of = |column: &&str| all.map(|function| Measure { name: format!("{column}-{function:?}"), column: (*column).to_owned(), function });
    columns.iter().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: testdata::by_length(60, 1_000), ..ProptestConfig::default() })]

    #[test]
    fn a_rollup_is_that_of_the_view(
        written in prop::collection::vec(file(), 1..4),
        changes in prop::collection::vec(change(), 0..5),
        unit in prop_oneof![Just(None), Just(Some(PartitionUnit::Day)), Just(Some(PartitionUnit::Hour))],
        marks in prop_oneof![3 => Just(TimeMark::Start), 1 => Just(TimeMark::End)],
        cadence in prop_oneof![3 => Just(60u32), 1 => Just(300)],
        (every, from, length) in (prop::sample::select(vec![3_600u32, 3_600, 900, 7_200, 86_400]), 0i64..MINUTES, 1i64..MINUTES),
        closed in any::<bool>(),
        is_absent_asked in any::<bool>(),
    ) {
        let cadence = Cadence::from_seconds(cadence).unwrap();
        let table = Table { time_marks: marks, cadence: Some(cadence), partition_by: unit.map(by).unwrap_or_default(), ..bars() };
        let world = World::new();
        for (number, file) in written.iter().enumerate() {
            file.write(world.root(), &table, number);
        }
        // Of a table without any row, there is no file, which is an error of its own.
        prop_assume!(world.root().join("bars").exists());
        let second = |seconds: i64| jiff::Timestamp::from_microsecond(time_us(seconds)).unwrap();
        let interval = Interval::new(second(from * 60 - 30), second((from + length) * 60)).unwrap();
        let within = |part: (i64, i64)| Interval::new(second((from + part.0) * 60), second((from + part.1) * 60)).unwrap();
        runtime().block_on(async {
            for (number, change) in changes.iter().enumerate() {
                let run = format!("run-{number}");
                match change {
                    Change::Fill(rows) => {
                        let rows: Vec<Row> = rows.iter().map(|row| Row { symbol: symbol(row.0).to_owned(), time_us: time_us(row.1), close: row.2 }).collect();
                        let fix = fix(&rows, Vec::new());
                        let scope = scope(&table, &run);
                        // What does not fit the column's type is refused.
                        if world.lake.stage(&scope, &request("unit", &fix)).await.is_ok() {
                            world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
                        }
                    }
                    Change::Absent(key, from, length) => {
                        let first = table.grid().unwrap().slot_of(second(from * 60));
                        repair(&world.lake, &table, &run, &[], vec![absence(symbol(*key), SlotRange::new(first, first + length), "2030-01-01T00:00:00Z")]).await;
                    }
                    Change::Undo => {
                        let parts = vec![Part::of_run(format!("run-{}", number / 2))];
                        let (id, by, reason) = (format!("retraction-{number}"), "somebody".to_owned(), "because".to_owned());
                        let retraction = Retraction { id, parts, undoes: None, at: at("2024-01-01T00:00:00Z"), by, reason };
                        world.lake.retract(&table, &retraction).await.unwrap();
                    }
                }
            }
            let columns: Vec<String> = match world.lake.describe(&table).await {
                Ok(schema) => schema.fields().iter().map(|field| field.name().clone()).collect(),
                Err(_) => Vec::new(),
            };
            let there: Vec<&str> = ["close", "volume"].into_iter().filter(|name| columns.iter().any(|column| column == name)).collect();
            let rollup = Rollup {
                interval,
                within: if closed { vec![within((0, 17)), within((20, 100))] } else { Vec::new() },
                keys: keys(&["C", "A", "B", "none", "A"]),
                every: Cadence::from_seconds(every).unwrap(),
                measures: measures(&there),
                absent_as_of: is_absent_asked.then(|| at("2029-01-01T00:00:00Z")),
            };
            assert_rollup_is_that_of_a_scan(&world.lake, &table, &rollup, &format!("{changes:?}")).await;
        });
    }

    #[test]
    fn a_rollup_is_that_of_the_view_whatever_another_engine_wrote_beside_it(
        rows in file(),
        repairs in prop::collection::vec((0u8..3, 0i64..MINUTES, prop::sample::select(vec!["insert", "replace", "remove"]), 0i64..3), 0..60),
        format in prop_oneof![2 => Just(Format::Parquet), 1 => Just(Format::Csv)],
        files in 1usize..4,
    ) {
        let table = Table { format, ..bars() };
        let world = World::new();
        let plain: Vec<Row> = rows.rows.iter().map(|row| Row { symbol: symbol(row.0).to_owned(), time_us: time_us(row.1), close: row.2.filter(|close| close.is_finite()) }).collect();
        write_table(world.root(), &table, &plain, files, &Stored { row_group: rows.row_group, key: rows.key, ..Stored::default() });
        let mut known = std::collections::BTreeSet::new();
        let repairs: Vec<_> = repairs.iter().filter(|repair| known.insert((repair.0, repair.1, repair.3))).map(|(key, minute, op, when)| {
            (Row { symbol: symbol(*key).to_owned(), time_us: time_us(minute * 60), close: Some(*minute as f64 / 8.0) }, *op, *when, "run", "unit")
        }).collect();
        if !repairs.is_empty() {
            write_repair(&world.root().join(overlay::repairs("bars")).join("0.parquet"), &repairs);
        }
        let rollup = Rollup {
            interval: Interval::new(at(START), jiff::Timestamp::from_microsecond(time_us(MINUTES * 60)).unwrap()).unwrap(),
            within: Vec::new(),
            keys: keys(&["A", "B", "C"]),
            every: Cadence::HOUR,
            measures: measures(&["close"]),
            absent_as_of: Some(at("2029-01-01T00:00:00Z")),
        };
        runtime().block_on(assert_rollup_is_that_of_a_scan(&world.lake, &table, &rollup, &format!("{repairs:?}")));
    }
}

/// Rows in order of time are read once, with repairs between them, and however many threads read them.
#[tokio::test]
async fn rows_in_order_are_read_once() {
    let world = World::new();
    let table = Table { partition_by: by(PartitionUnit::Day), ..bars() };
    let minutes = (0..MINUTES).filter(|minute| minute % 11 != 3);
    let rows: Vec<Row> = ["A", "B"]
        .iter()
        .flat_map(|symbol| {
            minutes.clone().map(|minute| Row { symbol: (*symbol).to_owned(), time_us: time_us(minute * 60), close: Some(1.5) })
        })
        .collect();
    write_table(world.root(), &table, &rows, 1, &Stored { row_group: 50, ..Stored::default() });
    let filled = [row("A", "2018-04-03T22:03:00Z", 2.5), row("B", "2018-04-03T23:09:00Z", 3.5), row("B", "2018-04-04T01:51:00Z", 4.5)];
    repair(&world.lake, &table, "run", &filled, vec![absence("A", SlotRange::new(0, 1), "2030-01-01T00:00:00Z")]).await;
    let rollup = Rollup {
        interval: Interval::new(at(START), jiff::Timestamp::from_microsecond(time_us(MINUTES * 60)).unwrap()).unwrap(),
        within: Vec::new(),
        keys: keys(&["A", "B"]),
        every: Cadence::HOUR,
        measures: measures(&["close"]),
        absent_as_of: Some(at("2029-01-01T00:00:00Z")),
    };
    let (_, usage) = world.lake.rollup(&table, &rollup).await.unwrap();
    assert_eq!(usage.rows_read, rows.len() as u64 + filled.len() as u64);
    assert_rollup_is_that_of_a_scan(&world.lake, &table, &rollup, "in order").await;
}
