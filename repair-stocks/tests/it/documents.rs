//! The documents are right about the workflow language: their samples are valid, and they describe every plug-in and its configuration.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use repair_core::ErrorKind;
use repair_core::plugin::Registry;
use repair_core::price::PriceBook;
use repair_core::workflow::Workflow;
use serde_json::Value;

/// The pages about the language, each with its name. The overview comes first.
fn pages() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/workflows");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| (!path.ends_with("README.md"), path.clone()));
    let page = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap());
    let pages: Vec<_> = files.into_iter().map(page).collect();
    assert!(pages.len() > 10 && pages[0].0 == "README.md", "the pages were found");
    pages
}

/// The other pages, which have workflows too: those of the book, and the README.
fn others() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    files.extend([root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("examples/README.md")]);
    files.sort();
    let page = |path: PathBuf| (path.strip_prefix(&root).unwrap().display().to_string(), std::fs::read_to_string(&path).unwrap());
    files.into_iter().map(page).collect()
}

/// The name under which samples run the first of them as a step.
const FIRST: &str = "power-daily.yaml";

fn registry() -> Registry {
    let mut registry = Registry::default();
    repair_connect::register(&mut registry);
    repair_stocks::register(&mut registry);
    registry
}

/// A block of YAML: its page, its first line, its text.
struct Block {
    page: String,
    line: usize,
    text: String,
}

/// The blocks of the pages with this mark.
fn blocks(mark: &str) -> Vec<Block> {
    let fence = format!("```{mark}");
    let mut blocks = Vec::new();
    for (page, document) in pages().into_iter().chain(others()) {
        let mut lines = (1..).zip(document.lines());
        while let Some((number, line)) = lines.next() {
            if line == fence {
                let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
                blocks.push(Block { page: page.clone(), line: number + 1, text: block.join("\n") + "\n" });
            }
        }
    }
    blocks
}

/// The files that samples name: the first workflow, the one that holds shared definitions, and files of days.
fn children() -> BTreeMap<String, String> {
    let lake = blocks("yaml shared").remove(0).text;
    let mut children = BTreeMap::from([(FIRST.to_owned(), blocks("yaml").remove(0).text), ("lake.yaml".to_owned(), lake)]);
    let days = [
        ("holidays.csv", "date,name\n2024-12-25,Christmas\n"),
        ("shanghai-2027.csv", "date,name\n2027-01-01,New Year's Day\n"),
        ("shifts.csv", "date,open\n2024-03-04,06:00-14:00\n2024-03-05,<22:00-06:00\n"),
    ];
    children.extend(days.map(|(name, text)| (name.to_owned(), text.to_owned())));
    children
}

#[test]
fn every_whole_workflow_of_the_language_is_sound() {
    let whole = blocks("yaml");
    assert!(whole.len() > 3);
    for Block { page, line, text } in whole {
        if let Err(mistakes) = Workflow::parse(&format!("{page} from line {line}"), &text, &registry()) {
            panic!("{mistakes}");
        }
    }
}

/// What a fragment leaves out.
const AROUND: [(&str, &str); 6] = [
    ("workflow", "fragment"),
    ("kind", "state-machine"),
    ("tables", "{ readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h } }"),
    ("sources", "{ agency: { source: stocks.archive, with: { location: agency } } }"),
    ("start", "find_gaps"),
    ("steps", "{ find_gaps: { succeed: true } }"),
];

#[test]
fn every_fragment_of_the_language_fits_into_a_workflow() {
    let mut fragments = blocks("yaml fragment");
    assert!(fragments.len() > 10);
    let over_http = blocks("yaml fragment of http");
    assert_eq!(over_http.len(), 2);
    if cfg!(feature = "http") {
        fragments.extend(over_http);
    }
    for Block { page, line, text: fragment } in fragments {
        let mut text = fragment.clone();
        for (key, value) in AROUND {
            if !fragment.lines().any(|line| line.starts_with(&format!("{key}:"))) {
                writeln!(text, "{key}: {value}").unwrap();
            }
        }
        let Err(mistakes) = Workflow::parse_with("sample.yaml", &text, &registry(), &children()) else { continue };
        // Steps that a fragment leads to may be elsewhere.
        let wrong: Vec<String> = mistakes
            .iter()
            .filter(|mistake| !mistake.message.contains("which does not exist"))
            .map(|mistake| format!("line {}: {}", line + mistake.line - 1, mistake.message))
            .collect();
        assert!(wrong.is_empty(), "in {page}, {}", wrong.join("; "));
    }
}

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            found.push(path);
        }
    }
}

#[test]
fn every_example_is_sound() {
    let mut files = Vec::new();
    yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples"), &mut files);
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        if std::fs::read_to_string(&file).unwrap().starts_with("prices:") {
            if let Err(mistakes) = PriceBook::load(&file) {
                panic!("{mistakes}");
            }
            continue;
        }
        if let Err(mistakes) = Workflow::load(&file, &registry()) {
            panic!("{mistakes}");
        }
    }
}

#[test]
fn the_language_describes_every_plug_in_every_key_of_its_with_and_every_kind_of_error() {
    let pages = pages();
    let described = |word: &str| pages.iter().any(|(_, page)| page.contains(&format!("`{word}`")));
    let registry = registry();
    for entry in registry.entries() {
        assert!(described(&entry.name), "{} is left out", entry.name);
        let keys = entry.schema().get("properties").and_then(Value::as_object).unwrap().keys();
        for key in keys {
            assert!(described(key), "`{key}` of {} is left out", entry.name);
        }
    }
    assert!(registry.calendars().keys().all(|name| described(name)), "{:?}", registry.calendars().keys());
    assert!(ErrorKind::ALL.into_iter().all(|kind| described(kind.as_str())));
}
