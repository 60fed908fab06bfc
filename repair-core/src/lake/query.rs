//! Users' SQL: the text, the values that it names, and the rows that are given to it as tables. Values only, no I/O.
//!
//! A value is named `:from`, a relation `$missing`. Both are found in the text as a reader of SQL would find them: not in strings, quoted names or
//! comments. A value becomes one literal of the lake's dialect, and a relation one quoted name, so neither can change what a statement does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use jiff::Timestamp;
use serde_json::Value;

use super::veil::Veil;
use crate::error::{Error, Result};
use crate::model::Table;
use crate::yaml::close_name;

/// A query over tables of a lake.
///
/// ```
/// use repair_core::lake::query::{Bound, Query};
///
/// let query = Query::new(&[], "SELECT * FROM bars WHERE ts >= :from AND note <> ':from'").with_value("from", Bound::Whole(5));
/// let text = query.text(|value| value.to_string(), |relation| format!("\"{relation}\""))?;
/// assert_eq!(text, "SELECT * FROM bars WHERE ts >= 5 AND note <> ':from'");
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Query<'a> {
    /// The tables that it may name. Each has its own name, and its repaired view has that name with `_repaired` appended.
    pub tables: &'a [Table],
    /// The text, in the lake's own dialect.
    pub sql: &'a str,
    /// The values that it may name, without the colon.
    pub values: BTreeMap<String, Bound>,
    /// The relations that it may name, without the dollar sign.
    pub relations: BTreeMap<String, Relation>,
    /// What it sees of tables, by their names, where that is not what the lake has. Only a lake that [hides rows](super::ReadLake::hides_rows) is given any.
    pub seen: BTreeMap<String, Seen>,
}

/// What a query sees of a table and its repaired view.
#[derive(Debug, Clone)]
pub enum Seen {
    /// The rows of the lake, behind a veil.
    Behind(Veil),
    /// These rows, in the table's shape. The lake's own do not matter, and there need be none.
    Instead(Relation),
}

/// A value that a query names.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// An instant, such as `:from`.
    Instant(Timestamp),
    /// Text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// Any other number; it is finite.
    Number(f64),
    /// True or false.
    Truth(bool),
}

/// Rows that are given to a query as a table. They have the shape of batches: text, instants in microseconds UTC, numbers, true or false.
#[derive(Debug, Clone)]
pub struct Relation {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: Vec<RecordBatch>,
}

impl Bound {
    /// A value of a workflow's parameters or of a configuration; `None` for null, lists and maps.
    pub fn of_json(value: &Value) -> Option<Self> {
        Some(match value {
            Value::String(text) => Self::Text(text.clone()),
            Value::Bool(value) => Self::Truth(*value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Whole(whole),
                None => Self::Number(number.as_f64().filter(|number| number.is_finite())?),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        })
    }
}

/// As standard SQL writes it, with instants as ISO 8601 text. Each is one literal: a quote in a text is doubled.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instant(instant) => write!(f, "'{instant}'"),
            Self::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            // The parentheses keep a sign from what stands before it.
            Self::Whole(number) if *number < 0 => write!(f, "({number})"),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "({number:e})"),
            Self::Truth(value) => f.write_str(if *value { "TRUE" } else { "FALSE" }),
        }
    }
}

impl<'a> Query<'a> {
    /// A query over tables, without values and relations.
    pub fn new(tables: &'a [Table], sql: &'a str) -> Self {
        Self { tables, sql, ..Self::default() }
    }

    /// With a value that the text may name.
    #[must_use]
    pub fn with_value(mut self, name: impl Into<String>, value: Bound) -> Self {
        self.values.insert(name.into(), value);
        self
    }

    /// With a relation that the text may name.
    #[must_use]
    pub fn with_relation(mut self, name: impl Into<String>, relation: Relation) -> Self {
        self.relations.insert(name.into(), relation);
        self
    }

    /// The text with literals for values, and names for relations.
    ///
    /// # Errors
    /// `invalid` if the text names a value or a relation that there is none of.
    pub fn text(&self, literal: impl Fn(&Bound) -> String, name: impl Fn(&str) -> String) -> Result<String> {
        let mut text = String::with_capacity(self.sql.len() + 64);
        let mut at = 0;
        for named in named(self.sql) {
            text.push_str(self.sql.get(at..named.range.start).unwrap_or_default());
            let part = match named.kind {
                NamedKind::Value => literal(self.values.get(named.name).ok_or_else(|| unknown(&named, self.values.keys()))?),
                NamedKind::Relation if self.relations.contains_key(named.name) => name(named.name),
                NamedKind::Relation => return Err(unknown(&named, self.relations.keys())),
            };
            text.push_str(&part);
            at = named.range.end;
        }
        text.push_str(self.sql.get(at..).unwrap_or_default());
        Ok(text)
    }

    /// The relations that the text names.
    pub fn named_relations(&self) -> BTreeMap<&str, &Relation> {
        let names: BTreeSet<&str> =
            named(self.sql).into_iter().filter(|named| named.kind == NamedKind::Relation).map(|named| named.name).collect();
        self.relations.iter().map(|(name, relation)| (name.as_str(), relation)).filter(|(name, _)| names.contains(name)).collect()
    }
}

fn unknown<'n>(named: &Named<'_>, known: impl Iterator<Item = &'n String> + Clone) -> Error {
    let (sign, what) = match named.kind {
        NamedKind::Value => (':', "value"),
        NamedKind::Relation => ('$', "relation"),
    };
    let names: Vec<String> = known.clone().map(|name| format!("`{sign}{name}`")).collect();
    let there = if names.is_empty() { format!("it is given no {what}") } else { format!("it is given {}", names.join(", ")) };
    Error::invalid(format!(
        "line {}, column {} of the query names `{sign}{}`, and {there}{}",
        named.line,
        named.column,
        named.name,
        close_name(named.name, known)
    ))
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamedKind {
    /// A value, `:from`.
    Value,
    /// A relation, `$missing`.
    Relation,
}

/// A value or a relation where a query names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'a> {
    /// Which of the two.
    pub kind: NamedKind,
    /// The name, without its sign.
    pub name: &'a str,
    /// The bytes of the text that it takes, with its sign.
    pub range: Range<usize>,
    /// The line of the text, from 1.
    pub line: usize,
    /// The column of the line, in characters, from 1.
    pub column: usize,
}

/// The values and relations that a query names, in order. A colon after another one is a cast, and one after a word, a number or a bracket belongs to a
/// slice or a path.
pub fn named(sql: &str) -> Vec<Named<'_>> {
    let bytes = sql.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let mut found = Vec::new();
    let mut at = 0;
    // Just behind something that a colon may belong to.
    let mut after_word = false;
    while at < bytes.len() {
        let start = at;
        match byte(at) {
            quote @ (b'\'' | b'"' | b'`') => {
                at += 1;
                // A doubled quote ends one text and begins the next, which is the same to us.
                while at < bytes.len() && byte(at) != quote {
                    at += 1;
                }
                at += 1;
                after_word = true;
            }
            b'-' if byte(at + 1) == b'-' => {
                while at < bytes.len() && byte(at) != b'\n' {
                    at += 1;
                }
            }
            b'/' if byte(at + 1) == b'*' => {
                at += 2;
                while at < bytes.len() && !(byte(at) == b'*' && byte(at + 1) == b'/') {
                    at += 1;
                }
                at += 2;
            }
            sign @ (b':' | b'$')
                if is_first(byte(at + 1)) && !(after_word && is_behind(bytes, at)) && (at == 0 || byte(at - 1) != sign) =>
            {
                at += 1;
                while is_of_word(byte(at)) {
                    at += 1;
                }
                let kind = if sign == b':' { NamedKind::Value } else { NamedKind::Relation };
                let before = sql.get(..start).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                let name = sql.get(start + 1..at).unwrap_or_default();
                found.push(Named { kind, name, range: start..at, line, column });
                after_word = true;
            }
            byte_here if is_of_word(byte_here) => {
                while is_of_word(byte(at)) {
                    at += 1;
                }
                after_word = true;
            }
            other => {
                at += 1;
                after_word = matches!(other, b']' | b')');
            }
        }
    }
    found
}

/// Whether a sign stands directly behind what is before it, without a space.
fn is_behind(bytes: &[u8], at: usize) -> bool {
    at > 0 && bytes.get(at - 1).is_some_and(|byte| !byte.is_ascii_whitespace())
}

/// Whether a query names something, such as a table. Case does not matter, and the name must not be a part of a longer one.
pub(crate) fn names(sql: &str, name: &str) -> bool {
    let (sql, name) = (sql.to_lowercase(), name.to_lowercase());
    let is_part = |character: Option<char>| character.is_some_and(|character| character.is_alphanumeric() || character == '_');
    sql.match_indices(&name).any(|(at, _)| !is_part(sql[..at].chars().next_back()) && !is_part(sql[at + name.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> Vec<(String, usize, usize)> {
        named(sql).into_iter().map(|named| (sql[named.range.clone()].to_owned(), named.line, named.column)).collect()
    }

    #[test]
    fn names_are_found_where_sql_has_them_and_nowhere_else() {
        let sql = "SELECT ':no', \":no\", a::text, b[1:2], x:y -- :no $no\n/* :no\n*/ FROM $missing WHERE ü >= :from\n AND t<:to AND u=:to";
        let found = names(sql);
        let found: Vec<(&str, usize, usize)> = found.iter().map(|(name, line, column)| (name.as_str(), *line, *column)).collect();
        assert_eq!(found, [("$missing", 3, 9), (":from", 3, 29), (":to", 4, 8), (":to", 4, 18)]);
        for sql in ["", ":", "$", "'", "--", "/*", ":1", "$1", "a:b", "'it''s :no'", "ä:b", "\"a\"\":no\""] {
            assert_eq!(names(sql), [], "{sql}");
        }
        assert_eq!(names("(:a,:b)").len(), 2);
        assert_eq!(names("'x':a"), [], "a path into what a text names");
    }

    #[test]
    fn a_value_is_one_literal_whatever_it_holds() {
        let evil = "'; DROP TABLE bars; -- :from";
        let sql = "SELECT :evil, -:low, :yes, :at, :half";
        let query = Query::new(&[], sql)
            .with_value("evil", Bound::Text(evil.to_owned()))
            .with_value("low", Bound::Whole(-5))
            .with_value("yes", Bound::Truth(true))
            .with_value("half", Bound::Number(0.5))
            .with_value("at", Bound::Instant(Timestamp::UNIX_EPOCH));
        let text = query.text(Bound::to_string, str::to_owned).unwrap();
        assert_eq!(text, "SELECT '''; DROP TABLE bars; -- :from', -(-5), TRUE, '1970-01-01T00:00:00Z', (5e-1)");
        assert_eq!(names(&text), [], "and nothing in it is named again");
    }

    #[test]
    fn a_name_that_is_not_given_is_refused_with_its_place() {
        let query =
            Query::new(&[], "SELECT *\nFROM x WHERE t > :form").with_value("from", Bound::Whole(1)).with_value("to", Bound::Whole(2));
        let said = query.text(Bound::to_string, str::to_owned).unwrap_err().full();
        assert_eq!(said, "line 2, column 18 of the query names `:form`, and it is given `:from`, `:to`; did you mean `from`?");
        let said = Query::new(&[], "SELECT * FROM $missing").text(Bound::to_string, str::to_owned).unwrap_err().full();
        assert_eq!(said, "line 1, column 15 of the query names `$missing`, and it is given no relation");
    }

    #[test]
    fn a_name_within_a_longer_one_is_another() {
        assert!(super::names("select * from \"Bars_Repaired\" b", "bars_repaired"));
        assert!(super::names("select 1 from t_repaired", "t_repaired"));
        assert!(!super::names("select * from old_bars_repaired", "bars_repaired"));
        assert!(!super::names("select * from bars_repaired_2", "bars_repaired"));
    }
}
