//! A real run on a real lake is aborted at every write to the journal and around every write to the lake, one after the other, and resumed:
//! what readers see is what they see of an undisturbed run, and the source is asked for nothing twice that was kept.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::{World, seen};
use async_trait::async_trait;
use repair_core::engine::{Engine, StartRequest};
use repair_core::plugin::{Answer, Limits, Plugin, PluginKind, Registry, Request, Source, StepContext};
use repair_core::testing::{CrashingJournal, CrashingLake, Moment, Schedule};
use repair_core::workflow::Workflow;
use repair_core::{Error, Result};
use repair_local::{LocalLake, SqliteJournal};
use serde_json::{Value, json};

/// Where the aborted process finds its orders.
const ORDERS: &str = "CRASH_SWEEP_ORDERS";

/// An archive that writes down every request before it answers.
struct Counted {
    inner: Arc<dyn Source>,
    log: PathBuf,
}

#[async_trait]
impl Source for Counted {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(&self.log).unwrap();
        writeln!(log, "{:?} {}", request.keys, request.interval).unwrap();
        self.inner.fetch(context, request).await
    }
}

fn registry(log: &Path) -> Arc<Registry> {
    let mut registry = Registry::default();
    repair_connect::register(&mut registry);
    repair_stocks::register(&mut registry);
    let log = log.to_owned();
    registry.source("counted", "an archive that counts requests", move |config: Value| {
        let mut stocks = Registry::default();
        repair_stocks::register(&mut stocks);
        match stocks.get(PluginKind::Source, "stocks.archive").unwrap().make(&config)? {
            Plugin::Source(inner) => Ok(Counted { inner, log: log.clone() }),
            _ => Err(Error::internal("a source that is none")),
        }
    });
    Arc::new(registry)
}

/// Drives the run in this process, with a schedule of its writes.
fn drive(folder: &Path, schedule: &Schedule) {
    let registry = registry(&folder.join("requests.log"));
    let workflow = Workflow::load(&folder.join("workflow.yaml"), &registry).unwrap_or_else(|told| panic!("{told}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let root = folder.join("lake");
        std::fs::create_dir_all(root.join(".repair")).unwrap();
        let lake = CrashingLake::new(Arc::new(LocalLake::open(&root).unwrap()), schedule.clone());
        let journal = SqliteJournal::open(root.join(".repair/journal.db")).unwrap();
        let journal = CrashingJournal::new(Arc::new(journal), schedule.clone());
        let engine = Engine::new(registry, Arc::new(lake), Arc::new(journal));
        let request = StartRequest::new("one").with_environment(json!({}));
        let report = Box::pin(engine.start(&workflow, request)).await.unwrap();
        assert_eq!(report.outcome.map(|outcome| outcome.as_str()), Some("succeeded"), "{:?}", report.problems);
    });
}

/// Not a test: the process that is aborted. `folder write before|after`.
#[test]
#[ignore = "run by the sweep, as a process of its own"]
fn the_process_that_is_aborted() {
    let orders = std::env::var(ORDERS).expect("the sweep starts this, with its orders");
    let [folder, write, moment] = orders.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let moment = if moment == "before" { Moment::Before } else { Moment::After };
    drive(Path::new(folder), &Schedule::abort_at(write.parse().unwrap(), moment));
}

fn requests(folder: &Path) -> Vec<String> {
    let mut lines: Vec<String> =
        std::fs::read_to_string(folder.join("requests.log")).unwrap_or_default().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// One unit at a time, so that at most one is under way when the process is aborted. What a detector asks is not counted: one that is aborted
/// asks again.
const CHANGES: [(&str, &str); 5] = [
    (
        "source: stocks.archive, with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 30 }",
        "source: counted, with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 150 }",
    ),
    (
        "start: find_gaps",
        "  restated: { source: stocks.archive, with: { location: restated, format: csv, keys_per_request: 1, rows_per_request: 150 } }\n  confirming: { source: counted, with: { \
         location: restated, format: csv, keys_per_request: 1, rows_per_request: 150 } }\nstart: find_gaps",
    ),
    ("concurrency: 2", "concurrency: 1"),
    ("for: 10ms", "for: 1ms"),
    // Some cells count as wrong, and are changed; rows that are deleted at the source are removed; and some cells get a fixed value.
    (
        "  hourly:\n    aggregate",
        "  hourly:\n    detect: invalid\n    with: { table: bars, calendar: XNYS, keys: [AIG, BAC, SPY], from: 2024-03-04, to: 2024-03-04, rules: [{ column: \
         close, max: 104.5 }] }\n    next: cells\n  cells:\n    of: hourly\n    concurrency: 1\n    repair:\n      - { strategy: interpolate, with: { columns: [close] } }\n      - { strategy: carry-forward, with: { max_age: 1h } }\n    next: again\n\n  \
         again: { verify: hourly, next: deleted }\n  deleted:\n    detect: differs\n    with: { table: bars, source: restated, calendar: XNYS, keys: [AIG, BAC, SPY], \
         from: 2024-03-04, to: 2024-03-04, columns: [open], deleted: remove }\n    next: remove\n  remove: { repair: backfill, of: deleted, with: { source: \
         confirming }, concurrency: 1, next: gone }\n  gone: { verify: deleted, next: volumes }\n  volumes:\n    detect: invalid\n    with: { table: bars, \
         calendar: XNYS, keys: [AIG, BAC, SPY], from: 2024-03-04, to: 2024-03-04, rules: [{ column: volume, max: 950 }] }\n    next: set\n  set: { repair: set, \
         of: volumes, with: { values: { volume: 950 } }, concurrency: 1, next: hours }\n  hours:\n    aggregate",
    ),
];

fn folder(world: &World) -> PathBuf {
    world.restate();
    world.workflow(&CHANGES).parent().unwrap().to_owned()
}

/// As a source, a program that writes down every request before it answers.
fn folder_with_program(world: &World) -> PathBuf {
    let program = r#"echo "$REPAIR_KEYS $REPAIR_FROM $REPAIR_TO" >> requests.log
exec awk -F, -v from="$REPAIR_FROM" -v to="$REPAIR_TO" -v key="$REPAIR_KEYS" \
  'NR == 1 || ($1 == key && $2 >= from && $2 < to)' lake/archive/2024-03-04.csv
"#;
    let folder = world.write("ask.sh", program).parent().unwrap().to_owned();
    let source = format!(
        "source: command, with: {{ run: [sh, ask.sh], folder: '{}', rows: csv, vouches: true, keys_per_request: 1, rows_per_request: 60 }}",
        folder.display()
    );
    let changes = [(CHANGES[0].0, source.as_str()), CHANGES[2], CHANGES[3]];
    world.workflow(&changes).parent().unwrap().to_owned()
}

#[test]
fn aborted_at_every_write_and_resumed_nothing_is_lost_doubled_or_paid_for_twice() {
    sweep(folder, |calm, expected| {
        assert!(expected["view"].iter().filter(|row| row.contains("{\"close\":\"interpolate\"}")).count() > 20, "cells were changed");
        assert!(expected["view"].iter().filter(|row| row.contains("\"volume\":\"set\"")).count() > 20, "cells were set");
        let (deleted, source) = (calm.restate(), std::fs::read_to_string(calm.lake().join("restated/2024-03-04.csv")).unwrap());
        assert!(deleted.len() > 5 && expected["view"].len() == source.lines().count() - 1, "rows were removed");
    });
}

#[test]
fn aborted_at_every_write_and_resumed_a_program_is_asked_for_nothing_twice() {
    sweep(folder_with_program, |calm, expected| {
        let source = std::fs::read_to_string(calm.lake().join("archive/2024-03-04.csv")).unwrap();
        assert_eq!(expected["view"].len(), source.lines().count() - 1, "all that ever traded is there");
    });
}

/// Aborts the run at its writes, resumes it, and compares what readers see and what was asked with an undisturbed run, which must hold enough.
fn sweep(folder: fn(&World) -> PathBuf, holds_enough: impl Fn(&World, &BTreeMap<&str, Vec<String>>)) {
    let calm = World::new();
    let calm_folder = folder(&calm);
    let whole = Schedule::never();
    drive(&calm_folder, &whole);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let expected = runtime.block_on(seen(&calm));
    holds_enough(&calm, &expected);
    let asked = requests(&calm_folder);
    assert!(asked.len() >= 8 && whole.writes() > 25, "{} requests, {} writes", asked.len(), whole.writes());

    // How many writes there are depends on what is committed together, and on how often a lease is renewed meanwhile, so the sweep goes on until
    // nothing is left to abort.
    let mut left_alone = None;
    // It takes a second a write: every second write where tests may take long, else fewer, and then the end.
    let step = testdata::by_length(16, 2);
    'sweep: for write in (1..2 * whole.writes()).step_by(step) {
        for moment in ["before", "after"] {
            let world = World::new();
            let folder = folder(&world);
            let process = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "crash_sweep::the_process_that_is_aborted", "--ignored"])
                .env(ORDERS, format!("{}\n{write}\n{moment}", folder.display()))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            if process.success() {
                left_alone = Some((write, moment));
                break 'sweep;
            }
            drive(&folder, &Schedule::never());
            let at = format!("aborted {moment} write {write} of {}", whole.writes());
            assert_eq!(runtime.block_on(seen(&world)), expected, "{at}");
            let mut again = requests(&folder);
            // The one unit that was under way when it was aborted, and was not kept, is asked for once more; nothing else is.
            let more = again.len() - asked.len();
            assert!(more <= 1, "{at}: {more} requests more");
            again.dedup();
            assert_eq!(again, asked, "{at}");
        }
    }
    let (write, moment) = left_alone.expect("the process comes to its end");
    let fewest = whole.writes() - whole.writes() / 4;
    assert!(write + step as u64 > fewest, "write {write} {moment} of {}: the process was not aborted", whole.writes());
}
