//! Every example workflow runs from a clean clone, by the commands in its first lines, and does what it says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// The examples that other tests run: the demo's own, the smallest program's, and those that need Python.
const ELSEWHERE: [&str; 6] = [
    "stock-pipeline/workflows/ticker-hourly.yaml",
    "stock-pipeline/standing/ticker-standing.yaml",
    "stock-pipeline/standing-alpaca/ticker-alpaca.yaml",
    "first-program/air-quality.yaml",
    "workflows/sensors-python.yaml",
    "workflows/us-power-statsmodels.yaml",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// All example workflows, relative to `examples`.
fn all() -> BTreeSet<String> {
    let examples = root().join("examples");
    let (mut found, mut pending) = (BTreeSet::new(), vec![examples.clone()]);
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|ending| ending == "yaml") {
                let is_workflow = std::fs::read_to_string(&path).unwrap().lines().any(|line| line.starts_with("workflow:"));
                found.extend(is_workflow.then(|| path.strip_prefix(&examples).unwrap().display().to_string()));
            }
        }
    }
    found
}

/// A folder with the examples and the data of a clone.
struct Clone {
    folder: tempfile::TempDir,
}

impl Clone {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["examples", "testdata", "prices"] {
            std::os::unix::fs::symlink(root().join(name), folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    /// Types a line into a shell.
    fn types(&self, line: &str) -> String {
        let program = PathBuf::from(assert_cmd::cargo::cargo_bin!("repair"));
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        let output =
            shell.args(["-e", "-c", line]).current_dir(self.folder.path()).env("PATH", path).env_remove("REPAIR_LAKE").output().unwrap();
        assert!(output.status.success(), "{line}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs an example by the commands in its first lines, with more arguments for `repair run`, and returns the report of the run.
    fn runs(&self, example: &str, more: &str) -> Value {
        let text = std::fs::read_to_string(root().join("examples").join(example)).unwrap();
        let lines: Vec<String> = text
            .lines()
            .map_while(|line| line.strip_prefix('#'))
            .filter_map(|line| line.strip_prefix("   "))
            .map(|line| line.split_whitespace().collect::<Vec<&str>>().join(" "))
            .collect();
        let lines = lines.join("\n").replace("\\\n", "");
        let is_run = |line: &&str| line.starts_with("repair run ");
        assert_eq!(lines.lines().filter(is_run).count(), 1, "the first lines of {example} say how to run it: {lines}");
        let mut report = Value::Null;
        for line in lines.lines() {
            if line.starts_with("repair compare ") {
                // Another test compares; that this is understood is seen by its help.
                self.types(&format!("{line} --help"));
            } else if is_run(&line) {
                assert!(line.contains(&format!("examples/{example}")), "{line} runs another workflow");
                report = serde_json::from_str(&self.types(&format!("{line} {more} --json"))).unwrap();
            } else {
                self.types(line);
            }
        }
        let validated = self.types(&format!("repair validate examples/{example}"));
        assert!(validated.contains("has no mistakes"), "{validated}");
        report
    }
}

/// A field of what a step put out.
fn output(report: &Value, step: &str, field: &str) -> u64 {
    report["steps"][step]["output"][field].as_u64().unwrap_or_else(|| panic!("{field} of {step}: {report}"))
}

/// Of each sensor and day, from one day to another: the mean of the readings with short gaps filled, as the examples about air define it, the
/// hours, and how many of these are carried; and the hours that are missing before and after.
struct Air {
    daily: BTreeMap<(String, String), (f64, u64, u64)>,
    missing: u64,
    left: u64,
}

impl Air {
    fn new(from: &str, to: &str) -> Self {
        let hour = |time: &str| time.parse::<jiff::Timestamp>().unwrap().as_second() / 3600;
        let mut readings: BTreeMap<&str, BTreeMap<i64, f64>> = BTreeMap::new();
        let text = testdata::text("air-quality-hourly/air-quality");
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
        for row in &rows {
            readings.entry(row[0]).or_default().insert(hour(row[1]), row[2].parse().unwrap());
        }
        let (first, end) = (hour(&format!("{from}T00:00:00Z")), hour(&format!("{to}T00:00:00Z")) + 24);
        let mut air = Self { daily: BTreeMap::new(), missing: 0, left: 0 };
        let mut sums: BTreeMap<(String, i64), (f64, u64, u64)> = BTreeMap::new();
        for (sensor, hours) in &readings {
            let mut add = |at: i64, value: f64, carried: u64| {
                let day = sums.entry(((*sensor).to_owned(), at.div_euclid(24))).or_default();
                *day = (day.0 + value, day.1 + 1, day.2 + carried);
            };
            hours.iter().for_each(|(at, value)| add(*at, *value, 0));
            for at in (first..end).filter(|at| !hours.contains_key(at)) {
                air.missing += 1;
                // It is repeated for two hours at most.
                match (1..=2).find_map(|back| hours.get(&(at - back))) {
                    Some(value) => add(at, *value, 1),
                    None => air.left += 1,
                }
            }
        }
        for ((sensor, day), (sum, hours, carried)) in sums {
            let date = jiff::Timestamp::from_second(day * 86_400).unwrap().to_string()[..10].to_owned();
            air.daily.insert((sensor, date), (sum / hours as f64, hours, carried));
        }
        air
    }

    /// Compares a table of daily means, as CSV with a header, with what it should be.
    fn check(&self, table: &str) {
        let mut lines = table.lines();
        let header: Vec<&str> = lines.next().unwrap().split(',').collect();
        let at = |name: &str| header.iter().position(|column| *column == name);
        let mut rows = 0;
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            let day = (fields[at("sensor").unwrap()].to_owned(), fields[at("day").unwrap()][..10].to_owned());
            let (mean, hours, carried) = self.daily.get(&day).unwrap_or_else(|| panic!("{day:?} is not expected"));
            let written: f64 = fields[at("mean").unwrap()].parse().unwrap();
            assert!((written - mean).abs() < 1e-9, "{day:?}: {written} and {mean}");
            for (name, number) in [("hours", hours), ("carried", carried)] {
                if let Some(at) = at(name) {
                    assert_eq!(fields[at].parse::<u64>().unwrap(), *number, "{name} of {day:?}");
                }
            }
            rows += 1;
        }
        assert_eq!(rows, self.daily.len());
    }
}

/// The last day of the examples about air, in a test that must be quick: every repaired hour is a unit.
const LAST: &str = "2004-04-06";

#[test]
fn no_example_is_forgotten() {
    let run_here = [
        "stock-pipeline/workflows/pipeline-usage.yaml",
        "workflows/air-quality-daily.yaml",
        "workflows/air-quality-nightly.yaml",
        "workflows/air-quality.yaml",
        "workflows/crypto-minute.yaml",
        "workflows/household-power.yaml",
        "workflows/orders-daily.yaml",
        "workflows/orders-fetched.yaml",
        "workflows/side-by-side.yaml",
        "workflows/us-power-corrected.yaml",
        "workflows/us-power-repaired.yaml",
        "workflows/us-power.yaml",
    ];
    let known: BTreeSet<String> = run_here.into_iter().chain(ELSEWHERE).map(str::to_owned).collect();
    assert_eq!(all(), known, "an example that nothing runs, or one that is gone");
    // Those that are run here are named in this file, and those of the list are in the README of the examples.
    let (source, readme) = (include_str!("examples.rs"), include_str!("../../../examples/README.md"));
    for example in run_here {
        assert!(source.matches(&format!("\"{example}\"")).count() > 1, "{example} is not run");
        let name = example.rsplit('/').next().unwrap();
        assert!(example.starts_with("stock-pipeline") || readme.contains(&format!("workflows/{name}")), "{name} is not in the README");
    }
}

#[test]
fn gaps_of_real_data_are_counted() {
    for (example, expected, missing) in [
        ("workflows/crypto-minute.yaml", 11_520, 1_833),
        ("workflows/household-power.yaml", 43_200, 3_723),
        ("workflows/air-quality.yaml", 46_785, 4_423),
    ] {
        let report = Clone::new().runs(example, "");
        assert_eq!((output(&report, "find_gaps", "expected"), output(&report, "find_gaps", "missing")), (expected, missing), "{example}");
    }
}

#[test]
fn short_gaps_are_filled_before_daily_means_are_computed() {
    let air = Air::new("2004-03-11", LAST);
    assert!(air.left > 0 && air.left < air.missing, "some gaps are long, and some are short");
    for (example, find, check) in
        [("workflows/air-quality-daily.yaml", "find_gaps", "check"), ("workflows/air-quality-nightly.yaml", "look", "check")]
    {
        let clone = Clone::new();
        let report = clone.runs(example, &format!("--param to={LAST}"));
        assert_eq!(report["outcome"], "succeeded-with-exceptions", "{report}");
        assert_eq!((output(&report, find, "missing"), output(&report, check, "missing")), (air.missing, air.left), "{example}");
        assert_eq!(output(&report, "fill", "repaired"), air.missing - air.left);
        air.check(&clone.types("repair export air_quality_daily --out - --format csv --lake lake"));
    }
}

#[test]
fn a_year_of_power_is_totalled_and_its_absurd_hours_are_corrected() {
    let clone = Clone::new();
    let report = clone.runs("workflows/us-power.yaml", "");
    assert_eq!((output(&report, "find_gaps", "missing"), output(&report, "daily", "rows")), (4_484, 3_865));
    let totals = clone.types("repair export daily_demand --out - --format csv --lake lake");
    // The time of a row is the end of its hour.
    let (mut sum, mut rows) = (0.0, 0.0);
    testdata::text("us-power-hourly/demand").lines().skip(1).for_each(|line| {
        sum += line.rsplit(',').next().unwrap().parse::<f64>().unwrap();
        rows += 1.0;
    });
    let header: Vec<&str> = totals.lines().next().unwrap().split(',').collect();
    let total = |name: &str| {
        let at = header.iter().position(|column| *column == name).unwrap();
        totals.lines().skip(1).map(|line| line.split(',').nth(at).unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    assert_eq!((total("demand_mwh"), total("hours")), (sum, rows));

    let report = clone.runs("workflows/us-power-corrected.yaml", "");
    assert_eq!(
        (output(&report, "find_absurd", "defective"), output(&report, "check", "patched"), &report["outcome"]),
        (65, 65, &"succeeded".into())
    );
}

#[test]
fn a_month_of_power_is_repaired_by_the_workflow_of_the_year() {
    let clone = Clone::new();
    let report = clone.runs("workflows/us-power-repaired.yaml", "--param from=2018-06-01T00:00:00Z --param to=2018-06-15T00:00:00Z");
    let hour = |time: &str| time.parse::<jiff::Timestamp>().unwrap().as_second() / 3600;
    let (from, to) = (hour("2018-06-01T00:00:00Z"), hour("2018-06-15T00:00:00Z"));
    let mut of_key: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for line in testdata::text("us-power-hourly/demand").lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        if (from..to).contains(&(hour(fields[1]) - 1)) {
            of_key.entry(fields[0].to_owned()).or_default().push(fields[2].parse().unwrap());
        }
    }
    let present: u64 = of_key.values().map(|values| values.len() as u64).sum();
    // Outside of a quarter of the median of an authority and five times as much.
    let of_one = |values: &mut Vec<i64>| {
        values.sort_unstable();
        let twice = values[(values.len() - 1) / 2] + values[values.len() / 2];
        values.iter().filter(|mw| 8 * **mw < twice || 2 * **mw > 5 * twice).count() as u64
    };
    let absurd: u64 = of_key.values_mut().map(of_one).sum();
    assert!(absurd > 0);
    assert_eq!((output(&report, "find_absurd", "defective"), output(&report, "find_absurd", "present")), (absurd, present), "{report}");
    assert_eq!(output(&report, "check_absurd", "patched"), absurd);
    assert_eq!(output(&report, "find_gaps", "missing"), 11 * u64::try_from(to - from).unwrap() - present);
}

#[test]
fn orders_get_their_latest_version_and_what_only_the_agency_has() {
    let clone = Clone::new();
    let report = clone.runs("workflows/orders-daily.yaml", "");
    assert_eq!(output(&report, "came", "missing"), 1, "the file of one day");
    assert_eq!(output(&report, "several", "defective"), 1);
    // The four orders of the day whose file never came, and the corrected one.
    assert_eq!((output(&report, "same", "missing"), output(&report, "same", "defective")), (4, 5));
    assert_eq!(
        (output(&report, "restate", "repaired"), output(&report, "check", "missing"), output(&report, "wrong", "defective")),
        (5, 0, 1)
    );
    let rows = clone.types("repair export orders --out - --format jsonl --lake lake");
    let of = |row: &Value| (row["id"].as_str().unwrap().to_owned(), (row["amount"].clone(), row["status"].clone()));
    let seen: BTreeMap<String, (Value, Value)> = rows.lines().map(|line| of(&serde_json::from_str(line).unwrap())).collect();
    let agency = std::fs::read_to_string(root().join("examples/workflows/data/agency/orders.jsonl")).unwrap();
    let truth: BTreeMap<String, (Value, Value)> = agency.lines().map(|line| of(&serde_json::from_str(line).unwrap())).collect();
    assert_eq!((rows.lines().count(), truth.len()), (28, 28), "no order is there twice");
    for (id, row) in &truth {
        let text = |value: &Value| value.to_string().trim_matches('"').to_owned();
        assert_eq!((text(&seen[id].0), &seen[id].1), (text(&row.0), &row.1), "{id}");
    }
}

#[test]
fn the_file_of_a_day_that_never_came_is_fetched_by_a_program() {
    let clone = Clone::new();
    let report = clone.runs("workflows/orders-fetched.yaml", "");
    assert_eq!((output(&report, "came", "missing"), output(&report, "arrived", "missing")), (1, 0), "the file of one day");
    assert_eq!(report["steps"]["fetch"]["output"], serde_json::json!({ "fetched": ["2024-03-04"] }));
    assert_eq!((output(&report, "several", "defective"), output(&report, "wrong", "defective")), (1, 1));
    let rows = clone.types("repair export orders --out - --format jsonl --lake lake");
    let ids: BTreeSet<String> =
        rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((rows.lines().count(), ids.len()), (28, 28), "no order is there twice, and none is left out");
    // Nothing is left to fetch.
    let again = clone.types("sh examples/workflows/programs/fetch-days.sh 2024-03-01 2024-03-07");
    assert_eq!(again, "{\"fetched\": []}\n");
}

/// What needs Python, and nothing but its standard library.
mod python {
    use super::*;

    #[test]
    #[ignore = "needs python3"]
    fn sensors_are_examined_and_repaired_by_programs_in_python() {
        let clone = Clone::new();
        let report = clone.runs("workflows/sensors-python.yaml", "");
        let (missing, left) = (output(&report, "gaps", "missing"), output(&report, "check", "missing"));
        assert!(missing > 100 && left < missing, "{report}");
        assert_eq!(missing - left, output(&report, "fill", "repaired"), "{report}");
        let (spikes, corrected) = (output(&report, "spikes", "cells"), output(&report, "correct", "repaired"));
        assert!(spikes > 0 && spikes < 100 && corrected == spikes, "{report}");
        let rows = clone.types("repair export readings --out - --format jsonl --lake lake");
        let by = |row: &Value, column: &str| row[column].as_str().unwrap_or_default().contains("by-hour");
        let (mut whole, mut cells) = (0, 0);
        for row in rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            whole += u64::from(!row["repaired_by"].is_null());
            cells += u64::from(!row["repaired_cells"].is_null());
            assert!(!(by(&row, "repaired_by") && by(&row, "repaired_cells")), "{row}");
        }
        assert_eq!((whole, cells), (missing - left, corrected));
        assert_eq!(report["usage"]["source_requests"], 3, "one look and two repairs: {}", report["usage"]);
    }

    /// The blocks of a page with this mark, after which a name may follow.
    fn blocks<'a>(page: &'a str, mark: &str) -> Vec<(&'a str, String)> {
        let (mut found, mut lines) = (Vec::new(), page.lines());
        while let Some(line) = lines.next() {
            if let Some(name) = line
                .strip_prefix("```")
                .and_then(|info| info.split_once(' '))
                .map(|(_, rest)| rest)
                .and_then(|rest| rest.strip_prefix(mark))
            {
                found.push((name, lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect()));
            }
        }
        found
    }

    #[test]
    #[ignore = "needs python3"]
    fn the_page_about_repairs_of_your_own_does_what_it_says() {
        let page = include_str!("../../../docs/bring-your-own-repair.md");
        let clone = Clone::new();
        let files = blocks(page, "file=");
        assert_eq!(files.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["fetch.sh", "carry.py", "absurd.py", "readings.yaml"]);
        for (name, text) in files {
            std::fs::write(clone.folder.path().join(name), text).unwrap();
        }
        for (_, script) in blocks(page, "setup") {
            clone.types(&script);
        }
        let scripts = blocks(page, "run");
        assert_eq!(scripts.len(), 1);
        let said = clone.types(&scripts[0].1);
        assert!(said.contains("absurd") && said.contains("a plan runs no program unless the step says `plan: true`"), "{said}");
        let rows = std::fs::read_to_string(clone.folder.path().join("readings.csv")).unwrap();
        // Two hours from the store, one that the store does not have, and the cell that was absurd; and the file that never came.
        let of = |what: &str| rows.lines().filter(|line| line.contains(what)).count();
        assert_eq!((of("20.75"), of("9999"), of("2024-03-05T")), (3, 0, 8), "{rows}");
        assert!(rows.lines().any(|line| line.starts_with("b,2024-03-04T12:00:00Z,7.25") && line.contains("command")), "{rows}");
    }
}

/// What needs a package of Python, which is installed from its registry unless REPAIR_TEST_PYTHON names a Python that has it.
mod statsmodels {
    use std::collections::BTreeMap;

    use super::*;

    /// The folder of a Python with statsmodels.
    fn python(clone: &Clone) -> String {
        if let Some(python) = std::env::var_os("REPAIR_TEST_PYTHON") {
            return Path::new(&python).parent().unwrap().display().to_string();
        }
        // The first lines of the example say it in this way.
        clone.types("python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check statsmodels");
        clone.folder.path().join("venv/bin").display().to_string()
    }

    const KEYS: &str = "--param keys=AZPS,PSEI,WACM";

    #[test]
    #[ignore = "needs Python with statsmodels, which it installs with pip; REPAIR_TEST_PYTHON names a Python that has it"]
    fn a_year_of_demand_is_filled_by_a_kalman_smoother_that_says_how_sure_it_is() {
        let clone = Clone::new();
        let with_python = format!("export PATH=\"{}:$PATH\"; repair", python(&clone));
        clone.types("mkdir -p lake && cp -r testdata/us-power-hourly lake");
        let file = "examples/workflows/us-power-statsmodels.yaml";
        assert!(clone.types(&format!("repair validate {file}")).contains("has no mistakes"));
        let report: Value = serde_json::from_str(&clone.types(&format!("{with_python} run {file} --lake lake {KEYS} --json"))).unwrap();
        // Holes of 72, 33 and 216 hours: the second begins with the year, and so has nothing before it.
        assert_eq!((output(&report, "find_gaps", "missing"), output(&report, "check", "missing")), (321, 0), "{report}");
        assert_eq!(report["usage"]["source_requests"], 3, "a program for each authority: {}", report["usage"]);
        assert_eq!((&report["steps"]["fill"]["output"]["strategy"], output(&report, "fill", "repaired")), (&"kalman".into(), 321));
        let rows = clone.types("repair export demand --out - --format jsonl --lake lake");
        let filled: Vec<Value> =
            rows.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|row: &Value| !row["repaired_by"].is_null()).collect();
        assert_eq!(filled.len(), 321);
        assert!(filled.iter().all(|row| row["demand_mw"].as_u64().is_some_and(|value| (300..10_000).contains(&value))));
        let why: Value =
            serde_json::from_str(&clone.types("repair why demand --key AZPS --at 2018-05-01T12:00:00Z --lake lake --json")).unwrap();
        // The interval is around the estimate, and kept with it.
        let repair = &why["repairs"][0];
        let ends: Vec<f64> = repair["estimated"]["demand_mw"].as_array().unwrap().iter().map(|end| end.as_f64().unwrap()).collect();
        let value = repair["row"]["demand_mw"].as_f64().unwrap();
        assert!(repair["strategy"] == "kalman" && ends.len() == 2 && ends[0] < value && value < ends[1], "{why}");

        // It competes with the built-in strategies, alone and in chains.
        let compared = clone.types(&format!(
            "{with_python} compare {file} --lake lake {KEYS} --seed 11 --strategies kalman,fill,seasonal,joint,interpolate --json"
        ));
        let compared: Value = serde_json::from_str(&compared).unwrap();
        let loss: BTreeMap<&str, f64> = compared["strategies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|strategy| (strategy["name"].as_str().unwrap(), strategy["loss"].as_f64().unwrap()))
            .collect();
        println!("{loss:?}");
        assert!(loss["kalman"] < loss["interpolate"] && loss["kalman"] < 2.0 * loss["seasonal"], "{loss:?}");
    }
}

#[test]
fn two_workflows_run_side_by_side() {
    let clone = Clone::new();
    let report = clone.runs("workflows/side-by-side.yaml", "");
    let air = Air::new("2004-04-01", "2004-04-30");
    let of = |step: &str, inner: &str, field: &str| report["steps"][step]["output"]["steps"][inner][field].clone();
    assert_eq!((of("air", "find_gaps", "missing"), of("air", "check", "missing")), (air.missing.into(), air.left.into()), "{report}");
    assert_eq!((of("power", "find_gaps", "missing"), of("power", "daily", "rows")), (4_484.into(), 3_865.into()));
    air.check(&clone.types("repair export air_quality_daily --out - --format csv --lake lake"));
}

#[test]
fn what_a_pipeline_used_is_recorded() {
    let clone = Clone::new();
    let report = clone.runs("stock-pipeline/workflows/pipeline-usage.yaml", "");
    assert_eq!((&report["outcome"], &report["usage"]["queue_messages"]), (&"succeeded".into(), &3_900.into()), "{report}");
}
