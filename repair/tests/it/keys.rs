//! Which keys are expected, and when: from a table with lifetimes, from a file, from the step. Files in a folder, as a user has them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::PathBuf;

use repair::core::lake::overlay::story::Standing;
use repair::jiff::{Timestamp, ToSpan};
use repair::{ErrorKind, Hint, Outcome, Repair, RunReport};
use serde_json::{Value, json};

/// A lake in a folder.
struct World(tempfile::TempDir);

impl World {
    /// Four days of meters. Days are those of Berlin, and a row is written for each hour that has one.
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let hours = |from: i64, to: i64, lost: &'static [i64]| (from..to).filter(|hour| !lost.contains(hour));
        let rows = hours(0, 48, &[7]).map(|hour| ("4711", hour));
        // Its first day is the second one; two rows are from before.
        let rows = rows.chain(hours(22, 48, &[]).map(|hour| ("4712", hour)));
        // It has been closed for long, and another one is in no list.
        let rows = rows.chain(hours(0, 3, &[]).map(|hour| ("4713", hour))).chain([("99", 5)]);
        let first: Timestamp = "2024-03-03T23:00:00Z".parse().unwrap();
        let rows: String = rows.map(|(meter, hour)| format!("{meter},{},1.5\n", first + hour.hours())).collect();
        world.write("lake/meters/a.csv", &format!("meter,ts,kwh\n{rows}"));
        world.write("lake/sites.csv", "meter,opened,closed\n4711,2024-03-04,\n4712,2024-03-05,2024-03-05\n4713,2023-01-01,2024-03-03\n");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The workflow whose meters expect these keys, and whose step has more to say.
    async fn open(&self, keys: &str, with: &str) -> Repair {
        let text = format!(
            "workflow: meters\nkind: state-machine\ntables:\n  meters: {{ location: meters, format: csv, zone: Europe/Berlin, key: [meter], time: ts, cadence: 1h{keys} \
             }}\n  sites: {{ location: sites.csv, format: csv, time: opened }}\nstart: look\nsteps:\n  look: {{ detect: gaps, with: {{ table: meters, from: \
             2024-03-04, to: 2024-03-05{with} }}, next: fill }}\n  fill: {{ repair: carry-forward, of: look, with: {{ max_age: 2h }}, next: check }}\n  check: {{ \
             verify: look, end: true }}\n"
        );
        self.write("workflow.yaml", &text);
        Repair::open(self.path("workflow.yaml")).lake(self.path("lake")).connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
    }
}

const SITES: &str = ", keys: { table: sites, since: opened, until: closed }";

fn counts(report: &RunReport, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| report.step("look").unwrap().output[name].clone()).collect()
}

#[tokio::test]
async fn meters_are_expected_from_the_day_they_open_to_the_day_they_close() {
    let world = World::new();
    let repair = world.open(SITES, "").await;
    let plan = repair.plan().await.unwrap();
    let look = serde_json::to_value(&plan).unwrap()["looks"][0].clone();
    // Two days of the one, the second day of the other, and nothing of what has closed.
    for (name, count) in [("expected", 72), ("missing", 1), ("unexpected", 2), ("audited_keys", 2), ("other_keys", 4)] {
        assert_eq!(look["counts"][name], count, "{name}: {look}");
    }
    let named = json!([{ "key": "4713", "rows": 3 }, { "key": "99", "rows": 1 }]);
    assert_eq!(look["other_keys"], named);
    let text = plan.to_text().unwrap();

    let report = repair.apply(&plan).await.unwrap();
    assert_eq!((report.outcome, report.missing), (Some(Outcome::Succeeded), 0), "{:?}", report.problems);
    assert_eq!(counts(&report, &["expected", "missing", "other_keys"]), [72, 1, 4]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["steps"]["look"]["other_keys"], named, "checking again keeps what was seen of other keys");
    // A key that a table lists is known, whether or not it has rows; any other is not.
    let at: Timestamp = "2024-03-04T06:30:00Z".parse().unwrap();
    assert_eq!(repair.why("meters", at).key("4711").await.unwrap().standing, Standing::Repaired);
    let error = repair.why("meters", at).key("4714").await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("has never had the key `4714`"), "{error}");
    assert!(!repair.plan().await.unwrap().has_work());

    // The table of sites decides what is expected, so a change there makes a plan out of date.
    let plan = repair::plan::Plan::from_text(&text).unwrap();
    let old = world.open(SITES, "").await.plan().await.unwrap();
    assert_ne!(plan.run_id(), old.run_id());
    world.write("lake/sites.csv", "meter,opened,closed\n4711,2024-03-04,\n4712,2024-03-05,2024-03-05\n4713,2023-01-01,2024-03-04\n");
    let error = repair.apply(&old).await.unwrap_err();
    assert_eq!((error.kind(), error.remedy()), (ErrorKind::Conflict, Some(&Hint::PlanAgain)), "{error}");
    assert!(error.message().contains("it expects 96 slots of 3 keys, but expected 72 slots of 2 keys before"), "{error}");
}

#[tokio::test]
async fn keys_of_a_file_stay_with_the_run_and_those_of_a_step_win() {
    let world = World::new();
    world.write("keys.csv", "name,meter\nThe mill,4711\n\"Farm, old\",4712\n");
    for (keys, with) in [(", keys: { file: keys.csv }", ""), ("", ", keys: { file: keys.csv }")] {
        let report = world.open(keys, with).await.run().await.unwrap();
        assert_eq!(counts(&report, &["expected", "audited_keys"]), [96, 2], "{keys}{with}");
    }
    let repair = world.open(SITES, ", keys: [\"4713\"]").await;
    let report = repair.run().id("own").await.unwrap();
    assert_eq!(counts(&report, &["expected", "missing", "audited_keys"]), [48, 45, 1]);

    // A run goes on with the keys that it began with.
    let repair = world.open(", keys: { file: keys.csv }", "").await;
    repair.run().id("kept").await.unwrap();
    std::fs::remove_file(world.path("keys.csv")).unwrap();
    assert_eq!(repair.lake().resume("kept").await.unwrap().step("look").unwrap().output["expected"], 96);
    let error = Repair::open(world.path("workflow.yaml")).lake(world.path("lake")).connect().await.err().unwrap();
    assert!(error.full().contains("`keys.csv` cannot be read"), "{}", error.full());
}

#[tokio::test]
async fn calendars_are_those_of_each_key() {
    let world = World::new();
    world.write("lake/sites.csv", "meter,opened,hours\n4711,2024-01-01,\n4712,2024-01-01,XETR\n");
    let repair = world.open(", keys: { table: sites, since: opened, calendar: hours }", "").await;
    // The exchange is open from 9:00 to 17:30, which holds nine hours that begin within it.
    let report = repair.run().await.unwrap();
    assert_eq!(counts(&report, &["expected", "missing"]), [48 + 2 * 9, 1 + 9], "{:?}", report.problems);
    world.write("lake/sites.csv", "meter,opened,hours\n4711,2024-01-01,\n4712,2024-01-01,XET\n");
    let report = repair.run().await.unwrap();
    let reason = report.reason.unwrap();
    assert!(reason.contains("no calendar `XET`") && reason.contains("sites") && reason.contains("4712"), "{reason}");
}

#[tokio::test]
async fn meters_may_report_at_different_cadences() {
    let world = World(tempfile::tempdir().unwrap());
    let first: Timestamp = "2024-03-03T23:00:00Z".parse().unwrap();
    let mut rows = "meter,ts,kwh\n".to_owned();
    for half in 0..48i64 {
        let at = first + (half * 30).minutes();
        // The one reports each hour, and the other each half hour; each has lost one report.
        if half % 2 == 0 && half != 14 {
            rows.push_str(&format!("4711,{at},1\n"));
        }
        if half != 7 {
            rows.push_str(&format!("4712,{at},2\n"));
        }
    }
    world.write("lake/meters/a.csv", &rows);
    let open = async |sites: &str| {
        world.write("lake/sites.csv", sites);
        let text = "workflow: meters\nkind: state-machine\ntables:\n  meters:\n    { location: meters, format: csv, zone: Europe/Berlin, key: [meter], keys: { table: sites, cadence: \
                    every }, time: ts, cadence: 30m }\n  sites: { location: sites.csv, format: csv, time: opened }\nstart: look\nsteps:\n  look: { detect: gaps, with: { table: \
                    meters, from: 2024-03-04, to: 2024-03-04 }, next: fill }\n  fill: { repair: interpolate, of: look, with: { max_gap: 2h }, next: check }\n  check: { verify: \
                    look, end: true }\n";
        world.write("workflow.yaml", text);
        Repair::open(world.path("workflow.yaml"))
            .lake(world.path("lake"))
            .connect()
            .await
            .unwrap_or_else(|error| panic!("{}", error.full()))
    };
    let report = open("meter,opened,every\n4711,2024-01-01,1h\n4712,2024-01-01,\n").await.run().await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    assert_eq!(counts(&report, &["expected", "missing", "unexpected"]), [json!(72), json!(2), json!(0)]);
    assert_eq!(report.step("check").unwrap().output["missing"], 0);
    for (every, why) in [("45m", "do not begin when slots of 30m do"), ("1d", "make a table of its own"), ("often", "is not a cadence")] {
        let report = open(&format!("meter,opened,every\n4711,2024-01-01,{every}\n")).await.run().await.unwrap();
        let said = format!("{:?}", report.reason);
        assert!(report.error == Some(ErrorKind::Invalid) && said.contains(why), "{every}: {said}");
    }
}
