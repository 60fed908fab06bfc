//! The statements that Athena runs: what they mean to the catalog, and queries on DataFusion over the objects of the store.
//!
//! This module must not know Athena's protocol: it takes a text and gives rows.
//!
//! What DataFusion would take and Trino refuses is refused here too, where it was met: text compared with numbers or times, a bigint as
//! the width of a shift. What is known to differ still:
//! - A whole number that is written down is a `bigint` here; in Trino it is an `integer` if it fits.
//! - `GROUP BY` takes a name that the `SELECT` gives, and functions take arguments that Trino would want cast.
//! - `approx_distinct` and `approx_percentile` are exact.
//! - Instants with a zone are taken apart in UTC, and `from_iso8601_timestamp` gives them in UTC.
//! - `UNNEST` of a column, lambdas, `INSERT`, `UNLOAD` and `CREATE TABLE AS` are not there.

mod check;
mod ddl;
mod define;
mod dialect;
mod engine;
mod error;
mod functions;
mod partitions;
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
