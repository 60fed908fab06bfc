//! What a run has come to: the fold of its events. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::event::{ErrorRecord, Event, FORMAT, FindingsRecord, Outcome, Recorded, UnitResult};
use crate::cost::Usage;
use crate::error::{Error, ErrorKind, Result};

/// A run, as far as its events tell.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// How it was started.
    pub started: Started,
    /// The number of the next event.
    pub next_sequence: u64,
    /// When the last event was.
    pub updated_at: Timestamp,
    /// Where it is.
    pub position: Option<Position>,
    /// What its steps did so far, by name.
    pub steps: BTreeMap<String, StepState>,
    /// The latest findings about what each detect step looks at, by the detect step's name.
    pub findings: BTreeMap<String, FindingsRecord>,
    /// The error that was caught last.
    pub caught: Option<ErrorRecord>,
    /// How it ended, if it has.
    pub ended: Option<Ended>,
}

/// How a run was started.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// When.
    pub at: Timestamp,
    /// The workflow's name.
    pub workflow: String,
    /// The text of the workflow.
    pub definition: String,
    /// Where that text was.
    pub file: String,
    /// The parameters.
    pub params: BTreeMap<String, Value>,
    /// What the driving program needs to open the lake again.
    pub environment: Value,
    /// Where jitter begins.
    pub seed: u64,
}

/// The step a run is at.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// The step.
    pub step: String,
    /// Which visit.
    pub visit: u32,
    /// When the run came there.
    pub entered_at: Timestamp,
    /// How many times each retry rule was used in this visit.
    pub rules_used: Vec<u32>,
    /// How far it is.
    pub phase: Phase,
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
    /// How often the run came here.
    pub visits: u32,
    /// How many attempts ended, over all visits.
    pub attempts: u32,
    /// What it put out last.
    pub output: Value,
    /// What it took, over all visits, units included.
    pub usage: Usage,
    /// The work of its latest visit, if it repairs.
    pub fanout: Option<Fanout>,
}

/// Where a unit is. Every unit is always in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitState {
    /// To do.
    Pending,
    /// Done and kept, not yet seen by readers.
    Staged,
    /// Seen by readers.
    Published,
    /// Its last attempt failed with an error of this kind.
    Failed(ErrorKind),
}

/// The work of one visit of a repair step.
#[derive(Debug, Clone, PartialEq)]
pub struct Fanout {
    /// The table repaired.
    pub table: String,
    /// The repair idea.
    pub strategy: String,
    /// The artifact that lists the units.
    pub artifact: String,
    /// How many slots are to be repaired.
    pub slots: u64,
    /// By index.
    pub units: Vec<UnitState>,
    /// Of failed units, the last error.
    pub errors: BTreeMap<u32, ErrorRecord>,
    /// Batches whose publication was begun: their units, and whether it ended.
    pub batches: Vec<(Vec<u32>, bool)>,
    /// Rows published.
    pub rows: u64,
    /// Slots recorded as absent.
    pub absent: u64,
    /// What its units took.
    pub usage: Usage,
}

impl Fanout {
    /// The indexes of units in a state.
    pub fn indexes(&self, wanted: impl Fn(UnitState) -> bool) -> Vec<u32> {
        (0u32..).zip(&self.units).filter(|(_, state)| wanted(**state)).map(|(index, _)| index).collect()
    }

    /// How many units are in a state.
    pub fn count(&self, wanted: impl Fn(UnitState) -> bool) -> u64 {
        self.units.iter().filter(|state| wanted(**state)).count() as u64
    }

    /// What conditions see as the repair step's `$output`.
    pub fn output(&self) -> Value {
        json!({
            "strategy": self.strategy,
            "units": self.units.len(),
            "succeeded": self.count(|state| matches!(state, UnitState::Staged | UnitState::Published)),
            "failed": self.count(|state| matches!(state, UnitState::Failed(_))),
            "pending": self.count(|state| state == UnitState::Pending),
            "slots": self.slots,
            "repaired": self.rows,
            "absent": self.absent,
            "unresolved": self.slots.saturating_sub(self.rows + self.absent),
            "requests": self.usage.source_requests,
        })
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// At which step.
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
    /// Folds a run's events.
    ///
    /// # Errors
    /// `invalid` if they do not make sense in this order.
    pub fn fold(events: &[Recorded]) -> Result<Self> {
        let Some((first, rest)) = events.split_first() else { return Err(Error::invalid("a run without events")) };
        let Event::RunStarted { format, workflow, definition, file, params, environment, seed } = first.event.clone() else {
            return Err(damaged(first, "a run begins with `run-started`"));
        };
        if format > FORMAT {
            return Err(Error::invalid(format!(
                "the run was written in event format {format}, this program knows {FORMAT}; use a newer version of it"
            )));
        }
        let mut state = Self {
            started: Started { at: first.at, workflow, definition, file, params, environment, seed },
            next_sequence: 1,
            updated_at: first.at,
            position: None,
            steps: BTreeMap::new(),
            findings: BTreeMap::new(),
            caught: None,
            ended: None,
        };
        for recorded in rest {
            state.apply(recorded)?;
        }
        Ok(state)
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
        if self.ended.is_some() {
            return Err(damaged(recorded, "the run has ended before"));
        }
        match &recorded.event {
            Event::RunStarted { .. } => return Err(damaged(recorded, "a run starts once")),
            Event::StepEntered { step, visit } => {
                let state = self.steps.entry(step.clone()).or_default();
                state.visits = *visit;
                state.fanout = None;
                self.position = Some(Position {
                    step: step.clone(),
                    visit: *visit,
                    entered_at: recorded.at,
                    rules_used: Vec::new(),
                    phase: Phase::Work,
                });
            }
            Event::Moved { from, why: _, to: _ } => {
                let position = self.at(recorded, from)?;
                if let Phase::Failed(error) = &position.phase {
                    self.caught = Some(error.clone());
                }
                self.position = None;
            }
            Event::RunEnded { outcome, step, reason, error } => {
                self.position = None;
                self.ended = Some(Ended { at: recorded.at, outcome: *outcome, step: step.clone(), reason: reason.clone(), error: *error });
            }
            event => self.apply_to_step(recorded, event)?,
        }
        self.next_sequence += 1;
        self.updated_at = recorded.at;
        Ok(())
    }

    fn apply_to_step(&mut self, recorded: &Recorded, event: &Event) -> Result<()> {
        match event {
            Event::TimerSet { step, due } => self.at(recorded, step)?.phase = Phase::Waiting { due: *due },
            Event::StepSucceeded { step, output, findings, usage } => {
                self.at(recorded, step)?.phase = Phase::Done;
                let state = self.step(recorded, step)?;
                state.attempts += 1;
                state.output = output.clone();
                state.usage += *usage;
                if let Some(findings) = findings {
                    self.findings.insert(findings.of.clone(), findings.as_ref().clone());
                }
            }
            Event::StepFailed { step, error } => {
                self.at(recorded, step)?.phase = Phase::Failed(error.clone());
                let state = self.step(recorded, step)?;
                state.attempts += 1;
                if let Some(fanout) = &state.fanout {
                    state.output = fanout.output();
                }
            }
            Event::RetryScheduled { step, rules, kinds, due } => {
                let position = self.at(recorded, step)?;
                position.phase = Phase::Backoff { due: *due };
                for &rule in rules {
                    let rule = rule as usize;
                    if position.rules_used.len() <= rule {
                        position.rules_used.resize(rule + 1, 0);
                    }
                    position.rules_used[rule] += 1;
                }
                if let Some(fanout) = &mut self.step(recorded, step)?.fanout {
                    for unit in &mut fanout.units {
                        if matches!(unit, UnitState::Failed(kind) if kinds.contains(kind)) {
                            *unit = UnitState::Pending;
                        }
                    }
                }
            }
            Event::UnitsPlanned { step, table, strategy, units, slots, artifact } => {
                self.at(recorded, step)?;
                self.step(recorded, step)?.fanout = Some(Fanout {
                    table: table.clone(),
                    strategy: strategy.clone(),
                    artifact: artifact.clone(),
                    slots: *slots,
                    units: vec![UnitState::Pending; *units as usize],
                    errors: BTreeMap::new(),
                    batches: Vec::new(),
                    rows: 0,
                    absent: 0,
                    usage: Usage::default(),
                });
            }
            Event::UnitsEnded { step, units } => {
                let state = self.step(recorded, step)?;
                let fanout = state.fanout.as_mut().ok_or_else(|| damaged(recorded, "units of a step that has planned none"))?;
                for ended in units {
                    let unit = fanout.units.get_mut(ended.unit as usize).ok_or_else(|| damaged(recorded, "a unit that was not planned"))?;
                    if *unit != UnitState::Pending {
                        return Err(damaged(recorded, "a unit ended twice"));
                    }
                    match &ended.result {
                        UnitResult::Staged { usage, .. } => {
                            *unit = UnitState::Staged;
                            fanout.errors.remove(&ended.unit);
                            fanout.usage += *usage;
                            state.usage += *usage;
                        }
                        UnitResult::Failed { error } => {
                            *unit = UnitState::Failed(error.kind);
                            fanout.errors.insert(ended.unit, error.clone());
                        }
                    }
                }
            }
            Event::PublishStarted { step, batch, units } => {
                let fanout = self.fanout(recorded, step)?;
                if *batch as usize != fanout.batches.len() {
                    return Err(damaged(recorded, "a batch out of order"));
                }
                fanout.batches.push((units.clone(), false));
            }
            Event::PublishEnded { step, batch, rows, absent, usage } => {
                let state = self.step(recorded, step)?;
                let fanout = state.fanout.as_mut().ok_or_else(|| damaged(recorded, "a batch of a step that has planned no units"))?;
                let Fanout { batches, units, .. } = fanout;
                let (published, ended) = batches.get_mut(*batch as usize).ok_or_else(|| damaged(recorded, "a batch that was not begun"))?;
                *ended = true;
                for &unit in published.iter() {
                    *units.get_mut(unit as usize).ok_or_else(|| damaged(recorded, "a unit that was not planned"))? = UnitState::Published;
                }
                fanout.rows += rows;
                fanout.absent += absent;
                fanout.usage += *usage;
                state.usage += *usage;
            }
            Event::RunStarted { .. } | Event::StepEntered { .. } | Event::Moved { .. } | Event::RunEnded { .. } => {}
        }
        Ok(())
    }

    fn at(&mut self, recorded: &Recorded, step: &str) -> Result<&mut Position> {
        let at = self.position.as_ref().map(|position| position.step.clone());
        match &mut self.position {
            Some(position) if position.step == step => Ok(position),
            _ => Err(damaged(recorded, &format!("it is about step `{step}`, but the run is at {}", at.as_deref().unwrap_or("none")))),
        }
    }

    fn step(&mut self, recorded: &Recorded, step: &str) -> Result<&mut StepState> {
        self.steps.get_mut(step).ok_or_else(|| damaged(recorded, &format!("the run never came to step `{step}`")))
    }

    fn fanout(&mut self, recorded: &Recorded, step: &str) -> Result<&mut Fanout> {
        let fanout = &mut self.step(recorded, step)?.fanout;
        fanout.as_mut().ok_or_else(|| damaged(recorded, "a batch of a step that has planned no units"))
    }
}
