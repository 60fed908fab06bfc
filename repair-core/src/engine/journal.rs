//! The journal: the append-only history of runs, which an adapter stores so that runs are durable.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::pure::brief::{Begun, Latest};
use crate::engine::pure::event::{Event, Recorded};
use crate::error::Result;

/// The first and last event of a run, for listings.
#[derive(Debug, Clone, PartialEq)]
pub struct RunHead {
    /// The run's id.
    pub run: String,
    /// The first event of the run.
    pub first: Recorded,
    /// The last event of the run.
    pub last: Recorded,
}

/// A run in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRun {
    /// The run's id.
    pub run: String,
    /// How it began.
    pub begun: Begun,
    /// The last that it recorded.
    pub latest: Latest,
    /// Who drives it, if anybody does. Of a run that is at rest this is not known.
    pub driver: Option<String>,
}

/// What the first events of a run add up to, as text, see [`Journal::keep`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// How many events these are.
    pub events: u64,
    /// What they add up to. Only the engine knows what it means.
    pub state: String,
}

/// A request to the driver of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Signal {
    /// End the run. It stays cancelled unless it is redriven.
    Cancel,
    /// Stop for now. The run can be resumed.
    Pause,
}

impl Signal {
    /// The word used in messages and in stored requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
        }
    }
}

/// The append-only history of runs, with the lease of each run's driver and the requests to it.
///
/// A run has at most one driver, which holds a lease and renews it. A driver that lost its lease finds out when it next renews or appends:
/// the driver that took over appends `driver-started` before it does anything else, so the old driver's event numbers no longer match.
///
/// An adapter passes `testing::journal_suite`. A wrapper adds behaviour to any journal:
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use jiff::Timestamp;
/// use repair_core::Result;
/// use repair_core::engine::{Engine, Event, Journal, Recorded, RunHead, Signal, StartRequest};
/// use repair_core::plugin::Registry;
/// use repair_core::testing::{MemoryJournal, MemoryLake};
/// use repair_core::workflow::{Step, Workflow};
///
/// /// Counts the commits to a journal.
/// struct Counting<J>(J, AtomicU64);
///
/// #[async_trait]
/// impl<J: Journal> Journal for Counting<J> {
///     async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
///         self.1.fetch_add(1, Ordering::Relaxed);
///         self.0.append(run, expected, at, events).await
///     }
///
///     async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
///         self.0.read(run, from, limit).await
///     }
///
///     async fn runs(&self) -> Result<Vec<RunHead>> {
///         self.0.runs().await
///     }
///
///     async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
///         self.0.acquire(run, driver, now, ttl).await
///     }
///
///     async fn release(&self, run: &str, driver: &str) -> Result<()> {
///         self.0.release(run, driver).await
///     }
///
///     async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
///         self.0.driver(run, now).await
///     }
///
///     async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
///         self.0.signal(run, signal).await
///     }
///
///     async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
///         self.0.signaled(run).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let journal = Arc::new(Counting(MemoryJournal::default(), AtomicU64::new(0)));
/// let built = Workflow::state_machine("short").step("done", Step::succeed()).build(Registry::default())?;
/// let engine = Engine::new(Arc::new(built.registry), Arc::new(MemoryLake::default()), journal.clone());
/// engine.start(&built.workflow, StartRequest::new("first")).await?;
/// assert!(journal.1.load(Ordering::Relaxed) >= 2);
/// assert_eq!(journal.runs().await?[0].run, "first");
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends events, numbered from `expected` on: all of them or none. When it returns, they are on durable storage.
    ///
    /// # Errors
    /// `conflict` if the run's next number is not `expected`, because someone else has appended. Nothing is appended then.
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()>;

    /// At most `limit` events of a run, in order, from number `from` on; none if there are no more, or no such run.
    ///
    /// # Errors
    /// `invalid` if the history is damaged: a number is missing, or an event cannot be read. The history is never silently truncated: a
    /// page that is not full ends with the last event that was ever appended.
    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>>;

    /// All runs, oldest first.
    ///
    /// # Errors
    /// As [`Journal::read`].
    async fn runs(&self) -> Result<Vec<RunHead>>;

    /// All runs, oldest first, as a listing at `now` shows them. The default reads the events that [`Journal::runs`] reads, and asks for each
    /// driver; an adapter may keep beside the events what is shown of them.
    ///
    /// # Errors
    /// As [`Journal::read`]; an event that a listing does not show need not be read.
    async fn listed(&self, now: Timestamp) -> Result<Vec<ListedRun>> {
        let heads = self.runs().await?;
        let mut listed = Vec::with_capacity(heads.len());
        for RunHead { run, first, last } in heads {
            let (begun, latest) = (Begun::of(first.at, &first.event), Latest::of(last.at, &last.event));
            let driver = if latest.is_at_rest() { None } else { self.driver(&run, now).await? };
            listed.push(ListedRun { run, begun, latest, driver });
        }
        Ok(listed)
    }

    /// Keeps what the first events of a run add up to, in place of what was kept of it before, so that whoever continues the run need not read
    /// these events again. It is only a help: an adapter may lose it at any time, or, as the default does, never keep it.
    ///
    /// # Errors
    /// If it cannot be kept. Nothing else is affected.
    async fn keep(&self, _run: &str, _fold: Fold) -> Result<()> {
        Ok(())
    }

    /// What [`Journal::keep`] has kept, if the run still has these events. A fold that is damaged, or was not made of this run's events, is none.
    ///
    /// # Errors
    /// If the journal cannot be read.
    async fn kept(&self, _run: &str) -> Result<Option<Fold>> {
        Ok(None)
    }

    /// Forgets what [`Journal::keep`] has kept of a run, and returns its size in bytes. The events stay. The default has kept nothing.
    ///
    /// # Errors
    /// If the journal cannot be written.
    async fn forget(&self, _run: &str) -> Result<u64> {
        Ok(0)
    }

    /// Makes `driver` the driver of a run until `now + ttl`, or renews its lease. Atomic: if several drivers try at once, one succeeds.
    /// The run need not exist yet. An adapter that knows that the holder is dead need not wait for the lease to expire.
    ///
    /// # Errors
    /// `conflict` if another driver holds an unexpired lease; the message names it and says when the lease expires. If the holder may be
    /// dead, the error says how long the lease still lasts ([`Error::wait_hint`](crate::Error::wait_hint)); if it is known to be alive, not.
    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()>;

    /// Releases the lease, if `driver` holds it.
    ///
    /// # Errors
    /// If the journal cannot be written.
    async fn release(&self, run: &str, driver: &str) -> Result<()>;

    /// Who drives a run at `now`: the holder of its lease. `None` if nobody holds it, it has expired, or its holder is known to be dead.
    ///
    /// # Errors
    /// As [`Journal::read`].
    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>>;

    /// Stores a request to the run's driver, which sees it now or when the run next has a driver; `None` withdraws the request.
    ///
    /// # Errors
    /// `not-found` if there is no such run.
    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()>;

    /// The pending request to the run's driver. Must be cheap: the driver polls it about once a second.
    ///
    /// # Errors
    /// If the journal cannot be read.
    async fn signaled(&self, run: &str) -> Result<Option<Signal>>;
}

/// How many events are read at once when a history is folded, which bounds the memory used.
pub const PAGE: usize = 4_096;

/// Visits all events of a run in order, reading a page at a time.
///
/// # Errors
/// As [`Journal::read`], and those of `visit`.
pub async fn for_each_event(journal: &dyn Journal, run: &str, visit: impl FnMut(Recorded) -> Result<()> + Send) -> Result<()> {
    for_each_event_from(journal, run, 0, visit).await
}

/// Visits the events of a run in order, from a number on.
pub(crate) async fn for_each_event_from(
    journal: &dyn Journal,
    run: &str,
    mut from: u64,
    mut visit: impl FnMut(Recorded) -> Result<()> + Send,
) -> Result<()> {
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
