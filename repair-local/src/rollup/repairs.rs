//! What repairs do to the slots of a piece of a rollup: their values in order of time, to be put between the rows of the table.

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use repair_core::Result;
use repair_core::lake::PresenceRequest;
use repair_core::lake::overlay::Op;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::rollup::Rollup;
use repair_core::lake::shape::KeyTime;
use repair_core::model::{Key, SlotSet, Usage};

use super::fold::Numbers;
use super::piece::Piece;
use crate::overlay::{self, Slots, Winners};
use crate::read::{self, Tally};
use crate::scan::Scan;

/// The live repair of a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    cell: usize,
    pub(super) slot: i64,
    pub(super) op: Op,
    /// Where its values are, unless it removes rows.
    pub(super) batch: usize,
    pub(super) row: usize,
}

/// The overlay of a piece.
#[derive(Default)]
pub(super) struct Repairs {
    /// By cell, then slot.
    pending: Vec<Pending>,
    of_cell: HashMap<usize, Range<usize>>,
    /// For each batch of repairs, the numbers of each measure; none of a measure without any value.
    pub(super) batches: Vec<Vec<Option<Numbers>>>,
    /// Cells whose rows are changed in a way that only the view knows.
    pub(super) special: Vec<usize>,
    /// The slots that are confirmed absent, or whose rows are removed.
    pub(super) absent: BTreeMap<Key, SlotSet>,
}

impl Repairs {
    /// The repairs of a cell, in order of time.
    #[inline]
    pub(super) fn of_cell(&self, cell: usize) -> &[Pending] {
        if self.pending.is_empty() {
            return &[];
        }
        self.of_cell.get(&cell).and_then(|range| self.pending.get(range.clone())).unwrap_or_default()
    }

    /// The cells with repairs.
    pub(super) fn cells(&self) -> impl Iterator<Item = usize> {
        self.of_cell.keys().copied()
    }

    /// Reads the overlay of a piece.
    pub(super) fn read(scan: &Scan, rollup: &Rollup, piece: &Piece<'_>, usage: &mut Usage) -> Result<Self> {
        let mut repairs = Self::default();
        let files = scan.place.repairs_within(&scan.table, &piece.bounds)?;
        if let Some(as_of) = rollup.absent_as_of {
            let request = PresenceRequest::new(piece.slots, piece.keys.clone(), as_of);
            (repairs.absent, _) = overlay::absent_slots(&scan.table, &scan.place, &request, true, usage)?;
        }
        if files.is_empty() {
            return Ok(repairs);
        }
        let retracted = crate::retract::retracted(&scan.table, &scan.place)?;
        let wanted = |key: &Key| piece.targets.contains_key(key);
        let mut winners = Winners::load(&scan.table, &files, &piece.bounds, &retracted, wanted)?;
        let mut also = winners.usage;
        if winners.has_patches {
            let patches = overlay::patches(&scan.table, &files, &scan.whole, &piece.bounds, &retracted, (&mut also, wanted))?;
            repairs.special.extend(patches.slots().filter_map(|(key, slot)| piece.cell_of(*piece.targets.get(key)?, slot)));
        }
        // Rows are counted where their values are read.
        usage.bytes_scanned += also.bytes_scanned;
        let slots = Slots::of(&scan.table);
        for (key, &target) in &piece.targets {
            let Some(of_key) = winners.of_key(key) else { continue };
            for (&slot, _) in of_key.iter().filter(|(_, winner)| winner.op == Op::Remove) {
                if rollup.absent_as_of.is_some() {
                    let empty = || SlotSet::new(piece.grid.cadence(), piece.slots);
                    repairs.absent.entry(key.clone()).or_insert_with(empty).insert(slot);
                }
                if let Some(cell) = piece.cell_of(target, slot) {
                    repairs.pending.push(Pending { cell, slot, op: Op::Remove, batch: 0, row: 0 });
                }
            }
        }
        repairs.values(scan, piece, slots, &files, &winners, usage)?;
        repairs.pending.sort_unstable_by_key(|pending| (pending.cell, pending.slot));
        let mut first = 0;
        for of_cell in repairs.pending.chunk_by(|one, other| one.cell == other.cell) {
            repairs.of_cell.insert(of_cell[0].cell, first..first + of_cell.len());
            first += of_cell.len();
        }
        Ok(repairs)
    }

    /// Reads the values of the live repairs.
    fn values(
        &mut self,
        scan: &Scan,
        piece: &Piece<'_>,
        slots: Slots,
        files: &[crate::files::DataFile],
        winners: &Winners,
        usage: &mut Usage,
    ) -> Result<()> {
        let table = scan.table.of_repairs();
        let shape = Arc::new(Schema::new(scan.shape.fields().clone()));
        for (number, file) in (0u32..).zip(files) {
            let mut first_row = 0;
            *usage += read::rows(&table, file, &shape, &TimeBounds::ALL, &mut Tally::default(), &mut |batch: RecordBatch| {
                let rows = KeyTime::of(&table, &batch)?;
                let mut keep = vec![false; batch.num_rows()];
                let mut kept = 0;
                for run in rows.runs() {
                    let key = rows.key(run.start);
                    let Some(&target) = piece.targets.get(&key) else { continue };
                    for row in run {
                        let time_us = rows.times.value(row);
                        let slot = slots.slot(time_us);
                        let Some(cell) = piece.cell_of(target, slot).filter(|_| piece.bounds.contains(time_us)) else { continue };
                        let is_it = |winner: &&overlay::Winner| winner.file == number && winner.row as usize == first_row + row;
                        let Some(winner) = winners.get(&key, slot).filter(is_it).filter(|winner| winner.op != Op::Remove) else { continue };
                        if slots.is_aligned(time_us) {
                            self.pending.push(Pending { cell, slot, op: winner.op, batch: self.batches.len(), row: kept });
                            keep[row] = true;
                            kept += 1;
                        } else {
                            self.special.push(cell);
                        }
                    }
                }
                first_row += batch.num_rows();
                if kept > 0 {
                    let batch = filter_record_batch(&batch, &keep.into())?;
                    match piece.numbers(scan, &batch)? {
                        Some(numbers) => self.batches.push(numbers),
                        None => {
                            // What does not fit is an error only if it counts.
                            while self.pending.last().is_some_and(|last| last.op != Op::Remove && last.batch == self.batches.len()) {
                                self.special.extend(self.pending.pop().map(|last| last.cell));
                            }
                        }
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }
}
