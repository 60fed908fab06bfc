//! A small lake in a temporary folder: three stocks, one session, with holes; and an archive that has all that ever traded.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "shared by several test programs")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use assert_cmd::Command;
use futures::TryStreamExt;
use repair_core::lake::{Lake, Layer, ScanRequest};
use repair_core::model::{Format, Table};
use repair_local::LocalLake;
use serde_json::Value;

pub const SYMBOLS: [&str; 3] = ["AIG", "BAC", "SPY"];
/// 2024-03-04 was a regular session in winter: 14:30 to 21:00 UTC.
const MINUTES: u32 = 390;

pub struct World {
    folder: tempfile::TempDir,
    /// Minutes that traded and that the lake lacks.
    pub dropped: usize,
    /// Minutes in which nothing traded.
    pub quiet: usize,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut bars, mut archive) = (String::from("symbol,ts,open,high,low,close,volume\n"), String::new());
        archive.push_str(&bars);
        let (mut dropped, mut quiet) = (0, 0);
        for (index, symbol) in (0u32..).zip(SYMBOLS) {
            for minute in 0..MINUTES {
                let noise = (minute * 7_919 + index * 104_729).wrapping_mul(2_654_435_761) >> 16;
                if noise % 37 == 0 {
                    quiet += 1;
                    continue;
                }
                let of_day = 14 * 60 + 30 + minute;
                let price = f64::from(10_000 + noise % 500) / 100.0;
                let mut row = String::new();
                writeln!(
                    row,
                    "{symbol},2024-03-04T{:02}:{:02}:00Z,{price},{},{},{price},{}",
                    of_day / 60,
                    of_day % 60,
                    price + 0.5,
                    price - 0.5,
                    100 + noise % 900
                )
                .unwrap();
                archive.push_str(&row);
                if noise % 3 == 0 { dropped += 1 } else { bars.push_str(&row) }
            }
        }
        for (name, text) in [("bars", bars), ("archive", archive)] {
            std::fs::create_dir_all(folder.path().join("lake").join(name)).unwrap();
            std::fs::write(folder.path().join("lake").join(name).join("2024-03-04.csv"), text).unwrap();
        }
        Self { folder, dropped, quiet }
    }

    pub fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    /// Writes the archive `restated`, from which some rows of each stock were deleted, and returns key and time of these.
    pub fn restate(&self) -> Vec<String> {
        let archive = std::fs::read_to_string(self.lake().join("archive/2024-03-04.csv")).unwrap();
        let (mut kept, mut deleted) = (String::new(), Vec::new());
        for (number, line) in archive.lines().enumerate() {
            match line.match_indices(',').nth(1) {
                Some((end, _)) if number % 150 == 40 => deleted.push(line[..end].to_owned()),
                _ => writeln!(kept, "{line}").unwrap(),
            }
        }
        std::fs::create_dir_all(self.lake().join("restated")).unwrap();
        std::fs::write(self.lake().join("restated/2024-03-04.csv"), kept).unwrap();
        deleted
    }

    /// Sets the times of the lake's files ahead of the clock: what is read of them is then never kept, so how much a run reads does not depend
    /// on how long ago they were written.
    pub fn stay_new(&self) {
        let ahead = SystemTime::now() + Duration::from_secs(3_600);
        for name in ["bars", "archive"] {
            let path = self.lake().join(name).join("2024-03-04.csv");
            std::fs::File::options().append(true).open(path).unwrap().set_modified(ahead).unwrap();
        }
    }

    /// Writes a file beside the lake.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The workflow of these tests, changed by replacing text.
    pub fn workflow(&self, changes: &[(&str, &str)]) -> PathBuf {
        let mut text = WORKFLOW.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "the workflow does not contain {from}");
            text = text.replace(from, to);
        }
        self.write("workflow.yaml", &text)
    }

    /// `repair`, run beside the lake.
    pub fn repair(&self) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("repair"));
        command.current_dir(self.folder.path()).env_remove("REPAIR_LAKE");
        command
    }

    /// What a command says on standard output and standard error, and its exit code.
    pub fn said(&self, arguments: &[&str]) -> (String, String, i32) {
        let output = self.repair().args(arguments).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
    }

    /// What a command that succeeds prints for people.
    pub fn text(&self, arguments: &[&str]) -> String {
        let (out, err, code) = self.said(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    }

    /// What a command that succeeds prints as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Runs the workflow and returns what `--json` printed, with the exit code.
    pub fn run_json(&self, workflow: &Path, more: &[&str]) -> (Value, i32) {
        let output = self.repair().arg("run").arg(workflow).arg("--json").args(more).output().unwrap();
        let report =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (report, output.status.code().unwrap())
    }
}

/// Every file below a folder whose path does not hold `.repair`, with its bytes.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = testdata::files(folder);
    files.retain(|path, _| path.components().all(|part| part.as_os_str() != ".repair"));
    files
}

fn table(location: &str, format: Format, time: &str) -> Table {
    Table {
        name: location.to_owned(),
        location: location.to_owned(),
        format,
        partition_by: Vec::new(),
        key: vec!["symbol".to_owned()],
        time: time.to_owned(),
        time_marks: Default::default(),
        cadence: Some("1m".parse().unwrap()),
        ..Table::implicit("bars", "ts")
    }
}

async fn rows(world: &World, table: &Table, layer: Layer, columns: Option<&[&str]>) -> Vec<String> {
    let lake: Arc<dyn Lake> = Arc::new(LocalLake::open(world.lake()).unwrap());
    let request = ScanRequest::new(layer);
    let scan = match lake.scan(table, &request).await {
        // Nothing was ever written there.
        Err(error) if error.kind() == repair_core::ErrorKind::NotFound => return Vec::new(),
        scan => scan.unwrap(),
    };
    let batches: Vec<RecordBatch> = scan.try_collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        let schema = batch.schema();
        let chosen: Vec<usize> = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| columns.is_none_or(|columns| columns.contains(&field.name().as_str())))
            .map(|(index, _)| index)
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = chosen.iter().map(|&index| array_value_to_string(batch.column(index), row).unwrap()).collect();
            rows.push(cells.join(","));
        }
    }
    rows.sort();
    rows
}

/// All that readers can see: the repaired view, the exceptions, the hourly table.
pub async fn seen(world: &World) -> BTreeMap<&'static str, Vec<String>> {
    let absences = Some(&["symbol", "ts", "repair_source", "repair_strategy"][..]);
    BTreeMap::from([
        ("view", rows(world, &table("bars", Format::Csv, "ts"), Layer::Repaired, None).await),
        ("exceptions", rows(world, &table("bars_exceptions", Format::Parquet, "ts"), Layer::Raw, absences).await),
        ("hourly", rows(world, &table("hourly", Format::Parquet, "hour"), Layer::Raw, None).await),
    ])
}

pub const WORKFLOW: &str = "\
workflow: ticker
kind: state-machine
tables:
  bars: { location: bars, format: csv, key: [symbol], time: ts, cadence: 1m }
sources:
  market: { source: stocks.archive, with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 30 } }
start: find_gaps
steps:
  find_gaps:
    detect: stocks.minute-gaps
    with: { table: bars, calendar: XNYS, symbols: [AIG, BAC, SPY], from: 2024-03-04, to: 2024-03-04 }
    next:
      - { when: $output.missing = 0, goto: hourly }
      - { goto: settle }
  settle: { wait: { for: 10ms }, next: fill }
  fill:
    repair: stocks.backfill
    of: find_gaps
    with: { source: market }
    concurrency: 2
    retry: [{ on: [transient, throttled], attempts: 3, interval: 10ms }]
    next: check
  check:
    verify: find_gaps
    next:
      - { when: $output.missing = 0, goto: hourly }
      - { when: $visits < 3, goto: settle }
      - { goto: hourly }
  hourly:
    aggregate: stocks.hourly-bars
    of: find_gaps
    with: { table: bars, into: hourly }
    end: true
profiles:
  local: { lake: local, with: { root: ./lake } }
";
