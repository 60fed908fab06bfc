//! The state of a run: the fold of its events. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::pure::event::{ErrorRecord, Event, FORMAT, FindingsRecord, LateTruth, Outcome, Recorded, Settled, StopReason};
use crate::engine::pure::items::MapState;
use crate::engine::pure::units::{EarlierStrategy, UnitStates, repair_output};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Usage;
use crate::model::{DefectKind, Suspects};
use crate::price::Budget;
use crate::price::Spend;

/// The state of a run, according to its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// How it was started.
    pub started: Started,
    /// The number of the next event.
    pub next_sequence: u64,
    /// The time of the last event.
    pub updated_at: Timestamp,
    /// The steps that the run is at, by name. A run that has ended keeps the steps at which it ended.
    pub active: BTreeMap<String, Position>,
    /// What its steps have done so far, by name.
    pub steps: BTreeMap<String, StepState>,
    /// The latest findings for each detect step, by its name.
    pub findings: BTreeMap<String, FindingsRecord>,
    /// How many slots of the findings of each detect step were repaired or confirmed absent since, without being checked again.
    pub resolved: BTreeMap<String, u64>,
    /// What late rows showed about the accuracy of repairs, by the detect step that found them: the table, and the accuracy by strategy.
    pub late_truth: BTreeMap<String, (String, BTreeMap<String, LateTruth>)>,
    /// The last error that was caught, and the step that caught it.
    pub caught: Option<(String, ErrorRecord)>,
    /// Why the run must stop, if it must.
    pub stop: Option<StopReason>,
    /// Whether the run is paused.
    pub paused: bool,
    /// How the run ended, if it has.
    pub ended: Option<Ended>,
    /// What evaluated its expressions later, if that was another version.
    pub other_expressions: Option<String>,
    /// When the run's `timeout` starts to count.
    pub timed_from: Timestamp,
    /// A move whose target has not been entered yet.
    moving: Option<Move>,
}

/// How a run was started. This fixes what it works on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// When.
    pub at: Timestamp,
    /// The now from which relative dates are counted: the one that was given, or else when it started.
    pub now: Timestamp,
    /// The workflow's name.
    pub workflow: String,
    /// The text of the workflow; of the corrected one, if the run continued with one.
    pub definition: String,
    /// The file that the text came from.
    pub file: String,
    /// The texts of the workflows that it runs as steps, by name.
    pub children: BTreeMap<String, String>,
    /// The parameters.
    pub params: BTreeMap<String, Value>,
    /// What the driving program needs to open the lake again.
    pub environment: Value,
    /// The seed for jitter.
    pub seed: u64,
    /// What evaluates its expressions, with its exact version; older journals do not say.
    pub expressions: Option<String>,
    /// Which turn of a schedule it is, from 1; 0 if no schedule started it.
    #[serde(default)]
    pub turn: u64,
    /// What it may spend, beside the budget of the workflow.
    #[serde(default)]
    pub budget: Budget,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Move {
    from: String,
    to: String,
    error: Option<ErrorRecord>,
}

/// Where a run is within a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Which visit.
    pub visit: u32,
    /// Which attempt of this visit, from 1.
    pub attempt: u32,
    /// When the run entered the step.
    pub entered_at: Timestamp,
    /// When this attempt began or will begin; if its driver died, when it was restarted.
    pub attempt_at: Timestamp,
    /// How many times each retry rule was used in this visit.
    pub rules_used: Vec<u32>,
    /// The phase of the step.
    pub phase: Phase,
    /// Whether the failed attempt tried all units, and some failed.
    pub units_failed: bool,
    /// The last error that was caught on the way to this step.
    pub error: Option<ErrorRecord>,
    /// The step from which the run came.
    pub from: Option<String>,
}

impl Position {
    fn new(visit: u32, at: Timestamp) -> Self {
        Self {
            visit,
            attempt: 1,
            entered_at: at,
            attempt_at: at,
            rules_used: Vec::new(),
            phase: Phase::Work,
            units_failed: false,
            error: None,
            from: None,
        }
    }
}

/// The phase of an active step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Phase {
    /// The step has work to do.
    Work,
    /// The step waits.
    Waiting {
        /// When the wait ends.
        due: Timestamp,
    },
    /// The step will be retried.
    Backoff {
        /// When.
        due: Timestamp,
    },
    /// An attempt failed, and what to do about it is not decided yet.
    Failed(ErrorRecord),
    /// The step succeeded, and the next step is not decided yet.
    Done,
}

/// What a step has done so far, over all its visits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Its position in the order in which the run first entered its steps.
    pub order: u32,
    /// How often the run entered it.
    pub visits: u32,
    /// How many attempts ended, over all visits.
    pub attempts: u32,
    /// Its latest output.
    pub output: Value,
    /// What is still wrong, although the step succeeded.
    pub exceptions: Option<String>,
    /// What it used over all visits, including its units.
    pub usage: Usage,
    /// What units are assumed to have used without a record: the worst case of those that failed, or whose end a crash hid.
    pub assumed: Usage,
    /// `usage` and `assumed` by the name of the strategy. Usage that belongs to no strategy is under an empty name.
    pub taken: BTreeMap<String, Taken>,
    /// The worst-case usage that is reserved for running units by index, or for requests of a detector by number.
    pub reserved: BTreeMap<u32, Usage>,
    /// The index of the strategy in use in its latest visit.
    pub strategy: usize,
    /// The strategies that ended in its latest visit.
    pub earlier: Vec<EarlierStrategy>,
    /// The units of the strategy in use in its latest visit, if it is a repair step.
    pub units: Option<UnitStates>,
    /// The items of its latest visit, if it is a map and its list is known.
    pub map: Option<MapState>,
    /// What the runs within this one may spend or have spent in its latest visit, by the index of their item, if a budget applies.
    pub inner: BTreeMap<u32, Spend>,
    /// The same for all visits before.
    pub inner_before: Spend,
    /// How many slots the run of its latest visit left missing or wrong, if it runs another workflow.
    pub inner_missing: u64,
    /// The branches of its latest visit, if it is a parallel step.
    pub branches: BTreeMap<String, BranchState>,
    /// Its result, if it is a step of a DAG and has one.
    pub settled: Option<Settled>,
    /// The error of its latest attempt, if that failed.
    pub error: Option<ErrorRecord>,
}

/// What a strategy used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// What is on record.
    pub usage: Usage,
    /// What units are assumed to have used without a record.
    pub assumed: Usage,
}

impl StepState {
    /// The suspects of its latest visit, by strategy: slots for which a source had nothing, without that proving that they are absent.
    pub fn suspects(&self) -> impl DoubleEndedIterator<Item = &Suspects> {
        self.earlier.iter().map(|earlier| &earlier.suspects).chain(self.units.iter().map(|units| &units.suspects))
    }

    /// How many slots the runs within this one, of its latest visit, left missing or otherwise wrong.
    pub fn missing_within(&self) -> u64 {
        self.inner_missing + self.map.iter().flat_map(|map| map.ended.values()).map(|result| result.missing).sum::<u64>()
    }

    /// The name of the strategy in use; empty before the first is planned, and for steps that are not repair steps.
    pub fn strategy_name(&self) -> &str {
        self.units.as_ref().map_or("", |units| &units.strategy)
    }

    fn taken_now(&mut self) -> &mut Taken {
        let name = self.strategy_name().to_owned();
        self.taken.entry(name).or_default()
    }

    fn take(&mut self, usage: Usage) {
        self.usage += usage;
        if usage != Usage::default() {
            self.taken_now().usage += usage;
        }
    }

    /// Counts the reservation of a unit as used.
    fn assume(&mut self, unit: u32) {
        if let Some(worst) = self.reserved.remove(&unit) {
            self.assumed += worst;
            self.taken_now().assumed += worst;
        }
    }

    /// Counts the reservations of all running units as used: their ends were never recorded, and their indexes will be reused.
    fn assume_all(&mut self) {
        for unit in self.reserved.keys().copied().collect::<Vec<_>>() {
            self.assume(unit);
        }
    }
}

/// The state of a branch of a parallel step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BranchState {
    /// The branch is running.
    Running,
    /// The branch succeeded.
    Ended {
        /// Its last step.
        at: String,
    },
    /// The branch failed; it runs again only if the parallel step is retried.
    Failed {
        /// The step that failed.
        at: String,
        /// Why.
        error: ErrorRecord,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Its outcome.
    pub outcome: Outcome,
    /// The step at which it ended; in a DAG, the last step that was settled.
    pub step: String,
    /// Why.
    pub reason: Option<String>,
    /// The kind of the error it ended with.
    pub error: Option<ErrorKind>,
}

fn damaged(recorded: &Recorded, why: &str) -> Error {
    Error::invalid(format!("the journal is damaged at event {}: {why}", recorded.sequence))
}

impl RunState {
    /// The state after a run's first event.
    ///
    /// # Errors
    /// `invalid` if the event does not start a run, or was written by a newer version.
    pub fn begin(first: &Recorded) -> Result<Self> {
        let Event::RunStarted { format, workflow, definition, file, children, params, now, environment, seed, expressions, turn, budget } =
            first.event.clone()
        else {
            return Err(damaged(first, "the first event must be `run-started`"));
        };
        if format > FORMAT {
            return Err(Error::invalid(format!(
                "the run uses event format {format}, and this program supports formats up to {FORMAT}; use a newer version of the program"
            )));
        }
        if first.sequence != 0 {
            return Err(damaged(first, "the first event must have number 0"));
        }
        Ok(Self {
            started: Started {
                at: first.at,
                now: now.unwrap_or(first.at),
                workflow,
                definition,
                file,
                children,
                params,
                environment,
                seed,
                expressions,
                turn,
                budget,
            },
            next_sequence: 1,
            updated_at: first.at,
            active: BTreeMap::new(),
            steps: BTreeMap::new(),
            findings: BTreeMap::new(),
            resolved: BTreeMap::new(),
            late_truth: BTreeMap::new(),
            caught: None,
            stop: None,
            paused: false,
            ended: None,
            other_expressions: None,
            timed_from: first.at,
            moving: None,
        })
    }

    /// Folds a run's events.
    ///
    /// # Errors
    /// `invalid` if the events are not in a possible order.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> Result<Self> {
        let mut events = events.into_iter();
        let mut state = Self::begin(events.next().ok_or_else(|| Error::invalid("the run has no events"))?)?;
        events.try_for_each(|recorded| state.apply(recorded))?;
        Ok(state)
    }

    /// How many slots are still missing, or otherwise wrong, by the detect step that found them. Slots that were repaired or confirmed
    /// absent since are subtracted, even if no verify step has checked them. Stale slots are left out: which aggregates were recomputed is
    /// not known here.
    pub fn missing(&self) -> impl Iterator<Item = (&String, &FindingsRecord, u64)> {
        let repairable = self.findings.iter().filter(|(_, findings)| findings.kind != DefectKind::Stale);
        repairable.filter_map(|(of, findings)| {
            let left = findings.wrong().saturating_sub(self.resolved.get(of).copied().unwrap_or(0));
            (left > 0).then_some((of, findings, left))
        })
    }

    /// How many slots are still missing, or otherwise wrong, as far as the run knows: by its own detect steps, and by the runs within it that have
    /// ended.
    pub fn missing_in_all(&self) -> u64 {
        self.missing().map(|(_, _, missing)| missing).sum::<u64>() + self.steps.values().map(StepState::missing_within).sum::<u64>()
    }

    /// What the run has used so far.
    pub fn usage(&self) -> Usage {
        self.steps.values().map(|step| step.usage).sum()
    }

    /// Folds one more event into the state.
    ///
    /// # Errors
    /// `invalid` if the event is not possible in this state.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<()> {
        if recorded.sequence != self.next_sequence {
            return Err(damaged(recorded, &format!("event {} was expected", self.next_sequence)));
        }
        let of_ended = matches!(recorded.event, Event::RunRedriven { .. } | Event::DriverStarted { .. } | Event::DefinitionReplaced { .. });
        if self.ended.is_some() && !of_ended {
            return Err(damaged(recorded, "the run has already ended"));
        }
        match &recorded.event {
            Event::RunStarted { .. } => return Err(damaged(recorded, "a run can start only once")),
            Event::DriverStarted { expressions, .. } => {
                self.paused = false;
                self.other_expressions = expressions.clone().or(self.other_expressions.take());
                // Attempts that were running start again, and so do their timeouts.
                for position in self.active.values_mut().filter(|position| position.phase == Phase::Work) {
                    position.attempt_at = recorded.at;
                }
            }
            Event::StopRequested { why } => self.stop = Some(*why),
            Event::RunPaused => {
                self.stop = None;
                self.paused = true;
            }
            Event::RunRedriven { back } => self.redrive(recorded, back)?,
            Event::DefinitionReplaced { definition, file, children, .. } => {
                (self.started.definition, self.started.file) = (definition.clone(), file.clone());
                self.started.children.clone_from(children);
            }
            Event::RunEnded { outcome, step, reason, error } => {
                self.stop = None;
                self.ended = Some(Ended { at: recorded.at, outcome: *outcome, step: step.clone(), reason: reason.clone(), error: *error });
            }
            Event::StepEntered { step, visit } => self.enter(recorded, step, *visit),
            event => self.apply_to_step(recorded, event)?,
        }
        self.next_sequence += 1;
        self.updated_at = recorded.at;
        Ok(())
    }

    fn enter(&mut self, recorded: &Recorded, step: &str, visit: u32) {
        let order = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let state = self.steps.entry(step.to_owned()).or_insert_with(|| StepState { order, ..StepState::default() });
        state.visits = visit;
        state.assume_all();
        state.units = None;
        state.map = None;
        let inner = std::mem::take(&mut state.inner);
        state.inner_before = inner.into_values().fold(state.inner_before, |sum, spend| sum + spend);
        state.inner_missing = 0;
        state.strategy = 0;
        state.earlier.clear();
        state.branches.clear();
        state.settled = None;
        state.error = None;
        let moved = self.moving.take_if(|moving| moving.to == step);
        let (from, error) = moved.map(|moved| (moved.from, moved.error)).unzip();
        self.active.insert(step.to_owned(), Position { error: error.flatten(), from, ..Position::new(visit, recorded.at) });
    }

    fn apply_to_step(&mut self, recorded: &Recorded, event: &Event) -> Result<()> {
        match event {
            Event::Moved { from, to, why: _ } => {
                let position = self.active.remove(from).ok_or_else(|| elsewhere(recorded, from))?;
                let error = match position.phase {
                    Phase::Failed(error) => {
                        self.caught = Some((from.clone(), error.clone()));
                        Some(error)
                    }
                    _ => position.error,
                };
                self.moving = Some(Move { from: from.clone(), to: to.clone(), error });
            }
            Event::BranchesStarted { step, branches } => {
                self.at(recorded, step)?;
                let running = branches.iter().map(|branch| (branch.clone(), BranchState::Running));
                self.step(recorded, step)?.branches = running.collect();
            }
            Event::BranchEnded { step, branch, at, error } => {
                let ended = match error {
                    Some(error) => BranchState::Failed { at: at.clone(), error: error.clone() },
                    None => {
                        self.active.remove(at).ok_or_else(|| elsewhere(recorded, at))?;
                        BranchState::Ended { at: at.clone() }
                    }
                };
                let known = self.step(recorded, step)?.branches.get_mut(branch);
                *known.ok_or_else(|| damaged(recorded, "the branch was never started"))? = ended;
            }
            Event::StepSettled { step, result } => {
                if !matches!(result, Settled::Skipped { .. }) {
                    self.active.remove(step).ok_or_else(|| elsewhere(recorded, step))?;
                }
                let order = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
                let state = self.steps.entry(step.clone()).or_insert_with(|| StepState { order, ..StepState::default() });
                state.settled = Some(result.clone());
            }
            Event::TimerSet { step, due } => self.at(recorded, step)?.phase = Phase::Waiting { due: *due },
            Event::StepSucceeded { step, output, findings, exceptions, usage } => {
                self.at(recorded, step)?.phase = Phase::Done;
                let state = self.step(recorded, step)?;
                state.attempts += 1;
                state.error = None;
                state.output = output.clone();
                state.exceptions.clone_from(exceptions);
                if state.inner.is_empty() {
                    state.take(*usage);
                } else {
                    // Budgets know it already.
                    state.usage += *usage;
                }
                if let Some(findings) = findings {
                    self.findings.insert(findings.of.clone(), findings.as_ref().clone());
                    self.resolved.remove(&findings.of);
                }
            }
            Event::LateTruth { step, table, strategies } => {
                self.at(recorded, step)?;
                self.late_truth.insert(step.clone(), (table.clone(), strategies.clone()));
            }
            Event::Metered { step, usage, .. } => self.step(recorded, step)?.take(*usage),
            Event::StepFailed { step, error, units } => {
                let position = self.at(recorded, step)?;
                (position.phase, position.units_failed) = (Phase::Failed(error.clone()), *units);
                let state = self.step(recorded, step)?;
                state.attempts += 1;
                state.error = Some(error.clone());
                if state.units.is_some() || !state.earlier.is_empty() {
                    state.output = repair_output(&state.earlier, state.units.as_ref());
                }
                if let Some(map) = &state.map {
                    state.output = map.output();
                }
            }
            Event::ItemsPlanned { step, items, unread } => {
                self.at(recorded, step)?;
                self.step(recorded, step)?.map = Some(MapState::planned(items.clone(), unread.clone()));
            }
            Event::InnerSpend { step, item, spend } => {
                self.step(recorded, step)?.inner.insert(*item, *spend);
            }
            Event::InnerMissing { step, missing } => self.step(recorded, step)?.inner_missing = *missing,
            Event::ItemEnded { step, item, result } => {
                let state = self.step(recorded, step)?;
                if let Some(spend) = result.spend {
                    state.inner.insert(*item, spend);
                }
                let map = state.map.as_mut().ok_or_else(|| damaged(recorded, "the step has planned no items"))?;
                if *item as usize >= map.items.len() {
                    return Err(damaged(recorded, "the step has no such item"));
                }
                state.usage += map.end(*item, result.as_ref().clone());
            }
            Event::RetryScheduled { step, rules, kinds, due } => {
                let position = self.at(recorded, step)?;
                (position.phase, position.attempt_at) = (Phase::Backoff { due: *due }, *due);
                position.attempt += 1;
                for &rule in rules {
                    let rule = rule as usize;
                    if position.rules_used.len() <= rule {
                        position.rules_used.resize(rule + 1, 0);
                    }
                    position.rules_used[rule] += 1;
                }
                if let Some(units) = &mut self.step(recorded, step)?.units {
                    units.retry(Some(kinds));
                }
                if let Some(map) = &mut self.step(recorded, step)?.map {
                    map.retry(Some(kinds));
                }
                self.reopen_branches(step, *due);
            }
            Event::UnitsPlanned { step, usage, .. } => {
                self.at(recorded, step)?;
                let state = self.step(recorded, step)?;
                let first_batch = state.earlier.iter().map(|earlier| earlier.batches).sum();
                state.units = UnitStates::planned(event, first_batch);
                state.take(*usage);
            }
            Event::StrategyEnded { step, strategy, error } => {
                let position = self.at(recorded, step)?;
                position.rules_used.clear();
                // Otherwise the attempt continues with the next strategy.
                if matches!(position.phase, Phase::Failed(_)) {
                    (position.phase, position.units_failed) = (Phase::Work, false);
                    position.attempt += 1;
                    position.attempt_at = recorded.at;
                }
                let state = self.step(recorded, step)?;
                state.assume_all();
                let units = state.units.take();
                state.earlier.push(EarlierStrategy::new(strategy, units.as_ref(), error.clone()));
                state.strategy += 1;
            }
            Event::UnitsReserved { step, units, worst } => {
                let state = self.step(recorded, step)?;
                for &unit in units {
                    // A unit with a reservation that never ended was lost in a crash.
                    state.assume(unit);
                    state.reserved.insert(unit, *worst);
                }
            }
            Event::RequestEnded { step, request, usage, failed } => {
                let state = self.step(recorded, step)?;
                state.take(*usage);
                if *failed {
                    state.assume(*request);
                } else {
                    state.reserved.remove(request);
                }
            }
            Event::UnitsEnded { step, usage, .. } | Event::PublishEnded { step, usage, .. } => {
                let state = self.step(recorded, step)?;
                state.take(*usage);
                if let Event::UnitsEnded { staged, failed, released, .. } = event {
                    for unit in staged.iter().chain(released) {
                        state.reserved.remove(unit);
                    }
                    failed.iter().for_each(|failed| state.assume(failed.unit));
                }
                let units = self.units(recorded, step)?;
                units.apply(event).map_err(|why| damaged(recorded, why))?;
                if let Event::PublishEnded { rows, absent, .. } = event {
                    let of = units.of.clone();
                    *self.resolved.entry(of).or_default() += rows + absent;
                }
            }
            Event::UnitsLost { step, .. } | Event::PublishStarted { step, .. } => {
                self.units(recorded, step)?.apply(event).map_err(|why| damaged(recorded, why))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Failed branches of a parallel step continue from where they failed; what succeeded is not repeated.
    fn reopen_branches(&mut self, step: &str, at: Timestamp) {
        let Some(state) = self.steps.get_mut(step) else { return };
        let mut reopened = Vec::new();
        for branch in state.branches.values_mut() {
            if let BranchState::Failed { at, .. } = branch {
                reopened.push(std::mem::take(at));
                *branch = BranchState::Running;
            }
        }
        for step in reopened {
            self.work_again(&step, at);
        }
    }

    /// Puts an active step back to work, with its retry rules unused.
    fn work_again(&mut self, step: &str, at: Timestamp) {
        if let Some(position) = self.active.get_mut(step) {
            if !matches!(position.phase, Phase::Failed(_)) {
                return;
            }
            position.phase = Phase::Work;
            position.rules_used.clear();
            position.attempt += 1;
            position.attempt_at = at;
        }
        if let Some(state) = self.steps.get_mut(step) {
            state.map.iter_mut().for_each(|map| map.retry(None));
            if state.earlier.is_empty() {
                state.units.iter_mut().for_each(|units| units.retry(None));
            } else {
                // Whatever stopped the first strategy may be fixed by now, so it gets what is left before the others do.
                state.assume_all();
                let units = state.units.take();
                if let Some(units) = units {
                    state.earlier.push(EarlierStrategy::new(&units.strategy, Some(&units), units.an_error()));
                }
                state.strategy = 0;
            }
        }
        self.reopen_branches(step, at);
    }

    fn redrive(&mut self, recorded: &Recorded, back: &BTreeMap<String, String>) -> Result<()> {
        if self.ended.take().is_none() {
            return Err(damaged(recorded, "a run that has not ended cannot be redriven"));
        }
        self.stop = None;
        self.timed_from = recorded.at;
        for (from, to) in back {
            let position = self.active.remove(from).ok_or_else(|| elsewhere(recorded, from))?;
            let visit = self.step(recorded, to)?.visits;
            let failed = position.error.unwrap_or_else(|| ErrorRecord {
                kind: ErrorKind::Invalid,
                message: format!("the run moved to `{from}`"),
                retry_after_ms: None,
            });
            self.active.insert(to.clone(), Position { phase: Phase::Failed(failed), ..Position::new(visit, recorded.at) });
        }
        // In a DAG, failed steps start again within the same visit, and skipped steps are decided again.
        let mut failed = Vec::new();
        for (name, state) in &mut self.steps {
            match &state.settled {
                Some(Settled::Failed { error }) => failed.push((name.clone(), state.visits, error.clone())),
                Some(Settled::Skipped { .. }) => {}
                _ => continue,
            }
            state.settled = None;
        }
        for (step, visit, error) in failed {
            self.active.insert(step, Position { phase: Phase::Failed(error), ..Position::new(visit, recorded.at) });
        }
        for step in self.active.keys().cloned().collect::<Vec<_>>() {
            self.work_again(&step, recorded.at);
        }
        Ok(())
    }

    fn at(&mut self, recorded: &Recorded, step: &str) -> Result<&mut Position> {
        if !self.active.contains_key(step) {
            let at = self.active.keys().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ");
            let at = if at.is_empty() { "no step".to_owned() } else { at };
            return Err(damaged(recorded, &format!("it refers to step `{step}`, but the run is at {at}")));
        }
        self.active.get_mut(step).ok_or_else(|| elsewhere(recorded, step))
    }

    fn step(&mut self, recorded: &Recorded, step: &str) -> Result<&mut StepState> {
        self.steps.get_mut(step).ok_or_else(|| damaged(recorded, &format!("the run never entered step `{step}`")))
    }

    fn units(&mut self, recorded: &Recorded, step: &str) -> Result<&mut UnitStates> {
        let units = &mut self.step(recorded, step)?.units;
        units.as_mut().ok_or_else(|| damaged(recorded, "the step has planned no units"))
    }
}

fn elsewhere(recorded: &Recorded, step: &str) -> Error {
    damaged(recorded, &format!("it refers to step `{step}`, but the run is not at that step"))
}
