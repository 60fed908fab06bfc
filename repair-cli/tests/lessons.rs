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

/// The list of lessons that the project was given holds none that is not kept.
#[test]
fn no_lesson_is_left_out() {
    let Ok(given) = std::fs::read_to_string(root().join("../shared/lessons.md")) else {
        eprintln!("SKIPPED: no list of lessons beside the project");
        return;
    };
    let page = std::fs::read_to_string(root().join("docs/lessons.md")).unwrap();
    let kept: BTreeSet<String> = rows(&page).into_iter().map(|mut cells| cells.swap_remove(0)).collect();
    let left_out: Vec<String> =
        rows(&given).into_iter().map(|mut cells| cells.swap_remove(0)).filter(|name| !kept.contains(name)).collect();
    assert_eq!(left_out, [] as [&str; 0]);
}
