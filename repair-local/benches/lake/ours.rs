//! The same tasks as workflows, each a run of the engine with a journal of its own.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use repair_core::engine::{Engine, RunReport, StartRequest};
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;
use repair_local::{LocalLake, SqliteJournal};
use serde_json::{Value, json};

use super::generate::{self, Session, symbol};

/// What a workflow works on.
pub(super) struct Bars<'a> {
    pub(super) sessions: &'a [Session],
    pub(super) symbols: usize,
    pub(super) layout: &'a str,
}

fn keys(count: usize) -> String {
    serde_json::to_string(&(0..count).map(symbol).collect::<Vec<_>>()).unwrap()
}

/// A workflow that begins with a detector, and goes on with these steps.
fn workflow(bars: &Bars<'_>, format: &str, sources: &str, steps: &[(&str, &str)]) -> String {
    let (first, last) = (&bars.sessions[0].date, &bars.sessions[bars.sessions.len() - 1].date);
    let partition = match bars.layout {
        "month" => ", partition_by: [{ month: month }]",
        "file" => "",
        _ => ", partition_by: [{ date: day }]",
    };
    let mut text = format!(
        "workflow: bench\nkind: state-machine\n\
         tables: {{ bars: {{ location: bars, format: {format}, key: [symbol], time: ts, cadence: 1m{partition} }} }}\n{sources}start: look\nsteps:\n"
    );
    let look = format!("detect: gaps, with: {{ table: bars, calendar: XNYS, from: {first}, to: {last}, keys: {} }}", keys(bars.symbols));
    let all: Vec<(&str, &str)> = [("look", look.as_str())].into_iter().chain(steps.iter().copied()).collect();
    for (at, (name, step)) in all.iter().enumerate() {
        let next = all.get(at + 1).map_or_else(|| "end: true".to_owned(), |(next, _)| format!("next: [{{ goto: {next} }}]"));
        writeln!(text, "  {name}: {{ {step}, {next} }}").unwrap();
    }
    text
}

/// Removes all that earlier runs have left in a lake, what they found included, which a later run would take over.
pub(super) fn forget(root: &Path) {
    for written in ["hourly", "bars_repairs", "bars_exceptions", "bars_retractions", ".repair"] {
        let _ = std::fs::remove_dir_all(root.join(written));
    }
}

/// Runs a workflow to its end.
fn run(root: &Path, text: &str, outcome: &str) -> RunReport {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    let registry = Arc::new(registry);
    let workflow = Workflow::parse("bench.yaml", text, &registry).unwrap_or_else(|error| panic!("{error}"));
    let own = tempfile::tempdir_in(root).unwrap();
    let journal = Arc::new(SqliteJournal::open(own.path().join("journal.db")).unwrap());
    let engine = Engine::new(registry, Arc::new(LocalLake::open(root).unwrap()), journal);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let request = StartRequest::new(format!("bench-{}", std::process::id())).with_environment(json!({}));
    let report =
        runtime.block_on(async move { tokio::spawn(async move { engine.start(&workflow, request).await }).await }).unwrap().unwrap();
    assert_eq!(report.outcome.map(|outcome| outcome.as_str()), Some(outcome), "{:?}", report.problems);
    report
}

fn output(report: &RunReport, step: &str, names: [&str; 2]) -> (u64, u64) {
    let output: &Value = &report.step(step).unwrap().output;
    let number = |name: &str| output[name].as_u64().unwrap_or_else(|| panic!("{step} has no {name}: {output}"));
    (number(names[0]), number(names[1]))
}

/// Finds all gaps: how many slots are missing, and in how many gaps. Nothing repairs them.
pub(super) fn gaps(root: &Path, bars: &Bars<'_>, format: &str) -> (u64, u64) {
    output(&run(root, &workflow(bars, format, "", &[]), "succeeded-with-exceptions"), "look", ["missing", "gaps"])
}

const HOURS: (&str, &str) = ("hours", "aggregate: stocks.hourly-bars, of: look, with: { table: bars, into: hourly }");

/// Finds all gaps, and makes hourly bars: of how many rows, and how many hours.
pub(super) fn hourly(root: &Path, bars: &Bars<'_>) -> (u64, u64) {
    output(&run(root, &workflow(bars, "parquet", "", &[HOURS]), "succeeded-with-exceptions"), "hours", ["observed", "hours"])
}

/// Finds all gaps, takes what is missing from the archive, looks again, and makes hourly bars: how many rows were repaired, and how many hours there are.
pub(super) fn backfill(root: &Path, bars: &Bars<'_>) -> (u64, u64) {
    let sources = "sources: { all: { source: stocks.archive, with: { location: archive, partition_by: [{ date: day }] } } }\n";
    let fill = ("fill", "repair: stocks.backfill, of: look, with: { source: all, quiet_spell: 1d }");
    let report = run(root, &workflow(bars, "parquet", sources, &[fill, ("check", "verify: look"), HOURS]), "succeeded");
    assert_eq!(output(&report, "check", ["missing", "gaps"]), (0, 0));
    (output(&report, "fill", ["repaired", "unresolved"]).0, output(&report, "hours", ["hours", "observed"]).0)
}

/// The same for hourly rows in many small files, without hourly bars: how many rows were repaired, and how many were not.
pub(super) fn small_files(root: &Path, days: usize, keys_of: usize) -> (u64, u64) {
    let table = "format: csv, key: [symbol], time: ts, cadence: 1h, partition_by: [{ date: day }]";
    let text = format!(
        "workflow: bench\nkind: state-machine\ntables: {{ bars: {{ location: bars, {table} }} }}\n\
         sources: {{ all: {{ source: stocks.archive, with: {{ location: archive, format: csv, partition_by: [{{ date: day }}] }} }} }}\n\
         start: look\nsteps:\n  look: {{ detect: gaps, with: {{ table: bars, calendar: 24x7, from: {}, to: {}, keys: {} }}, next: [{{ goto: fill }}] }}\n  \
         fill: {{ repair: backfill, of: look, with: {{ source: all, quiet_spell: 1d }}, next: [{{ goto: check }}] }}\n  \
         check: {{ verify: look, end: true }}\n",
        generate::date(0),
        generate::date(days - 1),
        keys(keys_of),
    );
    // As where the command runs, whose journal is there. Without the folder, nothing would be kept of the first look.
    std::fs::create_dir_all(root.join(".repair")).unwrap();
    output(&run(root, &text, "succeeded"), "fill", ["repaired", "unresolved"])
}
