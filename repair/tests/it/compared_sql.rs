//! Strategies that run SQL are compared: a query sees nothing that is hidden from other strategies, and all that is not.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::fmt::Write;
use std::path::Path;

use repair::Repair;
use repair::compare::{CompareReport, Pattern, StrategyReport};

const HOURS: u32 = 240;

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Ten days of hours, and a station near by that is two degrees colder. The humidity says which hour it is, so whoever sees it knows the temperature.
fn world() -> tempfile::TempDir {
    let world = tempfile::tempdir().unwrap();
    let (mut readings, mut near) = ("sensor,ts,temperature,humidity\n".to_owned(), "station,at,celsius\n".to_owned());
    for hour in 0..HOURS {
        let at = format!("2024-03-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24);
        let temperature = 10.0 + f64::from(hour % 24) + f64::from(hour / 24) / 4.0;
        writeln!(readings, "a,{at},{temperature},{hour}").unwrap();
        writeln!(near, "b,{at},{}", temperature - 2.0).unwrap();
    }
    write(world.path(), "lake/readings/0.csv", &readings);
    write(world.path(), "lake/near/0.csv", &near);
    world
}

const HEAD: &str = "workflow: w\nkind: dag\nparams:\n  station: { type: string, default: b }\ntables:\n  readings: { location: readings, format: csv, key: [sensor], time: ts, \
                    cadence: 1h, columns: { temperature: { type: number }, humidity: { type: integer } } }\n  near: { location: near, format: csv, key: [station], time: at, \
                    cadence: 1h, columns: { celsius: { type: number } } }\n  days: { location: days, format: parquet, key: [sensor], time: day }\n";

const SOURCES: &str = r#"
sources:
  station:
    source: sql
    with:
      query: |
        SELECT k.sensor, n.at AS ts, n.celsius + 2 AS temperature, CAST(1 AS bigint) AS humidity
        FROM near n CROSS JOIN $keys k WHERE n.station = :station AND n.at >= :from AND n.at < :to
  itself:
    source: sql
    with: { query: "SELECT sensor, ts, temperature, humidity FROM readings_repaired WHERE ts >= :from AND ts < :to" }
"#;

async fn compared(world: &tempfile::TempDir, steps: &str) -> CompareReport {
    write(world.path(), "w.yaml", &format!("{HEAD}{SOURCES}steps:\n{steps}"));
    let opened = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await;
    let repair = opened.unwrap_or_else(|error| panic!("{}", error.full()));
    let report = repair.compare().columns(["temperature"]).share("10%".parse().unwrap()).pattern(Pattern::Runs).seed(7).await;
    report.unwrap_or_else(|error| panic!("{}", error.full()))
}

fn of<'a>(report: &'a CompareReport, name: &str) -> &'a StrategyReport {
    let names: Vec<&str> = report.strategies.iter().map(|strategy| strategy.name.as_str()).collect();
    report.strategies.iter().find(|strategy| strategy.name == name).unwrap_or_else(|| panic!("{name} is none of {names:?}"))
}

const MISSING: &str = r#"
  look: { detect: gaps, with: { table: readings, from: 2024-03-01, to: 2024-03-10, keys: [a] } }
  fill:
    after: [look]
    repair:
      - strategy: sql
        name: near
        with: { query: "SELECT m.sensor, m.ts, n.celsius + 2 AS temperature FROM $missing m JOIN near n ON n.at = m.ts WHERE n.station = :station" }
      - strategy: sql
        name: cheat
        with: { query: "SELECT m.sensor, m.ts, r.temperature FROM $missing m JOIN readings r ON r.sensor = m.sensor AND r.ts = m.ts" }
      - strategy: sql
        name: cheat_view
        with: { query: "SELECT m.sensor, m.ts, r.temperature FROM $missing m JOIN readings_repaired r ON r.sensor = m.sensor AND r.ts = m.ts" }
      - strategy: sql
        name: count
        with: { query: "SELECT m.sensor, m.ts, CAST((SELECT count(*) FROM readings) AS double) AS temperature FROM $missing m" }
      - strategy: sql
        name: even
        with: { query: "SELECT m.sensor, m.ts, n.celsius + 2 AS temperature FROM $missing m JOIN near n ON n.at = m.ts WHERE extract(hour FROM m.ts) % 2 = 0" }
      - strategy: sql
        name: hour_before
        with: { query: "SELECT m.sensor, m.ts, r.temperature + 1 AS temperature FROM $missing m JOIN readings_repaired r ON r.ts = m.ts - INTERVAL '1 hour' WHERE r.repaired_by = 'even'" }
      - strategy: backfill
        name: ask
        with: { source: station }
      - strategy: backfill
        name: ask_itself
        with: { source: itself }
    of: look
  sum:
    after: [fill]
    aggregate: sql
    of: look
    with: { into: days, query: "SELECT sensor, date_trunc('day', ts) AS day, sum(temperature) AS warmth FROM readings_repaired GROUP BY 1, 2" }
"#;

#[tokio::test]
async fn a_query_sees_no_hidden_row_and_what_the_strategy_before_it_has_repaired() {
    let world = world();
    let report = compared(&world, MISSING).await;
    let hidden = report.hidden;
    assert!(hidden > 10, "{hidden}");
    let near = of(&report, "near");
    assert_eq!((near.repaired, near.loss, near.left), (hidden, 0.0, 0), "{:?}", near.problems);
    for cheat in ["cheat", "cheat_view", "ask_itself", "hour_before"] {
        let cheat = of(&report, cheat);
        assert_eq!((cheat.repaired, cheat.left, cheat.loss), (0, hidden, 1.0), "{}: {:?}", cheat.name, cheat.problems);
    }
    assert_eq!(of(&report, "ask").loss, 0.0, "{:?}", of(&report, "ask").problems);
    // All other rows are there: each guess is how many.
    let count = of(&report, "count");
    let truth = f64::from(u32::try_from(u64::from(HOURS) - hidden).unwrap());
    let bias = count.columns["temperature"].bias.unwrap();
    let mean = report.strategies.iter().find(|strategy| strategy.name == "count").unwrap().columns["temperature"].count;
    assert_eq!((count.repaired, mean), (hidden, hidden), "{:?}", count.problems);
    assert!((truth - 36.0..truth - 9.0).contains(&bias), "a temperature of 10 to 36 is guessed as {truth}, and the bias is {bias}");
    // The chain of the step: what `near` repairs leaves nothing. Of the two here, the second sees what the first has repaired.
    assert_eq!(of(&report, "fill").loss, 0.0);
    let days = |name: &str| &of(&report, name).aggregates["days"];
    assert_eq!((days("near").rows, days("near").differ, days("near").unmatched), (10, 0, 0), "{:?}", report.not_compared);
    assert!(days("cheat").differ > 0 && report.not_compared.is_empty(), "{:?}", report.not_compared);
}

#[tokio::test]
async fn in_a_chain_a_query_sees_the_repairs_before_it_and_no_more() {
    let world = world();
    write(world.path(), "w.yaml", &format!("{HEAD}{SOURCES}steps:\n{MISSING}"));
    let repair = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await.unwrap();
    let chain = "even+hour_before";
    let report = repair.compare().columns(["temperature"]).strategies([chain]).pattern(Pattern::Runs).seed(7).await.unwrap();
    let chain = of(&report, chain);
    let [even, before] = &chain.chain[..] else { panic!("{:?}", chain.chain) };
    assert!(even.repaired > 0 && before.repaired > 0, "{chain:?}");
    // An odd hour is a degree warmer than the one before.
    assert_eq!(
        (chain.repaired, chain.columns["temperature"].worst_absolute),
        (even.repaired + before.repaired, Some(0.0)),
        "{:?}",
        chain.problems
    );
    assert!(!world.path().join("lake/readings_repairs").exists(), "nothing is written");
}

#[tokio::test]
async fn a_query_sees_no_hidden_cell_and_the_others_of_its_row() {
    let world = world();
    let steps = r#"
  look: { detect: invalid, with: { table: readings, from: 2024-03-01, to: 2024-03-10, keys: [a], rules: [{ column: temperature, min: 0, max: 60 }] } }
  fill:
    after: [look]
    repair:
      - strategy: sql
        name: near
        with: { query: "SELECT m.sensor, m.ts, n.celsius + 2 AS temperature FROM $missing m JOIN near n ON n.at = m.ts" }
      - strategy: sql
        name: cheat
        with: { query: "SELECT m.sensor, m.ts, r.temperature FROM $missing m JOIN readings r ON r.ts = m.ts WHERE r.temperature IS NOT NULL" }
      - strategy: sql
        name: row
        with: { query: "SELECT m.sensor, m.ts, 10.0 + r.humidity % 24 + (r.humidity / 24) / 4.0 AS temperature FROM $missing m JOIN readings_repaired r ON r.ts = m.ts WHERE r.temperature IS NULL" }
      - strategy: sql
        name: even
        with: { query: "SELECT m.sensor, m.ts, n.celsius + 2 AS temperature FROM $missing m JOIN near n ON n.at = m.ts WHERE extract(hour FROM m.ts) % 2 = 0" }
      - strategy: sql
        name: hour_before
        with: { query: "SELECT m.sensor, m.ts, r.temperature + 1 AS temperature FROM $missing m JOIN readings_repaired r ON r.ts = m.ts - INTERVAL '1 hour' WHERE r.repaired_cells IS NOT NULL" }
    of: look
"#;
    let report = compared(&world, steps).await;
    let hidden = report.hidden;
    for right in ["near", "row"] {
        let right = of(&report, right);
        assert_eq!((right.repaired, right.loss), (hidden, 0.0), "{}: {:?}", right.name, right.problems);
    }
    let cheat = of(&report, "cheat");
    assert_eq!((cheat.repaired, cheat.loss), (0, 1.0), "{:?}", cheat.problems);
    let repair = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await.unwrap();
    let chain = "even+hour_before";
    let report = repair.compare().columns(["temperature"]).strategies([chain]).pattern(Pattern::Runs).seed(7).await.unwrap();
    let chain = of(&report, chain);
    assert!(chain.chain.iter().all(|link| link.repaired > 0), "{chain:?}");
    assert_eq!(chain.columns["temperature"].worst_absolute, Some(0.0), "{chain:?}");
}

/// A table of the workflow that lies where the hidden rows are, under another name.
#[tokio::test]
async fn the_same_files_under_another_name_show_no_more() {
    let world = world();
    let steps = r#"
  look: { detect: gaps, with: { table: readings, from: 2024-03-01, to: 2024-03-10, keys: [a] } }
  fill: { after: [look], repair: sql, of: look, with: { query: "SELECT m.sensor, m.ts, r.temperature FROM $missing m JOIN alias r ON r.ts = m.ts" } }
  view: { after: [fill], repair: sql, of: look, with: { query: "SELECT m.sensor, m.ts, r.temperature FROM $missing m JOIN alias_repaired r ON r.ts = m.ts" } }
"#;
    let alias = "  alias: { location: ./readings, format: csv, key: [sensor], time: ts, cadence: 1h, columns: { temperature: { type: number }, humidity: { type: integer } } }\n";
    write(world.path(), "w.yaml", &format!("{HEAD}{alias}{SOURCES}steps:\n{steps}"));
    let repair = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await;
    let report = repair.unwrap_or_else(|error| panic!("{}", error.full())).compare().pattern(Pattern::Runs).await.unwrap();
    for strategy in &report.strategies {
        assert_eq!((strategy.repaired, strategy.failed, strategy.units > 0), (0, 0, true), "{}: {:?}", strategy.name, strategy.problems);
    }
}
