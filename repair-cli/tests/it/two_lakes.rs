//! What works on a lake in a folder works on Athena, in the same words: totals of other tables, sources in another lake, maps over the rows of a query.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use crate::common::World;
use arrow::array::RecordBatch;
use futures::TryStreamExt;
use repair_core::lake::{Lake, Layer, ReadLake, ScanRequest};
use repair_core::model::{Format, Interval, Table};
use repair_local::LocalLake;
use serde_json::{Value, json};

const LAKE: &str = "s3://bucket/lake";
const OLD: &str = "s3://attic/old";

/// A sandbox with some tables in the database of the lake, and some in that of another one.
struct Aws {
    sandbox: aws_sandbox::Sandbox,
}

impl Aws {
    async fn start() -> Self {
        let sandbox = aws_sandbox::Sandbox::start(aws_sandbox::Options::default()).await.unwrap();
        for bucket in ["bucket", "attic", "answers"] {
            sandbox.store().create_bucket(bucket).unwrap();
        }
        sandbox.create_workgroup("repair", "s3://answers/").unwrap();
        for database in ["market", "attic"] {
            sandbox.run(None, &format!("CREATE DATABASE {database}")).await.unwrap();
        }
        Self { sandbox }
    }

    async fn load(&self, (database, lake): (&str, &str), name: &str, folder: &Path) {
        let location = format!("{lake}/{name}");
        self.sandbox.load(aws_sandbox::TableFolder { database, name, folder, location: &location }).await.unwrap();
    }

    fn repair(&self, world: &World) -> assert_cmd::Command {
        let mut command = world.repair();
        command.env("AWS_ENDPOINT_URL", self.sandbox.endpoint()).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "sandbox").env("AWS_SECRET_ACCESS_KEY", "sandbox");
        command
    }

    fn json(&self, world: &World, arguments: &[&str]) -> Value {
        let output = self.repair(world).args(arguments).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn refused(&self, world: &World, arguments: &[&str]) -> String {
        let output = self.repair(world).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    fn queries(&self) -> usize {
        self.sandbox.faults().served(aws_sandbox::Service::Athena, "StartQueryExecution")
    }

    /// The objects of a bucket, and the tables and views of a database.
    fn state(&self, bucket: &str, database: &str) -> (Vec<String>, Vec<String>) {
        let objects = self.sandbox.store().list(bucket, "", None, 10_000).unwrap().into_iter().map(|object| object.key).collect();
        let tables = self.sandbox.catalog().tables(database).unwrap().into_iter().map(|table| table.name).collect();
        (objects, tables)
    }
}

fn write(folder: &Path, name: &str, lines: impl IntoIterator<Item = Value>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(&path).unwrap();
    let text: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(path.join("a.jsonl"), text).unwrap();
    path
}

/// The same rows as Parquet, in which times are times.
async fn as_parquet(folder: &Path, table: &Table) -> PathBuf {
    let lake = LocalLake::open(folder).unwrap();
    let rows: Vec<RecordBatch> = lake.scan(table, &ScanRequest::new(Layer::Raw)).await.unwrap().try_collect().await.unwrap();
    let name = format!("{}_parquet", table.name);
    let day = Interval::parse("2024-03-01", "2024-03-31").unwrap();
    let to = Table { location: name.clone(), format: Format::Parquet, ..table.clone() };
    lake.replace(&to, &day, rows).await.unwrap();
    folder.join(name)
}

fn hour(day: u32, hour: u32) -> String {
    format!("2024-03-{day:02}T{hour:02}:00:00Z")
}

/// Orders with their items, and days with their hours: see the test of the same rules on files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_of_another_table_are_the_same_on_athena_as_on_files() {
    let world = World::new();
    let folder = world.lake().parent().unwrap().join("sold");
    let order =
        |id: &str, total: Value| json!({ "id": id, "created_at": hour(4, 10), "updated_at": hour(4, 10), "total": total, "pieces": 2 });
    let orders = [("a", json!(30.3)), ("b", json!(31.0)), ("c", json!(5.0)), ("d", Value::Null), ("e", json!(0.0))];
    write(&folder, "orders", orders.map(|(id, total)| order(id, total)));
    let items = [("1", "a", 10.1), ("2", "a", 20.2), ("3", "b", 10.5), ("4", "b", 20.0)];
    write(
        &folder,
        "items",
        items.map(|(item, order, amount)| json!({ "item": item, "order_id": order, "packed_at": hour(1, 0), "amount": amount })),
    );
    let lacks = |station: &str, day: u32, hour: u32| [("s", 5, 7), ("s", 7, 3), ("t", 4, 2)].contains(&(station, day, hour));
    let hours = (4..8).map(|day| ("s", day)).chain([("t", 4)]).flat_map(|(station, day)| {
        let there = (0..24).filter(move |hour| !lacks(station, day, *hour));
        there.map(move |of_day| json!({ "station": station, "ts": hour(day, of_day), "volume": 1 }))
    });
    write(&folder, "hours", hours);
    let days = [("s", 4, 24), ("s", 5, 24), ("s", 6, 25), ("s", 7, 24), ("t", 4, 23)];
    write(&folder, "days", days.map(|(station, day, volume)| json!({ "station": station, "day": hour(day, 0), "volume": volume })));
    // What the source has of station `t`: it vouches that there was nothing in the hour that is lacking.
    write(
        &folder,
        "counted",
        (0..24).filter(|hour| *hour != 2).map(|of_day| json!({ "station": "t", "ts": hour(4, of_day), "volume": 1 })),
    );
    let aws = Aws::start().await;
    for name in ["orders", "items", "hours", "days"] {
        aws.load(("market", LAKE), name, &folder.join(name)).await;
    }
    aws.load(("market", LAKE), "hours_archive", &folder.join("counted")).await;
    let of = |table: &str, keys: &str, to: u32| format!("table: {table}, keys: [{keys}], from: 2024-03-04, to: 2024-03-{to:02}");
    let orders = "table: orders, from: 2024-03-01, to: 2024-03-10";
    let volume = "rules: [{ column: volume, equals: { table: hours, sum: volume } }]";
    let steps = [
        format!(
            "sum: {{ detect: invalid, with: {{ {orders}, rules: [{{ column: total, equals: {{ table: items, sum: amount, by: {{ order_id: id }} }} }}] }}, next: count }}"
        ),
        format!(
            "count: {{ detect: invalid, with: {{ {orders}, rules: [{{ column: pieces, equals: {{ table: items, count: true, by: {{ order_id: id }}, incomplete: skip }} }}] }}, next: agreed }}"
        ),
        "agreed: { repair: set, of: sum, with: { values: { total: 30.5 } }, next: again }".to_owned(),
        "again: { verify: sum, next: look }".to_owned(),
        format!("look: {{ detect: invalid, with: {{ {}, {volume} }}, next: gaps }}", of("days", "s", 7)),
        format!(
            "gaps: {{ detect: gaps, with: {{ {} }}, next: fill }}",
            of("hours", "s", 7).replace("from: 2024-03-04", "from: 2024-03-07")
        ),
        "fill: { repair: interpolate, of: gaps, next: filled }".to_owned(),
        format!("filled: {{ detect: invalid, with: {{ {}, {volume} }}, next: of_t }}", of("days", "s", 7)),
        format!("of_t: {{ detect: invalid, with: {{ {}, {volume} }}, next: lacking }}", of("days", "s, t", 4)),
        format!("lacking: {{ detect: gaps, with: {{ {} }}, next: ask }}", of("hours", "t", 4)),
        "ask: { repair: backfill, of: lacking, with: { source: counted }, next: absent }".to_owned(),
        format!("absent: {{ detect: invalid, with: {{ {}, {volume} }}, end: true }}", of("days", "s, t", 4)),
    ];
    let file = world.write(
        "totals.yaml",
        &format!(
            "workflow: totals\nkind: state-machine\ntables:\n  orders: {{ location: orders, format: jsonl, rows: unique, key: [id], time: created_at, version: updated_at }}\n  items: \
             {{ location: items, format: jsonl, rows: unique, key: [item], time: packed_at }}\n  days: {{ location: days, format: jsonl, key: [station], time: day, cadence: 1d }}\n  hours: \
             {{ location: hours, format: jsonl, key: [station], time: ts, cadence: 1h }}\nsources:\n  counted: {{ source: stocks.archive, with: {{ location: counted, format: jsonl }} \
             }}\nstart: sum\nsteps:\n  {}\nprofiles:\n  here: {{ lake: local, with: {{ root: ./sold }} }}\n  aws: {{ lake: athena, with: {{ database: market, workgroup: repair, location: \
             \"{LAKE}\" }} }}\n",
            steps.join("\n  ")
        ),
    );
    let file = file.to_str().unwrap();
    let [here, on_aws] = ["here", "aws"].map(|profile| aws.json(&world, &["run", file, "--run-id", "one", "--profile", profile]));
    let found = |report: &Value, step: &str| {
        let output = &report["steps"][step]["output"];
        (output["defective"].as_u64().unwrap_or_else(|| panic!("{step}: {report:#}")), output["unjudged"].as_u64().unwrap_or(0))
    };
    for report in [&here, &on_aws] {
        let all = ["sum", "count", "again", "look", "filled", "of_t", "absent"].map(|step| found(report, step));
        assert_eq!(all, [(2, 0), (0, 3), (1, 0), (1, 2), (1, 1), (0, 1), (0, 0)], "{report:#}");
    }
    for step in ["sum", "count", "again", "look", "filled", "of_t", "absent"] {
        assert_eq!(on_aws["steps"][step]["output"], here["steps"][step]["output"], "{step}");
    }
    assert_eq!(on_aws["outcome"], here["outcome"]);
}

/// A workflow whose source asks the lake of the profile `old`.
fn of_old(old: &str, query: &str) -> String {
    format!(
        "workflow: of_old\nkind: state-machine\nprices: prices.yaml\nbudget: {{ usd: 1 }}\ntables:\n  hours: {{ location: hours, format: jsonl, key: [station], time: ts, cadence: 1h }}\n  archive: {{ lake: {old}, \
         location: archive, format: parquet, key: [place], time: at, cadence: 1h }}\nsources:\n  asked: {{ source: sql, with: {{ lake: {old}, query: \"{query}\" }} }}\nstart: \
         gaps\nsteps:\n  gaps: {{ detect: gaps, with: {{ table: hours, keys: [a, b], from: 2024-03-04T00:00:00Z, to: 2024-03-04T12:00:00Z }}, next: fill }}\n  fill: {{ repair: backfill, \
         of: gaps, with: {{ source: asked }}, end: true }}\nprofiles:\n  here: {{ lake: local, with: {{ root: ./mine }} }}\n  aws: {{ lake: athena, with: {{ database: market, workgroup: \
         repair, location: \"{LAKE}\" }} }}\n  attic: {{ lake: local, with: {{ root: ./attic }} }}\n  far: {{ lake: athena, with: {{ database: attic, workgroup: repair, location: \
         \"{OLD}\" }} }}\n"
    )
}

const QUERY: &str =
    "SELECT a.place AS station, a.at AS ts, a.volume FROM archive a JOIN $keys k ON k.station = a.place WHERE a.at >= :from AND a.at < :to";

/// A station that lacks hours, and an archive elsewhere that has them, but one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_in_another_lake_is_asked_and_paid_for_and_nothing_is_written_there() {
    let world = World::new();
    let (mine, attic) = (world.lake().parent().unwrap().join("mine"), world.lake().parent().unwrap().join("attic"));
    let all = || ["a", "b"].into_iter().flat_map(|station| (0..12).map(move |of_day| (station, of_day)));
    let lacking = all().filter(|(station, of_day)| *of_day != 3 && (*station, *of_day) != ("a", 7));
    write(&mine, "hours", lacking.map(|(station, of_day)| json!({ "station": station, "ts": hour(4, of_day), "volume": of_day })));
    write(
        &attic,
        "archive",
        all()
            .filter(|(_, of_day)| *of_day != 7)
            .map(|(place, of_day)| json!({ "place": place, "at": hour(4, of_day), "volume": 100 + of_day })),
    );
    let archive = Table::new("archive", Format::Jsonl, "at").with_key(["place"]).with_cadence("1h".parse().unwrap());
    let parquet = as_parquet(&attic, &archive).await;
    std::fs::remove_dir_all(attic.join("archive")).unwrap();
    std::fs::rename(&parquet, attic.join("archive")).unwrap();
    let aws = Aws::start().await;
    aws.load(("market", LAKE), "hours", &mine.join("hours")).await;
    aws.load(("attic", OLD), "archive", &attic.join("archive")).await;
    world.write(
        "prices.yaml",
        &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../prices/aws-us-east-1.yaml"))
            .unwrap()
            .replace("sources:", "sources:\n  asked: { usd_per_call: 0, source: it is ours }"),
    );
    let before = aws.state("attic", "attic");
    for (own, other, is_paid) in [("here", "far", true), ("aws", "attic", false), ("aws", "far", true)] {
        let file = world.write(&format!("{own}-{other}.yaml"), &of_old(other, QUERY));
        let file = file.to_str().unwrap();
        let at = [file, "--profile", own];
        let plan = aws.json(&world, &[&["plan"], &at[..]].concat());
        let run = format!("{own}-{other}");
        let report = aws.json(&world, &[&["run", "--run-id", &run], &at[..]].concat());
        assert_eq!(report["steps"]["fill"]["output"]["repaired"], 2, "{own} {other}: {report:#}");
        if own == "here" {
            // The lake itself is read by nobody who is paid for it, so all of this is the other one's.
            assert_eq!(report["usage"]["queries"], report["usage"]["source_requests"], "{report:#}");
            assert!(report["usage"]["bytes_scanned"].as_u64().unwrap() > 0, "{report:#}");
            let (low, high) = (&plan["total"]["low"], &plan["total"]["high"]);
            assert!(
                low["queries"].as_u64().unwrap() >= 1
                    && high["bytes"].as_u64().unwrap() >= report["usage"]["bytes_scanned"].as_u64().unwrap(),
                "{plan:#}"
            );
        }
        let of_lake = if own == "here" { mine.to_str().unwrap() } else { LAKE };
        let costs = aws.json(&world, &["costs", &run, "--lake", of_lake]);
        assert_eq!(costs["total"]["usage"]["queries"].as_u64().unwrap_or(0) > 0, is_paid || own == "aws", "{costs:#}");
        for station in ["a", "b"] {
            let story = aws.json(&world, &["why", "hours", "--key", station, "--at", &hour(4, 3), "--lake", of_lake]);
            assert_eq!(
                (&story["repairs"][0]["source"], &story["repairs"][0]["row"]["volume"]),
                (&json!("asked"), &json!(103)),
                "{story:#}"
            );
        }
        aws.json(&world, &["undo", &run, "--lake", of_lake]);
        assert_eq!(aws.state("attic", "attic"), before, "{own} {other}");
    }
    // What cannot be is said before anything is paid for.
    let asked = aws.queries();
    let refused = |text: &str| {
        let file = world.write("refused.yaml", text);
        aws.refused(&world, &["run", file.to_str().unwrap(), "--profile", "here"])
    };
    let missing = refused(&of_old("far", &QUERY.replace("archive a", "gone a")).replace("  archive: {", "  gone: {"));
    assert!(missing.contains("no table `gone` in database `attic` of Athena"), "{missing}");
    let named = refused(&of_old("far", &QUERY.replace("archive a", "archives a").replace("$keys", "$kays")));
    assert!(named.contains("$kays"), "{named}");
    assert_eq!(aws.queries(), asked);
    // Without repairs of that lake there is no repaired view, and none is made.
    let view = refused(&of_old("far", &QUERY.replace("archive a", "archive_repaired a")));
    assert!(view.contains("has no repairs in database attic, and nothing is made there"), "{view}");
    assert_eq!((aws.queries(), aws.state("attic", "attic")), (asked, before));
}

/// One attempt asks two lakes in the same words, and each gives its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_other_lakes_that_are_asked_the_same_are_not_taken_for_each_other() {
    let world = World::new();
    let (mine, attic) = (world.lake().parent().unwrap().join("mine"), world.lake().parent().unwrap().join("attic"));
    let of = |name: &'static str, time: &'static str, more: u32| {
        let there = (0..12).filter(move |of_day| *of_day != 7 || more > 100);
        there.map(move |of_day| json!({ name: "a", time: hour(4, of_day), "volume": more + of_day }))
    };
    write(&mine, "hours", of("station", "ts", 0));
    let aws = Aws::start().await;
    aws.load(("market", LAKE), "hours", &mine.join("hours")).await;
    aws.sandbox.run(None, "CREATE DATABASE cellar").await.unwrap();
    let archive = Table::new("archive", Format::Jsonl, "at").with_key(["place"]).with_cadence("1h".parse().unwrap());
    for (database, lake, more) in [("attic", OLD, 100), ("cellar", "s3://attic/cellar", 200)] {
        write(&attic, "archive", of("place", "at", more));
        let parquet = as_parquet(&attic, &archive).await;
        aws.load((database, lake), "archive", &parquet).await;
        std::fs::remove_dir_all(parquet).unwrap();
    }
    let text = of_old("far", QUERY).replace("prices: prices.yaml\nbudget: { usd: 1 }\n", "").replace("keys: [a, b]", "keys: [a]");
    let text = text.replace(
        "repair: backfill, of: gaps, with: { source: asked }",
        "of: gaps, repair: [{ strategy: backfill, name: one, with: { source: asked } }, { strategy: backfill, name: two, with: { source: next } }]",
    );
    let other = "lake: deep, name: archive, location: archive, format: parquet, key: [place], time: at, cadence: 1h";
    let text = text.replace(
        "sources:\n",
        &format!("  archive_deep: {{ {other} }}\nsources:\n  next: {{ source: sql, with: {{ lake: deep, query: \"{QUERY}\" }} }}\n"),
    );
    let text =
        format!("{text}  deep: {{ lake: athena, with: {{ database: cellar, workgroup: repair, location: \"s3://attic/cellar\" }} }}\n");
    let file = world.write("two.yaml", &text);
    let report = aws.json(&world, &["run", file.to_str().unwrap(), "--profile", "here"]);
    assert_eq!(report["steps"]["fill"]["output"]["repaired"], 1, "{report:#}");
    let story = aws.json(&world, &["why", "hours", "--key", "a", "--at", &hour(4, 7), "--lake", mine.to_str().unwrap()]);
    assert_eq!((&story["repairs"][0]["source"], &story["repairs"][0]["row"]["volume"]), (&json!("next"), &json!(207)), "{story:#}");
}

/// The repairs of the other lake are part of the statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_may_ask_the_repaired_view_of_another_lake_on_athena() {
    let world = World::new();
    let (mine, attic) = (world.lake().parent().unwrap().join("mine"), world.lake().parent().unwrap().join("attic"));
    let of = |lacks: &'static [u32]| (0..12).filter(|of_day| !lacks.contains(of_day));
    write(
        &mine,
        "hours",
        of(&[3, 7]).flat_map(|of_day| ["a", "b"].map(|station| json!({ "station": station, "ts": hour(4, of_day), "volume": of_day }))),
    );
    write(
        &attic,
        "archive",
        of(&[7]).flat_map(|of_day| ["a", "b"].map(|place| json!({ "place": place, "at": hour(4, of_day), "volume": 100 + of_day }))),
    );
    let archive = Table::new("archive", Format::Jsonl, "at").with_key(["place"]).with_cadence("1h".parse().unwrap());
    let parquet = as_parquet(&attic, &archive).await;
    let aws = Aws::start().await;
    aws.load(("market", LAKE), "hours", &mine.join("hours")).await;
    aws.load(("attic", OLD), "archive", &parquet).await;
    let own = world.write(
        "attic.yaml",
        &format!(
            "workflow: attic\nkind: dag\ntables:\n  archive: {{ location: archive, format: parquet, key: [place], time: at, cadence: 1h }}\nsteps:\n  gaps: {{ detect: gaps, with: {{ table: \
             archive, keys: [a, b], from: 2024-03-04T00:00:00Z, to: 2024-03-04T12:00:00Z }} }}\n  fill: {{ after: [gaps], repair: interpolate, of: gaps }}\nprofiles:\n  far: {{ lake: \
             athena, with: {{ database: attic, workgroup: repair, location: \"{OLD}\" }} }}\n"
        ),
    );
    let report = aws.json(&world, &["run", own.to_str().unwrap()]);
    assert_eq!(report["steps"]["fill"]["output"]["repaired"], 2, "{report:#}");
    let before = aws.state("attic", "attic");
    let query = format!("WITH there AS (SELECT * FROM archive_repaired) {}", QUERY.replace("archive a", "there a"));
    let file = world.write("view.yaml", &of_old("far", &query).replace("prices: prices.yaml\nbudget: { usd: 1 }\n", ""));
    let report = aws.json(&world, &["run", file.to_str().unwrap(), "--profile", "aws"]);
    assert_eq!(report["steps"]["fill"]["output"]["repaired"], 4, "{report:#}");
    assert_eq!(aws.state("attic", "attic"), before);
}

/// A run for each row that Athena gives, in which the item's values are numbers and text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_over_the_rows_of_a_query_is_the_same_on_athena_as_on_files() {
    let world = World::new();
    let mine = world.lake().parent().unwrap().join("mine");
    let rows = ["a", "b", "c"]
        .into_iter()
        .flat_map(|sensor| (0..12).filter(move |of_day| sensor == "a" || *of_day != 5).map(move |of_day| (sensor, of_day)));
    write(&mine, "readings", rows.map(|(sensor, of_day)| json!({ "sensor": sensor, "ts": hour(4, of_day), "value": of_day })));
    let aws = Aws::start().await;
    aws.load(("market", LAKE), "readings", &mine.join("readings")).await;
    let file = world.write(
        "map.yaml",
        &format!(
            "workflow: each\nkind: state-machine\nparams:\n  day: {{ type: date, default: 2024-03-04 }}\ntables:\n  readings: {{ location: readings, format: jsonl, key: [sensor], time: ts, cadence: \
             1h }}\nstart: each\nsteps:\n  each:\n    map: {{ over: {{ rows: \"SELECT sensor, count(*) AS n FROM readings WHERE value < :most GROUP BY 1 ORDER BY 1\", values: {{ most: \
             100 }} }} }}\n    as: row\n    concurrency: 2\n    start: look\n    steps:\n      look: {{ detect: gaps, with: {{ table: readings, keys: [\"{{% $row.sensor %}}\"], from: \
             \"{{% $params.day & 'T00:00:00Z' %}}\", to: \"{{% $params.day & 'T12:00:00Z' %}}\" }}, next: fill }}\n      fill: {{ repair: interpolate, of: look, with: {{ max_gap: 3h }}, \
             next: check }}\n      check: {{ verify: look, end: true }}\n    end: true\nprofiles:\n  here: {{ lake: local, with: {{ root: ./mine }} }}\n  aws: {{ lake: athena, with: {{ database: \
             market, workgroup: repair, location: \"{LAKE}\" }} }}\n"
        ),
    );
    let file = file.to_str().unwrap();
    let [here, on_aws] = ["here", "aws"].map(|profile| aws.json(&world, &["run", file, "--run-id", "one", "--profile", profile]));
    for report in [&here, &on_aws] {
        assert_eq!(report["outcome"], "succeeded", "{report:#}");
        let output = &report["steps"]["each"]["output"];
        assert_eq!((&output["items"], &output["succeeded"]), (&json!(3), &json!(3)), "{output:#}");
        let of = |at: usize| (output["results"][at]["item"].clone(), output["results"][at]["output"]["fill"]["repaired"].clone());
        assert_eq!([of(0), of(1)], [(json!({ "sensor": "a", "n": 12 }), json!(0)), (json!({ "sensor": "b", "n": 11 }), json!(1))]);
    }
    assert_eq!(on_aws["steps"]["each"]["output"]["results"][2]["item"], here["steps"]["each"]["output"]["results"][2]["item"]);
    // The list is kept: a run that goes on does not ask again.
    let asked = aws.queries();
    let again = aws.json(&world, &["run", file, "--run-id", "one", "--profile", "aws"]);
    assert_eq!((&again["outcome"], aws.queries()), (&json!("succeeded"), asked));
    // What a query gives that is no list of items is refused in both lakes in the same words.
    let wrong = std::fs::read_to_string(file).unwrap().replace("SELECT sensor, count(*) AS n FROM", "SELECT sensr FROM");
    let file = world.write("wrong.yaml", &wrong);
    for (profile, word) in [("here", "sensr"), ("aws", "sensr")] {
        let refused = aws.repair(&world).args(["run", file.to_str().unwrap(), "--profile", profile]).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
        assert!(!refused.status.success() && said.contains(word), "{profile}: {said}");
    }
}
