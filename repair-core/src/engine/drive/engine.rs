//! The engine: starts, resumes, redrives, cancels and pauses runs. It holds a run's lease while a session performs what
//! [`decide`](super::decide) decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::engine::drive::purse::Purse;
use crate::engine::drive::session::Session;
use crate::engine::journal::{Fold, Journal, Signal, for_each_event_from};
use crate::engine::prepare::{Lakes, preflight};
use crate::engine::pure::control;
use crate::engine::pure::event::{Event, FORMAT, Recorded};
use crate::engine::pure::kept;
use crate::engine::pure::state::RunState;
use crate::engine::report::RunReport;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::lake::Lake;
use crate::plugin::{Clock, Progress, Registry};
use crate::price::Budget;
use crate::workflow::EVALUATOR;
use crate::workflow::{Variables, Workflow};

/// Receives the events of runs once they are durable.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use repair_core::engine::{Engine, Event, Observer, Recorded, RunState, StartRequest};
/// use repair_core::plugin::{Progress, Registry};
/// use repair_core::testing::{MemoryJournal, MemoryLake};
/// use repair_core::workflow::{Step, Workflow};
///
/// /// Keeps the sequence numbers of all events, and how the run ended.
/// #[derive(Default)]
/// struct Watching(Mutex<(Vec<u64>, Option<String>)>);
///
/// impl Progress for Watching {
///     fn advance(&self, _step: &str, _done: u64, _total: u64) {}
/// }
///
/// impl Observer for Watching {
///     fn recorded(&self, recorded: &Recorded, state: &RunState) {
///         let mut seen = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
///         seen.0.push(recorded.sequence);
///         seen.1 = state.ended.as_ref().map(|ended| ended.outcome.as_str().to_owned());
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let built = Workflow::state_machine("short").step("done", Step::succeed()).build(Registry::default())?;
/// let watching = Arc::new(Watching::default());
/// let mut engine = Engine::new(Arc::new(built.registry), Arc::new(MemoryLake::default()), Arc::new(MemoryJournal::default()));
/// engine.observer = watching.clone();
/// engine.start(&built.workflow, StartRequest::new("first")).await?;
///
/// let (numbers, outcome) = &*watching.0.lock().unwrap();
/// assert!(numbers.is_sorted() && numbers[0] == 0);
/// assert_eq!(outcome.as_deref(), Some("succeeded"));
/// # Ok(())
/// # }
/// ```
pub trait Observer: Progress {
    /// Called after an event was recorded. `state` is the run's state after all events of the same commit.
    fn recorded(&self, recorded: &Recorded, state: &RunState);

    /// As [`Observer::recorded`], with the run's id, which the engine knows; by default, it goes there.
    fn recorded_of(&self, _run: &str, recorded: &Recorded, state: &RunState) {
        self.recorded(recorded, state);
    }
}

impl Observer for () {
    fn recorded(&self, _: &Recorded, _: &RunState) {}
}

/// All of them receive what happens, in turn.
impl Observer for Vec<Arc<dyn Observer>> {
    fn recorded(&self, recorded: &Recorded, state: &RunState) {
        for observer in self {
            observer.recorded(recorded, state);
        }
    }

    fn recorded_of(&self, run: &str, recorded: &Recorded, state: &RunState) {
        for observer in self {
            observer.recorded_of(run, recorded, state);
        }
    }
}

impl Progress for Vec<Arc<dyn Observer>> {
    fn advance(&self, step: &str, done: u64, total: u64) {
        for observer in self {
            observer.advance(step, done, total);
        }
    }

    fn beat(&self) {
        for observer in self {
            observer.beat();
        }
    }
}

/// How runs are driven.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct EngineOptions {
    /// How long a driver's lease lasts; it is renewed three times in that time. Another driver waits this long to take over from one that
    /// died, unless the journal knows that it is dead.
    pub lease: Duration,
    /// How often to check for requests to cancel or pause.
    pub poll: Duration,
    /// How long an attempt may take to stop before it is aborted.
    pub grace: Duration,
    /// After how many events the state of a run is kept in the journal, if the journal can, so that whoever resumes it reads only those after.
    pub keep_every: u64,
}

impl EngineOptions {
    /// How long a driver's hold on a run lasts unless renewed.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How often to look whether somebody asked to cancel or pause.
    #[must_use]
    pub fn with_poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// After how many events the state of a run is kept.
    #[must_use]
    pub fn with_keep_every(mut self, events: u64) -> Self {
        self.keep_every = events;
        self
    }

    /// How long work that was asked to stop may take to do so.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), poll: Duration::from_secs(1), grace: Duration::from_secs(30), keep_every: KEEP_EVERY }
    }
}

/// Drives runs: starts, resumes and ends them. Cheap to clone; one engine may drive many runs at once.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
/// use repair_core::engine::{Engine, Outcome, StartRequest};
/// use repair_core::plugin::Registry;
/// use repair_core::testing::{MemoryJournal, MemoryLake};
/// use repair_core::workflow::Workflow;
///
/// const WORKFLOW: &str = "
/// workflow: look
/// kind: state-machine
/// tables:
///   readings: { location: readings, format: csv, time: ts, cadence: 1h }
/// start: look
/// steps:
///   look: { detect: gaps, with: { table: readings, from: 2024-03-04, to: 2024-03-04 }, end: true }
/// ";
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::default();
/// let workflow = Workflow::parse("look.yaml", WORKFLOW, &registry)?;
/// // A table with a single row, in a lake in memory.
/// let times = TimestampMicrosecondArray::from(vec![1_709_510_400_000_000]).with_timezone("UTC"); // 2024-03-04T00:00:00Z
/// let rows = RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef)])?;
/// let lake = MemoryLake::default();
/// lake.put_table(&workflow.tables["readings"], &[rows])?;
///
/// let engine = Engine::new(Arc::new(registry), Arc::new(lake), Arc::new(MemoryJournal::default()));
/// let report = engine.start(&workflow, StartRequest::new("first")).await?;
/// assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
/// assert_eq!(report.step("look").map(|step| step.output["missing"].clone()), Some(23.into()));
/// // Starting a run that has ended returns its report.
/// assert_eq!(engine.start(&workflow, StartRequest::new("first")).await?.outcome, report.outcome);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    /// The plug-ins.
    pub registry: Arc<Registry>,
    /// The lake.
    pub lake: Arc<dyn Lake>,
    /// The other lakes that workflows read, by profile.
    pub lakes: Lakes,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Receives what happens.
    pub observer: Arc<dyn Observer>,
    /// Cancel this token to stop driving soon. The runs can be resumed.
    pub stop: CancellationToken,
    /// How runs are driven.
    pub options: EngineOptions,
    /// Who allows a run within another run to spend.
    pub(crate) purse: Option<Arc<dyn Purse>>,
}

/// A request to start a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartRequest {
    /// The run's id; [`new_run_id`] makes one.
    pub run: String,
    /// The parameters, as [`Workflow::bind`] returns them.
    pub params: BTreeMap<String, Value>,
    /// What a later process needs to open the same lake. The engine only stores it with the run.
    pub environment: Value,
    /// The now of the run, from which relative dates such as `yesterday` are counted. If it is not given, it is when the run starts.
    pub now: Option<Timestamp>,
    /// Which turn of a schedule it is, from 1; 0 if no schedule starts it. With each turn, other keys come first, so that a budget which never reaches
    /// all keys reaches each of them at some time.
    pub turn: u64,
    /// What it may spend, beside the budget of the workflow. A run that exists keeps its own.
    pub budget: Budget,
}

impl StartRequest {
    /// Starts a run of this id without parameters, in no environment.
    pub fn new(run: impl Into<String>) -> Self {
        Self { run: run.into(), params: BTreeMap::new(), environment: Value::Null, now: None, turn: 0, budget: Budget::default() }
    }

    /// The parameters, as [`Workflow::bind`] returns them.
    #[must_use]
    pub fn with_params(mut self, params: BTreeMap<String, Value>) -> Self {
        self.params = params;
        self
    }

    /// The now of the run: to run a nightly workflow for a night that is past, or as the schedule says.
    #[must_use]
    pub fn with_now(mut self, now: impl Into<Option<Timestamp>>) -> Self {
        self.now = now.into();
        self
    }

    /// Which turn of a schedule it is, from 1.
    #[must_use]
    pub fn with_turn(mut self, turn: u64) -> Self {
        self.turn = turn;
        self
    }

    /// What it may spend, beside the budget of the workflow.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// What a later process needs to open the same lake.
    #[must_use]
    pub fn with_environment(mut self, environment: Value) -> Self {
        self.environment = environment;
        self
    }
}

/// A new run id. Ids of later runs sort later.
pub fn new_run_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// The id of the run that a step starts for another workflow. It is the same for the same visit.
pub fn child_run_id(parent: &str, step: &str, visit: u32) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(parent.as_bytes()).update(&[0]).update(step.as_bytes()).update(&visit.to_le_bytes());
    let parent: String = parent.chars().take(32).collect();
    format!("{parent}-{}", &hasher.finalize().to_hex().as_str()[..16])
}

/// The id of the run that a map starts for an item, given by its index. It is the same for the same visit, which has one list.
pub fn item_run_id(parent: &str, step: &str, visit: u32, item: u32) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(parent.as_bytes())
        .update(&[0])
        .update(step.as_bytes())
        .update(&[0])
        .update(&visit.to_le_bytes())
        .update(&item.to_le_bytes());
    let parent: String = parent.chars().take(32).collect();
    format!("{parent}-{}", &hasher.finalize().to_hex().as_str()[..16])
}

/// To fold so many events takes a small part of a second.
const KEEP_EVERY: u64 = 1 << 14;

/// How often the lease of a driver that may be dead is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A lease that lasts longer than so many of ours is not waited for: a clock may be wrong.
const MOST_LEASES: u32 = 2;

/// The maximum length of a run id, which is part of file names.
const RUN_ID_LENGTH: usize = 64;

fn check_run_id(run: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if run.is_empty() || run.len() > RUN_ID_LENGTH || !run.chars().all(fine) {
        return Err(Error::invalid(format!("`{run}` is not a valid run id; use 1 to {RUN_ID_LENGTH} letters, digits, `-` and `_`")));
    }
    Ok(())
}

/// How a drive begins.
enum Begin<'a> {
    /// With a new run.
    Start(&'a Workflow, Box<StartRequest>),
    /// With an existing run, perhaps with a corrected definition; a run that has ended continues only if it is redriven.
    Continue { corrected: Option<&'a Workflow>, redrive: bool },
}

impl Engine {
    /// An engine that uses the machine's clock and has no observer.
    pub fn new(registry: Arc<Registry>, lake: Arc<dyn Lake>, journal: Arc<dyn Journal>) -> Self {
        let clock = Arc::new(crate::plugin::SystemClock);
        let (stop, options) = (CancellationToken::new(), EngineOptions::default());
        Self { registry, lake, lakes: Lakes::default(), journal, clock, observer: Arc::new(()), stop, options, purse: None }
    }

    /// Starts a run and drives it to its end. If a run with this id and the same input exists, it is resumed or, if it has ended, its
    /// report is returned.
    ///
    /// # Errors
    /// If the run cannot start (a table does not exist, the lake is not writable, a configuration is invalid), in which case nothing is
    /// written. `conflict` if the id belongs to a run with other input, or if somebody else drives the run. `cancelled` if the engine was
    /// stopped. Also if the journal fails. An error within the run is not an error here: it is in the report.
    pub async fn start(&self, workflow: &Workflow, request: StartRequest) -> Result<RunReport> {
        check_run_id(&request.run)?;
        let run = request.run.clone();
        if self.journal.read(&run, 0, 1).await?.is_empty() {
            let at = self.clock.now();
            let now = request.now.unwrap_or(at);
            let variables = Variables::at_start(&workflow.fix(&request.params, now)?, at, now).with_items(workflow.items.clone());
            preflight(&self.registry, self.lake.as_ref(), &self.lakes, workflow, &variables).await?;
        }
        self.hold(&run, Begin::Start(workflow, Box::new(request)), true).await
    }

    /// Resumes a run with the definition that it has.
    ///
    /// # Errors
    /// `not-found` if there is no such run; otherwise as [`Engine::start`].
    pub async fn resume(&self, run: &str) -> Result<RunReport> {
        self.hold(run, Begin::Continue { corrected: None, redrive: false }, true).await
    }

    /// Resumes a run with a corrected definition.
    ///
    /// # Errors
    /// `conflict` if what the run already did would mean something else under that definition; otherwise as [`Engine::resume`].
    pub async fn resume_with(&self, run: &str, corrected: &Workflow) -> Result<RunReport> {
        self.hold(run, Begin::Continue { corrected: Some(corrected), redrive: false }, true).await
    }

    /// Continues a run that failed or was cancelled, from where it failed, with a corrected definition if one is given. What succeeded is
    /// not repeated.
    ///
    /// # Errors
    /// `conflict` if the run succeeded, or has not ended; otherwise as [`Engine::resume_with`].
    pub async fn redrive(&self, run: &str, corrected: Option<&Workflow>) -> Result<RunReport> {
        self.hold(run, Begin::Continue { corrected, redrive: true }, true).await
    }

    /// Cancels a run. Its driver ends it once all running steps have stopped and their usage is recorded. A run without a driver is ended
    /// here.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `conflict` if it has ended.
    pub async fn cancel(&self, run: &str) -> Result<Option<RunReport>> {
        self.ask(run, Signal::Cancel).await
    }

    /// Pauses a run. Its driver pauses it once all running steps have stopped. [`Engine::resume`] continues it.
    ///
    /// # Errors
    /// As [`Engine::cancel`].
    pub async fn pause(&self, run: &str) -> Result<Option<RunReport>> {
        self.ask(run, Signal::Pause).await
    }

    /// Returns a report if the run had no driver, so that it was stopped here.
    async fn ask(&self, run: &str, signal: Signal) -> Result<Option<RunReport>> {
        let state = load(self.journal.as_ref(), run).await?;
        if let Some(ended) = &state.ended {
            let message = format!("run `{run}` has already ended: {}", ended.outcome.as_str());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        self.journal.signal(run, Some(signal)).await?;
        match self.hold(run, Begin::Continue { corrected: None, redrive: false }, false).await {
            Ok(report) => Ok(Some(report)),
            // Another driver has the run, and will see the request.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Drives a run while holding its lease; `waits` for that of a driver that may be dead. Boxed, because a run may start other runs.
    fn hold<'a>(&'a self, run: &'a str, begin: Begin<'a>, waits: bool) -> BoxFuture<'a, Result<RunReport>> {
        Box::pin(async move {
            check_run_id(run)?;
            let driver = format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple());
            self.take(run, &driver, waits).await?;
            let done = self.drive(run, &driver, begin).await;
            if let Err(error) = self.journal.release(run, &driver).await {
                tracing::warn!(run, error = error.full(), "the lease could not be released; it expires by itself");
            }
            done
        })
    }

    /// Takes the lease of a run. If another driver holds it that may be dead, waits until the lease expires; a driver that renews it
    /// meanwhile is alive.
    async fn take(&self, run: &str, driver: &str, waits: bool) -> Result<()> {
        let mut expiry = None;
        loop {
            let now = self.clock.lease_now();
            let error = match self.journal.acquire(run, driver, now, self.options.lease).await {
                Err(error) if error.kind() == ErrorKind::Conflict => driven_elsewhere(run, error),
                taken => return taken,
            };
            let Some(left) = error.wait_hint().filter(|left| waits && *left <= self.options.lease.saturating_mul(MOST_LEASES)) else {
                return Err(error);
            };
            let expires = now.checked_add(left).unwrap_or(Timestamp::MAX);
            if *expiry.get_or_insert(expires) != expires {
                return Err(error);
            }
            if self.stop.is_cancelled() {
                return Err(Error::new(
                    ErrorKind::Cancelled,
                    format!("run `{run}` was not continued: it was still held by another driver"),
                )
                .hint(Hint::Resume { run: run.to_owned() })
                .because(error));
            }
            tracing::info!(run, error = error.full(), "waiting for the lease of another driver, which may be dead");
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn drive(&self, run: &str, driver: &str, begin: Begin<'_>) -> Result<RunReport> {
        let (known, kept) = try_load(self.journal.as_ref(), run).await?.unzip();
        let (workflow, state, first) = match begin {
            Begin::Start(workflow, request) => match known {
                Some(state) => {
                    check_same(workflow, &request, &state)?;
                    if state.ended.is_some() {
                        return Ok(RunReport::new(run, &state));
                    }
                    let first = vec![driver_started(driver, &state)];
                    (Arc::new(workflow.clone()), state, first)
                }
                None => (Arc::new(workflow.clone()), self.begin(workflow, *request).await?, Vec::new()),
            },
            Begin::Continue { corrected, redrive } => {
                let state = known.ok_or_else(|| no_such_run(run))?;
                if state.ended.is_some() && !redrive {
                    if corrected.is_some() {
                        let error = Error::new(ErrorKind::Conflict, format!("run `{run}` has ended, so it cannot be resumed"));
                        return Err(error.hint(Hint::Redrive { run: run.to_owned() }));
                    }
                    return Ok(RunReport::new(run, &state));
                }
                if redrive {
                    // Requests from before the run ended no longer apply.
                    self.journal.signal(run, None).await?;
                }
                self.continued(run, driver, state, corrected, redrive)?
            }
        };
        let workflow = within(workflow, &state.started.budget);
        let span = tracing::info_span!("run", run, workflow = workflow.name);
        let mut session = Session::new(self, run, driver, workflow, (state, kept.unwrap_or(0)))?;
        let driving = async {
            session.record(first).await?;
            session.drive().await
        };
        let driven = driving.instrument(span).await;
        driven.map_err(|error| goes_on(run, error))?;
        Ok(RunReport::new(run, &session.state))
    }

    /// Records that a run started.
    async fn begin(&self, workflow: &Workflow, request: StartRequest) -> Result<RunState> {
        let seed = u64::from_le_bytes(*blake3::hash(request.run.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 8]));
        let at = self.clock.now();
        let started = Event::RunStarted {
            format: FORMAT,
            workflow: workflow.name.clone(),
            definition: workflow.text.clone(),
            file: workflow.file.clone(),
            children: workflow.children.clone(),
            params: workflow.fix(&request.params, request.now.unwrap_or(at))?,
            now: request.now,
            environment: request.environment,
            seed,
            expressions: Some(EVALUATOR.to_owned()),
            turn: request.turn,
            budget: request.budget,
        };
        let recorded = Recorded { sequence: 0, at, event: started };
        let appended = self.journal.append(&request.run, 0, recorded.at, std::slice::from_ref(&recorded.event)).await;
        appended.map_err(|error| driven_elsewhere(&request.run, error))?;
        let state = RunState::begin(&recorded)?;
        self.observer.recorded_of(&request.run, &recorded, &state);
        Ok(state)
    }

    /// The definition with which an existing run continues, and the events to record first.
    fn continued(
        &self,
        run: &str,
        driver: &str,
        state: RunState,
        corrected: Option<&Workflow>,
        redrive: bool,
    ) -> Result<(Arc<Workflow>, RunState, Vec<Event>)> {
        let before = Workflow::parse_with(&state.started.file, &state.started.definition, &self.registry, &state.started.children);
        let mut first = vec![driver_started(driver, &state)];
        let workflow = match corrected {
            None => before.map_err(|diagnostics| {
                Error::invalid("this program cannot run the run's definition").on("run", run).because(diagnostics)
            })?,
            Some(corrected) => {
                // A definition that can no longer be read may be replaced if the run did nothing with it yet.
                first.push(control::replace(&state, before.as_ref().ok(), corrected)?);
                corrected.clone()
            }
        };
        if redrive {
            first.push(control::redrive(run, &state, &workflow)?);
        }
        Ok((Arc::new(workflow), state, first))
    }
}

/// A workflow whose runs may also spend no more than this.
fn within(workflow: Arc<Workflow>, budget: &Budget) -> Arc<Workflow> {
    if budget.is_unlimited() {
        return workflow;
    }
    let both = workflow.budget.as_ref().map_or_else(|| budget.clone(), |own| own.and(budget));
    Arc::new(Workflow { budget: Some(both), ..workflow.as_ref().clone() })
}

fn driver_started(driver: &str, state: &RunState) -> Event {
    let other = state.started.expressions.as_deref().is_some_and(|began_with| began_with != EVALUATOR);
    Event::DriverStarted { driver: driver.to_owned(), expressions: other.then(|| EVALUATOR.to_owned()) }
}

fn check_same(workflow: &Workflow, request: &StartRequest, state: &RunState) -> Result<()> {
    let started = &state.started;
    // What is relative in the request is counted from the run's own now.
    let same = started.definition == workflow.text
        && started.environment == request.environment
        && started.children == workflow.children
        && request.now.is_none_or(|now| now == started.now)
        && workflow.fix(&request.params, started.now)? == started.params;
    if same {
        return Ok(());
    }
    let message = format!("run `{}` already exists and was started with other input", request.run);
    Err(Error::new(ErrorKind::Conflict, message).hint(Hint::OtherRunId))
}

/// What the journal answers to a driver: a conflict means that another process drives the run.
pub(super) fn driven_elsewhere(run: &str, error: Error) -> Error {
    if error.kind() == ErrorKind::Conflict { error.hint(Hint::DrivenElsewhere { run: run.to_owned() }) } else { error }
}

/// What it means for a run that its driver cannot reach the journal, or may not: it has not ended, and can be resumed.
fn goes_on(run: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Timeout | ErrorKind::Denied => {
            error.hint(Hint::Resume { run: run.to_owned() })
        }
        _ => error,
    }
}

fn no_such_run(run: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no run `{run}` in this journal"))
}

/// A run's state, from its journal, and how many of its events were folded earlier; none if there is no such run.
pub(super) async fn try_load(journal: &dyn Journal, run: &str) -> Result<Option<(RunState, u64)>> {
    if let Some(Fold { events, state }) = journal.kept(run).await.map_err(|error| error.on("run", run))? {
        match kept::from_text(run, events, &state) {
            Some(state) => match fold_on(journal, run, Some(state)).await {
                // Then the events decide, from the first one on.
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    tracing::warn!(run, error = error.full(), "the events do not follow the state that was kept, so all are read");
                }
                folded => return Ok(folded?.map(|state| (state, events))),
            },
            None => tracing::debug!(run, events, "the state that was kept is not of this program, so all events are read"),
        }
    }
    Ok(fold_on(journal, run, None).await?.map(|state| (state, 0)))
}

/// A run's state: the given one, and what has happened since.
async fn fold_on(journal: &dyn Journal, run: &str, mut state: Option<RunState>) -> Result<Option<RunState>> {
    let from = state.as_ref().map_or(0, |state| state.next_sequence);
    for_each_event_from(journal, run, from, |recorded| match &mut state {
        Some(state) => state.apply(&recorded),
        None => {
            state = Some(RunState::begin(&recorded)?);
            Ok(())
        }
    })
    .await
    .map_err(|error| error.on("run", run))?;
    Ok(state)
}

/// A run's state, from its journal. Of a long history, only the events are read that came after the state was kept last.
///
/// # Errors
/// `not-found` if there is no such run; `invalid` if its history is damaged.
pub async fn load(journal: &dyn Journal, run: &str) -> Result<RunState> {
    let (state, _) = try_load(journal, run).await?.ok_or_else(|| no_such_run(run))?;
    Ok(state)
}

/// As [`load`], from all events of the run, whatever is kept.
///
/// # Errors
/// As [`load`].
pub async fn load_whole(journal: &dyn Journal, run: &str) -> Result<RunState> {
    fold_on(journal, run, None).await?.ok_or_else(|| no_such_run(run))
}
