//! How much, how fast, in how much memory. Run by hand: `cargo test --release -p repair-local --test scale -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test that fails, panics")]

mod common;

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use common::*;
use futures::StreamExt;
use repair_core::engine::{Event, Journal};
use repair_core::lake::{Lake, Layer, ScanRequest};
use repair_core::model::{Interval, Key, PartitionUnit, Table};
use repair_local::SqliteJournal;

/// The most memory this process has had, in MB, where Linux says so.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// 500 symbols, 90 days of 1,000 minutes, every 1,009th row missing; a file a day, sorted by time or by symbol.
fn write(world: &World, table: &Table, by_time: bool) -> u64 {
    let start = us("2018-01-01T00:00:00Z");
    let symbols: Vec<String> = (0..500).map(|number| format!("SYM{number:03}")).collect();
    let mut rows = 0;
    for day in 0..90i64 {
        let mut batch: (Vec<&str>, Vec<i64>) = (Vec::new(), Vec::new());
        for outer in 0..500_000usize {
            let (symbol, minute) = if by_time { (outer % 500, outer / 500) } else { (outer / 1_000, outer % 1_000) };
            if (outer + usize::try_from(day).unwrap()) % 1_009 != 0 {
                batch.0.push(&symbols[symbol]);
                batch.1.push(start + day * 86_400_000_000 + i64::try_from(minute).unwrap() * 60_000_000);
            }
        }
        rows += batch.0.len() as u64;
        let close: ArrayRef =
            Arc::new(Float64Array::from_iter_values(batch.1.iter().map(|time| f64::from(i32::try_from(time % 997).unwrap()))));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(batch.1).with_timezone("UTC"));
        let columns = [("symbol", Arc::new(StringArray::from(batch.0)) as ArrayRef), ("ts", times), ("close", close)];
        let date = partition_of(PartitionUnit::Day, start + day * 86_400_000_000);
        write_parquet(
            &world.root().join(format!("{}/date={date}/0.parquet", table.location)),
            &RecordBatch::try_from_iter(columns).unwrap(),
            1_000_000,
        );
    }
    rows
}

#[tokio::test]
#[ignore = "writes 45 million rows"]
async fn presence_of_45_million_rows_takes_seconds_and_little_memory() {
    for by_time in [false, true] {
        let world = World::new();
        let table = Table { partition_by: by(PartitionUnit::Day), ..bars() };
        let rows = write(&world, &table, by_time);
        let mut request = whole(&table, "2018-01-01", "2018-03-31", &[]);
        request.keys = (0..500).map(|number| Key::from(format!("SYM{number:03}").as_str())).collect();
        let before = peak_mb();
        let begun = Instant::now();
        let presence = world.lake.presence(&table, &request).await.unwrap();
        let took = begun.elapsed();
        assert_eq!(presence.raw.keys.values().map(|key| key.present.count()).sum::<u64>(), rows);
        eprintln!(
            "by time: {by_time}; {rows} rows in {took:?}; {} MB scanned; peak before {before} MB, after {} MB",
            presence.usage.bytes_scanned >> 20,
            peak_mb()
        );
        let begun = Instant::now();
        let request = ScanRequest { interval: Some(Interval::parse("2018-01-01", "2018-01-20").unwrap()), ..all(Layer::Repaired) };
        let mut scan = world.lake.scan(&table, &request).await.unwrap();
        let mut seen = 0;
        while let Some(batch) = scan.next().await {
            seen += batch.unwrap().num_rows();
        }
        eprintln!("  a scan of {seen} rows took {:?}", begun.elapsed());
    }
}

#[tokio::test]
#[ignore = "measures"]
async fn appends_share_their_flushes() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(SqliteJournal::open(folder.path().join("runs.db")).unwrap());
    for writers in [1u64, 64] {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    for sequence in 0..200 {
                        let event = Event::StepEntered { step: "step".into(), visit: 1 };
                        journal.append(&format!("{writers}-{writer}"), sequence, at("2018-04-04T00:00:00Z"), &[event]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        eprintln!("{writers} writers: {:?} for {} appends", begun.elapsed(), writers * 200);
    }
}
