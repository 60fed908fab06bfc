//! Rows as comma-separated values, as RFC 4180 quotes them. Every value can be read back as it was: nothing is put before text that a
//! spreadsheet would compute, and an empty text is quoted, while a null is empty.

use std::borrow::Cow;
use std::io::Write;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};

use super::{Encode, parquet_instead, unwritten};
use repair_core::{Error, Result};

/// Bytes that are collected before they are written.
const CHUNK_BYTES: usize = 1 << 16;

pub(super) struct Csv {
    out: Box<dyn Write + Send>,
    name: String,
    text: String,
}

impl Csv {
    pub(super) fn new(out: Box<dyn Write + Send>, name: String) -> Self {
        Self { out, name, text: String::new() }
    }

    fn drain(&mut self) -> Result<()> {
        self.out.write_all(self.text.as_bytes()).map_err(|error| unwritten(&self.name, error))?;
        self.text.clear();
        Ok(())
    }
}

impl Encode for Csv {
    fn begin(&mut self, schema: &SchemaRef) -> Result<()> {
        let nested: Vec<String> =
            schema.fields().iter().filter(|field| is_nested(field.data_type())).map(|field| format!("`{}`", field.name())).collect();
        if !nested.is_empty() {
            let (columns, hold) = if nested.len() == 1 { ("column", "holds") } else { ("columns", "hold") };
            let message = format!("CSV has no lists or records, and {columns} {} {hold} them", nested.join(", "));
            return Err(Error::invalid(message).hint(parquet_instead()));
        }
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.text.push_str(&quoted(field.name()));
        }
        self.text.push('\n');
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = in_utc(batch)?;
        let formatters = formatters(&columns)?;
        let mut cell = String::new();
        for row in 0..batch.num_rows() {
            for (index, (formatter, nulls)) in formatters.iter().enumerate() {
                if index > 0 {
                    self.text.push(',');
                }
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    // Readers skip a line without anything.
                    if formatters.len() == 1 {
                        self.text.push_str("\"\"");
                    }
                    continue;
                }
                cell.clear();
                formatter.value(row).write(&mut cell)?;
                self.text.push_str(&quoted(&cell));
            }
            self.text.push('\n');
            if self.text.len() >= CHUNK_BYTES {
                self.drain()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.drain()?;
        self.out.flush().map_err(|error| unwritten(&self.name, error))
    }
}

/// Text for each value of columns, and which values are null. Numbers have as many digits as it takes to read the same number back.
pub(in crate::reading) fn formatters(columns: &[ArrayRef]) -> Result<Vec<(ArrayFormatter<'_>, Option<NullBuffer>)>> {
    let options = FormatOptions::default().with_display_error(false).with_duration_format(DurationFormat::ISO8601);
    let of = |column: &'_ ArrayRef| -> Result<_> { Ok(column.logical_nulls()) };
    columns.iter().map(|column| Ok((ArrayFormatter::try_new(column.as_ref(), &options)?, of(column)?))).collect()
}

/// The columns of a batch, with instants of any zone in UTC.
pub(in crate::reading) fn in_utc(batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let in_utc = |column: &ArrayRef| match column.data_type() {
        DataType::Timestamp(unit, Some(zone)) if zone.as_ref() != "UTC" => {
            Ok(cast(column, &DataType::Timestamp(*unit, Some("UTC".into())))?)
        }
        _ => Ok(column.clone()),
    };
    batch.columns().iter().map(in_utc).collect()
}

fn is_nested(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_nested(values),
        other => other.is_nested(),
    }
}

/// A cell, quoted if it must be.
fn quoted(cell: &str) -> Cow<'_, str> {
    let is_plain = !cell.is_empty() && !cell.contains([',', '"', '\n', '\r']) && !cell.starts_with(' ') && !cell.ends_with(' ');
    if is_plain { Cow::Borrowed(cell) } else { Cow::Owned(format!("\"{}\"", cell.replace('"', "\"\""))) }
}
