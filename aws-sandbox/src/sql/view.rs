//! Views as Athena and Trino store them in Glue: a comment that holds JSON in base64.

use datafusion::arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};

use crate::catalog::{Column, SerdeInfo, StorageDescriptor, Table};

use super::error::QueryError;
use super::types::{hive_name, trino_name};

const PREFIX: &str = "/* Presto View: ";
const SUFFIX: &str = " */";

/// The stored form of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    /// The query as it was written.
    pub(crate) original_sql: String,
    /// The catalog of names without one.
    #[serde(default)]
    pub(crate) catalog: Option<String>,
    /// The database of names without one.
    #[serde(default)]
    pub(crate) schema: Option<String>,
    pub(crate) columns: Vec<ViewColumn>,
    /// Trino requires an owner for views that run with their owner's rights; Athena has none.
    #[serde(default = "yes")]
    pub(crate) run_as_invoker: bool,
    /// Where Trino looks up functions.
    #[serde(default)]
    pub(crate) path: Vec<serde_json::Value>,
}

fn yes() -> bool {
    true
}

/// A column of a view, with its type as Trino writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ViewColumn {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

impl View {
    /// The view of a query with this result.
    pub(crate) fn new(sql: String, database: &str, schema: &Schema) -> Self {
        let column = |field: &std::sync::Arc<datafusion::arrow::datatypes::Field>| ViewColumn {
            name: field.name().to_lowercase(),
            kind: trino_name(field.data_type()),
        };
        Self {
            original_sql: sql,
            catalog: Some(super::engine::CATALOG.to_owned()),
            schema: Some(database.to_owned()),
            columns: schema.fields().iter().map(column).collect(),
            run_as_invoker: true,
            path: Vec::new(),
        }
    }

    /// The view as a table of the catalog.
    pub(crate) fn to_table(&self, name: &str, schema: &Schema) -> Result<Table, QueryError> {
        let json = serde_json::to_vec(self).map_err(|error| QueryError::system("GENERIC_INTERNAL_ERROR", error.to_string()))?;
        let columns = schema.fields().iter().map(|field| Column::new(field.name().to_lowercase(), hive_name(field.data_type()))).collect();
        Ok(Table {
            name: name.to_owned(),
            table_type: Some("VIRTUAL_VIEW".to_owned()),
            view_original_text: Some(format!("{PREFIX}{}{SUFFIX}", base64(&json))),
            view_expanded_text: Some("/* Presto View */".to_owned()),
            parameters: [("comment", "Presto View"), ("presto_view", "true")]
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            storage_descriptor: Some(StorageDescriptor {
                columns,
                location: Some(String::new()),
                serde_info: Some(SerdeInfo::default()),
                ..StorageDescriptor::default()
            }),
            ..Table::default()
        })
    }

    /// The view stored in a table of the catalog.
    pub(crate) fn of(table: &Table) -> Result<Self, QueryError> {
        let invalid = |why: &str| {
            let name = format!("{}.{}", table.database_name.as_deref().unwrap_or_default(), table.name);
            QueryError::user("INVALID_VIEW", format!("line 1:1: Failed analyzing stored view '{}.{name}': {why}", super::engine::CATALOG))
        };
        let text = table.view_original_text.as_deref().unwrap_or_default();
        let encoded =
            text.strip_prefix(PREFIX).and_then(|text| text.strip_suffix(SUFFIX)).ok_or_else(|| invalid("it is not a view of Presto"))?;
        let json = unbase64(encoded).ok_or_else(|| invalid("its text is not base64"))?;
        serde_json::from_slice(&json).map_err(|error| invalid(&error.to_string()))
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_u32, |word, (index, byte)| word | u32::from(*byte) << (16 - 8 * index));
        for index in 0..4 {
            if index > chunk.len() {
                text.push('=');
            } else {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * index) & 63) as usize]));
            }
        }
    }
    text
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0_u32, 0_u32);
    for symbol in text.bytes().filter(|symbol| *symbol != b'=') {
        let place = ALPHABET.iter().position(|letter| *letter == symbol)?;
        word = word << 6 | u32::try_from(place).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 255).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::{DataType, Field};

    #[test]
    fn base64_is_the_known_one() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), text);
            assert_eq!(unbase64(text).unwrap(), plain.as_bytes());
        }
        assert_eq!(unbase64("a b"), None);
    }

    #[test]
    fn a_view_comes_back_from_the_catalog() {
        let schema = Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int32, true)]);
        let view = View::new("SELECT k, n FROM t".to_owned(), "d", &schema);
        let table = view.to_table("v", &schema).unwrap();
        assert!(table.is_view());
        assert_eq!(table.columns()[1].hive_type(), "int");
        assert_eq!(View::of(&table).unwrap(), view);
        // Athena itself writes only these members.
        let json = br#"{"originalSql":"SELECT 1 x","catalog":"awsdatacatalog","schema":"d","columns":[{"name":"x","type":"integer"}]}"#;
        let table = Table { view_original_text: Some(format!("{PREFIX}{}{SUFFIX}", base64(json))), ..table };
        assert_eq!(View::of(&table).unwrap().original_sql, "SELECT 1 x");
    }
}
