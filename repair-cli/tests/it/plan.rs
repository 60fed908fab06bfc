//! Plan and apply: what it takes is told before anything is spent or written, and then that is done, or refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fmt::Write;
use std::path::PathBuf;

use crate::common::{World, files};
use serde_json::Value;

const DAYS: [&str; 2] = ["2018-04-04", "2018-04-05"];

const WORKFLOW: &str = "\
workflow: coins
kind: state-machine
params: { day: { type: date } }
prices: prices.yaml
budget: { usd: 1.00 }
tables:
  coins: { location: coins, format: csv, partition_by: [{ date: day }], key: [symbol], time: ts, cadence: 1m }
sources:
  market: { source: stocks.archive, with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 500 } }
start: find_gaps
steps:
  find_gaps:
    detect: gaps
    with: { table: coins, keys: [BTCEUR, BTCUSD, ETHUSD, LTCUSD], from: \"{% $params.day %}\", to: \"{% $params.day %}\" }
    next: [{ when: $output.missing = 0, goto: hourly }, { goto: fill }]
  fill:
    repair: stocks.backfill
    of: find_gaps
    with: { source: market }
    budget: { calls: 100 }
    retry: [{ on: [transient], attempts: 2, interval: 10ms }]
    next: check
  check: { verify: find_gaps, next: [{ when: $output.missing = 0, goto: hourly }, { when: $visits < 2, goto: fill }, { goto: hourly }] }
  hourly: { aggregate: stocks.hourly-bars, of: find_gaps, with: { table: coins, into: hourly }, end: true }
profiles:
  local: { lake: local, with: { root: ./lake } }
";

const PRICES: &str = "prices: test\nas_of: 2026-11-01\ncurrency: USD\nsources:\n  market: { usd_per_call: 0.001, source: the contract }\n";

/// Real bars of two days, of which every seventh of two coins is lost; and an archive that has them all.
struct Coins {
    world: World,
    workflow: PathBuf,
    lost: u64,
}

impl Coins {
    fn new(changes: &[(&str, &str)]) -> Self {
        let world = World::new();
        let archive = world.lake().join("archive");
        std::fs::remove_dir_all(&archive).unwrap();
        std::fs::create_dir(&archive).unwrap();
        let mut lost = 0;
        for day in DAYS {
            let text = testdata::text(&format!("crypto-minute/{day}"));
            std::fs::write(archive.join(format!("{day}.csv")), &text).unwrap();
            let mut kept = String::new();
            for (number, line) in text.lines().enumerate() {
                if number % 7 == 3 && (line.starts_with("BTCUSD") || line.starts_with("ETHUSD")) {
                    lost += u64::from(day == DAYS[0]);
                } else {
                    writeln!(kept, "{line}").unwrap();
                }
            }
            let folder = world.lake().join(format!("coins/date={day}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("bars.csv"), kept).unwrap();
        }
        world.write("prices.yaml", PRICES);
        let mut text = WORKFLOW.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "the workflow does not contain {from}");
            text = text.replace(from, to);
        }
        let workflow = world.write("workflow.yaml", &text);
        Self { world, workflow, lost }
    }

    fn file(&self, day: &str) -> PathBuf {
        self.world.lake().join(format!("coins/date={day}/bars.csv"))
    }

    /// Changes the rows of a day.
    fn change(&self, day: &str, change: impl Fn(&str) -> String) {
        let text = std::fs::read_to_string(self.file(day)).unwrap();
        std::fs::write(self.file(day), change(&text)).unwrap();
    }

    fn plan(&self, more: &[&str]) -> (String, String, i32) {
        self.world.said(&[&["plan", "workflow.yaml", "--param", "day=2018-04-04", "-o", "plan.json"][..], more].concat())
    }

    fn plan_json(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.workflow.with_file_name("plan.json")).unwrap()).unwrap()
    }

    fn apply(&self, more: &[&str]) -> (String, String, i32) {
        self.world.said(&[&["apply", "plan.json"][..], more].concat())
    }

    /// Asserts that applying is refused with a code, in these words, and that nothing is written.
    fn refused(&self, code: i32, words: &[&str]) {
        let before = files(&self.world.lake());
        let (out, err, got) = self.apply(&[]);
        assert_eq!(got, code, "{out}{err}");
        assert!(words.iter().all(|word| err.contains(word)), "{words:?} in {err}");
        assert_eq!(files(&self.world.lake()), before);
        assert!(!self.world.lake().join(".repair").exists(), "not even a journal");
    }
}

#[test]
fn a_plan_is_told_and_then_done_once() {
    let coins = Coins::new(&[]);
    let before = files(&coins.world.lake());
    let (out, err, code) = coins.plan(&[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(files(&coins.world.lake()), before);
    assert!(!coins.world.lake().join(".repair").exists(), "nothing is written, not even a journal");
    insta::assert_snapshot!("plan", out);
    let plan = coins.plan_json();
    assert_eq!(plan["looks"][0]["counts"]["missing"].as_u64().unwrap(), 4 * 1_440 - rows(&coins, DAYS[0]));
    let estimate = &plan["repairs"][0]["strategies"][0]["estimate"];
    let calls = |end: &str| estimate[end]["calls"].as_u64().unwrap();

    let (out, err, code) = coins.apply(&["--json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["steps"]["hourly"]["output"]["repaired"], coins.lost, "{report}");
    let used = report["usage"]["source_requests"].as_u64().unwrap();
    // Once again for what the archive has not.
    assert!(calls("low") <= used && used <= 2 * calls("high"), "{used} {estimate}");
    let run = report["run"].as_str().unwrap();
    assert!(run.starts_with("plan-") && run[5..].len() == 24);
    let (events, _, _) = coins.world.said(&["show", run, "--events"]);
    assert!(events.lines().next().unwrap().contains(plan["digest"].as_str().unwrap()), "the run remembers its plan");

    let done = files(&coins.world.lake());
    let (out, err, code) = coins.apply(&["--json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (0, report), "the same run");
    assert!(err.contains("was applied before"), "{err}");
    assert_eq!(files(&coins.world.lake()), done);
    let (_, err, code) = coins.apply(&["--run-id", "another"]);
    assert!(code == 6 && err.contains("no longer missing of BTCUSD on 2018-04-04"), "{code} {err}");
}

fn rows(coins: &Coins, day: &str) -> u64 {
    std::fs::read_to_string(coins.file(day)).unwrap().lines().count() as u64 - 1
}

#[test]
fn a_plan_holds_as_long_as_the_same_slots_are_missing() {
    let coins = Coins::new(&[]);
    coins.plan(&[]);
    let text = std::fs::read_to_string(coins.file(DAYS[0])).unwrap();
    let of = |coin: &'static str| text.lines().filter(move |line| line.starts_with(coin)).map(str::to_owned).collect::<Vec<_>>();
    let archived = std::fs::read_to_string(coins.world.lake().join("archive/2018-04-04.csv")).unwrap();
    let came = archived.lines().find(|line| line.starts_with("BTCUSD") && !text.contains(line)).unwrap();
    let gone = &of("ETHUSD")[100..103];
    coins.change(DAYS[0], |text| {
        let kept = text.lines().filter(|line| !gone.iter().any(|gone| gone == line));
        kept.chain([came]).map(|line| format!("{line}\n")).collect()
    });
    coins.refused(6, &["find_gaps: 1 no longer missing of BTCUSD on 2018-04-04", "find_gaps: 3 more missing of ETHUSD on 2018-04-04"]);
    // As many are missing as before, but others.
    coins.change(DAYS[0], |_| text.replace(&gone[0], came));
    coins.refused(6, &["1 no longer missing of BTCUSD", "1 more missing of ETHUSD"]);
    // Nor does a file of the same size and time have to be the same.
    coins.change(DAYS[0], |_| text.clone());
    let planned = std::fs::metadata(coins.file(DAYS[0])).unwrap().modified().unwrap();
    coins.plan(&[]);
    coins.change(DAYS[0], |text| text.replacen("BTCUSD", "BTCUSX", 1));
    std::fs::File::options().append(true).open(coins.file(DAYS[0])).unwrap().set_modified(planned).unwrap();
    coins.refused(6, &["1 more missing of BTCUSD on 2018-04-04"]);
    std::fs::remove_file(coins.file(DAYS[0])).unwrap();
    coins.refused(6, &["more missing of LTCUSD on 2018-04-04"]);
    // A file of another day does not matter, and a file that was written anew only makes it look again.
    std::fs::write(coins.file(DAYS[0]), &text).unwrap();
    coins.change(DAYS[1], |text| text.lines().take(10).map(|line| format!("{line}\n")).collect());
    coins.change(DAYS[0], |text| format!("{text}{}\n", text.lines().last().unwrap()));
    let (out, err, code) = coins.apply(&["--json"]);
    assert!(
        code == 0 && err.contains("table coins has changed since the plan was made, but the same slots are missing"),
        "{code} {out}{err}"
    );
}

#[test]
fn a_plan_is_refused_when_the_workflow_means_something_else() {
    let coins = Coins::new(&[]);
    coins.plan(&[]);
    let mut wrong: Vec<(&str, &str, &str)> = vec![
        ("attempts: 2", "attempts: 3", "`retry` of step `fill` has changed"),
        ("calls: 100", "calls: 101", "what step `fill` does has changed"),
        ("usd: 1.00", "usd: 1.01", "its `budget` has changed"),
        ("rows_per_request: 500", "rows_per_request: 400", "source `market` has changed"),
        ("LTCUSD]", "LTCUSD, XRPUSD]", "`with` of step `find_gaps` has changed"),
        ("root: ./lake", "root: ./pond", "profile `local` has changed"),
    ];
    for (from, to, word) in wrong.drain(..) {
        std::fs::write(&coins.workflow, WORKFLOW.replace(from, to)).unwrap();
        coins.refused(6, &[word, "make a new plan"]);
    }
    std::fs::write(&coins.workflow, WORKFLOW).unwrap();
    coins.world.write("prices.yaml", &PRICES.replace("0.001", "0.002"));
    coins.refused(6, &["its price book has changed"]);
    coins.world.write("prices.yaml", PRICES);
    std::fs::remove_file(&coins.workflow).unwrap();
    coins.refused(2, &["workflow.yaml", "it cannot be checked whether"]);
    // Comments and spacing mean nothing.
    std::fs::write(&coins.workflow, WORKFLOW.replace("start: find_gaps", "# Here it begins.\nstart:    find_gaps")).unwrap();
    let (out, err, code) = coins.apply(&[]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn what_is_no_plan_is_not_applied() {
    let coins = Coins::new(&[]);
    let plan = coins.workflow.with_file_name("plan.json");
    coins.refused(2, &["plan.json", "repair plan"]);
    coins.plan(&[]);
    let text = std::fs::read_to_string(&plan).unwrap();
    for (changed, word) in [
        (text.replace("\"units\": ", "\"units\": 1"), "was changed after it was made"),
        (text.replace("\"format\": 1", "\"format\": 7"), "newer version"),
        ("[]".to_owned(), "not a plan"),
        (text[..text.len() / 2].to_owned(), "not a plan"),
    ] {
        std::fs::write(&plan, changed).unwrap();
        coins.refused(2, &[word]);
    }
}

#[test]
fn a_budget_that_cannot_be_met_is_told_before_anything_is_spent() {
    let coins = Coins::new(&[("calls: 100", "calls: 3")]);
    let (out, err, code) = coins.plan(&[]);
    assert!(code == 5 && out.contains("the budget of step fill cannot be met: it needs at least"), "{code} {out}{err}");
    coins.refused(5, &["the plan cannot meet a budget", "3 are allowed", "--anyway"]);
    let (report, code) = coins.world.run_json(&coins.workflow, &["--param", "day=2018-04-04", "--run-id", "one"]);
    assert_eq!((code, &report["outcome"], &report["usage"]["source_requests"]), (5, &"over-budget".into(), &3.into()), "{report}");
    let units = coins.plan_json()["repairs"][0]["strategies"][0]["units"].as_u64().unwrap();
    let (events, _, _) = coins.world.said(&["show", "one", "--events"]);
    let published = events.matches("\"kind\":\"publish-ended\"").count();
    assert!(published == 1 && units > 3, "what was paid for is seen, and nothing is under way: {events}");
    let (out, err, code) = coins.apply(&["--anyway"]);
    assert!(code == 6 && err.contains("no longer missing"), "{code} {out}{err}");
    coins.plan(&[]);
    let (out, err, code) = coins.apply(&["--anyway", "--json"]);
    assert!(code == 5 && out.contains("over-budget"), "{code} {out}{err}");
    let (_, err, code) = coins.apply(&["--run-id", "one", "--anyway"]);
    assert!(code == 2 && err.contains("run `one` exists, and does not belong to this plan"), "{code} {err}");
}

/// The plan says the price; then the budget is not passed.
#[test]
fn budget_with_estimate() {
    let coins = Coins::new(&[("usd: 1.00", "usd: 0.020"), ("    budget: { calls: 100 }\n", "")]);
    let (out, _, code) = coins.plan(&["--json"]);
    assert_eq!(code, 0, "{out}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    let usd = |end: &str| plan["total"][end]["usd"].as_str().unwrap().parse::<f64>().unwrap();
    let calls = |end: &str| plan["total"][end]["calls"].as_u64().unwrap();
    assert!((usd("low") - calls("low") as f64 * 0.001).abs() < 1e-12 && (usd("high") - calls("high") as f64 * 0.001).abs() < 1e-12);
    assert_eq!(plan["budgets"][0]["verdict"], "may-pass", "{}", plan["budgets"]);
    let (out, err, code) = coins.apply(&["--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!([0, 5].contains(&code), "{err}");
    assert!(report["usage"]["source_requests"].as_u64().unwrap() <= 20, "{report}");
}

/// What is found is not repaired by a run that does not come there, and steps after an unknown output are only perhaps done.
#[test]
fn what_depends_on_conditions_is_said() {
    let world = World::new();
    let workflow = world.workflow(&[(
        "fill:\n    repair",
        "later:\n    repair: carry-forward\n    of: find_gaps\n    with: { max_age: \"{% $steps.fill.output.failed > 3 ? '5m' : '10m' %}\" }\n    next: check\n  fill:\n    repair",
    ), ("next: check\n  check", "next: [{ when: $output.failed > 0, goto: later }, { goto: check }]\n  check")]);
    let (out, err, code) = world.said(&["plan", workflow.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("not planned: step later: its `with` is known only when the run gets there"), "{out}");
    assert!(out.contains("check (if it gets there)") && !out.contains("fill (if it gets there)"), "{out}");
    assert!(out.contains("one pass"), "{out}");
    assert!(!out.contains("USD"), "there is no price book");
}

/// A strategy gets what those before it leave: perhaps nothing, at most all. What does not fit into its budget goes to the next.
#[test]
fn strategies_are_planned_one_after_the_other() {
    let listed = "fill:\n    repair:\n      - { strategy: stocks.backfill, name: vendor, with: { source: market }, budget: { calls: 3 } }\n      - { strategy: \
                  stocks.carry-forward, with: { max_age: 5m } }";
    let coins =
        Coins::new(&[("fill:\n    repair: stocks.backfill", listed), ("    with: { source: market }\n    budget: { calls: 100 }\n", "")]);
    let (out, err, code) = coins.plan(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let plan = coins.plan_json();
    let of = |index: usize| plan["repairs"][0]["strategies"][index].clone();
    assert_eq!((&of(0)["name"], &of(0)["rest"], &of(0)["estimate"]["high"]["calls"]), (&"vendor".into(), &false.into(), &3.into()));
    assert_eq!(
        (&of(1)["rest"], &of(1)["estimate"]["low"]["bytes"], &of(1)["estimate"]["high"]["calls"]),
        (&true.into(), &0.into(), &0.into())
    );
    assert!(out.contains("stocks.carry-forward, for what is left"), "{out}");
    let budget = "the budget of strategy vendor of step fill may pass: it needs at least 10 calls, and 3 are allowed; what then is left goes to the next";
    assert!(out.contains(budget), "{out}");
    let (out, err, code) = coins.apply(&["--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["usage"]["source_requests"]), (0, &3.into()), "{err}{report}");
}
