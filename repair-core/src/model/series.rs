//! Series: what identifies one (its key), how often it has a row (its cadence), and the grid of slots that follows from the cadence.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::model::Interval;
use crate::model::SlotRange;

/// What identifies one series of a table: the values of its key columns, as text, in the table's order. It is empty for a table
/// without key columns, and cheap to clone.
///
/// Its text is the values joined by `/`. In JSON it is a string for one column, and a list for several.
///
/// ```
/// use repair_core::model::Key;
///
/// assert_eq!(Key::from("IBM").single(), Some("IBM"));
/// assert_eq!(Key::new(["plant-7", "boiler"]).to_string(), "plant-7/boiler");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key(Arc<[Box<str>]>);

impl Key {
    /// A key from one value for each key column.
    pub fn new<T: Into<Box<str>>>(values: impl IntoIterator<Item = T>) -> Self {
        Self(values.into_iter().map(Into::into).collect())
    }

    /// The values, one for each key column.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|value| &**value)
    }

    /// The only value of a key of one column.
    pub fn single(&self) -> Option<&str> {
        match &*self.0 {
            [value] => Some(value),
            _ => None,
        }
    }
}

impl From<&str> for Key {
    fn from(value: &str) -> Self {
        Self::new([value])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("(all)");
        }
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(value)?;
        }
        Ok(())
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.single() {
            Some(value) => serializer.serialize_str(value),
            None => serializer.collect_seq(self.values()),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

/// Reads a key: a text, or a list of texts. Numbers and truth values are refused, because their original text is lost (`007`, `1.0`, `no`).
struct KeyVisitor;

fn not_text<E: serde::de::Error>(value: impl fmt::Display) -> E {
    E::custom(format_args!("a key must be text, and {value} is not; put it in quotes: \"{value}\""))
}

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key: text, or a list with a text for each key column")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Key, E> {
        Ok(Key::new([value]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Key, A::Error> {
        let mut key: Vec<Box<str>> = Vec::new();
        while let Some(KeyPart(value)) = values.next_element()? {
            key.push(value);
        }
        Ok(Key::new(key))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Key, E> {
        Err(not_text(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Key, E> {
        Err(not_text(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Key, E> {
        Err(not_text(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Key, E> {
        Err(not_text(value))
    }
}

/// One value of a key of several columns.
struct KeyPart(Box<str>);

impl<'de> Deserialize<'de> for KeyPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = Key::deserialize(deserializer)?;
        let value = key.single().ok_or_else(|| serde::de::Error::custom("a value of a key must be text, not a list"))?;
        Ok(Self(value.into()))
    }
}

impl JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Key".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A value of the key column, or a list with one value for each key column",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

/// How often a series has a row: a number of whole seconds that divides a day, so that slots fall on the same instants every day.
///
/// ```
/// use repair_core::model::Cadence;
///
/// let cadence: Cadence = "5m".parse()?;
/// assert_eq!(cadence.seconds(), 300);
/// assert!("7m".parse::<Cadence>().is_err(), "a day is not a multiple of 7 minutes");
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cadence {
    seconds: u32,
}

/// The seconds of a day.
const DAY_S: u32 = 86_400;

impl Cadence {
    /// One row per minute.
    pub const MINUTE: Cadence = Cadence { seconds: 60 };
    /// One row per hour.
    pub const HOUR: Cadence = Cadence { seconds: 3_600 };

    /// A cadence of this many seconds.
    ///
    /// # Errors
    /// `invalid` unless the number divides a day.
    pub fn from_seconds(seconds: u32) -> Result<Self> {
        if seconds > 0 && DAY_S.is_multiple_of(seconds) {
            Ok(Self { seconds })
        } else {
            Err(Error::invalid(format!("a cadence of {seconds} s does not divide a day; choose one that does, such as 1m, 5m, 1h or 1d")))
        }
    }

    /// The length of a slot, in seconds.
    pub fn seconds(self) -> u32 {
        self.seconds
    }

    /// How many slots share one presence word (at most 64): those of a day, an hour or a minute, whichever is the longest that fits.
    /// So any lake can compute the words with plain date arithmetic.
    pub fn slots_per_word(self) -> u8 {
        [DAY_S, 3_600, 60]
            .into_iter()
            .filter(|span| span.is_multiple_of(self.seconds))
            .map(|span| span / self.seconds)
            .find(|&slots| (2..=64).contains(&slots))
            .and_then(|slots| u8::try_from(slots).ok())
            .unwrap_or(64)
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            DAY_S => f.write_str("1d"),
            seconds if seconds.is_multiple_of(3_600) => write!(f, "{}h", seconds / 3_600),
            seconds if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

impl std::str::FromStr for Cadence {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::invalid(format!("`{text}` is not a cadence; write one such as 1m, 5m, 1h or 1d"));
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?);
        let unit_s = match unit.trim() {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => DAY_S,
            _ => return Err(refuse()),
        };
        let number: u32 = number.parse().map_err(|_| refuse())?;
        Self::from_seconds(number.checked_mul(unit_s).ok_or_else(refuse)?)
    }
}

impl Serialize for Cadence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cadence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl JsonSchema for Cadence {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cadence".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "How often a series has a row, e.g. 1m, 5m, 1h, 1d", "pattern": "^[0-9]+ ?(s|m|min|h|d)$" })
    }
}

/// Whether a row's time is the start or the end of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeMark {
    /// A row's time is where its slot begins.
    #[default]
    Start,
    /// A row's time is where its slot ends.
    End,
}

/// The slots of a table. Slot `n` is `[n × cadence, (n + 1) × cadence)` since the Unix epoch, and a row belongs to the slot that its
/// time marks.
///
/// ```
/// use repair_core::model::{Cadence, Interval, SlotGrid, TimeMark};
///
/// let grid = SlotGrid { cadence: Cadence::MINUTE, marks: TimeMark::Start };
/// let morning = grid.slots_in(&Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T12:00:00Z")?);
/// assert_eq!(morning.len(), 180);
/// assert_eq!(grid.start_of(morning.first), "2024-03-04T09:00:00Z".parse()?);
/// assert_eq!(grid.slot_of("2024-03-04T09:00:59Z".parse()?), morning.first);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotGrid {
    /// The length of a slot.
    pub cadence: Cadence,
    /// Whether a row's time is the start or the end of its slot.
    pub marks: TimeMark,
}

impl SlotGrid {
    /// The slot that a row's time marks. `time_s` is in whole seconds since the epoch, fractions rounded down.
    #[inline]
    pub fn slot_of_seconds(&self, time_s: i64) -> i64 {
        let cadence = i64::from(self.cadence.seconds);
        match self.marks {
            TimeMark::Start => time_s.div_euclid(cadence),
            // The end of slot n is (n + 1) × cadence; an instant within a slot marks the end of that same slot.
            TimeMark::End => (time_s - 1).div_euclid(cadence),
        }
    }

    /// The slot that a row's time marks.
    pub fn slot_of(&self, time: Timestamp) -> i64 {
        // Seconds and fraction have the same sign: before 1970, a fraction belongs to the second before.
        self.slot_of_seconds(time.as_second() - i64::from(time.subsec_nanosecond() < 0))
    }

    /// The time that a row of this slot carries, in seconds since the epoch.
    #[inline]
    pub fn time_of_seconds(&self, slot: i64) -> i64 {
        let cadence = i64::from(self.cadence.seconds);
        match self.marks {
            TimeMark::Start => slot * cadence,
            TimeMark::End => (slot + 1) * cadence,
        }
    }

    /// The time that a row of this slot carries.
    pub fn time_of(&self, slot: i64) -> Timestamp {
        Timestamp::from_second(self.time_of_seconds(slot)).unwrap_or(Timestamp::MAX)
    }

    /// The instant at which a slot begins.
    pub fn start_of(&self, slot: i64) -> Timestamp {
        Timestamp::from_second(slot.saturating_mul(i64::from(self.cadence.seconds))).unwrap_or(Timestamp::MAX)
    }

    /// The slots that begin within an interval.
    pub fn slots_in(&self, interval: &Interval) -> SlotRange {
        let cadence = i64::from(self.cadence.seconds);
        let first_at_or_after = |instant: Timestamp| {
            let seconds = instant.as_second() + i64::from(instant.subsec_nanosecond() > 0);
            -(-seconds).div_euclid(cadence)
        };
        SlotRange::new(first_at_or_after(interval.from()), first_at_or_after(interval.to()))
    }

    /// The time that a range of slots covers; `None` if the range is empty.
    pub fn interval_of(&self, slots: SlotRange) -> Option<Interval> {
        Interval::new(self.start_of(slots.first), self.start_of(slots.end)).ok()
    }

    /// The bounds on the time column that select the rows of a range of slots: `from <= time < to`, in seconds since the epoch.
    pub fn time_bounds_s(&self, slots: SlotRange) -> (i64, i64) {
        let cadence = i64::from(self.cadence.seconds);
        match self.marks {
            TimeMark::Start => (slots.first * cadence, slots.end * cadence),
            TimeMark::End => (slots.first * cadence + 1, slots.end * cadence + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_row_that_marks_the_end_belongs_to_the_slot_before() {
        let ends = SlotGrid { cadence: Cadence::HOUR, marks: TimeMark::End };
        let starts = SlotGrid { cadence: Cadence::HOUR, marks: TimeMark::Start };
        let one = at("2018-01-01T01:00:00Z");
        assert_eq!(ends.slot_of(one), starts.slot_of(one) - 1);
        for grid in [ends, starts] {
            for slot in [-3, 0, 7] {
                assert_eq!(grid.slot_of(grid.time_of(slot)), slot);
                let (from, to) = grid.time_bounds_s(SlotRange::new(slot, slot + 1));
                assert!((from..to).contains(&grid.time_of_seconds(slot)));
                assert!(!(from..to).contains(&grid.time_of_seconds(slot + 1)));
                assert!(!(from..to).contains(&grid.time_of_seconds(slot - 1)));
            }
        }
    }

    #[test]
    fn only_slots_that_begin_within_are_in() {
        let grid = SlotGrid { cadence: Cadence::MINUTE, marks: TimeMark::Start };
        let interval = Interval::parse("2018-04-04T00:00:30Z", "2018-04-04T00:02:00.5Z").unwrap();
        let slots = grid.slots_in(&interval);
        assert_eq!(grid.start_of(slots.first), at("2018-04-04T00:01:00Z"));
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn cadences_divide_a_day() {
        for (text, seconds, per_word) in
            [("1m", 60, 60), ("1h", 3_600, 24), ("5m", 300, 12), ("1s", 1, 60), ("1d", 86_400, 64), ("30m", 1_800, 48)]
        {
            let cadence: Cadence = text.parse().unwrap();
            assert_eq!((cadence.seconds(), cadence.slots_per_word()), (seconds, per_word), "{text}");
            assert_eq!(cadence.to_string().parse::<Cadence>().unwrap(), cadence);
        }
        for text in ["7m", "0m", "1w", "m", "99999999999m", ""] {
            assert!(text.parse::<Cadence>().is_err(), "{text}");
        }
    }
}
