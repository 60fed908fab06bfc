//! Performs what a schedule says.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, ToSpan};
use repair_core::engine::{Journal, ListedRun, Outcome, load, spend_of};
use repair_core::lake::standing;
use repair_core::price::Spend;
use repair_core::workflow::schedule::{Schedule, Starts};
use repair_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::alert::{Alert, Alerts, Raiser};
use super::choose::{self, Day, Ended, Next, Standing, Tick};
use crate::hold::Hold;
use crate::open::Repair;

/// How often is looked again if no time is known at which something is due.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// How often is looked again if another process has the schedule.
const ELSEWHERE: SignedDuration = SignedDuration::from_secs(30);
/// How long is waited after a run could not start or go on.
const AFTER_ERROR: SignedDuration = SignedDuration::from_secs(60);

/// Why a run that is due does not start, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeldBack {
    /// The tick.
    pub tick: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub why: String,
}

/// What one look at a schedule came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A run has ended, and how.
    Ran {
        /// The run.
        run: String,
        /// How it ended; `None` if it is paused.
        outcome: Option<Outcome>,
    },
    /// Nothing is due before then; `None` if no time is known.
    Idle(Option<Timestamp>),
    /// A run is due, and waits.
    Held(HeldBack),
    /// Another process has the schedule.
    Elsewhere,
}

/// A schedule, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ScheduleStatus {
    /// The workflow.
    pub workflow: String,
    /// When it starts, in words.
    pub starts: String,
    /// The next tick, or the first one that is not settled; `None` if other runs start it.
    pub next: Option<Timestamp>,
    /// Since when the schedule is run; `None` if it was never.
    pub since: Option<Timestamp>,
    /// How many runs it has started.
    pub turns: u64,
    /// The run that it is at.
    pub current: Option<String>,
    /// Why the next run does not start, if it is due.
    pub held: Option<HeldBack>,
    /// Why the last attempt to start a run failed, if it did.
    pub error: Option<String>,
}

/// Which workflows write a table, for schedules that start after them.
type Writers = Arc<dyn Fn(&str) -> Vec<String> + Send + Sync>;
type Listener = Arc<dyn Fn(&Alert) + Send + Sync>;

/// Runs the schedule of one workflow. Several processes may run the same one; they take turns.
#[derive(Clone)]
pub struct Scheduler {
    repair: Repair,
    schedule: Schedule,
    writers: Writers,
    listener: Option<Listener>,
    alerts: Alerts,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    held: Option<HeldBack>,
    error: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Checked {
    deadline: Timestamp,
}

impl Scheduler {
    /// The scheduler of an opened workflow. Its parameters must be those of the schedule: [`Opening::values`](crate::Opening::values).
    ///
    /// # Errors
    /// `invalid` if the workflow has no `schedule`.
    pub fn of(repair: Repair) -> Result<Self> {
        let workflow = &repair.workflow;
        let schedule =
            workflow.schedule.clone().ok_or_else(|| Error::invalid(format!("workflow `{}` has no `schedule`", workflow.name)))?;
        let (name, own) = (workflow.name.clone(), workflow.clone());
        let writers: Writers = Arc::new(move |table| own.writes(table).then(|| name.clone()).into_iter().collect());
        let alerts = Alerts::of(repair.clone());
        Ok(Self { repair, schedule, writers, listener: None, alerts, seen: Arc::default() })
    }

    /// Says which workflows write a table. Without this, `after: { table: … }` has nobody to start after.
    #[must_use]
    pub fn writers(mut self, writers: impl Fn(&str) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.writers = Arc::new(writers);
        self
    }

    /// Receives what people should know, when it happens. Whoever the workflow notifies hears of it from [`Scheduler::deliver_alerts`].
    #[must_use]
    pub fn alerts(mut self, alerts: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(alerts));
        self
    }

    /// Runs the schedule until the token of the opening is cancelled. Errors are reported as alerts, and what failed is tried again.
    pub async fn run(&self) {
        tokio::join!(self.run_ticks(), self.watch_deadlines(), self.deliver_alerts());
    }

    /// Delivers what this schedule has to say, by whichever process it was raised, to whoever the workflow notifies of it, until the token of the opening is
    /// cancelled: at least once, in order, each receiver on its own. What is left then is delivered by the next process that runs the schedule, for
    /// [`MOST_AGE`](crate::notify::MOST_AGE). It returns at once if the opening has no [`notify`](crate::Opening::notify), or the workflow notifies nobody of schedules.
    pub async fn deliver_alerts(&self) {
        self.alerts.deliver().await;
    }

    async fn run_ticks(&self) {
        let around = self.repair.around();
        while !around.stop.is_cancelled() {
            let look_at = match Box::pin(self.step()).await {
                Ok(Step::Ran { outcome: Some(_), .. }) => continue,
                Ok(Step::Ran { outcome: None, .. }) => self.later(LOOK_AGAIN),
                Ok(Step::Elsewhere) => self.later(ELSEWHERE),
                Ok(Step::Idle(until)) => {
                    let soon = self.later(LOOK_AGAIN);
                    if self.schedule.starts.is_timed() { until.unwrap_or(soon) } else { soon }
                }
                Ok(Step::Held(held)) => held.until,
                Err(error) if error.kind() == ErrorKind::Cancelled => break,
                Err(error) => {
                    tracing::warn!(
                        workflow = self.repair.workflow.name,
                        error = error.full(),
                        "the schedule could not go on; it is tried again"
                    );
                    self.later(AFTER_ERROR)
                }
            };
            self.sleep_until(look_at).await;
        }
    }

    fn later(&self, by: SignedDuration) -> Timestamp {
        self.repair.around().clock.now().checked_add(by).unwrap_or(Timestamp::MAX)
    }

    async fn sleep_until(&self, until: Timestamp) {
        let around = self.repair.around();
        tokio::select! {
            () = around.clock.sleep_until(until) => {}
            () = around.stop.cancelled() => {}
        }
    }

    fn seen<T>(&self, with: impl FnOnce(&mut Seen) -> T) -> T {
        with(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says something, after it is kept for those who are to hear of it. The caller holds the lease of who raises it.
    async fn alert(&self, raiser: Raiser, alert: &Alert) -> Result<()> {
        self.alerts.keep(raiser, alert).await?;
        tracing::warn!(workflow = self.repair.workflow.name, "{alert}");
        if let Some(listener) = &self.listener {
            listener(alert);
        }
        Ok(())
    }

    fn standing_name(&self) -> String {
        format!("schedule {}", self.repair.workflow.name)
    }

    /// Does what is due: at most one run, to its end. It returns when there is nothing to do, or the run has ended.
    ///
    /// # Errors
    /// If the run could not start or go on; those of the lake and the journal; `cancelled` if it was stopped.
    pub async fn step(&self) -> Result<Step> {
        let journal = self.repair.lake().root.journal_to_write().await?;
        let name = &self.repair.workflow.name;
        let stop = self.repair.around().stop.child_token();
        let held = Hold::take(journal.clone(), format!("schedule.{name}"), self.repair.around().clock.as_ref()).await;
        let hold = match held {
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(Step::Elsewhere),
            held => held?,
        };
        let work = self.held(journal.as_ref(), &stop);
        tokio::pin!(work);
        let done = tokio::select! {
            done = &mut work => done,
            lost = hold.lost(self.repair.around().clock.as_ref()) => {
                // Somebody else may have the schedule by now, so what is under way stops first.
                stop.cancel();
                let _ = work.await;
                Err(lost)
            }
        };
        hold.release().await;
        done
    }

    async fn held(&self, journal: &dyn Journal, stop: &CancellationToken) -> Result<Step> {
        let (repair, schedule) = (&self.repair, &self.schedule);
        let (name, lake, clock) = (&repair.workflow.name, repair.opened.as_ref(), &repair.around().clock);
        let now = clock.now();
        let before: Option<Standing> = standing::read(lake, &self.standing_name()).await?;
        let mut stands = before.clone().unwrap_or_else(|| Standing::new(now));
        if before.is_none() {
            standing::write(lake, &self.standing_name(), &stands).await?;
        }
        let next = if schedule.starts.is_timed() {
            choose::by_time(schedule, name, &mut stands, now)?
        } else {
            let ended = self.ended(journal.listed(now).await?);
            choose::by_runs(schedule, name, &mut stands, &ended, now)
        };
        let tick = match next {
            Next::Wait(until) => {
                self.seen(|seen| *seen = Seen::default());
                if Some(&stands) != before.as_ref() {
                    standing::write(lake, &self.standing_name(), &stands).await?;
                }
                return Ok(Step::Idle(until));
            }
            Next::Run(tick) => tick,
        };
        let exists = !journal.read(&tick.run, 0, 1).await?.is_empty();
        let budget = if exists {
            None
        } else {
            match choose::within(schedule, self.day(journal, now).await?) {
                Ok(budget) => Some(budget),
                Err(why) => return self.hold_back(&tick, now, why).await,
            }
        };
        stands.turns = stands.turns.max(tick.turn);
        stands.current = Some(tick.clone());
        standing::write(lake, &self.standing_name(), &stands).await?;
        self.seen(|seen| seen.held = None);
        let at = repair.at(tick.at, stop.clone());
        let driven = match budget {
            Some(budget) => at.run().id(tick.run.as_str()).turn(tick.turn).budget(budget).await,
            None => {
                let state = load(journal, &tick.run).await?;
                match &state.ended {
                    None if state.paused => return Ok(Step::Ran { run: tick.run, outcome: None }),
                    _ => at.lake().resume(tick.run.as_str()).await,
                }
            }
        };
        let report = match driven {
            Ok(report) => report,
            Err(error) => {
                // Without a run, the tick is as if it had not been chosen: a later one may take its place.
                if error.kind() != ErrorKind::Cancelled && journal.read(&tick.run, 0, 1).await?.is_empty() {
                    stands.current = None;
                    stands.turns = tick.turn.saturating_sub(1);
                    standing::write(lake, &self.standing_name(), &stands).await?;
                }
                if error.kind() != ErrorKind::Cancelled {
                    let why = error.full();
                    if self.seen(|seen| seen.error.as_ref() != Some(&why)) {
                        let alert = Alert::NotStarted { workflow: name.clone(), tick: tick.at, why: why.clone() };
                        match self.alert(Raiser::Schedule, &alert).await {
                            Ok(()) => self.seen(|seen| seen.error = Some(why)),
                            // It is raised again with the next attempt to start the run.
                            Err(unkept) => tracing::warn!(workflow = name, error = unkept.full(), "{alert}; this could not be kept"),
                        }
                    }
                }
                return Err(error);
            }
        };
        self.seen(|seen| *seen = Seen::default());
        if report.outcome.is_some() {
            stands.settle();
            standing::write(lake, &self.standing_name(), &stands).await?;
        }
        Ok(Step::Ran { run: tick.run, outcome: report.outcome })
    }

    async fn hold_back(&self, tick: &Tick, now: Timestamp, why: &str) -> Result<Step> {
        let zone = &self.schedule.zone;
        let tomorrow = zone.local(now).date().tomorrow().map_err(|error| Error::invalid("the day is out of range").because(error))?;
        let until = zone.start(tomorrow.at(0, 0, 0, 0))?;
        let held = HeldBack { tick: tick.at, until, why: why.to_owned() };
        if self.seen(|seen| seen.held.as_ref().is_none_or(|before| before.until != until)) {
            let workflow = self.repair.workflow.name.clone();
            self.alert(Raiser::Schedule, &Alert::HeldBack { workflow, tick: tick.at, until, why: why.to_owned() }).await?;
        }
        self.seen(|seen| seen.held = Some(held.clone()));
        Ok(Step::Held(held))
    }

    /// What the runs that this schedule has started on this day amount to.
    async fn day(&self, journal: &dyn Journal, now: Timestamp) -> Result<Day> {
        let mut day = Day::default();
        if self.schedule.per_day == Default::default() {
            return Ok(day);
        }
        let midnight = self.schedule.day_of(now)?;
        for listed in journal.listed(now).await? {
            if listed.begun.workflow != self.repair.workflow.name || listed.begun.at < midnight {
                continue;
            }
            let state = load(journal, &listed.run).await?;
            if state.started.turn > 0 && listed.begun.parent.is_none() {
                day.runs += 1;
                if !self.schedule.per_day.budget.is_unlimited() {
                    let spend = self.repair.workflow_of(&state).map(|workflow| spend_of(&state, &workflow))?;
                    day.spend = [day.spend, spend].into_iter().sum::<Spend>();
                }
            }
        }
        Ok(day)
    }

    /// The runs that start this schedule, as far as they have ended well.
    fn ended(&self, listed: Vec<ListedRun>) -> Vec<Ended> {
        let names = match &self.schedule.starts {
            Starts::AfterWorkflow(name) => vec![name.clone()],
            Starts::AfterTable(table) => (self.writers)(table),
            _ => Vec::new(),
        };
        let own = &self.repair.workflow.name;
        let ids: BTreeSet<String> = listed.iter().map(|listed| listed.run.clone()).collect();
        let is_meant =
            |listed: &ListedRun| names.contains(&listed.begun.workflow) && listed.begun.workflow != *own && listed.begun.parent.is_none();
        listed
            .into_iter()
            .filter(|listed| is_meant(listed) && listed.latest.outcome.is_some_and(is_well))
            .map(|listed| Ended {
                is_followed: ids.contains(&choose::follower_id(own, &listed.run)),
                at: listed.latest.at,
                run: listed.run,
            })
            .collect()
    }

    async fn watch_deadlines(&self) {
        if self.schedule.complete_by.is_none() {
            return;
        }
        let around = self.repair.around();
        while !around.stop.is_cancelled() {
            let next = match self.check_deadline().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(
                        workflow = self.repair.workflow.name,
                        error = error.full(),
                        "the deadline could not be checked; it is tried again"
                    );
                    self.later(AFTER_ERROR)
                }
            };
            self.sleep_until(next).await;
        }
    }

    /// Checks the last deadline, unless that was done, and says when the next one is.
    ///
    /// # Errors
    /// Those of the lake and the journal.
    pub async fn check_deadline(&self) -> Result<Timestamp> {
        let (name, lake) = (&self.repair.workflow.name, self.repair.opened.as_ref());
        let now = self.repair.around().clock.now();
        let Some(deadline) = self.schedule.deadline(now)? else { return Ok(self.later(AFTER_ERROR)) };
        let next = self.next_deadline(now)?;
        let Some(stands) = standing::read::<Standing>(lake, &self.standing_name()).await? else { return Ok(self.later(LOOK_AGAIN)) };
        let journal = self.repair.lake().root.journal_to_write().await?;
        let hold = match Hold::take(journal.clone(), format!("deadline.{name}"), self.repair.around().clock.as_ref()).await {
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(self.later(LOOK_AGAIN)),
            held => held?,
        };
        let checked = self.judge(journal.as_ref(), &stands, deadline, now).await;
        hold.release().await;
        checked.map(|()| next)
    }

    async fn judge(&self, journal: &dyn Journal, stands: &Standing, deadline: Timestamp, now: Timestamp) -> Result<()> {
        let (workflow, lake, key) =
            (&self.repair.workflow.name, self.repair.opened.as_ref(), format!("deadline {}", self.repair.workflow.name));
        if standing::read::<Checked>(lake, &key).await?.is_some_and(|checked| checked.deadline >= deadline) {
            return Ok(());
        }
        // The ticks from the deadline before to this one. What starts at the instant of a deadline has until the next.
        let just_before = |at: Timestamp| at.checked_sub(1.nanosecond()).unwrap_or(Timestamp::MIN);
        let one_before = self.schedule.deadline(just_before(deadline))?.unwrap_or(Timestamp::MIN);
        if let Some((tick, _)) = self.schedule.last(just_before(one_before).max(stands.since), just_before(deadline))? {
            // A run of a later tick makes up for it.
            let ids: Vec<String> =
                self.schedule.ticks(tick, now, 1_000)?.into_iter().chain([tick]).map(|tick| choose::run_id(workflow, tick)).collect();
            let runs: Vec<ListedRun> = journal.listed(now).await?.into_iter().filter(|listed| ids.contains(&listed.run)).collect();
            let in_time = |listed: &ListedRun| listed.latest.outcome.is_some_and(is_well) && listed.latest.at <= deadline;
            if !runs.iter().any(in_time) {
                let run = match runs.last() {
                    None => "it has not started".to_owned(),
                    Some(listed) => match listed.latest.outcome {
                        Some(outcome) if is_well(outcome) => format!("run `{}` ended at {}", listed.run, listed.latest.at),
                        Some(outcome) => format!("run `{}` ended as {}", listed.run, outcome.as_str()),
                        None => format!("run `{}` has not ended", listed.run),
                    },
                };
                let alert = Alert::DeadlineMissed { workflow: workflow.clone(), deadline, tick, run };
                self.alert(Raiser::Deadline, &alert).await?;
            }
        }
        standing::write(lake, &key, &Checked { deadline }).await
    }

    fn next_deadline(&self, now: Timestamp) -> Result<Timestamp> {
        for hours in [1, 25, 49, 73] {
            if let Some(found) =
                self.schedule.deadline(now.checked_add(hours.hours()).unwrap_or(Timestamp::MAX))?.filter(|found| *found > now)
            {
                return Ok(found);
            }
        }
        Ok(self.later(AFTER_ERROR))
    }

    /// How the schedule stands. Nothing is written.
    ///
    /// # Errors
    /// Those of the lake.
    pub async fn status(&self) -> Result<ScheduleStatus> {
        let stands: Option<Standing> = standing::read(self.repair.opened.as_ref(), &self.standing_name()).await?;
        let from = stands.as_ref().map_or_else(|| self.repair.around().clock.now(), |stands| stands.settled);
        let (held, error) = self.seen(|seen| (seen.held.clone(), seen.error.clone()));
        Ok(ScheduleStatus {
            workflow: self.repair.workflow.name.clone(),
            starts: words(&self.schedule),
            next: self.schedule.next(from)?,
            since: stands.as_ref().map(|stands| stands.since),
            turns: stands.as_ref().map_or(0, |stands| stands.turns),
            current: stands.and_then(|stands| stands.current).map(|tick| tick.run),
            held,
            error,
        })
    }
}

/// Whether a run has ended well: with all that it was to do, or with what it says is still wrong.
fn is_well(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Succeeded | Outcome::SucceededWithExceptions)
}

/// When a schedule starts, in words.
pub(super) fn words(schedule: &Schedule) -> String {
    match &schedule.starts {
        Starts::Cron(cron) => format!("{cron} ({})", schedule.zone.name()),
        Starts::Every(every) => format!("every {}", humane(*every)),
        Starts::AfterWorkflow(name) => format!("after runs of {name}"),
        Starts::AfterTable(name) => format!("after runs that write {name}"),
        _ => "as the workflow says".to_owned(),
    }
}

pub(super) fn humane(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}
