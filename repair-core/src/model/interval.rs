//! Intervals: stretches of time that are never empty and never backwards.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Fixed, Moment, Zone};

/// A half-open stretch of time, `[from, to)`, which is never empty.
///
/// ```
/// use repair_core::model::Interval;
/// let morning = Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T12:00:00Z")?;
/// assert!(morning.contains("2024-03-04T09:00:00Z".parse()?));
/// assert!(!morning.contains("2024-03-04T12:00:00Z".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RawInterval")]
pub struct Interval {
    from: Timestamp,
    to: Timestamp,
}

#[derive(Deserialize)]
struct RawInterval {
    from: Timestamp,
    to: Timestamp,
}

impl TryFrom<RawInterval> for Interval {
    type Error = Error;

    fn try_from(raw: RawInterval) -> Result<Self> {
        Self::new(raw.from, raw.to)
    }
}

impl Interval {
    /// The stretch from `from` up to, not including, `to`.
    ///
    /// # Errors
    /// `invalid` if `to` is not after `from`.
    pub fn new(from: Timestamp, to: Timestamp) -> Result<Self> {
        if from < to {
            Ok(Self { from, to })
        } else {
            Err(Error::invalid(format!("an interval must end after it begins, but {to} is not after {from}")))
        }
    }

    /// Reads bounds as people write them: an instant (`2024-03-04T14:30:00Z`), or a date, which means the whole UTC day. So
    /// `parse("2024-03-04", "2024-03-05")` is two days, whereas an instant as `to` is not included.
    ///
    /// # Errors
    /// `invalid` if a bound is neither of the two, or if the interval would be empty.
    pub fn parse(from: &str, to: &str) -> Result<Self> {
        Self::parse_in(from, to, &Zone::utc())
    }

    /// As [`Interval::parse`], with dates that mean days of a zone.
    ///
    /// ```
    /// use repair_core::model::Interval;
    ///
    /// let longest = Interval::parse_in("2024-10-27", "2024-10-27", &"Europe/Berlin".parse()?)?;
    /// assert_eq!(longest.to().duration_since(longest.from()).as_hours(), 25);
    /// # Ok::<(), repair_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Interval::parse`].
    pub fn parse_in(from: &str, to: &str, zone: &Zone) -> Result<Self> {
        Self::between(
            from,
            to,
            |text| match text.parse()? {
                Moment::Fixed(fixed) => Ok(fixed),
                Moment::Relative(_) => Err(Error::invalid(format!(
                    "`{text}` depends on a run's now, and there is none here; give a date (2024-03-04), or an instant with its zone \
                 (2024-03-04T14:30:00Z)"
                ))),
            },
            zone,
        )
    }

    /// As [`Interval::parse_in`], with bounds that may also be relative to a run's now, such as `yesterday` or `now - 7d`. A bound that is a
    /// day then, such as `today`, is a whole day as `to`.
    ///
    /// ```
    /// use repair_core::model::Interval;
    ///
    /// let now = "2024-03-31T22:30:00Z".parse()?; // already April in Berlin
    /// let yesterday = Interval::parse_at("yesterday", "yesterday", &"Europe/Berlin".parse()?, now)?;
    /// assert_eq!(yesterday.to_string(), "2024-03-30T23:00:00Z to 2024-03-31T22:00:00Z");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Interval::parse`].
    pub fn parse_at(from: &str, to: &str, zone: &Zone, now: Timestamp) -> Result<Self> {
        Self::between(from, to, |text| text.parse::<Moment>()?.fixed(zone, now), zone)
    }

    /// Checks bounds as far as that is possible without knowing now: that they can be read and, unless one is relative, that the interval is
    /// not empty.
    ///
    /// # Errors
    /// As [`Interval::parse`].
    pub fn check(from: &str, to: &str) -> Result<()> {
        let (first, last) = (from.parse::<Moment>()?, to.parse::<Moment>()?);
        if first.is_relative() || last.is_relative() { Ok(()) } else { Self::parse(from, to).map(drop) }
    }

    fn between(from: &str, to: &str, fixed: impl Fn(&str) -> Result<Fixed>, zone: &Zone) -> Result<Self> {
        let (first, last) = (fixed(from)?, fixed(to)?);
        Self::new(first.start(zone)?, last.end(zone)?).map_err(|_| {
            let shown = |text: &str, fixed: Fixed| {
                let is = fixed.to_string();
                if text == is || text.parse::<Moment>().is_ok_and(|moment| !moment.is_relative()) {
                    text.to_owned()
                } else {
                    format!("{text} ({is})")
                }
            };
            let included = if matches!(last, Fixed::Date(_)) { "" } else { ", which is not included," };
            let (from, to) = (shown(from, first), shown(to, last));
            Error::invalid(format!("the interval from {from} to {to}{included} is empty; give a later `to`, or swap the two"))
        })
    }

    /// The first instant.
    pub fn from(&self) -> Timestamp {
        self.from
    }

    /// The first instant after the interval.
    pub fn to(&self) -> Timestamp {
        self.to
    }

    /// Whether an instant lies within the interval.
    pub fn contains(&self, instant: Timestamp) -> bool {
        self.from <= instant && instant < self.to
    }

    /// The overlap of both, if there is one.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::new(self.from.max(other.from), self.to.min(other.to)).ok()
    }

    /// Whether every instant of `other` lies within the interval.
    pub fn covers(&self, other: &Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }

    /// The smallest interval that holds both.
    #[must_use]
    pub fn hull(&self, other: &Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    /// The first and the last UTC date that it touches.
    pub fn dates(&self) -> (Date, Date) {
        let last = self.to.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap_or(self.from);
        (utc_date(self.from), utc_date(last))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// The UTC date of an instant.
pub fn utc_date(instant: Timestamp) -> Date {
    instant.to_zoned_datetime(TimeZone::UTC).date()
}

/// The instant at which a UTC day begins.
///
/// # Errors
/// `invalid` for the first and last dates that [`Date`] can hold, which have no instant.
pub fn day_start(date: Date) -> Result<Timestamp> {
    date.to_zoned_datetime(TimeZone::UTC)
        .map(|zoned| zoned.timestamp())
        .map_err(|error| Error::invalid(format!("{date} is out of range")).because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_whole_days_and_instants_are_exact() {
        let days = Interval::parse("2018-04-04", "2018-04-05").unwrap();
        assert_eq!(days.to_string(), "2018-04-04T00:00:00Z to 2018-04-06T00:00:00Z");
        assert_eq!(days.dates(), ("2018-04-04".parse().unwrap(), "2018-04-05".parse().unwrap()));
        let exact = Interval::parse("2018-04-04T01:00:00Z", "2018-04-04T02:00:00Z").unwrap();
        assert_eq!(exact.dates().0, exact.dates().1);
    }

    #[test]
    fn an_empty_interval_is_reported_with_its_bounds_as_given() {
        let days = Interval::parse("2024-03-05", "2024-03-04").unwrap_err();
        assert!(days.message().contains("from 2024-03-05 to 2024-03-04 is empty"), "{days}");
        let instants = Interval::parse("2024-03-04", "2024-03-04T00:00:00Z").unwrap_err();
        assert!(instants.message().contains("from 2024-03-04 to 2024-03-04T00:00:00Z, which is not included, is"), "{instants}");
    }

    #[test]
    fn bounds_may_be_relative_where_there_is_a_now() {
        let (zone, now) = ("America/New_York".parse().unwrap(), "2024-11-04T02:00:00Z".parse().unwrap());
        let parse = |from, to| Interval::parse_at(from, to, &zone, now).map(|interval| interval.to_string());
        // Sunday in New York, a day of 25 hours.
        assert_eq!(parse("today", "today").unwrap(), "2024-11-03T04:00:00Z to 2024-11-04T05:00:00Z");
        assert_eq!(parse("now - 1d", "now").unwrap(), "2024-11-03T01:00:00Z to 2024-11-04T02:00:00Z");
        assert_eq!(parse("startof(month)", "yesterday").unwrap(), "2024-11-01T04:00:00Z to 2024-11-03T04:00:00Z");
        let empty = parse("today", "yesterday").unwrap_err();
        assert!(empty.message().contains("from today (2024-11-03) to yesterday (2024-11-02) is empty"), "{empty}");
        assert!(Interval::parse("yesterday", "today").unwrap_err().message().contains("depends on a run's now"));
        assert!(Interval::check("today", "yesterday").is_ok() && Interval::check("2024-03-05", "2024-03-04").is_err());
        assert!(Interval::check("today", "tomorow").is_err());
    }

    #[test]
    fn empty_backwards_and_zoneless_are_refused() {
        for (from, to) in [("2018-04-05", "2018-04-04"), ("2018-04-04T01:00:00Z", "2018-04-04T01:00:00Z"), ("soon", "2018-04-04")] {
            assert!(Interval::parse(from, to).is_err(), "{from} {to}");
        }
        assert!(Interval::parse("2018-04-04T01:00:00", "2018-04-05").unwrap_err().message().contains("with its zone"));
    }
}
