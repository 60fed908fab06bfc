//! How fast text files are read: `cargo bench -p repair-local --bench text`.
//!
//! Writes minute bars as CSV and as JSON lines, a file a day, and times one presence and one scan of all of them. `ROWS` says how many rows
//! (1,000,000 if it is not set).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement that fails, panics")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures::StreamExt;
use repair_core::lake::{Layer, PresenceRequest, ReadLake, ScanRequest};
use repair_core::model::{Cadence, Format, Key, PartitionUnit, Table};
use repair_local::LocalLake;

const KEYS: i64 = 50;
const MINUTES_A_DAY: i64 = 1_000;
const TIMES: u32 = 5;

fn line(format: Format, symbol: i64, day: i64, minute: i64, text: &mut String) {
    let (hour, minute_of_hour, price) = (minute / 60, minute % 60, (symbol * 7 + minute) % 997);
    let _ = match format {
        Format::Csv => writeln!(text, "SYM{symbol:04},2018-01-{:02}T{hour:02}:{minute_of_hour:02}:00Z,{price}.25,{price}.5,{price},{minute}", day + 1),
        _ => writeln!(
            text,
            "{{\"symbol\":\"SYM{symbol:04}\",\"ts\":\"2018-01-{:02}T{hour:02}:{minute_of_hour:02}:00Z\",\"open\":{price}.25,\"high\":{price}.5,\"volume\":{minute}}}",
            day + 1
        ),
    };
}

fn best(mut measured: impl FnMut() -> Duration) -> Duration {
    (0..TIMES).map(|_| measured()).min().unwrap_or_default()
}

fn main() {
    let wanted: i64 = std::env::var("ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let days = (wanted / (KEYS * MINUTES_A_DAY)).clamp(1, 28);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (format, name) in [(Format::Csv, "csv"), (Format::Jsonl, "jsonl")] {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = 0;
        for day in 0..days {
            let mut text = if format == Format::Csv { "symbol,ts,open,high,low,volume\n".to_owned() } else { String::new() };
            (0..KEYS).for_each(|symbol| (0..MINUTES_A_DAY).for_each(|minute| line(format, symbol, day, minute, &mut text)));
            bytes += text.len();
            let file = folder.path().join(format!("bars/date=2018-01-{:02}/0.{name}", day + 1));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let rows = days * KEYS * MINUTES_A_DAY;
        let lake = LocalLake::open(folder.path()).unwrap();
        let table = Table::new("bars", format, "ts").with_key(["symbol"]).with_partition("date", PartitionUnit::Day).with_cadence(Cadence::MINUTE);
        let interval = repair_core::model::Interval::parse("2018-01-01", &format!("2018-01-{days:02}")).unwrap();
        let keys = (0..KEYS).map(|symbol| Key::from(format!("SYM{symbol:04}").as_str())).collect();
        let request = PresenceRequest::new(table.grid().unwrap().slots_in(&interval), keys, jiff::Timestamp::UNIX_EPOCH);
        let presence = best(|| {
            let begun = Instant::now();
            let presence = runtime.block_on(lake.presence(&table, &request)).unwrap();
            assert_eq!(i64::try_from(presence.raw.keys.values().map(|key| key.present.count()).sum::<u64>()).unwrap(), rows);
            begun.elapsed()
        });
        let scan = best(|| {
            let begun = Instant::now();
            let seen = runtime.block_on(async {
                let mut stream = lake.scan(&table, &ScanRequest::new(Layer::Raw)).await.unwrap();
                let mut seen = 0;
                while let Some(batch) = stream.next().await {
                    seen += batch.unwrap().num_rows();
                }
                seen
            });
            assert_eq!(i64::try_from(seen).unwrap(), rows);
            begun.elapsed()
        });
        let rate = |took: Duration| format!("{:.2} M rows/s, {:.0} MB/s", rows as f64 / took.as_secs_f64() / 1e6, bytes as f64 / took.as_secs_f64() / 1e6);
        println!("{name:<6} {rows} rows: presence {}; scan {}", rate(presence), rate(scan));
    }
}
