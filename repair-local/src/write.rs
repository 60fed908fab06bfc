//! Writes Parquet files, whole or not at all, with the same bytes for the same rows. Each is sealed, so that later changes show.

use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use repair_core::lake::seal;
use repair_core::model::Usage;
use repair_core::{Error, Result};

use crate::files;

fn refused(error: ParquetError, path: &Path) -> Error {
    // The disk's own errors pass through the writer.
    match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(error) => files::io_error(*error, "write", path),
            Err(source) => Error::invalid(format!("could not write {}", path.display())).because(source),
        },
        other => Error::invalid(format!("could not write {} as Parquet", path.display())).because(other),
    }
}

/// Writes batches as one file, with key-value pairs in its footer.
pub(crate) fn parquet(path: &Path, schema: &SchemaRef, batches: &[RecordBatch], footer: Vec<(String, String)>) -> Result<Usage> {
    let pairs: Vec<KeyValue> = footer.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    let mut batches = batches.iter().cloned();
    write_parquet(path, schema, pairs, false, || Ok(batches.next()))
}

/// With more rows, what is read only once is compressed, too.
const MOST_PLAIN_ROWS: usize = 8_192;

/// A file that is soon read and removed again, ready to be written.
pub(crate) struct ForOnce {
    path: PathBuf,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    footer: Vec<(String, String)>,
    /// The file, if it has few rows.
    encoded: Option<Vec<u8>>,
}

impl ForOnce {
    /// Prepares a file. Few rows are not compressed: a file has a compressor and a decompressor for each of its columns, and these take a megabyte, and
    /// longer than all else.
    pub(crate) fn new(path: PathBuf, schema: SchemaRef, batches: Vec<RecordBatch>, footer: Vec<(String, String)>) -> Result<Self> {
        let mut new = Self { path, schema, batches, footer, encoded: None };
        if new.rows() <= MOST_PLAIN_ROWS {
            let pairs = std::mem::take(&mut new.footer).into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
            let properties =
                WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).set_key_value_metadata(Some(pairs)).build();
            let failed = |error| refused(error, &new.path);
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, new.schema.clone(), Some(properties)).map_err(failed)?;
            new.batches.iter().try_for_each(|batch| writer.write(batch)).map_err(failed)?;
            writer.close().map_err(failed)?;
            new.encoded = Some(bytes);
        }
        Ok(new)
    }

    fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Writes it.
    pub(crate) fn write(self) -> Result<Usage> {
        let rows_written = self.rows() as u64;
        let Self { path, schema, batches, footer, encoded } = self;
        let Some(bytes) = encoded else { return parquet(&path, &schema, &batches, footer) };
        let bytes_written = files::write_whole(&path, |file| {
            let mut written = *file.get_ref();
            let sealed = file.write_all(&bytes).and_then(|()| file.flush()).and_then(|()| seal::add(&mut written));
            sealed.map_err(|error| files::io_error(error, "write", &path))
        })?;
        Ok(Usage { rows_written, bytes_written, objects_written: 1, ..Usage::default() })
    }
}

/// Writes batches to one file as they come; whole numbers in them are mostly in order. On an error nothing of it is left, and the old file of that name stays.
pub(crate) fn parquet_as_it_comes(path: &Path, mut next: impl FnMut() -> Result<Option<RecordBatch>>) -> Result<Usage> {
    let Some(first) = next()? else {
        return write_parquet(path, &SchemaRef::new(Schema::empty()), Vec::new(), true, || Ok(None));
    };
    let schema = first.schema();
    let mut first = Some(first);
    write_parquet(path, &schema, Vec::new(), true, || first.take().map_or_else(&mut next, |first| Ok(Some(first))))
}

/// Memory for rows that wait for the end of their row group.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// The same where rows are only read again in their order, so that large row groups gain nothing.
const MAX_WAITING_BYTES_IN_ORDER: usize = 8 << 20;

fn write_parquet(
    path: &Path,
    schema: &SchemaRef,
    footer: Vec<KeyValue>,
    numbers_in_order: bool,
    mut next: impl FnMut() -> Result<Option<RecordBatch>>,
) -> Result<Usage> {
    let mut properties = WriterProperties::builder()
        // Level 1 is as fast as Snappy here and a third smaller; Athena, DataFusion and DuckDB all read it.
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(|error| refused(error, path))?))
        .set_key_value_metadata((!footer.is_empty()).then_some(footer));
    // Of numbers in order, the differences are small, and a dictionary helps nothing.
    for field in schema.fields().iter().filter(|field| numbers_in_order && *field.data_type() == DataType::Int64) {
        let column = ColumnPath::from(field.name().as_str());
        properties =
            properties.set_column_dictionary_enabled(column.clone(), false).set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    // Most measurements differ, and to look for those that do not takes longer than to write them.
    for field in schema.fields().iter().filter(|field| field.data_type().is_floating()) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
    }
    let properties = properties.build();
    let most_waiting = if numbers_in_order { MAX_WAITING_BYTES_IN_ORDER } else { MAX_WAITING_BYTES };
    let mut rows_written = 0;
    let bytes_written = files::write_whole(path, |file| {
        let mut writer = ArrowWriter::try_new(&mut *file, schema.clone(), Some(properties)).map_err(|error| refused(error, path))?;
        while let Some(batch) = next()? {
            rows_written += batch.num_rows() as u64;
            writer.write(&batch).map_err(|error| refused(error, path))?;
            if writer.in_progress_size() > most_waiting {
                writer.flush().map_err(|error| refused(error, path))?;
            }
        }
        writer.close().map_err(|error| refused(error, path))?;
        let mut written = *file.get_ref();
        file.flush().and_then(|()| seal::add(&mut written)).map_err(|error| files::io_error(error, "write", path))
    })?;
    Ok(Usage { rows_written, bytes_written, objects_written: 1, ..Usage::default() })
}
