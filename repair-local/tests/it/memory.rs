//! What a repair takes of memory, however many units it has: each is planned, answered by a source, staged and published in a folder.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::cast_precision_loss, reason = "a test that fails, panics")]

use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use repair_core::Result;
use repair_core::engine::{Engine, StartRequest};
use repair_core::model::{Counts, Findings, GapList, Interval, Key, Scope, SlotRange, Usage};
use repair_core::plugin::{Answer, Detector, Limits, Registry, Request, Source, StepContext};
use repair_core::workflow::Workflow;
use repair_local::{LocalLake, SqliteJournal};
use serde_json::{Value, json};

use crate::common::runtime;

const UNITS: &str = "REPAIR_TEST_UNITS";

/// Slots from the begin of a gap to that of the next one of its key.
const APART: i64 = 16;
/// Slots of a gap: enough for the answer to be remembered.
const GAP: i64 = 12;
/// Keys that have gaps.
const KEYS: i64 = 50;
const MINUTE_US: i64 = 60_000_000;

struct FindsGaps(i64);

#[async_trait]
impl Detector for FindsGaps {
    async fn detect(&self, context: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        let interval = Interval::parse("1970-01-01", "1999-01-01")?;
        let mut gaps = GapList::default();
        let keys: Vec<Key> = (0..KEYS).map(|key| Key::from(format!("K{key:02}").as_str())).collect();
        for (number, key) in (0..).zip(&keys) {
            let of_key = (0..self.0).filter(|gap| gap % KEYS == number).map(|gap| gap / KEYS * APART + 1);
            of_key.for_each(|first| gaps.push(key, SlotRange::new(first, first + GAP)));
        }
        let missing = u64::try_from(self.0 * GAP).unwrap();
        let counts = Counts { missing, expected: missing, gaps: u64::try_from(self.0).unwrap(), ..Counts::default() };
        let grid = context.table("bars")?.grid()?;
        let scope = Scope { table: "bars".into(), grid, keys, interval, calendar: "24x7".into(), lifetimes: Default::default() };
        Ok(Findings::of_gaps(scope, counts, gaps, Usage::default()))
    }
}

/// Has a row for each missing slot, and none beside gaps.
struct Sells;

#[async_trait]
impl Source for Sells {
    fn limits(&self) -> Limits {
        Limits::new(u64::try_from(GAP + 2).unwrap(), 1)
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        let slots = request.interval.from().as_microsecond() / MINUTE_US..request.interval.to().as_microsecond() / MINUTE_US;
        let times: Vec<i64> = slots.filter(|slot| (1..=GAP).contains(&(slot % APART))).map(|slot| slot * MINUTE_US).collect();
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

const WORKFLOW: &str = "
workflow: many
kind: state-machine
tables: { bars: { location: bars, format: csv, key: [key], time: ts, cadence: 1m } }
sources: { shop: { source: sells } }
start: look
steps:
  look: { detect: finds, next: fill }
  fill: { repair: backfill, of: look, with: { source: shop }, concurrency: 4, end: true }
";

#[test]
#[ignore = "the other test of this file runs it, in a process of its own"]
fn repairs_as_many_units_as_it_is_given() {
    let units: i64 = std::env::var(UNITS).unwrap().parse().unwrap();
    let mut registry = Registry::default();
    registry.detector("finds", "finds gaps", move |_: Value| Ok(FindsGaps(units)));
    registry.source("sells", "answers", |_: Value| Ok(Sells));
    let registry = Arc::new(registry);
    let workflow = Workflow::parse("many.yaml", WORKFLOW, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bars")).unwrap();
    std::fs::write(folder.path().join("bars/one.csv"), "key,ts,value\nK00,1970-01-01T00:00:00Z,1.5\n").unwrap();
    let journal = Arc::new(SqliteJournal::open(folder.path().join("journal.db")).unwrap());
    let engine = Engine::new(registry, Arc::new(LocalLake::open(folder.path()).unwrap()), journal);
    let report = runtime().block_on(engine.start(&workflow, StartRequest::new("many").with_environment(json!({})))).unwrap();
    let output = &report.step("fill").unwrap().output;
    assert_eq!((output["units"].as_i64(), output["repaired"].as_i64()), (Some(units), Some(units * GAP)), "{:?}", report.problems);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("\npeak: {}", peak.trim().trim_end_matches(" kB"));
}

/// The most memory that a repair of so many units takes, in kB.
fn peak_kb(units: u64) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["memory::repairs_as_many_units_as_it_is_given", "--exact", "--ignored", "--nocapture"]);
    let output = command.env(UNITS, units.to_string()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let peak = said.lines().find_map(|line| line.strip_prefix("peak: "));
    peak.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr))).parse().unwrap()
}

#[test]
fn a_unit_takes_little_memory() {
    // The first two are within what is published at once, so the rows of all that are more are held for a moment, some 5 kB for each unit. Of many
    // units that is the same, so what is left is what each takes until the end, and the noise of the allocator.
    let ((few, many), most) = testdata::by_length(((300, 1_500), 9_000), ((6_000, 30_000), 1_000));
    // The noise only adds, so the smaller of two is nearer to what is needed.
    let peak_kb = |units| peak_kb(units).min(peak_kb(units));
    let (small, large) = (peak_kb(few), peak_kb(many));
    let bytes = large.saturating_sub(small) * 1_024 / (many - few);
    let said = format!("{few} units take {small} kB at most, {many} take {large} kB: {bytes} bytes for each more");
    println!("{said}");
    assert!(bytes < most, "{said}");
}
