//! What looks add up to: for each slot, what the latest look saw that looked at it. Pure.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::model::States;
use repair_core::engine::SeenSlots;
use repair_core::lake::overlay::aside::{AsideSlots, Verdict};
use repair_core::model::{Cadence, DefectKind, GapList, Key, SlotRange, SlotSet};

/// What a look saw, slot by slot.
pub(super) struct Seen<'a> {
    /// Its place in the list of looks.
    pub(super) look: usize,
    /// Looks of one class see the same: of two, the newer counts.
    pub(super) class: &'a Class,
    /// The slots that it examined.
    pub(super) slots: SlotRange,
    /// Whether it looked only at the gaps of an earlier look.
    pub(super) again: bool,
    /// The slots that it expects of a key within a range; `None` if it has not examined the key. Of a look at gaps, these were expected.
    pub(super) expected: &'a (dyn Fn(&Key, SlotRange) -> Option<SlotSet> + Sync),
    /// The slots with the defect.
    pub(super) gaps: &'a GapList,
    /// The others.
    pub(super) others: &'a SeenSlots,
}

/// What a look is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Which slots have a row.
    Missing,
    /// What is wrong with rows, by the rules of one step of a workflow.
    Rows { kind: &'static str, workflow: String, of: String },
}

impl Class {
    pub(super) fn of(kind: DefectKind, workflow: &str, of: &str) -> Self {
        if kind.is_missing() { Self::Missing } else { Self::Rows { kind: kind.as_str(), workflow: workflow.to_owned(), of: of.to_owned() } }
    }

    fn is_of_difference(&self) -> bool {
        matches!(self, Self::Rows { kind, .. } if *kind == DefectKind::Different.as_str())
    }
}

/// A day of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) date: Date,
    pub(super) states: States,
    /// The newest look that saw any of it.
    pub(super) look: usize,
    /// From the first slot that was looked at to the last, if not all of them were.
    pub(super) part: Option<SlotRange>,
}

/// What looks of one class saw of a key.
struct Layer {
    /// The slots that were looked at, expected or not.
    covered: SlotSet,
    expected: SlotSet,
    wrong: SlotSet,
    repaired: SlotSet,
    absent: SlotSet,
}

/// The days of a key. `days` are in order and follow each other; `looks` are in order of time, the newest last.
pub(super) fn days_of(key: &Key, cadence: Cadence, days: &[(Date, SlotRange)], looks: &[Seen<'_>], asides: &AsideSlots<'_>) -> Vec<Cell> {
    let Some((first, last)) = days.first().zip(days.last()) else { return Vec::new() };
    let range = SlotRange::new(first.1.first, last.1.end);
    let mut newest: Vec<Option<usize>> = vec![None; days.len()];
    let mut layers: BTreeMap<&Class, Layer> = BTreeMap::new();
    for seen in looks.iter().rev() {
        let within = seen.slots.intersection(&range);
        if within.is_empty() {
            continue;
        }
        let Some(expected) = (seen.expected)(key, within) else { continue };
        let layer = layers.entry(seen.class).or_insert_with(|| Layer::new(cadence, range));
        // What no newer look of the class has seen.
        let mut own = SlotSet::new(cadence, within);
        match seen.again {
            true => seen.others.examined.within(key, within).for_each(|run| own.insert_range(run)),
            false => own.insert_range(within),
        }
        own.subtract(&layer.covered);
        if own.is_empty() {
            continue;
        }
        for ((_, day), newest) in days.iter().zip(&mut newest) {
            if own.count_in(*day) > 0 {
                *newest = (*newest).max(Some(seen.look));
            }
        }
        layer.add(key, &own, &expected, seen);
    }
    let cells = Combined::of(cadence, range, &layers);
    let decided = Decided::of(key, cadence, range, &cells, asides);
    let cell = |((date, day), look): (&(Date, SlotRange), &Option<usize>)| {
        let look = (*look)?;
        let states = cells.states(*day, &decided);
        let covered = cells.covered.count_in(*day);
        let part = (covered < day.len()).then(|| cells.hull(cadence, *day)).flatten();
        Some(Cell { date: *date, states, look, part })
    };
    days.iter().zip(&newest).filter_map(cell).collect()
}

impl Layer {
    fn new(cadence: Cadence, range: SlotRange) -> Self {
        let none = SlotSet::new(cadence, range);
        Self { covered: none.clone(), expected: none.clone(), wrong: none.clone(), repaired: none.clone(), absent: none }
    }

    fn add(&mut self, key: &Key, own: &SlotSet, expected: &SlotSet, seen: &Seen<'_>) {
        let mut expected = expected.clone();
        expected.intersect(own);
        let only = |lists: &[&GapList]| {
            let mut set = own.clone();
            set.subtract(own);
            for list in lists {
                list.within(key, own.range()).for_each(|run| set.insert_range(run));
            }
            set.intersect(&expected);
            set
        };
        let SeenSlots { repaired, absent, replaced, aside, .. } = seen.others;
        self.wrong.union(&only(&[seen.gaps, aside]));
        match seen.class {
            Class::Missing => {
                self.repaired.union(&only(&[repaired]));
                self.absent.union(&only(&[absent]));
            }
            Class::Rows { .. } => self.repaired.union(&only(&[replaced])),
        }
        self.expected.union(&expected);
        self.covered.union(own);
    }
}

/// What all classes add up to: each expected slot is in one set, or complete.
struct Combined {
    covered: SlotSet,
    expected: SlotSet,
    missing: SlotSet,
    absent: SlotSet,
    wrong: SlotSet,
    suspect: SlotSet,
    repaired: SlotSet,
    unexamined: SlotSet,
}

impl Combined {
    fn of(cadence: Cadence, range: SlotRange, layers: &BTreeMap<&Class, Layer>) -> Self {
        let none = || SlotSet::new(cadence, range);
        let (mut covered, mut expected) = (none(), none());
        let (mut missing, mut absent, mut wrong, mut suspect, mut repaired) = (none(), none(), none(), none(), none());
        let mut rows_expected = none();
        let mut presence = none();
        for (class, layer) in layers {
            covered.union(&layer.covered);
            repaired.union(&layer.repaired);
            match class {
                Class::Missing => {
                    expected.union(&layer.expected);
                    missing.union(&layer.wrong);
                    absent.union(&layer.absent);
                    presence.union(&layer.covered);
                }
                class => {
                    rows_expected.union(&layer.expected);
                    if class.is_of_difference() { wrong.union(&layer.wrong) } else { suspect.union(&layer.wrong) }
                }
            }
        }
        // Of slots that no look for missing ones has seen, it is not known whether they have a row, unless something is wrong with it.
        rows_expected.subtract(&presence);
        let mut unexamined = rows_expected.clone();
        expected.union(&rows_expected);
        absent.subtract(&missing);
        for set in [&mut wrong, &mut suspect, &mut repaired] {
            set.intersect(&expected);
            set.subtract(&missing);
            set.subtract(&absent);
        }
        suspect.subtract(&wrong);
        repaired.subtract(&wrong);
        repaired.subtract(&suspect);
        for set in [&wrong, &suspect, &repaired] {
            unexamined.subtract(set);
        }
        Self { covered, expected, missing, absent, wrong, suspect, repaired, unexamined }
    }

    fn states(&self, day: SlotRange, decided: &Decided) -> States {
        let [frozen, elsewhere, given_up] = decided.0.each_ref().map(|sets| sets.iter().map(|set| set.count_in(day)).sum::<u64>());
        let left =
            |set: &SlotSet, at: usize| set.count_in(day) - decided.0.iter().map(|sets: &[SlotSet; 3]| sets[at].count_in(day)).sum::<u64>();
        let (missing, wrong, suspect) = (left(&self.missing, 0), left(&self.wrong, 1), left(&self.suspect, 2));
        let (expected, absent) = (self.expected.count_in(day), self.absent.count_in(day));
        let (repaired, unexamined) = (self.repaired.count_in(day), self.unexamined.count_in(day));
        let others = missing + wrong + suspect + frozen + elsewhere + given_up + absent + repaired + unexamined;
        let complete = expected - others;
        States { expected, complete, repaired, missing, absent, suspect, wrong, given_up, frozen, elsewhere, unexamined }
    }

    /// From the first slot of a day that was looked at to the last.
    fn hull(&self, cadence: Cadence, day: SlotRange) -> Option<SlotRange> {
        let mut within = SlotSet::new(cadence, day);
        within.insert_range(day);
        within.intersect(&self.covered);
        let mut runs = within.runs();
        let first = runs.next()?;
        let last = runs.last().unwrap_or(first);
        Some(SlotRange::new(first.first, last.end))
    }
}

/// The missing, wrong and suspect slots that people have set aside, by verdict.
struct Decided([[SlotSet; 3]; 3]);

impl Decided {
    fn of(key: &Key, cadence: Cadence, range: SlotRange, cells: &Combined, asides: &AsideSlots<'_>) -> Self {
        let none = || SlotSet::new(cadence, range);
        let mut all = [(); 3].map(|()| [none(), none(), none()]);
        for (at, set) in [&cells.missing, &cells.wrong, &cells.suspect].into_iter().enumerate() {
            for run in set.runs() {
                for (part, decided) in asides.cut(key, run) {
                    let verdict = decided.and_then(|aside| Verdict::ALL.iter().position(|verdict| *verdict == aside.verdict));
                    verdict.into_iter().for_each(|verdict| all[verdict][at].insert_range(part));
                }
            }
        }
        Self(all)
    }
}

#[cfg(test)]
mod tests;
