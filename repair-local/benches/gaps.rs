//! How fast all gaps of a lake are found, and in how much memory: `cargo bench -p repair-local --bench gaps`.
//!
//! Writes minute bars of the sessions of XNYS in 2024 as Parquet, a file a day, of which one in eleven is missing. Then, in turns, each in a
//! process of its own: a run of the engine with one `gaps` step, and the limit, a bare program that decodes key and time, sets a bit for each
//! minute and writes the gaps as Parquet. It is given the sessions. Both must find what was left out. The ratios of the medians are printed.
//!
//! `SYMBOLS` says how many symbols (500 if it is not set), `DAYS` how many sessions (252), `ROUNDS` how often (5). `LAYOUT` is `day`, `month`
//! for a file a month by time, or `file` for one file by time. `LAKE` is a folder in which the lake stays for the next time.
//!
//! With `TASK=hourly` the run has a second step, which makes hourly bars of all that it found, a file a day. The limit then decodes key, time and the
//! five columns, folds them by key and hour, and writes them as one file; it finds no gaps. Both must have seen all rows, and as many hours.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement that fails, panics"
)]

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use repair_core::engine::{Engine, StartRequest};
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;
use repair_local::{LocalLake, SqliteJournal};
use serde_json::{Value, json};

const MINUTE_US: i64 = 60_000_000;
const MISSING: f64 = 1.0 / 11.0;
const ROW_GROUP: usize = 1_000_000;
/// Rows that the limit decodes at a time.
const BATCH_ROWS: usize = 65_536;

/// A session: its date, when it opens, and how many minutes it takes.
struct Session {
    date: String,
    open_us: i64,
    minutes: usize,
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn symbol(number: usize) -> String {
    format!("SYM{number:04}")
}

fn sessions(days: usize) -> Vec<Session> {
    let calendar = repair_stocks::calendar::calendar("XNYS").unwrap();
    let all = calendar.sessions("2024-01-01".parse().unwrap(), "2024-12-31".parse().unwrap()).unwrap();
    let session = |session: &repair_core::model::Session| {
        let (open_us, close_us) = (session.hours.from().as_microsecond(), session.hours.to().as_microsecond());
        Session { date: session.date.to_string(), open_us, minutes: usize::try_from((close_us - open_us) / MINUTE_US).unwrap() }
    };
    all.iter().take(days).map(session).collect()
}

/// Writes the lake; returns how many rows are missing, and in how many gaps.
fn write(root: &Path, sessions: &[Session], symbols: usize, layout: &str) -> (u64, u64) {
    let mut random = SmallRng::seed_from_u64(7);
    let mut prices: Vec<f64> = (0..symbols).map(|_| random.random_range(10.0..400.0)).collect();
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..symbols).map(symbol)));
    let (mut missing, mut gaps) = (0, 0);
    let mut open: Option<(String, ArrowWriter<File>)> = None;
    for session in sessions {
        let (mut codes, mut times) = (Vec::new(), Vec::new());
        let mut columns: [Vec<f64>; 4] = Default::default();
        let mut volumes = Vec::new();
        for (number, price) in prices.iter_mut().enumerate() {
            let mut in_gap = false;
            for minute in 0..session.minutes {
                let is_missing = random.random_bool(MISSING);
                let before = *price;
                *price *= 1.0 + random.random_range(-4e-4..4e-4);
                if is_missing {
                    missing += 1;
                    gaps += u64::from(!in_gap);
                } else {
                    codes.push(i32::try_from(number).unwrap());
                    times.push(session.open_us + i64::try_from(minute).unwrap() * MINUTE_US);
                    let (high, low) = (
                        before.max(*price) * (1.0 + random.random_range(0.0..2e-4)),
                        before.min(*price) * (1.0 - random.random_range(0.0..2e-4)),
                    );
                    for (column, value) in columns.iter_mut().zip([before, high, low, *price]) {
                        column.push((value * 100.0).round() / 100.0);
                    }
                    volumes.push(random.random_range(1..20_000));
                }
                in_gap = is_missing;
            }
        }
        let key = DictionaryArray::<Int32Type>::try_new(Int32Array::from(codes), names.clone()).unwrap();
        let time = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let [opens, highs, lows, closes] = columns.map(|column| Arc::new(Float64Array::from(column)) as ArrayRef);
        let batch = RecordBatch::try_from_iter([
            ("symbol", Arc::new(key) as ArrayRef),
            ("ts", Arc::new(time)),
            ("open", opens),
            ("high", highs),
            ("low", lows),
            ("close", closes),
            ("volume", Arc::new(Int64Array::from(volumes))),
        ])
        .unwrap();
        let name = match layout {
            "month" => format!("bars/month={}/bars.parquet", &session.date[..7]),
            "file" => "bars/bars.parquet".to_owned(),
            _ => format!("bars/date={}/bars.parquet", session.date),
        };
        if open.as_ref().is_none_or(|(known, _)| *known != name) {
            open.take().map(|(_, writer)| writer.close().unwrap());
            let path = root.join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(Default::default()))
                .set_max_row_group_row_count(Some(ROW_GROUP))
                .build();
            open = Some((name, ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap()));
        }
        open.as_mut().unwrap().1.write(&batch).unwrap();
    }
    open.take().map(|(_, writer)| writer.close().unwrap());
    (missing, gaps)
}

/// A run of the engine with one `gaps` step; returns how many slots are missing, and in how many gaps. Or with a step for hourly bars, too; returns how
/// many bars they are made of, and how many hours there are.
fn ours(root: &Path, sessions: &[Session], symbols: usize, layout: &str, is_hourly: bool) -> (u64, u64) {
    let (first, last) = (&sessions[0].date, &sessions[sessions.len() - 1].date);
    let keys: Vec<String> = (0..symbols).map(symbol).collect();
    let partition = match layout {
        "month" => ", partition_by: [{ month: month }]",
        "file" => "",
        _ => ", partition_by: [{ date: day }]",
    };
    let text = format!(
        "workflow: bench\nkind: state-machine\ntables: {{ bars: {{ location: bars, format: parquet, key: [symbol], time: ts, cadence: 1m{partition} }} }}\n\
         start: look\nsteps:\n  look: {{ detect: gaps, with: {{ table: bars, calendar: XNYS, from: {first}, to: {last}, keys: {} }}, {} }}\n{}",
        serde_json::to_string(&keys).unwrap(),
        if is_hourly { "next: [{ goto: hours }]" } else { "end: true" },
        if is_hourly {
            "  hours: { aggregate: stocks.hourly-bars, of: look, with: { table: bars, into: hourly }, end: true }\n"
        } else {
            ""
        },
    );
    let hours = root.join("hourly");
    let _ = std::fs::remove_dir_all(&hours);
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    let registry = Arc::new(registry);
    let workflow = Workflow::parse("bench.yaml", &text, &registry).unwrap_or_else(|error| panic!("{error}"));
    let own = tempfile::tempdir_in(root).unwrap();
    let journal = Arc::new(SqliteJournal::open(own.path().join("journal.db")).unwrap());
    let engine = Engine::new(registry, Arc::new(LocalLake::open(root).unwrap()), journal);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let run = format!("bench-{}", std::process::id());
    let request = StartRequest::new(&run).with_environment(json!({}));
    let report =
        runtime.block_on(async move { tokio::spawn(async move { engine.start(&workflow, request).await }).await }).unwrap().unwrap();
    // There are gaps, and nothing repairs them.
    assert_eq!(report.outcome.map(|outcome| outcome.as_str()), Some("succeeded-with-exceptions"), "{:?}", report.problems);
    let _ = std::fs::remove_dir_all(&hours);
    if is_hourly {
        let output: &Value = &report.step("hours").unwrap().output;
        return (output["observed"].as_u64().unwrap(), output["hours"].as_u64().unwrap());
    }
    let output: &Value = &report.step("look").unwrap().output;
    (output["missing"].as_u64().unwrap(), output["gaps"].as_u64().unwrap())
}

/// The gaps of one file, by number of its symbols.
struct Found {
    names: Vec<String>,
    gaps: Vec<(usize, i64, i64)>,
    session: usize,
}

/// Decodes key and time of the file of a session, and finds its gaps.
fn limit_of(path: &Path, session: usize, open_us: i64, minutes: usize) -> Found {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().with_batch_size(BATCH_ROWS);
    let mask = ProjectionMask::columns(reader.parquet_schema(), ["symbol", "ts"]);
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let (mut names, mut bits): (Vec<String>, Vec<u8>) = Default::default();
    for batch in reader.with_projection(mask).build().unwrap() {
        let batch = batch.unwrap();
        let keys = batch.column(0).as_dictionary::<Int32Type>();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let number = |name: Option<&str>| {
            let name = name.unwrap();
            *numbers.entry(name.to_owned()).or_insert_with(|| {
                names.push(name.to_owned());
                names.len() - 1
            })
        };
        let number_of: Vec<usize> = keys.values().as_string::<i32>().iter().map(number).collect();
        bits.resize(names.len() * minutes, 0);
        for (code, time_us) in keys.keys().values().iter().zip(times.values()) {
            let minute = usize::try_from((time_us - open_us) / MINUTE_US).unwrap();
            if minute < minutes {
                bits[number_of[usize::try_from(*code).unwrap()] * minutes + minute] = 1;
            }
        }
    }
    let mut gaps = Vec::new();
    let at = |minute: usize| open_us + i64::try_from(minute).unwrap() * MINUTE_US;
    for number in 0..names.len() {
        let row = &bits[number * minutes..(number + 1) * minutes];
        let mut minute = 0;
        while minute < minutes {
            let first = minute;
            while minute < minutes && row[minute] == 0 {
                minute += 1;
            }
            if minute > first {
                gaps.push((number, at(first), at(minute)));
            }
            minute += 1;
        }
    }
    Found { names, gaps, session }
}

/// The limit: no checks, no journal, and a lake of which everything is known.
fn limit(root: &Path, sessions: &[Session]) -> (u64, u64) {
    let files: Vec<PathBuf> = sessions.iter().map(|session| root.join(format!("bars/date={}/bars.parquet", session.date))).collect();
    let next = AtomicUsize::new(0);
    let out = tempfile::NamedTempFile::new_in(root).unwrap();
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields =
        vec![Field::new("symbol", DataType::Utf8, false), Field::new("start", time.clone(), false), Field::new("end", time, false)];
    let schema = Arc::new(Schema::new(fields));
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let mut writer = ArrowWriter::try_new(out.as_file(), schema.clone(), Some(properties)).unwrap();
    let (mut missing, mut count) = (0, 0);
    let mut emit = |names: &[String], gaps: &[(usize, i64, i64)]| {
        count += gaps.len() as u64;
        missing += gaps.iter().map(|gap| u64::try_from((gap.2 - gap.1) / MINUTE_US).unwrap()).sum::<u64>();
        let start = TimestampMicrosecondArray::from_iter_values(gaps.iter().map(|gap| gap.1)).with_timezone("UTC");
        let end = TimestampMicrosecondArray::from_iter_values(gaps.iter().map(|gap| gap.2)).with_timezone("UTC");
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(gaps.iter().map(|gap| &names[gap.0])));
        writer.write(&RecordBatch::try_new(schema.clone(), vec![names, Arc::new(start), Arc::new(end)]).unwrap()).unwrap();
    };
    let mut seen: HashMap<String, Vec<bool>> = HashMap::new();
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(8);
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (sender, next, files) = (sender.clone(), &next, &files);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = files.get(at) else { break };
                    sender.send(limit_of(path, at, sessions[at].open_us, sessions[at].minutes)).unwrap();
                }
            });
        }
        drop(sender);
        for found in receiver {
            emit(&found.names, &found.gaps);
            for name in found.names {
                seen.entry(name).or_insert_with(|| vec![false; sessions.len()])[found.session] = true;
            }
        }
    });
    for (name, days) in &seen {
        let whole = |session: &Session| (0, session.open_us, session.open_us + i64::try_from(session.minutes).unwrap() * MINUTE_US);
        let gaps: Vec<_> = days.iter().zip(sessions).filter(|(seen, _)| !**seen).map(|(_, session)| whole(session)).collect();
        if !gaps.is_empty() {
            emit(std::slice::from_ref(name), &gaps);
        }
    }
    writer.close().unwrap();
    (missing, count)
}

/// An hour of a symbol.
#[derive(Clone, Copy, Default)]
struct Bar {
    rows: u64,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: i64,
}

const HOUR_US: i64 = 3_600_000_000;

/// Decodes the file of a session, and folds its rows by symbol and hour.
fn hours_of(path: &Path, session: &Session) -> (Vec<String>, Vec<Bar>, i64) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().with_batch_size(BATCH_ROWS);
    let first = session.open_us.div_euclid(HOUR_US);
    let hours = (session.open_us + i64::try_from(session.minutes).unwrap() * MINUTE_US - 1).div_euclid(HOUR_US) - first + 1;
    let hours = usize::try_from(hours).unwrap();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let (mut names, mut bars): (Vec<String>, Vec<Bar>) = Default::default();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let keys = batch.column(0).as_dictionary::<Int32Type>();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
        let number = |name: Option<&str>| {
            let name = name.unwrap();
            *numbers.entry(name.to_owned()).or_insert_with(|| {
                names.push(name.to_owned());
                names.len() - 1
            })
        };
        let number_of: Vec<usize> = keys.values().as_string::<i32>().iter().map(number).collect();
        bars.resize(names.len() * hours, Bar::default());
        let [opens, highs, lows, closes] = [2, 3, 4, 5].map(|at| batch.column(at).as_primitive::<Float64Type>().values());
        let volumes = batch.column(6).as_primitive::<Int64Type>().values();
        let codes = keys.keys().values();
        let (mut row, rows) = (0, batch.num_rows());
        while row < rows {
            let (code, hour) = (codes[row], times[row].div_euclid(HOUR_US));
            let to_us = (hour + 1) * HOUR_US;
            let end = (row + 1..rows).find(|&next| codes[next] != code || times[next] >= to_us).unwrap_or(rows);
            let at = number_of[usize::try_from(code).unwrap()] * hours + usize::try_from(hour - first).unwrap();
            let bar = &mut bars[at];
            if bar.rows == 0 {
                (bar.open, bar.high, bar.low) = (opens[row], f64::NEG_INFINITY, f64::INFINITY);
            }
            bar.high = highs[row..end].iter().fold(bar.high, |high, next| if *next > high { *next } else { high });
            bar.low = lows[row..end].iter().fold(bar.low, |low, next| if *next < low { *next } else { low });
            bar.close = closes[end - 1];
            bar.volume += volumes[row..end].iter().sum::<i64>();
            bar.rows += (end - row) as u64;
            row = end;
        }
    }
    (names, bars, first)
}

/// The limit for hourly bars: rows are in order, and nothing is repaired.
fn hourly_limit(root: &Path, sessions: &[Session]) -> (u64, u64) {
    let files: Vec<PathBuf> = sessions.iter().map(|session| root.join(format!("bars/date={}/bars.parquet", session.date))).collect();
    let next = AtomicUsize::new(0);
    let out = tempfile::NamedTempFile::new_in(root).unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let mut writer: Option<ArrowWriter<&File>> = None;
    let (mut rows, mut count) = (0, 0);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(8);
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (sender, next, files) = (sender.clone(), &next, &files);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = files.get(at) else { break };
                    sender.send(hours_of(path, &sessions[at])).unwrap();
                }
            });
        }
        drop(sender);
        for (names, bars, first) in receiver {
            let hours = bars.len() / names.len().max(1);
            let kept: Vec<(usize, Bar)> = bars.into_iter().enumerate().filter(|(_, bar)| bar.rows > 0).collect();
            rows += kept.iter().map(|(_, bar)| bar.rows).sum::<u64>();
            count += kept.len() as u64;
            let symbols: ArrayRef = Arc::new(StringArray::from_iter_values(kept.iter().map(|(at, _)| &names[at / hours])));
            let times = kept.iter().map(|(at, _)| (first + i64::try_from(at % hours).unwrap()) * HOUR_US);
            let floats = |of: fn(&Bar) -> f64| Arc::new(Float64Array::from_iter_values(kept.iter().map(|(_, bar)| of(bar)))) as ArrayRef;
            let batch = RecordBatch::try_from_iter([
                ("symbol", symbols),
                ("hour", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
                ("open", floats(|bar| bar.open)),
                ("high", floats(|bar| bar.high)),
                ("low", floats(|bar| bar.low)),
                ("close", floats(|bar| bar.close)),
                ("volume", Arc::new(Int64Array::from_iter_values(kept.iter().map(|(_, bar)| bar.volume)))),
            ])
            .unwrap();
            let new = || ArrowWriter::try_new(out.as_file(), batch.schema(), Some(properties.clone())).unwrap();
            writer.get_or_insert_with(new).write(&batch).unwrap();
        }
    });
    writer.map(|writer| writer.close().unwrap());
    (rows, count)
}

/// How many rows there are, and how many hours, of which each has a row.
fn hours(sessions: &[Session], symbols: usize, missing: u64) -> (u64, u64) {
    let minutes: usize = sessions.iter().map(|session| session.minutes).sum();
    let of = |session: &Session| {
        let close_us = session.open_us + i64::try_from(session.minutes).unwrap() * MINUTE_US;
        u64::try_from((close_us - 1).div_euclid(HOUR_US) - session.open_us.div_euclid(HOUR_US) + 1).unwrap()
    };
    ((minutes * symbols) as u64 - missing, sessions.iter().map(of).sum::<u64>() * symbols as u64)
}

/// What this process has used so far: seconds of processors, and the most memory, in MiB.
fn used() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may contain spaces: user and system time are the 12th and 13th fields, in hundredths of a second.
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let ticks = fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default();
    (ticks / 100.0, kib / 1_024.0)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Runs one of the two in a process of its own; returns wall time, time of processors, memory, missing slots and gaps.
fn apart(task: &str, root: &Path) -> ([f64; 3], (u64, u64)) {
    let begun = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap()).env("GAPS_TASK", task).env("LAKE", root).output().unwrap();
    let wall = begun.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let value: Value = serde_json::from_str(text.trim()).unwrap();
    let number = |name: &str| value[name].as_f64().unwrap();
    ([wall, number("cpu_s"), number("peak_mib")], (value["missing"].as_u64().unwrap(), value["gaps"].as_u64().unwrap()))
}

fn main() {
    let (symbols, days, rounds) = (setting("SYMBOLS", 500), setting("DAYS", 252), setting("ROUNDS", 5));
    let layout = std::env::var("LAYOUT").unwrap_or_else(|_| "day".to_owned());
    let is_hourly = std::env::var("TASK").is_ok_and(|task| task == "hourly");
    let sessions = sessions(days);
    let kept = std::env::var_os("LAKE").map(PathBuf::from);
    if let (Ok(task), Some(root)) = (std::env::var("GAPS_TASK"), &kept) {
        let (missing, gaps) = match (task.as_str(), is_hourly) {
            ("limit", false) => limit(root, &sessions),
            ("limit", true) => hourly_limit(root, &sessions),
            _ => ours(root, &sessions, symbols, &layout, is_hourly),
        };
        let (cpu_s, peak_mib) = used();
        println!("{}", json!({ "missing": missing, "gaps": gaps, "cpu_s": cpu_s, "peak_mib": peak_mib }));
        return;
    }
    let own = tempfile::tempdir().unwrap();
    let root = kept.unwrap_or_else(|| own.path().to_owned());
    let truth = root.join(format!("truth-{symbols}-{days}-{layout}.json"));
    let expected: (u64, u64) = match std::fs::read(&truth) {
        Ok(known) => serde_json::from_slice(&known).unwrap(),
        Err(_) => {
            assert!(!root.join("bars").exists(), "{} holds another lake", root.display());
            let expected = write(&root, &sessions, symbols, &layout);
            std::fs::write(&truth, serde_json::to_vec(&expected).unwrap()).unwrap();
            expected
        }
    };
    println!("{symbols} symbols, {} sessions, layout `{layout}`: {} rows missing in {} gaps", sessions.len(), expected.0, expected.1);
    let expected = if is_hourly { hours(&sessions, symbols, expected.0) } else { expected };
    let tasks: &[&str] = if layout == "day" { &["ours", "limit"] } else { &["ours"] };
    let mut all: Vec<Vec<[f64; 3]>> = vec![Vec::new(); tasks.len()];
    for _ in 0..rounds {
        for (task, all) in tasks.iter().zip(&mut all) {
            let (figures, found) = apart(task, &root);
            assert_eq!(found, expected, "{task} does not find what was left out");
            all.push(figures);
        }
    }
    let medians: Vec<[f64; 3]> =
        all.iter().map(|all| [0, 1, 2].map(|at| median(all.iter().map(|figures| figures[at]).collect()))).collect();
    for (task, [wall, cpu, peak]) in tasks.iter().zip(&medians) {
        println!("{task:<6} {wall:>7.2} s  {cpu:>7.2} s of processors  {peak:>7.0} MiB");
    }
    if let [ours, limit] = medians.as_slice() {
        println!("ratio  {:>7.2}    {:>7.2}                  {:>7.1}", ours[0] / limit[0], ours[1] / limit[1], ours[2] / limit[2]);
    }
}
