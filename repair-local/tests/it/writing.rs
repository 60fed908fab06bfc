//! What is written is whole, is the same when written again, and lies only where it should.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use std::sync::Arc;

use crate::common::*;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use futures::StreamExt;
use repair_core::ErrorKind;
use repair_core::lake::{Artifacts, BatchStream, Lake, Layer, Overlay, ReadLake, StageScope};
use repair_core::model::Usage;
use repair_core::model::{Fix, Format, Interval, Key, PartitionUnit, SlotRange, Table, TimeMark};

fn daily() -> Table {
    Table { partition_by: by(PartitionUnit::Day), ..bars() }
}

fn raw(world: &World, table: &Table) {
    write_table(world.root(), table, &[row("A", "2018-04-04T00:00:00Z", 1.0)], 1, &Stored::default());
}

/// Every file below a folder, without the record of whose repairs these are.
fn rows_of(folder: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = tree(folder);
    files.retain(|path, _| !path.ends_with("_owner.json"));
    files
}

fn ours(world: &World) -> Vec<String> {
    rows_of(world.root()).into_keys().filter(|path| !path.starts_with("bars/")).collect()
}

#[tokio::test]
async fn rewrite_is_the_same() {
    let world = World::new();
    let table = daily();
    raw(&world, &table);
    let scope = StageScope { run: "run-7", step: "fill-it", visit: 2, table: &table };
    let slots = |minute: i64, length: i64| {
        let first = table.grid().unwrap().slot_of(at("2018-04-04T23:50:00Z")) + minute;
        SlotRange::new(first, first + length)
    };
    let one = fix(
        &[row("A", "2018-04-05T00:01:00Z", 2.0), row("A", "2018-04-04T00:01:00Z", 3.0)],
        vec![absence("A", slots(0, 20), "2029-01-01T00:00:00Z")],
    );
    let two = fix(&[row("B", "2018-04-04T00:01:00Z", 4.0)], vec![]);
    world.lake.stage(&scope, &request("one", &one)).await.unwrap();
    world.lake.stage(&scope, &request("two", &two)).await.unwrap();
    let units = ["one".to_owned(), "two".to_owned()];
    let first = world.lake.publish(&scope, 3, &units).await.unwrap();
    let after_one = tree(world.root());
    let second = world.lake.publish(&scope, 3, &units).await.unwrap();
    assert_eq!((first.rows, first.absent, first.usage.objects_written, first.usage.rows_written), (3, 20, 4, 23));
    assert_eq!(first, second);
    assert_eq!(after_one, tree(world.root()));
    let name = "run-7-fill%2Dit-2-3.parquet";
    let mut expected: Vec<String> = ["repairs", "exceptions"]
        .iter()
        .flat_map(|kind| ["2018-04-04", "2018-04-05"].map(|day| format!("bars_{kind}/date={day}/{name}")))
        .chain(["one", "two"].map(|unit| format!(".repair/runs/run-7/staged/fill-it-2/{unit}.parquet")))
        .collect();
    expected.sort();
    assert_eq!(ours(&world), expected);
    let view = collect(world.lake.scan(&table, &all(Layer::Repaired)).await.unwrap()).await.unwrap();
    assert_eq!(seen(&view).len(), 4);
    // Only this scope's objects go.
    let other = StageScope { step: "other", ..scope.clone() };
    world.lake.stage(&other, &request("one", &two)).await.unwrap();
    world.lake.discard_staged(&scope, &units).await.unwrap();
    world.lake.discard_staged(&scope, &units).await.unwrap();
    assert!(world.lake.staged(&scope).await.unwrap().is_empty());
    assert_eq!(world.lake.staged(&other).await.unwrap().len(), 1);
    let error = world.lake.publish(&scope, 3, &units).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().starts_with("unit one is not staged"), "{error}");
}

#[tokio::test]
async fn a_staged_unit_is_found_by_name_by_a_later_process() {
    let world = World::new();
    let table = daily();
    raw(&world, &table);
    let scope = scope(&table, "run");
    let mut one = fix(&[row("A", "2018-04-04T00:01:00Z", 2.0)], vec![absence("A", SlotRange::new(10, 12), "2029-01-01T00:00:00Z")]);
    one.usage = Usage { source_requests: 3, source_rows: 70, ..Usage::default() };
    let staged = world.lake.stage(&scope, &request("a/b unit", &one)).await.unwrap();
    let again = world.lake.stage(&scope, &request("a/b unit", &one)).await.unwrap();
    assert_eq!(staged, again);
    let later = repair_local::LocalLake::open(world.root()).unwrap();
    assert_eq!(later.staged(&scope).await.unwrap(), std::slice::from_ref(&staged));
    assert_eq!((staged.rows, staged.absent, staged.usage.source_requests, staged.usage.rows_written), (1, 2, 3, 3));
    assert!(staged.usage.bytes_written > 0 && staged.usage.objects_written == 1);
    // Nothing staged is seen by readers.
    let view = collect(later.scan(&table, &all(Layer::Repaired)).await.unwrap()).await.unwrap();
    assert_eq!(seen(&view).len(), 1);
    assert!(later.staged(&StageScope { visit: 2, ..scope }).await.unwrap().is_empty());
}

#[tokio::test]
async fn rows_are_cast_to_the_table_without_loss_or_refused() {
    let world = World::new();
    let table = bars();
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![60_000]).with_timezone("UTC"));
    let symbol: ArrayRef = Arc::new(StringArray::from(vec!["A"]));
    let stored = [
        ("symbol", symbol.clone()),
        ("ts", times.clone()),
        ("volume", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("close", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef),
    ];
    write_parquet(&world.root().join("bars/a.parquet"), &RecordBatch::try_from_iter(stored).unwrap(), 10);
    let scope = scope(&table, "run");
    let fix = |volume: f64| {
        let columns =
            [("volume", Arc::new(Float64Array::from(vec![volume])) as ArrayRef), ("ts", times.clone()), ("symbol", symbol.clone())];
        Fix { rows: vec![RecordBatch::try_from_iter(columns).unwrap()], source: "market".into(), ..Fix::default() }
    };
    world.lake.stage(&scope, &request("good", &fix(7.0))).await.unwrap();
    let error = world.lake.stage(&scope, &request("bad", &fix(7.5))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.message(),
        "repaired values of column `volume` do not fit table `bars`: Float64 to Int64; correct them, or declare the column where they come from, under `columns`"
    );
    let unknown = RecordBatch::try_from_iter([("symbol", symbol.clone()), ("ts", times.clone()), ("vwap", symbol.clone())]).unwrap();
    let error = world.lake.stage(&scope, &request("odd", &Fix { rows: vec![unknown], ..Fix::default() })).await.unwrap_err();
    assert!(error.message().contains("a column `vwap` that table `bars` lacks"), "{error}");
    let timeless = RecordBatch::try_from_iter([("symbol", symbol.clone())]).unwrap();
    let error = world.lake.stage(&scope, &request("odd", &Fix { rows: vec![timeless], ..Fix::default() })).await.unwrap_err();
    assert!(error.message().contains("have no column `ts`"), "{error}");
    // What could not be staged left nothing.
    assert_eq!(world.lake.staged(&scope).await.unwrap().len(), 1);
    world.lake.publish(&scope, 0, &["good".to_owned()]).await.unwrap();
    let files = rows_of(&world.root().join("bars_repairs"));
    assert_eq!(files.keys().collect::<Vec<_>>(), ["run-fill-1-0.parquet"]);
}

#[tokio::test]
async fn what_was_repaired_of_a_moving_table_is_cast_back_to_it() {
    let world = World::new();
    let table = bars();
    write_table(world.root(), &table, &[row("A", "2018-04-04T00:00:00Z", 1.0)], 1, &Stored::default());
    let whole = [
        ("symbol", Arc::new(StringArray::from(vec!["A"])) as ArrayRef),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![0])) as ArrayRef),
    ];
    let ints = whole.into_iter().chain([("close", Arc::new(Int64Array::from(vec![5])) as ArrayRef)]);
    let fix = Fix { rows: vec![RecordBatch::try_from_iter(ints).unwrap()], source: "market".into(), ..Fix::default() };
    let scope = scope(&table, "run");
    world.lake.stage(&scope, &request("unit", &fix)).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    let view = collect(world.lake.scan(&table, &all(Layer::Repaired)).await.unwrap()).await.unwrap();
    assert_eq!(seen(&view)[0], (row("A", "1970-01-01T00:00:00Z", 5.0), Some("backfill".into())));
}

#[tokio::test]
async fn names_of_objects_never_meet() {
    let world = World::new();
    let table = bars();
    raw(&world, &table);
    for (number, (run, step)) in [("a-b", "c"), ("a", "b-c"), ("a", "b"), ("A/..", "b"), ("..", "b")].into_iter().enumerate() {
        let scope = StageScope { run, step, visit: 1, table: &table };
        let time = at("2018-04-04T01:00:00Z").as_microsecond() + number as i64 * 60_000_000;
        let one = fix(&[Row { symbol: "A".into(), time_us: time, close: None }], vec![]);
        world.lake.stage(&scope, &request("unit", &one)).await.unwrap();
        world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    }
    assert_eq!(rows_of(&world.root().join("bars_repairs")).len(), 5);
    assert!(!world.root().parent().unwrap().join("staged").exists());
}

#[tokio::test]
async fn replace_leaves_the_rows_given_and_nothing_else() {
    let world = World::new();
    let table = daily();
    let interval = Interval::parse("2018-04-04", "2018-04-06").unwrap();
    let rows = [row("A", "2018-04-04T00:00:00Z", 1.0), row("A", "2018-04-06T00:00:00Z", 2.0)];
    let usage = world.lake.replace(&table, &interval, vec![batch(&rows)]).await.unwrap();
    assert_eq!((usage.objects_written, usage.rows_written), (2, 2));
    let before = tree(world.root());
    world.lake.replace(&table, &interval, vec![batch(&rows)]).await.unwrap();
    assert_eq!(before, tree(world.root()));
    // The 4th is replaced, the 5th was empty, the 6th is out of the interval and stays.
    let interval = Interval::parse("2018-04-04", "2018-04-05").unwrap();
    world.lake.replace(&table, &interval, vec![batch(&[row("A", "2018-04-05T00:00:00Z", 3.0)])]).await.unwrap();
    assert_eq!(
        tree(world.root()).into_keys().collect::<Vec<_>>(),
        ["bars/date=2018-04-05/part.parquet", "bars/date=2018-04-06/part.parquet"]
    );
    let rows = seen(&collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap());
    assert_eq!(rows, [(row("A", "2018-04-05T00:00:00Z", 3.0), None), (row("A", "2018-04-06T00:00:00Z", 2.0), None)]);
    let error = world.lake.replace(&table, &interval, vec![batch(&[row("A", "2018-04-06T00:00:00Z", 3.0)])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("lies outside the interval"), "{error}");
}

#[tokio::test]
async fn replace_of_a_table_whose_times_end_slots_keeps_to_its_slots() {
    let world = World::new();
    let table = Table { time_marks: TimeMark::End, ..bars() };
    let interval = Interval::parse("2018-04-04", "2018-04-04").unwrap();
    let last = row("A", "2018-04-05T00:00:00Z", 1.0);
    world.lake.replace(&table, &interval, vec![batch(std::slice::from_ref(&last))]).await.unwrap();
    let first = row("A", "2018-04-04T00:00:00Z", 1.0);
    assert!(world.lake.replace(&table, &interval, vec![batch(&[first])]).await.is_err());
    assert_eq!(seen(&collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap()), [(last, None)]);
}

#[tokio::test]
async fn what_others_wrote_is_never_replaced() {
    let world = World::new();
    let interval = Interval::parse("2018-04-04", "2018-04-04").unwrap();
    for (table, path) in [
        (daily(), "bars/date=2018-04-04/0.parquet"),
        (daily(), "bars/0.parquet"),
        (bars(), "bars/date=2018-04-04/part.parquet"),
        (bars(), "bars/mine.txt"),
    ] {
        let world = World::new();
        world.write(path, "not ours");
        let error = world.lake.replace(&table, &interval, vec![batch(&[row("A", "2018-04-04T00:00:00Z", 1.0)])]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{path}: {error}");
        assert_eq!(tree(world.root()).len(), 1, "{path}");
    }
    for location in ["..", "../elsewhere", "/elsewhere", ".", "bars/../.."] {
        let table = Table { location: location.into(), ..bars() };
        let error = world.lake.replace(&table, &interval, vec![]).await.unwrap_err();
        assert!(error.message().contains("we write nowhere else"), "{location}: {error}");
    }
    let table = Table { format: Format::Csv, ..bars() };
    assert!(world.lake.replace(&table, &interval, vec![]).await.unwrap_err().message().contains("format: parquet"));
}

fn stream(batches: &[RecordBatch]) -> BatchStream {
    let batches: Vec<_> = batches.iter().cloned().map(Ok).collect();
    futures::stream::iter(batches).boxed()
}

#[tokio::test]
async fn artifacts_come_back() {
    let world = World::new();
    let rows: Vec<Row> = (0..100_000).map(|minute| Row { symbol: "A".into(), time_us: minute * 60_000_000, close: None }).collect();
    let batches = [batch(&rows)];
    world.lake.put_artifact("run", "gaps of fill/1", stream(&batches)).await.unwrap();
    let before = tree(world.root());
    world.lake.put_artifact("run", "gaps of fill/1", stream(&batches)).await.unwrap();
    assert_eq!(before, tree(world.root()));
    let back = collect(world.lake.get_artifact("run", "gaps of fill/1").await.unwrap()).await.unwrap();
    assert_eq!(arrow::compute::concat_batches(&back[0].schema(), &back).unwrap(), batches[0]);
    world.lake.put_artifact("run", "none", stream(&[])).await.unwrap();
    assert!(collect(world.lake.get_artifact("run", "none").await.unwrap()).await.unwrap().is_empty());
    world.lake.put_artifact("run", "empty", stream(&[batches[0].slice(0, 0)])).await.unwrap();
    assert_eq!(collect(world.lake.get_artifact("run", "empty").await.unwrap()).await.unwrap(), [batches[0].slice(0, 0)]);
    let Err(error) = world.lake.get_artifact("run", "other").await else { panic!("there is none") };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("run run has no artifact `other`"), "{error}");
}

#[tokio::test]
async fn an_artifact_whose_writing_is_given_up_leaves_nothing() {
    let world = World::new();
    let rows = [batch(&[row("A", "2018-04-04T00:00:00Z", 1.0)])];
    world.lake.put_artifact("run", "gaps", stream(&rows)).await.unwrap();
    let before = tree(world.root());
    let never_ends = stream(&rows).chain(futures::stream::pending()).boxed();
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(200), world.lake.put_artifact("run", "gaps", never_ends));
    assert!(given_up.await.is_err());
    // The thread that wrote needs a moment to notice.
    testdata::wait_until("the lake is as it was", || before == tree(world.root()));
}

#[tokio::test]
async fn what_a_dead_writer_left_goes_and_what_is_being_written_stays() {
    let world = World::new();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    let unfinished = |name: &str| world.write(&format!(".repair/runs/run/staged/{name}"), "PAR1");
    let names = [".writing-dead.tmp", ".writing-live.tmp", ".writing-new.tmp", "unit.parquet", ".writing-dead.tmp-journal"];
    let paths = names.map(unfinished);
    let files = paths.each_ref().map(|path| std::fs::File::options().write(true).open(path).unwrap());
    for file in [&files[0], &files[1], &files[3], &files[4]] {
        file.set_modified(old).unwrap();
    }
    files[1].lock().unwrap();
    world.lake.check_writable().await.unwrap();
    assert_eq!(paths.each_ref().map(|path| path.exists()), [false, true, true, true, false]);
}

#[tokio::test]
async fn to_ask_whether_it_may_be_written_leaves_nothing() {
    let world = World::new();
    world.lake.check_writable().await.unwrap();
    assert!(tree(world.root()).is_empty());
    let gone = World::new();
    std::fs::remove_dir(gone.root()).unwrap();
    assert_eq!(gone.lake.check_writable().await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_table_at_the_root_does_not_take_its_repairs_for_its_own_rows() {
    let world = World::new();
    let table = Table { location: ".".into(), ..bars() };
    write_table(world.root(), &table, &[row("A", "2018-04-04T00:00:00Z", 1.0)], 1, &Stored::default());
    repair(
        &world.lake,
        &table,
        "run",
        &[row("A", "2018-04-04T00:01:00Z", 2.0)],
        vec![absence("B", SlotRange::new(0, 2), "2029-01-01T00:00:00Z")],
    )
    .await;
    assert_eq!(seen(&collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap()).len(), 1);
    assert_eq!(seen(&collect(world.lake.scan(&table, &all(Layer::Repaired)).await.unwrap()).await.unwrap()).len(), 2);
}

#[tokio::test]
async fn failed_write_leaves_nothing() {
    let world = World::new();
    let table = bars();
    raw(&world, &table);
    let scope = scope(&table, "run");
    let one = fix(&[row("A", "2018-04-04T00:01:00Z", 2.0)], vec![]);
    world.lake.stage(&scope, &request("unit", &one)).await.unwrap();
    // Something stands where the object must go.
    world.write("bars_repairs/run-fill-1-0.parquet/in-the-way", "");
    let before = rows_of(world.root());
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap_err();
    assert_eq!(before, rows_of(world.root()));
}

#[tokio::test]
async fn a_key_of_too_many_values_is_not_just_missing() {
    let world = World::new();
    let table = bars();
    raw(&world, &table);
    let mut request = whole(&table, "2018-04-04", "2018-04-04", &["A"]);
    request.keys.push(Key::new(["A", "B"]));
    let error = world.lake.presence(&table, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().starts_with("the key `A/B` has 2 values, and table `bars` has 1 key columns"), "{error}");
}

#[tokio::test]
async fn a_table_that_is_written_without_rows_has_columns() {
    let world = World::new();
    let table = bars();
    let interval = Interval::parse("2018-04-04", "2018-04-05").unwrap();
    world.lake.replace(&table, &interval, vec![batch(&[row("A", "2018-04-05T00:00:00Z", 3.0)])]).await.unwrap();
    world.lake.replace(&table, &interval, vec![batch(&[])]).await.unwrap();
    assert_eq!(world.lake.describe(&table).await.unwrap().fields().len(), 3);
    assert!(collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap().is_empty());
    // A partition without rows is none, as long as the table has another one.
    let table = Table { location: "daily".into(), ..daily() };
    let files = || tree(&world.root().join("daily")).len();
    let both = [row("A", "2018-04-04T00:00:00Z", 1.0), row("A", "2018-04-05T00:00:00Z", 3.0)];
    for (rows, left) in [(&[][..], 1), (&both, 2), (&both[1..], 1), (&[], 1)] {
        world.lake.replace(&table, &interval, vec![batch(rows)]).await.unwrap();
        assert_eq!(files(), left);
        assert_eq!(world.lake.describe(&table).await.unwrap().fields().len(), 3);
    }
}

#[tokio::test]
async fn a_unit_is_staged_with_the_columns_that_the_table_has_by_then() {
    let world = World::new();
    let table = bars();
    let old = batch(&[row("A", "2018-04-04T00:00:00Z", 1.0)]).project(&[0, 1]).unwrap();
    write_parquet(&world.root().join("bars/old.parquet"), &old, 10);
    let scope = scope(&table, "run");
    let one = Fix { rows: vec![old.clone()], source: "market".into(), ..Fix::default() };
    world.lake.stage(&scope, &request("one", &one)).await.unwrap();
    write_table(world.root(), &table, &[row("A", "2018-04-04T00:01:00Z", 1.0)], 1, &Stored::default());
    let two = fix(&[row("A", "2018-04-04T00:02:00Z", 2.0)], vec![]);
    world.lake.stage(&scope, &request("two", &two)).await.unwrap();
    world.lake.publish(&scope, 0, &["one".to_owned(), "two".to_owned()]).await.unwrap();
    let view = seen(&collect(world.lake.scan(&table, &all(Layer::Repaired)).await.unwrap()).await.unwrap());
    assert_eq!(view.len(), 3);
    assert_eq!(view[2].0.close, Some(2.0));
}

/// What a crash leaves of a write has a name that is no data, wherever it lies.
#[tokio::test]
async fn what_a_crash_leaves_is_never_read() {
    let world = World::new();
    let table = daily();
    raw(&world, &table);
    repair(&world.lake, &table, "run", &[row("A", "2018-04-04T00:01:00Z", 2.0)], vec![]).await;
    let scope = scope(&table, "run");
    for folder in ["bars/date=2018-04-04", "bars_repairs/date=2018-04-04", "bars_exceptions", ".repair/runs/run/staged/fill-1"] {
        world.write(&format!("{folder}/.writing-abc.tmp"), "half of");
        world.write(&format!("{folder}/.writing-abc.parquet"), "half of");
    }
    let presence = world.lake.presence(&table, &whole(&table, "2018-04-04", "2018-04-04", &["A"])).await.unwrap();
    assert_eq!((presence.raw.keys[&Key::from("A")].present.count(), presence.repaired[&Key::from("A")].count()), (1, 1));
    assert_eq!(collect(world.lake.scan(&table, &all(Layer::Repaired)).await.unwrap()).await.unwrap().len(), 2);
    assert_eq!(world.lake.staged(&scope).await.unwrap().len(), 1);
    // Nor is it in the way of writing a table of ours.
    let interval = Interval::parse("2018-04-05", "2018-04-05").unwrap();
    world.write("hourly/date=2018-04-05/.writing-abc.tmp", "half of");
    let hourly = Table { location: "hourly".into(), ..daily() };
    world.lake.replace(&hourly, &interval, vec![batch(&[row("A", "2018-04-05T00:00:00Z", 3.0)])]).await.unwrap();
}
