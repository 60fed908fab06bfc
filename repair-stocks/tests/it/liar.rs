//! Every lie of a source, through a whole workflow: it is refused, or the report says that something is wrong, or it does no harm.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use repair_core::engine::{Engine, RunReport, StartRequest};
use repair_core::lake::{Layer, PresenceRequest, ReadLake, overlay};
use repair_core::plugin::{Limits, Registry};
use repair_core::testing::liar::{self, Lie, Truth, Verdict};
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::Workflow;

use crate::common::{at, bars, batch, interval, keys};

const FROM: &str = "2024-03-11T13:30:00Z";
const TO: &str = "2024-03-11T14:30:00Z";
const SYMBOLS: [&str; 2] = ["AAA", "BBB"];

/// The minutes of the hour that the table lacks.
fn is_missing(minute: i64) -> bool {
    (5..20).contains(&minute) || (35..50).contains(&minute)
}

/// The bars of two days, or of what is left of them in the table.
fn market(kept: impl Fn(i64) -> bool) -> RecordBatch {
    let start = at(FROM).as_second() / 60;
    let mut rows: Vec<(&str, String, [f64; 5])> = Vec::new();
    for (number, symbol) in (1i32..).zip(SYMBOLS) {
        for minute in (-25 * 60..-24 * 60 + 120).chain(-60..120).filter(|minute| kept(*minute)) {
            let time = jiff::Timestamp::from_second((start + minute) * 60).unwrap().to_string();
            let wave = f64::from(i32::try_from((minute * 7919 + 4000 * 7919) % 997).unwrap()) / 64.0;
            let open = 20.0 * f64::from(number) + wave;
            rows.push((symbol, time, [open, open + 0.75, open - 0.5, open + 0.25, 500.0 + 4.0 * wave]));
        }
    }
    let rows: Vec<(&str, &str, [f64; 5])> = rows.iter().map(|(symbol, time, bar)| (*symbol, time.as_str(), *bar)).collect();
    batch(&bars(), &rows)
}

/// The values of the rows of the hour, by symbol and minute; of those that are repairs, if so wanted.
fn rows(batch: &RecordBatch, repairs: bool) -> BTreeMap<(String, i64), Vec<u64>> {
    let start = at(FROM).as_second() / 60;
    let symbols = cast(batch.column_by_name("symbol").unwrap(), &DataType::Utf8).unwrap();
    let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>().clone();
    let by = batch.column_by_name(overlay::REPAIRED_BY).map(|by| cast(by, &DataType::Utf8).unwrap());
    let values: Vec<_> = ["open", "high", "low", "close", "volume"]
        .map(|name| cast(batch.column_by_name(name).unwrap(), &DataType::Float64).unwrap())
        .to_vec();
    let wanted = (0..batch.num_rows()).filter(|row| !repairs || by.as_ref().is_some_and(|by| by.is_valid(*row)));
    wanted
        .map(|row| {
            let minute = times.value(row) / 60_000_000 - start;
            let values = values.iter().map(|column| column.as_primitive::<Float64Type>().value(row).to_bits()).collect();
            ((symbols.as_string::<i32>().value(row).to_owned(), minute), values)
        })
        .collect()
}

/// What a run made of a lie: its report, its repairs, and how many slots it confirmed absent.
async fn run(lie: Lie, truth: &RecordBatch, more: &str) -> (RunReport, BTreeMap<(String, i64), Vec<u64>>, u64) {
    let table = bars();
    let lake = MemoryLake::default();
    lake.put_table(&table, &[market(|minute| !is_missing(minute))]).unwrap();
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    liar::register(&mut registry, Arc::new(Truth::new(truth.clone(), Limits::new(20, 1))), keys(&SYMBOLS));
    let registry = Arc::new(registry);
    let lie_name = serde_json::to_value(lie).unwrap();
    let text = format!(
        "workflow: bars\nkind: state-machine\ntables:\n  bars: {{ location: bars, format: parquet, key: [symbol], time: ts, cadence: 1m, \
         partition_by: [{{ date: day }}] }}\nsources:\n  market: {{ source: liar, with: {{ lie: {lie_name} }} }}\nstart: find\nsteps:\n  find:\n    \
         detect: stocks.minute-gaps\n    with: {{ table: bars, calendar: 24x7, symbols: [AAA, BBB], from: '{FROM}', to: '{TO}' }}\n    next: fill\n  \
         fill:\n    repair: stocks.backfill\n    of: find\n    concurrency: 1\n    with: {{ source: market }}\n{more}    end: true\n"
    );
    let workflow = Workflow::parse("bars.yaml", &text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut engine = Engine::new(registry, Arc::new(lake.clone()), Arc::new(MemoryJournal::default()));
    engine.clock = Arc::new(VirtualClock::starting_at(at("2024-03-12T00:00:00Z")));
    let report = engine.start(&workflow, StartRequest::new("run")).await.unwrap();
    let slots = table.grid().unwrap().slots_in(&interval(FROM, TO));
    let request = PresenceRequest::new(slots, keys(&SYMBOLS), at("2024-03-12T00:00:00Z"));
    let absent = lake.presence(&table, &request).await.unwrap().absent;
    let absent = absent.values().map(repair_core::model::SlotSet::count).sum();
    (report, rows(&lake.rows(&table, Layer::Repaired).unwrap(), true), absent)
}

#[tokio::test(start_paused = true)]
async fn no_lie_is_published_in_silence() {
    let all = market(|_| true);
    let truth = rows(&all, false);
    assert!(Lie::ALL.len() >= 70, "{}", Lie::ALL.len());
    let mut broken = Vec::new();
    for &lie in Lie::ALL {
        let (report, repaired, absent) = run(lie, &all, "").await;
        let said = report.problems.join("; ");
        let is_true = repaired.iter().all(|(slot, values)| truth.get(slot) == Some(values)) && absent == 0;
        let kept = match lie.verdict() {
            Verdict::Refused(words) => is_true && said.contains(words),
            Verdict::Reported(words) => said.contains(words),
            Verdict::Harmless => is_true,
            Verdict::Believed => true,
        };
        if !kept {
            broken.push(format!(
                "{lie:?} ({:?}): {} repaired, true: {is_true}, {absent} absent: {said:.600}",
                lie.verdict(),
                repaired.len()
            ));
        }
        assert!(repaired.keys().all(|(_, minute)| is_missing(*minute)), "{lie:?} repairs what is missing and nothing else");
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_lie_that_is_tried_again_is_still_none() {
    let all = market(|_| true);
    let truth = rows(&all, false);
    let retry = "    retry: [{ on: [failed, invalid, internal], attempts: 2, interval: 1s }]\n    tolerate: { failed: 100% }\n";
    // A part of the lies, and in the long tests all of them.
    let lies = Lie::ALL.iter().filter(|lie| matches!(lie.verdict(), Verdict::Refused(_) | Verdict::Harmless));
    for &lie in lies.step_by(testdata::by_length(5, 1)) {
        let (_, repaired, absent) = run(lie, &all, retry).await;
        assert!(repaired.iter().all(|(slot, values)| truth.get(slot) == Some(values)) && absent == 0, "{lie:?}");
    }
}
