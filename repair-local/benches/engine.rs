//! What the engine costs, with the journal flushed at every commit: `cargo bench -p repair-local --bench engine`.
//!
//! Measured in one run, on one disk: the floor (the bytes that the journal would keep, appended to a file with `fdatasync` for each commit),
//! steps one after another, units of a fan-out, a DAG of a thousand steps; and the most memory that the process ever held after each.
//! `UNITS=1000000 STEPS=9000` set how much.
#![deny(clippy::missing_trait_methods, reason = "a wrapper that forgets a method would answer for itself")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement that fails, panics"
)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use repair_core::Result;
use repair_core::engine::{Engine, Journal, StartRequest};
use repair_core::lake::extent::Extent;
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::lake::rollup::Rollup;
use repair_core::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, Lake, Overlay, PresenceRequest, PresenceStream, Published, ReadLake, RowCountRequest,
    RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck,
};
use repair_core::model::Usage;
use repair_core::model::{
    Conflicts, Counts, Findings, Fix, GapList, Interval, Key, Scope, SlotRange, Suspects, Table, TablePresence, Unit, Wanted,
};
use repair_core::plugin::{Detector, PlannedUnits, Registry, Repairer, StepContext, Task};
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

    async fn query(&self, tables: &[Table], sql: &str) -> Result<BatchStream> {
        self.0.query(tables, sql).await
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
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or_default() / 1_024.0
}

/// Commits a second of a file to which so many bytes are appended and flushed, again and again.
fn floor(folder: &Path, bytes: usize, commits: u64) -> f64 {
    let mut file = std::fs::File::create(folder.join("floor")).unwrap();
    let record = vec![b'x'; bytes];
    let begun = Instant::now();
    for _ in 0..commits {
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
    }
    commits as f64 / begun.elapsed().as_secs_f64()
}

/// How long a run takes, how many bytes its events are as JSON, how many events, and how many bytes SQLite's log has grown to.
async fn run(folder: &Path, name: &str, text: &str, units: u64) -> (Duration, usize, u64, u64) {
    let mut registry = Registry::default();
    registry.task("nothing", "does nothing", |_: Value| Ok(Nothing));
    registry.detector("finds", "finds so many slots missing", move |_: Value| Ok(Finds(units)));
    registry.repairer("repairs", "a unit for each slot", |_: Value| Ok(Repairs));
    let registry = Arc::new(registry);
    let text = format!("workflow: bench\ntables: {{ bars: {{ location: bars, format: csv, key: [key], time: ts, cadence: 1m }} }}\n{text}");
    let workflow = Workflow::parse("bench.yaml", &text, &registry).unwrap_or_else(|told| panic!("{told}"));
    std::fs::create_dir_all(folder.join("bars")).unwrap();
    std::fs::write(folder.join("bars/one.csv"), "key,ts,value\n").unwrap();
    let journal = Arc::new(SqliteJournal::open(folder.join(format!("{name}.db"))).unwrap());
    let engine = Engine::new(registry, Arc::new(Weightless(LocalLake::open(folder).unwrap())), journal.clone());
    let begun = Instant::now();
    let request = StartRequest::new(name).with_environment(json!({}));
    // As a task of its own, as a program that drives several runs does: it shares its thread with the works it begins.
    let driven = tokio::spawn(async move { engine.start(&workflow, request).await });
    let report = driven.await.unwrap().unwrap();
    let took = begun.elapsed();
    let log = std::fs::metadata(folder.join(format!("{name}.db-wal"))).map_or(0, |log| log.len());
    assert_eq!(report.outcome.map(|outcome| outcome.as_str()), Some("succeeded"), "{:?}", report.problems);
    let (mut bytes, mut events, mut from) = (0, 0, 0);
    loop {
        let page = journal.read(name, from, 4_096).await.unwrap();
        bytes += page.iter().map(|recorded| serde_json::to_string(recorded).unwrap().len()).sum::<usize>();
        events += page.len() as u64;
        from += page.len() as u64;
        if page.len() < 4_096 {
            return (took, bytes, events, log);
        }
    }
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let folder = folder.path();
    let (steps, units) = (number("STEPS", 9_000), number("UNITS", 1_000_000));

    // In turns, because a shared machine is now fast and now slow.
    let each = steps / ROUNDS;
    let text = format!(
        "kind: state-machine\nstart: a\nsteps:\n  a: {{ task: nothing, next: [{{ when: $visits < {each}, goto: a }}, {{ goto: b }}] }}\n  b: {{ succeed: true }}"
    );
    let (mut ratios, mut floors, mut rates, mut bytes_a_commit) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let (mut ratios_as_logged, mut floors_as_logged, mut log_bytes_a_commit) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        let (took, bytes, _, log) = run(folder, &format!("sequential-{round}"), &text, 0).await;
        // One commit a step: how it ended, and where the run went.
        bytes_a_commit = bytes / usize::try_from(each).unwrap();
        log_bytes_a_commit = usize::try_from(log / each).unwrap();
        let rate = each as f64 / took.as_secs_f64();
        let (least, as_logged) = (floor(folder, bytes_a_commit, each), floor(folder, log_bytes_a_commit, each));
        ratios.push(rate / least);
        floors.push(least);
        floors_as_logged.push(as_logged);
        ratios_as_logged.push(rate / as_logged);
        rates.push(rate);
    }
    for all in [&mut ratios, &mut floors, &mut rates, &mut ratios_as_logged, &mut floors_as_logged] {
        all.sort_by(f64::total_cmp);
    }
    let middle = |all: &[f64]| all[all.len() / 2];
    println!("floor:       {:>9.0} commits/s of {bytes_a_commit} bytes, fdatasync each", middle(&floors));
    println!(
        "as logged:   {:>9.0} commits/s of {log_bytes_a_commit} bytes, which is what SQLite's log grows by",
        middle(&floors_as_logged)
    );
    println!(
        "sequential:  {:>9.0} durable steps/s, {:.2} of the floor ({:.2} to {:.2} in {ROUNDS} rounds), {:.2} of that as logged, peak {:.0} MB",
        middle(&rates),
        middle(&ratios),
        ratios[0],
        ratios[ratios.len() - 1],
        middle(&ratios_as_logged),
        peak_mb()
    );

    let mut dag = String::from("kind: dag\nmax_parallel: 8\nsteps:\n");
    for step in 0..1_000 {
        let after = if step < 10 { String::new() } else { format!(", after: [s{}, s{}]", step - 10, step - 7) };
        dag.push_str(&format!("  s{step}: {{ task: nothing{after} }}\n"));
    }
    let (took, _, events, _) = run(folder, "dag", &dag, 0).await;
    println!("dag:         {:>9.0} steps/s of a DAG of 1,000, {events} events, peak {:.0} MB", 1_000.0 / took.as_secs_f64(), peak_mb());

    let text = "kind: state-machine\nstart: look\nsteps:\n  look: { detect: finds, next: fill }\n  fill: { repair: repairs, of: look, concurrency: 64, end: true }";
    let (took, bytes, events, _) = run(folder, "fanout", text, units).await;
    let rate = units as f64 / took.as_secs_f64();
    println!(
        "fan-out:     {rate:>9.0} units/s of {units}, {events} events, {:.1} bytes of journal a unit, peak {:.0} MB",
        bytes as f64 / units as f64,
        peak_mb()
    );
}
