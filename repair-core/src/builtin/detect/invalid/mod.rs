//! The detector `invalid`: finds expected slots whose rows break a rule. A [`Rule`] judges a row by itself, or among its neighbours.
//!
//! A rule about a column finds wrong cells: a repair then changes that column and keeps the rest of the row. A rule that compares columns
//! finds wrong rows, because it cannot know which of the columns is wrong, unless its `columns` says so. The cells of a slot with several
//! rows are found, too, and cannot be repaired before its duplicates are.
//!
//! It reads rows in windows of whole days: first only the columns that the rules name; all columns only where something is wrong or a
//! repair replaces rows, to record which rows were judged. The table's own rows are judged by all rules, and one bad row makes its slot
//! invalid. Repairs, of rows or of cells, are judged only by the rules on a row by itself, so that a repair that breaks them is found too, and a
//! repair that repeats a value is not mistaken for a frozen sensor.

mod bounds;
mod equals;
mod examine;
mod related;
mod rule;
mod series;
mod totals;
mod unique;
mod value;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

pub use equals::{Counted, Equals, Incomplete, TotalOf};
pub(super) use equals::{Number, Numbers};
use rule::MOST_BLAMED;
pub(super) use rule::numbers;
pub use rule::{Bound, ColumnComparison, ColumnOf, FromTable, OneOf, Outlier, Rule, Sentinel, TimesMedian};

use crate::builtin::detect::expected::{Examined, GapsConfig, blind_if_missing};
use crate::builtin::detect::gaps::examined;
use crate::builtin::detect::invalid::examine::{Examination, Found};
use crate::error::{Error, Result};
use crate::model::{DefectKind, ExpectedKeys, Findings, GapList, Key, KeysFrom, Rows, Seen, SlotGrid, SlotRange};
use crate::plugin::{Detector, PluginKind, Registry, StepContext};

/// How many slots, over all keys, are examined at once: about 50 bytes each, plus their rows where something is wrong.
const SLOTS_AT_ONCE: u64 = 1 << 21;

const DAY_S: u32 = 86_400;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvalidConfig {
    /// The table to examine; it needs a `cadence`, or `rows: unique`.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The start of the interval: a date (from its first instant, in the table's zone), an instant, or relative to the run's now, such as
    /// `yesterday` or `now - 7d`.
    pub from: String,
    /// The end of the interval: a date (included, in the table's zone), an instant (not included), or relative to the run's now: `today` and
    /// other days are included.
    pub to: String,
    /// The calendar that defines which slots are expected; others are not judged.
    #[serde(default = "super::expected::always")]
    #[schemars(extend("x-names" = "calendar"))]
    pub calendar: String,
    /// The keys that must be present, by default those under `keys` of the table: a list of values (or of lists, if the table has several key
    /// columns), a file, or another table that lists them.
    #[serde(default)]
    pub keys: Option<ExpectedKeys>,
    /// Another table that lists the keys: a short form of `keys`.
    #[serde(default)]
    pub keys_from: Option<KeysFrom>,
    /// Whether it is fine that no slot at all is expected, as on a day on which a market is closed. Otherwise the step is blind then.
    #[serde(default)]
    pub allow_empty: bool,
    /// The rules that rows must satisfy. A row that breaks one of them is invalid.
    #[schemars(length(min = 1))]
    pub rules: Vec<Rule>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.detector("invalid", "finds the slots of a series whose rows break a rule", Invalid::new);
    registry.finds("invalid", DefectKind::Invalid);
    registry.takes_unique_rows(PluginKind::Detector, "invalid");
    registry.fits(PluginKind::Detector, "invalid", unique::fits);
}

/// The detector `invalid`. Crates for one kind of row use it with their own rules.
#[derive(Debug)]
pub struct Invalid {
    series: GapsConfig,
    rules: Vec<Rule>,
}

impl Invalid {
    /// The detector as a step configures it.
    ///
    /// # Errors
    /// `invalid` if a rule is empty or impossible.
    pub fn new(config: InvalidConfig) -> Result<Self> {
        let InvalidConfig { table, from, to, calendar, keys, keys_from, allow_empty, rules } = config;
        if rules.is_empty() {
            return Err(Error::invalid("`rules` is empty, so every row would pass; write at least one rule"));
        }
        rules.iter().try_for_each(Rule::check)?;
        let series = GapsConfig { table, from, to, calendar, keys, keys_from, allow_empty };
        series.check()?;
        Ok(Self { series, rules })
    }
}

#[async_trait]
impl Detector for Invalid {
    fn cells(&self) -> Vec<Vec<String>> {
        let groups: BTreeSet<&[String]> = self.rules.iter().map(Rule::blamed).filter(|blamed| !blamed.is_empty()).collect();
        groups.into_iter().map(<[String]>::to_vec).collect()
    }

    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        totals::check(context, context.table(&self.series.table)?, &self.rules)?;
        if context.table(&self.series.table)?.rows == Rows::Unique {
            return unique::detect(context, self, again).await;
        }
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.series.scope(context).await?,
        };
        if self.rules.iter().any(Rule::is_among_neighbours) {
            context
                .table(&scope.table)?
                .check_one_row("a rule about a row among others of its key, such as `outlier` or `max: { times_median: 5 }`,")?;
        }
        if again.is_none() {
            // Before anything is read.
            let table = context.table(&scope.table)?;
            let schema = context.lake.describe(table).await.map_err(blind_if_missing)?;
            self.rules.iter().try_for_each(|rule| rule.of_table(table, &schema).map(drop))?;
        }
        let base = examined(context, &scope, again, self.series.allow_empty).await?;
        let examined = Examined::of(context, &scope, again)?;
        let Some(hull) = examined.hull() else { return Ok(Findings { kind: DefectKind::Invalid, ..base }) };
        let table = context.table(&scope.table)?;
        let schema = context.lake.describe(table).await.map_err(blind_if_missing)?;
        let mut of_table = self.rules.iter().map(|rule| rule.of_table(table, &schema)).collect::<Result<Vec<_>>>()?;
        related::read(context, &mut of_table).await?;
        totals::relate(context, table, &schema, &mut of_table).await?;
        let mut notices = base.notices;
        for bound in of_table.iter_mut().flat_map(Rule::tables) {
            if let Bound::Table(from) = bound {
                let (bounds, notice) = bounds::of_keys(context, from, &scope).await?;
                notices.extend(notice);
                *bound = Bound::PerKey(Arc::new(bounds));
            }
        }
        let columns: BTreeSet<&str> = of_table.iter().flat_map(Rule::columns).collect();
        let columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
        let is_own = |name: &str| name == table.time || table.key.iter().any(|key| key == name);
        let has_others = schema.fields().iter().any(|field| !is_own(field.name()) && !columns.contains(field.name()));
        let (grid, examined, columns) = (scope.grid, &examined, &columns);
        let blamed = blamed(&of_table)?;
        let rules = (self.rules.as_slice(), of_table.as_slice());
        let examination = Examination { context, table, grid, rules, blamed: &blamed, columns, has_others, examined, before: again };
        let has_totals = of_table.iter().any(|rule| rule.equals.is_some());
        let keys = examined.keys();
        let mut found = Found::default();
        let windows = windows(scope.grid, hull, keys.len());
        let total = windows.len() as u64;
        // A rule that judges a row by all values of its key must see all of them.
        let is_of_all = of_table.iter().any(Rule::is_of_all);
        for (done, window) in (0u64..).zip(windows) {
            context.check_cancelled()?;
            if let Some((narrow, keys)) = narrowed(examined, window, &keys) {
                let window = if is_of_all { window } else { narrow };
                let with_totals = if has_totals { Some(totals::of_window(context, &of_table, &scope, window, &keys).await?) } else { None };
                let rules = (self.rules.as_slice(), with_totals.as_deref().unwrap_or(&of_table));
                Examination { rules, ..examination }.examine(window, &keys, &mut found).await?;
            }
            context.progress.advance(&context.step, done + 1, total);
        }
        if again.is_none() {
            notices.extend(examination.notices(&found));
            totals::blind(&of_table, found.unjudged)?;
        }
        notices.extend(totals::notice(table, &of_table, found.unjudged, &found.unjudged_examples));
        let gaps = found.gaps();
        let mut counts = base.counts;
        (counts.defective, counts.replaced, counts.changed) = (gaps.missing(), found.replaced, found.changed);
        (counts.patched, counts.cells, counts.overtaken_cells) = (found.patched, found.cells.len(), found.overtaken);
        counts.unjudged = found.unjudged;
        counts.gaps = gaps.len() as u64;
        let mut usage = base.usage;
        usage += found.usage;
        Ok(Findings {
            kind: DefectKind::Invalid,
            scope: base.scope,
            counts,
            gaps,
            judged: found.judged,
            cells: found.cells,
            deleted: base.deleted,
            aside: GapList::default(),
            seen: Some(Seen { replaced: GapList::of_slots(found.standing), ..Seen::default() }),
            examples: found.examples,
            quarantine: base.quarantine,
            notices,
            other_keys: base.other_keys,
            hold_until: None,
            others: Vec::new(),
            usage,
        })
    }
}

/// The columns that the rules blame, in order of name.
///
/// # Errors
/// `invalid` if there are too many.
fn blamed(rules: &[Rule]) -> Result<Vec<String>> {
    let all: BTreeSet<&String> = rules.iter().flat_map(Rule::blamed).collect();
    if all.len() > MOST_BLAMED {
        let count = all.len();
        return Err(Error::invalid(format!(
            "the rules judge {count} columns, and one step can judge {MOST_BLAMED}; divide them into two steps"
        )));
    }
    Ok(all.into_iter().cloned().collect())
}

/// Windows of whole days, as many as can be examined at once.
fn windows(grid: SlotGrid, hull: SlotRange, keys: usize) -> Vec<SlotRange> {
    let per_day = i64::from((DAY_S / grid.cadence().seconds()).max(1));
    let at_once = SLOTS_AT_ONCE / u64::try_from(keys.max(1)).unwrap_or(u64::MAX);
    let length = (i64::try_from(at_once).unwrap_or(i64::MAX) / per_day).max(1).saturating_mul(per_day);
    let mut windows = Vec::new();
    let mut first = hull.first;
    while first < hull.end {
        let end = (first.div_euclid(per_day) * per_day).saturating_add(length).min(hull.end);
        windows.push(SlotRange::new(first, end));
        first = end;
    }
    windows
}

/// The part of a window to examine, and its keys: when checking again, from the first slot of the earlier findings to the last.
fn narrowed(examined: &Examined<'_>, window: SlotRange, keys: &[Key]) -> Option<(SlotRange, Vec<Key>)> {
    let Examined::Again(gaps) = examined else { return Some((window, keys.to_vec())) };
    let mut hull: Option<SlotRange> = None;
    let mut of_keys: Vec<Key> = Vec::new();
    for (key, gap) in gaps.iter() {
        let gap = gap.intersection(&window);
        if gap.is_empty() {
            continue;
        }
        hull = Some(hull.map_or(gap, |hull| SlotRange::new(hull.first.min(gap.first), hull.end.max(gap.end))));
        if of_keys.last() != Some(key) {
            of_keys.push(key.clone());
        }
    }
    hull.map(|hull| (hull, of_keys))
}
