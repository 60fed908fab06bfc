//! All SQL that the lake says to Athena, said to a real Trino, which is Athena's engine: the sandbox gives its queries to it.
//! `scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored` starts one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::common::*;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use aws_sandbox::Sandbox;
use repair_aws::S3Journal;
use repair_core::engine::{Engine, StartRequest};
use repair_core::lake::{Lake, Layer, ReadLake};
use repair_core::model::Table;
use repair_core::plugin::Registry;
use repair_core::testing::{LakeSetup, MemoryLake, lake_suite};
use repair_core::workflow::Workflow;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

/// A Trino reads from one sandbox at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// A world whose queries run on Trino, and the turn to use it.
async fn world_on_trino() -> (World, MutexGuard<'static, ()>) {
    let url = std::env::var("TRINO_URL").expect("scripts/trino sets TRINO_URL");
    let turn = TURN.lock().await;
    let sandbox = Sandbox::start(aws_sandbox::Options::default().trino(url)).await.unwrap();
    (World::on(sandbox).await, turn)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Trino: scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored"]
async fn the_lake_keeps_its_promises_on_a_real_trino() {
    let (world, _turn) = world_on_trino().await;
    lake_suite::all(&world.lake, &world).await;
    lake_suite::all_of_retractions(&world.lake, &world, 0..3, 14).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Trino: scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored"]
async fn the_lake_on_a_real_trino_and_the_lake_in_memory_say_the_same() {
    let (world, _turn) = world_on_trino().await;
    let memory = MemoryLake::default();
    lake_suite::two_lakes_say_the_same((&world.lake, &world), (&memory, &memory)).await;
}

/// A sample of what the sandbox is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Trino: scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored"]
async fn whole_workflows_on_a_real_trino_come_to_the_truth() {
    let (world, _turn) = world_on_trino().await;
    let lake: Arc<dyn Lake> = Arc::new(world.reopened());
    for seed in testdata::seeds(6, 12) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        lake_suite::what_is_expected_is_found_and_repaired(&lake, &world, seed).await;
    }
}

/// Every form in which a table's text, times and folders can be declared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Trino: scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored"]
async fn tables_as_people_have_them_are_read_by_a_real_trino() {
    let (world, _turn) = world_on_trino().await;
    reading::times_as_iso_writes_them(&world).await;
    reading::text_as_a_grid_operator_writes_it(&world).await;
    reading::times_in_other_forms(&world).await;
    reading::timestamps_of_a_local_clock(&world).await;
    reading::times_in_the_path(&world).await;
    for layout in &reading::LAYOUTS {
        reading::folders_that_carry_the_time(&world, layout).await;
    }
    reading::rows_that_cannot_be_read(&world).await;
    reading::values_and_files(&world).await;
    reading::declared_types_in_sql(&world).await;
    reading::numbers_at_their_limits(&world).await;
    reading::floats_as_keys(&world).await;
}

/// Repaired cells of every type, in text files, and in a wide table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Trino: scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored"]
async fn repaired_cells_are_shown_by_a_real_trino() {
    let (world, _turn) = world_on_trino().await;
    cells::columns_of_every_type(&world).await;
    cells::typed_text(&world).await;
    cells::views_of_an_older_version(&world).await;
    cells::many_columns(&world, 100).await;
    cells::every_repairer(&world).await;
}

/// SQL of a user's own, with values and relations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Trino: scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored"]
async fn sql_of_a_users_own_runs_on_a_real_trino() {
    let (world, _turn) = world_on_trino().await;
    sql::sql_of_a_users_own(&world).await;
}

/// Rows with several versions, in folders of other days, before and after repairs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Trino: scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored"]
async fn rows_with_versions_are_shown_once_by_a_real_trino() {
    let (world, _turn) = world_on_trino().await;
    for layout in unique::LAYOUTS {
        unique::folders_of_other_days(&world, layout).await;
    }
    unique::orders_of_a_seed(&world, 1).await;
    unique::a_table_that_becomes_unique(&world).await;
}

/// A session of two stocks, of which one has holes and the other came for half of the day only.
fn glitched() -> RecordBatch {
    let open = at("2026-03-05T14:30:00Z").as_second() / 60;
    let of = |symbol: &'static str, keep: fn(i64) -> bool| {
        (0..390).filter(move |minute| keep(*minute)).map(move |minute| (symbol, open + minute))
    };
    let bars: Vec<(&str, i64)> = of("AIG", |minute| minute % 9 != 4).chain(of("SPY", |minute| minute < 195)).collect();
    // Thirds have no end in binary: a sum that is taken in another order has another last digit.
    let price = |add: f64| {
        let price = |(symbol, minute): &(&str, i64)| {
            f64::from(i32::try_from(minute % 97).unwrap()) / 3.0 + add + if *symbol == "AIG" { 70.0 } else { 500.0 }
        };
        Arc::new(Float64Array::from_iter_values(bars.iter().map(price))) as ArrayRef
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(bars.iter().map(|bar| bar.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(bars.iter().map(|bar| bar.1 * 60_000_000)).with_timezone("UTC")),
        price(0.0),
        price(0.5),
        price(-0.5),
        price(0.25),
        Arc::new(Int64Array::from_iter_values(bars.iter().map(|bar| bar.1 % 7 + 1))),
    ];
    RecordBatch::try_new(Arc::new(bar_schema()), columns).unwrap()
}

/// Runs the workflow of the example, and gives what readers see after it: raw and repaired bars, confirmed absences, hours.
async fn hourly_of(world: &World) -> (String, [Vec<String>; 4]) {
    world.add_rows(&bars(), &[glitched()]).await.unwrap();
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    let registry = Arc::new(registry);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/stock-pipeline/workflows/ticker-hourly.yaml");
    let workflow = Workflow::load(&path, &registry).unwrap_or_else(|told| panic!("{told}"));
    let given = [("from", json!("2026-03-05")), ("to", json!("2026-03-05")), ("symbols", json!(["AIG", "SPY"])), ("settle", json!("1s"))];
    let given: BTreeMap<String, serde_json::Value> = given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let journal = S3Journal::open(&world.connection, &format!("s3://{BUCKET}/lake/_repair/journal")).unwrap();
    let engine = Engine::new(registry, Arc::new(world.reopened()), Arc::new(journal));
    let request = StartRequest::new("ticker").with_params(workflow.bind_values(&given).unwrap()).with_environment(json!({}));
    let report = Box::pin(engine.start(&workflow, request)).await.unwrap();
    let outcome = report.outcome.map_or_else(|| panic!("no outcome: {:?}", report.problems), |outcome| outcome.as_str().to_owned());
    let lake = world.reopened();
    let hourly = Table {
        name: "hourly".into(),
        location: "hourly".into(),
        time: "hour".into(),
        cadence: Some(repair_core::model::Cadence::HOUR),
        ..bars()
    };
    let exceptions = Table { name: "bars_exceptions".into(), location: "bars_exceptions".into(), ..bars() };
    let absent = collect(lake.scan(&exceptions, &everything(Layer::Raw)).await.unwrap()).await;
    let absent: Vec<RecordBatch> = absent.iter().map(|batch| batch.project(&[0, 1]).unwrap()).collect();
    let seen = [
        texts(&collect(lake.scan(&bars(), &everything(Layer::Raw)).await.unwrap()).await),
        texts(&collect(lake.scan(&bars(), &everything(Layer::Repaired)).await.unwrap()).await),
        texts(&absent),
        texts(&collect(lake.scan(&hourly, &everything(Layer::Raw)).await.unwrap()).await),
    ];
    (outcome, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Trino: scripts/trino cargo test -p repair-aws --test it trino:: -- --ignored"]
async fn the_ticker_workflow_ends_with_the_same_rows_on_a_real_trino() {
    let (world, _turn) = world_on_trino().await;
    let (outcome, seen) = hourly_of(&world).await;
    let (expected_outcome, expected) = hourly_of(&World::new().await).await;
    assert!(outcome.starts_with("succeeded"), "{outcome}");
    assert_eq!(outcome, expected_outcome);
    let [raw, repaired, absent, hours] = &seen;
    assert!(
        repaired.len() > raw.len() && !absent.is_empty() && hours.len() == 14,
        "{} {} {} {}",
        raw.len(),
        repaired.len(),
        absent.len(),
        hours.len()
    );
    for (found, wanted) in seen.iter().zip(&expected) {
        assert_eq!(found, wanted);
    }
}
