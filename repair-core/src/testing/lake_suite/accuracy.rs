//! How accurate repairs were does not depend on how a lake gives its rows.

use super::LakeSetup;
use super::compaction::publish;
use super::tables::*;
use crate::lake::Lake;
use crate::lake::overlay::accuracy::accuracy;
use crate::lake::overlay::retraction::{Part, Retraction};

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

/// Of several repairs of a slot, the newest that is not retracted is judged; if all are retracted, the newest of them.
pub async fn each_slot_is_judged_once(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let others = row("Z", "2024-03-04T09:00:00Z", 1.0, 1);
    let table = table_with(setup, std::slice::from_ref(&others)).await;
    let of = |price: f64| row("A", "2024-03-04T09:00:00Z", price, 1);
    let mut runs = Vec::new();
    for (hour, price) in [(1, 2.0), (2, 3.0), (3, 5.0)] {
        let run = new_run();
        publish(lake, &table, &run, 0, &format!("2024-04-01T0{hour}:00:00Z"), &fix(&table, &[of(price)], Vec::new())).await;
        runs.push(run);
    }
    put(setup, &table, &[of(10.0)]).await;
    let mut retracted = 0;
    let mut retract = async |run: &str| {
        retracted += 1;
        let when = format!("2024-04-02T0{retracted}:00:00Z");
        let retraction = Retraction {
            id: format!("once-{retracted}"),
            parts: vec![Part::of_run(run)],
            undoes: None,
            at: at(&when),
            by: "somebody".to_owned(),
            reason: "it is no good".to_owned(),
        };
        lake.retract(&table, &retraction).await.unwrap();
    };
    let judged = async || {
        let all = accuracy(lake, &table, None).await.unwrap();
        let of = &all["backfill"];
        let price = of.columns["price"];
        (of.repaired, of.judged, price.count, price.mean_absolute)
    };
    assert_eq!(judged().await, (1, 1, 1, 5.0), "the newest");
    retract(&runs[2]).await;
    assert_eq!(judged().await, (1, 1, 1, 7.0), "the newest that is left");
    retract(&runs[0]).await;
    assert_eq!(judged().await, (1, 1, 1, 7.0));
    retract(&runs[1]).await;
    assert_eq!(judged().await, (1, 1, 1, 5.0), "none is left");
}
