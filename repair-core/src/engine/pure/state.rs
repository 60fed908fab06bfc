//! What a run has come to: the fold of its events. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::engine::pure::event::{ErrorRecord, Event, FORMAT, FindingsRecord, LateTruth, Outcome, Recorded, Settled, StopReason};
use crate::engine::pure::units::{Earlier, Units, repair_output};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Usage;
use crate::model::{DefectKind, Suspects};

/// A run, as far as its events tell.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// How it was started.
    pub started: Started,
    /// The number of the next event.
    pub next_sequence: u64,
    /// When the last event was.
    pub updated_at: Timestamp,
    /// The steps it is at, by name. A run that has ended keeps those at which it ended.
    pub active: BTreeMap<String, Position>,
    /// What its steps did so far, by name.
    pub steps: BTreeMap<String, StepState>,
    /// The latest findings about what each detect step looks at, by the detect step's name.
    pub findings: BTreeMap<String, FindingsRecord>,
    /// Of the findings of each detect step, slots that were repaired or confirmed absent since, and not looked at again.
    pub resolved: BTreeMap<String, u64>,
    /// What rows that came late told of repairs, by the detect step that found them: of which table, and by repair idea.
    pub late_truth: BTreeMap<String, (String, BTreeMap<String, LateTruth>)>,
    /// The error that was caught last, and the step that caught it.
    pub caught: Option<(String, ErrorRecord)>,
    /// Whether it is to stop, and why.
    pub stop: Option<StopReason>,
    /// Whether it was paused.
    pub paused: bool,
    /// How it ended, if it has.
    pub ended: Option<Ended>,
    /// From when on the run's `timeout` counts.
    pub timed_from: Timestamp,
    /// A move whose target was not entered yet.
    moving: Option<Move>,
}

/// How a run was started; what it works on is fixed by it.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// When.
    pub at: Timestamp,
    /// The workflow's name.
    pub workflow: String,
    /// The text of the workflow; that of the mended one, once a run has gone on with it.
    pub definition: String,
    /// Where that text was.
    pub file: String,
    /// The texts of the workflows that it runs as steps, by name.
    pub children: BTreeMap<String, String>,
    /// The parameters.
    pub params: BTreeMap<String, Value>,
    /// What the driving program needs to open the lake again.
    pub environment: Value,
    /// Where jitter begins.
    pub seed: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Move {
    from: String,
    to: String,
    error: Option<ErrorRecord>,
}

/// A step the run is at.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Which visit.
    pub visit: u32,
    /// Which attempt of this visit, from 1.
    pub attempt: u32,
    /// When the run came there.
    pub entered_at: Timestamp,
    /// When this attempt began, or is to begin; when it was begun anew, if its driver died.
    pub attempt_at: Timestamp,
    /// How many times each retry rule was used in this visit.
    pub rules_used: Vec<u32>,
    /// How far it is.
    pub phase: Phase,
    /// Whether the attempt that failed did all it could, and units failed.
    pub units_failed: bool,
    /// The error that was caught last on the way here.
    pub error: Option<ErrorRecord>,
    /// From where the run came.
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

/// How far a step is.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// It has work to do.
    Work,
    /// It waits.
    Waiting {
        /// Until when.
        due: Timestamp,
    },
    /// It is to be tried again.
    Backoff {
        /// When.
        due: Timestamp,
    },
    /// An attempt failed, and nothing is decided yet.
    Failed(ErrorRecord),
    /// It did its work, and where to go is not decided yet.
    Done,
}

/// What a step did so far, over all its visits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepState {
    /// Which of the steps it was, in the order in which the run first came to them.
    pub order: u32,
    /// How often the run came here.
    pub visits: u32,
    /// How many attempts ended, over all visits.
    pub attempts: u32,
    /// What it put out last.
    pub output: Value,
    /// What is not well with it, though it came to its end.
    pub exceptions: Option<String>,
    /// What it took, over all visits, units included.
    pub usage: Usage,
    /// What its units are taken to have used without saying so: those that failed, and those whose end a crash has hidden.
    pub assumed: Usage,
    /// The same two, of each strategy of a repair step by its name; what serves none of them, and all of any other step, has no name.
    pub taken: BTreeMap<String, Taken>,
    /// What is set aside for units under way, by index.
    pub reserved: BTreeMap<u32, Usage>,
    /// Which strategy of a repair step is at work in its latest visit, from 0.
    pub strategy: usize,
    /// The strategies that have done what they can in its latest visit.
    pub earlier: Vec<Earlier>,
    /// The units of its latest visit, if it repairs: those of the strategy at work.
    pub units: Option<Units>,
    /// The branches of its latest visit, if it is parallel.
    pub branches: BTreeMap<String, Branch>,
    /// How it came to rest, if it is a step of a DAG.
    pub settled: Option<Settled>,
}

/// What was taken, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// What was told.
    pub usage: Usage,
    /// What units are taken to have used without saying so.
    pub assumed: Usage,
}

impl StepState {
    /// Where sources had nothing in its latest visit, and that proves nothing, by strategy.
    pub fn suspects(&self) -> impl DoubleEndedIterator<Item = &Suspects> {
        self.earlier.iter().map(|earlier| &earlier.suspects).chain(self.units.iter().map(|units| &units.suspects))
    }

    /// The strategy for which it works, by name; none before the first is planned, and of a step that repairs nothing.
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

    /// What was set aside for a unit is taken to be used.
    fn assume(&mut self, unit: u32) {
        if let Some(worst) = self.reserved.remove(&unit) {
            self.assumed += worst;
            self.taken_now().assumed += worst;
        }
    }

    /// The same for all units under way: they never told their end, and their indexes are to mean others.
    fn assume_all(&mut self) {
        for unit in self.reserved.keys().copied().collect::<Vec<_>>() {
            self.assume(unit);
        }
    }
}

/// A branch of a parallel step.
#[derive(Debug, Clone, PartialEq)]
pub enum Branch {
    /// Under way.
    Running,
    /// At its end.
    Ended {
        /// At this step.
        at: String,
    },
    /// Failed for good, unless the parallel step is tried again.
    Failed {
        /// At this step.
        at: String,
        /// Why.
        error: ErrorRecord,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// At which step; the last one of a DAG's that came to rest.
    pub step: String,
    /// Why.
    pub reason: Option<String>,
    /// The kind of the error it ended with.
    pub error: Option<ErrorKind>,
}

fn damaged(recorded: &Recorded, why: &str) -> Error {
    Error::invalid(format!("the journal does not make sense at event {}: {why}", recorded.sequence))
}

impl RunState {
    /// Begins the fold of a run with its first event.
    ///
    /// # Errors
    /// `invalid` if it does not begin a run, or was written by a newer version.
    pub fn begin(first: &Recorded) -> Result<Self> {
        let Event::RunStarted { format, workflow, definition, file, children, params, environment, seed } = first.event.clone() else {
            return Err(damaged(first, "a run begins with `run-started`"));
        };
        if format > FORMAT {
            return Err(Error::invalid(format!(
                "the run was written in event format {format}, this program knows {FORMAT}; use a newer version of it"
            )));
        }
        if first.sequence != 0 {
            return Err(damaged(first, "a run begins with event 0"));
        }
        Ok(Self {
            started: Started { at: first.at, workflow, definition, file, children, params, environment, seed },
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
            timed_from: first.at,
            moving: None,
        })
    }

    /// Folds a run's events.
    ///
    /// # Errors
    /// `invalid` if they do not make sense in this order.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> Result<Self> {
        let mut events = events.into_iter();
        let mut state = Self::begin(events.next().ok_or_else(|| Error::invalid("a run without events"))?)?;
        events.try_for_each(|recorded| state.apply(recorded))?;
        Ok(state)
    }

    /// Slots that are still missing, or otherwise wrong, as far as is known, by the detect step that found them so: what was repaired or
    /// confirmed absent since is taken off, also where no verify step looked again. What is stale is left out: it is not known here which
    /// aggregate was computed again.
    pub fn missing(&self) -> impl Iterator<Item = (&String, &FindingsRecord, u64)> {
        let repairable = self.findings.iter().filter(|(_, findings)| findings.kind != DefectKind::Stale);
        repairable.filter_map(|(of, findings)| {
            let left = findings.wrong().saturating_sub(self.resolved.get(of).copied().unwrap_or(0));
            (left > 0).then_some((of, findings, left))
        })
    }

    /// What everything took so far.
    pub fn usage(&self) -> Usage {
        self.steps.values().map(|step| step.usage).sum()
    }

    /// Folds one more event.
    ///
    /// # Errors
    /// `invalid` if it does not make sense here.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<()> {
        if recorded.sequence != self.next_sequence {
            return Err(damaged(recorded, &format!("event {} was to come", self.next_sequence)));
        }
        let of_ended = matches!(recorded.event, Event::RunRedriven { .. } | Event::DriverStarted { .. } | Event::DefinitionReplaced { .. });
        if self.ended.is_some() && !of_ended {
            return Err(damaged(recorded, "the run has ended before"));
        }
        match &recorded.event {
            Event::RunStarted { .. } => return Err(damaged(recorded, "a run starts once")),
            Event::DriverStarted { .. } => {
                self.paused = false;
                // What was under way is begun anew, and so is the time it may take.
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
        state.strategy = 0;
        state.earlier.clear();
        state.branches.clear();
        state.settled = None;
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
                let running = branches.iter().map(|branch| (branch.clone(), Branch::Running));
                self.step(recorded, step)?.branches = running.collect();
            }
            Event::BranchEnded { step, branch, at, error } => {
                let ended = match error {
                    Some(error) => Branch::Failed { at: at.clone(), error: error.clone() },
                    None => {
                        self.active.remove(at).ok_or_else(|| elsewhere(recorded, at))?;
                        Branch::Ended { at: at.clone() }
                    }
                };
                let known = self.step(recorded, step)?.branches.get_mut(branch);
                *known.ok_or_else(|| damaged(recorded, "a branch that was not begun"))? = ended;
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
                state.output = output.clone();
                state.exceptions.clone_from(exceptions);
                state.take(*usage);
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
                if state.units.is_some() || !state.earlier.is_empty() {
                    state.output = repair_output(&state.earlier, state.units.as_ref());
                }
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
                self.reopen_branches(step, *due);
            }
            Event::UnitsPlanned { step, usage, .. } => {
                self.at(recorded, step)?;
                let state = self.step(recorded, step)?;
                let first_batch = state.earlier.iter().map(|earlier| earlier.batches).sum();
                state.units = Units::planned(event, first_batch);
                state.take(*usage);
            }
            Event::StrategyEnded { step, strategy, error } => {
                let position = self.at(recorded, step)?;
                position.rules_used.clear();
                // Else its attempt goes on with the next.
                if matches!(position.phase, Phase::Failed(_)) {
                    (position.phase, position.units_failed) = (Phase::Work, false);
                    position.attempt += 1;
                    position.attempt_at = recorded.at;
                }
                let state = self.step(recorded, step)?;
                state.assume_all();
                let units = state.units.take();
                state.earlier.push(Earlier::new(strategy, units.as_ref(), error.clone()));
                state.strategy += 1;
            }
            Event::UnitsReserved { step, units, worst } => {
                let state = self.step(recorded, step)?;
                for &unit in units {
                    // One that was set aside before, and did not end, was lost in a crash.
                    state.assume(unit);
                    state.reserved.insert(unit, *worst);
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
            Event::PublishStarted { step, .. } => self.units(recorded, step)?.apply(event).map_err(|why| damaged(recorded, why))?,
            _ => {}
        }
        Ok(())
    }

    /// Branches of a parallel step that failed go on from where they failed: what succeeded is not done again.
    fn reopen_branches(&mut self, step: &str, at: Timestamp) {
        let Some(state) = self.steps.get_mut(step) else { return };
        let mut reopened = Vec::new();
        for branch in state.branches.values_mut() {
            if let Branch::Failed { at, .. } = branch {
                reopened.push(std::mem::take(at));
                *branch = Branch::Running;
            }
        }
        for step in reopened {
            self.work_again(&step, at);
        }
    }

    /// A step at which the run is has work to do again, its retry rules unused.
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
            if state.earlier.is_empty() {
                state.units.iter_mut().for_each(|units| units.retry(None));
            } else {
                // What stopped the first strategy may be mended: it gets what is left, before the others.
                state.assume_all();
                let units = state.units.take();
                if let Some(units) = units {
                    state.earlier.push(Earlier::new(&units.strategy, Some(&units), units.an_error()));
                }
                state.strategy = 0;
            }
        }
        self.reopen_branches(step, at);
    }

    fn redrive(&mut self, recorded: &Recorded, back: &BTreeMap<String, String>) -> Result<()> {
        if self.ended.take().is_none() {
            return Err(damaged(recorded, "a run that has not ended is redriven"));
        }
        self.stop = None;
        self.timed_from = recorded.at;
        for (from, to) in back {
            let position = self.active.remove(from).ok_or_else(|| elsewhere(recorded, from))?;
            let visit = self.step(recorded, to)?.visits;
            let failed = position.error.unwrap_or_else(|| ErrorRecord {
                kind: ErrorKind::Invalid,
                message: format!("the run went on to `{from}`"),
                retry_after_ms: None,
            });
            self.active.insert(to.clone(), Position { phase: Phase::Failed(failed), ..Position::new(visit, recorded.at) });
        }
        // Of a DAG, steps that failed are begun again, in the same visit; those that were skipped are looked at anew.
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
            let at = if at.is_empty() { "nowhere".to_owned() } else { format!("at {at}") };
            return Err(damaged(recorded, &format!("it is about step `{step}`, but the run is {at}")));
        }
        self.active.get_mut(step).ok_or_else(|| elsewhere(recorded, step))
    }

    fn step(&mut self, recorded: &Recorded, step: &str) -> Result<&mut StepState> {
        self.steps.get_mut(step).ok_or_else(|| damaged(recorded, &format!("the run never came to step `{step}`")))
    }

    fn units(&mut self, recorded: &Recorded, step: &str) -> Result<&mut Units> {
        let units = &mut self.step(recorded, step)?.units;
        units.as_mut().ok_or_else(|| damaged(recorded, "units of a step that has planned none"))
    }
}

fn elsewhere(recorded: &Recorded, step: &str) -> Error {
    damaged(recorded, &format!("it is about step `{step}`, but the run is not there"))
}
