//! Where the true values of estimates probably lie, by the model that estimated them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::Key;

/// How many standard deviations of its error an interval of 95 % has on each side of an estimate, if errors are normal.
const DEVIATIONS: f64 = 1.959_963_984_540_054;

/// The intervals of estimates: for each slot and column, where the true value lies in 95 % of cases, if the model is right.
///
/// ```
/// use repair_core::model::{Estimates, Key};
///
/// let mut estimates = Estimates::default();
/// estimates.insert(&Key::from("a"), 7, "temp", 18.5, 0.5);
/// let text = estimates.text(&Key::from("a"), 7, |_| true).unwrap();
/// let [low, high] = Estimates::of_text(&text)?["temp"];
/// assert!((low - 17.52).abs() < 0.001 && (high - 19.48).abs() < 0.001);
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimates {
    of_keys: BTreeMap<Key, BTreeMap<i64, Vec<Of>>>,
}

/// A column, and the ends of its interval.
type Of = (Arc<str>, [f64; 2]);

impl Estimates {
    /// Adds the interval around an estimate whose error has this standard deviation. One that is not finite is left out.
    pub fn insert(&mut self, key: &Key, slot: i64, column: &str, value: f64, deviation: f64) {
        if deviation >= 0.0 {
            self.insert_interval(key, slot, column, [-DEVIATIONS, DEVIATIONS].map(|deviations| value + deviations * deviation));
        }
    }

    /// Adds the interval of an estimate, from its low to its high end. One that is not finite, or that ends before it begins, is left out.
    pub fn insert_interval(&mut self, key: &Key, slot: i64, column: &str, [low, high]: [f64; 2]) {
        if !(low.is_finite() && high.is_finite() && low <= high) {
            return;
        }
        if !self.of_keys.contains_key(key) {
            self.of_keys.insert(key.clone(), BTreeMap::new());
        }
        if let Some(of_key) = self.of_keys.get_mut(key) {
            of_key.entry(slot).or_default().push((column.into(), [low, high]));
        }
    }

    /// Adds those of others.
    pub fn extend(&mut self, others: Self) {
        for (key, of_key) in others.of_keys {
            let own = self.of_keys.entry(key).or_default();
            for (slot, columns) in of_key {
                own.entry(slot).or_default().extend(columns);
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of_keys.is_empty()
    }

    /// The intervals of a slot as a JSON object, `{"temp":[17.5,19.5]}`, of those columns that are wanted; `None` if there are none.
    pub fn text(&self, key: &Key, slot: i64, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut text = String::new();
        for (column, [low, high]) in self.of_keys.get(key)?.get(&slot)?.iter().filter(|(column, _)| wanted(column)) {
            let name = serde_json::Value::from(column.as_ref());
            let before = if text.is_empty() { '{' } else { ',' };
            // Writing to a text cannot fail.
            let _ = write!(text, "{before}{name}:[{low:?},{high:?}]");
        }
        (!text.is_empty()).then(|| text + "}")
    }

    /// The intervals in such a text, by column.
    ///
    /// # Errors
    /// `invalid` if it is another text.
    pub fn of_text(text: &str) -> Result<BTreeMap<String, [f64; 2]>> {
        serde_json::from_str(text).map_err(|error| Error::invalid(format!("`{text}` lists no intervals of columns")).because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_finite_and_wanted_is_written() {
        let (a, b) = (Key::from("a"), Key::from("b"));
        let mut estimates = Estimates::default();
        estimates.insert(&a, 1, "x", 1.0, f64::NAN);
        estimates.insert(&a, 1, "x", f64::INFINITY, 1.0);
        estimates.insert(&a, 1, "x", 1.0, -1.0);
        estimates.insert_interval(&a, 1, "x", [2.0, 1.0]);
        assert!(estimates.is_empty());
        estimates.insert(&a, 1, "a \"quoted\" name", 1.0, 0.0);
        estimates.insert(&a, 1, "y", -2.0e300, 1.0e290);
        let text = estimates.text(&a, 1, |_| true).unwrap();
        let read = Estimates::of_text(&text).unwrap();
        assert_eq!(read["a \"quoted\" name"], [1.0, 1.0]);
        assert!(read["y"][0] < -2.0e300 && read["y"][1] > -2.0e300);
        assert_eq!(estimates.text(&a, 1, |column| column == "z"), None);
        assert_eq!((estimates.text(&a, 2, |_| true), estimates.text(&b, 1, |_| true)), (None, None));
        assert!(Estimates::of_text("[1]").is_err());
        let mut more = Estimates::default();
        more.insert_interval(&a, 2, "x", [1.0, 2.0]);
        more.insert_interval(&b, 1, "x", [3.0, 4.0]);
        estimates.extend(more);
        let text = |key: &Key, slot: i64| estimates.text(key, slot, |_| true);
        assert_eq!((text(&a, 2).as_deref(), text(&b, 1).as_deref()), (Some("{\"x\":[1.0,2.0]}"), Some("{\"x\":[3.0,4.0]}")));
        assert!(text(&a, 1).is_some());
    }
}
