//! Which slots are expected at all.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Interval, day_start};

/// One trading (or business) session: the date it is known by, and when it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The date the session is known by, local to the market.
    pub date: Date,
    /// From the opening to the close.
    pub hours: Interval,
    /// Stretches within `hours` in which it is closed, in order, disjoint.
    pub breaks: Vec<Interval>,
}

impl Session {
    /// The stretches in which it is open: its hours without its breaks.
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

/// Says when rows are expected. What is expected never comes from the data that was captured.
pub trait Calendar: Send + Sync + std::fmt::Debug {
    /// The name by which workflows ask for it.
    fn name(&self) -> &str;

    /// The dates it can speak about, first and last; `None` if it has no bounds.
    fn coverage(&self) -> Option<(Date, Date)>;

    /// The sessions with `from <= date <= to`, in order.
    ///
    /// # Errors
    /// `blind` for dates outside the coverage: it does not guess.
    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>>;

    /// The open stretches within `interval`, clipped to it, in order, disjoint.
    ///
    /// # Errors
    /// As [`Calendar::sessions`].
    fn open(&self, interval: &Interval) -> Result<Vec<Interval>> {
        let (first, last) = interval.dates();
        // A session may reach into the UTC day before or after the date it is known by.
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

/// The refusal for dates that a calendar knows nothing about.
pub fn outside(name: &str, (earliest, latest): (Date, Date), from: Date, to: Date) -> Error {
    Error::blind(format!(
        "calendar {name} covers {earliest} to {latest}, so it cannot say what is expected from {from} to {to}; ask for covered dates, or extend its table"
    ))
}

/// Always open: what `24x7` names.
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
            let next = date.tomorrow().map_err(|error| Error::invalid("date out of range").because(error))?;
            sessions.push(Session { date, hours: Interval::new(day_start(date)?, day_start(next)?)?, breaks: Vec::new() });
            date = next;
        }
        Ok(sessions)
    }

    fn open(&self, interval: &Interval) -> Result<Vec<Interval>> {
        Ok(vec![*interval])
    }
}
