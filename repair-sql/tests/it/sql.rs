//! Users' SQL over tables and their repaired views.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use std::sync::Arc;

use crate::common::*;
use arrow::util::pretty::pretty_format_batches;
use repair_core::lake::{Layer, ReadLake};
use repair_core::model::{Format, PartitionUnit, SlotRule, Table};
use repair_core::plugin::{AggregateRequest, Aggregated, Plugin, PluginKind, Registry, SystemClock};
use repair_core::testing::context;
use repair_core::{ErrorKind, Result};
use serde_json::json;

fn with_sql() -> World {
    let world = World::new();
    World { lake: world.lake.with_query_engine(Arc::new(repair_sql::DataFusion)), folder: world.folder }
}

async fn world() -> (World, Table) {
    let world = with_sql();
    let near = SlotRule { tolerance_s: 25, ..SlotRule::default() };
    let table = Table { partition_by: by(PartitionUnit::Day), slots: near, ..bars() };
    let rows = [row("A", "2018-04-04T00:00:00Z", 1.0), row("A", "2018-04-04T00:01:20Z", 2.0), row("B", "2018-04-05T00:00:00Z", 3.0)];
    write_table(world.root(), &table, &rows, 1, &Stored::default());
    repair(&world.lake, &table, "run", &[row("A", "2018-04-04T00:01:00Z", 9.0), row("B", "2018-04-05T00:01:00Z", 10.0)], vec![]).await;
    (world, table)
}

async fn ask(world: &World, tables: &[Table], sql: &str) -> String {
    let batches = collect(world.lake.query(&repair_core::lake::Query::new(tables, sql)).await.unwrap()).await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test]
async fn tables_and_views_are_there_by_name() {
    let (world, table) = world().await;
    let text = ask(&world, &[table], "SELECT symbol, count(*) AS n, sum(close) AS total, count(repaired_by) AS repaired FROM bars_repaired GROUP BY symbol ORDER BY symbol").await;
    let expected = "\
+--------+---+-------+----------+
| symbol | n | total | repaired |
+--------+---+-------+----------+
| A      | 2 | 3.0   | 0        |
| B      | 2 | 13.0  | 1        |
+--------+---+-------+----------+";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn a_filter_on_time_does_not_bring_back_what_raw_has() {
    let (world, table) = world().await;
    // The row at twenty past is of the slot of minute 1: its repair stays hidden, whichever part of the slot is asked for.
    for (condition, count) in [
        ("ts < '2018-04-04T00:01:15Z'", 1),
        ("ts >= '2018-04-04T00:01:15Z' AND ts < '2018-04-05T00:00:00Z'", 1),
        ("ts = '2018-04-04T00:01:00Z'", 0),
        ("TIMESTAMP '2018-04-05 00:01:00' <= ts", 1),
        ("ts > '2018-04-05T00:00:00Z'", 1),
        ("ts BETWEEN '2018-04-04T00:00:00Z' AND '2018-04-05T00:00:00Z'", 3),
    ] {
        let text = ask(&world, std::slice::from_ref(&table), &format!("SELECT count(*) AS n FROM bars_repaired WHERE {condition}")).await;
        assert!(text.contains(&format!("| {count} ")), "{condition}\n{text}");
    }
}

#[tokio::test]
async fn tables_can_be_joined_and_names_are_kept() {
    let (world, table) = world().await;
    world.write("Sectors/a.csv", "symbol,ts,sector\nA,2018-04-04T00:00:00Z,tech\n");
    let sectors = Table { name: "Sectors".into(), location: "Sectors".into(), format: Format::Csv, ..bars() };
    let sql = "SELECT b.symbol, s.sector FROM bars b JOIN \"Sectors\" s ON b.symbol = s.symbol LIMIT 1";
    assert!(ask(&world, &[table, sectors], sql).await.contains("| A      | tech   |"));
}

#[tokio::test]
async fn functions_that_people_expect_are_there() {
    let (world, table) = world().await;
    for (expression, expected) in [
        ("round(avg(close) / 3, 2)", "1.33"),
        ("abs(min(close) - 10)", "9.0"),
        ("max(upper(substr(symbol, 1, 1)) || '!')", "B!"),
        ("max(regexp_replace(symbol, '^[AB]$', 'x'))", "x"),
        ("min(extract(hour FROM ts))", "0"),
        ("min(date_bin(INTERVAL '2 hours', ts))", "2018-04-04T00:00:00Z"),
        ("sum(CASE WHEN symbol LIKE 'A%' THEN 1 ELSE 0 END)", "2"),
        ("median(close)", "2.5"),
        ("count(DISTINCT symbol)", "2"),
        ("coalesce(max(repaired_by), 'nobody')", "backfill"),
    ] {
        let text = ask(&world, std::slice::from_ref(&table), &format!("SELECT {expression} AS x FROM bars_repaired")).await;
        let found = text.lines().nth(3).unwrap_or_default().trim_matches(['|', ' ']).to_owned();
        assert_eq!(found, expected, "{expression}\n{text}");
    }
    let ranked = "SELECT symbol, row_number() OVER (PARTITION BY symbol ORDER BY ts) AS n FROM bars_repaired ORDER BY n DESC LIMIT 1";
    assert!(ask(&world, &[table], ranked).await.contains("| 2 "), "{ranked}");
}

#[tokio::test]
async fn only_reading_is_allowed_and_errors_keep_their_kind() {
    let (world, table) = world().await;
    let tables = [table];
    let before = tree(world.root());
    for sql in [
        "DROP TABLE bars",
        "CREATE TABLE x AS SELECT * FROM bars",
        "INSERT INTO bars SELECT * FROM bars",
        "COPY bars TO 'out.parquet'",
        "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * FROM '/etc/passwd'",
        "SELEC 1",
        "SELECT nothing FROM bars",
        "SELECT * FROM other",
    ] {
        let error = world.lake.query(&repair_core::lake::Query::new(&tables, sql)).await.err().unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {error}");
    }
    assert_eq!(before, tree(world.root()));
    let said = async |sql: &str| {
        let error = world.lake.query(&repair_core::lake::Query::new(&tables, sql)).await.err().unwrap_or_else(|| panic!("{sql}"));
        error.message().to_owned()
    };
    assert_eq!(
        said("SELECT sum(symbol) FROM bars").await,
        "the SQL could not be run: Function 'sum' does not take String (DataType: Utf8); write a CAST, or declare the type of the column"
    );
    let abs = said("SELECT abs(symbol) FROM bars").await;
    assert!(
        abs.starts_with("the SQL could not be run: Function 'abs' expects Numeric but received String.") && !abs.contains('\n'),
        "{abs}"
    );
    world.write("bars/date=2018-04-04/bad.parquet", "nonsense");
    let error = world.lake.query(&repair_core::lake::Query::new(&tables, "SELECT count(*) FROM bars")).await.err().unwrap();
    assert!(error.full().contains("bad.parquet"), "{}", error.full());
    let missing = Table { location: "gone".into(), ..bars() };
    assert_eq!(world.lake.query(&repair_core::lake::Query::new(&[missing], "SELECT 1")).await.err().unwrap().kind(), ErrorKind::NotFound);
}

/// What the aggregator `sql` makes of a query, in a workflow with these tables.
async fn write(world: &World, tables: &[Table], into: &str, query: &str) -> Result<Aggregated> {
    let context = context(Arc::new(world.lake.clone()), tables.to_vec(), Arc::new(SystemClock));
    let with = json!({ "into": into, "query": query });
    let Plugin::Aggregator(sql) = Registry::default().get(PluginKind::Aggregator, "sql").unwrap().make(&with)? else { unreachable!() };
    sql.aggregate(&context, AggregateRequest::new(None)).await
}

fn declared(name: &str, location: &str) -> Table {
    Table { name: name.into(), location: location.into(), time: "day".into(), cadence: None, partition_by: vec![], ..bars() }
}

const DAILY: &str = "SELECT symbol, date_trunc('day', ts) AS day, avg(close) AS mean FROM bars_repaired GROUP BY symbol, day";

#[tokio::test]
async fn a_table_that_is_yet_to_be_written_is_not_in_the_way() {
    let (world, table) = world().await;
    let (daily, later) = (declared("daily", "out/daily"), declared("later", "out/later"));
    let tables = [table, daily.clone(), later];
    for run in ["first", "second"] {
        let done = write(&world, &tables, "daily", DAILY).await.unwrap_or_else(|error| panic!("{run}: {}", error.full()));
        assert_eq!(done.output["rows"], 2, "{run}");
    }
    let rows = collect(world.lake.scan(&daily, &all(Layer::Raw)).await.unwrap()).await.unwrap();
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
    // A query that asks for it is told why it is not there.
    let error = write(&world, &tables, "daily", "SELECT * FROM later").await.unwrap_err();
    assert!(error.full().contains("tables that do not exist yet: later"), "{}", error.full());
}

#[tokio::test]
async fn rows_that_no_column_dates_are_refused_with_how_to_date_them() {
    let (world, table) = world().await;
    let before = tree(world.root());
    let query = "SELECT symbol, avg(close) AS mean FROM bars_repaired GROUP BY symbol";
    let error = write(&world, std::slice::from_ref(&table), "daily", query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("`symbol`, `mean`") && error.message().contains("`date_trunc('day', ts) AS day`"), "{error}");
    let error = write(&world, &[table, Table { time: "hour".into(), ..declared("daily", "daily") }], "daily", DAILY).await.unwrap_err();
    assert!(error.message().contains("not `hour`, the time column of table `daily`") && error.message().contains("AS hour`"), "{error}");
    assert_eq!(before, tree(world.root()));
}

#[tokio::test]
async fn what_others_own_is_never_written_to() {
    let (world, table) = world().await;
    let before = tree(world.root());
    let inner = Table { location: "vendor/./2024/quotes".into(), ..declared("quotes", "") };
    let outside = declared("reference", "/data/reference");
    let tables = |into: &[Table]| [&[table.clone(), inner.clone(), outside.clone()], into].concat();
    for (into, location, words) in [
        // What is kept beside tables, by its name, in any case.
        ("bars_repairs", None, "overlay table of table `bars`"),
        ("BARS_exceptions", None, "overlay table of table `bars`"),
        ("quotes_repaired", None, "overlay table of table `quotes`"),
        // By where it lies.
        ("daily", Some("bars_repairs"), "where the repairs of table `bars` are stored"),
        ("daily", Some("vendor/2024/quotes_exceptions/daily"), "where the repairs of table `quotes` are stored"),
        ("daily", Some("reference_repairs"), "where the repairs of table `reference` are stored"),
        // Inside and around other tables, and on them.
        ("daily", Some("bars"), "the location of table `bars`"),
        ("Bars", None, "the location of table `bars`"),
        ("daily", Some("bars/daily"), "the location of table `bars`"),
        ("vendor", None, "the location of table `quotes`"),
        ("daily", Some("./vendor//2024"), "the location of table `quotes`"),
        // Outside of the lake, and where nobody looks.
        ("daily", Some("/tmp/daily"), "is absolute"),
        ("daily", Some("out/../../daily"), "has a part `..`"),
        ("daily", Some(".repair/runs"), "hidden part, `.repair`"),
        ("out/.daily", None, "hidden part, `.daily`"),
        ("daily", Some("."), "is the lake itself"),
    ] {
        let into_table: Vec<Table> = location.map(|location| declared(into, location)).into_iter().collect();
        let error = write(&world, &tables(&into_table), into, "no query: it must not come to it").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(words), "{into} {location:?}: {error}");
    }
    assert_eq!(before, tree(world.root()));
    // A neighbour by name is no neighbour by place.
    for location in ["bars_daily", "vendor/2024/daily", "./daily"] {
        let daily = declared("daily", location);
        let (table, query) = (table.clone(), "SELECT symbol, date_trunc('day', ts) AS day FROM bars");
        write(&world, &[table, daily], "daily", query).await.unwrap_or_else(|error| panic!("{location}: {error}"));
    }
}

/// A lake of two tables whose names and columns are in capital letters, as some offices publish them.
fn capitals() -> (World, Vec<Table>) {
    let world = with_sql();
    world.write(
        "dispatch/a.csv",
        "REGIONID,SETTLEMENTDATE,TOTALDEMAND,Adj Price\nNSW1,2024-03-04T00:00:00Z,10,1.5\nVIC1,2024-03-04T00:00:00Z,20,2.5\n",
    );
    world.write("sites/a.csv", "RegionId,since,Name\nNSW1,2024-01-01T00:00:00Z,Sydney\n");
    let table = |name: &str, location: &str, key: &str, time: &str| Table {
        name: name.into(),
        location: location.into(),
        format: Format::Csv,
        key: vec![key.into()],
        time: time.into(),
        ..bars()
    };
    (world, vec![table("Dispatch", "dispatch", "REGIONID", "SETTLEMENTDATE"), table("sites", "sites", "RegionId", "since")])
}

#[tokio::test]
async fn names_are_found_in_any_case_as_on_athena() {
    let (world, tables) = capitals();
    let asked = async |sql: &str| {
        let batches =
            collect(world.lake.query(&repair_core::lake::Query::new(&tables, sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}")))
                .await
                .unwrap();
        let names: Vec<String> = batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let rows: Vec<String> =
            text.lines().skip(3).filter(|line| line.starts_with('|')).map(|line| line.replace([' ', '|'], "")).collect();
        format!("{}: {}", names.join(","), rows.join(" "))
    };
    for (sql, expected) in [
        // Without quotes, with quotes, in upper and in lower case.
        (r#"SELECT REGIONID FROM Dispatch WHERE TotalDemand = 10"#, "REGIONID: NSW1"),
        (r#"SELECT "regionid" FROM "DISPATCH" WHERE "TOTALDEMAND" = 10"#, "REGIONID: NSW1"),
        (r#"SELECT "REGIONID" FROM "Dispatch" WHERE "TOTALDEMAND" = 10"#, "REGIONID: NSW1"),
        (r#"SELECT d.regionid, d."adj price" FROM dispatch_repaired AS d WHERE d.totaldemand > 10"#, "REGIONID,Adj Price: VIC12.5"),
        (
            r#"SELECT * FROM dispatch WHERE settlementdate >= '2024-03-04T00:00:00Z' ORDER BY totaldemand LIMIT 1"#,
            "REGIONID,SETTLEMENTDATE,TOTALDEMAND,Adj Price: NSW12024-03-04T00:00:00Z101.5",
        ),
        // References to aliases.
        (
            r#"SELECT regionid AS r, sum(totaldemand) AS "Total MW" FROM dispatch GROUP BY r HAVING sum(totaldemand) > 10 ORDER BY "Total MW""#,
            "r,Total MW: VIC120",
        ),
        (r#"SELECT totaldemand * -1 AS regionid FROM dispatch ORDER BY regionid LIMIT 1"#, "regionid: -20"),
        (r#"SELECT totaldemand * -1 AS "REGIONID" FROM dispatch ORDER BY "REGIONID" LIMIT 1"#, "REGIONID: -20"),
        // Common table expressions, subqueries and joins.
        (
            r#"WITH c AS (SELECT regionid AS k, max(totaldemand) AS most FROM dispatch GROUP BY 1) SELECT k, most FROM c ORDER BY MOST DESC LIMIT 1"#,
            "k,most: VIC120",
        ),
        (
            r#"SELECT x FROM (SELECT TOTALDEMAND + 1 AS x FROM dispatch WHERE REGIONID IN (SELECT REGIONID FROM sites)) AS inner_query"#,
            "x: 11",
        ),
        (r#"SELECT s.name, d.totaldemand FROM dispatch d JOIN sites s ON d.regionid = s.regionid"#, "Name,TOTALDEMAND: Sydney10"),
        (
            r#"SELECT 'REGIONID' AS "a""B", count(*) AS n FROM dispatch -- "REGIONID"
            WHERE regionid <> '"REGIONID"'"#,
            "a\"B,n: REGIONID2",
        ),
    ] {
        assert_eq!(asked(sql).await, expected, "{sql}");
    }
    let refused = world.lake.query(&repair_core::lake::Query::new(&tables, "SELECT REGION FROM dispatch")).await.err().unwrap();
    assert!(refused.message().contains("region"), "{refused}");
}

#[tokio::test]
async fn columns_that_differ_only_in_case_are_written_exactly() {
    let world = with_sql();
    world.write("bars/a.csv", "symbol,ts,Close,CLOSE\nA,2024-03-04T00:00:00Z,1,2\n");
    let tables = [Table { format: Format::Csv, ..bars() }];
    assert!(ask(&world, &tables, r#"SELECT "Close", "CLOSE", SYMBOL FROM bars"#).await.contains("| 1     | 2     | A "));
    let refused = world.lake.query(&repair_core::lake::Query::new(&tables, "SELECT close FROM bars")).await.err().unwrap();
    assert!(refused.message().contains("No field named close"), "{refused}");
}

#[tokio::test]
async fn a_column_that_files_disagree_about_stops_only_the_queries_that_name_it() {
    let world = with_sql();
    let rows = batch(&[row("A", "2024-03-04T00:00:00Z", 1.0)]);
    let with = |column: arrow::array::ArrayRef| {
        let names = rows.schema().fields().iter().map(|field| field.name().clone()).chain(["Note".to_owned()]).collect::<Vec<_>>();
        arrow::array::RecordBatch::try_from_iter(names.into_iter().zip(rows.columns().iter().cloned().chain([column]))).unwrap()
    };
    write_parquet(&world.root().join("bars/a.parquet"), &with(Arc::new(arrow::array::Int64Array::from(vec![1]))), 10);
    write_parquet(&world.root().join("bars/b.parquet"), &with(Arc::new(arrow::array::StringArray::from(vec!["x"]))), 10);
    assert!(ask(&world, &[bars()], "SELECT count(*) AS n, sum(close) AS s FROM bars_repaired").await.contains("| 2 | 2.0 |"));
    assert!(!ask(&world, &[bars()], "SELECT * FROM bars").await.contains("Note"));
    for sql in ["SELECT \"Note\" FROM bars", "SELECT count(b.note) FROM bars_repaired b", "SELECT symbol FROM bars ORDER BY NOTE"] {
        let refused = world.lake.query(&repair_core::lake::Query::new(&[bars()], sql)).await.err().unwrap();
        let full = refused.full();
        assert!(["`Note`", "Int64", "Utf8", "a.parquet", "b.parquet", "one type"].iter().all(|part| full.contains(part)), "{sql}: {full}");
    }
}
