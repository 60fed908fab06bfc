//! Compares strategies: hides some rows that are there and correct, lets each strategy repair them, and compares its repairs with the hidden
//! rows. The report also says what each strategy cost.
//!
//! - [`mask`] chooses what to hide, the same for the same seed and for every strategy. [`score`] computes how accurate guesses were. Both are pure.
//! - [`lake`] hides it: no method of the lake that a strategy works on shows a hidden row, and nothing that a strategy writes lasts.
//! - What is compared are the strategies of the workflow's repair steps, and repairers that need no more than the workflow gives. They work as in
//!   a run: their plug-ins plan and repair, real sources are asked, and rules of `retry` and budgets apply.

pub mod lake;
pub mod mask;
mod places;
mod purse;
mod recommended;
mod report;
mod request;
pub mod score;
mod strategy;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use futures::TryStreamExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use crate::compare::lake::MaskedLake;
pub use crate::compare::mask::{Mask, Pattern, Share, Unlike};
pub use crate::compare::report::{AggregateErrors, CompareReport, Hidden, Link, StrategyReport};
pub use crate::compare::request::CompareRequest;
pub use crate::compare::score::{ColumnErrors, CostLimit, PartLoss};

use crate::compare::score::{Contender, Numbers};
use crate::compare::strategy::Entrant;
use crate::compare::trial::{Arena, Truth};
use repair_core::engine::prepare::Lakes;
use repair_core::engine::{JsonFormat, new_run_id};
use repair_core::lake::overlay::fingerprint::of_nulls;
use repair_core::lake::overlay::live::LiveRepairs;
use repair_core::lake::shape;
use repair_core::lake::{Lake, Layer, PresenceRequest, ReadLake, ScanRequest, overlay};
use repair_core::model::Usage;
use repair_core::model::{
    BadCells, Cells, Counts, DefectKind, ExpectedSlots, Findings, GapList, Key, Scope, SlotGrid, SlotRange, SlotSet, Table,
};
use repair_core::plugin::{Clock, Detector, Registry, StepContext};
use repair_core::workflow::{Step, Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};

/// Presence words that are held at once, over all keys, about 30 bytes each: a year of minutes of 450 keys.
const MOST_WORDS: u64 = 4 << 20;

/// At most so many rounds.
pub const MOST_ROUNDS: u32 = 10;

/// With fewer runs than these, chance has a large part in which strategy is best.
pub const ENOUGH_RUNS: usize = 10;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct CompareOptions {
    /// Names of strategies, of repair steps with a single strategy, or of repairers. If empty, all strategies for the detect step.
    pub strategies: Vec<String>,
    /// The detect step that defines which rows are expected. If not given, the only one.
    pub of: Option<String>,
    /// How the hidden slots are distributed.
    pub pattern: Pattern,
    /// The seed from which hidden slots are drawn.
    pub seed: u64,
    /// In how many rounds slots are hidden, from 1 to [`MOST_ROUNDS`]; no slot in two of them. If it is not given, one, and of [`Pattern::LikeGaps`] as many
    /// as it takes to hide [`ENOUGH_RUNS`] runs, if no strategy asks a source or runs a program.
    pub rounds: Option<u32>,
    /// The columns whose loss decides. If empty, all that hold numbers.
    pub columns: Vec<String>,
    /// What the best strategy may cost.
    pub limit: CostLimit,
}

/// Where to compare.
pub struct CompareSetting<'a> {
    /// The workflow.
    pub workflow: &'a Workflow,
    /// Its parameters, as [`Workflow::bind`] returns them.
    pub params: &'a BTreeMap<String, Value>,
    /// The now from which relative dates are counted; if it is not given, it is when the comparison begins.
    pub now: Option<Timestamp>,
    /// The plug-ins.
    pub registry: &'a Registry,
    /// The lake; nothing is written to it.
    pub lake: Arc<dyn Lake>,
    /// The other lakes that the workflow reads, by profile.
    pub lakes: Lakes,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the comparison is to stop.
    pub cancel: CancellationToken,
}

/// Hides a share of the rows that are there, and lets strategies repair them.
///
/// # Errors
/// `invalid` or `not-found` if the options do not fit the workflow or the table; those of the lake and the detector, as of a run. What goes
/// wrong with one strategy is in its report.
pub async fn compare(setting: CompareSetting<'_>, share: Share, options: &CompareOptions) -> Result<CompareReport> {
    let CompareSetting { workflow, params, now, registry, lake, lakes, clock, cancel } = setting;
    let began = clock.now();
    let now = now.unwrap_or(began);
    let variables = strategy::variables(workflow, params, began, now)?;
    let detect = strategy::detect_step(workflow, options.of.as_deref())?;
    let entrants = strategy::entrants(workflow, registry, &detect.name, &options.strategies, &variables)?;
    strategy::refuse_sql((workflow, registry), (lake.as_ref(), &lakes), &entrants, &variables)?;
    let aggregates = strategy::aggregates(workflow, &detect.name);
    let computed = aggregates.iter().filter_map(|step| into(workflow, step, &variables)).collect();
    let run = format!("compare-{}", new_run_id()).into();
    let arena = Arena { workflow, registry, lake, lakes, clock, variables, run, began, now, aggregates, computed, cancel };

    if options.rounds.is_some_and(|rounds| rounds == 0 || rounds > MOST_ROUNDS) {
        return Err(Error::invalid(format!("a comparison has from 1 to {MOST_ROUNDS} rounds")));
    }
    let looked = look(&arena, detect).await?;
    let asks = entrants.iter().any(Entrant::asks);
    let Hiding { decisive, rounds, there, not_compared, pattern, unlike } = hide(&arena, &looked, share, options, asks).await?;
    let mut trials: Vec<Trial> = Vec::with_capacity(entrants.len());
    for entrant in entrants {
        trials.push(Box::pin(tried(&arena, entrant, &rounds, &decisive)).await?);
    }
    if options.strategies.is_empty() {
        for entrant in promising(&trials, &rounds, &decisive) {
            trials.push(Box::pin(tried(&arena, entrant, &rounds, &decisive)).await?);
        }
    }
    let contender =
        |Trial { report, .. }: &Trial| Contender { loss: report.loss, usd: report.usd, calls: report.calls, useful: report.repaired > 0 };
    let best = score::best(&trials.iter().map(contender).collect::<Vec<_>>(), &options.limit);
    let recommended = best.and_then(|index| trials.get(index)).map(|trial| recommended::yaml(&trial.report, &trial.entrant, &detect.name));
    let reports: Vec<StrategyReport> = trials.into_iter().map(|trial| trial.report).collect();
    let gaps = || rounds.iter().flat_map(|truth| truth.findings.gaps.iter());
    let hidden_slots = (1..).zip(&rounds).flat_map(|(round, truth)| hidden_in(round, truth)).collect();
    Ok(CompareReport {
        format: JsonFormat,
        workflow: workflow.name.clone(),
        of: detect.name.clone(),
        table: looked.table.name.clone(),
        interval: looked.scope.interval,
        pattern,
        share,
        seed: options.seed,
        rounds: u32::try_from(rounds.len()).unwrap_or(u32::MAX),
        there,
        hidden: rounds.iter().map(|truth| truth.mask.len()).sum(),
        gaps: gaps().count() as u64,
        hidden_slots,
        mask: hash(rounds.iter().map(|truth| &truth.mask)),
        prices: workflow.prices.as_ref().map(|book| (book.name.clone(), book.as_of)),
        decisive,
        best: best.map(|index| reports[index].name.clone()),
        strategies: reports,
        unlike,
        recommended,
        not_compared,
    })
}

/// What was hidden in a round: runs of slots, and where cells were hidden, of the same columns.
fn hidden_in(round: u32, truth: &Truth) -> Vec<Hidden> {
    let mut hidden = Vec::new();
    for (key, gap) in truth.findings.gaps.iter() {
        let mut runs: Vec<(SlotRange, Option<&Arc<[String]>>)> = Vec::new();
        for slot in gap.first..gap.end {
            let columns = truth.mask.hidden_columns(key, slot);
            match runs.last_mut() {
                Some((run, same)) if *same == columns => run.end = slot + 1,
                _ => runs.push((SlotRange::new(slot, slot + 1), columns)),
            }
        }
        let of_run = |(slots, columns): (SlotRange, Option<&Arc<[String]>>)| {
            let interval = truth.findings.scope.grid.interval_of(slots)?;
            Some(Hidden { round, key: key.clone(), interval, columns: columns.cloned().unwrap_or_else(|| Vec::new().into()) })
        };
        hidden.extend(runs.into_iter().filter_map(of_run));
    }
    hidden
}

/// A strategy that was tried.
struct Trial {
    entrant: Entrant,
    report: StrategyReport,
    /// Of each round.
    guesses: Vec<Numbers>,
}

async fn tried(arena: &Arena<'_>, entrant: Entrant, rounds: &[Truth], decisive: &[String]) -> Result<Trial> {
    let mut tried = Vec::with_capacity(rounds.len());
    let spent = purse::nothing(&entrant);
    for truth in rounds {
        tried.push(arena.trial(&entrant, truth, &spent).await?);
    }
    let (mut report, guesses) = trial::report(&entrant, rounds, tried);
    let losses = decisive.iter().filter_map(|column| report.columns.get(column)?.loss);
    let losses: Vec<f64> = losses.collect();
    #[expect(clippy::cast_precision_loss, reason = "a count of columns")]
    let columns = losses.len().max(1) as f64;
    report.loss = losses.iter().sum::<f64>() / columns;
    let (runs, seed) = (runs(rounds, &guesses, decisive), rounds.first().map_or(0, |truth| truth.seed));
    report.interval = score::interval(&runs.iter().collect::<Vec<_>>(), seed);
    report.by_key = score::by_key(&runs, seed);
    report.by_length = score::by_length(&runs, seed);
    Ok(Trial { entrant, report, guesses })
}

/// The losses of each run of hidden slots, round after round.
fn runs(rounds: &[Truth], guesses: &[Numbers], decisive: &[String]) -> Vec<score::RunLoss> {
    rounds.iter().zip(guesses).flat_map(|(truth, guesses)| score::runs(&truth.rows, guesses, &truth.findings.gaps, decisive)).collect()
}

/// At most this many chains that no one has named are tried.
const MOST_CHAINS: usize = 5;

/// Chains of two strategies that look better than each strategy alone: the first leaves something, and with what the second makes of that, the loss
/// would be less. A strategy that asks a source is in none of them, because asking costs; name a chain to try it.
fn promising(trials: &[Trial], rounds: &[Truth], decisive: &[String]) -> Vec<Entrant> {
    let singles: Vec<&Trial> = trials.iter().filter(|trial| trial.entrant.parts.len() == 1 && !trial.entrant.asks()).collect();
    let Some(least) = trials.iter().map(|trial| trial.report.loss).min_by(f64::total_cmp) else { return Vec::new() };
    let mut chains: Vec<(f64, Entrant)> = Vec::new();
    for first in singles.iter().filter(|first| first.report.left > 0 && first.report.repaired > 0) {
        for then in singles.iter().filter(|then| then.entrant.name != first.entrant.name && then.report.repaired > 0) {
            let mut guesses = then.guesses.clone();
            for (guesses, of_first) in guesses.iter_mut().zip(&first.guesses) {
                guesses.rows.extend(of_first.rows.iter().map(|(place, values)| (place.clone(), values.clone())));
            }
            let loss = score::mean_loss(runs(rounds, &guesses, decisive).iter());
            let chain = Entrant::chain(&first.entrant, &then.entrant);
            let parts = |entrant: &Entrant| entrant.parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>();
            let is_known = trials.iter().any(|trial| parts(&trial.entrant) == parts(&chain));
            if let Some(loss) = loss.filter(|loss| *loss < least && !is_known) {
                chains.push((loss, chain));
            }
        }
    }
    chains.sort_by(|(one, a), (other, b)| one.total_cmp(other).then_with(|| a.name.cmp(&b.name)));
    chains.into_iter().take(MOST_CHAINS).map(|(_, chain)| chain).collect()
}

/// A hash of what is hidden.
fn hash<'a>(masks: impl Iterator<Item = &'a Mask>) -> String {
    let mut hasher = blake3::Hasher::new();
    for gaps in masks.map(Mask::gaps) {
        for (key, gap) in gaps.iter() {
            for value in key.values() {
                hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
            }
            hasher.update(&gap.first.to_le_bytes()).update(&gap.end.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().as_str()[..16].to_owned()
}

/// The table that an aggregate step writes, if its configuration says so.
fn into(workflow: &Workflow, step: &Step, variables: &Variables) -> Option<Table> {
    let (_, _, with) = strategy::plugin(step).ok()?;
    let with = with.resolve(variables).ok()?;
    let name = with.get("into").and_then(Value::as_str)?;
    Some(workflow.tables.get(name).cloned().unwrap_or_else(|| Table::implicit(name, "time")))
}

/// What the detect step looks at, when nothing is hidden.
struct Looked {
    kind: DefectKind,
    scope: Scope,
    counts: Counts,
    /// What was found.
    wrong: GapList,
    /// Groups of columns of which the step finds wrong cells.
    cells: Vec<Vec<String>>,
    table: Table,
    context: StepContext,
    lake: MaskedLake,
}

async fn look(arena: &Arena<'_>, detect: &Step) -> Result<Looked> {
    let (_, _, with) = strategy::plugin(detect)?;
    let config = with.resolve(&arena.variables)?;
    let detector = Arc::<dyn Detector>::try_from(arena.plugin(detect)?)?;
    // Only the findings say which table is searched; nothing is hidden yet.
    let named = config.get("table").and_then(Value::as_str).and_then(|name| arena.workflow.tables.get(name));
    let table = named.ok_or_else(|| {
        Error::invalid(format!("step `{}` names no table of the workflow as `table`, so there is nothing to hide", detect.name))
    })?;
    table.check_one_row("a comparison, which hides rows and compares what is computed for their slots with them,")?;
    let lake = arena.masked(table, &Mask::nothing(table.grid()?));
    let context = arena.prepare(&lake, &detect.name, &arena.workflow.tags)?.context;
    if let Some(asks) = detector.asks(&context).await? {
        let (what, unless) = match &asks.program {
            Some(program) => {
                (format!("runs `{program}`, and a comparison of strategies runs no program"), ", or write `plan: true` under its `with`")
            }
            None => (
                format!("compares table `{}` with source `{}`, and a comparison of strategies asks no source", asks.table, asks.source),
                "",
            ),
        };
        return Err(Error::invalid(format!(
            "step `{}` {what} to find something; choose a step that detects gaps or invalid rows{unless}",
            detect.name
        )));
    }
    let found = detector.detect(&context, None).await?;
    let cells = detector.cells();
    if !found.kind.is_missing() && (found.kind != DefectKind::Invalid || cells.is_empty()) {
        let what = found.kind.as_str();
        return Err(Error::invalid(format!(
            "step `{}` looks for {what} rows, but strategies can be compared only for missing rows, and for wrong values of columns",
            detect.name
        )));
    }
    if found.scope.table != table.name {
        return Err(Error::invalid(format!("step `{}` searches table `{}`, not `{}`", detect.name, found.scope.table, table.name)));
    }
    Ok(Looked { kind: found.kind, scope: found.scope, counts: found.counts, wrong: found.gaps, cells, table: table.clone(), context, lake })
}

/// What is hidden, and from what it was chosen.
struct Hiding {
    decisive: Vec<String>,
    /// One for each round, at least one. No slot is hidden in two of them.
    rounds: Vec<Truth>,
    /// Slots that could be hidden.
    there: u64,
    not_compared: Vec<String>,
    pattern: Pattern,
    unlike: Option<Unlike>,
}

/// Chooses what to hide, and keeps the truth about it. More than is asked for is hidden only if no strategy `asks`.
async fn hide(arena: &Arena<'_>, looked: &Looked, share: Share, options: &CompareOptions, asks: bool) -> Result<Hiding> {
    let Looked { scope, table, context, lake, .. } = looked;
    let schema = lake.describe(table).await?;
    let mut columns = score::number_columns(table, &schema);
    let mut decisive = if options.columns.is_empty() { columns.clone() } else { options.columns.clone() };
    for column in &mut decisive {
        let found = shape::find(&schema, column).map_err(|error| error.on("table", &table.name))?;
        let Some(found) = found.filter(|found| columns.contains(found.name())) else {
            let there = columns.join(", ");
            return Err(Error::invalid(format!(
                "table `{}` has no column of numbers `{column}`; its columns of numbers are {there}",
                table.name
            )));
        };
        column.clone_from(found.name());
    }
    if columns.is_empty() {
        return Err(Error::invalid(format!("table `{}` has no column of numbers, so strategies cannot be compared on it", table.name)));
    }
    let groups = hidden_groups(looked, &schema, &columns)?;
    if let Some(odd) = decisive.iter().find(|name| !groups.is_empty() && !groups.iter().any(|group| group.contains(name))) {
        if !options.columns.is_empty() {
            let there = groups.iter().flat_map(|group| group.iter().map(String::as_str)).collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(format!(
                "no cell of column `{odd}` is hidden, because no rule judges it; hidden are cells of {there}"
            )));
        }
        decisive.retain(|name| groups.iter().any(|group| group.contains(name)));
    }
    if !groups.is_empty() {
        columns.retain(|name| groups.iter().any(|group| group.contains(name)));
    }
    let There { good: mut there, gaps: real } = there(looked).await?;
    let of_all = there.values().map(SlotSet::count).sum();
    let (pattern, first, unlike) = first_mask(looked.scope.grid, &there, &real, share, options)?;
    // Where nothing is like the gaps, nothing is like them in another round either.
    let most = options.rounds.unwrap_or(if pattern == Pattern::LikeGaps && !asks { MOST_ROUNDS } else { 1 });
    let (mut rounds, mut not_compared): (Vec<Truth>, Vec<String>) = (Vec::new(), Vec::new());
    let (mut next, mut hidden, mut gaps) = (Some(first), 0, 0);
    while let Some(mask) = next.take() {
        there.iter_mut().filter_map(|(key, there)| Some((there, mask.of_key(key)?))).for_each(|(there, hidden)| there.subtract(hidden));
        hidden += mask.len();
        gaps += mask.gaps().len();
        let seed = mask::of_round(options.seed, rounds.len());
        let (truth, problems) = hidden_rows(arena, looked, mask.of_cells(groups.clone(), seed), columns.clone(), options.seed).await?;
        rounds.push(truth);
        problems.into_iter().for_each(|problem| {
            if !not_compared.contains(&problem) {
                not_compared.push(problem);
            }
        });
        context.check_cancelled()?;
        let is_enough = options.rounds.is_none() && gaps >= ENOUGH_RUNS;
        if rounds.len() < most as usize && !is_enough && !there.values().all(SlotSet::is_empty) {
            let seed = mask::of_round(options.seed, rounds.len());
            let mask = match pattern {
                Pattern::LikeGaps => mask::like_gaps(scope.grid, &there, &real, share, seed)?.0,
                pattern => mask::choose(scope.grid, &there, share, pattern, seed)?,
            };
            next = Some(mask).filter(|mask| !mask.is_empty() && hidden + mask.len() <= mask::MOST_HIDDEN as u64);
        }
    }
    Ok(Hiding { decisive, rounds, there: of_all, not_compared, pattern, unlike })
}

/// What the first round hides, by which pattern, and what it could not be like.
fn first_mask(
    grid: SlotGrid,
    there: &BTreeMap<Key, SlotSet>,
    real: &GapList,
    share: Share,
    options: &CompareOptions,
) -> Result<(Pattern, Mask, Option<Unlike>)> {
    let CompareOptions { pattern, seed, .. } = options;
    if *pattern != Pattern::LikeGaps {
        return Ok((*pattern, mask::choose(grid, there, share, *pattern, *seed)?, None));
    }
    // Where nothing is missing, nothing says what gaps are like. A gap that an earlier run has filled still does.
    let mut unlike = None;
    if !real.is_empty() {
        let (mask, of_gaps) = mask::like_gaps(grid, there, real, share, *seed)?;
        unlike = Some(of_gaps).filter(|unlike| unlike.gaps > 0);
        if !mask.is_empty() {
            return Ok((Pattern::LikeGaps, mask, unlike));
        }
    }
    Ok((Pattern::Runs, mask::choose(grid, there, share, Pattern::Runs, *seed)?, unlike))
}

/// The truth about what a mask hides, and the aggregate steps that fail although nothing is hidden.
async fn hidden_rows(arena: &Arena<'_>, looked: &Looked, mask: Mask, columns: Vec<String>, seed: u64) -> Result<(Truth, Vec<String>)> {
    let Looked { kind, scope, counts, table, lake, .. } = looked;
    let rows = truth(lake, table, &mask, columns).await?;
    let hidden = mask.len();
    if rows.rows.len() as u64 != hidden {
        let message = format!(
            "{hidden} rows of table `{}` were to be hidden, but {} are there; the table has probably changed meanwhile, so try again",
            table.name,
            rows.rows.len()
        );
        return Err(Error::new(repair_core::ErrorKind::Transient, message));
    }
    let gaps = mask.gaps();
    // Slots that are really missing are left out: there is no truth to compare repairs of them with.
    let expected = counts.expected.saturating_sub(counts.missing);
    let present = counts.present.saturating_sub(hidden);
    let findings = if mask.is_of_cells() {
        let mut cells = Cells::default();
        for (key, slots) in mask.keys() {
            for slot in slots.iter() {
                let columns = mask.hidden_columns(key, slot).cloned().unwrap_or_else(|| Vec::new().into());
                cells.insert(key, slot, BadCells { columns, judged: of_nulls() });
            }
        }
        let counts = Counts { defective: hidden, cells: cells.len(), gaps: gaps.len() as u64, ..*counts };
        Findings { kind: *kind, cells, ..Findings::of_gaps(scope.clone(), counts, gaps, Usage::default()) }
    } else {
        let counts = Counts { expected, present, missing: hidden, gaps: gaps.len() as u64, ..*counts };
        Findings::of_gaps(scope.clone(), counts, gaps, Usage::default())
    };
    let (aggregates, problems) = arena.aggregate(lake, &findings).await?;
    Ok((Truth { findings, table: table.clone(), mask, seed, rows, aggregates }, problems))
}

/// The groups of columns of which cells are hidden, with the table's names; none if rows are hidden.
fn hidden_groups(looked: &Looked, schema: &Schema, numbers: &[String]) -> Result<Vec<Arc<[String]>>> {
    if looked.kind.is_missing() {
        return Ok(Vec::new());
    }
    let mut groups: Vec<Arc<[String]>> = Vec::new();
    for group in &looked.cells {
        let mut names = Vec::with_capacity(group.len());
        for name in group {
            let found = shape::find(schema, name).map_err(|error| error.on("table", &looked.table.name))?;
            names.extend(found.map(|found| found.name().clone()));
        }
        // Strategies are compared by numbers.
        if names.iter().any(|name| numbers.contains(name)) {
            groups.push(names.into());
        }
    }
    if groups.is_empty() {
        return Err(Error::invalid(format!(
            "the rules judge no column of numbers of table `{}`, so there is nothing by which strategies could be compared",
            looked.table.name
        )));
    }
    Ok(groups)
}

/// The repairs of cells within a scope: these cells were found wrong.
async fn patched(lake: &MaskedLake, table: &Table, scope: &Scope) -> Result<LiveRepairs> {
    let has_patches = match lake.describe(&lake.repairs_of(table).await?).await {
        Ok(repairs) => repairs.field_with_name(overlay::columns::CELLS).is_ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if !has_patches {
        return Ok(LiveRepairs::default());
    }
    let schema = lake.describe(table).await?;
    let all: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    LiveRepairs::read(lake, table, scope.interval, &scope.keys, &all).await
}

/// What is there, and what is not.
struct There {
    /// The slots of each key that can be hidden.
    good: BTreeMap<Key, SlotSet>,
    /// What is missing or wrong in the table itself, whether or not it was repaired meanwhile.
    gaps: GapList,
}

async fn there(looked: &Looked) -> Result<There> {
    let Looked { scope, table, context, lake, .. } = looked;
    let slots = scope.slots();
    let words = slots.len() / u64::from(scope.grid.cadence().slots_per_word()) * scope.keys.len() as u64;
    if words > MOST_WORDS {
        return Err(Error::invalid(format!(
            "{} slots of {} keys are too many to choose from; compare a shorter interval, or fewer keys",
            slots.len(),
            scope.keys.len()
        )));
    }
    let expected = ExpectedSlots::of(scope, slots, Timestamp::MAX, |name| context.calendar(name))?;
    let request = PresenceRequest::new(slots, scope.keys.clone(), context.entered_at);
    let presence = lake.presence(table, &request).await?;
    let live = patched(lake, table, scope).await?;
    let found_wrong = looked.wrong.by_key();
    // What has not ended is not missing yet.
    let mut to_come = SlotSet::new(scope.grid.cadence(), slots);
    let over = scope.grid.slot_at(context.clock.now()).max(slots.first);
    if over < slots.end {
        to_come.insert_range(SlotRange::new(over, slots.end));
    }
    let mut there = There { good: BTreeMap::new(), gaps: GapList::default() };
    for (key, present) in presence.raw.keys {
        let expected = expected.of_key(&key);
        let mut good = mask::known_good(&expected, &present, scope.grid);
        let mut wrong = SlotSet::new(scope.grid.cadence(), slots);
        if !looked.kind.is_missing() {
            found_wrong.get(&key).into_iter().flatten().for_each(|gap| wrong.insert_range(*gap));
        }
        if !live.patches().is_empty() {
            good.iter().filter(|slot| live.patches().has(&key, *slot)).for_each(|slot| {
                wrong.insert(slot);
            });
        }
        good.subtract(&wrong);
        if looked.kind.is_missing() {
            let mut missing = expected.clone();
            missing.subtract(&present.present);
            presence.absent.get(&key).into_iter().for_each(|absent| missing.subtract(absent));
            missing.subtract(&to_come);
            there.gaps.extend(&key, &missing);
        } else {
            there.gaps.extend(&key, &wrong);
        }
        // Rows that a repair replaces or removes were found to be wrong.
        for wrong in [&presence.repaired, &presence.removed].into_iter().filter_map(|sets| sets.get(&key)) {
            good.subtract(wrong);
        }
        there.good.insert(key, good);
    }
    Ok(there)
}

/// The rows that are hidden, by key and slot.
async fn truth(lake: &MaskedLake, table: &Table, mask: &Mask, columns: Vec<String>) -> Result<Numbers> {
    let keys: Vec<Key> = mask.keys().map(|(key, _)| key.clone()).collect();
    let request = ScanRequest::new(Layer::Raw).in_interval(mask.hull()).of_keys(keys).with_columns(columns.clone());
    let mut rows = Numbers::of_columns(columns);
    let mut batches = lake.scan(table, &request).await?;
    while let Some(batch) = batches.try_next().await? {
        rows.add(table, &batch, |key, time_us| {
            let slot = mask.grid().slot_of_seconds(time_us.div_euclid(1_000_000));
            mask.contains(key, slot).then_some(slot)
        })?;
    }
    if mask.is_of_cells() {
        // What is not hidden is no truth to compare with.
        for ((key, slot), values) in &mut rows.rows {
            let hidden = mask.hidden_columns(key, *slot);
            for (name, value) in rows.columns.iter().zip(values) {
                *value = value.filter(|_| hidden.is_some_and(|hidden| hidden.contains(name)));
            }
        }
    }
    Ok(rows)
}
