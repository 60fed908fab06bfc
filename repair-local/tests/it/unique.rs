//! Tables whose key identifies a row: a simple model, the lake in memory and the lake of files agree about the repaired view of any interval.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use jiff::Timestamp;
use proptest::prelude::*;
use repair_core::engine::{Engine, Outcome, StartRequest};
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::{Lake, Layer, ReadLake, ScanRequest};
use repair_core::model::{Format, Interval, Rows, Table};
use repair_core::plugin::Registry;
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::Workflow;
use repair_local::LocalLake;

/// Folders of hours in a zone, beside an hour that the clock shows twice or never: a version is used if it is within the lookback of its folder, or
/// in the folder next to it, to the microsecond.
#[tokio::test]
async fn versions_in_folders_of_other_hours_are_used() {
    for (folder, lookback_h, from, to) in [
        ("2024-10-27/03", 1, "2024-10-27T00:00:00Z", "2024-10-27T04:00:00Z"),
        ("2024-10-27/01", 1, "2024-10-26T22:00:00Z", "2024-10-27T02:00:00Z"),
        ("2024-10-27/03", 3, "2024-10-26T23:00:00Z", "2024-10-27T06:00:00Z"),
        ("2024-03-31/01", 1, "2024-03-30T23:00:00Z", "2024-03-31T02:00:00Z"),
        ("2024-03-31/03", 2, "2024-03-30T23:00:00Z", "2024-03-31T04:00:00Z"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let [from, to]: [Timestamp; 2] = [from, to].map(|time| time.parse().unwrap());
        let microsecond = jiff::SignedDuration::from_micros(1);
        let times = [from - microsecond, from, to - microsecond, to];
        let line = |(number, time): (usize, Timestamp)| {
            serde_json::json!({ "id": format!("r{number}"), "ts": time.to_string() }).to_string() + "\n"
        };
        std::fs::create_dir_all(root.path().join("t").join(folder)).unwrap();
        std::fs::write(root.path().join("t").join(folder).join("a.jsonl"), times.into_iter().enumerate().map(line).collect::<String>())
            .unwrap();
        let table = Table::new("t", Format::Jsonl, "ts").with_key(["id"]).with_rows(Rows::Unique);
        let lookback = Some(std::time::Duration::from_secs(lookback_h * 3_600));
        let table = Table { lookback, ..table }.with_layout("%F/%H".parse().unwrap(), "Europe/Berlin".parse().unwrap());
        let lake = LocalLake::open(root.path()).unwrap();
        let mut seen = Vec::new();
        let rows: Vec<RecordBatch> = lake.scan(&table, &ScanRequest::new(Layer::Repaired)).await.unwrap().try_collect().await.unwrap();
        for batch in rows {
            seen.extend(batch.column_by_name("id").unwrap().as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        seen.sort();
        assert_eq!(seen, ["r1", "r2"], "{folder}, {lookback_h} h");
    }
}

const HOUR_US: i64 = 3_600_000_000;
const START_US: i64 = 1_709_251_200_000_000;
const LOOKBACK_H: i64 = 5 * 24;

const ORDERS: &str =
    "format: jsonl, rows: unique, key: [id], time: created_at, version: [updated_at, rev], lookback: 5d, partition_by: [{ day: day }]";

/// A version: its order, the hour of its time, when it was written, and the day of the folder in which it lies.
#[derive(Debug, Clone, PartialEq)]
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

fn interval(from: i64, to: i64) -> Interval {
    Interval::new(time(from), time(to)).unwrap()
}

/// Versions of a few orders, none further apart than the lookback. Some are written twice, and lie in the folder of another day.
fn versions() -> impl Strategy<Value = Vec<Version>> {
    let version = (0..LOOKBACK_H, 0..4i64, 0..3i64, -2..=2i64, any::<bool>());
    let order = (0..240i64, prop::collection::vec(version, 1..5));
    prop::collection::vec(order, 1..7).prop_map(|orders| {
        let mut all = Vec::new();
        for (id, (base, versions)) in orders.into_iter().enumerate() {
            let mut known = BTreeSet::new();
            for (at, (offset, updated, rev, moved, twice)) in versions.into_iter().enumerate() {
                let hour = base + offset;
                let amount = i64::try_from(id * 100 + at).unwrap();
                let version = Version { id, hour, updated, rev, amount, day: hour.div_euclid(24) + moved };
                // Of two different versions, one is the latest.
                if known.insert((updated, rev)) {
                    all.push(version.clone());
                    all.extend(twice.then(|| Version { day: hour.div_euclid(24), ..version }));
                }
            }
        }
        all
    })
}

/// The runs of a world, in the order in which they happen.
const RUNS: [&str; 4] = ["first", "again", "late", "later"];

struct World {
    folder: tempfile::TempDir,
    local: Arc<dyn Lake>,
    memory: MemoryLake,
    workflow: Workflow,
    registry: Arc<Registry>,
    journals: [MemoryJournal; 2],
}

impl World {
    fn of(versions: &[Version], from: i64, to: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let local: Arc<dyn Lake> = Arc::new(LocalLake::open(folder.path()).unwrap());
        let world = Self {
            local,
            folder,
            memory: MemoryLake::default(),
            workflow: workflow(from, to),
            registry: Arc::new(Registry::default()),
            journals: [MemoryJournal::default(), MemoryJournal::default()],
        };
        world.write(versions);
        world
    }

    fn table(&self) -> &Table {
        &self.workflow.tables["orders"]
    }

    /// Replaces the table's own rows.
    fn write(&self, versions: &[Version]) {
        let place = self.folder.path().join("orders");
        let _ = std::fs::remove_dir_all(&place);
        let mut days: BTreeMap<i64, String> = BTreeMap::new();
        for Version { id, hour, updated, rev, amount, day } in versions {
            let line = serde_json::json!({
                "id": format!("o{id}"), "created_at": time(*hour).to_string(), "updated_at": updated, "rev": rev, "amount": amount
            });
            days.entry(*day).or_default().push_str(&format!("{line}\n"));
        }
        for (day, lines) in days {
            let date = time(day * 24).to_string();
            let folder = place.join(format!("day={}", &date[..10]));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("orders.jsonl"), lines).unwrap();
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
        self.memory.put_table(self.table(), &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
    }

    fn lakes(&self) -> [Arc<dyn Lake>; 2] {
        [self.local.clone(), Arc::new(self.memory.clone())]
    }

    /// Finds and repairs; returns how many rows were defective, and how many still are.
    async fn run(&self, run: &str) -> (u64, u64) {
        let mut all = Vec::new();
        for (lake, journal) in self.lakes().into_iter().zip(&self.journals) {
            let mut engine = Engine::new(self.registry.clone(), lake, Arc::new(journal.clone()));
            // Each run is a day after the one before, so that its repairs are newer, however long that one took.
            let day = 1 + RUNS.iter().position(|known| *known == run).unwrap();
            engine.clock = Arc::new(VirtualClock::starting_at(format!("2024-06-{day:02}T00:00:00Z").parse().unwrap()));
            let report = engine.start(&self.workflow, StartRequest::new(run)).await.unwrap();
            assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?} {:?}", report.reason, report.problems);
            let of = |step: &str| report.steps.iter().find(|known| known.name == step).unwrap().output["defective"].as_u64().unwrap();
            all.push((of("look"), of("check")));
        }
        assert_eq!(all[0], all[1]);
        all[0]
    }

    /// The order, hour and amount of each row of the view.
    async fn seen(&self, interval: Interval) -> Vec<(String, i64, i64)> {
        let mut all = Vec::new();
        for lake in self.lakes() {
            let request = ScanRequest::new(Layer::Repaired).in_interval(interval);
            let batches: Vec<RecordBatch> = lake.scan(self.table(), &request).await.unwrap().try_collect().await.unwrap();
            let mut seen = Vec::new();
            for batch in batches {
                let ids = batch.column_by_name("id").unwrap().as_string::<i32>();
                let times = batch.column_by_name("created_at").unwrap().as_primitive::<TimestampMicrosecondType>();
                let amounts = batch.column_by_name("amount").unwrap().as_primitive::<Int64Type>();
                let row = |row| (ids.value(row).to_owned(), (times.value(row) - START_US) / HOUR_US, amounts.value(row));
                seen.extend((0..ids.len()).map(row));
            }
            seen.sort();
            all.push(seen);
        }
        assert_eq!(all[0], all[1], "the lakes differ in {interval}");
        all.remove(0)
    }
}

fn workflow(from: i64, to: i64) -> Workflow {
    let (from, to) = (time(from), time(to));
    let text = format!(
        "workflow: w\nkind: state-machine\ntables:\n  orders: {{ location: orders, {ORDERS} }}\nstart: look\nsteps:\n  look: {{ detect: duplicates, with: {{ \
         table: orders, from: '{from}', to: '{to}' }}, next: keep }}\n  keep: {{ repair: keep, of: look, next: check }}\n  check: {{ verify: look, end: \
         true }}\n"
    );
    Workflow::parse("w.yaml", &text, &Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The view as it should be: the latest version of each order that was looked at, and all rows of the others.
fn expected(versions: &[Version], looked_at: (i64, i64), within: (i64, i64)) -> Vec<(String, i64, i64)> {
    let is_in = |hour: i64, (from, to): (i64, i64)| from <= hour && hour < to;
    let mut rows = Vec::new();
    for id in versions.iter().map(|version| version.id).collect::<BTreeSet<_>>() {
        let of: Vec<&Version> = versions.iter().filter(|version| version.id == id).collect();
        if of.iter().any(|version| is_in(version.hour, looked_at)) {
            rows.extend(of.iter().max_by_key(|version| (version.updated, version.rev)).copied());
        } else {
            rows.extend(of);
        }
    }
    let mut rows: Vec<_> = rows
        .into_iter()
        .filter(|version| is_in(version.hour, within))
        .map(|version| (format!("o{}", version.id), version.hour, version.amount))
        .collect();
    rows.sort();
    rows
}

const EVER: (i64, i64) = (-400, 1_000);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: testdata::by_length(12, 80), ..ProptestConfig::default() })]

    #[test]
    fn each_order_is_shown_once_by_its_latest_version_in_any_interval(
        versions in versions(),
        looked in (0..300i64, 1..400i64),
        windows in prop::collection::vec((-50..350i64, 1..300i64), 4),
        late in (0..7usize, 0..LOOKBACK_H),
    ) {
        let looked_at = (looked.0, looked.0 + looked.1);
        block_on(async {
            let world = World::of(&versions, looked_at.0, looked_at.1);
            let check = async |versions: &[Version], looked_at: (i64, i64)| {
                for within in windows.iter().map(|(from, length)| (*from, from + length)).chain([EVER]) {
                    let seen = world.seen(interval(within.0, within.1)).await;
                    assert_eq!(seen, expected(versions, looked_at, within), "{within:?}");
                }
            };
            let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
            versions.iter().for_each(|version| *rows.entry(version.id).or_default() += 1);
            let is_seen = |id: &usize| versions.iter().any(|of| of.id == *id && looked_at.0 <= of.hour && of.hour < looked_at.1);
            let several = rows.iter().filter(|(id, rows)| **rows > 1 && is_seen(id)).count() as u64;
            assert_eq!(world.run("first").await, (several, 0));
            check(&versions, looked_at).await;
            assert_eq!(world.run("again").await, (0, 0), "nothing is left to find");

            // A later version arrives, and is seen only where somebody looks again.
            let mut more = versions.clone();
            if let Some(first) = versions.iter().find(|version| version.id == late.0) {
                let of = || versions.iter().filter(|version| version.id == first.id);
                let (least, most) = (of().map(|of| of.hour).min().unwrap(), of().map(|of| of.hour).max().unwrap());
                let hour = (most - LOOKBACK_H + late.1).clamp(most - LOOKBACK_H, least + LOOKBACK_H);
                more.push(Version { hour, updated: 9, amount: 999, day: hour.div_euclid(24), ..first.clone() });
                world.write(&more);
                world.run("late").await;
                check(&more, looked_at).await;
                assert_eq!(world.run("later").await, (0, 0));
            }

            // Without its repairs, the table is as it was.
            for lake in world.lakes() {
                let undo = Retraction {
                    id: "undo".to_owned(),
                    at: "2024-07-01T00:00:00Z".parse().unwrap(),
                    undoes: None,
                    parts: ["first", "again", "late", "later"].map(Part::of_run).into(),
                    by: "a test".to_owned(),
                    reason: String::new(),
                };
                lake.retract(world.table(), &undo).await.unwrap();
            }
            check(&more, (0, 0)).await;
        });
    }
}
