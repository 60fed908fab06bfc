//! Rollups: rows of the repaired view, summed up by key and bucket of time, in one read of the files, on all processors.
//!
//! Rows of a key mostly come in order of time, in one file for each bucket, and are then folded as they are decoded: a bucket is a few numbers,
//! and no row is kept. Repairs, the small side, are read first and put between the rows. Where rows come in another order, where several files
//! have rows of a bucket, or where cells are repaired, those buckets are read again as the view shows them, and sorted.

mod fold;
mod piece;
mod repairs;
mod sums;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use jiff::Timestamp;
use repair_core::lake::rollup::{self as core_rollup, Gathered, Rollup};
use repair_core::lake::shape::KeyTime;
use repair_core::model::{Interval, Key, SlotSet, Table, Usage};
use repair_core::{Error, Result};

use self::piece::Piece;
use self::repairs::Repairs;
use self::sums::{Inputs, Sums};
use crate::lake::Inner;
use crate::place;
use crate::read::Tally;
use crate::scan::{self, Scan};
use crate::threads;

/// How many cells are in memory at a time, at about 60 bytes each if all have rows. Debug builds use so few that tests have several pieces.
const MOST_CELLS: u64 = if cfg!(debug_assertions) { 256 } else { 1 << 19 };

/// The same where there are repairs, whose values are in memory, too.
const MOST_CELLS_WITH_REPAIRS: u64 = if cfg!(debug_assertions) { 128 } else { 1 << 17 };

/// Computes a rollup.
pub(crate) fn rollup(lake: &Inner, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
    let described = |error: Error| scan::describe(lake, table).err().unwrap_or(error);
    let scan = Scan::new(lake, table, &request.scan()).map_err(described)?;
    // Repairs alone do not say which columns a table has.
    let columns = if scan.files.is_empty() { scan::describe(lake, table)? } else { scan.whole.clone() };
    let schema = request.schema(table, &columns)?;
    let has_repairs = !scan.place.repairs_within(table, &scan.bounds)?.is_empty();
    let most_cells = if has_repairs { MOST_CELLS_WITH_REPAIRS } else { MOST_CELLS };
    let mut done = Done { lake, table, columns: &columns, schema, batches: Vec::new(), usage: Usage::default() };
    for piece in request.pieces(most_cells / (request.keys.len() as u64).max(1)) {
        done.add(&scan, &piece)?;
    }
    Ok((done.batches, done.usage))
}

/// What is computed so far.
struct Done<'a> {
    lake: &'a Inner,
    table: &'a Table,
    columns: &'a SchemaRef,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    usage: Usage,
}

impl Done<'_> {
    /// Computes a piece.
    fn add(&mut self, scan: &Scan, rollup: &Rollup) -> Result<()> {
        let first_measure = self.table.key.len() + 1;
        let types: Vec<DataType> =
            self.schema.fields().iter().skip(first_measure).take(rollup.measures.len()).map(|field| field.data_type().clone()).collect();
        let Some(piece) = Piece::of(self.table, scan, rollup, &types)? else {
            let absent = self.absences(scan, rollup)?;
            return self.by_view(rollup, &absent, None);
        };
        if piece.cells() == 0 || piece.runs.is_empty() {
            return Ok(());
        }
        // The overlay is read first. A row that arrives meanwhile is seen below, and is not counted as absent.
        let repairs = Repairs::read(scan, rollup, &piece, &mut self.usage)?;
        let absent = absent_by_cell(&piece, &repairs.absent);
        let inputs = Inputs { scan, piece: &piece, repairs: &repairs, absent: &absent };
        let files = place::prune(scan.files.clone(), &piece.bounds);
        let mut states = threads::fold_parallel(&files, || Sums::new(inputs), |sums, file| sums.read(file))?;
        let (mut tally, mut is_unsure) = (Tally::default(), false);
        for state in &mut states {
            tally.merge(std::mem::take(&mut state.tally));
            is_unsure |= state.is_unsure;
            self.usage += std::mem::take(&mut state.usage);
        }
        if is_unsure {
            return self.by_view(rollup, &repairs.absent, None);
        }
        tally.check(self.table)?;
        let special = self.finish(rollup, &piece, &repairs, &absent, &mut states)?;
        drop(states);
        if special.is_empty() { Ok(()) } else { self.again(rollup, &piece, &repairs.absent, &special) }
    }

    /// Puts together what the threads have; returns the cells that must be read again.
    fn finish(
        &mut self,
        rollup: &Rollup,
        piece: &Piece<'_>,
        repairs: &Repairs,
        absent: &HashMap<usize, Vec<i64>>,
        states: &mut [Sums<'_>],
    ) -> Result<HashSet<usize>> {
        let mut special: HashSet<usize> = states.iter().flat_map(|state| state.disordered.iter().copied()).collect();
        let owner = |states: &[Sums<'_>], cell: usize| states.iter().position(|state| state.has_rows(cell));
        for cell in repairs.cells() {
            let at = owner(states, cell).unwrap_or(0);
            if let Some(state) = states.get_mut(at) {
                state.end(cell);
            }
        }
        let of_repairs: HashSet<usize> = repairs.cells().collect();
        let mut shown: Vec<(usize, usize)> = Vec::new();
        for target in 0..piece.keys.len() {
            for cell in piece.open.iter().map(|bucket| bucket * piece.keys.len() + target) {
                let mut with_rows = (0..states.len()).filter(|at| states[*at].has_rows(cell));
                let at = match (with_rows.next(), with_rows.next()) {
                    // Two threads have rows of it, from different files.
                    (Some(_), Some(_)) => {
                        special.insert(cell);
                        continue;
                    }
                    (Some(at), None) => at,
                    (None, _) if of_repairs.contains(&cell) || absent.contains_key(&cell) => 0,
                    (None, _) => continue,
                };
                if !special.contains(&cell) {
                    shown.push((at, cell));
                }
            }
        }
        let of = |cell: usize| absent.get(&cell).map_or(0, |absent| absent.len() as u64);
        let mut counts: [Vec<u64>; 4] = Default::default();
        shown.retain(|&(at, cell)| {
            let result = states[at].result(cell);
            let absent = of(cell).saturating_sub(result.arrived);
            let is_there = result.observed + result.repaired + absent > 0;
            if is_there {
                for (counts, count) in counts.iter_mut().zip([result.observed, result.repaired, 0, absent]) {
                    counts.push(count);
                }
            }
            is_there
        });
        let keys = piece.keys.len().max(1);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for part in 0..self.table.key.len() {
            let values: Vec<&str> = piece.keys.iter().map(|key| key.values().nth(part).unwrap_or_default()).collect();
            columns.push(Arc::new(StringArray::from_iter_values(shown.iter().map(|(_, cell)| values[cell % keys]))));
        }
        let starts = shown.iter().map(|(_, cell)| piece.start_us(*cell));
        columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(starts).with_timezone("UTC")));
        for (number, (measure, kind)) in rollup.measures.iter().zip(&piece.types).enumerate() {
            let numbers = shown.iter().map(|&(at, cell)| states[at].result(cell).folds[number].number(cell)).collect();
            columns.push(core_rollup::numbers_array(&measure.name, kind, numbers)?);
        }
        let all = if rollup.absent_as_of.is_some() { 4 } else { 3 };
        for counts in counts.into_iter().take(all) {
            columns.push(Arc::new(UInt64Array::from(counts)));
        }
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        if batch.num_rows() > 0 {
            self.batches.push(batch);
        }
        Ok(special)
    }

    /// Reads some cells as the view shows them.
    fn again(&mut self, rollup: &Rollup, piece: &Piece<'_>, absent: &BTreeMap<Key, SlotSet>, cells: &HashSet<usize>) -> Result<()> {
        let keys = piece.keys.len().max(1);
        let targets: HashSet<usize> = cells.iter().map(|cell| cell % keys).collect();
        let (first, last) = (cells.iter().min().copied().unwrap_or(0), cells.iter().max().copied().unwrap_or(0));
        let instant = |us: i64| Timestamp::from_microsecond(us).map_err(|error| Error::internal("a bucket is out of range").because(error));
        let from = instant(piece.start_us(first))?.max(rollup.interval.from());
        let to = instant(piece.start_us(last + keys))?.min(rollup.interval.to());
        let keys = piece.keys.iter().enumerate().filter(|(target, _)| targets.contains(target)).map(|(_, key)| key.clone()).collect();
        let some = Rollup { interval: Interval::new(from, to)?, keys, ..rollup.clone() };
        self.by_view(&some, absent, Some((piece, cells)))
    }

    /// Computes a rollup from the view, or some cells of it.
    fn by_view(&mut self, rollup: &Rollup, absent: &BTreeMap<Key, SlotSet>, only: Option<(&Piece<'_>, &HashSet<usize>)>) -> Result<()> {
        for rollup in rollup.pieces(rollup.most_buckets_in_memory(self.table)?) {
            let mut gathered = Gathered::new(self.table, self.columns, &rollup)?;
            Scan::new(self.lake, self.table, &rollup.scan())?.run(&mut |batch| {
                gathered.add(&batch)?;
                Ok(ControlFlow::Continue(()))
            })?;
            self.usage += gathered.usage;
            let mut batch = gathered.finish(absent)?;
            if let Some((piece, cells)) = only {
                let rows = KeyTime::of(&Table { time: core_rollup::BUCKET.to_owned(), ..self.table.clone() }, &batch)?;
                let is_one = |row: usize| {
                    let slot = rows.times.value(row).div_euclid(piece.step_us);
                    let target = piece.targets.get(&rows.key(row));
                    target
                        .and_then(|target| piece.cell(*target, slot.div_euclid(piece.per_bucket)))
                        .is_some_and(|cell| cells.contains(&cell))
                };
                let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_one(row))).collect();
                batch = filter_record_batch(&batch, &mask)?;
            }
            if batch.num_rows() > 0 {
                self.batches.push(batch);
            }
        }
        Ok(())
    }

    /// The slots that are confirmed absent or removed, of a piece that has no cells.
    fn absences(&mut self, scan: &Scan, rollup: &Rollup) -> Result<BTreeMap<Key, SlotSet>> {
        let Some(as_of) = rollup.absent_as_of else { return Ok(BTreeMap::new()) };
        let grid = self.table.grid()?;
        let slots = grid.slots_in(&rollup.interval);
        let request = repair_core::lake::PresenceRequest::new(slots, rollup.keys.clone(), as_of);
        let none = repair_core::model::Presence::new(grid, slots, []);
        let removed = crate::overlay::live_slots(self.table, &scan.place, &request, &none, true, &mut self.usage)?.removed;
        let (mut absent, _) = crate::overlay::absent_slots(self.table, &scan.place, &request, true, &mut self.usage)?;
        for (key, removed) in removed {
            absent.entry(key).or_insert_with(|| SlotSet::new(grid.cadence(), slots)).union(&removed);
        }
        Ok(absent)
    }
}

/// For each cell with absences, their wanted slots in order.
fn absent_by_cell(piece: &Piece<'_>, absent: &BTreeMap<Key, SlotSet>) -> HashMap<usize, Vec<i64>> {
    let mut by_cell: HashMap<usize, Vec<i64>> = HashMap::new();
    for (key, slots) in absent {
        let Some(&target) = piece.targets.get(key) else { continue };
        for slot in slots.iter() {
            if let Some(cell) = piece.cell_of(target, slot) {
                by_cell.entry(cell).or_default().push(slot);
            }
        }
    }
    by_cell
}
