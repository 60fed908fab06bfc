//! Several workflows, and the commands about a table, share the definitions of one file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::PathBuf;

use crate::common::{WORKFLOW, World};
use serde_json::{Value, json};

const LAKE: &str = "\
tables:
  bars: { location: bars, format: csv, key: [symbol], time: ts, cadence: 1m }
  elsewhere: { location: not/there/yet, format: csv, time: ts }
sources:
  market: { source: stocks.archive, with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 30 } }
  closed: { source: stocks.archive, with: { location: not/there/either, format: csv } }
calendars:
  session: { extends: XNYS, closed: { file: closed.csv } }
";

/// The days of [`LAKE`] on which nothing trades.
const CLOSED: &str = "date,name\n2024-03-05,a storm\n";

/// The workflow of these tests, with its tables and sources in a file of their own.
fn including() -> String {
    let (before, rest) = WORKFLOW.split_once("tables:\n").unwrap();
    let (_, after) = rest.split_once("start:").unwrap();
    format!("{before}include: [lake.yaml]\nstart:{after}").replace("calendar: XNYS", "calendar: session")
}

/// A second workflow over the same table: it only fills by carrying forward.
const CARRY: &str = "\
workflow: carry
kind: state-machine
include: lake.yaml
start: look
steps:
  look:
    detect: stocks.minute-gaps
    with: { table: bars, calendar: XNYS, symbols: [AIG], from: 2024-03-04, to: 2024-03-04 }
    next: carry
  carry: { repair: stocks.carry-forward, of: look, end: true }
profiles:
  local: { lake: local, with: { root: ./lake } }
";

fn world() -> (World, PathBuf) {
    let world = World::new();
    world.write("lake.yaml", LAKE);
    world.write("closed.csv", CLOSED);
    let workflow = world.write("ticker.yaml", &including());
    (world, workflow)
}

/// A minute of AIG that the archive has, and the table lacks.
fn lost(world: &World) -> String {
    let times = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(world.lake().join(name).join("2024-03-04.csv")).unwrap();
        text.lines().filter(|row| row.starts_with("AIG,")).map(|row| row.split(',').nth(1).unwrap().to_owned()).collect()
    };
    let there = times("bars");
    times("archive").into_iter().find(|time| !there.contains(time)).unwrap()
}

#[test]
fn two_workflows_and_the_commands_about_a_table_share_one_file() {
    let (world, workflow) = world();
    let at = lost(&world);
    let why = |more: &[&str]| world.json(&[&["why", "bars", "--key", "AIG", "--at", &at][..], more].concat());
    // What another workflow is to write, and a source that is not asked, need not be there.
    let carry = world.write("carry.yaml", CARRY);
    let (report, code) = world.run_json(&carry, &["--run-id", "carried"]);
    assert_eq!(code, 0, "{report}");
    for file in ["lake.yaml", "carry.yaml", "ticker.yaml"] {
        let story = why(&["--workflow", file]);
        assert_eq!((&story["standing"], &story["repairs"][0]["run"]), (&json!("repaired"), &json!("carried")), "{file}: {story}");
    }
    assert_eq!(why(&[])["repairs"][0]["run"], "carried", "the run keeps what it included");
    let (_, err, code) = world.said(&["why", "bar", "--key", "AIG", "--at", &at, "--workflow", "lake.yaml"]);
    assert!(code == 2 && err.contains("lake.yaml declares no table `bar`; its tables are `bars`, `elsewhere`"), "{code} {err}");
    let accuracy = world.json(&["accuracy", "bars", "--workflow", "lake.yaml"]);
    assert!(accuracy["strategies"]["stocks.carry-forward"]["repaired"].as_u64().unwrap() > 0, "{accuracy}");

    let undo = world.json(&["undo", "carried"]);
    assert_eq!(why(&["--workflow", "lake.yaml"])["standing"], "missing");
    world.json(&["redo", undo["id"].as_str().unwrap()]);
    assert_eq!(why(&["--workflow", "lake.yaml"])["standing"], "repaired");
    world.json(&["undo", "carried"]);
    let slot = ["--key", "AIG", "--from", "2024-03-04T14:30:00Z", "--to", "2024-03-04T21:00:00Z", "--reason", "a test"];
    world.json(&[&["except", "bars", "--workflow", "lake.yaml"][..], &slot].concat());
    assert_eq!(why(&[])["standing"], "absent");
    world.json(&[&["except", "bars", "--remove", "--workflow", "lake.yaml"][..], &slot].concat());

    let (report, code) = world.run_json(&workflow, &["--run-id", "ticked"]);
    assert_eq!((code, &report["outcome"]), (0, &json!("succeeded")), "{report}");
    assert_eq!(
        why(&["--workflow", "lake.yaml"])["repairs"].as_array().unwrap().iter().filter(|repair| repair["run"] == "ticked").count(),
        1
    );
}

#[test]
fn a_shared_file_is_validated_by_itself_and_with_what_includes_it() {
    let (world, _) = world();
    let text = world.text(&["validate", "lake.yaml"]);
    assert_eq!(
        text,
        "lake.yaml: definitions to include, with 2 tables (`bars`, `elsewhere`), 2 sources (`closed`, `market`) and 1 calendar (`session`), have \
         no mistakes\n"
    );
    let object = world.json(&["validate", "lake.yaml"]);
    assert_eq!((&object["tables"], &object["sources"]), (&json!(["bars", "elsewhere"]), &json!(["closed", "market"])));
    assert_eq!(object["calendars"], json!(["session"]));
    world.write("lake.yaml", &LAKE.replace("location: bars,", "locaton: bars,"));
    for file in ["lake.yaml", "ticker.yaml"] {
        let (out, err, code) = world.said(&["validate", file, "--json"]);
        let error: Value = serde_json::from_str(&out).unwrap();
        let mistakes = error["error"]["mistakes"].as_array().unwrap();
        assert_eq!((code, mistakes.len()), (2, 2), "{out}{err}");
        let of_lake = |mistake: &Value| mistake["file"] == "lake.yaml" && mistake["line"] == 2;
        assert!(mistakes.iter().all(of_lake), "{file}: {out}");
    }
    let (_, err, code) = world.said(&["run", "lake.yaml"]);
    assert!(code == 2 && err.contains("holds definitions to share, and no workflow"), "{code} {err}");
}

#[test]
fn a_run_goes_on_with_what_it_included_and_a_plan_notices_that_it_changed() {
    let (world, workflow) = world();
    let (archive, away) = (world.lake().join("archive"), world.lake().join("away"));
    let (_, err, code) = world.said(&["plan", workflow.to_str().unwrap(), "-o", "plan.json"]);
    assert_eq!(code, 0, "{err}");
    let moved = LAKE.replace("location: bars,", "location: bars_of_old,");
    world.write("lake.yaml", &moved);
    let (_, err, code) = world.said(&["apply", "plan.json"]);
    assert!(code != 0 && err.contains("table `bars` has changed") && err.contains("nothing was begun"), "{code} {err}");
    // A comment means nothing. A file of days is part of the calendar that names it.
    world.write("lake.yaml", &format!("# All tables of the lake.\n{LAKE}"));
    world.write("closed.csv", "date\n2024-03-06\n");
    let (_, err, code) = world.said(&["apply", "plan.json"]);
    assert!(code != 0 && err.contains("calendar `session` has changed") && err.contains("nothing was begun"), "{code} {err}");
    world.write("closed.csv", CLOSED);

    std::fs::rename(&archive, &away).unwrap();
    let (_, _, code) = world.said(&["run", workflow.to_str().unwrap(), "--run-id", "one"]);
    assert_eq!(code, 1);
    std::fs::rename(&away, &archive).unwrap();
    // The file changes, and then goes. A new definition would be another table, which is refused; the run's own is as it was.
    world.write("lake.yaml", &moved);
    let (_, err, code) = world.said(&["redrive", "one", "--with", workflow.to_str().unwrap()]);
    assert!(code == 2 && err.contains("table `bars` has changed, and the run has used it"), "{code} {err}");
    world.write("lake.yaml", LAKE);
    world.write("closed.csv", "date\n2024-03-04\n");
    let (_, err, code) = world.said(&["redrive", "one", "--with", workflow.to_str().unwrap()]);
    assert!(code == 2 && err.contains("calendar `session` has changed, and the run has used it"), "{code} {err}");
    for file in ["lake.yaml", "closed.csv"] {
        std::fs::remove_file(world.lake().parent().unwrap().join(file)).unwrap();
    }
    let (out, err, code) = world.said(&["redrive", "one", "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["steps"]["fill"]["output"]["repaired"], world.dropped);
}
