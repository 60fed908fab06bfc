//! Which hours are written, what they are made of, and what is left alone.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use jiff::Timestamp;
use repair_core::lake::overlay::fingerprint::of_slots;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::{Lake, Layer, Overlay, ReadLake, StageRequest, StageScope};
use repair_core::model::{Absence, Cadence, Findings, Fix, GapList, Interval, Key, SlotRange, Table, TimeMark};
use repair_core::plugin::{AggregateRequest, Aggregator, Plugin, PluginKind};
use repair_core::testing::MemoryLake;
use repair_stocks::calendar::calendar;
use serde_json::{Value, json};

use crate::common::{Row, bars, batch, context, findings, flat, interval, keys, lake_with, number, plugin, repair_bars};

const NOW: &str = "2026-03-10T00:00:00Z";

fn aggregator(with: &Value) -> Arc<dyn Aggregator> {
    match plugin(PluginKind::Aggregator, "stocks.hourly-bars", with).unwrap() {
        Plugin::Aggregator(aggregator) => aggregator,
        _ => unreachable!("asked for an aggregator"),
    }
}

async fn aggregate_into(lake: &Arc<MemoryLake>, tables: Vec<Table>, with: &Value, findings: &Findings) -> repair_core::Result<Value> {
    let context = context(lake.clone(), tables, NOW);
    let request = AggregateRequest::new(Some(findings));
    aggregator(with).aggregate(&context, request).await.map(|done| done.output)
}

async fn aggregate(lake: &Arc<MemoryLake>, findings: &Findings) -> Value {
    aggregate_into(lake, vec![bars()], &json!({ "table": "bars", "into": "hourly" }), findings).await.unwrap()
}

fn new_york(symbols: &[&str], asked: Interval) -> Findings {
    findings(&keys(symbols), asked, calendar("XNYS").unwrap().as_ref())
}

/// A row of hours as text that a person can check.
fn hours(lake: &MemoryLake) -> BTreeMap<String, String> {
    hours_of(lake, &hourly())
}

fn hours_of(lake: &MemoryLake, table: &Table) -> BTreeMap<String, String> {
    let rows = lake.rows(table, Layer::Raw).unwrap();
    let mut hours = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let symbol = rows.column_by_name("symbol").unwrap().as_string::<i32>().value(row).to_owned();
        let hour = rows.column_by_name("hour").unwrap().as_primitive::<TimestampMicrosecondType>().value(row);
        let numbers = |names: &[&str]| {
            let texts: Vec<String> =
                names.iter().map(|name| number(&rows, name, row).map_or("-".to_owned(), |value| value.to_string())).collect();
            texts.join(" ")
        };
        let complete = if rows.column_by_name("complete").unwrap().as_boolean().value(row) { "complete" } else { "incomplete" };
        let counts = numbers(&["expected", "observed", "repaired", "absent"]);
        let text = format!("{} | {counts} | {complete}", numbers(&["open", "high", "low", "close", "volume"]));
        let slot = format!("{symbol} {}", Timestamp::from_microsecond(hour).unwrap());
        assert!(hours.insert(slot, text).is_none(), "an hour is there twice");
    }
    hours
}

/// Bars for every minute of a stretch, at a price that rises by 1 per minute.
fn minutes<'a>(symbol: &'a str, times: &'a [String]) -> Vec<Row<'a>> {
    times.iter().zip(1u32..).map(|(time, price)| (symbol, time.as_str(), flat(f64::from(price), 10.0))).collect()
}

fn times(stretch: &Interval) -> Vec<String> {
    let minutes = stretch.from().as_second() / 60..stretch.to().as_second() / 60;
    minutes.map(|minute| Timestamp::from_second(minute * 60).unwrap().to_string()).collect()
}

fn absence(symbol: &str, times: &[String]) -> Absence {
    let minute = |time: &String| crate::common::at(time).as_second() / 60;
    Absence {
        key: Key::from(symbol),
        slots: SlotRange::new(minute(&times[0]), minute(&times[times.len() - 1]) + 1),
        source: "market".to_owned(),
        asked_at: Timestamp::UNIX_EPOCH,
        answer: "nothing traded".to_owned(),
        recheck_after: Timestamp::MAX,
    }
}

/// The table of hours that an aggregate step creates if none is declared.
fn hourly() -> Table {
    Table { name: "hourly".to_owned(), location: "hourly".to_owned(), time: "hour".to_owned(), cadence: Some(Cadence::HOUR), ..bars() }
}

#[tokio::test]
async fn an_hour_counts_what_it_is_made_of() {
    // 2026-03-05, New York: 14:30 to 21:00 UTC, so seven hours, the first of which has 30 minutes.
    let first = times(&interval("2026-03-05T14:30:00Z", "2026-03-05T15:00:00Z"));
    let mut rows = minutes("IBM", &first[..20]);
    // Outside of the session, and twice: neither may count.
    rows.push(("IBM", "2026-03-05T14:29:00Z", flat(999.0, 999.0)));
    rows.push(("IBM", &first[3], flat(4.0, 10.0)));
    let lake = lake_with(&bars(), &batch(&bars(), &rows));
    let repaired: Vec<Row<'_>> = first[20..25].iter().map(|time| ("IBM", time.as_str(), [50.0, 60.0, 0.5, 55.0, 1.0])).collect();
    let absent = vec![
        // Of two that are confirmed absent, a row came after all.
        absence("IBM", &first[18..30]),
        // The whole second hour had no trade, and of the third all but one minute.
        absence("IBM", &times(&interval("2026-03-05T15:00:00Z", "2026-03-05T16:00:00Z"))),
        absence("IBM", &times(&interval("2026-03-05T16:01:00Z", "2026-03-05T17:00:00Z"))),
    ];
    let fix = Fix { rows: vec![batch(&bars(), &repaired)], absent, source: "market".to_owned(), ..Fix::default() };
    repair_bars(&lake, "run", &fix).await;
    let output = aggregate(&lake, &new_york(&["IBM", "SPY"], interval("2026-03-05", "2026-03-05"))).await;

    let hours = hours(&lake);
    assert_eq!(hours.len(), 14, "also the hours of a stock of which nothing came");
    let hour = |slot: &str| hours[slot].as_str();
    assert_eq!(hour("IBM 2026-03-05T14:00:00Z"), "1 60 0.5 55 205 | 30 20 5 5 | complete");
    assert_eq!(hour("IBM 2026-03-05T15:00:00Z"), "- - - - 0 | 60 0 0 60 | complete");
    assert_eq!(hour("IBM 2026-03-05T16:00:00Z"), "- - - - - | 60 0 0 59 | incomplete");
    assert_eq!(hour("SPY 2026-03-05T20:00:00Z"), "- - - - - | 60 0 0 0 | incomplete");
    assert_eq!(
        output,
        json!({
            "table": "hourly", "location": "hourly", "rows": 14, "kept": 0, "hours": 14, "complete": 2, "incomplete": 12,
            "expected": 780, "observed": 20, "repaired": 5, "absent": 124, "missing": 631,
        })
    );
    let rows = lake.rows(&hourly(), Layer::Raw).unwrap();
    let schema = rows.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(
        names,
        ["symbol", "hour", "open", "high", "low", "close", "volume", "expected", "observed", "repaired", "absent", "complete"]
    );
    // To do it twice is to do it once.
    aggregate(&lake, &new_york(&["IBM", "SPY"], interval("2026-03-05", "2026-03-05"))).await;
    assert_eq!(lake.rows(&hourly(), Layer::Raw).unwrap(), rows);
}

/// A bar that was removed is not observed, and no part of any price; the minute is confirmed absent.
#[tokio::test]
async fn a_removed_bar_is_absent() {
    let first = times(&interval("2026-03-05T14:30:00Z", "2026-03-05T15:00:00Z"));
    let mut rows = minutes("IBM", &first);
    rows[29].2 = flat(999.0, 999.0);
    let lake = lake_with(&bars(), &batch(&bars(), &rows));
    let gone = absence("IBM", &first[29..]);
    let mut slots = GapList::default();
    slots.push(&gone.key, gone.slots);
    let known = of_slots(lake.as_ref(), &bars(), &slots).await.unwrap();
    let (table, nothing, removed) = (bars(), Fix::default(), [gone]);
    let scope = StageScope { run: "run", step: "restate", visit: 1, table: &table };
    let request = StageRequest::new("unit", "backfill", Timestamp::UNIX_EPOCH, &nothing).replacing(&known).removing(&removed);
    lake.stage(&scope, &request).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    aggregate(&lake, &new_york(&["IBM"], interval("2026-03-05", "2026-03-05"))).await;
    assert_eq!(hours(&lake)["IBM 2026-03-05T14:00:00Z"], "1 29 1 29 290 | 30 29 0 1 | complete");
}

#[tokio::test]
async fn an_edge_hour_is_complete_only_if_all_of_it_is() {
    let hour = interval("2026-03-05T15:00:00Z", "2026-03-05T16:00:00Z");
    let inside = interval("2026-03-05T15:10:00Z", "2026-03-05T15:20:00Z");
    for (held, said) in [(hour, "1 60 1 60 600 | 60 60 0 0 | complete"), (inside, "1 10 1 10 100 | 60 10 0 0 | incomplete")] {
        let lake = lake_with(&bars(), &batch(&bars(), &minutes("IBM", &times(&held))));
        aggregate(&lake, &new_york(&["IBM"], inside)).await;
        assert_eq!(hours(&lake), BTreeMap::from([("IBM 2026-03-05T15:00:00Z".to_owned(), said.to_owned())]));
    }
}

#[tokio::test]
async fn other_hours_of_the_same_partition_are_left_alone() {
    for partitioned in [true, false] {
        let mut tables = vec![bars()];
        if !partitioned {
            tables.push(Table { partition_by: Vec::new(), ..hourly() });
        }
        let with = json!({ "table": "bars", "into": "hourly" });
        let day = times(&interval("2026-03-05T14:30:00Z", "2026-03-05T21:00:00Z"));
        let all: Vec<Row<'_>> = minutes("IBM", &day).into_iter().chain(minutes("SPY", &day)).collect();
        let lake = lake_with(&bars(), &batch(&bars(), &all));
        let both = new_york(&["IBM", "SPY"], interval("2026-03-04", "2026-03-06"));
        aggregate_into(&lake, tables.clone(), &with, &both).await.unwrap();
        let before = hours(&lake);
        assert_eq!(before.len(), 2 * 3 * 7);

        // Later the bars are others, but only one stock's hour is looked at again.
        let other: Vec<Row<'_>> = all.iter().map(|row| (row.0, row.1, flat(5.0, 1.0))).collect();
        lake.put_table(&bars(), &[batch(&bars(), &other)]).unwrap();
        let one = new_york(&["IBM"], interval("2026-03-05T17:00:00Z", "2026-03-05T18:00:00Z"));
        let output = aggregate_into(&lake, tables, &with, &one).await.unwrap();
        let mut expected = before;
        expected.insert("IBM 2026-03-05T17:00:00Z".to_owned(), "5 5 5 5 60 | 60 60 0 0 | complete".to_owned());
        assert_eq!(hours(&lake), expected);
        assert_eq!((&output["rows"], &output["kept"]), (&json!(1), &json!(if partitioned { 13 } else { 41 })));
    }
}

#[tokio::test]
async fn incomplete_hours_can_be_left_out() {
    let first = times(&interval("2026-03-05T14:30:00Z", "2026-03-05T15:00:00Z"));
    let lake = lake_with(&bars(), &batch(&bars(), &minutes("IBM", &first)));
    let day = new_york(&["IBM"], interval("2026-03-05", "2026-03-05"));
    assert_eq!(aggregate(&lake, &day).await["rows"], 7);
    let skip = json!({ "table": "bars", "into": "hourly", "incomplete": "skip" });
    let output = aggregate_into(&lake, vec![bars()], &skip, &day).await.unwrap();
    assert_eq!((&output["rows"], &output["hours"], &output["incomplete"]), (&json!(1), &json!(7), &json!(6)));
    assert_eq!(hours(&lake).into_keys().collect::<Vec<_>>(), ["IBM 2026-03-05T14:00:00Z"], "the six that were there are gone");
    // With none at all, whether the market was open or not, there is a table with columns.
    for day in ["2026-03-06", "2026-03-07"] {
        let lake = lake_with(&bars(), &batch(&bars(), &minutes("IBM", &first)));
        let output = aggregate_into(&lake, vec![bars()], &skip, &new_york(&["IBM"], interval(day, day))).await.unwrap();
        assert_eq!((&output["rows"], &output["complete"]), (&json!(0), &json!(0)), "{day}");
        let there = lake.describe(&hourly()).await.unwrap();
        assert!(["symbol", "hour", "close", "complete"].iter().all(|column| there.field_with_name(column).is_ok()), "{day}: {there}");
    }
}

#[tokio::test]
async fn a_declared_table_names_its_own_columns_and_types_stay_exact() {
    let table = Table { key: vec!["symbol".to_owned()], time_marks: TimeMark::End, ..bars() };
    let rows = batch(&table, &[("IBM", "2026-03-05T15:00:00Z", flat(30.0, 7.0))]);
    let whole = |rows: &RecordBatch| {
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
            let column = if field.name() == "volume" { arrow::compute::cast(column, &DataType::Int64).unwrap() } else { column.clone() };
            (field.name().clone(), column)
        });
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let lake = lake_with(&table, &whole(&rows));
    let into = Table {
        name: "hours_of".to_owned(),
        location: "hours".to_owned(),
        key: vec!["ticker".to_owned()],
        time: "begins".to_owned(),
        cadence: Some(Cadence::HOUR),
        ..bars()
    };
    let day = new_york(&["IBM"], interval("2026-03-05", "2026-03-05"));
    let with = json!({ "table": "bars", "into": "hours_of" });
    aggregate_into(&lake, vec![table, into.clone()], &with, &day).await.unwrap();
    let hours = lake.rows(&into, Layer::Raw).unwrap();
    let first = concat_batches(&hours.schema(), [&hours.slice(0, 1)]).unwrap();
    assert_eq!(first.column_by_name("ticker").unwrap().as_string::<i32>().value(0), "IBM");
    let begins = first.column_by_name("begins").unwrap().as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!(Timestamp::from_microsecond(begins).unwrap(), crate::common::at("2026-03-05T14:00:00Z"), "its bar ends at 15:00");
    assert_eq!(first.column_by_name("volume").unwrap().data_type(), &DataType::Int64);
    assert_eq!(number(&first, "volume", 0), Some(7.0));
}

#[tokio::test]
async fn what_cannot_be_summed_up_is_refused_with_a_way_out() {
    let lake = lake_with(&bars(), &batch(&bars(), &[]));
    let notes = Table { location: "notes".to_owned(), time: "hour".to_owned(), ..bars() };
    lake.put_table(&notes, &[batch(&notes, &[("IBM", "2026-03-05T15:00:00Z", flat(1.0, 1.0))])]).unwrap();
    let day = new_york(&["IBM"], interval("2026-03-05", "2026-03-05"));
    let into = |change: fn(&mut Table)| {
        let mut table = hourly();
        change(&mut table);
        table
    };
    for (with, table, said) in [
        (json!({ "table": "bars", "into": "bars" }), None, "folder of its own"),
        (json!({ "table": "trades", "into": "hourly" }), None, "`of`"),
        (json!({ "table": "bars", "into": "notes" }), None, "another table under `into`"),
        (json!({ "table": "bars", "into": "hourly" }), Some(into(|table| table.cadence = Some(Cadence::MINUTE))), "`cadence: 1h`"),
        (json!({ "table": "bars", "into": "hourly" }), Some(into(|table| table.time_marks = TimeMark::End)), "time_marks"),
        (json!({ "table": "bars", "into": "hourly" }), Some(into(|table| table.key.clear())), "key columns"),
        (json!({ "table": "bars", "into": "hourly" }), Some(into(|table| table.time = "open".to_owned())), "rename it"),
    ] {
        let tables = [bars()].into_iter().chain(table).collect();
        let error = aggregate_into(&lake, tables, &with, &day).await.unwrap_err();
        assert!(error.message().contains(said), "{with}: {error}");
    }
    let nothing = aggregator(&json!({ "table": "bars", "into": "hourly" }))
        .aggregate(&context(lake, vec![bars()], NOW), AggregateRequest::new(None))
        .await;
    assert!(nothing.unwrap_err().message().contains("`of`"));
}

/// Whatever is written in between, hours of folders that are not computed again are those that would be computed.
#[tokio::test]
async fn hours_that_still_hold_are_those_that_would_be_computed() {
    let mut spared = 0;
    for seed in testdata::seeds(6, 60) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        let mut state = seed;
        let mut below = move |end: u64| {
            // Knuth's MMIX constants.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        let lake = lake_with(&bars(), &batch(&bars(), &[("IBM", "2026-03-02T15:00:00Z", flat(1.0, 1.0))]));
        let (mut now, mut retracted) = (crate::common::at(NOW), 0);
        let mut asked = interval("2026-03-02", "2026-03-06");
        for step in 0..10 {
            let symbol = ["IBM", "SPY", "IBM", "SPY", "AAA"][usize::try_from(below(5)).unwrap()];
            let time = format!("2026-03-{:02}T{:02}:{:02}:00Z", 2 + below(5), 14 + below(7), below(60));
            match below(10) {
                0 | 1 => lake.add_rows(&bars(), &[batch(&bars(), &[(symbol, &time, flat(2.0, 1.0))])]).unwrap(),
                2 => {
                    let fix = Fix {
                        rows: vec![batch(&bars(), &[(symbol, &time, flat(3.0, 1.0))])],
                        source: "market".to_owned(),
                        ..Fix::default()
                    };
                    repair_bars(&lake, &format!("run-{step}"), &fix).await;
                }
                3 => {
                    let expires = now.checked_add(jiff::SignedDuration::from_hours(30)).unwrap();
                    let absent = Absence { recheck_after: expires, ..absence(symbol, std::slice::from_ref(&time)) };
                    let fix = Fix { absent: vec![absent], source: "market".to_owned(), ..Fix::default() };
                    repair_bars(&lake, &format!("run-{step}"), &fix).await;
                }
                4 => {
                    let retraction = Retraction {
                        id: format!("undo-{retracted}"),
                        at: Timestamp::UNIX_EPOCH,
                        by: "somebody".to_owned(),
                        reason: "wrong".to_owned(),
                        parts: vec![Part::of_run(format!("run-{}", below(10)))],
                        undoes: None,
                    };
                    retracted += 1;
                    lake.retract(&bars(), &retraction).await.unwrap();
                }
                5 => now = now.checked_add(jiff::SignedDuration::from_hours(20)).unwrap(),
                // Somebody removes the hours of a day.
                6 => drop(lake.replace(&hourly(), &interval(&time[..10], &time[..10]), Vec::new()).await.unwrap()),
                7 => asked = interval(&format!("2026-03-{:02}T15:30:00Z", 2 + below(2)), &format!("2026-03-{:02}T19:10:00Z", 4 + below(3))),
                // Another step writes hours of another stock into the same days.
                8 => {
                    let context = context(lake.clone(), vec![bars()], &now.to_string());
                    let found = new_york(&["AAA"], interval("2026-03-03", "2026-03-05"));
                    let other = aggregator(&json!({ "table": "bars", "into": "hourly" }));
                    other.aggregate(&context, AggregateRequest::new(Some(&found))).await.unwrap();
                }
                // Nothing happens.
                _ => {}
            }
            let found = new_york(&["IBM", "SPY"], asked);
            let computed = async |into: &str| {
                let before = lake.requests("replace");
                let context = context(lake.clone(), vec![bars()], &now.to_string());
                let step = aggregator(&json!({ "table": "bars", "into": into }));
                let mut output = step.aggregate(&context, AggregateRequest::new(Some(&found))).await.unwrap().output;
                let fields = output.as_object_mut().unwrap();
                ["table", "location", "kept"].iter().for_each(|name| drop(fields.remove(*name)));
                // That less of the time is covered is not counted here.
                (output, lake.requests("replace") - before)
            };
            let before = lake.rows(&hourly(), Layer::Raw).ok().map(|_| hours(&lake));
            let (output, written) = computed("hourly").await;
            let (anew, all) = computed(&format!("anew_{step}")).await;
            assert_eq!(output, anew, "step {step}");
            let is_ours = |text: &String| !text.starts_with("AAA") && asked_hours(&asked, text);
            let ours = |all: BTreeMap<String, String>| all.into_iter().filter(|(slot, _)| is_ours(slot)).collect::<BTreeMap<_, _>>();
            let table = Table { name: format!("anew_{step}"), location: format!("anew_{step}"), ..hourly() };
            assert_eq!(ours(hours(&lake)), ours(hours_of(&lake, &table)), "step {step}");
            // What is not asked for stays.
            let others = |all: BTreeMap<String, String>| all.into_iter().filter(|(slot, _)| !is_ours(slot)).collect::<BTreeMap<_, _>>();
            assert_eq!(others(hours(&lake)), before.map(others).unwrap_or_default(), "step {step}");
            spared += u32::from(written < all);
        }
    }
    assert!(spared >= 4, "only {spared} steps had nothing to compute");
}

/// Whether an hour, in the text that is its slot, is one that an interval touches.
fn asked_hours(asked: &Interval, slot: &str) -> bool {
    let hour = crate::common::at(slot.rsplit(' ').next().unwrap());
    hour < asked.to() && asked.from() < hour.checked_add(jiff::SignedDuration::from_hours(1)).unwrap()
}
