//! Tables as people have them are read on Athena as on a laptop, or refused in words before anything is spent.

use std::sync::Arc;

use crate::common::reading::{self, LAYOUTS};
use crate::common::*;
use repair_core::lake::ReadLake;
use repair_core::model::{
    Cadence, ColumnRule, ColumnType, Csv, Encoding, EpochUnit, ExpectedKeys, Format, KeysFrom, PartitionUnit, Repeated, Table, TimeReading,
    Zone,
};
use repair_core::plugin::{Detector, PluginKind, Registry};
use repair_core::testing::{LakeSetup, VirtualClock, context};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_read_as_iso_8601_writes_them() {
    reading::times_as_iso_writes_them(&World::new().await).await;
}

/// Whatever text the table holds, all rows of the view have a timestamp, those of the table and those that were repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_the_view_has_one_form_in_all_rows() {
    for (format, text) in [
        (Format::Csv, "symbol,ts,close,volume\nA,2024-03-04T09:00:00Z,1,1\nA,2024-03-04 10:02+01:00,1,1\n"),
        (
            Format::Jsonl,
            "{\"symbol\":\"A\",\"ts\":\"2024-03-04T09:00:00Z\",\"close\":\"1\",\"volume\":\"1\"}\n{\"symbol\":\"A\",\"ts\":\"2024-03-04 \
             10:02+01:00\",\"close\":\"1\",\"volume\":\"1\"}\n",
        ),
    ] {
        let world = World::new().await;
        let table = Table::new("bars", format, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE);
        world.declare(&table, &[("symbol", "string"), ("ts", "string"), ("close", "string"), ("volume", "string")]).await;
        world.put("lake/bars/a.txt", text);
        repair(&world.lake, &table, "run", &[("A", "2024-03-04T09:01:00Z", 1.5)], Vec::new()).await;
        let sql = "SELECT CAST(ts AS varchar), repaired_by FROM bars_repaired WHERE ts >= TIMESTAMP '2024-03-04 09:00:00'";
        let shown =
            texts(&collect(world.lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), sql)).await.unwrap()).await);
        let at = |minute: &str, by: &str| format!("2024-03-04 09:{minute}:00.000|{by}");
        assert_eq!(shown, [at("00", ""), at("01", "backfill"), at("02", "")], "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_read_with_the_marks_and_words_of_its_table() {
    reading::text_as_a_grid_operator_writes_it(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_read_in_other_forms() {
    reading::times_in_other_forms(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_obey_the_zone_of_their_table() {
    reading::timestamps_of_a_local_clock(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_and_keys_are_read_from_paths() {
    reading::times_in_the_path(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_found_in_the_folders_of_their_time_and_near_them() {
    let world = World::new().await;
    for layout in &LAYOUTS {
        reading::folders_that_carry_the_time(&world, layout).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_cannot_be_read_are_refused_or_counted() {
    reading::rows_that_cannot_be_read(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_come_without_loss_and_only_from_data() {
    reading::values_and_files(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_sees_a_table_as_it_is_declared_and_is_refused_what_cannot_be_read() {
    reading::declared_types_in_sql(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_larger_than_any_are_refused_and_a_plus_is_a_sign() {
    reading::numbers_at_their_limits(&World::new().await).await;
}

/// Athena does not show it, but the files say whether their timestamps are instants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_does_not_shift_instants() {
    let world = World::new().await;
    let table = Table::new("bars", Format::Parquet, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE);
    world.add_rows(&table, &[rows(&[("A", "2024-03-04T09:00:00Z", 1.0)])]).await.unwrap();
    world.lake.describe(&table).await.unwrap();
    let error =
        world.lake.describe(&table.with_time(TimeReading::default().with_zone("Europe/Berlin".parse().unwrap()))).await.unwrap_err();
    assert!(error.message().contains("are instants") && error.message().contains("lake/bars/0.parquet"), "{error}");
}

/// Each declaration that Athena cannot honour is refused when the table is described, and no query runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_athena_cannot_honour_is_refused_before_anything_is_spent() {
    let world = World::new().await;
    let lazy = "ROW FORMAT DELIMITED FIELDS TERMINATED BY ';'";
    let open = "ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde'";
    let header = "TBLPROPERTIES ('skip.header.line.count'='1')";
    for (name, columns, format, more) in [
        ("csv", "ts string, v string", open, header),
        ("bare", "ts string, v string", open, ""),
        ("semi", "ts string, v double", lazy, header),
        ("json", "ts string, v string, s struct<a:int>", "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'", ""),
        ("pq", "ts timestamp, n bigint, x double", "STORED AS PARQUET", ""),
    ] {
        world
            .define(&format!(
                "CREATE EXTERNAL TABLE `{DATABASE}`.`{name}` ({columns}) {format} LOCATION 's3://{BUCKET}/lake/{name}/' {more}"
            ))
            .await;
    }
    world.sandbox.faults().clear_log();
    let csv = |change: &dyn Fn(&mut Csv)| {
        let mut csv = Csv::default();
        change(&mut csv);
        csv
    };
    let of = |name: &str, format: Format| Table::new(name, format, "ts").with_cadence(Cadence::HOUR);
    let berlin: Zone = "Europe/Berlin".parse().unwrap();
    let plain = || of("csv", Format::Csv);
    let json = || of("json", Format::Jsonl);
    let pq = || of("pq", Format::Parquet);
    for (table, words) in [
        (plain().with_location("raw/*.csv"), "reads whole folders"),
        (plain().with_time(TimeReading::default().with_zone(berlin.clone()).with_repeated(Repeated::FileOrder)), "no order on Athena"),
        (plain().with_csv(csv(&|csv| csv.delimiter = ';')), "separated by `;` as it is declared here, and by `,` in Athena"),
        (plain().with_csv(csv(&|csv| csv.quote = Some('\''))), "quoted by `'`"),
        (plain().with_csv(csv(&|csv| csv.skip_lines = 2)), "3 lines before the first row as it is declared here, and Athena skips 1"),
        (plain().with_csv(csv(&|csv| csv.comment = Some('#'))), "no comments"),
        (plain().with_csv(csv(&|csv| csv.final_newline = true)), "leave out `final_newline: required`"),
        (plain().with_csv(csv(&|csv| csv.encoding = Encoding::Latin1)), "declared as latin1"),
        (of("bare", Format::Csv), "'skip.header.line.count'='1'"),
        (of("semi", Format::Csv).with_csv(csv(&|csv| csv.delimiter = ';')), "knows no quotes"),
        (
            of("semi", Format::Csv)
                .with_csv(csv(&|csv| (csv.delimiter, csv.quote) = (';', None)))
                .with_column("v", ColumnRule::of_type(ColumnType::Number)),
            "declare it as `string` in Athena",
        ),
        (plain().with_time(TimeReading::by_pattern("%d.%m.%Y %H:%M")), "has no time zone"),
        (plain().with_time(TimeReading::by_pattern("%Y-W%W-%w %H:%M").with_zone(berlin.clone())), "`%W`"),
        (json().with_ignored(["*.md"]), "`ignore` cannot be honoured"),
        (pq().with_ignored(["*.md"]), "not Parquet"),
        (json().with_column("b", ColumnRule::default().at_path("s.b")), "no column `s` of a struct type that holds it"),
        (pq().with_column("x", ColumnRule::of_type(ColumnType::Integer)), "cannot be converted without loss"),
        (pq().with_time(TimeReading::epoch([EpochUnit::Ms])), "is a timestamp or a date in Athena already"),
        (Table::new("pq", Format::Parquet, "n"), "epoch: ms"),
        (pq().with_layout("%Y/%m".parse().unwrap(), Zone::utc()), "not clear which folder is which"),
        (pq().with_layout("dt=%F".parse().unwrap(), Zone::utc()), "no partition column `dt`"),
        (pq().with_partition("dt", PartitionUnit::Day), "no partition column `dt`"),
    ] {
        let error = world.lake.describe(&table).await.unwrap_err();
        assert!(error.message().contains(words), "{words}: {error}");
    }
    assert_eq!(world.served(aws_sandbox::Service::Athena, "StartQueryExecution"), 0);
    world.lake.describe(&plain()).await.unwrap();
    world.lake.describe(&pq().with_column("n", ColumnRule::of_type(ColumnType::Decimal(20, 2)))).await.unwrap();
}

/// The keys of another table, with their lifetimes, are read before anything is spent on the table itself; other keys are counted and named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_listed_by_another_table_and_live_as_it_says() {
    let world = World::new().await;
    let (meters, sites) = reading::meters_and_sites(&world).await;
    let queries = || world.served(aws_sandbox::Service::Athena, "StartQueryExecution");
    let detect = async |keys: KeysFrom, from: &str, to: &str| {
        let meters = meters.clone().with_keys(ExpectedKeys::Table(keys));
        let clock = VirtualClock::starting_at(at("2024-06-01T00:00:00Z"));
        let context = context(Arc::new(world.reopened()), [meters, sites.clone()], Arc::new(clock));
        let config = json!({ "table": "meters", "from": from, "to": to });
        let detector = Registry::default().make(PluginKind::Detector, "gaps", &config).and_then(Arc::<dyn Detector>::try_from).unwrap();
        let before = queries();
        (detector.detect(&context, None).await, queries() - before)
    };
    let lifetime = || KeysFrom::table("sites").with_lifetime(Some("opened"), Some("closed"));
    let (found, asked) = detect(lifetime(), "2024-03-04", "2024-03-05").await;
    let found = found.unwrap();
    let counts = found.counts;
    assert_eq!(found.scope.keys.iter().map(ToString::to_string).collect::<Vec<_>>(), ["north/4711", "north/4712", "south/4711"]);
    assert_eq!((counts.expected, counts.missing, counts.unexpected, asked), (42 + 24 + 27, 1, 6, 2));
    assert_eq!(
        found.gaps.iter().map(|(key, slots)| (key.to_string(), found.scope.grid.start_of(slots.first))).collect::<Vec<_>>(),
        [("north/4711".to_owned(), at("2024-03-04T07:00:00Z"))]
    );
    // The first five of eleven keys, with all of their rows.
    assert_eq!(counts.other_keys, 13);
    let named = "south/10 (1 row), south/11 (1 row), south/12 (1 row), south/13 (1 row), south/14 (1 row) and others";
    assert_eq!(found.other_keys.describe(counts.other_keys), named);
    // Where all of them have been opened since the time that their rows carry.
    let (found, _) = detect(KeysFrom::table("sites").with_lifetime(Some("entered"), None), "2023-12-31", "2024-01-01").await;
    assert_eq!(found.unwrap().counts.expected, 4 * 24);

    let (refused, asked) = detect(KeysFrom::table("sites").with_lifetime(Some("open"), None), "2024-03-04", "2024-03-05").await;
    let error = refused.unwrap_err();
    assert!(error.message().contains("has no column `open`; its columns are") && asked == 0, "{error}");
    let (refused, asked) = detect(KeysFrom::table("sites").with_lifetime(Some("meter"), None), "2024-03-04", "2024-03-05").await;
    let error = refused.unwrap_err();
    assert!(error.message().contains("`4711` in column `meter` is neither a date nor a time") && asked == 1, "{error}");
    let (refused, _) = detect(KeysFrom::table("sites"), "2024-03-13", "2024-03-13").await;
    let error = refused.unwrap_err();
    assert!(error.message().contains("a key must be text or a whole number"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_numbers_are_keys_even_as_floats() {
    reading::floats_as_keys(&World::new().await).await;
}
