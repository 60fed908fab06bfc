//! Drives runs: performs what [`decide`](super::decide) says, appends what happened to the journal, folds it, and decides again. The
//! only async part of the engine besides the fan-out, and the only one that does I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::artifact;
use super::decide::{Decision, decide, variables};
use super::event::{ErrorRecord, Event, FORMAT, FindingsRecord, Recorded, UnitEnded, UnitResult};
use super::fanout::{Fanout, Work};
use super::journal::Journal;
use super::rate::{RateLimited, RateLimiter};
use super::report::RunReport;
use super::retry;
use super::state::{Fanout as FanoutState, RunState, UnitState};
use crate::cost::Usage;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Lake, StageScope};
use crate::model::{Counts, Findings, Table, Unit};
use crate::plugin::{AggregateRequest, Clock, Detector, Plugin, PluginKind, Progress, Registry, Source, StepContext};
use crate::workflow::{Rate, Step, StepKind, Template, Tolerance, Variables, Workflow};

/// At most so many units are merged into one publication, which bounds the memory that takes.
const PUBLISH_UNITS: usize = 4_096;

/// At most so many events one run may have: beyond it, a loop has gone wrong.
const MAX_EVENTS: u64 = 10_000_000;

/// Is told what happens in a run, as it is recorded.
pub trait Observer: Progress {
    /// An event was recorded; `state` is what the run has come to with it.
    fn recorded(&self, recorded: &Recorded, state: &RunState);
}

impl Observer for () {
    fn recorded(&self, _: &Recorded, _: &RunState) {}
}

/// What a run needs around it: where things are, and who is told.
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
    /// Cancel it to stop soon; the run can be resumed.
    pub cancel: CancellationToken,
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

/// At most so long may an id be: it is part of file names.
const RUN_ID_LENGTH: usize = 64;

fn check_run_id(run: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if run.is_empty() || run.len() > RUN_ID_LENGTH || !run.chars().all(fine) {
        return Err(Error::invalid(format!("`{run}` can't be a run's id; use at most {RUN_ID_LENGTH} letters, digits, `-` and `_`")));
    }
    Ok(())
}

impl Engine {
    /// An engine on the machine's clock that tells nobody.
    pub fn new(registry: Arc<Registry>, lake: Arc<dyn Lake>, journal: Arc<dyn Journal>) -> Self {
        let cancel = CancellationToken::new();
        Self { registry, lake, journal, clock: Arc::new(crate::plugin::SystemClock), observer: Arc::new(()), cancel }
    }

    /// Starts a run and drives it to its end. Starting the same id with the same input again goes on with it, or, if it has ended,
    /// returns its report.
    ///
    /// # Errors
    /// If the run could not begin (nothing is written then): a table that is not there, a lake that can't be written to, a
    /// configuration that does not fit; `conflict` if the id is taken by a run with other input. Also if the journal fails, or
    /// `cancelled` if it was told to stop. An error within the run is not an error here: the report tells it.
    pub async fn start(&self, workflow: &Workflow, request: StartRequest) -> Result<RunReport> {
        check_run_id(&request.run)?;
        let events = all_events(self.journal.as_ref(), &request.run).await?;
        if !events.is_empty() {
            let state = RunState::fold(&events)?;
            let same = state.started.definition == workflow.text
                && state.started.params == request.params
                && state.started.environment == request.environment;
            if !same {
                let message = format!("run `{}` exists and was started with other input; use another --run-id, or resume it", request.run);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            return self.drive(&request.run, workflow, state).await;
        }
        preflight(&self.registry, self.lake.as_ref(), workflow, &request.params).await?;
        let seed = u64::from_le_bytes(*blake3::hash(request.run.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 8]));
        let started = Event::RunStarted {
            format: FORMAT,
            workflow: workflow.name.clone(),
            definition: workflow.text.clone(),
            file: workflow.file.clone(),
            params: request.params,
            environment: request.environment,
            seed,
        };
        let at = self.clock.now();
        let recorded = Recorded { sequence: 0, at, event: started };
        self.journal.append(&request.run, 0, at, std::slice::from_ref(&recorded.event)).await?;
        let state = RunState::fold(std::slice::from_ref(&recorded))?;
        self.observer.recorded(&recorded, &state);
        self.drive(&request.run, workflow, state).await
    }

    /// Goes on with a run, with the definition it started with.
    ///
    /// # Errors
    /// `not-found` if there is no such run; otherwise as [`Engine::start`].
    pub async fn resume(&self, run: &str) -> Result<RunReport> {
        let state = load(self.journal.as_ref(), run).await?;
        let workflow = Workflow::parse(&state.started.file, &state.started.definition, &self.registry).map_err(|diagnostics| {
            Error::invalid("the run's definition is not one that this program can run").on("run", run).because(diagnostics)
        })?;
        self.drive(run, &workflow, state).await
    }

    async fn drive(&self, run: &str, workflow: &Workflow, state: RunState) -> Result<RunReport> {
        let variables = Variables { params: Value::Object(state.started.params.clone().into_iter().collect()), ..Variables::default() };
        let context = StepContext {
            run: run.into(),
            step: "".into(),
            visit: 0,
            lake: self.lake.clone(),
            tables: Arc::new(workflow.tables.clone()),
            sources: Arc::new(sources(&self.registry, &self.clock, workflow, &variables)?),
            calendars: Arc::new(self.registry.calendars().clone()),
            clock: self.clock.clone(),
            cancel: self.cancel.clone(),
            progress: Arc::new(Forward(self.observer.clone())),
        };
        let mut session = Session { engine: self, run, workflow, state, context, plugins: HashMap::new() };
        session.drive().await?;
        Ok(RunReport::new(run, &session.state))
    }
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
        let Some((kind, plugin, with)) = plugin_of(&step.kind) else { continue };
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

/// A run's state, from its journal.
///
/// # Errors
/// `not-found` if there is no such run; `invalid` if its history is damaged.
pub async fn load(journal: &dyn Journal, run: &str) -> Result<RunState> {
    let events = all_events(journal, run).await?;
    if events.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no run `{run}` in this journal")));
    }
    RunState::fold(&events).map_err(|error| error.on("run", run))
}

struct Forward(Arc<dyn Observer>);

impl Progress for Forward {
    fn advance(&self, step: &str, done: u64, total: u64) {
        self.0.advance(step, done, total);
    }
}

/// One driver's hold on one run.
struct Session<'a> {
    engine: &'a Engine,
    run: &'a str,
    workflow: &'a Workflow,
    state: RunState,
    context: StepContext,
    /// Plug-ins made for this visit, so that a retry meets the same one.
    plugins: HashMap<(String, u32), Plugin>,
}

impl Session<'_> {
    async fn drive(&mut self) -> Result<()> {
        loop {
            if self.state.next_sequence > MAX_EVENTS {
                return Err(Error::internal(format!("the run has more than {MAX_EVENTS} events; it seems to go in circles")));
            }
            match decide(&self.state, self.workflow, self.engine.clock.now()) {
                Decision::Nothing => return Ok(()),
                Decision::Record(events) => self.record(events).await?,
                Decision::Sleep { due } => {
                    self.check_cancelled()?;
                    tokio::select! {
                        () = self.engine.clock.sleep_until(due) => {}
                        () = self.engine.cancel.cancelled() => {}
                    }
                }
                Decision::Work { step, visit } => {
                    self.check_cancelled()?;
                    self.work(&step, visit).await?;
                }
            }
        }
    }

    fn check_cancelled(&self) -> Result<()> {
        let stopped =
            || Error::new(ErrorKind::Cancelled, format!("run `{}` was told to stop; go on with `repair resume {}`", self.run, self.run));
        if self.engine.cancel.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    async fn record(&mut self, events: Vec<Event>) -> Result<()> {
        let at = self.engine.clock.now();
        self.engine.journal.append(self.run, self.state.next_sequence, at, &events).await?;
        for event in events {
            let recorded = Recorded { sequence: self.state.next_sequence, at, event };
            self.state.apply(&recorded)?;
            self.engine.observer.recorded(&recorded, &self.state);
        }
        Ok(())
    }

    /// Does a step's work. An error of the step is recorded; what is returned is an error of the driving itself.
    async fn work(&mut self, name: &str, visit: u32) -> Result<()> {
        let workflow = self.workflow;
        let step = workflow.step(name).ok_or_else(|| Error::internal(format!("the workflow has no step `{name}`")))?;
        let context = StepContext { step: name.into(), visit, ..self.context.clone() };
        if let StepKind::Repair { .. } = &step.kind {
            return self.repair(step, &context).await;
        }
        let done = match &step.kind {
            StepKind::Verify { of } => self.look(step, &context, of, true).await,
            StepKind::Detect { .. } => self.look(step, &context, name, false).await,
            StepKind::Aggregate { of, .. } => self.aggregate(step, &context, of.as_deref()).await,
            StepKind::Task { .. } => self.task(step, &context).await,
            _ => Err(Error::internal(format!("step `{name}` has no work"))),
        };
        self.finish(name, done).await
    }

    /// Records how a step's attempt ended. One that was told to stop has not ended: it is done again on resume.
    async fn finish(&mut self, step: &str, done: Result<Done>) -> Result<()> {
        let event = match done {
            Ok(Done { output, findings, usage }) => Event::StepSucceeded { step: step.to_owned(), output, findings, usage },
            Err(error) if error.kind() == ErrorKind::Cancelled && self.engine.cancel.is_cancelled() => return self.check_cancelled(),
            Err(error) => Event::StepFailed { step: step.to_owned(), error: ErrorRecord::from(&error) },
        };
        self.record(vec![event]).await
    }

    /// The plug-in of a step, made once a visit from the configuration as it is then.
    fn plugin(&mut self, step: &Step, visit: u32) -> Result<Plugin> {
        let id = (step.name.clone(), visit);
        if let Some(plugin) = self.plugins.get(&id) {
            return Ok(plugin.clone());
        }
        let (kind, name, with) = plugin_of(&step.kind).ok_or_else(|| Error::internal(format!("step `{}` has no plug-in", step.name)))?;
        let plugin =
            make(&self.engine.registry, kind, name, &with.resolve(&self.variables())?).map_err(|error| error.on("step", &step.name))?;
        self.plugins.insert(id, plugin.clone());
        Ok(plugin)
    }

    fn variables(&self) -> Variables {
        let now = self.engine.clock.now();
        self.state.position.as_ref().map(|position| variables(&self.state, position, now)).unwrap_or_default()
    }

    async fn look(&mut self, step: &Step, context: &StepContext, of: &str, again: bool) -> Result<Done> {
        let detect = self.workflow.step(of).ok_or_else(|| Error::internal(format!("the workflow has no step `{of}`")))?;
        let detector: Arc<dyn Detector> = match self.plugin(detect, context.visit)? {
            Plugin::Detector(detector) => detector,
            _ => return Err(Error::internal(format!("step `{of}` is not a detector"))),
        };
        let before = if again { Some(self.findings(of).await?) } else { None };
        let found = detector.detect(context, before.as_ref()).await?;
        let artifact = format!("{}-{}-gaps", step.name, context.visit);
        let mut usage = found.usage;
        usage += context.lake.put_artifact(&context.run, &artifact, one(artifact::gaps_to_batch(&found.gaps)?)).await?;
        let output = serde_json::to_value(found.counts).map_err(|error| Error::internal("counts are not JSON").because(error))?;
        let counts = before.map_or(found.counts, |before| after_repair(before.counts, found.counts));
        let record = FindingsRecord { of: of.to_owned(), scope: found.scope, counts, artifact };
        Ok(Done { output, findings: Some(Box::new(record)), usage })
    }

    /// The latest findings of a detect step, gaps included.
    async fn findings(&self, of: &str) -> Result<Findings> {
        let record =
            self.state.findings.get(of).ok_or_else(|| Error::invalid(format!("step `{of}` has found nothing yet; it must come before")))?;
        let gaps =
            artifact::gaps_from_batches(&self.engine.lake.get_artifact(self.run, &record.artifact).await?.try_collect::<Vec<_>>().await?)?;
        Ok(Findings { scope: record.scope.clone(), counts: record.counts, gaps, usage: Usage::default() })
    }

    async fn aggregate(&mut self, step: &Step, context: &StepContext, of: Option<&str>) -> Result<Done> {
        let Plugin::Aggregator(aggregator) = self.plugin(step, context.visit)? else {
            return Err(Error::internal(format!("step `{}` is not an aggregator", step.name)));
        };
        let findings = match of {
            Some(of) => Some(self.findings(of).await?),
            None => None,
        };
        let done = aggregator.aggregate(context, AggregateRequest { findings: findings.as_ref() }).await?;
        Ok(Done { output: done.output, findings: None, usage: done.usage })
    }

    async fn task(&mut self, step: &Step, context: &StepContext) -> Result<Done> {
        let Plugin::Task(task) = self.plugin(step, context.visit)? else {
            return Err(Error::internal(format!("step `{}` is not a task", step.name)));
        };
        let (output, usage) = task.perform(context).await?;
        Ok(Done { output, findings: None, usage })
    }

    async fn repair(&mut self, step: &Step, context: &StepContext) -> Result<()> {
        let work = match self.prepare(step, context).await {
            Ok(work) => work,
            Err(error) => return self.finish(&step.name, Err(error)).await,
        };
        let scope = StageScope { run: &context.run, step: &step.name, visit: context.visit, table: &work.table };
        let ids: Vec<String> = work.units.iter().map(|unit| unit.id(&work.table.name, &work.work.strategy)).collect();
        self.recover(step, &scope, &ids).await?;
        self.do_units(step, &work).await?;
        self.publish(step, &scope, &ids).await?;
        self.check_cancelled()?;
        let fanout = self.fanout(step)?;
        let first_error =
            fanout.indexes(|unit| matches!(unit, UnitState::Failed(_))).first().and_then(|unit| fanout.errors.get(unit).cloned());
        let event = match first_error {
            Some(error) => Event::StepFailed { step: step.name.clone(), error },
            None => {
                let output = fanout.output();
                Event::StepSucceeded { step: step.name.clone(), output, findings: None, usage: Usage::default() }
            }
        };
        self.record(vec![event]).await?;
        if self.fanout(step)?.count(|unit| unit != UnitState::Published) == 0 {
            // All is published and journaled; what stays here after a crash costs space, nothing else.
            if let Err(error) = self.engine.lake.discard_staged(&scope, &ids).await {
                tracing::warn!(step = step.name, error = error.full(), "staged objects could not be removed");
            }
        }
        Ok(())
    }

    /// Plans the visit's units, or reads the plan it made before.
    async fn prepare(&mut self, step: &Step, context: &StepContext) -> Result<Prepared> {
        let StepKind::Repair { of, rate_limit, .. } = &step.kind else { return Err(Error::internal("not a repair step")) };
        let Plugin::Repairer(repairer) = self.plugin(step, context.visit)? else {
            return Err(Error::internal(format!("step `{}` is not a repairer", step.name)));
        };
        let findings = Arc::new(self.findings(of).await?);
        let table = Arc::new(context.table(&findings.scope.table)?.clone());
        let strategy: Arc<str> = plugin_of(&step.kind).map_or("", |(_, plugin, _)| plugin).into();
        let planned = self.state.steps.get(&step.name).and_then(|state| state.fanout.as_ref()).map(|fanout| fanout.artifact.clone());
        let units = match planned {
            Some(artifact) => {
                artifact::units_from_batches(&context.lake.get_artifact(&context.run, &artifact).await?.try_collect::<Vec<_>>().await?)?
            }
            None => {
                let units: Vec<Unit> = repairer.plan(context, &findings).await?.collect::<Result<_>>()?;
                let count = u32::try_from(units.len()).map_err(|_| Error::invalid("more than four billion units; narrow the interval"))?;
                let artifact = format!("{}-{}-units", step.name, context.visit);
                context.lake.put_artifact(&context.run, &artifact, one(artifact::units_to_batch(&units)?)).await?;
                let slots = units.iter().map(Unit::slots).sum();
                let planned = Event::UnitsPlanned {
                    step: step.name.clone(),
                    table: table.name.clone(),
                    strategy: strategy.to_string(),
                    units: count,
                    slots,
                    artifact,
                };
                self.record(vec![planned]).await?;
                units
            }
        };
        if self.fanout(step)?.units.len() != units.len() {
            return Err(Error::invalid(format!("the list of units of step `{}` is not the one that was planned", step.name)));
        }
        let limiter = rate_limit.map(|rate: Rate| Arc::new(RateLimiter::new(rate, self.engine.clock.clone())));
        let work = Work { context: context.clone(), repairer, findings, table: table.clone(), strategy, limiter };
        Ok(Prepared { work, table, units: Arc::new(units) })
    }

    /// Units that were staged before a crash, but not journaled, are found by name and never paid for again.
    async fn recover(&mut self, step: &Step, scope: &StageScope<'_>, ids: &[String]) -> Result<()> {
        let pending = self.fanout(step)?.indexes(|unit| unit == UnitState::Pending);
        if pending.is_empty() {
            return Ok(());
        }
        let mut staged: HashMap<String, _> =
            self.engine.lake.staged(scope).await?.into_iter().map(|staged| (staged.unit.clone(), staged)).collect();
        let found: Vec<UnitEnded> = pending
            .into_iter()
            .filter_map(|unit| {
                let staged = staged.remove(ids.get(unit as usize)?)?;
                Some(UnitEnded { unit, result: UnitResult::Staged { rows: staged.rows, absent: staged.absent, usage: staged.usage } })
            })
            .collect();
        if found.is_empty() { Ok(()) } else { self.record(vec![Event::UnitsEnded { step: step.name.clone(), units: found }]).await }
    }

    async fn do_units(&mut self, step: &Step, prepared: &Prepared) -> Result<()> {
        let StepKind::Repair { concurrency, tolerate, .. } = &step.kind else { return Err(Error::internal("not a repair step")) };
        let fanout = self.fanout(step)?;
        let total = fanout.units.len() as u64;
        let pending = fanout.indexes(|unit| unit == UnitState::Pending);
        let mut done = total - pending.len() as u64;
        let progress = prepared.work.context.progress.clone();
        progress.advance(&step.name, done, total);
        let mut running = Fanout::new(prepared.work.clone(), prepared.units.clone(), pending, *concurrency);
        loop {
            let mut group = running.next_group().await;
            if group.is_empty() {
                return Ok(());
            }
            if self.engine.cancel.is_cancelled() {
                // A unit that was told to stop has not failed: it is done again on resume.
                group.retain(|ended| !matches!(&ended.result, UnitResult::Failed { error } if error.kind == ErrorKind::Cancelled));
                if group.is_empty() {
                    continue;
                }
            }
            done += group.len() as u64;
            self.record(vec![Event::UnitsEnded { step: step.name.clone(), units: group }]).await?;
            progress.advance(&step.name, done, total);
            if self.is_hopeless(step, *tolerate, total)? {
                running.stop();
            }
        }
    }

    /// Whether more units than tolerated failed with errors that no retry rule names: asking on would only cost.
    fn is_hopeless(&self, step: &Step, tolerate: Tolerance, total: u64) -> Result<bool> {
        let used = self.state.position.as_ref().map(|position| position.rules_used.clone()).unwrap_or_default();
        let lost = |kind| retry::applicable(&step.retry, &used, kind).is_none();
        let lost = self.fanout(step)?.count(|unit| matches!(unit, UnitState::Failed(kind) if lost(kind)));
        Ok(tolerate.exceeded(lost, total))
    }

    /// Publishes what is staged: first what was begun before a crash, then the rest.
    async fn publish(&mut self, step: &Step, scope: &StageScope<'_>, ids: &[String]) -> Result<()> {
        let begun: Vec<(u32, Vec<u32>)> = (0u32..)
            .zip(&self.fanout(step)?.batches)
            .filter(|(_, (_, ended))| !ended)
            .map(|(batch, (units, _))| (batch, units.clone()))
            .collect();
        for (batch, units) in begun {
            self.publish_batch(step, scope, ids, batch, &units).await?;
        }
        let staged = self.fanout(step)?.indexes(|unit| unit == UnitState::Staged);
        for units in staged.chunks(PUBLISH_UNITS) {
            let batch = u32::try_from(self.fanout(step)?.batches.len()).unwrap_or(u32::MAX);
            self.record(vec![Event::PublishStarted { step: step.name.clone(), batch, units: units.to_vec() }]).await?;
            self.publish_batch(step, scope, ids, batch, units).await?;
        }
        Ok(())
    }

    async fn publish_batch(&mut self, step: &Step, scope: &StageScope<'_>, ids: &[String], batch: u32, units: &[u32]) -> Result<()> {
        let ids: Vec<String> = units.iter().filter_map(|&unit| ids.get(unit as usize).cloned()).collect();
        let done = self.engine.lake.publish(scope, batch, &ids).await?;
        let event = Event::PublishEnded { step: step.name.clone(), batch, rows: done.rows, absent: done.absent, usage: done.usage };
        self.record(vec![event]).await
    }

    fn fanout(&self, step: &Step) -> Result<&FanoutState> {
        let fanout = self.state.steps.get(&step.name).and_then(|state| state.fanout.as_ref());
        fanout.ok_or_else(|| Error::internal(format!("step `{}` has planned no units", step.name)))
    }
}

/// What a step's attempt came to.
struct Done {
    output: Value,
    findings: Option<Box<FindingsRecord>>,
    usage: Usage,
}

/// A repair step's visit, ready to go.
struct Prepared {
    work: Work,
    table: Arc<Table>,
    units: Arc<Vec<Unit>>,
}

fn plugin_of(kind: &StepKind) -> Option<(PluginKind, &str, &Template)> {
    match kind {
        StepKind::Detect { plugin, with } => Some((PluginKind::Detector, plugin, with)),
        StepKind::Repair { plugin, with, .. } => Some((PluginKind::Repairer, plugin, with)),
        StepKind::Aggregate { plugin, with, .. } => Some((PluginKind::Aggregator, plugin, with)),
        StepKind::Task { plugin, with } => Some((PluginKind::Task, plugin, with)),
        StepKind::Wait(_) | StepKind::Verify { .. } | StepKind::Succeed | StepKind::Fail { .. } => None,
    }
}

/// The counts of the whole scope, when a look at its gaps alone has found `again`.
fn after_repair(before: Counts, again: Counts) -> Counts {
    Counts {
        present: before.present + again.present,
        repaired: before.repaired + again.repaired,
        absent: before.absent + again.absent,
        missing: again.missing,
        gaps: again.gaps,
        ..before
    }
}

fn one(batch: arrow::array::RecordBatch) -> crate::lake::BatchStream {
    futures::stream::iter([Ok(batch)]).boxed()
}

async fn all_events(journal: &dyn Journal, run: &str) -> Result<Vec<Recorded>> {
    let mut events = Vec::new();
    super::journal::for_each_event(journal, run, |event| {
        events.push(event);
        Ok(())
    })
    .await?;
    Ok(events)
}
