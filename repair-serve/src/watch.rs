//! Looks at the runs of lakes, whoever drives them, so that readers see what changes.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use repair::run::RunSummary;
use repair::{ErrorKind, OpenLake};

use crate::server::Shared;

/// How often a lake in a folder is looked at.
const OFTEN: Duration = Duration::from_millis(700);
/// How often a lake elsewhere is looked at, where each look is a request that costs something.
const SELDOM: Duration = Duration::from_secs(10);
/// How often a lake elsewhere is looked at while nobody reads.
const UNREAD: Duration = Duration::from_secs(60);

/// A lake, and its runs as they were seen last.
pub(crate) struct Watched {
    pub(crate) place: String,
    pub(crate) lake: OpenLake,
    seen: RwLock<Arc<Seen>>,
}

/// What was seen of a lake.
#[derive(Default)]
pub(crate) struct Seen {
    /// Its runs, newest first.
    pub(crate) runs: Vec<RunSummary>,
    /// Why it could not be looked at, if it could not.
    pub(crate) error: Option<String>,
}

impl Watched {
    pub(crate) fn new(place: String, lake: OpenLake) -> Self {
        Self { place, lake, seen: RwLock::default() }
    }

    pub(crate) fn seen(&self) -> Arc<Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks, and says whether something has changed.
    async fn look(&self) -> bool {
        let before = self.seen();
        let now = match self.lake.runs().await {
            Ok(runs) => Seen { runs: runs.runs, error: None },
            // Nothing was ever run there.
            Err(error) if error.kind() == ErrorKind::NotFound => Seen::default(),
            Err(error) => Seen { runs: before.runs.clone(), error: Some(error.full()) },
        };
        let has_changed = now.runs != before.runs || now.error != before.error;
        if has_changed {
            *self.seen.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
        }
        has_changed
    }
}

/// Keeps looking until the server stops.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut last_elsewhere: Option<tokio::time::Instant> = None;
    while !shared.stop.is_cancelled() {
        let is_read = shared.changed.receiver_count() > 0;
        let elsewhere_every = if is_read { SELDOM } else { UNREAD };
        let is_due = last_elsewhere.is_none_or(|last| last.elapsed() >= elsewhere_every);
        let lakes = shared.lakes();
        let mut has_changed = false;
        for watched in &lakes {
            if !watched.place.starts_with("s3://") || is_due {
                has_changed |= watched.look().await;
            }
        }
        if is_due && !lakes.is_empty() {
            last_elsewhere = Some(tokio::time::Instant::now());
        }
        if has_changed {
            shared.touch();
        }
        tokio::select! {
            () = tokio::time::sleep(OFTEN) => {}
            () = shared.wake.notified() => last_elsewhere = None,
            () = shared.stop.cancelled() => {}
        }
    }
}
