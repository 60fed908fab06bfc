//! The journal and the lake in memory keep the promises of their traits.

use repair_core::testing::{MemoryJournal, MemoryLake, journal_suite, lake_suite};

#[tokio::test]
async fn the_journal_in_memory_keeps_its_promises() {
    journal_suite::all(&MemoryJournal::default()).await;
}

#[tokio::test]
async fn the_lake_in_memory_keeps_its_promises() {
    let lake = MemoryLake::default();
    lake_suite::all(&lake, &lake).await;
    lake_suite::all_of_retractions(&lake, &lake).await;
}
