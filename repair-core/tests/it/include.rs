//! Definitions that workflows share: what `include` brings, and how mistakes in several files are reported.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;

use repair_core::plugin::Registry;
use repair_core::testing::definition;
use repair_core::workflow::{Document, Workflow};

const LAKE: &str = "\
include: [more.yaml]
tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1m }
";
const MORE: &str = "\
tables:
  hourly: { location: hourly, format: parquet, key: [sensor], time: hour, cadence: 1h }
";
const WORKFLOW: &str = "\
workflow: nightly
kind: state-machine
include: [../shared/lake.yaml, ../shared/more.yaml]
tables:
  own: { location: own, format: csv, time: ts }
start: look
steps:
  look: { detect: gaps, with: { table: readings, keys: [a], from: 2024-03-04, to: 2024-03-04 }, next: sum }
  sum: { aggregate: sql, with: { into: daily, query: SELECT 1 }, end: true }
";

fn files(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
    texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn parse(text: &str, included: &[(&str, &str)]) -> Result<Workflow, String> {
    Workflow::parse_with("w.yaml", text, &Registry::default(), &files(included)).map_err(|mistakes| mistakes.to_string())
}

/// A workflow with these lines on top, which looks for gaps in `readings`.
fn with(top: &str) -> String {
    format!("workflow: w\nkind: dag\n{top}\nsteps:\n  rest: {{ wait: {{ for: 1s }} }}\n")
}

#[test]
fn what_included_files_define_belongs_to_the_workflow_and_is_kept_with_it() {
    let texts = files(&[("shared/lake.yaml", LAKE), ("shared/more.yaml", MORE)]);
    // Names are relative to the file that includes: `more.yaml` in `shared/lake.yaml` is `shared/more.yaml`.
    let workflow = Workflow::parse_with("flows/w.yaml", WORKFLOW, &Registry::default(), &texts).unwrap_or_else(|told| panic!("{told}"));
    assert_eq!(workflow.tables.keys().collect::<Vec<_>>(), ["hourly", "own", "readings"]);
    assert_eq!(workflow.children, texts, "the file that two others include is kept once");
    let again = Workflow::parse_with("flows/w.yaml", &workflow.text, &Registry::default(), &workflow.children).unwrap();
    assert_eq!(definition(&again), definition(&workflow));

    // It means what it would mean in one file.
    let section = |text: &str| text.lines().filter(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect::<String>();
    let alone = WORKFLOW.replace("include: [../shared/lake.yaml, ../shared/more.yaml]\n", "");
    let alone = parse(&alone.replace("tables:\n", &format!("tables:\n{}{}", section(LAKE), section(MORE))), &[]).unwrap();
    assert_eq!(alone.tables, workflow.tables);
}

#[test]
fn mistakes_in_all_files_are_reported_at_once_each_with_its_own_place() {
    let lake = "\
tables:
  readings: { location: readings, format: cvs, time: ts, cadance: 1m }
  readings: { location: readings, format: csv, time: ts }
sources:
  market: { source: archive, with: { location: \"{% $params.folder %}\" }, rate_limit: 7 }
steps: { look: { succeed: true } }
calendar: XNYS
";
    let text = WORKFLOW.replace("../shared/lake.yaml, ../shared/more.yaml", "lake.yaml").replace("table: readings", "table: reading");
    insta::assert_snapshot!(parse(&text, &[("lake.yaml", lake)]).unwrap_err());
    // Where only an included file has mistakes, the summary says so.
    let text = with("include: lake.yaml");
    let only = parse(&text, &[("lake.yaml", "tables: { bars: { location: bars, format: csv } }\n")]).unwrap_err();
    assert!(only.contains("--> lake.yaml:1:11") && only.ends_with("`w.yaml` cannot run: 1 mistake, in the included `lake.yaml`"), "{only}");
}

#[test]
fn an_included_file_that_cannot_be_read_is_one_mistake_at_the_entry_that_names_it() {
    let uses = |include: &str| WORKFLOW.replace("[../shared/lake.yaml, ../shared/more.yaml]", include);
    let deep: Vec<(String, String)> = (0..20).map(|n| (format!("d{n}.yaml"), format!("include: [d{}.yaml]\n", n + 1))).collect();
    let deep: Vec<(&str, &str)> = deep.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    for (include, texts, words) in [
        ("[lake.yaml]", vec![], ["w.yaml:3:11", "`lake.yaml` cannot be included: there is no file `lake.yaml`"]),
        ("[w.yaml]", vec![], ["w.yaml:3:11", "`w.yaml` would include itself: w.yaml includes w.yaml"]),
        (
            "[a.yaml]",
            vec![("a.yaml", "include: [./b.yaml]"), ("b.yaml", "include: a.yaml")],
            ["b.yaml:1:10", "`a.yaml` would include itself: a.yaml includes b.yaml includes a.yaml"],
        ),
        ("[d0.yaml]", deep, ["d7.yaml:1:11", "nested more than 8 deep"]),
        ("[a.yaml, ./a.yaml]", vec![("a.yaml", LAKE), ("more.yaml", MORE)], ["w.yaml:3:19", "`./a.yaml` is included twice"]),
        ("[a.yaml]", vec![("a.yaml", "tables: {")], ["a.yaml:1:", "`w.yaml` cannot run: 1 mistake"]),
        ("{ a: b }", vec![], ["w.yaml:3:10", "`include` must be a list of files, not a mapping"]),
        ("[7]", vec![], ["w.yaml:3:11", "an entry of `include` must be the name of a file, not a number"]),
    ] {
        let mistakes = parse(&uses(include), &texts).unwrap_err();
        for words in words {
            assert!(mistakes.contains(words), "{include}: {mistakes}");
        }
        // That tables are missing follows from it, and is no second mistake.
        assert!(mistakes.contains("1 mistake") && !mistakes.contains("there is no table"), "{include}: {mistakes}");
    }
    for (text, words) in [
        ("", "the file is empty"),
        ("- tables", "an included file must be a mapping, not a list"),
        ("workflow: other\nkind: dag", "`workflow` belongs to a workflow, and workflows cannot share it"),
        ("table: {}", "did you mean `tables`?"),
    ] {
        let mistakes = parse(&with("include: [a.yaml]"), &[("a.yaml", text)]).unwrap_err();
        assert!(mistakes.contains(words) && mistakes.contains("a.yaml:1:1"), "{mistakes}");
    }
}

#[test]
fn a_name_means_one_thing_in_all_files() {
    let table = |name: &str| format!("tables:\n  {name}: {{ location: {name}, format: csv, time: ts }}\n");
    let source = "sources: { market: { source: archive, with: { location: x } } }";
    // Even where both say the same: a later change to one of them would not reach the other.
    let text = with(&format!("include: [lake.yaml]\n{}", table("bars")));
    insta::assert_snapshot!(parse(&text, &[("lake.yaml", &table("bars"))]).unwrap_err());
    let two = parse(&with("include: [a.yaml, b.yaml]"), &[("a.yaml", &table("bars")), ("b.yaml", &table("bars"))]).unwrap_err();
    assert!(two.contains("table `bars` is defined here and at a.yaml:2:3") && two.contains("b.yaml:2:3"), "{two}");
    let sources = parse(&with(&format!("include: [lake.yaml]\n{source}")), &[("lake.yaml", source)]).unwrap_err();
    assert!(sources.contains("source `market` is defined here and at lake.yaml:1:12"), "{sources}");
    let case = parse(&with(&format!("include: [lake.yaml]\n{}", table("Bars"))), &[("lake.yaml", &table("bars"))]).unwrap_err();
    assert!(case.contains("table `Bars` differs only in case from table `bars` (lake.yaml:2:3)"), "{case}");
    let kept = parse(&with(&format!("include: [lake.yaml]\n{}", table("bars_repairs"))), &[("lake.yaml", &table("bars"))]).unwrap_err();
    assert!(kept.contains("reserved for the repairs of table `bars` (lake.yaml:2:3)"), "{kept}");
}

#[test]
fn tables_at_one_location_say_the_same_about_it() {
    let lake = "tables:\n  bars: { location: ./market/bars/, format: csv, key: [symbol], time: ts, cadence: 1m }\n";
    let text = |table: &str| with(&format!("include: [lake.yaml]\ntables:\n  minutes: {table}"));
    let other = text("{ location: market/bars, format: csv, key: [ticker], time: ts, time_marks: end, cadence: 1m }");
    insta::assert_snapshot!(parse(&other, &[("lake.yaml", lake)]).unwrap_err());
    let alike = text("{ location: market/bars, format: csv, key: symbol, time: ts, cadence: 60s }");
    assert_eq!(parse(&alike, &[("lake.yaml", lake)]).unwrap().tables.len(), 2, "a second name for the same is no contradiction");
    let zone = text("{ location: market/bars, format: csv, key: symbol, time: { column: ts, zone: Europe/Berlin }, cadence: 1m }");
    let zone = parse(&zone, &[("lake.yaml", lake)]).unwrap_err();
    assert!(zone.contains("`market/bars`, differently: `time`\n"), "{zone}");
    let in_one = with("tables:\n  a: { location: l, format: csv, time: ts }\n  b: { location: l/, format: jsonl, time: ts }");
    let in_one = parse(&in_one, &[]).unwrap_err();
    assert!(in_one.contains("tables `a` and `b` describe the same location, `l/`, differently: `format`"), "{in_one}");
}

#[test]
fn no_two_locations_share_an_overlay() {
    let lake = "tables:\n  quotes: { location: ./bars/, format: csv, key: [symbol], time: ts, cadence: 1m }\n";
    let text = |name: &str, location: &str| {
        with(&format!(
            "include: [lake.yaml]\ntables:\n  {name}: {{ location: \"{location}\", format: csv, key: [symbol], time: ts, cadence: 1m }}"
        ))
    };
    insta::assert_snapshot!(parse(&text("bars", "/data/bars"), &[("lake.yaml", lake)]).unwrap_err());
    for elsewhere in ["bars/*.csv", "s3://other/bars", "../bars", "."] {
        let mistakes = parse(&text("bars", elsewhere), &[("lake.yaml", lake)]).unwrap_err();
        assert!(mistakes.contains("would be one, `bars_repairs`") && mistakes.contains("w.yaml:5:3"), "{elsewhere}: {mistakes}");
        assert_eq!(parse(&text("other", elsewhere), &[("lake.yaml", lake)]).unwrap().tables.len(), 2, "{elsewhere}");
    }
    for within in ["deep/bars", "bars", "bars/../bars"] {
        assert_eq!(parse(&text("bars", within), &[("lake.yaml", lake)]).unwrap().tables.len(), 2, "{within}");
    }
}

#[test]
fn a_file_of_definitions_is_checked_by_itself_and_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    let load = |name: &str| Document::load(&path(name), &Registry::default(), None).map_err(|mistakes| mistakes.to_string());
    write("lake.yaml", LAKE);
    write("more.yaml", MORE);
    let Document::Shared(shared) = load("lake.yaml").unwrap() else { panic!("it holds no workflow") };
    assert_eq!(shared.tables.keys().collect::<Vec<_>>(), ["hourly", "readings"]);
    let refused = Workflow::load(&path("lake.yaml"), &Registry::default()).unwrap_err().to_string();
    assert!(refused.contains("holds definitions to share, and no workflow") && refused.contains("`include: [lake.yaml]`"), "{refused}");

    write("w.yaml", &WORKFLOW.replace("../shared/", ""));
    let Document::Workflow(workflow) = load("w.yaml").unwrap() else { panic!("it holds a workflow") };
    assert_eq!(workflow.tables.len(), load("w.yaml").unwrap().tables().len());

    write("more.yaml", &MORE.replace("parquet", "parket"));
    let mistakes = load("lake.yaml").unwrap_err();
    assert!(mistakes.contains("did you mean `parquet`?") && mistakes.contains("more.yaml:2:"), "{mistakes}");
    assert!(mistakes.contains("lake.yaml` cannot be used: 1 mistake, in the included"), "{mistakes}");
    write("odd.yaml", "tables: {}\nprofiles: {}\nsources: { s: { source: nothing, with: { at: \"{% $params.x & $y %}\" } } }\n");
    let mistakes = load("odd.yaml").unwrap_err();
    for words in ["`profiles` belongs to a workflow", "there is no source `nothing`", "there is no variable `$y`", "3 mistakes"] {
        assert!(mistakes.contains(words), "{words}: {mistakes}");
    }
}
