//! CSV files with a header. Columns are found by name, so files may have them in different orders.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::{BufReader as CsvReader, Format};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use repair_core::model::Table;
use repair_core::model::Usage;
use repair_core::{Error, Result};

use super::text::{self, INFER_ROWS, Lines};
use super::{BATCH_ROWS, Sink};
use crate::files::{self, DataFile};

const BUFFER_BYTES: usize = 1 << 18;

/// The most bytes of a batch of rows: a quote that is never closed would make one field of the rest of the file. Debug builds use so few
/// that a test can reach it.
const MAX_BATCH_BYTES: usize = if cfg!(debug_assertions) { 8 << 20 } else { 256 << 20 };

const DAY_S: i64 = 86_400;

/// Rows of a batch, and the number of its first record; the header is record 0.
struct FromRecord<'a> {
    file: &'a DataFile,
    record: u64,
}

impl Lines for FromRecord<'_> {
    /// Finds the line by reading the file again, which is done only for an error.
    fn line(&self, row: usize) -> u64 {
        let wanted = self.record + row as u64;
        // A good guess, in case the file is gone.
        let mut found = wanted + 1;
        let _ = records(self.file, |record| {
            if record.number == wanted {
                found = record.line;
            }
            if record.number < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        found
    }
}

/// A record of a file. Records are not lines: blank lines are none, and a quoted field may contain line ends.
#[derive(Default)]
struct Record {
    /// Counted from 0, the header.
    number: u64,
    /// The line on which it begins, from 1.
    line: u64,
    fields: usize,
}

/// Visits the records of a file, split as the reader splits them.
fn records(file: &DataFile, mut each: impl FnMut(&Record) -> ControlFlow<()>) -> Result<()> {
    #[derive(PartialEq)]
    enum In {
        Nothing,
        FieldStart,
        Field,
        Quotes,
        /// After a quote within quotes: either the closing quote, or the first of two that stand for one.
        Quote,
    }
    let mut reader = open(file)?;
    let (mut record, mut line, mut state) = (Record::default(), 1, In::Nothing);
    loop {
        let bytes = reader.fill_buf().map_err(|error| files::io_error(error, "read", &file.path))?;
        if bytes.is_empty() {
            break;
        }
        for &byte in bytes {
            let ends = matches!(byte, b'\n' | b'\r') && state != In::Quotes;
            if ends && state != In::Nothing {
                if each(&record).is_break() {
                    return Ok(());
                }
                record.number += 1;
            }
            if !ends && state == In::Nothing {
                (record.line, record.fields, state) = (line, 1, In::FieldStart);
            }
            line += u64::from(byte == b'\n');
            state = match (state, byte) {
                _ if ends => In::Nothing,
                (In::FieldStart | In::Quote, b'"') => In::Quotes,
                (In::Quotes, b'"') => In::Quote,
                (In::Quotes, _) => In::Quotes,
                (_, b',') => {
                    record.fields += 1;
                    In::FieldStart
                }
                _ => In::Field,
            };
        }
        let read = bytes.len();
        reader.consume(read);
    }
    if state != In::Nothing {
        let _ = each(&record);
    }
    Ok(())
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid("not readable as CSV with a header; correct the line, or restore the file").because(error)
}

/// The error of a reader that stopped at a record.
fn broken_from(file: &DataFile, fields: usize, first: u64, error: ArrowError) -> Error {
    let mut odd = None;
    let _ = records(file, |record| {
        if record.number < first || record.fields == fields {
            return ControlFlow::Continue(());
        }
        odd = Some((record.line, record.fields));
        ControlFlow::Break(())
    });
    match odd {
        None => broken(error),
        Some((line, got)) => {
            Error::invalid(format!("line {line} has {got} fields, and the header {fields}; correct the line, or restore the file"))
        }
    }
}

/// Opens a file after its byte-order mark, which spreadsheets write.
fn open(file: &DataFile) -> Result<BufReader<File>> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, files::open(&file.path)?);
    let start = reader.fill_buf().map_err(|error| files::io_error(error, "read", &file.path))?;
    if start.starts_with(b"\xEF\xBB\xBF") {
        reader.consume(3);
    }
    Ok(reader)
}

/// The names in the header.
fn header(file: &DataFile) -> Result<Vec<String>> {
    let mut reader = open(file)?;
    if reader.fill_buf().map_err(|error| files::io_error(error, "read", &file.path))?.is_empty() {
        return Err(Error::invalid("the file is empty, without even a header line, so its writer failed; remove it, or write it again"));
    }
    let limited = Limited { inner: reader, left: Rc::new(Cell::new(MAX_BATCH_BYTES)) };
    let (schema, _) = Format::default().with_header(true).infer_schema(limited, Some(0)).map_err(broken)?;
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Error::invalid(format!("the header names column `{}` twice; rename one", twice.1)));
    }
    Ok(names)
}

/// A file of which only a limited number of bytes may be read, until more are allowed.
struct Limited {
    inner: BufReader<File>,
    left: Rc<Cell<usize>>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Limited {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left.get() == 0 {
            let message = format!("{BATCH_ROWS} rows take more than {MAX_BATCH_BYTES} bytes; is a quote missing its end?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, read: usize) {
        self.left.set(self.left.get().saturating_sub(read));
        self.inner.consume(read);
    }
}

/// Batches of text columns.
struct Batches {
    reader: CsvReader<Limited>,
    left: Rc<Cell<usize>>,
}

impl Iterator for Batches {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left.set(MAX_BATCH_BYTES);
        self.reader.next()
    }
}

/// Reads columns as text.
fn reader(file: &DataFile, names: &[String], projection: Vec<usize>) -> Result<Batches> {
    let left = Rc::new(Cell::new(MAX_BATCH_BYTES));
    let limited = Limited { inner: open(file)?, left: left.clone() };
    let fields: Vec<Field> = names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let reader = ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_header(true)
        .with_batch_size(BATCH_ROWS)
        .with_projection(projection)
        .build_buffered(limited)
        .map_err(broken)?;
    Ok(Batches { reader, left })
}

/// The columns, with the types of their first rows; of type null if those hold nothing.
pub(crate) fn columns(file: &DataFile) -> Result<SchemaRef> {
    let names = header(file)?;
    let mut types = vec![DataType::Null; names.len()];
    let mut rows = 0;
    for batch in reader(file, &names, (0..names.len()).collect())? {
        let batch = batch.map_err(|error| broken_from(file, names.len(), rows as u64 + 1, error))?;
        for (kind, column) in types.iter_mut().zip(batch.columns()) {
            for text in column.as_string::<i32>().iter().flatten() {
                if *kind == DataType::Utf8 {
                    break;
                }
                *kind = text::widen(kind, &text::type_of(text));
            }
        }
        rows += batch.num_rows();
        if rows >= INFER_ROWS {
            break;
        }
    }
    let fields: Vec<Field> = names.into_iter().zip(types).map(|(name, kind)| Field::new(name, kind, true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Reads those columns of `shape` that the file has.
pub(crate) fn rows(table: &Table, file: &DataFile, shape: &SchemaRef, sink: &mut Sink<'_>) -> Result<Usage> {
    let names = header(file)?;
    let projection: Vec<usize> = (0..names.len()).filter(|&at| shape.field_with_name(&names[at]).is_ok()).collect();
    let mut lines = FromRecord { file, record: 1 };
    for batch in reader(file, &names, projection)? {
        let batch = batch.map_err(|error| broken_from(file, names.len(), lines.record, error))?;
        let rows = batch.num_rows() as u64;
        if sink(parsed(table, shape, &batch, &lines)?)? == ControlFlow::Break(()) {
            break;
        }
        lines.record += rows;
    }
    Ok(Usage { bytes_scanned: file.bytes, ..Usage::default() })
}

/// Text columns, converted to their types in `shape`.
pub(crate) fn parsed(table: &Table, shape: &Schema, batch: &RecordBatch, lines: &dyn Lines) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name();
        let target = shape.field_with_name(name).map_or(&DataType::Utf8, Field::data_type);
        let column = match column.as_string_opt::<i32>() {
            None => column.clone(),
            Some(text) if *name == table.time => {
                let dates = table.cadence.is_none_or(|cadence| i64::from(cadence.seconds()) == DAY_S);
                text::times(name, text, dates, lines)?
            }
            Some(text) if table.key.contains(name) => {
                text::refuse_missing_key(name, text, lines)?;
                column.clone()
            }
            Some(text) => text::values(name, text, target, lines)?,
        };
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}
