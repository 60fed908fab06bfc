//! The repairers, as a workflow makes them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};
use futures::TryStreamExt;
use repair_core::ErrorKind;
use repair_core::lake::{Layer, ScanRequest};
use repair_core::model::{Findings, Fix, SlotRange, Table};
use repair_core::plugin::{Plugin, PluginKind, Repairer, StepContext};
use repair_stocks::calendar::calendar;
use serde_json::{Value, json};

use crate::common::{Row, bars, batch, context, findings, flat, interval, keys, lake_with, number, plugin};

fn repairer(name: &str, with: &Value) -> Arc<dyn Repairer> {
    match plugin(PluginKind::Repairer, name, with).unwrap() {
        Plugin::Repairer(repairer) => repairer,
        _ => unreachable!("asked for a repairer"),
    }
}

/// IBM's missing minutes from 14:31 to 14:34, and a context with these rows in the table and in an archive.
fn gap(held: &[Row<'_>], archived: &[Row<'_>]) -> (StepContext, Findings) {
    let lake = lake_with(&bars(), &batch(&bars(), held));
    let archive = Table { location: "archive".to_owned(), ..bars() };
    lake.put_table(&archive, &[batch(&archive, archived)]).unwrap();
    let mut context = context(lake, vec![bars()], "2026-03-10T00:00:00Z");
    let Plugin::Source(archive) = plugin(PluginKind::Source, "stocks.archive", &json!({ "location": "archive" })).unwrap() else {
        unreachable!("asked for a source")
    };
    context.sources = Arc::new([("market".to_owned(), archive)].into());
    let day = interval("2026-03-05", "2026-03-05");
    let mut found = findings(&keys(&["IBM", "SPY"]), day, calendar("XNYS").unwrap().as_ref());
    found.gaps.push(&keys(&["IBM"])[0], found.scope.grid.slots_in(&interval("2026-03-05T14:31:00Z", "2026-03-05T14:34:00Z")));
    (context, found)
}

async fn repair(name: &str, with: &Value, (context, found): &(StepContext, Findings)) -> repair_core::Result<Fix> {
    let repairer = repairer(name, with);
    let units = repairer.plan(context, found).await?.collect::<repair_core::Result<Vec<_>>>()?;
    assert_eq!(units.len(), 1);
    repairer.repair(context, found, &units[0]).await
}

#[tokio::test]
async fn backfill_believes_no_bar_that_cannot_be() {
    let with = json!({ "source": "market" });
    let good = ("IBM", "2026-03-05T14:31:00Z", flat(31.0, 5.0));
    let fix = repair("stocks.backfill", &with, &gap(&[], &[good])).await.unwrap();
    assert_eq!(number(&fix.rows[0], "close", 0), Some(31.0));
    assert_eq!(fix.absent.iter().map(|absence| absence.slots.len()).sum::<u64>(), 2);
    assert!(fix.absent[0].answer.starts_with("the archive archive, which holds IBM from"), "{}", fix.absent[0].answer);

    let bad = ("IBM", "2026-03-05T14:32:00Z", [31.0, 31.5, 31.2, 31.3, 5.0]);
    let error = repair("stocks.backfill", &with, &gap(&[], &[good, bad])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.full();
    assert!(
        said.contains("IBM at 2026-03-05T14:32:00Z") && said.contains("low 31.2 is above open 31") && said.contains("market"),
        "{said}"
    );
}

#[tokio::test]
async fn carry_forward_repeats_the_last_price_for_a_while() {
    let held = [("IBM", "2026-03-05T14:30:00Z", [30.0, 32.0, 29.0, 31.0, 500.0])];
    let fix = repair("stocks.carry-forward", &json!({ "max_age": "2m" }), &gap(&held, &[])).await.unwrap();
    let rows = &fix.rows[0];
    assert_eq!((rows.num_rows(), fix.source.as_str()), (2, "stocks.carry-forward"));
    for row in 0..2 {
        let bar = ["open", "high", "low", "close", "volume"].map(|column| number(rows, column, row));
        assert_eq!(bar, [31.0, 31.0, 31.0, 31.0, 0.0].map(Some));
    }
}

/// Rows as Yahoo's files name their columns.
fn in_capitals(rows: &RecordBatch) -> RecordBatch {
    let capital = |field: &Arc<Field>| match field.name().as_str() {
        "symbol" | "ts" => field.as_ref().clone(),
        name => field.as_ref().clone().with_name(format!("{}{}", name[..1].to_uppercase(), &name[1..])),
    };
    let fields: Vec<Field> = rows.schema().fields().iter().map(capital).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().to_vec()).unwrap()
}

/// Whoever makes bars finds the columns of a table in any case.
#[tokio::test]
async fn bars_are_made_in_columns_of_any_case() {
    let held = [("IBM", "2026-03-05T14:30:00Z", [30.0, 32.0, 29.0, 31.0, 500.0])];
    let (mut of_gap, found) = gap(&held, &[]);
    of_gap.lake = lake_with(&bars(), &in_capitals(&batch(&bars(), &held)));
    let (mut both, of_both, ..) = together();
    let all: Vec<RecordBatch> = both.lake.scan(&bars(), &ScanRequest::new(Layer::Raw)).await.unwrap().try_collect().await.unwrap();
    let all = concat_batches(&all[0].schema(), &all).unwrap();
    let in_small = repair("stocks.correlated", &json!({ "reference": "SPY" }), &(both.clone(), of_both.clone())).await.unwrap();
    both.lake = lake_with(&bars(), &in_capitals(&all));
    let carried = repair("stocks.carry-forward", &json!({ "max_age": "2m" }), &(of_gap, found)).await.unwrap();
    let bridged = repair("stocks.correlated", &json!({ "reference": "SPY" }), &(both, of_both)).await.unwrap();
    for column in ["Open", "High", "Low", "Close", "Volume"] {
        let price = if column == "Volume" { 0.0 } else { 31.0 };
        assert_eq!([0, 1].map(|row| number(&carried.rows[0], column, row)), [Some(price); 2], "{column}");
        for row in 0..5 {
            let small = number(&in_small.rows[0], &column.to_lowercase(), row);
            assert!(small.is_some() && small == number(&bridged.rows[0], column, row), "{column} of row {row}");
        }
    }
}

/// Two hours of SPY and of IBM, whose returns are 0.8 times those of SPY. A bar opens where the last one closed. Both lack some minutes.
fn together() -> (StepContext, Findings, Vec<String>, [Vec<f64>; 2]) {
    let times: Vec<String> = (870..990).map(|minute| format!("2026-03-05T{:02}:{:02}:00Z", minute / 60, minute % 60)).collect();
    let spy: Vec<f64> = (0..120u32).map(|minute| 500.0 + f64::from(minute * 37 % 11) - f64::from(minute * 13 % 7)).collect();
    let ibm: Vec<f64> = spy.iter().map(|price| 240.0 * (price / 500.0).powf(0.8)).collect();
    let missing = |symbol: &str, minute: usize| match symbol {
        "IBM" => (60..65).contains(&minute) || (80..82).contains(&minute) || (10..12).contains(&minute),
        _ => (80..82).contains(&minute) || minute == 62,
    };
    let mut held: Vec<Row<'_>> = Vec::new();
    for (symbol, prices, volume) in [("IBM", &ibm, 30.0), ("SPY", &spy, 100.0)] {
        for minute in (0..120).filter(|minute| !missing(symbol, *minute)) {
            let (open, close) = (prices[minute.saturating_sub(1)], prices[minute]);
            held.push((symbol, &times[minute], [open, open.max(close), open.min(close), close, volume + minute as f64 % 2.0]));
        }
    }
    let context = context(lake_with(&bars(), &batch(&bars(), &held)), vec![bars()], "2026-03-10T00:00:00Z");
    let mut found = findings(&keys(&["IBM", "SPY"]), interval("2026-03-05", "2026-03-05"), calendar("XNYS").unwrap().as_ref());
    let first = found.scope.grid.slot_of(times[0].parse().unwrap());
    for (symbol, gap) in [("IBM", 10..12), ("IBM", 60..65), ("IBM", 80..82), ("SPY", 62..63), ("SPY", 80..82)] {
        found.gaps.push(&keys(&[symbol])[0], SlotRange::new(first + gap.start, first + gap.end));
    }
    (context, found, times, [ibm, spy])
}

#[tokio::test]
async fn a_price_follows_another_that_is_known_and_meets_both_ends() {
    let (context, found, times, [ibm, _]) = together();
    let with = json!({ "reference": "SPY" });
    let fix = repair("stocks.correlated", &with, &(context.clone(), found.clone())).await.unwrap();
    let rows = &fix.rows[0];
    assert_eq!((rows.num_rows(), fix.source.as_str()), (5, "stocks.correlated"), "before, too little is known; after, of neither");
    repair_stocks::bar::believable(&bars(), rows).unwrap();
    let time = rows.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
    for (row, minute) in (60..65).enumerate() {
        assert_eq!(time.value(row), times[minute].parse::<jiff::Timestamp>().unwrap().as_microsecond());
        let value = |column| number(rows, column, row).unwrap();
        let (open, close) = (value("open"), value("close"));
        // In minute 62 SPY has no bar, so IBM moves only by its share of the remaining difference.
        for (price, minute) in [(open, minute - 1), (close, minute)] {
            let apart = (price / ibm[minute] - 1.0).abs();
            assert!(if minute == 62 { apart < 0.02 } else { apart < 1e-9 }, "{minute}: {price} is not {}", ibm[minute]);
        }
        assert_eq!((value("high"), value("low")), (open.max(close), open.min(close)));
        let volume = value("volume");
        assert!(if minute == 62 { volume == 0.0 } else { (volume - 30.3).abs() < 0.5 }, "{minute}: {volume}");
    }
    let too_long = json!({ "reference": "SPY", "max_gap": "4m" });
    let repairer = repairer("stocks.correlated", &too_long);
    let mut units = repairer.plan(&context, &found).await.unwrap();
    let wanted = units.next().unwrap().unwrap().wanted;
    assert_eq!(wanted.iter().map(|wanted| wanted.len()).sum::<u64>(), 4, "IBM's short gaps; the reference is nobody's to repair");
}
