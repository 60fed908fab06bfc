//! The calendars that a workflow defines.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::{Date, Weekday};

use crate::error::{Error, Result};
use crate::model::{Calendar, ExtendedCalendar, Hours, ListedCalendar, Session, Week, WeeklyCalendar, Zone};

/// A calendar as a workflow defines it under `calendars`: a week and the days that differ, another calendar and the days that differ from it,
/// or a list of sessions.
///
/// ```
/// use repair_core::model::{Calendar, Hours, Week};
/// use repair_core::workflow::CalendarRule;
///
/// let rule = CalendarRule::weekly("Europe/Berlin".parse()?, Week::from_monday_to_friday(&"09:00-17:30".parse()?))
///     .with_day("2024-12-25".parse()?, Hours::CLOSED);
/// let calendar = rule.calendar("office", None)?;
/// assert_eq!(calendar.days("2024-12-23".parse()?, "2024-12-27".parse()?)?.len(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CalendarRule {
    pub(super) basis: Basis,
    /// The days that differ.
    pub(super) days: BTreeMap<Date, Hours>,
}

/// The words for weekdays.
pub(super) const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// What a calendar starts from.
#[derive(Debug, Clone)]
pub(super) enum Basis {
    /// The hours of each weekday.
    Weekly { zone: Zone, week: Week },
    /// Sessions that are listed one by one.
    Listed { zone: Zone, sessions: Vec<Session> },
    /// Another calendar, and the date to which its ordinary hours go on.
    Extends { name: String, until: Option<Date> },
}

impl CalendarRule {
    /// A calendar that repeats every week, and covers all dates.
    pub fn weekly(zone: Zone, week: Week) -> Self {
        Self { basis: Basis::Weekly { zone, week }, days: BTreeMap::new() }
    }

    /// A calendar with the days of another one, which it names. With `until`, it goes on to that date with the ordinary hours of the other,
    /// except on the days that differ.
    pub fn extending(name: impl Into<String>, until: Option<Date>) -> Self {
        Self { basis: Basis::Extends { name: name.into(), until }, days: BTreeMap::new() }
    }

    /// The same calendar with other hours on one date.
    #[must_use]
    pub fn with_day(mut self, date: Date, hours: Hours) -> Self {
        self.days.insert(date, hours);
        self
    }

    /// The name of the calendar that it extends.
    pub fn extends(&self) -> Option<&str> {
        match &self.basis {
            Basis::Extends { name, .. } => Some(name),
            Basis::Weekly { .. } | Basis::Listed { .. } => None,
        }
    }

    /// The calendar, under a name. `base` is the one that it extends.
    ///
    /// # Errors
    /// `invalid` if the calendar that it extends is missing or cannot go on, if a day that differs is not covered, or if sessions overlap.
    pub fn calendar(&self, name: &str, base: Option<&Arc<dyn Calendar>>) -> Result<Arc<dyn Calendar>> {
        match &self.basis {
            Basis::Weekly { zone, week } => {
                let weekly = WeeklyCalendar::new(name, zone.clone(), week.clone());
                let add = |calendar: WeeklyCalendar, (date, hours): (&Date, &Hours)| calendar.with_day(*date, hours.clone());
                Ok(Arc::new(self.days.iter().fold(weekly, add)))
            }
            Basis::Listed { zone, sessions } => Ok(Arc::new(ListedCalendar::new(name, zone.clone(), sessions.clone())?)),
            Basis::Extends { name: extends, until } => {
                let base = base.ok_or_else(|| Error::invalid(format!("there is no calendar `{extends}` to extend")))?;
                let mut extended = ExtendedCalendar::new(name, Arc::clone(base), self.days.clone());
                if let Some(until) = until {
                    extended = extended.until(*until)?;
                }
                if let Some((first, last)) = extended.hours_coverage()
                    && let Some(day) = self.days.keys().find(|day| **day < first || **day > last)
                {
                    let remedy = if *day > last { "; say how far your own days go, e.g. `until: 2027-12-31`" } else { "" };
                    return Err(Error::invalid(format!("{day} is not among the dates that it covers, {first} to {last}{remedy}")));
                }
                Ok(Arc::new(extended))
            }
        }
    }
}
