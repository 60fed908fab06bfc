//! Prints values as YAML, so that the reader reads the same values back. It must not know what a workflow is.

use serde_json::Value;

use crate::yaml::tree::{Node, Yaml};

/// A value to print. Mappings keep their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, written as it is here.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A mapping.
    Map(Vec<(String, Tree)>),
}

/// Characters of a line up to which a list or mapping is written on one line.
const WIDTH: usize = 120;
/// Characters of a key up to which it is written as `key: value`. YAML allows 1,024 there.
const MAX_SHORT_KEY: usize = 500;

impl Tree {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }
}

impl From<&Value> for Tree {
    /// Keys are sorted: whether `serde_json` keeps their order depends on how the whole program was compiled, and the text of a workflow
    /// must not.
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(entries) => {
                let mut entries: Vec<(String, Self)> = entries.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect();
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                Self::Map(entries)
            }
        }
    }
}

impl From<&Node> for Tree {
    fn from(node: &Node) -> Self {
        match &node.value {
            Yaml::Null => Self::Null,
            Yaml::Bool(value) => Self::Bool(*value),
            Yaml::Number(number) => Self::Number(number.to_string()),
            Yaml::Text(text) => Self::Text(text.clone()),
            Yaml::List(items) => Self::List(items.iter().map(Self::from).collect()),
            Yaml::Map(entries) => Self::Map(entries.iter().map(|(key, value)| (key.name.clone(), Self::from(value))).collect()),
        }
    }
}

/// A mapping that was read as the text of a file.
pub(in crate::workflow) fn print_node(root: &Node) -> String {
    match Tree::from(root) {
        Tree::Map(entries) => print(&entries),
        _ => String::new(),
    }
}

/// The mapping as the text of a file. Sections with more than plain values have a line for each entry.
pub(super) fn print(root: &[(String, Tree)]) -> String {
    let mut out = String::new();
    for (key, value) in root {
        let section = matches!(value, Tree::Map(entries) if entries.iter().any(|(_, value)| matches!(value, Tree::Map(_))));
        print_entry(key, value, 0, section, &mut out);
    }
    out
}

/// `key: value` and a line break. The line is already indented.
fn print_entry(key: &str, value: &Tree, indent: usize, in_lines: bool, out: &mut String) {
    let key = key_text(key);
    if key.len() > MAX_SHORT_KEY {
        out.push_str("? ");
        out.push_str(&key);
        out.push('\n');
        spaces(indent, out);
        out.push(':');
        print_value(value, indent, indent + 1, in_lines, out);
        return;
    }
    out.push_str(&key);
    out.push(':');
    print_value(value, indent, indent + key.chars().count() + 1, in_lines, out);
}

/// A value after `key:` or `-`, and a line break. `column` is how far its line has come, `indent` where what contains it begins.
fn print_value(value: &Tree, indent: usize, column: usize, in_lines: bool, out: &mut String) {
    if let Tree::Text(text) = value
        && is_literal(text)
    {
        return print_literal(text, indent + 2, out);
    }
    let flow = (!in_lines || !is_nested(value)).then(|| flow(value, WIDTH.saturating_sub(column))).flatten();
    if let Some(flow) = flow {
        out.push(' ');
        out.push_str(&flow);
        out.push('\n');
        return;
    }
    match value {
        Tree::Map(entries) => {
            out.push('\n');
            for (key, value) in entries {
                spaces(indent + 2, out);
                print_entry(key, value, indent + 2, false, out);
            }
        }
        Tree::List(items) => {
            out.push('\n');
            for item in items {
                spaces(indent + 2, out);
                out.push('-');
                print_value(item, indent + 2, indent + 3, false, out);
            }
        }
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => {
            out.push(' ');
            out.push_str(&plain(value));
            out.push('\n');
        }
    }
}

fn is_nested(value: &Tree) -> bool {
    match value {
        Tree::List(items) => !items.is_empty(),
        Tree::Map(entries) => !entries.is_empty(),
        _ => false,
    }
}

/// The value on one line, if it is not longer than `width`. A text of several lines is not forced into one.
fn flow(value: &Tree, width: usize) -> Option<String> {
    let mut out = String::new();
    flow_into(value, width, &mut out)?;
    Some(out)
}

fn flow_into(value: &Tree, width: usize, out: &mut String) -> Option<()> {
    match value {
        Tree::List(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place > 0 { ", " } else { "" });
                flow_into(item, width, out)?;
            }
            out.push(']');
        }
        Tree::Map(entries) if entries.is_empty() => out.push_str("{}"),
        Tree::Map(entries) => {
            out.push('{');
            for (place, (key, value)) in entries.iter().enumerate() {
                out.push_str(if place > 0 { ", " } else { " " });
                out.push_str(&key_text(key));
                out.push_str(": ");
                flow_into(value, width, out)?;
            }
            out.push_str(" }");
        }
        Tree::Text(text) if is_literal(text) => return None,
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => out.push_str(&plain(value)),
    }
    (out.chars().count() <= width).then_some(())
}

fn plain(value: &Tree) -> String {
    match value {
        Tree::Bool(value) => value.to_string(),
        Tree::Number(number) => number.clone(),
        Tree::Text(text) => scalar(text),
        Tree::Null | Tree::List(_) | Tree::Map(_) => "null".to_owned(),
    }
}

fn spaces(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

/// Whether a text of several lines is written as such, after `|`: nothing in it needs an escape, and its indentation is plain to see.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\t', '\n'])
        && body.split('\n').all(|line| line.chars().all(is_printable) && (line.is_empty() || !line.trim().is_empty()))
}

fn print_literal(text: &str, indent: usize, out: &mut String) {
    out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        if !line.is_empty() {
            spaces(indent, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// A key. The language has a key `on`, which people write without quotes.
fn key_text(key: &str) -> String {
    if key == "on" { key.to_owned() } else { scalar(key) }
}

/// A text: as it is, if it cannot be read as anything else; in quotes otherwise.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if is_printable(c) => quoted.push(c),
            c => match u32::from(c) {
                code @ ..=0xff => quoted.push_str(&format!("\\x{code:02x}")),
                code @ ..=0xffff => quoted.push_str(&format!("\\u{code:04x}")),
                code => quoted.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    quoted.push('"');
    quoted
}

/// Whether YAML takes a character as it is in every kind of text: none that controls, breaks a line or marks an order of bytes.
fn is_printable(c: char) -> bool {
    !matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Texts that YAML, in one of its versions, reads as something else.
const WORDS: [&str; 12] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan", "infinity"];

/// Whether a text can stand without quotes wherever it is. It says no to many that could.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    if first.is_ascii_digit() {
        return is_quantity(text);
    }
    let inside = |c: char| c.is_ascii_alphanumeric() || "_./-$=<>()+% '".contains(c);
    (first.is_ascii_alphabetic() || first == '_' || first == '$')
        && text.chars().all(inside)
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// A number with a unit, `90s`, `200/min`, `5%`, `10GB`: not a number to YAML.
fn is_quantity(text: &str) -> bool {
    const UNITS: [&str; 19] =
        ["ms", "s", "m", "min", "h", "d", "/s", "/min", "/h", "/d", "%", "B", "KB", "MB", "GB", "TB", "MiB", "GiB", "TiB"];
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    UNITS.contains(&unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::yaml::tree;

    fn read(text: &str) -> Value {
        tree::parse(text, 0).unwrap_or_else(|error| panic!("{} in\n{text}", error.message)).to_json()
    }

    fn assert_round_trip(value: &Value) {
        let text = print(&[("root".to_owned(), Tree::from(value))]);
        assert_eq!(read(&text), json!({ "root": value }), "{text}");
        // Where it is deep within, lines are indented, and some are too long.
        let deep =
            json!({ "list": [[value, { "again": value }], value], "map": { "within": { "deeper": value, "x".repeat(100): [value] } } });
        let text = print(&[("root".to_owned(), Tree::from(&deep))]);
        assert_eq!(read(&text), json!({ "root": deep }), "{text}");
    }

    /// Values that are likely to be read as something else.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,12}",
            "[a-z0-9 :#\\-\\n\\t'\"{}\\[\\],&*!|>%@`?.]{0,30}",
            "[a-z ]{1,9}(\n[a-z ]{0,9}){1,4}\n{0,2}",
            "[0-9eExXoObB_.+:-]{1,8}",
            "[0-9]{1,4}(ms|s|m|min|h|d|/s|/min|%|B|KB|MiB)",
            any::<String>(),
            prop_oneof![
                Just("null"),
                Just("~"),
                Just("Yes"),
                Just(".inf"),
                Just("NaN"),
                Just("2024-03-04"),
                Just("0o7"),
                Just("<<"),
                Just("=")
            ]
            .prop_map(str::to_owned),
        ]
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            texts().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(texts(), inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn what_is_printed_is_read_back(value in values()) {
            assert_round_trip(&value);
        }
    }

    #[test]
    fn texts_that_look_like_something_else_stay_texts() {
        for text in ["", " ", "no", "Null", "1", "1.0", "1e3", "0x1F", "- a", "a: b", "a #b", "{% $params.x %}", "\u{85}", "\u{feff}a", "é"]
        {
            assert_round_trip(&json!(text));
        }
        assert_round_trip(&json!({ "k".repeat(2_000): 1, "a\nb": { "k".repeat(700): ["l".repeat(3_000)] } }));
    }

    #[test]
    fn it_looks_as_if_written_by_hand() {
        let value = json!({
            "steps": {
                "look": { "detect": "gaps", "with": { "from": "2024-03-04", "table": "readings" }, "next": "totals" },
                "totals": { "aggregate": "sql", "with": { "query": "SELECT 1\nFROM readings\n", "into": "daily" }, "end": true },
            }
        });
        let Tree::Map(root) = Tree::from(&value) else { panic!("a mapping") };
        let expected = "\
steps:
  look: { detect: gaps, next: totals, with: { from: \"2024-03-04\", table: readings } }
  totals:
    aggregate: sql
    end: true
    with:
      into: daily
      query: |
        SELECT 1
        FROM readings
";
        assert_eq!(print(&root), expected);
    }
}
