//! What programs rely on: exit codes, and JSON from every command, errors included.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{WORKFLOW, World};
use serde_json::Value;

fn said(world: &World, args: &[&str]) -> (String, String, i32) {
    let output = world.repair().args(args).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

/// The one JSON object that a command prints, and its exit code.
fn object(world: &World, args: &[&str]) -> (Value, i32) {
    let (out, err, code) = said(world, args);
    let object: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}\n{out}{err}"));
    assert!(object.is_object(), "{args:?}: {object}");
    assert_eq!(object["format"], 1, "{args:?}: {object}");
    (object, code)
}

/// A workflow whose strategy reaches only one minute, so that slots stay missing.
fn incomplete(world: &World) -> String {
    let short = [("repair: stocks.backfill", "repair: carry-forward"), ("with: { source: market }", "with: { max_age: 1m }")];
    world.workflow(&short).to_str().unwrap().to_owned()
}

#[test]
fn every_command_prints_an_object_with_a_format() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    let file = workflow.to_str().unwrap();
    // A calendar without an end: the hours of an exchange are known for some years only.
    let always = world.write("always.yaml", &WORKFLOW.replace("calendar: XNYS", "calendar: 24x7"));
    let always = always.to_str().unwrap();
    let at = "2024-03-04T15:00:00Z";
    let slot = ["--key", "AIG", "--from", "2024-03-04T22:00:00Z", "--to", "2024-03-04T22:01:00Z", "--reason", "the market was closed"];
    for args in [
        &["validate", file][..],
        &["graph", file],
        &["schema"],
        &["calendar", "XNYS", "--from", "2024-03-04", "--to", "2024-03-05"],
        &["calendar"],
        &["plan", file, "-o", "plan.json"],
        &["apply", "plan.json"],
        &["run", file, "--run-id", "first"],
        &["runs"],
        &["show", "first"],
        &["resume", "first"],
        &["why", "bars", "--key", "AIG", "--at", at],
        &["accuracy", "bars"],
        &["gaps", "first"],
        &["export", "bars", "--out", "bars.csv"],
        &["query", "SELECT count(*) AS n FROM bars_repaired", "--workflow", file],
        &["view", "bars", "--for", "duckdb"],
        &["costs"],
        &["doctor", always],
        &["compare", file, "--strategies", "carry-forward", "--mask", "1%"],
        &[&["except", "bars"][..], &slot].concat(),
        &[&["except", "bars", "--remove"][..], &slot].concat(),
    ] {
        let (_, code) = object(&world, &[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}");
    }
    let (plan, _) = object(&world, &["runs", "--json"]);
    let id = plan["runs"].as_array().unwrap().last().unwrap()["run"].as_str().unwrap().to_owned();
    let (undone, _) = object(&world, &["undo", &id, "--json"]);
    object(&world, &["redo", undone["id"].as_str().unwrap(), "--json"]);
}

#[test]
fn errors_are_objects_too_and_exit_as_before() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    let file = workflow.to_str().unwrap();
    for args in [
        &["run", "nowhere.yaml"][..],
        &["run", file, "--profile", "moon"],
        &["run", file, "--param", "no=such"],
        &["runs"],
        &["show", "nobody"],
        &["resume", "nobody"],
        &["cancel", "nobody"],
        &["pause", "nobody"],
        &["signal", "nobody", "landed"],
        &["approve", "nobody"],
        &["reject", "nobody"],
        &["apply", "nowhere.json"],
        &["why", "bars", "--at", "2024-03-04T15:00:00Z"],
        &["calendar", "XNYC", "--from", "2024-03-04", "--to", "2024-03-05"],
        &["costs", "--since", "yesterday"],
        // What the command line parser refuses.
        &["run"],
        &["show", "first", "--no-such-option"],
    ] {
        let (_, err, code) = said(&world, args);
        let (error, json_code) = object(&world, &[args, &["--json"]].concat());
        assert_eq!((code, json_code), (2, 2), "{args:?}");
        let error = &error["error"];
        for name in ["kind", "message"] {
            assert!(!error[name].as_str().unwrap().is_empty(), "{args:?}: {error}");
        }
        assert!(error["context"].is_object() && error.get("hint").is_some(), "{args:?}: {error}");
        assert!(!err.is_empty(), "{args:?}");
    }
    let (error, _) = object(&world, &["runs", "--json"]);
    assert_eq!((&error["error"]["kind"], &error["error"]["hint"]), (&"not-found".into(), &"name another lake with --lake DIR".into()));
}

#[test]
fn mistakes_of_a_workflow_are_a_list_with_places() {
    let world = World::new();
    let workflow = world.workflow(&[("goto: settle }\n  settle", "goto: setle }\n  settle"), ("symbols: [AIG", "symbol: [AIG")]);
    for command in ["validate", "run", "plan", "graph"] {
        let (error, code) = object(&world, &[command, workflow.to_str().unwrap(), "--json"]);
        assert_eq!(code, 2);
        let mistakes = error["error"]["mistakes"].as_array().unwrap();
        assert!(mistakes.len() >= 2, "{error}");
        let goto = mistakes.iter().find(|mistake| mistake["message"].as_str().unwrap().contains("setle")).unwrap();
        assert_eq!((&goto["line"], goto["file"].as_str().unwrap().ends_with("workflow.yaml")), (&14.into(), true), "{error}");
        assert!(goto["column"].as_u64().unwrap() > 0 && goto["help"].as_str().unwrap().contains("settle"), "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("has mistakes") && message.lines().count() == 1, "{error}");
    }
}

#[test]
fn outcomes_have_one_spelling() {
    let world = World::new();
    let file = incomplete(&world);
    let (run, code) = object(&world, &["run", &file, "--run-id", "first", "--json"]);
    assert_eq!((code, &run["outcome"]), (0, &"succeeded-with-exceptions".into()), "{run}");
    assert_eq!(object(&world, &["runs", "--json"]).0["runs"][0]["outcome"], run["outcome"]);
    assert_eq!(object(&world, &["show", "first", "--json"]).0, run);
    assert!(said(&world, &["runs"]).0.contains("succeeded-with-exceptions"));
    assert!(said(&world, &["show", "first", "--events"]).0.contains("\"succeeded-with-exceptions\""));
}

#[test]
fn a_run_that_leaves_slots_missing_says_so_in_its_last_line() {
    let world = World::new();
    let file = incomplete(&world);
    let (out, err, code) = said(&world, &["run", &file, "--run-id", "first"]);
    assert_eq!(code, 0, "{out}{err}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("run first succeeded-with-exceptions") && last.contains("missing"), "{out}");
    let missing = object(&world, &["show", "first", "--json"]).0["missing"].as_u64().unwrap();
    assert!(missing > 0 && last.contains(&missing.to_string()), "{missing}: {last}");

    // It is so for a run that fails, too.
    let text = std::fs::read_to_string(&file).unwrap();
    let (from, to) = (text.find("  fill:\n").unwrap(), text.find("  hourly:\n").unwrap());
    let failing = world.write("failing.yaml", &format!("{}  fill: {{ fail: not today }}\n{}", &text[..from], &text[to..]));
    let (out, err, code) = said(&world, &["run", failing.to_str().unwrap(), "--run-id", "second"]);
    assert_eq!(code, 1, "{out}{err}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("run second failed; ") && last.ends_with("are still missing or wrong"), "{out}");

    // And a complete run does not.
    let world = World::new();
    let (out, _, _) = said(&world, &["run", world.workflow(&[]).to_str().unwrap(), "--run-id", "third"]);
    assert_eq!(out.lines().last(), Some("run third succeeded"));
}

#[test]
fn fail_on_makes_exceptions_or_problems_an_exit_code() {
    let world = World::new();
    let file = incomplete(&world);
    assert_eq!(said(&world, &["run", &file, "--fail-on", "exceptions"]).2, 8);
    assert_eq!(said(&world, &["run", &file, "--fail-on", "problems"]).2, 8);
    assert_eq!(said(&world, &["run", &file]).2, 0);

    let world = World::new();
    let file = world.workflow(&[]).to_str().unwrap().to_owned();
    assert_eq!(said(&world, &["run", &file, "--fail-on", "problems"]).2, 0);
    // A duplicate is a problem, and no exception.
    let bars = world.lake().join("bars/2024-03-04.csv");
    let text = std::fs::read_to_string(&bars).unwrap();
    std::fs::write(&bars, format!("{text}{}\n", text.lines().nth(5).unwrap())).unwrap();
    assert_eq!(said(&world, &["run", &file, "--fail-on", "exceptions"]).2, 0);
    let (report, code) = object(&world, &["run", &file, "--fail-on", "problems", "--json"]);
    assert_eq!((code, &report["outcome"]), (8, &"succeeded".into()), "{report}");
    assert_eq!(said(&world, &["run", &file, "--fail-on", "anything"]).2, 2);
}

#[test]
fn a_detailed_exit_code_says_whether_there_is_something_to_do() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    let file = workflow.to_str().unwrap();
    assert_eq!(said(&world, &["plan", file, "-o", "plan.json"]).2, 0);
    assert_eq!(said(&world, &["plan", file, "--detailed-exitcode"]).2, 10);
    assert_eq!(said(&world, &["plan", "nowhere.yaml", "--detailed-exitcode"]).2, 2);
    assert_eq!(said(&world, &["apply", "plan.json"]).2, 0);
    assert_eq!(said(&world, &["plan", file, "--detailed-exitcode"]).2, 0);
    // The plan says what was missing before, and now nothing is.
    assert_eq!(said(&world, &["apply", "plan.json", "--run-id", "another"]).2, 6);
    let (error, code) = object(&world, &["apply", "plan.json", "--run-id", "another", "--json"]);
    assert_eq!((code, &error["error"]["kind"]), (6, &"conflict".into()), "{error}");
}

/// A run that waits for long, in a process of its own.
struct Waiting(Child);

impl Waiting {
    fn new(world: &World) -> Self {
        let workflow = world.workflow(&[("wait: { for: 10ms }", "wait: { for: 10m }")]);
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("repair"));
        command.arg("run").arg(workflow).args(["--run-id", "one"]).current_dir(world.lake().parent().unwrap()).env_remove("REPAIR_LAKE");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !said(world, &["show", "one", "--events"]).0.contains("timer-set") {
            assert!(began.elapsed() < Duration::from_secs(60), "the run does not get to its wait");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self(child)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_that_another_process_drives_has_a_code_of_its_own() {
    let world = World::new();
    let mut driver = Waiting::new(&world);
    for command in ["resume", "redrive"] {
        let (_, err, code) = said(&world, &[command, "one"]);
        assert!(code == 7 && err.contains("repair pause one"), "{command}: {code} {err}");
        let (error, code) = object(&world, &[command, "one", "--json"]);
        assert_eq!((code, &error["error"]["kind"]), (7, &"conflict".into()), "{error}");
    }
    let (asked, code) = object(&world, &["pause", "one", "--json"]);
    assert_eq!((code, &asked["signal"], &asked["stopped"]), (0, &"pause".into(), &false.into()), "{asked}");
    assert_eq!(driver.0.wait().unwrap().code(), Some(4));
    let (runs, _) = object(&world, &["runs", "--json"]);
    assert_eq!((&runs["runs"][0]["outcome"], &runs["runs"][0]["paused"]), (&Value::Null, &true.into()), "{runs}");
    let (cancelled, code) = object(&world, &["cancel", "one", "--json"]);
    assert_eq!((code, &cancelled["stopped"], &cancelled["outcome"]), (0, &true.into(), &"cancelled".into()), "{cancelled}");
    // It has ended, which is another conflict.
    assert_eq!(object(&world, &["cancel", "one", "--json"]).1, 2);
}

/// The table of the documentation has the codes of the program, and no others.
#[test]
fn the_documentation_lists_the_codes() {
    let table = include_str!("../../../docs/exit-codes.md");
    let source = include_str!("../../src/exit.rs");
    let mut documented: Vec<u8> = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    let mut known: Vec<u8> = source.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = ")?.1.parse().ok()).collect();
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(documented, known);
    assert_eq!(known, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]);
}
