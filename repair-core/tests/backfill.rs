//! Which answers of a source the repairer `backfill` believes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use repair_core::model::{Cadence, Counts, Findings, Fix, Format, GapList, Interval, Key, Scope, SlotRange, Table, TimeMark, Unit, Wanted};
use repair_core::plugin::{Answer, Limits, Plugin, PluginKind, Registry, Request, Source, StepContext};
use repair_core::testing::{MemoryLake, VirtualClock, context};
use repair_core::{ErrorKind, Result, Usage};
use serde_json::json;

const SLOTS: SlotRange = SlotRange { first: 28_000_000, end: 28_000_003 };

fn table() -> Table {
    Table {
        name: "readings".to_owned(),
        location: "readings".to_owned(),
        format: Format::Parquet,
        partition_by: Vec::new(),
        key: vec!["sensor".to_owned()],
        time: "ts".to_owned(),
        time_marks: TimeMark::Start,
        cadence: Some(Cadence::MINUTE),
    }
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
        Ok(Answer { rows: vec![self.0.clone()], requests: 1, ..Answer::default() })
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
    let scope =
        Scope { table: "readings".into(), grid: table().grid().unwrap(), keys: vec![key.clone()], interval, calendar: "24x7".into() };
    let findings = Findings { scope, counts: Counts::default(), gaps, usage: Usage::default() };
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
