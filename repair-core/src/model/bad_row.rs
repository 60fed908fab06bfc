//! Rows that could not be read.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A row of a table that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BadRow {
    /// The file.
    pub file: String,
    /// Its line, from 1; in a file without lines, the number of the row. `None` if only the file is known.
    pub line: Option<u64>,
    /// The column, if one value is what cannot be read.
    pub column: Option<String>,
    /// Why it could not be read.
    pub reason: String,
}

impl BadRow {
    /// A row of a file, and why it could not be read.
    pub fn new(file: impl Into<String>, line: Option<u64>, column: Option<String>, reason: impl Into<String>) -> Self {
        Self { file: file.into(), line, column, reason: reason.into() }
    }
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

/// The rows of a table that were left out because they could not be read, by file.
///
/// ```
/// use repair_core::model::{BadRow, Quarantine};
///
/// let mut quarantine = Quarantine::default();
/// quarantine.push(BadRow::new("1.csv", Some(7), None, "the line has 2 fields, and the header 3"));
/// // A file that is read twice has the same bad rows.
/// quarantine.merge(quarantine.clone());
/// assert_eq!(quarantine.rows(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quarantine {
    files: BTreeMap<String, BadFile>,
}

/// The bad rows of one file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct BadFile {
    rows: u64,
    listed: Vec<BadRow>,
}

/// Says how many rows of something cannot be read, in the words that all outputs have.
///
/// ```
/// use repair_core::model::unread;
///
/// assert_eq!(unread(1, "table `bars`"), "1 row of table `bars` cannot be read and was left out");
/// assert_eq!(unread(2, "table `bars`"), "2 rows of table `bars` cannot be read and were left out");
/// ```
pub fn unread(rows: u64, of: &str) -> String {
    let (rows, were) = if rows == 1 { ("1 row".to_owned(), "was") } else { (format!("{rows} rows"), "were") };
    format!("{rows} of {of} cannot be read and {were} left out")
}

impl Quarantine {
    /// The most rows of a file that are listed one by one. Beyond, they are counted.
    pub const MOST: usize = 10_000;

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.files.values().map(|file| file.rows).sum()
    }

    /// The rows that are listed, in order of file and line.
    pub fn iter(&self) -> impl Iterator<Item = &BadRow> {
        self.files.values().flat_map(|file| &file.listed)
    }

    /// Says how many rows of something cannot be read, with the first of them; `None` if all can.
    pub fn said(&self, of: &str) -> Option<String> {
        self.iter().next().map(|first| format!("{}, such as {first}", unread(self.rows(), of)))
    }

    /// Adds a row.
    pub fn push(&mut self, row: BadRow) {
        self.count(1, row);
    }

    /// Adds rows of a file of which only one is listed.
    pub fn count(&mut self, rows: u64, listed: BadRow) {
        if rows == 0 {
            return;
        }
        let file = self.files.entry(listed.file.clone()).or_default();
        file.rows += rows;
        if file.listed.len() < Self::MOST {
            let at = file.listed.partition_point(|before| (before.line, &before.column) <= (listed.line, &listed.column));
            file.listed.insert(at, listed);
        }
    }

    /// Adds what was found in other files, or in the same ones once more: a file has the same bad rows whenever it is read.
    pub fn merge(&mut self, other: Self) {
        for (name, theirs) in other.files {
            let mine = self.files.entry(name).or_default();
            if theirs.rows > mine.rows {
                *mine = theirs;
            }
        }
    }
}
