//! Runs workflows, and does with runs what a person may: resume, redrive, cancel, pause, list, show. How a run is driven is the engine's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::open::{Notice, OpenLake, Repair};
use crate::request::awaitable;
use repair_core::engine::prepare::preflight;
use repair_core::engine::{
    Engine, Event, JsonFormat, Latest, ListedRun, Outcome, PAGE, Recorded, RunReport, RunState, Signal, StartRequest, for_each_event, load,
    new_run_id,
};
use repair_core::model::Table;
use repair_core::price::Budget;
use repair_core::workflow::{StepKind, Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};

/// Starts a run: await it to run the workflow to its end. [`Repair::run`] makes it.
#[must_use = "a run starts when it is awaited"]
pub struct RunRequest<'a> {
    repair: &'a Repair,
    id: Option<String>,
    turn: u64,
    budget: Budget,
}

impl RunRequest<'_> {
    /// Makes it a turn of a schedule, counted from 1: with each turn, other keys come first.
    pub fn turn(mut self, turn: u64) -> Self {
        self.turn = turn;
        self
    }

    /// Lets it spend no more than this, beside the budget of the workflow.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Gives the run an id: letters, digits, `-` and `_`. Without this it gets a new one. If a run with this id exists and was started with the
    /// same input, it is continued, or reported if it has ended.
    pub fn id<'b>(mut self, id: impl Into<Option<&'b str>>) -> Self {
        self.id = id.into().map(str::to_owned);
        self
    }

    async fn perform(self) -> Result<RunReport> {
        check_new_id(self.id.as_deref())?;
        let engine = self.repair.engine().await?;
        let request = StartRequest::new(self.id.unwrap_or_else(new_run_id))
            .with_params(self.repair.params.clone())
            .with_now(self.repair.now)
            .with_turn(self.turn)
            .with_budget(self.budget)
            .with_environment(self.repair.environment.clone());
        engine.start(&self.repair.workflow, request).await
    }
}

awaitable!(RunRequest => RunReport);

impl Repair {
    /// Runs the workflow.
    ///
    /// # Errors
    /// As [`Engine::start`]: if the run could not begin, or can no longer be driven. An error within the run is in the report.
    ///
    /// ```no_run
    /// # async fn example(repair: repair::Repair) -> repair::Result<()> {
    /// let report = repair.run().id("monday").await?;
    /// println!("{:?}, {} slots are missing", report.outcome, report.missing);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(&self) -> RunRequest<'_> {
        RunRequest { repair: self, id: None, turn: 0, budget: Budget::default() }
    }

    /// An engine for this workflow. Nothing is written, not even a journal, for a workflow that cannot begin.
    pub(crate) async fn engine(&self) -> Result<Engine> {
        let around = self.around();
        let variables = self.variables()?;
        preflight(&around.registry, self.opened.as_ref(), &self.lakes, &self.workflow, &variables).await?;
        crate::plan::check_columns(&around.registry, &self.workflow, &variables, (self.opened.as_ref(), &self.lakes)).await?;
        for table in self.repaired(&variables) {
            for what in self.opened.to_create(table).await? {
                around.notice(Notice::WillCreate(what));
            }
        }
        let journal = self.lake().root.journal_to_write().await?;
        Ok(self.lake().engine_on(self.opened.clone(), self.lakes.clone(), journal))
    }

    /// The tables that the workflow repairs.
    fn repaired(&self, variables: &Variables) -> Vec<&Table> {
        let workflow = &self.workflow;
        let mut tables: Vec<&Table> = Vec::new();
        for step in &workflow.steps {
            let StepKind::Repair { of, .. } = &step.kind else { continue };
            let plugins = workflow.step(of).map(|detect| detect.kind.plugins()).unwrap_or_default();
            for with in plugins.iter().filter_map(|(_, _, with)| with.resolve(variables).ok()) {
                let table = with.get("table").and_then(Value::as_str).and_then(|table| workflow.tables.get(table));
                tables.extend(table.filter(|table| !tables.contains(table)));
            }
        }
        tables
    }
}

/// The corrected workflow to continue a run with.
enum Corrected {
    File(PathBuf),
    Value(Box<Workflow>),
}

/// Continues a run: await it to drive the run to its end. [`OpenLake::resume`] and [`OpenLake::redrive`] make it.
#[must_use = "a run is continued when this is awaited"]
pub struct ContinueRequest<'a> {
    lake: &'a OpenLake,
    run: String,
    redrive: bool,
    corrected: Option<Corrected>,
}

impl ContinueRequest<'_> {
    /// Continues with the corrected workflow in a file, in place of the one that the run started with. It is refused if what the run already did
    /// would mean something else.
    pub fn with_file<'b>(mut self, file: impl Into<Option<&'b Path>>) -> Self {
        self.corrected = file.into().map(|file| Corrected::File(file.to_owned()));
        self
    }

    /// As [`ContinueRequest::with_file`], with a workflow that is checked already.
    pub fn with(mut self, workflow: Workflow) -> Self {
        self.corrected = Some(Corrected::Value(Box::new(workflow)));
        self
    }

    async fn perform(self) -> Result<RunReport> {
        // Only a lake in which something was run has runs to continue; no journal is created for one that has none.
        self.lake.journal().await?;
        let corrected = match self.corrected {
            None => None,
            Some(Corrected::Value(workflow)) => Some(*workflow),
            Some(Corrected::File(file)) => Some(Workflow::load(&file, &self.lake.around.registry)?),
        };
        let engine = self.lake.engine_of(&self.run, corrected.as_ref()).await?;
        match (&corrected, self.redrive) {
            (corrected, true) => engine.redrive(&self.run, corrected.as_ref()).await,
            (Some(corrected), false) => engine.resume_with(&self.run, corrected).await,
            (None, false) => engine.resume(&self.run).await,
        }
    }
}

awaitable!(ContinueRequest => RunReport);

/// How often the journal is looked at for new events of a run that is followed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The name of the run that started last, for [`OpenLake::find_run`].
const LAST: &str = "last";

/// Refuses an id by which no command would find the run.
pub(crate) fn check_new_id(id: Option<&str>) -> Result<()> {
    if id == Some(LAST) {
        return Err(Error::invalid(format!("`{LAST}` is not a valid run id, since it means the run that started last; use another")));
    }
    Ok(())
}

/// The run that ran another one as a step, by the environment of that.
pub(crate) fn parent_of(environment: &Value) -> Option<&str> {
    environment.get("parent").and_then(Value::as_str)
}

/// A run in a listing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// Its id.
    pub run: String,
    /// Its workflow.
    pub workflow: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it last recorded something.
    pub last_at: Timestamp,
    /// What it does now.
    pub status: RunStatus,
    /// How it ended; `None` if it has not.
    pub outcome: Option<Outcome>,
    /// Whether it is paused.
    pub paused: bool,
    /// Until when it waits, if the last thing that it did was to begin a wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_until: Option<Timestamp>,
}

impl RunSummary {
    /// A run in a listing of the journal.
    fn new(listed: ListedRun) -> Self {
        let ListedRun { run, begun, latest, driver } = listed;
        let Latest { at: last_at, outcome, paused, waits_until } = latest;
        let status = match outcome {
            Some(_) => RunStatus::Ended,
            None if paused => RunStatus::Paused,
            None if driver.is_none() => RunStatus::Stopped,
            None if waits_until.is_some() => RunStatus::Waiting,
            None => RunStatus::Running,
        };
        Self { run, workflow: begun.workflow, started_at: begun.at, last_at, status, outcome, paused, waits_until }
    }

    /// The status in a word, or how the run ended.
    pub fn word(&self) -> &'static str {
        self.outcome.map_or(self.status.as_str(), |outcome| outcome.as_str())
    }
}

/// What a run does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunStatus {
    /// A process drives it.
    Running,
    /// A process drives it, and waits until a step or another attempt is due.
    Waiting,
    /// It was paused.
    Paused,
    /// Nothing drives it: its process was stopped or killed. It can be resumed.
    Stopped,
    /// It has ended, and has an outcome.
    Ended,
}

impl RunStatus {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
        }
    }
}

/// The runs of a lake, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Runs {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The runs.
    pub runs: Vec<RunSummary>,
}

/// What came of a request to cancel or pause a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StopReport {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The run.
    pub run: String,
    /// What was asked for.
    pub signal: Signal,
    /// Whether the run is stopped now. If not, the process that drives it was asked to stop, and first stops what is under way.
    pub stopped: bool,
    /// How the run ended, if it has.
    pub outcome: Option<Outcome>,
}

impl OpenLake {
    /// Continues a run that was stopped, paused or killed.
    ///
    /// # Errors
    /// As [`Engine::resume`].
    pub fn resume(&self, run: impl Into<String>) -> ContinueRequest<'_> {
        ContinueRequest { lake: self, run: run.into(), redrive: false, corrected: None }
    }

    /// Continues a run that failed or was cancelled, from where it failed. What succeeded is not done again.
    ///
    /// # Errors
    /// As [`Engine::redrive`].
    pub fn redrive(&self, run: impl Into<String>) -> ContinueRequest<'_> {
        ContinueRequest { lake: self, run: run.into(), redrive: true, corrected: None }
    }

    /// Cancels a run, once what is under way has stopped and is accounted for.
    ///
    /// # Errors
    /// As [`Engine::cancel`].
    pub async fn cancel(&self, run: &str) -> Result<StopReport> {
        self.ask(run, Signal::Cancel).await
    }

    /// Pauses a run, once what is under way has stopped. [`OpenLake::resume`] continues it.
    ///
    /// # Errors
    /// As [`Engine::pause`].
    pub async fn pause(&self, run: &str) -> Result<StopReport> {
        self.ask(run, Signal::Pause).await
    }

    async fn ask(&self, run: &str, signal: Signal) -> Result<StopReport> {
        self.journal().await?;
        let engine = self.engine_of(run, None).await?;
        let stopped = match signal {
            Signal::Cancel => engine.cancel(run).await?,
            Signal::Pause => engine.pause(run).await?,
            other => return Err(Error::internal(format!("a run cannot be asked to {}", other.as_str()))),
        };
        let outcome = stopped.as_ref().and_then(|report| report.outcome);
        Ok(StopReport { format: JsonFormat, run: run.to_owned(), signal, stopped: stopped.is_some(), outcome })
    }

    /// An engine on the lake as a run has it, which may read those that a corrected workflow reads.
    async fn engine_of(&self, run: &str, corrected: Option<&Workflow>) -> Result<Engine> {
        let journal = self.root.journal_to_write().await?;
        let lake = self.lake_of(Some((journal.as_ref(), run))).await?;
        let lakes = self.lakes_of_run(journal.as_ref(), run, corrected).await?;
        Ok(self.engine_on(lake, lakes, journal))
    }

    /// Lists the runs, newest first.
    ///
    /// # Errors
    /// `not-found` if nothing was ever run in the lake; those of the journal.
    pub async fn runs(&self) -> Result<Runs> {
        let journal = self.journal().await?;
        let listed = journal.listed(self.around.clock.lease_now()).await?;
        Ok(Runs { format: JsonFormat, runs: listed.into_iter().rev().map(RunSummary::new).collect() })
    }

    /// The run that a person means: by its whole id, by the beginning of its id if no other run's begins so, or `last` for the run that
    /// started last. A run that another one ran as a step is meant only by its whole id. `None` if no run is meant.
    ///
    /// # Errors
    /// `invalid` if the ids of several runs begin so; it lists some. `not-found` if nothing was ever run in the lake; those of the journal.
    pub async fn find_run(&self, name: &str) -> Result<Option<String>> {
        /// How many ids a message lists.
        const SHOWN: usize = 5;
        let journal = self.journal().await?;
        if name.is_empty() {
            return Ok(None);
        }
        if !journal.read(name, 0, 1).await?.is_empty() {
            return Ok(Some(name.to_owned()));
        }
        let listed = journal.listed(self.around.clock.now()).await?.into_iter().filter(|run| run.begun.parent.is_none());
        let mut runs: Vec<String> = listed.map(|listed| listed.run).collect();
        if name == LAST {
            return Ok(runs.pop());
        }
        runs.retain(|run| run.starts_with(name));
        if runs.len() > 1 {
            let shown: Vec<&str> = runs.iter().rev().take(SHOWN).map(String::as_str).collect();
            let more = if runs.len() > SHOWN { format!(" and {} more", runs.len() - SHOWN) } else { String::new() };
            let message = format!("the ids of {} runs begin with `{name}`: {}{more}; write more of the id", runs.len(), shown.join(", "));
            return Err(Error::invalid(message));
        }
        Ok(runs.pop())
    }

    /// Reports what a run did, whether it has ended or not.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `invalid` if its history is damaged.
    pub async fn report(&self, run: &str) -> Result<RunReport> {
        Ok(RunReport::new(run, &self.state(run).await?))
    }

    /// The state of a run: all that its events add up to.
    ///
    /// # Errors
    /// As [`OpenLake::report`].
    pub async fn state(&self, run: &str) -> Result<RunState> {
        load(self.journal().await?.as_ref(), run).await
    }

    /// Calls `visit` with each event of a run, in order, and with those that are still to come, until the run has ended or is paused, or
    /// nothing drives it any more.
    ///
    /// # Errors
    /// As [`OpenLake::report`], and those of `visit`; `cancelled` if this process is to stop.
    pub async fn follow(&self, run: &str, mut visit: impl FnMut(Recorded) -> Result<()> + Send) -> Result<()> {
        let journal = self.journal().await?;
        let mut next = 0;
        loop {
            // Asked before the events are read: what a driver appends before it lets go is then seen.
            let is_driven = journal.driver(run, self.around.clock.lease_now()).await?.is_some();
            let before = next;
            let mut is_over = !is_driven;
            loop {
                let page = journal.read(run, next, PAGE).await?;
                let Some(last) = page.last() else { break };
                next = last.sequence + 1;
                is_over = !is_driven || matches!(last.event, Event::RunEnded { .. } | Event::RunPaused);
                for recorded in page {
                    visit(recorded)?;
                }
            }
            if next == 0 {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no run `{run}` in this lake")));
            }
            // A run that has just ended may be redriven at once, but that is another thing to follow.
            if is_over && (next > before || !is_driven) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.around.stop.cancelled() => return Err(Error::new(ErrorKind::Cancelled, "stopped following the run; it goes on")),
            }
        }
    }

    /// Calls `visit` with each event of a run, in order.
    ///
    /// # Errors
    /// As [`OpenLake::report`], and those of `visit`.
    pub async fn events(&self, run: &str, mut visit: impl FnMut(Recorded) -> Result<()> + Send) -> Result<()> {
        let journal = self.journal().await?;
        let mut seen = false;
        for_each_event(journal.as_ref(), run, |recorded| {
            seen = true;
            visit(recorded)
        })
        .await?;
        if seen { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, format!("there is no run `{run}` in this lake"))) }
    }
}
