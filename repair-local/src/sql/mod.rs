//! Users' SQL. With the feature `sql`, DataFusion runs it over the lake's own scans, so it sees the same as every reader: tables in the
//! shape of batches, and repaired views. It only reads.
//!
//! A query may need any amount of time, memory and stack, and a thread cannot be stopped. So a program that calls [`serve_sql`] runs each
//! query in a process of its own ([`worker`]); elsewhere it runs within the program. How deep expressions are nested is limited in both.

#[cfg(feature = "sql")]
mod datafusion;
#[cfg(feature = "sql")]
mod depth;
#[cfg(feature = "sql")]
mod worker;

#[cfg(feature = "sql")]
use std::collections::BTreeMap;
use std::sync::Arc;

use repair_core::Result;
#[cfg(feature = "sql")]
use repair_core::lake::query::{Relation, Seen};
use repair_core::lake::{BatchStream, Query};
#[cfg(feature = "sql")]
use repair_core::model::Table;
#[cfg(not(feature = "sql"))]
use repair_core::{Error, Hint};

use crate::lake::Inner;

#[cfg(not(feature = "sql"))]
pub(crate) async fn query(_: &Arc<Inner>, _: &Query<'_>) -> Result<BatchStream> {
    Err(Error::invalid("this program was built without SQL over lakes in a folder").hint(Hint::Feature { name: "sql" }))
}

#[cfg(feature = "sql")]
pub(crate) async fn query(lake: &Arc<Inner>, query: &Query<'_>) -> Result<BatchStream> {
    let text = query.text(datafusion::literal, datafusion::name)?;
    let relations = query.named_relations().into_iter().map(|(name, relation)| (name.to_owned(), relation.clone())).collect();
    let asked = Asked { tables: query.tables.to_vec(), sql: text, relations, seen: query.seen.clone() };
    if worker::is_served() { worker::query(&lake.root, asked).await } else { datafusion::query(lake, &asked).await }
}

/// A query with its values in the text.
#[cfg(feature = "sql")]
struct Asked {
    tables: Vec<Table>,
    sql: String,
    relations: Vec<(String, Relation)>,
    /// What it sees of tables instead of what the lake has.
    seen: BTreeMap<String, Seen>,
}

/// A column that a query names and none of its tables has.
#[cfg(feature = "sql")]
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
#[cfg(feature = "sql")]
pub async fn unknown_column(tables: &[(String, arrow::datatypes::SchemaRef)], query: &Query<'_>) -> Result<Option<UnknownColumn>> {
    let text = query.text(datafusion::plain_literal, datafusion::name)?.to_lowercase();
    let checked = text.clone();
    crate::files::blocking(move || depth::check(&checked)).await?;
    let relations = query.named_relations().into_iter().map(|(name, relation)| (datafusion::shown_name(name), relation.schema.clone()));
    let all: Vec<_> = tables.iter().cloned().chain(relations).collect();
    datafusion::unknown_column(&all, &text).await
}

/// Call this first in `main`, before there are threads. From then on, each query of users' SQL over a lake in a folder runs in a process of
/// its own, with limits on its memory and stack, and is ended the moment its step is. That process is this program, started again: in it,
/// this function runs the query, and does not return.
///
/// Without this call, and without the feature `sql`, nothing changes: queries run within the program, which they can make slow or exhaust.
pub fn serve_sql() {
    #[cfg(feature = "sql")]
    worker::serve();
}
