//! Calendars that a workflow defines on top of a market's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;

use jiff::ToSpan;
use repair_core::builtin::detect::find_gaps;
use repair_core::model::{Counts, Scope};
use repair_core::plugin::{Plugin, PluginKind, Registry, Request};
use repair_core::testing::{MemoryLake, VirtualClock, context};
use repair_core::workflow::{Template, Workflow};

use crate::common::{Row, at, bars, batch, flat, interval, keys, lake_with, plugin};

/// Minutes of a stock in Hong Kong on a Thursday, a Friday and a Monday, without the lunch break. Two are missing each morning, and the Friday
/// has none at all.
fn minutes() -> Vec<String> {
    let mut minutes = Vec::new();
    for day in ["2023-08-31", "2023-09-04"] {
        for (open, close) in [("01:30", "04:00"), ("05:00", "08:00")] {
            let mut minute = at(&format!("{day}T{open}:00Z"));
            while minute < at(&format!("{day}T{close}:00Z")) {
                minutes.push(minute.to_string());
                minute += 1.minute();
            }
        }
        minutes.retain(|minute| !minute.contains("T02:10") && !minute.contains("T03:45"));
    }
    minutes
}

async fn counts(calendars: &str, calendar: &str) -> (Counts, usize) {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    let text = format!("workflow: w\nkind: dag\ncalendars: {calendars}\nsteps:\n  rest: {{ wait: {{ for: 1s }} }}\n");
    let workflow = Workflow::parse("w.yaml", &text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let minutes = minutes();
    let rows: Vec<Row<'_>> = minutes.iter().map(|minute| ("0700", minute.as_str(), flat(300.0, 1.0))).collect();
    let clock = Arc::new(VirtualClock::starting_at(at("2023-09-05T00:00:00Z")));
    let table = bars();
    let calendars = registry.calendars().values().chain(workflow.calendars.values()).cloned();
    let context = context(lake_with(&table, &batch(&table, &rows)), [table.clone()], clock).with_calendars(calendars);
    let scope = Scope {
        table: table.name.clone(),
        grid: table.grid().unwrap(),
        keys: keys(&["0700"]),
        interval: interval("2023-08-31", "2023-09-04"),
        calendar: calendar.to_owned(),
        lifetimes: Default::default(),
    };
    let found = find_gaps(&context, &scope, None).await.unwrap();
    (found.counts, found.gaps.len())
}

#[tokio::test(start_paused = true)]
async fn a_lunch_break_and_a_typhoon_are_no_gaps() {
    // A market of one's own, by its week, and closed on the day of the typhoon.
    let own = "{ hk: { zone: Asia/Hong_Kong, open: { mon-fri: [\"09:30-12:00\", \"13:00-16:00\"] }, closed: [2023-09-01] } }";
    let extended = "{ hk: { extends: XHKG, closed: [2023-09-01] } }";
    for calendars in [own, extended] {
        let (counts, gaps) = counts(calendars, "hk").await;
        assert_eq!((counts.expected, counts.missing, gaps, counts.unexpected), (2 * 330, 4, 4, 0), "{calendars}");
    }
    // The market's own table knows of this typhoon.
    let (from_market, _) = counts("{}", "XHKG").await;
    assert_eq!((from_market.expected, from_market.missing), (2 * 330, 4));
}

#[tokio::test(start_paused = true)]
async fn the_simulated_market_is_open_when_a_calendar_of_the_workflow_is() {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    let text = "workflow: w\nkind: dag\ncalendars: { hk: { extends: XHKG, special: { 2023-09-04: \"09:30-12:00\" } } }\n\
                sources: { market: { source: stocks.simulated, with: { seed: 7, calendar: hk, quiet: 0 } } }\n\
                steps:\n  rest: { wait: { for: 1s } }\n";
    let workflow = Workflow::parse("w.yaml", text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mistakes = Workflow::parse("w.yaml", &text.replace("calendar: hk", "calendar: kh"), &registry).unwrap_err().to_string();
    assert!(mistakes.contains("there is no calendar `kh`"), "{mistakes}");

    let Template::Value(with) = &workflow.sources["market"].with else { panic!("it is written out") };
    let Plugin::Source(market) = plugin(PluginKind::Source, "stocks.simulated", with).unwrap() else { panic!("no source") };
    let clock = Arc::new(VirtualClock::starting_at(at("2023-09-06T00:00:00Z")));
    let context = context(Arc::new(MemoryLake::default()), [bars()], clock).with_calendars(workflow.calendars.values().cloned());
    let answer = market.fetch(&context, &Request::new(bars(), keys(&["0700"]), interval("2023-09-04", "2023-09-05"))).await.unwrap();
    assert_eq!(answer.rows.iter().map(|rows| rows.num_rows()).sum::<usize>(), 150 + 330);
}
