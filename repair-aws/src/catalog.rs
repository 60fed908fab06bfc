//! What Athena's catalog knows about a table, and which Arrow types its types are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use repair_core::lake::{overlay, partition, shape};
use repair_core::model::Table;
use repair_core::{Error, Result};

use crate::sql::{self, values};

/// The kinds of column that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Whole,
    Float,
    Decimal,
    Bool,
    Date,
    Instant,
    /// Arrays, maps, structs and bytes. No text form of them can be read back, so batches leave them out.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Whole => "a whole number",
            Self::Float => "a float",
            Self::Decimal => "a decimal",
            Self::Bool => "true or false",
            Self::Date => "a date",
            Self::Instant => "a timestamp",
            Self::Other => "nested or bytes",
        })
    }
}

/// A column, with its type in Hive's words (`bigint`, `string`, `decimal(10,2)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) declared: String,
}

/// The kind of a type in Hive's words.
pub(crate) fn kind_of(declared: &str) -> Kind {
    let declared = declared.to_ascii_lowercase();
    let word = declared.split(['(', '<', ' ']).next().unwrap_or_default();
    match word {
        "string" | "varchar" | "char" => Kind::Text,
        "tinyint" | "smallint" | "int" | "integer" | "bigint" => Kind::Whole,
        "float" | "real" | "double" => Kind::Float,
        "decimal" => Kind::Decimal,
        "boolean" => Kind::Bool,
        "date" => Kind::Date,
        "timestamp" if !declared.contains("zone") => Kind::Instant,
        _ => Kind::Other,
    }
}

impl Column {
    fn kind(&self) -> Kind {
        kind_of(&self.declared)
    }

    /// Its type in batches; `None` if batches leave it out.
    fn data_type(&self) -> Option<DataType> {
        let declared = self.declared.to_ascii_lowercase();
        Some(match declared.split(['(', '<', ' ']).next().unwrap_or_default() {
            "tinyint" => DataType::Int8,
            "smallint" => DataType::Int16,
            "int" | "integer" => DataType::Int32,
            "bigint" => DataType::Int64,
            "float" | "real" => DataType::Float32,
            "double" => DataType::Float64,
            _ => match self.kind() {
                Kind::Text => DataType::Utf8,
                Kind::Bool => DataType::Boolean,
                Kind::Date => DataType::Date32,
                Kind::Instant => overlay::instant_type(),
                Kind::Decimal => decimal(&declared)?,
                Kind::Whole | Kind::Float | Kind::Other => return None,
            },
        })
    }
}

/// `decimal(10,2)`; without numbers it is Hive's `decimal(10,0)`.
fn decimal(declared: &str) -> Option<DataType> {
    let Some((_, rest)) = declared.split_once('(') else { return Some(DataType::Decimal128(10, 0)) };
    let mut numbers = rest.trim_end_matches(')').split(',').map(str::trim);
    let precision = numbers.next()?.parse().ok()?;
    Some(DataType::Decimal128(precision, numbers.next().map_or(Some(0), |scale| scale.parse().ok())?))
}

/// A table or view in Athena's catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Relation {
    pub(crate) database: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) partitions: Vec<Column>,
    /// Where its objects lie; a view has no location.
    pub(crate) location: Option<String>,
    pub(crate) is_view: bool,
    /// In a table of repairs, the columns that are dates in the table, and are kept as timestamps: `ALTER TABLE ADD COLUMNS` does not work for
    /// dates in Athena, <https://docs.aws.amazon.com/athena/latest/ug/alter-table-add-columns.html>.
    pub(crate) kept_dates: Vec<String>,
    /// Its properties, and those of what reads its objects, as Athena names them.
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Relation {
    fn column(&self, name: &str) -> Option<&Column> {
        // Athena converts names to lower case.
        self.columns.iter().chain(&self.partitions).find(|column| column.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn kind(&self, name: &str) -> Option<Kind> {
        self.column(name).map(Column::kind)
    }

    pub(crate) fn declared(&self, name: &str) -> Option<&str> {
        self.column(name).map(|column| column.declared.as_str())
    }

    /// Whether a column is a date that is kept as a timestamp.
    pub(crate) fn keeps_date(&self, name: &str) -> bool {
        self.kept_dates.iter().any(|kept| kept.eq_ignore_ascii_case(name))
    }

    pub(crate) fn partition_kind(&self, name: &str) -> Option<Kind> {
        self.partitions.iter().find(|column| column.name.eq_ignore_ascii_case(name)).map(Column::kind)
    }

    /// The expression of the object that a row is in. A view has none.
    pub(crate) fn path(&self) -> &'static str {
        if self.is_view { "'the view'" } else { "\"$path\"" }
    }

    /// The last part of the name of what reads its objects, such as `OpenCSVSerde`.
    pub(crate) fn reader(&self) -> &str {
        let library = self.parameters.get("serde.serialization.lib").map(String::as_str).unwrap_or_default();
        library.rsplit('.').next().unwrap_or_default()
    }

    /// Whether a value that is not of a column's type comes as null, so that nobody sees that it was there.
    pub(crate) fn nulls_what_it_cannot_read(&self) -> bool {
        self.reader() == "LazySimpleSerDe"
    }

    /// Its name in a query.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", sql::name(&self.database), sql::name(&self.name))
    }

    /// The columns of a table in the shape of batches: keys as UTF-8, the time as an instant, and no time partitions, since they follow
    /// from the time. Key and time have the workflow's names; the catalog has all names in lower case.
    ///
    /// # Errors
    /// `invalid` if the key, time or partition column is missing or unusable.
    pub(crate) fn shape(&self, table: &Table) -> Result<SchemaRef> {
        crate::check::declaration(table, self)?;
        let by = partition::time_partition(table)?;
        if let Some(by) = by
            && table.layout.is_none()
            && !self.is_view
            && self.partition_kind(&by.column).is_none()
        {
            return Err(Error::invalid(format!(
                "table `{}` has no partition column `{}` in Athena; its partitions are {}; correct `partition_by`",
                table.name,
                by.column,
                list(&self.partitions)
            )));
        }
        for column in &table.key {
            if values::key(table, self, column).is_none() {
                return Err(Error::invalid(format!(
                    "table `{}` has no key column `{column}` in Athena; it has {}",
                    table.name,
                    list(&self.columns)
                )));
            }
        }
        sql::Source { table, raw: self, repairs: None, exceptions: None, retracted: None }.check()?;
        let mut fields = Vec::with_capacity(self.columns.len());
        let key_of = |column: &Column| table.key.iter().find(|key| key.eq_ignore_ascii_case(&column.name));
        for column in &self.columns {
            // A column with a path of its own hides one of the same name.
            if values::rule(table, &column.name).is_some_and(|(_, rule)| rule.path.is_some())
                || values::has_own_columns(table, &column.name)
            {
                continue;
            }
            let declared = values::declared(table, self, &column.name).map(|declared| Column { name: column.name.clone(), declared });
            if column.name.eq_ignore_ascii_case(&table.time) {
                fields.push(shape::time_field(table));
            } else if let Some(key) = key_of(column) {
                let kind = column.data_type().unwrap_or(DataType::Null);
                shape::check_key_type(table, key, &kind)?;
                fields.push(shape::key_field(key));
            } else if by.is_some_and(|by| by.column.eq_ignore_ascii_case(&column.name)) {
                // A view shows it among its columns.
            } else if let Some(kind) = declared.as_ref().unwrap_or(column).data_type() {
                fields.push(Field::new(&column.name, kind, true));
            }
        }
        for name in table.columns.iter().filter(|(_, rule)| rule.path.is_some()).map(|(name, _)| name) {
            let declared = values::declared(table, self, name).map(|declared| Column { name: name.clone(), declared });
            if name.eq_ignore_ascii_case(&table.time) {
                fields.push(shape::time_field(table));
            } else if table.key.contains(name) {
                fields.push(shape::key_field(name));
            } else if let Some(kind) = declared.and_then(|declared| declared.data_type()) {
                fields.push(Field::new(name, kind, true));
            }
        }
        // Keys that only the path holds, and a time that is joined from columns or in the path.
        let has = |fields: &[Field], name: &str| fields.iter().any(|field| field.name() == name);
        for key in &table.key {
            if !has(&fields, key) {
                fields.push(shape::key_field(key));
            }
        }
        if !has(&fields, &table.time) {
            fields.push(shape::time_field(table));
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

pub(crate) fn list(columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A Hive type in Trino's words, for types that a key can have.
pub(crate) fn trino_type(declared: &str) -> String {
    match declared.to_ascii_lowercase().as_str() {
        "string" => "varchar".to_owned(),
        "int" => "integer".to_owned(),
        "float" => "real".to_owned(),
        "timestamp" => "timestamp(3)".to_owned(),
        other => other.to_owned(),
    }
}

/// The type with which a column of ours is declared, and in which its values are written. Engines disagree about unsigned numbers.
///
/// # Errors
/// `invalid` if Athena has no such type.
pub(crate) fn declare(field: &Field) -> Result<(String, DataType)> {
    use DataType::{
        Boolean, Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Timestamp, UInt8, UInt16, UInt32, UInt64,
        Utf8, Utf8View,
    };
    let (declared, written) = match field.data_type() {
        Boolean => ("boolean", Boolean),
        Int8 => ("tinyint", Int8),
        Int16 => ("smallint", Int16),
        UInt8 | Int32 | UInt16 => ("int", Int32),
        Int64 | UInt32 | UInt64 => ("bigint", Int64),
        Float32 => ("float", Float32),
        Float64 => ("double", Float64),
        Date32 => ("date", Date32),
        Timestamp(_, _) => ("timestamp", overlay::instant_type()),
        Decimal128(precision, scale) => return Ok((format!("decimal({precision},{scale})"), Decimal128(*precision, *scale))),
        Utf8 | LargeUtf8 | Utf8View | DataType::Null => ("string", Utf8),
        DataType::Dictionary(_, values) if shape::is_text(values) => ("string", Utf8),
        other => {
            return Err(Error::invalid(format!("column `{}` is {other}, a type that cannot be written to Athena; cast it", field.name())));
        }
    };
    Ok((declared.to_owned(), written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_hive_are_types_of_arrow() {
        let of = |declared: &str| Column { name: "c".to_owned(), declared: declared.to_owned() }.data_type();
        assert_eq!(of("BIGINT"), Some(DataType::Int64));
        assert_eq!(of("varchar(10)"), Some(DataType::Utf8));
        assert_eq!(of("decimal(10,2)"), Some(DataType::Decimal128(10, 2)));
        assert_eq!(of("decimal"), Some(DataType::Decimal128(10, 0)));
        assert_eq!(of("timestamp"), Some(overlay::instant_type()));
        for nested in ["array<string>", "map<string,int>", "struct<a:int>", "binary", "timestamp with time zone"] {
            assert_eq!(of(nested), None, "{nested}");
        }
    }
}
