//! Time zones: what a local clock shows, and which instant it means.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A time zone: a name of the IANA database, such as `Europe/Berlin`, or a fixed offset, such as `+02:00`.
///
/// ```
/// use repair_core::model::Zone;
///
/// let zone: Zone = "Europe/Berlin".parse()?;
/// let day = zone.day("2024-10-27".parse()?)?;
/// assert_eq!(day.to().duration_since(day.from()).as_hours(), 25);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

/// The instants that a local time may mean, in microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instants {
    /// The clock shows this time once.
    One(i64),
    /// The clock shows this time twice, because it is set back: the earlier instant, and the later one.
    Two(i64, i64),
    /// The clock never shows this time, because it is set forward. The instant is the one that it would be without the change.
    None(i64),
}

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// Its name, as it was written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its clock always shows UTC.
    pub fn is_utc(&self) -> bool {
        self.zone == TimeZone::UTC || self.zone.to_fixed_offset().is_ok_and(Offset::is_zero)
    }

    /// The zone, for arithmetic.
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }

    /// What the clock shows at an instant.
    pub fn local(&self, instant: Timestamp) -> DateTime {
        self.zone.to_datetime(instant)
    }

    /// The instants that a local time may mean; `None` at the ends of the range of instants.
    pub fn instants(&self, local: DateTime) -> Option<Instants> {
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        let at = |offset: Offset| offset.to_timestamp(local).ok().map(floor_us);
        Some(match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => Instants::One(at(offset)?),
            AmbiguousOffset::Fold { before, after } => Instants::Two(at(before)?, at(after)?),
            AmbiguousOffset::Gap { before, .. } => Instants::None(at(before)?),
        })
    }

    /// The first instant of a local time: the earlier one of two, and for a time that the clock skips, the instant at which it does.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn start(&self, local: DateTime) -> Result<Timestamp> {
        let too_far = || Error::invalid(format!("{local} in {} is outside the range of instants", self.name));
        let instant = match self.instants(local).ok_or_else(too_far)? {
            Instants::One(us) | Instants::Two(us, _) => us,
            Instants::None(us) => {
                // The change lies at or before this instant.
                let after = Timestamp::from_microsecond(us).map_err(|_| too_far())?;
                return Ok(self.zone.preceding(after + 1.nanosecond()).next().map_or(after, |change| change.timestamp()));
            }
        };
        Timestamp::from_microsecond(instant).map_err(|_| too_far())
    }

    /// The first instant of a local time, as times of tables are read with `skipped: shift`: one that the clock skips is as much later as it skips,
    /// so where it goes from two to three, half past two is half past three.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub(crate) fn shifted(&self, local: DateTime) -> Result<Timestamp> {
        let instant = self.instants(local).and_then(|instants| match instants {
            Instants::One(us) | Instants::Two(us, _) | Instants::None(us) => Timestamp::from_microsecond(us).ok(),
        });
        instant.ok_or_else(|| Error::invalid(format!("{local} in {} is outside the range of instants", self.name)))
    }

    /// A day, from its first instant to that of the next.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn day(&self, date: Date) -> Result<super::Interval> {
        let next = date.tomorrow().map_err(|_| Error::invalid(format!("{date} has no next day")))?;
        super::Interval::new(self.start(date.at(0, 0, 0, 0))?, self.start(next.at(0, 0, 0, 0))?)
    }

    /// Whether a time of day, in seconds since midnight, came twice on some day from 2000 to 2040, because the clock went back over it.
    pub(crate) fn repeats(&self, time_s: u32) -> bool {
        const DAY_S: i64 = 86_400;
        let (from, to) = (Timestamp::constant(946_684_800, 0), Timestamp::constant(2_208_988_800, 0));
        let changes = self.changes(from, to);
        changes.windows(2).any(|pair| match pair {
            [(_, before), (change_s, after)] if after < before => {
                let since = (i64::from(time_s) - (change_s + i64::from(*after))).rem_euclid(DAY_S);
                since < i64::from(before - after)
            }
            _ => false,
        })
    }

    /// The changes of the clock in a stretch of time: the instant in seconds since the epoch, and the offset from UTC in seconds that holds
    /// from it on. The first entry holds at the start of the stretch.
    pub fn changes(&self, from: Timestamp, to: Timestamp) -> Vec<(i64, i32)> {
        let mut all = vec![(from.as_second(), self.zone.to_offset(from).seconds())];
        all.extend(
            self.zone
                .following(from)
                .take_while(|change| change.timestamp() < to)
                .map(|change| (change.timestamp().as_second(), change.offset().seconds())),
        );
        all.dedup_by_key(|(_, offset)| *offset);
        all
    }
}

fn floor_us(instant: Timestamp) -> i64 {
    let us = instant.as_microsecond();
    us - i64::from(instant.as_nanosecond() < i128::from(us) * 1_000)
}

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl FromStr for Zone {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fixed = |text: &str| -> Option<TimeZone> {
            let sign = match text.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = text[1..].split_once(':')?;
            if hours.len() != 2 || minutes.len() != 2 {
                return None;
            }
            let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
            // No clock was ever farther from UTC than 15:57 (Manila, before 1844).
            let seconds = (minutes < 60 && hours < 16).then_some(sign * (hours * 3_600 + minutes * 60))?;
            Some(TimeZone::fixed(Offset::from_seconds(seconds).ok()?))
        };
        let zone =
            if ["UTC", "Z", "Etc/UTC"].contains(&text) { Some(TimeZone::UTC) } else { fixed(text).or_else(|| TimeZone::get(text).ok()) };
        match zone {
            Some(zone) => Ok(Self { name: text.to_owned(), zone }),
            None => Err(Error::invalid(format!(
                "there is no time zone `{text}`; write a name such as Europe/Berlin or America/New_York, or an offset such as +02:00"
            ))),
        }
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

/// Converts local times to instants, and remembers the offset of the last one: rows of a table mostly lie in the same half of a year.
#[derive(Debug, Clone)]
pub struct LocalClock {
    zone: Zone,
    /// Local times in seconds since the epoch, `from <= time < to`, at which the clock has one offset.
    from_s: i64,
    to_s: i64,
    offset_s: i64,
}

/// Within this time of a change of the clock, each time is looked up.
const NEAR_S: i64 = 86_400;

impl LocalClock {
    /// A clock of a zone.
    pub fn new(zone: Zone) -> Self {
        Self { zone, from_s: 0, to_s: 0, offset_s: 0 }
    }

    /// The instants that a local time may mean. `local_us` counts microseconds from 1970-01-01 00:00 on the clock. `None` at the ends of
    /// the range of instants.
    pub fn instants(&mut self, local_us: i64) -> Option<Instants> {
        let local_s = local_us.div_euclid(1_000_000);
        if self.from_s <= local_s && local_s < self.to_s {
            return Some(Instants::One(local_us - self.offset_s * 1_000_000));
        }
        let local = TimeZone::UTC.to_datetime(Timestamp::from_microsecond(local_us).ok()?);
        let found = self.zone.instants(local)?;
        if let Instants::One(us) = found {
            let instant = Timestamp::from_microsecond(us).ok()?;
            let offset_s = i64::from(self.zone.zone.to_offset(instant).seconds());
            let change = |at: Option<Timestamp>, without: i64| at.map_or(without, |at| at.as_second() + offset_s);
            let before = self.zone.zone.preceding(instant + 1.nanosecond()).next().map(|change| change.timestamp());
            let after = self.zone.zone.following(instant).next().map(|change| change.timestamp());
            self.from_s = change(before, Timestamp::MIN.as_second()) + NEAR_S;
            self.to_s = change(after, Timestamp::MAX.as_second()) - NEAR_S;
            self.offset_s = offset_s;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zones_have_names_or_offsets() {
        for good in ["Europe/Berlin", "America/New_York", "UTC", "+02:00", "-09:30", "Asia/Kathmandu"] {
            assert_eq!(good.parse::<Zone>().unwrap().to_string(), good);
        }
        for bad in ["Mars/Olympus", "", "+2", "CEST?", "+25:99", "+02:60", "+16:00", "-25:00"] {
            assert!(bad.parse::<Zone>().is_err(), "{bad}");
        }
        assert!("+00:00".parse::<Zone>().unwrap().is_utc());
    }

    #[test]
    fn a_doubled_and_a_missing_hour_are_seen() {
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let at = |text: &str| floor_us(text.parse::<Timestamp>().unwrap());
        let local = |text: &str| text.parse::<DateTime>().unwrap();
        let (one, two) = (at("2024-10-27T00:30:00Z"), at("2024-10-27T01:30:00Z"));
        assert_eq!(zone.instants(local("2024-10-27T02:30")), Some(Instants::Two(one, two)));
        assert_eq!(zone.instants(local("2024-03-31T02:30")), Some(Instants::None(at("2024-03-31T01:30:00Z"))));
        assert_eq!(zone.start(local("2024-03-31T02:30")).unwrap(), "2024-03-31T01:00:00Z".parse().unwrap());
        // In some zones a day begins at one o'clock.
        let santiago: Zone = "America/Santiago".parse().unwrap();
        assert_eq!(santiago.day("2024-09-08".parse().unwrap()).unwrap().from(), "2024-09-08T04:00:00Z".parse().unwrap());
    }

    proptest! {
        #[test]
        fn a_clock_agrees_with_its_zone(
            zone in proptest::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "+05:30", "America/Sao_Paulo"]),
            times in proptest::collection::vec(-1_000_000_000_000_000i64..4_000_000_000_000_000, 1..40),
        ) {
            let zone: Zone = zone.parse().unwrap();
            let mut clock = LocalClock::new(zone.clone());
            for us in times {
                for us in [us, us + 1, us + 3_600_000_000] {
                    let local = TimeZone::UTC.to_datetime(Timestamp::from_microsecond(us).unwrap());
                    prop_assert_eq!(clock.instants(us), zone.instants(local));
                }
            }
        }
    }
}
