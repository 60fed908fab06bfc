//! What is repaired is explained, undone and judged wherever a table lies and however its own times are written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::World;
use repair::{Repair, RunReport};
use serde_json::json;

/// Fills hour 5, which is missing; then the table gets it.
fn steps() -> &'static str {
    "  look: { detect: gaps, with: { table: t, keys: [a], from: 2024-03-04, to: 2024-03-04 }, next: fill }\n  fill: { repair: interpolate, of: look, next: check }\n  \
     check: { verify: look, end: true }"
}

async fn run(repair: &Repair) -> RunReport {
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert!(report.error.is_none(), "{:?} {:?}", report.reason, report.problems);
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_are_explained_undone_and_judged_for_tables_of_any_form_and_place() {
    let outside = tempfile::tempdir().unwrap();
    let elsewhere = outside.path().join("t");
    let at = |form: &str, hour: u32| match form {
        "text" => format!("04.03.2024 {hour:02}:00"),
        "epoch" => (1_709_510_400_000_i64 + i64::from(hour) * 3_600_000).to_string(),
        _ => format!("2024-03-04T{hour:02}:00:00Z"),
    };
    for (form, location, time) in [
        ("plain", "t", "time: ts"),
        ("text", "t", "time: { column: ts, format: \"%d.%m.%Y %H:%M\", zone: UTC }"),
        ("epoch", "t", "time: { column: ts, epoch: ms }"),
        ("plain", "t/*.csv", "time: ts"),
        ("plain", elsewhere.to_str().unwrap(), "time: ts"),
    ] {
        let world = World::new();
        let write = |hours: &[u32]| {
            let rows: Vec<String> = hours.iter().map(|hour| format!("a,{},{}\n", at(form, *hour), hour * 10)).collect();
            let text = format!("k,ts,v\n{}", rows.concat());
            if location.starts_with('/') {
                std::fs::create_dir_all(&elsewhere).unwrap();
                std::fs::write(elsewhere.join("a.csv"), text).unwrap();
            } else {
                world.write("t/a.csv", text);
            }
        };
        let without: Vec<u32> = (0..24).filter(|hour| *hour != 5).collect();
        write(&without);
        let path = world.written("", location, &format!("format: csv, key: [k], {time}, cadence: 1h"), steps());
        let opened = Repair::open(path).connect().await.unwrap_or_else(|error| panic!("{}", error.full()));
        let first = run(&opened).await;
        let why = async || {
            let story = opened.lake().why("t", "2024-03-04T05:00:00Z".parse().unwrap()).key("a").await;
            serde_json::to_value(story.unwrap_or_else(|error| panic!("{form} {location}: {}", error.full()))).unwrap()
        };
        let story = why().await;
        assert_eq!((&story["standing"], &story["repairs"][0]["row"]["v"]), (&json!("repaired"), &json!(50)), "{form} {location}: {story}");
        write(&(0..24).collect::<Vec<_>>());
        let late = run(&opened).await;
        let new: u64 = late.late_truth.values().flat_map(|strategies| strategies.values().map(|late| late.new)).sum();
        assert_eq!(new, 1, "{form} {location}");
        let accuracy = opened.lake().accuracy("t").await.unwrap();
        assert_eq!(accuracy.strategies["interpolate"].judged, 1, "{form} {location}");
        write(&without);
        assert_eq!(opened.lake().undo(&first.run).await.unwrap().rows(), 1, "{form} {location}");
        assert_eq!(why().await["standing"], "missing", "{form} {location}");
        // A person says that nothing is to be there, and takes it back.
        let hour = repair::core::model::Interval::parse("2024-03-04T05:00:00Z", "2024-03-04T06:00:00Z").unwrap();
        opened.lake().except("t", hour, "nothing was measured").key("a").await.unwrap();
        assert_eq!(why().await["standing"], "absent", "{form} {location}");
        opened.lake().unexcept("t", hour, "it was").key("a").await.unwrap();
        assert_eq!(why().await["standing"], "missing", "{form} {location}");
    }
}

/// Two workflows of one lake, each with a table `t` elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_elsewhere_never_takes_the_repairs_of_another_of_its_name() {
    let (world, outside) = (World::new(), tempfile::tempdir().unwrap());
    let opened = async |folder: &str, value: u32| {
        let folder = outside.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let hours = (0..24).filter(|hour| *hour != 5).map(|hour| format!("a,2024-03-04T{hour:02}:00:00Z,{value}\n"));
        std::fs::write(folder.join("a.csv"), format!("k,ts,v\n{}", hours.collect::<String>())).unwrap();
        let path = world.written("", folder.to_str().unwrap(), "format: csv, key: [k], time: ts, cadence: 1h", steps());
        Repair::open(path).connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
    };
    let first = opened("one/t", 1).await;
    run(&first).await;
    let second = opened("two/t", 2).await;
    let workflow = world.0.path().join("workflow.yaml");
    let hour = repair::core::model::Interval::parse("2024-03-04T05:00:00Z", "2024-03-04T06:00:00Z").unwrap();
    let before = files(&world.0.path().join("lake"));
    let lake = second.lake();
    let errors = [
        ("plan", second.plan().await.map(|_| ())),
        ("run", second.run().await.map(|_| ())),
        ("why", lake.why("t", "2024-03-04T05:00:00Z".parse().unwrap()).key("a").declared_in(workflow.as_path()).await.map(|_| ())),
        ("except", lake.except("t", hour, "nothing was measured").key("a").declared_in(workflow.as_path()).await.map(|_| ())),
        ("unexcept", lake.unexcept("t", hour, "it was").key("a").declared_in(workflow.as_path()).await.map(|_| ())),
        ("accuracy", lake.accuracy("t").declared_in(workflow.as_path()).await.map(|_| ())),
    ];
    for (asked, result) in errors {
        let error = result.map_or_else(|error| error, |()| panic!("{asked} is answered"));
        let said = error.full();
        assert_eq!(error.kind(), repair::ErrorKind::Conflict, "{asked}: {said}");
        assert!(said.contains("/one/t") && said.contains("/two/t") && said.contains("another name"), "{asked}: {said}");
    }
    assert_eq!(files(&world.0.path().join("lake")), before, "nothing was begun");
}

/// The text of the workflow does not show that one location is outside the lake, and the other within.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_one_workflow_that_would_share_repairs_are_refused_before_anything_runs() {
    let (world, outside) = (World::new(), tempfile::tempdir().unwrap());
    world.write("t/a.csv", "k,ts,v\na,2024-03-04T00:00:00Z,1\n");
    std::fs::write(outside.path().join("a.csv"), "k,ts,v\na,2024-03-04T00:00:00Z,2\n").unwrap();
    let like = "format: csv, key: [k], time: ts, cadence: 1h";
    let inside = world.0.path().join("lake/t");
    let tables = format!("{like} }}\n  u: {{ location: \"{}\", {like}", inside.display());
    let twice = steps().replace("end: true", "next: look2")
        + "\n"
        + &steps().replace("table: t", "table: u").replace("look", "look2").replace("fill", "fill2").replace("check", "check2");
    let path = world.written("", outside.path().to_str().unwrap(), &tables, &twice);
    let opened = Repair::open(path).connect().await.unwrap_or_else(|error| panic!("{}", error.full()));
    for error in [opened.plan().await.map(|_| ()).unwrap_err(), opened.run().await.map(|_| ()).unwrap_err()] {
        let said = error.full();
        assert_eq!(error.kind(), repair::ErrorKind::Conflict, "{said}");
        assert!(said.contains("would be one") && said.contains("t_repairs") && said.contains(inside.to_str().unwrap()), "{said}");
    }
    assert!(!world.0.path().join("lake/.repair").exists());
}

/// The paths below a folder, without those of the journal.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match std::fs::read_dir(&next) {
            // What is beside the journal goes away when that is closed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && next != folder => continue,
            entries => entries.unwrap(),
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            all.push(path);
        }
    }
    all.retain(|path| !path.to_string_lossy().contains("journal.db"));
    all.sort();
    all
}
