//! What is read and brought stays small, however much there is.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use crate::common::*;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::TryStreamExt;
use repair_core::ErrorKind;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::{Lake, Layer, Overlay, PresenceRequest, ReadLake, StageRequest, StageScope, overlay};
use repair_core::model::{Absence, Fix, Interval, Key, SlotRange, Table};
use repair_core::testing::LakeSetup;

/// Bars of many symbols over a stretch of minutes, some left out.
fn many(symbols: usize, first_minute: i64, minutes: i64, there: impl Fn(usize, i64) -> bool) -> RecordBatch {
    let (mut names, mut times) = (Vec::new(), Vec::new());
    for symbol in 0..symbols {
        for minute in 0..minutes {
            if there(symbol, minute) {
                names.push(format!("S{symbol:05}"));
                times.push((first_minute + minute) * 60_000_000);
            }
        }
    }
    let rows = names.len();
    let schema = Schema::new(vec![
        Field::new("symbol", DataType::Utf8, false),
        Field::new("ts", overlay::instant_type(), false),
        Field::new("close", DataType::Float64, true),
        Field::new("volume", DataType::Int64, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(names)),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(Float64Array::from_iter_values((0..rows).map(|row| f64::from(u32::try_from(row).unwrap()) * 0.01))),
        Arc::new(Int64Array::from_iter_values((0..rows).map(|row| i64::try_from(row).unwrap()))),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// 10,000 symbols, of a whole session where tests may take long: a row for each symbol and hour comes back, and every bit is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_of_ten_thousand_keys_is_a_row_a_key_and_hour() {
    let (world, table) = (World::new().await, bars());
    let first = at("2024-03-04T14:30:00Z").as_second() / 60;
    // The session begins in the middle of an hour.
    let (minutes, hours) = testdata::by_length((60, 2), (390, 7));
    let missing = |symbol: usize, minute: i64| (symbol as i64 * 7 + minute * 13) % 41 == 0;
    let keys: Vec<Key> = (0..10_000).map(|symbol| Key::from(format!("S{symbol:05}").as_str())).collect();
    world.add_rows(&table, &[many(10_000, first, minutes, |symbol, minute| !missing(symbol, minute))]).await.unwrap();
    let slots = SlotRange::new(first, first + minutes);
    let request = PresenceRequest::new(slots, keys.clone(), at("2024-04-02T00:00:00Z"));
    let found = world.lake.presence(&table, &request).await.unwrap();
    assert!(found.usage.rows_read <= 10_000 * hours, "{} rows came back", found.usage.rows_read);
    for (symbol, key) in keys.iter().enumerate() {
        let expected: Vec<i64> = (0..minutes).filter(|minute| !missing(symbol, *minute)).map(|minute| first + minute).collect();
        assert_eq!(found.raw.keys[key].present.iter().collect::<Vec<_>>(), expected, "{key}");
    }
}

/// What a look at one day reads does not grow with other days, in presence, in scans and through the view, nor with columns it does not need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unrelated_partitions_are_not_read() {
    let (world, table) = (World::new().await, bars());
    let day_at = |day: i64| at("2024-03-04T00:00:00Z").as_second() / 60 + day * 1_440;
    let fill = async |day: i64| {
        world.add_rows(&table, &[many(5, day_at(day), 600, |_, minute| minute % 10 != 0)]).await.unwrap();
        let minute = |minute: i64| jiff::Timestamp::from_second((day_at(day) + minute) * 60).unwrap().to_string();
        let absent = Absence {
            key: Key::from("S00001"),
            slots: SlotRange::new(day_at(day) + 20, day_at(day) + 21),
            source: "market".into(),
            asked_at: at("2024-04-01T00:00:00Z"),
            answer: "nothing traded".into(),
            recheck_after: at("2030-01-01T00:00:00Z"),
        };
        repair(&world.lake, &table, &format!("run-{day}"), &[("S00000", &minute(0), 1.5), ("S00001", &minute(10), 2.5)], vec![absent])
            .await;
    };
    // The days before and after are opened too, for rows that lie in the folder of another day.
    for day in [0, -1, 1] {
        fill(day).await;
    }
    let interval = Interval::parse("2024-03-04", "2024-03-04").unwrap();
    let keys: Vec<Key> = (0..5).map(|symbol| Key::from(format!("S{symbol:05}").as_str())).collect();
    let read = async || {
        let mut bytes = Vec::new();
        world.sandbox.store().reset();
        let request = PresenceRequest::new(whole_day(&table, "2024-03-04"), keys.clone(), at("2024-04-02T00:00:00Z"));
        let presence = world.lake.presence(&table, &request).await.unwrap();
        assert_eq!(presence.repaired[&keys[0]].count() + presence.absent[&keys[1]].count(), 2);
        bytes.push(presence.usage.bytes_scanned);
        for layer in [Layer::Raw, Layer::Repaired] {
            let caller = caller("run", 1);
            let lake = world.lake.on_behalf_of(&caller).unwrap();
            let request = everything(layer).in_interval(interval);
            let rows: Vec<RecordBatch> = lake.scan(&table, &request).await.unwrap().try_collect().await.unwrap();
            assert_eq!(texts(&rows).len(), if layer == Layer::Raw { 2_700 } else { 2_702 });
            bytes.push(caller.meter.take().usage.bytes_scanned);
        }
        // As a person asks the view.
        let caller = caller("run", 1);
        let lake = world.lake.on_behalf_of(&caller).unwrap();
        let sql = "SELECT count(*), count(repaired_by) FROM bars_repaired WHERE \"date\" = '2024-03-04'";
        let rows: Vec<RecordBatch> =
            lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), sql)).await.unwrap().try_collect().await.unwrap();
        assert_eq!(texts(&rows), ["2702|2"]);
        bytes.push(caller.meter.take().usage.bytes_scanned);
        let counted = world.sandbox.store().counted();
        let objects: Vec<usize> = ["lake/bars/", "lake/bars_repairs/", "lake/bars_exceptions/"]
            .iter()
            .map(|prefix| counted.objects_read(BUCKET, prefix))
            .collect();
        (bytes, objects)
    };
    let alone = read().await;
    assert!(alone.0.iter().all(|bytes| *bytes > 0), "{alone:?}");
    assert!(alone.0[0] < alone.0[1], "presence reads keys and times only: {alone:?}");
    for day in 2..9 {
        fill(day).await;
    }
    let later = read().await;
    assert_eq!(later.0, alone.0);
    assert!(later.1.iter().zip(&alone.1).all(|(later, alone)| later <= alone), "{later:?} after {alone:?}");
}

/// However many keys an undo names, no statement grows with them: thousands of keys are hidden in the view, in scans and in presence, and
/// what is repaired later is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_of_thousands_of_keys_makes_no_statement_longer() {
    const SYMBOLS: usize = 3_600;
    let (world, table) = (World::new().await, bars());
    world.add_rows(&table, &[rows(&[("A", "2024-03-04T09:00:00Z", 1.0)])]).await.unwrap();
    let name = |symbol: usize| format!("A_SYMBOL_WITH_A_LONG_NAME_{symbol:05}");
    let names: Vec<String> = (0..SYMBOLS).map(name).collect();
    let fixed: Vec<(&str, &str, f64)> = names.iter().map(|name| (name.as_str(), "2024-03-04T09:01:00Z", 2.0)).collect();
    repair(&world.lake, &table, "one", &fixed, Vec::new()).await;
    let retraction = |id: &str, keys: &[String]| Retraction {
        id: id.to_owned(),
        parts: keys.iter().map(|name| Part { key: Some(Key::from(name.as_str())), ..Part::of_run("one") }).collect(),
        undoes: None,
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "wrong".to_owned(),
    };
    // The lengths of all statements that a look takes, and what it sees.
    let look = async || {
        world.sandbox.faults().clear_log();
        let lake = world.reopened();
        let keys: Vec<Key> = [&names[0], &names[SYMBOLS - 1]].iter().map(|name| Key::from(name.as_str())).collect();
        let request = PresenceRequest::new(whole_day(&table, "2024-03-04"), keys, at("2024-04-02T00:00:00Z"));
        let repaired: u64 = lake.presence(&table, &request).await.unwrap().repaired.values().map(|slots| slots.count()).sum();
        let scanned = texts(&collect(lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await).len();
        let sql = "SELECT count(repaired_by) FROM bars_repaired";
        let shown = texts(&collect(lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), sql)).await.unwrap()).await);
        let log = world.sandbox.faults().log();
        let lengths: Vec<usize> =
            log.iter().filter(|served| served.operation == "StartQueryExecution").map(|served| served.resource.len()).collect();
        (lengths, repaired, scanned, shown)
    };
    world.lake.retract(&table, &retraction("few", &names[..1])).await.unwrap();
    let few = look().await;
    assert_eq!((few.1, few.2, few.3), (1, SYMBOLS, vec![(SYMBOLS - 1).to_string()]));
    world.lake.retract(&table, &retraction("many", &names[..SYMBOLS - 10])).await.unwrap();
    let many = look().await;
    assert_eq!((many.1, many.2, many.3), (1, 11, vec!["10".to_owned()]));
    assert_eq!(many.0, few.0);
    repair(&world.lake, &table, "two", &fixed[..1], Vec::new()).await;
    assert_eq!(look().await.1, 2);
}

/// What Athena would refuse to make later is refused before a unit is kept, and before anything is retracted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_too_long_for_athena_is_refused_before_anything_is_written() {
    let (world, table) = (World::new().await, bars());
    let columns: Vec<String> = (0..1_500).map(|number| format!("a_column_with_a_name_of_some_length_{number:04}")).collect();
    let mut declared = vec![("symbol", "string"), ("ts", "timestamp"), ("close", "double"), ("volume", "bigint")];
    declared.extend(columns.iter().map(|name| (name.as_str(), "double")));
    world.declare(&table, &declared).await;
    let before = world.keys("");
    let fix = Fix { rows: vec![rows(&[("A", "2024-03-04T09:01:00Z", 1.5)])], source: "market".to_owned(), ..Fix::default() };
    let scope = StageScope { run: "run", step: "fill", visit: 1, table: &table };
    let request = StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix);
    let kept = world.lake.stage(&scope, &request).await.unwrap_err();
    let asked = world.lake.to_create(&table).await.unwrap_err();
    for error in [kept, asked] {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("repaired view of table `bars`"), "{error}");
    }
    assert_eq!(world.keys(""), before);
}

/// More partitions than Athena writes in one statement are made known in several, and all rows are seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_partitions() {
    let (world, table) = (World::new().await, bars());
    world.add_rows(&table, &[rows(&[("A", "2023-01-01T00:00:00Z", 1.0)])]).await.unwrap();
    let days: Vec<String> =
        (1..=250).map(|day| (at("2023-01-01T09:00:00Z") + jiff::SignedDuration::from_hours(24 * day)).to_string()).collect();
    let fixed: Vec<(&str, &str, f64)> = days.iter().map(|day| ("A", day.as_str(), 2.0)).collect();
    repair(&world.lake, &table, "run", &fixed, Vec::new()).await;
    assert_eq!(world.objects("lake/bars_repairs/").len(), 250);
    let shown = texts(&collect(world.lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await);
    assert_eq!(shown.len(), 251);
    let hourly = Table { name: "daily".into(), location: "daily".into(), ..table };
    let interval = Interval::parse("2023-01-01", "2023-12-31").unwrap();
    world.lake.replace(&hourly, &interval, vec![rows(&fixed)]).await.unwrap();
    assert_eq!(
        collect(world.lake.scan(&hourly, &everything(Layer::Raw)).await.unwrap()).await.iter().map(RecordBatch::num_rows).sum::<usize>(),
        250
    );
}
