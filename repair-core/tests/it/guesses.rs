//! The repairers that guess from the table's own rows: `interpolate`, `shifted`, `seasonal` and `regress`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::type_complexity,
    reason = "helpers of tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use jiff::Timestamp;
use proptest::prelude::*;
use repair_core::Result;
use repair_core::lake::{Overlay, StageRequest, StageScope};
use repair_core::model::Usage;
use repair_core::model::{Cadence, Counts, Findings, Fix, GapList, Interval, Key, Scope, SlotRange, SlotSet, Table};
use repair_core::plugin::{Plugin, PluginKind, Registry, Repairer, StepContext};
use repair_core::testing::{MemoryLake, VirtualClock, context, minute_table, plugin_suite};
use serde_json::{Value, json};

/// 2024-03-04, the beginning of the day.
const FIRST: i64 = 1_709_510_400 / 60;
const DAY: i64 = 24 * 60;

fn table() -> Table {
    minute_table("readings", "sensor")
}

/// A row: sensor, slot after the first, value, count, unit.
type Row = (&'static str, i64, Option<f64>, i64, &'static str);

fn rows(rows: &[Row]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| (FIRST + row.1) * 60_000_000)).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 5] = [
        ("sensor", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("ts", Arc::new(times)),
        ("value", Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>())),
        ("count", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3)))),
        ("unit", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.4)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn lake(held: &[Row]) -> MemoryLake {
    let lake = MemoryLake::default();
    lake.put_table(&table(), &[rows(held)]).unwrap();
    lake
}

fn at(lake: &MemoryLake) -> StepContext {
    context(Arc::new(lake.clone()), [table()], Arc::new(VirtualClock::starting_at("2024-04-01T00:00:00Z".parse().unwrap())))
}

/// Gaps of sensors, in slots after the first.
fn findings(gaps: &[(&str, i64, i64)]) -> Findings {
    let mut list = GapList::default();
    gaps.iter().for_each(|(key, first, end)| list.push(&Key::from(*key), SlotRange::new(FIRST + first, FIRST + end)));
    let interval = Interval::parse("2024-03-04", "2024-03-06").unwrap();
    let keys = ["a", "b"].map(Key::from).to_vec();
    let scope = Scope {
        table: "readings".to_owned(),
        grid: table().grid().unwrap(),
        keys,
        interval,
        calendar: "24x7".to_owned(),
        lifetimes: Default::default(),
    };
    Findings::of_gaps(scope, Counts::default(), list, Usage::default())
}

fn repairer(name: &str, with: &Value) -> Arc<dyn Repairer> {
    let made = Registry::default().get(PluginKind::Repairer, name).unwrap().make(with);
    let Ok(Plugin::Repairer(repairer)) = made else { panic!("{:?}", made.err()) };
    repairer
}

async fn fixes(repairer: &dyn Repairer, context: &StepContext, findings: &Findings) -> Result<Vec<Fix>> {
    let mut fixes = Vec::new();
    for unit in repairer.plan(context, findings).await? {
        fixes.push(repairer.repair(context, findings, &unit?).await?);
    }
    Ok(fixes)
}

/// What was repaired: by sensor and slot after the first, value, count, unit.
type Repaired = BTreeMap<(String, i64), (Option<f64>, Option<i64>, Option<String>)>;

fn repaired(fixes: &[Fix]) -> Repaired {
    let mut all = Repaired::new();
    for batch in fixes.iter().flat_map(|fix| &fix.rows) {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        let (keys, times, units) = (column("sensor"), column("ts"), column("unit"));
        let (values, counts) = (column("value"), column("count"));
        for row in 0..batch.num_rows() {
            let slot = times.as_primitive::<TimestampMicrosecondType>().value(row) / 60_000_000 - FIRST;
            let there = |column: &ArrayRef| column.is_valid(row);
            let values = (
                there(&values).then(|| values.as_primitive::<Float64Type>().value(row)),
                there(&counts).then(|| counts.as_primitive::<Int64Type>().value(row)),
                there(&units).then(|| units.as_string::<i32>().value(row).to_owned()),
            );
            assert!(all.insert((keys.as_string::<i32>().value(row).to_owned(), slot), values).is_none());
        }
    }
    all
}

async fn done(name: &str, with: Value, lake: &MemoryLake, findings: &Findings) -> Repaired {
    repaired(&fixes(repairer(name, &with).as_ref(), &at(lake), findings).await.unwrap())
}

fn one(sensor: &str, slot: i64, value: f64, count: i64, unit: Option<&str>) -> ((String, i64), (Option<f64>, Option<i64>, Option<String>)) {
    ((sensor.to_owned(), slot), (Some(value), Some(count), unit.map(str::to_owned)))
}

#[tokio::test]
async fn interpolate_and_shifted_are_repairers() {
    let held: Vec<Row> = (0..3 * DAY).filter(|slot| slot % 97 > 3).map(|slot| ("a", slot, Some(slot as f64), slot, "V")).collect();
    let gaps: Vec<(&str, i64, i64)> =
        (DAY / 97..3 * DAY / 97).map(|gap| ("a", gap * 97, gap * 97 + 4)).filter(|(_, first, _)| *first > 97).collect();
    let lake = lake(&held);
    // An estimate takes longer than a copy.
    let few = &gaps[..4];
    for (name, with) in [
        ("interpolate", json!({})),
        ("shifted", json!({ "shift": ["-1d", "1d"] })),
        ("seasonal", json!({ "window": "1d" })),
        ("seasonal", json!({ "window": "1d", "model": "medians" })),
        ("regress", json!({ "window": "1d" })),
        ("shifted", json!({ "shift": ["-1d", "1d"], "take": "median", "scale_to": "edges" })),
        ("carry-backward", json!({})),
    ] {
        let some = if ["seasonal", "regress"].contains(&name) { few } else { gaps.as_slice() };
        plugin_suite::repairer(repairer(name, &with).as_ref(), &at(&lake), &findings(some)).await;
    }
}

#[tokio::test]
async fn a_line_is_drawn_between_rows_of_the_tables_own() {
    let held = [
        ("a", 10, Some(1.0), 10, "V"),
        ("a", 14, Some(3.0), 13, "V"),
        ("a", 16, None, 7, "mV"),
        ("a", 18, Some(5.0), 15, "V"),
        ("b", 12, Some(9.0), 9, "V"),
    ];
    let lake = lake(&held);
    let found = findings(&[("a", 8, 10), ("a", 11, 14), ("a", 15, 16), ("a", 17, 18), ("a", 19, 22), ("b", 11, 12)]);
    let expected = BTreeMap::from([
        one("a", 11, 1.5, 11, Some("V")),
        one("a", 12, 2.0, 12, Some("V")),
        one("a", 13, 2.5, 12, Some("V")),
        (("a".to_owned(), 15), (Some(3.5), Some(10), None)),
        (("a".to_owned(), 17), (Some(4.5), Some(11), None)),
    ]);
    assert_eq!(done("interpolate", json!({}), &lake, &found).await, expected, "each column has ends of its own, or stays missing");
    let with = json!({ "columns": ["value"], "max_gap": "3m" });
    let only_value = BTreeMap::from([
        (("a".to_owned(), 11), (Some(1.5), None, Some("V".to_owned()))),
        (("a".to_owned(), 12), (Some(2.0), None, Some("V".to_owned()))),
        (("a".to_owned(), 13), (Some(2.5), None, Some("V".to_owned()))),
        (("a".to_owned(), 15), (Some(3.5), None, None)),
        (("a".to_owned(), 17), (Some(4.5), None, None)),
    ]);
    assert_eq!(
        done("interpolate", with, &lake, &found).await,
        only_value,
        "a row that lacks all columns is no end, and still beside the gap"
    );
    assert!(done("interpolate", json!({ "columns": ["value"], "max_gap": "2m" }), &lake, &found).await.is_empty());
    let context = at(&lake);
    for (columns, words) in
        [(json!(["unit"]), "`unit`, which is not a numeric column"), (json!(["volume"]), "its numeric columns are value, count")]
    {
        let error = fixes(repairer("interpolate", &json!({ "columns": columns })).as_ref(), &context, &found).await.unwrap_err();
        assert!(error.full().contains(words), "{error}");
    }
    // A repair beside the table is a guess or a second opinion: no line ends at it.
    let scope = StageScope { run: "other", step: "fill", visit: 1, table: &table() };
    let fix = Fix { rows: vec![rows(&[("a", 12, Some(99.0), 99, "V")])], source: "x".to_owned(), ..Fix::default() };
    let request = StageRequest::new("u", "x", Timestamp::UNIX_EPOCH, &fix);
    lake.stage(&scope, &request).await.unwrap();
    lake.publish(&scope, 0, &["u".to_owned()]).await.unwrap();
    assert_eq!(done("interpolate", json!({}), &lake, &found).await, expected);
    // Nor at a row that was found to be wrong, and is to be replaced.
    let wrong = findings(&[("a", 11, 15), ("a", 15, 16)]);
    let drawn = done("interpolate", json!({ "columns": ["value"] }), &lake, &wrong).await;
    assert_eq!(drawn[&("a".to_owned(), 14)].0, Some(3.0), "half way from 1 at 10 to 5 at 18, not the row's own");
    assert_eq!(drawn[&("a".to_owned(), 12)].0, Some(2.0));
}

#[tokio::test]
async fn what_was_at_the_same_time_of_another_day_is_taken_in_order() {
    let held = [
        ("a", 5, Some(1.0), 1, "V"),
        ("a", 2 * DAY + 5, Some(2.0), 2, "V"),
        ("a", 2 * DAY + 6, Some(3.0), 3, "mV"),
        ("b", 6, Some(9.0), 9, "V"),
        ("a", 7, Some(8.0), 8, "V"),
    ];
    let lake = lake(&held);
    let found = findings(&[("a", 7, 8), ("a", DAY + 5, DAY + 8)]);
    let either = json!({ "shift": ["-1d", "1d"] });
    let expected = BTreeMap::from([one("a", DAY + 5, 1.0, 1, Some("V")), one("a", DAY + 6, 3.0, 3, Some("mV"))]);
    assert_eq!(done("shifted", either, &lake, &found).await, expected, "the row of 7 was found to be wrong");
    let later_first = json!({ "shift": ["1d", "-1d"] });
    assert_eq!(done("shifted", later_first, &lake, &found).await[&("a".to_owned(), DAY + 5)].0, Some(2.0));
    let error = fixes(repairer("shifted", &json!({ "shift": "90s" })).as_ref(), &at(&lake), &found).await.unwrap_err();
    assert!(error.message().contains("`shift: 90s` is not a whole number of slots of 1m"), "{error}");
}

/// A day's wave, and one that nothing else shows than the other sensor.
fn wave(slot: i64) -> f64 {
    let day = (slot as f64 * std::f64::consts::TAU / DAY as f64).sin();
    100.0 + 20.0 * day + 10.0 * (slot as f64 / 45.0).sin()
}

/// Three days of two sensors: `b` is twice `a` and some more, and `a` lacks some hours.
fn two_sensors(gone: std::ops::Range<i64>) -> Vec<Row> {
    let rows = |sensor: &'static str| {
        (0..3 * DAY).map(move |slot| {
            let value = if sensor == "a" { wave(slot) } else { 2.0 * wave(slot) + 7.0 };
            (sensor, slot, Some(value), value.round() as i64, "V")
        })
    };
    rows("a").filter(|row| !gone.contains(&row.1)).chain(rows("b")).collect()
}

fn far(repaired: &Repaired, gone: std::ops::Range<i64>) -> f64 {
    let off = |slot: i64| repaired.get(&("a".to_owned(), slot)).map_or(f64::INFINITY, |row| (row.0.unwrap() - wave(slot)).abs());
    gone.map(off).fold(0.0, f64::max)
}

#[tokio::test]
async fn regress_follows_other_keys_and_seasonal_what_repeats() {
    let gone = DAY + 200..DAY + 500;
    let held = two_sensors(gone.clone());
    let lake = lake(&held);
    let found = findings(&[("a", gone.start, gone.end)]);
    let columns = json!({ "columns": ["value"] });
    let joint = done("regress", columns.clone(), &lake, &found).await;
    assert!(far(&joint, gone.clone()) < 0.5, "{}", far(&joint, gone.clone()));
    assert!(joint.values().all(|(_, count, unit)| count.is_none() && unit.is_none()), "other columns are null");
    let alone = done("seasonal", columns.clone(), &lake, &found).await;
    assert!(far(&alone, gone.clone()) > 1.0 && far(&alone, gone.clone()) < 30.0, "{}", far(&alone, gone.clone()));
    let on_none = json!({ "columns": ["value"], "on": { "keys": [] } });
    assert!(far(&done("regress", on_none, &lake, &found).await, gone.clone()) > 1.0, "no key is looked at but its own");
    let whole = done("regress", json!({}), &lake, &found).await;
    let close = |(slot, row): (i64, &(Option<f64>, Option<i64>, Option<String>))| (row.1.unwrap() as f64 - wave(slot)).abs() <= 2.0;
    assert!(whole.iter().all(|((_, slot), row)| close((*slot, row))), "whole numbers are estimated too, and rounded");
    // Where the other sensor has nothing either, it says nothing.
    let both: Vec<Row> = held.iter().filter(|row| !gone.contains(&row.1)).cloned().collect();
    let silent = done("regress", columns, &self::lake(&both), &findings(&[("a", gone.start, gone.end), ("b", gone.start, gone.end)])).await;
    assert_eq!(silent.len(), 600);
    assert!(far(&silent, gone) > 1.0);
}

#[tokio::test]
async fn estimates_come_from_what_is_right() {
    let gone = DAY + 200..DAY + 260;
    let mut held = two_sensors(gone.clone());
    // An absurd value that no rule found, a repair of another run, and one that was found wrong.
    for row in &mut held {
        if row.0 == "a" && [DAY + 199, DAY + 262, 200].contains(&row.1) {
            row.2 = Some(94_000.0);
        }
    }
    let lake = lake(&held);
    let scope = StageScope { run: "other", step: "fill", visit: 1, table: &table() };
    let fix = Fix { rows: vec![rows(&[("a", DAY + 230, Some(9_999.0), 99, "V")])], source: "x".to_owned(), ..Fix::default() };
    lake.stage(&scope, &StageRequest::new("u", "x", Timestamp::UNIX_EPOCH, &fix)).await.unwrap();
    lake.publish(&scope, 0, &["u".to_owned()]).await.unwrap();
    let found = findings(&[("a", gone.start, gone.end)]);
    for (name, with) in [("regress", json!({})), ("seasonal", json!({})), ("seasonal", json!({ "model": "medians" }))] {
        let estimates = done(name, with.clone(), &lake, &found).await;
        assert!(far(&estimates, gone.clone()) < 25.0, "{name} {with}: {}", far(&estimates, gone.clone()));
    }
}

#[tokio::test]
async fn regress_follows_columns_of_other_tables() {
    let gone = DAY + 200..DAY + 500;
    let held: Vec<Row> = two_sensors(gone.clone()).into_iter().filter(|row| row.0 == "a").collect();
    let lake = lake(&held);
    let weather = minute_table("weather", "station");
    let half = (0..6 * DAY).map(|half| (half, 300.0 - wave(half / 2)));
    let times = TimestampMicrosecondArray::from_iter_values(half.clone().map(|(half, _)| FIRST * 60_000_000 + half * 30_000_000));
    let columns: [(&str, ArrayRef); 3] = [
        ("station", Arc::new(StringArray::from_iter_values(half.clone().map(|_| "x")))),
        ("ts", Arc::new(times.with_timezone("UTC"))),
        ("warmth", Arc::new(Float64Array::from_iter_values(half.map(|(_, value)| value)))),
    ];
    lake.put_table(&weather, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
    let clock = Arc::new(VirtualClock::starting_at("2024-04-01T00:00:00Z".parse().unwrap()));
    let context = context(Arc::new(lake), [table(), weather], clock);
    let found = findings(&[("a", gone.start, gone.end)]);
    let with = |columns: Value| json!({ "columns": ["value"], "on": { "tables": [{ "table": "weather", "columns": columns }] } });
    let fixes_of = |with: Value| {
        let (context, found) = (context.clone(), found.clone());
        async move { fixes(repairer("regress", &with).as_ref(), &context, &found).await }
    };
    let joint = repaired(&fixes_of(with(json!(["warmth"]))).await.unwrap());
    assert!(far(&joint, gone.clone()) < 0.5, "{}", far(&joint, gone));
    let error = fixes_of(with(json!(["heat"]))).await.unwrap_err();
    assert!(error.full().contains("its numeric columns are warmth"), "{error}");
    for (odd, words) in [
        (json!({ "on": { "tables": [{ "table": "weather", "columns": [] }] } }), "no column of table `weather`"),
        (json!({ "ridge": 0 }), "`ridge` is 0"),
        (json!({ "min_overlap": 101 }), "`min_overlap` is 101"),
        (json!({ "columns": [] }), "`columns` is empty"),
    ] {
        let made = Registry::default().get(PluginKind::Repairer, "regress").unwrap().make(&odd);
        let message = made.err().unwrap_or_else(|| panic!("{odd}")).message;
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn the_row_after_a_gap_is_repeated_before_it() {
    let held: Vec<Row> = (0..100).filter(|slot| !(20..50).contains(slot)).map(|slot| ("a", slot, Some(slot as f64), slot, "V")).collect();
    let lake = lake(&held);
    let found = findings(&[("a", 20, 50)]);
    let back = done("carry-backward", json!({}), &lake, &found).await;
    assert_eq!(back, (40..50).map(|slot| one("a", slot, 50.0, 50, Some("V"))).collect(), "ten slots by default");
    let forward = done("carry-forward", json!({}), &lake, &found).await;
    assert_eq!(forward, (20..30).map(|slot| one("a", slot, 19.0, 19, Some("V"))).collect());
    assert_eq!(done("carry-backward", json!({ "max_age": "3m" }), &lake, &found).await.len(), 3);
}

#[tokio::test]
async fn days_before_and_after_are_averaged_and_meet_the_edges() {
    // Each day is as high as its number says, and the level of the second is not half-way.
    let level = |slot: i64| [1.0, 3.0, 4.0][usize::try_from(slot / DAY).unwrap()];
    let of_day = |slot: i64| 100.0 + (slot % DAY) as f64 / 10.0;
    let gone = DAY + 100..DAY + 200;
    let held: Vec<Row> =
        (0..3 * DAY).filter(|slot| !gone.contains(slot)).map(|slot| ("a", slot, Some(level(slot) * of_day(slot)), slot, "V")).collect();
    let lake = lake(&held);
    let found = findings(&[("a", gone.start, gone.end)]);
    let at = |rows: &Repaired, slot: i64| rows[&("a".to_owned(), slot)].0.unwrap();
    let (first, middle) = (DAY + 100, DAY + 150);
    let mean = done("shifted", json!({ "shift": ["-1d", "1d"], "take": "mean" }), &lake, &found).await;
    assert!((at(&mean, middle) - 2.5 * of_day(middle)).abs() < 1e-9 && mean.len() == 100);
    let scaled = done("shifted", json!({ "shift": ["-1d", "1d"], "take": "mean", "scale_to": "edges" }), &lake, &found).await;
    assert!((at(&scaled, middle) - 3.0 * of_day(middle)).abs() < 1e-9 && (at(&scaled, first) - 3.0 * of_day(first)).abs() < 1e-9);
    let one = done("shifted", json!({ "shift": "-1d", "scale_to": "edges" }), &lake, &found).await;
    assert!((at(&one, middle) - 3.0 * of_day(middle)).abs() < 1e-9);
    let error = fixes(repairer("shifted", &json!({ "shift": "90s", "take": "mean" })).as_ref(), &at_of(&lake), &found).await.unwrap_err();
    assert!(error.message().contains("is not a whole number of slots"), "{error}");
}

fn at_of(lake: &MemoryLake) -> StepContext {
    at(lake)
}

#[tokio::test]
async fn gaps_that_are_too_long_or_not_over_stay_missing() {
    let gone = DAY + 200..DAY + 500;
    let lake = lake(&two_sensors(gone.clone()));
    let found = findings(&[("a", gone.start, gone.end)]);
    assert!(done("regress", json!({ "max_gap": "299m" }), &lake, &found).await.is_empty());
    assert_eq!(done("regress", json!({ "max_gap": "300m" }), &lake, &found).await.len(), 300);
    let early = Arc::new(VirtualClock::starting_at(Timestamp::from_second((FIRST + DAY + 400) * 60).unwrap()));
    let context = context(Arc::new(lake.clone()), [table()], early);
    let fixes = fixes(repairer("regress", &json!({})).as_ref(), &context, &found).await.unwrap();
    assert_eq!(repaired(&fixes).keys().map(|(_, slot)| *slot).max(), Some(DAY + 399));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testdata::by_length(20, 128)))]

    /// Whatever is missing, and however days cut it into units: the same rows as from a look at the whole series at once.
    #[test]
    fn lines_are_those_of_the_whole_series(
        missing in prop::collection::vec((0..3 * DAY, 1i64..15), 0..40), values in prop::collection::vec(-1_000i64..1_000, (3 * DAY) as usize),
        longest in 1i64..12,
    ) {
        let mut gone = SlotSet::new(Cadence::MINUTE, SlotRange::new(0, 3 * DAY));
        missing.iter().for_each(|(first, length)| gone.insert_range(SlotRange::new(*first, first + length)));
        // Around midnight there is always something to bridge.
        gone.insert_range(SlotRange::new(DAY - 2, DAY + 2));
        let held: Vec<Row> = (0..3 * DAY).filter(|slot| !gone.contains(*slot)).map(|slot| {
            let value = values[slot as usize];
            ("a", slot, Some(value as f64), value, "V")
        }).collect();
        let gaps: Vec<(&str, i64, i64)> = gone.runs().map(|gap| ("a", gap.first, gap.end)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let drawn = runtime.block_on(done("interpolate", json!({ "max_gap": format!("{longest}m") }), &lake(&held), &findings(&gaps)));
        let held: BTreeSet<i64> = held.iter().map(|row| row.1).collect();
        let mut expected = BTreeSet::new();
        for slot in gone.iter() {
            let (before, after) = (held.range(..slot).next_back(), held.range(slot..).next());
            let (Some(&before), Some(&after)) = (before, after) else { continue };
            if after - before - 1 > longest {
                continue;
            }
            expected.insert(slot);
            let (from, to) = (values[before as usize], values[after as usize]);
            let (value, count, _) = &drawn[&("a".to_owned(), slot)];
            let exact = from as f64 + (to - from) as f64 * (slot - before) as f64 / (after - before) as f64;
            prop_assert!((value.unwrap() - exact).abs() < 1e-9);
            prop_assert_eq!(count.unwrap(), (exact + 0.5).floor() as i64, "{} from {} to {}", slot, from, to);
        }
        prop_assert_eq!(drawn.keys().map(|(_, slot)| *slot).collect::<BTreeSet<_>>(), expected);
    }
}
