//! How fast presence is told, and in how much memory: `cargo bench -p repair-local --bench presence`.
//!
//! Writes minute bars as Parquet, a file a day or one file for all, and times one look at all of them. `ROWS` says how many rows
//! (5,000,000 if it is not set), `KEYS` of how many keys (500).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement that fails, panics")]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::StreamExt;
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use repair_core::lake::{Layer, PresenceRequest, ReadLake, ScanRequest};
use repair_core::model::{Cadence, Format, Key, Partition, PartitionUnit, SlotRange, Table, TimeMark};
use repair_local::LocalLake;

const MINUTES_A_DAY: i64 = 1_000;
const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 1_440 * MINUTE_US;
const ROW_GROUP: usize = 1_000_000;
/// A row in so many is missing.
const HOLE_EVERY: i64 = 1_009;

/// How the rows are laid out.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    by_time: bool,
    file_a_day: bool,
    number_keys: bool,
    dictionary: bool,
}

const LAYOUTS: [Layout; 5] = [
    Layout { name: "a file a day, by key", by_time: false, file_a_day: true, number_keys: false, dictionary: true },
    Layout { name: "a file a day, by time", by_time: true, file_a_day: true, number_keys: false, dictionary: true },
    Layout { name: "one file, by time", by_time: true, file_a_day: false, number_keys: false, dictionary: true },
    Layout { name: "keys without dictionary", by_time: true, file_a_day: true, number_keys: false, dictionary: false },
    Layout { name: "keys are numbers", by_time: true, file_a_day: true, number_keys: true, dictionary: true },
];

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

fn bars(layout: &Layout) -> Table {
    let day = Partition { column: "date".into(), unit: PartitionUnit::Day };
    Table {
        name: "bars".into(),
        location: "bars".into(),
        format: Format::Parquet,
        partition_by: if layout.file_a_day { vec![day] } else { vec![] },
        key: vec!["symbol".into()],
        time: "ts".into(),
        time_marks: TimeMark::Start,
        cadence: Some(Cadence::MINUTE),
        ..Table::implicit("bars", "ts")
    }
}

fn key(layout: &Layout, number: i64) -> String {
    if layout.number_keys { (100_000 + number).to_string() } else { format!("SYM{number:04}") }
}

/// The rows of one day.
fn day(layout: &Layout, start_us: i64, day: i64, keys: i64) -> RecordBatch {
    let (mut symbols, mut times) = (Vec::new(), Vec::new());
    for at in 0..keys * MINUTES_A_DAY {
        let (symbol, minute) = if layout.by_time { (at % keys, at / keys) } else { (at / MINUTES_A_DAY, at % MINUTES_A_DAY) };
        if (symbol * MINUTES_A_DAY + minute + day) % HOLE_EVERY != 0 {
            symbols.push(symbol);
            times.push(start_us + day * DAY_US + minute * MINUTE_US);
        }
    }
    let symbol: ArrayRef = if layout.number_keys {
        Arc::new(Int64Array::from_iter_values(symbols.iter().map(|symbol| 100_000 + symbol)))
    } else {
        Arc::new(StringArray::from_iter_values(symbols.iter().map(|symbol| key(layout, *symbol))))
    };
    let price =
        |scale: i64| Arc::new(Float64Array::from_iter_values(times.iter().map(|time| (time / scale % 997) as f64 / 8.0))) as ArrayRef;
    let prices = [("open", price(3)), ("high", price(5)), ("low", price(7)), ("close", price(11))];
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    RecordBatch::try_from_iter([("symbol", symbol), ("ts", ts)].into_iter().chain(prices)).unwrap()
}

fn writer(path: &Path, layout: &Layout, batch: &RecordBatch) -> ArrowWriter<File> {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(layout.dictionary)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap()
}

/// Writes days until there are so many rows; returns the days and the rows.
fn write(root: &Path, layout: &Layout, start_us: i64, rows_wanted: i64, keys: i64) -> (i64, u64) {
    let mut rows = 0;
    let mut number = 0;
    let mut one: Option<ArrowWriter<File>> = None;
    while rows < u64::try_from(rows_wanted).unwrap() {
        let batch = day(layout, start_us, number, keys);
        rows += batch.num_rows() as u64;
        if layout.file_a_day {
            let date = Timestamp::from_microsecond(start_us + number * DAY_US).unwrap().to_string();
            let mut writer = writer(&root.join(format!("bars/date={}/0.parquet", &date[..10])), layout, &batch);
            writer.write(&batch).unwrap();
            writer.close().unwrap();
        } else {
            one.get_or_insert_with(|| writer(&root.join("bars/0.parquet"), layout, &batch)).write(&batch).unwrap();
        }
        number += 1;
    }
    if let Some(writer) = one {
        writer.close().unwrap();
    }
    (number, rows)
}

fn rate(rows: u64, took: Duration) -> String {
    format!("{:.1} M rows/s", rows as f64 / took.as_secs_f64() / 1e6)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (rows_wanted, keys) = (setting("ROWS", 5_000_000), setting("KEYS", 500));
    let start_us = "2018-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_microsecond();
    for layout in LAYOUTS {
        let folder = tempfile::tempdir().unwrap();
        let (days, rows) = write(folder.path(), &layout, start_us, rows_wanted, keys);
        let lake = LocalLake::open(folder.path()).unwrap();
        let table = bars(&layout);
        let first = start_us / MINUTE_US;
        let request = PresenceRequest::new(
            SlotRange::new(first, first + days * 1_440),
            (0..keys).map(|number| Key::from(key(&layout, number).as_str())).collect(),
            Timestamp::UNIX_EPOCH,
        );
        let mut took = Duration::MAX;
        forget_peak();
        let before_mb = status_mb("VmRSS");
        let mut scanned = 0;
        for _ in 0..3 {
            let begun = Instant::now();
            let presence = lake.presence(&table, &request).await.unwrap();
            took = took.min(begun.elapsed());
            assert_eq!(presence.raw.keys.values().map(|key| key.present.count()).sum::<u64>(), rows);
            scanned = presence.usage.bytes_scanned;
        }
        println!(
            "{:<24} {rows} rows in {:>4} ms: {}; {} MB scanned; {before_mb} MB before, {} MB at most",
            layout.name,
            took.as_millis(),
            rate(rows, took),
            scanned >> 20,
            status_mb("VmHWM"),
        );
        let scan = ScanRequest::new(Layer::Repaired);
        let begun = Instant::now();
        let mut stream = lake.scan(&table, &scan).await.unwrap();
        let mut seen = 0;
        while let Some(batch) = stream.next().await {
            seen += batch.unwrap().num_rows() as u64;
        }
        assert_eq!(seen, rows);
        println!("{:<24} a scan of all: {}; {} MB at most", "", rate(rows, begun.elapsed()), status_mb("VmHWM"));
    }
}
