//! What people and programs are told of a run.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::event::Outcome;
use super::state::{RunState, StepState};
use crate::cost::Usage;
use crate::error::ErrorKind;

/// What a run did. In JSON, `outcome` is null while the run has not ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// The run's id.
    pub run: String,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// Its steps, by name.
    pub steps: BTreeMap<String, StepReport>,
    /// What it took.
    pub usage: Usage,
    /// What a person should know, worst first.
    pub problems: Vec<String>,
    /// The kind of error it ended with.
    #[serde(skip)]
    pub error: Option<ErrorKind>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// How often the run came there.
    pub visits: u32,
    /// How many attempts ended.
    pub attempts: u32,
    /// What it put out last.
    pub output: Value,
}

/// At most so many errors of units are told one by one.
const UNIT_ERRORS: usize = 5;

impl RunReport {
    /// The report of a run.
    pub fn new(run: &str, state: &RunState) -> Self {
        let steps = state
            .steps
            .iter()
            .map(|(name, step)| (name.clone(), StepReport { visits: step.visits, attempts: step.attempts, output: step.output.clone() }));
        Self {
            run: run.to_owned(),
            outcome: state.ended.as_ref().map(|ended| ended.outcome),
            steps: steps.collect(),
            usage: state.usage(),
            problems: problems(state),
            error: state.ended.as_ref().and_then(|ended| ended.error),
        }
    }
}

fn problems(state: &RunState) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(ended) = &state.ended
        && let Some(reason) = &ended.reason
    {
        let kind = ended.error.map(|kind| format!("{kind}: ")).unwrap_or_default();
        problems.push(format!("{}: {kind}{reason}", ended.step));
    }
    if let Some(caught) = &state.caught {
        problems.push(format!("caught {}: {}", caught.kind, caught.message));
    }
    for (name, step) in &state.steps {
        problems.extend(unit_problems(name, step));
    }
    for (detect, findings) in &state.findings {
        let counts = findings.counts;
        let mut tell = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{detect}: {count} {what} in table `{}`", findings.scope.table));
            }
        };
        tell(counts.missing, "slots still missing");
        tell(counts.duplicates, "duplicate rows");
        tell(counts.misaligned, "rows whose time is not on the grid");
        tell(counts.unexpected, "slots with rows that the calendar does not expect");
    }
    problems
}

fn unit_problems(name: &str, step: &StepState) -> Vec<String> {
    let Some(fanout) = &step.fanout else { return Vec::new() };
    let mut problems: Vec<String> = fanout
        .errors
        .iter()
        .take(UNIT_ERRORS)
        .map(|(unit, error)| format!("{name}: unit {unit} of {}: {}: {}", fanout.units.len(), error.kind, error.message))
        .collect();
    if fanout.errors.len() > UNIT_ERRORS {
        problems.push(format!("{name}: and {} more units failed", fanout.errors.len() - UNIT_ERRORS));
    }
    problems
}
