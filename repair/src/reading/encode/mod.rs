//! Rows as text or Parquet, a batch at a time.

mod csv;
mod jsonl;
mod parquet;

use std::collections::HashSet;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

pub(super) use self::csv::{formatters, in_utc};
use repair_core::model::Format;
use repair_core::{Error, ErrorKind, Result};

/// A format that is being written.
trait Encode: Send {
    /// Writes what comes before the first row.
    fn begin(&mut self, schema: &SchemaRef) -> Result<()>;

    /// Writes rows.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Writes what comes after the last row, and flushes.
    fn finish(&mut self) -> Result<()>;
}

/// Writes batches in a format.
pub(super) struct Encoder {
    encode: Box<dyn Encode>,
    has_begun: bool,
}

impl Encoder {
    /// An encoder that writes to `out`, which messages call `name`.
    ///
    /// # Errors
    /// `invalid` if this version does not write the format.
    pub(super) fn new(format: Format, out: Box<dyn Write + Send>, name: String) -> Result<Self> {
        let encode: Box<dyn Encode> = match format {
            Format::Csv => Box::new(csv::Csv::new(out, name)),
            Format::Jsonl => Box::new(jsonl::Jsonl::new(out, name)),
            Format::Parquet => Box::new(parquet::Parquet::new(out, name)),
            other => return Err(Error::invalid(format!("rows are not written as {}", other.as_str())).hint(parquet_instead())),
        };
        Ok(Self { encode, has_begun: false })
    }

    /// Says which columns come, which every format writes first. Only the first call does something.
    ///
    /// # Errors
    /// `invalid` if the format cannot hold them.
    pub(super) fn begin(&mut self, schema: &SchemaRef) -> Result<()> {
        if self.has_begun {
            return Ok(());
        }
        let mut names = HashSet::new();
        if let Some(twice) = schema.fields().iter().find(|field| !names.insert(field.name())) {
            return Err(Error::invalid(format!("two columns are named `{}`; give one another name, with `AS` in SQL", twice.name())));
        }
        self.has_begun = true;
        self.encode.begin(schema)
    }

    /// Whether the columns are known.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Writes rows.
    ///
    /// # Errors
    /// `invalid` if the format cannot hold a value; `failed` if it cannot be written.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.begin(batch.schema_ref())?;
        self.encode.write(batch)
    }

    /// Ends what was written.
    ///
    /// # Errors
    /// `failed` if it cannot be written.
    pub(super) fn finish(mut self) -> Result<()> {
        self.encode.finish()
    }
}

/// The format that holds every column.
fn parquet_instead() -> repair_core::Hint {
    repair_core::Hint::FileFormat { name: "parquet" }
}

/// The error of a destination that takes no more.
fn unwritten(name: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, format!("{name} cannot be written")).because(error)
}

#[cfg(test)]
mod tests;
