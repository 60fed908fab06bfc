//! The story of a slot: whether its row is the table's own or a repair, who added it and when, or why there is no row.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::overlay;
use crate::lake::overlay::compaction::Distinct;
use crate::lake::overlay::fingerprint::{RowHashes, of_hashes};
use crate::lake::overlay::retraction::{Kind, Retracted, Retraction};
use crate::lake::overlay::{Op, columns, patch};
use crate::lake::shape::KeyTime;
use crate::lake::{BatchStream, Lake, Layer, ScanRequest, rollup, shape};
use crate::model::{Estimates, Fingerprint, Identity, Interval, Key, SlotRange, Table};

/// The state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// The table has a row of its own.
    Raw,
    /// The table has a row of its own, and repairs change some of its cells.
    Patched,
    /// A repair fills it.
    Repaired,
    /// A repair removes the table's own rows, because their source no longer has them.
    Removed,
    /// Confirmed to have no row.
    Absent,
    /// No row, and no reason on record.
    Missing,
}

/// Where a repair or an exception comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Provenance {
    /// The run.
    pub run: String,
    /// The step.
    pub step: String,
    /// The unit.
    pub unit: String,
    /// The strategy.
    pub strategy: String,
    /// The source.
    pub source: String,
    /// When it was repaired, or when the source was asked.
    pub at: Timestamp,
    /// The retraction that hides it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retracted_by: Option<String>,
}

/// A repair of the slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedRepair {
    /// Where it comes from.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// `insert`, `replace`, `patch` or `remove`.
    pub op: String,
    /// The fingerprint of the table's own rows that it replaces or removes, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// Whether the table's own rows have changed since it replaced or removed them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// Whether it is what the repaired view shows, or some of its cells are.
    pub counts: bool,
    /// If it removes rows: what the source answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The table's columns.
    pub row: Value,
    /// If it changes cells of a row: these, by column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cells: BTreeMap<String, RecordedCell>,
    /// If it estimates values: the ends of the interval in which the true one lies in 95 % of cases, by column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub estimated: BTreeMap<String, [f64; 2]>,
}

/// A repair of a cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedCell {
    /// The old value.
    pub was: Value,
    /// Whether the repaired view shows the new value.
    pub counts: bool,
}

/// A confirmation that the slot has no row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exception {
    /// Where it comes from.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// What the source answered.
    pub answer: String,
    /// When to ask again.
    pub recheck_after: Timestamp,
    /// Whether it counts: neither expired nor retracted.
    pub counts: bool,
}

/// All that is known about a slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// Its state.
    pub standing: Standing,
    /// The table's own rows.
    pub raw: Vec<Value>,
    /// Its repairs, newest first.
    pub repairs: Vec<RecordedRepair>,
    /// The exceptions that confirm it as absent, newest first.
    pub exceptions: Vec<Exception>,
    /// The retractions that hide any of these.
    pub retractions: Vec<Retraction>,
    /// How sources disagree, if one has a row and another says that there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
}

/// The story of the slot that holds an instant. In a table without cadence, the story of the rows at exactly that
/// instant; if the key alone identifies a row, of its versions within the lookback of that instant.
///
/// # Errors
/// Those of the lake.
pub async fn of_slot(lake: &dyn Lake, table: &Table, key: &Key, instant: Timestamp, as_of: Timestamp) -> Result<Story> {
    let interval = slot(table, instant)?;
    let all = lake.retractions(table).await?;
    let retracted = Retracted::of(table, &all);
    let keys = [key.clone()];
    let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys.to_vec());
    let batches: Vec<RecordBatch> = lake.scan(table, &request).await?.try_collect().await?;
    let raw = values(&batches)?;
    let mut repairs = Vec::new();
    for row in published(lake, table, overlay::repairs, Some(interval), Some(&keys)).await? {
        let (op, own) = (row.text(columns::OP), row.own());
        let replaced = Some(row.text(columns::REPLACED)).filter(|text| !text.is_empty());
        let provenance = row.provenance(&retracted, Kind::Repairs)?;
        let cells = row.cells()?;
        let answer = (op == Op::Remove.as_str()).then(|| row.text(columns::ANSWER));
        let estimated = row.estimated()?;
        repairs.push((RecordedRepair { provenance, op, replaced, changed: false, counts: false, answer, row: own, cells, estimated }, row));
    }
    // The view's rule: the newest counts; of two from the same instant, the one whose run, then unit, sorts last by name.
    repairs.sort_by(|(a, _), (b, _)| {
        let rank = |repair: &RecordedRepair| {
            let Provenance { at, run, unit, step, .. } = &repair.provenance;
            (*at, run.clone(), unit.clone(), step.clone(), repair.op.clone())
        };
        rank(b).cmp(&rank(a))
    });
    let is_live = |repair: &RecordedRepair| repair.provenance.retracted_by.is_none() && repair.op != Op::Patch.as_str();
    let mut base: Vec<RecordBatch> = batches.clone();
    let mut removed = false;
    if let Some((winner, row)) = repairs.iter_mut().find(|(repair, _)| is_live(repair)) {
        let op = Op::of_repair(&winner.op);
        winner.counts = raw.is_empty() || op.is_some_and(Op::hides_own);
        removed = op == Some(Op::Remove);
        if let Some(replaced) = &winner.replaced {
            winner.changed = fingerprint_of(table, &batches)?.to_string() != *replaced;
        }
        if removed {
            base = Vec::new();
        } else if winner.counts {
            base = vec![row.batch.slice(row.row, 1)];
        }
    }
    let patched = count_cells(&base, &mut repairs)?;
    let repairs: Vec<RecordedRepair> = repairs.into_iter().map(|(repair, _)| repair).collect();
    let mut exceptions = Vec::new();
    for row in published(lake, table, overlay::exceptions, Some(interval), Some(&keys)).await? {
        let provenance = row.provenance(&retracted, Kind::Exceptions)?;
        let recheck_after = row.instant(columns::RECHECK_AFTER)?;
        let counts = provenance.retracted_by.is_none() && recheck_after > as_of;
        exceptions.push(Exception { provenance, answer: row.text(columns::ANSWER), recheck_after, counts });
    }
    exceptions.sort_by(|a, b| b.provenance.cmp_by_time(&a.provenance));
    let hiding = |id: &str| {
        let by = repairs.iter().map(|repair| &repair.provenance).chain(exceptions.iter().map(|exception| &exception.provenance));
        by.into_iter().any(|provenance| provenance.retracted_by.as_deref() == Some(id))
    };
    let retractions = all.iter().filter(|retraction| hiding(&retraction.id)).cloned().collect();
    let standing = if removed {
        Standing::Removed
    } else if repairs.iter().any(|repair| repair.counts && repair.cells.is_empty()) {
        Standing::Repaired
    } else if patched {
        Standing::Patched
    } else if !raw.is_empty() {
        Standing::Raw
    } else if exceptions.iter().any(|exception| exception.counts) {
        Standing::Absent
    } else {
        Standing::Missing
    };
    let conflict = conflict(if removed { &[] } else { &raw }, &repairs, &exceptions);
    Ok(Story { standing, raw, repairs, exceptions, retractions, conflict })
}

/// Marks the repaired cells that the view shows, newest repair first. Returns whether there are any.
fn count_cells(base: &[RecordBatch], repairs: &mut [(RecordedRepair, PublishedRow)]) -> Result<bool> {
    let mut any = false;
    for batch in base {
        for row in 0..batch.num_rows() {
            for (field, now) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                let name = field.name();
                for (repair, published) in repairs.iter_mut().filter(|(repair, _)| repair.provenance.retracted_by.is_none()) {
                    let Some(cell) = repair.cells.get_mut(name) else { continue };
                    let Some(old) = published.value(&patch::was(name)) else { continue };
                    let Ok(old) = shape::cast_exact(&old, now.data_type()) else { continue };
                    if patch::same_values(now, &old, name)?(row, 0) {
                        (cell.counts, repair.counts, any) = (true, true, true);
                        break;
                    }
                }
            }
        }
    }
    Ok(any)
}

/// The fingerprint of the rows of one slot.
fn fingerprint_of(table: &Table, rows: &[RecordBatch]) -> Result<Fingerprint> {
    let mut hashes = Vec::new();
    for batch in rows {
        let of_rows = RowHashes::of(table, batch)?;
        for row in 0..batch.num_rows() {
            hashes.push(of_rows.of_row(row)?);
        }
    }
    Ok(of_hashes(&mut hashes))
}

/// How sources disagree about a slot, retracted repairs and exceptions left out.
fn conflict(raw: &[Value], repairs: &[RecordedRepair], exceptions: &[Exception]) -> Option<String> {
    let denies = exceptions.iter().find(|exception| exception.counts)?;
    let has_row = |repair: &&RecordedRepair| {
        repair.provenance.retracted_by.is_none() && repair.op != Op::Remove.as_str() && repair.provenance.source != denies.provenance.source
    };
    let says = repairs.iter().find(has_row);
    let says = match says {
        Some(repair) => format!("`{}` has a row", repair.provenance.source),
        None if !raw.is_empty() => "the table has a row".to_owned(),
        None => return None,
    };
    Some(format!("{says}, and `{}` says: {}", denies.provenance.source, denies.answer))
}

impl Provenance {
    fn cmp_by_time(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at).then_with(|| self.cmp(other))
    }
}

/// The interval of the slot of a row with this time, which may mark its end; of an instant that no row has, the slot in which it lies. If the key alone identifies a row, that in which versions of a row of this time lie.
///
/// # Errors
/// `invalid` at the ends of the range of instants.
pub fn slot(table: &Table, instant: Timestamp) -> Result<Interval> {
    let far = || Error::invalid(format!("{instant} is out of range"));
    match table.identity() {
        Identity::Slot(grid) => {
            let slot = grid.slot_of(instant);
            grid.interval_of(SlotRange::new(slot, slot + 1)).ok_or_else(far)
        }
        identity @ (Identity::Time | Identity::Key { .. }) => {
            let end = instant.checked_add(jiff::SignedDuration::from_micros(1)).map_err(|error| far().because(error))?;
            Ok(identity.widened(&Interval::new(instant, end)?, 1))
        }
    }
}

/// A row of the overlay.
#[derive(Debug, Clone)]
pub struct PublishedRow {
    /// Its key.
    pub key: Key,
    /// Its time, in microseconds.
    pub time_us: i64,
    batch: RecordBatch,
    row: usize,
}

impl PublishedRow {
    /// A text column of its provenance; empty if the value is missing.
    pub fn text(&self, name: &str) -> String {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.filter(|column| column.is_valid(self.row)).map(|column| column.value(self.row).to_owned()).unwrap_or_default()
    }

    fn instant(&self, name: &str) -> Result<Timestamp> {
        let column = rollup::column(&self.batch, name)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::invalid(format!("column `{name}` is not a time")))?;
        Timestamp::from_microsecond(column.value(self.row)).map_err(|error| Error::invalid("a time is out of range").because(error))
    }

    /// Where it comes from.
    ///
    /// # Errors
    /// `invalid` if it has no time.
    pub fn provenance(&self, retracted: &Retracted, kind: Kind) -> Result<Provenance> {
        let (run, step) = (self.text(columns::RUN), self.text(columns::STEP));
        let retracted_by = retracted.hiding(kind, &run, &step, &self.key, self.time_us).map(str::to_owned);
        Ok(Provenance {
            run,
            step,
            unit: self.text(columns::UNIT),
            strategy: self.text(columns::STRATEGY),
            source: self.text(columns::SOURCE),
            at: self.instant(columns::AT)?,
            retracted_by,
        })
    }

    /// A column's value; `None` if it has no such column.
    pub(super) fn value(&self, name: &str) -> Option<ArrayRef> {
        Some(self.batch.column_by_name(name)?.slice(self.row, 1))
    }

    /// The cells that it changes, with their old values.
    fn cells(&self) -> Result<BTreeMap<String, RecordedCell>> {
        let list = self.text(columns::CELLS);
        let names = if list.is_empty() { Vec::new() } else { patch::from_text(&list)? };
        let cell = |name: String| {
            let was = match self.value(&patch::was(&name)) {
                Some(was) if was.is_valid(0) => json(&was, 0)?,
                _ => Value::Null,
            };
            Ok((name, RecordedCell { was, counts: false }))
        };
        names.into_iter().map(cell).collect()
    }

    /// The intervals of its estimates, by column.
    ///
    /// # Errors
    /// `invalid` if they are damaged.
    pub fn estimated(&self) -> Result<BTreeMap<String, [f64; 2]>> {
        let text = self.text(columns::ESTIMATED);
        if text.is_empty() { Ok(BTreeMap::new()) } else { Estimates::of_text(&text) }
    }

    /// A column's value as a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        number(&self.batch, name, self.row)
    }

    /// The table's own columns.
    fn own(&self) -> Value {
        let row = values(&[self.batch.slice(self.row, 1)]).ok().and_then(|rows| rows.into_iter().next());
        match row {
            Some(Value::Object(mut fields)) => {
                fields.retain(|name, _| !overlay::is_ours(name));
                Value::Object(fields)
            }
            _ => Value::Null,
        }
    }
}

/// A value as a number, if it is one.
pub(super) fn number(batch: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(name)?;
    if !column.data_type().is_numeric() {
        return None;
    }
    let floats = arrow::compute::cast(&column.slice(row, 1), &DataType::Float64).ok()?;
    let floats = floats.as_primitive_opt::<arrow::datatypes::Float64Type>()?;
    floats.is_valid(0).then(|| floats.value(0))
}

/// The rows of a table's repairs or exceptions as they are stored, with the table that holds them; `None` if it has no overlay. They are
/// read as the stream is, so there may be any number of them. Only some `columns` may be asked for; key and time always come.
///
/// They come as a set, since objects that hold the same row may lie side by side, see [`compaction`](super::compaction). So the columns must be those that
/// a row is known by: its op, run, step, unit and instant at least. It takes some 32 bytes of memory for each row.
///
/// # Errors
/// Those of the lake.
pub async fn published_batches(
    lake: &dyn Lake,
    table: &Table,
    beside: fn(&str) -> String,
    interval: Option<Interval>,
    keys: Option<&[Key]>,
    columns: Option<&[&str]>,
) -> Result<Option<(Table, BatchStream)>> {
    // All of an overlay lies in one place, which the lake alone knows, and is read in one way, whatever the table's own files are like.
    let repairs = lake.repairs_of(table).await?;
    let named = |text: &str| beside(text.strip_suffix(&overlay::repairs("")).unwrap_or(text));
    let ours = Table { name: named(&repairs.name), location: named(&repairs.location), ..repairs };
    let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys.map(<[Key]>::to_vec));
    let request = request.with_columns(columns.map(|columns| columns.iter().map(|name| (*name).to_owned()).collect()));
    match lake.scan(&ours, &request).await {
        Ok(stream) => {
            let mut distinct = Distinct::default();
            Ok(Some((ours, stream.map(move |batch| distinct.keep(&batch?)).boxed())))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The rows of a table's repairs or exceptions; none if it has no overlay.
///
/// # Errors
/// Those of the lake.
pub async fn published(
    lake: &dyn Lake,
    table: &Table,
    beside: fn(&str) -> String,
    interval: Option<Interval>,
    keys: Option<&[Key]>,
) -> Result<Vec<PublishedRow>> {
    let Some((ours, stream)) = published_batches(lake, table, beside, interval, keys, None).await? else { return Ok(Vec::new()) };
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    let mut rows = Vec::new();
    for batch in batches {
        let places = KeyTime::of(&ours, &batch)?;
        rows.extend((0..batch.num_rows()).map(|row| PublishedRow {
            key: places.key(row),
            time_us: places.times.value(row),
            batch: batch.clone(),
            row,
        }));
    }
    Ok(rows)
}

/// A value as JSON; what is neither a number nor a boolean is text.
fn json(column: &ArrayRef, row: usize) -> Result<Value> {
    let text = array_value_to_string(column, row)?;
    Ok(if column.data_type().is_numeric() || *column.data_type() == DataType::Boolean {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    } else {
        Value::String(text)
    })
}

/// Rows as JSON objects without nulls; values that are neither numbers nor booleans are text.
fn values(batches: &[RecordBatch]) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut fields = serde_json::Map::new();
            for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                if column.is_null(row) {
                    continue;
                }
                fields.insert(field.name().clone(), json(column, row)?);
            }
            rows.push(Value::Object(fields));
        }
    }
    Ok(rows)
}
