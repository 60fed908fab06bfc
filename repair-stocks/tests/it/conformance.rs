//! Detectors, repairers and sources of bars keep the promises of their traits.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use repair_core::model::{Findings, Key, Table};
use repair_core::plugin::{Plugin, PluginKind, Request, Source, StepContext};
use repair_core::testing::plugin_suite;
use serde_json::{Value, json};

use crate::common::{Row, bars, batch, context, flat, interval, keys, lake_with, plugin};

fn source(name: &str, with: &Value) -> Arc<dyn Source> {
    match plugin(PluginKind::Source, name, with).unwrap() {
        Plugin::Source(source) => source,
        _ => unreachable!("asked for a source"),
    }
}

/// A morning of two stocks with holes, an archive that holds most of what is missing, and the sources by name.
fn world() -> StepContext {
    let minutes: Vec<String> = (30..60).map(|minute| format!("2026-03-05T14:{minute}:00Z")).collect();
    let all =
        |symbol: &'static str| minutes.iter().zip(1u32..).map(move |(time, price)| (symbol, time.as_str(), flat(f64::from(price), 5.0)));
    let every: Vec<Row<'_>> = all("IBM").chain(all("SPY")).collect();
    let held: Vec<Row<'_>> = every.iter().enumerate().filter(|(at, _)| at % 7 != 3).map(|(_, row)| *row).collect();
    let archived: Vec<Row<'_>> = every.iter().enumerate().filter(|(at, _)| at % 11 != 3).map(|(_, row)| *row).collect();
    let lake = lake_with(&bars(), &batch(&bars(), &held));
    let archive = Table { location: "archive".to_owned(), ..bars() };
    lake.put_table(&archive, &[batch(&archive, &archived)]).unwrap();
    let sources = [
        ("archive".to_owned(), source("stocks.archive", &json!({ "location": "archive" }))),
        ("simulated".to_owned(), source("stocks.simulated", &json!({ "seed": 7, "calendar": "XNYS", "keys_per_request": 2 }))),
    ];
    context(lake, vec![bars()], "2026-03-10T00:00:00Z").with_sources(sources)
}

fn with() -> Value {
    json!({
        "table": "bars", "calendar": "XNYS", "symbols": ["IBM", "SPY"],
        "from": "2026-03-05T14:30:00Z", "to": "2026-03-05T15:00:00Z",
    })
}

async fn found(context: &StepContext) -> Findings {
    let Plugin::Detector(detector) = plugin(PluginKind::Detector, "stocks.minute-gaps", &with()).unwrap() else {
        unreachable!("asked for a detector")
    };
    detector.detect(context, None).await.unwrap()
}

#[tokio::test]
async fn minute_gaps_is_a_detector() {
    let Plugin::Detector(detector) = plugin(PluginKind::Detector, "stocks.minute-gaps", &with()).unwrap() else {
        unreachable!("asked for a detector")
    };
    plugin_suite::detector(detector.as_ref(), &world()).await;
}

#[tokio::test]
async fn backfill_and_those_that_guess_are_repairers() {
    let context = world();
    let findings = found(&context).await;
    assert!(findings.gaps.len() > 5);
    for (name, with) in [
        ("stocks.backfill", json!({ "source": "archive" })),
        ("stocks.backfill", json!({ "source": "simulated" })),
        ("stocks.carry-forward", json!({ "max_age": "2m" })),
        ("stocks.correlated", json!({ "reference": "SPY", "max_gap": "5m" })),
    ] {
        let Plugin::Repairer(repairer) = plugin(PluginKind::Repairer, name, &with).unwrap() else { unreachable!("asked for a repairer") };
        plugin_suite::repairer(repairer.as_ref(), &context, &findings).await;
    }
}

#[tokio::test]
async fn the_archive_and_the_simulated_market_are_sources() {
    let context = world();
    let request = |names: &[&str]| Request::new(bars(), keys(names), interval("2026-03-05T14:35:00Z", "2026-03-05T14:55:00Z"));
    let archive = context.source("archive").unwrap().clone();
    plugin_suite::source(archive.as_ref(), &context, &request(&["IBM"]), Some(&Key::from("XYZ"))).await;
    // It makes up every stock there could be.
    let simulated = context.source("simulated").unwrap().clone();
    plugin_suite::source(simulated.as_ref(), &context, &request(&["IBM", "SPY"]), None).await;
}
