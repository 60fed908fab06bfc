//! Which answers of a source the repairer `backfill` believes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use repair_core::model::Usage;
use repair_core::model::{Counts, Findings, Fix, GapList, Interval, Key, Scope, SlotRange, Suspect, Suspects, Table, Unit, Wanted};
use repair_core::plugin::{Answer, Covered, Limits, Plugin, PluginKind, Registry, Request, Source, StepContext};
use repair_core::testing::{MemoryLake, VirtualClock, context, minute_table};
use repair_core::{ErrorKind, Result};
use serde_json::{Value, json};

const SLOTS: SlotRange = SlotRange { first: 28_000_000, end: 28_000_003 };

fn table() -> Table {
    minute_table("readings", "sensor")
}

/// A row for each slot, with these columns of values.
fn rows(slots: SlotRange, values: &[&str]) -> RecordBatch {
    let times: Vec<i64> = (slots.first..slots.end).map(|slot| slot * 60_000_000).collect();
    let value: ArrayRef = Arc::new(Float64Array::from(vec![1.5; times.len()]));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("sensor", Arc::new(StringArray::from(vec!["a"; times.len()]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
    ];
    columns.extend(values.iter().map(|name| (*name, value.clone())));
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Answers everything with the same rows.
struct Says(RecordBatch);

#[async_trait]
impl Source for Says {
    fn limits(&self) -> Limits {
        Limits::default()
    }

    async fn fetch(&self, _: &StepContext, _: &Request) -> Result<Answer> {
        Ok(Answer::new(vec![self.0.clone()]))
    }
}

/// What comes of a unit of three slots when the source says `answer`, twice, by the same plug-in object.
async fn repair(lake: &MemoryLake, answer: RecordBatch) -> [Result<Fix>; 2] {
    let interval = Interval::new(table().grid().unwrap().start_of(SLOTS.first), table().grid().unwrap().start_of(SLOTS.end)).unwrap();
    let clock = Arc::new(VirtualClock::starting_at("2024-03-04T09:00:00Z".parse().unwrap()));
    let mut context = context(Arc::new(lake.clone()), [table()], clock);
    let source: Arc<dyn Source> = Arc::new(Says(answer));
    context.sources = Arc::new(BTreeMap::from([("archive".to_owned(), source)]));
    let made = Registry::default().get(PluginKind::Repairer, "backfill").unwrap().make(&json!({ "source": "archive" })).unwrap();
    let Plugin::Repairer(repairer) = made else { panic!("asked for a repairer") };
    let key = Key::from("a");
    let mut gaps = GapList::default();
    gaps.push(&key, SLOTS);
    let scope = Scope {
        table: "readings".into(),
        grid: table().grid().unwrap(),
        keys: vec![key.clone()],
        interval,
        calendar: "24x7".into(),
        lifetimes: Default::default(),
    };
    let findings = Findings::of_gaps(scope, Counts::default(), gaps, Usage::default());
    let unit = Unit { interval, wanted: vec![Wanted { key, slots: vec![SLOTS] }] };
    [repairer.repair(&context, &findings, &unit).await, repairer.repair(&context, &findings, &unit).await]
}

#[tokio::test]
async fn rows_that_lack_a_column_of_the_table_are_no_repair() {
    let lake = MemoryLake::default();
    lake.put_table(&table(), &[rows(SlotRange::new(0, 1), &["value", "quality"])]).unwrap();
    for refused in repair(&lake, rows(SLOTS, &["value"])).await {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        for words in ["source `archive`", "without the column `quality` of table `readings`"] {
            assert!(error.message().contains(words), "{error}");
        }
    }
    assert_eq!(lake.requests("describe"), 1, "the table is looked at once for each plug-in object");
    // Columns that only the source has are the lake's to judge; an answer without rows lacks nothing.
    for believed in repair(&lake, rows(SLOTS, &["value", "quality", "unit"])).await {
        assert_eq!(believed.unwrap().rows[0].num_rows(), 3);
    }
    assert!(repair(&lake, rows(SlotRange::new(0, 0), &[])).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_table_without_a_file_yet_takes_what_comes() {
    assert!(repair(&MemoryLake::default(), rows(SLOTS, &["value"])).await.iter().all(Result::is_ok));
}

/// Answers with those of its rows that are asked for, and vouches for all of the time. Counts how often it is asked.
struct Holds {
    rows: RecordBatch,
    limits: Limits,
    asked: std::sync::Mutex<Vec<SlotRange>>,
}

#[async_trait]
impl Source for Holds {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        let slots = table().grid().unwrap().slots_in(&request.interval);
        self.asked.lock().unwrap().push(slots);
        let times: &TimestampMicrosecondArray = self.rows.column(1).as_any().downcast_ref().unwrap();
        let within: arrow::array::BooleanArray = times.iter().map(|time| Some(slots.contains(time.unwrap() / 60_000_000))).collect();
        let rows = arrow::compute::filter_record_batch(&self.rows, &within)?;
        let covered = request.keys.iter().map(|key| Covered { key: key.clone(), interval: request.interval }).collect();
        Ok(Answer::new(vec![rows]).with_covered(covered).with_said("the archive"))
    }
}

/// Rows of one sensor: slot, value.
fn values(rows: &[(i64, f64)]) -> RecordBatch {
    let times: Vec<i64> = rows.iter().map(|(slot, _)| slot * 60_000_000).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("sensor", Arc::new(StringArray::from(vec!["a"; rows.len()]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
        ("value", Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, value)| *value)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// What comes of all units of a step, and which slots the source was asked for.
async fn backfill(
    table_rows: &[(i64, f64)],
    source: &[(i64, f64)],
    gaps: &[SlotRange],
    more: Value,
    limits: Limits,
) -> (Vec<Fix>, Vec<SlotRange>) {
    let lake = MemoryLake::default();
    lake.put_table(&table(), &[values(table_rows)]).unwrap();
    let clock = Arc::new(VirtualClock::starting_at("2024-03-04T09:00:00Z".parse().unwrap()));
    let mut context = context(Arc::new(lake.clone()), [table()], clock);
    let source = Arc::new(Holds { rows: values(source), limits, asked: std::sync::Mutex::default() });
    context.sources = Arc::new(BTreeMap::from([("archive".to_owned(), source.clone() as Arc<dyn Source>)]));
    let mut with = json!({ "source": "archive" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = Registry::default().get(PluginKind::Repairer, "backfill").unwrap().make(&with).unwrap();
    let Plugin::Repairer(repairer) = made else { panic!("asked for a repairer") };
    let grid = table().grid().unwrap();
    let mut list = GapList::default();
    gaps.iter().for_each(|gap| list.push(&Key::from("a"), *gap));
    let interval = grid.interval_of(list.hull().unwrap()).unwrap();
    let scope = Scope {
        table: "readings".into(),
        grid,
        keys: vec![Key::from("a")],
        interval,
        calendar: "24x7".into(),
        lifetimes: Default::default(),
    };
    let findings = Findings::of_gaps(scope, Counts::default(), list, Usage::default());
    let mut fixes = Vec::new();
    for unit in repairer.plan(&context, &findings).await.unwrap() {
        fixes.push(repairer.repair(&context, &findings, &unit.unwrap()).await.unwrap());
    }
    assert!(lake.requests("scan") <= 1, "one look at the table for all units");
    let asked = source.asked.lock().unwrap().clone();
    (fixes, asked)
}

#[tokio::test]
async fn neighbours_are_checked() {
    let gap = SlotRange::new(SLOTS.first, SLOTS.first + 1);
    let (before, within, after) = (gap.first - 1, gap.first, gap.end);
    let table_rows = [(before, 3_000.0), (after, 10.0)];
    // The table's row before counts what belongs to the gap.
    let source = [(before, 1_500.0), (within, 1_500.0), (after, 10.0)];
    let (fixes, asked) = backfill(&table_rows, &source, &[gap], json!({}), Limits::default()).await;
    assert_eq!(asked, [SlotRange::new(before, after + 1)], "one request, for the slots beside the gap too");
    assert_eq!(fixes[0].rows[0].num_rows(), 1, "rows of neighbours are not repairs");
    assert_eq!(fixes[0].conflicts.slots, 1);
    assert_eq!(fixes[0].conflicts.examples, ["a at 2023-03-28T10:39:00Z: value is 3000.0 in the table, 1500.0 in the source"]);

    // The table has what the source says never was.
    let (fixes, _) = backfill(&table_rows, &source[..2], &[gap], json!({}), Limits::default()).await;
    assert_eq!(fixes[0].conflicts.slots, 2);
    assert!(fixes[0].conflicts.examples[1].contains("the source says that there is none"), "{:?}", fixes[0].conflicts);

    // Where both say the same, or the table has nothing, there is none.
    let agreed = [(before, 3_000.0), (within, 1.0), (after, 10.0)];
    assert!(backfill(&table_rows, &agreed, &[gap], json!({}), Limits::default()).await.0[0].conflicts.is_empty());
    assert!(backfill(&[], &source, &[gap], json!({}), Limits::default()).await.0[0].conflicts.is_empty());
}

#[tokio::test]
async fn neighbours_cost_no_further_request() {
    let gaps = [SlotRange::new(SLOTS.first, SLOTS.first + 3), SlotRange::new(SLOTS.first + 4, SLOTS.first + 7)];
    let table_rows = [(gaps[0].first - 1, 1.0), (gaps[0].end, 1.0), (gaps[1].end, 1.0)];
    let source: Vec<(i64, f64)> = (gaps[0].first - 1..=gaps[1].end).map(|slot| (slot, 2.0)).collect();
    let of = |rows_per_request| Limits::new(rows_per_request, 1);
    let conflicts = |fixes: &[Fix]| fixes.iter().map(|fix| fix.conflicts.slots).sum::<u64>();
    // A request that is full already is not made larger, nor are there more of them.
    let (fixes, asked) = backfill(&table_rows, &source, &gaps, json!({}), of(3)).await;
    assert_eq!((asked, conflicts(&fixes)), (gaps.to_vec(), 0));
    // With room for one of them, that one is asked for.
    let (fixes, asked) = backfill(&table_rows, &source, &gaps, json!({}), of(4)).await;
    assert_eq!((asked.len(), conflicts(&fixes)), (2, 2));
    // The slot between two gaps is beside both, and counted once.
    let (fixes, asked) = backfill(&table_rows, &source, &gaps, json!({}), of(100)).await;
    assert_eq!((asked.len(), conflicts(&fixes)), (1, 3));
    let (fixes, asked) = backfill(&table_rows, &source, &gaps, json!({ "neighbours": false }), of(100)).await;
    assert_eq!((asked, conflicts(&fixes)), (vec![SlotRange::new(gaps[0].first, gaps[1].end)], 0));
}

#[tokio::test]
async fn short_requests_do_not_hide_a_long_silence() {
    let gap = SlotRange::new(SLOTS.first, SLOTS.first + 100);
    let table_rows = [(gap.first - 1, 1.0), (gap.end, 1.0)];
    let beside = [(gap.first - 1, 1.0), (gap.end, 1.0)];
    let sums = |fixes: &[Fix]| {
        let mut suspects = Suspects::default();
        fixes.iter().for_each(|fix| suspects += fix.suspects.clone());
        let absent: u64 = fixes.iter().flat_map(|fix| &fix.absent).map(|absence| absence.slots.len()).sum();
        (suspects, absent)
    };
    let of = |rows_per_request| Limits::new(rows_per_request, 1);
    for limit in [1_000, 10, 1] {
        let (suspects, absent) = sums(&backfill(&table_rows, &beside, &[gap], json!({}), of(limit)).await.0);
        assert_eq!((suspects.slots, absent), (100, 0), "{limit} rows a request");
        let grid = table().grid().unwrap();
        let whole = Suspect { interval: grid.interval_of(gap).unwrap(), source: "archive".to_owned(), keys: 1 };
        assert_eq!(suspects.stretches, [whole], "told once");
        let (suspects, absent) = sums(&backfill(&table_rows, &beside, &[gap], json!({ "quiet_spell": "100m" }), of(limit)).await.0);
        assert_eq!((suspects.slots, absent), (0, 100), "{limit} rows a request");
    }
    // A source that speaks within the stretch is believed about the quiet minutes beside its words.
    let mut words: Vec<(i64, f64)> = (gap.first..gap.end).step_by(5).map(|slot| (slot, 1.0)).chain(beside).collect();
    words.sort_by_key(|(slot, _)| *slot);
    for limit in [1_000, 10] {
        let (suspects, absent) = sums(&backfill(&table_rows, &words, &[gap], json!({}), of(limit)).await.0);
        assert_eq!((suspects.slots, absent), (0, 80), "{limit} rows a request");
    }
}
