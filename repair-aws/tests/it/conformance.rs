//! The lake on S3 and Athena keeps the promises of its trait, as the lake of files does.

use std::sync::Arc;

use crate::common::*;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::{Lake, Overlay, ReadLake};
use repair_core::testing::{LakeSetup, MemoryLake, lake_suite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_on_athena_keeps_its_promises() {
    let world = World::new().await;
    lake_suite::all(&world.lake, &world).await;
}

/// With partitions that need no registration, what was counted is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_on_athena_keeps_its_promises_with_projected_partitions() {
    let world = World::projected("2015-01-01,2032-12-31").await;
    lake_suite::presence_is_exact_bits_and_counts(&world.lake, &world).await;
    let world = World::projected("2023-12-01,2025-01-31").await;
    let lake: &dyn Lake = &world.lake;
    lake_suite::presence_shows_requested_keys_and_counts_others(lake, &world).await;
    lake_suite::late_rows_are_seen_at_once(lake, &world).await;
    lake_suite::raw_wins_in_the_repaired_view(lake, &world).await;
    lake_suite::of_two_repairs_of_a_slot_the_newer_counts(lake, &world).await;
    lake_suite::exceptions_count_until_they_expire(lake, &world).await;
    lake_suite::a_replacement_stands_for_all_rows_of_its_slot(lake, &world).await;
    lake_suite::a_removal_holds_until_a_newer_repair(lake, &world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_on_athena_keeps_its_promises_of_retractions_in_any_sequence() {
    let world = World::projected("2023-12-01,2025-01-31").await;
    lake_suite::all_of_retractions(&world.lake, &world, testdata::seeds(1, 3), testdata::by_length(6, 14)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_on_athena_and_the_lake_in_memory_say_the_same() {
    let (world, memory) = (World::new().await, MemoryLake::default());
    lake_suite::two_lakes_say_the_same((&world.lake, &world), (&memory, &memory)).await;
}

/// Cadences, calendars, lifetimes and relative dates, drawn from seeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_workflows_on_athena_come_to_the_truth() {
    let world = World::new().await;
    let lake: Arc<dyn Lake> = Arc::new(world.reopened());
    for seed in testdata::seeds(1, 15) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        lake_suite::what_is_expected_is_found_and_repaired(&lake, &world, seed).await;
    }
}

/// What a person sees of the view follows when repairs are taken back, and when that is undone, also by another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_leaves_out_what_is_taken_back() {
    let (world, table) = (World::new().await, bars());
    world.add_rows(&table, &[rows(&[("A", "2024-03-04T09:00:00Z", 1.0)])]).await.unwrap();
    for (run, minute) in [("one", "2024-03-04T09:01:00Z"), ("two", "2024-03-04T09:02:00Z")] {
        repair(&world.lake, &table, run, &[("A", minute, 2.0)], Vec::new()).await;
    }
    let shown = async || {
        let sql = "SELECT count(*), count(repaired_by) FROM bars_repaired";
        // As the owner of the table asks, and as a process that has just begun does.
        let here = texts(&collect(world.lake.query(&repair_core::lake::Query::new(&[], sql)).await.unwrap()).await);
        assert_eq!(
            here,
            texts(&collect(world.reopened().query(&repair_core::lake::Query::new(std::slice::from_ref(&table), sql)).await.unwrap()).await)
        );
        here
    };
    assert_eq!(shown().await, ["3|2"]);
    let retraction = |id: &str, undoes: Option<&str>| Retraction {
        id: id.to_owned(),
        parts: if undoes.is_some() { Vec::new() } else { vec![Part::of_run("one")] },
        undoes: undoes.map(str::to_owned),
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "wrong".to_owned(),
    };
    world.lake.retract(&table, &retraction("first", None)).await.unwrap();
    assert_eq!(shown().await, ["2|1"]);
    world.reopened().retract(&table, &retraction("second", Some("first"))).await.unwrap();
    assert_eq!(shown().await, ["3|2"]);
    assert_eq!(world.lake.retractions(&table).await.unwrap().len(), 2);
    let names = world.keys("lake/bars_retractions/");
    assert_eq!(names, ["lake/bars_retractions/first.parquet", "lake/bars_retractions/second.parquet"]);
}
