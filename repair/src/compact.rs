//! Joins the many small objects in which the repairs of a table lie: one for each run, batch and partition.
//!
//! Rows stay as they are, with all that is known of them, so every answer is the same before, meanwhile and afterwards, and undo and redo work as
//! before. If it is broken off, whatever is there twice is read once, and the next compaction finishes it.

use std::path::Path;

use repair_core::engine::{JsonFormat, load};
use repair_core::lake::overlay::compaction::Compactable;
use repair_core::model::Table;
use repair_core::{Error, ErrorKind, Hint, Result};
use serde::Serialize;

use crate::hold::Hold;
use crate::open::OpenLake;
use crate::provenance::subject::{History, Subject, TableName};
use crate::request::awaitable;

/// Looks for what can be joined: await it. [`OpenLake::compactable`] makes it.
#[must_use = "nothing is looked for before this is awaited"]
pub struct CompactableRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
}

impl CompactableRequest<'_> {
    /// Takes the table from this workflow instead of the latest run that had it.
    pub fn declared_in<'b>(mut self, workflow: impl Into<Option<&'b Path>>) -> Self {
        self.table.declared_in(workflow.into());
        self
    }

    async fn perform(self) -> Result<CompactableTable> {
        let Subject { table, lake, run, .. } = self.table.open(self.open).await?;
        let parts = lake.compactable(&table).await?;
        let objects = parts.iter().map(|part| part.members.len()).sum();
        let bytes = parts.iter().map(Compactable::bytes).sum();
        Ok(CompactableTable { format: JsonFormat, table: table.name.clone(), objects, bytes, parts, declared: table, run })
    }
}

awaitable!(CompactableRequest => CompactableTable);

/// What can be joined.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CompactableTable {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The table.
    pub table: String,
    /// How many objects there are in all parts.
    pub objects: usize,
    /// How large they are together.
    pub bytes: u64,
    /// What becomes one object each.
    pub parts: Vec<Compactable>,
    #[serde(skip)]
    declared: Table,
    /// The run that had the table so.
    #[serde(skip)]
    run: Option<String>,
}

/// What was joined.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CompactedTable {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The table.
    pub table: String,
    /// How many objects were removed.
    pub removed: usize,
    /// How many were written in their place.
    pub written: usize,
    /// How many rows these have.
    pub rows: u64,
    /// How large the removed objects were.
    pub bytes_removed: u64,
    /// How large the new ones are.
    pub bytes_written: u64,
}

impl OpenLake {
    /// Looks for the small objects in which repairs and exceptions of a table lie, and which could be joined, by partition. Changes nothing; give the
    /// result to [`OpenLake::compact`].
    ///
    /// # Errors
    /// `not-found` if no run has had the table; those of the lake.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// let found = lake.compactable("bars").await?;
    /// let done = lake.compact(&found).await?;
    /// println!("{} objects instead of {}", done.written, done.removed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn compactable(&self, table: impl Into<String>) -> CompactableRequest<'_> {
        CompactableRequest { open: self, table: TableName::new(table.into()) }
    }

    /// Joins what was found. If it is broken off, it can be repeated, and nothing that is read is different meanwhile.
    ///
    /// # Errors
    /// `conflict` if a run that has the table has not ended, another process compacts it, or it has changed since it was looked at; those of the lake and
    /// the journal.
    pub async fn compact(&self, found: &CompactableTable) -> Result<CompactedTable> {
        let mut done = CompactedTable {
            format: JsonFormat,
            table: found.table.clone(),
            removed: 0,
            written: 0,
            rows: 0,
            bytes_removed: 0,
            bytes_written: 0,
        };
        if found.parts.is_empty() {
            return Ok(done);
        }
        let history = History { open: self, journal: self.root.journal_to_write().await? };
        refuse_running(&history, &found.declared).await?;
        let lake = history.lake(found.run.as_deref()).await?;
        let clock = self.around.clock.as_ref();
        let hold = Hold::take(history.journal.clone(), format!("compact.{}", found.table), clock).await?;
        let mut compacted = Ok(());
        for part in &found.parts {
            compacted = async {
                hold.renew(clock).await?;
                for one in lake.compact(&found.declared, part).await? {
                    lake.discard_compacted(&found.declared, &one).await?;
                    let members = part.members.iter().filter(|member| one.members.contains(&member.name) && member.name != one.object);
                    let (count, bytes) = members.fold((0, 0), |(count, bytes), member| (count + 1, bytes + member.bytes));
                    done.removed += count;
                    done.bytes_removed += bytes;
                    done.written += 1;
                    done.rows += one.rows;
                    done.bytes_written += one.bytes;
                }
                Ok(())
            }
            .await;
            if compacted.is_err() {
                break;
            }
        }
        hold.release().await;
        compacted.map(|()| done)
    }
}

/// Refuses to compact what a run may still add to: it reads the objects that are removed, and would have to begin again.
async fn refuse_running(history: &History<'_>, table: &Table) -> Result<()> {
    for listed in history.journal.listed(history.open.around.clock.now()).await? {
        if listed.latest.outcome.is_some() {
            continue;
        }
        let state = load(history.journal.as_ref(), &listed.run).await?;
        // What a definition says that this program cannot read, is not known.
        let has_table =
            history.open.workflow_of(&state).is_ok_and(|workflow| workflow.tables.values().any(|known| known.location == table.location));
        if has_table {
            let message = format!("run `{}` has not ended, and may still add to table `{}`", listed.run, table.name);
            return Err(Error::new(ErrorKind::Conflict, message).hint(Hint::Cancel { run: listed.run }));
        }
    }
    Ok(())
}
