//! Calendars: when rows are expected at all.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Interval, day_start};

/// One trading (or business) session: the date it is known by, and when it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The date the session is known by, local to the market.
    pub date: Date,
    /// The time from the opening to the close.
    pub hours: Interval,
    /// The stretches within `hours` in which the market is closed, in order and disjoint.
    pub breaks: Vec<Interval>,
}

impl Session {
    /// The stretches in which the market is open: `hours` without `breaks`.
    pub fn open(&self) -> Vec<Interval> {
        let mut open = Vec::with_capacity(self.breaks.len() + 1);
        let mut from = self.hours.from();
        for pause in &self.breaks {
            open.extend(Interval::new(from, pause.from()));
            from = pause.to();
        }
        open.extend(Interval::new(from, self.hours.to()));
        open
    }
}

/// Defines when rows are expected. This never comes from the captured data, because an outage would then hide itself.
///
/// ```
/// use std::sync::Arc;
///
/// use jiff::civil::{Date, Weekday};
/// use repair_core::Result;
/// use repair_core::model::{Calendar, Interval, Session, day_start};
/// use repair_core::plugin::Registry;
///
/// /// Open from Monday to Friday, around the clock in UTC.
/// #[derive(Debug)]
/// struct Weekdays;
///
/// impl Calendar for Weekdays {
///     fn name(&self) -> &str {
///         "weekdays"
///     }
///
///     fn coverage(&self) -> Option<(Date, Date)> {
///         None
///     }
///
///     fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>> {
///         let days = from.series(jiff::Span::new().days(1)).take_while(|date| *date <= to);
///         let open = days.filter(|date| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday));
///         open.map(|date| {
///             let next = date.tomorrow().map_err(|error| repair_core::Error::invalid("date out of range").because(error))?;
///             Ok(Session { date, hours: Interval::new(day_start(date)?, day_start(next)?)?, breaks: Vec::new() })
///         })
///         .collect()
///     }
/// }
///
/// // 2024-03-08 is a Friday.
/// let weekend = Interval::parse("2024-03-08", "2024-03-11")?;
/// assert_eq!(Weekdays.open(&weekend)?.len(), 2);
///
/// // Workflows name it: `detect: gaps`, `with: { calendar: weekdays, … }`.
/// let mut registry = Registry::default();
/// registry.add_calendar(Arc::new(Weekdays));
/// assert!(registry.calendars().contains_key("weekdays"));
/// # Ok::<(), repair_core::Error>(())
/// ```
pub trait Calendar: Send + Sync + std::fmt::Debug {
    /// The name that workflows use for it, such as `XNYS`.
    fn name(&self) -> &str;

    /// The first and the last date it covers; `None` if it covers all dates.
    fn coverage(&self) -> Option<(Date, Date)>;

    /// The sessions with `from <= date <= to`, in order.
    ///
    /// # Errors
    /// `blind` for dates outside the coverage, because a calendar must not guess.
    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>>;

    /// The open stretches within `interval`, clipped to it, in order and disjoint.
    ///
    /// # Errors
    /// As [`Calendar::sessions`].
    fn open(&self, interval: &Interval) -> Result<Vec<Interval>> {
        let (first, last) = interval.dates();
        // A session may begin on the UTC day before the date it is known by, or end on the day after.
        let (mut from, mut to) = (first.yesterday().unwrap_or(first), last.tomorrow().unwrap_or(last));
        if let Some((earliest, latest)) = self.coverage() {
            if first < earliest || last > latest {
                return Err(outside(self.name(), (earliest, latest), first, last));
            }
            from = from.max(earliest);
            to = to.min(latest);
        }
        let sessions = self.sessions(from, to)?;
        Ok(sessions.iter().flat_map(Session::open).filter_map(|open| open.intersection(interval)).collect())
    }
}

/// The error of kind `blind` for dates that a calendar does not cover.
pub fn outside(name: &str, (earliest, latest): (Date, Date), from: Date, to: Date) -> Error {
    Error::blind(format!(
        "calendar {name} covers {earliest} to {latest}, and does not know what is expected from {from} to {to}; choose dates that it covers, or extend its table"
    ))
}

/// The calendar `24x7`, which is always open.
#[derive(Debug, Clone, Copy, Default)]
pub struct Always;

impl Calendar for Always {
    fn name(&self) -> &str {
        "24x7"
    }

    fn coverage(&self) -> Option<(Date, Date)> {
        None
    }

    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>> {
        let mut sessions = Vec::new();
        let mut date = from;
        while date <= to {
            let next = date.tomorrow().map_err(|error| Error::invalid(format!("{date} is out of range")).because(error))?;
            sessions.push(Session { date, hours: Interval::new(day_start(date)?, day_start(next)?)?, breaks: Vec::new() });
            date = next;
        }
        Ok(sessions)
    }

    fn open(&self, interval: &Interval) -> Result<Vec<Interval>> {
        Ok(vec![*interval])
    }
}
