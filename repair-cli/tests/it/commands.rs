//! The commands, as a person or a program uses them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{SYMBOLS, World, files};
use serde_json::json;

#[test]
fn a_glitched_feed_is_repaired_verified_and_only_then_aggregated() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    let raw = std::fs::read(world.lake().join("bars/2024-03-04.csv")).unwrap();
    let (report, code) = world.run_json(&workflow, &["--run-id", "first"]);
    assert_eq!((code, &report["outcome"], &report["run"]), (0, &"succeeded".into(), &"first".into()));
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 7, "{keys:?}");
    let steps = &report["steps"];
    let found = &steps["find_gaps"]["output"];
    let missing = world.dropped + world.quiet;
    for (name, count) in [
        ("expected", 390 * 3),
        ("missing", missing),
        ("present", 390 * 3 - missing),
        ("absent", 0),
        ("duplicates", 0),
        ("audited_keys", SYMBOLS.len()),
    ] {
        assert_eq!(found[name], count, "{name}");
    }
    assert_eq!(steps["fill"]["output"]["repaired"], world.dropped);
    assert_eq!(steps["fill"]["output"]["absent"], world.quiet);
    assert_eq!(steps["check"]["output"]["missing"], 0);
    assert_eq!(steps["settle"]["visits"], 1);
    assert_eq!(steps["hourly"]["output"]["incomplete"], 0);
    assert!(report["usage"]["source_requests"].as_u64().unwrap() > 0);
    assert_eq!(std::fs::read(world.lake().join("bars/2024-03-04.csv")).unwrap(), raw, "raw data is never touched");

    // The second run finds nothing to do, and asks nobody.
    let before = files(&world.lake());
    let (again, code) = world.run_json(&workflow, &["--run-id", "second"]);
    assert_eq!(code, 0);
    assert_eq!(again["steps"]["find_gaps"]["output"]["missing"], 0);
    assert_eq!(again["steps"]["find_gaps"]["output"]["absent"], world.quiet);
    assert_eq!(again["usage"]["source_requests"], 0);
    assert!(again["steps"].get("fill").is_none());
    assert_eq!(files(&world.lake()), before, "the hourly table comes out the same, byte for byte");

    // To start a run that has ended is to be told what it did; with other input it is an error.
    let (told, _) = world.run_json(&workflow, &["--run-id", "first"]);
    assert_eq!(told, report);
    let other = world.workflow(&[("concurrency: 2", "concurrency: 3")]);
    let refused = world.repair().arg("run").arg(&other).args(["--run-id", "first"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("other input"));
}

#[test]
fn runs_and_show_tell_what_happened() {
    let world = World::new();
    world.run_json(&world.workflow(&[]), &["--run-id", "first"]);
    let runs = world.repair().arg("runs").output().unwrap();
    let text = String::from_utf8(runs.stdout).unwrap();
    assert!(text.contains("first") && text.contains("ticker") && text.contains("succeeded"), "{text}");
    let show = String::from_utf8(world.repair().args(["show", "first"]).output().unwrap().stdout).unwrap();
    for word in ["find_gaps", "hourly", "usage:", "run first succeeded"] {
        assert!(show.contains(word), "{show}");
    }
    let events = String::from_utf8(world.repair().args(["show", "first", "--events"]).output().unwrap().stdout).unwrap();
    assert!(events.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(events.lines().last().unwrap().contains("run-ended"));
    let nobody = world.repair().args(["show", "nobody"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no run `nobody`"));
}

#[test]
fn graphs_and_schema_are_printed() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    let mermaid = String::from_utf8(world.repair().arg("graph").arg(&workflow).output().unwrap().stdout).unwrap();
    assert!(mermaid.contains("find_gaps") && mermaid.contains("-->"), "{mermaid}");
    let dot = String::from_utf8(world.repair().arg("graph").arg(&workflow).args(["--format", "dot"]).output().unwrap().stdout).unwrap();
    assert!(dot.starts_with("digraph") && dot.contains("->"), "{dot}");
    let schema = world.repair().arg("schema").output().unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&schema.stdout).unwrap().is_object());
}

#[test]
fn calendars_are_listed_in_utc() {
    let world = World::new();
    let listed = world.repair().args(["calendar", "XNYS", "--from", "2013-11-28", "--to", "2013-12-02", "--csv"]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(
        text,
        "date,open,close,breaks\n\
         2013-11-29,2013-11-29T14:30:00Z,2013-11-29T18:00:00Z,\n\
         2013-12-02,2013-12-02T14:30:00Z,2013-12-02T21:00:00Z,\n"
    );
    let past = world.repair().args(["calendar", "XNYS", "--from", "2030-01-01", "--to", "2030-01-02"]).output().unwrap();
    assert_eq!(past.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&past.stderr).contains("covers 1990-01-01 to 2028-12-31"));
}

#[test]
fn what_calendars_cover_is_shown_with_those_of_a_file() {
    let world = World::new();
    let office = "calendars:\n  office: { zone: Europe/Berlin, open: { mon-fri: \"09:00-17:00\" }, closed: { file: closed.csv } }\n  tokyo: { extends: \
                  XTKS, until: 2028-12-31 }\n";
    world.write("lake.yaml", office);
    world.write("closed.csv", "date\n2024-03-05\n");
    let workflow = "workflow: w\nkind: dag\ninclude: [lake.yaml]\nsteps:\n  rest: { wait: { for: 1s } }\n";
    world.write("including.yaml", workflow);
    let all = world.text(&["calendar", "--workflow", "lake.yaml", "--csv"]);
    for line in [
        "calendar,zone,first_day,last_day,first_hours,last_hours",
        "24x7,UTC,,,,",
        "XTKS,Asia/Tokyo,1997-01-01,2027-12-31,2011-11-21,2027-12-31",
        "office,Europe/Berlin,,,,",
        "tokyo,Asia/Tokyo,1997-01-01,2028-12-31,2011-11-21,2028-12-31",
    ] {
        assert!(all.lines().any(|there| there == line), "{line}: {all}");
    }
    assert_eq!(all.lines().count(), 1 + 24 + 2);
    let tokyo = world.json(&["calendar", "tokyo", "--workflow", "including.yaml"]);
    let covered = |from: &str| json!({ "from": from, "to": "2028-12-31" });
    let expected = json!({ "calendar": "tokyo", "zone": "Asia/Tokyo", "days": covered("1997-01-01"), "hours": covered("2011-11-21") });
    assert_eq!(tokyo["calendars"], json!([expected]));
    for file in ["lake.yaml", "including.yaml"] {
        let sessions = world.text(&["calendar", "office", "--workflow", file, "--from", "2024-03-04", "--to", "2024-03-06", "--csv"]);
        let expected = "date,open,close,breaks\n2024-03-04,2024-03-04T08:00:00Z,2024-03-04T16:00:00Z,\n\
                        2024-03-06,2024-03-06T08:00:00Z,2024-03-06T16:00:00Z,\n";
        assert_eq!(sessions, expected, "{file}");
    }
    let (_, err, code) = world.said(&["calendar", "office"]);
    assert!(code == 2 && err.contains("there is no calendar `office`") && err.contains("name its file with --workflow"), "{code} {err}");
    let (_, err, code) = world.said(&["calendar", "XTKS", "--from", "2005-05-02", "--to", "2005-05-06"]);
    assert!(code == 3 && err.contains("knows the hours of its sessions from 2011-11-21 on"), "{code} {err}");
}

/// The missing counts of the READMEs of the data, through the detector `gaps` alone, in YAML.
#[test]
fn missing_counts_are_those_of_the_data() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, folder, expected, missing, keys) in [
        ("crypto-minute", "crypto-minute", 11_520, 1_833, 4),
        ("air-quality", "air-quality-hourly", 46_785, 46_785 - 42_362, 5),
        ("us-power", "us-power-hourly", 96_360, 4_484, 11),
        ("household-power", "household-power-minute", 43_200, 3_723, 1),
    ] {
        let world = World::new();
        testdata::unpack_into(folder, &world.lake().join(folder));
        let (report, code) = world.run_json(&root.join("examples/workflows").join(format!("{name}.yaml")), &[]);
        let output = &report["steps"]["find_gaps"]["output"];
        assert_eq!((code, &output["expected"], &output["missing"]), (0, &expected.into(), &missing.into()), "{name}: {report}");
        assert_eq!((&output["audited_keys"], &output["duplicates"]), (&keys.into(), &0.into()), "{name}");
    }
}

/// A run in a process of its own, which waits for more data than there is.
fn waiting(world: &World, workflow: &Path) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("repair"));
    command.current_dir(workflow.parent().unwrap()).env_remove("REPAIR_LAKE").stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.arg("run").arg(workflow).args(["--run-id", "one"]).spawn().unwrap();
    testdata::wait_until("the wait", || world.said(&["show", "one", "--events"]).0.contains(r#""step":"settle""#));
    child
}

/// Instead of 10 ms, it waits until few bars are missing.
const WAITS: (&str, &str) = (
    "settle: { wait: { for: 10ms }, next: fill }",
    "settle:\n    wait:\n      until:\n        sensor: gaps\n        with: { table: bars, calendar: XNYS, keys: [AIG, BAC, SPY], from: 2024-03-04, to: \
     2024-03-04 }\n        when: $output.missing < 100\n        every: 100ms\n    next: fill",
);

#[test]
fn a_run_that_failed_is_taken_up_where_it_failed_and_its_failure_is_told_once() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    let (archive, away) = (world.lake().join("archive"), world.lake().join("away"));
    std::fs::rename(&archive, &away).unwrap();
    let (out, err, code) = world.said(&["run", workflow.to_str().unwrap(), "--run-id", "one"]);
    assert_eq!(code, 1, "{out}{err}");
    let why = "there is no archive at the source's `location`, `archive`";
    assert_eq!((err.matches(why).count(), out.matches(why).count()), (1, 1), "once as it happens, once at the end:\n{err}\n{out}");
    assert!(out.contains("problem: fill: not-found: ") && err.ends_with("\nfailed\n"), "{err}\n{out}");
    assert!(out.contains("until 20") && !out.contains("entered_at"), "{out}");

    std::fs::rename(&away, &archive).unwrap();
    let (_, err, code) = world.said(&["resume", "one"]);
    assert_ne!(code, 0, "a run that has ended is not resumed: {err}");
    let (out, err, code) = world.said(&["redrive", "one", "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["steps"]["find_gaps"]["visits"], 1, "what succeeded is not done again");
    assert_eq!(report["steps"]["fill"]["output"]["repaired"], world.dropped);
    let (_, err, code) = world.said(&["redrive", "one"]);
    assert!(code == 2 && err.contains("succeeded"), "{code} {err}");
}

#[test]
fn a_run_that_is_paused_goes_on_with_a_mended_workflow() {
    let world = World::new();
    let mut child = waiting(&world, &world.workflow(&[WAITS]));
    let (out, err, code) = world.said(&["pause", "one"]);
    assert!(code == 0 && out.contains("was asked to pause"), "{out}{err}");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(world.said(&["runs"]).0.contains("paused"));

    // Meanwhile the vendor moves its files; where a source is may change, what was looked for may not.
    std::fs::rename(world.lake().join("archive"), world.lake().join("elsewhere")).unwrap();
    std::fs::copy(world.lake().join("elsewhere/2024-03-04.csv"), world.lake().join("bars/2024-03-04.csv")).unwrap();
    let other = world.workflow(&[WAITS, ("symbols: [AIG, BAC, SPY]", "symbols: [AIG, BAC]")]);
    let (_, err, code) = world.said(&["resume", "one", "--with", other.to_str().unwrap()]);
    assert!(code == 2 && err.contains("the `with` of step `find_gaps` has changed"), "{code} {err}");
    let mended = world.workflow(&[WAITS, ("location: archive", "location: elsewhere")]);
    let (out, err, code) = world.said(&["resume", "one", "--with", mended.to_str().unwrap(), "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["outcome"], &report["steps"]["find_gaps"]["visits"]), (&"succeeded".into(), &1.into()), "{report}");
    assert!(err.contains("continues with the corrected definition"), "{err}");
}

#[test]
fn a_run_that_is_paused_goes_on_with_the_files_it_included_as_they_were() {
    let world = World::new();
    let workflow = world.workflow(&[WAITS]);
    let text = std::fs::read_to_string(&workflow).unwrap();
    let (before, rest) = text.split_once("tables:\n").unwrap();
    let (shared, after) = rest.split_once("start:").unwrap();
    let lake = world.write("lake.yaml", &format!("tables:\n{shared}"));
    let workflow = world.write("workflow.yaml", &format!("{before}include: [lake.yaml]\nstart:{after}"));
    let mut child = waiting(&world, &workflow);
    world.text(&["pause", "one"]);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    // The sensor sees the rows; the shared file now says that the table is elsewhere.
    std::fs::copy(world.lake().join("archive/2024-03-04.csv"), world.lake().join("bars/2024-03-04.csv")).unwrap();
    std::fs::write(lake, format!("tables:\n{shared}").replace("location: bars", "location: nowhere")).unwrap();
    let (_, err, code) = world.said(&["resume", "one", "--with", workflow.to_str().unwrap()]);
    assert!(code == 2 && err.contains("table `bars` has changed"), "{code} {err}");
    let report = world.json(&["resume", "one"]);
    assert_eq!((&report["outcome"], &report["steps"]["find_gaps"]["visits"]), (&"succeeded".into(), &1.into()), "{report}");
}

#[test]
fn a_run_is_cancelled_by_its_process_or_without_one() {
    let world = World::new();
    let workflow = world.workflow(&[WAITS]);
    let mut child = waiting(&world, &workflow);
    let (out, err, code) = world.said(&["cancel", "one"]);
    assert!(code == 0 && out.contains("was asked to cancel"), "{out}{err}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let (_, err, code) = world.said(&["cancel", "one"]);
    assert!(code == 2 && err.contains("has already ended: cancelled"), "{code} {err}");

    // A run that is paused has no process: it is cancelled at once.
    let world = World::new();
    let mut child = waiting(&world, &world.workflow(&[WAITS]));
    world.said(&["pause", "one"]);
    child.wait().unwrap();
    let (out, err, code) = world.said(&["cancel", "one"]);
    assert!(code == 0 && out.contains("run one is cancelled"), "{out}{err}");
}

#[test]
fn the_workflow_of_the_readme_runs() {
    let world = World::new();
    let readme = include_str!("../../../README.md");
    let workflow = world.write("readme.yaml", readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap());
    std::fs::create_dir(world.lake().join("readings")).unwrap();
    let rows = ["benzene", "co", "no2"].into_iter().flat_map(|sensor| {
        let hours = (4..=5).flat_map(|day| (0..24).map(move |hour| (day, hour))).filter(move |at| sensor != "co" || *at != (4, 7));
        hours.map(move |(day, hour)| format!("{sensor},2024-03-0{day}T{hour:02}:00:00Z,{hour}\n"))
    });
    std::fs::write(world.lake().join("readings/a.csv"), format!("sensor,ts,value\n{}", rows.collect::<String>())).unwrap();
    for (run, missing) in [("first", 1), ("second", 0)] {
        let (report, code) = world.run_json(&workflow, &["--run-id", run]);
        let steps = &report["steps"];
        assert_eq!((code, &steps["find_gaps"]["output"]["missing"], &steps["daily"]["output"]["rows"]), (0, &missing.into(), &6.into()));
    }
}

#[test]
fn a_lake_is_named_before_or_after_the_command_or_by_the_environment() {
    let world = World::new();
    let workflow = world.workflow(&[("profiles:\n  local: { lake: local, with: { root: ./lake } }\n", "")]);
    let file = workflow.to_str().unwrap();
    std::fs::rename(world.lake(), world.lake().with_file_name("tank")).unwrap();
    assert_eq!(world.said(&["run", file, "--lake", "tank", "--run-id", "after"]).2, 0);
    assert_eq!(world.said(&["--lake", "tank", "run", file, "--run-id", "before"]).2, 0);
    let runs = world.repair().env("REPAIR_LAKE", "tank").arg("runs").output().unwrap();
    assert_eq!(String::from_utf8(runs.stdout).unwrap().lines().count(), 3);
    let elsewhere = world.repair().env("REPAIR_LAKE", "nowhere").args(["runs", "--lake", "tank"]).output().unwrap();
    assert!(elsewhere.status.success(), "what is written wins over the environment");
    for (command, works_on_one) in [("run", true), ("resume", true), ("pause", true), ("runs", true), ("show", true)]
        .into_iter()
        .chain(["validate", "graph", "schema", "calendar"].map(|command| (command, false)))
    {
        assert_eq!(world.said(&[command, "--help"]).0.contains("--lake"), works_on_one, "{command}");
    }
    let (_, err, code) = world.said(&["--lake", "tank", "schema"]);
    assert!(code == 2 && err.contains("leave out --lake"), "{code} {err}");
}

/// Each step that failed says why, and each failure is one problem.
#[test]
fn a_failed_step_has_its_error_and_is_one_problem() {
    let world = World::new();
    let text = "workflow: w\nkind: dag\nprofiles: { local: { lake: local, with: { root: lake } } }\nsteps:\n  a: { task: command, with: { run: [\"false\"], answer: \
                text } }\n  b: { task: command, with: { run: [\"true\"], answer: text }, after: a, run_if: all_done }\n  c: { task: command, with: { run: [\"false\"], \
                answer: text }, after: b }\n  d: { task: command, with: { run: [\"true\"], answer: text }, after: c }\n";
    let file = world.write("w.yaml", text);
    let (report, code) = world.run_json(&file, &[]);
    assert_eq!((code, &report["outcome"]), (2, &"failed".into()), "{report:#}");
    let steps = &report["steps"];
    for failed in ["a", "c"] {
        assert_eq!(steps[failed]["error"]["kind"], "invalid", "{report:#}");
        assert!(steps[failed]["error"]["message"].as_str().unwrap().contains("false"), "{report:#}");
        let problems =
            report["problems"].as_array().unwrap().iter().filter(|line| line.as_str().unwrap().starts_with(&format!("{failed}: ")));
        assert_eq!(problems.count(), 1, "{report:#}");
    }
    assert_eq!((steps["b"].get("error"), steps["d"].get("error")), (None, None), "{report:#}");
    assert!(steps["d"]["skipped"].is_string());

    // In a state machine, an error that was caught is the step's, and a `fail` step has its own.
    let text = "workflow: w\nkind: state-machine\nprofiles: { local: { lake: local, with: { root: lake } } }\nstart: a\nsteps:\n  a: { task: command, with: { run: \
                [\"false\"], answer: text }, catch: [{ on: [invalid], goto: z }], next: z }\n  z: { fail: no more }\n";
    let file = world.write("w.yaml", text);
    let (report, _) = world.run_json(&file, &[]);
    assert_eq!(report["steps"]["a"]["error"]["kind"], "invalid", "{report:#}");
    assert!(report["steps"]["z"]["error"]["message"].as_str().unwrap().contains("no more"), "{report:#}");
}
