//! JSON lines: one object on each line.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use repair_core::lake::shape::{self, LeftOut};
use repair_core::model::{OnBadRow, Table, Usage};
use repair_core::text::name_twice;
use repair_core::{Error, Result};
use serde_json::{Map, Value};

use super::bad::{At, Judge, Rows};
use super::flat::Flat;
use super::text::{self, INFER_ROWS};
use super::{BATCH_ROWS, RowsOf, marks, open};
use crate::files::DataFile;
use crate::sample::SampledRows;

/// A line longer than this is not a row; the file is not JSON lines.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Records whose names are values, such as tickers, would make a column of each; no more than so many are looked at.
const MOST_COLUMNS: usize = 500;

/// Lines that are decoded together.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where each line ends in `bytes`, and its number in the file.
    lines: Vec<(usize, u64)>,
}

impl Rows for Chunk {
    fn at(&self, row: usize) -> At {
        At::Line(self.line(row))
    }
}

impl Chunk {
    fn line(&self, row: usize) -> u64 {
        self.lines.get(row).map_or(0, |(_, line)| *line)
    }

    fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut start = 0;
        self.lines.iter().map(move |&(end, line)| {
            let bytes = &self.bytes[start..end];
            start = end;
            (line, bytes)
        })
    }
}

struct Chunks {
    reader: Box<dyn BufRead>,
    line: u64,
    /// How many bytes a chunk has had.
    usual_bytes: usize,
    /// How many lines there is room for at first.
    likely: usize,
}

impl Chunks {
    fn open(table: &Table, file: &DataFile) -> Result<Self> {
        Ok(Self { reader: open::text(file, table.csv.encoding)?, line: 0, usual_bytes: 0, likely: file.likely_rows(BATCH_ROWS) })
    }

    /// The next lines that are not blank; `None` at the end.
    fn next(&mut self, file: &DataFile) -> Result<Option<Chunk>> {
        let mut chunk = Chunk { bytes: Vec::with_capacity(self.usual_bytes), lines: Vec::with_capacity(self.likely) };
        let is_blank = |text: &[u8]| text.iter().all(u8::is_ascii_whitespace);
        // Where the line begins that is being read.
        let mut start = 0;
        while chunk.lines.len() < BATCH_ROWS && start < MAX_LINE_BYTES {
            let text = match self.reader.fill_buf() {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(open::broken(file, error)),
            };
            if text.is_empty() {
                // The last line may lack its end.
                if is_blank(&chunk.bytes[start..]) {
                    chunk.bytes.truncate(start);
                } else {
                    self.line += 1;
                    chunk.lines.push((chunk.bytes.len(), self.line));
                }
                break;
            }
            // Whole lines are copied together, from `from` on.
            let (mut from, mut at) = (0, 0);
            while chunk.lines.len() < BATCH_ROWS
                && start < MAX_LINE_BYTES
                && let Some(end) = marks::find_far(text, at, b'\n')
            {
                let end = end + 1;
                self.line += 1;
                // Only the first of these lines may have begun before.
                let begun = chunk.bytes.get(start..).unwrap_or_default();
                if begun.len() + end - at > MAX_LINE_BYTES {
                    return Err(too_long(self.line));
                }
                if is_blank(begun) && is_blank(&text[at..end]) {
                    chunk.bytes.extend_from_slice(&text[from..at]);
                    chunk.bytes.truncate(start);
                    from = end;
                } else {
                    start = chunk.bytes.len() + end - from;
                    chunk.lines.push((start, self.line));
                }
                at = end;
            }
            let is_full = chunk.lines.len() >= BATCH_ROWS || start >= MAX_LINE_BYTES;
            let until = if is_full { at } else { text.len() };
            chunk.bytes.extend_from_slice(&text[from..until]);
            self.reader.consume(until);
            if chunk.bytes.len() - start > MAX_LINE_BYTES {
                return Err(too_long(self.line + 1));
            }
        }
        self.usual_bytes = self.usual_bytes.max(chunk.bytes.len());
        Ok((!chunk.lines.is_empty()).then_some(chunk))
    }
}

fn too_long(line: u64) -> Error {
    Error::invalid(format!("line {line} is longer than {MAX_LINE_BYTES} bytes; write one object on each line"))
}

/// The columns, in order of name, with the types of the first rows.
pub(super) fn columns(table: &Table, file: &DataFile) -> Result<SchemaRef> {
    let keeps = matches!(table.on_bad_row, OnBadRow::Quarantine(_));
    let mut chunks = Chunks::open(table, file)?;
    let mut all = Seen::default();
    let mut rows = 0;
    while rows < INFER_ROWS
        && let Some(chunk) = chunks.next(file)?
    {
        for (line, bytes) in chunk.iter() {
            match serde_json::from_slice::<Value>(bytes) {
                // Rows that are left out say nothing about the others.
                Ok(Value::Object(object)) if keeps && (!has_time(table, file, &object) || !fits(table, &object)) => {}
                Ok(Value::Object(mut object)) => {
                    without_nulls(table, &mut object);
                    all.add_fields(line, &object);
                }
                _ if keeps => {}
                _ if all.record.is_empty() && begins_a_list(bytes) => return Err(Error::invalid(format!("line {line}: {A_LIST}"))),
                Ok(_) => return Err(Error::invalid(format!("line {line}: the line {NOT_AN_OBJECT}"))),
                Err(error) => return Err(Error::invalid(format!("line {line}: the line {NOT_AN_OBJECT}")).because(error)),
            }
        }
        rows += chunk.lines.len();
    }
    let (mut left_out, mut mixed) = (Vec::new(), Vec::new());
    let fields = all.fields("", &mut left_out);
    for (name, seen) in &all.record {
        mixed.extend(seen.mixed(name).filter(|mixed| fields.iter().any(|field| *field.name() == mixed.column)));
    }
    let columns = shape::of_file(fields, &left_out, &mixed)?;
    Ok(Arc::new(if rows < INFER_ROWS { columns } else { shape::of_first_rows(columns) }))
}

/// The first lines that hold each kind of value in a column, or in a field of one.
#[derive(Default)]
struct Seen {
    boolean: Option<u64>,
    number: Option<u64>,
    text: Option<u64>,
    records: Option<u64>,
    lists: Option<u64>,
    /// Whether a number is not whole, or too large for a whole number of 64 bits.
    is_float: bool,
    /// The fields of records. The order of a JSON object's keys depends on how serde_json was built, so it is that of their names.
    record: BTreeMap<String, Seen>,
    /// The items of lists.
    items: Option<Box<Seen>>,
}

impl Seen {
    fn add(&mut self, line: u64, value: &Value) {
        let first = match value {
            Value::Null => return,
            Value::Bool(_) => &mut self.boolean,
            Value::Number(number) => {
                self.is_float |= !number.is_i64();
                &mut self.number
            }
            Value::String(_) => &mut self.text,
            Value::Array(items) => {
                let all = self.items.get_or_insert_default();
                items.iter().for_each(|item| all.add(line, item));
                &mut self.lists
            }
            Value::Object(fields) => {
                self.add_fields(line, fields);
                &mut self.records
            }
        };
        first.get_or_insert(line);
    }

    fn add_fields(&mut self, line: u64, fields: &Map<String, Value>) {
        for (name, value) in fields {
            // Most are known, and need no copy of their name.
            match self.record.get_mut(name) {
                Some(known) => known.add(line, value),
                None => self.record.entry(name.clone()).or_default().add(line, value),
            }
        }
    }

    /// The fields that one type holds, by a name that begins like this. The others are left out. Records without fields have no values, and are no
    /// columns: Parquet has no type for them.
    fn fields(&self, within: &str, left_out: &mut Vec<LeftOut>) -> Vec<Field> {
        let typed = |(name, seen): (&String, &Self)| {
            let whole = format!("{within}{name}");
            match seen.data_type(&whole, left_out) {
                Ok(kind) => Some(Field::new(name, kind, true)).filter(|field| !holds_nothing(field.data_type())),
                Err((lines, types)) => {
                    let files = lines.map(|line| format!("line {line}"));
                    left_out.push(LeftOut { column: whole, types: types.map(str::to_owned), files, also: None });
                    None
                }
            }
        };
        self.record.iter().filter_map(typed).collect()
    }

    /// The type that holds all values. If none does, the first lines with values of two shapes, and what they are.
    fn data_type(&self, name: &str, left_out: &mut Vec<LeftOut>) -> std::result::Result<DataType, ([u64; 2], [&'static str; 2])> {
        let flat = [(self.boolean, "true or false"), (self.number, "a number"), (self.text, "text")];
        let flat = flat.into_iter().filter_map(|(line, what)| Some((line?, what))).min();
        let nested = [(self.records, "a record"), (self.lists, "a list")].into_iter().filter_map(|(line, what)| Some((line?, what)));
        let mut shapes: Vec<(u64, &'static str)> = nested.chain(flat).collect();
        shapes.sort_unstable();
        if let [(one, is), (other, what), ..] = shapes.as_slice() {
            return Err(([*one, *other], [*is, *what]));
        }
        if self.records.is_some() {
            return Ok(DataType::Struct(self.fields(&format!("{name}."), left_out).into()));
        }
        if let Some(items) = self.items.as_ref() {
            return Ok(DataType::new_list(items.data_type(name, left_out)?, true));
        }
        Ok(match (self.boolean, self.number, self.text) {
            (None, None, None) => DataType::Null,
            (Some(_), None, None) => DataType::Boolean,
            (None, Some(_), None) if self.is_float => DataType::Float64,
            (None, Some(_), None) => DataType::Int64,
            _ => DataType::Utf8,
        })
    }

    /// That there are words among numbers, or true and false, by the first line of each.
    fn mixed(&self, name: &str) -> Option<LeftOut> {
        let word = self.text.into_iter().chain(self.boolean).min();
        let lines = [self.number?, word?].map(|line| format!("line {line}"));
        let types = [DataType::Float64.to_string(), DataType::Utf8.to_string()];
        Some(LeftOut { column: name.to_owned(), types, files: lines, also: None })
    }
}

/// Whether a column of this type could only hold records without fields.
fn holds_nothing(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(fields) => fields.is_empty(),
        DataType::List(item) => holds_nothing(item.data_type()),
        _ => false,
    }
}

/// The values of the first lines, also those within records, but not those of lists.
pub(super) fn sample(table: &Table, file: &DataFile, most: usize) -> Result<SampledRows> {
    let mut rows = SampledRows { is_whole: true, ..SampledRows::default() };
    let mut chunks = Chunks::open(table, file)?;
    let mut read = 0;
    'file: while let Some(chunk) = chunks.next(file)? {
        for (_, bytes) in chunk.iter() {
            if read >= most {
                rows.is_whole = false;
                break 'file;
            }
            let Ok(Value::Object(object)) = serde_json::from_slice(bytes) else {
                rows.odd += 1;
                continue;
            };
            take_values(&mut rows, object, "", read);
            read += 1;
            rows.columns.iter_mut().for_each(|values| values.resize(read, None));
        }
    }
    Ok(rows)
}

/// Adds the values of a record to row number `row`.
fn take_values(rows: &mut SampledRows, object: Map<String, Value>, within: &str, row: usize) {
    for (name, value) in object {
        let path = format!("{within}{name}");
        let text = match value {
            Value::String(text) => Some(text).filter(|text| !text.is_empty()),
            Value::Null => None,
            // A path has dots between its names.
            Value::Object(object) => {
                if !name.contains('.') {
                    take_values(rows, object, &format!("{path}."), row);
                }
                continue;
            }
            Value::Array(_) => continue,
            other => Some(other.to_string()),
        };
        let is_nested = !within.is_empty();
        let is_written_as_path = !is_nested || (!name.contains('.') && rows.names.len() < MOST_COLUMNS);
        let known = rows.names.iter().zip(&rows.nested).position(|(known, nested)| *known == path && *nested == is_nested);
        let at = match known {
            Some(at) => at,
            None if !is_written_as_path => continue,
            None => {
                rows.names.push(path);
                rows.nested.push(is_nested);
                rows.kinds.push(None);
                rows.columns.push(vec![None; row]);
                rows.names.len() - 1
            }
        };
        // A name that a record has twice is refused where it is read.
        rows.columns[at].resize(row, None);
        rows.columns[at].push(text);
    }
}

/// Whether an object has something that may be its time, or needs none since the path has it.
fn has_time(table: &Table, file: &DataFile, object: &Map<String, Value>) -> bool {
    let may_be = |column: &&str| {
        let mut names = super::place_of(table, column).into_iter();
        let value = names.next().and_then(|name| object.get(name));
        match names.try_fold(value, |value, name| Some(value?.as_object()?.get(name))).flatten() {
            Some(Value::String(text)) => super::may_be_a_time(text.as_bytes()),
            Some(Value::Number(_)) => true,
            _ => false,
        }
    };
    file.time_us.is_some() || table.time_columns().iter().any(may_be)
}

/// Whether the values of an object are of the types that are declared.
fn fits(table: &Table, object: &Map<String, Value>) -> bool {
    let typed = table.columns.iter().filter_map(|(name, rule)| Some((name, rule.kind?)));
    let mut typed = typed.filter(|(name, _)| **name != table.time && !table.key.contains(name));
    typed.all(|(name, kind)| {
        let mut names = super::place_of(table, name).into_iter();
        let value = names.next().and_then(|name| object.get(name));
        match names.try_fold(value, |value, name| Some(value?.as_object()?.get(name))).flatten() {
            Some(Value::String(text)) => table.nulls_of(name).any(|word| word == text) || text::fits(text, kind, &table.csv),
            Some(Value::Number(number)) => text::fits(&number.to_string(), kind, &table.csv),
            Some(Value::Bool(value)) => text::fits(&value.to_string(), kind, &table.csv),
            // What is nested in a column that is none is said when it is read.
            _ => true,
        }
    })
}

/// Takes out the table's words for no value, which say nothing about a column's type.
fn without_nulls(table: &Table, fields: &mut Map<String, Value>) {
    if table.nulls.is_empty() && table.columns.is_empty() {
        return;
    }
    for (name, value) in fields {
        if value.as_str().is_some_and(|text| table.nulls_of(name).any(|word| word == text)) {
            *value = Value::Null;
        }
    }
}

const A_LIST: &str = "the file is one list of JSON, and it is read as one object on each line; write it so, for example by `jq -c '.[]'`";

/// Whether a line begins a list of JSON, as a file that is one as a whole.
fn begins_a_list(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"[")
}

const NOT_AN_OBJECT: &str = "is not one JSON object with the table's columns; correct the line, or restore the file";

/// Reads columns: as text those that are parsed by us, the others in the type that `types` gives them. Columns that the lines lack are
/// null.
pub(super) fn rows(table: &Table, file: &DataFile, types: &Schema, judge: &mut Judge<'_>, sink: &mut RowsOf<'_>) -> Result<Usage> {
    let mut flat = Flat::of(&Arc::new(types.clone()));
    let schema: SchemaRef = Arc::new(Schema::new(types.fields().iter().map(with_numbers_as_text).collect::<Vec<_>>()));
    let mut decoder = build(&schema)?;
    let mut chunks = Chunks::open(table, file)?;
    while let Some(mut chunk) = chunks.next(file)? {
        judge.rows_read += chunk.lines.len() as u64;
        let ends = chunk.lines.iter().map(|(end, _)| *end);
        if let Some(batch) = flat.as_mut().and_then(|flat| flat.decode(&chunk.bytes, ends)) {
            if sink(batch, &chunk, judge)? == ControlFlow::Break(()) {
                break;
            }
            continue;
        }
        // The decoder would keep the last of two values, and say nothing.
        chunk = without_names_twice(&schema, chunk, judge)?;
        if chunk.lines.is_empty() {
            continue;
        }
        let batch = match decode(&mut decoder, &chunk.bytes) {
            Ok(Some(batch)) if batch.num_rows() == chunk.lines.len() => batch,
            _ => {
                chunk = good_lines(&schema, &chunk, judge)?;
                if chunk.lines.is_empty() {
                    continue;
                }
                decoder = build(&schema)?;
                match decode(&mut decoder, &chunk.bytes) {
                    Ok(Some(batch)) if batch.num_rows() == chunk.lines.len() => batch,
                    _ => return Err(Error::invalid(format!("the lines from {} on are not one JSON object each", chunk.line(0)))),
                }
            }
        };
        if sink(batch, &chunk, judge)? == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(Usage { bytes_scanned: file.bytes, ..Usage::default() })
}

/// A column as it is decoded. Its numbers, also those within it, are parsed by us: Arrow would round whole numbers among fractions, and cut
/// fractions off among whole numbers.
fn with_numbers_as_text(field: &Arc<Field>) -> Field {
    let kind = match field.data_type() {
        DataType::Float64 | DataType::Int64 => DataType::Utf8,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(with_numbers_as_text).collect()),
        DataType::List(item) => DataType::List(Arc::new(with_numbers_as_text(item))),
        other => other.clone(),
    };
    Field::new(field.name(), kind, true)
}

fn build(schema: &SchemaRef) -> Result<Decoder> {
    // One more than the lines of a chunk, since a full decoder leaves the end of the last line unread.
    Ok(ReaderBuilder::new(schema.clone()).with_coerce_primitive(true).with_batch_size(BATCH_ROWS + 1).build_decoder()?)
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Result<Option<RecordBatch>, ArrowError> {
    let read = decoder.decode(bytes)?;
    if read < bytes.len() {
        return Err(ArrowError::JsonError("more objects than lines".to_owned()));
    }
    decoder.flush()
}

/// The lines in which no object has a name twice, as far as it is read.
fn without_names_twice(schema: &SchemaRef, chunk: Chunk, judge: &mut Judge<'_>) -> Result<Chunk> {
    let is_read = |name: &str| schema.column_with_name(name).is_some();
    let twice: Vec<Option<String>> = chunk.iter().map(|(_, bytes)| name_twice(bytes, is_read)).collect();
    if twice.iter().all(Option::is_none) {
        return Ok(chunk);
    }
    let mut good = Chunk::default();
    for ((line, bytes), twice) in chunk.iter().zip(twice) {
        match twice {
            None => {
                good.bytes.extend_from_slice(bytes);
                good.lines.push((good.bytes.len(), line));
            }
            Some(name) => judge.reject(At::Line(line), None, || {
                format!(
                    "the line has the field `{}` twice, and which of them counts is not known; correct the line",
                    text::shortened(&name)
                )
            })?,
        }
    }
    Ok(good)
}

/// The lines that can be decoded on their own.
fn good_lines(schema: &SchemaRef, chunk: &Chunk, judge: &mut Judge<'_>) -> Result<Chunk> {
    let mut good = Chunk::default();
    for (line, bytes) in chunk.iter() {
        let cause = match decode(&mut build(schema)?, bytes) {
            Ok(Some(batch)) if batch.num_rows() == 1 => {
                good.bytes.extend_from_slice(bytes);
                good.lines.push((good.bytes.len(), line));
                continue;
            }
            Ok(_) => String::new(),
            Err(error) => format!(": {error}"),
        };
        judge.reject(At::Line(line), None, || format!("the line {NOT_AN_OBJECT}{cause}"))?;
    }
    Ok(good)
}
