//! The live repairs of a table, read from its overlay: for each slot the newest that is not retracted, and what it replaces.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::overlay::patch::{self, Patches};
use crate::lake::overlay::retraction::Retracted;
use crate::lake::overlay::{Op, columns};
use crate::lake::shape::{self, KeyTime};
use crate::lake::{Lake, Layer, ScanRequest, rollup};
use crate::model::{Fingerprint, Identity, Interval, Key, Table};

/// The live repair of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Whether it replaces or removes the table's own rows; otherwise it fills the slot, and any row of the table's own wins.
    pub replaces: bool,
    /// Whether it removes them, so that the slot has no row, and its own row has no values.
    pub removes: bool,
    /// The rows that it replaces or removes; unknown if it was written by a version without fingerprints.
    pub replaced: Option<Fingerprint>,
    /// Which of the batches holds its row.
    pub batch: usize,
    /// Which row of the batch.
    pub row: usize,
}

/// The live repairs of a table.
#[derive(Debug, Default)]
pub struct LiveRepairs {
    by_slot: BTreeMap<Key, BTreeMap<i64, Live>>,
    batches: Vec<RecordBatch>,
    patches: Patches,
}

impl LiveRepairs {
    /// Reads them with one scan of the overlay, if there is one.
    ///
    /// # Errors
    /// Those of the lake.
    pub async fn read(lake: &dyn Lake, table: &Table, interval: Interval, keys: &[Key], wanted: &[String]) -> Result<Self> {
        Self::of_all(lake, table, interval, Some(keys), wanted).await
    }

    /// Reads those of some keys, or of all.
    ///
    /// # Errors
    /// Those of the lake.
    pub async fn of_all(lake: &dyn Lake, table: &Table, interval: Interval, keys: Option<&[Key]>, wanted: &[String]) -> Result<Self> {
        let ours = lake.repairs_of(table).await?;
        let known = match lake.describe(&ours).await {
            Ok(known) => known,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let own = [columns::OP, columns::RUN, columns::STEP, columns::UNIT, columns::STRATEGY, columns::AT, columns::REPLACED];
        let mut columns: Vec<String> = Vec::new();
        let mut add = |name: &str| -> Result<()> {
            if shape::find(&known, name).map_err(|error| error.on("table", &ours.name))?.is_some() {
                columns.push(name.to_owned());
            }
            Ok(())
        };
        own.into_iter().chain(wanted.iter().map(String::as_str)).try_for_each(&mut add)?;
        add(columns::CELLS)?;
        wanted.iter().try_for_each(|name| add(&patch::was(name)))?;
        let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys.map(<[Key]>::to_vec)).with_columns(columns);
        let batches: Vec<RecordBatch> = lake.scan(&ours, &request).await?.try_collect().await?;
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(Self::default());
        }
        let retracted = Retracted::of(table, &lake.retractions(table).await?);
        Self::of(&ours, batches, &retracted)
    }

    fn of(ours: &Table, batches: Vec<RecordBatch>, retracted: &Retracted) -> Result<Self> {
        let identity = ours.identity();
        let mut repairs = Self { by_slot: BTreeMap::new(), batches, patches: Patches::default() };
        let slot_of = |time_us: i64| identity.slot(time_us);
        for number in 0..repairs.batches.len() {
            let batch = repairs.batches[number].clone();
            let rows = KeyTime::of(ours, &batch)?;
            let (ops, runs, steps) = (text(&batch, columns::OP)?, text(&batch, columns::RUN)?, text(&batch, columns::STEP)?);
            let is_live = |key: &Key, time_us: i64, row: usize| !retracted.hides_repair(runs.value(row), steps.value(row), key, time_us);
            repairs.patches.add(ours, &batch, slot_of, is_live)?;
            let replaced = batch.column_by_name(columns::REPLACED).and_then(|column| column.as_string_opt::<i32>());
            for row in 0..batch.num_rows() {
                let (key, time_us) = (rows.key(row), rows.times.value(row));
                let op = Op::of_repair(if ops.is_valid(row) { ops.value(row) } else { "" });
                if !is_live(&key, time_us, row) || op == Some(Op::Patch) {
                    continue;
                }
                let replaced = replaced.filter(|column| column.is_valid(row)).map(|column| Fingerprint::parse(column.value(row)));
                let live = Live {
                    replaces: op.is_some_and(Op::hides_own),
                    removes: op == Some(Op::Remove),
                    replaced: replaced.transpose()?,
                    batch: number,
                    row,
                };
                let slot = slot_of(time_us);
                let known = repairs.by_slot.get(&key).and_then(|slots| slots.get(&slot));
                if known.is_none_or(|known| repairs.rank(&live, known) == Ordering::Greater) {
                    repairs.by_slot.entry(key).or_default().insert(slot, live);
                }
            }
        }
        repairs.leave_newest(identity);
        Ok(repairs)
    }

    /// Where a key alone identifies a row, a repair is outdated by a newer one of the same row, though it may have another time.
    fn leave_newest(&mut self, identity: Identity) {
        if identity.lookback_us().is_none() {
            return;
        }
        let mut outdated: Vec<(Key, i64)> = Vec::new();
        for (key, slots) in self.by_slot.iter().filter(|(_, slots)| slots.len() > 1) {
            let is_outdated = |(slot, live): &(&i64, &Live)| {
                let newer = |(other, one): (&i64, &Live)| {
                    other != *slot && identity.are_same_slots(*other, **slot) && self.rank(one, live) == Ordering::Greater
                };
                slots.iter().any(newer)
            };
            outdated.extend(slots.iter().filter(is_outdated).map(|(slot, _)| (key.clone(), *slot)));
        }
        for (key, slot) in outdated {
            self.by_slot.get_mut(&key).and_then(|slots| slots.remove(&slot));
        }
    }

    /// Which of two repairs counts, by the view's rule: the newest; of two from the same instant, the one whose run, then unit, sorts last.
    fn rank(&self, one: &Live, other: &Live) -> Ordering {
        let rank = |live: &Live| {
            let batch = &self.batches[live.batch];
            let at = batch.column_by_name(columns::AT).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
            let named = |name| {
                let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
                column.map(|column| column.value(live.row).to_owned())
            };
            (at.map(|at| at.value(live.row)), named(columns::RUN), named(columns::UNIT))
        };
        rank(one).cmp(&rank(other))
    }

    /// The live repair of a slot.
    pub fn get(&self, key: &Key, slot: i64) -> Option<&Live> {
        self.by_slot.get(key)?.get(&slot)
    }

    /// The live repairs of a key, by slot.
    pub fn of_key(&self, key: &Key) -> impl Iterator<Item = (i64, &Live)> {
        self.by_slot.get(key).into_iter().flatten().map(|(slot, live)| (*slot, live))
    }

    /// The rows, with those of the requested columns that the overlay has.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// All live repairs of rows, in order of key, then slot.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, i64, &Live)> {
        self.by_slot.iter().flat_map(|(key, slots)| slots.iter().map(move |(slot, live)| (key, *slot, live)))
    }

    /// The repairs of cells of the requested columns.
    pub fn patches(&self) -> &Patches {
        &self.patches
    }

    /// Whether there are no live repairs.
    pub fn is_empty(&self) -> bool {
        self.by_slot.is_empty() && self.patches.is_empty()
    }
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::StringArray> {
    rollup::column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| Error::invalid(format!("column `{name}` is not text")))
}
