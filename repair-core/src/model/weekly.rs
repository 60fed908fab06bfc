//! Calendars that repeat every week, except on the days that differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::{Date, Weekday};

use super::calendar::{hours_outside, outside};
use super::{Calendar, Hours, Interval, Session, Zone};
use crate::error::{Error, Result};

/// The hours of each weekday.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Week([Hours; 7]);

impl Week {
    /// The same hours from Monday to Friday, and closed at weekends.
    pub fn from_monday_to_friday(hours: &Hours) -> Self {
        let mut week = Self::default();
        for day in 0..5 {
            week.0[day] = hours.clone();
        }
        week
    }

    /// The same week with other hours on one weekday.
    #[must_use]
    pub fn with(mut self, day: Weekday, hours: Hours) -> Self {
        self.0[index(day)] = hours;
        self
    }

    /// The hours of a weekday.
    pub fn hours(&self, day: Weekday) -> &Hours {
        &self.0[index(day)]
    }

    /// Whether it is closed on every day.
    pub fn is_closed(&self) -> bool {
        self.0.iter().all(Hours::is_closed)
    }

    /// The first weekday whose hours go on when those of the next have begun.
    pub fn overlap(&self) -> Option<(Weekday, Weekday)> {
        let days = std::iter::successors(Some(Weekday::Monday), |day| Some(day.next())).take(7);
        days.map(|day| (day, day.next())).find(|(day, next)| self.hours(*day).overlap(self.hours(*next)))
    }
}

fn index(day: Weekday) -> usize {
    usize::try_from(day.to_monday_zero_offset()).unwrap_or(0)
}

/// A calendar of hours per weekday, in one zone, and of days that differ.
///
/// ```
/// use repair_core::model::{Calendar, Hours, Interval, Week, WeeklyCalendar};
///
/// let office = WeeklyCalendar::new("office", "Europe/Berlin".parse()?, Week::from_monday_to_friday(&"09:00-17:00".parse()?))
///     .with_day("2024-12-25".parse()?, Hours::CLOSED);
/// assert_eq!(office.days("2024-12-23".parse()?, "2024-12-27".parse()?)?.len(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct WeeklyCalendar {
    name: String,
    zone: Zone,
    /// Weeks, in order, each with the first date on which it holds. Before the first one, hours are not known.
    weeks: Vec<(Date, Week)>,
    /// The days that differ; `None` if there is a session whose hours are those of the week.
    days: BTreeMap<Date, Option<Hours>>,
    covered: Option<(Date, Date)>,
}

impl WeeklyCalendar {
    /// A calendar that covers all dates.
    pub fn new(name: impl Into<String>, zone: Zone, week: Week) -> Self {
        Self { name: name.into(), zone, weeks: vec![(Date::MIN, week)], days: BTreeMap::new(), covered: None }
    }

    /// The same calendar with other hours on one date.
    #[must_use]
    pub fn with_day(mut self, date: Date, hours: Hours) -> Self {
        self.days.insert(date, Some(hours));
        self
    }

    /// The same calendar with a session on a date that has none in its week, or whose hours are not known.
    #[must_use]
    pub fn with_session(mut self, date: Date) -> Self {
        self.days.insert(date, None);
        self
    }

    /// The same calendar with this week from a date on, in place of all that was known from there.
    #[must_use]
    pub fn with_week_from(mut self, since: Date, week: Week) -> Self {
        self.weeks.retain(|(date, _)| *date < since);
        self.weeks.push((since, week));
        self
    }

    /// The same calendar, which covers only these dates, and knows hours only from `hours_from` on. Before that, Monday to Friday have
    /// sessions, except where a day differs.
    #[must_use]
    pub fn covering(mut self, first: Date, last: Date, hours_from: Date) -> Self {
        self.covered = Some((first, last));
        let week = self.week_on(hours_from).cloned().unwrap_or_default();
        if hours_from > first {
            self.weeks.retain(|(date, _)| *date > hours_from);
            self.weeks.insert(0, (hours_from, week));
        }
        self
    }

    fn week_on(&self, date: Date) -> Option<&Week> {
        let after = self.weeks.partition_point(|(since, _)| *since <= date);
        after.checked_sub(1).and_then(|at| self.weeks.get(at)).map(|(_, week)| week)
    }

    fn hours_on(&self, date: Date) -> Option<&Hours> {
        let ordinary = || self.week_on(date).map(|week| week.hours(date.weekday()));
        match self.days.get(&date) {
            Some(Some(hours)) => Some(hours),
            Some(None) | None => ordinary(),
        }
    }

    fn has_session(&self, date: Date) -> bool {
        match (self.days.get(&date), self.week_on(date)) {
            (Some(Some(hours)), _) => !hours.is_closed(),
            (Some(None), _) => true,
            (None, Some(week)) => !week.hours(date.weekday()).is_closed(),
            (None, None) => !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday),
        }
    }
}

impl Calendar for WeeklyCalendar {
    fn name(&self) -> &str {
        &self.name
    }

    fn zone(&self) -> Zone {
        self.zone.clone()
    }

    fn coverage(&self) -> Option<(Date, Date)> {
        self.covered
    }

    fn hours_coverage(&self) -> Option<(Date, Date)> {
        let (first, last) = self.covered?;
        Some((self.weeks.first().map_or(first, |(since, _)| first.max(*since)), last))
    }

    fn days(&self, from: Date, to: Date) -> Result<Vec<Date>> {
        if let Some(covered) = self.covered.filter(|(first, last)| from < *first || to > *last) {
            return Err(outside(&self.name, covered, from, to));
        }
        Ok(dates(from, to).filter(|date| self.has_session(*date)).collect())
    }

    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>> {
        if let Some((first, last)) = self.hours_coverage().filter(|(first, last)| from < *first || to > *last) {
            return Err(hours_outside(&self.name, self.covered, (first, last), (from, to)));
        }
        let mut sessions = Vec::new();
        for date in dates(from, to) {
            if let Some(hours) = self.hours_on(date) {
                sessions.extend(hours.session(date, &self.zone)?);
            }
        }
        Ok(sessions)
    }

    fn ordinary(&self, date: Date) -> Option<Hours> {
        self.week_on(date).map(|week| week.hours(date.weekday()).clone())
    }
}

/// A calendar that takes over another one, with days of its own.
#[derive(Debug, Clone)]
pub struct ExtendedCalendar {
    name: String,
    base: Arc<dyn Calendar>,
    days: BTreeMap<Date, Hours>,
    until: Option<Date>,
}

impl ExtendedCalendar {
    /// A calendar with the days of another, except those that are given.
    pub fn new(name: impl Into<String>, base: Arc<dyn Calendar>, days: BTreeMap<Date, Hours>) -> Self {
        Self { name: name.into(), base, days, until: None }
    }

    /// The same calendar, which goes on to this date with the ordinary hours of the other one, except on the days that are given.
    ///
    /// # Errors
    /// `invalid` if the other calendar has no ordinary hours.
    pub fn until(mut self, last: Date) -> Result<Self> {
        if self.base.ordinary(last).is_none() {
            return Err(Error::invalid(format!("calendar {} has no ordinary hours to go on with", self.base.name())));
        }
        self.until = Some(last);
        Ok(self)
    }

    fn go_on(&self, covered: Option<(Date, Date)>) -> Option<(Date, Date)> {
        let (first, last) = covered?;
        Some((first, self.until.map_or(last, |until| until.max(last))))
    }
}

impl Calendar for ExtendedCalendar {
    fn name(&self) -> &str {
        &self.name
    }

    fn zone(&self) -> Zone {
        self.base.zone()
    }

    fn coverage(&self) -> Option<(Date, Date)> {
        self.go_on(self.base.coverage())
    }

    fn hours_coverage(&self) -> Option<(Date, Date)> {
        self.go_on(self.base.hours_coverage())
    }

    fn days(&self, from: Date, to: Date) -> Result<Vec<Date>> {
        if let Some(covered) = self.coverage().filter(|(first, last)| from < *first || to > *last) {
            return Err(outside(&self.name, covered, from, to));
        }
        let last = self.base.coverage().map_or(Date::MAX, |(_, last)| last);
        let mut days = if from <= to.min(last) { self.base.days(from, to.min(last))? } else { Vec::new() };
        days.retain(|date| !self.days.contains_key(date));
        let own = self.days.range(from..=to.max(from)).filter(|(date, hours)| **date <= to && !hours.is_closed());
        days.extend(own.map(|(date, _)| *date));
        let beyond = dates(after(from, last), to).filter(|date| !self.days.contains_key(date));
        days.extend(beyond.filter(|date| self.base.ordinary(*date).is_some_and(|hours| !hours.is_closed())));
        days.sort_unstable();
        Ok(days)
    }

    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>> {
        if let Some(covered) = self.hours_coverage().filter(|(first, last)| from < *first || to > *last) {
            return Err(hours_outside(&self.name, self.coverage(), covered, (from, to)));
        }
        let last = self.base.hours_coverage().map_or(Date::MAX, |(_, last)| last);
        let mut sessions = if from <= to.min(last) { self.base.sessions(from, to.min(last))? } else { Vec::new() };
        sessions.retain(|session| !self.days.contains_key(&session.date));
        let zone = self.zone();
        for (date, hours) in self.days.range(from..=to.max(from)).filter(|(date, _)| **date <= to) {
            sessions.extend(hours.session(*date, &zone)?);
        }
        for date in dates(after(from, last), to).filter(|date| !self.days.contains_key(date)) {
            if let Some(hours) = self.base.ordinary(date) {
                sessions.extend(hours.session(date, &zone)?);
            }
        }
        sessions.sort_by_key(|session| session.date);
        Ok(sessions)
    }

    fn ordinary(&self, date: Date) -> Option<Hours> {
        self.base.ordinary(date)
    }
}

/// The later of a date and the day after another.
fn after(from: Date, last: Date) -> Date {
    last.tomorrow().map_or(Date::MAX, |next| next.max(from))
}

/// A calendar of sessions that are listed one by one.
#[derive(Debug, Clone)]
pub struct ListedCalendar {
    name: String,
    zone: Zone,
    /// The sessions, in order of their dates, which are all different.
    sessions: Vec<Session>,
    covered: (Date, Date),
}

impl ListedCalendar {
    /// A calendar of these sessions. It covers the dates from the first to the last.
    ///
    /// # Errors
    /// `invalid` if there are none, if two have the same date, or if one begins before the one before it has ended.
    pub fn new(name: impl Into<String>, zone: Zone, mut sessions: Vec<Session>) -> Result<Self> {
        sessions.sort_by_key(|session| session.date);
        for pair in sessions.windows(2) {
            if pair[0].date == pair[1].date {
                return Err(Error::invalid(format!("{} has two sessions; write them as one, with a break", pair[0].date)));
            }
            if pair[0].hours.to() > pair[1].hours.from() {
                return Err(Error::invalid(format!("the session of {} begins before that of {} has ended", pair[1].date, pair[0].date)));
            }
        }
        let (Some(first), Some(last)) = (sessions.first(), sessions.last()) else {
            return Err(Error::invalid("there are no sessions"));
        };
        let covered = (first.date, last.date);
        Ok(Self { name: name.into(), zone, sessions, covered })
    }
}

impl Calendar for ListedCalendar {
    fn name(&self) -> &str {
        &self.name
    }

    fn zone(&self) -> Zone {
        self.zone.clone()
    }

    fn coverage(&self) -> Option<(Date, Date)> {
        Some(self.covered)
    }

    /// As early before its date, and as late after it, as any of the sessions that are listed.
    fn unknown(&self, date: Date) -> Option<Interval> {
        let midnight = |date: Date| self.zone.start(date.at(0, 0, 0, 0)).ok();
        let bounds = |session: &Session| {
            let midnight = midnight(session.date)?;
            Some((session.hours.from().duration_since(midnight), session.hours.to().duration_since(midnight)))
        };
        let begin = self.sessions.iter().filter_map(|session| Some(bounds(session)?.0)).min()?;
        let end = self.sessions.iter().filter_map(|session| Some(bounds(session)?.1)).max()?;
        let midnight = midnight(date)?;
        Interval::new(midnight.checked_add(begin).ok()?, midnight.checked_add(end).ok()?).ok()
    }

    fn sessions(&self, from: Date, to: Date) -> Result<Vec<Session>> {
        if from < self.covered.0 || to > self.covered.1 {
            return Err(outside(&self.name, self.covered, from, to));
        }
        let start = self.sessions.partition_point(|session| session.date < from);
        let end = self.sessions.partition_point(|session| session.date <= to);
        // Empty if `to` is before `from`.
        Ok(self.sessions.get(start..end).unwrap_or_default().to_vec())
    }
}

fn dates(from: Date, to: Date) -> impl Iterator<Item = Date> {
    std::iter::successors(Some(from), |date| date.tomorrow().ok()).take_while(move |date| *date <= to)
}
