//! When a workflow starts by itself: its ticks. Pure: it must not know what has run.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{Instants, Zone};
use crate::price::Budget;

/// When a workflow starts by itself.
///
/// ```
/// use repair_core::plugin::Registry;
/// use repair_core::workflow::Workflow;
///
/// let text = "
/// workflow: nightly
/// kind: dag
/// schedule: { cron: '30 2 * * *', zone: Europe/Berlin }
/// steps:
///   rest: { wait: { for: 1s } }
/// ";
/// let workflow = Workflow::parse("nightly.yaml", text, &Registry::default())?;
/// let schedule = workflow.schedule.as_ref().unwrap();
/// // In the night of 2024-03-31 the clock is set from 02:00 to 03:00; the run starts at that moment.
/// let next = schedule.next("2024-03-30T12:00:00Z".parse()?)?;
/// assert_eq!(next, Some("2024-03-31T01:00:00Z".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Schedule {
    /// What starts a run.
    pub starts: Starts,
    /// The zone of `cron`, of `complete_by`, and of the days that `per_day` means.
    pub zone: Zone,
    /// A run starts up to this much after its tick, by a delay that is always the same for the same tick.
    pub jitter: Duration,
    /// What becomes of ticks at which nothing could start.
    pub missed: Missed,
    /// The time of day by which the run of the last tick must have ended well.
    pub complete_by: Option<Time>,
    /// The parameters of these runs. Others have their defaults.
    pub params: BTreeMap<String, Value>,
    /// The profile of these runs; if it is not given, that of whoever runs the schedule.
    pub profile: Option<String>,
    /// What the runs of one day may amount to.
    pub per_day: PerDay,
}

/// What starts a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Starts {
    /// The times of a pattern, by the clock of the schedule's zone.
    Cron(Cron),
    /// All instants that are a multiple of this after 1970-01-01T00:00:00Z.
    Every(Duration),
    /// The end of a run of another workflow, if it succeeded, with exceptions or without.
    AfterWorkflow(String),
    /// The end of a run that repairs this table or aggregates into it.
    AfterTable(String),
}

impl Starts {
    /// Whether times start runs, and not other runs.
    pub fn is_timed(&self) -> bool {
        matches!(self, Self::Cron(_) | Self::Every(_))
    }
}

/// What becomes of ticks at which nothing could start: no process ran the schedule, or the run before had not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missed {
    /// One run makes up for all of them: that of the last one.
    #[default]
    One,
    /// Each has its run, in order.
    All,
    /// They have none.
    None,
}

impl Missed {
    /// The words for them.
    pub const ALL: [(&'static str, Self); 3] = [("one", Self::One), ("all", Self::All), ("none", Self::None)];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, missed)| *missed == self).map_or("one", |(word, _)| word)
    }
}

/// What the runs that start on one day may amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerDay {
    /// How many runs may start.
    pub runs: Option<u32>,
    /// What they may spend, all together.
    pub budget: Budget,
}

/// A cron pattern of five fields: minute, hour, day of the month, month, day of the week.
#[derive(Clone)]
pub struct Cron {
    text: String,
    pattern: cronexpr::Crontab,
    /// Whether it means every hour or a step of minutes, so that it also ticks through an hour that the clock shows twice.
    runs_through: bool,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.text)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Cron {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let shown: String = text.chars().take(60).collect();
        let text = match words.as_slice() {
            ["@hourly"] => "0 * * * *".to_owned(),
            ["@daily" | "@midnight"] => "0 0 * * *".to_owned(),
            ["@weekly"] => "0 0 * * 0".to_owned(),
            ["@monthly"] => "0 0 1 * *".to_owned(),
            ["@yearly" | "@annually"] => "0 0 1 1 *".to_owned(),
            [_, _, _, _, _] => words.join(" "),
            other => {
                return Err(Error::invalid(format!(
                    "`{shown}` has {} fields; a cron pattern has five: minute, hour, day of the month, month, day of the week, e.g. `30 17 * * mon-fri`",
                    other.len()
                )));
            }
        };
        let pattern = cronexpr::parse_crontab(&format!("{text} UTC")).map_err(|error| {
            let why = error.to_string();
            let why = why
                .lines()
                .map(str::trim)
                .rfind(|line| !line.is_empty())
                .unwrap_or_default()
                .trim_start_matches(['^', ' ', '-'])
                .to_owned();
            Error::invalid(format!("`{shown}` is not a cron pattern: {why}"))
        })?;
        let hour = text.split(' ').nth(1).unwrap_or_default();
        let cron = Self { runs_through: hour.starts_with('*'), text, pattern };
        // A pattern such as 30 February never comes true.
        cron.after_local(Timestamp::UNIX_EPOCH)?;
        Ok(cron)
    }
}

/// How long a clock may be behind what it would show without changes.
const MOST_CHANGE: SignedDuration = SignedDuration::from_hours(26);
/// The first stretch that is searched for the next tick.
const FIRST_STRETCH: SignedDuration = SignedDuration::from_hours(48);
/// How far ahead ticks are searched: the 29th of February on a given day of the week may be 40 years away.
const FARTHEST: SignedDuration = SignedDuration::from_hours(24 * 366 * 41);

impl Cron {
    /// The next time of the pattern. Local times are written as if the clock showed UTC.
    fn after_local(&self, local: Timestamp) -> Result<Timestamp> {
        let never = || Error::invalid(format!("the cron pattern `{}` never comes true", self.text));
        let from = cronexpr::MakeTimestamp::from_second(local.as_second()).map_err(|_| never())?;
        let next = self.pattern.find_next(from).map_err(|_| never())?;
        Timestamp::from_second(next.timestamp().as_second()).map_err(|_| never())
    }

    /// The instants of the pattern in `(after, to]`, in order.
    ///
    /// A time of day that the clock skips is taken when it does; one that it shows twice is taken once, the first time. A pattern whose hour is
    /// `*` or a step follows the hours that pass instead, as Vixie cron does.
    fn ticks(&self, zone: &Zone, after: Timestamp, to: Timestamp, most: usize) -> Result<Vec<Timestamp>> {
        let shown = |instant: Timestamp| TimeZone::UTC.to_timestamp(zone.local(instant)).unwrap_or(instant);
        let mut local = shown(after).checked_sub(MOST_CHANGE).unwrap_or(Timestamp::MIN);
        let last = shown(to).checked_add(MOST_CHANGE).unwrap_or(Timestamp::MAX);
        let mut ticks = Vec::new();
        while let Ok(next) = self.after_local(local) {
            if next > last {
                break;
            }
            local = next;
            let on_the_clock = TimeZone::UTC.to_datetime(next);
            let instants = match zone.instants(on_the_clock) {
                Some(Instants::One(only)) => vec![only],
                Some(Instants::Two(first, second)) if self.runs_through => vec![first, second],
                Some(Instants::Two(first, _)) => vec![first],
                Some(Instants::None(_)) if self.runs_through => vec![],
                Some(Instants::None(_)) => vec![zone.start(on_the_clock)?.as_microsecond()],
                None => break,
            };
            let instants = instants.into_iter().filter_map(|us| Timestamp::from_microsecond(us).ok());
            ticks.extend(instants.filter(|tick| after < *tick && *tick <= to));
            // Ticks may be out of order only around a change of the clock, so enough of them are seen before the first are chosen.
            if ticks.len() > most.saturating_add(10_000) {
                break;
            }
        }
        ticks.sort_unstable();
        ticks.dedup();
        ticks.truncate(most);
        Ok(ticks)
    }
}

impl Schedule {
    /// A schedule with the rest as it is by default: in UTC, without delays or limits, with one run for all ticks that were missed.
    pub fn new(starts: Starts) -> Self {
        Self {
            starts,
            zone: Zone::utc(),
            jitter: Duration::ZERO,
            missed: Missed::default(),
            complete_by: None,
            params: BTreeMap::new(),
            profile: None,
            per_day: PerDay::default(),
        }
    }

    /// The first ticks in `(after, to]`, in order, at most so many. None if other runs start this one.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn ticks(&self, after: Timestamp, to: Timestamp, most: usize) -> Result<Vec<Timestamp>> {
        match &self.starts {
            Starts::Cron(cron) => cron.ticks(&self.zone, after, to, most),
            Starts::Every(every) => {
                let step_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
                let first = after.as_millisecond().div_euclid(step_ms).saturating_add(1);
                let ticks = (first..).map_while(|number| Timestamp::from_millisecond(number.checked_mul(step_ms)?).ok());
                Ok(ticks.take_while(|tick| *tick <= to).take(most).collect())
            }
            Starts::AfterWorkflow(_) | Starts::AfterTable(_) => Ok(Vec::new()),
        }
    }

    /// The last tick in `(after, to]`, and how many there are.
    ///
    /// # Errors
    /// As [`Schedule::ticks`].
    pub fn last(&self, after: Timestamp, to: Timestamp) -> Result<Option<(Timestamp, u64)>> {
        if let Starts::Every(every) = &self.starts {
            let step_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
            let [before, last] = [after, to].map(|at| at.as_millisecond().div_euclid(step_ms));
            let tick = Timestamp::from_millisecond(last.saturating_mul(step_ms)).ok();
            return Ok(tick.zip(u64::try_from(last - before).ok()).filter(|(_, count)| *count > 0));
        }
        let (mut after, mut found) = (after, None);
        loop {
            const PAGE: usize = 10_000;
            let ticks = self.ticks(after, to, PAGE)?;
            let Some(last) = ticks.last() else { return Ok(found) };
            let before = found.map_or(0, |(_, count)| count);
            (after, found) = (*last, Some((*last, before + u64::try_from(ticks.len()).unwrap_or(0))));
        }
    }

    /// The first tick after an instant; `None` if there is none, or if other runs start this one.
    ///
    /// # Errors
    /// As [`Schedule::ticks`].
    pub fn next(&self, after: Timestamp) -> Result<Option<Timestamp>> {
        let mut stretch = FIRST_STRETCH;
        loop {
            let to = after.checked_add(stretch).unwrap_or(Timestamp::MAX);
            let first = self.ticks(after, to, 1)?.first().copied();
            if first.is_some() || stretch > FARTHEST || !self.starts.is_timed() {
                return Ok(first);
            }
            stretch = stretch.saturating_mul(8);
        }
    }

    /// The shortest time between two ticks, of the first thousand in a year; `None` if there are no two.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        const MANY: usize = 1_000;
        if let Starts::Every(every) = &self.starts {
            return Some(*every);
        }
        let from: Timestamp = Timestamp::from_second(1_704_067_200).ok()?; // 2024-01-01
        let ticks = self.ticks(from, from.checked_add(SignedDuration::from_hours(24 * 366)).ok()?, MANY).ok()?;
        ticks.windows(2).filter_map(|pair| Duration::try_from(pair[1].duration_since(pair[0])).ok()).min()
    }

    /// When the run of a tick starts: at the tick, or later by its jitter. `of` names what is scheduled, so that others have other delays.
    pub fn due(&self, of: &str, tick: Timestamp) -> Timestamp {
        let most_ms = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        if most_ms == 0 {
            return tick;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(of.as_bytes()).update(&[0]).update(&tick.as_millisecond().to_le_bytes());
        let drawn = u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 8]));
        let delay_ms = i64::try_from(drawn % most_ms.saturating_add(1).max(1)).unwrap_or(0);
        tick.checked_add(delay_ms.milliseconds()).unwrap_or(tick)
    }

    /// The last deadline at or before an instant, if there is one: `complete_by` on that day of the zone, or on the day before.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn deadline(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let Some(time) = self.complete_by else { return Ok(None) };
        let today = self.zone.local(now).date();
        for date in [Some(today), today.yesterday().ok()].into_iter().flatten() {
            let deadline = self.zone.start(date.to_datetime(time))?;
            if deadline <= now {
                return Ok(Some(deadline));
            }
        }
        Ok(None)
    }

    /// The first instant of the day, in the schedule's zone, in which an instant lies.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn day_of(&self, at: Timestamp) -> Result<Timestamp> {
        self.zone.start(self.zone.local(at).date().at(0, 0, 0, 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule { zone: zone.parse().unwrap(), ..Schedule::new(Starts::Cron(cron.parse().unwrap())) }
    }

    fn ticks(cron: &str, zone: &str, after: &str, to: &str) -> Vec<String> {
        let ticks = schedule(cron, zone).ticks(after.parse().unwrap(), to.parse().unwrap(), 1_000).unwrap();
        ticks.into_iter().map(|tick| tick.to_string()).collect()
    }

    #[test]
    fn a_time_of_day_comes_once_a_day_whatever_the_clock_does() {
        let spring = ("2024-03-30T00:00:00Z", "2024-04-01T23:00:00Z");
        let ticks_of = |cron: &str, (after, to)| ticks(cron, "Europe/Berlin", after, to);
        assert_eq!(ticks_of("30 2 * * *", spring), ["2024-03-30T01:30:00Z", "2024-03-31T01:00:00Z", "2024-04-01T00:30:00Z"]);
        let autumn = ("2024-10-26T12:00:00Z", "2024-10-28T12:00:00Z");
        assert_eq!(ticks_of("30 2 * * *", autumn), ["2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z"]);
        // Every hour is every hour that passes: 25 of them on that day, 23 in spring.
        assert_eq!(ticks_of("0 * * * *", ("2024-10-26T21:59:00Z", "2024-10-27T22:59:00Z")).len(), 25);
        assert_eq!(ticks_of("0 * * * *", ("2024-03-30T22:59:00Z", "2024-03-31T21:59:00Z")).len(), 23);
        assert_eq!(ticks_of("*/20 * * * *", ("2024-10-27T00:00:00Z", "2024-10-27T02:00:00Z")).len(), 6);
    }

    #[test]
    fn patterns_mean_what_cron_means() {
        let week = ("2024-03-03T23:59:00Z", "2024-03-10T23:59:00Z");
        let days = |cron: &str| ticks(cron, "UTC", week.0, week.1).iter().map(|tick| tick[8..10].to_owned()).collect::<Vec<_>>();
        assert_eq!(days("30 17 * * mon-fri"), ["04", "05", "06", "07", "08"]);
        assert_eq!(days("0 0 * * 0"), ["10"]);
        assert_eq!(days("0 0 * * 7"), ["10"]);
        // If both days are restricted, either is enough.
        assert_eq!(days("0 0 5 * fri"), ["05", "08"]);
        assert_eq!(days("@daily").len(), 7);
        assert_eq!(
            schedule("0 0 29 2 *", "UTC").next("2024-03-01T00:00:00Z".parse().unwrap()).unwrap().unwrap().to_string(),
            "2028-02-29T00:00:00Z"
        );
        for bad in ["", "* * * *", "0 0 * * * *", "60 * * * *", "0 24 * * *", "0 0 30 2 *", "0 0 * * mox", "@reboot", "0 0 0 * *"] {
            assert!(bad.parse::<Cron>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_deadline_is_a_time_of_the_day() {
        let nine = Schedule { complete_by: Some("09:00".parse().unwrap()), ..schedule("0 2 * * *", "Europe/Berlin") };
        let at = |now: &str| nine.deadline(now.parse().unwrap()).unwrap().unwrap().to_string();
        assert_eq!(at("2024-07-02T06:59:59Z"), "2024-07-01T07:00:00Z");
        assert_eq!(at("2024-07-02T07:00:00Z"), "2024-07-02T07:00:00Z");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whoever looks again and again sees each tick once, wherever they look, and the last one is the last of them.
        #[test]
        fn no_tick_is_lost_or_seen_twice(
            cron in proptest::sample::select(vec!["*/7 * * * *", "30 2 * * *", "0 */3 * * *", "15 1,2,3 * * sun", "59 23 28-31 * *", "0 0 * * *"]),
            zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu"]),
            start in 1_700_000_000i64..1_740_000_000,
            steps in proptest::collection::vec(1i64..200_000, 1..20),
        ) {
            let schedule = schedule(cron, zone);
            let start = Timestamp::from_second(start).unwrap();
            let end = start + steps.iter().sum::<i64>().seconds();
            let whole = schedule.ticks(start, end, usize::MAX).unwrap();
            let (mut at, mut seen) = (start, Vec::new());
            for step in steps {
                let next = at + step.seconds();
                let part = schedule.ticks(at, next, usize::MAX).unwrap();
                prop_assert_eq!(schedule.last(at, next).unwrap(), part.last().map(|last| (*last, part.len() as u64)));
                prop_assert_eq!(schedule.next(at).unwrap().filter(|tick| *tick <= next), part.first().copied());
                seen.extend(part);
                at = next;
            }
            prop_assert!(whole.is_sorted());
            prop_assert_eq!(whole, seen);
        }

        #[test]
        fn multiples_of_a_duration(every in 1u64..100_000, start in 1_700_000_000i64..1_740_000_000, length in 0i64..1_000_000) {
            let schedule = Schedule::new(Starts::Every(Duration::from_secs(every)));
            let [start, end] = [start, start + length].map(|s| Timestamp::from_second(s).unwrap());
            let ticks = schedule.ticks(start, end, usize::MAX).unwrap();
            prop_assert_eq!(schedule.last(start, end).unwrap(), ticks.last().map(|last| (*last, ticks.len() as u64)));
            for tick in ticks {
                prop_assert_eq!(tick.as_second() % i64::try_from(every).unwrap(), 0);
            }
        }
    }
}
