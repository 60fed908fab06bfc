//! One strategy tried on the hidden slots: its plug-in plans and repairs as in a run, with the workflow's sources, in a lake that keeps nothing.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use tokio_util::sync::CancellationToken;

use crate::compare::lake::MaskedLake;
use crate::compare::mask::Mask;
use crate::compare::purse::{self, Purse};
use crate::compare::report::{AggregateErrors, Link, StrategyReport};
use crate::compare::score;
use crate::compare::score::Numbers;
use crate::compare::strategy;
use crate::compare::strategy::{Candidate, Entrant};
use repair_core::engine::prepare::{self, Attempt, Lakes, PUBLISH_UNITS, Prepared, Preparer, Setting, UnitWork};
use repair_core::engine::retry;
use repair_core::lake::shape::KeyTime;
use repair_core::lake::{Lake, rollup};
use repair_core::model::{Cells, Counts, Findings, GapList, Key, SlotSet, Table, Unit, Usage};
use repair_core::plugin::{AggregateRequest, Aggregator, Clock, Plugin, PluginKind, Registry, Repairer, StepContext};
use repair_core::price::Spend;
use repair_core::workflow::{Prices, Step, Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};

/// At most this many problems of a strategy are reported.
const MOST_PROBLEMS: usize = 5;

/// What all strategies have in common.
pub(super) struct Arena<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) registry: &'a Registry,
    pub(super) lake: Arc<dyn Lake>,
    pub(super) lakes: Lakes,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) variables: Variables,
    pub(super) run: Arc<str>,
    pub(super) began: Timestamp,
    pub(super) now: Timestamp,
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
    /// The hidden slots were drawn from this, and so is jitter.
    pub(super) seed: u64,
    /// By key and slot.
    pub(super) rows: Numbers,
    /// What the aggregate steps write when nothing is hidden, by table.
    pub(super) aggregates: BTreeMap<String, Numbers>,
}

/// What came of a strategy in one round.
pub(super) struct Tried {
    chain: Vec<Link>,
    tally: Outcomes,
    /// What it cost, or why that is not known.
    cost: std::result::Result<Decimal, String>,
    absent: u64,
    elapsed: Duration,
    /// What it made of the hidden rows.
    guesses: Numbers,
    /// What the aggregate steps wrote after it, by table.
    aggregates: BTreeMap<String, Numbers>,
}

/// What came of a strategy in all rounds together, without the losses that decide, and its guesses in each.
pub(super) fn report(entrant: &Entrant, rounds: &[Truth], tried: Vec<Tried>) -> (StrategyReport, Vec<Numbers>) {
    let mut of_truth = Numbers::default();
    let mut of_all = Numbers::default();
    let mut aggregates: BTreeMap<String, (Numbers, Numbers)> = BTreeMap::new();
    let mut tally = Outcomes::default();
    let mut cost = Ok(Decimal::ZERO);
    let mut chain: Vec<Link> = Vec::new();
    let (mut absent, mut elapsed, mut guesses) = (0, Duration::ZERO, Vec::with_capacity(tried.len()));
    for (round, (truth, tried)) in rounds.iter().zip(tried).enumerate() {
        // No slot is hidden in two rounds.
        of_truth.append(truth.rows.clone());
        of_all.append(tried.guesses.clone());
        for (table, of_nothing) in &truth.aggregates {
            let Some(written) = tried.aggregates.get(table) else { continue };
            let (truth, computed) = aggregates.entry(table.clone()).or_default();
            truth.append(of_nothing.of_round(round));
            computed.append(written.of_round(round));
        }
        tally.add(tried.tally);
        cost = cost.and_then(|sum: Decimal| tried.cost.map(|usd| (sum + usd).normalize()));
        if chain.is_empty() {
            chain = tried.chain;
        } else {
            chain.iter_mut().zip(tried.chain).for_each(|(all, link)| all.repaired += link.repaired);
        }
        absent += tried.absent;
        elapsed += tried.elapsed;
        guesses.push(tried.guesses);
    }
    let (hidden, repaired) = (rounds.iter().map(|truth| truth.mask.len()).sum::<u64>(), of_all.rows.len() as u64);
    let first = entrant.parts.first();
    let report = StrategyReport {
        name: entrant.name.clone(),
        plugin: first.map(|first| first.plugin.clone()).unwrap_or_default(),
        with: first.map(|first| first.with.clone()).unwrap_or_default(),
        chain: if chain.len() > 1 { chain } else { Vec::new() },
        hidden,
        repaired,
        absent,
        left: hidden.saturating_sub(repaired).saturating_sub(absent),
        units: tally.units,
        failed: tally.failed,
        not_begun: tally.not_begun,
        columns: score::errors(&of_truth, &of_all),
        aggregates: aggregates.into_iter().map(|(table, (truth, computed))| (table, compare(&truth, &computed))).collect(),
        calls: tally.usage.source_requests,
        usage: tally.usage,
        usd: cost.as_ref().ok().copied(),
        unpriced: cost.err(),
        ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        loss: 1.0,
        interval: None,
        by_key: Vec::new(),
        by_length: Vec::new(),
        problems: tally.problems,
    };
    (report, guesses)
}

/// What came of the units of a strategy.
#[derive(Default)]
struct Outcomes {
    units: u64,
    failed: u64,
    not_begun: u64,
    staged: Vec<String>,
    problems: Vec<String>,
    usage: Usage,
}

impl Outcomes {
    fn problem(&mut self, error: &Error) {
        let problem = format!("{}: {}", error.kind(), error.full());
        if self.problems.len() < MOST_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

impl Outcomes {
    /// Adds those of another strategy, or of another round.
    fn add(&mut self, other: Self) {
        self.units += other.units;
        self.failed += other.failed;
        self.not_begun += other.not_begun;
        self.usage += other.usage;
        for problem in other.problems {
            if self.problems.len() < MOST_PROBLEMS && !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }
}

impl Link {
    fn of(candidate: &Candidate, repaired: u64) -> Self {
        let name = candidate.origin.as_ref().map_or(&candidate.name, |(_, strategy)| strategy);
        Self { name: name.clone(), plugin: candidate.plugin.clone(), with: candidate.with.clone(), repaired }
    }
}

/// What strategies have left of the hidden slots: neither repaired nor absent.
fn left(truth: &Truth, lake: &MaskedLake) -> Result<Findings> {
    let grid = truth.findings.scope.grid;
    let mut sets: BTreeMap<&Key, SlotSet> = truth.mask.keys().map(|(key, slots)| (key, slots.clone())).collect();
    let mut done: BTreeMap<Key, SlotSet> = BTreeMap::new();
    let (repairs, exceptions) = lake.published();
    for batch in repairs.iter().chain(&exceptions) {
        let places = KeyTime::of(&truth.table, batch)?;
        for row in 0..batch.num_rows() {
            let key = places.key(row);
            let Some(slots) = sets.get(&key) else { continue };
            let of_key = done.entry(key).or_insert_with(|| SlotSet::new(grid.cadence(), slots.range()));
            of_key.insert(grid.slot_of_seconds(places.times.value(row).div_euclid(1_000_000)));
        }
    }
    let mut gaps = GapList::default();
    for (key, slots) in &mut sets {
        done.get(*key).into_iter().for_each(|done| slots.subtract(done));
        gaps.extend(key, slots);
    }
    let mut cells = Cells::default();
    for (key, slot, of_slot) in truth.findings.cells.iter().filter(|(key, slot, _)| gaps.contains(key, *slot)) {
        cells.insert(key, slot, of_slot.clone());
    }
    let left = gaps.missing();
    let counts = Counts { gaps: gaps.len() as u64, ..truth.findings.counts };
    let counts = if truth.mask.is_of_cells() {
        Counts { defective: left, cells: cells.len(), ..counts }
    } else {
        Counts { missing: left, present: counts.present + counts.missing.saturating_sub(left), ..counts }
    };
    Ok(Findings { counts, gaps, cells, ..truth.findings.clone() })
}

impl Arena<'_> {
    /// A lake in which rows are hidden.
    pub(super) fn masked(&self, table: &Table, mask: &Mask) -> MaskedLake {
        MaskedLake::new(self.lake.clone(), table.clone(), mask.clone(), &self.computed)
    }

    /// Makes a step ready to work in a masked lake. Sources are made anew, so that no strategy gets what another has asked for.
    pub(super) fn prepare(&self, lake: &MaskedLake, step: &str, tags: &BTreeMap<String, String>) -> Result<Prepared> {
        let setting = Setting {
            run: self.run.clone(),
            now: self.now,
            turn: 0,
            lake: Arc::new(lake.clone()),
            lakes: self.lakes.clone(),
            clock: self.clock.clone(),
            cancel: self.cancel.clone(),
            progress: Arc::new(()),
        };
        let shared = prepare::shared_context(self.registry, self.workflow, &self.variables, setting)?;
        let preparer = Preparer { registry: self.registry, workflow: self.workflow, shared: &shared };
        Ok(preparer.attempt(Attempt {
            step: step.into(),
            visit: 1,
            attempt: 1,
            entered_at: self.began,
            tags: Arc::new(tags.clone()),
            cancel: self.cancel.clone(),
            progress: Arc::new(()),
        }))
    }

    /// A step's plug-in, configured by parameters alone.
    pub(super) fn plugin(&self, step: &Step) -> Result<Plugin> {
        let (kind, name, with) = strategy::plugin(step)?;
        self.registry.make(kind, name, &with.resolve(&self.variables)?).map_err(|error| error.on("step", &step.name))
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
            // How many rows are observed and how many repaired always differs.
            let mut columns = score::number_columns(&table, &schema);
            columns.retain(|name| ![rollup::OBSERVED, rollup::REPAIRED].contains(&name.as_str()));
            // An aggregator that writes series says which; that of SQL does not know.
            let has_key = self.workflow.tables.contains_key(&table.name) || !table.key.is_empty();
            let of = self.workflow.tables.get(&table.name).unwrap_or(&table);
            let known_by = if has_key { of.key.iter().chain([&of.time]).cloned().collect() } else { score::other_columns(&schema) };
            tables.insert(table.name, Numbers::of_rows(columns, &known_by, &batches)?);
        }
        Ok((tables, problems))
    }

    async fn aggregate_step(&self, lake: &MaskedLake, step: &Step, findings: &Findings) -> Result<()> {
        let aggregator = Arc::<dyn Aggregator>::try_from(self.plugin(step)?)?;
        let context = self.prepare(lake, &step.name, &self.workflow.tags)?.context;
        aggregator.aggregate(&context, AggregateRequest::new(Some(findings))).await.map(drop)
    }

    /// Tries a strategy, or one after the other those of a chain, in one round. What goes wrong with it is in its report; an error is one of the comparison
    /// itself. What its parts have spent in all rounds is in `spent`.
    pub(super) async fn trial(&self, entrant: &Entrant, truth: &Truth, spent: &[Mutex<Spend>]) -> Result<Tried> {
        let lake = self.masked(&truth.table, &truth.mask);
        let began = Instant::now();
        let mut tally = Outcomes::default();
        let mut cost = Ok(Decimal::ZERO);
        let mut chain: Vec<Link> = Vec::with_capacity(entrant.parts.len());
        let mut findings = Arc::new(truth.findings.clone());
        for ((index, candidate), spent) in entrant.parts.iter().enumerate().zip(spent) {
            if index > 0 {
                findings = Arc::new(left(truth, &lake)?);
                if findings.gaps.is_empty() {
                    chain.push(Link::of(candidate, 0));
                    continue;
                }
            }
            let name = if index == 0 { candidate.name.clone() } else { format!("{}-{index}", candidate.name) };
            let Prepared { context, meter, .. } = self.prepare(&lake, &name, &candidate.tags)?;
            let prices = Prices::of(self.workflow, candidate.source());
            let mut of_part = Outcomes::default();
            if let Err(error) =
                self.repair(candidate, (&findings, truth.seed), &context, &Purse::new(candidate, &prices, spent), &mut of_part).await
            {
                if error.kind() == ErrorKind::Cancelled {
                    return Err(error);
                }
                of_part.problem(&error);
            }
            let metered = meter.take();
            of_part.usage += metered.usage;
            let of_this = purse::cost(&prices, &of_part.usage, &metered);
            cost = cost.and_then(|sum: Decimal| of_this.map(|usd| (sum + usd).normalize()));
            tally.add(of_part);
            let done: u64 = chain.iter().map(|link| link.repaired).sum();
            let all: u64 = lake.published().0.iter().map(|batch| batch.num_rows() as u64).sum();
            chain.push(Link::of(candidate, all.saturating_sub(done)));
        }
        let elapsed = began.elapsed();
        let (repairs, exceptions) = lake.published();
        let grid = truth.findings.scope.grid;
        let mut guesses = Numbers::of_columns(truth.rows.columns.clone());
        for batch in &repairs {
            guesses.add(&truth.table, batch, |_, time_us| Some(grid.slot_of_seconds(time_us.div_euclid(1_000_000))))?;
        }
        let (aggregates, problems) = self.aggregate(&lake, &truth.findings).await?;
        for (table, _) in truth.aggregates.iter().filter(|(table, _)| !aggregates.contains_key(*table)) {
            tally.problems.push(format!("table `{table}` was not computed: {}", problems.join("; ")));
        }
        let absent = exceptions.iter().map(|batch| batch.num_rows() as u64).sum();
        Ok(Tried { chain, tally, cost, absent, elapsed, guesses, aggregates })
    }

    async fn repair(
        &self,
        candidate: &Candidate,
        (findings, seed): (&Arc<Findings>, u64),
        context: &StepContext,
        purse: &Purse<'_>,
        tally: &mut Outcomes,
    ) -> Result<()> {
        if let Some(source) = candidate.source() {
            context.source(source)?.ready().await.map_err(|error| error.on("source", source))?;
        }
        let repairer: Arc<dyn Repairer> = self.registry.make(PluginKind::Repairer, &candidate.plugin, &candidate.with)?.try_into()?;
        let name = candidate.name.as_str().into();
        let work = UnitWork::new(context.clone(), repairer.clone(), findings.clone(), name, candidate.rate_limit)?;
        let doing = Doing { candidate, work, seed, purse };
        let units = repairer.plan(context, findings).await?;
        let mut ends = futures::stream::iter(units).map(|unit| doing.unit(unit)).buffer_unordered(candidate.concurrency);
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
        if tally.units == 0 && !findings.gaps.is_empty() {
            tally
                .problems
                .push(format!("{} repairs nothing of what is hidden, because its own limits leave all of it out", candidate.name));
        }
        tally.staged.sort_unstable();
        let scope = doing.work.scope();
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
    candidate: &'a Candidate,
    work: UnitWork,
    /// What jitter is drawn from.
    seed: u64,
    purse: &'a Purse<'a>,
}

impl Doing<'_> {
    /// Does a unit, and tries it again as the step's `retry` says. What a failed attempt used is not known, and counts as its worst.
    async fn unit(&self, unit: Result<Unit>) -> Ended {
        let mut usage = Usage::default();
        let unit = match unit {
            Ok(unit) => unit,
            Err(error) => return Ended { result: Err(error), usage },
        };
        let (rules, context) = (&self.candidate.retry, &self.work.context);
        let mut used = vec![0u32; rules.len()];
        loop {
            let worst = self.work.repairer.worst(context, &unit);
            if let Err(error) = self.purse.reserve(&worst) {
                return Ended { result: Err(error), usage };
            }
            let error = match self.work.perform(&unit, &AtomicBool::new(false)).await {
                Ok(staged) => {
                    self.purse.settle(&worst, &staged.usage);
                    usage += staged.usage;
                    return Ended { result: Ok(staged.unit), usage };
                }
                Err(error) => error,
            };
            usage += worst;
            let rule = retry::applicable(rules, &used, error.kind());
            let Some(rule) = rule.filter(|_| !context.cancel.is_cancelled()) else { return Ended { result: Err(error), usage } };
            let seed = retry::seed(self.seed, &self.work.id(&unit), 1, rule, used[rule]);
            let wait = error.wait_hint().unwrap_or_default().max(retry::wait(&rules[rule], used[rule], seed));
            used[rule] += 1;
            let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
            let due = context.clock.now().saturating_add(wait).unwrap_or(Timestamp::MAX);
            tokio::select! {
                () = context.clock.sleep_until(due) => {}
                () = context.cancel.cancelled() => {}
            }
        }
    }
}

/// How an aggregate differs from its values when nothing is hidden.
fn compare(truth: &Numbers, computed: &Numbers) -> AggregateErrors {
    let (differ, unmatched) = score::differing(truth, computed);
    AggregateErrors { rows: truth.rows.len() as u64, differ, unmatched, columns: score::errors(truth, computed) }
}
