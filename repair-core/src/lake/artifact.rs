//! Artifacts: what a run keeps that is too big for its journal.

use async_trait::async_trait;

use super::BatchStream;
use crate::error::Result;
use crate::model::Usage;

/// The part of a [`Lake`](super::Lake) that keeps artifacts.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Keeps rows under a name within a run, in place of what had the name. The write is atomic: a reader sees the old artifact or the
    /// new one. To put the same rows again changes nothing. If the call is dropped or the stream fails, the old artifact stays.
    ///
    /// Rows are written as they come, so they need not fit in memory. All batches must have the columns of the first.
    ///
    /// # Errors
    /// If it cannot be written, and those of the stream.
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage>;

    /// Reads an artifact back: rows in the order in which they came, in batches of any size. It may be called any number of times.
    ///
    /// # Errors
    /// `not-found` if there is none of that name.
    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream>;
}
