//! Rows that cannot be read: refused at the first one, or left out, counted and listed.

use repair_core::model::{BadRow, OnBadRow, Quarantine, Table};
use repair_core::{Error, ErrorKind, Result};

use super::csv;
use crate::files::DataFile;

/// Where a row is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// On this line, from 1.
    Line(u64),
    /// The record that begins after this many bytes of the text; its line is looked up when it is needed.
    Offset(u64),
    /// This row, from 1, of a file without lines.
    Row(u64),
}

impl At {
    /// In the order of the file.
    fn place(self) -> u64 {
        match self {
            Self::Line(at) | Self::Offset(at) | Self::Row(at) => at,
        }
    }
}

/// Where the rows of a batch are.
pub(super) trait Rows {
    /// Where a row of the batch is.
    fn at(&self, row: usize) -> At;
}

/// What was read of a table, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rows_read: u64,
    pub(crate) quarantine: Quarantine,
}

impl Tally {
    pub(crate) fn merge(&mut self, other: Self) {
        self.rows_read += other.rows_read;
        self.quarantine.merge(other.quarantine);
    }

    /// Checks the table's limit.
    ///
    /// # Errors
    /// `blind` if more rows cannot be read than it allows.
    pub(crate) fn check(&self, table: &Table) -> Result<()> {
        let OnBadRow::Quarantine(limit) = table.on_bad_row else { return Ok(()) };
        let bad = self.quarantine.rows();
        if !limit.is_exceeded(bad, self.rows_read) {
            return Ok(());
        }
        let first = self.quarantine.iter().next().map(|row| format!("; the first is in {row}")).unwrap_or_default();
        Err(Error::new(
            ErrorKind::Blind,
            format!(
                "{bad} of {} rows of table `{}` cannot be read, which is more than the limit of {limit}{first}; correct them, or raise the limit \
                 under `on_bad_row`",
                self.rows_read, table.name
            ),
        ))
    }
}

/// Judges the rows of one file.
pub(super) struct Judge<'a> {
    table: &'a Table,
    file: &'a DataFile,
    keeps: bool,
    pub(super) rows_read: u64,
    bad: Vec<(At, Option<String>, String)>,
    more: u64,
}

impl<'a> Judge<'a> {
    pub(super) fn new(table: &'a Table, file: &'a DataFile) -> Self {
        let keeps = matches!(table.on_bad_row, OnBadRow::Quarantine(_));
        Self { table, file, keeps, rows_read: 0, bad: Vec::new(), more: 0 }
    }

    /// A judge that leaves bad rows out without a word, for a first look at a file that is read again.
    pub(super) fn silent(table: &'a Table, file: &'a DataFile) -> Self {
        Self { keeps: true, ..Self::new(table, file) }
    }

    /// Leaves a row out.
    ///
    /// # Errors
    /// `invalid` with the row, if the table does not quarantine rows.
    pub(super) fn reject(&mut self, at: At, column: Option<&str>, reason: impl FnOnce() -> String) -> Result<()> {
        if !self.keeps {
            let reason = reason();
            return Err(Error::invalid(match (self.line(at), at) {
                (Some(line), At::Row(_)) => format!("row {line}: {reason}"),
                (Some(line), _) => format!("line {line}: {reason}"),
                (None, _) => reason,
            }));
        }
        if self.bad.len() < Quarantine::MOST {
            self.bad.push((at, column.map(str::to_owned), reason()));
        } else {
            self.more += 1;
        }
        Ok(())
    }

    /// The first row that was left out, among those that are listed.
    pub(super) fn first_bad(&self) -> Option<u64> {
        self.bad.iter().map(|(at, ..)| at.place()).min()
    }

    fn line(&self, at: At) -> Option<u64> {
        match at {
            At::Line(line) | At::Row(line) => Some(line),
            At::Offset(offset) => csv::lines(self.table, self.file, &[offset]).first().copied().filter(|line| *line > 0),
        }
    }

    /// What was read of the file.
    pub(super) fn finish(mut self) -> Tally {
        if self.bad.is_empty() && self.more == 0 {
            return Tally { rows_read: self.rows_read, quarantine: Quarantine::default() };
        }
        let file = self.file.path.display().to_string();
        // Of the rows of a batch, those that are no records at all are found first; lines are looked up in the order of the file.
        self.bad.sort_by_key(|(at, ..)| at.place());
        let offsets: Vec<u64> = self
            .bad
            .iter()
            .filter_map(|(at, ..)| match at {
                At::Offset(offset) => Some(*offset),
                _ => None,
            })
            .collect();
        let mut lines = csv::lines(self.table, self.file, &offsets).into_iter();
        let mut quarantine = Quarantine::default();
        for (at, column, reason) in std::mem::take(&mut self.bad) {
            let line = match at {
                At::Line(line) | At::Row(line) => Some(line),
                At::Offset(_) => lines.next().filter(|line| *line > 0),
            };
            quarantine.push(BadRow::new(&file, line, column, reason));
        }
        quarantine.count(self.more, BadRow::new(&file, None, None, "more rows cannot be read than are listed"));
        Tally { rows_read: self.rows_read, quarantine }
    }
}
