//! Steps: [`Step`]'s constructors begin one, [`StepBuilder`] says the rest.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::plug_in::{How, PlugIn};
use super::print::Tree;
use super::values::{self, When};
use crate::plugin::{Aggregator, Detector, Repairer, Sensor, Task};
use crate::price::Budget;
use crate::workflow::{AfterIf, ErrorMatch, ParallelBranch, Rate, RetryRule, RunIf, Step, Strategy, Tolerance, Workflow};

/// A step that is being written, of one kind `K`. [`Step`] begins one.
///
/// The rest depends on the kind of workflow. In a state machine a step says where it leads (`next`, `next_when`, `end`, `catch`),
/// in a DAG what it comes after (`after` with `run_if`, or `after_if`).
#[derive(Debug, Clone)]
pub struct StepBuilder<K> {
    pub(super) draft: StepDraft,
    kind: PhantomData<K>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $($can:ident)*;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}

        $(impl $can for $name {})*
    )*};
}

/// A kind of step that takes a `with`.
pub trait Configured: sealed::Sealed {}

/// A kind of step after which the run goes on.
pub trait GoesOn: sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

use sealed::Sealed;

kinds! {
    /// The kind of a detect step.
    DetectStep: Sealed Configured GoesOn;
    /// The kind of a step that waits for some time or until an instant.
    WaitStep: Sealed GoesOn;
    /// The kind of a step that waits until a sensor's condition holds.
    SensorStep: Sealed Configured GoesOn;
    /// The kind of a repair step.
    RepairStep: Sealed Configured GoesOn;
    /// The kind of a verify step.
    VerifyStep: Sealed GoesOn;
    /// The kind of an aggregate step.
    AggregateStep: Sealed Configured GoesOn;
    /// The kind of a task step.
    TaskStep: Sealed Configured GoesOn;
    /// The kind of a parallel step.
    ParallelStep: Sealed GoesOn;
    /// The kind of a step that runs another workflow.
    WorkflowStep: Sealed Configured GoesOn;
    /// The kind of a step that runs steps, or another workflow, for each item of a list.
    MapOfSteps: Sealed Configured GoesOn;
    /// The kind of a step that ends the run.
    EndStep: Sealed;
}

/// What a step says, before plug-ins have names.
#[derive(Debug, Clone)]
pub(super) struct StepDraft {
    pub(super) word: Word,
    pub(super) fields: Fields,
    pub(super) next: Vec<Tree>,
    pub(super) retry: Vec<Tree>,
    pub(super) catch: Vec<Tree>,
    pub(super) mistakes: Vec<String>,
}

/// The word of a step, and what belongs to it alone.
#[derive(Debug, Clone)]
pub(super) enum Word {
    /// A word and its plug-in.
    PlugIn(&'static str, How),
    Strategies(Vec<StrategyBuilder>),
    Sensor(How),
    /// A word and its value.
    Value(&'static str, Tree),
    Parallel(Vec<(String, BranchBuilder)>),
    Workflow(Box<Child>),
    Map(Box<MapDraft>),
}

/// A map: its list, and what runs for each item.
#[derive(Debug, Clone)]
pub(super) struct MapDraft {
    pub(super) over: Tree,
    pub(super) dag: bool,
    pub(super) start: Option<String>,
    pub(super) steps: Vec<(String, StepDraft)>,
    pub(super) workflow: Option<Child>,
}

/// Another workflow, to run as a step.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) children: BTreeMap<String, String>,
}

/// The fields of a mapping; each is there once.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(&'static str, Tree)>);

impl Fields {
    pub(super) fn set(&mut self, name: &'static str, value: Tree) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<(String, Tree)> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        let (name, value) = self.0.remove(at);
        Some((name.to_owned(), value))
    }

    /// Adds to a mapping under a name.
    pub(super) fn add(&mut self, name: &'static str, key: &str, value: Tree) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Tree::Map(entries))) => entries.push((key.to_owned(), value)),
            _ => self.set(name, Tree::Map(vec![(key.to_owned(), value)])),
        }
    }

    /// Sets what a `with` says; what cannot be written is a mistake.
    pub(super) fn set_with(&mut self, with: &impl Serialize, mistakes: &mut Vec<String>) {
        match serde_json::to_value(with) {
            Ok(value) => self.set("with", Tree::from(&value)),
            Err(error) => mistakes.push(error.to_string()),
        }
    }
}

impl<K> StepBuilder<K> {
    fn new(word: Word) -> Self {
        let draft =
            StepDraft { word, fields: Fields::default(), next: Vec::new(), retry: Vec::new(), catch: Vec::new(), mistakes: Vec::new() };
        Self { draft, kind: PhantomData }
    }

    fn set(mut self, name: &'static str, value: Tree) -> Self {
        self.draft.fields.set(name, value);
        self
    }
}

/// Constructors of steps for [`WorkflowBuilder::step`](super::WorkflowBuilder::step).
impl Step {
    /// Finds what is wrong, with a detector: the name of a registered one, or one of your own.
    pub fn detect(detector: impl Into<PlugIn<dyn Detector>>) -> StepBuilder<DetectStep> {
        StepBuilder::new(Word::PlugIn("detect", detector.into().how))
    }

    /// Waits for some time, given or [`computed`](super::computed).
    pub fn wait_for(duration: impl Into<When<Duration>>) -> StepBuilder<WaitStep> {
        StepBuilder::new(Word::Value("wait", Tree::Map(vec![("for".to_owned(), duration.into().tree)])))
    }

    /// Waits until an instant, given or [`computed`](super::computed).
    pub fn wait_until(instant: impl Into<When<Timestamp>>) -> StepBuilder<WaitStep> {
        StepBuilder::new(Word::Value("wait", Tree::Map(vec![("until".to_owned(), instant.into().tree)])))
    }

    /// Waits until a condition holds of what a sensor senses.
    pub fn wait_for_sensor(sensor: impl Into<PlugIn<dyn Sensor>>) -> StepBuilder<SensorStep> {
        StepBuilder::new(Word::Sensor(sensor.into().how))
    }

    /// Repairs what a detect step found, with one repairer. [`StepBuilder::of`] names the detect step.
    pub fn repair(repairer: impl Into<PlugIn<dyn Repairer>>) -> StepBuilder<RepairStep> {
        StepBuilder::new(Word::PlugIn("repair", repairer.into().how))
    }

    /// Repairs what a detect step found, with several strategies: what one cannot fix goes to the next.
    pub fn strategies(strategies: impl IntoIterator<Item = StrategyBuilder>) -> StepBuilder<RepairStep> {
        StepBuilder::new(Word::Strategies(strategies.into_iter().collect()))
    }

    /// Looks again at what a detect step found.
    pub fn verify(of: &str) -> StepBuilder<VerifyStep> {
        StepBuilder::new(Word::Value("verify", Tree::text(of)))
    }

    /// Computes a table from others.
    pub fn aggregate(aggregator: impl Into<PlugIn<dyn Aggregator>>) -> StepBuilder<AggregateStep> {
        StepBuilder::new(Word::PlugIn("aggregate", aggregator.into().how))
    }

    /// Does anything else.
    pub fn task(task: impl Into<PlugIn<dyn Task>>) -> StepBuilder<TaskStep> {
        StepBuilder::new(Word::PlugIn("task", task.into().how))
    }

    /// Does several things at once, one for each branch.
    pub fn parallel() -> StepBuilder<ParallelStep> {
        StepBuilder::new(Word::Parallel(Vec::new()))
    }

    /// Runs another workflow, as a run of its own. If that one uses plug-ins of your own, build this one with its
    /// [registry](super::Built::registry).
    pub fn workflow(workflow: &Workflow) -> StepBuilder<WorkflowStep> {
        let Workflow { file, text, children, .. } = workflow.clone();
        StepBuilder::new(Word::Workflow(Box::new(Child { file, text, children })))
    }

    /// Runs the same steps, or another workflow, for each item of a list: anything that serializes as one, or [`computed`](super::computed). Add
    /// steps with [`step`](StepBuilder::step), or give a [`workflow`](StepBuilder::workflow).
    pub fn map(over: impl Serialize) -> StepBuilder<MapOfSteps> {
        let (over, mistakes) = match serde_json::to_value(over) {
            Ok(over) => (Tree::from(&over), Vec::new()),
            Err(error) => (Tree::Null, vec![error.to_string()]),
        };
        let draft = MapDraft { over, dag: false, start: None, steps: Vec::new(), workflow: None };
        let mut step = StepBuilder::new(Word::Map(Box::new(draft)));
        step.draft.mistakes = mistakes;
        step
    }

    /// As [`Step::map`], for each row of a query, which is an item with its columns by name.
    pub fn map_rows(query: impl Into<String>) -> StepBuilder<MapOfSteps> {
        Self::map(serde_json::json!({ "rows": query.into() }))
    }

    /// Ends the run well.
    pub fn succeed() -> StepBuilder<EndStep> {
        StepBuilder::new(Word::Value("succeed", Tree::Bool(true)))
    }

    /// Ends the run as failed, and says why.
    pub fn fail(message: impl Into<String>) -> StepBuilder<EndStep> {
        StepBuilder::new(Word::Value("fail", Tree::text(message)))
    }
}

impl<K: Configured> StepBuilder<K> {
    /// The configuration of the plug-in, or the parameters of the workflow that is run: anything that serializes as a mapping. Texts
    /// `{% … %}` in it are computed when the run comes there; [`computed`](super::computed) writes them.
    #[must_use]
    pub fn with(mut self, with: impl Serialize) -> Self {
        self.draft.fields.set_with(&with, &mut self.draft.mistakes);
        self
    }
}

impl<K: GoesOn> StepBuilder<K> {
    /// The run goes on with this step, if no condition before holds.
    #[must_use]
    pub fn next(mut self, goto: &str) -> Self {
        self.draft.next.push(Tree::Map(vec![("goto".to_owned(), Tree::text(goto))]));
        self
    }

    /// The run goes on with this step if a JSONata condition holds, such as `$output.missing = 0`. Conditions are tried in order.
    #[must_use]
    pub fn next_when(mut self, condition: &str, goto: &str) -> Self {
        let branch = vec![("when".to_owned(), Tree::text(condition)), ("goto".to_owned(), Tree::text(goto))];
        self.draft.next.push(Tree::Map(branch));
        self
    }

    /// The run, or the branch of a parallel step, ends after this step.
    #[must_use]
    pub fn end(self) -> Self {
        self.set("end", Tree::Bool(true))
    }

    /// What to try again. The first rule that names an error applies to it.
    #[must_use]
    pub fn retry(mut self, rule: RetryRule) -> Self {
        self.draft.retry.push(values::retry(rule));
        self
    }

    /// Where to go with an error. The first rule that names it applies.
    #[must_use]
    pub fn catch(mut self, on: impl Into<ErrorMatch>, goto: &str) -> Self {
        let rule = vec![("on".to_owned(), values::errors(on.into())), ("goto".to_owned(), Tree::text(goto))];
        self.draft.catch.push(Tree::Map(rule));
        self
    }

    /// How often the run may come to this step.
    #[must_use]
    pub fn max_visits(self, visits: u32) -> Self {
        self.set("max_visits", values::count(visits))
    }

    /// How long one attempt may take; of a sensor, how long to wait at most.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout", values::duration(timeout))
    }

    /// How long an attempt may go without a sign of life.
    #[must_use]
    pub fn heartbeat(self, heartbeat: Duration) -> Self {
        self.set("heartbeat", values::duration(heartbeat))
    }

    /// In a DAG, the steps that come before this one.
    #[must_use]
    pub fn after<T: Into<String>>(self, steps: impl IntoIterator<Item = T>) -> Self {
        self.set("after", Tree::texts(steps))
    }

    /// In a DAG, the steps that come before this one, and how each must have ended; in place of [`after`](Self::after) and
    /// [`run_if`](Self::run_if).
    #[must_use]
    pub fn after_if<T: Into<String>>(self, steps: impl IntoIterator<Item = (T, AfterIf)>) -> Self {
        let steps = steps.into_iter().map(|(step, condition)| (step.into(), Tree::text(condition.word())));
        self.set("after", Tree::Map(steps.collect()))
    }

    /// In a DAG, how the steps before must have ended.
    #[must_use]
    pub fn run_if(self, run_if: RunIf) -> Self {
        self.set("run_if", values::run_if(run_if))
    }
}

impl StepBuilder<SensorStep> {
    /// The condition, with what the sensor sensed as `$output`. Without one, what it senses must be true.
    #[must_use]
    pub fn when(self, condition: &str) -> Self {
        self.set("when", Tree::text(condition))
    }

    /// How often the sensor looks; every 30 s unless given.
    #[must_use]
    pub fn every(self, pause: Duration) -> Self {
        self.set("every", values::duration(pause))
    }
}

impl StepBuilder<RepairStep> {
    /// The detect step whose findings it repairs.
    #[must_use]
    pub fn of(self, detect: &str) -> Self {
        self.set("of", Tree::text(detect))
    }

    /// How many units run at once.
    #[must_use]
    pub fn concurrency(self, units: u32) -> Self {
        self.set("concurrency", values::count(units))
    }

    /// How many units may begin in how much time.
    #[must_use]
    pub fn rate_limit(self, rate: Rate) -> Self {
        self.set("rate_limit", values::rate(rate))
    }

    /// How many units may fail.
    #[must_use]
    pub fn tolerate(self, failed: Tolerance) -> Self {
        self.set("tolerate", values::tolerance(failed))
    }

    /// How much the step may spend, over all its visits.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        self.set("budget", values::budget(budget))
    }

    /// After so many runs that asked for a slot in vain, it is given up, and no run asks for it any more.
    #[must_use]
    pub fn give_up_after(self, runs: u32) -> Self {
        self.set("give_up_after", values::count(runs))
    }

    /// A tag on what it costs, in addition to the workflow's. Each strategy of a list has its own.
    #[must_use]
    pub fn tag(mut self, name: &str, value: impl Into<String>) -> Self {
        self.draft.fields.add("tags", name, Tree::text(value));
        self
    }
}

impl StepBuilder<AggregateStep> {
    /// The detect step whose findings say what was expected.
    #[must_use]
    pub fn of(self, detect: &str) -> Self {
        self.set("of", Tree::text(detect))
    }
}

impl StepBuilder<MapOfSteps> {
    fn draft(&mut self) -> Option<&mut MapDraft> {
        match &mut self.draft.word {
            Word::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The variable that holds the item; `item` unless given.
    #[must_use]
    pub fn item(self, name: &str) -> Self {
        self.set("as", Tree::text(name))
    }

    /// How many items run at once.
    #[must_use]
    pub fn concurrency(self, items: u32) -> Self {
        self.set("concurrency", values::count(items))
    }

    /// How many items may fail.
    #[must_use]
    pub fn tolerate(self, failed: Tolerance) -> Self {
        self.set("tolerate", values::tolerance(failed))
    }

    /// The steps for each item say what they come after, as in a DAG, and not where they lead.
    #[must_use]
    pub fn dag(mut self) -> Self {
        if let Some(map) = self.draft() {
            map.dag = true;
        }
        self
    }

    /// In a DAG, how many steps of one item run at once.
    #[must_use]
    pub fn max_parallel(self, steps: u32) -> Self {
        self.set("max_parallel", values::count(steps))
    }

    /// The step that each item begins with: the first one, unless given.
    #[must_use]
    pub fn start(mut self, step: &str) -> Self {
        if let Some(map) = self.draft() {
            map.start = Some(step.to_owned());
        }
        self
    }

    /// Adds a step that runs for each item. Its name may be that of a step outside the map.
    #[must_use]
    pub fn step<K>(mut self, name: &str, step: StepBuilder<K>) -> Self {
        if let Some(map) = self.draft() {
            map.steps.push((name.to_owned(), step.draft));
        }
        self
    }

    /// Another workflow that runs for each item, with the parameters of [`with`](StepBuilder::with), which may use the item.
    #[must_use]
    pub fn workflow(mut self, workflow: &Workflow) -> Self {
        let Workflow { file, text, children, .. } = workflow.clone();
        if let Some(map) = self.draft() {
            map.workflow = Some(Child { file, text, children });
        }
        self
    }
}

impl StepBuilder<ParallelStep> {
    /// Adds a branch; [`ParallelBranch::builder`] begins one.
    #[must_use]
    pub fn branch(mut self, name: &str, branch: BranchBuilder) -> Self {
        if let Word::Parallel(branches) = &mut self.draft.word {
            branches.push((name.to_owned(), branch));
        }
        self
    }
}

/// A strategy of a repair step that is being written; [`Strategy::builder`] begins one.
#[derive(Debug, Clone)]
pub struct StrategyBuilder {
    pub(super) how: How,
    pub(super) name: Option<String>,
    pub(super) fields: Fields,
    pub(super) retry: Vec<Tree>,
    pub(super) mistakes: Vec<String>,
}

impl Strategy {
    /// A strategy for [`Step::strategies`], with a repairer: the name of a registered one, or one of your own.
    pub fn builder(repairer: impl Into<PlugIn<dyn Repairer>>) -> StrategyBuilder {
        StrategyBuilder { how: repairer.into().how, name: None, fields: Fields::default(), retry: Vec::new(), mistakes: Vec::new() }
    }
}

impl StrategyBuilder {
    /// Its name within the step, which the rows that it repairs bear. Unless given, it is that of the plug-in.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The configuration of the repairer: anything that serializes as a mapping.
    #[must_use]
    pub fn with(mut self, with: impl Serialize) -> Self {
        self.fields.set_with(&with, &mut self.mistakes);
        self
    }

    /// What to try again, in place of what the step says.
    #[must_use]
    pub fn retry(mut self, rule: RetryRule) -> Self {
        self.retry.push(values::retry(rule));
        self
    }

    /// How much it may spend, over all visits of the step.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.fields.set("budget", values::budget(budget));
        self
    }

    /// A tag on what it costs, in addition to the workflow's.
    #[must_use]
    pub fn tag(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.add("tags", name, Tree::text(value));
        self
    }
}

/// A branch of a parallel step that is being written; [`ParallelBranch::builder`] begins one.
#[derive(Debug, Clone, Default)]
pub struct BranchBuilder {
    pub(super) start: Option<String>,
    pub(super) steps: Vec<(String, StepDraft)>,
}

impl ParallelBranch {
    /// A branch for [`StepBuilder::branch`], without steps.
    pub fn builder() -> BranchBuilder {
        BranchBuilder::default()
    }
}

impl BranchBuilder {
    /// The step that the branch begins with: the first one, unless given.
    #[must_use]
    pub fn start(mut self, step: &str) -> Self {
        self.start = Some(step.to_owned());
        self
    }

    /// Adds a step. Its name must be unique in the whole workflow.
    #[must_use]
    pub fn step<K>(mut self, name: &str, step: StepBuilder<K>) -> Self {
        self.steps.push((name.to_owned(), step.draft));
        self
    }
}
