//! Moments as people write them: a date, an instant, or relative to a run's now, such as `yesterday` or `now - 7d`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};

use crate::error::{Error, Result};
use crate::model::Zone;

/// How far from now a relative moment may be, in days: a hundred years. More is a typing error.
const MOST_DAYS: i64 = 36_500;
const DAY_S: i64 = 86_400;

/// A moment as people write it.
///
/// ```
/// use repair_core::model::{Fixed, Moment, Zone};
///
/// let berlin: Zone = "Europe/Berlin".parse()?;
/// let now = "2024-03-31T22:30:00Z".parse()?; // already April in Berlin
/// let fixed = |text: &str| Ok::<_, repair_core::Error>(text.parse::<Moment>()?.fixed(&berlin, now)?.to_string());
/// assert_eq!(fixed("today")?, "2024-04-01");
/// assert_eq!(fixed("startof(month) - 1d")?, "2024-03-31");
/// assert_eq!(fixed("now - 90m")?, "2024-03-31T21:00:00Z");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// It does not depend on now.
    Fixed(Fixed),
    /// It does.
    Relative(Relative),
}

/// A moment that does not depend on now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// A day, in whichever zone it is used.
    Date(Date),
    /// An instant.
    Instant(Timestamp),
}

/// A moment that is counted from now. Its text is in its normal form: `now - 7d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relative {
    base: Base,
    /// Whole days of the calendar, in which the clock may be set.
    days: i64,
    /// Time that passes, in seconds.
    seconds: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Now,
    Today,
    Yesterday,
    Day,
    Week,
    Month,
    Year,
}

impl Base {
    const ALL: [(&'static str, Base); 7] = [
        ("now", Self::Now),
        ("today", Self::Today),
        ("yesterday", Self::Yesterday),
        ("startof(day)", Self::Day),
        ("startof(week)", Self::Week),
        ("startof(month)", Self::Month),
        ("startof(year)", Self::Year),
    ];

    /// The day that it names; none for now itself.
    fn date(self, today: Date) -> Result<Option<Date>> {
        let too_far = |error: jiff::Error| Error::invalid("the day is outside the range of dates").because(error);
        Ok(match self {
            Self::Now => None,
            Self::Today | Self::Day => Some(today),
            Self::Yesterday => Some(today.yesterday().map_err(too_far)?),
            Self::Week => {
                let since_monday = i64::from(today.weekday().to_monday_zero_offset());
                Some(today.checked_sub(since_monday.days()).map_err(too_far)?)
            }
            Self::Month => Some(today.first_of_month()),
            Self::Year => Some(today.first_of_year()),
        })
    }
}

impl Moment {
    /// Whether it depends on now.
    pub fn is_relative(&self) -> bool {
        matches!(self, Self::Relative(_))
    }

    /// The date or instant that it is in a zone, at a given now. `today`, `yesterday` and `startof(…)` are dates, and stay dates when whole
    /// days are added; everything else is an instant. Days are those of the calendar: `now - 1d` is the same time of day in the zone. Hours,
    /// minutes and seconds are time that passes.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of dates.
    pub fn fixed(&self, zone: &Zone, now: Timestamp) -> Result<Fixed> {
        let Relative { base, days, seconds } = match self {
            Self::Fixed(fixed) => return Ok(*fixed),
            Self::Relative(relative) => relative,
        };
        let too_far = |error: jiff::Error| Error::invalid(format!("`{self}` is outside the range of dates")).because(error);
        let instant = match base.date(zone.local(now).date())? {
            Some(date) => {
                let date = date.checked_add(days.days()).map_err(too_far)?;
                if *seconds == 0 {
                    return Ok(Fixed::Date(date));
                }
                zone.start(date.at(0, 0, 0, 0))?
            }
            None if *days == 0 => now,
            None => {
                let local = zone.local(now).checked_add(days.days()).map_err(too_far)?;
                zone.start(local)?
            }
        };
        Ok(Fixed::Instant(instant.checked_add(seconds.seconds()).map_err(too_far)?))
    }
}

impl Fixed {
    /// The day, of a zone, in which it lies.
    pub fn date(self, zone: &Zone) -> Date {
        match self {
            Self::Date(date) => date,
            Self::Instant(instant) => zone.local(instant).date(),
        }
    }

    /// Its first instant, if it is a day of a zone.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn start(self, zone: &Zone) -> Result<Timestamp> {
        match self {
            Self::Date(date) => zone.start(date.at(0, 0, 0, 0)),
            Self::Instant(instant) => Ok(instant),
        }
    }

    /// The first instant after it, if it is a day of a zone; the instant itself otherwise.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn end(self, zone: &Zone) -> Result<Timestamp> {
        match self {
            Self::Date(date) => {
                let next = date.tomorrow().map_err(|error| Error::invalid(format!("{date} is out of range")).because(error))?;
                zone.start(next.at(0, 0, 0, 0))
            }
            Self::Instant(instant) => Ok(instant),
        }
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date(date) => write!(f, "{date}"),
            Self::Instant(instant) => write!(f, "{instant}"),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Relative { base, days, seconds } = match self {
            Self::Fixed(fixed) => return fixed.fmt(f),
            Self::Relative(relative) => relative,
        };
        f.write_str(Base::ALL.iter().find(|(_, known)| known == base).map_or("now", |(word, _)| word))?;
        if *days != 0 {
            write!(f, " {} {}d", if *days < 0 { '-' } else { '+' }, days.unsigned_abs())?;
        }
        if *seconds != 0 {
            let (sign, size) = (if *seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs());
            match (size % 3_600, size % 60) {
                (0, _) => write!(f, " {sign} {}h", size / 3_600)?,
                (_, 0) => write!(f, " {sign} {}m", size / 60)?,
                _ => write!(f, " {sign} {size}s")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Moment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Ok(Self::Fixed(Fixed::Instant(instant)));
        }
        // `Date` would read a date-time without a zone, and silently drop its time.
        if let Some(date) = Some(text).filter(|text| text.len() <= 10).and_then(|text| text.parse::<Date>().ok()) {
            return Ok(Self::Fixed(Fixed::Date(date)));
        }
        let compact: String = text.chars().filter(|c| *c != ' ').collect();
        relative(&compact).map(Self::Relative).ok_or_else(|| {
            let shown: String = text.chars().take(60).collect();
            Error::invalid(format!(
                "`{shown}` is neither a date (2024-03-04), nor an instant with its zone (2024-03-04T14:30:00Z), nor relative to the run's now: \
                 now, today, yesterday or startof(day|week|month|year), plus or minus durations of d, h, m or s, such as `now - 7d`"
            ))
        })
    }
}

/// Reads a relative moment that is written without spaces.
fn relative(text: &str) -> Option<Relative> {
    let end = text.find(['+', '-']).unwrap_or(text.len());
    let (word, mut rest) = text.split_at(end);
    let base = Base::ALL.iter().find(|(known, _)| *known == word).map(|(_, base)| *base)?;
    let (mut days, mut seconds) = (0i64, 0i64);
    while let Some(sign) = rest.chars().next() {
        let sign = match sign {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-']).map_or(rest.len(), |end| end + 1);
        let (mut amount, after) = (&rest[1..end], &rest[end..]);
        if amount.is_empty() {
            return None;
        }
        while !amount.is_empty() {
            let (number, more) = amount.split_at(amount.find(|c: char| !c.is_ascii_digit())?);
            let (unit, more) = more.split_at(more.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(more.len()));
            let number = sign * number.parse::<i64>().ok().filter(|number| *number <= MOST_DAYS * DAY_S)?;
            match unit {
                "d" => days += number,
                "h" => seconds += number * 3_600,
                "m" | "min" => seconds += number * 60,
                "s" => seconds += number,
                _ => return None,
            }
            amount = more;
        }
        rest = after;
    }
    (days.abs() <= MOST_DAYS && seconds.abs() <= MOST_DAYS * DAY_S).then_some(Relative { base, days, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(text: &str, zone: &str, now: &str) -> String {
        text.parse::<Moment>().unwrap().fixed(&zone.parse().unwrap(), now.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn relative_moments_are_days_and_instants_of_a_zone() {
        let now = "2024-03-04T23:30:12Z"; // Tuesday, 00:30 in Berlin
        for (text, in_utc, in_berlin) in [
            ("now", "2024-03-04T23:30:12Z", "2024-03-04T23:30:12Z"),
            ("today", "2024-03-04", "2024-03-05"),
            ("yesterday", "2024-03-03", "2024-03-04"),
            ("today - 1d", "2024-03-03", "2024-03-04"),
            ("today-1d+1d", "2024-03-04", "2024-03-05"),
            ("now - 7d", "2024-02-26T23:30:12Z", "2024-02-26T23:30:12Z"),
            ("now - 1d12h", "2024-03-03T11:30:12Z", "2024-03-03T11:30:12Z"),
            ("today - 6h", "2024-03-03T18:00:00Z", "2024-03-04T17:00:00Z"),
            ("startof(day)", "2024-03-04", "2024-03-05"),
            ("startof(week)", "2024-03-04", "2024-03-04"),
            ("startof(month) - 1d", "2024-02-29", "2024-02-29"),
            ("startof( year ) + 90 m", "2024-01-01T01:30:00Z", "2024-01-01T00:30:00Z"),
            ("2024-03-04", "2024-03-04", "2024-03-04"),
            ("2024-03-04T00:00:00+01:00", "2024-03-03T23:00:00Z", "2024-03-03T23:00:00Z"),
        ] {
            assert_eq!((fixed(text, "UTC", now), fixed(text, "Europe/Berlin", now)), (in_utc.into(), in_berlin.into()), "{text}");
        }
    }

    #[test]
    fn days_are_days_of_the_calendar_and_hours_pass() {
        // The clock was set forward in the night of 2024-03-31.
        let noon = "2024-04-01T10:00:00Z";
        assert_eq!(fixed("now - 1d", "Europe/Berlin", noon), "2024-03-31T10:00:00Z");
        assert_eq!(fixed("now - 2d", "Europe/Berlin", noon), "2024-03-30T11:00:00Z");
        assert_eq!(fixed("now - 48h", "Europe/Berlin", noon), "2024-03-30T10:00:00Z");
    }

    #[test]
    fn the_normal_form_means_the_same() {
        for text in ["now", "now - 7d", "yesterday + 90m", "startof(week) - 1d + 61s", "today - 3h", "2024-03-04", "2024-03-04T00:00:00Z"] {
            let moment = text.parse::<Moment>().unwrap();
            assert_eq!((moment.to_string(), moment.to_string().parse().unwrap()), (text.to_owned(), moment), "{text}");
        }
        assert_eq!("now-90m-1h30m".parse::<Moment>().unwrap().to_string(), "now - 3h");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "soon",
            "now -",
            "now - 7",
            "now - 7w",
            "now 7d",
            "now - -7d",
            "- 7d",
            "startof(hour)",
            "startof",
            "Today",
            "2024-03-04 - 1d",
            "2024-03-04T14:30:00",
            "now - 99999999999999999999d",
            "now - 40000d",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
