//! What is wrong with a table: gaps, and what was looked at to find them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::interval::Interval;
use super::presence::{SlotRange, SlotSet};
use super::series::{Key, SlotGrid};
use crate::cost::Usage;

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

/// A run of missing slots of one key.
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

    /// How many slots they hold together.
    pub fn missing(&self) -> u64 {
        self.slots.iter().map(SlotRange::len).sum()
    }

    /// The gaps, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, SlotRange)> + '_ {
        self.key.iter().zip(&self.slots).map(|(&key, &slots)| (&self.keys[key as usize], slots))
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
/// `expected = present + absent + missing`.
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
    /// Runs of missing slots.
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

/// What a detector found.
#[derive(Debug, Clone)]
pub struct Findings {
    /// What was looked at.
    pub scope: Scope,
    /// What was counted.
    pub counts: Counts,
    /// The gaps themselves.
    pub gaps: GapList,
    /// What looking took.
    pub usage: Usage,
}
