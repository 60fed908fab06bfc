//! The repaired view is what its definition says, and scans give what was asked for.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use std::collections::BTreeMap;

use crate::common::*;
use proptest::prelude::*;
use repair_core::lake::{Layer, PresenceRequest, ReadLake, overlay};
use repair_core::model::{Cadence, Format, Interval, Key, PartitionUnit, SlotRange, SlotRule, Table, TimeMark};

/// A repair: its row, op, time, run and unit.
type Repair = (Row, &'static str, i64, &'static str, &'static str);

/// The view by its definition, row by row.
fn model(table: &Table, raw: &[Row], repairs: &[Repair], range: Option<SlotRange>, keys: Option<&[Key]>) -> Vec<Seen> {
    let grid = table.grid().unwrap();
    let slot = |row: &Row| (row.symbol.clone(), grid.slot_of(jiff::Timestamp::from_microsecond(row.time_us).unwrap()));
    let mut newest: BTreeMap<(String, i64), &Repair> = BTreeMap::new();
    for repair in repairs {
        let rank = |repair: &Repair| (repair.2, repair.3, repair.4);
        let known = newest.entry(slot(&repair.0)).or_insert(repair);
        if rank(repair) > rank(known) {
            *known = repair;
        }
    }
    let raw: Vec<&Row> = raw.iter().filter(|row| grid.slot_of_row(row.time_us).is_some()).collect();
    let replaced = |row: &Row| newest.get(&slot(row)).is_some_and(|repair| repair.1 != "insert");
    let mut view: Vec<Seen> = raw.iter().filter(|row| !replaced(row)).map(|row| ((*row).clone(), None)).collect();
    for (at, repair) in &newest {
        if repair.1 == "replace" || (repair.1 == "insert" && raw.iter().all(|row| slot(row) != *at)) {
            view.push((repair.0.clone(), Some(repair.3.to_owned())));
        }
    }
    view.retain(|(row, _)| {
        range.is_none_or(|range| range.contains(slot(row).1)) && keys.is_none_or(|keys| keys.contains(&Key::from(row.symbol.as_str())))
    });
    view.sort_by(|a, b| a.partial_cmp(b).unwrap());
    view
}

fn one_row(half_minutes: std::ops::Range<i64>) -> impl Strategy<Value = Row> {
    let symbol = prop_oneof![Just("A"), Just("B"), Just("C")];
    (symbol, half_minutes, proptest::option::of(0f64..100.0)).prop_map(|(symbol, time, close)| Row {
        symbol: symbol.into(),
        time_us: us("2018-04-03T23:30:00Z") + time * 30_000_000,
        close,
    })
}

fn one_repair() -> impl Strategy<Value = Repair> {
    let op = prop_oneof![3 => Just("insert"), 1 => Just("replace"), 1 => Just("remove")];
    let name = || prop_oneof![Just("r1"), Just("r2"), Just("r10")];
    // One row for each run, unit and instant of a slot, as stages write them: equal in all, nothing says which counts.
    (one_row(0..240), op, 0i64..3, name(), name())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_repaired_view_is_its_definition(
        raw in proptest::collection::vec(one_row(0..240), 0..120),
        mut repairs in proptest::collection::vec(one_repair(), 0..60),
        unit in prop_oneof![Just(None), Just(Some(PartitionUnit::Day)), Just(Some(PartitionUnit::Hour))],
        marks in prop_oneof![Just(TimeMark::Start), Just(TimeMark::End)],
        (cadence, tolerance_s) in prop_oneof![Just((60u32, 0)), Just((60, 29)), Just((300, 0)), Just((300, 30)), Just((300, 90))],
        range in proptest::option::of((0i64..120, 1i64..60)),
        some_keys in any::<bool>(),
        files in 1usize..4,
        format in prop_oneof![Just(Format::Parquet), Just(Format::Csv)],
    ) {
        let table = Table { time_marks: marks, format, cadence: Some(Cadence::from_seconds(cadence).unwrap()), slots: SlotRule { tolerance_s, ..SlotRule::default() }, partition_by: unit.map(by).unwrap_or_default(), ..bars() };
        let grid = table.grid().unwrap();
        let slot_of = |row: &Row| grid.slot_of(jiff::Timestamp::from_microsecond(row.time_us).unwrap());
        let mut known = std::collections::HashSet::new();
        repairs.retain(|repair| known.insert((repair.0.symbol.clone(), slot_of(&repair.0), repair.2, repair.3, repair.4)));
        let world = World::new();
        write_table(world.root(), &table, &raw, files, &Stored { row_group: 20, ..Stored::default() });
        let mut parts: BTreeMap<String, Vec<Repair>> = BTreeMap::new();
        for (number, repair) in repairs.iter().enumerate() {
            let folder = unit.map(|unit| format!("/date={}", partition_of(unit, repair.0.time_us))).unwrap_or_default();
            parts.entry(format!("bars_repairs{folder}/{}.parquet", number % files)).or_default().push(repair.clone());
        }
        for (path, rows) in &parts {
            write_repair(&world.root().join(path), rows);
        }
        let base = grid.slot_of(at("2018-04-03T23:30:00Z"));
        let slots = range.map(|(first, length)| SlotRange::new(base + first, base + first + length));
        let wanted = some_keys.then(|| keys(&["A", "C"]));
        let request = all(Layer::Repaired).in_interval(slots.and_then(|slots| grid.interval_of(slots))).of_keys(wanted.clone());
        let rows = runtime().block_on(async { collect(world.lake.scan(&table, &request).await?).await }).unwrap();
        prop_assert_eq!(seen(&rows), model(&table, &raw, &repairs, slots, wanted.as_deref()));

        // Presence tells the same slots as repaired.
        let slots = slots.unwrap_or(SlotRange::new(base - 2, base + 125));
        let request = PresenceRequest::new(slots, keys(&["A", "B", "C"]), at("2030-01-01T00:00:00Z"));
        let presence = runtime().block_on(world.lake.presence(&table, &request)).unwrap();
        let shown: std::collections::BTreeSet<(String, i64)> = model(&table, &raw, &repairs, Some(slots), None)
            .iter().filter(|(_, by)| by.is_some()).map(|(row, _)| (row.symbol.clone(), slot_of(row))).collect();
        let repaired: std::collections::BTreeSet<(String, i64)> =
            presence.repaired.iter().flat_map(|(key, set)| set.iter().map(move |slot| (key.to_string(), slot))).collect();
        prop_assert_eq!(repaired, shown);
        for (key, removed) in &presence.removed {
            let held = presence.held(key).unwrap();
            let shown = model(&table, &raw, &repairs, Some(slots), Some(std::slice::from_ref(key)));
            let shown: std::collections::BTreeSet<i64> = shown.iter().map(|(row, _)| slot_of(row)).collect();
            prop_assert_eq!(held.iter().collect::<std::collections::BTreeSet<i64>>(), shown);
            prop_assert!(removed.iter().all(|slot| !held.contains(slot)));
        }
    }
}

#[tokio::test]
async fn a_scan_gives_the_columns_asked_for_besides_key_and_time() {
    let world = World::new();
    let table = Table { format: Format::Csv, ..bars() };
    world.write("bars/a.csv", "id,symbol,ts,close,note\n007,A,2018-04-04T00:00:00Z,1,x\n");
    // Columns are found by name, and a file may lack one or widen its type.
    world.write("bars/b.csv", "\u{feff}close,ts,symbol,id\n1.5,2018-04-04T00:01:00Z,00123,8\n");
    let schema = world.lake.describe(&table).await.unwrap();
    let types: Vec<String> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    assert_eq!(types, ["id Utf8", "symbol Utf8", "ts Timestamp(µs, \"UTC\")", "close Float64", "note Utf8"]);
    let request = all(Layer::Repaired).with_columns(vec!["close".into()]);
    let batches = collect(world.lake.scan(&table, &request).await.unwrap()).await.unwrap();
    let names: Vec<&str> = batches[0].schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["symbol", "ts", "close", overlay::REPAIRED_BY, overlay::REPAIRED_CELLS]);
    assert_eq!(seen(&batches), [(row("00123", "2018-04-04T00:01:00Z", 1.5), None), (row("A", "2018-04-04T00:00:00Z", 1.0), None)]);
    let error = world.lake.scan(&table, &all(Layer::Raw).with_columns(vec!["cloze".into()])).await.err().unwrap();
    assert_eq!(error.message(), "table `bars` has no column `cloze`; it has id, symbol, ts, close, note");
}

#[tokio::test]
async fn a_table_without_cadence_is_read_by_its_times() {
    let world = World::new();
    let table = Table { cadence: None, ..bars() };
    let rows = [row("A", "2018-04-04T00:00:00Z", 1.0), row("A", "2018-04-04T00:00:00.5Z", 2.0), row("A", "2018-04-04T00:00:01Z", 3.0)];
    write_table(world.root(), &table, &rows, 1, &Stored::default());
    let interval = Interval::parse("2018-04-04T00:00:00.4Z", "2018-04-04T00:00:01Z").unwrap();
    let request = all(Layer::Repaired).in_interval(interval);
    let batches = collect(world.lake.scan(&table, &request).await.unwrap()).await.unwrap();
    assert_eq!(seen(&batches), [(rows[1].clone(), None)]);
}

#[tokio::test]
async fn a_scan_that_is_dropped_stops_reading() {
    let world = World::new();
    let table = bars();
    let rows: Vec<Row> = (0..200_000).map(|minute| Row { symbol: "A".into(), time_us: minute * 60_000_000, close: None }).collect();
    write_table(world.root(), &table, &rows, 1, &Stored { row_group: 100_000, ..Stored::default() });
    let mut scan = world.lake.scan(&table, &all(Layer::Raw)).await.unwrap();
    assert!(futures::StreamExt::next(&mut scan).await.unwrap().unwrap().num_rows() < 200_000);
    drop(scan);
}

#[tokio::test]
async fn a_table_of_repairs_only_is_seen() {
    let world = World::new();
    let table = Table { partition_by: by(PartitionUnit::Day), ..bars() };
    std::fs::create_dir(world.root().join("bars")).unwrap();
    let rows = [row("A", "2018-04-04T00:00:00Z", 1.0)];
    repair(&world.lake, &table, "run", &rows, vec![]).await;
    let batches = collect(world.lake.scan(&table, &all(Layer::Repaired)).await.unwrap()).await.unwrap();
    assert_eq!(seen(&batches), [(rows[0].clone(), Some("backfill".into()))]);
    assert!(collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap().is_empty());
}

#[tokio::test]
async fn nested_columns_of_json_lines_come_through() {
    let world = World::new();
    let table = Table { format: Format::Jsonl, ..bars() };
    world.write(
        "bars/a.jsonl",
        "{\"symbol\": 7, \"ts\": \"2018-04-04T00:00:00Z\", \"size\": 1, \"venue\": {\"b\": 1, \"a\": \"x\"}, \"tags\": [1]}\n\n",
    );
    world.write("bars/b.ndjson", "{\"symbol\": \"007\", \"ts\": \"2018-04-04T00:00:00Z\", \"size\": 1.5}\n");
    let batches = collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap();
    let names: Vec<String> = seen(&batches).into_iter().map(|(row, _)| row.symbol).collect();
    assert_eq!(names, ["007", "7"]);
    let schema = world.lake.describe(&table).await.unwrap();
    assert_eq!(schema.field_with_name("size").unwrap().data_type(), &arrow::datatypes::DataType::Float64);
    assert!(schema.field_with_name("venue").unwrap().data_type().is_nested());
}
