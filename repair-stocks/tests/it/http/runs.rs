//! How a run treats answers: a wrong one is an error and leaves nothing in the lake, and what a source leaves out is judged.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::AsArray;
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use repair_core::engine::{Engine, Outcome, RunReport, StartRequest};
use repair_core::lake::{Layer, ReadLake, ScanRequest, overlay};
use repair_core::plugin::Clock;
use repair_core::testing::liar as lies;
use repair_core::workflow::Workflow;
use repair_core::{ErrorKind, Result};
use repair_local::{LocalLake, SqliteJournal};
use repair_stocks::source::Environment;
use serde_json::Value;
use tempfile::TempDir;

use super::vendor::{self, LIES, Lie, Market, Reply, Seen, Vendor};
use super::{minute, registry, trade, variables, with_variables};
use crate::common::bars;

/// A clock that starts at an instant, advances by itself, and jumps instead of waiting.
struct Skips {
    ahead_ms: AtomicI64,
}

impl Skips {
    fn starting_at(instant: &str) -> Self {
        let skips = Self { ahead_ms: AtomicI64::new(0) };
        skips.to(crate::common::at(instant));
        skips
    }

    fn to(&self, instant: Timestamp) {
        let ahead_ms = instant.duration_since(Timestamp::now()).as_millis();
        self.ahead_ms.store(i64::try_from(ahead_ms).unwrap() + 1, Ordering::SeqCst);
    }

    fn pass(&self, days: i64) {
        self.to(self.now() + SignedDuration::from_hours(24 * days));
    }
}

#[async_trait]
impl Clock for Skips {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }

    async fn sleep_until(&self, due: Timestamp) {
        if due > self.now() {
            self.to(due);
        }
        tokio::task::yield_now().await;
    }
}

/// A lake in a folder, an API on loopback, and a clock.
struct World {
    folder: TempDir,
    vendor: Vendor,
    clock: Arc<Skips>,
    variables: Environment,
}

const FROM: &str = "2024-03-11T13:30:00Z";
const TO: &str = "2024-03-11T14:30:00Z";
/// The minutes between [`FROM`] and [`TO`] that the table lacks, for each symbol.
const HOLES: [(&str, &str); 2] = [("2024-03-11T13:35:00Z", "2024-03-11T13:50:00Z"), ("2024-03-11T14:05:00Z", "2024-03-11T14:20:00Z")];

fn is_lost(minute: i64) -> bool {
    HOLES.iter().any(|(from, to)| (super::minute(from)..super::minute(to)).contains(&minute))
}

/// Bars of two days.
fn market() -> Market {
    let mut market = Market::new();
    for symbol in ["AAA", "BBB"] {
        trade(&mut market, symbol, "2024-03-10T13:30:00Z", "2024-03-10T14:30:00Z");
        trade(&mut market, symbol, FROM, TO);
    }
    market
}

impl World {
    /// A world whose table holds the bars of the market, except those that were lost.
    async fn new(market: &Market, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bars")).unwrap();
        let mut rows = "symbol,ts,open,high,low,close,volume\n".to_owned();
        for (symbol, of_symbol) in market {
            for (at, [open, high, low, close, volume]) in of_symbol.iter().filter(|(at, _)| !is_lost(**at)) {
                let ts = Timestamp::from_second(at * 60).unwrap();
                rows.push_str(&format!("{symbol},{ts},{open:?},{high:?},{low:?},{close:?},{volume:?}\n"));
            }
        }
        std::fs::write(folder.path().join("bars/all.csv"), rows).unwrap();
        let clock = Arc::new(Skips::starting_at("2024-03-12T00:00:00Z"));
        Self { folder, vendor: Vendor::start(answer).await, clock, variables: variables() }
    }

    fn workflow(&self, source: &str, symbols: &str) -> Workflow {
        let text = format!(
            "workflow: bars
kind: state-machine
tables:
  bars: {{ location: bars, format: csv, key: [symbol], time: ts, cadence: 1m }}
sources:
  market: {{ source: {source}, with: {{ base_url: '{}', rows_per_request: 20 }} }}
start: find
steps:
  find:
    detect: stocks.minute-gaps
    with: {{ table: bars, calendar: 24x7, symbols: [{symbols}], from: '{FROM}', to: '{TO}' }}
    next: fill
  fill:
    repair: stocks.backfill
    of: find
    with: {{ source: market }}
    retry: [{{ on: [throttled, transient, timeout], attempts: 3, interval: 1s }}]
    next: check
  check: {{ verify: find, end: true }}
",
            self.vendor.url
        );
        Workflow::parse("bars.yaml", &text, &registry(&self.variables)).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    fn engine(&self) -> Engine {
        let lake = LocalLake::open(self.folder.path()).unwrap();
        let journal = SqliteJournal::open(self.folder.path().join("runs.db")).unwrap();
        let mut engine = Engine::new(Arc::new(registry(&self.variables)), Arc::new(lake), Arc::new(journal));
        engine.clock = self.clock.clone();
        engine
    }

    async fn try_run(&self, run: &str, source: &str, symbols: &str) -> Result<RunReport> {
        let request = StartRequest::new(run);
        self.engine().start(&self.workflow(source, symbols), request).await
    }

    async fn run(&self, run: &str, source: &str, symbols: &str) -> RunReport {
        self.try_run(run, source, symbols).await.unwrap()
    }

    /// The files that hold repairs and exceptions.
    fn overlay(&self) -> Vec<PathBuf> {
        let kept = [overlay::repairs("bars"), overlay::exceptions("bars")];
        kept.iter().flat_map(|kept| testdata::paths(&self.folder.path().join(kept))).collect()
    }

    /// The repaired minutes of a symbol, from the repaired view.
    async fn repaired(&self, symbol: &str) -> Vec<i64> {
        let mut minutes: Vec<i64> =
            self.repaired_bars().await.into_iter().filter(|(of, ..)| of == symbol).map(|(_, minute, _)| minute).collect();
        minutes.sort_unstable();
        minutes
    }

    /// The repaired bars: symbol, minute, values.
    async fn repaired_bars(&self) -> Vec<(String, i64, [f64; 5])> {
        let table = repair_core::model::Table { format: repair_core::model::Format::Csv, partition_by: Vec::new(), ..bars() };
        let scan = ScanRequest::new(Layer::Repaired);
        let lake = LocalLake::open(self.folder.path()).unwrap();
        let batches: Vec<_> = lake.scan(&table, &scan).await.unwrap().try_collect().await.unwrap();
        let mut bars = Vec::new();
        for batch in batches {
            let by = batch.column_by_name(overlay::REPAIRED_BY).unwrap().as_string::<i32>();
            let symbols = batch.column_by_name("symbol").unwrap().as_string::<i32>();
            let times = batch.column_by_name("ts").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                if arrow::array::Array::is_valid(by, row) {
                    let bar = ["open", "high", "low", "close", "volume"].map(|name| crate::common::number(&batch, name, row).unwrap());
                    bars.push((symbols.value(row).to_owned(), times.value(row) / 60_000_000, bar));
                }
            }
        }
        bars
    }
}

/// An API that serves both vendors' shapes.
fn both(market: &Market, lie: Lie) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let (alpaca, massive) = (vendor::alpaca(market.clone(), 7, lie), vendor::massive(market.clone(), 7, lie));
    move |seen| if seen.url.path().starts_with("/v2/stocks/") { alpaca(seen) } else { massive(seen) }
}

const SOURCES: [&str; 2] = ["stocks.alpaca", "stocks.massive"];

fn output<'a>(report: &'a RunReport, step: &str, name: &str) -> &'a Value {
    &report.step(step).unwrap().output[name]
}

#[tokio::test]
async fn what_was_lost_is_asked_for_and_repaired() {
    for source in SOURCES {
        let world = World::new(&market(), both(&market(), Lie::None)).await;
        let report = world.run("run", source, "AAA, BBB").await;
        assert_eq!((report.outcome, &report.problems), (Some(Outcome::Succeeded), &Vec::new()));
        assert_eq!((output(&report, "fill", "repaired"), output(&report, "fill", "conflicts")), (&60.into(), &0.into()));
        assert_eq!(output(&report, "fill", "requests"), &Value::from(world.vendor.seen().len()), "each page is a request");
        let lost: Vec<i64> = (minute(FROM)..minute(TO)).filter(|minute| is_lost(*minute)).collect();
        assert_eq!((world.repaired("AAA").await, world.repaired("BBB").await), (lost.clone(), lost));
    }
}

#[tokio::test]
async fn a_source_that_lies_is_an_error_and_nothing_is_written() {
    for source in SOURCES {
        for lie in LIES {
            // These look true until they arrive a second time: see below.
            if lie == Lie::SameValues {
                continue;
            }
            let world = World::new(&market(), both(&market(), lie)).await;
            let report = world.run("run", source, "AAA, BBB").await;
            assert_eq!((report.outcome, report.error), (Some(Outcome::Failed), Some(ErrorKind::Invalid)), "{source} {lie:?}: {report:?}");
            assert_eq!((world.overlay(), world.repaired("AAA").await), (Vec::new(), Vec::new()), "{source} {lie:?}");
            let said = report.reason.unwrap();
            let words: &[&str] = match lie {
                Lie::IgnoresTheDate | Lie::Future => &["outside the requested"],
                Lie::AnotherSymbol => &["ZZZ"],
                Lie::NeverEnds | Lie::SamePage => &["does not end"],
                Lie::Html => &["<html>"],
                Lie::AnotherShape => &["not a page of bars (a", "at `/"],
                Lie::HighBelowLow => &["low 11 is above"],
                Lie::NegativeVolume => &["volume -5 is below 0"],
                Lie::OutOfOrder => &["out of order"],
                Lie::Twice => &["twice a row"],
                Lie::None | Lie::SameValues => &[],
            };
            assert!(words.iter().all(|word| said.contains(word)), "{source} {lie:?}: {said}");
            assert!(!said.contains(vendor::SECRET), "{said}");
        }
    }
}

#[tokio::test]
async fn no_lie_reaches_the_table_in_silence_through_either_api() {
    let truth = market();
    // Each run tries a part of the lies, and the long tests all of them.
    let step = testdata::by_length(6, 1);
    for (source, first) in SOURCES.into_iter().zip([0, 3]) {
        for &lie in lies::Lie::ALL.iter().skip(first % step).step_by(step) {
            let world = World::new(&truth, vendor::lying(&truth, lie)).await;
            let report = world.run("run", source, "AAA, BBB").await;
            let said = report.problems.join("; ");
            let is_true = world.repaired_bars().await.iter().all(|(symbol, minute, bar)| truth[symbol].get(minute) == Some(bar));
            let is_said = said.contains("the source differs from table") || lie.verdict() == lies::Verdict::Believed;
            assert!(is_true || is_said, "{source} {lie:?}: {said}");
            assert!(!said.contains(vendor::SECRET) && !said.contains('\u{1b}'), "{said}");
        }
    }
}

#[tokio::test]
async fn source_ignores_the_date() {
    for source in SOURCES {
        // The rows of another day are refused by their time.
        let world = World::new(&market(), both(&market(), Lie::IgnoresTheDate)).await;
        let report = world.run("run", source, "AAA").await;
        assert_eq!((report.error, world.overlay()), (Some(ErrorKind::Invalid), Vec::new()));
        // With the time changed to what was asked for, by their values: the second answer is that of the first again.
        let world = World::new(&market(), both(&market(), Lie::SameValues)).await;
        let report = world.run("run", source, "AAA").await;
        assert_eq!((report.outcome, report.error), (Some(Outcome::Failed), Some(ErrorKind::Invalid)), "{report:?}");
        assert!(report.reason.as_ref().unwrap().contains("the same values for AAA from"), "{report:?}");
        assert_eq!(output(&report, "fill", "failed"), &Value::from(1));
        // The first answer is believed, because nothing contradicts it, but its difference from the table on both sides is reported.
        assert!(report.problems.iter().any(|problem| problem.contains("the source differs from table `bars` in")), "{report:?}");
    }
}

#[tokio::test]
async fn silent_skip_is_not_absent() {
    for source in SOURCES {
        let quiet = minute("2024-03-11T13:40:00Z");
        let mut known = market();
        known.get_mut("AAA").unwrap().remove(&quiet);
        // The table held CCC, and the API leaves it out without a word.
        let mut held = market();
        held.insert("CCC".to_owned(), held["BBB"].clone());
        let world = World::new(&held, both(&known, Lie::None)).await;
        let report = world.run("run", source, "AAA, BBB, CCC").await;
        assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
        assert_eq!((output(&report, "fill", "absent"), output(&report, "fill", "repaired")), (&1.into(), &59.into()));
        assert_eq!((output(&report, "fill", "failed"), output(&report, "check", "missing")), (&0.into(), &30.into()), "CCC's stay missing");
        assert!(world.repaired("CCC").await.is_empty());
    }
}

#[tokio::test]
async fn absent_is_not_failed() {
    for source in SOURCES {
        let mut known = market();
        for symbol in ["AAA", "BBB"] {
            known.get_mut(symbol).unwrap().retain(|at, _| at % 5 != 0 || !is_lost(*at));
        }
        let world = World::new(&market(), both(&known, Lie::None)).await;
        let report = world.run("run", source, "AAA, BBB").await;
        // A minute in which nothing traded is no failure, no skip, and no exception of the run.
        assert_eq!((report.outcome, &report.problems), (Some(Outcome::Succeeded), &Vec::new()));
        for (name, count) in [("absent", 12), ("repaired", 48), ("failed", 0), ("pending", 0), ("unresolved", 0)] {
            assert_eq!(output(&report, "fill", name), &Value::from(count), "{name}");
        }
        assert_eq!((output(&report, "check", "absent"), output(&report, "check", "missing")), (&12.into(), &0.into()));
    }
}

#[tokio::test]
async fn absence_expires() {
    for source in SOURCES {
        let mut known = market();
        let quiet = minute("2024-03-11T13:40:00Z");
        let late = known.get_mut("AAA").unwrap().remove(&quiet).unwrap();
        let (early, later) = (both(&known, Lie::None), both(&market(), Lie::None));
        let came = Arc::new(AtomicBool::new(false));
        let has_come = came.clone();
        let world = World::new(&market(), move |seen| if has_come.load(Ordering::SeqCst) { later(seen) } else { early(seen) }).await;
        let first = world.run("first", source, "AAA").await;
        assert_eq!((first.outcome, output(&first, "fill", "absent")), (Some(Outcome::Succeeded), &1.into()));
        let asked = world.vendor.seen().len();
        // As long as the evidence holds, nobody is asked again, though the source has the bar by now.
        came.store(true, Ordering::SeqCst);
        world.clock.pass(29);
        let second = world.run("second", source, "AAA").await;
        assert_eq!((output(&second, "find", "absent"), output(&second, "find", "missing")), (&1.into(), &0.into()));
        assert_eq!(world.vendor.seen().len(), asked);
        // Then it is.
        world.clock.pass(2);
        let third = world.run("third", source, "AAA").await;
        assert_eq!((output(&third, "find", "missing"), output(&third, "fill", "repaired")), (&1.into(), &1.into()));
        assert!(world.vendor.seen().len() > asked && world.repaired("AAA").await.contains(&quiet), "{late:?}");
    }
}

#[tokio::test]
async fn no_endless_retry() {
    for source in SOURCES {
        let world = World::new(&market(), |_| Reply::new(503, "text/plain", "")).await;
        let report = world.run("run", source, "AAA").await;
        assert_eq!((report.outcome, report.error), (Some(Outcome::Failed), Some(ErrorKind::Transient)));
        // Two units, each asked once and then three times more.
        assert_eq!(world.vendor.seen().len(), 8);
        let again = world.engine().resume("run").await;
        assert!(again.is_err() || again.unwrap().outcome == Some(Outcome::Failed));
        assert_eq!(world.vendor.seen().len(), 8, "a run that failed asks no more");
    }
}

#[tokio::test]
async fn a_throttled_run_waits_as_long_as_the_api_asks() {
    let refused = Arc::new(Mutex::new(2));
    let (left, answer) = (refused.clone(), both(&market(), Lie::None));
    let world = World::new(&market(), move |seen| {
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Reply::new(429, "text/plain", "too many requests").with("Retry-After", &600);
        }
        answer(seen)
    })
    .await;
    let before = world.clock.now();
    let report = world.run("run", "stocks.alpaca", "AAA").await;
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    let waited = world.clock.now().duration_since(before).as_secs();
    assert!((600..1_300).contains(&waited), "{waited} s");
}

#[tokio::test]
async fn neighbours_that_differ_are_shown() {
    let mut known = market();
    let beside = minute(HOLES[0].0) - 1;
    known.get_mut("AAA").unwrap().get_mut(&beside).unwrap()[4] = 9_999.0;
    let world = World::new(&market(), both(&known, Lie::None)).await;
    let report = world.run("run", "stocks.massive", "AAA, BBB").await;
    assert_eq!((output(&report, "fill", "repaired"), output(&report, "fill", "conflicts")), (&60.into(), &1.into()));
    let told = "fill: the source differs from table `bars` in 1 slot next to gaps: AAA at 2024-03-11T13:34:00Z: volume is 104.0 in the table, 9999.0 in the source";
    assert_eq!(report.problems, [told]);
    assert!(!world.repaired("AAA").await.contains(&beside), "the table's row stays");
}

#[tokio::test]
async fn a_missing_key_is_reported_before_the_run_begins() {
    for (source, variable) in [("stocks.alpaca", "APCA_API_KEY_ID"), ("stocks.massive", "MASSIVE_API_KEY")] {
        let mut world = World::new(&market(), both(&market(), Lie::None)).await;
        world.variables = with_variables(&[]);
        let error = world.try_run("run", source, "AAA").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.full().contains(variable) && error.full().contains("market"), "{}", error.full());
        assert!(world.vendor.seen().is_empty());
    }
}

#[tokio::test]
async fn keys_are_in_no_file_of_the_lake() {
    for (source, answer) in [("stocks.alpaca", 200), ("stocks.massive", 500)] {
        let healthy = both(&market(), Lie::None);
        let echo = move |seen: &Seen| if answer == 200 { healthy(seen) } else { Reply::new(answer, "text/plain", vendor::SECRET) };
        let world = World::new(&market(), echo).await;
        world.run("run", source, "AAA").await;
        let all = testdata::files(world.folder.path());
        assert!(all.len() > 2);
        for (file, bytes) in all {
            let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!holds(vendor::SECRET) && !holds(vendor::KEY_ID), "{}", file.display());
        }
    }
}
