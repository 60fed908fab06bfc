//! Which run a schedule starts next. Pure: it takes what stands and what has run, and has no clock.

use jiff::Timestamp;
use repair_core::Result;
use repair_core::price::{Budget, Spend};
use repair_core::workflow::schedule::{Missed, Schedule};
use serde::{Deserialize, Serialize};

/// How long after it was due a run still starts if missed ticks have none.
const ON_TIME_S: i64 = 60;
/// How many characters of a workflow's name a run's id begins with. With the tick and a mark they fit into what an id may have.
const NAME_LENGTH: usize = 40;

/// How far a schedule has come. It is kept in the lake, and written only by who holds the schedule's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Since when the schedule is run. Ticks before that are none of its.
    pub(crate) since: Timestamp,
    /// Up to which instant all ticks are settled: each had its run, or none is due.
    pub(crate) settled: Timestamp,
    /// How many runs it has started.
    pub(crate) turns: u64,
    /// The run that was started last, until its end is known.
    #[serde(default)]
    pub(crate) current: Option<Tick>,
}

/// A tick, and its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tick {
    /// When it is. It is the run's now.
    pub(crate) at: Timestamp,
    /// The run's id. It follows from the tick, so that no tick has two runs.
    pub(crate) run: String,
    /// The turn of the run.
    pub(crate) turn: u64,
    /// Up to which instant ticks are settled by it.
    pub(crate) settles: Timestamp,
}

impl Standing {
    /// A schedule that is first run now.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { since: now, settled: now, turns: 0, current: None }
    }

    /// The run that was started last has ended.
    pub(crate) fn settle(&mut self) {
        if let Some(tick) = self.current.take() {
            self.settled = self.settled.max(tick.settles);
        }
    }
}

/// What the runs of a day amount to so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Day {
    /// How many have started.
    pub(crate) runs: u32,
    /// What they have spent and reserved.
    pub(crate) spend: Spend,
}

/// A run of another workflow that has ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) run: String,
    pub(crate) at: Timestamp,
    /// Whether its follower has started already.
    pub(crate) is_followed: bool,
}

/// What a schedule does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// It starts this run, or goes on with it.
    Run(Tick),
    /// Nothing is due before then; `None` if no time is known.
    Wait(Option<Timestamp>),
}

/// The next run of a timed schedule. Ticks that are settled without a run are marked in `standing`.
pub(crate) fn by_time(schedule: &Schedule, name: &str, standing: &mut Standing, now: Timestamp) -> Result<Next> {
    if let Some(tick) = &standing.current {
        return Ok(Next::Run(tick.clone()));
    }
    let due = |tick: &Timestamp| schedule.due(name, *tick) <= now;
    let jitter = jiff::SignedDuration::try_from(schedule.jitter).unwrap_or(jiff::SignedDuration::ZERO);
    // Up to here, every tick is due, whatever its delay.
    let certain = now.checked_sub(jitter).unwrap_or(Timestamp::MIN).max(standing.settled);
    let recent = || Ok::<_, repair_core::Error>(schedule.ticks(certain, now, usize::MAX)?.into_iter().filter(|tick| due(tick)));
    let chosen = match schedule.missed {
        Missed::All => schedule.ticks(standing.settled, now, 1)?.into_iter().find(due).map(|tick| (tick, tick)),
        Missed::One | Missed::None => {
            let last = recent()?.next_back();
            let last = last.map_or_else(
                || Ok::<_, repair_core::Error>(schedule.last(standing.settled, certain)?.map(|(tick, _)| tick)),
                |tick| Ok(Some(tick)),
            )?;
            last.map(|tick| (tick, tick))
        }
    };
    if let Some((tick, settles)) = chosen {
        let is_late = schedule.missed == Missed::None && schedule.due(name, tick).duration_since(now).as_secs() < -ON_TIME_S;
        if !is_late {
            let turn = standing.turns + 1;
            return Ok(Next::Run(Tick { at: tick, run: run_id(name, tick), turn, settles }));
        }
        standing.settled = tick;
    }
    // The first of those to come that is due; delays may change their order.
    let first = schedule.next(standing.settled)?;
    let until = first.map(|first| schedule.due(name, first).max(now));
    Ok(Next::Wait(until))
}

/// The next run of a schedule that other runs start.
pub(crate) fn by_runs(schedule: &Schedule, name: &str, standing: &mut Standing, ended: &[Ended], now: Timestamp) -> Next {
    if let Some(tick) = &standing.current {
        return Next::Run(tick.clone());
    }
    let mut open: Vec<&Ended> = ended.iter().filter(|ended| ended.at > standing.since && !ended.is_followed).collect();
    open.sort_by(|a, b| (a.at, &a.run).cmp(&(b.at, &b.run)));
    if schedule.missed != Missed::All {
        open.retain(|ended| ended.at > standing.settled);
    }
    let chosen = match schedule.missed {
        Missed::All => open.first(),
        Missed::One => open.last(),
        Missed::None => {
            if let Some(last) = open.iter().rfind(|ended| now.duration_since(ended.at).as_secs() > ON_TIME_S) {
                standing.settled = standing.settled.max(last.at);
            }
            open.iter().find(|ended| ended.at > standing.settled)
        }
    };
    let tick = chosen.map(|ended| Tick { at: ended.at, run: follower_id(name, &ended.run), turn: standing.turns + 1, settles: ended.at });
    tick.map_or(Next::Wait(None), Next::Run)
}

/// Whether a run that is due may start on this day, and what it may then spend at most.
pub(crate) fn within(schedule: &Schedule, day: Day) -> Result<Budget, &'static str> {
    if schedule.per_day.runs.is_some_and(|runs| day.runs >= runs) {
        return Err("as many runs have started as may start on one day");
    }
    let left = schedule.per_day.budget.less(day.spend);
    let nothing = left.usd.is_some_and(|usd| usd.is_zero()) || left.calls == Some(0) || left.bytes == Some(0);
    if nothing { Err("what may be spent on one day is spent") } else { Ok(left) }
}

/// The id of the run of a tick.
pub(crate) fn run_id(name: &str, tick: Timestamp) -> String {
    format!("{}-{}", short(name), tick.strftime("%Y%m%dT%H%M%SZ"))
}

/// The id of the run that follows another one.
pub(crate) fn follower_id(name: &str, run: &str) -> String {
    format!("{}-after-{}", short(name), hash(run))
}

/// A name that may be part of an id. Long names differ by a hash.
fn short(name: &str) -> String {
    if name.len() <= NAME_LENGTH {
        name.to_owned()
    } else {
        format!("{}-{}", name.chars().take(NAME_LENGTH - 9).collect::<String>(), &hash(name)[..8])
    }
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().as_str()[..16].to_owned()
}
