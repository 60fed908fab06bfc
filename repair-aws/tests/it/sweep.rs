//! A run on S3 and Athena, its journal in S3 too, crashes before and after its writes and is resumed elsewhere: what readers see is what
//! they see of an undisturbed run, no source is asked twice for what was kept, and no query is paid for twice.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use aws_sdk_athena::types::QueryExecutionState;
use repair_aws::{AwsLake, S3Journal};
use repair_core::engine::{Engine, StartRequest};
use repair_core::lake::{Layer, ReadLake};
use repair_core::model::{Format, Table};
use repair_core::plugin::{Answer, Limits, Registry, Request, Source, StepContext};
use repair_core::testing::{CrashingJournal, CrashingLake, LakeSetup, Moment, Schedule, is_crash};
use repair_core::workflow::Workflow;
use repair_core::{Error, Result};
use serde_json::json;

const WORKFLOW: &str = r#"
workflow: sweep
kind: state-machine
tables:
  bars: { location: bars, format: parquet, partition_by: [{ date: day }], key: [symbol], time: ts, cadence: 1m }
  hourly: { location: hourly, format: parquet, partition_by: [{ date: day }], key: [symbol], time: hour, cadence: 1h }
sources:
  exchange: { source: exchange, with: {} }
  restated: { source: exchange, with: { restated: true, counted: false } }
  confirming: { source: exchange, with: { restated: true } }
start: find
steps:
  find:
    detect: gaps
    with: { table: bars, keys: [A, B], from: "2024-03-04T23:00:00Z", to: "2024-03-05T01:00:00Z" }
    next: fill
  fill:
    repair: backfill
    of: find
    with: { source: exchange }
    concurrency: 1
    next: check
  check: { verify: find, next: look_for_wrong }
  look_for_wrong:
    detect: invalid
    with: { table: bars, keys: [A, B], from: "2024-03-04T23:00:00Z", to: "2024-03-05T01:00:00Z", rules: [{ column: volume, not: [7] }] }
    next: change_cells
  change_cells: { repair: interpolate, of: look_for_wrong, with: { columns: [volume] }, concurrency: 1, next: check_cells }
  check_cells: { verify: look_for_wrong, next: look_for_deleted }
  look_for_deleted:
    detect: differs
    with:
      table: bars
      source: restated
      keys: [A, B]
      from: "2024-03-04T23:00:00Z"
      to: "2024-03-05T01:00:00Z"
      columns: [close]
      deleted: { at_most: 5%, empty_answers: true }
    next: remove
  remove: { repair: backfill, of: look_for_deleted, with: { source: confirming }, concurrency: 1, next: check_removed }
  check_removed: { verify: look_for_deleted, next: hours }
  hours: { aggregate: stocks.hourly-bars, of: find, with: { table: bars, into: hourly }, end: true }
"#;

/// A minute's bar, always the same.
fn bar(symbol: &str, minute: i64) -> f64 {
    f64::from(u8::try_from(minute.rem_euclid(50)).unwrap()) + if symbol == "A" { 100.25 } else { 200.5 }
}

/// Minutes without a trade: the source says so.
fn is_quiet(symbol: &str, minute: i64) -> bool {
    symbol == "B" && minute.rem_euclid(31) == 7
}

/// Minutes whose bar the exchange takes back later.
fn is_deleted(symbol: &str, minute: i64) -> bool {
    minute.rem_euclid(41) == if symbol == "A" { 5 } else { 6 }
}

fn bars_of(some: &[(&str, i64)]) -> RecordBatch {
    let price = || Arc::new(Float64Array::from_iter_values(some.iter().map(|(symbol, minute)| bar(symbol, *minute)))) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(some.iter().map(|row| row.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(some.iter().map(|row| row.1 * 60_000_000)).with_timezone("UTC")),
        price(),
        price(),
        price(),
        price(),
        Arc::new(Int64Array::from_iter_values(some.iter().map(|row| row.1 % 7 + 1))),
    ];
    RecordBatch::try_new(Arc::new(bar_schema()), columns).unwrap()
}

/// A source that writes down every request before it answers.
#[derive(Clone, Default)]
struct Exchange(Arc<Mutex<Vec<String>>>);

/// What the exchange is asked as.
#[derive(Clone, Copy)]
struct Config {
    /// Whether it has taken some bars back.
    is_restated: bool,
    /// Whether requests are written down: a detector that crashes asks again.
    is_counted: bool,
}

/// The exchange as a process sees it that may crash: then it asks for nothing more.
#[derive(Clone)]
struct Asked(Exchange, Schedule, Config);

#[async_trait]
impl Source for Asked {
    fn limits(&self) -> Limits {
        Limits::new(20, 1)
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        if self.1.crashed() {
            return Err(Error::internal("the process has crashed"));
        }
        if self.2.is_counted {
            self.0.0.lock().unwrap().push(format!("{:?} {}", request.keys, request.interval));
        }
        let slots = request.table.grid()?.slots_in(&request.interval);
        let symbols: Vec<String> = request.keys.iter().map(|key| key.values().next().unwrap().to_owned()).collect();
        let all = symbols.iter().flat_map(|symbol| (slots.first..slots.end).map(move |minute| (symbol.as_str(), minute)));
        let rows: Vec<(&str, i64)> =
            all.filter(|(symbol, minute)| !(is_quiet(symbol, *minute) || self.2.is_restated && is_deleted(symbol, *minute))).collect();
        let covered =
            request.keys.iter().map(|key| repair_core::plugin::Covered { key: key.clone(), interval: request.interval }).collect();
        Ok(Answer::new(vec![bars_of(&rows)]).with_covered(covered).with_said("200 OK"))
    }
}

fn registry(exchange: &Exchange, schedule: &Schedule) -> Arc<Registry> {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    let (exchange, schedule) = (exchange.clone(), schedule.clone());
    registry.source("exchange", "a source that counts requests", move |config: serde_json::Value| {
        let config = Config { is_restated: config["restated"] == true, is_counted: config["counted"] != false };
        Ok(Asked(exchange.clone(), schedule.clone(), config))
    });
    Arc::new(registry)
}

async fn new_world() -> World {
    let world = World::new().await;
    let first = at("2024-03-04T23:00:00Z").as_second() / 60;
    let minutes = first..first + 120;
    let all = ["A", "B"].into_iter().flat_map(|symbol| minutes.clone().map(move |minute| (symbol, minute)));
    // The glitch: now one, now the other is not there.
    let some: Vec<(&str, i64)> =
        all.filter(|(symbol, minute)| minute % 9 != i64::from(*symbol == "A") && !is_quiet(symbol, *minute)).collect();
    world.add_rows(&bars(), &[bars_of(&some)]).await.unwrap();
    world.sandbox.faults().clear_log();
    world
}

/// Where the run's lease is.
const LEASE: &str = "lake/_repair/journal/leases/one.json";

/// One life of the run: a process of its own, which may crash.
async fn live(world: &World, exchange: &Exchange, schedule: &Schedule) -> Result<()> {
    let registry = registry(exchange, schedule);
    let workflow = Workflow::parse("sweep.yaml", WORKFLOW, &registry).unwrap_or_else(|told| panic!("{told}"));
    let lake: AwsLake = world.reopened();
    let journal = S3Journal::open(&world.connection, &format!("s3://{BUCKET}/lake/_repair/journal"))?;
    let lake = CrashingLake::new(Arc::new(lake), schedule.clone());
    let journal = CrashingJournal::new(Arc::new(journal), schedule.clone());
    let mut engine = Engine::new(registry, Arc::new(lake), Arc::new(journal));
    // So that no machine is too busy to renew it.
    engine.options.lease = Duration::from_secs(60);
    let request = StartRequest::new("one").with_environment(json!({}));
    let report = Box::pin(engine.start(&workflow, request)).await?;
    let outcome = report.outcome.map(|outcome| outcome.as_str());
    assert_eq!(outcome, Some("succeeded"), "{:?}", report.problems);
    Ok(())
}

/// What readers see: the view, the exceptions, the hours.
async fn seen(world: &World) -> [Vec<String>; 4] {
    let lake = world.reopened();
    let hourly = Table { name: "hourly".into(), location: "hourly".into(), time: "hour".into(), format: Format::Parquet, ..bars() };
    let exceptions = Table { name: "bars_exceptions".into(), location: "bars_exceptions".into(), ..bars() };
    let absent = collect(lake.scan(&exceptions, &everything(Layer::Raw)).await.unwrap()).await;
    let absent: Vec<RecordBatch> = absent.iter().map(|batch| batch.project(&[0, 1]).unwrap()).collect();
    [
        texts(&collect(lake.scan(&bars(), &everything(Layer::Raw)).await.unwrap()).await),
        texts(&collect(lake.scan(&bars(), &everything(Layer::Repaired)).await.unwrap()).await),
        texts(&absent),
        texts(&collect(lake.scan(&hourly, &everything(Layer::Raw)).await.unwrap()).await),
    ]
}

fn sorted(exchange: &Exchange) -> Vec<String> {
    let mut asked = exchange.0.lock().unwrap().clone();
    asked.sort();
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashed_at_every_write_and_resumed_nothing_is_lost_doubled_or_paid_for_twice() {
    let (world, exchange, whole) = (new_world().await, Exchange::default(), Schedule::never());
    live(&world, &exchange, &whole).await.unwrap();
    let queries = executions(&world).await;
    let (expected, asked) = (seen(&world).await, sorted(&exchange));
    assert!(asked.len() >= 8 && whole.writes() > 20, "{} requests, {} writes", asked.len(), whole.writes());
    assert!(expected.iter().all(|rows| !rows.is_empty()));
    assert!(expected[1].iter().filter(|row| row.contains("{\"volume\":\"interpolate\"}")).count() > 20, "cells were changed");
    let times = ["A", "B"].map(|symbol| (symbol, at("2024-03-04T23:00:00Z").as_second() / 60));
    let deleted = times.into_iter().flat_map(|(symbol, first)| (first..first + 120).filter(move |minute| is_deleted(symbol, *minute)));
    let quiet = times.into_iter().flat_map(|(symbol, first)| (first..first + 120).filter(move |minute| is_quiet(symbol, *minute)));
    let (deleted, quiet) = (deleted.count(), quiet.count());
    assert!(deleted > 4 && expected[1].len() == 240 - quiet - deleted, "{} rows are seen", expected[1].len());
    // The sweep takes many seconds a write: every twelfth where tests may take long, else fewer, among them the first.
    for write in (1..=whole.writes()).step_by(testdata::by_length(90, 12)) {
        for moment in [Moment::Before, Moment::After] {
            let (world, exchange) = (new_world().await, Exchange::default());
            let at = format!("crashed {moment:?} write {write} of {}", whole.writes());
            match live(&world, &exchange, &Schedule::crash_at(write, moment)).await {
                Err(error) => assert!(is_crash(&error), "{at}: {}", error.full()),
                // How many writes there are depends a little on what is committed together.
                Ok(()) => assert!(write > whole.writes() * 2 / 3, "{at}: it did not crash"),
            }
            // Nobody waits for the lease of the dead to expire. What it has sent arrives long before that would.
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.sandbox.store().delete(BUCKET, LEASE).unwrap();
            live(&world, &exchange, &Schedule::never()).await.unwrap_or_else(|error| panic!("{at}: {}", error.full()));
            // A resumed attempt has the tokens of the one before. What only defines tables is free, and may be run once more.
            let found = executions(&world).await;
            assert_eq!(found.len(), queries.len(), "{at}: {found:#?}");
            assert_eq!(seen(&world).await, expected, "{at}");
            let mut again = sorted(&exchange);
            // The one unit that was under way when it crashed, and was not kept, is asked for once more; nothing else is.
            assert!(again.len() <= asked.len() + 1, "{at}: {again:#?}\nof\n{asked:#?}");
            again.dedup();
            assert_eq!(again, asked, "{at}");
        }
    }
}

/// How many queries came to their end. One that was under way when its process crashed here is stopped, as its future is dropped; a process
/// that is killed would leave it running, to be found. The hours that an attempt has written are read by the next, as they are there now:
/// that query is another.
async fn executions(world: &World) -> Vec<String> {
    let athena = aws_sdk_athena::Client::new(&config(&world.sandbox.endpoint()));
    let (mut next, mut all) = (None, Vec::new());
    loop {
        let page = athena.list_query_executions().work_group(WORKGROUP).set_next_token(next).send().await.unwrap();
        for id in page.query_execution_ids() {
            let found = athena.get_query_execution().query_execution_id(id).send().await.unwrap().query_execution.unwrap();
            let succeeded = found.status().and_then(|status| status.state()) == Some(&QueryExecutionState::Succeeded);
            if let (true, Some(sql)) = (succeeded, found.query().filter(|sql| sql.starts_with("SELECT") && !sql.contains("\"hourly\""))) {
                all.push(sql.to_owned());
            }
        }
        next = page.next_token;
        if next.is_none() {
            return all;
        }
    }
}
