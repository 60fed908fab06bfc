//! The statements that Athena runs: what they mean to the catalog, and queries on DataFusion over the objects of the store.
//!
//! This module must not know Athena's protocol: it takes a text and gives rows.

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
pub use scanned::Scanned;
pub(crate) use types::athena_name;
