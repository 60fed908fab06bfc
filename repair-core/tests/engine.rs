//! What decides is pure: these tests feed it what happened and look at what it wants next.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use repair_core::engine::decide::{Decision, decide};
use repair_core::engine::event::{ErrorRecord, Event, FORMAT, Outcome, UnitEnded, UnitResult};
use repair_core::engine::state::{Phase, UnitState};
use repair_core::engine::{Recorded, RunState};
use repair_core::workflow::{
    Branch, CatchRule, ErrorMatch, Expression, Jitter, RetryRule, Step, StepKind, Template, Tolerance, Wait, Workflow,
};
use repair_core::{ErrorKind, Usage};
use serde_json::{Value, json};

fn step(name: &str, kind: StepKind, next: &[(&str, &str)]) -> Step {
    let branch = |(when, goto): &(&str, &str)| Branch {
        when: (!when.is_empty()).then(|| Expression::parse(when).unwrap()),
        goto: (*goto).to_owned(),
    };
    Step { name: name.to_owned(), kind, next: next.iter().map(branch).collect(), retry: Vec::new(), catch: Vec::new(), max_visits: None }
}

fn task() -> StepKind {
    StepKind::Task { plugin: "any".to_owned(), with: Template::Value(Value::Null) }
}

fn repair(tolerate: Tolerance) -> StepKind {
    let with = Template::Value(Value::Null);
    StepKind::Repair { plugin: "idea".to_owned(), of: "look".to_owned(), with, concurrency: 4, rate_limit: None, tolerate }
}

fn rule(kinds: &[ErrorKind], attempts: u32) -> RetryRule {
    let (on, interval) = (ErrorMatch::Kinds(kinds.to_vec()), Duration::from_secs(1));
    RetryRule { on, attempts, interval, backoff: 2.0, max_interval: None, jitter: Jitter::None }
}

fn workflow(steps: Vec<Step>) -> Workflow {
    Workflow {
        name: "w".to_owned(),
        text: String::new(),
        file: "w.yaml".to_owned(),
        params: BTreeMap::new(),
        tags: BTreeMap::new(),
        tables: BTreeMap::new(),
        sources: BTreeMap::new(),
        start: steps[0].name.clone(),
        steps,
        profiles: BTreeMap::new(),
    }
}

/// A run whose work is done by the test.
struct Run {
    workflow: Workflow,
    events: Vec<Recorded>,
    state: RunState,
    now: Timestamp,
}

impl Run {
    fn new(steps: Vec<Step>) -> Self {
        let now = "2024-03-04T12:00:00Z".parse().unwrap();
        let event = Event::RunStarted {
            format: FORMAT,
            workflow: "w".to_owned(),
            definition: String::new(),
            file: "w.yaml".to_owned(),
            params: BTreeMap::from([("limit".to_owned(), json!(3))]),
            environment: Value::Null,
            seed: 7,
        };
        let events = vec![Recorded { sequence: 0, at: now, event }];
        let state = RunState::fold(&events).unwrap();
        Self { workflow: workflow(steps), events, state, now }
    }

    fn record(&mut self, event: Event) {
        let recorded = Recorded { sequence: self.state.next_sequence, at: self.now, event };
        self.state.apply(&recorded).unwrap();
        self.events.push(recorded);
        // The heart of resume: what a new process folds from the journal is what this one has, at every event, also as JSON.
        let texts: Vec<String> = self.events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        let read: Vec<Recorded> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(RunState::fold(&read).unwrap(), self.state);
    }

    /// Records what follows until there is work, a wait, or an end. To decide twice is to decide the same.
    fn settle(&mut self) -> Decision {
        for _ in 0..100 {
            let decision = decide(&self.state, &self.workflow, self.now);
            assert_eq!(decision, decide(&self.state, &self.workflow, self.now));
            let Decision::Record(events) = decision else { return decision };
            events.into_iter().for_each(|event| self.record(event));
        }
        panic!("it goes in circles without work");
    }

    /// The step whose work is to be done now.
    fn at(&mut self) -> String {
        match self.settle() {
            Decision::Work { step, .. } => step,
            other => panic!("{other:?}"),
        }
    }

    fn succeed(&mut self, output: Value) {
        let step = self.at();
        self.record(Event::StepSucceeded { step, output, findings: None, usage: Usage::default() });
    }

    fn fail(&mut self, kind: ErrorKind) {
        let step = self.at();
        self.record(Event::StepFailed { step, error: error(kind) });
    }

    /// How long it waits now, in seconds.
    fn waits_s(&mut self) -> i64 {
        match self.settle() {
            Decision::Sleep { due } => {
                let wait = due.duration_since(self.now);
                self.now = due.checked_sub(SignedDuration::from_nanos(1)).unwrap();
                assert_eq!(self.settle(), Decision::Sleep { due }, "never early");
                self.now = due;
                wait.as_secs()
            }
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self) -> (Outcome, Option<ErrorKind>) {
        assert_eq!(self.settle(), Decision::Nothing);
        let ended = self.state.ended.as_ref().unwrap();
        (ended.outcome, ended.error)
    }
}

fn error(kind: ErrorKind) -> ErrorRecord {
    ErrorRecord { kind, message: format!("it was {kind}"), retry_after_ms: None }
}

#[test]
fn it_goes_back_while_a_condition_holds_and_skips_forward_when_it_does_not() {
    let steps = || {
        vec![
            step("look", task(), &[("$output.missing = 0", "sum"), ("", "fill")]),
            step("fill", task(), &[("", "check")]),
            step("check", task(), &[("$output.missing = 0", "sum"), ("$visits < $params.limit", "fill"), ("", "give_up")]),
            step("sum", task(), &[]),
            step("give_up", StepKind::Fail { message: "still missing".to_owned() }, &[]),
        ]
    };
    let mut run = Run::new(steps());
    run.succeed(json!({ "missing": 0 }));
    assert_eq!(run.at(), "sum", "nothing to do: straight to the end");
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
    assert!(!run.state.steps.contains_key("fill"));

    let mut run = Run::new(steps());
    run.succeed(json!({ "missing": 9 }));
    for _ in 0..3 {
        assert_eq!(run.at(), "fill");
        run.succeed(Value::Null);
        run.succeed(json!({ "missing": 1 }));
    }
    assert_eq!(run.ended(), (Outcome::Failed, None));
    assert_eq!(run.state.steps["fill"].visits, 3);
    assert_eq!(run.state.ended.as_ref().unwrap().reason.as_deref(), Some("still missing"));
}

#[test]
fn a_wait_is_set_once_and_counts_from_when_the_run_came_there() {
    let wait = StepKind::Wait(Wait::For(Template::Value(json!("2d"))));
    let mut run = Run::new(vec![step("settle", wait, &[("", "sum")]), step("sum", task(), &[])]);
    assert_eq!(run.waits_s(), 2 * 86_400);
    assert_eq!(run.at(), "sum");
    let timers = run.events.iter().filter(|recorded| matches!(recorded.event, Event::TimerSet { .. })).count();
    assert_eq!(timers, 1);
}

#[test]
fn a_wait_that_is_long_past_fires_late_rather_than_never() {
    let wait = StepKind::Wait(Wait::Until(Template::Value(json!("2020-01-01T00:00:00Z"))));
    let mut run = Run::new(vec![step("settle", wait, &[])]);
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
}

#[test]
fn retry_rules_count_apart_and_catch_comes_only_after_they_give_up() {
    use ErrorKind::{Denied, Invalid, Throttled, Transient};
    let mut ask = step("ask", task(), &[("", "sum")]);
    ask.retry = vec![rule(&[Transient, Throttled], 2), rule(&[Invalid], 2)];
    ask.catch = vec![CatchRule { on: ErrorMatch::Any, goto: "caught".to_owned() }];
    let caught = step("caught", task(), &[("$error.kind = 'throttled' and $visits < 2", "ask"), ("", "sum")]);
    let mut run = Run::new(vec![ask, caught, step("sum", task(), &[])]);
    let mut waits = Vec::new();
    for kind in [Transient, Throttled, Invalid] {
        run.fail(kind);
        waits.push(run.waits_s());
    }
    assert_eq!(waits, [1, 2, 1]);
    run.fail(Throttled);
    assert_eq!(run.at(), "caught");
    run.succeed(Value::Null);
    assert_eq!(run.at(), "ask");
    run.fail(Transient);
    assert_eq!(run.waits_s(), 1, "leaving the step has reset its rules");
    run.fail(Denied);
    assert_eq!(run.at(), "caught", "no rule names it: caught at once");
    assert_eq!(run.state.caught.as_ref().unwrap().kind, Denied);
}

#[test]
fn the_other_side_may_ask_for_a_longer_wait() {
    let mut ask = step("ask", task(), &[]);
    ask.retry = vec![rule(&[ErrorKind::Throttled], 1)];
    let mut run = Run::new(vec![ask]);
    let step = run.at();
    run.record(Event::StepFailed { step, error: ErrorRecord { retry_after_ms: Some(30_000), ..error(ErrorKind::Throttled) } });
    assert_eq!(run.waits_s(), 30);
}

#[test]
fn blind_is_an_outcome_of_its_own_and_any_does_not_catch_a_budget() {
    let mut run = Run::new(vec![step("look", task(), &[])]);
    run.fail(ErrorKind::Blind);
    assert_eq!(run.ended(), (Outcome::Blind, Some(ErrorKind::Blind)));

    let mut spend = step("spend", task(), &[("", "sum")]);
    spend.catch = vec![CatchRule { on: ErrorMatch::Any, goto: "sum".to_owned() }];
    let mut run = Run::new(vec![spend, step("sum", task(), &[])]);
    run.fail(ErrorKind::Budget);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Budget)));
}

#[test]
fn a_step_visited_more_than_it_may_fails_the_run() {
    let mut again = step("again", task(), &[("", "again")]);
    again.max_visits = Some(2);
    let mut run = Run::new(vec![again]);
    run.succeed(Value::Null);
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Invalid)));
}

#[test]
fn a_condition_that_is_neither_true_nor_false_fails_the_run_and_says_which() {
    let mut run = Run::new(vec![step("look", task(), &[("$output.count", "look"), ("", "look")])]);
    run.succeed(json!({ "count": 3 }));
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Invalid)));
    assert!(run.state.ended.as_ref().unwrap().reason.as_ref().unwrap().contains("$output.count"));
}

/// Plans units and ends some of them, as the fan-out would.
fn plan(run: &mut Run, units: u32) {
    let step = run.at();
    let (table, strategy, artifact) = ("bars".to_owned(), "idea".to_owned(), "fill-1-units".to_owned());
    run.record(Event::UnitsPlanned { step, table, strategy, units, slots: u64::from(units), artifact });
}

fn end(run: &mut Run, ends: &[(u32, Option<ErrorKind>)]) {
    let units = ends.iter().map(|&(unit, failed)| {
        let result = match failed {
            None => UnitResult::Staged { rows: 1, absent: 0, usage: Usage { source_requests: 1, ..Usage::default() } },
            Some(kind) => UnitResult::Failed { error: error(kind) },
        };
        UnitEnded { unit, result }
    });
    run.record(Event::UnitsEnded { step: "fill".to_owned(), units: units.collect() });
    let failed = ends.iter().find_map(|(_, failed)| *failed);
    if let Some(kind) = failed {
        run.record(Event::StepFailed { step: "fill".to_owned(), error: error(kind) });
    }
}

/// Pending, done and failed units; in every state of a run each unit is counted exactly once.
fn states(run: &Run) -> (u64, u64, u64) {
    let fanout = run.state.steps["fill"].fanout.as_ref().unwrap();
    let pending = fanout.count(|unit| unit == UnitState::Pending);
    let done = fanout.count(|unit| matches!(unit, UnitState::Staged | UnitState::Published));
    let failed = fanout.count(|unit| matches!(unit, UnitState::Failed(_)));
    assert_eq!(pending + done + failed, fanout.units.len() as u64);
    (pending, done, failed)
}

#[test]
fn crashed_is_counted_and_only_what_failed_is_tried_again() {
    let mut fill = step("fill", repair(Tolerance::Count(1)), &[]);
    fill.retry = vec![rule(&[ErrorKind::Transient], 2)];
    let mut run = Run::new(vec![fill]);
    plan(&mut run, 4);
    assert_eq!(states(&run), (4, 0, 0));
    end(&mut run, &[(0, None), (1, Some(ErrorKind::Transient)), (2, None), (3, Some(ErrorKind::Denied))]);
    assert_eq!(states(&run), (0, 2, 2));
    assert_eq!(run.waits_s(), 1);
    assert_eq!(states(&run), (1, 2, 1), "the transient one is tried again, the denied one stays failed");
    assert_eq!(run.at(), "fill");
    end(&mut run, &[(1, None)]);
    // As the driver does when nothing is pending but a failure is left, which is tolerated.
    run.record(Event::StepFailed { step: "fill".to_owned(), error: error(ErrorKind::Denied) });
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
    let output = &run.state.steps["fill"].output;
    assert_eq!((&output["succeeded"], &output["failed"], &output["requests"]), (&json!(3), &json!(1), &json!(3)));
}

#[test]
fn more_failures_than_tolerated_are_not_tried_on() {
    let mut fill = step("fill", repair(Tolerance::Percent(25.0)), &[("", "fill")]);
    fill.retry = vec![rule(&[ErrorKind::Transient], 5)];
    let mut run = Run::new(vec![fill]);
    plan(&mut run, 4);
    end(&mut run, &[(0, Some(ErrorKind::Denied)), (1, Some(ErrorKind::Denied)), (2, Some(ErrorKind::Transient))]);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Denied)));
}

#[test]
fn a_journal_that_makes_no_sense_is_refused() {
    let mut run = Run::new(vec![step("look", task(), &[])]);
    run.succeed(Value::Null);
    let whole = run.events.clone();
    let mut holed = whole.clone();
    holed.remove(1);
    assert!(RunState::fold(&holed).unwrap_err().message().contains("event 1 was to come"));
    assert!(RunState::fold(&whole[1..]).is_err());
    let mut twice = whole.clone();
    let mut again = whole.last().unwrap().clone();
    again.sequence += 1;
    again.event = Event::TimerSet { step: "elsewhere".to_owned(), due: run.now };
    twice.push(again);
    assert!(RunState::fold(&twice).unwrap_err().message().contains("`elsewhere`"));
    assert_eq!(RunState::fold(&whole).unwrap().position.unwrap().phase, Phase::Done);
}
