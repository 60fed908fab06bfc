//! How often a series has a row.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// How often a series has a row: a number of whole seconds that divides a day, a day, a week, or months that divide a year.
///
/// Slots of at most a day that are counted in UTC fall on the same instants every day. Days, weeks, months and years may be those of a zone,
/// and then differ in length: see [`SlotGrid`](super::SlotGrid).
///
/// ```
/// use repair_core::model::Cadence;
///
/// let cadence: Cadence = "5m".parse()?;
/// assert_eq!(cadence.seconds(), 300);
/// assert_eq!("12mo".parse::<Cadence>()?, Cadence::YEAR);
/// assert!("7m".parse::<Cadence>().is_err(), "a day is not a multiple of 7 minutes");
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cadence(Length);

/// The order is that of the lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Length {
    Seconds(u32),
    Months(u32),
}

/// The seconds of a day.
pub(super) const DAY_S: u32 = 86_400;
const WEEK_S: u32 = 7 * DAY_S;
/// A twelfth of the mean year of the Gregorian calendar, which has 365.2425 days.
const MONTH_S: u32 = 2_629_746;

impl Cadence {
    /// One row per second.
    pub const SECOND: Cadence = Cadence(Length::Seconds(1));
    /// One row per minute.
    pub const MINUTE: Cadence = Cadence(Length::Seconds(60));
    /// One row per hour.
    pub const HOUR: Cadence = Cadence(Length::Seconds(3_600));
    /// One row per day.
    pub const DAY: Cadence = Cadence(Length::Seconds(DAY_S));
    /// One row per week.
    pub const WEEK: Cadence = Cadence(Length::Seconds(WEEK_S));
    /// One row per month.
    pub const MONTH: Cadence = Cadence(Length::Months(1));
    /// One row per year.
    pub const YEAR: Cadence = Cadence(Length::Months(12));

    /// A cadence of this many seconds.
    ///
    /// # Errors
    /// `invalid` unless the number divides a day, or is a week.
    pub fn from_seconds(seconds: u32) -> Result<Self> {
        if seconds == WEEK_S || (seconds > 0 && DAY_S.is_multiple_of(seconds)) {
            Ok(Self(Length::Seconds(seconds)))
        } else {
            Err(Error::invalid(format!(
                "a cadence of {seconds} s does not divide a day; choose one that does, such as 1m, 5m, 1h or 1d, or 1w, 1mo or 1y"
            )))
        }
    }

    /// A cadence of this many months.
    ///
    /// # Errors
    /// `invalid` unless the number divides a year.
    pub fn from_months(months: u32) -> Result<Self> {
        if months > 0 && 12u32.is_multiple_of(months) {
            Ok(Self(Length::Months(months)))
        } else {
            Err(Error::invalid(format!("a cadence of {months} months does not divide a year; choose 1mo, 2mo, 3mo, 4mo, 6mo or 1y")))
        }
    }

    /// The length of a slot in seconds, as a measure: for months, it is their mean length, and a day of a zone may be an hour shorter or longer.
    pub fn seconds(self) -> u32 {
        match self.0 {
            Length::Seconds(seconds) => seconds,
            Length::Months(months) => months * MONTH_S,
        }
    }

    /// The months of a slot, if it is as long as they are.
    pub fn months(self) -> Option<u32> {
        match self.0 {
            Length::Seconds(_) => None,
            Length::Months(months) => Some(months),
        }
    }

    /// Whether slots are whole days, weeks or months.
    pub fn is_days(self) -> bool {
        self.seconds() >= DAY_S
    }

    /// How many slots share one presence word (at most 64): those of a day, an hour or a minute, whichever is the longest that fits.
    /// So any lake can compute the words with plain date arithmetic.
    pub fn slots_per_word(self) -> u8 {
        [DAY_S, 3_600, 60]
            .into_iter()
            .filter(|span| span.is_multiple_of(self.seconds()))
            .map(|span| span / self.seconds())
            .find(|&slots| (2..=64).contains(&slots))
            .and_then(|slots| u8::try_from(slots).ok())
            .unwrap_or(64)
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Length::Months(12) => f.write_str("1y"),
            Length::Months(months) => write!(f, "{months}mo"),
            Length::Seconds(WEEK_S) => f.write_str("1w"),
            Length::Seconds(DAY_S) => f.write_str("1d"),
            Length::Seconds(seconds) if seconds.is_multiple_of(3_600) => write!(f, "{}h", seconds / 3_600),
            Length::Seconds(seconds) if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            Length::Seconds(seconds) => write!(f, "{seconds}s"),
        }
    }
}

impl FromStr for Cadence {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::invalid(format!("`{text}` is not a cadence; write one such as 1m, 5m, 1h, 1d, 1w, 1mo or 1y"));
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?);
        let number: u32 = number.parse().map_err(|_| refuse())?;
        let unit_s = match unit.trim() {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" if number == 7 => return Err(Error::invalid("`7d` is not a cadence; write `1w`, whose slots begin on Mondays")),
            "d" => DAY_S,
            "w" => WEEK_S,
            "mo" => return Self::from_months(number),
            "y" => return Self::from_months(number.checked_mul(12).ok_or_else(refuse)?),
            _ => return Err(refuse()),
        };
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
        schemars::json_schema!({
            "type": "string", "description": "How often a series has a row, e.g. 1m, 5m, 1h, 1d, 1w, 1mo, 1y",
            "pattern": "^[0-9]+ ?(s|m|min|h|d|w|mo|y)$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cadences_divide_a_day_or_a_year() {
        for (text, seconds, per_word) in [
            ("1m", 60, 60),
            ("1h", 3_600, 24),
            ("5m", 300, 12),
            ("1s", 1, 60),
            ("1d", 86_400, 64),
            ("30m", 1_800, 48),
            ("1w", 604_800, 64),
            ("1mo", 2_629_746, 64),
            ("3mo", 7_889_238, 64),
            ("1y", 31_556_952, 64),
        ] {
            let cadence: Cadence = text.parse().unwrap();
            assert_eq!((cadence.seconds(), cadence.slots_per_word()), (seconds, per_word), "{text}");
            assert_eq!(cadence.to_string(), text);
        }
        for text in ["7m", "0m", "7d", "2w", "2d", "5mo", "2y", "m", "99999999999m", "4294967295y", ""] {
            assert!(text.parse::<Cadence>().is_err(), "{text}");
        }
    }
}
