//! Which minutes are found missing.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use repair_core::ErrorKind;
use repair_core::model::{ExpectedKeys, Findings, Table};
use repair_core::plugin::{Detector, Plugin, PluginKind};
use serde_json::{Value, json};

use crate::common::{bars, batch, context, flat, interval, lake_with, plugin, registry};

fn detector(with: &Value) -> repair_core::Result<Arc<dyn Detector>> {
    match plugin(PluginKind::Detector, "stocks.minute-gaps", with)? {
        Plugin::Detector(detector) => Ok(detector),
        _ => unreachable!("asked for a detector"),
    }
}

async fn detect(with: &Value, table: Table) -> repair_core::Result<Findings> {
    let rows = [("IBM", "2026-03-05T14:30:00Z", flat(30.0, 1.0)), ("IBM", "2026-03-05T14:32:00Z", flat(30.0, 1.0))];
    let lake = lake_with(&bars(), &batch(&bars(), &rows));
    detector(with)?.detect(&context(lake, vec![table], "2026-03-10T00:00:00Z"), None).await
}

fn with() -> Value {
    json!({ "table": "bars", "calendar": "XNYS", "symbols": ["IBM", "SPY"], "from": "2026-03-05", "to": "2026-03-05" })
}

#[tokio::test]
async fn every_named_stock_is_expected_in_every_open_minute() {
    let found = detect(&with(), bars()).await.unwrap();
    assert_eq!((found.counts.expected, found.counts.present, found.counts.missing), (780, 2, 778));
    let gaps: Vec<_> = found.gaps.iter().map(|(key, gap)| (key.to_string(), found.scope.grid.interval_of(gap).unwrap())).collect();
    assert_eq!(
        gaps,
        [
            ("IBM".to_owned(), interval("2026-03-05T14:31:00Z", "2026-03-05T14:32:00Z")),
            ("IBM".to_owned(), interval("2026-03-05T14:33:00Z", "2026-03-05T21:00:00Z")),
            ("SPY".to_owned(), interval("2026-03-05T14:30:00Z", "2026-03-05T21:00:00Z")),
        ]
    );
}

#[tokio::test]
async fn stocks_are_those_of_the_table_unless_the_step_lists_some() {
    let mut of_table = with();
    of_table.as_object_mut().unwrap().remove("symbols");
    let listed = Table { keys: Some(ExpectedKeys::List(vec!["IBM".into(), "SPY".into()])), ..bars() };
    let found = detect(&of_table, listed.clone()).await.unwrap();
    assert_eq!((found.counts.expected, found.counts.missing), (780, 778));
    let mut one = with();
    one["symbols"] = json!(["SPY"]);
    assert_eq!(detect(&one, listed.clone()).await.unwrap().counts.expected, 390);
    let error = detect(&of_table, bars()).await.unwrap_err();
    assert!(error.message().contains("nothing says which are expected"), "{error}");
    // So do invalid bars.
    let lake = lake_with(&bars(), &batch(&bars(), &[("IBM", "2026-03-05T14:30:00Z", flat(-1.0, 1.0))]));
    let invalid = match plugin(PluginKind::Detector, "stocks.invalid-bars", &of_table).unwrap() {
        Plugin::Detector(detector) => detector,
        _ => unreachable!("asked for a detector"),
    };
    let found = invalid.detect(&context(lake, vec![listed], "2026-03-10T00:00:00Z"), None).await.unwrap();
    assert_eq!((found.counts.audited_keys, found.counts.defective), (2, 1));
}

#[tokio::test]
async fn what_is_no_table_of_minute_bars_is_refused_with_a_way_out() {
    for (table, said) in [
        (Table { key: Vec::new(), ..bars() }, "`key: [symbol]`"),
        (Table { key: vec!["symbol".to_owned(), "venue".to_owned()], ..bars() }, "symbol, venue"),
        (Table { cadence: Some("5m".parse().unwrap()), ..bars() }, "is 5m; write `cadence: 1m`"),
        (Table { cadence: None, ..bars() }, "cadence: 1m"),
    ] {
        let error = detect(&with(), table).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains(said), "{error}");
    }
    for (name, value) in [
        ("symbols", json!([])),
        ("symbols", json!(["IBM", "IBM"])),
        ("symbols", json!(["IBM", " "])),
        ("calendar", json!("NYSE")),
        ("calendar", Value::Null),
        ("to", json!("2026-03-04")),
        ("keys", json!(["IBM"])),
    ] {
        let mut with = with();
        with[name] = value.clone();
        assert!(detect(&with, bars()).await.is_err(), "{name}: {value}");
    }
}

#[test]
fn everything_is_registered_and_every_setting_is_described() {
    let registry = registry();
    let ours: Vec<_> = registry.entries().filter(|entry| entry.name.starts_with("stocks.")).collect();
    let mut names: Vec<&str> = ours.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    let over_http = ["stocks.alpaca", "stocks.massive", "stocks.polygon"];
    assert_eq!(names.iter().filter(|name| over_http.contains(name)).count(), if cfg!(feature = "http") { 3 } else { 0 });
    names.retain(|name| !over_http.contains(name));
    assert_eq!(
        names,
        [
            "stocks.archive",
            "stocks.backfill",
            "stocks.carry-forward",
            "stocks.correlated",
            "stocks.hourly-bars",
            "stocks.invalid-bars",
            "stocks.minute-gaps",
            "stocks.simulated"
        ]
    );
    for entry in ours {
        let settings = entry.schema()["properties"].as_object().unwrap();
        assert_eq!(entry.schema()["additionalProperties"], false, "{}", entry.name);
        for (name, schema) in settings {
            assert!(schema["description"].is_string(), "{}: {name}", entry.name);
        }
    }
    for calendar in ["XNYS", "XTKS", "24x7"] {
        assert!(registry.calendars().contains_key(calendar));
    }
}
