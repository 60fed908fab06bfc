//! Athena's statements: what they do to the catalog, and queries on DataFusion over the objects of the store.
//!
//! This module must not know Athena's protocol: it takes a text and returns rows.
//!
//! What DataFusion accepts and Trino refuses is refused here too, as far as it is known: text compared with numbers or times, a bigint as
//! the width of a shift. Known differences that remain:
//! - A whole-number literal is a `bigint` here; in Trino it is an `integer` if it fits.
//! - `GROUP BY` accepts a name from the `SELECT`, and functions accept arguments for which Trino would require a cast.
//! - `approx_distinct` and `approx_percentile` are exact.
//! - The parts of an instant with a zone are computed in UTC, and `from_iso8601_timestamp` returns UTC.
//! - In a statement that names the hidden column `"$path"`, a `*` over a table shows that column, too.
//! - `UNNEST` of a column, lambdas, `INSERT`, `UNLOAD` and `CREATE TABLE AS` are not supported.

mod check;
mod ddl;
mod define;
mod dialect;
mod engine;
mod error;
mod functions;
mod partitions;
mod pushdown;
mod read;
mod scanned;
mod table;
mod text;
mod trino;
mod types;
mod view;

pub use engine::{Answer, Engine, Kind, ResultColumn, Statement};
pub use error::{Category, QueryError};
pub(crate) use partitions::bucket_and_prefix;
pub use scanned::Scanned;
pub(crate) use types::{athena_name, hive_name};
