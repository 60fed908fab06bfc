//! Runs of slots in little memory: mostly two bytes for a run, however many there are.

use crate::model::SlotRange;

/// After so many runs a mark is set, from which a look-up goes on.
const RUNS_PER_MARK: usize = 64;

/// Runs of slots, in the order in which they were added. A run that continues the last one lengthens it.
///
/// A run is kept as how far it is from the end of the one before, and how long it is, each in as few bytes as the number needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// All runs but the last.
    bytes: Vec<u8>,
    /// Where those begin that are a multiple of [`RUNS_PER_MARK`], but the first, and the end of the run before each.
    marks: Vec<(usize, i64)>,
    /// How many `bytes` holds.
    packed: usize,
    /// The end of the last of these.
    end: i64,
    /// The last run, which may become longer.
    last: Option<SlotRange>,
    /// How many slots all runs hold together, but the last.
    slots: u64,
    /// The earliest begin of a run, and the latest end, of all but the last.
    hull: Option<SlotRange>,
}

impl Runs {
    /// Adds a run.
    pub(crate) fn push(&mut self, run: SlotRange) {
        match &mut self.last {
            Some(last) if last.end == run.first => last.end = run.end,
            _ => {
                if let Some(done) = self.last.replace(run) {
                    self.pack(done);
                }
            }
        }
    }

    fn pack(&mut self, run: SlotRange) {
        if self.packed > 0 && self.packed.is_multiple_of(RUNS_PER_MARK) {
            self.marks.push((self.bytes.len(), self.end));
        }
        write(&mut self.bytes, run.first.wrapping_sub(self.end));
        write(&mut self.bytes, run.end.wrapping_sub(run.first));
        self.packed += 1;
        self.end = run.end;
        self.slots = self.slots.saturating_add(run.len());
        self.hull = Some(joined(self.hull, run));
    }

    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.packed + usize::from(self.last.is_some())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// How many slots the runs hold together.
    pub(crate) fn slots(&self) -> u64 {
        self.slots.saturating_add(self.last.map_or(0, |last| last.len()))
    }

    /// From the first slot of any run to the last.
    pub(crate) fn hull(&self) -> Option<SlotRange> {
        self.last.map(|last| joined(self.hull, last))
    }

    /// The runs, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = SlotRange> + '_ {
        self.from(0, 0)
    }

    fn from(&self, at: usize, end: i64) -> impl Iterator<Item = SlotRange> + '_ {
        let packed = Packed { bytes: self.bytes.get(at..).unwrap_or_default(), end };
        packed.chain(self.last)
    }

    /// Whether a slot is in one of the runs, which must be in order and disjoint.
    pub(crate) fn contains(&self, slot: i64) -> bool {
        self.after(slot).next().is_some_and(|run| run.contains(slot))
    }

    /// The runs that overlap a range. They must be in order and disjoint.
    pub(crate) fn within(&self, range: SlotRange) -> impl Iterator<Item = SlotRange> + '_ {
        self.after(range.first).take_while(move |run| run.first < range.end)
    }

    /// The runs from the first on that ends after a slot.
    fn after(&self, slot: i64) -> impl Iterator<Item = SlotRange> + '_ {
        let before = self.marks.partition_point(|(_, end)| *end <= slot);
        let (at, end) = before.checked_sub(1).and_then(|before| self.marks.get(before)).copied().unwrap_or((0, 0));
        self.from(at, end).skip_while(move |run| run.end <= slot)
    }
}

fn joined(hull: Option<SlotRange>, run: SlotRange) -> SlotRange {
    hull.map_or(run, |hull| SlotRange::new(hull.first.min(run.first), hull.end.max(run.end)))
}

struct Packed<'a> {
    bytes: &'a [u8],
    /// The end of the run before.
    end: i64,
}

impl Iterator for Packed<'_> {
    type Item = SlotRange;

    fn next(&mut self) -> Option<SlotRange> {
        let first = self.end.wrapping_add(read(&mut self.bytes)?);
        let end = first.wrapping_add(read(&mut self.bytes)?);
        self.end = end;
        Some(SlotRange::new(first, end))
    }
}

/// Seven bits in each byte, the lowest first; small numbers of either sign are short.
pub(crate) fn write(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned();
    while rest >= 0x80 {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
}

/// The next number that [`write`] has written; `None` at the end.
pub(crate) fn read(bytes: &mut &[u8]) -> Option<i64> {
    let mut folded = 0;
    let mut shift = 0;
    loop {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        folded |= u64::from(first & 0x7F) << shift;
        if first & 0x80 == 0 {
            return Some((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed());
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A run after another, in order: how far, and how long.
    fn runs_in_order() -> impl Strategy<Value = Vec<SlotRange>> {
        let step = prop_oneof![0i64..3, 60i64..70, 8_000i64..9_000, (1i64 << 40)..(1i64 << 41)];
        (-100_000i64..100_000, prop::collection::vec((step, 1i64..200), 0..300)).prop_map(|(mut at, steps)| {
            let mut runs = Vec::new();
            for (step, length) in steps {
                runs.push(SlotRange::new(at + step, at + step + length));
                at += step + length;
            }
            runs
        })
    }

    proptest! {
        #[test]
        fn runs_come_back_as_they_were(runs in runs_in_order(), looked_for in prop::collection::vec((any::<prop::sample::Index>(), -2i64..3), 1..40)) {
            let mut packed = Runs::default();
            let mut expected: Vec<SlotRange> = Vec::new();
            for &run in &runs {
                packed.push(run);
                match expected.last_mut() {
                    Some(last) if last.end == run.first => last.end = run.end,
                    _ => expected.push(run),
                }
            }
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!((packed.len(), packed.is_empty()), (expected.len(), expected.is_empty()));
            prop_assert_eq!(packed.slots(), expected.iter().map(SlotRange::len).sum::<u64>());
            let hull = expected.first().zip(expected.last()).map(|(first, last)| SlotRange::new(first.first, last.end));
            prop_assert_eq!(packed.hull(), hull);
            for (at, by) in looked_for.into_iter().filter(|_| !runs.is_empty()) {
                let run = at.get(&runs);
                for slot in [run.first + by, run.end + by] {
                    prop_assert_eq!(packed.contains(slot), expected.iter().any(|run| run.contains(slot)), "slot {}", slot);
                    let range = SlotRange::new(slot, slot + 100);
                    let within: Vec<SlotRange> = expected.iter().filter(|run| !run.intersection(&range).is_empty()).copied().collect();
                    prop_assert_eq!(packed.within(range).collect::<Vec<_>>(), within);
                }
            }
        }

        /// Whatever is added, in whatever order, nothing is lost.
        #[test]
        fn any_run_comes_back(runs in prop::collection::vec((any::<i64>(), any::<i64>()), 0..40)) {
            let (mut packed, mut expected): (Runs, Vec<SlotRange>) = Default::default();
            for (first, end) in runs {
                packed.push(SlotRange::new(first, end));
                match expected.last_mut() {
                    Some(last) if last.end == first => last.end = end,
                    _ => expected.push(SlotRange::new(first, end)),
                }
            }
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_short_run_takes_two_bytes() {
        let mut runs = Runs::default();
        (0..10_000).for_each(|number| runs.push(SlotRange::new(number * 11, number * 11 + 2)));
        assert_eq!((runs.len(), runs.bytes.len()), (10_000, 2 * 9_999));
    }
}
