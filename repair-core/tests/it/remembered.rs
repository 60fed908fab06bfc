//! The answers of a source are remembered through kills, stops and retries, so that the same answer to two requests is noticed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use repair_core::engine::{Engine, EngineOptions, Outcome, RunReport, StartRequest};
use repair_core::lake::{Layer, overlay};
use repair_core::plugin::{Answer, Limits, Registry, Request, Source, StepContext};
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock, minute_table};
use repair_core::workflow::Workflow;
use repair_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use tokio::sync::Notify;

/// Rows of one sensor in some minutes of 1970, whose values depend on `from`.
fn rows(minutes: std::ops::Range<i64>, from: i64) -> RecordBatch {
    let count = usize::try_from(minutes.end - minutes.start).unwrap();
    let values = (0i32..).take(count).map(|minute| f64::from(minute) + f64::from(i32::try_from(from).unwrap()) / 1_000.0);
    let columns: [(&str, ArrayRef); 3] = [
        ("sensor", Arc::new(StringArray::from(vec!["a"; count]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(minutes.map(|minute| minute * 60_000_000)).with_timezone("UTC"))),
        ("value", Arc::new(Float64Array::from_iter_values(values))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Answers its second request only once `waits` is over, and then with the values of its first, whoever asks.
#[derive(Default)]
struct Repeats {
    asked: AtomicU32,
    second: Notify,
    waits: std::sync::atomic::AtomicBool,
}

struct Handle(Arc<Repeats>);

#[derive(Deserialize, schemars::JsonSchema)]
struct Nothing {}

#[async_trait]
impl Source for Handle {
    fn limits(&self) -> Limits {
        Limits::new(20, 1)
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        if self.0.asked.fetch_add(1, Ordering::SeqCst) == 1 {
            self.0.second.notify_one();
        }
        if self.0.asked.load(Ordering::SeqCst) > 1 && self.0.waits.load(Ordering::SeqCst) {
            context.cancel.cancelled().await;
            return Err(Error::new(ErrorKind::Cancelled, "the request was stopped"));
        }
        let minute = |instant: jiff::Timestamp| instant.as_second() / 60;
        Ok(Answer::new(vec![rows(minute(request.interval.from())..minute(request.interval.to()), 7)]))
    }
}

struct World {
    lake: MemoryLake,
    journal: MemoryJournal,
    clock: VirtualClock,
    registry: Arc<Registry>,
    source: Arc<Repeats>,
}

impl World {
    fn new() -> Self {
        let (lake, source) = (MemoryLake::default(), Arc::new(Repeats::default()));
        lake.put_table(&minute_table("readings", "sensor"), &[rows(0..10, 0)]).unwrap();
        let mut registry = Registry::default();
        let made = source.clone();
        registry.source("repeats", "answers as before", move |_: Nothing| Ok(Handle(made.clone())));
        let clock = VirtualClock::starting_at("2024-03-04T09:00:00Z".parse().unwrap());
        Self { lake, journal: MemoryJournal::default(), clock, registry: Arc::new(registry), source }
    }

    fn engine(&self) -> Engine {
        let mut engine = Engine::new(self.registry.clone(), Arc::new(self.lake.clone()), Arc::new(self.journal.clone()));
        engine.clock = Arc::new(self.clock);
        engine.options = EngineOptions::default().with_lease(Duration::from_secs(30)).with_grace(Duration::from_secs(5));
        engine
    }

    fn workflow(&self) -> Workflow {
        let text = "workflow: w\nkind: state-machine\n\
            tables: { readings: { location: readings, format: parquet, key: [sensor], time: ts, cadence: 1m } }\n\
            sources: { market: { source: repeats } }\nstart: look\nsteps:\n  \
            look: { detect: gaps, with: { table: readings, keys: [a], from: '1970-01-01T00:10:00Z', to: '1970-01-01T00:50:00Z' }, next: fill }\n  \
            fill: { repair: backfill, of: look, concurrency: 1, with: { source: market, neighbours: false }, end: true }\n";
        Workflow::parse("w.yaml", text, &self.registry).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// The rows of the first answer are repairs, and those of the second are not.
    fn check(&self, report: &RunReport) {
        assert_eq!(report.outcome, Some(Outcome::Failed));
        let said = report.problems.join("; ");
        assert!(said.contains("answered with the same values for a from") && said.contains("ignore the request"), "{said}");
        let seen = self.lake.rows(&minute_table("readings", "sensor"), Layer::Repaired).unwrap();
        let by = arrow::array::AsArray::as_string::<i32>(seen.column_by_name(overlay::REPAIRED_BY).unwrap());
        assert_eq!(by.iter().flatten().count(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_answer_is_noticed_in_an_undisturbed_run() {
    let world = World::new();
    world.check(&world.engine().start(&world.workflow(), StartRequest::new("run")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_same_answer_is_noticed_after_a_kill_between_two_requests() {
    // At once, the first unit is staged and not on record; after a while, it is on record.
    for waits_s in [0, 1] {
        let world = World::new();
        world.source.waits.store(true, Ordering::SeqCst);
        let (engine, workflow) = (world.engine(), world.workflow());
        let driven = tokio::spawn(async move { engine.start(&workflow, StartRequest::new("run")).await });
        world.source.second.notified().await;
        if waits_s > 0 {
            tokio::time::sleep(Duration::from_secs(waits_s)).await;
        }
        driven.abort();
        let _ = driven.await;
        world.source.waits.store(false, Ordering::SeqCst);
        let report = world.engine().resume("run").await.unwrap();
        world.check(&report);
        assert_eq!(world.source.asked.load(Ordering::SeqCst), 3, "the first request is not made again");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_answer_is_noticed_after_a_stop_that_published_the_first() {
    let world = World::new();
    world.source.waits.store(true, Ordering::SeqCst);
    let (engine, workflow) = (world.engine(), world.workflow());
    let stop = engine.stop.clone();
    let driven = tokio::spawn(async move { engine.start(&workflow, StartRequest::new("run")).await });
    world.source.second.notified().await;
    stop.cancel();
    assert_eq!(driven.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    let rows = world.lake.rows(&minute_table("readings", "sensor"), Layer::Repaired).unwrap().num_rows();
    assert_eq!(rows, 30, "what was answered is published");
    world.source.waits.store(false, Ordering::SeqCst);
    world.check(&world.engine().resume("run").await.unwrap());
}
