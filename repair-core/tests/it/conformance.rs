//! The journal and the lake in memory keep the promises of their traits.

use std::sync::Arc;

use repair_core::testing::{CrashingJournal, CrashingLake, MemoryJournal, MemoryLake, Schedule, journal_suite, lake_suite};

#[tokio::test]
async fn the_journal_in_memory_keeps_its_promises() {
    journal_suite::all(&MemoryJournal::default()).await;
}

#[tokio::test]
async fn the_lake_in_memory_keeps_its_promises() {
    let lake = MemoryLake::default();
    lake_suite::all(&lake, &lake).await;
    lake_suite::all_of_retractions(&lake, &lake, 0..2, 14).await;
}

#[tokio::test]
async fn a_journal_that_never_crashes_keeps_its_promises() {
    journal_suite::all(&CrashingJournal::new(Arc::new(MemoryJournal::default()), Schedule::never())).await;
}

#[tokio::test]
async fn a_lake_that_never_crashes_keeps_its_promises() {
    let memory = MemoryLake::default();
    let schedule = Schedule::never();
    let lake = CrashingLake::new(Arc::new(memory.clone()), schedule.clone());
    lake_suite::all(&lake, &memory).await;
    lake_suite::all_of_retractions(&lake, &memory, 0..2, 14).await;
    assert!(schedule.writes() > 0, "writes were counted");
}

#[tokio::test(start_paused = true)]
async fn whole_workflows_in_memory_come_to_the_truth() {
    let memory = MemoryLake::default();
    let lake: Arc<dyn repair_core::lake::Lake> = Arc::new(memory.clone());
    for seed in testdata::seeds(12, 500) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        lake_suite::what_is_expected_is_found_and_repaired(&lake, &memory, seed).await;
    }
}
