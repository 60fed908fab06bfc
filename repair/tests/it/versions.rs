//! Several versions of a row, of which the latest counts: the case of `testdata/field/latest-wins`, and versions in other forms.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::{World, output};
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
        "meter,ts,kwh,at,rev\nm1,2024-03-04T05:00:00Z,1,2024-03-06,1\nm1,2024-03-04T05:00:00Z,2,2024-03-06,2\nm1,2024-03-04T05:00:00Z,3,2024-03-05,3\n",
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
    // Text of another kind has no order that is sure: as text, the older one of each pair would be kept.
    for (older, newer) in [("12/31/2023 10:00", "01/02/2024 10:00"), ("v9", "v10"), ("1.9.0", "1.10.0"), ("February", "April")] {
        for keep in ["{ latest_by: at }", "{ max: at }", "{ min: at }"] {
            let world = World::new();
            world.write("t/a.csv", format!("meter,ts,kwh,at\nm1,2024-03-04T05:00:00Z,1,{older}\nm1,2024-03-04T05:00:00Z,2,{newer}\n"));
            let report = run(&world, keep);
            let said = format!("{:?} {:?}", report.reason, report.problems);
            assert_eq!(report.error, Some(ErrorKind::Invalid), "{keep}: {said}");
            assert!(said.contains(&format!("holds `{older}` and `{newer}`, which are neither times")), "{said}");
        }
    }
    // Where it is the same in all rows, nothing has to be compared.
    let world = World::new();
    world.write("t/a.csv", "meter,ts,kwh,at,rev\nm1,2024-03-04T05:00:00Z,1,v9,1\nm1,2024-03-04T05:00:00Z,2,v9,2\n");
    assert!((sum(&world, "{ latest_by: [at, rev] }") - 2.0).abs() < 1e-9, "{}", world.sum());
}

const TABLE: &str = "format: csv, key: [meter], time: ts, cadence: 1h";
const SCOPE: &str = "table: t, keys: [m1], from: 2024-03-04T00:00:00Z, to: 2024-03-04T03:00:00Z";

/// The repaired rows, as text.
fn repaired(world: &World) -> Vec<String> {
    let steps = "  look: { aggregate: sql, with: { into: kept, query: \"SELECT meter, ts, kwh, n, note FROM t_repaired WHERE repaired_by IS NOT NULL\" }, end: true }";
    let report = world.run(TABLE, steps);
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?} {:?}", report.reason, report.problems);
    world.rows("kept")
}

#[test]
fn the_mean_of_a_slot_is_exact_and_leaves_out_nulls() {
    let header = "meter,ts,kwh,n,note\n";
    let rows = ["m1,2024-03-04T00:00:00Z,0.1,1,ok\n", "m1,2024-03-04T00:00:00Z,0.2,2,ok\n", "m1,2024-03-04T00:00:00Z,,4,ok\n"];
    let mut means = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let world = World::new();
        world.write("t/a.csv", format!("{header}{}", order.map(|row| rows[row]).concat()));
        let report = run(&world, "mean");
        assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?} {:?}", report.reason, report.problems);
        assert_eq!(report.problems, Vec::<String>::new());
        means.push(repaired(&world));
    }
    assert_eq!(means[0].len(), 1, "{means:?}");
    assert!(means[0][0].contains("n=2 ") && means[0][0].contains("note=ok"), "7/3 is 2, half up: {means:?}");
    assert!(means[0][0].contains("kwh=0.15"), "{means:?}");
    assert!(means.iter().all(|mean| *mean == means[0]), "{means:?}");
    // Text has no mean.
    let world = World::new();
    world.write("t/a.csv", format!("{header}{}m1,2024-03-04T00:00:00Z,0.3,2,estimated\n", rows[0]));
    let report = run(&world, "mean");
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{report:?}");
    let said = report.problems.join("\n");
    assert!(
        said.contains("keep: conflicts in 1 slot of table `t`: m1 at 2024-03-04T00:00:00Z: its 2 rows differ in column `note`"),
        "{said}"
    );
    assert!(!said.contains("next to gaps"), "{said}");
}

#[test]
fn the_file_that_comes_last_counts() {
    let world = World::new();
    let row = |kwh: u32| format!("meter,ts,kwh\nm1,2024-03-04T05:00:00Z,{kwh}\n");
    for (file, kwh) in [("t/2024-03/b.csv", 2), ("t/2024-03/a.csv", 1), ("t/2024-02/z.csv", 4)] {
        world.write(file, row(kwh));
    }
    assert!((sum(&world, "last_file") - 2.0).abs() < 1e-9, "{}", world.sum());
    let other = World::new();
    for (file, kwh) in [("t/2024-03/b.csv", 2), ("t/2024-03/a.csv", 1), ("t/2024-02/z.csv", 4)] {
        other.write(file, row(kwh));
    }
    assert!((sum(&other, "first_file") - 4.0).abs() < 1e-9, "{}", other.sum());
    // Two rows of the last file that differ are not decided by it.
    let world = World::new();
    world.write("t/a.csv", format!("{}m1,2024-03-04T05:00:00Z,7\n", row(6)));
    let report = run(&world, "last_file");
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{report:?}");
    assert!(report.problems.join("\n").contains("`keep: last_file` does not single out one of 2 rows"), "{:?}", report.problems);
}

/// Every row twice, and one copy different.
#[test]
fn duplicates_that_are_repaired_are_no_problem_any_more() {
    let world = World::new();
    let rows = |last: &str| format!("m1,2024-03-04T00:00:00Z,1,1\nm1,2024-03-04T01:00:00Z,2,1\nm1,2024-03-04T02:00:00Z,{last}\n");
    world.write("t/a.csv", format!("meter,ts,kwh,rev\n{}{}", rows("3,1"), rows("4,2")));
    let gaps = |name: &str, next: &str| format!("  {name}: {{ detect: gaps, with: {{ {SCOPE} }}, {next} }}\n");
    let duplicates = |next: &str| format!("  look: {{ detect: duplicates, with: {{ {SCOPE} }}, {next} }}\n");
    let keep = |rule: &str, next: &str| format!("  keep: {{ repair: keep, of: look, with: {{ keep: {rule} }}, next: {next} }}\n");

    // Before anything is done about them, they are a problem.
    let report = world.run(TABLE, &gaps("look", "end: true"));
    assert_eq!(report.problems, ["look: 3 duplicate rows in table `t`"]);

    // A rule that does not decide leaves one, and says which.
    let steps = duplicates("next: keep") + &keep("first", "check") + "  check: { verify: look, next: gaps }\n" + &gaps("gaps", "end: true");
    let report = world.run(TABLE, &steps);
    assert_eq!(
        report.problems,
        [
            "keep: conflicts in 1 slot of table `t`: m1 at 2024-03-04T02:00:00Z: `keep: first` does not single out one of 2 rows",
            "look: 1 slot still duplicate in table `t`: m1 at 2024-03-04T02:00:00Z: 2 rows"
        ]
    );

    // Without a look at duplicates in this run, only what is not replaced counts.
    let report = world.run(TABLE, &gaps("look", "end: true"));
    assert_eq!(report.problems, ["look: 1 duplicate row in table `t`"]);

    // A rule that decides, with a look for gaps before and after.
    let steps = gaps("look", "next: double")
        + &duplicates("next: keep").replace("  look:", "  double:")
        + &keep("{ latest_by: rev }", "check").replace("of: look", "of: double")
        + "  check: { verify: double, next: after }\n"
        + &gaps("after", "end: true");
    let report = world.run(TABLE, &steps);
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((output(&report, "double")["defective"].as_u64(), output(&report, "check")["defective"].as_u64()), (Some(1), Some(0)));
    assert_eq!((output(&report, "look")["duplicates"].as_u64(), output(&report, "after")["duplicates"].as_u64()), (Some(1), Some(0)));

    // The next run has nothing to do, and a plan says so.
    let steps = duplicates("next: keep") + &keep("{ latest_by: rev }", "gaps") + &gaps("gaps", "end: true");
    let report = world.run(TABLE, &steps);
    assert_eq!((report.outcome, report.problems.as_slice()), (Some(Outcome::Succeeded), &[][..]));
    assert_eq!((output(&report, "look")["defective"].as_u64(), output(&report, "look")["replaced"].as_u64()), (Some(0), Some(3)));

    // Once its rows change, a slot is judged anew.
    world.write("t/b.csv", "meter,ts,kwh,rev\nm1,2024-03-04T02:00:00Z,5,3\n");
    let report = world.run(TABLE, &duplicates("end: true"));
    assert_eq!(report.problems, ["look: 1 slot still duplicate in table `t`: m1 at 2024-03-04T02:00:00Z: 3 rows"]);
}
