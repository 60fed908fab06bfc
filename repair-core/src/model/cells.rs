//! Cells: the columns of a row that were found wrong, while the rest of the row is right.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Fingerprint, Key, SlotRange};

/// The wrong cells of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCells {
    /// The columns whose values are wrong, in order of name.
    pub columns: Arc<[String]>,
    /// A hash of the values that were judged: a repair changes these values and no others.
    pub judged: Fingerprint,
}

/// Slots in which not the whole row is wrong, but some of its cells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cells(BTreeMap<Key, BTreeMap<i64, BadCells>>);

impl Cells {
    /// Adds the wrong cells of a slot.
    pub fn insert(&mut self, key: &Key, slot: i64, cells: BadCells) {
        match self.0.get_mut(key) {
            Some(slots) => {
                slots.insert(slot, cells);
            }
            None => {
                self.0.insert(key.clone(), BTreeMap::from([(slot, cells)]));
            }
        }
    }

    /// The wrong cells of a slot; `None` if the slot is right, or its whole row is wrong.
    pub fn get(&self, key: &Key, slot: i64) -> Option<&BadCells> {
        self.0.get(key)?.get(&slot)
    }

    /// Whether no slot has wrong cells.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many cells are wrong.
    pub fn len(&self) -> u64 {
        self.0.values().flat_map(BTreeMap::values).map(|cells| cells.columns.len() as u64).sum()
    }

    /// The slots of a key within a range that have wrong cells, in order.
    pub fn of_key(&self, key: &Key, slots: SlotRange) -> impl Iterator<Item = (i64, &BadCells)> {
        let inside = self.0.get(key).filter(|_| !slots.is_empty());
        inside.into_iter().flat_map(move |of_key| of_key.range(slots.first..slots.end)).map(|(slot, cells)| (*slot, cells))
    }

    /// All slots with wrong cells, in order of key, then slot.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, i64, &BadCells)> {
        self.0.iter().flat_map(|(key, slots)| slots.iter().map(move |(slot, cells)| (key, *slot, cells)))
    }
}
