//! YAML as a tree in which every key and value knows its place. No other module knows the YAML parser.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error as SaphyrError, Location, Spanned};

/// The largest workflow file. Real ones have at most some tens of kilobytes, and parsing takes many times the text in memory.
pub(crate) const MAX_FILE_BYTES: usize = 1024 * 1024;
/// How deep lists and mappings may nest. The language itself needs eight levels; the rest is for the `with` of plug-ins.
const MAX_DEPTH: usize = 64;
/// The parser takes up to 40 kB of stack for each level where nothing is optimized, and the caller's thread may have 2 MB in all.
const STACK_BYTES: usize = 16 << 20;
/// How many values one file may hold: enough for ten thousand steps, and more.
const MAX_NODES: usize = 200_000;
/// How many values aliases may repeat: an alias bomb is a small text that expands to huge data.
const MAX_REPEATED: usize = 10_000;
/// How often aliases may be used: they are a convenience, not a programming language.
const MAX_ALIASES: usize = 1_000;

/// A range of bytes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    /// Which file, as `Diagnostics` counts them: 0 is the first.
    pub(crate) file: usize,
    /// The first byte.
    pub(crate) start: usize,
    /// The first byte after the range.
    pub(crate) end: usize,
}

impl Place {
    /// The part of this place where the text contains `needle`; the whole place if it does not (as in text with escapes).
    pub(crate) fn of(self, needle: &str, text: &str) -> Self {
        let within = text.get(self.start..self.end).unwrap_or_default();
        within.find(needle).map_or(self, |at| Self { start: self.start + at, end: self.start + at + needle.len(), ..self })
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The value.
    pub(crate) value: Yaml,
    /// Where the value is; for a list or a mapping, where it begins.
    pub(crate) place: Place,
}

/// A key and its place.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// The key's text.
    pub(crate) name: String,
    /// Where the key is.
    pub(crate) place: Place,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Yaml {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the text; a key may occur twice.
    Map(Vec<(Key, Node)>),
}

impl Node {
    /// The text, if the value is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The kind of value, in words for people.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Yaml::Null => "nothing",
            Yaml::Bool(_) => "true or false",
            Yaml::Number(_) => "a number",
            Yaml::Text(_) => "text",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a mapping",
        }
    }

    /// The value under a key of a mapping.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// A key of a mapping, with its value.
    pub(crate) fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        match &self.value {
            Yaml::Map(entries) => entries.iter().find(|(key, _)| key.name == name),
            _ => None,
        }
    }

    /// The same value as JSON.
    pub(crate) fn to_json(&self) -> Value {
        match &self.value {
            Yaml::Null => Value::Null,
            Yaml::Bool(value) => Value::Bool(*value),
            Yaml::Number(number) => Value::Number(number.clone()),
            Yaml::Text(text) => Value::String(text.clone()),
            Yaml::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Yaml::Map(entries) => Value::Object(entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect()),
        }
    }

    /// Calls `visit` with every key that repeats an earlier one of the same mapping, and with that earlier key.
    pub(crate) fn repeated_keys<'a>(&'a self, visit: &mut impl FnMut(&'a Key, &'a Key)) {
        match &self.value {
            Yaml::List(items) => items.iter().for_each(|item| item.repeated_keys(visit)),
            Yaml::Map(entries) => {
                let mut seen: std::collections::HashMap<&str, &Key> = std::collections::HashMap::new();
                for (key, node) in entries {
                    if let Some(first) = seen.get(key.name.as_str()) {
                        visit(key, first);
                    } else {
                        seen.insert(key.name.as_str(), key);
                    }
                    node.repeated_keys(visit);
                }
            }
            _ => {}
        }
    }
}

/// Text that is not YAML, or exceeds a limit.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// Where the mistake is, if the parser knows.
    pub(crate) place: Place,
    /// What is wrong.
    pub(crate) message: String,
}

/// Reads one document, on a thread whose stack is large enough. Places in it name this file, as `Diagnostics` counts them.
///
/// # Errors
/// The parser's error. The caller has checked the size of the text.
pub(crate) fn parse(text: &str, file: usize) -> Result<Node, SyntaxError> {
    std::thread::scope(|scope| {
        let failed = |message: &str| SyntaxError { place: Place { file, ..Place::default() }, message: message.to_owned() };
        let reading = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || read(text, file));
        let reading = reading.map_err(|_| failed("the system gives this process no thread to read the text on; try again"))?;
        reading.join().unwrap_or_else(|_| Err(failed("the YAML parser panicked, which is a bug")))
    })
}

fn read(text: &str, file: usize) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_documents: 1,
            max_merge_keys: MAX_ALIASES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPEATED,
            max_replay_stack_depth: 8,
        },
        // We report repeated keys ourselves: all of them, with both places.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // Otherwise `no` would be false, and `010` and `1_000` numbers.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(located(raw, text, file)),
        Err(error) => {
            let nowhere = Place { file, ..Place::default() };
            let place = error.location().map_or(nowhere, |location| place(&location, text, file));
            Err(SyntaxError { place, message: sentence(&error) })
        }
    }
}

/// The parser's message without its rendering of the place, reworded where it mentions the parser's own interface.
fn sentence(error: &SaphyrError) -> String {
    match error.without_snippet() {
        SaphyrError::MultipleDocuments { .. } => "a second document begins here; a file holds one workflow".to_owned(),
        SaphyrError::NullIntoString { .. } | SaphyrError::Unexpected { expected: "string scalar", .. } => "a key must be text".to_owned(),
        SaphyrError::NonFiniteFloat { value, .. } => format!("`{value}` is not a finite number"),
        SaphyrError::AliasReplayLimitExceeded { .. } | SaphyrError::AliasReplayStackDepthExceeded { .. } => TOO_MANY_ALIASES.to_owned(),
        SaphyrError::Budget { breach, .. } => match breach {
            BudgetBreach::Depth { .. } => format!("the nesting is deeper than {MAX_DEPTH} levels"),
            BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => format!("the file holds more than {MAX_NODES} values"),
            BudgetBreach::Documents { .. } => "a second document begins here; a file holds one workflow".to_owned(),
            _ => TOO_MANY_ALIASES.to_owned(),
        },
        other => {
            let text = other.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.split(" at line ").next().unwrap_or(line).to_owned()
        }
    }
}

const TOO_MANY_ALIASES: &str = "aliases repeat too many values; write the values out";

fn place(location: &Location, text: &str, file: usize) -> Place {
    let span = location.span();
    let offset = |value: u64| usize::try_from(value).unwrap_or(usize::MAX).min(text.len());
    if let Some(start) = span.byte_offset() {
        return Place { file, start: offset(start), end: offset(start.saturating_add(span.byte_len().unwrap_or(0))) };
    }
    // The scanner's own errors know only line and column.
    let line = offset(location.line()).max(1);
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let within: usize = text.get(start..).unwrap_or_default().chars().take(offset(location.column()).max(1) - 1).map(char::len_utf8).sum();
    Place { file, start: start + within, end: start + within }
}

/// The tree as the parser returns it. [`MAX_DEPTH`] bounds its depth, and the stack is large, so plain recursion is safe.
enum Raw {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn located(raw: Spanned<Raw>, text: &str, file: usize) -> Node {
    let place_of = |location: &Location| place(location, text, file);
    let value = match raw.value {
        Raw::Null => Yaml::Null,
        Raw::Bool(value) => Yaml::Bool(value),
        Raw::Number(number) => Yaml::Number(number),
        Raw::Text(text) => Yaml::Text(text),
        Raw::List(items) => Yaml::List(items.into_iter().map(|item| located(item, text, file)).collect()),
        Raw::Map(entries) => {
            let entry = |(key, value): (Spanned<String>, Spanned<Raw>)| {
                (Key { place: place_of(&key.referenced), name: key.value }, located(value, text, file))
            };
            Yaml::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { value, place: place_of(&raw.referenced) }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
        Number::from_f64(value).map(Raw::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}
