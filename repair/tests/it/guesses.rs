//! What repairers that copy, draw lines and estimate may use: values of the table's own that nothing has found wrong, whichever step found it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::collections::BTreeMap;

use crate::common::{World, output};
use futures::TryStreamExt;
use repair::RunReport;
use repair::arrow::array::{Array, AsArray};
use repair::arrow::compute::cast;
use repair::arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use repair::core::lake::{Layer, ReadLake, ScanRequest};
use repair::core::model::{Cadence, Format, Table};
use repair_local::LocalLake;

const DAY_S: i64 = 1_709_510_400;
const DESCRIBED: &str = "format: csv, key: [k], time: ts, cadence: 1h, keys: [a]";

/// Rows of the key `a` by the hour, each with the values of `v` and `c`.
fn world(rows: impl IntoIterator<Item = (i64, String)>) -> World {
    let world = World::new();
    let line = |(hour, values): (i64, String)| format!("a,2024-03-{:02}T{:02}:00:00Z,{values}\n", 4 + hour / 24, hour % 24);
    world.write("t/x.csv", format!("k,ts,v,c\n{}", rows.into_iter().map(line).collect::<String>()));
    world
}

/// What the repaired view shows of the hours that a repair fills: `v` and `c`.
fn filled(world: &World) -> BTreeMap<i64, (Option<f64>, Option<String>)> {
    let table = Table { key: vec!["k".to_owned()], ..Table::new("t", Format::Csv, "ts").with_cadence(Cadence::HOUR) };
    let lake = LocalLake::open(world.0.path().join("lake")).unwrap();
    let batches: Vec<_> =
        repair::block_on(async { lake.scan(&table, &ScanRequest::new(Layer::Repaired)).await.unwrap().try_collect().await.unwrap() });
    let mut all = BTreeMap::new();
    for batch in &batches {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        let (times, by, texts) = (column("ts"), column("repaired_by"), column("c"));
        let numbers = cast(&column("v"), &DataType::Float64).unwrap();
        for row in (0..batch.num_rows()).filter(|&row| by.is_valid(row)) {
            let hour = (times.as_primitive::<TimestampMicrosecondType>().value(row) / 1_000_000 - DAY_S) / 3_600;
            let value = numbers.is_valid(row).then(|| numbers.as_primitive::<Float64Type>().value(row));
            let text = texts.is_valid(row).then(|| texts.as_string::<i32>().value(row).to_owned());
            all.insert(hour, (value, text));
        }
    }
    all
}

/// Finds cells of `v` below zero, repairs them by `fix`, then finds gaps, fills them by `fill`, and looks again.
fn run(world: &World, fix: &str, fill: &str) -> RunReport {
    let scope = "table: t, from: 2024-03-04T00:00:00Z, to: 2024-03-08T00:00:00Z";
    let report = world.run(
        DESCRIBED,
        &format!(
            "  bad: {{ detect: invalid, with: {{ {scope}, rules: [{{ column: v, min: 0 }}] }}, next: fix }}\n  fix: {{ repair: {fix}, of: bad, next: find }}\n  \
             find: {{ detect: gaps, with: {{ {scope} }}, next: fill }}\n  fill: {{ repair: {fill}, of: find, next: check }}\n  check: {{ verify: find, end: true }}"
        ),
    );
    assert!(report.error.is_none(), "{:?} {:?}", report.reason, report.problems);
    report
}

/// The hours of four days but `gone`, where `v` is the hour and `c` is `x`, but for some.
fn hours(gone: &[i64], other: &[(i64, &str)]) -> Vec<(i64, String)> {
    let values =
        |hour: i64| other.iter().find(|(at, _)| *at == hour).map_or_else(|| format!("{hour},x"), |(_, values)| (*values).to_owned());
    (0..96).filter(|hour| !gone.contains(hour)).map(|hour| (hour, values(hour))).collect()
}

#[test]
fn a_row_is_copied_whole_or_not_at_all() {
    let x = || Some("x".to_owned());
    for fix in ["interpolate", "set, with: { values: { v: 7 } }"] {
        // The cells beside the gap were wrong and are repaired: no values of the table's own. So the rows beyond serve.
        for (fill, expected) in [
            ("carry-forward", 28.0),
            ("carry-backward", 32.0),
            ("shifted, with: { shift: [-1h, 1h, -2h] }", 28.0),
            ("[{ strategy: carry-forward, with: { max_age: 1h } }, { strategy: interpolate }]", 30.0),
        ] {
            let world = world(hours(&[30], &[(29, "-999,x"), (31, "-999,x")]));
            let report = run(&world, fix, fill);
            assert_eq!(filled(&world), BTreeMap::from([(30, (Some(expected), x()))]), "{fix}, {fill}: {:?}", report.problems);
        }
        // With no such row, the slot stays missing, and the run says so.
        for fill in ["carry-forward, with: { max_age: 1h }", "shifted, with: { shift: -1h }"] {
            let world = world(hours(&[30], &[(29, "-999,x")]));
            let report = run(&world, fix, fill);
            assert_eq!((filled(&world), &output(&report, "check")["missing"]), (BTreeMap::new(), &1.into()), "{fix}, {fill}");
            assert_eq!(report.missing, 1);
        }
    }
    // A name beside an empty measurement is no value; where only some values of a row are empty, they are copied as they are.
    for (beside, fill, expected) in [
        (",x", "carry-forward", (Some(28.0), x())),
        (",", "carry-forward", (Some(28.0), x())),
        (",x", "shifted, with: { shift: [-1h, 1h] }", (Some(31.0), x())),
        ("29,", "carry-forward", (Some(29.0), None)),
    ] {
        let world = world(hours(&[30], &[(29, beside)]));
        run(&world, "interpolate", fill);
        assert_eq!(filled(&world), BTreeMap::from([(30, expected)]), "{beside}, {fill}");
    }
}

/// A step that found wrong values could not repair them. A later step, which repairs what another one has found, uses none of them.
#[test]
fn what_another_step_found_wrong_serves_no_repair() {
    let unable = "shifted, with: { shift: [-2000h] }";
    let wrong = [(28, "-999,x"), (29, "-999,x"), (6, "-999,x"), (54, "-999,x")];
    for (fill, expected) in [
        ("carry-forward", 27.0),
        ("carry-backward", 31.0),
        ("interpolate", 30.0),
        ("shifted, with: { shift: [-24h, 24h, 48h] }", 78.0),
        ("shifted, with: { shift: [-24h, 24h, 48h], take: mean }", 78.0),
    ] {
        let world = world(hours(&[30], &wrong));
        let report = run(&world, unable, fill);
        assert_eq!((&output(&report, "bad")["cells"], &output(&report, "fix")["repaired"]), (&4.into(), &0.into()));
        assert_eq!(filled(&world), BTreeMap::from([(30, (Some(expected), filled(&world)[&30].1.clone()))]), "{fill}");
    }
    // So many of them that they are not simply out of the usual.
    let night: Vec<(i64, &str)> = (0..96).filter(|hour| hour % 3 == 1).map(|hour| (hour, "-40,x")).collect();
    for fill in ["seasonal", "seasonal, with: { model: medians }", "regress"] {
        let world = world(hours(&[30], &night));
        run(&world, unable, fill);
        let value = filled(&world)[&30].0.unwrap();
        assert!((20.0..40.0).contains(&value), "{fill}: {value}");
    }
}

#[test]
fn text_is_that_of_the_rows_beside_a_gap() {
    // The row after the gap has another text and no number, so the line ends at the next one.
    let world = self::world(hours(&[30], &[(31, ",y")]));
    run(&world, "interpolate", "interpolate");
    assert_eq!(filled(&world), BTreeMap::from([(30, (Some(30.0), None))]));
    let world = self::world(hours(&[30], &[(31, ",x")]));
    run(&world, "interpolate", "interpolate");
    assert_eq!(filled(&world), BTreeMap::from([(30, (Some(30.0), Some("x".to_owned())))]));
}
