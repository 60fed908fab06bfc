//! A piece of time of a rollup, as cells: one for each bucket and key. It works on values only.

use std::collections::HashMap;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use repair_core::Result;
use repair_core::lake::partition::{SECOND_US, TimeBounds};
use repair_core::lake::rollup::{Measure, Rollup};
use repair_core::lake::{rollup, shape};
use repair_core::model::{Identity, Key, SlotGrid, SlotRange, SlotSet, Table, TimeMark};

use super::fold::Numbers;
use crate::scan::Scan;

/// A piece of time. Cells are by bucket, then by key, because a file mostly covers a stretch of time, and memory that a thread never writes to is
/// never allocated.
pub(super) struct Piece<'a> {
    pub(super) table: &'a Table,
    pub(super) measures: &'a [Measure],
    /// The type of each measure.
    pub(super) types: Vec<DataType>,
    /// The column of the table for each measure: its name in the files, and its type.
    pub(super) columns: Vec<(String, DataType)>,
    /// In order, each once.
    pub(super) keys: Vec<Key>,
    pub(super) targets: HashMap<Key, u32>,
    pub(super) grid: SlotGrid,
    pub(super) slots: SlotRange,
    pub(super) bounds: TimeBounds,
    pub(super) wanted: SlotSet,
    /// The runs of wanted slots.
    pub(super) runs: Vec<SlotRange>,
    /// From a slot to the next.
    pub(super) step_us: i64,
    /// What is added to a slot to get its time, in steps.
    pub(super) mark: i64,
    /// The slots of a bucket.
    pub(super) per_bucket: i64,
    pub(super) first_bucket: i64,
    pub(super) buckets: usize,
    /// The buckets with wanted slots, counted from the first.
    pub(super) open: Vec<usize>,
}

impl<'a> Piece<'a> {
    /// The cells of a rollup; `None` if its slots and buckets are not such that the one follows from the other by a division.
    pub(super) fn of(table: &'a Table, scan: &Scan, rollup: &'a Rollup, types: &[DataType]) -> Result<Option<Self>> {
        let grid = table.grid()?;
        let every_s = i64::from(rollup.every.seconds());
        let is_plain = grid.is_plain() && grid.tolerance_s() == 0 && matches!(table.identity(), Identity::Slot(_));
        let step_s = grid.step_s().filter(|step_s| is_plain && *step_s > 0 && every_s % step_s == 0 && rollup.every.months().is_none());
        let Some(step_s) = step_s else { return Ok(None) };
        let slots = grid.slots_in(&rollup.interval);
        let wanted = rollup.wanted(table)?;
        let per_bucket = every_s / step_s;
        let first_bucket = slots.first.div_euclid(per_bucket);
        let buckets = if slots.is_empty() { 0 } else { (slots.end - 1).div_euclid(per_bucket) - first_bucket + 1 };
        let runs: Vec<SlotRange> = wanted.runs().collect();
        let touched = |run: &SlotRange| run.first.div_euclid(per_bucket)..=(run.end - 1).div_euclid(per_bucket);
        let mut open: Vec<usize> = runs.iter().flat_map(touched).filter_map(|bucket| usize::try_from(bucket - first_bucket).ok()).collect();
        open.dedup();
        let mut keys = rollup.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        let mut columns = Vec::with_capacity(rollup.measures.len());
        for measure in &rollup.measures {
            let Some(field) = shape::find(&scan.shape, &measure.column)? else { return Ok(None) };
            columns.push((field.name().clone(), field.data_type().clone()));
        }
        Ok(Some(Self {
            table,
            measures: &rollup.measures,
            types: types.to_vec(),
            columns,
            targets: keys.iter().cloned().zip(0..).collect(),
            keys,
            grid,
            slots,
            bounds: TimeBounds::of_slots(&grid, slots),
            runs,
            open,
            wanted,
            step_us: step_s * SECOND_US,
            mark: i64::from(grid.marks() == TimeMark::End),
            per_bucket,
            first_bucket,
            buckets: usize::try_from(buckets).unwrap_or(0),
        }))
    }

    /// How many cells there are.
    pub(super) fn cells(&self) -> usize {
        self.buckets * self.keys.len()
    }

    /// The cell of a wanted slot.
    pub(super) fn cell_of(&self, target: u32, slot: i64) -> Option<usize> {
        self.wanted.contains(slot).then(|| self.cell(target, slot.div_euclid(self.per_bucket))).flatten()
    }

    /// The cell of a bucket.
    #[inline]
    pub(super) fn cell(&self, target: u32, bucket: i64) -> Option<usize> {
        let bucket = usize::try_from(bucket - self.first_bucket).ok().filter(|bucket| *bucket < self.buckets)?;
        Some(bucket * self.keys.len() + target as usize)
    }

    /// The start of the bucket of a cell.
    pub(super) fn start_us(&self, cell: usize) -> i64 {
        let bucket = i64::try_from(cell / self.keys.len().max(1)).unwrap_or(i64::MAX);
        (self.first_bucket + bucket) * self.per_bucket * self.step_us
    }

    /// The numbers of each measure in a batch; none of a measure whose column the file lacks. `None` if some do not fit.
    pub(super) fn numbers(&self, scan: &Scan, batch: &RecordBatch) -> Result<Option<Vec<Option<Numbers>>>> {
        let mut all = Vec::with_capacity(self.measures.len());
        for ((measure, (name, of_table)), kind) in self.measures.iter().zip(&self.columns).zip(&self.types) {
            let Some(column) = batch.column_by_name(name).filter(|column| column.null_count() < column.len()) else {
                all.push(None);
                continue;
            };
            let exact = shape::cast_exact(column, of_table);
            let Ok(numbers) = exact.and_then(|column| rollup::numbers_of(&scan.table, measure, &column, kind)) else { return Ok(None) };
            let Some(numbers) = Numbers::of(numbers) else { return Ok(None) };
            all.push(Some(numbers));
        }
        Ok(Some(all))
    }
}
