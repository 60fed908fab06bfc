//! Which days of which keys are compared, if not all are. Pure: the same for the same seed on any machine and in any version.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::model::{Key, SlotGrid, SlotRange, SlotSet, Zone};

/// How many days of keys a sample may be drawn from. A draw takes eight bytes.
const MOST_KEY_DAYS: usize = 1 << 24;

/// The part of all days of keys that is compared: more than nothing, at most all.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Sample {
    percent: f64,
}

impl Sample {
    /// So many of so many days of keys, at least one.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are below 2^24, and a share is between 0 and 1"
    )]
    fn of(self, all: usize) -> usize {
        ((all as f64 * self.percent / 100.0).ceil() as usize).clamp(1, all.max(1))
    }
}

impl FromStr for Sample {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
        let percent =
            percent.ok_or_else(|| Error::invalid(format!("`{text}` is not a sample; write a share above 0% and up to 100%, e.g. 5%")))?;
        Ok(Self { percent })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent)
    }
}

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl JsonSchema for Sample {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sample".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A share, e.g. 5%", "pattern": "^[0-9]+([.][0-9]+)?%$" })
    }
}

/// What a sample is drawn from: a seed that is written down, or the run's now, which a plan and the run that applies it share.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seed {
    Given(u64),
    Now(Timestamp),
}

impl Seed {
    fn draw(self, key: &Key, date: Date) -> u64 {
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::Given(seed) => hasher.update(b"seed").update(&seed.to_le_bytes()),
            Self::Now(now) => hasher.update(b"now").update(&now.as_microsecond().to_le_bytes()),
        };
        for text in key.values() {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hasher.update(date.to_string().as_bytes());
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 8]))
    }
}

/// The days of a zone in which slots begin, with these slots.
fn days(grid: SlotGrid, zone: &Zone, slots: SlotRange) -> Result<Vec<(Date, SlotRange)>> {
    let mut days = Vec::new();
    let mut next = slots.first;
    while next < slots.end {
        let date = zone.local(grid.start_of(next)).date();
        let of_day = grid.slots_in(&zone.day(date)?);
        // A day has at least the slot that begins in it.
        let end = of_day.end.clamp(next + 1, slots.end);
        days.push((date, SlotRange::new(next, end)));
        next = end;
    }
    Ok(days)
}

/// Draws a sample of the expected slots of some keys: whole days of single keys, by the days of a zone.
///
/// # Errors
/// `invalid` if there are too many to draw from.
pub(super) fn drawn<'a>(
    sample: Sample,
    seed: Seed,
    (grid, zone): (SlotGrid, &Zone),
    slots: SlotRange,
    keys: impl Iterator<Item = &'a Key> + Clone,
    expected: impl Fn(&Key) -> SlotSet,
) -> Result<Vec<(&'a Key, Vec<SlotRange>)>> {
    let days = days(grid, zone, slots)?;
    if keys.clone().count().saturating_mul(days.len()) > MOST_KEY_DAYS {
        return Err(Error::invalid(format!(
            "a sample is drawn from at most {MOST_KEY_DAYS} days of keys; compare fewer keys or a shorter interval at a time"
        )));
    }
    let of_key = |key: &Key| {
        let expected = expected(key);
        let held = days.iter().filter(move |(_, slots)| expected.count_in(*slots) > 0);
        held.map(|(date, slots)| (seed.draw(key, *date), *slots)).collect::<Vec<_>>()
    };
    let mut draws: Vec<u64> = keys.clone().flat_map(|key| of_key(key).into_iter().map(|(draw, _)| draw)).collect();
    if draws.is_empty() {
        return Ok(Vec::new());
    }
    let last = sample.of(draws.len()) - 1;
    let (_, most, _) = draws.select_nth_unstable(last);
    let most = *most;
    let mut chosen = Vec::new();
    for key in keys {
        let mut all = expected(key);
        let mut some = SlotSet::new(grid.cadence(), all.range());
        of_key(key).iter().filter(|(draw, _)| *draw <= most).for_each(|(_, slots)| some.insert_range(*slots));
        all.intersect(&some);
        if !all.is_empty() {
            chosen.push((key, all.runs().collect()));
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{Cadence, Interval, TimeMark};

    fn keys(count: usize) -> Vec<Key> {
        (0..count).map(|number| Key::from(format!("K{number}").as_str())).collect()
    }

    /// The days of keys, as key and number of day, with how many slots each has.
    fn chosen(percent: f64, seed: Seed, keys: &[Key], days: i64) -> BTreeSet<(String, i64)> {
        let grid = SlotGrid::new(Cadence::HOUR, TimeMark::Start);
        let slots = SlotRange::new(0, days * 24);
        let expected = |key: &Key| {
            let mut set = SlotSet::new(Cadence::HOUR, slots);
            // One key is not expected in the first half of the time, and in the afternoon.
            let from = if *key == Key::from("K0") { days / 2 } else { 0 };
            (from..days).for_each(|day| set.insert_range(SlotRange::new(day * 24, day * 24 + if from > 0 { 12 } else { 24 })));
            set
        };
        let drawn = drawn(Sample { percent }, seed, (grid, &Zone::utc()), slots, keys.iter(), expected).unwrap();
        let mut found = BTreeSet::new();
        for (key, runs) in drawn {
            for slot in runs.iter().flat_map(|run| run.first..run.end) {
                assert!(expected(key).contains(slot));
                found.insert((key.to_string(), slot.div_euclid(24)));
            }
            let whole: u64 = runs.iter().map(SlotRange::len).sum();
            let per_day = if *key == Key::from("K0") { 12 } else { 24 };
            assert!(whole.is_multiple_of(per_day), "whole days: {whole}");
        }
        found
    }

    #[test]
    fn a_sample_has_the_days_that_it_says_and_is_the_same_for_the_same_seed() {
        let keys = keys(10);
        // 9 keys of 30 days, and one of 15.
        for (percent, count) in [(100.0, 285), (5.0, 15), (10.0, 29), (0.001, 1)] {
            let sample = chosen(percent, Seed::Given(7), &keys, 30);
            assert_eq!(sample.len(), count, "{percent}");
            assert_eq!(sample, chosen(percent, Seed::Given(7), &keys, 30));
        }
        let some = chosen(20.0, Seed::Given(7), &keys, 30);
        assert!(some.is_superset(&chosen(5.0, Seed::Given(7), &keys, 30)), "a larger sample has a smaller one");
        assert_ne!(some, chosen(20.0, Seed::Given(8), &keys, 30));
        let now = |text: &str| Seed::Now(text.parse().unwrap());
        assert_eq!(chosen(20.0, now("2024-03-04T00:00:00Z"), &keys, 30), chosen(20.0, now("2024-03-04T00:00:00Z"), &keys, 30));
        assert_ne!(chosen(20.0, now("2024-03-04T00:00:00Z"), &keys, 30), chosen(20.0, now("2024-03-05T00:00:00Z"), &keys, 30));
    }

    /// Written down, so that no change of ours changes what a seed means.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let found = chosen(10.0, Seed::Given(1), &keys(2), 10);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("K0".to_owned(), 7), ("K1".to_owned(), 3)]);
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let grid = SlotGrid::new(Cadence::HOUR, TimeMark::Start);
        let interval = Interval::parse("2024-03-30T23:00:00Z", "2024-04-01T22:00:00Z").unwrap();
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        let days: Vec<(String, u64)> =
            days(grid, &berlin, grid.slots_in(&interval)).unwrap().iter().map(|(date, slots)| (date.to_string(), slots.len())).collect();
        assert_eq!(days, [("2024-03-31".to_owned(), 23), ("2024-04-01".to_owned(), 24)], "one of them has 23 hours");
    }

    #[test]
    fn shares_are_between_nothing_and_all() {
        for text in ["5%", "0.1 %", "100%"] {
            assert!(text.parse::<Sample>().is_ok(), "{text}");
        }
        for text in ["0%", "5", "101%", "-1%", "a%", "NaN%"] {
            assert!(text.parse::<Sample>().is_err(), "{text}");
        }
    }
}
