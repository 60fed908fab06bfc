//! What a silence proves, and what comes of repairs when the truth comes late: on real bars, through the command.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a test that fails, panics; counts here are small"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::common::World;
use serde_json::Value;

const SERIES: [&str; 4] = ["BTCEUR", "BTCUSD", "ETHUSD", "LTCUSD"];
const DAYS: [&str; 2] = ["2018-04-04", "2018-04-05"];
const HEADER: &str = "symbol,ts,open,high,low,close,volume\n";

/// Real bars by series and minute of the two days, each as its line.
type Bars = BTreeMap<(&'static str, usize), String>;

fn real_bars() -> Bars {
    let mut bars = Bars::new();
    for (day, name) in DAYS.iter().enumerate() {
        for line in testdata::text(&format!("crypto-minute/{name}")).lines().skip(1) {
            let series = SERIES.into_iter().find(|series| line.starts_with(&format!("{series},"))).unwrap();
            let time = line.split(',').nth(1).unwrap();
            let number = |at: std::ops::Range<usize>| time[at].parse::<usize>().unwrap();
            bars.insert((series, day * 1_440 + number(11..13) * 60 + number(14..16)), line.to_owned());
        }
    }
    bars
}

fn time(minute: usize) -> String {
    format!("{}T{:02}:{:02}:00Z", DAYS[minute / 1_440], minute % 1_440 / 60, minute % 60)
}

/// Writes bars as a table of the lake.
fn put<'a>(world: &World, name: &str, bars: impl IntoIterator<Item = &'a String>) {
    let mut text = HEADER.to_owned();
    bars.into_iter().for_each(|line| writeln!(text, "{line}").unwrap());
    let file = world.lake().join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

/// Looks, repairs by `fill`, looks again, sums up.
fn workflow(fill: &str) -> String {
    format!(
        "workflow: crypto
kind: state-machine
tables:
  minutes: {{ location: minutes, format: csv, key: [symbol], time: ts, cadence: 1m }}
sources:
  archive: {{ source: stocks.archive, with: {{ location: kept, format: csv, keys_per_request: 1, rows_per_request: ROWS }} }}
start: look
steps:
  look:
    detect: gaps
    with: {{ table: minutes, keys: [BTCEUR, BTCUSD, ETHUSD, LTCUSD], from: 2018-04-04, to: 2018-04-05 }}
    next: fill
  fill: {{ {fill}, of: look, next: check }}
  check: {{ verify: look, next: hourly }}
  hourly: {{ aggregate: stocks.hourly-bars, of: look, with: {{ table: minutes, into: hourly }}, end: true }}
profiles:
  local: {{ lake: local, with: {{ root: ./lake }} }}
"
    )
}

fn why(world: &World, series: &str, minute: usize) -> Value {
    world.json(&["why", "minutes", "--key", series, "--at", &time(minute)])
}

/// On 2018-04-04 a collector failed: every series stops between 16:47 and 16:52, until midnight. The archive has the same hole.
#[test]
fn silence_of_all_is_suspect() {
    let bars = real_bars();
    // By hand: the minutes of which no series has a bar, in stretches of more than half an hour.
    let none: Vec<usize> = (0..2_880).filter(|&minute| SERIES.iter().all(|series| !bars.contains_key(&(*series, minute)))).collect();
    let outage: BTreeSet<usize> = none.chunk_by(|a, b| a + 1 == *b).filter(|run| run.len() > 30).flatten().copied().collect();
    let (first, last) = (*outage.first().unwrap(), *outage.last().unwrap());
    assert_eq!((first, last, outage.len()), (16 * 60 + 53, 1_439, 1_439 - (16 * 60 + 53) + 1));
    let (suspect, quiet) = (4 * outage.len(), 2_880 * 4 - bars.len() - 4 * outage.len());
    let is_quiet =
        |series: &'static str| (0..2_880).find(|minute| !bars.contains_key(&(series, *minute)) && !outage.contains(minute)).unwrap();

    let world = World::new();
    put(&world, "minutes/all.csv", bars.values());
    put(&world, "kept/all.csv", bars.values());
    let fill = "repair: stocks.backfill, with: { source: archive }";
    let file = world.write("crypto.yaml", &workflow(fill).replace("ROWS", "10000"));
    let (report, code) = world.run_json(&file, &["--run-id", "first"]);
    let output = |step: &str, name: &str| report["steps"][step]["output"][name].clone();
    assert_eq!((code, output("look", "missing")), (0, (suspect + quiet).into()), "{report}");
    assert_eq!((output("fill", "suspect"), output("fill", "absent")), (suspect.into(), quiet.into()), "{report}");
    assert_eq!((output("fill", "unresolved"), output("fill", "failed")), (suspect.into(), 0.into()));
    assert_eq!((output("check", "missing"), output("check", "absent")), (suspect.into(), quiet.into()), "it stays missing");
    assert_eq!(report["outcome"], "succeeded-with-exceptions");
    let told = "`archive` has nothing from 2018-04-04T16:53:00Z to 2018-04-05T00:00:00Z, and the table has no row of any of its 4 keys";
    let problem = format!("fill: {} slots of table `minutes` suspect: {told}", repair_core::text::grouped(suspect as u64));
    assert!(report["problems"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().starts_with(&problem)), "{report}");

    // Of each minute it is told which it is.
    let of_outage = why(&world, "BTCUSD", 20 * 60);
    assert_eq!((&of_outage["standing"], &of_outage["suspect"]["keys"]), (&"missing".into(), &4.into()), "{of_outage}");
    assert_eq!((&of_outage["suspect"]["source"], &of_outage["suspect"]["run"]), (&"archive".into(), &"first".into()));
    let people = world.text(&["why", "minutes", "--key", "BTCUSD", "--at", &time(20 * 60)]);
    assert!(people.contains(&format!("suspect: {told}")), "{people}");
    for series in SERIES {
        let told = why(&world, series, is_quiet(series));
        assert_eq!((&told["standing"], &told["suspect"]), (&"absent".into(), &Value::Null), "{series}");
    }

    // Another source may have what the first has not. Short requests hide how long the silence of the others is, and it stays suspect.
    let traded = |minute: usize| format!("ETHUSD,{},380,381,379,380,{}", time(minute), 1 + minute % 97);
    put(&world, "kept/other.csv", &outage.iter().map(|minute| traded(*minute)).collect::<Vec<_>>());
    let file = world.write("crypto.yaml", &workflow(fill).replace("ROWS", "20"));
    let (report, _) = world.run_json(&file, &["--run-id", "second"]);
    let output = |step: &str, name: &str| report["steps"][step]["output"][name].clone();
    assert_eq!((output("look", "missing"), output("fill", "repaired")), (suspect.into(), outage.len().into()), "{report}");
    assert_eq!((output("fill", "suspect"), output("fill", "absent")), ((3 * outage.len()).into(), 0.into()), "{report}");
    // Or a person knows.
    let stretch =
        ["--from", "2018-04-04T16:53:00Z", "--to", "2018-04-05T00:00:00Z", "--reason", "the collector was down; no record is left"];
    for series in ["BTCEUR", "BTCUSD", "LTCUSD"] {
        world.json(&[&["except", "minutes", "--key", series][..], &stretch].concat());
    }
    assert_eq!(why(&world, "BTCUSD", 20 * 60)["standing"], "absent");
    let (report, _) = world.run_json(&file, &["--run-id", "third"]);
    assert_eq!((&report["steps"]["look"]["output"]["missing"], &report["outcome"]), (&0.into(), &"succeeded".into()), "{report}");
}

/// A bar is lost, repaired by carrying forward, and lands later.
#[test]
fn late_truth_of_real_bars_is_charged_to_the_idea_that_guessed() {
    let bars = real_bars();
    // Minutes of the first day's morning that a series and the one before it have.
    let lost: Vec<usize> = (60..600)
        .step_by(17)
        .filter(|minute| [*minute - 1, *minute].iter().all(|minute| bars.contains_key(&("ETHUSD", *minute))))
        .collect();
    let world = World::new();
    put(
        &world,
        "minutes/all.csv",
        bars.iter().filter(|((series, minute), _)| *series != "ETHUSD" || !lost.contains(minute)).map(|(_, line)| line),
    );
    put(&world, "kept/all.csv", bars.values());
    let fill = "repair: stocks.carry-forward, with: { max_age: 1m }";
    let file = world.write("crypto.yaml", &workflow(fill).replace("ROWS", "10000"));
    let (first, _) = world.run_json(&file, &["--run-id", "first"]);
    assert_eq!((&first["late_truth"], &first["steps"]["look"]["output"]["overtaken"]), (&Value::Null, &0.into()));
    assert_eq!(why(&world, "ETHUSD", lost[0])["standing"], "repaired");

    let close = |minute: usize| bars[&("ETHUSD", minute)].split(',').nth(5).unwrap().parse::<f64>().unwrap();
    let mut told = Vec::new();
    for (run, late) in [("second", &lost[..10]), ("third", &lost[..10]), ("fourth", &lost[..])] {
        put(&world, "minutes/late.csv", late.iter().map(|minute| &bars[&("ETHUSD", *minute)]));
        let (report, _) = world.run_json(&file, &["--run-id", run]);
        assert_eq!(report["steps"]["look"]["output"]["overtaken"], late.len(), "{report}");
        let truth = &report["late_truth"]["look"]["stocks.carry-forward"];
        told.push((truth["slots"].as_u64().unwrap() as usize, truth["new"].as_u64().unwrap() as usize));
        // The guess of a close was the close of the minute before.
        let errors: Vec<f64> = late.iter().map(|&minute| (close(minute) - close(minute - 1)).abs()).collect();
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let of_close = &truth["columns"]["close"];
        assert!((of_close["mean_absolute"].as_f64().unwrap() - mean).abs() < 1e-9, "{truth}");
        let worst = errors.iter().copied().fold(0.0, f64::max);
        assert!((of_close["worst_absolute"].as_f64().unwrap() - worst).abs() < 1e-9, "{truth}");
        let line = format!("look: late rows of table `minutes` now replace repairs by `stocks.carry-forward` in {} slots", late.len());
        assert!(report["problems"].as_array().unwrap().iter().any(|problem| problem.as_str().unwrap().starts_with(&line)), "{report}");
    }
    assert_eq!(told, [(10, 10), (10, 0), (lost.len(), lost.len() - 10)], "each slot is new once");
    let accuracy = world.json(&["accuracy", "minutes"]);
    assert_eq!(accuracy["strategies"]["stocks.carry-forward"]["judged"], lost.len());
    assert_eq!(why(&world, "ETHUSD", lost[0])["standing"], "raw");
}
