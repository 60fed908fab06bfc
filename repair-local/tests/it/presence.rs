//! Presence is what a slow count of all rows is, whatever the format, the layout and the types.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use crate::common::*;
use futures::TryStreamExt;
use proptest::prelude::*;
use repair_core::ErrorKind;
use repair_core::lake::{PresenceRequest, ReadLake};
use repair_core::model::{Cadence, Format, Key, PartitionUnit, SlotRange, Table, TablePresence, TimeMark, Usage};
use repair_core::testing::lake_suite::assert_same_in_pieces;

#[derive(Debug, Clone)]
struct Case {
    rows: Vec<Row>,
    table: Table,
    files: usize,
    stored: Stored,
    slots: SlotRange,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let base = us("2018-04-03T20:00:00Z");
    let time = prop_oneof![
        8 => (0i64..600).prop_map(|half_minutes| half_minutes * 30_000_000),
        1 => (0i64..18_000_000_000).prop_map(|micros| micros),
        // The seams between days, in both directions.
        1 => prop_oneof![Just(14_400_000_000i64), Just(14_399_999_999), Just(14_400_000_001), Just(14_370_000_000)],
    ];
    let symbol = prop_oneof![Just("A"), Just("BB"), Just("00123"), Just("Ω"), Just("other")];
    let one = (symbol, time, proptest::option::of(-1e6f64..1e6)).prop_map(move |(symbol, time, close)| Row {
        symbol: symbol.into(),
        time_us: base + time,
        close,
    });
    (proptest::collection::vec(one, 0..300), any::<bool>()).prop_map(|(mut rows, sorted)| {
        if sorted {
            rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        }
        rows
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let marks = prop_oneof![Just(TimeMark::Start), Just(TimeMark::End)];
    let unit = prop_oneof![Just(None), Just(Some(PartitionUnit::Day)), Just(Some(PartitionUnit::Hour)), Just(Some(PartitionUnit::Month))];
    let cadence = prop_oneof![Just(60u32), Just(300), Just(3_600), Just(86_400)];
    let stored = (proptest::sample::select(stored_keys()), proptest::sample::select(stored_times()), 1usize..400)
        .prop_map(|(key, time, row_group)| Stored { key, time, row_group });
    (rows(), marks, unit, cadence, 1usize..5, stored, 0i64..300, 1i64..400).prop_map(
        |(rows, marks, unit, cadence, files, stored, first, length)| {
            let cadence = Cadence::from_seconds(cadence).unwrap();
            let table = Table { time_marks: marks, cadence: Some(cadence), partition_by: unit.map(by).unwrap_or_default(), ..bars() };
            let first = (us("2018-04-03T20:00:00Z") / 1_000_000 + first * 60).div_euclid(i64::from(cadence.seconds()));
            Case { rows, table, files, stored, slots: SlotRange::new(first, first + length) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn presence_is_what_a_slow_count_says_in_every_format(case in cases()) {
        let wanted = keys(&["00123", "A", "BB", "nothing", "Ω"]);
        let expected = as_presence(&case.table, &count(&case.table, &case.rows, case.slots, &wanted), case.slots, &wanted);
        for format in [Format::Parquet, Format::Csv, Format::Jsonl] {
            let world = World::new();
            let table = Table { format, ..case.table.clone() };
            write_table(world.root(), &table, &case.rows, case.files, &case.stored);
            let request = PresenceRequest::new(case.slots, wanted.clone(), at("2030-01-01T00:00:00Z"));
            let presence = runtime().block_on(world.lake.presence(&table, &request)).unwrap();
            prop_assert_eq!(counted(&presence.raw), expected.clone(), "{:?}", format);
            runtime().block_on(assert_same_in_pieces(&world.lake, &table, &request, &presence, &format!("{format:?}")));
            prop_assert!(presence.repaired.len() == wanted.len() && presence.repaired.values().all(|slots| slots.is_empty()));
        }
    }

    #[test]
    fn a_key_of_several_columns_is_counted_by_all_of_them(pairs in proptest::collection::vec((0u8..4, 0u8..3, 0i64..50), 0..200), ints in any::<bool>()) {
        use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
        use std::sync::Arc;
        let world = World::new();
        let table = Table { key: vec!["venue".into(), "symbol".into(), "desk".into()], ..bars() };
        let venue: ArrayRef = if ints {
            Arc::new(Int64Array::from_iter_values(pairs.iter().map(|(venue, ..)| i64::from(*venue))))
        } else {
            Arc::new(StringArray::from_iter_values(pairs.iter().map(|(venue, ..)| venue.to_string())))
        };
        let symbol: ArrayRef = Arc::new(StringArray::from_iter_values(pairs.iter().map(|(_, symbol, _)| format!("S{symbol}"))));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(pairs.iter().map(|(.., slot)| slot * 60_000)));
        let batch = RecordBatch::try_from_iter([("venue", venue), ("symbol", symbol), ("ts", times)]).unwrap();
        // The third column of the key is only in the path.
        write_parquet(&world.root().join("bars/desk=nord%2Fost/a.parquet"), &batch, 50);
        let wanted: Vec<Key> = (0..4).flat_map(|venue| (0..2).map(move |symbol| Key::new([venue.to_string(), format!("S{symbol}"), "nord/ost".into()]))).collect();
        let request = PresenceRequest::new(SlotRange::new(0, 40), wanted.clone(), at("2030-01-01T00:00:00Z"));
        let raw = runtime().block_on(world.lake.presence(&table, &request)).unwrap().raw;
        for (key, one) in &raw.keys {
            let values: Vec<&str> = key.values().collect();
            let mine = |(venue, symbol, _): &&(u8, u8, i64)| values[0] == venue.to_string() && values[1] == format!("S{symbol}");
            let slots: std::collections::BTreeSet<i64> = pairs.iter().filter(mine).map(|(.., slot)| *slot).filter(|slot| *slot < 40).collect();
            prop_assert_eq!(one.present.iter().collect::<std::collections::BTreeSet<_>>(), slots);
        }
        prop_assert_eq!(raw.other_rows, pairs.iter().filter(|(_, symbol, slot)| *symbol == 2 && *slot < 40).count() as u64);
    }
}

#[tokio::test]
async fn only_key_and_time_of_needed_partitions_are_read() {
    let world = World::new();
    let table = Table { partition_by: by(PartitionUnit::Day), ..bars() };
    let rows: Vec<Row> = (0..3 * 1_440)
        .map(|minute| Row { symbol: "A".into(), time_us: us("2018-04-03T00:00:00Z") + minute * 60_000_000, close: Some(minute as f64) })
        .collect();
    write_table(world.root(), &table, &rows, 1, &Stored::default());
    let one = world.lake.presence(&table, &whole(&table, "2018-04-04", "2018-04-04", &["A"])).await.unwrap();
    let all = world.lake.presence(&table, &whole(&table, "2018-04-03", "2018-04-05", &["A"])).await.unwrap();
    assert_eq!((one.usage.rows_read, all.usage.rows_read), (1_440, 4_320));
    assert_eq!(one.raw.keys[&Key::from("A")].present.count(), 1_440);
    let bytes: u64 =
        std::fs::read_dir(world.root().join("bars/date=2018-04-04")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    // In pieces of six hours, each file is read once. Without folders, it is known from the statistics of its row groups when they are needed.
    let flat = Table { name: "flat".into(), location: "flat".into(), partition_by: Vec::new(), ..table.clone() };
    write_table(world.root(), &flat, &rows, 1, &Stored { row_group: 100, ..Stored::default() });
    for table in [&table, &flat] {
        let request = whole(table, "2018-04-03", "2018-04-05", &["A"]);
        let pieces: Vec<SlotRange> =
            (0..12).map(|at| request.slots.first + at * 360).map(|first| SlotRange::new(first, first + 360)).collect();
        let presences: Vec<TablePresence> = world.lake.presence_in_pieces(table, &request, &pieces).try_collect().await.unwrap();
        let usage: Usage = presences.iter().map(|presence| presence.usage).sum();
        assert_eq!((presences.len(), usage.rows_read), (12, 4_320), "{}", table.name);
        let read_at_first = presences[0].usage.rows_read;
        assert!(read_at_first < 4_320, "{}: {read_at_first} rows are read before the first piece is there", table.name);
    }
    assert!(one.usage.bytes_scanned > 0 && one.usage.bytes_scanned < bytes, "{} of {bytes}", one.usage.bytes_scanned);
}

#[tokio::test]
async fn a_table_without_key_columns_is_one_series() {
    let world = World::new();
    let table = Table { key: vec![], format: Format::Csv, ..bars() };
    world.write("bars/a.csv", "ts,kw\n2018-04-04T00:00:00Z,1\n2018-04-04T00:00:30Z,2\n2018-04-04T00:02:00Z,3\n");
    let presence = world.lake.presence(&table, &whole(&table, "2018-04-04", "2018-04-04", &[])).await.unwrap();
    let one = &presence.raw.keys[&Key::default()];
    assert_eq!((one.present.count(), one.duplicates(), presence.raw.misaligned_rows), (2, 0, 1));
}

#[tokio::test]
async fn an_empty_folder_holds_nothing_and_a_missing_one_is_an_error() {
    let world = World::new();
    let table = bars();
    let request = whole(&table, "2018-04-04", "2018-04-04", &["A"]);
    let error = world.lake.presence(&table, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let expected = format!("no folder {}; create it or correct `location` of table `bars`", world.root().join("bars").display());
    assert_eq!(error.message(), expected);
    // What is being written, or is of another format, is not read.
    for name in ["bars/_temporary/x.parquet", "bars/.writing.parquet", "bars/_SUCCESS", "bars/.x.parquet.crc"] {
        world.write(name, "nonsense");
    }
    let presence = world.lake.presence(&table, &request).await.unwrap();
    assert!(presence.raw.keys[&Key::from("A")].present.is_empty());
    let error = world.lake.describe(&table).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("holds no .parquet files"), "{error}");
    // What may be data, and is not named like it, is not left out without a word.
    for name in ["readme.txt", "x.csv.gz", "x.parquet.bak"] {
        let path = world.write(&format!("bars/{name}"), "nonsense");
        let error = world.lake.presence(&table, &request).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Blind && error.message().contains(name), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn repairs_count_while_they_live_and_absences_until_they_expire() {
    let world = World::new();
    let table = Table { partition_by: by(PartitionUnit::Day), ..bars() };
    write_table(world.root(), &table, &[row("A", "2018-04-04T00:00:00Z", 1.0)], 1, &Stored::default());
    let grid = table.grid().unwrap();
    let minute = |minute: i64| grid.slot_of(at("2018-04-04T00:00:00Z")) + minute;
    let absent = vec![
        absence("A", SlotRange::new(minute(5), minute(8)), "2029-01-01T00:00:00Z"),
        absence("A", SlotRange::new(minute(20), minute(22)), "2018-06-01T00:00:00Z"),
        absence("B", SlotRange::new(minute(-2), minute(1)), "2029-01-01T00:00:00Z"),
    ];
    // Minute 0 is there already, so its repair is not shown.
    repair(&world.lake, &table, "run", &[row("A", "2018-04-04T00:00:00Z", 9.0), row("A", "2018-04-04T00:01:00Z", 9.0)], absent).await;
    let mut request = whole(&table, "2018-04-04", "2018-04-04", &["A", "B"]);
    request.as_of = at("2018-05-02T00:00:00Z");
    let slots = |set: &repair_core::model::SlotSet| set.iter().map(|slot| slot - minute(0)).collect::<Vec<_>>();
    let before = world.lake.presence(&table, &request).await.unwrap();
    assert_eq!(slots(&before.repaired[&Key::from("A")]), [1]);
    assert_eq!(slots(&before.absent[&Key::from("A")]), [5, 6, 7, 20, 21]);
    assert_eq!(slots(&before.absent[&Key::from("B")]), [0]);
    // Evidence is good until, not including, the instant it says.
    request.as_of = at("2018-06-01T00:00:00Z");
    let after = world.lake.presence(&table, &request).await.unwrap();
    assert_eq!(slots(&after.absent[&Key::from("A")]), [5, 6, 7]);
    assert_eq!(before.raw, after.raw);
}
