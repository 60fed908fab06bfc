//! `give_up_after`: what so many runs have asked for in vain, nobody asks for any more, until somebody lifts that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{rows, table};
use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::engine::{Engine, EngineOptions, RunReport, StartRequest};
use repair_core::lake::Overlay;
use repair_core::lake::overlay::aside::{Asides, Verdict};
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::model::{Interval, SlotRange};
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair_core::testing::{CrashingJournal, CrashingLake, MemoryJournal, MemoryLake, Moment, Schedule, VirtualClock, is_crash};
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};
use serde_json::Value;

const BASE: &str = "2024-03-04T09:00:00Z";
/// The hour of which the test is about.
const HOUR: (&str, &str) = ("2024-03-04T08:00:00Z", "2024-03-04T09:00:00Z");

/// Knows the first half of the hour, and has nothing of the second, without knowing that there was nothing.
struct Half(Arc<World>);

#[async_trait]
impl Source for Half {
    fn limits(&self) -> Limits {
        Limits::new(10, 1)
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        if self.0.is_down.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Transient, "the source is down"));
        }
        let slots = table().grid().unwrap().slots_in(&request.interval);
        self.0.asked.lock().unwrap().push(slots);
        let hour = hour();
        let known: Vec<i64> = (slots.first..slots.end).filter(|slot| *slot < hour.first + 30).collect();
        let covered = Interval::new(request.interval.from(), request.interval.to()).unwrap();
        let knows_all = slots.end <= hour.first + 30;
        let covered = knows_all.then(|| Covered { key: request.keys[0].clone(), interval: covered });
        Ok(Answer::new(vec![rows(&known)]).with_covered(covered.into_iter().collect::<Vec<_>>()).with_said("the first half"))
    }
}

fn hour() -> SlotRange {
    table().grid().unwrap().slots_in(&Interval::parse(HOUR.0, HOUR.1).unwrap())
}

#[derive(Default)]
struct World {
    journal: MemoryJournal,
    lake: MemoryLake,
    asked: Mutex<Vec<SlotRange>>,
    is_down: AtomicBool,
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self::default();
        // Every tenth minute is there.
        let there: Vec<i64> = (hour().first..hour().end).filter(|slot| slot % 10 == 0).collect();
        world.lake.put_table(&table(), &[rows(&there)]).unwrap();
        Arc::new(world)
    }

    /// A run that dies when the schedule says so, and goes on in a new process.
    async fn run(self: &Arc<Self>, run: &str, more: &str, schedule: &Schedule) -> RunReport {
        let mut registry = Registry::default();
        let world = self.clone();
        registry.source("half", "knows half", move |_: Value| Ok(Half(world.clone())));
        let registry = Arc::new(registry);
        let text = format!(
            "workflow: w\nkind: state-machine\ntables:\n  bars: {{ location: bars, format: parquet, key: [key], time: ts, cadence: 1m }}\n\
             sources: {{ half: {{ source: half }} }}\nstart: look\nsteps:\n  look: {{ detect: gaps, with: {{ table: bars, keys: [K], from: \"{}\", to: \"{}\" }}, next: fill }}\n  \
             fill: {{ repair: backfill, of: look, with: {{ source: half }}, concurrency: 1, {more} next: check }}\n  check: {{ verify: look, next: [{{ when: $visits < 2, \
             goto: fill }}, {{ goto: end }}] }}\n  end: {{ succeed: }}\n",
            HOUR.0, HOUR.1
        );
        let workflow = Workflow::parse("w.yaml", &text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
        for schedule in [schedule, &Schedule::never()] {
            let lake = CrashingLake::new(Arc::new(self.lake.clone()), schedule.clone());
            let journal = CrashingJournal::new(Arc::new(self.journal.clone()), schedule.clone());
            let mut engine = Engine::new(registry.clone(), Arc::new(lake), Arc::new(journal));
            engine.clock = Arc::new(VirtualClock::starting_at(BASE.parse::<Timestamp>().unwrap()));
            engine.options = EngineOptions::default().with_lease(Duration::from_secs(3_000_000)).with_poll(Duration::from_secs(86_400));
            match Box::pin(engine.start(&workflow, StartRequest::new(run))).await {
                Ok(report) => return report,
                Err(error) => assert!(schedule.crashed() && is_crash_of(&error), "{}", error.full()),
            }
            tokio::task::yield_now().await;
            self.journal.all_drivers_died();
        }
        panic!("the second process does not crash")
    }

    /// The slots for which the source was asked since this was called last.
    fn asked(&self) -> u64 {
        std::mem::take(&mut *self.asked.lock().unwrap()).into_iter().map(|slots| slots.len()).sum()
    }

    async fn given_up(&self) -> Vec<(String, Interval)> {
        let all = Asides::read(&self.lake, &table()).await.unwrap();
        assert!(all.iter().all(|aside| aside.verdict == Verdict::GivenUp));
        all.iter().map(|aside| (aside.id.clone(), aside.interval)).collect()
    }

    async fn lift(&self, id: &str) {
        let at = BASE.parse().unwrap();
        let lift = Retraction {
            id: format!("lift-{id}"),
            parts: Vec::new(),
            undoes: Some(id.to_owned()),
            at,
            by: "me".to_owned(),
            reason: "it came".to_owned(),
        };
        self.lake.retract(&table(), &lift).await.unwrap();
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

fn output(report: &RunReport, step: &str, field: &str) -> u64 {
    report.step(step).map(|step| step.output[field].as_u64().unwrap_or(0)).unwrap_or(u64::MAX)
}

/// The minutes of the second half, but the three that are there, in three stretches.
const VAIN: u64 = 27;

#[tokio::test(start_paused = true)]
async fn after_so_many_runs_nobody_asks_until_somebody_lifts_it() {
    let world = World::new();
    let never = Schedule::never();
    for run in ["one", "two"] {
        let report = world.run(run, "give_up_after: 2,", &never).await;
        assert!(world.asked() >= 2 * VAIN, "in each of two visits");
        assert_eq!((output(&report, "check", "missing"), world.given_up().await.len()), (VAIN, 0), "{run}");
    }
    let third = world.run("three", "give_up_after: 2,", &never).await;
    assert_eq!(world.asked(), 0);
    let given_up = world.given_up().await;
    assert_eq!(given_up.len(), 3, "{given_up:?}");
    assert_eq!((output(&third, "look", "missing"), output(&third, "check", "missing")), (VAIN, 0), "what is given up is not missing");
    let fourth = world.run("four", "give_up_after: 2,", &never).await;
    assert_eq!((output(&fourth, "look", "given_up"), output(&fourth, "look", "missing"), world.asked()), (VAIN, 0, 0));
    // One decision, which is lifted as one.
    world.lift(&given_up[0].0).await;
    assert!(world.given_up().await.is_empty());
    for run in ["five", "six"] {
        world.run(run, "give_up_after: 2,", &never).await;
        assert!(world.asked() >= 2 * VAIN && world.given_up().await.is_empty(), "{run}: it takes as many runs again");
    }
    world.run("seven", "give_up_after: 2,", &never).await;
    assert_eq!((world.asked(), world.given_up().await.len()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn an_outage_and_a_step_that_never_gives_up_give_up_nothing() {
    let world = World::new();
    let never = Schedule::never();
    world.is_down.store(true, Ordering::SeqCst);
    for run in ["one", "two", "three"] {
        world.run(run, "give_up_after: 2, tolerate: { failed: 100% },", &never).await;
    }
    world.is_down.store(false, Ordering::SeqCst);
    for run in ["four", "five", "six"] {
        world.run(run, "", &never).await;
        assert!(world.asked() >= 2 * VAIN && world.given_up().await.is_empty(), "{run}");
    }
    // Only what a step asks that gives up counts.
    for run in ["seven", "eight"] {
        world.run(run, "give_up_after: 2,", &never).await;
        assert!(world.asked() >= 2 * VAIN && world.given_up().await.is_empty(), "{run}");
    }
}

/// Each run is killed at every write, and goes on: it counts once, and what is given up is the same.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_killed_counts_once() {
    let (undisturbed, counting) = (World::new(), [Schedule::never(), Schedule::never(), Schedule::never()]);
    for (run, schedule) in ["one", "two", "three"].into_iter().zip(&counting) {
        undisturbed.run(run, "give_up_after: 2,", schedule).await;
    }
    let wanted = undisturbed.given_up().await;
    assert_eq!(wanted.len(), 3);
    for (killed, schedule) in counting.iter().enumerate() {
        assert!(schedule.writes() > 10);
        for write in (1..=schedule.writes()).step_by(testdata::by_length(3, 1)) {
            for moment in [Moment::Before, Moment::After] {
                let world = World::new();
                for (number, run) in ["one", "two", "three"].into_iter().enumerate() {
                    let schedule = if number == killed { Schedule::crash_at(write, moment) } else { Schedule::never() };
                    world.asked();
                    world.run(run, "give_up_after: 2,", &schedule).await;
                    let (given_up, words) = (world.given_up().await, format!("run {run}, killed {killed} at {write} {moment:?}"));
                    match number {
                        2 => assert_eq!((given_up, world.asked()), (wanted.clone(), 0), "{words}"),
                        _ => assert!(given_up.is_empty() && world.asked() >= VAIN, "{words}: {given_up:?}"),
                    }
                }
            }
        }
    }
}
