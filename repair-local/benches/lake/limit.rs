//! The limits: programs that know all about the lake, check nothing, and keep no journal.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::generate::{HOUR_US, MINUTE_US, Session};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 65_536;

/// The files of a lake with a file a session.
fn files(root: &Path, sessions: &[Session], format: &str) -> Vec<PathBuf> {
    sessions.iter().map(|session| root.join(format!("bars/date={}/bars.{format}", session.date))).collect()
}

/// Does something with each file, on all processors, and hands over what comes of it, in any order.
fn each_file<T: Send>(files: &[PathBuf], work: &(dyn Fn(usize, &Path) -> T + Sync), mut each: impl FnMut(T)) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(8);
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = files.get(at) else { break };
                    sender.send(work(at, path)).unwrap();
                }
            });
        }
        drop(sender);
        receiver.into_iter().for_each(&mut each);
    });
}

/// Lists the files below a folder, and asks for the size and time of each; returns how many there are. If `is_read`, each is opened and read.
pub(super) fn listing(folder: &Path, is_read: bool) -> (u64, u64) {
    let (mut count, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = listing(&entry.path(), is_read);
            (count, bytes) = (count + below.0, bytes + below.1);
        } else {
            count += 1;
            bytes += if is_read { std::fs::read(entry.path()).unwrap().len() as u64 } else { entry.metadata().unwrap().len() };
        }
    }
    (count, bytes)
}

/// The gaps of one file, by number of its symbols.
struct Found {
    names: Vec<String>,
    gaps: Vec<(usize, i64, i64)>,
    session: usize,
}

/// A bit for each minute of a session and symbol, as a byte.
struct Minutes<'a> {
    session: &'a Session,
    numbers: HashMap<Vec<u8>, usize>,
    names: Vec<String>,
    bits: Vec<u8>,
}

impl<'a> Minutes<'a> {
    fn of(session: &'a Session) -> Self {
        Self { session, numbers: HashMap::new(), names: Vec::new(), bits: Vec::new() }
    }

    fn number(&mut self, name: &[u8]) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.numbers.insert(name.to_owned(), self.names.len());
        self.names.push(String::from_utf8(name.to_owned()).unwrap());
        self.bits.resize(self.names.len() * self.session.minutes, 0);
        self.names.len() - 1
    }

    fn gaps(self, session: usize) -> Found {
        let (minutes, mut gaps) = (self.session.minutes, Vec::new());
        let at = |minute: usize| self.session.open_us + i64::try_from(minute).unwrap() * MINUTE_US;
        for number in 0..self.names.len() {
            let row = &self.bits[number * minutes..(number + 1) * minutes];
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
        Found { names: self.names, gaps, session }
    }
}

/// Decodes key and time of the file of a session, and finds its gaps.
fn limit_of(path: &Path, number: usize, session: &Session) -> Found {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().with_batch_size(BATCH_ROWS);
    let mask = ProjectionMask::columns(reader.parquet_schema(), ["symbol", "ts"]);
    let mut found = Minutes::of(session);
    for batch in reader.with_projection(mask).build().unwrap() {
        let batch = batch.unwrap();
        let keys = batch.column(0).as_dictionary::<Int32Type>();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let number_of: Vec<usize> = keys.values().as_string::<i32>().iter().map(|name| found.number(name.unwrap().as_bytes())).collect();
        for (code, time_us) in keys.keys().values().iter().zip(times.values()) {
            let minute = usize::try_from((time_us - session.open_us) / MINUTE_US).unwrap();
            if minute < session.minutes {
                found.bits[number_of[usize::try_from(*code).unwrap()] * session.minutes + minute] = 1;
            }
        }
    }
    found.gaps(number)
}

/// The same of a file of CSV, of which the form of the time and its day are known.
fn limit_of_csv(path: &Path, number: usize, session: &Session) -> Found {
    let mut reader = csv::ReaderBuilder::new().buffer_capacity(1 << 20).from_path(path).unwrap();
    let open = usize::try_from(session.open_us.div_euclid(MINUTE_US).rem_euclid(1_440)).unwrap();
    let (mut found, mut record) = (Minutes::of(session), csv::ByteRecord::new());
    let (mut last, mut first) = (Vec::new(), 0);
    while reader.read_byte_record(&mut record).unwrap() {
        if record[0] != last[..] {
            last.clear();
            last.extend_from_slice(&record[0]);
            first = found.number(&last) * session.minutes;
        }
        let time = &record[1];
        let two = |at: usize| usize::from(time[at] - b'0') * 10 + usize::from(time[at + 1] - b'0');
        if let Some(minute) = (two(11) * 60 + two(14)).checked_sub(open).filter(|minute| *minute < session.minutes) {
            found.bits[first + minute] = 1;
        }
    }
    found.gaps(number)
}

/// The limit: no checks, no journal, and a lake of which everything is known.
pub(super) fn gaps(root: &Path, sessions: &[Session], format: &str) -> (u64, u64) {
    let files = files(root, sessions, format);
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
    let find = |at: usize, path: &Path| if format == "csv" { limit_of_csv } else { limit_of }(path, at, &sessions[at]);
    each_file(&files, &find, |found| {
        emit(&found.names, &found.gaps);
        for name in found.names {
            seen.entry(name).or_insert_with(|| vec![false; sessions.len()])[found.session] = true;
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
pub(super) fn hourly(root: &Path, sessions: &[Session]) -> (u64, u64) {
    let files = files(root, sessions, "parquet");
    let out = tempfile::NamedTempFile::new_in(root).unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let mut writer: Option<ArrowWriter<&File>> = None;
    let (mut rows, mut count) = (0, 0);
    each_file(&files, &|at, path: &Path| hours_of(path, &sessions[at]), |(names, bars, first)| {
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
    });
    writer.map(|writer| writer.close().unwrap());
    (rows, count)
}
