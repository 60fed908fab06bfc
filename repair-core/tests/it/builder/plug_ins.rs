//! A user's own plug-ins in a workflow written in Rust.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use async_trait::async_trait;
use repair_core::engine::{Engine, Outcome, StartRequest};
use repair_core::model::{Counts, Findings, Fix, Format, GapList, Interval, Scope, Table, Unit, Usage};
use repair_core::plugin::{
    AggregateRequest, Aggregated, Aggregator, Answer, Detector, Limits, Registry, Repairer, Request, Sensor, Source, StepContext, Task,
};
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::builder::{PlugIn, WorkflowBuilder, computed};
use repair_core::workflow::{Param, ParamType, SourceUse, Step, Strategy, Workflow};
use repair_core::{Error, Result, plugin};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// All kinds of plug-ins, and what was called.
#[derive(Clone, Default)]
struct Mine(Arc<AtomicU32>);

impl Mine {
    fn called(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Detector for Mine {
    async fn detect(&self, context: &StepContext, _: Option<&Findings>) -> Result<Findings> {
        self.called();
        let table = context.table("readings")?;
        let interval = Interval::parse("2024-03-04", "2024-03-04")?;
        let scope = Scope {
            table: table.name.clone(),
            grid: table.grid()?,
            keys: Vec::new(),
            interval,
            calendar: "24x7".to_owned(),
            lifetimes: Default::default(),
        };
        Ok(Findings::of_gaps(scope, Counts::default(), GapList::default(), Usage::default()))
    }
}

#[async_trait]
impl Repairer for Mine {
    async fn plan(&self, _: &StepContext, _: &Findings) -> Result<plugin::PlannedUnits> {
        self.called();
        Ok(Box::new(std::iter::empty()))
    }

    async fn repair(&self, _: &StepContext, _: &Findings, _: &Unit) -> Result<Fix> {
        Err(Error::internal("nothing was planned"))
    }
}

#[async_trait]
impl Aggregator for Mine {
    async fn aggregate(&self, _: &StepContext, _: AggregateRequest<'_>) -> Result<Aggregated> {
        self.called();
        Ok(Aggregated::new(json!({ "rows": 0 })))
    }
}

#[async_trait]
impl Sensor for Mine {
    async fn sense(&self, _: &StepContext) -> Result<Value> {
        self.called();
        Ok(json!(self.0.load(Ordering::SeqCst)))
    }
}

#[async_trait]
impl Task for Mine {
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        self.called();
        Ok((json!(context.source("market")?.limits().keys_per_request), Usage::default()))
    }
}

#[async_trait]
impl Source for Mine {
    fn limits(&self) -> Limits {
        Limits::new(100, 7)
    }

    async fn fetch(&self, _: &StepContext, _: &Request) -> Result<Answer> {
        Err(Error::internal("nothing is asked"))
    }
}

/// A task with a configuration.
struct Says(String);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SaysConfig {
    /// What to say.
    words: String,
}

#[async_trait]
impl Task for Says {
    async fn perform(&self, _: &StepContext) -> Result<(Value, Usage)> {
        Ok((json!(self.0), Usage::default()))
    }
}

fn says() -> PlugIn<dyn Task> {
    PlugIn::<dyn Task>::configured(|config: SaysConfig| Ok(Says(config.words)))
}

fn workflow(mine: &Mine) -> WorkflowBuilder {
    Workflow::state_machine("mine")
        .param("words", Param::new(ParamType::String).with_default("hello"))
        .table(Table::new("readings", Format::Csv, "ts").with_cadence(repair_core::model::Cadence::HOUR))
        .source("market", SourceUse::builder(mine.clone()))
        .step("look", Step::detect(mine.clone()).next("wait"))
        .step("wait", Step::wait_for_sensor(mine.clone()).when("$output >= 3").every(std::time::Duration::from_secs(5)).next("fill"))
        .step("fill", Step::repair(mine.clone()).of("look").with(json!({ "source": "market" })).next("fill_again"))
        .step(
            "fill_again",
            Step::strategies([Strategy::builder(mine.clone()).name("line"), Strategy::builder(mine.clone())]).of("look").next("total"),
        )
        .step("total", Step::aggregate(mine.clone()).next("notify"))
        .step("notify", Step::task(Arc::new(mine.clone()) as Arc<dyn Task>).next("say"))
        .step("say", Step::task(says()).with(json!({ "words": computed("$params.words & '!'") })).end())
}

/// A lake with one row, and a journal.
fn stores() -> (MemoryLake, MemoryJournal) {
    let lake = MemoryLake::default();
    let times = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
    let rows = RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef)]).unwrap();
    lake.put_table(&Table::new("readings", Format::Csv, "ts").with_cadence(repair_core::model::Cadence::HOUR), &[rows]).unwrap();
    (lake, MemoryJournal::default())
}

fn engine(registry: Registry, (lake, journal): &(MemoryLake, MemoryJournal)) -> Engine {
    let mut engine = Engine::new(Arc::new(registry), Arc::new(lake.clone()), Arc::new(journal.clone()));
    engine.clock = Arc::new(VirtualClock::starting_at("2024-03-05T00:00:00Z".parse().unwrap()));
    engine
}

#[tokio::test(start_paused = true)]
async fn plug_ins_of_ones_own_are_used_where_they_stand() {
    let mine = Mine::default();
    let built = workflow(&mine).build(Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let stores = stores();
    let params = built.workflow.bind_values(&Default::default()).unwrap();
    let report = engine(built.registry, &stores).start(&built.workflow, StartRequest::new("one").with_params(params)).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    assert_eq!(report.step("notify").unwrap().output, json!(7));
    assert_eq!(report.step("say").unwrap().output, json!("hello!"));
    // Once to detect, twice to sense (2, 3), thrice to plan, once each to aggregate and to perform.
    assert!(mine.0.load(Ordering::SeqCst) >= 6);
}

#[test]
fn building_again_gives_the_same_names_and_text() {
    let (one, two) = (workflow(&Mine::default()).to_yaml(), workflow(&Mine::default()).to_yaml());
    assert_eq!(one, two);
    for name in ["mine.market", "mine.look", "mine.wait", "mine.fill", "mine.fill_again.line", "mine.fill_again.2", "mine.say"] {
        assert!(one.contains(&format!("own.{name}")), "{name} in\n{one}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_process_needs_the_registry_of_the_same_workflow() {
    let mine = Mine::default();
    let built = workflow(&mine).build(Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let stores = stores();
    let first = engine(built.registry, &stores);
    // The process ends while the run waits for the sensor.
    let stop = first.stop.clone();
    let params = built.workflow.bind_values(&Default::default()).unwrap();
    let (stopped, ()) = tokio::join!(first.start(&built.workflow, StartRequest::new("one").with_params(params)), async {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        stop.cancel();
    });
    assert!(stopped.is_err(), "{stopped:?}");

    let refused = engine(Registry::default(), &stores).resume("one").await.unwrap_err().full();
    assert!(refused.contains("there is no detector `own.mine.look` in this program"), "{refused}");
    assert!(refused.contains("a program that builds the same workflow"), "{refused}");

    let built = workflow(&Mine::default()).build(Registry::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let report = engine(built.registry, &stores).resume("one").await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded));
}

#[test]
fn the_with_of_a_plug_in_that_is_given_as_a_value_names_a_table_or_source_only() {
    let look = |with: Value| {
        let builder = Workflow::state_machine("w")
            .table(Table::new("readings", Format::Csv, "ts"))
            .step("look", Step::detect(Mine::default()).with(with).end());
        builder.build(Registry::default()).map(|_| ()).map_err(|mistakes| mistakes.to_string())
    };
    look(json!({ "table": "readings" })).unwrap();
    assert!(look(json!({ "table": "reading" })).unwrap_err().contains("did you mean `readings`?"));
    assert!(look(json!({ "column": "value" })).unwrap_err().contains("unknown key `column` in the `with` of `own.w.look`"));
}
