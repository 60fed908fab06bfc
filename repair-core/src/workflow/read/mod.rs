//! Reads the tree into a [`Workflow`], and goes on after every mistake. It must not look at what names mean; `check` does that.

mod branch;
mod budget;
mod calendar;
mod include;
mod keys;
mod map;
mod notify;
mod param;
mod reading;
mod scalar;
mod schedule;
mod step;
mod strategy;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use branch::{DEFAULT_ATTEMPTS, DEFAULT_BACKOFF, DEFAULT_INTERVAL};
pub(crate) use calendar::CalendarDraft;
pub(crate) use schedule::SchedulePlaces;
pub(crate) use step::WORDS as STEP_WORDS;
pub(crate) use strategy::MAX_STRATEGIES;

use serde_json::Value;

use crate::price::PriceBook;
use crate::workflow::Expression;
use crate::workflow::include::Included;
use crate::workflow::parse::resolve;
use crate::workflow::{Template, Workflow, WorkflowKind};
use crate::yaml::Diagnostics;
use crate::yaml::closest;
use crate::yaml::tree::{Key, Node, Place, Yaml};

/// How many characters a name may have: names become parts of file names, and of our own longer names.
pub(crate) const MAX_NAME: usize = 100;
/// How many steps one workflow may have. More would be data rather than a workflow, and checks of the graph are quick up to here.
pub(crate) const MAX_STEPS: usize = 10_000;
/// How many entries every other list or mapping of the language may have: tables, parameters, branches of a step.
pub(crate) const MAX_ENTRIES: usize = 1_000;
/// How many steps of a DAG run at once by default.
const DEFAULT_PARALLEL: u32 = 8;
/// How many steps of a DAG may run at once.
const MAX_PARALLEL: u32 = 1_000;
/// How many bytes one text of the language may have, such as a message or a location.
const MAX_TEXT: usize = 10_000;
/// How many bytes a query under `with` may have: a statement with many columns is long.
const MAX_QUERY: usize = 100_000;

/// The keys of a workflow.
const KEYS: [&str; 19] = [
    "workflow",
    "kind",
    "about",
    "include",
    "params",
    "tags",
    "tables",
    "sources",
    "calendars",
    "start",
    "steps",
    "profiles",
    "budget",
    "prices",
    "schedule",
    "timeout",
    "max_parallel",
    "notify",
    "lineage",
];

/// A workflow that was read but not checked, with the places of its parts in the text.
pub(crate) struct Draft<'a> {
    pub(crate) workflow: Workflow,
    /// The place of the step that `start` names, if it names one.
    pub(crate) start: Option<Place>,
    /// The names of all steps, read or not: naming one that could not be read is not a second mistake.
    pub(crate) step_names: Vec<&'a str>,
    /// The places of each step of the workflow, in the same order.
    pub(crate) steps: Vec<StepPlaces<'a>>,
    /// The places of each source, by its name.
    pub(crate) sources: BTreeMap<String, PluginPlaces<'a>>,
    /// The place of each table's name, read or not.
    pub(crate) table_places: BTreeMap<&'a str, Place>,
    /// For each table, what says which keys are expected.
    pub(crate) table_keys: BTreeMap<&'a str, &'a Node>,
    /// For each table in another lake, by its name here: the profile of that lake, and the place that names it.
    pub(crate) lake_places: table::LakePlaces<'a>,
    /// Every key under `tables`, read or not.
    pub(crate) table_names: Vec<&'a str>,
    /// Every key under `sources`, read or not.
    pub(crate) source_names: Vec<&'a str>,
    /// The calendars that could be read.
    pub(crate) calendars: Vec<CalendarDraft<'a>>,
    /// Every key under `calendars`, read or not.
    pub(crate) calendar_names: Vec<&'a str>,
    /// Every key under `params`, read or not; `None` if the file is not a workflow, so that others have the parameters.
    pub(crate) param_names: Option<Vec<&'a str>>,
    /// The place of each parameter's name.
    pub(crate) param_places: BTreeMap<&'a str, Place>,
    /// Whether all included files could be read. If not, a table or source that is missing is not a second mistake.
    pub(crate) complete: bool,
    /// The places of the schedule, if there is one.
    pub(crate) schedule: Option<SchedulePlaces>,
    /// All expressions.
    pub(crate) expressions: Vec<ExpressionUse>,
    /// Whether all steps and the ways between them could be read. If not, checks of the graph would only repeat known mistakes.
    pub(crate) whole: bool,
}

/// The places of the parts of a step.
pub(crate) struct StepPlaces<'a> {
    /// The step's name.
    pub(crate) name: Place,
    /// The step's plug-ins, in order.
    pub(crate) plugins: Vec<PluginPlaces<'a>>,
    /// The detect step that `of` names.
    pub(crate) of: Option<Place>,
    /// The entries of `after`.
    pub(crate) after: Vec<Place>,
    /// For each branch of a parallel step, the step that its `start` names.
    pub(crate) branches: Vec<Place>,
    /// The branches of `next`.
    pub(crate) next: Vec<BranchPlaces>,
    /// For each catch rule, the step that it goes to.
    pub(crate) catch: Vec<Place>,
}

/// The places of the parts of a branch of `next`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BranchPlaces {
    /// The condition, if there is one.
    pub(crate) when: Option<Place>,
    /// The step that the branch goes to.
    pub(crate) goto: Place,
}

/// The name and the configuration of a plug-in in the text.
pub(crate) struct PluginPlaces<'a> {
    /// Where the plug-in is named.
    pub(crate) name: Place,
    /// The value of `with`, if it is given.
    pub(crate) with: Option<&'a Node>,
    /// If the step writes the values of `with` without `with`: their keys, and the values.
    pub(crate) said: Vec<(&'static str, &'a Node)>,
}

/// An expression, and where it is used.
pub(crate) struct ExpressionUse {
    pub(crate) expression: Expression,
    pub(crate) place: Place,
    pub(crate) within: Within,
    /// The variable of the item, if it is computed for each item of a map.
    pub(crate) item: Option<String>,
}

/// The part of a workflow in which an expression is used, which decides the variables it can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    /// A step, which is computed during a run.
    Step,
    /// A source, which is made when a run starts.
    Source,
    /// A profile, which is opened before a run starts.
    Profile,
}

/// Finds and reads another workflow, by the name that this one gives it. The error says why it cannot run.
pub(crate) type Child<'a> = &'a dyn Fn(&str) -> Result<Arc<Workflow>, String>;

/// Finds and reads the price book that the workflow names, or the one given separately. The error says why it cannot be used.
pub(crate) type Prices<'a> = &'a dyn Fn(Option<&str>) -> Result<Option<Arc<PriceBook>>, String>;

/// Finds the text of a file of days or keys, by its resolved name. The error says why it cannot be read.
pub(crate) type Files<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Reads and checks the steps within a map, as a workflow of their own with the variables that its runs are given. Mistakes are added to those
/// that there are; with new ones, there is no workflow. The name is that of the step.
pub(crate) type Inner<'a> = &'a dyn Fn(&str, &Node, &BTreeMap<String, Value>, Diagnostics) -> (Option<Arc<Workflow>>, Diagnostics);

/// How to find what is in other files, and to read workflows within this one.
#[derive(Clone, Copy)]
pub(crate) struct Others<'a> {
    pub(crate) child: Child<'a>,
    pub(crate) within: Inner<'a>,
    pub(crate) prices: Prices<'a>,
    pub(crate) files: Files<'a>,
}

/// Reads a workflow, and collects mistakes.
pub(crate) struct Reader<'a> {
    text: &'a str,
    diagnostics: Diagnostics,
    child: Child<'a>,
    within: Inner<'a>,
    prices: Prices<'a>,
    files: Files<'a>,
    included: &'a Included,
    /// The variables of maps around the workflow.
    items: &'a BTreeMap<String, Value>,
    /// The variable of the item, while what is read is computed for each item of a map.
    item: Option<String>,
    /// The whole workflow.
    root: Option<&'a Node>,
    /// What the included files define.
    shared: Vec<Fields<'a>>,
    /// Whether there is a price book for budgets in dollars, or its absence was already reported.
    priced: bool,
    /// The key columns of each table that was read.
    key_columns: BTreeMap<String, Vec<String>>,
    /// Whether the workflow has a budget.
    budgeted: bool,
    dag: bool,
    step_names: Vec<&'a str>,
    expressions: Vec<ExpressionUse>,
    whole: bool,
}

/// A mapping whose keys were checked.
pub(super) struct Fields<'a> {
    node: &'a Node,
    /// The place of the key that holds the mapping.
    place: Place,
    /// What the mapping describes, for messages: `table `bars``.
    what: String,
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Node> {
        self.node.get(name)
    }

    fn key_place(&self, name: &str) -> Place {
        self.node.entry(name).map_or(self.place, |(key, _)| key.place)
    }
}

impl<'a> Reader<'a> {
    /// Reads a file that a node names, relative to the file in which it does: its number in messages, its name, and its text.
    pub(super) fn file_beside(&mut self, node: &Node) -> Option<(usize, String, String)> {
        let name = self.text(node, "`file`")?;
        let resolved = resolve(&self.diagnostics.file_of(node.place), &name);
        match (self.files)(&resolved) {
            Ok(text) => Some((self.diagnostics.add_file(&resolved, &text), name, text)),
            Err(why) => {
                let help = "names of files are relative to the folder of the file that names them".to_owned();
                self.error(node.place, format!("{} cannot be read: {why}", quoted(&name)), Some(help));
                None
            }
        }
    }

    pub(crate) fn new(
        text: &'a str,
        diagnostics: Diagnostics,
        others: Others<'a>,
        included: &'a Included,
        items: &'a BTreeMap<String, Value>,
    ) -> Self {
        let Others { child, within, prices, files } = others;
        Self {
            text,
            diagnostics,
            child,
            within,
            prices,
            files,
            included,
            items,
            item: None,
            root: None,
            shared: Vec::new(),
            priced: false,
            key_columns: BTreeMap::new(),
            budgeted: false,
            dag: false,
            step_names: Vec::new(),
            expressions: Vec::new(),
            whole: true,
        }
    }

    pub(crate) fn into_diagnostics(self) -> Diagnostics {
        self.diagnostics
    }

    /// Reads a whole file; `None` if it is not even a mapping. Mistakes may have been collected in either case.
    pub(crate) fn workflow(&mut self, file: &str, root: &'a Node) -> Option<Draft<'a>> {
        self.repeated(root);
        self.root = Some(root);
        if matches!(root.value, Yaml::Null) {
            self.error(root.place, "the file is empty", Some("begin a workflow with `workflow: name`".to_owned()));
            return None;
        }
        // The steps within a map have no file of their own.
        let (place, what) = if self.items.is_empty() { (Place::default(), "the workflow") } else { (root.place, "the map") };
        let fields = self.fields(root, place, what, &KEYS)?;
        let name = self.required(&fields, "workflow", "e.g. `workflow: ticker-hourly`").and_then(|node| self.name(node, "the workflow"));
        let kind = self.kind(&fields);
        self.dag = kind.is_dag();
        let timeout = self.duration(&fields, "timeout");
        if let Some(about) = fields.get("about") {
            self.text(about, "`about`");
        }
        let params = self.params(&fields);
        let tags = self.tags(&fields);
        let prices = self.price_book(&fields);
        let budget = self.budget(&fields);
        self.budgeted = fields.get("budget").is_some();
        let schedule = self.schedule(&fields);
        let (schedule, schedule_places) = schedule.unzip();
        let shared = self.shared_draft(file, &fields);
        let profiles = self.profiles(&fields);
        let notify = self.notifiers(&fields);
        let lineage = self.lineage(&fields);
        let start = if self.dag {
            if fields.get("start").is_some() {
                let help = "remove it; steps without `after` begin at once";
                self.error(fields.key_place("start"), "a dag has no `start`", Some(help.to_owned()));
            }
            None
        } else {
            self.required(&fields, "start", "name the step to begin with")
        };
        let start_name = start.and_then(|node| self.text(node, "`start`"));
        self.whole &= self.dag || start_name.is_some();
        let (steps, step_places) = self.steps(&fields);
        let workflow = Workflow {
            name: name.unwrap_or_default(),
            kind,
            timeout,
            params,
            tags,
            budget,
            prices,
            start: start_name.clone().unwrap_or_default(),
            steps: steps.into_iter().collect(),
            profiles,
            schedule,
            items: self.items.clone(),
            outer: None,
            notify,
            lineage,
            ..shared.workflow
        };
        Some(Draft {
            workflow,
            start: start.filter(|_| start_name.is_some()).map(|node| node.place),
            step_names: std::mem::take(&mut self.step_names),
            steps: step_places,
            param_names: Some(keys(fields.get("params"))),
            param_places: places(fields.get("params")),
            expressions: std::mem::take(&mut self.expressions),
            whole: self.whole,
            schedule: schedule_places,
            ..shared
        })
    }

    /// Reports the keys that appear twice in one mapping.
    fn repeated(&mut self, root: &'a Node) {
        let mut repeated = Vec::new();
        root.repeated_keys(&mut |key, first| repeated.push((key, first)));
        for (key, first) in repeated {
            let help = format!("remove one; the first is on line {}", self.diagnostics.line(first.place));
            self.error(key.place, format!("the key {} appears twice", quoted(&key.name)), Some(help));
        }
    }

    fn kind(&mut self, fields: &Fields<'a>) -> WorkflowKind {
        const KINDS: [(&str, bool); 2] = [("state-machine", false), ("dag", true)];
        let node = self.required(
            fields,
            "kind",
            "write `kind: state-machine`, where each step names its `next`, or `kind: dag`, where each step names what it comes `after`",
        );
        let dag = node.and_then(|node| self.word(node, "`kind`", &KINDS)).unwrap_or(false);
        let max_parallel = self.count(fields, "max_parallel", 1..=MAX_PARALLEL);
        if max_parallel.is_some() && !dag {
            let help = "remove it; a state machine runs one step at a time, except in parallel steps";
            self.error(fields.key_place("max_parallel"), "only `kind: dag` takes `max_parallel`", Some(help.to_owned()));
        }
        if dag { WorkflowKind::Dag { max_parallel: max_parallel.unwrap_or(DEFAULT_PARALLEL) } } else { WorkflowKind::StateMachine }
    }

    fn error(&mut self, place: Place, message: impl Into<String>, help: Option<String>) {
        self.diagnostics.push(place, message.into(), help);
    }

    /// A mapping, after reporting all its unknown keys. `place` is that of the key that holds the mapping.
    fn fields(&mut self, node: &'a Node, place: Place, what: &str, known: &[&str]) -> Option<Fields<'a>> {
        for (key, _) in self.mapping(node, what, MAX_ENTRIES)? {
            if !known.contains(&key.name.as_str()) && !self.diagnostics.full() {
                let help = did_you_mean(&key.name, known.iter().copied()).unwrap_or_else(|| one_of(known.iter().copied()));
                self.error(key.place, format!("unknown key {} in {what}", quoted(&key.name)), Some(help));
            }
        }
        Some(Fields { node, place, what: what.to_owned() })
    }

    fn mapping(&mut self, node: &'a Node, what: &str, limit: usize) -> Option<&'a [(Key, Node)]> {
        match &node.value {
            Yaml::Map(entries) if entries.len() <= limit => Some(entries),
            Yaml::Map(entries) => {
                self.error(node.place, format!("{what} has {} entries; at most {limit} are allowed", entries.len()), None);
                None
            }
            _ => {
                self.error(node.place, format!("{what} must be a mapping, not {}", node.describe()), None);
                None
            }
        }
    }

    fn list(&mut self, node: &'a Node, what: &str) -> Option<&'a [Node]> {
        match &node.value {
            Yaml::List(items) if items.len() <= MAX_ENTRIES => Some(items),
            Yaml::List(items) => {
                self.error(node.place, format!("{what} has {} entries; at most {MAX_ENTRIES} are allowed", items.len()), None);
                None
            }
            _ => {
                self.error(node.place, format!("{what} must be a list, not {}", node.describe()), None);
                None
            }
        }
    }

    fn required(&mut self, fields: &Fields<'a>, name: &str, help: &str) -> Option<&'a Node> {
        let node = fields.get(name);
        if node.is_none() {
            self.error(fields.place, format!("{} has no `{name}`", fields.what), Some(help.to_owned()));
        }
        node
    }

    /// The entries of an optional section whose keys are names that the user chose.
    fn section(&mut self, fields: &Fields<'a>, name: &str, limit: usize) -> Vec<(&'a Key, &'a Node)> {
        let Some(node) = fields.get(name) else { return Vec::new() };
        let Some(entries) = self.mapping(node, &format!("`{name}`"), limit) else { return Vec::new() };
        let mut named: Vec<(&Key, &Node)> = Vec::with_capacity(entries.len());
        let mut seen = std::collections::HashSet::new();
        for (key, value) in entries {
            if seen.insert(key.name.as_str()) && self.is_name(&key.name, key.place, &format!("a name under `{name}`")) {
                named.push((key, value));
            }
        }
        named
    }

    /// Reads a value in which texts of the form `{% … %}` are computed.
    fn template(&mut self, node: &'a Node, within: Within) -> Template {
        self.template_of(node, within, MAX_TEXT)
    }

    fn template_of(&mut self, node: &'a Node, within: Within, most: usize) -> Template {
        match &node.value {
            Yaml::Text(text) => match computed(text) {
                Computed::No => {
                    if let Some(inner) = of_other_tools(text) {
                        let help = format!(
                            "write `{{% {inner} %}}` for an expression; for this text itself, write `\"{{% '{}' %}}\"`",
                            text.trim()
                        );
                        self.error(node.place, format!("{} is not how values are computed here", quoted(text.trim())), Some(help));
                    }
                    if text.len() > most {
                        self.error(node.place, format!("the text has {} bytes; at most {most} are allowed", text.len()), None);
                    }
                    Template::Value(node.to_json())
                }
                Computed::Whole(inner) => {
                    self.expression(inner, node.place, within).map_or_else(|| Template::Value(node.to_json()), Template::Computed)
                }
                Computed::Part => {
                    let help = "join texts within the expression, e.g. `\"{% 'from ' & $params.from %}\"`";
                    self.error(node.place, "an expression must be the whole value, from `{%` to `%}`", Some(help.to_owned()));
                    Template::Value(node.to_json())
                }
            },
            Yaml::List(items) => {
                let items: Vec<Template> = items.iter().map(|item| self.template(item, within)).collect();
                if items.iter().all(is_value) { Template::Value(node.to_json()) } else { Template::List(items) }
            }
            Yaml::Map(entries) => {
                let entries: Vec<(String, Template)> = entries
                    .iter()
                    .map(|(key, value)| {
                        let most = if key.name == "query" { MAX_QUERY } else { MAX_TEXT };
                        (key.name.clone(), self.template_of(value, within, most))
                    })
                    .collect();
                if entries.iter().all(|(_, value)| is_value(value)) { Template::Value(node.to_json()) } else { Template::Map(entries) }
            }
            _ => Template::Value(node.to_json()),
        }
    }

    fn with(&mut self, fields: &Fields<'a>, within: Within) -> (Template, Option<&'a Node>) {
        match fields.get("with") {
            Some(node) if matches!(node.value, Yaml::Map(_)) => {
                let with = self.template(node, within);
                (self.with_keys(fields, node, with), Some(node))
            }
            Some(node) => {
                self.error(node.place, format!("`with` must be a mapping, not {}", node.describe()), None);
                (Template::Value(serde_json::json!({})), None)
            }
            None => (Template::Value(serde_json::json!({})), None),
        }
    }

    fn expression(&mut self, text: &str, place: Place, within: Within) -> Option<Expression> {
        match Expression::parse(text) {
            Ok(expression) => {
                self.expressions.push(ExpressionUse { expression: expression.clone(), place, within, item: self.item.clone() });
                Some(expression)
            }
            Err(error) => {
                self.error(place, error.message(), None);
                None
            }
        }
    }
}

fn keys(node: Option<&Node>) -> Vec<&str> {
    match node.map(|node| &node.value) {
        Some(Yaml::Map(entries)) => entries.iter().map(|(key, _)| key.name.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn places(node: Option<&Node>) -> BTreeMap<&str, Place> {
    match node.map(|node| &node.value) {
        Some(Yaml::Map(entries)) => entries.iter().map(|(key, _)| (key.name.as_str(), key.place)).collect(),
        _ => BTreeMap::new(),
    }
}

fn is_value(template: &Template) -> bool {
    matches!(template, Template::Value(_))
}

/// How much of a text is computed.
pub(crate) enum Computed<'a> {
    /// The text is plain.
    No,
    /// The whole text is this expression.
    Whole(&'a str),
    /// The text contains an expression, which is not allowed.
    Part,
}

pub(crate) fn computed(text: &str) -> Computed<'_> {
    let trimmed = text.trim();
    match trimmed.strip_prefix("{%").and_then(|rest| rest.strip_suffix("%}")) {
        Some(inner) if !inner.contains("{%") => Computed::Whole(inner.trim()),
        _ if trimmed.contains("{%") => Computed::Part,
        _ => Computed::No,
    }
}

/// The expression in a text that is one in the language of other tools, `{{ … }}` or `${{ … }}`, as it may be written here.
fn of_other_tools(text: &str) -> Option<String> {
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix('$').unwrap_or(trimmed).strip_prefix("{{")?.strip_suffix("}}")?.trim();
    if inner.is_empty() || inner.contains(['{', '}', '\'', '"', '`']) || inner.chars().count() > MAX_NAME {
        return None;
    }
    let name = inner.trim_start_matches(['.', '$']);
    Some(if ["params.", "steps."].iter().any(|start| name.starts_with(start)) { format!("${name}") } else { format!("$params.{name}") })
}

/// A name from the text for use in a message: in quotes, and shortened.
pub(crate) fn quoted(name: &str) -> String {
    const SHOWN: usize = 60;
    if name.chars().count() > SHOWN { format!("`{}…`", name.chars().take(SHOWN).collect::<String>()) } else { format!("`{name}`") }
}

/// `a` or `an`, whichever the word needs.
pub(crate) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// What other tools call the things for which this language has a word. One word of theirs may be several of ours: the one that is known at
/// a place is meant there.
const FOREIGN: &[(&str, &[&str])] = &[
    ("after", &["needs", "depends_on", "depends", "dependencies", "requires", "upstream", "upstreams"]),
    ("retry", &["retries", "max_retries", "retry_policy", "retry_strategy", "retrier"]),
    ("attempts", &["max_attempts", "maxattempts", "retries", "max_retries"]),
    ("catch", &["on_error", "on_failure", "rescue", "fallback", "except", "handle"]),
    ("run_if", &["if", "condition", "skip_unless", "only_if"]),
    ("when", &["if", "condition"]),
    ("next", &["then", "transition", "on_success"]),
    ("with", &["inputs", "args", "arguments", "parameters", "config", "options", "settings"]),
    ("params", &["parameters", "variables", "vars", "inputs"]),
    ("profiles", &["environments", "connections", "targets", "outputs", "env"]),
    ("tables", &["datasets", "models", "assets"]),
    ("steps", &["jobs", "tasks", "states", "stages"]),
    ("start", &["startat", "start_at", "entrypoint", "entry"]),
    ("timeout", &["timeoutseconds", "timeout_seconds", "timeout_minutes", "deadline", "max_duration"]),
    ("heartbeat", &["heartbeatseconds", "heartbeat_seconds"]),
    ("concurrency", &["parallelism", "max_workers", "workers", "threads", "maxconcurrency", "max_concurrency"]),
    ("location", &["folder", "directory", "uri", "url", "prefix", "bucket", "path"]),
    ("cadence", &["frequency", "freq", "granularity", "resolution", "interval", "timeframe"]),
    ("schedule", &["triggers", "trigger", "schedule_interval", "cron", "timetable"]),
    ("missed", &["catchup", "catch_up", "misfire", "backfill"]),
    ("zone", &["timezone", "time_zone", "tz"]),
    ("key", &["keys", "primary_key", "unique_key", "id_column", "dimensions"]),
    ("time", &["timestamp", "time_column", "timestamp_column", "datetime", "event_time"]),
    ("delimiter", &["separator", "sep", "field_delimiter"]),
    ("nulls", &["na_values", "null_values", "nullstr", "null_string"]),
    ("partition_by", &["partitions", "partitioned_by", "partitioning", "partition"]),
    ("notify", &["notifications", "notifiers", "alerts", "alerting", "on_notify"]),
    ("calendar", &["schedule", "sessions", "trading_calendar", "opening_hours"]),
];

/// `did you mean …?`, if one of the known names is what another tool calls by this name, or is close to it.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    // The cost of comparing grows with the product of both lengths.
    if name.len() > 2 * MAX_NAME {
        return None;
    }
    let known: Vec<&str> = known.collect();
    let lower = name.to_lowercase().replace('-', "_");
    let is_meant = |(ours, theirs): &&(&str, &[&str])| theirs.contains(&lower.as_str()) && known.contains(ours);
    if let Some((ours, _)) = FOREIGN.iter().find(is_meant) {
        return Some(format!("did you mean `{ours}`?"));
    }
    closest(name, known.into_iter().filter(|known| known.len() <= 2 * MAX_NAME)).map(|close| format!("did you mean `{close}`?"))
}

/// `expected one of …`, with at most twenty names.
pub(crate) fn one_of<'a>(known: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let mut known: Vec<&str> = known.collect();
    let mut seen = std::collections::HashSet::new();
    known.retain(|name| seen.insert(*name));
    if known.is_empty() {
        return "there are none".to_owned();
    }
    let more = if known.len() > SHOWN { format!(" and {} more", known.len() - SHOWN) } else { String::new() };
    let shown: Vec<String> = known.iter().take(SHOWN).map(|name| quoted(name)).collect();
    if known.len() == 1 { format!("there is only {}", shown.concat()) } else { format!("expected one of {}{more}", shown.join(", ")) }
}
