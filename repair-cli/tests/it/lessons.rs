//! Every lesson of `docs/lessons.md` is a test of that name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows of the tables of a page, each as its cells.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = page.lines().filter(|line| line.starts_with("| ")).map(cells);
    rows.filter(|cells| cells[0] != "name" && !cells[0].starts_with("---")).collect()
}

/// The names of the functions of a file that are tests.
fn tests(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if is_test && !line.starts_with("#[") && !line.starts_with("//") {
            let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            names.extend(name.map(str::to_owned));
            is_test = false;
        }
    }
    names
}

#[test]
fn every_lesson_is_a_test_where_the_page_says() {
    let page = std::fs::read_to_string(root().join("docs/lessons.md")).unwrap();
    let mut files: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    let lessons = rows(&page);
    assert!(lessons.len() > 25, "the page was read");
    for cells in &lessons {
        let [name, _, _, place] = cells.as_slice() else { panic!("a lesson has four cells: {cells:?}") };
        let file = root().join(place.trim_matches('`'));
        let tests = files.entry(file.clone()).or_insert_with(|| {
            let source = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            tests(&source)
        });
        assert!(tests.contains(name), "no test `{name}` in {place}");
    }
    let names: BTreeSet<&str> = lessons.iter().map(|cells| cells[0].as_str()).collect();
    assert_eq!(names.len(), lessons.len(), "each lesson is told once");
}

/// The lessons, so that none is lost when the page is edited. A new lesson is added here too.
const LESSONS: [&str; 31] = [
    "blind_is_not_clean",
    "one_fresh_key_is_not_fresh",
    "outage_keeps_its_evidence",
    "same_symptom_three_causes",
    "complete_with_holes",
    "source_ignores_the_date",
    "silent_skip_is_not_absent",
    "absence_expires",
    "absent_is_not_failed",
    "no_endless_retry",
    "fair_shares",
    "constant_fill_is_marked",
    "neighbours_are_checked",
    "silence_of_all_is_suspect",
    "late_truth_wins",
    "crashed_is_counted",
    "retry_same_batches",
    "only_what_failed",
    "fix_and_go_on",
    "two_drivers",
    "done_means_done",
    "stuck_pending",
    "spend_is_recorded_first",
    "budget_with_estimate",
    "cancelled_still_costs",
    "failed_write_leaves_nothing",
    "rewrite_is_the_same",
    "hundred_partitions",
    "both_throttles",
    "back_to_queued",
    "polling_storm",
];

#[test]
fn no_lesson_is_left_out() {
    let page = std::fs::read_to_string(root().join("docs/lessons.md")).unwrap();
    let kept: BTreeSet<String> = rows(&page).into_iter().map(|mut cells| cells.swap_remove(0)).collect();
    assert_eq!(kept, LESSONS.into_iter().map(str::to_owned).collect());
}
