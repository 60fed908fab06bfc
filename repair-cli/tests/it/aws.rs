//! The same workflow on S3 and Athena, by another profile and nothing else: on a sandbox of AWS.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::World;
use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use repair_core::lake::{Lake, Layer, ScanRequest};
use repair_core::model::{Format, Interval, Partition, PartitionUnit, Table};
use repair_local::LocalLake;
use rust_decimal::Decimal;
use serde_json::Value;

const WORKFLOW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/stock-pipeline/workflows/ticker-hourly.yaml");
const PRICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../prices/aws-us-east-1.yaml");
const LAKE: &str = "s3://bucket/lake";

fn table(name: &str, format: Format, time: &str, partitioned: bool) -> Table {
    let by = Partition { column: "date".to_owned(), unit: PartitionUnit::Day };
    Table {
        name: name.to_owned(),
        location: name.to_owned(),
        format,
        partition_by: if partitioned { vec![by] } else { Vec::new() },
        key: vec!["symbol".to_owned()],
        time: time.to_owned(),
        time_marks: Default::default(),
        cadence: Some("1m".parse().unwrap()),
        ..Table::implicit("bars", "ts")
    }
}

async fn scan(lake: &dyn Lake, table: &Table) -> Vec<RecordBatch> {
    let request = ScanRequest::new(Layer::Raw);
    lake.scan(table, &request).await.unwrap().try_collect().await.unwrap()
}

/// The columns by name, so that their order does not matter; a count is the same number whether it is signed or not.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let cell = |(index, name): (usize, &String)| format!("{name}={}", array_value_to_string(batch.column(index), row).unwrap());
            let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
            let mut cells: Vec<String> = names.into_iter().enumerate().map(cell).collect();
            cells.sort();
            rows.push(cells.join(" "));
        }
    }
    rows.sort();
    rows
}

/// A lake as the ticker pipeline writes it, in partitions, and an archive beside it.
async fn captured(world: &World) -> PathBuf {
    let from = LocalLake::open(world.lake()).unwrap();
    let folder = world.lake().parent().unwrap().join("captured");
    std::fs::create_dir(&folder).unwrap();
    let lake = LocalLake::open(&folder).unwrap();
    let day = Interval::parse("2024-03-04", "2024-03-04").unwrap();
    for (name, partitioned) in [("bars", true), ("archive", false)] {
        let all = scan(&from, &table(name, Format::Csv, "ts", false)).await;
        lake.replace(&table(name, Format::Parquet, "ts", partitioned), &day, all).await.unwrap();
    }
    folder
}

/// A sandbox with what the profile `aws` of the workflow names.
struct Sandbox {
    // It ends when it is dropped.
    sandbox: aws_sandbox::Sandbox,
    endpoint: String,
}

impl Sandbox {
    async fn start(lake: &Path) -> Self {
        let sandbox = aws_sandbox::Sandbox::start(aws_sandbox::Options::default()).await.unwrap();
        sandbox.store().create_bucket("bucket").unwrap();
        sandbox.create_workgroup("repair", "s3://bucket/results/").unwrap();
        sandbox.run(None, "CREATE DATABASE market").await.unwrap();
        for (name, folder) in [("bars", "bars"), ("bars_archive", "archive")] {
            let (folder, location) = (lake.join(folder), format!("{LAKE}/{name}"));
            let table = aws_sandbox::TableFolder { database: "market", name, folder: &folder, location: &location };
            sandbox.load(table).await.unwrap();
        }
        let endpoint = sandbox.endpoint();
        Self { sandbox, endpoint }
    }

    /// How many queries were begun.
    fn queries(&self) -> usize {
        self.sandbox.faults().served(aws_sandbox::Service::Athena, "StartQueryExecution")
    }

    fn repair(&self, world: &World) -> assert_cmd::Command {
        let mut command = world.repair();
        for (name, value) in [("AWS_ENDPOINT_URL", self.endpoint.as_str()), ("AWS_REGION", "us-east-1")] {
            command.env(name, value);
        }
        command.env("AWS_ACCESS_KEY_ID", "sandbox").env("AWS_SECRET_ACCESS_KEY", "sandbox");
        command
    }
}

const PARAMS: [&str; 7] = [
    "from=2024-03-04",
    "to=2024-03-04",
    "symbols=AIG,BAC,SPY",
    "source=archive",
    "archive_format=parquet",
    "settle=10ms",
    "quiet_spell=1h",
];

/// The arguments of a report on the table of bars as the workflow declares it, in a lake.
fn of_workflow<'a>(place: &[&'a str]) -> Vec<&'a str> {
    let params = PARAMS.iter().flat_map(|param| ["--param", param]);
    ["bars", "--workflow", WORKFLOW].into_iter().chain(place.iter().copied()).chain(params).collect()
}

fn run(mut command: assert_cmd::Command, more: &[&str], makes: bool) -> Value {
    command.args(["run", WORKFLOW, "--json"]).args(more);
    for param in PARAMS {
        command.args(["--param", param]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // What will be made in the catalog is told before, and only then.
    let tells = said.contains("will be created when it is first needed: table market.bars_repairs at s3://bucket/lake/bars_repairs/");
    assert_eq!(tells, makes, "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(output.status.success(), "{report:#}: {said}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_workflow_on_s3_and_athena_gives_the_same_hours() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    let on_aws = run(sandbox.repair(&world), &["--profile", "aws", "--run-id", "one"], true);
    let here = run(world.repair(), &["--lake", folder.to_str().unwrap()], false);
    for step in ["find_gaps", "fill", "check", "hourly"] {
        assert_eq!(on_aws["steps"][step]["output"], here["steps"][step]["output"], "{step}");
    }
    assert!(on_aws["usage"]["queries"].as_u64().unwrap() >= 3, "{}", on_aws["usage"]);
    // What a reader sees.
    let hourly = table("hourly", Format::Parquet, "hour", true);
    let connection = repair_aws::Connection::of(
        aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new("us-east-1"))
            .endpoint_url(&sandbox.endpoint)
            .credentials_provider(aws_sdk_credentials())
            .build(),
    );
    let lake = repair_aws::AwsLake::open(&connection, repair_aws::AwsOptions::new(LAKE, "market", "repair")).unwrap();
    let (theirs, ours) = (rows(&scan(&lake, &hourly).await), rows(&scan(&LocalLake::open(&folder).unwrap(), &hourly).await));
    assert_eq!(theirs.len(), 21, "seven hours of three stocks");
    assert_eq!(theirs, ours);
    // The report on the run says the same, and so does that on the table, with a run or without one.
    let reported = |mut command: assert_cmd::Command, more: &[&str]| -> Value {
        let output = command.arg("report").args(more).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{more:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
    };
    let lake_here = folder.to_str().unwrap();
    let here_run = here["run"].as_str().unwrap();
    for (theirs, ours) in [
        (vec!["one", "--lake", LAKE], vec![here_run, "--lake", lake_here]),
        (vec!["bars", "--lake", LAKE], vec!["bars", "--lake", lake_here]),
        (of_workflow(&["--profile", "aws"]), of_workflow(&["--lake", lake_here])),
        (of_workflow(&["--lake", LAKE]), of_workflow(&["--lake", lake_here])),
    ] {
        let (theirs, ours) = (reported(sandbox.repair(&world), &theirs), reported(world.repair(), &ours));
        assert_eq!(theirs["numbers"], ours["numbers"]);
        assert!(theirs["numbers"]["expected"] == 1_170 && theirs["numbers"]["left"] == 0, "{}", theirs["numbers"]);
        let pictured = |report: &Value| {
            let table = &report["tables"][0];
            (table["bucket"].clone(), table["starts"].clone(), table["keys"].clone(), table["total"].clone(), table["series"].clone())
        };
        assert_eq!(pictured(&theirs), pictured(&ours));
        assert_eq!(theirs["candles"], ours["candles"]);
        for listing in ["defects", "fixes", "exceptions"] {
            assert_eq!(theirs[listing]["rows"].as_array().map(Vec::len), ours[listing]["rows"].as_array().map(Vec::len), "{listing}");
        }
        assert_eq!(theirs["notes"], ours["notes"]);
    }
    let page = world.lake().parent().unwrap().join("page.html");
    sandbox.repair(&world).args(["report", "one", "--lake", LAKE, "--out", page.to_str().unwrap()]).assert().success();
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("Candles of hourly") && page.contains("Nothing is left."), "the page is not whole");
    // What is about the past finds the lake as a run does, or as the latest run had it.
    let asked = |mut command: assert_cmd::Command, args: &[&str]| {
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let sorted = |text: String| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (export, why) =
        (["export", "bars", "--out", "-", "--format", "csv"], ["why", "bars", "--key", "AIG", "--at", "2024-03-04T15:00:00Z"]);
    let there = sorted(asked(world.repair(), &[&export[..], &["--lake", lake_here]].concat()));
    let story = asked(world.repair(), &[&why[..], &["--lake", lake_here]].concat());
    for place in [&["--workflow", WORKFLOW, "--lake", LAKE][..], &["--workflow", WORKFLOW, "--profile", "aws"], &["--lake", LAKE]] {
        assert_eq!(sorted(asked(sandbox.repair(&world), &[&export[..], place].concat())).len(), there.len(), "{place:?}");
        let told = asked(sandbox.repair(&world), &[&why[..], place].concat());
        assert_eq!(told.lines().next(), story.lines().next(), "{place:?}");
    }
    let state = asked(sandbox.repair(&world), &["verify-state", "--lake", LAKE]);
    assert!(state.starts_with("read 1 run with") && state.ends_with("nothing is damaged\n"), "{state}");
    // Its journal is in the bucket: another process finds the run there, and to start it again changes nothing.
    let runs = sandbox.repair(&world).args(["runs", "--json", "--lake", LAKE]).output().unwrap();
    let runs: Value = serde_json::from_slice(&runs.stdout).unwrap();
    assert_eq!((&runs["runs"][0]["run"], &runs["runs"][0]["outcome"]), (&Value::from("one"), &Value::from("succeeded")), "{runs}");
    let again = run(sandbox.repair(&world), &["--profile", "aws", "--run-id", "one"], false);
    assert_eq!(again["usage"], on_aws["usage"]);
    sandbox.repair(&world).args(["resume", "one", "--lake", LAKE]).assert().success();
    let events = sandbox.repair(&world).args(["show", "one", "--events", "--lake", LAKE]).output().unwrap();
    let events = String::from_utf8(events.stdout).unwrap();
    assert!(events.contains("\"kind\":\"metered\"") && events.contains("\"bytes_scanned\""), "every query is on record");
    let costs = sandbox.repair(&world).args(["costs", "one", "--json", "--lake", LAKE, "--prices", PRICES]).output().unwrap();
    let costs: Value = serde_json::from_slice(&costs.stdout).unwrap_or_else(|error| panic!("{error}: {costs:?}"));
    assert_eq!(costs["total"]["usd"], by_hand(&events, &costs["total"]["usage"]), "{costs:#}");
    assert_eq!(costs["total"]["rows_repaired"], world.dropped);
}

/// A place in S3 without a journal is a mistake, as a folder without one is; one whose runs have not begun is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistyped_place_in_s3_is_not_an_empty_list_of_runs() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    for (place, said) in
        [("s3://bucket/lakes", "there is no journal at s3://bucket/lakes/_repair/journal"), ("s3://buckets/lake", "bucket")]
    {
        for command in [&["runs"][..], &["show", "one"], &["costs"], &["resume", "one"]] {
            let output = sandbox.repair(&world).args(command).args(["--lake", place]).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(2) && error.contains(said), "{command:?}: {error}");
        }
    }
}

/// What Athena and S3 charge for the events of a run: 5 dollars a terabyte, at least 10 MB a query that read anything, each id once; and requests,
/// and bytes for a month.
fn by_hand(events: &str, usage: &Value) -> String {
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let queries: BTreeMap<String, u64> = events
        .flat_map(|event| event["event"]["queries"].as_array().cloned().unwrap_or_default())
        .map(|query| (query["id"].as_str().unwrap().to_owned(), query["bytes_scanned"].as_u64().unwrap()))
        .collect();
    assert!(queries.values().filter(|bytes| **bytes > 0).count() >= 3, "{queries:?}");
    let charged: u64 = queries.values().filter(|bytes| **bytes > 0).map(|bytes| (*bytes).max(10_000_000)).sum();
    let count = |name: &str| Decimal::from(usage[name].as_u64().unwrap_or_default());
    // In parts of 10^-15 dollars.
    let parts = Decimal::from(charged) * Decimal::from(5_000)
        + count("storage_writes") * Decimal::from(5_000_000_000_u64)
        + count("storage_reads") * Decimal::from(400_000_000)
        + count("bytes_written") * Decimal::from(23_000);
    (parts / Decimal::from(1_000_000_000_000_000_u64)).normalize().to_string()
}

/// What a lake on Athena takes is queries, each with its minimum, and tables that are made; and nothing is made by telling so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_on_athena_tells_queries_and_what_is_made() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    let plan = |more: &[&str]| -> Value {
        let mut command = sandbox.repair(&world);
        command.args(["plan", WORKFLOW, "--profile", "aws", "--json", "-o", "plan.json", "--prices", PRICES]).args(more);
        for param in PARAMS {
            command.args(["--param", param]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (first, second) = (plan(&[]), plan(&[]));
    for part in ["creates", "repairs", "reads", "total"] {
        assert_eq!(first[part], second[part], "to look changes nothing");
    }
    assert_eq!(first["looks"][0]["extents"], second["looks"][0]["extents"]);
    assert_eq!(first["creates"].as_array().unwrap().len(), 3, "{}", first["creates"]);
    let look = &first["looks"][0]["estimate"]["low"];
    assert_eq!((&look["queries"], &look["usd"]), (&1.into(), &"0.00005".into()), "ten megabytes are the least: {look}");
    let (low, high) = (&first["total"]["low"], &first["total"]["high"]);
    assert!(high["queries"].as_u64() > low["queries"].as_u64() && low["queries"].as_u64() > Some(1), "{}", first["total"]);

    let apply = || {
        let output = sandbox.repair(&world).args(["apply", "plan.json", "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let done = apply();
    assert_eq!(done["steps"]["find_gaps"]["output"], second["looks"][0]["counts"]);
    assert_eq!(apply()["usage"], done["usage"], "the same run");
    let queries = done["usage"]["queries"].as_u64();
    assert!(low["queries"].as_u64() <= queries, "{} {}", done["usage"], first["total"]);
}

/// A plan asks no source, and prices the queries by which a comparison with one will read the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_on_athena_prices_the_queries_of_a_comparison_with_a_source() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    let with = "table: bars, source: v, calendar: XNYS, keys: [AIG, BAC, SPY], from: 2024-03-04, to: 2024-03-04, deleted: { at_most: 5% }";
    let text = std::fs::read_to_string(WORKFLOW).unwrap();
    let profiles = &text[text.find("profiles:").unwrap()..];
    let file = world.write(
        "compared.yaml",
        &format!(
            "workflow: compared\nkind: state-machine\ntables:\n  bars: {{ location: bars, format: parquet, partition_by: [{{ date: day }}], key: [symbol], time: \
             ts, cadence: 1m }}\nsources:\n  v: {{ source: stocks.simulated, with: {{ seed: 1, calendar: XNYS }} }}\nstart: look\nsteps:\n  look: {{ detect: \
             differs, with: {{ {with} }}, next: check }}\n  check: {{ verify: look, end: true }}\n{profiles}"
        ),
    );
    let json = |command: &str| -> Value {
        let mut said = sandbox.repair(&world);
        let output = said.arg(command).arg(&file).args(["--profile", "aws", "--json", "--prices", PRICES]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    };
    let plan = json("plan");
    let why = plan["not_planned"][0]["why"].as_str().unwrap();
    assert!(why.contains("slots and the queries that read the table, and what it finds"), "{why}");
    let [look, check] = [0, 1].map(|step| plan["reads"][step]["estimate"].clone());
    let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{of} has no {name}"));
    // Presence, and the rows of all requests; at most their repairs, too, and which rows are to be removed.
    assert_eq!((number(&look["low"], "queries"), number(&look["high"], "queries")), (2, 6), "{look:#}");
    assert_eq!((number(&check["low"], "queries"), number(&check["high"], "queries")), (0, 6), "{check:#}");
    let usd = |of: &Value| of["usd"].as_str().unwrap().parse::<Decimal>().unwrap();
    // Each query is charged as ten megabytes at least, at 5 dollars a terabyte.
    assert!(usd(&look["high"]) > Decimal::new(30, 5) && usd(&look["high"]) < Decimal::new(31, 5), "{look:#}");
    let run = json("run");
    let used = run["usage"].clone();
    let within = |name: &str, planned: &str| {
        let [low, high] = ["low", "high"].map(|end| number(&plan["total"][end], planned));
        assert!((low..=high).contains(&number(&used, name)), "{name}: {low} to {high}, and used {used}: {run}");
    };
    within("queries", "queries");
    within("bytes_scanned", "bytes");
}

/// Athena knows the hidden rows by any name of the catalog, so SQL is not compared on it; that is said before a query is run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_is_not_compared_on_athena_and_nothing_is_spent_to_say_so() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    let text = std::fs::read_to_string(WORKFLOW).unwrap();
    let profiles = &text[text.find("profiles:").unwrap()..];
    let file = world.write(
        "compared.yaml",
        &format!(
            "workflow: compared\nkind: dag\ntables:\n  bars: {{ location: bars, format: parquet, partition_by: [{{ date: day }}], key: [symbol], time: ts, cadence: 1m \
             }}\nsources:\n  asked: {{ source: sql, with: {{ query: 'SELECT * FROM bars_archive' }} }}\nsteps:\n  look: {{ detect: gaps, with: {{ table: bars, calendar: XNYS, \
             keys: [AIG], from: 2024-03-04, to: 2024-03-04 }} }}\n  fill:\n    after: [look]\n    of: look\n    repair:\n      - {{ strategy: sql, with: {{ query: 'SELECT * \
             FROM $missing' }} }}\n      - {{ strategy: backfill, name: ask, with: {{ source: asked }} }}\n      - {{ strategy: interpolate, name: line }}\n{profiles}"
        ),
    );
    let compare = |more: &[&str]| {
        let output = sandbox.repair(&world).arg("compare").arg(&file).args(["--profile", "aws", "--pattern", "runs"]).args(more).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let before = sandbox.queries();
    let (code, said) = compare(&[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("SQL cannot be compared on this lake, and `sql`, `ask`, `fill` would run some"), "{said}");
    assert!(said.contains("compare `line` without"), "{said}");
    assert_eq!(sandbox.queries(), before, "nothing was asked");
    let (code, said) = compare(&["--strategies", "line"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(sandbox.queries() > before);
}

/// Versions of orders, in files of the days on which they were written: `twice` is in one file twice, `moved` has three versions, and
/// one of `later` lies beyond the interval. The file of the seventh never came; the archive `agency` has its orders, and corrects `wrong`.
fn orders(world: &World) -> PathBuf {
    let line = |id: &str, day: u32, amount: i64, updated: u32| {
        let (created, updated) = (format!("2024-03-{day:02}T10:00:00Z"), format!("2024-03-{updated:02} 11:00"));
        let order = serde_json::json!({ "id": id, "created_at": created, "updated_at": updated, "amount": amount });
        format!("{order}\n")
    };
    let folder = world.lake().parent().unwrap().join("sold");
    for (file, lines) in [
        (2, line("twice", 2, 10, 2).repeat(2)),
        (3, line("moved", 3, 1, 3) + &line("plain", 3, 100, 3)),
        (5, line("moved", 3, 2, 9)),
        (6, line("wrong", 6, -7, 6)),
        (8, line("moved", 4, 4, 8)),
        (9, line("later", 9, 20, 9)),
        (20, line("later", 20, 40, 20)),
    ] {
        let folder = folder.join(format!("orders/day=2024-03-{file:02}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.jsonl"), lines).unwrap();
    }
    let agency =
        [("plain", 3, 100, 3), ("moved", 3, 1, 3), ("wrong", 6, 7, 7), ("seventh", 7, 1, 7), ("seventh", 7, 2, 8), ("last", 9, 5, 9)];
    std::fs::create_dir_all(folder.join("agency")).unwrap();
    std::fs::write(folder.join("agency/a.jsonl"), agency.map(|row| line(row.0, row.1, row.2, row.3)).concat()).unwrap();
    folder
}

/// Rows with an identity on both lakes: what is found and kept, what is wrong of it, why a row is as it is, and all of it undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_counted_once_on_athena_as_on_files() {
    let world = World::new();
    let folder = orders(&world);
    let sandbox = aws_sandbox::Sandbox::start(aws_sandbox::Options::default()).await.unwrap();
    sandbox.store().create_bucket("bucket").unwrap();
    sandbox.create_workgroup("repair", "s3://bucket/results/").unwrap();
    sandbox.run(None, "CREATE DATABASE market").await.unwrap();
    for (name, folder) in [("orders", folder.join("orders")), ("orders_archive", folder.join("agency"))] {
        let location = format!("{LAKE}/{name}");
        sandbox.load(aws_sandbox::TableFolder { database: "market", name, folder: &folder, location: &location }).await.unwrap();
    }
    let sandbox = Sandbox { endpoint: sandbox.endpoint(), sandbox };
    let scope = "table: orders, from: 2024-03-01, to: 2024-03-10";
    let steps = [
        format!("look: {{ detect: arrivals, with: {{ {scope} }}, next: several }}"),
        format!("several: {{ detect: duplicates, with: {{ {scope} }}, next: keep }}"),
        "keep: { repair: keep, of: several, next: check }".to_owned(),
        "check: { verify: several, next: same }".to_owned(),
        format!("same: {{ detect: differs, with: {{ {scope}, source: agency }}, next: restate }}"),
        "restate: { repair: backfill, of: same, with: { source: agency }, next: again }".to_owned(),
        "again: { verify: same, next: bad }".to_owned(),
        format!("bad: {{ detect: invalid, with: {{ {scope}, rules: [{{ column: amount, min: 0 }}] }}, next: sum }}"),
        "sum: { aggregate: sql, with: { into: sums, query: SELECT min(created_at) AS ts FROM orders_repaired }, end: true }".to_owned(),
    ];
    let table = "format: jsonl, rows: unique, key: [id], time: created_at, version: updated_at, partition_by: [{ day: day }]";
    let here = "lake: local, with: { root: ./sold }";
    let on_aws = format!("lake: athena, with: {{ database: market, workgroup: repair, location: \"{LAKE}\" }}");
    let file = world.write(
        "orders.yaml",
        &format!(
            "workflow: orders\nkind: state-machine\ntables:\n  orders: {{ location: orders, {table} }}\nsources:\n  agency: {{ source: \
             stocks.archive, with: {{ location: agency, format: jsonl }} }}\nstart: look\nsteps:\n  {}\n\
             profiles:\n  here: {{ {here} }}\n  aws: {{ {on_aws} }}\n",
            steps.join("\n  ")
        ),
    );
    let file = file.to_str().unwrap();
    let lakes = [("here", folder.to_str().unwrap()), ("aws", LAKE)];
    let json = |arguments: &[&str]| -> Value {
        let output = sandbox.repair(&world).args(arguments).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    };
    let run = |id: &str| lakes.map(|(profile, _)| json(&["run", file, "--run-id", id, "--profile", profile]));
    let both = |arguments: &[&str]| lakes.map(|(_, lake)| json(&[arguments, &["--lake", lake]].concat()));
    let why = || both(&["why", "orders", "--key", "later", "--at", "2024-03-10T00:00:00Z"]);
    let [here, on_aws] = run("one");
    for step in ["look", "several", "check", "same", "again", "bad"] {
        assert_eq!(on_aws["steps"][step]["output"], here["steps"][step]["output"], "{step}");
    }
    assert_eq!((&on_aws["outcome"], &on_aws["problems"]), (&here["outcome"], &here["problems"]));
    let several = &on_aws["steps"]["several"]["output"];
    assert_eq!((&several["defective"], &several["duplicates"]), (&Value::from(3), &Value::from(4)), "{several}");
    let [same, again, bad] = ["same", "again", "bad"].map(|step| on_aws["steps"][step]["output"].clone());
    assert_eq!(
        (&same["compared"]["only_source"], &same["defective"], &same["cells"]),
        (&Value::from(2), &Value::from(3), &Value::from(2)),
        "{same}"
    );
    assert_eq!((&again["defective"], &bad["defective"]), (&Value::from(0), &Value::from(0)), "{again} {bad}");
    for story in both(&["why", "orders", "--key", "seventh", "--at", "2024-03-07T10:00:00Z"]) {
        let repair = &story["repairs"][0];
        assert_eq!((&repair["op"], &repair["row"]["amount"]), (&Value::from("insert"), &Value::from(2)), "{story:#}");
    }
    // A report without a run says the same of both lakes.
    let reported = || {
        lakes.map(|(profile, _)| {
            let report = json(&["report", "orders", "--workflow", file, "--profile", profile]);
            let listed = ["defects", "fixes", "exceptions"].map(|name| report[name]["total"].clone());
            (report["numbers"].clone(), report["held"].clone(), report["sentence"].clone(), report["notes"].clone(), listed)
        })
    };
    let [here, on_aws] = reported();
    assert_eq!(on_aws, here);
    let record = serde_json::json!({ "added": 2, "replaced": 2, "removed": 0, "patched": 1, "absent": 0 });
    let held = &here.1[0];
    assert_eq!((&held["on_record"], &held["settled"], &held["several"]), (&record, &Value::from(3), &Value::from(0)), "{held:#}");
    assert_eq!((&held["rows"], &held["keys"], &held["shown"]), (&Value::from(8), &Value::from(5), &Value::from(6)), "{held:#}");
    let stories = why();
    for story in &stories {
        assert_eq!((&story["standing"], &story["repairs"][0]["row"]["amount"]), (&Value::from("repaired"), &Value::from(40)), "{story:#}");
        assert_eq!(story["raw"].as_array().unwrap().len(), 2);
    }
    assert_eq!(stories[0]["raw"], stories[1]["raw"]);
    let [here, on_aws] = run("two").map(|report| report["steps"]["several"]["output"].clone());
    assert_eq!((&on_aws, &on_aws["replaced"], &on_aws["defective"]), (&here, &Value::from(3), &Value::from(0)));
    for undone in both(&["undo", "one"]) {
        assert_eq!(undone["tables"][0]["rows"], 6, "{undone:#}");
    }
    for story in why() {
        assert_eq!((&story["standing"], story["raw"].as_array().unwrap().len()), (&Value::from("raw"), 2), "{story:#}");
    }
    let [here, on_aws] = reported();
    assert_eq!((&on_aws, &here.1[0]["several"], &here.1[0]["shown"]), (&here, &Value::from(3), &Value::from(8)));
}

fn aws_sdk_credentials() -> aws_credential_types::provider::SharedCredentialsProvider {
    aws_credential_types::provider::SharedCredentialsProvider::new(aws_credential_types::Credentials::from_keys("sandbox", "sandbox", None))
}

/// What is wrong with a profile, or with what it names, is said before anything is begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_lake_in_s3_is_said() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    let text = std::fs::read_to_string(WORKFLOW).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from));
        world.write("changed.yaml", &text.replace(from, to))
    };
    let fails = |file: PathBuf, more: &[&str], words: &[&str]| {
        let mut command = sandbox.repair(&world);
        command.arg("run").arg(file).args(["--profile", "aws"]).args(more);
        for param in PARAMS {
            command.args(["--param", param]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in {said}");
    };
    fails(with("workgroup: repair, ", ""), &[], &["profile `aws`", "workgroup"]);
    fails(with("database: market", "database: nowhere"), &[], &["no database `nowhere`"]);
    fails(with("s3://bucket/lake", "s3://nowhere/lake"), &[], &["s3://nowhere/lake", "create the bucket"]);
    fails(with("s3://bucket/lake", "/bucket/lake"), &[], &["s3://bucket/prefix"]);
    fails(PathBuf::from(WORKFLOW), &["--lake", "./lake"], &["is the folder ./lake"]);
}

/// The command logs in as its AWS profile says; each way to do so has a test of its own in `repair-aws`.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_of_aws_is_logged_in_to_by_its_process() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    let profile = |printed: &str| {
        let config = world.write("config", &format!("[profile team]\nregion = us-east-1\ncredential_process = echo '{printed}'\n"));
        let mut command = sandbox.repair(&world);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env_remove("AWS_REGION");
        command.env("AWS_CONFIG_FILE", config).env("AWS_PROFILE", "team").args(["runs", "--json", "--lake", LAKE]);
        command.output().unwrap()
    };
    let output = profile(r#"{ "Version": 1, "AccessKeyId": "process", "SecretAccessKey": "secret" }"#);
    // Only who is logged in learns that nothing was run there.
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("there is no journal at") && !said.contains("credentials"), "{said}");
    let output = profile("nothing");
    // With `--json`, an error is an object on standard output.
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no AWS credentials") && said.contains("aws sso login"), "{said}");
}

/// `init` of a table in S3 guesses what it guesses of the same files in a folder, and says what it read; what it writes is valid, and a plan finds
/// what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_in_s3_is_described_as_its_files_are() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    let json = |arguments: &[&str]| -> Value {
        let output = sandbox.repair(&world).args(arguments).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    };
    let names = ["--database", "market", "--workgroup", "repair"];
    let place = format!("{LAKE}/bars");
    let there = json(&[&["init", place.as_str()][..], &names].concat());
    let here = json(&["init", folder.join("bars").to_str().unwrap(), "--out", "here.yaml"]);
    let guesses = |object: &Value| -> Vec<Value> {
        let named = |guess: &&Value| guess["what"] != "database" && guess["what"] != "workgroup";
        object["guesses"].as_array().unwrap().iter().filter(named).cloned().collect()
    };
    assert_eq!(guesses(&there), guesses(&here));
    assert_eq!((&there["lake"], &there["table"], &there["rows_read"]), (&LAKE.into(), &"bars".into(), &here["rows_read"]));
    let files = crate::common::files(&folder.join("bars"));
    let bytes: usize = files.values().map(Vec::len).sum();
    let objects = serde_json::json!({ "listed": files.len(), "are_more": false, "read": files.len(), "bytes": bytes, "is_whole": true });
    assert_eq!(there["objects"], objects);
    assert_eq!(there["next"][2], format!("repair report bars --lake {LAKE}"));
    sandbox.repair(&world).args(["validate", "bars.yaml"]).assert().success();
    let [on_aws, in_folder] = [json(&["plan", "bars.yaml"]), json(&["plan", "here.yaml"])];
    let counts = |plan: &Value| plan["looks"][0]["counts"].clone();
    assert_eq!(counts(&on_aws)["missing"], world.dropped + world.quiet, "{on_aws:#}");
    assert_eq!(counts(&on_aws), counts(&in_folder));

    // For people; without names, both are guesses. Nothing was written but the workflow.
    let said = sandbox.repair(&world).args(["init", &place, "--force"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("1 object listed; ") && said.contains(" bytes of 1 read.") && said.contains("name the one that has the table"),
        "{said}"
    );
    let written = std::fs::read_to_string(world.lake().parent().unwrap().join("bars.yaml")).unwrap();
    assert!(written.contains("with: { location: \"s3://bucket/lake\", database: default, workgroup: primary }"), "{written}");
    let refused = |arguments: &[&str], words: &str| {
        let output = sandbox.repair(&world).arg("init").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    };
    refused(&["s3://bucket/lake/none"], "there is no object below s3://bucket/lake/none/");
    refused(&[&place, "--source", "lake/archive", "--out", "x.yaml"], "leave out the source");
    refused(&["lake/bars", "--database", "market", "--out", "x.yaml"], "are for a table in S3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_and_what_people_decide_are_the_same_on_both_lakes() {
    let world = World::new();
    let folder = captured(&world).await;
    let sandbox = Sandbox::start(&folder).await;
    let lake_here = folder.to_str().unwrap();
    let both = |args: &[&str]| -> [Value; 2] {
        [(sandbox.repair(&world), LAKE), (world.repair(), lake_here)].map(|(mut command, lake)| {
            let output = command.args(args).args(["--json", "--lake", lake]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {said}"))
        })
    };
    let runs = |id: &str, makes: bool| {
        let theirs = run(sandbox.repair(&world), &["--profile", "aws", "--run-id", id], makes);
        [theirs, run(world.repair(), &["--lake", lake_here, "--run-id", id], false)]
    };
    let states = |[theirs, ours]: [Value; 2]| -> Value {
        let of = |status: &Value| {
            let table = &status["tables"][0];
            (table["total"].clone(), table["keys"].clone(), table["zone"].clone(), table["cadence"].clone())
        };
        assert_eq!(of(&theirs), of(&ours));
        theirs["tables"][0]["total"].clone()
    };
    runs("one", true);
    let total = states(both(&["status", "bars"]));
    let (dropped, quiet) = (world.dropped as u64, world.quiet as u64);
    assert_eq!((&total["expected"], &total["repaired"], &total["absent"]), (&1_170.into(), &dropped.into(), &quiet.into()), "{total}");
    assert_eq!(states(both(&["status", "bars", "--since", "2024-03-04"])), total, "from what is kept");
    // Frozen, after all of it was undone: the next run finds it and leaves it.
    both(&["undo", "one"]);
    let decided = both(&["except", "bars", "--freeze", "--until", "2024-03-04", "--reason", "the day is closed"]);
    assert_eq!(decided[0]["decision"]["interval"], decided[1]["decision"]["interval"]);
    let listed = both(&["except", "bars", "--list"]);
    assert_eq!(listed.map(|listed| listed["decisions"][0]["verdict"].clone()), ["frozen", "frozen"].map(Value::from));
    let [theirs, ours] = runs("two", false);
    for step in ["find_gaps", "hourly"] {
        assert_eq!(theirs["steps"][step]["output"], ours["steps"][step]["output"], "{step}");
    }
    let found = &theirs["steps"]["find_gaps"]["output"];
    assert_eq!((&found["frozen"], &found["missing"]), (&(dropped + quiet).into(), &0.into()), "{found}");
    let total = states(both(&["status", "bars"]));
    assert_eq!((&total["frozen"], &total["missing"], &total["repaired"]), (&(dropped + quiet).into(), &0.into(), &0.into()), "{total}");
    // Lifted, they are as any others.
    for (mut command, lake, decided) in [(sandbox.repair(&world), LAKE, &decided[0]), (world.repair(), lake_here, &decided[1])] {
        let id = decided["decision"]["id"].as_str().unwrap();
        command.args(["except", "bars", "--lift", id, "--reason", "it was opened again", "--lake", lake]).assert().success();
    }
    let total = states(both(&["status", "bars"]));
    assert_eq!((&total["frozen"], &total["missing"]), (&0.into(), &(dropped + quiet).into()), "{total}");
    runs("three", false);
    let total = states(both(&["status", "bars"]));
    assert_eq!((&total["repaired"], &total["absent"]), (&dropped.into(), &quiet.into()), "{total}");
}

/// A lake in a folder, and a topic of SNS that hears how a run ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_announced_to_a_topic() {
    let world = World::new();
    let sandbox = aws_sandbox::Sandbox::start(aws_sandbox::Options::default()).await.unwrap();
    let topic = sandbox.sns().create_topic("eu-west-1", "alerts");
    let notify =
        format!("notify: {{ ops: {{ to: {{ sns: {{ topic: \"{topic}\" }} }}, on: [succeeded, succeeded-with-exceptions] }} }}\nstart: ");
    let file = world.workflow(&[("start: ", &notify)]);
    let command = || {
        let mut command = world.repair();
        // The region is the topic's.
        command.env("AWS_ENDPOINT_URL", sandbox.endpoint()).env_remove("AWS_REGION");
        command.env("AWS_ACCESS_KEY_ID", "sandbox").env("AWS_SECRET_ACCESS_KEY", "s3cr3tOfTheTopic").env("RUST_LOG", "trace");
        command
    };
    let output = command().arg("run").arg(&file).args(["--run-id", "first"]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !said.contains("s3cr3tOfTheTopic"), "{said}");
    let published = sandbox.sns().published();
    assert_eq!(published.len(), 1, "{said}");
    let parts: Value = serde_json::from_str(&published[0].message).unwrap();
    let body: Value = serde_json::from_str(parts["default"].as_str().unwrap()).unwrap();
    assert_eq!((&body["run"], &body["to"]), (&"first".into(), &"ops".into()));
    assert!(parts["email"].as_str().unwrap().starts_with("run `first` of workflow `ticker` succeeded"), "{parts}");
    let output = command().arg("notify").arg(&file).arg("--test").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ops (sns): delivered\n");
    assert_eq!(sandbox.sns().published().len(), 2);
}
