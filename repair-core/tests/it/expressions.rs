//! What expressions mean: a table of expressions and their values, which must not change under a run that is resumed by a later version.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use repair_core::workflow::EVALUATOR;
use repair_core::workflow::{Expression, Variables};
use serde_json::Value;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The variables of a line such as `with {"output": {"missing": 3}}`.
fn variables(text: &str) -> Variables {
    let given: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let of = |name: &str| given.get(name).cloned().unwrap_or_default();
    let visits = given.get("visits").and_then(Value::as_u64).unwrap_or_default();
    Variables {
        params: of("params"),
        output: of("output"),
        steps: of("steps"),
        visits: u32::try_from(visits).unwrap(),
        error: of("error"),
        run: of("run"),
        items: Default::default(),
    }
}

fn value(expression: &str, variables: &Variables) -> String {
    match Expression::parse(expression).and_then(|parsed| parsed.evaluate(variables)) {
        Ok(value) => format!("→ {value}"),
        Err(error) => format!("✗ {}", error.message()),
    }
}

/// Each line of the table that is not a comment, not `with …` and not indented is an expression; below it is its value or its error.
/// `GOLDEN_UPDATE=1 cargo test -p repair-core --test it expressions::` writes the values anew: only for expressions that are new.
#[test]
fn expressions_mean_what_they_meant() {
    let path = here().join("tests/expressions.txt");
    let mut golden = std::fs::read_to_string(&path).unwrap();
    let (mut variables_now, mut found, mut count) = (Variables::default(), String::new(), 0);
    for line in golden.lines().filter(|line| !line.starts_with("    ")) {
        writeln!(found, "{line}").unwrap();
        if let Some(given) = line.strip_prefix("with ") {
            variables_now = variables(given);
        } else if !line.is_empty() && !line.starts_with('#') {
            writeln!(found, "    {}", value(line, &variables_now)).unwrap();
            count += 1;
        }
    }
    if std::env::var_os("GOLDEN_UPDATE").is_some() {
        std::fs::write(&path, &found).unwrap();
        golden.clone_from(&found);
    }
    let changed: Vec<String> = std::iter::zip(golden.lines(), found.lines())
        .filter(|(before, now)| before != now)
        .map(|(before, now)| format!("was {before}\nis  {now}"))
        .collect();
    assert!(count > 150, "the table was read: {count}");
    assert!(golden == found, "{EVALUATOR} gives other values, so runs that are resumed may branch otherwise:\n{}", changed.join("\n"));
}

/// The version that is recorded is the one that is built in, and it is pinned: a patch release may change what expressions give.
#[test]
fn the_evaluator_is_pinned_and_recorded_by_its_version() {
    let version = EVALUATOR.strip_prefix("jsonata-core ").unwrap();
    let root = here().join("..");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("jsonata-core = {{ version = \"={version}\"")), "Cargo.toml does not pin {EVALUATOR}");
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    assert!(lock.contains(&format!("name = \"jsonata-core\"\nversion = \"{version}\"")), "Cargo.lock has another version than {EVALUATOR}");
}
