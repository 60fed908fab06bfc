//! A length of time, as written in `with`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::workflow::parse_duration;

/// A length of time in a plug-in's configuration, written as everywhere in a workflow: `90s`, `15m`, `1h30m`, `30d`. It is a whole number
/// of seconds, and never zero.
///
/// ```
/// use repair_core::builtin::Period;
/// let month: Period = "30d".parse()?;
/// assert_eq!(month.duration().as_secs(), 30 * 86_400);
/// assert!("soon".parse::<Period>().is_err());
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    seconds: u32,
}

const DAY_S: u32 = 86_400;

impl Period {
    /// A number of minutes.
    pub const fn minutes(minutes: u16) -> Self {
        Self { seconds: minutes as u32 * 60 }
    }

    /// A number of days.
    pub const fn days(days: u8) -> Self {
        Self { seconds: days as u32 * DAY_S }
    }

    /// Its length as a [`Duration`].
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }

    /// Its length as a [`SignedDuration`], to add to an instant.
    pub fn signed(self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.seconds))
    }

    /// Its length in seconds.
    pub fn seconds(self) -> i64 {
        i64::from(self.seconds)
    }
}

impl FromStr for Period {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let length = parse_duration(text)?;
        let seconds = u32::try_from(length.as_secs()).ok().filter(|&seconds| seconds > 0 && length.subsec_nanos() == 0);
        let seconds = seconds.ok_or_else(|| Error::invalid(format!("`{text}` must be a whole number of seconds, and more than zero")))?;
        Ok(Self { seconds })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            seconds if seconds.is_multiple_of(DAY_S) => write!(f, "{}d", seconds / DAY_S),
            seconds if seconds.is_multiple_of(3_600) => write!(f, "{}h", seconds / 3_600),
            seconds if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl serde::Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A length of time, e.g. 90s, 15m, 2h, 30d", "pattern": "^([0-9]+(s|m|min|h|d))+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_what_they_write() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("30d", 2_592_000), ("1h30m", 5_400)] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.seconds(), seconds);
            assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
        }
        for text in ["", "0s", "10", "1w", "-3m", "1.5h", "500ms", "40000d"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
