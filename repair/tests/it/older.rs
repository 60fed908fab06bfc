//! What the version before repaired cells has written: its journal and overlay are read, explained, undone and built on.
//!
//! `testdata/older/whole-rows` was written by that version: a duplicate was replaced (and that was undone), a wrong value was replaced with its
//! whole row, a missing row was filled, and another confirmed absent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::path::Path;

use crate::common::output;
use futures::TryStreamExt;
use repair::arrow::array::RecordBatch;
use repair::arrow::util::display::array_value_to_string;
use repair::core::lake::{Layer, ReadLake, ScanRequest};
use repair::core::model::{Cadence, Format, Table};
use repair::{Outcome, Repair};
use repair_local::LocalLake;

const BY_CELL: &str = "\
workflow: golden
kind: state-machine
tables:
  t: { location: t, format: csv, key: [k], time: ts, cadence: 1h }
start: bad
steps:
  bad: { detect: invalid, with: { table: t, keys: [a], from: 2024-03-04, to: 2024-03-04, rules: [{ column: count, not_null: true }] }, next: fix }
  fix: { repair: interpolate, of: bad, next: check }
  check: { verify: bad, end: true }
";

/// The repaired rows of the view, or all rows of the hour of the duplicate.
async fn repaired(lake: &Path) -> Vec<String> {
    let table = Table { key: vec!["k".to_owned()], ..Table::new("t", Format::Csv, "ts").with_cadence(Cadence::HOUR) };
    let lake = LocalLake::open(lake).unwrap();
    let batches: Vec<RecordBatch> = lake.scan(&table, &ScanRequest::new(Layer::Repaired)).await.unwrap().try_collect().await.unwrap();
    let text = |batch: &RecordBatch, row: usize| -> Vec<String> {
        batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap()).collect()
    };
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| text(batch, row)).collect::<Vec<_>>());
    let mut rows: Vec<String> = rows
        .filter(|row| row[4..].iter().any(|repaired| !repaired.is_empty()) || (row[0] == "b" && row[1].contains("T07")))
        .map(|row| row.join("|"))
        .collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_of_whole_rows_are_read_undone_and_built_on() {
    let folder = tempfile::tempdir().unwrap();
    crate::common::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/older/whole-rows"), folder.path());
    let lake = folder.path().join("lake");
    let filled = "a|2024-03-04T03:00:00Z|3.5|9|backfill|";
    let replaced = "a|2024-03-04T10:00:00Z|10.5||interpolate|";
    let doubled = ["b|2024-03-04T07:00:00Z|1.0|1||", "b|2024-03-04T07:00:00Z|107.5|21||"];
    let kept = "b|2024-03-04T07:00:00Z|107.5|21|keep|";
    assert_eq!(repaired(&lake).await, [&[filled, replaced], &doubled[..]].concat());

    let opened = Repair::open(folder.path().join("workflow.yaml")).lake(&lake).connect().await.unwrap();
    let shown = opened.lake().report("first").await.unwrap();
    assert_eq!(shown.outcome, Some(Outcome::Succeeded));
    let story = opened.lake().why("t", "2024-03-04T15:00:00Z".parse().unwrap()).key("b").await.unwrap();
    assert_eq!(serde_json::to_value(&story).unwrap()["standing"], "absent");
    // What was undone is shown again, and all of the run is undone and redone.
    let undone = undo_of(&lake);
    opened.lake().redo(&undone).await.unwrap();
    assert_eq!(repaired(&lake).await, [filled, replaced, kept]);
    let all = opened.lake().undo("first").reason("to see").await.unwrap();
    assert_eq!(repaired(&lake).await, doubled);
    opened.lake().redo(&all.id).await.unwrap();
    assert_eq!(repaired(&lake).await, [filled, replaced, kept]);

    // The row that was replaced as a whole lacks its count; that cell is repaired now.
    std::fs::write(folder.path().join("cells.yaml"), BY_CELL).unwrap();
    let by_cell = Repair::open(folder.path().join("cells.yaml")).lake(&lake).connect().await.unwrap();
    let report = by_cell.run().await.unwrap();
    assert_eq!((&output(&report, "bad")["defective"], &output(&report, "check")["defective"]), (&1.into(), &0.into()), "{report:?}");
    assert_eq!(repaired(&lake).await, [filled, "a|2024-03-04T10:00:00Z|10.5|30|interpolate|{\"count\":\"interpolate\"}", kept]);
    by_cell.lake().undo(&report.run).await.unwrap();
    assert_eq!(repaired(&lake).await, [filled, replaced, kept]);
}

/// The name of the retraction that the older version wrote.
fn undo_of(lake: &Path) -> String {
    let file = std::fs::read_dir(lake.join("t_retractions")).unwrap().next().unwrap().unwrap().file_name();
    file.to_string_lossy().trim_end_matches(".parquet").to_owned()
}
