//! What Athena has counted is not counted again while nothing is written that could change it; and never believed when something was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;

use crate::common::unique::Numbers;
use crate::common::*;
use repair_core::engine::{Engine, StartRequest};
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::{Overlay, PresenceRequest, ReadLake};
use repair_core::model::{Absence, Key, SlotRange, Table, TablePresence};
use repair_core::plugin::Registry;
use repair_core::testing::{LakeSetup, VirtualClock};
use repair_core::workflow::Workflow;
use repair_local::SqliteJournal;
use serde_json::json;

const KEPT: &str = "lake/_repair/runs/";

/// A table of minutes whose partitions are projected: what lies in the folder of a day is that day's partition.
async fn projected() -> (World, Table) {
    let (world, table) = (World::new().await, bars());
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`bars` (`symbol` string, `ts` timestamp, `close` double, `volume` bigint) PARTITIONED BY (`date` string) \
             STORED AS PARQUET LOCATION 's3://{BUCKET}/lake/bars/' TBLPROPERTIES ('projection.enabled'='true', 'projection.date.type'='date', \
             'projection.date.format'='yyyy-MM-dd', 'projection.date.range'='2024-01-01,2024-12-31')"
        ))
        .await;
    (world, table)
}

fn week(table: &Table) -> SlotRange {
    SlotRange::new(whole_day(table, "2024-03-04").first + 7, whole_day(table, "2024-03-08").end - 90)
}

async fn look(world: &World, table: &Table, slots: SlotRange, as_of: &str) -> TablePresence {
    let request = PresenceRequest::new(slots, keys(&["A", "B"]), at(as_of));
    world.reopened().presence(table, &request).await.unwrap()
}

/// What a look finds, without what it cost.
fn found(presence: &TablePresence) -> TablePresence {
    TablePresence { usage: repair_core::model::Usage::default(), ..presence.clone() }
}

fn forget(world: &World) {
    let kept = world.keys(KEPT).into_iter().filter(|key| key.contains("known"));
    kept.for_each(|key| drop(world.sandbox.store().delete(BUCKET, &key)));
}

const AS_OF: &str = "2024-04-02T00:00:00Z";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_days_that_were_written_to_are_queried_again() {
    let (world, table) = projected().await;
    let put = |day: u32, number: u32, rows_: &[(&str, &str, f64)]| {
        world.put(&format!("lake/bars/date=2024-03-{day:02}/{number}.parquet"), parquet(&rows(rows_)));
    };
    for day in 3..=9 {
        for number in 0..3 {
            put(
                day,
                number,
                &[("A", &format!("2024-03-{day:02}T0{number}:20:00Z"), 1.0), ("B", &format!("2024-03-{day:02}T12:0{number}:00Z"), 1.0)],
            );
        }
    }
    let all = week(&table);
    let first = look(&world, &table, all, AS_OF).await;
    let second = look(&world, &table, all, AS_OF).await;
    assert_eq!((first.usage.queries, second.usage.queries, second.usage.bytes_scanned), (1, 0, 0));
    assert_eq!(found(&first), found(&second));
    // The days beside a folder may have rows in it, and these are opened, too.
    put(6, 3, &[("A", "2024-03-06T20:00:00Z", 1.0)]);
    let third = look(&world, &table, all, AS_OF).await;
    assert_eq!(third.usage.queries, 1);
    assert!(third.usage.bytes_scanned < first.usage.bytes_scanned, "{} of {}", third.usage.bytes_scanned, first.usage.bytes_scanned);
    assert_eq!(third.raw.keys[&Key::from("A")].present.count(), first.raw.keys[&Key::from("A")].present.count() + 1);
    // A narrower look at whole days is known, too; parts of days are looked at.
    let days = SlotRange::new(whole_day(&table, "2024-03-05").first, whole_day(&table, "2024-03-07").end);
    assert_eq!(look(&world, &table, days, AS_OF).await.usage.queries, 0);
    assert_eq!(look(&world, &table, SlotRange::new(days.first + 1, days.end), AS_OF).await.usage.queries, 1);
    // What is damaged or gone is counted again.
    for key in world.keys(KEPT).into_iter().filter(|key| key.contains("known")) {
        world.put(&key, "damaged");
    }
    let again = look(&world, &table, days, AS_OF).await;
    assert_eq!((again.usage.queries, look(&world, &table, days, AS_OF).await.usage.queries), (1, 0));
    forget(&world);
    assert_eq!(found(&look(&world, &table, days, AS_OF).await), found(&again));
    // Rows of other keys are counted by the query as a whole.
    put(6, 4, &[("C", "2024-03-06T20:00:00Z", 1.0)]);
    for _ in 0..2 {
        let odd = look(&world, &table, days, AS_OF).await;
        assert_eq!((odd.usage.queries, odd.raw.other_rows), (1, 1));
    }
}

/// Partitions that are registered may be moved to another place, which no listing shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registered_partitions_are_queried_again() {
    let (world, table) = (World::new().await, bars());
    world.add_rows(&table, &[rows(&[("A", "2024-03-05T09:00:00Z", 1.0), ("A", "2024-03-06T09:00:00Z", 1.0)])]).await.unwrap();
    let all = week(&table);
    assert_eq!(look(&world, &table, all, AS_OF).await.raw.keys[&Key::from("A")].present.count(), 2);
    world.put("elsewhere/0.parquet", parquet(&rows(&[("A", "2024-03-06T10:00:00Z", 1.0), ("A", "2024-03-06T11:00:00Z", 1.0)])));
    for change in [
        "DROP PARTITION (`date` = '2024-03-06')".to_owned(),
        format!("ADD PARTITION (`date` = '2024-03-06') LOCATION 's3://{BUCKET}/elsewhere/'"),
    ] {
        world.define(&format!("ALTER TABLE `{DATABASE}`.`bars` {change}")).await;
    }
    assert_eq!(look(&world, &table, all, AS_OF).await.raw.keys[&Key::from("A")].present.count(), 3);
}

/// Whatever is written, a look that may use what is kept finds what a look finds that may not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_sequence_of_writes_is_seen() {
    let mut saved = 0;
    for seed in testdata::seeds(2, 40) {
        let (world, table) = projected().await;
        let mut numbers = Numbers(seed);
        let (mut as_of, mut retracted) = (at("2024-04-02T00:00:00Z"), 0);
        for step in 0..12 {
            let day = 3 + numbers.below(7);
            let time = format!("2024-03-{day:02}T{:02}:{:02}:00Z", numbers.below(24), numbers.below(60));
            let key = ["A", "B", "A", "B", "A", "B", "A", "C"][usize::try_from(numbers.below(8)).unwrap()];
            match numbers.below(12) {
                0..=2 => {
                    let name = format!("lake/bars/date={}/{}.parquet", &time[..10], numbers.below(4));
                    world.put(&name, parquet(&rows(&[(key, &time, 1.0)])));
                }
                3 => {
                    // Into the folder of a day that may be its own, a neighbour's, or one that is too far away.
                    let folder = 3 + numbers.below(7);
                    world.put(&format!("lake/bars/date=2024-03-{folder:02}/far.parquet"), parquet(&rows(&[(key, &time, 1.0)])));
                }
                4 => drop(world.sandbox.store().delete(BUCKET, &format!("lake/bars/date={}/{}.parquet", &time[..10], numbers.below(4)))),
                5 => repair(&world.lake, &table, &format!("run-{step}"), &[("A", &time, 2.0)], vec![]).await,
                6 => {
                    let first = table.grid().unwrap().slot_of(at(&time));
                    let until = format!("2024-04-{:02}T00:00:00Z", 3 + numbers.below(5));
                    let absent = Absence {
                        key: Key::from("B"),
                        slots: SlotRange::new(first, first + 30),
                        source: "market".into(),
                        asked_at: at("2024-04-01T00:00:00Z"),
                        answer: "nothing traded".into(),
                        recheck_after: at(&until),
                    };
                    repair(&world.lake, &table, &format!("run-{step}"), &[], vec![absent]).await;
                }
                7 => {
                    let run = format!("run-{}", numbers.below(12));
                    let retraction = Retraction {
                        id: format!("r{retracted}"),
                        at: at("2024-04-01T00:00:00Z"),
                        by: "somebody".to_owned(),
                        reason: "wrong".to_owned(),
                        parts: vec![Part::of_run(&run)],
                        undoes: None,
                    };
                    retracted += 1;
                    world.reopened().retract(&table, &retraction).await.unwrap();
                }
                8 => as_of += jiff::SignedDuration::from_hours(20),
                // Somebody looks once more.
                _ => {}
            }
            let slots = match numbers.below(3) {
                0 => week(&table),
                1 => whole_day(&table, "2024-03-06"),
                _ => SlotRange::new(whole_day(&table, "2024-03-04").first, whole_day(&table, "2024-03-08").end),
            };
            let kept = look(&world, &table, slots, &as_of.to_string()).await;
            let copies: Vec<(String, bytes::Bytes)> =
                world.keys(KEPT).into_iter().map(|key| (key.clone(), world.sandbox.store().get(BUCKET, &key).unwrap().bytes)).collect();
            forget(&world);
            let anew = look(&world, &table, slots, &as_of.to_string()).await;
            assert_eq!(found(&kept), found(&anew), "step {step} of seed {seed}, as of {as_of}");
            saved += u32::from(kept.usage.queries < anew.usage.queries || kept.usage.bytes_scanned < anew.usage.bytes_scanned);
            forget(&world);
            copies.into_iter().for_each(|(key, bytes)| world.put(&key, bytes));
        }
    }
    assert!(saved >= 4, "only {saved} looks had less to read");
}

/// A second run on Athena has the findings of the first, and pays for no query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_pays_for_no_query_where_nothing_has_changed() {
    let (world, _) = projected().await;
    world.put("lake/bars/date=2024-03-05/0.parquet", parquet(&rows(&[("A", "2024-03-05T09:00:00Z", 1.0)])));
    let workflow = r#"
workflow: w
kind: dag
tables:
  bars: { location: bars, format: parquet, partition_by: [{ date: day }], key: [symbol], time: ts, cadence: 1m }
steps:
  look: { detect: gaps, with: { table: bars, keys: [A, B], from: "2024-03-04", to: "2024-03-08" } }
"#;
    let registry = Arc::new(Registry::default());
    let workflow = Workflow::parse("w.yaml", workflow, &registry).unwrap_or_else(|told| panic!("{told}"));
    let folder = tempfile::tempdir().unwrap();
    let run = async |name: &str| {
        let journal = SqliteJournal::open(folder.path().join("journal.db")).unwrap();
        let mut engine = Engine::new(registry.clone(), Arc::new(world.reopened()), Arc::new(journal));
        engine.clock = Arc::new(VirtualClock::starting_at(at(AS_OF)));
        let report = engine.start(&workflow, StartRequest::new(name).with_environment(json!({}))).await.unwrap();
        let look = report.steps.iter().find(|step| step.name == "look").unwrap();
        (look.usage.queries, look.output["missing"].clone())
    };
    let missing = json!(2 * 5 * 1_440 - 1);
    assert_eq!((run("one").await, run("two").await), ((1, missing.clone()), (0, missing)));
    world.put("lake/bars/date=2024-03-05/1.parquet", parquet(&rows(&[("A", "2024-03-05T09:01:00Z", 1.0)])));
    assert_eq!(run("three").await, (1, json!(2 * 5 * 1_440 - 2)));
}
