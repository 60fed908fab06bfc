//! Some rows of a file, as text, whatever the format.

use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::ops::ControlFlow;

use ::arrow::array::{Array, AsArray};
use ::arrow::compute::cast;
use ::arrow::datatypes::{DataType, Fields};
use repair_core::Result;
use repair_core::model::{Encoding, Format, Table};

use super::{BATCH_ROWS, at_path, csv, jsonl, open, parquet, unreadable};
use crate::files::{self, Compression, DataFile};
use crate::sample::{Head, SampledRows};

/// How much of the end of a text file is read.
const TAIL_BYTES: u64 = 256 << 10;

/// A row group with more rows than this is not read for its end.
const MOST_LAST_ROWS: u64 = 1 << 18;

/// How the text of a file begins, and in which encoding it is.
pub(crate) fn head(file: &DataFile, most: u64) -> Result<Head> {
    let mut bytes = Vec::new();
    open::text(file, Encoding::Utf8)?.take(most).read_to_end(&mut bytes).map_err(|error| open::broken(file, error))?;
    if u64::try_from(bytes.len()).unwrap_or(most) >= most {
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.truncate(end);
    }
    let zeros = |from: usize| bytes.iter().skip(from).step_by(2).filter(|byte| **byte == 0).count() * 4 > bytes.len();
    let encoding = match (zeros(1), zeros(0)) {
        (true, false) => Encoding::Utf16le,
        (false, true) => Encoding::Utf16be,
        _ if std::str::from_utf8(&bytes).is_ok() => Encoding::Utf8,
        _ => Encoding::Latin1,
    };
    let text = match encoding {
        Encoding::Utf8 => String::from_utf8_lossy(&bytes).into_owned(),
        Encoding::Latin1 => encoding_rs::WINDOWS_1252.decode_without_bom_handling(&bytes).0.into_owned(),
        Encoding::Utf16le => encoding_rs::UTF_16LE.decode_without_bom_handling(&bytes).0.into_owned(),
        _ => encoding_rs::UTF_16BE.decode_without_bom_handling(&bytes).0.into_owned(),
    };
    Ok(Head { text, encoding })
}

/// The end of a text file that is not compressed, after its first line break; `None` if that cannot be reached.
pub(super) fn tail(file: &DataFile, encoding: Encoding) -> Result<Option<Box<dyn BufRead>>> {
    if file.compression != Compression::None || !matches!(encoding, Encoding::Utf8 | Encoding::Latin1) || file.bytes <= TAIL_BYTES {
        return Ok(None);
    }
    let mut opened = files::open(&file.path)?;
    let mut bytes = Vec::new();
    let read = opened.seek(SeekFrom::Start(file.bytes - TAIL_BYTES)).and_then(|_| opened.take(TAIL_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| files::io_error(error, "read", &file.path))?;
    let Some(start) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let bytes = bytes.split_off(start + 1);
    let bytes = match encoding {
        Encoding::Latin1 => encoding_rs::WINDOWS_1252.decode_without_bom_handling(&bytes).0.into_owned().into_bytes(),
        _ => bytes,
    };
    Ok(Some(Box::new(BufReader::new(Cursor::new(bytes)))))
}

/// Some rows of a file: at most so many.
pub(crate) fn sample(table: &Table, file: &DataFile, most: usize) -> Result<SampledRows> {
    match table.format {
        Format::Csv => csv::sample(table, file, most),
        Format::Jsonl => jsonl::sample(table, file, most),
        Format::Parquet => of_parquet(file, most),
        other => Err(unreadable(other)),
    }
}

/// The columns that have one value in each row, also those within records, and the names that lead to each. A path has dots between its names, so none
/// has one itself.
fn leaves<'a>(fields: &'a Fields, within: &[&'a str], found: &mut Vec<(Vec<&'a str>, DataType)>) {
    for field in fields {
        let mut path = within.to_vec();
        path.push(field.name());
        match field.data_type() {
            DataType::Struct(_) if field.name().contains('.') => {}
            DataType::Struct(fields) => leaves(fields, &path, found),
            kind if kind.is_nested() || (path.len() > 1 && field.name().contains('.')) => {}
            kind => found.push((path, kind.clone())),
        }
    }
}

fn of_parquet(file: &DataFile, most: usize) -> Result<SampledRows> {
    let schema = parquet::open(file)?.schema();
    let mut rows = SampledRows { is_whole: true, ..SampledRows::default() };
    let mut paths = Vec::new();
    leaves(schema.fields(), &[], &mut paths);
    for (path, kind) in &paths {
        rows.names.push(path.join("."));
        rows.nested.push(path.len() > 1);
        rows.kinds.push(Some(kind.clone()));
        rows.columns.push(Vec::new());
    }
    let mut names: Vec<&str> = paths.iter().filter_map(|(path, _)| path.first().copied()).collect();
    names.dedup();
    let opened = parquet::open(file)?;
    let groups = opened.footer().num_row_groups();
    let all: u64 = (0..groups).map(|group| opened.rows_of(group)).sum();
    let read = |groups: Vec<usize>, skip: usize, most: usize, columns: &mut Vec<Vec<Option<String>>>| -> Result<()> {
        let (mut at, mut kept) = (0, 0);
        parquet::open(file)?.read(&names, &groups, BATCH_ROWS, &mut |batch| {
            let from = skip.saturating_sub(at).min(batch.num_rows());
            let length = (batch.num_rows() - from).min(most - kept);
            at += batch.num_rows();
            kept += length;
            for ((path, _), values) in paths.iter().zip(columns.iter_mut()) {
                let column = at_path(&batch, path.iter().copied())?;
                match column.map(|column| cast(&column.slice(from, length), &DataType::Utf8)) {
                    Some(Ok(text)) => {
                        let text = text.as_string::<i32>();
                        values.extend((0..length).map(|row| text.is_valid(row).then(|| text.value(row).to_owned())));
                    }
                    // Bytes that are no text.
                    _ => values.extend(std::iter::repeat_n(None, length)),
                }
            }
            Ok(if kept >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(())
    };
    let mut columns = std::mem::take(&mut rows.columns);
    let of_last = groups.checked_sub(1).map_or(0, |last| opened.rows_of(last));
    if usize::try_from(all).is_ok_and(|all| all <= most) {
        read((0..groups).collect(), 0, most, &mut columns)?;
    } else {
        rows.is_whole = false;
        let reaches_end = of_last <= MOST_LAST_ROWS;
        read((0..groups).collect(), 0, if reaches_end { most / 2 } else { most }, &mut columns)?;
        if reaches_end && groups > 1 {
            let skip = usize::try_from(of_last).unwrap_or(usize::MAX).saturating_sub(most / 2);
            read(vec![groups - 1], skip, most / 2, &mut columns)?;
        } else if reaches_end {
            let skip = usize::try_from(of_last).unwrap_or(usize::MAX).saturating_sub(most / 2).max(most / 2);
            read(vec![0], skip, most / 2, &mut columns)?;
        }
    }
    rows.columns = columns;
    Ok(rows)
}
