//! Drives runs: performs what [`decide`](super::decide) says, appends what happened to the journal, folds it, and decides again. The works of
//! steps run beside this loop; all that they want recorded comes through it, so one driver writes one history.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::control;
use super::decide::{Decision, decide, variables};
use super::event::{ErrorRecord, Event, FORMAT, Recorded, StopReason};
use super::journal::{Journal, Signal, for_each_event};
use super::rate::{RateLimited, RateLimiter};
use super::report::RunReport;
use super::state::{Phase, RunState};
use super::work::{Done, Failed, Job, Message, Recorder, Work, latest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::plugin::{Clock, Plugin, PluginKind, Progress, Registry, Source, StepContext};
use crate::workflow::{Step, StepKind, Template, Variables, Wait, Workflow};

/// At most so many events one run may have: beyond it, a loop has gone wrong.
const MAX_EVENTS: u64 = 10_000_000;
/// Events appended in one commit, besides what one work asks for at once.
const MAX_COMMIT: usize = 256;
/// Messages of works that wait for the driver; beyond that, they wait.
const MAX_WAITING: usize = 256;

/// Is told what happens in a run, once it is durable.
pub trait Observer: Progress {
    /// An event was recorded; `state` is what the run has come to with it and those recorded in the same commit.
    fn recorded(&self, recorded: &Recorded, state: &RunState);
}

impl Observer for () {
    fn recorded(&self, _: &Recorded, _: &RunState) {}
}

/// How runs are driven.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a driver's hold on a run lasts unless renewed, which happens three times in that time: how long another must wait to take
    /// over from one that is dead, where the journal cannot tell that it is.
    pub lease: Duration,
    /// How often to look whether somebody asked to cancel or pause.
    pub poll: Duration,
    /// How long a work that was told to stop may take to do so.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), poll: Duration::from_secs(1), grace: Duration::from_secs(30) }
    }
}

/// What a run needs around it: where things are, and who is told. Cheap to clone; one engine may drive many runs at once.
#[derive(Clone)]
pub struct Engine {
    /// The plug-ins.
    pub registry: Arc<Registry>,
    /// The lake.
    pub lake: Arc<dyn Lake>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
    /// Cancel it to stop driving soon; the runs can be resumed.
    pub stop: CancellationToken,
    /// How runs are driven.
    pub options: Options,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The run's id; [`new_run_id`] makes one.
    pub run: String,
    /// The parameters, as [`Workflow::bind`] returns them.
    pub params: BTreeMap<String, Value>,
    /// What a later process needs to open the same lake; kept with the run, not looked at here.
    pub environment: Value,
}

/// A new id for a run: ids of later runs sort later.
pub fn new_run_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// The id of the run that a step runs as another workflow: the same for the same visit.
pub fn child_run_id(parent: &str, step: &str, visit: u32) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(parent.as_bytes()).update(&[0]).update(step.as_bytes()).update(&visit.to_le_bytes());
    let parent: String = parent.chars().take(32).collect();
    format!("{parent}-{}", &hasher.finalize().to_hex().as_str()[..16])
}

/// At most so long may an id be: it is part of file names.
const RUN_ID_LENGTH: usize = 64;

fn check_run_id(run: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if run.is_empty() || run.len() > RUN_ID_LENGTH || !run.chars().all(fine) {
        return Err(Error::invalid(format!("`{run}` can't be a run's id; use at most {RUN_ID_LENGTH} letters, digits, `-` and `_`")));
    }
    Ok(())
}

/// How a drive begins.
enum Begin<'a> {
    /// With a new run.
    Start(&'a Workflow, StartRequest),
    /// With one that is there, perhaps by a mended definition; if it has ended, only if it is to be redriven.
    TakeUp { mended: Option<&'a Workflow>, redrive: bool },
}

impl Engine {
    /// An engine on the machine's clock that tells nobody.
    pub fn new(registry: Arc<Registry>, lake: Arc<dyn Lake>, journal: Arc<dyn Journal>) -> Self {
        let clock = Arc::new(crate::plugin::SystemClock);
        Self { registry, lake, journal, clock, observer: Arc::new(()), stop: CancellationToken::new(), options: Options::default() }
    }

    /// Starts a run and drives it to its end. Starting the same id with the same input again goes on with it, or, if it has ended,
    /// returns its report.
    ///
    /// # Errors
    /// If the run could not begin (nothing is written then): a table that is not there, a lake that can't be written to, a
    /// configuration that does not fit; `conflict` if the id is taken by a run with other input, or if somebody else drives it. Also if
    /// the journal fails, or `cancelled` if the engine was told to stop. An error within the run is not an error here: the report tells it.
    pub async fn start(&self, workflow: &Workflow, request: StartRequest) -> Result<RunReport> {
        check_run_id(&request.run)?;
        let run = request.run.clone();
        if self.journal.read(&run, 0, 1).await?.is_empty() {
            preflight(&self.registry, self.lake.as_ref(), workflow, &request.params).await?;
        }
        self.hold(&run, Begin::Start(workflow, request)).await
    }

    /// Goes on with a run, with the definition it started with.
    ///
    /// # Errors
    /// `not-found` if there is no such run; otherwise as [`Engine::start`].
    pub async fn resume(&self, run: &str) -> Result<RunReport> {
        self.hold(run, Begin::TakeUp { mended: None, redrive: false }).await
    }

    /// Goes on with a run, with a mended definition.
    ///
    /// # Errors
    /// `conflict` if what the run already did would mean something else by that definition; otherwise as [`Engine::resume`].
    pub async fn resume_with(&self, run: &str, mended: &Workflow) -> Result<RunReport> {
        self.hold(run, Begin::TakeUp { mended: Some(mended), redrive: false }).await
    }

    /// Takes up a run that failed or was cancelled, where it failed: what succeeded is not done again. With a mended definition, if one is
    /// given.
    ///
    /// # Errors
    /// `conflict` if the run succeeded, or has not ended; otherwise as [`Engine::resume_with`].
    pub async fn redrive(&self, run: &str, mended: Option<&Workflow>) -> Result<RunReport> {
        self.hold(run, Begin::TakeUp { mended, redrive: true }).await
    }

    /// Cancels a run: its driver ends it, once what is under way has stopped and is accounted for. Without a driver, it is ended here.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `conflict` if it has ended.
    pub async fn cancel(&self, run: &str) -> Result<Option<RunReport>> {
        self.ask(run, Signal::Cancel).await
    }

    /// Pauses a run: its driver stops it for now, once what is under way has stopped. [`Engine::resume`] goes on with it.
    ///
    /// # Errors
    /// As [`Engine::cancel`].
    pub async fn pause(&self, run: &str) -> Result<Option<RunReport>> {
        self.ask(run, Signal::Pause).await
    }

    /// The report is there if the run had no driver, so that it was stopped here.
    async fn ask(&self, run: &str, signal: Signal) -> Result<Option<RunReport>> {
        let state = load(self.journal.as_ref(), run).await?;
        if let Some(ended) = &state.ended {
            let message = format!("run `{run}` has ended before: {}", ended.outcome.as_str());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        self.journal.signal(run, Some(signal)).await?;
        match self.resume(run).await {
            Ok(report) => Ok(Some(report)),
            // Somebody drives it, and will see.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Drives a run while holding its lease. In a box, because a run may run others.
    fn hold<'a>(&'a self, run: &'a str, begin: Begin<'a>) -> BoxFuture<'a, Result<RunReport>> {
        Box::pin(async move {
            check_run_id(run)?;
            let driver = format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple());
            self.journal.acquire(run, &driver, self.clock.now(), self.options.lease).await?;
            let done = self.drive(run, &driver, begin).await;
            if let Err(error) = self.journal.release(run, &driver).await {
                tracing::warn!(run, error = error.full(), "the lease could not be given up; it expires by itself");
            }
            done
        })
    }

    async fn drive(&self, run: &str, driver: &str, begin: Begin<'_>) -> Result<RunReport> {
        let known = try_load(self.journal.as_ref(), run).await?;
        let (workflow, state, first) = match begin {
            Begin::Start(workflow, request) => match known {
                Some(state) => {
                    check_same(workflow, &request, &state)?;
                    if state.ended.is_some() {
                        return Ok(RunReport::new(run, &state));
                    }
                    (Arc::new(workflow.clone()), state, vec![Event::DriverStarted { driver: driver.to_owned() }])
                }
                None => (Arc::new(workflow.clone()), self.begin(workflow, request).await?, Vec::new()),
            },
            Begin::TakeUp { mended, redrive } => {
                let state = known.ok_or_else(|| no_such_run(run))?;
                if state.ended.is_some() && !redrive {
                    if mended.is_some() {
                        let message = format!("run `{run}` has ended; take it up where it failed with `repair redrive`");
                        return Err(Error::new(ErrorKind::Conflict, message));
                    }
                    return Ok(RunReport::new(run, &state));
                }
                self.take_up(run, driver, state, mended, redrive)?
            }
        };
        let mut session = Session::new(self, run, driver, workflow, state)?;
        session.record(first).await?;
        session.drive().await?;
        Ok(RunReport::new(run, &session.state))
    }

    /// Records that a run begins.
    async fn begin(&self, workflow: &Workflow, request: StartRequest) -> Result<RunState> {
        let seed = u64::from_le_bytes(*blake3::hash(request.run.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 8]));
        let started = Event::RunStarted {
            format: FORMAT,
            workflow: workflow.name.clone(),
            definition: workflow.text.clone(),
            file: workflow.file.clone(),
            children: workflow.children.clone(),
            params: request.params,
            environment: request.environment,
            seed,
        };
        let recorded = Recorded { sequence: 0, at: self.clock.now(), event: started };
        self.journal.append(&request.run, 0, recorded.at, std::slice::from_ref(&recorded.event)).await?;
        let state = RunState::begin(&recorded)?;
        self.observer.recorded(&recorded, &state);
        Ok(state)
    }

    /// What to record first when a run is taken up, and by which definition it goes on.
    fn take_up(
        &self,
        run: &str,
        driver: &str,
        state: RunState,
        mended: Option<&Workflow>,
        redrive: bool,
    ) -> Result<(Arc<Workflow>, RunState, Vec<Event>)> {
        let before = Workflow::parse_with(&state.started.file, &state.started.definition, &self.registry, &state.started.children);
        let mut first = vec![Event::DriverStarted { driver: driver.to_owned() }];
        let workflow = match mended {
            None => before.map_err(|diagnostics| {
                Error::invalid("the run's definition is not one that this program can run").on("run", run).because(diagnostics)
            })?,
            Some(mended) => {
                // One that can no longer be read is replaced by one that can, if nothing was done by it.
                first.push(control::replace(&state, before.as_ref().ok(), mended)?);
                mended.clone()
            }
        };
        if redrive {
            first.push(control::redrive(run, &state, &workflow)?);
        }
        Ok((Arc::new(workflow), state, first))
    }
}

fn check_same(workflow: &Workflow, request: &StartRequest, state: &RunState) -> Result<()> {
    let started = &state.started;
    let same = started.definition == workflow.text && started.params == request.params && started.environment == request.environment;
    if same && started.children == workflow.children {
        return Ok(());
    }
    let message = format!("run `{}` exists and was started with other input; use another --run-id, or resume it", request.run);
    Err(Error::new(ErrorKind::Conflict, message))
}

fn no_such_run(run: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no run `{run}` in this journal"))
}

/// Checks, before anything is written, all that can be known before the first step: that the plug-ins can be made, the tables are
/// there, and the lake can be written to.
///
/// # Errors
/// With what is wrong.
pub async fn preflight(registry: &Registry, lake: &dyn Lake, workflow: &Workflow, params: &BTreeMap<String, Value>) -> Result<()> {
    let variables = Variables { params: Value::Object(params.clone().into_iter().collect()), ..Variables::default() };
    let clock: Arc<dyn Clock> = Arc::new(crate::plugin::SystemClock);
    sources(registry, &clock, workflow, &variables)?;
    let mut written = Vec::new();
    for step in &workflow.steps {
        let Some((kind, plugin, with)) = step.kind.plugin() else { continue };
        // What depends on earlier steps is checked when the run comes there.
        let Ok(config) = with.resolve(&variables) else { continue };
        written.extend(config.get("into").and_then(Value::as_str).map(str::to_owned));
        make(registry, kind, plugin, &config).map_err(|error| error.on("step", &step.name))?;
    }
    lake.check_writable().await?;
    for table in workflow.tables.values().filter(|table| !written.contains(&table.name)) {
        lake.describe(table).await?;
    }
    Ok(())
}

fn make(registry: &Registry, kind: PluginKind, name: &str, config: &Value) -> Result<Plugin> {
    let missing = || Error::invalid(format!("no {} `{name}`", kind.as_str()));
    Ok(registry.get(kind, name).ok_or_else(missing)?.make(config)?)
}

fn sources(
    registry: &Registry,
    clock: &Arc<dyn Clock>,
    workflow: &Workflow,
    variables: &Variables,
) -> Result<BTreeMap<String, Arc<dyn Source>>> {
    let mut sources = BTreeMap::new();
    for (name, used) in &workflow.sources {
        let made = used.with.resolve(variables).and_then(|config| make(registry, PluginKind::Source, &used.plugin, &config));
        let Plugin::Source(inner) = made.map_err(|error| error.on("source", name))? else {
            return Err(Error::internal("a source that is none"));
        };
        let source: Arc<dyn Source> = match used.rate_limit {
            Some(rate) => Arc::new(RateLimited { inner, limiter: RateLimiter::new(rate, clock.clone()) }),
            None => inner,
        };
        sources.insert(name.clone(), source);
    }
    Ok(sources)
}

/// A run's state, from its journal; none if there is no such run.
async fn try_load(journal: &dyn Journal, run: &str) -> Result<Option<RunState>> {
    let mut state: Option<RunState> = None;
    for_each_event(journal, run, |recorded| match &mut state {
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

/// A run's state, from its journal.
///
/// # Errors
/// `not-found` if there is no such run; `invalid` if its history is damaged.
pub async fn load(journal: &dyn Journal, run: &str) -> Result<RunState> {
    try_load(journal, run).await?.ok_or_else(|| no_such_run(run))
}

/// Tells the observer how far a work is, and keeps when it last gave a sign of life.
struct Beating {
    observer: Arc<dyn Observer>,
    began: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Progress for Beating {
    fn advance(&self, step: &str, done: u64, total: u64) {
        self.beat();
        self.observer.advance(step, done, total);
    }

    fn beat(&self) {
        self.last_ms.store(millis(self.began.elapsed()), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A work under way.
struct Running {
    work: u64,
    visit: u32,
    attempt: u32,
    stop: CancellationToken,
    abort: AbortHandle,
    began: Instant,
    last_ms: Arc<AtomicU64>,
    heartbeat: Option<Duration>,
    /// When it was told to stop.
    told: Option<Instant>,
}

impl Running {
    fn tell(&mut self) {
        self.stop.cancel();
        self.told.get_or_insert_with(Instant::now);
    }

    /// When the driver must look at it at the latest: its heartbeat is overdue then, or its grace is over.
    fn due(&self, grace: Duration) -> Option<Instant> {
        let last = self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        match self.told {
            Some(told) => Some(told + grace),
            None => self.heartbeat.map(|heartbeat| last + heartbeat),
        }
    }
}

/// What came of a work's task.
struct Ended {
    step: String,
    work: u64,
    result: Result<Done, Failed>,
}

/// One driver's hold on one run.
struct Session<'a> {
    engine: &'a Engine,
    run: &'a str,
    driver: &'a str,
    workflow: Arc<Workflow>,
    state: RunState,
    context: StepContext,
    /// Plug-ins made for a visit of a step, so that a retry meets the same one.
    plugins: HashMap<(String, String), (u32, Plugin)>,
    running: BTreeMap<String, Running>,
    tasks: JoinSet<Ended>,
    next_work: u64,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
}

impl<'a> Session<'a> {
    fn new(engine: &'a Engine, run: &'a str, driver: &'a str, workflow: Arc<Workflow>, state: RunState) -> Result<Self> {
        let variables = Variables { params: Value::Object(state.started.params.clone().into_iter().collect()), ..Variables::default() };
        let context = StepContext {
            run: run.into(),
            step: "".into(),
            visit: 0,
            attempt: 0,
            lake: engine.lake.clone(),
            tables: Arc::new(workflow.tables.clone()),
            sources: Arc::new(sources(&engine.registry, &engine.clock, &workflow, &variables)?),
            calendars: Arc::new(engine.registry.calendars().clone()),
            clock: engine.clock.clone(),
            cancel: engine.stop.clone(),
            progress: Arc::new(()),
        };
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        let (plugins, running, tasks) = (HashMap::new(), BTreeMap::new(), JoinSet::new());
        Ok(Self { engine, run, driver, workflow, state, context, plugins, running, tasks, next_work: 0, sender, messages })
    }

    async fn drive(&mut self) -> Result<()> {
        let lease = self.engine.options.lease / 3;
        let (mut renewed, mut polled) = (Instant::now(), None::<Instant>);
        loop {
            if self.state.next_sequence > MAX_EVENTS {
                return Err(Error::internal(format!("the run has more than {MAX_EVENTS} events; it seems to go in circles")));
            }
            if polled.is_none_or(|polled| polled.elapsed() >= self.engine.options.poll) {
                self.heed_signals().await?;
                polled = Some(Instant::now());
            }
            if renewed.elapsed() >= lease {
                self.engine.journal.acquire(self.run, self.driver, self.engine.clock.now(), self.engine.options.lease).await?;
                renewed = Instant::now();
            }
            let decision = decide(&self.state, &self.workflow, self.engine.clock.now());
            if !decision.record.is_empty() && !(decision.comes_to_rest() && !self.running.is_empty()) {
                if self.state.stop == Some(StopReason::Cancel) {
                    self.cancel_children().await;
                }
                self.record(decision.record).await?;
                continue;
            }
            if self.state.ended.is_some() || self.state.paused {
                return Ok(());
            }
            let stopping = self.engine.stop.is_cancelled();
            self.tell_unwanted(&decision, stopping);
            if stopping && self.running.is_empty() {
                let message = format!("run `{}` was told to stop; go on with `repair resume {}`", self.run, self.run);
                return Err(Error::new(ErrorKind::Cancelled, message));
            }
            if !stopping && self.begin_works(&decision).await? {
                continue;
            }
            let next_poll = polled.unwrap_or_else(Instant::now) + self.engine.options.poll;
            let mut wake = next_poll.min(renewed + lease);
            for running in self.running.values() {
                wake = running.due(self.engine.options.grace).map_or(wake, |due| wake.min(due));
            }
            // While works are told to stop, no timer matters.
            let due = decision.due.filter(|_| !stopping && !decision.comes_to_rest());
            let clock = self.engine.clock.clone();
            let timer = async move {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(message) = self.messages.recv() => self.heed(message).await?,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.ended(ended).await?,
                () = timer => {}
                () = self.engine.stop.cancelled(), if !stopping => {}
                () = tokio::time::sleep_until(wake) => self.look_after_works().await?,
            }
        }
    }

    /// Appends events, and what follows from them at once, in one commit.
    async fn record(&mut self, events: Vec<Event>) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let (at, first) = (self.engine.clock.now(), self.state.next_sequence);
        let mut queue = VecDeque::from(events);
        let mut recorded = Vec::with_capacity(queue.len());
        while let Some(event) = queue.pop_front() {
            let event = Recorded { sequence: self.state.next_sequence, at, event };
            self.state.apply(&event)?;
            recorded.push(event);
            if queue.is_empty() && recorded.len() < MAX_COMMIT {
                let decision = decide(&self.state, &self.workflow, at);
                if !(decision.comes_to_rest() && !self.running.is_empty()) {
                    queue.extend(decision.record);
                }
            }
        }
        let events: Vec<Event> = recorded.iter().map(|recorded| recorded.event.clone()).collect();
        self.engine.journal.append(self.run, first, at, &events).await?;
        for recorded in &recorded {
            self.engine.observer.recorded(recorded, &self.state);
        }
        Ok(())
    }

    async fn heed_signals(&mut self) -> Result<()> {
        let Some(signal) = self.engine.journal.signaled(self.run).await? else { return Ok(()) };
        if self.state.ended.is_none() && self.state.stop.is_none() {
            let why = match signal {
                Signal::Cancel => StopReason::Cancel,
                Signal::Pause => StopReason::Pause,
            };
            self.record(vec![Event::StopRequested { why }]).await?;
        }
        self.engine.journal.signal(self.run, None).await
    }

    /// Runs of other workflows that this one runs as steps are cancelled with it.
    async fn cancel_children(&self) {
        for (step, position) in &self.state.active {
            if !matches!(self.workflow.step(step).map(|step| &step.kind), Some(StepKind::Workflow { .. })) {
                continue;
            }
            let child = child_run_id(self.run, step, position.visit);
            match self.engine.cancel(&child).await {
                Ok(_) => {}
                // It was never begun, or has ended.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
                Err(error) => tracing::warn!(run = child, error = error.full(), "a run of this run could not be cancelled"),
            }
        }
    }

    fn tell_unwanted(&mut self, decision: &Decision, stopping: bool) {
        for (step, running) in &mut self.running {
            let position = self.state.active.get(step);
            let current = position.is_some_and(|position| (position.visit, position.attempt) == (running.visit, running.attempt));
            if stopping || !current || !decision.work.contains(step) {
                running.tell();
            }
        }
    }

    /// Begins the works that are to be under way and are not. Returns whether it recorded anything.
    async fn begin_works(&mut self, decision: &Decision) -> Result<bool> {
        for name in &decision.work {
            // One that was told to stop must have, before the next begins.
            if self.running.contains_key(name) {
                continue;
            }
            let workflow = self.workflow.clone();
            let step = workflow.step(name).ok_or_else(|| Error::internal(format!("the workflow has no step `{name}`")))?;
            if let Err(error) = self.begin_work(step) {
                self.record(vec![Event::StepFailed { step: name.clone(), error: ErrorRecord::from(&error), units: false }]).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn begin_work(&mut self, step: &Step) -> Result<()> {
        let position = self.state.active.get(&step.name).ok_or_else(|| Error::internal(format!("the run is not at `{}`", step.name)))?;
        let (visit, attempt, entered_at, rules_used) = (position.visit, position.attempt, position.entered_at, position.rules_used.clone());
        let variables = variables(&self.state, &step.name, self.engine.clock.now());
        let job = self.job(step, visit, &variables)?;
        let (began, last_ms, stop) = (Instant::now(), Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let progress = Beating { observer: self.engine.observer.clone(), began, last_ms: last_ms.clone() };
        let context = StepContext {
            step: step.name.as_str().into(),
            visit,
            attempt,
            cancel: stop.clone(),
            progress: Arc::new(progress),
            ..self.context.clone()
        };
        let units = self.state.steps.get(&step.name).and_then(|state| state.units.clone());
        let work = Work { engine: self.engine.clone(), step: step.clone(), context, variables, entered_at, rules_used, units };
        self.next_work += 1;
        let recorder = Recorder { step: step.name.clone(), work: self.next_work, messages: self.sender.clone() };
        let (name, number) = (step.name.clone(), self.next_work);
        let abort = self.tasks.spawn(async move {
            let result = Box::pin(work.perform(job, &recorder)).await;
            Ended { step: name, work: number, result }
        });
        let heartbeat = step.heartbeat;
        let running = Running { work: number, visit, attempt, stop, abort, began, last_ms, heartbeat, told: None };
        self.running.insert(step.name.clone(), running);
        Ok(())
    }

    fn job(&mut self, step: &Step, visit: u32, variables: &Variables) -> Result<Job> {
        let none = |what: &str| Error::internal(format!("step `{}` is not a {what}", step.name));
        Ok(match &step.kind {
            StepKind::Detect { .. } => match self.plugin(step, step, visit, variables)? {
                Plugin::Detector(detector) => Job::Look { detector, of: step.name.clone(), again: None },
                _ => return Err(none("detector")),
            },
            StepKind::Verify { of } => {
                let workflow = self.workflow.clone();
                let detect = workflow.step(of).ok_or_else(|| Error::internal(format!("the workflow has no step `{of}`")))?;
                match self.plugin(step, detect, visit, variables)? {
                    Plugin::Detector(detector) => Job::Look { detector, of: of.clone(), again: Some(latest(&self.state, of)?.clone()) },
                    _ => return Err(none("detector")),
                }
            }
            StepKind::Repair { of, .. } => match self.plugin(step, step, visit, variables)? {
                Plugin::Repairer(repairer) => Job::Repair { repairer, of: latest(&self.state, of)?.clone() },
                _ => return Err(none("repairer")),
            },
            StepKind::Aggregate { of, .. } => match self.plugin(step, step, visit, variables)? {
                Plugin::Aggregator(aggregator) => {
                    let of = of.as_ref().map(|of| latest(&self.state, of).cloned()).transpose()?;
                    Job::Aggregate { aggregator, of }
                }
                _ => return Err(none("aggregator")),
            },
            StepKind::Task { .. } => match self.plugin(step, step, visit, variables)? {
                Plugin::Task(task) => Job::Task(task),
                _ => return Err(none("task")),
            },
            StepKind::Wait(Wait::Sensor(wait)) => match self.plugin(step, step, visit, variables)? {
                Plugin::Sensor(sensor) => Job::Sense { sensor, wait: wait.clone() },
                _ => return Err(none("sensor")),
            },
            StepKind::Workflow { workflow, with, .. } => Job::Child { workflow: workflow.clone(), params: with.resolve(variables)? },
            _ => return Err(Error::internal(format!("step `{}` has no work", step.name))),
        })
    }

    /// The plug-in of a step, made once a visit from the configuration as it is then.
    fn plugin(&mut self, at: &Step, of: &Step, visit: u32, variables: &Variables) -> Result<Plugin> {
        let id = (at.name.clone(), of.name.clone());
        if let Some((made, plugin)) = self.plugins.get(&id)
            && *made == visit
        {
            return Ok(plugin.clone());
        }
        let (kind, name, with) = of.kind.plugin().ok_or_else(|| Error::internal(format!("step `{}` has no plug-in", of.name)))?;
        let plugin = make(&self.engine.registry, kind, name, &with.resolve(variables)?).map_err(|error| error.on("step", &of.name))?;
        self.plugins.insert(id, (visit, plugin.clone()));
        Ok(plugin)
    }

    /// Records what works ask for: all that wait, in one commit.
    async fn heed(&mut self, first: Message) -> Result<()> {
        let (mut events, mut told) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(message) = next {
            if self.takes(&message) {
                events.extend(message.events);
                told.push(message.done);
            } else {
                let stale = Error::new(ErrorKind::Cancelled, "the run goes on without this attempt");
                // A work that no longer waits needs no answer.
                let _ = message.done.send(Err(stale));
            }
            next = if events.len() < MAX_COMMIT { self.messages.try_recv().ok() } else { None };
        }
        self.record(events).await?;
        for done in told {
            let _ = done.send(Ok(()));
        }
        Ok(())
    }

    /// Whether what a work asks for still belongs to the run. Of an attempt that is over, only what came of units does: it was paid for.
    fn takes(&self, message: &Message) -> bool {
        let Some(running) = self.running.get(&message.step).filter(|running| running.work == message.work) else { return false };
        let Some(step) = self.state.steps.get(&message.step) else { return false };
        if let Some(position) = self.state.active.get(&message.step)
            && (position.visit, position.attempt) == (running.visit, running.attempt)
            && matches!(position.phase, Phase::Work | Phase::Backoff { .. })
        {
            return true;
        }
        let of_units =
            |event: &Event| matches!(event, Event::UnitsEnded { .. } | Event::PublishStarted { .. } | Event::PublishEnded { .. });
        step.visits == running.visit && step.units.is_some() && message.events.iter().all(of_units)
    }

    /// Records how a work ended. One that was told to stop has not ended: what was left is done again when the run goes on.
    async fn ended(&mut self, joined: Result<Ended, tokio::task::JoinError>) -> Result<()> {
        let Ended { step, work, result } = match joined {
            Ok(ended) => ended,
            Err(error) => {
                let Some((step, running)) = self.running.iter().find(|(_, running)| running.abort.id() == error.id()) else {
                    return Ok(());
                };
                let result = if error.is_cancelled() {
                    Error::new(ErrorKind::Timeout, "the step was told to stop and did not, so it was ended")
                } else {
                    Error::internal("a plug-in panicked; this is a bug in the plug-in").because(error)
                };
                Ended { step: step.clone(), work: running.work, result: Err(result.into()) }
            }
        };
        // What it asked for last comes before its end.
        while let Ok(message) = self.messages.try_recv() {
            self.heed(message).await?;
        }
        let Some(running) = self.running.get(&step).filter(|running| running.work == work) else { return Ok(()) };
        let (told, visit, attempt) = (running.told.is_some(), running.visit, running.attempt);
        self.running.remove(&step);
        let current = self.state.active.get(&step).is_some_and(|position| {
            (position.visit, position.attempt) == (visit, attempt) && matches!(position.phase, Phase::Work | Phase::Backoff { .. })
        });
        if !current {
            return Ok(());
        }
        let event = match result {
            Ok(Done { output, findings, exceptions, usage }) => Event::StepSucceeded { step, output, findings, exceptions, usage },
            Err(failed) if failed.driving => return Err(failed.error),
            Err(failed) if told && (failed.error.kind() == ErrorKind::Cancelled || !failed.units) => return Ok(()),
            Err(Failed { error, units, .. }) => Event::StepFailed { step, error: ErrorRecord::from(&error), units },
        };
        self.record(vec![event]).await
    }

    /// Ends works whose grace is over, and stops those whose heartbeat is overdue.
    async fn look_after_works(&mut self) -> Result<()> {
        let grace = self.engine.options.grace;
        let now = Instant::now();
        let mut silent = None;
        for (step, running) in &mut self.running {
            if !running.due(grace).is_some_and(|due| due <= now) {
                continue;
            }
            match (running.told, running.heartbeat) {
                (Some(_), _) => running.abort.abort(),
                (None, Some(heartbeat)) => silent = silent.or(Some((step.clone(), heartbeat))),
                (None, None) => {}
            }
        }
        let Some((step, heartbeat)) = silent else { return Ok(()) };
        let error = Error::new(ErrorKind::Timeout, format!("step `{step}` gave no sign of life for {heartbeat:?}"));
        self.record(vec![Event::StepFailed { step, error: ErrorRecord::from(&error), units: false }]).await
    }
}

impl StepKind {
    /// The plug-in of a step, if it has one: its kind, its name, its configuration.
    pub fn plugin(&self) -> Option<(PluginKind, &str, &Template)> {
        match self {
            Self::Detect { plugin, with } => Some((PluginKind::Detector, plugin, with)),
            Self::Repair { plugin, with, .. } => Some((PluginKind::Repairer, plugin, with)),
            Self::Aggregate { plugin, with, .. } => Some((PluginKind::Aggregator, plugin, with)),
            Self::Task { plugin, with } => Some((PluginKind::Task, plugin, with)),
            Self::Wait(Wait::Sensor(wait)) => Some((PluginKind::Sensor, &wait.plugin, &wait.with)),
            _ => None,
        }
    }
}
