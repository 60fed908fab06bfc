//! What a step may use while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::{self, Caller, Lake, ReadLake};
use crate::model::{Calendar, Table, Usage};
use crate::plugin::Source;
use crate::yaml::close_name;

/// Knows the time and waits. Everything that depends on time takes it from here, so that tests and simulations control it.
///
/// ```
/// use async_trait::async_trait;
/// use jiff::{SignedDuration, Timestamp};
/// use repair_core::plugin::{Clock, SystemClock};
///
/// /// The machine's clock, set back: a run on it sees the past.
/// struct Late(SignedDuration);
///
/// #[async_trait]
/// impl Clock for Late {
///     fn now(&self) -> Timestamp {
///         SystemClock.now().saturating_sub(self.0).unwrap_or(Timestamp::MIN)
///     }
///
///     async fn sleep_until(&self, due: Timestamp) {
///         SystemClock.sleep_until(due.saturating_add(self.0).unwrap_or(Timestamp::MAX)).await;
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let clock = Late(SignedDuration::from_hours(24));
/// assert!(clock.now() < SystemClock.now());
/// clock.sleep_until(clock.now()).await; // returns at once
/// # }
/// ```
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Returns at `due`, or a little after; at once if it is past.
    async fn sleep_until(&self, due: Timestamp);

    /// The time by which leases are taken, renewed and looked at. It passes as the machine's does, since a lease says for how long its holder may be
    /// silent, and other processes look at it by clocks of their own. The same as [`now`](Clock::now), unless the clock is faster or slower than theirs.
    fn lease_now(&self) -> Timestamp {
        self.now()
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// A clock that runs faster or slower than the machine's, from an instant on which all agree that use it: for trials in which an hour takes a minute.
///
/// ```
/// use repair_core::plugin::{Clock, ScaledClock, SystemClock};
///
/// let since = SystemClock.now() - jiff::SignedDuration::from_secs(10);
/// let clock = ScaledClock::new(since, 60).ok_or("a speed is at least 1")?;
/// let passed = clock.now().duration_since(since);
/// assert!(passed.as_secs() >= 600);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ScaledClock {
    since: Timestamp,
    speed: i32,
}

impl ScaledClock {
    /// A clock that showed the machine's time at `since`, and shows `speed` seconds for each that has passed. `None` if the speed is not from 1 to 10,000.
    pub fn new(since: Timestamp, speed: u32) -> Option<Self> {
        let speed = i32::try_from(speed).ok().filter(|speed| (1..=10_000).contains(speed))?;
        Some(Self { since, speed })
    }
}

#[async_trait]
impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        let passed = Timestamp::now().duration_since(self.since).checked_mul(self.speed);
        passed.and_then(|passed| self.since.checked_add(passed).ok()).unwrap_or(Timestamp::MAX)
    }

    async fn sleep_until(&self, due: Timestamp) {
        while let Ok(left) = std::time::Duration::try_from(due.duration_since(self.now())) {
            if left.is_zero() {
                break;
            }
            // What is left of a millisecond is slept too, so that nobody wakes early.
            let left = left / self.speed.unsigned_abs() + std::time::Duration::from_millis(1);
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }

    fn lease_now(&self) -> Timestamp {
        Timestamp::now()
    }
}

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

/// Where a step reports how far it is.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use repair_core::plugin::Progress;
///
/// /// Remembers the percentage last reported.
/// #[derive(Default)]
/// struct Percent(AtomicU64);
///
/// impl Progress for Percent {
///     fn advance(&self, _step: &str, done: u64, total: u64) {
///         self.0.store(done * 100 / total.max(1), Ordering::Relaxed);
///     }
/// }
///
/// let percent = Percent::default();
/// percent.advance("fill", 3, 4);
/// assert_eq!(percent.0.load(Ordering::Relaxed), 75);
/// ```
pub trait Progress: Send + Sync {
    /// `done` of `total` pieces of work of this step are done.
    fn advance(&self, step: &str, done: u64, total: u64);

    /// A sign of life of a step that has nothing to count.
    fn beat(&self) {}
}

impl Progress for () {
    fn advance(&self, _: &str, _: u64, _: u64) {}
}

/// Counts the calls that a plug-in makes outside by itself, and not through a source of its context: each is reserved in budgets before it is made,
/// and is on record when it ends. `()` counts nothing.
///
/// The engine counts so for detectors, tasks and sensors. What the units of a repair take is counted by [`Repairer::worst`](crate::plugin::Repairer::worst)
/// and the usage of their fixes.
///
/// ```
/// use repair_core::ErrorKind;
/// use repair_core::model::Usage;
/// use repair_core::plugin::Calls;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> repair_core::Result<()> {
/// let calls: &dyn Calls = &();
/// let one = Usage { source_requests: 1, ..Usage::default() };
/// let call = calls.begin(one).await?;
/// // Here it is made. With `None`, what was reserved counts as used.
/// calls.end(call, Some(one)).await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Calls: Send + Sync {
    /// Reserves what a call uses at worst, and returns its number within the attempt.
    ///
    /// # Errors
    /// `budget` if a budget does not allow it; then it must not be made.
    async fn begin(&self, worst: Usage) -> Result<u32>;

    /// Records what a call used; `None` if it failed, so that nobody knows.
    ///
    /// # Errors
    /// If it cannot be recorded.
    async fn end(&self, call: u32, used: Option<Usage>) -> Result<()>;
}

#[async_trait]
impl Calls for () {
    async fn begin(&self, _: Usage) -> Result<u32> {
        Ok(0)
    }

    async fn end(&self, _: u32, _: Option<Usage>) -> Result<()> {
        Ok(())
    }
}

/// What a step may use while it runs. Cheap to clone.
///
/// The engine makes one for each attempt of a step. Tests of a plug-in make one with `testing::context`, and change it as they need:
///
/// ```
/// use std::sync::Arc;
///
/// use repair_core::ErrorKind;
/// use repair_core::model::{Format, Table};
/// use repair_core::testing::{FailingLake, MemoryLake, VirtualClock, context};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = Arc::new(VirtualClock::starting_at("2024-03-05T00:00:00Z".parse()?));
/// let context = context(Arc::new(MemoryLake::default()), [Table::new("readings", Format::Csv, "ts")], clock);
/// assert_eq!(context.table("readings")?.time, "ts");
/// let mistake = context.table("reading").unwrap_err();
/// assert_eq!(mistake.to_string(), "no table `reading` under `tables`; did you mean `readings`?");
///
/// let failing = context.clone().with_lake(Arc::new(FailingLake::new(ErrorKind::Transient)));
/// assert!(failing.lake.describe(failing.table("readings")?).await.is_err());
///
/// context.cancel.cancel();
/// assert_eq!(context.check_cancelled().unwrap_err().kind(), ErrorKind::Cancelled);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct StepContext {
    /// The run's id.
    pub run: Arc<str>,
    /// The step's name.
    pub step: Arc<str>,
    /// Which visit of the step this is, from 1.
    pub visit: u32,
    /// Which attempt of this visit, from 1.
    pub attempt: u32,
    /// When the run came to this visit, by the journal. Whatever must be the same after a crash is computed from this, not from the clock.
    pub entered_at: Timestamp,
    /// The run's now, from which relative dates such as `yesterday` are counted. It stays the same however long the run takes, and when it is
    /// resumed.
    pub now: Timestamp,
    /// Which turn of a schedule the run is, from 1; 0 if no schedule started it. What cannot do everything within its budget begins with another
    /// key in each turn.
    pub turn: u64,
    /// The lake.
    pub lake: Arc<dyn Lake>,
    /// The other lakes that the workflow reads, by profile.
    pub elsewhere: Arc<BTreeMap<String, Elsewhere>>,
    /// The workflow's tables, by name.
    pub tables: Arc<BTreeMap<String, Table>>,
    /// The parameters of the run, by name.
    pub params: Arc<BTreeMap<String, Value>>,
    /// The workflow's sources, by name, with their rate limits.
    pub sources: Arc<BTreeMap<String, Arc<dyn Source>>>,
    /// The calendars, by name.
    pub calendars: Arc<BTreeMap<String, Arc<dyn Calendar>>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the run is asked to stop.
    pub cancel: CancellationToken,
    /// Where the step reports how far it is.
    pub progress: Arc<dyn Progress>,
    /// Counts what a plug-in calls by itself.
    pub calls: Arc<dyn Calls>,
}

/// Another lake than the one that a workflow works on, with the tables of it that a query may name. It is only read.
#[derive(Clone)]
pub struct Elsewhere {
    whole: Arc<dyn Lake>,
    /// Its tables, by name.
    pub tables: Arc<BTreeMap<String, Table>>,
}

impl Elsewhere {
    /// A lake, and tables of it.
    pub fn new(lake: Arc<dyn Lake>, tables: BTreeMap<String, Table>) -> Self {
        Self { whole: lake, tables: Arc::new(tables) }
    }

    /// The lake, to read it.
    pub fn lake(&self) -> Arc<dyn ReadLake> {
        self.whole.clone()
    }

    /// The same lakes, used on behalf of one attempt of a step.
    pub(crate) fn on_behalf_of(all: &Arc<BTreeMap<String, Self>>, caller: &Caller) -> Arc<BTreeMap<String, Self>> {
        if all.is_empty() {
            return all.clone();
        }
        let one = |(profile, of): (&String, &Self)| {
            (profile.clone(), Self { whole: lake::on_behalf_of(&of.whole, caller), tables: of.tables.clone() })
        };
        Arc::new(all.iter().map(one).collect())
    }
}

impl StepContext {
    /// The same context with another now.
    #[must_use]
    pub fn with_now(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// The same context with other parameters.
    #[must_use]
    pub fn with_params(mut self, params: impl IntoIterator<Item = (String, Value)>) -> Self {
        self.params = Arc::new(params.into_iter().collect());
        self
    }

    /// The same context with another lake.
    #[must_use]
    pub fn with_lake(mut self, lake: Arc<dyn Lake>) -> Self {
        self.lake = lake;
        self
    }

    /// The same context with these sources.
    #[must_use]
    pub fn with_sources(mut self, sources: impl IntoIterator<Item = (String, Arc<dyn Source>)>) -> Self {
        self.sources = Arc::new(sources.into_iter().collect());
        self
    }

    /// The same context with these calendars, each under its name.
    #[must_use]
    pub fn with_calendars(mut self, calendars: impl IntoIterator<Item = Arc<dyn Calendar>>) -> Self {
        self.calendars = Arc::new(calendars.into_iter().map(|calendar| (calendar.name().to_owned(), calendar)).collect());
        self
    }

    /// The same context, which this token cancels.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancellationToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// The same context, which reports how far it is here.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// The same context, in which a plug-in's own calls are counted here.
    #[must_use]
    pub fn with_calls(mut self, calls: Arc<dyn Calls>) -> Self {
        self.calls = calls;
        self
    }

    /// A table of the workflow.
    ///
    /// # Errors
    /// `invalid` if there is none of that name.
    pub fn table(&self, name: &str) -> Result<&Table> {
        self.tables
            .get(name)
            .ok_or_else(|| Error::invalid(format!("no table `{name}` under `tables`{}", close_name(name, self.tables.keys()))))
    }

    /// Another lake that the workflow reads.
    ///
    /// # Errors
    /// `invalid` if no table of the workflow is in a lake of that name.
    pub fn elsewhere(&self, profile: &str) -> Result<&Elsewhere> {
        self.elsewhere.get(profile).ok_or_else(|| {
            Error::invalid(format!(
                "no table is in a lake `{profile}`; say of each table that a query reads there that it is, by `lake: {profile}` under `tables`"
            ))
        })
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

    /// Gives a sign of life. A step with a `heartbeat` that gives none for that long is stopped; [`Progress::advance`] is one too.
    pub fn beat(&self) {
        self.progress.beat();
    }

    /// Returns an error of kind `cancelled` once the run is asked to stop.
    ///
    /// # Errors
    /// `cancelled`.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::new(ErrorKind::Cancelled, "the run was asked to stop")) } else { Ok(()) }
    }
}
