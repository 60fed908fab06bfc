//! The append-only history of runs: what an adapter implements so that runs are durable.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::pure::event::{Event, Recorded};
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

/// What somebody else asks the driver of a run to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// End it: it is cancelled for good, unless it is redriven.
    Cancel,
    /// Stop for now: it can be resumed.
    Pause,
}

impl Signal {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
        }
    }
}

/// The append-only history of runs, who drives each, and what is asked of the driver.
///
/// A run has at most one driver, which holds a lease and renews it. A driver whose lease was taken over finds out when it renews, or when it
/// appends: the one that took over appends `driver-started` before it does anything, so the numbers no longer fit.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends events, all or none, numbered from `expected` on. When it returns, they are on durable storage.
    ///
    /// # Errors
    /// `conflict` if the run's next number is not `expected`: someone else has appended. Nothing is appended then.
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()>;

    /// At most `limit` events of a run, in order, from number `from` on; none if there are no more, or no such run.
    ///
    /// # Errors
    /// `invalid` if the history is damaged: a number is missing or an event cannot be read. It is never silently cut: a page that is
    /// not full ends with the last event that was ever appended.
    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>>;

    /// All runs, oldest first.
    ///
    /// # Errors
    /// As [`Journal::read`].
    async fn runs(&self) -> Result<Vec<RunHead>>;

    /// Makes `driver` the driver of a run until `now + ttl`, or prolongs that it is. Atomic: of several that try at once, one succeeds.
    /// The run need not have begun. An adapter that can tell that the holder is dead need not wait for its lease to expire.
    ///
    /// # Errors
    /// `conflict` if another driver holds an unexpired lease; the message names it and says when the lease expires.
    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()>;

    /// Gives up the lease, if `driver` holds it.
    ///
    /// # Errors
    /// If it cannot be written.
    async fn release(&self, run: &str, driver: &str) -> Result<()>;

    /// Asks the driver of a run, now or whenever it has one again, to do something; `None` takes the request back.
    ///
    /// # Errors
    /// `not-found` if there is no such run.
    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()>;

    /// What is asked of the driver of a run. Cheap: it is asked every second or so.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn signaled(&self, run: &str) -> Result<Option<Signal>>;
}

/// Events read at once while a history is folded: what bounds the memory that takes.
pub const PAGE: usize = 4_096;

/// All events of a run, in order, a page at a time.
///
/// # Errors
/// As [`Journal::read`], and those of `visit`.
pub async fn for_each_event(journal: &dyn Journal, run: &str, mut visit: impl FnMut(Recorded) -> Result<()> + Send) -> Result<()> {
    let mut from = 0;
    loop {
        let page = journal.read(run, from, PAGE).await?;
        let whole = page.len() == PAGE;
        from += page.len() as u64;
        page.into_iter().try_for_each(&mut visit)?;
        if !whole {
            return Ok(());
        }
    }
}
