//! What is wrong with a table: gaps and other defects, and what was looked at to find them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::Interval;
use crate::model::Usage;
use crate::model::{Key, SlotGrid};
use crate::model::{SlotRange, SlotSet};

/// What is wrong with a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefectKind {
    /// It has no row.
    #[default]
    Missing,
    /// It has more rows than one.
    Duplicate,
    /// Its row cannot be right.
    Invalid,
    /// What was computed of it was computed from what has been taken back since.
    Stale,
}

impl DefectKind {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::Invalid => "invalid",
            Self::Stale => "stale",
        }
    }

    /// Whether it is of slots without a row.
    pub fn is_missing(&self) -> bool {
        *self == Self::Missing
    }

    /// Whether it is of slots that hold rows of the table's own, so that a repair stands for these rows.
    pub fn is_of_rows(self) -> bool {
        matches!(self, Self::Duplicate | Self::Invalid)
    }
}

/// Defects that are told word for word.
pub const MOST_TOLD: usize = 5;

/// All rows that a table has of its own in one slot, known by their values: the same for the same rows, in whatever order or lake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// One that was computed.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// One from its text.
    ///
    /// # Errors
    /// `invalid` if it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || Error::invalid(format!("`{text}` is no fingerprint of rows, which is 32 hexadecimal digits"));
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
pub struct Fingerprints(BTreeMap<Key, BTreeMap<i64, Fingerprint>>);

impl Fingerprints {
    /// Adds that of a slot.
    pub fn insert(&mut self, key: &Key, slot: i64, fingerprint: Fingerprint) {
        match self.0.get_mut(key) {
            Some(slots) => {
                slots.insert(slot, fingerprint);
            }
            None => {
                self.0.insert(key.clone(), BTreeMap::from([(slot, fingerprint)]));
            }
        }
    }

    /// That of a slot.
    pub fn get(&self, key: &Key, slot: i64) -> Option<Fingerprint> {
        self.0.get(key)?.get(&slot).copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of some slots of a key, added to others.
    pub fn extend_from(&mut self, other: &Self, key: &Key, slots: SlotRange) {
        if slots.is_empty() {
            return;
        }
        for (&slot, &fingerprint) in other.0.get(key).into_iter().flat_map(|of_key| of_key.range(slots.first..slots.end)) {
            self.insert(key, slot, fingerprint);
        }
    }
}

/// What a detector looked at: enough for later steps to know what was expected, without asking the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The table.
    pub table: String,
    /// The slots of its series.
    pub grid: SlotGrid,
    /// The keys that must be there.
    pub keys: Vec<Key>,
    /// The stretch of time.
    pub interval: Interval,
    /// The name of the calendar that says which slots are expected.
    pub calendar: String,
}

impl Scope {
    /// The slots that begin within the interval.
    pub fn slots(&self) -> SlotRange {
        self.grid.slots_in(&self.interval)
    }
}

/// A run of missing slots of one key, or of slots that are otherwise wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whose.
    pub key: Key,
    /// Which slots.
    pub slots: SlotRange,
}

/// Many gaps, as columns: sixteen bytes each, however long the key. In order of key, then time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GapList {
    keys: Vec<Key>,
    key: Vec<u32>,
    slots: Vec<SlotRange>,
}

impl GapList {
    /// Adds the runs of a set of one key's missing slots. Keys come in order, each key's slots in order.
    pub fn extend(&mut self, key: &Key, missing: &SlotSet) {
        for slots in missing.runs() {
            self.push(key, slots);
        }
    }

    /// Adds one gap; one that continues the last gap lengthens it.
    pub fn push(&mut self, key: &Key, slots: SlotRange) {
        if self.keys.last() != Some(key) {
            self.keys.push(key.clone());
        }
        let index = u32::try_from(self.keys.len() - 1).unwrap_or(u32::MAX);
        if let (Some(&last_key), Some(last)) = (self.key.last(), self.slots.last_mut())
            && last_key == index
            && last.end == slots.first
        {
            last.end = slots.end;
            return;
        }
        self.key.push(index);
        self.slots.push(slots);
    }

    /// How many gaps.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many slots they hold together, missing or otherwise wrong.
    pub fn missing(&self) -> u64 {
        self.slots.iter().map(SlotRange::len).sum()
    }

    /// The gaps, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, SlotRange)> + '_ {
        self.key.iter().zip(&self.slots).map(|(&key, &slots)| (&self.keys[key as usize], slots))
    }

    /// Whether a slot is in one of them.
    pub fn contains(&self, key: &Key, slot: i64) -> bool {
        let Ok(of) = self.keys.binary_search(key) else { return false };
        let of = u32::try_from(of).unwrap_or(u32::MAX);
        let start = self.key.partition_point(|&number| number < of);
        let end = self.key.partition_point(|&number| number <= of);
        let gaps = self.slots.get(start..end).unwrap_or_default();
        gaps.get(gaps.partition_point(|gap| gap.end <= slot)).is_some_and(|gap| gap.contains(slot))
    }

    /// The gaps of each key, in order of key.
    pub fn by_key(&self) -> BTreeMap<Key, Vec<SlotRange>> {
        let mut by_key: BTreeMap<Key, Vec<SlotRange>> = BTreeMap::new();
        for (key, slots) in self.iter() {
            by_key.entry(key.clone()).or_default().push(slots);
        }
        by_key
    }

    /// The slots from the first gap's to the last's.
    pub fn hull(&self) -> Option<SlotRange> {
        let first = self.slots.iter().map(|slots| slots.first).min()?;
        let end = self.slots.iter().map(|slots| slots.end).max()?;
        Some(SlotRange { first, end })
    }
}

/// What was counted. For every slot that is expected: it is present, absent or missing, so
/// `expected = present + absent + missing`. Of those present, some are defective, and some are replaced by a repair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Slots that the calendar expects, over all keys.
    pub expected: u64,
    /// Of those, slots that hold a row, the table's own or a repair.
    pub present: u64,
    /// Of those present, slots that hold only a repair.
    pub repaired: u64,
    /// Expected slots confirmed absent, by evidence that has not expired.
    pub absent: u64,
    /// Expected slots with nothing.
    pub missing: u64,
    /// Expected slots that hold rows, which are wrong in the way that was looked for.
    #[serde(default)]
    pub defective: u64,
    /// Expected slots that are not defective because a repair stands for the rows that the table has there.
    #[serde(default)]
    pub replaced: u64,
    /// Of those replaced, slots whose rows in the table are others by now, and not wrong in the way that was looked for.
    #[serde(default)]
    pub changed: u64,
    /// Runs of missing slots; of defects of another kind, runs of slots that have it.
    pub gaps: u64,
    /// Rows of the table beyond one a slot.
    pub duplicates: u64,
    /// Slots that hold rows although the calendar does not expect them.
    pub unexpected: u64,
    /// Rows whose time is not on the grid.
    pub misaligned: u64,
    /// Expected slots of which one source says that there is no row, and the table or a repair has one.
    #[serde(default)]
    pub conflicts: u64,
    /// Expected slots that were repaired before the table got a row of its own, which counts now.
    #[serde(default)]
    pub overtaken: u64,
    /// Keys that were looked at.
    pub audited_keys: u64,
}

impl Counts {
    /// How many slots are wrong in a way that was looked for.
    pub fn wrong(&self, kind: DefectKind) -> u64 {
        if kind.is_missing() { self.missing } else { self.defective }
    }
}

/// What a detector found.
#[derive(Debug, Clone)]
pub struct Findings {
    /// What is wrong with the slots of `gaps`.
    pub kind: DefectKind,
    /// What was looked at.
    pub scope: Scope,
    /// What was counted.
    pub counts: Counts,
    /// The gaps themselves: runs of slots that are missing, or otherwise wrong.
    pub gaps: GapList,
    /// Of defects of rows: which rows were judged, for each slot of `gaps`. What repairs it stands for these rows and no others. Where a
    /// detector leaves one out, the engine looks the rows up.
    pub judged: Fingerprints,
    /// What is wrong with the first few slots, in words; empty where their kind says it all.
    pub told: Vec<String>,
    /// What looking took.
    pub usage: Usage,
}

impl Findings {
    /// What is missing.
    pub fn of_gaps(scope: Scope, counts: Counts, gaps: GapList, usage: Usage) -> Self {
        Self { kind: DefectKind::Missing, scope, counts, gaps, judged: Fingerprints::default(), told: Vec::new(), usage }
    }

    /// Whether the rows that the table has of a slot were found wrong. Such rows are nobody's neighbours.
    pub fn is_of_wrong_rows(&self, key: &Key, slot: i64) -> bool {
        self.kind.is_of_rows() && self.gaps.contains(key, slot)
    }
}
