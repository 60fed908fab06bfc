//! Prepares steps: their plug-ins, context, sources and limits. Runs, plans and comparisons all use this module, so that they cannot drift
//! apart. The worst-case price of a step is computed by [`Prices`](crate::workflow::Prices).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::engine::aside;
use crate::engine::rate::{RateLimited, RateLimiter};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::Bound;
use crate::lake::{self, Caller, Lake, Layer, ScanRequest, shape};
use crate::model::{Calendar, ExpectedKeys, Findings, Scope, Table};
use crate::plugin::{
    Asks, Clock, Detector, Elsewhere, GapSink, Plugin, PluginKind, Progress, QueryRows, Registry, Source, StepContext, UserQuery,
    is_named_in,
};
use crate::price::{Budget, Meter};
use crate::workflow::{Rate, RetryRule, Step, StepKind, Template, Variables, Workflow, limits};

pub use crate::engine::unit::{PUBLISH_ROWS, PUBLISH_UNITS, UnitWork};

/// Lakes other than the one a workflow works on, by the profile that says where they are. They are only read.
pub type Lakes = Arc<BTreeMap<String, Arc<dyn Lake>>>;

/// What the steps of one run, plan or comparison share.
pub struct Setting {
    /// The id of the run, plan or comparison.
    pub run: Arc<str>,
    /// The now of the run, plan or comparison.
    pub now: Timestamp,
    /// Which turn of a schedule it is, from 1; 0 if it is none.
    pub turn: u64,
    /// The lake.
    pub lake: Arc<dyn Lake>,
    /// The other lakes that the workflow reads, by profile.
    pub lakes: Lakes,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the steps must stop.
    pub cancel: CancellationToken,
    /// Where the steps report their progress.
    pub progress: Arc<dyn Progress>,
}

/// Prepares the steps of one workflow.
pub struct Preparer<'a> {
    /// The plug-ins.
    pub registry: &'a Registry,
    /// The workflow.
    pub workflow: &'a Workflow,
    /// The context that all steps share, from [`shared_context`].
    pub shared: &'a StepContext,
}

/// One attempt of a step.
pub struct Attempt {
    /// The step.
    pub step: Arc<str>,
    /// Which visit of the step, from 1.
    pub visit: u32,
    /// Which attempt of the visit, from 1.
    pub attempt: u32,
    /// When the run entered this visit.
    pub entered_at: Timestamp,
    /// Tags for its costs.
    pub tags: Arc<BTreeMap<String, String>>,
    /// Cancelled when this attempt must stop.
    pub cancel: CancellationToken,
    /// Where it reports its progress.
    pub progress: Arc<dyn Progress>,
}

/// An attempt that is ready to start.
pub struct Prepared {
    /// The context that its plug-ins get. Its lake counts usage for this attempt.
    pub context: StepContext,
    /// How the attempt identifies itself to the lake.
    pub caller: Caller,
    /// Counts usage that no call returns.
    pub meter: Meter,
}

/// The context that all steps share: the workflow's tables, its sources with their rate limits, the calendars.
///
/// # Errors
/// If a source cannot be created.
pub fn shared_context(registry: &Registry, workflow: &Workflow, variables: &Variables, setting: Setting) -> Result<StepContext> {
    Ok(StepContext {
        run: setting.run,
        step: "".into(),
        visit: 1,
        attempt: 1,
        entered_at: setting.clock.now(),
        now: setting.now,
        turn: setting.turn,
        elsewhere: Arc::new(elsewhere(workflow, &setting.lakes)?),
        lake: setting.lake,
        tables: Arc::new(workflow.tables.clone()),
        params: Arc::new(variables.params.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect()),
        sources: Arc::new(sources(registry, &setting.clock, workflow, variables)?),
        calendars: Arc::new(calendars(registry, workflow)),
        clock: setting.clock,
        cancel: setting.cancel,
        progress: setting.progress,
        calls: Arc::new(()),
    })
}

/// The other lakes that a workflow reads, each with its tables.
///
/// # Errors
/// `invalid` if one of them is not there.
fn elsewhere(workflow: &Workflow, lakes: &Lakes) -> Result<BTreeMap<String, Elsewhere>> {
    let one = |(profile, tables): (&String, &BTreeMap<String, Table>)| {
        let lake = lakes.get(profile).ok_or_else(|| not_opened(profile))?;
        Ok((profile.clone(), Elsewhere::new(lake.clone(), tables.clone())))
    };
    workflow.elsewhere.iter().map(one).collect()
}

fn not_opened(profile: &str) -> Error {
    Error::invalid(format!(
        "the workflow reads tables of the lake of profile `{profile}`, which was not opened; the workflow that is run must have that profile"
    ))
}

impl Preparer<'_> {
    /// The context of an attempt, with a meter that counts what it uses.
    pub fn attempt(&self, attempt: Attempt) -> Prepared {
        let meter = Meter::default();
        let caller = Caller {
            run: self.shared.run.clone(),
            step: attempt.step.clone(),
            visit: attempt.visit,
            attempt: attempt.attempt,
            tags: attempt.tags,
            meter: meter.clone(),
            cancel: attempt.cancel.clone(),
        };
        let context = StepContext {
            step: attempt.step,
            visit: attempt.visit,
            attempt: attempt.attempt,
            entered_at: attempt.entered_at,
            lake: lake::on_behalf_of(&self.shared.lake, &caller),
            elsewhere: Elsewhere::on_behalf_of(&self.shared.elsewhere, &caller),
            cancel: attempt.cancel,
            progress: attempt.progress,
            ..self.shared.clone()
        };
        Prepared { context, caller, meter }
    }

    /// As [`Preparer::attempt`], for a step that is attempted only once, with the workflow's tags.
    pub fn once(&self, step: &str) -> Prepared {
        self.attempt(Attempt {
            step: step.into(),
            visit: 1,
            attempt: 1,
            entered_at: self.shared.entered_at,
            tags: Arc::new(self.workflow.tags.clone()),
            cancel: self.shared.cancel.clone(),
            progress: self.shared.progress.clone(),
        })
    }

    /// One of a step's plug-ins, with its configuration computed from these variables. A repair step has one plug-in for each strategy;
    /// other steps have one.
    ///
    /// # Errors
    /// If the configuration cannot be computed, or is not valid for the plug-in.
    pub fn plugin(&self, step: &Step, index: usize, variables: &Variables) -> Result<Plugin> {
        let plugins = step.kind.plugins();
        let (_, _, with) = plugins.get(index).ok_or_else(|| no_plugin(step))?;
        self.plugin_with(step, index, &with.resolve(variables)?)
    }

    /// As [`Preparer::plugin`], with a configuration that is already computed.
    ///
    /// # Errors
    /// If the configuration is not valid for the plug-in.
    pub fn plugin_with(&self, step: &Step, index: usize, config: &Value) -> Result<Plugin> {
        let plugins = step.kind.plugins();
        let (kind, name, _) = plugins.get(index).ok_or_else(|| no_plugin(step))?;
        Ok(match self.registry.make(*kind, name, config).map_err(|error| error.on("step", &step.name))? {
            Plugin::Detector(inner) => {
                let table = config.get("table").and_then(Value::as_str).map(str::to_owned);
                let mut others = BTreeSet::new();
                tables_within(config, &mut others);
                let query = config.get("query").and_then(Value::as_str).map(str::to_owned);
                Plugin::Detector(Arc::new(Heeding { inner, table, others, query }))
            }
            other => other,
        })
    }
}

/// How many days before the end of what a calendar covers it is reported, so that there is time to extend it.
const WARNING_DAYS: i32 = 90;

/// A detector that heeds what people have set aside, and also reports rows that cannot be read in other tables that it uses, and when the calendar that it used will soon know
/// nothing more.
struct Heeding {
    inner: Arc<dyn Detector>,
    /// The table that its configuration names.
    table: Option<String>,
    /// All tables that its configuration names.
    others: BTreeSet<String>,
    /// The query of its configuration, which may name more.
    query: Option<String>,
}

/// The tables that a configuration names anywhere.
fn tables_within(config: &Value, tables: &mut BTreeSet<String>) {
    match config {
        Value::Object(entries) => {
            tables.extend(entries.get("table").and_then(Value::as_str).map(str::to_owned));
            entries.values().for_each(|value| tables_within(value, tables));
        }
        Value::Array(values) => values.iter().for_each(|value| tables_within(value, tables)),
        _ => {}
    }
}

impl Heeding {
    /// The findings, with what else is to be reported about them.
    async fn heeded(&self, context: &StepContext, mut found: Findings) -> Result<Findings> {
        let own = found.scope.table.clone();
        let keys = context.tables.get(&own).and_then(|table| match &table.keys {
            Some(ExpectedKeys::Table(from)) => Some(from.table.clone()),
            _ => None,
        });
        let named = context.tables.keys().filter(|table| self.query.as_ref().is_some_and(|query| is_named_in(query, table)));
        let others: BTreeSet<&String> = self.others.iter().chain(&keys).chain(named).filter(|table| **table != own).collect();
        // Findings of another look have what that one reported.
        found.counts.unread_elsewhere = 0;
        for table in others.into_iter().filter_map(|name| context.tables.get(name)) {
            let (left_out, usage) = context.left_out(table).await?;
            found.usage += usage;
            let Some(notice) = left_out.said(&format!("table `{}`, which this step uses,", table.name)) else { continue };
            if !found.notices.contains(&notice) {
                found.notices.push(notice);
            }
            found.counts.unread_elsewhere += left_out.rows();
        }
        Ok(warned(context, found).await)
    }
}

#[async_trait]
impl Detector for Heeding {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        self.heeded(context, aside::detect(self.inner.as_ref(), context, again, None, self.table.as_deref()).await?).await
    }

    async fn detect_into(&self, context: &StepContext, again: Option<&Findings>, sink: &GapSink) -> Result<Findings> {
        self.heeded(context, aside::detect(self.inner.as_ref(), context, again, Some(sink), self.table.as_deref()).await?).await
    }

    async fn rests_on(&self, context: &StepContext) -> Result<Option<String>> {
        self.inner.rests_on(context).await
    }

    fn query(&self) -> Option<UserQuery<'_>> {
        self.inner.query()
    }

    fn cells(&self) -> Vec<Vec<String>> {
        self.inner.cells()
    }

    async fn asks(&self, context: &StepContext) -> Result<Option<Asks>> {
        self.inner.asks(context).await
    }
}

/// The findings, with a notice for each calendar of theirs that soon ends, and for each column of the table that nothing can read.
async fn warned(context: &StepContext, mut found: Findings) -> Findings {
    let ending: Vec<String> = found.scope.calendars().into_iter().filter_map(|name| ending(context, &found.scope, name)).collect();
    for notice in ending.into_iter().chain(unread(context, &found.scope.table).await) {
        if !found.notices.contains(&notice) {
            found.notices.push(notice);
        }
    }
    found
}

/// Says which columns of a table its files disagree about, so that no rule judges them and no repair fills them. A table that cannot be described
/// has nothing to say here: whoever reads it says why.
async fn unread(context: &StepContext, table: &str) -> Vec<String> {
    let Ok(table) = context.table(table) else { return Vec::new() };
    let Ok(schema) = context.lake.describe(table).await else { return Vec::new() };
    let notice = |of: shape::LeftOut| {
        format!("{}; it is left out of table `{}`, so nothing judges or repairs it; write it in one way in all files", of.why(), table.name)
    };
    let of_mixed = |of: shape::LeftOut| {
        let [numbers, words] = &of.files;
        format!(
            "column `{column}` of table `{}` has numbers in {numbers} and words in {words}, so it is text, and what computes leaves it empty; declare what it is, \
             `columns: {{ {column}: number }}` or `text`",
            table.name,
            column = of.column
        )
    };
    // A table without files has no columns but those that it must have.
    let is_place = |name: &str| name == table.time || table.key.iter().any(|key| key == name) || table.time_columns().contains(&name);
    let has_files = schema.fields().iter().any(|field| !is_place(field.name()));
    let is_there = |name: &String| {
        is_place(name)
            || shape::left_out(&schema).iter().any(|of| of.is_named(name))
            || schema.fields().iter().any(|field| field.name().eq_ignore_ascii_case(name))
    };
    let absent = table.columns.keys().filter(|name| has_files && !is_there(name)).map(|name| {
        format!("no file of table `{}` has column `{name}`, which is declared under `columns`, so what is said there does nothing; correct its name", table.name)
    });
    let absent: Vec<String> = absent.collect();
    shape::left_out(&schema).into_iter().map(notice).chain(shape::mixed(&schema).into_iter().map(of_mixed)).chain(absent).collect()
}

/// Says that a calendar covers less than [`WARNING_DAYS`] beyond a scope. The clock has no part in it: a search of the distant past need not
/// hear of it, and one that runs every night does in time.
fn ending(context: &StepContext, scope: &Scope, name: &str) -> Option<String> {
    let calendar = context.calendars.get(name)?;
    let (_, last) = calendar.hours_coverage()?;
    let (_, examined) = scope.interval.dates();
    (examined >= last.saturating_sub(WARNING_DAYS.days())).then(|| {
        format!(
            "calendar {name} covers dates to {last} only, and later ones will be refused; before then, update this program, or define a calendar \
             with `extends: {name}` and your own days `until` a later date"
        )
    })
}

/// The calendars that a workflow may name: its own, and those of the registry. A name that both have is refused when a workflow is read.
fn calendars(registry: &Registry, workflow: &Workflow) -> BTreeMap<String, Arc<dyn Calendar>> {
    let mut all = registry.calendars().clone();
    all.extend(workflow.calendars.iter().map(|(name, calendar)| (name.clone(), Arc::clone(calendar))));
    all
}

fn no_plugin(step: &Step) -> Error {
    Error::internal(format!("step `{}` has no plug-in", step.name))
}

/// The limits and settings of a strategy: the same in a run, a plan and a comparison.
pub struct Terms<'a> {
    /// Its retry rules.
    pub retry: &'a [RetryRule],
    /// The budgets that apply to it: the run's, its step's, its own.
    pub budgets: Vec<&'a Budget>,
    /// Tags for its costs.
    pub tags: BTreeMap<String, String>,
    /// How many units may run at once.
    pub concurrency: usize,
    /// How many units may start per period.
    pub rate_limit: Option<Rate>,
    /// Its configuration, as written.
    pub with: &'a Template,
}

impl<'a> Terms<'a> {
    /// The terms of a step's strategy.
    ///
    /// # Errors
    /// `internal` if the step has no strategy with this index.
    pub fn of(workflow: &'a Workflow, step: &'a Step, strategy: usize) -> Result<Self> {
        let StepKind::Repair { strategies, concurrency, rate_limit, .. } = &step.kind else { return Err(no_plugin(step)) };
        let own = strategies.get(strategy).ok_or_else(|| no_plugin(step))?;
        Ok(Self {
            retry: step.retry_of(strategy),
            budgets: limits(workflow, step, Some(own)).map(|limit| limit.budget).collect(),
            tags: workflow.tags_of(own),
            concurrency: usize::try_from(*concurrency).unwrap_or(1).max(1),
            rate_limit: *rate_limit,
            with: &own.with,
        })
    }

    /// The terms of a named repairer that no step of the workflow uses.
    pub fn beside(workflow: &'a Workflow, name: &str, concurrency: usize, with: &'a Template) -> Self {
        Self {
            retry: &[],
            budgets: workflow.budget.iter().collect(),
            tags: workflow.tags.clone().into_iter().chain([("idea".to_owned(), name.to_owned())]).collect(),
            concurrency: concurrency.max(1),
            rate_limit: None,
            with,
        }
    }
}

/// The workflow's sources, by name, each with its rate limit.
///
/// # Errors
/// If a source cannot be created.
fn sources(
    registry: &Registry,
    clock: &Arc<dyn Clock>,
    workflow: &Workflow,
    variables: &Variables,
) -> Result<BTreeMap<String, Arc<dyn Source>>> {
    let mut sources = BTreeMap::new();
    for (name, used) in &workflow.sources {
        let made = used.with.resolve(variables).and_then(|config| registry.make(PluginKind::Source, &used.plugin, &config));
        let inner = made.and_then(Arc::<dyn Source>::try_from).map_err(|error| error.on("source", name))?;
        let source: Arc<dyn Source> = match used.rate_limit {
            Some(rate) => Arc::new(RateLimited { inner, limiter: RateLimiter::new(rate, clock.clone()) }),
            None => inner,
        };
        sources.insert(name.clone(), source);
    }
    Ok(sources)
}

/// Checks everything that can be checked before the first step and before anything is written: the plug-ins can be created, the sources
/// are ready, the tables exist, and the lake is writable. The variables are those of [`Variables::at_start`].
///
/// # Errors
/// The first problem found.
pub async fn preflight(registry: &Registry, lake: &dyn Lake, lakes: &Lakes, workflow: &Workflow, variables: &Variables) -> Result<()> {
    let uses = plugins_ready(registry, workflow, variables).await?;
    lake.check_writable().await?;
    tables_there(lake, workflow, &uses).await?;
    tables_elsewhere(registry, lakes, workflow, variables).await?;
    files_in_order(lake, &uses).await?;
    overlays_apart(lake, workflow, variables).await
}

/// As [`preflight`], without checking that the lake is writable, so that nothing is written.
///
/// # Errors
/// The first problem found.
pub async fn can_begin(registry: &Registry, lake: &dyn Lake, lakes: &Lakes, workflow: &Workflow, variables: &Variables) -> Result<()> {
    let uses = plugins_ready(registry, workflow, variables).await?;
    tables_there(lake, workflow, &uses).await?;
    tables_elsewhere(registry, lakes, workflow, variables).await?;
    files_in_order(lake, &uses).await?;
    overlays_apart(lake, workflow, variables).await
}

/// Checks that the lake knows the order of files, for those tables of which a repairer needs it. Nothing is read.
async fn files_in_order(lake: &dyn Lake, uses: &Uses<'_>) -> Result<()> {
    for (step, table) in &uses.by_files {
        let nothing = ScanRequest { keys: Some(Vec::new()), files: true, ..ScanRequest::new(Layer::Raw) };
        drop(lake.scan(table, &nothing).await.map_err(|error| error.on("step", step))?);
    }
    Ok(())
}

/// Checks that the repairs of each table are its own, and that those of no two would be one. The text of a workflow does not show where an
/// absolute location is.
async fn overlays_apart(lake: &dyn Lake, workflow: &Workflow, variables: &Variables) -> Result<()> {
    let mut places: BTreeMap<String, &Table> = BTreeMap::new();
    for step in &workflow.steps {
        let StepKind::Repair { of, .. } = &step.kind else { continue };
        let plugins = workflow.step(of).map(|detect| detect.kind.plugins()).unwrap_or_default();
        for with in plugins.iter().filter_map(|(_, _, with)| with.resolve(variables).ok()) {
            let table = with.get("table").and_then(Value::as_str).and_then(|table| workflow.tables.get(table));
            let Some(table) = table else { continue };
            let repairs = lake.place(&lake.repairs_of(table).await?);
            let other = *places.entry(repairs.clone()).or_insert(table);
            if lake.place(other) != lake.place(table) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "the repairs of table `{}`, at `{}`, and those of `{}`, at `{}`, would be one, at {repairs}; the repairs of a table outside \
                         the lake are kept at the lake's root under the table's name, so give that table another name",
                        table.name, table.location, other.name, other.location
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// What the configurations of steps name, as far as it is known before the first step.
struct Uses<'a> {
    /// The tables that steps write.
    written: Vec<String>,
    /// The tables of which a repairer needs the order of files, each with its step.
    by_files: Vec<(&'a str, &'a Table)>,
    /// All that may be the name of a table or source.
    named: BTreeSet<String>,
    /// The tables whose findings a step repairs.
    repaired: Vec<&'a str>,
    /// The columns that aggregators read.
    read: Vec<Columns<'a>>,
}

/// Columns that a step reads of a table.
struct Columns<'a> {
    step: &'a str,
    table: String,
    columns: Vec<String>,
}

/// The texts in the configurations of steps. Of what a workflow includes, only what it names has to be there: others use the rest.
fn named(workflow: &Workflow, variables: &Variables) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let with = workflow.steps.iter().flat_map(|step| step.kind.plugins()).filter_map(|(_, _, with)| with.resolve(variables).ok());
    let mut pending: Vec<Value> = with.collect();
    while let Some(value) = pending.pop() {
        match value {
            Value::String(text) => drop(named.insert(text)),
            Value::Array(items) => pending.extend(items),
            Value::Object(fields) => pending.extend(fields.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
    named
}

/// The table whose findings a step works on, as far as it is known before the first step.
fn works_on<'a>(workflow: &'a Workflow, step: &Step, variables: &Variables) -> Option<&'a Table> {
    let (StepKind::Repair { of, .. } | StepKind::Aggregate { of: Some(of), .. }) = &step.kind else { return None };
    let plugins = workflow.step(of)?.kind.plugins();
    let mut tables = plugins.iter().filter_map(|(_, _, with)| with.resolve(variables).ok()?.get("table")?.as_str().map(str::to_owned));
    workflow.tables.get(&tables.next()?)
}

/// The plug-ins of all steps, each with its step.
fn plugins(workflow: &Workflow) -> impl Iterator<Item = (&Step, (PluginKind, &str, &Template))> {
    workflow.steps.iter().flat_map(|step| step.kind.plugins().into_iter().map(move |plugin| (step, plugin)))
}

/// Makes a plug-in of a step, if its configuration is known before the first step, and checks what needs nothing but the workflow.
fn made(
    registry: &Registry,
    workflow: &Workflow,
    step: &Step,
    (kind, plugin, with): (PluginKind, &str, &Template),
    variables: &Variables,
) -> Result<Option<(Value, Plugin)>> {
    // A configuration that depends on earlier steps is checked when the run gets there.
    let Some(config) = with.is_known_at_start().then(|| with.resolve(variables)).and_then(Result::ok) else { return Ok(None) };
    let made = registry.make(kind, plugin, &config).map_err(|error| error.on("step", &step.name))?;
    if let Plugin::Aggregator(aggregator) = &made {
        let read = works_on(workflow, step, variables).map(|table| table.name.as_str());
        aggregator.check(&workflow.tables, read).map_err(|error| error.on("step", &step.name))?;
        for (name, columns) in aggregator.columns() {
            if let Some((table, names)) = workflow.tables.get(&name).and_then(|table| Some((table, table.declared_columns()?))) {
                let fields: Vec<Field> = names.into_iter().map(|name| Field::new(name, DataType::Null, true)).collect();
                let schema = Arc::new(Schema::new(fields));
                shape::project(table, &schema, Some(&columns)).map_err(|error| error.on("step", &step.name))?;
            }
        }
    }
    Ok(Some((config, made)))
}

/// What [`preflight`] and [`can_begin`] refuse of the plug-ins and sources of a workflow, without asking a source whether it is ready. All of it
/// is returned; what cannot be known before the first step is not.
pub fn unfit(registry: &Registry, workflow: &Workflow, variables: &Variables) -> Vec<Error> {
    let clock: Arc<dyn Clock> = Arc::new(crate::plugin::SystemClock);
    let of_sources = sources(registry, &clock, workflow, variables).err();
    let of_steps = plugins(workflow).filter_map(|(step, plugin)| made(registry, workflow, step, plugin, variables).err());
    of_sources.into_iter().chain(of_steps).collect()
}

/// The SQL of a step or a source, as far as it is known before the first step.
pub struct KnownQuery<'a> {
    /// What has it: `step` or `source`, and its name.
    pub of: (&'static str, &'a str),
    /// The profile of the lake that answers it, if that is another one than the workflow's.
    pub lake: Option<String>,
    /// The text.
    pub sql: String,
    /// The values that it may name; those that are only known in a run have one of their kind.
    pub values: BTreeMap<String, Bound>,
    /// The relations that it may name, with the columns of each; `None` if these are not known.
    pub relations: BTreeMap<String, Option<SchemaRef>>,
    /// What its rows are.
    pub rows: RowsOf,
}

/// What the rows of a query are: a [`QueryRows`] with its table.
#[derive(Debug, Clone, PartialEq)]
pub enum RowsOf {
    /// Anything, or it is not known.
    Any,
    /// They say of slots of this table what is to be said.
    Slots(Table),
    /// Rows of this table.
    Rows(Table),
    /// The rows of this table, which is written.
    Into(Table),
    /// The rows of a table that is written and that the workflow does not declare.
    IntoNew(String),
}

impl RowsOf {
    fn of(rows: QueryRows<'_>, table: Option<&Table>, workflow: &Workflow) -> Self {
        match (rows, table) {
            (QueryRows::Slots, Some(table)) => Self::Slots(table.clone()),
            (QueryRows::Rows, Some(table)) => Self::Rows(table.clone()),
            (QueryRows::Into(name), _) => match workflow.tables.get(name) {
                Some(table) => Self::Into(table.clone()),
                None => Self::IntoNew(name.to_owned()),
            },
            _ => Self::Any,
        }
    }
}

/// The SQL that steps and sources have the lake run, as far as it is known before the first step; and the tables that steps write.
pub fn queries<'a>(registry: &Registry, workflow: &'a Workflow, variables: &Variables) -> (Vec<KnownQuery<'a>>, BTreeSet<String>) {
    let (mut queries, mut written) = (Vec::new(), BTreeSet::new());
    for (step, plugin) in plugins(workflow) {
        let Ok(Some((config, made))) = made(registry, workflow, step, plugin, variables) else { continue };
        written.extend(config.get("into").and_then(Value::as_str).map(str::to_owned));
        let own = config.get("table").and_then(Value::as_str).and_then(|name| workflow.tables.get(name));
        let table = own.or_else(|| works_on(workflow, step, variables));
        let query = match &made {
            Plugin::Detector(detector) => detector.query(),
            Plugin::Repairer(repairer) => repairer.query(),
            Plugin::Aggregator(aggregator) => aggregator.query(),
            Plugin::Task(task) => task.query(),
            _ => None,
        };
        queries.extend(query.map(|query| known_query(workflow, variables, ("step", &step.name), &query, table)));
    }
    for (name, used) in &workflow.sources {
        let made = used.with.resolve(variables).and_then(|config| registry.make(PluginKind::Source, &used.plugin, &config));
        let Ok(Plugin::Source(source)) = made else { continue };
        let (table, have_one_time) = asked_for(workflow, name, variables).map_or((None, false), |(table, one)| (Some(table), one));
        queries.extend(source.query().map(|query| {
            let rows = if have_one_time { query.rows } else { QueryRows::Any };
            known_query(workflow, variables, ("source", name), &UserQuery { rows, ..query }, table)
        }));
    }
    (queries, written)
}

/// A table for which steps ask a source, if all for which they do have the same key, as far as that is known before the first step; and whether their time
/// columns have one name, too.
fn asked_for<'a>(workflow: &'a Workflow, source: &str, variables: &Variables) -> Option<(&'a Table, bool)> {
    let mut tables: Vec<&Table> = Vec::new();
    for (step, (_, _, with)) in plugins(workflow) {
        if with.text_of("source") != Some(source) {
            continue;
        }
        let own = with.text_of("table").and_then(|name| workflow.tables.get(name));
        tables.push(own.or_else(|| works_on(workflow, step, variables))?);
    }
    let (first, others) = tables.split_first()?;
    let have_one_time = others.iter().all(|other| other.time == first.time);
    others.iter().all(|other| other.key == first.key).then_some((*first, have_one_time))
}

fn known_query<'a>(
    workflow: &'a Workflow,
    variables: &Variables,
    of: (&'static str, &'a str),
    query: &UserQuery<'_>,
    table: Option<&Table>,
) -> KnownQuery<'a> {
    let some = || Bound::Instant(Timestamp::UNIX_EPOCH);
    let mut values: BTreeMap<String, Bound> = BTreeMap::new();
    values.extend(workflow.params.keys().map(|name| (name.clone(), Bound::Text(String::new()))));
    let given = variables.params.as_object().into_iter().flatten().chain(query.values);
    values.extend(given.filter_map(|(name, value)| Some((name.clone(), Bound::of_json(value)?))));
    values.insert("now".to_owned(), some());
    if query.has_interval {
        values.extend(["from", "to"].map(|name| (name.to_owned(), some())));
    }
    let columns = |name: &&str| {
        let table = table?;
        let mut fields: Vec<Field> = table.key.iter().map(|key| shape::key_field(key)).collect();
        fields.extend((*name == "missing").then(|| shape::time_field(table)));
        Some(Arc::new(Schema::new(fields)))
    };
    let relations = query.relations.iter().map(|name| ((*name).to_owned(), columns(name))).collect();
    let rows = RowsOf::of(query.rows, table, workflow);
    KnownQuery { of, lake: query.lake.map(str::to_owned), sql: query.sql.to_owned(), values, relations, rows }
}

/// Checks that the plug-ins can be created, and returns what they use.
async fn plugins_ready<'a>(registry: &Registry, workflow: &'a Workflow, variables: &Variables) -> Result<Uses<'a>> {
    let clock: Arc<dyn Clock> = Arc::new(crate::plugin::SystemClock);
    let named = named(workflow, variables);
    let concern = |name: &String| !workflow.included.sources.contains(name) || named.contains(name);
    for (name, source) in sources(registry, &clock, workflow, variables)?.into_iter().filter(|(name, _)| concern(name)) {
        source.ready().await.map_err(|error| error.on("source", name))?;
    }
    let (mut written, mut by_files, mut read) = (Vec::new(), Vec::new(), Vec::new());
    let is_repair = |step: &&Step| matches!(step.kind, StepKind::Repair { .. });
    let repaired =
        workflow.steps.iter().filter(is_repair).filter_map(|step| Some(works_on(workflow, step, variables)?.name.as_str())).collect();
    for (step, plugin) in plugins(workflow) {
        let Some((config, made)) = made(registry, workflow, step, plugin, variables)? else { continue };
        written.extend(config.get("into").and_then(Value::as_str).map(str::to_owned));
        if let Plugin::Aggregator(aggregator) = &made {
            read.extend(aggregator.columns().into_iter().map(|(table, columns)| Columns { step: &step.name, table, columns }));
        }
        if let (Plugin::Repairer(repairer), Some(table)) = (made, works_on(workflow, step, variables))
            && repairer.needs_files(table)
        {
            by_files.push((step.name.as_str(), table));
        }
    }
    Ok(Uses { written, by_files, named, repaired, read })
}

/// Checks that the tables are there that queries of sources name in other lakes.
async fn tables_elsewhere(registry: &Registry, lakes: &Lakes, workflow: &Workflow, variables: &Variables) -> Result<()> {
    if workflow.elsewhere.is_empty() {
        return Ok(());
    }
    let (queries, _) = queries(registry, workflow, variables);
    for (profile, tables) in elsewhere(workflow, lakes)? {
        let texts: Vec<String> =
            queries.iter().filter(|query| query.lake.as_deref() == Some(&profile)).map(|query| query.sql.to_lowercase()).collect();
        for table in tables.tables.values().filter(|table| texts.iter().any(|text| text.contains(&table.name.to_lowercase()))) {
            tables.lake().describe(table).await.map_err(|error| error.on("lake", &profile))?;
        }
    }
    Ok(())
}

async fn tables_there(lake: &dyn Lake, workflow: &Workflow, uses: &Uses<'_>) -> Result<()> {
    // Of what a workflow includes, also the tables that list the keys of those that it names.
    let mut named = uses.named.clone();
    let lists = |name: &String| Some(workflow.tables.get(name)?.keys.as_ref()?.table()?.table.clone());
    named
        .extend(uses.named.iter().chain(workflow.tables.keys().filter(|name| !workflow.included.tables.contains(*name))).filter_map(lists));
    let concern = |name: &String| !workflow.included.tables.contains(name) || named.contains(name);
    for table in workflow.tables.values().filter(|table| !uses.written.contains(&table.name) && concern(&table.name)) {
        let schema = lake.describe(table).await?;
        for of_step in uses.read.iter().filter(|of_step| of_step.table == table.name) {
            shape::project(table, &schema, Some(&of_step.columns)).map_err(|error| error.on("step", of_step.step))?;
        }
        // Before anything is spent on repairs that could not be kept.
        if uses.repaired.contains(&table.name.as_str()) {
            shape::refuse_reserved(table, &schema)?;
        }
    }
    Ok(())
}
