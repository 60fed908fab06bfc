//! A repair changes only what was broken: wide tables with bad cells, under every repairer, through undo, redo, corrections and late values.
#![cfg(feature = "sql")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a test that fails, panics"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{World, output};
use futures::TryStreamExt;
use repair::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int32Array,
    Int32Builder, Int64Array, LargeStringArray, ListArray, MapBuilder, RecordBatch, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt16Array, UInt64Array, make_comparator,
};
use repair::arrow::compute::{SortOptions, concat_batches};
use repair::arrow::datatypes::{DataType, Field, Float64Type, Int32Type, TimestampMicrosecondType};
use repair::compare::Pattern;
use repair::core::lake::{Layer, ReadLake, ScanRequest};
use repair::core::model::{Cadence, Format, Table};
use repair::{Outcome, Repair, RunReport};
use repair_local::LocalLake;

const HOURS: usize = 72;
const DAY_S: i64 = 1_709_510_400;

/// A table of 20 columns and two keys: columns of all types, of which `temp`, `count`, `price` and `level` are judged. `de` says which cells are wrong.
fn columns(bad: &BTreeMap<(&str, usize), &str>, keep: impl Fn(&str, usize) -> bool) -> Vec<(&'static str, ArrayRef)> {
    let rows: Vec<(&str, usize)> =
        ["a", "b"].into_iter().flat_map(|key| (0..HOURS).map(move |hour| (key, hour))).filter(|(key, hour)| keep(key, *hour)).collect();
    let number = |at: &(&str, usize)| at.1 as f64 * 0.1 + if at.0 == "a" { 0.0 } else { 100.0 };
    let is_bad = |at: &(&str, usize), column: &str| bad.get(at).is_some_and(|columns| columns.split(',').any(|of| of == column));
    let whole = |at: &(&str, usize)| i32::try_from(at.1).unwrap() * 3;
    let some = |at: &(&str, usize)| at.1 % 7 != 3;
    let list = |at: &(&str, usize)| Some(vec![Some(whole(at)), None, Some(1)]).filter(|_| some(at));
    let times: Vec<i64> = rows.iter().map(|at| (DAY_S + i64::try_from(at.1).unwrap() * 3_600) * 1_000_000).collect();
    let pair = StructArray::from(vec![
        (Arc::new(Field::new("x", DataType::Int32, true)), Arc::new(Int32Array::from_iter_values(rows.iter().map(whole))) as ArrayRef),
        (Arc::new(Field::new("y", DataType::Utf8, true)), Arc::new(StringArray::from_iter_values(rows.iter().map(|at| format!("{at:?}"))))),
    ]);
    let mut tags = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for at in &rows {
        for name in ["x", "y"].iter().take(at.1 % 3) {
            tags.keys().append_value(name);
            tags.values().append_option(some(at).then(|| whole(at)));
        }
        tags.append(some(at)).unwrap();
    }
    let price = Decimal128Array::from_iter(rows.iter().map(|at| (!is_bad(at, "price")).then(|| i128::from(whole(at)) * 7)));
    vec![
        ("k", Arc::new(rows.iter().map(|at| Some(at.0)).collect::<StringArray>())),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"))),
        ("temp", Arc::new(Float64Array::from_iter_values(rows.iter().map(|at| if is_bad(at, "temp") { -999.0 } else { number(at) })))),
        (
            "count",
            Arc::new(rows.iter().map(|at| Some(if is_bad(at, "count") { -1 } else { i64::from(whole(at)) })).collect::<Int64Array>()),
        ),
        ("price", Arc::new(price.with_precision_and_scale(12, 3).unwrap())),
        ("level", Arc::new(rows.iter().map(|at| (!is_bad(at, "level")).then(|| number(at) as f32)).collect::<Float32Array>())),
        ("fr", Arc::new(rows.iter().map(|at| some(at).then(|| number(at) / 3.0)).collect::<Float64Array>())),
        ("sky", Arc::new(rows.iter().map(|at| some(at).then(|| format!("{} \"cloudy\", {}", at.0, at.1))).collect::<StringArray>())),
        ("small", Arc::new(rows.iter().map(|at| u16::try_from(at.1).ok()).collect::<UInt16Array>())),
        ("flag", Arc::new(rows.iter().map(|at| some(at).then_some(at.1 % 2 == 0)).collect::<BooleanArray>())),
        ("day", Arc::new(rows.iter().map(|at| Some(whole(at))).collect::<Date32Array>())),
        ("seen_at", Arc::new(TimestampNanosecondArray::from(times.iter().map(|us| us * 1_000 + 7).collect::<Vec<_>>()))),
        ("raw", Arc::new(rows.iter().map(|at| Some(vec![u8::try_from(at.1).unwrap(), 0, 255])).collect::<BinaryArray>())),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows.iter().map(list)))),
        ("pair", Arc::new(pair)),
        ("tags", Arc::new(tags.finish())),
        ("big", Arc::new(rows.iter().map(|at| some(at).then_some(u64::MAX - at.1 as u64)).collect::<UInt64Array>())),
        ("tiny", Arc::new(rows.iter().map(|at| i8::try_from(at.1).ok()).collect::<Int8Array>())),
        ("ms", Arc::new(TimestampMillisecondArray::from(times.iter().map(|us| us / 1_000 + 1).collect::<Vec<_>>()))),
        ("long", Arc::new(rows.iter().map(|at| some(at).then(|| "ß".repeat(at.1))).collect::<LargeStringArray>())),
    ]
}

/// Alone, several in a row, at both ends of a day, several columns of one row, and a whole stretch.
fn bad() -> BTreeMap<(&'static str, usize), &'static str> {
    BTreeMap::from([
        (("a", 5), "temp"),
        (("a", 6), "count"),
        (("a", 7), "temp,price"),
        (("a", 23), "level"),
        (("a", 24), "temp,count,price,level"),
        (("a", 30), "price"),
        (("b", 5), "level"),
        (("b", 40), "temp"),
        (("b", 41), "temp,level"),
        (("b", 42), "level"),
    ])
}

fn table() -> Table {
    Table { key: vec!["k".to_owned()], ..Table::new("t", Format::Parquet, "ts").with_cadence(Cadence::HOUR) }
}

const DESCRIBED: &str = "format: parquet, key: [k], time: ts, cadence: 1h";

/// All rows of a layer, in order of key and time.
async fn rows(world: &World, layer: Layer) -> RecordBatch {
    rows_of(world, &table(), layer).await
}

async fn rows_of(world: &World, table: &Table, layer: Layer) -> RecordBatch {
    let lake = LocalLake::open(world.0.path().join("lake")).unwrap();
    let batches: Vec<RecordBatch> = lake.scan(table, &ScanRequest::new(layer)).await.unwrap().try_collect().await.unwrap();
    let all = concat_batches(&batches[0].schema(), &batches).unwrap();
    let (keys, times) =
        (all.column_by_name("k").unwrap().as_string::<i32>(), all.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>());
    let mut order: Vec<u32> = (0..u32::try_from(all.num_rows()).unwrap()).collect();
    order.sort_by_key(|&row| (keys.value(row as usize), times.value(row as usize)));
    repair::arrow::compute::take_record_batch(&all, &repair::arrow::array::UInt32Array::from(order)).unwrap()
}

/// The places, as key, hour and column, where two tables have different values in the same row.
fn differences(one: &RecordBatch, other: &RecordBatch) -> Vec<String> {
    assert_eq!(one.num_rows(), other.num_rows());
    let mut found = Vec::new();
    let (keys, times) =
        (one.column_by_name("k").unwrap().as_string::<i32>(), one.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>());
    for (field, column) in one.schema().fields().iter().zip(one.columns()) {
        let Some(theirs) = other.column_by_name(field.name()) else { continue };
        let same = make_comparator(column, theirs, SortOptions::default()).unwrap();
        for row in (0..one.num_rows()).filter(|&row| same(row, row).is_ne()) {
            found.push(format!("{} {} {}", keys.value(row), (times.value(row) / 1_000_000 - DAY_S) / 3_600, field.name()));
        }
    }
    found.sort();
    found
}

/// The places of these cells, as [`differences`] has them.
fn places(bad: &BTreeMap<(&str, usize), &str>, of: impl Fn(&str, usize, &str) -> bool) -> Vec<String> {
    let cells = bad.iter().flat_map(|((key, hour), columns)| columns.split(',').map(move |column| (*key, *hour, column)));
    let mut places: Vec<String> =
        cells.filter(|(key, hour, column)| of(key, *hour, column)).map(|(key, hour, column)| format!("{key} {hour} {column}")).collect();
    places.sort();
    places
}

const RULES: &str = "rules: [{ column: temp, not: [-999] }, { column: count, min: 0 }, { column: price, not_null: true }, { column: level, not_null: true }]";

fn steps(repair: &str, rules: &str) -> String {
    format!(
        "  look: {{ detect: invalid, with: {{ table: t, keys: [a, b], from: 2024-03-04, to: 2024-03-06, {rules} }}, next: fix }}\n  fix: {{ {repair}, of: look, \
         next: check }}\n  check: {{ verify: look, end: true }}"
    )
}

async fn open(world: &World, steps: &str) -> Repair {
    let path = world.written("sources:\n  vendor: { source: stocks.archive, with: { location: vendor } }\n", "t", DESCRIBED, steps);
    Repair::open(path).connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
}

async fn run(repair: &Repair) -> RunReport {
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert!(report.outcome.is_some() && report.error.is_none(), "{:?} {:?}", report.reason, report.problems);
    report
}

fn world(bad: &BTreeMap<(&str, usize), &str>) -> World {
    let world = World::new();
    world.parquet("t/data.parquet", &columns(bad, |_, _| true));
    world.parquet("vendor/data.parquet", &columns(&BTreeMap::new(), |_, _| true));
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_repairer_changes_the_wrong_cells_and_no_others() {
    let bad = bad();
    // Of the last, two rows have cells by either strategy.
    for (repair, is_exact, left, rows_changed) in [
        ("repair: backfill, with: { source: vendor }", true, 0, 10),
        ("repair: interpolate, with: { max_gap: 5h }", false, 0, 10),
        ("repair: interpolate, with: { columns: [temp] }", false, 8, 5),
        ("repair: carry-forward, with: { max_age: 6h }", false, 0, 10),
        ("repair: shifted, with: { shift: [-24h, 24h] }", false, 0, 10),
        ("repair: set, with: { values: { temp: 0.5, count: 1, price: 2.5, level: 3.5 } }", false, 0, 10),
        ("differs: repair: backfill, with: { source: vendor }", true, 0, 10),
        ("repair: [{ strategy: interpolate, with: { columns: [level] } }, { strategy: backfill, with: { source: vendor } }]", false, 0, 12),
    ] {
        let world = world(&bad);
        let (raw, truth) = (rows(&world, Layer::Raw).await, {
            let whole = World::new();
            whole.parquet("t/data.parquet", &columns(&BTreeMap::new(), |_, _| true));
            rows(&whole, Layer::Raw).await
        });
        assert_eq!(differences(&raw, &truth), places(&bad, |_, _, _| true));
        let by_rules = steps(repair.trim_start_matches("differs: "), RULES);
        let by_source = by_rules.replace(RULES, "source: vendor").replace("detect: invalid", "detect: differs");
        let opened = open(&world, if repair.starts_with("differs") { &by_source } else { &by_rules }).await;
        let report = run(&opened).await;
        let found = output(&report, "look");
        assert_eq!((&found["defective"], &found["cells"]), (&10.into(), &15.into()), "{repair}");
        let check = output(&report, "check");
        assert_eq!(check["defective"], left, "{repair}: {check}");
        let view = rows(&world, Layer::Repaired).await;
        let changed = differences(&raw, &view);
        let wanted = places(&bad, |_, _, column| !repair.contains("columns: [temp]") || column == "temp");
        assert_eq!(changed, wanted, "{repair}");
        if is_exact {
            assert_eq!(differences(&truth, &view), [] as [String; 0], "{repair}");
        }
        let cells = view.column_by_name("repaired_cells").unwrap().as_string::<i32>();
        assert_eq!(cells.len() - cells.null_count(), if left == 0 { 10 } else { 5 }, "{repair}");
        assert_eq!(view.column_by_name("repaired_by").unwrap().null_count(), view.num_rows(), "the rows are the table's own");
        assert_eq!(differences(&raw, &rows(&world, Layer::Raw).await), [] as [String; 0], "raw data is never touched");
        // A second run finds nothing wrong, and changes nothing.
        if left == 0 {
            let again = run(&opened).await;
            let look = output(&again, "look");
            assert_eq!((&look["defective"], &look["patched"]), (&0.into(), &10.into()), "{repair}");
            assert_eq!(again.outcome, Some(Outcome::Succeeded));
        }
        let undone = opened.lake().undo(&report.run).reason("a trial").await.unwrap();
        assert_eq!(undone.rows(), rows_changed, "{repair}");
        assert_eq!(differences(&raw, &rows(&world, Layer::Repaired).await), [] as [String; 0], "{repair}");
        opened.lake().redo(&undone.id).await.unwrap();
        assert_eq!(differences(&view, &rows(&world, Layer::Repaired).await), [] as [String; 0], "{repair}");
    }
}

/// Of two rows of a slot, the one that is kept is shown bit for bit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_kept_is_kept_in_all_its_columns() {
    let world = world(&BTreeMap::new());
    let truth = rows(&world, Layer::Raw).await;
    let twice = BTreeMap::from([(("a", 10), "count,temp"), (("b", 11), "count,price")]);
    world.parquet("t/more.parquet", &columns(&twice, |key, hour| twice.contains_key(&(key, hour))));
    let look = "detect: duplicates, with: { table: t, keys: [a, b], from: 2024-03-04, to: 2024-03-06 }";
    let steps = format!(
        "  look: {{ {look}, next: fix }}\n  fix: {{ repair: keep, of: look, with: {{ keep: {{ max: count }} }}, next: check }}\n  check: {{ verify: look, end: \
         true }}"
    );
    let opened = open(&world, &steps).await;
    let report = run(&opened).await;
    assert_eq!((&output(&report, "look")["defective"], &output(&report, "check")["defective"]), (&2.into(), &0.into()));
    let view = rows(&world, Layer::Repaired).await;
    assert_eq!(differences(&truth, &view), [] as [String; 0]);
    assert_eq!(view.num_rows() - view.column_by_name("repaired_by").unwrap().null_count(), 2);
}

/// What a person sees of cells that were repaired one after the other in the same row, with a correction of the table in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cells_of_one_row_are_repaired_corrected_and_judged_one_by_one() {
    let bad = BTreeMap::from([(("a", 10), "temp,count,price")]);
    let world = world(&bad);
    let raw = rows(&world, Layer::Raw).await;
    let first = open(&world, &steps("repair: interpolate", "rules: [{ column: temp, not: [-999] }]")).await;
    run(&first).await;
    assert_eq!(differences(&raw, &rows(&world, Layer::Repaired).await), ["a 10 temp"]);
    let second = open(&world, &steps("repair: carry-forward, with: { max_age: 3h }", "rules: [{ column: count, min: 0 }]")).await;
    let second_run = run(&second).await.run;
    assert_eq!(differences(&raw, &rows(&world, Layer::Repaired).await), ["a 10 count", "a 10 temp"]);
    // The null is repaired, and then the table gets the value: it is shown, and judges the repair.
    let third = open(&world, &steps("repair: carry-forward, with: { max_age: 3h }", "rules: [{ column: price, not_null: true }]")).await;
    run(&third).await;
    let story = third.lake().why("t", "2024-03-04T10:00:00Z".parse().unwrap()).key("a").await.unwrap();
    let story = serde_json::to_value(&story).unwrap();
    assert_eq!(story["standing"], "patched");
    let cells: Vec<&serde_json::Value> = story["repairs"].as_array().unwrap().iter().map(|repair| &repair["cells"]).collect();
    let cell = |column: &str, was: serde_json::Value| serde_json::json!({ column: { "was": was, "counts": true } });
    let expected = [cell("price", serde_json::Value::Null), cell("count", (-1).into()), cell("temp", (-999.0).into())];
    assert_eq!(cells, expected.iter().collect::<Vec<_>>());
    world.parquet("t/data.parquet", &columns(&BTreeMap::from([(("a", 10), "temp,count")]), |_, _| true));
    let corrected = rows(&world, Layer::Raw).await;
    assert_eq!(differences(&corrected, &rows(&world, Layer::Repaired).await), ["a 10 count", "a 10 temp"]);
    // The counter is corrected as well; the repair of the other cell holds.
    world.parquet("t/data.parquet", &columns(&BTreeMap::from([(("a", 10), "temp")]), |_, _| true));
    let corrected = rows(&world, Layer::Raw).await;
    assert_eq!(differences(&corrected, &rows(&world, Layer::Repaired).await), ["a 10 temp"]);
    let again = open(&world, &steps("repair: carry-forward, with: { max_age: 3h }", RULES)).await;
    let report = run(&again).await;
    let look = output(&report, "look");
    assert_eq!((&look["defective"], &look["patched"], &look["overtaken_cells"]), (&0.into(), &1.into(), &1.into()), "{look}");
    let accuracy = again.lake().accuracy("t").await.unwrap();
    let of = |strategy: &str, column: &str| {
        accuracy.strategies[strategy].columns.get(column).map(|errors| (errors.count, (errors.mean_absolute * 1e9).round() / 1e9))
    };
    // 27 was repeated for 30, and 189 thousandths for 210.
    assert_eq!((of("carry-forward", "count"), of("carry-forward", "price")), (Some((1, 3.0)), Some((1, 0.021))), "{accuracy:?}");
    assert_eq!(of("interpolate", "temp"), None, "its old value stands, so there is no truth");
    assert_eq!((accuracy.strategies["carry-forward"].repaired, accuracy.strategies["carry-forward"].judged), (2, 2));
    let late: Vec<(u64, u64)> =
        report.late_truth.values().flat_map(|strategies| strategies.values().map(|late| (late.slots, late.new))).collect();
    assert_eq!(late, [(2, 2)], "each cell is new once");
    assert_eq!(
        run(&again).await.late_truth.values().flat_map(|strategies| strategies.values().map(|late| late.new)).collect::<Vec<_>>(),
        [0]
    );
    // The second repair undone, the first stays.
    again.lake().undo(&second_run).await.unwrap();
    assert_eq!(differences(&corrected, &rows(&world, Layer::Repaired).await), ["a 10 temp"]);
}

/// Missing rows and wrong cells of one table, in one workflow: rows are filled, cells are changed, and a cell of a filled row is changed too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cells_of_filled_rows_are_repaired_too() {
    let world = World::new();
    world.parquet("t/data.parquet", &columns(&BTreeMap::from([(("a", 5), "temp")]), |key, hour| (key, hour) != ("a", 20)));
    // The vendor's row has a wrong value of its own.
    world.parquet("vendor/data.parquet", &columns(&BTreeMap::from([(("a", 20), "temp")]), |_, _| true));
    let fill = open(
        &world,
        "  look: { detect: gaps, with: { table: t, keys: [a, b], from: 2024-03-04, to: 2024-03-06 }, next: fix }\n  fix: { repair: backfill, of: look, with: { source: \
         vendor }, next: check }\n  check: { verify: look, end: true }",
    )
    .await;
    run(&fill).await;
    let report = run(&open(&world, &steps("repair: interpolate", RULES)).await).await;
    assert_eq!((&output(&report, "look")["defective"], &output(&report, "check")["defective"]), (&2.into(), &0.into()));
    let view = rows(&world, Layer::Repaired).await;
    let whole = World::new();
    whole.parquet("t/data.parquet", &columns(&BTreeMap::new(), |_, _| true));
    let truth = rows(&whole, Layer::Raw).await;
    let differ = differences(&truth, &view);
    assert!(
        differ.iter().all(|place| ["a 5 temp", "a 20 temp"].contains(&place.as_str())),
        "a line of these values is exact, or nearly: {differ:?}"
    );
    let temp = view.column_by_name("temp").unwrap().as_primitive::<Float64Type>();
    assert!(temp.values().iter().all(|value| *value >= 0.0), "{temp:?}");
    let (by, cells) =
        (view.column_by_name("repaired_by").unwrap().as_string::<i32>(), view.column_by_name("repaired_cells").unwrap().as_string::<i32>());
    assert_eq!((by.value(20), cells.value(20)), ("backfill", r#"{"temp":"interpolate"}"#));
    assert!(by.is_null(5) && cells.value(5) == r#"{"temp":"interpolate"}"#);
}

/// A slot with several rows has no cells to change: its duplicates are repaired first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_may_blame_other_columns_and_comparisons_blame_the_row() {
    let bad = BTreeMap::from([(("a", 5), "temp"), (("b", 7), "temp")]);
    let world = world(&bad);
    let raw = rows(&world, Layer::Raw).await;
    let derived = "rules: [{ column: temp, not: [-999], columns: [temp, fr, count] }]";
    let report = run(&open(&world, &steps("repair: carry-forward, with: { max_age: 3h }", derived)).await).await;
    assert_eq!(output(&report, "look")["cells"], 6);
    // Where the table has no `fr` an hour before, the last hour that has all three serves.
    let changed = differences(&raw, &rows(&world, Layer::Repaired).await);
    assert_eq!(changed, ["a 5 count", "a 5 fr", "a 5 temp", "b 7 count", "b 7 fr", "b 7 temp"]);
    let world = self::world(&bad);
    let report = run(&open(&world, &steps("repair: backfill, with: { source: vendor }", "rules: [{ holds: temp >= 0 }]")).await).await;
    assert_eq!((&output(&report, "look")["defective"], output(&report, "look").get("cells")), (&2.into(), None));
    let view = rows(&world, Layer::Repaired).await;
    assert_eq!(differences(&raw, &view), ["a 5 temp", "b 7 temp"]);
    assert_eq!(view.column_by_name("repaired_by").unwrap().null_count(), view.num_rows() - 2, "the whole row is replaced");
}

/// Strategies for wrong cells are compared by hidden cells, not by hidden rows: the rest of the row is seen, and what is hidden is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strategies_for_cells_are_compared_by_hidden_cells() {
    let world = world(&bad());
    // A repair that stands already: its cells are no truth, and nobody is shown them.
    run(&open(&world, &steps("repair: interpolate", "rules: [{ column: temp, not: [-999] }]")).await).await;
    let raw = rows(&world, Layer::Repaired).await;
    let steps = format!(
        "  look: {{ detect: invalid, with: {{ table: t, keys: [a, b], from: 2024-03-04, to: 2024-03-06, {RULES} }}, next: fix }}\n  fix:\n    repair:\n      - {{ \
         strategy: interpolate, name: line }}\n      - {{ strategy: shifted, with: {{ shift: [-24h, 24h] }} }}\n      - {{ strategy: backfill, with: {{ source: \
         vendor }} }}\n    of: look\n    next: sum\n  sum: {{ aggregate: sql, of: look, with: {{ into: sums, query: \"SELECT k, min(ts) AS ts, sum(temp) AS s FROM \
         t_repaired GROUP BY 1\" }}, end: true }}"
    );
    let opened = open(&world, &steps).await;
    let report = opened
        .compare()
        .pattern(Pattern::Runs)
        .share("20%".parse().unwrap())
        .seed(3)
        .await
        .unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!((report.hidden, report.there), (27, 134), "of 144 rows, ten have or had wrong cells: {report:?}");
    assert_eq!(report.decisive, ["temp", "count", "price", "level"]);
    let of = |name: &str| report.strategies.iter().find(|strategy| strategy.name == name).unwrap();
    for strategy in &report.strategies {
        assert_eq!(strategy.problems, [] as [String; 0], "{}", strategy.name);
        let compared: u64 = strategy.columns.values().map(|errors| errors.count).sum();
        assert_eq!(compared + strategy.left, 27, "one cell of a row is hidden: {strategy:?}");
        // Those of each column are listed, so that the count of each can be checked.
        for (column, errors) in &strategy.columns {
            let hidden = report.hidden_slots.iter().filter(|run| run.columns.iter().any(|name| name == column));
            let slots: i64 = hidden.map(|run| run.interval.to().duration_since(run.interval.from()).as_secs() / 3_600).sum();
            assert!(errors.count <= u64::try_from(slots).unwrap(), "{column}: {:?}", report.hidden_slots);
            assert_eq!(errors.mean_absolute.is_some(), errors.count > 0, "{column}: {errors:?}");
        }
        assert_eq!(strategy.columns.keys().collect::<Vec<_>>(), ["count", "level", "price", "temp"]);
    }
    assert!((of("backfill").loss.abs(), of("backfill").left) == (0.0, 0), "{:?}", of("backfill"));
    assert!(of("line").columns["temp"].mean_absolute.unwrap() < 1e-9 && of("line").columns["temp"].count > 0, "{:?}", of("line"));
    assert!((of("shifted").columns["temp"].mean_absolute.unwrap() - 2.4).abs() < 1e-9, "{:?}", of("shifted"));
    assert_eq!(report.best.as_deref(), Some("backfill"));
    assert_eq!(differences(&raw, &rows(&world, Layer::Repaired).await), [] as [String; 0], "nothing is written");
}

/// Where a slot has several rows, no cell of them is repaired, and none of the rows is lost: the duplicates are repaired first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cells_of_a_slot_with_several_rows_wait_for_its_duplicates() {
    let world = world(&BTreeMap::from([(("a", 5), "temp"), (("a", 9), "temp")]));
    // The hour is there twice, and only one of the rows is wrong.
    world.parquet("t/twice.parquet", &columns(&BTreeMap::new(), |key, hour| (key, hour) == ("a", 5)));
    let raw = rows(&world, Layer::Raw).await;
    let report = run(&open(&world, &steps("repair: interpolate", RULES)).await).await;
    assert_eq!((&output(&report, "look")["defective"], &output(&report, "check")["defective"]), (&2.into(), &1.into()));
    assert!(report.problems.iter().any(|problem| problem.contains("repair the duplicates first")), "{:?}", report.problems);
    assert_eq!(differences(&raw, &rows(&world, Layer::Repaired).await), ["a 9 temp"]);
    let keep = "  twice: { detect: duplicates, with: { table: t, keys: [a, b], from: 2024-03-04, to: 2024-03-06 }, next: keep }\n  keep: { repair: keep, of: twice, \
                with: { keep: { min: temp } }, next: look }\n";
    let report = run(&open(&world, &format!("{keep}{}", steps("repair: interpolate", RULES))).await).await;
    assert_eq!((&output(&report, "look")["defective"], &output(&report, "check")["defective"]), (&1.into(), &0.into()));
    let view = rows(&world, Layer::Repaired).await;
    let (by, cells) =
        (view.column_by_name("repaired_by").unwrap().as_string::<i32>(), view.column_by_name("repaired_cells").unwrap().as_string::<i32>());
    assert_eq!((view.num_rows(), by.value(5), cells.value(5)), (2 * HOURS, "keep", r#"{"temp":"interpolate"}"#));
}

/// The repairers for bars, too: a bar whose volume is lost keeps its prices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bar_without_a_volume_keeps_its_prices() {
    let minutes = 60..120;
    let minutely = table().with_cadence(Cadence::MINUTE);
    let bars = |lost: &[(&str, i64)]| {
        let rows: Vec<(&str, i64)> =
            ["AAA", "BBB"].into_iter().flat_map(|symbol| minutes.clone().map(move |minute| (symbol, minute))).collect();
        let times = rows.iter().map(|(_, minute)| (1_709_562_600 + minute * 60) * 1_000_000);
        let price = |shift: f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(
                rows.iter().map(|(symbol, minute)| *minute as f64 + shift + if *symbol == "AAA" { 0.0 } else { 50.0 }),
            ))
        };
        let volume = rows.iter().map(|row| (!lost.contains(row)).then_some(row.1 * 10)).collect::<Int64Array>();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("k", Arc::new(rows.iter().map(|(symbol, _)| Some(*symbol)).collect::<StringArray>())),
            ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
            ("open", price(0.0)),
            ("high", price(2.0)),
            ("low", price(-1.0)),
            ("close", price(1.0)),
            ("volume", Arc::new(volume)),
        ];
        columns
    };
    for (repair, volume) in [
        ("repair: stocks.backfill, with: { source: vendor }", Some(1_000)),
        // What trades in no minute has no volume.
        ("repair: stocks.carry-forward", Some(0)),
        ("repair: stocks.correlated, with: { reference: [BBB] }", None),
        ("repair: interpolate", Some(1_000)),
    ] {
        let world = World::new();
        world.parquet("t/bars.parquet", &bars(&[("AAA", 100)]));
        world.parquet("vendor/bars.parquet", &bars(&[]));
        let raw = rows_of(&world, &minutely, Layer::Raw).await;
        let steps = format!(
            "  look: {{ detect: stocks.invalid-bars, with: {{ table: t, calendar: XNYS, symbols: [AAA, BBB], from: 2024-03-04, to: 2024-03-04 }}, next: fix }}\n  fix: {{ {repair}, of: \
             look, next: check }}\n  check: {{ verify: look, end: true }}"
        );
        let sources = "sources:\n  vendor: { source: stocks.archive, with: { location: vendor } }\n";
        let path = world.written(sources, "t", "format: parquet, key: [k], time: ts, cadence: 1m", &steps);
        let opened = Repair::open(path).connect().await.unwrap_or_else(|error| panic!("{repair}: {}", error.full()));
        let report = run(&opened).await;
        let look = output(&report, "look");
        assert_eq!(
            (&look["defective"], &look["cells"], &output(&report, "check")["defective"]),
            (&1.into(), &1.into(), &0.into()),
            "{repair}"
        );
        let view = rows_of(&world, &minutely, Layer::Repaired).await;
        assert_eq!(differences(&raw, &view).len(), 1, "{repair}: {:?}", differences(&raw, &view));
        let seen = view.column_by_name("volume").unwrap().as_primitive::<repair::arrow::datatypes::Int64Type>().value(40);
        assert!(volume.is_none_or(|volume| volume == seen) && seen >= 0, "{repair}: {seen}");
    }
}
