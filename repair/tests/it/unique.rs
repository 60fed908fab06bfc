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
    assert!(!said.contains("1970-"), "{said}");

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

/// The report on the table as it is now: in the time of its first step, or another one.
fn report(world: &World, steps: &str, within: Option<(&str, &str)>) -> (serde_json::Value, String) {
    let opened = world.workflow(ORDERS, steps);
    let (from, to) = within.unzip();
    let report = repair::block_on(async { opened.report_on_table("t").within(from, to).await });
    let report = report.unwrap_or_else(|error| panic!("{}", error.full()));
    (serde_json::to_value(&report).unwrap(), report.html())
}

/// A report without a run says what the table holds, what repairs make of it, and what nobody looked for.
#[test]
fn a_report_without_a_run_says_what_a_table_of_orders_holds() {
    let world = orders();
    let (before, page) = report(&world, &steps(), None);
    // Of the first ten days: nine plain orders, two lines of `twice`, three versions of `moved`, one of `later`, and `wrong`.
    let held = json!({
        "rows": 16, "unreadable": 0, "keys": 13, "several": 3, "surplus": 4, "settled": 0, "changed": 0, "shown": 16,
        "on_record": { "added": 0, "replaced": 0, "removed": 0, "patched": 0, "absent": 0 },
    });
    let part = |report: &serde_json::Value| -> serde_json::Value {
        held.as_object()
            .unwrap()
            .keys()
            .map(|name| (name.clone(), report["held"][0][name].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    assert_eq!(part(&before), held, "{before:#}");
    let days = before["held"][0]["days"].as_array().unwrap();
    let rows: Vec<_> = days.iter().map(|day| day["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [1, 3, 4, 2, 1, 1, 0, 1, 2, 1], "the seventh has no row");
    assert_eq!(before["numbers"], json!({ "expected": 13, "found": 3, "repaired": 0, "absent": 0, "left": 3 }));
    assert_eq!(
        before["sentence"],
        "Table t holds 16 rows of 13 keys; 3 rows have several versions, 4 too many, and no repair replaces them. With repairs it shows 16 rows. \
         Nothing says which rows it should have, so none is counted as missing."
    );
    let looked = "Only several versions of a row were looked for: neither rows that never came, nor wrong values, nor differences from a source. A run \
                  of workflow field looks for more, in steps look (arrivals), bad (invalid).";
    assert_eq!(before["notes"].as_array().unwrap().last().unwrap(), looked);
    assert_eq!((&before["defects"]["total"], &before["fixes"]["total"]), (&json!(3), &json!(0)));
    for words in ["What t holds", "1 of 10 days without a row.", "keys with a row", looked] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("Completeness") && !page.contains("slots expected"), "nothing says how complete it is");
    assert!(!world.0.path().join("lake/.repair").exists(), "something was written");

    // What a run repaired is on record, `later` among the rows of the twentieth; cells of `wrong` are changed.
    let fix = "  fix: { repair: set, of: bad, with: { values: { amount: 3 } }, next: sum }\n";
    let fixing = steps().replace("min: 0 }] }, next: sum", "min: 0 }] }, next: fix").replace("  sum: {", &format!("{fix}  sum: {{"));
    let run = world.run(ORDERS, &fixing);
    let (after, _) = report(&world, &steps(), None);
    let mut repaired = held.clone();
    for (name, rows) in [("several", 0), ("surplus", 0), ("settled", 3), ("shown", 12)] {
        repaired[name] = json!(rows);
    }
    repaired["on_record"] = json!({ "added": 0, "replaced": 2, "removed": 0, "patched": 1, "absent": 0 });
    assert_eq!(part(&after), repaired, "{after:#}");
    assert_eq!(after["numbers"], json!({ "expected": 13, "found": 3, "repaired": 3, "absent": 0, "left": 0 }));
    assert_eq!((&after["defects"]["total"], &after["fixes"]["total"]), (&json!(0), &json!(3)));
    let (later, _) = report(&world, &steps(), Some(("2024-03-20", "2024-03-20")));
    assert_eq!(later["held"][0]["on_record"]["replaced"], 1, "{later:#}");
    // The report on the run knows which of its defects are repaired.
    let opened = world.workflow(ORDERS, &fixing);
    let lake = opened.lake();
    let of_run = repair::block_on(async { serde_json::to_value(lake.report_on(&run.run).await.unwrap()).unwrap() });
    let defects = of_run["defects"]["rows"].as_array().unwrap();
    let repaired = defects.iter().filter(|row| row["repaired"] == 1).count();
    let others: Vec<&serde_json::Value> = defects.iter().filter(|row| row["repaired"] == 0).map(|row| &row["kind"]).collect();
    assert_eq!((repaired, others), (4, vec![&json!("missing")]), "only the file that never came is not: {defects:#?}");
    // Undone, everything is as before.
    repair::block_on(async { lake.undo(&run.run).await.unwrap() });
    let (undone, _) = report(&world, &steps(), None);
    assert_eq!((part(&undone), &undone["numbers"], &undone["sentence"]), (held, &before["numbers"], &before["sentence"]));
    assert_eq!(undone["fixes"]["total"], 3, "they are listed as undone");
}

/// Nothing to look at is not nothing to worry about, and without a step somebody has to say which time is meant.
#[test]
fn a_report_on_no_orders_does_not_call_them_clean() {
    let world = orders();
    let (empty, page) = report(&world, &steps(), Some(("2024-03-07", "2024-03-07")));
    let said = "Table t has no row of its own in this time, so nothing was examined. This does not mean that nothing is missing.";
    assert_eq!((&empty["sentence"], &empty["held"][0]["days"][0]["rows"]), (&json!(said), &json!(0)));
    assert!(page.contains(said));
    let bare = "  rest: { wait: { for: 1s }, end: true }";
    let refused = |table: &str, from: Option<&str>| {
        let opened = world.workflow(ORDERS, bare);
        repair::block_on(async { opened.report_on_table(table).within(from, from).await }).unwrap_err().full()
    };
    let said = "no step of workflow `field` looks at table `t`, so nothing says which time is meant; give a beginning and an end";
    assert_eq!(refused("t", None), said);
    assert!(refused("tt", None).contains("did you mean `t`?"));
    let (given, _) = report(&world, bare, Some(("2024-03-01", "2024-03-10")));
    assert_eq!(given["held"][0]["several"], 3);
    assert!(given["notes"].to_string().contains("No step of workflow field looks for them"), "{}", given["notes"]);
    // A table that is not there is no empty table.
    std::fs::remove_dir_all(world.0.path().join("lake/t")).unwrap();
    assert!(!refused("t", Some("2024-03-01")).is_empty());
}

const AGENCY: &str = "sources:\n  agency: { source: stocks.archive, with: { location: agency, format: jsonl } }\n";

/// A daily file that never came is found, and a comparison with a source finds its orders, those with other values, and no others: the latest
/// version counts, on whichever side it is.
#[test]
fn orders_of_a_file_that_never_came_are_added_from_a_source() {
    let world = orders();
    let mut agency: String = (1..=10).map(|day| line(&format!("plain-{day}"), day, 100, day)).collect();
    for line in [
        // Two orders of the missing day, of which one has two versions.
        line("seventh", 7, 1, 7),
        line("seventh", 7, 2, 8),
        // Only an old version of one, a corrected value of another, and the time of a third was wrong.
        line("moved", 3, 1, 3),
        line("wrong", 4, 7, 5),
        line("twice", 2, 10, 2),
        line("later", 9, 20, 9),
    ] {
        agency.push_str(&line);
    }
    agency = agency.replace("2024-03-05T10:00:00Z", "2024-03-05T12:00:00Z");
    world.write("agency/all.jsonl", agency);
    let compared = format!(
        "  same: {{ detect: differs, with: {{ {SCOPE}, source: agency }}, next: restate }}\n  restate: {{ repair: backfill, of: same, with: {{ source: agency }}, \
         next: again }}\n  again: {{ verify: same, next: bad }}\n  bad:"
    );
    let steps = steps().replace("next: bad", "next: same").replace("  bad:", &compared);
    let repair = world.workflow_with(AGENCY, "t", ORDERS, &steps);
    let run = || repair::block_on(async { repair.run().await }).unwrap();
    let plan = repair::block_on(async { repair.plan().await.unwrap() });
    let why = &plan.not_planned.iter().find(|step| step.step == "same").unwrap().why;
    assert!(why.contains("the price includes 10 requests, and what it finds is known only when the run gets there"), "{why}");

    let first = run();
    let [same, again, bad] = ["same", "again", "bad"].map(|step| output(&first, step));
    assert_eq!(output(&first, "look")["units"]["missing"], 1, "the file of the seventh");
    let compared = json!({ "asked": 15, "slots": 13, "not_compared": 0, "only_source": 2, "only_table": 0, "only_table_values": 0 });
    assert_eq!(same["compared"], compared, "{:?} {:?}", first.reason, first.problems);
    assert_eq!((&same["defective"], &same["missing"], &same["cells"]), (&json!(4), &json!(2), &json!(2)), "{same}");
    assert_eq!((&again["defective"], &bad["defective"]), (&json!(0), &json!(0)), "{again} {bad}");
    assert_eq!(first.outcome, Some(Outcome::SucceededWithExceptions), "the file itself did not come: {:?}", first.problems);
    let said = first.problems.join("\n");
    for words in [
        "2 rows are only in source `agency`, and a repair adds them to table `t`: plain-7 at 2024-03-07T10:00:00Z; seventh at 2024-03-07T10:00:00Z",
        "2 rows of source `agency` are older versions than those of table `t`, which count: later at 2024-03-09T10:00:00Z; moved at 2024-03-03T10:00:00Z",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // `wrong` has another amount now, `plain-7` and `seventh` are there.
    assert!((world.sum() - TRUTH - PLAIN - 14.0 - 102.0).abs() < 1e-9, "{}", world.sum());
    let lake = repair.lake();
    let story = |key: &str, at: &str| {
        let at = at.parse::<repair::jiff::Timestamp>().unwrap();
        repair::block_on(async { serde_json::to_value(lake.why("t", at).key(key).await.unwrap()).unwrap() })
    };
    let [seventh, wrong, moved] =
        [("seventh", 7), ("wrong", 4), ("plain-5", 5)].map(|(key, day)| story(key, &format!("2024-03-{day:02}T10:00:00Z")));
    assert_eq!((&seventh["standing"], &seventh["repairs"][0]["op"]), (&json!("repaired"), &json!("insert")), "{seventh}");
    assert_eq!((&wrong["standing"], &moved["standing"]), (&json!("patched"), &json!("repaired")), "{wrong} {moved}");

    // Nothing is left to do; and when the file comes after all, its rows count, with a later version than the source has.
    let second = output(&run(), "same");
    assert_eq!((&second["defective"], &second["repaired"]), (&json!(0), &json!(2)), "{second}");
    world.write("t/day=2024-03-07/orders.jsonl", line("plain-7", 7, 500, 9));
    let third = run();
    assert_eq!(output(&third, "same")["defective"], 0, "{:?}", third.problems);
    assert!((world.sum() - TRUTH - PLAIN - 14.0 - 502.0).abs() < 1e-9, "{}", world.sum());
    std::fs::remove_file(world.0.path().join("lake/t/day=2024-03-07/orders.jsonl")).unwrap();

    // Undone, they are gone, and are found again.
    let undone = repair::block_on(async { lake.undo(&first.run).step("restate").await.unwrap() });
    assert_eq!(undone.rows(), 4);
    assert_eq!(output(&run(), "same")["defective"], 4);
    assert!((world.sum() - TRUTH - PLAIN - 14.0 - 102.0).abs() < 1e-9, "{}", world.sum());
}

#[test]
fn a_source_that_knows_nothing_of_orders_is_no_proof() {
    let world = orders();
    world.write("agency/all.jsonl", line("old", 1, 1, 1).replace("2024-03-01", "2023-01-01"));
    let steps = format!("  look: {{ detect: differs, with: {{ {SCOPE}, source: agency }}, end: true }}");
    let run = |table: &str| {
        let repair = world.workflow_with(AGENCY, "t", table, &steps);
        repair::block_on(async { repair.run().await }).unwrap()
    };
    let report = run(ORDERS);
    assert_eq!(report.outcome, Some(Outcome::Blind), "{:?}", report.problems);
    let words = "nothing of table `t` was compared with source `agency`: it has no row in";
    assert!(report.reason.as_ref().is_some_and(|why| why.contains(words)), "{:?}", report.reason);
    // Two different rows of one order, and nothing says which is the latest.
    world.write("agency/all.jsonl", line("plain-1", 1, 1, 1) + &line("plain-1", 1, 2, 2) + &line("plain-2", 2, 100, 2));
    let report = run(&ORDERS.replace("version: updated_at, ", ""));
    let said = report.problems.join("\n");
    assert!(
        said.contains("plain-1 at 2024-03-01T10:00:00Z: source `agency` has 2 different rows, and nothing says which is the latest"),
        "{said}"
    );
}

#[test]
fn a_plan_lists_rows_by_their_days() {
    let world = orders();
    let repair = world.workflow(ORDERS, &steps());
    let plan = repair::block_on(async { serde_json::to_value(repair.plan().await.unwrap()).unwrap() });
    let text = plan.to_string();
    assert!(text.contains("2024-03-03") && !text.contains("1970-"), "{plan:#}");
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
            "`backfill` cannot repair what `look` finds in table `t`: the table has `rows: unique`, so nothing but a source says which rows it should have; \
             compare it with the source by `detect: differs`",
        ),
        (
            ORDERS.to_owned(),
            format!(
                "  look: {{ detect: arrivals, with: {{ {SCOPE} }}, next: fix }}\n  fix: {{ repair: backfill, of: look, with: {{ source: s }}, end: true }}"
            ),
            "`backfill` cannot repair what `look` finds in table `t`",
        ),
        (
            ORDERS.to_owned(),
            format!("  look: {{ detect: differs, with: {{ {SCOPE}, source: s, sample: 5% }}, end: true }}"),
            "`sample` draws days of series; remove it",
        ),
        (
            ORDERS.to_owned(),
            format!("  look: {{ detect: differs, with: {{ {SCOPE}, source: s, deleted: remove }}, end: true }}"),
            "`deleted` removes rows of slots in which a source has none",
        ),
        (
            ORDERS.to_owned(),
            steps().replace("min: 0 }] }, next: sum", "min: 0 }] }, next: fix") + "\n  fix: { repair: interpolate, of: bad, next: sum }",
            "`differs` finds rows that only a source has, and `backfill` of what it finds adds them",
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
