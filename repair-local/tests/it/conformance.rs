//! The lake of files and the journal in SQLite keep the promises of their traits.
#![allow(clippy::unwrap_used, reason = "a test that fails, panics")]

use std::sync::Arc;

use crate::common::{World, by_partition, write_parquet};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use repair_core::Result;
use repair_core::lake::Lake;
use repair_core::model::Table;
use repair_core::testing::{LakeSetup, MemoryLake, journal_suite, lake_suite};
use repair_local::SqliteJournal;

#[async_trait]
impl LakeSetup for World {
    async fn add_rows(&self, table: &Table, batches: &[RecordBatch]) -> Result<()> {
        let folder = self.root().join(&table.location);
        for batch in batches {
            for (part, rows) in by_partition(table, batch) {
                // A name that no other file has.
                let number = crate::common::tree(&folder.join(&part)).len();
                write_parquet(&folder.join(part).join(format!("{number}.parquet")), &rows, 1_000);
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_of_files_keeps_its_promises() {
    let world = World::new();
    lake_suite::all(&world.lake, &world).await;
    lake_suite::all_of_retractions(&world.lake, &world, 0..2, 14).await;
}

/// Longer sequences than the suite's: REPAIR_SEEDS chooses others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_sequence_of_repairs_is_seen_as_a_model_sees_it() {
    let (world, memory) = (World::new(), MemoryLake::default());
    for seed in testdata::seeds(2, 60) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        lake_suite::any_sequence_of_changes_is_seen_as_a_model_sees_it(&world.lake, &world, seed, 40).await;
        lake_suite::any_sequence_of_changes_is_seen_as_a_model_sees_it(&memory, &memory, seed, 40).await;
        lake_suite::any_sequence_of_versions_is_seen_as_a_model_sees_it(&world.lake, &world, seed, 40).await;
        lake_suite::any_sequence_of_versions_is_seen_as_a_model_sees_it(&memory, &memory, seed, 40).await;
    }
}

/// Cadences, calendars, lifetimes and relative dates, drawn from seeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_workflows_on_files_come_to_the_truth() {
    let world = World::new();
    let lake: Arc<dyn Lake> = Arc::new(world.lake.clone());
    for seed in testdata::seeds(10, 300) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        lake_suite::what_is_expected_is_found_and_repaired(&lake, &world, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_of_files_and_the_lake_in_memory_say_the_same() {
    let (world, memory) = (World::new(), MemoryLake::default());
    lake_suite::two_lakes_say_the_same((&world.lake, &world), (&memory, &memory)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_in_sqlite_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(folder.path().join("runs.db")).unwrap();
    journal_suite::all(&journal).await;
    // A journal that holds other runs, and that other handles use.
    journal_suite::all(&SqliteJournal::open(journal.path()).unwrap()).await;
}
