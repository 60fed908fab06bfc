//! The lake on S3 and Athena keeps the promises of its trait, as the lake of files does.

mod common;

use common::World;
use repair_core::testing::{MemoryLake, lake_suite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_on_athena_keeps_its_promises() {
    let world = World::new().await;
    lake_suite::all(&world.lake, &world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_on_athena_and_the_lake_in_memory_say_the_same() {
    let (world, memory) = (World::new().await, MemoryLake::default());
    lake_suite::two_lakes_say_the_same((&world.lake, &world), (&memory, &memory)).await;
}
