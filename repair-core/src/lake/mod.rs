//! What an adapter implements so that workflows run on its lake. Nothing above this trait may ask which lake it has.

pub mod extent;
pub mod name;
pub mod overlay;
pub mod partition;
pub mod replacement;
pub mod rollup;
pub mod shape;
pub mod stale;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::extent::Extent;
use self::overlay::retraction::Retraction;
use crate::error::Result;
use crate::model::Usage;
use crate::model::{Conflicts, Fingerprints, Fix, Interval, Key, SlotRange, Suspects, Table, TablePresence};
use crate::price::Meter;

/// Batches of rows, as they come.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// What to look for when asking which slots hold a row.
#[derive(Debug, Clone)]
pub struct PresenceRequest {
    /// The slots to look at.
    pub slots: SlotRange,
    /// The keys to look for; rows of others are only counted.
    pub keys: Vec<Key>,
    /// Exceptions whose evidence has expired by then do not count.
    pub as_of: Timestamp,
}

/// Which rows of a table to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The table's own rows, untouched.
    Raw,
    /// The repaired view: raw without replaced slots, and live repairs of slots that raw lacks; of several repairs of one slot, the one
    /// that was repaired last. It has one column more than the table, [`overlay::REPAIRED_BY`].
    Repaired,
}

/// Which rows and columns to read.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// Raw rows, or the repaired view.
    pub layer: Layer,
    /// Only rows of slots that begin within; `None` for all.
    pub interval: Option<Interval>,
    /// Only rows of these keys; `None` for all.
    pub keys: Option<Vec<Key>>,
    /// Only these columns besides key and time, which always come; `None` for all.
    pub columns: Option<Vec<String>>,
}

/// Names the area of one visit of a repair step: where its units are staged, and whose name its published objects bear. A visit repairs
/// one table, so run, step and visit tell areas apart.
#[derive(Debug, Clone)]
pub struct StageScope<'a> {
    /// The run.
    pub run: &'a str,
    /// The step.
    pub step: &'a str,
    /// Which visit of the step, from 1.
    pub visit: u32,
    /// The table that is repaired.
    pub table: &'a Table,
}

/// On whose behalf a lake is used: one attempt of a step.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The run.
    pub run: Arc<str>,
    /// The step.
    pub step: Arc<str>,
    /// Which visit of the step, from 1.
    pub visit: u32,
    /// Which attempt of the visit, from 1. It is the same after a crash: what the attempt before the crash had begun may be taken up.
    pub attempt: u32,
    /// The workflow's tags.
    pub tags: Arc<BTreeMap<String, String>>,
    /// Where what no call returns is counted.
    pub meter: Meter,
    /// Cancelled when the attempt is to stop: what is under way is then ended, and counted.
    pub cancel: CancellationToken,
}

/// What came of a unit, on its way to the lake.
#[derive(Debug, Clone)]
pub struct StageRequest<'a> {
    /// The unit's id.
    pub unit: &'a str,
    /// The repair idea.
    pub strategy: &'a str,
    /// When it was repaired; recorded with each row.
    pub repaired_at: Timestamp,
    /// The rows and absences.
    pub fix: &'a Fix,
    /// Of the slots of the rows, the fingerprints of the table's own rows for which they stand. `None` if the rows fill slots that are
    /// missing.
    pub replaces: Option<&'a Fingerprints>,
}

/// A staged unit: paid for, checked, and kept, but not yet seen by readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The unit's id.
    pub unit: String,
    /// Rows repaired.
    pub rows: u64,
    /// Slots confirmed absent.
    pub absent: u64,
    /// Where the source says otherwise than the table.
    #[serde(default, skip_serializing_if = "Conflicts::is_empty")]
    pub conflicts: Conflicts,
    /// Where the source has nothing, and that proves nothing.
    #[serde(default, skip_serializing_if = "Suspects::is_empty")]
    pub suspects: Suspects,
    /// What the unit took, the staging included.
    pub usage: Usage,
}

/// What a publication put where readers see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Rows added to the overlay.
    pub rows: u64,
    /// Slots recorded as absent.
    pub absent: u64,
    /// What writing took.
    pub usage: Usage,
}

/// Tables in files or objects, with the overlay of repairs beside each.
///
/// Batches come and go in one shape: key columns as UTF-8, the time column as microseconds in UTC, all others as the table has them.
/// Every method may be called again after a crash; what each writes has a name that follows from its arguments, so that to write it
/// twice is to write it once. A call that is dropped leaves nothing that readers see in part.
#[async_trait]
pub trait Lake: Send + Sync {
    /// The same lake, used on behalf of one attempt of a step, for a lake that makes a difference: that counts queries, names them so that
    /// a resumed attempt finds again what it has paid for, and ends them when the attempt is to stop. `None` if this one serves all alike.
    fn on_behalf_of(&self, caller: &Caller) -> Option<Arc<dyn Lake>> {
        let _ = caller;
        None
    }

    /// Where a table's files lie: the same words for the same place, however `location` is written. Parts are separated by `/`.
    fn place(&self, table: &Table) -> String {
        table.location.clone()
    }

    /// The columns of a table, in the shape in which batches come, after checking that the table is there and its key and time
    /// columns are usable.
    ///
    /// # Errors
    /// `not-found` if there is no such table; `invalid` if a column is missing or of an unusable type.
    async fn describe(&self, table: &Table) -> Result<SchemaRef>;

    /// What the first repair of a table will make that people may want to know of before: tables and views in a catalog, in words. Nothing if
    /// all of it is there, or if files alone are written.
    ///
    /// # Errors
    /// As [`Lake::describe`].
    async fn to_create(&self, table: &Table) -> Result<Vec<String>> {
        let _ = table;
        Ok(Vec::new())
    }

    /// Checks that the lake can be written to, without leaving anything behind.
    ///
    /// # Errors
    /// `denied` if not, naming the place.
    async fn check_writable(&self) -> Result<()>;

    /// Which slots hold a row, in the table and in its overlay. Reads the key and time columns only, and only the needed partitions.
    ///
    /// # Errors
    /// `not-found` or `invalid` if something could not be looked at; never a presence that is silently partial.
    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence>;

    /// What of a table and its overlay may hold rows of an interval (of all time, if none is given), from listings alone: no row is read.
    /// As long as the digest is the same, so is what presence and scans say of the interval, but for exceptions that expire. A change of
    /// objects that can only hold other rows leaves it as it is.
    ///
    /// # Errors
    /// `not-found` if there is no such table.
    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent>;

    /// Rows of a table, in no particular order across files.
    ///
    /// # Errors
    /// `not-found` if there is no such table.
    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream>;

    /// Rows of a table summed up by key and bucket of time, over the repaired view. A lake with a query engine of its own may compute
    /// them there; the rows must be the same.
    ///
    /// # Errors
    /// As [`Lake::scan`].
    async fn rollup(&self, table: &Table, request: &rollup::Rollup) -> Result<(Vec<RecordBatch>, Usage)> {
        let schema = self.describe(table).await?;
        let scan = self.scan(table, &request.scan()).await?;
        rollup::compute(table, &schema, request, scan).await
    }

    /// Keeps what came of a unit in the run's own area, as one object, atomically.
    ///
    /// # Errors
    /// `invalid` if the rows do not fit the table.
    async fn stage(&self, scope: &StageScope<'_>, request: &StageRequest<'_>) -> Result<Staged>;

    /// The units that are staged in a scope, each as [`Lake::stage`] returned it.
    ///
    /// # Errors
    /// If the area cannot be read.
    async fn staged(&self, scope: &StageScope<'_>) -> Result<Vec<Staged>>;

    /// Puts staged units where readers see them: at most one object for each partition and batch, each atomically. To publish the
    /// same batch again changes nothing.
    ///
    /// # Errors
    /// `not-found` if a unit is not staged.
    async fn publish(&self, scope: &StageScope<'_>, batch: u32, units: &[String]) -> Result<Published>;

    /// Removes the staged objects of some units, once they are published and journaled. One that is not there is no error.
    ///
    /// # Errors
    /// If the area cannot be written.
    async fn discard_staged(&self, scope: &StageScope<'_>, units: &[String]) -> Result<()>;

    /// Writes a table that we own: every partition that `interval` touches then holds `rows` and nothing else. Each partition is
    /// replaced atomically; a table without partitions is replaced as a whole.
    ///
    /// # Errors
    /// `invalid` if rows lie outside the interval; `conflict` if the table holds what we did not write: that is never replaced.
    async fn replace(&self, table: &Table, interval: &Interval, rows: Vec<RecordBatch>) -> Result<Usage>;

    /// Takes back what runs have added to a table, or undoes that: one object, seen whole or not at all, under the retraction's id. To write
    /// it again changes nothing. From then on the repaired view and presence leave out what it hides; nothing else changes.
    ///
    /// # Errors
    /// `invalid` if it does not fit the table, or if this lake cannot retract.
    async fn retract(&self, table: &Table, retraction: &Retraction) -> Result<()> {
        let _ = retraction;
        let message = format!("this kind of lake cannot take back repairs of table `{}` yet; nothing was changed", table.name);
        Err(crate::error::Error::invalid(message))
    }

    /// The retractions of a table, undone ones and those that undo them included, oldest first.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>> {
        let _ = table;
        Ok(Vec::new())
    }

    /// Keeps something too big for the journal, under a name within the run: all of it or nothing, in place of what had the name. It is
    /// written as it comes, so it need not fit in memory. Its columns are those of the first batch. An error of the stream leaves what was
    /// there.
    ///
    /// # Errors
    /// If it cannot be written, and those of the stream.
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage>;

    /// Reads an artifact back, rows in the order in which they came, in batches of any size.
    ///
    /// # Errors
    /// `not-found` if there is none of that name.
    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream>;

    /// Runs a user's SQL over the tables given, in the lake's own dialect. Each table is there under its name, and its repaired view
    /// under its name with `_repaired`.
    ///
    /// # Errors
    /// `invalid` with the engine's words if the SQL is wrong.
    async fn query(&self, tables: &[Table], sql: &str) -> Result<BatchStream>;
}
