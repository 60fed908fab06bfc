//! What repaired cells cost a reader: `cargo bench -p repair-local --bench cells`.
//!
//! Writes minute bars as Parquet, a file a day, and reads the repaired view without repairs, with one row in a hundred replaced, and with one
//! cell in a hundred rows changed, each several times in turn. `ROWS` says how many rows (5,000,000 if it is not set), `KEYS` of how many keys
//! (500). What counts are the ratios within one run.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement that fails, panics")]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::StreamExt;
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use repair_core::lake::overlay::{columns, patch};
use repair_core::lake::{Layer, Overlay, ReadLake, ScanRequest, StageRequest, StageScope};
use repair_core::model::{Cadence, Fingerprint, Fingerprints, Fix, Format, Key, PartitionUnit, Table};
use repair_local::LocalLake;

const MINUTES_A_DAY: i64 = 1_000;
const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 1_440 * MINUTE_US;
/// A row in so many is repaired.
const REPAIRED_EVERY: i64 = 100;
const ROUNDS: usize = 5;

fn setting(name: &str, default: i64) -> i64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A line of `/proc/self/status` in MB, where there is one.
fn status_mb(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|known| known.starts_with(line)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

/// Forgets the most memory this process has had.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn bars() -> Table {
    Table::new("bars", Format::Parquet, "ts").with_key(["symbol"]).with_partition("date", PartitionUnit::Day).with_cadence(Cadence::MINUTE)
}

/// Rows of one day: all, or those that are repaired.
fn day(day_us: i64, keys: i64, repaired: bool) -> RecordBatch {
    let every = if repaired { REPAIRED_EVERY } else { 1 };
    let rows: Vec<i64> = (0..keys * MINUTES_A_DAY).filter(|at| at % every == 0).collect();
    let times: Vec<i64> = rows.iter().map(|at| day_us + at % MINUTES_A_DAY * MINUTE_US).collect();
    let symbols = rows.iter().map(|at| format!("SYM{:04}", at / MINUTES_A_DAY));
    let price =
        |scale: i64| Arc::new(Float64Array::from_iter_values(times.iter().map(|time| (time / scale % 997) as f64 / 8.0))) as ArrayRef;
    let prices = [("open", price(3)), ("high", price(5)), ("low", price(7)), ("close", price(11))];
    let columns: [(&str, ArrayRef); 2] = [
        ("symbol", Arc::new(StringArray::from_iter_values(symbols))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"))),
    ];
    let volume: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().copied()));
    RecordBatch::try_from_iter(columns.into_iter().chain(prices).chain([("volume", volume)])).unwrap()
}

fn write(root: &Path, start_us: i64, days: i64, keys: i64) {
    for number in 0..days {
        let rows = day(start_us + number * DAY_US, keys, false);
        let date = Timestamp::from_microsecond(start_us + number * DAY_US).unwrap().to_string();
        let path = root.join(format!("bars/date={}/0.parquet", &date[..10]));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
}

/// Changes of the cell `close`.
fn changes(rows: &RecordBatch) -> RecordBatch {
    let column = |name: &str| rows.column_by_name(name).unwrap().clone();
    let list: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(r#"["close"]"#, rows.num_rows())));
    let was = patch::was("close");
    let all =
        [("symbol", column("symbol")), ("ts", column("ts")), ("close", column("open")), (&was, column("close")), (columns::CELLS, list)];
    RecordBatch::try_from_iter(all).unwrap()
}

async fn repair(lake: &LocalLake, start_us: i64, days: i64, keys: i64, cells: bool) {
    let table = bars();
    let scope = StageScope { run: "bench", step: "fix", visit: 1, table: &table };
    let (mut units, grid) = (Vec::new(), table.grid().unwrap());
    for number in 0..days {
        let rows = day(start_us + number * DAY_US, keys, true);
        let (mut fix, mut patches, mut replaced) =
            (Fix { source: "bench".to_owned(), ..Fix::default() }, Vec::new(), Fingerprints::default());
        if cells {
            patches.push(changes(&rows));
        } else {
            for at in (0..keys * MINUTES_A_DAY).filter(|at| at % REPAIRED_EVERY == 0) {
                let slot = grid.slot_of_seconds((start_us + number * DAY_US + at % MINUTES_A_DAY * MINUTE_US) / 1_000_000);
                replaced.insert(&Key::from(format!("SYM{:04}", at / MINUTES_A_DAY).as_str()), slot, Fingerprint::new([0; 16]));
            }
            fix.rows.push(rows);
        }
        units.push(format!("{number}"));
        let request = StageRequest::new(&units[units.len() - 1], "bench", Timestamp::UNIX_EPOCH, &fix).patching(&patches);
        lake.stage(&scope, &request.replacing((!cells).then_some(&replaced))).await.unwrap();
    }
    lake.publish(&scope, 0, &units).await.unwrap();
    lake.discard_staged(&scope, &units).await.unwrap();
}

/// Reads the view; returns its rows.
async fn read(lake: &LocalLake, columns: Option<Vec<String>>) -> u64 {
    let mut stream = lake.scan(&bars(), &ScanRequest::new(Layer::Repaired).with_columns(columns)).await.unwrap();
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch.unwrap().num_rows() as u64;
    }
    rows
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let keys = setting("KEYS", 500);
    let days = (setting("ROWS", 5_000_000) / (keys * MINUTES_A_DAY)).max(1);
    let start_us = "2018-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_microsecond();
    let mut lakes = Vec::new();
    for (name, cells) in [("no repairs", None), ("rows replaced", Some(false)), ("cells changed", Some(true))] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), start_us, days, keys);
        let lake = LocalLake::open(folder.path()).unwrap();
        if let Some(cells) = cells {
            repair(&lake, start_us, days, keys, cells).await;
        }
        lakes.push((name, lake, folder));
    }
    for (what, columns) in [("all columns", None), ("another column", Some(vec!["volume".to_owned()]))] {
        let mut took = [Duration::MAX; 3];
        let mut peaks = [0; 3];
        for _ in 0..ROUNDS {
            for ((number, took), (_, lake, _)) in took.iter_mut().enumerate().zip(&lakes) {
                forget_peak();
                let begun = Instant::now();
                assert_eq!(read(lake, columns.clone()).await, u64::try_from(days * keys * MINUTES_A_DAY).unwrap());
                *took = (*took).min(begun.elapsed());
                peaks[number] = status_mb("VmHWM");
            }
        }
        for ((name, ..), (took_one, peak)) in lakes.iter().zip(took.iter().zip(peaks)) {
            let ratio = took_one.as_secs_f64() / took[0].as_secs_f64();
            println!(
                "{what:<16} {name:<16} {:>6} ms, {ratio:.2} times as long as without repairs, {peak} MB at most",
                took_one.as_millis()
            );
        }
    }
}
