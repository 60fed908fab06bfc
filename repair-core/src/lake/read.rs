//! Reading a lake: where tables lie, their columns, which slots hold rows, and the rows themselves.

use std::pin::Pin;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::extent::Extent;
use super::overlay::retraction::Retraction;
use super::query::Query;
use super::rollup::Rollup;
use super::row_count::{RowCountRequest, RowCounts};
use crate::error::{Error, Result};
use crate::model::{Interval, Key, SlotRange, Table, TablePresence, Usage};

/// A stream of batches of rows.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// A stream of presences, one for each piece of time.
pub type PresenceStream<'a> = Pin<Box<dyn Stream<Item = Result<TablePresence>> + Send + 'a>>;

/// Asks which slots of a table hold a row.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PresenceRequest {
    /// The slots to look at.
    pub slots: SlotRange,
    /// The keys to look for; rows of other keys are only counted.
    pub keys: Vec<Key>,
    /// Exceptions that have expired by this time do not count.
    pub as_of: Timestamp,
}

impl PresenceRequest {
    /// Asks for these slots and keys.
    pub fn new(slots: SlotRange, keys: Vec<Key>, as_of: Timestamp) -> Self {
        Self { slots, keys, as_of }
    }
}

/// Which rows of a table to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The table's own rows, untouched.
    Raw,
    /// The repaired view: raw rows except those of replaced slots, plus live repairs of slots that raw lacks. If a slot has several
    /// repairs, the latest counts. The view has one more column than the table, [`overlay::REPAIRED_BY`](super::overlay::REPAIRED_BY).
    Repaired,
}

/// Asks for rows of a table.
///
/// ```
/// use repair_core::lake::{Layer, ScanRequest};
/// use repair_core::model::{Interval, Key};
///
/// let march = Interval::parse("2024-03-01", "2024-03-31")?;
/// let request = ScanRequest::new(Layer::Raw).in_interval(march).of_keys(vec![Key::from("IBM")]);
/// assert_eq!((request.keys.map(|keys| keys.len()), request.columns), (Some(1), None));
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScanRequest {
    /// Raw rows, or the repaired view.
    pub layer: Layer,
    /// Only rows of slots that begin within this interval; `None` for all.
    pub interval: Option<Interval>,
    /// Only rows of these keys; `None` for all.
    pub keys: Option<Vec<Key>>,
    /// Only these columns, and always key and time; `None` for all.
    pub columns: Option<Vec<String>>,
    /// Of raw rows, whether one more column comes last, [`FILE`]. A lake whose rows have no files in an order refuses this.
    pub files: bool,
}

/// The column with the number of a row's file: the larger, the later the file, in the order of the names of folders and files. Numbers of
/// different scans cannot be compared.
pub const FILE: &str = "repair_file_number";

impl ScanRequest {
    /// Asks for all rows and columns of a layer.
    pub fn new(layer: Layer) -> Self {
        Self { layer, interval: None, keys: None, columns: None, files: false }
    }

    /// Only rows of slots that begin within this interval; `None` for all.
    #[must_use]
    pub fn in_interval(mut self, interval: impl Into<Option<Interval>>) -> Self {
        self.interval = interval.into();
        self
    }

    /// Only rows of these keys; `None` for all.
    #[must_use]
    pub fn of_keys(mut self, keys: impl Into<Option<Vec<Key>>>) -> Self {
        self.keys = keys.into();
        self
    }

    /// Only these columns, and always key and time; `None` for all.
    #[must_use]
    pub fn with_columns(mut self, columns: impl Into<Option<Vec<String>>>) -> Self {
        self.columns = columns.into();
        self
    }

    /// The error of a lake whose rows have no files in an order, if these are asked for.
    ///
    /// # Errors
    /// `invalid` if they are.
    pub fn refuse_files(&self, table: &Table, lake: &str) -> Result<()> {
        if !self.files {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the order of the files of table `{}` is asked for, and rows have no such order on {lake}; decide by a column of the table, e.g. \
             `latest_by`",
            table.name
        )))
    }
}

/// The part of a [`Lake`](super::Lake) that reads.
///
/// No method changes anything that a reader can see, so each may be called any number of times, at any time. A call that is dropped stops;
/// if the lake runs queries elsewhere, it ends them. A stream that is dropped stops in the same way.
///
/// A reader sees each object of the overlay whole or not at all. It makes no other promise about writes during a call: a scan may see one
/// of two batches that were published while it ran.
#[async_trait]
pub trait ReadLake: Send + Sync {
    /// The place where a table's files lie, with parts separated by `/`. Two tables have the same place exactly if their files are the
    /// same, however `location` is written.
    fn place(&self, table: &Table) -> String;

    /// Whether an engine answers reads by queries, which are counted and charged. A lake that opens files itself answers `false`.
    fn is_queried(&self) -> bool;

    /// The table in which the repairs of a table lie, with the overlay's columns beside the table's own. It may not exist yet.
    ///
    /// # Errors
    /// `conflict` if what lies there belongs to another table: see [`overlay::owner`](super::overlay::owner). So do all methods that read an
    /// overlay, and those of [`Overlay`](super::Overlay) that add to one.
    async fn repairs_of(&self, table: &Table) -> Result<Table>;

    /// The columns of a table, in the shape in which batches come. Checks that the table exists and that its key and time columns are
    /// usable. Another column about which the table's files disagree is not among them; [`shape::left_out`](super::shape::left_out) lists
    /// such columns of the answer.
    ///
    /// # Errors
    /// `not-found` if there is no such table; `invalid` if a column is missing or of an unusable type.
    async fn describe(&self, table: &Table) -> Result<SchemaRef>;

    /// Which slots hold a row, in the table and in its overlay. Reads only the key and time columns, and only the partitions it needs.
    ///
    /// # Errors
    /// `not-found` or `invalid` if part of the table could not be read: a presence is never silently partial.
    async fn presence(&self, table: &Table, request: &PresenceRequest) -> Result<TablePresence>;

    /// As [`ReadLake::presence`], one piece of time after the other, so that only a piece or two need be in memory. Together the pieces are the
    /// slots of the request, in order, and words are not cut: each piece but the first begins where a word does.
    ///
    /// There is a presence for each piece. What it says of slots is that of the piece. All other counts, and the usage, add up over the pieces
    /// to those of the whole, and each is in any of them; of a file with stray or unreadable rows, the largest count is meant. Of `repaired`,
    /// `overtaken`, `absent` and `removed`, keys of which there is nothing may be left out.
    ///
    /// A lake of files reads each file once, however many pieces it concerns. See [`pieces`](super::pieces) for other lakes.
    ///
    /// Errors are those of [`ReadLake::presence`]; after one, there is no further piece.
    fn presence_in_pieces<'a>(&'a self, table: &'a Table, request: &'a PresenceRequest, pieces: &'a [SlotRange]) -> PresenceStream<'a>;

    /// The objects of a table and its overlay that may hold rows of an interval (of all time, if none is given), found from listings alone:
    /// no row is read.
    ///
    /// While the digest stays the same, presence and scans of the interval give the same result, except for exceptions that expire. Changes
    /// to objects that can only hold other rows do not change the digest.
    ///
    /// # Errors
    /// `not-found` if there is no such table.
    async fn extent(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent>;

    /// As [`ReadLake::extent`] for each of these intervals, from listings of all of them together: a folder is listed once, however many of the
    /// intervals it concerns.
    ///
    /// # Errors
    /// As [`ReadLake::extent`].
    async fn extents(&self, table: &Table, intervals: &[Interval]) -> Result<Vec<Extent>>;

    /// Rows of a table, in no particular order.
    ///
    /// # Errors
    /// `not-found` if there is no such table; `invalid` if the files of rows are asked for, and rows have none.
    async fn scan(&self, table: &Table, request: &ScanRequest) -> Result<BatchStream>;

    /// Rows of the repaired view, summed up by key and bucket of time, and with them, if that is asked for, what is confirmed absent. A lake may
    /// compute them in its own engine, or as it decodes its files; the result must be that of [`rollup::by_scan`](super::rollup::by_scan), to the
    /// last bit and in any order, and a slot never counts both by its row and as absent, whatever arrives meanwhile.
    ///
    /// # Errors
    /// As [`ReadLake::scan`].
    async fn rollup(&self, table: &Table, request: &Rollup) -> Result<(Vec<RecordBatch>, Usage)>;

    /// How many rows of its own a table without a cadence has in each stretch of time. A lake with a query engine may count them there; the
    /// result must be that of [`row_count::by_scan`](super::row_count::by_scan), which a lake without one may call.
    ///
    /// # Errors
    /// As [`ReadLake::scan`]; `invalid` if the table has a cadence, because the rows of a series are counted by slot.
    async fn row_counts(&self, table: &Table, request: &RowCountRequest) -> Result<RowCounts>;

    /// The retractions of a table, oldest first. They include undone retractions and those that undo them.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn retractions(&self, table: &Table) -> Result<Vec<Retraction>>;

    /// Whether a user's SQL can be run with rows of a table hidden from it ([`Query::seen`]), by whatever name it could call them. A lake whose engine
    /// also knows names that are not the query's, such as those of other views, answers `false`.
    fn hides_rows(&self) -> bool;

    /// Runs a user's SQL, in the lake's own dialect. It sees the tables, values and relations of the query and nothing else, and only reads.
    ///
    /// # Errors
    /// `invalid` with the engine's message if the SQL is wrong, or if the lake runs no SQL, or hides no rows and is to.
    async fn query(&self, query: &Query<'_>) -> Result<BatchStream>;
}
