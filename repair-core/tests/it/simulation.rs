//! Any workflow, any crash schedule: a run that is killed again and again ends as one that never was.
//!
//! Each seed makes a workflow (a state machine with loops, branches, fan-outs, retries and timers, or a DAG), a world (what fails, when, and
//! how long it takes) and a schedule of crashes. The real engine drives it in memory, in virtual time. A seed that fails says how to run it
//! again. `REPAIR_SEEDS=0..1000000 cargo test --release -p repair-core --test it simulation::` runs for a night.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{rows, table};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use repair_core::engine::{Engine, EngineOptions, Journal, Outcome, RunState, StartRequest, load, load_whole};
use repair_core::engine::{Event, Settled};
use repair_core::lake::{Layer, Overlay, StageScope, overlay};
use repair_core::model::Usage;
use repair_core::model::{Absence, Counts, Findings, Fix, GapList, Interval, Key, Scope, SlotRange, Table, Unit, Wanted};
use repair_core::plugin::{Detector, PlannedUnits, Registry, Repairer, Sensor, StepContext, Task};
use repair_core::testing::{CrashingJournal, CrashingLake, Life, MemoryJournal, MemoryLake, Moment, VirtualClock};
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// Slots of the table that is repaired.
const SLOTS: i64 = 24;
const RUN: &str = "run";

/// A number that follows from a seed and some text, the same in every process.
fn draw(seed: u64, text: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(text.as_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap())
}

/// What happens in one run, as nobody but the test sees it.
struct World {
    seed: u64,
    journal: MemoryJournal,
    lake: MemoryLake,
    /// What was found wrong while it ran.
    wrong: Mutex<Vec<String>>,
    performed: AtomicU64,
    /// Calls, as a source would count them.
    calls: AtomicU64,
    base: Timestamp,
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let world = Self {
            seed,
            journal: MemoryJournal::default(),
            lake: MemoryLake::default(),
            wrong: Mutex::default(),
            performed: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            base: "2024-03-04T09:00:00Z".parse().unwrap(),
        };
        world.lake.put_table(&table(), &[rows(&[])]).unwrap();
        Arc::new(world)
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// Whether a step's attempt is still to be done, by what is durable: else to do it is to do it again.
    async fn may_do(&self, context: &StepContext) {
        self.performed.fetch_add(1, Ordering::Relaxed);
        let state = load(&self.journal, &context.run).await.unwrap();
        let expected = state.active.get(&*context.step).map(|position| (position.visit, position.attempt));
        if expected != Some((context.visit, context.attempt)) || state.ended.is_some() {
            self.wrong(format!(
                "{} visit {} attempt {} is done, but the run is at {expected:?}",
                context.step, context.visit, context.attempt
            ));
        }
        if let Some(position) = state.active.get(&*context.step)
            && context.clock.now() < position.attempt_at
        {
            self.wrong(format!("{} is tried again before its time", context.step));
        }
    }

    /// How an attempt goes, and how long it takes in milliseconds.
    fn fate(&self, name: &str, percent_failing: u64) -> (Option<ErrorKind>, u64) {
        let drawn = draw(self.seed, name);
        let kinds = [ErrorKind::Transient, ErrorKind::Throttled, ErrorKind::Denied, ErrorKind::Invalid];
        let failed = (drawn % 100 < percent_failing).then(|| kinds[(drawn >> 8) as usize % kinds.len()]);
        // Some take for ever, as far as a timeout of seconds is concerned.
        let took_ms = if (drawn >> 16).is_multiple_of(40) { 1_000_000 } else { (drawn >> 24) % 3_000 };
        (failed, took_ms)
    }
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Config {
    /// Fails only in ways that its retries outlast.
    #[serde(default)]
    safe: bool,
}

struct SimTask(Arc<World>, Config);

async fn pass(context: &StepContext, took_ms: u64) -> Result<()> {
    let due = context.clock.now().checked_add(SignedDuration::from_millis(took_ms as i64)).unwrap();
    tokio::select! {
        () = context.clock.sleep_until(due) => Ok(()),
        () = context.cancel.cancelled() => context.check_cancelled(),
    }
}

#[async_trait]
impl Task for SimTask {
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        self.0.may_do(context).await;
        let name = format!("{} {} {} {}", context.run, context.step, context.visit, context.attempt);
        let (mut failed, mut took_ms) = self.0.fate(&name, 25);
        if self.1.safe {
            failed = failed.filter(|kind| *kind == ErrorKind::Transient && context.attempt <= 2);
            took_ms = took_ms.min(3_000);
        }
        pass(context, took_ms).await?;
        match failed {
            Some(kind) => Err(Error::new(kind, format!("it was to be {kind}"))),
            None => Ok((json!({ "n": draw(self.0.seed, &name) % 10 }), Usage { rows_read: 1, ..Usage::default() })),
        }
    }
}

struct SimDetector(Arc<World>);

#[async_trait]
impl Detector for SimDetector {
    async fn detect(&self, context: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        self.0.may_do(context).await;
        let interval = Interval::new(Timestamp::UNIX_EPOCH, Timestamp::from_second(SLOTS * 60).unwrap()).unwrap();
        let mut gaps = GapList::default();
        (0..SLOTS)
            .filter(|slot| !draw(self.0.seed, &format!("gap {slot}")).is_multiple_of(3))
            .for_each(|slot| gaps.push(&Key::from("K"), SlotRange::new(slot, slot + 1)));
        let counts = Counts { expected: SLOTS as u64, gaps: gaps.len() as u64, audited_keys: 1, ..Counts::default() };
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

struct SimRepairer(Arc<World>);

#[async_trait]
impl Repairer for SimRepairer {
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        self.0.may_do(context).await;
        let grid = findings.scope.grid;
        let units: Vec<Unit> = findings
            .gaps
            .iter()
            .flat_map(|(key, slots)| (slots.first..slots.end).map(|slot| (key.clone(), SlotRange::new(slot, slot + 1))))
            .map(|(key, slots)| Unit { interval: grid.interval_of(slots).unwrap(), wanted: vec![Wanted { key, slots: vec![slots] }] })
            .collect();
        Ok(Box::new(units.into_iter().map(Ok)))
    }

    async fn repair(&self, context: &StepContext, _: &Findings, unit: &Unit) -> Result<Fix> {
        let slots = unit.wanted[0].slots[0];
        // What was paid for is never asked for again: it is staged or published by then.
        let table = table();
        let scope = StageScope { run: &context.run, step: &context.step, visit: context.visit, table: &table };
        let id = unit.id("bars", "sim.repair");
        if self.0.lake.staged(&scope).await.unwrap().iter().any(|staged| staged.unit == id) {
            self.0.wrong(format!("unit {slots:?} of {} is asked for again although it is staged", context.step));
        }
        let state = load(&self.0.journal, &context.run).await.unwrap();
        if state.ended.is_some() {
            self.0.wrong(format!("unit {slots:?} is asked for after the end"));
        }
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let name = format!("{} {} {} {} {slots:?}", context.run, context.step, context.visit, context.attempt);
        let (failed, took_ms) = self.0.fate(&name, 12);
        pass(context, took_ms.min(3_000)).await?;
        if let Some(kind) = failed {
            return Err(Error::new(kind, format!("it was to be {kind}")));
        }
        let usage = Usage { source_requests: 1, ..Usage::default() };
        if draw(self.0.seed, &format!("absent {slots:?}")).is_multiple_of(4) {
            let absence = Absence {
                key: Key::from("K"),
                slots,
                source: "sim".to_owned(),
                asked_at: context.clock.now(),
                answer: "nothing".to_owned(),
                recheck_after: context.clock.now().checked_add(SignedDuration::from_hours(24 * 365)).unwrap(),
            };
            return Ok(Fix { absent: vec![absence], source: "sim".to_owned(), usage, ..Fix::default() });
        }
        Ok(Fix { rows: vec![rows(&[slots.first])], source: "sim".to_owned(), usage, ..Fix::default() })
    }
}

/// True a while after the world began.
struct SimSensor(Arc<World>);

#[async_trait]
impl Sensor for SimSensor {
    async fn sense(&self, context: &StepContext) -> Result<Value> {
        Ok(json!(context.clock.now() >= self.0.base.checked_add(SignedDuration::from_secs(60)).unwrap()))
    }
}

fn registry(world: &Arc<World>) -> Arc<Registry> {
    let mut registry = Registry::default();
    let of = || world.clone();
    let (task, detector, repairer, sensor) = (of(), of(), of(), of());
    registry.task("sim.task", "does", move |config: Config| Ok(SimTask(task.clone(), config)));
    registry.detector("sim.detect", "looks", move |_: Config| Ok(SimDetector(detector.clone())));
    registry.repairer("sim.repair", "repairs", move |_: Config| Ok(SimRepairer(repairer.clone())));
    registry.sensor("sim.sense", "senses", move |_: Config| Ok(SimSensor(sensor.clone())));
    Arc::new(registry)
}

const CHILD: &str = "workflow: child\nkind: state-machine\nbudget: { calls: 1 }\nstart: x\nsteps:\n  x: { task: sim.task, with: { safe: true }, retry: [{ on: any, attempts: 9 }], next: y }\n  y: { wait: { for: 7s }, end: true }\n";

/// How the line of a budget begins.
const BUDGET: &str = "budget: { calls: ";

/// A workflow drawn at random; always one that the checker accepts.
fn generate(rng: &mut SmallRng) -> String {
    let budget = if rng.random_bool(0.3) { format!("{BUDGET}{} }}\n", rng.random_range(0..40)) } else { String::new() };
    let tables = format!("{budget}tables:\n  bars: {{ location: bars, format: parquet, key: [key], time: ts, cadence: 1m }}\n");
    if rng.random_bool(0.4) {
        format!("workflow: sim\nkind: dag\nmax_parallel: {}\n{tables}steps:\n{}", rng.random_range(1..5), dag(rng))
    } else {
        format!("workflow: sim\nkind: state-machine\n{tables}start: look\nsteps:\n{}", state_machine(rng))
    }
}

fn retry(rng: &mut SmallRng) -> String {
    let jitter = ["none", "full"].choose(rng).unwrap();
    match rng.random_range(0..4) {
        0 => String::new(),
        1 => format!(", retry: [{{ on: any, attempts: {}, interval: 2s, jitter: {jitter} }}]", rng.random_range(0..4)),
        _ => format!(
            ", retry: [{{ on: [transient, timeout], attempts: {}, jitter: {jitter} }}, {{ on: [throttled], attempts: 2, interval: 3s, backoff: 1.5, max_interval: 4s }}]",
            rng.random_range(0..3)
        ),
    }
}

fn repair(rng: &mut SmallRng) -> String {
    let tolerate = ["0", "2", "40%"].choose(rng).unwrap();
    format!("repair: sim.repair, of: look, concurrency: {}, tolerate: {{ failed: {tolerate} }}{}", rng.random_range(1..6), retry(rng))
}

/// A map over a few items, whose runs may fail for good.
fn map(rng: &mut SmallRng) -> String {
    let items: Vec<String> = (0..rng.random_range(0..5)).map(|_| rng.random_range(0..3).to_string()).collect();
    let tolerate = ["0", "1", "60%"].choose(rng).unwrap();
    let safe = rng.random_bool(0.5);
    format!(
        "map: {{ over: [{}] }}, concurrency: {}, tolerate: {{ failed: {tolerate} }}, start: x, steps: {{ x: {{ task: sim.task, with: {{ safe: {safe} }}, timeout: 1m, next: y{} }}, y: {{ wait: {{ for: 7s }}, end: true }} }}{}",
        items.join(", "),
        rng.random_range(1..4),
        retry(rng),
        retry(rng)
    )
}

fn dag(rng: &mut SmallRng) -> String {
    let mut text = format!("  look: {{ detect: sim.detect{} }}\n", retry(rng));
    for at in 0..rng.random_range(1..8) {
        let mut after: BTreeSet<String> = (0..at).filter(|_| rng.random_bool(0.3)).map(|before| format!("d{before}")).collect();
        let body = match rng.random_range(0..7) {
            0 => format!("wait: {{ for: {}s }}", rng.random_range(0..90)),
            3 => map(rng),
            1 => {
                after.insert("look".to_owned());
                repair(rng)
            }
            2 => "workflow: child.yaml".to_owned(),
            _ => format!("task: sim.task, timeout: 1m{}", retry(rng)),
        };
        // A repair needs the findings of the step that looked.
        let needs_look = body.starts_with("repair");
        let after = if !after.is_empty() && rng.random_bool(0.4) {
            let each = after.iter().map(|name| {
                let condition = ["succeeded", "failed", "done", "skipped"].choose(rng).unwrap();
                format!("{name}: {}", if needs_look && name == "look" { "succeeded" } else { condition })
            });
            format!("{{ {} }}", each.collect::<Vec<_>>().join(", "))
        } else {
            let run_if = ["all_succeeded", "any_succeeded", "all_done", "any_failed"].choose(rng).unwrap();
            let run_if = if after.is_empty() || needs_look { String::new() } else { format!(", run_if: {run_if}") };
            format!("[{}]{run_if}", after.into_iter().collect::<Vec<_>>().join(", "))
        };
        writeln!(text, "  d{at}: {{ {body}, after: {after} }}").unwrap();
    }
    text
}

fn state_machine(rng: &mut SmallRng) -> String {
    let steps = rng.random_range(1..7);
    let mut text = format!("  look: {{ detect: sim.detect, next: s0{} }}\n", retry(rng));
    let mut fails = false;
    for at in 0..steps {
        let next = if at + 1 == steps { "last".to_owned() } else { format!("s{}", at + 1) };
        let later = if at + 1 == steps { "last".to_owned() } else { format!("s{}", rng.random_range(at + 1..steps)) };
        let earlier = format!("s{}", rng.random_range(0..=at));
        let kind = rng.random_range(0..9);
        let body = match kind {
            0 => format!("wait: {{ for: {}s }}", rng.random_range(0..200_000)),
            1 => "wait: { until: { sensor: sim.sense, every: 7s } }".to_owned(),
            2 | 3 => repair(rng),
            4 => "verify: look".to_owned(),
            5 => format!("parallel:\n{}", branches(rng, at)),
            6 => "workflow: child.yaml".to_owned(),
            7 => map(rng),
            _ => format!("task: sim.task, timeout: 1m{}", retry(rng)),
        };
        let catch = match rng.random_range(0..3) {
            0 => format!("[{{ on: any, goto: {later} }}]"),
            1 => {
                fails = true;
                "[{ on: [denied], goto: give_up }]".to_owned()
            }
            _ => "[]".to_owned(),
        };
        let next = match rng.random_range(0..3) {
            0 if kind >= 8 => {
                format!("[{{ when: $output.n % 2 = 0, goto: {later} }}, {{ when: $visits < 3, goto: {earlier} }}, {{ goto: {next} }}]")
            }
            1 => format!("[{{ when: $visits < {}, goto: {earlier} }}, {{ goto: {next} }}]", rng.random_range(1..4)),
            _ => next,
        };
        if kind == 5 {
            writeln!(text, "  s{at}:\n    {body}    catch: {catch}\n    next: {next}").unwrap();
        } else {
            writeln!(text, "  s{at}: {{ {body}, catch: {catch}, next: {next} }}").unwrap();
        }
    }
    text.push_str("  last: { task: sim.task, with: { safe: true }, retry: [{ on: any, attempts: 9 }], end: true }\n");
    if fails {
        text.push_str("  give_up: { fail: given up }\n");
    }
    text
}

/// Branches that do not fail for good: which others would have come to their end by then depends on how long a crash took.
fn branches(rng: &mut SmallRng, of: i32) -> String {
    let mut text = String::new();
    for branch in 0..rng.random_range(1..4) {
        let name = |step: i32| format!("s{of}b{branch}x{step}");
        writeln!(text, "      b{branch}:\n        start: {}\n        steps:", name(0)).unwrap();
        let steps = rng.random_range(1..4);
        for step in 0..steps {
            let end = if step + 1 == steps { "end: true".to_owned() } else { format!("next: {}", name(step + 1)) };
            let body = match rng.random_range(0..3) {
                0 => format!("wait: {{ for: {}s }}", rng.random_range(0..60)),
                _ => "task: sim.task, with: { safe: true }, retry: [{ on: transient, attempts: 5, jitter: full }]".to_owned(),
            };
            writeln!(text, "          {}: {{ {body}, {end} }}", name(step)).unwrap();
        }
    }
    text
}

/// When, and how, each life of the process ends; the last one is left alone.
fn lives(rng: &mut SmallRng) -> Vec<Life> {
    let crashes = rng.random_range(0..7);
    let life = |rng: &mut SmallRng| match rng.random_range(0..8) {
        0 => Life::FailedWrite(rng.random_range(1..12)),
        1 => Life::Stopped(rng.random_range(0..30_000)),
        _ => Life::Crash(rng.random_range(1..25), if rng.random_bool(0.5) { Moment::Before } else { Moment::After }),
    };
    (0..crashes).map(|_| life(rng)).collect()
}

/// Drives a run to its end, through all its lives.
async fn drive(world: &Arc<World>, text: &str, lives: &[Life]) -> Result<RunState> {
    let registry = registry(world);
    let children = BTreeMap::from([("child.yaml".to_owned(), CHILD.to_owned())]);
    let workflow = Workflow::parse_with("sim.yaml", text, &registry, &children).unwrap_or_else(|told| panic!("{told}"));
    let clock = Arc::new(VirtualClock::starting_at(world.base));
    let mut lives = lives.iter().copied().map(Some).chain([None]);
    loop {
        let life = lives.next().flatten();
        let schedule = Life::schedule(life);
        let inner = Life::journal(life, Arc::new(world.journal.clone()));
        let lake = Arc::new(CrashingLake::new(Arc::new(world.lake.clone()), schedule.clone()));
        let mut engine = Engine::new(registry.clone(), lake, Arc::new(CrashingJournal::new(inner, schedule.clone())));
        engine.clock = clock.clone();
        // Nobody else is there to be fenced; a lease of a dead process is over when the next begins.
        engine.options = EngineOptions::default()
            .with_lease(Duration::from_secs(3_000_000))
            .with_poll(Duration::from_secs(86_400))
            // Whoever goes on does so from a state that was kept, mostly.
            .with_keep_every(1 + draw(world.seed, "keep") % 12)
            .with_grace(Duration::from_secs(10));
        Life::stop_in_time(life, &engine.stop);
        let request = StartRequest::new(RUN);
        let done = engine.start(&workflow, request).await;
        // The works of a dead process are dead with it.
        drop(engine);
        match (done, life) {
            (Ok(_), _) => return load_whole(&world.journal, RUN).await,
            (Err(error), Some(_)) if Life::ends_with(&error) => {
                world.journal.all_drivers_died();
            }
            (Err(error), _) => return Err(error),
        }
    }
}

/// What a run came to, without what may differ: times, and what crashes cost.
fn summary(state: &RunState) -> String {
    let mut text =
        format!("{:?} {:?}\n", state.ended.as_ref().map(|ended| ended.outcome), state.ended.as_ref().and_then(|ended| ended.error));
    for (name, step) in &state.steps {
        let settled = match &step.settled {
            Some(Settled::Succeeded) => "succeeded".to_owned(),
            Some(Settled::Failed { error }) => format!("failed {}", error.kind),
            Some(Settled::Skipped { why }) => format!("skipped {why}"),
            Some(other) => panic!("a result that this test does not know: {other:?}"),
            None => String::new(),
        };
        let mut output = step.output.clone();
        without_times(&mut output);
        writeln!(text, "{name}: visits {} attempts {} {settled} {output}", step.visits, step.attempts).unwrap();
    }
    text
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| name != "entered_at" && name != "due");
            fields.values_mut().for_each(without_times);
        }
        Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}

/// The rows and absences that readers see, each with how often.
fn seen(world: &World) -> BTreeMap<(i64, String), usize> {
    let mut seen = BTreeMap::new();
    let times = |batch: &RecordBatch| batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec();
    let repaired = world.lake.rows(&table(), Layer::Repaired).unwrap();
    times(&repaired).into_iter().for_each(|time| *seen.entry((time, "view".to_owned())).or_default() += 1);
    for (what, name) in [("repair", overlay::repairs("bars")), ("absent", overlay::exceptions("bars"))] {
        let own = Table { name: name.clone(), location: name, ..table() };
        let Ok(batch) = world.lake.rows(&own, Layer::Raw) else { continue };
        let unit = batch.column_by_name(overlay::columns::UNIT).unwrap().as_string::<i32>().clone();
        let step = batch.column_by_name(overlay::columns::STEP).unwrap().as_string::<i32>().clone();
        for (row, time) in times(&batch).into_iter().enumerate() {
            assert!(unit.is_valid(row));
            *seen.entry((time, format!("{what} by {} {}", step.value(row), unit.value(row)))).or_default() += 1;
        }
    }
    seen
}

/// What must be true of every history. Returns whether a repair step gave up with units not begun, because too many had failed: how many
/// others were done by then depends on how long things took.
async fn check_history(world: &World, state: &RunState) -> bool {
    let history = world.journal.read(RUN, 0, usize::MAX).await.unwrap();
    let mut cut_off = false;
    let mut folded = RunState::begin(&history[0]).unwrap();
    for recorded in &history[1..] {
        if let Event::StepFailed { step, units: true, .. } = &recorded.event {
            cut_off |= folded.steps[step].units.as_ref().is_some_and(|units| units.pending() > 0);
            cut_off |= folded.steps[step].map.as_ref().is_some_and(|map| map.pending().next().is_some());
        }
        folded.apply(recorded).unwrap();
    }
    let from_kept = load(&world.journal, RUN).await.unwrap();
    if from_kept != folded {
        world.wrong(format!("what was kept is not what the events add up to: {from_kept:?}, not {folded:?}"));
    }
    let mut due: BTreeMap<String, Timestamp> = BTreeMap::new();
    for recorded in history {
        match &recorded.event {
            Event::TimerSet { step, due: until } | Event::RetryScheduled { step, due: until, .. } => {
                due.insert(step.clone(), *until);
            }
            Event::StepSucceeded { step, .. } | Event::StepFailed { step, .. } if due.remove(step).is_some_and(|due| recorded.at < due) => {
                world.wrong(format!("{step} ended before its timer: event {}", recorded.sequence));
            }
            Event::StepEntered { step, .. } => {
                due.remove(step);
            }
            _ => {}
        }
    }
    for (name, step) in &state.steps {
        if let Some(units) = &step.units {
            let counted = units.pending() + units.staged() + units.published() + units.failed();
            if counted != units.len() {
                world.wrong(format!("the units of {name} do not add up"));
            }
            if state.ended.as_ref().is_some_and(|ended| ended.outcome == Outcome::Succeeded) && units.failed() > 0 {
                world.wrong(format!("units of {name} failed, and the outcome does not say so"));
            }
        }
    }
    cut_off
}

async fn try_seed(seed: u64) -> Result<u64, String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let text = generate(&mut rng);
    let lives = lives(&mut rng);
    let told = |what: String| format!("seed {seed}: {what}\nlives: {lives:?}\n{text}");
    // Longer than any wait of any workflow: a run that takes more is stuck.
    let patience = Duration::from_secs(100 * 86_400);
    let mut ends = Vec::new();
    let (mut performed, mut cut_off) = (0, false);
    let budget = text.lines().find_map(|line| line.strip_prefix(BUDGET)?.strip_suffix(" }")?.parse::<u64>().ok());
    // What a crash has hidden counts as spent, so one that is killed comes to the end of its budget sooner.
    cut_off |= budget.is_some();
    for lives in [&[][..], &lives] {
        let world = World::new(seed);
        let driven = tokio::time::timeout(patience, drive(&world, &text, lives)).await;
        let state = driven.map_err(|_| told("stuck".to_owned()))?.map_err(|error| told(error.full()))?;
        cut_off |= check_history(&world, &state).await;
        if let Some(wrong) = world.wrong.lock().unwrap().first() {
            return Err(told(wrong.clone()));
        }
        let calls = world.calls.load(Ordering::Relaxed);
        if budget.is_some_and(|budget| calls > budget) {
            return Err(told(format!("{calls} calls were made")));
        }
        let seen = seen(&world);
        // A workflow may come to a repair step again without looking in between; each visit's effect is there once, and readers see one.
        let most = |by: &str| by.split(' ').nth(2).map_or(1, |step| state.steps[step].visits as usize);
        if let Some((what, times)) = seen.iter().find(|((_, by), times)| **times > most(by)) {
            return Err(told(format!("{what:?} is there {times} times")));
        }
        performed += world.performed.load(Ordering::Relaxed);
        ends.push((summary(&state), seen));
    }
    if ends[0] != ends[1] && !cut_off {
        return Err(told(format!(
            "killed, it ended otherwise\nundisturbed: {}\nkilled: {}\n{:?}\n{:?}",
            ends[0].0, ends[1].0, ends[0].1, ends[1].1
        )));
    }
    Ok(performed)
}

#[test]
fn killed_at_any_instant_a_run_ends_as_if_it_never_was() {
    let seeds = testdata::seeds(200, 2_000);
    let next = AtomicU64::new(seeds.start);
    let (failed, performed, tried) = (Mutex::new(None::<String>), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let _printed = testdata::PrintedOnPanic::seed(seed);
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
                    match runtime.block_on(try_seed(seed)) {
                        Ok(count) => drop((performed.fetch_add(count, Ordering::Relaxed), tried.fetch_add(1, Ordering::Relaxed))),
                        Err(told) => drop(failed.lock().unwrap().get_or_insert(format!("{told}\n{}", testdata::repeat(seed)))),
                    }
                }
            });
        }
    });
    if let Some(told) = failed.into_inner().unwrap() {
        panic!("{told} -p repair-core --test it simulation::");
    }
    assert_eq!(tried.into_inner(), seeds.end - seeds.start);
    assert!(performed.into_inner() >= seeds.end - seeds.start, "hardly anything was done");
}
