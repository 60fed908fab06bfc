//! The modules of this crate are layers: no module refers to one above its own. The order is the list in `docs/architecture.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What the deciding half of the engine may not name: a clock, I/O, async.
const IMPURE: [&str; 9] = ["tokio", "futures", "async_trait", "async", "await", "Instant", "SystemTime", "fs", "env"];

#[test]
fn no_module_refers_to_a_layer_above_its_own() {
    let layers = layers(&read(&root().join("../docs/architecture.md")));
    let sources = sources();
    let violations = violations(&layers, &sources);
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn the_list_of_layers_names_every_module_and_no_other() {
    let mut layers = layers(&read(&root().join("../docs/architecture.md")));
    let mut modules = declared_modules(&read(&root().join("src/lib.rs")));
    layers.sort();
    modules.sort();
    assert_eq!(layers, modules, "docs/architecture.md lists the modules on the left, src/lib.rs declares those on the right");
}

#[test]
fn the_deciding_half_of_the_engine_knows_nothing_of_the_acting_half() {
    let sources = sources();
    let exported = exported(&sources);
    let violations: Vec<String> = sources.iter().flat_map(|source| engine_violations(source, &exported)).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// A source file.
struct Source {
    /// Its path below the crate, as a person finds it.
    file: String,
    /// The path of its module: empty for `lib.rs`.
    module: Vec<String>,
    tokens: Vec<Token>,
}

#[derive(Clone)]
struct Token {
    line: usize,
    text: String,
}

/// A path that a file refers to, from the root of the crate, such as `lake::overlay::name`.
#[derive(Debug, PartialEq)]
struct Reference {
    line: usize,
    path: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
}

/// The lines of the block that is marked `layers`.
fn layers(page: &str) -> Vec<String> {
    let (_, rest) = page.split_once("```layers\n").expect("docs/architecture.md has no block marked `layers`");
    let (list, _) = rest.split_once("```").expect("the block marked `layers` has no end");
    list.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push(source(&file, &read(&path)));
            }
        }
    }
    assert!(found.len() > 100, "only {} source files were found", found.len());
    found.sort_by(|a, b| a.file.cmp(&b.file));
    found
}

fn source(file: &str, text: &str) -> Source {
    let module = file.trim_start_matches("src/").trim_end_matches(".rs").split('/').filter(|part| !matches!(*part, "mod" | "lib"));
    Source { file: file.to_owned(), module: module.map(str::to_owned).collect(), tokens: without_tests(&tokens(text)) }
}

fn declared_modules(lib: &str) -> Vec<String> {
    let tokens = tokens(lib);
    let declared = tokens.windows(3).filter(|window| window[0].text == "mod" && window[2].text == ";");
    declared.map(|window| window[1].text.clone()).collect()
}

fn violations(layers: &[String], sources: &[Source]) -> Vec<String> {
    let height = |module: &str| layers.iter().position(|layer| layer == module);
    let exported = exported(sources);
    let mut found = Vec::new();
    for source in sources {
        let Some(own) = source.module.first() else { continue };
        for reference in references(source) {
            let Some(other) = resolve(&reference.path, &exported).into_iter().next() else {
                found.push(format!("{}:{}: {own} refers to the root of the crate; name the module", source.file, reference.line));
                continue;
            };
            match (height(own), height(&other)) {
                (Some(low), Some(high)) if high > low => {
                    found.push(format!("{}:{}: {own} refers to {other}, a layer above", source.file, reference.line));
                }
                (Some(_), Some(_)) => {}
                (None, _) => found.push(format!("{}: module {own} is not in the list of layers", source.file)),
                (_, None) => found.push(format!("{}:{}: {other} is not in the list of layers", source.file, reference.line)),
            }
        }
    }
    found
}

/// Within the engine: `pure` refers to nothing else there, and only `drive` refers to `drive`.
fn engine_violations(source: &Source, exported: &BTreeMap<Vec<String>, Vec<String>>) -> Vec<String> {
    let mut found = Vec::new();
    let Some(own) = source.module.get(1).filter(|_| source.module[0] == "engine") else { return found };
    for reference in references(source) {
        let path = resolve(&reference.path, exported);
        if path.first().is_none_or(|first| first != "engine") {
            continue;
        }
        let other = path.get(1).map_or("engine", String::as_str);
        if (own == "pure" && other != "pure") || (own != "drive" && other == "drive") {
            found.push(format!("{}:{}: engine/{own} refers to {other}, which is above it", source.file, reference.line));
        }
    }
    if own == "pure" {
        let clock = |window: &[Token]| window[0].text == "::" && window[1].text == "now";
        let clocks = source.tokens.windows(2).filter(|window| clock(window)).map(|window| &window[1]);
        for token in source.tokens.iter().filter(|token| IMPURE.contains(&token.text.as_str())).chain(clocks) {
            found.push(format!("{}:{}: engine/pure uses `{}`: a clock, I/O or async", source.file, token.line, token.text));
        }
    }
    found
}

/// What modules export under a shorter path: the short path, and where the item is.
fn exported(sources: &[Source]) -> BTreeMap<Vec<String>, Vec<String>> {
    let mut exported = BTreeMap::new();
    for source in sources.iter().filter(|source| source.file.ends_with("lib.rs") || source.file.ends_with("mod.rs")) {
        for (at, token) in source.tokens.iter().enumerate() {
            if token.text != "use" || at == 0 || !matches!(source.tokens[at - 1].text.as_str(), "pub" | ")") {
                continue;
            }
            for path in use_tree(&source.tokens, &mut (at + 1), &[]) {
                let target = absolute(&source.module, &path).unwrap_or_else(|| [source.module.clone(), path.clone()].concat());
                let short = [source.module.as_slice(), &path[path.len() - 1..]].concat();
                exported.insert(short, target);
            }
        }
    }
    exported
}

/// Where the item of a path is.
fn resolve(path: &[String], exported: &BTreeMap<Vec<String>, Vec<String>>) -> Vec<String> {
    let mut path = path.to_vec();
    for _ in 0..8 {
        let Some((length, target)) = (1..=path.len()).find_map(|length| Some((length, exported.get(&path[..length])?))) else { break };
        let longer = [target.as_slice(), &path[length..]].concat();
        if longer == path {
            break;
        }
        path = longer;
    }
    path
}

/// All paths in a file that begin with `crate`, `super` or `self`, in `use` lines and elsewhere.
fn references(source: &Source) -> Vec<Reference> {
    let tokens = &source.tokens;
    let mut found = Vec::new();
    // The modules written in this file, each with the depth of braces at which it ends.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        let line = tokens[at].line;
        let module = || [source.module.clone(), inline.iter().map(|(name, _)| name.clone()).collect()].concat();
        match tokens[at].text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.pop_if(|(_, end)| *end == depth);
            }
            "mod" if tokens.get(at + 2).is_some_and(|token| token.text == "{") => inline.push((tokens[at + 1].text.clone(), depth)),
            "use" => {
                let module = module();
                at += 1;
                for path in use_tree(tokens, &mut at, &[]) {
                    found.extend(absolute(&module, &path).map(|path| Reference { line, path }));
                }
                continue;
            }
            "crate" | "super" | "self" if tokens.get(at + 1).is_some_and(|token| token.text == "::") => {
                let mut path = vec![tokens[at].text.clone()];
                while tokens.get(at + 1).is_some_and(|token| token.text == "::") && tokens.get(at + 2).is_some_and(is_word) {
                    path.push(tokens[at + 2].text.clone());
                    at += 2;
                }
                found.extend(absolute(&module(), &path).map(|path| Reference { line, path }));
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The paths of a `use` tree, from the token after `use` or after a `::`; `at` then points behind it.
fn use_tree(tokens: &[Token], at: &mut usize, prefix: &[String]) -> Vec<Vec<String>> {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(*at) {
        match token.text.as_str() {
            "::" => *at += 1,
            "{" => {
                let mut paths = Vec::new();
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token.text != "}") {
                    paths.extend(use_tree(tokens, at, &path));
                    if tokens.get(*at).is_some_and(|token| token.text == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return paths;
            }
            "as" => *at += 2,
            "self" if !path.is_empty() => *at += 1,
            text if is_word(token) || text == "*" => {
                path.push(text.to_owned());
                *at += 1;
            }
            _ => break,
        }
    }
    vec![path]
}

/// A path from the root of the crate; none if it begins elsewhere: in another crate, or among the module's own children.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.to_vec(),
        _ => return None,
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            "*" => break,
            _ => base.push(part.clone()),
        }
    }
    Some(base)
}

/// Tokens without `#[cfg(test)] mod … { … }`: tests may use whatever is there.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let marked = ["#", "[", "cfg", "(", "test", ")", "]", "mod"].iter().enumerate().all(|(index, text)| is(at + index, text));
        if marked && is(at + 9, "{") {
            at += 10;
            let mut depth = 1;
            while depth > 0 && at < tokens.len() {
                depth += usize::from(is(at, "{"));
                depth -= usize::from(is(at, "}"));
                at += 1;
            }
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

fn is_word(token: &Token) -> bool {
    token.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The words and signs of a Rust text, without comments and literals.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let char_at = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        match (chars[at], char_at(at + 1)) {
            ('/', '/') => at += chars[at..].iter().take_while(|char| **char != '\n').count(),
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (char_at(at), char_at(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            ('"', _) => at = after_string(&chars, at + 1),
            ('r' | 'b' | 'c', '"' | '#' | 'r') if raw_string(&chars, at).is_some() => at = raw_string(&chars, at).unwrap(),
            // A character; anything else after a quote is a lifetime.
            ('\'', '\\') => at = (at + 3..chars.len()).find(|at| chars[*at] == '\'').map_or(chars.len(), |end| end + 1),
            ('\'', _) if char_at(at + 2) == '\'' => at += 3,
            (first, _) if first.is_alphabetic() || first == '_' => {
                let length = chars[at..].iter().take_while(|char| char.is_alphanumeric() || **char == '_').count();
                at += length;
                tokens.push(Token { line, text: chars[start..at].iter().collect() });
            }
            (':', ':') => {
                at += 2;
                tokens.push(Token { line, text: "::".to_owned() });
            }
            (sign, _) => {
                at += 1;
                if !sign.is_whitespace() {
                    tokens.push(Token { line, text: sign.to_string() });
                }
            }
        }
        line += chars[start..at.min(chars.len())].iter().filter(|char| **char == '\n').count();
    }
    tokens
}

fn after_string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The end of a literal such as `r#"…"#` or `b"…"` that begins here; none if none does.
fn raw_string(chars: &[char], start: usize) -> Option<usize> {
    let letters = chars[start..].iter().take_while(|char| char.is_alphabetic()).count();
    let prefix: String = chars[start..start + letters].iter().collect();
    let hashes = chars[start + letters..].iter().take_while(|char| **char == '#').count();
    let quote = start + letters + hashes;
    if chars.get(quote) != Some(&'"') || !matches!(prefix.as_str(), "r" | "br" | "cr" | "b" | "c") {
        return None;
    }
    if !prefix.contains('r') {
        return Some(after_string(chars, quote + 1));
    }
    let end = |at: &usize| chars[*at] == '"' && chars[at + 1..].iter().take(hashes).filter(|char| **char == '#').count() == hashes;
    Some((quote + 1..chars.len()).find(end)? + hashes + 1)
}

mod of_the_test_itself {
    use super::*;

    const LAYERS: &str = "text\n```layers\nerror\nlake\nengine\n```\n";
    const LIB: &str = "mod engine; mod error; pub mod lake;\npub use error::Error; pub use engine::Engine;";

    fn found_in(file: &str, text: &str) -> Vec<String> {
        let engine = "mod drive; pub(crate) mod pure; pub use drive::engine::Engine;";
        let sources = [source("src/lib.rs", LIB), source("src/engine/mod.rs", engine), source(file, text)];
        let mut found = violations(&layers(LAYERS), &sources);
        found.extend(engine_violations(&sources[2], &exported(&sources)));
        found
    }

    #[test]
    fn it_finds_what_points_up() {
        let text = "use std::io;\nuse crate::{\n    error::{Error, Result},\n    engine::{self, drive::Work},\n};\nfn f() {}\n";
        let above = "src/lake/name.rs:2: lake refers to engine, a layer above";
        assert_eq!(found_in("src/lake/name.rs", text), [above, above]);
        assert_eq!(found_in("src/lake/name.rs", "fn f() {\n    crate::engine::run::<u8>(1)\n}"), [above]);
        assert_eq!(found_in("src/lake/name.rs", "\nuse super::super::engine as other;"), [above]);
        assert_eq!(found_in("src/lake/mod.rs", "mod a {\n use super::super::engine; }"), [above.replace("name", "mod")]);
        assert_eq!(found_in("src/lake/mod.rs", "type A<'a> = &'a u8;\nuse crate::Engine;"), [above.replace("name", "mod")]);
        let root = "src/lake/name.rs:1: lake refers to the root of the crate; name the module";
        assert_eq!(found_in("src/lake/name.rs", "use crate::*;"), [root]);
        let unknown = "src/lake/name.rs:1: other is not in the list of layers";
        assert_eq!(found_in("src/lake/name.rs", "use crate::other::Word;"), [unknown]);
    }

    #[test]
    fn it_finds_nothing_in_what_points_down_or_stays() {
        let none: [String; 0] = [];
        for text in [
            "use crate::error::Error; use crate::lake::overlay; use super::shape; use crate::Error;",
            "//! [`Engine`](crate::engine::Engine)\n/* crate::engine /* crate::engine */ crate::engine */",
            "const A: &str = \"crate::engine \\\" crate::engine\"; const B: &str = r#\"\" crate::engine\"#; const C: [char; 2] = ['\"', '\\''];",
            "#[cfg(test)]\nmod tests {\n use crate::engine::Engine; fn f() { { crate::engine::run() } }\n}",
            "mod inner { use super::super::shape; fn f() {} }",
            "use other::{engine, crate_engine};",
        ] {
            assert_eq!(found_in("src/lake/name.rs", text), none, "{text}");
        }
    }

    #[test]
    fn it_finds_clocks_and_the_acting_half_in_the_deciding_half() {
        let found =
            found_in("src/engine/pure/decide.rs", "use crate::engine::drive::engine;\nfn f() { Timestamp::now(); }\nasync fn g() {}");
        assert_eq!(
            found,
            [
                "src/engine/pure/decide.rs:1: engine/pure refers to drive, which is above it",
                "src/engine/pure/decide.rs:3: engine/pure uses `async`: a clock, I/O or async",
                "src/engine/pure/decide.rs:2: engine/pure uses `now`: a clock, I/O or async",
            ]
        );
        assert_eq!(found_in("src/engine/pure/decide.rs", "use crate::engine::Engine;").len(), 1);
        assert_eq!(found_in("src/engine/pure/decide.rs", "use crate::engine::pure::event::Event; use super::state;").len(), 0);
        assert_eq!(found_in("src/engine/prepare.rs", "use crate::engine::drive::work;").len(), 1);
        assert_eq!(found_in("src/engine/drive/work.rs", "use crate::engine::prepare; async fn f() { Instant::now().await }").len(), 0);
    }

    #[test]
    fn it_reads_the_modules_of_a_crate() {
        assert_eq!(declared_modules(LIB), ["engine", "error", "lake"]);
    }
}
