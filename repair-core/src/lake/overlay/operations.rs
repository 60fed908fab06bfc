//! Writing the overlay: repairs are staged, published, and taken back.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::compaction::{Compactable, Compacted};
use super::retraction::Retraction;
use crate::error::Result;
use crate::model::{Absence, AnswerPrint, Conflicts, Fingerprints, Fix, Suspects, Table, Usage};

/// Names the area of one visit of a repair step: units are staged there, and published objects bear its name. A visit repairs one table, so
/// run, step and visit identify an area.
#[derive(Debug, Clone)]
pub struct StageScope<'a> {
    /// The run.
    pub run: &'a str,
    /// The step.
    pub step: &'a str,
    /// Which visit of the step, from 1.
    pub visit: u32,
    /// The table to repair.
    pub table: &'a Table,
}

/// The result of repairing a unit, to be staged.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StageRequest<'a> {
    /// The unit's id.
    pub unit: &'a str,
    /// The strategy that repaired it.
    pub strategy: &'a str,
    /// When it was repaired; recorded with each row.
    pub repaired_at: Timestamp,
    /// The rows and absences.
    pub fix: &'a Fix,
    /// The fingerprints of the table's own rows that these rows replace, by slot. `None` if the rows fill missing slots.
    pub replaces: Option<&'a Fingerprints>,
    /// Rows that change cells of others: key, time, the changed columns, [`columns::CELLS`](super::columns::CELLS) with their names, and
    /// their old values under the names of [`patch::was`](super::patch::was).
    pub patches: &'a [RecordBatch],
    /// Slots of which the table's own rows are removed, with the evidence. `replaces` has the fingerprints of these rows, too.
    pub removed: &'a [Absence],
}

impl<'a> StageRequest<'a> {
    /// A fix that fills missing slots.
    pub fn new(unit: &'a str, strategy: &'a str, repaired_at: Timestamp, fix: &'a Fix) -> Self {
        Self { unit, strategy, repaired_at, fix, replaces: None, patches: &[], removed: &[] }
    }

    /// The rows replace the table's own rows with these fingerprints; with `None`, they fill missing slots.
    #[must_use]
    pub fn replacing(mut self, fingerprints: impl Into<Option<&'a Fingerprints>>) -> Self {
        self.replaces = fingerprints.into();
        self
    }

    /// Cells to change, beside the rows of the fix.
    #[must_use]
    pub fn patching(mut self, patches: &'a [RecordBatch]) -> Self {
        self.patches = patches;
        self
    }

    /// Slots of which the table's own rows are removed.
    #[must_use]
    pub fn removing(mut self, removed: &'a [Absence]) -> Self {
        self.removed = removed;
        self
    }
}

/// A staged unit: paid for, checked and kept, but not yet visible to readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The unit's id.
    pub unit: String,
    /// Rows repaired, as a whole or in some of their cells, and slots whose rows were removed.
    pub rows: u64,
    /// Slots confirmed absent.
    pub absent: u64,
    /// Where source and table disagree.
    #[serde(default, skip_serializing_if = "Conflicts::is_empty")]
    pub conflicts: Conflicts,
    /// Where the source has nothing, which proves nothing.
    #[serde(default, skip_serializing_if = "Suspects::is_empty")]
    pub suspects: Suspects,
    /// What to remember of the answers of a source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<AnswerPrint>,
    /// What the unit used, staging included.
    pub usage: Usage,
}

/// What was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Rows added to the overlay.
    pub rows: u64,
    /// Slots recorded as absent.
    pub absent: u64,
    /// What writing used.
    pub usage: Usage,
}

/// The part of a [`Lake`](crate::lake::Lake) that writes a table's overlay. A table's own rows are never touched.
///
/// A unit goes through three steps: [`stage`](Overlay::stage), [`publish`](Overlay::publish), [`discard_staged`](Overlay::discard_staged).
/// Each may be repeated after a crash with the same arguments, and has the same effect as once.
#[async_trait]
pub trait Overlay: Send + Sync {
    /// What the first repair of a table will create that people may want to know about, such as tables and views in a catalog; each is
    /// described in a few words. Empty if all of it exists, or if only files are written. Changes nothing.
    ///
    /// # Errors
    /// As [`ReadLake::describe`](crate::lake::ReadLake::describe).
    async fn to_create(&self, table: &Table) -> Result<Vec<String>>;

    /// Keeps a repaired unit in the area of its scope, invisible to readers. The write is atomic: one object, named after the unit. To
    /// stage a unit again replaces it. If the call is dropped, the unit is staged or it is not.
    ///
    /// # Errors
    /// `invalid` if the rows do not fit the table.
    async fn stage(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged>;

    /// The units that are staged in a scope, each as [`Overlay::stage`] returned it. A staged object that is found to be damaged is none.
    /// Changes nothing.
    ///
    /// # Errors
    /// If the area cannot be read.
    async fn staged(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>>;

    /// Makes staged units visible to readers: at most one object for each partition and batch. Each object is atomic; a batch that spans
    /// partitions is not. To publish a batch again changes nothing, and completes it if an earlier call was dropped halfway.
    ///
    /// # Errors
    /// `not-found` with the `unit` as its context, if a unit is not staged, or its object is not what was staged.
    async fn publish(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published>;

    /// Removes the staged objects of units that are published and journaled. A unit that is not staged is no error, so a call that was
    /// dropped halfway can be repeated.
    ///
    /// # Errors
    /// If the area cannot be written.
    async fn discard_staged(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()>;

    /// Takes back what runs have added to a table, or undoes an earlier retraction. From then on, presence and the repaired view leave out
    /// what it hides; nothing else changes. The write is atomic: one object, named after the retraction's id. To write it again changes
    /// nothing. If the call is dropped, the retraction is in force or it is not.
    ///
    /// # Errors
    /// `invalid` if it does not fit the table, or if the lake cannot retract.
    async fn retract(&self, table: &Table, retraction: &Retraction) -> Result<()>;

    /// Lists which objects of a table's overlay could become one each: repairs and exceptions, by partition. Only names and sizes are read. Objects that
    /// we did not write are left out.
    ///
    /// # Errors
    /// If the overlay cannot be listed.
    async fn compactable(&self, table: &Table) -> Result<Vec<Compactable>>;

    /// Writes an object with the rows of listed ones, and checks it by reading it back. Their rows, and those of the new object, are one set for every
    /// reader, so nothing that is read changes. The objects themselves stay, until [`Overlay::discard_compacted`] removes them. The write is atomic: one
    /// object, named after its members. To compact the same objects again changes nothing. If the call is dropped, the object is there or it is not.
    ///
    /// Objects whose columns have different types are not joined, so there may be several new objects, or none.
    ///
    /// # Errors
    /// `conflict` if a listed object is not there any more; `invalid` if one is not what was written.
    async fn compact(&self, table: &Table, objects: &Compactable) -> Result<Vec<Compacted>>;

    /// Removes the objects that a compacted one stands for. One that is not there is no error, so a call that was dropped halfway can be repeated.
    ///
    /// # Errors
    /// `conflict` if objects are there, and the one that stands for them is not.
    async fn discard_compacted(&self, table: &Table, compacted: &Compacted) -> Result<()>;
}
