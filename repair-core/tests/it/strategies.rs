//! A repair step with several strategies: what one cannot fix goes to the next, each with its own retry, budget and tags, whatever fails or
//! is killed on the way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{rows, table};
use arrow::array::AsArray;
use async_trait::async_trait;
use repair_core::engine::{Engine, EngineOptions, Event, Journal, Outcome, Recorded, RunReport, RunState, StartRequest, load};
use repair_core::lake::overlay::REPAIRED_BY;
use repair_core::lake::{Layer, PresenceRequest};
use repair_core::model::Usage;
use repair_core::model::{Counts, Findings, Fix, GapList, Interval, Key, Scope, SlotRange, Unit, Wanted};
use repair_core::plugin::{Detector, PlannedUnits, Registry, Repairer, StepContext};
use repair_core::testing::{CrashingJournal, CrashingLake, MemoryJournal, MemoryLake, Moment, Schedule, VirtualClock, is_crash};
use repair_core::workflow::Workflow;
use repair_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

const SLOTS: i64 = 30;

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// It repairs no slot from this one on.
    below: Option<i64>,
    /// The slot of whose unit it makes an error.
    fails_at: Option<i64>,
    /// Of which kind.
    kind: Option<String>,
    /// In how many attempts of the step.
    attempts: Option<u32>,
}

/// Repairs a slot a unit, and counts how often it was asked.
struct Repairs {
    calls: Arc<AtomicU64>,
    price: u64,
    config: Config,
}

#[async_trait]
impl Repairer for Repairs {
    async fn plan(&self, _: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let grid = findings.scope.grid;
        let below = self.config.below.unwrap_or(i64::MAX);
        let slots: Vec<i64> = findings.gaps.iter().flat_map(|(_, slots)| slots.first..slots.end).filter(|slot| *slot < below).collect();
        Ok(Box::new(slots.into_iter().map(move |slot| {
            let slots = SlotRange::new(slot, slot + 1);
            Ok(Unit { interval: grid.interval_of(slots).unwrap(), wanted: vec![Wanted { key: Key::from("K"), slots: vec![slots] }] })
        })))
    }

    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage { source_requests: self.price, ..Usage::default() }
    }

    async fn repair(&self, context: &StepContext, _: &Findings, unit: &Unit) -> Result<Fix> {
        let slot = unit.wanted[0].slots[0].first;
        self.calls.fetch_add(1, Ordering::SeqCst);
        // A call takes its time, so that what came of one is known before the next.
        if self.price > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.config.fails_at == Some(slot) && context.attempt <= self.config.attempts.unwrap_or(u32::MAX) {
            return Err(Error::new(self.config.kind.as_deref().unwrap_or("invalid").parse().unwrap(), "it was to fail"));
        }
        let usage = Usage { source_requests: self.price, ..Usage::default() };
        Ok(Fix { rows: vec![rows(&[slot])], source: "test".to_owned(), usage, ..Fix::default() })
    }
}

/// Looks at the lake itself.
struct Looks;

#[async_trait]
impl Detector for Looks {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let all = SlotRange::new(0, SLOTS);
        let key = Key::from("K");
        let request = PresenceRequest::new(all, vec![key.clone()], context.clock.now());
        let presence = context.lake.presence(&table(), &request).await?;
        let repaired = |slot: i64| presence.repaired.get(&key).is_some_and(|slots| slots.contains(slot));
        let mut gaps = GapList::default();
        let looked: Vec<SlotRange> = again.map_or(vec![all], |before| before.gaps.iter().map(|(_, slots)| slots).collect());
        let missing = looked.iter().flat_map(|slots| slots.first..slots.end).filter(|slot| !repaired(*slot));
        missing.for_each(|slot| gaps.push(&key, SlotRange::new(slot, slot + 1)));
        let expected = looked.iter().map(SlotRange::len).sum();
        let missing = gaps.missing();
        let counts =
            Counts { expected, missing, present: expected - missing, gaps: gaps.len() as u64, audited_keys: 1, ..Counts::default() };
        let scope = Scope {
            table: "bars".to_owned(),
            grid: table().grid().unwrap(),
            keys: vec![key],
            interval: Interval::parse("1970-01-01", "1970-01-01").unwrap(),
            calendar: "24x7".to_owned(),
            lifetimes: Default::default(),
        };
        Ok(Findings::of_gaps(scope, counts, gaps, Usage::default()))
    }
}

#[derive(Clone)]
struct World {
    journal: MemoryJournal,
    lake: MemoryLake,
    clock: VirtualClock,
    /// How often the paid source was asked, and how often the free guess was made.
    asked: Arc<AtomicU64>,
    guessed: Arc<AtomicU64>,
}

impl World {
    fn new() -> Self {
        let lake = MemoryLake::default();
        lake.put_table(&table(), &[rows(&[])]).unwrap();
        let clock = VirtualClock::starting_at("2024-03-04T09:00:00Z".parse().unwrap());
        Self { journal: MemoryJournal::default(), lake, clock, asked: Arc::default(), guessed: Arc::default() }
    }

    fn registry(&self) -> Arc<Registry> {
        let mut registry = Registry::default();
        let (asked, guessed) = (self.asked.clone(), self.guessed.clone());
        registry.detector("look", "looks", |_: Config| Ok(Looks));
        registry.repairer("ask", "asks", move |config: Config| Ok(Repairs { calls: asked.clone(), price: 1, config }));
        registry.repairer("guess", "guesses", move |config: Config| Ok(Repairs { calls: guessed.clone(), price: 0, config }));
        Arc::new(registry)
    }

    fn try_parse(&self, text: &str) -> Result<Workflow, String> {
        let tables = "tables: { bars: { location: bars, format: parquet, key: [key], time: ts, cadence: 1m } }";
        let text = format!("workflow: w\nkind: state-machine\n{tables}\n{text}");
        Workflow::parse("w.yaml", &text, &self.registry()).map_err(|told| told.to_string())
    }

    fn parse(&self, strategies: &str, more: &str) -> Workflow {
        let text = format!(
            "start: look\nsteps:\n  look: {{ detect: look, next: fill }}\n  fill: {{ repair: [{strategies}], of: look, concurrency: 1{more}, end: true }}\n"
        );
        self.try_parse(&text).unwrap_or_else(|told| panic!("{told}"))
    }

    fn engine(&self, schedule: &Schedule) -> Engine {
        let lake = CrashingLake::new(Arc::new(self.lake.clone()), schedule.clone());
        let journal = CrashingJournal::new(Arc::new(self.journal.clone()), schedule.clone());
        let mut engine = Engine::new(self.registry(), Arc::new(lake), Arc::new(journal));
        engine.clock = Arc::new(self.clock);
        engine.options = EngineOptions::default()
            .with_lease(Duration::from_secs(3_000_000))
            .with_poll(Duration::from_secs(86_400))
            .with_grace(Duration::from_secs(10));
        engine
    }

    fn request() -> StartRequest {
        StartRequest::new("run")
    }

    async fn run(&self, workflow: &Workflow) -> RunReport {
        self.engine(&Schedule::never()).start(workflow, Self::request()).await.unwrap()
    }

    async fn state(&self) -> RunState {
        load(&self.journal, "run").await.unwrap()
    }

    async fn events(&self) -> Vec<Recorded> {
        self.journal.read("run", 0, usize::MAX).await.unwrap()
    }

    /// How many rows of the view each strategy has repaired.
    fn repaired(&self) -> BTreeMap<String, usize> {
        let view = self.lake.rows(&table(), Layer::Repaired).unwrap();
        let by = view.column_by_name(REPAIRED_BY).unwrap().as_string::<i32>();
        let mut counted = BTreeMap::new();
        by.iter().for_each(|by| *counted.entry(by.unwrap_or("raw").to_owned()).or_default() += 1);
        counted
    }
}

fn counted(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_one_cannot_fix_goes_to_the_next() {
    let world = World::new();
    let strategies = "{ strategy: ask, with: { below: 10 } }, { strategy: guess, name: near, with: { below: 25 } }, { strategy: guess, with: { below: 0 } }";
    let report = world.run(&world.parse(strategies, "")).await;
    assert_eq!(world.repaired(), counted(&[("ask", 10), ("near", 15)]));
    let output = &report.step("fill").unwrap().output;
    let of = |name: &str| output[name].as_u64().unwrap();
    assert_eq!((of("slots"), of("repaired"), of("unresolved"), of("units"), of("requests")), (30, 25, 5, 25, 10), "{output}");
    let each: Vec<(Value, Value)> =
        output["strategies"].as_array().unwrap().iter().map(|one| (one["strategy"].clone(), one["slots"].clone())).collect();
    assert_eq!(each, [(json!("ask"), json!(30)), (json!("near"), json!(20)), (json!("guess"), json!(5))], "each gets what is left");
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    assert_eq!(report.reason.unwrap(), "5 slots are still missing in table `bars` (look)");
}

#[tokio::test(start_paused = true)]
async fn the_next_is_not_asked_when_nothing_is_left() {
    let world = World::new();
    let report = world.run(&world.parse("{ strategy: ask }, { strategy: guess }", "")).await;
    assert_eq!((report.outcome, world.repaired()), (Some(Outcome::Succeeded), counted(&[("ask", 30)])));
    assert_eq!(world.guessed.load(Ordering::SeqCst), 0);
}

/// One that fails goes on with its other units; what failed goes to the next, and the end says so.
#[tokio::test(start_paused = true)]
async fn a_strategy_that_fails_is_told_and_the_next_goes_on() {
    let world = World::new();
    let report = world.run(&world.parse("{ strategy: ask, with: { fails_at: 7 } }, { strategy: guess }", "")).await;
    assert_eq!(world.repaired(), counted(&[("ask", 29), ("guess", 1)]));
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    assert_eq!(report.reason.as_deref(), Some("strategy `ask` of `fill` failed: invalid: it was to fail"));
    assert_eq!(report.problems, ["fill: strategy `ask`: 1 of 30 units failed: invalid: it was to fail; the next strategy continued"]);

    let world = World::new();
    world.run(&world.parse("{ strategy: ask, with: { fails_at: 7, kind: denied } }, { strategy: guess }", "")).await;
    assert_eq!(
        world.repaired(),
        counted(&[("ask", 8), ("guess", 22)]),
        "a source that refuses is not asked on, but for what was under way"
    );
}

#[tokio::test(start_paused = true)]
async fn each_has_its_own_retry() {
    let world = World::new();
    let failing = "fails_at: 3, kind: transient, attempts: 2";
    let own = format!(
        "{{ strategy: ask, with: {{ {failing} }}, retry: [{{ on: transient, attempts: 2, interval: 1s }}] }}, {{ strategy: guess }}"
    );
    let report = world.run(&world.parse(&own, "")).await;
    assert_eq!((report.outcome, world.repaired()), (Some(Outcome::Succeeded), counted(&[("ask", 30)])));

    // The step's rules are for those that have none; each begins to count anew.
    let world = World::new();
    let both = "{ strategy: ask, with: { fails_at: 3, kind: transient } }, { strategy: guess, with: { fails_at: 3, kind: transient, attempts: 4 } }";
    let report = world.run(&world.parse(both, ", retry: [{ on: transient, attempts: 2, interval: 1s }]")).await;
    assert_eq!(world.repaired(), counted(&[("ask", 29), ("guess", 1)]), "{report:?}");
    assert_eq!((world.asked.load(Ordering::SeqCst), world.guessed.load(Ordering::SeqCst)), (32, 2));
}

#[tokio::test(start_paused = true)]
async fn each_has_its_own_budget() {
    let world = World::new();
    let report = world.run(&world.parse("{ strategy: ask, budget: { calls: 5 } }, { strategy: guess }", "")).await;
    assert_eq!(world.repaired(), counted(&[("ask", 5), ("guess", 25)]));
    assert_eq!(world.asked.load(Ordering::SeqCst), 5);
    let told = report.reason.unwrap();
    assert!(told.contains("the budget of strategy `ask` of step `fill` is 5 calls, with 5 spent or set aside"), "{told}");

    // The step's is for all together: where it is used up, one that asks nothing still goes on.
    let world = World::new();
    let strategies = "{ strategy: ask, name: a, with: { below: 8 } }, { strategy: ask, name: b }, { strategy: guess }";
    world.run(&world.parse(strategies, ", budget: { calls: 12 }")).await;
    assert_eq!((world.repaired(), world.asked.load(Ordering::SeqCst)), (counted(&[("a", 8), ("b", 4), ("guess", 18)]), 12));
    let state = world.state().await;
    let taken = |name: &str| state.steps["fill"].taken[name].usage.source_requests;
    assert_eq!((taken("a"), taken("b")), (8, 4), "what each took is known apart");
}

#[tokio::test(start_paused = true)]
async fn each_has_its_own_tags() {
    let world = World::new();
    let text = "tags: { project: p, idea: all }\nstart: look\nsteps:\n  look: { detect: look, next: fill }\n  fill: { repair: [{ strategy: ask, with: { below: 9 }, tags: { idea: vendor, plan: gold } }, { strategy: guess }], of: look, next: again }\n  again: { repair: guess, of: look, tags: { plan: none }, end: true }\n";
    world.run(&world.try_parse(text).unwrap_or_else(|told| panic!("{told}"))).await;
    let events = world.events().await;
    let tags: Vec<Value> = events
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::UnitsPlanned { tags, .. } => Some(json!(tags)),
            _ => None,
        })
        .collect();
    let wanted = [
        json!({ "project": "p", "idea": "vendor", "plan": "gold" }),
        json!({ "project": "p", "idea": "guess" }),
        json!({ "project": "p", "idea": "all", "plan": "none" }),
    ];
    assert_eq!(tags, wanted);
}

/// What stopped the first may be mended: taken up again, it gets what is left before the others do.
#[tokio::test(start_paused = true)]
async fn a_redriven_step_begins_with_its_first_strategy() {
    let world = World::new();
    let strategies = "{ strategy: ask, with: { fails_at: 7, kind: denied, attempts: 2 } }, { strategy: guess, with: { fails_at: 20 } }";
    let workflow = world.parse(strategies, "");
    let report = world.run(&workflow).await;
    assert_eq!(report.outcome, Some(Outcome::Failed), "{report:?}");
    assert_eq!(world.repaired(), counted(&[("ask", 8), ("guess", 21)]));
    let report = world.engine(&Schedule::never()).redrive("run", None).await.unwrap();
    assert_eq!(world.repaired(), counted(&[("ask", 9), ("guess", 21)]), "{report:?}");
}

/// Killed before or after any write, the same rows are repaired by the same strategies, and nothing is asked for twice.
#[test]
fn killed_at_any_write_each_strategy_repairs_the_same() {
    let strategies =
        "{ strategy: ask, with: { fails_at: 7, below: 12 } }, { strategy: ask, name: second, budget: { calls: 6 } }, { strategy: guess }";
    let run = |kill: Option<(u64, Moment)>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let workflow = world.parse(strategies, "");
            let mut killed = false;
            let schedule = kill.map_or_else(Schedule::never, |(write, moment)| Schedule::crash_at(write, moment));
            match world.engine(&schedule).start(&workflow, World::request()).await {
                Ok(_) => {}
                Err(error) => {
                    assert!(is_crash(&error) || kill.is_some(), "{}", error.full());
                    killed = true;
                    world.journal.all_drivers_died();
                    world.engine(&Schedule::never()).start(&workflow, World::request()).await.unwrap();
                }
            }
            let spent = world.state().await.steps["fill"].taken["second"];
            assert!(spent.usage.source_requests + spent.assumed.source_requests <= 6);
            (killed, world.repaired(), world.state().await.ended.unwrap().outcome)
        })
    };
    let (_, rows, outcome) = run(None);
    assert_eq!(rows, counted(&[("ask", 11), ("second", 6), ("guess", 13)]));
    let mut kills = 0;
    for write in (1..).step_by(testdata::by_length(2, 1)) {
        let kills_before = kills;
        for moment in [Moment::Before, Moment::After] {
            let (killed, again, ended) = run(Some((write, moment)));
            // A call whose end the crash has hidden counts against the second's budget: the guess does its slots.
            let (all, second) = (again.values().sum::<usize>(), again.get("second").copied().unwrap_or(0));
            assert!(all == 30 && again["ask"] == 11 && (5..=6).contains(&second) && ended == outcome, "{write} {moment:?}: {again:?}");
            kills += u32::from(killed);
        }
        if kills == kills_before {
            break;
        }
    }
    assert!(kills > testdata::by_length(15, 30), "only {kills} of the kills came to pass");
}

#[test]
fn mistakes_of_strategies_are_reported_at_their_place() {
    let world = World::new();
    for (repair, expected) in [
        ("repair: []", "`repair` must list 1 to 20 strategies, not 0"),
        ("repair: [ask]", "write `- { strategy: ask }`"),
        ("repair: [{ strategy: ask }, { strategy: ask }]", "there is another strategy `ask` in this step"),
        ("repair: [{ strategy: aks }]", "did you mean `ask`?"),
        ("repair: [{ strategy: ask, with: { belo: 3 } }]", "did you mean `below`?"),
        ("repair: [{ strategy: ask }], with: { below: 3 }", "a step with a list of strategies takes no `with`"),
        ("repair: [{ strategy: ask, budget: { usd: 1 } }]", "a budget in dollars needs a price book"),
        ("repair: [{ strategy: ask, retry: [{ on: trasient }] }]", "did you mean `transient`?"),
        ("repair: [{ strategy: ask, name: 'a b' }]", "a strategy"),
    ] {
        let said = world
            .try_parse(&format!("start: look\nsteps:\n  look: {{ detect: look, next: fill }}\n  fill: {{ {repair}, of: look, end: true }}"))
            .unwrap_err();
        assert!(said.contains(expected) && said.contains("w.yaml:7:"), "{expected}\n{said}");
    }
}
