//! Reads back what we keep beside a table: repairs, and slots confirmed absent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use jiff::Timestamp;
use repair_core::lake::overlay::Op;
use repair_core::lake::overlay::patch::{self, Patches};
use repair_core::lake::overlay::retraction::Retracted;
use repair_core::lake::{PresenceRequest, overlay};
use repair_core::model::Usage;
use repair_core::model::{Identity, Key, Presence, SlotSet, Table};
use repair_core::{Error, Result};

use crate::files::DataFile;
use crate::place::Place;
use crate::scan::overlay_rows;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::shape::{self, KeyTime};

/// The key and time columns, and some of ours.
fn shape_with(table: &Table, texts: &[&str], instants: &[&str]) -> SchemaRef {
    let own = table.key.iter().map(|key| shape::key_field(key)).chain([shape::time_field(table)]);
    let texts = texts.iter().map(|name| Field::new(*name, DataType::Utf8, true));
    let instants = instants.iter().map(|name| Field::new(*name, overlay::instant_type(), true));
    Arc::new(Schema::new(own.chain(texts).chain(instants).collect::<Vec<_>>()))
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    repair_core::lake::rollup::column(batch, name)?
        .as_string_opt::<i32>()
        .ok_or_else(|| Error::invalid(format!("column `{name}` is not text")))
}

/// The instants in one of our columns; a null is older than any.
fn instants(batch: &RecordBatch, name: &str) -> Result<Vec<i64>> {
    let column = repair_core::lake::rollup::column(batch, name)?.as_primitive::<TimestampMicrosecondType>();
    Ok((0..column.len()).map(|row| if column.is_null(row) { i64::MIN } else { column.value(row) }).collect())
}

/// What a repair does.
fn op_of(op: &StringArray, row: usize) -> Result<Op> {
    let word = if op.is_null(row) { "" } else { op.value(row) };
    Op::of_repair(word).ok_or_else(|| {
        let column = overlay::columns::OP;
        Error::invalid(format!(
            "`{word}` in column `{column}` is neither `insert`, `replace`, `patch` nor `remove`; was it written by a later version?"
        ))
    })
}

/// The columns needed to see what is retracted; none if nothing is.
fn provenance_to_read(retracted: &Retracted) -> &'static [&'static str] {
    if retracted.is_empty() { &[] } else { &[overlay::columns::RUN, overlay::columns::STEP] }
}

/// Which rows of a batch are retracted.
struct Hidden<'a> {
    retracted: &'a Retracted,
    /// Run and step of each row; `None` if nothing is retracted.
    by: Option<(&'a StringArray, &'a StringArray)>,
}

impl<'a> Hidden<'a> {
    fn of(retracted: &'a Retracted, batch: &'a RecordBatch) -> Result<Self> {
        let by =
            if retracted.is_empty() { None } else { Some((text(batch, overlay::columns::RUN)?, text(batch, overlay::columns::STEP)?)) };
        Ok(Self { retracted, by })
    }

    fn repair(&self, key: &Key, rows: &KeyTime<'_>, row: usize) -> bool {
        self.by.is_some_and(|(runs, steps)| self.retracted.hides_repair(runs.value(row), steps.value(row), key, rows.times.value(row)))
    }

    fn exception(&self, key: &Key, rows: &KeyTime<'_>, row: usize) -> bool {
        self.by.is_some_and(|(runs, steps)| self.retracted.hides_exception(runs.value(row), steps.value(row), key, rows.times.value(row)))
    }
}

/// The repairs of cells, as [`Winners::load`] reads those of rows. `shape` has the table's columns.
pub(crate) fn patches(
    table: &Table,
    files: &[DataFile],
    shape: &Schema,
    bounds: &TimeBounds,
    retracted: &Retracted,
    (usage, wanted): (&mut Usage, impl Fn(&Key) -> bool),
) -> Result<Patches> {
    use overlay::columns as c;
    let mut patches = Patches::default();
    let (ours, slots) = (table.of_repairs(), Slots::of(table));
    for file in files {
        let schema = crate::read::guarded(file, || Ok(crate::read::parquet::open(file)?.schema()))?;
        let has = |name: &str| schema.field_with_name(name).is_ok();
        if !has(c::CELLS) {
            continue;
        }
        let own = table.key.iter().map(|key| shape::key_field(key)).chain([shape::time_field(table)]);
        let texts = patch::NEEDED.iter().filter(|name| **name != c::AT).chain([&c::STEP]);
        let mut fields: Vec<Field> = own.chain(texts.map(|name| Field::new(*name, DataType::Utf8, true))).collect();
        fields.push(Field::new(c::AT, overlay::instant_type(), true));
        for field in shape.fields() {
            let old = patch::was(field.name());
            if has(&old) {
                fields.push(field.as_ref().clone().with_nullable(true));
                fields.push(Field::new(old, field.data_type().clone(), true));
            }
        }
        overlay_rows(table, std::slice::from_ref(file), &Arc::new(Schema::new(fields)), bounds, usage, &mut |batch| {
            let times = KeyTime::of(&ours, &batch)?;
            let hidden = Hidden::of(retracted, &batch)?;
            patches.add(
                &ours,
                &batch,
                |time_us| slots.slot(time_us),
                |key, time_us, row| bounds.contains(time_us) && wanted(key) && !hidden.repair(key, &times, row),
            )
        })?;
    }
    Ok(patches)
}

/// What rows are identified by: the slot of a series, or the time itself if there is no cadence. If the key alone identifies a row, slots that are
/// near each other are the same, see [`Slots::versions_us`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots(Identity);

impl Slots {
    pub(crate) fn of(table: &Table) -> Self {
        Self(table.identity())
    }

    pub(crate) fn slot(&self, time_us: i64) -> i64 {
        self.0.slot(time_us)
    }

    /// The slot of a row of the table; `None` if it is too far from it, so that it is no part of the series.
    pub(crate) fn of_row(&self, time_us: i64) -> Option<i64> {
        self.0.of_row(time_us)
    }

    /// How far apart rows may be that are the same, if the key alone identifies a row.
    pub(crate) fn versions_us(&self) -> Option<i64> {
        self.0.lookback_us()
    }

    /// Whether a row's time is near enough to that of a slot.
    pub(crate) fn is_aligned(&self, time_us: i64) -> bool {
        self.of_row(time_us).is_some()
    }
}

/// What repairs do to slots.
#[derive(Default)]
pub(crate) struct LiveSlots {
    /// Slots for which the repaired view shows a repair: filled slots that raw lacks, and replaced slots.
    pub(crate) shown: BTreeMap<Key, SlotSet>,
    /// Slots that were filled before raw got a row of its own.
    pub(crate) overtaken: BTreeMap<Key, SlotSet>,
    /// Slots whose rows are removed.
    pub(crate) removed: BTreeMap<Key, SlotSet>,
}

/// The slots of live repairs.
pub(crate) fn live_slots(
    table: &Table,
    place: &Place,
    request: &PresenceRequest,
    raw: &Presence,
    is_lean: bool,
    usage: &mut Usage,
) -> Result<LiveSlots> {
    let grid = raw.grid;
    let bounds = TimeBounds::of_slots(&grid, request.slots);
    let files = place.repairs_within(table, &bounds)?;
    if is_lean && files.is_empty() {
        return Ok(LiveSlots::default());
    }
    let mut inserted = crate::presence::empty_sets(grid, request);
    let mut overtaken = inserted.clone();
    let mut removed = inserted.clone();
    if files.is_empty() {
        return Ok(LiveSlots { shown: inserted, overtaken, removed });
    }
    let mut replaced = inserted.clone();
    let slots = Slots(Identity::Slot(grid));
    let retracted = crate::retract::retracted(table, place)?;
    let mut texts = vec![overlay::columns::OP];
    texts.extend(provenance_to_read(&retracted));
    overlay_rows(table, &files, &shape_with(table, &texts, &[]), &bounds, usage, &mut |batch| {
        let rows = KeyTime::of(table, &batch)?;
        let op = text(&batch, overlay::columns::OP)?;
        let hidden = Hidden::of(&retracted, &batch)?;
        for run in rows.runs() {
            let key = rows.key(run.start);
            if let (Some(inserted), Some(replaced), Some(removed)) = (inserted.get_mut(&key), replaced.get_mut(&key), removed.get_mut(&key))
            {
                for row in run {
                    if hidden.repair(&key, &rows, row) {
                        continue;
                    }
                    let set = match op_of(op, row)? {
                        Op::Replace => &mut *replaced,
                        Op::Insert => &mut *inserted,
                        Op::Remove => &mut *removed,
                        // A slot whose row has repaired cells is present by that row.
                        Op::Patch | Op::Absent => continue,
                    };
                    set.insert(slots.slot(rows.times.value(row)));
                }
            }
        }
        Ok(())
    })?;
    // If raw has the slot, and it was both filled and replaced, the newest repair decides, and so it does if it was removed and something else.
    // This is rare, so it is looked up only then.
    let mut undecided = BTreeMap::new();
    for (key, removed) in &mut removed {
        let (Some(inserted), Some(replaced)) = (inserted.get_mut(key), replaced.get_mut(key)) else { continue };
        let mut unclear = inserted.clone();
        unclear.union(replaced);
        unclear.intersect(removed);
        for set in [&mut *inserted, replaced, removed] {
            set.subtract(&unclear);
        }
        if !unclear.is_empty() {
            undecided.insert(key.clone(), unclear);
        }
    }
    if !undecided.is_empty() {
        let winners = Winners::load(table, &files, &bounds, &retracted, |key| undecided.contains_key(key))?;
        for (key, unclear) in std::mem::take(&mut undecided) {
            for slot in unclear.iter() {
                let set = match winners.get(&key, slot).map(|winner| winner.op) {
                    Some(Op::Insert) => inserted.get_mut(&key),
                    Some(Op::Replace) => replaced.get_mut(&key),
                    _ => removed.get_mut(&key),
                };
                set.map(|set| set.insert(slot));
            }
        }
    }
    for (key, inserted) in &mut inserted {
        let (Some(replaced), Some(raw)) = (replaced.get(key), raw.keys.get(key)) else { continue };
        let mut late = inserted.clone();
        late.intersect(&raw.present);
        let mut both = late.clone();
        both.intersect(replaced);
        if !both.is_empty() {
            undecided.insert(key.clone(), both);
        }
        overtaken.insert(key.clone(), late);
        inserted.subtract(&raw.present);
        inserted.union(replaced);
    }
    if !undecided.is_empty() {
        let winners = Winners::load(table, &files, &bounds, &retracted, |key| undecided.contains_key(key))?;
        for (key, mut undecided) in undecided {
            let Some(live) = inserted.get_mut(&key) else { continue };
            let keep: Vec<i64> =
                undecided.iter().filter(|&slot| winners.get(&key, slot).is_some_and(|winner| winner.op.hides_own())).collect();
            let mut kept = SlotSet::new(grid.cadence(), request.slots);
            keep.into_iter().for_each(|slot| {
                kept.insert(slot);
            });
            // Replaced rows are not the truth by which to judge a repair that filled the slot.
            if let Some(late) = overtaken.get_mut(&key) {
                late.subtract(&kept);
            }
            undecided.subtract(&kept);
            live.subtract(&undecided);
        }
    }
    Ok(LiveSlots { shown: inserted, overtaken, removed })
}

/// The slots confirmed absent by exceptions that have not expired.
pub(crate) fn absent_slots(
    table: &Table,
    place: &Place,
    request: &PresenceRequest,
    is_lean: bool,
    usage: &mut Usage,
) -> Result<(BTreeMap<Key, SlotSet>, Timestamp)> {
    let grid = table.grid()?;
    let bounds = TimeBounds::of_slots(&grid, request.slots);
    let files = place.exceptions_within(table, &bounds)?;
    if is_lean && files.is_empty() {
        return Ok((BTreeMap::new(), Timestamp::MAX));
    }
    let mut absent = crate::presence::empty_sets(grid, request);
    let as_of_us = request.as_of.as_microsecond();
    let mut until_us = i64::MAX;
    if files.is_empty() {
        return Ok((absent, Timestamp::MAX));
    }
    let slots = Slots(Identity::Slot(grid));
    let retracted = crate::retract::retracted(table, place)?;
    let shape = shape_with(table, provenance_to_read(&retracted), &[overlay::columns::RECHECK_AFTER]);
    overlay_rows(table, &files, &shape, &bounds, usage, &mut |batch| {
        let rows = KeyTime::of(table, &batch)?;
        let recheck_us = instants(&batch, overlay::columns::RECHECK_AFTER)?;
        let hidden = Hidden::of(&retracted, &batch)?;
        for run in rows.runs() {
            let key = rows.key(run.start);
            if let Some(absent) = absent.get_mut(&key) {
                for row in run.filter(|&row| recheck_us[row] > as_of_us && !hidden.exception(&key, &rows, row)) {
                    absent.insert(slots.slot(rows.times.value(row)));
                    until_us = until_us.min(recheck_us[row]);
                }
            }
        }
        Ok(())
    })?;
    Ok((absent, Timestamp::from_microsecond(until_us).unwrap_or(Timestamp::MAX)))
}

/// The live repair of a slot.
#[derive(Debug, Clone)]
pub(crate) struct Winner {
    at_us: i64,
    run: u32,
    unit: u32,
    /// Which of the files holds it.
    pub(crate) file: u32,
    /// Its row in that file.
    pub(crate) row: u32,
    /// What it does.
    pub(crate) op: Op,
    /// Whether raw has a row of its slot.
    pub(crate) filled: bool,
}

/// The live repair of each slot: the newest; of two from the same instant, the one whose run, then unit, sorts last by name.
#[derive(Default)]
pub(crate) struct Winners {
    keys: HashMap<Key, usize>,
    slots: Vec<BTreeMap<i64, Winner>>,
    names: HashMap<String, u32>,
    by_number: Vec<String>,
    /// Whether repairs change cells too.
    pub(crate) has_patches: bool,
    /// What reading them used.
    pub(crate) usage: Usage,
}

impl Winners {
    /// Reads the repairs within bounds, of the wanted keys, without retracted ones. If the key alone identifies a row, these are the bounds within
    /// which versions lie of the rows that are asked for.
    pub(crate) fn load(
        table: &Table,
        files: &[DataFile],
        bounds: &TimeBounds,
        retracted: &Retracted,
        wanted: impl Fn(&Key) -> bool,
    ) -> Result<Self> {
        use overlay::columns as c;
        let (mut winners, mut usage) = (Self::default(), Usage::default());
        let shape = shape_with(table, &[c::OP, c::RUN, c::UNIT, c::STEP], &[c::AT]);
        let slots = Slots::of(table);
        for (number, file) in (0u32..).zip(files) {
            let mut first_row = 0;
            // Rows are identified by their number in the file, so none may be left out.
            overlay_rows(table, std::slice::from_ref(file), &shape, &TimeBounds::ALL, &mut usage, &mut |batch| {
                let rows = KeyTime::of(table, &batch)?;
                let (op, at_us) = (text(&batch, c::OP)?, instants(&batch, c::AT)?);
                let (run_names, units) = (text(&batch, c::RUN)?, text(&batch, c::UNIT)?);
                let hidden = Hidden::of(retracted, &batch)?;
                for run in rows.runs() {
                    let key = rows.key(run.start);
                    if !wanted(&key) {
                        continue;
                    }
                    for row in run.filter(|&row| bounds.contains(rows.times.value(row)) && !hidden.repair(&key, &rows, row)) {
                        let op = op_of(op, row)?;
                        if op == Op::Patch {
                            winners.has_patches = true;
                            continue;
                        }
                        let winner = Winner {
                            at_us: at_us[row],
                            run: winners.number(run_names.value(row)),
                            unit: winners.number(units.value(row)),
                            file: number,
                            row: u32::try_from(first_row + row).map_err(|_| Error::invalid("an overlay file has too many rows"))?,
                            op,
                            filled: false,
                        };
                        winners.offer(&key, slots.slot(rows.times.value(row)), winner);
                    }
                }
                first_row += batch.num_rows();
                Ok(())
            })?;
        }
        winners.leave_newest(slots);
        winners.usage = usage;
        Ok(winners)
    }

    /// If the key alone identifies a row, a repair is outdated by a newer one of the same row, though it may have another time.
    fn leave_newest(&mut self, slots: Slots) {
        if slots.versions_us().is_none() {
            return;
        }
        let name = |number: u32| self.by_number.get(number as usize);
        let rank = |winner: &Winner| (winner.at_us, name(winner.run), name(winner.unit));
        for of_key in self.slots.iter_mut().filter(|of_key| of_key.len() > 1) {
            let is_outdated = |(slot, winner): &(&i64, &Winner)| {
                let is_newer = |(other, newer): (&i64, &Winner)| {
                    other != *slot && slots.0.are_same_slots(*other, **slot) && rank(newer) > rank(winner)
                };
                of_key.iter().any(is_newer)
            };
            let outdated: Vec<i64> = of_key.iter().filter(is_outdated).map(|(slot, _)| *slot).collect();
            for slot in outdated {
                of_key.remove(&slot);
            }
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.names.get(name) {
            return number;
        }
        let number = u32::try_from(self.by_number.len()).unwrap_or(u32::MAX);
        self.names.insert(name.to_owned(), number);
        self.by_number.push(name.to_owned());
        number
    }

    fn offer(&mut self, key: &Key, slot: i64, winner: Winner) {
        let at = match self.keys.get(key) {
            Some(&at) => at,
            None => {
                self.keys.insert(key.clone(), self.slots.len());
                self.slots.push(BTreeMap::new());
                self.slots.len() - 1
            }
        };
        let name = |number: u32| self.by_number.get(number as usize);
        match self.slots[at].entry(slot) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(winner);
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                let rank = |winner: &Winner| (winner.at_us, name(winner.run), name(winner.unit));
                if rank(&winner) > rank(known.get()) {
                    known.insert(winner);
                }
            }
        }
    }

    /// Whether no repair of rows is live.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.iter().all(BTreeMap::is_empty)
    }

    /// The live repairs of a key, by slot.
    pub(crate) fn of_key(&mut self, key: &Key) -> Option<&mut BTreeMap<i64, Winner>> {
        self.keys.get(key).and_then(|&at| self.slots.get_mut(at))
    }

    /// Whether a repair of the same row as that of a slot replaces or removes it. Marks the repairs that stand for rows which raw has.
    pub(crate) fn replaced(of_key: &mut BTreeMap<i64, Winner>, slots: Slots, slot: i64) -> bool {
        if slots.versions_us().is_none() {
            return of_key.get_mut(&slot).is_some_and(|winner| {
                winner.filled = true;
                winner.op.hides_own()
            });
        }
        let mut replaced = false;
        for (_, winner) in of_key.iter_mut().filter(|(other, _)| slots.0.are_same_slots(**other, slot)) {
            winner.filled = true;
            replaced |= winner.op.hides_own();
        }
        replaced
    }

    /// The live repair of a slot.
    pub(crate) fn get(&self, key: &Key, slot: i64) -> Option<&Winner> {
        self.keys.get(key).and_then(|&at| self.slots.get(at)?.get(&slot))
    }
}
