//! Scans: rows of a table, streamed file by file, so that no table is ever held in memory.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use repair_core::lake::{BatchStream, FILE, Layer, ScanRequest, overlay};
use repair_core::model::Usage;
use repair_core::model::{Format, Key, Table};
use repair_core::price::Meter;
use repair_core::{Error, ErrorKind, Result};

use crate::files::DataFile;
use crate::held::Small;
use crate::lake::Inner;
use crate::owner;
use crate::place::{self, Place};
use crate::read::{self, Joined, Next, Sink, Tally, Together};
use crate::threads::{self, stream_of};
use crate::view;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::shape::{self, Merged};

/// A scan that has been checked.
pub(crate) struct Scan {
    pub(crate) table: Table,
    pub(crate) place: Place,
    /// The table's files that may hold rows within the bounds.
    pub(crate) files: Vec<DataFile>,
    /// The columns to read, in shape, without the view's own column.
    pub(crate) shape: SchemaRef,
    /// The columns of the batches: the same, with the names by which they were requested, and the view's own column.
    pub(crate) schema: SchemaRef,
    /// All columns of the table, in shape.
    pub(crate) whole: SchemaRef,
    /// The columns by which rows are judged: all of the table if it leaves out bad rows, so that every reader leaves out the same.
    judged: SchemaRef,
    pub(crate) bounds: TimeBounds,
    pub(crate) keys: Option<HashSet<Key>>,
    pub(crate) layer: Layer,
    /// Whether the last column is the number of a row's file.
    with_files: bool,
    /// Counts the bytes that it reads, if nobody else does.
    meter: Option<Meter>,
    small: Small,
}

impl Scan {
    /// Prepares a scan.
    ///
    /// # Errors
    /// Everything that is wrong with the table, before the first batch.
    pub(crate) fn new(lake: &Inner, table: &Table, request: &ScanRequest) -> Result<Self> {
        let bounds = TimeBounds::of_interval(table, request.interval.as_ref());
        let mut scan = Self::within(lake, table, request.layer, bounds, request.keys.as_deref(), request.columns.as_deref())?;
        scan.check_owner(lake)?;
        if request.files {
            if request.layer != Layer::Raw {
                return Err(Error::internal("only the table's own rows are in its files"));
            }
            let mut fields: Vec<_> = scan.schema.fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(FILE, DataType::UInt64, false)));
            (scan.schema, scan.with_files) = (Arc::new(Schema::new(fields)), true);
        }
        Ok(scan)
    }

    /// Checks that the overlay is the table's own, if the scan reads it.
    ///
    /// # Errors
    /// `conflict` if it is that of another table.
    pub(crate) fn check_owner(&self, lake: &Inner) -> Result<()> {
        match self.layer {
            Layer::Raw => Ok(()),
            Layer::Repaired => owner::check(&lake.root, &self.table, &self.place),
        }
    }

    /// Prepares a scan of rows by bounds on their time. Whose the overlay is, is checked by [`Scan::check_owner`].
    pub(crate) fn within(
        lake: &Inner,
        table: &Table,
        layer: Layer,
        bounds: TimeBounds,
        keys: Option<&[Key]>,
        columns: Option<&[String]>,
    ) -> Result<Self> {
        shape::check_keys(table, keys.unwrap_or_default())?;
        let place = Place::of(&lake.root, table)?;
        let (files, schema) = lake.files_within(&place, table, &bounds)?;
        let is_without_files = schema.is_none();
        let schema = match schema {
            Some(schema) => schema,
            // All rows of the table are repairs.
            None => {
                let of_repairs = if layer == Layer::Repaired { repairs_schema(lake, table, &place)? } else { None };
                of_repairs.map_or_else(|| shape::of_table(table, vec![shape::time_field(table)]), Ok)?
            }
        };
        if layer == Layer::Repaired {
            shape::refuse_reserved(table, &schema)?;
        }
        let known_empty = is_without_files && schema.fields().len() == table.key.len() + 1;
        let shape = shape::project(table, &schema, columns.filter(|_| !known_empty))?;
        let judged = if read::quarantines(table) { shape::project(table, &schema, None)? } else { shape.clone() };
        let named = shape::as_requested(table, &shape, columns)?;
        let whole = schema;
        let schema = match layer {
            Layer::Raw => named,
            Layer::Repaired => overlay::view_schema(&named),
        };
        // Of no keys, there is nothing to read.
        let files = if keys.is_some_and(<[Key]>::is_empty) { Vec::new() } else { place::prune(files, &bounds) };
        let keys = keys.map(|keys| keys.iter().cloned().collect());
        let (table, small) = (table.clone(), lake.small());
        Ok(Self { table, place, files, shape, schema, whole, judged, bounds, keys, layer, with_files: false, meter: None, small })
    }

    /// The same scan, with its bytes counted.
    pub(crate) fn metered(self, meter: Option<Meter>) -> Self {
        Self { meter, ..self }
    }

    /// Counts the bytes of what was read. Its rows are counted by whoever gets them.
    pub(crate) fn count(&self, usage: Usage) {
        if let Some(meter) = &self.meter {
            meter.add(Usage { bytes_scanned: usage.bytes_scanned, ..Usage::default() });
        }
    }

    /// The same scan with more of the table's columns; `None` if it has them all.
    ///
    /// # Errors
    /// `invalid` if files disagree about one of them.
    pub(crate) fn with_columns<'a>(&self, more: impl Iterator<Item = &'a str>) -> Result<Option<Self>> {
        let more: Vec<&str> = more.filter(|name| self.shape.field_with_name(name).is_err()).collect();
        if more.is_empty() {
            return Ok(None);
        }
        let names = self.shape.fields().iter().map(|field| field.name().as_str()).chain(more);
        let names: Vec<String> = names.map(str::to_owned).collect();
        let shape = shape::project(&self.table, &self.whole, Some(&names))?;
        let judged = if read::quarantines(&self.table) { self.judged.clone() } else { shape.clone() };
        let (table, place, files) = (self.table.clone(), self.place.clone(), self.files.clone());
        let (schema, whole, keys) = (self.schema.clone(), self.whole.clone(), self.keys.clone());
        Ok(Some(Self {
            table,
            place,
            files,
            shape,
            schema,
            whole,
            judged,
            bounds: self.bounds,
            keys,
            layer: self.layer,
            with_files: false,
            meter: self.meter.clone(),
            small: self.small.clone(),
        }))
    }

    /// Reads it all, on this thread.
    pub(crate) fn run(&self, sink: &mut Sink<'_>) -> Result<()> {
        let mut named = |batch: RecordBatch| sink(self.named(batch)?);
        match self.layer {
            Layer::Raw if self.with_files => self.raw_with_files(&mut named),
            Layer::Raw => self.raw(&self.files, &self.bounds, &mut named).map(|_| ()),
            Layer::Repaired => view::read(self, &mut named),
        }
    }

    /// Reads the table's own rows, each with the number of its file. The files are in order.
    fn raw_with_files(&self, sink: &mut Sink<'_>) -> Result<()> {
        let mut tally = Tally::default();
        for (file, number) in self.files.iter().zip(0u64..) {
            let mut numbered = |batch: RecordBatch| {
                let numbers: ArrayRef = Arc::new(UInt64Array::from_value(number, batch.num_rows()));
                let columns = batch.columns().iter().cloned().chain([numbers]).collect();
                sink(RecordBatch::try_new(self.schema.clone(), columns)?)
            };
            let (flow, usage) = self.raw_file(file, &self.bounds, &mut tally, &mut numbered)?;
            self.count(usage);
            if flow.is_break() {
                return Ok(());
            }
        }
        tally.check(&self.table)
    }

    /// A batch with the names by which its columns were requested.
    fn named(&self, batch: RecordBatch) -> Result<RecordBatch> {
        if batch.schema_ref() == &self.schema {
            return Ok(batch);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)?)
    }

    /// Reads the table's own rows, in the order of the files. Many or large files are read on all processors.
    pub(crate) fn raw(&self, files: &[DataFile], bounds: &TimeBounds, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
        let mut tally = Tally::default();
        let all: Vec<&DataFile> = files.iter().collect();
        let parts = if is_parallel(files) { parts(&all) } else { vec![&all[..]] };
        let read = |files: &&[&DataFile], sink: &mut Sink<'_>| {
            let mut tally = Tally::default();
            self.raw_files(files, bounds, &mut tally, sink)?;
            Ok(tally)
        };
        if threads::read_in_order(&parts, read, sink, |of_part| tally.merge(of_part))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        tally.check(&self.table)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Reads some files one after the other. Rows of small files come in batches that several of them share.
    fn raw_files(&self, files: &[&DataFile], bounds: &TimeBounds, tally: &mut Tally, sink: &mut Sink<'_>) -> Result<()> {
        let wanted_columns = self.wanted_columns()?;
        let mut waiting = Waiting::default();
        let mut flow = ControlFlow::Continue(());
        let mut rest = Together::of(&self.table, files, &self.small);
        while let Some(next) = rest.next(&self.judged) {
            let bounds = next.first().map_or(*bounds, |first| within_reach(first, bounds));
            if waiting.bounds != bounds {
                flow = self.send(&mut waiting, sink)?;
                waiting.bounds = bounds;
            }
            if flow.is_break() {
                break;
            }
            let mut wanted = |batch: RecordBatch| {
                if !waiting.has_room(&batch) {
                    flow = self.send(&mut waiting, sink)?;
                }
                if flow.is_continue() {
                    waiting.add(project(batch, wanted_columns.as_deref())?);
                }
                Ok(flow)
            };
            match next {
                Next::Joined(_, Joined { batch, usage, .. }) => {
                    for from in (0..batch.num_rows()).step_by(read::BATCH_ROWS) {
                        if wanted(batch.slice(from, read::BATCH_ROWS.min(batch.num_rows() - from)))?.is_break() {
                            break;
                        }
                    }
                    tally.merge(Tally { rows_read: usage.rows_read, ..Tally::default() });
                    self.count(usage);
                }
                Next::Alone(file, _) => self.count(read::rows(&self.table, &file, &self.judged, &bounds, tally, &mut wanted)?),
            }
            if flow.is_break() {
                break;
            }
        }
        if flow.is_continue() {
            let _ = self.send(&mut waiting, sink)?;
        }
        Ok(())
    }

    /// Sends what waits.
    fn send(&self, waiting: &mut Waiting, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
        let bounds = waiting.bounds;
        match waiting.take()?.map(|batch| self.wanted(&batch, &bounds)).transpose()?.flatten() {
            Some(batch) => sink(batch),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// The numbers of the columns that were asked for among those that are read; `None` if these are the same.
    fn wanted_columns(&self) -> Result<Option<Vec<usize>>> {
        if self.judged == self.shape {
            return Ok(None);
        }
        self.shape.fields().iter().map(|field| Ok(self.judged.index_of(field.name())?)).collect::<Result<_>>().map(Some)
    }

    /// Reads the rows of one of the table's own files. The caller checks the tally when it has read all of them.
    pub(crate) fn raw_file(
        &self,
        file: &DataFile,
        bounds: &TimeBounds,
        tally: &mut Tally,
        sink: &mut Sink<'_>,
    ) -> Result<(ControlFlow<()>, Usage)> {
        let mut flow = ControlFlow::Continue(());
        let wanted_columns = self.wanted_columns()?;
        let bounds = &within_reach(file, bounds);
        let mut wanted = |batch: RecordBatch| {
            if let Some(batch) = self.wanted(&project(batch, wanted_columns.as_deref())?, bounds)? {
                flow = sink(batch)?;
            }
            Ok(flow)
        };
        let usage = read::rows(&self.table, file, &self.judged, bounds, tally, &mut wanted)?;
        Ok((flow, usage))
    }

    /// The rows within bounds, of the requested keys; `None` if there are none.
    fn wanted(&self, batch: &RecordBatch, bounds: &TimeBounds) -> Result<Option<RecordBatch>> {
        if *bounds == TimeBounds::ALL && self.keys.is_none() {
            return Ok((batch.num_rows() > 0).then(|| batch.clone()));
        }
        let rows = shape::KeyTime::of(&self.table, batch)?;
        let mut mask = BooleanBufferBuilder::new(batch.num_rows());
        let mut kept = 0;
        let mut add = |rows_of_key: std::ops::Range<usize>, is_wanted: bool| {
            for &time_us in &rows.times.values()[rows_of_key] {
                let inside = is_wanted && bounds.contains(time_us);
                kept += usize::from(inside);
                mask.append(inside);
            }
        };
        match &self.keys {
            None => add(0..batch.num_rows(), true),
            Some(keys) => rows.runs().for_each(|run| {
                let is_wanted = keys.contains(&rows.key(run.start));
                add(run, is_wanted);
            }),
        }
        Ok(match kept {
            0 => None,
            all if all == batch.num_rows() => Some(batch.clone()),
            _ => Some(filter_record_batch(batch, &BooleanArray::new(mask.finish(), None))?),
        })
    }
}

/// The bounds within which rows of a file are used: one too far from its folder never is.
fn within_reach(file: &DataFile, bounds: &TimeBounds) -> TimeBounds {
    file.reach.map_or(*bounds, |reach| reach.intersection(bounds))
}

fn project(batch: RecordBatch, columns: Option<&[usize]>) -> Result<RecordBatch> {
    match columns {
        Some(columns) => Ok(batch.project(columns)?),
        None => Ok(batch),
    }
}

/// Files that are smaller than this together are read on one thread, since starting others would take as long.
const MIN_PARALLEL_BYTES: u64 = if cfg!(debug_assertions) { 1 << 8 } else { 1 << 20 };

/// A thread reads small files until they have so many bytes, or are so many.
const PART_BYTES: u64 = if cfg!(debug_assertions) { 1 << 7 } else { 1 << 18 };
const PART_FILES: usize = 256;

/// Whether files are read on several threads.
fn is_parallel(files: &[DataFile]) -> bool {
    files.iter().map(|file| file.bytes).fold(0, u64::saturating_add) >= MIN_PARALLEL_BYTES
}

/// The files that a thread reads at a time. The first parts have few, so that whoever wants only a few rows does not wait for many files.
pub(crate) fn parts<'a, 'b>(files: &'b [&'a DataFile]) -> Vec<&'b [&'a DataFile]> {
    let (mut parts, mut rest, mut most) = (Vec::new(), files, 1);
    while !rest.is_empty() {
        let (mut count, mut bytes) = (0, 0u64);
        for file in rest.iter().take(most) {
            count += 1;
            bytes = bytes.saturating_add(file.bytes);
            if bytes >= PART_BYTES {
                break;
            }
        }
        let (part, others) = rest.split_at(count);
        parts.push(part);
        (rest, most) = (others, (2 * most).min(PART_FILES));
    }
    parts
}

/// So many bytes of rows wait at most to be joined with those of the next file.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// Rows that wait to be sent, all with the same bounds.
struct Waiting {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    bounds: TimeBounds,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { batches: Vec::new(), rows: 0, bytes: 0, bounds: TimeBounds::ALL }
    }
}

impl Waiting {
    fn has_room(&self, batch: &RecordBatch) -> bool {
        self.rows == 0 || self.rows + batch.num_rows() <= read::BATCH_ROWS && self.bytes < MAX_WAITING_BYTES
    }

    fn add(&mut self, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.rows += batch.num_rows();
            self.bytes = self.bytes.saturating_add(batch.get_array_memory_size());
            self.batches.push(batch);
        }
    }

    /// All of them, joined.
    fn take(&mut self) -> Result<Option<RecordBatch>> {
        (self.rows, self.bytes) = (0, 0);
        let mut batches = std::mem::take(&mut self.batches);
        match batches.as_slice() {
            [] | [_] => Ok(batches.pop()),
            [first, ..] => Ok(Some(concat_batches(first.schema_ref(), &batches)?)),
        }
    }
}

/// The columns of a table in shape, across all its files; `None` if it has none.
pub(crate) fn schema_of(lake: &Inner, table: &Table, files: &[DataFile]) -> Result<Option<SchemaRef>> {
    merged(table, files, &columns_of(lake, table, files)?)
}

/// The columns of each of some files, as it has them, after checking that it can be a file of the table.
pub(crate) fn columns_of(lake: &Inner, table: &Table, files: &[DataFile]) -> Result<Vec<SchemaRef>> {
    let all = lake.columns(table, files)?;
    for (file, columns) in files.iter().zip(&all) {
        // A file of JSON lines without lines does not determine any columns.
        if table.format != Format::Jsonl || !columns.fields().is_empty() {
            read::check(table, file, columns)?;
        }
    }
    Ok(all)
}

/// The columns of a table in shape, by those of all its files; `None` if it has none.
pub(crate) fn merged(table: &Table, files: &[DataFile], columns: &[SchemaRef]) -> Result<Option<SchemaRef>> {
    if files.is_empty() {
        return Ok(None);
    }
    let mut merged = Merged::default();
    let mut last: Option<&Schema> = None;
    for (file, schema) in files.iter().zip(columns) {
        // Most files have the same columns.
        if last != Some(schema.as_ref()) {
            merged.add(table.format, &file.path.display().to_string(), &read::in_shape(table, schema)?);
        }
        last = Some(schema);
    }
    Ok(Some(merged.finish(table)?))
}

/// The columns of a table that has only repairs.
fn repairs_schema(lake: &Inner, table: &Table, place: &Place) -> Result<Option<SchemaRef>> {
    owner::check(&lake.root, table, place)?;
    let Some(schema) = schema_of(lake, &table.of_repairs(), &place.repair_files()?)? else { return Ok(None) };
    let own = schema.fields().iter().filter(|field| !overlay::is_ours(field.name())).cloned().collect::<Vec<_>>();
    Ok(Some(Arc::new(Schema::new_with_metadata(own, schema.metadata().clone()))))
}

/// The columns of a table in shape.
pub(crate) fn describe(lake: &Inner, table: &Table) -> Result<SchemaRef> {
    repair_core::lake::partition::time_partition(table)?;
    let place = Place::of(&lake.root, table)?;
    lake.described(&place, table)?.ok_or_else(|| {
        let endings: Vec<String> = table.format.endings().iter().map(|ending| format!(".{ending}")).collect();
        Error::new(
            ErrorKind::NotFound,
            format!(
                "{} holds no {} files, so the columns of table `{}` are unknown; write the first file, or correct `location` or `format`",
                place.data.display(),
                endings.join(", "),
                table.name
            ),
        )
    })
}

/// Reads on a thread of its own, and streams the batches.
pub(crate) fn stream(scan: Arc<Scan>) -> BatchStream {
    stream_of(move |sink| scan.run(sink))
}

/// Rows of a table's overlay, in shape.
pub(crate) fn overlay_rows(
    table: &Table,
    files: &[DataFile],
    shape: &SchemaRef,
    bounds: &TimeBounds,
    usage: &mut Usage,
    sink: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    // The overlay is Parquet, whatever the table is.
    let ours = table.of_repairs();
    for file in files {
        *usage += read::rows(&ours, file, shape, bounds, &mut Tally::default(), &mut |batch| {
            sink(batch)?;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}
