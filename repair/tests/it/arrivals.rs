//! Deliveries in folders of days: one did not come, one is too small, and one day is a holiday. From the sample of the documentation to a
//! repair from a source.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use repair::{Outcome, Repair};
use serde_json::{Value, json};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(world.lake()).unwrap();
        world
    }

    fn lake(&self) -> PathBuf {
        self.0.path().join("lake")
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.lake().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// So many rows of a day of March 2024, an hour apart, in its folder.
    fn deliver(&self, table: &str, day: u8, rows: usize) {
        let mut text = "ordered_at,amount\n".to_owned();
        (0..rows).for_each(|hour| writeln!(text, "2024-03-{day:02}T{hour:02}:00:00Z,{hour}").unwrap());
        self.write(&format!("{table}/2024/03/{day:02}/{table}.csv"), &text);
    }

    async fn open(&self, workflow: &str) -> Repair {
        let path = self.0.path().join("workflow.yaml");
        std::fs::write(&path, workflow).unwrap();
        Repair::open(&path).lake(self.lake()).connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
    }
}

/// The sample under `## arrivals`.
fn sample() -> String {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/workflows/detect.md")).unwrap();
    let section = page.split("\n## arrivals\n").nth(1).unwrap();
    section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

#[tokio::test]
async fn the_sample_of_the_documentation_finds_what_did_not_arrive() {
    let world = World::new();
    // Monday, Tuesday, and Thursday with too little; Wednesday did not come, Friday is a holiday, and some came on Saturday.
    [(4, 10), (5, 12), (7, 2), (9, 1)].into_iter().for_each(|(day, rows)| world.deliver("orders", day, rows));
    let said = "of 4 days of table `orders`, 1 did not arrive: 2024-03-06; 1 holds too few rows: 2024-03-07 (2 of at least 6 rows)";
    let repair = world.open(&sample()).await;
    let report = repair.run().await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Failed));
    let output = &report.step("late").unwrap().output;
    assert_eq!(output["units"], json!({ "expected": 4, "missing": 1, "short": 1 }));
    assert_eq!((&output["expected"], &output["missing"]), (&json!(4), &json!(2)));
    assert!(report.problems.contains(&format!("late: {said}")), "{:?}", report.problems);
    // A plan finds the same, and its JSON names them.
    let plan = serde_json::to_value(repair.plan().await.unwrap()).unwrap();
    assert_eq!(plan["looks"][0]["notices"], json!([said]));
    // An empty file is no delivery.
    world.write("orders/2024/03/06/orders.csv", "ordered_at,amount\n");
    let report = world.open(&sample()).await.run().await.unwrap();
    assert_eq!(report.step("late").unwrap().output["units"], json!({ "expected": 4, "missing": 1, "short": 1 }));
    world.deliver("orders", 6, 11);
    world.deliver("orders", 7, 9);
    let report = world.open(&sample()).await.run().await.unwrap();
    assert_eq!((report.outcome, &report.step("late").unwrap().output["missing"]), (Some(Outcome::Succeeded), &json!(0)));
}

#[tokio::test]
async fn a_folder_that_did_not_arrive_is_filled_from_a_source() {
    let world = World::new();
    for day in 4..=8 {
        world.deliver("archive", day, 24);
    }
    // Of the 5th nothing, of the 6th little, of the 7th all but one hour, which is enough.
    [(4, 24), (6, 3), (7, 23), (8, 24)].into_iter().for_each(|(day, rows)| world.deliver("hours", day, rows));
    let workflow = "\
workflow: hours
kind: state-machine
tables:
  hours: { location: hours, format: csv, time: ordered_at, cadence: 1h, partition_by: \"%Y/%m/%d\" }
sources:
  vendor: { source: stocks.archive, with: { location: archive, format: csv } }
start: late
steps:
  late: { detect: arrivals, with: { table: hours, from: 2024-03-04, to: 2024-03-08, min_rows: 20 }, next: fill }
  fill: { repair: backfill, of: late, with: { source: vendor }, next: check }
  check: { verify: late, end: true }
";
    let report = world.open(workflow).await.run().await.unwrap();
    let output = |step: &str| report.step(step).unwrap().output.clone();
    let counts = |step: &str, names: [&str; 3]| names.map(|name| output(step)[name].as_u64().unwrap());
    assert_eq!(counts("late", ["expected", "present", "missing"]), [119, 74, 45], "{report:?}");
    assert_eq!(output("late")["units"], json!({ "expected": 5, "missing": 1, "short": 1 }));
    assert_eq!(output("fill")["repaired"], Value::from(45));
    assert_eq!((counts("check", ["expected", "present", "missing"]), report.outcome), ([45, 45, 0], Some(Outcome::Succeeded)));
    // Repaired rows arrived: the next run finds nothing.
    let report = world.open(workflow).await.run().await.unwrap();
    assert_eq!(report.step("late").unwrap().output["units"], json!({ "expected": 5, "missing": 0, "short": 0 }));
}
