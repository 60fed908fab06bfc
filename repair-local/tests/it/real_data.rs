//! Real files with real holes: what is missing is what their README says. They lie outside of the lake, and are never written to.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use std::path::Path;

use crate::common::*;
use repair_core::Result;
use repair_core::lake::{Lake, Layer, ReadLake};
use repair_core::model::{Cadence, Format, Interval, Key, Table, TablePresence, TimeMark};

fn table(folder: &Path, key: &[&str], cadence: Cadence, time_marks: TimeMark) -> Table {
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    let location = folder.to_str().unwrap().to_owned();
    Table { name: "real".into(), location, format: Format::Csv, key, cadence: Some(cadence), time_marks, ..bars() }
}

/// Missing slots of all keys, after checking that nothing else is odd.
async fn missing(world: &World, table: &Table, from: &str, to: &str, keys: &[&str]) -> Result<(u64, u64)> {
    let request = whole(table, from, to, keys);
    let TablePresence { raw, .. } = world.lake.presence(table, &request).await?;
    assert_eq!((raw.other_rows, raw.misaligned_rows), (0, 0));
    assert!(raw.keys.values().all(|key| key.duplicates() == 0));
    let expected = request.slots.len() * raw.keys.len() as u64;
    let present: u64 = raw.keys.values().map(|key| key.present.count()).sum();
    Ok((expected, expected - present))
}

#[tokio::test]
async fn crypto_misses_1_833_minutes() {
    let folder = testdata::unpack("crypto-minute");
    let world = World::new();
    let table = table(&folder, &["symbol"], Cadence::MINUTE, TimeMark::Start);
    let symbols = ["BTCUSD", "ETHUSD", "LTCUSD", "BTCEUR"];
    assert_eq!(missing(&world, &table, "2018-04-04", "2018-04-05", &symbols).await.unwrap(), (11_520, 11_520 - 9_687));
    // A table outside of the root is read, and nothing is written beside it, but below the root.
    repair(
        &world.lake,
        &table,
        "run",
        &[],
        vec![absence("BTCEUR", whole(&table, "2018-04-04", "2018-04-04", &[]).slots, "2029-01-01T00:00:00Z")],
    )
    .await;
    assert!(world.root().join("real_exceptions").is_dir());
    assert!(!folder.parent().unwrap().join("crypto-minute_exceptions").exists());
    let error = world.lake.replace(&table, &Interval::parse("2018-04-04", "2018-04-05").unwrap(), vec![]).await.unwrap_err();
    assert!(error.message().contains("we write nowhere else"), "{error}");
}

#[tokio::test]
async fn one_house_misses_3_723_minutes() {
    let folder = testdata::unpack("household-power-minute");
    let world = World::new();
    let table = table(&folder.join("2007-04.csv"), &[], Cadence::MINUTE, TimeMark::Start);
    assert_eq!(missing(&world, &table, "2007-04-01", "2007-04-30", &[]).await.unwrap(), (43_200, 3_723));
}

#[tokio::test]
async fn power_misses_4_484_hours_if_time_marks_the_end() {
    let folder = testdata::unpack("us-power-hourly");
    let world = World::new();
    let table = table(&folder, &["ba"], Cadence::HOUR, TimeMark::End);
    let authorities = ["AZPS", "CISO", "DUK", "FPC", "NEVP", "NYIS", "PSCO", "PSEI", "TEPC", "WACM", "WALC"];
    // 2018-01-01T00:00Z ends the last hour of 2017.
    let year = ("2017-12-31T23:00:00Z", "2018-12-31T23:00:00Z");
    assert_eq!(missing(&world, &table, year.0, year.1, &authorities).await.unwrap(), (96_360, 4_484));
    let schema = world.lake.describe(&table).await.unwrap();
    assert_eq!(schema.field(2).data_type(), &arrow::datatypes::DataType::Int64);
}

#[tokio::test]
async fn air_misses_4_423_hours() {
    let folder = testdata::unpack("air-quality-hourly");
    let world = World::new();
    let table = table(&folder, &["sensor"], Cadence::HOUR, TimeMark::Start);
    let scan = world.lake.scan(&table, &all(Layer::Raw).with_columns(vec![])).await.unwrap();
    let mut sensors: Vec<String> = Vec::new();
    let mut rows = 0;
    for batch in collect(scan).await.unwrap() {
        rows += batch.num_rows();
        let names = arrow::array::AsArray::as_string::<i32>(batch.column_by_name("sensor").unwrap());
        sensors.extend(names.iter().flatten().map(str::to_owned));
        sensors.dedup();
    }
    sensors.sort();
    sensors.dedup();
    assert_eq!((rows, sensors.len()), (42_362, 5));
    let names: Vec<&str> = sensors.iter().map(String::as_str).collect();
    let span = ("2004-03-10T18:00:00Z", "2005-04-04T15:00:00Z");
    assert_eq!(missing(&world, &table, span.0, span.1, &names).await.unwrap(), (46_785, 46_785 - 42_362));
    assert!(
        world.lake.presence(&table, &whole(&table, span.0, span.1, &["benzene"])).await.unwrap().raw.keys[&Key::from("benzene")]
            .present
            .count()
            > 0
    );
}
