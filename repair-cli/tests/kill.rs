//! A run that is killed at any moment and resumed leaves the lake that an undisturbed run leaves.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use common::World;
use futures::TryStreamExt;
use repair_core::lake::{Lake, Layer, ScanRequest};
use repair_core::model::{Format, Table};
use repair_local::LocalLake;

fn table(location: &str, format: Format, time: &str) -> Table {
    Table {
        name: location.to_owned(),
        location: location.to_owned(),
        format,
        partition_by: Vec::new(),
        key: vec!["symbol".to_owned()],
        time: time.to_owned(),
        time_marks: Default::default(),
        cadence: Some("1m".parse().unwrap()),
    }
}

async fn rows(world: &World, table: &Table, layer: Layer, columns: Option<&[&str]>) -> Vec<String> {
    let lake: Arc<dyn Lake> = Arc::new(LocalLake::open(world.lake()).unwrap());
    let request = ScanRequest { layer, interval: None, keys: None, columns: None };
    let batches: Vec<RecordBatch> = lake.scan(table, &request).await.unwrap().try_collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        let schema = batch.schema();
        let chosen: Vec<usize> = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| columns.is_none_or(|columns| columns.contains(&field.name().as_str())))
            .map(|(index, _)| index)
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = chosen.iter().map(|&index| array_value_to_string(batch.column(index), row).unwrap()).collect();
            rows.push(cells.join(","));
        }
    }
    rows.sort();
    rows
}

/// All that readers can see: the repaired view, the exceptions, the hourly table.
async fn seen(world: &World) -> BTreeMap<&'static str, Vec<String>> {
    let absences = Some(&["symbol", "ts", "repair_source", "repair_strategy"][..]);
    BTreeMap::from([
        ("view", rows(world, &table("bars", Format::Csv, "ts"), Layer::Repaired, None).await),
        ("exceptions", rows(world, &table("bars_exceptions", Format::Parquet, "ts"), Layer::Raw, absences).await),
        ("hourly", rows(world, &table("hourly", Format::Parquet, "hour"), Layer::Raw, None).await),
    ])
}

#[tokio::test]
async fn killed_anywhere_and_resumed_is_as_if_never_killed() {
    let slow = [(
        "with: { location: archive, format: csv, rows_per_request: 30 }",
        "with: { location: archive, format: csv, rows_per_request: 30 }, rate_limit: 200/s",
    )];
    let calm = World::new();
    let began = Instant::now();
    let (report, code) = calm.run_json(&calm.workflow(&slow), &["--run-id", "one"]);
    let whole = began.elapsed();
    assert_eq!((code, &report["steps"]["check"]["output"]["missing"]), (0, &0.into()), "{report}");
    let expected = seen(&calm).await;
    assert_eq!(expected["exceptions"].len(), calm.quiet);
    assert_eq!(expected["view"].iter().filter(|row| row.ends_with("stocks.backfill")).count(), calm.dropped);

    let rounds: u32 = std::env::var("KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    let mut interrupted = 0;
    for round in 0..rounds {
        let world = World::new();
        let workflow = world.workflow(&slow);
        // Killed once or twice, at moments spread over the whole run, before it has even begun included.
        let mut started = false;
        for life in 0..=round % 2 {
            let mut command = Command::new(assert_cmd::cargo::cargo_bin!("repair"));
            command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir(workflow.parent().unwrap());
            if started {
                command.args(["resume", "one"])
            } else {
                command.arg("run").arg(&workflow).args(["--run-id", "one"])
            };
            let mut child = command.spawn().unwrap();
            std::thread::sleep(
                whole.mul_f64(f64::from(round + 1) / f64::from(rounds + 1)) / (life + 1) + Duration::from_millis(u64::from(round % 7)),
            );
            if child.try_wait().unwrap().is_none() {
                interrupted += 1;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            started =
                world.lake().join(".repair/journal.db").exists() && world.repair().args(["show", "one"]).output().unwrap().status.success();
        }
        let output = if started {
            world.repair().args(["resume", "one", "--json"]).output().unwrap()
        } else {
            world.repair().arg("run").arg(&workflow).args(["--run-id", "one", "--json"]).output().unwrap()
        };
        assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(seen(&world).await, expected, "round {round}");
    }
    assert!(interrupted > rounds / 3, "only {interrupted} runs of {rounds} were killed before their end; the test proves nothing");
}
