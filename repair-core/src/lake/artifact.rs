//! Artifacts: what a run keeps that is too big for its journal.

use async_trait::async_trait;

use super::BatchStream;
use crate::error::Result;
use crate::model::Usage;

/// The name of an artifact, and the run that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactName<'a> {
    /// The run.
    pub run: &'a str,
    /// The name within the run.
    pub name: &'a str,
}

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

    /// Keeps an artifact of one run as that of another, in place of what had the name there. Either may be removed without the other. A lake
    /// need not read it, so what is wrong with it shows when it is read.
    ///
    /// # Errors
    /// `not-found` if there is none of the name; as [`Artifacts::put_artifact`].
    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage>;
}
