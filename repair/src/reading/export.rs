//! Writes the rows of a table, repaired or its own, for other tools to read.

use std::path::{Path, PathBuf};

use arrow::array::{Array, RecordBatch};
use futures::TryStreamExt;
use serde::Serialize;

use super::encode::Encoder;
use super::output::{Destination, Output};
use super::{forbidden, table};
use crate::open::OpenLake;
use crate::provenance::subject::{self, Subject, TableName};
use crate::request::awaitable;
use crate::within::Within;
use repair_core::engine::JsonFormat;
use repair_core::lake::{Layer, ScanRequest, overlay, shape, stale};
use repair_core::model::{Format, Interval, Key};
use repair_core::plugin;
use repair_core::{Error, ErrorKind, Result};

/// What a mark of a stale aggregate begins with: other retractions hide repairs.
const STALE: &str = "stale-";

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Exported {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The table.
    pub table: String,
    /// Which of its rows: the repaired view, or its own. A table that an aggregate step made has only its own.
    pub layer: Layer,
    /// The format of the rows.
    pub rows_as: Format,
    /// The file; `None` if the rows went elsewhere.
    pub path: Option<PathBuf>,
    /// How many rows.
    pub rows: u64,
    /// How many of them are repairs.
    pub repaired: u64,
    /// How many of them are the table's own, with repaired cells.
    pub patched: u64,
    /// The size of the file.
    pub bytes: Option<u64>,
    /// The stretches of an aggregate that are stale, because rows it was computed from have been undone.
    pub stale: Vec<Interval>,
    /// Columns of the table that are not in the rows, because its files disagree about them, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// How many rows of the table are not among the rows since they cannot be read, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// Writes the rows of a table: await it. [`OpenLake::export`] makes it.
#[must_use = "nothing is written before this is awaited"]
pub struct ExportRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
    layer: Layer,
    keys: Vec<String>,
    within: Within,
    format: Format,
    to: Destination,
}

impl ExportRequest<'_> {
    /// Chooses the table's own rows, or the repaired view. Without this it is the repaired view.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layer = layer;
        self
    }

    /// Writes only these series. The values of a key of several columns are separated by commas.
    pub fn keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.keys.extend(keys.into_iter().map(Into::into));
        self
    }

    /// Writes only rows of slots in this part of time.
    pub fn interval(mut self, within: impl Into<Within>) -> Self {
        self.within = within.into();
        self
    }

    /// Takes the table from this workflow instead of the latest run that had it.
    pub fn declared_in<'b>(mut self, workflow: impl Into<Option<&'b Path>>) -> Self {
        self.table.declared_in(workflow.into());
        self
    }

    async fn perform(self) -> Result<Exported> {
        let Self { open, table, layer, keys, within, format, to } = self;
        let found = table::find(&table, open).await?;
        let Subject { table, lake, .. } = &found.subject;
        let interval = within.of(table)?;
        let layer = if found.is_computed { Layer::Raw } else { layer };
        let mut wanted: Vec<Key> = Vec::with_capacity(keys.len());
        for text in &keys {
            let key = subject::key(table, Some(text))?;
            found.subject.check_key(&key).await?;
            wanted.push(key);
        }
        if let Some(path) = to.path() {
            forbidden::check(open, lake.as_ref(), path, std::slice::from_ref(table), None).await?;
        }
        let path = to.path().map(Path::to_owned);
        let mut output = Output::open(to)?;
        let mut encoder = Encoder::new(format, output.writer(), output.name())?;
        let request = ScanRequest::new(layer).in_interval(interval).of_keys((!keys.is_empty()).then_some(wanted));
        let stop = &open.around.stop;
        let stopped = || Error::new(ErrorKind::Cancelled, "stopped before all rows were written, so none are");
        let mut rows = stop.run_until_cancelled(lake.scan(table, &request)).await.ok_or_else(stopped)??;
        let mut counts = Counts::default();
        let own = lake.describe(table).await?;
        let left_out = shape::left_out(&own).iter().map(shape::LeftOut::why).collect();
        while let Some(batch) = stop.run_until_cancelled(rows.try_next()).await.ok_or_else(stopped)?? {
            counts.add(&batch);
            encoder.write(&batch)?;
        }
        let looked = stop.run_until_cancelled(plugin::left_out(lake.as_ref(), table)).await.ok_or_else(stopped)?;
        let unread = looked?.0.said(&format!("table `{}`", table.name));
        if !encoder.has_begun() {
            encoder.begin(&if layer == Layer::Repaired { overlay::view_schema(&own) } else { own.clone() })?;
        }
        encoder.finish()?;
        let bytes = output.finish()?;
        let marks = stale::stale(lake.as_ref(), table).await?;
        let mut stale: Vec<Interval> = marks.into_iter().filter(|(_, mark)| mark.id.starts_with(STALE)).map(|(part, _)| part).collect();
        stale.sort_unstable();
        stale.dedup();
        Ok(Exported {
            format: JsonFormat,
            table: table.name.clone(),
            layer,
            rows_as: format,
            path,
            rows: counts.rows,
            repaired: counts.repaired,
            patched: counts.patched,
            bytes,
            stale,
            left_out,
            unread,
        })
    }
}

awaitable!(ExportRequest => Exported);

/// What passed.
#[derive(Default)]
struct Counts {
    rows: u64,
    repaired: u64,
    patched: u64,
}

impl Counts {
    fn add(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        let [by, cells] = [overlay::REPAIRED_BY, overlay::REPAIRED_CELLS].map(|name| batch.column_by_name(name));
        let Some(by) = by else { return };
        let repaired = by.len() - by.null_count();
        self.repaired += repaired as u64;
        if let Some(cells) = cells {
            self.patched += (0..cells.len()).filter(|&row| by.is_null(row) && cells.is_valid(row)).count() as u64;
        }
    }
}

impl OpenLake {
    /// Writes the rows of a table's repaired view for other tools: a table that a workflow declares, or one that an aggregate step made.
    /// The rows come in no particular order. A file is there whole or not at all, and is never written to a place of the lake's own.
    ///
    /// # Errors
    /// `not-found` if there is no such table or folder; `conflict` if the file is there and may not be replaced; `invalid` if it would lie
    /// in a table or an overlay, or the format cannot hold a column; those of the lake.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// use repair::core::model::Format;
    /// use repair::reading::Destination;
    ///
    /// let exported = lake.export("bars", Format::Parquet, Destination::file("bars.parquet")).keys(["IBM"]).await?;
    /// println!("{} rows, {} of them repaired", exported.rows, exported.repaired);
    /// # Ok(())
    /// # }
    /// ```
    pub fn export(&self, table: impl Into<String>, format: Format, to: Destination) -> ExportRequest<'_> {
        ExportRequest {
            open: self,
            table: TableName::new(table.into()),
            layer: Layer::Repaired,
            keys: Vec::new(),
            within: Within::default(),
            format,
            to,
        }
    }
}
