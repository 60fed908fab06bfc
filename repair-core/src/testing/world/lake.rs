//! A lake in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::rows;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::extent::{Extent, ExtentPart, Listing};
use crate::lake::overlay::compaction::{self, Compactable, Compacted, Member};
use crate::lake::overlay::owner::Kind;
use crate::lake::overlay::retraction::{Retracted, Retraction};
use crate::lake::overlay::staging;
use crate::lake::overlay::{self, Op};
use crate::lake::pieces;
use crate::lake::rollup::{self, Rollup, column};
use crate::lake::row_count;
use crate::lake::seal::Verdict;
use crate::lake::{
    ArtifactName, Artifacts, BatchStream, Caller, KeptObject, Lake, Layer, Overlay, PresenceRequest, PresenceStream, Published, ReadLake,
    RowCountRequest, RowCounts, ScanRequest, StageRequest, StageScope, Staged, StateCheck, name, shape,
};
use crate::model::Usage;
use crate::model::{Absence, Interval, Key, Presence, SlotRange, SlotSet, Table, TablePresence};

/// A lake in memory. Tests put tables in, and a clone is the same lake.
///
/// It keeps every promise of [`Lake`], except that it ends with the process and that [`ReadLake::query`] always fails. Tables are known by
/// their location; the overlay of `bars` is the tables `bars_repairs` and `bars_exceptions`, as in any lake. Do not rely on the order of
/// rows.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
/// use repair_core::lake::ReadLake;
/// use repair_core::model::{Cadence, Format, Table, TimeMark};
/// use repair_core::testing::MemoryLake;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bars = Table {
///     name: "bars".into(),
///     location: "bars".into(),
///     format: Format::Parquet,
///     partition_by: vec![],
///     key: vec!["symbol".into()],
///     time: "ts".into(),
///     time_marks: TimeMark::Start,
///     cadence: Some(Cadence::MINUTE),
///     ..Table::implicit("bars", "ts")
/// };
/// let rows = RecordBatch::try_from_iter([
///     ("symbol", Arc::new(StringArray::from(vec!["IBM"])) as _),
///     ("ts", Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC")) as _),
///     ("close", Arc::new(Float64Array::from(vec![187.5])) as _),
/// ])?;
/// let lake = MemoryLake::default();
/// lake.put_table(&bars, &[rows])?;
/// assert_eq!(lake.describe(&bars).await?.fields().len(), 3);
/// assert_eq!(lake.requests("describe"), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryLake {
    state: Arc<Mutex<State>>,
}

/// The objects of a table, by name: each holds batches in shape.
type Objects = BTreeMap<String, Vec<RecordBatch>>;

#[derive(Debug, Default)]
struct State {
    /// By location.
    tables: BTreeMap<String, Objects>,
    /// By run, step and visit, then unit.
    staged: BTreeMap<(String, String, u32), BTreeMap<String, StagedUnit>>,
    /// By run and name.
    artifacts: BTreeMap<(String, String), Vec<RecordBatch>>,
    requests: BTreeMap<&'static str, u64>,
    scans: Vec<(String, ScanRequest)>,
    /// By location, then id.
    retractions: BTreeMap<String, BTreeMap<String, Retraction>>,
}

#[derive(Debug)]
struct StagedUnit {
    summary: Staged,
    repairs: Vec<RecordBatch>,
    exceptions: Vec<RecordBatch>,
}

/// The object that holds the rows that the test put in.
const RAW: &str = "raw";
/// The object that holds the rows that [`Lake::replace`] wrote.
const OURS: &str = "ours";

impl MemoryLake {
    /// Sets all rows of a table, as its owner would. Batches without rows set its columns.
    ///
    /// # Errors
    /// `invalid` if the key or time column is missing or unusable.
    pub fn put_table(&self, table: &Table, batches: &[RecordBatch]) -> Result<()> {
        let batches = batches.iter().map(|batch| rows::in_shape(table, batch)).collect::<Result<Vec<_>>>()?;
        rows::merged(&batches)?;
        self.state().tables.insert(table.location.clone(), BTreeMap::from([(RAW.to_owned(), batches)]));
        Ok(())
    }

    /// Adds rows to a table, as its owner would when data arrives late. Creates the table if there is none.
    ///
    /// # Errors
    /// As [`MemoryLake::put_table`], and `invalid` if a column of the table is of another type.
    pub fn add_rows(&self, table: &Table, batches: &[RecordBatch]) -> Result<()> {
        let batches = batches.iter().map(|batch| rows::in_shape(table, batch)).collect::<Result<Vec<_>>>()?;
        let mut state = self.state();
        let objects = state.tables.entry(table.location.clone()).or_default();
        rows::merged(objects.values().flatten().chain(&batches))?;
        objects.entry(RAW.to_owned()).or_default().extend(batches);
        Ok(())
    }

    /// The rows of a table as one batch, without counting as a request.
    ///
    /// # Errors
    /// As [`ReadLake::scan`].
    pub fn rows(&self, table: &Table, layer: Layer) -> Result<RecordBatch> {
        let request = ScanRequest::new(layer);
        let (schema, batches) = self.state().scan(table, &request)?;
        Ok(concat_batches(&schema, &batches)?)
    }

    /// How often a method of the lake was called, by the method's name.
    pub fn requests(&self, method: &str) -> u64 {
        self.state().requests.get(method).copied().unwrap_or(0)
    }

    /// The scans so far, each with the location of its table.
    pub fn scans(&self) -> Vec<(String, ScanRequest)> {
        self.state().scans.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, method: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        *state.requests.entry(method).or_default() += 1;
        state
    }
}

impl State {
    /// The rows of a table, as they are stored.
    fn table(&self, table: &Table) -> Result<Vec<RecordBatch>> {
        let objects = self.tables.get(&table.location).ok_or_else(|| {
            let message = format!("no table at `{}`; put it in, or correct `location` of table `{}`", table.location, table.name);
            Error::new(ErrorKind::NotFound, message)
        })?;
        Ok(objects.values().flatten().cloned().collect())
    }

    fn overlay(&self, location: &str) -> Vec<RecordBatch> {
        self.tables.get(location).into_iter().flat_map(BTreeMap::values).flatten().cloned().collect()
    }

    fn repairs(&self, table: &Table) -> Vec<RecordBatch> {
        self.overlay(&overlay::repairs(&table.location))
    }

    fn retractions(&self, table: &Table) -> Vec<Retraction> {
        let mut all: Vec<Retraction> = self.retractions.get(&table.location).into_iter().flat_map(BTreeMap::values).cloned().collect();
        all.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        all
    }

    /// The repairs that are not retracted.
    fn repairs_in_force(&self, table: &Table) -> Result<Vec<RecordBatch>> {
        self.in_force(table, self.repairs(table), Retracted::hides_repair)
    }

    fn in_force(
        &self,
        table: &Table,
        batches: Vec<RecordBatch>,
        hides: impl Fn(&Retracted, &str, &str, &Key, i64) -> bool,
    ) -> Result<Vec<RecordBatch>> {
        let retracted = Retracted::of(table, &self.retractions(table));
        let mut kept = Vec::with_capacity(batches.len());
        for batch in batches {
            let runs = column(&batch, overlay::columns::RUN)?.as_string::<i32>();
            let steps = column(&batch, overlay::columns::STEP)?.as_string::<i32>();
            let mut row = 0;
            kept.push(rows::kept(table, &batch, |key, time_us| {
                let hidden = hides(&retracted, runs.value(row), steps.value(row), key, time_us);
                row += 1;
                !hidden
            })?);
        }
        Ok(kept)
    }

    /// The columns of a table in shape; `None` if they are unknown.
    fn schema(&self, table: &Table) -> Result<Option<SchemaRef>> {
        let fields = rows::merged(&self.table(table)?)?;
        if fields.is_empty() {
            return Ok(None);
        }
        for name in table.key.iter().chain([&table.time]) {
            let found = fields.iter().find(|field| field.name() == name);
            let kind =
                found.map(Field::data_type).ok_or_else(|| Error::invalid(format!("table `{}` has no column `{name}`", table.name)))?;
            let usable = if *name == table.time { overlay::instant_type() } else { DataType::Utf8 };
            if *kind != usable {
                return Err(Error::invalid(format!("column `{name}` of table `{}` is {kind}, not {usable}", table.name)));
            }
        }
        Ok(Some(Arc::new(Schema::new(fields))))
    }

    /// As [`State::schema`], for a table that may have only repairs.
    fn schema_with_repairs(&self, table: &Table) -> Result<SchemaRef> {
        if let Some(schema) = self.schema(table)? {
            return Ok(schema);
        }
        let mut fields = rows::merged(&self.repairs(table))?;
        fields.retain(|field| !overlay::is_ours(field.name()));
        let mut fields: Vec<Field> = fields.iter().map(|field| rows::field_in_shape(table, field)).collect();
        if fields.is_empty() {
            fields.extend(table.key.iter().map(|key| Field::new(key, DataType::Utf8, false)));
            fields.push(Field::new(&table.time, overlay::instant_type(), false));
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    fn scan(&self, table: &Table, request: &ScanRequest) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        check_keys(table, request.keys.as_deref().unwrap_or_default())?;
        let raw = self.table(table)?;
        let all = self.schema_with_repairs(table)?;
        let own = shape::project(table, &all, request.columns.as_deref())?;
        let named = shape::as_requested(table, &own, request.columns.as_deref())?;
        let identity = table.identity();
        let mut batches = raw.iter().map(|batch| rows::conformed(&all, batch)).collect::<Result<Vec<_>>>()?;
        let mut shown = own.clone();
        if request.layer == Layer::Repaired {
            shown = overlay::view_schema(&own);
            let schema = overlay::view_schema(&all);
            let repairs = self.repairs_in_force(table)?;
            let of_view = |batch: &RecordBatch, repaired_by: ArrayRef| -> Result<RecordBatch> {
                let own = RecordBatch::try_new(all.clone(), batch.columns()[..all.fields().len()].to_vec())?;
                let (own, cells) = rows::patched(table, &own, &repairs)?;
                Ok(RecordBatch::try_new(schema.clone(), own.columns().iter().cloned().chain([repaired_by, Arc::new(cells)]).collect())?)
            };
            let live = rows::live_repairs(table, &all, &raw, &repairs)?;
            let mut view = Vec::new();
            for batch in &batches {
                let kept = rows::kept(table, batch, |key, time_us| {
                    identity.of_row(time_us).is_some_and(|slot| !live.replaces(identity, key, slot))
                })?;
                view.push(of_view(&kept, new_null_array(&DataType::Utf8, kept.num_rows()))?);
            }
            for batch in live.batches {
                view.push(of_view(&batch, column(&batch, overlay::columns::STRATEGY)?.clone())?);
            }
            batches = view;
        }
        let batches = batches.iter().map(|batch| rows::conformed(&shown, batch)).collect::<Result<Vec<_>>>()?;
        let bounds_us = request.interval.map_or((i64::MIN, i64::MAX), |interval| rows::bounds_us(table, &interval));
        let keys: Option<BTreeSet<&Key>> = request.keys.as_ref().map(|keys| keys.iter().collect());
        let wanted = |key: &Key, time_us: i64| {
            bounds_us.0 <= time_us && time_us < bounds_us.1 && keys.as_ref().is_none_or(|keys| keys.contains(key))
        };
        let schema = if request.layer == Layer::Repaired { overlay::view_schema(&named) } else { named };
        let named = |batch: RecordBatch| Ok(RecordBatch::try_new(schema.clone(), batch.columns().to_vec())?);
        let batches = batches.iter().map(|batch| named(rows::kept(table, batch, wanted)?)).collect::<Result<Vec<_>>>()?;
        Ok((schema, batches))
    }

    fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        let (grid, identity) = (table.grid()?, table.identity());
        check_keys(table, &request.keys)?;
        let stored = self.table(table)?;
        let mut usage = Usage::default();
        let mut raw = Presence::new(grid, request.slots, &request.keys);
        for batch in &stored {
            usage.rows_read += batch.num_rows() as u64;
            for (key, time_us) in rows::key_times(table, batch)? {
                let slot = identity.slot(time_us);
                if !request.slots.contains(slot) {
                    continue;
                }
                match raw.keys.get_mut(&key) {
                    Some(of_key) => {
                        if grid.slot_of_row(time_us).is_some() {
                            of_key.add_row(slot);
                        } else {
                            raw.misaligned_rows += 1;
                        }
                    }
                    None => {
                        raw.other_rows += 1;
                        raw.other_keys.add(&key, 1);
                    }
                }
            }
        }
        let empty = || request.keys.iter().map(|key| (key.clone(), SlotSet::new(grid.cadence(), request.slots)));
        let mut repaired: BTreeMap<Key, SlotSet> = empty().collect();
        let own = self.schema_with_repairs(table)?;
        let live = rows::live_repairs(table, &own, &stored, &self.repairs_in_force(table)?)?;
        for batch in live.batches {
            for (key, time_us) in rows::key_times(table, &batch)? {
                if let Some(slots) = repaired.get_mut(&key) {
                    slots.insert(identity.slot(time_us));
                }
            }
        }
        let mut overtaken: BTreeMap<Key, SlotSet> = empty().collect();
        for (key, slot) in live.overtaken {
            if let Some(slots) = overtaken.get_mut(&key) {
                slots.insert(slot);
            }
        }
        let mut removed: BTreeMap<Key, SlotSet> = empty().collect();
        for (key, slot) in live.removed {
            if let Some(slots) = removed.get_mut(&key) {
                slots.insert(slot);
            }
        }
        let mut absent: BTreeMap<Key, SlotSet> = empty().collect();
        let mut absent_until = Timestamp::MAX;
        let exceptions = self.overlay(&overlay::exceptions(&table.location));
        for batch in self.in_force(table, exceptions, Retracted::hides_exception)? {
            let recheck = column(&batch, overlay::columns::RECHECK_AFTER)?.as_primitive::<TimestampMicrosecondType>();
            for ((key, time_us), recheck_us) in rows::key_times(table, &batch)?.into_iter().zip(recheck.values()) {
                if let (Some(slots), true) = (absent.get_mut(&key), *recheck_us > request.as_of.as_microsecond()) {
                    slots.insert(identity.slot(time_us));
                    absent_until = absent_until.min(Timestamp::from_microsecond(*recheck_us).unwrap_or(Timestamp::MIN));
                }
            }
        }
        Ok(TablePresence { raw, repaired, overtaken, absent, removed, absent_until: Some(absent_until), usage })
    }

    /// An object's version is a digest of its rows in the interval, and its size is the length of their text.
    fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        self.table(table)?;
        let (from_us, to_us) = interval.map_or((i64::MIN, i64::MAX), |interval| rows::bounds_us(table, interval));
        let within = |_: &Key, time_us: i64| from_us <= time_us && time_us < to_us;
        let mut listing = Listing::default();
        let location = &table.location;
        let parts = [
            (ExtentPart::Table, location.clone()),
            (ExtentPart::Repairs, overlay::repairs(location)),
            (ExtentPart::Exceptions, overlay::exceptions(location)),
        ];
        for (part, location) in parts {
            for (name, batches) in self.tables.get(&location).into_iter().flatten() {
                let kept = batches.iter().map(|batch| rows::kept(table, batch, within)).collect::<Result<Vec<_>>>()?;
                if kept.iter().any(|batch| batch.num_rows() > 0) {
                    let held = rows::text(&kept)?;
                    let digest = blake3::hash(held.as_bytes()).to_hex();
                    listing.add(part, name, held.len() as u64, digest.as_str());
                    listing.add_evidence(digest.as_str());
                }
            }
        }
        for retraction in self.retractions(table) {
            listing.add(ExtentPart::Retractions, retraction.id.clone(), 1, "");
            listing.add_evidence(retraction.id);
        }
        Ok(listing.extent())
    }

    fn stage(&mut self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        let table = scope.table;
        let own = match self.tables.contains_key(&table.location).then(|| self.schema(table)).transpose()?.flatten() {
            Some(schema) => schema,
            None => {
                let shaped = request.fix.rows.iter().map(|batch| rows::in_shape(table, batch)).collect::<Result<Vec<_>>>()?;
                let fields = rows::merged(&shaped)?;
                let time = || vec![Field::new(&table.time, overlay::instant_type(), false)];
                Arc::new(Schema::new(if fields.is_empty() { time() } else { fields }))
            }
        };
        let mut usage = request.fix.usage;
        let mut repairs = Vec::new();
        for batch in &request.fix.rows {
            repairs.push(repaired(scope, request, &own, batch).map_err(|error| error.on("unit", request.unit))?);
        }
        for batch in request.patches {
            repairs.push(patched(scope, request, &own, batch).map_err(|error| error.on("unit", request.unit))?);
        }
        for absence in request.removed {
            repairs.push(removed(scope, request, &own, absence).map_err(|error| error.on("unit", request.unit))?);
        }
        let mut exceptions = Vec::new();
        for absence in &request.fix.absent {
            exceptions.push(excepted(scope, request, absence)?);
        }
        let count = |batches: &[RecordBatch]| batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        let (rows, absent) = (count(&repairs), count(&exceptions));
        usage += written(repairs.iter().chain(&exceptions), 1);
        let (conflicts, suspects) = (request.fix.conflicts.clone(), request.fix.suspects.clone());
        let answers = request.fix.answers.clone();
        let summary = Staged { unit: request.unit.to_owned(), rows, absent, conflicts, suspects, answers, usage };
        let staged = StagedUnit { summary: summary.clone(), repairs, exceptions };
        self.staged.entry(area(scope)).or_default().insert(request.unit.to_owned(), staged);
        Ok(summary)
    }

    fn publish(&mut self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published> {
        let mut published = Published::default();
        let (mut repairs, mut exceptions) = (Vec::new(), Vec::new());
        let staged = self.staged.get(&area(scope));
        for unit in units {
            let staged = staged.and_then(|staged| staged.get(unit)).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("unit {unit} is not staged; it has to be repaired again")).on("unit", unit)
            })?;
            published.rows += staged.summary.rows;
            published.absent += staged.summary.absent;
            repairs.extend(staged.repairs.iter().filter(|batch| batch.num_rows() > 0).cloned());
            exceptions.extend(staged.exceptions.iter().filter(|batch| batch.num_rows() > 0).cloned());
        }
        rows::merged(&repairs)?;
        let object = format!("{:?} {:?} {} {batch}", scope.run, scope.step, scope.visit);
        let location = &scope.table.location;
        for (location, batches) in [(overlay::repairs(location), repairs), (overlay::exceptions(location), exceptions)] {
            if !batches.is_empty() {
                published.usage += written(&batches, rows::partitions(scope.table, &batches)?);
                self.tables.entry(location).or_default().insert(object.clone(), batches);
            }
        }
        Ok(published)
    }

    /// The objects of a table of the overlay that were published. It has no partitions here.
    fn published(&mut self, table: &Table, kind: Kind) -> Option<&mut Objects> {
        self.tables.get_mut(&kind.beside(&table.location)).filter(|objects| !objects.contains_key(RAW))
    }

    fn compactable(&mut self, table: &Table) -> Vec<Compactable> {
        let mut all = Vec::new();
        for kind in [Kind::Repairs, Kind::Exceptions] {
            for (name, batches) in self.published(table, kind).into_iter().flatten() {
                let bytes = batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum();
                all.push((kind, None, Member { name: name.clone(), bytes }));
            }
        }
        compaction::compactable(all)
    }

    fn compact(&mut self, table: &Table, of: &Compactable) -> Result<Vec<Compacted>> {
        let mut sources = Vec::with_capacity(of.members.len());
        let objects = self.published(table, of.kind);
        for Member { name, .. } in &of.members {
            let batches = objects.as_ref().and_then(|objects| objects.get(name)).ok_or_else(|| compaction::outdated(name))?.clone();
            let schema = Arc::new(Schema::new(rows::merged(&batches)?));
            let digest = compaction::digest(rows::text(&batches)?.as_bytes());
            sources.push(compaction::Source { name: name.clone(), digest, schema, batches });
        }
        let mut all = Vec::new();
        for merged in compaction::merged(sources)? {
            if let Some(objects) = self.published(table, of.kind) {
                objects.insert(merged.object.clone(), merged.batches.clone());
            }
            let usage = written(&merged.batches, 1);
            all.push(merged.written(of, usage.bytes_written, usage));
        }
        Ok(all)
    }

    fn discard_compacted(&mut self, table: &Table, compacted: &Compacted) -> Result<()> {
        let Some(objects) = self.published(table, compacted.kind) else { return Ok(()) };
        if compacted.members.iter().any(|name| objects.contains_key(name)) && !objects.contains_key(&compacted.object) {
            return Err(compaction::not_written(&compacted.object));
        }
        objects.retain(|name, _| !compacted.members.contains(name));
        Ok(())
    }

    fn replace(&mut self, table: &Table, interval: &Interval, batches: &[RecordBatch]) -> Result<Usage> {
        let batches = batches.iter().map(|batch| rows::in_shape(table, batch)).collect::<Result<Vec<_>>>()?;
        let objects = self.tables.get(&table.location);
        if objects.is_some_and(|objects| objects.keys().any(|object| object != OURS)) {
            let message = format!("table `{}` was not written by us, so it is not ours to replace; write to another", table.name);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let (from_us, to_us) = rows::bounds_us(table, interval);
        for batch in &batches {
            if rows::key_times(table, batch)?.iter().any(|(_, time_us)| *time_us < from_us || *time_us >= to_us) {
                return Err(Error::invalid(format!(
                    "a row for table `{}` lies outside of {interval}, which is to be replaced",
                    table.name
                )));
            }
        }
        let mut all = Vec::new();
        if let (Some(by), true) = (table.partition_by.first(), from_us < to_us) {
            let touched = rows::partition(by.unit, from_us)?..=rows::partition(by.unit, to_us - 1)?;
            for batch in objects.into_iter().flat_map(BTreeMap::values).flatten() {
                all.push(rows::kept(table, batch, |_, time_us| {
                    rows::partition(by.unit, time_us).is_ok_and(|partition| !touched.contains(&partition))
                })?);
            }
        }
        let usage = written(&batches, rows::partitions(table, &batches)?);
        all.extend(batches);
        rows::merged(&all)?;
        self.tables.insert(table.location.clone(), BTreeMap::from([(OURS.to_owned(), all)]));
        Ok(usage)
    }
}

fn area(scope: &StageScope<'_>) -> (String, String, u32) {
    (scope.run.to_owned(), scope.step.to_owned(), scope.visit)
}

fn written<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>, objects_written: u64) -> Usage {
    let mut usage = Usage { objects_written, ..Usage::default() };
    for batch in batches {
        usage.rows_written += batch.num_rows() as u64;
        usage.bytes_written += batch.get_array_memory_size() as u64;
    }
    usage
}

fn check_keys(table: &Table, keys: &[Key]) -> Result<()> {
    match keys.iter().find(|key| key.values().len() != table.key.len()) {
        None => Ok(()),
        Some(odd) => Err(Error::invalid(format!("the key `{odd}` does not have one value for each key column of table `{}`", table.name))),
    }
}

fn provenance(scope: &StageScope<'_>, request: &StageRequest<'_>, source: &str, at: jiff::Timestamp, count: usize) -> [ArrayRef; 6] {
    [
        rows::constant(scope.run, count),
        rows::constant(scope.step, count),
        rows::constant(request.unit, count),
        rows::constant(request.strategy, count),
        rows::constant(source, count),
        rows::constant_instant(at, count),
    ]
}

/// Repaired rows as rows of the table of repairs.
fn repaired(scope: &StageScope<'_>, request: &StageRequest<'_>, own: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let table = scope.table;
    let batch = rows::in_shape(table, &staging::in_own_names(table, own, batch)?)?;
    let batch = rows::conformed(own, &batch)
        .map_err(|error| Error::invalid(format!("repaired rows do not fit table `{}`", table.name)).because(error))?;
    let count = batch.num_rows();
    let mut columns = batch.columns().to_vec();
    let replaced = staging::replaced(table, request, &batch)?;
    columns.push(staging::ops_of(&replaced));
    columns.extend(provenance(scope, request, &request.fix.source, request.repaired_at, count));
    columns.push(replaced);
    let mut fields = overlay::repairs_schema(own).fields().to_vec();
    if !request.fix.estimates.is_empty() {
        fields.push(Arc::new(staging::estimated_field()));
        columns.push(staging::estimated(table, request, &batch, |_| true)?);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Repaired cells as rows of the table of repairs.
fn patched(scope: &StageScope<'_>, request: &StageRequest<'_>, own: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let table = scope.table;
    let count = batch.num_rows();
    let is_of_cells = |field: &Field| field.name() == overlay::columns::CELLS || field.name().starts_with(overlay::columns::WAS);
    let of_cells: Vec<Field> = batch.schema_ref().fields().iter().map(|field| field.as_ref().clone()).filter(is_of_cells).collect();
    let mut columns = rows::conformed(own, &rows::in_shape(table, batch)?)?.columns().to_vec();
    columns.push(rows::constant(Op::Patch.as_str(), count));
    columns.extend(provenance(scope, request, &request.fix.source, request.repaired_at, count));
    columns.push(new_null_array(&DataType::Utf8, count));
    columns.extend(of_cells.iter().map(|field| column(batch, field.name()).cloned()).collect::<Result<Vec<_>>>()?);
    let estimated = (!request.fix.estimates.is_empty()).then(staging::estimated_field);
    if estimated.is_some() {
        columns.push(staging::estimated(table, request, batch, |name| batch.column_by_name(&overlay::patch::was(name)).is_some())?);
    }
    let repairs = overlay::repairs_schema(own);
    let fields = repairs.fields().iter().cloned().chain(of_cells.into_iter().chain(estimated).map(Arc::new));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
}

/// A removal as rows of the table of repairs, one for each slot: only key, time, and where it comes from.
fn removed(scope: &StageScope<'_>, request: &StageRequest<'_>, own: &SchemaRef, absence: &Absence) -> Result<RecordBatch> {
    let table = scope.table;
    let grid = table.identity().grid();
    check_keys(table, std::slice::from_ref(&absence.key))?;
    let slots: Vec<i64> = (absence.slots.first..absence.slots.end).collect();
    let count = slots.len();
    let times: TimestampMicrosecondArray = slots.iter().map(|slot| Some(grid.time_of(*slot).as_microsecond())).collect();
    let time: ArrayRef = Arc::new(times.with_timezone("UTC"));
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in own.fields() {
        let key = table.key.iter().position(|key| key == field.name()).and_then(|at| absence.key.values().nth(at));
        columns.push(match key {
            Some(value) => rows::constant(value, count),
            None if *field.name() == table.time => time.clone(),
            None => new_null_array(field.data_type(), count),
        });
    }
    columns.push(rows::constant(Op::Remove.as_str(), count));
    columns.extend(provenance(scope, request, &absence.source, absence.asked_at, count));
    let prints = slots.iter().map(|slot| staging::removed(table, request, &absence.key, *slot)).collect::<Result<Vec<_>>>()?;
    columns.push(Arc::new(StringArray::from(prints)));
    columns.push(rows::constant(&absence.answer, count));
    let answer = Arc::new(Field::new(overlay::columns::ANSWER, DataType::Utf8, true));
    let fields = overlay::repairs_schema(own).fields().iter().cloned().chain([answer]).collect::<Vec<_>>();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// An absence as rows of the table of exceptions, one for each slot.
fn excepted(scope: &StageScope<'_>, request: &StageRequest<'_>, absence: &Absence) -> Result<RecordBatch> {
    let table = scope.table;
    let grid = table.grid()?;
    check_keys(table, std::slice::from_ref(&absence.key))?;
    let times: TimestampMicrosecondArray =
        (absence.slots.first..absence.slots.end).map(|slot| Some(grid.time_of(slot).as_microsecond())).collect();
    let count = times.len();
    let mut columns: Vec<ArrayRef> = absence.key.values().map(|value| rows::constant(value, count)).collect();
    columns.push(Arc::new(times.with_timezone("UTC")));
    columns.extend(provenance(scope, request, &absence.source, absence.asked_at, count));
    columns.push(rows::constant(&absence.answer, count));
    columns.push(rows::constant_instant(absence.recheck_after, count));
    Ok(RecordBatch::try_new(overlay::exceptions_schema(table), columns)?)
}

#[async_trait]
impl ReadLake for MemoryLake {
    fn is_queried(&self) -> bool {
        false
    }

    fn hides_rows(&self) -> bool {
        false
    }

    fn place(&self, table: &Table) -> String {
        table.location.clone()
    }

    async fn repairs_of(&self, table: &Table) -> Result<Table> {
        Ok(Table { name: overlay::repairs(&table.name), location: overlay::repairs(&table.location), ..table.of_repairs() })
    }

    async fn describe(&self, table: &Table) -> Result<SchemaRef> {
        self.request("describe")
            .schema(table)?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("table `{}` holds nothing, so its columns are not known", table.name)))
    }

    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
        self.request("presence").presence(table, request)
    }

    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a> {
        pieces::of_whole(self, table, request, pieces)
    }

    async fn extents(&self, table: &Table, intervals: &[Interval]) -> Result<Vec<Extent>> {
        let state = self.request("extent");
        intervals.iter().map(|interval| state.extent(table, Some(interval))).collect()
    }

    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        self.request("extent").extent(table, interval)
    }

    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream> {
        let mut state = self.request("scan");
        state.scans.push((table.location.clone(), request.clone()));
        request.refuse_files(table, "a lake in memory")?;
        let (schema, batches) = state.scan(table, request)?;
        let rows = concat_batches(&schema, &batches)?;
        // In two batches, the later rows first, because a lake promises no order.
        let half = rows.num_rows() / 2;
        let halves = [rows.slice(half, rows.num_rows() - half), rows.slice(0, half)];
        Ok(stream::iter(halves.map(Ok)).boxed())
    }

    async fn rollup(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        rollup::by_scan(self, table, request).await
    }

    async fn row_counts(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
        row_count::by_scan(self, table, request).await
    }

    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>> {
        Ok(self.request("retractions").retractions(table))
    }

    async fn query(&self, _: &crate::lake::Query<'_>) -> Result<BatchStream> {
        drop(self.request("query"));
        Err(Error::invalid("a lake in memory has no query engine; test SQL on another lake"))
    }
}

#[async_trait]
impl Overlay for MemoryLake {
    async fn to_create(&self, _: &Table) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn stage(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged> {
        self.request("stage").stage(scope, request)
    }

    async fn staged(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>> {
        let state = self.request("staged");
        Ok(state.staged.get(&area(scope)).into_iter().flat_map(BTreeMap::values).map(|staged| staged.summary.clone()).collect())
    }

    async fn publish(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published> {
        self.request("publish").publish(scope, batch, units)
    }

    async fn discard_staged(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()> {
        let mut state = self.request("discard_staged");
        if let Some(staged) = state.staged.get_mut(&area(scope)) {
            staged.retain(|unit, _| !units.contains(unit));
        }
        Ok(())
    }

    async fn retract(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        // What is kept is what a lake of files would read back.
        let kept = Retraction::from_batch(table, &retraction.to_batch(table)?)?;
        let mut state = self.request("retract");
        state.retractions.entry(table.location.clone()).or_default().entry(kept.id.clone()).or_insert(kept);
        Ok(())
    }

    async fn compactable(&self, table: &Table) -> Result<Vec<Compactable>> {
        Ok(self.request("compactable").compactable(table))
    }

    async fn compact(&self, table: &Table, objects: &Compactable) -> Result<Vec<Compacted>> {
        self.request("compact").compact(table, objects)
    }

    async fn discard_compacted(&self, table: &Table, compacted: &Compacted) -> Result<()> {
        self.request("discard_compacted").discard_compacted(table, compacted)
    }
}

#[async_trait]
impl Artifacts for MemoryLake {
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage> {
        drop(self.request("put_artifact"));
        let batches: Vec<RecordBatch> = batches.try_collect().await?;
        if batches.iter().any(|batch| batch.schema_ref() != batches[0].schema_ref()) {
            return Err(Error::invalid(format!("the batches of artifact `{name}` do not all have the same columns")));
        }
        let usage = written(&batches, 1);
        self.state().artifacts.insert((run.to_owned(), name.to_owned()), batches);
        Ok(usage)
    }

    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream> {
        let state = self.request("get_artifact");
        let found = state.artifacts.get(&(run.to_owned(), name.to_owned())).cloned();
        let batches =
            found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("run {run} has no artifact `{name}`; was it removed?")))?;
        Ok(stream::iter(batches.into_iter().map(Ok)).boxed())
    }

    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage> {
        let mut state = self.request("copy_artifact");
        let missing = || Error::new(ErrorKind::NotFound, format!("run {} has no artifact `{}`; was it removed?", from.run, from.name));
        let kept = state.artifacts.get(&(from.run.to_owned(), from.name.to_owned())).cloned().ok_or_else(missing)?;
        let usage = written(&kept, 1);
        state.artifacts.insert((to.run.to_owned(), to.name.to_owned()), kept);
        Ok(usage)
    }

    async fn kept(&self) -> Result<Vec<KeptObject>> {
        let state = self.request("kept");
        let size = |batches: &[RecordBatch]| batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum::<u64>();
        let artifacts =
            state.artifacts.iter().map(|((run, name), batches)| KeptObject::new(name::part(run), name::part(name), size(batches)));
        let staged = state.staged.iter().flat_map(|(area, units)| {
            let of = move |(unit, staged): (&String, &StagedUnit)| {
                let name = format!("staged/{}-{}/{}", name::part(&area.1), area.2, name::part(unit));
                KeptObject::new(name::part(&area.0), name, size(&staged.repairs))
            };
            units.iter().map(of)
        });
        let mut kept: Vec<KeptObject> = artifacts.chain(staged).collect();
        kept.sort();
        Ok(kept)
    }

    async fn remove_kept(&self, objects: &[KeptObject]) -> Result<()> {
        let paths = objects.iter().map(KeptObject::path).collect::<Result<std::collections::BTreeSet<String>>>()?;
        let mut state = self.request("remove_kept");
        let goes = |kept: KeptObject| kept.path().is_ok_and(|path| paths.contains(&path));
        state.artifacts.retain(|(run, artifact), _| !goes(KeptObject::new(name::part(run), name::part(artifact), 0)));
        for (area, units) in &mut state.staged {
            let of = |unit: &String| format!("staged/{}-{}/{}", name::part(&area.1), area.2, name::part(unit));
            units.retain(|unit, _| !goes(KeptObject::new(name::part(&area.0), of(unit), 0)));
        }
        Ok(())
    }
}

#[async_trait]
impl Lake for MemoryLake {
    fn on_behalf_of(&self, _: &Caller) -> Option<Arc<dyn Lake>> {
        None
    }

    async fn check_writable(&self) -> Result<()> {
        drop(self.request("check_writable"));
        Ok(())
    }

    async fn check_state(&self) -> Result<StateCheck> {
        let state = self.request("check_state");
        let mut check = StateCheck::default();
        let batches = state.artifacts.values().chain(state.staged.values().flat_map(BTreeMap::values).map(|unit| &unit.repairs));
        batches.for_each(|_| check.add("memory", 0, Ok(Verdict::Intact)));
        Ok(check)
    }

    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage> {
        self.request("replace").replace(table, interval, &rows)
    }
}
