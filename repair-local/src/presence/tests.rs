//! What is known is what another look would find, whatever happens to the files and to what is kept; and what is known is not read.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "a test that fails, panics")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use repair_core::lake::PresenceRequest;
use repair_core::model::{
    BadRowLimit, Cadence, Format, Key, OnBadRow, PartitionUnit, Slack, SlotRange, Table, TablePresence, TimeMark, Usage, Zone,
};
use tempfile::TempDir;

use super::in_pieces;
use crate::disk::{Act, Watch};
use crate::files;
use crate::kept::Kept;
use crate::lake::Inner;
use crate::place::Place;
use crate::scan;
use crate::stamp::Stamp;

/// The first instant of most rows: two hours before a day begins.
const BASE_US: i64 = 1_522_792_800_000_000;
const MINUTE_US: i64 = 60_000_000;

#[derive(Debug, Clone, PartialEq)]
struct Row {
    symbol: &'static str,
    /// Microseconds after [`BASE_US`].
    after_us: i64,
    close: f64,
}

impl Row {
    fn time(&self) -> Timestamp {
        Timestamp::from_microsecond(BASE_US + self.after_us).unwrap()
    }
}

/// A lake whose files count as settled as soon as they are written, so that no test need wait.
fn lake(root: &Path) -> Inner {
    let mut lake = Inner::new(root.to_owned());
    lake.settles = Duration::ZERO;
    lake
}

fn root() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir_all(root.join(".repair")).unwrap();
    (folder, root)
}

fn bars(format: Format) -> Table {
    Table::new("bars", format, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE).with_partition("date", PartitionUnit::Day)
}

fn bytes_of(format: Format, rows: &[Row], row_group: usize, with_more: bool) -> Vec<u8> {
    match format {
        Format::Parquet => {
            let symbols: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.symbol)));
            let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| BASE_US + row.after_us));
            let closes: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.close)));
            let mut columns =
                vec![("symbol", symbols), ("ts", Arc::new(times.with_timezone("UTC")) as ArrayRef), ("close", closes.clone())];
            columns.extend(with_more.then_some(("more", closes)));
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let properties = WriterProperties::builder().set_max_row_group_row_count(Some(row_group)).set_dictionary_enabled(false).build();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            bytes
        }
        Format::Csv => {
            let more = if with_more { ",1" } else { "" };
            let line = |row: &Row| match row.symbol {
                // A row that cannot be read, where rows may be bad.
                "bad" => format!("A,nonsense,{}{more}\n", row.close),
                symbol => format!("{symbol},{},{}{more}\n", row.time(), row.close),
            };
            let head = if with_more { "symbol,ts,close,more\n" } else { "symbol,ts,close\n" };
            format!("{head}{}", rows.iter().map(line).collect::<String>()).into_bytes()
        }
        _ => {
            let line = |row: &Row| match row.symbol {
                "bad" => format!("{{\"symbol\": \"A\", \"ts\": \"nonsense\", \"close\": {}}}\n", row.close),
                symbol => format!("{{\"symbol\": \"{symbol}\", \"ts\": \"{}\", \"close\": {}}}\n", row.time(), row.close),
            };
            rows.iter().map(line).collect::<String>().into_bytes()
        }
    }
}

/// Writes a file so that its stamp is another one than before.
fn write(path: &Path, bytes: &[u8], in_place: bool, modified: Option<SystemTime>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let stamp = |path: &Path| fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
    let before = stamp(path);
    loop {
        if in_place && before.is_some() {
            let mut file = File::options().write(true).open(path).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            file.write_all(bytes).unwrap();
        } else {
            let new = path.with_file_name(".new");
            fs::write(&new, bytes).unwrap();
            fs::rename(&new, path).unwrap();
        }
        if let Some(modified) = modified {
            File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        }
        // The clock of the file system has steps.
        if stamp(path) != before {
            return;
        }
    }
}

/// All that a look says, whole or in pieces, and what it used.
fn look(lake: &Inner, table: &Table, request: &PresenceRequest, pieces: &[SlotRange]) -> (Result<Vec<TablePresence>, String>, Usage) {
    let (mut all, mut usage) = (Vec::new(), Usage::default());
    let looked = in_pieces(lake, table, request, pieces, &mut |mut piece| {
        usage += std::mem::take(&mut piece.usage);
        all.push(piece);
        Ok(ControlFlow::Continue(()))
    });
    (looked.map(|()| all).map_err(|error| error.full()), usage)
}

fn packs(root: &Path) -> Vec<PathBuf> {
    let mut packs: Vec<PathBuf> =
        fs::read_dir(root.join(".repair/presence")).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    packs.sort();
    packs
}

#[derive(Debug, Clone)]
enum Event {
    /// Writes a file, in place or under a new number, with a time of its own or that of before.
    Write {
        file: usize,
        rows: Vec<Row>,
        row_group: usize,
        more: bool,
        in_place: bool,
        same_time: bool,
    },
    /// Changes the rows of a file so that its size stays.
    Shift {
        file: usize,
    },
    Delete {
        file: usize,
    },
    /// Damages a pack.
    Damage {
        pack: usize,
        at: u64,
        how: u8,
    },
    Forget,
    Define(Definition),
    Restart,
}

#[derive(Debug, Clone, Copy)]
struct Definition {
    cadence_s: u32,
    by: Option<PartitionUnit>,
    marks: TimeMark,
    quarantine: bool,
    slack: bool,
    zone: bool,
}

impl Definition {
    fn table(self, format: Format) -> Table {
        let mut table = bars(format);
        table.cadence = Some(Cadence::from_seconds(self.cadence_s).unwrap());
        table.partition_by.clear();
        if let Some(unit) = self.by {
            table = table.with_partition("date", unit);
        }
        table.time_marks = self.marks;
        if self.quarantine {
            table.on_bad_row = OnBadRow::Quarantine(BadRowLimit::PerMillion(900_000));
        }
        if self.slack {
            table.slack = Slack::Seconds(90);
        }
        if self.zone {
            table.reading.zone = Some("Europe/Berlin".parse::<Zone>().unwrap());
        }
        table
    }
}

#[derive(Debug, Clone)]
struct Looked {
    first: i64,
    length: i64,
    keys: Vec<&'static str>,
    cuts: Vec<u8>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let symbol = prop_oneof![6 => Just("A"), 4 => Just("BB"), 3 => Just("other"), 1 => Just("Ω"), 1 => Just("bad")];
    let time = prop_oneof![
        10 => (0i64..240).prop_map(|minute| minute * MINUTE_US),
        2 => (0i64..20_000_000_000).prop_map(|us| us),
        // Days away from its folder, and the seams between days.
        1 => (-4i64..5).prop_map(|day| day * 1_440 * MINUTE_US),
        1 => prop_oneof![Just(7_200_000_000i64), Just(7_199_999_999), Just(7_260_000_000)],
    ];
    let one = (symbol, time, 0u32..1_000).prop_map(|(symbol, after_us, close)| Row { symbol, after_us, close: f64::from(close) / 8.0 });
    (proptest::collection::vec(one, 0..80), 0u8..4).prop_map(|(mut rows, order)| {
        match order {
            0 => rows.sort_by_key(|row| row.after_us),
            1 => rows.sort_by_key(|row| (row.symbol, row.after_us)),
            2 => rows.extend(rows.clone()),
            _ => {}
        }
        rows
    })
}

fn definition() -> impl Strategy<Value = Definition> {
    let by = prop_oneof![2 => Just(Some(PartitionUnit::Day)), 1 => Just(None), 1 => Just(Some(PartitionUnit::Month))];
    let marks = prop_oneof![3 => Just(TimeMark::Start), 1 => Just(TimeMark::End)];
    let cadence = prop_oneof![3 => Just(60u32), 1 => Just(3_600), 1 => Just(86_400)];
    (cadence, by, marks, any::<bool>(), proptest::bool::weighted(0.2), proptest::bool::weighted(0.2))
        .prop_map(|(cadence_s, by, marks, quarantine, slack, zone)| Definition { cadence_s, by, marks, quarantine, slack, zone })
}

fn act() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0usize..6, rows(), 1usize..60, proptest::bool::weighted(0.1), any::<bool>(), any::<bool>()).prop_map(
            |(file, rows, row_group, more, in_place, same_time)| Event::Write { file, rows, row_group, more, in_place, same_time }),
        3 => (0usize..6).prop_map(|file| Event::Shift { file }),
        2 => (0usize..6).prop_map(|file| Event::Delete { file }),
        3 => (0usize..64, 0u64..4_096, 0u8..6).prop_map(|(pack, at, how)| Event::Damage { pack, at, how }),
        1 => Just(Event::Forget),
        1 => definition().prop_map(Event::Define),
        1 => Just(Event::Restart),
    ]
}

fn looked() -> impl Strategy<Value = Looked> {
    let keys = proptest::sample::subsequence(vec!["A", "BB", "nothing", "other", "Ω"], 0..4);
    (-3_000i64..3_000, 1i64..6_000, keys, proptest::collection::vec(any::<u8>(), 0..5)).prop_map(|(first, length, keys, cuts)| Looked {
        first,
        length,
        keys,
        cuts,
    })
}

/// Where a file lies: in the folder of one of three days, or deeper, or in no folder.
fn path_of(root: &Path, format: Format, by: Option<PartitionUnit>, file: usize) -> PathBuf {
    let folder = match by {
        Some(PartitionUnit::Month) => format!("date=2018-0{}", 3 + file % 3),
        Some(_) => format!("date=2018-04-0{}", 3 + file % 3),
        None => format!("part{}", file % 2),
    };
    root.join("bars").join(folder).join(format!("{file}.{}", format.endings()[0]))
}

fn damage(root: &Path, pack: usize, at: u64, how: u8) {
    let packs = packs(root);
    let Some(path) = packs.get(pack % packs.len().max(1)) else { return };
    let mut bytes = fs::read(path).unwrap();
    let at = usize::try_from(at).unwrap() % bytes.len().max(1);
    match how {
        0 => bytes[at] ^= 1,
        1 => bytes.truncate(at),
        2 => bytes = b"something else altogether".repeat(20),
        // An older form.
        3 => bytes[7] = b'0',
        // That of other files.
        4 => bytes = fs::read(&packs[(pack + 1) % packs.len()]).unwrap(),
        _ => bytes[at..].fill(0),
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_known_is_what_another_look_finds() {
    let (saved, same_size) = (AtomicU64::new(0), AtomicU64::new(0));
    let formats = prop_oneof![3 => Just(Format::Parquet), 1 => Just(Format::Csv), 1 => Just(Format::Jsonl)];
    let steps = proptest::collection::vec((proptest::collection::vec(act(), 1..3), looked(), any::<bool>()), 3..14);
    let start = proptest::collection::vec(rows(), 4);
    TestRunner::new(Config { cases: testdata::by_length(48, 1_000), ..Config::default() })
        .run(&(formats, definition(), start, steps), |(format, mut definition, start, steps)| {
            let (_folder, root) = root();
            fs::create_dir_all(root.join("bars")).unwrap();
            let mut files: BTreeMap<usize, (Vec<Row>, usize, bool)> = start.into_iter().map(|rows| (rows, 25, false)).enumerate().collect();
            for (file, (rows, row_group, more)) in &files {
                write(&path_of(&root, format, definition.by, *file), &bytes_of(format, rows, *row_group, *more), false, None);
            }
            let mut kept = lake(&root);
            for (acts, looked, again) in steps {
                for act in acts {
                    let path = |file: usize| path_of(&root, format, definition.by, file);
                    match act {
                        Event::Write { file, rows, row_group, more, in_place, same_time } => {
                            let before = fs::metadata(path(file)).ok().and_then(|metadata| metadata.modified().ok());
                            let bytes = bytes_of(format, &rows, row_group, more);
                            write(&path(file), &bytes, in_place, before.filter(|_| same_time));
                            files.insert(file, (rows, row_group, more));
                        }
                        Event::Shift { file } => {
                            let Some((rows, row_group, more)) = files.get_mut(&file) else { continue };
                            for row in rows.iter_mut() {
                                row.symbol = if row.symbol == "A" { "Z" } else { row.symbol };
                            }
                            let before = fs::metadata(path(file)).unwrap();
                            let bytes = bytes_of(format, rows, *row_group, *more);
                            // In text, always.
                            same_size.fetch_add(u64::from(bytes.len() as u64 == before.len()), Ordering::Relaxed);
                            write(&path(file), &bytes, true, before.modified().ok());
                        }
                        Event::Delete { file } => {
                            if files.remove(&file).is_some() {
                                fs::remove_file(path(file)).unwrap();
                            }
                        }
                        Event::Damage { pack, at, how } => damage(&root, pack, at, how),
                        Event::Forget => {
                            let _ = fs::remove_dir_all(root.join(".repair/presence"));
                        }
                        Event::Define(new) => {
                            definition = new;
                            fs::remove_dir_all(root.join("bars")).unwrap();
                            fs::create_dir_all(root.join("bars")).unwrap();
                            for (file, (rows, row_group, more)) in &files {
                                let path = path_of(&root, format, new.by, *file);
                                write(&path, &bytes_of(format, rows, *row_group, *more), false, None);
                            }
                        }
                        Event::Restart => kept = lake(&root),
                    }
                }
                let table = definition.table(format);
                let grid = table.grid().unwrap();
                let minutes = i64::from(definition.cadence_s) / 60;
                let first = grid.slot_of_us(BASE_US) + looked.first / minutes;
                let slots = SlotRange::new(first, first + (looked.length / minutes).max(1));
                let request = PresenceRequest::new(slots, looked.keys.iter().map(|key| Key::from(*key)).collect(), Timestamp::MAX);
                let per_word = i64::from(table.cadence.unwrap().slots_per_word());
                let mut cuts: Vec<i64> = looked
                    .cuts
                    .iter()
                    .map(|cut| (slots.first + i64::from(*cut) * (slots.end - slots.first) / 256).div_euclid(per_word) * per_word)
                    .filter(|cut| slots.first < *cut && *cut < slots.end)
                    .chain([slots.first, slots.end])
                    .collect();
                cuts.sort_unstable();
                cuts.dedup();
                let pieces: Vec<SlotRange> = cuts.windows(2).map(|pair| SlotRange::new(pair[0], pair[1])).collect();
                let mut anew = Inner::new(root.clone());
                anew.keeps = false;
                let (expected, all) = look(&anew, &table, &request, &pieces);
                for _ in 0..=usize::from(again) {
                    let (found, some) = look(&kept, &table, &request, &pieces);
                    prop_assert_eq!(&found, &expected);
                    prop_assert!(some.rows_read <= all.rows_read);
                    saved.fetch_add(all.rows_read - some.rows_read, Ordering::Relaxed);
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(saved.into_inner() > 1_000, "hardly anything was known");
    assert!(same_size.into_inner() > 10, "hardly a file was written with the same size and time");
}

/// Minutes of some keys in each of so many days, a file a day or one for all.
fn days(days: i64, keys: &[&'static str]) -> Vec<Vec<Row>> {
    let of_day = |day: i64| {
        let minutes = (120..1_560).filter(|minute| minute % 11 != 0).map(move |minute| (day * 1_440 + minute) * MINUTE_US);
        keys.iter().flat_map(move |symbol| minutes.clone().map(|after_us| Row { symbol, after_us, close: after_us as f64 })).collect()
    };
    (0..days).map(of_day).collect()
}

fn request(table: &Table, days: i64, keys: &[&str]) -> PresenceRequest {
    let first = table.grid().unwrap().slot_of_us(BASE_US + 120 * MINUTE_US);
    PresenceRequest::new(SlotRange::new(first, first + days * 1_440), keys.iter().map(|key| Key::from(*key)).collect(), Timestamp::MAX)
}

fn pieces_of(request: &PresenceRequest, slots: i64) -> Vec<SlotRange> {
    let mut pieces = Vec::new();
    let mut first = request.slots.first;
    while first < request.slots.end {
        pieces.push(SlotRange::new(first, (first + slots).min(request.slots.end)));
        first += slots;
    }
    pieces
}

fn day_path(root: &Path, day: usize, format: Format) -> PathBuf {
    root.join(format!("bars/date=2018-04-{:02}/0.{}", 4 + day, format.endings()[0]))
}

#[test]
fn of_a_table_with_a_new_file_only_that_is_read() {
    for format in [Format::Parquet, Format::Csv, Format::Jsonl] {
        for quarantine in [false, true] {
            let (_folder, root) = root();
            let mut table = bars(format);
            if quarantine {
                table.on_bad_row = OnBadRow::Quarantine(BadRowLimit::Rows(5));
            }
            let all = days(6, &["A", "BB"]);
            for (day, rows) in all.iter().enumerate().take(5) {
                write(&day_path(&root, day, format), &bytes_of(format, rows, 500, false), false, None);
            }
            let request = request(&table, 6, &["A", "BB"]);
            let watch = Watch::of(&root.join("bars"));
            // Each look is one of a new process, which first asks for the columns.
            let see = |pieces: &[SlotRange]| {
                let lake = lake(&root);
                scan::describe(&lake, &table).unwrap();
                let (presences, usage) = look(&lake, &table, &request, pieces);
                let slots: u64 = presences.unwrap().iter().flat_map(|one| one.raw.keys.values().map(|key| key.present.count())).sum();
                let mut opened = watch.take(Act::Open);
                opened.sort();
                opened.dedup();
                (slots, usage.rows_read, usage.bytes_scanned, opened, watch.take(Act::List).len())
            };
            let whole = [request.slots];
            let of_day = all[0].len() as u64;
            let (slots, rows, bytes, opened, _) = see(&whole);
            assert_eq!((slots, rows, opened.len()), (5 * of_day, 5 * of_day, 5), "{format:?}");
            assert!(bytes > 0);
            let (again, rows, bytes, opened, listed) = see(&whole);
            assert_eq!((again, rows, bytes, opened), (slots, 0, 0, vec![]), "{format:?}");
            // The table's folder and those of five days, for the columns and for the presence.
            assert_eq!(listed, 2 * 6);
            let new = day_path(&root, 5, format);
            write(&new, &bytes_of(format, &all[5], 500, false), false, None);
            let (slots, rows, _, opened, _) = see(&pieces_of(&request, 720));
            assert_eq!((slots, rows, opened), (6 * of_day, of_day, vec![new]), "{format:?}");
            // What is asked for does not matter, only what a file holds.
            let lake = lake(&root);
            let few = PresenceRequest::new(
                SlotRange::new(request.slots.first + 77, request.slots.first + 3_001),
                vec![Key::from("BB")],
                Timestamp::MAX,
            );
            let (presences, usage) = look(&lake, &table, &few, &[few.slots]);
            let raw = &presences.unwrap()[0].raw;
            assert_eq!(raw.other_rows, raw.keys[&Key::from("BB")].present.count());
            // A file whose rows are judged is one part, so where only some of its row groups are of the interval, these are read.
            if quarantine && format == Format::Parquet {
                assert_eq!(usage.rows_read, 2 * 500);
            } else {
                assert_eq!((usage.rows_read, watch.take(Act::Open)), (0, Vec::<PathBuf>::new()));
            }
        }
    }
}

#[test]
fn what_another_program_kept_is_not_believed() {
    let (_folder, root) = root();
    let table = bars(Format::Csv);
    let rows = &days(1, &["A", "BB"])[0];
    write(&day_path(&root, 0, Format::Csv), &bytes_of(Format::Csv, rows, 500, false), false, None);
    let request = request(&table, 1, &["A", "BB"]);
    let read = |program: Option<&'static str>| {
        let mut lake = lake(&root);
        lake.program = program;
        let evidence = crate::extent::extents(&lake, &table, &[None]).unwrap().swap_remove(0).evidence;
        (look(&lake, &table, &request, &[request.slots]).1.rows_read, evidence)
    };
    let all = rows.len() as u64;
    let (first, again, of_another) = (read(Some("one")), read(Some("one")), read(Some("another")));
    assert_eq!((first.0, again.0, of_another.0), (all, 0, all));
    // Nor are findings that rest on how another one reads.
    assert!(first.1.is_some() && first.1 == again.1 && first.1 != of_another.1);
    assert_eq!([read(None), read(None)], [(all, None), (all, None)]);
}

#[test]
fn of_a_file_without_folders_row_groups_are_known_one_by_one() {
    let (_folder, root) = root();
    let table = Table { partition_by: Vec::new(), ..bars(Format::Parquet) };
    let rows: Vec<Row> = days(6, &["A"]).concat();
    write(&root.join("bars/0.parquet"), &bytes_of(Format::Parquet, &rows, 400, false), false, None);
    let request = request(&table, 6, &["A"]);
    let lake = lake(&root);
    let first_days =
        PresenceRequest::new(SlotRange::new(request.slots.first, request.slots.first + 2_000), request.keys.clone(), request.as_of);
    let (_, part) = look(&lake, &table, &first_days, &[first_days.slots]);
    assert!(part.rows_read > 0 && part.rows_read < rows.len() as u64 / 2, "{}", part.rows_read);
    let watch = Watch::of(&root.join("bars"));
    assert_eq!(look(&lake, &table, &first_days, &pieces_of(&first_days, 600)).1.rows_read, 0);
    assert_eq!(watch.take(Act::Open), Vec::<PathBuf>::new());
    let (all, more) = look(&lake, &table, &request, &pieces_of(&request, 600));
    assert!(more.rows_read > 0, "the rest was not known");
    let (again, none) = look(&lake, &table, &request, &pieces_of(&request, 600));
    assert_eq!((none.rows_read, again), (0, all));
}

#[test]
fn what_was_written_just_now_or_meanwhile_is_not_kept() {
    let (_folder, root) = root();
    let table = bars(Format::Parquet);
    let path = day_path(&root, 0, Format::Parquet);
    let rows = days(1, &["A"]).remove(0);
    write(&path, &bytes_of(Format::Parquet, &rows, 500, false), false, None);
    let request = request(&table, 1, &["A"]);
    // That so much time must have passed, has not happened here.
    let mut usual = Inner::new(root.clone());
    assert!(usual.settles >= Duration::from_secs(3), "some file systems keep times to two seconds");
    usual.settles = Duration::from_secs(3_600);
    for _ in 0..2 {
        assert_eq!(look(&usual, &table, &request, &[request.slots]).1.rows_read, rows.len() as u64);
    }
    assert_eq!(packs(&root), Vec::<PathBuf>::new());
    // Between its listing and the end of its reading it is written again.
    let lake = lake(&root);
    let kept = Kept::of(&lake, "test", b"").unwrap();
    let listed = Place::to_read(&root, &table).unwrap().files(&table).unwrap().remove(0);
    assert!(Kept::new_entry(&mut kept.places(), &listed, false, Duration::ZERO, Arc::default(), Vec::new()).is_some());
    write(&path, &bytes_of(Format::Parquet, &rows, 500, false), true, fs::metadata(&path).unwrap().modified().ok());
    assert!(Kept::new_entry(&mut kept.places(), &listed, false, Duration::ZERO, Arc::default(), Vec::new()).is_none());
    // A time in the future says nothing.
    write(&path, &bytes_of(Format::Parquet, &rows, 500, false), true, Some(SystemTime::now() + Duration::from_secs(3_600)));
    for _ in 0..2 {
        assert_eq!(look(&lake, &table, &request, &[request.slots]).1.rows_read, rows.len() as u64);
    }
}

#[test]
fn that_nothing_can_be_kept_is_no_error() {
    let (_folder, root) = root();
    let table = bars(Format::Csv);
    write(&day_path(&root, 0, Format::Csv), &bytes_of(Format::Csv, &days(1, &["A"])[0], 500, false), false, None);
    let request = request(&table, 1, &["A"]);
    let lake = lake(&root);
    // Something else has the name of the folder.
    fs::write(root.join(".repair/presence"), "in the way").unwrap();
    let (expected, usage) = look(&lake, &table, &request, &[request.slots]);
    assert!(usage.rows_read > 0);
    assert_eq!(look(&lake, &table, &request, &[request.slots]), (expected.clone(), usage));
    assert_eq!(fs::read_to_string(root.join(".repair/presence")).unwrap(), "in the way");
    // A lake in which nothing of ours is, stays as it is.
    fs::remove_dir_all(root.join(".repair")).unwrap();
    assert_eq!(look(&lake, &table, &request, &[request.slots]), (expected, usage));
    assert!(!root.join(".repair").exists());
}

#[test]
fn what_is_kept_stays_within_its_bound_and_is_a_small_part_of_the_data() {
    let (_folder, root) = root();
    let table = bars(Format::Parquet);
    let names: Vec<&'static str> = (0..40).map(|number| &*Box::leak(format!("S{number:03}").into_boxed_str())).collect();
    let all = days(8, &names);
    let mut data = 0;
    for (day, rows) in all.iter().enumerate() {
        let bytes = bytes_of(Format::Parquet, rows, 20_000, true);
        data += bytes.len() as u64;
        write(&day_path(&root, day, Format::Parquet), &bytes, false, None);
    }
    let request = request(&table, 8, &names);
    let size = || packs(&root).iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    look(&lake(&root), &table, &request, &[request.slots]).0.unwrap();
    assert!(size() * 20 < data, "{} of {data}", size());
    let most = size() / 2;
    let mut bounded = lake(&root);
    bounded.max_kept_bytes = most;
    // A day is written again, so that something is kept anew.
    let path = day_path(&root, 3, Format::Parquet);
    write(&path, &bytes_of(Format::Parquet, &all[3], 10_000, true), false, None);
    look(&bounded, &table, &request, &[request.slots]).0.unwrap();
    assert!(size() <= most && size() > 0, "{} of {most}", size());
    let (_, usage) = look(&lake(&root), &table, &request, &[request.slots]);
    assert!(usage.rows_read > 0 && usage.rows_read < 8 * all[0].len() as u64, "some is known still: {}", usage.rows_read);
}

#[test]
fn a_pack_that_is_scratched_anywhere_says_nothing_wrong() {
    let (_folder, root) = root();
    let table = bars(Format::Parquet);
    for day in 0..2 {
        for (number, rows) in days(2, &["A", "BB"]).into_iter().enumerate().filter(|(number, _)| *number == day) {
            write(&day_path(&root, number, Format::Parquet), &bytes_of(Format::Parquet, &rows, 500, false), false, None);
        }
    }
    let request = request(&table, 2, &["A", "BB"]);
    let (expected, _) = look(&lake(&root), &table, &request, &[request.slots]);
    let path = packs(&root).remove(0);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut file = File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[whole[at] ^ [1, 0x80, 0xff][at % 3]]).unwrap();
        drop(file);
        assert_eq!(look(&lake(&root), &table, &request, &[request.slots]).0, expected, "scratched at {at}");
        // What was read again is kept again.
        let (again, usage) = look(&lake(&root), &table, &request, &[request.slots]);
        assert_eq!((again, usage.rows_read), (expected.clone(), 0), "scratched at {at}");
        fs::write(&path, &whole).unwrap();
    }
    assert!(files::there(&path).unwrap().is_some());
}
