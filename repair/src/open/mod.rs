//! Opens what everything else works on: a workflow with a profile, or a lake by itself. It must not know what is done with it.

mod bucket;
mod folder;
mod nothing;
mod others;
mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::notify::{AtDesk, Notifications};
use crate::plan::Plan;
use crate::run::parent_of;
use crate::said::Proposals;
use repair_core::engine::prepare::Lakes;
use repair_core::engine::{Engine, Event, Journal, Observer, RunState, load};
use repair_core::lake::Lake;
use repair_core::plugin::{Clock, Registry, SystemClock};
use repair_core::workflow::{Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};

pub(crate) use nothing::NoRuns;
use others::Others;
pub(crate) use place::{Place, Root};

/// The registry of all plug-ins that this crate was built with: the built-in ones, and those of the features `connect` and `stocks`.
///
/// Add your own to it, and give it to [`Opening::registry`]. Workflows may run every program; a server registers the plug-ins of `connect` again, with the
/// programs that it allows.
///
/// ```
/// use repair::core::plugin::PluginKind;
///
/// let registry = repair::registry();
/// assert!(registry.get(PluginKind::Detector, "gaps").is_some());
/// ```
pub fn registry() -> Registry {
    #[cfg_attr(not(any(feature = "connect", feature = "stocks")), expect(unused_mut, reason = "more is added to it"))]
    let mut registry = Registry::default();
    #[cfg(feature = "connect")]
    repair_connect::register(&mut registry);
    #[cfg(feature = "stocks")]
    repair_stocks::register(&mut registry);
    registry
}

/// So many of the latest runs are asked which database has the tables of a lake.
const MOST_RUNS_ASKED: usize = 16;

/// How deep runs are within runs, at most.
const MOST_RUNS_WITHIN: usize = 64;

/// Something that a person may want to know before a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// This will be created in the lake when it is first needed.
    WillCreate(String),
    /// The plan was applied before, as this run; the run is continued, or reported again if it has ended.
    AppliedBefore {
        /// The run's id.
        run: String,
    },
    /// These tables have changed since the plan was made, but the same slots are missing.
    TablesChanged(Vec<String>),
}

/// What everything needs besides a lake.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<dyn Clock>,
    observers: Vec<Arc<dyn Observer>>,
    notify: Option<Notifications>,
    pub(crate) stop: CancellationToken,
    notices: Option<Arc<dyn Fn(Notice) + Send + Sync>>,
    /// What was said of approvals.
    pub(crate) proposals: Arc<Proposals>,
}

impl Around {
    fn new() -> Self {
        Self {
            registry: Arc::new(registry()),
            clock: Arc::new(SystemClock),
            observers: Vec::new(),
            notify: None,
            stop: CancellationToken::new(),
            notices: None,
            proposals: Arc::default(),
        }
    }

    /// Who receives what happens in runs.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(self.observers.clone())
    }

    /// Who delivers messages, if anybody does.
    pub(crate) fn notifications(&self) -> Option<&Notifications> {
        self.notify.as_ref()
    }

    pub(crate) fn notice(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            notices(notice);
        }
    }
}

macro_rules! around {
    () => {
        /// Uses these plug-ins instead of [`registry`]'s.
        #[must_use = "it is returned, not changed in place"]
        pub fn registry(mut self, registry: impl Into<Arc<Registry>>) -> Self {
            self.around.registry = registry.into();
            self
        }

        /// Uses this clock instead of the machine's.
        #[must_use = "it is returned, not changed in place"]
        pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
            self.around.clock = clock;
            self
        }

        /// Reports each event of a run, and the progress of steps, to this observer too, after those that were given before.
        #[must_use = "it is returned, not changed in place"]
        pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
            self.around.observers.push(observer);
            self
        }

        /// Delivers messages about runs, as the `notify` and `lineage` of their workflows say. Without this, nobody hears of them before
        /// [`OpenLake::deliver_pending`].
        #[must_use = "it is returned, not changed in place"]
        pub fn notify(mut self, notifications: &Notifications) -> Self {
            self.around.notify = Some(notifications.clone());
            self
        }

        /// Stops soon after this token is cancelled. A run that was stopped can be resumed.
        #[must_use = "it is returned, not changed in place"]
        pub fn stop(mut self, stop: CancellationToken) -> Self {
            self.around.stop = stop;
            self
        }

        /// Reports what a person may want to know before a run begins.
        #[must_use = "it is returned, not changed in place"]
        pub fn notices(mut self, notices: impl Fn(Notice) + Send + Sync + 'static) -> Self {
            self.around.notices = Some(Arc::new(notices));
            self
        }
    };
}

/// Where a workflow comes from.
enum Input {
    File(PathBuf),
    Text { file: String, text: String },
    Value(Box<Workflow>),
    Plan(Box<Plan>),
}

/// A workflow that is about to be opened: [`Repair::open`] begins, and [`Opening::connect`] ends.
#[must_use = "nothing is opened before `connect`"]
pub struct Opening {
    from: Input,
    profile: Option<String>,
    lake: Option<PathBuf>,
    adapters: Option<(Arc<dyn Lake>, Arc<dyn Journal>)>,
    others: BTreeMap<String, Arc<dyn Lake>>,
    params: BTreeMap<String, String>,
    values: Option<BTreeMap<String, Value>>,
    prices: Option<PathBuf>,
    now: Option<Timestamp>,
    around: Around,
}

impl Opening {
    fn new(from: Input) -> Self {
        Self {
            from,
            profile: None,
            lake: None,
            adapters: None,
            others: BTreeMap::new(),
            params: BTreeMap::new(),
            values: None,
            prices: None,
            now: None,
            around: Around::new(),
        }
    }

    /// Chooses a profile of the workflow. Without this it is the profile `local`, or the only one.
    pub fn profile<'a>(mut self, profile: impl Into<Option<&'a str>>) -> Self {
        self.profile = profile.into().map(str::to_owned);
        self
    }

    /// Names the lake, a folder or `s3://bucket/lake`, instead of the one that the profile names.
    pub fn lake(mut self, lake: impl Into<PathBuf>) -> Self {
        self.lake = Some(lake.into());
        self
    }

    /// Works on a lake and a journal of your own. The profile's are not opened.
    pub fn adapters(mut self, lake: Arc<dyn Lake>, journal: Arc<dyn Journal>) -> Self {
        self.adapters = Some((lake, journal));
        self
    }

    /// Reads a lake of your own where tables of the workflow are in the lake of this profile, which is not opened. A run that reads it cannot be
    /// resumed by another program.
    pub fn other_lake(mut self, profile: impl Into<String>, lake: Arc<dyn Lake>) -> Self {
        self.others.insert(profile.into(), lake);
        self
    }

    /// Sets a parameter of the workflow, as text. The values of a list are separated by commas; one that holds a comma is in quotes.
    #[expect(clippy::needless_pass_by_value, reason = "a value, not a reference to one, is what callers have")]
    pub fn param(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.params.insert(name.into(), value.to_string());
        self
    }

    /// Sets several parameters.
    pub fn params<N: Into<String>, V: ToString>(mut self, params: impl IntoIterator<Item = (N, V)>) -> Self {
        self.params.extend(params.into_iter().map(|(name, value)| (name.into(), value.to_string())));
        self
    }

    /// Sets all parameters, as JSON, in place of those that were given as text.
    pub fn values(mut self, values: BTreeMap<String, Value>) -> Self {
        self.values = Some(values);
        self
    }

    /// Uses the price book in this file instead of the one that the workflow names. It is kept with each run.
    pub fn prices(mut self, file: impl Into<PathBuf>) -> Self {
        self.prices = Some(file.into());
        self
    }

    /// Counts relative dates such as `yesterday` from this instant, instead of from when a run starts or a plan is made: to run a nightly workflow
    /// for a night that is past, or as the schedule says. Time does not stand still in the run.
    pub fn now(mut self, now: impl Into<Option<Timestamp>>) -> Self {
        self.now = now.into();
        self
    }

    around!();

    /// Reads and checks the workflow, binds its parameters, and opens the lake of the profile. Nothing is written.
    ///
    /// # Errors
    /// `invalid` if the workflow has mistakes, a parameter does not fit, or the profile does not; `not-found` if the lake is not there.
    pub async fn connect(self) -> Result<Repair> {
        let Self { from, profile, lake, adapters, others, params, values, prices, now, around } = self;
        let bind = |workflow: &Workflow| values.as_ref().map_or_else(|| workflow.bind(&params), |values| workflow.bind_values(values));
        let registry = &around.registry;
        let now = match (&from, now) {
            (Input::Plan(plan), Some(now)) if plan.now != Some(now) => {
                let own = plan.now.map_or_else(String::new, |now| format!(", {now}"));
                return Err(Error::invalid(format!("a plan has its own now{own}; make another plan for another now")));
            }
            (Input::Plan(plan), _) => plan.now,
            (_, now) => now,
        };
        let (workflow, params, origin, profile) = match from {
            Input::File(path) => {
                let workflow = Workflow::load_with_prices(&path, registry, prices.as_deref())?;
                let params = bind(&workflow)?;
                (workflow, params, Origin::File, profile)
            }
            Input::Text { file, text } => {
                let workflow = with_prices(Workflow::parse(&file, &text, registry)?, prices.as_deref(), registry)?;
                let params = bind(&workflow)?;
                (workflow, params, Origin::Value, profile)
            }
            Input::Value(workflow) => {
                let workflow = with_prices(*workflow, prices.as_deref(), registry)?;
                let params = bind(&workflow)?;
                (workflow, params, Origin::Value, profile)
            }
            Input::Plan(plan) => {
                let workflow = plan.workflow(registry)?;
                let of_plan = plan.environment.get("profile").and_then(Value::as_str).map(str::to_owned);
                (workflow, plan.params, Origin::File, profile.or(of_plan))
            }
        };
        let place = match adapters {
            Some((lake, journal)) => Place::of_adapters(profile, lake, journal),
            None => Place::of(&workflow, profile.as_deref(), lake.as_deref(), &params)?,
        };
        let opened = place.root.open(None).await?;
        let others = Others::of(&workflow, &params, others).await?;
        let lakes = others.lakes.clone();
        let environment = others.add_to(place.environment());
        Ok(Repair {
            workflow,
            params,
            environment,
            origin,
            named_lake: lake.map(|lake| lake.display().to_string()),
            prices: prices.map(|prices| prices.display().to_string()),
            now,
            opened,
            lakes,
            lake: OpenLake { root: place.root, around },
        })
    }
}

/// A workflow with a price book in place of its own.
fn with_prices(workflow: Workflow, prices: Option<&Path>, registry: &Registry) -> Result<Workflow> {
    match prices {
        Some(path) => Ok(workflow.with_prices(path, registry)?),
        None => Ok(workflow),
    }
}

/// Whether what a workflow means can be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From its file.
    File,
    /// It is what it was when it was opened.
    Value,
}

/// An opened workflow: its definition, its parameters, and the lake of its profile.
///
/// Everything that works on past runs of the lake ([`OpenLake`]) can be called on it as well, since it derefs to its lake.
///
/// ```no_run
/// # async fn example() -> repair::Result<()> {
/// use repair::Repair;
///
/// let repair = Repair::open("ticker-hourly.yaml").profile("local").lake("./lake").param("from", "2024-03-04").connect().await?;
/// let plan = repair.plan().await?;
/// println!("{} slots are missing", plan.missing());
/// let report = repair.run().await?;
/// let undone = repair.undo(&report.run).reason("only a trial").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Repair {
    pub(crate) workflow: Workflow,
    pub(crate) params: BTreeMap<String, Value>,
    pub(crate) environment: Value,
    pub(crate) origin: Origin,
    pub(crate) named_lake: Option<String>,
    pub(crate) prices: Option<String>,
    /// The now that was given.
    pub(crate) now: Option<Timestamp>,
    pub(crate) opened: Arc<dyn Lake>,
    /// The other lakes that the workflow reads.
    pub(crate) lakes: Lakes,
    lake: OpenLake,
}

impl Repair {
    /// Opens the workflow in a file.
    pub fn open(file: impl Into<PathBuf>) -> Opening {
        Opening::new(Input::File(file.into()))
    }

    /// Opens a workflow from its text; `file` is what messages call it.
    pub fn text(file: impl Into<String>, text: impl Into<String>) -> Opening {
        Opening::new(Input::Text { file: file.into(), text: text.into() })
    }

    /// Opens a workflow that is checked already, such as one built in Rust. Its plug-ins must be in the [registry](Opening::registry).
    pub fn of(workflow: Workflow) -> Opening {
        Opening::new(Input::Value(Box::new(workflow)))
    }

    /// Opens the workflow of a plan, as it was planned, with the plan's parameters, profile and lake. Then [apply](Repair::apply) the plan.
    pub fn planned(plan: Plan) -> Opening {
        let lake = plan.lake.as_ref().map(PathBuf::from);
        let opening = Opening::new(Input::Plan(Box::new(plan)));
        Opening { lake, ..opening }
    }

    /// The workflow.
    pub fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    /// Its parameters, defaults included. What is relative to now is computed when a run starts.
    pub fn params(&self) -> &BTreeMap<String, Value> {
        &self.params
    }

    /// Its lake, with the runs in it.
    pub fn lake(&self) -> &OpenLake {
        &self.lake
    }

    /// The same, where relative dates are counted from an instant, and which stops when a token is cancelled.
    pub(crate) fn at(&self, now: Timestamp, stop: CancellationToken) -> Self {
        let mut at = self.clone();
        at.now = Some(now);
        at.lake.around.stop = stop;
        at
    }

    /// The variables of a run that would start now.
    pub(crate) fn variables(&self) -> Result<Variables> {
        let at = self.around().clock.now();
        let now = self.now.unwrap_or(at);
        Ok(Variables::at_start(&self.workflow.fix(&self.params, now)?, at, now))
    }

    pub(crate) fn around(&self) -> &Around {
        &self.lake.around
    }
}

impl std::ops::Deref for Repair {
    type Target = OpenLake;

    fn deref(&self) -> &OpenLake {
        &self.lake
    }
}

/// A lake by itself, with the journal of the runs in it: for all that is about past runs, and needs no workflow.
///
/// ```no_run
/// # async fn example() -> repair::Result<()> {
/// use repair::OpenLake;
///
/// let lake = OpenLake::at("./lake")?;
/// for run in lake.runs().await?.runs {
///     println!("{} {}", run.run, run.workflow);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OpenLake {
    pub(crate) root: Root,
    pub(crate) around: Around,
}

impl OpenLake {
    /// The lake in a folder, or at `s3://bucket/lake`.
    ///
    /// # Errors
    /// `invalid` if this program was built without the feature for such a lake.
    pub fn at(lake: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { root: Root::at(lake.as_ref())?, around: Around::new() })
    }

    /// The lake that a workflow works on, as [`Opening`] chooses it: that of the profile which is asked for, or is `local`, or the only one, and the lake that
    /// is named in its place. The file may also be one that workflows include, which has no profiles. Parameters need no values.
    ///
    /// # Errors
    /// `invalid` if the workflow has mistakes, or does not have the profile.
    pub fn of_workflow(file: impl AsRef<Path>, profile: Option<&str>, lake: Option<&Path>) -> Result<Self> {
        let around = Around::new();
        Ok(Self { root: Root::of_file(file.as_ref(), &around.registry, profile, lake)?, around })
    }

    /// A lake and a journal of your own.
    pub fn of(lake: Arc<dyn Lake>, journal: Arc<dyn Journal>) -> Self {
        Self { root: Root::Given { lake, journal }, around: Around::new() }
    }

    around!();

    /// Where it is, for people: a folder, or `s3://bucket/lake`.
    pub fn place(&self) -> String {
        match &self.root {
            Root::Folder { path, .. } => path.display().to_string(),
            Root::Bucket(bucket) => bucket.location().to_owned(),
            Root::Given { .. } => "the lake of this program".to_owned(),
        }
    }

    /// The folder of the lake, if it is in one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.root {
            Root::Folder { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether the lake is in S3, and Athena reads it.
    pub(crate) fn is_in_bucket(&self) -> bool {
        matches!(self.root, Root::Bucket(_))
    }

    /// The journal, to read it.
    ///
    /// # Errors
    /// `not-found` if the lake is not there, or nothing was ever run in it.
    pub async fn journal(&self) -> Result<Arc<dyn Journal>> {
        self.root.journal_to_read().await
    }

    /// The lake itself, as a run had it; without one, as the profile says, or if there is none that says it, as the latest run had it.
    pub(crate) async fn lake_of(&self, run: Option<(&dyn Journal, &str)>) -> Result<Arc<dyn Lake>> {
        if run.is_none()
            && matches!(&self.root, Root::Bucket(bucket) if bucket.is_bare())
            && let Ok(journal) = self.journal().await
        {
            let mut heads = journal.runs().await?;
            heads.sort_by_key(|head| head.first.at);
            for head in heads.iter().rev().take(MOST_RUNS_ASKED) {
                // One whose history is damaged says nothing.
                if let Ok(lake) = self.root.open(Some((journal.as_ref(), &head.run))).await {
                    return Ok(lake);
                }
            }
        }
        self.root.open(run).await
    }

    /// The other lakes that a run reads, as it, or the run that it is within, kept where they are; and those that a corrected workflow reads.
    pub(crate) async fn lakes_of_run(&self, journal: &dyn Journal, run: &str, corrected: Option<&Workflow>) -> Result<Lakes> {
        let (mut environment, mut given, mut name) = (Value::Null, BTreeMap::new(), run.to_owned());
        for depth in 0..MOST_RUNS_WITHIN {
            let first = journal.read(&name, 0, 1).await?.into_iter().next();
            let Some(Event::RunStarted { environment: of_run, params, .. }) = first.map(|recorded| recorded.event) else { break };
            if depth == 0 {
                given = params;
            }
            let parent = parent_of(&of_run).map(str::to_owned);
            environment = of_run;
            match parent {
                Some(parent) => name = parent,
                None => break,
            }
        }
        let lakes = others::of_environment(&environment).await?;
        match corrected {
            Some(workflow) => Ok(Others::of(workflow, &given, lakes.as_ref().clone()).await?.lakes),
            None => Ok(lakes),
        }
    }

    /// An engine on this lake, which reads others.
    pub(crate) fn engine_on(&self, lake: Arc<dyn Lake>, lakes: Lakes, journal: Arc<dyn Journal>) -> Engine {
        let mut observers = self.around.observers.clone();
        if let Some(notifications) = &self.around.notify {
            let (registry, clock) = (self.around.registry.clone(), self.around.clock.clone());
            let desk = notifications.desk(lake.clone(), journal.clone(), registry, clock, self.root.lineage());
            observers.push(Arc::new(AtDesk(desk)));
        }
        let mut engine = Engine::new(self.around.registry.clone(), lake, journal);
        engine.lakes = lakes;
        engine.clock = self.around.clock.clone();
        engine.observer = Arc::new(observers);
        engine.stop = self.around.stop.clone();
        engine
    }

    /// What a run keeps of where it runs; none if there is no such run. A lake without a journal has none.
    pub(crate) async fn environment_of(&self, run: &str) -> Result<Option<Value>> {
        let state = match self.journal().await {
            Ok(journal) => load(journal.as_ref(), run).await,
            Err(error) => Err(error),
        };
        match state {
            Ok(state) => Ok(Some(state.started.environment)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The workflow of a run, as the run started with it.
    pub(crate) fn workflow_of(&self, state: &RunState) -> Result<Workflow> {
        let started = &state.started;
        Workflow::parse_with(&started.file, &started.definition, &self.around.registry, &started.children)
            .map_err(|diagnostics| Error::invalid("this program cannot read the definition of the run").because(diagnostics))
    }
}
