//! What is looked at, what is counted, and what a silence means: lessons from audits that printed "complete".
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[allow(dead_code, reason = "of what tests share, the table alone is needed here")]
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::table;
use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Float64Type;
use async_trait::async_trait;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use repair_core::engine::{Engine, Outcome, RunReport, StartRequest};
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::overlay::story::{Standing, Story, of_slot};
use repair_core::lake::{Artifacts as _, Layer, Overlay as _, overlay};
use repair_core::model::Key;
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::Workflow;
use repair_core::{ErrorKind, Result};
use serde::Deserialize;
use serde_json::Value;

/// Half past nine of the day that is looked at; the hour is from nine to ten.
const HOUR: &str = "from: 2024-03-04T09:00:00Z, to: 2024-03-04T10:00:00Z";

/// The number of the hour's first minute.
fn first() -> i64 {
    "2024-03-04T09:00:00Z".parse::<Timestamp>().unwrap().as_second() / 60
}

/// Rows of minutes of the hour, each with a value of its own.
fn rows<'a>(of: impl IntoIterator<Item = (&'a str, i64)>) -> RecordBatch {
    let of: Vec<(&str, i64)> = of.into_iter().collect();
    let values = of.iter().map(|(key, minute)| f64::from(i32::try_from(*minute).unwrap()) + 0.001 * f64::from(key.as_bytes()[0]));
    let times = of.iter().map(|(_, minute)| (first() + minute) * 60_000_000);
    let columns: [(&str, ArrayRef); 3] = [
        ("key", Arc::new(StringArray::from_iter_values(of.iter().map(|(key, _)| *key)))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
        ("value", Arc::new(Float64Array::from_iter_values(values))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
struct Config {
    /// The minutes it has, by key.
    #[serde(default)]
    has: BTreeMap<String, Vec<i64>>,
    /// The keys of which it vouches that there is nothing else.
    #[serde(default)]
    vouches: Vec<String>,
    /// The keys of which it answers with yesterday's rows.
    #[serde(default)]
    off: Vec<String>,
}

/// A vendor of rows.
struct Vendor(Config);

#[async_trait]
impl Source for Vendor {
    fn limits(&self) -> Limits {
        Limits::new(1_000, 1)
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        let key = request.keys[0].to_string();
        let grid = context.table("bars")?.grid()?;
        let asked = grid.slots_in(&request.interval);
        let off = if self.0.off.contains(&key) { -1_440 } else { 0 };
        let minutes = self.0.has.get(&key).into_iter().flatten().filter(|minute| asked.contains(first() + **minute));
        let rows = rows(minutes.map(|minute| (key.as_str(), minute + off)));
        let covered = self.0.vouches.contains(&key).then(|| Covered { key: request.keys[0].clone(), interval: request.interval });
        Ok(Answer::new(vec![rows]).with_covered(covered.into_iter().collect()).with_said("the vendor"))
    }
}

struct World {
    lake: MemoryLake,
    journal: MemoryJournal,
    clock: VirtualClock,
    registry: Arc<Registry>,
}

impl World {
    fn new(held: &RecordBatch) -> Self {
        let lake = MemoryLake::default();
        lake.put_table(&table(), std::slice::from_ref(held)).unwrap();
        let mut registry = Registry::default();
        registry.source("vendor", "has what it has", |config: Config| Ok(Vendor(config)));
        let clock = VirtualClock::starting_at("2024-03-05T00:00:00Z".parse().unwrap());
        Self { lake, journal: MemoryJournal::default(), clock, registry: Arc::new(registry) }
    }

    async fn run(&self, id: &str, text: &str) -> RunReport {
        let text = format!(
            "workflow: w\nkind: state-machine\ntables: {{ bars: {{ location: bars, format: parquet, key: [key], time: ts, cadence: 1m }} }}\n{text}"
        );
        let workflow = Workflow::parse_with("w.yaml", &text, &self.registry, &BTreeMap::new()).unwrap_or_else(|told| panic!("{told}"));
        let mut engine = Engine::new(self.registry.clone(), Arc::new(self.lake.clone()), Arc::new(self.journal.clone()));
        engine.clock = Arc::new(self.clock);
        engine.start(&workflow, StartRequest::new(id)).await.unwrap()
    }

    async fn story(&self, key: &str, minute: i64) -> Story {
        let at = table().grid().unwrap().start_of(first() + minute);
        of_slot(&self.lake, &table(), &Key::from(key), at, "2024-03-05T01:00:00Z".parse().unwrap()).await.unwrap()
    }
}

/// What a step put out.
fn out<'a>(report: &'a RunReport, step: &str, name: &str) -> &'a Value {
    &report.step(step).unwrap().output[name]
}

fn look(keys: &[&str]) -> String {
    format!("detect: gaps, with: {{ table: bars, keys: [{}], {HOUR} }}", keys.join(", "))
}

/// Looks, asks the vendor, looks again.
fn fill(keys: &[&str], vendor: &str, more: &str) -> String {
    format!(
        "sources: {{ vendor: {{ source: vendor, with: {vendor} }} }}\nstart: look\nsteps:\n  look: {{ {}, next: fill }}\n  \
         fill: {{ repair: backfill, of: look, with: {{ source: vendor }}, {more} next: check }}\n  check: {{ verify: look, end: true }}",
        look(keys)
    )
}

#[tokio::test(start_paused = true)]
async fn one_fresh_key_is_not_fresh() {
    // The newest row of the table is of the hour's last minute, and yet of 174 series two are up to date.
    let names: Vec<String> = (0..174).map(|number| format!("T{number:03}")).collect();
    let held = names.iter().enumerate().flat_map(|(number, name)| {
        let until = if number < 2 { 60 } else { 1 };
        (0..until).map(|minute| (name.as_str(), minute))
    });
    let world = World::new(&rows(held));
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let report = world.run("run", &format!("start: look\nsteps:\n  look: {{ {}, end: true }}", look(&keys))).await;
    for (name, count) in [("audited_keys", 174), ("expected", 174 * 60), ("present", 2 * 60 + 172), ("missing", 172 * 59), ("gaps", 172)] {
        assert_eq!(out(&report, "look", name), count, "{name}");
    }
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
}

#[tokio::test(start_paused = true)]
async fn outage_keeps_its_evidence() {
    // Whatever was captured, as much is expected: of a series that stopped, of one that never was, and of a table without a row.
    let half = rows((0..30).map(|minute| ("A", minute)));
    for (held, present) in [(&half, 30), (&half.slice(0, 0), 0)] {
        let world = World::new(held);
        let report = world.run("run", &format!("start: look\nsteps:\n  look: {{ {}, end: true }}", look(&["A", "B", "C"]))).await;
        for (name, count) in [("expected", 180), ("present", present), ("missing", 180 - present), ("audited_keys", 3)] {
            assert_eq!(out(&report, "look", name), count, "{name}");
        }
    }
    // Of a table that is not there nothing is known, which is not the same.
    let world = World::new(&half);
    let text = format!("start: look\nsteps:\n  look: {{ {}, end: true }}", look(&["A"])).replace("table: bars", "table: lost");
    let lost = "tables: { lost: { location: lost, format: parquet, key: [key], time: ts, cadence: 1m } }\n";
    let workflow = format!("workflow: w\nkind: state-machine\n{lost}{text}");
    let workflow = Workflow::parse_with("w.yaml", &workflow, &world.registry, &BTreeMap::new()).unwrap();
    let engine = Engine::new(world.registry.clone(), Arc::new(world.lake.clone()), Arc::new(world.journal.clone()));
    let request = StartRequest::new("run");
    match engine.start(&workflow, request).await {
        Ok(report) => assert_eq!(report.outcome, Some(Outcome::Blind)),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Blind), "{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn same_symptom_three_causes() {
    // Three series lack the same twelve minutes: nothing traded, the vendor has a hole, the vendor answers with another day.
    let names = ["quiet", "hole", "wrong"];
    let held = names.iter().flat_map(|name| (0..60).filter(|minute| !(20..32).contains(minute)).map(|minute| (*name, minute)));
    // A series that goes on shows that the collector did not fail.
    let world = World::new(&rows(held.chain((0..60).map(|minute| ("steady", minute)))));
    let vendor = "{ has: { wrong: [20, 21, 22] }, vouches: [quiet, wrong], off: [wrong] }";
    let keys = ["hole", "quiet", "steady", "wrong"];
    let report = world.run("run", &fill(&keys, vendor, "tolerate: { failed: 1 },")).await;
    assert_eq!(out(&report, "look", "missing"), 36);
    for (name, count) in [("absent", 12), ("failed", 1), ("repaired", 0), ("suspect", 0), ("unresolved", 24)] {
        assert_eq!(out(&report, "fill", name), count, "{name}: {report:?}");
    }
    assert_eq!((out(&report, "check", "absent"), out(&report, "check", "missing")), (&12.into(), &24.into()));
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    // Each with its evidence.
    let quiet = world.story("quiet", 25).await;
    assert_eq!((quiet.standing, quiet.exceptions[0].counts), (Standing::Absent, true));
    assert!(quiet.exceptions[0].answer.starts_with("the vendor: no row for quiet"), "{}", quiet.exceptions[0].answer);
    let hole = world.story("hole", 25).await;
    assert_eq!((hole.standing, hole.exceptions.len()), (Standing::Missing, 0));
    let wrong = world.story("wrong", 20).await;
    assert_eq!((wrong.standing, wrong.repairs.len()), (Standing::Missing, 0));
    let told = report.problems.iter().find(|problem| problem.starts_with("fill: unit")).unwrap();
    assert!(told.contains("invalid") && told.contains("outside the requested"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn complete_with_holes() {
    // All units succeed: the source answered each of them, with half of what was asked for.
    let world = World::new(&rows((0..60).filter(|minute| !(20..40).contains(minute)).map(|minute| ("A", minute))));
    let has: Vec<i64> = (20..40).step_by(2).collect();
    let report = world.run("run", &fill(&["A"], &format!("{{ has: {{ A: {has:?} }} }}"), "")).await;
    assert_eq!((out(&report, "fill", "succeeded"), out(&report, "fill", "failed")), (out(&report, "fill", "units"), &0.into()));
    // To look again tells, and the run is no plain success.
    assert_eq!((out(&report, "check", "expected"), out(&report, "check", "missing")), (&20.into(), &10.into()));
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    assert!(report.problems.contains(&"look: 10 slots still missing in table `bars`".to_owned()), "{:?}", report.problems);
}

#[tokio::test(start_paused = true)]
async fn constant_fill_is_marked() {
    // A series dies at half past nine. It is carried on for a while, and no run carries on what another has carried on.
    let world = World::new(&rows((0..30).map(|minute| ("A", minute))));
    let text = format!(
        "start: look\nsteps:\n  look: {{ {}, next: fill }}\n  fill: {{ repair: carry-forward, of: look, with: {{ max_age: 5m }}, end: true }}",
        look(&["A"])
    );
    for (run, missing, repaired) in [("first", 30, 5), ("second", 25, 0), ("third", 25, 0)] {
        let report = world.run(run, &text).await;
        assert_eq!((out(&report, "look", "missing"), out(&report, "fill", "repaired")), (&missing.into(), &repaired.into()), "{run}");
        assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    }
    let view = world.lake.rows(&table(), Layer::Repaired).unwrap();
    let by = view.column_by_name(overlay::REPAIRED_BY).unwrap().as_string::<i32>();
    let values = view.column_by_name("value").unwrap().as_primitive::<Float64Type>();
    assert_eq!(by.iter().filter(Option::is_none).count(), 30);
    let marked: Vec<f64> = by.iter().zip(values).filter(|(by, _)| *by == Some("carry-forward")).filter_map(|(_, value)| value).collect();
    assert_eq!(marked, [29.0 + 0.001 * f64::from(b'A'); 5], "the constant is told from what was measured");
}

#[tokio::test(start_paused = true)]
async fn a_row_where_another_source_has_none_is_a_conflict_and_shown() {
    let world = World::new(&rows((0..60).filter(|minute| !(20..24).contains(minute)).map(|minute| ("A", minute))));
    let report = world.run("first", &fill(&["A"], "{ vouches: [A] }", "")).await;
    assert_eq!((out(&report, "fill", "absent"), out(&report, "look", "conflicts")), (&4.into(), &0.into()));
    // Two of the rows come after all.
    world.lake.add_rows(&table(), &[rows([("A", 21), ("A", 22)])]).unwrap();
    let report = world.run("second", &fill(&["A"], "{ vouches: [A] }", "")).await;
    for (name, count) in [("present", 58), ("absent", 2), ("missing", 0), ("conflicts", 2)] {
        assert_eq!(out(&report, "look", name), count, "{name}");
    }
    let told = "look: 2 slots with rows that a source says do not exist in table `bars`";
    assert!(report.problems.contains(&told.to_owned()), "{:?}", report.problems);
    let story = world.story("A", 21).await;
    assert!(story.conflict.unwrap().contains("the table has a row, and `vendor` says: the vendor: no row for A"));
}

#[tokio::test(start_paused = true)]
async fn what_is_suspect_to_one_source_another_may_have() {
    // All series stop for forty minutes. The first vendor has nothing of any; the second has one of the two.
    let held =
        ["A", "B"].into_iter().flat_map(|name| (0..60).filter(|minute| !(10..50).contains(minute)).map(move |minute| (name, minute)));
    let world = World::new(&rows(held));
    let minutes: Vec<i64> = (10..50).collect();
    let sources = format!(
        "sources:\n  silent: {{ source: vendor, with: {{ vouches: [A, B] }} }}\n  other: {{ source: vendor, with: {{ has: {{ A: {minutes:?} }} }} }}"
    );
    let of = |source: &str| format!("{{ strategy: backfill, name: {source}, with: {{ source: {source} }} }}");
    let text = format!(
        "{sources}\nstart: look\nsteps:\n  look: {{ {}, next: fill }}\n  fill: {{ repair: [{}, {}], of: look, next: check }}\n  \
         check: {{ verify: look, end: true }}",
        look(&["A", "B"]),
        of("silent"),
        of("other")
    );
    let report = world.run("run", &text).await;
    let strategies = out(&report, "fill", "strategies");
    assert_eq!((&strategies[0]["suspect"], &strategies[0]["absent"]), (&80.into(), &0.into()), "{strategies}");
    assert_eq!((&strategies[1]["repaired"], &strategies[1]["suspect"]), (&40.into(), &0.into()), "{strategies}");
    assert_eq!((out(&report, "fill", "suspect"), out(&report, "check", "missing")), (&40.into(), &40.into()), "what is left of it");
    let told = "fill: 40 slots of table `bars` suspect: `silent` has nothing from 2024-03-04T09:10:00Z to 2024-03-04T09:50:00Z";
    assert!(report.problems.iter().any(|problem| problem.starts_with(told)), "{:?}", report.problems);
}

/// A generator of numbers, the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Whatever happens to a table between two runs (rows come, a run repairs and confirms absences, these expire, a run is undone, or nothing
/// happens), a run that may take findings over finds what one finds that may not.
#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_taken_over_and_nothing_else() {
    let (mut taken, mut looked) = (0, 0);
    for seed in 0..40 {
        let mut numbers = Numbers(seed);
        let world = World::new(&rows((0..30).map(|minute| ("A", minute))));
        let mut undone = 0;
        for number in 0..12 {
            let mut is_same = false;
            match numbers.below(6) {
                0 => {
                    let minute = i64::try_from(numbers.below(60)).unwrap();
                    let batch = rows([(["A", "B"][usize::try_from(numbers.below(2)).unwrap()], minute)]);
                    world.lake.add_rows(&table(), &[batch]).unwrap();
                }
                1 => {
                    let minutes: Vec<u64> = (0..numbers.below(4)).map(|_| numbers.below(60)).collect();
                    let vendor = format!("{{ has: {{ B: {minutes:?} }}, vouches: [A, B] }}");
                    let text = fill(&["A", "B"], &vendor, "")
                        .replace("{ source: vendor }, ", "{ source: vendor, recheck_after: 1h, quiet_spell: 5h }, ");
                    world.run(&format!("fill-{number}"), &text).await;
                }
                2 => tokio::time::advance(std::time::Duration::from_secs(60 * 31)).await,
                3 => {
                    undone += 1;
                    let parts = (0..number).map(|run| Part::of_run(format!("fill-{run}"))).take(1 + undone % 3).collect();
                    let at = "2024-03-05T00:00:00Z".parse().unwrap();
                    let (by, reason) = ("somebody".to_owned(), "it is wrong".to_owned());
                    let retraction = Retraction { id: format!("undo-{number}"), parts, undoes: None, at, by, reason };
                    world.lake.retract(&table(), &retraction).await.unwrap();
                }
                _ => is_same = number > 0,
            }
            let asked = world.lake.requests("presence");
            // A step of another name knows nothing of what the other found.
            let steps = format!(
                "start: look\nsteps:\n  look: {{ {0}, next: anew{number} }}\n  anew{number}: {{ {0}, end: true }}",
                look(&["A", "B"])
            );
            let report = world.run(&format!("look-{number}"), &steps).await;
            let (found, anew) = (&report.step("look").unwrap().output, &report.step(&format!("anew{number}")).unwrap().output);
            assert_eq!(found, anew, "seed {seed}, look {number}");
            let gaps = async |step: &str| {
                let batches = world.lake.get_artifact(&format!("look-{number}"), &format!("{step}-1-gaps")).await.unwrap();
                batches.try_collect::<Vec<_>>().await.unwrap()
            };
            assert_eq!(gaps("look").await, gaps(&format!("anew{number}")).await, "seed {seed}, look {number}");
            let is_taken = world.lake.requests("presence") == asked + 1;
            if is_taken {
                taken += 1;
            } else {
                looked += 1;
            }
            // What is late is put on record by each run that sees it.
            if is_same && found["overtaken"] == 0 {
                assert!(is_taken, "seed {seed}, look {number}: nothing has changed");
            }
        }
    }
    assert!(taken > 100 && looked > 100, "{taken} were taken over, {looked} were not");
}
