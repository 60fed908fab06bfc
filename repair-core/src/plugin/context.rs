//! What a step may use while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::model::{Calendar, Table};
use crate::plugin::Source;
use crate::yaml::close_name;

/// Tells the time and waits. Everything that depends on time takes it from here, so that tests and simulations can own it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Returns at `due`, or a little after; at once if it is past.
    async fn sleep_until(&self, due: Timestamp);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The longest single sleep, so that a clock that is set forward while we wait is noticed.
const LONGEST_SLEEP: std::time::Duration = std::time::Duration::from_secs(30);

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, due: Timestamp) {
        while let Ok(left) = std::time::Duration::try_from(due.duration_since(Timestamp::now())) {
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}

/// Where a step tells how far it is.
pub trait Progress: Send + Sync {
    /// `done` of `total` pieces of work of this step are done.
    fn advance(&self, step: &str, done: u64, total: u64);

    /// A sign of life of a step that has nothing to count.
    fn beat(&self) {}
}

impl Progress for () {
    fn advance(&self, _: &str, _: u64, _: u64) {}
}

/// What a step may use while it runs. Cheap to clone.
#[derive(Clone)]
pub struct StepContext {
    /// The run's id.
    pub run: Arc<str>,
    /// The step's name.
    pub step: Arc<str>,
    /// Which visit of the step this is, from 1.
    pub visit: u32,
    /// Which attempt of this visit, from 1.
    pub attempt: u32,
    /// When the run came to this visit, by the journal. What must be the same after a crash is computed from this, not from the clock.
    pub entered_at: Timestamp,
    /// The lake.
    pub lake: Arc<dyn Lake>,
    /// The workflow's tables, by name.
    pub tables: Arc<BTreeMap<String, Table>>,
    /// The workflow's sources, by name, with their rate limits.
    pub sources: Arc<BTreeMap<String, Arc<dyn Source>>>,
    /// The calendars, by name.
    pub calendars: Arc<BTreeMap<String, Arc<dyn Calendar>>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the run is told to stop.
    pub cancel: CancellationToken,
    /// Where to tell how far it is.
    pub progress: Arc<dyn Progress>,
}

impl StepContext {
    /// A table of the workflow.
    ///
    /// # Errors
    /// `invalid` if there is none of that name.
    pub fn table(&self, name: &str) -> Result<&Table> {
        self.tables
            .get(name)
            .ok_or_else(|| Error::invalid(format!("no table `{name}` under `tables`{}", close_name(name, self.tables.keys()))))
    }

    /// A source of the workflow.
    ///
    /// # Errors
    /// `invalid` if there is none of that name.
    pub fn source(&self, name: &str) -> Result<&Arc<dyn Source>> {
        self.sources
            .get(name)
            .ok_or_else(|| Error::invalid(format!("no source `{name}` under `sources`{}", close_name(name, self.sources.keys()))))
    }

    /// A calendar.
    ///
    /// # Errors
    /// `invalid` if there is none of that name.
    pub fn calendar(&self, name: &str) -> Result<&Arc<dyn Calendar>> {
        self.calendars.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.calendars.keys().map(String::as_str).collect();
            Error::invalid(format!("no calendar `{name}`; there are {}", known.join(", ")))
        })
    }

    /// Gives a sign of life. A step with a `heartbeat` that gives none for so long is stopped; [`Progress::advance`] is one too.
    pub fn beat(&self) {
        self.progress.beat();
    }

    /// Returns an error of kind `cancelled` once the run is told to stop.
    ///
    /// # Errors
    /// `cancelled`.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::new(ErrorKind::Cancelled, "the run was told to stop")) } else { Ok(()) }
    }
}
