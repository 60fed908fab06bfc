//! What a file holds, or one row group of a Parquet file, whatever is asked for: of each key, how many rows each slot has. It is made while the
//! file is read, applied to what is asked for, and written in a form so short that it can be kept beside the lake.

use std::collections::HashMap;

use repair_core::model::{Key, Quarantine, SlotGrid, SlotRange};

use super::count::Notes;
use crate::kept::{Bytes, put_number, put_signed, put_text};
use crate::read::Tally;

/// More stretches of rows than this of one file or row group are not kept: they would take some 24 MB while they are counted.
const MOST_CELLS: usize = 1 << 20;

/// A key takes as much room as so many of them.
const CELLS_OF_KEY: usize = 8;

/// What is shorter is not compressed.
const MIN_COMPRESSED: usize = 256;

/// A longer section is not kept, so that a damaged length takes no more memory.
const MAX_BYTES: usize = 128 << 20;

/// Slots, and how many rows each of them has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) slots: SlotRange,
    pub(super) rows: u32,
}

/// What is counted of each key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OfKey {
    /// The rows of slots.
    pub(super) present: Vec<Run>,
    /// The rows whose time is too far from that of their slot.
    pub(super) misaligned: Vec<Run>,
    /// Of both, the rows in a folder of another time.
    pub(super) misplaced: Vec<Run>,
}

/// What a file, or a row group, holds.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// By key, in order.
    pub(super) keys: Vec<(Key, OfKey)>,
    /// The rows that are too far from their folder.
    pub(super) strays: u64,
    /// What was read, and what could not be; of a row group, nothing.
    pub(super) tally: Tally,
}

impl Section {
    /// The section in its short form; `None` if it has none.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        put_number(&mut plain, self.strays);
        put_number(&mut plain, self.tally.rows_read);
        if self.tally.quarantine.rows() == 0 {
            put_text(&mut plain, &[]);
        } else {
            put_text(&mut plain, &serde_json::to_vec(&self.tally.quarantine).ok()?);
        }
        put_number(&mut plain, self.keys.len() as u64);
        for (key, OfKey { present, misaligned, misplaced }) in &self.keys {
            put_number(&mut plain, key.values().len() as u64);
            key.values().for_each(|value| put_text(&mut plain, value.as_bytes()));
            for runs in [present, misaligned, misplaced] {
                put_number(&mut plain, runs.len() as u64);
                let mut at = 0;
                for (number, Run { slots, rows }) in runs.iter().enumerate() {
                    let gap = slots.first.checked_sub(at)?;
                    match number {
                        0 => put_signed(&mut plain, gap),
                        _ => put_number(&mut plain, u64::try_from(gap).ok()?),
                    }
                    put_number(&mut plain, slots.len().checked_mul(2)? | u64::from(*rows != 1));
                    if *rows != 1 {
                        put_number(&mut plain, u64::from(*rows));
                    }
                    at = slots.end;
                }
            }
        }
        if plain.len() > MAX_BYTES {
            return None;
        }
        let mut bytes = Vec::new();
        let compressed = if plain.len() < MIN_COMPRESSED { None } else { zstd::bulk::compress(&plain, 1).ok() };
        match compressed.filter(|compressed| compressed.len() < plain.len()) {
            Some(compressed) => {
                put_number(&mut bytes, plain.len() as u64);
                bytes.extend(compressed);
            }
            None => {
                put_number(&mut bytes, 0);
                bytes.extend(plain);
            }
        }
        Some(bytes)
    }

    /// The section of a short form; `None` if it is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(bytes);
        let length = usize::try_from(bytes.number()?).ok().filter(|length| *length <= MAX_BYTES)?;
        let decompressed;
        let mut plain = match length {
            0 => bytes,
            _ => {
                decompressed = zstd::bulk::decompress(bytes.0, length).ok().filter(|plain| plain.len() == length)?;
                Bytes(&decompressed)
            }
        };
        let (strays, rows_read) = (plain.number()?, plain.number()?);
        let quarantine = match plain.text()? {
            [] => Quarantine::default(),
            json => serde_json::from_slice(json).ok()?,
        };
        let text = |plain: &mut Bytes<'_>| Some(std::str::from_utf8(plain.text()?).ok()?.to_owned());
        let keys = (0..plain.count()?).map(|_| {
            let key = (0..plain.count()?).map(|_| text(&mut plain)).collect::<Option<Vec<String>>>()?;
            let of_key = OfKey { present: runs(&mut plain)?, misaligned: runs(&mut plain)?, misplaced: runs(&mut plain)? };
            Some((Key::new(key), of_key))
        });
        let keys = keys.collect::<Option<_>>()?;
        plain.0.is_empty().then_some(Self { keys, strays, tally: Tally { rows_read, quarantine } })
    }
}

fn runs(from: &mut Bytes<'_>) -> Option<Vec<Run>> {
    let count = from.count()?;
    let mut runs = Vec::with_capacity(count);
    let mut at: i64 = 0;
    for number in 0..count {
        let gap = if number == 0 { from.signed()? } else { i64::try_from(from.number()?).ok()? };
        let first = at.checked_add(gap)?;
        let length = from.number()?;
        let end = first.checked_add(i64::try_from(length >> 1).ok()?)?;
        let rows = if length & 1 == 0 { 1 } else { u32::try_from(from.number()?).ok()? };
        runs.push(Run { slots: SlotRange::new(first, end), rows });
        at = end;
    }
    Some(runs)
}

/// Slots of a word that have rows.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    word: i64,
    bits: u64,
}

/// Rows of one key, in the order in which they come.
#[derive(Debug, Default)]
struct Plane {
    last: Cell,
    cells: Vec<Cell>,
    /// Slots that had a row already when another came, and how many came.
    again: Vec<(i64, u32)>,
}

impl Plane {
    /// Notes slots; returns how many more things are noted.
    fn add(&mut self, word: i64, bits: u64, per_word: i64) -> usize {
        if self.last.bits == 0 {
            self.last = Cell { word, bits };
            return 1;
        }
        if self.last.word != word {
            self.cells.push(std::mem::replace(&mut self.last, Cell { word, bits }));
            return 1;
        }
        let mut both = self.last.bits & bits;
        self.last.bits |= bits;
        let mut more = 0;
        while both != 0 {
            more += self.again(word * per_word + i64::from(both.trailing_zeros()));
            both &= both - 1;
        }
        more
    }

    /// Notes another row of a slot.
    fn again(&mut self, slot: i64) -> usize {
        match self.again.last_mut() {
            Some((last, rows)) if *last == slot && *rows < u32::MAX => {
                *rows += 1;
                0
            }
            _ => {
                self.again.push((slot, 1));
                1
            }
        }
    }

    /// Puts together what belongs to the same words and slots, in order; returns how many things are noted.
    fn compact(&mut self, per_word: i64) -> usize {
        let last = std::mem::take(&mut self.last);
        self.cells.extend((last.bits != 0).then_some(last));
        if !self.cells.is_sorted_by(|one, next| one.word < next.word) {
            self.cells.sort_unstable_by_key(|cell| cell.word);
            let mut again = Vec::new();
            self.cells.dedup_by(|next, kept| {
                let is_same = next.word == kept.word;
                if is_same {
                    let mut both = kept.bits & next.bits;
                    kept.bits |= next.bits;
                    while both != 0 {
                        again.push((next.word * per_word + i64::from(both.trailing_zeros()), 1));
                        both &= both - 1;
                    }
                }
                is_same
            });
            self.again.extend(again);
        }
        self.again.sort_unstable_by_key(|(slot, _)| *slot);
        self.again.dedup_by(|(slot, rows), (kept, all)| {
            let is_same = slot == kept;
            if is_same {
                *all = all.saturating_add(*rows);
            }
            is_same
        });
        self.cells.len() + self.again.len()
    }

    fn runs(mut self, per_word: i64) -> Vec<Run> {
        self.compact(per_word);
        let mut runs: Vec<Run> = Vec::new();
        let mut push = |first: i64, end: i64, rows: u32| match runs.last_mut() {
            Some(last) if last.slots.end == first && last.rows == rows => last.slots.end = end,
            _ => runs.push(Run { slots: SlotRange::new(first, end), rows }),
        };
        let mut again = self.again.iter().peekable();
        for Cell { word, bits } in self.cells {
            let (base, mut rest) = (word * per_word, bits);
            while rest != 0 {
                let from = rest.trailing_zeros();
                let to = from + (rest >> from).trailing_ones();
                rest &= if to >= u64::BITS { 0 } else { u64::MAX << to };
                let (mut first, end) = (base + i64::from(from), base + i64::from(to));
                while let Some((slot, more)) = again.next_if(|(slot, _)| *slot < end) {
                    if first < *slot {
                        push(first, *slot, 1);
                    }
                    push(*slot, slot + 1, more.saturating_add(1));
                    first = slot + 1;
                }
                if first < end {
                    push(first, end, 1);
                }
            }
        }
        runs
    }
}

/// Makes a section of the rows that come.
pub(super) struct Recorder {
    per_word: i64,
    numbers: HashMap<Key, u32>,
    planes: Vec<[Plane; 3]>,
    strays: u64,
    cells: usize,
    most: usize,
}

const PRESENT: usize = 0;
const MISALIGNED: usize = 1;
const MISPLACED: usize = 2;

impl Recorder {
    pub(super) fn new(grid: SlotGrid) -> Self {
        let per_word = i64::from(grid.cadence().slots_per_word());
        Self { per_word, numbers: HashMap::new(), planes: Vec::new(), strays: 0, cells: 0, most: MOST_CELLS }
    }

    /// Whether more is noted than is kept of one section. It must not grow any more then.
    pub(super) fn is_full(&mut self) -> bool {
        if self.cells <= self.most {
            return false;
        }
        let per_word = self.per_word;
        self.cells =
            self.planes.len() * CELLS_OF_KEY + self.planes.iter_mut().flatten().map(|plane| plane.compact(per_word)).sum::<usize>();
        self.cells > self.most / 2
    }

    /// The section.
    pub(super) fn finish(self) -> Section {
        let per_word = self.per_word;
        let mut numbered: Vec<(Key, u32)> = self.numbers.into_iter().collect();
        numbered.sort_unstable_by_key(|(_, number)| *number);
        let of_key = |[present, misaligned, misplaced]: [Plane; 3]| OfKey {
            present: present.runs(per_word),
            misaligned: misaligned.runs(per_word),
            misplaced: misplaced.runs(per_word),
        };
        let mut keys: Vec<(Key, OfKey)> = numbered.into_iter().zip(self.planes).map(|((key, _), planes)| (key, of_key(planes))).collect();
        keys.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Section { keys, strays: self.strays, tally: Tally::default() }
    }

    fn add(&mut self, target: u32, plane: usize, slot: i64) {
        let (word, bit) = (slot.div_euclid(self.per_word), slot.rem_euclid(self.per_word));
        if let Some(planes) = self.planes.get_mut(target as usize) {
            self.cells += planes[plane].add(word, 1 << bit, self.per_word);
        }
    }
}

impl Notes for Recorder {
    type Line = i64;
    type Cell = (i64, u32);
    const EACH_SLOT: bool = true;

    #[inline]
    fn line(&self, _: i64, word: i64) -> (Option<i64>, bool) {
        (Some(word), false)
    }

    #[inline]
    fn end(&self) -> i64 {
        i64::MAX
    }

    fn target(&mut self, key: &Key) -> u32 {
        if let Some(known) = self.numbers.get(key) {
            return *known;
        }
        let number = u32::try_from(self.planes.len()).unwrap_or(0);
        self.numbers.insert(key.clone(), number);
        self.planes.push(Default::default());
        self.cells += CELLS_OF_KEY;
        number
    }

    #[inline]
    fn cell(line: i64, target: u32) -> (i64, u32) {
        (line, target)
    }

    #[inline]
    fn note(&mut self, (word, target): (i64, u32), bits: u64, _: u32) {
        if bits != 0
            && let Some(planes) = self.planes.get_mut(target as usize)
        {
            self.cells += planes[PRESENT].add(word, bits, self.per_word);
        }
    }

    fn again(&mut self, target: u32, slot: i64) {
        if let Some(planes) = self.planes.get_mut(target as usize) {
            self.cells += planes[PRESENT].again(slot);
        }
    }

    fn misaligned(&mut self, target: u32, slot: i64) {
        self.add(target, MISALIGNED, slot);
    }

    fn misplaced(&mut self, target: u32, slot: i64) {
        self.add(target, MISPLACED, slot);
    }

    fn other(&mut self, _: &Key, _: u64) {}

    fn strays(&mut self, rows: u64) {
        self.strays += rows;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use repair_core::model::{Cadence, TimeMark};

    use super::*;

    proptest! {
        #[test]
        fn a_section_is_what_came_in_any_order(
            came in proptest::collection::vec((0u8..4, 0usize..3, -200i64..400, 1u8..4), 0..300),
            most in prop_oneof![Just(MOST_CELLS), Just(4usize)],
        ) {
            let grid = SlotGrid::new(Cadence::MINUTE, TimeMark::Start);
            let mut recorder = Recorder { most, ..Recorder::new(grid) };
            let mut expected: BTreeMap<(Key, usize, i64), u32> = BTreeMap::new();
            for (key, plane, slot, rows) in came {
                let key = Key::new([format!("K{key}")]);
                let target = recorder.target(&key);
                for _ in 0..rows {
                    match plane {
                        PRESENT => recorder.note((slot.div_euclid(60), target), 1 << slot.rem_euclid(60), 1),
                        MISALIGNED => recorder.misaligned(target, slot),
                        _ => recorder.misplaced(target, slot),
                    }
                }
                *expected.entry((key, plane, slot)).or_default() += u32::from(rows);
                recorder.is_full();
            }
            recorder.strays(7);
            let section = recorder.finish();
            let same = Section::decode(&section.encode().unwrap()).unwrap();
            prop_assert_eq!(&same.keys, &section.keys);
            prop_assert_eq!(same.strays, 7);
            let mut found = BTreeMap::new();
            for (key, of_key) in &same.keys {
                for (plane, runs) in [&of_key.present, &of_key.misaligned, &of_key.misplaced].into_iter().enumerate() {
                    for run in runs {
                        for slot in run.slots.first..run.slots.end {
                            prop_assert!(found.insert((key.clone(), plane, slot), run.rows).is_none());
                        }
                    }
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn what_is_no_section_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Section::decode(&bytes);
        }
    }
}
