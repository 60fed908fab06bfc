//! The repaired view: raw rows except those of replaced and removed slots, and live repairs of slots that raw lacks.
//!
//! The view takes one pass over raw. The repairs, the small side, are held in hash sets for one stretch of time after another. Raw rows of
//! replaced slots are left out; raw rows of filled slots mark their repairs as not needed. The remaining repairs are read after raw.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, StringArray, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use repair_core::Result;
use repair_core::lake::overlay::Op;
use repair_core::lake::overlay::patch::Patches;
use repair_core::lake::overlay::retraction::Retracted;
use repair_core::lake::{overlay as core_overlay, rollup};
use repair_core::model::{Key, SlotRange, Table};

use crate::files::DataFile;
use crate::overlay::{self, Slots, Winners};
use crate::place;
use crate::read::{self, Sink, Tally};
use crate::scan::Scan;
use repair_core::lake::partition::{SECOND_US, TimeBounds};
use repair_core::lake::shape::KeyTime;

/// Repairs are held in memory for a stretch of time whose files have about this size: a million or two of rows. Debug builds use so few
/// that tests with a handful of repairs also cut between them.
const CHUNK_BYTES: u64 = if cfg!(debug_assertions) { 1 << 12 } else { 16 << 20 };

/// If the key alone identifies a row, its repair may be one lookback away from it, and a newer one that outdates the repair another.
const REPAIRS_AROUND: i64 = 2;

/// Reads the view.
pub(crate) fn read(scan: &Scan, sink: &mut Sink<'_>) -> Result<()> {
    let schema = core_overlay::view_schema(&scan.shape);
    let repairs = scan.place.repairs_within(&scan.table, &scan.bounds.of_versions(&scan.table, REPAIRS_AROUND))?;
    let retracted = if repairs.is_empty() { Retracted::default() } else { crate::retract::retracted(&scan.table, &scan.place)? };
    for bounds in chunks(scan, &repairs)? {
        let files = place::prune(scan.files.clone(), &bounds);
        let repairs = place::prune_ours(&scan.table, repairs.clone(), &bounds.of_versions(&scan.table, REPAIRS_AROUND))?;
        if chunk(scan, &schema, (&files, &repairs), &retracted, &bounds, sink)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn chunk(
    scan: &Scan,
    schema: &SchemaRef,
    (files, repairs): (&[DataFile], &[DataFile]),
    retracted: &Retracted,
    bounds: &TimeBounds,
    sink: &mut Sink<'_>,
) -> Result<ControlFlow<()>> {
    let slots = Slots::of(&scan.table);
    if repairs.is_empty() {
        let own = |batch: &RecordBatch| {
            let nulls = new_null_array(&DataType::Utf8, batch.num_rows());
            with_columns(schema, batch, [nulls.clone(), nulls])
        };
        return scan.raw(files, bounds, &mut |batch| match aligned(&scan.table, slots, &batch)? {
            Some(batch) => sink(own(&batch)?),
            None => Ok(ControlFlow::Continue(())),
        });
    }
    let wanted = |key: &Key| scan.keys.as_ref().is_none_or(|keys: &HashSet<Key>| keys.contains(key));
    let around = bounds.of_versions(&scan.table, REPAIRS_AROUND);
    let mut winners = Winners::load(&scan.table, repairs, &around, retracted, wanted)?;
    let mut usage = winners.usage;
    let patches = if winners.has_patches {
        overlay::patches(&scan.table, repairs, &scan.whole, bounds, retracted, (&mut usage, wanted))?
    } else {
        Patches::default()
    };
    scan.count(usage);
    // What the view says about a row's cells does not depend on the columns that are asked for.
    let widened = scan.with_columns(patches.columns())?;
    let scan = widened.as_ref().unwrap_or(scan);
    let cells = Cells { table: &scan.table, slots, patches: &patches, schema };
    let flow = scan.raw(files, bounds, &mut |batch| match not_replaced(&scan.table, slots, &mut winners, &batch)? {
        Some(batch) => sink(cells.shown(&batch, new_null_array(&DataType::Utf8, batch.num_rows()), |time_us| slots.is_aligned(time_us))?),
        None => Ok(ControlFlow::Continue(())),
    })?;
    if flow.is_break() {
        return Ok(flow);
    }
    live_repairs(scan, &cells, repairs, bounds, &winners, sink)
}

/// Turns rows into rows of the view.
struct Cells<'a> {
    table: &'a Table,
    slots: Slots,
    patches: &'a Patches,
    schema: &'a SchemaRef,
}

impl Cells<'_> {
    /// The rows with their repaired cells, and the columns of the view alone.
    fn shown(&self, rows: &RecordBatch, repaired_by: ArrayRef, is_aligned: impl Fn(i64) -> bool) -> Result<RecordBatch> {
        let patched = self.patches.apply(self.table, rows, |time_us| self.slots.slot(time_us), is_aligned)?;
        let cells: ArrayRef = match &patched {
            Some(patched) => Arc::new(patched.cells_column()?),
            None => new_null_array(&DataType::Utf8, rows.num_rows()),
        };
        with_columns(self.schema, patched.as_ref().map_or(rows, |patched| &patched.rows), [repaired_by, cells])
    }
}

/// The raw rows that belong to slots. `None` if there are none.
fn aligned(table: &Table, slots: Slots, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
    let times = KeyTime::of(table, batch)?.times;
    if times.values().iter().all(|time_us| slots.is_aligned(*time_us)) {
        return Ok(Some(batch.clone()));
    }
    let mask: BooleanArray = times.values().iter().map(|time_us| Some(slots.is_aligned(*time_us))).collect();
    Ok(if mask.true_count() == 0 { None } else { Some(filter_record_batch(batch, &mask)?) })
}

/// The raw rows that belong to slots which are not replaced. Marks the repairs whose slots raw has. `None` if no row is left.
fn not_replaced(table: &Table, slots: Slots, winners: &mut Winners, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
    if winners.is_empty() {
        return aligned(table, slots, batch);
    }
    let rows = KeyTime::of(table, batch)?;
    let mut shown: Vec<bool> = rows.times.values().iter().map(|time_us| slots.is_aligned(*time_us)).collect();
    for run in rows.runs() {
        let Some(repaired) = winners.of_key(&rows.key(run.start)) else { continue };
        let (times, shown) = (&rows.times.values()[run.clone()], &mut shown[run]);
        let (Some(&first_us), Some(&last_us)) = (times.first(), times.last()) else { continue };
        if slots.versions_us().is_none() && times.is_sorted() {
            // There are far fewer repairs than rows, so each is looked up among the rows that follow those of the one before.
            let mut begin = 0;
            for (&of, winner) in repaired.range_mut(slots.slot(first_us)..=slots.slot(last_us)) {
                begin += times.get(begin..).unwrap_or_default().partition_point(|&time_us| slots.slot(time_us) < of);
                let of_slot = times.iter().zip(shown.iter_mut()).skip(begin).take_while(|(time_us, _)| slots.slot(**time_us) == of);
                for (_, shown) in of_slot.filter(|(_, shown)| **shown) {
                    winner.filled = true;
                    *shown = !winner.op.hides_own();
                }
            }
            continue;
        }
        for (&time_us, shown) in times.iter().zip(shown).filter(|(_, shown)| **shown) {
            *shown = !Winners::replaced(repaired, slots, slots.slot(time_us));
        }
    }
    let left = shown.iter().filter(|shown| **shown).count();
    Ok(match left {
        0 => None,
        all if all == batch.num_rows() => Some(batch.clone()),
        _ => Some(filter_record_batch(batch, &BooleanArray::from(shown))?),
    })
}

/// The rows of live repairs, for slots that raw lacks or that they replace.
fn live_repairs(
    scan: &Scan,
    cells: &Cells<'_>,
    repairs: &[DataFile],
    bounds: &TimeBounds,
    winners: &Winners,
    sink: &mut Sink<'_>,
) -> Result<ControlFlow<()>> {
    let table = scan.table.of_repairs();
    let slots = Slots::of(&table);
    let strategy = Field::new(core_overlay::columns::STRATEGY, DataType::Utf8, true);
    let shape = Arc::new(Schema::new(scan.shape.fields().iter().cloned().chain([Arc::new(strategy)]).collect::<Vec<_>>()));
    let own: Vec<usize> = (0..scan.shape.fields().len()).collect();
    let mut flow = ControlFlow::Continue(());
    for (number, file) in (0u32..).zip(repairs) {
        let mut first_row = 0;
        let usage = read::rows(&table, file, &shape, &TimeBounds::ALL, &mut Tally::default(), &mut |batch: RecordBatch| {
            let mask = live(&KeyTime::of(&table, &batch)?, slots, bounds, winners, number, first_row);
            first_row += batch.num_rows();
            if mask.true_count() == 0 {
                return Ok(flow);
            }
            let batch = filter_record_batch(&batch, &mask)?;
            let strategy = rollup::column(&batch, core_overlay::columns::STRATEGY)?.as_string::<i32>();
            // A null would mean that the row is the table's own.
            let strategy = StringArray::from_iter_values(strategy.iter().map(|name| name.unwrap_or("unknown")));
            flow = sink(cells.shown(&batch.project(&own)?, Arc::new(strategy), |_| true)?)?;
            Ok(flow)
        })?;
        scan.count(usage);
        if flow.is_break() {
            break;
        }
    }
    Ok(flow)
}

fn live(rows: &KeyTime<'_>, slots: Slots, bounds: &TimeBounds, winners: &Winners, file: u32, first_row: usize) -> BooleanArray {
    let mut mask = BooleanBufferBuilder::new(rows.times.len());
    let is_live = |key: &Key, row: usize| {
        let time_us = rows.times.value(row);
        bounds.contains(time_us)
            && winners
                .get(key, slots.slot(time_us))
                .filter(|winner| winner.file == file && winner.row as usize == first_row + row)
                .is_some_and(|winner| winner.op == Op::Replace || (winner.op == Op::Insert && !winner.filled))
    };
    for run in rows.runs() {
        let key = rows.key(run.start);
        let Range { start, end } = run;
        (start..end).for_each(|row| mask.append(is_live(&key, row)));
    }
    BooleanArray::new(mask.finish(), None)
}

/// The rows with those columns that were asked for, and what the view says about them.
fn with_columns(schema: &SchemaRef, batch: &RecordBatch, of_view: [ArrayRef; 2]) -> Result<RecordBatch> {
    let own = schema.fields().len() - of_view.len();
    let asked = schema.fields().iter().take(own).map(|field| rollup::column(batch, field.name()).cloned());
    let columns = asked.chain(of_view.into_iter().map(Ok)).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Cuts the time of a scan, between slots, into stretches whose repairs fit into memory. If raw cannot be cut there, or there are few
/// repairs, or the versions of a row may lie on both sides of a cut, it is one stretch.
fn chunks(scan: &Scan, repairs: &[DataFile]) -> Result<Vec<TimeBounds>> {
    if Slots::of(&scan.table).versions_us().is_some() || scan.files.iter().any(|file| file.span.is_none()) {
        return Ok(vec![scan.bounds]);
    }
    let mut spans = Vec::with_capacity(repairs.len());
    for file in repairs {
        match place::time_span(&scan.table, file)? {
            Some(span) => spans.push((span.from_us, file.bytes)),
            None => return Ok(vec![scan.bounds]),
        }
    }
    spans.sort_unstable();
    let mut cuts = Vec::new();
    let (mut bytes, mut last_us) = (0, i64::MIN);
    for (from_us, more) in spans {
        if bytes >= CHUNK_BYTES && from_us > last_us {
            cuts.push(from_us);
            bytes = 0;
        }
        bytes += more;
        last_us = from_us;
    }
    Ok(cut(&scan.table, &scan.bounds, &cuts))
}

fn cut(table: &Table, bounds: &TimeBounds, cuts: &[i64]) -> Vec<TimeBounds> {
    let between_slots = |time_us: i64| match table.grid() {
        Ok(grid) => {
            let slot = grid.slot_of_seconds(time_us.div_euclid(SECOND_US));
            TimeBounds::of_slots(&grid, SlotRange::new(slot, slot + 1)).from_us
        }
        Err(_) => time_us,
    };
    let mut pieces = Vec::with_capacity(cuts.len() + 1);
    let mut rest = *bounds;
    for cut_us in cuts.iter().map(|&cut_us| between_slots(cut_us)) {
        if rest.contains(cut_us) && cut_us > rest.from_us {
            pieces.push(TimeBounds { from_us: rest.from_us, to_us: cut_us });
            rest.from_us = cut_us;
        }
    }
    pieces.push(rest);
    pieces
}
