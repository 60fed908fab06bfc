//! An overlay belongs to one location, and Athena takes no overlay for rows of a table.
#![allow(clippy::unwrap_used, reason = "a test that fails, panics")]

use crate::common::*;
use repair_core::ErrorKind;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::{Layer, Overlay, PresenceRequest, ReadLake, StageRequest, StageScope};
use repair_core::model::{Fix, Format, Table};
use repair_core::testing::LakeSetup;

const RAW: &str = "2024-03-04T09:00:00Z";
const FIXED: &str = "2024-03-04T09:01:00Z";
const COLUMNS: &str = "(`symbol` string, `ts` timestamp, `close` double, `volume` bigint)";

fn at_location(name: &str, location: &str) -> Table {
    Table { name: name.to_owned(), partition_by: Vec::new(), ..bars() }.with_location(location)
}

/// Declares a table of the catalog, and puts a row there.
async fn declared(world: &World, database: &str, name: &str, bucket: &str, folder: &str) {
    let _ = world.sandbox.store().create_bucket(bucket);
    world.define(&format!("CREATE DATABASE IF NOT EXISTS {database}")).await;
    world
        .define(&format!("CREATE EXTERNAL TABLE `{database}`.`{name}` {COLUMNS} STORED AS PARQUET LOCATION 's3://{bucket}/{folder}/'"))
        .await;
    let row = parquet(&rows(&[("A", RAW, 1.0)]));
    world.sandbox.store().put(bucket, &format!("{folder}/0.parquet"), row, aws_sandbox::Condition::Always, Default::default()).unwrap();
}

fn retraction(id: &str) -> Retraction {
    Retraction {
        id: id.to_owned(),
        parts: vec![Part::of_run("one")],
        undoes: None,
        at: at("2024-04-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "wrong".to_owned(),
    }
}

async fn shown(lake: &repair_aws::AwsLake, table: &Table) -> Vec<String> {
    texts(&collect(lake.scan(table, &everything(Layer::Repaired)).await.unwrap()).await)
}

async fn publish(lake: &repair_aws::AwsLake, table: &Table, run: &str, absent: bool) -> repair_core::Result<()> {
    let day = table.grid()?.slot_of(at(FIXED));
    let absence = repair_core::model::Absence {
        key: repair_core::model::Key::from("A"),
        slots: repair_core::model::SlotRange::new(day + 3, day + 5),
        source: "market".to_owned(),
        asked_at: at(FIXED),
        answer: "nothing".to_owned(),
        recheck_after: at("2034-04-02T00:00:00Z"),
    };
    let absent = if absent { vec![absence] } else { Vec::new() };
    let fix = Fix { rows: vec![rows(&[("A", FIXED, 2.0)])], absent, source: "market".to_owned(), ..Fix::default() };
    let scope = StageScope { run, step: "fill", visit: 1, table };
    lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await?;
    lake.publish(&scope, 0, &["unit".to_owned()]).await.map(|_| ())
}

/// The kinds and words of the errors of everything that reads or adds to an overlay that is there.
async fn refused(lake: &repair_aws::AwsLake, table: &Table, is_known: bool) -> Vec<(ErrorKind, String)> {
    let request = PresenceRequest::new(whole_day(table, "2024-03-04"), keys(&["A"]), at("2024-04-02T00:00:00Z"));
    let mut results = vec![
        lake.retractions(table).await.map(|_| ()),
        lake.repairs_of(table).await.map(|_| ()),
        lake.extent(table, None).await.map(|_| ()),
        lake.to_create(table).await.map(|_| ()),
        publish(lake, table, "other", false).await,
        lake.retract(table, &retraction("undo-other")).await,
        lake.query(&repair_core::lake::Query::new(std::slice::from_ref(table), &format!("SELECT * FROM {}_repaired", table.name)))
            .await
            .map(|_| ()),
    ];
    // Otherwise the catalog does not say that there is an overlay, and nothing is read.
    if is_known {
        results.push(lake.presence(table, &request).await.map(|_| ()));
        results.push(lake.scan(table, &everything(Layer::Repaired)).await.map(|_| ()));
    }
    results.into_iter().map(|result| result.map_err(|error| (error.kind(), error.full())).unwrap_err()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_never_reads_or_adds_to_the_repairs_of_another() {
    let world = World::new().await;
    declared(&world, DATABASE, "bars", "elsewhere", "bars").await;
    declared(&world, DATABASE, "quotes", BUCKET, "lake/bars").await;
    declared(&world, "second", "bars", "third", "bars").await;
    let mut options = options();
    "second".clone_into(&mut options.database);
    let second = world.with(options);
    let (bars, quotes, other) =
        (at_location("bars", "s3://elsewhere/bars"), at_location("quotes", "bars"), at_location("bars", "s3://third/bars"));
    publish(&world.lake, &bars, "one", false).await.unwrap();
    let before = world.keys("lake/bars_");
    assert_eq!(before, ["lake/bars_repairs/_owner.json", "lake/bars_repairs/one-fill-1-0.parquet"]);
    for (lake, table, place) in [(&world.lake, &quotes, "s3://bucket/lake/bars"), (&second, &other, "s3://third/bars")] {
        for (kind, said) in refused(lake, table, false).await {
            assert_eq!(kind, ErrorKind::Conflict, "{said}");
            assert!(
                said.contains("s3://elsewhere/bars") && said.contains(place) && said.contains("lake/bars_repairs/_owner.json"),
                "{said}"
            );
        }
        let raw = collect(lake.scan(table, &everything(Layer::Raw)).await.unwrap()).await;
        assert_eq!(texts(&raw).len(), 1, "its own rows are read as ever");
    }
    assert_eq!(world.keys("lake/bars_"), before);
    // However the location is written.
    for location in ["s3://elsewhere/bars/", "s3a://elsewhere/bars"] {
        let written = at_location("bars", location);
        assert_eq!(shown(&world.reopened(), &written).await.len(), 2, "{location}");
        publish(&world.reopened(), &written, "two", false).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlay_without_a_record_is_found_and_gets_one_with_the_next_write() {
    let world = World::new().await;
    declared(&world, DATABASE, "bars", "elsewhere", "bars").await;
    declared(&world, DATABASE, "quotes", BUCKET, "lake/bars").await;
    let (bars, quotes) = (at_location("bars", "s3://elsewhere/bars"), at_location("quotes", "bars"));
    let forget = |world: &World| world.sandbox.store().delete(BUCKET, "lake/bars_repairs/_owner.json").unwrap();
    // As an earlier version left it: two tables, whose repairs are the same objects.
    publish(&world.lake, &bars, "one", false).await.unwrap();
    forget(&world);
    publish(&world.reopened(), &quotes, "one", false).await.unwrap();
    forget(&world);
    for table in [&bars, &quotes] {
        assert_eq!(shown(&world.reopened(), table).await.len(), 2);
    }
    assert_eq!(world.keys("lake/bars_repairs/_"), [""; 0], "to read writes nothing");
    for location in ["bars/", "s3://bucket/lake/bars"] {
        publish(&world.reopened(), &at_location("quotes", location), "two", false).await.unwrap();
    }
    assert_eq!(world.keys("lake/bars_repairs/_"), ["lake/bars_repairs/_owner.json"]);
    assert!(refused(&world.reopened(), &bars, true).await.into_iter().all(|(kind, _)| kind == ErrorKind::Conflict));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_write_first_at_once_one_is_refused() {
    let world = World::new().await;
    declared(&world, DATABASE, "bars", "elsewhere", "bars").await;
    declared(&world, DATABASE, "quotes", BUCKET, "lake/bars").await;
    let (bars, quotes) = (at_location("bars", "s3://elsewhere/bars"), at_location("quotes", "bars"));
    let (first, second) = (world.reopened(), world.reopened());
    let (first, second) = tokio::join!(publish(&first, &bars, "one", false), publish(&second, &quotes, "two", false));
    let refused: Vec<ErrorKind> = [first, second].into_iter().filter_map(Result::err).map(|error| error.kind()).collect();
    assert_eq!(refused, [ErrorKind::Conflict]);
    assert_eq!(world.keys("lake/bars_repairs/").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_sql_that_would_take_repairs_for_rows_is_refused() {
    let world = World::new().await;
    declared(&world, DATABASE, "whole", BUCKET, "lake/data").await;
    let (whole, one) = (at_location("whole", "data"), bars().with_location("data/one"));
    world.add_rows(&one, &[rows(&[("B", RAW, 1.0)])]).await.unwrap();
    let ask = async |sql: &str| {
        let answer = world.reopened().query(&repair_core::lake::Query::new(&[whole.clone(), one.clone()], sql)).await;
        answer.map_err(|error| error.full())
    };
    assert_eq!(texts(&collect(ask("SELECT count(*) FROM whole").await.unwrap()).await), ["2"]);
    publish(&world.lake, &one, "one", true).await.unwrap();
    for sql in ["SELECT count(*) FROM whole", "SELECT count(*) FROM market.WHOLE w", "SELECT count(*) FROM \"whole\""] {
        let said = ask(sql).await.map(|_| ()).unwrap_err();
        assert!(said.contains("lake/data/one_") && said.contains("whole_repaired"), "{said}");
    }
    assert_eq!(texts(&collect(ask("SELECT count(*) FROM whole_repaired").await.unwrap()).await), ["2"]);
    assert_eq!(texts(&collect(ask("SELECT count(*) FROM bars").await.unwrap()).await), ["1"], "the inner table is read as it is");
    // A text table leaves them out as well, once it has read them.
    let columns = "(`symbol` string, `ts` string, `close` string)";
    let serde = "ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde'";
    world.define(&format!("CREATE EXTERNAL TABLE `text` {columns} {serde} LOCATION 's3://bucket/lake/text/'")).await;
    world.put("lake/text/0.csv", "A,2024-03-04T09:00:00Z,1\n");
    world.put("lake/text/one_repairs/one-fill-1-0.parquet", "C,2024-03-04T09:00:00Z,1\n");
    let mut text = Table { format: Format::Csv, ..at_location("text", "text") };
    text.csv.header = false;
    let raw = collect(world.lake.scan(&text, &everything(Layer::Raw)).await.unwrap()).await;
    assert_eq!(texts(&raw).len(), 1);
}
