//! `repair compact`: objects become few, and everything that a person may ask about a table is answered as before.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::common::{World, files, seen};

/// Everything that may be asked about the table of a world.
async fn answers(world: &World) -> BTreeMap<String, Value> {
    let archive = std::fs::read_to_string(world.lake().join("archive/2024-03-04.csv")).unwrap();
    let mut all = BTreeMap::new();
    for line in archive.lines().skip(1).step_by(150) {
        let mut cells = line.split(',');
        let (key, at) = (cells.next().unwrap(), cells.next().unwrap());
        all.insert(format!("why {key} {at}"), world.json(&["why", "bars", "--key", key, "--at", at]));
    }
    let asked: [&[&str]; 6] =
        [&["show", "first"], &["show", "second"], &["accuracy", "bars"], &["costs"], &["gaps", "bars"], &["status", "bars"]];
    all.extend(asked.into_iter().map(|arguments| (arguments.join(" "), world.json(arguments))));
    // When somebody asked is no answer.
    all.values_mut().filter_map(Value::as_object_mut).for_each(|answer| drop(answer.remove("as_of")));
    all.extend(seen(world).await.into_iter().map(|(what, rows)| (what.to_owned(), rows.into())));
    all
}

/// The files of the overlay.
fn objects(world: &World) -> Vec<PathBuf> {
    let is_object = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "parquet") && path.to_string_lossy().contains("bars_");
    files(&world.lake()).into_keys().filter(is_object).collect()
}

/// The world after two runs, the second of which had more to repair.
fn repaired() -> World {
    let world = World::new();
    let few = world.workflow(&[("[AIG, BAC, SPY]", "[AIG]")]);
    world.run_json(&few, &["--run-id", "first"]);
    world.run_json(&world.workflow(&[]), &["--run-id", "second"]);
    world
}

#[tokio::test]
async fn objects_become_few_and_every_answer_stays() {
    let world = repaired();
    world.json(&["undo", "second", "--key", "SPY"]);
    let before = answers(&world).await;
    let count = objects(&world).len();
    let shown = world.text(&["compact", "bars"]);
    assert!(shown.contains("nothing was changed; --yes joins them") && shown.contains("bars_repairs: "), "{shown}");
    assert_eq!(objects(&world).len(), count, "a look changes nothing");
    let found = world.json(&["compact", "bars"]);
    let done = world.json(&["compact", "bars", "--yes"]);
    assert_eq!(done["removed"], found["objects"], "{done}");
    assert!(done["rows"].as_u64().unwrap() > 0 && objects(&world).len() < count, "{count} objects before: {done}");
    assert_eq!(answers(&world).await, before);
    assert!(world.text(&["verify-state"]).contains("nothing is damaged"));
    assert!(world.text(&["compact", "bars", "--yes"]).contains("there is nothing to join"));
    // Each run can be taken back by itself.
    let undone = world.json(&["undo", "first"]);
    assert!(undone["tables"][0]["rows"].as_u64().unwrap() > 0, "{undone}");
    world.json(&["redo", undone["id"].as_str().unwrap()]);
    assert_eq!(Value::from(seen(&world).await["view"].clone()), before["view"]);
}

#[test]
fn it_waits_for_runs_that_may_still_add_to_the_table() {
    let world = repaired();
    let slow = world.workflow(&[("for: 10ms", "for: 1d")]);
    let mut third = std::process::Command::new(world.repair().get_program());
    third.current_dir(world.lake().parent().unwrap()).arg("run").arg(&slow).args(["--run-id", "third"]);
    world.json(&["undo", "second"]);
    let mut third = third.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = || world.text(&["runs"]).contains("third");
    for _ in 0..600 {
        if begun() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    third.kill().unwrap();
    third.wait().unwrap();
    assert!(begun(), "the run has begun");
    let before = objects(&world);
    let (_, err, code) = world.said(&["compact", "bars", "--yes"]);
    assert!(code != 0 && err.contains("run `third` has not ended, and may still add to table `bars`"), "{code}: {err}");
    assert_eq!(objects(&world), before);
    world.text(&["cancel", "third"]);
    assert!(world.text(&["compact", "bars", "--yes"]).contains("joined "), "the run has ended");
}
