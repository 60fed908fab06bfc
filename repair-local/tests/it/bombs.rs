//! Small files that hold much: whatever they claim, reading takes bounded memory, and ends with the rows or an error.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test that fails, panics")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};
use repair_core::lake::{Layer, ReadLake, ScanRequest};
use repair_core::model::{Format, Table};
use repair_local::LocalLake;

use crate::common::*;

const FOLDER: &str = "REPAIR_TEST_BOMB";

/// What reading a table with a bomb in it may take, with the program itself.
const MOST_MB: u64 = 700;

/// Reads a table in a process of its own: the number of its rows and the bytes of its texts, or an error; and the memory that took.
fn read(world: &World, format: Format) -> (Result<(usize, usize), String>, u64) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["bombs::reads_what_it_is_given", "--exact", "--ignored", "--nocapture"]);
    let output = command.env(FOLDER, world.root()).env("REPAIR_TEST_FORMAT", format.as_str()).env("RUST_BACKTRACE", "0").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let word = |name: &str| said.lines().find_map(|line| Some(line.split_once(name)?.1.to_owned()));
    let peak: u64 = word("peak: ").unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr))).parse().unwrap();
    let numbers = |line: String| {
        let (rows, bytes) = line.split_once(' ').unwrap();
        (rows.parse().unwrap(), bytes.parse().unwrap())
    };
    (word("rows: ").map(numbers).ok_or_else(|| word("error: ").unwrap()), peak)
}

#[test]
#[ignore = "the other tests of this file run it, in a process of its own"]
fn reads_what_it_is_given() {
    let named = std::env::var("REPAIR_TEST_FORMAT").unwrap();
    let format = [Format::Csv, Format::Jsonl, Format::Parquet].into_iter().find(|format| format.as_str() == named).unwrap();
    let lake = LocalLake::open(std::env::var_os(FOLDER).unwrap()).unwrap();
    let table = Table { format, ..bars() };
    let done = runtime().block_on(async {
        lake.presence(&table, &whole(&table, "2018-04-04", "2018-04-04", &["A"])).await?;
        let mut batches = lake.scan(&table, &all(Layer::Raw)).await?;
        let (mut rows, mut bytes) = (0, 0);
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
            let notes = cast(batch.column_by_name("note").unwrap(), &DataType::Utf8)?;
            bytes += notes.as_string::<i32>().iter().flatten().map(str::len).sum::<usize>();
        }
        Ok::<_, repair_core::Error>((rows, bytes))
    });
    match done {
        Ok((rows, bytes)) => println!("\nrows: {rows} {bytes}"),
        Err(error) => println!("\nerror: {}", error.full().replace('\n', " ")),
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("\npeak: {}", peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024);
}

/// Rows of one symbol, some minutes apart, with a note each.
fn noted(notes: ArrayRef) -> RecordBatch {
    let start = us("2018-04-04T00:00:00Z");
    let rows = i64::try_from(notes.len()).unwrap();
    let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|row| start + row % 1_440 * 60_000_000)).with_timezone("UTC");
    let symbols = StringArray::from(vec!["A"; notes.len()]);
    RecordBatch::try_from_iter([("symbol", Arc::new(symbols) as ArrayRef), ("ts", Arc::new(times)), ("note", notes)]).unwrap()
}

fn write(path: &Path, batch: &RecordBatch, properties: WriterProperties) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(File::create(path).unwrap(), batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn zstd() -> parquet::file::properties::WriterPropertiesBuilder {
    let none = parquet::file::properties::EnabledStatistics::None;
    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).set_statistics_enabled(none)
}

/// A file whose one long value is in each of many rows: real files look like this, with shorter values.
#[test]
fn a_long_value_in_each_row_of_a_small_file_is_read_in_small_batches() {
    let world = World::new();
    let (rows, long) = (1_000, 1_000_000);
    let notes = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0; rows]), Arc::new(StringArray::from(vec!["x".repeat(long)])));
    let path = world.root().join("bars/bomb.parquet");
    write(&path, &noted(Arc::new(notes)), zstd().set_dictionary_page_size_limit(2 << 20).build());
    assert!(std::fs::metadata(&path).unwrap().len() < 65_536);
    let (read, peak_mb) = read(&world, Format::Parquet);
    assert_eq!(read, Ok((rows, rows * long)));
    assert!(peak_mb < MOST_MB, "{peak_mb} MB");
}

#[test]
fn long_values_of_a_small_file_are_read_one_by_one_and_what_is_too_long_is_refused() {
    for (rows, long, fits) in [(8, 100_000_000, true), (1, 300_000_000, false)] {
        let world = World::new();
        let path = world.root().join("bars/bomb.parquet");
        let notes = StringArray::from_iter_values((0..rows).map(|_| "x".repeat(long)));
        write(
            &path,
            &noted(Arc::new(notes)),
            zstd().set_dictionary_enabled(false).set_data_page_size_limit(1_000).set_write_batch_size(1).build(),
        );
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 18);
        let (read, peak_mb) = read(&world, Format::Parquet);
        match read {
            Ok(read) => assert!(fits && read == (rows, rows * long), "{read:?}"),
            Err(said) => {
                assert!(!fits, "{said}");
                for words in
                    ["bomb.parquet", "a page of column `note`", "would take 286 MiB of memory", "write it again with smaller pages"]
                {
                    assert!(said.contains(words), "{said}");
                }
            }
        }
        assert!(peak_mb < MOST_MB + 300, "{peak_mb} MB");
    }
}

/// Lengths that are stored as differences are looked at before they are decoded, however pages are written.
#[test]
fn lengths_that_are_differences_are_understood() {
    let properties = || WriterProperties::builder().set_dictionary_enabled(false).set_data_page_row_count_limit(700);
    for encoding in [Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY] {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
                for rows in [1, 2, 33, 129, 1_000] {
                    let world = World::new();
                    let notes: StringArray = (0..rows)
                        .map(|row| (row % 7 != 3 && rows != 2).then(|| format!("a note of row {}{}", row * row, "x".repeat(row % 50))))
                        .collect();
                    let bytes: usize = notes.iter().flatten().map(str::len).sum();
                    let properties =
                        properties().set_column_encoding("note".into(), encoding).set_writer_version(version).set_compression(compression);
                    write(&world.root().join("bars/a.parquet"), &noted(Arc::new(notes)), properties.build());
                    let table = Table::new("bars", Format::Parquet, "ts").with_key(["symbol"]);
                    let scan = ScanRequest::new(Layer::Raw).with_columns(vec!["note".to_owned()]);
                    let read = runtime().block_on(async { collect(world.lake.scan(&table, &scan).await?).await });
                    let read = read.unwrap_or_else(|error| panic!("{encoding} {version:?} {compression} {rows}: {}", error.full()));
                    let texts = read.iter().map(|batch| batch.column_by_name("note").unwrap().as_string::<i32>());
                    let found: Vec<usize> =
                        texts.flat_map(|texts| texts.iter().map(|text| text.map_or(0, str::len)).collect::<Vec<_>>()).collect();
                    assert_eq!((found.len(), found.iter().sum::<usize>()), (rows, bytes), "{encoding} {version:?} {compression} {rows}");
                }
            }
        }
    }
}

/// To look at all lengths of a column takes one page at a time, however much there is of it.
#[test]
fn many_long_values_with_lengths_that_are_differences_are_read() {
    let world = World::new();
    let (rows, long) = (400, 1_000_000);
    let notes: StringArray = (0..rows).map(|row| Some(format!("{row:06}{}", "x".repeat(long - 6)))).collect();
    let properties = zstd().set_dictionary_enabled(false).set_column_encoding("note".into(), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    write(&world.root().join("bars/a.parquet"), &noted(Arc::new(notes)), properties.build());
    let (read, peak_mb) = read(&world, Format::Parquet);
    assert_eq!(read, Ok((rows, rows * long)));
    assert!(peak_mb < MOST_MB, "{peak_mb} MB");
}

#[test]
fn a_header_that_claims_gigabytes_is_refused_before_they_are_allocated() {
    let world = World::new();
    let path = world.root().join("bars/bomb.parquet");
    let notes = StringArray::from_iter_values(["x".repeat(140_000_000)]);
    write(&path, &noted(Arc::new(notes)), zstd().set_compression(Compression::SNAPPY).set_dictionary_enabled(false).build());
    // The size of the page, as a number of five bytes, becomes the largest that there is.
    let mut bytes = std::fs::read(&path).unwrap();
    let size = |mut number: u64| {
        let mut bytes = vec![0x15];
        number *= 2;
        while number >= 0x80 {
            bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
            number >>= 7;
        }
        bytes.push(u8::try_from(number).unwrap());
        bytes
    };
    let at = (140_000_000..140_000_100).map(size).find_map(|size| bytes.windows(size.len()).position(|window| window == size)).unwrap();
    bytes[at..at + 6].copy_from_slice(&size(0x7fff_ffff));
    std::fs::write(&path, bytes).unwrap();
    let (read, peak_mb) = read(&world, Format::Parquet);
    let said = read.unwrap_err();
    assert!(said.contains("would take 2047 MiB of memory") && said.contains("bomb.parquet"), "{said}");
    assert!(peak_mb < MOST_MB, "{peak_mb} MB");
}

#[test]
fn long_records_of_compressed_text_are_read_in_small_batches() {
    let world = World::new();
    std::fs::create_dir_all(world.root().join("bars")).unwrap();
    let path = world.root().join("bars/bomb.csv.gz");
    let mut packed = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
    let (rows, long) = (600, 900_000);
    let note = "x".repeat(long);
    packed.write_all(b"symbol,ts,note\n").unwrap();
    for row in 0..rows {
        packed.write_all(format!("A,2018-04-04T{:02}:{:02}:00Z,{note}\n", row / 60, row % 60).as_bytes()).unwrap();
    }
    packed.finish().unwrap().sync_all().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 8 << 20);
    let (read, peak_mb) = read(&world, Format::Csv);
    assert_eq!(read, Ok((rows, rows * long)));
    assert!(peak_mb < MOST_MB, "{peak_mb} MB");
}
