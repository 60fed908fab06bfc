//! Rows that could not be read.

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

/// The rows of a table that were left out because they could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Quarantine {
    /// How many there are.
    pub rows: u64,
    /// The first of them, in order of file and line; at most [`Quarantine::MOST`].
    pub listed: Vec<BadRow>,
}

impl Quarantine {
    /// The most rows that are listed one by one. Beyond, they are counted.
    pub const MOST: usize = 10_000;

    /// Adds a row.
    pub fn push(&mut self, row: BadRow) {
        self.rows += 1;
        if self.listed.len() < Self::MOST {
            self.listed.push(row);
        }
    }

    /// Adds rows of which only the file is known.
    pub fn count(&mut self, rows: u64, file: BadRow) {
        if rows > 0 {
            self.push(file);
            self.rows += rows - 1;
        }
    }

    /// Adds the rows of another part of the table.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.listed.extend(other.listed);
        self.listed.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        self.listed.truncate(Self::MOST);
    }
}
