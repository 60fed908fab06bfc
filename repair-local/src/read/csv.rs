//! Separated values. Columns are found by name, so files may have them in different orders.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::sync::Arc;

use ::csv::{ByteRecord, ReaderBuilder};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use repair_core::model::{Csv, Table, Usage};
use repair_core::{Error, Result};

use super::bad::{At, Judge, Rows};
use super::text::{self, INFER_ROWS, Inferred};
use super::{BATCH_ROWS, RowsOf, open};
use crate::files::DataFile;
use crate::sample::SampledRows;

/// The most bytes of one record: a quote that is never closed would make one field of the rest of the file. Debug builds use so few that a
/// test can reach it.
const MAX_RECORD_BYTES: usize = if cfg!(debug_assertions) { 1 << 20 } else { 64 << 20 };

/// A batch with this much text has no more rows, however few it has: compressed files may hold any number of long records.
const BATCH_BYTES: usize = 32 << 20;

/// Delimiters that a file may have instead of the one that the table says.
const DELIMITERS: [char; 5] = [',', ';', '\t', '|', ' '];

/// Where the records of a batch begin.
#[derive(Default)]
struct Offsets(Vec<u64>);

impl Rows for Offsets {
    fn at(&self, row: usize) -> At {
        At::Offset(self.0.get(row).copied().unwrap_or(0))
    }
}

/// A file of which only a limited number of bytes may be read, until more are allowed.
struct Limited {
    inner: Box<dyn BufRead>,
    left: Rc<Cell<usize>>,
    ended: Rc<Cell<bool>>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, TOO_LONG));
        }
        let read = self.inner.read(buffer)?;
        self.left.set(self.left.get().saturating_sub(read));
        self.ended.set(read == 0);
        Ok(read)
    }
}

const TOO_LONG: &str = "the record is too long";

/// The records of a file.
struct Records {
    reader: ::csv::Reader<Limited>,
    left: Rc<Cell<usize>>,
    /// Whether the end of the file was seen. A record that ends with a line break is complete before that.
    ended: Rc<Cell<bool>>,
    record: ByteRecord,
    /// The names of the columns, in the file's order.
    names: Vec<String>,
    /// The header as it is in the file, if there is one.
    header: Option<ByteRecord>,
    csv: Csv,
    /// The text of the fields that were asked for last, and where each is in it.
    text: String,
    ranges: Vec<Range<usize>>,
}

/// Opens a file after the lines that are skipped.
fn start(csv: &Csv, file: &DataFile) -> Result<Box<dyn BufRead>> {
    let mut text = open::text(file, csv.encoding)?;
    for _ in 0..csv.skip_lines {
        let limit = MAX_RECORD_BYTES as u64;
        let mut line = Vec::new();
        Read::take(&mut text, limit).read_until(b'\n', &mut line).map_err(|error| open::broken(file, error))?;
    }
    Ok(text)
}

fn byte(character: char) -> u8 {
    u8::try_from(character).unwrap_or(b'?')
}

impl Records {
    fn open(table: &Table, file: &DataFile) -> Result<Self> {
        let csv = table.csv.clone();
        let text = start(&csv, file)?;
        Self::of(csv, text, file)
    }

    /// The records of a text.
    fn of(csv: Csv, mut text: Box<dyn BufRead>, file: &DataFile) -> Result<Self> {
        if text.fill_buf().map_err(|error| open::broken(file, error))?.is_empty() && csv.header {
            return Err(Error::invalid(
                "the file is empty, without even a header line, so its writer failed; remove it, or write it again",
            ));
        }
        let (left, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(byte(csv.delimiter))
            .quote(csv.quote.map_or(b'"', byte))
            .quoting(csv.quote.is_some())
            .comment(csv.comment.map(byte))
            .buffer_capacity(1 << 18)
            .from_reader(Limited { inner: text, left: left.clone(), ended: ended.clone() });
        let mut records = Self {
            reader,
            left,
            ended,
            record: ByteRecord::new(),
            names: Vec::new(),
            header: None,
            csv,
            text: String::new(),
            ranges: Vec::new(),
        };
        if records.csv.header {
            if !records.next(file)? {
                return Err(Error::invalid("the file has no header line; write one, or say `header: false` and give the `names`"));
            }
            for field in records.fields().map(<[u8]>::to_vec).collect::<Vec<_>>() {
                records.names.push(String::from_utf8(field).map_err(|_| not_utf8("the header"))?);
            }
            records.header = Some(records.record.clone());
        }
        if !records.csv.names.is_empty() {
            if records.header.is_some() && records.csv.names.len() != records.names.len() {
                return Err(Error::invalid(format!(
                    "the header has {} fields, and `names` {}; give one name for each",
                    records.names.len(),
                    records.csv.names.len()
                )));
            }
            records.names.clone_from(&records.csv.names);
        }
        Ok(records)
    }

    /// Reads the next record; `false` at the end. A line of spaces is no record.
    fn next(&mut self, file: &DataFile) -> Result<bool> {
        loop {
            self.left.set(MAX_RECORD_BYTES);
            let line = self.reader.position().line() + u64::from(self.csv.skip_lines);
            let more = self.reader.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
                ::csv::ErrorKind::Io(error) if error.to_string() == TOO_LONG => Error::invalid(format!(
                    "the record that begins near line {line} takes more than {MAX_RECORD_BYTES} bytes; is a quote missing its end?"
                )),
                ::csv::ErrorKind::Io(error) => open::broken(file, error),
                other => Error::invalid(format!("not readable as CSV: {other:?}")),
            })?;
            if !more {
                return Ok(false);
            }
            let blank = self.record.len() <= 1 && self.record.as_slice().iter().all(u8::is_ascii_whitespace);
            if !blank {
                return Ok(true);
            }
        }
    }

    /// The fields of the record, trimmed if the table says so.
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let trim = self.csv.trim;
        // Several spaces between two fields are one delimiter.
        let collapse = trim && self.csv.delimiter == ' ';
        self.record
            .iter()
            .filter(move |field| !(collapse && field.is_empty()))
            .map(move |field| if trim { field.trim_ascii() } else { field })
    }

    fn offset(&self) -> u64 {
        self.record.position().map_or(0, ::csv::Position::byte)
    }

    /// Whether the record is the header once more.
    fn repeats_header(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.iter().eq(self.record.iter()))
    }

    /// Prepares the text of some fields, in `text` and `ranges`. The error is the field that is not UTF-8; others do not matter.
    fn texts(&mut self, projection: &[usize]) -> std::result::Result<(), usize> {
        self.text.clear();
        self.ranges.clear();
        // Mostly the whole record is valid, and checked at once.
        if let (Ok(whole), false) = (std::str::from_utf8(self.record.as_slice()), self.csv.trim) {
            self.text.push_str(whole);
            for &at in projection {
                let range = self.record.range(at).unwrap_or_default();
                if !whole.is_char_boundary(range.start) || !whole.is_char_boundary(range.end) {
                    return Err(at);
                }
                self.ranges.push(range);
            }
            return Ok(());
        }
        let fields: Vec<Range<usize>> = {
            let mut ranges = Vec::with_capacity(projection.len());
            let all: Vec<&[u8]> = self.fields().collect();
            let mut text = String::new();
            for &at in projection {
                let field = std::str::from_utf8(all.get(at).copied().unwrap_or_default()).map_err(|_| at)?;
                ranges.push(text.len()..text.len() + field.len());
                text.push_str(field);
            }
            self.text = text;
            ranges
        };
        self.ranges = fields;
        Ok(())
    }

    /// Why the record is not one of the table; `None` if it is.
    fn odd(&self) -> Option<String> {
        if self.csv.final_newline && self.ended.get() {
            let help = "restore the file, or leave out `final_newline: required` if its writer ends files so";
            return Some(format!("the file ends without a line break, so its last line may be cut off; {help}"));
        }
        let fields = if self.csv.trim { self.fields().count() } else { self.record.len() };
        if fields == self.names.len() {
            if self.repeats_header() {
                return Some("the line repeats the header; remove it, or say `on_bad_row: quarantine`".to_owned());
            }
            return None;
        }
        let of = if self.header.is_some() { "the header" } else { "`names`" };
        let more = if fields < self.names.len() { ", so it may be cut off" } else { "" };
        Some(format!("the line has {fields} fields, and {of} {}{more}; correct the line, or restore the file", self.names.len()))
    }
}

fn not_utf8(what: &str) -> Error {
    Error::invalid(format!("{what} is not UTF-8; if the file is in another encoding, say so, e.g. `csv: {{ encoding: latin1 }}`"))
}

/// The lines on which records begin, given how many bytes come before each, in order; 0 where that is not known. It reads the file again,
/// which is done only for rows that cannot be read.
pub(super) fn lines(table: &Table, file: &DataFile, offsets: &[u64]) -> Vec<u64> {
    let mut found = Vec::with_capacity(offsets.len());
    let mut wanted = offsets.iter().copied().peekable();
    let Ok(mut text) = start(&table.csv, file) else { return found };
    let (mut line, mut at) = (u64::from(table.csv.skip_lines) + 1, 0u64);
    let (mut is_start, mut in_comment) = (true, false);
    let comment = table.csv.comment.map(byte);
    'file: while wanted.peek().is_some() {
        let Ok(bytes) = text.fill_buf() else { break };
        if bytes.is_empty() {
            break;
        }
        let read = bytes.len();
        for &byte in bytes {
            // Lines that are blank or comments come before the record that the position stands for.
            let skipped = matches!(byte, b'\n' | b'\r') || in_comment || (is_start && Some(byte) == comment);
            while wanted.peek().is_some_and(|&offset| offset <= at && !(skipped && (is_start || in_comment))) {
                found.push(line);
                wanted.next();
            }
            if wanted.peek().is_none() {
                break 'file;
            }
            if is_start && Some(byte) == comment {
                in_comment = true;
            }
            if byte == b'\n' {
                line += 1;
                in_comment = false;
            }
            is_start = matches!(byte, b'\n' | b'\r');
            at += 1;
        }
        text.consume(read);
    }
    found.resize(offsets.len(), 0);
    found
}

/// The columns that a name identifies: those that are named, and named once.
fn usable(names: &[String]) -> Vec<usize> {
    (0..names.len()).filter(|&at| !names[at].is_empty() && names.iter().filter(|name| **name == names[at]).count() == 1).collect()
}

/// The columns, with the types of their first rows; of type null if those hold nothing.
pub(super) fn columns(table: &Table, file: &DataFile) -> Result<SchemaRef> {
    let mut records = Records::open(table, file)?;
    let usable = usable(&records.names);
    let mut inferred: Vec<Inferred> = usable.iter().map(|_| Inferred::default()).collect();
    let mut rows = 0;
    while rows < INFER_ROWS && records.next(file)? {
        if records.odd().is_some() {
            continue;
        }
        let fields: Vec<&[u8]> = records.fields().collect();
        for (kind, &at) in inferred.iter_mut().zip(&usable) {
            // Text in another encoding is reported when it is used.
            let value = std::str::from_utf8(fields[at]).unwrap_or("\u{fffd}");
            if !text::is_null(table, &records.names[at], value) {
                kind.add(value, &table.csv);
            }
        }
        rows += 1;
    }
    let fields: Vec<Field> =
        usable.iter().zip(inferred).map(|(&at, kind)| Field::new(&records.names[at], kind.data_type(), true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The first records and, if that is not all of the file, some of the last.
pub(super) fn sample(table: &Table, file: &DataFile, most: usize) -> Result<SampledRows> {
    let mut records = Records::open(table, file)?;
    let mut rows = SampledRows { names: records.names.clone(), is_whole: true, ..SampledRows::default() };
    rows.kinds = vec![None; rows.names.len()];
    rows.columns = vec![Vec::new(); rows.names.len()];
    let mut take = |records: &mut Records, most: usize| -> Result<bool> {
        let mut read = 0;
        while read < most {
            if !records.next(file)? {
                return Ok(true);
            }
            read += 1;
            if records.odd().is_some() {
                rows.odd += 1;
                continue;
            }
            for (values, field) in rows.columns.iter_mut().zip(records.fields()) {
                values.push(if field.is_empty() { None } else { Some(String::from_utf8_lossy(field).into_owned()) });
            }
        }
        Ok(false)
    };
    if take(&mut records, most / 2)? {
        return Ok(rows);
    }
    // Where the last rows cannot be reached, more of the first ones are read.
    let is_whole = match super::sample::tail(file, table.csv.encoding)? {
        None => take(&mut records, most / 2)?,
        Some(text) => {
            let mut csv = table.csv.clone();
            (csv.header, csv.skip_lines) = (false, 0);
            csv.names.clone_from(&records.names);
            let mut last = Records::of(csv, text, file)?;
            take(&mut last, most / 2)?;
            false
        }
    };
    rows.is_whole = is_whole;
    Ok(rows)
}

/// What a message adds if a column is missing: that the file seems to have another delimiter, or that the name is in it twice.
pub(super) fn hint(table: &Table, file: &DataFile, column: &str) -> Option<String> {
    let records = Records::open(table, file).ok()?;
    if records.names.iter().filter(|name| *name == column).count() > 1 {
        return Some(format!("the header names `{column}` twice; rename one"));
    }
    if !records.csv.trim && records.names.iter().any(|name| name.trim() == column) {
        return Some("the names in the header have spaces around them; add `csv: { trim: true }`".to_owned());
    }
    let header = records.header.as_ref()?.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(&records.csv.delimiter.to_string());
    let other = DELIMITERS
        .into_iter()
        .filter(|other| *other != records.csv.delimiter)
        .find(|other| header.split(*other).any(|name| name.trim().trim_matches('"') == column))?;
    let word = match other {
        '\t' => "tab".to_owned(),
        ' ' => "space".to_owned(),
        other => format!("\"{other}\""),
    };
    Some(format!(
        "the fields look separated by `{}`; add `csv: {{ delimiter: {word} }}`",
        if other == '\t' { "tab".to_owned() } else { other.to_string() }
    ))
}

/// Reads columns as text. A column that the file lacks is left out.
pub(super) fn rows(table: &Table, file: &DataFile, wanted: &[String], judge: &mut Judge<'_>, sink: &mut RowsOf<'_>) -> Result<Usage> {
    let mut records = Records::open(table, file)?;
    let projection: Vec<usize> = usable(&records.names).into_iter().filter(|&at| wanted.contains(&records.names[at])).collect();
    let names: Vec<String> = projection.iter().map(|&at| records.names[at].clone()).collect();
    let fields: Vec<Field> = names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let nulls: Vec<Vec<&str>> = names.iter().map(|name| table.nulls_of(name).collect()).collect();
    let (mut is_more, mut is_known) = (true, false);
    while is_more {
        let mut builders: Vec<StringBuilder> = names.iter().map(|_| StringBuilder::with_capacity(BATCH_ROWS, BATCH_ROWS * 8)).collect();
        let mut offsets = Offsets(Vec::with_capacity(BATCH_ROWS));
        let mut bytes = 0;
        while offsets.0.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            is_more = records.next(file)?;
            if !is_more {
                break;
            }
            judge.rows_read += 1;
            if let Some(why) = records.odd() {
                judge.reject(At::Offset(records.offset()), None, || why)?;
                continue;
            }
            match records.texts(&projection) {
                Ok(()) => {}
                Err(at) => {
                    let name = records.names[at].clone();
                    let why = || not_utf8(&format!("the value of column `{name}`")).message().to_owned();
                    judge.reject(At::Offset(records.offset()), Some(&name), why)?;
                    continue;
                }
            }
            for ((builder, nulls), range) in builders.iter_mut().zip(&nulls).zip(&records.ranges) {
                let text = records.text.get(range.clone()).unwrap_or_default();
                bytes += text.len();
                if text.is_empty() || nulls.contains(&text) { builder.append_null() } else { builder.append_value(text) }
            }
            offsets.0.push(records.offset());
        }
        // A file without rows is looked at, too: its header may lack a column.
        if offsets.0.is_empty() && is_known {
            continue;
        }
        is_known = true;
        let columns: Vec<ArrayRef> = builders.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(offsets.0.len()));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
        if sink(batch, &offsets, judge)? == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(Usage { bytes_scanned: file.bytes, ..Usage::default() })
}
