//! Lakes of which it is known what is missing.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub(super) const MINUTE_US: i64 = 60_000_000;
pub(super) const HOUR_US: i64 = 60 * MINUTE_US;

const MISSING: f64 = 1.0 / 11.0;
const ROW_GROUP: usize = 1_000_000;
const HOURS_A_DAY: usize = 24;

/// A session: its date, when it opens, and how many minutes it takes.
pub(super) struct Session {
    pub(super) date: String,
    pub(super) open_us: i64,
    pub(super) minutes: usize,
}

/// The first sessions of XNYS in 2024.
pub(super) fn sessions(days: usize) -> Vec<Session> {
    let calendar = repair_stocks::calendar::calendar("XNYS").unwrap();
    let all = calendar.sessions("2024-01-01".parse().unwrap(), "2024-12-31".parse().unwrap()).unwrap();
    let session = |session: &repair_core::model::Session| {
        let (open_us, close_us) = (session.hours.from().as_microsecond(), session.hours.to().as_microsecond());
        Session { date: session.date.to_string(), open_us, minutes: usize::try_from((close_us - open_us) / MINUTE_US).unwrap() }
    };
    all.iter().take(days).map(session).collect()
}

pub(super) fn symbol(number: usize) -> String {
    format!("SYM{number:04}")
}

/// How many rows a lake has, how many are missing, and in how many gaps.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(super) struct Truth {
    pub(super) rows: u64,
    pub(super) missing: u64,
    pub(super) gaps: u64,
}

/// Where the files of a lake lie, and what they are.
pub(super) struct Shape<'a> {
    /// `day`, `month` for a file a month, or `file` for one file.
    pub(super) layout: &'a str,
    /// Whether they are CSV, not Parquet.
    pub(super) is_csv: bool,
    /// Whether all rows, those included that are missing, are in a second folder, `archive`.
    pub(super) has_archive: bool,
}

/// A file that is being written, with all the rows that go into it.
struct Open {
    path: PathBuf,
    writer: Writer,
}

enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Csv(BufWriter<File>),
}

impl Open {
    fn new(path: PathBuf, batch: &RecordBatch, is_csv: bool) -> Self {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        let writer = if is_csv {
            let mut out = BufWriter::new(file);
            out.write_all(b"symbol,ts,open,high,low,close,volume\n").unwrap();
            Writer::Csv(out)
        } else {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(Default::default()))
                .set_max_row_group_row_count(Some(ROW_GROUP))
                .build();
            Writer::Parquet(Box::new(ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap()))
        };
        Self { path, writer }
    }

    fn write(&mut self, batch: &RecordBatch) {
        match &mut self.writer {
            Writer::Parquet(writer) => writer.write(batch).unwrap(),
            Writer::Csv(out) => {
                let keys = batch.column(0).as_dictionary::<Int32Type>();
                let names = keys.values().as_string::<i32>();
                let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
                let prices = [2, 3, 4, 5].map(|at| batch.column(at).as_primitive::<Float64Type>().values());
                let volumes = batch.column(6).as_primitive::<Int64Type>().values();
                for row in 0..batch.num_rows() {
                    let name = names.value(usize::try_from(keys.keys().value(row)).unwrap());
                    let [open, high, low, close] = prices.map(|of| of[row]);
                    let time = Timestamp::from_microsecond(times[row]).unwrap();
                    writeln!(out, "{name},{time},{open},{high},{low},{close},{}", volumes[row]).unwrap();
                }
            }
        }
    }

    fn close(self) {
        match self.writer {
            Writer::Parquet(writer) => {
                writer.close().unwrap();
            }
            Writer::Csv(mut out) => out.flush().unwrap(),
        }
    }
}

/// One of the folders of a lake.
#[derive(Default)]
struct Folder(Option<Open>);

impl Folder {
    fn write(&mut self, path: PathBuf, batch: &RecordBatch, is_csv: bool) {
        if self.0.as_ref().is_none_or(|open| open.path != path) {
            self.close();
            self.0 = Some(Open::new(path, batch, is_csv));
        }
        if let Some(open) = &mut self.0 {
            open.write(batch);
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.0.take() {
            open.close();
        }
    }
}

/// Writes minute bars, of which one in eleven is missing.
pub(super) fn write(root: &Path, sessions: &[Session], symbols: usize, shape: &Shape<'_>) -> Truth {
    let mut random = SmallRng::seed_from_u64(7);
    let mut prices: Vec<f64> = (0..symbols).map(|_| random.random_range(10.0..400.0)).collect();
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..symbols).map(symbol)));
    let mut truth = Truth { rows: 0, missing: 0, gaps: 0 };
    let (mut bars, mut archive) = (Folder::default(), Folder::default());
    for session in sessions {
        let (mut codes, mut times, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut columns: [Vec<f64>; 4] = Default::default();
        let mut volumes = Vec::new();
        for (number, price) in prices.iter_mut().enumerate() {
            let mut in_gap = false;
            for minute in 0..session.minutes {
                let is_missing = random.random_bool(MISSING);
                let before = *price;
                *price *= 1.0 + random.random_range(-4e-4..4e-4);
                truth.rows += u64::from(!is_missing);
                truth.missing += u64::from(is_missing);
                truth.gaps += u64::from(is_missing && !in_gap);
                kept.push(!is_missing);
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
                in_gap = is_missing;
            }
        }
        let key = DictionaryArray::<Int32Type>::try_new(Int32Array::from(codes), names.clone()).unwrap();
        let time = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let [opens, highs, lows, closes] = columns.map(|column| Arc::new(Float64Array::from(column)) as ArrayRef);
        let all = RecordBatch::try_from_iter([
            ("symbol", Arc::new(key) as ArrayRef),
            ("ts", Arc::new(time)),
            ("open", opens),
            ("high", highs),
            ("low", lows),
            ("close", closes),
            ("volume", Arc::new(Int64Array::from(volumes))),
        ])
        .unwrap();
        let ending = if shape.is_csv { "csv" } else { "parquet" };
        let name = match shape.layout {
            "month" => format!("bars/month={}/bars.{ending}", &session.date[..7]),
            "file" => format!("bars/bars.{ending}"),
            _ => format!("bars/date={}/bars.{ending}", session.date),
        };
        bars.write(root.join(name), &filter_record_batch(&all, &BooleanArray::from(kept)).unwrap(), shape.is_csv);
        if shape.has_archive {
            archive.write(root.join(format!("archive/date={}/bars.parquet", session.date)), &all, false);
        }
    }
    bars.close();
    archive.close();
    let mut known = File::create(root.join("sessions.csv")).unwrap();
    writeln!(known, "date,open_us,minutes").unwrap();
    for session in sessions {
        writeln!(known, "{},{},{}", session.date, session.open_us, session.minutes).unwrap();
    }
    truth
}

/// The day of a lake of small files, counted from 2024-01-01.
pub(super) fn date(day: usize) -> String {
    (jiff::civil::date(2024, 1, 1) + jiff::Span::new().days(i64::try_from(day).unwrap())).to_string()
}

/// Writes hourly rows as CSV, a file for each key and day, of which one row in eleven is missing, and all rows as an archive, a file a day.
pub(super) fn write_small_files(root: &Path, days: usize, keys: usize) -> Truth {
    let mut random = SmallRng::seed_from_u64(11);
    let mut truth = Truth { rows: 0, missing: 0, gaps: 0 };
    let mut in_gap = vec![false; keys];
    for day in 0..days {
        let date = date(day);
        let folder = root.join(format!("bars/date={date}"));
        std::fs::create_dir_all(&folder).unwrap();
        let archive = root.join(format!("archive/date={date}/all.csv"));
        std::fs::create_dir_all(archive.parent().unwrap()).unwrap();
        let mut archive = BufWriter::new(File::create(archive).unwrap());
        archive.write_all(b"symbol,ts,value\n").unwrap();
        for (key, in_gap) in in_gap.iter_mut().enumerate() {
            let mut text = String::from("symbol,ts,value\n");
            for hour in 0..HOURS_A_DAY {
                let line = format!("{},{date}T{hour:02}:00:00Z,{}\n", symbol(key), random.random_range(0..1_000));
                archive.write_all(line.as_bytes()).unwrap();
                let is_missing = random.random_bool(MISSING);
                truth.rows += u64::from(!is_missing);
                truth.missing += u64::from(is_missing);
                truth.gaps += u64::from(is_missing && !*in_gap);
                *in_gap = is_missing;
                if !is_missing {
                    text.push_str(&line);
                }
            }
            std::fs::write(folder.join(format!("{}.csv", symbol(key))), text).unwrap();
        }
        archive.flush().unwrap();
    }
    truth
}
