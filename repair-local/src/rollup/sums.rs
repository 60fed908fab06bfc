//! The cells of a piece, as one thread fills them: rows of a cell that come in order of time are folded as they come, and between them the repairs
//! of their slots. A cell whose rows come in another order is only noted.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use arrow::array::RecordBatch;
use repair_core::lake::overlay::Op;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::shape;
use repair_core::model::{Key, SlotRange, Usage};
use repair_core::{Error, Result};

use super::fold::{Fold, Numbers};
use super::piece::Piece;
use super::repairs::{Pending, Repairs};
use crate::files::DataFile;
use crate::presence::{self, Ids, KeyColumn};
use crate::read::{self, Tally};
use crate::scan::Scan;

/// Rows decoded at a time: few enough that the columns of a batch stay near the processor.
const BATCH_ROWS: usize = 16_384;

/// Not looked up yet.
const UNKNOWN: u32 = u32::MAX;
/// A key that was not requested.
const OTHER: u32 = u32::MAX - 1;

/// What does not change while files are read.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) scan: &'a Scan,
    pub(super) piece: &'a Piece<'a>,
    pub(super) repairs: &'a Repairs,
    /// For each cell with absences, their slots in order.
    pub(super) absent: &'a HashMap<usize, Vec<i64>>,
}

/// The cells.
pub(super) struct Sums<'a> {
    inputs: Inputs<'a>,
    /// For each cell, the last slot that was seen, counted from 1 within its bucket; 0 if none was.
    last: Vec<u32>,
    observed: Vec<u32>,
    repaired: Vec<u32>,
    /// For each cell, how many of its repairs are done; empty if there are no repairs.
    done: Vec<u32>,
    folds: Vec<Fold>,
    /// For some cells, how many of the slots that were thought absent have a row.
    arrived: HashMap<usize, u64>,
    /// Cells whose rows came in another order.
    pub(super) disordered: Vec<usize>,
    is_disordered: Vec<bool>,
    /// Whether there were values that do not fit. Whether they count, is only known from the view.
    pub(super) is_unsure: bool,
    pub(super) tally: Tally,
    pub(super) usage: Usage,
}

impl<'a> Sums<'a> {
    pub(super) fn new(inputs: Inputs<'a>) -> Self {
        let cells = inputs.piece.cells();
        let fold = |(measure, kind): (&repair_core::lake::rollup::Measure, _)| Fold::new(measure.function, kind, cells);
        let mut sums = Self {
            inputs,
            last: vec![0; cells],
            observed: vec![0; cells],
            repaired: vec![0; cells],
            done: if inputs.repairs.cells().next().is_some() { vec![0; cells] } else { Vec::new() },
            folds: inputs.piece.measures.iter().zip(&inputs.piece.types).map(fold).collect(),
            arrived: HashMap::new(),
            disordered: Vec::new(),
            is_disordered: vec![false; cells],
            is_unsure: false,
            tally: Tally::default(),
            usage: Usage::default(),
        };
        inputs.repairs.special.iter().for_each(|cell| sums.give_up(*cell));
        sums
    }

    /// Reads a file.
    pub(super) fn read(&mut self, file: &DataFile) -> Result<()> {
        let Inputs { scan, piece, .. } = self.inputs;
        let bounds = file.reach.map_or(piece.bounds, |reach| reach.intersection(&piece.bounds));
        if !self.read_direct(file, &bounds)? {
            let mut tally = Tally::default();
            let mut add = |batch: RecordBatch| self.add(file, &bounds, &batch);
            let (_, usage) = scan.raw_file(file, &piece.bounds, &mut tally, &mut add)?;
            self.tally.merge(tally);
            self.usage += usage;
        }
        Ok(())
    }

    /// Reads a file whose columns are used as they are; returns whether it is such a file.
    fn read_direct(&mut self, file: &DataFile, bounds: &TimeBounds) -> Result<bool> {
        let piece = self.inputs.piece;
        let table = piece.table;
        let is_own = |(name, _): &(String, _)| !table.columns.contains_key(name);
        if !presence::is_direct(table) || !piece.columns.iter().all(is_own) {
            return Ok(false);
        }
        read::guarded(file, || {
            let (opened, groups) = presence::open(table, file, bounds)?;
            let schema = opened.schema();
            let is_number = |(name, _): &(String, _)| schema.field_with_name(name).map_or(true, |field| field.data_type().is_numeric());
            if !presence::has_time(table, &schema) || !piece.columns.iter().all(is_number) {
                return Ok(false);
            }
            let own = table.key.iter().map(String::as_str).chain([table.time.as_str()]);
            let names: Vec<&str> = own.chain(piece.columns.iter().map(|(name, _)| name.as_str())).collect();
            let usage = opened.read(&names, &groups, BATCH_ROWS, &mut |batch| self.add(file, bounds, &batch))?;
            self.usage += usage;
            Ok(true)
        })
    }

    fn add(&mut self, file: &DataFile, bounds: &TimeBounds, batch: &RecordBatch) -> Result<ControlFlow<()>> {
        let Inputs { scan, piece, .. } = self.inputs;
        let times = batch.column_by_name(&piece.table.time).ok_or_else(|| Error::internal("the time column did not come"))?;
        let times = shape::instants(piece.table, times)?;
        let keys: Vec<KeyColumn> =
            piece.table.key.iter().map(|name| KeyColumn::of(piece.table, file, name, batch)).collect::<Result<_>>()?;
        let Some(numbers) = piece.numbers(scan, batch)? else {
            self.is_unsure = true;
            return Ok(ControlFlow::Break(()));
        };
        let (ids, distinct) = presence::ids(&keys, batch.num_rows());
        let rows = Rows { keys: &keys, distinct, times: times.values(), numbers: &numbers, bounds };
        match &ids {
            Ids::One => self.add_rows(&rows, |_| 0),
            Ids::Codes(codes) => self.add_rows(&rows, |row| usize::try_from(codes[row]).unwrap_or(0)),
            Ids::Dense(ids) => self.add_rows(&rows, |row| ids[row] as usize),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn add_rows(&mut self, rows: &Rows<'_>, id_of: impl Fn(usize) -> usize) {
        let piece = self.inputs.piece;
        let step_us = piece.step_us;
        let times = rows.times;
        let mut targets = vec![UNKNOWN; rows.distinct];
        let mut wanted = SlotRange::new(0, 0);
        // Of the row before: where rows of one instant follow each other, the next one is in the same place.
        let mut at = Place { time_us: i64::MIN, slot: 0, bucket: 0, end_us: 0 };
        let mut row = 0;
        while row < times.len() {
            let id = id_of(row);
            if targets[id] == UNKNOWN {
                let key = Key::new(rows.keys.iter().map(|column| column.value(row)));
                targets[id] = piece.targets.get(&key).copied().unwrap_or(OTHER);
            }
            let target = targets[id];
            let time_us = times[row];
            if target == OTHER || !rows.bounds.contains(time_us) {
                row += 1;
                continue;
            }
            if at.time_us != time_us {
                let slot = time_us.div_euclid(step_us) - piece.mark;
                // A row that is too far from its slot is no part of the series.
                let mut is_wanted = (slot + piece.mark) * step_us == time_us;
                if is_wanted && !wanted.contains(slot) {
                    let next = piece.runs.partition_point(|run| run.end <= slot);
                    match piece.runs.get(next).filter(|run| run.contains(slot)) {
                        Some(run) => wanted = *run,
                        None => is_wanted = false,
                    }
                }
                if !is_wanted {
                    row += 1;
                    continue;
                }
                let bucket = slot.div_euclid(piece.per_bucket);
                let end_slot = wanted.end.min((bucket + 1) * piece.per_bucket);
                at = Place { time_us, slot, bucket, end_us: ((end_slot + piece.mark) * step_us).min(rows.bounds.to_us) };
            }
            let Place { slot, bucket, end_us, .. } = at;
            // The rows that follow in order of time, of the same key and bucket.
            let mut end = row + 1;
            let mut before_us = time_us;
            while let Some(&next_us) = times.get(end) {
                let further_us = next_us.wrapping_sub(before_us);
                if further_us <= 0 || next_us >= end_us || id_of(end) != id || !is_whole(further_us, step_us) {
                    break;
                }
                before_us = next_us;
                end += 1;
            }
            if let Some(cell) = piece.cell(target, bucket) {
                let last = if end == row + 1 { slot } else { slot + (before_us - time_us) / step_us };
                self.add_run(cell, SlotRange::new(slot, last + 1), rows, row..end);
            }
            row = end;
        }
    }

    /// Adds rows of a cell that are in order of time, from the first of some slots to the last.
    #[inline]
    fn add_run(&mut self, cell: usize, slots: SlotRange, rows: &Rows<'_>, run: Range<usize>) {
        if self.is_disordered[cell] {
            return;
        }
        let piece = self.inputs.piece;
        let (first, last) = (slots.first, slots.end - 1);
        // Counted from 1 within its bucket.
        let place = first.rem_euclid(piece.per_bucket) + 1;
        if place <= i64::from(self.last[cell]) {
            self.give_up(cell);
            return;
        }
        self.last[cell] = u32::try_from(place + last - first).unwrap_or(u32::MAX);
        let repairs = self.inputs.repairs;
        let mut rest = run;
        for pending in repairs.of_cell(cell).iter().skip(self.done.get(cell).map_or(0, |done| *done as usize)) {
            if pending.slot > last {
                break;
            }
            if let Some(done) = self.done.get_mut(cell) {
                *done += 1;
            }
            let at_us = (pending.slot + piece.mark) * piece.step_us;
            let at = rest.start + rows.times[rest.clone()].partition_point(|time_us| *time_us < at_us);
            self.fold(cell, rows, rest.start..at);
            rest.start = at;
            let is_there = at < rest.end && rows.times[at] == at_us;
            // Where the table has a row of its own, one that was filled in does not count.
            if !is_there || pending.op == Op::Replace {
                self.repair(cell, pending);
            }
            if is_there && pending.op.hides_own() {
                rest.start += 1;
            }
        }
        self.fold(cell, rows, rest);
    }

    #[inline]
    fn fold(&mut self, cell: usize, rows: &Rows<'_>, run: Range<usize>) {
        if run.is_empty() {
            return;
        }
        self.observed[cell] += u32::try_from(run.len()).unwrap_or(u32::MAX);
        for (fold, numbers) in self.folds.iter_mut().zip(rows.numbers) {
            if let Some(numbers) = numbers {
                fold.add(cell, numbers, run.clone());
            }
        }
        if let Some(absent) = self.inputs.absent.get(&cell) {
            let piece = self.inputs.piece;
            let times = &rows.times[run];
            let is_there = |slot: &&i64| times.binary_search(&((**slot + piece.mark) * piece.step_us)).is_ok();
            *self.arrived.entry(cell).or_default() += absent.iter().filter(is_there).count() as u64;
        }
    }

    /// Adds a repair to a cell, later than all that it has.
    fn repair(&mut self, cell: usize, pending: &Pending) {
        if pending.op == Op::Remove {
            return;
        }
        self.repaired[cell] += 1;
        let numbers = self.inputs.repairs.batches.get(pending.batch).map(Vec::as_slice).unwrap_or_default();
        for (fold, numbers) in self.folds.iter_mut().zip(numbers) {
            if let Some(numbers) = numbers {
                fold.add(cell, numbers, pending.row..pending.row + 1);
            }
        }
        if self.inputs.absent.get(&cell).is_some_and(|absent| absent.binary_search(&pending.slot).is_ok()) {
            *self.arrived.entry(cell).or_default() += 1;
        }
    }

    /// Adds the repairs of a cell that are later than its rows.
    pub(super) fn end(&mut self, cell: usize) {
        let repairs = self.inputs.repairs;
        let done = self.done.get(cell).map_or(0, |done| *done as usize);
        for pending in repairs.of_cell(cell).iter().skip(done) {
            self.repair(cell, pending);
        }
    }

    /// Notes that the view must say what a cell holds.
    pub(super) fn give_up(&mut self, cell: usize) {
        if !std::mem::replace(&mut self.is_disordered[cell], true) {
            self.disordered.push(cell);
        }
    }

    /// Whether rows of the table were seen in a cell.
    pub(super) fn has_rows(&self, cell: usize) -> bool {
        self.last[cell] > 0
    }

    /// What a cell holds.
    pub(super) fn result(&self, cell: usize) -> Cell<'_> {
        Cell {
            folds: &self.folds,
            observed: u64::from(self.observed[cell]),
            repaired: u64::from(self.repaired[cell]),
            arrived: self.arrived.get(&cell).copied().unwrap_or(0),
        }
    }
}

/// What a cell holds.
pub(super) struct Cell<'a> {
    pub(super) folds: &'a [Fold],
    pub(super) observed: u64,
    pub(super) repaired: u64,
    pub(super) arrived: u64,
}

/// Where a row belongs.
#[derive(Clone, Copy)]
struct Place {
    time_us: i64,
    slot: i64,
    bucket: i64,
    /// When the next bucket begins, or a slot that is not wanted.
    end_us: i64,
}

/// Whether a time is a multiple of a step. Mostly it is one or two steps, which takes no division.
#[inline]
fn is_whole(time_us: i64, step_us: i64) -> bool {
    time_us == step_us || time_us == 2 * step_us || time_us % step_us == 0
}

/// The rows of a batch.
struct Rows<'a> {
    keys: &'a [KeyColumn],
    /// The most different ids of keys that there may be.
    distinct: usize,
    times: &'a [i64],
    numbers: &'a [Option<Numbers>],
    /// The time of the rows that are used.
    bounds: &'a TimeBounds,
}
