//! SQL of a user's own finds, repairs, answers and decides, without any Rust.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use repair::{Repair, RunReport};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        // Hour 3 is far below, and of hour 5 only the humidity is wrong; hours 7 and 8 are not there.
        let rows = (0..12).filter(|hour| ![7, 8].contains(hour)).map(|hour| {
            let (temperature, humidity) = (if hour == 3 { -900.0 } else { 10.0 + f64::from(hour) }, if hour == 5 { 400 } else { 50 });
            format!("a,2024-03-04T{hour:02}:00:00Z,{temperature},{humidity}\n")
        });
        world.write("lake/readings/0.csv", &format!("sensor,ts,temperature,humidity\n{}", rows.collect::<String>()));
        // A second station near by, two degrees colder, which has all hours but the eighth.
        let near = (0..12).filter(|hour| *hour != 8).map(|hour| format!("b,2024-03-04T{hour:02}:00:00Z,{}\n", 8.0 + f64::from(hour)));
        world.write("lake/near/0.csv", &format!("station,at,celsius\n{}", near.collect::<String>()));
        world
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    async fn open(&self, steps: &str) -> Result<Repair, repair::Error> {
        let workflow = format!(
            "workflow: w\nkind: dag\nparams:\n  least: {{ type: number, default: -50 }}\n  station: {{ type: string, default: b }}\ntables:\n  readings: {{ \
             location: readings, format: csv, key: [sensor], time: ts, cadence: 1h, columns: {{ temperature: {{ type: number }}, humidity: {{ type: integer }} }} }}\n  \
             near: {{ location: near, format: csv, key: [station], time: at, cadence: 1h, columns: {{ celsius: {{ type: number }} }} }}\n{steps}"
        );
        self.write("w.yaml", &workflow);
        Repair::open(self.0.path().join("w.yaml")).lake(self.0.path().join("lake")).connect().await
    }

    async fn run(&self, steps: &str) -> Result<RunReport, repair::Error> {
        self.open(steps).await?.run().await
    }

    /// The repaired view, as text.
    async fn view(&self) -> Vec<String> {
        let repair = self.open("steps: { none: { task: usage } }\n").await.unwrap();
        let sql = "SELECT CAST(ts AS varchar) AS ts, temperature, humidity, repaired_by FROM readings_repaired ORDER BY ts";
        let rows = repair.query(sql).first(100).await.unwrap().rows;
        rows.into_iter()
            .map(|row| row.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned())).collect::<Vec<_>>().join(" "))
            .collect()
    }

    async fn refusal(&self, steps: &str) -> String {
        match self.run(steps).await {
            Err(error) => error.full(),
            Ok(report) if report.outcome == Some(repair::Outcome::Failed) => report.reason.unwrap_or_default(),
            Ok(report) => panic!("{:?} {:?} of {steps}", report.outcome, report.reason),
        }
    }
}

const STEPS: &str = r#"
sources:
  station:
    source: sql
    with:
      query: |
        SELECT k.sensor, n.at AS ts, n.celsius + 2 AS temperature, CAST(60 AS bigint) AS humidity
        FROM near n CROSS JOIN $keys k WHERE n.station = :station AND n.at >= :from AND n.at < :to
steps:
  cold:
    detect: sql
    with:
      table: readings
      from: 2024-03-04T00:00:00Z
      to: 2024-03-04T12:00:00Z
      keys: [a]
      query: |
        SELECT sensor, ts, 'invalid' AS kind, 'it is below ' || CAST(:least AS varchar) AS reason, CAST(NULL AS varchar) AS "column"
        FROM readings WHERE temperature < :least AND ts >= :from AND ts < :to
        UNION ALL
        SELECT sensor, ts, 'invalid', 'no air is so wet', 'humidity' FROM readings WHERE humidity > 100
  warm:
    after: [cold]
    repair: sql
    of: cold
    with:
      query: |
        SELECT m.sensor, m.ts, n.celsius + 2 AS temperature, CAST(55 AS bigint) AS humidity
        FROM $missing m JOIN near n ON n.at = m.ts WHERE n.station = :station
      source: station
  still_cold: { after: [warm], verify: cold }
  gaps: { after: [still_cold], detect: gaps, with: { table: readings, from: 2024-03-04T00:00:00Z, to: 2024-03-04T12:00:00Z, keys: [a] } }
  fill: { after: [gaps], repair: backfill, of: gaps, with: { source: station } }
  still_missing: { after: [fill], verify: gaps }
  count: { after: [still_missing], task: sql, with: { query: "SELECT count(*) AS n, max(temperature) AS high, min(ts) AS first_at FROM readings_repaired" } }
"#;

#[tokio::test]
async fn sql_finds_repairs_answers_and_decides() {
    let world = World::new();
    let report = world.run(STEPS).await.unwrap_or_else(|error| panic!("{}", error.full()));
    let output = |step: &str, what: &str| report.step(step).unwrap().output[what].clone();
    assert_eq!((output("cold", "defective"), output("cold", "cells")), (2.into(), 1.into()), "{:?} {:?}", report.reason, report.problems);
    assert_eq!(output("still_cold", "defective"), 0);
    let reached = report.step("still_missing").map(|step| step.output["missing"].clone());
    assert_eq!(reached, Some(1.into()), "{:?} {:?}", report.reason, report.problems);
    assert_eq!(
        (output("count", "rows"), output("count", "first")["n"].clone(), output("count", "first")["high"].clone()),
        (1.into(), 11.into(), 21.0.into())
    );
    let view = world.view().await;
    let of = |hour: &str| {
        view.iter()
            .find(|row| row.contains(&format!("T{hour}:")))
            .unwrap_or_else(|| panic!("{view:?}"))
            .split(' ')
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    // The whole row, one cell, and a row that was missing. Of the eighth hour nobody knows.
    assert_eq!((of("03").as_str(), of("05").as_str(), of("07").as_str(), view.len()), ("13.0 55 sql", "15.0 55 -", "17.0 60 backfill", 11));
    // Another run finds nothing wrong: what is repaired is no longer found in the rows.
    let again = world.run(STEPS).await.unwrap();
    let cold = again.step("cold").unwrap();
    assert_eq!(
        (cold.output["defective"].clone(), cold.output["replaced"].clone(), cold.output["patched"].clone()),
        (0.into(), 1.into(), 1.into())
    );
}

#[tokio::test]
async fn what_a_query_cannot_mean_is_refused_before_anything_is_written() {
    let world = World::new();
    let detect = |query: &str| {
        format!(
            "steps:\n  look:\n    detect: sql\n    with: {{ table: readings, from: 2024-03-04, to: 2024-03-04, keys: [a], query: \"{query}\" }}\n"
        )
    };
    for (query, said) in [
        ("SELECT sensor, ts FROM readings WHERE ts > :form", "line 1, column 44 of the query names `:form`"),
        ("SELECT * FROM $missing", "names the relation `$missing`, and there is none here"),
        ("SELECT sensor, ts FROM readings WHERE temprature < 0", "`temprature`"),
        ("SELECT sensor FROM readings", "but not `ts`, the time column"),
        ("SELECT 'z' AS sensor, ts FROM readings", "which is none of the keys"),
        ("SELECT sensor, ts - INTERVAL '3 days' AS ts FROM readings", "which is outside the interval"),
        ("SELECT sensor, ts, 'missing' AS kind FROM readings", "is `missing`, and this step finds what is `invalid`"),
        ("SELECT sensor, ts, 'wind' AS \\\"column\\\" FROM readings", "column `wind` is wrong, and table `readings` has none"),
        ("SELECT sensor, ts, 'ts' AS \\\"column\\\" FROM readings", "by which rows"),
        ("SELECT sensor, CAST(NULL AS timestamp) AS ts FROM readings", "has no value in its key or time"),
        ("DROP TABLE readings", "DDL"),
        ("COPY readings TO 'x.csv'", ""),
        ("SELECT * FROM 'lake/readings/0.csv'", "not found"),
        ("SELECT sensor, ts FROM readings; DELETE FROM readings", ""),
        ("", "`query` is empty"),
    ] {
        let refusal = world.refusal(&detect(query)).await;
        assert!(refusal.contains(said), "{query}: {refusal}");
        assert!(!refusal.contains("bug"), "{refusal}");
    }
    let repair = |query: &str| {
        format!(
            "steps:\n  look: {{ detect: gaps, with: {{ table: readings, from: 2024-03-04T00:00:00Z, to: 2024-03-04T12:00:00Z, keys: [a] }} }}\n  \
             fill: {{ after: [look], repair: sql, of: look, with: {{ query: \"{query}\" }} }}\n"
        )
    };
    for (query, said) in [
        ("SELECT sensor, ts, temperature FROM readings", "which is not to be repaired"),
        ("SELECT sensor, ts, 1.0 AS temperature FROM $missing UNION ALL SELECT sensor, ts, 2.0 FROM $missing", "two rows of a at"),
        ("SELECT sensor, ts, 'warm' AS temperature FROM $missing", "table `readings` holds"),
        ("SELECT sensor, ts, 1.0 AS wind FROM $missing", "no such column"),
        ("SELECT sensor, ts, CAST('NaN' AS double) AS temperature FROM $missing", "gives NaN as `temperature` for a at"),
        ("SELECT sensor, ts, CAST('inf' AS double) AS temperature FROM $missing", "gives inf as `temperature` for a at"),
        ("SELECT sensor, ts, CAST(NULL AS double) AS temperature FROM $missing", "gives nothing but nulls for a at"),
        ("SELECT sensor, ts FROM $missing", "no columns but key and time"),
        ("SELECT sensor, ts, 1.0 AS temperature FROM $absent", "there is `$missing`"),
    ] {
        let refusal = world.refusal(&repair(query)).await;
        assert!(refusal.contains(said), "{query}: {refusal}");
    }
    assert!(!world.0.path().join("lake/readings_repairs").exists());
}

/// What is wrong with a query is known before the first step, and where it is in the file.
#[tokio::test]
async fn a_mistake_in_a_query_has_its_place_in_the_file() {
    let world = World::new();
    let steps = "steps:\n  look: { detect: gaps, with: { table: readings, from: 2024-03-04, to: 2024-03-04, keys: [a] } }\n  fill:\n    after: [look]\n    \
                 repair: sql\n    of: look\n    with:\n      query: |\n        SELECT sensor, ts, 1.0 AS temperature\n        FROM $missing WHERE BROKEN\n";
    for (broken, said, column) in [
        ("ts > :untl", "names `:untl`", 34),
        ("wnd > 1", "column `wnd`", 29),
        ("ts < < 1", "Line: 2", 36),
        ("no_such(ts) > 1", "no_such", 1),
        ("ts IN (SELECT ts FROM nothing)", "nothing", 1),
    ] {
        let refusal = world.refusal(&steps.replace("BROKEN", broken)).await;
        let place = match column {
            1 => "w.yaml:17:9".to_owned(),
            column => format!("w.yaml:18:{column}"),
        };
        assert!(refusal.contains(said) && refusal.contains(&place), "{broken}: {refusal}");
    }
    assert!(!world.0.path().join("lake/.repair/runs").exists(), "nothing was begun");
}

/// A parameter is a value, whatever it looks like.
#[tokio::test]
async fn a_parameter_changes_no_statement() {
    let world = World::new();
    let steps = "steps:\n  count: { task: sql, with: { query: \"SELECT count(*) AS n FROM near WHERE station = :station\" } }\n";
    drop(world.open(steps).await.unwrap());
    for (station, count) in [("b", 11), ("b' OR '1' = '1", 0), ("'; DROP TABLE near; --", 0), (":least", 0), ("\\", 0)] {
        let opened = Repair::open(world.0.path().join("w.yaml")).lake(world.0.path().join("lake")).param("station", station).connect();
        let report = opened
            .await
            .unwrap_or_else(|error| panic!("{station}: {}", error.full()))
            .run()
            .await
            .unwrap_or_else(|error| panic!("{}", error.full()));
        assert_eq!(report.step("count").unwrap().output["first"]["n"], count, "{station}");
    }
}

/// Slots that a query names and that are not there; nothing else is expected.
#[tokio::test]
async fn a_query_says_which_rows_are_missing() {
    let world = World::new();
    let steps = r#"
steps:
  look:
    detect: sql
    with:
      table: readings
      kind: missing
      from: 2024-03-04T00:00:00Z
      to: 2024-03-04T12:00:00Z
      keys: [a]
      query: SELECT 'a' AS sensor, at AS ts FROM near WHERE at >= :from AND at < :to
  fill: { after: [look], repair: sql, of: look, with: { query: "SELECT sensor, ts, CAST(20 AS double) AS temperature, CAST(1 AS bigint) AS humidity FROM $missing" } }
  check: { after: [fill], verify: look }
"#;
    let report = world.run(steps).await.unwrap_or_else(|error| panic!("{}", error.full()));
    let look = &report.step("look").unwrap().output;
    assert_eq!((&look["missing"], &look["expected"], &look["present"]), (&1.into(), &11.into(), &10.into()));
    assert_eq!(report.step("check").unwrap().output["missing"], 0);
    assert_eq!(world.view().await.len(), 11);
}
