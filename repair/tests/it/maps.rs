//! Maps on a lake in a folder: lists that a query gives, what a plan says of them, and what their runs cost.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use repair::{Outcome, Repair};
use serde_json::json;

/// Three sensors, of which `b` and `c` lack an hour.
fn world(steps: &str) -> tempfile::TempDir {
    let world = tempfile::tempdir().unwrap();
    let rows = ["a", "b", "c"].into_iter().flat_map(|sensor| {
        let hours = (0..12).filter(move |hour| sensor == "a" || *hour != 5);
        hours.map(move |hour| format!("{sensor},2024-03-04T{hour:02}:00:00Z,{hour}\n"))
    });
    std::fs::create_dir_all(world.path().join("lake/readings")).unwrap();
    std::fs::write(world.path().join("lake/readings/0.csv"), format!("sensor,ts,value\n{}", rows.collect::<String>())).unwrap();
    let text = format!(
        "workflow: w\nkind: state-machine\nparams:\n  day: {{ type: date, default: 2024-03-04 }}\n  sensors: {{ type: list, default: [a, b] }}\n\
         tables:\n  readings: {{ location: readings, format: csv, key: [sensor], time: ts, cadence: 1h, columns: {{ value: {{ type: number }} }} }}\n{steps}"
    );
    std::fs::write(world.path().join("w.yaml"), text).unwrap();
    world
}

async fn open(world: &tempfile::TempDir) -> Result<Repair, repair::Error> {
    Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await
}

const ROWS: &str = "start: each
steps:
  each:
    map: { over: { rows: \"SELECT sensor, count(*) AS n FROM readings WHERE value < :most GROUP BY 1 ORDER BY 1\", values: { most: 100 } } }
    as: row
    concurrency: 2
    start: look
    steps:
      look: { detect: gaps, with: { table: readings, keys: [\"{% $row.sensor %}\"], from: \"{% $params.day & 'T00:00:00Z' %}\", to: \"{% $params.day & 'T12:00:00Z' %}\" }, next: fill }
      fill: { repair: interpolate, of: look, with: { max_gap: 3h }, next: check }
      check: { verify: look, end: true }
    end: true
";

#[tokio::test]
async fn each_row_of_a_query_is_an_item_whose_run_repairs_its_own_key() {
    let world = world(ROWS);
    let repair = open(&world).await.unwrap();
    let plan = repair.plan().await.unwrap();
    let why = &plan.not_planned.iter().find(|step| step.step == "each").unwrap().why;
    assert!(
        why.starts_with("it runs its steps for each item, as runs of their own, and how many items there are is known only when"),
        "{why}"
    );
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?}", report.problems);
    let output = &report.step("each").unwrap().output;
    assert_eq!((&output["items"], &output["succeeded"]), (&json!(3), &json!(3)));
    let of = |at: usize| (output["results"][at]["item"].clone(), output["results"][at]["output"]["fill"]["repaired"].clone());
    assert_eq!(of(0), (json!({ "sensor": "a", "n": 12 }), json!(0)));
    assert_eq!(of(1), (json!({ "sensor": "b", "n": 11 }), json!(1)));
    let view = repair.query("SELECT count(*) AS n FROM readings_repaired").first(1).await.unwrap().rows;
    assert_eq!(view[0][0].as_deref(), Some("36"));
    // What the items' runs used counts once: with them, and not with the step. The run itself only reads what the items are.
    let costs = repair.lake().costs().runs([&report.run]).group_by(["run"]).await.unwrap();
    let (own, of_items): (Vec<_>, Vec<_>) = costs.groups.iter().partition(|group| group.tags["run"] == report.run);
    assert_eq!((own.len(), of_items.len()), (1, 3), "{costs:?}");
    assert!(own[0].usage.bytes_scanned > 0 && own[0].usage.bytes_written == 0 && own[0].rows_repaired == 0, "{costs:?}");
    assert_eq!(costs.total.rows_repaired, 2);
    // A new run has new items, and finds nothing to do.
    let again = repair.run().await.unwrap();
    assert_eq!(again.step("each").unwrap().output["results"][1]["output"]["look"]["missing"], json!(0));
}

#[tokio::test]
async fn a_plan_says_how_many_items_there_are_if_that_is_known() {
    let each = |over: &str| {
        ROWS.replace(&ROWS[ROWS.find("{ rows").unwrap()..ROWS.find("100 } }").unwrap() + 7], over).replace("$row.sensor", "$row")
    };
    for (over, said) in [
        ("\"{% $params.sensors %}\"", "it runs its steps for 2 items, each as a run of its own"),
        ("[]", "its list is empty, so nothing runs"),
        ("[a]", "it runs its steps for 1 item, as a run of its own"),
    ] {
        let world = world(&each(over));
        let plan = open(&world).await.unwrap().plan().await.unwrap();
        let why = &plan.not_planned.iter().find(|step| step.step == "each").unwrap().why;
        assert!(why.starts_with(said), "{over}: {why}");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_is_refused_before_the_run_with_its_place() {
    for (from, to, said) in
        [("FROM readings WHERE value", "FROM readings WHERE valu", "column `valu`"), (":most GROUP", ":mst GROUP", "names `:mst`")]
    {
        let world = world(&ROWS.replace(from, to));
        let repair = open(&world).await.unwrap();
        let error = repair.run().await.unwrap_err().full();
        assert!(error.contains(said) && error.contains("w.yaml:11:"), "{error}");
        assert!(!world.path().join("lake/.repair/runs").exists(), "nothing was begun");
    }
    // So is one of a step within the map, when the workflow is validated.
    let inner = ROWS.replace(
        "look: { detect",
        "count: { task: sql, with: { query: 'SELECT count(*) FROM readings WHERE value > :mst' }, next: look }\n      look: { detect",
    );
    let inner = world(&inner.replace("start: look", "start: count"));
    let registry = std::sync::Arc::new(repair::registry());
    let workflow = repair::Workflow::load(&inner.path().join("w.yaml"), &registry).unwrap();
    let refused = repair::plan::refusals(&registry, &workflow, &Default::default(), "2024-03-05T00:00:00Z".parse().unwrap()).await.unwrap();
    let refused: Vec<String> = refused.iter().map(repair::Error::full).collect();
    assert!(refused.len() == 1 && refused[0].contains("names `:mst`") && refused[0].contains("w.yaml:16:"), "{refused:?}");
    // A list that would be too long is refused when it is known.
    let many = ROWS.replace(
        "SELECT sensor, count(*) AS n FROM readings WHERE value < :most GROUP BY 1 ORDER BY 1",
        "SELECT a.ts, b.ts AS t, c.ts AS u FROM readings a CROSS JOIN readings b CROSS JOIN readings c WHERE a.value < :most",
    );
    let world = world(&many);
    let report = open(&world).await.unwrap().run().await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Failed));
    assert!(
        report.reason.as_ref().unwrap().contains("the query of the map gives 39304 rows; at most 10000 are allowed"),
        "{:?}",
        report.reason
    );
}

/// That rows were left out of the list is an exception of the step, however often it is continued.
#[tokio::test]
async fn rows_that_a_list_does_not_see_are_still_said_after_a_redrive() {
    let world = world(
        "  some: { location: some, format: csv, time: ts, cadence: 1h, on_bad_row: { quarantine: 60% } }\nstart: each\nsteps:\n  each:\n    map: { over: { rows: \"SELECT v FROM \
         some\" } }\n    start: one\n    steps: { one: { task: sql, with: { query: \"SELECT 1 / CAST(value AS bigint) AS one FROM readings\" }, end: true } }\n    end: true\n",
    );
    std::fs::create_dir_all(world.path().join("lake/some")).unwrap();
    std::fs::write(world.path().join("lake/some/0.csv"), "ts,v\n2024-03-04T00:00:00Z,1\nnever,2\n").unwrap();
    let repair = open(&world).await.unwrap();
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(report.outcome, Some(Outcome::Failed), "a value is zero: {:?}", report.problems);
    std::fs::write(world.path().join("lake/readings/0.csv"), "sensor,ts,value\na,2024-03-04T00:00:00Z,1\n").unwrap();
    let report = repair.lake().redrive(&report.run).await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{:?}", report.problems);
    let said = "each: 1 row of table `some`, which the query reads, cannot be read and was left out";
    assert!(report.problems.iter().any(|problem| problem.starts_with(said)), "{:?}", report.problems);
}
