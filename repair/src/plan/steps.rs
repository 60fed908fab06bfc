//! What repair, verify and aggregate steps would do and take, given what was found.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::cost::{Pricing, Take, times};
use super::make::{Found, KNOWN_LATER, Making};
use super::verdict::{Owner, Sum};
use super::{Reach, Reading, RepairPlan, StrategyPlan, reach};
use repair_core::Result;
use repair_core::engine::prepare::{PUBLISH_ROWS, PUBLISH_UNITS, Terms};
use repair_core::lake::partition::{TimeBounds, time_partition};
use repair_core::lake::{ReadLake, partition};
use repair_core::model::Usage;
use repair_core::model::{Interval, SlotRange, Table};
use repair_core::plugin::{Reads, Repairer};
use repair_core::workflow::{RetryRule, Step, Template};

/// How many units are counted between two checks whether to stop.
const UNITS_PER_CHECK: u64 = 4_096;

impl<'a> Making<'a> {
    pub(super) async fn repair(&mut self, step: &'a Step, of: &str) -> Result<()> {
        let Some(table) = self.found.get(of).map(|found| found.findings.scope.table.clone()) else {
            self.rehearse(step, of).await?;
            self.not_counted(
                step,
                format!("what step `{of}` finds is known only when the run gets there, and what this step takes is in no price"),
            );
            return Ok(());
        };
        let table = self.context.table(&table)?.clone();
        table.check_repairable()?;
        let (reach, again) = (reach::of(&step.name, &self.surely), reach::again(self.workflow));
        let (mut strategies, mut objects) = (Vec::new(), 0);
        for (index, strategy) in step.kind.strategies().iter().enumerate() {
            let retry = Terms::of(self.workflow, step, index)?.retry;
            let Some(config) = self.known.resolve(&strategy.with) else {
                let which = if strategy.name == strategy.plugin { String::new() } else { format!("strategy `{}`: ", strategy.name) };
                self.not_counted(step, format!("{which}{KNOWN_LATER}"));
                continue;
            };
            let config = config?;
            let repairer = Arc::<dyn Repairer>::try_from(self.preparer().plugin_with(step, index, &config)?)?;
            let source = config.get("source").and_then(Value::as_str).map(str::to_owned);
            let (units, slots, mut take) = self.cut(step, of, &table, repairer.as_ref(), retry).await?;
            let is_queried = self.count_queries(source.as_deref(), &mut take).await?;
            if index > 0 {
                take = take.perhaps();
            }
            if let Some(budget) = &strategy.budget {
                let mut sum = Sum::default();
                sum.add(&take, &self.prices(source.as_deref()), Reach::Surely);
                let is_last = index + 1 == step.kind.strategies().len();
                let judged = sum.against(
                    budget,
                    Owner::Strategy { step: &step.name, name: &strategy.name, is_last },
                    reach,
                    again.contains(&step.name),
                );
                self.plan.budgets.push(judged);
            }
            // What does not fit into its own budget goes to the next strategy.
            if let Some(calls) = strategy.budget.as_ref().and_then(|budget| budget.calls) {
                for usage in [&mut take.low, &mut take.certain, &mut take.high] {
                    let over = usage.source_requests.saturating_sub(calls);
                    usage.source_requests -= over;
                    usage.queries = usage.queries.saturating_sub(if is_queried { over } else { 0 });
                }
            }
            objects += self.objects(of, &table, units)?;
            strategies.push(StrategyPlan {
                name: strategy.name.clone(),
                plugin: strategy.plugin.clone(),
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

    /// Divides the work into units as the step would, and counts them, their slots, and what they take.
    async fn cut(&self, step: &Step, of: &str, table: &Table, repairer: &dyn Repairer, retry: &[RetryRule]) -> Result<(u64, u64, Take)> {
        let Some(found) = self.found.get(of) else { return Ok((0, 0, Take::default())) };
        let context = self.preparer().once(&step.name).context;
        let (mut units, mut slots, mut low, mut high, mut least) = (0, 0, 0u64, Usage::default(), u64::MAX);
        for unit in repairer.plan(&context, &found.findings).await? {
            let unit = unit?;
            units += 1;
            slots += unit.slots();
            let worst = repairer.worst(&context, &unit);
            low += worst.source_requests.min(1);
            least = least.min(worst.source_requests);
            high += worst;
            if units % UNITS_PER_CHECK == 0 {
                context.check_cancelled()?;
            }
        }
        let tries = attempts(retry);
        let mut take = Take {
            low: Usage { source_requests: low, ..Usage::default() },
            certain: Usage { source_requests: low, ..Usage::default() },
            high: times(high, tries),
            // The last unit begins only if everything that it may take is still free.
            aside: if units == 0 { 0 } else { least.saturating_sub(1) },
        };
        if found.usage.queries > 0 {
            // A lake that is queried keeps objects in a store that charges for requests: each unit is staged, read again, and published.
            take.low.storage_writes = units;
            take.certain.storage_writes = units;
            take.high.storage_writes = units.saturating_mul(tries).saturating_add(self.objects(of, table, units)?);
            take.high.storage_reads = units;
        }
        if let (Some(hull), true) = (self.hull(found), units > 0) {
            self.count_reads(found, table, repairer.reads(), hull, (units, tries), &mut take).await?;
            if !found.findings.cells.is_empty() {
                // The engine reads the rows of which it changes cells.
                self.count_reads(found, table, Reads::Once, hull, (units, tries), &mut take).await?;
            }
        }
        Ok((units, slots, take))
    }

    /// What units read of the table. A lake that searches by queries answers their reads by queries, too.
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
        // Without partitions, every scan reads all files.
        let over = match reads {
            Reads::EachUnit if table.partition_by.is_empty() => most,
            Reads::EachUnit => tries,
            _ => 1,
        };
        take.low.queries += scans * by_queries;
        take.low.bytes_scanned += share(found.usage.bytes_scanned, there, found.bytes).min(there);
        take.high.queries += most * by_queries;
        take.high.bytes_scanned += there.saturating_mul(over);
        Ok(())
    }

    /// What the queries of a source take that a lake is asked by queries: one for each call, each of which reads at most the tables that it names.
    /// Whether there are any.
    async fn count_queries(&self, source: Option<&str>, take: &mut Take) -> Result<bool> {
        let Some(source) = source.and_then(|name| self.context.sources.get(name)) else { return Ok(false) };
        let Some(query) = source.query() else { return Ok(false) };
        let (lake, tables): (Arc<dyn ReadLake>, _) = match query.lake {
            None => (self.context.lake.clone(), self.context.tables.clone()),
            Some(profile) => {
                let elsewhere = self.context.elsewhere(profile)?;
                (elsewhere.lake(), elsewhere.tables.clone())
            }
        };
        if !lake.is_queried() || take.high.source_requests == 0 {
            return Ok(false);
        }
        let (text, mut bytes) = (query.sql.to_lowercase(), 0u64);
        for table in tables.values().filter(|table| text.contains(&table.name.to_lowercase())) {
            bytes = bytes.saturating_add(lake.extent(table, None).await?.bytes);
        }
        for usage in [&mut take.low, &mut take.certain, &mut take.high] {
            usage.queries = usage.queries.saturating_add(usage.source_requests);
        }
        take.high.bytes_scanned = take.high.bytes_scanned.saturating_add(bytes.saturating_mul(take.high.source_requests));
        Ok(true)
    }

    /// From the first gap to the last.
    fn hull(&self, found: &Found) -> Option<Interval> {
        found.findings.scope.grid.interval_of(found.findings.gaps.hull()?)
    }

    /// At most this many objects are added by publishing: one of repairs and one of absences, for each partition and each batch of units.
    fn objects(&self, of: &str, table: &Table, units: u64) -> Result<u64> {
        let Some(found) = self.found.get(of).filter(|_| units > 0) else { return Ok(0) };
        let grid = found.findings.scope.grid;
        let mut touched: BTreeSet<String> = BTreeSet::new();
        if table.identity().lookback_us().is_some() {
            // The row that stands for several versions may lie in another partition than the one that was found.
            return Ok(found.findings.gaps.missing().max(1).saturating_mul(2));
        }
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
        let batches = units.div_ceil(PUBLISH_UNITS as u64).saturating_add(found.findings.gaps.missing() / PUBLISH_ROWS);
        // A unit is in one batch, so no batch touches more partitions than it may.
        Ok((touched.len() as u64).max(1).saturating_mul(batches).saturating_mul(2))
    }

    pub(super) fn verify(&mut self, step: &'a Step, of: &str) {
        if let Some((asks, there)) = self.asked.get(of).cloned() {
            // Only for what was found, so at most for everything.
            let take = Take { high: self.asking_at_worst(&asks, there, step), ..Take::default() };
            let requests = if asks.requests == 1 { "request" } else { "requests" };
            self.not_planned(
                step,
                format!(
                    "what step `{of}` finds is known only when the run gets there; the price includes at most the same {} {requests} once more",
                    asks.requests
                ),
            );
            self.reading(step, asks.table, take, Some(asks.source));
            return;
        }
        let Some(found) = self.found.get(of) else {
            self.not_planned(step, format!("what step `{of}` finds is known only when the run gets there"));
            return;
        };
        // It searches only where something was missing; if nothing was, nowhere.
        let high = if found.findings.gaps.is_empty() { Usage::default() } else { found.usage };
        let take = Take { high, ..Take::default() };
        let table = found.findings.scope.table.clone();
        self.reading(step, table, take, None);
    }

    pub(super) async fn aggregate(&mut self, step: &'a Step, of: Option<&str>, with: &Template) -> Result<()> {
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
            self.not_planned(step, "what it reads is known only when the run gets there".to_owned());
            return Ok(());
        };
        let there = self.context.lake.extent(table, Some(&found.findings.scope.interval)).await?.bytes;
        let queries = u64::from(found.usage.queries > 0);
        let low = Usage { queries, ..Usage::default() };
        let high = Usage { queries, bytes_scanned: there, ..Usage::default() };
        self.reading(step, table.name.clone(), Take { low, high, ..Take::default() }, None);
        Ok(())
    }

    pub(super) fn reading(&mut self, step: &'a Step, table: String, take: Take, source: Option<String>) {
        self.plan.reads.push(Reading {
            step: step.name.clone(),
            kind: step.kind.word().to_owned(),
            table,
            reach: reach::of(&step.name, &self.surely),
            estimate: self.prices(source.as_deref()).estimate(&take),
        });
        self.takes.push((step, take, source));
    }
}

/// How often a unit is tried at most in one visit. Each rule counts its own attempts.
pub(super) fn attempts(retry: &[RetryRule]) -> u64 {
    retry.iter().fold(1, |sum, rule| sum + u64::from(rule.attempts))
}

/// A part of some bytes, as `part` is of `whole`.
fn share(bytes: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part.min(whole)) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}
