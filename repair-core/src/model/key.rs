//! What identifies a series: its key.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Result;
use crate::text::{fields, visible};

/// What identifies one series of a table: the values of its key columns, as text, in the table's order. It is empty for a table
/// without key columns, and cheap to clone.
///
/// Its text, for people, is the values joined by `/`, with control characters written out. In JSON it is a string for one column, and a list for several.
///
/// ```
/// use repair_core::model::Key;
///
/// assert_eq!(Key::from("IBM").single(), Some("IBM"));
/// assert_eq!(Key::new(["plant-7", "boiler"]).to_string(), "plant-7/boiler");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key(Arc<[Box<str>]>);

impl Key {
    /// A key from one value for each key column.
    pub fn new<T: Into<Box<str>>>(values: impl IntoIterator<Item = T>) -> Self {
        Self(values.into_iter().map(Into::into).collect())
    }

    /// The values, one for each key column.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|value| &**value)
    }

    /// The key as people type it, and as [`Key::typed`] reads it.
    ///
    /// ```
    /// use repair_core::model::Key;
    ///
    /// assert_eq!(Key::new(["plant-7", "Smith, J"]).as_typed(), "plant-7,\"Smith, J\"");
    /// assert_eq!(Key::from("Smith, J").as_typed(), "Smith, J");
    /// ```
    pub fn as_typed(&self) -> String {
        if let Some(value) = self.single() {
            return value.to_owned();
        }
        let typed = |value: &str| match value.contains([',', '"']) {
            true => format!("\"{}\"", value.replace('"', "\"\"")),
            false => value.to_owned(),
        };
        self.values().map(typed).collect::<Vec<_>>().join(",")
    }

    /// The key of so many columns that a text means: the only value or, of several columns, values with commas between them, in quotes those that
    /// hold a comma. `None` if there are more or fewer values.
    ///
    /// ```
    /// use repair_core::model::Key;
    ///
    /// assert_eq!(Key::typed("plant-7,\"Smith, J\"", 2), Some(Key::new(["plant-7", "Smith, J"])));
    /// assert_eq!(Key::typed("Smith, J", 1), Some(Key::from("Smith, J")));
    /// assert_eq!(Key::typed("plant-7,Smith, J", 2), None);
    /// ```
    pub fn typed(text: &str, columns: usize) -> Option<Self> {
        if columns == 1 {
            return Some(Self::from(text));
        }
        let values: Vec<&str> = text.split(',').collect();
        if values.iter().any(|value| value.trim_start().starts_with('"'))
            && let Some(values) = fields(text).filter(|values| values.len() == columns)
        {
            return Some(Self::new(values));
        }
        (values.len() == columns).then(|| Self::new(values))
    }

    /// The only value of a key of one column.
    pub fn single(&self) -> Option<&str> {
        match &*self.0 {
            [value] => Some(value),
            _ => None,
        }
    }
}

impl From<&str> for Key {
    fn from(value: &str) -> Self {
        Self::new([value])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("(all)");
        }
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(&visible(value))?;
        }
        Ok(())
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.single() {
            Some(value) => serializer.serialize_str(value),
            None => serializer.collect_seq(self.values()),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

/// Reads a key: a text, or a list of texts. Numbers and truth values are refused, because their original text is lost (`007`, `1.0`, `no`).
struct KeyVisitor;

fn not_text<E: serde::de::Error>(value: impl fmt::Display) -> E {
    E::custom(format_args!("a key must be text, and {value} is not; put it in quotes: \"{value}\""))
}

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key: text, or a list with a text for each key column")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Key, E> {
        Ok(Key::new([value]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Key, A::Error> {
        let mut key: Vec<Box<str>> = Vec::new();
        while let Some(KeyPart(value)) = values.next_element()? {
            key.push(value);
        }
        Ok(Key::new(key))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Key, E> {
        Err(not_text(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Key, E> {
        Err(not_text(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Key, E> {
        Err(not_text(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Key, E> {
        Err(not_text(value))
    }
}

/// One value of a key of several columns.
struct KeyPart(Box<str>);

impl<'de> Deserialize<'de> for KeyPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = Key::deserialize(deserializer)?;
        let value = key.single().ok_or_else(|| serde::de::Error::custom("a value of a key must be text, not a list"))?;
        Ok(Self(value.into()))
    }
}

impl JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Key".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A value of the key column, or a list with one value for each key column",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}
