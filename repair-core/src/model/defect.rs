//! Defects: what is wrong with a table, and what was examined to find out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::Interval;
use crate::model::Usage;
use crate::model::{BadCells, Cells};
use crate::model::{Key, SlotGrid};
use crate::model::{Lifetimes, OtherKeys, Quarantine};
use crate::model::{Runs, SlotRange, SlotSet};

/// The kind of defect that a slot has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DefectKind {
    /// The slot has no row.
    #[default]
    Missing,
    /// The slot has more than one row.
    Duplicate,
    /// The slot's row breaks a rule.
    Invalid,
    /// An aggregate was computed from a repair of the slot that has been undone since.
    Stale,
    /// The slot's row has other values than a source has.
    Different,
}

impl DefectKind {
    /// The word used in messages and reports, such as `missing`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::Invalid => "invalid",
            Self::Stale => "stale",
            Self::Different => "different",
        }
    }

    /// Whether the slots have no row.
    pub fn is_missing(&self) -> bool {
        *self == Self::Missing
    }

    /// Whether the slots hold rows of the table's own, which a repair then replaces.
    pub fn is_of_rows(self) -> bool {
        matches!(self, Self::Duplicate | Self::Invalid | Self::Different)
    }
}

/// How many defects are described one by one.
pub const MAX_EXAMPLES: usize = 5;

/// A hash of all rows that a table has of its own in one slot. The same rows give the same hash, in any order and in any lake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// A fingerprint from its bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A fingerprint from its text, 32 hexadecimal digits.
    ///
    /// # Errors
    /// `invalid` if the text is anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || Error::invalid(format!("`{text}` is not a fingerprint of rows, which has 32 hexadecimal digits"));
        let number = if text.len() == 32 { u128::from_str_radix(text, 16).map_err(|_| refused())? } else { return Err(refused()) };
        Ok(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The fingerprints of slots, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprints(BTreeMap<Key, BTreeMap<i64, Option<Fingerprint>>>);

impl Fingerprints {
    /// Adds the fingerprint of a slot.
    pub fn insert(&mut self, key: &Key, slot: i64, fingerprint: Fingerprint) {
        self.put(key, slot, Some(fingerprint));
    }

    /// Adds a slot of which it is known that the table has no row: a row for it fills, and replaces nothing.
    pub fn insert_nothing(&mut self, key: &Key, slot: i64) {
        self.put(key, slot, None);
    }

    fn put(&mut self, key: &Key, slot: i64, fingerprint: Option<Fingerprint>) {
        match self.0.get_mut(key) {
            Some(slots) => {
                slots.insert(slot, fingerprint);
            }
            None => {
                self.0.insert(key.clone(), BTreeMap::from([(slot, fingerprint)]));
            }
        }
    }

    /// The fingerprint of a slot, if it is known, and the table has a row.
    pub fn get(&self, key: &Key, slot: i64) -> Option<Fingerprint> {
        *self.0.get(key)?.get(&slot)?
    }

    /// Whether it is known that the table has no row in a slot, see [`Fingerprints::insert_nothing`].
    pub fn is_nothing(&self, key: &Key, slot: i64) -> bool {
        self.0.get(key).and_then(|slots| slots.get(&slot)).is_some_and(Option::is_none)
    }

    /// The slots of a key of which it is known what the table has, in order.
    pub fn slots_of(&self, key: &Key) -> impl Iterator<Item = i64> {
        self.0.get(key).into_iter().flat_map(|slots| slots.keys().copied())
    }

    /// Whether no fingerprint is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the fingerprints that `other` has for some slots of a key.
    pub fn extend_from(&mut self, other: &Self, key: &Key, slots: SlotRange) {
        if slots.is_empty() {
            return;
        }
        for (&slot, &fingerprint) in other.0.get(key).into_iter().flat_map(|of_key| of_key.range(slots.first..slots.end)) {
            self.put(key, slot, fingerprint);
        }
    }
}

/// What a detector examined: enough for later steps to know what was expected, without asking the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The name of the table.
    pub table: String,
    /// The table's grid.
    pub grid: SlotGrid,
    /// The keys that must be present.
    pub keys: Vec<Key>,
    /// The time that was examined.
    pub interval: Interval,
    /// The name of the calendar that defines which slots are expected.
    pub calendar: String,
    /// The keys that are not expected throughout, or by another calendar.
    #[serde(default, skip_serializing_if = "Lifetimes::is_empty")]
    pub lifetimes: Lifetimes,
}

impl Scope {
    /// The slots that begin within `interval`.
    pub fn slots(&self) -> SlotRange {
        self.grid.slots_in(&self.interval)
    }
}

/// A run of slots of one key that are missing or otherwise wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The key.
    pub key: Key,
    /// The slots.
    pub slots: SlotRange,
}

/// Many gaps in order of key, then time, in little memory: mostly two bytes per gap, however long the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GapList {
    keys: Vec<(Key, Runs)>,
}

impl GapList {
    /// Adds the runs of a set of missing slots of one key. Call it in order of key, and for each key in order of slot.
    pub fn extend(&mut self, key: &Key, missing: &SlotSet) {
        for slots in missing.runs() {
            self.push(key, slots);
        }
    }

    /// Adds one gap. A gap that continues the last one lengthens it.
    pub fn push(&mut self, key: &Key, slots: SlotRange) {
        match self.keys.last_mut() {
            Some((last, runs)) if last == key => runs.push(slots),
            _ => {
                let mut runs = Runs::default();
                runs.push(slots);
                self.keys.push((key.clone(), runs));
            }
        }
    }

    /// Adds gaps that were found later: those of each key come after those that the list has of it.
    pub fn append(&mut self, later: Self) {
        let mut later = later.keys.into_iter().peekable();
        let mut all = Vec::with_capacity(self.keys.len().max(later.len()));
        for (key, mut runs) in std::mem::take(&mut self.keys) {
            while let Some(new) = later.next_if(|(other, _)| *other < key) {
                all.push(new);
            }
            if let Some((_, more)) = later.next_if(|(other, _)| *other == key) {
                more.iter().for_each(|run| runs.push(run));
            }
            all.push((key, runs));
        }
        all.extend(later);
        self.keys = all;
    }

    /// The gaps of keys, in order.
    pub(crate) fn of_keys(keys: BTreeMap<Key, Runs>) -> Self {
        Self { keys: keys.into_iter().filter(|(_, runs)| !runs.is_empty()).collect() }
    }

    /// The gaps of one key, which the list does not have yet and which comes last.
    pub(crate) fn push_key(&mut self, key: &Key, runs: Runs) {
        if !runs.is_empty() {
            self.keys.push((key.clone(), runs));
        }
    }

    /// The gaps of each key, in order of key.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&Key, &Runs)> {
        self.keys.iter().map(|(key, runs)| (key, runs))
    }

    /// How many gaps the list holds.
    pub fn len(&self) -> usize {
        self.keys.iter().map(|(_, runs)| runs.len()).sum()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many slots all gaps hold together, missing or otherwise wrong.
    pub fn missing(&self) -> u64 {
        self.keys.iter().map(|(_, runs)| runs.slots()).sum()
    }

    /// The gaps, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, SlotRange)> + '_ {
        self.keys.iter().flat_map(|(key, runs)| runs.iter().map(move |slots| (key, slots)))
    }

    /// The keys that have gaps, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> + '_ {
        self.keys.iter().map(|(key, _)| key)
    }

    /// Whether a slot is in one of the gaps.
    pub fn contains(&self, key: &Key, slot: i64) -> bool {
        let of_key = self.keys.binary_search_by(|(known, _)| known.cmp(key)).ok().and_then(|at| self.keys.get(at));
        of_key.is_some_and(|(_, runs)| runs.contains(slot))
    }

    /// The gaps of each key, in order of key.
    pub fn by_key(&self) -> BTreeMap<Key, Vec<SlotRange>> {
        let mut by_key: BTreeMap<Key, Vec<SlotRange>> = BTreeMap::new();
        for (key, runs) in &self.keys {
            let slots = by_key.entry(key.clone()).or_default();
            slots.reserve_exact(runs.len());
            slots.extend(runs.iter());
        }
        by_key
    }

    /// The range from the earliest slot of any gap to the latest; `None` if there are no gaps.
    pub fn hull(&self) -> Option<SlotRange> {
        let hulls = self.keys.iter().filter_map(|(_, runs)| runs.hull());
        hulls.reduce(|one, other| SlotRange { first: one.first.min(other.first), end: one.end.max(other.end) })
    }
}

/// What a detector counted. Every expected slot is present, absent, missing or set aside, so `expected = present + absent + missing + frozen +
/// given_up + elsewhere` where a detector looks for missing slots. Of the present ones, some are defective, and some are replaced by a repair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Slots that the calendar expects, over all keys.
    pub expected: u64,
    /// Of the expected slots, those that hold a row: the table's own, or a repair.
    pub present: u64,
    /// Of the present slots, those that hold only a repair.
    pub repaired: u64,
    /// Expected slots confirmed absent: by evidence that has not expired, or because a repair removes their rows.
    pub absent: u64,
    /// Of the absent slots, those whose rows a repair removes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: u64,
    /// Expected slots that are neither present nor absent, nor set aside.
    pub missing: u64,
    /// Slots with the kind of defect that was looked for that are not to be repaired, because a person has frozen them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub frozen: u64,
    /// Such slots, because a person has given them up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub given_up: u64,
    /// Such slots, because a person says that they are handled elsewhere.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub elsewhere: u64,
    /// Expected slots whose rows have the kind of defect that was looked for.
    #[serde(default)]
    pub defective: u64,
    /// Expected slots that are not defective, because a repair replaces the table's rows there.
    #[serde(default)]
    pub replaced: u64,
    /// Expected slots that are not defective, because a repair changes cells of their rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub patched: u64,
    /// Of the expected slots that a repair replaces, changes or removes, those whose rows in the table have changed since, and no longer have
    /// the defect that was looked for.
    #[serde(default)]
    pub changed: u64,
    /// Of the defective slots, how many cells are wrong where the rest of the row is right.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cells: u64,
    /// Slots whose rows a rule could not judge, because what it compares them with is incomplete.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unjudged: u64,
    /// Runs of consecutive slots that are missing, or that have another kind of defect.
    pub gaps: u64,
    /// Rows of the table beyond one per slot.
    pub duplicates: u64,
    /// Slots that hold rows although the calendar does not expect them.
    pub unexpected: u64,
    /// Rows whose time is not on the grid.
    pub misaligned: u64,
    /// Rows that lie in a folder of another time, near enough to be used.
    #[serde(default)]
    pub misplaced: u64,
    /// Rows in a folder of a time so far from theirs that they are not used.
    #[serde(default)]
    pub stray: u64,
    /// Rows that could not be read, and were left out.
    #[serde(default)]
    pub quarantined: u64,
    /// Rows of other tables that the step uses, such as the one that lists the keys, that could not be read, and were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unread_elsewhere: u64,
    /// Rows of the interval whose keys are not among those that were examined.
    #[serde(default)]
    pub other_keys: u64,
    /// Expected slots that hold a row although a source confirmed them absent.
    #[serde(default)]
    pub conflicts: u64,
    /// Expected slots that were repaired before the table got a row of its own, which now counts.
    #[serde(default)]
    pub overtaken: u64,
    /// Expected slots of which cells were repaired before the table got other values there, which now count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overtaken_cells: u64,
    /// Keys that were examined.
    pub audited_keys: u64,
    /// What is counted of units of arrival, such as partitions, by a detector that looks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<UnitCounts>,
    /// What is counted of slots that were compared with a source, by a detector that does so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<ComparedCounts>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What is counted of the units in which a table arrives, such as the folder of a day. With a verdict for each key, each counts once for
/// each key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitCounts {
    /// Units that are expected.
    pub expected: u64,
    /// Of these, units without a row.
    pub missing: u64,
    /// Of these, units with rows, but too few.
    pub short: u64,
}

/// What is counted where a table is compared with a source. Of the slots that the source was asked for, each counts in one of `slots`,
/// `not_compared`, `only_source`, `only_table`, `removed` and `returned`; those of which neither the table nor the source has a row count in
/// none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedCounts {
    /// Slots that the source was asked for.
    pub asked: u64,
    /// Slots whose row in the table was compared with a row of the source.
    pub slots: u64,
    /// Slots with a row in the table that was not compared: the source has no row there and does not vouch that there is none, or the table
    /// has several.
    pub not_compared: u64,
    /// Slots of which only the source has a row.
    pub only_source: u64,
    /// Slots with a row in the table, of which the source vouches that there is none.
    pub only_table: u64,
    /// Of these, the slots whose row a repair is to remove.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted: u64,
    /// Slots whose row in the table a repair removed before, of which the source still vouches that there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: u64,
    /// Slots whose row in the table a repair removed before, and of which the source has a row again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub returned: u64,
    /// Of the compared slots, those in which the table has a value and the source has none.
    pub only_table_values: u64,
}

impl Counts {
    /// How many slots have this kind of defect.
    pub fn wrong(&self, kind: DefectKind) -> u64 {
        if kind.is_missing() { self.missing } else { self.defective }
    }

    /// How many slots have it and are set aside by a person's decision.
    pub fn set_aside(&self) -> u64 {
        self.frozen + self.given_up + self.elsewhere
    }
}

/// What a look saw of slots beside those that have the defect, if it says so: the status of a table is made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Expected slots that hold only a repair.
    pub repaired: GapList,
    /// Expected slots confirmed absent, or whose rows a repair removes.
    pub absent: GapList,
    /// Expected slots with rows of the table's own that a repair replaces or changes.
    pub replaced: GapList,
}

impl GapList {
    /// The slots of both lists, in any order of time.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut ranges: Vec<(&Key, SlotRange)> = self.iter().chain(other.iter()).collect();
        ranges.sort_by(|a, b| (a.0, a.1.first).cmp(&(b.0, b.1.first)));
        let mut list = Self::default();
        let mut last: Option<(&Key, i64)> = None;
        for (key, range) in ranges {
            // What an earlier range has is left out.
            let first = last.filter(|(of, _)| *of == key).map_or(range.first, |(_, end)| range.first.max(end));
            if first < range.end {
                list.push(key, SlotRange::new(first, range.end));
                last = Some((key, range.end));
            }
        }
        list
    }

    /// The slots of a key within a range, in order.
    pub fn within(&self, key: &Key, range: SlotRange) -> impl Iterator<Item = SlotRange> + '_ {
        let of_key = self.keys.binary_search_by(|(known, _)| known.cmp(key)).ok().and_then(|at| self.keys.get(at));
        of_key.into_iter().flat_map(move |(_, runs)| runs.within(range)).map(move |run| run.intersection(&range))
    }

    /// A list of single slots. Those of a key may be in any order, and count once.
    pub fn of_slots(slots: impl IntoIterator<Item = (Key, i64)>) -> Self {
        let slots: BTreeSet<(Key, i64)> = slots.into_iter().collect();
        let mut list = Self::default();
        slots.iter().for_each(|(key, slot)| list.push(key, SlotRange::new(*slot, slot + 1)));
        list
    }
}

/// What a detector found.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The kind of defect that the slots of `gaps` have.
    pub kind: DefectKind,
    /// What was examined.
    pub scope: Scope,
    /// What was counted.
    pub counts: Counts,
    /// The gaps: runs of slots that are missing or otherwise wrong.
    pub gaps: GapList,
    /// For defects of rows, the fingerprint of the rows that were judged, for each slot of `gaps` whose whole row is wrong. A repair replaces
    /// these rows and no others. The engine looks up the fingerprints that a detector leaves out.
    pub judged: Fingerprints,
    /// The slots of `gaps` in which only some cells of the row are wrong. A repair changes these cells and keeps all others.
    pub cells: Cells,
    /// The slots of `gaps` of whose row a source says that it does not exist. A repair of such a slot can only remove the row, and does so if
    /// its source says the same.
    pub deleted: GapList,
    /// Slots that have the defect and are not in `gaps`, because a person has set them aside. The engine fills this in, not a detector.
    pub aside: GapList,
    /// What was seen of other slots. `None` if the detector does not say, and then a table's status knows no more than the counts do.
    pub seen: Option<Seen>,
    /// What is wrong with each of the first few slots, in words; empty where the kind says it all.
    pub examples: Vec<String>,
    /// The rows of the table that could not be read.
    pub quarantine: Quarantine,
    /// What looks wrong with the table as a whole, in words.
    pub notices: Vec<String>,
    /// Keys that the table holds within the interval, and the scope does not expect.
    pub other_keys: OtherKeys,
    /// Until when a look would find the same, as long as what the findings rest on stays the same; see
    /// [`Detector::rests_on`](crate::plugin::Detector::rests_on). `None` if that is not known.
    pub hold_until: Option<Timestamp>,
    /// What other detect steps of the run have found wrong in rows of the same table so far, each with the same grid. The engine fills this in before a
    /// repair, not a detector.
    pub others: Vec<Arc<Findings>>,
    /// What the detector consumed.
    pub usage: Usage,
}

impl Findings {
    /// Findings of missing slots.
    pub fn of_gaps(scope: Scope, counts: Counts, gaps: GapList, usage: Usage) -> Self {
        Self {
            kind: DefectKind::Missing,
            scope,
            counts,
            gaps,
            judged: Fingerprints::default(),
            cells: Cells::default(),
            deleted: GapList::default(),
            aside: GapList::default(),
            seen: None,
            examples: Vec::new(),
            quarantine: Quarantine::default(),
            notices: Vec::new(),
            other_keys: OtherKeys::default(),
            hold_until: None,
            others: Vec::new(),
            usage,
        }
    }

    /// Whether the table's row in a slot was found wrong, as a whole or in some cells, by this detect step or another one. Such rows must not serve as
    /// neighbours of a gap.
    pub fn is_of_wrong_rows(&self, key: &Key, slot: i64) -> bool {
        self.kind.is_of_rows() && self.is_listed(key, slot) || self.others.iter().any(|other| other.is_of_wrong_rows(key, slot))
    }

    /// Whether nothing of the table's row in a slot may serve: it was found wrong as a whole, or its slot is one of the gaps.
    pub fn is_of_wrong_whole_rows(&self, key: &Key, slot: i64) -> bool {
        self.is_listed(key, slot) && self.cells.get(key, slot).is_none()
            || self.others.iter().any(|other| other.is_of_wrong_whole_rows(key, slot))
    }

    /// Whether the value of a column in a slot was found wrong, by itself or with its whole row, by this detect step or another one. Such values must not
    /// serve as neighbours of a gap.
    pub fn is_of_wrong_values(&self, key: &Key, slot: i64, column: &str) -> bool {
        let is_named = |cells: &BadCells| cells.columns.iter().any(|wrong| wrong == column);
        self.is_listed(key, slot) && self.cells.get(key, slot).is_none_or(is_named)
            || self.others.iter().any(|other| other.is_of_wrong_values(key, slot, column))
    }

    /// Whether a slot has the defect, whether or not it is to be repaired.
    fn is_listed(&self, key: &Key, slot: i64) -> bool {
        self.gaps.contains(key, slot) || self.aside.contains(key, slot)
    }
}
