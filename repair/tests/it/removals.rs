//! Rows that a source no longer has: they are removed if the workflow says so, within limits, and everything that was known about the table
//! stays known.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::output;
use crate::differs::{Case, HOURS, How, Rows, SPAN, columns, look, restate, run, seen, truth};
use repair::core::lake::overlay::story::Standing;
use repair::{ErrorKind, Outcome, RunReport};
use serde_json::{Value, json};

const BACKFILL: &str = "repair: backfill, with: { source: v }";
const GAPS: &str = "detect: gaps, with: { table: t, keys: [a, b], from: 2024-03-04, to: 2024-03-06 }";

/// The vendor has deleted a row, and corrected another.
fn deleted() -> (Rows, Rows) {
    let (table, mut source) = (truth(&["a", "b"], HOURS), truth(&["a", "b"], HOURS));
    source.remove(&("b", 21));
    source.get_mut(&("a", 13)).unwrap().1 = Some(-5);
    (table, source)
}

/// How many slots are expected, present, absent, missing, and of the absent ones removed.
fn counted(of: &Value) -> [u64; 5] {
    let counts = ["expected", "present", "absent", "missing", "removed"].map(|name| of[name].as_u64().unwrap_or(0));
    assert_eq!(counts[0], counts[1] + counts[2] + counts[3], "{of}");
    counts
}

fn has_problem(report: &RunReport, words: &str) -> bool {
    report.problems.iter().any(|problem| problem.contains(words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_its_source_deleted_is_removed_and_returns_with_it() {
    for patch in [true, false] {
        let (table, source) = deleted();
        let case = Case::new(&table, source.clone());
        let with = format!("{SPAN}, patch: {patch}, deleted: remove");
        let steps = format!("{}\n  gaps: {{ {GAPS}, end: true }}", restate(&with, BACKFILL).replace("end: true", "next: gaps"));
        let repair = case.open("", "", &steps).await;
        let first = run(&repair).await;
        let (looked, check) = (output(&first, "look"), output(&first, "check"));
        let compared = json!({ "asked": 144, "slots": 143, "not_compared": 0, "only_source": 0, "only_table": 1, "deleted": 1, "only_table_values": 0 });
        assert_eq!((&looked["compared"], &looked["defective"], &looked["conflicts"]), (&compared, &json!(2), &json!(0)));
        assert!(has_problem(&first, "where table `t` has one, which a repair removes: b at 2024-03-04T21:00:00Z"), "{:#?}", first.problems);
        assert_eq!((&check["defective"], counted(&output(&first, "gaps"))), (&json!(0), [144, 143, 1, 0, 1]));
        assert_eq!((first.missing, first.outcome), (0, Some(Outcome::Succeeded)), "{:#?}", first.problems);
        let mut expected = table.clone();
        expected.get_mut(&("a", 13)).unwrap().1 = Some(-5);
        expected.remove(&("b", 21));
        assert_eq!(seen(&case.world).await.0, expected);
        let at = "2024-03-04T21:30:00Z".parse().unwrap();
        let why = async || repair.why("t", at).key("b").await.unwrap();
        let story = why().await;
        assert_eq!((story.standing, story.raw.len(), story.repairs.len()), (Standing::Removed, 1, 1));
        let removal = &story.repairs[0].repair;
        assert!(
            removal.answer.as_ref().unwrap().starts_with("the vendor: no row for b 2024-03-04T21:00:00Z in an answer of"),
            "{removal:?}"
        );
        assert_eq!((removal.op.as_str(), removal.provenance.source.as_str(), removal.changed), ("remove", "v", false));

        // Looked at again, it is neither different nor a conflict; and late rows stay hidden, which is known.
        let again = run(&repair).await;
        let looked = output(&again, "look");
        assert_eq!(
            (&looked["defective"], &looked["compared"]["removed"], &looked["conflicts"]),
            (&json!(0), &json!(1), &json!(0)),
            "{looked}"
        );
        assert_eq!(counted(&looked), [144, 143, 1, 0, 1]);
        let mut late = table.clone();
        late.get_mut(&("b", 21)).unwrap().0 = Some(0.5);
        case.world.parquet("t/data.parquet", &columns(&late));
        assert_eq!(seen(&case.world).await.0, expected);
        assert!(why().await.repairs[0].repair.changed);

        // Undone, it is back, and is found again; redone, it is gone again.
        let undone = repair.undo(&first.run).step("fix").key("b").await.unwrap();
        assert_eq!((undone.rows(), why().await.standing), (1, Standing::Raw));
        assert_eq!(seen(&case.world).await.0[&("b", 21)].0, Some(0.5));
        repair.redo(&undone.id).await.unwrap();
        assert_eq!(why().await.standing, Standing::Removed);

        // The source has it again.
        case.vendor.rows.lock().unwrap().insert(("b", 21), (Some(7.0), Some(8), None));
        let returned = run(&repair).await;
        let looked = output(&returned, "look");
        assert_eq!((&looked["defective"], &looked["compared"]["returned"]), (&json!(1), &json!(1)), "{looked}");
        assert!(
            has_problem(&returned, "source `v` has a row again in 1 slot whose row in table `t` was removed"),
            "{:#?}",
            returned.problems
        );
        assert_eq!((&output(&returned, "check")["defective"], counted(&output(&returned, "gaps"))), (&json!(0), [144, 144, 0, 0, 0]));
        expected.insert(("b", 21), (Some(7.0), Some(8), None));
        assert_eq!(seen(&case.world).await.0, expected);
        assert_eq!(why().await.standing, Standing::Repaired);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_lacks_too_much_removes_nothing() {
    let whole = truth(&["a", "b"], HOURS);
    let without = |hours: &[i64]| {
        let mut rows = whole.clone();
        rows.retain(|(key, hour), _| *key != "b" || !hours.contains(hour));
        rows
    };
    // 2 of 144 are more than 1 %.
    let case = Case::new(&whole, without(&[20, 30]));
    let report = run(&case.open("", "", &restate(&format!("{SPAN}, deleted: remove"), BACKFILL)).await).await;
    assert_eq!((report.error, report.outcome), (Some(ErrorKind::Blind), Some(Outcome::Blind)), "{:?}", report.reason);
    let words = "source `v` says that there is no row in 2 of 144 slots of table `t` with a row, and `deleted` allows 1%, so the source may have failed \
                 and nothing is removed; check the source and, if the rows are really gone there, raise `at_most`, e.g. `deleted: { at_most: 2% }`";
    assert!(report.reason.as_ref().unwrap().contains(words), "{:?}", report.reason);
    assert_eq!(seen(&case.world).await.0, whole);
    let report = run(&case.open("", "", &restate(&format!("{SPAN}, deleted: {{ at_most: 2% }}"), BACKFILL)).await).await;
    assert_eq!((&output(&report, "look")["defective"], &output(&report, "check")["defective"]), (&json!(2), &json!(0)));
    assert_eq!(seen(&case.world).await.0, without(&[20, 30]));
    // What was removed before counts, so a source that loses more each day is not believed each day.
    *case.vendor.rows.lock().unwrap() = without(&[20, 30, 40]);
    let report = case.look(&format!("{SPAN}, deleted: {{ at_most: 2% }}")).await;
    assert!(report.reason.as_ref().unwrap().contains("no row in 3 of 144 slots of table `t` with a row, 2 of which were removed before"));

    // A whole answer without a row of the key is no proof, unless the workflow says that it is one.
    let day: Vec<i64> = (48..72).collect();
    for (deleted, removed) in [("{ at_most: 50% }", 0), ("{ at_most: 50%, empty_answers: true }", 24)] {
        let case = Case::new(&whole, without(&day)).answering(How::Boldly);
        let steps = restate(&format!("{SPAN}, deleted: {deleted}"), BACKFILL);
        let report = run(&case.open("", "rows_per_request: 24", &steps).await).await;
        let (looked, check) = (output(&report, "look"), output(&report, "check"));
        assert_eq!((&looked["compared"]["only_table"], &looked["defective"]), (&json!(24), &json!(removed)), "{deleted}");
        assert_eq!((&check["defective"], &looked["conflicts"]), (&json!(0), &json!(24 - removed)), "{deleted}");
        let empty = "in 24 slots where table `t` has some, in an answer without any row of its key; they stay, unless `deleted` has `empty_answers: true`";
        assert_eq!(has_problem(&report, empty), removed == 0, "{:#?}", report.problems);
        let left = if removed == 0 { whole.clone() } else { without(&day) };
        assert_eq!(seen(&case.world).await.0, left, "{deleted}");
    }
}

/// A repairer has the last word: its source must say the same, and a row is never put in the place of one that is to be removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_confirmed_is_removed() {
    let (table, source) = deleted();
    let case = Case::new(&table, source);
    let found = look(&format!("{SPAN}, deleted: remove"), "next: pause");
    let steps = format!(
        "{found}\n  pause: {{ wait: {{ until: {{ event: changed, every: 50ms }} }}, next: fix }}\n  fix: {{ {BACKFILL}, of: look, next: check }}\n  check: {{ verify: look, end: true }}"
    );
    let repair = case.open("", "", &steps).await;
    let (vendor, asked, lake) = (case.vendor.clone(), case.vendor.clone(), repair.lake().clone());
    let change = tokio::spawn(async move {
        while asked.asked.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        vendor.rows.lock().unwrap().insert(("b", 21), (Some(7.0), Some(8), None));
        lake.signal("it", "changed", None, json!(null)).await.unwrap();
    });
    let report = repair.run().id("it").await.unwrap_or_else(|error| panic!("{}", error.full()));
    change.await.unwrap();
    let words = "b at 2024-03-04T21:00:00Z: the row was found to be deleted at its source, but `v` has one";
    assert!(has_problem(&report, words), "{:#?}", report.problems);
    let mut expected = table.clone();
    expected.get_mut(&("a", 13)).unwrap().1 = Some(-5);
    assert_eq!(seen(&case.world).await.0, expected);
    // A computed value is no answer of a source.
    let (table, source) = deleted();
    let case = Case::new(&table, source);
    let steps = restate(&format!("{SPAN}, deleted: remove"), "repair: carry-forward, with: { max_age: 1h }");
    let report = run(&case.open("", "", &steps).await).await;
    assert!(has_problem(&report, "the row was found to be deleted at its source, but `carry-forward` has one"), "{:#?}", report.problems);
    assert_eq!(seen(&case.world).await.0[&("b", 21)], table[&("b", 21)]);
    assert_eq!(report.missing, 2, "the changed value is still different, and so is the deleted row");
}
