//! Every command that the pages show is one that the parser of arguments understands, so that none outlives the name of a command or an option.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

/// What stands for something in the pages, and a value that a parser takes for it.
const PLACEHOLDERS: [(&str, &str); 6] =
    [("COMMAND", "run"), ("DATE", "2024-03-04"), ("INSTANT", "2024-03-04T14:30:00Z"), ("N", "3"), ("TOOL", "duckdb"), ("…", "2024-03-04")];

/// A command that a page shows.
#[derive(Debug, PartialEq)]
struct Shown {
    page: String,
    line: usize,
    text: String,
    /// Whether it is a line of its own. Within a sentence, what a command needs may be left out.
    is_whole: bool,
}

/// The README, and all pages below `docs` and `examples`, except the one that help writes.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let mut pending: Vec<PathBuf> = ["docs", "examples"].map(|folder| root.join(folder)).into();
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") && !path.ends_with("docs/commands.md") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read = |file: PathBuf| (file.strip_prefix(&root).unwrap().display().to_string(), std::fs::read_to_string(&file).unwrap());
    files.into_iter().map(read).collect()
}

/// The commands of a page: lines of blocks of code, and code within sentences.
fn commands(page: &str, text: &str) -> Vec<Shown> {
    let mut shown = Vec::new();
    let mut fence: Option<&str> = None;
    let mut lines = (1..).zip(text.lines());
    let mut add = |line: usize, text: &str, is_whole: bool| {
        shown.push(Shown { page: page.to_owned(), line, text: text.to_owned(), is_whole });
    };
    while let Some((number, line)) = lines.next() {
        if let Some(mark) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(mark) };
            continue;
        }
        let mut whole = line.trim().to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            let Some((_, next)) = lines.next() else { break };
            whole.push_str(next.trim());
        }
        let plain = whole.strip_prefix("$ ").unwrap_or(&whole);
        let is_shell = match fence {
            Some("sh") => plain.starts_with("repair "),
            // Output may begin with the word, too; what is typed stands behind a prompt, or opens its block.
            Some("text") => {
                whole.starts_with("$ repair ") || whole.starts_with("repair ") && !whole.contains("  ") && !whole.contains(" USD,")
            }
            Some(_) => false,
            None => line.starts_with("    repair "),
        };
        if is_shell {
            add(number, plain, true);
        } else if fence.is_none() {
            for span in line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("repair ")) {
                add(number, &span.replace("\\|", "|"), false);
            }
        }
    }
    shown
}

/// The words of a line as a shell has them, up to a comment, another command, or where its output goes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut has_word) = (Vec::new(), String::new(), None, false);
    // What another command prints is one word.
    let line = match line.split_once("$(").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1))) {
        Some((before, after)) => format!("{before}printed{after}"),
        None => line.to_owned(),
    };
    for char in line.chars() {
        match (quote, char) {
            (Some(open), char) if char == open => quote = None,
            (Some(_), char) => word.push(char),
            (None, '"' | '\'') => (quote, has_word) = (Some(char), true),
            (None, char) if char.is_whitespace() => {
                if has_word || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                has_word = false;
            }
            (None, char) => word.push(char),
        }
    }
    if has_word || !word.is_empty() {
        words.push(word);
    }
    let end = words.iter().position(|word| word.starts_with('#') || ["&&", ">", "|", ";"].contains(&word.as_str()));
    words.truncate(end.unwrap_or(words.len()));
    words
}

/// What a line with parts that may be left out, `[--csv | --json]`, stands for: without them, and with each of them by itself.
fn variants(line: &str) -> Vec<String> {
    let Some((before, rest)) = line.split_once('[') else { return vec![line.to_owned()] };
    let Some((inside, after)) = rest.split_once(']') else { return vec![line.to_owned()] };
    let alternatives: Vec<&str> = if inside.contains(" | ") { inside.split(" | ").collect() } else { vec![inside] };
    let mut lines = variants(&format!("{before}{after}"));
    for one in alternatives {
        // The others are left out, or every combination would be tried.
        let plain: String = variants(after).into_iter().next().unwrap_or_default();
        lines.push(format!("{before}{one}{plain}"));
    }
    lines
}

/// The arguments of a line, with values in place of what stands for them; of several, `csv|jsonl`, the one of this number.
fn arguments(line: &str, which: usize) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    for word in words(line) {
        let word = word.trim_end_matches(['.', ',']).to_owned();
        // What follows is left out.
        let is_value = arguments.last().is_some_and(|before| before.starts_with("--"));
        if word == "…" && !is_value {
            continue;
        }
        let alternatives: Vec<&str> = word.split('|').collect();
        let one = alternatives.get(which).or(alternatives.last()).copied().unwrap_or_default();
        let one = if one.len() > "…".len() { one.trim_end_matches("…").trim_end_matches(",") } else { one };
        // What is left out is an instant there, and a date elsewhere.
        let one = if one == "…" && arguments.last().is_some_and(|before| before == "--at") { "INSTANT" } else { one };
        let value = PLACEHOLDERS.iter().find(|(name, _)| *name == one).map_or(one, |(_, value)| value);
        arguments.push(value.to_owned());
    }
    arguments
}

/// Why the parser refuses a command, if it does.
fn refused(shown: &Shown) -> Option<String> {
    for line in variants(&shown.text) {
        let most = words(&line).iter().map(|word| word.split('|').count()).max().unwrap_or(1);
        for which in 0..most {
            let arguments = arguments(&line, which);
            let Err(error) = crate::command().try_get_matches_from(&arguments) else { continue };
            let is_fine = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
                ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => !shown.is_whole,
                // An option is named without its value.
                ErrorKind::InvalidValue => !shown.is_whole && arguments.last().is_some_and(|last| last.starts_with('-')),
                _ => false,
            };
            if !is_fine {
                let why = error.to_string();
                return Some(format!("{}:{}: `{line}`: {}", shown.page, shown.line, why.lines().next().unwrap_or_default()));
            }
        }
    }
    None
}

#[test]
fn every_command_of_the_pages_is_understood() {
    let all: Vec<Shown> = pages().iter().flat_map(|(page, text)| commands(page, text)).collect();
    assert!(all.iter().filter(|shown| shown.is_whole).count() > 20 && all.len() > 150, "{} commands were found", all.len());
    let wrong: Vec<String> = all.iter().filter_map(refused).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_is_not_understood_is_found() {
    let page = "Run `repair plan`, not `repair blend FILE`.\n\n    repair plan a.yaml --outputs b   # no such option\n\n```sh\nrepair run a.yaml \
                \\\n  --lake b\nrepair runs --limit many\n```\n\n```text\n$ repair export T --out F [--format csv|yaml]\n```\n\n```yaml\nrepair me\n```\n";
    let all = commands("page.md", page);
    let found: Vec<(usize, &str, bool)> = all.iter().map(|shown| (shown.line, shown.text.as_str(), shown.is_whole)).collect();
    let expected = [
        (1, "repair plan", false),
        (1, "repair blend FILE", false),
        (3, "repair plan a.yaml --outputs b   # no such option", true),
        (6, "repair run a.yaml --lake b", true),
        (8, "repair runs --limit many", true),
        (12, "repair export T --out F [--format csv|yaml]", true),
    ];
    assert_eq!(found, expected);
    let wrong: Vec<usize> = all.iter().filter(|shown| refused(shown).is_some()).map(|shown| shown.line).collect();
    assert_eq!(wrong, [1, 3, 8, 12]);
    assert_eq!(variants("repair a [B…] [--c | --d]"), ["repair a  ", "repair a  --c", "repair a  --d", "repair a B… "]);
}
