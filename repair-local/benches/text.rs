//! How fast text files are read: `cargo bench -p repair-local --bench text`.
//!
//! Writes minute bars as CSV and as JSON lines, a file a day, and times one presence and one scan of all of them. For CSV, it times in turn
//! what presence cannot be faster than: a bare loop over the `csv` crate on as many threads, which knows the columns, the keys and the form
//! of the time, and checks nothing. `ROWS` says how many rows (1,000,000 if it is not set).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement that fails, panics")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
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
        Format::Csv => {
            writeln!(text, "SYM{symbol:04},2018-01-{:02}T{hour:02}:{minute_of_hour:02}:00Z,{price}.25,{price}.5,{price},{minute}", day + 1)
        }
        _ => writeln!(
            text,
            "{{\"symbol\":\"SYM{symbol:04}\",\"ts\":\"2018-01-{:02}T{hour:02}:{minute_of_hour:02}:00Z\",\"open\":{price}.25,\"high\":{price}.5,\"volume\":{minute}}}",
            day + 1
        ),
    };
}

/// The minutes of a day.
const MINUTES: usize = 1_440;

/// Reads key and time of each row, and sets a bit for each slot; how many are set.
fn bare(files: &[PathBuf], keys: &HashMap<Vec<u8>, usize>, days: usize) -> u64 {
    let next = AtomicUsize::new(0);
    let work = || {
        let words = days * MINUTES / 64 + 1;
        let mut bits = vec![0u64; keys.len() * words];
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut reader = csv::ReaderBuilder::new().buffer_capacity(1 << 18).from_path(file).unwrap();
            let mut record = csv::ByteRecord::new();
            while reader.read_byte_record(&mut record).unwrap() {
                let (key, time) = (keys[&record[0]], &record[1]);
                let two = |at: usize| usize::from(time[at] - b'0') * 10 + usize::from(time[at + 1] - b'0');
                let slot = (two(8) - 1) * MINUTES + two(11) * 60 + two(14);
                bits[key * words + slot / 64] |= 1 << (slot % 64);
            }
        }
        bits
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).reduce(|mut all, more| {
            all.iter_mut().zip(more).for_each(|(bits, more)| *bits |= more);
            all
        })
    });
    all.unwrap().iter().map(|bits| u64::from(bits.count_ones())).sum()
}

/// The time of a processor that this process has taken; where it is not known, no time.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold spaces.
    let fields: Vec<u64> = stat.rsplit(')').next().unwrap().split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // In hundredths of a second: of the process, and of the system for it.
    Duration::from_millis(10 * fields.iter().skip(11).take(2).sum::<u64>())
}

fn main() {
    let wanted: i64 = std::env::var("ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let days = (wanted / (KEYS * MINUTES_A_DAY)).clamp(1, 28);
    let symbols = (wanted / (days * MINUTES_A_DAY)).max(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (format, name) in [(Format::Csv, "csv"), (Format::Jsonl, "jsonl")] {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = 0;
        let mut files = Vec::new();
        for day in 0..days {
            let mut text = if format == Format::Csv { "symbol,ts,open,high,low,volume\n".to_owned() } else { String::new() };
            (0..symbols).for_each(|symbol| (0..MINUTES_A_DAY).for_each(|minute| line(format, symbol, day, minute, &mut text)));
            bytes += text.len();
            let file = folder.path().join(format!("bars/date=2018-01-{:02}/0.{name}", day + 1));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, text).unwrap();
            files.push(file);
        }
        let rows = days * symbols * MINUTES_A_DAY;
        let lake = LocalLake::open(folder.path()).unwrap();
        let table =
            Table::new("bars", format, "ts").with_key(["symbol"]).with_partition("date", PartitionUnit::Day).with_cadence(Cadence::MINUTE);
        let interval = repair_core::model::Interval::parse("2018-01-01", &format!("2018-01-{days:02}")).unwrap();
        let symbols: Vec<String> = (0..symbols).map(|symbol| format!("SYM{symbol:04}")).collect();
        let keys = symbols.iter().map(|symbol| Key::from(symbol.as_str())).collect();
        let request = PresenceRequest::new(table.grid().unwrap().slots_in(&interval), keys, jiff::Timestamp::UNIX_EPOCH);
        let known: HashMap<Vec<u8>, usize> = symbols.iter().map(|symbol| symbol.clone().into_bytes()).zip(0..).collect();
        let presence = || {
            let presence = runtime.block_on(lake.presence(&table, &request)).unwrap();
            assert_eq!(i64::try_from(presence.raw.keys.values().map(|key| key.present.count()).sum::<u64>()).unwrap(), rows);
        };
        let scan = || {
            let seen = runtime.block_on(async {
                let mut stream = lake.scan(&table, &ScanRequest::new(Layer::Raw)).await.unwrap();
                let mut seen = 0;
                while let Some(batch) = stream.next().await {
                    seen += batch.unwrap().num_rows();
                }
                seen
            });
            assert_eq!(i64::try_from(seen).unwrap(), rows);
        };
        let bare = || assert_eq!(i64::try_from(bare(&files, &known, usize::try_from(days).unwrap())).unwrap(), rows);
        // In turn, because a shared machine varies in speed.
        let mut least = [Duration::MAX; 3];
        let mut processors = [Duration::ZERO; 3];
        let tasks: [&dyn Fn(); 3] = [&presence, &scan, &bare];
        // What the columns are is found out once, and remembered.
        scan();
        for _ in 0..TIMES {
            for ((least, all), task) in least.iter_mut().zip(&mut processors).zip(tasks).take(if format == Format::Csv { 3 } else { 2 }) {
                let (begun, before) = (Instant::now(), processor());
                task();
                *least = begun.elapsed().min(*least);
                *all += processor() - before;
            }
        }
        let rate = |took: Duration| {
            format!("{:.2} M rows/s, {:.0} MB/s", rows as f64 / took.as_secs_f64() / 1e6, bytes as f64 / took.as_secs_f64() / 1e6)
        };
        let [presence, scan, bare] = least;
        println!("{name:<6} {rows} rows: presence {}; scan {}", rate(presence), rate(scan));
        let of_row = |all: Duration| all.as_secs_f64() * 1e9 / rows as f64 / f64::from(TIMES);
        let [presence_of_row, scan_of_row, bare_of_row] = processors.map(of_row);
        println!("{name:<6} time of a processor for each row: presence {presence_of_row:.0} ns; scan {scan_of_row:.0} ns");
        if format == Format::Csv {
            let ratio = presence.as_secs_f64() / bare.as_secs_f64();
            println!("{name:<6} a bare loop: {}, {bare_of_row:.0} ns of a processor", rate(bare));
            println!("{name:<6} presence takes {ratio:.2} times as long, {:.2} of a processor", presence_of_row / bare_of_row);
        }
    }
}
