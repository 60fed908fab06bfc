//! A checked workflow, as the engine sees it: no positions in the text, and nothing left that could be wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Calendar, Table, Zone};
use crate::plugin::PluginKind;
use crate::price::{Budget, PriceBook};
use crate::workflow::schedule::Schedule;
use crate::workflow::{Expression, Lineage, Notifier};

/// A workflow, parsed and checked. [`Workflow::parse`] and [`Workflow::load`] read YAML, [`Workflow::state_machine`] and [`Workflow::dag`]
/// begin one in Rust.
///
/// ```
/// use repair_core::plugin::Registry;
/// use repair_core::workflow::Workflow;
///
/// let text = "
/// workflow: look
/// kind: state-machine
/// params:
///   from: { type: date, default: 2024-03-01 }
/// tables:
///   readings: { location: readings, format: csv, time: ts, cadence: 1h }
/// start: look
/// steps:
///   look: { detect: gaps, with: { table: readings, from: '{% $params.from %}', to: 2024-03-31 }, end: true }
/// ";
/// let registry = Registry::default();
/// let workflow = Workflow::parse("look.yaml", text, &registry)?;
/// assert_eq!(workflow.step("look").map(|step| step.kind.word()), Some("detect"));
///
/// // Parameters are checked against their types.
/// let given = [("from".to_owned(), "2024-03-04".to_owned())].into();
/// assert_eq!(workflow.bind(&given)?["from"], "2024-03-04");
///
/// // All mistakes are returned at once, each with its place.
/// let mistakes = Workflow::parse("look.yaml", &text.replace("detect: gaps", "detect: gap"), &registry).unwrap_err();
/// assert_eq!((mistakes.len(), mistakes.iter().next().map(|mistake| mistake.line)), (1, Some(10)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Workflow {
    /// The name.
    pub name: String,
    /// How the steps follow each other.
    pub kind: WorkflowKind,
    /// How long a run may take.
    pub timeout: Option<Duration>,
    /// The text it was read from, which the journal keeps with every run.
    pub text: String,
    /// The file of that text, for messages.
    pub file: String,
    /// The texts of the files that the workflow names, by the name it gives them: files that it includes, price books, files of days,
    /// and the workflows that it runs as steps; and those that these files name. The journal keeps them with every run.
    pub children: BTreeMap<String, String>,
    /// The parameters, by name.
    pub params: BTreeMap<String, Param>,
    /// The tags on everything that a run costs.
    pub tags: BTreeMap<String, String>,
    /// How much a run may spend.
    pub budget: Option<Budget>,
    /// The price book.
    pub prices: Option<Arc<PriceBook>>,
    /// The tables, by name.
    pub tables: BTreeMap<String, Table>,
    /// The tables in other lakes: by the profile that says where such a lake is, then by name. Only queries of sources see them.
    pub elsewhere: BTreeMap<String, BTreeMap<String, Table>>,
    /// The sources, by name.
    pub sources: BTreeMap<String, SourceUse>,
    /// The calendars, by name. Those of the registry can be used, too.
    pub calendars: BTreeMap<String, Arc<dyn Calendar>>,
    /// Which tables and sources come from files that it includes. Others use them too, so they may be of no concern to this workflow.
    pub included: IncludedNames,
    /// The step that a run begins with; empty for a DAG.
    pub start: String,
    /// The steps in the order of the text, including those of branches.
    pub steps: Steps,
    /// The profiles, by name.
    pub profiles: BTreeMap<String, Profile>,
    /// Who hears of its runs, by name.
    pub notify: BTreeMap<String, Notifier>,
    /// Where OpenLineage events of its runs go.
    pub lineage: Option<Lineage>,
    /// When it starts by itself; `None` if it does not.
    pub schedule: Option<Schedule>,
    /// For the steps within a map: the variables that each of their runs is given, by name: the item, its `index`, and those of the maps around.
    /// Before a run they have no values.
    pub items: BTreeMap<String, Value>,
    /// For the steps within a map: where they stand.
    pub(crate) outer: Option<Outer>,
}

/// Where the steps within a map stand: in the text of a file, under these steps.
#[derive(Clone)]
pub(crate) struct Outer {
    pub(crate) text: Arc<str>,
    pub(crate) steps: Vec<String>,
}

/// Shows nothing, because definitions are compared by their debug output, and the rest of the file is no part of this one.
impl std::fmt::Debug for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outer")
    }
}

impl Workflow {
    /// The step of this name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.get(name)
    }

    /// Whether it repairs a table or aggregates into it, unless the table's name is computed.
    pub fn writes(&self, table: &str) -> bool {
        self.steps.iter().any(|step| match &step.kind {
            StepKind::Repair { of, .. } => {
                let found = self.step(of).map(|detect| detect.kind.plugins()).unwrap_or_default();
                found.iter().any(|(_, _, with)| with.text_of("table") == Some(table))
            }
            StepKind::Aggregate { with, .. } => with.text_of("into") == Some(table),
            StepKind::Workflow { workflow, .. } => workflow.writes(table),
            StepKind::Map(map) => map.workflow.writes(table),
            _ => false,
        })
    }

    /// The steps within a map, for one item of it: `given` are its variables. The journal keeps them with the run.
    pub(crate) fn for_item(&self, given: BTreeMap<String, Value>) -> Self {
        let mut workflow = self.clone();
        workflow.items.extend(given);
        workflow.children.insert(GIVEN_ITEMS.to_owned(), Value::Object(workflow.items.clone().into_iter().collect()).to_string());
        workflow
    }

    /// The tags on what a strategy costs: the workflow's tags and its own. The tag `idea`, which groups its costs, defaults to its name.
    pub fn tags_of(&self, strategy: &Strategy) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        tags.extend(strategy.tags.iter().map(|(tag, value)| (tag.clone(), value.clone())));
        tags.entry("idea".to_owned()).or_insert_with(|| strategy.name.clone());
        tags
    }
}

/// The name under which [`Workflow::children`] keeps the variables of the item that a run is for.
pub(crate) const GIVEN_ITEMS: &str = "--items";

/// The variables of the item that a run is for, from the texts that its journal keeps; none if it is for no item.
pub(crate) fn given_items(children: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
    children.get(GIVEN_ITEMS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The names of what included files define.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncludedNames {
    /// Tables.
    pub tables: BTreeSet<String>,
    /// Sources.
    pub sources: BTreeSet<String>,
}

/// How the steps of a workflow follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkflowKind {
    /// Each step names the steps that may follow it; a run may go back and skip forward.
    StateMachine,
    /// Each step names the steps that come before it; independent steps run side by side.
    Dag {
        /// The most steps that run at once.
        max_parallel: u32,
    },
}

impl WorkflowKind {
    /// Whether the workflow is a DAG.
    pub fn is_dag(self) -> bool {
        matches!(self, Self::Dag { .. })
    }
}

/// Steps in the order of the text, which can be looked up by name. No two have the same name.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    steps: Vec<Step>,
    by_name: HashMap<String, usize>,
}

impl Steps {
    /// The step of this name.
    pub fn get(&self, name: &str) -> Option<&Step> {
        self.by_name.get(name).and_then(|&at| self.steps.get(at))
    }

    /// Changes every step. `change` must not rename it.
    pub(crate) fn update(&mut self, mut change: impl FnMut(&mut Step)) {
        self.steps.iter_mut().for_each(&mut change);
    }
}

impl FromIterator<Step> for Steps {
    fn from_iter<T: IntoIterator<Item = Step>>(steps: T) -> Self {
        let steps: Vec<Step> = steps.into_iter().collect();
        let by_name = steps.iter().enumerate().map(|(at, step)| (step.name.clone(), at)).collect();
        Self { steps, by_name }
    }
}

impl Deref for Steps {
    type Target = [Step];

    fn deref(&self) -> &[Step] {
        &self.steps
    }
}

impl<'a> IntoIterator for &'a Steps {
    type Item = &'a Step;
    type IntoIter = std::slice::Iter<'a, Step>;

    fn into_iter(self) -> Self::IntoIter {
        self.steps.iter()
    }
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ParamType {
    /// Any text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A date, such as `2024-03-04` or `yesterday`.
    Date,
    /// An instant, such as `2024-03-04T14:30:00Z` or `now - 7d`.
    Instant,
    /// A duration, such as `90s`, `15m`, `2h` or `3d`.
    Duration,
    /// A list of texts, which a command line separates by commas.
    List,
}

/// A parameter of a workflow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Param {
    /// The type of its values.
    pub kind: ParamType,
    /// The value used when none is given. A parameter without a default is required.
    pub default: Option<Value>,
    /// What the parameter is for.
    pub about: Option<String>,
    /// The values allowed; any value if empty. For a list, the items allowed.
    pub one_of: Vec<Value>,
    /// The zone of dates and instants that are relative to now, such as `yesterday`. If it is not given, the zone of the tables' days.
    pub zone: Option<Zone>,
}

/// A source as a workflow uses it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SourceUse {
    /// The name of the plug-in.
    pub plugin: String,
    /// The configuration of the plug-in.
    pub with: Template,
    /// How often the source may be asked.
    pub rate_limit: Option<Rate>,
}

/// Where a workflow runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Profile {
    /// The kind of lake, such as `local`.
    pub lake: String,
    /// The configuration of the lake.
    pub with: Template,
}

/// A rate, such as 200 per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many times.
    pub count: u32,
    /// Within how much time.
    pub per: Duration,
}

/// A JSON value in which some parts are computed when the run reaches them.
#[derive(Debug, Clone)]
pub enum Template {
    /// A plain value.
    Value(Value),
    /// A computed value, written `"{% … %}"`.
    Computed(Expression),
    /// A list that contains computed values.
    List(Vec<Template>),
    /// A mapping that contains computed values.
    Map(Vec<(String, Template)>),
}

impl Template {
    /// The text under a key of a mapping, unless it is computed.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        let value = match self {
            Self::Value(value) => value.get(key),
            Self::Map(entries) => entries.iter().find_map(|(name, value)| match value {
                Self::Value(value) if name == key => Some(value),
                _ => None,
            }),
            Self::Computed(_) | Self::List(_) => None,
        };
        value.and_then(Value::as_str)
    }

    /// The value of a mapping, with null for what is computed under one of its keys.
    pub(crate) fn known(&self) -> Value {
        match self {
            Self::Value(value) => value.clone(),
            Self::Map(entries) => Value::Object(entries.iter().map(|(name, value)| (name.clone(), value.known())).collect()),
            Self::List(_) | Self::Computed(_) => Value::Null,
        }
    }

    /// The texts in it that are not computed.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        let (mut templates, mut values): (Vec<&Self>, Vec<&Value>) = (vec![self], Vec::new());
        while let Some(template) = templates.pop() {
            match template {
                Self::Value(value) => values.push(value),
                Self::Computed(_) => {}
                Self::List(items) => templates.extend(items),
                Self::Map(entries) => templates.extend(entries.iter().map(|(_, item)| item)),
            }
        }
        while let Some(value) = values.pop() {
            match value {
                Value::String(text) => texts.push(text.as_str()),
                Value::Array(items) => values.extend(items),
                Value::Object(fields) => values.extend(fields.values()),
                _ => {}
            }
        }
        texts
    }

    /// Whether it depends on nothing that is known only during a run: on `$params` and `$run` at most.
    pub fn is_known_at_start(&self) -> bool {
        match self {
            Self::Value(_) => true,
            Self::Computed(expression) => expression.variables().all(|(name, _)| matches!(name, "params" | "run")),
            Self::List(items) => items.iter().all(Self::is_known_at_start),
            Self::Map(entries) => entries.iter().all(|(_, item)| item.is_known_at_start()),
        }
    }

    /// The value, with all expressions computed.
    ///
    /// # Errors
    /// `invalid` if an expression fails.
    pub fn resolve(&self, variables: &Variables) -> Result<Value> {
        Ok(match self {
            Self::Value(value) => value.clone(),
            Self::Computed(expression) => expression.evaluate(variables)?,
            Self::List(items) => Value::Array(items.iter().map(|item| item.resolve(variables)).collect::<Result<_>>()?),
            Self::Map(entries) => {
                Value::Object(entries.iter().map(|(key, item)| Ok((key.clone(), item.resolve(variables)?))).collect::<Result<_>>()?)
            }
        })
    }
}

/// The variables that expressions can use.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Variables {
    /// `$params`: the parameters of the run.
    pub params: Value,
    /// `$output`: the output of the step that just ended.
    pub output: Value,
    /// `$steps`: for each step by name, `{visits, output}`.
    pub steps: Value,
    /// `$visits`: how often the run has come to the step.
    pub visits: u32,
    /// `$error`: `{kind, message}` of the error that was just caught, else null.
    pub error: Value,
    /// `$run`: `{started_at, now, reached}`, from [`Variables::of_run`].
    pub run: Value,
    /// Further variables, by name: `$item` and `$index` within a map.
    #[serde(default)]
    pub items: BTreeMap<String, Value>,
}

impl Variables {
    /// The variables that are known when a run starts.
    pub fn at_start(params: &BTreeMap<String, Value>, started_at: Timestamp, now: Timestamp) -> Self {
        let params = Value::Object(params.clone().into_iter().collect());
        Self { params, run: Self::of_run(started_at, now, started_at), ..Self::default() }
    }

    /// The same, with the variables of the item that a run is for.
    #[must_use]
    pub fn with_items(self, items: BTreeMap<String, Value>) -> Self {
        Self { items, ..self }
    }

    /// `$run`: when the run started; its now, from which relative dates are counted; and the time that it has reached, which `$now()` returns.
    pub fn of_run(started_at: Timestamp, now: Timestamp, reached: Timestamp) -> Value {
        serde_json::json!({ "started_at": started_at, "now": now, "reached": reached })
    }
}

/// One step of a workflow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Step {
    /// The name.
    pub name: String,
    /// What the step does.
    pub kind: StepKind,
    /// Where the run goes next; the first branch that applies is taken. Empty for a step that ends the run.
    pub next: Vec<Branch>,
    /// Which errors are retried, and how.
    pub retry: Vec<RetryRule>,
    /// Where the run goes after an error that is not retried.
    pub catch: Vec<CatchRule>,
    /// How often the run may come to the step; one more visit is an error.
    pub max_visits: Option<u32>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How long an attempt may run without a sign of progress.
    pub heartbeat: Option<Duration>,
    /// In a DAG, the steps that must have ended before this one begins.
    pub after: Vec<String>,
    /// In a DAG, how the steps of `after` must have ended, unless `after_if` says it.
    pub run_if: RunIf,
    /// In a DAG whose `after` is a mapping, how each of its steps must have ended, in the same order; empty if `run_if` decides.
    pub after_if: Vec<AfterIf>,
    /// The branch of a parallel step that holds this step, if any.
    pub inside: Option<Inside>,
}

/// A branch of a parallel step, as the place of other steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The name of the parallel step.
    pub step: String,
    /// The name of the branch.
    pub branch: String,
}

/// How the steps before a step of a DAG must have ended for it to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunIf {
    /// All succeeded.
    #[default]
    AllSucceeded,
    /// At least one succeeded.
    AnySucceeded,
    /// All ended, in whatever way.
    AllDone,
    /// At least one failed.
    AnyFailed,
}

impl RunIf {
    /// All variants, with the words used in workflows.
    pub const ALL: [(&'static str, RunIf); 4] = [
        ("all_succeeded", Self::AllSucceeded),
        ("any_succeeded", Self::AnySucceeded),
        ("all_done", Self::AllDone),
        ("any_failed", Self::AnyFailed),
    ];
}

/// How one step before a step of a DAG must have ended for it to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterIf {
    /// It succeeded.
    Succeeded,
    /// It failed.
    Failed,
    /// It ended, in whatever way.
    Done,
    /// It was skipped.
    Skipped,
}

impl AfterIf {
    /// All variants, with the words used in workflows.
    pub const ALL: [(&'static str, AfterIf); 4] =
        [("succeeded", Self::Succeeded), ("failed", Self::Failed), ("done", Self::Done), ("skipped", Self::Skipped)];

    /// The word used in workflows.
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Skipped => "skipped",
        }
    }

    fn holds(self, end: StepEnd) -> bool {
        match self {
            Self::Succeeded => end == StepEnd::Succeeded,
            Self::Failed => end == StepEnd::Failed,
            Self::Done => true,
            Self::Skipped => end == StepEnd::Skipped,
        }
    }
}

/// How a step of a DAG ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEnd {
    /// It succeeded.
    Succeeded,
    /// It failed for good.
    Failed,
    /// It did not run.
    Skipped,
}

impl StepEnd {
    fn verb(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "was skipped",
        }
    }
}

/// What a step does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StepKind {
    /// Finds defects.
    Detect {
        /// The name of the detector.
        plugin: String,
        /// The configuration of the detector.
        with: Template,
    },
    /// Waits for a time, an instant or a condition.
    Wait(Wait),
    /// Repairs what a detect step found.
    Repair {
        /// The strategies, at least one. What one cannot fix goes to the next.
        strategies: Vec<Strategy>,
        /// The detect step.
        of: String,
        /// How many units run at once.
        concurrency: u32,
        /// How many units may begin within how much time.
        rate_limit: Option<Rate>,
        /// How many units may fail.
        tolerate: Tolerance,
        /// How much the step may spend, over all its visits.
        budget: Option<Budget>,
        /// After how many runs that asked for a slot in vain it is given up.
        give_up_after: Option<u32>,
    },
    /// Checks again what a detect step found.
    Verify {
        /// The detect step.
        of: String,
    },
    /// Computes the numbers that people look at.
    Aggregate {
        /// The name of the aggregator.
        plugin: String,
        /// The detect step whose findings define what was expected.
        of: Option<String>,
        /// The configuration of the aggregator.
        with: Template,
    },
    /// Runs a task, which may do anything.
    Task {
        /// The name of the task.
        plugin: String,
        /// The configuration of the task.
        with: Template,
    },
    /// Runs branches side by side, each a state machine of its own. The step ends when all branches have ended.
    Parallel {
        /// The branches, in the order of the text.
        branches: Vec<ParallelBranch>,
    },
    /// Runs another workflow, as a run of its own.
    Workflow {
        /// The workflow's file, as written in this one.
        name: String,
        /// The workflow.
        workflow: Arc<Workflow>,
        /// The values of the workflow's parameters.
        with: Template,
    },
    /// Runs the same steps, or another workflow, once for each item of a list. Each item is a run of its own.
    Map(Box<MapStep>),
    /// Ends the run as succeeded.
    Succeed,
    /// Ends the run as failed.
    Fail {
        /// The reason that the run gives.
        message: String,
    },
}

impl Step {
    /// In a DAG, why the step is skipped, given how the steps of its `after` ended, in that order; none if it runs.
    pub fn why_skipped(&self, ends: &[StepEnd]) -> Option<String> {
        let mut before = self.after.iter().zip(ends.iter().copied());
        if !self.after_if.is_empty() {
            let refused = before.zip(&self.after_if).find(|((_, end), wanted)| !wanted.holds(*end));
            return refused.map(|((name, end), wanted)| {
                let wanted = if *wanted == AfterIf::Skipped { "been skipped" } else { wanted.word() };
                format!("`{name}` {}, and must have {wanted}", end.verb())
            });
        }
        match self.run_if {
            RunIf::AllSucceeded => before.find(|(_, end)| *end != StepEnd::Succeeded).map(|(name, end)| format!("`{name}` {}", end.verb())),
            RunIf::AnySucceeded => {
                (!before.any(|(_, end)| end == StepEnd::Succeeded)).then(|| "none of the steps before it succeeded".to_owned())
            }
            RunIf::AnyFailed => (!before.any(|(_, end)| end == StepEnd::Failed)).then(|| "none of the steps before it failed".to_owned()),
            RunIf::AllDone => None,
        }
    }

    /// In a DAG, whether the step is there for the failure of another: it comes directly after it, and does not need it to succeed. A run in which
    /// it succeeds has dealt with that failure.
    pub fn handles_failure_of(&self, failed: &str) -> bool {
        let Some(at) = self.after.iter().position(|name| name == failed) else { return false };
        match self.after_if.get(at) {
            Some(wanted) => matches!(wanted, AfterIf::Failed | AfterIf::Done),
            None => matches!(self.run_if, RunIf::AnyFailed | RunIf::AllDone),
        }
    }

    /// Whether to give up the remaining units of a strategy, or items of a map, given how many failed for good, by kind of error. The last strategy gives up when
    /// more failed than are tolerated, because further requests would only cost. An earlier one gives up only when it was denied, because the
    /// next strategy takes what it leaves.
    pub fn is_hopeless(&self, strategy: usize, lost: impl IntoIterator<Item = (ErrorKind, u64)>, units: u64) -> bool {
        let mut lost = lost.into_iter();
        if let StepKind::Map(map) = &self.kind {
            return map.tolerate.exceeded(lost.map(|(_, count)| count).sum(), units);
        }
        let StepKind::Repair { strategies, tolerate, .. } = &self.kind else { return false };
        if strategy + 1 < strategies.len() {
            return lost.any(|(kind, count)| kind == ErrorKind::Denied && count > 0);
        }
        tolerate.exceeded(lost.map(|(_, count)| count).sum(), units)
    }

    /// The retry rules that apply while a strategy (counted from 0) of a repair step is at work; for any other step, its own.
    pub fn retry_of(&self, strategy: usize) -> &[RetryRule] {
        self.kind.strategies().get(strategy).and_then(|strategy| strategy.retry.as_deref()).unwrap_or(&self.retry)
    }
}

impl StepKind {
    /// The plug-ins of the step, each with its kind, name and configuration: one per strategy, in order, for a repair step, and none for
    /// control steps.
    pub fn plugins(&self) -> Vec<(PluginKind, &str, &Template)> {
        match self {
            Self::Detect { plugin, with } => vec![(PluginKind::Detector, plugin, with)],
            Self::Repair { strategies, .. } => {
                strategies.iter().map(|strategy| (PluginKind::Repairer, strategy.plugin.as_str(), &strategy.with)).collect()
            }
            Self::Aggregate { plugin, with, .. } => vec![(PluginKind::Aggregator, plugin, with)],
            Self::Task { plugin, with } => vec![(PluginKind::Task, plugin, with)],
            Self::Wait(Wait::Sensor(wait)) => vec![(PluginKind::Sensor, &wait.plugin, &wait.with)],
            Self::Map(map) => match &map.over {
                MapOver::Rows(with) => vec![(PluginKind::Task, MapOver::ROWS_TASK, with)],
                MapOver::Items(_) => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// The workflow that the step runs, once or for each item of a map, as runs of their own; and how the step names its file, unless its steps are
    /// within this one.
    pub fn inner(&self) -> Option<(&Arc<Workflow>, Option<&str>)> {
        match self {
            Self::Workflow { workflow, name, .. } => Some((workflow, Some(name))),
            Self::Map(map) => Some((&map.workflow, map.name.as_deref())),
            _ => None,
        }
    }

    /// The strategies of a repair step; empty for other steps.
    pub fn strategies(&self) -> &[Strategy] {
        match self {
            Self::Repair { strategies, .. } => strategies,
            _ => &[],
        }
    }

    /// The word that begins the step in a workflow, such as `detect`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Detect { .. } => "detect",
            Self::Wait(_) => "wait",
            Self::Repair { .. } => "repair",
            Self::Verify { .. } => "verify",
            Self::Aggregate { .. } => "aggregate",
            Self::Task { .. } => "task",
            Self::Parallel { .. } => "parallel",
            Self::Workflow { .. } => "workflow",
            Self::Map(_) => "map",
            Self::Succeed => "succeed",
            Self::Fail { .. } => "fail",
        }
    }
}

/// A map: runs for the items of a list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MapStep {
    /// The list.
    pub over: MapOver,
    /// The name of the variable that holds the item; `item` unless given.
    pub item: String,
    /// What runs for each item.
    pub workflow: Arc<Workflow>,
    /// The file of that workflow, as written in this one; `None` if its steps are within this one. Their runs have the parameters of this run.
    pub name: Option<String>,
    /// The values of the parameters of a workflow that has its own file, which may use the item.
    pub with: Template,
    /// How many items run at once.
    pub concurrency: u32,
    /// How many items may fail.
    pub tolerate: Tolerance,
}

impl MapStep {
    /// How many items one map may have. Each is a run with a history of its own.
    pub const MAX_ITEMS: usize = 10_000;
    /// How many bytes one item may have, as JSON.
    pub const MAX_ITEM_BYTES: usize = 16 * 1024;
    /// How many bytes all items may have together: the journal keeps them with the run.
    pub const MAX_ITEMS_BYTES: usize = 1024 * 1024;

    /// The items of a value: a list, or a single value, which is a list of one to JSONata.
    ///
    /// # Errors
    /// `invalid` if there is no value, or if the list is too long or too large.
    pub fn items(value: Value) -> Result<Vec<Value>> {
        let items = match value {
            Value::Null => {
                return Err(Error::invalid(
                    "the list of the map has no value, because something that it uses does not exist; write `[…]` around it if there may be \
                     nothing",
                ));
            }
            Value::Array(items) => items,
            single => vec![single],
        };
        if items.len() > Self::MAX_ITEMS {
            return Err(Error::invalid(format!(
                "the map has {} items; at most {} are allowed: let each run take several, or split the list into several runs",
                items.len(),
                Self::MAX_ITEMS
            )));
        }
        let mut all = 0;
        for (index, item) in items.iter().enumerate() {
            let bytes = item.to_string().len();
            if bytes > Self::MAX_ITEM_BYTES {
                return Err(Error::invalid(format!(
                    "item {index} of the map has {bytes} bytes; at most {} are allowed: put data into a table, and its key into the list",
                    Self::MAX_ITEM_BYTES
                )));
            }
            all += bytes;
        }
        if all > Self::MAX_ITEMS_BYTES {
            return Err(Error::invalid(format!(
                "the items of the map have {all} bytes; at most {} are allowed: put data into a table, and its keys into the list",
                Self::MAX_ITEMS_BYTES
            )));
        }
        Ok(items)
    }

    /// The variables of an item, by name.
    pub(crate) fn given(&self, index: u32, item: &Value) -> BTreeMap<String, Value> {
        BTreeMap::from([(self.item.clone(), item.clone()), (MAP_INDEX.to_owned(), Value::from(index))])
    }
}

/// The variable that holds the number of the item, from 0.
pub const MAP_INDEX: &str = "index";

/// The list of a map.
#[derive(Debug, Clone)]
pub enum MapOver {
    /// A list that is written out or computed.
    Items(Template),
    /// The rows of a query, which is the configuration of the task `sql`.
    Rows(Template),
}

impl MapOver {
    /// The task that asks for the rows.
    pub const ROWS_TASK: &str = "sql";
}

/// A repair strategy, as a step uses it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Strategy {
    /// The name within the step, by default that of the plug-in. Every row that the strategy repairs records it.
    pub name: String,
    /// The name of the repairer.
    pub plugin: String,
    /// The configuration of the repairer.
    pub with: Template,
    /// The retry rules; `None` for those of the step.
    pub retry: Option<Vec<RetryRule>>,
    /// How much the strategy may spend, over all visits of the step.
    pub budget: Option<Budget>,
    /// The tags on what it costs, in addition to the workflow's.
    pub tags: BTreeMap<String, String>,
}

/// The fields in the `$output` of a repair step.
pub const REPAIR_OUTPUT: [&str; 14] = [
    "strategy",
    "strategies",
    "units",
    "succeeded",
    "failed",
    "pending",
    "slots",
    "repaired",
    "absent",
    "unresolved",
    "suspect",
    "conflicts",
    "not_compared",
    "requests",
];

/// How long a step waits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Wait {
    /// For a duration, such as `90s`, from when the run reaches the step.
    For(Template),
    /// Until an instant.
    Until(Template),
    /// Until a condition on the reading of a sensor holds.
    Sensor(Box<SensorWait>),
}

/// A wait until a condition on the reading of a sensor holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SensorWait {
    /// The name of the sensor.
    pub plugin: String,
    /// The configuration of the sensor.
    pub with: Template,
    /// The condition, with the sensor's reading as `$output`. Without one, the reading must be `true`.
    pub when: Option<Expression>,
    /// How often the sensor is read.
    pub every: Duration,
    /// The longest wait; after that the step fails with an error of kind `timeout`.
    pub timeout: Option<Duration>,
}

/// A branch of a parallel step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParallelBranch {
    /// The name.
    pub name: String,
    /// The step that the branch begins with.
    pub start: String,
}

/// A branch of `next`: where the run goes, and when.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The condition for taking the branch; without one it is always taken.
    pub when: Option<Expression>,
    /// The step to go to.
    pub goto: String,
}

/// The errors that a rule applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorMatch {
    /// All errors but those of kind `budget`, `blind` and `cancelled`.
    Any,
    /// Errors of these kinds.
    Kinds(Vec<ErrorKind>),
}

impl ErrorMatch {
    /// Whether a rule applies to an error of this kind.
    pub fn matches(&self, kind: ErrorKind) -> bool {
        match self {
            // Cancelling is not an error, so no rule may prevent it. What could not be checked is not clean, and a budget is a limit, so a
            // workflow that goes on after either must name the kind.
            Self::Any => !matches!(kind, ErrorKind::Budget | ErrorKind::Cancelled | ErrorKind::Blind),
            Self::Kinds(kinds) => kinds.contains(&kind),
        }
    }
}

/// Whether the wait before a retry is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Jitter {
    /// The wait is exactly as computed.
    #[default]
    None,
    /// The wait is drawn at random, from zero to the computed one.
    Full,
}

/// Which errors are retried, how often, and after which wait.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryRule {
    /// The errors that the rule applies to.
    pub on: ErrorMatch,
    /// The number of retries; 0 means never. Each rule counts its own retries, within one visit of the step.
    pub attempts: u32,
    /// The wait before the first retry.
    pub interval: Duration,
    /// The factor by which each wait is longer than the one before; at least 1.
    pub backoff: f64,
    /// The longest wait.
    pub max_interval: Option<Duration>,
    /// Whether the wait is random.
    pub jitter: Jitter,
}

/// Where the run goes after an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchRule {
    /// The errors that the rule applies to.
    pub on: ErrorMatch,
    /// The step to go to.
    pub goto: String,
}

/// How many units of a repair step may fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// A number of units.
    Count(u32),
    /// A percentage of all units.
    Percent(f64),
}

impl Tolerance {
    /// Whether `failed` of `total` units are more than tolerated.
    pub fn exceeded(&self, failed: u64, total: u64) -> bool {
        match self {
            Self::Count(count) => failed > u64::from(*count),
            #[expect(clippy::cast_precision_loss, reason = "counts of units are far below 2^52")]
            Self::Percent(percent) => failed as f64 * 100.0 > percent * total as f64,
        }
    }
}
