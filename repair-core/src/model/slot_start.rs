//! Where slots begin, as a table says it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::model::Cadence;

/// Where slots begin, if not at the round time: `:51` (each hour at 51 minutes), `17:00` (a time of day), `sun 17:00` (a day of the week and a
/// time), `15` (a day of the month) or `04-01` (a day of the year), the last two with or without a time of day.
///
/// ```
/// use repair_core::model::SlotStart;
///
/// assert_eq!("sunday 17:00".parse::<SlotStart>()?.to_string(), "sun 17:00");
/// assert_eq!("0:51".parse::<SlotStart>()?.to_string(), ":51");
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SlotStart {
    /// The month, 1 to 12.
    month: Option<u8>,
    /// The day of the month, 1 to 28.
    day: Option<u8>,
    /// The day of the week; Monday is 0.
    weekday: Option<u8>,
    /// Seconds since midnight, or since the start of the hour.
    time_s: u32,
}

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const LONG_WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl SlotStart {
    /// The month of the year, from 1 to 12.
    pub fn month(self) -> u8 {
        self.month.unwrap_or(1)
    }

    /// The day of the month, from 1 to 28.
    pub fn day(self) -> u8 {
        self.day.unwrap_or(1)
    }

    /// How many days after Monday a week begins.
    pub fn weekday(self) -> u8 {
        self.weekday.unwrap_or(0)
    }

    /// The time of day, in seconds since midnight.
    pub fn time_s(self) -> u32 {
        self.time_s
    }

    pub(crate) fn whole_days(self) -> bool {
        self.time_s == 0
    }

    /// An example of where slots of a cadence may begin, other than where they do by themselves; `None` if they are too short for one.
    pub(crate) fn example(cadence: Cadence) -> Option<Self> {
        let mut all = ["04-01", "15", "sun 17:00", "17:00", ":51", ":02"].into_iter().filter_map(|text| text.parse().ok());
        all.find(|start: &Self| start.check(cadence).is_ok())
    }

    /// Whether it can be where the slots of a cadence begin.
    pub(super) fn check(self, cadence: Cadence) -> Result<()> {
        let Self { month, day, weekday, time_s } = self;
        let refuse = |help: &str| Err(Error::invalid(format!("slots of {cadence} cannot begin at `{self}`; {help}")));
        if !cadence.is_days() {
            return if month.or(day).or(weekday).is_some() || time_s >= cadence.seconds() {
                refuse("`at` is a time within the first slot of a day, in UTC, e.g. `:30` for 1h")
            } else {
                Ok(())
            };
        }
        match cadence.months() {
            Some(1) if month.or(weekday).is_some() => refuse("write a day of the month from 1 to 28, e.g. `15`"),
            Some(1) => Ok(()),
            Some(_) if weekday.is_some() || (day.is_some() && month.is_none()) => refuse("write a month and a day, e.g. `04-01`"),
            Some(_) => Ok(()),
            None if cadence == Cadence::WEEK && month.or(day).is_some() => refuse("write a day of the week, e.g. `sun 17:00`"),
            None if cadence == Cadence::DAY && month.or(day).or(weekday).is_some() => refuse("write a time of day, e.g. `17:00`"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SlotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = true;
        match (self.month, self.day, self.weekday) {
            (Some(month), day, _) => write!(f, "{month:02}-{:02}", day.unwrap_or(1))?,
            (None, Some(day), _) => write!(f, "{day}")?,
            (None, None, Some(weekday)) => f.write_str(WEEKDAYS.get(usize::from(weekday)).copied().unwrap_or_default())?,
            (None, None, None) => before = false,
        }
        if before && self.time_s == 0 {
            return Ok(());
        }
        if before {
            f.write_str(" ")?;
        }
        let (hours, minutes, seconds) = (self.time_s / 3_600, self.time_s / 60 % 60, self.time_s % 60);
        if hours > 0 || before {
            write!(f, "{hours:02}")?;
        }
        write!(f, ":{minutes:02}")?;
        if seconds > 0 { write!(f, ":{seconds:02}") } else { Ok(()) }
    }
}

impl FromStr for SlotStart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::invalid(format!(
                "`{text}` is not where slots begin; write e.g. `:30`, `17:00`, `sun 17:00`, `15` (of the month, up to 28) or `04-01` (of the year)"
            ))
        };
        let number = |text: &str, most: u32| -> Option<u32> {
            let fits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            fits.then(|| text.parse().ok()).flatten().filter(|number| *number <= most)
        };
        let small = |text: &str, most: u32| number(text, most).filter(|number| *number > 0).and_then(|number| u8::try_from(number).ok());
        let mut start = Self::default();
        let mut words = text.split_whitespace().peekable();
        if words.peek().is_none() {
            return Err(refuse());
        }
        if let Some(word) = words.next_if(|word| !word.contains(':')) {
            let lower = word.to_lowercase();
            if let Some(weekday) =
                (0u8..).zip(WEEKDAYS.iter().zip(LONG_WEEKDAYS)).find(|(_, (short, long))| **short == lower || *long == lower)
            {
                start.weekday = Some(weekday.0);
            } else if let Some((month, day)) = word.split_once('-') {
                start.month = Some(small(month, 12).ok_or_else(refuse)?);
                start.day = Some(small(day, 28).ok_or_else(refuse)?);
            } else {
                start.day = Some(small(word, 28).ok_or_else(refuse)?);
            }
        }
        if let Some(time) = words.next() {
            let mut parts = time.split(':');
            let hours = match parts.next() {
                Some("") if start == Self::default() => 0,
                Some(hours) => number(hours, 23).ok_or_else(refuse)?,
                None => return Err(refuse()),
            };
            let minutes = parts.next().and_then(|minutes| number(minutes, 59)).ok_or_else(refuse)?;
            let seconds = parts.next().map_or(Some(0), |seconds| number(seconds, 59)).ok_or_else(refuse)?;
            if parts.next().is_some() {
                return Err(refuse());
            }
            start.time_s = hours * 3_600 + minutes * 60 + seconds;
        }
        if words.next().is_some() { Err(refuse()) } else { Ok(start) }
    }
}

impl Serialize for SlotStart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SlotStart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_slots_begin_comes_back_as_written() {
        for text in [":30", ":30:15", "17:00", "sun", "sun 17:00", "15", "15 06:00", "04-01", "04-01 00:30"] {
            assert_eq!(text.parse::<SlotStart>().unwrap().to_string(), text);
        }
        for bad in ["", "30", "24:00", ":60", "17", "17:0a", "someday", "13-01", "02-30", "sun :30", "1 2", "17:00 sun", "+1:00", "-1"] {
            let read = bad.parse::<SlotStart>();
            assert!(read.is_err() || bad == "17", "{bad}: {read:?}");
        }
    }

    #[test]
    fn an_example_fits_its_cadence() {
        for (cadence, example) in
            [("1y", "04-01"), ("1mo", "15"), ("1w", "sun 17:00"), ("1d", "17:00"), ("1h", ":51"), ("5m", ":02"), ("1m", ""), ("1s", "")]
        {
            let found = SlotStart::example(cadence.parse().unwrap()).map_or_else(String::new, |start| start.to_string());
            assert_eq!(found, example, "{cadence}");
        }
    }
}
