//! Several versions of a row, of which the latest counts: the case of `testdata/field/latest-wins`, and versions in other forms.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

mod common;

use common::{World, output};
use repair::{ErrorKind, Outcome, RunReport};

fn run(world: &World, keep: &str) -> RunReport {
    let steps = format!(
        "  look: {{ detect: duplicates, with: {{ table: t, keys: [m1], from: 2024-03-04, to: 2024-03-04 }}, next: keep }}\n  keep: {{ repair: keep, of: look, with: {{ \
         keep: {keep} }}, next: check }}\n  check: {{ verify: look, next: sum }}\n  sum: {{ aggregate: sql, of: look, with: {{ into: sums, query: \"SELECT min(ts) AS ts, \
         sum(kwh) AS s FROM t_repaired\" }}, end: true }}"
    );
    let repair = world.workflow("format: csv, key: [meter], time: ts, cadence: 1h", &steps);
    repair::block_on(async { repair.run().await }).unwrap_or_else(|error| panic!("{}", error.full()))
}

fn sum(world: &World, keep: &str) -> f64 {
    let report = run(world, keep);
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{keep}: {:?} {:?}", report.reason, report.problems);
    assert_eq!(output(&report, "check")["defective"], 0);
    world.sum()
}

#[test]
fn the_latest_version_of_a_row_counts() {
    let world = World::of("latest-wins");
    assert!((sum(&world, "{ latest_by: updated_at }") - 476.0).abs() < 1e-9, "{}", world.sum());
    // Times that are text compare as times, in whichever form they are written.
    let world = World::new();
    let rows = |versions: [&str; 3]| {
        let rows: Vec<String> = (1..).zip(versions).map(|(kwh, at)| format!("m1,2024-03-04T05:00:00Z,{kwh},{at},{}\n", 10 - kwh)).collect();
        world.write("t/a.csv", format!("meter,ts,kwh,updated_at,rev\n{}", rows.concat()));
    };
    rows(["2024-03-05T09:00:00Z", "2024-03-05 10:00", "2024-03-05T11:00:00+02:00"]);
    assert!((sum(&world, "{ latest_by: updated_at }") - 2.0).abs() < 1e-9, "{}", world.sum());
    // Numbers that are longer than a float can hold.
    let world = World::new();
    world.write("t/a.csv", "meter,ts,kwh,rev\nm1,2024-03-04T05:00:00Z,1,9007199254740993\nm1,2024-03-04T05:00:00Z,2,9007199254740992\n");
    assert!((sum(&world, "{ latest_by: rev }") - 1.0).abs() < 1e-9, "{}", world.sum());
    // A second column decides where the first is equal; without it, nothing is singled out.
    let world = World::new();
    world.write(
        "t/a.csv",
        "meter,ts,kwh,at,rev\nm1,2024-03-04T05:00:00Z,1,b,1\nm1,2024-03-04T05:00:00Z,2,b,2\nm1,2024-03-04T05:00:00Z,3,a,3\n",
    );
    let report = run(&world, "{ latest_by: at }");
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{report:?}");
    assert!((sum(&world, "{ latest_by: [at, rev] }") - 2.0).abs() < 1e-9, "{}", world.sum());
}

#[test]
fn versions_that_cannot_be_compared_are_refused() {
    let world = World::new();
    world.write("t/a.csv", "meter,ts,kwh,at\nm1,2024-03-04T05:00:00Z,1,2024-03-05\nm1,2024-03-04T05:00:00Z,2,yesterday\n");
    let report = run(&world, "{ latest_by: at }");
    let said = format!("{:?} {:?}", report.reason, report.problems);
    assert_eq!(report.error, Some(ErrorKind::Invalid), "{said}");
    assert!(said.contains("holds times and `yesterday`, which cannot be compared"), "{said}");
}
