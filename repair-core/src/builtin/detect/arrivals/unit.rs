//! The units in which a table arrives: the stretches of time of its folders, or of a given length. Pure.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Span, ToSpan};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::model::{Cadence, Calendar, Interval, PartitionUnit, Zone};
use crate::workflow::parse_duration;

/// A detection of more units is a mistake, such as a wrong year: so many hours are 27 years.
const MOST_UNITS: usize = 240_000;

const DAY_S: u32 = 86_400;
const HOUR_S: u32 = 3_600;

/// The length of a unit of arrival, on the clock of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Every {
    Year,
    Month,
    /// From Monday on.
    Week,
    Day,
    /// So many seconds, which divide a day, counted from midnight.
    Seconds(u32),
}

impl From<PartitionUnit> for Every {
    fn from(unit: PartitionUnit) -> Self {
        match unit {
            PartitionUnit::Year => Self::Year,
            PartitionUnit::Month => Self::Month,
            PartitionUnit::Day => Self::Day,
            PartitionUnit::Hour => Self::Seconds(HOUR_S),
        }
    }
}

impl FromStr for Every {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::invalid(format!(
                "`{text}` is not a unit of arrival; write `1h`, `1d`, `1w`, `1mo`, `1y`, or another part of a day, such as `15m`"
            ))
        };
        Ok(match text.trim() {
            "1y" => Self::Year,
            "1mo" => Self::Month,
            "1w" | "7d" => Self::Week,
            "1d" | "24h" => Self::Day,
            text => {
                let length = parse_duration(text).map_err(|_| refuse())?;
                let seconds = u32::try_from(length.as_secs()).ok().filter(|&seconds| seconds > 0 && length.subsec_nanos() == 0);
                Self::Seconds(seconds.filter(|&seconds| seconds < DAY_S && DAY_S.is_multiple_of(seconds)).ok_or_else(refuse)?)
            }
        })
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl JsonSchema for Every {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Every".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "The length of a unit of arrival: 1h, 1d, 1w, 1mo, 1y, or another part of a day, such as 15m" })
    }
}

/// In words, for several.
impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Year => f.write_str("years"),
            Self::Month => f.write_str("months"),
            Self::Week => f.write_str("weeks"),
            Self::Day => f.write_str("days"),
            Self::Seconds(HOUR_S) => f.write_str("hours"),
            Self::Seconds(seconds) if seconds.is_multiple_of(HOUR_S) => write!(f, "stretches of {}h", seconds / HOUR_S),
            Self::Seconds(seconds) if seconds.is_multiple_of(60) => write!(f, "stretches of {}m", seconds / 60),
            Self::Seconds(seconds) => write!(f, "stretches of {seconds}s"),
        }
    }
}

impl Every {
    /// The start of the unit in which a local time lies.
    fn floor(self, local: DateTime) -> Option<DateTime> {
        let date = local.date();
        Some(match self {
            Self::Year => date.first_of_year().at(0, 0, 0, 0),
            Self::Month => date.first_of_month().at(0, 0, 0, 0),
            Self::Week => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok()?.at(0, 0, 0, 0),
            Self::Day => date.at(0, 0, 0, 0),
            Self::Seconds(seconds) => {
                let (hour, minute, second) = (i64::from(local.hour()), i64::from(local.minute()), i64::from(local.second()));
                let of_day = hour * 3_600 + minute * 60 + second;
                date.at(0, 0, 0, 0).checked_add((of_day - of_day % i64::from(seconds)).seconds()).ok()?
            }
        })
    }

    /// The start of the next unit.
    fn next(self, start: DateTime) -> Option<DateTime> {
        let length: Span = match self {
            Self::Year => 1.year(),
            Self::Month => 1.month(),
            Self::Week => 1.week(),
            Self::Day => 1.day(),
            Self::Seconds(seconds) => i64::from(seconds).seconds(),
        };
        start.checked_add(length).ok()
    }

    /// The cadence of a series with a row for each unit.
    ///
    /// # Errors
    /// `invalid` if there is none.
    pub(super) fn cadence(self) -> Result<Cadence> {
        match self {
            Self::Year => Ok(Cadence::YEAR),
            Self::Month => Ok(Cadence::MONTH),
            Self::Week => Ok(Cadence::WEEK),
            Self::Day => Ok(Cadence::DAY),
            Self::Seconds(seconds) => Cadence::from_seconds(seconds),
        }
    }

    /// Whether units are dates, which calendars know by name.
    fn is_of_dates(self) -> bool {
        !matches!(self, Self::Seconds(_))
    }

    /// The units that begin within an interval, in order, each to its end.
    ///
    /// # Errors
    /// `invalid` if there are too many, or at the ends of the range of instants.
    pub(super) fn units(self, zone: &Zone, interval: &Interval) -> Result<Vec<Unit>> {
        let out_of_range = || Error::invalid(format!("{interval} reaches beyond the range of dates; correct `from` or `to`"));
        let mut units = Vec::new();
        let mut start = self.floor(zone.local(interval.from())).ok_or_else(out_of_range)?;
        loop {
            let next = self.next(start).ok_or_else(out_of_range)?;
            let (from, to) = (zone.start(start)?, zone.start(next)?);
            if from >= interval.to() {
                return Ok(units);
            }
            // A stretch that the clock skips is empty.
            if let (true, Ok(whole)) = (from >= interval.from(), Interval::new(from, to)) {
                if units.len() >= MOST_UNITS {
                    return Err(Error::invalid(format!("{interval} has more than {MOST_UNITS} {self}; examine fewer at a time")));
                }
                let last = next.checked_sub(1.nanosecond()).map_err(|_| out_of_range())?.date();
                units.push(Unit { start, last, interval: whole, is_again: false });
            }
            start = next;
        }
    }

    /// The same units where no folders are named by the clock: a stretch that comes twice, because the clock goes back over it, is two units.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub(super) fn apart(self, zone: &Zone, units: Vec<Unit>) -> Result<Vec<Unit>> {
        let Self::Seconds(seconds) = self else { return Ok(units) };
        let length = SignedDuration::from_secs(i64::from(seconds));
        let mut all = Vec::with_capacity(units.len());
        for unit in units {
            let (from, to) = (unit.interval.from(), unit.interval.to());
            if to.duration_since(from) <= length || to.duration_since(from).as_secs() % length.as_secs() != 0 {
                all.push(unit);
                continue;
            }
            let mut begin = from;
            while begin < to {
                let end = begin.checked_add(length).map_err(|error| Error::invalid("a unit is out of range").because(error))?;
                let start = zone.local(begin);
                let is_again = zone.start(start)? < begin;
                all.push(Unit { start, last: unit.last, interval: Interval::new(begin, end)?, is_again });
                begin = end;
            }
        }
        Ok(all)
    }

    /// Which of some units a calendar expects. Units of days and longer are expected if a session is known by one of their dates, others if
    /// they overlap the open hours.
    ///
    /// # Errors
    /// `blind` if the calendar does not cover them.
    pub(super) fn expected(self, calendar: &dyn Calendar, units: &[Unit]) -> Result<Vec<bool>> {
        let (Some(first), Some(last)) = (units.first(), units.last()) else { return Ok(Vec::new()) };
        if self.is_of_dates() {
            let mut days = calendar.days(first.start.date(), last.last)?;
            days.sort_unstable();
            let holds = |unit: &Unit| days.get(days.partition_point(|day| *day < unit.start.date())).is_some_and(|day| *day <= unit.last);
            return Ok(units.iter().map(holds).collect());
        }
        let open = calendar.open(&first.interval.hull(&last.interval))?;
        let overlaps = |unit: &Unit| {
            let next = open.get(open.partition_point(|open| open.to() <= unit.interval.from()));
            next.is_some_and(|open| open.from() < unit.interval.to())
        };
        Ok(units.iter().map(overlaps).collect())
    }

    /// The name of a unit, on the clock of its zone.
    pub(super) fn name(self, unit: &Unit) -> String {
        let date = unit.start.date();
        let again = if unit.is_again { ", again" } else { "" };
        match self {
            Self::Year => format!("{:04}", date.year()),
            Self::Month => format!("{:04}-{:02}", date.year(), date.month()),
            Self::Week => format!("the week of {date}"),
            Self::Day => date.to_string(),
            Self::Seconds(seconds) if seconds.is_multiple_of(60) => {
                format!("{date}T{:02}:{:02}{again}", unit.start.hour(), unit.start.minute())
            }
            Self::Seconds(_) => format!("{}{again}", unit.start),
        }
    }
}

/// A unit of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its start on the clock of its zone.
    start: DateTime,
    /// The last date of which it holds a part, on the same clock.
    last: Date,
    /// The time of its rows.
    pub(super) interval: Interval,
    /// Whether it has the same start on the clock as an earlier one, because the clock went back.
    is_again: bool,
}

/// The longest stretch of whole seconds of which a day and all units are multiples, counted from the epoch.
pub(super) fn grain_s(units: &[Unit]) -> u32 {
    let bounds = units.iter().flat_map(|unit| [unit.interval.from(), unit.interval.to()]);
    bounds.fold(DAY_S, |grain, bound| {
        let (mut one, mut other) = (i64::from(grain), bound.as_second().rem_euclid(i64::from(DAY_S)));
        while other != 0 {
            (one, other) = (other, one % other);
        }
        u32::try_from(one).unwrap_or(1)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::Always;

    fn names(every: &str, zone: &str, from: &str, to: &str) -> (Vec<String>, u32) {
        let (every, zone): (Every, Zone) = (every.parse().unwrap(), zone.parse().unwrap());
        let units = every.units(&zone, &Interval::parse_in(from, to, &zone).unwrap()).unwrap();
        let names = units.iter().map(|unit| format!("{} {}", every.name(unit), (unit.interval.to() - unit.interval.from()).as_secs()));
        assert_eq!(every.expected(&Always, &units).unwrap(), vec![true; units.len()]);
        (names.collect(), grain_s(&units))
    }

    #[test]
    fn units_follow_the_clock_of_their_zone() {
        assert_eq!(names("1d", "UTC", "2024-03-04", "2024-03-05"), (vec!["2024-03-04 86400".into(), "2024-03-05 86400".into()], 86_400));
        // The days on which the clock is set are shorter and longer; bounds are whole hours of UTC.
        let berlin = ["2024-03-30 86400", "2024-03-31 82800", "2024-04-01 86400"].map(str::to_owned).to_vec();
        assert_eq!(names("1d", "Europe/Berlin", "2024-03-30", "2024-04-01"), (berlin, 3_600));
        assert_eq!(names("1d", "Asia/Kathmandu", "2024-03-04", "2024-03-04"), (vec!["2024-03-04 86400".into()], 900));
        // The hour that is skipped is no unit, and the doubled one is one unit, as a folder is.
        assert_eq!(names("1h", "Europe/Berlin", "2024-03-31", "2024-03-31").0.len(), 23);
        let autumn = names("1h", "Europe/Berlin", "2024-10-27", "2024-10-27").0;
        assert_eq!((autumn.len(), autumn[2].as_str()), (24, "2024-10-27T02:00 7200"));
        // Where no folder is named by the clock, it is two units.
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let day = |date: &str| Interval::parse_in(date, date, &zone).unwrap();
        for (every, count, repeated) in [("1h", 25, 1), ("15m", 100, 4), ("30s", 3_000, 120), ("2h", 12, 0), ("1d", 1, 0)] {
            let every: Every = every.parse().unwrap();
            let units = every.apart(&zone, every.units(&zone, &day("2024-10-27")).unwrap()).unwrap();
            let names: BTreeSet<String> = units.iter().map(|unit| every.name(unit)).collect();
            assert_eq!((units.len(), names.len()), (count, count), "{every}");
            assert_eq!(names.iter().filter(|name| name.ends_with(", again")).count(), repeated, "{every}");
            assert!(units.windows(2).all(|pair| pair[0].interval.to() == pair[1].interval.from()));
            let spring = every.units(&zone, &day("2024-03-31")).unwrap();
            assert_eq!(every.apart(&zone, spring.clone()).unwrap(), spring, "{every}");
        }
    }

    #[test]
    fn a_unit_belongs_to_the_interval_in_which_it_begins() {
        assert_eq!(names("1mo", "UTC", "2024-01-15", "2024-03-15").0, ["2024-02 2505600", "2024-03 2678400"]);
        assert_eq!(names("1w", "UTC", "2024-03-04", "2024-03-12").0, ["the week of 2024-03-04 604800", "the week of 2024-03-11 604800"]);
        assert_eq!(names("1y", "UTC", "2023-06-01", "2024-06-01").0, ["2024 31622400"]);
        assert_eq!(
            names("6h", "UTC", "2024-03-04T05:00:00Z", "2024-03-04T18:00:00Z").0,
            ["2024-03-04T06:00 21600", "2024-03-04T12:00 21600"]
        );
        assert!(names("1d", "UTC", "2024-03-04T01:00:00Z", "2024-03-04T23:00:00Z").0.is_empty());
        for text in ["7h", "2d", "0s", "1x", "", "500ms"] {
            assert!(text.parse::<Every>().is_err(), "{text}");
        }
    }
}
