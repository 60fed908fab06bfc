//! Calendars: when rows are expected at all.

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Hours, Interval, Zone, day_start};

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

    /// The first and the last date whose sessions it knows; `None` if it covers all dates.
    fn coverage(&self) -> Option<(Date, Date)>;

    /// The sessions with `from <= date <= to`, in order.
    ///
    /// # Errors
    /// `blind` for dates whose hours it does not know, because a calendar must not guess.
    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>>;

    /// The zone of the dates by which its sessions are known.
    fn zone(&self) -> Zone {
        Zone::utc()
    }

    /// The first and the last date whose hours it knows. It may know for longer on which days there were sessions.
    fn hours_coverage(&self) -> Option<(Date, Date)> {
        self.coverage()
    }

    /// The dates of the sessions with `from <= date <= to`, in order.
    ///
    /// # Errors
    /// `blind` for dates outside the coverage.
    fn days(&self, from: Date, to: Date) -> Result<Vec<Date>> {
        Ok(self.sessions(from, to)?.into_iter().map(|session| session.date).collect())
    }

    /// The hours that a date would have if it were an ordinary one, as far as that is known. Calendars that extend this one go on with them.
    fn ordinary(&self, _date: Date) -> Option<Hours> {
        None
    }

    /// The longest time that the session of a date outside the coverage may take. What is within it is not known.
    fn unknown(&self, date: Date) -> Option<Interval> {
        self.ordinary(date)?.session(date, &self.zone()).ok().flatten().map(|session| session.hours)
    }

    /// The open stretches within `interval`, clipped to it, in order and disjoint.
    ///
    /// # Errors
    /// `blind` if not all of it is known. An interval of whole days in UTC is, if their dates are covered and no session of the day before
    /// or after reaches into it.
    fn open(&self, interval: &Interval) -> Result<Vec<Interval>> {
        let (first, last) = interval.dates();
        // A session may begin before the date it is known by, or end after it.
        let (mut from, mut to) = (first.saturating_sub(MARGIN_DAYS.days()), last.saturating_add(MARGIN_DAYS.days()));
        if let Some((earliest, latest)) = self.hours_coverage() {
            let before = earliest.yesterday().ok().and_then(|date| self.unknown(date));
            let after = latest.tomorrow().ok().and_then(|date| self.unknown(date));
            let cut_off =
                before.is_some_and(|unknown| unknown.to() > interval.from()) || after.is_some_and(|unknown| unknown.from() < interval.to());
            if first < earliest || last > latest || cut_off {
                return Err(hours_outside(self.name(), self.coverage(), (earliest, latest), (first, last)));
            }
            from = from.max(earliest);
            to = to.min(latest);
        }
        let sessions = self.sessions(from, to)?;
        let mut open: Vec<Interval> = sessions.iter().flat_map(Session::open).filter_map(|open| open.intersection(interval)).collect();
        open.sort();
        let mut joined: Vec<Interval> = Vec::with_capacity(open.len());
        for next in open {
            match joined.last_mut() {
                // The hours of a special day may begin before the day before has ended.
                Some(last) if next.from() < last.to() => *last = last.hull(&next),
                _ => joined.push(next),
            }
        }
        Ok(joined)
    }
}

/// How many days the date of a session may be from those that it overlaps in UTC: a day for its hours, and one for its zone.
const MARGIN_DAYS: i32 = 2;

/// The error of kind `blind` for dates that a calendar does not cover.
pub fn outside(name: &str, covered: (Date, Date), from: Date, to: Date) -> Error {
    unknown(name, &format!("covers {} to {}", covered.0, covered.1), covered.1, (from, to))
}

/// As [`outside`], for dates whose hours a calendar does not know although it may know their sessions.
pub(super) fn hours_outside(name: &str, days: Option<(Date, Date)>, hours: (Date, Date), asked: (Date, Date)) -> Error {
    match days {
        Some((first, last)) if first < hours.0 => {
            let what = format!("covers {first} to {last} and knows the hours of its sessions from {} on", hours.0);
            unknown(name, &what, hours.1, asked)
        }
        _ => outside(name, hours, asked.0, asked.1),
    }
}

fn unknown(name: &str, covers: &str, last: Date, (from, to): (Date, Date)) -> Error {
    let remedy = if to > last {
        format!("choose dates that it covers, or define a calendar with `extends: {name}` and your own days `until` a later date")
    } else {
        "choose dates that it covers".to_owned()
    };
    Error::blind(format!("calendar {name} {covers}, and does not know what is expected from {from} to {to}; {remedy}"))
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
