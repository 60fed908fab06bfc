//! `repair report`: one page about a run or a table, with the numbers of the other commands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use crate::common::{SYMBOLS, World};
use serde_json::Value;

/// A report as JSON, and the page of the same.
fn report(world: &World, of: &str) -> (Value, String) {
    let json = world.json(&["report", of]);
    let page = world.write("page.html", "");
    let said = world.text(&["report", of, "--out", page.to_str().unwrap()]);
    assert_eq!(said.trim(), format!("{}\n{}", json["sentence"].as_str().unwrap(), page.display()));
    (json, std::fs::read_to_string(page).unwrap())
}

fn sum(rows: &Value, name: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| row[name].as_u64().unwrap()).sum()
}

#[test]
fn its_numbers_are_those_of_show_and_costs_and_its_pictures_add_up_to_them() {
    let world = World::new();
    assert_eq!(world.run_json(&world.workflow(&[]), &["--run-id", "monday"]).1, 0);
    let (json, page) = report(&world, "monday");
    let (show, costs) = (world.json(&["show", "monday"]), world.json(&["costs", "monday"]));
    let numbers = &json["numbers"];
    let found = &show["steps"]["find_gaps"]["output"];
    assert_eq!((&numbers["expected"], &numbers["found"], &numbers["left"]), (&found["expected"], &found["missing"], &show["missing"]));
    assert_eq!((&numbers["repaired"], &numbers["absent"]), (&costs["total"]["rows_repaired"], &costs["total"]["slots_absent"]));
    assert_eq!((&numbers["repaired"], &numbers["absent"]), (&world.dropped.into(), &world.quiet.into()));

    // The picture, the listings and the numbers say the same.
    let table = &json["tables"][0];
    let total = &table["total"];
    let [expected, repaired, absent] = ["expected", "repaired", "absent"].map(|name| numbers[name].as_u64().unwrap());
    assert_eq!(
        (&total["expected"], &total["repaired"], &total["absent"], &total["missing"]),
        (&expected.into(), &repaired.into(), &absent.into(), &0.into())
    );
    assert_eq!(total["own"], expected - repaired - absent);
    let cells = |name: &str| table["keys"].as_array().unwrap().iter().map(|key| sum(&key["cells"], name)).sum::<u64>();
    assert_eq!((cells("expected"), cells("repaired"), cells("absent")), (expected, repaired, absent));
    let (defects, fixes, exceptions) = (&json["defects"]["rows"], &json["fixes"]["rows"], &json["exceptions"]["rows"]);
    assert_eq!((sum(defects, "slots"), sum(defects, "repaired"), sum(defects, "absent")), (repaired + absent, repaired, absent));
    assert_eq!((sum(fixes, "slots"), sum(exceptions, "slots")), (repaired, absent));

    for symbol in SYMBOLS {
        assert!(page.contains(&format!(">{symbol}</text>")), "{symbol} is not in the page");
    }
    for what in ["Content-Security-Policy", "Candles of hourly", "The path that the run took", "All defects as CSV", "Nothing is left."] {
        assert!(page.contains(what), "`{what}` is not in the page");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "the page refers to the network");

    // What is undone is not in the picture any more, and is listed as undone.
    world.text(&["undo", "monday"]);
    let (undone, _) = report(&world, "monday");
    assert_eq!(undone["tables"][0]["total"]["missing"], repaired + absent);
    assert!(undone["fixes"]["rows"].as_array().unwrap().iter().all(|fix| fix["retracted_by"].is_string()));

    // The same of the table: what is there now.
    let (table, page) = report(&world, "bars");
    assert_eq!((&table["numbers"]["found"], &table["numbers"]["left"]), (&(repaired + absent).into(), &(repaired + absent).into()));
    assert!(page.contains("Table bars") && !page.contains("The path that the run took"));
    let (_, error, code) = world.said(&["report", "barz"]);
    assert!(
        code != 0 && error.contains("`barz` is neither a run in this lake nor a table that a run has examined; did you mean `bars`?"),
        "{error}"
    );
}

/// A table is looked at as a workflow declares it, without a run and without writing anything.
#[test]
fn a_table_that_no_run_has_examined_has_a_report() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    let file = workflow.to_str().unwrap();
    let missing = (world.dropped + world.quiet) as u64;
    let before = crate::common::files(&world.lake());
    let json = world.json(&["report", "bars", "--workflow", file]);
    let numbers = |json: &Value| ["expected", "found", "repaired", "absent", "left"].map(|name| json["numbers"][name].as_u64().unwrap());
    assert_eq!(numbers(&json), [1_170, missing, 0, 0, missing], "{json}");
    let total = &json["tables"][0]["total"];
    assert_eq!((&total["own"], &total["missing"]), (&(1_170 - missing).into(), &missing.into()));
    assert_eq!(sum(&json["defects"]["rows"], "slots"), missing);
    assert_eq!(json["subject"]["table"]["run"], Value::Null, "{}", json["subject"]);
    let page = world.lake().parent().unwrap().join("repair-report-bars.html");
    let said = world.text(&["report", "bars", "--workflow", file]);
    assert_eq!(said.trim(), format!("{}\nrepair-report-bars.html", json["sentence"].as_str().unwrap()));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(
        page.contains("Table bars")
            && page.contains("workflow ticker says what is expected")
            && !page.contains("The path that the run took")
    );
    assert_eq!(crate::common::files(&world.lake()), before, "something was written");
    assert!(!world.lake().join(".repair").exists(), "something was written");
    // A part of time: the first hour of the session.
    let hour = world.json(&["report", "bars", "--workflow", file, "--from", "2024-03-04T14:30:00Z", "--to", "2024-03-04T15:30:00Z"]);
    let [expected, found, ..] = numbers(&hour);
    assert!(expected == 180 && found > 0 && found < missing, "{hour}");
    // After a run it shows what was repaired, as the report on the table does.
    assert_eq!(world.run_json(&workflow, &["--run-id", "monday"]).1, 0);
    let (of_run, now) = (world.json(&["report", "bars"]), world.json(&["report", "bars", "--workflow", file]));
    assert_eq!(numbers(&now), [1_170, missing, world.dropped as u64, world.quiet as u64, 0]);
    for part in ["numbers", "sentence", "tables", "fixes", "exceptions"] {
        let without_step = |json: &Value| if part == "tables" { json[part][0]["keys"].clone() } else { json[part].clone() };
        assert_eq!(without_step(&now), without_step(&of_run), "{part}");
    }
    // Where no step looks for missing rows, the table's own keys are expected, and a time has to be given.
    let plain = "workflow: w\nkind: dag\ntables:\n  bars: { location: bars, format: csv, key: [symbol], keys: [AIG], time: ts, cadence: 1m }\nsteps:\n  rest: \
                 { wait: { for: 1s } }\nprofiles:\n  local: { lake: local, with: { root: ./lake } }\n";
    world.write("plain.yaml", plain);
    let (_, err, code) = world.said(&["report", "bars", "--workflow", "plain.yaml"]);
    assert!(code == 2 && err.contains("nothing says which time is meant"), "{code} {err}");
    let json = world.json(&["report", "bars", "--workflow", "plain.yaml", "--from", "2024-03-04", "--to", "2024-03-04"]);
    assert_eq!(json["numbers"]["expected"], 1_440);
    let (_, err, code) = world.said(&["report", "barz", "--workflow", "plain.yaml"]);
    assert!(code == 2 && err.contains("did you mean `bars`?"), "{code} {err}");
}

const HOSTILE: &str = "\
workflow: hostile
kind: state-machine
tables:
  bars: { location: hostile, format: csv, key: [symbol], time: ts, cadence: 1h }
start: find
steps:
  find:
    detect: gaps
    with: { table: bars, keys: ['<script>alert(1)</script>', \"esc\\e[31m\\u202e\"], from: 2024-03-04, to: 2024-03-04 }
    next: fill
  fill: { repair: carry-forward, of: find, with: { max_age: 3h }, end: true }
";

#[test]
fn a_key_that_is_a_script_or_a_terminal_escape_is_shown_and_does_nothing() {
    let world = World::new();
    let key = "<script>alert(1)</script>";
    let rows: String = (0..24).filter(|hour| hour % 5 != 3).map(|hour| format!("{key},2024-03-04T{hour:02}:00:00Z,{hour}.5\n")).collect();
    std::fs::create_dir(world.lake().join("hostile")).unwrap();
    std::fs::write(world.lake().join("hostile/day.csv"), format!("symbol,ts,value\n{rows}")).unwrap();
    world.run_json(&world.write("hostile.yaml", HOSTILE), &["--run-id", "hostile"]);
    let (json, page) = report(&world, "hostile");
    assert_eq!(json["tables"][0]["keys"][0]["key"], key);
    assert!(json["tables"][0]["series"]["points"].as_array().is_some_and(|points| !points.is_empty()));
    assert!(!page.contains("<script>alert"), "the key has become a script");
    assert!(!page.contains(['\u{1b}', '\u{202e}']), "a control character is in the page");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("esc\\u{1b}[31m\\u{202e}"), "a key is not shown");
}

#[test]
fn a_blind_run_has_a_report_that_says_so_and_shows_nothing_as_complete() {
    let world = World::new();
    let blind = world.workflow(&[("from: 2024-03-04, to: 2024-03-04", "from: 1824-03-04, to: 1824-03-04")]);
    let (_, code) = world.run_json(&blind, &["--run-id", "blind"]);
    assert_eq!(code, 3);
    let (json, page) = report(&world, "blind");
    assert!(json["sentence"].as_str().unwrap().starts_with("The run was blind: "), "{}", json["sentence"]);
    assert_eq!((&json["numbers"]["expected"], json["tables"].as_array().map(Vec::len)), (&0.into(), Some(0)));
    assert!(page.contains("This does not mean that nothing is missing.") && !page.contains("Nothing is left."));
}

#[test]
fn what_no_step_looked_for_is_not_called_complete() {
    let world = World::new();
    let invalid = "\
workflow: invalid
kind: state-machine
tables:
  bars: { location: bars, format: csv, key: [symbol], time: ts, cadence: 1m }
start: find
steps:
  find:
    detect: invalid
    with:
      table: bars
      keys: [AIG, BAC, SPY]
      calendar: XNYS
      from: 2024-03-04
      to: 2024-03-04
      rules: [{ column: close, min: 0 }]
    end: true
";
    assert_eq!(world.run_json(&world.write("invalid.yaml", invalid), &["--run-id", "invalid"]).1, 0);
    let (json, _) = report(&world, "invalid");
    let missing = world.dropped + world.quiet;
    let expected =
        format!("Of 1,170 expected slots of table bars, nothing was wrong; {missing} slots without a row, for which no step looked.");
    assert_eq!((json["sentence"].as_str(), &json["tables"][0]["total"]["missing"]), (Some(expected.as_str()), &missing.into()));
}
