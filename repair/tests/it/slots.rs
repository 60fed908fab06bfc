//! Grids and calendars as people have them: the cases of `testdata/field` with their right values, and sessions of exchanges over a year.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::{World, output};
use repair::{ErrorKind, Outcome, Repair, RunReport};
use serde_json::Value;

const FX: &str =
    "calendars:\n  fx:\n    zone: America/New_York\n    open: { sun: \"17:00-24:00\", mon-thu: \"00:00-24:00\", fri: \"00:00-17:00\" }\n";

fn run(repair: &Repair) -> RunReport {
    repair::block_on(async { repair.run().await }).unwrap_or_else(|error| panic!("{}", error.full()))
}

fn gaps(repair: &Repair) -> Value {
    let report = run(repair);
    assert!(report.error.is_none(), "{:?} {:?}", report.reason, report.problems);
    output(&report, "look")
}

fn look(scope: &str) -> String {
    format!("  look: {{ detect: gaps, with: {{ table: t, {scope} }}, end: true }}")
}

#[test]
fn days_that_begin_in_the_afternoon_in_new_york() {
    let world = World::of("offset-grids/d1");
    let table = "format: csv, key: [pair], time: ts, zone: America/New_York, cadence: { every: 1d, at: \"17:00\" }";
    let scope = "keys: [EURUSD], calendar: fx, from: 2022-03-06, to: 2022-03-25";
    let found = gaps(&world.workflow_with(FX, "t", table, &look(scope)));
    // Three weeks of five bars, across the night in which the clock is set forward.
    assert_eq!((found["expected"].as_u64(), found["missing"].as_u64(), found["misaligned"].as_u64()), (Some(15), Some(1), Some(0)));
    // A calendar of an exchange fits too: each of its sessions is within a bar.
    let found = gaps(&world.workflow(
        "format: csv, key: [pair], time: ts, zone: America/New_York, cadence: { every: 1d, at: \"17:00\" }",
        &look("keys: [EURUSD], calendar: XNYS, from: 2022-03-06, to: 2022-03-25"),
    ));
    assert_eq!((found["expected"].as_u64(), found["missing"].as_u64()), (Some(15), Some(1)));
    // Where slots begin must be right, or nothing can be said.
    let (kind, message) =
        world.refused("format: csv, key: [pair], time: ts, cadence: 1d", "keys: [EURUSD], from: 2022-03-06, to: 2022-03-25");
    assert_eq!(kind, ErrorKind::Blind, "{message}");
    assert!(message.contains("14 of 14 rows of table `t`") && message.contains("at: "), "{message}");
}

#[test]
fn readings_at_51_minutes_with_specials_in_between() {
    let world = World::of("offset-grids/obs");
    let cadence = |more: &str| format!("format: csv, key: [station], time: ts, cadence: {{ every: 1h, at: \":51\"{more} }}");
    let scope = "keys: [KALB], from: 2020-11-26, to: 2020-11-26";
    let (kind, message) = world.refused(&cadence(""), scope);
    assert_eq!(kind, ErrorKind::Blind, "{message}");
    assert!(message.contains("2 of 25 rows") && message.contains("`misaligned` allows 5%"), "{message}");
    let steps = format!(
        "  look: {{ detect: gaps, with: {{ table: t, {scope} }}, next: fill }}\n  fill: {{ repair: interpolate, of: look, with: {{ max_gap: 2h, columns: [temp] }}, next: \
         check }}\n  check: {{ verify: look, next: sum }}\n  sum: {{ aggregate: sql, of: look, with: {{ into: sums, query: \"SELECT min(ts) AS ts, avg(temp) AS s FROM \
         t_repaired\" }}, end: true }}"
    );
    let report = run(&world.workflow(&cadence(", misaligned: 50%"), &steps));
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    let found = output(&report, "look");
    assert_eq!((found["missing"].as_u64(), found["misaligned"].as_u64(), found["duplicates"].as_u64()), (Some(1), Some(2), Some(0)));
    assert_eq!(output(&report, "check")["missing"], 0);
    assert!((world.sum() - 12.15).abs() < 1e-9, "{}", world.sum());
    let repaired = world.times("t_repairs");
    assert_eq!(repaired, ["2020-11-26T05:51:00Z"], "a repaired row has the time of its slot");
}

#[test]
fn a_typhoon_closes_hong_kong() {
    let world = World::of("own-calendar");
    let table = "format: csv, key: [symbol], time: ts, cadence: 1m";
    let scope =
        |calendar: &str| look(&format!("keys: [\"0700\"], calendar: {calendar}, from: 2023-08-31T00:00:00Z, to: 2023-09-04T01:33:00Z"));
    let own = "calendars:\n  hk: { extends: XHKG, closed: [2023-09-01] }\n";
    let found = gaps(&world.workflow_with(own, "t", table, &scope("hk")));
    assert_eq!((found["missing"].as_u64(), found["unexpected"].as_u64()), (Some(2), Some(0)), "two minutes of the first morning");
    let found = gaps(&world.workflow_with("", "t", table, &scope("XHKG")));
    assert_eq!(found["expected"].as_u64(), Some(333), "the exchange itself knows of the typhoon");
}

#[test]
fn bills_come_once_a_month() {
    let world = World::of("monthly");
    let table = |cadence: &str| format!("format: csv, key: [meter], time: month, cadence: {cadence}");
    let scope = "keys: [m1], from: 2023-01-01, to: 2023-12-31";
    let found = world.gaps(&table("1mo"), scope);
    let written = std::fs::read_to_string(world.0.path().join("lake/t/b.csv")).unwrap().lines().count() as u64 - 1;
    assert_eq!((found["expected"].as_u64(), found["missing"].as_u64()), (Some(12), Some(12 - written)));
    // In a zone, too, a date is the start of its month there.
    let found = world.gaps("format: csv, key: [meter], time: month, zone: Australia/Sydney, cadence: 1mo", scope);
    assert_eq!((found["expected"].as_u64(), found["missing"].as_u64()), (Some(12), Some(12 - written)));
    let refused = repair::core::workflow::Workflow::parse(
        "w.yaml",
        "workflow: w\nkind: state-machine\ntables: { t: { location: t, format: csv, time: ts, cadence: 7d } }\nstart: s\nsteps: { s: { succeed: true } }\n",
        &repair::core::plugin::Registry::default(),
    );
    assert!(refused.unwrap_err().to_string().contains("write `1w`"));
}

/// Loggers are some seconds off, and a row keeps its own time.
#[test]
fn a_logger_is_never_quite_on_time() {
    let world = World::new();
    world.write(
        "t/a.csv",
        "ts,v\n2024-03-04T00:00:02Z,1\n2024-03-04T00:14:58Z,2\n2024-03-04T00:30:00Z,3\n2024-03-04T00:45:13Z,4\n2024-03-04T01:00:01Z,5\n",
    );
    let scope = "from: 2024-03-04T00:00:00Z, to: 2024-03-04T01:15:00Z";
    let table = |more: &str| format!("format: csv, time: ts, cadence: {{ every: 15m, {more} }}");
    let found = world.gaps(&table("tolerance: 3s, misaligned: 20%"), scope);
    assert_eq!((found["expected"].as_u64(), found["missing"].as_u64(), found["misaligned"].as_u64()), (Some(5), Some(1), Some(1)));
    let found = world.gaps(&table("tolerance: 13s"), scope);
    assert_eq!((found["missing"].as_u64(), found["misaligned"].as_u64()), (Some(0), Some(0)));
    let (kind, message) = world.refused(&table("tolerance: 3s"), scope);
    assert!(kind == ErrorKind::Blind && message.contains("1 of 5 rows"), "{message}");
}

/// From hours to quarters of an hour on a day in October, as European power markets did.
#[test]
fn a_market_goes_from_hours_to_quarters() {
    let world = World::new();
    let mut text = "ts,price\n".to_owned();
    for hour in 0..22 {
        text.push_str(&format!("2025-09-30T{hour:02}:00:00Z,{hour}\n"));
    }
    for (quarter, minute) in ["00", "15", "30", "45"].into_iter().enumerate() {
        text.push_str(&format!("2025-09-30T22:{minute}:00Z,{quarter}\n2025-09-30T23:{minute}:00Z,{quarter}\n"));
    }
    world.write("t/a.csv", text.replace("2025-09-30T23:15:00Z,1\n", ""));
    let table = "format: csv, time: ts, zone: Europe/Berlin, cadence: { every: 15m, before: { 2025-10-01: 1h } }";
    let found = world.gaps(table, "from: 2025-09-30T00:00:00Z, to: 2025-10-01T00:00:00Z");
    assert_eq!((found["expected"].as_u64(), found["missing"].as_u64(), found["misaligned"].as_u64()), (Some(30), Some(1), Some(0)));
}

/// A calendar and its zone; the sessions of 2024; the hours of an ordinary one; and the early closes, with the hours that they have.
#[cfg(feature = "stocks")]
type Exchange = (&'static str, &'static str, u64, u64, &'static [(u64, u64)]);

/// Hours and days of a year of sessions. The hours are counted from the opening times of the exchange: all of which a part is open, on each
/// session, and fewer on days that end early.
#[cfg(feature = "stocks")]
#[test]
fn hours_and_days_of_exchanges() {
    let exchanges: [Exchange; 4] = [
        // 09:30 to 16:00; to 13:00 on three days.
        ("XNYS", "America/New_York", 252, 7, &[(3, 4)]),
        // 08:00 to 16:30; to 12:30 on two.
        ("XLON", "Europe/London", 254, 9, &[(2, 5)]),
        // 10:00 to 16:00; to 14:10 on two.
        ("XASX", "Australia/Sydney", 254, 6, &[(2, 5)]),
        // From 17:00 of the day before to 16:00; to 12:00 on seven days, to 12:15 on three.
        ("CMES", "America/Chicago", 259, 23, &[(7, 19), (3, 20)]),
    ];
    for (calendar, zone, sessions, hours, early) in exchanges {
        let world = World::new();
        world.write("t/a.csv", "ts,v\n2024-03-05T15:00:00Z,1\n");
        let scope = format!("calendar: {calendar}, from: 2024-01-01, to: 2024-12-31");
        let expected = |table: &str| world.gaps(&format!("format: csv, time: ts, {table}"), &scope)["expected"].as_u64().unwrap();
        let short: u64 = early.iter().map(|(days, _)| days).sum();
        let in_hours = (sessions - short) * hours + early.iter().map(|(days, hours)| days * hours).sum::<u64>();
        assert_eq!(expected(&format!("zone: {zone}, cadence: 1h")), in_hours, "hours of {calendar}");
        world.write("t/a.csv", "ts,v\n2024-03-05,1\n");
        // Days are known by the dates of sessions, whether they are counted in the zone of the exchange or in UTC.
        assert_eq!(expected(&format!("zone: {zone}, cadence: 1d")), sessions, "days of {calendar}");
        assert_eq!(expected("cadence: 1d"), sessions, "days of {calendar} in UTC");
        world.write("t/a.csv", "ts,v\n2024-03-04,1\n");
        assert_eq!(expected(&format!("zone: {zone}, cadence: 1w")), 53, "weeks of {calendar}");
        world.write("t/a.csv", "ts,v\n2024-03-01,1\n");
        assert_eq!(expected("cadence: 1mo"), 12);
    }
}

/// Dates are days of the table's zone wherever a part of its time is named, as in a detect step.
#[tokio::test]
async fn dates_are_days_of_the_table_wherever_they_are_given() {
    use repair::core::model::Format;
    use repair::reading::Destination;

    // Two days of each series, and the one between them, which begins at 23:00 of UTC, and its neighbours.
    let world = World::new();
    world.write("t/a.csv", "day,v\n2024-03-03,3\n2024-03-04,4\n2024-03-07,7\n");
    let path = world.written(
        "",
        "t",
        "format: csv, time: day, zone: Europe/Berlin, cadence: 1d",
        "  look: { detect: gaps, with: { table: t, from: 2024-03-03, to: 2024-03-07 }, next: fill }\n  fill: { repair: interpolate, of: look, with: { max_gap: 5d }, end: true }",
    );
    let repair = Repair::open(&path).connect().await.unwrap();
    let lake = repair.lake();

    // A plan names the days as they are in the table.
    let plan = repair.plan().await.unwrap();
    let days: Vec<String> = plan.looks[0].defects.iter().map(|of| format!("{} {}", of.day, of.missing)).collect();
    assert_eq!(days, ["2024-03-05 1", "2024-03-06 1"]);

    repair.run().id("one").await.unwrap_or_else(|error| panic!("{}", error.full()));
    let file = world.0.path().join("out.csv");
    let written = async |day: &str| {
        let exported = lake.export("t", Format::Csv, Destination::replacing(&file)).interval((day, day)).await.unwrap();
        (exported.rows, exported.repaired)
    };
    assert_eq!(written("2024-03-04").await, (1, 0));
    assert_eq!(written("2024-03-05").await, (1, 1));
    let undone = lake.undo("one").interval(("2024-03-05", "2024-03-05")).await.unwrap();
    assert_eq!(undone.rows(), 1);
    assert_eq!((written("2024-03-05").await, written("2024-03-06").await), ((0, 0), (1, 1)));
    lake.redo(undone.id).await.unwrap();
    assert_eq!(written("2024-03-05").await, (1, 1));

    // Without the repairs, both days are missing, until one is known to have no row.
    let all = lake.undo("one").await.unwrap();
    let absent = lake.except("t", ("2024-03-05", "2024-03-05"), "a holiday").declared_in(path.as_path()).await.unwrap();
    assert_eq!(absent.tables[0].interval.to_string(), "2024-03-04T23:00:00Z to 2024-03-05T23:00:00Z");
    let plan = repair.plan().await.unwrap();
    assert_eq!(plan.looks[0].defects.iter().map(|of| of.day.to_string()).collect::<Vec<_>>(), ["2024-03-06"]);
    let removed = lake.unexcept("t", ("2024-03-05", "2024-03-05"), "it was none").declared_in(path.as_path()).await.unwrap();
    assert_eq!(removed.tables[0].absent, 1);
    lake.redo(all.id).await.unwrap();

    // What arrives for one day judges the repair of that day.
    world.write("t/b.csv", "day,v\n2024-03-05,5\n");
    for (day, judged) in [("2024-03-04", 0), ("2024-03-05", 1), ("2024-03-06", 0)] {
        let report = lake.accuracy("t").interval((day, day)).await.unwrap();
        assert_eq!(report.strategies.values().map(|of| of.judged).sum::<u64>(), judged, "{day}");
    }
    let error = lake.undo("one").interval(("yesterday", "yesterday")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
