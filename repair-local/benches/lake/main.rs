//! How fast a lake is read, and in how much memory, beside what the same task takes at least: `cargo bench -p repair-local --bench lake`.
//!
//! Writes minute bars of the sessions of XNYS in 2024 as Parquet, a file a day, of which one in eleven is missing. Then, in turns, each in a process of
//! its own: a run of the engine; the limit, a bare program that is given the sessions and does no more than the task needs; and other tools, if
//! `PEERS` is a Python that has `duckdb`, `polars` and `pyarrow`. All must find what was left out. Prints a table of medians, and ours as a ratio.
//!
//! `TASK` is one of
//!
//! | task | a run of the engine | the limit |
//! | --- | --- | --- |
//! | `gaps` | one `gaps` step | decodes key and time, sets a bit for each minute, writes the gaps |
//! | `hourly` | `gaps`, then `stocks.hourly-bars` of all that was found | decodes seven columns, folds them by key and hour, writes one file; finds no gaps |
//! | `backfill` | `gaps`, `stocks.backfill` from an archive of all rows, a look again, hourly bars | none; `scripts/guard` takes that of `hourly` |
//! | `again` | `gaps`, after a run has found the same | lists the files with size and time |
//! | `csv` | `gaps`, of files of CSV | the same, with the `csv` crate; it knows the form of the time |
//! | `files` | `gaps`, `backfill` and a look again, of hourly rows in a file for each key and day | lists, opens and reads the files |
//!
//! `SYMBOLS` and `DAYS` say how many there are (500 and 252; 100 and 60 of `backfill`, 500 and 57 of `csv`, 1,430 and 70 of `files`), `ROUNDS` how often
//! (5). `LAYOUT` is `day`, `month` for a file a month by time, or `file` for one file by time; the limits know only `day`. `LAKE` is a folder in which
//! the lake stays for the next time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement that fails, panics"
)]

mod generate;
mod limit;
mod ours;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use generate::{Session, Shape, Truth};
use ours::Bars;
use serde_json::{Value, json};

const TASKS: [&str; 6] = ["gaps", "hourly", "backfill", "again", "csv", "files"];

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What is measured.
struct Setup {
    task: String,
    symbols: usize,
    days: usize,
    layout: String,
    sessions: Vec<Session>,
}

impl Setup {
    fn new() -> Self {
        let task = std::env::var("TASK").unwrap_or_else(|_| "gaps".to_owned());
        assert!(TASKS.contains(&task.as_str()), "there is no task {task}; there is {}", TASKS.join(", "));
        let (symbols, days) = match task.as_str() {
            "backfill" => (100, 60),
            "csv" => (500, 57),
            "files" => (1_430, 70),
            _ => (500, 252),
        };
        let (symbols, days) = (setting("SYMBOLS", symbols), setting("DAYS", days));
        let sessions = if task == "files" { Vec::new() } else { generate::sessions(days) };
        Self { task, symbols, days, layout: std::env::var("LAYOUT").unwrap_or_else(|_| "day".to_owned()), sessions }
    }

    fn write(&self, root: &Path) -> Truth {
        let name = match self.task.as_str() {
            "gaps" | "hourly" | "again" => "bars",
            task => task,
        };
        let truth = root.join(format!("truth-{name}-{}-{}-{}.json", self.symbols, self.days, self.layout));
        if let Ok(known) = std::fs::read(&truth) {
            return serde_json::from_slice(&known).unwrap();
        }
        assert!(!root.join("bars").exists(), "{} holds another lake", root.display());
        let written = if self.task == "files" {
            generate::write_small_files(root, self.days, self.symbols)
        } else {
            let shape = Shape { layout: &self.layout, is_csv: self.task == "csv", has_archive: self.task == "backfill" };
            generate::write(root, &self.sessions, self.symbols, &shape)
        };
        std::fs::write(&truth, serde_json::to_vec(&written).unwrap()).unwrap();
        written
    }

    /// Who takes part, and what each must find; `None` where that is not known from the lake.
    fn contestants(&self, truth: Truth) -> Vec<(&'static str, Option<(u64, u64)>)> {
        let gaps = Some((truth.missing, truth.gaps));
        let hours: u64 = self.sessions.iter().map(hours_of).sum::<u64>() * self.symbols as u64;
        let of_peers = std::env::var_os("PEERS").is_some() && self.layout == "day";
        let peers = |names: &[&'static str], found| names.iter().filter(|_| of_peers).map(|name| (*name, found)).collect::<Vec<_>>();
        let mut all = match self.task.as_str() {
            "gaps" | "csv" => vec![("repair", gaps), ("limit", gaps)],
            "hourly" => vec![("repair", Some((truth.rows, hours))), ("limit", Some((truth.rows, hours)))],
            "backfill" => vec![("repair", Some((truth.missing, hours)))],
            "again" => vec![("repair", gaps), ("limit", None)],
            _ => vec![("repair", Some((truth.missing, 0))), ("limit", None)],
        };
        if self.layout != "day" {
            all.truncate(1);
        }
        all.extend(match self.task.as_str() {
            "gaps" => peers(&["pyarrow", "polars", "duckdb"], gaps),
            "csv" => peers(&["polars", "duckdb"], gaps),
            "hourly" => peers(&["polars", "duckdb"], Some((truth.rows, hours))),
            "backfill" => peers(&["duckdb"], Some((truth.missing, hours))),
            _ => Vec::new(),
        });
        all
    }

    /// Does the task here, for ours or the limit.
    fn perform(&self, who: &str, root: &Path) -> (u64, u64) {
        if who != "limit" && self.task != "again" {
            ours::forget(root);
        }
        let bars = Bars { sessions: &self.sessions, symbols: self.symbols, layout: &self.layout };
        match (self.task.as_str(), who) {
            ("gaps", "limit") => limit::gaps(root, &self.sessions, "parquet"),
            ("hourly" | "backfill", "limit") => limit::hourly(root, &self.sessions),
            ("csv", "limit") => limit::gaps(root, &self.sessions, "csv"),
            ("again", "limit") => limit::listing(&root.join("bars"), false),
            (_, "limit") => limit::listing(&root.join("bars"), true),
            ("hourly", _) => ours::hourly(root, &bars),
            ("backfill", _) => ours::backfill(root, &bars),
            ("files", _) => ours::small_files(root, self.days, self.symbols),
            ("csv", _) => ours::gaps(root, &bars, "csv"),
            _ => ours::gaps(root, &bars, "parquet"),
        }
    }
}

/// How many hours a session is part of.
fn hours_of(session: &Session) -> u64 {
    let close_us = session.open_us + i64::try_from(session.minutes).unwrap() * generate::MINUTE_US;
    u64::try_from((close_us - 1).div_euclid(generate::HOUR_US) - session.open_us.div_euclid(generate::HOUR_US) + 1).unwrap()
}

/// What this process has used so far: seconds of processors, and the most memory, in MiB.
fn used() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may contain spaces: user and system time are the 12th and 13th fields, in hundredths of a second.
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let ticks = fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default();
    (ticks / 100.0, kib / 1_024.0)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Lets one do the task in a process of its own; returns wall time, time of processors, memory, and what was found.
fn apart(task: &str, who: &str, root: &Path) -> ([f64; 3], (u64, u64)) {
    let mut command = match (who, std::env::var_os("PEERS")) {
        ("repair" | "limit", _) | (_, None) => {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env("LAKE_TASK_OF", who).env("LAKE", root);
            command
        }
        (engine, Some(python)) => {
            let mut command = Command::new(python);
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/lake/peers.py")).args([task, engine]).arg(root);
            command
        }
    };
    let begun = Instant::now();
    let output = command.output().unwrap();
    let wall = begun.elapsed().as_secs_f64();
    assert!(output.status.success(), "{who}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let value: Value = serde_json::from_str(text.trim()).unwrap();
    let number = |name: &str| value[name].as_f64().unwrap();
    let found = |at: usize| value["found"][at].as_u64().unwrap();
    ([wall, number("cpu_s"), number("peak_mib")], (found(0), found(1)))
}

fn main() {
    let setup = Setup::new();
    let kept = std::env::var_os("LAKE").map(PathBuf::from);
    if let (Ok(who), Some(root)) = (std::env::var("LAKE_TASK_OF"), &kept) {
        let found = setup.perform(&who, root);
        let (cpu_s, peak_mib) = used();
        println!("{}", json!({ "found": found, "cpu_s": cpu_s, "peak_mib": peak_mib }));
        return;
    }
    let own = tempfile::tempdir().unwrap();
    let root = kept.unwrap_or_else(|| own.path().to_owned());
    std::fs::create_dir_all(&root).unwrap();
    let truth = setup.write(&root);
    let Setup { task, symbols, days, layout, .. } = &setup;
    println!(
        "\n`{task}`: {symbols} keys, {days} days, layout `{layout}`: {} rows, {} missing in {} gaps\n",
        truth.rows, truth.missing, truth.gaps
    );
    if task == "again" {
        apart(task, "repair", &root);
    }
    let contestants = setup.contestants(truth);
    let mut all: Vec<Vec<[f64; 3]>> = vec![Vec::new(); contestants.len()];
    for _ in 0..setting("ROUNDS", 5) {
        for ((who, expected), all) in contestants.iter().zip(&mut all) {
            let (figures, found) = apart(task, who, &root);
            assert!(expected.is_none_or(|expected| expected == found), "{who} finds {found:?}, and {expected:?} is the truth");
            all.push(figures);
        }
    }
    println!(
        "| | time | of processors | memory, peak | `repair` beside it: time | of processors | memory |\n| --- | --- | --- | --- | --- | --- | --- |"
    );
    let medians: Vec<[f64; 3]> =
        all.iter().map(|all| [0, 1, 2].map(|at| median(all.iter().map(|figures| figures[at]).collect()))).collect();
    let Some(ours) = medians.first() else { return };
    for ((who, _), other) in contestants.iter().zip(&medians) {
        let [wall, cpu, peak] = other;
        let [a, b, c] = [0, 1, 2].map(|at| ours[at] / other[at].max(1e-3));
        println!("| {who} | {wall:.2} s | {cpu:.2} s | {peak:.0} MiB | {a:.2} | {b:.2} | {c:.1} |");
    }
}
