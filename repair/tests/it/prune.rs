//! Removing what old runs no longer need may be broken off anywhere, and is then done again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use repair::core::engine::Journal;
use repair::core::lake::{Artifacts, Lake};
use repair::core::testing::{CrashingJournal, CrashingLake, MemoryJournal, MemoryLake, Moment, Schedule};
use repair::{OpenLake, Repair};

const WORKFLOW: &str = "
workflow: nightly
kind: state-machine
tables: { t: { location: t, format: csv, time: ts, cadence: 1h } }
start: find
steps:
  find: { detect: gaps, with: { table: t, from: 2024-03-04, to: 2024-03-04 }, end: true }
";

/// A lake and a journal with three runs.
async fn world() -> (Arc<MemoryLake>, Arc<MemoryJournal>) {
    use repair::arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
    let (lake, journal) = (Arc::new(MemoryLake::default()), Arc::new(MemoryJournal::default()));
    let repair = Repair::text("w.yaml", WORKFLOW).adapters(lake.clone(), journal.clone()).connect().await.unwrap();
    let times = TimestampMicrosecondArray::from(vec![1_709_510_400_000_000]).with_timezone("UTC");
    let rows = RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef)]).unwrap();
    lake.put_table(&repair.workflow().tables["t"], &[rows]).unwrap();
    for run in ["one", "two", "three"] {
        repair.run().id(run).await.unwrap();
    }
    (lake, journal)
}

/// The areas of runs that have something.
async fn areas(lake: &MemoryLake) -> Vec<String> {
    let mut areas: Vec<String> = lake.kept().await.unwrap().into_iter().map(|kept| kept.area).filter(|area| !area.contains('%')).collect();
    areas.dedup();
    areas
}

#[tokio::test]
async fn a_crash_at_any_write_leaves_what_can_be_removed_by_another_attempt() {
    let mut write = 1;
    loop {
        let mut has_crashed = false;
        for moment in [Moment::Before, Moment::After] {
            let (lake, journal) = world().await;
            assert_eq!(areas(&lake).await, ["one", "three", "two"]);
            let schedule = Schedule::crash_at(write, moment);
            let crashing: (Arc<dyn Lake>, Arc<dyn Journal>) = (
                Arc::new(CrashingLake::new(lake.clone(), schedule.clone())),
                Arc::new(CrashingJournal::new(journal.clone(), schedule.clone())),
            );
            let open = OpenLake::of(crashing.0, crashing.1);
            if let Ok(found) = open.prunable().older_than(Duration::ZERO).await {
                let done = open.prune(&found).await;
                assert_eq!(done.is_err(), schedule.crashed(), "write {write}");
            }
            has_crashed |= schedule.crashed();
            let again = OpenLake::of(lake.clone(), journal.clone());
            let found = again.prunable().older_than(Duration::ZERO).await.unwrap();
            again.prune(&found).await.unwrap();
            assert_eq!(areas(&lake).await, ["three"], "write {write}");
            // The history is whole, and answers as before.
            for run in ["one", "two", "three"] {
                assert_eq!(again.report(run).await.unwrap().missing, 23);
            }
            assert!(again.prunable().older_than(Duration::ZERO).await.unwrap().runs.is_empty());
        }
        if !has_crashed {
            assert!(write > 4, "there are writes to crash at");
            return;
        }
        write += 1;
    }
}

#[tokio::test]
async fn a_run_that_somebody_redrives_meanwhile_keeps_everything() {
    let (lake, journal) = world().await;
    let open = OpenLake::of(lake.clone(), journal.clone());
    let mut found = open.prunable().older_than(Duration::ZERO).await.unwrap();
    // As if it had ended at another time when it was found.
    found.runs[0].ended_at = found.runs[0].ended_at.checked_sub(Duration::from_secs(1)).unwrap();
    let removed = open.prune(&found).await.unwrap();
    assert_eq!(removed.runs.iter().map(|run| run.run.as_str()).collect::<Vec<_>>(), ["two"]);
    assert_eq!(areas(&lake).await, ["one", "three"]);
}
