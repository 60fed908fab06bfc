//! A run that runs others: it answers for what these found, did and left.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use repair::{ErrorKind, OpenLake, Outcome, Repair};

/// The sensors `a`, `b` and `c`: `b` and `c` lack an hour, and `c` also the last three, which nothing fills.
fn world(files: &[(&str, &str)]) -> tempfile::TempDir {
    let world = tempfile::tempdir().unwrap();
    let rows = ["a", "b", "c"].into_iter().flat_map(|sensor| {
        let hours = (0..12).filter(move |hour| sensor == "a" || *hour != 5 && (sensor == "b" || *hour < 9));
        hours.map(move |hour| format!("{sensor},2024-03-04T{hour:02}:00:00Z,{hour}\n"))
    });
    std::fs::create_dir_all(world.path().join("lake/readings")).unwrap();
    std::fs::write(world.path().join("lake/readings/0.csv"), format!("sensor,ts,value\n{}", rows.collect::<String>())).unwrap();
    for (name, text) in files {
        std::fs::write(world.path().join(name), text).unwrap();
    }
    world
}

const TABLES: &str = "tables:\n  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h, columns: { value: { type: number } } }\n";

fn map(head: &str) -> String {
    format!(
        "workflow: w\nkind: state-machine\n{head}{TABLES}start: each\nsteps:\n  each:\n    map: {{ over: [a, b, c] }}\n    as: s\n    start: look\n    steps:\n{}    end: true\n",
        steps("keys: [\"{% $s %}\"]", "      ")
    )
}

fn steps(keys: &str, indent: &str) -> String {
    [
        &format!("look: {{ detect: gaps, with: {{ table: readings, {keys}, from: 2024-03-04T00:00:00Z, to: 2024-03-04T12:00:00Z }}, next: fill }}"),
        "fill: { repair: interpolate, of: look, with: { max_gap: 2h }, next: check }",
        "check: { verify: look, end: true }",
    ]
    .map(|line| format!("{indent}{line}\n"))
    .concat()
}

fn nested() -> [(&'static str, String); 2] {
    let outer = "workflow: w\nkind: state-machine\nstart: go\nsteps:\n  go: { workflow: ./inner.yaml, end: true }\n".to_owned();
    let inner = format!("workflow: inner\nkind: state-machine\n{TABLES}start: look\nsteps:\n{}", steps("keys: [a, b, c]", "  "));
    [("w.yaml", outer), ("inner.yaml", inner)]
}

async fn open(world: &tempfile::TempDir) -> Repair {
    let opening = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake"));
    opening.connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
}

async fn rows(repair: &Repair) -> String {
    repair.query("SELECT count(*) AS n FROM readings_repaired").first(1).await.unwrap().rows[0][0].clone().unwrap()
}

#[tokio::test]
async fn a_run_answers_for_the_runs_within_it() {
    let [outer, inner] = nested();
    for (files, step, runs) in [(vec![("w.yaml", map(""))], "each", 3), (vec![outer, inner], "go", 1)] {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let world = world(&files);
        let repair = open(&world).await;
        // The outer workflow declares no table, if it runs one with a file of its own.
        let view = match Repair::open(world.path().join("inner.yaml")).lake(world.path().join("lake")).connect().await {
            Ok(inner) => inner,
            Err(_) => open(&world).await,
        };
        let plan = repair.plan().await.unwrap();
        assert!(plan.missing() == 0 && plan.has_work(), "what the inner runs find is not known: {:?}", plan.not_planned);
        let report = repair.run().id("one").await.unwrap();
        assert_eq!((report.outcome, report.missing), (Some(Outcome::SucceededWithExceptions), 3), "{step}: {:?}", report.problems);
        assert_eq!(rows(&view).await, "33");
        let lake = OpenLake::at(world.path().join("lake")).unwrap();
        let gaps = lake.gaps("one").await.unwrap();
        assert_eq!((gaps.searches.len(), gaps.ranges().map(|range| range.slots).sum::<u64>()), (runs, 3), "{step}");
        assert!(gaps.ranges().all(|range| range.run.is_some() && range.key.to_string() == "c"));
        // What is missing in the table is what all runs within the latest one saw.
        let of_table = lake.gaps("readings").await.unwrap();
        assert_eq!((of_table.run.as_str(), of_table.searches.len()), ("one", runs));
        let page = lake.report_on("one").await.unwrap();
        let numbers = page.numbers;
        assert_eq!((numbers.expected, numbers.found, numbers.repaired, numbers.left), (36, 5, 2, 3), "{step}: {}", page.sentence);
        assert!(
            page.sentence.contains("Of 36 expected slots of table readings, 5 were missing or wrong; 2 were repaired"),
            "{}",
            page.sentence
        );
        assert_eq!((page.defects.total, page.fixes.total, page.tables.len()), (3, 2, runs), "{step}: {:?}", page.notes);
        assert!(page.notes.iter().all(|note| !note.contains("Other runs")), "{:?}", page.notes);
        // Only a step that is there, of the run or of those within it.
        assert_eq!(lake.undo("one").step("nothing").await.unwrap_err().kind(), ErrorKind::Invalid);
        let undone = lake.undo("one").step(step).key("b").await.unwrap();
        assert_eq!((undone.rows(), rows(&view).await.as_str()), (1, "32"));
        let rest = lake.undo("one").step("fill").await.unwrap();
        assert_eq!((rest.rows(), rows(&view).await.as_str()), (1, "31"), "one was hidden already");
        let error = lake.undo("one").await.unwrap_err();
        assert!(error.message().contains("added nothing that is not hidden already"), "{error}");
        // The first undo still hides what both hid.
        let shown = lake.redo(&rest.id).await.unwrap();
        assert_eq!((shown.rows(), rows(&view).await.as_str()), (1, "32"));
        assert_eq!((lake.redo(&undone.id).await.unwrap().rows(), rows(&view).await.as_str()), (1, "33"));
    }
}

#[tokio::test]
async fn a_plan_has_work_only_where_the_run_may_get_to_runs_within_it() {
    let with = |missing: &str| {
        let text = map("budget: { calls: 9 }\n").replace("start: each\nsteps:\n", &format!(
            "start: first\nsteps:\n  first:\n    detect: gaps\n    with: {{ table: readings, keys: [a], from: 2024-03-04T00:00:00Z, to: 2024-03-04T12:00:00Z }}\n    next: [{{ when: $output.missing {missing}, goto: each }}, {{ goto: done }}]\n  done: {{ succeed: }}\n"
        ));
        world(&[("w.yaml", &text)])
    };
    for (missing, has_work, verdict) in [("> 0", false, "fits"), ("= 0", true, "not known")] {
        let world = with(missing);
        let plan = open(&world).await.plan().await.unwrap();
        assert_eq!((plan.has_work(), plan.budgets[0].verdict.as_str()), (has_work, verdict), "{missing}: {:?}", plan.budgets);
    }
}

#[tokio::test]
async fn a_map_that_ended_over_budget_goes_on_with_a_larger_one() {
    let text = |calls: u32| {
        map(&format!("about: with {calls}\nbudget: {{ calls: {calls} }}\nsources: {{ all: {{ source: sql, with: {{ query: \"SELECT 'b' AS sensor, TIMESTAMP '2024-03-04 05:00:00' AS ts, 5.0 AS value UNION ALL SELECT 'c', TIMESTAMP '2024-03-04 05:00:00', 5.0\" }} }} }}\n"))
            .replace("repair: interpolate, of: look, with: { max_gap: 2h }", "repair: backfill, of: look, with: { source: all }")
    };
    let world = world(&[("w.yaml", &text(1))]);
    let report = open(&world).await.run().id("one").await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::OverBudget), "{:?}", report.problems);
    std::fs::write(world.path().join("w.yaml"), text(20)).unwrap();
    let lake = OpenLake::at(world.path().join("lake")).unwrap();
    let report =
        lake.redrive("one").with_file(world.path().join("w.yaml").as_path()).await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(rows(&open(&world).await).await, "33", "{:?} {:?}", report.outcome, report.problems);
    // What the steps within the map do must stay as it was.
    std::fs::write(world.path().join("w.yaml"), text(20).replace("12:00:00Z", "13:00:00Z")).unwrap();
    let refused = lake.redrive("one").with_file(world.path().join("w.yaml").as_path()).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn what_the_journal_says_was_written_and_is_gone_is_named() {
    let world = world(&[("w.yaml", &map(""))]);
    let repair = open(&world).await;
    repair.run().id("one").await.unwrap();
    let lake = OpenLake::at(world.path().join("lake")).unwrap();
    let damaged = async || {
        let found = lake.verify_state().await.unwrap();
        found.objects.damaged.iter().map(|damaged| format!("{}: {}", damaged.place, damaged.what)).collect::<Vec<_>>()
    };
    assert_eq!(damaged().await, [""; 0]);
    let files = |below: &str| {
        let mut folders = vec![world.path().join("lake").join(below)];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "parquet") {
                    files.push(path);
                }
            }
        }
        files.sort();
        files
    };
    for file in files("readings_repairs").into_iter().chain(files(".repair/runs")) {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let found = damaged().await;
        assert_eq!(found.len(), 1, "{}: {found:?}", file.display());
        assert!(found[0].contains("gone"), "{found:?}");
        std::fs::write(&file, bytes).unwrap();
    }
    // Rows in other objects, hidden rows, and what was removed on purpose, are not lost.
    let found = lake.compactable("readings").await.unwrap();
    lake.compact(&found).await.unwrap();
    lake.undo("one").await.unwrap();
    assert_eq!(damaged().await, [""; 0]);
    repair.run().id("two").await.unwrap();
    let pruned = lake.prunable().older_than(std::time::Duration::ZERO).await.unwrap();
    assert!(!lake.prune(&pruned).await.unwrap().runs.is_empty());
    assert_eq!(damaged().await, [""; 0]);
    assert!(lake.prunable().older_than(std::time::Duration::ZERO).await.unwrap().runs.is_empty());
}

#[tokio::test]
async fn a_table_that_a_workflow_declares_needs_no_run() {
    let world = world(&[("w.yaml", &map(""))]);
    let lake = OpenLake::at(world.path().join("lake")).unwrap();
    let workflow = world.path().join("w.yaml");
    let workflow = Some(workflow.as_path());
    let interval = repair::Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T12:00:00Z").unwrap();
    assert_eq!(lake.except("readings", interval, "it was off").key("c").await.unwrap_err().kind(), ErrorKind::NotFound);
    let change = lake
        .except("readings", interval, "it was off")
        .key("c")
        .declared_in(workflow)
        .await
        .unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(change.tables[0].absent, 3);
    let story = lake.why("readings", "2024-03-04T10:00:00Z".parse().unwrap()).key("c").declared_in(workflow).await.unwrap();
    assert_eq!(story.exceptions.len(), 1);
    assert!(lake.compactable("readings").declared_in(workflow).await.unwrap().parts.is_empty());
    let report = open(&world).await.run().await.unwrap();
    assert_eq!((report.outcome, report.missing), (Some(Outcome::Succeeded), 0), "{:?}", report.problems);
}
