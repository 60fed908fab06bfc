//! Cells of tables as people have them are repaired on Athena, and the view shows it.

use std::sync::Arc;

use crate::common::*;
use arrow::array::{ArrayRef, Date32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use repair_core::lake::{Layer, Overlay, ReadLake, StageRequest, StageScope};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_repairer_changes_the_wrong_cells_of_a_wide_table_and_no_others() {
    cells::every_repairer(&World::new().await).await;
}

/// Athena adds no dates to a table, so a table of repairs keeps such a date as a timestamp, and everybody reads it as a date.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_that_a_table_gained_after_its_first_repair_is_repaired_too() {
    let world = World::new().await;
    let table = Table::new("bars", Format::Parquet, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE);
    world.declare(&table, &[("symbol", "string"), ("ts", "timestamp"), ("close", "double"), ("volume", "bigint")]).await;
    repair(&world.lake, &table, "one", &[("A", "2024-03-04T09:00:00Z", 1.0)], Vec::new()).await;
    world.define("DROP TABLE `market`.`bars`").await;
    world
        .declare(&table, &[("symbol", "string"), ("ts", "timestamp"), ("close", "double"), ("volume", "bigint"), ("listed", "date")])
        .await;
    let listed: ArrayRef = Arc::new(Date32Array::from(vec![19_786]));
    let with_date = |rows: &RecordBatch| {
        let schema = rows.schema();
        let fields = schema.fields().iter().cloned().chain([Arc::new(Field::new("listed", DataType::Date32, true))]);
        let columns = rows.columns().iter().cloned().chain([listed.clone()]).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).unwrap()
    };
    let fixed = with_date(&rows(&[("A", "2024-03-04T09:01:00Z", 1.0)]));
    for (number, run) in ["two", "three"].into_iter().enumerate() {
        // The second time, the table of repairs has the column.
        let lake = world.reopened();
        let fix = Fix { rows: vec![fixed.clone()], source: "market".into(), ..Fix::default() };
        let scope = StageScope { run, step: "fill", visit: 1, table: &table };
        lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await.unwrap();
        lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
        assert_eq!(world.objects("lake/bars_repairs/").len(), number + 2);
        let scanned = collect(lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await;
        assert_eq!(scanned[0].schema().field_with_name("listed").unwrap().data_type(), &DataType::Date32);
        let shown = texts(&scanned);
        assert!(shown.len() == 2 && shown[1].contains("|2024-03-04|"), "{shown:?}");
        let sql = "SELECT count(*) FROM bars_repaired WHERE listed = DATE '2024-03-04'";
        assert_eq!(
            texts(&collect(lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), sql)).await.unwrap()).await),
            ["1"]
        );
        let repairs = lake.repairs_of(&table).await.unwrap();
        assert_eq!(lake.describe(&repairs).await.unwrap().field_with_name("listed").unwrap().data_type(), &DataType::Date32);
    }
}
