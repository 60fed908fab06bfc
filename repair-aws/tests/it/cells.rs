//! Cells of tables as people have them are repaired on Athena, and the view shows it.

use crate::common::*;
use repair_core::ErrorKind;
use repair_core::lake::{Overlay, StageRequest, StageScope};
use repair_core::model::{Cadence, Fix, Format, Table};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cells_of_every_type_are_repaired() {
    cells::columns_of_every_type(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cells_of_typed_text_are_repaired() {
    cells::typed_text(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_follow_the_columns_of_repaired_cells() {
    cells::views_of_an_older_version(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cells_of_many_columns_are_repaired() {
    cells::many_columns(&World::new().await, testdata::by_length(12, 100)).await;
}

/// Athena adds no dates to a table, so a table of repairs that lacks one is not written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_that_the_table_of_repairs_lacks_is_refused_before_anything_is_written() {
    let world = World::new().await;
    let table = Table::new("bars", Format::Parquet, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE);
    world.declare(&table, &[("symbol", "string"), ("ts", "timestamp"), ("close", "double"), ("volume", "bigint")]).await;
    repair(&world.lake, &table, "one", &[("A", "2024-03-04T09:00:00Z", 1.0)], Vec::new()).await;
    world.define("DROP TABLE `market`.`bars`").await;
    world
        .declare(&table, &[("symbol", "string"), ("ts", "timestamp"), ("close", "double"), ("volume", "bigint"), ("listed", "date")])
        .await;
    let lake = world.reopened();
    let fix = Fix { rows: vec![rows(&[("A", "2024-03-04T09:01:00Z", 1.0)])], source: "market".into(), ..Fix::default() };
    let scope = StageScope { run: "two", step: "fill", visit: 1, table: &table };
    lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await.unwrap();
    let error = lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("lacks column `listed`, and Athena adds no column of type `date`"), "{error}");
    assert_eq!(world.objects("lake/bars_repairs/").len(), 1);
}
