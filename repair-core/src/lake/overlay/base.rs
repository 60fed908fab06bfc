//! The rows to which patches are applied: for each slot the table's own row, or the repair that stands in its place.

use std::collections::BTreeMap;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::TryStreamExt;

use crate::error::Result;
use crate::lake::overlay::live::LiveRepairs;
use crate::lake::overlay::patch::Patched;
use crate::lake::overlay::versions::LOOKBACKS;
use crate::lake::shape::KeyTime;
use crate::lake::{Lake, Layer, ScanRequest};
use crate::model::{Identity, Interval, Key, Table};

/// The row of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseRow {
    /// The batch that holds it, and the row in it.
    One(usize, usize),
    /// The table has several rows, and no repair has replaced them.
    Several,
}

/// The rows of some slots, without repaired cells.
#[derive(Debug, Default)]
pub struct BaseRows {
    by_slot: BTreeMap<Key, BTreeMap<i64, BaseRow>>,
    batches: Vec<RecordBatch>,
    live: LiveRepairs,
    rows_read: u64,
}

impl BaseRows {
    /// Reads some columns of the rows of those slots of an interval that are wanted, with one scan of the table and one of its repairs. With
    /// `true`, the table's own rows have all their columns.
    ///
    /// # Errors
    /// Those of the lake.
    pub async fn read(
        lake: &dyn Lake,
        table: &Table,
        (interval, keys): (Interval, &[Key]),
        (columns, all_columns): (&[String], bool),
        wanted: impl Fn(&Key, i64) -> bool,
    ) -> Result<Self> {
        let identity = table.identity();
        let interval = identity.widened(&interval, LOOKBACKS);
        // Where the key alone identifies a row, all of its versions decide.
        let wanted = |key: &Key, slot: i64| identity.lookback_us().is_some() || wanted(key, slot);
        let live = LiveRepairs::read(lake, table, interval, keys, columns).await?;
        let columns = (!all_columns).then(|| columns.to_vec());
        let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys.to_vec()).with_columns(columns);
        let mut own = lake.scan(table, &request).await?;
        let mut base = Self { by_slot: BTreeMap::new(), batches: live.batches().to_vec(), live, rows_read: 0 };
        while let Some(batch) = own.try_next().await? {
            base.rows_read += batch.num_rows() as u64;
            let number = base.batches.len();
            let places = KeyTime::of(table, &batch)?;
            let mut kept = vec![false; batch.num_rows()];
            let mut next = 0;
            for run in places.runs() {
                let key = places.key(run.start);
                let slots = base.by_slot.entry(key.clone()).or_default();
                for row in run {
                    if let Some(slot) = identity.of_row(places.times.value(row)).filter(|slot| wanted(&key, *slot)) {
                        slots.entry(slot).and_modify(|known| *known = BaseRow::Several).or_insert(BaseRow::One(number, next));
                        kept[row] = true;
                        next += 1;
                    }
                }
            }
            if next == 0 {
                continue;
            }
            let all = next == batch.num_rows();
            base.batches.push(if all { batch } else { filter_record_batch(&batch, &BooleanArray::from(kept))? });
        }
        if identity.lookback_us().is_some() {
            for slots in base.by_slot.values_mut().filter(|slots| slots.len() > 1) {
                let all: Vec<i64> = slots.keys().copied().collect();
                for (slot, row) in slots.iter_mut() {
                    if all.iter().any(|other| other != slot && identity.are_same_slots(*other, *slot)) {
                        *row = BaseRow::Several;
                    }
                }
            }
        }
        for (key, slot, repair) in base.live.iter().filter(|(key, slot, _)| wanted(key, *slot)) {
            let slots = base.by_slot.entry(key.clone()).or_default();
            if repair.replaces && identity.lookback_us().is_some() {
                slots.retain(|other, _| !identity.are_same_slots(*other, slot));
            }
            if repair.removes {
                slots.remove(&slot);
            } else if repair.replaces || !slots.contains_key(&slot) {
                slots.insert(slot, BaseRow::One(repair.batch, repair.row));
            }
        }
        Ok(base)
    }

    /// The row of a slot, if it has one.
    pub fn get(&self, key: &Key, slot: i64) -> Option<BaseRow> {
        self.by_slot.get(key)?.get(&slot).copied()
    }

    /// The row that is the same as one of this key and number, with its own number. Where the key alone identifies a row, that may be another.
    pub fn same_as(&self, identity: Identity, key: &Key, slot: i64) -> Option<(i64, BaseRow)> {
        let of_key = self.by_slot.get(key)?;
        let own = identity.same_as(slot, of_key.keys().copied())?;
        Some((own, *of_key.get(&own)?))
    }

    /// The batches to which [`BaseRow::One`] refers.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The table's own rows among these batches, as they are.
    pub fn own(&self) -> &[RecordBatch] {
        self.batches.get(self.live.batches().len()..).unwrap_or_default()
    }

    /// The live repairs.
    pub fn live(&self) -> &LiveRepairs {
        &self.live
    }

    /// The rows with repaired cells, for the batch of this number; `None` if none of its cells are repaired.
    ///
    /// # Errors
    /// As [`Patches::apply`](super::patch::Patches::apply).
    pub fn patched(&self, table: &Table, batch: usize) -> Result<Option<Patched>> {
        let (Some(rows), identity) = (self.batches.get(batch), table.identity()) else { return Ok(None) };
        let is_repair = batch < self.live.batches().len();
        let slot = |time_us: i64| identity.slot(time_us);
        self.live.patches().apply(table, rows, slot, |time_us| is_repair || identity.of_row(time_us).is_some())
    }

    /// How many rows of the table were read.
    pub fn rows_read(&self) -> u64 {
        self.rows_read
    }
}
