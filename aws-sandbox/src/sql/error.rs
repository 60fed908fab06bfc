//! Why a statement failed, in the words of Trino, which is Athena's engine.

use std::fmt;

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Who caused the error, as in Athena's `ErrorCategory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Athena itself, 1.
    System,
    /// The statement or the data, 2.
    User,
}

impl Category {
    /// The number that Athena gives.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::System => 1,
            Self::User => 2,
        }
    }
}

/// Why a statement failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// Trino's name of the error, such as `TABLE_NOT_FOUND`; empty for errors without one.
    pub name: String,
    /// Trino's message.
    pub message: String,
    /// Who caused it.
    pub category: Category,
    /// Athena's `ErrorType`.
    pub error_type: i32,
    /// Whether Athena calls it retryable.
    pub retryable: bool,
    /// Whether the query ends as `CANCELLED` and not as `FAILED`.
    pub cancelled: bool,
}

impl QueryError {
    /// An error of the statement or the data, with the `ErrorType` of its name.
    pub fn user(name: impl Into<String>, message: impl Into<String>) -> Self {
        let name = name.into();
        let error_type = match name.as_str() {
            "SYNTAX_ERROR" | "COLUMN_NOT_FOUND" | "FUNCTION_NOT_FOUND" | "TYPE_MISMATCH" | "AMBIGUOUS_NAME" => 1006,
            "SCHEMA_NOT_FOUND" | "TABLE_NOT_FOUND" => 1004,
            "HIVE_BAD_DATA" | "HIVE_CURSOR_ERROR" => 1001,
            "" => 1003,
            _ => 1000,
        };
        Self { name, message: message.into(), category: Category::User, error_type, retryable: false, cancelled: false }
    }

    /// A DDL statement that the catalog refused, in Hive's words.
    pub fn ddl(message: impl Into<String>) -> Self {
        Self::user("", format!("FAILED: {}", message.into()))
    }

    /// An error of the engine.
    pub fn system(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name: name.into(), message: message.into(), category: Category::System, error_type: 200, retryable: false, cancelled: false }
    }

    /// The query scanned more than its workgroup allows.
    #[must_use]
    pub fn cutoff() -> Self {
        Self { cancelled: true, ..Self::user("", "Bytes scanned limit was exceeded") }
    }

    /// The text of `StateChangeReason`.
    #[must_use]
    pub fn reason(&self) -> String {
        if self.name.is_empty() { self.message.clone() } else { format!("{}: {}", self.name, self.message) }
    }

    /// An error of DataFusion, as Trino would word it for this statement.
    #[must_use]
    pub fn of_datafusion(error: &DataFusionError, sql: &str) -> Self {
        let root = error.find_root();
        match root {
            DataFusionError::External(inner) => {
                if let Some(own) = inner.downcast_ref::<Self>() {
                    return own.clone();
                }
            }
            DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
                SchemaError::FieldNotFound { field, .. } => {
                    let name = match &field.relation {
                        Some(relation) => format!("{}.{}", relation.table(), field.name),
                        None => field.name.clone(),
                    };
                    return Self::user(
                        "COLUMN_NOT_FOUND",
                        format!(
                            "{}: Column '{name}' cannot be resolved or requester is not authorized to access requested resources",
                            place_of(sql, &field.name)
                        ),
                    );
                }
                SchemaError::AmbiguousReference { field } => {
                    let place = place_of(sql, &field.name);
                    return Self::user("AMBIGUOUS_NAME", format!("{place}: Column '{}' is ambiguous", field.name));
                }
                _ => {}
            },
            _ => {}
        }
        let text = root.strip_backtrace();
        if let Some(name) = between(&text, "Invalid function '", "'") {
            let place = place_of(sql, name);
            return Self::user("FUNCTION_NOT_FOUND", format!("{place}: Function '{name}' not registered"));
        }
        if text.to_lowercase().contains("divide by zero") {
            return Self::user("DIVISION_BY_ZERO", "Division by zero");
        }
        if let Some(cast) = text.find("Cannot cast string '") {
            let rest = &text[cast + "Cannot cast string '".len()..];
            if let Some((value, kind)) = rest.split_once("' to value of ") {
                let kind = kind.split_whitespace().next().unwrap_or(kind);
                return Self::user("INVALID_CAST_ARGUMENT", format!("Cannot cast '{value}' to {}", trino_cast_name(kind)));
            }
        }
        match root {
            DataFusionError::SQL(..) => Self::user("SYNTAX_ERROR", syntax_message(&text)),
            DataFusionError::Plan(_) | DataFusionError::NotImplemented(_) | DataFusionError::SchemaError(..) => {
                Self::user("SYNTAX_ERROR", format!("line 1:1: {text}"))
            }
            DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => Self::user("INVALID_FUNCTION_ARGUMENT", text),
            _ => Self::system("GENERIC_INTERNAL_ERROR", text),
        }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason())
    }
}

impl std::error::Error for QueryError {}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        Self::External(Box::new(error))
    }
}

fn trino_cast_name(arrow: &str) -> &str {
    match arrow {
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INTEGER",
        "Int64" => "BIGINT",
        "Float32" => "REAL",
        "Float64" => "DOUBLE",
        "Boolean" => "BOOLEAN",
        other => other,
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let end = start + text[start..].find(after)?;
    Some(&text[start..end])
}

/// `line 1:8`: the first place where the statement names this. DataFusion does not say which place it means.
pub(super) fn place_of(sql: &str, name: &str) -> String {
    let mut place = (1, 1);
    if let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location() {
        let found = tokens.iter().find(|token| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(name)));
        if let Some(found) = found {
            place = (found.span.start.line, found.span.start.column);
        }
    }
    format!("line {}:{}", place.0, place.1)
}

/// A parser's message, with its position in front, as in Trino.
pub(super) fn syntax_message(text: &str) -> String {
    let text = text.trim_start_matches("sql parser error: ").trim_start_matches("SQL error: ");
    // The parser ends with ` at Line: 1, Column: 8`.
    if let Some((message, place)) = text.rsplit_once(" at Line: ")
        && let Some((line, column)) = place.split_once(", Column: ")
    {
        let column: String = column.chars().take_while(char::is_ascii_digit).collect();
        let message = match message.split_once(", found: ") {
            Some((expected, found)) => {
                let expected = expected.trim_start_matches("Expected: ").trim_start_matches("Expected ");
                let found = if found == "EOF" { "<EOF>" } else { found };
                format!("mismatched input '{found}'. Expecting: {expected}")
            }
            None => message.to_owned(),
        };
        return format!("line {}:{column}: {message}", line.trim());
    }
    format!("line 1:1: {text}")
}
