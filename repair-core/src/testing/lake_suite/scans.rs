//! What tables hold, and what scans and rollups bring.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use arrow::util::display::array_value_to_string;

use super::LakeSetup;
use super::tables::*;
use crate::error::ErrorKind;
use crate::lake::rollup::{BUCKET, DUPLICATES, Function, Measure, OBSERVED, REPAIRED, Rollup, by_scan};
use crate::lake::{Lake, Layer, PresenceRequest, ReadLake, ScanRequest, StageRequest, overlay};
use crate::model::{Cadence, Fix, Interval, Key, SlotRange, Table};

/// A table's columns have the lake's shape: keys as UTF-8, the time as microseconds in UTC, all others as they are.
pub async fn a_table_describes_its_columns_in_shape(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.5, 2)]).await;
    let schema = lake.describe(&table).await.unwrap();
    let mut columns: Vec<(&str, &DataType)> = schema.fields().iter().map(|field| (field.name().as_str(), field.data_type())).collect();
    columns.sort_by_key(|(name, _)| *name);
    let time = overlay::instant_type();
    assert_eq!(columns, [("price", &DataType::Float64), ("symbol", &DataType::Utf8), ("ts", &time), ("volume", &DataType::Int64)]);
    for (layer, more) in [(Layer::Raw, &[][..]), (Layer::Repaired, &[overlay::REPAIRED_BY, overlay::REPAIRED_CELLS])] {
        for batch in collect(lake.scan(&table, &everything(layer)).await.unwrap()).await {
            let scanned = batch.schema();
            let names: Vec<&str> = scanned.fields().iter().map(|field| field.name().as_str()).collect();
            let described = schema.fields().iter().map(|field| field.name().as_str()).chain(more.iter().copied());
            assert_eq!(names, described.collect::<Vec<_>>(), "a scan has the columns that describe returns");
        }
    }
    for odd in [Table { time: "when".to_owned(), ..table.clone() }, Table { key: vec!["ticker".to_owned()], ..table.clone() }] {
        assert_eq!(lake.describe(&odd).await.unwrap_err().kind(), ErrorKind::Invalid, "a column is missing");
    }
    let unusable = Table { time: "price".to_owned(), ..table };
    assert_eq!(lake.describe(&unusable).await.unwrap_err().kind(), ErrorKind::Invalid, "a number is no time");
}

/// A missing table, unit or artifact is `not-found` for every method; the list of staged units is then empty.
pub async fn what_is_not_there_is_not_found(lake: &dyn Lake) {
    let (table, run) = (new_table(), new_run());
    let request = PresenceRequest::new(SlotRange::new(0, 1), keys(&["A"]), at("2024-04-01T00:00:00Z"));
    assert_eq!(lake.describe(&table).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(lake.presence(&table, &request).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(lake.scan(&table, &everything(Layer::Raw)).await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(lake.scan(&table, &everything(Layer::Repaired)).await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(lake.get_artifact(&run, "gaps").await.err().unwrap().kind(), ErrorKind::NotFound);
    let scope = scope(&table, &run);
    assert!(lake.staged(&scope).await.unwrap().is_empty());
    assert_eq!(lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap_err().kind(), ErrorKind::NotFound);
    lake.discard_staged(&scope, &["unit".to_owned()]).await.unwrap();
}

/// A lake that a suite runs against can be written to, and the check may be repeated.
pub async fn to_ask_whether_it_may_be_written_is_no_error(lake: &dyn Lake) {
    lake.check_writable().await.unwrap();
    lake.check_writable().await.unwrap();
}

/// A scan returns exactly the requested rows and columns.
pub async fn scans_bring_what_was_asked_for(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let mut rows = Vec::new();
    for day in ["2024-03-04", "2024-03-05", "2024-03-06"] {
        for time in ["00:00:00", "09:30:00", "09:30:00.5", "23:59:00"] {
            for key in ["A", "B", "é \"quoted\", a/b"] {
                rows.push(row(key, &format!("{day}T{time}Z"), 0.1 + 0.2, 1));
            }
        }
    }
    rows.push(Row { price: None, volume: None, ..rows[0].clone() });
    let table = table_with(setup, &rows).await;
    let wanted = |layer: Layer, interval: Option<&Interval>, keys: Option<&[Key]>| -> Vec<Row> {
        let slots = interval.map(|interval| table.grid().unwrap().slots_in(interval));
        // What belongs to no slot is in the table, and not in the series that its repairs complete.
        let keep = |row: &&Row| {
            (layer == Layer::Raw || row.time_us % 60_000_000 == 0)
                && slots.is_none_or(|slots| slots.contains(row.time_us.div_euclid(60_000_000)))
                && keys.is_none_or(|keys| keys.contains(&row.key))
        };
        rows.iter().filter(keep).cloned().collect()
    };
    let intervals =
        [("2024-03-05", "2024-03-05"), ("2024-03-04T09:30:00Z", "2024-03-05T09:30:00Z"), ("2024-03-04T09:30:01Z", "2024-03-04T23:59:00Z")];
    let intervals = intervals.map(|(from, to)| Some(Interval::parse(from, to).unwrap()));
    let some_keys = [None, Some(keys(&["A"])), Some(keys(&["é \"quoted\", a/b", "B", "no such"])), Some(Vec::new())];
    for layer in [Layer::Raw, Layer::Repaired] {
        for interval in intervals.iter().chain([&None]) {
            for keys in &some_keys {
                let request = ScanRequest::new(layer).in_interval(*interval).of_keys(keys.clone());
                let found = seen(&table, &collect(lake.scan(&table, &request).await.unwrap()).await);
                assert_eq!(found, own(&wanted(layer, interval.as_ref(), keys.as_deref())), "{request:?}");
            }
        }
    }
    for columns in [vec![], vec!["volume"], vec!["volume", "ts"]] {
        let columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
        let request = everything(Layer::Repaired).with_columns(columns.clone());
        let batches = collect(lake.scan(&table, &request).await.unwrap()).await;
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), wanted(Layer::Repaired, None, None).len());
        for batch in &batches {
            let names = ["symbol", "ts", "price", "volume", overlay::REPAIRED_BY, overlay::REPAIRED_CELLS]
                .map(|name| batch.column_by_name(name).is_some());
            assert_eq!(names, [true, true, false, columns.contains(&"volume".to_owned()), true, true], "{columns:?}");
        }
    }
}

/// Some engines keep names in lower case, so a column is found in any case, and a batch has the name that was requested.
pub async fn a_column_is_found_in_any_case(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.5, 2)]).await;
    let fixed = batch(&table, &[row("A", "2024-03-04T09:01:00Z", 2.5, 3)]);
    let schema = fixed.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str()).map(|name| if name == "price" { "Price" } else { name });
    let fixed = RecordBatch::try_from_iter(names.zip(fixed.columns().iter().cloned())).unwrap();
    let (run, fix) = (new_run(), Fix { rows: vec![fixed], source: "vendor".to_owned(), ..Fix::default() });
    let scope = scope(&table, &run);
    lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    for (layer, total) in [(Layer::Raw, 1.5), (Layer::Repaired, 4.0)] {
        let batches = collect(lake.scan(&table, &everything(layer).with_columns(vec!["PRICE".to_owned()])).await.unwrap()).await;
        let prices =
            |batch: &RecordBatch| batch.column_by_name("PRICE").unwrap().as_primitive::<Float64Type>().values().iter().sum::<f64>();
        assert_eq!(batches.iter().map(prices).sum::<f64>(), total, "{layer:?}");
        assert!(batches.iter().all(|batch| batch.column_by_name("price").is_none() && batch.column_by_name("symbol").is_some()));
    }
    let twice = everything(Layer::Raw).with_columns(vec!["Price".to_owned(), "price".to_owned()]);
    assert_eq!(lake.scan(&table, &twice).await.err().unwrap().kind(), ErrorKind::Invalid, "one column by two names");
}

/// A column that the table lacks, or a key with the wrong number of values, is `invalid`, since it would silently match nothing.
pub async fn a_scan_of_what_the_table_lacks_is_invalid(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.5, 2)]).await;
    let odd_column = everything(Layer::Raw).with_columns(vec!["prise".to_owned()]);
    assert_eq!(lake.scan(&table, &odd_column).await.err().unwrap().kind(), ErrorKind::Invalid);
    let odd_key = Key::new(["A", "B"]);
    let odd = everything(Layer::Raw).of_keys(vec![odd_key.clone()]);
    assert_eq!(lake.scan(&table, &odd).await.err().unwrap().kind(), ErrorKind::Invalid);
    let odd = PresenceRequest::new(slots(&table, "2024-03-04", "2024-03-04"), vec![odd_key], at("2024-04-01T00:00:00Z"));
    assert_eq!(lake.presence(&table, &odd).await.unwrap_err().kind(), ErrorKind::Invalid);
    let timeless = Table { cadence: None, ..table };
    let request = PresenceRequest { keys: keys(&["A"]), ..odd };
    assert_eq!(lake.presence(&timeless, &request).await.unwrap_err().kind(), ErrorKind::Invalid, "it has no slots");
}

/// A rollup is what a person would compute by hand: over the repaired view, each slot once, in order of time.
pub async fn a_rollup_is_what_a_person_would_compute(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let rows = [
        // Out of order, as rows come from several files.
        row("A", "2024-03-04T09:02:00Z", 4.0, 5),
        row("A", "2024-03-04T09:00:00Z", 2.0, 7),
        // One slot twice: the row with the smaller value counts.
        row("A", "2024-03-04T09:00:00Z", 3.0, 1_000),
        Row { price: None, ..row("A", "2024-03-04T09:58:00Z", 0.0, 1) },
        row("A", "2024-03-04T10:00:00Z", 9.0, 9),
        row("B", "2024-03-04T09:30:00Z", 1.0, 1),
        row("C", "2024-03-04T09:30:00Z", 1.0, 1),
        // Outside the interval.
        row("A", "2024-03-04T08:59:00Z", 100.0, 100),
        row("A", "2024-03-04T11:00:00Z", 100.0, 100),
    ];
    let table = table_with(setup, &rows).await;
    // The first fills a slot; the second comes too late, since raw has the row.
    let fixed = [row("A", "2024-03-04T09:01:00Z", 0.5, 20), row("A", "2024-03-04T09:02:00Z", 77.0, 77)];
    repair(lake, &table, "backfill", "2024-04-01T00:00:00Z", &fix(&table, &fixed, Vec::new())).await;
    let measure = |name: &str, column: &str, function| Measure { name: name.to_owned(), column: column.to_owned(), function };
    let rollup = Rollup {
        interval: Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T11:00:00Z").unwrap(),
        within: Vec::new(),
        keys: keys(&["B", "A", "none"]),
        every: Cadence::HOUR,
        measures: vec![
            measure("open", "price", Function::First),
            measure("close", "price", Function::Last),
            measure("low", "price", Function::Min),
            measure("high", "price", Function::Max),
            measure("volume", "volume", Function::Sum),
        ],
        absent_as_of: None,
    };
    let (batches, _) = lake.rollup(&table, &rollup).await.unwrap();
    let mut found = Vec::new();
    for batch in &batches {
        let number = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().clone();
        let count = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<UInt64Type>().clone();
        for row in 0..batch.num_rows() {
            let bucket = batch.column_by_name(BUCKET).unwrap().as_primitive::<TimestampMicrosecondType>().value(row);
            found.push((
                batch.column_by_name("symbol").unwrap().as_string::<i32>().value(row).to_owned(),
                jiff::Timestamp::from_microsecond(bucket).unwrap().to_string(),
                ["open", "close", "low", "high"].map(|name| number(name).value(row)),
                batch.column_by_name("volume").unwrap().as_primitive::<Int64Type>().value(row),
                [OBSERVED, REPAIRED, DUPLICATES].map(|name| count(name).value(row)),
            ));
        }
    }
    found.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let nine = "2024-03-04T09:00:00Z".to_owned();
    let expected = [
        ("A".to_owned(), nine.clone(), [2.0, 4.0, 0.5, 4.0], 7 + 20 + 5 + 1, [3, 1, 1]),
        ("A".to_owned(), "2024-03-04T10:00:00Z".to_owned(), [9.0; 4], 9, [1, 0, 0]),
        ("B".to_owned(), nine, [1.0; 4], 1, [1, 0, 0]),
    ];
    assert_eq!(found, expected);
    let only = Rollup { within: vec![Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T09:02:00Z").unwrap()], ..rollup };
    let (batches, _) = lake.rollup(&table, &only).await.unwrap();
    let volumes: Vec<i64> =
        batches.iter().flat_map(|batch| batch.column_by_name("volume").unwrap().as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(volumes, [27], "only the slots that are expected");
    assert!(batches.iter().all(|batch| batch.column_by_name("volume").unwrap().null_count() == 0));
}

/// What a rollup counts as absent: expected slots without a row that are confirmed absent, as long as the evidence has not expired. A bucket that
/// holds nothing else is in the result, too.
pub async fn a_rollup_counts_what_is_absent(lake: &dyn Lake, setup: &dyn LakeSetup) {
    let table = table_with(setup, &[row("A", "2024-03-04T09:00:00Z", 1.0, 1), row("B", "2024-03-04T11:30:00Z", 2.0, 2)]).await;
    let first = slots(&table, "2024-03-04T09:00:00Z", "2024-03-04T12:00:00Z").first;
    let minutes = |from: i64, to: i64| SlotRange::new(first + from, first + to);
    // The first is there after all; the last are of a key and an hour that nobody asks for.
    let absent = vec![
        absence("A", minutes(0, 2), "2024-06-01T00:00:00Z"),
        absence("A", minutes(5, 6), "2024-05-01T00:00:00Z"),
        absence("A", minutes(60, 62), "2024-06-01T00:00:00Z"),
        absence("C", minutes(0, 9), "2024-06-01T00:00:00Z"),
        absence("A", minutes(180, 181), "2024-06-01T00:00:00Z"),
    ];
    let filled = fix(&table, &[row("A", "2024-03-04T09:02:00Z", 3.0, 3)], absent);
    repair(lake, &table, "backfill", "2024-04-01T00:00:00Z", &filled).await;
    for (as_of, of_nine) in [("2024-04-02T00:00:00Z", 2), ("2024-05-01T00:00:00Z", 1)] {
        let rollup = Rollup {
            interval: Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T12:00:00Z").unwrap(),
            within: vec![
                Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T10:01:00Z").unwrap(),
                Interval::parse("2024-03-04T11:00:00Z", "2024-03-04T12:00:00Z").unwrap(),
            ],
            keys: keys(&["A", "B", "none"]),
            every: Cadence::HOUR,
            measures: vec![Measure { name: "sum".to_owned(), column: "volume".to_owned(), function: Function::Sum }],
            absent_as_of: Some(at(as_of)),
        };
        let found = rolled(&lake.rollup(&table, &rollup).await.unwrap().0);
        let expected = [
            format!("A 2024-03-04T09:00:00Z 4 1 1 0 {of_nine}"),
            "A 2024-03-04T10:00:00Z - 0 0 0 1".to_owned(),
            "B 2024-03-04T11:00:00Z 2 1 0 0 0".to_owned(),
        ];
        assert_eq!(found, expected, "as of {as_of}");
        assert_rollup_is_that_of_a_scan(lake, &table, &rollup, as_of).await;
    }
}

/// The rows of a rollup in order, with floats to the last bit.
fn rolled(batches: &[RecordBatch]) -> Vec<String> {
    let mut all = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let text = |column: &ArrayRef| match column.data_type() {
                _ if column.is_null(row) => "-".to_owned(),
                DataType::Float64 => match column.as_primitive::<Float64Type>().value(row) {
                    number if number.is_nan() => "NaN".to_owned(),
                    number => format!("{number:?} ({:x})", number.to_bits()),
                },
                _ => array_value_to_string(column, row).unwrap(),
            };
            all.push(batch.columns().iter().map(text).collect::<Vec<_>>().join(" "));
        }
    }
    all.sort_unstable();
    all
}

/// A lake's rollup is that of [`rollup::by_scan`](crate::lake::rollup::by_scan), to the last bit, or both fail.
pub async fn assert_rollup_is_that_of_a_scan(lake: &dyn ReadLake, table: &Table, request: &Rollup, what: &str) {
    let expected = by_scan(lake, table, request).await;
    match (lake.rollup(table, request).await, expected) {
        (Ok((found, _)), Ok((expected, _))) => {
            assert_eq!(rolled(&found), rolled(&expected), "{what}");
            assert!(found.iter().zip(&expected).all(|(one, other)| one.schema() == other.schema()), "{what}");
        }
        (Err(found), Err(expected)) => assert_eq!(found.kind(), expected.kind(), "{what}: {found}, {expected}"),
        (found, expected) => panic!("{what}: {found:?}, {expected:?}"),
    }
}
