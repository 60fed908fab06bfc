//! The ledger: nothing that a run took is lost or counted twice, whoever asks for it by whatever tags.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use repair::ledger::{Costs, LedgerEntry, Tally};
use repair::ledger::{NONE, TAGS};
use repair_core::ErrorKind;
use repair_core::engine::UnitState;
use repair_core::engine::{ErrorRecord, FORMAT, UnitFailed};
use repair_core::engine::{Event, Recorded, RunState, child_run_id};
use repair_core::model::Usage;
use repair_core::plugin::Registry;
use repair_core::price::{PriceBook, Query};
use repair_core::workflow::Workflow;
use rust_decimal::Decimal;
use serde_json::json;

const WORKFLOW: &str = "workflow: ticker
kind: state-machine
tables: { bars: { location: bars, format: parquet, key: [symbol], time: ts, cadence: 1m } }
tags: { project: ticker }
start: look
steps:
  look: { detect: gaps, with: { table: bars, keys: [A], from: 2024-03-04, to: 2024-03-04 }, next: fill }
  fill: { repair: carry-forward, of: look, with: { max_age: 2h }, next: ask }
  ask: { task: usage, with: { source: market, source_requests: 1 }, end: true }
";

const PRICES: &str = "prices: test
as_of: 2026-11-01
currency: USD
items:
  query_bytes: { usd: 5, per: 1TB, minimum: 10MB, source: page }
  storage_writes: { usd: 0.005, per: 1000, source: page }
  bytes_stored: { usd: 0.023, per: 1GiB, source: page }
  compute_seconds: { usd: 0.0000166667, per: 3, source: page }
sources:
  market: { usd_per_call: 0.01, source: page }
  plan: { monthly_usd: 29, calls_included: 7, usd_beyond: 0.05, source: page }
";

fn workflow(text: &str) -> Workflow {
    Workflow::parse("w.yaml", text, &Registry::default()).unwrap_or_else(|told| panic!("{told}"))
}

fn book() -> PriceBook {
    PriceBook::parse("prices.yaml", PRICES).unwrap()
}

/// A run's history, as it is told.
struct History {
    run: String,
    events: Vec<Recorded>,
    state: RunState,
}

impl History {
    fn of(run: &str, definition: &str) -> Self {
        let event = Event::RunStarted {
            now: None,
            format: FORMAT,
            workflow: "ticker".to_owned(),
            definition: definition.to_owned(),
            file: "w.yaml".to_owned(),
            children: BTreeMap::new(),
            params: BTreeMap::new(),
            environment: json!({}),
            seed: 1,
            expressions: None,
            turn: 0,
            budget: Default::default(),
        };
        let first = Recorded { sequence: 0, at: "2024-03-29T12:00:00Z".parse().unwrap(), event };
        Self { run: run.to_owned(), state: RunState::begin(&first).unwrap(), events: vec![first] }
    }

    fn now(&self) -> Timestamp {
        self.events.last().unwrap().at
    }

    fn tell(&mut self, event: Event) -> &mut Self {
        let recorded = Recorded { sequence: self.state.next_sequence, at: self.now() + SignedDuration::from_mins(1), event };
        self.state.apply(&recorded).unwrap();
        self.events.push(recorded);
        self
    }

    fn enter(&mut self, step: &str) -> &mut Self {
        let visit = self.state.steps.get(step).map_or(1, |state| state.visits + 1);
        self.tell(Event::StepEntered { step: step.to_owned(), visit })
    }

    fn succeed(&mut self, step: &str, usage: Usage) -> &mut Self {
        self.tell(Event::StepSucceeded { step: step.to_owned(), output: json!({}), findings: None, exceptions: None, usage })
    }

    fn to(&mut self, from: &str, to: &str) -> &mut Self {
        self.tell(Event::Moved { from: from.to_owned(), to: to.to_owned(), why: None }).enter(to)
    }

    fn plan(&mut self, strategy: &str, units: u32) -> &mut Self {
        self.plan_for(strategy, units, &[])
    }

    fn plan_for(&mut self, strategy: &str, units: u32, tags: &[(&str, &str)]) -> &mut Self {
        self.tell(Event::UnitsPlanned {
            step: "fill".to_owned(),
            of: "look".to_owned(),
            table: "bars".to_owned(),
            strategy: strategy.to_owned(),
            units,
            slots: u64::from(units),
            artifact: "units".to_owned(),
            tags: tags.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned())).collect(),
            left: None,
            usage: usage(&[("rows_read", 3)]),
        })
    }

    fn meter(&mut self, step: &str, usage: Usage, queries: Vec<Query>) -> &mut Self {
        self.tell(Event::Metered { step: step.to_owned(), usage, queries })
    }

    fn entries(&self, definition: &str) -> Vec<LedgerEntry> {
        let mut tally = Tally::begin(&self.run, &self.events[0]).unwrap();
        self.events[1..].iter().for_each(|recorded| tally.apply(recorded));
        tally.entries(Some(&workflow(definition)), "local")
    }

    /// A run that stands before its repair step's units.
    fn filling(units: u32) -> Self {
        let mut history = Self::of("run", WORKFLOW);
        history.enter("look").succeed("look", usage(&[])).to("look", "fill").plan("carry-forward", units);
        history
    }
}

fn usage(counts: &[(&str, u64)]) -> Usage {
    serde_json::from_value(json!(counts.iter().copied().collect::<BTreeMap<_, _>>())).unwrap()
}

fn query(id: &str, bytes_scanned: u64) -> Query {
    Query { id: id.to_owned(), bytes_scanned, engine_ms: 7 }
}

fn of_query(bytes: u64) -> Usage {
    usage(&[("queries", 1), ("bytes_scanned", bytes), ("engine_ms", 7)])
}

fn total(entries: &[LedgerEntry]) -> Usage {
    entries.iter().map(|entry| entry.usage).sum()
}

/// What comes next in a repair step, if it makes sense there.
#[derive(Debug, Clone)]
enum Turn {
    Reserve(Vec<u32>, u64),
    Stage(Vec<u32>, u64),
    Fail(Vec<u32>),
    Release(Vec<u32>),
    Publish(u64, u64),
    Meter(u64, Option<u64>),
    Retry,
    Crash,
    Next,
    Visit(bool),
}

const UNITS: u32 = 6;

fn turn() -> impl Strategy<Value = Turn> {
    let units = || proptest::collection::vec(0..UNITS, 1..4);
    prop_oneof![
        3 => (units(), 0..5u64).prop_map(|(units, calls)| Turn::Reserve(units, calls)),
        3 => (units(), 0..900u64).prop_map(|(units, calls)| Turn::Stage(units, calls)),
        2 => units().prop_map(Turn::Fail),
        1 => units().prop_map(Turn::Release),
        2 => (0..50u64, 0..9u64).prop_map(|(rows, absent)| Turn::Publish(rows, absent)),
        2 => (0..50_000_000u64, proptest::option::of(0..30_000_000u64)).prop_map(|(bytes, queried)| Turn::Meter(bytes, queried)),
        1 => Just(Turn::Retry),
        1 => Just(Turn::Crash),
        1 => Just(Turn::Next),
        1 => any::<bool>().prop_map(Turn::Visit),
    ]
}

fn play(turns: Vec<Turn>) -> History {
    let mut history = History::filling(UNITS);
    let (mut batch, mut number) = (0, 0);
    for turn in turns {
        let step = "fill".to_owned();
        let units = history.state.steps["fill"].units.clone().unwrap();
        let pending = |mut of: Vec<u32>| {
            of.sort_unstable();
            of.dedup();
            of.retain(|unit| units.state(*unit) == Some(UnitState::Pending));
            of
        };
        let ended = |staged, usage, failed, released| Event::UnitsEnded {
            step: "fill".to_owned(),
            staged,
            usage,
            conflicts: Default::default(),
            suspects: Default::default(),
            answers: Vec::new(),
            failed,
            released,
        };
        match turn {
            Turn::Reserve(of, calls) => history.tell(Event::UnitsReserved {
                step,
                units: pending(of),
                worst: usage(&[("source_requests", calls), ("storage_writes", 1)]),
            }),
            Turn::Stage(of, calls) => {
                history.tell(ended(pending(of), usage(&[("source_requests", calls), ("compute_ms", calls * 13)]), vec![], vec![]))
            }
            Turn::Fail(of) => {
                let error = ErrorRecord { kind: ErrorKind::Transient, message: "it failed".to_owned(), retry_after_ms: None };
                let failed = pending(of).into_iter().map(|unit| UnitFailed { unit, error: error.clone() }).collect();
                history.tell(ended(vec![], Usage::default(), failed, vec![]))
            }
            Turn::Release(of) => history.tell(ended(vec![], Usage::default(), vec![], pending(of))),
            Turn::Publish(rows, absent) => {
                let staged = units.indexes(|state| state == UnitState::Staged).collect::<Vec<_>>();
                history.tell(Event::PublishStarted { step: step.clone(), batch, units: staged });
                batch += 1;
                let usage = usage(&[("storage_writes", 3), ("bytes_written", rows * 1_001)]);
                history.tell(Event::PublishEnded { step, batch: batch - 1, rows, absent, usage })
            }
            Turn::Meter(bytes, queried) => {
                number += 1;
                let queries = queried.map(|bytes| query(&format!("q{number}"), bytes));
                let mut told = usage(&[("storage_reads", bytes % 10)]);
                if let Some(query) = &queries {
                    told += of_query(query.bytes_scanned);
                } else {
                    told += usage(&[("bytes_scanned", bytes)]);
                }
                history.meter("fill", told, queries.into_iter().collect())
            }
            Turn::Retry => {
                let error = ErrorRecord { kind: ErrorKind::Transient, message: "units failed".to_owned(), retry_after_ms: None };
                history.tell(Event::StepFailed { step: step.clone(), error, units: true });
                let due = history.now();
                history.tell(Event::RetryScheduled { step, rules: vec![0], kinds: vec![ErrorKind::Transient], due })
            }
            Turn::Crash => history.tell(Event::DriverStarted { driver: "another".to_owned(), expressions: None }),
            Turn::Next => {
                let strategy = units.strategy.clone();
                history.tell(Event::StrategyEnded { step, strategy, error: None });
                // What comes before the next is planned is for neither.
                history.meter("fill", usage(&[("storage_reads", 1)]), vec![]);
                history.plan("the-next-idea", UNITS)
            }
            Turn::Visit(again) => {
                batch = 0;
                history.succeed("fill", Usage::default()).to("fill", "look").succeed("look", of_query(123)).to("look", "fill");
                history.plan(if again { "carry-forward" } else { "another-idea" }, UNITS)
            }
        };
    }
    history
}

fn sum(groups: &[repair::ledger::CostGroup]) -> (Usage, u64, Decimal, Decimal) {
    let usage = groups.iter().map(|group| group.usage).sum();
    let rows = groups.iter().map(|group| group.rows_repaired).sum();
    let money = |of: fn(&repair::ledger::CostGroup) -> Option<Decimal>| groups.iter().filter_map(of).sum();
    (usage, rows, money(|group| group.usd), money(|group| group.usd_at_most))
}

proptest! {
    /// However a run went, its entries hold all that it took, and all that was set aside and never told; however they are grouped, the
    /// groups add up to the last digit of the last cent.
    #[test]
    fn nothing_is_lost_or_counted_twice(turns in proptest::collection::vec(turn(), 0..60)) {
        let history = play(turns);
        let entries = history.entries(WORKFLOW);
        prop_assert_eq!(total(&entries), history.state.usage());
        let assumed: Usage = history.state.steps.values().flat_map(|step| step.reserved.values().copied().chain([step.assumed])).sum();
        prop_assert_eq!(entries.iter().map(|entry| entry.assumed).sum::<Usage>(), assumed);
        // The run's own state, which a budget is held to, says the same of each strategy.
        let mut by_strategy: BTreeMap<(&str, &str), Usage> = BTreeMap::new();
        for entry in &entries {
            let strategy = Some(entry.tags["strategy"].as_str()).filter(|strategy| *strategy != NONE).unwrap_or_default();
            *by_strategy.entry((&entry.tags["step"], strategy)).or_default() += entry.usage;
        }
        by_strategy.retain(|_, usage| *usage != Usage::default());
        let taken = history.state.steps.iter().flat_map(|(step, state)| state.taken.iter().map(move |(name, taken)| ((step.as_str(), name.as_str()), taken.usage)));
        prop_assert_eq!(by_strategy, taken.filter(|(_, usage)| *usage != Usage::default()).collect());
        let calls: u64 = entries.iter().flat_map(|entry| entry.calls.values()).sum();
        prop_assert_eq!(calls, history.state.usage().source_requests);

        // As if each had asked the source with a plan.
        let entries: Vec<LedgerEntry> = entries.into_iter().map(|entry| LedgerEntry { source: vec!["plan".to_owned()], ..entry }).collect();
        let whole = Costs::new(&entries, &[], Some(&book()));
        for by in [&["component"][..], &["idea", "step"], &["run", "strategy", "table"], &TAGS, &["no-such-tag"]] {
            let by: Vec<String> = by.iter().map(|tag| (*tag).to_owned()).collect();
            let costs = Costs::new(&entries, &by, Some(&book()));
            let sum = sum(&costs.groups);
            prop_assert_eq!(sum, (whole.total.usage, whole.total.rows_repaired, whole.total.usd.unwrap_or_default(), whole.total.usd_at_most.unwrap_or_default()));
            prop_assert!(costs.groups.iter().all(|group| group.usd <= group.usd_at_most));
        }
        // Months apart, a plan's calls cost what the plan says of their number.
        let share: Decimal = whole.plans.iter().map(|plan| plan.share_usd).sum();
        let own = Costs::new(&entries.into_iter().map(|entry| LedgerEntry { source: vec![], ..entry }).collect::<Vec<_>>(), &[], Some(&book()));
        prop_assert_eq!(whole.total.usd.unwrap_or_default() - own.total.usd.unwrap_or_default(), share);
    }
}

#[test]
fn a_query_that_is_found_again_is_counted_once() {
    let mut history = History::of("run", WORKFLOW);
    // The first attempt read 20 MB and died before it could tell; the second found the query, and told.
    history.enter("look").meter("look", Usage::default(), vec![query("a", 20_000_000)]);
    history.tell(Event::DriverStarted { driver: "another".to_owned(), expressions: None });
    history.meter("look", Usage::default(), vec![query("a", 20_000_000), query("b", 1)]);
    let mut told = of_query(20_000_000);
    told += of_query(1);
    history.succeed("look", told);
    // A third found one of them once more, and told so: what the run's state holds is too much by it.
    history.to("look", "ask").meter("ask", of_query(1), vec![query("b", 1)]).succeed("ask", Usage::default());
    assert_eq!(history.state.usage().queries, 3);
    let entries = history.entries(WORKFLOW);
    assert_eq!(total(&entries), usage(&[("queries", 2), ("bytes_scanned", 20_000_001), ("engine_ms", 14)]));
    // 20 MB, and the minimum of 10 MB, at 5 dollars a TB.
    let costs = Costs::new(&entries, &[], Some(&book()));
    assert_eq!(costs.total.usd.unwrap().normalize().to_string(), "0.00015");
    assert_eq!(costs.total.usd, costs.total.usd_at_most);
}

#[test]
fn a_cancelled_query_costs_what_it_read_and_one_without_an_id_has_bounds() {
    let mut history = History::of("run", WORKFLOW);
    history.enter("look").meter("look", of_query(30_000_000), vec![query("cancelled", 30_000_000)]);
    history.meter("look", usage(&[("queries", 3), ("bytes_scanned", 12_000_000)]), vec![]);
    let costs = Costs::new(&history.entries(WORKFLOW), &[], Some(&book()));
    let usd = |usd: Option<Decimal>| usd.unwrap().normalize().to_string();
    // 30 MB; then 12 MB of three queries: at least those, at most 10 MB more for each.
    assert_eq!((usd(costs.total.usd), usd(costs.total.usd_at_most)), ("0.00021".to_owned(), "0.00036".to_owned()));
}

#[test]
fn a_run_within_a_run_has_its_own_entries() {
    let mut history = History::of("outer", WORKFLOW);
    history.enter("look");
    let output = json!({ "run": child_run_id("outer", "look", 1), "outcome": "succeeded" });
    let usage = usage(&[("source_requests", 9)]);
    history.tell(Event::StepSucceeded { step: "look".to_owned(), output, findings: None, exceptions: None, usage });
    assert_eq!(history.state.usage().source_requests, 9);
    assert_eq!(history.entries(WORKFLOW), []);
}

/// The idea is what the plan says; of plans that are older than that, the workflow's tag, else the strategy's name.
#[test]
fn the_idea_is_what_the_author_calls_it() {
    let tagged = WORKFLOW.replace("project: ticker", "idea: cheap");
    for (definition, tags, idea) in [
        (WORKFLOW, &[][..], "carry-forward"),
        (&tagged, &[], "cheap"),
        (&tagged, &[("idea", "archive first"), ("tier", "gold")], "archive first"),
    ] {
        let mut history = History::of("run", definition);
        history.enter("look").succeed("look", usage(&[("rows_read", 1)])).to("look", "fill").plan_for("carry-forward", 1, tags);
        let entries = history.entries(definition);
        let ideas: Vec<&str> = entries.iter().map(|entry| entry.tags["idea"].as_str()).collect();
        assert_eq!(ideas, ["-", idea], "detection serves every idea");
        assert_eq!(entries[1].tags.contains_key("tier"), tags.len() > 1);
    }
}

#[test]
fn a_plan_is_shared_in_order_of_time_and_by_month() {
    let mut entries = Vec::new();
    for (run, calls) in [("one", 5), ("two", 4), ("three", 3)] {
        let mut history = History::of(run, WORKFLOW);
        history.enter("look").succeed("look", Usage::default()).to("look", "ask").succeed("ask", usage(&[("source_requests", calls)]));
        entries.extend(history.entries(WORKFLOW));
    }
    let costs = Costs::new(&entries, &["run".to_owned()], Some(&book()));
    let usd = |costs: &Costs| -> Vec<String> { costs.groups.iter().map(|group| group.usd.unwrap().normalize().to_string()).collect() };
    assert_eq!(usd(&costs), ["0.05", "0.03", "0.04"], "0.01 a call");
    entries.iter_mut().for_each(|entry| entry.source = vec!["unknown".to_owned(), "plan".to_owned()]);
    entries[2].calls =
        entries[2].calls.iter().map(|(month, calls)| (month.tomorrow().unwrap().last_of_month().tomorrow().unwrap(), *calls)).collect();
    let costs = Costs::new(&entries, &["run".to_owned()], Some(&book()));
    // 7 of 29 dollars' calls in March, of which the second run has 2, and 2 beyond; April begins anew.
    let part = Decimal::from(29) / Decimal::from(7);
    let near = |usd: &str, expected: Decimal| (usd.parse::<Decimal>().unwrap() - expected).abs() < Decimal::new(1, 12);
    let [one, three, two] = usd(&costs).try_into().unwrap();
    assert!(near(&one, part * Decimal::from(5)) && near(&three, part * Decimal::from(3)), "{one} {three}");
    assert!(near(&two, part * Decimal::from(2) + Decimal::new(10, 2)), "{two}");
    let told: Vec<_> =
        costs.plans.iter().map(|plan| (plan.month.to_string(), plan.calls, plan.marginal_usd.normalize().to_string())).collect();
    assert_eq!(told, [("2024-03-01".to_owned(), 9, "0.1".to_owned()), ("2024-04-01".to_owned(), 3, "0".to_owned())]);
    // Without a price there is none, and it is said.
    entries.iter_mut().for_each(|entry| entry.source = vec!["unknown".to_owned()]);
    let costs = Costs::new(&entries, &[], Some(&book()));
    assert_eq!((costs.total.usd, costs.calls_without_price["unknown"]), (Some(Decimal::ZERO), 12));
    let costs = Costs::new(&entries, &[], None);
    assert_eq!((costs.total.usd, costs.runs_without_prices), (None, 3));
}

#[test]
fn journals_of_old_fold_to_what_they_always_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../repair-core/tests/golden");
    let mut looked_at = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Recorded> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut tally = Tally::begin("old", &events[0]).unwrap();
        events[1..].iter().for_each(|recorded| tally.apply(recorded));
        let entries = tally.entries(None, "local");
        // What the runs within a map used is in the ledger with these runs.
        let state = RunState::fold(&events).unwrap();
        let own = state.steps.values().filter(|step| step.map.is_none()).map(|step| step.usage).sum();
        assert_eq!(total(&entries), own, "{}", path.display());
        looked_at += 1;
    }
    assert!(looked_at > 3);
}

/// In a lake of files, a run, its budget, its ledger and its plan count the same bytes: those of the files that its steps read.
#[cfg(feature = "sql")]
#[tokio::test]
async fn bytes_of_files_are_the_same_in_plan_budget_and_ledger() {
    use repair::Repair;

    let world = tempfile::tempdir().unwrap();
    let lake = world.path().join("lake");
    std::fs::create_dir_all(lake.join("t")).unwrap();
    let hours = (0..48u32).filter(|hour| *hour != 5 && *hour != 30);
    let rows: String = hours.map(|hour| format!("a,2024-03-{:02}T{:02}:00:00Z,{hour}\n", 4 + hour / 24, hour % 24)).collect();
    let text = format!("k,ts,value\n{rows}");
    std::fs::write(lake.join("t/rows.csv"), &text).unwrap();
    let size = text.len() as u64;
    let workflow = |budget: u64| {
        format!(
            "workflow: w\nkind: dag\nbudget: {{ bytes: {budget}B }}\ntables:\n  t: {{ location: t, format: csv, key: [k], time: ts, cadence: 1h }}\nsteps:\n  look: {{ detect: \
             gaps, with: {{ table: t, keys: [a], from: 2024-03-04, to: 2024-03-05 }} }}\n  fill: {{ repair: interpolate, of: look, after: look }}\n  count: {{ task: sql, after: \
             fill, with: {{ query: \"SELECT count(*) AS n FROM t\" }} }}\n  rest: {{ task: sql, after: count, with: {{ query: \"SELECT max(value) AS m FROM t\" }} }}\n"
        )
    };
    let open = async |budget: u64| Repair::text("w.yaml", workflow(budget)).lake(&lake).connect().await.unwrap();
    let repair = open(1_000_000).await;
    let plan = repair.plan().await.unwrap();
    // A look reads the file once, and each of the two days that are repaired once more.
    assert_eq!(plan.total.high.bytes, 3 * size, "{:?}", plan.total);
    let report = repair.run().await.unwrap();
    assert_eq!(report.error, None, "{:?}", report.reason);
    assert_eq!(report.usage.bytes_scanned, 5 * size, "a look, two days and two queries");
    let costs = repair.lake().costs().await.unwrap();
    assert_eq!(costs.groups.iter().map(|group| group.usage.bytes_scanned).sum::<u64>(), 5 * size, "{costs:?}");
    // The budget counts them, too: nothing begins once it is spent.
    std::fs::remove_dir_all(lake.join(".repair")).unwrap();
    std::fs::remove_dir_all(lake.join("t_repairs")).unwrap();
    let report = open(4 * size - 1).await.run().await.unwrap();
    assert_eq!(report.error, Some(repair::ErrorKind::Budget), "{:?}", report.reason);
    assert!(report.step("rest").is_none_or(|step| step.usage.bytes_scanned == 0), "{report:?}");
    assert_eq!(report.usage.bytes_scanned, 4 * size, "what was read before counts");
}
