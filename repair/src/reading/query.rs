//! SQL over the tables of a workflow and their repaired views, in the lake's own dialect. It only reads.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use serde::Serialize;

use super::encode::{Encoder, formatters, in_utc};
use super::forbidden;
use super::output::{Destination, Output};
use crate::open::Repair;
use repair_core::engine::{JsonFormat, new_run_id};
use repair_core::lake::{BatchStream, Caller, ReadLake, on_behalf_of};
use repair_core::model::{Format, Table};
use repair_core::plugin;
use repair_core::price::Meter;
use repair_core::{Error, ErrorKind, Result};

/// A query: [`QueryRequest::write`] or [`QueryRequest::first`] runs it. [`Repair::query`] makes it.
#[must_use = "nothing is asked before this is written or shown"]
pub struct QueryRequest<'a> {
    repair: &'a Repair,
    sql: String,
}

/// What a query gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Queried {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The format of the rows.
    pub rows_as: Format,
    /// The file; `None` if the rows went elsewhere.
    pub path: Option<PathBuf>,
    /// How many rows.
    pub rows: u64,
    /// The size of the file.
    pub bytes: Option<u64>,
    /// What the query engine charges for, if it counts that.
    pub bytes_scanned: Option<u64>,
    /// The rows that the query does not see since they cannot be read, in a sentence for each table that it names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// The first rows of an answer, as text.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rows {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The names of the columns; none if there is no row.
    pub columns: Vec<String>,
    /// The rows; `None` for null.
    pub rows: Vec<Vec<Option<String>>>,
    /// Whether there are more.
    pub has_more: bool,
    /// What the query engine charges for, if it counts that.
    pub bytes_scanned: Option<u64>,
    /// The rows that the query does not see since they cannot be read, in a sentence for each table that it names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// An answer that is being read.
struct Answer {
    rows: BatchStream,
    unread: Vec<String>,
    meter: Meter,
}

impl Answer {
    fn bytes_scanned(&self) -> Option<u64> {
        let queries = self.meter.take().queries;
        (!queries.is_empty()).then(|| queries.iter().map(|query| query.bytes_scanned).sum())
    }
}

impl QueryRequest<'_> {
    /// Writes all rows. A file is there whole or not at all.
    ///
    /// # Errors
    /// `invalid` with the engine's message if the SQL is wrong, if the lake runs no SQL, or if the format cannot hold a column; as
    /// [`OpenLake::export`](crate::OpenLake::export) for a file.
    pub async fn write(self, format: Format, to: Destination) -> Result<Queried> {
        let Repair { workflow, opened, .. } = self.repair;
        if let Some(path) = to.path() {
            forbidden::check(self.repair, opened.as_ref(), path, &[], Some(workflow)).await?;
        }
        let path = to.path().map(ToOwned::to_owned);
        let mut output = Output::open(to)?;
        let mut encoder = Encoder::new(format, output.writer(), output.name())?;
        let mut answer = self.ask().await?;
        let mut rows = 0;
        while let Some(batch) = self.next(&mut answer).await? {
            rows += batch.num_rows() as u64;
            encoder.write(&batch)?;
        }
        encoder.finish()?;
        let bytes = output.finish()?;
        Ok(Queried { format: JsonFormat, rows_as: format, path, rows, bytes, bytes_scanned: answer.bytes_scanned(), unread: answer.unread })
    }

    /// Runs the query until this many rows have come, and returns them as text, for people.
    ///
    /// # Errors
    /// As [`QueryRequest::write`].
    pub async fn first(self, most: usize) -> Result<Rows> {
        let mut answer = self.ask().await?;
        let mut shown = Rows {
            format: JsonFormat,
            columns: Vec::new(),
            rows: Vec::new(),
            has_more: false,
            bytes_scanned: None,
            unread: std::mem::take(&mut answer.unread),
        };
        while let Some(batch) = self.next(&mut answer).await? {
            if shown.columns.is_empty() {
                shown.columns = batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
            }
            let columns = in_utc(&batch)?;
            let cells = formatters(&columns)?;
            for row in 0..batch.num_rows() {
                if shown.rows.len() == most {
                    shown.has_more = true;
                    break;
                }
                let mut texts = Vec::with_capacity(cells.len());
                for (formatter, nulls) in &cells {
                    let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                    texts.push(if is_null { None } else { Some(formatter.value(row).try_to_string()?) });
                }
                shown.rows.push(texts);
            }
            if shown.has_more {
                break;
            }
        }
        shown.bytes_scanned = answer.bytes_scanned();
        Ok(shown)
    }

    async fn ask(&self) -> Result<Answer> {
        let Repair { workflow, opened, .. } = self.repair;
        let meter = Meter::default();
        let stop = &self.repair.around().stop;
        // A name of its own, so that no lake takes it for a query that was asked before.
        let caller = Caller::new(format!("query-{}", new_run_id()), "query", 1, 1)
            .with_tags(Arc::new(workflow.tags.clone()))
            .with_meter(meter.clone())
            .with_cancel(stop.clone());
        let lake = on_behalf_of(opened, &caller);
        let text = self.sql.to_lowercase();
        let (mut tables, mut not_there): (Vec<Table>, Vec<&str>) = Default::default();
        for table in workflow.tables.values().filter(|table| text.contains(&table.name.to_lowercase())) {
            match lake.describe(table).await {
                Ok(_) => tables.push(table.clone()),
                Err(error) if error.kind() == ErrorKind::NotFound => not_there.push(&table.name),
                Err(error) => return Err(error.on("table", &table.name)),
            }
        }
        let unread = stop.run_until_cancelled(unread(lake.as_ref(), &tables, &self.sql)).await.ok_or_else(stopped)??;
        let asked = stop.run_until_cancelled(lake.query(&repair_core::lake::Query::new(&tables, &self.sql))).await.ok_or_else(stopped)?;
        let rows = asked.map_err(|error| match not_there.as_slice() {
            [] => error,
            names => error.on("tables that do not exist yet", names.join(", ")),
        })?;
        Ok(Answer { rows, unread, meter })
    }

    async fn next(&self, answer: &mut Answer) -> Result<Option<RecordBatch>> {
        self.repair.around().stop.run_until_cancelled(answer.rows.try_next()).await.ok_or_else(stopped)?
    }
}

/// The rows that a query does not see since they cannot be read.
async fn unread(lake: &dyn ReadLake, tables: &[Table], sql: &str) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for table in tables.iter().filter(|table| plugin::is_named_in(sql, &table.name)) {
        let (left_out, _) = plugin::left_out(lake, table).await?;
        said.extend(left_out.said(&format!("table `{}`, which the query reads,", table.name)));
    }
    Ok(said)
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "stopped before all rows had come, so none are written")
}

impl Repair {
    /// Asks in SQL over the tables of the workflow, each by its name, and their repaired views, which have that name with `_repaired`
    /// appended. The dialect is that of the lake. It only reads.
    ///
    /// ```no_run
    /// # async fn example(repair: repair::Repair) -> repair::Result<()> {
    /// let rows = repair.query("SELECT symbol, count(*) AS n FROM bars_repaired GROUP BY symbol").first(20).await?;
    /// println!("{:?}", rows.columns);
    /// # Ok(())
    /// # }
    /// ```
    pub fn query(&self, sql: impl Into<String>) -> QueryRequest<'_> {
        QueryRequest { repair: self, sql: sql.into() }
    }
}
