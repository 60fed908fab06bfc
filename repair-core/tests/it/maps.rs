//! Maps: each item of a list is a run of its own within the run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{rows, table};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use repair_core::engine::{Engine, EngineOptions, Event, Outcome, RunReport, StartRequest, item_run_id, load};
use repair_core::engine::{Journal, Recorded};
use repair_core::model::Usage;
use repair_core::plugin::{Clock, Registry, StepContext, Task};
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::{MapStep, StepKind, Workflow, schema};
use repair_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the items did, and how many were at it at once.
#[derive(Default)]
pub(crate) struct Seen {
    calls: Mutex<Vec<String>>,
    now: AtomicU32,
    most: AtomicU32,
}

impl Seen {
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn times(&self, what: &str) -> usize {
        self.calls().iter().filter(|call| *call == what).count()
    }
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What it is about.
    about: Value,
    /// What it is about when it fails, with the attempts in which it does, as `kind 1 2`; `always` is every attempt.
    #[serde(default)]
    fails: BTreeMap<String, String>,
    #[serde(default)]
    takes_s: i64,
    /// How many calls it makes, one after the other.
    #[serde(default)]
    asks: u64,
}

struct Does(Arc<Seen>, Config);

#[async_trait]
impl Task for Does {
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        let Self(seen, config) = self;
        let about = config.about.as_str().map_or_else(|| config.about.to_string(), str::to_owned);
        seen.calls.lock().unwrap().push(about.clone());
        let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(now, Ordering::SeqCst);
        let done = self.take(context, &about).await;
        seen.now.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

impl Does {
    async fn take(&self, context: &StepContext, about: &str) -> Result<(Value, Usage)> {
        let Self(_, config) = self;
        let due = context.clock.now().checked_add(SignedDuration::from_secs(config.takes_s)).unwrap();
        tokio::select! {
            () = context.clock.sleep_until(due) => {}
            () = context.cancel.cancelled() => context.check_cancelled()?,
        }
        for _ in 0..config.asks {
            let calls = &context.calls;
            let call = calls.begin(Usage { source_requests: 1, ..Usage::default() }).await?;
            calls.end(call, Some(Usage { source_requests: 1, ..Usage::default() })).await?;
        }
        if let Some((kind, attempts)) = config.fails.get(about).and_then(|fails| fails.split_once(' '))
            && (attempts == "always" || attempts.split(' ').any(|attempt| attempt == context.attempt.to_string()))
        {
            return Err(Error::new(kind.parse().unwrap(), format!("{about} was to fail")));
        }
        Ok((json!({ "about": about }), Usage { rows_read: 1, ..Usage::default() }))
    }
}

pub(crate) struct World {
    pub(crate) journal: MemoryJournal,
    pub(crate) lake: MemoryLake,
    pub(crate) seen: Arc<Seen>,
    pub(crate) clock: VirtualClock,
    pub(crate) registry: Arc<Registry>,
}

const BASE: &str = "2024-03-04T09:00:00Z";
const TABLES: &str = "tables: { bars: { location: bars, format: parquet, key: [key], time: ts, cadence: 1m } }";
const DESK: &str = "workflow: desk\nkind: state-machine\nparams: { name: { type: string }, number: { type: integer } }\nstart: work\nsteps:\n  work: { task: do, with: { about: \"{% $params.name & $string($params.number) %}\" }, end: true }\n";

impl World {
    pub(crate) fn new() -> Self {
        let lake = MemoryLake::default();
        lake.put_table(&table(), &[rows(&[])]).unwrap();
        let mut registry = Registry::default();
        let seen = Arc::new(Seen::default());
        let does = seen.clone();
        registry.task("do", "does", move |config: Config| Ok(Does(does.clone(), config)));
        let clock = VirtualClock::starting_at(BASE.parse().unwrap());
        Self { journal: MemoryJournal::default(), lake, seen, clock, registry: Arc::new(registry) }
    }

    fn engine(&self) -> Engine {
        let mut engine = Engine::new(self.registry.clone(), Arc::new(self.lake.clone()), Arc::new(self.journal.clone()));
        engine.clock = Arc::new(self.clock);
        engine.options = EngineOptions::default()
            .with_lease(Duration::from_secs(30))
            .with_poll(Duration::from_secs(1))
            .with_grace(Duration::from_secs(5));
        engine
    }

    pub(crate) fn read(&self, text: &str) -> std::result::Result<Workflow, String> {
        let kind = if text.starts_with("kind:") { "" } else { "kind: state-machine\n" };
        let children = BTreeMap::from([("desk.yaml".to_owned(), DESK.to_owned())]);
        let text = format!("workflow: w\n{kind}{TABLES}\n{text}");
        Workflow::parse_with("w.yaml", &text, &self.registry, &children).map_err(|mistakes| mistakes.to_string())
    }

    pub(crate) fn parse(&self, text: &str) -> Workflow {
        self.read(text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    async fn run(&self, text: &str) -> RunReport {
        let workflow = self.parse(text);
        let params = workflow.bind(&BTreeMap::new()).unwrap();
        self.engine().start(&workflow, StartRequest::new("run").with_params(params)).await.unwrap()
    }

    async fn events(&self, run: &str) -> Vec<Recorded> {
        self.journal.read(run, 0, usize::MAX).await.unwrap()
    }

    fn passed_s(&self) -> i64 {
        self.clock.now().duration_since(BASE.parse::<Timestamp>().unwrap()).as_secs()
    }
}

/// A step that does the same for each of some items, with more fields, and more in the `with` of its task.
fn each(over: &str, fields: &str, with: &str) -> String {
    format!(
        "start: each\nsteps:\n  each:\n    map: {{ over: {over} }}\n    start: work\n    steps:\n      work: {{ task: do, with: {{ about: \"{{% $item %}}\"{with} }}, end: true }}\n{fields}    next: last\n  last: {{ task: do, with: {{ about: last }}, end: true }}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn each_item_is_a_run_of_its_own_and_some_run_side_by_side() {
    let world = World::new();
    let report = world.run(&each("[a, b, c, d, e, a]", "    concurrency: 2\n", ", takes_s: 10")).await;
    assert_eq!((report.outcome, world.passed_s()), (Some(Outcome::Succeeded), 30), "{:?}", report.problems);
    assert_eq!((world.seen.most.load(Ordering::SeqCst), world.seen.calls().len()), (2, 7));
    // Items that are the same are items, too.
    assert_eq!(world.seen.times("a"), 2);
    let output = &report.step("each").unwrap().output;
    let counts = |name: &str| output[name].as_u64().unwrap();
    assert_eq!((counts("items"), counts("succeeded"), counts("failed"), counts("left_out")), (6, 6, 0, 0));
    let run = item_run_id("run", "each", 1, 1);
    assert_eq!(
        output["results"][1],
        json!({ "index": 1, "item": "b", "run": run, "outcome": "succeeded", "output": { "work": { "about": "b" } } })
    );
    // What the items used is what the step used.
    assert_eq!(report.usage.rows_read, 7);
    let child = load(&world.journal, &run).await.unwrap();
    assert_eq!((child.started.workflow.as_str(), child.started.environment["parent"].as_str()), ("w-each", Some("run")));
    // The run of an item can be read again, and goes on by itself.
    assert_eq!(world.engine().resume(&run).await.unwrap().outcome, Some(Outcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn items_may_be_anything_and_steps_know_which_they_are_for() {
    let world = World::new();
    let text = "params: { desks: { type: list, default: [rates, bonds] } }
start: outer
steps:
  outer:
    map: { over: \"{% $params.desks.{ 'name': $, 'sizes': [1, 2] } %}\" }
    as: desk
    start: inner
    steps:
      inner:
        map: { over: \"{% $desk.sizes %}\" }
        as: size
        kind: dag
        steps:
          first: { task: do, with: { about: \"{% $desk.name & $string($size) & ' of ' & $string($count($params.desks)) & ' at ' & $string($index) %}\" } }
          second: { task: do, with: { about: \"{% $steps.first.output.about & '!' %}\" }, after: first }
        end: true
    end: true
";
    let report = world.run(text).await;
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?}", report.problems);
    let mut calls = world.seen.calls();
    calls.sort();
    assert_eq!(
        calls,
        [
            "bonds1 of 2 at 0",
            "bonds1 of 2 at 0!",
            "bonds2 of 2 at 1",
            "bonds2 of 2 at 1!",
            "rates1 of 2 at 0",
            "rates1 of 2 at 0!",
            "rates2 of 2 at 1",
            "rates2 of 2 at 1!",
        ]
    );
    // Another workflow gets its parameters from the item.
    let world = World::new();
    let text = "start: each\nsteps:\n  each: { map: { over: [x, y] }, workflow: desk.yaml, with: { name: \"{% $item %}\", number: \"{% $index + 5 %}\" }, end: true }\n";
    let report = world.run(text).await;
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?}", report.problems);
    assert_eq!(world.seen.calls(), ["x5", "y6"]);
    // A value that its parameter does not take fails the item, which has no run.
    let world = World::new();
    let report = world.run(&text.replace("[x, y]", "[x, 7]")).await;
    assert_eq!(
        (report.outcome, report.error, world.seen.calls()),
        (Some(Outcome::Failed), Some(ErrorKind::Invalid), vec!["x5".to_owned()])
    );
    assert!(report.reason.as_ref().unwrap().contains("1 of 2 items failed; item 1, run `"), "{:?}", report.reason);
    assert!(report.reason.unwrap().contains("parameter `name`: `7` is not text"));
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_done_at_once_and_a_list_that_is_too_long_is_refused() {
    let world = World::new();
    let report = world.run(&each("[]", "", "")).await;
    assert_eq!((report.outcome, report.step("each").unwrap().output["items"].as_u64()), (Some(Outcome::Succeeded), Some(0)));
    for (over, why) in [
        ("\"{% [1..10001] %}\"", "the map has 10001 items; at most 10000 are allowed"),
        ("\"{% $params.none %}\"", "the list of the map has no value"),
        ("\"{% [$pad('a', 9000) & $pad('b', 9000)] %}\"", "item 0 of the map has 18002 bytes; at most 16384 are allowed"),
    ] {
        let world = World::new();
        let report = world
            .run(&format!(
                "params: {{ none: {{ type: list, default: [] }} }}\n{}",
                each(over, "", "").replace("$params.none", "$run.absent")
            ))
            .await;
        assert_eq!((report.outcome, report.error), (Some(Outcome::Failed), Some(ErrorKind::Invalid)), "{over}: {:?}", report.reason);
        assert!(report.reason.as_ref().unwrap().contains(why), "{over}: {:?}", report.reason);
        assert!(world.seen.calls().is_empty());
    }
    assert_eq!(MapStep::MAX_ITEMS, 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_retry_repeats_only_items_that_failed_in_such_a_way() {
    let world = World::new();
    // Each run of an item counts the attempts of its step: its second attempt is the item's second.
    let with = ", fails: { b: transient 1, c: transient 1 2, d: denied 1 }";
    let retry = "    retry: [{ on: transient, attempts: 3, interval: 10s, backoff: 1 }]\n";
    let report = world.run(&each("[a, b, c, d, e]", &format!("{retry}    tolerate: {{ failed: 20% }}\n"), with)).await;
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{:?}", report.problems);
    let times: Vec<usize> = ["a", "b", "c", "d", "e", "last"].into_iter().map(|what| world.seen.times(what)).collect();
    assert_eq!((times, world.passed_s()), (vec![1, 2, 3, 1, 1, 1], 20));
    let output = &report.step("each").unwrap().output;
    assert_eq!((output["succeeded"].as_u64(), output["failed"].as_u64()), (Some(4), Some(1)));
    assert_eq!(output["results"][3]["error"], json!({ "kind": "denied", "message": "d was to fail" }));
    assert_eq!(report.reason.as_deref(), Some("1 of 5 items of `each` failed"));
}

#[tokio::test(start_paused = true)]
async fn with_more_failures_than_are_tolerated_no_more_items_begin() {
    let world = World::new();
    let with = ", takes_s: 1, fails: { b: denied always, c: denied always }";
    let report = world.run(&each("[a, b, c, d, e, f, g]", "    tolerate: { failed: 1 }\n    concurrency: 1\n", with)).await;
    assert_eq!((report.outcome, report.error), (Some(Outcome::Failed), Some(ErrorKind::Denied)));
    assert_eq!(world.seen.calls(), ["a", "b", "c"]);
    let output = &report.step("each").unwrap().output;
    assert_eq!((output["failed"].as_u64(), output["pending"].as_u64()), (Some(2), Some(4)));
    assert!(report.reason.as_ref().unwrap().starts_with("2 of 7 items failed; item 1, run `"), "{:?}", report.reason);
    // Redriven, it goes on: what failed is repeated, and what had not begun begins. What succeeded is left alone.
    let report = world.engine().redrive("run", None).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Failed));
    assert_eq!((world.seen.times("a"), world.seen.times("b"), world.seen.times("c")), (1, 2, 2));

    // What could not be examined is never tolerated.
    let world = World::new();
    let report = world.run(&each("[a, b]", "    tolerate: { failed: 100% }\n", ", fails: { a: blind always }")).await;
    assert_eq!((report.outcome, report.error), (Some(Outcome::Blind), Some(ErrorKind::Blind)));
}

#[tokio::test(start_paused = true)]
async fn a_map_runs_in_a_dag_beside_other_steps() {
    let world = World::new();
    let text = "kind: dag
steps:
  before: { task: do, with: { about: before, takes_s: 5 } }
  beside: { task: do, with: { about: beside, takes_s: 100 } }
  each:
    map: { over: [a, b] }
    start: work
    steps:
      work: { task: do, with: { about: \"{% $item %}\", takes_s: 10, fails: { b: denied always } }, end: true }
    after: before
  handle: { task: do, with: { about: \"{% $steps.each.output.results[outcome = 'failed'].item %}\" }, after: { each: failed, beside: succeeded } }
";
    let report = world.run(text).await;
    assert_eq!((report.outcome, world.passed_s()), (Some(Outcome::SucceededWithExceptions), 100), "{:?}", report.problems);
    assert_eq!(world.seen.times("b"), 2, "once as an item, and once as what was handled");
}

#[tokio::test(start_paused = true)]
async fn to_cancel_or_pause_the_run_is_to_stop_its_items() {
    let text = each("[a, b, c, d, e]", "    concurrency: 2\n", ", takes_s: 100");
    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse(&text));
    let driven = tokio::spawn(async move { engine.start(&workflow, StartRequest::new("run")).await });
    tokio::time::sleep(Duration::from_secs(150)).await;
    world.engine().cancel("run").await.unwrap();
    assert_eq!(driven.await.unwrap().unwrap().outcome, Some(Outcome::Cancelled));
    let outcome = async |item: u32| {
        let state = load(&world.journal, &item_run_id("run", "each", 1, item)).await.ok()?;
        Some(state.ended.map(|ended| ended.outcome))
    };
    let mut outcomes = Vec::new();
    for item in 0..5 {
        outcomes.push(outcome(item).await);
    }
    let (done, cancelled) = (Some(Some(Outcome::Succeeded)), Some(Some(Outcome::Cancelled)));
    assert_eq!(outcomes, [done, done, cancelled, cancelled, None]);
    // Redriven, the two that were cancelled with it go on, and those that had ended stay as they are.
    let report = world.engine().redrive("run", None).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?}", report.problems);
    assert_eq!((world.seen.times("a"), world.seen.times("c"), world.seen.times("e")), (1, 2, 1));

    // Paused, the items stop, and go on with it.
    let world = World::new();
    let (engine, workflow) = (world.engine(), world.parse(&text));
    let driven = tokio::spawn(async move { engine.start(&workflow, StartRequest::new("run")).await });
    tokio::time::sleep(Duration::from_secs(150)).await;
    world.engine().pause("run").await.unwrap();
    assert_eq!(driven.await.unwrap().unwrap().outcome, None);
    let calls = world.seen.calls().len();
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(world.seen.calls().len(), calls);
    let report = world.engine().resume("run").await.unwrap();
    assert_eq!((report.outcome, world.seen.times("a")), (Some(Outcome::Succeeded), 1), "{:?}", report.problems);
}

/// Items side by side share the budget of the run, to the last call.
#[tokio::test(start_paused = true)]
async fn items_side_by_side_never_spend_more_than_the_budget_of_the_run() {
    for (calls, asked, outcome) in [(12, 12, Outcome::Succeeded), (11, 11, Outcome::OverBudget), (3, 3, Outcome::OverBudget)] {
        let world = World::new();
        let text = format!("budget: {{ calls: {calls} }}\n{}", each("[a, b, c, d]", "    concurrency: 4\n", ", asks: 3"));
        let report = world.run(&text).await;
        assert_eq!(report.outcome, Some(outcome), "{calls}: {:?}", report.reason);
        assert_eq!(report.usage.source_requests, asked, "{calls}");
        let allowed = world.events("run").await.into_iter().filter_map(|recorded| match recorded.event {
            Event::InnerSpend { item, spend, .. } => Some((item, spend.calls)),
            _ => None,
        });
        let most: BTreeMap<u32, u64> = allowed.collect();
        assert!(most.values().sum::<u64>() <= calls, "{calls}: {most:?}");
    }
    // A workflow that has a file of its own needs no budget of its own here, and maps in maps hand the question on.
    let world = World::new();
    let text = "budget: { calls: 5 }
start: outer
steps:
  outer:
    map: { over: [a, b] }
    as: outer_item
    tolerate: { failed: 100% }
    start: inner
    steps:
      inner:
        map: { over: [1, 2] }
        tolerate: { failed: 100% }
        start: work
        steps:
          work: { task: do, with: { about: \"{% $outer_item %}\", asks: 2 }, end: true }
        end: true
    end: true
";
    let report = world.run(text).await;
    assert_eq!((report.outcome, report.usage.source_requests), (Some(Outcome::SucceededWithExceptions), 5), "{:?}", report.problems);
}

#[test]
fn mistakes_in_maps_are_reported_at_their_places() {
    let world = World::new();
    let mistakes = world
        .read(
            "params: { desks: { type: list, default: [] } }
start: each
steps:
  each:
    map: { over: \"{% $params.dsks %}\", to: 3 }
    as: desk-name
    concurrency: 0
    heartbeat: 1m
    start: wrk
    steps:
      work: { task: do, with: { about: \"{% $item & $desk %}\", abot: 1 }, next: other }
      again: { task: doo, end: true }
      look: { detect: gaps, with: { table: bras, keys: [K], from: 2024-03-04, to: 2024-03-04 }, end: true }
    next: none
  none: { map: { over: 7 }, end: true }
  both: { map: { over: [1] }, start: a, steps: { a: { task: do, with: { about: 1 }, end: true } }, workflow: desk.yaml, end: true }
  with: { map: { over: [1] }, start: a, steps: { a: { task: do, with: { about: 1 }, end: true } }, with: { a: 1 }, end: true }
  taken: { map: { over: [1] }, as: steps, start: a, steps: { a: { task: do, with: { about: 1 }, end: true } }, end: true }
  index: { map: { over: [1] }, as: index, start: a, steps: { a: { task: do, with: { about: 1 }, end: true } }, end: true }
  file: { map: { over: [1] }, workflow: desk.yaml, with: { name: \"{% $itm %}\", nmber: 1 }, kind: dag, end: true }
  rows: { map: { over: { rows: \"\", vlues: {} } }, workflow: desk.yaml, with: { name: a, number: 1 }, end: true }
  no_start: { map: { over: [1] }, steps: { a: { task: do, with: { about: 1 }, end: true } }, end: true }
  nested:
    map: { over: [1] }
    start: inner
    steps:
      inner: { map: { over: [2] }, start: b, steps: { b: { task: do, with: { about: \"{% $steps.nested %}\" }, end: true } }, end: true }
    end: true
  foreach: { foreach: [1], end: true }
",
        )
        .unwrap_err();
    insta::assert_snapshot!(mistakes);
    let endless = world.read(&each("[a]", "", "").replace("end: true }\n    next: last", "next: work }\n    next: last")).unwrap_err();
    assert!(endless.contains("w.yaml:10:7") && endless.contains("a run that comes here never ends: work → work"), "{endless}");
    let outside = world.read(&each("[a]", "", "").replace("about: last", "about: \"{% $item %}\"")).unwrap_err();
    assert!(outside.contains("there is no variable `$item`"), "{outside}");
}

#[test]
fn the_steps_within_a_map_are_a_workflow_that_can_be_read_by_itself() {
    let world = World::new();
    let text = each("[a]", "    as: desk\n", "").replace("$item", "$desk");
    let workflow = world.parse(&format!("about: A test\nparams: {{ day: {{ type: date, default: 2024-03-04 }} }}\ntimeout: 2h\n{text}"));
    let StepKind::Map(map) = &workflow.step("each").unwrap().kind else { panic!("a map") };
    let inner = &map.workflow;
    let again = Workflow::parse_with(&inner.file, &inner.text, &world.registry, &inner.children).unwrap();
    assert_eq!(repair_core::testing::definition(inner), repair_core::testing::definition(&again));
    assert!(inner.params.contains_key("day") && inner.tables.contains_key("bars"), "{}", inner.text);
    // Without the item, it says what is missing.
    let alone = Workflow::parse("w.yaml", &inner.text, &world.registry).unwrap_err().to_string();
    assert!(alone.contains("there is no variable `$desk`"), "{alone}");
    assert!(schema(&world.registry).to_string().contains("runs for each item"));
}
