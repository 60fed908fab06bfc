//! `repair prune`: what goes, and that everything that a person may ask about a run is answered as before.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::{World, files};

/// Everything that may be asked about the runs of a world.
fn answers(world: &World) -> BTreeMap<String, Value> {
    let archive = std::fs::read_to_string(world.lake().join("archive/2024-03-04.csv")).unwrap();
    let minute = archive.lines().nth(20).unwrap();
    let (key, at) = (minute.split(',').next().unwrap(), minute.split(',').nth(1).unwrap());
    let asked: [&[&str]; 7] = [
        &["runs"],
        &["show", "first"],
        &["show", "second"],
        &["why", "bars", "--key", key, "--at", at],
        &["accuracy", "bars"],
        &["costs"],
        &["gaps", "bars"],
    ];
    asked.into_iter().map(|arguments| (arguments.join(" "), world.json(arguments))).collect()
}

#[test]
fn what_old_runs_no_longer_need_goes_and_every_answer_stays() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    for run in ["first", "second", "third"] {
        world.run_json(&workflow, &["--run-id", run]);
    }
    let before = answers(&world);
    let overlay = files(&world.lake());
    let area = |run: &str| world.lake().join(".repair/runs").join(run);
    assert!(area("first").exists() && area("second").exists());
    // Runs that ended just now are not old.
    assert!(world.text(&["prune"]).contains("there is nothing to remove"));
    let shown = world.text(&["prune", "--older-than", "0s"]);
    assert!(shown.contains("first ") && shown.contains("second ") && !shown.contains("third "), "{shown}");
    assert!(shown.contains("nothing was removed; --yes removes it"), "{shown}");
    assert!(area("first").exists(), "a look removes nothing");
    let kept = world.json(&["prune", "--older-than", "0s", "--keep", "2"]);
    assert_eq!(kept["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect::<Vec<_>>(), ["first"]);
    let removed = world.json(&["prune", "--older-than", "0s", "--yes"]);
    assert_eq!(removed["runs"].as_array().unwrap().len(), 2);
    assert!(removed["bytes"].as_u64().unwrap() > 0);
    assert!(!area("first").exists() && !area("second").exists() && area("third").exists());
    assert_eq!(answers(&world), before);
    assert_eq!(files(&world.lake()), overlay, "repairs and tables are as they were");
    assert!(world.text(&["verify-state"]).contains("nothing is damaged"));
    assert!(world.text(&["prune", "--older-than", "0s", "--yes"]).contains("there is nothing to remove"));
    // What was repaired can still be taken back, and a new run finds it again.
    let undone = world.json(&["undo", "first"]);
    assert!(undone["tables"][0]["rows"].as_u64().unwrap() > 0);
    let (report, _) = world.run_json(&workflow, &["--run-id", "fourth"]);
    assert_eq!(report["missing"], before["show first"]["missing"], "{report}");
}

#[test]
fn a_run_that_goes_on_keeps_everything() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    world.run_json(&workflow, &["--run-id", "first"]);
    world.run_json(&workflow, &["--run-id", "second"]);
    let waits = world.workflow(&[("workflow: ", "workflow: other-"), ("start: ", "timeout: 1d\nstart: ")]);
    world.run_json(&waits, &["--run-id", "other"]);
    let found = world.json(&["prune", "--older-than", "0s"]);
    let runs: Vec<&str> = found["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
    assert_eq!(runs, ["first"], "the last run of each workflow stays");
}
