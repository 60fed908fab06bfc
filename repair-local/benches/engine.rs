//! What the engine costs, with the journal flushed at every commit: `cargo bench -p repair-local --bench engine`.
//!
//! Measured in one run, on one disk: the floor (the bytes that the journal would keep, appended to a file with `fdatasync` for each commit),
//! steps one after another, units of a fan-out, a DAG of a thousand steps; real units, which a source answers and the lake stages and publishes;
//! resuming a run of many events; waiting. Each part runs in a process of its own, and prints the most memory that it ever held.
//! `UNITS=1000000 STEPS=9000 REAL_UNITS=20000 ROWS=12 EVENTS=1000000` set how much; `PART=steps`, `dag`, `fanout`, `real`, `resume` or `wait` picks one.
#![deny(clippy::missing_trait_methods, reason = "a wrapper that forgets a method would answer for itself")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement that fails, panics"
)]

use std::io::{Seek, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use repair_core::Result;
use repair_core::engine::{Engine, Event, Journal, Observer, Recorded, RunState, StartRequest};
use repair_core::lake::extent::Extent;
use repair_core::lake::overlay::compaction::{Compactable, Compacted};
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::lake::rollup::Rollup;
use repair_core::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, KeptObject, Lake, Overlay, PresenceRequest, PresenceStream, Published, ReadLake,
    RowCountRequest, RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck,
};
use repair_core::model::Usage;
use repair_core::model::{
    Conflicts, Counts, Findings, Fix, GapList, Interval, Key, Scope, SlotRange, Suspects, Table, TablePresence, Unit, Wanted,
};
use repair_core::plugin::{Answer, Detector, Limits, PlannedUnits, Progress, Registry, Repairer, Request, Source, StepContext, Task};
use repair_core::workflow::Workflow;
use repair_local::{LocalLake, SqliteJournal};
use serde_json::{Value, json};

/// A lake whose staging and publishing cost nothing, so that the engine alone is measured; artifacts are real files.
struct Weightless(LocalLake);

#[async_trait]
impl ReadLake for Weightless {
    fn is_queried(&self) -> bool {
        self.0.is_queried()
    }

    fn hides_rows(&self) -> bool {
        self.0.hides_rows()
    }

    fn place(&self, table: &Table) -> String {
        self.0.place(table)
    }

    async fn repairs_of(&self, table: &Table) -> Result<Table> {
        self.0.repairs_of(table).await
    }

    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        self.0.describe(table).await
    }

    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        self.0.presence(table, request).await
    }

    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
        self.0.presence_in_pieces(table, request, pieces)
    }

    async fn extents(&self, table: &Table, intervals: &[Interval]) -> Result<Vec<Extent>> {
        self.0.extents(table, intervals).await
    }

    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        self.0.extent(table, interval).await
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        self.0.scan(table, request).await
    }

    async fn rollup(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        self.0.rollup(table, request).await
    }

    async fn row_counts(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
        self.0.row_counts(table, request).await
    }

    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>> {
        self.0.retractions(table).await
    }

    async fn query(&self, query: &repair_core::lake::Query<'_>) -> Result<BatchStream> {
        self.0.query(query).await
    }
}

#[async_trait]
impl Overlay for Weightless {
    async fn to_create(&self, table: &Table) -> Result<Vec<String>> {
        self.0.to_create(table).await
    }

    async fn stage(&self, _: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        Ok(Staged {
            unit: request.unit.to_owned(),
            rows: 1,
            absent: 0,
            conflicts: Conflicts::default(),
            suspects: Suspects::default(),
            answers: Vec::new(),
            usage: Usage::default(),
        })
    }

    async fn staged(&self, _: &StageScope<'_>) -> Result<Vec<Staged>> {
        Ok(Vec::new())
    }

    async fn publish(&self, _: &StageScope<'_>, _: u32, units: &[String]) -> Result<Published> {
        Ok(Published { rows: units.len() as u64, ..Published::default() })
    }

    async fn discard_staged(&self, _: &StageScope<'_>, _: &[String]) -> Result<()> {
        Ok(())
    }

    async fn retract(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        self.0.retract(table, retraction).await
    }

    async fn compactable(&self, table: &Table) -> Result<Vec<Compactable>> {
        self.0.compactable(table).await
    }

    async fn compact(&self, table: &Table, objects: &Compactable) -> Result<Vec<Compacted>> {
        self.0.compact(table, objects).await
    }

    async fn discard_compacted(&self, table: &Table, compacted: &Compacted) -> Result<()> {
        self.0.discard_compacted(table, compacted).await
    }
}

#[async_trait]
impl Artifacts for Weightless {
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage> {
        self.0.put_artifact(run, name, batches).await
    }

    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream> {
        self.0.get_artifact(run, name).await
    }

    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage> {
        self.0.copy_artifact(from, to).await
    }

    async fn kept(&self) -> Result<Vec<KeptObject>> {
        self.0.kept().await
    }

    async fn remove_kept(&self, objects: &[KeptObject]) -> Result<()> {
        self.0.remove_kept(objects).await
    }
}

#[async_trait]
impl Lake for Weightless {
    fn on_behalf_of(&self, _: &Caller) -> Option<Arc<dyn Lake>> {
        None
    }

    async fn check_writable(&self) -> Result<()> {
        Ok(())
    }

    async fn check_state(&self) -> Result<StateCheck> {
        self.0.check_state().await
    }

    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage> {
        self.0.replace(table, interval, rows).await
    }
}

struct Nothing;

#[async_trait]
impl Task for Nothing {
    fn query(&self) -> Option<repair_core::plugin::UserQuery<'_>> {
        None
    }

    async fn perform(&self, _: &StepContext) -> Result<(Value, Usage)> {
        Ok((Value::Null, Usage::default()))
    }
}

struct Finds(u64);

#[expect(clippy::missing_trait_methods, reason = "it wraps nothing, so the defaults are meant")]
#[async_trait]
impl Detector for Finds {
    async fn detect(&self, context: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        let interval = Interval::parse("1970-01-01", "1990-01-01")?;
        let mut gaps = GapList::default();
        gaps.push(&Key::from("K"), SlotRange::new(0, i64::try_from(self.0).unwrap()));
        let counts = Counts { missing: self.0, expected: self.0, gaps: 1, audited_keys: 1, ..Counts::default() };
        let grid = context.table("bars")?.grid()?;
        let scope = Scope {
            table: "bars".into(),
            grid,
            keys: vec![Key::from("K")],
            interval,
            calendar: "24x7".into(),
            lifetimes: Default::default(),
        };
        Ok(Findings::of_gaps(scope, counts, gaps, Usage::default()))
    }
}

/// A unit for every slot, repaired by nothing.
struct Repairs;

#[expect(clippy::missing_trait_methods, reason = "it wraps nothing, so the defaults are meant")]
#[async_trait]
impl Repairer for Repairs {
    async fn plan(&self, _: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let grid = findings.scope.grid;
        let slots = findings.gaps.hull().unwrap();
        Ok(Box::new((slots.first..slots.end).map(move |slot| {
            let slots = SlotRange::new(slot, slot + 1);
            Ok(Unit { interval: grid.interval_of(slots).unwrap(), wanted: vec![Wanted { key: Key::from("K"), slots: vec![slots] }] })
        })))
    }

    async fn repair(&self, _: &StepContext, _: &Findings, _: &Unit) -> Result<Fix> {
        Ok(Fix { source: "nothing".into(), usage: Usage { source_requests: 1, ..Usage::default() }, ..Fix::default() })
    }
}

/// Rounds in which the floor and steps are measured in turns.
const ROUNDS: u64 = 9;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The most memory that this process ever held, in MB.
fn peak_mb() -> f64 {
    status_mb("VmHWM")
}

/// What the system says of the memory of this process, in MB.
fn status_mb(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or_default() / 1_024.0
}

/// Commits a second of a file to which so many bytes are appended and flushed, again and again; or over which they are written, if it has room for them.
fn floor(folder: &Path, bytes: usize, commits: u64, has_room: bool) -> f64 {
    let mut file = std::fs::File::create(folder.join("floor")).unwrap();
    let record = vec![b'x'; bytes];
    if has_room {
        (0..commits).for_each(|_| file.write_all(&record).unwrap());
        file.sync_all().unwrap();
        file.rewind().unwrap();
    }
    let begun = Instant::now();
    for _ in 0..commits {
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
    }
    commits as f64 / begun.elapsed().as_secs_f64()
}

/// Slots from the begin of a gap to that of the next one of its key.
const APART: i64 = 16;
/// Keys that have gaps.
const KEYS: i64 = 100;

/// So many gaps of so many rows, over all keys.
struct FindsGaps(i64, i64);

#[expect(clippy::missing_trait_methods, reason = "it wraps nothing, so the defaults are meant")]
#[async_trait]
impl Detector for FindsGaps {
    async fn detect(&self, context: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        let Self(count, rows) = *self;
        let interval = Interval::parse("1970-01-01", "1999-01-01")?;
        let mut gaps = GapList::default();
        let keys: Vec<Key> = (0..KEYS).map(|key| Key::from(format!("K{key:02}").as_str())).collect();
        for (number, key) in (0..).zip(&keys) {
            let of_key = (0..count).filter(|gap| gap % KEYS == number);
            of_key.for_each(|gap| gaps.push(key, SlotRange::new(gap / KEYS * APART + 1, gap / KEYS * APART + 1 + rows)));
        }
        let missing = u64::try_from(count * rows).unwrap();
        let counts = Counts {
            missing,
            expected: missing,
            gaps: u64::try_from(count).unwrap(),
            audited_keys: keys.len() as u64,
            ..Counts::default()
        };
        let grid = context.table("bars")?.grid()?;
        let scope = Scope { table: "bars".into(), grid, keys, interval, calendar: "24x7".into(), lifetimes: Default::default() };
        Ok(Findings::of_gaps(scope, counts, gaps, Usage::default()))
    }
}

/// Has a row for each missing slot, and none beside gaps.
struct Sells(i64);

#[async_trait]
impl Source for Sells {
    fn query(&self) -> Option<repair_core::plugin::UserQuery<'_>> {
        None
    }

    fn limits(&self) -> Limits {
        Limits::new(u64::try_from(self.0 + 2).unwrap(), 1)
    }

    fn requests_at_worst(&self) -> u64 {
        1
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    async fn doubt(&self, _: &StepContext, _: &repair_core::model::Table) -> Result<Option<String>> {
        Ok(None)
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        const MINUTE_US: i64 = 60_000_000;
        let slots = request.interval.from().as_microsecond() / MINUTE_US..request.interval.to().as_microsecond() / MINUTE_US;
        let times: Vec<i64> = slots.filter(|slot| (1..=self.0).contains(&(slot % APART))).map(|slot| slot * MINUTE_US).collect();
        let key = request.keys[0].single().unwrap();
        let number: i64 = key[1..].parse().unwrap();
        let values: Float64Array = times.iter().map(|time| Some((time / MINUTE_US * 100 + number) as f64)).collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("key", Arc::new(StringArray::from(vec![key; times.len()]))),
            ("ts", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
            ("value", Arc::new(values)),
        ];
        Ok(Answer::new(vec![RecordBatch::try_from_iter(columns).unwrap()]))
    }
}

/// Real units: planned by `backfill`, answered by a source, staged and published in a folder.
async fn real(folder: &Path, units: u64, rows: i64) {
    let mut registry = Registry::default();
    let count = i64::try_from(units).unwrap();
    registry.detector("finds", "finds gaps", move |_: Value| Ok(FindsGaps(count, rows)));
    registry.source("sells", "answers", move |_: Value| Ok(Sells(rows)));
    let registry = Arc::new(registry);
    let text = "workflow: bench\ntables: { bars: { location: bars, format: csv, key: [key], time: ts, cadence: 1m } }\n\
        sources: { shop: { source: sells } }\nkind: state-machine\nstart: look\nsteps:\n  look: { detect: finds, next: fill }\n  \
        fill: { repair: backfill, of: look, with: { source: shop }, concurrency: 16, end: true }";
    let workflow = Workflow::parse("bench.yaml", text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    std::fs::create_dir_all(folder.join("bars")).unwrap();
    std::fs::write(folder.join("bars/one.csv"), "key,ts,value\nK00,1970-01-01T00:00:00Z,1.5\n").unwrap();
    let journal = Arc::new(SqliteJournal::open(folder.join("real.db")).unwrap());
    let engine = Engine::new(registry, Arc::new(LocalLake::open(folder).unwrap()), journal);
    let before_mb = peak_mb();
    let begun = Instant::now();
    let report = tokio::spawn(async move { engine.start(&workflow, StartRequest::new("real").with_environment(json!({}))).await });
    let report = report.await.unwrap().unwrap();
    let took = begun.elapsed();
    assert_eq!(report.outcome.map(|outcome| outcome.as_str()), Some("succeeded"), "{:?}", report.problems);
    let output = &report.step("fill").unwrap().output;
    assert_eq!((output["units"].as_u64(), output["repaired"].as_u64()), (Some(units), Some(units * u64::try_from(rows).unwrap())));
    let (rate, peak) = (units as f64 / took.as_secs_f64(), peak_mb());
    println!("real units:  {rate:>9.0} units/s of {units} with {rows} rows each, peak {peak:.1} MB, {before_mb:.1} MB before they began");
}

/// Stops the engine at the first event, and says when that was.
struct StopsAtFirst(Mutex<Option<Instant>>, Box<dyn Fn() + Send + Sync>);

impl Progress for StopsAtFirst {
    fn advance(&self, _: &str, _: u64, _: u64) {}

    fn beat(&self) {}
}

impl Observer for StopsAtFirst {
    fn recorded(&self, _: &Recorded, _: &RunState) {
        self.0.lock().unwrap().get_or_insert_with(Instant::now);
        (self.1)();
    }

    fn recorded_of(&self, _: &str, recorded: &Recorded, state: &RunState) {
        self.recorded(recorded, state);
    }
}

/// How long it takes to resume a run of so many events: the first time nothing of it was kept, then its state is.
async fn resume(folder: &Path, events: u64) {
    let mut registry = Registry::default();
    registry.task("nothing", "does nothing", |_: Value| Ok(Nothing));
    let registry = Arc::new(registry);
    let text = "workflow: bench\nkind: state-machine\nstart: a\nsteps:\n  \
        a: { task: nothing, next: [{ when: $visits < 1000000000, goto: a }, { goto: b }] }\n  b: { succeed: true }";
    let workflow = Workflow::parse("bench.yaml", text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    std::fs::create_dir_all(folder.join("lake")).unwrap();
    let journal = Arc::new(SqliteJournal::open(folder.join("resume.db")).unwrap());
    let lake = Arc::new(LocalLake::open(folder.join("lake")).unwrap());
    let engine = || {
        let mut engine = Engine::new(registry.clone(), lake.clone(), journal.clone());
        let stop = engine.stop.clone();
        let stops = Arc::new(StopsAtFirst(Mutex::default(), Box::new(move || stop.cancel())));
        engine.observer = stops.clone();
        (engine, stops)
    };
    let (first, _) = engine();
    first.start(&workflow, StartRequest::new("long").with_environment(json!({}))).await.unwrap_err();
    let mut next = journal.read("long", 0, usize::MAX).await.unwrap().len() as u64;
    let mut visit = 1;
    while next < events {
        let mut appended = Vec::new();
        for _ in 0..4_096 {
            let (step, usage) = ("a".to_owned(), Usage::default());
            appended.push(Event::StepSucceeded { step: step.clone(), output: Value::Null, findings: None, exceptions: None, usage });
            appended.push(Event::Moved { from: step.clone(), to: step.clone(), why: Some("$visits < 1000000000".to_owned()) });
            visit += 1;
            appended.push(Event::StepEntered { step, visit });
        }
        journal.append("long", next, jiff::Timestamp::now(), &appended).await.unwrap();
        next += appended.len() as u64;
    }
    for what in ["all events are read", "its state was kept", "its state was kept"] {
        let (engine, stops) = engine();
        let begun = Instant::now();
        engine.resume("long").await.unwrap_err();
        let took = stops.0.lock().unwrap().unwrap() - begun;
        println!("resume:      {:>9.3} s to the first new event of a run of {next}, {what}, peak {:.0} MB", took.as_secs_f64(), peak_mb());
    }
}

/// How much memory a run holds that waits.
async fn wait(folder: &Path) {
    let registry = Arc::new(Registry::default());
    let text = "workflow: bench\nkind: state-machine\nstart: a\nsteps:\n  a: { wait: { for: 1h }, end: true }";
    let workflow = Workflow::parse("bench.yaml", text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let journal = Arc::new(SqliteJournal::open(folder.join("wait.db")).unwrap());
    let engine = Engine::new(registry, Arc::new(LocalLake::open(folder).unwrap()), journal);
    let run = tokio::spawn(async move { engine.start(&workflow, StartRequest::new("waits").with_environment(json!({}))).await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!run.is_finished());
    println!(
        "waiting:     {:>9.1} MB, of which {:.1} MB are not the program's file, peak {:.1} MB",
        status_mb("VmRSS"),
        status_mb("RssAnon"),
        peak_mb()
    );
    run.abort();
}

/// How many bytes this process has written.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default()
}

/// How long a run takes, how many bytes its events are as JSON, how many events, and how many bytes were written.
async fn run(folder: &Path, name: &str, text: &str, units: u64) -> (Duration, usize, u64, u64) {
    let mut registry = Registry::default();
    registry.task("nothing", "does nothing", |_: Value| Ok(Nothing));
    registry.detector("finds", "finds so many slots missing", move |_: Value| Ok(Finds(units)));
    registry.repairer("repairs", "a unit for each slot", |_: Value| Ok(Repairs));
    let registry = Arc::new(registry);
    let text = format!("workflow: bench\ntables: {{ bars: {{ location: bars, format: csv, key: [key], time: ts, cadence: 1m }} }}\n{text}");
    let workflow = Workflow::parse("bench.yaml", &text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    std::fs::create_dir_all(folder.join("bars")).unwrap();
    std::fs::write(folder.join("bars/one.csv"), "key,ts,value\n").unwrap();
    let journal = Arc::new(SqliteJournal::open(folder.join(format!("{name}.db"))).unwrap());
    let engine = Engine::new(registry, Arc::new(Weightless(LocalLake::open(folder).unwrap())), journal.clone());
    let (begun, before) = (Instant::now(), written());
    let request = StartRequest::new(name).with_environment(json!({}));
    // As a task of its own, as a program that drives several runs does: it shares its thread with the works it begins.
    let driven = tokio::spawn(async move { engine.start(&workflow, request).await });
    let report = driven.await.unwrap().unwrap();
    let took = begun.elapsed();
    let written = written() - before;
    assert_eq!(report.outcome.map(|outcome| outcome.as_str()), Some("succeeded"), "{:?}", report.problems);
    let (mut bytes, mut events, mut from) = (0, 0, 0);
    loop {
        let page = journal.read(name, from, 4_096).await.unwrap();
        bytes += page.iter().map(|recorded| serde_json::to_string(recorded).unwrap().len()).sum::<usize>();
        events += page.len() as u64;
        from += page.len() as u64;
        if page.len() < 4_096 {
            return (took, bytes, events, written);
        }
    }
}

async fn sequential(folder: &Path, steps: u64) {
    // In turns, because a shared machine is now fast and now slow.
    let each = steps / ROUNDS;
    let text = format!(
        "kind: state-machine\nstart: a\nsteps:\n  a: {{ task: nothing, next: [{{ when: $visits < {each}, goto: a }}, {{ goto: b }}] }}\n  b: {{ succeed: true }}"
    );
    let (mut ratios, mut floors, mut rates, mut bytes_a_commit) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let (mut ratios_as_logged, mut floors_as_logged, mut log_bytes_a_commit) = (Vec::new(), Vec::new(), 0);
    let mut floors_with_room = Vec::new();
    for round in 0..ROUNDS {
        let (took, bytes, _, written) = run(folder, &format!("sequential-{round}"), &text, 0).await;
        // One commit a step: how it ended, and where the run went.
        bytes_a_commit = bytes / usize::try_from(each).unwrap();
        log_bytes_a_commit = usize::try_from(written / each).unwrap();
        let rate = each as f64 / took.as_secs_f64();
        let (least, as_logged) = (floor(folder, bytes_a_commit, each, false), floor(folder, log_bytes_a_commit, each, false));
        floors_with_room.push(floor(folder, log_bytes_a_commit, each, true));
        ratios.push(rate / least);
        floors.push(least);
        floors_as_logged.push(as_logged);
        ratios_as_logged.push(rate / as_logged);
        rates.push(rate);
    }
    for all in [&mut ratios, &mut floors, &mut rates, &mut ratios_as_logged, &mut floors_as_logged, &mut floors_with_room] {
        all.sort_by(f64::total_cmp);
    }
    let middle = |all: &[f64]| all[all.len() / 2];
    println!("floor:       {:>9.0} commits/s of {bytes_a_commit} bytes, fdatasync each", middle(&floors));
    println!(
        "as written:  {:>9.0} commits/s of {log_bytes_a_commit} bytes, which is what SQLite writes for a step; {:.0} over bytes that are there",
        middle(&floors_as_logged),
        middle(&floors_with_room)
    );
    println!(
        "sequential:  {:>9.0} durable steps/s, {:.2} of the floor ({:.2} to {:.2} in {ROUNDS} rounds), {:.2} of that as written, peak {:.0} MB",
        middle(&rates),
        middle(&ratios),
        ratios[0],
        ratios[ratios.len() - 1],
        middle(&ratios_as_logged),
        peak_mb()
    );
}

async fn dag(folder: &Path) {
    let mut dag = String::from("kind: dag\nmax_parallel: 8\nsteps:\n");
    for step in 0..1_000 {
        let after = if step < 10 { String::new() } else { format!(", after: [s{}, s{}]", step - 10, step - 7) };
        dag.push_str(&format!("  s{step}: {{ task: nothing{after} }}\n"));
    }
    let (took, _, events, _) = run(folder, "dag", &dag, 0).await;
    println!("dag:         {:>9.0} steps/s of a DAG of 1,000, {events} events, peak {:.0} MB", 1_000.0 / took.as_secs_f64(), peak_mb());
}

async fn fan_out(folder: &Path, units: u64) {
    let text = "kind: state-machine\nstart: look\nsteps:\n  look: { detect: finds, next: fill }\n  fill: { repair: repairs, of: look, concurrency: 64, end: true }";
    let (took, bytes, events, _) = run(folder, "fanout", text, units).await;
    let rate = units as f64 / took.as_secs_f64();
    println!(
        "fan-out:     {rate:>9.0} units/s of {units}, {events} events, {:.1} bytes of journal a unit, peak {:.0} MB",
        bytes as f64 / units as f64,
        peak_mb()
    );
}

fn main() {
    let parts = ["steps", "dag", "fanout", "real", "resume", "wait"];
    let asked = std::env::var("PART").ok();
    if asked.is_none() || asked.as_deref() == Some("real") && std::env::var_os("REAL_IS_ONE").is_none() {
        for part in parts.iter().filter(|part| asked.as_deref().is_none_or(|asked| asked == **part)) {
            // Of real units as many as were asked for, and a quarter of them: the difference is what a unit takes.
            let units = number("REAL_UNITS", 20_000);
            let counts = if *part == "real" { vec![units / 4, units] } else { vec![units] };
            for units in counts {
                let mut process = Command::new(std::env::current_exe().unwrap());
                process.env("PART", part).env("REAL_IS_ONE", "yes").env("REAL_UNITS", units.to_string());
                assert!(process.status().unwrap().success(), "{part}");
            }
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir_in(".").unwrap();
    let folder = folder.path();
    let (steps, units) = (number("STEPS", 9_000), number("UNITS", 1_000_000));
    match asked.as_deref() {
        Some("steps") => runtime.block_on(sequential(folder, steps)),
        Some("dag") => runtime.block_on(dag(folder)),
        Some("fanout") => runtime.block_on(fan_out(folder, units)),
        Some("real") => runtime.block_on(real(folder, number("REAL_UNITS", 20_000), i64::try_from(number("ROWS", 12)).unwrap())),
        Some("resume") => runtime.block_on(resume(folder, number("EVENTS", 1_000_000))),
        Some("wait") => runtime.block_on(wait(folder)),
        other => panic!("{other:?} is no part; there are {parts:?}"),
    }
}
