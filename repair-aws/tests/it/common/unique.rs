//! Tables whose key alone identifies a row: orders whose versions lie in the folders of other days. The same statements run on the
//! sandbox's own engine and on a real Trino.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "each test uses some of it, and what fails, panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use jiff::Timestamp;
use jiff::civil::DateTime;
use repair_core::engine::{Engine, Outcome, StartRequest};
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::lake::{Lake, Layer, ReadLake, ScanRequest};
use repair_core::model::{Format, Interval, PartitionUnit, Rows, Table};
use repair_core::plugin::Registry;
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::Workflow;

use super::{BUCKET, DATABASE, World, at, collect, parquet, rows, texts};

/// How versions may lie in folders: the name, the path in words of `partition_by`, its zone and unit, the partition column, how its value
/// is written, the lookback in hours, and the start of a folder on its clock.
type Layouts = (&'static str, &'static str, &'static str, PartitionUnit, &'static str, &'static str, i64, &'static str);

/// One for each way in which the distance of a row from its folder is computed. The folders in a zone lie at the end of its summer.
pub const LAYOUTS: [Layouts; 8] = [
    ("by_day", "day=%F", "UTC", PartitionUnit::Day, "day string", "%F", 5 * 24, "2024-03-04T00:00"),
    ("by_month", "month=%Y-%m", "UTC", PartitionUnit::Month, "month string", "%Y-%m", 40 * 24, "2024-03-01T00:00"),
    ("in_sydney", "day=%F", "Australia/Sydney", PartitionUnit::Day, "day date", "%F", 5 * 24, "2024-04-09T00:00"),
    ("months_in_sydney", "month=%Y-%m", "Australia/Sydney", PartitionUnit::Month, "month string", "%Y-%m", 30 * 24, "2024-04-01T00:00"),
    ("in_berlin", "%Y/%m/%d/%H", "Europe/Berlin", PartitionUnit::Hour, "datehour string", "%Y/%m/%d/%H", 36, "2024-10-28T02:00"),
    // Beside the doubled hour, and beside the skipped one.
    ("hours_in_berlin", "%Y/%m/%d/%H", "Europe/Berlin", PartitionUnit::Hour, "datehour string", "%Y/%m/%d/%H", 1, "2024-10-27T03:00"),
    ("hours_in_summer", "%Y/%m/%d/%H", "Europe/Berlin", PartitionUnit::Hour, "datehour string", "%Y/%m/%d/%H", 3, "2024-03-31T01:00"),
    ("days_in_berlin", "day=%F", "Europe/Berlin", PartitionUnit::Day, "day string", "%F", 24, "2024-10-26T00:00"),
];

/// A version is used if its time is within the lookback of its folder, to the millisecond, whatever interval is asked for; and not if the
/// table has another slack.
pub async fn folders_of_other_days(world: &World, (name, path, zone, unit, column, written, lookback_h, start): Layouts) {
    let zone = zone.parse().unwrap();
    let table =
        Table { rows: Rows::Unique, lookback: Some(Duration::from_secs(lookback_h.unsigned_abs() * 3_600)), ..Table::implicit(name, "ts") }
            .with_key(["symbol"])
            .with_layout(path.parse().unwrap(), zone);
    let zone = table.layout.clone().unwrap().zone;
    let start: DateTime = start.parse().unwrap();
    let value = start.strftime(written).to_string();
    let folder = start.strftime(path).to_string();
    let column_name = column.split(' ').next().unwrap();
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`{name}` (symbol string, ts timestamp, close double, volume bigint) PARTITIONED BY \
             ({column}) STORED AS PARQUET LOCATION 's3://{BUCKET}/lake/{name}/'"
        ))
        .await;
    world
        .define(&format!(
            "ALTER TABLE `{DATABASE}`.`{name}` ADD PARTITION ({column_name} = '{value}') LOCATION 's3://{BUCKET}/lake/{name}/{folder}/'"
        ))
        .await;
    let span = partition::span_of(unit, start, &zone).unwrap();
    let used = partition::with_slack(&table, span);
    let lookback_us = lookback_h * 3_600_000_000;
    let by_lookback = TimeBounds { from_us: span.from_us - lookback_us, to_us: span.to_us + lookback_us };
    assert_eq!(
        used,
        TimeBounds { from_us: by_lookback.from_us.min(used.from_us), to_us: by_lookback.to_us.max(used.to_us) },
        "the lookback and one folder each way"
    );
    let times_us = [used.from_us - 1_000, used.from_us, span.from_us, span.to_us - 1_000, used.to_us - 1_000, used.to_us];
    let named: Vec<(String, String)> = (0..)
        .zip(times_us)
        .map(|(number, time_us): (u32, i64)| (format!("r{number}"), Timestamp::from_microsecond(time_us).unwrap().to_string()))
        .collect();
    let all: Vec<(&str, &str, f64)> = named.iter().map(|(key, time)| (key.as_str(), time.as_str(), 1.0)).collect();
    world.put(&format!("lake/{name}/{folder}/a.parquet"), parquet(&rows(&all)));

    let keys = async |table: &Table, interval: Option<Interval>| -> Vec<String> {
        let mut request = ScanRequest::new(Layer::Repaired).with_columns(Vec::new());
        request.interval = interval;
        let found = collect(world.lake.scan(table, &request).await.unwrap()).await;
        found.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let mut found = keys(&table, None).await;
    found.sort();
    assert_eq!(found, ["r1", "r2", "r3", "r4"], "{name}");
    for ((key, time), time_us) in named.iter().zip(times_us) {
        let moment = Interval::new(at(time), Timestamp::from_microsecond(time_us + 1_000).unwrap()).unwrap();
        let expected: Vec<String> = used.contains(time_us).then(|| key.clone()).into_iter().collect();
        assert_eq!(keys(&table, Some(moment)).await, expected, "{name}: {time}");
    }
    let sql = format!("SELECT symbol FROM {name}_repaired");
    assert_eq!(
        texts(&collect(world.lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), &sql)).await.unwrap()).await),
        found,
        "{name}"
    );
    let strict = table.clone().with_slack(repair_core::model::Slack::Seconds(0));
    let mut found = keys(&strict, None).await;
    found.sort();
    assert_eq!(found, ["r2", "r3"], "{name}");
}

const HOUR_US: i64 = 3_600_000_000;
const START_US: i64 = 1_709_251_200_000_000;
const LOOKBACK_H: i64 = 5 * 24;
const ALL_RUNS: [&str; 4] = ["first", "again", "late", "later"];

/// A version: its order, the hour of its time, when it was written, and the day of the folder in which it lies.
#[derive(Debug, Clone)]
struct Version {
    id: usize,
    hour: i64,
    updated: i64,
    rev: i64,
    amount: i64,
    day: i64,
}

fn time(hour: i64) -> Timestamp {
    Timestamp::from_microsecond(START_US + hour * HOUR_US).unwrap()
}

/// Numbers from a seed.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: i64) -> i64 {
        // Knuth's MMIX constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((self.0 >> 33) % end.unsigned_abs()).unwrap()
    }
}

/// Versions of a few orders, none further apart than the lookback. Some are written twice, and lie in the folder of another day.
fn versions(numbers: &mut Numbers) -> Vec<Version> {
    let mut all = Vec::new();
    for id in 0..5 {
        let base = numbers.below(240);
        let mut known = BTreeSet::new();
        for at in 0..=numbers.below(4) {
            let (hour, updated, rev) = (base + numbers.below(LOOKBACK_H), numbers.below(4), numbers.below(3));
            let day = hour.div_euclid(24) + numbers.below(5) - 2;
            let version = Version { id, hour, updated, rev, amount: i64::try_from(id).unwrap() * 100 + at, day };
            // Of two different versions, one is the latest.
            if known.insert((updated, rev)) {
                all.push(version.clone());
                all.extend((numbers.below(2) == 0).then(|| Version { day: hour.div_euclid(24), ..version }));
            }
        }
    }
    all
}

/// The rows of the view as they should be: the latest version of each order that was looked at, and all rows of the others.
fn expected(versions: &[Version], looked_at: (i64, i64), within: (i64, i64)) -> Vec<(String, i64, i64)> {
    let is_in = |hour: i64, (from, to): (i64, i64)| from <= hour && hour < to;
    let mut kept: Vec<&Version> = Vec::new();
    for id in versions.iter().map(|version| version.id).collect::<BTreeSet<_>>() {
        let of: Vec<&Version> = versions.iter().filter(|version| version.id == id).collect();
        if of.iter().any(|version| is_in(version.hour, looked_at)) {
            kept.extend(of.iter().max_by_key(|version| (version.updated, version.rev)).copied());
        } else {
            kept.extend(of);
        }
    }
    let kept = kept.into_iter().filter(|version| is_in(version.hour, within));
    let mut rows: Vec<_> = kept.map(|version| (format!("o{}", version.id), version.hour, version.amount)).collect();
    rows.sort();
    rows
}

/// Adds versions to the table on Athena and to the one in memory, as files of this name.
async fn write(world: &World, memory: &MemoryLake, table: &Table, versions: &[Version], file: &str) {
    let mut days: BTreeMap<i64, String> = BTreeMap::new();
    for Version { id, hour, updated, rev, amount, day } in versions {
        let line = serde_json::json!({
            "id": format!("o{id}"), "created_at": time(*hour).to_string(), "updated_at": updated, "rev": rev, "amount": amount
        });
        days.entry(*day).or_default().push_str(&format!("{line}\n"));
    }
    for (day, lines) in days {
        let date = &time(day * 24).to_string()[..10];
        world.add_partition(table, date).await;
        world.put(&format!("lake/{}/day={date}/{file}.jsonl", table.location), lines);
    }
    let ints = |of: fn(&Version) -> i64| Arc::new(versions.iter().map(|version| Some(of(version))).collect::<Int64Array>()) as ArrayRef;
    let times = TimestampMicrosecondArray::from_iter_values(versions.iter().map(|version| START_US + version.hour * HOUR_US));
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(StringArray::from_iter_values(versions.iter().map(|version| format!("o{}", version.id))))),
        ("created_at", Arc::new(times.with_timezone("UTC"))),
        ("updated_at", ints(|version| version.updated)),
        ("rev", ints(|version| version.rev)),
        ("amount", ints(|version| version.amount)),
    ];
    memory.add_rows(table, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
}

/// A run finds orders with several versions and keeps the latest of each. A simple model, the lake in memory and the lake on Athena agree
/// about what it finds, and about the view of any interval, before and after another version arrives, and once all is undone.
pub async fn orders_of_a_seed(world: &World, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut versions = versions(&mut numbers);
    let (from, length) = (numbers.below(200), 1 + numbers.below(300));
    let (looked_at, name) = ((from, from + length), format!("orders_{seed}"));
    let table =
        "format: jsonl, rows: unique, key: [id], time: created_at, version: [updated_at, rev], lookback: 5d, partition_by: [{ day: day }]";
    let (from, to) = (time(looked_at.0), time(looked_at.1));
    let look = format!("look: {{ detect: duplicates, with: {{ table: {name}, from: '{from}', to: '{to}' }}, next: keep }}");
    let rest = "keep: { repair: keep, of: look, next: check }\n  check: { verify: look, end: true }";
    let tables = format!("tables:\n  {name}: {{ location: {name}, {table} }}");
    let text = format!("workflow: w\nkind: state-machine\n{tables}\nstart: look\nsteps:\n  {look}\n  {rest}\n");
    let workflow = Workflow::parse("w.yaml", &text, &Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let table = workflow.tables[name.as_str()].clone();
    assert_eq!((table.format, table.rows), (Format::Jsonl, Rows::Unique));
    let columns = [("id", "string"), ("created_at", "string"), ("updated_at", "bigint"), ("rev", "bigint"), ("amount", "bigint")];
    world.declare(&table, &columns).await;
    let memory = MemoryLake::default();
    write(world, &memory, &table, &versions, "first").await;
    let lakes: [Arc<dyn Lake>; 2] = [Arc::new(world.reopened()), Arc::new(memory.clone())];
    let journals = [MemoryJournal::default(), MemoryJournal::default()];
    let registry = Arc::new(Registry::default());

    let run = async |run: &str| {
        let mut all = Vec::new();
        for (lake, journal) in lakes.iter().zip(&journals) {
            let mut engine = Engine::new(registry.clone(), lake.clone(), Arc::new(journal.clone()));
            // Each run is a day after the one before, so that its repairs are newer, however long that one took.
            let days = 1 + ALL_RUNS.iter().position(|known| *known == run).unwrap();
            engine.clock = Arc::new(VirtualClock::starting_at(at(&format!("2024-06-{days:02}T00:00:00Z"))));
            let report = Box::pin(engine.start(&workflow, StartRequest::new(run))).await.unwrap();
            assert_eq!(report.outcome, Some(Outcome::Succeeded), "seed {seed}, run {run}: {:?} {:?}", report.reason, report.problems);
            let output = |step: &str| report.steps.iter().find(|known| known.name == step).unwrap().output.clone();
            all.push((output("look"), output("check")));
        }
        assert_eq!(all[0], all[1], "seed {seed}");
        let defective = |output: &serde_json::Value| output["defective"].as_u64().unwrap();
        (defective(&all[0].0), defective(&all[0].1))
    };
    let windows: Vec<(i64, i64)> = (0..3).map(|_| numbers.below(300) - 50).map(|from| (from, from + 1 + from.rem_euclid(97))).collect();
    let check = async |versions: &[Version], looked_at: (i64, i64)| {
        for within in windows.iter().copied().chain([(-400, 1_000)]) {
            let request = ScanRequest::new(Layer::Repaired).in_interval(Interval::new(time(within.0), time(within.1)).unwrap());
            for lake in &lakes {
                let mut seen = Vec::new();
                for batch in collect(lake.scan(&table, &request).await.unwrap()).await {
                    let ids = batch.column_by_name("id").unwrap().as_string::<i32>();
                    let times = batch.column_by_name("created_at").unwrap().as_primitive::<TimestampMicrosecondType>();
                    let amounts = batch.column_by_name("amount").unwrap().as_primitive::<Int64Type>();
                    let row = |row| (ids.value(row).to_owned(), (times.value(row) - START_US) / HOUR_US, amounts.value(row));
                    seen.extend((0..ids.len()).map(row));
                }
                seen.sort();
                assert_eq!(seen, expected(versions, looked_at, within), "seed {seed}: {within:?} of {versions:?}");
            }
        }
        let all = expected(versions, looked_at, (-400, 1_000));
        let sql = format!("SELECT count(*), sum(amount) FROM {name}_repaired");
        let viewed = texts(
            &collect(world.reopened().query(&repair_core::lake::Query::new(std::slice::from_ref(&table), &sql)).await.unwrap()).await,
        );
        assert_eq!(viewed, [format!("{}|{}", all.len(), all.iter().map(|row| row.2).sum::<i64>())], "seed {seed}");
    };

    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    versions.iter().for_each(|version| *counts.entry(version.id).or_default() += 1);
    let is_seen = |id: &usize| versions.iter().any(|of| of.id == *id && looked_at.0 <= of.hour && of.hour < looked_at.1);
    let several = counts.iter().filter(|(id, rows)| **rows > 1 && is_seen(id)).count() as u64;
    assert_eq!(run("first").await, (several, 0));
    check(&versions, looked_at).await;
    assert_eq!(run("again").await, (0, 0), "nothing is left to find");

    // A later version arrives, and is seen only where somebody looks again.
    let of: Vec<i64> = versions.iter().filter(|version| version.id == 0).map(|version| version.hour).collect();
    let (least, most) = (of.iter().min().unwrap(), of.iter().max().unwrap());
    let hour = (most - LOOKBACK_H + numbers.below(LOOKBACK_H)).clamp(most - LOOKBACK_H, least + LOOKBACK_H);
    let later = Version { hour, updated: 9, amount: 999, day: hour.div_euclid(24) + 1, ..versions[0].clone() };
    write(world, &memory, &table, std::slice::from_ref(&later), "later").await;
    versions.push(later);
    run("late").await;
    check(&versions, looked_at).await;
    assert_eq!(run("later").await, (0, 0));

    // Without its repairs, the table is as it was.
    for lake in &lakes {
        let parts = ALL_RUNS.map(Part::of_run).into();
        let (by, reason) = ("a test".to_owned(), String::new());
        let undo = Retraction { id: format!("undo-{seed}"), at: at("2024-07-01T00:00:00Z"), undoes: None, parts, by, reason };
        lake.retract(&table, &undo).await.unwrap();
    }
    check(&versions, (0, 0)).await;
}

/// The view of a table follows when it is said that the key alone identifies a row: another process finds the old view, and makes it anew.
pub async fn a_table_that_becomes_unique(world: &World) {
    let as_events = Table::new("events", Format::Parquet, "ts").with_key(["symbol"]);
    let table = Table { rows: Rows::Unique, ..as_events.clone() };
    world.declare(&table, &[("symbol", "string"), ("ts", "timestamp"), ("close", "double"), ("volume", "bigint")]).await;
    let (first, second) = (("A", "2024-03-04T09:00:00Z", 1.0), ("A", "2024-03-05T09:00:00Z", 2.0));
    world.put("lake/events/a.parquet", parquet(&rows(&[first, second])));
    let viewed = async |table: &Table| {
        let sql = "SELECT CAST(close AS integer) FROM events_repaired";
        texts(&collect(world.reopened().query(&repair_core::lake::Query::new(std::slice::from_ref(table), sql)).await.unwrap()).await)
    };
    assert_eq!(viewed(&as_events).await, ["1", "2"]);
    super::keep(&world.lake, &table, "one", second).await;
    assert_eq!(viewed(&table).await, ["2"]);
}
