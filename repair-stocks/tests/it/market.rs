//! The promises of the simulated market, and of the source that serves it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use proptest::prelude::*;
use repair_core::ErrorKind;
use repair_core::model::{Always, Calendar, Interval, Table, Week, WeeklyCalendar};
use repair_core::plugin::{Answer, Plugin, PluginKind, Request, Source};
use repair_core::testing::MemoryLake;
use repair_stocks::bar::{Bar, believable};
use repair_stocks::calendar::calendar;
use repair_stocks::source::simulated::Market;
use serde_json::json;

use crate::common::{at, bars, context, interval, keys, number, plugin};

fn minute(text: &str) -> i64 {
    at(text).as_second() / 60
}

#[test]
fn a_seed_is_the_same_market_for_ever() {
    let market = Market::new(7, Arc::new(Always), 0.02);
    // Recorded demos and tests of others depend on it: if this changes, all that was simulated was another market.
    let pinned = Bar { open: 55.82, high: 55.84, low: 55.82, close: 55.82, volume: 1640.0 };
    assert_eq!(market.bar("IBM", minute("2026-03-05T14:30:00Z")), Some(pinned));
    assert_ne!(Market::new(8, Arc::new(Always), 0.02).bar("IBM", minute("2026-03-05T14:30:00Z")), Some(pinned));
    assert_ne!(market.bar("MSFT", minute("2026-03-05T14:30:00Z")), Some(pinned));
}

#[test]
fn about_the_share_that_was_set_is_quiet() {
    const MINUTES: i64 = 100_000;
    for (quiet, tolerance) in [(0.0, 0.0), (0.02, 0.002), (0.3, 0.006), (1.0, 0.0)] {
        let market = Market::new(11, Arc::new(Always), quiet);
        let silent = (0..MINUTES).filter(|&minute| market.bar("GE", minute).is_none()).count();
        let share = silent as f64 / MINUTES as f64;
        assert!((share - quiet).abs() <= tolerance, "{share} of minutes are quiet, not {quiet}");
    }
}

#[test]
fn prices_move_like_those_of_a_stock() {
    let market = Market::new(7, Arc::new(Always), 0.0);
    let first = minute("2025-01-01T00:00:00Z");
    let closes: Vec<f64> = (first..first + 30 * 1_440).map(|minute| market.bar("SPY", minute).unwrap().close).collect();
    let moves = |step: usize| {
        let squares: Vec<f64> = closes.windows(step + 1).map(|pair| (pair[step] / pair[0] - 1.0).powi(2)).collect();
        (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
    };
    let (of_a_minute, of_a_day) = (moves(1), moves(1_440));
    assert!((0.000_1..0.001).contains(&of_a_minute), "{of_a_minute} a minute");
    assert!((0.003..0.05).contains(&of_a_day), "{of_a_day} a day");
}

proptest! {
    #[test]
    fn every_bar_can_be_believed(seed: u64, symbol in "[A-Z]{1,5}", minute in -40_000_000i64..80_000_000) {
        let bar = Market::new(seed, Arc::new(Always), 0.0).bar(&symbol, minute).unwrap();
        prop_assert_eq!(bar.flaw(), None);
        prop_assert!(bar.volume >= 1.0 && bar.volume.fract() == 0.0);
        for price in [bar.open, bar.high, bar.low, bar.close] {
            prop_assert_eq!(price, format!("{price:.2}").parse::<f64>().unwrap(), "more than cents");
            prop_assert!((5.0..2_000.0).contains(&price));
        }
        let next = Market::new(seed, Arc::new(Always), 0.0).bar(&symbol, minute + 1).unwrap();
        prop_assert_eq!(next.open, bar.close);
    }
}

#[test]
fn there_are_bars_only_while_the_market_is_open() {
    let market = Market::new(7, calendar("XNYS").unwrap(), 0.0);
    for (text, open) in [
        ("2026-03-05T14:29:00Z", false),
        ("2026-03-05T14:30:00Z", true),
        ("2026-03-05T20:59:00Z", true),
        ("2026-03-05T21:00:00Z", false),
        ("2026-03-07T15:00:00Z", false),
        ("1950-03-06T15:00:00Z", false),
    ] {
        assert_eq!(market.bar("IBM", minute(text)).is_some(), open, "{text}");
    }
    let tokyo = Market::new(7, calendar("XTKS").unwrap(), 0.0);
    assert!(tokyo.bar("7203", minute("2026-03-05T03:00:00Z")).is_none(), "lunch");
}

fn source(with: &serde_json::Value) -> Arc<dyn Source> {
    match plugin(PluginKind::Source, "stocks.simulated", with).unwrap() {
        Plugin::Source(source) => source,
        _ => unreachable!("asked for a source"),
    }
}

async fn fetch(with: serde_json::Value, table: Table, symbols: &[&str], interval: Interval) -> repair_core::Result<Answer> {
    let context = context(Arc::new(MemoryLake::default()), vec![table.clone()], "2026-03-05T15:00:30Z");
    source(&with).fetch(&context, &Request::new(table, keys(symbols), interval)).await
}

#[tokio::test]
async fn the_source_answers_what_was_asked_until_now_and_vouches_for_no_more() {
    let with = json!({ "seed": 7, "calendar": "XNYS", "quiet": 0.1, "keys_per_request": 2 });
    let asked = interval("2026-03-05T14:00:00Z", "2026-03-05T16:00:00Z");
    let answer = fetch(with, bars(), &["IBM", "SPY"], asked).await.unwrap();
    let covered: Vec<_> = answer.covered.iter().map(|covered| (covered.key.to_string(), covered.interval)).collect();
    let until_now = interval("2026-03-05T14:00:00Z", "2026-03-05T15:00:00Z");
    assert_eq!(covered, [("IBM".to_owned(), until_now), ("SPY".to_owned(), until_now)]);
    let rows = &answer.rows[0];
    believable(&bars(), rows).unwrap();
    let market = Market::new(7, calendar("XNYS").unwrap(), 0.1);
    let traded: Vec<Bar> = ["IBM", "SPY"]
        .iter()
        .flat_map(|symbol| (minute("2026-03-05T14:00:00Z")..minute("2026-03-05T15:00:00Z")).filter_map(|minute| market.bar(symbol, minute)))
        .collect();
    assert!(traded.len() < 60, "some of two half hours are quiet");
    let answered: Vec<Bar> = (0..rows.num_rows())
        .map(|row| {
            let [open, high, low, close, volume] =
                ["open", "high", "low", "close", "volume"].map(|column| number(rows, column, row).unwrap());
            Bar { open, high, low, close, volume }
        })
        .collect();
    assert_eq!(answered, traded);
}

#[tokio::test]
async fn the_source_vouches_only_where_its_calendar_reaches() {
    let with = json!({ "seed": 7, "calendar": "XNYS" });
    let answer = fetch(with.clone(), bars(), &["IBM"], interval("1989-12-30", "1990-01-02")).await.unwrap();
    assert_eq!(answer.covered[0].interval, interval("1990-01-01", "1990-01-02"));
    let answer = fetch(with, bars(), &["IBM"], interval("1989-12-28", "1989-12-30")).await.unwrap();
    assert!(answer.covered.is_empty() && answer.rows.is_empty());
    // The days of Tokyo are known before its hours are.
    let with = json!({ "seed": 7, "calendar": "XTKS" });
    let answer = fetch(with, bars(), &["7203"], interval("2011-11-20", "2011-11-21")).await.unwrap();
    assert_eq!(answer.covered[0].interval, interval("2011-11-21", "2011-11-21"));
    // Sessions begin on the evening before their date, so what is open after the last one is not known.
    let week = Week::from_monday_to_friday(&"<17:00-16:00".parse().unwrap());
    let [first, last] = ["2024-03-05", "2024-03-06"].map(|date| date.parse().unwrap());
    let night: Arc<dyn Calendar> =
        Arc::new(WeeklyCalendar::new("night", "America/Chicago".parse().unwrap(), week).covering(first, last, first));
    let context = context(Arc::new(MemoryLake::default()), vec![bars()], "2024-03-08T00:00:00Z").with_calendars([night]);
    let market = source(&json!({ "seed": 7, "calendar": "night" }));
    let answer = market.fetch(&context, &Request::new(bars(), keys(&["ES"]), interval("2024-03-04", "2024-03-07"))).await.unwrap();
    assert_eq!(answer.covered[0].interval, interval("2024-03-05T00:00:00Z", "2024-03-06T23:00:00Z"));
}

#[tokio::test]
async fn what_goes_past_the_limits_or_is_no_minute_bar_is_refused() {
    let with = json!({ "seed": 7, "calendar": "XNYS", "rows_per_request": 60 });
    let hour = interval("2026-03-05T14:00:00Z", "2026-03-05T15:00:00Z");
    assert_eq!(source(&with).limits().rows_per_request, 60);
    fetch(with.clone(), bars(), &["IBM"], hour).await.unwrap();
    let hourly = Table { cadence: Some("1h".parse().unwrap()), ..bars() };
    for (table, symbols, interval, said) in [
        (bars(), &["IBM"][..], interval("2026-03-05T14:00:00Z", "2026-03-05T15:01:00Z"), "request less"),
        (bars(), &["IBM", "SPY"][..], hour, "request less"),
        (hourly, &["IBM"][..], hour, "`cadence: 1m`"),
    ] {
        let error = fetch(with.clone(), table, symbols, interval).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains(said), "{error}");
    }
    for with in [
        json!({ "seed": 7, "calendar": "XNYS", "quiet": 1.5 }),
        json!({ "seed": 7, "calendar": "XNYS", "rows_per_request": 0 }),
        json!({ "seed": -1, "calendar": "XNYS" }),
        json!({ "seed": 7 }),
        json!({ "seed": 7, "calendar": "XNYS", "qiuet": 0.1 }),
    ] {
        assert!(plugin(PluginKind::Source, "stocks.simulated", &with).is_err(), "{with}");
    }
}
