//! Estimates keep the intervals in which their true values probably lie.

use arrow::array::AsArray;

use super::LakeSetup;
use super::tables::*;
use crate::lake::overlay::columns;
use crate::lake::overlay::story::of_slot;
use crate::lake::{Lake, Layer};
use crate::model::{Estimates, Key};

/// The interval of an estimate is beside its row in the overlay, and nowhere else: the view stays as it is, and rows that are not estimated have none,
/// whether they were written before or after.
pub async fn an_estimate_keeps_its_interval(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
    let columns_of_view = async || {
        let batches = collect(lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await;
        batches[0].schema_ref().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()
    };
    let before = columns_of_view().await;
    let rows = ["09:01", "09:02", "09:03"].map(|time| row("A", &format!("2024-03-04T{time}:00Z"), 2.0, 2));
    let slot = |row: &Row| table.grid().unwrap().slot_of_seconds(row.time_us / 1_000_000);
    let key = Key::from("A");
    for (row, at) in rows.iter().zip(["2024-04-01T00:00:00Z", "2024-04-01T00:00:01Z", "2024-04-01T00:00:02Z"]) {
        let mut fixed = fix(&table, std::slice::from_ref(row), Vec::new());
        if row.time_us == rows[1].time_us {
            fixed.estimates.insert(&key, slot(row), "price", 2.0, 0.25);
            // Of a row that is not there.
            fixed.estimates.insert(&key, slot(row) + 9, "price", 7.0, 0.25);
        }
        repair(lake, &table, "seasonal", at, &fixed).await;
    }
    assert_eq!(columns_of_view().await, before);
    assert_eq!(read(lake, &table, Layer::Repaired).await.len(), 4);
    let ours = lake.repairs_of(&table).await.unwrap();
    let mut texts: Vec<String> = Vec::new();
    for batch in collect(lake.scan(&ours, &everything(Layer::Raw)).await.unwrap()).await {
        let Some(column) = batch.column_by_name(columns::ESTIMATED) else { continue };
        texts.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    let [text] = &texts[..] else { panic!("{texts:?}") };
    let [low, high] = Estimates::of_text(text).unwrap()["price"];
    assert!((low - 1.51).abs() < 0.001 && (high - 2.49).abs() < 0.001, "{text}");
    for (row, is_estimated) in rows.iter().zip([false, true, false]) {
        let when = jiff::Timestamp::from_microsecond(row.time_us).unwrap();
        let story = of_slot(lake, &table, &key, when, at("2024-05-01T00:00:00Z")).await.unwrap();
        let estimated = &story.repairs[0].estimated;
        assert_eq!(estimated.keys().map(String::as_str).collect::<Vec<_>>(), if is_estimated { vec!["price"] } else { vec![] });
        assert!(story.repairs[0].counts && story.repairs[0].row.get(columns::ESTIMATED).is_none(), "it is none of the table's columns");
    }
}
