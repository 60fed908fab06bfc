//! How accurate repairs were does not depend on how a lake gives its rows.

use super::LakeSetup;
use super::compaction::publish;
use super::tables::*;
use crate::lake::Lake;
use crate::lake::overlay::accuracy::accuracy;

/// Of rows of the table that say different things of a slot, the same one counts, in whatever order they come; and so do sums.
pub async fn the_order_of_rows_does_not_matter_to_accuracy(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let mut found = Vec::new();
    for order in [[5.0, 7.0], [7.0, 5.0]] {
        let table = table_with(setup, &[row("Z", "2024-03-04T09:00:00Z", 1.0, 1)]).await;
        let of_minute = |minute: u32, price: f64| row("A", &format!("2024-03-04T09:0{minute}:00Z"), price, 1);
        let fixed: Vec<_> = (0..3).map(|minute| of_minute(minute, 1.1 + f64::from(minute))).collect();
        publish(lake, &table, &new_run(), 0, "2024-04-01T00:00:00Z", &fix(&table, &fixed, Vec::new())).await;
        let mut came: Vec<_> = (0..3).flat_map(|minute| order.map(|price| of_minute(minute, price / f64::from(minute + 1)))).collect();
        if order[0] > order[1] {
            came.reverse();
        }
        put(setup, &table, &came).await;
        let accuracy = accuracy(lake, &table, None).await.unwrap();
        assert_eq!(accuracy["backfill"].judged, 3);
        found.push(accuracy);
    }
    assert_eq!(found[0], found[1]);
}
