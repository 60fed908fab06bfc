//! Keeps words out of what people read that they do not use: help texts, documentation, messages, doc comments.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Words that a plain sentence does not need: say, show, report, print; fix, correct; count, compute.
const WORDS: [&str; 7] = ["tell", "tells", "told", "mend", "mended", "reckon", "reckoned"];

/// Folders of sources whose strings and doc comments are read.
const SOURCES: [&str; 11] = [
    "aws-sandbox/src",
    "examples/first-program/src",
    "examples/own-plugin/src",
    "examples/stock-pipeline/src",
    "repair/src",
    "repair-aws/src",
    "repair-cli/src",
    "repair-connect/src",
    "repair-core/src",
    "repair-local/src",
    "repair-stocks/src",
];

/// Folders whose Markdown and YAML is read, with all that is in them.
const PAGES: [&str; 3] = ["docs", "examples", "prices"];

/// What is allowed: a file's end, and what the line contains.
const ALLOWED: [(&str, &str); 3] = [
    // The name of a field in journals, which stays readable.
    ("engine/pure/event.rs", "told"),
    ("model/fix.rs", "told"),
    // The name of a column in artifacts.
    ("engine/drive/late.rs", "told_by"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The words of a text that should not be there.
fn odd(text: &str) -> Vec<&'static str> {
    let words: BTreeSet<String> = text.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase).collect();
    WORDS.into_iter().filter(|word| words.contains(*word)).collect()
}

fn is_allowed(file: &Path, line: &str) -> bool {
    ALLOWED.iter().any(|(end, part)| file.ends_with(end) && line.contains(part))
}

/// All files below a folder that end so.
fn below(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                found.extend(below(&path, endings));
            }
        } else if path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Each line with an odd word, as `file:line: word: text`.
fn complaints<'a>(file: &Path, lines: impl IntoIterator<Item = (usize, &'a str)>) -> Vec<String> {
    let complain = |(number, line): (usize, &str)| {
        let odd = odd(line);
        let is_fine = odd.is_empty() || is_allowed(file, line);
        (!is_fine).then(|| format!("{}:{number}: {}: {}", file.display(), odd.join(", "), line.trim()))
    };
    lines.into_iter().filter_map(complain).collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

/// The string literals and doc comments of a source, by line. Tests at its end are left out, as are other comments.
fn readable(source: &str) -> Vec<(usize, String)> {
    let end = source.find("#[cfg(test)]").unwrap_or(source.len());
    let mut found = Vec::new();
    let mut in_string = false;
    for (number, line) in numbered(&source[..end]) {
        let trimmed = line.trim_start();
        if !in_string && (trimmed.starts_with("///") || trimmed.starts_with("//!")) {
            found.push((number, trimmed.to_owned()));
            continue;
        }
        let (mut text, mut characters) = (String::new(), line.chars().peekable());
        while let Some(character) = characters.next() {
            match character {
                '\\' if in_string => drop(characters.next()),
                '"' => {
                    in_string = !in_string;
                    text.push(' ');
                }
                // A quote as a character is no string.
                '\'' if !in_string && characters.peek() == Some(&'"') => drop(characters.next()),
                '/' if !in_string && characters.peek() == Some(&'/') => break,
                other if in_string => text.push(other),
                _ => {}
            }
        }
        if !text.trim().is_empty() {
            found.push((number, text));
        }
    }
    found
}

#[test]
fn sources_are_read_as_they_are_written() {
    let source = "//! A page.\nfn f() {\n    // told here\n    g(\"it is told\", '\"', \"a \\\"mend\\\"\"); // tell\n    h(\"one\n      told\");\n}\n#[cfg(test)]\nmod tests { \"told\" }\n";
    let read = readable(source);
    let odd: Vec<(usize, Vec<&str>)> = read.iter().map(|(number, text)| (*number, odd(text))).filter(|(_, odd)| !odd.is_empty()).collect();
    assert_eq!(odd, [(4, vec!["told", "mend"]), (6, vec!["told"])]);
}

#[test]
fn help_texts_are_plain() {
    let help = |arguments: &[&str]| {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("repair")).args(arguments).arg("--help").output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&[]);
    let listed = all.split_once("Options:\n").unwrap().0;
    let is_command = |line: &&str| line.starts_with("  ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_lowercase);
    let names = listed.lines().filter(is_command).filter_map(|line| line.split_whitespace().next());
    let commands: Vec<&str> = names.filter(|name| *name != "help").collect();
    assert!(commands.len() > 25, "{listed}");
    let mut wrong = complaints(Path::new("--help"), numbered(&all));
    for command in commands {
        let text = help(&[command]);
        wrong.extend(complaints(Path::new(command), numbered(&text)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pages_and_examples_are_plain() {
    let root = root();
    let mut files: Vec<PathBuf> = PAGES.iter().flat_map(|folder| below(&root.join(folder), &["md", "yaml"])).collect();
    let top = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    // The pages of the repository, and the READMEs of its crates.
    for path in top {
        if path.extension().is_some_and(|ending| ending == "md") {
            files.push(path);
        } else if path.join("README.md").is_file() {
            files.push(path.join("README.md"));
        }
    }
    assert!(files.len() > 40, "{files:?}");
    let wrong: Vec<String> = files.iter().flat_map(|file| complaints(file, numbered(&std::fs::read_to_string(file).unwrap()))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn messages_and_doc_comments_are_plain() {
    let root = root();
    let files: Vec<PathBuf> = SOURCES.iter().flat_map(|folder| below(&root.join(folder), &["rs"])).collect();
    assert!(files.len() > 40, "{files:?}");
    let mut wrong = Vec::new();
    for file in &files {
        let source = std::fs::read_to_string(file).unwrap();
        let lines = readable(&source);
        wrong.extend(complaints(file, lines.iter().map(|(number, text)| (*number, text.as_str()))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
