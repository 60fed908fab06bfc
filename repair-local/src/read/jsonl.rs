//! JSON lines: one object on each line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::{Decoder, infer_json_schema_from_iterator};
use repair_core::model::Table;
use repair_core::model::Usage;
use repair_core::{Error, Result};

use super::text::{INFER_ROWS, Lines};
use super::{BATCH_ROWS, Sink, csv};
use crate::files::{self, DataFile};

/// A line longer than this is not a row; the file is not JSON lines.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Lines that are decoded together.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where each line ends in `bytes`, and its number in the file.
    lines: Vec<(usize, u64)>,
}

impl Lines for Chunk {
    fn line(&self, row: usize) -> u64 {
        self.lines.get(row).map_or(0, |(_, line)| *line)
    }
}

impl Chunk {
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
    reader: BufReader<File>,
    line: u64,
}

impl Chunks {
    fn open(file: &DataFile) -> Result<Self> {
        Ok(Self { reader: BufReader::with_capacity(1 << 18, files::open(&file.path)?), line: 0 })
    }

    /// The next lines that are not blank; `None` at the end.
    fn next(&mut self, file: &DataFile) -> Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        while chunk.lines.len() < BATCH_ROWS && chunk.bytes.len() < MAX_LINE_BYTES {
            let start = chunk.bytes.len();
            let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) + 1;
            let read = std::io::Read::take(&mut self.reader, limit)
                .read_until(b'\n', &mut chunk.bytes)
                .map_err(|error| files::io_error(error, "read", &file.path))?;
            if read == 0 {
                break;
            }
            self.line += 1;
            if read > MAX_LINE_BYTES {
                return Err(Error::invalid(format!(
                    "line {} is longer than {MAX_LINE_BYTES} bytes; write one object on each line",
                    self.line
                )));
            }
            if chunk.bytes[start..].iter().all(u8::is_ascii_whitespace) {
                chunk.bytes.truncate(start);
            } else {
                chunk.lines.push((chunk.bytes.len(), self.line));
            }
        }
        Ok((!chunk.lines.is_empty()).then_some(chunk))
    }
}

/// The columns, in order of name, with the types of the first rows.
pub(crate) fn columns(file: &DataFile) -> Result<SchemaRef> {
    let mut chunks = Chunks::open(file)?;
    let mut all: Vec<Field> = Vec::new();
    let mut rows = 0;
    while rows < INFER_ROWS
        && let Some(chunk) = chunks.next(file)?
    {
        let mut values = Vec::with_capacity(chunk.lines.len());
        for (line, bytes) in chunk.iter() {
            let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| not_an_object(line).because(error))?;
            if !value.is_object() {
                return Err(not_an_object(line));
            }
            values.push(Ok::<_, ArrowError>(value));
        }
        rows += values.len();
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

fn not_an_object(line: u64) -> Error {
    Error::invalid(format!("line {line} is not one JSON object with the table's columns; correct the line, or restore the file"))
}

/// Reads those columns of `shape` that the file has; the others are null.
pub(crate) fn rows(table: &Table, file: &DataFile, shape: &SchemaRef, sink: &mut Sink<'_>) -> Result<Usage> {
    // Whole numbers are read as text and parsed by us, since Arrow would silently turn 1.5 into 1.
    let as_text = |field: &Field| {
        let text = *field.name() == table.time || table.key.contains(field.name()) || *field.data_type() == DataType::Int64;
        let hive = table.key.contains(field.name()) && file.hive_value(field.name()).is_some();
        // A key that the path contains may be missing in the lines; it must not come as null then.
        (hive, Field::new(field.name(), if text { DataType::Utf8 } else { field.data_type().clone() }, true))
    };
    let fields: Vec<(bool, Field)> = shape.fields().iter().map(|field| as_text(field)).collect();
    let schema = Arc::new(Schema::new(fields.iter().map(|(_, field)| field.clone()).collect::<Vec<_>>()));
    let mut decoder = build(&schema)?;
    let mut chunks = Chunks::open(file)?;
    while let Some(chunk) = chunks.next(file)? {
        let batch = match decode(&mut decoder, &chunk.bytes) {
            Ok(Some(batch)) if batch.num_rows() == chunk.lines.len() => batch,
            result => return Err(first_bad_line(&schema, &chunk, result.err())?),
        };
        let kept: Vec<usize> = (0..fields.len()).filter(|&at| !fields[at].0 || batch.column(at).null_count() < batch.num_rows()).collect();
        let batch = csv::parsed(table, shape, &batch.project(&kept)?, &chunk)?;
        if sink(batch)? == ControlFlow::Break(()) {
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

/// The error of the first line that cannot be decoded on its own.
fn first_bad_line(schema: &SchemaRef, chunk: &Chunk, together: Option<ArrowError>) -> Result<Error> {
    for (line, bytes) in chunk.iter() {
        match decode(&mut build(schema)?, bytes) {
            Ok(Some(batch)) if batch.num_rows() == 1 => {}
            Ok(_) => return Ok(not_an_object(line)),
            Err(error) => return Ok(not_an_object(line).because(error)),
        }
    }
    let error = Error::invalid(format!("the lines from {} on are not one JSON object each", chunk.line(0)));
    Ok(match together {
        Some(cause) => error.because(cause),
        None => error,
    })
}
