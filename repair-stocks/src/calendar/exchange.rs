//! The calendar of one market: its table as sessions in UTC.

use std::fmt;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use repair_core::model::outside;
use repair_core::model::{Calendar, Interval, Session};
use repair_core::{Error, Result};

use super::table::{Hours, Regular, Table};

/// The calendar of one market, open from Monday to Friday except where its table differs.
///
/// The sessions are computed once, so that each query takes two binary searches and a copy.
pub struct ExchangeCalendar {
    name: &'static str,
    first: Date,
    last: Date,
    /// The sessions, in order.
    sessions: Vec<Session>,
}

impl ExchangeCalendar {
    pub(super) fn new(name: &'static str, table: &Table) -> Result<Self> {
        let mut sessions = Vec::new();
        for regular in &table.regular {
            for date in dates(regular) {
                let ordinary = if is_weekend(date) { &Hours::CLOSED } else { &regular.hours };
                let hours = table.exceptions.get(&date).unwrap_or(ordinary);
                sessions.extend(session(date, hours, &table.zone)?);
            }
        }
        Ok(Self { name, first: table.first, last: table.last, sessions })
    }
}

impl Calendar for ExchangeCalendar {
    fn name(&self) -> &str {
        self.name
    }

    fn coverage(&self) -> Option<(Date, Date)> {
        Some((self.first, self.last))
    }

    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>> {
        if from < self.first || to > self.last {
            return Err(outside(self.name, (self.first, self.last), from, to));
        }
        let start = self.sessions.partition_point(|session| session.date < from);
        let end = self.sessions.partition_point(|session| session.date <= to);
        // Empty if `to` is before `from`.
        Ok(self.sessions.get(start..end).unwrap_or_default().to_vec())
    }
}

/// Leaves out the thousands of sessions.
impl fmt::Debug for ExchangeCalendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeCalendar")
            .field("name", &self.name)
            .field("first", &self.first)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

fn dates(regular: &Regular) -> impl Iterator<Item = Date> {
    let last = regular.last;
    std::iter::successors(Some(regular.first), |date| date.tomorrow().ok()).take_while(move |date| *date <= last)
}

fn is_weekend(date: Date) -> bool {
    matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday)
}

/// The session of a date; `None` if the market is closed all day.
fn session(date: Date, hours: &Hours, zone: &TimeZone) -> Result<Option<Session>> {
    let open = hours.stretches().iter().map(|&(from, to)| in_utc(date, from, to, zone)).collect::<Result<Vec<_>>>()?;
    let (Some(first), Some(last)) = (open.first(), open.last()) else {
        return Ok(None);
    };
    let breaks = open.windows(2).map(|pair| Interval::new(pair[0].to(), pair[1].from())).collect::<Result<_>>()?;
    Ok(Some(Session { date, hours: first.hull(last), breaks }))
}

fn in_utc(date: Date, from: Time, to: Time, zone: &TimeZone) -> Result<Interval> {
    let instant = |time| {
        let found = zone.to_timestamp(date.to_datetime(time));
        found.map_err(|error| Error::internal(format!("{date} {time} is out of range")).because(error))
    };
    Interval::new(instant(from)?, instant(to)?)
}
