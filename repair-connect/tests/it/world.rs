//! A lake in a folder, with a table of which some hours are missing, and programs beside it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use repair_connect::{Options, register_with};
use repair_core::engine::{Engine, Journal, RunReport, StartRequest};
use repair_core::lake::{Layer, ReadLake, ScanRequest};
use repair_core::plugin::Registry;
use repair_core::testing::{MemoryJournal, VirtualClock};
use repair_core::workflow::Workflow;
use repair_local::LocalLake;
use serde_json::Value;

/// What nobody may see.
pub(crate) const SECRET: &str = "s3cr3t-Of-The-Tests";
/// The variable that holds it.
pub(crate) const VARIABLE: &str = "TOKEN_OF_THE_TESTS";

/// The hours of sensor `a` that the table lacks; sensor `b` has all.
pub(crate) const MISSING: [u32; 4] = [5, 6, 7, 15];

pub(crate) fn options() -> Options {
    Options::default().with_environment(Arc::new(|name| match name {
        VARIABLE => Some(SECRET.to_owned()),
        other => std::env::var(other).ok(),
    }))
}

pub(crate) fn registry(options: &Options) -> Registry {
    let mut registry = Registry::default();
    register_with(&mut registry, options);
    registry
}

/// A value of a sensor at an hour, which no two hours share.
pub(crate) fn value(sensor: &str, hour: u32) -> f64 {
    f64::from(hour) + if sensor == "a" { 0.25 } else { 100.5 }
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
}

/// How a run went.
pub(crate) struct Ran {
    pub(crate) report: RunReport,
    /// Everything that the run recorded and reported, as text.
    pub(crate) said: String,
}

impl World {
    /// The table `readings`, and an `archive.csv` of all its rows, beside the lake.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut readings, mut archive) = ("sensor,ts,value\n".to_owned(), "sensor,ts,value\n".to_owned());
        for sensor in ["a", "b"] {
            for hour in 0..24 {
                let row = format!("{sensor},2024-03-04T{hour:02}:00:00Z,{}\n", value(sensor, hour));
                archive.push_str(&row);
                if sensor == "b" || !MISSING.contains(&hour) {
                    readings.push_str(&row);
                }
            }
        }
        std::fs::create_dir_all(folder.path().join("lake/readings")).unwrap();
        std::fs::write(folder.path().join("lake/readings/2024-03-04.csv"), readings).unwrap();
        std::fs::write(folder.path().join("archive.csv"), archive).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a program for `sh`, and returns its path.
    pub(crate) fn program(&self, text: &str) -> PathBuf {
        // A shell reads it, since a file that was just written may still be open in a process that was forked meanwhile, and is then not executed.
        let number = std::fs::read_dir(self.path()).unwrap().count();
        let path = self.path().join(format!("program-{number}.sh"));
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        path
    }

    pub(crate) fn lake(&self) -> LocalLake {
        LocalLake::open(self.path().join("lake")).unwrap()
    }

    /// A workflow that fills what is missing from a source that is a program, with more keys of its `with`.
    pub(crate) fn filling(&self, program: &str, more: &str) -> String {
        let (program, folder) = (self.program(program), self.path().display());
        format!(
            "workflow: fill
kind: state-machine
tables:
  readings: {{ location: readings, format: csv, key: [sensor], time: ts, cadence: 1h, keys: [a, b] }}
sources:
  program: {{ source: command, with: {{ run: [sh, '{}'], folder: '{folder}', rows: csv{more} }} }}
start: find
steps:
  find: {{ detect: gaps, with: {{ table: readings, from: 2024-03-04, to: 2024-03-04 }}, next: fill }}
  fill: {{ repair: backfill, of: find, with: {{ source: program }}, next: check }}
  check: {{ verify: find, end: true }}
",
            program.display()
        )
    }

    pub(crate) async fn run(&self, workflow: &str) -> Ran {
        let registry = Arc::new(registry(&options()));
        let workflow = Workflow::parse("workflow.yaml", workflow, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let journal = Arc::new(MemoryJournal::default());
        let clock = Arc::new(VirtualClock::starting_at("2024-03-10T00:00:00Z".parse().unwrap()));
        let mut engine = Engine::new(registry, Arc::new(self.lake()), journal.clone());
        engine.clock = clock;
        let report = Box::pin(engine.start(&workflow, StartRequest::new("one"))).await.unwrap();
        let events = journal.read("one", 0, 10_000).await.unwrap();
        let said = format!("{} {events:?} {report:?}", serde_json::to_string(&report).unwrap());
        Ran { report, said }
    }

    /// The rows of the table as readers see them: sensor, hour, value, and what repaired it.
    pub(crate) async fn seen(&self) -> Vec<Value> {
        let registry = Arc::new(registry(&options()));
        let workflow = Workflow::parse("w", &self.filling("exit 1", ""), &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let scan = self.lake().scan(&workflow.tables["readings"], &ScanRequest::new(Layer::Repaired)).await.unwrap();
        let batches: Vec<RecordBatch> = scan.try_collect().await.unwrap();
        let mut writer = arrow::json::ArrayWriter::new(Vec::new());
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        let mut rows: Vec<Value> = serde_json::from_slice(&writer.into_inner()).unwrap();
        rows.sort_by_key(|row| (row["sensor"].to_string(), row["ts"].to_string()));
        rows
    }

    /// How many rows of the table are repairs, whole or in part.
    pub(crate) async fn repaired(&self) -> usize {
        self.seen().await.iter().filter(|row| !row["repaired_by"].is_null() || !row["repaired_cells"].is_null()).count()
    }
}

/// Answers with the rows of the archive that are asked for.
pub(crate) const ARCHIVE: &str = r#"exec awk -F, -v from="$REPAIR_FROM" -v to="$REPAIR_TO" -v keys=",$REPAIR_KEYS," \
  'NR == 1 || (index(keys, "," $1 ",") && $2 >= from && $2 < to)' archive.csv"#;

/// Whether a process is there, and is no zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    status.is_ok_and(|status| status.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// Waits until something holds, or two minutes have passed: more than a busy machine needs.
pub(crate) async fn soon(holds: impl Fn() -> bool) -> bool {
    for _ in 0..4_800 {
        if holds() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    false
}
