//! A table against a source: what differs is found and restated, within budgets; what was not compared is never clean.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a test that fails, panics")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::common::{World, output};
use async_trait::async_trait;
use futures::TryStreamExt;
use repair::arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use repair::arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use repair::core::lake::{Layer, ReadLake, ScanRequest};
use repair::core::model::{Cadence, Format, Key, SlotRange, Table};
use repair::core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair::plan::Verdict;
use repair::{Error, ErrorKind, Outcome, Repair, Result, RunReport};
use repair_local::LocalLake;
use serde_json::{Value, json};

const DAY_S: i64 = 1_709_510_400;
const FIRST: i64 = DAY_S / 3_600;
pub(crate) const HOURS: i64 = 72;

/// The values of a slot: by column.
pub(crate) type Cells = (Option<f64>, Option<i64>, Option<&'static str>);
/// Rows by key and hour.
pub(crate) type Rows = BTreeMap<(&'static str, i64), Cells>;

pub(crate) fn truth(keys: &[&'static str], hours: i64) -> Rows {
    let of = |key: &&'static str| f64::from(key.as_bytes()[0] - b'a' + 1) * 100.0;
    keys.iter()
        .flat_map(|key| (0..hours).map(move |hour| ((*key, hour), (Some(of(key) + hour as f64 / 10.0), Some(hour * 7), Some("fine")))))
        .collect()
}

pub(crate) fn columns(rows: &Rows) -> Vec<(&'static str, ArrayRef)> {
    let times = rows.keys().map(|(_, hour)| (DAY_S + hour * 3_600) * 1_000_000);
    vec![
        ("k", Arc::new(StringArray::from_iter_values(rows.keys().map(|(key, _)| key)))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
        ("temp", Arc::new(rows.values().map(|cells| cells.0).collect::<Float64Array>())),
        ("count", Arc::new(rows.values().map(|cells| cells.1).collect::<Int64Array>())),
        ("note", Arc::new(rows.values().map(|cells| cells.2).collect::<StringArray>())),
    ]
}

/// How a source answers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum How {
    /// With what it has, and vouches for it.
    #[default]
    Truly,
    /// With what it has, and vouches for it even where that is nothing at all.
    Boldly,
    /// With what it has, and vouches for nothing.
    Silently,
    /// With the row of the hour after the last one, too.
    Beside,
    /// Without this column.
    Without(&'static str),
    /// Not at all, from this request on.
    Throttled(usize),
    /// With rows of the first request, moved in time, whatever is asked.
    Ignoring,
}

/// The keys and slots that a source was asked for.
pub(crate) type Question = (Vec<Key>, SlotRange);

/// A source that counts what it is asked.
#[derive(Clone, Default)]
pub(crate) struct Vendor {
    pub(crate) rows: Arc<Mutex<Rows>>,
    pub(crate) how: Arc<Mutex<How>>,
    pub(crate) asked: Arc<Mutex<Vec<Question>>>,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Config {
    #[serde(default = "many")]
    rows_per_request: u64,
    #[serde(default = "one")]
    keys_per_request: usize,
    #[serde(default)]
    pages: u64,
}

fn many() -> u64 {
    1_000
}

fn one() -> usize {
    1
}

struct Asked(Vendor, Config);

#[async_trait]
impl Source for Asked {
    fn limits(&self) -> Limits {
        Limits::new(self.1.rows_per_request, self.1.keys_per_request)
    }

    fn requests_at_worst(&self) -> u64 {
        self.1.pages.max(1)
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        let Self(vendor, _) = self;
        let slots = request.table.grid()?.slots_in(&request.interval);
        // Before the request counts: a test that waits for it may change both then.
        let (how, rows) = (*vendor.how.lock().unwrap(), vendor.rows.lock().unwrap().clone());
        let number = {
            let mut asked = vendor.asked.lock().unwrap();
            asked.push((request.keys.clone(), slots));
            asked.len()
        };
        if let How::Throttled(from) = how
            && number >= from
        {
            return Err(Error::new(ErrorKind::Throttled, "too many requests"));
        }
        let end = slots.end + i64::from(how == How::Beside);
        let asks_for = |key: &str, hour: i64| request.keys.contains(&Key::from(key)) && (slots.first..end).contains(&(FIRST + hour));
        let mut some: Rows = rows.into_iter().filter(|((key, hour), _)| asks_for(key, *hour)).collect();
        if how == How::Ignoring {
            some = (0..).zip(slots.first..slots.end).map(|(at, slot)| (("a", slot - FIRST), (Some(at as f64), Some(at), None))).collect();
        }
        let mut columns = columns(&some);
        if let How::Without(column) = how {
            columns.retain(|(name, _)| *name != column);
        }
        let known = |key: &&Key| how == How::Boldly || some.keys().any(|(known, _)| Key::from(*known) == **key);
        let covered = |key: &Key| Covered { key: key.clone(), interval: request.interval };
        let covered = if how == How::Silently { Vec::new() } else { request.keys.iter().filter(known).map(covered).collect() };
        Ok(Answer::new(vec![RecordBatch::try_from_iter(columns)?]).with_covered(covered).with_said("the vendor"))
    }
}

/// A lake with the table `t`, and a vendor.
pub(crate) struct Case {
    pub(crate) world: World,
    pub(crate) vendor: Vendor,
}

impl Case {
    pub(crate) fn new(table: &Rows, source: Rows) -> Self {
        let world = World::new();
        world.parquet("t/data.parquet", &columns(table));
        let vendor = Vendor { rows: Arc::new(Mutex::new(source)), ..Vendor::default() };
        Self { world, vendor }
    }

    pub(crate) fn answering(self, how: How) -> Self {
        *self.vendor.how.lock().unwrap() = how;
        self
    }

    fn asked(&self) -> usize {
        self.vendor.asked.lock().unwrap().len()
    }

    /// The workflow with these steps, and more at its top; `source` is what the vendor is configured with.
    pub(crate) async fn open(&self, more: &str, source: &str, steps: &str) -> Repair {
        let mut registry: Registry = repair::registry();
        let vendor = self.vendor.clone();
        registry.source("test.vendor", "counts what it is asked", move |config: Config| Ok(Asked(vendor.clone(), config)));
        let more = format!("{more}sources:\n  v: {{ source: test.vendor, with: {{ {source} }} }}\n");
        let path = self.world.written(&more, "t", "format: parquet, key: [k], time: ts, cadence: 1h", steps);
        Repair::open(path).registry(registry).connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
    }

    /// A run of `differs` alone.
    pub(crate) async fn look(&self, with: &str) -> RunReport {
        run(&self.open("", "", &look(with, "end: true")).await).await
    }
}

pub(crate) fn look(with: &str, then: &str) -> String {
    format!("  look: {{ detect: differs, with: {{ table: t, source: v, {with} }}, {then} }}")
}

pub(crate) const SPAN: &str = "keys: [a, b], from: 2024-03-04, to: 2024-03-06";

pub(crate) fn restate(with: &str, repair: &str) -> String {
    format!("{}\n  fix: {{ {repair}, of: look, next: check }}\n  check: {{ verify: look, end: true }}", look(with, "next: fix"))
}

pub(crate) async fn run(repair: &Repair) -> RunReport {
    repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()))
}

/// The rows that readers see, by key and hour.
pub(crate) async fn seen(world: &World) -> (Rows, u64) {
    let lake = LocalLake::open(world.0.path().join("lake")).unwrap();
    let table = Table { key: vec!["k".to_owned()], ..Table::new("t", Format::Parquet, "ts").with_cadence(Cadence::HOUR) };
    let batches: Vec<RecordBatch> = lake.scan(&table, &ScanRequest::new(Layer::Repaired)).await.unwrap().try_collect().await.unwrap();
    let (mut rows, mut replaced) = (Rows::new(), 0);
    for batch in batches {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        replaced += (batch.num_rows() - column("repaired_by").null_count()) as u64;
        for row in 0..batch.num_rows() {
            let key = if column("k").as_string::<i32>().value(row) == "a" { "a" } else { "b" };
            let hour = (column("ts").as_primitive::<TimestampMicrosecondType>().value(row) / 1_000_000 - DAY_S) / 3_600;
            let (temp, count, note) = (column("temp"), column("count"), column("note"));
            let note = note.is_valid(row).then(|| if note.as_string::<i32>().value(row) == "fine" { "fine" } else { "odd" });
            let temp = temp.is_valid(row).then(|| temp.as_primitive::<Float64Type>().value(row));
            let count = count.is_valid(row).then(|| count.as_primitive::<Int64Type>().value(row));
            rows.insert((key, hour), (temp, count, note));
        }
    }
    (rows, replaced)
}

/// Wrong in one column, in several, at both ends, null in the table.
fn provisional() -> Rows {
    let mut rows = truth(&["a", "b"], HOURS);
    rows.get_mut(&("a", 0)).unwrap().0 = Some(1.0);
    rows.get_mut(&("a", 30)).unwrap().1 = None;
    *rows.get_mut(&("b", 31)).unwrap() = (Some(2.0), Some(3), Some("odd"));
    rows.get_mut(&("b", HOURS - 1)).unwrap().2 = None;
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_restated_cell_by_cell_or_row_by_row() {
    for (patch, cells, rows) in [("true", json!(6), 0), ("false", Value::Null, 4)] {
        let case = Case::new(&provisional(), truth(&["a", "b"], HOURS));
        let steps = restate(&format!("{SPAN}, patch: {patch}"), "repair: backfill, with: { source: v }");
        let repair = case.open("", "", &steps).await;
        let report = run(&repair).await;
        let (look, check) = (output(&report, "look"), output(&report, "check"));
        assert_eq!((&look["defective"], &look["missing"], &look["gaps"], &look["cells"]), (&json!(4), &json!(0), &json!(4), &cells));
        let compared = json!({ "asked": 144, "slots": 144, "not_compared": 0, "only_source": 0, "only_table": 0, "only_table_values": 0 });
        assert_eq!(look["compared"], compared);
        assert_eq!((&check["defective"], &check["compared"]["slots"], report.outcome), (&json!(0), &json!(4), Some(Outcome::Succeeded)));
        assert_eq!(report.problems, [] as [String; 0]);
        assert_eq!(seen(&case.world).await, (truth(&["a", "b"], HOURS), rows), "patch: {patch}");
        // Two keys in one request each, then once for each slot to repair and to check, as far as one request does not cover several.
        assert_eq!(report.usage.source_requests, case.asked() as u64);
        // What is repaired no longer differs, until the source has other values again.
        let again = run(&repair).await;
        let look = output(&again, "look");
        assert_eq!(
            (&look["defective"], &look["replaced"], &look["patched"]),
            (&json!(0), &json!(rows), &if rows == 0 { json!(4) } else { Value::Null })
        );
        let mut newer = truth(&["a", "b"], HOURS);
        newer.get_mut(&("b", 31)).unwrap().1 = Some(99);
        newer.get_mut(&("a", 50)).unwrap().1 = Some(98);
        *case.vendor.rows.lock().unwrap() = newer.clone();
        let report = run(&repair).await;
        assert_eq!((&output(&report, "look")["defective"], &output(&report, "check")["defective"]), (&json!(2), &json!(0)));
        assert_eq!(seen(&case.world).await.0, newer, "patch: {patch}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_say_what_is_different_and_tolerances_what_is_not() {
    let mut table = truth(&["a"], 24);
    table.get_mut(&("a", 3)).unwrap().0 = Some(100.31);
    table.get_mut(&("a", 4)).unwrap().1 = Some(29);
    *table.get_mut(&("a", 5)).unwrap() = (Some(f64::NAN), None, Some("odd"));
    let case = Case::new(&table, truth(&["a"], 24));
    let span = "keys: [a], from: 2024-03-04, to: 2024-03-04";
    let report = case.look(span).await;
    let problem = &report.problems[0];
    let words = "look: 3 slots still different in table `t`: a at 2024-03-04T03:00:00Z: temp is 100.31 in the table, 100.3 in the source; a at \
                 2024-03-04T04:00:00Z: count is 29 in the table, 28 in the source; a at 2024-03-04T05:00:00Z: temp is NaN in the table, 100.5 in the source, count is \
                 empty in the table, 35 in the source, note is odd in the table, fine in the source";
    assert_eq!(problem, words);
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    for (more, defective, cells) in [
        ("tolerance: 0.01", 2, 4),
        ("tolerance: 0.009", 3, 5),
        ("tolerance: { temp: 0.01 }", 2, 4),
        ("tolerance: { temp: 0.01, count: 1 }", 1, 3),
        ("tolerance: 1", 1, 3),
        ("relative: { temp: 0.0001 }", 2, 4),
        ("relative: { temp: 0.00009 }", 3, 5),
        ("relative: 0.04", 1, 3),
        ("columns: [temp]", 2, 2),
        ("columns: [note]", 1, 1),
        ("columns: [count, temp], tolerance: { temp: 0.5 }, relative: { count: 0.5 }", 1, 2),
    ] {
        let found = output(&case.look(&format!("{span}, {more}")).await, "look");
        assert_eq!((&found["defective"], &found["cells"]), (&json!(defective), &json!(cells)), "{more}");
    }
    for (more, words) in [
        ("columns: [tmp]", "table `t` has no column `tmp` to compare; there are temp, count, note"),
        ("columns: [ts]", "has no column `ts` to compare"),
        ("columns: [temp, temp]", "listed twice"),
        ("tolerance: { note: 1 }", "`tolerance` is for numbers, and column `note` is Utf8"),
        ("columns: [temp], relative: { count: 1 }", "not among `columns`"),
    ] {
        let report = case.look(&format!("{span}, {more}")).await;
        assert!(report.reason.as_ref().is_some_and(|reason| reason.contains(words)), "{more}: {:?}", report.reason);
    }
    let asked = case.asked();
    for (more, words) in [
        ("tolerance: -1", "`tolerance` is -1"),
        ("tolerance: much", "a number of 0 or more, or such a number for each of some columns"),
        ("columns: []", "`columns`"),
        ("sample: 0%", "is not a sample"),
        ("sample: 5", "`sample` must be text"),
        ("seed: 3", "without `sample`"),
        ("deleted: drop", "`keep`, `remove`, or the limits of removal, e.g. `{ at_most: 5%, empty_answers: true }`"),
        ("deleted: { at_most: 0% }", "`keep`, `remove`, or the limits of removal"),
    ] {
        let path = case.world.written(
            "sources: { v: { source: stocks.archive, with: { location: v } } }\n",
            "t",
            "format: parquet, key: [k], time: ts, cadence: 1h",
            &look(&format!("{span}, {more}"), "end: true"),
        );
        let Err(error) = Repair::open(path).connect().await else { panic!("{more} is taken") };
        assert!(error.full().contains(words), "{more}: {}", error.full());
    }
    assert_eq!(case.asked(), asked);
}

/// What only one of the two has is counted and reported, and is never repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_one_of_them_has_is_reported() {
    let (mut table, mut source) = (truth(&["a", "b"], HOURS), truth(&["a", "b"], HOURS));
    table.remove(&("a", 9));
    table.remove(&("a", 10));
    table.remove(&("b", 20));
    source.remove(&("b", 20));
    source.remove(&("b", 21));
    source.get_mut(&("a", 12)).unwrap().2 = None;
    source.get_mut(&("a", 13)).unwrap().0 = None;
    source.get_mut(&("a", 13)).unwrap().1 = Some(-5);
    let case = Case::new(&table, source);
    let repair = case.open("", "", &restate(SPAN, "repair: backfill, with: { source: v }")).await;
    let report = run(&repair).await;
    let found = output(&report, "look");
    let compared = json!({ "asked": 144, "slots": 140, "not_compared": 0, "only_source": 2, "only_table": 1, "only_table_values": 2 });
    assert_eq!(found["compared"], compared);
    assert_eq!((&found["defective"], &found["conflicts"], &found["missing"]), (&json!(1), &json!(1), &json!(3)));
    for words in [
        "look: source `v` has rows in 2 slots where table `t` has none, which `detect: gaps` finds: a at 2024-03-04T09:00:00Z; a at 2024-03-04T10:00:00Z",
        "look: source `v` says that there is no row in 1 slot where table `t` has one (they stay, unless `deleted: remove` is set): b at 2024-03-04T21:00:00Z",
        "look: source `v` has no value in 2 slots where table `t` has some, which stay: a at 2024-03-04T12:00:00Z: note is fine in the table, empty in the source; a at \
         2024-03-04T13:00:00Z: temp is 101.3 in the table, empty in the source",
        "look: 1 slot with a row that a source says does not exist in table `t`",
    ] {
        assert!(report.problems.iter().any(|problem| problem == words), "{words}\n{:#?}", report.problems);
    }
    table.get_mut(&("a", 13)).unwrap().1 = Some(-5);
    assert_eq!(seen(&case.world).await.0, table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_compared_is_never_clean() {
    let whole = truth(&["a", "b"], HOURS);
    // A source that does not know a key, and vouches for nothing.
    let mut some = truth(&["a"], HOURS);
    some.remove(&("a", 70));
    let case = Case::new(&whole, some.clone()).answering(How::Silently);
    let report = case.look(SPAN).await;
    let found = output(&report, "look");
    assert_eq!((&found["compared"]["slots"], &found["compared"]["not_compared"], &found["conflicts"]), (&json!(71), &json!(73), &json!(0)));
    let words = "look: 73 slots of table `t` were not compared, because source `v` has no row there and does not vouch that there is none: a at 2024-03-06T22:00:00Z; b at \
                 2024-03-04T00:00:00Z; b at 2024-03-04T01:00:00Z; and more";
    assert_eq!(report.problems, [words]);
    // Nothing at all was compared.
    for (table, source, how, words) in [
        (
            &whole,
            Rows::new(),
            How::Truly,
            "it has no row in all 144 slots in which the table has one, and does not vouch that there is none",
        ),
        (&truth(&["a"], 2), some.clone(), How::Truly, "the table has no row in the 48 slots that were asked for"),
        (&whole, some.clone(), How::Without("temp"), "rows without the column `temp` of table `t`"),
    ] {
        let case = Case::new(table, source).answering(how);
        let with = match how {
            How::Without(column) => format!("{SPAN}, columns: [{column}]"),
            _ if words.contains("48") => "keys: [a], from: 2024-03-05, to: 2024-03-06".to_owned(),
            _ => SPAN.to_owned(),
        };
        let report = case.look(&with).await;
        assert!(report.reason.as_ref().is_some_and(|reason| reason.contains(words)), "{:?}", report.reason);
        let kind = if matches!(how, How::Without(_)) { ErrorKind::Invalid } else { ErrorKind::Blind };
        assert_eq!(report.error, Some(kind));
    }
    // A column that the source lacks is not compared, unless it is named; the others are, and can be repaired.
    let case = Case::new(&provisional(), whole.clone()).answering(How::Without("note"));
    let report = run(&case.open("", "", &restate(SPAN, "repair: backfill, with: { source: v }")).await).await;
    assert_eq!(
        (&output(&report, "look")["defective"], &output(&report, "check")["defective"]),
        (&json!(3), &json!(0)),
        "{:?}",
        report.problems
    );
    assert_eq!(report.problems, ["look: column `note` of table `t` was not compared, because source `v` does not have it"]);
    // Duplicates.
    let case = Case::new(&whole, whole.clone());
    let mut twice = Rows::new();
    twice.insert(("b", 5), (Some(-1.0), None, None));
    case.world.parquet("t/more.parquet", &columns(&twice));
    let report = case.look(SPAN).await;
    assert_eq!(output(&report, "look")["compared"]["not_compared"], 1);
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.contains("1 slot of table `t` was not compared, because the table has several rows there"))
    );
    // A slot that was found, and is no longer answered, is still different.
    let case = Case::new(&provisional(), whole);
    let steps = format!(
        "{}\n  still: {{ wait: {{ until: {{ event: changed, every: 50ms }} }}, next: check }}\n  check: {{ verify: look, end: true }}",
        look(SPAN, "next: still")
    );
    let repair = case.open("", "", &steps).await;
    let (vendor, asked, lake) = (case.vendor.clone(), case.vendor.clone(), repair.lake().clone());
    let silence = tokio::spawn(async move {
        while asked.asked.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        *vendor.how.lock().unwrap() = How::Silently;
        vendor.rows.lock().unwrap().clear();
        lake.signal("it", "changed", None, json!(null)).await.unwrap();
    });
    let report = repair.run().id("it").await.unwrap_or_else(|error| panic!("{}", error.full()));
    silence.await.unwrap();
    let check = output(&report, "check");
    assert_eq!((&check["defective"], &check["cells"], &check["compared"]["not_compared"]), (&json!(4), &json!(6), &json!(4)));
    assert_eq!(report.missing, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_cannot_be_right_is_an_error_that_names_the_source() {
    for (how, source, kind, words) in [
        (
            How::Beside,
            "rows_per_request: 24",
            ErrorKind::Invalid,
            "source `v` answered with a row of a at 2024-03-05T00:00:00Z, outside the requested",
        ),
        (How::Ignoring, "rows_per_request: 24", ErrorKind::Invalid, "so it seems to ignore the request"),
        (How::Throttled(1), "", ErrorKind::Throttled, "too many requests (source: v)"),
        (How::Throttled(3), "rows_per_request: 24", ErrorKind::Throttled, "too many requests (source: v)"),
    ] {
        let case = Case::new(&truth(&["a"], HOURS), truth(&["a"], HOURS)).answering(how);
        let repair = case.open("", source, &look("keys: [a], from: 2024-03-04, to: 2024-03-06", "end: true")).await;
        let report = run(&repair).await;
        assert_eq!((report.error, report.outcome), (Some(kind), Some(Outcome::Failed)), "{how:?}");
        assert!(report.reason.as_ref().unwrap().contains(words), "{how:?}: {:?}", report.reason);
        // What was answered before is on record.
        let answered = if let How::Throttled(from) = how { from - 1 } else { case.asked() };
        assert_eq!(report.usage.source_requests, answered as u64, "{how:?}");
    }
    // A retry asks again.
    let case = Case::new(&truth(&["a"], HOURS), truth(&["a"], HOURS)).answering(How::Throttled(2));
    let steps = look("keys: [a], from: 2024-03-04, to: 2024-03-06", "retry: [{ on: [throttled], attempts: 2, interval: 1ms }], end: true");
    let repair = case.open("", "rows_per_request: 36", &steps).await;
    let report = run(&repair).await;
    assert_eq!((report.error, case.asked(), report.usage.source_requests), (Some(ErrorKind::Throttled), 4, 1));
}

/// Three days of ten keys, 5 % of 30.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_is_stable_and_covers_what_it_says() {
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let (mut table, whole) = (truth(&keys, HOURS), truth(&keys, HOURS));
    table.values_mut().for_each(|cells| cells.1 = Some(-1));
    let case = Case::new(&table, whole);
    let with = |more: &str| format!("keys: [{}], from: 2024-03-04, to: 2024-03-06, {more}", keys.join(", "));
    let of = |case: &Case| -> Vec<(Vec<Key>, SlotRange)> { std::mem::take(&mut *case.vendor.asked.lock().unwrap()) };
    let report = case.look(&with("sample: 5%, seed: 1")).await;
    let found = output(&report, "look");
    assert_eq!(report.error, None, "{:?}", report.reason);
    assert_eq!(
        (&found["compared"]["asked"], &found["defective"], &found["expected"]),
        (&json!(48), &json!(48), &json!(720)),
        "two of 30 days"
    );
    let first = of(&case);
    assert!(first.iter().all(|(keys, slots)| keys.len() == 1 && (slots.first - FIRST) % 24 == 0 && slots.len() == 24), "{first:?}");
    case.look(&with("sample: 5%, seed: 1")).await;
    assert_eq!(of(&case), first);
    case.look(&with("sample: 5%, seed: 2")).await;
    assert_ne!(of(&case), first);
    let found = output(&case.look(&with("sample: 100%")).await, "look");
    assert_eq!(found["compared"]["asked"], 720);
    of(&case);
    // Without a seed, the run's now decides, and a plan and the run that applies it share it.
    let repair = case.open("", "", &look(&with("sample: 10%"), "end: true")).await;
    let plan = repair.plan().await.unwrap();
    assert_eq!(of(&case), []);
    // Days of one key that follow each other take one request.
    let calls = plan.reads[0].estimate.high.calls;
    assert!((1..=3).contains(&calls));
    let report = repair.apply(&plan).await.unwrap();
    assert_eq!((of(&case).len() as u64, report.usage.source_requests), (calls, calls));
    assert_eq!(output(&report, "look")["compared"]["asked"], 72);
}

const PRICES: &str = "prices: test\nas_of: 2026-11-01\ncurrency: USD\nitems:\n  query_bytes: { usd: 5, per: 1TB, source: page }\nsources:\n  v: { usd_per_call: 0.03, source: page }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_stops_it_before_anything_more_is_asked() {
    let steps = restate("keys: [a], from: 2024-03-04, to: 2024-03-06", "repair: backfill, with: { source: v }");
    // 9 requests of 8 hours, then 2 to repair and 2 to check.
    for (budget, pages, asked, outcome) in [
        ("calls: 13", 1, 13, Outcome::Succeeded),
        ("calls: 9", 1, 9, Outcome::OverBudget),
        ("calls: 8", 1, 8, Outcome::OverBudget),
        ("calls: 0", 1, 0, Outcome::OverBudget),
        ("calls: 11", 3, 9, Outcome::OverBudget),
        ("usd: 0.39", 1, 13, Outcome::Succeeded),
        ("usd: 0.25", 1, 8, Outcome::OverBudget),
        ("usd: 0.02", 1, 0, Outcome::OverBudget),
    ] {
        let case = Case::new(&provisional(), truth(&["a", "b"], HOURS));
        case.world.write("../prices.yaml", PRICES);
        let more = format!("prices: prices.yaml\nbudget: {{ {budget} }}\n");
        let repair = case.open(&more, &format!("rows_per_request: 8, pages: {pages}"), &steps).await;
        let report = run(&repair).await;
        assert_eq!((case.asked(), report.outcome), (asked, Some(outcome)), "{budget}: {:?}", report.reason);
        assert_eq!(report.usage.source_requests, asked as u64, "{budget}");
        if outcome == Outcome::OverBudget {
            assert!(report.reason.as_ref().unwrap().contains("the budget of the run is"), "{:?}", report.reason);
        }
    }
    // A request without an answer counts as what was reserved for it.
    let case = Case::new(&provisional(), truth(&["a", "b"], HOURS)).answering(How::Throttled(3));
    let look = look("keys: [a], from: 2024-03-04, to: 2024-03-06", "retry: [{ on: [throttled], attempts: 9, interval: 1ms }], end: true");
    let repair = case.open("budget: { calls: 20 }\n", "rows_per_request: 8, pages: 5", &look).await;
    let report = run(&repair).await;
    // Two answers and a failure, 2 + 5; then two failures of 5, and no room for more.
    assert_eq!((case.asked(), report.outcome), (5, Some(Outcome::OverBudget)), "{:?}", report.reason);
}

/// Between two strategies, what is left is asked for again, and that is counted as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_between_strategies_is_asked_within_the_budget() {
    let strategies = "repair: [{ strategy: carry-forward, with: { max_age: 1h } }, { strategy: backfill, with: { source: v } }]";
    let steps = restate("keys: [a], from: 2024-03-04, to: 2024-03-06", strategies);
    for (calls, asked, defective) in [(20, 4, Some(0)), (2, 2, None), (1, 1, None)] {
        let case = Case::new(&provisional(), truth(&["a"], HOURS));
        let repair = case.open(&format!("budget: {{ calls: {calls} }}\n"), "", &steps).await;
        let report = run(&repair).await;
        assert_eq!((case.asked(), report.usage.source_requests), (asked, asked as u64), "{:?}", report.reason);
        match defective {
            Some(left) => assert_eq!(output(&report, "check")["defective"], left),
            None => assert_eq!(report.outcome, Some(Outcome::OverBudget)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_and_a_comparison_of_strategies_ask_nothing() {
    let case = Case::new(&provisional(), truth(&["a", "b"], HOURS));
    case.world.write("../prices.yaml", PRICES);
    let steps = restate(SPAN, "repair: backfill, with: { source: v }");
    let repair = case.open("prices: prices.yaml\nbudget: { calls: 48 }\n", "rows_per_request: 24, pages: 4", &steps).await;
    let plan = repair.plan().await.unwrap();
    assert_eq!(case.asked(), 0);
    assert!(plan.looks.is_empty() && plan.repairs.is_empty() && plan.has_work());
    let read = &plan.reads[0];
    assert_eq!((read.step.as_str(), read.kind.as_str(), read.table.as_str()), ("look", "detect", "t"));
    let (low, high) = (read.estimate.low, read.estimate.high);
    assert_eq!((low.calls, high.calls, high.usd.unwrap().to_string().as_str()), (6, 24, "0.72"));
    let check = &plan.reads[1];
    assert_eq!((check.step.as_str(), check.estimate.low.calls, check.estimate.high.calls), ("check", 0, 24));
    assert_eq!(plan.budgets[0].verdict, Verdict::Unknown, "what `fix` takes is in no price: {:?}", plan.budgets);
    let not_planned: Vec<String> = plan.not_planned.iter().map(|step| format!("{}: {}", step.step, step.why)).collect();
    let words = [
        "look: it compares table `t` with source `v`, and a plan asks no source; the price includes 6 requests for 144 slots, and what it \
         finds is known only when the run gets there",
        "fix: what step `look` finds is known only when the run gets there, and what this step takes is in no price",
        "check: what step `look` finds is known only when the run gets there; the price includes at most the same 6 requests once more",
    ];
    assert_eq!(not_planned, words);
    let Err(error) = repair.compare().strategies(["interpolate"]).await else { panic!("a comparison asks the source") };
    assert!(error.message().contains("a comparison of strategies asks no source"), "{error}");
    assert_eq!(case.asked(), 0);
}

/// Two bars are missing, and two are provisional: those of the minute in which a collector was stopped.
#[test]
fn provisional_bars_are_restated_and_missing_ones_filled() {
    let world = World::new();
    crate::common::copy(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/field/restated-bars"),
        &world.0.path().join("lake"),
    );
    let span = "table: t, keys: [BTC/USDT], from: \"2019-10-27T11:00:00Z\", to: \"2019-10-27T13:00:00Z\"";
    let steps = format!(
        "  look: {{ detect: gaps, with: {{ {span} }}, next: fill }}
  fill: {{ repair: stocks.backfill, of: look, with: {{ source: v }}, next: same }}
  same: {{ detect: differs, with: {{ {span}, source: v }}, next: restate }}
  restate: {{ repair: stocks.backfill, of: same, with: {{ source: v }}, next: filled }}
  filled: {{ verify: look, next: restated }}
  restated: {{ verify: same, end: true }}"
    );
    let source = "sources:\n  v: { source: stocks.archive, with: { location: vendor, format: csv } }\n";
    let described = "format: csv, key: [symbol], time: ts, cadence: 1m";
    world.write("../prices.yaml", PRICES);
    let repair = world.workflow_with(&format!("prices: prices.yaml\nbudget: {{ usd: 0.5 }}\n{source}"), "bars", described, &steps);
    let report = repair::block_on(async { repair.run().await }).unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?}", report.problems);
    // Gaps, and what differs, are asked for in one request each; a check asks for what was found to differ.
    let costs = repair::block_on(async { repair.lake().costs().group_by(["step"]).await }).unwrap();
    let of = |step: &str| costs.groups.iter().find(|group| group.tags["step"] == step).unwrap().usd.unwrap().normalize().to_string();
    assert_eq!(
        (of("same"), of("restated"), of("restate"), costs.total.usage.source_requests),
        ("0.03".into(), "0.03".into(), "0.03".into(), 4)
    );
    let (look, same) = (output(&report, "look"), output(&report, "same"));
    assert_eq!((&look["missing"], &same["defective"], &same["cells"]), (&json!(2), &json!(2), &json!(8)));
    assert_eq!((&same["compared"]["slots"], &same["repaired"]), (&json!(120), &json!(2)));
    assert_eq!((&output(&report, "filled")["missing"], &output(&report, "restated")["defective"]), (&json!(0), &json!(0)));
    // All that readers see is what the source has.
    let again = repair::block_on(async { repair.run().await }).unwrap();
    assert_eq!((&output(&again, "same")["defective"], &output(&again, "same")["patched"]), (&json!(0), &json!(2)));
}
