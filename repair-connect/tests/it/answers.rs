//! Answers in each form, and streams of Arrow that are damaged in any way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::Float64Type;
use arrow::ipc::writer::StreamWriter;
use repair_core::model::{Fix, Interval, Unit};
use repair_core::plugin::{Answer, Plugin, PluginKind, Request};
use repair_core::{ErrorKind, Result};
use serde_json::json;

use crate::conformance::{made, table, with, within};
use crate::world::{World, options, registry};

async fn answered(world: &World, answer: &[u8], rows: &str) -> Result<Answer> {
    std::fs::write(world.path().join("answer"), answer).unwrap();
    let Plugin::Source(source) = made(PluginKind::Source, &with(world, "exec cat answer", &json!({ "rows": rows }))) else {
        panic!("not a source")
    };
    let request = Request::new(table(world), vec!["a".into()], Interval::parse("2024-03-04", "2024-03-04").unwrap());
    source.fetch(&within(world), &request).await
}

fn values(answer: &Answer) -> Vec<Option<f64>> {
    let column = |batch: &RecordBatch| batch.column_by_name("value").unwrap().as_primitive::<Float64Type>().iter().collect::<Vec<_>>();
    answer.rows.iter().flat_map(column).collect()
}

fn stream(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn readings() -> Vec<(&'static str, ArrayRef)> {
    let five = "2024-03-04T05:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
    vec![
        ("sensor", Arc::new(StringArray::from(vec!["a", "a"])) as ArrayRef),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![five, five + 3_600_000]).with_timezone("UTC"))),
        ("value", Arc::new(Float64Array::from(vec![Some(5.25), None]))),
    ]
}

#[tokio::test]
async fn rows_come_in_three_forms() {
    let world = World::new();
    let lines = b"{\"sensor\": \"a\", \"ts\": \"2024-03-04T05:00:00Z\", \"value\": 5.25}\r\n\n{\"value\": null, \"ts\": \"2024-03-04T07:00:00+01:00\", \"sensor\": \"a\"}\n{\"$rows\": 2}";
    let csv = b"\xef\xbb\xbfts,sensor,value\r\n2024-03-04T05:00:00Z,a,5.25\r\n2024-03-04T07:00:00+01:00,\"a\",\r\n";
    for (answer, rows) in [(&lines[..], "jsonl"), (&csv[..], "csv"), (&stream(readings())[..], "arrow")] {
        let answer = answered(&world, answer, rows).await.unwrap();
        assert_eq!(values(&answer), [Some(5.25), None], "{rows}");
        let times = answer.rows[0].column_by_name("ts").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>().clone();
        assert_eq!(times.value(1) - times.value(0), 3_600_000_000, "{rows}");
    }
    for (answer, rows) in [(&b"{\"$rows\": 0}\n"[..], "jsonl"), (&b"sensor,ts,value\n"[..], "csv")] {
        assert_eq!(values(&answered(&world, answer, rows).await.unwrap()), [] as [Option<f64>; 0]);
    }
}

#[tokio::test]
async fn whole_numbers_and_texts_are_read_where_nothing_is_lost() {
    let world = World::new();
    let row = |value: &str| format!("{{\"sensor\": \"a\", \"ts\": \"2024-03-04T05:00:00Z\", \"value\": {value}}}");
    for (value, expected) in [("7", 7.0), ("\"7.5\"", 7.5), ("1e2", 100.0), ("-0.1", -0.1)] {
        assert_eq!(values(&answered(&world, row(value).as_bytes(), "jsonl").await.unwrap()), [Some(expected)]);
    }
}

#[tokio::test]
async fn a_line_vouches_for_a_stretch() {
    let world = World::new();
    let line = b"{\"$covered\": {\"key\": \"a\", \"from\": \"2024-03-04T05:00:00Z\", \"to\": \"2024-03-04T07:00:00Z\"}}\n";
    let covered = answered(&world, line, "jsonl").await.unwrap().covered;
    assert_eq!(covered.len(), 1);
    assert_eq!(covered[0].interval, Interval::parse("2024-03-04T05:00:00Z", "2024-03-04T07:00:00Z").unwrap());
}

/// The fix that a program's answer about sensor `a` is, of the hours 5 to 7 and 15, which are missing.
async fn fixed(world: &World, answer: &[u8], rows: &str) -> Result<Fix> {
    std::fs::write(world.path().join("answer"), answer).unwrap();
    let Plugin::Repairer(repairer) = made(PluginKind::Repairer, &with(world, "exec cat answer", &json!({ "rows": rows }))) else {
        panic!("not a repairer")
    };
    let context = within(world);
    let gaps = json!({ "table": "readings", "keys": ["a"], "from": "2024-03-04", "to": "2024-03-04" });
    let Plugin::Detector(gaps) = registry(&options()).make(PluginKind::Detector, "gaps", &gaps).unwrap() else { panic!("not a detector") };
    let findings = gaps.detect(&context, None).await.unwrap();
    let units: Vec<Unit> = repairer.plan(&context, &findings).await.unwrap().collect::<Result<_>>().unwrap();
    repairer.repair(&context, &findings, &units[0]).await
}

#[tokio::test]
async fn a_repair_says_how_sure_it_is_in_three_forms() {
    let world = World::new();
    let lines = b"{\"sensor\": \"a\", \"ts\": \"2024-03-04T05:00:00Z\", \"value\": 5.25, \"$estimated\": {\"value\": [5, 5.5]}}
{\"sensor\": \"a\", \"ts\": \"2024-03-04T06:00:00Z\", \"value\": 6, \"$estimated\": null}\n{\"$rows\": 2}";
    let csv = b"sensor,$estimated,ts,value\na,\"{\"\"value\"\": [5, 5.5]}\",2024-03-04T05:00:00Z,5.25\na,,2024-03-04T06:00:00Z,6\n";
    let mut columns = readings();
    columns[2].1 = Arc::new(Float64Array::from(vec![5.25, 6.0]));
    columns.insert(1, ("$estimated", Arc::new(StringArray::from(vec![Some("{\"value\": [5, 5.5]}"), None]))));
    for (answer, rows) in [(&lines[..], "jsonl"), (&csv[..], "csv"), (&stream(columns.clone())[..], "arrow")] {
        let fix = fixed(&world, answer, rows).await.unwrap();
        let grid = table(&world).grid().unwrap();
        let of = |hour: &str| fix.estimates.text(&"a".into(), grid.slot_at(format!("2024-03-04T{hour}:00:00Z").parse().unwrap()), |_| true);
        assert_eq!((of("05").as_deref(), of("06")), (Some("{\"value\":[5.0,5.5]}"), None), "{rows}");
        assert!(fix.rows.iter().all(|batch| batch.num_columns() == 3), "{rows}");
        // A source vouches for its rows otherwise.
        let error = answered(&world, answer, rows).await.unwrap_err();
        assert!(error.full().contains("`$estimated` in row 1, which is for repairs alone"), "{}", error.full());
    }
    for (estimated, why) in [
        ("7", "where intervals by column belong"),
        ("{\"value\": [1]}", "where intervals by column belong"),
        ("{\"value\": [\"a\", \"b\"]}", "where intervals by column belong"),
        ("{\"value\": [6, 5]}", "ends before it begins"),
        ("{\"other\": [5, 6]}", "an interval of `other` for a, where the row has no number"),
        ("{\"sensor\": [5, 6]}", "an interval of `sensor` for a, where the row has no number"),
    ] {
        let line = format!("{{\"sensor\": \"a\", \"ts\": \"2024-03-04T05:00:00Z\", \"value\": 5.25, \"$estimated\": {estimated}}}");
        let error = fixed(&world, line.as_bytes(), "jsonl").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.full().contains(why), "{estimated}: {}", error.full());
    }
    // A program that repairs is no source.
    let row = "{\"sensor\": \"a\", \"ts\": \"2024-03-04T05:00:00Z\", \"value\": 5.25}";
    let error = fixed(&world, format!("{row}\n{row}").as_bytes(), "jsonl").await.unwrap_err().full();
    assert!(error.contains("repairer `command` answered with twice a row of a") && !error.contains("source"), "{error}");
    let column = vec![("$estimated", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef)];
    let error = fixed(&world, &stream(readings().into_iter().chain(column).collect()), "arrow").await.unwrap_err();
    assert!(error.full().contains("`$estimated` as Int32, which is no text"), "{}", error.full());
}

#[tokio::test]
async fn columns_of_arrow_must_hold_what_the_table_can() {
    let world = World::new();
    let changed = |name: &str, column: ArrayRef| {
        let columns = readings().into_iter().map(|(own, old)| if own == name { (own, column.clone()) } else { (own, old) });
        stream(columns.collect())
    };
    let floats = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let whole = answered(&world, &changed("value", Arc::new(Int32Array::from(vec![1, 2]))), "arrow").await.unwrap();
    assert_eq!(values(&whole), [Some(1.0), Some(2.0)]);
    let nanoseconds = TimestampNanosecondArray::from(vec![1_709_528_400_000_000_001, 1_709_532_000_000_000_000]);
    for (answer, why) in [
        (changed("value", floats(vec![1.0, f64::INFINITY])), "infinite"),
        (changed("value", Arc::new(StringArray::from(vec!["1", "x"]))), "`value` as Utf8"),
        (changed("ts", floats(vec![1.0, 2.0])), "no timestamp with a zone"),
        (changed("ts", Arc::new(nanoseconds.clone())), "no timestamp with a zone"),
        (changed("ts", Arc::new(nanoseconds.with_timezone("UTC"))), "would change"),
        (changed("sensor", Arc::new(StringArray::from(vec![Some("a"), None]))), "no value in key column"),
        (stream(readings().into_iter().take(2).chain([("other", floats(vec![1.0, 2.0]))]).collect()), "a column `other`"),
    ] {
        let error = answered(&world, &answer, "arrow").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.full().contains(why), "`{why}` is not in {}", error.full());
    }
}

/// Streams that are cut off, or in which bytes have other values, are errors or other rows: never a crash, nor memory for what they claim.
#[tokio::test]
async fn damaged_streams_of_arrow_crash_nothing() {
    let world = World::new();
    let whole = stream(readings());
    for cut in (0..whole.len() - 8).step_by(5) {
        let error = answered(&world, &whole[..cut], "arrow").await.map(|answer| answer.rows);
        assert!(error.is_err(), "cut off at {cut} of {}", whole.len());
    }
    let (mut seed, mut errors) = (testdata_seed(), 0);
    for _ in 0..300 {
        let mut damaged = whole.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (at, byte) = (usize::try_from(seed >> 33).unwrap() % damaged.len(), seed.to_le_bytes()[3]);
            damaged[at] = byte;
        }
        errors += usize::from(answered(&world, &damaged, "arrow").await.is_err());
    }
    assert!(errors > 50, "only {errors} of 300 were noticed");
}

fn testdata_seed() -> u64 {
    0x5eed_2024_0304
}
