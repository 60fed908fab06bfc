//! A process that dies at any write, for kinds of steps of which whole runs are deterministic: the run goes on in the next process, does nothing again
//! that was done, and ends as if nothing had happened.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::engine::{Engine, EngineOptions, Event, Journal, Outcome, RunState, StartRequest, item_run_id, load_whole};
use repair_core::lake::said::Decision;
use repair_core::model::Usage;
use repair_core::plugin::{Clock, Registry, StepContext, Task};
use repair_core::testing::{CrashingJournal, CrashingLake, MemoryJournal, MemoryLake, Moment, Schedule, VirtualClock, is_crash};
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Value, json};

const RUN: &str = "run";
const BASE: &str = "2024-03-04T09:00:00Z";

/// What outlives a process.
struct World {
    journal: MemoryJournal,
    lake: MemoryLake,
    clock: VirtualClock,
    /// What was done, by what it was about.
    done: Mutex<BTreeMap<String, u32>>,
    /// Calls, as whoever is called counts them.
    calls: Mutex<u64>,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Config {
    about: String,
    #[serde(default)]
    asks: u64,
    /// Fails in these attempts of its visit.
    #[serde(default)]
    fails: Vec<u32>,
}

struct Does(Arc<World>, Config);

#[async_trait]
impl Task for Does {
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        let Self(world, config) = self;
        for _ in 0..config.asks {
            let call = context.calls.begin(Usage { source_requests: 1, ..Usage::default() }).await?;
            *world.calls.lock().unwrap() += 1;
            context.calls.end(call, Some(Usage { source_requests: 1, ..Usage::default() })).await?;
        }
        context.clock.sleep_until(context.clock.now().checked_add(jiff::SignedDuration::from_secs(1)).unwrap()).await;
        *world.done.lock().unwrap().entry(config.about.clone()).or_default() += 1;
        if config.fails.contains(&context.attempt) {
            return Err(Error::new(ErrorKind::Transient, "it was to fail"));
        }
        Ok((json!({ "about": config.about }), Usage::default()))
    }
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            journal: MemoryJournal::default(),
            lake: MemoryLake::default(),
            clock: VirtualClock::starting_at(BASE.parse().unwrap()),
            done: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    fn registry(self: &Arc<Self>) -> Arc<Registry> {
        let mut registry = Registry::default();
        let world = self.clone();
        registry.task("do", "does", move |config: Config| Ok(Does(world.clone(), config)));
        Arc::new(registry)
    }

    fn engine(self: &Arc<Self>, schedule: &Schedule) -> Engine {
        let lake = CrashingLake::new(Arc::new(self.lake.clone()), schedule.clone());
        let journal = CrashingJournal::new(Arc::new(self.journal.clone()), schedule.clone());
        let mut engine = Engine::new(self.registry(), Arc::new(lake), Arc::new(journal));
        engine.clock = Arc::new(self.clock);
        engine.options = EngineOptions::default()
            .with_lease(Duration::from_secs(3_000_000))
            .with_poll(Duration::from_secs(86_400))
            .with_keep_every(5)
            .with_grace(Duration::from_secs(10));
        engine
    }

    /// Drives the run in one process. `None` if it crashed.
    async fn live(self: &Arc<Self>, text: &str, schedule: &Schedule) -> Option<RunState> {
        let workflow = Workflow::parse("w.yaml", text, &self.registry()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let engine = self.engine(schedule);
        let done = Box::pin(engine.start(&workflow, StartRequest::new(RUN))).await;
        drop(engine);
        match done {
            Ok(_) => Some(load_whole(&self.journal, RUN).await.unwrap()),
            Err(error) => {
                assert!(schedule.crashed() && is_crash_of(&error), "{}", error.full());
                // Works that run beside the loop are dead with their process.
                tokio::task::yield_now().await;
                self.journal.all_drivers_died();
                None
            }
        }
    }

    /// The items that have ended, according to the durable history of the run, and those whose own run has.
    async fn ended_items(&self, items: u32) -> Vec<u32> {
        let mut ended = Vec::new();
        for item in 0..items {
            let run = item_run_id(RUN, "each", 1, item);
            if let Ok(state) = load_whole(&self.journal, &run).await
                && state.ended.is_some_and(|ended| ended.outcome == Outcome::Succeeded)
            {
                ended.push(item);
            }
        }
        ended
    }
}

fn is_crash_of(error: &Error) -> bool {
    let mut error: Option<&dyn std::error::Error> = Some(error);
    while let Some(this) = error {
        if this.downcast_ref::<Error>().is_some_and(is_crash) {
            return true;
        }
        error = this.source();
    }
    false
}

const MAP: &str = "workflow: w
kind: dag
budget: { calls: 9 }
steps:
  first: { task: do, with: { about: first, asks: 1 } }
  each:
    map: { over: [a, b, c, d] }
    as: name
    concurrency: 2
    tolerate: { failed: 1 }
    retry: [{ on: transient, attempts: 1, interval: 1s, jitter: none }]
    start: ask
    steps:
      ask: { task: do, with: { about: \"{% $name & ' asks' %}\", asks: 1 }, next: do }
      do: { task: do, with: { about: \"{% $name %}\", fails: \"{% $name = 'c' ? [1, 2] : $name = 'd' ? [1] : [] %}\" }, end: true }
    after: first
  last: { task: do, with: { about: last }, after: { each: succeeded } }
";

/// How the run ended, and how its items did, without times.
fn summary(state: &RunState) -> (Option<Outcome>, Vec<(u32, Outcome)>) {
    let map = state.steps["each"].map.as_ref().unwrap();
    (state.ended.as_ref().map(|ended| ended.outcome), map.ended.iter().map(|(item, result)| (*item, result.outcome)).collect())
}

#[tokio::test(start_paused = true)]
async fn a_map_goes_on_after_a_crash_at_any_write_and_runs_no_item_again_that_had_ended() {
    let world = World::new();
    let schedule = Schedule::never();
    let undisturbed = world.live(MAP, &schedule).await.unwrap();
    let writes = schedule.writes();
    assert!(writes > 50, "{writes}");
    let expected = summary(&undisturbed);
    assert_eq!(expected.0, Some(Outcome::SucceededWithExceptions));
    assert_eq!(world.done.lock().unwrap().get("c"), Some(&2));
    assert_eq!(world.done.lock().unwrap().get("d"), Some(&2));
    for write in 1..=writes {
        for moment in [Moment::Before, Moment::After] {
            let world = World::new();
            let first = Schedule::crash_at(write, moment);
            let ended = world.live(MAP, &first).await;
            let (ended, resumed) = match ended {
                Some(state) => (state, false),
                None => {
                    let before = world.ended_items(4).await;
                    let done_before = world.done.lock().unwrap().clone();
                    let state = world.live(MAP, &Schedule::never()).await.unwrap();
                    let done = world.done.lock().unwrap().clone();
                    for item in before {
                        let name = ["a", "b", "c", "d"][item as usize];
                        for about in [name.to_owned(), format!("{name} asks")] {
                            assert_eq!(done.get(&about), done_before.get(&about), "write {write} {moment:?}: item {item} ran again");
                        }
                    }
                    (state, true)
                }
            };
            assert_eq!(summary(&ended), expected, "write {write} {moment:?} {resumed}");
            let done = world.done.lock().unwrap().clone();
            // A crash costs at most one more attempt of what was under way; nothing is left out.
            for (about, times) in [("first", 1), ("a", 1), ("b", 1), ("c", 2), ("d", 2), ("last", 1)] {
                let known = done.get(about).copied().unwrap_or(0);
                assert!((times..=times + u32::from(resumed)).contains(&known), "write {write} {moment:?}: {about} was done {known} times");
            }
            let calls = *world.calls.lock().unwrap();
            assert!(calls <= 9, "write {write} {moment:?}: {calls} calls");
            // What was on record before a call was made covers all of them.
            let events = world.journal.read(RUN, 0, usize::MAX).await.unwrap();
            let mut allowed: BTreeMap<u32, u64> = BTreeMap::new();
            for recorded in events {
                match recorded.event {
                    Event::InnerSpend { item, spend, .. } => drop(allowed.insert(item, spend.calls)),
                    Event::ItemEnded { item, result, .. } => drop(allowed.insert(item, result.spend.unwrap().calls)),
                    _ => {}
                }
                assert!(allowed.values().sum::<u64>() <= 9, "write {write} {moment:?}: {allowed:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_map_that_is_killed_again_and_again_stays_within_its_budget() {
    // Each process dies soon after the last, so that many calls are made whose end is unknown.
    for every in 3..12 {
        let world = World::new();
        let text = MAP.replace("calls: 9", "calls: 7").replace("asks: 1 }, next", "asks: 3 }, next");
        let mut lives = 0;
        let state = loop {
            lives += 1;
            assert!(lives < 500, "it makes no progress");
            let schedule = if lives < 40 { Schedule::crash_at(every + lives % 5, Moment::After) } else { Schedule::never() };
            if let Some(state) = world.live(&text, &schedule).await {
                break state;
            }
        };
        assert!(state.ended.is_some());
        let calls = *world.calls.lock().unwrap();
        assert!(calls <= 7, "every {every}: {calls} calls");
    }
}

const APPROVAL: &str = "workflow: w
kind: state-machine
start: before
steps:
  before: { task: do, with: { about: before }, next: ask }
  ask: { wait: { until: { approval: Publish it?, every: 10s } }, next: after, catch: [{ on: denied, goto: rejected }] }
  after: { task: do, with: { about: after }, end: true }
  rejected: { task: do, with: { about: rejected }, end: true }
";

/// A person who answers while a process lives, or after it died.
#[tokio::test(start_paused = true)]
async fn an_approval_is_waited_for_and_counts_once_whichever_write_a_process_dies_at() {
    let decide = async |world: &World, approved: bool| {
        let at: Timestamp = world.clock.now();
        Decision::new(approved, 1, "ada", at, None).say(&world.lake, RUN, "ask", 1).await.unwrap();
    };
    for approved in [true, false] {
        let (next, other) = if approved { ("after", "rejected") } else { ("rejected", "after") };
        let live = async |world: &Arc<World>, schedule: &Schedule, answers: bool| {
            let saying = world.clone();
            let person = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(25)).await;
                if answers {
                    let at = saying.clock.now();
                    Decision::new(approved, 1, "ada", at, None).say(&saying.lake, RUN, "ask", 1).await.unwrap();
                }
            });
            // If nobody answers, the process is ended at last.
            let ended = tokio::time::timeout(Duration::from_secs(60), world.live(APPROVAL, schedule)).await;
            person.abort();
            world.journal.all_drivers_died();
            ended.ok().flatten()
        };
        let world = World::new();
        let schedule = Schedule::never();
        let state = live(&world, &schedule, true).await.unwrap();
        let outcome = state.ended.as_ref().map(|ended| ended.outcome);
        let writes = schedule.writes();
        assert!(writes > 5, "{writes}");
        for write in 1..=writes {
            for moment in [Moment::Before, Moment::After] {
                for answered_between in [false, true] {
                    let world = World::new();
                    let ended = match live(&world, &Schedule::crash_at(write, moment), !answered_between).await {
                        Some(ended) => ended,
                        None => {
                            if answered_between && load_whole(&world.journal, RUN).await.is_ok_and(|state| state.active.contains_key("ask"))
                            {
                                decide(&world, approved).await;
                            }
                            live(&world, &Schedule::never(), true).await.unwrap()
                        }
                    };
                    let which = format!("{approved} write {write} {moment:?} {answered_between}");
                    assert_eq!(ended.ended.as_ref().map(|ended| ended.outcome), outcome, "{which}");
                    let done = world.done.lock().unwrap().clone();
                    assert!(done.get(next).is_some_and(|times| (1..=2).contains(times)), "{which}: {done:?}");
                    assert_eq!(done.get(other), None, "{which}");
                    if approved {
                        assert_eq!(ended.steps["ask"].output["by"], json!("ada"), "{which}");
                    }
                    assert_eq!(ended.steps["ask"].visits, 1, "{which}");
                }
            }
        }
    }
}
