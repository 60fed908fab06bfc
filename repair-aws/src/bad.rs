//! Rows that Athena could not read as the table declares: refused, or left out, counted and listed by their objects.

use std::collections::BTreeMap;

use repair_core::model::{BadRow, BadRowLimit, OnBadRow, Quarantine, Table};
use repair_core::{Error, ErrorKind, Result};

/// A number of rows in words.
fn counted(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

/// Rows that cannot be read, as results report them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bad {
    /// How many there are, by object and column.
    rows: BTreeMap<(String, String), u64>,
    /// An object in a folder whose name says no time.
    no_folder: Option<(u64, String)>,
}

impl Bad {
    /// Adds rows of one report: the column, and the object.
    pub(crate) fn add(&mut self, rows: u64, report: &str) {
        let (column, file) = report.split_once('|').unwrap_or(("", report));
        if column == "/" {
            let (known, _) = self.no_folder.get_or_insert_with(|| (0, file.to_owned()));
            *known += rows;
            return;
        }
        *self.rows.entry((file.to_owned(), column.to_owned())).or_default() += rows;
    }

    /// How many rows cannot be read.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.values().sum::<u64>() + self.no_folder.as_ref().map_or(0, |(rows, _)| *rows)
    }

    /// Whether the limit can only be checked once it is known how many rows there are.
    pub(crate) fn needs_total(&self, table: &Table) -> bool {
        !self.rows.is_empty() && matches!(table.on_bad_row, OnBadRow::Quarantine(BadRowLimit::PerMillion(_)))
    }

    /// The rows that are quarantined, of all that were read, if it is known how many these are.
    ///
    /// # Errors
    /// `invalid` if the table does not quarantine rows; `blind` if there are more of them than it allows.
    pub(crate) fn judged(self, table: &Table, all: Option<u64>) -> Result<Quarantine> {
        if let Some((rows, file)) = &self.no_folder {
            return Err(Error::invalid(format!(
                "a folder of table `{}` with {} has a name that is not as `partition_by` says: {file}; rename it, or correct `partition_by`",
                table.name,
                counted(*rows)
            )));
        }
        let mut quarantine = Quarantine::default();
        for ((file, column), rows) in &self.rows {
            let clock = table.reading.zone.as_ref().filter(|zone| *column == table.time && !zone.is_utc());
            let doubt = clock.map(|zone| format!(", or the clock in {zone} shows it twice or never")).unwrap_or_default();
            let of_key = if table.key.contains(column) { "; a key must be text or a whole number" } else { "" };
            let reason = format!("there is no value in column `{column}` that can be read as the table declares it{doubt}{of_key}");
            quarantine.count(*rows, BadRow::new(file, None, Some(column.clone()), reason));
        }
        let bad = quarantine.rows();
        let Some(first) = quarantine.iter().next() else { return Ok(quarantine) };
        match table.on_bad_row {
            OnBadRow::Quarantine(limit) if !limit.is_exceeded(bad, all.unwrap_or(u64::MAX)) => Ok(quarantine),
            OnBadRow::Quarantine(limit) => Err(Error::new(
                ErrorKind::Blind,
                format!(
                    "{} of table `{}` cannot be read, which is more than the limit of {limit}; the first is in {first}; correct them, or raise the limit \
                     under `on_bad_row`",
                    all.map_or_else(|| counted(bad), |all| format!("{bad} of {all} rows")),
                    table.name
                ),
            )),
            _ => Err(Error::invalid(format!(
                "{} of table `{}` cannot be read; the first is in {first}; correct the file, or declare how it is written, or leave such rows out with \
                 `on_bad_row: {{ quarantine: 1% }}`",
                counted(bad),
                table.name
            ))),
        }
    }
}
