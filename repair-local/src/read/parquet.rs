//! Parquet files: reads only the needed columns and row groups.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;
use parquet::schema::types::SchemaDescriptor;
use repair_core::model::{Repeated, Table, TimeForm, Usage};
use repair_core::{Error, ErrorKind, Result};

use super::Sink;
use super::pages::{Failure, Pages, Stopped};
use crate::files::{self, DataFile};
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::seal::{self, Verdict};
use repair_core::lake::shape;

const DAY_US: i64 = 86_400_000_000;

/// An open file, of which the footer has been read, but no rows. Cheap to clone. It stays the file that was opened, whatever is renamed to
/// its path, so threads that read parts of it read the same file.
#[derive(Clone)]
pub(crate) struct Opened {
    file: Shared,
    path: Arc<Path>,
    metadata: ArrowReaderMetadata,
}

/// A file for several threads: each read names its position, so they share none.
#[derive(Clone)]
pub(super) struct Shared {
    file: Arc<File>,
    bytes: u64,
    failed: Failed,
}

/// The first error of the disk while a file was read. A decoder passes it on as text at best, as if the file were damaged.
#[derive(Clone, Default)]
struct Failed(Arc<Mutex<Option<io::Error>>>);

impl Failed {
    fn note(&self, error: &io::Error) {
        if let Some(code) = error.raw_os_error().filter(|_| error.kind() != io::ErrorKind::Interrupted) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| io::Error::from_raw_os_error(code));
        }
    }

    /// Explains an error of the decoder.
    fn explain(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>, path: &Path) -> Error {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failed) => files::io_error(failed, "read", path),
            None => unreadable(error),
        }
    }
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Shared {
    type T = BufReader<Tail>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(self.tail(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        // A damaged footer may claim any length, so no more memory is requested than the file has bytes.
        let there = self.bytes.saturating_sub(start);
        if u64::try_from(length).unwrap_or(u64::MAX) > there {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of a file of {}", self.bytes)));
        }
        let mut bytes = vec![0; length];
        self.tail(start).read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

impl Shared {
    fn tail(&self, at: u64) -> Tail {
        Tail { file: self.file.clone(), at, failed: self.failed.clone() }
    }
}

/// The content of a file from a position on.
pub(super) struct Tail {
    file: Arc<File>,
    at: u64,
    failed: Failed,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(self.file.as_ref(), buffer, self.at);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(self.file.as_ref(), buffer, self.at);
        let read = read.inspect_err(|error| self.failed.note(error))?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Explains an error of the decoder.
fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = error.into();
    if let Some((_, codec)) = error.to_string().split_once("Disabled feature at compile time: ") {
        return Error::invalid(format!(
            "its columns are compressed with {codec}, which is not read here; write the file with zstd or snappy"
        ));
    }
    Error::invalid(
        "not a readable Parquet file: it is damaged, cut off, or still being written; restore it, or move it away, or begin its name with `_`",
    )
    .because(error)
}

/// Opens a file and reads its footer.
pub(crate) fn open(file: &DataFile) -> Result<Opened> {
    // What is listed and gone a moment later is not "nothing": its rows are in another file now.
    let opened = files::open(&file.path).map_err(|error| match error.kind() {
        ErrorKind::NotFound if file.is_ours => {
            let message = format!("{} was removed while its table was being read, as a compaction does; try again", file.path.display());
            Error::new(ErrorKind::Transient, message).because(error)
        }
        _ => error,
    })?;
    // Its size is read now, since it may have been replaced after it was listed.
    let metadata = opened.metadata().map_err(|error| files::io_error(error, "look at", &file.path))?;
    let bytes = metadata.len();
    if bytes == 0 {
        return Err(Error::invalid("the file is empty, so its writer failed; remove it, or write it again"));
    }
    check_seal(&opened, &metadata, file)?;
    footer(opened, bytes, &file.path)
}

/// Reads the footer of an open file.
fn footer(opened: File, bytes: u64, path: &Path) -> Result<Opened> {
    let shared = Shared { file: Arc::new(opened), bytes, failed: Failed::default() };
    let metadata = ArrowReaderMetadata::load(&shared, ArrowReaderOptions::new());
    let metadata = plain(metadata.map_err(|error| shared.failed.explain(error, path))?);
    Ok(Opened { file: shared, path: path.into(), metadata })
}

/// The same columns, without types that only Arrow has: they come from the schema that Arrow adds to a file, and other programs do not see them. A date in milliseconds, which
/// the file has as a number, is a timestamp, and a dictionary is what its values are.
fn plain(metadata: ArrowReaderMetadata) -> ArrowReaderMetadata {
    let descriptor = metadata.parquet_schema();
    let mut leaf = 0;
    let fields: Fields = metadata.schema().fields().iter().map(|field| plain_field(field, descriptor, &mut leaf)).collect();
    if fields == *metadata.schema().fields() {
        return metadata;
    }
    let schema = Schema::new_with_metadata(fields, metadata.schema().metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    // What cannot be read so is read as it is.
    ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).unwrap_or(metadata)
}

/// A field as [`plain`] has it, and the number of the first leaf behind it.
fn plain_field(field: &FieldRef, descriptor: &SchemaDescriptor, leaf: &mut usize) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain_field(field, descriptor, leaf)).collect()),
        DataType::List(item) => DataType::List(plain_field(item, descriptor, leaf)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item, descriptor, leaf)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(plain_field(item, descriptor, leaf), *length),
        DataType::Map(entries, is_sorted) => DataType::Map(plain_field(entries, descriptor, leaf), *is_sorted),
        flat => {
            let is_whole = *leaf < descriptor.num_columns() && descriptor.column(*leaf).physical_type() == PhysicalType::INT64;
            *leaf += 1;
            plain_type(flat, is_whole)
        }
    };
    if kind == *field.data_type() { field.clone() } else { Arc::new(field.as_ref().clone().with_data_type(kind)) }
}

fn plain_type(kind: &DataType, is_whole: bool) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => plain_type(values, is_whole),
        DataType::Date64 if is_whole => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Date64 => DataType::Date32,
        other => other.clone(),
    }
}

/// Files whose seals were found intact, by path, with their size and time.
static INTACT: LazyLock<Mutex<HashMap<PathBuf, (u64, SystemTime)>>> = LazyLock::new(Mutex::default);

/// More files than this are not remembered.
const MAX_INTACT: usize = 65_536;

/// A file that was written within this time may be written again without a change of its time.
const RECENT: Duration = Duration::from_secs(2);

/// The verdict on an open file.
pub(crate) fn verdict(mut file: &File, path: &Path) -> Result<Verdict> {
    seal::check(&mut file).map_err(|error| files::io_error(error, "read", path))
}

/// Checks that a sealed file is what we wrote, unless this process has done so. Like our own state, the tables that aggregate steps write are
/// sealed, whatever they are read as.
fn check_seal(opened: &File, metadata: &Metadata, file: &DataFile) -> Result<()> {
    let path = &file.path;
    let known = || INTACT.lock().unwrap_or_else(PoisonError::into_inner);
    let now = metadata.modified().ok().map(|modified| (metadata.len(), modified));
    if now.is_some() && known().get(path) == now.as_ref() {
        return Ok(());
    }
    match verdict(opened, path)? {
        Verdict::Changed => return Err(changed(file)),
        // Of files that others write, nothing needs to be remembered.
        Verdict::Unsealed if !file.is_ours => return Ok(()),
        Verdict::Unsealed | Verdict::Intact => {}
    }
    if let Some((bytes, modified)) = now
        && modified.elapsed().is_ok_and(|age| age > RECENT)
    {
        let mut known = known();
        if known.len() >= MAX_INTACT {
            known.clear();
        }
        known.insert(path.to_owned(), (bytes, modified));
    }
    Ok(())
}

/// Forgets files that are removed, so that the memory does not grow with what was staged.
pub(crate) fn forget(paths: &[PathBuf]) {
    let mut known = INTACT.lock().unwrap_or_else(PoisonError::into_inner);
    paths.iter().for_each(|path| _ = known.remove(path));
}

/// The error for a file of ours that is not what we wrote.
fn changed(file: &DataFile) -> Error {
    let help =
        if file.is_ours { "restore it from a backup" } else { "restore it from a backup, or run the step again that writes the table" };
    Error::invalid(format!("the file is not what we wrote: something has changed it since; {help}"))
}

/// Whether a path is a Parquet file with a column of this name. One that is damaged has none.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn has_column(path: &Path, name: &str) -> Result<bool> {
    let opened = files::open(path)?;
    let bytes = opened.metadata().map_err(|error| files::io_error(error, "look at", path))?.len();
    match footer(opened, bytes, path) {
        Ok(opened) => Ok(opened.metadata.schema().field_with_name(name).is_ok()),
        Err(error) if error.kind() == ErrorKind::Invalid => Ok(false),
        Err(error) => Err(error),
    }
}

impl Opened {
    /// The columns, as the file has them.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }

    /// The number of rows in a row group.
    pub(crate) fn rows_of(&self, group: usize) -> u64 {
        u64::try_from(self.footer().row_group(group).num_rows()).unwrap_or(0)
    }

    /// The footer.
    pub(crate) fn footer(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// The row groups that may hold rows within bounds, by the statistics of their time column.
    pub(crate) fn groups(&self, table: &Table, bounds: &TimeBounds) -> Result<Vec<usize>> {
        let all = 0..self.footer().num_row_groups();
        if *bounds == TimeBounds::ALL {
            return Ok(all.collect());
        }
        let times = self.times(table)?;
        let may_overlap = |time: &TimeBounds| time.from_us < bounds.to_us && time.to_us > bounds.from_us;
        Ok(all.zip(&times).filter(|(_, time)| time.as_ref().is_none_or(may_overlap)).map(|(group, _)| group).collect())
    }

    /// The time of the rows of each row group, by the statistics of the time column; `None` where these do not say.
    pub(crate) fn times(&self, table: &Table) -> Result<Vec<Option<TimeBounds>>> {
        let footer = self.footer();
        let schema = self.metadata.schema();
        let unknown = vec![None; footer.num_row_groups()];
        let Ok(field) = schema.field_with_name(&table.time) else { return Ok(unknown) };
        let is_time = matches!(field.data_type(), DataType::Timestamp(_, _) | DataType::Date32);
        // The order of all rows of a file may matter, and text and numbers are not compared as times.
        let in_order = table.reading.repeated == Repeated::FileOrder;
        let is_own = table.reading.columns.is_empty() && table.reading.form == TimeForm::Iso;
        if !is_time || in_order || !is_own {
            return Ok(unknown);
        }
        // The statistics of local times are off by the offset of their zone, which is less than a day.
        let off_us = if table.reading.zone.is_some() || !table.date_zone().is_utc() { DAY_US } else { 0 };
        let converter = StatisticsConverter::try_new(&table.time, schema, footer.file_metadata().schema_descr()).map_err(unreadable)?;
        let least = converter.row_group_mins(footer.row_groups()).map_err(unreadable)?;
        let greatest = converter.row_group_maxes(footer.row_groups()).map_err(unreadable)?;
        let time = |group: usize| {
            let (least, greatest) = (statistic(table, &least, group)?, statistic(table, &greatest, group)?);
            Some(TimeBounds { from_us: least.saturating_sub(off_us), to_us: greatest.saturating_add(1).saturating_add(off_us) })
        };
        Ok((0..footer.num_row_groups()).map(time).collect())
    }

    /// The same file, with these text columns as dictionaries if it can be read so. Each row then costs four bytes, however long its key
    /// is.
    pub(crate) fn with_dictionaries(self, columns: &[String]) -> Self {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let mut changed = false;
        let fields: Vec<Field> = self
            .metadata
            .schema()
            .fields()
            .iter()
            .map(|field| {
                if columns.contains(field.name()) && shape::is_text(field.data_type()) && *field.data_type() != dictionary {
                    changed = true;
                    field.as_ref().clone().with_data_type(dictionary.clone())
                } else {
                    field.as_ref().clone()
                }
            })
            .collect();
        if !changed {
            return self;
        }
        let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
        match ArrowReaderMetadata::try_new(self.metadata.metadata().clone(), options) {
            Ok(metadata) => Self { metadata, ..self },
            Err(_) => self,
        }
    }

    /// Whether no row has a value in a column, as the footer says.
    pub(crate) fn has_no_value(&self, name: &str) -> bool {
        let is_empty = |column: &ColumnChunkMetaData| {
            let nulls = column.statistics().and_then(Statistics::null_count_opt);
            nulls.is_some_and(|nulls| i64::try_from(nulls).is_ok_and(|nulls| nulls == column.num_values()))
        };
        let is_it = |column: &&ColumnChunkMetaData| column.column_path().parts().first().is_some_and(|root| root == name);
        self.footer().row_groups().iter().all(|group| group.columns().iter().filter(is_it).all(is_empty))
    }

    /// Reads columns of row groups; columns that the file lacks are left out.
    pub(crate) fn read(self, columns: &[&str], groups: &[usize], batch_rows: usize, sink: &mut Sink<'_>) -> Result<Usage> {
        let roots: Vec<usize> = self
            .metadata
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| columns.contains(&field.name().as_str()))
            .map(|(at, _)| at)
            .collect();
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let mut usage = Usage::default();
        for &group in groups {
            let row_group = self.metadata.metadata().row_group(group);
            usage.rows_read += self.rows_of(group);
            for (leaf, column) in row_group.columns().iter().enumerate() {
                if mask.leaf_included(leaf) {
                    usage.bytes_scanned += u64::try_from(column.compressed_size()).unwrap_or(0);
                }
            }
        }
        if groups.is_empty() {
            return Ok(usage);
        }
        let (pages, mut rows) =
            Pages::new(&self.file, self.footer(), &mask, groups, batch_rows).map_err(|(error, stopped)| self.explain(error, stopped))?;
        let mut done = 0;
        // Whatever takes too much memory at once is read again from there on, in smaller batches.
        loop {
            match self.batches(&pages.again(), &mask, groups, rows, &mut done, sink)? {
                None => return Ok(usage),
                Some((_, Some(Stopped::SmallerBatch))) if rows > 1 => rows = (rows / 8).max(1),
                Some((error, stopped)) => return Err(self.explain(error, stopped)),
            }
        }
    }

    /// Explains an error of the decoder.
    fn explain(&self, error: ParquetError, stopped: Option<Stopped>) -> Error {
        match stopped {
            Some(Stopped::Refused(why)) => Error::invalid(why),
            Some(Stopped::SmallerBatch) => Error::invalid(TOO_WIDE),
            None => self.file.failed.explain(error, &self.path),
        }
    }

    /// Reads batches of so many rows, after those that are done. `None` at the end.
    fn batches(
        &self,
        pages: &Pages,
        mask: &ProjectionMask,
        groups: &[usize],
        rows: usize,
        done: &mut usize,
        sink: &mut Sink<'_>,
    ) -> Result<Option<Failure>> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(pages.clone(), self.metadata.clone())
            .with_projection(mask.clone())
            .with_row_groups(groups.to_vec())
            .with_batch_size(rows);
        let builder = if *done > 0 { builder.with_offset(*done) } else { builder };
        let reader = match builder.build() {
            Ok(reader) => reader,
            Err(error) => return Ok(Some((error, pages.stopped()))),
        };
        for batch in reader {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Ok(Some((error.into(), pages.stopped()))),
            };
            pages.batch_ended();
            *done += batch.num_rows();
            if sink(batch)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(None)
    }
}

const TOO_WIDE: &str =
    "one row of the file takes more than 256 MiB of memory; leave its longest values out, or write them to files of their own";

/// A statistic of the time column of a row group; `None` if it is missing or odd.
fn statistic(table: &Table, all: &ArrayRef, group: usize) -> Option<i64> {
    let one = all.slice(group, 1);
    if one.is_null(0) { None } else { shape::instants(table, &one).ok().map(|times| times.value(0)) }
}
