//! Makes plans: searches as the detect steps would, divides the work as the repair steps would, and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::columns;
use super::cost::{Pricing, Take};
use super::reach::{Known, surely};
use super::rehearsal;
use super::steps::attempts;
use super::verdict::{Owner, Sum, Verdict};
use super::{Amount, BudgetPlan, Definition, Estimate, Look, NotPlanned, Plan, Reach, TableExtent, found, reach};
use repair_core::engine::prepare::{self, Lakes, Prepared, Preparer, Setting, can_begin};
use repair_core::lake::Lake;
use repair_core::lake::overlay::versions::LOOKBACKS;
use repair_core::model::Usage;
use repair_core::model::{Findings, Interval, MAX_EXAMPLES};
use repair_core::plugin::{Asks, Clock, Detector, Progress, Registry, StepContext};
use repair_core::workflow::{MapOver, MapStep, Prices, Step, StepKind, Variables, Workflow};
use repair_core::{Error, Result};

/// What a plan is made with. Cheap to clone.
#[derive(Clone)]
pub struct Planner {
    /// The plug-ins.
    pub registry: Arc<Registry>,
    /// The lake.
    pub lake: Arc<dyn Lake>,
    /// The other lakes that the workflow reads, by profile.
    pub lakes: Lakes,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it reports its progress.
    pub progress: Arc<dyn Progress>,
    /// Cancel it to stop soon.
    pub stop: CancellationToken,
}

/// What to plan, in addition to the workflow.
#[derive(Debug, Clone, Default)]
pub struct PlanRequest {
    /// The parameters, as [`Workflow::bind`] returns them.
    pub params: BTreeMap<String, Value>,
    /// The now from which relative dates are counted; if it is not given, it is when the plan is made.
    pub now: Option<Timestamp>,
    /// What a run keeps of where it runs.
    pub environment: Value,
    /// The lake that was named in place of the profile's, if one was.
    pub lake: Option<String>,
    /// The file of the price book that was given in place of the workflow's.
    pub prices: Option<String>,
}

/// What a detect step found, with its gaps.
pub(super) struct Found {
    pub(super) findings: Findings,
    /// What the search used.
    pub(super) usage: Usage,
    /// The bytes in the interval that was searched.
    pub(super) bytes: u64,
}

impl Planner {
    /// Searches, and reports what a run would do and take. Nothing is written to the lake.
    ///
    /// # Errors
    /// If the run could not begin, as for [`Engine::start`](repair_core::engine::Engine::start); `blind` if something could not be looked at.
    pub async fn plan(&self, workflow: &Workflow, request: PlanRequest) -> Result<Plan> {
        let made_at = self.clock.now();
        let now = request.now.unwrap_or(made_at);
        let params = workflow.fix(&request.params, now)?;
        let variables = Variables::at_start(&params, made_at, now);
        can_begin(&self.registry, self.lake.as_ref(), &self.lakes, workflow, &variables).await?;
        columns::check(&self.registry, workflow, &variables, (self.lake.as_ref(), &self.lakes)).await?;
        let run = format!("plan-{}", uuid::Uuid::now_v7().simple());
        let setting = Setting {
            run: run.as_str().into(),
            now,
            turn: 0,
            lake: self.lake.clone(),
            lakes: self.lakes.clone(),
            clock: self.clock.clone(),
            cancel: self.stop.clone(),
            progress: self.progress.clone(),
        };
        let context = prepare::shared_context(&self.registry, workflow, &variables, setting)?;
        let definition = Definition {
            workflow: workflow.name.clone(),
            file: workflow.file.clone(),
            text: workflow.text.clone(),
            children: workflow.children.clone(),
            prices: request.prices,
        };
        let plan = Plan { params, environment: request.environment, lake: request.lake, ..Plan::of_nothing(definition, made_at, now) };
        let making = Making::of(self, workflow, context, Known::new(variables), BTreeMap::new(), plan);
        Box::pin(making.make()).await
    }
}

/// A plan that is being made.
pub(super) struct Making<'a> {
    planner: &'a Planner,
    pub(super) workflow: &'a Workflow,
    pub(super) context: StepContext,
    pub(super) known: Known,
    pub(super) found: BTreeMap<String, Found>,
    /// What detect steps would ask of sources, and how many bytes of their table lie in the interval.
    pub(super) asked: BTreeMap<String, (Asks, u64)>,
    pub(super) surely: BTreeSet<String>,
    /// The steps to which the run may come.
    pub(super) possibly: BTreeSet<String>,
    /// What each step takes, and the source that it asks.
    pub(super) takes: Vec<(&'a Step, Take, Option<String>)>,
    pub(super) plan: Plan,
}

impl<'a> Making<'a> {
    /// The beginning of a plan, with what was found before.
    pub(super) fn of(
        planner: &'a Planner,
        workflow: &'a Workflow,
        context: StepContext,
        known: Known,
        found: BTreeMap<String, Found>,
        plan: Plan,
    ) -> Self {
        Self {
            planner,
            workflow,
            context,
            known,
            found,
            asked: BTreeMap::new(),
            surely: BTreeSet::new(),
            possibly: BTreeSet::new(),
            takes: Vec::new(),
            plan,
        }
    }

    async fn make(mut self) -> Result<Plan> {
        self.look().await?;
        self.surely = surely(self.workflow, &self.known);
        self.possibly = reach::possibly(self.workflow, &self.known);
        // What a search would find that could not be configured is not known either.
        self.plan
            .not_planned
            .iter_mut()
            .filter(|step| step.why == KNOWN_LATER)
            .for_each(|step| step.may_work = self.possibly.contains(&step.step));
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
                    self.not_counted(step, format!("it runs `{name}` as a run of its own; plan that workflow by itself"));
                    Ok(())
                }
                StepKind::Map(map) => {
                    let known = match &map.over {
                        MapOver::Items(over) => self.known.resolve(over),
                        MapOver::Rows(_) => None,
                    };
                    let items = known.transpose().and_then(|known| known.map(MapStep::items).transpose());
                    items.map(|items| {
                        let what = map.name.as_ref().map_or_else(|| "its steps".to_owned(), |name| format!("`{name}`"));
                        let many = match items.as_deref().map(<[Value]>::len) {
                            Some(0) => "its list is empty, so nothing runs".to_owned(),
                            Some(1) => format!("it runs {what} for 1 item, as a run of its own"),
                            Some(many) => format!("it runs {what} for {many} items, each as a run of its own"),
                            None => format!(
                                "it runs {what} for each item, as runs of their own, and how many items there are is known only when the run gets \
                                 there"
                            ),
                        };
                        let why = format!("{many}; what they find and take is in no price");
                        if items.is_some_and(|items| items.is_empty()) {
                            self.not_planned(step, why);
                        } else {
                            self.not_counted(step, why);
                        }
                    })
                }
                StepKind::Task { .. } => {
                    self.not_planned(step, "what a task takes is known only when it has run".to_owned());
                    Ok(())
                }
                _ => Ok(()),
            };
            done.map_err(|error| error.on("step", &step.name))?;
        }
        self.sum_up();
        self.plan.sealed()
    }

    /// Checks what the repairers of a step refuse that is not planned.
    pub(super) async fn rehearse(&self, step: &Step, of: &str) -> Result<()> {
        let (registry, lake) = (&self.planner.registry, self.planner.lake.clone());
        rehearsal::of_repair(registry, self.workflow, &self.known.variables(None), (step, of), (self.context.now, lake)).await
    }

    pub(super) fn not_planned(&mut self, step: &Step, why: String) {
        self.plan.not_planned.push(NotPlanned { step: step.name.clone(), why, may_work: false });
    }

    /// As [`Making::not_planned`], for a step that may do work of which the plan counts nothing.
    pub(super) fn not_counted(&mut self, step: &Step, why: String) {
        let may_work = self.possibly.contains(&step.name);
        self.plan.not_planned.push(NotPlanned { step: step.name.clone(), why, may_work });
    }

    /// Makes the steps ready to work, as a run does.
    pub(super) fn preparer(&self) -> Preparer<'_> {
        Preparer { registry: &self.planner.registry, workflow: self.workflow, shared: &self.context }
    }

    /// Searches for every detect step. A step may be configured by what another found, in whichever order they are written.
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
        let detector = Arc::<dyn Detector>::try_from(self.preparer().plugin_with(step, 0, config)?)?;
        let Prepared { context, meter, .. } = self.preparer().once(&step.name);
        if let Some(asks) = detector.asks(&context).await? {
            return self.asking(step, &asks).await;
        }
        let findings = detector.detect(&context, None).await?;
        let mut usage = findings.usage;
        usage += meter.take().usage;
        let scope = &findings.scope;
        // Of versions of a row, those around the interval decide too.
        let searched = context.table(&scope.table)?.identity().widened(&scope.interval, LOOKBACKS);
        let mut extents = vec![self.extent(&scope.table, Some(searched)).await?];
        let bytes = extents.first().map_or(0, |of| of.extent.bytes);
        // Other tables that the configuration names, such as a list of the keys, decide as a whole what is expected.
        let mut others = self.named_in(config);
        if !["keys", "keys_from"].iter().any(|own| config.get(own).is_some()) {
            others.extend(self.workflow.tables.get(&scope.table).and_then(|table| Some(table.keys.as_ref()?.table()?.table.clone())));
        }
        for table in others.into_iter().filter(|table| *table != scope.table) {
            extents.push(self.extent(&table, None).await?);
        }
        let output = serde_json::to_value(findings.counts).map_err(|error| Error::internal("counts are not JSON").because(error))?;
        let zone = context.table(&scope.table)?.day_zone();
        let (defects, unlisted) = found::defects(&findings, &zone)?;
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
            bad_rows: findings.quarantine.iter().take(MAX_EXAMPLES).cloned().collect(),
            notices: findings.notices.clone(),
            other_keys: findings.other_keys.clone(),
            digest: found::digest(&findings),
            extents,
            estimate: self.prices(None).estimate(&take),
        });
        self.takes.push((step, take, None));
        self.known.add(&step.name, output);
        self.found.insert(step.name.clone(), Found { findings, usage, bytes });
        Ok(())
    }

    /// A plan asks no source. It prices what a step would ask, and does not know what the step finds.
    async fn asking(&mut self, step: &'a Step, asks: &Asks) -> Result<()> {
        let there = self.context.lake.extent(self.context.table(&asks.table)?, Some(&asks.interval)).await?.bytes;
        let is_queried = self.context.lake.is_queried();
        let queries = if is_queried { asks.least_reads } else { 0 };
        let low = Usage { source_requests: asks.requests, queries, ..Usage::default() };
        let high = self.asking_at_worst(asks, there, step);
        let aside = if asks.requests == 0 { 0 } else { asks.calls_at_worst - 1 };
        let take = Take { low, certain: low, high, aside };
        let (number, slots) = (asks.requests, asks.slots);
        let requests = if number == 1 { "request" } else { "requests" };
        // Where rows have no slots, nobody knows before how many there are.
        let slots = if slots == 0 { String::new() } else { format!(" for {slots} slots") };
        let queries = if is_queried { " and the queries that read the table" } else { "" };
        let why = match &asks.program {
            Some(program) => format!(
                "it runs `{program}`, and a plan runs no program unless the step says `plan: true`; the price includes {number} {}{queries}, and \
                 what it finds is known only when the run gets there",
                if number == 1 { "call" } else { "calls" }
            ),
            None => format!(
                "it compares table `{}` with source `{}`, and a plan asks no source; the price includes {number} {requests}{slots}{queries}, and \
                 what it finds is known only when the run gets there",
                asks.table, asks.source
            ),
        };
        self.not_planned(step, why);
        self.reading(step, asks.table.clone(), take, Some(asks.source.clone()));
        self.asked.insert(step.name.clone(), (asks.clone(), there));
        Ok(())
    }

    /// What a step takes at most that asks a source as a detect step does. `there` are the bytes of its table in the interval.
    pub(super) fn asking_at_worst(&self, asks: &Asks, there: u64, step: &Step) -> Usage {
        let tries = attempts(&step.retry);
        let reads = asks.reads.saturating_mul(tries);
        Usage {
            bytes_scanned: there.saturating_mul(reads),
            source_requests: asks.requests.saturating_mul(asks.calls_at_worst).saturating_mul(tries),
            // One for the table's own rows, and one for its repairs.
            queries: if self.context.lake.is_queried() { reads.saturating_mul(2) } else { 0 },
            ..Usage::default()
        }
    }

    async fn extent(&self, table: &str, interval: Option<Interval>) -> Result<TableExtent> {
        let extent = self.context.lake.extent(self.context.table(table)?, interval.as_ref()).await?;
        Ok(TableExtent { table: table.to_owned(), interval, extent })
    }

    /// The tables of the workflow whose names appear anywhere in a configuration.
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

    pub(super) fn prices<'b>(&'b self, source: Option<&'b str>) -> Prices<'b> {
        Prices::of(self.workflow, source)
    }

    /// Adds up what steps take, and compares it with the budgets.
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
        let mut of_run = self.workflow.budget.as_ref().map(|budget| whole.against(budget, Owner::Run, Reach::Surely, comes_again));
        let uncounted: Vec<String> =
            self.plan.not_planned.iter().filter(|step| step.may_work).map(|step| format!("`{}`", step.step)).collect();
        if let Some(judged) = of_run.as_mut().filter(|judged| judged.verdict != Verdict::CannotBeMet && !uncounted.is_empty()) {
            judged.verdict = Verdict::Unknown;
            judged.why = format!(
                "{}, without what {} {}, which is not planned",
                judged.why,
                uncounted.join(", "),
                if uncounted.len() == 1 { "takes" } else { "take" }
            );
        }
        let mut budgets: Vec<BudgetPlan> = of_run.into_iter().collect();
        for step in &self.workflow.steps {
            if let (StepKind::Repair { budget: Some(budget), .. }, Some(sum)) = (&step.kind, of_steps.get(step.name.as_str())) {
                let reach = reach::of(&step.name, &self.surely);
                budgets.push(sum.against(budget, Owner::Step(&step.name), reach, again.contains(&step.name)));
            }
        }
        // The budgets of strategies were judged with their steps.
        budgets.append(&mut self.plan.budgets);
        (self.plan.total, self.plan.budgets) = (total, budgets);
        let planned = |step: &String| self.takes.iter().any(|(taking, _, _)| taking.name == *step);
        self.plan.again = again.into_iter().filter(planned).collect();
    }
}

/// Why something is not planned whose configuration depends on what the run finds.
pub(super) const KNOWN_LATER: &str = "its `with` is known only when the run gets there";
