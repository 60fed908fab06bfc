//! Users' SQL: the lake is given an engine that runs it, and the engine reads the lake's tables and repaired views through the same scans as every other reader.
//! The crate `repair-sql` has an engine.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use repair_core::Result;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::shape::{self, EmptyColumn};
use repair_core::lake::{BatchStream, Layer, Query};
use repair_core::model::Table;

use crate::lake::LocalLake;
use crate::place::Place;
use crate::read;
use crate::scan::{self, Scan};
use crate::threads::blocking;

/// Of more files of repairs than these, nobody looks which columns have a value.
const MOST_REPAIR_FILES: usize = 4_096;

/// Runs users' SQL over a lake in a folder.
#[async_trait]
pub trait QueryEngine: fmt::Debug + Send + Sync {
    /// The rows of a query, as [`repair_core::lake::ReadLake::query`] promises them.
    ///
    /// # Errors
    /// `invalid` if the query is not one of the tables that it is given, or does anything but read; those of reading.
    async fn query(&self, lake: &LocalLake, query: &Query<'_>) -> Result<BatchStream>;
}

/// Rows of a table or its repaired view, which can be read any number of times.
#[derive(Clone)]
pub struct TableRows(Arc<Scan>);

impl TableRows {
    /// Their columns: those that were asked for, with key and time if they were not, and those of the view.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    /// Reads them, on a thread of its own.
    #[must_use]
    pub fn stream(&self) -> BatchStream {
        scan::stream(self.0.clone())
    }
}

impl LocalLake {
    /// All columns of a table or its repaired view, without those about which its files disagree.
    ///
    /// # Errors
    /// `not-found` without files; `invalid` if they are not those of the table.
    pub async fn columns_of(&self, table: &Table, layer: Layer) -> Result<SchemaRef> {
        let (lake, table) = (self.inner().clone(), table.clone());
        blocking(move || Ok(Scan::within(&lake, &table, layer, TimeBounds::ALL, None, None)?.schema)).await
    }

    /// The columns of a table or its repaired view that have no value, and whose types are not declared. Those of a view have none in a repair, either: what
    /// is not known of repairs counts as a value.
    ///
    /// # Errors
    /// As [`columns_of`](Self::columns_of).
    pub async fn empty_columns(&self, table: &Table, layer: Layer) -> Result<Vec<EmptyColumn>> {
        let (lake, table) = (self.inner().clone(), table.clone());
        blocking(move || {
            let place = Place::of(&lake.root, &table)?;
            let Some(schema) = lake.described(&place, &table)? else { return Ok(Vec::new()) };
            let mut empty = shape::empty(&schema);
            if layer == Layer::Repaired && !empty.is_empty() {
                let files = place.repair_files()?;
                if files.len() > MOST_REPAIR_FILES {
                    return Ok(Vec::new());
                }
                for file in &files {
                    let opened = read::parquet::open(file)?;
                    empty.retain(|empty| opened.has_no_value(&empty.column));
                }
            }
            Ok(empty)
        })
        .await
    }

    /// Rows of a table or its repaired view, in files that may have rows within the bounds. Rows outside may come, too. Bounds of a view must be those of whole slots,
    /// or a row outside would not hide its repair.
    ///
    /// # Errors
    /// As [`columns_of`](Self::columns_of), and `conflict` if the overlay belongs to another table.
    pub async fn rows_of(&self, table: &Table, layer: Layer, bounds: TimeBounds, columns: Vec<String>) -> Result<TableRows> {
        let (lake, table) = (self.inner().clone(), table.clone());
        let scan = blocking(move || {
            let scan = Scan::within(&lake, &table, layer, bounds, None, Some(&columns))?;
            scan.check_owner(&lake)?;
            Ok(scan)
        });
        Ok(TableRows(Arc::new(scan.await?.metered(self.meter().cloned()))))
    }
}
