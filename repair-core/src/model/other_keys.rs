//! The keys that a table holds and nobody asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Key, MAX_EXAMPLES};

/// The first few keys, in order, that a table holds and nobody asked for, and how many rows each has. However the rows are divided among
/// parts that are merged, the result is the same.
///
/// ```
/// use repair_core::model::{Key, OtherKeys};
///
/// let mut others = OtherKeys::default();
/// for key in ["b", "a", "b"] {
///     others.add(&Key::from(key), 1);
/// }
/// assert_eq!(others.describe(3), "a (1 row), b (2 rows)");
/// assert_eq!(others.describe(4), "a (1 row), b (2 rows) and others");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<KeyRows>", into = "Vec<KeyRows>")]
pub struct OtherKeys(BTreeMap<Key, u64>);

/// A key, and how many rows it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRows {
    /// The key.
    pub key: Key,
    /// Its rows.
    pub rows: u64,
}

impl From<Vec<KeyRows>> for OtherKeys {
    fn from(all: Vec<KeyRows>) -> Self {
        let mut keys = Self::default();
        all.into_iter().for_each(|of| keys.add(&of.key, of.rows));
        keys
    }
}

impl From<OtherKeys> for Vec<KeyRows> {
    fn from(keys: OtherKeys) -> Self {
        keys.0.into_iter().map(|(key, rows)| KeyRows { key, rows }).collect()
    }
}

impl OtherKeys {
    /// Adds rows of a key.
    pub fn add(&mut self, key: &Key, rows: u64) {
        if rows == 0 {
            return;
        }
        if let Some(known) = self.0.get_mut(key) {
            *known += rows;
            return;
        }
        // A key that is dropped here has so many before it that it never comes back, so the numbers that stay are whole.
        if self.0.len() >= MAX_EXAMPLES && self.0.last_key_value().is_some_and(|(last, _)| key > last) {
            return;
        }
        self.0.insert(key.clone(), rows);
        if self.0.len() > MAX_EXAMPLES {
            self.0.pop_last();
        }
    }

    /// Adds what another part of the table holds.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(key, rows)| self.add(key, *rows));
    }

    /// Takes rows of a key away.
    pub fn remove(&mut self, key: &Key, rows: u64) {
        if let Some(known) = self.0.get_mut(key) {
            *known = known.saturating_sub(rows);
        }
        self.0.retain(|_, rows| *rows > 0);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys and their rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.0.iter().map(|(key, rows)| (key, *rows))
    }

    /// The keys in words, if so many rows have other keys in all.
    pub fn describe(&self, all: u64) -> String {
        let named = self.0.iter().map(|(key, rows)| format!("{key} ({rows} row{})", if *rows == 1 { "" } else { "s" }));
        let named: Vec<String> = named.collect();
        let more = if self.0.values().sum::<u64>() < all { " and others" } else { "" };
        format!("{}{more}", named.join(", "))
    }
}
