//! Random tables whose truth is known by construction: dialect, encoding, zone, form of time, folders, types and their drift, words for null,
//! broken lines, rows in wrong folders. Presence, scans and counts of any lake must say what was written, and add up to all rows.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use futures::TryStreamExt;
use jiff::Timestamp;
use jiff::civil::DateTime;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::lake::{Layer, PresenceRequest, ReadLake, ScanRequest};
use crate::model::{
    BadRowLimit, Cadence, ColumnRule, ColumnType, Csv, Encoding, EpochUnit, Format, Instants, Interval, Key, OnBadRow, PartitionUnit,
    Repeated, SlotGrid, SlotRange, SlotRule, Table, TimeMark, TimeReading, Zone,
};
use crate::testing::lake_suite::assert_same_in_pieces;

/// How a lake reads the text of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// By the names in the header of each file; blank lines are no rows.
    ByName,
    /// By position, whatever the header says. A blank line is a row like any other, and a mark of the byte order is text.
    ByPosition,
}

/// What a file holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// Lines of CSV or JSON, not compressed.
    Text(Vec<u8>),
    /// Rows of Parquet.
    Rows(RecordBatch),
}

/// A file of a table.
#[derive(Debug, Clone)]
pub struct WrittenFile {
    /// Its folder within the table's, without `/` at its ends; empty if it is the table's own.
    pub folder: String,
    /// Its name, without the ending of its compression.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

/// A row that somebody wrote.
#[derive(Debug, Clone)]
struct Row {
    key: &'static str,
    time_us: i64,
    value: Option<f64>,
    /// How many folders from its own it lies.
    moved: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// With `Z`, an offset, or without seconds.
    Iso,
    /// Local, as ISO 8601 writes it.
    Local,
    /// Local, in a pattern.
    Pattern(&'static str),
    /// A number since 1970.
    Epoch(EpochUnit),
    /// Local, a date and a time of day.
    Two,
}

/// How the folders of a table carry time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folders {
    None,
    Hive(PartitionUnit),
    Pattern(&'static str, PartitionUnit),
}

/// A table that somebody wrote, and what it holds.
pub struct RandomTable {
    /// The table, called `t`; a test may call it otherwise.
    pub table: Table,
    /// Its files.
    pub files: Vec<WrittenFile>,
    /// How its files are compressed: the ending of their names, or nothing.
    pub compression: &'static str,
    case: Case,
    /// How many folders from its own each row lies.
    moved: Vec<i64>,
    /// A share of the interval, in thousandths.
    part: i64,
}

struct Case {
    table: Table,
    reading: Reading,
    written: Written,
    folders: Folders,
    folder_zone: Zone,
    compression: &'static str,
    rows: Vec<Row>,
    /// Lines that cannot be read.
    bad: u64,
    interval: Interval,
}

const ZONES: [&str; 6] = ["Europe/Berlin", "America/New_York", "UTC", "Australia/Sydney", "+05:30", "America/Sao_Paulo"];
/// Days around changes of clocks, and plain ones.
const DAYS: [&str; 6] = ["2024-03-30", "2024-10-26", "2024-11-02", "2024-04-06", "2023-12-30", "2024-02-28"];

fn case(seed: u64, reading_of: Reading) -> Case {
    let mut random = SmallRng::seed_from_u64(seed);
    let random = &mut random;
    let format = *[Format::Csv, Format::Csv, Format::Jsonl, Format::Parquet].choose(random).unwrap();
    let zone: Zone = ZONES.choose(random).unwrap().parse().unwrap();
    let start: Timestamp = format!("{}T00:00:00Z", DAYS.choose(random).unwrap()).parse().unwrap();
    let grid = grid(&zone, start, random);
    let cadence = grid.cadence();
    let cadence_s = i64::from(cadence.seconds());
    let most = match reading_of {
        Reading::ByName if cadence_s == 60 => 900,
        Reading::ByName => 400,
        // The double of a query engine takes a millisecond for a row.
        Reading::ByPosition => 100,
    };
    let slots = if cadence.is_days() { 60 } else { (3 * 86_400 / cadence_s).min(most) };
    let first = match cadence.is_days() {
        true => grid.slot_at(start) - slots / 2,
        false => grid.slot_at(start) + random.random_range(0..24) * 3_600 / cadence_s,
    };
    let slots = SlotRange::new(first, first + slots);
    let time_us = |slot: i64| grid.time_of_seconds(slot) * 1_000_000;

    let written = match random.random_range(0..6) {
        0 => Written::Iso,
        1 => Written::Local,
        2 => Written::Pattern(["%d.%m.%Y %H:%M:%S", "%Y%m%d%H%M%S", "%m/%d/%Y %H:%M:%S"].choose(random).unwrap()),
        3 => Written::Epoch(*EpochUnit::ALL.choose(random).unwrap()),
        4 if format != Format::Parquet => Written::Two,
        _ => Written::Iso,
    };
    let is_local = matches!(written, Written::Local | Written::Pattern(_) | Written::Two);
    let mut folders = match random.random_range(0..4) {
        0 | 1 => Folders::None,
        2 => Folders::Hive(*[PartitionUnit::Hour, PartitionUnit::Day, PartitionUnit::Month].choose(random).unwrap()),
        _ => [
            ("dt=%Y%m%d", PartitionUnit::Day),
            ("year=%Y/month=%m/day=%d", PartitionUnit::Day),
            ("%Y/%m/%d/%H", PartitionUnit::Hour),
            ("%Y/%j", PartitionUnit::Day),
            ("part_%Y-%m", PartitionUnit::Month),
        ]
        .choose(random)
        .map(|(pattern, unit)| Folders::Pattern(pattern, *unit))
        .unwrap(),
    };
    // In the order of a file, a doubled hour is known if the whole of it is in one file.
    let in_order = is_local && !zone.is_utc() && random.random_bool(0.5);
    if in_order {
        folders = Folders::None;
    }
    let folder_zone: Zone = match folders {
        Folders::Pattern(..) => ZONES.choose(random).unwrap().parse().unwrap(),
        _ => Zone::utc(),
    };

    let keys: &[&str] = if random.random_bool(0.2) { &[""] } else { &["a", "Z\u{fc}rich", "00123", "other"] };
    let decimals = random.random_range(0..3);
    let mut rows = Vec::new();
    for key in keys {
        for slot in slots.first..slots.end {
            if random.random_bool(0.1) {
                continue;
            }
            let copies = if random.random_bool(0.02) { 2 } else { 1 };
            for _ in 0..copies {
                let mut time_us = time_us(slot);
                let tolerance_s = i64::from(grid.tolerance_s());
                if !in_order && random.random_bool(0.02) {
                    time_us += random.random_range(1..cadence_s) * 1_000_000;
                } else if !in_order && tolerance_s > 0 {
                    // Loggers are late, or early, and sometimes more than they should be.
                    time_us += random.random_range(-tolerance_s - 1..=tolerance_s + 1) * 1_000_000;
                }
                if !slots.contains(grid.slot_of_seconds(time_us.div_euclid(1_000_000))) {
                    continue;
                }
                let scale = 10f64.powi(decimals);
                let value = (!random.random_bool(0.05)).then(|| f64::from(random.random_range(-2_000_000i32..5_000_000)) / scale);
                let moved = if folders == Folders::None || !random.random_bool(0.02) { 0 } else { random.random_range(-3..=3) };
                rows.push(Row { key, time_us, value, moved });
            }
        }
    }
    if is_local {
        // What a local clock cannot say for certain is not written, except in order: then the whole of a doubled hour is.
        let mut doubled: BTreeSet<i64> = BTreeSet::new();
        rows.retain(|row| match zone.instants(local(&zone, row.time_us)).unwrap() {
            Instants::One(_) => true,
            _ => {
                doubled.insert(row.time_us);
                false
            }
        });
        if in_order {
            let is_doubled = |us: &i64| matches!(zone.instants(local(&zone, *us)), Some(Instants::Two(..)));
            let all: Vec<i64> = (slots.first..slots.end).map(time_us).filter(is_doubled).collect();
            // Only if both hours are within.
            let whole = all.iter().filter(
                |us| matches!(zone.instants(local(&zone, **us)), Some(Instants::Two(a, b)) if all.contains(&a) && all.contains(&b)),
            );
            let whole: Vec<i64> = whole.copied().collect();
            for key in keys {
                rows.extend(whole.iter().map(|us| Row { key, time_us: *us, value: Some(1.0), moved: 0 }));
            }
            rows.sort_by_key(|row| (row.key, row.time_us));
        }
    }
    if !in_order && random.random_bool(0.5) {
        rows.shuffle(random);
    }

    let mut table = Table::new("t", format, "ts").with_cadence(cadence).with_slots(grid.rule()).with_time_marks(grid.marks());
    if !grid.zone().is_utc() {
        table = table.with_zone(grid.zone());
    }
    table = table.with_column("v", ColumnRule::of_type(ColumnType::Number));
    if keys.len() > 1 {
        table = table.with_key(["key"]);
    }
    let mut reading = match written {
        Written::Iso => TimeReading::default(),
        Written::Local => TimeReading::default().with_zone(zone.clone()),
        Written::Pattern(pattern) => TimeReading::by_pattern(pattern).with_zone(zone.clone()),
        Written::Epoch(unit) => TimeReading::epoch([unit]),
        Written::Two => TimeReading::by_pattern("%d/%m/%Y %H:%M:%S").with_columns(["day", "clock"]).with_zone(zone.clone()),
    };
    if in_order {
        reading = reading.with_repeated(Repeated::FileOrder);
    }
    table = table.with_time(reading);
    table = match folders {
        Folders::None => table,
        Folders::Hive(unit) => table.with_partition("part", unit),
        Folders::Pattern(pattern, _) => table.with_layout(pattern.parse().unwrap(), folder_zone.clone()),
    };
    if format == Format::Csv {
        let mut csv = Csv { delimiter: *[',', ';', '\t', '|'].choose(random).unwrap(), ..Csv::default() };
        if random.random_bool(0.4) {
            csv.decimal = ',';
        }
        if random.random_bool(0.3) {
            csv.thousands = Some(if csv.decimal == ',' { '.' } else { '\'' });
        }
        csv.encoding = *[Encoding::Utf8, Encoding::Utf8, Encoding::Latin1, Encoding::Utf16le].choose(random).unwrap();
        if random.random_bool(0.2) {
            csv.header = false;
            csv.names = columns(&table, written).iter().map(|name| (*name).to_owned()).collect();
        }
        csv.skip_lines = if random.random_bool(0.2) { 2 } else { 0 };
        csv.comment = random.random_bool(0.2).then_some('#');
        csv.trim = random.random_bool(0.3);
        table = table.with_csv(csv);
    }
    if format != Format::Parquet {
        table = table.with_nulls(["N/A", "-"]);
    }
    let bad = if format != Format::Parquet && random.random_bool(0.4) { random.random_range(1..4) } else { 0 };
    if bad > 0 {
        table = table.with_bad_rows(OnBadRow::Quarantine(BadRowLimit::PerMillion(1_000_000)));
    }
    let compression = if format == Format::Parquet { "" } else { *["", "", "gz", "zst", "bz2"].choose(random).unwrap() };
    let interval = grid.interval_of(slots).unwrap();
    Case { table, reading: reading_of, written, folders, folder_zone, compression, rows, bad, interval }
}

/// Slots of any kind, often plain ones.
fn grid(zone: &Zone, start: Timestamp, random: &mut SmallRng) -> SlotGrid {
    let kinds = [
        ("1m", ""),
        ("15m", ""),
        ("1h", ""),
        ("1m", ""),
        ("15m", ":05"),
        ("1h", ":51"),
        ("1d", ""),
        ("1d", "17:00"),
        ("1w", ""),
        ("1w", "sun 17:00"),
        ("1mo", ""),
        ("3mo", "02-15"),
        ("1y", "04-01"),
    ];
    let (cadence, at) = *kinds.choose(random).unwrap();
    let cadence: Cadence = cadence.parse().unwrap();
    let tolerance_s = *[0, 0, 0, 3, 20].choose(random).unwrap();
    let changes = cadence.seconds() == 900 && at.is_empty() && random.random_bool(0.5);
    let before = changes.then(|| (zone.local(start).date().tomorrow().unwrap(), Cadence::HOUR));
    let at = (!at.is_empty()).then(|| at.parse().unwrap());
    let rule = SlotRule { at, tolerance_s, before: before.into_iter().collect() };
    let marks = if random.random_bool(0.3) { TimeMark::End } else { TimeMark::Start };
    // Where slots of one cadence do not begin at midnight, no time marks the end of the last slot before it changes.
    let grid = SlotGrid::with_rule(cadence, marks, &rule, zone);
    grid.or_else(|_| SlotGrid::with_rule(cadence, TimeMark::Start, &rule, zone)).unwrap()
}

fn local(zone: &Zone, us: i64) -> DateTime {
    zone.local(Timestamp::from_microsecond(us).unwrap())
}

fn columns(table: &Table, written: Written) -> Vec<&'static str> {
    let mut columns = if table.key.is_empty() { vec![] } else { vec!["key"] };
    columns.extend(if written == Written::Two { &["day", "clock"][..] } else { &["ts"] });
    columns.push("v");
    columns
}

/// A time as the case writes it.
fn time_text(case: &Case, us: i64, random: &mut SmallRng) -> Vec<String> {
    let zone = case.table.reading.zone.clone().unwrap_or_default();
    let clock = local(&zone, us);
    // A day ends at 24:00, which is when the next one begins.
    let before = clock.date().yesterday().ok().filter(|_| clock.time() == jiff::civil::Time::midnight() && random.random_bool(0.5));
    let months = case.table.cadence.and_then(Cadence::months).filter(|_| clock.day() == 1 && random.random_bool(0.7)).unwrap_or(0);
    if let (Some(before), 0) = (before, months) {
        match case.written {
            Written::Local => return vec![format!("{before}T24:00")],
            Written::Pattern(pattern) => {
                return vec![before.at(0, 0, 0, 0).strftime(&pattern.replace("%H", "24").replace("%T", "24:%M:%S")).to_string()];
            }
            Written::Two => return vec![before.strftime("%d/%m/%Y").to_string(), "24:00:00".to_owned()],
            Written::Iso | Written::Epoch(_) => {}
        }
    }
    match case.written {
        Written::Local if before.is_some() && months > 0 => vec![match (months, clock.month()) {
            (12, 1) if random.random_bool(0.5) => clock.strftime("%Y").to_string(),
            (3 | 12, 1 | 4 | 7 | 10) if random.random_bool(0.5) => format!("{}-Q{}", clock.strftime("%Y"), (clock.month() + 2) / 3),
            _ => clock.strftime("%Y-%m").to_string(),
        }],
        Written::Iso => {
            let utc = local(&Zone::utc(), us);
            vec![match random.random_range(0..4) {
                0 => utc.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                1 => local(&"+02:00".parse().unwrap(), us).strftime("%Y-%m-%d %H:%M:%S+02:00").to_string(),
                2 if utc.second() == 0 => utc.strftime("%Y-%m-%dT%H:%MZ").to_string(),
                _ => utc.strftime("%Y-%m-%d %H:%M:%S.000 UTC").to_string(),
            }]
        }
        Written::Local => vec![match random.random_range(0..2) {
            // In a table of days, a date is a time.
            0 if case.table.cadence.is_some_and(Cadence::is_days) && clock.time() == jiff::civil::Time::midnight() => {
                clock.date().to_string()
            }
            0 if clock.second() == 0 => clock.strftime("%Y-%m-%d %H:%M").to_string(),
            _ => clock.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        }],
        Written::Pattern(pattern) => vec![clock.strftime(pattern).to_string()],
        Written::Epoch(unit) => vec![(i128::from(us) * i128::from(unit.per_second()) / 1_000_000).to_string()],
        Written::Two => vec![clock.strftime("%d/%m/%Y").to_string(), clock.strftime("%H:%M:%S").to_string()],
    }
}

fn number_text(csv: &Csv, value: f64) -> String {
    let plain = value.to_string();
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if let (Some(mark), true) = (csv.thousands, at > 0 && (digits.len() - at) % 3 == 0) {
            grouped.push(mark);
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}{}{fraction}", csv.decimal) }
}

/// The folder in which a row is written.
fn folder(case: &Case, row: &Row) -> (String, i64) {
    let (unit, zone) = match case.folders {
        Folders::None => return (String::new(), 0),
        Folders::Hive(unit) => (unit, Zone::utc()),
        Folders::Pattern(_, unit) => (unit, case.folder_zone.clone()),
    };
    let floor = |clock: DateTime| match unit {
        PartitionUnit::Hour => clock.date().at(clock.hour(), 0, 0, 0),
        PartitionUnit::Day => clock.date().at(0, 0, 0, 0),
        _ => clock.date().first_of_month().at(0, 0, 0, 0),
    };
    let own = floor(local(&zone, row.time_us));
    let step = |clock: DateTime, by: i64| match unit {
        PartitionUnit::Hour => clock + jiff::Span::new().hours(by),
        PartitionUnit::Day => clock + jiff::Span::new().days(by),
        _ => clock + jiff::Span::new().months(by),
    };
    let mut clock = step(own, row.moved);
    // In a zone, an hour's folder may not exist; and around a change of the clock, the next folder may be two away.
    if unit == PartitionUnit::Hour && row.moved != 0 && !zone.is_utc() {
        clock = own;
    }
    let moved = if clock == own { 0 } else { row.moved };
    let path = match case.folders {
        Folders::Hive(PartitionUnit::Hour) => clock.strftime("part=%Y-%m-%d-%H").to_string(),
        Folders::Hive(PartitionUnit::Day) => clock.strftime("part=%Y-%m-%d").to_string(),
        Folders::Hive(_) => clock.strftime("part=%Y-%m").to_string(),
        Folders::Pattern(pattern, _) => clock.strftime(pattern).to_string(),
        Folders::None => String::new(),
    };
    (path, moved)
}

/// The case's files, and for each row, how many folders from its own it lies.
fn write(case: &Case, random: &mut SmallRng) -> (Vec<WrittenFile>, Vec<i64>) {
    let mut written = Vec::new();
    let mut files: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    let mut moved = Vec::with_capacity(case.rows.len());
    for (number, row) in case.rows.iter().enumerate() {
        let (folder, by) = folder(case, row);
        moved.push(by);
        // A doubled hour in the order of rows needs them in one file.
        let part = if case.table.reading.repeated == Repeated::FileOrder { 0 } else { number * 2 / case.rows.len() };
        files.entry(format!("{folder}/{part}")).or_default().push(row);
    }
    let mut bad = case.bad;
    for (number, (path, rows)) in files.into_iter().enumerate() {
        // Broken lines go to a file that is surely opened.
        let bad = if rows.iter().any(|row| row.moved == 0) { std::mem::take(&mut bad) } else { 0 };
        let content = match case.table.format {
            Format::Parquet => Content::Rows(parquet(case, &rows, number)),
            Format::Csv => Content::Text(csv(case, &rows, bad, random)),
            _ => Content::Text(jsonl(case, &rows, bad, random)),
        };
        let ending = match (case.table.format, random.random_range(0..4)) {
            // As Athena and Firehose write it.
            (Format::Parquet, 0) => "",
            (Format::Parquet, _) => ".parquet",
            (Format::Csv, 0) => ".CSV",
            (Format::Csv, _) => ".csv",
            (_, 0) => ".ndjson",
            _ => ".jsonl",
        };
        let (folder, part) = path.rsplit_once('/').unwrap_or(("", &path));
        written.push(WrittenFile { folder: folder.to_owned(), name: format!("{part}{ending}"), content });
    }
    (written, moved)
}

fn parquet(case: &Case, rows: &[&Row], number: usize) -> RecordBatch {
    let zone = case.table.reading.zone.clone().unwrap_or_default();
    let times: ArrayRef = match case.written {
        Written::Epoch(unit) => Arc::new(Int64Array::from_iter_values(
            rows.iter().map(|row| (i128::from(row.time_us) * i128::from(unit.per_second()) / 1_000_000) as i64),
        )),
        Written::Local => {
            let clock = |row: &&Row| jiff::tz::TimeZone::UTC.to_timestamp(local(&zone, row.time_us)).unwrap().as_microsecond();
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(clock)))
        }
        Written::Pattern(pattern) => {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| local(&zone, row.time_us).strftime(pattern).to_string())))
        }
        _ => {
            let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time_us)).with_timezone("UTC");
            let unit = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond][number % 4];
            arrow::compute::cast(&times, &DataType::Timestamp(unit, (!number.is_multiple_of(3)).then(|| "UTC".into()))).unwrap()
        }
    };
    let values: ArrayRef = Arc::new(rows.iter().map(|row| row.value).collect::<Float64Array>());
    // A column that nobody asks for, of another type in each file.
    let odd: ArrayRef = if number.is_multiple_of(2) {
        Arc::new(Int64Array::from(vec![1; rows.len()]))
    } else {
        Arc::new(StringArray::from(vec!["x"; rows.len()]))
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![("odd", odd), ("ts", times), ("v", values)];
    if !case.table.key.is_empty() {
        columns.push(("key", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.key)))));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

fn csv(case: &Case, rows: &[&Row], bad: u64, random: &mut SmallRng) -> Vec<u8> {
    let csv = &case.table.csv;
    let names = columns(&case.table, case.written);
    let mut lines: Vec<String> = (0..csv.skip_lines).map(|line| format!("exported by a machine; line {line}")).collect();
    let mut order: Vec<usize> = (0..names.len()).collect();
    if csv.header {
        if case.reading == Reading::ByName {
            order.shuffle(random);
        }
        lines.push(order.iter().map(|at| names[*at]).collect::<Vec<_>>().join(&csv.delimiter.to_string()));
    }
    let broken: BTreeSet<usize> = (0..bad).map(|_| random.random_range(0..=rows.len())).collect();
    // Several broken lines may be drawn for one place.
    let mut left = bad;
    for at in 0..=rows.len() {
        if broken.contains(&at) || (at == rows.len() && left > 0) {
            let here = if at == rows.len() { left } else { 1 };
            for _ in 0..here {
                lines.push(match random.random_range(0..2) {
                    0 => "cut".to_owned(),
                    _ => vec!["x"; names.len()].join(&csv.delimiter.to_string()),
                });
                if names.len() == 1 {
                    unreachable!("every table has a time and a value");
                }
            }
            left -= here;
        }
        let Some(row) = rows.get(at) else { break };
        if csv.comment.is_some() && random.random_bool(0.02) {
            lines.push("# a remark".to_owned());
        }
        if random.random_bool(0.01) && case.reading == Reading::ByName {
            lines.push(String::new());
        }
        let mut fields = if case.table.key.is_empty() { vec![] } else { vec![row.key.to_owned()] };
        fields.extend(time_text(case, row.time_us, random));
        fields.push(match row.value {
            Some(value) => number_text(csv, value),
            None => (*["", "N/A", "-"].choose(random).unwrap()).to_owned(),
        });
        let fields: Vec<String> = order
            .iter()
            .map(|at| {
                let field = &fields[*at];
                let needs = field.contains(csv.delimiter) || field.contains('"');
                let field = if needs || random.random_bool(0.05) { format!("\"{field}\"") } else { field.clone() };
                if csv.trim && !field.starts_with('"') && random.random_bool(0.2) { format!(" {field} ") } else { field }
            })
            .collect();
        lines.push(fields.join(&csv.delimiter.to_string()));
    }
    let end = if random.random_bool(0.3) { "\r\n" } else { "\n" };
    let mut text = lines.join(end);
    if random.random_bool(0.8) {
        text.push_str(end);
    }
    match csv.encoding {
        Encoding::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(),
        Encoding::Utf16le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        _ if random.random_bool(0.2) && (case.reading == Reading::ByName || csv.header || csv.skip_lines > 0) => {
            format!("\u{feff}{text}").into_bytes()
        }
        _ => text.into_bytes(),
    }
}

fn jsonl(case: &Case, rows: &[&Row], bad: u64, random: &mut SmallRng) -> Vec<u8> {
    let mut lines: Vec<String> = Vec::new();
    for row in rows {
        let mut object = serde_json::Map::new();
        if !case.table.key.is_empty() {
            object.insert("key".into(), row.key.into());
        }
        let times = time_text(case, row.time_us, random);
        let names: &[&str] = if case.written == Written::Two { &["day", "clock"] } else { &["ts"] };
        for (name, text) in names.iter().zip(times) {
            let is_number = matches!(case.written, Written::Epoch(_));
            object.insert((*name).into(), if is_number { text.parse::<i64>().unwrap().into() } else { text.into() });
        }
        match row.value {
            Some(value) => object.insert("v".into(), value.into()),
            None if random.random_bool(0.5) => object.insert("v".into(), "N/A".into()),
            None => None,
        };
        lines.push(serde_json::Value::Object(object).to_string());
    }
    for _ in 0..bad {
        let at = random.random_range(0..=lines.len());
        lines.insert(at, (*["{\"v\": 1", "[1, 2]", "{\"v\": 1}", "nothing"].choose(random).unwrap()).to_owned());
    }
    (lines.join("\n") + "\n").into_bytes()
}

impl RandomTable {
    /// The table of a seed; `None` if it happens to have no rows.
    pub fn of_seed(seed: u64, reading: Reading) -> Option<Self> {
        let case = case(seed, reading);
        if case.rows.is_empty() {
            return None;
        }
        let mut random = SmallRng::seed_from_u64(seed ^ 0x5eed);
        let (files, moved) = write(&case, &mut random);
        let part = random.random_range(0..=1_000);
        Some(Self { table: case.table.clone(), files, compression: case.compression, case, moved, part })
    }

    /// The columns of its files, in the order of those that are read by position.
    pub fn columns(&self) -> Vec<&'static str> {
        columns(&self.case.table, self.case.written)
    }

    /// Whether some lines cannot be read.
    pub fn has_broken_lines(&self) -> bool {
        self.case.bad > 0
    }
}

/// What a lake reads of a table is what was written: presence, the rows of a scan with their values, and what belongs to no slot. Nothing
/// depends on how much is asked for at once.
pub async fn what_was_written_is_what_is_read(lake: &dyn ReadLake, written: &RandomTable) {
    let RandomTable { case, moved, part, .. } = written;
    let (table, grid) = (&written.table, written.table.grid().unwrap());
    let slots = grid.slots_in(&case.interval);
    let keys: Vec<Key> = if table.key.is_empty() { vec![Key::default()] } else { ["a", "Z\u{fc}rich", "00123"].map(Key::from).to_vec() };
    let key_of = |row: &Row| if table.key.is_empty() { Key::default() } else { Key::from(row.key) };

    // The truth.
    let used = |by: i64| by.abs() <= 1;
    let mut bits: BTreeMap<(Key, i64), u32> = BTreeMap::new();
    let (mut others, mut misaligned, mut misplaced, mut stray) = (0, 0, 0, 0);
    for (row, by) in case.rows.iter().zip(moved) {
        if !used(*by) {
            stray += 1;
        } else if keys.contains(&key_of(row)) {
            match grid.slot_of_row(row.time_us) {
                Some(slot) => *bits.entry((key_of(row), slot)).or_default() += 1,
                None => misaligned += 1,
            }
            misplaced += u64::from(*by != 0);
        } else {
            others += 1;
        }
    }

    let request = PresenceRequest::new(slots, keys.clone(), Timestamp::MAX);
    let presence = lake.presence(table, &request).await.unwrap_or_else(|error| panic!("{}\n{table:#?}", error.full()));
    assert_same_in_pieces(lake, table, &request, &presence, &format!("{table:#?}")).await;
    let raw = &presence.raw;
    for (key, of_key) in &raw.keys {
        for slot in slots.first..slots.end {
            assert_eq!(of_key.present.contains(slot), bits.contains_key(&(key.clone(), slot)), "{key} {}\n{table:#?}", grid.start_of(slot));
        }
    }
    let in_slots: u64 = raw.keys.values().flat_map(|key| &key.rows).map(|rows| u64::from(*rows)).sum();
    assert_eq!(in_slots, bits.values().map(|rows| u64::from(*rows)).sum::<u64>());
    assert_eq!((raw.other_rows, raw.misaligned_rows, raw.misplaced_rows), (others, misaligned, misplaced), "{table:#?}");
    assert_eq!(raw.quarantine.rows(), case.bad, "{table:#?}");
    // Rows that are too far from their folder are counted where they are seen; a folder that cannot hold rows of the interval is not opened.
    let seen: u64 = raw.stray_rows.values().sum();
    assert!(seen <= stray, "{seen} of {stray}\n{table:#?}");
    if stray == seen {
        let written = case.rows.len() as u64 + case.bad;
        assert_eq!(in_slots + raw.misaligned_rows + raw.other_rows + seen + raw.quarantine.rows(), written, "rows add up");
    }

    // The same rows come from a scan, with their values; those that belong to no slot are not seen where repairs are.
    for layer in [Layer::Raw, Layer::Repaired] {
        let scan = ScanRequest::new(layer).in_interval(case.interval).with_columns(vec!["v".to_owned()]);
        let batches: Vec<RecordBatch> = lake.scan(table, &scan).await.unwrap().try_collect().await.unwrap();
        let mut read: Vec<(String, i64, Option<u64>)> = Vec::new();
        for batch in &batches {
            let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
            let values = batch.column_by_name("v").unwrap().as_primitive::<Float64Type>();
            for row in 0..batch.num_rows() {
                let key = batch.column_by_name("key").map_or("", |keys| keys.as_string::<i32>().value(row));
                read.push((key.to_owned(), times.value(row), values.is_valid(row).then(|| values.value(row).to_bits())));
            }
        }
        let kept = case.rows.iter().zip(moved).filter(|(_, by)| used(**by));
        let kept = kept.filter(|(row, _)| layer == Layer::Raw || grid.slot_of_row(row.time_us).is_some());
        let mut truth: Vec<_> = kept.map(|(row, _)| (row.key.to_owned(), row.time_us, row.value.map(f64::to_bits))).collect();
        read.sort_unstable();
        truth.sort_unstable();
        assert!(read == truth, "the rows of a scan of {layer:?} differ: {} read, {} written\n{table:#?}", read.len(), truth.len());
    }

    // Whatever part of the interval is asked for, the answer about a slot is the same.
    let half = slots.first + (slots.end - slots.first) * part / 1_000;
    for part in [SlotRange::new(slots.first, half), SlotRange::new(half, slots.end)] {
        let part_request = PresenceRequest::new(part, keys.clone(), Timestamp::MAX);
        let of_part = lake.presence(table, &part_request).await.unwrap();
        for (key, of_key) in &of_part.raw.keys {
            for slot in part.first..part.end {
                assert_eq!(of_key.present.contains(slot), bits.contains_key(&(key.clone(), slot)), "a part differs\n{table:#?}");
            }
        }
    }
}
