//! Which keys of a table are expected: a list, or another table that has a row for each.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::model::Key;

/// The keys of a table that are expected. They never come from the table itself, because a series that never arrived would be overlooked.
///
/// ```
/// use repair_core::model::{ExpectedKeys, Key};
///
/// let list: ExpectedKeys = serde_json::from_str(r#"["a", "b"]"#)?;
/// assert_eq!(list, ExpectedKeys::List(vec![Key::from("a"), Key::from("b")]));
/// let sites: ExpectedKeys = serde_json::from_str(r#"{ "table": "sites", "since": "opened", "until": "closed" }"#)?;
/// assert_eq!(sites.table().map(|from| from.table.as_str()), Some("sites"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ExpectedKeys {
    /// These.
    List(Vec<Key>),
    /// Those that another table lists.
    Table(KeysFrom),
}

/// A table that lists keys, and perhaps from when until when each is expected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysFrom {
    /// The table; it must not be the one that is examined.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// Its columns that hold the key, in the order of the key columns. By default, columns with the names of the key columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Its column with the date or time from which a key is expected; where it is null, the key has always been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Its column with the last date on which a key is expected, or the time from which it no longer is; where it is null, the key still is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Its column with the name of the calendar of a key; where it is null, the calendar of the step counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<String>,
    /// Its column with the cadence of a key, which is that of the examined table or a longer one; where it is null, that of the table counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cadence: Option<String>,
}

impl KeysFrom {
    /// The keys that a table lists in columns with the names of the key columns.
    pub fn table(table: impl Into<String>) -> Self {
        Self { table: table.into(), ..Self::default() }
    }

    /// Sets the columns that hold the date or time from which a key is expected, and until which it is.
    #[must_use]
    pub fn with_lifetime(mut self, since: Option<&str>, until: Option<&str>) -> Self {
        (self.since, self.until) = (since.map(str::to_owned), until.map(str::to_owned));
        self
    }

    /// The columns that hold a key of a table with these key columns.
    pub fn key_columns<'a>(&'a self, key: &'a [String]) -> &'a [String] {
        self.columns.as_deref().unwrap_or(key)
    }
}

/// Why an empty list is refused.
const EMPTY: &str = "`keys` is empty, so nothing would be examined; list the keys, or leave `keys` out if the table is a single series";

impl ExpectedKeys {
    /// The table that lists the keys, if one does.
    pub fn table(&self) -> Option<&KeysFrom> {
        match self {
            Self::List(_) => None,
            Self::Table(from) => Some(from),
        }
    }

    /// Checks that the keys fit a table with these key columns, as far as that is possible without reading anything.
    ///
    /// # Errors
    /// `invalid` if they do not.
    pub fn check(&self, table: &str, key: &[String]) -> Result<()> {
        let columns = || if key.is_empty() { "none".to_owned() } else { key.join(", ") };
        match self {
            Self::List(_) | Self::Table(_) if key.is_empty() => Err(Error::invalid(format!(
                "table `{table}` is one series without a `key`, so it has no `keys`; remove them, or name the key"
            ))),
            Self::List(keys) if keys.is_empty() => Err(Error::invalid(EMPTY)),
            Self::List(keys) => match keys.iter().find(|listed| listed.values().len() != key.len()) {
                Some(odd) => Err(Error::invalid(format!(
                    "key `{odd}` has {} values, but table `{table}` has {} key columns ({})",
                    odd.values().len(),
                    key.len(),
                    columns()
                ))),
                None => Ok(()),
            },
            Self::Table(from) if from.table == table => Err(Error::invalid(format!(
                "table `{table}` cannot list its own expected keys, because a series that never arrived would be overlooked; list them in `keys` \
                 or in another table"
            ))),
            Self::Table(from) => match from.key_columns(key).len() {
                count if count == key.len() => Ok(()),
                count => Err(Error::invalid(format!(
                    "{count} columns of table `{}` are named, but a key of table `{table}` has {} ({})",
                    from.table,
                    key.len(),
                    columns()
                ))),
            },
        }
    }
}

impl<'de> Deserialize<'de> for ExpectedKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = ExpectedKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys, or a table that lists them, e.g. `{ table: sites }`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ExpectedKeys, A::Error> {
        let mut keys: Vec<Key> = Vec::new();
        while let Some(key) = items.next_element()? {
            keys.push(key);
        }
        // A check of no keys would make the table look clean.
        if keys.is_empty() { Err(serde::de::Error::custom(EMPTY)) } else { Ok(ExpectedKeys::List(keys)) }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<ExpectedKeys, A::Error> {
        KeysFrom::deserialize(MapAccessDeserializer::new(entries)).map(ExpectedKeys::Table)
    }
}

impl JsonSchema for ExpectedKeys {
    fn schema_name() -> Cow<'static, str> {
        "ExpectedKeys".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (key, table) = (generator.subschema_for::<Key>(), generator.subschema_for::<KeysFrom>());
        schemars::json_schema!({
            "description": "The keys that are expected: a list, a file, or another table that lists them",
            "anyOf": [
                { "type": "array", "items": key },
                {
                    "description": "A CSV file with a column for each key column, relative to the file that names it",
                    "type": "object", "required": ["file"], "additionalProperties": false,
                    "properties": { "file": { "type": "string" } }
                },
                table
            ]
        })
    }
}
