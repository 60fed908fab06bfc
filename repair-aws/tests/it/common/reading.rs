//! Tables as people have them: how each is declared in Athena, what its objects hold, and what must be read of it. The same statements run on
//! the sandbox's own engine and on a real Trino.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "each test uses some of it, and what fails, panics")]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::TryStreamExt;
use repair_core::ErrorKind;
use repair_core::lake::rollup::{Function, Measure, Rollup};
use repair_core::lake::{Layer, Overlay, PresenceRequest, ReadLake, ScanRequest, StageRequest, StageScope};
use repair_core::model::{
    BadRowLimit, Cadence, ColumnRule, ColumnType, Csv, EpochUnit, Fix, Format, Interval, Key, OnBadRow, PartitionUnit, Repeated, Skipped,
    Slack, Table, TablePresence, TimeForm, TimeReading, Zone,
};

use super::{BUCKET, DATABASE, World, at, collect, keys, parquet, texts};

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

/// A CSV table of strings, or of what is said.
async fn declare_csv(world: &World, name: &str, columns: &str, more: &str) {
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`{name}` ({columns}) ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde' LOCATION \
             's3://{BUCKET}/lake/{name}/' {more}"
        ))
        .await;
}

const HEADER: &str = "TBLPROPERTIES ('skip.header.line.count'='1')";

/// The rows of a layer, as texts.
async fn rows(world: &World, table: &Table, layer: Layer) -> Vec<String> {
    texts(&collect(world.lake.scan(table, &ScanRequest::new(layer)).await.unwrap()).await)
}

async fn rows_in(world: &World, table: &Table, from: &str, to: &str) -> Vec<String> {
    let request = ScanRequest::new(Layer::Raw).in_interval(Interval::new(at(from), at(to)).unwrap());
    texts(&collect(world.lake.scan(table, &request).await.unwrap()).await)
}

async fn look(world: &World, table: &Table, named: &[&str], from: &str, to: &str) -> repair_core::Result<TablePresence> {
    let interval = Interval::new(at(from), at(to)).unwrap();
    let slots = table.grid().unwrap().slots_in(&interval);
    let wanted = if named.is_empty() { vec![Key::new(Vec::<String>::new())] } else { keys(named) };
    world.lake.presence(table, &PresenceRequest::new(slots, wanted, at("2030-01-01T00:00:00Z"))).await
}

/// How many slots of a key hold rows.
fn present(presence: &TablePresence) -> u64 {
    presence.raw.keys.values().map(|key| key.present.count()).sum()
}

/// Texts as ISO 8601 writes them, with and without a zone, across the hour that the clock shows twice.
pub async fn times_as_iso_writes_them(world: &World) {
    declare_csv(world, "meter", "ts string, v string", HEADER).await;
    let lines = [
        "2022-11-05 23:00",
        "2022-11-06T00:30:00.1239",
        "2022-11-06 01:00",
        "2022-11-06T06:30:00Z",
        "2022-11-06 02:00:00-0500",
        "2022-11-06T08:00+00",
        "2022-11-06 09:00:00 UTC",
    ];
    let text: String = lines.iter().enumerate().map(|(at, time)| format!("{time},{at}\n")).collect();
    world.put("lake/meter/m.csv", format!("ts,v\n{text}"));
    let reading = TimeReading::default().with_zone(zone("America/New_York"));
    let table = Table::new("meter", Format::Csv, "ts").with_cadence("30m".parse().unwrap());
    for (repeated, one) in [(Repeated::Earlier, "2022-11-06T05:00:00Z|2"), (Repeated::Later, "2022-11-06T06:00:00Z|2")] {
        let table = table.clone().with_time(reading.clone().with_repeated(repeated));
        let expected = [
            "2022-11-06T03:00:00Z|0",
            "2022-11-06T04:30:00.123Z|1",
            one,
            "2022-11-06T06:30:00Z|3",
            "2022-11-06T07:00:00Z|4",
            "2022-11-06T08:00:00Z|5",
            "2022-11-06T09:00:00Z|6",
        ];
        assert_eq!(rows(world, &table, Layer::Raw).await, expected);
        assert_eq!(rows_in(world, &table, "2022-11-06T05:00:00Z", "2022-11-06T07:00:00Z").await, expected[2..4]);
        let found = look(world, &table, &[], "2022-11-06T03:00:00Z", "2022-11-06T10:00:00Z").await.unwrap();
        assert_eq!((present(&found), found.raw.misaligned_rows), (6, 1));
    }
    // Nobody says which of the two hours it is, or which clock it is.
    for reading in [reading, TimeReading::default()] {
        let error = look(world, &table.clone().with_time(reading), &[], "2022-11-06T03:00:00Z", "2022-11-06T10:00:00Z").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("of table `meter` cannot be read") && error.message().contains("lake/meter/m.csv"), "{error}");
    }
}

/// Date and time of day in two columns, marks of numbers, words for no value, lines before the header; a day of 25 hours.
pub async fn text_as_a_grid_operator_writes_it(world: &World) {
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`load` (`datum` string, `uhrzeit` string, `mwh` string, `price` string, `note` string) ROW FORMAT DELIMITED FIELDS \
             TERMINATED BY ';' LOCATION 's3://{BUCKET}/lake/load/' TBLPROPERTIES ('skip.header.line.count'='3')"
        ))
        .await;
    let mut text = "Marktdaten\nDeutschland\nDatum;Uhrzeit;MWh;Preis;Notiz\n".to_owned();
    for hour in [0, 1, 2, 2, 3, 23] {
        let again = text.matches(&format!("27.10.2024;{hour:02}:00")).count();
        text.push_str(&format!("27.10.2024;{hour:02}:00;1.2{hour:02}.345,5{again};{};-\n", if hour == 23 { "-" } else { "-3,75" }));
    }
    world.put("lake/load/a.csv", text);
    let mut csv = Csv::default();
    (csv.delimiter, csv.quote, csv.decimal, csv.thousands, csv.skip_lines) = (';', None, ',', Some('.'), 2);
    let reading = TimeReading::by_pattern("%d.%m.%Y %H:%M").with_columns(["datum", "uhrzeit"]).with_zone(zone("Europe/Berlin"));
    let table = Table::new("load", Format::Csv, "ts")
        .with_csv(csv)
        .with_nulls(["-"])
        .with_column("mwh", ColumnRule::of_type(ColumnType::Number))
        .with_column("price", ColumnRule::of_type(ColumnType::Decimal(10, 2)))
        .with_cadence(Cadence::HOUR)
        .with_time(reading.with_repeated(Repeated::Earlier));
    let request = ScanRequest::new(Layer::Raw).with_columns(vec!["mwh".to_owned(), "price".to_owned(), "note".to_owned()]);
    let found = texts(&collect(world.lake.scan(&table, &request).await.unwrap()).await);
    assert_eq!(
        found,
        [
            "1200345.5||-3.75|2024-10-26T22:00:00Z",
            "1201345.5||-3.75|2024-10-26T23:00:00Z",
            "1202345.51||-3.75|2024-10-27T00:00:00Z",
            "1202345.5||-3.75|2024-10-27T00:00:00Z",
            "1203345.5||-3.75|2024-10-27T02:00:00Z",
            "1223345.5|||2024-10-27T22:00:00Z",
        ]
        .map(|row| {
            let parts: Vec<&str> = row.split('|').collect();
            format!("{}|{}|{}|{}", parts[0], parts[2], parts[1], parts[3])
        })
    );
    let rollup = Rollup {
        interval: Interval::new(at("2024-10-26T00:00:00Z"), at("2024-10-28T00:00:00Z")).unwrap(),
        keys: vec![Key::new(Vec::<String>::new())],
        every: "1d".parse().unwrap(),
        within: Vec::new(),
        measures: vec![Measure { column: "mwh".to_owned(), function: Function::Max, name: "most".to_owned() }],
        absent_as_of: None,
    };
    let (sums, _) = world.lake.rollup(&table, &rollup).await.unwrap();
    let sums = texts(&sums);
    assert!(sums[0].starts_with("2024-10-26T00:00:00Z|1201345.5|") && sums[1].starts_with("2024-10-27T00:00:00Z|1223345.5|"), "{sums:?}");
    // The view shows what everybody means by these texts.
    let sql = "SELECT count(price), max(mwh), CAST(max(ts) AS varchar), count(repaired_by) FROM load_repaired";
    let shown = texts(&collect(world.lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), sql)).await.unwrap()).await);
    assert_eq!(shown, ["5|1223345.5|2024-10-27 22:00:00.000|0"]);
}

/// Numbers since 1970, of several magnitudes, in text and in Parquet; names of months; a clock's missing hour.
pub async fn times_in_other_forms(world: &World) {
    declare_csv(world, "klines", "open_time string, close string", "").await;
    world.put("lake/klines/1.csv", "1735689540000,1.5\n1735689600000000,2.5\n1735689660000999,3.5\n-1,4.5\n");
    let mut csv = Csv::default();
    (csv.header, csv.names) = (false, vec!["open_time".to_owned(), "close".to_owned()]);
    let table = Table::new("klines", Format::Csv, "open_time").with_csv(csv.clone()).with_cadence(Cadence::MINUTE);
    let mixed = table.clone().with_time(TimeReading::epoch([EpochUnit::Ms, EpochUnit::Us]));
    assert_eq!(
        rows(world, &mixed, Layer::Raw).await,
        ["1969-12-31T23:59:59.999Z|4.5", "2024-12-31T23:59:00Z|1.5", "2025-01-01T00:00:00Z|2.5", "2025-01-01T00:01:00Z|3.5"]
    );
    let only_ms = table.with_time(TimeReading::epoch([EpochUnit::Ms]));
    let error = look(world, &only_ms, &[], "2024-12-31T00:00:00Z", "2025-01-02T00:00:00Z").await.unwrap_err();
    assert!(error.message().starts_with("2 rows of table `klines` cannot be read"), "{error}");

    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`ticks` (at bigint, v double) STORED AS PARQUET LOCATION 's3://{BUCKET}/lake/ticks/'"
        ))
        .await;
    let numbers: Vec<(&str, ArrayRef)> = vec![
        ("at", Arc::new(Int64Array::from(vec![1_735_689_600_000_000_000, 1_735_689_660_000_999_999, -1_000_001]))),
        ("v", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
    ];
    world.put("lake/ticks/a.parquet", parquet(&RecordBatch::try_from_iter(numbers).unwrap()));
    let ticks = Table::new("ticks", Format::Parquet, "at").with_cadence(Cadence::MINUTE).with_time(TimeReading::epoch([EpochUnit::Ns]));
    let expected = ["1969-12-31T23:59:59.998Z|3.0", "2025-01-01T00:00:00Z|1.0", "2025-01-01T00:01:00Z|2.0"];
    assert_eq!(rows(world, &ticks, Layer::Raw).await, expected);
    assert_eq!(rows_in(world, &ticks, "2025-01-01T00:00:00Z", "2025-01-01T00:01:00Z").await, expected[1..2]);

    declare_csv(world, "letters", "sent string, n string", "").await;
    world.put("lake/letters/1.csv", "\"Sun, 31 Mar 2024 1:59 AM\",1\n\"Sun, 31 Mar 2024 2:30 AM\",2\n\"Sun, 31 Mar 2024 12:30 PM\",3\n");
    let reading = TimeReading::by_pattern("%a, %d %b %Y %I:%M %p").with_zone(zone("Europe/Berlin")).with_skipped(Skipped::Shift);
    csv.names = vec!["sent".to_owned(), "n".to_owned()];
    let letters = Table::new("letters", Format::Csv, "sent").with_csv(csv).with_time(reading);
    assert_eq!(rows(world, &letters, Layer::Raw).await, ["2024-03-31T00:59:00Z|1", "2024-03-31T01:30:00Z|2", "2024-03-31T10:30:00Z|3"]);
    // Another weekday, and an hour that the clock never shows.
    world.put("lake/letters/2.csv", "\"Mon, 31 Mar 2024 3:00 AM\",4\n");
    let quarantined = letters.clone().with_bad_rows(OnBadRow::Quarantine(BadRowLimit::Rows(2)));
    assert_eq!(rows(world, &quarantined, Layer::Raw).await.len(), 3);
}

/// Parquet timestamps of a local clock, and text in Parquet.
pub async fn timestamps_of_a_local_clock(world: &World) {
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`naive` (k string, ts timestamp, at string, v double) STORED AS PARQUET LOCATION 's3://{BUCKET}/lake/naive/'"
        ))
        .await;
    let of = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("k", Arc::new(StringArray::from(vec!["a"; 3]))),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(vec![
                of("2024-07-01T00:00:00Z"),
                of("2024-07-01T01:00:00Z"),
                of("2024-12-01T00:00:00Z"),
            ])),
        ),
        ("at", Arc::new(StringArray::from(vec!["2024/07/01 00:00", "2024/07/01 01:00", "2024/12/01 00:00"]))),
        ("v", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
    ];
    world.put("lake/naive/a.parquet", parquet(&RecordBatch::try_from_iter(columns).unwrap()));
    let table = Table::new("naive", Format::Parquet, "ts").with_key(["k"]).with_cadence(Cadence::HOUR);
    let local = table.clone().with_time(TimeReading::default().with_zone(zone("Europe/Berlin")));
    let text = Table::new("naive", Format::Parquet, "at")
        .with_key(["k"])
        .with_cadence(Cadence::HOUR)
        .with_time(TimeReading::by_pattern("%Y/%m/%d %H:%M").with_zone(zone("Europe/Berlin")));
    for (table, first) in [(table, "2024-07-01T00:00:00Z"), (local, "2024-06-30T22:00:00Z"), (text, "2024-06-30T22:00:00Z")] {
        let request = ScanRequest::new(Layer::Raw).with_columns(vec!["v".to_owned()]);
        let found = texts(&collect(world.lake.scan(&table, &request).await.unwrap()).await);
        assert!(found.len() == 3 && found.iter().any(|row| row.contains(first)), "{found:?}");
        let found = look(world, &table, &["a"], first, "2024-07-01T02:00:00Z").await.unwrap();
        assert_eq!(present(&found), 2);
    }
}

/// Times and keys that only the path has.
pub async fn times_in_the_path(world: &World) {
    declare_csv(world, "sales", "store string, sold string", HEADER).await;
    for (day, rows) in [("2024-03-04", "s1,5\ns2,7\n"), ("2024-03-05", "s1,6\n")] {
        world.put(&format!("lake/sales/north/sales_{day}_v2.csv"), format!("store,sold\n{rows}"));
    }
    let path: TimeForm = TimeForm::Path("{region}/sales_%Y-%m-%d_*.csv".parse().unwrap());
    let mut reading = TimeReading::default().with_zone(zone("Asia/Tokyo"));
    reading.form = path;
    let table = Table::new("sales", Format::Csv, "day").with_key(["region", "store"]).with_time(reading).with_cadence(Cadence::HOUR);
    assert_eq!(
        rows(world, &table, Layer::Raw).await,
        ["north|2024-03-03T15:00:00Z|s1|5", "north|2024-03-04T15:00:00Z|s1|6", "north|2024-03-03T15:00:00Z|s2|7"].map(|row| {
            let parts: Vec<&str> = row.split('|').collect();
            format!("{}|{}|{}|{}", parts[2], parts[3], parts[0], parts[1])
        })
    );
    // An hour that the clock shows twice is what the table says.
    declare_csv(world, "hours_of_sales", "store string, sold string", HEADER).await;
    for hour in ["2024102701", "2024102702", "2024102703"] {
        world.put(&format!("lake/hours_of_sales/{hour}.csv"), "store,sold\ns1,1\n".to_owned());
    }
    for (repeated, doubled) in [(Repeated::Earlier, Some("00")), (Repeated::Later, Some("01")), (Repeated::Refuse, None)] {
        let mut reading = TimeReading::default().with_zone(zone("Europe/Berlin")).with_repeated(repeated);
        reading.form = TimeForm::Path("%Y%m%d%H.csv".parse().unwrap());
        let table = Table::new("hours_of_sales", Format::Csv, "hour").with_key(["store"]).with_time(reading).with_cadence(Cadence::HOUR);
        match doubled {
            Some(doubled) => {
                let times = ["2024-10-26T23".to_owned(), format!("2024-10-27T{doubled}"), "2024-10-27T02".to_owned()];
                assert_eq!(rows(world, &table, Layer::Raw).await, times.map(|hour| format!("s1|1|{hour}:00:00Z")));
            }
            None => {
                let scanned = world.lake.scan(&table, &ScanRequest::new(Layer::Raw)).await;
                let failed = match scanned {
                    Ok(rows) => rows.try_collect::<Vec<_>>().await.is_err(),
                    Err(_) => true,
                };
                assert!(failed, "nobody knows which hour it is");
            }
        }
    }
    // An hour that the clock skips is the one after it, also when only that is asked for, and the hours are partitions.
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`skipped_hours` (store string, sold double) PARTITIONED BY (`of` string) STORED AS PARQUET \
             LOCATION 's3://{BUCKET}/lake/skipped_hours/'"
        ))
        .await;
    let mut reading = TimeReading::default().with_zone(zone("Europe/Berlin")).with_skipped(Skipped::Shift);
    reading.form = TimeForm::Path("of=%Y%m%d%H".parse().unwrap());
    let skipped = Table::new("skipped_hours", Format::Parquet, "hour").with_key(["store"]).with_time(reading).with_cadence(Cadence::HOUR);
    for hour in ["2024033101", "2024033102", "2024033104"] {
        let place = format!("s3://{BUCKET}/lake/skipped_hours/of={hour}/");
        world.define(&format!("ALTER TABLE `{DATABASE}`.`skipped_hours` ADD PARTITION (`of` = '{hour}') LOCATION '{place}'")).await;
        let columns: Vec<(&str, ArrayRef)> =
            vec![("store", Arc::new(StringArray::from(vec!["s1"]))), ("sold", Arc::new(Float64Array::from(vec![1.0])))];
        world.put(&format!("lake/skipped_hours/of={hour}/a.parquet"), parquet(&RecordBatch::try_from_iter(columns).unwrap()));
    }
    for (hour, count) in [(0, 1), (1, 1), (2, 1), (3, 0)] {
        let (from, to) = (format!("2024-03-31T0{hour}:00:00Z"), format!("2024-03-31T0{}:00:00Z", hour + 1));
        assert_eq!(present(&look(world, &skipped, &["s1"], &from, &to).await.unwrap()), count, "{from}");
    }
    // The column of the folders is the time, and not in the files.
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`days` (store string, sold double) PARTITIONED BY (`date` string) STORED AS PARQUET LOCATION \
             's3://{BUCKET}/lake/days/'"
        ))
        .await;
    let days = Table::new("days", Format::Parquet, "date")
        .with_key(["store"])
        .with_partition("date", PartitionUnit::Day)
        .with_cadence("1d".parse().unwrap());
    for day in ["2024-03-04", "2024-03-05", "2024-03-07"] {
        world.add_partition(&days, day).await;
        let columns: Vec<(&str, ArrayRef)> =
            vec![("store", Arc::new(StringArray::from(vec!["s1"]))), ("sold", Arc::new(Float64Array::from(vec![1.0])))];
        world.put(&format!("lake/days/date={day}/a.parquet"), parquet(&RecordBatch::try_from_iter(columns).unwrap()));
    }
    let found = look(world, &days, &["s1"], "2024-03-04T00:00:00Z", "2024-03-09T00:00:00Z").await.unwrap();
    assert_eq!((present(&found), found.raw.stray_rows.values().sum::<u64>()), (3, 0));
}

fn hours(rows: &[(&str, f64)]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| at(row.0).as_microsecond()));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("dev", Arc::new(StringArray::from(vec!["a"; rows.len()]))),
        ("ts", Arc::new(times.with_timezone("UTC"))),
        ("v", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.1)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A layout with what Athena calls it.
pub struct Layouts {
    name: &'static str,
    path: &'static str,
    zone: &'static str,
    partitions: &'static str,
    /// How a partition of `(folder, values)` is written for a local hour.
    of: fn(jiff::civil::DateTime) -> (String, String),
}

pub const LAYOUTS: [Layouts; 5] = [
    Layouts {
        name: "hive",
        path: "year=%Y/month=%m/day=%d/hour=%H",
        zone: "UTC",
        partitions: "year string, month string, day string, hour string",
        of: |at| {
            let folder = format!("year={}/month={}/day={}/hour={}", at.year(), at.month(), at.day(), at.hour());
            (folder, format!("year='{}', month='{}', day='{}', hour='{}'", at.year(), at.month(), at.day(), at.hour()))
        },
    },
    Layouts {
        name: "plain",
        path: "%Y/%m/%d/%H",
        zone: "UTC",
        partitions: "y int, m int, d int, h int",
        of: |at| {
            let folder = format!("{:04}/{:02}/{:02}/{:02}", at.year(), at.month(), at.day(), at.hour());
            (folder, format!("y={}, m={}, d={}, h={}", at.year(), at.month(), at.day(), at.hour()))
        },
    },
    Layouts {
        name: "compact",
        path: "dt=%Y%m%d",
        zone: "UTC",
        partitions: "dt string",
        of: |at| {
            let day = at.strftime("%Y%m%d");
            (format!("dt={day}"), format!("dt='{day}'"))
        },
    },
    Layouts {
        name: "projected",
        path: "%Y/%m/%d/%H",
        zone: "UTC",
        partitions: "datehour string",
        of: |at| {
            let hour = at.strftime("%Y/%m/%d/%H");
            (hour.to_string(), format!("datehour='{hour}'"))
        },
    },
    Layouts {
        name: "sydney",
        path: "day=%F",
        zone: "Australia/Sydney",
        partitions: "day date",
        of: |at| {
            let day = at.strftime("%F");
            (format!("day={day}"), format!("day='{day}'"))
        },
    },
];

/// Folders that carry the time: only those around a stretch are read, rows near their folder are used and counted, others never.
pub async fn folders_that_carry_the_time(world: &World, layout: &Layouts) {
    let Layouts { name, path, zone: of_zone, partitions, of } = layout;
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`{name}` (dev string, ts timestamp, v double) PARTITIONED BY ({partitions}) STORED AS PARQUET LOCATION \
             's3://{BUCKET}/lake/{name}/'"
        ))
        .await;
    let zone = zone(of_zone);
    let table = Table::new(*name, Format::Parquet, "ts")
        .with_key(["dev"])
        .with_layout(path.parse().unwrap(), zone.clone())
        .with_cadence(Cadence::HOUR);
    let hour = |number: i64| at("2024-03-04T20:00:00Z") + jiff::SignedDuration::from_hours(number);
    let add = async |of_hour: i64, rows: &[(i64, f64)], file: &str| {
        let (folder, values) = of(zone.local(hour(of_hour)));
        world
            .define(&format!(
                "ALTER TABLE `{DATABASE}`.`{name}` ADD IF NOT EXISTS PARTITION ({values}) LOCATION 's3://{BUCKET}/lake/{name}/{folder}/'"
            ))
            .await;
        let rows: Vec<(String, f64)> = rows.iter().map(|(number, value)| (hour(*number).to_string(), *value)).collect();
        let rows: Vec<(&str, f64)> = rows.iter().map(|row| (row.0.as_str(), row.1)).collect();
        world.put(&format!("lake/{name}/{folder}/{file}.parquet"), parquet(&hours(&rows)));
    };
    // Eight hours, of which the fifth is missing; the last is one folder early, and one row is far from where it belongs.
    for number in [0, 1, 2, 3, 5, 6] {
        add(number, &[(number, f64::from(i32::try_from(number).unwrap()))], &format!("h{number}")).await;
    }
    let unit_hours = if path.contains("%H") { 1 } else { 24 };
    add(7 - unit_hours, &[(7, 7.0)], "early").await;
    add(2 + 24 * 3, &[(2, 99.0)], "stray").await;
    let (from, to) = (hour(0).to_string(), hour(8).to_string());
    let found = look(world, &table, &["a"], &from, &to).await.unwrap();
    assert_eq!((present(&found), found.raw.misplaced_rows, found.raw.stray_rows.values().sum::<u64>()), (7, 1, 0), "{name}");
    // Whatever range is asked for: a range that reads the stray's folder does not use it.
    let wide = look(world, &table, &["a"], &from, &hour(24 * 5).to_string()).await.unwrap();
    assert_eq!((present(&wide), wide.raw.misplaced_rows, wide.raw.stray_rows.values().sum::<u64>()), (7, 1, 1), "{name}");
    assert_eq!(wide.raw.keys[&Key::from("a")].duplicates(), 0);
    // Who concludes something from what is not in the table hears of that row, whatever range it is about.
    let (doubt, _) = repair_core::plugin::doubt(&world.lake, &table, "the archive").await.unwrap();
    let doubt = doubt.unwrap();
    assert!(doubt.starts_with("1 row of the archive lies too far from the folder of their time"), "{name}: {doubt}");
    let all = rows(world, &table, Layer::Raw).await;
    assert_eq!(all.len(), 7, "{name}: {all:?}");
    assert_eq!(rows_in(world, &table, &hour(7).to_string(), &hour(8).to_string()).await.len(), 1, "{name}");
    let strict = table.clone().with_slack(Slack::Seconds(0));
    let found = look(world, &strict, &["a"], &from, &hour(24 * 5).to_string()).await.unwrap();
    // Without slack, the folder before the stretch is only opened if a part of it lies within.
    let seen = if zone.is_utc() { 2 } else { 1 };
    assert_eq!((present(&found), found.raw.misplaced_rows, found.raw.stray_rows.values().sum::<u64>()), (6, 0, seen), "{name}");

    // A repair of the misplaced row's slot is seen as one that the table has overtaken, and the view shows its partitions.
    let scope = StageScope { run: "one", step: "fill", visit: 1, table: &table };
    let fix =
        Fix { rows: vec![hours(&[(&hour(4).to_string(), 40.0), (&hour(7).to_string(), 70.0)])], source: "s".to_owned(), ..Fix::default() };
    world.lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    let found = look(world, &table, &["a"], &from, &to).await.unwrap();
    assert_eq!((found.repaired[&Key::from("a")].count(), found.overtaken[&Key::from("a")].count()), (1, 1), "{name}");
    let repaired = rows(world, &table, Layer::Repaired).await;
    assert_eq!((repaired.len(), repaired.iter().filter(|row| row.contains("backfill")).count()), (8, 1), "{name}: {repaired:?}");
    let columns: Vec<&str> = partitions.split(", ").map(|column| column.split(' ').next().unwrap()).collect();
    let shown: Vec<String> = columns.iter().map(|column| format!("CAST({column} AS varchar)")).collect();
    let sql = format!("SELECT CAST(v AS integer), {} FROM {name}_repaired WHERE v = 40.0 OR v = 7.0 ORDER BY 1", shown.join(", "));
    let view = texts(&collect(world.lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), &sql)).await.unwrap()).await);
    let padded = |values: &str| {
        let values: Vec<String> = values
            .split(", ")
            .map(|pair| {
                let value = pair.split_once('=').unwrap().1;
                // Where numbers are text, ours have all their digits.
                let bare = value.trim_matches('\'');
                if value.starts_with('\'') && bare.len() == 1 { format!("0{bare}") } else { bare.to_owned() }
            })
            .collect();
        values.join("|")
    };
    let plain = |values: &str| {
        values.split(", ").map(|pair| pair.split_once('=').unwrap().1.trim_matches('\'').to_owned()).collect::<Vec<_>>().join("|")
    };
    assert_eq!(
        view,
        [format!("40|{}", padded(&of(zone.local(hour(4))).1)), format!("7|{}", plain(&of(zone.local(hour(7 - unit_hours))).1))],
        "{name}"
    );
    // Only the objects of the folders around a stretch are counted.
    let near = world.lake.extent(&table, Some(&Interval::new(at(&from), at(&to)).unwrap())).await.unwrap();
    let whole = world.lake.extent(&table, None).await.unwrap();
    assert_eq!(whole.objects - near.objects, 1, "{name}");
}

/// Rows that cannot be read: refused, or left out, counted and listed up to a limit.
pub async fn rows_that_cannot_be_read(world: &World) {
    declare_csv(world, "broken", "k string, ts string, v string", HEADER).await;
    world.put("lake/broken/a.csv", "k,ts,v\na,2024-03-04T00:00:00Z,1\na,oops,2\na,2024-03-04T02:00:00Z,x\n,2024-03-04T03:00:00Z,4\n");
    let more: String = (10..20).map(|hour| format!("a,2024-03-04T{hour}:00:00Z,{hour}\n")).collect();
    world.put("lake/broken/b.csv", format!("k,ts,v\n{more}k,ts,v\n"));
    let table = Table::new("broken", Format::Csv, "ts")
        .with_key(["k"])
        .with_cadence(Cadence::HOUR)
        .with_column("v", ColumnRule::of_type(ColumnType::Number));
    let day = ("2024-03-04T00:00:00Z", "2024-03-05T00:00:00Z");
    let error = look(world, &table, &["a"], day.0, day.1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.message().starts_with("3 rows of table `broken` cannot be read") && error.message().contains("lake/broken/a.csv"),
        "{error}"
    );

    let quarantine = |limit: &str| table.clone().with_bad_rows(OnBadRow::Quarantine(limit.parse().unwrap()));
    let found = look(world, &quarantine("27%"), &["a"], day.0, day.1).await.unwrap();
    // Whether a row is left out does not depend on what is read of it, so a value that presence does not need counts, too.
    assert_eq!((present(&found), found.raw.quarantine.rows()), (11, 4));
    let listed: Vec<(&str, Option<&str>)> =
        found.raw.quarantine.iter().map(|row| (row.file.rsplit('/').next().unwrap(), row.column.as_deref())).collect();
    assert_eq!(listed, [("a.csv", Some("k")), ("a.csv", Some("ts")), ("a.csv", Some("v")), ("b.csv", Some("ts"))]);
    let error = look(world, &quarantine("26%"), &["a"], day.0, day.1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Blind);
    assert!(
        error
            .message()
            .starts_with("4 of 15 rows of table `broken` cannot be read, which is more than the limit of 26%; the first is in s3://"),
        "{error}"
    );
    assert_eq!(look(world, &quarantine("3"), &["a"], day.0, day.1).await.unwrap_err().kind(), ErrorKind::Blind);

    let scanned = async |table: &Table| {
        let stream = world.lake.scan(table, &ScanRequest::new(Layer::Raw)).await?;
        let batches: Vec<RecordBatch> = stream.try_collect().await?;
        Ok::<_, repair_core::Error>(batches.iter().map(RecordBatch::num_rows).sum::<usize>())
    };
    // A scan reads the values, too: four rows are bad.
    assert_eq!(scanned(&quarantine("4")).await.unwrap(), 11);
    assert_eq!(scanned(&quarantine("27%")).await.unwrap(), 11);
    for limit in ["3", "26%"] {
        assert_eq!(scanned(&quarantine(limit)).await.unwrap_err().kind(), ErrorKind::Blind, "{limit}");
    }
    let error = scanned(&table).await.unwrap_err();
    assert!(error.message().starts_with("4 rows of table `broken` cannot be read"), "{error}");
    let rollup = Rollup {
        interval: Interval::new(at(day.0), at(day.1)).unwrap(),
        keys: keys(&["a"]),
        every: "1d".parse().unwrap(),
        within: Vec::new(),
        measures: vec![Measure { column: "v".to_owned(), function: Function::Sum, name: "sum".to_owned() }],
        absent_as_of: None,
    };
    let (sums, _) = world.lake.rollup(&quarantine("4"), &rollup).await.unwrap();
    assert_eq!(texts(&sums), ["a|2024-03-04T00:00:00Z|146.0|11|0|0"]);
    assert_eq!(world.lake.rollup(&quarantine("1%"), &rollup).await.unwrap_err().kind(), ErrorKind::Blind);
    assert_eq!(world.lake.rollup(&table, &rollup).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Values of other types than the table says, from within nested rows, and files that are not data.
pub async fn values_and_files(world: &World) {
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`nested` (meta struct<site:string,at:string>, reading struct<kwh:double>, n bigint) ROW FORMAT SERDE \
             'org.openx.data.jsonserde.JsonSerDe' LOCATION 's3://{BUCKET}/lake/nested/'"
        ))
        .await;
    world.put(
        "lake/nested/a.jsonl",
        "{\"meta\":{\"site\":\"n\",\"at\":\"2024-03-04T00:00:00Z\"},\"reading\":{\"kwh\":1.5},\"n\":9007199254740993}\n\
         {\"meta\":{\"site\":\"n\",\"at\":\"2024-03-04T01:00:00Z\"},\"reading\":{},\"n\":3}\n",
    );
    let table = Table::new("nested", Format::Jsonl, "at")
        .with_key(["site"])
        .with_cadence(Cadence::HOUR)
        .with_column("site", ColumnRule::default().at_path("meta.site"))
        .with_column("at", ColumnRule::default().at_path("meta.at"))
        .with_column("kwh", ColumnRule::default().at_path("reading.kwh"));
    let request = ScanRequest::new(Layer::Raw).with_columns(vec!["kwh".to_owned()]);
    let found = texts(&collect(world.lake.scan(&table, &request).await.unwrap()).await);
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|row| row.contains("1.5")), "{found:?}");
    let found = look(world, &table, &["n"], "2024-03-04T00:00:00Z", "2024-03-04T03:00:00Z").await.unwrap();
    assert_eq!(present(&found), 2);
    // The view has what a path makes a column, and not the record in which it would be as it was before a repair.
    let filled: Vec<(&str, ArrayRef)> = vec![
        ("site", Arc::new(StringArray::from(vec!["n"]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![at("2024-03-04T02:00:00Z").as_microsecond()]).with_timezone("UTC"))),
        ("kwh", Arc::new(Float64Array::from(vec![2.5]))),
    ];
    let fix = Fix { rows: vec![RecordBatch::try_from_iter(filled).unwrap()], source: "s".to_owned(), ..Fix::default() };
    let scope = StageScope { run: "one", step: "fill", visit: 1, table: &table };
    world.lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    let all = repair_core::lake::Query::new(std::slice::from_ref(&table), "SELECT * FROM nested_repaired");
    let all = collect(world.lake.query(&all).await.unwrap()).await;
    let names: Vec<&str> = all[0].schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert!(all.iter().map(RecordBatch::num_rows).sum::<usize>() == 3 && names.contains(&"kwh"), "{names:?}");
    assert!(!names.contains(&"meta") && !names.contains(&"reading"), "{names:?}");
    // A whole number that no float can hold is not rounded silently.
    let floats = table.with_column("n", ColumnRule::of_type(ColumnType::Number));
    let error = {
        let request = ScanRequest::new(Layer::Raw).with_columns(vec!["n".to_owned()]);
        world.lake.scan(&floats, &request).await.unwrap().try_collect::<Vec<_>>().await.unwrap_err()
    };
    assert!(error.message().starts_with("1 row of table `nested` cannot be read") && error.message().contains("column `n`"), "{error}");

    declare_csv(world, "mixed", "ts string, v string", HEADER).await;
    world.put("lake/mixed/a.csv", "ts,v\n2024-03-04T00:00:00Z,1\n");
    world.put("lake/mixed/README.md", "# about\nthese files\n");
    world.put("lake/mixed/old/b.csv", "ts,v\n2024-03-04T01:00:00Z,2\n");
    let table = Table::new("mixed", Format::Csv, "ts").with_ignored(["*.md", "old/*"]).with_cadence(Cadence::HOUR);
    assert_eq!(rows(world, &table, Layer::Raw).await, ["2024-03-04T00:00:00Z|1"]);
    assert_eq!(world.lake.extent(&table, None).await.unwrap().objects, 1);
}

/// Meters whose numbers are floats, in folders that hold the region, and the table of sites that lists them with their lifetimes.
pub async fn meters_and_sites(world: &World) -> (Table, Table) {
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`meters` (meter double, ts timestamp) PARTITIONED BY (region string, day string) STORED AS PARQUET LOCATION \
             's3://{BUCKET}/lake/meters/'"
        ))
        .await;
    let meters = Table::new("meters", Format::Parquet, "ts")
        .with_key(["region", "meter"])
        .with_layout("region={region}/day=%F".parse().unwrap(), Zone::utc())
        .with_cadence(Cadence::HOUR);
    let hour = |number: i64| at("2024-03-04T00:00:00Z") + jiff::SignedDuration::from_hours(number);
    for (region, day, rows) in [
        (
            "north",
            0,
            (0..24).filter(|hour| *hour != 7).map(|hour| (4711.0, hour)).chain((0..24).map(|hour| (4712.0, hour))).collect::<Vec<_>>(),
        ),
        ("north", 1, (24..48).map(|hour| (4711.0, hour)).collect()),
        ("south", 0, (0..24).map(|hour| (4711.0, hour)).chain([(9.0, 1), (9.0, 2), (9.0, 2), (10.0, 3)]).collect()),
        ("south", 1, (24..27).map(|hour| (4711.0, hour)).chain((11..20).map(|other| (f64::from(other), 30))).collect()),
        ("south", 9, vec![(4711.5, 9 * 24)]),
    ] {
        let folder = format!("region={region}/day={}", Zone::utc().local(hour(day * 24)).date());
        let values = folder.replace('/', "', ").replace('=', "='");
        world
            .define(&format!("ALTER TABLE `{DATABASE}`.`meters` ADD PARTITION ({values}') LOCATION 's3://{BUCKET}/lake/meters/{folder}/'"))
            .await;
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| hour(row.1).as_microsecond()));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("meter", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.0)))),
            ("ts", Arc::new(times.with_timezone("UTC"))),
        ];
        world.put(&format!("lake/meters/{folder}/a.parquet"), parquet(&RecordBatch::try_from_iter(columns).unwrap()));
    }
    declare_csv(world, "sites", "region string, meter string, entered string, opened string, closed string", HEADER).await;
    let sites = "region,meter,entered,opened,closed\nnorth,4711,2024-01-01,2024-03-04T06:00:00Z,\nnorth,4712,2024-01-01,2024-03-04,2024-03-04\n\
                 south,4711,2024-01-01,,2024-03-05T03:00:00Z\nsouth,9,2024-01-01,2025-01-01,\n";
    world.put("lake/sites/sites.csv", sites);
    (meters, Table::new("sites", Format::Csv, "entered").with_time(TimeReading::default().with_zone(Zone::utc())))
}

/// Whole numbers that are stored as floats are keys, and other numbers are refused in words.
pub async fn floats_as_keys(world: &World) {
    let table = Table::new("floats", Format::Parquet, "ts").with_key(["meter"]).with_cadence(Cadence::HOUR);
    world.declare(&table, &[("meter", "double"), ("ts", "timestamp")]).await;
    let write = |file: &str, meter: f64, number: i64| {
        let time = at("2024-03-04T00:00:00Z") + jiff::SignedDuration::from_hours(number);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("meter", Arc::new(Float64Array::from(vec![meter]))),
            ("ts", Arc::new(TimestampMicrosecondArray::from(vec![time.as_microsecond()]).with_timezone("UTC"))),
        ];
        world.put(&format!("lake/floats/{file}.parquet"), parquet(&RecordBatch::try_from_iter(columns).unwrap()));
    };
    write("a", 4711.0, 1);
    let (from, to) = ("2024-03-04T00:00:00Z", "2024-03-05T00:00:00Z");
    assert_eq!(present(&look(world, &table, &["4711"], from, to).await.unwrap()), 1);
    assert_eq!(rows(world, &table, Layer::Raw).await, ["4711|2024-03-04T01:00:00Z"]);
    write("b", 4711.5, 2);
    let scanned = async {
        let rows = world.lake.scan(&table, &ScanRequest::new(Layer::Raw)).await.unwrap();
        futures::TryStreamExt::try_collect::<Vec<_>>(rows).await.unwrap_err()
    };
    for error in [look(world, &table, &["4711"], from, to).await.unwrap_err(), scanned.await] {
        assert!(error.message().contains("a number that is not whole (column `meter` holds floats"), "{error}");
    }
}

/// Numbers that no float holds are no infinity, and a plus is a sign as a minus is.
pub async fn numbers_at_their_limits(world: &World) {
    declare_csv(world, "limits", "ts string, v string, price string", HEADER).await;
    let csv = "ts,v,price\n2024-03-04T00:00:00Z,+1.5e3,+5.25\n2024-03-04T01:00:00Z,inf,-5\n";
    world.put("lake/limits/a.csv", csv);
    let table = Table::new("limits", Format::Csv, "ts")
        .with_cadence(Cadence::HOUR)
        .with_column("v", ColumnRule::of_type(ColumnType::Number))
        .with_column("price", ColumnRule::of_type(ColumnType::Decimal(10, 2)));
    assert_eq!(rows(world, &table, Layer::Raw).await, ["2024-03-04T00:00:00Z|1500.0|5.25", "2024-03-04T01:00:00Z|inf|-5.00"]);
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`limits2` (ts string, v double) ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe' LOCATION \
             's3://{BUCKET}/lake/limits2/'"
        ))
        .await;
    let json = "{\"ts\":\"2024-03-04T00:00:00Z\",\"v\":1.5}\n{\"ts\":\"2024-03-04T01:00:00Z\"}\n";
    world.put("lake/limits2/a.jsonl", json);
    let lines = Table::new("limits2", Format::Jsonl, "ts").with_cadence(Cadence::HOUR);
    assert_eq!(rows(world, &lines, Layer::Raw).await, ["2024-03-04T00:00:00Z|1.5", "2024-03-04T01:00:00Z|"]);
    world.put("lake/limits/a.csv", csv.replace("inf", "1e400"));
    world.put("lake/limits2/a.jsonl", json.replace("1.5", "-1e400"));
    let declared = lines.clone().with_column("v", ColumnRule::of_type(ColumnType::Number));
    for table in [&table, &lines, &declared] {
        let error = match world.lake.scan(table, &ScanRequest::new(Layer::Raw)).await {
            Ok(scan) => scan.try_collect::<Vec<_>>().await.unwrap_err(),
            Err(error) => error,
        };
        let is_named = error.message().starts_with("1 row of table `limits") && error.message().contains("column `v`");
        // Some readers of JSON refuse it themselves.
        let is_refused = table.format == Format::Jsonl && error.message().contains("HIVE_BAD_DATA");
        assert!(is_named || is_refused, "{error}");
    }
}

/// What a person's SQL sees of declared types, words for no value and times: in the table and in the repaired view, on both of which it is refused
/// what cannot be read.
pub async fn declared_types_in_sql(world: &World) {
    declare_csv(world, "dial", "k string, ts string, v string, note string", HEADER).await;
    world.put("lake/dial/a.csv", "k,ts,v,note\na,2024-03-04T00:00:00Z,9,\na,2024-03-04T01:00:00Z,10,-\na,2024-03-04T02:00:00Z,-,dry\n");
    let table = Table::new("dial", Format::Csv, "ts")
        .with_key(["k"])
        .with_cadence(Cadence::HOUR)
        .with_nulls(["-"])
        .with_column("v", ColumnRule::of_type(ColumnType::Integer));
    let tables = std::slice::from_ref(&table);
    let ask = async |sql: &str| {
        let asked = world.reopened();
        let rows = asked.query(&repair_core::lake::Query::new(tables, sql)).await?.try_collect::<Vec<RecordBatch>>().await?;
        Ok::<_, repair_core::Error>(texts(&rows))
    };
    let refused = async |sql: &str| {
        let error = ask(sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.message().to_owned()
    };
    // As text, 9 is more than 10.
    let sum = "SELECT max(v), count(v), count(note), count(*) FROM DIAL WHERE ts >= TIMESTAMP '2024-03-04 00:00:00'";
    assert_eq!(ask(sum).await.unwrap(), ["10|2|1|3"]);
    assert_eq!(ask("WITH low AS (SELECT * FROM \"dial\" WHERE v < 10) SELECT count(*) FROM low").await.unwrap(), ["1"]);
    assert!(refused(&format!("SELECT v FROM {DATABASE}.dial")).await.contains("write `dial` alone"));
    assert!(refused("WITH dial AS (SELECT 1 AS x) SELECT * FROM dial").await.contains("give it another name"));

    let time = Arc::new(TimestampMicrosecondArray::from(vec![at("2024-03-04T03:00:00Z").as_microsecond()]).with_timezone("UTC"));
    let filled: Vec<(&str, ArrayRef)> =
        vec![("k", Arc::new(StringArray::from(vec!["a"]))), ("ts", time), ("v", Arc::new(Int64Array::from(vec![12])))];
    let fix = Fix { rows: vec![RecordBatch::try_from_iter(filled).unwrap()], source: "s".to_owned(), ..Fix::default() };
    let scope = StageScope { run: "dial", step: "fill", visit: 1, table: &table };
    world.lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    assert_eq!(ask("SELECT max(v), count(v), count(*) FROM dial_repaired").await.unwrap(), ["12|3|4"]);

    // A value that is not of its type is refused where it is asked for, and no other column is.
    world.put("lake/dial/b.csv", "k,ts,v,note\na,2024-03-04T04:00:00Z,1 2>>',bad\na,2024-03-04T05:00:00Z,7,good\n");
    for name in ["dial", "dial_repaired"] {
        assert!(
            ask(&format!("SELECT k, note FROM {name} WHERE ts > TIMESTAMP '2024-03-04 03:30:00' ORDER BY ts")).await.unwrap()
                == ["a|bad", "a|good"]
        );
        for what in ["max(v)", "count(*) FILTER (WHERE v > 100)", "CAST(sum(v) AS varchar)"] {
            let said = refused(&format!("SELECT {what} FROM {name}")).await;
            let value = "column `v` of table `dial` has the value `1 2>>'`, which cannot be read as the table declares it (s3://";
            assert!(said.starts_with(value) && said.contains("/lake/dial/b.csv); correct the file"), "{said}");
        }
    }
    // A row without a time is in no condition on times, and in none that it can be left out of.
    world.put("lake/dial/b.csv", "k,ts,v,note\na,4 March,11,\n");
    for name in ["dial", "dial_repaired"] {
        for what in ["max(v)", "count(*)"] {
            for within in ["", " WHERE ts >= TIMESTAMP '2024-03-04 01:00:00'"] {
                let said = refused(&format!("SELECT {what} FROM {name}{within}")).await;
                let value = "there is no value in column `ts` of table `dial` that can be read as the table declares it (s3://";
                assert!(said.starts_with(value), "{name} {what} {within}: {said}");
            }
        }
    }
    // Where such rows are left out, they are not there.
    world.put("lake/dial/c.csv", "k,ts,v,note\na,2024-03-04T06:00:00Z,x,\n");
    let lenient = table.clone().with_bad_rows(OnBadRow::Quarantine("5".parse().unwrap()));
    let sql = "SELECT count(*), max(v) FROM dial";
    let asked = world.reopened();
    let rows = collect(asked.query(&repair_core::lake::Query::new(std::slice::from_ref(&lenient), sql)).await.unwrap()).await;
    assert_eq!(texts(&rows), ["3|10"]);
    // What the table ignores is no part of it.
    let less = table.clone().with_ignored(["b.csv", "c.csv"]);
    let rows = collect(asked.query(&repair_core::lake::Query::new(std::slice::from_ref(&less), sql)).await.unwrap()).await;
    assert_eq!(texts(&rows), ["3|10"]);
}
