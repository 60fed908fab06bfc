//! The life of runs as the driver leads it, in memory and in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{rows, table};
use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use repair_core::engine::Event;
use repair_core::engine::{
    Engine, EngineOptions, Fold, Journal, ListedRun, Outcome, Recorded, RunHead, RunReport, RunState, Signal, StartRequest, child_run_id,
    load, load_whole,
};
use repair_core::lake::{Overlay, StageScope};
use repair_core::model::Usage;
use repair_core::model::{Counts, Findings, Fix, GapList, Interval, Key, Scope, SlotRange, Unit, Wanted};
use repair_core::plugin::{Answer, Clock, Detector, Limits, PlannedUnits, Registry, Repairer, Request, Sensor, Source, StepContext, Task};
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::EVALUATOR;
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Hint, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the plug-ins of these tests did, and in how many are at it.
#[derive(Default)]
struct Seen {
    calls: Mutex<Vec<String>>,
    repaired: AtomicU32,
}

impl Seen {
    fn call(&self, what: String) {
        self.calls.lock().unwrap().push(what);
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
struct Config {
    /// How long it takes, in seconds.
    #[serde(default)]
    takes_s: i64,
    /// How often it gives a sign of life, in seconds; never, if 0.
    #[serde(default)]
    beats_s: i64,
    /// The attempts of a visit that fail, and with which kind.
    #[serde(default)]
    fails: BTreeMap<String, String>,
    /// Does not listen when it is told to stop.
    #[serde(default)]
    deaf: bool,
    /// Panics.
    #[serde(default)]
    panics: bool,
    /// Plans other units on another day.
    #[serde(default)]
    by_day: bool,
    /// How many slots it finds to have been repaired before their rows came.
    #[serde(default)]
    overtaken: u64,
    /// How often a detector asks the source.
    #[serde(default)]
    asks: u64,
}

/// A source that answers nothing; every third request gets no answer.
struct Sells(Arc<Seen>);

#[async_trait]
impl Source for Sells {
    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn requests_at_worst(&self) -> u64 {
        2
    }

    async fn fetch(&self, context: &StepContext, _: &Request) -> Result<Answer> {
        self.0.call("asked".to_owned());
        pass(context, 5, false).await?;
        if self.0.calls().len().is_multiple_of(3) { Err(Error::new(ErrorKind::Throttled, "too many")) } else { Ok(Answer::new(Vec::new())) }
    }
}

struct Does(Arc<Seen>, Config);

async fn pass(context: &StepContext, seconds: i64, deaf: bool) -> Result<()> {
    let due = context.clock.now().checked_add(SignedDuration::from_secs(seconds)).unwrap();
    tokio::select! {
        () = context.clock.sleep_until(due) => Ok(()),
        () = context.cancel.cancelled(), if !deaf => context.check_cancelled(),
    }
}

#[async_trait]
impl Task for Does {
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        let Self(seen, config) = self;
        seen.call(format!("{} {}.{}", context.step, context.visit, context.attempt));
        assert!(!config.panics, "as it was told");
        if let Some(kind) = config.fails.get(&context.attempt.to_string()) {
            return Err(Error::new(kind.parse().unwrap(), "it was to fail"));
        }
        let mut left = config.takes_s;
        while left > 0 {
            let piece = if config.beats_s > 0 { left.min(config.beats_s) } else { left };
            pass(context, piece, config.deaf).await?;
            context.beat();
            left -= piece;
        }
        Ok((json!({ "at": context.clock.now() }), Usage { rows_read: 1, ..Usage::default() }))
    }
}

struct Looks(Config);

#[async_trait]
impl Detector for Looks {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let interval = Interval::parse("1970-01-01", "1970-01-01").unwrap();
        for _ in 0..self.0.asks {
            context.source("market")?.fetch(context, &Request::new(table(), vec![Key::from("K")], interval)).await?;
        }
        let mut gaps = GapList::default();
        if again.is_none() {
            gaps.push(&Key::from("K"), SlotRange::new(0, 20));
        }
        let missing = gaps.missing();
        let (gaps_found, overtaken) = (gaps.len() as u64, self.0.overtaken);
        let counts =
            Counts { expected: 20, missing, present: 20 - missing, gaps: gaps_found, overtaken, audited_keys: 1, ..Counts::default() };
        let scope = Scope {
            table: "bars".to_owned(),
            grid: table().grid().unwrap(),
            keys: vec![Key::from("K")],
            interval,
            calendar: "24x7".to_owned(),
            lifetimes: Default::default(),
        };
        Ok(Findings::of_gaps(scope, counts, gaps, Usage::default()))
    }
}

struct Repairs(Arc<Seen>, Config);

#[async_trait]
impl Repairer for Repairs {
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let grid = findings.scope.grid;
        let today = context.clock.now().duration_since(BASE.parse().unwrap()).as_hours() / 24;
        let first = if self.1.by_day { today * 20 } else { 0 };
        let gaps: Vec<i64> = findings.gaps.iter().flat_map(|(_, slots)| slots.first..slots.end).collect();
        Ok(Box::new(gaps.into_iter().map(move |slot| {
            let slot = slot + first;
            let slots = SlotRange::new(slot, slot + 1);
            Ok(Unit { interval: grid.interval_of(slots).unwrap(), wanted: vec![Wanted { key: Key::from("K"), slots: vec![slots] }] })
        })))
    }

    async fn repair(&self, context: &StepContext, _: &Findings, unit: &Unit) -> Result<Fix> {
        let Self(seen, config) = self;
        let slot = unit.wanted[0].slots[0].first;
        seen.call(format!("unit {slot}"));
        if slot == 7
            && let Some(kind) = config.fails.get(&context.attempt.to_string())
        {
            return Err(Error::new(kind.parse().unwrap(), "unit 7 was to fail"));
        }
        pass(context, config.takes_s, config.deaf).await?;
        seen.repaired.fetch_add(1, Ordering::SeqCst);
        Ok(Fix {
            rows: vec![rows(&[slot])],
            source: "test".to_owned(),
            usage: Usage { source_requests: 1, ..Usage::default() },
            ..Fix::default()
        })
    }
}

struct Senses(Timestamp);

#[async_trait]
impl Sensor for Senses {
    async fn sense(&self, context: &StepContext) -> Result<Value> {
        Ok(json!({ "there": context.clock.now() >= self.0 }))
    }
}

/// A world in which processes come and go.
struct World {
    journal: MemoryJournal,
    lake: MemoryLake,
    seen: Arc<Seen>,
    clock: VirtualClock,
    registry: Arc<Registry>,
}

const BASE: &str = "2024-03-04T09:00:00Z";
const TABLES: &str = "tables: { bars: { location: bars, format: parquet, key: [key], time: ts, cadence: 1m } }";

impl World {
    fn new() -> Self {
        let base: Timestamp = BASE.parse().unwrap();
        let (seen, lake) = (Arc::new(Seen::default()), MemoryLake::default());
        lake.put_table(&table(), &[rows(&[])]).unwrap();
        let mut registry = Registry::default();
        let (does, repairs) = (seen.clone(), seen.clone());
        registry.task("do", "does", move |config: Config| Ok(Does(does.clone(), config)));
        registry.detector("look", "looks", |config: Config| Ok(Looks(config)));
        registry.repairer("fix", "repairs", move |config: Config| Ok(Repairs(repairs.clone(), config)));
        let sells = seen.clone();
        registry.source("sell", "sells", move |_: Config| Ok(Sells(sells.clone())));
        registry.sensor("sense", "senses", move |config: Config| {
            Ok(Senses(base.checked_add(SignedDuration::from_secs(config.takes_s)).unwrap()))
        });
        Self { journal: MemoryJournal::default(), lake, seen, clock: VirtualClock::starting_at(base), registry: Arc::new(registry) }
    }

    /// A process of its own.
    fn engine(&self) -> Engine {
        let mut engine = Engine::new(self.registry.clone(), Arc::new(self.lake.clone()), Arc::new(self.journal.clone()));
        engine.clock = Arc::new(self.clock);
        engine.options = EngineOptions::default()
            .with_lease(Duration::from_secs(30))
            .with_poll(Duration::from_secs(1))
            .with_grace(Duration::from_secs(5));
        engine
    }

    fn parse(&self, text: &str) -> Workflow {
        let kind = if text.contains("after:") { "dag" } else { "state-machine" };
        let children = BTreeMap::from([("child.yaml".to_owned(), CHILD.to_owned())]);
        Workflow::parse_with("w.yaml", &format!("workflow: w\nkind: {kind}\n{TABLES}\n{text}"), &self.registry, &children)
            .unwrap_or_else(|told| panic!("{told}"))
    }

    fn request(run: &str) -> StartRequest {
        StartRequest::new(run)
    }

    async fn run(&self, text: &str) -> RunReport {
        self.engine().start(&self.parse(text), Self::request("run")).await.unwrap()
    }

    async fn state(&self) -> RunState {
        load(&self.journal, "run").await.unwrap()
    }

    async fn events(&self, run: &str) -> Vec<Recorded> {
        self.journal.read(run, 0, usize::MAX).await.unwrap()
    }

    fn passed_s(&self) -> i64 {
        self.clock.now().duration_since(BASE.parse().unwrap()).as_secs()
    }
}

const CHILD: &str = "workflow: child\nkind: state-machine\nstart: x\nsteps:\n  x: { task: do, with: { takes_s: 100 }, next: y }\n  y: { task: do, with: { fails: { '1': denied } }, end: true }\n";

#[tokio::test(start_paused = true)]
async fn a_wait_of_two_days_survives_a_restart_and_fires_at_its_instant() {
    let world = World::new();
    let workflow = world.parse("start: settle\nsteps:\n  settle: { wait: { for: 2d }, next: sum }\n  sum: { task: do, end: true }");
    let first = world.engine();
    let stop = first.stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        stop.cancel();
    });
    let error = first.start(&workflow, World::request("run")).await.unwrap_err();
    assert_eq!((error.kind(), world.passed_s()), (ErrorKind::Cancelled, 86_400));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let report = world.engine().resume("run").await.unwrap();
    assert_eq!((report.outcome, world.passed_s()), (Some(Outcome::Succeeded), 2 * 86_400));
    assert_eq!(report.step("sum").unwrap().output["at"], "2024-03-06T09:00:00Z");

    // Down for longer than the wait: it fires late rather than never.
    let world = World::new();
    let first = world.engine();
    first.stop.cancel();
    assert!(first.start(&workflow, World::request("run")).await.is_err());
    tokio::time::sleep(Duration::from_secs(3 * 86_400)).await;
    world.engine().resume("run").await.unwrap();
    assert_eq!(world.passed_s(), 3 * 86_400);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_stops_beating_is_timed_out_and_tried_again() {
    let text = |beats: u32| {
        format!(
            "start: a\nsteps:\n  a: {{ task: do, with: {{ takes_s: 100, beats_s: {beats}, deaf: true }}, heartbeat: 10s, retry: [{{ on: timeout, attempts: 1, interval: 0s }}], end: true }}"
        )
    };
    let world = World::new();
    let report = world.run(&text(5)).await;
    assert_eq!((report.outcome, world.passed_s(), world.seen.calls().len()), (Some(Outcome::Succeeded), 100, 1));
    let world = World::new();
    let report = world.run(&text(0)).await;
    assert_eq!((report.outcome, report.error), (Some(Outcome::Failed), Some(ErrorKind::Timeout)));
    assert!(report.reason.unwrap().contains("no heartbeat for 10s"));
    // Ten seconds without a beat, five of grace, twice.
    assert_eq!((world.seen.calls(), world.passed_s()), (vec!["a 1.1".to_owned(), "a 1.2".to_owned()], 30));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_takes_too_long_is_told_to_stop() {
    let world = World::new();
    let report = world
        .run("start: a\nsteps:\n  a: { task: do, with: { takes_s: 100 }, timeout: 10s, catch: [{ on: timeout, goto: b }], end: true }\n  b: { task: do, end: true }")
        .await;
    assert_eq!((report.outcome, world.passed_s()), (Some(Outcome::SucceededWithExceptions), 10));
}

const FILL: &str = "start: look\nsteps:\n  look: { detect: look, next: fill }\n  fill: { repair: fix, of: look, concurrency: 4, with: { takes_s: 10, fails: { '1': transient } }, retry: [{ on: transient, attempts: 2 }], next: check }\n  check: { verify: look, end: true }";

#[tokio::test(start_paused = true)]
async fn a_repair_tries_again_only_what_failed_and_publishes_the_rest() {
    let world = World::new();
    let report = world.run(FILL).await;
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?}", report.problems);
    assert_eq!(world.seen.calls().iter().filter(|call| *call == "unit 7").count(), 2);
    assert_eq!((world.seen.calls().len(), report.usage.source_requests), (21, 20));
    assert_eq!(world.lake.rows(&table(), repair_core::lake::Layer::Repaired).unwrap().num_rows(), 20);
}

#[tokio::test(start_paused = true)]
async fn retry_same_batches() {
    let world = World::new();
    let workflow = world.parse(&FILL.replace("takes_s: 10", "takes_s: 10, by_day: true"));
    let engine = world.engine();
    let stop = engine.stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(15)).await;
        stop.cancel();
    });
    assert!(engine.start(&workflow, World::request("run")).await.is_err());
    tokio::time::sleep(Duration::from_secs(3 * 86_400)).await;
    let report = world.engine().resume("run").await.unwrap();
    assert_eq!((report.outcome, report.usage.source_requests), (Some(Outcome::Succeeded), 20));
    let worked_on: BTreeSet<String> = world.seen.calls().into_iter().collect();
    assert_eq!(worked_on, (0..20).map(|unit| format!("unit {unit}")).collect(), "what a run works on is fixed when it is planned");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_tells_what_is_under_way_waits_and_accounts() {
    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse(FILL));
    let driven = tokio::spawn(async move { engine.start(&workflow, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(15)).await;
    // Another process asks; the one that drives sees it, stops, and ends the run.
    assert!(world.engine().cancel("run").await.unwrap().is_none());
    let report = driven.await.unwrap().unwrap();
    assert_eq!(report.outcome, Some(Outcome::Cancelled));
    let state = world.state().await;
    let units = state.steps["fill"].units.as_ref().unwrap();
    assert_eq!(units.pending() + units.staged() + units.published() + units.failed(), 20);
    assert_eq!((units.published(), units.staged()), (4, 0), "what was paid for by then is seen by readers");
    assert_eq!((report.usage.source_requests, world.seen.repaired.load(Ordering::SeqCst)), (4, 4));
    assert!(world.engine().cancel("run").await.unwrap_err().message().contains("has already ended: cancelled"));
    // It can be taken up again, and does the rest.
    let report = world.engine().redrive("run", None).await.unwrap();
    assert_eq!((report.outcome, report.usage.source_requests), (Some(Outcome::Succeeded), 20));
}

#[tokio::test(start_paused = true)]
async fn a_paused_run_goes_on_where_it_was() {
    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse(FILL));
    let driven = tokio::spawn(async move { engine.start(&workflow, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(world.engine().pause("run").await.unwrap().is_none());
    let report = driven.await.unwrap().unwrap();
    assert_eq!((report.outcome, report.reason.as_deref()), (None, Some("the run is paused")));
    let report = world.engine().resume("run").await.unwrap();
    assert_eq!((report.outcome, report.usage.source_requests), (Some(Outcome::Succeeded), 20));
    // Without a driver, a run is stopped by who asks.
    let world = World::new();
    let engine = world.engine();
    engine.stop.cancel();
    assert!(engine.start(&world.parse(FILL), World::request("run")).await.is_err());
    let report = world.engine().cancel("run").await.unwrap().unwrap();
    assert_eq!(report.outcome, Some(Outcome::Cancelled));
    assert!(world.seen.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_drivers() {
    let world = World::new();
    let workflow = world.parse("start: a\nsteps:\n  a: { task: do, with: { takes_s: 600 }, end: true }");
    let (first, for_first) = (world.engine(), workflow.clone());
    let driven = tokio::spawn(async move { first.start(&for_first, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(100)).await;
    // The first renews its lease, so the second sees that it is alive, and nothing is written.
    let before = world.events("run").await.len();
    let error = world.engine().resume("run").await.unwrap_err();
    assert_eq!((error.kind(), error.remedy()), (ErrorKind::Conflict, Some(&Hint::DrivenElsewhere { run: "run".to_owned() })));
    let passed_s = world.passed_s();
    assert!((101..=111).contains(&passed_s), "{passed_s}");
    assert_eq!(world.events("run").await.len(), before);
    // The first dies without a word. Who is to stop does not wait, and the second takes over when the lease has expired.
    driven.abort();
    let _ = driven.await;
    let stopped = world.engine();
    stopped.stop.cancel();
    let cancelled = stopped.resume("run").await.unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled, "{cancelled}");
    assert_eq!(world.passed_s(), passed_s);
    let report = world.engine().resume("run").await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded));
    assert_eq!(world.seen.calls(), ["a 1.1", "a 1.1"], "the attempt that died with its driver is done again");
}

/// A journal that cannot be reached for a while: requests of some kinds fail, or are not answered.
struct Unreachable {
    journal: MemoryJournal,
    clock: VirtualClock,
    /// From when to when, in seconds since the start.
    outage: std::ops::Range<i64>,
    appends_too: bool,
    answers: bool,
}

impl Unreachable {
    async fn reach(&self) -> Result<()> {
        let passed_s = self.clock.now().duration_since(BASE.parse().unwrap()).as_secs();
        if !self.outage.contains(&passed_s) {
            return Ok(());
        }
        if !self.answers {
            std::future::pending::<()>().await;
        }
        Err(Error::new(ErrorKind::Throttled, "slow down"))
    }
}

#[async_trait]
impl Journal for Unreachable {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        if self.appends_too {
            self.reach().await?;
        }
        self.journal.append(run, expected, at, events).await
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
        self.journal.read(run, from, limit).await
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        self.journal.runs().await
    }

    async fn listed(&self, now: Timestamp) -> Result<Vec<ListedRun>> {
        self.journal.listed(now).await
    }

    async fn keep(&self, run: &str, fold: Fold) -> Result<()> {
        self.journal.keep(run, fold).await
    }

    async fn kept(&self, run: &str) -> Result<Option<Fold>> {
        self.journal.kept(run).await
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        self.reach().await?;
        self.journal.acquire(run, driver, now, ttl).await
    }

    async fn release(&self, run: &str, driver: &str) -> Result<()> {
        self.journal.release(run, driver).await
    }

    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
        self.journal.driver(run, now).await
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
        self.reach().await?;
        self.journal.signal(run, signal).await
    }

    async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
        self.reach().await?;
        self.journal.signaled(run).await
    }
}

/// A driver polls and renews its lease in vain for as long as the lease lasts, whether the journal refuses or is silent. Beyond that it must
/// stop, which is not the end of the run.
#[tokio::test(start_paused = true)]
async fn a_journal_out_of_reach_stops_a_driver_only_when_its_lease_expires() {
    for answers in [true, false] {
        for (outage, appends_too, goes_on) in
            [(100..115, false, true), (100..150, false, false), (90..99, true, true), (599..601, true, false)]
        {
            let world = World::new();
            let workflow = world.parse("start: a\nsteps:\n  a: { task: do, with: { takes_s: 600 }, end: true }");
            let mut engine = world.engine();
            // A silent journal would hold up an append for ever.
            let answers = answers || appends_too;
            engine.journal = Arc::new(Unreachable { journal: world.journal.clone(), clock: world.clock, outage, appends_too, answers });
            let driven = engine.start(&workflow, World::request("run")).await;
            if goes_on {
                assert_eq!((driven.unwrap().outcome, world.passed_s()), (Some(Outcome::Succeeded), 600));
                continue;
            }
            let error = driven.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Transient | ErrorKind::Throttled), "{error}");
            assert_eq!(error.remedy(), Some(&Hint::Resume { run: "run".to_owned() }), "{error}");
            assert!(appends_too || (120..=135).contains(&world.passed_s()), "{}", world.passed_s());
            assert_eq!(world.engine().resume("run").await.unwrap().outcome, Some(Outcome::Succeeded));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_was_overtaken_can_write_nothing_more() {
    let world = World::new();
    let workflow = world.parse("start: a\nsteps:\n  a: { task: do, with: { takes_s: 600 }, end: true }");
    let (first, for_first) = (world.engine(), workflow.clone());
    let driven = tokio::spawn(async move { first.start(&for_first, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(100)).await;
    // As if it had been asleep for longer than its lease.
    world.journal.all_drivers_died();
    let report = world.engine().resume("run").await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded));
    let error = driven.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let succeeded = world.events("run").await.iter().filter(|recorded| matches!(recorded.event, Event::StepSucceeded { .. })).count();
    assert_eq!(succeeded, 1);
}

#[tokio::test(start_paused = true)]
async fn starting_twice_is_starting_once() {
    let world = World::new();
    let workflow = world.parse("start: a\nsteps:\n  a: { task: do, end: true }");
    let first = world.engine().start(&workflow, World::request("run")).await.unwrap();
    let events = world.events("run").await.len();
    assert_eq!(world.engine().start(&workflow, World::request("run")).await.unwrap(), first);
    assert_eq!((world.events("run").await.len(), world.seen.calls().len()), (events, 1));
    let other = world.parse("start: a\nsteps:\n  a: { task: do, with: { takes_s: 1 }, end: true }");
    let error = world.engine().start(&other, World::request("run")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(world.engine().start(&workflow, World::request("../run")).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(world.engine().resume("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn several_runs_at_once_in_one_process() {
    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse(FILL));
    let runs: Vec<String> = (0..20).map(|run| format!("run-{run}")).collect();
    let reports = futures::future::join_all(runs.iter().map(|run| engine.start(&workflow, World::request(run)))).await;
    assert!(reports.iter().all(|report| report.as_ref().unwrap().outcome == Some(Outcome::Succeeded)));
    assert!(world.passed_s() < 120, "they took turns: {} s", world.passed_s());
}

#[tokio::test(start_paused = true)]
async fn a_workflow_within_a_workflow_is_a_run_of_its_own() {
    let world = World::new();
    let workflow =
        world.parse("start: a\nsteps:\n  a: { workflow: child.yaml, retry: [{ on: any, attempts: 1, interval: 0s }], end: true }");
    let report = world.engine().start(&workflow, World::request("run")).await.unwrap();
    assert_eq!((report.outcome, report.error), (Some(Outcome::Succeeded), None), "{:?}", report.problems);
    // Tried again, it was redriven: what had succeeded in it was not done again.
    assert_eq!(world.seen.calls(), ["x 1.1", "y 1.1", "y 1.2"]);
    let child = child_run_id("run", "a", 1);
    assert_eq!(report.step("a").unwrap().output["run"], json!(child));

    // To cancel the outer run is to cancel the inner one.
    let world = World::new();
    let (engine, for_engine) = (world.engine(), workflow.clone());
    let driven = tokio::spawn(async move { engine.start(&for_engine, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(50)).await;
    world.engine().cancel("run").await.unwrap();
    assert_eq!(driven.await.unwrap().unwrap().outcome, Some(Outcome::Cancelled));
    let inner = load(&world.journal, &child).await.unwrap();
    assert_eq!(inner.ended.unwrap().outcome, Outcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_sensor_is_polled_until_its_condition_holds_or_its_time_is_over() {
    let text = |comes: u32| {
        format!(
            "start: a\nsteps:\n  a: {{ wait: {{ until: {{ sensor: sense, with: {{ takes_s: {comes} }}, when: $output.there, every: 7s, timeout: 1m }} }}, catch: [{{ on: timeout, goto: b }}], end: true }}\n  b: {{ task: do, end: true }}"
        )
    };
    let world = World::new();
    let report = world.run(&text(30)).await;
    assert_eq!((report.outcome, world.passed_s()), (Some(Outcome::Succeeded), 35));
    let world = World::new();
    let report = world.run(&text(90)).await;
    assert_eq!((report.outcome, world.passed_s()), (Some(Outcome::SucceededWithExceptions), 56), "another look would come too late");
}

#[tokio::test(start_paused = true)]
async fn stuck_pending() {
    // A plug-in that panics fails its step, and nothing hangs.
    let world = World::new();
    let report = world.run("start: a\nsteps:\n  a: { task: do, with: { panics: true }, end: true }").await;
    assert_eq!((report.outcome, report.error), (Some(Outcome::Failed), Some(ErrorKind::Internal)));
    assert!(report.reason.unwrap().contains("a plug-in panicked"));
    // One that does not listen is ended once its grace is over, and the run goes on without it.
    let world = World::new();
    let report = world.run("timeout: 20s\nstart: a\nsteps:\n  a: { task: do, with: { takes_s: 100000, deaf: true }, end: true }").await;
    assert_eq!((report.outcome, report.error, world.passed_s()), (Some(Outcome::Failed), Some(ErrorKind::Timeout), 25));
    // What a run waits for is told.
    let world = World::new();
    let engine = world.engine();
    let stop = engine.stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
    });
    let workflow = world.parse("start: a\nsteps:\n  a: { wait: { for: 1h }, end: true }");
    assert!(engine.start(&workflow, World::request("run")).await.is_err());
    assert_eq!(RunReport::new("run", &world.state().await).reason.as_deref(), Some("`a` waits until 2024-03-04T10:00:00Z"));
}

#[tokio::test(start_paused = true)]
async fn steps_of_a_dag_run_side_by_side() {
    let world = World::new();
    let steps: String = (0..8).map(|step| format!("  s{step}: {{ task: do, with: {{ takes_s: 60 }} }}\n")).collect();
    let report = world.run(&format!("max_parallel: 4\nsteps:\n{steps}  last: {{ task: do, after: [s0, s7] }}")).await;
    assert_eq!((report.outcome, world.passed_s()), (Some(Outcome::Succeeded), 120));
}

/// Journals written by every version of the event format that there was. Old ones must always fold; a new version adds its own.
/// `GOLDEN_UPDATE=1 cargo test -p repair-core --test it driver:: golden` writes those that are not there yet, and never an old one anew.
#[tokio::test(start_paused = true)]
async fn golden_journals_always_fold() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if std::env::var_os("GOLDEN_UPDATE").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, events) in histories().await {
            let file = folder.join(format!("format-1-{name}.jsonl"));
            if !file.exists() {
                let lines: Vec<String> = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
                std::fs::write(file, lines.join("\n") + "\n").unwrap();
            }
        }
    }
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut kinds = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let events: Vec<Recorded> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            kinds.insert(event["event"]["kind"].as_str().unwrap().to_owned());
        }
        let state = RunState::fold(&events).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let report = serde_json::to_value(RunReport::new("run", &state)).unwrap();
        insta::assert_snapshot!(file.file_stem().unwrap().to_str().unwrap(), serde_json::to_string_pretty(&report).unwrap());
    }
    let known = [
        "run-started",
        "driver-started",
        "stop-requested",
        "run-paused",
        "run-redriven",
        "definition-replaced",
        "step-entered",
        "branches-started",
        "branch-ended",
        "step-settled",
        "timer-set",
        "items-planned",
        "inner-spend",
        "inner-missing",
        "item-ended",
        "units-planned",
        "units-reserved",
        "units-ended",
        "request-ended",
        "units-lost",
        "late-truth",
        "publish-started",
        "publish-ended",
        "strategy-ended",
        "step-succeeded",
        "step-failed",
        "retry-scheduled",
        "moved",
        "run-ended",
    ];
    let known: BTreeSet<String> = known.into_iter().map(str::to_owned).collect();
    assert_eq!(kinds, known, "every kind of event is in some golden journal");
}

/// A journal that counts the events that are read.
struct Reads(MemoryJournal, AtomicU64);

#[async_trait]
impl Journal for Reads {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        self.0.append(run, expected, at, events).await
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
        let page = self.0.read(run, from, limit).await?;
        self.1.fetch_add(page.len() as u64, Ordering::SeqCst);
        Ok(page)
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        self.0.runs().await
    }

    async fn listed(&self, now: Timestamp) -> Result<Vec<ListedRun>> {
        self.0.listed(now).await
    }

    async fn keep(&self, run: &str, fold: Fold) -> Result<()> {
        self.0.keep(run, fold).await
    }

    async fn kept(&self, run: &str) -> Result<Option<Fold>> {
        self.0.kept(run).await
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        self.0.acquire(run, driver, now, ttl).await
    }

    async fn release(&self, run: &str, driver: &str) -> Result<()> {
        self.0.release(run, driver).await
    }

    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
        self.0.driver(run, now).await
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
        self.0.signal(run, signal).await
    }

    async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
        self.0.signaled(run).await
    }
}

/// Whoever resumes a long run reads only the events since the state was kept; what is kept may be lost, or be of anything else.
#[tokio::test(start_paused = true)]
async fn a_long_run_is_resumed_without_reading_all_of_its_events() {
    const EVERY: u64 = 100;
    let world = World::new();
    let text = "start: a\nsteps:\n  a: { task: do, next: [{ when: $visits < 1000, goto: a }, { goto: b }] }\n  b: { wait: { for: 1h }, end: true }";
    let workflow = world.parse(text);
    let mut engine = world.engine();
    engine.options = engine.options.with_keep_every(EVERY);
    let driven = tokio::spawn(async move { engine.start(&workflow, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    driven.abort();
    let events = world.events("run").await.len() as u64;
    assert!(events > 3_000, "{events}");
    let (whole, kept) = (load_whole(&world.journal, "run").await.unwrap(), world.journal.kept("run").await.unwrap().unwrap());
    assert!(events - kept.events <= 2 * EVERY, "{} of {events} events are kept", kept.events);
    let reading = async |fold: Option<Fold>, most: u64| {
        world.journal.keep("run", fold.unwrap_or(Fold { events: 0, state: String::new() })).await.unwrap();
        let journal = Reads(world.journal.clone(), AtomicU64::new(0));
        assert_eq!(load(&journal, "run").await.unwrap(), whole);
        let read = journal.1.into_inner();
        assert!(read <= most, "{read} of {events} events were read");
        read
    };
    reading(Some(kept.clone()), 2 * EVERY).await;
    // Of another number, another run, another program; damaged; none at all.
    let other_run = kept.state.replacen("\"run\":\"run\"", "\"run\":\"ran\"", 1);
    let other_program = kept.state.replacen("\"folded_by\":", "\"folded_by\":1", 1);
    assert!(other_run != kept.state && other_program != kept.state);
    let cut: String = kept.state.chars().take(kept.state.len() / 2).collect();
    for fold in [
        Some(Fold { events: kept.events - 1, ..kept.clone() }),
        Some(Fold { events: kept.events + 1, ..kept.clone() }),
        Some(Fold { state: other_run, ..kept.clone() }),
        Some(Fold { state: other_program, ..kept.clone() }),
        Some(Fold { state: cut, ..kept.clone() }),
        // What the events do not follow from, although it is well formed.
        Some(Fold {
            state: kept.state.replace("\"active\":{\"a\"", "\"active\":{\"c\"").replace("\"active\":{\"b\"", "\"active\":{\"c\""),
            ..kept.clone()
        }),
        None,
    ] {
        assert!(reading(fold, 2 * events).await >= events);
    }
    // And it goes on.
    tokio::time::sleep(Duration::from_secs(31)).await;
    world.journal.keep("run", kept).await.unwrap();
    assert_eq!(world.engine().resume("run").await.unwrap().outcome, Some(Outcome::Succeeded));
}

/// A run whose process was killed, that lost two of its four staged units, and that was resumed.
async fn after_a_loss() -> World {
    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse(FILL));
    let driven = tokio::spawn(async move { engine.start(&workflow, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(15)).await;
    driven.abort();
    tokio::time::sleep(Duration::from_secs(31)).await;
    let table = table();
    let scope = StageScope { run: "run", step: "fill", visit: 1, table: &table };
    let mut staged: Vec<String> = world.lake.staged(&scope).await.unwrap().into_iter().map(|staged| staged.unit).collect();
    staged.sort();
    assert_eq!(staged.len(), 4);
    world.lake.discard_staged(&scope, &staged[..2]).await.unwrap();
    assert_eq!(world.engine().resume("run").await.unwrap().outcome, Some(Outcome::Succeeded));
    world
}

#[tokio::test(start_paused = true)]
async fn staged_units_that_are_lost_are_repaired_again_and_paid_for_again() {
    let world = after_a_loss().await;
    let report = RunReport::new("run", &world.state().await);
    assert_eq!((report.missing, report.usage.source_requests), (0, 22), "{:?}", report.problems);
    assert_eq!(world.lake.rows(&table(), repair_core::lake::Layer::Repaired).unwrap().num_rows(), 20);
    let lost = world.events("run").await.into_iter().filter_map(|recorded| match recorded.event {
        Event::UnitsLost { step, units } => Some((step, units.len())),
        _ => None,
    });
    assert_eq!(lost.collect::<Vec<_>>(), [("fill".to_owned(), 2)]);
}

/// Runs in which every kind of event occurs.
async fn histories() -> Vec<(&'static str, Vec<Recorded>)> {
    let mut histories = Vec::new();
    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse(FILL));
    let driven = tokio::spawn(async move { engine.start(&workflow, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(15)).await;
    world.engine().pause("run").await.unwrap();
    driven.await.unwrap().unwrap();
    world.engine().resume("run").await.unwrap();
    histories.push(("repair", world.events("run").await));
    histories.push(("lost", after_a_loss().await.events("run").await));

    let world = World::new();
    let text = "start: both\nsteps:\n  both:\n    parallel:\n      left: { start: a, steps: { a: { wait: { for: 1m }, end: true } } }\n      right: { start: b, steps: { b: { task: do, with: { fails: { '1': denied } }, end: true } } }\n    next: c\n  c: { task: do, end: true }";
    assert_eq!(world.run(text).await.outcome, Some(Outcome::Failed));
    let mended = world.parse(&text.replace("    next: c", "    retry: [{ on: denied, attempts: 1 }]\n    next: c"));
    world.engine().redrive("run", Some(&mended)).await.unwrap();
    histories.push(("parallel", world.events("run").await));

    let world = World::new();
    world.run("steps:\n  a: { task: do }\n  b: { task: do, with: { fails: { '1': denied } } }\n  c: { task: do, after: [a] }\n  d: { task: do, after: [a, b] }\n  e: { task: do, after: [b], run_if: any_failed }").await;
    histories.push(("dag", world.events("run").await));

    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse("start: a\nsteps:\n  a: { task: do, with: { takes_s: 600 }, end: true }"));
    let driven = tokio::spawn(async move { engine.start(&workflow, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.engine().cancel("run").await.unwrap();
    driven.await.unwrap().unwrap();
    histories.push(("cancelled", world.events("run").await));

    let world = World::new();
    let fails = "with: { fails: { '1': transient } }, retry: [{ on: transient, attempts: 1 }]";
    let text = format!(
        "budget: {{ calls: 12 }}\nstart: look\nsteps:\n  look: {{ detect: look, next: fill }}\n  fill: {{ repair: fix, of: look, {fails}, end: true }}"
    );
    assert_eq!(world.run(&text).await.outcome, Some(Outcome::OverBudget));
    histories.push(("budget", world.events("run").await));

    let world = World::new();
    let first = "{ strategy: fix, name: first, with: { fails: { '1': denied } }, tags: { idea: ask } }";
    let text = format!(
        "tags: {{ project: p }}\nstart: look\nsteps:\n  look: {{ detect: look, next: fill }}\n  fill: {{ repair: [{first}, {{ strategy: fix }}], of: look, end: true }}"
    );
    assert_eq!(world.run(&text).await.outcome, Some(Outcome::SucceededWithExceptions));
    histories.push(("strategies", world.events("run").await));

    let world = World::new();
    world.engine().start(&world.parse(FILL), World::request("before")).await.unwrap();
    world.lake.add_rows(&table(), &[late_rows(&[3, 4])]).unwrap();
    world.run(LATE).await;
    histories.push(("late-truth", world.events("run").await));

    let world = World::new();
    assert_eq!(world.run(&asking(3, 20)).await.outcome, Some(Outcome::Failed));
    histories.push(("asking", world.events("run").await));

    let world = World::new();
    let text = "budget: { calls: 9 }\nsources: { market: { source: sell } }\nstart: each\nsteps:\n  each:\n    map: { over: [a, b] }\n    tolerate: { failed: 1 }\n    concurrency: 1\n    start: look\n    steps: { look: { detect: look, with: { asks: 2 }, end: true } }\n    end: true";
    assert_eq!(world.run(text).await.outcome, Some(Outcome::SucceededWithExceptions));
    histories.push(("map", world.events("run").await));

    let world = begun_with("jsonata-core 2.2.7").await;
    world.engine().resume("run").await.unwrap();
    histories.push(("expressions", world.events("run").await));
    histories
}

/// A workflow whose detector asks a source so often, in up to three attempts.
fn asking(asks: u32, calls: u32) -> String {
    format!(
        "budget: {{ calls: {calls} }}\nsources: {{ market: {{ source: sell }} }}\nstart: look\nsteps:\n  look: {{ detect: look, with: {{ asks: {asks} }}, retry: [{{ \
         on: throttled, attempts: 2, interval: 1s, jitter: none }}], end: true }}"
    )
}

/// What a detector asks is reserved before, and is on record after, whatever becomes of the attempt and of the process.
#[tokio::test(start_paused = true)]
async fn what_a_detector_asks_is_within_the_budget_whenever_the_process_dies() {
    let taken = |state: &RunState| {
        let look = &state.steps["look"];
        (look.usage.source_requests, look.assumed.source_requests, look.reserved.values().map(|worst| worst.source_requests).sum::<u64>())
    };
    // Three requests, of which the third fails, cost 1 + 1 + 2; so do the next three. Three more would need 1 + 1 + 2 as well.
    for (calls, asked, outcome) in
        [(12, 9, Outcome::Failed), (10, 7, Outcome::OverBudget), (4, 3, Outcome::OverBudget), (1, 0, Outcome::OverBudget)]
    {
        let world = World::new();
        let report = world.run(&asking(3, calls)).await;
        assert_eq!((world.seen.calls().len(), report.outcome), (asked, Some(outcome)), "{calls}: {:?}", report.reason);
        let (used, assumed, reserved) = taken(&world.state().await);
        assert!(used + assumed <= u64::from(calls) && reserved == 0, "{calls}: {used}, {assumed}, {reserved}");
    }
    // A request takes five seconds, and the process dies in the middle of its second.
    let world = World::new();
    let workflow = world.parse(&asking(2, 9));
    for life in 0..4 {
        let engine = world.engine();
        let driving = async { if life == 0 { engine.start(&workflow, World::request("run")).await } else { engine.resume("run").await } };
        let ended = tokio::time::timeout(Duration::from_secs(8), driving).await;
        world.journal.all_drivers_died();
        if let Ok(report) = ended {
            assert_eq!(report.unwrap().outcome, Some(Outcome::OverBudget));
            break;
        }
    }
    // A request that was answered took one call. Any other may have taken two, and is counted so, whether it failed or its end is unknown.
    let (used, assumed, reserved) = taken(&world.state().await);
    let asked = world.seen.calls().len() as u64;
    assert_eq!(used + assumed + reserved, used + 2 * (asked - used));
    assert!(asked > used && used + assumed + reserved <= 9, "{asked}: {used}, {assumed}, {reserved}");
}

/// A world in which a program with another evaluator began a run, and died while the run waited.
async fn begun_with(evaluator: &str) -> World {
    let began = World::new();
    let (engine, workflow) =
        (began.engine(), began.parse("start: a\nsteps:\n  a: { wait: { for: 1h }, next: b }\n  b: { task: do, end: true }"));
    let driven = tokio::spawn(async move { engine.start(&workflow, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(15)).await;
    driven.abort();
    let _ = driven.await;
    let events = began.events("run").await;
    let world = World::new();
    for recorded in &events {
        let mut event = serde_json::to_value(&recorded.event).unwrap();
        if event["kind"] == "run-started" {
            assert_eq!(event["expressions"], EVALUATOR);
            event["expressions"] = evaluator.into();
        }
        let event: Event = serde_json::from_value(event).unwrap();
        world.journal.append("run", recorded.sequence, recorded.at, &[event]).await.unwrap();
    }
    world
}

/// A run that is resumed by a program with another evaluator goes on, and its report says so, also after it has ended.
#[tokio::test(start_paused = true)]
async fn another_evaluator_of_expressions_is_reported() {
    let world = begun_with("jsonata-core 2.2.7").await;
    let report = world.engine().resume("run").await.unwrap();
    let problem = format!(
        "expressions were evaluated by jsonata-core 2.2.7 when the run began, and by {EVALUATOR} since it was resumed; results may differ"
    );
    assert_eq!((report.outcome, &report.problems), (Some(Outcome::Succeeded), &vec![problem]));
    assert_eq!(RunReport::new("run", &world.state().await).problems, report.problems);

    let world = begun_with(EVALUATOR).await;
    assert_eq!(world.engine().resume("run").await.unwrap().problems, Vec::<String>::new());
}

const LATE: &str = "start: look\nsteps:\n  look: { detect: look, with: { overtaken: 1 }, end: true }";

/// Rows that say otherwise than the repairs, all of which have the value 1.
fn late_rows(slots: &[i64]) -> RecordBatch {
    let batch = rows(slots);
    let twice: ArrayRef = Arc::new(Float64Array::from(vec![2.0; slots.len()]));
    RecordBatch::try_new(batch.schema(), vec![batch.column(0).clone(), batch.column(1).clone(), twice]).unwrap()
}

/// Each slot is new once over all runs, told again by each, and a run that dies after it told says the same when it goes on.
#[tokio::test(start_paused = true)]
async fn late_truth_is_new_once() {
    let world = World::new();
    world.engine().start(&world.parse(FILL), World::request("before")).await.unwrap();
    let workflow = world.parse(LATE);
    let mut told = Vec::new();
    for (run, slots) in [("one", &[3, 4][..]), ("two", &[]), ("three", &[9])] {
        world.lake.add_rows(&table(), &[late_rows(slots)]).unwrap();
        let report = world.engine().start(&workflow, World::request(run)).await.unwrap();
        assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
        let truth = &report.late_truth["look"]["fix"];
        assert_eq!((truth.columns["value"].mean_absolute, truth.columns["value"].worst_relative), (1.0, 0.5));
        assert!(report.problems.iter().any(|problem| problem.contains("replace repairs by `fix`")), "{:?}", report.problems);
        told.push((truth.slots, truth.new));
    }
    assert_eq!(told, [(2, 2), (2, 0), (3, 1)]);
    // As if the process had died after it told, before the step was done.
    world.lake.add_rows(&table(), &[late_rows(&[11])]).unwrap();
    let report = world.engine().start(&workflow, World::request("four")).await.unwrap();
    let events = world.events("four").await;
    let dead = MemoryJournal::default();
    for recorded in events.iter().take_while(|recorded| !matches!(recorded.event, Event::StepSucceeded { .. })) {
        dead.append("four", recorded.sequence, recorded.at, std::slice::from_ref(&recorded.event)).await.unwrap();
    }
    let mut engine = Engine::new(world.registry.clone(), Arc::new(world.lake.clone()), Arc::new(dead));
    engine.clock = Arc::new(world.clock);
    let resumed = engine.resume("four").await.unwrap();
    assert_eq!((resumed.late_truth["look"]["fix"].slots, resumed.late_truth["look"]["fix"].new), (4, 1));
    assert_eq!(resumed.late_truth, report.late_truth);
}

/// What was under way when a process died is in exactly one state, in the count of the dead run as of the one that goes on.
#[tokio::test(start_paused = true)]
async fn crashed_is_counted() {
    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse(&FILL.replace("takes_s: 10", "takes_s: 100")));
    let driven = tokio::spawn(async move { engine.start(&workflow, World::request("run")).await });
    tokio::time::sleep(Duration::from_secs(250)).await;
    driven.abort();
    let _ = driven.await;
    world.journal.all_drivers_died();
    let state = world.state().await;
    let units = state.steps["fill"].units.as_ref().unwrap();
    assert_eq!((units.pending(), units.staged(), units.published(), units.failed()), (11, 8, 0, 1), "four of those to do were under way");
    assert_eq!(RunReport::new("run", &state).reason.as_deref(), Some("`fill` is running"));
    let report = world.engine().resume("run").await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded));
    let output = &report.step("fill").unwrap().output;
    assert_eq!(
        (&output["units"], &output["succeeded"], &output["failed"], &output["pending"]),
        (&20.into(), &20.into(), &0.into(), &0.into())
    );
    // Those under way, and the one that had failed, were begun twice; nothing else was.
    assert_eq!(world.seen.calls().len(), 20 + 4 + 1);
}
