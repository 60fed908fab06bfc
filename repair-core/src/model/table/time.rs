//! How the time of a row is written.

use std::fmt;

use jiff::fmt::strtime::BrokenDownTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PathPattern;
use crate::error::{Error, Result};
use crate::model::Zone;

/// The unit of a time that is a number since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EpochUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl EpochUnit {
    /// All units, from the longest.
    pub const ALL: [Self; 4] = [Self::S, Self::Ms, Self::Us, Self::Ns];

    /// How many of it are a second.
    pub fn per_second(self) -> i64 {
        match self {
            Self::S => 1,
            Self::Ms => 1_000,
            Self::Us => 1_000_000,
            Self::Ns => 1_000_000_000,
        }
    }

    /// The word used in workflows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
            Self::Us => "us",
            Self::Ns => "ns",
        }
    }

    /// Numbers as far from zero as this, or farther, are taken to be in a shorter unit. It stands for the year 5138, and in the next
    /// shorter unit for 1973, so the units cannot be confused for times in between.
    pub fn limit(self) -> i128 {
        100_000_000_000 * i128::from(self.per_second())
    }

    /// The numbers of longer units that stand for the years from 2001 to 2128. In this unit they would be in the first weeks of 1970, so where a table has one unit
    /// only, they are taken for a mistake.
    pub fn confused(self) -> impl Iterator<Item = (Self, std::ops::Range<i64>)> {
        let longer = Self::ALL.into_iter().take_while(move |unit| *unit < self);
        longer.map(|unit| (unit, 1_000_000_000 * unit.per_second()..5_000_000_000_i64.saturating_mul(unit.per_second())))
    }

    /// The unit that a number must be in, by its size.
    pub fn of_size(number: i128) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| number.abs() < unit.limit())
    }
}

impl fmt::Display for EpochUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The form in which times are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TimeForm {
    /// As ISO 8601 writes times: `2024-03-04T14:30:00Z`; with a zone for times that carry none, also `2024-03-04 14:30`. In Parquet, a
    /// timestamp or a date.
    #[default]
    Iso,
    /// By a pattern of `strptime`, such as `%d.%m.%Y %H:%M`.
    Pattern(String),
    /// As a number since 1970. If there are several units, the size of a number decides.
    Epoch(Vec<EpochUnit>),
    /// Not in the rows: in the name of their file and its folders.
    Path(PathPattern),
}

/// What a local time means that the clock shows twice, in the hour when it is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Repeated {
    /// The row is bad: nobody can know.
    #[default]
    Refuse,
    /// The first of the two.
    Earlier,
    /// The second of the two.
    Later,
    /// The order of rows in their file decides: within a series, the second hour begins where the clock goes back.
    FileOrder,
}

impl Repeated {
    /// All words used in workflows.
    pub const ALL: [(&'static str, Self); 4] =
        [("refuse", Self::Refuse), ("earlier", Self::Earlier), ("later", Self::Later), ("file-order", Self::FileOrder)];
}

/// What a local time means that the clock never shows, in the hour when it is set forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Skipped {
    /// The row is bad.
    #[default]
    Refuse,
    /// The instant that it would be, had the clock not been set: 02:30 means 03:30.
    Shift,
}

impl Skipped {
    /// All words used in workflows.
    pub const ALL: [(&'static str, Self); 2] = [("refuse", Self::Refuse), ("shift", Self::Shift)];
}

/// The least part of a date that is a time; what is below it is its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DateParts {
    /// `2024` is the start of the year.
    Year,
    /// `2024-03` is the start of the month, and `2024-Q1` that of the quarter.
    Month,
    /// Only whole dates are times.
    Day,
}

/// How a table's times are read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TimeReading {
    /// The columns whose text, joined by a space, is the time; none if it is the one column that is named for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// How it is written.
    pub form: TimeForm,
    /// The zone of times that carry none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// What a time means that the clock shows twice.
    pub repeated: Repeated,
    /// What a time means that the clock never shows.
    pub skipped: Skipped,
}

impl TimeReading {
    /// Whether it is all as in a table that only names its time column.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Reads times by a pattern of `strptime`.
    pub fn by_pattern(pattern: impl Into<String>) -> Self {
        Self { form: TimeForm::Pattern(pattern.into()), ..Self::default() }
    }

    /// Reads times that are numbers.
    pub fn epoch(units: impl IntoIterator<Item = EpochUnit>) -> Self {
        Self { form: TimeForm::Epoch(units.into_iter().collect()), ..Self::default() }
    }

    /// Joins the text of several columns.
    #[must_use]
    pub fn with_columns<T: Into<String>>(mut self, columns: impl IntoIterator<Item = T>) -> Self {
        self.columns = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the zone of times that carry none.
    #[must_use]
    pub fn with_zone(mut self, zone: Zone) -> Self {
        self.zone = Some(zone);
        self
    }

    /// Sets what a time means that the clock shows twice.
    #[must_use]
    pub fn with_repeated(mut self, repeated: Repeated) -> Self {
        self.repeated = repeated;
        self
    }

    /// Sets what a time means that the clock never shows.
    #[must_use]
    pub fn with_skipped(mut self, skipped: Skipped) -> Self {
        self.skipped = skipped;
        self
    }

    /// The least part of a date that times have which are written by a pattern; `None` if they are written in another way, or the pattern has
    /// no date.
    pub fn date_parts(&self) -> Option<DateParts> {
        let TimeForm::Pattern(pattern) = &self.form else { return None };
        let sample = jiff::civil::date(2024, 3, 4).at(14, 30, 15, 0).in_tz("UTC").ok()?;
        let read = BrokenDownTime::parse(pattern, jiff::fmt::strtime::format(pattern, &sample).ok()?).ok()?;
        if read.to_date().is_ok() || read.to_timestamp().is_ok() {
            return Some(DateParts::Day);
        }
        // A month and an hour are no time.
        let is_odd = read.day().is_some() || read.day_of_year().is_some() || read.weekday().is_some() || read.hour().is_some();
        match (read.year(), read.month()) {
            (Some(_), Some(_)) if !is_odd => Some(DateParts::Month),
            (Some(_), None) if !is_odd => Some(DateParts::Year),
            _ => None,
        }
    }

    /// Whether times that are written by a pattern have a time of day, or are instants. Times that are written in another way may.
    pub fn has_time_of_day(&self) -> bool {
        let TimeForm::Pattern(pattern) = &self.form else { return true };
        let Ok(sample) = jiff::civil::date(2024, 3, 4).at(14, 30, 15, 0).in_tz("UTC") else { return true };
        let read = jiff::fmt::strtime::format(pattern, &sample).ok().and_then(|text| BrokenDownTime::parse(pattern, text).ok());
        read.is_none_or(|read| read.hour().is_some() || read.to_timestamp().is_ok())
    }

    /// Checks that a pattern can be read at all, and that the settings do not contradict each other.
    ///
    /// # Errors
    /// `invalid` with the contradiction.
    pub fn check(&self) -> Result<()> {
        match &self.form {
            TimeForm::Pattern(pattern) => {
                // Any instant that is written by the pattern must be readable by it.
                let sample = jiff::civil::date(2024, 3, 4).at(14, 30, 15, 0).in_tz("UTC");
                let written = sample.ok().and_then(|time| jiff::fmt::strtime::format(pattern, &time).ok());
                let read = written.and_then(|text| jiff::fmt::strtime::parse(pattern, text).ok());
                if read.as_ref().and_then(BrokenDownTime::hour).is_some_and(|hour| hour != 14) {
                    return Err(Error::invalid(format!(
                        "`{pattern}` has the hour of a clock of twelve hours, and nothing says which half of the day it is; add `%p`, which is AM or PM, or write `%H`"
                    )));
                }
                if read.is_none() {
                    return Err(Error::invalid(format!(
                        "`{pattern}` is not a pattern of a time; write e.g. `%d.%m.%Y %H:%M`, where %d is the day, %m the month, %Y the year, %H the \
                         hour, %M the minute and %S the second"
                    )));
                }
                if self.date_parts().is_none() {
                    return Err(Error::invalid(format!("`{pattern}` has no date: it needs a year, a month and a day")));
                }
            }
            TimeForm::Epoch(units) if units.is_empty() => {
                return Err(Error::invalid("`epoch` names no unit; write `s`, `ms`, `us` or `ns`"));
            }
            TimeForm::Epoch(_) if self.zone.is_some() => {
                return Err(Error::invalid("a time since 1970 has no zone of its own; remove `zone` here, and give it to the table"));
            }
            TimeForm::Epoch(_) if self.columns.len() > 1 => {
                return Err(Error::invalid("a time since 1970 is in one column; name it alone"));
            }
            TimeForm::Path(_) if self.repeated == Repeated::FileOrder => {
                return Err(Error::invalid(
                    "the time is in the path, and the order of rows says nothing of it; write `repeated: earlier` or `repeated: later`",
                ));
            }
            TimeForm::Path(_) if !self.columns.is_empty() => {
                return Err(Error::invalid("the time is either in columns or in the path; keep one of `columns` and `path`"));
            }
            _ => {}
        }
        let local_only = self.repeated != Repeated::Refuse || self.skipped != Skipped::Refuse;
        if local_only && self.zone.as_ref().is_none_or(Zone::is_utc) {
            return Err(Error::invalid("`repeated` and `skipped` are about clocks that are set; they need a `zone` that is not UTC"));
        }
        Ok(())
    }
}
