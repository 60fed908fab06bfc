//! Broken input is an error that names the file and what to do, never a panic and never a part of the rows.
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
use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampSecondArray,
};
use arrow::datatypes::DataType;
use proptest::prelude::*;
use repair_core::engine::{Event, Journal};
use repair_core::lake::{Lake, Layer, ReadLake, ScanRequest};
use repair_core::model::{BadRowLimit, ColumnRule, ColumnType, Format, Key, OnBadRow, PartitionUnit, Table};
use repair_core::{Error, ErrorKind};
use repair_local::{LocalLake, SqliteJournal};

/// What presence and a whole scan say of a table that neither can read.
async fn errors(world: &World, table: &Table) -> Vec<Error> {
    let presence = world.lake.presence(table, &whole(table, "2018-04-04", "2018-04-04", &["A"])).await;
    let scan = match world.lake.scan(table, &all(Layer::Raw)).await {
        Ok(scan) => collect(scan).await,
        Err(error) => Err(error),
    };
    vec![presence.unwrap_err(), scan.unwrap_err()]
}

async fn assert_invalid(world: &World, table: &Table, file: &str, words: &[&str]) {
    for error in errors(world, table).await {
        let text = error.full();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        assert!(text.contains(world.root().join(file).to_str().unwrap()), "no file in: {text}");
        for word in words {
            assert!(text.contains(word), "no `{word}` in: {text}");
        }
    }
}

fn columns(symbol: ArrayRef, ts: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter([("symbol", symbol), ("ts", ts)]).unwrap()
}

fn symbol() -> ArrayRef {
    Arc::new(StringArray::from(vec!["A"]))
}

#[tokio::test]
async fn a_file_that_is_not_parquet_is_named() {
    let table = bars();
    for (bytes, words) in [
        (&b""[..], ["the file is empty", "remove it, or write it again"]),
        (b"PAR1", ["not a readable Parquet file", "restore it, or move it away"]),
        (b"symbol,ts\nA,2018-04-04T00:00:00Z\n", ["not a readable Parquet file", "restore it, or move it away"]),
    ] {
        let world = World::new();
        world.write("bars/bad.parquet", bytes);
        assert_invalid(&world, &table, "bars/bad.parquet", &words).await;
    }
}

/// A field that a line has twice has no value that anybody can know.
#[tokio::test]
async fn a_field_that_a_line_has_twice_is_refused_where_it_is_read() {
    let line = |minute: u8, more: &str| format!("{{\"symbol\":\"A\",\"ts\":\"2018-04-04T00:{minute:02}:00Z\",{more}}}\n");
    for more in ["\"close\":1.5,\"close\":2.5", "\"close\":1.5,\"m\":{\"x\":1,\"x\":2}"] {
        let world = World::new();
        world.write("bars/a.jsonl", (line(0, "\"close\":1.5,\"m\":{\"x\":1}") + &line(1, more)).as_bytes());
        let table = Table { format: Format::Jsonl, partition_by: Vec::new(), ..bars() };
        let error = collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap_err().full();
        let name = if more.contains("close\":2") { "close" } else { "x" };
        assert!(error.contains(&format!("line 2: the line has the field `{name}` twice")), "{error}");
        // What is not read cannot be wrong.
        let request = ScanRequest::new(Layer::Raw).with_columns(vec![if name == "x" { "close" } else { "m" }.to_owned()]);
        assert_eq!(
            collect(world.lake.scan(&table, &request).await.unwrap()).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(),
            2
        );
        let lenient = table.with_bad_rows(OnBadRow::Quarantine(BadRowLimit::Rows(1)));
        let rows = collect(world.lake.scan(&lenient, &all(Layer::Raw)).await.unwrap()).await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    }
}

/// Numbers that no float holds are not infinite, in any format, and however they are written.
#[tokio::test]
async fn a_number_that_is_larger_than_any_is_refused() {
    let line = |minute: u8, close: &str| format!("{{\"symbol\":\"A\",\"ts\":\"2018-04-04T00:{minute:02}:00Z\",\"close\":{close}}}\n");
    let larger = "in column `close` is larger than any number that a column can hold";
    for (format, file, text, why) in [
        (Format::Csv, "bars/a.csv", "symbol,ts,close\nA,2018-04-04T00:00:00Z,1.5\nA,2018-04-04T00:01:00Z,1e400\n".to_owned(), larger),
        (Format::Jsonl, "bars/a.jsonl", line(0, "1.5") + &line(1, "\"-1e400\""), larger),
        (Format::Jsonl, "bars/a.jsonl", line(0, "1.5") + &line(1, "-1e400"), "number out of range"),
    ] {
        let world = World::new();
        world.write(file, text.as_bytes());
        let table = Table { format, partition_by: Vec::new(), ..bars() }.with_column("close", ColumnRule::of_type(ColumnType::Number));
        let error = match world.lake.scan(&table, &all(Layer::Raw)).await {
            Ok(scan) => collect(scan).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.full().contains("line ") && error.full().contains(why), "{}", error.full());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_cut_or_scratched_parquet_file_is_never_a_panic(cut in any::<proptest::sample::Index>(), scratch in any::<proptest::sample::Index>(), byte in any::<u8>(), is_cut in any::<bool>()) {
        let world = World::new();
        let table = bars();
        let rows: Vec<Row> = (0..500).map(|minute| Row { symbol: format!("S{}", minute % 7), time_us: us("2018-04-04T00:00:00Z") + minute * 60_000_000, close: Some(1.0) }).collect();
        write_table(world.root(), &table, &rows, 1, &Stored { row_group: 100, ..Stored::default() });
        let path = world.root().join("bars/0.parquet");
        let mut bytes = std::fs::read(&path).unwrap();
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        } else {
            let at = scratch.index(bytes.len());
            bytes[at] ^= byte.max(1);
        }
        std::fs::write(&path, &bytes).unwrap();
        let result = runtime().block_on(async {
            world.lake.presence(&table, &whole(&table, "2018-04-04", "2018-04-04", &["S1"])).await?;
            collect(world.lake.scan(&table, &all(Layer::Raw)).await?).await
        });
        // A scratch may hit a value, which nothing tells; a cut is always found.
        if is_cut {
            prop_assert!(result.is_err());
        }
        if let Err(error) = result {
            prop_assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.full());
            prop_assert!(error.full().contains("0.parquet"), "{}", error.full());
        }
    }
}

#[tokio::test]
async fn a_time_column_that_is_no_time_is_named_with_its_type() {
    let table = bars();
    for (ts, kind) in [
        (Arc::new(Float64Array::from(vec![1_522_800_000.0])) as ArrayRef, "Float64"),
        (Arc::new(Int64Array::from(vec![1_522_800_000])), "Int64"),
    ] {
        let world = World::new();
        write_parquet(&world.root().join("bars/a.parquet"), &columns(symbol(), ts), 10);
        let words = [format!("time column `ts` of table `bars` is {kind}, not a timestamp"), "`time: { column: ts, epoch: ms }`".into()];
        assert_invalid(&world, &table, "bars/a.parquet", &[&words[0], &words[1]]).await;
        let error = world.lake.describe(&table).await.unwrap_err();
        assert!(error.full().contains(&words[0]), "{}", error.full());
    }
}

#[tokio::test]
async fn dates_seconds_and_whole_number_keys_are_understood() {
    for ts in [Arc::new(Date32Array::from(vec![17_625])) as ArrayRef, Arc::new(TimestampSecondArray::from(vec![1_522_800_000]))] {
        let world = World::new();
        let ts_kind = &ts.data_type().clone();
        write_parquet(&world.root().join("bars/a.parquet"), &columns(Arc::new(Int32Array::from(vec![7])), ts), 10);
        // In a table of minutes, a date would be no time.
        let cadence = if *ts_kind == DataType::Date32 { "1d" } else { "1m" };
        let table = bars().with_cadence(cadence.parse().unwrap());
        let presence = world.lake.presence(&table, &whole(&table, "2018-04-04", "2018-04-04", &["7"])).await.unwrap();
        assert_eq!(presence.raw.keys[&Key::from("7")].present.count(), 1);
        let batches = collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap();
        assert_eq!(seen(&batches)[0].0, Row { symbol: "7".into(), time_us: us("2018-04-04T00:00:00Z"), close: None });
    }
}

#[tokio::test]
async fn a_row_without_key_or_time_is_an_error() {
    let table = bars();
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(us("2018-04-04T00:00:00Z")), None]));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![us("2018-04-04T00:00:00Z"); 2]));
    let world = World::new();
    write_parquet(&world.root().join("bars/a.parquet"), &columns(Arc::new(StringArray::from(vec!["A", "A"])), time), 10);
    assert_invalid(&world, &table, "bars/a.parquet", &["no value in time column `ts`"]).await;
    let world = World::new();
    write_parquet(&world.root().join("bars/a.parquet"), &columns(Arc::new(StringArray::from(vec![Some("A"), None])), times), 10);
    assert_invalid(&world, &table, "bars/a.parquet", &["no value in key column `symbol`"]).await;
    let good = "{\"symbol\": \"A\", \"ts\": \"2018-04-04T00:00:00Z\"}\n";
    for (format, file, text, words) in [
        (Format::Csv, "bars/a.csv", "symbol,ts\n\n,2018-04-04T00:00:00Z\n".to_owned(), "line 3: there is no value in key column `symbol`"),
        (Format::Csv, "bars/a.csv", "symbol,ts\nA,\n".to_owned(), "line 2: there is no value in time column `ts`"),
        (
            Format::Jsonl,
            "bars/a.json",
            format!("{good}{{\"symbol\": null, \"ts\": \"2018-04-04T00:00:00Z\"}}\n"),
            "line 2: there is no value in key column `symbol`",
        ),
        (Format::Jsonl, "bars/a.json", format!("{good}\n{{\"symbol\": \"A\"}}\n"), "line 3: there is no value in time column `ts`"),
    ] {
        let world = World::new();
        world.write(file, text);
        assert_invalid(&world, &Table { format, ..table.clone() }, file, &[words]).await;
    }
}

#[tokio::test]
async fn a_key_column_that_is_nowhere_is_missed() {
    let world = World::new();
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]));
    write_parquet(
        &world.root().join("bars/a.parquet"),
        &RecordBatch::try_from_iter([("ticker", symbol()), ("ts", ts.clone())]).unwrap(),
        10,
    );
    assert_invalid(&world, &bars(), "bars/a.parquet", &["no key column `symbol`; it has ticker, ts; correct `key` of table `bars`"]).await;
    let world = World::new();
    write_parquet(&world.root().join("bars/a.parquet"), &columns(Arc::new(Float64Array::from(vec![1.5])), ts), 10);
    let error = world.lake.presence(&bars(), &whole(&bars(), "1970-01-01", "1970-01-01", &["1"])).await.unwrap_err();
    assert!(error.full().contains("key column `symbol` of table `bars` holds a number that is not whole"), "{}", error.full());
}

#[tokio::test]
async fn a_broken_line_is_named() {
    let good = "A,2018-04-04T00:00:00Z,1\n";
    let csv = |line: &str| format!("symbol,ts,close\n{good}{line}\n{good}");
    let json = |line: &str| format!("{{\"symbol\": \"A\", \"ts\": \"2018-04-04T00:00:00Z\", \"close\": 1}}\n\n{line}\n");
    for (format, file, text, words) in [
        (Format::Csv, "bars/a.csv", csv("A,2018-04-04T00:01:00Z"), vec!["line 3: the line has 2 fields, and the header 3"]),
        (Format::Csv, "bars/a.csv", csv("A,2018-04-04T00:01:00Z,1,2"), vec!["line 3: the line has 4 fields, and the header 3"]),
        (
            Format::Csv,
            "bars/a.csv",
            csv("A,2018-04-04 00:01,1"),
            vec!["line 3: `2018-04-04 00:01` in time column `ts`", "if its times are in one zone, say so"],
        ),
        // A quoted field may hold lines, and blank lines are no rows.
        (
            Format::Csv,
            "bars/a.csv",
            format!("symbol,ts,close\r\n\r\n\"A\nB\",2018-04-04T00:00:00Z,1\r\n\n{good}A,now,1\n"),
            vec!["line 7: `now` in time column `ts`"],
        ),
        (
            Format::Csv,
            "bars/a.csv",
            format!("symbol,ts,close\n\n\"A\"\"\n,B\",2018-04-04T00:00:00Z,1\n\n{good}A,\"2018-04-04T00:00:00Z"),
            vec!["line 7: the line has 2 fields"],
        ),
        // A date is an instant only where a day is a slot.
        (Format::Csv, "bars/a.csv", csv("A,2018-04-04,1"), vec!["line 3: `2018-04-04` in time column `ts`"]),
        (
            Format::Csv,
            "bars/a.csv",
            csv("A,2018-04-04T00:00:00,1"),
            vec!["line 3: `2018-04-04T00:00:00` in time column `ts`", "with a time zone"],
        ),
        (Format::Csv, "bars/a.csv", String::new(), vec!["without even a header"]),
        (Format::Csv, "bars/a.csv", "symbol,ts,ts\n".into(), vec!["names `ts` twice"]),
        (Format::Csv, "bars/a.csv", "symbol,close\nA,1\n".into(), vec!["no time column `ts`; it has symbol", "correct `time`"]),
        (Format::Jsonl, "bars/a.jsonl", json("{\"symbol\": \"A\", "), vec!["line 3: the line is not one JSON object"]),
        (Format::Jsonl, "bars/a.jsonl", json("[1]"), vec!["line 3: the line is not one JSON object"]),
        (
            Format::Jsonl,
            "bars/a.jsonl",
            json("{\"symbol\": \"A\", \"ts\": 1522800000, \"close\": 1}"),
            vec!["line 3: `1522800000` in time column `ts`"],
        ),
        (Format::Jsonl, "bars/a.jsonl", json("{\"symbol\": {}, \"ts\": \"2018-04-04T00:00:00Z\"}"), vec!["line"]),
    ] {
        let world = World::new();
        world.write(file, &text);
        assert_invalid(&world, &Table { format, ..bars() }, file, &words).await;
    }
}

#[tokio::test]
async fn a_quote_that_is_never_closed_does_not_take_all_memory() {
    let table = Table { format: Format::Csv, ..bars() };
    let good = "A,2018-04-04T00:00:00Z,1\n";
    for (open, words) in [
        ("A,\"2018-04-04T00:00:00Z,1\n", "begins near line 3 takes more than"),
        ("A,2018-04-04T00:00:00Z,\"1\n", "is a quote missing its end?"),
    ] {
        let world = World::new();
        world.write("bars/a.csv", format!("symbol,ts,close\n{good}{open}{}", good.repeat(400_000)));
        assert_invalid(&world, &table, "bars/a.csv", &[words]).await;
    }
}

#[tokio::test]
async fn a_date_is_the_day_of_a_table_of_days() {
    let table = Table { format: Format::Csv, cadence: Some("1d".parse().unwrap()), ..bars() };
    let world = World::new();
    world.write("bars/a.csv", "symbol,ts,close\nA,2018-04-04,1\nA,2018-04-05,1\n");
    let presence = world.lake.presence(&table, &whole(&table, "2018-04-01", "2018-04-30", &["A"])).await.unwrap();
    assert_eq!((presence.raw.keys[&Key::from("A")].present.count(), presence.raw.misaligned_rows), (2, 0));
}

/// Zones other than UTC, and units other than microseconds, are the same instants.
#[tokio::test]
async fn instants_of_any_zone_and_unit_are_understood() {
    use arrow::array::{TimestampMillisecondArray, TimestampNanosecondArray};
    let instant = us("2018-04-04T00:00:00Z");
    let zoned: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(vec![instant / 1_000]).with_timezone("America/New_York")),
        Arc::new(TimestampMicrosecondArray::from(vec![instant]).with_timezone("+05:30")),
        Arc::new(TimestampNanosecondArray::from(vec![instant * 1_000])),
    ];
    let table = bars();
    let world = World::new();
    for (number, ts) in zoned.into_iter().enumerate() {
        write_parquet(&world.root().join(format!("bars/{number}.parquet")), &columns(symbol(), ts), 10);
    }
    let presence = world.lake.presence(&table, &whole(&table, "2018-04-04", "2018-04-04", &["A"])).await.unwrap();
    let key = &presence.raw.keys[&Key::from("A")];
    assert_eq!((key.present.iter().collect::<Vec<_>>(), key.duplicates()), (vec![instant / 60_000_000], 2));
    let rows = seen(&collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap());
    assert!(rows.len() == 3 && rows.iter().all(|(row, _)| row.time_us == instant));
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_followed_but_not_in_circles_and_not_to_nowhere() {
    use std::os::unix::fs::symlink;
    let table = Table { format: Format::Csv, ..bars() };
    let world = World::new();
    world.write("elsewhere/a.csv", "symbol,ts\nA,2018-04-04T00:00:00Z\n");
    world.write("bars/b.csv", "symbol,ts\nA,2018-04-04T00:01:00Z\n");
    symlink(world.root().join("elsewhere"), world.root().join("bars/linked")).unwrap();
    let request = whole(&table, "2018-04-04", "2018-04-04", &["A"]);
    let presence = world.lake.presence(&table, &request).await.unwrap();
    assert_eq!(presence.raw.keys[&Key::from("A")].present.count(), 2);
    symlink("..", world.root().join("bars/circle")).unwrap();
    for error in errors(&world, &table).await {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("bars/circle leads back to a folder"), "{error}");
    }
    std::fs::remove_file(world.root().join("bars/circle")).unwrap();
    symlink("nowhere", world.root().join("bars/gone")).unwrap();
    for error in errors(&world, &table).await {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("bars/gone"), "{error}");
    }
    std::fs::remove_file(world.root().join("bars/gone")).unwrap();
    // A reader of a pipe would wait for ever.
    assert!(std::process::Command::new("mkfifo").arg(world.root().join("bars/pipe.csv")).status().unwrap().success());
    for error in errors(&world, &table).await {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("bars/pipe.csv is a pipe"), "{error}");
    }
}

/// Runs one test again as a user who may not do everything, as root may.
#[cfg(unix)]
fn as_nobody(test: &str) {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    assert!(std::env::var_os("REPAIR_TEST_NOBODY").is_none(), "this user may read everything too");
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command.args([test, "--exact"]).env("REPAIR_TEST_NOBODY", "1").env("TMPDIR", folder.path()).current_dir(folder.path());
    command.uid(NOBODY).gid(NOBODY);
    let output = loop {
        match command.output() {
            // A process that was forked meanwhile may hold the copy open for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            output => break output.unwrap(),
        }
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(unix)]
#[test]
fn what_may_not_be_read_or_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(file.path()).is_ok() {
        as_nobody("broken::what_may_not_be_read_or_written_is_named");
    } else {
        runtime().block_on(assert_denied());
    }
}

#[cfg(unix)]
async fn assert_denied() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let table = Table { format: Format::Csv, ..bars() };
    let file = world.write("bars/a.csv", "symbol,ts\nA,2018-04-04T00:00:00Z\n");
    let allow = |path: &std::path::Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(&file, 0o000);
    for error in errors(&world, &table).await {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.full().contains(file.to_str().unwrap()), "{error}");
    }
    allow(&file, 0o644);
    allow(&world.root().join("bars"), 0o000);
    for error in errors(&world, &table).await {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.full().contains(world.root().join("bars").to_str().unwrap()), "{error}");
    }
    allow(&world.root().join("bars"), 0o755);
    allow(world.root(), 0o555);
    let error = world.lake.check_writable().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.full().contains(world.root().to_str().unwrap()), "{error}");
    allow(world.root(), 0o755);
    // A journal in a folder that may only be read is read, with what is still in its log.
    let folder = world.root().join("journal");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("runs.db");
    let open = SqliteJournal::open(&path).unwrap();
    let at = "2024-03-04T00:00:00Z".parse().unwrap();
    let entered = |step: &str| Event::StepEntered { step: step.to_owned(), visit: 1 };
    open.append("run", 0, at, &[entered("a")]).await.unwrap();
    drop(open);
    let open = SqliteJournal::open(&path).unwrap();
    open.append("run", 1, at, &[entered("b")]).await.unwrap();
    let killed = world.root().join("killed");
    std::fs::create_dir(&killed).unwrap();
    for name in ["runs.db", "runs.db-wal"] {
        std::fs::copy(folder.join(name), killed.join(name)).unwrap();
        allow(&killed.join(name), 0o444);
    }
    allow(&killed, 0o555);
    let read = SqliteJournal::open_to_read(killed.join("runs.db")).unwrap();
    for _ in 0..3 {
        let events = read.read("run", 0, 10).await.unwrap();
        assert_eq!(events.into_iter().map(|recorded| recorded.event).collect::<Vec<_>>(), [entered("a"), entered("b")]);
    }
    assert_eq!(read.path(), killed.join("runs.db"));
    allow(&killed, 0o755);
}

#[tokio::test]
async fn a_value_that_does_not_fit_the_first_rows_is_named_with_its_line() {
    let world = World::new();
    let line = |minute: i64, close: &str| format!("A,{},{close}\n", jiff::Timestamp::from_second(minute * 60).unwrap());
    let lines: String = (0..60_000).map(|minute| line(minute, if minute == 59_000 { "1.5" } else { "1" })).collect();
    world.write("bars/a.csv", format!("symbol,ts,close\n{lines}"));
    let table = Table { format: Format::Csv, ..bars() };
    let error = collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap_err();
    assert!(error.full().contains("line 59002: `1.5` in column `close` is not a whole number"), "{}", error.full());
    // Columns that are not needed are not looked at.
    let request = all(Layer::Raw).with_columns(vec![]);
    assert!(collect(world.lake.scan(&table, &request).await.unwrap()).await.is_ok());
    // In JSON, no part of a number is cut off silently either.
    let world = World::new();
    let line = |minute: i64, close: &str| {
        format!("{{\"symbol\": \"A\", \"ts\": \"{}\", \"close\": {close}}}\n", jiff::Timestamp::from_second(minute * 60).unwrap())
    };
    let lines: String = (0..60_000).map(|minute| line(minute, if minute == 59_000 { "1.5" } else { "1" })).collect();
    world.write("bars/a.jsonl", lines);
    let table = Table { format: Format::Jsonl, ..bars() };
    let error = collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap_err();
    assert!(error.full().contains("line 59001: `1.5` in column `close` is not a whole number"), "{}", error.full());
}

#[tokio::test]
async fn a_last_line_that_may_be_cut_off_is_not_read_where_each_must_end() {
    let lines = |last: &str| format!("symbol,ts,close\nA,2018-04-04T00:00:00Z,12.53\nA,2018-04-04T00:01:00Z,{last}");
    let mut table = Table { format: Format::Csv, ..bars() };
    let closes = async |world: &World, table: &Table| {
        let rows = collect(world.lake.scan(table, &all(Layer::Raw)).await?).await?;
        Ok::<_, Error>(rows.iter().map(RecordBatch::num_rows).sum::<usize>())
    };
    for (name, bytes) in [("cut.csv", lines("12.5").into_bytes()), ("cut.csv.gz", testdata::gzip(lines("12.5").as_bytes()))] {
        let world = World::new();
        world.write(&format!("bars/{name}"), bytes);
        assert_eq!(closes(&world, &table).await.unwrap(), 2, "a file need not end with a line break");
        table.csv.final_newline = true;
        let words = ["line 3: the file ends without a line break, so its last line may be cut off", "restore the file"];
        assert_invalid(&world, &table, &format!("bars/{name}"), &words).await;
        table.on_bad_row = OnBadRow::Quarantine(BadRowLimit::Rows(1));
        assert_eq!(closes(&world, &table).await.unwrap(), 1);
        table = Table { format: Format::Csv, ..bars() };
    }
    table.csv.final_newline = true;
    let world = World::new();
    for (file, end) in [("a", "\n"), ("b", "\r\n"), ("c", "\n\n")] {
        world.write(&format!("bars/{file}.csv"), lines(&format!("12.5{end}")));
    }
    assert_eq!(closes(&world, &table).await.unwrap(), 6);
    // Where batches and buffers end makes no difference.
    for rows in [8_191, 8_192, 8_193] {
        let world = World::new();
        let minute = |row: i64| jiff::Timestamp::from_second(row * 60).unwrap();
        let text: String = (0..rows).map(|row| format!("A,{},{row}\n", minute(row))).collect();
        world.write("bars/a.csv", format!("symbol,ts,close\n{text}"));
        assert_eq!(closes(&world, &table).await.unwrap(), usize::try_from(rows).unwrap());
        world.write("bars/a.csv", format!("symbol,ts,close\n{}", text.trim_end()));
        assert!(closes(&world, &table).await.is_err());
    }
}

#[tokio::test]
async fn a_folder_that_is_no_partition_is_named() {
    let world = World::new();
    let table = Table { partition_by: by(PartitionUnit::Day), ..bars() };
    write_table(world.root(), &bars(), &[row("A", "2018-04-04T00:00:00Z", 1.0)], 1, &Stored::default());
    std::fs::create_dir(world.root().join("bars/date=2018-4-4")).unwrap();
    std::fs::rename(world.root().join("bars/0.parquet"), world.root().join("bars/date=2018-4-4/0.parquet")).unwrap();
    let words = ["`date=2018-4-4` is not a partition of table `bars`", "such as `date=2018-04-04`"];
    assert_invalid(&world, &table, "bars/date=2018-4-4/0.parquet", &words).await;
    assert!(world.lake.describe(&table).await.is_err());
}

#[tokio::test]
async fn columns_that_do_not_go_together_are_named() {
    let world = World::new();
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]));
    for (file, close) in [("a", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef), ("b", symbol())] {
        let batch = RecordBatch::try_from_iter([("symbol", symbol()), ("ts", ts.clone()), ("close", close)]).unwrap();
        write_parquet(&world.root().join(format!("bars/{file}.parquet")), &batch, 10);
    }
    // Only who asks for the column is refused.
    world.lake.presence(&bars(), &whole(&bars(), "1970-01-01", "1970-01-01", &["A"])).await.unwrap();
    let request = all(Layer::Raw).with_columns(vec!["close".to_owned()]);
    let error = world.lake.scan(&bars(), &request).await.err().unwrap().full();
    for word in ["close", "Float64", "Utf8", "a.parquet", "b.parquet"] {
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn columns_named_like_ours_are_refused_where_they_would_meet() {
    let world = World::new();
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]));
    let batch = RecordBatch::try_from_iter([("symbol", symbol()), ("ts", ts), ("repaired_by", symbol())]).unwrap();
    write_parquet(&world.root().join("bars/a.parquet"), &batch, 10);
    let error = world.lake.scan(&bars(), &all(Layer::Repaired)).await.err().unwrap();
    assert!(error.message().contains("has a column `repaired_by`"), "{error}");
    assert!(world.lake.scan(&bars(), &all(Layer::Raw)).await.is_ok());
}

#[test]
fn a_root_that_is_not_there_is_named_whole() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("lake");
    let error = LocalLake::open(&missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.message(), format!("no folder {} for the lake; create it or correct the lake's `root`", missing.display()));
    std::fs::write(&missing, "").unwrap();
    assert_eq!(LocalLake::open(&missing).unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_lake_without_an_engine_for_sql_says_so() {
    let error = World::new().lake.query(&repair_core::lake::Query::new(&[bars()], "SELECT 1")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(matches!(error.remedy(), Some(repair_core::Hint::Feature { name: "sql" })), "{error}");
}
