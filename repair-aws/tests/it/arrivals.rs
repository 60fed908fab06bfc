//! Deliveries are looked for on Athena: rows of events are counted by its engine, and slots of a series by their presence.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::sync::Arc;

use crate::common::*;
use repair_core::ErrorKind;
use repair_core::model::{Cadence, Findings, Table};
use repair_core::plugin::{Plugin, PluginKind, Registry};
use repair_core::testing::{LakeSetup, VirtualClock, context};
use serde_json::{Value, json};

async fn found(world: &World, table: &Table, with: Value) -> repair_core::Result<Findings> {
    let made = Registry::default().make(PluginKind::Detector, "arrivals", &with).unwrap();
    let Plugin::Detector(detector) = made else { panic!("{:?}", made.kind()) };
    let clock = VirtualClock::starting_at(at("2024-03-12T06:00:00Z"));
    detector.detect(&context(Arc::new(world.reopened()), [table.clone()], Arc::new(clock)), None).await
}

/// A folder for each day: Tuesday's did not come, Thursday's holds one row.
async fn deliver(world: &World, table: &Table) {
    let mut held = Vec::new();
    for (day, count) in [("2024-03-04", 5), ("2024-03-06", 6), ("2024-03-07", 1), ("2024-03-08", 5)] {
        held.extend((0..count).map(|hour| (if hour % 2 == 0 { "A" } else { "B" }, format!("{day}T{hour:02}:00:00Z"))));
    }
    let held: Vec<(&str, &str, f64)> = held.iter().map(|(key, time)| (*key, time.as_str(), 1.0)).collect();
    world.add_rows(table, &[rows(&held)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_of_events_that_did_not_arrive_are_found_with_one_query() {
    let (world, table) = (World::new().await, Table { cadence: None, ..bars() });
    deliver(&world, &table).await;
    let week = json!({ "table": "bars", "from": "2024-03-04", "to": "2024-03-08", "min_rows": "50%" });
    let all = found(&world, &table, week.clone()).await.unwrap();
    let said = "of 5 days of table `bars`, 1 did not arrive: 2024-03-05; 1 holds too few rows: 2024-03-07 (1 of at least 3 rows)";
    assert_eq!((all.notices, all.counts.expected, all.counts.missing), (vec![said.to_owned()], 5, 2));
    assert_eq!((all.usage.queries, all.usage.rows_read), (1, 4), "the engine counts");
    let mut each = week;
    each.as_object_mut().unwrap().extend([("keys".to_owned(), json!(["A", "B"])), ("per_key".to_owned(), json!(true))]);
    let each = found(&world, &table, each).await.unwrap().counts.units.unwrap();
    assert_eq!((each.expected, each.missing, each.short), (10, 3, 1));
    let nowhere = json!({ "table": "lost", "from": "2024-03-04", "to": "2024-03-08", "every": "1d" });
    let lost = Table { name: "lost".to_owned(), location: "lost".to_owned(), ..table };
    assert_eq!(found(&world, &lost, nowhere).await.map(|found| found.counts).unwrap_err().kind(), ErrorKind::Blind);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_folders_that_did_not_arrive_are_found() {
    let (world, table) = (World::new().await, Table { cadence: Some(Cadence::HOUR), ..bars() });
    deliver(&world, &table).await;
    let week = json!({ "table": "bars", "from": "2024-03-04", "to": "2024-03-08", "keys": ["A", "B"], "min_rows": 5 });
    let found = found(&world, &table, week).await.unwrap();
    let units = found.counts.units.unwrap();
    assert_eq!((units.expected, units.missing, units.short, found.counts.missing), (5, 1, 1, 48 + 47));
    assert_eq!(found.counts.expected, found.counts.present + found.counts.missing);
}
