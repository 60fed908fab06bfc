//! Workflows written in Rust.
//!
//! A [`WorkflowBuilder`] says what a YAML file says, in the same words, and [`build`](WorkflowBuilder::build) prints it as YAML and reads that.
//! So a workflow in Rust passes the same checks with the same messages, whose places are in the printed text, and the journal keeps that text
//! like any other. The whole language is there: what a section or a step takes in YAML is a method here.
//!
//! Where YAML names a plug-in, Rust takes the name or a value of your own that implements the trait:
//!
//! ```
//! use async_trait::async_trait;
//! use repair_core::model::{Cadence, Format, Table, Usage};
//! use repair_core::plugin::{Registry, StepContext, Task};
//! use repair_core::workflow::builder::computed;
//! use repair_core::workflow::{Param, ParamType, Step, Workflow};
//! use repair_core::Result;
//! use serde_json::{Value, json};
//!
//! /// A task of our own.
//! struct Notify;
//!
//! #[async_trait]
//! impl Task for Notify {
//!     async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
//!         Ok((json!({ "notified": context.run.as_ref() }), Usage::default()))
//!     }
//! }
//!
//! let built = Workflow::state_machine("nightly")
//!     .param("from", Param::new(ParamType::Date).with_about("The first day"))
//!     .table(Table::new("readings", Format::Csv, "ts").with_key(["sensor"]).with_cadence(Cadence::HOUR))
//!     .step(
//!         "look",
//!         Step::detect("gaps")
//!             .with(json!({ "table": "readings", "keys": ["a", "b"], "from": computed("$params.from"), "to": "2024-03-31" }))
//!             .next_when("$output.missing = 0", "done")
//!             .next("notify"),
//!     )
//!     .step("notify", Step::task(Notify).next("done"))
//!     .step("done", Step::succeed())
//!     .build(Registry::default())?;
//!
//! assert_eq!(built.workflow.start, "look");
//! assert!(built.workflow.text.contains("task: own.nightly.notify"));
//! # Ok::<(), repair_core::yaml::Diagnostics>(())
//! ```
//!
//! # Plug-ins of your own, and resuming
//!
//! A plug-in of your own is registered under a name that follows from where it stands: `own.WORKFLOW.STEP`, `own.WORKFLOW.STEP.STRATEGY` in
//! a list of strategies, `own.WORKFLOW.SOURCE` for a source. A run keeps this name, not the plug-in. A program that resumes the run must have
//! it again: it builds the same workflow, which gives the same names, and uses the registry of [`Built`]. In a program that has not done so,
//! the run is refused with a message that says so. Its configuration is part of the program: if the plug-in changes between two
//! processes, so does what the resumed run does.

mod assemble;
mod plug_in;
mod print;
mod step;
mod values;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::assemble::Assembly;
use self::step::{Fields, StepDraft};

pub use self::plug_in::PlugIn;
pub use self::step::{
    AggregateStep, BranchBuilder, Configured, DetectStep, EndStep, GoesOn, MapOfSteps, ParallelStep, RepairStep, SensorStep, StepBuilder,
    StrategyBuilder, TaskStep, VerifyStep, WaitStep, WorkflowStep,
};
pub use self::values::{Computed, When, computed};

pub(super) use self::print::print_node;

use self::plug_in::How;
use self::print::Tree;
use crate::model::{Calendar, Table};
use crate::plugin::{Registry, Source};
use crate::price::Budget;
use crate::workflow::schedule::Schedule;
use crate::workflow::{CalendarRule, Lineage, Notifier, Param, Rate, SourceUse, Workflow, parse};
use crate::yaml::Diagnostics;

/// A workflow that is being written; [`Workflow::state_machine`] and [`Workflow::dag`] begin one.
#[derive(Debug, Clone)]
pub struct WorkflowBuilder {
    name: String,
    dag: bool,
    file: Option<String>,
    fields: Fields,
    prices: Option<(String, String)>,
    include: Vec<String>,
    included: Vec<(String, String)>,
    params: Vec<(String, Tree)>,
    tags: Vec<(String, Tree)>,
    tables: Vec<(String, Tree)>,
    sources: Vec<(String, SourceBuilder)>,
    calendars: Vec<(String, Tree)>,
    own_calendars: Vec<Arc<dyn Calendar>>,
    steps: Vec<(String, StepDraft)>,
    profiles: Vec<(String, Tree)>,
    notify: Vec<(String, Tree)>,
    start: Option<String>,
    mistakes: Vec<String>,
}

/// A workflow that was built, and the plug-ins that it needs.
#[derive(Clone)]
pub struct Built {
    /// The workflow, checked. Its `text` is the YAML.
    pub workflow: Workflow,
    /// The registry that was given, with the plug-ins of your own that the workflow uses. Runs of the workflow need it.
    pub registry: Registry,
}

impl Workflow {
    /// Begins a workflow whose steps say where they lead.
    pub fn state_machine(name: &str) -> WorkflowBuilder {
        WorkflowBuilder::new(name, false)
    }

    /// Begins a workflow whose steps say what they come after.
    pub fn dag(name: &str) -> WorkflowBuilder {
        WorkflowBuilder::new(name, true)
    }
}

impl WorkflowBuilder {
    fn new(name: &str, dag: bool) -> Self {
        Self {
            name: name.to_owned(),
            dag,
            file: None,
            fields: Fields::default(),
            prices: None,
            include: Vec::new(),
            included: Vec::new(),
            params: Vec::new(),
            tags: Vec::new(),
            tables: Vec::new(),
            sources: Vec::new(),
            calendars: Vec::new(),
            own_calendars: Vec::new(),
            steps: Vec::new(),
            profiles: Vec::new(),
            notify: Vec::new(),
            start: None,
            mistakes: Vec::new(),
        }
    }

    fn set(mut self, name: &'static str, value: Tree) -> Self {
        self.fields.set(name, value);
        self
    }

    /// The file that messages name as the workflow's; `built:NAME.yaml` unless given. Nothing is read from it.
    #[must_use]
    pub fn file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// What the workflow is for.
    #[must_use]
    pub fn about(self, about: impl Into<String>) -> Self {
        self.set("about", Tree::text(about))
    }

    /// How long a run may take.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout", values::duration(timeout))
    }

    /// How many steps of a DAG run at once; eight unless given.
    #[must_use]
    pub fn max_parallel(self, steps: u32) -> Self {
        self.set("max_parallel", values::count(steps))
    }

    /// How much a run may spend.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        self.set("budget", values::budget(budget))
    }

    /// A price book: its file, for messages, and its text.
    #[must_use]
    pub fn prices(mut self, file: impl Into<String>, text: impl Into<String>) -> Self {
        self.prices = Some((file.into(), text.into()));
        self
    }

    /// Includes the tables, sources and calendars of a file: its name, for messages, and its text. If it includes files itself, give these to
    /// [`included`](Self::included).
    #[must_use]
    pub fn include(mut self, file: impl Into<String>, text: impl Into<String>) -> Self {
        let file = file.into();
        self.include.push(file.clone());
        self.included(file, text)
    }

    /// The text of a file that an included file includes. Its name is relative to the workflow's file.
    #[must_use]
    pub fn included(mut self, file: impl Into<String>, text: impl Into<String>) -> Self {
        self.included.push((file.into(), text.into()));
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn param(mut self, name: &str, param: Param) -> Self {
        self.params.push((name.to_owned(), values::param(param)));
        self
    }

    /// Adds a tag on everything that the workflow costs.
    #[must_use]
    pub fn tag(mut self, name: &str, value: impl Into<String>) -> Self {
        self.tags.push((name.to_owned(), Tree::text(value)));
        self
    }

    /// Adds a table.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.tables.push((table.name.clone(), values::table(table)));
        self
    }

    /// Adds a table of another lake, which only queries of sources see, under a name that no other table of the workflow has. The profile says where
    /// that lake is; there and in queries, the table has its own name.
    #[must_use]
    pub fn table_in(mut self, profile: &str, name: &str, table: Table) -> Self {
        let mut fields = vec![("lake".to_owned(), Tree::text(profile)), ("name".to_owned(), Tree::text(&table.name))];
        if let Tree::Map(of_table) = values::table(table) {
            fields.extend(of_table);
        }
        self.tables.push((name.to_owned(), Tree::Map(fields)));
        self
    }

    /// Adds a source; [`SourceUse::builder`] begins one.
    #[must_use]
    pub fn source(mut self, name: &str, source: SourceBuilder) -> Self {
        self.sources.push((name.to_owned(), source));
        self
    }

    /// Adds a calendar by a rule.
    #[must_use]
    pub fn calendar(mut self, name: &str, rule: CalendarRule) -> Self {
        match values::calendar(rule) {
            Ok(tree) => self.calendars.push((name.to_owned(), tree)),
            Err(why) => self.mistakes.push(format!("calendar `{name}` can't be written: {why}")),
        }
        self
    }

    /// Adds a calendar of your own, under its name. A run keeps the name and not the calendar, so a program that resumes the run must have it
    /// again.
    #[must_use]
    pub fn own_calendar(mut self, calendar: Arc<dyn Calendar>) -> Self {
        self.own_calendars.push(calendar);
        self
    }

    /// Adds a profile: a kind of lake and its configuration, which is anything that serializes as a mapping.
    #[must_use]
    pub fn profile(mut self, name: &str, lake: &str, with: impl Serialize) -> Self {
        let mut fields = Fields::default();
        fields.set("lake", Tree::text(lake));
        let mut mistakes = Vec::new();
        fields.set_with(&with, &mut mistakes);
        self.mistakes.extend(mistakes.into_iter().map(|why| format!("the `with` of profile `{name}` can't be written: {why}")));
        self.profiles.push((name.to_owned(), Tree::Map(["lake", "with"].into_iter().filter_map(|key| fields.take(key)).collect())));
        self
    }

    /// When the workflow starts by itself.
    #[must_use]
    pub fn schedule(self, schedule: Schedule) -> Self {
        self.set("schedule", values::schedule(schedule))
    }

    /// Adds somebody who hears of runs.
    #[must_use]
    pub fn notify(mut self, name: &str, notifier: &Notifier) -> Self {
        self.notify.push((name.to_owned(), values::notifier(notifier)));
        self
    }

    /// Where OpenLineage events of runs go.
    #[must_use]
    pub fn lineage(self, lineage: &Lineage) -> Self {
        self.set("lineage", values::lineage(lineage))
    }

    /// The step that a state machine begins with: the first one, unless given.
    #[must_use]
    pub fn start(mut self, step: &str) -> Self {
        self.start = Some(step.to_owned());
        self
    }

    /// Adds a step; the constructors of [`Step`](crate::workflow::Step) begin one.
    #[must_use]
    pub fn step<K>(mut self, name: &str, step: StepBuilder<K>) -> Self {
        self.steps.push((name.to_owned(), step.draft));
        self
    }

    /// The workflow as YAML, checked or not.
    pub fn to_yaml(&self) -> String {
        self.assemble().0
    }

    /// Prints the workflow as YAML, and reads and checks that with the plug-ins of a registry and those of your own that it uses.
    ///
    /// # Errors
    /// As [`Workflow::parse`]: all mistakes at once, with their places in the printed text.
    pub fn build(&self, mut registry: Registry) -> Result<Built, Diagnostics> {
        let (text, assembly) = self.assemble();
        for (name, register) in &assembly.own {
            register(&mut registry, name);
        }
        if !assembly.mistakes.is_empty() {
            return Err(Diagnostics::of_file(&assembly.file, assembly.mistakes.join("\n"), None));
        }
        for calendar in &self.own_calendars {
            if registry.calendars().get(calendar.name()).is_some_and(|known| !Arc::ptr_eq(known, calendar)) {
                let message = format!("there is a calendar `{}` already; give yours another name", calendar.name());
                return Err(Diagnostics::of_file(&assembly.file, message, None));
            }
            registry.add_calendar(Arc::clone(calendar));
        }
        let texts = |name: &str| assembly.texts.get(name).cloned().ok_or_else(|| format!("there is no file `{name}`"));
        let workflow = parse::parse(&assembly.file, &text, &registry, &texts, None, &[])?;
        Ok(Built { workflow, registry })
    }

    fn assemble(&self) -> (String, Assembly) {
        let file = self.file.clone().unwrap_or_else(|| format!("built:{}.yaml", self.name));
        let mut assembly = Assembly::new(&self.name, file);
        assembly.mistakes.extend(self.mistakes.iter().cloned());
        let mut fields = self.fields.clone();
        let kind = if self.dag { "dag" } else { "state-machine" };
        let mut root = vec![("workflow".to_owned(), Tree::text(&self.name)), ("kind".to_owned(), Tree::text(kind))];
        root.extend(["about", "timeout", "max_parallel"].into_iter().filter_map(|name| fields.take(name)));
        for (file, text) in &self.included {
            assembly.add_text(file, text);
        }
        root.extend((!self.include.is_empty()).then(|| ("include".to_owned(), Tree::texts(&self.include))));
        let section = |name: &str, entries: Vec<(String, Tree)>| (!entries.is_empty()).then(|| (name.to_owned(), Tree::Map(entries)));
        root.extend(section("params", self.params.clone()));
        root.extend(section("tags", self.tags.clone()));
        if let Some((file, text)) = &self.prices {
            assembly.add_text(file, text);
            root.push(("prices".to_owned(), Tree::text(file)));
        }
        root.extend(fields.take("budget"));
        root.extend(fields.take("schedule"));
        root.extend(section("tables", self.tables.clone()));
        let sources = self.sources.iter().map(|(name, source)| (name.clone(), assembly.source(name, source))).collect();
        root.extend(section("sources", sources));
        root.extend(section("calendars", self.calendars.clone()));
        let first = self.steps.first().map(|(name, _)| name).filter(|_| !self.dag);
        let start = self.start.as_ref().or(first);
        root.extend(start.map(|start| ("start".to_owned(), Tree::text(start))));
        root.push(("steps".to_owned(), assembly.steps(&self.steps)));
        root.extend(section("profiles", self.profiles.clone()));
        root.extend(section("notify", self.notify.clone()));
        root.extend(fields.take("lineage"));
        (print::print(&root), assembly)
    }
}

/// A source that is being written; [`SourceUse::builder`] begins one.
#[derive(Debug, Clone)]
pub struct SourceBuilder {
    how: How,
    fields: Fields,
    mistakes: Vec<String>,
}

impl SourceUse {
    /// A source for [`WorkflowBuilder::source`]: the name of a registered one, or one of your own.
    pub fn builder(source: impl Into<PlugIn<dyn Source>>) -> SourceBuilder {
        SourceBuilder { how: source.into().how, fields: Fields::default(), mistakes: Vec::new() }
    }
}

impl SourceBuilder {
    /// The configuration of the source: anything that serializes as a mapping.
    #[must_use]
    pub fn with(mut self, with: impl Serialize) -> Self {
        self.fields.set_with(&with, &mut self.mistakes);
        self
    }

    /// How often it may be asked, over all units of a run.
    #[must_use]
    pub fn rate_limit(mut self, rate: Rate) -> Self {
        self.fields.set("rate_limit", values::rate(rate));
        self
    }
}
