//! The story of a slot: whether its row is the table's own or a repair, who added it and when, or why there is no row.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::overlay;
use crate::lake::overlay::fingerprint::{RowHashes, of_hashes};
use crate::lake::overlay::retraction::{Kind, Retracted, Retraction};
use crate::lake::overlay::{Op, columns};
use crate::lake::shape::KeyTime;
use crate::lake::{Lake, Layer, ScanRequest, rollup};
use crate::model::{Fingerprint, Format, Interval, Key, SlotRange, Table};

/// The state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// The table has a row of its own.
    Raw,
    /// A repair fills it.
    Repaired,
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
    /// `insert` or `replace`.
    pub op: String,
    /// The fingerprint of the table's own rows that it replaces, if it replaces any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// Whether the table's own rows have changed since it replaced them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// Whether it is what the repaired view shows.
    pub counts: bool,
    /// The table's columns.
    pub row: Value,
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

/// The story of the slot that holds an instant. In a table without cadence, the story of the rows at exactly that instant.
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
        repairs.push(RecordedRepair { provenance, op, replaced, changed: false, counts: false, row: own });
    }
    // The view's rule: the newest counts; of two from the same instant, the one whose run, then unit, sorts last by name.
    repairs.sort_by(|a, b| {
        let rank = |repair: &RecordedRepair| (repair.provenance.at, repair.provenance.run.clone(), repair.provenance.unit.clone());
        rank(b).cmp(&rank(a))
    });
    if let Some(winner) = repairs.iter_mut().find(|repair| repair.provenance.retracted_by.is_none()) {
        winner.counts = raw.is_empty() || winner.op == Op::Replace.as_str();
        if let Some(replaced) = &winner.replaced {
            winner.changed = fingerprint_of(table, &batches)?.to_string() != *replaced;
        }
    }
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
    let standing = if repairs.iter().any(|repair| repair.counts) {
        Standing::Repaired
    } else if !raw.is_empty() {
        Standing::Raw
    } else if exceptions.iter().any(|exception| exception.counts) {
        Standing::Absent
    } else {
        Standing::Missing
    };
    let conflict = conflict(&raw, &repairs, &exceptions);
    Ok(Story { standing, raw, repairs, exceptions, retractions, conflict })
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
    let says =
        repairs.iter().find(|repair| repair.provenance.retracted_by.is_none() && repair.provenance.source != denies.provenance.source);
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

/// The interval of the slot that holds an instant.
///
/// # Errors
/// `invalid` at the ends of the range of instants.
pub fn slot(table: &Table, instant: Timestamp) -> Result<Interval> {
    let far = || Error::invalid(format!("{instant} is out of range"));
    match table.grid() {
        Ok(grid) => {
            let slot = grid.slot_of(instant);
            grid.interval_of(SlotRange::new(slot, slot + 1)).ok_or_else(far)
        }
        Err(_) => {
            let end = instant.checked_add(jiff::SignedDuration::from_micros(1)).map_err(|error| far().because(error))?;
            Interval::new(instant, end)
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
fn number(batch: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(name)?;
    if !column.data_type().is_numeric() {
        return None;
    }
    let floats = arrow::compute::cast(&column.slice(row, 1), &DataType::Float64).ok()?;
    let floats = floats.as_primitive_opt::<arrow::datatypes::Float64Type>()?;
    floats.is_valid(0).then(|| floats.value(0))
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
    let ours = Table { name: beside(&table.name), location: beside(&table.location), format: Format::Parquet, ..table.clone() };
    let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys.map(<[Key]>::to_vec));
    let batches: Vec<RecordBatch> = match lake.scan(&ours, &request).await {
        Ok(stream) => stream.try_collect().await?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
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
                let text = array_value_to_string(column, row)?;
                let value = if field.data_type().is_numeric() || *field.data_type() == DataType::Boolean {
                    serde_json::from_str(&text).unwrap_or(Value::String(text))
                } else {
                    Value::String(text)
                };
                fields.insert(field.name().clone(), value);
            }
            rows.push(Value::Object(fields));
        }
    }
    Ok(rows)
}

/// How far the repairs of one column were from the true values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Values compared.
    pub count: u64,
    /// The mean absolute difference.
    pub mean_absolute: f64,
    /// The largest absolute difference.
    pub worst_absolute: f64,
    /// The mean difference relative to the true value, where that is not zero.
    pub mean_relative: f64,
    /// The largest relative difference.
    pub worst_relative: f64,
    #[serde(skip)]
    relative: u64,
}

impl Errors {
    fn add(&mut self, repaired: f64, truth: f64) {
        let running = |mean: &mut f64, count: &mut u64, value: f64| {
            *count += 1;
            #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
            let weight = 1.0 / *count as f64;
            *mean += (value - *mean) * weight;
        };
        let difference = (repaired - truth).abs();
        if !difference.is_finite() {
            return;
        }
        running(&mut self.mean_absolute, &mut self.count, difference);
        self.worst_absolute = self.worst_absolute.max(difference);
        if truth != 0.0 && (difference / truth).is_finite() {
            running(&mut self.mean_relative, &mut self.relative, difference / truth.abs());
            self.worst_relative = self.worst_relative.max(difference / truth.abs());
        }
    }
}

/// How accurate a strategy has been, where raw rows arrived after the repair.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Slots it repaired.
    pub repaired: u64,
    /// Repaired slots for which the table now has a row of its own.
    pub judged: u64,
    /// The accuracy of each column of numbers.
    pub columns: BTreeMap<String, Errors>,
}

/// How accurate each strategy has been so far. Every repair of a slot for which the table now has a row is compared with that row,
/// retracted repairs included. Left out are repairs that replaced a row, since that row was there before, and slots whose rows a repair
/// replaces.
///
/// # Errors
/// Those of the lake.
pub async fn accuracy(lake: &dyn Lake, table: &Table, interval: Option<Interval>) -> Result<BTreeMap<String, Accuracy>> {
    Ok(judged(lake, table, interval).await?.into_iter().map(|(strategy, (accuracy, _))| (strategy, accuracy)).collect())
}

/// Slots, each with its key.
pub type KeySlots = BTreeSet<(Key, i64)>;

/// As [`accuracy`], with the slots by which each strategy was judged.
///
/// # Errors
/// Those of the lake.
pub async fn judged(lake: &dyn Lake, table: &Table, interval: Option<Interval>) -> Result<BTreeMap<String, (Accuracy, KeySlots)>> {
    let mut strategies: BTreeMap<String, (Accuracy, KeySlots)> = BTreeMap::new();
    let slot = |time_us: i64| table.grid().map_or(time_us, |grid| grid.slot_of_seconds(time_us.div_euclid(1_000_000)));
    let mut guesses: BTreeMap<(Key, i64), Vec<PublishedRow>> = BTreeMap::new();
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    let retracted = Retracted::of(table, &lake.retractions(table).await?);
    // Where a repair replaces rows of the table, these were found wrong, so they are no truth to compare with.
    let mut wrong: BTreeSet<(Key, i64)> = BTreeSet::new();
    for row in published(lake, table, overlay::repairs, interval, None).await? {
        if row.text(columns::OP) == Op::Insert.as_str() {
            strategies.entry(row.text(columns::STRATEGY)).or_default().0.repaired += 1;
            (first, last) = (first.min(row.time_us), last.max(row.time_us));
            guesses.entry((row.key.clone(), slot(row.time_us))).or_default().push(row);
        } else if row.provenance(&retracted, Kind::Repairs)?.retracted_by.is_none() {
            wrong.insert((row.key.clone(), slot(row.time_us)));
        }
    }
    guesses.retain(|place, _| !wrong.contains(place));
    if guesses.is_empty() {
        return Ok(strategies);
    }
    let instant = |us: i64| Timestamp::from_microsecond(us).map_err(|error| Error::invalid("a time is out of range").because(error));
    let hull = self::slot(table, instant(first)?)?.hull(&self::slot(table, instant(last)?)?);
    let mut keys: Vec<Key> = guesses.keys().map(|(key, _)| key.clone()).collect();
    keys.dedup();
    let request = ScanRequest::new(Layer::Raw).in_interval(hull).of_keys(keys);
    let mut raw = lake.scan(table, &request).await?;
    while let Some(batch) = raw.try_next().await? {
        let places = KeyTime::of(table, &batch)?;
        let schema = batch.schema();
        let numeric: Vec<&str> =
            schema.fields().iter().filter(|field| field.data_type().is_numeric()).map(|field| field.name().as_str()).collect();
        for row in 0..batch.num_rows() {
            // Removed, so that only the first of several rows of a slot counts as the truth.
            let time_us = places.times.value(row);
            let Some(slot) = table.grid().map_or(Some(time_us), |grid| grid.slot_of_row(time_us)) else { continue };
            let of = (places.key(row), slot);
            let Some(repairs) = guesses.remove(&of) else { continue };
            for repair in repairs {
                let (strategy, slots) = strategies.entry(repair.text(columns::STRATEGY)).or_default();
                strategy.judged += 1;
                slots.insert(of.clone());
                for name in &numeric {
                    if let (Some(guess), Some(truth)) = (repair.number(name), number(&batch, name, row)) {
                        strategy.columns.entry((*name).to_owned()).or_default().add(guess, truth);
                    }
                }
            }
        }
    }
    Ok(strategies)
}
