//! The hours of one date, in local time.

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan;
use jiff::civil::Date;

use super::{Interval, Session, Zone};
use crate::error::{Error, Result};

/// How many stretches the hours of a date may have. Markets have at most three; more would be data rather than a calendar.
const MAX_STRETCHES: usize = 24;
const DAY_MINUTES: i32 = 24 * 60;

/// When something is open on one date, in local time: stretches in order and disjoint; none if it is closed all day.
///
/// Written, they are `closed`, `09:30-16:00`, or with breaks `09:30-12:00 13:00-16:00`. A stretch that ends before it begins goes past
/// midnight: `22:00-05:00`. A time with `<` before it is on the day before: `<17:00-16:00` is the session of a date that opens on the evening
/// before it.
///
/// ```
/// use repair_core::model::Hours;
///
/// let hours: Hours = "<17:00-16:00".parse()?;
/// let session = hours.session("2024-03-11".parse()?, &"America/Chicago".parse()?)?.ok_or("closed")?;
/// assert_eq!(session.hours.to_string(), "2024-03-10T22:00:00Z to 2024-03-11T21:00:00Z");
/// assert!("closed".parse::<Hours>()?.is_closed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hours(Vec<(i32, i32)>);

impl Hours {
    /// Closed all day.
    pub const CLOSED: Self = Self(Vec::new());

    /// Whether it is closed all day.
    pub fn is_closed(&self) -> bool {
        self.0.is_empty()
    }

    /// The session of a date with these hours; `None` if it is closed all day, or if the clock skips all of them.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn session(&self, date: Date, zone: &Zone) -> Result<Option<Session>> {
        let mut open: Vec<Interval> = Vec::with_capacity(self.0.len());
        for &(from, to) in &self.0 {
            let (from, to) = (instant(date, from, zone)?, instant(date, to, zone)?);
            // A stretch within the hour that a clock skips in spring has no length.
            open.extend(Interval::new(from, to));
        }
        let (Some(first), Some(last)) = (open.first(), open.last()) else { return Ok(None) };
        let breaks = open.windows(2).filter_map(|pair| Interval::new(pair[0].to(), pair[1].from()).ok()).collect();
        Ok(Some(Session { date, hours: first.hull(last), breaks }))
    }

    /// Whether these hours go on when those of the next date have begun.
    pub fn overlap(&self, next: &Self) -> bool {
        let (Some((_, end)), Some((begin, _))) = (self.0.last(), next.0.first()) else { return false };
        *end > begin + DAY_MINUTES
    }
}

/// An instant by the minutes since the midnight with which a date begins, as the clock shows them.
fn instant(date: Date, minutes: i32, zone: &Zone) -> Result<jiff::Timestamp> {
    let too_far = |error| Error::invalid(format!("{date} is out of range")).because(error);
    let day = date.checked_add(minutes.div_euclid(DAY_MINUTES).days()).map_err(too_far)?;
    let minutes = minutes.rem_euclid(DAY_MINUTES);
    let hour = i8::try_from(minutes / 60).unwrap_or(0);
    let minute = i8::try_from(minutes % 60).unwrap_or(0);
    zone.start(day.at(hour, minute, 0, 0))
}

impl FromStr for Hours {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.trim() == "closed" {
            return Ok(Self::CLOSED);
        }
        let wrong = |why: &str| Error::invalid(format!("`{text}` {why}"));
        let mut stretches: Vec<(i32, i32)> = Vec::new();
        for stretch in text.split_whitespace() {
            let bounds = stretch.split_once('-').and_then(|(from, to)| Some((time(from, false)?, time(to, true)?)));
            let Some((from, mut to)) = bounds else {
                return Err(wrong("is neither `closed` nor hours in order, such as `09:30-12:00 13:00-16:00`"));
            };
            if to <= from {
                to += DAY_MINUTES;
            }
            match stretches.last() {
                Some((_, end)) if *end == from => return Err(wrong("has two stretches without a break between them; write them as one")),
                Some((_, end)) if *end > from => return Err(wrong("has stretches that are not in order")),
                _ => stretches.push((from, to)),
            }
        }
        let lasts = stretches.first().zip(stretches.last()).map_or(0, |((from, _), (_, to))| to - from);
        match stretches.len() {
            0 => Err(wrong("holds no hours; write e.g. `09:30-16:00`, or `closed`")),
            MAX_STRETCHES.. => Err(wrong("has too many stretches")),
            _ if lasts > DAY_MINUTES => Err(wrong("is longer than a day")),
            _ => Ok(Self(stretches)),
        }
    }
}

/// A time in minutes since midnight: `09:30`, `<17:00` on the day before, and at the end of a stretch also `24:00`.
fn time(text: &str, end: bool) -> Option<i32> {
    let (text, day_before) = text.strip_prefix('<').map_or((text, 0), |rest| (rest, -DAY_MINUTES));
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<i32>().ok())?;
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    let fits = hour < 24 && minute < 60 || end && (hour, minute) == (24, 0);
    fits.then_some(hour * 60 + minute + day_before)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_closed() {
            return f.write_str("closed");
        }
        let time = |minutes: i32| {
            let before = if minutes < 0 { "<" } else { "" };
            let minutes = minutes.rem_euclid(DAY_MINUTES);
            format!("{before}{:02}:{:02}", minutes / 60, minutes % 60)
        };
        for (index, &(from, to)) in self.0.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            let to = if to == DAY_MINUTES { "24:00".to_owned() } else { time(to) };
            write!(f, "{space}{}-{to}", time(from))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Hours {
        text.parse().unwrap()
    }

    fn open(text: &str, date: &str, zone: &str) -> Vec<String> {
        let session = hours(text).session(date.parse().unwrap(), &zone.parse().unwrap()).unwrap();
        session.map(|session| session.open().iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn hours_print_as_they_are_written() {
        for text in ["closed", "09:30-16:00", "09:00-11:30 12:30-15:00", "00:00-24:00", "22:00-05:00", "<17:00-15:15 15:30-16:00"] {
            assert_eq!(hours(text).to_string(), text);
        }
        assert_eq!(hours("<17:00-<23:00").to_string(), "<17:00-<23:00");
    }

    #[test]
    fn what_are_no_hours_is_refused() {
        let odd = [
            ("", "no hours"),
            ("09:30", "nor hours"),
            ("9:30-16:00", "nor hours"),
            ("09:30-24:01", "nor hours"),
            ("24:00-09:00", "nor hours"),
            ("12:30-15:00 09:00-11:30", "not in order"),
            ("09:00-12:00 12:00-15:00", "write them as one"),
            ("<17:00-17:00 17:30-18:00", "longer than a day"),
        ];
        for (text, why) in odd {
            let refused = text.parse::<Hours>().unwrap_err();
            assert!(refused.message().contains(why), "{text}: {}", refused.message());
        }
    }

    #[test]
    fn stretches_follow_the_clock_and_may_pass_midnight() {
        // The night in which New York's clock is set forward is an hour shorter.
        assert_eq!(open("22:00-05:00", "2024-03-09", "America/New_York"), ["2024-03-10T03:00:00Z to 2024-03-10T09:00:00Z"]);
        assert_eq!(open("00:00-24:00", "2024-11-03", "America/New_York"), ["2024-11-03T04:00:00Z to 2024-11-04T05:00:00Z"]);
        assert_eq!(open("02:00-03:00", "2024-03-10", "America/New_York"), [""; 0], "the clock skips this hour");
        assert!(hours("22:00-05:00").overlap(&hours("04:00-06:00")) && !hours("22:00-05:00").overlap(&hours("05:00-06:00")));
    }
}
