//! `repair costs`: what runs took and what that cost, beside the pipeline's own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::PathBuf;

use crate::common::World;
use serde_json::Value;

const PIPELINE: &str = "\
workflow: pipeline
kind: state-machine
params: { requests: { type: integer } }
tags: { component: infrastructure, team: 'feeds, fast' }
start: used
steps:
  used: { task: usage, with: { source: feed, source_requests: \"{% $params.requests %}\", queue_messages: 1170, compute_ms: 29250, storage_writes: 13 }, end: true }
";

const PRICES: &str = "\
prices: test
as_of: 2026-11-01
currency: USD
items:
  storage_writes: { usd: 0.005, per: 1000, source: page }
  compute_seconds: { usd: 0.0000166667, per: 1, source: page }
  queue_messages: { usd: 1.20, per: 1000000, source: page }
sources:
  feed: { usd_per_call: 0.0001, source: page }
  market: { usd_per_call: 0.002, source: page }
";

/// A lake with one repair and one day of its pipeline.
fn world() -> (World, PathBuf) {
    let world = World::new();
    world.stay_new();
    let repair = world.workflow(&[("start: find_gaps\n", "tags: { project: ticker, idea: backfill }\nstart: find_gaps\n")]);
    assert_eq!(world.run_json(&repair, &["--run-id", "monday"]).1, 0);
    let pipeline = world.write("pipeline.yaml", PIPELINE);
    assert_eq!(world.run_json(&pipeline, &["--run-id", "pipeline", "--param", "requests=1170"]).1, 0);
    let prices = world.write("prices.yaml", PRICES);
    (world, prices)
}

fn costs(world: &World, more: &[&str]) -> (String, String, i32) {
    world.said(&[&["costs"], more].concat())
}

/// How much is read of repairs depends on how well their instants compress; all else is the same each time.
fn told(text: &str) -> String {
    let mut told = String::new();
    for line in text.lines() {
        let words: Vec<&str> =
            line.split_whitespace().map(|word| if word.len() > 5 && word.parse::<u64>().is_ok() { "BYTES" } else { word }).collect();
        told.push_str(words.join(" ").as_str());
        told.push('\n');
    }
    told
}

#[test]
fn costs_are_told_by_component_workflow_and_idea_with_the_pipeline_beside() {
    let (world, prices) = world();
    let (text, _, code) = costs(&world, &["--prices", prices.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert_eq!(told(&text), TABLE);
    // The same by hand: 35 calls of 0.002; and 1,170 of 0.0001 with messages, 29.25 s and 13 writes.
    let (text, _, _) = costs(&world, &["--prices", prices.to_str().unwrap(), "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["components"][0]["usd"], "0.118956500975");
    assert_eq!(json["total"]["rows_repaired"], world.dropped);
    assert_eq!(json["total"]["slots_absent"], world.quiet);
    let report = json["groups"].as_array().unwrap().iter().map(|group| group["usage"]["source_requests"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(report, json["total"]["usage"]["source_requests"].as_u64().unwrap());
}

const TABLE: &str = "\
component workflow idea calls bytes read writes messages ms worked repaired absent USD USD a row
infrastructure pipeline - 1170 0 13 1170 29250 0 0 0.119 -
repair ticker - 0 BYTES 0 0 0 0 0 0 -
repair ticker backfill 35 BYTES 0 0 0 386 33 0.07 0.0001813
total 1205 BYTES 13 1170 29250 386 33 0.189 0.0001813

2 runs; prices: test of 2026-11-01
repair 0.07 USD, the pipeline itself 0.119 USD; repair is 58.85 % of that
not in the price book, so counted as free: bytes_stored
";

#[test]
fn csv_has_all_that_is_counted_and_prices_to_the_last_digit() {
    let (world, prices) = world();
    let (text, _, _) = costs(&world, &["--prices", prices.to_str().unwrap(), "--csv", "--group-by", "team,step", "pipeline"]);
    assert_eq!(text, CSV);
    let (text, _, _) = costs(&world, &["--prices", prices.to_str().unwrap(), "--csv", "--group-by", "project,table,strategy"]);
    let keys: Vec<String> = text.lines().skip(1).map(|line| line.split(',').take(4).collect::<Vec<_>>().join(",")).collect();
    assert_eq!(keys, ["-,-,-,1", "ticker,bars,-,1", "ticker,bars,stocks.backfill,1", "ticker,hourly,-,1"]);
}

const CSV: &str = "\
team,step,runs,source_requests,source_rows,rows_read,bytes_scanned,rows_written,bytes_written,objects_written,queries,engine_ms,\
storage_reads,storage_writes,queue_messages,stream_records,compute_ms,rows_repaired,slots_absent,usd,usd_at_most,usd_per_row
\"feeds, fast\",used,1,1170,0,0,0,0,0,0,0,0,0,13,1170,0,29250,0,0,0.118956500975,0.118956500975,
";

#[test]
fn without_prices_there_is_usage_and_a_way_to_prices() {
    let (world, prices) = world();
    let (text, _, code) = costs(&world, &[]);
    assert_eq!(code, 0);
    assert!(text.contains("usage only") && text.contains("--prices FILE"), "{text}");
    assert!(!text.contains("USD a row"), "{text}");
    // The book that a run was started with is kept with it; the other run has none, and that is said.
    let workflow = world.workflow(&[]);
    assert_eq!(world.run_json(&workflow, &["--run-id", "tuesday", "--prices", prices.to_str().unwrap()]).1, 0);
    std::fs::remove_file(prices).unwrap();
    let (text, _, _) = costs(&world, &[]);
    assert!(text.contains("2 runs without a price book"), "{text}");
}

#[test]
fn a_source_that_is_paid_by_the_month_is_told_with_its_share_and_what_it_adds() {
    let (world, prices) = world();
    let plan = PRICES.replace("usd_per_call: 0.002", "monthly_usd: 29, calls_included: 1000, usd_beyond: 0.05");
    std::fs::write(&prices, plan).unwrap();
    let (text, _, _) = costs(&world, &["--prices", prices.to_str().unwrap(), "monday"]);
    assert!(text.contains("market is paid by the month: 29 USD in "), "{text}");
    assert!(text.contains("of 1000 calls used") && text.contains("on top of the plan they cost 0 USD."), "{text}");
}

#[test]
fn what_is_asked_for_can_be_narrowed_and_what_is_not_there_is_refused() {
    let (world, prices) = world();
    let prices = prices.to_str().unwrap();
    let runs = |more: &[&str]| {
        let (text, told, _) = costs(&world, &[&["--prices", prices, "--json"], more].concat());
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{told}"));
        json["total"]["runs"].as_u64().unwrap()
    };
    assert_eq!(runs(&[]), 2);
    assert_eq!(runs(&["monday"]), 1);
    assert_eq!(runs(&["--since", "7d"]), 2);
    assert_eq!(runs(&["--since", "2018-04-01"]), 2);
    assert_eq!(runs(&["--since", "2300-01-01"]), 0);
    for (wrong, way_out) in [
        (&["mondy"][..], "did you mean `monday`?"),
        (&["--group-by", "idae"], "did you mean `idea`?"),
        (&["--since", "yesterday"], "write 2018-04-01"),
        (&["--prices", "nowhere.yaml"], "nowhere.yaml"),
    ] {
        let (_, told, code) = costs(&world, wrong);
        assert_eq!(code, 2, "{wrong:?}");
        assert!(told.contains(way_out), "{told}");
    }
}

/// What a run within a run took is in the ledger once, and comes along when the outer run is asked for.
#[test]
fn a_run_within_a_run_is_counted_once() {
    let (world, prices) = world();
    world.write("pipeline.yaml", PIPELINE);
    let outer = world.write(
        "outer.yaml",
        "workflow: outer\nkind: state-machine\nstart: inner\nsteps:\n  inner: { workflow: pipeline.yaml, with: { requests: 7 }, end: true }\n",
    );
    assert_eq!(world.run_json(&outer, &["--run-id", "outer"]).1, 0);
    let (text, _, _) = costs(&world, &["outer", "--prices", prices.to_str().unwrap(), "--json", "--group-by", "workflow,environment"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["total"]["usage"]["source_requests"], 7);
    assert_eq!(json["groups"][0]["tags"]["workflow"], "pipeline");
    assert_eq!(json["groups"][0]["tags"]["environment"], "local");
}
