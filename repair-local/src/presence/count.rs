//! Counting rows by key and slot, as batches come.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use repair_core::lake::partition::SECOND_US;
use repair_core::lake::shape;
use repair_core::model::{Key, KeyPresence, OtherKeys, SlotGrid, SlotRange, Table, Usage};
use repair_core::{Error, ErrorKind, Result};

use super::section::{OfKey, Run, Section};
use crate::files::DataFile;
use crate::read::Tally;

/// Up to this many combinations of values, the number of a combination is computed; beyond, combinations are numbered as they occur. Debug
/// builds use so few that tests do both.
const MAX_DIRECT: usize = if cfg!(debug_assertions) { 8 } else { 1 << 17 };

/// The next slot with a row is sought so many steps ahead.
const MOST_STEPS: u8 = 8;

/// Not looked up yet.
const UNKNOWN: u32 = u32::MAX;
/// A key that was not requested.
pub(super) const OTHER: u32 = u32::MAX - 1;

/// The most words of one request: 12 GB of bits and counts.
const MAX_WORDS: usize = 1 << 30;

/// The error for a file that is not what it was a moment ago.
pub(super) fn changed() -> Error {
    Error::new(
        ErrorKind::Transient,
        "the file has changed while it was read, or its statistics do not fit its rows; try again, or write it again",
    )
}

/// Bits and numbers of rows, by word, then by key. By word first, because a file mostly covers a stretch of time, and memory that a thread
/// never writes to is never allocated: threads that read different stretches do not each hold the whole.
pub(super) struct Counts {
    grid: SlotGrid,
    pub(super) slots: SlotRange,
    keys: usize,
    first_word: i64,
    bits: Vec<u64>,
    rows: Vec<u32>,
}

impl Counts {
    pub(super) fn new(grid: SlotGrid, slots: SlotRange, keys: usize) -> Result<Self> {
        let per_word = i64::from(grid.cadence().slots_per_word());
        let first_word = slots.first.div_euclid(per_word);
        let words = if slots.is_empty() { 0 } else { (slots.end - 1).div_euclid(per_word) - first_word + 1 };
        let length = usize::try_from(words).ok().and_then(|words| words.checked_mul(keys)).filter(|length| *length <= MAX_WORDS);
        let length = length.ok_or_else(|| {
            Error::invalid(format!("{keys} keys of {} slots each are too many for one request; use a shorter interval", slots.len()))
        })?;
        Ok(Self { grid, slots, keys, first_word, bits: vec![0; length], rows: vec![0; length] })
    }

    /// The same size, empty.
    pub(super) fn like(&self) -> Self {
        Self { bits: vec![0; self.bits.len()], rows: vec![0; self.rows.len()], ..*self }
    }

    /// Where the counts of a word begin, if the word is in the range.
    fn of_word(&self, word: i64) -> Option<usize> {
        // If no key was requested there are no counts, but rows of other keys are still counted.
        usize::try_from(word - self.first_word).ok()?.checked_mul(self.keys).filter(|at| *at < self.bits.len() || self.keys == 0)
    }

    #[inline]
    fn note(&mut self, place: usize, bits: u64, rows: u32) {
        if rows > 0 {
            self.bits[place] |= bits;
            self.rows[place] = self.rows[place].saturating_add(rows);
        }
    }

    /// Adds rows to each of some slots, all of which are in the range.
    fn add_run(&mut self, target: u32, Run { slots, rows }: Run) {
        let per_word = i64::from(self.grid.cadence().slots_per_word());
        let mut slot = slots.first;
        while slot < slots.end {
            let (word, bit) = (slot.div_euclid(per_word), slot.rem_euclid(per_word));
            let length = (per_word - bit).min(slots.end - slot);
            if let (Some(place), Ok(count)) = (self.of_word(word), u32::try_from(length)) {
                let ones = if count >= u64::BITS { u64::MAX } else { (1 << count) - 1 };
                self.note(place + target as usize, ones << bit, rows.saturating_mul(count));
            }
            slot += length;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (at, (bits, rows)) in other.bits.iter().zip(&other.rows).enumerate() {
            if *bits != 0 {
                self.bits[at] |= bits;
                self.rows[at] = self.rows[at].saturating_add(*rows);
            }
        }
    }

    /// The presence of one key, in the first of the slots.
    pub(super) fn of_key(&self, target: usize, slots: SlotRange) -> KeyPresence {
        let mut presence = KeyPresence::new(self.grid.cadence(), slots);
        let mine = (target..self.bits.len()).step_by(self.keys.max(1));
        for ((word, at), rows) in (self.first_word..).zip(mine).zip(&mut presence.rows) {
            if self.rows[at] > 0 {
                presence.present.insert_word(word, self.bits[at]);
                *rows = self.rows[at];
            }
        }
        presence
    }

    /// What is known of the slots from `first` up to `end`, where a word begins.
    pub(super) fn after(mut self, first: i64, end: i64) -> Self {
        let slots = SlotRange::new(first, end);
        let first_word = first.div_euclid(i64::from(self.grid.cadence().slots_per_word()));
        let gone = usize::try_from(first_word - self.first_word).unwrap_or(0).saturating_mul(self.keys);
        let keep = |length: usize| if slots.is_empty() { length } else { gone.min(length) };
        self.bits.drain(..keep(self.bits.len()));
        self.rows.drain(..keep(self.rows.len()));
        // What is left is small, mostly.
        self.bits.shrink_to_fit();
        self.rows.shrink_to_fit();
        Self { slots, first_word, ..self }
    }
}

/// What is counted beside the slots of keys.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) other_rows: u64,
    pub(super) other_keys: OtherKeys,
    pub(super) misaligned_rows: u64,
    pub(super) misplaced_rows: u64,
    pub(super) stray_rows: BTreeMap<String, u64>,
    pub(super) tally: Tally,
    pub(super) usage: Usage,
}

impl Totals {
    pub(super) fn merge(&mut self, other: Self) {
        self.other_rows += other.other_rows;
        self.other_keys.merge(&other.other_keys);
        self.misaligned_rows += other.misaligned_rows;
        self.misplaced_rows += other.misplaced_rows;
        for (file, rows) in other.stray_rows {
            *self.stray_rows.entry(file).or_default() += rows;
        }
        self.tally.merge(other.tally);
        self.usage += other.usage;
    }
}

/// Who notes the rows that are counted.
pub(super) trait Notes {
    /// Where the rows of a word are noted.
    type Line: Copy;
    /// Where the rows of a word and key are noted.
    type Cell: Copy + PartialEq + Default;
    /// Whether it matters which slot of a word has several rows.
    const EACH_SLOT: bool;

    /// Where rows of a word are noted; none if rows of the slot do not count, and then, whether it is an error that there are some.
    fn line(&self, slot: i64, word: i64) -> (Option<Self::Line>, bool);

    /// The first slot after those that count.
    fn end(&self) -> i64;

    /// The number of a key; [`OTHER`] if it was not asked for.
    fn target(&mut self, key: &Key) -> u32;

    fn cell(line: Self::Line, target: u32) -> Self::Cell;

    /// Notes rows of some slots of a word.
    fn note(&mut self, cell: Self::Cell, bits: u64, rows: u32);

    /// Notes that a row of a slot is not the first one among those that are noted next.
    fn again(&mut self, target: u32, slot: i64);

    /// Notes a row whose time is too far from that of its slot.
    fn misaligned(&mut self, target: u32, slot: i64);

    /// Notes that a row, which is noted in another way, too, lies in a folder of another time.
    fn misplaced(&mut self, target: u32, slot: i64);

    /// Notes rows of a key that was not asked for.
    fn other(&mut self, key: &Key, rows: u64);

    /// Notes rows that are too far from their folder.
    fn strays(&mut self, rows: u64);
}

/// Counts what was asked for.
pub(super) struct Asked<'a> {
    /// The slots that were asked for. The counts are of some of them.
    pub(super) slots: SlotRange,
    /// The number of each requested key.
    pub(super) targets: &'a HashMap<Key, u32>,
    pub(super) counts: &'a mut Counts,
    pub(super) totals: &'a mut Totals,
    /// The file that is read.
    pub(super) file: &'a DataFile,
}

impl Asked<'_> {
    /// Counts what a file, or a part of it, holds, as if its rows came one by one.
    pub(super) fn add(&mut self, section: Section) -> Result<()> {
        for (key, OfKey { present, misaligned, misplaced }) in &section.keys {
            let target = self.targets.get(key).copied();
            let mut others = 0;
            for run in present {
                let Some(run) = self.within(run)? else { continue };
                match target {
                    Some(target) => self.counts.add_run(target, run),
                    None => others += run.slots.len() * u64::from(run.rows),
                }
            }
            for run in misaligned {
                let Some(run) = self.within(run)? else { continue };
                let rows = run.slots.len() * u64::from(run.rows);
                *(if target.is_some() { &mut self.totals.misaligned_rows } else { &mut others }) += rows;
            }
            if others > 0 {
                self.other(key, others);
            }
            for run in misplaced.iter().filter(|_| target.is_some()) {
                let Some(run) = self.within(run)? else { continue };
                self.totals.misplaced_rows += run.slots.len() * u64::from(run.rows);
            }
        }
        if section.strays > 0 {
            self.strays(section.strays);
        }
        self.totals.tally.merge(section.tally);
        Ok(())
    }

    /// The part of a run that counts.
    fn within(&self, run: &Run) -> Result<Option<Run>> {
        let asked = run.slots.intersection(&self.slots);
        if asked.is_empty() {
            return Ok(None);
        }
        if asked != asked.intersection(&self.counts.slots) {
            return Err(changed());
        }
        Ok(Some(Run { slots: asked, ..*run }))
    }
}

impl Notes for Asked<'_> {
    type Line = usize;
    type Cell = usize;
    const EACH_SLOT: bool = false;

    #[inline]
    fn line(&self, slot: i64, word: i64) -> (Option<usize>, bool) {
        let line = if self.counts.slots.contains(slot) { self.counts.of_word(word) } else { None };
        // Of all slots that were asked for, those are counted that the file may concern.
        (line, line.is_none() && self.slots.contains(slot))
    }

    #[inline]
    fn end(&self) -> i64 {
        self.counts.slots.end
    }

    fn target(&mut self, key: &Key) -> u32 {
        self.targets.get(key).copied().unwrap_or(OTHER)
    }

    #[inline]
    fn cell(line: usize, target: u32) -> usize {
        line + target as usize
    }

    #[inline]
    fn note(&mut self, cell: usize, bits: u64, rows: u32) {
        self.counts.note(cell, bits, rows);
    }

    fn again(&mut self, _: u32, _: i64) {}

    fn misaligned(&mut self, _: u32, _: i64) {
        self.totals.misaligned_rows += 1;
    }

    fn misplaced(&mut self, _: u32, _: i64) {
        self.totals.misplaced_rows += 1;
    }

    fn other(&mut self, key: &Key, rows: u64) {
        self.totals.other_rows += rows;
        self.totals.other_keys.add(key, rows);
    }

    fn strays(&mut self, rows: u64) {
        *self.totals.stray_rows.entry(self.file.path.display().to_string()).or_default() += rows;
    }
}

/// Counts the rows of a batch.
pub(super) fn count<N: Notes>(notes: &mut N, grid: SlotGrid, table: &Table, file: &DataFile, batch: &RecordBatch) -> Result<()> {
    count_each(grid, table, file, batch, |all| all.count(notes, file, 0..batch.num_rows()))
}

/// Looks up the keys and times of a batch, so that parts of it may be counted. Of all files that it is of, the path says the same as of this one.
pub(super) fn count_each<R>(
    grid: SlotGrid,
    table: &Table,
    file: &DataFile,
    batch: &RecordBatch,
    each: impl FnOnce(&AllRows<'_>) -> Result<R>,
) -> Result<R> {
    let times = batch.column_by_name(&table.time).ok_or_else(|| Error::internal("the time column did not come"))?;
    let times = shape::instants(table, times)?;
    let keys: Vec<KeyColumn> = table.key.iter().map(|name| KeyColumn::of(table, file, name, batch)).collect::<Result<_>>()?;
    let (ids, distinct) = ids(&keys, batch.num_rows());
    each(&AllRows { grid, keys: &keys, ids: &ids, distinct, times: times.values() })
}

/// Keys and times of a batch.
pub(super) struct AllRows<'a> {
    grid: SlotGrid,
    keys: &'a [KeyColumn],
    ids: &'a Ids<'a>,
    distinct: usize,
    times: &'a [i64],
}

impl AllRows<'_> {
    /// Counts some of the rows, which are in a file.
    pub(super) fn count<N: Notes>(&self, notes: &mut N, file: &DataFile, some: Range<usize>) -> Result<()> {
        let Self { grid, keys, distinct, .. } = *self;
        let (first, times) = (some.start, self.times.get(some).unwrap_or_default());
        let rows = BatchRows { grid, file, keys, first, distinct, times };
        match self.ids {
            Ids::One => count_rows(notes, &rows, |_| 0),
            Ids::Codes(codes) => {
                let codes = codes.get(first..).unwrap_or_default();
                count_rows(notes, &rows, |row| usize::try_from(codes[row]).unwrap_or(0))
            }
            Ids::Dense(ids) => {
                let ids = ids.get(first..).unwrap_or_default();
                count_rows(notes, &rows, |row| ids[row] as usize)
            }
        }
    }
}

/// Rows of a batch that are in one file.
struct BatchRows<'a> {
    grid: SlotGrid,
    file: &'a DataFile,
    keys: &'a [KeyColumn],
    /// How many rows of the batch come before them.
    first: usize,
    /// The most different ids of keys that there may be.
    distinct: usize,
    times: &'a [i64],
}

impl BatchRows<'_> {
    fn key(&self, row: usize) -> Key {
        Key::new(self.keys.iter().map(|column| column.value(self.first + row)))
    }
}

fn count_rows<N: Notes>(notes: &mut N, rows: &BatchRows<'_>, id_of: impl Fn(usize) -> usize) -> Result<()> {
    let BatchRows { grid, file, distinct, times, .. } = *rows;
    let mut targets = vec![UNKNOWN; distinct];
    // For each id of a key that was not asked for: how many rows it has, and one of them.
    let mut others: Vec<(u64, usize)> = Vec::new();
    let mut at = Cursor::new(grid);
    let mut line = None;
    let (mut is_misplaced, mut is_stray, mut strays) = (false, false, 0);
    let mut is_beyond = false;
    // Rows of one key and word follow each other, mostly, and are noted together.
    let (mut cell, mut bits, mut noted) = (N::Cell::default(), 0u64, 0u32);
    let mut following = 0;
    while let Some(&time_us) = times.get(following) {
        let row = following;
        following += 1;
        // Rows of one instant, or of one key, follow each other, so the slot is the same or one of the next.
        if at.time_us != time_us || row == 0 {
            at.go_to(time_us);
            (line, is_beyond) = notes.line(at.slot, at.word);
            if let Some(span) = &file.span {
                is_misplaced = !span.contains(time_us);
                is_stray = is_misplaced && !file.reach.is_none_or(|reach| reach.contains(time_us));
            }
        }
        if is_stray {
            strays += 1;
            continue;
        }
        let Some(line) = line else {
            if is_beyond {
                return Err(changed());
            }
            continue;
        };
        let id = id_of(row);
        let mut target = targets[id];
        if target == UNKNOWN {
            target = notes.target(&rows.key(row));
            targets[id] = target;
        }
        if target == OTHER {
            if others.is_empty() {
                others.resize(distinct, (0, 0));
            }
            others[id] = (others[id].0 + 1, row);
            continue;
        }
        if is_misplaced {
            notes.misplaced(target, at.slot);
        }
        if !at.is_aligned {
            notes.misaligned(target, at.slot);
            continue;
        }
        let next = N::cell(line, target);
        if next != cell {
            notes.note(std::mem::replace(&mut cell, next), std::mem::take(&mut bits), std::mem::take(&mut noted));
        }
        let bit = 1 << at.bit;
        if N::EACH_SLOT && bits & bit != 0 {
            notes.again(target, at.slot);
        }
        bits |= bit;
        noted += 1;
        if !is_misplaced {
            let until = (file.span.map_or(i64::MAX, |span| span.to_us), notes.end());
            let seen = if N::EACH_SLOT { bits } else { 0 };
            let (more_bits, more) = at.follow(&times[following..], |more| id_of(following + more) == id, until, seen);
            (bits, noted, following) = (bits | more_bits, noted.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)), following + more);
        }
    }
    notes.note(cell, bits, noted);
    for (count, row) in others.into_iter().filter(|(count, _)| *count > 0) {
        notes.other(&rows.key(row), count);
    }
    if strays > 0 {
        notes.strays(strays);
    }
    Ok(())
}

/// A time and its slot; moving to the next slot takes no division.
struct Cursor {
    grid: SlotGrid,
    per_word: u8,
    /// How far the next slot is, if all slots are equally long.
    step_us: Option<i64>,
    time_us: i64,
    slot: i64,
    word: i64,
    bit: u8,
    /// Whether the time is near enough to that of the slot.
    is_aligned: bool,
}

impl Cursor {
    fn new(grid: SlotGrid) -> Self {
        Self {
            grid,
            per_word: grid.cadence().slots_per_word(),
            step_us: grid.step_s().map(|step_s| step_s * SECOND_US),
            time_us: i64::MIN,
            slot: i64::MIN,
            word: 0,
            bit: 0,
            is_aligned: false,
        }
    }

    /// The bits of the rows that come next, and how many they are, as long as they are of the same key, each in the same slot or in a
    /// later one of the same word, before an instant and a slot, and as far from the time of their slot. Where it matters which slots have several
    /// rows, `seen` has the bits of those that have one, and a row of another slot comes next.
    #[inline]
    fn follow(&mut self, times: &[i64], is_same_key: impl Fn(usize) -> bool, (until_us, end): (i64, i64), mut seen: u64) -> (u64, usize) {
        let Some(step_us) = self.step_us else { return (0, 0) };
        let slots_left = u64::try_from(end.saturating_sub(1).saturating_sub(self.slot)).unwrap_or(0);
        let bits_left = u64::from(self.per_word.saturating_sub(self.bit + 1)).min(slots_left);
        let last = self.bit + u8::try_from(bits_left).unwrap_or(0);
        let (mut bit, mut at_us, mut bits, mut taken) = (self.bit, self.time_us, 0, 0);
        for &time_us in times {
            let (mut left_us, mut to) = (time_us.wrapping_sub(at_us), bit);
            while left_us >= step_us && to < last {
                left_us -= step_us;
                to += 1;
            }
            if left_us != 0 || time_us >= until_us || seen >> to & 1 != 0 || !is_same_key(taken) {
                break;
            }
            (bit, at_us) = (to, time_us);
            bits |= 1 << bit;
            seen |= if seen == 0 { 0 } else { bits };
            taken += 1;
        }
        self.slot += i64::from(bit - self.bit);
        (self.bit, self.time_us) = (bit, at_us);
        (bits, taken)
    }

    #[inline]
    fn go_to(&mut self, time_us: i64) {
        let mut ahead = 0;
        if let (Some(step_us), true) = (self.step_us, self.slot != i64::MIN) {
            // Taking a few steps is faster than a division.
            let mut left_us = time_us.checked_sub(self.time_us).unwrap_or(0);
            while left_us >= step_us && ahead < MOST_STEPS {
                left_us -= step_us;
                ahead += 1;
            }
            if left_us != 0 {
                ahead = 0;
            }
        }
        self.time_us = time_us;
        if ahead > 0 {
            // As far from the time of its slot as before.
            self.slot += i64::from(ahead);
            self.bit += ahead;
            while self.bit >= self.per_word {
                self.bit -= self.per_word;
                self.word += 1;
            }
            return;
        }
        self.slot = self.grid.slot_of_seconds(time_us.div_euclid(SECOND_US));
        let per_word = i64::from(self.per_word);
        self.word = self.slot.div_euclid(per_word);
        self.bit = u8::try_from(self.slot.rem_euclid(per_word)).unwrap_or(0);
        self.is_aligned = self.grid.slot_of_row(time_us).is_some();
    }
}

/// A key column of a batch: codes, or one value for all rows.
pub(crate) enum KeyColumn {
    Codes(Int32Array, StringArray),
    Constant(String),
}

impl KeyColumn {
    pub(crate) fn of(table: &Table, file: &DataFile, name: &str, batch: &RecordBatch) -> Result<Self> {
        let Some(column) = batch.column_by_name(name) else {
            return Ok(Self::Constant(file.path_value(name).unwrap_or_default().to_owned()));
        };
        let coded: ArrayRef = match column.data_type() {
            DataType::Dictionary(code, value)
                if **code == DataType::Int32 && **value == DataType::Utf8 && column.logical_null_count() == 0 =>
            {
                column.clone()
            }
            // Each number is converted to text once, not in each of its rows.
            number if number.is_integer() && column.null_count() == 0 => {
                let coded = cast(column, &DataType::Dictionary(Box::new(DataType::Int32), Box::new(number.clone())))?;
                cast(&coded, &dictionary_of_text())?
            }
            _ => return Ok(Self::of_text(&shape::key_text(table, name, column)?)),
        };
        let coded = coded.as_dictionary::<Int32Type>();
        let values = coded.values().as_string_opt::<i32>().ok_or_else(|| Error::internal("a dictionary of text has no text"))?;
        Ok(Self::Codes(coded.keys().clone(), values.clone()))
    }

    /// The codes of a column of text. Rows of one key follow each other, or rows of all keys in one order, so the key of most rows is the
    /// one that followed the last one before, and need not be looked up.
    fn of_text(text: &StringArray) -> Self {
        let mut codes: Vec<i32> = Vec::with_capacity(text.len());
        let mut values: Vec<&str> = Vec::new();
        // For each value, the number of the one that followed it last.
        let mut follows: Vec<usize> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut last = 0;
        for row in 0..text.len() {
            let value = text.value(row);
            let mut number = follows.get(last).copied().unwrap_or(0);
            if values.get(number) != Some(&value) {
                number = *known.entry(value).or_insert(values.len());
                if number == values.len() {
                    values.push(value);
                    follows.push(number);
                }
                follows[last] = number;
            }
            codes.push(i32::try_from(number).unwrap_or(0));
            last = number;
        }
        Self::Codes(Int32Array::from(codes), StringArray::from(values))
    }

    pub(crate) fn value(&self, row: usize) -> &str {
        match self {
            Self::Codes(codes, values) => values.value(code(codes, row)),
            Self::Constant(value) => value,
        }
    }
}

fn dictionary_of_text() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn code(codes: &Int32Array, row: usize) -> usize {
    usize::try_from(codes.value(row)).unwrap_or(0)
}

/// A number for each row that identifies its key, within one batch.
pub(crate) enum Ids<'a> {
    /// All rows have the same key.
    One,
    /// The codes of the only column that varies.
    Codes(&'a [i32]),
    Dense(Vec<u32>),
}

impl Ids<'_> {
    #[inline]
    fn get(&self, row: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Codes(codes) => usize::try_from(codes[row]).unwrap_or(0),
            Self::Dense(ids) => ids[row] as usize,
        }
    }
}

/// The ids of the rows, and the most different ids that there may be.
pub(crate) fn ids(keys: &[KeyColumn], rows: usize) -> (Ids<'_>, usize) {
    let mut varying = keys.iter().filter_map(|column| match column {
        KeyColumn::Codes(codes, values) => Some((codes, values)),
        KeyColumn::Constant(_) => None,
    });
    let Some((first, values)) = varying.next() else { return (Ids::One, 1) };
    let mut ids = Ids::Codes(first.values());
    let mut distinct = values.len();
    for (codes, values) in varying {
        if let Some(product) = distinct.checked_mul(values.len()).filter(|product| *product <= MAX_DIRECT) {
            let number = |row| u32::try_from(ids.get(row) * values.len() + code(codes, row)).unwrap_or(0);
            ids = Ids::Dense((0..rows).map(number).collect());
            distinct = product;
            continue;
        }
        let mut numbers: HashMap<(usize, usize), u32> = HashMap::new();
        let mut dense = Vec::with_capacity(rows);
        let mut last = None;
        for row in 0..rows {
            let pair = (ids.get(row), code(codes, row));
            let id = match last {
                Some((same, id)) if same == pair => id,
                _ => {
                    let next = u32::try_from(numbers.len()).unwrap_or(0);
                    *numbers.entry(pair).or_insert(next)
                }
            };
            last = Some((pair, id));
            dense.push(id);
        }
        distinct = numbers.len();
        ids = Ids::Dense(dense);
    }
    (ids, distinct)
}
