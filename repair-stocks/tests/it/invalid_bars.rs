//! Bars that no market can have produced, and aggregates that must be computed again.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use repair_core::lake::Overlay;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::model::Table;
use repair_core::model::{DefectKind, SlotRange};
use repair_core::plugin::{Detector, Plugin, PluginKind, Repairer, Source};
use repair_core::testing::plugin_suite;
use repair_stocks::bar::Bar;
use serde_json::{Value, json};

use crate::common::{Row, at, bars, batch, context, flat, interval, lake_with, plugin};

fn detector(name: &str, with: &Value) -> Arc<dyn Detector> {
    match plugin(PluginKind::Detector, name, with).unwrap() {
        Plugin::Detector(detector) => detector,
        _ => unreachable!("asked for a detector"),
    }
}

fn repairer(name: &str, with: &Value) -> Arc<dyn Repairer> {
    match plugin(PluginKind::Repairer, name, with).unwrap() {
        Plugin::Repairer(repairer) => repairer,
        _ => unreachable!("asked for a repairer"),
    }
}

fn source(name: &str, with: &Value) -> Arc<dyn Source> {
    match plugin(PluginKind::Source, name, with).unwrap() {
        Plugin::Source(source) => source,
        _ => unreachable!("asked for a source"),
    }
}

fn with() -> Value {
    json!({
        "table": "bars", "calendar": "XNYS", "symbols": ["IBM", "SPY"],
        "from": "2026-03-05T14:30:00Z", "to": "2026-03-05T15:00:00Z",
    })
}

/// Bars, some of them with each kind of flaw.
fn values() -> Vec<[f64; 5]> {
    let good = [10.0, 12.0, 9.0, 11.0, 300.0];
    let mut all = vec![good; 30];
    for (at, flawed) in (0..30usize).step_by(2).zip([
        [8.0, 12.0, 9.0, 11.0, 300.0],
        [13.0, 12.0, 9.0, 11.0, 300.0],
        [10.0, 12.0, 9.0, 8.0, 300.0],
        [10.0, 12.0, 9.0, 13.0, 300.0],
        [10.0, 9.0, 12.0, 11.0, 300.0],
        [10.0, 12.0, 9.0, 11.0, -1.0],
        [0.0, 12.0, 0.0, 11.0, 1.0],
        [-1.0, -1.0, -1.0, -1.0, 1.0],
        [f64::NAN, 12.0, 9.0, 11.0, 300.0],
        [10.0, f64::INFINITY, 9.0, 11.0, 300.0],
        [10.0, 12.0, 9.0, 11.0, f64::NAN],
    ]) {
        all[at] = flawed;
    }
    all
}

#[tokio::test]
async fn invalid_bars_are_those_with_a_flaw_and_any_repairer_replaces_them() {
    let minutes: Vec<String> = (30..60).map(|minute| format!("2026-03-05T14:{minute}:00Z")).collect();
    let rows: Vec<Row<'_>> = minutes.iter().zip(values()).map(|(time, values)| ("IBM", time.as_str(), values)).collect();
    let archived: Vec<Row<'_>> = minutes.iter().map(|time| ("IBM", time.as_str(), flat(10.5, 7.0))).collect();
    let lake = lake_with(&bars(), &batch(&bars(), &rows));
    let archive = repair_core::model::Table { location: "archive".to_owned(), ..bars() };
    lake.put_table(&archive, &[batch(&archive, &archived)]).unwrap();
    let sources = [("archive".to_owned(), source("stocks.archive", &json!({ "location": "archive" })))];
    let context = context(lake, vec![bars()], "2026-03-10T00:00:00Z").with_sources(sources);
    let detector = detector("stocks.invalid-bars", &with());
    let found = detector.detect(&context, None).await.unwrap();
    let flawed = values().into_iter().map(|[open, high, low, close, volume]| Bar { open, high, low, close, volume }.flaw().is_some());
    let first = found.scope.slots().first;
    for (slot, flawed) in (first..).zip(flawed) {
        assert_eq!(found.gaps.contains(&"IBM".into(), slot), flawed, "minute {}", slot - first);
    }
    assert_eq!((found.kind, found.counts.defective, found.counts.missing), (DefectKind::Invalid, 11, 30));
    plugin_suite::detector(detector.as_ref(), &context).await;
    for (name, with) in [("stocks.backfill", json!({ "source": "archive" })), ("stocks.carry-forward", json!({}))] {
        plugin_suite::repairer(repairer(name, &with).as_ref(), &context, &found).await;
    }
}

#[tokio::test]
async fn what_is_stale_is_narrowed_to_the_stretch_to_compute_again() {
    let rows: Vec<Row<'_>> = vec![("IBM", "2026-03-05T14:30:00Z", flat(1.0, 1.0))];
    let lake = lake_with(&bars(), &batch(&bars(), &rows));
    let hourly = Table::implicit("hourly", "time");
    lake.put_table(&hourly, &[]).unwrap();
    let mut with = with();
    (with["keys"], with["into"], with["to"]) = (with["symbols"].take(), json!("hourly"), json!("2026-03-05"));
    with.as_object_mut().unwrap().remove("symbols");
    let detector = detector("stale", &with);
    let context = context(lake.clone(), vec![bars()], "2026-03-10T00:00:00Z");
    let clean = detector.detect(&context, None).await.unwrap();
    assert_eq!((clean.kind, clean.counts.defective, clean.counts.audited_keys), (DefectKind::Stale, 0, 2));
    let stretch = interval("2026-03-05T15:00:00Z", "2026-03-05T16:00:00Z");
    let mark = Retraction {
        id: "mark".to_owned(),
        parts: vec![Part { interval: Some(stretch), ..Part::of_run("run") }],
        undoes: None,
        at: at("2026-03-09T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "undone".to_owned(),
    };
    lake.retract(&hourly, &mark).await.unwrap();
    let found = detector.detect(&context, None).await.unwrap();
    assert_eq!((found.scope.interval, found.counts.defective, found.counts.expected), (stretch, 120, 120));
    let hour = found.scope.grid.slots_in(&stretch);
    assert_eq!(found.gaps.iter().map(|(_, slots)| slots).collect::<Vec<_>>(), [SlotRange::new(hour.first, hour.end); 2]);
    let again = detector.detect(&context, Some(&found)).await.unwrap();
    assert_eq!((again.counts.defective, &again.gaps), (120, &found.gaps));
    lake.retract(&hourly, &Retraction { id: "back".to_owned(), parts: Vec::new(), undoes: Some("mark".to_owned()), ..mark }).await.unwrap();
    assert_eq!(detector.detect(&context, Some(&found)).await.unwrap().counts.defective, 0);
}
