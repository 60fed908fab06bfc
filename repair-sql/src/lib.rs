//! Users' SQL over lakes in a folder. DataFusion runs it over the lake's own scans, so it sees the same as every reader: tables in the shape of batches, and
//! repaired views. It only reads.
//!
//! A query may need any amount of time, memory and stack, and a thread cannot be stopped. So a program that calls [`serve`] runs each query in a process of
//! its own; elsewhere it runs within the program. How deep expressions are nested is limited in both.
//!
//! ```
//! use std::sync::Arc;
//!
//! use futures::TryStreamExt;
//! use repair_core::lake::{Query, ReadLake};
//! use repair_local::LocalLake;
//! use repair_sql::DataFusion;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> repair_core::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let root = folder.path();
//! let lake = LocalLake::open(root)?.with_query_engine(Arc::new(DataFusion));
//! let rows: Vec<_> = lake.query(&Query::new(&[], "SELECT 6 * 7 AS answer")).await?.try_collect().await?;
//! assert_eq!(rows[0].num_rows(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! This crate must not know what a workflow is.

mod depth;
mod engine;
mod worker;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use repair_core::Result;
use repair_core::lake::query::{Relation, Seen};
use repair_core::lake::{BatchStream, Query};
use repair_core::model::Table;
use repair_local::{LocalLake, QueryEngine, threads};

/// DataFusion, as the engine of a lake: see [`LocalLake::with_query_engine`].
#[derive(Debug, Clone, Copy, Default)]
pub struct DataFusion;

#[async_trait]
impl QueryEngine for DataFusion {
    async fn query(&self, lake: &LocalLake, query: &Query<'_>) -> Result<BatchStream> {
        let text = query.text(engine::literal, engine::name)?;
        let relations = query.named_relations().into_iter().map(|(name, relation)| (name.to_owned(), relation.clone())).collect();
        let asked = Asked { tables: query.tables.to_vec(), sql: text, relations, seen: query.seen.clone() };
        if worker::is_served() { worker::query(lake, asked).await } else { engine::query(lake, &asked).await }
    }
}

/// A query with its values in the text.
struct Asked {
    tables: Vec<Table>,
    sql: String,
    relations: Vec<(String, Relation)>,
    /// What it sees of tables instead of what the lake has.
    seen: BTreeMap<String, Seen>,
}

/// A column that a query names and none of its tables has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownColumn {
    /// The column, in lower case.
    pub column: String,
    /// The columns that it could have meant, in lower case, in order of name.
    pub columns: Vec<String>,
}

/// Looks for a column that a query names and none of its tables has; each table has a name and columns. Nothing is read. Case does not matter
/// in names. A query that names other tables, or is wrong in another way, may be right about its columns. Of the query, the values and relations count,
/// and its tables do not.
///
/// # Errors
/// `invalid` if expressions are nested too deeply, or if the query names a value or a relation that it is not given.
pub async fn unknown_column(tables: &[(String, SchemaRef)], query: &Query<'_>) -> Result<Option<UnknownColumn>> {
    let (all, text) = in_lower_case(tables, query).await?;
    engine::unknown_column(&all, &text).await
}

/// The columns that a query selects, with their names in lower case; `None` if it cannot be planned over these tables. As in [`unknown_column`], nothing is
/// read.
///
/// # Errors
/// As [`unknown_column`].
pub async fn selected_columns(tables: &[(String, SchemaRef)], query: &Query<'_>) -> Result<Option<SchemaRef>> {
    let (all, text) = in_lower_case(tables, query).await?;
    engine::selected_columns(&all, &text).await
}

/// The tables and relations that a query may name, and its text in lower case.
async fn in_lower_case(tables: &[(String, SchemaRef)], query: &Query<'_>) -> Result<(Vec<(String, SchemaRef)>, String)> {
    let text = query.text(engine::plain_literal, engine::name)?.to_lowercase();
    let checked = text.clone();
    threads::blocking(move || depth::check(&checked)).await?;
    let relations = query.named_relations().into_iter().map(|(name, relation)| (engine::shown_name(name), relation.schema.clone()));
    Ok((tables.iter().cloned().chain(relations).collect(), text))
}

/// Call this first in `main`, before there are threads. From then on, each query of users' SQL over a lake in a folder runs in a process of
/// its own, with limits on its memory and stack, and is ended the moment its step is. That process is this program, started again: in it,
/// this function runs the query, and does not return.
///
/// Without this call, nothing changes: queries run within the program, which they can make slow or exhaust.
pub fn serve() {
    worker::serve();
}
