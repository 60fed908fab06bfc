//! The commands, as a person or a program uses them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::path::{Path, PathBuf};

use common::{SYMBOLS, World, files};

#[test]
fn a_glitched_feed_is_repaired_verified_and_only_then_aggregated() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    let raw = std::fs::read(world.lake().join("bars/2024-03-04.csv")).unwrap();
    let (report, code) = world.run_json(&workflow, &["--run-id", "first"]);
    assert_eq!((code, &report["outcome"], &report["run"]), (0, &"succeeded".into(), &"first".into()));
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
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
    assert!(String::from_utf8_lossy(&past.stderr).contains("covers 1990-01-01 to 2026-12-31"));
}

/// The missing counts of the READMEs of the data, through the detector `gaps` alone, in YAML.
#[test]
fn missing_counts_are_those_of_the_data() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = root.join("../shared/data");
    if !data.is_dir() {
        eprintln!("SKIPPED: no real data at {}", data.display());
        return;
    }
    for (name, folder, expected, missing, keys) in [
        ("crypto-minute", "crypto-minute", 11_520, 1_833, 4),
        ("air-quality", "air-quality-hourly", 46_785, 46_785 - 42_362, 5),
        ("us-power", "us-power-hourly", 96_360, 4_484, 11),
        ("household-power", "household-power-minute", 43_200, 3_723, 1),
    ] {
        let world = World::new();
        let into: PathBuf = world.lake().join(folder);
        std::fs::create_dir_all(&into).unwrap();
        for entry in std::fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "csv") {
                std::fs::copy(&path, into.join(path.file_name().unwrap())).unwrap();
            }
        }
        let (report, code) = world.run_json(&root.join("examples/workflows").join(format!("{name}.yaml")), &[]);
        let output = &report["steps"]["find_gaps"]["output"];
        assert_eq!((code, &output["expected"], &output["missing"]), (0, &expected.into(), &missing.into()), "{name}: {report}");
        assert_eq!((&output["audited_keys"], &output["duplicates"]), (&keys.into(), &0.into()), "{name}");
    }
}
