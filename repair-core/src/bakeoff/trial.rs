//! One idea tried on the hidden slots: its plug-in plans and repairs as in a run, with the workflow's sources, in a lake that keeps nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::idea::{self, Idea};
use super::lake::MaskedLake;
use super::mask::Mask;
use super::purse::{Prices, Purse};
use super::report::{AggregateErrors, IdeaReport};
use super::score::{self, Numbers};
use crate::cost::{Meter, Usage};
use crate::engine::{RateLimiter, check_fix, make, retry, sources};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Caller, Lake, StageRequest, StageScope, rollup};
use crate::model::{Findings, Table, Unit};
use crate::plugin::{AggregateRequest, Clock, Plugin, PluginKind, Registry, Repairer, StepContext};
use crate::workflow::{Step, Variables, Workflow};

/// Units that are published at once, as in a run.
const PUBLISH_UNITS: usize = 4_096;
/// Problems of an idea that are told.
const MOST_TOLD: usize = 5;

/// What all ideas have in common.
pub(super) struct Arena<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) registry: &'a Registry,
    pub(super) lake: Arc<dyn Lake>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) variables: Variables,
    pub(super) run: Arc<str>,
    pub(super) began: Timestamp,
    pub(super) aggregates: Vec<&'a Step>,
    pub(super) computed: Vec<Table>,
    pub(super) cancel: CancellationToken,
}

/// What is hidden, and the truth about it.
pub(super) struct Truth {
    /// With the hidden slots as gaps.
    pub(super) findings: Findings,
    pub(super) table: Table,
    pub(super) mask: Mask,
    /// By key and slot.
    pub(super) rows: Numbers,
    /// What the aggregate steps write when nothing is hidden, by table.
    pub(super) aggregates: BTreeMap<String, Numbers>,
}

/// What came of the units of an idea.
#[derive(Default)]
struct Tally {
    units: u64,
    failed: u64,
    not_begun: u64,
    staged: Vec<String>,
    problems: Vec<String>,
    usage: Usage,
}

impl Tally {
    fn problem(&mut self, error: &Error) {
        let told = format!("{}: {}", error.kind(), error.full());
        if self.problems.len() < MOST_TOLD && !self.problems.contains(&told) {
            self.problems.push(told);
        }
    }
}

impl Arena<'_> {
    /// A lake in which rows are hidden.
    pub(super) fn masked(&self, table: &Table, mask: &Mask) -> MaskedLake {
        MaskedLake::new(self.lake.clone(), table.clone(), mask.clone(), &self.computed)
    }

    /// What a plug-in is called with, in a lake; what the lake takes is counted by the meter. Sources are made anew, so that no idea has
    /// what another has asked for.
    pub(super) fn context(&self, lake: &MaskedLake, step: &str, tags: &BTreeMap<String, String>, meter: &Meter) -> Result<StepContext> {
        let caller = Caller {
            run: self.run.clone(),
            step: step.into(),
            visit: 1,
            attempt: 1,
            tags: Arc::new(tags.clone()),
            meter: meter.clone(),
            cancel: self.cancel.clone(),
        };
        Ok(StepContext {
            run: self.run.clone(),
            step: caller.step.clone(),
            visit: 1,
            attempt: 1,
            entered_at: self.began,
            lake: lake.on_behalf_of(&caller).unwrap_or_else(|| Arc::new(lake.clone())),
            tables: Arc::new(self.workflow.tables.clone()),
            sources: Arc::new(sources(self.registry, &self.clock, self.workflow, &self.variables)?),
            calendars: Arc::new(self.registry.calendars().clone()),
            clock: self.clock.clone(),
            cancel: self.cancel.clone(),
            progress: Arc::new(()),
        })
    }

    /// Runs the aggregate steps, and returns what they wrote and what went wrong.
    pub(super) async fn aggregate(&self, lake: &MaskedLake, findings: &Findings) -> Result<(BTreeMap<String, Numbers>, Vec<String>)> {
        let mut problems = Vec::new();
        for step in &self.aggregates {
            if let Err(error) = self.aggregate_step(lake, step, findings).await {
                if error.kind() == ErrorKind::Cancelled {
                    return Err(error);
                }
                problems.push(format!("step {}: {}", step.name, error.full()));
            }
        }
        let mut tables = BTreeMap::new();
        for (table, schema, batches) in lake.tables() {
            // What a row is made of is not the same with and without repairs, by its nature.
            let mut columns = score::number_columns(&table, &schema);
            columns.retain(|name| ![rollup::OBSERVED, rollup::REPAIRED].contains(&name.as_str()));
            let mut numbers = Numbers::of_columns(columns);
            for batch in &batches {
                numbers.add(&table, batch, |_, time_us| Some(time_us))?;
            }
            tables.insert(table.name, numbers);
        }
        Ok((tables, problems))
    }

    async fn aggregate_step(&self, lake: &MaskedLake, step: &Step, findings: &Findings) -> Result<()> {
        let (name, with) = idea::plugin(step)?;
        let Plugin::Aggregator(aggregator) = make(self.registry, PluginKind::Aggregator, name, &with.resolve(&self.variables)?)? else {
            return Err(Error::internal("an aggregator that is none"));
        };
        let context = self.context(lake, &step.name, &self.workflow.tags, &Meter::default())?;
        aggregator.aggregate(&context, AggregateRequest { findings: Some(findings) }).await.map(drop)
    }

    /// Tries an idea. What goes wrong with it is in its report; an error is one of the comparison.
    pub(super) async fn trial(&self, idea: &Idea, truth: &Truth) -> Result<IdeaReport> {
        let lake = self.masked(&truth.table, &truth.mask);
        let meter = Meter::default();
        let context = self.context(&lake, &idea.name, &idea.tags, &meter)?;
        let prices = Prices::of(self.workflow, idea);
        let began = Instant::now();
        let mut tally = Tally::default();
        if let Err(error) = self.repair(idea, truth, &context, &prices, &mut tally).await {
            if error.kind() == ErrorKind::Cancelled {
                return Err(error);
            }
            tally.problem(&error);
        }
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let metered = meter.take();
        tally.usage += metered.usage;
        let (repairs, exceptions) = lake.published();
        let grid = truth.findings.scope.grid;
        let mut guesses = Numbers::of_columns(truth.rows.columns.clone());
        for batch in &repairs {
            guesses.add(&truth.table, batch, |_, time_us| Some(grid.slot_of_seconds(time_us.div_euclid(1_000_000))))?;
        }
        let (written, problems) = self.aggregate(&lake, &truth.findings).await?;
        for (table, _) in truth.aggregates.iter().filter(|(table, _)| !written.contains_key(*table)) {
            tally.problems.push(format!("table `{table}` was not computed: {}", problems.join("; ")));
        }
        let aggregates = truth.aggregates.iter().filter_map(|(table, truth)| Some((table.clone(), compare(truth, written.get(table)?))));
        let (hidden, repaired) = (truth.mask.len(), guesses.rows.len() as u64);
        let absent = exceptions.iter().map(|batch| batch.num_rows() as u64).sum();
        let columns = score::errors(&truth.rows, &guesses);
        let cost = prices.cost(&tally.usage, &metered);
        Ok(IdeaReport {
            name: idea.name.clone(),
            plugin: idea.plugin.clone(),
            with: idea.with.clone(),
            hidden,
            repaired,
            absent,
            left: hidden.saturating_sub(repaired).saturating_sub(absent),
            units: tally.units,
            failed: tally.failed,
            not_begun: tally.not_begun,
            columns,
            aggregates: aggregates.collect(),
            calls: tally.usage.source_requests,
            usage: tally.usage,
            usd: cost.as_ref().ok().copied(),
            unpriced: cost.err(),
            ms,
            loss: 1.0,
            problems: tally.problems,
        })
    }

    async fn repair(&self, idea: &Idea, truth: &Truth, context: &StepContext, prices: &Prices<'_>, tally: &mut Tally) -> Result<()> {
        if let Some(source) = idea.source() {
            context.source(source)?.ready().await.map_err(|error| error.on("source", source))?;
        }
        let Plugin::Repairer(repairer) = make(self.registry, PluginKind::Repairer, &idea.plugin, &idea.with)? else {
            return Err(Error::internal("a repairer that is none"));
        };
        let doing = Doing {
            idea,
            truth,
            context,
            repairer: repairer.as_ref(),
            purse: Purse::new(self.workflow, idea, prices),
            limiter: idea.rate_limit.map(|rate| RateLimiter::new(rate, self.clock.clone())),
        };
        let units = repairer.plan(context, &truth.findings).await?;
        let mut ends = futures::stream::iter(units).map(|unit| doing.unit(unit)).buffer_unordered(idea.concurrency);
        while let Some(end) = ends.next().await {
            context.check_cancelled()?;
            tally.units += 1;
            tally.usage += end.usage;
            match end.result {
                Ok(id) => tally.staged.push(id),
                Err(error) if error.kind() == ErrorKind::Budget => {
                    tally.not_begun += 1;
                    tally.problem(&error);
                }
                Err(error) => {
                    tally.failed += 1;
                    tally.problem(&error);
                }
            }
        }
        drop(ends);
        tally.staged.sort_unstable();
        let scope = doing.scope();
        for (batch, units) in (0u32..).zip(tally.staged.chunks(PUBLISH_UNITS)) {
            context.lake.publish(&scope, batch, units).await?;
        }
        Ok(())
    }
}

/// A unit that ended: the id under which it is staged.
struct Ended {
    result: Result<String>,
    usage: Usage,
}

/// What doing units needs.
struct Doing<'a> {
    idea: &'a Idea,
    truth: &'a Truth,
    context: &'a StepContext,
    repairer: &'a dyn Repairer,
    purse: Purse<'a>,
    limiter: Option<RateLimiter>,
}

impl Doing<'_> {
    fn scope(&self) -> StageScope<'_> {
        StageScope { run: &self.context.run, step: &self.context.step, visit: 1, table: &self.truth.table }
    }

    /// Does a unit, and does it again as the step's `retry` says. What an attempt took that failed is not known, and counts as its worst.
    async fn unit(&self, unit: Result<Unit>) -> Ended {
        let mut usage = Usage::default();
        let unit = match unit {
            Ok(unit) => unit,
            Err(error) => return Ended { result: Err(error), usage },
        };
        let rules = &self.idea.retry;
        let mut used = vec![0u32; rules.len()];
        loop {
            let worst = self.repairer.worst(self.context, &unit);
            if let Err(error) = self.purse.set_aside(&worst) {
                return Ended { result: Err(error), usage };
            }
            let error = match self.once(&unit).await {
                Ok((id, took)) => {
                    self.purse.settle(&worst, &took);
                    usage += took;
                    return Ended { result: Ok(id), usage };
                }
                Err(error) => error,
            };
            usage += worst;
            let rule = retry::applicable(rules, &used, error.kind());
            let Some(rule) = rule.filter(|_| !self.context.cancel.is_cancelled()) else { return Ended { result: Err(error), usage } };
            let seed = u64::from(used[rule]);
            let wait = error.wait_hint().unwrap_or_default().max(retry::wait(&rules[rule], used[rule], seed));
            used[rule] += 1;
            let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
            let due = self.context.clock.now().saturating_add(wait).unwrap_or(Timestamp::MAX);
            tokio::select! {
                () = self.context.clock.sleep_until(due) => {}
                () = self.context.cancel.cancelled() => {}
            }
        }
    }

    async fn once(&self, unit: &Unit) -> Result<(String, Usage)> {
        if let Some(limiter) = &self.limiter {
            limiter.acquire().await;
        }
        let fix = self.repairer.repair(self.context, &self.truth.findings, unit).await?;
        check_fix(&self.truth.table, unit, &fix)?;
        let id = unit.id(&self.truth.table.name, &self.idea.name);
        let request =
            StageRequest { unit: &id, strategy: &self.idea.name, repaired_at: self.context.clock.now(), fix: &fix, replaces: None };
        let staged = self.context.lake.stage(&self.scope(), &request).await?;
        Ok((id, staged.usage))
    }
}

/// How an aggregate differs from what it is when nothing is hidden.
fn compare(truth: &Numbers, computed: &Numbers) -> AggregateErrors {
    let (differ, unmatched) = score::differing(truth, computed);
    AggregateErrors { rows: truth.rows.len() as u64, differ, unmatched, columns: score::errors(truth, computed) }
}
