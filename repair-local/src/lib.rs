//! The built-in default: a lake of files in a folder, and a journal in SQLite. There is nothing to install and no server to run.
//!
//! [`LocalLake`] keeps the promises of [`repair_core::lake::Lake`] on Parquet, CSV and JSON lines. The user's files are only read; new
//! files go beside them (`bars_repairs`, `bars_exceptions`, `bars_retractions`) or under `.repair`, each written whole or not at all.
//! [`SqliteJournal`] keeps the promises of [`repair_core::engine::Journal`] in one file.
//!
//! ```
//! use repair_core::lake::Lake;
//! use repair_local::{LocalLake, SqliteJournal};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> repair_core::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let root = folder.path();
//! let lake = LocalLake::open(root)?;
//! lake.check_writable().await?;
//! let journal = SqliteJournal::open(root.join("runs.db"))?;
//! # drop(journal);
//! # Ok(())
//! # }
//! ```
//!
//! This crate must not know what a gap is, what to do about it, or when. Others decide what it reads and writes.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod artifact;
mod compact;
mod disk;
mod extent;
mod files;
mod held;
mod journal;
mod kept;
mod lake;
mod overlay;
mod owner;
mod place;
mod presence;
mod publish;
pub mod query;
mod read;
mod replace;
mod retract;
mod rollup;
mod row_count;
pub mod sample;
mod scan;
mod stage;
mod stamp;
mod state;
pub mod threads;
mod view;
mod write;

pub use disk::free_space;
pub use journal::SqliteJournal;
pub use lake::LocalLake;
pub use query::QueryEngine;
