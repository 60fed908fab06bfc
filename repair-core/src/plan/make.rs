//! Makes plans: looks as the detect steps would, cuts the work as the repair steps would, and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::cost::{Prices, Take, times};
use super::reach::{Known, surely};
use super::verdict::{Sum, Whose};
use super::{
    Amount, BudgetPlan, Definition, Estimate, FORMAT, Look, NotPlanned, Plan, Reach, Reading, RepairPlan, StrategyPlan, TableExtent, found,
    reach,
};
use crate::cost::{Meter, Usage};
use crate::engine::driver::{can_begin, make, sources};
use crate::engine::fanout::PUBLISH_UNITS;
use crate::error::{Error, Result};
use crate::lake::partition::{self, TimeBounds, time_partition};
use crate::lake::{Caller, Lake};
use crate::model::{Findings, Interval, SlotRange, Table};
use crate::plugin::{Clock, Plugin, PluginKind, Progress, Reads, Registry, Repairer, StepContext};
use crate::workflow::{RetryRule, Step, StepKind, Template, Variables, Workflow};

/// How many units are counted between two looks whether to stop.
const UNITS_A_LOOK: u64 = 4_096;

/// What a plan is made with. Cheap to clone.
#[derive(Clone)]
pub struct Planner {
    /// The plug-ins.
    pub registry: Arc<Registry>,
    /// The lake.
    pub lake: Arc<dyn Lake>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is told how far it is.
    pub progress: Arc<dyn Progress>,
    /// Cancel it to stop soon.
    pub stop: CancellationToken,
}

/// What is to be planned, beside the workflow.
#[derive(Debug, Clone, Default)]
pub struct PlanRequest {
    /// The parameters, as [`Workflow::bind`] returns them.
    pub params: BTreeMap<String, Value>,
    /// What a run keeps of where it runs.
    pub environment: Value,
    /// The lake that the command named, if it named one.
    pub lake: Option<String>,
    /// The file of the price book that was given beside the workflow.
    pub prices: Option<String>,
}

/// What a detect step found, with its gaps.
struct Found {
    findings: Findings,
    /// What looking took.
    usage: Usage,
    /// The bytes that lie in the stretch that was looked at.
    bytes: u64,
}

impl Planner {
    /// Looks, and says what a run would do and take. Nothing is written to the lake.
    ///
    /// # Errors
    /// If the run could not begin, as [`Engine::start`](crate::engine::Engine::start) would say, and those of looking: `blind` if something
    /// could not be looked at.
    pub async fn plan(&self, workflow: &Workflow, request: PlanRequest) -> Result<Plan> {
        can_begin(&self.registry, self.lake.as_ref(), workflow, &request.params).await?;
        let now = self.clock.now();
        let params = Value::Object(request.params.clone().into_iter().collect());
        let variables = Variables { params: params.clone(), ..Variables::default() };
        let run = format!("plan-{}", uuid::Uuid::now_v7().simple());
        let context = StepContext {
            run: run.as_str().into(),
            step: "".into(),
            visit: 1,
            attempt: 1,
            entered_at: now,
            lake: self.lake.clone(),
            tables: Arc::new(workflow.tables.clone()),
            sources: Arc::new(sources(&self.registry, &self.clock, workflow, &variables)?),
            calendars: Arc::new(self.registry.calendars().clone()),
            clock: self.clock.clone(),
            cancel: self.stop.clone(),
            progress: self.progress.clone(),
        };
        let plan = Plan {
            format: FORMAT,
            digest: String::new(),
            made_at: now,
            definition: Definition {
                workflow: workflow.name.clone(),
                file: workflow.file.clone(),
                text: workflow.text.clone(),
                children: workflow.children.clone(),
                prices: request.prices,
            },
            params: request.params,
            environment: request.environment,
            lake: request.lake,
            looks: Vec::new(),
            repairs: Vec::new(),
            reads: Vec::new(),
            creates: Vec::new(),
            not_planned: Vec::new(),
            again: Vec::new(),
            total: Estimate::default(),
            budgets: Vec::new(),
        };
        let known = Known::new(params, now);
        let tags = Arc::new(workflow.tags.clone());
        let making = Making {
            planner: self,
            workflow,
            context,
            tags,
            known,
            found: BTreeMap::new(),
            surely: BTreeSet::new(),
            takes: Vec::new(),
            plan,
        };
        Box::pin(making.make()).await
    }
}

/// A plan that is being made.
struct Making<'a> {
    planner: &'a Planner,
    workflow: &'a Workflow,
    context: StepContext,
    tags: Arc<BTreeMap<String, String>>,
    known: Known,
    found: BTreeMap<String, Found>,
    surely: BTreeSet<String>,
    /// What each step takes, and the source that it asks.
    takes: Vec<(&'a Step, Take, Option<String>)>,
    plan: Plan,
}

impl<'a> Making<'a> {
    async fn make(mut self) -> Result<Plan> {
        self.look().await?;
        self.surely = surely(self.workflow, &self.known);
        for look in &mut self.plan.looks {
            look.reach = reach::of(&look.step, &self.surely);
        }
        for step in &self.workflow.steps {
            self.context.check_cancelled()?;
            let done = match &step.kind {
                StepKind::Repair { of, .. } => self.repair(step, of).await,
                StepKind::Verify { of } => {
                    self.verify(step, of);
                    Ok(())
                }
                StepKind::Aggregate { of, with, .. } => self.aggregate(step, of.as_deref(), with).await,
                StepKind::Workflow { name, .. } => {
                    self.not_planned(step, format!("it runs `{name}` as a run of its own; plan that file"));
                    Ok(())
                }
                StepKind::Task { .. } => {
                    self.not_planned(step, "what a task takes is known when it is done".to_owned());
                    Ok(())
                }
                _ => Ok(()),
            };
            done.map_err(|error| error.on("step", &step.name))?;
        }
        self.sum_up();
        self.plan.sealed()
    }

    fn not_planned(&mut self, step: &Step, why: String) {
        self.plan.not_planned.push(NotPlanned { step: step.name.clone(), why });
    }

    /// The context of a step, with what it takes counted.
    fn context(&self, step: &Step) -> (StepContext, Meter) {
        let meter = Meter::default();
        let caller = Caller {
            run: self.context.run.clone(),
            step: step.name.as_str().into(),
            visit: 1,
            attempt: 1,
            tags: self.tags.clone(),
            meter: meter.clone(),
            cancel: self.context.cancel.clone(),
        };
        let lake = self.context.lake.on_behalf_of(&caller).unwrap_or_else(|| self.context.lake.clone());
        (StepContext { step: caller.step, lake, ..self.context.clone() }, meter)
    }

    fn plugin(&self, kind: PluginKind, name: &str, config: &Value) -> Result<Plugin> {
        make(&self.planner.registry, kind, name, config)
    }

    /// Looks for every detect step. One may be configured by what another found, in whichever order they are written.
    async fn look(&mut self) -> Result<()> {
        let detects = |step: &&'a Step| matches!(step.kind, StepKind::Detect { .. });
        let mut waiting: Vec<&'a Step> = self.workflow.steps.iter().filter(detects).collect();
        loop {
            let (mut later, before) = (Vec::new(), waiting.len());
            for step in waiting {
                let plugins = step.kind.plugins();
                let Some((_, plugin, with)) = plugins.first() else { continue };
                match self.known.resolve(with) {
                    Some(config) => self.look_for(step, plugin, &config?).await.map_err(|error| error.on("step", &step.name))?,
                    None => later.push(step),
                }
            }
            if later.is_empty() || later.len() == before {
                for step in later {
                    self.not_planned(step, KNOWN_LATER.to_owned());
                }
                break;
            }
            waiting = later;
        }
        let order = |name: &str| self.workflow.steps.iter().position(|step| step.name == name);
        self.plan.looks.sort_by_key(|look| order(&look.step));
        Ok(())
    }

    async fn look_for(&mut self, step: &'a Step, plugin: &str, config: &Value) -> Result<()> {
        let Plugin::Detector(detector) = self.plugin(PluginKind::Detector, plugin, config)? else {
            return Err(Error::internal(format!("`{plugin}` is not a detector")));
        };
        let (context, meter) = self.context(step);
        let findings = detector.detect(&context, None).await?;
        let mut usage = findings.usage;
        usage += meter.take().usage;
        let scope = &findings.scope;
        let mut extents = vec![self.extent(&scope.table, Some(scope.interval)).await?];
        let bytes = extents.first().map_or(0, |of| of.extent.bytes);
        // What else the configuration names, such as a table that lists the keys, decides as a whole what is expected.
        for table in self.named_in(config).into_iter().filter(|table| *table != scope.table) {
            extents.push(self.extent(&table, None).await?);
        }
        let output = serde_json::to_value(findings.counts).map_err(|error| Error::internal("counts are not JSON").because(error))?;
        let (defects, unlisted) = found::defects(&findings)?;
        let take = Take::of(usage);
        self.plan.looks.push(Look {
            step: step.name.clone(),
            plugin: plugin.to_owned(),
            kind: findings.kind,
            reach: Reach::Perhaps,
            table: scope.table.clone(),
            grid: scope.grid,
            interval: scope.interval,
            counts: findings.counts,
            defects,
            unlisted,
            digest: found::digest(&findings),
            extents,
            estimate: self.prices(None).estimate(&take),
        });
        self.takes.push((step, take, None));
        self.known.add(&step.name, output);
        self.found.insert(step.name.clone(), Found { findings, usage, bytes });
        Ok(())
    }

    async fn extent(&self, table: &str, interval: Option<Interval>) -> Result<TableExtent> {
        let extent = self.context.lake.extent(self.context.table(table)?, interval.as_ref()).await?;
        Ok(TableExtent { table: table.to_owned(), interval, extent })
    }

    /// The tables of the workflow whose names stand anywhere in a configuration.
    fn named_in(&self, config: &Value) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        let mut pending = vec![config];
        while let Some(value) = pending.pop() {
            match value {
                Value::String(text) if self.workflow.tables.contains_key(text) => drop(named.insert(text.clone())),
                Value::Array(items) => pending.extend(items),
                Value::Object(fields) => pending.extend(fields.values()),
                _ => {}
            }
        }
        named
    }

    fn prices(&self, source: Option<&str>) -> Prices<'a> {
        let book = self.workflow.prices.as_deref();
        let plugin = source.and_then(|source| self.workflow.sources.get(source)).map(|used| used.plugin.as_str());
        Prices { book, call: book.and_then(|book| book.calls(source.into_iter().chain(plugin))) }
    }

    async fn repair(&mut self, step: &'a Step, of: &str) -> Result<()> {
        let Some(table) = self.found.get(of).map(|found| found.findings.scope.table.clone()) else {
            self.not_planned(step, format!("what step `{of}` finds is known when the run comes there"));
            return Ok(());
        };
        let table = self.context.table(&table)?.clone();
        let (reach, again) = (reach::of(&step.name, &self.surely), reach::again(self.workflow));
        let (mut strategies, mut objects) = (Vec::new(), 0);
        for (index, idea) in step.kind.strategies().iter().enumerate() {
            let retry = step.retry_of(index);
            let Some(config) = self.known.resolve(&idea.with) else {
                let which = if idea.name == idea.plugin { String::new() } else { format!("strategy `{}`: ", idea.name) };
                self.not_planned(step, format!("{which}{KNOWN_LATER}"));
                continue;
            };
            let config = config?;
            let Plugin::Repairer(repairer) = self.plugin(PluginKind::Repairer, &idea.plugin, &config)? else {
                return Err(Error::internal(format!("`{}` is not a repairer", idea.plugin)));
            };
            let source = config.get("source").and_then(Value::as_str).map(str::to_owned);
            let (units, slots, mut take) = self.cut(step, of, &table, repairer.as_ref(), retry).await?;
            if index > 0 {
                take = take.perhaps();
            }
            if let Some(budget) = &idea.budget {
                let mut sum = Sum::default();
                sum.add(&take, &self.prices(source.as_deref()), Reach::Surely);
                let is_last = index + 1 == step.kind.strategies().len();
                let judged =
                    sum.against(budget, Whose::Strategy { step: &step.name, name: &idea.name, is_last }, reach, again.contains(&step.name));
                self.plan.budgets.push(judged);
            }
            // What does not fit into its own budget goes to the next one.
            if let Some(calls) = idea.budget.as_ref().and_then(|budget| budget.calls) {
                for usage in [&mut take.low, &mut take.certain, &mut take.high] {
                    usage.source_requests = usage.source_requests.min(calls);
                }
            }
            objects += self.objects(of, &table, units)?;
            strategies.push(StrategyPlan {
                name: idea.name.clone(),
                plugin: idea.plugin.clone(),
                rest: index > 0,
                units,
                slots,
                attempts: attempts(retry),
                estimate: self.prices(source.as_deref()).estimate(&take),
            });
            self.takes.push((step, take, source));
        }
        if strategies.is_empty() {
            return Ok(());
        }
        for what in self.context.lake.to_create(&table).await? {
            if !self.plan.creates.contains(&what) {
                self.plan.creates.push(what);
            }
        }
        self.plan.repairs.push(RepairPlan { step: step.name.clone(), of: of.to_owned(), table: table.name, reach, strategies, objects });
        Ok(())
    }

    /// Cuts the work into units as the step would, and counts them, their slots, and what they take.
    async fn cut(&self, step: &Step, of: &str, table: &Table, repairer: &dyn Repairer, retry: &[RetryRule]) -> Result<(u64, u64, Take)> {
        let Some(found) = self.found.get(of) else { return Ok((0, 0, Take::default())) };
        let (context, _) = self.context(step);
        let (mut units, mut slots, mut low, mut high, mut least) = (0, 0, 0u64, Usage::default(), u64::MAX);
        for unit in repairer.plan(&context, &found.findings).await? {
            let unit = unit?;
            units += 1;
            slots += unit.slots();
            let worst = repairer.worst(&context, &unit);
            low += worst.source_requests.min(1);
            least = least.min(worst.source_requests);
            high += worst;
            if units % UNITS_A_LOOK == 0 {
                context.check_cancelled()?;
            }
        }
        let tries = attempts(retry);
        let mut take = Take {
            low: Usage { source_requests: low, ..Usage::default() },
            certain: Usage { source_requests: low, ..Usage::default() },
            high: times(high, tries),
            // The last unit begins only if all that it may take is free.
            aside: if units == 0 { 0 } else { least.saturating_sub(1) },
        };
        if found.usage.queries > 0 {
            // A lake that is queried keeps objects in a store that charges requests: each unit is staged, read again, and published.
            take.low.storage_writes = units;
            take.certain.storage_writes = units;
            take.high.storage_writes = units.saturating_mul(tries).saturating_add(self.objects(of, table, units)?);
            take.high.storage_reads = units;
        }
        if let (Some(hull), true) = (self.hull(found), units > 0) {
            self.count_reads(found, table, repairer.reads(), hull, (units, tries), &mut take).await?;
        }
        Ok((units, slots, take))
    }

    /// What units read of the table. A lake that looks by queries answers their reads by queries, too.
    async fn count_reads(
        &self,
        found: &Found,
        table: &Table,
        reads: Reads,
        hull: Interval,
        (units, tries): (u64, u64),
        take: &mut Take,
    ) -> Result<()> {
        let by_queries = u64::from(found.usage.queries > 0);
        let (scans, most) = match reads {
            Reads::Nothing => return Ok(()),
            Reads::Once => (1, 1),
            Reads::EachUnit => (units, units.saturating_mul(tries)),
        };
        let there = self.context.lake.extent(table, Some(&hull)).await?.bytes;
        // Without partitions every scan reads all files.
        let over = match reads {
            Reads::EachUnit if table.partition_by.is_empty() => most,
            Reads::EachUnit => tries,
            _ => 1,
        };
        take.low.queries += scans * by_queries;
        take.low.bytes_scanned += share(found.usage.bytes_scanned, there, found.bytes);
        take.high.queries += most * by_queries;
        take.high.bytes_scanned += there.saturating_mul(over);
        Ok(())
    }

    /// From the first gap to the last.
    fn hull(&self, found: &Found) -> Option<Interval> {
        found.findings.scope.grid.interval_of(found.findings.gaps.hull()?)
    }

    /// At most so many objects publishing adds: one of repairs and one of absences, for each partition and each batch of units.
    fn objects(&self, of: &str, table: &Table, units: u64) -> Result<u64> {
        let Some(found) = self.found.get(of).filter(|_| units > 0) else { return Ok(0) };
        let grid = found.findings.scope.grid;
        let mut touched: BTreeSet<String> = BTreeSet::new();
        if let Some(by) = time_partition(table)? {
            for (_, gap) in found.findings.gaps.iter() {
                let (first, last) = (grid.time_of(gap.first), grid.time_of(gap.end - 1));
                let (name, span) = partition::of_time(by.unit, first.as_microsecond())?;
                touched.insert(name);
                if !span.contains(last.as_microsecond()) {
                    let bounds = TimeBounds::of_slots(&grid, SlotRange::new(gap.first, gap.end));
                    touched.extend(partition::all_in(by.unit, &bounds)?);
                }
            }
        }
        let batches = units.div_ceil(PUBLISH_UNITS as u64);
        // A unit is in one batch, so no batch touches more partitions than it may.
        Ok((touched.len() as u64).max(1).saturating_mul(batches).saturating_mul(2))
    }

    fn verify(&mut self, step: &'a Step, of: &str) {
        let Some(found) = self.found.get(of) else {
            self.not_planned(step, format!("what step `{of}` finds is known when the run comes there"));
            return;
        };
        // It looks only where something was missing: nowhere, if nothing was.
        let high = if found.findings.gaps.is_empty() { Usage::default() } else { found.usage };
        let take = Take { high, ..Take::default() };
        let table = found.findings.scope.table.clone();
        self.reading(step, table, take);
    }

    async fn aggregate(&mut self, step: &'a Step, of: Option<&str>, with: &Template) -> Result<()> {
        let Some(config) = self.known.resolve(with) else {
            self.not_planned(step, KNOWN_LATER.to_owned());
            return Ok(());
        };
        let config = config?;
        let table = config.get("table").and_then(Value::as_str).and_then(|name| self.workflow.tables.get(name));
        let found = match of {
            Some(of) => self.found.get(of),
            None => self.found.values().next(),
        };
        let (Some(table), Some(found)) = (table, found) else {
            self.not_planned(step, "what it reads is known when the run comes there".to_owned());
            return Ok(());
        };
        let there = self.context.lake.extent(table, Some(&found.findings.scope.interval)).await?.bytes;
        let queries = u64::from(found.usage.queries > 0);
        let low = Usage { queries, ..Usage::default() };
        let high = Usage { queries, bytes_scanned: there, ..Usage::default() };
        self.reading(step, table.name.clone(), Take { low, high, ..Take::default() });
        Ok(())
    }

    fn reading(&mut self, step: &'a Step, table: String, take: Take) {
        self.plan.reads.push(Reading {
            step: step.name.clone(),
            kind: step.kind.word().to_owned(),
            table,
            reach: reach::of(&step.name, &self.surely),
            estimate: self.prices(None).estimate(&take),
        });
        self.takes.push((step, take, None));
    }

    /// Adds up what steps take, and holds it against the budgets.
    fn sum_up(&mut self) {
        let zero = Amount { usd: self.workflow.prices.as_ref().map(|_| rust_decimal::Decimal::ZERO), ..Amount::default() };
        let (mut total, mut whole) = (Estimate { low: zero, high: zero }, Sum::default());
        let mut of_steps: BTreeMap<&str, Sum> = BTreeMap::new();
        for (step, take, source) in &self.takes {
            let (prices, reach) = (self.prices(source.as_deref()), reach::of(&step.name, &self.surely));
            let estimate = prices.estimate(take);
            total.high += estimate.high;
            if reach == Reach::Surely {
                total.low += estimate.low;
            }
            whole.add(take, &prices, reach);
            of_steps.entry(&step.name).or_default().add(take, &prices, Reach::Surely);
        }
        let again = reach::again(self.workflow);
        let comes_again = self.takes.iter().any(|(step, _, _)| again.contains(&step.name));
        let of_run = self.workflow.budget.as_ref().map(|budget| whole.against(budget, Whose::Run, Reach::Surely, comes_again));
        let mut budgets: Vec<BudgetPlan> = of_run.into_iter().collect();
        for step in &self.workflow.steps {
            if let (StepKind::Repair { budget: Some(budget), .. }, Some(sum)) = (&step.kind, of_steps.get(step.name.as_str())) {
                let reach = reach::of(&step.name, &self.surely);
                budgets.push(sum.against(budget, Whose::Step(&step.name), reach, again.contains(&step.name)));
            }
        }
        // Those of strategies were judged with them.
        budgets.append(&mut self.plan.budgets);
        (self.plan.total, self.plan.budgets) = (total, budgets);
        let planned = |step: &String| self.takes.iter().any(|(taking, _, _)| taking.name == *step);
        self.plan.again = again.into_iter().filter(planned).collect();
    }
}

/// Why something is not planned that is configured by what the run finds out.
const KNOWN_LATER: &str = "its `with` is known when the run comes there";

/// How often a unit is tried at most in one visit: each rule counts its own attempts.
fn attempts(retry: &[RetryRule]) -> u64 {
    retry.iter().fold(1, |sum, rule| sum + u64::from(rule.attempts))
}

/// A part of some bytes, as `part` is of `whole`.
fn share(bytes: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part.min(whole)) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}
