//! Repair ideas compared: some rows that are there and right are hidden, each idea repairs them, and its repairs are held against what was
//! hidden. What each cost is on the same page.
//!
//! - [`mask`] chooses what to hide, the same for the same seed and for every idea; [`score`] says how right guesses were. Both are pure.
//! - [`lake`] hides it: no method of the lake that an idea is given shows a hidden row, and nothing it writes lasts.
//! - Ideas are the strategies of the workflow's repair steps, and repairers that need nothing but what the workflow gives. They run as in a run: their plug-ins
//!   plan and repair, real sources are asked, rules of `retry` and budgets hold.

mod idea;
pub mod lake;
pub mod mask;
mod places;
mod purse;
pub mod report;
pub mod score;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use crate::compare::lake::MaskedLake;
pub use crate::compare::mask::{Mask, Pattern, Share};
pub use crate::compare::report::{Comparison, Hidden, IdeaReport};
pub use crate::compare::score::Limit;

use crate::compare::score::{Contender, Numbers};
use crate::compare::trial::{Arena, Truth};
use repair_core::engine::new_run_id;
use repair_core::lake::{Lake, Layer, PresenceRequest, ScanRequest};
use repair_core::model::Usage;
use repair_core::model::expected_slots;
use repair_core::model::{Counts, Findings, Key, Scope, SlotSet, Table};
use repair_core::plugin::{Clock, Detector, Registry, StepContext};
use repair_core::workflow::{Step, Variables, Workflow};
use repair_core::{Error, Result};

/// Presence words that are held at once, over all keys, about 30 bytes each: a year of minutes of 450 keys.
const MOST_WORDS: u64 = 4 << 20;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The ideas: names of strategies, of repair steps with a single one, or of repairers. All strategies for the detect step, if empty.
    pub strategies: Vec<String>,
    /// The detect step that says which rows are expected; the only one, if not given.
    pub of: Option<String>,
    /// How hidden slots lie.
    pub pattern: Pattern,
    /// What hidden slots are drawn from.
    pub seed: u64,
    /// The columns whose loss decides; all that hold numbers, if empty.
    pub columns: Vec<String>,
    /// What the best idea may cost.
    pub limit: Limit,
}

/// Where to compare.
pub struct Setting<'a> {
    /// The workflow.
    pub workflow: &'a Workflow,
    /// Its parameters, as [`Workflow::bind`] returns them.
    pub params: &'a BTreeMap<String, Value>,
    /// The plug-ins.
    pub registry: &'a Registry,
    /// The lake; nothing is written to it.
    pub lake: Arc<dyn Lake>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the comparison is to stop.
    pub cancel: CancellationToken,
}

/// Hides a share of what is there, and lets ideas repair it.
///
/// # Errors
/// `invalid` or `not-found` if the options do not fit the workflow or the table; those of the lake and the detector, as of a run. What goes
/// wrong with one idea is in its report.
pub async fn compare(setting: Setting<'_>, share: Share, options: &Options) -> Result<Comparison> {
    let Setting { workflow, params, registry, lake, clock, cancel } = setting;
    let began = clock.now();
    let variables = idea::variables(params, began);
    let detect = idea::detect_step(workflow, options.of.as_deref())?;
    let ideas = idea::ideas(workflow, registry, &detect.name, &options.strategies, &variables)?;
    let aggregates = idea::aggregates(workflow, &detect.name);
    let computed = aggregates.iter().filter_map(|step| into(workflow, step, &variables)).collect();
    let run = format!("compare-{}", new_run_id()).into();
    let arena = Arena { workflow, registry, lake, clock, variables, run, began, aggregates, computed, cancel };

    let looked = look(&arena, detect).await?;
    let (decisive, truth, there, not_compared) = hide(&arena, &looked, share, options).await?;
    let mut reports = Vec::with_capacity(ideas.len());
    for idea in &ideas {
        let mut report = Box::pin(arena.trial(idea, &truth)).await?;
        let losses = decisive.iter().filter_map(|column| report.columns.get(column)).map(|errors| errors.loss);
        #[expect(clippy::cast_precision_loss, reason = "a count of columns")]
        let columns = decisive.len().max(1) as f64;
        report.loss = losses.sum::<f64>() / columns;
        reports.push(report);
    }
    let contender =
        |report: &IdeaReport| Contender { loss: report.loss, usd: report.usd, calls: report.calls, useful: report.repaired > 0 };
    let best = score::best(&reports.iter().map(contender).collect::<Vec<_>>(), &options.limit);
    let gaps = &truth.findings.gaps;
    let hidden = gaps.iter().filter_map(|(key, slots)| Some(Hidden { key: key.clone(), interval: looked.scope.grid.interval_of(slots)? }));
    Ok(Comparison {
        workflow: workflow.name.clone(),
        of: detect.name.clone(),
        table: truth.table.name.clone(),
        interval: looked.scope.interval,
        pattern: options.pattern,
        share,
        seed: options.seed,
        there,
        hidden: truth.mask.len(),
        gaps: gaps.len() as u64,
        hidden_slots: hidden.collect(),
        mask: print(&truth.mask),
        prices: workflow.prices.as_ref().map(|book| (book.name.clone(), book.as_of)),
        decisive,
        best: best.map(|index| reports[index].name.clone()),
        ideas: reports,
        not_compared,
    })
}

/// A print of what is hidden.
fn print(mask: &Mask) -> String {
    let mut hasher = blake3::Hasher::new();
    for (key, gap) in mask.gaps().iter() {
        for value in key.values() {
            hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
        }
        hasher.update(&gap.first.to_le_bytes()).update(&gap.end.to_le_bytes());
    }
    hasher.finalize().to_hex().as_str()[..16].to_owned()
}

/// The table that an aggregate step writes, if its configuration says so.
fn into(workflow: &Workflow, step: &Step, variables: &Variables) -> Option<Table> {
    let (_, _, with) = idea::plugin(step).ok()?;
    let with = with.resolve(variables).ok()?;
    let name = with.get("into").and_then(Value::as_str)?;
    Some(workflow.tables.get(name).cloned().unwrap_or_else(|| Table::implicit(name, "time")))
}

/// What the detect step looks at, when nothing is hidden.
struct Looked {
    scope: Scope,
    counts: Counts,
    table: Table,
    context: StepContext,
    lake: MaskedLake,
}

async fn look(arena: &Arena<'_>, detect: &Step) -> Result<Looked> {
    let (_, _, with) = idea::plugin(detect)?;
    let config = with.resolve(&arena.variables)?;
    let detector = Arc::<dyn Detector>::try_from(arena.plugin(detect)?)?;
    // Which table is looked at, only the findings say; nothing is hidden of any.
    let named = config.get("table").and_then(Value::as_str).and_then(|name| arena.workflow.tables.get(name));
    let table = named.ok_or_else(|| {
        Error::invalid(format!("step `{}` names no table of the workflow as `table`, so nobody knows what to hide", detect.name))
    })?;
    let lake = arena.masked(table, &Mask::nothing(table.grid()?));
    let context = arena.prepare(&lake, &detect.name, &arena.workflow.tags)?.context;
    let found = detector.detect(&context, None).await?;
    if !found.kind.is_missing() {
        let what = found.kind.as_str();
        return Err(Error::invalid(format!("step `{}` looks for {what} rows; ideas are compared for missing ones alone", detect.name)));
    }
    if found.scope.table != table.name {
        return Err(Error::invalid(format!("step `{}` looks at table `{}`, not at `{}`", detect.name, found.scope.table, table.name)));
    }
    Ok(Looked { scope: found.scope, counts: found.counts, table: table.clone(), context, lake })
}

/// Chooses what to hide, and keeps the truth about it.
async fn hide(arena: &Arena<'_>, looked: &Looked, share: Share, options: &Options) -> Result<(Vec<String>, Truth, u64, Vec<String>)> {
    let Looked { scope, counts, table, context, lake } = looked;
    let schema = lake.describe(table).await?;
    let columns = score::number_columns(table, &schema);
    let decisive = if options.columns.is_empty() { columns.clone() } else { options.columns.clone() };
    if let Some(odd) = decisive.iter().find(|column| !columns.contains(column)) {
        let there = columns.join(", ");
        return Err(Error::invalid(format!("table `{}` has no column of numbers `{odd}`; it has {there}", table.name)));
    }
    if columns.is_empty() {
        return Err(Error::invalid(format!("table `{}` has no column of numbers, so no idea can be more right than another", table.name)));
    }
    let there = known_good(looked).await?;
    let mask = mask::choose(scope.grid, &there, share, options.pattern, options.seed)?;
    let rows = truth(lake, table, &mask, columns).await?;
    let hidden = mask.len();
    if rows.rows.len() as u64 != hidden {
        let message = format!(
            "{hidden} rows of table `{}` were to be hidden and {} are there; did it change meanwhile?",
            table.name,
            rows.rows.len()
        );
        return Err(Error::new(repair_core::ErrorKind::Transient, message));
    }
    let gaps = mask.gaps();
    // What is missing in truth is nobody's to repair here: nothing tells how right that would be.
    let expected = counts.expected.saturating_sub(counts.missing);
    let present = counts.present.saturating_sub(hidden);
    let counts = Counts { expected, present, missing: hidden, gaps: gaps.len() as u64, ..*counts };
    let findings = Findings::of_gaps(scope.clone(), counts, gaps, Usage::default());
    context.check_cancelled()?;
    let (aggregates, not_compared) = arena.aggregate(lake, &findings).await?;
    let there = there.values().map(SlotSet::count).sum();
    Ok((decisive, Truth { findings, table: table.clone(), mask, seed: options.seed, rows, aggregates }, there, not_compared))
}

/// The slots of each key that can be hidden.
async fn known_good(looked: &Looked) -> Result<BTreeMap<Key, SlotSet>> {
    let Looked { scope, table, context, lake, .. } = looked;
    let slots = scope.slots();
    let words = slots.len() / u64::from(scope.grid.cadence.slots_per_word()) * scope.keys.len() as u64;
    if words > MOST_WORDS {
        return Err(Error::invalid(format!(
            "{} slots of {} keys are too many to choose from; compare a shorter stretch, or fewer keys",
            slots.len(),
            scope.keys.len()
        )));
    }
    let expected = expected_slots(scope.grid, slots, &context.calendar(&scope.calendar)?.open(&scope.interval)?);
    let request = PresenceRequest { slots, keys: scope.keys.clone(), as_of: context.entered_at };
    let presence = lake.presence(table, &request).await?;
    let good = presence.raw.keys.into_iter().map(|(key, present)| {
        let mut good = mask::known_good(&expected, &present, scope.grid);
        // Rows for which a repair stands were found to be wrong.
        if let Some(replaced) = presence.repaired.get(&key) {
            good.subtract(replaced);
        }
        (key, good)
    });
    Ok(good.collect())
}

/// The rows that are hidden, by key and slot.
async fn truth(lake: &MaskedLake, table: &Table, mask: &Mask, columns: Vec<String>) -> Result<Numbers> {
    let keys = mask.keys().map(|(key, _)| key.clone()).collect();
    let request = ScanRequest { layer: Layer::Raw, interval: mask.hull(), keys: Some(keys), columns: Some(columns.clone()) };
    let mut rows = Numbers::of_columns(columns);
    let mut batches = lake.scan(table, &request).await?;
    while let Some(batch) = batches.try_next().await? {
        rows.add(table, &batch, |key, time_us| {
            let slot = mask.grid().slot_of_seconds(time_us.div_euclid(1_000_000));
            mask.contains(key, slot).then_some(slot)
        })?;
    }
    Ok(rows)
}
