//! Tables in which a slot holds many rows, such as ticks; and rows that belong to no slot.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::{World, output};
use repair::{ErrorKind, Outcome, Registry, RunReport, Workflow};

const TICKS: &str = "format: csv, key: [symbol], time: ts, cadence: 1m, rows: many";
const SCOPE: &str = "keys: [A], from: 2024-03-04T14:30:00Z, to: 2024-03-04T14:34:00Z";

/// Trades of four minutes, of which the third has none.
fn ticks() -> World {
    let world = World::new();
    world.write(
        "t/a.csv",
        "symbol,ts,price\nA,2024-03-04T14:30:00Z,1\nA,2024-03-04T14:30:00Z,2\nA,2024-03-04T14:31:00Z,3\nA,2024-03-04T14:31:00Z,3\n\
         A,2024-03-04T14:31:00Z,4\nA,2024-03-04T14:33:00Z,5\n",
    );
    world
}

#[test]
fn a_slot_with_many_rows_is_present_and_has_no_duplicates() {
    let world = ticks();
    let report = world.run(TICKS, &format!("  look: {{ detect: gaps, with: {{ table: t, {SCOPE} }}, end: true }}"));
    let found = output(&report, "look");
    let count = |name: &str| found[name].as_u64();
    assert_eq!((count("expected"), count("present"), count("missing"), count("duplicates")), (Some(4), Some(3), Some(1), Some(0)));
    assert_eq!(report.problems.len(), 1, "only the missing minute: {:?}", report.problems);
}

#[test]
fn each_of_many_rows_is_judged_and_none_among_its_neighbours() {
    let world = ticks();
    let look = |rule: &str| {
        world.run(
            TICKS,
            &format!("  look: {{ detect: invalid, with: {{ table: t, {SCOPE}, rules: [{{ column: price, {rule} }}] }}, end: true }}"),
        )
    };
    assert_eq!(output(&look("max: 3"), "look")["defective"], 2, "the minutes with a 4 and with a 5");
    let refused = look("frozen: 2");
    let said = format!("{:?}", refused.reason);
    assert!(refused.error == Some(ErrorKind::Invalid) && said.contains("needs a table with one row in each slot"), "{said}");
}

#[test]
fn a_missing_slot_among_many_rows_is_filled() {
    let world = ticks();
    world.write("vendor/a.csv", "symbol,ts,price\nA,2024-03-04T14:32:00Z,9\n");
    let steps = format!(
        "  look: {{ detect: gaps, with: {{ table: t, {SCOPE} }}, next: fill }}\n  fill: {{ repair: backfill, of: look, with: {{ source: vendor }}, next: check \
         }}\n  check: {{ verify: look, next: sum }}\n  sum: {{ aggregate: sql, of: look, with: {{ into: sums, query: \"SELECT min(ts) AS ts, sum(price) AS s FROM \
         t_repaired\" }}, end: true }}"
    );
    let source = "sources:\n  vendor: { source: stocks.archive, with: { location: vendor, format: csv } }\n";
    let repair = world.workflow_with(source, "t", TICKS, &steps);
    let report: RunReport = repair::block_on(async { repair.run().await }).unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?} {:?}", report.reason, report.problems);
    assert!((world.sum() - 27.0).abs() < 1e-9, "{}", world.sum());
}

#[test]
fn what_needs_one_row_in_each_slot_is_refused_where_it_is_written() {
    let mistakes = |steps: &str| {
        let text = format!(
            "workflow: w\nkind: state-machine\ntables:\n  t: {{ location: t, {TICKS} }}\nsources:\n  s: {{ source: stocks.archive, with: {{ location: x, format: csv }} \
             }}\nstart: look\nsteps:\n{steps}\n"
        );
        Workflow::parse("w.yaml", &text, &repair::registry()).unwrap_err().to_string()
    };
    let look =
        |detect: &str, more: &str, next: &str| format!("  look: {{ detect: {detect}, with: {{ table: t, {SCOPE}{more} }}, {next} }}\n");
    let said = mistakes(&look("duplicates", "", "end: true"));
    assert!(said.contains("`duplicates` needs a table with one row in each slot, and table `t` has `rows: many`"), "{said}");
    assert!(said.contains("w.yaml:9:19") && said.contains("or remove `rows: many`"), "{said}");
    for (repairer, with) in [("interpolate", "{}"), ("carry-forward", "{}"), ("shifted", "{ shift: -1d }"), ("stocks.carry-forward", "{}")]
    {
        let said =
            mistakes(&format!("{}  fix: {{ repair: {repairer}, of: look, with: {with}, end: true }}\n", look("gaps", "", "next: fix")));
        assert!(said.contains(&format!("`{repairer}` needs a table with one row in each slot")), "{said}");
    }
    // Whatever repairs wrong rows replaces those of a slot by one.
    let rules = ", rules: [{ column: price, min: 0 }]";
    let said = mistakes(&format!(
        "{}  fix: {{ repair: backfill, of: look, with: {{ source: s }}, end: true }}\n",
        look("invalid", rules, "next: fix")
    ));
    assert!(said.contains("a repair of what `look` finds, which replaces the rows of a slot by one, needs a table with one row"), "{said}");
    let text = "workflow: w\nkind: state-machine\ntables: { t: { location: t, format: csv, time: ts, rows: many } }\nstart: s\nsteps: { s: { succeed: true } }\n";
    let said = Workflow::parse("w.yaml", text, &Registry::default()).unwrap_err().to_string();
    assert!(said.contains("a table without a `cadence` has no slots"), "{said}");
}

/// A workflow without a detect step does not hide that the repaired view leaves rows out.
#[test]
fn rows_that_the_repaired_view_leaves_out_are_counted_where_it_is_read() {
    let world = World::new();
    let on_grid: String = (0..60).map(|minute| format!("m1,2024-03-04T05:{minute:02}:00Z,1\n")).collect();
    world.write("t/a.csv", format!("meter,ts,kwh\n{on_grid}m1,2024-03-04T05:07:30Z,100\nm2,2024-03-04T05:08:30Z,100\n"));
    let table = "format: csv, key: [meter], time: ts, cadence: 1m";
    let steps = |view: &str, more: &str| {
        format!(
            "  look: {{ aggregate: sql, with: {{ into: sums, query: \"SELECT min(ts) AS ts, sum(kwh) AS s FROM {view}\"{more} }}, end: true }}"
        )
    };
    let report = world.run(table, &steps("t_repaired", ""));
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?}", report.reason);
    assert_eq!(
        report.problems,
        ["look: 2 rows of 62 in table `t` have times off the grid, and `t_repaired`, which the query reads, leaves them out"]
    );
    assert_eq!(output(&report, "look")["left_out"][0]["misaligned"], 2);
    assert!((world.sum() - 60.0).abs() < 1e-9, "{}", world.sum());
    // The table itself has all of them.
    assert_eq!(world.run(table, &steps("t", "")).problems, Vec::<String>::new());
    assert!((world.sum() - 260.0).abs() < 1e-9, "{}", world.sum());
    // More of them than the table allows, and nothing is written.
    let strict = "format: csv, key: [meter], time: ts, cadence: { every: 1m, misaligned: 1% }";
    let report = world.run(strict, &steps("t_repaired", ""));
    assert_eq!(report.error, Some(ErrorKind::Blind), "{report:?}");
    let said = report.reason.unwrap_or_default();
    assert!(said.contains("2 of 62 rows of table `t`") && said.contains("`t_repaired`, which the query reads, leaves them out"), "{said}");
    assert!((world.sum() - 260.0).abs() < 1e-9, "what was there is still there");
    // Only the interval that is computed counts.
    world.write("t/b.csv", "meter,ts,kwh\nm1,2024-03-05T05:00:00Z,7\n");
    let report = world.run(strict, &steps("t_repaired WHERE ts >= '2024-03-05'", ", from: 2024-03-05, to: 2024-03-06"));
    assert_eq!((report.outcome, report.problems), (Some(Outcome::Succeeded), Vec::new()));
}

/// A key that is in the path is not needed to see that a row is off the grid.
#[test]
fn rows_off_the_grid_are_counted_where_folders_carry_keys() {
    let world = World::new();
    let rows: String = (0..40).map(|minute| format!("2024-03-04T05:{minute:02}:00Z,1\n")).collect();
    world.write("t/region=north/2024/a.csv", format!("ts,kwh\n{rows}2024-03-04T05:07:30Z,100\n"));
    let table = "format: csv, key: [region], partition_by: \"region={region}/%Y\", time: ts, cadence: 1m";
    let query = "SELECT min(ts) AS ts, sum(kwh) AS s FROM T_Repaired";
    let report = world.run(table, &format!("  look: {{ aggregate: sql, with: {{ into: sums, query: \"{query}\" }}, end: true }}"));
    assert_eq!(
        report.problems,
        ["look: 1 row of 41 in table `t` has a time off the grid, and `t_repaired`, which the query reads, leaves it out"]
    );
    assert!((world.sum() - 40.0).abs() < 1e-9, "{}", world.sum());
}

/// Rows of slots that are not expected, several of them in one slot, are in the counts as all others are.
#[test]
fn rows_of_slots_that_are_not_expected_add_up() {
    let hour = |day: u32, hour: u32| format!("m1,2024-03-{day:02}T{hour:02}:00:00Z,1\n");
    // A Friday, of which the calendar expects two hours, and a Saturday, of which it expects none.
    let rows = [
        vec![hour(8, 9), hour(8, 9), hour(8, 10)],
        vec![hour(8, 3), hour(8, 3), hour(8, 3)],
        vec![hour(9, 12), hour(9, 12)],
        vec!["m1,2024-03-08T10:20:00Z,1\n".to_owned(), "m2,2024-03-08T10:00:00Z,1\n".to_owned()],
    ];
    let world = World::new();
    world.write("t/a.csv", format!("meter,ts,kwh\n{}", rows.concat().concat()));
    let more = "calendars:\n  office: { zone: UTC, open: { mon-fri: \"09:00-11:00\" } }\n";
    let table = "format: csv, key: [meter], time: ts, cadence: { every: 1h, misaligned: 90% }";
    let steps = "  look: { detect: gaps, with: { table: t, keys: [m1], calendar: office, from: 2024-03-08, to: 2024-03-09 }, end: true }";
    let repair = world.workflow_with(more, "t", table, steps);
    let report = repair::block_on(async { repair.run().await }).unwrap_or_else(|error| panic!("{}", error.full()));
    let found = output(&report, "look");
    let count = |name: &str| found[name].as_u64().unwrap();
    assert_eq!(["present", "unexpected", "duplicates", "misaligned", "other_keys"].map(count), [2, 2, 4, 1, 1], "{found}");
    assert_eq!(count("present") + count("unexpected") + count("duplicates") + count("misaligned") + count("other_keys"), 10, "rows add up");
}
