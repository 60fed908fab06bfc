//! How accurate each strategy has been, where the truth arrived late.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::subject::TableName;
use crate::open::OpenLake;
use crate::request::awaitable;
use crate::within::Within;
use repair_core::Result;
use repair_core::engine::JsonFormat;
use repair_core::lake::overlay::accuracy::{Accuracy, accuracy};

/// How accurate each strategy has been.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AccuracyReport {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The table.
    pub table: String,
    /// By strategy.
    pub strategies: BTreeMap<String, Accuracy>,
}

/// Compares repairs with rows that arrived later: await it. [`OpenLake::accuracy`] makes it.
#[must_use = "nothing is compared before this is awaited"]
pub struct AccuracyRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
    within: Within,
}

impl AccuracyRequest<'_> {
    /// Looks only at slots in this part of time.
    pub fn interval(mut self, within: impl Into<Within>) -> Self {
        self.within = within.into();
        self
    }

    /// Takes the table from this workflow instead of the latest run that had it.
    pub fn declared_in<'b>(mut self, workflow: impl Into<Option<&'b Path>>) -> Self {
        self.table.declared_in(workflow.into());
        self
    }

    async fn perform(self) -> Result<AccuracyReport> {
        let subject = self.table.open(self.open).await?;
        subject.table.check_one_row("a comparison of repairs with the rows that came later")?;
        let interval = self.within.of(&subject.table)?;
        let strategies = accuracy(subject.lake.as_ref(), &subject.table, interval).await?;
        Ok(AccuracyReport { format: JsonFormat, table: subject.table.name, strategies })
    }
}

awaitable!(AccuracyRequest => AccuracyReport);

impl OpenLake {
    /// Compares the repairs of a table with the rows that it has received since: how accurate each strategy has been so far.
    ///
    /// # Errors
    /// `not-found` if no run has had the table; those of the lake.
    pub fn accuracy(&self, table: impl Into<String>) -> AccuracyRequest<'_> {
        AccuracyRequest { open: self, table: TableName::new(table.into()), within: Within::default() }
    }
}
