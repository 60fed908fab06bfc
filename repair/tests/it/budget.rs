//! Budgets hold: whatever runs side by side, fails, or is killed between spending and recording.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../../../repair-core/tests/it/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::{rows, table};
use jiff::SignedDuration;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use repair::plan::{PlanRequest, Planner, Verdict};
use repair_core::engine::{Engine, EngineOptions, Journal, Outcome, RunReport, RunState, StartRequest, load};
use repair_core::lake::Layer;
use repair_core::model::Usage;
use repair_core::model::{Counts, Findings, Fix, GapList, Interval, Key, Scope, SlotRange, Unit, Wanted};
use repair_core::plugin::{Detector, PlannedUnits, Registry, Repairer, StepContext, Task};
use repair_core::testing::{CrashingJournal, CrashingLake, Life, MemoryJournal, MemoryLake, Moment, Schedule, VirtualClock};
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Value, json};

const UNITS: i64 = 30;

/// What outlives every process: the stores, and the source's own count of calls, which nobody can take back.
#[derive(Clone)]
struct World {
    seed: u64,
    journal: MemoryJournal,
    lake: MemoryLake,
    clock: VirtualClock,
    calls: Arc<AtomicU64>,
    wrong: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
struct Config {
    /// Of a hundred units, how many fail.
    #[serde(default)]
    failing: u64,
    /// Calls that a unit may take; it takes from one to all of them.
    #[serde(default)]
    pages: u64,
    /// Which source it asks.
    #[serde(default)]
    #[schemars(extend("x-names" = "source"))]
    source: Option<String>,
    /// Bytes that it reads.
    #[serde(default)]
    bytes: u64,
}

struct Asks(World, Config);

impl Asks {
    fn pages(&self) -> u64 {
        self.1.pages.max(1)
    }
}

#[async_trait]
impl Repairer for Asks {
    async fn plan(&self, _: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let grid = findings.scope.grid;
        Ok(Box::new((0..UNITS).map(move |slot| {
            let slots = SlotRange::new(slot, slot + 1);
            Ok(Unit { interval: grid.interval_of(slots).unwrap(), wanted: vec![Wanted { key: Key::from("K"), slots: vec![slots] }] })
        })))
    }

    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage { source_requests: self.pages(), ..Usage::default() }
    }

    async fn repair(&self, context: &StepContext, _: &Findings, unit: &Unit) -> Result<Fix> {
        let Self(world, config) = self;
        let slot = unit.wanted[0].slots[0].first;
        // What it may cost is on durable record before it is asked.
        let state = load(&world.journal, &context.run).await.unwrap();
        let reserved = state.steps[&*context.step].reserved.get(&u32::try_from(slot).unwrap()).copied();
        if reserved.is_none_or(|worst| worst.source_requests != self.pages()) {
            world.wrong.lock().unwrap().push(format!("unit {slot} asks, and {reserved:?} is set aside"));
        }
        let mut drawn = SmallRng::seed_from_u64(world.seed ^ (world.calls.load(Ordering::SeqCst) << 20));
        let pages = drawn.random_range(1..=self.pages());
        world.calls.fetch_add(pages, Ordering::SeqCst);
        let due = context.clock.now().checked_add(SignedDuration::from_millis(drawn.random_range(0..500))).unwrap();
        tokio::select! {
            () = context.clock.sleep_until(due) => {}
            () = context.cancel.cancelled() => context.check_cancelled()?,
        }
        if drawn.random_range(0..100) < config.failing {
            return Err(Error::new(ErrorKind::Transient, "it was to fail"));
        }
        let usage = Usage { source_requests: pages, ..Usage::default() };
        Ok(Fix { rows: vec![rows(&[slot])], source: config.source.clone().unwrap_or_default(), usage, ..Fix::default() })
    }
}

struct Reads(Config);

#[async_trait]
impl Task for Reads {
    async fn perform(&self, _: &StepContext) -> Result<(Value, Usage)> {
        Ok((json!({}), Usage { bytes_scanned: self.0.bytes, ..Usage::default() }))
    }
}

struct Looks;

#[async_trait]
impl Detector for Looks {
    async fn detect(&self, _: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        let mut gaps = GapList::default();
        gaps.push(&Key::from("K"), SlotRange::new(0, UNITS));
        let missing = gaps.missing();
        let counts = Counts { expected: missing, missing, gaps: 1, audited_keys: 1, ..Counts::default() };
        let scope = Scope {
            table: "bars".to_owned(),
            grid: table().grid().unwrap(),
            keys: vec![Key::from("K")],
            interval: Interval::parse("1970-01-01", "1970-01-01").unwrap(),
            calendar: "24x7".to_owned(),
            lifetimes: Default::default(),
        };
        Ok(Findings::of_gaps(scope, counts, gaps, Usage::default()))
    }
}

const PRICES: &str = "prices: test\nas_of: 2026-11-01\ncurrency: USD\nitems:\n  query_bytes: { usd: 5, per: 1TB, source: page }\nsources:\n  market: { usd_per_call: 0.03, source: page }\n";

impl World {
    fn new(seed: u64) -> Self {
        let lake = MemoryLake::default();
        lake.put_table(&table(), &[rows(&[])]).unwrap();
        let clock = VirtualClock::starting_at("2024-03-04T09:00:00Z".parse().unwrap());
        Self { seed, journal: MemoryJournal::default(), lake, clock, calls: Arc::default(), wrong: Arc::default() }
    }

    fn registry(&self) -> Arc<Registry> {
        let mut registry = Registry::default();
        let world = self.clone();
        registry.detector("look", "looks", |_: Config| Ok(Looks));
        registry.repairer("ask", "asks", move |config: Config| Ok(Asks(world.clone(), config)));
        registry.task("read", "reads", |config: Config| Ok(Reads(config)));
        registry.source("nothing", "nothing", |_: Config| Ok(Nothing));
        Arc::new(registry)
    }

    fn try_parse(&self, text: &str) -> Result<Workflow, String> {
        let tables = "tables: { bars: { location: bars, format: parquet, key: [key], time: ts, cadence: 1m } }";
        let children = BTreeMap::from([("book.yaml".to_owned(), PRICES.to_owned())]);
        let text = format!("workflow: w\nkind: state-machine\n{tables}\n{text}");
        Workflow::parse_with("w.yaml", &text, &self.registry(), &children).map_err(|told| told.to_string())
    }

    fn parse(&self, text: &str) -> Workflow {
        self.try_parse(text).unwrap_or_else(|told| panic!("{told}"))
    }

    fn engine(&self, journal: Arc<dyn Journal>, schedule: &Schedule) -> Engine {
        let lake = CrashingLake::new(Arc::new(self.lake.clone()), schedule.clone());
        let journal = CrashingJournal::new(journal, schedule.clone());
        let mut engine = Engine::new(self.registry(), Arc::new(lake), Arc::new(journal));
        engine.clock = Arc::new(self.clock);
        engine.options = EngineOptions::default()
            .with_lease(Duration::from_secs(3_000_000))
            .with_poll(Duration::from_secs(86_400))
            .with_grace(Duration::from_secs(10));
        engine
    }

    fn request() -> StartRequest {
        StartRequest::new("run")
    }

    async fn run(&self, workflow: &Workflow) -> RunReport {
        self.engine(Arc::new(self.journal.clone()), &Schedule::never()).start(workflow, Self::request()).await.unwrap()
    }

    async fn state(&self) -> RunState {
        load(&self.journal, "run").await.unwrap()
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn rows(&self) -> usize {
        self.lake.rows(&table(), Layer::Repaired).unwrap().num_rows()
    }

    fn check(&self) {
        assert_eq!(*self.wrong.lock().unwrap(), Vec::<String>::new());
    }
}

fn fill(budget: &str, with: &str, more: &str) -> String {
    format!(
        "budget: {budget}\nstart: look\nsteps:\n  look: {{ detect: look, next: fill }}\n  fill: {{ repair: ask, of: look, concurrency: 8, with: {{ {with} }}{more} }}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn a_run_over_budget_ends_settled_and_says_so() {
    let world = World::new(1);
    let report = world.run(&world.parse(&fill("{ calls: 10 }", "", ", end: true"))).await;
    assert_eq!((report.outcome, report.error), (Some(Outcome::OverBudget), Some(ErrorKind::Budget)));
    assert_eq!(report.reason.unwrap(), "the budget of the run is 10 calls, with 10 spent or set aside; 20 of 30 units were not started");
    let state = world.state().await;
    let units = state.steps["fill"].units.as_ref().unwrap();
    assert_eq!((units.published(), units.staged(), units.pending(), world.rows()), (10, 0, 20, 10), "what was paid for is seen");
    assert!(state.steps["fill"].reserved.is_empty());
    assert_eq!(world.calls(), 10);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn spend_is_recorded_first() {
    let world = World::new(2);
    let retry = ", retry: [{ on: transient, attempts: 9, interval: 1s }], end: true";
    let report = world.run(&world.parse(&fill("{ calls: 100 }", "failing: 30", retry))).await;
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    world.check();
    let state = world.state().await;
    let step = &state.steps["fill"];
    assert!(step.assumed.source_requests > 0, "failed units count as what was set aside for them");
    assert_eq!(step.usage.source_requests + step.assumed.source_requests, world.calls());
}

/// What a unit really took makes room for others.
#[tokio::test(start_paused = true)]
async fn what_is_not_used_is_given_back() {
    let world = World::new(3);
    let report = world.run(&world.parse(&fill("{ calls: 60 }", "pages: 5", ", end: true"))).await;
    let done = world.state().await.steps["fill"].units.as_ref().unwrap().published();
    assert!(done > 12, "{done} units, of which twelve fit at their worst");
    assert!(world.calls() <= 60 && world.calls() > 55, "{}: less than what one more may take is left", world.calls());
    assert_eq!(report.outcome, Some(Outcome::OverBudget));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn dollars_of_a_step_hold_and_another_way_may_follow() {
    let world = World::new(4);
    let sources = "sources: { market: { source: nothing } }";
    let text = "prices: book.yaml\nstart: look\nsteps:\n  look: { detect: look, next: fill }\n  fill: { repair: ask, of: look, concurrency: 8, budget: { usd: 0.2 }, with: { source: market }, catch: [{ on: budget, goto: rest }], next: rest }\n  rest: { task: read, end: true }\n";
    let mut registry = Registry::default();
    let asks = world.clone();
    registry.detector("look", "looks", |_: Config| Ok(Looks));
    registry.repairer("ask", "asks", move |config: Config| Ok(Asks(asks.clone(), config)));
    registry.task("read", "reads", |config: Config| Ok(Reads(config)));
    registry.source("nothing", "nothing", |_: Config| Ok(Nothing));
    let registry = Arc::new(registry);
    let tables = "tables: { bars: { location: bars, format: parquet, key: [key], time: ts, cadence: 1m } }";
    let children = BTreeMap::from([("book.yaml".to_owned(), PRICES.to_owned())]);
    let text = format!("workflow: w\nkind: state-machine\n{tables}\n{sources}\n{text}");
    let workflow = Workflow::parse_with("w.yaml", &text, &registry, &children).unwrap_or_else(|told| panic!("{told}"));
    let mut engine = world.engine(Arc::new(world.journal.clone()), &Schedule::never());
    engine.registry = registry;
    let report = engine.start(&workflow, World::request()).await.unwrap();
    assert_eq!(world.calls(), 6, "six calls of three cents fit into twenty cents");
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    let caught = world.state().await.caught.unwrap().1;
    assert_eq!(caught.message, "the budget of step `fill` is 0.2 USD, with 0.18 spent or set aside; 24 of 30 units were not started");
}

struct Nothing;

#[async_trait]
impl repair_core::plugin::Source for Nothing {
    fn limits(&self) -> repair_core::plugin::Limits {
        repair_core::plugin::Limits::default()
    }

    async fn fetch(&self, _: &StepContext, _: &repair_core::plugin::Request) -> Result<repair_core::plugin::Answer> {
        Ok(repair_core::plugin::Answer::default())
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_step_does_not_begin_over_the_budget() {
    let world = World::new(5);
    let text = "budget: { bytes: 1MB }\nstart: a\nsteps:\n  a: { task: read, with: { bytes: 1000000 }, next: b }\n  b: { task: read, with: { bytes: 1 }, next: c }\n  c: { task: read, end: true }";
    let report = world.run(&world.parse(text)).await;
    assert_eq!(report.outcome, Some(Outcome::OverBudget));
    assert_eq!(report.reason.unwrap(), "the budget of the run is 1000000 bytes, with 1000001 spent");
    let state = world.state().await;
    assert_eq!(state.ended.unwrap().step, "c", "what just fits goes on; beyond it, nothing begins");
}

#[tokio::test(start_paused = true)]
async fn a_larger_budget_goes_on_where_the_smaller_ended() {
    let world = World::new(6);
    let text = fill("{ calls: 10 }", "", ", end: true");
    world.run(&world.parse(&text)).await;
    let engine = world.engine(Arc::new(world.journal.clone()), &Schedule::never());
    let again = engine.redrive("run", None).await.unwrap();
    assert_eq!((again.outcome, world.calls()), (Some(Outcome::OverBudget), 10), "the same budget is as spent as before");
    let mended = world.parse(&text.replace("10", "30"));
    let report = engine.redrive("run", Some(&mended)).await.unwrap();
    assert_eq!((report.outcome, world.calls(), world.rows()), (Some(Outcome::Succeeded), 30, 30));
    world.check();
}

#[test]
fn mistakes_of_budgets_are_told_at_their_place() {
    let world = World::new(0);
    let step = "start: a\nsteps:\n  a: { task: read, end: true }";
    for (budget, told) in [
        ("{ usd: 1 }", "w.yaml:4:11: a budget in dollars needs a price book"),
        ("{ eur: 1 }", "w.yaml:4:11: unknown key `eur` in `budget`"),
        ("{ calls: -1 }", "w.yaml:4:18: `calls` must be a whole number, 0 or more"),
        ("{ bytes: 10 }", "w.yaml:4:18: `bytes` must be a whole number with a unit"),
        ("{}", "w.yaml:4:9: `budget` is empty"),
        ("{ usd: -0.5 }\nprices: book.yaml", "w.yaml:4:16: `usd` is negative"),
        ("{ usd: 0.0000000000001 }\nprices: book.yaml", "w.yaml:4:16: `usd` has more than 12 digits after the decimal point"),
        ("{ usd: 1 }\nprices: other.yaml", "w.yaml:5:9: there is no file `other.yaml`"),
    ] {
        let said = world.try_parse(&format!("budget: {budget}\n{step}")).unwrap_err();
        let places = said.replace("\n", " ");
        let (place, message) = told.rsplit_once(": ").unwrap();
        assert!(places.contains(message) && places.contains(place), "{told}\n{said}");
    }
    let exact = world.parse(&format!("prices: book.yaml\nbudget: {{ usd: 0.30 }}\n{step}"));
    assert_eq!(exact.budget.unwrap().usd.unwrap().to_string(), "0.30", "no float was in between");
}

/// A price book that is given beside a workflow takes the place of its own, and goes with the run.
#[test]
fn a_given_price_book_is_kept_with_the_workflow() {
    let world = World::new(0);
    let folder = tempfile::tempdir().unwrap();
    let (file, given) = (folder.path().join("w.yaml"), folder.path().join("given.yaml"));
    let text = "workflow: w\nkind: state-machine\nbudget: { usd: 1 }\nstart: a\nsteps:\n  a: { task: read, end: true }\n";
    std::fs::write(&file, text).unwrap();
    std::fs::write(&given, PRICES.replace("prices: test", "prices: given")).unwrap();
    let without = Workflow::load(&file, &world.registry()).unwrap_err().to_string();
    assert!(without.contains("needs a price book"), "{without}");
    let workflow = Workflow::load_with_prices(&file, &world.registry(), Some(&given)).unwrap();
    assert_eq!(workflow.prices.as_ref().unwrap().name, "given");
    std::fs::remove_file(&given).unwrap();
    let resumed = Workflow::parse_with("w.yaml", &workflow.text, &world.registry(), &workflow.children).unwrap();
    assert_eq!(resumed.prices, workflow.prices, "a resumed run reckons with the prices it started with");
    std::fs::write(&given, "prices: given\ncurrency: EUR\n").unwrap();
    let told = Workflow::load_with_prices(&file, &world.registry(), Some(&given)).unwrap_err().to_string();
    assert!(told.contains("given.yaml") && told.contains("unknown currency `EUR`"), "{told}");
}

async fn live_on(world: &World, workflow: &Workflow, lives: &[Life]) -> RunReport {
    let mut lives = lives.iter().copied().map(Some).chain([None]);
    loop {
        let life = lives.next().flatten();
        let engine = world.engine(Life::journal(life, Arc::new(world.journal.clone())), &Life::schedule(life));
        Life::stop_in_time(life, &engine.stop);
        match engine.start(workflow, World::request()).await {
            Ok(report) => return report,
            Err(error) if Life::ends_with(&error) => {
                world.journal.all_drivers_died();
            }
            Err(error) => panic!("{}", error.full()),
        }
    }
}

async fn try_seed(seed: u64) -> (u64, Option<Outcome>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let world = World::new(seed);
    let (failing, pages) = ([0, 0, 20][rng.random_range(0..3)], rng.random_range(1..4));
    let retry = ", retry: [{ on: transient, attempts: 3, interval: 1s }], end: true";
    let workflow = world.parse(&fill("{ calls: 10 }", &format!("failing: {failing}, pages: {pages}"), retry));
    let lives: Vec<Life> = (0..rng.random_range(0..8))
        .map(|_| match rng.random_range(0..8) {
            0 => Life::FailedWrite(rng.random_range(1..12)),
            1 => Life::Stopped(rng.random_range(0..900)),
            _ => Life::Crash(rng.random_range(1..30), if rng.random_bool(0.5) { Moment::Before } else { Moment::After }),
        })
        .collect();
    let report = live_on(&world, &workflow, &lives).await;
    assert_eq!(*world.wrong.lock().unwrap(), Vec::<String>::new(), "seed {seed}, lives {lives:?}");
    let state = world.state().await;
    let step = &state.steps["fill"];
    let counted: u64 = [step.usage, step.assumed].iter().chain(step.reserved.values()).map(|usage| usage.source_requests).sum();
    assert!(world.calls() <= 10, "seed {seed}: the source counts {} calls; lives {lives:?}", world.calls());
    assert!(counted >= world.calls() && counted <= 10, "seed {seed}: {counted} counted, {} made; lives {lives:?}", world.calls());
    (world.calls(), report.outcome)
}

/// A budget of 10 calls with eight units at once, killed at any moment and resumed: the source itself counts at most 10.
#[test]
fn killed_at_any_moment_a_budget_of_ten_calls_is_ten_calls() {
    let seeds = testdata::seeds(60, 600);
    let count = seeds.end - seeds.start;
    let (mut all, mut over) = (0u64, 0u64);
    for seed in seeds {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (calls, outcome) = runtime.block_on(try_seed(seed));
        all += calls;
        over += u64::from(outcome == Some(Outcome::OverBudget));
    }
    if !testdata::seeds_are_given() {
        assert!(all >= count * 6, "budgets are used: {all} calls in {count} runs");
        assert!(over > count / 2, "{over} of {count} runs end over budget");
    }
}

/// The plan says the price before anything is asked or written; then the budget is not passed, what fits is done, and what cannot be met is not.
#[tokio::test(start_paused = true)]
async fn budget_with_estimate() {
    let mut verdicts = BTreeMap::new();
    for seed in 0..80 {
        let mut drawn = SmallRng::seed_from_u64(seed);
        let (limit, pages, attempts) = (drawn.random_range(1..200u64), drawn.random_range(1..=3u64), drawn.random_range(0..3u64));
        let failing = [0, 30][usize::from(drawn.random_bool(0.5))];
        // Dollars of calls are counted as calls are.
        let budget = if drawn.random_bool(0.5) { format!("calls: {limit}") } else { format!("usd: {}", cents(3 * limit)) };
        let budget = format!("{{ {budget} }}\nprices: book.yaml\nsources: {{ market: {{ source: nothing }} }}");
        let world = World::new(seed);
        let retry = format!(", retry: [{{ on: transient, attempts: {attempts}, interval: 1s }}], end: true");
        let workflow = world.parse(&fill(&budget, &format!("pages: {pages}, failing: {failing}, source: market"), &retry));
        let planner = Planner {
            registry: world.registry(),
            lake: Arc::new(world.lake.clone()),
            lakes: Arc::default(),
            clock: Arc::new(world.clock),
            progress: Arc::new(()),
            stop: Default::default(),
        };
        let plan = planner.plan(&workflow, PlanRequest::default()).await.unwrap();
        let written = ["put_artifact", "stage", "publish", "replace", "check_writable"].map(|method| world.lake.requests(method));
        assert_eq!((world.calls(), written), (0, [0; 5]), "seed {seed}");
        let estimate = plan.total;
        let (units, most) = (u64::try_from(UNITS).unwrap(), u64::try_from(UNITS).unwrap() * pages * (attempts + 1));
        assert_eq!((estimate.low.calls, estimate.high.calls), (units, most), "seed {seed}");
        let usd = |calls: u64| Some(rust_decimal::Decimal::new(3, 2) * rust_decimal::Decimal::from(calls)).map(|usd| usd.normalize());
        assert_eq!((estimate.low.usd, estimate.high.usd), (usd(units), usd(most)), "seed {seed}");
        let report = world.run(&workflow).await;
        assert!(world.calls() <= limit, "seed {seed}: {} calls of {limit}", world.calls());
        let verdict = plan.budgets[0].verdict;
        *verdicts.entry(verdict.as_str()).or_insert(0) += 1;
        let why = format!("seed {seed}: {:?}, and the run: {:?} {:?}", plan.budgets, report.outcome, report.reason);
        match verdict {
            Verdict::Fits => assert!(world.calls() <= most && report.outcome != Some(Outcome::OverBudget), "{why}"),
            Verdict::MayPass => {}
            // What fails for good is told before what did not fit.
            Verdict::CannotBeMet if failing > 0 => assert_ne!(report.outcome, Some(Outcome::Succeeded), "{why}"),
            Verdict::CannotBeMet => assert_eq!(report.outcome, Some(Outcome::OverBudget), "{why}"),
            Verdict::Unknown => panic!("{why}"),
        }
        world.check();
    }
    assert!(verdicts.len() == 3, "{verdicts:?}");
}

fn cents(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
