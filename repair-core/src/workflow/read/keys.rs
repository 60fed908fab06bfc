//! Reads which keys are expected: a list, a file, or a table that lists them. A file is read here, for tables and steps alike, so that a run
//! keeps it with its definition.

use serde_json::Value;

use super::{Fields, Reader, quoted};
use crate::model::{ExpectedKeys, Key, KeysFrom};
use crate::text::fields;
use crate::workflow::Template;
use crate::yaml::tree::{Node, Place, Yaml};

/// How many keys a list or a file may have. A table can list more.
const MAX_KEYS: usize = 100_000;

/// How many mistakes of one file are reported: more are probably all the same.
const MAX_MISTAKES: usize = 20;

/// The kinds of steps that expect keys.
const EXPECTING: [&str; 2] = ["detect", "sensor"];

impl<'a> Reader<'a> {
    /// Reads `keys` of a table with these key columns.
    pub(super) fn expected_keys(&mut self, node: &'a Node, table: &str, key: &[String]) -> Option<ExpectedKeys> {
        match &node.value {
            Yaml::Map(_) if node.get("file").is_some() => {
                Some(ExpectedKeys::List(self.keys_of_file(node, key).unwrap_or_else(|| unread(key))))
            }
            Yaml::Map(_) => {
                let fields =
                    self.fields(node, node.place, "`keys`", &["table", "columns", "since", "until", "calendar", "cadence", "file"])?;
                let of_table =
                    self.required(&fields, "table", "write e.g. `{ table: sites }`, `{ file: sites.csv }`, or a list of keys")?;
                let mut text = |name: &str| fields.get(name).map(|node| self.text(node, &format!("`{name}`")));
                let (since, until, calendar, cadence) = (text("since"), text("until"), text("calendar"), text("cadence"));
                let table = self.text(of_table, "`table`");
                let columns = fields.get("columns").map(|node| self.texts(node, "`columns`"));
                let columns = columns.map(|columns| columns.into_iter().map(|(name, _)| name).collect());
                // What is given and could not be read was reported.
                let given = |text: Option<Option<String>>| text.map_or(Some(None), |text| text.map(Some));
                let (since, until, calendar, cadence) = (given(since)?, given(until)?, given(calendar)?, given(cadence)?);
                Some(ExpectedKeys::Table(KeysFrom { table: table?, columns, since, until, calendar, cadence }))
            }
            Yaml::List(items) if items.is_empty() => {
                let help = format!("list the keys, or leave `keys` out of table `{table}`");
                self.error(node.place, "`keys` is empty, so nothing would be examined", Some(help));
                None
            }
            Yaml::List(items) if items.len() > MAX_KEYS => {
                self.error(node.place, format!("`keys` has {} entries; at most {MAX_KEYS} are allowed", items.len()), Some(in_table()));
                None
            }
            Yaml::List(items) => {
                let mut keys: Vec<Key> = Vec::with_capacity(items.len());
                for item in items {
                    match serde_json::from_value::<Key>(item.to_json()) {
                        Ok(listed) => keys.push(listed),
                        Err(error) => self.error(item.place, error.to_string(), None),
                    }
                }
                (keys.len() == items.len()).then_some(ExpectedKeys::List(keys))
            }
            _ => {
                let message = format!("`keys` must be a list or a mapping, not {}", node.describe());
                self.error(node.place, message, Some("write e.g. `[a, b]`, `{ table: sites }` or `{ file: sites.csv }`".to_owned()));
                None
            }
        }
    }

    /// The configuration of a step, with the keys of a file in place of its name.
    pub(super) fn with_keys(&mut self, step: &Fields<'a>, node: &'a Node, with: Template) -> Template {
        let expects = EXPECTING.iter().any(|word| step.get(word).is_some());
        let Some(keys) = node.get("keys").filter(|keys| expects && keys.get("file").is_some()) else { return with };
        let columns = node.get("table").and_then(Node::text).and_then(|table| self.key_columns.get(table).cloned());
        let Some(columns) = columns else {
            // A table that could not be read, or does not exist, is reported where it is named.
            if node.get("table").and_then(Node::text).is_none_or(|table| table.trim_start().starts_with("{%")) {
                let help = "name the `table`, or write `keys` at the table".to_owned();
                self.error(
                    keys.place,
                    "which columns of the file hold the key depends on the table, which is not known before a run",
                    Some(help),
                );
            }
            return with;
        };
        let listed = self.keys_of_file(keys, &columns).unwrap_or_else(|| unread(&columns));
        let listed = serde_json::to_value(listed).unwrap_or(Value::Null);
        match with {
            Template::Value(Value::Object(mut entries)) => {
                entries.insert("keys".to_owned(), listed);
                Template::Value(Value::Object(entries))
            }
            Template::Map(mut entries) => {
                entries.retain(|(name, _)| name != "keys");
                entries.push(("keys".to_owned(), Template::Value(listed)));
                Template::Map(entries)
            }
            other => other,
        }
    }

    /// Reads the keys of `{ file: … }`, which is CSV: a line of names, among them the key columns; then a line per key. Further columns are for
    /// people. All mistakes of the file are reported, up to [`MAX_MISTAKES`]; `None` if there are any.
    fn keys_of_file(&mut self, node: &'a Node, key: &[String]) -> Option<Vec<Key>> {
        let given = self.fields(node, node.place, "`keys` of a file", &["file"])?;
        let node = self.required(&given, "file", "e.g. `{ file: sites.csv }`")?;
        let (file, name, text) = self.file_beside(node)?;
        let (mut start, mut at, mut keys): (usize, Option<Vec<usize>>, Vec<Key>) = (0, None, Vec::new());
        let mut mistakes = 0;
        for raw in text.split_inclusive('\n') {
            let trimmed = raw.trim_end_matches(['\n', '\r']);
            let place = Place { file, start, end: start + trimmed.len() };
            start += raw.len();
            let line = if at.is_none() { trimmed.trim_start_matches('\u{feff}') } else { trimmed };
            if line.trim().is_empty() {
                continue;
            }
            let Some(values) = fields(line) else {
                self.error(place, "a quote is never closed", Some("a key with a line break can only be in a table".to_owned()));
                mistakes += 1;
                // Without its names, the other lines say nothing.
                if at.is_none() || mistakes >= MAX_MISTAKES {
                    return None;
                }
                continue;
            };
            let Some(at) = &at else {
                let find = |column: &String| values.iter().position(|name| name == column);
                let Some(found) = key.iter().map(find).collect::<Option<Vec<usize>>>() else {
                    let wanted = key.join(",");
                    let help = format!("begin the file with the line `{wanted}`");
                    self.error(place, format!("a file of `keys` must have a line of names with the key columns, `{wanted}`"), Some(help));
                    return None;
                };
                at = Some(found);
                continue;
            };
            let values: Option<Vec<&str>> =
                at.iter().map(|&at| values.get(at).map(String::as_str).filter(|value| !value.is_empty())).collect();
            let Some(values) = values else {
                self.error(place, "the key is empty", Some("remove the line, or write a value for each key column".to_owned()));
                mistakes += 1;
                if mistakes >= MAX_MISTAKES {
                    return None;
                }
                continue;
            };
            if keys.len() >= MAX_KEYS {
                self.error(place, format!("{} lists more than {MAX_KEYS} keys", quoted(&name)), Some(in_table()));
                return None;
            }
            keys.push(Key::new(values));
        }
        if mistakes > 0 {
            return None;
        }
        if keys.is_empty() {
            self.error(node.place, format!("{} lists no keys", quoted(&name)), None);
            return None;
        }
        Some(keys)
    }
}

/// A key in place of those of a file that could not be read. That was reported, and nothing else is to be wrong because of it.
fn unread(columns: &[String]) -> Vec<Key> {
    vec![Key::new(columns.iter().map(|_| "?"))]
}

fn in_table() -> String {
    "put them into a table of the lake, and name it: `keys: { table: … }`".to_owned()
}
