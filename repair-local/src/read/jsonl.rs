//! JSON lines: one object on each line.

use std::io::BufRead;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::{Decoder, infer_json_schema_from_iterator};
use repair_core::model::{OnBadRow, Table, Usage};
use repair_core::{Error, Result};

use super::bad::{At, Judge, Rows};
use super::flat::Flat;
use super::text::INFER_ROWS;
use super::{BATCH_ROWS, RowsOf, marks, open};
use crate::files::DataFile;
use crate::sample::SampledRows;

/// A line longer than this is not a row; the file is not JSON lines.
const MAX_LINE_BYTES: usize = 16 << 20;

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
    let mut all: Vec<Field> = Vec::new();
    let mut rows = 0;
    while rows < INFER_ROWS
        && let Some(chunk) = chunks.next(file)?
    {
        let mut values = Vec::with_capacity(chunk.lines.len());
        for (line, bytes) in chunk.iter() {
            match serde_json::from_slice::<serde_json::Value>(bytes) {
                Ok(mut value) if value.is_object() => {
                    without_nulls(table, &mut value);
                    values.push(Ok::<_, ArrowError>(value));
                }
                _ if keeps => {}
                Ok(_) => return Err(Error::invalid(format!("line {line}: the line {NOT_AN_OBJECT}"))),
                Err(error) => return Err(Error::invalid(format!("line {line}: the line {NOT_AN_OBJECT}")).because(error)),
            }
        }
        rows += chunk.lines.len();
        let lines = (chunk.line(0), chunk.line(chunk.lines.len() - 1));
        let schema = infer_json_schema_from_iterator(values.into_iter())
            .map_err(|error| Error::invalid(format!("lines {} to {} do not fit together", lines.0, lines.1)).because(error))?;
        repair_core::lake::shape::merge(repair_core::model::Format::Jsonl, &mut all, &schema)?;
    }
    // The order of a JSON object's keys depends on how serde_json was built.
    all.sort_by(|a, b| a.name().cmp(b.name()));
    let fields: Vec<Field> = all.iter().map(|field| field.clone().with_data_type(sorted(field.data_type()))).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The values of the first lines, without nested ones.
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
            let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(bytes) else {
                rows.odd += 1;
                continue;
            };
            for (name, value) in object {
                let text = match value {
                    serde_json::Value::String(text) => Some(text).filter(|text| !text.is_empty()),
                    serde_json::Value::Null => None,
                    serde_json::Value::Object(_) | serde_json::Value::Array(_) => continue,
                    other => Some(other.to_string()),
                };
                let at = rows.names.iter().position(|known| *known == name).unwrap_or_else(|| {
                    rows.names.push(name);
                    rows.kinds.push(None);
                    rows.columns.push(vec![None; read]);
                    rows.names.len() - 1
                });
                rows.columns[at].push(text);
            }
            read += 1;
            rows.columns.iter_mut().for_each(|values| values.resize(read, None));
        }
    }
    Ok(rows)
}

/// Takes out the table's words for no value, which say nothing about a column's type.
fn without_nulls(table: &Table, value: &mut serde_json::Value) {
    if table.nulls.is_empty() && table.columns.is_empty() {
        return;
    }
    for (name, value) in value.as_object_mut().into_iter().flatten() {
        if value.as_str().is_some_and(|text| table.nulls_of(name).any(|word| word == text)) {
            *value = serde_json::Value::Null;
        }
    }
}

fn sorted(kind: &DataType) -> DataType {
    let field = |field: &Field| field.clone().with_data_type(sorted(field.data_type()));
    match kind {
        DataType::Struct(fields) => {
            let mut fields: Vec<Field> = fields.iter().map(|inner| field(inner)).collect();
            fields.sort_by(|a, b| a.name().cmp(b.name()));
            DataType::Struct(fields.into())
        }
        DataType::List(item) => DataType::List(Arc::new(field(item))),
        other => other.clone(),
    }
}

const NOT_AN_OBJECT: &str = "is not one JSON object with the table's columns; correct the line, or restore the file";

/// Reads columns: as text those that are parsed by us, the others in the type that `types` gives them. Columns that the lines lack are
/// null.
pub(super) fn rows(table: &Table, file: &DataFile, types: &Schema, judge: &mut Judge<'_>, sink: &mut RowsOf<'_>) -> Result<Usage> {
    let schema: SchemaRef = Arc::new(types.clone());
    let mut decoder = build(&schema)?;
    let mut flat = Flat::of(&schema);
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
