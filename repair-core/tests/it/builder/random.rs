//! Random workflows: what is built, printed and read is what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use repair_core::model::{Cadence, ExpectedKeys, Findings, Fix, Format, Key, PartitionUnit, Table, TimeMark, Unit, Usage};
use repair_core::plugin::{
    AggregateRequest, Aggregated, Aggregator, Answer, Detector, Limits, PlannedUnits, Registry, Repairer, Request, Sensor, Source,
    StepContext, Task,
};
use repair_core::price::Budget;
use repair_core::workflow::builder::{GoesOn, StepBuilder, WorkflowBuilder, computed};
use repair_core::workflow::{
    AfterIf, ErrorMatch, Expression, Jitter, ParallelBranch, Param, ParamType, Rate, RetryRule, RunIf, SourceUse, Step, StepKind,
    Strategy as RepairStrategy, Template, Tolerance, Variables, Wait, Workflow, WorkflowKind,
};
use repair_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

/// Plug-ins that take any configuration, and are never called.
struct Anything;

fn never<T>() -> Result<T> {
    Err(Error::internal("never called"))
}

#[async_trait]
impl Detector for Anything {
    async fn detect(&self, _: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        never()
    }
}

#[async_trait]
impl Repairer for Anything {
    async fn plan(&self, _: &StepContext, _: &Findings) -> Result<PlannedUnits> {
        never()
    }

    async fn repair(&self, _: &StepContext, _: &Findings, _: &Unit) -> Result<Fix> {
        never()
    }
}

#[async_trait]
impl Aggregator for Anything {
    async fn aggregate(&self, _: &StepContext, _: AggregateRequest<'_>) -> Result<Aggregated> {
        never()
    }
}

#[async_trait]
impl Sensor for Anything {
    async fn sense(&self, _: &StepContext) -> Result<Value> {
        never()
    }
}

#[async_trait]
impl Task for Anything {
    async fn perform(&self, _: &StepContext) -> Result<(Value, Usage)> {
        never()
    }
}

#[async_trait]
impl Source for Anything {
    fn limits(&self) -> Limits {
        Limits::default()
    }

    async fn fetch(&self, _: &StepContext, _: &Request) -> Result<Answer> {
        never()
    }
}

fn registry() -> Registry {
    let mut registry = Registry::empty();
    registry.detector("any", "", |_: Value| Ok(Anything));
    registry.repairer("any", "", |_: Value| Ok(Anything));
    registry.repairer("other", "", |_: Value| Ok(Anything));
    registry.aggregator("any", "", |_: Value| Ok(Anything));
    registry.sensor("any", "", |_: Value| Ok(Anything));
    registry.task("any", "", |_: Value| Ok(Anything));
    registry.source("any", "", |_: Value| Ok(Anything));
    registry
}

#[derive(Debug, Clone)]
struct Model {
    name: String,
    dag: Option<u32>,
    about: Option<String>,
    timeout: Option<Duration>,
    params: BTreeMap<String, Param>,
    tags: BTreeMap<String, String>,
    budget: Option<Budget>,
    tables: Vec<Table>,
    sources: BTreeMap<String, (Value, Option<Rate>)>,
    profiles: BTreeMap<String, Value>,
    steps: Vec<StepModel>,
}

#[derive(Debug, Clone)]
struct StepModel {
    name: String,
    body: Body,
    retry: Vec<RetryRule>,
    catch: Option<(ErrorMatch, Index)>,
    when: Option<(&'static str, Index)>,
    max_visits: Option<u32>,
    timeout: Option<Duration>,
    heartbeat: bool,
    after: Vec<Index>,
    run_if: RunIf,
    /// If it says how each step before must have ended: words to choose from, in turn.
    after_if: Option<Vec<AfterIf>>,
}

#[derive(Debug, Clone)]
enum Body {
    Detect(Value),
    For(Duration),
    ForComputed,
    Until(jiff::Timestamp),
    Sensor(Value, Option<&'static str>, Duration),
    Repair(Box<RepairModel>),
    Verify,
    Aggregate(Value),
    Task(Value),
    Parallel(Vec<String>),
}

#[derive(Debug, Clone)]
struct RepairModel {
    strategies: Vec<StrategyModel>,
    alone: bool,
    concurrency: u32,
    rate_limit: Option<Rate>,
    tolerate: Tolerance,
    give_up_after: Option<u32>,
    budget: Option<Budget>,
}

#[derive(Debug, Clone)]
struct StrategyModel {
    with: Value,
    retry: Option<RetryRule>,
    budget: Option<Budget>,
    tags: BTreeMap<String, String>,
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z_][a-z0-9_-]{0,12}",
        1 => select(vec!["no", "yes", "null", "true", "on", "y", "e1", "nan", "inf"]).prop_map(str::to_owned),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let texts = prop_oneof!["[ -~\n]{0,40}", "\\PC{0,20}", "[a-z ]{1,20}(\n[a-z ]{1,20}){1,3}\n?", any::<String>()];
    texts.prop_filter("is computed", |text| !text.contains("{%"))
}

fn full_text() -> impl Strategy<Value = String> {
    text().prop_map(|text| if text.trim().is_empty() { format!("x{text}") } else { text })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A `with`, in which `computed` may be something that is computed.
fn with() -> impl Strategy<Value = Value> {
    (prop::collection::btree_map("[a-z]{1,6}|[ -~]{1,9}", value(), 0..4), any::<bool>()).prop_map(|(map, is_computed)| {
        let mut map: Map<String, Value> = map.into_iter().filter(|(key, _)| key != "computed").collect();
        if is_computed {
            map.insert("computed".to_owned(), json!([computed("$run.now & 'é\"'")]));
        }
        Value::Object(map)
    })
}

fn duration() -> impl Strategy<Value = Duration> {
    let units = select(vec![1u64, 1_000, 60_000, 3_600_000, 86_400_000]);
    (units, 1u64..1_500).prop_map(|(unit, count)| Duration::from_millis(unit * count))
}

fn rate() -> impl Strategy<Value = Rate> {
    let make = select(vec![Rate::per_second as fn(u32) -> Rate, Rate::per_minute, Rate::per_hour, Rate::per_day]);
    (make, 1..=u32::MAX).prop_map(|(make, count)| make(count))
}

fn errors() -> impl Strategy<Value = ErrorMatch> {
    let kinds: Vec<ErrorKind> = ErrorKind::ALL.into_iter().filter(|kind| *kind != ErrorKind::Cancelled).collect();
    prop_oneof![Just(ErrorMatch::Any), subsequence(kinds, 1..4).prop_map(ErrorMatch::from)]
}

fn retry() -> impl Strategy<Value = RetryRule> {
    let backoff = (1.0f64..100.0).prop_map(|backoff| (backoff * 100.0).round() / 100.0);
    (errors(), 0u32..=1_000, duration(), backoff, prop::option::of(duration()), any::<bool>()).prop_map(
        |(on, attempts, interval, backoff, longer, full)| {
            let rule = RetryRule::on(on).with_attempts(attempts).with_interval(interval).with_backoff(backoff);
            let rule = if let Some(longer) = longer { rule.with_max_interval(interval + longer) } else { rule };
            if full { rule.with_jitter(Jitter::Full) } else { rule }
        },
    )
}

fn budget() -> impl Strategy<Value = Budget> {
    (prop::option::of(any::<u64>()), any::<u64>()).prop_map(|(calls, bytes)| Budget { usd: None, calls, bytes: Some(bytes) })
}

fn tags() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(name(), text(), 0..3)
}

fn table() -> impl Strategy<Value = Table> {
    let formats = select(vec![Format::Parquet, Format::Csv, Format::Jsonl]);
    let units = select(vec![PartitionUnit::Year, PartitionUnit::Month, PartitionUnit::Day, PartitionUnit::Hour]);
    let cadences = prop::option::of(select(vec![1u32, 60, 900, 3_600, 86_400]));
    let marks = select(vec![TimeMark::Start, TimeMark::End]);
    (
        "[a-z]{1,8}",
        formats,
        full_text(),
        prop::collection::btree_set("[a-z ]{0,4}k", 0..3),
        prop::option::of((name(), units)),
        cadences,
        marks,
    )
        .prop_map(|(name, format, location, key, partition, cadence, marks)| {
            let table = Table::new(name, format, "t: #1").with_location(location).with_key(key).with_time_marks(marks);
            let table = match partition {
                Some((column, unit)) => table.with_partition(column, unit),
                None => table,
            };
            cadence.and_then(|cadence| Cadence::from_seconds(cadence).ok()).map_or(table.clone(), |cadence| table.with_cadence(cadence))
        })
        .prop_flat_map(|table| {
            let columns = table.key.len();
            let list = prop::collection::vec(prop::collection::vec(text(), columns).prop_map(Key::new), 1..4).prop_map(ExpectedKeys::List);
            (Just(table), prop::option::of(list).prop_map(move |list| list.filter(|_| columns > 0)))
        })
        .prop_map(|(table, keys)| Table { keys, ..table })
}

fn param() -> impl Strategy<Value = Param> {
    let default = prop_oneof![
        text().prop_map(|text| Param::new(ParamType::String).with_default(text)),
        any::<i64>().prop_map(|number| Param::new(ParamType::Integer).with_default(number).with_one_of([number, 7])),
        prop::num::f64::NORMAL.prop_map(|number| Param::new(ParamType::Number).with_default(number)),
        any::<bool>().prop_map(|value| Param::new(ParamType::Boolean).with_default(value)),
        prop::collection::vec(text(), 0..4).prop_map(|texts| Param::new(ParamType::List).with_default(texts)),
        Just(Param::new(ParamType::Date).with_default("2024-03-04")),
        Just(Param::new(ParamType::Instant).with_default("2024-03-04T00:00:00Z")),
        Just(Param::new(ParamType::Duration)),
    ];
    (default, prop::option::of(full_text())).prop_map(|(param, about)| match about {
        Some(about) => param.with_about(about),
        None => param,
    })
}

fn repair() -> impl Strategy<Value = RepairModel> {
    let strategy = (with(), prop::option::of(retry()), prop::option::of(budget()), tags())
        .prop_map(|(with, retry, budget, tags)| StrategyModel { with, retry, budget, tags });
    let tolerate = prop_oneof![any::<u32>().prop_map(Tolerance::Count), (0.0f64..=100.0).prop_map(Tolerance::Percent)];
    let rest = (1u32..=256, prop::option::of(rate()), tolerate, prop::option::of(budget()), prop::option::of(1u32..=10_000));
    (prop::collection::vec(strategy, 1..4), any::<bool>(), rest).prop_map(
        |(strategies, alone, (concurrency, rate_limit, tolerate, budget, give_up_after))| RepairModel {
            strategies,
            alone,
            concurrency,
            rate_limit,
            tolerate,
            give_up_after,
            budget,
        },
    )
}

fn condition() -> impl Strategy<Value = &'static str> {
    select(vec!["$visits < 3", "$exists($error)", "$run.now = 'a: b # c'", "$visits > 1 and $visits < 7"])
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        duration().prop_map(Body::For),
        Just(Body::ForComputed),
        (0i64..4_000_000_000).prop_map(|s| Body::Until(jiff::Timestamp::from_second(s).unwrap())),
        (with(), prop::option::of(condition()), duration()).prop_map(|(with, when, every)| Body::Sensor(with, when, every)),
        repair().prop_map(|repair| Body::Repair(Box::new(repair))),
        Just(Body::Verify),
        with().prop_map(Body::Aggregate),
        with().prop_map(Body::Task),
        prop::collection::btree_set(name(), 1..3).prop_map(|branches| Body::Parallel(branches.into_iter().collect())),
    ]
}

fn step() -> impl Strategy<Value = StepModel> {
    let run_if = select(RunIf::ALL.map(|(_, run_if)| run_if).to_vec());
    let after_if = prop::option::of(prop::collection::vec(select(AfterIf::ALL.map(|(_, condition)| condition).to_vec()), 1..4));
    let after = (prop::collection::vec(any::<Index>(), 0..3), run_if, after_if);
    let flow =
        (prop::option::of((errors(), any::<Index>())), prop::option::of((condition(), any::<Index>())), prop::option::of(1u32..1_000_000));
    let times = (prop::option::of(duration()), any::<bool>());
    (name(), body(), prop::collection::vec(retry(), 0..3), flow, times, after).prop_map(
        |(name, body, retry, (catch, when, max_visits), (timeout, heartbeat), (after, run_if, after_if))| StepModel {
            name,
            body,
            retry,
            catch,
            when,
            max_visits,
            timeout,
            heartbeat,
            after,
            run_if,
            after_if,
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    let head = (name(), prop::option::of(1u32..=1_000), prop::option::of(full_text()), prop::option::of(duration()));
    let maps = (prop::collection::btree_map(name(), param(), 0..3), tags(), prop::option::of(budget()));
    let places = (
        prop::collection::btree_map("[a-z]{1,8}", table(), 0..3),
        prop::collection::btree_map(name(), (with(), prop::option::of(rate())), 0..3),
        prop::collection::btree_map(name(), with(), 0..3),
    );
    let without_run = |with: Value| match with {
        // Sources and profiles are set up before there is a run to speak of.
        Value::Object(map) => Value::Object(map.into_iter().filter(|(key, _)| key != "computed").collect()),
        other => other,
    };
    (head, maps, places, with(), prop::collection::vec(step(), 0..7)).prop_map(
        move |((name, dag, about, timeout), (params, tags, budget), (tables, sources, profiles), look, steps)| {
            // Two tables at one location would have to agree.
            let mut places = BTreeSet::new();
            let tables = tables.into_iter().filter(|(_, table)| places.insert(table.location.replace(['/', '.'], "").trim().to_owned()));
            let tables = tables.map(|(name, table)| Table { name, ..table }).collect();
            let sources = sources.into_iter().map(|(name, (with, rate))| (name, (without_run(with), rate))).collect();
            let profiles = profiles.into_iter().map(|(name, with)| (name, without_run(with))).collect();
            let first = StepModel {
                name: "first-step".to_owned(),
                body: Body::Detect(look),
                retry: Vec::new(),
                catch: None,
                when: None,
                max_visits: None,
                timeout: None,
                heartbeat: false,
                after: Vec::new(),
                run_if: RunIf::AllSucceeded,
                after_if: None,
            };
            let mut names = BTreeSet::from(["first-step".to_owned(), "failed".to_owned()]);
            let steps = steps.into_iter().filter(|step| names.insert(step.name.clone()) && fits(&step.body, dag.is_some()));
            let steps = std::iter::once(first).chain(steps.collect::<Vec<_>>()).collect();
            Model { name, dag, about, timeout, params, tags, budget, tables, sources, profiles, steps }
        },
    )
}

fn fits(body: &Body, dag: bool) -> bool {
    !(dag && matches!(body, Body::Parallel(_)))
}

impl Model {
    fn build(&self) -> WorkflowBuilder {
        let mut workflow = match self.dag {
            Some(most) => Workflow::dag(&self.name).max_parallel(most),
            None => Workflow::state_machine(&self.name),
        };
        if let Some(about) = &self.about {
            workflow = workflow.about(about);
        }
        if let Some(timeout) = self.timeout {
            workflow = workflow.timeout(timeout);
        }
        if let Some(budget) = &self.budget {
            workflow = workflow.budget(budget.clone());
        }
        for (name, param) in &self.params {
            workflow = workflow.param(name, param.clone());
        }
        for (name, value) in &self.tags {
            workflow = workflow.tag(name, value);
        }
        for table in &self.tables {
            workflow = workflow.table(table.clone());
        }
        for (name, (with, rate)) in &self.sources {
            let source = SourceUse::builder("any").with(with);
            workflow = workflow.source(name, rate.map_or(source.clone(), |rate| source.rate_limit(rate)));
        }
        for (name, with) in &self.profiles {
            workflow = workflow.profile(name, "local", with);
        }
        for (at, step) in self.steps.iter().enumerate() {
            workflow = self.add(workflow, at, step);
        }
        // A step that every state machine leads to.
        if self.dag.is_none() { workflow.step("failed", Step::fail("why: # not")) } else { workflow }
    }

    fn add(&self, workflow: WorkflowBuilder, at: usize, step: &StepModel) -> WorkflowBuilder {
        match &step.body {
            Body::Detect(with) => workflow.step(&step.name, self.rest(at, step, Step::detect("any").with(with))),
            Body::For(duration) => workflow.step(&step.name, self.rest(at, step, Step::wait_for(*duration))),
            Body::ForComputed => workflow.step(&step.name, self.rest(at, step, Step::wait_for(computed("'5s'")))),
            Body::Until(instant) => workflow.step(&step.name, self.rest(at, step, Step::wait_until(*instant))),
            Body::Sensor(with, when, every) => {
                let sensor = Step::wait_for_sensor("any").with(with).every(*every);
                let sensor = when.map_or(sensor.clone(), |when| sensor.when(when));
                workflow.step(&step.name, self.rest(at, step, sensor))
            }
            Body::Repair(repair) => workflow.step(&step.name, self.rest(at, step, repair.build())),
            Body::Verify => workflow.step(&step.name, self.rest(at, step, Step::verify("first-step"))),
            Body::Aggregate(with) => workflow.step(&step.name, self.rest(at, step, Step::aggregate("any").of("first-step").with(with))),
            Body::Task(with) => workflow.step(&step.name, self.rest(at, step, Step::task("any").with(with))),
            Body::Parallel(branches) => {
                let parallel = branches.iter().fold(Step::parallel(), |parallel, branch| {
                    let inner = format!("{}-in-{branch}", step.name);
                    parallel.branch(branch, ParallelBranch::builder().step(&inner, Step::task("any").end()))
                });
                workflow.step(&step.name, self.rest(at, step, parallel))
            }
        }
    }

    /// What belongs to every kind of step.
    fn rest<K: GoesOn>(&self, at: usize, step: &StepModel, mut builder: StepBuilder<K>) -> StepBuilder<K> {
        for rule in &step.retry {
            builder = builder.retry(rule.clone());
        }
        if let Some(timeout) = step.timeout() {
            builder = builder.timeout(timeout);
        }
        if let Some(heartbeat) = step.heartbeat() {
            builder = builder.heartbeat(heartbeat);
        }
        if self.dag.is_some() {
            let after = self.after(at, step);
            match &step.after_if {
                _ if after.is_empty() => builder,
                Some(each) => builder.after_if(after.into_iter().zip(each.iter().copied().cycle())),
                None => builder.after(after).run_if(step.run_if),
            }
        } else {
            if let Some(visits) = step.max_visits {
                builder = builder.max_visits(visits);
            }
            if let Some((on, to)) = &step.catch {
                builder = builder.catch(on.clone(), &self.later(at, to));
            }
            for (when, goto) in self.next(at, step) {
                builder = match when {
                    Some(when) => builder.next_when(when, &goto),
                    None => builder.next(&goto),
                };
            }
            builder
        }
    }

    fn after(&self, at: usize, step: &StepModel) -> Vec<String> {
        if at == 0 {
            return Vec::new();
        }
        let mut before: BTreeSet<usize> = step.after.iter().map(|index| index.index(at)).collect();
        if matches!(step.body, Body::Repair(_) | Body::Verify | Body::Aggregate(_)) {
            before.insert(0);
        }
        before.into_iter().map(|before| self.steps[before].name.clone()).collect()
    }

    /// A step after this one, or `failed`.
    fn later(&self, at: usize, to: &Index) -> String {
        let later: Vec<&StepModel> = self.steps.iter().skip(at + 1).collect();
        later.get(to.index(later.len() + 1)).map_or("failed".to_owned(), |step| step.name.clone())
    }

    fn next(&self, at: usize, step: &StepModel) -> Vec<(Option<&'static str>, String)> {
        let when = step.when.iter().map(|(when, to)| (Some(*when), self.later(at, to)));
        let always = (None, self.steps.get(at + 1).map_or("failed".to_owned(), |step| step.name.clone()));
        when.chain([always]).collect()
    }

    fn assert_is(&self, workflow: &Workflow) {
        assert_eq!(workflow.name, self.name);
        let kind = self.dag.map_or(WorkflowKind::StateMachine, |max_parallel| WorkflowKind::Dag { max_parallel });
        assert_eq!(workflow.kind, kind);
        assert_eq!(workflow.timeout, self.timeout);
        assert_eq!(workflow.budget, self.budget);
        assert_eq!(workflow.tags, self.tags);
        assert_eq!(format!("{:?}", workflow.params), format!("{:?}", self.params));
        assert_eq!(workflow.tables.values().cloned().collect::<Vec<_>>(), self.tables);
        assert_eq!(workflow.sources.len(), self.sources.len());
        for (name, (with, rate)) in &self.sources {
            let source = &workflow.sources[name];
            assert_eq!((source.plugin.as_str(), source.rate_limit), ("any", *rate));
            assert_with(&source.with, with);
        }
        assert_eq!(workflow.profiles.len(), self.profiles.len());
        for (name, with) in &self.profiles {
            assert_eq!(workflow.profiles[name].lake, "local");
            assert_with(&workflow.profiles[name].with, with);
        }
        let steps: Vec<&Step> = workflow.steps.iter().filter(|step| step.inside.is_none() && step.name != "failed").collect();
        assert_eq!(steps.len(), self.steps.len());
        for (at, (step, model)) in steps.into_iter().zip(&self.steps).enumerate() {
            self.assert_step(at, step, model);
        }
    }

    fn assert_step(&self, at: usize, step: &Step, model: &StepModel) {
        assert_eq!(step.name, model.name);
        assert_eq!(step.retry, model.retry);
        assert_eq!(step.heartbeat, model.heartbeat());
        let sensor = matches!(model.body, Body::Sensor(..));
        assert_eq!(step.timeout, model.timeout().filter(|_| !sensor));
        if self.dag.is_some() {
            let after = self.after(at, model);
            let each = model.after_if.as_ref().filter(|_| !after.is_empty());
            assert_eq!(step.run_if, if after.is_empty() || each.is_some() { RunIf::AllSucceeded } else { model.run_if });
            let conditions: Vec<AfterIf> = each.map(|each| each.iter().copied().cycle().take(after.len()).collect()).unwrap_or_default();
            assert_eq!(step.after_if, conditions);
            assert_eq!(step.after, after);
        } else {
            let next: Vec<_> = step.next.iter().map(|branch| (branch.when.as_ref().map(Expression::text), branch.goto.clone())).collect();
            assert_eq!(next, self.next(at, model));
            assert_eq!(step.max_visits, model.max_visits);
            let catch: Vec<_> = step.catch.iter().map(|rule| (rule.on.clone(), rule.goto.clone())).collect();
            assert_eq!(catch, model.catch.iter().map(|(on, to)| (on.clone(), self.later(at, to))).collect::<Vec<_>>());
        }
        match (&model.body, &step.kind) {
            (Body::Detect(with), StepKind::Detect { plugin, with: read })
            | (Body::Aggregate(with), StepKind::Aggregate { plugin, with: read, .. })
            | (Body::Task(with), StepKind::Task { plugin, with: read }) => {
                assert_eq!(plugin, "any");
                assert_with(read, with);
            }
            (Body::For(duration), StepKind::Wait(Wait::For(Template::Value(read)))) => {
                assert_eq!(repair_core::workflow::parse_duration(read.as_str().unwrap()).unwrap(), *duration);
            }
            (Body::ForComputed, StepKind::Wait(Wait::For(Template::Computed(read)))) => assert_eq!(read.text(), "'5s'"),
            (Body::Until(instant), StepKind::Wait(Wait::Until(Template::Value(read)))) => {
                assert_eq!(read.as_str().unwrap().parse::<jiff::Timestamp>().unwrap(), *instant);
            }
            (Body::Sensor(with, when, every), StepKind::Wait(Wait::Sensor(read))) => {
                assert_eq!((read.every, read.timeout), (*every, model.timeout()));
                assert_eq!(read.when.as_ref().map(Expression::text), *when);
                assert_with(&read.with, with);
            }
            (Body::Repair(repair), kind) => repair.assert_is(kind),
            (Body::Verify, StepKind::Verify { of }) => assert_eq!(of, "first-step"),
            (Body::Parallel(branches), StepKind::Parallel { branches: read }) => {
                assert_eq!(read.iter().map(|branch| &branch.name).collect::<Vec<_>>(), branches.iter().collect::<Vec<_>>());
                assert!(read.iter().all(|branch| branch.start == format!("{}-in-{}", step.name, branch.name)));
            }
            (body, kind) => panic!("{body:?} became {kind:?}"),
        }
    }
}

impl StepModel {
    fn timeout(&self) -> Option<Duration> {
        let ends_by_itself = matches!(self.body, Body::For(_) | Body::ForComputed | Body::Until(_));
        self.timeout.filter(|_| !ends_by_itself).map(|timeout| timeout + Duration::from_secs(2))
    }

    fn heartbeat(&self) -> Option<Duration> {
        let has_none = matches!(self.body, Body::For(_) | Body::ForComputed | Body::Until(_) | Body::Parallel(_));
        (self.heartbeat && !has_none).then_some(Duration::from_millis(1_001))
    }
}

impl RepairModel {
    fn build(&self) -> StepBuilder<repair_core::workflow::builder::RepairStep> {
        let step = match self.strategies.first() {
            Some(only) if self.alone => {
                let step = Step::repair("any").with(&only.with);
                only.tags.iter().fold(step, |step, (name, value)| step.tag(name, value))
            }
            _ => Step::strategies(self.strategies.iter().zip(0..).map(|(strategy, number)| {
                // One of them is named by its plug-in.
                let builder =
                    if number == 0 { RepairStrategy::builder("other") } else { RepairStrategy::builder("any").name(&format!("s{number}")) };
                let builder = strategy.retry.iter().fold(builder.with(&strategy.with), |builder, rule| builder.retry(rule.clone()));
                let builder = strategy.budget.iter().fold(builder, |builder, budget| builder.budget(budget.clone()));
                strategy.tags.iter().fold(builder, |builder, (name, value)| builder.tag(name, value))
            })),
        };
        let step = step.of("first-step").concurrency(self.concurrency).tolerate(self.tolerate);
        let step = self.rate_limit.iter().fold(step, |step, rate| step.rate_limit(*rate));
        let step = self.give_up_after.iter().fold(step, |step, runs| step.give_up_after(*runs));
        self.budget.iter().fold(step, |step, budget| step.budget(budget.clone()))
    }

    fn assert_is(&self, kind: &StepKind) {
        let StepKind::Repair { strategies, of, concurrency, rate_limit, tolerate, budget, give_up_after } = kind else {
            panic!("{kind:?}")
        };
        assert_eq!((of.as_str(), *concurrency, *rate_limit), ("first-step", self.concurrency, self.rate_limit));
        assert_eq!((*tolerate, budget, *give_up_after), (self.tolerate, &self.budget, self.give_up_after));
        assert_eq!(strategies.len(), if self.alone { 1 } else { self.strategies.len() });
        for (number, (read, model)) in strategies.iter().zip(&self.strategies).enumerate() {
            assert_with(&read.with, &model.with);
            let mut tags = model.tags.clone();
            if self.alone {
                assert_eq!((read.name.as_str(), read.plugin.as_str(), &read.retry, &read.budget), ("any", "any", &None, &None));
            } else {
                let name = if number == 0 { "other".to_owned() } else { format!("s{number}") };
                assert_eq!((&read.name, &read.budget), (&name, &model.budget));
                assert_eq!(read.retry, model.retry.clone().map(|rule| vec![rule]));
                tags.entry("idea".to_owned()).or_insert(name);
            }
            assert_eq!(read.tags, tags);
        }
    }
}

/// Compares a `with` as it is used: computed.
fn assert_with(read: &Template, said: &Value) {
    let variables = Variables { run: json!({ "now": "now" }), ..Variables::default() };
    let mut said = said.clone();
    if let Some(inner) = said.get_mut("computed") {
        *inner = json!(["nowé\""]);
    }
    assert_eq!(read.resolve(&variables).unwrap(), said);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testdata::by_length(96, 512)))]

    #[test]
    fn what_was_built_is_what_was_said(model in model()) {
        let builder = model.build();
        let built = builder.build(registry()).unwrap_or_else(|mistakes| panic!("{mistakes}\n{}", builder.to_yaml()));
        model.assert_is(&built.workflow);
        // And what the journal keeps is enough to read it again.
        let again = Workflow::parse("again.yaml", &built.workflow.text, &registry()).unwrap();
        model.assert_is(&again);
    }
}
