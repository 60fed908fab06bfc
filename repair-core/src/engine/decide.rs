//! What to do next in a run. Pure: the same state and time give the same decision.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::event::{ErrorRecord, Event, Outcome};
use super::retry;
use super::state::{Fanout, Phase, Position, RunState, UnitState};
use crate::cost::Usage;
use crate::error::{Error, ErrorKind, Result};
use crate::workflow::{Step, StepKind, Template, Tolerance, Variables, Wait, Workflow, parse_duration};

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Record what follows from what happened, and decide again.
    Record(Vec<Event>),
    /// Do the work of the step the run is at, as far as it is not done.
    Work {
        /// The step.
        step: String,
        /// Which visit.
        visit: u32,
    },
    /// Wait, and decide again.
    Sleep {
        /// Until when.
        due: Timestamp,
    },
    /// Nothing: the run has ended.
    Nothing,
}

/// Decides what to do next.
pub fn decide(state: &RunState, workflow: &Workflow, now: Timestamp) -> Decision {
    if state.ended.is_some() {
        return Decision::Nothing;
    }
    let Some(position) = &state.position else { return enter(state, workflow) };
    let Some(step) = workflow.step(&position.step) else {
        let error = Error::internal(format!("the workflow has no step `{}`", position.step));
        return fail(&position.step, &ErrorRecord::from(&error));
    };
    match &position.phase {
        Phase::Work => match &step.kind {
            StepKind::Wait(wait) => match due(wait, &variables(state, position, now), position.entered_at) {
                Ok(due) => Decision::Record(vec![Event::TimerSet { step: step.name.clone(), due }]),
                Err(error) => Decision::Record(vec![Event::StepFailed { step: step.name.clone(), error: ErrorRecord::from(&error) }]),
            },
            StepKind::Succeed => end(&step.name, Outcome::Succeeded, None, None),
            StepKind::Fail { message } => end(&step.name, Outcome::Failed, Some(message.clone()), None),
            _ => Decision::Work { step: step.name.clone(), visit: position.visit },
        },
        Phase::Waiting { due } if *due <= now => {
            let output = json!({ "entered_at": position.entered_at, "due": due });
            Decision::Record(vec![Event::StepSucceeded { step: step.name.clone(), output, findings: None, usage: Usage::default() }])
        }
        Phase::Backoff { due } if *due <= now => Decision::Work { step: step.name.clone(), visit: position.visit },
        Phase::Waiting { due } | Phase::Backoff { due } => Decision::Sleep { due: *due },
        Phase::Failed(error) => after_failure(state, workflow, step, position, error, now),
        Phase::Done => after_success(state, workflow, step, position, now),
    }
}

/// The run is between steps: it goes where it moved last, or to its start.
fn enter(state: &RunState, workflow: &Workflow) -> Decision {
    let step = workflow.start.clone();
    let visit = state.steps.get(&step).map_or(0, |step| step.visits) + 1;
    Decision::Record(vec![Event::StepEntered { step, visit }])
}

fn after_success(state: &RunState, workflow: &Workflow, step: &Step, position: &Position, now: Timestamp) -> Decision {
    if step.next.is_empty() {
        return end(&step.name, Outcome::Succeeded, None, None);
    }
    let variables = variables(state, position, now);
    for branch in &step.next {
        match branch.when.as_ref().map_or(Ok(true), |when| when.holds(&variables)) {
            Ok(true) => return go(state, workflow, step, &branch.goto, branch.when.as_ref().map(|when| when.text().to_owned())),
            Ok(false) => {}
            Err(error) => return fail(&step.name, &ErrorRecord::from(&error)),
        }
    }
    let error = Error::invalid(format!("no branch of step `{}` applies; end its `next` with one without `when`", step.name));
    fail(&step.name, &ErrorRecord::from(&error))
}

fn after_failure(state: &RunState, workflow: &Workflow, step: &Step, position: &Position, error: &ErrorRecord, now: Timestamp) -> Decision {
    let fanout = state.steps.get(&step.name).and_then(|step| step.fanout.as_ref());
    let tolerance = match &step.kind {
        StepKind::Repair { tolerate, .. } => *tolerate,
        _ => Tolerance::Count(0),
    };
    let failed = fanout.map(failed_kinds).filter(|kinds| !kinds.is_empty());
    let kinds = failed.clone().unwrap_or_else(|| BTreeSet::from([error.kind]));
    let (mut rules, mut again, mut wait) = (BTreeSet::new(), Vec::new(), Duration::ZERO);
    for kind in kinds {
        if let Some(rule) = retry::applicable(&step.retry, &position.rules_used, kind) {
            let used = position.rules_used.get(rule).copied().unwrap_or(0);
            wait = wait.max(retry::wait(&step.retry[rule], used, draw(state.started.seed, position, rule, used)));
            rules.insert(u32::try_from(rule).unwrap_or(u32::MAX));
            again.push(kind);
        }
    }
    // Units that fail for good can't be helped by trying others again once they are too many.
    let lost = |fanout: &Fanout| fanout.count(|unit| matches!(unit, UnitState::Failed(kind) if !again.contains(&kind)));
    let hopeless = fanout.is_some_and(|fanout| failed.is_some() && tolerance.exceeded(lost(fanout), fanout.units.len() as u64));
    if !again.is_empty() && !hopeless {
        let wait = wait.max(Duration::from_millis(error.retry_after_ms.unwrap_or(0)));
        let due = now.saturating_add(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX);
        return Decision::Record(vec![Event::RetryScheduled {
            step: step.name.clone(),
            rules: rules.into_iter().collect(),
            kinds: again,
            due,
        }]);
    }
    if let Some(fanout) = fanout
        && failed.is_some()
        && !hopeless
        && fanout.count(|unit| unit == UnitState::Pending) == 0
    {
        let output = fanout.output();
        return Decision::Record(vec![Event::StepSucceeded { step: step.name.clone(), output, findings: None, usage: Usage::default() }]);
    }
    match step.catch.iter().find(|rule| rule.on.matches(error.kind)) {
        Some(rule) => go(state, workflow, step, &rule.goto, Some(format!("{}: {}", error.kind, error.message))),
        None => fail(&step.name, error),
    }
}

fn failed_kinds(fanout: &Fanout) -> BTreeSet<ErrorKind> {
    fanout.units.iter().filter_map(|unit| if let UnitState::Failed(kind) = unit { Some(*kind) } else { None }).collect()
}

/// Moves to a step, unless the run has been there as often as it may.
fn go(state: &RunState, workflow: &Workflow, from: &Step, to: &str, why: Option<String>) -> Decision {
    let visits = state.steps.get(to).map_or(0, |step| step.visits);
    if let Some(most) = workflow.step(to).and_then(|step| step.max_visits)
        && visits >= most
    {
        let error = Error::invalid(format!("the run came to step `{to}` more than its `max_visits`, {most}"));
        return fail(&from.name, &ErrorRecord::from(&error));
    }
    Decision::Record(vec![
        Event::Moved { from: from.name.clone(), to: to.to_owned(), why },
        Event::StepEntered { step: to.to_owned(), visit: visits + 1 },
    ])
}

fn fail(step: &str, error: &ErrorRecord) -> Decision {
    let outcome = if error.kind == ErrorKind::Blind { Outcome::Blind } else { Outcome::Failed };
    end(step, outcome, Some(error.message.clone()), Some(error.kind))
}

fn end(step: &str, outcome: Outcome, reason: Option<String>, error: Option<ErrorKind>) -> Decision {
    Decision::Record(vec![Event::RunEnded { outcome, step: step.to_owned(), reason, error }])
}

/// What expressions of the step the run is at can speak of.
pub fn variables(state: &RunState, position: &Position, now: Timestamp) -> Variables {
    let steps = state.steps.iter().map(|(name, step)| (name.clone(), json!({ "visits": step.visits, "output": step.output })));
    Variables {
        params: Value::Object(state.started.params.clone().into_iter().collect()),
        output: state.steps.get(&position.step).map(|step| step.output.clone()).unwrap_or_default(),
        steps: Value::Object(steps.collect()),
        visits: position.visit,
        error: state.caught.as_ref().map(|error| json!({ "kind": error.kind, "message": error.message })).unwrap_or_default(),
        run: json!({ "started_at": state.started.at, "now": now }),
    }
}

fn due(wait: &Wait, variables: &Variables, entered_at: Timestamp) -> Result<Timestamp> {
    let text = |template: &Template| match template.resolve(variables)? {
        Value::String(text) => Ok(text),
        other => Err(Error::invalid(format!("a wait must be text such as 90s or 2024-03-04T14:30:00Z, not {other}"))),
    };
    match wait {
        Wait::For(template) => {
            let wait = parse_duration(&text(template)?)?;
            let wait = SignedDuration::try_from(wait).map_err(|error| Error::invalid("the wait is too long").because(error))?;
            entered_at.checked_add(wait).map_err(|error| Error::invalid("the wait is too long").because(error))
        }
        Wait::Until(template) => {
            let text = text(template)?;
            text.parse().map_err(|error: jiff::Error| {
                Error::invalid(format!("`{text}` is not an instant such as 2024-03-04T14:30:00Z")).because(error)
            })
        }
    }
}

/// The seed of one draw of jitter: of its own for each run, step, visit, rule and attempt.
fn draw(seed: u64, position: &Position, rule: usize, used: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, &position.step, position.visit, rule, used).hash(&mut hasher);
    hasher.finish()
}
