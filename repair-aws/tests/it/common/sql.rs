//! SQL of a user's own as a detector, a repairer, a source and a task, in the dialect of Athena.

use std::sync::Arc;

use repair_core::engine::{Engine, Outcome, StartRequest};
use repair_core::lake::ReadLake;
use repair_core::model::{Cadence, Format, PartitionUnit, Table};
use repair_core::plugin::Registry;
use repair_core::testing::{LakeSetup, MemoryJournal, VirtualClock};
use repair_core::workflow::Workflow;
use serde_json::json;

use super::*;

const WORKFLOW: &str = r#"
workflow: own
kind: state-machine
params: { least: { type: number, default: -50 }, station: { type: string, default: "B" } }
tables:
  readings: { location: readings, format: parquet, partition_by: [{ date: day }], key: [symbol], time: ts, cadence: 1h }
  near: { location: near, format: parquet, partition_by: [{ date: day }], key: [symbol], time: ts, cadence: 1h }
sources:
  station:
    source: sql
    with:
      query: >
        SELECT k.symbol, n.ts, n.close + 2 AS close, n.volume FROM near n CROSS JOIN $keys k
        WHERE n.symbol = :station AND n.ts >= :from AND n.ts < :to
start: cold
steps:
  cold:
    detect: sql
    with:
      table: readings
      from: "2024-03-04T00:00:00Z"
      to: "2024-03-04T12:00:00Z"
      keys: [A]
      query: >
        SELECT symbol, ts, CAST(NULL AS varchar) AS "column", 'too cold' AS reason FROM readings
        WHERE close < :least AND ts >= :from AND ts < :to
        UNION ALL SELECT symbol, ts, 'volume', 'too wet' FROM readings WHERE volume > 100
    next: warm
  warm:
    repair: sql
    of: cold
    with:
      query: >
        SELECT m.symbol, m.ts, n.close + 2 AS close, n.volume FROM $missing m JOIN near n ON n.ts = m.ts WHERE n.symbol = :station
    next: still_cold
  still_cold: { verify: cold, next: gaps }
  gaps:
    detect: gaps
    with: { table: readings, keys: [A], from: "2024-03-04T00:00:00Z", to: "2024-03-04T12:00:00Z" }
    next: fill
  fill: { repair: backfill, of: gaps, with: { source: station }, next: check }
  check: { verify: gaps, next: count }
  count: { task: sql, with: { query: "SELECT count(*) AS n, count(*) FILTER (WHERE symbol = :station) AS of_b FROM readings_repaired" }, end: true }
"#;

pub async fn sql_of_a_users_own(world: &World) {
    let table = |name: &str| {
        Table::new(name, Format::Parquet, "ts").with_key(["symbol"]).with_partition("date", PartitionUnit::Day).with_cadence(Cadence::HOUR)
    };
    let (readings, near) = (table("readings"), table("near"));
    let time = |hour: i64| format!("2024-03-04T{hour:02}:00:00Z");
    let times: Vec<String> = (0..12).map(time).collect();
    let of = |key: &'static str, left_out: &[usize], value: &dyn Fn(usize) -> f64| {
        let all: Vec<(&str, &str, f64)> =
            (0..12).filter(|hour| !left_out.contains(hour)).map(|hour| (key, times[hour].as_str(), value(hour))).collect();
        rows(&all)
    };
    let hours = |hour: usize| f64::from(u8::try_from(hour).unwrap());
    let own = of("A", &[7, 8], &|hour| if hour == 3 { -900.0 } else { 10.0 + hours(hour) });
    // The volume of one row is too large.
    let volumes: arrow::array::Int64Array = (0..own.num_rows()).map(|row| Some(if row == 5 { 400 } else { 1 })).collect();
    let mut columns = own.columns().to_vec();
    columns[3] = Arc::new(volumes);
    world.add_rows(&readings, &[RecordBatch::try_new(own.schema(), columns).unwrap()]).await.unwrap();
    world.add_rows(&near, &[of("B", &[8], &|hour| 8.0 + hours(hour))]).await.unwrap();
    let registry = Arc::new(Registry::default());
    let workflow = Workflow::parse("w.yaml", WORKFLOW, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut engine = Engine::new(registry, Arc::new(world.reopened()), Arc::new(MemoryJournal::default()));
    engine.clock = Arc::new(VirtualClock::starting_at(at("2024-06-01T00:00:00Z")));
    let params = [("least".to_owned(), json!(-50)), ("station".to_owned(), json!("B"))].into();
    let request = StartRequest::new("own").with_params(params).with_environment(json!({}));
    let report = Box::pin(engine.start(&workflow, request)).await.unwrap_or_else(|error| panic!("{}", error.full()));
    let output = |step: &str| report.steps.iter().find(|known| known.name == step).unwrap().output.clone();
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{:?} {:?}", report.reason, report.problems);
    assert_eq!((&output("cold")["defective"], &output("cold")["cells"]), (&2.into(), &1.into()));
    assert_eq!((&output("still_cold")["defective"], &output("check")["missing"]), (&0.into(), &1.into()));
    assert_eq!(output("count")["first"], json!({ "n": 11, "of_b": 0 }));
    let sql = "SELECT CAST(hour(ts) AS varchar), CAST(CAST(close AS bigint) AS varchar), CAST(volume AS varchar) FROM readings_repaired";
    let view = texts(&collect(world.reopened().query(&repair_core::lake::Query::new(&[readings], sql)).await.unwrap()).await);
    for row in ["3|13|1", "5|15|1", "7|17|1", "4|14|1"] {
        assert!(view.iter().any(|shown| shown == row), "{row} is not in {view:?}");
    }
    // What was given to the queries is gone.
    let left: Vec<String> = world.keys("lake/").into_iter().filter(|key| key.contains("given_")).collect();
    assert_eq!(left, [] as [String; 0]);
}
