//! Tables of every form over objects of the store: what is read, as what, and how little.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;

use crate::common::{World, batch};
use arrow::array::{Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};

/// Microseconds since 1970 of a time on a day of March 2026.
fn at(day: u32, minute: i64) -> i64 {
    let midnight: jiff::Timestamp = format!("2026-03-{day:02}T00:00:00Z").parse().unwrap();
    midnight.as_microsecond() + minute * 60_000_000
}

/// Bars of a day: `minutes` of two symbols.
fn bars(day: u32, minutes: i64) -> arrow::array::RecordBatch {
    let rows: Vec<(&str, i64)> = ["A", "B"].iter().flat_map(|symbol| (0..minutes).map(move |minute| (*symbol, minute))).collect();
    let symbols: StringArray = rows.iter().map(|(symbol, _)| Some(*symbol)).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|(_, minute)| Some(at(day, *minute))).collect();
    let closes: Float64Array = rows.iter().map(|(_, minute)| Some(100.0 + f64::from(i32::try_from(*minute).unwrap()) / 4.0)).collect();
    // Random text, so that it takes room.
    let notes: StringArray =
        rows.iter().map(|(symbol, minute)| Some(format!("{symbol}{}", (minute + 7) * 6_364_136_223_846_793))).collect();
    batch(vec![
        ("symbol", Arc::new(symbols) as Arc<dyn Array>),
        ("ts", Arc::new(times.with_timezone("UTC"))),
        ("close", Arc::new(closes)),
        ("note", Arc::new(notes)),
    ])
}

const COLUMNS: &str = "symbol string, ts timestamp, close double, note string";

async fn with_bars() -> World {
    with_bars_in(World::new().await).await
}

async fn with_bars_in(world: World) -> World {
    for day in 1..=5 {
        world.put_parquet(&format!("bars/day=2026-03-{day:02}/1.parquet"), &bars(day, 100));
    }
    world
        .ddl(&format!(
            "CREATE EXTERNAL TABLE IF NOT EXISTS `d`.`bars` ({COLUMNS}) PARTITIONED BY (day string) STORED AS PARQUET LOCATION \
             's3://lake/bars/' TBLPROPERTIES ('projection.enabled'='true', 'projection.day.type'='date', \
             'projection.day.format'='yyyy-MM-dd', 'projection.day.range'='2026-01-01,2026-12-31', \
             'storage.location.template'='s3://lake/bars/day=${{day}}')"
        ))
        .await;
    world
}

/// Bytes that were read below a prefix, and of how many objects.
fn read(world: &World, prefix: &str) -> (u64, usize) {
    let counts = world.sandbox.store().counted();
    (counts.of("lake", prefix).bytes_read, counts.objects_read("lake", prefix))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_needed_partitions_and_columns_are_read() {
    let world = with_bars().await;
    let count = "SELECT symbol, count(*), min(ts) FROM bars WHERE day = '2026-03-02' GROUP BY symbol ORDER BY 1";
    world.sandbox.store().reset();
    assert_eq!(world.table(count).await, "A|100|2026-03-02 00:00:00.000\nB|100|2026-03-02 00:00:00.000");
    let (narrow, objects) = read(&world, "bars/");
    assert_eq!(objects, 1);
    world.sandbox.store().reset();
    let execution = world.run("SELECT * FROM bars WHERE day = '2026-03-02'").await.unwrap();
    let (wide, objects) = read(&world, "bars/");
    assert_eq!(objects, 1);
    assert!(narrow * 2 < wide, "{narrow} of {wide}");
    assert_eq!(execution.statistics.unwrap().data_scanned_in_bytes, Some(i64::try_from(wide).unwrap()));
    for (condition, days) in [
        ("day BETWEEN '2026-03-02' AND '2026-03-03'", 2),
        ("day IN ('2026-03-01', '2026-03-05', '2026-03-09')", 2),
        ("day >= '2026-03-04' AND close > 0", 2),
        ("day = '2026-03-01' OR day = '2026-03-02'", 2),
        ("(day, symbol) IN (('2026-03-01', 'A'), ('2026-03-02', 'B'))", 2),
        ("substr(day, 9) = '03'", 1),
        ("day = '2026-04-01'", 0),
        ("close > 0", 5),
    ] {
        world.sandbox.store().reset();
        world.rows(&format!("SELECT count(*) FROM bars WHERE {condition}")).await;
        assert_eq!(read(&world, "bars/").1, days, "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_over_joins_prunes_both_sides() {
    let world = with_bars_in(World::of_trino().await).await;
    for day in 1..=5 {
        world.put_parquet(&format!("repairs/day=2026-03-{day:02}/1.parquet"), &bars(day, 10));
    }
    world
        .ddl(&format!(
            "CREATE EXTERNAL TABLE repairs ({COLUMNS}) PARTITIONED BY (day string) STORED AS PARQUET LOCATION 's3://lake/repairs/'"
        ))
        .await;
    world.ddl("MSCK REPAIR TABLE repairs").await;
    world
        .ddl(
            "CREATE OR REPLACE VIEW bars_repaired AS \
             WITH fix AS (SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY symbol, ts, day ORDER BY close DESC) AS place FROM repairs) \
             WHERE place = 1) \
             SELECT b.symbol, b.ts, b.close, b.day FROM bars b LEFT JOIN fix f ON b.symbol = f.symbol AND b.ts = f.ts AND b.day = f.day \
             WHERE f.close IS NULL \
             UNION ALL SELECT f.symbol, f.ts, f.close + 1, f.day FROM fix f \
             LEFT JOIN (SELECT DISTINCT symbol, ts, day FROM bars) b ON b.symbol = f.symbol AND b.ts = f.ts AND b.day = f.day",
        )
        .await;
    let query = "SELECT symbol, count(*), sum(close) FROM d.bars_repaired WHERE day = '2026-03-03' GROUP BY symbol ORDER BY symbol";
    world.sandbox.store().reset();
    let first = world.table(query).await;
    assert_eq!(first, "A|100|11247.5\nB|100|11247.5");
    let before = (read(&world, "bars/"), read(&world, "repairs/"));
    assert_eq!((before.0.1, before.1.1), (1, 1));
    // Other partitions change nothing of it.
    for day in 10..=25 {
        world.put_parquet(&format!("bars/day=2026-03-{day:02}/1.parquet"), &bars(day, 100));
        world.put_parquet(&format!("repairs/day=2026-03-{day:02}/1.parquet"), &bars(day, 100));
    }
    world.ddl("MSCK REPAIR TABLE repairs").await;
    world.sandbox.store().reset();
    assert_eq!(world.table(query).await, first);
    assert_eq!((read(&world, "bars/"), read(&world, "repairs/")), before);
    // So it is when the other side is only asked whether it has the row.
    for (kind, rows) in [("NOT EXISTS", "180"), ("EXISTS", "20")] {
        world.sandbox.store().reset();
        let sql = format!(
            "SELECT count(*) FROM bars b WHERE {kind} (SELECT 1 FROM repairs r WHERE r.symbol = b.symbol AND r.ts = b.ts AND r.day = b.day) AND \
             day = '2026-03-03'"
        );
        assert_eq!(world.table(&sql).await, rows);
        assert_eq!((read(&world, "bars/").1, read(&world, "repairs/").1), (1, 1), "{kind}");
    }
    let id = world.start("SHOW CREATE VIEW bars_repaired").await.unwrap();
    world.end_of(&id).await;
    let shown = crate::common::lines(&world.rows_of(&id).await);
    // Trino keeps a view's text laid out in its own way.
    let text: String = shown.split_whitespace().collect();
    assert!(text.starts_with("CREATEVIEW\"d\".\"bars_repaired\"ASWITHfixAS(SELECT*FROM"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_partitions_are_where_they_say() {
    let world = World::of_trino().await;
    world
        .ddl(&format!("CREATE EXTERNAL TABLE t ({COLUMNS}) PARTITIONED BY (day date, n int) STORED AS PARQUET LOCATION 's3://lake/t/'"))
        .await;
    world.put_parquet("elsewhere/1.parquet", &bars(1, 3));
    world.put_parquet("t/day=2026-03-02/n=7/1.parquet", &bars(2, 4));
    assert_eq!(world.table("SELECT count(*) FROM t").await, "0", "nothing is registered");
    world.ddl("ALTER TABLE t ADD IF NOT EXISTS PARTITION (day='2026-03-01', n=1) LOCATION 's3://lake/elsewhere/'").await;
    world.ddl("ALTER TABLE t ADD IF NOT EXISTS PARTITION (day='2026-03-01', n=1) LOCATION 's3://lake/other/'").await;
    assert!(world.refusal("ALTER TABLE t ADD PARTITION (day='2026-03-01', n=1)").await.contains("AlreadyExistsException"));
    world.ddl("MSCK REPAIR TABLE t").await;
    let counts = "SELECT day, n, count(*) FROM t GROUP BY day, n ORDER BY day";
    assert_eq!(world.table(counts).await, "2026-03-01|1|6\n2026-03-02|7|8");
    assert_eq!(world.table("SELECT count(*) FROM t WHERE day = date '2026-03-02' AND n > 5").await, "8");
    let id = world.start("SHOW PARTITIONS t").await.unwrap();
    world.end_of(&id).await;
    assert_eq!(crate::common::lines(&world.rows_of(&id).await), "day=2026-03-01/n=1\nday=2026-03-02/n=7");
    let object = world.sandbox.store().get("lake", &format!("results/{id}.txt")).unwrap();
    assert_eq!(&object.bytes[..], b"day=2026-03-01/n=1\nday=2026-03-02/n=7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_projected_by_every_kind() {
    let world = World::new().await;
    for (region, year, owner) in [("eu", "01", "x"), ("us", "02", "x"), ("us", "02", "y")] {
        world.put(&format!("p/{region}/{year}/{owner}/1.csv"), format!("{region}{year}{owner}\n"));
    }
    world
        .ddl(
            "CREATE EXTERNAL TABLE p (a string) PARTITIONED BY (region string, n int, owner string) ROW FORMAT DELIMITED FIELDS TERMINATED BY \
             ',' LOCATION 's3://lake/p/' TBLPROPERTIES ('projection.enabled'='true', 'projection.region.type'='enum', \
             'projection.region.values'='eu,us', 'projection.n.type'='integer', 'projection.n.range'='0,9', 'projection.n.digits'='2', \
             'projection.owner.type'='injected', 'storage.location.template'='s3://lake/p/${region}/${n}/${owner}/')",
        )
        .await;
    assert_eq!(world.table("SELECT a, region, n, owner FROM p WHERE owner = 'x' ORDER BY a").await, "eu01x|eu|1|x\nus02x|us|2|x");
    assert_eq!(world.table("SELECT a FROM p WHERE owner IN ('x', 'y') AND n = 2 ORDER BY a").await, "us02x\nus02y");
    let refusal = world.refusal("SELECT a FROM p").await;
    assert!(refusal.starts_with("CONSTRAINT_VIOLATION: For the injected projected partition column owner, the WHERE clause"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_is_read_as_declared() {
    let world = World::new().await;
    let times = TimestampMicrosecondArray::from(vec![Some(1_499), Some(1_500), Some(-1_500), None]);
    world.put_parquet(
        "a/1.parquet",
        &batch(vec![("TS", Arc::new(times) as Arc<dyn Array>), ("n", Arc::new(arrow::array::Int32Array::from(vec![1, 2, 3, 4])))]),
    );
    world.ddl("CREATE EXTERNAL TABLE a (n bigint, ts timestamp, added double) STORED AS PARQUET LOCATION 's3://lake/a/'").await;
    let all = "1|1970-01-01 00:00:00.001|∅\n2|1970-01-01 00:00:00.002|∅\n3|1969-12-31 23:59:59.999|∅\n4|∅|∅";
    assert_eq!(world.table("SELECT n, ts, added FROM a ORDER BY n").await, all);
    assert_eq!(world.table("SELECT count(*) FROM a").await, "4");
    world.ddl("ALTER TABLE a ADD COLUMNS (later string COMMENT 'new')").await;
    assert_eq!(world.table("SELECT later FROM a WHERE n = 1").await, "∅");
    // A time that is text in the objects, and a timestamp in the catalog.
    world.put_parquet("b/1.parquet", &batch(vec![("ts", Arc::new(StringArray::from(vec!["2026-03-05T14:30:00Z"])) as Arc<dyn Array>)]));
    world.ddl("CREATE EXTERNAL TABLE b (ts timestamp) STORED AS PARQUET LOCATION 's3://lake/b/'").await;
    let refusal = world.refusal("SELECT ts FROM b").await;
    assert!(
        refusal.starts_with(
            "HIVE_BAD_DATA: Field ts's type BINARY in parquet file s3://lake/b/1.parquet is incompatible with type timestamp(3)"
        ),
        "{refusal}"
    );
    world.put("c/1.parquet", "this is no Parquet at all");
    world.ddl("CREATE EXTERNAL TABLE c (ts timestamp) STORED AS PARQUET LOCATION 's3://lake/c/'").await;
    assert!(world.refusal("SELECT ts FROM c").await.starts_with("HIVE_BAD_DATA: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_are_read_by_declared_type() {
    let world = World::new().await;
    world.put(
        "j/1.json",
        "{\"Symbol\":\"A\",\"n\":1,\"x\":1.5,\"ok\":true,\"ts\":\"2026-03-05 14:30:00.123\",\"tags\":[\"a\",\"b\"],\"at\":{\"y\":2}}\n\
         {\"symbol\":\"B\",\"n\":null,\"ts\":\"2026-03-05T14:30:00Z\",\"extra\":0}\n\n{\"symbol\":\"C\",\"ts\":1772721000123}\n",
    );
    world
        .ddl(
            "CREATE EXTERNAL TABLE j (symbol string, n int, x double, ok boolean, ts timestamp, tags array<string>, at struct<y:int>) ROW FORMAT \
             SERDE 'org.openx.data.jsonserde.JsonSerDe' LOCATION 's3://lake/j/'",
        )
        .await;
    assert_eq!(
        world.table("SELECT symbol, n, x, ok, ts, tags, at FROM j ORDER BY symbol").await,
        "A|1|1.5|true|2026-03-05 14:30:00.123|[a, b]|{y=2}\nB|∅|∅|∅|2026-03-05 14:30:00.000|∅|∅\nC|∅|∅|∅|2026-03-05 14:30:00.123|∅|∅"
    );
    assert_eq!(world.table("SELECT tags[1], at.y FROM j WHERE symbol = 'A'").await, "a|2");
    world.put("j/2.json", "{\"symbol\": \"D\"\n");
    assert!(world.refusal("SELECT symbol FROM j").await.starts_with("HIVE_BAD_DATA: HiveException: Row is not a valid JSON Object"));
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_is_text_and_delimited_text_is_typed() {
    let world = World::new().await;
    world.put("csv/1.csv", "symbol,close\n\"A, B\",\"\"\nC,1.5\n");
    world
        .ddl(
            "CREATE EXTERNAL TABLE csv (symbol string, close string, later string) ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde' WITH \
             SERDEPROPERTIES ('separatorChar'=',') LOCATION 's3://lake/csv/' TBLPROPERTIES ('skip.header.line.count'='1')",
        )
        .await;
    assert_eq!(world.table("SELECT * FROM csv").await, "A, B||∅\nC|1.5|∅");
    world.put("lazy/1.txt", "a|1|2026-03-05 14:30:00.123456\n\\N|x|2026-03-05T14:30:00\n|\\N|\n");
    world.ddl("CREATE EXTERNAL TABLE lazy (a string, n int, ts timestamp) ROW FORMAT DELIMITED FIELDS TERMINATED BY '|' LOCATION 's3://lake/lazy/'").await;
    assert_eq!(world.table("SELECT * FROM lazy").await, "a|1|2026-03-05 14:30:00.123\n∅|∅|∅\n|∅|∅");
}

#[tokio::test(flavor = "multi_thread")]
async fn athena_tells_of_the_catalog() {
    let world = with_bars().await;
    let found =
        world.athena.get_table_metadata().catalog_name("AwsDataCatalog").database_name("d").table_name("bars").send().await.unwrap();
    let table = found.table_metadata.unwrap();
    let columns: Vec<_> = table.columns().iter().map(|column| format!("{} {}", column.name, column.r#type.as_deref().unwrap())).collect();
    assert_eq!(columns, ["symbol string", "ts timestamp", "close double", "note string"]);
    assert_eq!(table.partition_keys()[0].name, "day");
    assert_eq!(table.table_type.as_deref(), Some("EXTERNAL_TABLE"));
    let parameters = table.parameters.unwrap();
    assert_eq!(parameters["location"], "s3://lake/bars/");
    assert_eq!(parameters["projection.day.type"], "date");
    assert_eq!(parameters["inputformat"], "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat");
    let missing = world.athena.get_table_metadata().catalog_name("AwsDataCatalog").database_name("d").table_name("none").send().await;
    let missing = crate::common::told(missing.unwrap_err());
    assert!(missing.starts_with("MetadataException: ") && missing.contains("EntityNotFoundException"), "{missing}");
    world.ddl("CREATE VIEW v AS SELECT symbol, close AS last FROM bars").await;
    let tables = world.athena.list_table_metadata().catalog_name("AwsDataCatalog").database_name("d").send().await.unwrap();
    let names: Vec<_> =
        tables.table_metadata_list().iter().map(|table| format!("{} {}", table.name, table.table_type.as_deref().unwrap())).collect();
    assert_eq!(names, ["bars EXTERNAL_TABLE", "v VIRTUAL_VIEW"]);
    let databases = world.athena.list_databases().catalog_name("AwsDataCatalog").send().await.unwrap();
    assert_eq!(databases.database_list().iter().map(|database| database.name.as_str()).collect::<Vec<_>>(), ["d", "default"]);
    world.athena.get_database().catalog_name("AwsDataCatalog").database_name("d").send().await.unwrap();
    let catalogs = world.athena.list_data_catalogs().send().await.unwrap();
    assert_eq!(catalogs.data_catalogs_summary()[0].catalog_name.as_deref(), Some("AwsDataCatalog"));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_behave_as_in_trino() {
    let world = with_bars_in(World::of_trino().await).await;
    let values = "(VALUES (1, 'a', 2.0e0), (2, 'a', 1.0e0), (3, 'b', null)) AS t(n, k, x)";
    for (sql, expected) in [
        // Aggregates.
        ("SELECT k, max_by(n, x), min_by(n, x) FROM {t} GROUP BY k ORDER BY k", "a|1|2\nb|∅|∅"),
        ("SELECT count_if(n > 1), approx_distinct(k), any_value(k), arbitrary(x) FROM {t}", "2|2|a|2.0"),
        ("SELECT approx_percentile(n, 0.5), bitwise_or_agg(n), bitwise_and_agg(n), every(n > 0) FROM {t}", "2|3|0|true"),
        ("SELECT count(*) FILTER (WHERE k = 'a'), sum(n) FILTER (WHERE k = 'z') FROM {t}", "2|∅"),
        ("SELECT bitwise_or_agg(bitwise_left_shift(BIGINT '1', CAST(n AS integer))) FILTER (WHERE n < 3) FROM {t}", "6"),
        ("SELECT array_agg(n ORDER BY n DESC) FROM {t}", "[3, 2, 1]"),
        ("SELECT sum(d), avg(n) FROM (SELECT CAST('1.10' AS decimal(10, 2)) AS d, n FROM {t})", "3.30|2.0"),
        // Windows.
        ("SELECT n, row_number() OVER (PARTITION BY k ORDER BY n DESC) - 1 FROM {t} ORDER BY n", "1|1\n2|0\n3|0"),
        ("SELECT n, sum(x) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM {t} ORDER BY n", "1|2.0\n2|3.0\n3|3.0"),
        (
            "SELECT n, first_value(x) IGNORE NULLS OVER (ORDER BY n DESC ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING), \
             last_value(x) IGNORE NULLS OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING), \
             lag(x) IGNORE NULLS OVER (ORDER BY n) FROM {t} ORDER BY n",
            "1|1.0|1.0|∅\n2|1.0|1.0|2.0\n3|1.0|1.0|1.0",
        ),
        // Nulls come last, up and down.
        ("SELECT n FROM {t} ORDER BY x", "2\n1\n3"),
        ("SELECT n FROM {t} ORDER BY x DESC", "1\n2\n3"),
        // Names and rows.
        ("SELECT \"N\" FROM {t} WHERE \"K\" = 'b'", "3"),
        ("SELECT n FROM {t} WHERE (k, n) IN (('a', 2), ('b', 3), ('c', 1)) ORDER BY n", "2\n3"),
        ("SELECT t.n, u.m FROM {t} CROSS JOIN UNNEST(sequence(1, 2)) AS u(m) WHERE n = 1 ORDER BY m", "1|1\n1|2"),
        ("WITH a AS (SELECT n FROM {t}) SELECT n FROM a UNION ALL SELECT 9 ORDER BY n", "1\n2\n3\n9"),
        ("SELECT n FROM {t} WHERE x IS DISTINCT FROM 2.0e0 ORDER BY n", "2\n3"),
        ("SELECT count(*) FROM d.bars WHERE day = '2026-03-01' AND ts < timestamp '2026-03-01 00:10:00.000'", "20"),
        ("SELECT count(*) FROM awsdatacatalog.d.bars b WHERE b.day = '2026-03-01'", "200"),
    ] {
        assert_eq!(world.table(&sql.replace("{t}", values)).await, expected, "{sql}");
    }
    let id = world.start(&format!("SELECT n AS \"Number\", k, count(*) OVER () FROM {values} LIMIT 0")).await.unwrap();
    world.end_of(&id).await;
    assert_eq!(crate::common::lines(&world.rows_of(&id).await), "Number|k|_col2");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_in_trinos_words() {
    let world = with_bars().await;
    world.put_parquet("one/1.parquet", &batch(vec![("n", Arc::new(Int64Array::from(vec![0])) as Arc<dyn Array>)]));
    world.ddl("CREATE EXTERNAL TABLE one (n bigint) STORED AS PARQUET LOCATION 's3://lake/one/'").await;
    world.ddl("CREATE EXTERNAL TABLE nowhere (n bigint) STORED AS PARQUET LOCATION 's3://nobucket/one/'").await;
    for (sql, reason) in [
        ("SELECT * FROM nosuch", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.d.nosuch' does not exist"),
        ("SELECT * FROM nodb.t", "SCHEMA_NOT_FOUND: line 1:15: Schema 'nodb' does not exist"),
        ("SELECT nocol FROM bars", "COLUMN_NOT_FOUND: line 1:8: Column 'nocol' cannot be resolved"),
        ("SELECT nofn(1) FROM bars", "FUNCTION_NOT_FOUND: line 1:8: Function 'nofn' not registered"),
        ("SELECT 1 FROM bars WHERE symbol = 1", "TYPE_MISMATCH: line 1:26: Cannot apply operator: varchar = "),
        ("SELECT 1 FROM bars WHERE ts > '2026-03-01'", "TYPE_MISMATCH: line 1:26: Cannot apply operator: timestamp(3) > varchar"),
        ("SELECT 1 FROM bars WHERE day IN (DATE '2026-03-01')", "TYPE_MISMATCH: "),
        ("SELECT 1 FROM bars a JOIN one b ON a.symbol = b.n", "TYPE_MISMATCH: "),
        ("SELECT 1 FROM bars WHERE symbol IN (SELECT n FROM one)", "TYPE_MISMATCH: "),
        ("SELECT bitwise_left_shift(BIGINT '1', n) FROM one", "FUNCTION_NOT_FOUND: "),
        ("SELECT 1 / n FROM one", "DIVISION_BY_ZERO: Division by zero"),
        ("SELECT CAST(symbol AS bigint) FROM bars", "INVALID_CAST_ARGUMENT: Cannot cast 'A' to BIGINT"),
        ("SELECT CAST('nonsense' AS timestamp(3))", "INVALID_CAST_ARGUMENT: Value cannot be cast to timestamp: nonsense"),
        ("SELECT from_iso8601_timestamp('nonsense')", "INVALID_FUNCTION_ARGUMENT: Invalid format: \"nonsense\""),
        ("SELECT date_add('millisecond', 2147483648, timestamp '2026-01-01 00:00:00.000')", "NUMERIC_VALUE_OUT_OF_RANGE: integer overflow"),
        ("CREATE VIEW v AS SELECT 1", "MISSING_COLUMN_NAME: line 1:1: Column name not specified at position 1"),
        ("CREATE VIEW bars AS SELECT 1 x", "TABLE_ALREADY_EXISTS: "),
        ("SELECT * FROM nowhere", "PERMISSION_DENIED: The specified bucket does not exist"),
        ("DROP TABLE nosuch", "FAILED: SemanticException [Error 10001]: Table not found d.nosuch"),
        ("INSERT INTO one VALUES (1)", "InvalidRequestException: Queries of this type are not supported"),
        ("CREATE TABLE x (a int)", "InvalidRequestException: FAILED: SemanticException Only external tables"),
    ] {
        let found = world.refusal(sql).await;
        assert!(found.starts_with(reason), "{sql}\n{found}\n{reason}");
    }
    world.ddl("DROP TABLE IF EXISTS nosuch").await;
    world.ddl("CREATE VIEW w AS SELECT n FROM one").await;
    world.ddl("DROP TABLE one").await;
    let found = world.refusal("SELECT * FROM w").await;
    assert!(found.starts_with("INVALID_VIEW: line 1:15: Failed analyzing stored view 'awsdatacatalog.d.w': "), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_upon_many_subqueries_is_planned_at_once() {
    let world = with_bars().await;
    // Each of these names both columns of the one below it twice: written out, the condition would have 2^20 terms.
    let mut query = "SELECT day, close AS a, close + 1 AS b FROM d.bars WHERE symbol = 'A'".to_owned();
    for _ in 0..10 {
        query = format!(
            "SELECT day, greatest(a, b) + least(a, b) - least(b, a) AS a, least(a, b) + greatest(a, b) - greatest(b, a) AS b FROM ({query})"
        );
    }
    world.sandbox.store().reset();
    let rows = world.rows(&format!("SELECT count(*) FROM ({query}) WHERE day = '2026-03-02' AND a > b AND a + b > 0")).await;
    assert_eq!(rows, [[Some("100".to_owned())]]);
    // What does not grow is still pushed: one day is read.
    assert_eq!(read(&world, "bars/").1, 1);
}
