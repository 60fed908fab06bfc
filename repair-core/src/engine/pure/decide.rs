//! Decides what to do next in a run. Pure: the same state and time give the same decision.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::engine::pure::event::{ErrorRecord, Event, Outcome, Settled, StopReason};
use crate::engine::pure::items::MapState;
use crate::engine::pure::retry;
use crate::engine::pure::state::{BranchState, Phase, Position, RunState, StepState};
use crate::engine::pure::units::{UnitStates, repair_output};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Usage, unread};
use crate::workflow::given_items;
use crate::workflow::{ParallelBranch, Step, StepKind, Template, Variables, Wait, Workflow, WorkflowKind, parse_duration};

/// What to do next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// Events that follow from what happened. Record them and decide again; while there are any, the decision asks for nothing else.
    pub record: Vec<Event>,
    /// The steps that should be running. Stop any others.
    pub work: Vec<String>,
    /// The latest time at which to decide again.
    pub due: Option<Timestamp>,
}

impl Decision {
    /// Whether it records that the run ends or pauses, which must wait until no step is running.
    pub fn comes_to_rest(&self) -> bool {
        self.record.iter().any(|event| matches!(event, Event::RunEnded { .. } | Event::RunPaused))
    }

    fn record(events: Vec<Event>) -> Self {
        Self { record: events, ..Self::default() }
    }
}

/// Decides what to do next.
pub fn decide(state: &RunState, workflow: &Workflow, now: Timestamp) -> Decision {
    if state.ended.is_some() || state.paused {
        return Decision::default();
    }
    if let Some(why) = state.stop {
        return Decision::record(vec![stopped(state, workflow, why)]);
    }
    let run_due = workflow.timeout.map(|timeout| later(state.timed_from, timeout));
    if run_due.is_some_and(|due| due <= now) {
        return Decision::record(vec![Event::StopRequested { why: StopReason::Timeout }]);
    }
    let begun = match workflow.kind {
        WorkflowKind::StateMachine if state.active.is_empty() => vec![entered(state, &workflow.start)],
        WorkflowKind::StateMachine => Vec::new(),
        WorkflowKind::Dag { max_parallel } => begin_ready(state, workflow, max_parallel),
    };
    if !begun.is_empty() {
        return Decision::record(begun);
    }
    let mut decision = Decision { due: run_due, ..Decision::default() };
    for (name, position) in &state.active {
        let Some(step) = workflow.step(name) else {
            let error = Error::internal(format!("the workflow has no step `{name}`"));
            return Decision::record(vec![fail(name, &ErrorRecord::from(&error))]);
        };
        if !is_live(state, workflow, step, now) {
            continue;
        }
        match at(state, workflow, step, position, now) {
            Next::Record(events) => return Decision::record(events),
            Next::Work { due } => {
                decision.work.push(name.clone());
                decision.due = earlier(decision.due, due);
            }
            Next::Sleep { due } => decision.due = earlier(decision.due, Some(due)),
            Next::Nothing => {}
        }
    }
    decision
}

/// What to do next at one step.
enum Next {
    Record(Vec<Event>),
    Work { due: Option<Timestamp> },
    Sleep { due: Timestamp },
    Nothing,
}

fn at(state: &RunState, workflow: &Workflow, step: &Step, position: &Position, now: Timestamp) -> Next {
    match &position.phase {
        Phase::Work => work(state, step, position, now),
        Phase::Waiting { due } if *due <= now => {
            Next::Record(vec![succeeded(step, json!({ "entered_at": position.entered_at, "due": due }))])
        }
        Phase::Backoff { due } if *due <= now => work(state, step, position, now),
        Phase::Waiting { due } | Phase::Backoff { due } => Next::Sleep { due: *due },
        Phase::Failed(error) => Next::Record(after_failure(state, workflow, step, position, error, now)),
        Phase::Done => Next::Record(after_success(state, workflow, step, now)),
    }
}

fn work(state: &RunState, step: &Step, position: &Position, now: Timestamp) -> Next {
    if let Some(timeout) = step.timeout
        && later(position.attempt_at, timeout) <= now
    {
        let error = Error::new(ErrorKind::Timeout, format!("step `{}` took longer than its timeout of {timeout:?}", step.name));
        return Next::Record(vec![failed(step, &error)]);
    }
    let due = step.timeout.map(|timeout| later(position.attempt_at, timeout));
    match &step.kind {
        StepKind::Wait(wait @ (Wait::For(_) | Wait::Until(_))) => {
            let due = timer(wait, &variables(state, &step.name, now), position.entered_at);
            Next::Record(vec![match due {
                Ok(due) => Event::TimerSet { step: step.name.clone(), due },
                Err(error) => failed(step, &error),
            }])
        }
        StepKind::Parallel { branches } => parallel(state, step, branches, due),
        StepKind::Succeed => Next::Record(vec![at_the_end(state, step, None)]),
        StepKind::Fail { message } => {
            let error = ErrorRecord { kind: ErrorKind::Failed, message: message.clone(), retry_after_ms: None };
            Next::Record(vec![at_the_end(state, step, Some(&error))])
        }
        _ => Next::Work { due },
    }
}

fn parallel(state: &RunState, step: &Step, branches: &[ParallelBranch], due: Option<Timestamp>) -> Next {
    let known = state.steps.get(&step.name).map(|state| &state.branches);
    let Some(known) = known.filter(|known| !known.is_empty()) else {
        let started =
            Event::BranchesStarted { step: step.name.clone(), branches: branches.iter().map(|branch| branch.name.clone()).collect() };
        let entered = branches.iter().map(|branch| entered(state, &branch.start));
        return Next::Record(std::iter::once(started).chain(entered).collect());
    };
    if let Some((branch, error)) = known.iter().find_map(|(name, branch)| match branch {
        BranchState::Failed { error, .. } => Some((name, error)),
        _ => None,
    }) {
        let error = ErrorRecord { message: format!("branch `{branch}`: {}", error.message), ..error.clone() };
        return Next::Record(vec![Event::StepFailed { step: step.name.clone(), error, units: false }]);
    }
    let mut outputs = Map::new();
    for (name, branch) in known {
        let BranchState::Ended { at } = branch else {
            return due.map_or(Next::Nothing, |due| Next::Sleep { due });
        };
        outputs.insert(name.clone(), state.steps.get(at).map(|step| step.output.clone()).unwrap_or_default());
    }
    Next::Record(vec![succeeded(step, Value::Object(outputs))])
}

/// Whether a step may proceed: not if its branch, or another branch of the same parallel step, has failed.
fn is_live(state: &RunState, workflow: &Workflow, step: &Step, now: Timestamp) -> bool {
    let mut step = step;
    while let Some(inside) = &step.inside {
        let Some(parallel) = workflow.step(&inside.step) else { return false };
        let working = state.active.get(&parallel.name).is_some_and(|position| match position.phase {
            Phase::Work => true,
            Phase::Backoff { due } => due <= now,
            Phase::Waiting { .. } | Phase::Failed(_) | Phase::Done => false,
        });
        let unharmed = |branches: &BTreeMap<String, BranchState>| {
            branches.values().all(|branch| !matches!(branch, BranchState::Failed { .. }))
                && branches.get(&inside.branch) == Some(&BranchState::Running)
        };
        if !working || !state.steps.get(&parallel.name).is_some_and(|state| unharmed(&state.branches)) {
            return false;
        }
        step = parallel;
    }
    true
}

/// Enters the steps of a DAG that are ready, up to its limit, and skips those that must not run; ends the run when all steps are settled.
fn begin_ready(state: &RunState, workflow: &Workflow, max_parallel: u32) -> Vec<Event> {
    let mut room = (max_parallel as usize).saturating_sub(state.active.len());
    let settled = |name: &str| state.steps.get(name).and_then(|step| step.settled.as_ref());
    let mut events = Vec::new();
    let mut all = true;
    for step in &workflow.steps {
        if settled(&step.name).is_some() {
            continue;
        }
        all = false;
        if state.active.contains_key(&step.name) {
            continue;
        }
        let Some(ends) = step.after.iter().map(|name| settled(name).map(Settled::end)).collect::<Option<Vec<_>>>() else {
            continue;
        };
        if let Some(why) = step.why_skipped(&ends) {
            events.push(Event::StepSettled { step: step.name.clone(), result: Settled::Skipped { why } });
        } else if room > 0 {
            room -= 1;
            events.push(entered(state, &step.name));
        }
    }
    if all { vec![end_of_dag(state, workflow)] } else { events }
}

/// A DAG fails if a step failed, unless a later step that handles failures succeeded.
fn end_of_dag(state: &RunState, workflow: &Workflow) -> Event {
    let result = |name: &str| state.steps.get(name).and_then(|step| step.settled.as_ref());
    let handled = |failed: &str| {
        workflow.steps.iter().filter(|step| step.handles_failure_of(failed)).any(|step| result(&step.name) == Some(&Settled::Succeeded))
    };
    let unhandled = workflow.steps.iter().find_map(|step| match result(&step.name) {
        // Continuing never makes up for data that could not be examined.
        Some(Settled::Failed { error }) if error.kind == ErrorKind::Blind || !handled(&step.name) => Some((step, error)),
        _ => None,
    });
    match unhandled {
        Some((step, error)) => fail(&step.name, error),
        None => end_well(state),
    }
}

fn after_success(state: &RunState, workflow: &Workflow, step: &Step, now: Timestamp) -> Vec<Event> {
    if workflow.kind.is_dag() {
        return vec![Event::StepSettled { step: step.name.clone(), result: Settled::Succeeded }];
    }
    if step.next.is_empty() {
        return vec![at_the_end(state, step, None)];
    }
    let variables = variables(state, &step.name, now);
    let mut applies = None;
    for branch in &step.next {
        match branch.when.as_ref().map_or(Ok(true), |when| when.holds(&variables)) {
            Ok(true) => {
                applies = Some(branch);
                break;
            }
            Ok(false) => {}
            Err(error) => return vec![at_the_end(state, step, Some(&ErrorRecord::from(&error)))],
        }
    }
    match applies {
        Some(branch) => go(state, workflow, step, &branch.goto, branch.when.as_ref().map(|when| when.text().to_owned())),
        None => {
            let error = Error::invalid(format!("no entry of `next` applies at step `{}`; add a last entry without `when`", step.name));
            vec![at_the_end(state, step, Some(&ErrorRecord::from(&error)))]
        }
    }
}

fn after_failure(
    state: &RunState,
    workflow: &Workflow,
    step: &Step,
    position: &Position,
    error: &ErrorRecord,
    now: Timestamp,
) -> Vec<Event> {
    let done = state.steps.get(&step.name);
    let strategy = done.map_or(0, |done| done.strategy);
    let units = done.and_then(|done| done.units.as_ref());
    let rules_of = step.retry_of(strategy);
    // Otherwise the step itself failed: while planning or publishing, or by its timeout.
    let failed = units.filter(|units| position.units_failed && units.failed() > 0);
    let items = done.and_then(|done| done.map.as_ref()).filter(|map| position.units_failed && map.error().is_some());
    let by_kind: Option<BTreeMap<ErrorKind, u64>> =
        failed.map(|units| units.failed_by_kind().collect()).or_else(|| items.map(MapState::failed_by_kind));
    let kinds = by_kind.as_ref().map_or_else(|| BTreeSet::from([error.kind]), |kinds| kinds.keys().copied().collect());
    let (mut rules, mut again, mut wait) = (BTreeSet::new(), Vec::new(), Duration::ZERO);
    for kind in kinds {
        if let Some(rule) = retry::applicable(rules_of, &position.rules_used, kind) {
            let used = position.rules_used.get(rule).copied().unwrap_or(0);
            wait = wait.max(retry::wait(&rules_of[rule], used, retry::seed(state.started.seed, &step.name, position.visit, rule, used)));
            rules.insert(u32::try_from(rule).unwrap_or(u32::MAX));
            again.push(kind);
        }
    }
    // Once too many units have failed for good, retrying the others cannot save the step.
    let all = failed.map(UnitStates::len).or_else(|| items.map(MapState::len)).unwrap_or_default();
    let hopeless = by_kind.is_some_and(|kinds| {
        let lost = kinds.into_iter().filter(|(kind, _)| !again.contains(kind));
        step.is_hopeless(strategy, lost, all)
    });
    if !again.is_empty() && !hopeless {
        let wait = wait.max(Duration::from_millis(error.retry_after_ms.unwrap_or(0)));
        let rules = rules.into_iter().collect();
        return vec![Event::RetryScheduled { step: step.name.clone(), rules, kinds: again, due: later(now, wait) }];
    }
    if let Some(ended) = next_strategy(step, strategy, done, position, error) {
        return vec![ended];
    }
    if let Some((done, units)) = done.zip(failed)
        && !hopeless
        && units.pending() == 0
    {
        return vec![succeeded(step, repair_output(&done.earlier, Some(units)))];
    }
    if let Some(map) = items
        && !hopeless
        && map.pending().next().is_none()
        // To tolerate an item never makes up for data that could not be examined.
        && error.kind != ErrorKind::Blind
    {
        return vec![succeeded(step, map.output())];
    }
    match step.catch.iter().find(|rule| rule.on.matches(error.kind)) {
        Some(rule) => go(state, workflow, step, &rule.goto, Some(format!("{}: {}", error.kind, error.message))),
        None if workflow.kind.is_dag() => {
            vec![Event::StepSettled { step: step.name.clone(), result: Settled::Failed { error: error.clone() } }]
        }
        None => vec![at_the_end(state, step, Some(error))],
    }
}

/// Ends a strategy that failed, so that the next can run, if there is one. Not if the failure is none of the strategy's (the step timed
/// out, the program has a bug, data could not be examined), and not while something that was paid for is still unpublished.
fn next_strategy(step: &Step, strategy: usize, done: Option<&StepState>, position: &Position, error: &ErrorRecord) -> Option<Event> {
    let strategies = step.kind.strategies();
    let of_step = match error.kind {
        ErrorKind::Timeout => !position.units_failed,
        ErrorKind::Internal | ErrorKind::Blind | ErrorKind::Cancelled => true,
        _ => false,
    };
    let units = done.and_then(|done| done.units.as_ref());
    if strategy + 1 >= strategies.len() || of_step || !units.is_none_or(UnitStates::is_published) {
        return None;
    }
    let strategy = strategies.get(strategy)?.name.clone();
    Some(Event::StrategyEnded { step: step.name.clone(), strategy, error: Some(error.clone()) })
}

/// Moves to a step, unless the run has already visited it `max_visits` times.
fn go(state: &RunState, workflow: &Workflow, from: &Step, to: &str, why: Option<String>) -> Vec<Event> {
    let visits = state.steps.get(to).map_or(0, |step| step.visits);
    if let Some(most) = workflow.step(to).and_then(|step| step.max_visits)
        && visits >= most
    {
        let error = Error::invalid(format!("the run would visit step `{to}` more often than its `max_visits` of {most}"));
        return vec![at_the_end(state, from, Some(&ErrorRecord::from(&error)))];
    }
    vec![Event::Moved { from: from.name.clone(), to: to.to_owned(), why }, entered(state, to)]
}

fn entered(state: &RunState, step: &str) -> Event {
    Event::StepEntered { step: step.to_owned(), visit: state.steps.get(step).map_or(0, |step| step.visits) + 1 }
}

fn succeeded(step: &Step, output: Value) -> Event {
    Event::StepSucceeded { step: step.name.clone(), output, findings: None, exceptions: None, usage: Usage::default() }
}

fn failed(step: &Step, error: &Error) -> Event {
    Event::StepFailed { step: step.name.clone(), error: ErrorRecord::from(error), units: false }
}

/// A step with no next step ends its branch or, outside any branch, the run.
fn at_the_end(state: &RunState, step: &Step, error: Option<&ErrorRecord>) -> Event {
    match (&step.inside, error) {
        (Some(inside), error) => {
            Event::BranchEnded { step: inside.step.clone(), branch: inside.branch.clone(), at: step.name.clone(), error: error.cloned() }
        }
        (None, Some(error)) => fail(&step.name, error),
        (None, None) => end_well(state),
    }
}

fn fail(step: &str, error: &ErrorRecord) -> Event {
    let outcome = match error.kind {
        ErrorKind::Blind => Outcome::Blind,
        ErrorKind::Budget => Outcome::OverBudget,
        _ => Outcome::Failed,
    };
    Event::RunEnded { outcome, step: step.to_owned(), reason: Some(error.message.clone()), error: Some(error.kind) }
}

/// The end of a run that completed, with exceptions if something is still wrong.
fn end_well(state: &RunState) -> Event {
    let exceptions = exceptions(state);
    let outcome = if exceptions.is_empty() { Outcome::Succeeded } else { Outcome::SucceededWithExceptions };
    let step = state.active.keys().next().cloned().unwrap_or_else(|| {
        let last = state.steps.iter().max_by_key(|(_, step)| step.order);
        last.map(|(name, _)| name.clone()).unwrap_or_default()
    });
    Event::RunEnded { outcome, step, reason: (!exceptions.is_empty()).then(|| exceptions.join("; ")), error: None }
}

/// What is still wrong in a run that completed.
pub(crate) fn exceptions(state: &RunState) -> Vec<String> {
    let mut exceptions = Vec::new();
    for (name, findings, missing) in state.missing() {
        let (slots, wrong) = (if missing == 1 { "slot is" } else { "slots are" }, findings.kind.as_str());
        exceptions.push(format!("{missing} {slots} still {wrong} in table `{}` ({name})", findings.scope.table));
    }
    let mut left_out: Vec<(&str, u64)> = Vec::new();
    for findings in state.findings.values().filter(|findings| findings.counts.quarantined > 0) {
        let (table, rows) = (findings.scope.table.as_str(), findings.counts.quarantined);
        match left_out.iter_mut().find(|(known, _)| *known == table) {
            Some((_, most)) => *most = rows.max(*most),
            None => left_out.push((table, rows)),
        }
    }
    for (table, rows) in left_out {
        exceptions.push(unread(rows, &format!("table `{table}`")));
    }
    for (name, findings) in state.findings.iter().filter(|(_, findings)| findings.counts.unread_elsewhere > 0) {
        let rows = findings.counts.unread_elsewhere;
        exceptions.push(unread(rows, &format!("other tables that `{name}` uses")));
    }
    for (name, step) in &state.steps {
        if let Some(units) = step.units.as_ref().filter(|units| units.failed() > 0) {
            exceptions.push(format!("{} of {} units of `{name}` failed", units.failed(), units.len()));
        }
        if let Some(map) = &step.map {
            let failed = map.failures().count();
            if failed > 0 {
                exceptions.push(format!("{failed} of {} items of `{name}` failed", map.len()));
            }
            let mut within = map.ended.iter().filter_map(|(item, result)| Some((item, result.exceptions.as_ref()?)));
            if let Some((item, first)) = within.next() {
                let more = within.count();
                let more = if more > 0 { format!("; and in {more} more") } else { String::new() };
                exceptions.push(format!("in item {item} of `{name}`: {first}{more}"));
            }
        }
        for earlier in &step.earlier {
            if let Some(error) = &earlier.error {
                exceptions.push(format!("strategy `{}` of `{name}` failed: {}: {}", earlier.strategy, error.kind, error.message));
            }
        }
        if let Some(Settled::Failed { error }) = &step.settled {
            exceptions.push(format!("`{name}` failed: {}: {}", error.kind, error.message));
        }
        if let Some(within) = &step.exceptions {
            exceptions.push(format!("`{name}`: {within}"));
        }
    }
    if let Some((step, error)) = &state.caught {
        exceptions.push(format!("an error in `{step}` was caught: {}: {}", error.kind, error.message));
    }
    exceptions
}

fn stopped(state: &RunState, workflow: &Workflow, why: StopReason) -> Event {
    let step = state.active.keys().next().cloned().unwrap_or_default();
    match why {
        StopReason::Pause => Event::RunPaused,
        StopReason::Cancel => Event::RunEnded {
            outcome: Outcome::Cancelled,
            step,
            reason: Some("the run was cancelled".to_owned()),
            error: Some(ErrorKind::Cancelled),
        },
        StopReason::Timeout => {
            let reason = format!("the run took longer than its timeout of {:?}", workflow.timeout.unwrap_or_default());
            Event::RunEnded { outcome: Outcome::Failed, step, reason: Some(reason), error: Some(ErrorKind::Timeout) }
        }
    }
}

/// The variables that expressions of an active step can use.
pub(crate) fn variables(state: &RunState, step: &str, now: Timestamp) -> Variables {
    let steps = state.steps.iter().map(|(name, step)| (name.clone(), json!({ "visits": step.visits, "output": step.output })));
    let position = state.active.get(step);
    let error = position.and_then(|position| position.error.as_ref());
    Variables {
        params: Value::Object(state.started.params.clone().into_iter().collect()),
        output: state.steps.get(step).map(|step| step.output.clone()).unwrap_or_default(),
        steps: Value::Object(steps.collect()),
        visits: position.map_or(0, |position| position.visit),
        error: error.map(|error| json!({ "kind": error.kind, "message": error.message })).unwrap_or_default(),
        run: Variables::of_run(state.started.at, state.started.now, now),
        items: given_items(&state.started.children),
    }
}

fn timer(wait: &Wait, variables: &Variables, entered_at: Timestamp) -> Result<Timestamp> {
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
                Error::invalid(format!("`{text}` is not an instant; write one such as 2024-03-04T14:30:00Z")).because(error)
            })
        }
        Wait::Sensor(_) => Err(Error::internal("a sensor sets no timer")),
    }
}

fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
