//! A checked workflow, as the engine sees it: no text, no places, nothing left to be wrong.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ErrorKind, Result};
use crate::model::Table;
use crate::plugin::PluginKind;
use crate::price::{Budget, PriceBook};
use crate::workflow::Expression;

/// A workflow, parsed and checked.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// How its steps follow each other.
    pub kind: WorkflowKind,
    /// How long a run may take.
    pub timeout: Option<Duration>,
    /// The text it was read from, kept with every run.
    pub text: String,
    /// Where that text was, for messages.
    pub file: String,
    /// The texts of the files that it names: of workflows that it runs as steps, those of their own included, and of price books. By the
    /// name it gives them; kept with every run.
    pub children: BTreeMap<String, String>,
    /// Its parameters, by name.
    pub params: BTreeMap<String, Param>,
    /// Tags on everything it costs.
    pub tags: BTreeMap<String, String>,
    /// How much a run may spend.
    pub budget: Option<Budget>,
    /// What things cost.
    pub prices: Option<Arc<PriceBook>>,
    /// The tables, by name.
    pub tables: BTreeMap<String, Table>,
    /// The sources, by name.
    pub sources: BTreeMap<String, SourceUse>,
    /// The step it begins with; of a DAG, empty.
    pub start: String,
    /// The steps, in the order of the text; those of branches too.
    pub steps: Steps,
    /// The profiles, by name.
    pub profiles: BTreeMap<String, Profile>,
}

impl Workflow {
    /// A step, by name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.get(name)
    }

    /// The tags on what a strategy costs: the workflow's, its own, and `idea`, under which it is reckoned; its name, if nobody says otherwise.
    pub fn tags_of(&self, strategy: &Strategy) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        tags.extend(strategy.tags.iter().map(|(tag, value)| (tag.clone(), value.clone())));
        tags.entry("idea".to_owned()).or_insert_with(|| strategy.name.clone());
        tags
    }
}

/// How the steps of a workflow follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkflowKind {
    /// Each says where it leads; a run may go back and skip forward.
    StateMachine,
    /// Each says what it comes after; what can run at once does.
    Dag {
        /// At most so many steps run at once.
        max_parallel: u32,
    },
}

impl WorkflowKind {
    /// Whether it is a DAG.
    pub fn is_dag(self) -> bool {
        matches!(self, Self::Dag { .. })
    }
}

/// Steps in the order of the text, found by name. No two have the same name.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    steps: Vec<Step>,
    by_name: HashMap<String, usize>,
}

impl Steps {
    /// The step of a name.
    pub fn get(&self, name: &str) -> Option<&Step> {
        self.by_name.get(name).and_then(|&at| self.steps.get(at))
    }

    /// Changes every step; their names stay.
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
pub enum ParamType {
    /// Any text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A date, `2024-03-04`.
    Date,
    /// An instant, `2024-03-04T14:30:00Z`.
    Instant,
    /// A duration, `90s`, `15m`, `2h`, `3d`.
    Duration,
    /// A list of texts; on the command line, separated by commas.
    List,
}

/// A parameter of a workflow.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its type.
    pub kind: ParamType,
    /// What it is when not given; without one it must be given.
    pub default: Option<Value>,
    /// What it is for.
    pub about: Option<String>,
    /// The values allowed; any if empty.
    pub one_of: Vec<Value>,
}

/// A source as a workflow uses it.
#[derive(Debug, Clone)]
pub struct SourceUse {
    /// The plug-in.
    pub plugin: String,
    /// Its configuration.
    pub with: Template,
    /// How often it may be asked.
    pub rate_limit: Option<Rate>,
}

/// Where a workflow runs.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The kind of lake.
    pub lake: String,
    /// Its configuration.
    pub with: Template,
}

/// So many in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how much time.
    pub per: Duration,
}

/// A JSON value in which some leaves are computed when the run comes there.
#[derive(Debug, Clone)]
pub enum Template {
    /// Just a value.
    Value(Value),
    /// `"{% … %}"`.
    Computed(Expression),
    /// A list with computed values somewhere within.
    List(Vec<Template>),
    /// A mapping with computed values somewhere within.
    Map(Vec<(String, Template)>),
}

impl Template {
    /// The text under a key of a mapping, if it is there in plain words.
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

    /// The value, its computed parts computed.
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

/// What expressions can speak of.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    /// `$params`
    pub params: Value,
    /// `$output`, of the step just done.
    pub output: Value,
    /// `$steps`: by name, `{visits, output}`.
    pub steps: Value,
    /// `$visits`, of the step.
    pub visits: u32,
    /// `$error`: `{kind, message}` of the error just caught, else null.
    pub error: Value,
    /// `$run`: `{started_at, now}`.
    pub run: Value,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: StepKind,
    /// Where to go after it, tried in order. Empty for a step that ends the run.
    pub next: Vec<Branch>,
    /// What to try again.
    pub retry: Vec<RetryRule>,
    /// Where to go with an error.
    pub catch: Vec<CatchRule>,
    /// How often the run may come here; one more is an error.
    pub max_visits: Option<u32>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How long an attempt may go without a sign of life.
    pub heartbeat: Option<Duration>,
    /// Of a DAG's step, what must have come to rest before it.
    pub after: Vec<String>,
    /// Of a DAG's step, how what comes before must have gone.
    pub run_if: RunIf,
    /// The parallel step's branch in which it is.
    pub inside: Option<Inside>,
}

/// Which branch of which parallel step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The parallel step.
    pub step: String,
    /// The branch.
    pub branch: String,
}

/// How the steps before a step of a DAG must have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunIf {
    /// All succeeded.
    #[default]
    AllSucceeded,
    /// At least one succeeded.
    AnySucceeded,
    /// All came to rest, however.
    AllDone,
    /// At least one failed.
    AnyFailed,
}

impl RunIf {
    /// All, as written in workflows.
    pub const ALL: [(&'static str, RunIf); 4] = [
        ("all_succeeded", Self::AllSucceeded),
        ("any_succeeded", Self::AnySucceeded),
        ("all_done", Self::AllDone),
        ("any_failed", Self::AnyFailed),
    ];
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum StepKind {
    /// Finds what is wrong.
    Detect {
        /// The detector.
        plugin: String,
        /// Its configuration.
        with: Template,
    },
    /// Waits.
    Wait(Wait),
    /// Repairs what a detect step found.
    Repair {
        /// The repair ideas, at least one. What one cannot fix goes to the next.
        strategies: Vec<Strategy>,
        /// The detect step.
        of: String,
        /// How many units at once.
        concurrency: u32,
        /// How many units in how much time.
        rate_limit: Option<Rate>,
        /// How many units may fail.
        tolerate: Tolerance,
        /// How much the step may spend, over all its visits.
        budget: Option<Budget>,
    },
    /// Looks again at what a detect step found.
    Verify {
        /// The detect step.
        of: String,
    },
    /// Computes the numbers people look at.
    Aggregate {
        /// The aggregator.
        plugin: String,
        /// The detect step whose findings say what was expected.
        of: Option<String>,
        /// Its configuration.
        with: Template,
    },
    /// Anything else.
    Task {
        /// The task.
        plugin: String,
        /// Its configuration.
        with: Template,
    },
    /// Does several things at once, each branch a state machine of its own; it is done when all are at their end.
    Parallel {
        /// In the order of the text.
        branches: Vec<ParallelBranch>,
    },
    /// Runs another workflow, as a run of its own.
    Workflow {
        /// The name it is given here: its file, as written.
        name: String,
        /// It.
        workflow: Arc<Workflow>,
        /// Its parameters.
        with: Template,
    },
    /// Ends the run well.
    Succeed,
    /// Ends the run as failed.
    Fail {
        /// Why.
        message: String,
    },
}

impl Step {
    /// Whether it makes no sense to go on with the units of a strategy, given how many failed for good, by kind. Of the last one, if they are
    /// more than tolerated: asking on would only cost. One that has a successor goes on, but not where it was refused.
    pub fn is_hopeless(&self, strategy: usize, lost: impl IntoIterator<Item = (ErrorKind, u64)>, units: u64) -> bool {
        let StepKind::Repair { strategies, tolerate, .. } = &self.kind else { return false };
        let mut lost = lost.into_iter();
        if strategy + 1 < strategies.len() {
            return lost.any(|(kind, count)| kind == ErrorKind::Denied && count > 0);
        }
        tolerate.exceeded(lost.map(|(_, count)| count).sum(), units)
    }

    /// What to try again while a strategy of a repair step is at work, counted from 0; of any other step, what it says.
    pub fn retry_of(&self, strategy: usize) -> &[RetryRule] {
        self.kind.strategies().get(strategy).and_then(|strategy| strategy.retry.as_deref()).unwrap_or(&self.retry)
    }
}

impl StepKind {
    /// The plug-ins of a step: their kind, name and configuration. None for control; of a repair step one for each strategy, in order.
    pub fn plugins(&self) -> Vec<(PluginKind, &str, &Template)> {
        match self {
            Self::Detect { plugin, with } => vec![(PluginKind::Detector, plugin, with)],
            Self::Repair { strategies, .. } => {
                strategies.iter().map(|strategy| (PluginKind::Repairer, strategy.plugin.as_str(), &strategy.with)).collect()
            }
            Self::Aggregate { plugin, with, .. } => vec![(PluginKind::Aggregator, plugin, with)],
            Self::Task { plugin, with } => vec![(PluginKind::Task, plugin, with)],
            Self::Wait(Wait::Sensor(wait)) => vec![(PluginKind::Sensor, &wait.plugin, &wait.with)],
            _ => Vec::new(),
        }
    }

    /// The strategies of a repair step; none of others.
    pub fn strategies(&self) -> &[Strategy] {
        match self {
            Self::Repair { strategies, .. } => strategies,
            _ => &[],
        }
    }

    /// The word of the language.
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
            Self::Succeed => "succeed",
            Self::Fail { .. } => "fail",
        }
    }
}

/// A repair idea, as a step uses it.
#[derive(Debug, Clone)]
pub struct Strategy {
    /// Its name within the step: the plug-in's, unless it is given another. Rows that it repairs bear it.
    pub name: String,
    /// The repairer.
    pub plugin: String,
    /// Its configuration.
    pub with: Template,
    /// What to try again; `None` for what the step says.
    pub retry: Option<Vec<RetryRule>>,
    /// How much it may spend, over all visits of the step.
    pub budget: Option<Budget>,
    /// Tags on what it costs, beside the workflow's.
    pub tags: BTreeMap<String, String>,
}

/// What the `$output` of a repair step holds.
pub const REPAIR_OUTPUT: [&str; 13] = [
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
    "requests",
];

/// How long to wait.
#[derive(Debug, Clone)]
pub enum Wait {
    /// So long from when the run comes there; a duration, `90s`.
    For(Template),
    /// Until an instant.
    Until(Template),
    /// Until a condition holds of what a sensor senses.
    Sensor(Box<SensorWait>),
}

/// A wait until a condition holds.
#[derive(Debug, Clone)]
pub struct SensorWait {
    /// The sensor.
    pub plugin: String,
    /// Its configuration.
    pub with: Template,
    /// The condition, with what the sensor sensed as `$output`; without one, what it senses must be true.
    pub when: Option<Expression>,
    /// How often it looks.
    pub every: Duration,
    /// How long at most; then it is an error of kind `timeout`.
    pub timeout: Option<Duration>,
}

/// A branch of a parallel step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParallelBranch {
    /// Its name.
    pub name: String,
    /// The step it begins with.
    pub start: String,
}

/// Where to go, and when.
#[derive(Debug, Clone)]
pub struct Branch {
    /// Taken if this holds; always, if there is none.
    pub when: Option<Expression>,
    /// The step to go to.
    pub goto: String,
}

/// Which errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorMatch {
    /// All but `budget`, `blind` and `cancelled`.
    Any,
    /// Of these kinds.
    Kinds(Vec<ErrorKind>),
}

impl ErrorMatch {
    /// Whether it names an error.
    pub fn matches(&self, kind: ErrorKind) -> bool {
        match self {
            // A run that is told to stop is not in error: nothing may hold it. What could not be looked at is not clean: who wants to go on
            // all the same must say so by name.
            Self::Any => !matches!(kind, ErrorKind::Budget | ErrorKind::Cancelled | ErrorKind::Blind),
            Self::Kinds(kinds) => kinds.contains(&kind),
        }
    }
}

/// Whether the wait before a retry is drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Jitter {
    /// As computed.
    #[default]
    None,
    /// From nothing to as computed.
    Full,
}

/// What to try again, how often, and how long to wait.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryRule {
    /// Which errors.
    pub on: ErrorMatch,
    /// How many times to try again; 0 is never. Counted for this rule, for one visit of the step.
    pub attempts: u32,
    /// The wait before the first.
    pub interval: Duration,
    /// By how much each wait is longer than the one before; at least 1.
    pub backoff: f64,
    /// The longest wait.
    pub max_interval: Option<Duration>,
    /// Whether the wait is drawn at random.
    pub jitter: Jitter,
}

/// Where to go with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchRule {
    /// Which errors.
    pub on: ErrorMatch,
    /// The step to go to.
    pub goto: String,
}

/// How many units of a repair step may fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(f64),
}

impl Tolerance {
    /// Whether so many of `total` are too many.
    pub fn exceeded(&self, failed: u64, total: u64) -> bool {
        match self {
            Self::Count(count) => failed > u64::from(*count),
            #[expect(clippy::cast_precision_loss, reason = "counts of units are far below 2^52")]
            Self::Percent(percent) => failed as f64 * 100.0 > percent * total as f64,
        }
    }
}
