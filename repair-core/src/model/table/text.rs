//! How the text of a table's files becomes values.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The character encoding of text files. A byte-order mark at the start of a file is understood in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Encoding {
    /// UTF-8.
    #[default]
    Utf8,
    /// UTF-16 with a byte-order mark.
    Utf16,
    /// UTF-16, low byte first.
    Utf16le,
    /// UTF-16, high byte first.
    Utf16be,
    /// Western European text with one byte for each character: Windows-1252, which contains ISO 8859-1.
    Latin1,
}

impl Encoding {
    /// The word used in workflows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Utf16 => "utf16",
            Self::Utf16le => "utf16le",
            Self::Utf16be => "utf16be",
            Self::Latin1 => "latin1",
        }
    }
}

/// How CSV files are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Csv {
    /// The character between fields.
    pub delimiter: char,
    /// The character around fields that contain a delimiter; `None` if none has that meaning.
    pub quote: Option<char>,
    /// The decimal mark of numbers.
    pub decimal: char,
    /// The mark between groups of three digits.
    pub thousands: Option<char>,
    /// The character encoding.
    pub encoding: Encoding,
    /// Whether the first record names the columns.
    pub header: bool,
    /// The names of the columns, if there is no header, or instead of those in it.
    pub names: Vec<String>,
    /// Lines that begin with this character are not records.
    pub comment: Option<char>,
    /// How many lines come before the header.
    pub skip_lines: u32,
    /// Whether spaces around fields and names are removed. If the delimiter is a space, several spaces count as one.
    pub trim: bool,
    /// Whether every line ends with a line break. The last line of a file that has none may then be cut off, and is not read.
    pub final_newline: bool,
}

impl Default for Csv {
    fn default() -> Self {
        Self {
            delimiter: ',',
            quote: Some('"'),
            decimal: '.',
            thousands: None,
            encoding: Encoding::Utf8,
            header: true,
            names: Vec::new(),
            comment: None,
            skip_lines: 0,
            trim: false,
            final_newline: false,
        }
    }
}

impl Csv {
    /// Whether it is all as in plain CSV.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what one field cannot see of another.
    ///
    /// # Errors
    /// `invalid` with the contradiction.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::invalid(message));
        if !self.delimiter.is_ascii() || [self.quote, self.comment].iter().flatten().any(|mark| !mark.is_ascii()) {
            return refuse("`delimiter`, `quote` and `comment` must be ASCII characters");
        }
        if matches!(self.delimiter, '\n' | '\r') || self.quote == Some(self.delimiter) || self.comment == Some(self.delimiter) {
            return refuse("`delimiter` cannot be a line end, nor the character of `quote` or `comment`");
        }
        if self.thousands == Some(self.decimal) {
            return refuse("`decimal` and `thousands` are the same character, so `1.234` would be two numbers");
        }
        if self.decimal.is_ascii_alphanumeric() || self.thousands.is_some_and(|mark| mark.is_ascii_alphanumeric()) {
            return refuse("`decimal` and `thousands` cannot be letters or digits");
        }
        if !self.header && self.names.is_empty() {
            return refuse("`header: false` needs the columns' names: add `names: [...]`, one for each field");
        }
        if let Some(twice) = self.names.iter().enumerate().find(|(at, name)| self.names[..*at].contains(name)) {
            return Err(Error::invalid(format!("`names` has `{}` twice; each column needs a name of its own", twice.1)));
        }
        Ok(())
    }
}

/// The type of a column, as a table declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnType {
    /// Text, even if it looks like a number.
    Text,
    /// Whole numbers of 64 bits.
    Integer,
    /// Numbers (floats of 64 bits).
    Number,
    /// `true` or `false`.
    Boolean,
    /// Exact decimals: the number of all digits, and of those after the decimal mark.
    Decimal(u8, i8),
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Integer => f.write_str("integer"),
            Self::Number => f.write_str("number"),
            Self::Boolean => f.write_str("boolean"),
            Self::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
        }
    }
}

impl FromStr for ColumnType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let decimal = || {
            let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
            let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            let fits = (1..=38).contains(&precision) && scale >= 0 && scale.unsigned_abs() <= precision;
            fits.then_some(Self::Decimal(precision, scale))
        };
        match text {
            "text" => Ok(Self::Text),
            "integer" => Ok(Self::Integer),
            "number" => Ok(Self::Number),
            "boolean" => Ok(Self::Boolean),
            _ => decimal().ok_or_else(|| {
                Error::invalid(format!("`{text}` is not a column's type; write text, integer, number, boolean or e.g. decimal(18,4)"))
            }),
        }
    }
}

impl Serialize for ColumnType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

/// What a table declares about one of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ColumnRule {
    /// Its type; if there is none, that of its first rows in text files, and that of the file in Parquet.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ColumnType>,
    /// Words that mean that there is no value, beside those of the table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nulls: Vec<String>,
    /// Where its values are in nested rows: names from the outside in, joined by `.`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl ColumnRule {
    /// A column of a type.
    pub fn of_type(kind: ColumnType) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }

    /// Takes these words for no value.
    #[must_use]
    pub fn with_nulls<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.nulls = words.into_iter().map(Into::into).collect();
        self
    }

    /// Takes its values from within nested rows.
    #[must_use]
    pub fn at_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }
}

/// What happens to a row that cannot be read: one with too few fields, with a time that is none, or with a value that does not fit its
/// column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnBadRow {
    /// The table is not read, and the error names the row.
    #[default]
    Refuse,
    /// The row is left out, counted and listed. If there are more of them than the limit, the table is not read.
    Quarantine(BadRowLimit),
}

/// How many rows may be quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BadRowLimit {
    /// So many rows.
    Rows(u64),
    /// So many of a million rows that are read.
    PerMillion(u32),
}

impl BadRowLimit {
    /// The limit where none is written: one row in a hundred.
    pub const DEFAULT: Self = Self::PerMillion(10_000);

    /// Whether so many bad rows of all rows are more than the limit allows.
    pub fn is_exceeded(self, bad: u64, all: u64) -> bool {
        match self {
            Self::Rows(rows) => bad > rows,
            Self::PerMillion(share) => u128::from(bad) * 1_000_000 > u128::from(all) * u128::from(share),
        }
    }
}

impl fmt::Display for BadRowLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows}"),
            Self::PerMillion(share) => {
                let (whole, rest) = (share / 10_000, share % 10_000);
                let digits = format!("{rest:04}");
                let digits = digits.trim_end_matches('0');
                if digits.is_empty() { write!(f, "{whole}%") } else { write!(f, "{whole}.{digits}%") }
            }
        }
    }
}

impl FromStr for BadRowLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::invalid(format!("`{text}` is not a limit of rows; write a share such as 0.1%, or a number of rows"));
        let Some(percent) = text.strip_suffix('%') else { return text.trim().parse().map(Self::Rows).map_err(|_| refuse()) };
        let percent = percent.trim();
        let (whole, digits) = percent.split_once('.').unwrap_or((percent, ""));
        let numbers = [whole, digits].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        if whole.is_empty() || digits.len() > 4 || !numbers {
            return Err(refuse());
        }
        let share: u32 = format!("{whole}{digits:0<4}").parse().map_err(|_| refuse())?;
        if share > 1_000_000 { Err(refuse()) } else { Ok(Self::PerMillion(share)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_types_come_back_as_written() {
        for text in ["0.1%", "1%", "100%", "0.0001%", "12.34%", "0%", "25"] {
            assert_eq!(text.parse::<BadRowLimit>().unwrap().to_string(), text);
        }
        for bad in ["", "%", "101%", "-1", "1.00001%", "a%"] {
            assert!(bad.parse::<BadRowLimit>().is_err(), "{bad}");
        }
        for text in ["text", "integer", "number", "boolean", "decimal(18,4)"] {
            assert_eq!(text.parse::<ColumnType>().unwrap().to_string(), text);
        }
        for bad in ["int", "decimal", "decimal(39,2)", "decimal(4,5)"] {
            assert!(bad.parse::<ColumnType>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_is_a_share_of_what_was_read() {
        let limit: BadRowLimit = "0.1%".parse().unwrap();
        assert!(!limit.is_exceeded(1, 1_000));
        assert!(limit.is_exceeded(1, 999));
        assert!(!BadRowLimit::Rows(2).is_exceeded(2, 2));
        assert!(BadRowLimit::Rows(2).is_exceeded(3, 1_000));
    }
}
