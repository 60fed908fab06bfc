//! Reading what was repaired: `export`, `gaps`, `query` and `view`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{World, files};
use serde_json::{Value, json};

/// A key that is hostile to CSV, and to terminals.
const HOSTILE: &str = "a,\"b\"\u{1b}[31m\u{202e}";

const READINGS: &str = "\
workflow: readings
kind: state-machine
tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h }
sources:
  vendor: { source: stocks.archive, with: { location: vendor, format: csv } }
start: find
steps:
  find:
    detect: gaps
    with: { table: readings, keys: [co, \"a,\\\"b\\\"\\e[31m\\u202e\"], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T04:00:00Z\" }
    next: NEXT
  fill: { repair: backfill, of: find, with: { source: vendor }, next: check }
  check: { verify: find, next: sum }
  sum:
    aggregate: sql
    with: { into: sums, query: \"SELECT date_trunc('day', ts) AS day, count(*) AS n FROM readings_repaired GROUP BY 1\" }
    end: true
  done: { succeed: true }
profiles:
  local: { lake: local, with: { root: ./lake } }
";

fn row(key: &str, hour: u32, value: &str) -> String {
    format!("\"{}\",2024-03-04T{hour:02}:00:00Z,{value}\n", key.replace('"', "\"\""))
}

/// A lake with two sensors and three holes, one of which not even the vendor can fill.
fn holes() -> World {
    let world = World::new();
    let values = ["0.1", "1e300", "-2.5", "0.30000000000000004"];
    let of = |key: &str, hours: &[u32]| hours.iter().map(|hour| row(key, *hour, values[*hour as usize])).collect::<String>();
    for (name, text) in
        [("readings", of("co", &[0, 2, 3]) + &of(HOSTILE, &[0, 2])), ("vendor", of("co", &[0, 1, 2, 3]) + &of(HOSTILE, &[0, 2, 3]))]
    {
        std::fs::create_dir(world.lake().join(name)).unwrap();
        std::fs::write(world.lake().join(name).join("day.csv"), format!("sensor,ts,value\n{text}")).unwrap();
    }
    world
}

/// Runs the workflow; `next` is where it goes after looking.
fn run(world: &World, id: &str, next: &str) -> PathBuf {
    let mut text = READINGS.replace("NEXT", next);
    if next == "done" {
        let (head, tail) = (text.find("  fill:").unwrap(), text.find("  done:").unwrap());
        text.replace_range(head..tail, "");
    } else {
        text = text.replace("  done: { succeed: true }\n", "");
    }
    let workflow = world.write("readings.yaml", &text);
    assert_eq!(world.run_json(&workflow, &["--run-id", id]).1, 0);
    workflow
}

/// What a command says that is refused.
fn refused(world: &World, arguments: &[&str]) -> String {
    let (out, error, code) = world.said(arguments);
    assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {error}");
    error
}

#[test]
fn a_repaired_table_is_exported_to_the_last_digit_and_says_which_rows_are_repaired() {
    let world = holes();
    run(&world, "first", "fill");
    let before = files(&world.lake());
    let said = world.text(&["export", "readings", "--out", "readings.csv"]);
    assert_eq!(said, "7 rows of table readings written to readings.csv: 2 of them repaired, 0 with repaired cells\n");
    let hostile = HOSTILE.replace('"', "\"\"");
    let expected = format!(
        "sensor,ts,value,repaired_by,repaired_cells
co,2024-03-04T00:00:00Z,0.1,,
co,2024-03-04T02:00:00Z,-2.5,,
co,2024-03-04T03:00:00Z,0.30000000000000004,,
\"{hostile}\",2024-03-04T00:00:00Z,0.1,,
\"{hostile}\",2024-03-04T02:00:00Z,-2.5,,
\"{hostile}\",2024-03-04T03:00:00Z,0.30000000000000004,backfill,
co,2024-03-04T01:00:00Z,1e300,backfill,
"
    );
    let folder = world.lake().parent().unwrap().to_owned();
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&std::fs::read_to_string(folder.join("readings.csv")).unwrap()), sorted(&expected));
    // The same on standard output; and what was said of it, elsewhere.
    let (out, error, code) = world.said(&["export", "readings", "--out", "-", "--format", "csv"]);
    assert_eq!((sorted(&out), code), (sorted(&expected), 0));
    assert_eq!(error, "7 rows of table readings written: 2 of them repaired, 0 with repaired cells\n");

    // Some of it: one series, a part of the day, the table's own rows, as JSON.
    let part = ["export", "readings", "--key", HOSTILE, "--from", "2024-03-04T02:00:00Z", "--to", "2024-03-04T04:00:00Z"];
    let (out, _, _) = world.said(&[&part[..], &["--out", "-", "--format", "jsonl"]].concat());
    let mut rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["ts"].to_string());
    let of =
        |ts: &str, value: f64, by: Value| json!({ "sensor": HOSTILE, "ts": ts, "value": value, "repaired_by": by, "repaired_cells": null });
    assert_eq!(rows, [of("2024-03-04T02:00:00Z", -2.5, Value::Null), of("2024-03-04T03:00:00Z", 0.1 + 0.2, "backfill".into())]);
    let raw = world.json(&[&part[..], &["--layer", "raw", "--out", "part.parquet"]].concat());
    assert_eq!((&raw["rows"], &raw["repaired"], &raw["layer"]), (&1.into(), &0.into(), &"raw".into()), "{raw}");
    assert_eq!(&std::fs::read(folder.join("part.parquet")).unwrap()[..4], b"PAR1");
    // Nothing there is not nothing known: the columns are.
    let none = ["export", "readings", "--from", "2025-01-01", "--to", "2025-01-01", "--out", "-", "--format", "csv"];
    assert_eq!(world.said(&none).0, "sensor,ts,value,repaired_by,repaired_cells\n");
    assert!(refused(&world, &["export", "readings", "--key", "cp", "--out", "x.csv"]).contains("did you mean `co`?"));
    assert!(refused(&world, &["export", "reading", "--out", "x.csv"]).contains("no run here has had a table `reading`"));
    assert_eq!(files(&world.lake()), before, "reading has changed the lake");
}

#[test]
fn no_file_is_replaced_unasked_and_none_is_written_where_the_lake_keeps_its_own() {
    let world = holes();
    run(&world, "first", "fill");
    let kept = world.write("kept.csv", "mine");
    let said = refused(&world, &["export", "readings", "--out", "kept.csv"]);
    assert_eq!(said, "error: kept.csv is there already, and was not changed; replace it with --force, or name another file with --out\n");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "mine");
    world.text(&["export", "readings", "--out", "kept.csv", "--force"]);
    assert!(std::fs::read_to_string(&kept).unwrap().starts_with("sensor,"));

    let before = files(&world.lake());
    for (place, words) in [
        ("lake/readings/x.csv", "where table `readings` lies"),
        ("lake/vendor/x.csv", "where table `vendor` lies"),
        ("lake/sums/x.csv", "where table `sums` lies"),
        ("lake/readings_repairs/x.csv", "in readings_repairs, which is named like the repairs of a table"),
        ("lake/.repair/x.csv", "in .repair, where the lake keeps what it knows about runs"),
        ("nowhere/x.csv", "there is no folder nowhere; create it"),
        ("s3://bucket/x.csv", "is in S3"),
        ("x.xlsx", "use --format csv, jsonl or parquet"),
    ] {
        for force in [&[][..], &["--force"]] {
            let said = refused(&world, &[&["export", "readings", "--out", place], force].concat());
            assert!(said.contains(words), "{place}: {said}");
        }
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(world.lake().join("readings"), world.lake().parent().unwrap().join("link")).unwrap();
        assert!(refused(&world, &["export", "readings", "--out", "link/x.csv"]).contains("where table `readings` lies"));
    }
    assert!(refused(&world, &["export", "readings", "--out", "-", "--format", "parquet"]).contains("name a file with --out FILE"));
    assert_eq!(files(&world.lake()), before);
}

#[test]
fn repaired_cells_are_exported_with_the_rest_of_their_row() {
    let world = World::new();
    let folder = world.lake().join("power");
    std::fs::create_dir(&folder).unwrap();
    let rows: String =
        (0..6).map(|hour| format!("2024-03-04T{hour:02}:00:00Z,{},n{hour}\n", if hour == 3 { 99_999 } else { 10 * hour })).collect();
    std::fs::write(folder.join("day.csv"), format!("ts,mw,note\n{rows}")).unwrap();
    let workflow = "\
workflow: power
kind: state-machine
tables:
  power: { location: power, format: csv, time: ts, cadence: 1h }
start: find
steps:
  find:
    detect: invalid
    with: { table: power, from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T06:00:00Z\", rules: [{ column: mw, max: 1000 }] }
    next: fix
  fix: { repair: interpolate, of: find, with: { max_gap: 3h }, end: true }
";
    assert_eq!(world.run_json(&world.write("power.yaml", workflow), &["--run-id", "one"]).1, 0);
    let (out, said, _) = world.said(&["export", "power", "--out", "-", "--format", "csv"]);
    let expected = "ts,mw,note,repaired_by,repaired_cells
2024-03-04T00:00:00Z,0,n0,,
2024-03-04T01:00:00Z,10,n1,,
2024-03-04T02:00:00Z,20,n2,,
2024-03-04T03:00:00Z,30,n3,,\"{\"\"mw\"\":\"\"interpolate\"\"}\"
2024-03-04T04:00:00Z,40,n4,,
2024-03-04T05:00:00Z,50,n5,,
";
    assert_eq!(out, expected);
    assert_eq!(said, "6 rows of table power written: 0 of them repaired, 1 with repaired cells\n");
    // No step has looked again since, and the list says so.
    let gaps = world.text(&["gaps", "one"]);
    assert!(gaps.contains("note: 1 slot of step find repaired or confirmed absent since; no step has looked again"), "{gaps}");
}

#[test]
fn a_table_that_was_computed_is_exported_too_and_says_where_it_is_stale() {
    let world = holes();
    run(&world, "first", "fill");
    assert_eq!(world.said(&["export", "sums", "--out", "-", "--format", "csv"]).0, "day,n\n2024-03-04T00:00:00Z,7\n");
    world.run_json(&world.workflow(&[]), &["--run-id", "bars"]);
    let hourly = world.json(&["export", "hourly", "--out", "hourly.jsonl", "--key", "AIG"]);
    assert_eq!((&hourly["rows"], &hourly["layer"], &hourly["stale"]), (&7.into(), &"raw".into(), &json!([])), "{hourly}");
    world.text(&["undo", "bars"]);
    let (_, said, code) = world.said(&["export", "hourly", "--out", "-", "--format", "jsonl"]);
    assert!(code == 0 && said.contains("note: stale in ") && said.contains("have been undone since"), "{said}");
}

#[test]
fn what_programs_read_says_its_format_and_what_a_spreadsheet_would_compute_is_text() {
    let world = holes();
    run(&world, "first", "fill");
    let (lines, _, code) = world.said(&["logs", "first", "--json"]);
    assert!(code == 0 && lines.lines().count() > 5);
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["format"] == 1 && event["event"].is_object(), "{line}");
    }
    // The word for the latest run is no id of a run, since no command would find that run.
    let workflow = world.write("readings.yaml", &READINGS.replace("NEXT", "fill").replace("  done: { succeed: true }\n", ""));
    let said = refused(&world, &["run", workflow.to_str().unwrap(), "--run-id", "last"]);
    assert!(said.contains("`last` is not a valid run id") && said.contains("use another"), "{said}");

    let world = World::new();
    std::fs::create_dir(world.lake().join("readings")).unwrap();
    let row = |key: &str| format!("\"{key}\",s,2024-03-04T00:00:00Z,1\n");
    std::fs::write(world.lake().join("readings/a.csv"), format!("site,sensor,ts,value\n{}", row("Smith, J"))).unwrap();
    let workflow = "\
workflow: keys
kind: state-machine
params: { sites: { type: list, default: [x] } }
tables:
  readings: { location: readings, format: csv, key: [site, sensor], time: ts, cadence: 1h }
start: find
steps:
  find:
    detect: gaps
    with: { table: readings, keys: [[\"Smith, J\", s], [\"=1+1\", s]], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T02:00:00Z\" }
    end: true
";
    let workflow = world.write("keys.yaml", workflow);
    assert_eq!(world.run_json(&workflow, &["--run-id", "keys"]).1, 0);
    let mut cells: Vec<String> = world.said(&["gaps", "keys", "--csv"]).0.lines().skip(1).map(str::to_owned).collect();
    cells.sort();
    assert_eq!(
        cells,
        [
            "find,readings,missing,\"\"\"Smith, J\"\",s\",2024-03-04T01:00:00Z,2024-03-04T02:00:00Z,1",
            "find,readings,missing,\"'=1+1,s\",2024-03-04T00:00:00Z,2024-03-04T02:00:00Z,2",
        ]
    );
    // A value with a comma is given in quotes, as the list shows it.
    let why = world.text(&["why", "readings", "--key", "\"Smith, J\",s", "--at", "2024-03-04T01:00:00Z"]);
    assert!(why.contains("Smith, J/s"), "{why}");
    let said = refused(&world, &["why", "readings", "--key", "Smith, J,s", "--at", "2024-03-04T01:00:00Z"]);
    assert!(said.contains("unless a value with a comma is put in quotes"), "{said}");
}

#[test]
fn a_damaged_table_that_was_computed_is_never_read_as_another() {
    let world = holes();
    run(&world, "first", "fill");
    let part = world.lake().join("sums/part.parquet");
    let whole = std::fs::read(&part).unwrap();
    let export = ["export", "sums", "--out", "-", "--format", "csv"];
    let (rows, _, _) = world.said(&export);
    // All that is not the mark of the seal, the length of the footer or the last word, is sealed.
    let mut harmed: Vec<(String, Vec<u8>)> = (0..whole.len())
        .step_by(whole.len() / 24)
        .map(|byte| {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << (byte % 8);
            (format!("byte {byte} of {}", whole.len()), flipped)
        })
        .collect();
    harmed.extend([0, 4, whole.len() / 2, whole.len() - 1].map(|length| (format!("cut to {length}"), whole[..length].to_vec())));
    for (what, bytes) in harmed {
        std::fs::write(&part, bytes).unwrap();
        let (out, said, code) = world.said(&export);
        // A mark that is harmed is none, and the rows are whole.
        assert!(code == 2 && out.is_empty() || (code, &out) == (0, &rows) && what.starts_with("byte"), "{what}: {code} {out} {said}");
        assert!(code == 0 || said.contains("sums") && (said.contains("restore") || said.contains("write it again")), "{what}: {said}");
    }
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    std::fs::write(&part, flipped).unwrap();
    let said = refused(&world, &export);
    assert!(said.contains("part.parquet") && said.contains("run the step again that writes the table"), "{said}");
    // Nor does a table that is declared at its place, or SQL.
    let workflow = "workflow: w\nkind: state-machine\ntables: { sums: { location: sums, format: parquet, time: day } }\nstart: done\nsteps: { done: { succeed: true } }\n\
                    profiles: { local: { lake: local, with: { root: ./lake } } }\n";
    let workflow = world.write("sums.yaml", workflow);
    let said = refused(&world, &["query", "SELECT * FROM sums", "--workflow", workflow.to_str().unwrap()]);
    assert!(said.contains("something has changed it since"), "{said}");
    std::fs::write(&part, whole).unwrap();
    assert_eq!(world.said(&export).0, rows);
}

#[test]
fn gaps_of_a_run_are_listed_before_and_after_its_repairs() {
    let world = holes();
    run(&world, "looked", "done");
    let shown = HOSTILE.replace('\u{1b}', "\\u{1b}").replace('\u{202e}', "\\u{202e}");
    let people = world.text(&["gaps", "looked"]);
    for line in [
        "find  readings  missing  co",
        "2024-03-04T01:00:00Z  2024-03-04T02:00:00Z      1",
        shown.as_str(),
        "step find, table readings: 3 slots missing",
        "as run looked last saw it, which has ended, at ",
    ] {
        assert!(people.contains(line), "`{line}` is not in {people}");
    }
    assert!(!people.contains(['\u{1b}', '\u{202e}']));
    let hostile = HOSTILE.replace('"', "\"\"");
    let expected = format!(
        "step,table,kind,key,from,to,slots
find,readings,missing,\"{hostile}\",2024-03-04T01:00:00Z,2024-03-04T02:00:00Z,1
find,readings,missing,\"{hostile}\",2024-03-04T03:00:00Z,2024-03-04T04:00:00Z,1
find,readings,missing,co,2024-03-04T01:00:00Z,2024-03-04T02:00:00Z,1
"
    );
    let mut lines: Vec<String> = world.said(&["gaps", "looked", "--csv"]).0.lines().map(str::to_owned).collect();
    let mut expected: Vec<String> = expected.lines().map(str::to_owned).collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);

    run(&world, "repaired", "fill");
    // The vendor has no row for 01:00 either.
    let after = world.json(&["gaps", "repaired"]);
    let json_of_table = world.json(&["gaps", "readings"]);
    assert_eq!(after["gaps"], json_of_table["gaps"]);
    assert_eq!(json_of_table["run"], "repaired");
    let search = &after["searches"][0];
    assert_eq!((&search["step"], &search["slots"], &search["repaired_since"]), (&"find".into(), &0.into(), &0.into()), "{after}");
    assert!(world.text(&["gaps", "repaired"]).contains("step find, table readings: no slot is missing"));
    assert_eq!(world.json(&["gaps", "looked"])["gaps"].as_array().unwrap().len(), 3, "what a run saw does not change");
    assert_eq!(json_of_table["notes"], serde_json::json!([]));
    // What was undone since is said; and so is that it was shown again.
    let undo = world.json(&["undo", "repaired"]);
    let undone = world.text(&["gaps", "readings"]);
    assert!(undone.contains("note: repairs of table readings were undone since ("), "{undone}");
    world.json(&["redo", undo["id"].as_str().unwrap()]);
    let notes = world.json(&["gaps", "repaired"])["notes"].clone();
    assert_eq!(notes.as_array().unwrap().len(), 2, "{notes}");
    assert!(notes[1].as_str().unwrap().contains("were shown again since"), "{notes}");
    assert!(refused(&world, &["gaps", "reading"]).contains("did you mean `readings`?"));
    let world = World::new();
    let blind = world.workflow(&[("from: 2024-03-04, to: 2024-03-04", "from: 1824-03-04, to: 1824-03-04")]);
    world.run_json(&blind, &["--run-id", "blind"]);
    assert!(refused(&world, &["gaps", "blind"]).contains("nothing is known about what is missing"));
}

#[test]
fn a_long_list_is_cut_for_people_and_whole_for_programs() {
    let world = World::new();
    let rows: String = (0..2_400)
        .map(|half| half * 2)
        .map(|minute: u32| format!("2024-03-{:02}T{:02}:{:02}:00Z,1\n", 4 + minute / 1_440, minute / 60 % 24, minute % 60))
        .collect();
    std::fs::create_dir(world.lake().join("ticks")).unwrap();
    std::fs::write(world.lake().join("ticks/all.csv"), format!("ts,value\n{rows}")).unwrap();
    let workflow = "\
workflow: ticks
kind: state-machine
tables:
  ticks: { location: ticks, format: csv, time: ts, cadence: 1m }
start: find
steps:
  find: { detect: gaps, with: { table: ticks, from: 2024-03-04, to: 2024-03-06 }, end: true }
";
    world.run_json(&world.write("ticks.yaml", workflow), &["--run-id", "ticks"]);
    let people = world.text(&["gaps", "ticks"]);
    assert_eq!(people.matches("missing  ").count(), 1_000);
    assert!(people.contains("note: these are the first 1000 of 2160 stretches; --csv lists all"), "{}", &people[people.len() - 300..]);
    assert_eq!(world.said(&["gaps", "ticks", "--csv"]).0.lines().count(), 2_161);
    assert_eq!(world.json(&["gaps", "ticks"])["gaps"].as_array().unwrap().len(), 2_160);
}

#[test]
fn sql_reads_tables_and_repaired_views_and_says_which_column_is_wrong() {
    let world = holes();
    let workflow = run(&world, "first", "fill");
    let workflow = workflow.to_str().unwrap();
    let sql = "SELECT a.n, b.n AS repaired FROM (SELECT count(*) AS n FROM readings) a, (SELECT count(*) AS n FROM readings_repaired) b";
    let ask = |sql: &str, more: &[&str]| world.said(&[&["query", sql, "--workflow", workflow], more].concat());
    assert_eq!(ask(sql, &[]).0, "n  repaired\n5         7\n\n1 row\n");
    assert_eq!(ask(sql, &["--format", "csv"]).0, "n,repaired\n5,7\n");
    assert_eq!(ask(sql, &["--format", "jsonl"]).0, "{\"n\":5,\"repaired\":7}\n");
    let (said, error, code) = ask("SELECT sensor, value FROM readings_repaired ORDER BY ts, sensor", &["--out", "answer.parquet"]);
    assert_eq!((said.as_str(), code), ("7 rows written to answer.parquet\n", 0), "{error}");
    let people = ask("SELECT DISTINCT sensor FROM readings", &[]).0;
    assert!(people.contains("\\u{1b}[31m") && !people.contains('\u{1b}'), "{people}");
    assert!(ask("SELECT x FROM (VALUES (1)) AS t(x), generate_series(1, 1200)", &[]).0.contains("note: these are the first 1000 rows"));
    for (sql, words) in [
        ("SELECT valeu FROM readings_repaired", &["valeu", "value"][..]),
        ("SELECT value FROM raedings", &["raedings"]),
        ("DROP TABLE readings", &["could not be run"]),
    ] {
        let (out, error, code) = ask(sql, &["--out", "wrong.csv"]);
        assert_eq!((code, out.as_str()), (2, ""), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let folder = world.lake().parent().unwrap().to_owned();
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("wrong")), "{left:?}");
    assert!(ask(sql, &["--out", "answer.parquet"]).1.contains("is there already"));
    assert!(ask(sql, &["--out", "lake/readings/x.csv"]).1.contains("where table `readings` lies"));
    assert!(ask(sql, &["--format", "table", "--out", "x"]).1.contains("a table is for people"));
}

#[test]
fn a_view_is_said_for_each_tool_or_refused() {
    let world = holes();
    run(&world, "first", "fill");
    let view = |tool: &str| world.text(&["view", "readings", "--for", tool]);
    let export = "first, in a shell: repair export readings --out readings_repaired.parquet";
    assert_eq!(
        view("duckdb"),
        format!("-- {export}\nCREATE VIEW readings_repaired AS SELECT * FROM read_parquet('readings_repaired.parquet');\n")
    );
    assert_eq!(
        view("polars"),
        format!("# {export}\nimport polars as pl\n\nreadings_repaired = pl.read_parquet(\"readings_repaired.parquet\")\n")
    );
    assert!(world.text(&["view", "readings", "--for", "pandas", "--lake", "./lake"]).contains("readings_repaired.parquet --lake ./lake\n"));
    assert!(refused(&world, &["view", "readings", "--for", "athena"]).contains("is in a folder, and Athena reads what is in S3"));
}

/// The Python of a virtual environment that has the tools.
fn python(script: &str, folder: &Path) -> String {
    let python = std::env::var_os("REPAIR_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(python).arg("-c").arg(script).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs Python with duckdb, polars, pandas and pyarrow; REPAIR_TEST_PYTHON names another than python3"]
fn the_tools_read_what_was_exported_as_the_view_says() {
    let world = holes();
    run(&world, "first", "fill");
    let folder = world.lake().parent().unwrap().to_owned();
    for tool in ["duckdb", "polars", "pandas"] {
        let view = world.text(&["view", "readings", "--for", tool]);
        let (first, snippet) = view.split_once('\n').unwrap();
        let export: Vec<&str> = first.split_once("repair ").unwrap().1.split(' ').collect();
        world.text(&[&export[..], &["--force"]].concat());
        let sum = match tool {
            "duckdb" => {
                let sql = serde_json::to_string(snippet).unwrap();
                format!(
                    "import duckdb\nduckdb.sql({sql})\n\
                     rows = duckdb.sql('SELECT sensor, epoch_us(ts), value, repaired_by FROM readings_repaired').fetchall()"
                )
            }
            "polars" => format!("{snippet}\nrows = [(a, int(b.timestamp() * 1e6), c, d) for a, b, c, d, _ in readings_repaired.rows()]"),
            _ => format!(
                "{snippet}\nby = lambda r: r.repaired_by if isinstance(r.repaired_by, str) else None\n\
                 rows = [(r.sensor, int(r.ts.timestamp() * 1e6), r.value, by(r)) for r in readings_repaired.itertuples()]"
            ),
        };
        let said = python(&format!("{sum}\nimport json\nprint(json.dumps(sorted(rows, key=str)))"), &folder);
        let hour = |hour: i64| (1_709_510_400 + hour * 3_600) * 1_000_000;
        let mut expected = vec![
            json!(["co", hour(0), 0.1, null]),
            json!(["co", hour(1), 1e300, "backfill"]),
            json!(["co", hour(2), -2.5, null]),
            json!(["co", hour(3), 0.1 + 0.2, null]),
            json!([HOSTILE, hour(0), 0.1, null]),
            json!([HOSTILE, hour(2), -2.5, null]),
            json!([HOSTILE, hour(3), 0.1 + 0.2, "backfill"]),
        ];
        let mut rows: Vec<Value> = serde_json::from_str(&said).unwrap();
        rows.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        assert_eq!(rows, expected, "{tool}");
    }
    // CSV too is read as it was.
    world.text(&["export", "readings", "--out", "readings.csv"]);
    let read = "import pandas as pd\nt = pd.read_csv('readings.csv', float_precision='round_trip')\n\
                print(repr(sorted(set(t.sensor))), sorted(set(t.value)))";
    let said = python(read, &folder);
    assert!(said.contains("[-2.5, 0.1, 0.30000000000000004, 1e+300]") && said.contains("a,\"b\"\\x1b[31m\\u202e"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn json_that_cannot_be_printed_is_an_error_on_standard_error() {
    let world = holes();
    run(&world, "first", "fill");
    for (arguments, why) in [
        (&["runs"][..], "No space left on device"),
        (&["show", "nothing"], "nothing"),
        (&["export", "readngs", "--out", "x.csv"], "readngs"),
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut repair = Command::new(assert_cmd::cargo::cargo_bin!("repair"));
        repair.current_dir(world.lake().parent().unwrap()).env_remove("REPAIR_LAKE");
        let output = repair.args(arguments).arg("--json").stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}: {said}");
        assert!(said.contains("standard output takes nothing") && said.contains(why), "{arguments:?}: {said}");
    }
}

#[test]
fn an_absence_without_an_end_never_expires() {
    let world = holes();
    run(&world, "first", "fill");
    let slot = ["--key", "co", "--from", "2024-03-04T01:00:00Z", "--to", "2024-03-04T02:00:00Z"];
    let other =
        [&["except", "readings"], &slot[..2], &["--from", "2024-03-05T01:00:00Z", "--to", "2024-03-05T02:00:00Z", "--reason", "closed"]]
            .concat();
    world.text(&other);
    let why = world.text(&["why", "readings", "--key", "co", "--at", "2024-03-05T01:00:00Z"]);
    assert!(why.contains("closed; sources are not asked again") && !why.contains("9999-"), "{why}");
    assert!(!world.text(&["status"]).contains("9999"));
}

#[test]
fn a_column_with_a_name_of_ours_is_refused_before_anything_is_read() {
    let world = World::new();
    for (line, column) in [
        ("key: [repaired_by], time: ts, cadence: 1h", "repaired_by"),
        ("key: [sensor], time: ts, cadence: 1h, columns: { repaired_cells: text }", "repaired_cells"),
    ] {
        let text = format!(
            "workflow: w\nkind: state-machine\ntables:\n  readings: {{ location: readings, format: csv, {line} }}\nstart: done\nsteps: {{ done: {{ succeed: true }} }}\n"
        );
        let workflow = world.write("ours.yaml", &text);
        let (out, said, code) = world.said(&["validate", workflow.to_str().unwrap()]);
        let said = format!("{out}{said}");
        assert!(code == 2 && said.contains("ours.yaml:4:") && said.contains(&format!("names a column `{column}`")), "{code} {said}");
    }
}
