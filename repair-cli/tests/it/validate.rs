//! `repair validate` refuses what `repair plan` refuses without looking at data, in the same words.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use crate::common::World;

/// A lake with hourly readings, a vendor's copy of them, a headerless table, and a list of sensors.
fn world() -> World {
    let world = World::new();
    let hours =
        |keep: fn(u32) -> bool| (0..24).filter(move |hour| keep(*hour)).map(|hour| format!("a,2024-03-04T{hour:02}:00:00Z,{hour}\n"));
    for (table, header, rows) in [
        ("t", "sensor,ts,value\n", hours(|hour| hour != 7).collect::<String>()),
        ("vendor", "sensor,ts,value\n", hours(|_| true).collect()),
        ("bare", "", hours(|_| true).collect()),
    ] {
        std::fs::create_dir(world.lake().join(table)).unwrap();
        std::fs::write(world.lake().join(table).join("a.csv"), format!("{header}{rows}")).unwrap();
    }
    world
}

/// The tables of [`world`]; a step `find` with these words in its `with`; and more steps.
fn workflow(with: &str, more: &str) -> String {
    format!(
        "workflow: w\nkind: dag\nparams:\n  day: {{ type: date }}\n  which: {{ type: list }}\ntables:\n  t: {{ location: t, format: csv, key: [sensor], \
         time: ts, cadence: 1h }}\n  bare: {{ location: bare, format: csv, csv: {{ header: false, names: [sensor, ts, value] }}, key: [sensor], \
         time: ts, cadence: 1h }}\nsources:\n  vendor: {{ source: stocks.archive, with: {{ location: vendor, format: csv }} }}\nsteps:\n  \
         find: {{ detect: gaps, with: {{ table: t, {with} }} }}\n{more}profiles:\n  local: {{ lake: local, with: {{ root: ./lake }} }}\n"
    )
}

const DAY: &str = "from: 2024-03-04, to: 2024-03-04";
const PARAMS: [&str; 6] = ["--param", "day=2024-03-04", "--param", "which=a", "--now", "2024-03-05T06:00:00Z"];

#[test]
fn what_a_plan_refuses_without_data_is_refused_in_the_same_words() {
    let world = world();
    let keys = format!("keys: [a], {DAY}");
    let sql = |into: &str, query: &str| format!("  sum: {{ aggregate: sql, after: find, with: {{ into: {into}, query: \"{query}\" }} }}\n");
    let read = "SELECT sensor, date_trunc('day', ts) AS day, sum(value) AS value FROM t_repaired GROUP BY 1, 2";
    for (with, more, words) in [
        // A table with a key, and nothing that says which keys are expected.
        (DAY, String::new(), "nothing says which are expected"),
        ("from: \"{% $params.day %}\", to: \"{% $params.day %}\"", String::new(), "nothing says which are expected"),
        // Keys that do not fit the table, or occur twice.
        ("keys: [[a, b]], from: 2024-03-04, to: 2024-03-04", String::new(), "key"),
        ("keys: [a, a], from: 2024-03-04, to: 2024-03-04", String::new(), "listed twice"),
        // An interval that is empty once now is known.
        ("keys: [a], from: now - 2d, to: now - 7d", String::new(), "the interval from now - 2d"),
        // Tables that must not be written.
        (&keys, sql("t", read), "the location of table `t`, which the step reads"),
        (&keys, sql("t/sums", read), "overlaps `t`"),
        (&keys, sql("t_repairs", read), "overlay table of table `t`"),
        (&keys, sql("bare", read), "bare"),
        // A column that a table does not have.
        (&keys, sql("sums", "SELECT sensor, ts, valeu FROM bare_repaired"), "column `valeu`"),
        (&keys, sql("sums", "SELECT sensor, ts FROM bare WHERE bare.height > 3"), "column `height`"),
        // Strategies that do not fit the cadence.
        (&keys, "  fill: { repair: shifted, of: find, after: find, with: { shift: [-90m] } }\n".to_owned(), "whole number of slots"),
        // What a table of results would overwrite.
        (
            &keys,
            "  old: { detect: stale, with: { table: t, keys: [a], from: 2024-03-04, to: 2024-03-04, into: t } }\n".to_owned(),
            "into: t",
        ),
        // Expected keys of files that arrive.
        (
            &keys,
            format!("  came: {{ detect: arrivals, with: {{ table: t, {DAY}, every: 1d, per_key: true }} }}\n"),
            "nothing says which are expected",
        ),
        // Minute bars of a table of hours.
        (&keys, format!("  bars: {{ detect: stocks.minute-gaps, with: {{ table: t, calendar: XNYS, symbols: [a], {DAY} }} }}\n"), "minute"),
        (
            &keys,
            "  hourly: { aggregate: stocks.hourly-bars, of: find, after: find, with: { table: t, into: t } }\n".to_owned(),
            "the location of table `t`, which the step reads",
        ),
    ] {
        world.write("w.yaml", &workflow(with, &more));
        let (_, planned, code) = world.said(&[&["plan", "w.yaml"][..], &PARAMS].concat());
        assert_eq!(code, 2, "a plan takes {with} {more}: {planned}");
        assert!(planned.contains(words), "`{words}` is not in: {planned}");
        let (_, validated, code) = world.said(&[&["validate", "w.yaml"][..], &PARAMS].concat());
        assert_eq!((code, validated.trim()), (2, planned.trim()), "{with} {more}");
    }
    assert!(!world.lake().join(".repair").exists(), "something was written");
}

#[test]
fn parameters_without_values_hide_no_mistake_and_make_none() {
    let world = world();
    // Whatever the day is.
    world.write("w.yaml", &workflow("from: \"{% $params.day %}\", to: \"{% $params.day %}\"", ""));
    let (_, err, code) = world.said(&["validate", "w.yaml"]);
    assert!(code == 2 && err.contains("nothing says which are expected") && err.contains("(step: find)"), "{code} {err}");
    // It depends on the keys and the day, of which nothing is known.
    world.write("w.yaml", &workflow("keys: \"{% $params.which %}\", from: 2024-01-01, to: \"{% $params.day %}\"", ""));
    let (out, err, code) = world.said(&["validate", "w.yaml"]);
    assert!(code == 0 && out.contains("no mistakes"), "{code} {err}");
    let (_, err, code) = world.said(&["validate", "w.yaml", "--param", "day=2023-01-01"]);
    assert!(code == 2 && err.contains("interval"), "{code} {err}");
    let (_, err, code) = world.said(&["validate", "w.yaml", "--param", "dya=2023-01-01"]);
    assert!(code == 2 && err.contains("did you mean `day`?"), "{code} {err}");
}

#[test]
fn all_is_reported_at_once_and_nothing_has_to_be_there() {
    let world = World::new();
    std::fs::remove_dir_all(world.lake()).unwrap();
    let more = "  sum: { aggregate: sql, after: find, with: { into: sums, query: \"SELECT ts, nothing FROM bare\" } }\n  fill: { repair: shifted, of: find, \
                after: find, with: { shift: [-90m] } }\n";
    world.write("w.yaml", &workflow(DAY, more));
    let (_, err, code) = world.said(&["validate", "w.yaml"]);
    assert_eq!(code, 2);
    for part in
        ["nothing says which are expected", "(step: find)", "column `nothing`", "(step: sum", "whole number of slots", "(step: fill)"]
    {
        assert!(err.contains(part), "`{part}` is not in: {err}");
    }
    let (out, _, _) = world.said(&["validate", "w.yaml", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((object["error"]["kind"].as_str(), object["errors"].as_array().map(Vec::len)), (Some("invalid"), Some(3)), "{out}");
    assert_eq!(object["errors"][0], object["error"]);
}

#[test]
fn a_run_refuses_a_query_before_its_first_step() {
    let world = world();
    let more = "  sum: { aggregate: sql, after: find, with: { into: sums, query: \"SELECT sensor, ts, valeu FROM t\" } }\n";
    world.write("w.yaml", &workflow(&format!("keys: [a], {DAY}"), more));
    for command in ["plan", "run"] {
        let (_, err, code) = world.said(&[&[command, "w.yaml"][..], &PARAMS].concat());
        // Only the lake knows the columns of this table.
        assert!(code == 2 && err.contains("column `valeu`") && err.contains("`value`"), "{command}: {code} {err}");
    }
    assert!(!world.lake().join(".repair").exists(), "something was written");
}

/// A workflow as of [`workflow`], with a table of days that a step writes, and one whose columns are declared with their types.
fn with_days(more: &str) -> String {
    let tables = "  daily: { location: daily, format: parquet, key: [sensor], time: day }\n  typed: { location: bare, format: csv, csv: { header: false, names: \
                  [sensor, ts, value] }, columns: { value: number }, key: [sensor], time: ts, cadence: 1h }\n";
    let all = workflow(&format!("keys: [a], {DAY}"), more).replace("sources:\n", &format!("{tables}sources:\n"));
    // Two tables of one location are described alike.
    if more.contains("typed") {
        all.replace("  bare: { location: bare, format: csv, csv: { header: false, names: [sensor, ts, value] }, key: [sensor], time: ts, cadence: 1h }\n", "")
    } else {
        all.lines().filter(|line| !line.trim_start().starts_with("typed:")).map(|line| format!("{line}\n")).collect()
    }
}

/// Steps that name columns which the workflow itself shows to be missing.
#[test]
fn a_column_that_a_step_needs_is_missed_where_columns_are_declared() {
    let world = world();
    let sum = |into: &str, query: &str| format!("  sum: {{ aggregate: sql, with: {{ into: {into}, query: \"{query}\" }} }}\n");
    let days = |query: &str| sum("daily", query);
    let detect = |with: &str| format!("  odd: {{ detect: {with} }}\n");
    let of_typed = format!("table: typed, keys: [a], {DAY}");
    let repair = |detect: &str, repair: &str| {
        format!(
            "  odd: {{ detect: {detect} }}\n  fix: {{ repair: {repair}, of: odd, after: odd }}\n{}",
            days("SELECT sensor, ts AS day FROM typed")
        )
    };
    let rules = format!("invalid, with: {{ {of_typed}, rules: [{{ column: value, max: 5 }}] }}");
    for (more, words) in [
        (
            days("SELECT sensor, ts AS d, value FROM bare"),
            "the query selects `sensor`, `d`, `value`, but not `day`, the time column of table `daily`",
        ),
        (days("SELECT ts AS day, value FROM bare_repaired"), "but not `sensor`, a key column of table `daily`"),
        (days("SELECT * FROM bare"), "but not `day`, the time column of table `daily`"),
        (
            format!(
                "{}{}",
                detect(&format!("sql, with: {{ table: bare, keys: [a], {DAY}, query: \"SELECT sensor, value FROM bare\" }}")),
                days("SELECT sensor, ts AS day FROM bare")
            ),
            "but not `ts`, the time column of table `bare`",
        ),
        (
            format!(
                "  look: {{ detect: gaps, with: {{ table: bare, keys: [a], {DAY} }} }}\n  hourly: {{ aggregate: stocks.hourly-bars, of: look, after: look, with: \
                 {{ table: bare, into: hours }} }}\n{}",
                days("SELECT sensor, ts AS day FROM bare")
            ),
            "table `bare` has no column `open`",
        ),
        (
            repair(&format!("gaps, with: {{ {of_typed} }}"), "sql, with: { query: \"SELECT sensor, ts, 1.0 AS valeu FROM $missing\" }"),
            "the query selects `valeu`, and table `typed` has no such column",
        ),
        (repair(&format!("gaps, with: {{ {of_typed} }}"), "interpolate, with: { columns: [valeu] }"), "`valeu`"),
        (repair(&rules, "set, with: { values: { valeu: 3 } }"), "`valeu`"),
        (
            format!("{}{}", detect(&rules.replace("column: value", "column: valeu")), days("SELECT sensor, ts AS day FROM typed")),
            "column `valeu`",
        ),
    ] {
        world.write("w.yaml", &with_days(&more));
        let (out, validated, code) = world.said(&[&["validate", "w.yaml"][..], &PARAMS].concat());
        assert!(code == 2 && validated.contains(words), "`{words}` is not in: {validated}{out} of {more}");
        for command in ["plan", "run"] {
            let (_, said, code) = world.said(&[&[command, "w.yaml"][..], &PARAMS].concat());
            assert!(code != 0 && said.contains(words), "{command}: `{words}` is not in: {said} of {more}");
        }
    }
    world.write("w.yaml", &with_days(&days("SELECT SENSOR, ts AS DAY, value FROM bare")));
    let (out, said, code) = world.said(&[&["validate", "w.yaml"][..], &PARAMS].concat());
    assert!(code == 0, "case does not matter: {out}{said}");
}

/// The same where only the files of a table say which columns it has: `plan` and `run` refuse it before anything is done.
#[test]
fn a_column_that_a_step_needs_is_missed_before_the_first_step() {
    let world = world();
    let sum = |into: &str, query: &str| format!("  sum: {{ aggregate: sql, with: {{ into: {into}, query: \"{query}\" }} }}\n");
    let days = sum("daily", "SELECT sensor, ts AS day FROM t");
    let repair =
        |detect: &str, repair: &str| format!("{days}  odd: {{ detect: {detect} }}\n  fix: {{ repair: {repair}, of: odd, after: odd }}\n");
    let gaps = format!("gaps, with: {{ table: t, keys: [a], {DAY} }}");
    for (more, words) in [
        (sum("daily", "SELECT sensor, date_trunc('day', ts) AS d FROM t GROUP BY 1, 2"), "but not `day`, the time column of table `daily`"),
        (sum("daily", "SELECT ts AS day FROM t"), "but not `sensor`, a key column of table `daily`"),
        (format!("{days}{}", sum("new", "SELECT sensor, value FROM t").replace("sum:", "more:")), "none of which is an instant or a date"),
        (repair(&gaps, "sql, with: { query: \"SELECT sensor, 1 AS value FROM $missing\" }"), "but not `ts`, the time column of table `t`"),
        (
            repair(&gaps, "sql, with: { query: \"SELECT *, 1 AS valeu FROM $missing\" }"),
            "the query selects `valeu`, and table `t` has no such column",
        ),
        (repair(&gaps, "sql, with: { query: \"SELECT * FROM $missing\" }"), "no columns but key and time"),
        (
            format!("{days}  hourly: {{ aggregate: stocks.hourly-bars, of: find, after: find, with: {{ table: t, into: hours }} }}\n"),
            "table `t` has no column `open`",
        ),
    ] {
        world.write("w.yaml", &with_days(&more));
        for command in ["plan", "run"] {
            let (out, said, code) = world.said(&[&[command, "w.yaml"][..], &PARAMS].concat());
            assert!(code == 2 && said.contains(words), "{command}: `{words}` is not in: {said}{out} of {more}");
            assert!(said.contains("(step: "), "{said}");
        }
    }
    assert!(!world.lake().join(".repair").exists(), "something was written");
    // A plan asks no source, so it does not know what this repairs.
    let compared = format!("differs, with: {{ table: t, source: vendor, keys: [a], {DAY} }}");
    world.write("w.yaml", &with_days(&repair(&compared, "set, with: { values: { valeu: 3 } }")));
    let (out, said, code) = world.said(&[&["plan", "w.yaml"][..], &PARAMS].concat());
    assert!(code == 2 && said.contains("`values` names column `valeu`"), "{said}{out}");
    assert!(!world.lake().join(".repair").exists(), "something was written");
}
