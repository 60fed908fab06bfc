//! A market, whose table is read when it is first asked: a command that needs one calendar, or none, does not pay for all.

#![deny(clippy::missing_trait_methods, reason = "a wrapper that forgets a method would answer for itself")]

use std::fmt;
use std::sync::OnceLock;

use jiff::civil::Date;
use repair_core::model::{Calendar, Hours, Interval, Session, WeeklyCalendar, Zone};
use repair_core::{Error, Result};

use super::TABLES;
use super::table::Csv;

/// The calendar of a market.
pub(super) struct Market {
    name: &'static str,
    days: Csv,
    read: OnceLock<Result<WeeklyCalendar>>,
}

impl Market {
    pub(super) fn new(name: &'static str, days: Csv) -> Self {
        Self { name, days, read: OnceLock::new() }
    }

    /// What its table says.
    ///
    /// # Errors
    /// `internal` if the table cannot be read, which a test keeps from being shipped.
    pub(super) fn table(&self) -> Result<&WeeklyCalendar> {
        let read = self.read.get_or_init(|| TABLES.read(self.name, self.days));
        read.as_ref().map_err(|error| Error::internal(error.full()))
    }
}

impl fmt::Debug for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Market").field(&self.name).finish()
    }
}

/// Of a market whose table cannot be read, nothing is known but its name, and every question about dates is refused.
impl Calendar for Market {
    fn name(&self) -> &str {
        self.name
    }

    fn coverage(&self) -> Option<(Date, Date)> {
        self.table().ok()?.coverage()
    }

    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>> {
        self.table()?.sessions(from, to)
    }

    fn zone(&self) -> Zone {
        self.table().map_or_else(|_| Zone::utc(), Calendar::zone)
    }

    fn hours_coverage(&self) -> Option<(Date, Date)> {
        self.table().ok()?.hours_coverage()
    }

    fn days(&self, from: Date, to: Date) -> Result<Vec<Date>> {
        self.table()?.days(from, to)
    }

    fn ordinary(&self, date: Date) -> Option<Hours> {
        self.table().ok()?.ordinary(date)
    }

    fn unknown(&self, date: Date) -> Option<Interval> {
        self.table().ok()?.unknown(date)
    }

    fn open(&self, interval: &Interval) -> Result<Vec<Interval>> {
        self.table()?.open(interval)
    }
}
