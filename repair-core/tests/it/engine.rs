//! What decides is pure: these tests feed it what happened and look at what it wants next.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use repair_core::engine::ItemResult;
use repair_core::engine::Phase;
use repair_core::engine::RunReport;
use repair_core::engine::UnitState;
use repair_core::engine::control;
use repair_core::engine::{Decision, decide};
use repair_core::engine::{ErrorRecord, Event, FORMAT, Outcome, Settled, StopReason, UnitFailed};
use repair_core::engine::{Recorded, RunState};
use repair_core::model::Usage;
use repair_core::model::{Conflicts, Findings, Fix, Suspects, Unit};
use repair_core::plugin::{Detector, PlannedUnits, Registry, Repairer, StepContext, Task};
use repair_core::workflow::{REPAIR_OUTPUT, Workflow};
use repair_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

/// Plug-ins that are never called: what they would do, the tests say.
struct Nothing;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct AnyConfig {}

#[async_trait]
impl Task for Nothing {
    async fn perform(&self, _: &StepContext) -> Result<(Value, Usage)> {
        Err(Error::internal("never called"))
    }
}

#[async_trait]
impl Detector for Nothing {
    async fn detect(&self, _: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        Err(Error::internal("never called"))
    }
}

#[async_trait]
impl Repairer for Nothing {
    async fn plan(&self, _: &StepContext, _: &Findings) -> Result<PlannedUnits> {
        Err(Error::internal("never called"))
    }

    async fn repair(&self, _: &StepContext, _: &Findings, _: &Unit) -> Result<Fix> {
        Err(Error::internal("never called"))
    }
}

fn parse(text: &str) -> Workflow {
    let mut registry = Registry::default();
    registry.task("do", "does something", |_: AnyConfig| Ok(Nothing));
    registry.detector("look", "looks", |_: AnyConfig| Ok(Nothing));
    registry.repairer("idea", "repairs", |_: AnyConfig| Ok(Nothing));
    let head = if text.contains("after:") { "kind: dag" } else { "kind: state-machine" };
    Workflow::parse("w.yaml", &format!("workflow: w\n{head}\n{text}"), &registry).unwrap_or_else(|told| panic!("{told}"))
}

/// A run whose work is done by the test.
struct Run {
    workflow: Workflow,
    events: Vec<Recorded>,
    state: RunState,
    now: Timestamp,
}

impl Run {
    fn new(text: &str) -> Self {
        let now = "2024-03-04T12:00:00Z".parse().unwrap();
        let workflow = parse(text);
        let event = Event::RunStarted {
            now: None,
            format: FORMAT,
            workflow: "w".to_owned(),
            definition: workflow.text.clone(),
            file: "w.yaml".to_owned(),
            children: BTreeMap::new(),
            params: BTreeMap::from([("limit".to_owned(), json!(3))]),
            environment: Value::Null,
            seed: 7,
            expressions: None,
            turn: 0,
            budget: Default::default(),
        };
        let events = vec![Recorded { sequence: 0, at: now, event }];
        let state = RunState::fold(&events).unwrap();
        Self { workflow, events, state, now }
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
        for _ in 0..200 {
            let decision = decide(&self.state, &self.workflow, self.now);
            assert_eq!(decision, decide(&self.state, &self.workflow, self.now));
            if decision.record.is_empty() {
                return decision;
            }
            decision.record.into_iter().for_each(|event| self.record(event));
        }
        panic!("it goes in circles without work");
    }

    /// The steps whose work is to be under way, joined by spaces.
    fn working(&mut self) -> String {
        self.settle().work.join(" ")
    }

    /// The only step whose work is to be done now.
    fn at(&mut self) -> String {
        let working = self.working();
        assert!(!working.is_empty() && !working.contains(' '), "working: {working}; {:?}", self.state.ended);
        working
    }

    fn succeed(&mut self, output: Value) {
        let step = self.at();
        self.done(&step, output);
    }

    fn done(&mut self, step: &str, output: Value) {
        self.settle();
        self.record(Event::StepSucceeded { step: step.to_owned(), output, findings: None, exceptions: None, usage: Usage::default() });
    }

    fn fail(&mut self, kind: ErrorKind) {
        let step = self.at();
        self.fails(&step, kind);
    }

    fn fails(&mut self, step: &str, kind: ErrorKind) {
        self.settle();
        self.record(Event::StepFailed { step: step.to_owned(), error: error(kind), units: false });
    }

    /// How long it waits now, in seconds.
    fn waits_s(&mut self) -> i64 {
        let decision = self.settle();
        assert!(decision.work.is_empty(), "{decision:?}");
        let due = decision.due.unwrap();
        let wait = due.duration_since(self.now);
        self.now = due.checked_sub(SignedDuration::from_nanos(1)).unwrap();
        assert_eq!(self.settle(), Decision { due: Some(due), ..Decision::default() }, "never early");
        self.now = due;
        wait.as_secs()
    }

    fn later_s(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    fn ended(&mut self) -> (Outcome, Option<ErrorKind>) {
        assert_eq!(self.settle(), Decision::default());
        let ended = self.state.ended.as_ref().unwrap();
        (ended.outcome, ended.error)
    }

    fn reason(&self) -> String {
        self.state.ended.as_ref().and_then(|ended| ended.reason.clone()).unwrap_or_default()
    }

    fn settled(&self, step: &str) -> &'static str {
        match self.state.steps.get(step).and_then(|step| step.settled.as_ref()) {
            Some(Settled::Succeeded) => "succeeded",
            Some(Settled::Failed { .. }) => "failed",
            Some(Settled::Skipped { .. }) => "skipped",
            Some(other) => panic!("a result that this test does not know: {other:?}"),
            None => "not settled",
        }
    }
}

fn error(kind: ErrorKind) -> ErrorRecord {
    ErrorRecord { kind, message: format!("it was {kind}"), retry_after_ms: None }
}

#[test]
fn it_goes_back_while_a_condition_holds_and_skips_forward_when_it_does_not() {
    const STEPS: &str = "params: { limit: { type: integer, default: 3 } }\nstart: look\nsteps:
  look: { task: do, next: [{ when: $output.missing = 0, goto: sum }, { goto: fill }] }
  fill: { task: do, next: check }
  check: { task: do, next: [{ when: $output.missing = 0, goto: sum }, { when: $visits < $params.limit, goto: fill }, { goto: give_up }] }
  sum: { task: do, end: true }
  give_up: { fail: still missing }";
    let mut run = Run::new(STEPS);
    run.succeed(json!({ "missing": 0 }));
    assert_eq!(run.at(), "sum", "nothing to do: straight to the end");
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
    assert!(!run.state.steps.contains_key("fill"));

    let mut run = Run::new(STEPS);
    run.succeed(json!({ "missing": 9 }));
    for _ in 0..3 {
        assert_eq!(run.at(), "fill");
        run.succeed(Value::Null);
        run.succeed(json!({ "missing": 1 }));
    }
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Failed)));
    assert_eq!(run.state.steps["fill"].visits, 3);
    assert_eq!(run.reason(), "still missing");
}

#[test]
fn a_wait_is_set_once_and_counts_from_when_the_run_came_there() {
    let mut run = Run::new("start: settle\nsteps:\n  settle: { wait: { for: 2d }, next: sum }\n  sum: { task: do, end: true }");
    run.settle();
    run.later_s(86_400);
    // Another driver in between changes nothing.
    run.record(Event::DriverStarted { driver: "another".to_owned(), expressions: None });
    assert_eq!(run.waits_s(), 86_400);
    assert_eq!(run.at(), "sum");
    let timers = run.events.iter().filter(|recorded| matches!(recorded.event, Event::TimerSet { .. })).count();
    assert_eq!(timers, 1);
}

#[test]
fn a_wait_that_is_long_past_fires_late_rather_than_never() {
    let mut run = Run::new("start: settle\nsteps:\n  settle: { wait: { until: '2020-01-01T00:00:00Z' }, end: true }");
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
}

/// The example of the States Language's specification: errors A, B, C, B against a rule on A and B with two attempts and one on C.
#[test]
fn retry_rules_count_apart_and_catch_comes_only_after_they_give_up() {
    use ErrorKind::{Denied, Invalid, Throttled, Transient};
    let mut run = Run::new(
        "start: ask\nsteps:
  ask:
    task: do
    retry: [{ on: [transient, throttled], attempts: 2 }, { on: invalid, attempts: 2 }]
    catch: [{ on: any, goto: caught }]
    next: sum
  caught: { task: do, next: [{ when: $error.kind = 'throttled' and $visits < 2, goto: ask }, { goto: sum }] }
  sum: { task: do, end: true }",
    );
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
    assert_eq!(run.state.caught.as_ref().unwrap().1.kind, Denied);
    run.succeed(Value::Null);
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::SucceededWithExceptions, None));
    assert!(run.reason().contains("an error in `ask` was caught: denied"), "{}", run.reason());
}

#[test]
fn the_other_side_may_ask_for_a_longer_wait() {
    let mut run = Run::new("start: ask\nsteps:\n  ask: { task: do, retry: [{ on: throttled, attempts: 1 }], end: true }");
    let step = run.at();
    let error = ErrorRecord { retry_after_ms: Some(30_000), ..error(ErrorKind::Throttled) };
    run.record(Event::StepFailed { step, error, units: false });
    assert_eq!(run.waits_s(), 30);
}

#[test]
fn blind_is_an_outcome_of_its_own_and_any_does_not_catch_a_budget() {
    let mut run = Run::new("start: look\nsteps:\n  look: { task: do, end: true }");
    run.fail(ErrorKind::Blind);
    assert_eq!(run.ended(), (Outcome::Blind, Some(ErrorKind::Blind)));

    let mut run =
        Run::new("start: spend\nsteps:\n  spend: { task: do, catch: [{ on: any, goto: sum }], next: sum }\n  sum: { task: do, end: true }");
    run.fail(ErrorKind::Budget);
    assert_eq!(run.ended(), (Outcome::OverBudget, Some(ErrorKind::Budget)));
}

#[test]
fn blind_is_not_clean() {
    // Neither `any` nor a step that is there for failures makes good what could not be looked at; only to name it does.
    let mut run =
        Run::new("start: look\nsteps:\n  look: { task: do, catch: [{ on: any, goto: sum }], next: sum }\n  sum: { task: do, end: true }");
    run.fail(ErrorKind::Blind);
    assert_eq!(run.ended(), (Outcome::Blind, Some(ErrorKind::Blind)));
    let mut run =
        Run::new("start: look\nsteps:\n  look: { task: do, catch: [{ on: blind, goto: sum }], next: sum }\n  sum: { task: do, end: true }");
    run.fail(ErrorKind::Blind);
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::SucceededWithExceptions, None));
    let mut run = Run::new("steps:\n  look: { task: do }\n  tell: { task: do, after: [look], run_if: any_failed }");
    run.fail(ErrorKind::Blind);
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::Blind, Some(ErrorKind::Blind)));
}

#[test]
fn a_step_visited_more_than_it_may_fails_the_run() {
    let mut run = Run::new(
        "start: again\nsteps:
  again: { task: do, max_visits: 2, next: [{ when: $output.more, goto: again }, { goto: sum }] }
  sum: { task: do, end: true }",
    );
    run.succeed(json!({ "more": true }));
    run.succeed(json!({ "more": true }));
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Invalid)));
}

#[test]
fn a_condition_that_is_neither_true_nor_false_fails_the_run_and_says_which() {
    let mut run = Run::new(
        "start: look\nsteps:\n  look: { task: do, max_visits: 9, next: [{ when: $output.count, goto: look }, { goto: sum }] }\n  sum: { task: do, end: true }",
    );
    run.succeed(json!({ "count": 3 }));
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Invalid)));
    assert!(run.reason().contains("$output.count"));
}

#[test]
fn a_step_and_a_run_that_take_too_long_are_timed_out_and_a_new_driver_begins_the_attempt_anew() {
    let mut run = Run::new(
        "timeout: 1h\nstart: ask\nsteps:\n  ask: { task: do, timeout: 10m, retry: [{ on: timeout, attempts: 1, interval: 0s }], end: true }",
    );
    assert_eq!(run.at(), "ask");
    run.later_s(599);
    assert_eq!(run.at(), "ask");
    run.record(Event::DriverStarted { driver: "another".to_owned(), expressions: None });
    run.later_s(599);
    assert_eq!(run.at(), "ask", "this driver's attempt began when it took up the run");
    run.later_s(1);
    assert_eq!(run.at(), "ask", "timed out, and tried again at once");
    assert_eq!(run.state.active["ask"].attempt, 2);
    run.later_s(600);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Timeout)));

    let mut run = Run::new("timeout: 1h\nstart: settle\nsteps:\n  settle: { wait: { for: 2h }, end: true }");
    assert_eq!(run.waits_s(), 3_600);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Timeout)));
    assert!(run.reason().contains("the run took longer"), "{}", run.reason());
}

const BRANCHES: &str = "start: both
steps:
  both:
    parallel:
      prices:
        start: a
        steps:
          a: { task: do, next: b }
          b: { task: do, end: true }
      volumes:
        start: c
        steps:
          c: { wait: { for: 10s }, next: d }
          d: { task: do, retry: [{ on: transient, attempts: 1 }], end: true }
    retry: [{ on: invalid, attempts: 1, interval: 5s }]
    catch: [{ on: denied, goto: caught }]
    next: sum
  sum: { task: do, end: true }
  caught: { task: do, end: true }";

#[test]
fn branches_run_side_by_side_and_what_succeeded_of_them_is_not_done_again() {
    let mut run = Run::new(BRANCHES);
    assert_eq!(run.working(), "a");
    run.done("a", Value::Null);
    assert_eq!(run.working(), "b");
    run.later_s(10);
    assert_eq!(run.working(), "b d");
    run.fails("d", ErrorKind::Transient);
    assert_eq!(run.working(), "b", "a branch waits for its retry, the other goes on");
    run.later_s(1);
    assert_eq!(run.working(), "b d");
    run.done("b", json!(1));
    run.fails("d", ErrorKind::Invalid);
    assert_eq!(run.waits_s(), 5, "a failed branch fails the step, which is tried again");
    assert_eq!(run.working(), "d", "branch `prices` is at its end");
    run.done("d", json!(2));
    assert_eq!(run.at(), "sum");
    assert_eq!(run.state.steps["both"].output, json!({ "prices": 1, "volumes": 2 }));
    assert_eq!((run.state.steps["a"].visits, run.state.steps["d"].attempts), (1, 3));
}

#[test]
fn a_branch_that_fails_stops_the_others_and_can_be_caught() {
    let mut run = Run::new(BRANCHES);
    assert_eq!(run.working(), "a");
    run.later_s(10);
    assert_eq!(run.working(), "a d");
    run.fails("d", ErrorKind::Denied);
    assert_eq!(run.working(), "caught");
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::SucceededWithExceptions, None));
    assert!(run.reason().contains("branch `volumes`: it was denied"), "{}", run.reason());
}

#[test]
fn a_dag_runs_what_it_can_at_once_up_to_its_limit() {
    let mut run = Run::new(
        "max_parallel: 2\nsteps:
  a: { task: do }
  b: { task: do }
  c: { task: do }
  d: { task: do, after: [a, b] }
  e: { task: do, after: [c, d] }",
    );
    assert_eq!(run.working(), "a b");
    run.done("b", Value::Null);
    assert_eq!(run.working(), "a c");
    run.done("a", Value::Null);
    run.done("c", Value::Null);
    assert_eq!(run.working(), "d");
    run.done("d", Value::Null);
    run.done("e", Value::Null);
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
}

#[test]
fn done_means_done() {
    const STEPS: &str = "steps:
  a: { task: do, retry: [{ on: transient, attempts: 1 }] }
  b: { task: do, after: a }
  c: { task: do, after: [b], run_if: any_succeeded }
  d: { task: do, after: [a, b], run_if: all_done }
  e: { task: do, after: [a], run_if: any_failed }
  f: { task: do, after: [e], run_if: all_succeeded }";
    // All is well: what is there for failures is skipped, and says why.
    let mut run = Run::new(STEPS);
    for step in ["a", "b", "c", "d"] {
        run.done(step, Value::Null);
    }
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
    assert_eq!((run.settled("e"), run.settled("f")), ("skipped", "skipped"));
    assert_eq!(run.state.steps["f"].settled, Some(Settled::Skipped { why: "`e` was skipped".to_owned() }));

    // A step fails: what depends on it is skipped, and the run is no success, although others went on.
    let mut run = Run::new(STEPS);
    run.fail(ErrorKind::Transient);
    assert_eq!(run.waits_s(), 1);
    run.fail(ErrorKind::Denied);
    assert_eq!(run.working(), "d e");
    assert_eq!((run.settled("a"), run.settled("b"), run.settled("c")), ("failed", "skipped", "skipped"));
    run.fails("d", ErrorKind::Invalid);
    run.fails("e", ErrorKind::Invalid);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Denied)));

    // A step that is there for failures makes it a success with an exception.
    let mut run = Run::new(STEPS);
    run.fail(ErrorKind::Denied);
    for step in ["d", "e", "f"] {
        run.done(step, Value::Null);
    }
    assert_eq!(run.ended(), (Outcome::SucceededWithExceptions, None));
    assert!(run.reason().contains("`a` failed: denied"), "{}", run.reason());
}

#[test]
fn each_step_before_may_have_to_end_in_its_own_way() {
    const STEPS: &str = "steps:
  look: { task: do }
  fetch: { task: do }
  other: { task: do, after: [look] }
  note: { task: do, after: { look: failed, fetch: succeeded, other: done } }
  rest: { task: do, after: { other: skipped } }
  sum: { task: do, after: [note] }";
    // It waits for all of them, whatever their conditions say.
    let mut run = Run::new(STEPS);
    run.fails("look", ErrorKind::Denied);
    assert_eq!((run.working(), run.settled("other")), ("fetch rest".to_owned(), "skipped"));
    run.done("rest", Value::Null);
    run.done("fetch", Value::Null);
    assert_eq!(run.working(), "note");
    run.done("note", Value::Null);
    run.done("sum", Value::Null);
    // A step that was there for the failure, and succeeded, has dealt with it.
    assert_eq!(run.ended(), (Outcome::SucceededWithExceptions, None));

    // One condition that does not hold is enough, and what needs the step is skipped with it.
    let mut run = Run::new(STEPS);
    for step in ["look", "fetch", "other"] {
        run.done(step, Value::Null);
    }
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
    let skipped = |step: &str| match run.state.steps[step].settled.clone() {
        Some(Settled::Skipped { why }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(skipped("note"), "`look` succeeded, and must have failed");
    assert_eq!(skipped("rest"), "`other` succeeded, and must have been skipped");
    assert_eq!(skipped("sum"), "`note` was skipped");

    // A step that comes after a failure, and needs another to succeed, deals with the first alone.
    let mut run = Run::new("steps:\n  a: { task: do }\n  b: { task: do }\n  c: { task: do, after: { a: failed, b: succeeded } }");
    run.done("a", Value::Null);
    run.fails("b", ErrorKind::Denied);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Denied)));
    let mut run = Run::new("steps:\n  a: { task: do }\n  c: { task: do, after: { a: succeeded } }\n  d: { task: do, after: { a: done } }");
    run.fails("a", ErrorKind::Denied);
    assert_eq!((run.working(), run.settled("c")), ("d".to_owned(), "skipped"));
    run.done("d", Value::Null);
    assert_eq!(run.ended(), (Outcome::SucceededWithExceptions, None));
}

fn item(run: &mut Run, item: u32, failed: Option<ErrorKind>) {
    let result = ItemResult {
        missing: 0,
        run: format!("r{item}"),
        outcome: if failed.is_some() { Outcome::Failed } else { Outcome::Succeeded },
        events: 9,
        output: json!({ "a": { "n": item } }),
        output_bytes: None,
        error: failed.map(error),
        exceptions: None,
        usage: Usage { source_requests: 2, ..Usage::default() },
        spend: None,
    };
    run.record(Event::ItemEnded { step: "each".to_owned(), item, result: Box::new(result) });
}

#[test]
fn a_map_repeats_what_failed_in_such_a_way_and_tolerates_the_rest() {
    const STEPS: &str = "start: each\nsteps:
  each:
    map: { over: [x, y, z] }
    tolerate: { failed: 34% }
    retry: [{ on: transient, attempts: 1 }]
    start: a
    steps: { a: { task: do, end: true } }
    next: [{ when: $output.failed > 0, goto: some }, { goto: all }]
  some: { task: do, end: true }
  all: { task: do, end: true }";
    let planned = |run: &mut Run| {
        assert_eq!(run.at(), "each");
        run.record(Event::ItemsPlanned { step: "each".to_owned(), items: vec![json!("x"), json!("y"), json!("z")], unread: None });
    };
    let failed = |run: &mut Run, kind: ErrorKind| {
        run.record(Event::StepFailed { step: "each".to_owned(), error: error(kind), units: true });
    };
    let mut run = Run::new(STEPS);
    planned(&mut run);
    item(&mut run, 0, None);
    item(&mut run, 1, Some(ErrorKind::Transient));
    item(&mut run, 2, Some(ErrorKind::Denied));
    failed(&mut run, ErrorKind::Transient);
    // One of three is tolerated, and the other may still succeed.
    assert_eq!(run.waits_s(), 1);
    let map = run.state.steps["each"].map.as_ref().unwrap();
    assert_eq!((map.pending().collect::<Vec<_>>(), map.again.get(&1)), (vec![1], Some(&9)));
    assert_eq!(run.at(), "each");
    item(&mut run, 1, None);
    failed(&mut run, ErrorKind::Denied);
    assert_eq!(run.at(), "some");
    assert_eq!(run.state.steps["each"].usage.source_requests, 6, "the run of an item says what it has used in all");
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::SucceededWithExceptions, None));
    assert_eq!(run.reason(), "1 of 3 items of `each` failed");

    // Two that cannot succeed are too many, so what could be repeated is not.
    let mut run = Run::new(STEPS);
    planned(&mut run);
    item(&mut run, 0, Some(ErrorKind::Denied));
    item(&mut run, 1, Some(ErrorKind::Transient));
    item(&mut run, 2, Some(ErrorKind::Invalid));
    failed(&mut run, ErrorKind::Denied);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Denied)));
    // Redriven, all that failed runs again.
    let redriven = control::redrive("run", &run.state, &run.workflow).unwrap();
    run.record(redriven);
    assert_eq!((run.at(), run.state.steps["each"].map.as_ref().unwrap().pending().count()), ("each".to_owned(), 3));

    // A tolerated item in which data could not be examined is not tolerated.
    let mut run = Run::new(STEPS);
    planned(&mut run);
    item(&mut run, 0, Some(ErrorKind::Blind));
    item(&mut run, 1, None);
    item(&mut run, 2, None);
    failed(&mut run, ErrorKind::Blind);
    assert_eq!(run.ended(), (Outcome::Blind, Some(ErrorKind::Blind)));
}

#[test]
fn a_run_that_is_cancelled_or_paused_asks_for_no_more_work() {
    for (why, outcome) in [(StopReason::Cancel, Some(Outcome::Cancelled)), (StopReason::Pause, None)] {
        let mut run = Run::new(BRANCHES);
        assert_eq!(run.working(), "a");
        run.record(Event::StopRequested { why });
        let decision = decide(&run.state, &run.workflow, run.now);
        assert!(decision.comes_to_rest() && decision.work.is_empty());
        assert_eq!(run.settle(), Decision::default());
        assert_eq!(run.state.ended.as_ref().map(|ended| ended.outcome), outcome);
        match outcome {
            Some(_) => {
                let redriven = control::redrive("r", &run.state, &run.workflow).unwrap();
                run.record(redriven);
            }
            None => run.record(Event::DriverStarted { driver: "another".to_owned(), expressions: None }),
        }
        assert_eq!(run.working(), "a", "it goes on where it was");
    }
}

#[test]
fn only_what_failed() {
    // A state machine goes on at the step that failed, its retry rules unused.
    let mut run =
        Run::new("start: a\nsteps:\n  a: { task: do, next: b }\n  b: { task: do, retry: [{ on: transient, attempts: 1 }], end: true }");
    run.succeed(json!(1));
    run.fail(ErrorKind::Transient);
    run.waits_s();
    run.fail(ErrorKind::Transient);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Transient)));
    let redriven = control::redrive("r", &run.state, &run.workflow).unwrap();
    run.record(redriven);
    assert_eq!(run.at(), "b");
    run.fail(ErrorKind::Transient);
    assert_eq!(run.waits_s(), 1);
    run.succeed(Value::Null);
    assert_eq!(run.ended(), (Outcome::Succeeded, None));
    assert_eq!(run.state.steps["a"].visits, 1);
    assert!(control::redrive("r", &run.state, &run.workflow).unwrap_err().message().contains("succeeded"));

    // One that ended at a `fail` step goes back to the step that led there.
    let mut run = Run::new("start: a\nsteps:\n  a: { task: do, catch: [{ on: any, goto: f }], end: true }\n  f: { fail: no use }");
    run.fail(ErrorKind::Denied);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Failed)));
    let redriven = control::redrive("r", &run.state, &run.workflow).unwrap();
    run.record(redriven);
    assert_eq!(run.at(), "a");

    // A DAG begins what failed and what was skipped for it.
    let mut run = Run::new("steps:\n  a: { task: do }\n  b: { task: do }\n  c: { task: do, after: [a, b] }");
    run.done("a", Value::Null);
    run.fails("b", ErrorKind::Denied);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Denied)));
    let redriven = control::redrive("r", &run.state, &run.workflow).unwrap();
    run.record(redriven);
    assert_eq!(run.at(), "b");
    run.succeed(Value::Null);
    assert_eq!(run.at(), "c");

    // Of parallel branches, those that failed.
    let mut run = Run::new(BRANCHES);
    run.done("a", Value::Null);
    run.done("b", Value::Null);
    run.later_s(10);
    run.fails("d", ErrorKind::Blind);
    assert_eq!(run.ended(), (Outcome::Blind, Some(ErrorKind::Blind)));
    let redriven = control::redrive("r", &run.state, &run.workflow).unwrap();
    run.record(redriven);
    assert_eq!(run.working(), "d");
}

#[test]
fn fix_and_go_on() {
    const STEPS: &str = "start: a\nsteps:\n  a: { task: do, next: b }\n  b: { task: do, with: { x: 1 }, end: true }";
    let mut run = Run::new(STEPS);
    run.succeed(json!(1));
    run.fail(ErrorKind::Denied);
    assert_eq!(run.ended().0, Outcome::Failed);
    // How it goes on may change, and what the run has not come to.
    let mended = parse(&STEPS.replace("end: true }", "catch: [{ on: denied, goto: c }], end: true }\n  c: { task: do, end: true }"));
    let replaced = control::replace(&run.state, Some(&run.workflow), &mended).unwrap();
    assert!(
        matches!(&replaced, Event::DefinitionReplaced { changes, .. } if changes.join("; ") == "step `b` changed; step `c` was added"),
        "{replaced:?}"
    );
    run.record(replaced);
    run.workflow = mended;
    let redriven = control::redrive("r", &run.state, &run.workflow).unwrap();
    run.record(redriven);
    run.fail(ErrorKind::Denied);
    assert_eq!(run.at(), "c");
    // What was done may not come to mean something else.
    for (change, told) in [
        (STEPS.replace("x: 1", "x: 2"), "the `with` of step `b` has changed"),
        (STEPS.replace("  a: { task: do, next: b }\n", "").replace("start: a", "start: b"), "step `a` was removed"),
        (format!("params: {{ more: {{ type: string, default: x }} }}\n{STEPS}"), "parameter `more` is new"),
    ] {
        let error = control::replace(&run.state, Some(&parse(STEPS)), &parse(&change)).unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.message().contains(told), "{error}");
    }
}

#[test]
fn a_workflow_that_ran_as_a_step_is_another_one_if_what_it_includes_has_changed() {
    const STEPS: &str = "start: a\nsteps:\n  a: { workflow: child.yaml, next: b }\n  b: { task: do, end: true }";
    let parse = |lake: &str| {
        let child = "workflow: child\nkind: dag\ninclude: [lake.yaml]\nsteps: { x: { wait: { for: 1s } } }\n";
        let texts = [("child.yaml", child), ("lake.yaml", lake)].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let text = format!("workflow: w\nkind: state-machine\nparams: {{ limit: {{ type: integer }} }}\n{STEPS}");
        let mut registry = Registry::default();
        registry.task("do", "does something", |_: AnyConfig| Ok(Nothing));
        Workflow::parse_with("w.yaml", &text, &registry, &texts.into()).unwrap_or_else(|told| panic!("{told}"))
    };
    let lake = "tables: { bars: { location: bars, format: csv, time: ts } }\n";
    // Its child would be a run of its own; here a task stands for it.
    let mut run = Run::new("start: a\nsteps:\n  a: { task: do, next: b }\n  b: { task: do, end: true }");
    run.succeed(json!(1));
    let replace = |now: &str| control::replace(&run.state, Some(&parse(lake)), &parse(now));
    assert!(replace(&format!("# The lake.\n{lake}")).is_ok());
    let error = replace(&lake.replace("location: bars", "location: moved")).unwrap_err();
    assert!(error.message().contains("the workflow of step `a` has changed"), "{error}");
}

const FILL: &str = "tables: { bars: { location: bars, format: csv, time: ts, cadence: 1m } }\nstart: look\nsteps:
  look: { detect: look, next: fill }
  fill: { repair: idea, of: look, tolerate: { failed: TOLERATED }, retry: [{ on: transient, attempts: 2 }], end: true }";

fn filling(tolerated: &str) -> Run {
    let mut run = Run::new(&FILL.replace("TOLERATED", tolerated));
    run.succeed(Value::Null);
    run
}

/// Plans units and ends some of them, as the fan-out would.
fn plan(run: &mut Run, units: u32) {
    let step = run.at();
    let (of, table, strategy, artifact) = ("look".to_owned(), "bars".to_owned(), "idea".to_owned(), "fill-1-units".to_owned());
    let (tags, left, usage) = (BTreeMap::new(), None, Usage::default());
    run.record(Event::UnitsPlanned { step, of, table, strategy, units, slots: u64::from(units), artifact, tags, left, usage });
}

fn end(run: &mut Run, ends: &[(u32, Option<ErrorKind>)]) {
    let staged: Vec<u32> = ends.iter().filter(|(_, failed)| failed.is_none()).map(|(unit, _)| *unit).collect();
    let failed = ends.iter().filter_map(|&(unit, failed)| Some(UnitFailed { unit, error: error(failed?) }));
    let usage = Usage { source_requests: staged.len() as u64, ..Usage::default() };
    let step = "fill".to_owned();
    let (conflicts, suspects, failed) = (Conflicts::default(), Suspects::default(), failed.collect());
    let (answers, released) = (Vec::new(), Vec::new());
    run.record(Event::UnitsEnded { step, staged, usage, conflicts, suspects, answers, failed, released });
    let failed = ends.iter().find_map(|(_, failed)| *failed);
    if let Some(kind) = failed {
        run.record(Event::StepFailed { step: "fill".to_owned(), error: error(kind), units: true });
    }
}

#[test]
fn what_was_not_compared_is_reported() {
    let mut run = filling("0");
    plan(&mut run, 2);
    for not_compared in [1, 6] {
        let conflicts = Conflicts { not_compared, ..Conflicts::default() };
        let (suspects, answers, failed, released) = (Suspects::default(), Vec::new(), Vec::new(), Vec::new());
        let (step, staged, usage) = ("fill".to_owned(), vec![u32::from(not_compared == 1)], Usage::default());
        run.record(Event::UnitsEnded { step, staged, usage, conflicts, suspects, answers, failed, released });
    }
    assert_eq!(run.state.steps["fill"].units.as_ref().unwrap().conflicts.not_compared, 7);
    let report = RunReport::new("run", &run.state);
    let said = "fill: the source was not compared with table `bars` next to 7 gaps, because there are too many";
    assert!(report.problems.iter().any(|problem| problem.starts_with(said)), "{:?}", report.problems);
}

/// Pending, done and failed units; in every state of a run each unit is counted exactly once.
fn states(run: &Run) -> (u64, u64, u64) {
    let units = run.state.steps["fill"].units.as_ref().unwrap();
    let count = |wanted: fn(UnitState) -> bool| units.indexes(wanted).count() as u64;
    let counted = (
        count(|unit| unit == UnitState::Pending),
        count(|unit| matches!(unit, UnitState::Staged | UnitState::Published)),
        count(|unit| matches!(unit, UnitState::Failed(_))),
    );
    assert_eq!(counted, (units.pending(), units.staged() + units.published(), units.failed()));
    assert_eq!(counted.0 + counted.1 + counted.2, units.len());
    counted
}

#[test]
fn each_unit_is_counted_once_and_only_what_failed_is_tried_again() {
    let mut run = filling("1");
    plan(&mut run, 4);
    assert_eq!(states(&run), (4, 0, 0));
    end(&mut run, &[(0, None), (1, Some(ErrorKind::Transient)), (2, None), (3, Some(ErrorKind::Denied))]);
    assert_eq!(states(&run), (0, 2, 2));
    assert_eq!(run.waits_s(), 1);
    assert_eq!(states(&run), (1, 2, 1), "the transient one is tried again, the denied one stays failed");
    assert_eq!(run.at(), "fill");
    end(&mut run, &[(1, None)]);
    // As the driver does when nothing is pending but a failure is left, which is tolerated.
    run.record(Event::StepFailed { step: "fill".to_owned(), error: error(ErrorKind::Denied), units: true });
    assert_eq!(run.ended(), (Outcome::SucceededWithExceptions, None));
    assert_eq!(run.reason(), "1 of 4 units of `fill` failed");
    let output = &run.state.steps["fill"].output;
    assert_eq!((&output["succeeded"], &output["failed"], &output["requests"]), (&json!(3), &json!(1), &json!(3)));
    let names: Vec<&String> = output.as_object().unwrap().keys().collect();
    // Each of these is there only if there is something to say.
    let optional = ["strategies", "not_compared"];
    assert!(
        REPAIR_OUTPUT.iter().all(|name| optional.contains(name) || names.iter().any(|known| known == name))
            && names.len() + optional.len() == REPAIR_OUTPUT.len()
    );
}

#[test]
fn more_failures_than_tolerated_are_not_tried_on() {
    let mut run = filling("25%");
    plan(&mut run, 4);
    end(&mut run, &[(0, Some(ErrorKind::Denied)), (1, Some(ErrorKind::Denied)), (2, Some(ErrorKind::Transient))]);
    assert_eq!(run.ended(), (Outcome::Failed, Some(ErrorKind::Denied)));
    let redriven = control::redrive("r", &run.state, &run.workflow).unwrap();
    run.record(redriven);
    assert_eq!((run.at().as_str(), states(&run)), ("fill", (4, 0, 0)));
}

#[test]
fn a_journal_that_makes_no_sense_is_refused() {
    let mut run = Run::new("start: look\nsteps:\n  look: { task: do, next: sum }\n  sum: { task: do, end: true }");
    run.succeed(Value::Null);
    let whole = run.events.clone();
    let mut holed = whole.clone();
    holed.remove(1);
    assert!(RunState::fold(&holed).unwrap_err().message().contains("event 1 was expected"));
    assert!(RunState::fold(&whole[1..]).is_err());
    let mut twice = whole.clone();
    let mut again = whole.last().unwrap().clone();
    again.sequence += 1;
    again.event = Event::TimerSet { step: "elsewhere".to_owned(), due: run.now };
    twice.push(again);
    assert!(RunState::fold(&twice).unwrap_err().message().contains("`elsewhere`"));
    assert_eq!(RunState::fold(&whole).unwrap().active["look"].phase, Phase::Done);
}

/// The States Language's rules for one step, written down a second time and in another way: what is waited, and whether it is caught.
mod model {
    use super::*;

    #[derive(Debug, Clone)]
    pub(super) struct Rule {
        pub(super) kinds: Vec<ErrorKind>,
        pub(super) attempts: u32,
        pub(super) interval_s: u32,
        pub(super) backoff: f64,
        pub(super) max_interval_s: Option<u32>,
    }

    #[derive(Debug, Clone, PartialEq)]
    pub(super) enum Then {
        Waits(f64),
        Caught,
        Fails,
    }

    /// `ErrorEquals`, `IntervalSeconds`, `MaxAttempts`, `BackoffRate` and `MaxDelaySeconds` of
    /// <https://states-language.net/spec.html#errors>: a retrier is chosen by scanning the array in order; it has a counter of its own;
    /// when that is used up, or none matches, the catchers are scanned.
    pub(super) fn follow(rules: &[Rule], caught: &[ErrorKind], errors: &[ErrorKind]) -> Vec<Then> {
        let mut left: Vec<u32> = rules.iter().map(|rule| rule.attempts).collect();
        let mut delay: Vec<f64> = rules.iter().map(|rule| f64::from(rule.interval_s)).collect();
        let mut then = Vec::new();
        for error in errors {
            match rules.iter().position(|rule| rule.kinds.contains(error)) {
                Some(rule) if left[rule] > 0 => {
                    left[rule] -= 1;
                    then.push(Then::Waits(rules[rule].max_interval_s.map_or(delay[rule], |most| delay[rule].min(f64::from(most)))));
                    delay[rule] *= rules[rule].backoff;
                }
                _ => {
                    then.push(if caught.contains(error) { Then::Caught } else { Then::Fails });
                    break;
                }
            }
        }
        then
    }
}

mod properties {
    use super::model::{Rule, Then, follow};
    use super::*;
    use proptest::prelude::*;

    const KINDS: [ErrorKind; 5] = [ErrorKind::Transient, ErrorKind::Throttled, ErrorKind::Timeout, ErrorKind::Denied, ErrorKind::Invalid];

    fn kinds(least: usize) -> impl Strategy<Value = Vec<ErrorKind>> {
        prop::sample::subsequence(KINDS.to_vec(), least..=3)
    }

    fn rule() -> impl Strategy<Value = Rule> {
        (kinds(1), 0u32..4, 1u32..6, prop::sample::select(vec![1.0, 1.5, 2.0, 3.0]), prop::option::of(0u32..10)).prop_map(
            |(kinds, attempts, interval_s, backoff, more)| Rule {
                kinds,
                attempts,
                interval_s,
                backoff,
                max_interval_s: more.map(|more| interval_s + more),
            },
        )
    }

    fn names(kinds: &[ErrorKind]) -> String {
        kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn text(rules: &[Rule], caught: &[ErrorKind]) -> String {
        let rule = |rule: &Rule| {
            let longest = rule.max_interval_s.map(|most| format!(", max_interval: {most}s")).unwrap_or_default();
            format!(
                "{{ on: [{}], attempts: {}, interval: {}s, backoff: {}{longest} }}",
                names(&rule.kinds),
                rule.attempts,
                rule.interval_s,
                rule.backoff
            )
        };
        let rules: Vec<String> = rules.iter().map(rule).collect();
        let (catch, step) = if caught.is_empty() {
            ("[]".to_owned(), "")
        } else {
            (format!("[{{ on: [{}], goto: caught }}]", names(caught)), "\n  caught: { task: do, end: true }")
        };
        format!("start: ask\nsteps:\n  ask: {{ task: do, retry: [{}], catch: {catch}, end: true }}{step}", rules.join(", "))
    }

    proptest! {
        #[test]
        fn retry_and_catch_mean_what_they_mean_in_the_states_language(
            rules in prop::collection::vec(rule(), 0..4),
            caught in kinds(0),
            errors in prop::collection::vec(prop::sample::select(KINDS.to_vec()), 1..10),
        ) {
            let expected = follow(&rules, &caught, &errors);
            let mut run = Run::new(&text(&rules, &caught));
            for (then, kind) in expected.iter().zip(&errors) {
                run.fails("ask", *kind);
                match then {
                    Then::Waits(seconds) => {
                        let decision = run.settle();
                        let waits = decision.due.unwrap().duration_since(run.now).as_secs_f64();
                        prop_assert!((waits - seconds).abs() < 1e-6, "{} waits {waits} s, not {seconds} s", text(&rules, &caught));
                        run.now = decision.due.unwrap();
                    }
                    Then::Caught => prop_assert_eq!(run.at(), "caught"),
                    Then::Fails => prop_assert_eq!(run.ended(), (Outcome::Failed, Some(*kind))),
                }
            }
        }
    }
}
