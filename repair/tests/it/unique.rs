//! Rows with an identity, such as orders: versions, duplicates, wrong values and missing files, by YAML alone.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::{World, output};
use repair::{Outcome, RunReport};
use serde_json::json;

const ORDERS: &str = "format: jsonl, rows: unique, key: [id], time: created_at, version: updated_at, partition_by: [{ day: day }]";
const SCOPE: &str = "table: t, from: 2024-03-01, to: 2024-03-10";

/// An order for each day but the seventh, and these:
/// - `twice` is in one file twice, in the same words;
/// - `moved` has versions in files of three days, and the one in the middle is the latest;
/// - `later` has a version whose time lies after the interval;
/// - `wrong` has a negative amount.
fn orders() -> World {
    let world = World::new();
    let mut days: Vec<String> = (1..=21).map(|day| line(&format!("plain-{day}"), day, 100, day)).collect();
    let mut add = |file: usize, line: String| days[file - 1].push_str(&line);
    add(2, line("twice", 2, 10, 2).repeat(2));
    add(3, line("moved", 3, 1, 3));
    add(5, line("moved", 3, 2, 9));
    add(8, line("moved", 3, 4, 8));
    add(9, line("later", 9, 20, 9));
    add(20, line("later", 20, 40, 20));
    add(4, line("wrong", 4, -7, 4));
    for (day, lines) in (1..).zip(days) {
        if day != 7 {
            world.write(&format!("t/day=2024-03-{day:02}/orders.jsonl"), lines);
        }
    }
    world
}

fn line(id: &str, day: usize, amount: i64, updated: usize) -> String {
    let order = json!({
        "id": id, "created_at": format!("2024-03-{day:02}T10:00:00Z"), "updated_at": format!("2024-03-{updated:02} 11:00"), "amount": amount, "note": "x"
    });
    format!("{order}\n")
}

/// All orders but the plain ones: twice, moved, later and wrong.
const TRUTH: f64 = 10.0 + 2.0 + 40.0 - 7.0;
const PLAIN: f64 = 20.0 * 100.0;
const RAW: f64 = TRUTH + 10.0 + 1.0 + 4.0 + 20.0;

fn sums(with: &str) -> String {
    format!(
        "  {with}: {{ aggregate: sql, with: {{ into: sums, query: \"SELECT min(created_at) AS ts, sum(amount) AS s FROM t_repaired\" }}, end: true }}"
    )
}

fn steps() -> String {
    format!(
        "  look: {{ detect: arrivals, with: {{ {SCOPE} }}, next: several }}\n  several: {{ detect: duplicates, with: {{ {SCOPE} }}, next: keep }}\n  keep: {{ \
         repair: keep, of: several, next: check }}\n  check: {{ verify: several, next: bad }}\n  bad: {{ detect: invalid, with: {{ {SCOPE}, rules: [{{ column: \
         amount, min: 0 }}] }}, next: sum }}\n{}",
        sums("sum")
    )
}

fn run(world: &World) -> RunReport {
    world.run(ORDERS, &steps())
}

#[test]
fn orders_are_counted_once_by_their_latest_version() {
    let world = orders();
    world.run(ORDERS, &sums("look"));
    assert!((world.sum() - RAW - PLAIN).abs() < 1e-9, "{}", world.sum());

    let first = run(&world);
    assert_eq!(first.outcome, Some(Outcome::SucceededWithExceptions), "{:?} {:?}", first.reason, first.problems);
    assert_eq!(output(&first, "look")["units"]["missing"], 1, "the file of the seventh");
    let several = output(&first, "several");
    assert_eq!((&several["defective"], &several["duplicates"]), (&json!(3), &json!(4)), "{several}");
    assert_eq!(output(&first, "check")["defective"], 0);
    let bad = output(&first, "bad");
    assert_eq!((&bad["defective"], &bad["cells"]), (&json!(1), &json!(1)), "{bad}");
    assert!((world.sum() - TRUTH - PLAIN).abs() < 1e-9, "{}", world.sum());
    let said = first.problems.join("\n");
    assert!(
        said.contains("bad: 1 row still invalid in table `t`: wrong at 2024-03-04T10:00:00Z: its row breaks `column: amount, min: 0`"),
        "{said}"
    );
    assert!(!said.contains("1970"), "{said}");

    // A second run finds nothing more, and a plan has nothing to do.
    let second = run(&world);
    let again = output(&second, "several");
    assert_eq!((&again["defective"], &again["replaced"]), (&json!(0), &json!(3)), "{again}");

    // Another version arrives, and counts from the next run on.
    world.write("t/day=2024-03-21/more.jsonl", line("moved", 3, 5, 21));
    let third = run(&world);
    assert_eq!(output(&third, "several")["defective"], 1);
    assert!((world.sum() - TRUTH - PLAIN - 3.0).abs() < 1e-9, "{}", world.sum());
    std::fs::remove_file(world.0.path().join("lake/t/day=2024-03-21/more.jsonl")).unwrap();

    // Without the repairs, all versions are back.
    let opened = world.workflow(ORDERS, &steps());
    let lake = opened.lake();
    let undone = repair::block_on(async {
        let at = |text: &str| text.parse::<repair::jiff::Timestamp>().unwrap();
        // A version within the lookback of the instant is enough.
        let story = serde_json::to_value(lake.why("t", at("2024-03-10T00:00:00Z")).key("later").await.unwrap()).unwrap();
        assert_eq!((&story["standing"], story["raw"].as_array().unwrap().len()), (&json!("repaired"), 2), "{story}");
        assert_eq!(story["repairs"][0]["row"]["amount"], 40, "{story}");
        assert_eq!(lake.undo(&third.run).await.unwrap().rows(), 1);
        let undone = lake.undo(&first.run).await.unwrap();
        assert_eq!(undone.rows(), 3);
        undone.id
    });
    world.run(ORDERS, &sums("look"));
    assert!((world.sum() - RAW - PLAIN).abs() < 1e-9, "{}", world.sum());
    repair::block_on(async { lake.redo(&undone).await.unwrap() });
    world.run(ORDERS, &sums("look"));
    assert!((world.sum() - TRUTH - PLAIN).abs() < 1e-9, "{}", world.sum());
}

/// Only cells that were found wrong get the value, and undoing that brings the old one back.
#[test]
fn a_wrong_value_of_an_order_is_set() {
    let world = orders();
    let fix = "  fix: { repair: set, of: bad, with: { values: { amount: 3, note: y } }, next: good }\n  good: { verify: bad, next: sum }\n";
    let steps = steps().replace("min: 0 }] }, next: sum", "min: 0 }] }, next: fix").replace("  sum: {", &format!("{fix}  sum: {{"));
    let report = world.run(ORDERS, &steps);
    let (bad, good) = (output(&report, "bad"), output(&report, "good"));
    assert_eq!((&bad["defective"], &good["defective"]), (&json!(1), &json!(0)), "{:?} {:?}", report.reason, report.problems);
    assert!((world.sum() - TRUTH - 10.0 - PLAIN).abs() < 1e-9, "{}", world.sum());
    let opened = world.workflow(ORDERS, &steps);
    let lake = opened.lake();
    repair::block_on(async {
        let at = "2024-03-04T10:00:00Z".parse().unwrap();
        let story = serde_json::to_value(lake.why("t", at).key("wrong").await.unwrap()).unwrap();
        assert_eq!(
            (&story["standing"], &story["repairs"][0]["cells"]),
            (&json!("patched"), &json!({ "amount": { "was": -7, "counts": true } }))
        );
        assert_eq!(lake.undo(&report.run).step("fix").await.unwrap().rows(), 1);
    });
    world.run(ORDERS, &sums("look"));
    assert!((world.sum() - TRUTH - PLAIN).abs() < 1e-9, "{}", world.sum());
    let odd = world.run(ORDERS, &steps.replace("amount: 3", "amount: 2.5"));
    assert!(
        odd.reason.as_ref().is_some_and(|why| why.contains("2.5 is no value of column `amount` of table `t`, which is Int64")),
        "{:?}",
        odd.reason
    );
}

#[test]
fn a_plan_lists_rows_by_their_days() {
    let world = orders();
    let repair = world.workflow(ORDERS, &steps());
    let plan = repair::block_on(async { serde_json::to_value(repair.plan().await.unwrap()).unwrap() });
    let text = plan.to_string();
    assert!(text.contains("2024-03-03") && !text.contains("1970"), "{plan:#}");
}

#[test]
fn versions_too_far_apart_are_left_and_reported() {
    let world = World::new();
    world.write("t/day=2024-03-01/a.jsonl", line("a", 1, 1, 1) + &line("b", 1, 1, 1));
    world.write("t/day=2024-03-03/a.jsonl", line("a", 3, 2, 3));
    world.write("t/day=2024-03-05/a.jsonl", line("a", 5, 3, 5) + &line("b", 5, 2, 5));
    let report = world.run(
        &ORDERS.replace("version", "lookback: 2d, version"),
        &steps().replace("look: { detect: arrivals", "look: { detect: duplicates"),
    );
    let said = report.problems.join("\n");
    assert!(said.contains("a at 2024-03-01T10:00:00Z: its 3 versions lie further apart than the `lookback` of the table"), "{said}");
    assert!(said.contains("1 row still duplicate in table `t`"), "{said}");
    assert!(!said.contains("b at"), "two rows of one key that are further apart than the lookback are two rows: {said}");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_runs() {
    let refused = |table: &str, steps: &str| {
        let world = orders();
        let path = world.written("sources: { s: { source: files, with: { location: s, format: csv } } }\n", "t", table, steps);
        match repair::block_on(async { repair::Repair::open(&path).connect().await }) {
            Err(error) => error.full(),
            Ok(_) => panic!("{table} {steps} is accepted"),
        }
    };
    let find = "  look: { detect: duplicates, with: { table: t, from: 2024-03-01, to: 2024-03-10 }, next: fix }\n";
    for (table, steps, why) in [
        (ORDERS.replace("key: [id], ", ""), steps(), "`rows: unique` says that the key identifies a row, and the table has no `key`"),
        (ORDERS.replace("rows: unique", "rows: unique, cadence: 1h"), steps(), "remove one of them"),
        (ORDERS.replace("rows: unique, ", ""), steps(), "`version` is about versions of rows with the same key"),
        (ORDERS.replace("version: updated_at", "version: id"), steps(), "which is the same in all versions"),
        (ORDERS.replace("version: updated_at, ", ""), steps(), "`keep` is not said which of several rows of table `t` to keep"),
        (
            ORDERS.to_owned(),
            format!("{find}  fix: {{ repair: interpolate, of: look, end: true }}"),
            "`interpolate` needs a series with slots",
        ),
        (
            ORDERS.to_owned(),
            format!("{find}  fix: {{ repair: backfill, of: look, with: {{ source: s }}, end: true }}"),
            "`backfill` needs a series with slots",
        ),
        (
            ORDERS.to_owned(),
            steps().replace("min: 0 }] }, next: sum", "min: 0 }] }, next: fix") + "\n  fix: { repair: interpolate, of: bad, next: sum }",
            "`arrivals`, `duplicates`, `invalid`, `keep`, `set` and `aggregate: sql`",
        ),
        (
            ORDERS.to_owned(),
            steps().replace("min: 0 }] }, next: sum", "min: 0 }] }, next: fix") + "\n  fix: { repair: keep, of: bad, next: sum }",
            "`keep` repairs duplicate slots, and step `bad` finds invalid ones; use another repairer, such as",
        ),
        (
            ORDERS.to_owned(),
            steps().replace("keep: { repair: keep,", "keep: { repair: set, with: { values: { amount: 0 } },"),
            "`set` repairs invalid or different slots, and step `several` finds duplicate ones",
        ),
        (
            ORDERS.to_owned(),
            steps().replace("min: 0 }] }, next: sum", "min: 0 }] }, next: fix")
                + "\n  fix: { repair: set, of: bad, with: { values: { id: x } }, next: sum }",
            "`values` names column `id`, by which rows of table `t` are identified",
        ),
        (ORDERS.to_owned(), steps().replace("arrivals", "gaps"), "`gaps` needs a series with slots"),
        (ORDERS.to_owned(), steps().replace("min: 0", "outlier: { window: 5 }"), "`outlier` judges a row among its neighbours"),
        (
            ORDERS.to_owned(),
            steps().replace("duplicates, with: {", "duplicates, with: { keys: [a],"),
            "`keys` says which slots of a series are expected",
        ),
    ] {
        let said = refused(&table, &steps);
        assert!(said.contains(why), "{why}: {said}");
    }
}
