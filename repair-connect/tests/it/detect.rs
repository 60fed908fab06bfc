//! Programs that find what is wrong, and programs that repair it: whole rows, and cells.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use repair_core::ErrorKind;
use repair_core::engine::Outcome;
use repair_core::model::DefectKind;
use repair_core::plugin::{Plugin, PluginKind};
use serde_json::{Value, json};

use crate::conformance::{made, with, within};
use crate::world::World;

/// A workflow with a detector and a repairer that are programs.
fn workflow(world: &World, finds: &str, repairs: &str, more: &str) -> String {
    let folder = world.path().display();
    for (name, text) in [("find.sh", finds), ("repair.sh", repairs)] {
        std::fs::write(world.path().join(name), text).unwrap();
    }
    format!(
        "workflow: judge
kind: state-machine
tables:
  readings: {{ location: readings, format: csv, key: [sensor], time: ts, cadence: 1h, keys: [a, b] }}
start: find
steps:
  find: {{ detect: command, with: {{ table: readings, from: 2024-03-04, to: 2024-03-04, run: [sh, find.sh], folder: '{folder}'{more} }}, next: fix }}
  fix: {{ repair: command, of: find, with: {{ run: [sh, repair.sh], folder: '{folder}', around: 2h, name: plausible }}, next: check }}
  check: {{ verify: find, end: true }}
"
    )
}

/// Finds the row of `b` at 9 wrong, as long as its value is what it is.
const FIND: &str = r#"cat > request.json
if grep -q '"sensor":"b","ts":"2024-03-04T09:00:00Z","value":109.5' request.json
then echo '{"sensor": "b", "ts": "2024-03-04T09:00:00Z"}'
else echo '{"$rows": 0}'
fi"#;
const REPAIR: &str = r#"cat > repair.json; echo '{"sensor": "b", "ts": "2024-03-04T09:00:00Z", "value": 9.75}'"#;

#[tokio::test]
async fn a_row_that_a_program_finds_is_replaced_by_one_that_a_program_computes() {
    let world = World::new();
    let ran = world.run(&workflow(&world, FIND, REPAIR, "")).await;
    assert_eq!(ran.report.outcome, Some(Outcome::Succeeded), "{}", ran.said);
    assert_eq!(ran.report.step("find").unwrap().output["defective"], 1);
    assert_eq!(ran.report.step("check").unwrap().output["defective"], 0, "{}", ran.said);
    let row = world.seen().await.into_iter().find(|row| row["value"] == 9.75).unwrap();
    assert_eq!((&row["sensor"], &row["repaired_cells"]), (&json!("b"), &Value::Null));
    assert!(row["repaired_by"].as_str().unwrap().contains("command"), "{row}");
    assert_eq!(ran.report.usage.source_requests, 3, "two looks and one repair are calls");
    let asked: Value = serde_json::from_str(&std::fs::read_to_string(world.path().join("repair.json")).unwrap()).unwrap();
    assert_eq!((&asked["kind"], &asked["defect"]), (&json!("repair"), &json!("invalid")));
    assert_eq!(asked["wanted"], json!([{ "sensor": "b", "ts": "2024-03-04T09:00:00Z" }]));
    let around: Vec<&Value> = asked["rows"].as_array().unwrap().iter().map(|row| &row["ts"]).collect();
    assert_eq!(around, ["07", "08", "10", "11"].map(|hour| format!("2024-03-04T{hour}:00:00Z")).iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_cell_that_a_program_finds_is_changed_and_nothing_else() {
    let world = World::new();
    let ran = world.run(&workflow(&world, FIND, REPAIR, ", columns: [value]")).await;
    assert_eq!(ran.report.outcome, Some(Outcome::Succeeded), "{}", ran.said);
    assert_eq!((&ran.report.step("find").unwrap().output["cells"], ran.report.missing), (&json!(1), 0));
    let row = world.seen().await.into_iter().find(|row| row["value"] == 9.75).unwrap();
    assert!(row["repaired_cells"].as_str().unwrap().contains("value"), "{row}");
    let asked: Value = serde_json::from_str(&std::fs::read_to_string(world.path().join("repair.json")).unwrap()).unwrap();
    assert_eq!(asked["wanted"], json!([{ "sensor": "b", "ts": "2024-03-04T09:00:00Z", "$columns": ["value"] }]));
    assert_eq!(asked["rows"].as_array().unwrap().len(), 5, "the rest of the row is right, and is given");
}

#[tokio::test]
async fn a_repairer_keeps_to_what_it_was_asked_for() {
    for (rows, why) in [
        (r#"{"sensor": "b", "ts": "2024-03-04T10:00:00Z", "value": 1}"#, "a row of b at 2024-03-04T10:00:00Z, which was not requested"),
        (r#"{"sensor": "a", "ts": "2024-03-04T09:00:00Z", "value": 1}"#, "a row of a at 2024-03-04T09:00:00Z, which was not requested"),
        (r#"{"$covered": {"key": "b", "from": "2024-03-04T09:00:00Z", "to": "2024-03-04T10:00:00Z"}}"#, "for sources alone"),
    ] {
        let world = World::new();
        let ran = world.run(&workflow(&world, FIND, &format!("echo '{rows}'"), "")).await;
        assert_eq!((ran.report.outcome, ran.report.error), (Some(Outcome::Failed), Some(ErrorKind::Invalid)), "{}", ran.said);
        assert!(ran.said.contains(why), "{}", ran.said);
        assert_eq!(world.repaired().await, 0);
    }
}

#[tokio::test]
async fn a_detector_is_wrong_about_what_it_was_not_asked_or_says_nothing() {
    for (finds, why) in [
        (r#"echo '{"sensor": "b", "ts": "2024-03-05T09:00:00Z"}'"#, "it was asked about no such row"),
        (r#"echo '{"sensor": "a", "ts": "2024-03-04T05:00:00Z"}'"#, "it was asked about no such row"),
        (r#"echo '{"sensor": "c", "ts": "2024-03-04T09:00:00Z"}'"#, "it was asked about no such row"),
        (r#"echo '{"sensor": "b", "ts": "2024-03-04T09:00:00Z", "value": 3}'"#, "no such column"),
        ("exit 0", "answered with nothing"),
    ] {
        let world = World::new();
        let ran = world.run(&workflow(&world, finds, REPAIR, "")).await;
        assert_eq!(ran.report.outcome, Some(Outcome::Failed), "{finds}: {}", ran.said);
        assert!(ran.said.contains(why), "{finds}: {}", ran.said);
    }
}

#[tokio::test]
async fn a_budget_of_calls_counts_what_detectors_and_sensors_run() {
    let world = World::new();
    let budgeted = |calls: u32| format!("budget: {{ calls: {calls} }}\n{}", workflow(&world, FIND, REPAIR, ""));
    let ran = world.run(&budgeted(1)).await;
    assert_eq!(ran.report.outcome, Some(Outcome::OverBudget), "{}", ran.said);
    assert_eq!((ran.report.usage.source_requests, world.repaired().await), (1, 0));
    std::fs::remove_dir_all(world.path().join("lake/.repair")).ok();
    let ran = world.run(&budgeted(3)).await;
    assert_eq!((ran.report.outcome, ran.report.usage.source_requests), (Some(Outcome::Succeeded), 3), "{}", ran.said);
}

#[tokio::test]
async fn a_plan_asks_a_detector_first_whether_it_runs_a_program() {
    let world = World::new();
    for (plan, expected) in [(false, true), (true, false)] {
        let more = json!({ "table": "readings", "from": "2024-03-04", "to": "2024-03-04", "plan": plan });
        let Plugin::Detector(detector) = made(PluginKind::Detector, &with(&world, "touch ran; echo '{\"$rows\": 0}'", &more)) else {
            panic!("not a detector")
        };
        let asks = detector.asks(&within(&world)).await.unwrap();
        assert_eq!(asks.is_some(), expected);
        assert!(!world.path().join("ran").exists(), "to find out, it is not run");
    }
}

#[tokio::test]
async fn without_rows_a_program_reads_the_data_itself() {
    let world = World::new();
    let program = r#"cat > request.json; awk -F, '$3 > 122 && NR > 1 { printf "{\"sensor\": \"%s\", \"ts\": \"%s\"}\n", $1, $2 }' lake/readings/*.csv"#;
    let more = json!({ "table": "readings", "from": "2024-03-04", "to": "2024-03-04", "with_rows": false });
    let Plugin::Detector(detector) = made(PluginKind::Detector, &with(&world, program, &more)) else { panic!("not a detector") };
    let found = detector.detect(&within(&world), None).await.unwrap();
    assert_eq!((found.kind, found.counts.defective, found.counts.missing), (DefectKind::Invalid, 2, 4));
    assert!(!std::fs::read_to_string(world.path().join("request.json")).unwrap().contains("\"rows\""));
}
