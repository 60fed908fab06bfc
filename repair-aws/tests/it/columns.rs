//! A workflow whose names are in capital letters, on Athena, whose catalog has all names in lower case.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::*;
use repair_core::lake::rollup::{Function, Measure, Rollup};
use repair_core::lake::{Layer, Overlay, PresenceRequest, ReadLake, ScanRequest, StageRequest, StageScope};
use repair_core::model::{Cadence, Fix, Format, Interval, Partition, PartitionUnit, Table};

/// The table of a workflow: times mark the start of five minutes.
fn dispatch() -> Table {
    Table {
        name: "Dispatch".into(),
        location: "dispatch".into(),
        key: vec!["REGIONID".into()],
        time: "SETTLEMENTDATE".into(),
        partition_by: vec![Partition { column: "Day".into(), unit: PartitionUnit::Day }],
        cadence: Some(Cadence::from_seconds(300).unwrap()),
        ..bars()
    }
}

fn demand(rows: &[(&str, f64)]) -> arrow::array::RecordBatch {
    let rows: Vec<_> = rows.iter().map(|(time, demand)| ("NSW1", *time, *demand)).collect();
    let plain = crate::common::rows(&rows);
    let columns = [("REGIONID", 0), ("SETTLEMENTDATE", 1), ("TOTALDEMAND", 2)].map(|(name, at)| (name, plain.column(at).clone()));
    arrow::array::RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_found_by_names_in_any_case() {
    let (world, table) = (World::new().await, dispatch());
    assert_eq!(table.format, Format::Parquet);
    world.declare(&table, &[("regionid", "string"), ("settlementdate", "timestamp"), ("totaldemand", "double")]).await;
    world.add_partition(&table, "2024-03-04").await;
    let batch = demand(&[("2024-03-04T00:00:00Z", 10.0), ("2024-03-04T00:10:00Z", 30.0)]);
    world.put("lake/dispatch/Day=2024-03-04/a.parquet", parquet(&batch));

    let described = world.lake.describe(&table).await.unwrap();
    let names: Vec<&str> = described.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["REGIONID", "SETTLEMENTDATE", "totaldemand"], "key and time have the workflow's names");
    let slots = table.grid().unwrap().slots_in(&Interval::parse("2024-03-04T00:00:00Z", "2024-03-04T00:15:00Z").unwrap());
    let missing = async || {
        let request = PresenceRequest::new(slots, keys(&["NSW1"]), at("2024-04-01T00:00:00Z"));
        let found = world.lake.presence(&table, &request).await.unwrap();
        let (raw, repaired) = (&found.raw.keys[&keys(&["NSW1"])[0]], &found.repaired[&keys(&["NSW1"])[0]]);
        slots.len() - raw.present.count() - repaired.count()
    };
    assert_eq!(missing().await, 1);

    let fix = Fix { rows: vec![demand(&[("2024-03-04T00:05:00Z", 20.0)])], source: "vendor".into(), ..Fix::default() };
    let scope = StageScope { run: "run", step: "fill", visit: 1, table: &table };
    world.lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix)).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    assert_eq!(missing().await, 0);

    let request = ScanRequest::new(Layer::Repaired).with_columns(vec!["TOTALDEMAND".to_owned()]).of_keys(keys(&["NSW1"]));
    let scanned = collect(world.lake.scan(&table, &request).await.unwrap()).await;
    let names: Vec<String> = scanned[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["REGIONID", "SETTLEMENTDATE", "TOTALDEMAND", "repaired_by", "repaired_cells"]);
    assert_eq!(
        texts(&scanned),
        ["NSW1|2024-03-04T00:00:00Z|10.0||", "NSW1|2024-03-04T00:05:00Z|20.0|backfill|", "NSW1|2024-03-04T00:10:00Z|30.0||"]
    );
    let measure = Measure { name: "mw".into(), column: "TotalDemand".into(), function: Function::Sum };
    let interval = Interval::parse("2024-03-04", "2024-03-04").unwrap();
    let rollup =
        Rollup { interval, within: vec![], keys: keys(&["NSW1"]), every: Cadence::HOUR, measures: vec![measure], absent_as_of: None };
    let (rolled, _) = world.lake.rollup(&table, &rollup).await.unwrap();
    assert_eq!(texts(&rolled), ["NSW1|2024-03-04T00:00:00Z|60.0|2|1|0"]);

    for sql in [
        "SELECT REGIONID, sum(TOTALDEMAND) AS mw, count(repaired_by) AS n FROM Dispatch_repaired GROUP BY 1",
        r#"SELECT "REGIONID", sum("TotalDemand") AS mw, count(repaired_by) AS n FROM dispatch_repaired GROUP BY "REGIONID""#,
    ] {
        let found = collect(world.lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), sql)).await.unwrap()).await;
        assert_eq!(texts(&found), ["NSW1|60.0|1"], "{sql}");
    }
    let objects = world.objects("lake/dispatch_repairs/");
    assert!(objects.len() == 1 && objects[0].starts_with("lake/dispatch_repairs/Day=2024-03-04/"), "{objects:?}");
}
