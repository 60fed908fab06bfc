//! Builders of small lakes, and the slow, obvious way to count what they hold.
#![allow(dead_code, unreachable_pub, clippy::panic, clippy::unwrap_used, reason = "each test uses some of it, and what fails, panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use futures::StreamExt;
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use repair_core::Result;
use repair_core::lake::{BatchStream, Layer, Overlay, PresenceRequest, ScanRequest, StageRequest, StageScope, overlay};
use repair_core::model::{Absence, Cadence, Fix, Format, Interval, Key, Partition, PartitionUnit, SlotRange, Table, TimeMark};
use repair_local::LocalLake;
use tempfile::TempDir;

pub struct World {
    pub folder: TempDir,
    pub lake: LocalLake,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = LocalLake::open(folder.path()).unwrap();
        Self { folder, lake }
    }

    pub fn root(&self) -> &Path {
        self.lake.root()
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Every file below a folder, hidden ones too, by its path there, with its bytes.
pub fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let own = |path: PathBuf| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    testdata::files(folder).into_iter().map(|(path, bytes)| (own(path), bytes)).collect()
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn bars() -> Table {
    Table {
        name: "bars".into(),
        location: "bars".into(),
        format: Format::Parquet,
        partition_by: vec![],
        key: vec!["symbol".into()],
        time: "ts".into(),
        time_marks: TimeMark::Start,
        cadence: Some(Cadence::MINUTE),
        ..Table::implicit("bars", "ts")
    }
}

pub fn by(unit: PartitionUnit) -> Vec<Partition> {
    vec![Partition { column: "date".into(), unit }]
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn us(text: &str) -> i64 {
    at(text).as_microsecond()
}

#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub struct Row {
    pub symbol: String,
    pub time_us: i64,
    pub close: Option<f64>,
}

pub fn row(symbol: &str, time: &str, close: f64) -> Row {
    Row { symbol: symbol.into(), time_us: us(time), close: Some(close) }
}

/// Rows in the shape of batches.
pub fn batch(rows: &[Row]) -> RecordBatch {
    let symbols = StringArray::from_iter_values(rows.iter().map(|row| row.symbol.as_str()));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time_us)).with_timezone("UTC");
    let closes = Float64Array::from_iter(rows.iter().map(|row| row.close));
    let fields = vec![
        Field::new("symbol", DataType::Utf8, false),
        Field::new("ts", overlay::instant_type(), false),
        Field::new("close", DataType::Float64, true),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(symbols), Arc::new(times), Arc::new(closes)]).unwrap()
}

/// How a writer may store the same rows in Parquet.
#[derive(Debug, Clone)]
pub struct Stored {
    pub key: DataType,
    pub time: DataType,
    pub row_group: usize,
}

impl Default for Stored {
    fn default() -> Self {
        Self { key: DataType::Utf8, time: DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), row_group: 1_000 }
    }
}

pub fn stored_keys() -> Vec<DataType> {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    vec![DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary]
}

pub fn stored_times() -> Vec<DataType> {
    let zone = || Some("UTC".into());
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    vec![DataType::Timestamp(TimeUnit::Microsecond, zone()), micros, DataType::Timestamp(TimeUnit::Nanosecond, zone())]
}

pub fn write_parquet(path: &Path, batch: &RecordBatch, row_group: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(row_group)).build();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn stored_batch(rows: &[Row], stored: &Stored) -> RecordBatch {
    let plain = batch(rows);
    let columns: Vec<ArrayRef> =
        vec![cast(plain.column(0), &stored.key).unwrap(), cast(plain.column(1), &stored.time).unwrap(), plain.column(2).clone()];
    RecordBatch::try_from_iter(["symbol", "ts", "close"].into_iter().zip(columns)).unwrap()
}

/// The partition of a time, as its name, by means of our own.
pub fn partition_of(unit: PartitionUnit, time_us: i64) -> String {
    let text = Timestamp::from_microsecond(time_us).unwrap().to_string();
    match unit {
        PartitionUnit::Year => text[..4].to_owned(),
        PartitionUnit::Month => text[..7].to_owned(),
        PartitionUnit::Day => text[..10].to_owned(),
        PartitionUnit::Hour => text[..13].replace('T', "-"),
    }
}

/// The rows of a batch by the folder of their partition.
pub fn by_partition(table: &Table, batch: &RecordBatch) -> BTreeMap<String, RecordBatch> {
    let times = batch.column_by_name(&table.time).unwrap().as_primitive::<TimestampMicrosecondType>();
    let folders: Vec<String> = times
        .values()
        .iter()
        .map(|&time_us| {
            table.partition_by.first().map_or_else(String::new, |by| format!("{}={}", by.column, partition_of(by.unit, time_us)))
        })
        .collect();
    let distinct: BTreeSet<&String> = folders.iter().collect();
    let rows = |folder: &String| {
        let mask: arrow::array::BooleanArray = folders.iter().map(|other| Some(other == folder)).collect();
        arrow::compute::filter_record_batch(batch, &mask).unwrap()
    };
    distinct.into_iter().map(|folder| (folder.clone(), rows(folder))).collect()
}

/// Writes the table's rows, dealt out to so many files of each partition.
pub fn write_table(root: &Path, table: &Table, rows: &[Row], files: usize, stored: &Stored) {
    let mut parts: BTreeMap<PathBuf, Vec<Row>> = BTreeMap::new();
    let folder = root.join(&table.location);
    fs::create_dir_all(&folder).unwrap();
    for (number, row) in rows.iter().enumerate() {
        let folder = match table.partition_by.first() {
            Some(by) => folder.join(format!("{}={}", by.column, partition_of(by.unit, row.time_us))),
            None => folder.clone(),
        };
        parts.entry(folder.join(format!("{}.{}", number % files, table.format.endings()[0]))).or_default().push(row.clone());
    }
    for (path, rows) in parts {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let time = |row: &Row| Timestamp::from_microsecond(row.time_us).unwrap().to_string();
        let close = |row: &Row| row.close.map(|close| format!("{close:?}"));
        match table.format {
            Format::Parquet => write_parquet(&path, &stored_batch(&rows, stored), stored.row_group),
            Format::Csv => {
                let lines: Vec<String> =
                    rows.iter().map(|row| format!("\"{}\",{},{}\n", row.symbol, time(row), close(row).unwrap_or_default())).collect();
                fs::write(&path, format!("symbol,ts,close\n{}", lines.concat())).unwrap();
            }
            Format::Jsonl => {
                let lines: Vec<String> = rows
                    .iter()
                    .map(|row| {
                        let close = close(row).unwrap_or("null".into());
                        format!("{{\"close\": {close}, \"symbol\": \"{}\", \"ts\": \"{}\"}}\n", row.symbol, time(row))
                    })
                    .collect();
                fs::write(&path, lines.concat()).unwrap();
            }
            other => panic!("no tables of {other:?} in tests"),
        }
    }
}

pub fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

pub fn whole(table: &Table, from: &str, to: &str, names: &[&str]) -> PresenceRequest {
    let slots = table.grid().unwrap().slots_in(&Interval::parse(from, to).unwrap());
    let keys = if table.key.is_empty() { vec![Key::default()] } else { keys(names) };
    PresenceRequest::new(slots, keys, at("2030-01-01T00:00:00Z"))
}

pub async fn collect(mut stream: BatchStream) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(batch?);
    }
    Ok(batches)
}

pub fn all(layer: Layer) -> ScanRequest {
    ScanRequest::new(layer)
}

/// A row of a scan: the row, and who repaired it.
pub type Seen = (Row, Option<String>);

pub fn seen(batches: &[RecordBatch]) -> Vec<Seen> {
    let mut rows = Vec::new();
    for batch in batches {
        let symbols = batch.column_by_name("symbol").unwrap().as_string::<i32>();
        let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
        // A column of CSV that holds nothing yet is text.
        let closes = batch.column_by_name("close").map(|column| cast(column, &DataType::Float64).unwrap());
        let closes = closes.as_ref().map(|column| column.as_primitive::<arrow::datatypes::Float64Type>());
        let repaired = batch.column_by_name(overlay::REPAIRED_BY).map(|column| column.as_string::<i32>());
        for at in 0..batch.num_rows() {
            let text = |column: &StringArray| arrow::array::Array::is_valid(column, at).then(|| column.value(at).to_owned());
            let close = closes.and_then(|closes| arrow::array::Array::is_valid(closes, at).then(|| closes.value(at)));
            rows.push((Row { symbol: symbols.value(at).to_owned(), time_us: times.value(at), close }, repaired.and_then(text)));
        }
    }
    rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
    rows
}

/// What a presence is, said the slow way: by key, slot and number of rows; then rows of other keys, then misaligned rows.
pub type Counted = (BTreeMap<(String, i64), u32>, u64, u64);

pub fn count(table: &Table, rows: &[Row], slots: SlotRange, wanted: &[Key]) -> Counted {
    let grid = table.grid().unwrap();
    let wanted: BTreeSet<String> = wanted.iter().map(|key| key.to_string()).collect();
    let (mut present, mut other, mut misaligned) = (BTreeMap::new(), 0, 0);
    for row in rows {
        let time = Timestamp::from_microsecond(row.time_us).unwrap();
        let slot = grid.slot_of(time);
        if !slots.contains(slot) {
            continue;
        }
        if !wanted.contains(&row.symbol) {
            other += 1;
            continue;
        }
        match grid.slot_of_row(row.time_us) {
            Some(_) => *present.entry((row.symbol.clone(), slot)).or_default() += 1,
            None => misaligned += 1,
        }
    }
    (present, other, misaligned)
}

/// The same as a lake says it: slots, rows by key and word, rows of other keys, misaligned rows.
pub type Said = (BTreeSet<(String, i64)>, BTreeMap<String, Vec<u32>>, u64, u64);

/// The same, of what the lake says: rows are known by word, so only slots that are alone in a word tell theirs.
pub fn counted(presence: &repair_core::model::Presence) -> Said {
    let slots = presence.keys.iter().flat_map(|(key, one)| one.present.iter().map(move |slot| (key.to_string(), slot))).collect();
    let rows = presence.keys.iter().map(|(key, one)| (key.to_string(), one.rows.clone())).collect();
    (slots, rows, presence.other_rows, presence.misaligned_rows)
}

/// What a lake must say of counted rows.
pub fn as_presence(table: &Table, counted: &Counted, slots: SlotRange, wanted: &[Key]) -> Said {
    let cadence = table.cadence.unwrap();
    let per_word = i64::from(cadence.slots_per_word());
    let words = |slots: SlotRange| (slots.end - 1).div_euclid(per_word) - slots.first.div_euclid(per_word) + 1;
    let length = if slots.is_empty() { 0 } else { usize::try_from(words(slots)).unwrap() };
    let mut rows: BTreeMap<String, Vec<u32>> = wanted.iter().map(|key| (key.to_string(), vec![0; length])).collect();
    for ((symbol, slot), count) in &counted.0 {
        let word = usize::try_from(slot.div_euclid(per_word) - slots.first.div_euclid(per_word)).unwrap();
        rows.get_mut(symbol).unwrap()[word] += count;
    }
    (counted.0.keys().cloned().collect(), rows, counted.1, counted.2)
}

pub fn scope<'a>(table: &'a Table, run: &'a str) -> StageScope<'a> {
    StageScope { run, step: "fill", visit: 1, table }
}

pub fn fix(rows: &[Row], absent: Vec<Absence>) -> Fix {
    let rows = if rows.is_empty() { vec![] } else { vec![batch(rows)] };
    Fix { rows, absent, source: "market".into(), ..Fix::default() }
}

pub fn absence(symbol: &str, slots: SlotRange, recheck: &str) -> Absence {
    Absence {
        key: Key::from(symbol),
        slots,
        source: "market".into(),
        asked_at: at("2018-05-01T00:00:00Z"),
        answer: "no trades".into(),
        recheck_after: at(recheck),
    }
}

pub fn request<'a>(unit: &'a str, fix: &'a Fix) -> StageRequest<'a> {
    StageRequest::new(unit, "backfill", at("2018-05-01T00:00:00Z"), fix)
}

/// Stages one unit and publishes it as batch 0.
pub async fn repair(lake: &LocalLake, table: &Table, run: &str, rows: &[Row], absent: Vec<Absence>) {
    let fix = fix(rows, absent);
    let scope = scope(table, run);
    lake.stage(&scope, &request("unit", &fix)).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
}

/// A repair as another engine may have written it, with any op and time.
pub fn write_repair(path: &Path, rows: &[(Row, &str, i64, &str, &str)]) {
    let plain = batch(&rows.iter().map(|(row, ..)| row.clone()).collect::<Vec<_>>());
    let text = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("symbol", plain.column(0).clone()),
        ("ts", plain.column(1).clone()),
        ("close", plain.column(2).clone()),
        (overlay::columns::OP, text(rows.iter().map(|(_, op, ..)| *op).collect())),
        (overlay::columns::RUN, text(rows.iter().map(|(_, _, _, run, _)| *run).collect())),
        (overlay::columns::STEP, text(rows.iter().map(|_| "fill").collect())),
        (overlay::columns::UNIT, text(rows.iter().map(|(_, _, _, _, unit)| *unit).collect())),
        (overlay::columns::STRATEGY, text(rows.iter().map(|(_, _, _, run, _)| *run).collect())),
        (overlay::columns::SOURCE, text(rows.iter().map(|_| "market").collect())),
    ];
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, _, time, ..)| *time)).with_timezone("UTC");
    columns.push((overlay::columns::AT, Arc::new(times)));
    write_parquet(path, &RecordBatch::try_from_iter(columns).unwrap(), 1_000);
}
