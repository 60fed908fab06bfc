//! Lifetimes: from when until when a key is expected, and by which calendar; and the slots that are expected of each key.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Cadence, Calendar, Interval, Key, Scope, SlotGrid, SlotRange, SlotSet, expected_slots};

/// How many slots are compared to see whether one cadence fits another: a week of minutes.
const MOST_CHECKED: usize = 10_080;

/// When rows of one key are expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// The key.
    pub key: Key,
    /// The stretches in which it is expected, in order and disjoint; `None` if it is throughout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<Vec<Interval>>,
    /// Its calendar, if it is not that of the scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<String>,
    /// Its cadence, if it is longer than that of the grid: only slots that begin when one of its own does are expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Cadence>,
}

impl Lifetime {
    /// The lifetime of a key that is expected in these stretches, in any order, as far as they lie within an interval. A key that is expected
    /// throughout has no stretches. `None` if it is never expected there.
    pub fn within(key: Key, stretches: impl IntoIterator<Item = (Timestamp, Timestamp)>, interval: &Interval) -> Option<Self> {
        let within = |(from, to): (Timestamp, Timestamp)| Interval::new(from, to).ok()?.intersection(interval);
        let mut alive: Vec<Interval> = stretches.into_iter().filter_map(within).collect();
        alive.sort();
        let mut joined: Vec<Interval> = Vec::with_capacity(alive.len());
        for next in alive {
            match joined.last_mut() {
                Some(last) if next.from() <= last.to() => *last = last.hull(&next),
                _ => joined.push(next),
            }
        }
        match joined.as_slice() {
            [] => None,
            [whole] if whole == interval => Some(Self { key, alive: None, calendar: None, every: None }),
            _ => Some(Self { key, alive: Some(joined), calendar: None, every: None }),
        }
    }

    /// Whether the key is expected throughout, by the calendar of the scope.
    pub fn is_plain(&self) -> bool {
        self.alive.is_none() && self.calendar.is_none() && self.every.is_none()
    }

    /// Whether what begins at an instant is expected, if the calendar expects it.
    pub fn is_alive(&self, instant: Timestamp) -> bool {
        let Some(alive) = &self.alive else { return true };
        let after = alive.partition_point(|stretch| stretch.to() <= instant);
        alive.get(after).is_some_and(|stretch| stretch.contains(instant))
    }
}

/// The lifetimes of the keys of a scope that are not expected throughout, or not by its calendar.
///
/// ```
/// use repair_core::model::{Interval, Key, Lifetime, Lifetimes};
///
/// let march = Interval::parse("2024-03-01", "2024-03-31")?;
/// let opened = "2024-03-04T00:00:00Z".parse()?;
/// let plant = Lifetime::within(Key::from("plant-7"), [(opened, march.to())], &march);
/// let lifetimes = Lifetimes::new(plant);
/// assert!(lifetimes.of(&Key::from("plant-7")).is_some());
/// assert!(lifetimes.of(&Key::from("plant-8")).is_none(), "expected throughout");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Lifetime>")]
pub struct Lifetimes(Vec<Lifetime>);

impl From<Vec<Lifetime>> for Lifetimes {
    fn from(lifetimes: Vec<Lifetime>) -> Self {
        Self::new(lifetimes)
    }
}

impl Lifetimes {
    /// The lifetimes of some keys, one for each. Those of keys that are expected throughout are left out.
    pub fn new(lifetimes: impl IntoIterator<Item = Lifetime>) -> Self {
        let mut all: Vec<Lifetime> = lifetimes.into_iter().filter(|lifetime| !lifetime.is_plain()).collect();
        all.sort_by(|one, other| one.key.cmp(&other.key));
        Self(all)
    }

    /// Whether all keys are expected throughout, by the calendar of the scope.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lifetime of a key; `None` if it is expected throughout, by the calendar of the scope.
    pub fn of(&self, key: &Key) -> Option<&Lifetime> {
        self.0.binary_search_by(|lifetime| lifetime.key.cmp(key)).ok().and_then(|at| self.0.get(at))
    }

    /// The lifetimes, in order of key.
    pub fn iter(&self) -> impl Iterator<Item = &Lifetime> {
        self.0.iter()
    }
}

impl Scope {
    /// The slots of a key with a cadence of its own.
    ///
    /// # Errors
    /// `invalid` if its slots do not begin when slots of the table do.
    pub fn grid_of(&self, every: Cadence) -> Result<SlotGrid> {
        if every.is_days() && !self.grid.cadence().is_days() {
            return Err(Error::invalid(format!(
                "a key has a cadence of {every}, and table `{}` one of {}, which does not say when days begin; make a table of its own for such keys",
                self.table,
                self.grid.cadence()
            )));
        }
        let grid = self.grid.with_cadence(every)?;
        let slots = grid.slots_in(&self.interval);
        let fits = |slot: i64| self.grid.start_of(self.grid.slot_at(grid.start_of(slot))) == grid.start_of(slot);
        if every < self.grid.cadence() || !(slots.first..slots.end).take(MOST_CHECKED).all(fits) {
            return Err(Error::invalid(format!(
                "slots of {every} do not begin when slots of {} do, the cadence of table `{}`; give the table the shortest cadence that divides those of all keys",
                self.grid.cadence(),
                self.table
            )));
        }
        Ok(grid)
    }

    /// The calendar of a key.
    pub fn calendar_of(&self, key: &Key) -> &str {
        self.lifetimes.of(key).and_then(|lifetime| lifetime.calendar.as_deref()).unwrap_or(&self.calendar)
    }

    /// The calendars of its keys, by name.
    pub fn calendars(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.lifetimes.iter().filter_map(|lifetime| lifetime.calendar.as_deref()).collect();
        let own = all.len();
        all.sort_unstable();
        all.dedup();
        if own < self.keys.len() && !all.contains(&self.calendar.as_str()) {
            all.push(&self.calendar);
        }
        all
    }
}

/// The slots of a range that are expected of each key of a scope: those that the calendar of the key expects, and that begin while the key is
/// alive.
#[derive(Debug, Clone)]
pub struct ExpectedSlots<'a> {
    scope: &'a Scope,
    slots: SlotRange,
    /// By calendar, and by the cadence of keys that have their own: the slots that are expected, or in which an expected slot of the longer
    /// cadence begins.
    expected: BTreeMap<(&'a str, Option<Cadence>), SlotSet>,
    /// The end of what is examined of keys with a cadence of their own: a longer slot is over later.
    ends: BTreeMap<Cadence, i64>,
}

impl<'a> ExpectedSlots<'a> {
    /// The expected slots of a range. Calendars that no key has are not asked. Slots of longer cadences that end after `last` are not
    /// expected; the range itself says it for those of the table.
    ///
    /// # Errors
    /// If there is no calendar of a name, or it does not cover the range.
    pub fn of<'c>(
        scope: &'a Scope,
        slots: SlotRange,
        last: Timestamp,
        calendar: impl Fn(&str) -> Result<&'c Arc<dyn Calendar>>,
    ) -> Result<Self> {
        let (mut expected, mut ends) = (BTreeMap::new(), BTreeMap::new());
        for name in scope.calendars() {
            expected.insert((name, None), expected_slots(scope.grid, slots, calendar(name)?.as_ref())?);
        }
        for lifetime in scope.lifetimes.iter() {
            let Some(every) = lifetime.every else { continue };
            let name = scope.calendar_of(&lifetime.key);
            if expected.contains_key(&(name, Some(every))) {
                continue;
            }
            let mut begun = SlotSet::new(scope.grid.cadence(), slots);
            if let Some(interval) = scope.grid.interval_of(slots) {
                let own = scope.grid_of(every)?;
                let all = own.slots_in(&interval);
                let over = SlotRange::new(all.first, all.end.min(own.slot_at(last)).max(all.first));
                if over.end < all.end {
                    ends.insert(every, scope.grid.slot_at(own.start_of(over.end)));
                }
                for slot in expected_slots(own, over, calendar(name)?.as_ref())?.iter() {
                    begun.insert(scope.grid.slot_at(own.start_of(slot)));
                }
            }
            expected.insert((name, Some(every)), begun);
        }
        Ok(Self { scope, slots, expected, ends })
    }

    /// The range.
    pub fn range(&self) -> SlotRange {
        self.slots
    }

    /// Adds to a digest which slots are expected by each calendar, and until when.
    pub(crate) fn digest(&self, hasher: &mut blake3::Hasher) {
        hasher.update(format!("{:?} {:?}", self.slots, self.ends).as_bytes());
        for (by, slots) in &self.expected {
            hasher.update(format!("{by:?} {} {}", slots.first_word(), slots.words().len()).as_bytes());
            slots.words().iter().for_each(|word| _ = hasher.update(&word.to_le_bytes()));
        }
    }

    /// The slots that are examined of a key, expected or not.
    pub fn examined_of(&self, key: &Key) -> SlotRange {
        let every = self.scope.lifetimes.of(key).and_then(|lifetime| lifetime.every);
        let end = every.and_then(|every| self.ends.get(&every)).copied().unwrap_or(self.slots.end);
        SlotRange::new(self.slots.first, end.clamp(self.slots.first, self.slots.end))
    }

    /// The expected slots of a key.
    pub fn of_key(&self, key: &Key) -> SlotSet {
        let grid: SlotGrid = self.scope.grid;
        let mut expected = self.by_calendar(key).cloned().unwrap_or_else(|| SlotSet::new(grid.cadence(), self.slots));
        if let Some(alive) = self.scope.lifetimes.of(key).and_then(|lifetime| lifetime.alive.as_deref()) {
            let mut lived = SlotSet::new(grid.cadence(), self.slots);
            alive.iter().for_each(|stretch| lived.insert_range(grid.slots_in(stretch)));
            expected.intersect(&lived);
        }
        expected
    }

    /// The slots that the calendar of a key expects, by the cadence of the key.
    fn by_calendar(&self, key: &Key) -> Option<&SlotSet> {
        let every = self.scope.lifetimes.of(key).and_then(|lifetime| lifetime.every);
        self.expected.get(&(self.scope.calendar_of(key), every))
    }

    /// Whether a slot of a key is expected.
    pub fn contains(&self, key: &Key, slot: i64) -> bool {
        let is_alive = || self.scope.lifetimes.of(key).is_none_or(|lifetime| lifetime.is_alive(self.scope.grid.start_of(slot)));
        self.by_calendar(key).is_some_and(|open| open.contains(slot)) && is_alive()
    }

    /// Whether no slot of any key is expected.
    pub fn is_empty(&self) -> bool {
        self.scope.keys.iter().all(|key| self.of_key(key).is_empty())
    }
}
