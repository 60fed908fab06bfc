//! A session drives one run: its loop decides, records, and supervises the jobs of steps. Every event of a run is recorded here.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::engine::drive::engine::{Engine, Observer, child_run_id, driven_elsewhere, item_run_id};
use crate::engine::drive::work::{Ask, Done, Failed, Job, Message, Over, ReadyStrategy, Recorder, Repairs, Work, latest, others};
use crate::engine::journal::{Fold, Signal};
use crate::engine::prepare::{self, Attempt, Prepared, Preparer, Setting, Terms};
use crate::engine::pure::budget;
use crate::engine::pure::decide::{Decision, decide, variables};
use crate::engine::pure::event::{ErrorRecord, Event, Recorded, StopReason};
use crate::engine::pure::items::MapState;
use crate::engine::pure::kept;
use crate::engine::pure::state::{Phase, RunState, StepState};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::lake::{self, Caller};
use crate::model::Usage;
use crate::plugin::{Detector, Elsewhere, Plugin, Progress, StepContext};
use crate::price::{Meter, Spend};
use crate::workflow::{MapOver, Step, StepKind, Variables, Wait, Workflow, limits};

/// How many events one run may have. Beyond that, it is in an endless loop.
const MAX_EVENTS: u64 = 10_000_000;
/// How many events one commit holds; one request of a job may exceed it.
const MAX_COMMIT: usize = 256;
/// How many requests of jobs may be queued; beyond that, jobs wait.
const MAX_WAITING: usize = 256;

/// How many bytes of its state may be kept for each event of a run, on average.
const KEPT_BYTES_AN_EVENT: u64 = 1_024;

/// How often a renewal of the lease that failed is tried again, in the time that a lease lasts.
const RENEWALS: u32 = 12;

/// Reports the progress of a job to the observer, and records its last heartbeat.
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

/// The event for usage that no other event records. It is recorded whether the attempt succeeded, failed or was stopped.
fn metered(step: &str, meter: &Meter) -> Vec<Event> {
    let metered = meter.take();
    if metered.is_empty() {
        return Vec::new();
    }
    vec![Event::Metered { step: step.to_owned(), usage: metered.usage, queries: metered.queries }]
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A running job: one attempt of a step.
struct Running {
    job: u64,
    visit: u32,
    attempt: u32,
    meter: Meter,
    stop: CancellationToken,
    abort: AbortHandle,
    began: Instant,
    last_ms: Arc<AtomicU64>,
    heartbeat: Option<Duration>,
    /// When it was asked to stop.
    stop_requested: Option<Instant>,
}

impl Running {
    fn request_stop(&mut self) {
        self.stop.cancel();
        self.stop_requested.get_or_insert_with(Instant::now);
    }

    /// When the driver must check the job: when its heartbeat is overdue, or its grace period is over.
    fn due(&self, grace: Duration) -> Option<Instant> {
        let last = self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        match self.stop_requested {
            Some(requested) => Some(requested + grace),
            None => self.heartbeat.map(|heartbeat| last + heartbeat),
        }
    }
}

/// How a job ended.
struct Ended {
    step: String,
    job: u64,
    result: Result<Done, Failed>,
}

/// One driver's session with one run.
pub(crate) struct Session<'a> {
    engine: &'a Engine,
    run: &'a str,
    driver: &'a str,
    workflow: Arc<Workflow>,
    pub(crate) state: RunState,
    context: StepContext,
    tags: Arc<BTreeMap<String, String>>,
    /// The plug-ins of a visit of a step, so that a retry uses the same instance.
    plugins: HashMap<(String, String, usize), (u32, Plugin)>,
    running: BTreeMap<String, Running>,
    tasks: JoinSet<Ended>,
    next_job: u64,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    /// A request was followed, but is still in the journal.
    unwithdrawn: bool,
    /// When the state is kept again: once the run has so many events.
    keep_at: u64,
}

/// The lease that the driver holds.
struct Held {
    /// Since when it lasts.
    since: Instant,
    /// When it could not be renewed, and how long to wait before it is tried again.
    tried: Option<(Instant, Duration)>,
}

impl Held {
    /// When it is to be renewed.
    fn due(&self, every: Duration) -> Instant {
        self.tried.map_or(self.since + every, |(at, wait)| at + wait)
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        run: &'a str,
        driver: &'a str,
        workflow: Arc<Workflow>,
        (state, kept): (RunState, u64),
    ) -> Result<Self> {
        let variables = Variables::at_start(&state.started.params, state.started.at, state.started.now).with_items(workflow.items.clone());
        let setting = Setting {
            run: run.into(),
            now: state.started.now,
            turn: state.started.turn,
            lake: engine.lake.clone(),
            lakes: engine.lakes.clone(),
            clock: engine.clock.clone(),
            cancel: engine.stop.clone(),
            progress: Arc::new(()),
        };
        let context = prepare::shared_context(&engine.registry, &workflow, &variables, setting)?;
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        let (plugins, running, tasks) = (HashMap::new(), BTreeMap::new(), JoinSet::new());
        let tags = Arc::new(workflow.tags.clone());
        Ok(Self {
            engine,
            run,
            driver,
            workflow,
            state,
            context,
            tags,
            plugins,
            running,
            tasks,
            next_job: 0,
            sender,
            messages,
            unwithdrawn: false,
            keep_at: kept.saturating_add(engine.options.keep_every),
        })
    }

    pub(crate) async fn drive(&mut self) -> Result<()> {
        let lease = self.engine.options.lease / 3;
        let mut polled = None::<Instant>;
        let mut held = Held { since: Instant::now(), tried: None };
        loop {
            if self.state.next_sequence > MAX_EVENTS {
                return Err(Error::internal(format!("the run has more than {MAX_EVENTS} events; it seems to be in an endless loop")));
            }
            if polled.is_none_or(|polled| polled.elapsed() >= self.engine.options.poll) {
                self.handle_signal().await?;
                polled = Some(Instant::now());
            }
            if Instant::now() >= held.due(lease) {
                self.renew(&mut held).await?;
            }
            let decision = decide(&self.state, &self.workflow, self.engine.clock.now());
            if !decision.record.is_empty() && self.may_record(&decision) {
                if self.state.stop == Some(StopReason::Cancel) {
                    self.cancel_children().await;
                }
                self.record(decision.record).await?;
                continue;
            }
            if self.state.ended.is_some() || self.state.paused {
                // A request that was followed must not meet the run again when it is resumed.
                if self.unwithdrawn {
                    self.withdraw().await;
                }
                return Ok(());
            }
            let stopping = self.engine.stop.is_cancelled();
            self.stop_unwanted(&decision, stopping);
            if stopping && self.running.is_empty() {
                let error = Error::new(ErrorKind::Cancelled, format!("run `{}` was stopped before its end", self.run));
                return Err(error.hint(Hint::Resume { run: self.run.to_owned() }));
            }
            if !stopping && self.start_jobs(&decision).await? {
                continue;
            }
            let next_poll = polled.unwrap_or_else(Instant::now) + self.engine.options.poll;
            let mut wake = next_poll.min(held.due(lease));
            for running in self.running.values() {
                wake = running.due(self.engine.options.grace).map_or(wake, |due| wake.min(due));
            }
            // While jobs are being stopped, no timer matters.
            let due = decision.due.filter(|_| !stopping && !decision.comes_to_rest());
            let clock = self.engine.clock.clone();
            let timer = async move {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(message) = self.messages.recv() => self.handle_messages(message).await?,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.ended(ended).await?,
                () = timer => {}
                () = self.engine.stop.cancelled(), if !stopping => {}
                () = tokio::time::sleep_until(wake) => self.supervise().await?,
            }
        }
    }

    /// Whether a decision may be recorded now: that a run ends or pauses is recorded only when no job is running.
    fn may_record(&self, decision: &Decision) -> bool {
        self.running.is_empty() || !decision.comes_to_rest()
    }

    /// Appends events, and what follows from them at once, in one commit.
    pub(crate) async fn record(&mut self, events: Vec<Event>) -> Result<()> {
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
                if self.may_record(&decision) {
                    queue.extend(decision.record);
                }
            }
        }
        let events: Vec<Event> = recorded.iter().map(|recorded| recorded.event.clone()).collect();
        let appended = self.engine.journal.append(self.run, first, at, &events).await;
        appended.map_err(|error| driven_elsewhere(self.run, error))?;
        for recorded in &recorded {
            self.engine.observer.recorded_of(self.run, recorded, &self.state);
            if tracing::enabled!(tracing::Level::INFO) {
                tracing::info!(sequence = recorded.sequence, event = recorded.event.kind(), "recorded");
            }
        }
        self.keep().await;
        Ok(())
    }

    /// Keeps the state, if there are many events since it was kept last. All of its events are on record.
    async fn keep(&mut self) {
        let events = self.state.next_sequence;
        if events < self.keep_at {
            return;
        }
        let kept = match kept::to_text(self.run, &self.state) {
            Ok(state) => {
                // A large state is kept less often.
                self.keep_at = events.saturating_add(self.engine.options.keep_every.max(state.len() as u64 / KEPT_BYTES_AN_EVENT));
                match tokio::time::timeout(self.moment(), self.engine.journal.keep(self.run, Fold { events, state })).await {
                    Ok(kept) => kept,
                    Err(_) => Err(Error::new(ErrorKind::Timeout, "the journal did not answer")),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            self.keep_at = self.keep_at.max(events.saturating_add(self.engine.options.keep_every));
            tracing::debug!(run = self.run, error = error.full(), "the state of the run could not be kept; all of its events are");
        }
    }

    /// Renews the lease. What goes wrong is tried again for as long as the lease lasts.
    async fn renew(&self, held: &mut Held) -> Result<()> {
        let engine = self.engine;
        let now = Instant::now();
        let renewal = engine.journal.acquire(self.run, self.driver, engine.clock.lease_now(), engine.options.lease);
        match tokio::time::timeout(self.moment(), renewal).await {
            Ok(Ok(())) => {
                *held = Held { since: now, tried: None };
                Ok(())
            }
            Ok(Err(error)) if error.kind() == ErrorKind::Conflict => Err(driven_elsewhere(self.run, error)),
            failed => {
                let error = match failed {
                    Ok(failed) => failed.err(),
                    Err(_) => None,
                };
                if held.since.elapsed() >= engine.options.lease {
                    let lost = Error::new(
                        ErrorKind::Transient,
                        format!("the lease of run `{}` has expired, because the journal could not be reached to renew it", self.run),
                    );
                    return Err(match error {
                        Some(error) => lost.because(error),
                        None => lost,
                    });
                }
                let why = error.map_or_else(|| "the journal did not answer".to_owned(), |error| error.full());
                tracing::warn!(run = self.run, error = why, "the lease could not be renewed; will try again until it expires");
                held.tried = Some((Instant::now(), engine.options.lease / RENEWALS));
                Ok(())
            }
        }
    }

    /// How long a request to the journal may hold up the driver, beside appending.
    fn moment(&self) -> Duration {
        self.engine.options.lease / 6
    }

    /// Looks for a request to the driver, and records it. If the journal cannot be asked, the next look will do.
    async fn handle_signal(&mut self) -> Result<()> {
        let signal = match tokio::time::timeout(self.moment(), self.engine.journal.signaled(self.run)).await {
            Ok(Ok(signal)) => signal,
            failed => {
                let why = match failed {
                    Ok(failed) => failed.err().map(|error| error.full()).unwrap_or_default(),
                    Err(_) => "the journal did not answer".to_owned(),
                };
                tracing::debug!(run = self.run, error = why, "could not see whether somebody wants to cancel or pause; will look again");
                return Ok(());
            }
        };
        let Some(signal) = signal else { return Ok(()) };
        if self.state.ended.is_none() && self.state.stop.is_none() {
            let why = match signal {
                Signal::Cancel => StopReason::Cancel,
                Signal::Pause => StopReason::Pause,
            };
            self.record(vec![Event::StopRequested { why }]).await?;
        }
        self.withdraw().await;
        Ok(())
    }

    /// Withdraws a request that was followed.
    async fn withdraw(&mut self) {
        let withdrawn = tokio::time::timeout(self.moment(), self.engine.journal.signal(self.run, None)).await;
        self.unwithdrawn = !matches!(withdrawn, Ok(Ok(())));
        if self.unwithdrawn {
            tracing::warn!(run = self.run, "a request to cancel or pause was followed, and could not be withdrawn; will try again");
        }
    }

    /// Cancels the runs that this run started for its workflow steps and for the items of its maps.
    async fn cancel_children(&self) {
        let mut children = Vec::new();
        for (step, position) in &self.state.active {
            match self.workflow.step(step).map(|step| &step.kind) {
                Some(StepKind::Workflow { .. }) => children.push(child_run_id(self.run, step, position.visit)),
                Some(StepKind::Map(_)) => {
                    let map = self.state.steps.get(step).and_then(|done| done.map.as_ref());
                    let items = map.into_iter().flat_map(MapState::pending);
                    children.extend(items.map(|item| item_run_id(self.run, step, position.visit, item)));
                }
                _ => {}
            }
        }
        for child in children {
            match self.engine.cancel(&child).await {
                Ok(_) => {}
                // It was never started, or has ended.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
                Err(error) => tracing::warn!(run = child, error = error.full(), "a run that this run started could not be cancelled"),
            }
        }
    }

    /// Stops jobs that the decision does not ask for.
    fn stop_unwanted(&mut self, decision: &Decision, stopping: bool) {
        for (step, running) in &mut self.running {
            let position = self.state.active.get(step);
            let current = position.is_some_and(|position| (position.visit, position.attempt) == (running.visit, running.attempt));
            if stopping || !current || !decision.work.contains(step) {
                running.request_stop();
            }
        }
    }

    /// Starts the jobs that the decision asks for and that are not running. Returns whether it recorded anything.
    async fn start_jobs(&mut self, decision: &Decision) -> Result<bool> {
        for name in &decision.work {
            // A job that is being stopped must end before the next one of its step starts.
            if self.running.contains_key(name) {
                continue;
            }
            let workflow = self.workflow.clone();
            let step = workflow.step(name).ok_or_else(|| Error::internal(format!("the workflow has no step `{name}`")))?;
            let started = match self.may_spend().await {
                Ok(()) => self.start_job(step),
                // The outer run stops this one, or has gone on without it.
                Err(error) if error.kind() == ErrorKind::Cancelled => return Ok(false),
                Err(error) => Err(error),
            };
            if let Err(error) = started {
                self.record(vec![Event::StepFailed { step: name.clone(), error: ErrorRecord::from(&error), units: false }]).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks that the budget of the run around this one is not exceeded yet, and puts on record there what this run has spent.
    async fn may_spend(&self) -> Result<()> {
        let Some(purse) = &self.engine.purse else { return Ok(()) };
        match purse.allow(vec![budget::spent_in_run(&self.state, &self.workflow)]).await?.refused {
            None => Ok(()),
            Some(why) => Err(Error::new(ErrorKind::Budget, why)),
        }
    }

    fn start_job(&mut self, step: &Step) -> Result<()> {
        let position =
            self.state.active.get(&step.name).ok_or_else(|| Error::internal(format!("the run is not at step `{}`", step.name)))?;
        let (visit, attempt, entered_at, rules_used) = (position.visit, position.attempt, position.entered_at, position.rules_used.clone());
        budget::may_begin(&self.state, &self.workflow, step)?;
        let variables = variables(&self.state, &step.name, self.engine.clock.now());
        let (began, last_ms, stop) = (Instant::now(), Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let progress = Beating { observer: self.engine.observer.clone(), began, last_ms: last_ms.clone() };
        let Prepared { context, caller, meter } = self.preparer().attempt(Attempt {
            step: step.name.as_str().into(),
            visit,
            attempt,
            entered_at,
            tags: self.tags.clone(),
            cancel: stop.clone(),
            progress: Arc::new(progress),
        });
        let job = self.make_job(step, &caller, &variables)?;
        let repairs = |done: &StepState| Repairs { strategy: done.strategy, earlier: done.earlier.clone(), units: done.units.clone() };
        let repairs = self.state.steps.get(&step.name).map(repairs).unwrap_or_default();
        let items = self.state.steps.get(&step.name).and_then(|done| done.map.clone());
        let purse = self.engine.purse.as_ref();
        let budgeted = purse.is_some() || limits(&self.workflow, step, None).next().is_some();
        let in_dollars =
            purse.is_some_and(|purse| purse.is_in_dollars()) || limits(&self.workflow, step, None).any(|limit| limit.budget.usd.is_some());
        let work = Work {
            engine: self.engine.clone(),
            step: step.clone(),
            context,
            variables,
            entered_at,
            rules_used,
            repairs,
            items,
            budgeted,
            in_dollars,
        };
        self.next_job += 1;
        let recorder = Recorder { step: step.name.clone(), job: self.next_job, messages: self.sender.clone() };
        let (name, number) = (step.name.clone(), self.next_job);
        let span = tracing::info_span!("attempt", step = name, visit, attempt);
        let performing = async move {
            let result = Box::pin(work.perform(job, &recorder)).await;
            Ended { step: name, job: number, result }
        };
        let abort = self.tasks.spawn(performing.instrument(span));
        let heartbeat = step.heartbeat;
        let running = Running { job: number, visit, attempt, meter, stop, abort, began, last_ms, heartbeat, stop_requested: None };
        self.running.insert(step.name.clone(), running);
        Ok(())
    }

    fn preparer(&self) -> Preparer<'_> {
        Preparer { registry: &self.engine.registry, workflow: &self.workflow, shared: &self.context }
    }

    /// The strategies of a repair step, each with its own tags for what it does in the lake.
    fn strategies(&mut self, step: &Step, caller: &Caller, variables: &Variables) -> Result<Vec<ReadyStrategy>> {
        let workflow = self.workflow.clone();
        let made = step.kind.strategies().iter().enumerate().map(|(index, strategy)| {
            let repairer = self.plugin(step, step, index, caller.visit, variables)?.try_into()?;
            let terms = Terms::of(&workflow, step, index)?;
            let tags = Arc::new(terms.tags);
            let caller = Caller { tags: tags.clone(), ..caller.clone() };
            let lake = lake::on_behalf_of(&self.context.lake, &caller);
            let elsewhere = Elsewhere::on_behalf_of(&self.context.elsewhere, &caller);
            let budgeted = self.engine.purse.is_some() || !terms.budgets.is_empty();
            let with = terms.with.resolve(variables).ok();
            let source = with.as_ref().and_then(|with| self.context.sources.get(with.get("source")?.as_str()?)).cloned();
            Ok(ReadyStrategy { name: strategy.name.as_str().into(), repairer, source, lake, elsewhere, tags, budgeted })
        });
        made.collect()
    }

    fn detector(&mut self, at: &Step, of: &str, visit: u32, variables: &Variables) -> Result<Arc<dyn Detector>> {
        let workflow = self.workflow.clone();
        let detect = workflow.step(of).ok_or_else(|| Error::internal(format!("the workflow has no step `{of}`")))?;
        self.plugin(at, detect, 0, visit, variables)?.try_into()
    }

    fn make_job(&mut self, step: &Step, caller: &Caller, variables: &Variables) -> Result<Job> {
        let visit = caller.visit;
        Ok(match &step.kind {
            StepKind::Detect { .. } => {
                Job::Detect { detector: self.detector(step, &step.name, visit, variables)?, of: step.name.clone(), again: None }
            }
            StepKind::Verify { of } => {
                let detector = self.detector(step, of, visit, variables)?;
                Job::Detect { detector, of: of.clone(), again: Some(latest(&self.state, of)?.clone()) }
            }
            StepKind::Repair { of, .. } => {
                let strategies = self.strategies(step, caller, variables)?;
                let detector = if strategies.len() > 1 { Some(self.detector(step, of, visit, variables)?) } else { None };
                let others = others(&self.state, of)?.into_iter().cloned().collect();
                Job::Repair { strategies, of: latest(&self.state, of)?.clone(), others, detector }
            }
            StepKind::Aggregate { of, .. } => {
                let aggregator = self.plugin(step, step, 0, visit, variables)?.try_into()?;
                let of = of.as_ref().map(|of| latest(&self.state, of).cloned()).transpose()?;
                Job::Aggregate { aggregator, of }
            }
            StepKind::Task { .. } => Job::Task(self.plugin(step, step, 0, visit, variables)?.try_into()?),
            StepKind::Wait(Wait::Sensor(wait)) => {
                Job::Sense { sensor: self.plugin(step, step, 0, visit, variables)?.try_into()?, wait: wait.clone() }
            }
            StepKind::Workflow { workflow, with, .. } => Job::Child { workflow: workflow.clone(), params: with.resolve(variables)? },
            StepKind::Map(map) => {
                let is_known = self.state.steps.get(&step.name).is_some_and(|done| done.map.is_some());
                let over = match &map.over {
                    _ if is_known => Over::Known,
                    MapOver::Items(over) => Over::Items(over.resolve(variables)?),
                    MapOver::Rows(_) => Over::Rows(self.plugin(step, step, 0, visit, variables)?.try_into()?),
                };
                Job::Map { map: map.clone(), over }
            }
            _ => return Err(Error::internal(format!("step `{}` has no work", step.name))),
        })
    }

    /// A plug-in of a step, created once per visit with the configuration computed then.
    fn plugin(&mut self, at: &Step, of: &Step, index: usize, visit: u32, variables: &Variables) -> Result<Plugin> {
        let id = (at.name.clone(), of.name.clone(), index);
        if let Some((made, plugin)) = self.plugins.get(&id)
            && *made == visit
        {
            return Ok(plugin.clone());
        }
        let plugin = self.preparer().plugin(of, index, variables)?;
        self.plugins.insert(id, (visit, plugin.clone()));
        Ok(plugin)
    }

    /// Handles the queued requests of jobs, and records their events in one commit.
    async fn handle_messages(&mut self, first: Message) -> Result<()> {
        let (mut events, mut waiting) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        let stale = || Error::new(ErrorKind::Cancelled, "the run continued without this attempt");
        // Sending an answer fails only if the job no longer waits for it.
        while let Some(Message { step, job, ask }) = next {
            match ask {
                Ask::Record(asked, done) if self.accepts(&step, job, Some(&asked)) => {
                    // Usage that was metered until now belongs to the strategy that ends.
                    if let (true, Some(running)) =
                        (asked.iter().any(|event| matches!(event, Event::StrategyEnded { .. })), self.running.get(&step))
                    {
                        events.extend(metered(&step, &running.meter));
                    }
                    events.extend(asked);
                    waiting.push(done);
                }
                Ask::Record(_, done) => drop(done.send(Err(stale()))),
                Ask::Reserve(units, done) => {
                    // What fits the budget depends on the requests before this one.
                    self.record(std::mem::take(&mut events)).await?;
                    waiting.drain(..).for_each(|done| drop(done.send(Ok(()))));
                    let granted = if self.accepts(&step, job, None) { self.reserve(&step, &units).await? } else { Err(stale()) };
                    let _ = done.send(granted);
                }
                Ask::Allow(item, totals, done) => {
                    self.record(std::mem::take(&mut events)).await?;
                    waiting.drain(..).for_each(|done| drop(done.send(Ok(()))));
                    let granted = if self.accepts(&step, job, None) { self.allow(&step, item, &totals).await? } else { Err(stale()) };
                    let _ = done.send(granted);
                }
            }
            next = if events.len() < MAX_COMMIT { self.messages.try_recv().ok() } else { None };
        }
        self.record(events).await?;
        for done in waiting {
            let _ = done.send(Ok(()));
        }
        Ok(())
    }

    /// Reserves the worst-case usage of units, as far as budgets allow; durable when it returns. The inner error is the job's, not the
    /// run's.
    async fn reserve(&mut self, step: &str, units: &[(u32, Usage)]) -> Result<Result<budget::Granted>> {
        let mut granted = match budget::grant(&self.state, &self.workflow, step, units) {
            Ok(granted) => granted,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(purse) = self.engine.purse.clone()
            && granted.units > 0
        {
            let asked = &units[..granted.units];
            let allowed = match budget::totals(&self.state, &self.workflow, step, asked, purse.is_in_dollars()) {
                Ok(totals) => purse.allow(totals).await,
                Err(error) => Err(error),
            };
            match allowed {
                Ok(allowed) if allowed.units < granted.units => granted = allowed,
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        self.record(budget::reserved(step, &units[..granted.units])).await?;
        Ok(Ok(granted))
    }

    /// Lets the run of an item spend up to the largest of these totals that the budgets of this run and of those around it allow; durable when it
    /// returns. The inner error is the job's, not the run's.
    async fn allow(&mut self, name: &str, item: u32, totals: &[Spend]) -> Result<Result<budget::Granted>> {
        let workflow = self.workflow.clone();
        let step = workflow.step(name).ok_or_else(|| Error::internal(format!("the workflow has no step `{name}`")))?;
        let known = budget::known_of(&self.state, step, item);
        let mut granted = budget::allow(&self.state, &workflow, step, item, totals);
        if let Some(purse) = self.engine.purse.clone()
            && granted.units > 0
        {
            let spent = budget::spent_in_run(&self.state, &workflow);
            let own = totals.iter().take(granted.units).map(|total| spent + total.beyond(known)).collect();
            match purse.allow(own).await {
                Ok(allowed) if allowed.units < granted.units => granted = allowed,
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        if let Some(most) = granted.units.checked_sub(1).and_then(|last| totals.get(last))
            && most.beyond(known) != Spend::default()
        {
            let spend = most.at_least(known);
            self.record(vec![Event::InnerSpend { step: name.to_owned(), item, spend }]).await?;
        }
        Ok(Ok(granted))
    }

    /// Whether to accept a request of a job. From an attempt that is over, only the results of units and of requests are
    /// accepted: they were paid for.
    fn accepts(&self, name: &str, job: u64, events: Option<&[Event]>) -> bool {
        let Some(running) = self.running.get(name).filter(|running| running.job == job) else { return false };
        let Some(step) = self.state.steps.get(name) else { return false };
        if let Some(position) = self.state.active.get(name)
            && (position.visit, position.attempt) == (running.visit, running.attempt)
            && matches!(position.phase, Phase::Work | Phase::Backoff { .. })
        {
            return true;
        }
        let is_paid = |event: &Event| match event {
            Event::UnitsEnded { .. } | Event::PublishStarted { .. } | Event::PublishEnded { .. } => step.units.is_some(),
            Event::RequestEnded { .. } => true,
            _ => false,
        };
        step.visits == running.visit && events.is_some_and(|events| events.iter().all(is_paid))
    }

    /// Records how a job ended. A job that was stopped has no result: what it left is done when the run continues.
    async fn ended(&mut self, joined: Result<Ended, tokio::task::JoinError>) -> Result<()> {
        let Ended { step, job, result } = match joined {
            Ok(ended) => ended,
            Err(error) => {
                let Some((step, running)) = self.running.iter().find(|(_, running)| running.abort.id() == error.id()) else {
                    return Ok(());
                };
                let result = if error.is_cancelled() {
                    Error::new(ErrorKind::Timeout, "the step did not stop within its grace period, so it was aborted")
                } else {
                    Error::internal("a plug-in panicked; this is a bug in the plug-in").because(error)
                };
                Ended { step: step.clone(), job: running.job, result: Err(result.into()) }
            }
        };
        // The last requests of a job come before its end.
        while let Ok(message) = self.messages.try_recv() {
            self.handle_messages(message).await?;
        }
        let Some(running) = self.running.get(&step).filter(|running| running.job == job) else { return Ok(()) };
        let (stopped, visit, attempt, meter) = (running.stop_requested.is_some(), running.visit, running.attempt, running.meter.clone());
        self.running.remove(&step);
        let mut events = metered(&step, &meter);
        let current = self.state.active.get(&step).is_some_and(|position| {
            (position.visit, position.attempt) == (visit, attempt) && matches!(position.phase, Phase::Work | Phase::Backoff { .. })
        });
        if !current {
            return if events.is_empty() { Ok(()) } else { self.record(events).await };
        }
        events.push(match result {
            Ok(Done { output, findings, exceptions, usage }) => Event::StepSucceeded { step, output, findings, exceptions, usage },
            Err(failed) if failed.driving => return Err(failed.error),
            Err(failed) if stopped && (failed.error.kind() == ErrorKind::Cancelled || !failed.units) => {
                return if events.is_empty() { Ok(()) } else { self.record(events).await };
            }
            Err(Failed { error, units, .. }) => Event::StepFailed { step, error: ErrorRecord::from(&error), units },
        });
        self.record(events).await
    }

    /// Aborts jobs whose grace period is over, and fails steps whose heartbeat is overdue.
    async fn supervise(&mut self) -> Result<()> {
        let grace = self.engine.options.grace;
        let now = Instant::now();
        let mut silent = None;
        for (step, running) in &mut self.running {
            if running.due(grace).is_none_or(|due| due > now) {
                continue;
            }
            match (running.stop_requested, running.heartbeat) {
                (Some(_), _) => running.abort.abort(),
                (None, Some(heartbeat)) => silent = silent.or(Some((step.clone(), heartbeat))),
                (None, None) => {}
            }
        }
        let Some((step, heartbeat)) = silent else { return Ok(()) };
        let error = Error::new(ErrorKind::Timeout, format!("step `{step}` sent no heartbeat for {heartbeat:?}"));
        self.record(vec![Event::StepFailed { step, error: ErrorRecord::from(&error), units: false }]).await
    }
}
