//! The append-only history of runs: what an adapter implements so that runs are durable.

use async_trait::async_trait;
use jiff::Timestamp;

use super::event::{Event, Recorded};
use crate::error::Result;

/// The first and last event of a run, for listings.
#[derive(Debug, Clone, PartialEq)]
pub struct RunHead {
    /// The run's id.
    pub run: String,
    /// Its first event.
    pub first: Recorded,
    /// Its last event.
    pub last: Recorded,
}

/// The append-only history of runs.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends events, all or none, numbered from `expected` on. When it returns, they are on durable storage.
    ///
    /// # Errors
    /// `conflict` if the run's next number is not `expected`: someone else has appended. Nothing is appended then.
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()>;

    /// All events of a run, in order; none if there is no such run.
    ///
    /// # Errors
    /// `invalid` if the history is damaged: a number is missing or an event cannot be read. It is never silently cut.
    async fn read(&self, run: &str) -> Result<Vec<Recorded>>;

    /// All runs, oldest first.
    ///
    /// # Errors
    /// As [`Journal::read`].
    async fn runs(&self) -> Result<Vec<RunHead>>;
}
