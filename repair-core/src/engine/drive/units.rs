//! Performs the units of a repair step, several at once and within a rate limit. Each unit is checked and staged, ends are journaled in
//! groups, and staged units are published before they exceed a bound. The list of units is read as needed, and need not fit in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::engine::drive::artifact;
use crate::engine::drive::artifact::{Counted, UnitStream};
use crate::engine::drive::tried;
use crate::engine::drive::work::{ReadyStrategy, Recorder, Work};
use crate::engine::pure::event::{ErrorRecord, Event, FindingsRecord, UnitFailed};
use crate::engine::pure::retry;
use crate::engine::pure::units::{UnitState, UnitStates};
use crate::engine::unit::{PUBLISH_ROWS, PUBLISH_UNITS, UnitWork};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{StageScope, Staged};
use crate::model::Usage;
use crate::model::{AnswerPrint, Conflicts, Findings, Key, SlotRange, Suspects, Table, Unit};
use crate::plugin::StepContext;
use crate::workflow::{Step, StepKind};

/// How many unit ends are journaled in one commit at most.
const GROUP: usize = 1_024;
/// How many times an attempt repairs units again that it had staged and lost. What loses more of them is not an accident.
const LOSSES: u32 = 3;
/// The journal lags by at most this long. After a crash, the engine asks the lake about units that ended in that time.
const GROUP_TIME: Duration = Duration::from_millis(50);

/// A unit that ended.
struct UnitEnded {
    unit: u32,
    /// Whether anything may have been requested.
    asked: bool,
    result: Result<Staged>,
}

/// The units that are staged and not published, by index: the id of each, and how many rows and absent slots it has.
#[derive(Default)]
struct StagedUnits {
    units: BTreeMap<u32, (String, u64)>,
    rows: u64,
}

impl StagedUnits {
    fn insert(&mut self, unit: u32, id: String, rows: u64) {
        self.remove(unit);
        self.rows += rows;
        self.units.insert(unit, (id, rows));
    }

    fn remove(&mut self, unit: u32) -> Option<String> {
        let (id, rows) = self.units.remove(&unit)?;
        self.rows -= rows;
        Some(id)
    }

    fn id(&self, unit: u32) -> Option<&String> {
        self.units.get(&unit).map(|(id, _)| id)
    }

    /// Whether it is time to publish them.
    fn are_many(&self) -> bool {
        self.units.len() >= PUBLISH_UNITS || self.rows >= PUBLISH_ROWS
    }

    /// Those to publish next: as many as the limits allow, and one at least.
    fn next(&self) -> Vec<u32> {
        let (mut units, mut rows) = (Vec::new(), 0);
        for (unit, (_, of_unit)) in &self.units {
            if units.len() >= PUBLISH_UNITS || rows >= PUBLISH_ROWS {
                break;
            }
            units.push(*unit);
            rows += of_unit;
        }
        units
    }
}

/// A strategy's turn in an attempt of a repair step.
pub(crate) struct Turn<'a> {
    /// The strategy.
    pub(crate) ready: &'a ReadyStrategy,
    /// Its index among the step's strategies.
    pub(crate) strategy: usize,
    /// How many turns came before it in this visit, and how many batches they published.
    pub(crate) earlier: (usize, u32),
    /// Its units, if they are planned.
    pub(crate) units: Option<UnitStates>,
    /// What to repair.
    pub(crate) findings: Findings,
    /// What earlier strategies left, for the journal, and what finding that out used.
    pub(crate) left: (Option<Box<FindingsRecord>>, Usage),
    /// How many times each retry rule was used.
    pub(crate) rules_used: &'a [u32],
}

/// One attempt at the units of a strategy.
pub(crate) struct Fanout<'a> {
    work: &'a Work,
    recorder: &'a Recorder,
    doing: UnitWork,
    strategy: usize,
    rules_used: &'a [u32],
    /// A copy of the run's own, kept in step with it, without the answers that are remembered.
    units: UnitStates,
    /// The staged units, by index.
    staged: StagedUnits,
    concurrency: usize,
    /// Whether a budget applies to the strategy.
    budgeted: bool,
    /// The next units, which wait to start.
    held: VecDeque<(u32, Unit)>,
    /// Why the budget refused a unit, if it did when last asked.
    refused: Option<String>,
    /// Why units were lost that had been staged, if any were.
    lost: Option<Error>,
}

/// Performs the remaining units of a strategy. An error with `true` means that all units were attempted, and some failed.
pub(crate) async fn repair(work: &Work, recorder: &Recorder, turn: Turn<'_>) -> Result<UnitStates, (Error, bool)> {
    let prepared = Fanout::prepare(work, recorder, turn).await;
    let mut fanout = prepared.map_err(|error| (error, false))?;
    fanout.run().await.map_err(|error| (error, false))?;
    fanout.count_asked().await.map_err(|error| (error, false))?;
    if let Some(why) = fanout.refused.take().filter(|_| !fanout.held.is_empty()) {
        let left = format!("{} of {} units were not started", fanout.units.pending(), fanout.units.len());
        return Err((Error::new(ErrorKind::Budget, format!("{why}; {left}")), false));
    }
    match fanout.units.an_error() {
        Some(record) if fanout.units.failed() > 0 => Err((record.into(), true)),
        _ => Ok(fanout.units),
    }
}

impl<'a> Fanout<'a> {
    /// Plans the units, or continues with the existing plan.
    async fn prepare(work: &'a Work, recorder: &'a Recorder, turn: Turn<'a>) -> Result<Self> {
        let Step { name, kind: StepKind::Repair { of, concurrency, rate_limit, .. }, .. } = &work.step else {
            return Err(Error::internal("not a repair step"));
        };
        let Turn { ready, strategy, earlier: (turns, first_batch), units, findings, left: (left, mut usage), rules_used } = turn;
        let context = StepContext { lake: ready.lake.clone(), elsewhere: ready.elsewhere.clone(), ..work.context.clone() };
        let findings = Arc::new(findings);
        let doing = UnitWork::new(context.clone(), ready.repairer.clone(), findings.clone(), ready.name.clone(), *rate_limit)
            .map_err(|error| error.on("of", of))?;
        let units = match units {
            Some(units) => units,
            None => {
                let artifact = match turns {
                    0 => format!("{name}-{}-units", context.visit),
                    turns => format!("{name}-{}-{turns}-units", context.visit),
                };
                let counted = Arc::new(Mutex::new(Counted::default()));
                let planned = ready.repairer.plan(&context, &findings).await?;
                let batches = artifact::units_to_batches(planned, counted.clone());
                usage += context.lake.put_artifact(&context.run, &artifact, batches).await?;
                let counted = *counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let count = u32::try_from(counted.units)
                    .map_err(|_| Error::invalid("the step has more than four billion units; narrow its interval"))?;
                if count == 0 && !findings.gaps.is_empty() {
                    tracing::warn!(
                        step = %name,
                        strategy = %ready.name,
                        slots = findings.gaps.missing(),
                        "the strategy repairs nothing of what was found, because its own limits leave all of it out"
                    );
                }
                // Slots that no unit covers are left to the next strategy, or stay unresolved.
                let slots = if turns == 0 && work.step.kind.strategies().len() == 1 { counted.slots } else { findings.gaps.missing() };
                let event = Event::UnitsPlanned {
                    step: name.clone(),
                    of: of.clone(),
                    table: doing.table.name.clone(),
                    strategy: ready.name.to_string(),
                    units: count,
                    slots,
                    artifact,
                    tags: ready.tags.as_ref().clone(),
                    left,
                    usage,
                };
                recorder.record(vec![event.clone()]).await?;
                UnitStates::planned(&event, first_batch).ok_or_else(|| Error::internal("the event plans no units"))?
            }
        };
        let concurrency = (*concurrency).max(1) as usize;
        Ok(Self {
            work,
            recorder,
            doing,
            strategy,
            rules_used,
            units,
            staged: StagedUnits::default(),
            concurrency,
            budgeted: ready.budgeted,
            held: VecDeque::new(),
            refused: None,
            lost: None,
        })
    }

    async fn run(&mut self) -> Result<()> {
        let mut answers = self.units.take_answers();
        answers.extend(self.recover().await?);
        self.doing.repairer.recall(&answers);
        drop(answers);
        for round in 0.. {
            self.publish_begun().await?;
            self.do_units().await?;
            while !self.staged.units.is_empty() {
                self.publish_next().await?;
            }
            match self.lost.take() {
                None => break,
                Some(error) if round >= LOSSES => return Err(error),
                Some(_) => {}
            }
        }
        self.work.context.check_cancelled()
    }

    /// Counts this run for the slots for which it has asked, and was answered, if the step gives up after so many.
    async fn count_asked(&self) -> Result<()> {
        let StepKind::Repair { of, give_up_after: Some(_), .. } = &self.work.step.kind else { return Ok(()) };
        let answered = self.units.are(|state| state == UnitState::Published);
        let mut units = self.planned(move |index| answered.get(index as usize).is_some_and(|answered| *answered)).await?;
        let mut asked: BTreeMap<Key, Vec<SlotRange>> = BTreeMap::new();
        while let Some((_, unit)) = units.try_next().await? {
            for wanted in unit.wanted {
                asked.entry(wanted.key).or_default().extend(wanted.slots);
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        tried::count(&self.doing.context, &self.doing.table, of, asked).await
    }

    fn scope(&self) -> (Arc<Table>, StepContext) {
        (self.doing.table.clone(), self.doing.context.clone())
    }

    async fn record(&mut self, event: Event) -> Result<()> {
        self.units.apply(&event).map_err(Error::internal)?;
        // The repairer remembers them itself, and the run does.
        self.units.forget_answers();
        self.recorder.record(vec![event]).await
    }

    /// The units of the plan whose index is wanted.
    async fn planned(&self, wanted: impl Fn(u32) -> bool + Send + 'static) -> Result<UnitStream> {
        let batches = self.work.context.lake.get_artifact(&self.work.context.run, &self.units.artifact).await?;
        Ok(artifact::units_from_batches(batches, wanted))
    }

    /// Finds units by their ids that were staged but not journaled before a crash, so that they are never paid for again; and those that are
    /// on record as staged and are gone. Returns what to remember of the answers that the former used.
    async fn recover(&mut self) -> Result<Vec<AnswerPrint>> {
        let (table, context) = self.scope();
        let scope = StageScope { run: &context.run, step: &context.step, visit: context.visit, table: &table };
        let mut found: HashMap<String, Staged> =
            context.lake.staged(&scope).await?.into_iter().map(|staged| (staged.unit.clone(), staged)).collect();
        if found.is_empty() && self.units.staged() == 0 {
            return Ok(Vec::new());
        }
        let (mut usage, mut conflicts, mut suspects) = (Usage::default(), Conflicts::default(), Suspects::default());
        let (mut recovered, mut left_over, mut lost, mut answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut units = self.planned(|_| true).await?;
        while let Some((index, unit)) = units.try_next().await? {
            let id = unit.id(&table.name, &self.doing.strategy);
            let staged = found.remove(&id);
            match (self.units.state(index), staged) {
                (Some(UnitState::Staged), found) => {
                    if found.is_none() {
                        lost.push(index);
                    }
                    self.staged.insert(index, id, found.map_or(0, |staged| slots_of(&staged)));
                }
                (Some(UnitState::Pending), Some(staged)) => {
                    self.staged.insert(index, id, slots_of(&staged));
                    usage += staged.usage;
                    conflicts += staged.conflicts;
                    suspects += staged.suspects;
                    answers.extend(staged.answers);
                    recovered.push(index);
                }
                (Some(UnitState::Published), Some(_)) => left_over.push(id),
                _ => {}
            }
        }
        drop(units);
        if !left_over.is_empty() {
            self.discard(&scope, &left_over).await;
        }
        if !lost.is_empty() {
            self.lose(&scope, lost).await?;
        }
        if recovered.is_empty() {
            return Ok(Vec::new());
        }
        self.record(Event::UnitsEnded {
            step: self.work.step.name.clone(),
            staged: recovered,
            usage,
            conflicts,
            suspects,
            answers: answers.clone(),
            failed: Vec::new(),
            released: Vec::new(),
        })
        .await?;
        Ok(answers)
    }

    async fn do_units(&mut self) -> Result<()> {
        let total = self.units.len();
        let some_are_pending = self.units.pending() > 0;
        let all = self.units.pending() == total;
        let progress = self.work.context.progress.clone();
        progress.advance(&self.work.step.name, total - self.units.pending(), total);
        if !some_are_pending || self.is_hopeless() {
            return Ok(());
        }
        // What is pending now, and not what will be: a unit that is lost meanwhile waits for the next round.
        let pending = if all { Vec::new() } else { self.units.are(|state| state == UnitState::Pending) };
        let wanted = move |index: u32| all || pending.get(index as usize).is_some_and(|pending| *pending);
        let mut waiting = Some(self.planned(wanted).await?);
        let mut running: JoinSet<UnitEnded> = JoinSet::new();
        // The unit of each task, in case the task panics.
        let mut tasks: HashMap<tokio::task::Id, u32> = HashMap::new();
        loop {
            let group = self.next_group(&mut waiting, &mut running, &mut tasks).await?;
            if group.is_empty() {
                return Ok(());
            }
            let event = self.ended(group);
            if let Event::UnitsEnded { staged, failed, released, .. } = &event
                && (!staged.is_empty() || !failed.is_empty() || !released.is_empty())
            {
                self.record(event).await?;
            }
            progress.advance(&self.work.step.name, total - self.units.pending(), total);
            if self.is_hopeless() {
                // Running units are still awaited.
                waiting = None;
                self.held.clear();
            }
            while self.staged.are_many() {
                self.publish_next().await?;
            }
        }
    }

    /// The next group of units that ended; empty when all have.
    async fn next_group(
        &mut self,
        waiting: &mut Option<UnitStream>,
        running: &mut JoinSet<UnitEnded>,
        tasks: &mut HashMap<tokio::task::Id, u32>,
    ) -> Result<Vec<UnitEnded>> {
        let mut group = Vec::new();
        let mut deadline = None;
        // Units that ended since the refusal are on record by now, and may have made room.
        self.refused = None;
        loop {
            for (index, unit) in self.may_start(waiting, running.len()).await? {
                let doing = self.doing.clone();
                let performing = async move {
                    let asked = AtomicBool::new(false);
                    let result = doing.perform(&unit, &asked).await;
                    UnitEnded { unit: index, asked: asked.into_inner(), result }
                };
                let handle = running.spawn(performing.instrument(tracing::info_span!("unit", unit = index)));
                tasks.insert(handle.id(), index);
            }
            let next = match deadline {
                None => running.join_next_with_id().await,
                Some(deadline) => match tokio::time::timeout_at(deadline, running.join_next_with_id()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(group),
                },
            };
            let Some(joined) = next else { return Ok(group) };
            group.push(match joined {
                Ok((id, ended)) => {
                    tasks.remove(&id);
                    ended
                }
                Err(error) => {
                    let unit = tasks.remove(&error.id()).unwrap_or(u32::MAX);
                    UnitEnded {
                        unit,
                        asked: true,
                        result: Err(Error::internal("a repairer panicked; this is a bug in the plug-in").because(error)),
                    }
                }
            });
            deadline.get_or_insert_with(|| tokio::time::Instant::now() + GROUP_TIME);
            if group.len() >= GROUP {
                return Ok(group);
            }
        }
    }

    /// The units to start now: as many as `concurrency` and the budget allow. Their worst-case usage is on record when this returns.
    async fn may_start(&mut self, waiting: &mut Option<UnitStream>, running: usize) -> Result<Vec<(u32, Unit)>> {
        if self.work.context.cancel.is_cancelled() {
            return Ok(Vec::new());
        }
        while running + self.held.len() < self.concurrency
            && let Some(units) = waiting
        {
            match units.try_next().await? {
                Some(unit) => self.held.push_back(unit),
                None => *waiting = None,
            }
        }
        let mut free = self.concurrency.saturating_sub(running).min(self.held.len());
        if free > 0 && self.budgeted {
            if self.refused.is_some() {
                return Ok(Vec::new());
            }
            let worst = |unit: &Unit| self.doing.repairer.worst(&self.doing.context, unit);
            let asked = self.held.iter().take(free).map(|(index, unit)| (*index, worst(unit))).collect();
            let granted = self.recorder.reserve(asked).await?;
            (free, self.refused) = (granted.units, granted.refused);
        }
        Ok(self.held.drain(..free).collect())
    }

    fn ended(&mut self, group: Vec<UnitEnded>) -> Event {
        let (mut staged, mut failed, mut released, mut answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut usage, mut conflicts, mut suspects) = (Usage::default(), Conflicts::default(), Suspects::default());
        let stopping = self.work.context.cancel.is_cancelled();
        for UnitEnded { unit, asked, result } in group {
            match result {
                Ok(done) => {
                    let rows = slots_of(&done);
                    let id = done.unit;
                    usage += done.usage;
                    conflicts += done.conflicts;
                    suspects += done.suspects;
                    answers.extend(done.answers);
                    staged.push(unit);
                    self.staged.insert(unit, id, rows);
                }
                // A unit that was stopped has not failed: it runs again when the run is resumed.
                Err(error) if stopping && error.kind() == ErrorKind::Cancelled => {
                    if self.budgeted && !asked {
                        released.push(unit);
                    }
                }
                Err(error) => failed.push(UnitFailed { unit, error: ErrorRecord::from(&error) }),
            }
        }
        Event::UnitsEnded { step: self.work.step.name.clone(), staged, usage, conflicts, suspects, answers, failed, released }
    }

    /// Whether so many units failed with errors that no retry rule covers that starting further ones is pointless.
    fn is_hopeless(&self) -> bool {
        let rules = self.work.step.retry_of(self.strategy);
        let lost = |kind| retry::applicable(rules, self.rules_used, kind).is_none();
        self.work.step.is_hopeless(self.strategy, self.units.failed_by_kind().filter(|(kind, _)| lost(*kind)), self.units.len())
    }

    /// Repeats publications that were started before a crash. They use the same names, so nothing is published twice.
    async fn publish_begun(&mut self) -> Result<()> {
        let begun: Vec<(u32, Vec<u32>)> = self.units.begun_batches().map(|(number, units)| (number, units.to_vec())).collect();
        for (number, units) in begun {
            self.publish_batch(number, &units).await?;
        }
        Ok(())
    }

    async fn publish_next(&mut self) -> Result<()> {
        let units = self.staged.next();
        let batch = self.units.next_batch();
        self.record(Event::PublishStarted { step: self.work.step.name.clone(), batch, units: units.clone() }).await?;
        self.publish_batch(batch, &units).await
    }

    async fn publish_batch(&mut self, batch: u32, units: &[u32]) -> Result<()> {
        let named = |unit: &u32| match self.staged.id(*unit) {
            Some(id) => Ok((*unit, id.clone())),
            None => Err(Error::internal("a unit to publish is not in the plan")),
        };
        let mut units: BTreeMap<u32, String> = units.iter().map(named).collect::<Result<_>>()?;
        let (table, context) = self.scope();
        let scope = StageScope { run: &context.run, step: &context.step, visit: context.visit, table: &table };
        let (ids, done) = loop {
            if units.is_empty() {
                return Ok(());
            }
            let ids: Vec<String> = units.values().cloned().collect();
            match context.lake.publish(&scope, batch, &ids).await {
                Ok(done) => break (ids, done),
                Err(error) => {
                    let Some(unit) = lost_unit(&error, &units) else { return Err(error) };
                    units.remove(&unit);
                    self.lose(&scope, vec![unit]).await?;
                    self.lost = Some(error);
                }
            }
        };
        let step = self.work.step.name.clone();
        self.record(Event::PublishEnded { step, batch, rows: done.rows, absent: done.absent, usage: done.usage }).await?;
        units.keys().for_each(|unit| drop(self.staged.remove(*unit)));
        self.discard(&scope, &ids).await;
        Ok(())
    }

    /// Makes units pending again that were staged, and are gone or damaged. They are paid for again, within the budget.
    async fn lose(&mut self, scope: &StageScope<'_>, units: Vec<u32>) -> Result<()> {
        let ids: Vec<String> = units.iter().filter_map(|unit| self.staged.remove(*unit)).collect();
        tracing::warn!(step = scope.step, units = ids.join(", "), "staged units are gone or damaged, so they are repaired again");
        // A lake may keep what was staged first, so what is damaged goes before the unit is staged again.
        self.discard(scope, &ids).await;
        self.record(Event::UnitsLost { step: self.work.step.name.clone(), units }).await
    }

    /// Removes staged units that are published and journaled. Leftovers after a crash only cost space.
    async fn discard(&self, scope: &StageScope<'_>, ids: &[String]) {
        if let Err(error) = self.work.context.lake.discard_staged(scope, ids).await {
            tracing::warn!(step = scope.step, error = error.full(), "staged objects could not be removed");
        }
    }
}

/// How many slots a staged unit repairs or confirms absent.
fn slots_of(staged: &Staged) -> u64 {
    staged.rows + staged.absent
}

/// The unit that a lake no longer has as it was staged, if that is why it could not publish.
fn lost_unit(error: &Error, units: &BTreeMap<u32, String>) -> Option<u32> {
    let (_, id) = error.context().iter().find(|(name, _)| *name == "unit").filter(|_| error.kind() == ErrorKind::NotFound)?;
    units.iter().find(|(_, named)| *named == id).map(|(unit, _)| *unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staged_units_are_published_in_bounded_batches() {
        let many = u32::try_from(PUBLISH_UNITS).unwrap();
        let mut staged = StagedUnits::default();
        assert!(staged.next().is_empty() && !staged.are_many());
        (0..many - 1).for_each(|unit| staged.insert(unit, unit.to_string(), 1));
        assert!(!staged.are_many(), "they may wait");
        (many - 1..many + 10).for_each(|unit| staged.insert(unit, unit.to_string(), 1));
        assert!(staged.are_many());
        let next = staged.next();
        assert_eq!(next, (0..many).collect::<Vec<_>>());
        next.iter().for_each(|unit| assert_eq!(staged.remove(*unit), Some(unit.to_string())));
        assert!(!staged.are_many() && staged.rows == 10);
        // Few of many rows.
        for unit in 1_000_000..1_000_005 {
            staged.insert(unit, unit.to_string(), PUBLISH_ROWS / 2);
        }
        assert_eq!((staged.are_many(), staged.next().len()), (true, 12), "ten small ones, and two that fill it");
        staged.insert(0, "0".to_owned(), 10 * PUBLISH_ROWS);
        assert_eq!(staged.next(), [0], "one at least");
        // One that is staged again counts once.
        let rows = staged.rows;
        staged.insert(0, "0".to_owned(), 10 * PUBLISH_ROWS);
        assert_eq!(staged.rows, rows);
    }
}
