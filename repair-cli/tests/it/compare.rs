//! `repair compare` on real bars, held against a computation of its own: from the files alone, with none of our code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::common::{World, files};
use serde_json::Value;

/// A slot: symbol, minute of the two days.
type Slot = (String, i64);
/// Open, high, low, close, volume.
type Bar = [f64; 5];

const COLUMNS: [&str; 5] = ["open", "high", "low", "close", "volume"];
/// How long a price is carried on, and a line drawn, in minutes.
const REACH: i64 = 45;

const WORKFLOW: &str = "\
workflow: crypto
kind: state-machine
params:
  symbols: { type: list, default: [BTCEUR, BTCUSD, ETHUSD, LTCUSD] }
prices: prices.yaml
tables:
  bars: { location: crypto, format: csv, key: [symbol], time: ts, cadence: 1m }
sources:
  market: { source: stocks.archive, with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 500 } }
start: find_gaps
steps:
  find_gaps:
    detect: gaps
    with: { table: bars, keys: \"{% $params.symbols %}\", from: 2018-04-04, to: 2018-04-05 }
    next: ask
  ask: { repair: stocks.backfill, of: find_gaps, with: { source: market }, next: last_price }
  last_price: { repair: stocks.carry-forward, of: find_gaps, with: { max_age: 45m }, next: line }
  line: { repair: interpolate, of: find_gaps, with: { max_gap: 45m }, next: hourly }
  hourly: { aggregate: stocks.hourly-bars, of: find_gaps, with: { table: bars, into: hourly }, end: true }
";

const PRICES: &str = "\
prices: test
as_of: 2026-11-01
currency: USD
sources:
  stocks.archive: { usd_per_call: 0.0025, source: made up }
";

/// The real bars, in a lake and in its archive.
struct Real {
    world: World,
    bars: BTreeMap<Slot, Bar>,
    workflow: PathBuf,
}

impl Real {
    fn new() -> Self {
        let world = World::new();
        std::fs::remove_dir_all(world.lake().join("archive")).unwrap();
        let mut bars = BTreeMap::new();
        for folder in ["crypto", "archive"] {
            std::fs::create_dir_all(world.lake().join(folder)).unwrap();
        }
        for (day, file) in [(0, "2018-04-04"), (1, "2018-04-05")] {
            let text = testdata::text(&format!("crypto-minute/{file}"));
            for folder in ["crypto", "archive"] {
                std::fs::write(world.lake().join(folder).join(format!("{file}.csv")), &text).unwrap();
            }
            for line in text.lines().skip(1) {
                let fields: Vec<&str> = line.split(',').collect();
                let number = |text: &str| text.parse::<i64>().unwrap();
                let minute = day * 1_440 + number(&fields[1][11..13]) * 60 + number(&fields[1][14..16]);
                bars.insert((fields[0].to_owned(), minute), std::array::from_fn(|at| fields[2 + at].parse().unwrap()));
            }
        }
        assert_eq!(bars.len(), 9_687);
        world.write("prices.yaml", PRICES);
        let workflow = world.write("crypto.yaml", WORKFLOW);
        Self { world, bars, workflow }
    }

    fn compare(&self, arguments: &[&str]) -> (String, String, i32) {
        let output = self.world.repair().arg("compare").arg(&self.workflow).args(["--lake", "lake"]).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (out, err, code) = self.compare(&[&["--json", "--hidden"], arguments].concat());
        assert_eq!(code, 0, "{out}{err}");
        serde_json::from_str(&out).unwrap()
    }
}

/// The slots that a report says were hidden.
fn hidden(report: &Value) -> BTreeSet<Slot> {
    let mut all = BTreeSet::new();
    for run in report["hidden_slots"].as_array().unwrap() {
        let minute = |name: &str| {
            let text = run["interval"][name].as_str().unwrap();
            let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
            (number(8, 10) - 4) * 1_440 + number(11, 13) * 60 + number(14, 16)
        };
        all.extend((minute("from")..minute("to")).map(|minute| (run["key"].as_str().unwrap().to_owned(), minute)));
    }
    all
}

/// The last price, with nothing traded.
fn carried(seen: &BTreeMap<Slot, Bar>, (symbol, minute): &Slot) -> Option<Bar> {
    let (_, bar) = seen.range((symbol.clone(), minute - REACH)..(symbol.clone(), *minute)).next_back()?;
    Some([bar[3], bar[3], bar[3], bar[3], 0.0])
}

/// A point on the line between the bars around.
fn drawn(seen: &BTreeMap<Slot, Bar>, (symbol, minute): &Slot) -> Option<Bar> {
    let ((_, from), before) = seen.range((symbol.clone(), i64::MIN)..(symbol.clone(), *minute)).next_back()?;
    let ((_, to), after) = seen.range((symbol.clone(), *minute)..(symbol.clone(), i64::MAX)).next()?;
    let part = (minute - from) as f64 / (to - from) as f64;
    (to - from - 1 <= REACH).then(|| std::array::from_fn(|at| before[at] + (after[at] - before[at]) * part))
}

fn close(reported: &Value, mine: f64, what: &str) {
    let reported = reported.as_f64().unwrap();
    let apart = (reported - mine).abs();
    assert!(apart <= 1e-9 * mine.abs().max(1e-3), "{what}: it says {reported}, and by hand it is {mine}");
}

/// Holds what an idea's report says of columns against guesses made by hand.
fn check_columns(idea: &Value, truth: &BTreeMap<Slot, Bar>, hidden: &BTreeSet<Slot>, guesses: &BTreeMap<Slot, Bar>) {
    assert_eq!(idea["hidden"], hidden.len());
    assert_eq!(idea["repaired"], guesses.len());
    assert_eq!((&idea["absent"], &idea["left"]), (&0.into(), &(hidden.len() - guesses.len()).into()), "{idea}");
    for (at, column) in COLUMNS.iter().enumerate() {
        let differences: Vec<(f64, f64)> = guesses.iter().map(|(slot, bar)| (bar[at] - truth[slot][at], truth[slot][at])).collect();
        let count = differences.len() as f64;
        let errors = &idea["columns"][*column];
        assert_eq!(errors["count"], differences.len());
        close(&errors["mean_absolute"], differences.iter().map(|(by, _)| by.abs()).sum::<f64>() / count, column);
        close(&errors["bias"], differences.iter().map(|(by, _)| by).sum::<f64>() / count, column);
        close(&errors["mean_relative"], differences.iter().map(|(by, of)| (by / of).abs()).sum::<f64>() / count, column);
        close(&errors["worst_absolute"], differences.iter().map(|(by, _)| by.abs()).fold(0.0, f64::max), column);
        let lost: f64 = differences.iter().map(|(by, of)| (by / of).abs().min(1.0)).sum();
        close(&errors["loss"], (lost + (hidden.len() - guesses.len()) as f64) / hidden.len() as f64, column);
    }
}

/// Bars of hours, by symbol and hour.
fn hours(bars: &BTreeMap<Slot, Bar>) -> BTreeMap<Slot, Bar> {
    let mut hours: BTreeMap<Slot, Bar> = BTreeMap::new();
    for ((symbol, minute), [open, high, low, close, volume]) in bars {
        let hour = hours.entry((symbol.clone(), minute / 60)).or_insert([*open, *high, *low, *close, 0.0]);
        *hour = [hour[0], hour[1].max(*high), hour[2].min(*low), *close, hour[4] + volume];
    }
    hours
}

fn check_hours(idea: &Value, truth: &BTreeMap<Slot, Bar>, seen: &BTreeMap<Slot, Bar>, guesses: &BTreeMap<Slot, Bar>) {
    let mut repaired = seen.clone();
    repaired.extend(guesses.clone());
    let (truth, computed) = (hours(truth), hours(&repaired));
    let of_hours = &idea["aggregates"]["hourly"];
    assert_eq!(of_hours["rows"], 192, "an hour without a bar is an hour too");
    for (at, column) in COLUMNS.iter().enumerate() {
        let known = truth.iter().filter_map(|(hour, bar)| Some((bar[at], computed.get(hour)?[at])));
        let differences: Vec<f64> = known.map(|(truth, computed)| (computed - truth).abs()).collect();
        close(&of_hours["columns"][*column]["mean_absolute"], differences.iter().sum::<f64>() / differences.len() as f64, column);
    }
    // Sums of floats in another order, or a line computed otherwise, differ in the last digits.
    let same = |one: &Bar, other: &Bar| one.iter().zip(other).all(|(a, b)| (a - b).abs() <= 1e-9 * a.abs());
    let differ = truth.iter().filter(|(hour, bar)| computed.get(*hour).is_none_or(|other| !same(bar, other))).count();
    assert_eq!(of_hours["differ"], differ);
}

fn idea<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["strategies"].as_array().unwrap().iter().find(|idea| idea["name"] == name).unwrap()
}

#[test]
fn ideas_are_as_right_and_as_dear_as_they_are_by_hand() {
    let real = Real::new();
    let before = files(&real.world.lake());
    for (pattern, share) in [("runs", "5%"), ("random", "20%"), ("one-key", "3%"), ("whole-day", "1%")] {
        let report = real.json(&["--pattern", pattern, "--mask", share, "--seed", "7"]);
        assert_eq!((&report["there"], &report["pattern"]), (&9_687.into(), &pattern.into()));
        let hidden = hidden(&report);
        assert_eq!(report["hidden"], hidden.len());
        assert!(hidden.iter().all(|slot| real.bars.contains_key(slot)), "only what is there can be hidden");
        let mut seen = real.bars.clone();
        seen.retain(|slot, _| !hidden.contains(slot));
        let guesses = |guess: fn(&BTreeMap<Slot, Bar>, &Slot) -> Option<Bar>| -> BTreeMap<Slot, Bar> {
            hidden.iter().filter_map(|slot| Some((slot.clone(), guess(&seen, slot)?))).collect()
        };
        let all: BTreeMap<Slot, Bar> = hidden.iter().map(|slot| (slot.clone(), real.bars[slot])).collect();
        for (name, guesses) in [("ask", all), ("last_price", guesses(carried)), ("line", guesses(drawn))] {
            let idea = idea(&report, name);
            if guesses.is_empty() {
                let is_idle = |problem: &Value| problem.as_str().unwrap().contains("its own limits leave all of it out");
                assert!(idea["problems"].as_array().into_iter().flatten().all(is_idle), "{idea}");
                assert_eq!((&idea["repaired"], &idea["left"]), (&0.into(), &hidden.len().into()), "{pattern}: {idea}");
                continue;
            }
            assert_eq!(idea["problems"], Value::Null, "{idea}");
            check_columns(idea, &real.bars, &hidden, &guesses);
            check_hours(idea, &real.bars, &seen, &guesses);
        }
        let asked = idea(&report, "ask");
        let calls = asked["calls"].as_u64().unwrap();
        assert!(calls >= 1 && asked["usage"]["source_requests"] == calls);
        let usd: f64 = asked["usd"].as_str().unwrap().parse().unwrap();
        assert!((usd - calls as f64 * 0.0025).abs() < 1e-12, "{asked}");
        assert_eq!((&asked["loss"], &report["best"]), (&0.0.into(), &"ask".into()), "the archive has the truth");
        for free in ["last_price", "line"] {
            assert_eq!((&idea(&report, free)["usd"], &idea(&report, free)["calls"]), (&"0".into(), &0.into()));
        }
    }
    assert!(files(&real.world.lake()) == before && !real.world.lake().join(".repair").exists(), "nothing is written, not even a journal");
}

#[test]
fn the_seed_alone_says_what_is_hidden_and_limits_say_what_is_best() {
    let real = Real::new();
    let some = ["--mask", "2%", "--strategies", "line,carry_forward"];
    let report = real.json(&some);
    let names: Vec<&str> = report["strategies"].as_array().unwrap().iter().map(|idea| idea["plugin"].as_str().unwrap()).collect();
    assert_eq!(names, ["interpolate", "carry-forward"], "a step of the workflow, and a repairer that needs nothing");
    assert_eq!(report["mask"], real.json(&[&some[..], &["--columns", "close"]].concat())["mask"]);
    let mut fewer = some.to_vec();
    fewer[3] = "ask";
    assert_eq!(report["hidden_slots"], real.json(&fewer)["hidden_slots"], "the same for other ideas");
    assert_ne!(report["mask"], real.json(&[&some[..], &["--seed", "2"]].concat())["mask"]);
    // Two symbols hide among themselves.
    let two = real.json(&[&some[..], &["--param", "symbols=BTCUSD,ETHUSD"]].concat());
    assert!(hidden(&two).iter().all(|(symbol, _)| ["BTCUSD", "ETHUSD"].contains(&symbol.as_str())));
    let best = |limit: &[&str]| real.json(&[&["--columns", "close", "--pattern", "random"], limit].concat())["best"].clone();
    assert_eq!(best(&[]), "ask");
    assert_eq!(best(&["--max-calls", "1"]), "line", "a line is nearer to the next price than the last one");
    assert_eq!(best(&["--max-usd", "0.001"]), "line");
    assert_eq!(best(&["--strategies", "ask", "--max-usd", "0.001"]), Value::Null);
}

#[test]
fn what_is_told_to_people() {
    let real = Real::new();
    let (out, err, code) = real.compare(&["--seed", "7", "--max-usd", "1.50"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    // How long it took is not the same twice.
    let (head, rest) = out.split_once(" ms\n").unwrap();
    let (ideas, rest) = rest.split_once("\n\n").unwrap();
    let ideas: Vec<&str> = ideas.lines().map(|line| line.rsplit_once(' ').unwrap().0.trim_end()).collect();
    insta::assert_snapshot!(format!("{}\n{}\n\n{rest}", head.trim_end(), ideas.join("\n")));
    for (arguments, words) in [
        (&["--strategies", "lime"][..], "no strategy `lime` (did you mean `line`?)"),
        (&["--strategies", "line,line"], "`line` is named twice"),
        (&["--strategies", "shifted"], "`shifted` needs a `with`, and none is given here"),
        (&["--mask", "90%"], "`90%` is not a share"),
        (&["--columns", "closing"], "no column of numbers `closing`; its columns of numbers are open, high, low, close, volume"),
        (&["--of", "find"], "no detect step `find`; its detect steps are find_gaps"),
        (&["--max-usd", "cheap"], "`cheap` must be a plain decimal number"),
    ] {
        let (out, err, code) = real.compare(arguments);
        assert!(code == 2 && err.contains(words), "{arguments:?}: {out}{err}");
    }
}

/// The process that runs a query gets what is hidden, and what was repaired before, with the query.
#[test]
fn a_query_in_a_process_of_its_own_sees_no_hidden_row() {
    let world = World::new();
    let (mut readings, mut near) = ("sensor,ts,value\n".to_owned(), "station,ts,value\n".to_owned());
    for hour in 0..240 {
        let at = format!("2024-03-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24);
        readings.push_str(&format!("a,{at},{}\n", 10 + hour));
        near.push_str(&format!("b,{at},{}\n", 10 + hour));
    }
    for (name, text) in [("readings", readings), ("near", near)] {
        std::fs::create_dir_all(world.lake().join(name)).unwrap();
        std::fs::write(world.lake().join(name).join("0.csv"), text).unwrap();
    }
    let file = world.write(
        "readings.yaml",
        "workflow: readings
kind: dag
tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h }
  near: { location: near, format: csv, key: [station], time: ts, cadence: 1h }
  sums: { location: sums, format: parquet, key: [sensor], time: day }
steps:
  look: { detect: gaps, with: { table: readings, keys: [a], from: 2024-03-01, to: 2024-03-10 } }
  fill:
    after: [look]
    of: look
    repair:
      - { strategy: sql, name: even, with: { query: 'SELECT m.sensor, m.ts, n.value FROM $missing m JOIN near n ON n.ts = m.ts WHERE n.value % 2 = 0' } }
      - { strategy: sql, name: cheat, with: { query: 'SELECT m.sensor, m.ts, r.value FROM $missing m JOIN readings_repaired r ON r.ts = m.ts' } }
      - { strategy: sql, name: before, with: { query: \"SELECT m.sensor, m.ts, r.value + 1 AS value FROM $missing m JOIN readings_repaired r ON r.ts = m.ts - INTERVAL '1 hour' WHERE r.repaired_by = 'even'\" } }
  sum:
    after: [fill]
    of: look
    aggregate: sql
    with: { into: sums, query: \"SELECT sensor, date_trunc('day', ts) AS day, sum(value) AS total FROM readings_repaired GROUP BY 1, 2\" }
",
    );
    let output = world
        .repair()
        .arg("compare")
        .arg(&file)
        .args(["--lake", "lake", "--strategies", "even,cheat,before,even+before", "--pattern", "runs", "--json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let found = |at: usize| &report["strategies"][at];
    let hidden = report["hidden"].as_u64().unwrap();
    let repaired = |at: usize| found(at)["repaired"].as_u64().unwrap();
    assert!(repaired(0) > 0 && repaired(0) < hidden, "{report:#}");
    assert_eq!((repaired(1), repaired(2)), (0, 0), "{report:#}");
    assert!(repaired(3) > repaired(0), "{report:#}");
    assert_eq!(found(3)["columns"]["value"]["worst_absolute"], 0.0, "{report:#}");
    assert!(found(1)["aggregates"]["sums"]["differ"].as_u64().unwrap() > 0, "{report:#}");
}
