//! What a table of many small files costs: `cargo bench -p repair-local --bench files`.
//!
//! Writes `FILES` small Parquet files (20,000 if it is not set) in folders of 70 days, and times what a repair does with them beside a bare program
//! that lists the folders, opens each file and reads its footer. `UNITS` says how many units there are for each day (4).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement that fails, panics")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::TryStreamExt;
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use repair_core::lake::{Layer, Overlay, PresenceRequest, ReadLake, ScanRequest, StageRequest, StageScope};
use repair_core::model::{Cadence, Fix, Format, Interval, Key, PartitionUnit, SlotRange, Table};
use repair_local::LocalLake;

const DAYS: usize = 70;
const DAY_US: i64 = 86_400_000_000;
const MINUTE_US: i64 = 60_000_000;
/// Rows of a file: minutes in a row.
const ROWS: i64 = 5;
/// After this time, another write of a file surely shows.
const SETTLES: Duration = Duration::from_secs(4);

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn rows(start_us: i64, symbol: &str, first: i64) -> RecordBatch {
    let times: Vec<i64> = (first..first + ROWS).map(|minute| start_us + minute * MINUTE_US).collect();
    let symbols: ArrayRef = Arc::new(StringArray::from_iter_values(times.iter().map(|_| symbol)));
    let closes: ArrayRef = Arc::new(Float64Array::from_iter_values(times.iter().map(|time| (time % 997) as f64)));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    RecordBatch::try_from_iter([("symbol", symbols), ("ts", times), ("close", closes)]).unwrap()
}

fn date(start_us: i64) -> String {
    Timestamp::from_microsecond(start_us).unwrap().to_string()[..10].to_owned()
}

fn write(path: &Path, batch: &RecordBatch) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// Lists all folders, opens each file, and reads its footer.
fn bare(folder: &Path) -> usize {
    let mut rows = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if fs::metadata(entry.path()).unwrap().is_dir() {
            rows += bare(&entry.path());
        } else {
            let file = File::open(entry.path()).unwrap();
            let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).unwrap();
            rows += usize::try_from(footer.metadata().file_metadata().num_rows()).unwrap();
        }
    }
    rows
}

fn say(what: &str, took: Duration, floor: Duration) {
    println!("{what:<60} {:>8.0} ms  {:>6.2}", took.as_secs_f64() * 1e3, took.as_secs_f64() / floor.as_secs_f64());
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (files, units) = (setting("FILES", 20_000), setting("UNITS", 4));
    let start_us = "2024-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_microsecond();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Something of ours is in the lake, as after a run.
    fs::create_dir_all(root.join(".repair")).unwrap();
    let table = Table::new("bars", Format::Parquet, "ts")
        .with_key(["symbol"])
        .with_cadence(Cadence::MINUTE)
        .with_partition("date", PartitionUnit::Day);
    let starts: Vec<i64> = (0..DAYS).map(|day| start_us + i64::try_from(day).unwrap() * DAY_US).collect();
    for number in 0..files {
        let start_us = starts[number % DAYS];
        let nth = i64::try_from(number / DAYS).unwrap();
        let path = root.join(format!("bars/date={}/{nth}.parquet", date(start_us)));
        write(&path, &rows(start_us, &format!("S{}", nth / 200), nth % 200 * (ROWS + 1)));
    }
    std::thread::sleep(SETTLES);
    bare(&root.join("bars"));
    let begun = Instant::now();
    let all = bare(&root.join("bars"));
    let floor = begun.elapsed();
    println!("{files} files in {DAYS} folders, {all} rows");
    say("a bare program lists the folders and opens each file", floor, floor);

    let lake = LocalLake::open(root).unwrap();
    let begun = Instant::now();
    lake.describe(&table).await.unwrap();
    say("columns of the table", begun.elapsed(), floor);
    let keys: Vec<Key> = (0..=files / DAYS / 200).map(|key| Key::from(format!("S{key}").as_str())).collect();
    let first = start_us / MINUTE_US;
    let request = PresenceRequest::new(SlotRange::new(first, first + i64::try_from(DAYS).unwrap() * 1_440), keys, Timestamp::UNIX_EPOCH);
    let begun = Instant::now();
    let presence = lake.presence(&table, &request).await.unwrap();
    say("presence, of which nothing is known", begun.elapsed(), floor);
    assert_eq!(presence.raw.keys.values().map(|key| key.present.count()).sum::<u64>(), all as u64);

    let scope = StageScope { run: "run", step: "fill", visit: 1, table: &table };
    let (mut scanned, mut staged, mut names) = (Duration::ZERO, Duration::ZERO, Vec::new());
    for (number, start_us) in starts.iter().cycle().take(DAYS * units).enumerate() {
        let day = date(*start_us);
        let scan = ScanRequest::new(Layer::Repaired).in_interval(Interval::parse(&day, &day).unwrap()).with_columns(Vec::new());
        let begun = Instant::now();
        let seen: Vec<RecordBatch> = lake.scan(&table, &scan).await.unwrap().try_collect().await.unwrap();
        scanned += begun.elapsed();
        assert!(!seen.is_empty());
        let fix = Fix { rows: vec![rows(*start_us, &format!("N{}", number / DAYS), 0)], source: "market".into(), ..Fix::default() };
        let unit = format!("unit-{number}");
        let begun = Instant::now();
        lake.stage(&scope, &StageRequest::new(&unit, "backfill", Timestamp::UNIX_EPOCH, &fix)).await.unwrap();
        staged += begun.elapsed();
        names.push(unit);
    }
    say(&format!("{} units each scan their day", names.len()), scanned, floor);
    say("  of one pass over all days", scanned / u32::try_from(units).unwrap(), floor);
    say(&format!("{} units are staged", names.len()), staged, floor);
    let begun = Instant::now();
    lake.publish(&scope, 0, &names).await.unwrap();
    say("published", begun.elapsed(), floor);

    let again = LocalLake::open(root).unwrap();
    let begun = Instant::now();
    again.describe(&table).await.unwrap();
    say("columns of the table, in a later process", begun.elapsed(), floor);
    let begun = Instant::now();
    let known = again.presence(&table, &request).await.unwrap();
    say("presence, in a later process", begun.elapsed(), floor);
    assert_eq!((known.raw, known.usage.rows_read > 0), (presence.raw, true), "the overlay is read");
    let kept: u64 = fs::read_dir(root.join(".repair/presence")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    println!("{} kB are kept", kept >> 10);
}
