//! Tables whose key alone identifies a row are repaired on Athena as they are on a lake of files.

use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_in_folders_of_other_days_are_used() {
    let world = World::new().await;
    for layout in unique::LAYOUTS {
        unique::folders_of_other_days(&world, layout).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_order_is_shown_once_by_its_latest_version_in_any_interval() {
    let world = World::new().await;
    for seed in testdata::seeds(1, 3) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        unique::orders_of_a_seed(&world, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_follows_when_a_table_becomes_unique() {
    unique::a_table_that_becomes_unique(&World::new().await).await;
}
