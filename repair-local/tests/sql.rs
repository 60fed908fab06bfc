//! Users' SQL over tables and their repaired views.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]
#![cfg(feature = "sql")]

mod common;

use arrow::util::pretty::pretty_format_batches;
use common::*;
use repair_core::ErrorKind;
use repair_core::lake::Lake;
use repair_core::model::{Format, PartitionUnit, Table};

async fn world() -> (World, Table) {
    let world = World::new();
    let table = Table { partition_by: by(PartitionUnit::Day), ..bars() };
    let rows = [row("A", "2018-04-04T00:00:00Z", 1.0), row("A", "2018-04-04T00:01:30Z", 2.0), row("B", "2018-04-05T00:00:00Z", 3.0)];
    write_table(world.root(), &table, &rows, 1, &Stored::default());
    repair(&world.lake, &table, "run", &[row("A", "2018-04-04T00:01:00Z", 9.0), row("B", "2018-04-05T00:01:00Z", 10.0)], vec![]).await;
    (world, table)
}

async fn ask(world: &World, tables: &[Table], sql: &str) -> String {
    let batches = collect(world.lake.query(tables, sql).await.unwrap()).await.unwrap();
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
    // The row at half past is of the slot of minute 1: its repair stays hidden, whichever part of the slot is asked for.
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
        let error = world.lake.query(&tables, sql).await.err().unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {error}");
    }
    assert_eq!(before, tree(world.root()));
    world.write("bars/date=2018-04-04/bad.parquet", "nonsense");
    let error = world.lake.query(&tables, "SELECT count(*) FROM bars").await.err().unwrap();
    assert!(error.full().contains("bad.parquet"), "{}", error.full());
    let missing = Table { location: "gone".into(), ..bars() };
    assert_eq!(world.lake.query(&[missing], "SELECT 1").await.err().unwrap().kind(), ErrorKind::NotFound);
}
