//! What the documents say of the workflow language is so: their samples are sound, and they tell of every plug-in and what it takes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use repair_core::ErrorKind;
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;
use serde_json::Value;

const LANGUAGE: &str = include_str!("../../docs/workflows.md");

/// The name by which samples run the first of them as a step.
const FIRST: &str = "power-daily.yaml";

fn registry() -> Registry {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    registry
}

/// The blocks of YAML of a document that bear a mark, each with its line.
fn blocks(document: &str, mark: &str) -> Vec<(usize, String)> {
    let fence = format!("```{mark}");
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(document.lines());
    while let Some((number, line)) = lines.next() {
        if line == fence {
            let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            blocks.push((number + 1, block.join("\n") + "\n"));
        }
    }
    blocks
}

fn children() -> BTreeMap<String, String> {
    let (_, first) = blocks(LANGUAGE, "yaml").remove(0);
    BTreeMap::from([(FIRST.to_owned(), first)])
}

#[test]
fn every_whole_workflow_of_the_language_is_sound() {
    let whole = blocks(LANGUAGE, "yaml");
    assert!(whole.len() > 2);
    for (line, text) in whole {
        if let Err(told) = Workflow::parse(&format!("workflows.md from line {line}"), &text, &registry()) {
            panic!("{told}");
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
    let mut fragments = blocks(LANGUAGE, "yaml fragment");
    assert!(fragments.len() > 5);
    let over_http = blocks(LANGUAGE, "yaml fragment of http");
    assert_eq!(over_http.len(), 1);
    if cfg!(feature = "http") {
        fragments.extend(over_http);
    }
    for (line, fragment) in fragments {
        let mut text = fragment.clone();
        for (key, value) in AROUND {
            if !fragment.lines().any(|line| line.starts_with(&format!("{key}:"))) {
                writeln!(text, "{key}: {value}").unwrap();
            }
        }
        let Err(told) = Workflow::parse_with("sample.yaml", &text, &registry(), &children()) else { continue };
        // Steps that a fragment leads to may be elsewhere.
        let wrong: Vec<String> = told
            .iter()
            .filter(|mistake| !mistake.message.contains("there is no such step"))
            .map(|mistake| format!("line {}: {}", line + mistake.line - 1, mistake.message))
            .collect();
        assert!(wrong.is_empty(), "in workflows.md, {}", wrong.join("; "));
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
        if let Err(told) = Workflow::load(&file, &registry()) {
            panic!("{told}");
        }
    }
}

#[test]
fn the_language_tells_of_every_plug_in_every_key_of_its_with_and_every_kind_of_error() {
    let told = |word: &str| LANGUAGE.contains(&format!("`{word}`"));
    let registry = registry();
    for entry in registry.entries() {
        assert!(told(&entry.name), "{} is left out", entry.name);
        let keys = entry.schema.get("properties").and_then(Value::as_object).unwrap().keys();
        for key in keys {
            assert!(told(key), "`{key}` of {} is left out", entry.name);
        }
    }
    assert!(registry.calendars().keys().all(|name| told(name)), "{:?}", registry.calendars().keys());
    assert!(ErrorKind::ALL.into_iter().all(|kind| told(kind.as_str())));
}
