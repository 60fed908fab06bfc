//! What the archive answers, and which stretches it vouches for.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use jiff::SignedDuration;
use proptest::prelude::*;
use repair_core::model::Table;
use repair_core::plugin::{Answer, Plugin, PluginKind, Request, Source};
use repair_core::testing::MemoryLake;
use serde_json::{Value, json};

use crate::common::{at, bars, batch, context, flat, interval, keys, lake_with, number, plugin};

fn archive(with: &Value) -> Arc<dyn Source> {
    match plugin(PluginKind::Source, "stocks.archive", with).unwrap() {
        Plugin::Source(source) => source,
        _ => unreachable!("asked for a source"),
    }
}

/// An archive of two stocks over three days, with one column that the table of bars does not have.
fn lake() -> Arc<MemoryLake> {
    let rows = batch(
        &bars(),
        &[
            ("IBM", "2026-03-03T15:10:00Z", flat(0.1 + 0.2, 7.0)),
            ("IBM", "2026-03-05T18:00:00Z", flat(31.0, 2.0)),
            ("IBM", "2026-03-05T17:58:00Z", flat(32.0, 3.0)),
            ("SPY", "2026-03-04T15:00:00Z", flat(60.0, 4.0)),
        ],
    );
    let more = Arc::new(Float64Array::from(vec![1.0; 4])) as ArrayRef;
    let columns: Vec<(String, ArrayRef)> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .zip(rows.columns().to_vec())
        .chain([("vwap".to_owned(), more)])
        .collect();
    let lake = lake_with(&Table { location: "/archive".to_owned(), ..bars() }, &RecordBatch::try_from_iter(columns).unwrap());
    lake.put_table(&bars(), &[batch(&bars(), &[])]).unwrap();
    lake
}

async fn fetch(source: &Arc<dyn Source>, lake: &Arc<MemoryLake>, symbols: &[&str], from: &str, to: &str) -> Answer {
    let context = context(lake.clone(), vec![bars()], "2026-03-05T20:00:00Z");
    source.fetch(&context, &Request::new(bars(), keys(symbols), interval(from, to))).await.unwrap()
}

#[tokio::test]
async fn it_vouches_for_whole_days_of_the_stocks_it_knows() {
    let (source, lake) = (archive(&json!({ "location": "/archive" })), lake());
    let answer = fetch(&source, &lake, &["IBM", "SPY", "XYZ"], "2026-03-01", "2026-03-07").await;
    let covered: Vec<_> = answer.covered.iter().map(|covered| (covered.key.to_string(), covered.interval)).collect();
    // The last day is not over: after IBM's last bar of it, nothing is known yet.
    assert_eq!(
        covered,
        [("IBM".to_owned(), interval("2026-03-03", "2026-03-05T18:01:00Z")), ("SPY".to_owned(), interval("2026-03-04", "2026-03-04")),]
    );
    assert_eq!(
        answer.said,
        "the archive /archive, which holds 2 of the 3 requested keys from 2026-03-03T00:00:00Z to 2026-03-05T18:01:00Z"
    );
    let unknown = fetch(&source, &lake, &["XYZ"], "2026-03-03", "2026-03-05").await;
    assert!(unknown.covered.is_empty() && unknown.said.contains("holds none of the requested keys"), "{}", unknown.said);
    let quiet = fetch(&source, &lake, &["SPY"], "2026-03-04T10:00:00Z", "2026-03-04T11:00:00Z").await;
    assert_eq!(quiet.covered[0].interval, interval("2026-03-04T10:00:00Z", "2026-03-04T11:00:00Z"));
    assert_eq!(quiet.said, "the archive /archive, which holds SPY from 2026-03-04T00:00:00Z to 2026-03-05T00:00:00Z");
    assert!(quiet.rows.iter().all(|rows| rows.num_rows() == 0));
}

#[tokio::test]
async fn rows_come_in_order_to_the_last_digit_in_the_tables_columns() {
    let answer = fetch(&archive(&json!({ "location": "/archive" })), &lake(), &["IBM"], "2026-03-03", "2026-03-05").await;
    let rows = &answer.rows[0];
    let times = rows.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert!(times.values().is_sorted(), "{times:?}");
    assert_eq!(number(rows, "close", 0).map(f64::to_bits), Some((0.1f64 + 0.2).to_bits()));
    assert_eq!(rows.schema().fields().len(), 7, "no column that the table has not");
}

#[tokio::test]
async fn it_looks_through_the_archive_once_and_then_reads_only_what_is_asked() {
    let (source, lake) = (archive(&json!({ "location": "/archive", "partition_by": [{ "date": "day" }] })), lake());
    for day in ["2026-03-03", "2026-03-04", "2026-03-05"] {
        fetch(&source, &lake, &["IBM"], day, day).await;
    }
    let scans: Vec<_> = lake.scans().iter().map(|(_, scan)| (scan.interval, scan.columns.as_ref().map(Vec::len))).collect();
    let day = |date| (Some(interval(date, date)), Some(5));
    assert_eq!(scans, [(None, Some(0)), day("2026-03-03"), day("2026-03-04"), day("2026-03-05")]);
}

proptest! {
    /// Files of an archive lie as they were written: whole, by day, with the stocks or the times mixed.
    #[test]
    fn however_the_archive_lies_its_rows_come_in_order(
        rows in proptest::collection::btree_set((0usize..4, 0i64..600), 0..120),
        by in 0usize..4,
        cuts in proptest::collection::vec(0usize..120, 0..4),
        seed in any::<u64>(),
    ) {
        let mut rows: Vec<(usize, i64)> = rows.into_iter().collect();
        match by {
            // In order of stock, then time; in order of time; times backwards; in no order.
            0 => {}
            1 => rows.sort_by_key(|&(stock, minute)| (minute, stock)),
            2 => rows.sort_by_key(|&(stock, minute)| (stock, -minute)),
            _ => rows.sort_by_key(|&(stock, minute)| (stock as u64 * 7 + minute.cast_unsigned()).wrapping_mul(seed | 1)),
        }
        let stocks = ["AIG", "BAC", "IBM", "SPY"];
        let time = |minute: i64| (at("2026-03-03T10:00:00Z") + SignedDuration::from_mins(minute)).to_string();
        let texts: Vec<(&str, String)> = rows.iter().map(|&(stock, minute)| (stocks[stock], time(minute))).collect();
        let whole: Vec<_> = texts.iter().zip(1u32..).map(|((stock, time), price)| (*stock, time.as_str(), flat(f64::from(price), 1.0))).collect();
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).chain([0, whole.len()]).collect();
        ends.sort_unstable();
        let files: Vec<RecordBatch> = ends.windows(2).map(|cut| batch(&bars(), &whole[cut[0]..cut[1]])).collect();
        let lake = Arc::new(MemoryLake::default());
        lake.put_table(&Table { location: "/archive".to_owned(), ..bars() }, &files).unwrap();
        lake.put_table(&bars(), &[batch(&bars(), &[])]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(fetch(&archive(&json!({ "location": "/archive" })), &lake, &stocks, "2026-03-03", "2026-03-03"));
        let mut came = Vec::new();
        for batch in &answer.rows {
            let (keys, times) = (batch.column_by_name("symbol").unwrap().as_string::<i32>(), batch.column_by_name("ts").unwrap());
            let times = times.as_primitive::<TimestampMicrosecondType>();
            came.extend((0..batch.num_rows()).map(|row| (keys.value(row).to_owned(), times.value(row), number(batch, "close", row).unwrap())));
        }
        let mut expected: Vec<_> = whole.iter().map(|(stock, time, bar)| ((*stock).to_owned(), at(time).as_microsecond(), bar[0])).collect();
        expected.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        prop_assert_eq!(came, expected);
    }
}

#[test]
fn one_request_serves_as_many_stocks_as_there_are() {
    let limits = archive(&json!({ "location": "/archive" })).limits();
    assert_eq!((limits.rows_per_request, limits.keys_per_request), (500_000, usize::MAX));
    let limits = archive(&json!({ "location": "/archive", "rows_per_request": 60, "keys_per_request": 3 })).limits();
    assert_eq!((limits.rows_per_request, limits.keys_per_request), (60, 3));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    for with in [
        json!({}),
        json!({ "location": " " }),
        json!({ "location": "archive", "format": "xlsx" }),
        json!({ "location": "archive", "partition_by": [{ "year": "year" }, { "date": "day" }] }),
        json!({ "location": "archive", "keys_per_request": 0 }),
    ] {
        assert!(plugin(PluginKind::Source, "stocks.archive", &with).is_err(), "{with}");
    }
}
