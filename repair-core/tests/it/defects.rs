//! Defects other than gaps: duplicates and invalid values are found, replaced, looked at again, and noticed when the table changes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::engine::{Engine, Outcome, RunReport, StartRequest};
use repair_core::lake::overlay::accuracy;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::overlay::story::{self, Standing};
use repair_core::lake::{Layer, Overlay, ReadLake, overlay};
use repair_core::model::Usage;
use repair_core::model::{
    Absence, Counts, DefectKind, Findings, Fingerprints, Fix, GapList, Interval, Key, Scope, SlotRange, SlotRule, Table, Unit, Wanted,
};
use repair_core::plugin::{
    Answer, Clock, Covered, Detector, Limits, PlannedUnits, Plugin, PluginKind, Registry, Repairer, Request, Source, StepContext,
};
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock, context, minute_table, plugin_suite};
use repair_core::workflow::Workflow;
use repair_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// A table of one key and a value a minute.
fn table() -> Table {
    // Rows of one slot may be some seconds apart.
    minute_table("bars", "key").with_slots(SlotRule { tolerance_s: 10, ..SlotRule::default() })
}

/// A row: second of 1970, and value.
type Row = (i64, Option<f64>);

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("key", Arc::new(StringArray::from(vec!["K"; rows.len()]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0 * 1_000_000)).with_timezone("UTC"))),
        ("value", Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

/// Twenty minutes with a value each, but some that are given.
fn minutes(others: &[(i64, &[Row])]) -> Vec<Row> {
    let others: BTreeMap<i64, &[Row]> = others.iter().copied().collect();
    let rows = (0..20).flat_map(|slot| match others.get(&slot) {
        Some(rows) => rows.iter().map(|(second, value)| (slot * 60 + second, *value)).collect(),
        None => vec![(slot * 60, Some(10.0 + f64::from(u8::try_from(slot).unwrap()) / 4.0))],
    });
    rows.collect()
}

struct World {
    lake: MemoryLake,
    journal: MemoryJournal,
    clock: VirtualClock,
}

impl World {
    fn with(rows: &[Row]) -> Self {
        let world = Self {
            lake: MemoryLake::default(),
            journal: MemoryJournal::default(),
            clock: VirtualClock::starting_at("2024-03-04T09:00:00Z".parse().unwrap()),
        };
        world.lake.put_table(&table(), &[batch(rows)]).unwrap();
        world
    }

    fn context(&self) -> StepContext {
        context(Arc::new(self.lake.clone()), [table()], Arc::new(self.clock))
    }

    async fn run(&self, run: &str, steps: &str) -> RunReport {
        let mut registry = Registry::default();
        registry.detector("suspicious", "finds minute 4 wrong, and does not say which rows it saw", |_: Nothing| Ok(Suspicious));
        registry.repairer("denies", "says that there is nothing", |_: Nothing| Ok(Denies));
        let registry = Arc::new(registry);
        let tables = "tables: { bars: { location: bars, format: parquet, key: [key], time: ts, cadence: { every: 1m, tolerance: 10s } } }";
        let text = format!("workflow: w\nkind: state-machine\n{tables}\nstart: look\nsteps:\n{steps}");
        let workflow = Workflow::parse("w.yaml", &text, &registry).unwrap_or_else(|told| panic!("{told}"));
        let mut engine = Engine::new(registry, Arc::new(self.lake.clone()), Arc::new(self.journal.clone()));
        engine.clock = Arc::new(self.clock);
        let request = StartRequest::new(run);
        engine.start(&workflow, request).await.unwrap()
    }

    /// Second, value, and by whom, of each row of the view.
    fn seen(&self) -> Vec<(i64, Option<f64>, Option<String>)> {
        let rows = self.lake.rows(&table(), Layer::Repaired).unwrap();
        let times = rows.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
        let values = rows.column_by_name("value").unwrap().as_primitive::<Float64Type>();
        let [by, cells] = [overlay::REPAIRED_BY, overlay::REPAIRED_CELLS].map(|name| rows.column_by_name(name).unwrap().as_string::<i32>());
        let mut seen: Vec<_> = (0..rows.num_rows())
            .map(|row| {
                let value = values.is_valid(row).then(|| values.value(row));
                let repaired = by.is_valid(row).then(|| by.value(row)).or_else(|| cells.is_valid(row).then(|| cells.value(row)));
                (times.value(row) / 1_000_000, value, repaired.map(str::to_owned))
            })
            .collect();
        seen.sort_by(|a, b| a.partial_cmp(b).unwrap());
        seen
    }

    /// Minute and value of what is repaired.
    fn repaired(&self) -> Vec<(i64, Option<f64>)> {
        self.seen().into_iter().filter(|row| row.2.is_some()).map(|row| (row.0 / 60, row.1)).collect()
    }
}

fn output<'a>(report: &'a RunReport, step: &str) -> &'a Value {
    &report.steps.iter().find(|known| known.name == step).unwrap().output
}

fn counted(report: &RunReport, step: &str) -> [u64; 4] {
    let output = output(report, step);
    let patched = output["patched"].as_u64().unwrap_or(0);
    ["defective", "replaced", "changed", "missing"]
        .map(|name| output[name].as_u64().unwrap() + if name == "replaced" { patched } else { 0 })
}

const SPAN: &str = "table: bars, keys: [K], from: '1970-01-01T00:00:00Z', to: '1970-01-01T00:20:00Z'";

fn duplicates(keep: &str) -> String {
    format!(
        "  look: {{ detect: duplicates, with: {{ {SPAN} }}, next: fix }}\n  fix: {{ repair: keep, of: look, with: {{ keep: {keep} }}, next: \
         check }}\n  check: {{ verify: look, end: true }}\n"
    )
}

const RULES: &str =
    "[{ column: value, min: 0, max: 100, not: [77], not_null: true }, { column: value, outlier: { window: 4, threshold: 6 } }]";

fn invalid(rules: &str) -> String {
    format!(
        "  look: {{ detect: invalid, with: {{ {SPAN}, rules: {rules} }}, next: [{{ when: $output.defective = 0, goto: done }}, {{ goto: fix }}] \
         }}\n  fix: {{ repair: carry-forward, of: look, next: check }}\n  check: {{ verify: look, next: done }}\n  done: {{ succeed: true }}\n"
    )
}

#[tokio::test]
async fn one_of_several_rows_is_kept_and_looked_at_no_more() {
    let rows = minutes(&[
        (3, &[(0, Some(1.0)), (0, Some(1.0))]),
        (5, &[(0, Some(1.0)), (0, Some(2.0)), (0, None)]),
        (7, &[(0, Some(9.0)), (10, Some(8.0))]),
        (9, &[]),
    ]);
    let world = World::with(&rows);
    let report = world.run("one", &duplicates("{ max: value }")).await;
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    assert_eq!(counted(&report, "look"), [3, 0, 0, 1]);
    assert_eq!(output(&report, "look")["duplicates"], 4);
    assert_eq!(counted(&report, "check"), [0, 3, 0, 0]);
    assert_eq!(world.repaired(), [(3, Some(1.0)), (5, Some(2.0)), (7, Some(9.0))]);
    assert_eq!(world.seen().len(), 19, "each minute but the missing one is seen once");
    // Nothing is found again, until the table has other rows there.
    let again = world.run("two", &duplicates("{ max: value }")).await;
    assert_eq!(counted(&again, "look"), [0, 3, 0, 1]);
    world.lake.add_rows(&table(), &[batch(&[(5 * 60, Some(3.0))])]).unwrap();
    let late = world.run("three", &duplicates("{ max: value }")).await;
    assert_eq!((counted(&late, "look"), counted(&late, "check")), ([1, 2, 0, 1], [0, 1, 0, 0]));
    assert_eq!(world.repaired(), [(3, Some(1.0)), (5, Some(3.0)), (7, Some(9.0))]);
}

#[tokio::test]
async fn what_the_rule_does_not_tell_is_not_guessed() {
    let world = World::with(&minutes(&[(3, &[(0, Some(1.0)), (0, Some(1.0))]), (5, &[(0, Some(1.0)), (0, Some(2.0))])]));
    let report = world.run("one", &duplicates("first")).await;
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    assert!(report.reason.as_ref().unwrap().contains("1 slot is still duplicate in table `bars`"), "{report:?}");
    assert_eq!(world.repaired(), [(3, Some(1.0))]);
    assert!(report.problems.iter().any(|problem| problem.contains("K at 1970-01-01T00:05:00Z: 2 rows")), "{report:?}");
    assert_eq!((counted(&report, "check"), output(&report, "fix")["conflicts"].as_u64()), ([1, 1, 0, 0], Some(1)));
}

#[tokio::test]
async fn invalid_values_are_replaced_by_what_is_not() {
    let wrong: [(i64, &[Row]); 5] =
        [(0, &[(0, Some(77.0))]), (4, &[(0, Some(-5.0))]), (5, &[(0, Some(1e6))]), (9, &[(0, None)]), (15, &[(0, Some(60.0))])];
    let world = World::with(&minutes(&wrong));
    let report = world.run("one", &invalid(RULES)).await;
    assert_eq!(counted(&report, "look"), [5, 0, 0, 0]);
    // Minute 0 has nothing before it; minutes 4 and 5 are not carried on into each other.
    assert_eq!(world.repaired(), [(4, Some(10.75)), (5, Some(10.75)), (9, Some(12.0)), (15, Some(13.5))]);
    assert_eq!(counted(&report, "check"), [1, 4, 0, 0]);
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    assert_eq!(world.lake.rows(&table(), Layer::Raw).unwrap().num_rows(), 20, "raw data is never touched");

    // The table's owner mends minute 4, makes minute 5 wrong otherwise, and takes minute 9 away.
    let mended = minutes(&[wrong[0], (4, &[(0, Some(11.0))]), (5, &[(0, Some(-1e6))]), (9, &[]), wrong[4]]);
    world.lake.put_table(&table(), &[batch(&mended)]).unwrap();
    let now: Timestamp = "2024-03-05T00:00:00Z".parse().unwrap();
    let told = async |minute: &str| story::of_slot(&world.lake, &table(), &Key::from("K"), minute.parse().unwrap(), now).await.unwrap();
    let four = told("1970-01-01T00:04:00Z").await;
    assert_eq!((four.standing, four.repairs[0].changed), (Standing::Raw, false));
    assert!(!four.repairs[0].counts, "what its owner says is seen");
    let fifteen = told("1970-01-01T00:15:00Z").await;
    assert_eq!((fifteen.standing, fifteen.repairs[0].cells["value"].counts), (Standing::Patched, true));
    let late = world.run("two", &invalid(RULES)).await;
    assert_eq!(counted(&late, "look"), [2, 1, 1, 1], "minutes 0 and 5 are wrong; 4 has changed, and 9 is gone");
    assert_eq!(world.repaired(), [(5, Some(11.0)), (15, Some(13.5))]);
    for told in
        ["1 repaired slot", "1 slot still invalid", "K at 1970-01-01T00:00:00Z: its row breaks `column: value, min: 0, max: 100, not: 77"]
    {
        assert!(late.problems.iter().any(|problem| problem.contains(told)), "{told}: {late:?}");
    }
}

#[tokio::test]
async fn a_repair_that_breaks_a_rule_is_found_too_and_one_that_repeats_is_not_frozen() {
    let frozen: Vec<(i64, Vec<Row>)> = (6..12).map(|slot| (slot, vec![(0, Some(5.0))])).collect();
    let frozen: Vec<(i64, &[Row])> = frozen.iter().map(|(slot, rows)| (*slot, rows.as_slice())).collect();
    let world = World::with(&minutes(&frozen));
    let rules = "[{ column: value, frozen: 4 }]";
    let report = world.run("one", &invalid(rules)).await;
    assert_eq!((counted(&report, "look"), counted(&report, "check")), ([5, 0, 0, 0], [0, 5, 0, 0]));
    assert_eq!(world.repaired().len(), 5);
    assert_eq!(counted(&world.run("two", &invalid(rules)).await, "look"), [0, 5, 0, 0]);
    // By a stricter rule, the value that was repeated is wrong as well.
    let stricter = world.run("three", &invalid("[{ holds: value >= 6 }]")).await;
    assert_eq!((counted(&stricter, "look"), counted(&stricter, "check")), ([6, 0, 0, 0], [0, 6, 0, 0]));
    assert_eq!(world.repaired(), (6..12).map(|minute| (minute, Some(11.25))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_bound_of_a_key_follows_from_all_its_values_also_when_few_are_looked_at_again() {
    // All are about 12; one is absurd, and two in a row are.
    let world = World::with(&minutes(&[(4, &[(0, Some(940.0))]), (9, &[(0, Some(0.5))]), (10, &[(0, Some(0.25))])]));
    let rules = "[{ column: value, min: { times_median: 0.25 }, max: { times_median: 5 } }]";
    let report = world.run("one", &invalid(rules)).await;
    assert_eq!((counted(&report, "look"), counted(&report, "check")), ([3, 0, 0, 0], [0, 3, 0, 0]));
    assert_eq!(world.repaired(), [(4, Some(10.75)), (9, Some(12.0)), (10, Some(12.0))]);
    assert_eq!(counted(&world.run("two", &invalid(rules)).await, "look"), [0, 3, 0, 0]);
    // A repair that breaks the bound is found, though nothing else is looked at again.
    let world = World::with(&minutes(&[(4, &[(0, Some(940.0))])]));
    let set = "  look: { detect: invalid, with: { SPAN, rules: RULES }, next: fix }\n  fix: { repair: set, of: look, with: { values: { value: 800 } }, next: \
               check }\n  check: { verify: look, next: done }\n  done: { succeed: true }\n";
    let report = world.run("one", &set.replace("SPAN", SPAN).replace("RULES", rules)).await;
    assert_eq!((counted(&report, "look")[0], counted(&report, "check")[0]), (1, 1), "800 is as absurd as 940");
    // Seven values are too few for a median.
    let few = World::with(&minutes(&[(4, &[(0, Some(940.0))])])[..7]);
    assert_eq!(counted(&few.run("one", &invalid(rules)).await, "look")[0], 0);
}

#[tokio::test]
async fn a_meter_never_falls_and_a_value_does_not_jump_and_back() {
    let world = World::with(&minutes(&[(4, &[(0, Some(940.0))]), (9, &[(0, Some(2.0))])]));
    let falls = world.run("one", &invalid("[{ column: value, never_falls: true }]")).await;
    assert_eq!((counted(&falls, "look"), counted(&falls, "check")[0]), ([2, 0, 0, 0], 0), "neither those after 4 nor those before 9");
    let world = World::with(&minutes(&[(4, &[(0, Some(940.0))]), (9, &[(0, Some(2.0))])]));
    let jumps = world.run("one", &invalid("[{ column: value, jump: 3 }]")).await;
    assert_eq!((counted(&jumps, "look"), counted(&jumps, "check")[0]), ([2, 0, 0, 0], 0));
}

/// Finds with a rule what is wrong in a table of two keys, whose bounds another table lists.
async fn found_with_limits(rule: Value, limits: &[(&str, i64, Option<f64>)]) -> Result<Findings> {
    let lake = MemoryLake::default();
    let rows: Vec<(&str, i64, f64)> = ["K", "L"]
        .into_iter()
        .flat_map(|key| (0..20).map(move |slot| (key, slot * 60, if key == "K" { 10.0 } else { 1_000.0 })))
        .map(|(key, second, value)| (key, second, if second == 240 { 1_200.0 } else { value }))
        .collect();
    let batch = |rows: &[(&str, i64, Option<f64>)], name: &str| {
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1 * 1_000_000)).with_timezone("UTC");
        let columns: [(&str, ArrayRef); 3] = [
            ("key", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
            ("ts", Arc::new(times)),
            (name, Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.2)))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
    };
    let rows: Vec<(&str, i64, Option<f64>)> = rows.into_iter().map(|(key, second, value)| (key, second, Some(value))).collect();
    lake.put_table(&table(), &[batch(&rows, "value")]).unwrap();
    let of_limits = minute_table("limits", "key");
    lake.put_table(&of_limits, &[batch(limits, "highest")]).unwrap();
    let clock = VirtualClock::starting_at("2024-03-04T09:00:00Z".parse().unwrap());
    let context = context(Arc::new(lake), [table(), of_limits], Arc::new(clock));
    let with = json!({
        "table": "bars", "keys": ["K", "L"], "from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:20:00Z", "rules": [rule]
    });
    let Plugin::Detector(detector) = plugin(PluginKind::Detector, "invalid", &with)? else { panic!("a detector") };
    detector.detect(&context, None).await
}

#[tokio::test]
async fn bounds_of_keys_come_from_a_table() {
    let rule = || json!({ "column": "value", "max": { "table": "limits", "column": "highest" } });
    let limits = [("K", 0, Some(5.0)), ("K", 60, Some(50.0)), ("L", 0, Some(1_100.0)), ("L", 60, None)];
    let found = found_with_limits(rule(), &limits).await.unwrap();
    let wrong: Vec<String> = found.gaps.iter().map(|(key, gap)| format!("{key} {}", gap.first)).collect();
    assert_eq!((wrong, found.notices.len()), (vec!["K 4".to_owned(), "L 4".to_owned()], 0), "the latest bound counts");
    let found = found_with_limits(rule(), &limits[..2]).await.unwrap();
    assert_eq!(found.gaps.len(), 1);
    assert!(found.notices[0].contains("has no `highest` for L"), "{:?}", found.notices);
    let other = json!({ "column": "value", "max": { "table": "limits", "column": "high" } });
    let error = found_with_limits(other, &limits).await.map(|found| found.counts).unwrap_err();
    assert!(error.full().contains("which table `limits` does not have"), "{}", error.full());
}

#[tokio::test]
async fn one_bound_for_keys_of_different_size_is_noted() {
    let found = found_with_limits(json!({ "column": "value", "max": 5_000 }), &[]).await.unwrap();
    assert_eq!(found.gaps.len(), 0, "1,200 passes");
    let [notice] = found.notices.as_slice() else { panic!("{:?}", found.notices) };
    assert!(notice.contains("more than 10 times the median of 1 key, such as K with a median of 10"), "{notice}");
    let found = found_with_limits(json!({ "column": "value", "max": { "times_median": 5 } }), &[]).await.unwrap();
    assert_eq!((found.gaps.len(), found.notices.len()), (1, 0), "but not for K");
}

/// A late row that is found wrong says nothing of the guess it came after, until it is held to be right after all.
#[tokio::test]
async fn a_late_row_that_is_wrong_is_no_truth() {
    let world = World::with(&minutes(&[(4, &[])]));
    let fill =
        format!("  look: {{ detect: gaps, with: {{ {SPAN} }}, next: fix }}\n  fix: {{ repair: carry-forward, of: look, end: true }}\n");
    world.run("fill", &fill).await;
    world.lake.add_rows(&table(), &[batch(&[(240, Some(1e6))])]).unwrap();
    let judged = async || accuracy::accuracy(&world.lake, &table(), None).await.unwrap()["carry-forward"].judged;
    assert_eq!(judged().await, 1);
    world.run("mend", &invalid(RULES)).await;
    assert_eq!((world.repaired(), judged().await), (vec![(4, Some(10.75))], 0));
    let undo = Retraction {
        id: "undo".to_owned(),
        parts: vec![Part::of_run("mend")],
        undoes: None,
        at: world.clock.now(),
        by: "somebody".to_owned(),
        reason: "it was right".to_owned(),
    };
    world.lake.retract(&table(), &undo).await.unwrap();
    assert_eq!((world.repaired(), judged().await), (vec![], 1));
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
struct Nothing {}

/// Finds a slot wrong, and does not say which rows it saw.
struct Suspicious;

#[async_trait]
impl Detector for Suspicious {
    async fn detect(&self, context: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        let interval = Interval::parse("1970-01-01", "1970-01-01")?;
        let grid = context.table("bars")?.grid()?;
        let scope = Scope {
            table: "bars".to_owned(),
            grid,
            keys: vec![Key::from("K")],
            interval,
            calendar: "24x7".to_owned(),
            lifetimes: Default::default(),
        };
        let mut gaps = GapList::default();
        gaps.push(&Key::from("K"), SlotRange::new(4, 5));
        let counts = Counts { expected: 1, present: 1, defective: 1, gaps: 1, audited_keys: 1, ..Counts::default() };
        let judged = Fingerprints::default();
        Ok(Findings { kind: DefectKind::Invalid, judged, ..Findings::of_gaps(scope, counts, gaps, Usage::default()) })
    }
}

/// Says that there is nothing in the slots.
struct Denies;

#[async_trait]
impl Repairer for Denies {
    async fn plan(&self, _: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let wanted = findings.gaps.iter().map(|(key, slots)| Wanted { key: key.clone(), slots: vec![slots] }).collect();
        Ok(Box::new([Ok(Unit { interval: findings.scope.interval, wanted })].into_iter()))
    }

    async fn repair(&self, context: &StepContext, _: &Findings, unit: &Unit) -> Result<Fix> {
        let wanted = &unit.wanted[0];
        let absence = Absence {
            key: wanted.key.clone(),
            slots: wanted.slots[0],
            source: "market".to_owned(),
            asked_at: context.clock.now(),
            answer: "nothing traded".to_owned(),
            recheck_after: Timestamp::MAX,
        };
        Ok(Fix { absent: vec![absence], source: "market".to_owned(), ..Fix::default() })
    }
}

#[tokio::test]
async fn a_detector_need_not_know_of_fingerprints() {
    let world = World::with(&minutes(&[]));
    let steps = "  look: { detect: suspicious, with: {}, next: fix }\n  fix: { repair: carry-forward, of: look, end: true }\n";
    world.run("one", steps).await;
    assert_eq!(world.repaired(), [(4, Some(10.75))]);
    let at = "1970-01-01T00:04:00Z".parse().unwrap();
    let story = story::of_slot(&world.lake, &table(), &Key::from("K"), at, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((story.repairs[0].op.as_str(), story.repairs[0].changed), ("replace", false));
    assert!(story.repairs[0].replaced.is_some());
}

#[tokio::test]
async fn that_a_source_knows_no_row_does_not_take_the_tables_away() {
    let world = World::with(&minutes(&[]));
    let steps = "  look: { detect: suspicious, with: {}, next: fix }\n  fix: { repair: denies, of: look, with: {}, end: true }\n";
    let report = world.run("one", steps).await;
    assert_eq!((output(&report, "fix")["absent"].as_u64(), output(&report, "fix")["conflicts"].as_u64()), (Some(0), Some(1)), "{report:?}");
    assert_eq!(world.seen().len(), 20);
    let exceptions = Table { location: overlay::exceptions("bars"), ..table() };
    assert!(world.lake.describe(&exceptions).await.is_err(), "nothing is confirmed absent");
}

fn plugin(kind: PluginKind, name: &str, with: &Value) -> Result<Plugin> {
    Registry::default().get(kind, name).unwrap().make(with).map_err(Error::from)
}

fn with(more: &Value) -> Value {
    let mut with = json!({ "table": "bars", "keys": ["K"], "from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:20:00Z" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with
}

#[tokio::test]
async fn they_keep_the_promises_of_plug_ins() {
    let world = World::with(&minutes(&[
        (3, &[(0, Some(1.0)), (0, Some(2.0))]),
        (4, &[(0, Some(1.0)), (5, Some(500.0))]),
        (8, &[(0, Some(-5.0))]),
        (12, &[]),
    ]));
    let context = world.context();
    let rules = json!({ "rules": [{ "column": "value", "min": 0, "max": 100 }, { "column": "value", "outlier": { "window": 3 } }] });
    for (name, more) in [("duplicates", json!({})), ("invalid", rules)] {
        let Plugin::Detector(detector) = plugin(PluginKind::Detector, name, &with(&more)).unwrap() else { panic!("a detector") };
        plugin_suite::detector(detector.as_ref(), &context).await;
        let found = detector.detect(&context, None).await.unwrap();
        assert!(found.counts.defective >= 2, "{found:?}");
        for (repairer, with) in [("keep", json!({ "keep": "last" })), ("carry-forward", json!({}))] {
            if repairer == "keep" && found.kind != DefectKind::Duplicate {
                continue;
            }
            let Plugin::Repairer(repairer) = plugin(PluginKind::Repairer, repairer, &with).unwrap() else { panic!("a repairer") };
            plugin_suite::repairer(repairer.as_ref(), &context, &found).await;
        }
    }
}

/// Has the value of the number of the minute everywhere, but in minute 4 none at all.
struct Knows;

#[async_trait]
impl Source for Knows {
    fn limits(&self) -> Limits {
        Limits::new(7, 1)
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        context.check_cancelled()?;
        let slots = request.table.grid()?.slots_in(&request.interval);
        let value = |slot: i64| f64::from(u8::try_from(slot).unwrap());
        let rows: Vec<Row> = (slots.first..slots.end).filter(|slot| *slot != 4).map(|slot| (slot * 60, Some(value(slot)))).collect();
        let covered = Covered { key: Key::from("K"), interval: request.interval };
        Ok(Answer::new(vec![batch(&rows)]).with_covered(vec![covered]))
    }
}

#[tokio::test]
async fn a_comparison_with_a_source_keeps_the_promises_of_plug_ins() {
    let value = |slot: i64| f64::from(u8::try_from(slot).unwrap());
    let wrong = |slot: i64| [3, 6, 7, 13].contains(&slot);
    let rows: Vec<Row> = (0..20).map(|slot| (slot * 60, Some(if wrong(slot) { -1.0 } else { value(slot) }))).collect();
    let world = World::with(&rows);
    let source: Arc<dyn Source> = Arc::new(Knows);
    let context = world.context().with_sources([("it".to_owned(), source)]);
    for patch in [true, false] {
        let more = json!({ "source": "it", "patch": patch });
        let Plugin::Detector(detector) = plugin(PluginKind::Detector, "differs", &with(&more)).unwrap() else { panic!("a detector") };
        plugin_suite::detector(detector.as_ref(), &context).await;
        let found = detector.detect(&context, None).await.unwrap();
        assert_eq!((found.kind, found.counts.defective, found.counts.gaps, found.counts.conflicts), (DefectKind::Different, 4, 3, 1));
        assert_eq!((found.cells.len(), found.judged.is_empty()), if patch { (4, true) } else { (0, false) });
        let asks = detector.asks(&context).await.unwrap().unwrap();
        assert_eq!((asks.slots, asks.requests, asks.source.as_str()), (20, 3, "it"));
        let Plugin::Repairer(repairer) = plugin(PluginKind::Repairer, "backfill", &json!({ "source": "it" })).unwrap() else {
            panic!("a repairer")
        };
        plugin_suite::repairer(repairer.as_ref(), &context, &found).await;
    }
}

#[test]
fn rules_that_say_nothing_or_what_cannot_be_are_told_where_they_are_written() {
    for (rules, told) in [
        (json!([]), "`rules` is empty"),
        (json!([{ "column": "value" }]), "has no condition"),
        (json!([{ "min": 0 }]), "either `column`"),
        (json!([{ "column": "value", "min": 0, "holds": "a < b" }]), "either `column`"),
        (json!([{ "column": "value", "min": 3, "max": 2 }]), "no value is between"),
        (json!([{ "holds": "low" }]), "is not a comparison"),
        (json!([{ "holds": "1 < 2" }]), "is not a comparison"),
        (json!([{ "holds": "a < b < c" }]), "is not a comparison"),
        (json!([{ "column": "value", "frozen": 1 }]), "2 to 10000"),
        (json!([{ "column": "value", "outlier": { "window": 0 } }]), "`window` of 1"),
        (json!([{ "column": "value", "max": { "times_median": 0 } }]), "a factor above 0"),
        (json!([{ "column": "value", "max": { "median": 5 } }]), "`{ times_median: 5 }`"),
        (json!([{ "column": "value", "jump": -1 }]), "a distance above 0"),
    ] {
        let Err(error) = plugin(PluginKind::Detector, "invalid", &with(&json!({ "rules": rules }))) else { panic!("{rules} is taken") };
        assert!(error.full().contains(told), "{rules}: {}", error.full());
    }
}

#[tokio::test]
async fn a_rule_on_a_column_that_is_not_there_or_not_of_numbers_is_told() {
    let world = World::with(&minutes(&[]));
    for (rule, told) in [
        (json!({ "column": "valu", "min": 0 }), "which table `bars` does not have"),
        (json!({ "column": "key", "min": 0 }), "needs numbers"),
    ] {
        let made = plugin(PluginKind::Detector, "invalid", &with(&json!({ "rules": [rule] }))).unwrap();
        let Plugin::Detector(detector) = made else { panic!("a detector") };
        let error = detector.detect(&world.context(), None).await.map(|found| found.counts).unwrap_err();
        assert!(error.full().contains(told), "{}", error.full());
    }
}
