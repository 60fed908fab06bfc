//! Presence: which slots hold a row, as bitmaps.
//!
//! One word holds [`Cadence::slots_per_word`] slots (60 minutes of an hour, 24 hours of a day), aligned to the epoch, so that every
//! lake computes the same words, in a loop or in SQL.
//!
//! [`Cadence::slots_per_word`]: super::Cadence::slots_per_word

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::{Cadence, Calendar, Interval, Key, OtherKeys, Quarantine, SlotGrid, Usage};

/// A range of slots, `[first, end)`; empty if `end <= first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotRange {
    /// The first slot.
    pub first: i64,
    /// The first slot after the range.
    pub end: i64,
}

impl SlotRange {
    /// The slots from `first` up to, not including, `end`.
    pub fn new(first: i64, end: i64) -> Self {
        Self { first, end }
    }

    /// How many slots the range holds.
    pub fn len(&self) -> u64 {
        u64::try_from(self.end.saturating_sub(self.first)).unwrap_or(0)
    }

    /// Whether the range holds no slot.
    pub fn is_empty(&self) -> bool {
        self.end <= self.first
    }

    /// Whether the range holds a slot.
    #[inline]
    pub fn contains(&self, slot: i64) -> bool {
        self.first <= slot && slot < self.end
    }

    /// The slots that both ranges hold; the result may be empty.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self { first: self.first.max(other.first), end: self.end.min(other.end) }
    }
}

/// A set of slots within a range, with one bit per slot.
///
/// ```
/// use repair_core::model::{Cadence, SlotRange, SlotSet};
///
/// let mut expected = SlotSet::new(Cadence::MINUTE, SlotRange::new(0, 120));
/// expected.insert_range(SlotRange::new(30, 90));
/// let mut present = SlotSet::new(Cadence::MINUTE, SlotRange::new(0, 120));
/// present.insert_range(SlotRange::new(40, 120));
/// expected.subtract(&present);
/// assert_eq!(expected.runs().collect::<Vec<_>>(), [SlotRange::new(30, 40)]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSet {
    slots: SlotRange,
    per_word: u8,
    first_word: i64,
    words: Vec<u64>,
}

impl SlotSet {
    /// An empty set that can hold the slots of a range.
    pub fn new(cadence: Cadence, slots: SlotRange) -> Self {
        let per_word = cadence.slots_per_word();
        let (first_word, words) = word_range(per_word, slots);
        Self { slots, per_word, first_word, words: vec![0; words] }
    }

    /// The slots that the set can hold.
    pub fn range(&self) -> SlotRange {
        self.slots
    }

    /// The words, in order; the first has the number [`SlotSet::first_word`]. Bit `b` of word `w` is slot `w × slots per word + b`.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The number of the first word.
    pub fn first_word(&self) -> i64 {
        self.first_word
    }

    /// Adds a slot, and returns whether it was new. A slot outside the range is ignored.
    #[inline]
    pub fn insert(&mut self, slot: i64) -> bool {
        let Some((word, bit)) = self.place(slot) else { return false };
        let before = self.words[word];
        self.words[word] = before | bit;
        before & bit == 0
    }

    /// Adds a range of slots, clipped to the set's own range.
    pub fn insert_range(&mut self, slots: SlotRange) {
        let slots = slots.intersection(&self.slots);
        let per_word = i64::from(self.per_word);
        let mut slot = slots.first;
        while slot < slots.end {
            let word = slot.div_euclid(per_word);
            let from = slot.rem_euclid(per_word);
            let to = (slots.end - word * per_word).min(per_word);
            if let Ok(index) = usize::try_from(word - self.first_word) {
                self.words[index] |= ones(from, to);
            }
            slot = word * per_word + to;
        }
    }

    /// Adds the bits of one word, given by its number; bits outside the range are ignored.
    pub fn insert_word(&mut self, word: i64, bits: u64) {
        let base = word * i64::from(self.per_word);
        let inside = SlotRange::new(base, base + i64::from(self.per_word)).intersection(&self.slots);
        if let (false, Ok(index)) = (inside.is_empty(), usize::try_from(word - self.first_word)) {
            self.words[index] |= bits & ones(inside.first - base, inside.end - base);
        }
    }

    /// The bits of a word, given by its number; a word that the set cannot hold is empty.
    #[inline]
    pub(crate) fn word(&self, number: i64) -> u64 {
        usize::try_from(number - self.first_word).ok().and_then(|index| self.words.get(index)).copied().unwrap_or(0)
    }

    /// Whether the set holds a slot.
    #[inline]
    pub fn contains(&self, slot: i64) -> bool {
        self.place(slot).is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }

    /// How many slots the set holds.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many slots of a range the set holds.
    pub fn count_in(&self, slots: SlotRange) -> u64 {
        let slots = slots.intersection(&self.slots);
        let per_word = i64::from(self.per_word);
        let mut count = 0;
        let mut slot = slots.first;
        while slot < slots.end {
            let word = slot.div_euclid(per_word);
            let to = (slots.end - word * per_word).min(per_word);
            if let Ok(index) = usize::try_from(word - self.first_word) {
                count += u64::from((self.words[index] & ones(slot.rem_euclid(per_word), to)).count_ones());
            }
            slot = word * per_word + to;
        }
        count
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Removes the slots of another set of the same cadence.
    pub fn subtract(&mut self, other: &SlotSet) {
        self.combine(other, |mine, theirs| mine & !theirs);
    }

    /// Adds the slots of another set of the same cadence that lie within this set's range.
    pub fn union(&mut self, other: &SlotSet) {
        if self.slots == other.slots {
            self.combine(other, |mine, theirs| mine | theirs);
        } else {
            for run in other.runs() {
                self.insert_range(run);
            }
        }
    }

    /// Keeps only the slots that another set of the same cadence also holds.
    pub fn intersect(&mut self, other: &SlotSet) {
        self.combine(other, |mine, theirs| mine & theirs);
    }

    fn combine(&mut self, other: &SlotSet, apply: impl Fn(u64, u64) -> u64) {
        debug_assert_eq!(self.per_word, other.per_word, "sets of different cadences");
        let offset = self.first_word - other.first_word;
        for (index, word) in (0i64..).zip(self.words.iter_mut()) {
            let theirs = usize::try_from(index + offset).ok().and_then(|index| other.words.get(index)).copied().unwrap_or(0);
            *word = apply(*word, theirs);
        }
    }

    /// The slots of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        let per_word = i64::from(self.per_word);
        (self.first_word..).zip(&self.words).flat_map(move |(number, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    number * per_word + i64::from(bit)
                })
            })
        })
    }

    /// The maximal runs of consecutive slots, in order.
    pub fn runs(&self) -> impl Iterator<Item = SlotRange> + '_ {
        let per_word = u32::from(self.per_word);
        let full = if per_word >= u64::BITS { u64::MAX } else { (1u64 << per_word) - 1 };
        let mut words = (self.first_word..).zip(self.words.iter().copied());
        // The bits of a word that are not in a run yet, all above those that are.
        let (mut number, mut rest) = (self.first_word, 0u64);
        std::iter::from_fn(move || {
            while rest == 0 {
                (number, rest) = words.next()?;
            }
            let base = number * i64::from(per_word);
            let from = rest.trailing_zeros();
            let first = base + i64::from(from);
            let mut to = from + (rest >> from).trailing_ones();
            rest &= if to >= u64::BITS { 0 } else { u64::MAX << to };
            // A run that reaches the end of its word may go on in the next.
            while to == per_word {
                let Some((next, bits)) = words.next() else {
                    return Some(SlotRange { first, end: (number + 1) * i64::from(per_word) });
                };
                (number, to) = (next, bits.trailing_ones());
                rest = if bits == full { 0 } else { bits & (u64::MAX << to) };
            }
            Some(SlotRange { first, end: number * i64::from(per_word) + i64::from(to) })
        })
    }

    #[inline]
    fn place(&self, slot: i64) -> Option<(usize, u64)> {
        if !self.slots.contains(slot) {
            return None;
        }
        let per_word = i64::from(self.per_word);
        let index = usize::try_from(slot.div_euclid(per_word) - self.first_word).ok()?;
        Some((index, 1 << slot.rem_euclid(per_word)))
    }
}

/// The number of the first word of a range of slots, and how many words the range takes.
fn word_range(per_word: u8, slots: SlotRange) -> (i64, usize) {
    let per_word = i64::from(per_word);
    let first = slots.first.div_euclid(per_word);
    if slots.is_empty() {
        return (first, 0);
    }
    let last = (slots.end - 1).div_euclid(per_word);
    (first, usize::try_from(last - first + 1).unwrap_or(0))
}

/// The bits of a word, given by its number, that lie within a range of slots.
pub(crate) fn within(bits: u64, number: i64, cadence: Cadence, slots: SlotRange) -> u64 {
    let per_word = i64::from(cadence.slots_per_word());
    let base = number * per_word;
    let inside = SlotRange::new(base, base + per_word).intersection(&slots);
    if inside.is_empty() { 0 } else { bits & ones(inside.first - base, inside.end - base) }
}

/// A word with the bits `from..to` set; `to` is at most 64.
fn ones(from: i64, to: i64) -> u64 {
    let below = |bits: i64| if bits >= 64 { u64::MAX } else { (1u64 << bits) - 1 };
    below(to) & !below(from)
}

/// What a table holds for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPresence {
    /// The slots that hold at least one row.
    pub present: SlotSet,
    /// For each word of `present`, how many rows its slots hold. More rows than set bits means duplicates.
    pub rows: Vec<u32>,
}

impl KeyPresence {
    /// The presence of a key that holds no row within a range of slots.
    pub fn new(cadence: Cadence, slots: SlotRange) -> Self {
        let present = SlotSet::new(cadence, slots);
        let rows = vec![0; present.words().len()];
        Self { present, rows }
    }

    /// Counts one row, and returns whether its slot was empty before.
    #[inline]
    pub fn add_row(&mut self, slot: i64) -> bool {
        let Some((word, bit)) = self.present.place(slot) else { return false };
        let before = self.present.words[word];
        self.present.words[word] = before | bit;
        self.rows[word] = self.rows[word].saturating_add(1);
        before & bit == 0
    }

    /// How many rows there are beyond one per slot.
    pub fn duplicates(&self) -> u64 {
        self.rows.iter().map(|&rows| u64::from(rows)).sum::<u64>().saturating_sub(self.present.count())
    }

    /// Adds what another part of the table holds for the same key.
    pub fn merge(&mut self, other: &Self) {
        self.present.union(&other.present);
        for (mine, theirs) in self.rows.iter_mut().zip(&other.rows) {
            *mine = mine.saturating_add(*theirs);
        }
    }
}

/// What a table holds within a range of slots, by key. Every requested key has an entry, even if it holds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The grid of the table.
    pub grid: SlotGrid,
    /// The range that was examined.
    pub slots: SlotRange,
    /// The presence of each key.
    pub keys: BTreeMap<Key, KeyPresence>,
    /// How many rows within `slots` have a key that was not requested.
    pub other_rows: u64,
    /// The first few of those keys.
    pub other_keys: OtherKeys,
    /// How many rows of the requested keys have a time that is further from that of their slot than the tolerance. They are no part of the series,
    /// and hold no slot.
    pub misaligned_rows: u64,
    /// How many rows lie in a folder of another time, near enough to be used.
    pub misplaced_rows: u64,
    /// How many rows of each file were seen that lie in a folder of a time so far from theirs that they are not used, whatever their time
    /// is. A lake that does not know files counts them under one name.
    pub stray_rows: BTreeMap<String, u64>,
    /// The rows that could not be read, of all that were seen, since nobody knows their time.
    pub quarantine: Quarantine,
}

impl Presence {
    /// The presence of keys that hold no row.
    pub fn new<'a>(grid: SlotGrid, slots: SlotRange, keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let keys = keys.into_iter().map(|key| (key.clone(), KeyPresence::new(grid.cadence(), slots))).collect();
        Self {
            grid,
            slots,
            keys,
            other_rows: 0,
            other_keys: OtherKeys::default(),
            misaligned_rows: 0,
            misplaced_rows: 0,
            stray_rows: BTreeMap::new(),
            quarantine: Quarantine::default(),
        }
    }

    /// Adds what another part of the same table holds within the same slots.
    pub fn merge(&mut self, other: Self) {
        self.other_rows += other.other_rows;
        self.other_keys.merge(&other.other_keys);
        self.misaligned_rows += other.misaligned_rows;
        self.misplaced_rows += other.misplaced_rows;
        for (file, rows) in other.stray_rows {
            let mine = self.stray_rows.entry(file).or_default();
            *mine = rows.max(*mine);
        }
        self.quarantine.merge(other.quarantine);
        for (key, theirs) in other.keys {
            match self.keys.get_mut(&key) {
                Some(mine) => mine.merge(&theirs),
                None => {
                    self.keys.insert(key, theirs);
                }
            }
        }
    }
}

/// The presence of a table and of its overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePresence {
    /// The presence of the table's own rows.
    pub raw: Presence,
    /// The slots that live overlay rows fill or replace.
    pub repaired: BTreeMap<Key, SlotSet>,
    /// The slots whose newest live repair fills them, although the table now has a row of its own. Readers see the table's row, and the
    /// difference shows how accurate the repair was.
    pub overtaken: BTreeMap<Key, SlotSet>,
    /// The slots confirmed absent whose evidence has not expired.
    pub absent: BTreeMap<Key, SlotSet>,
    /// The slots whose newest live repair removes their rows, whether or not the table still has some. Readers see no row there, and `raw`
    /// has those of the table.
    pub removed: BTreeMap<Key, SlotSet>,
    /// When the first evidence among `absent` expires; [`Timestamp::MAX`] if none does. `None` if the lake does not say.
    pub absent_until: Option<Timestamp>,
    /// What the look-up consumed.
    pub usage: Usage,
}

impl TablePresence {
    /// The slots of a key of which readers see a row: one of the table's own that no repair removes, or a repair.
    pub fn held(&self, key: &Key) -> Option<SlotSet> {
        let mut held = self.raw.keys.get(key)?.present.clone();
        if let Some(repaired) = self.repaired.get(key) {
            held.union(repaired);
        }
        if let Some(removed) = self.removed.get(key) {
            held.subtract(removed);
        }
        Some(held)
    }
}

/// The slots of a range in which a calendar expects a row.
///
/// If every slot begins with a date, as days, weeks and months do, those are expected that have a session known by one of their dates. All
/// others are expected if a part of them is open.
///
/// # Errors
/// `blind` if the calendar does not know the time of the slots.
///
/// ```
/// use repair_core::model::{Always, Cadence, Interval, SlotGrid, TimeMark, expected_slots};
///
/// let grid = SlotGrid::new(Cadence::MONTH, TimeMark::Start);
/// let year = grid.slots_in(&Interval::parse("2023-01-01", "2023-12-31")?);
/// assert_eq!(expected_slots(grid, year, &Always)?.count(), 12);
/// # Ok::<(), repair_core::Error>(())
/// ```
pub fn expected_slots(grid: SlotGrid, slots: SlotRange, calendar: &dyn Calendar) -> Result<SlotSet> {
    let mut expected = SlotSet::new(grid.cadence(), slots);
    if grid.is_by_date() {
        if let Some((from, to)) = grid.dates_of(slots) {
            for date in calendar.days(from, to)? {
                expected.insert(grid.slot_of_date(date)?);
            }
        }
    } else if let Some(interval) = grid.interval_of(slots) {
        expected = open_slots(grid, slots, &calendar.open(&interval)?);
    }
    Ok(expected)
}

/// The slots of a range of which a part lies within one of the `open` stretches.
pub fn open_slots(grid: SlotGrid, slots: SlotRange, open: &[Interval]) -> SlotSet {
    let mut expected = SlotSet::new(grid.cadence(), slots);
    for interval in open {
        expected.insert_range(grid.slots_over(interval));
    }
    let mut skipped = grid.skipped(slots).peekable();
    if skipped.peek().is_some() {
        let mut none = SlotSet::new(grid.cadence(), slots);
        skipped.for_each(|slot| {
            none.insert(slot);
        });
        expected.subtract(&none);
    }
    expected
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn cadences() -> impl Strategy<Value = Cadence> {
        prop::sample::select(vec!["1s", "1m", "5m", "30m", "1h", "1d"]).prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        /// The words must be invisible: a slot set behaves like a plain set of numbers, also before 1970.
        #[test]
        fn a_slot_set_is_a_set(
            cadence in cadences(), first in -300i64..300, len in 0i64..400,
            ranges in prop::collection::vec((-350i64..700, 0i64..90), 0..6), singles in prop::collection::vec(-350i64..700, 0..30),
            query in (-350i64..700, 0i64..200),
        ) {
            let range = SlotRange::new(first, first + len);
            let (mut set, mut model) = (SlotSet::new(cadence, range), BTreeSet::new());
            for (from, len) in ranges {
                set.insert_range(SlotRange::new(from, from + len));
                model.extend((from..from + len).filter(|&slot| range.contains(slot)));
            }
            for slot in singles {
                let new = set.insert(slot);
                prop_assert_eq!(new, range.contains(slot) && model.insert(slot));
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count(), model.len() as u64);
            let query = SlotRange::new(query.0, query.0 + query.1);
            prop_assert_eq!(set.count_in(query), model.iter().filter(|&&slot| query.contains(slot)).count() as u64);
            prop_assert_eq!(set.runs().map(|run| run.len()).sum::<u64>(), set.count());
            let mut runs: Vec<SlotRange> = Vec::new();
            for slot in &model {
                match runs.last_mut() {
                    Some(last) if last.end == *slot => last.end += 1,
                    _ => runs.push(SlotRange::new(*slot, slot + 1)),
                }
            }
            prop_assert_eq!(set.runs().collect::<Vec<_>>(), runs);
            let mut words = SlotSet::new(cadence, range);
            for (number, &bits) in (set.first_word()..).zip(set.words()) {
                words.insert_word(number, bits);
            }
            prop_assert_eq!(&words, &set);
            let mut rest = set.clone();
            rest.subtract(&words);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn rows_beyond_bits_are_duplicates() {
        let slots = SlotRange::new(0, 120);
        let mut presence = KeyPresence::new(Cadence::MINUTE, slots);
        assert!(presence.add_row(61));
        assert!(!presence.add_row(61));
        assert!(presence.add_row(62));
        assert!(!presence.add_row(500), "outside the range");
        assert_eq!((presence.present.count(), presence.duplicates(), presence.rows.as_slice()), (2, 1, &[0, 3][..]));
    }
}
