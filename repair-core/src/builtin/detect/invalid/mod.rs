//! The detector `invalid`: the expected slots whose rows cannot be right, by rules on a row ([`Rule`]) and on a row among its neighbours.
//!
//! It reads rows: the columns that the rules name, in stretches of days; only where something is wrong, or a repair stands for rows, all
//! columns, to know later which rows were judged. Rows of the table's own are judged by all rules; of several rows of a slot, one that is
//! wrong makes the slot wrong. What a repair shows is judged by the rules on a row alone, so that a repair that breaks them is found too,
//! and one that repeats a value is not taken for a sensor that hangs.

mod look;
mod rule;
mod series;

use std::collections::BTreeSet;

use arrow::datatypes::Schema;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

pub use rule::{Comparison, Outlier, Rule, Sentinel};

use crate::builtin::detect::expected::{GapsConfig, KeysFrom, LookedAt, could_not_look, some_keys};
use crate::builtin::detect::gaps::search;
use crate::builtin::detect::invalid::look::{Found, Look};
use crate::error::{Error, Result};
use crate::lake::shape;
use crate::model::{DefectKind, Findings, Interval, Key, SlotGrid, SlotRange, Table};
use crate::plugin::{Detector, Registry, StepContext};

/// Slots of all keys that are looked at at once; about 50 bytes each, and their rows where something is wrong.
const SLOTS_AT_ONCE: u64 = 1 << 21;

const DAY_S: u32 = 86_400;

/// What `with` says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvalidConfig {
    /// The table to look at; it needs a `cadence`.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// Where to begin: a date (from its first instant, UTC) or an instant.
    pub from: String,
    /// Where to end: a date (the whole of it, UTC) or an instant (not included).
    pub to: String,
    /// The calendar that says which slots are expected; others are not judged.
    #[serde(default = "super::expected::always")]
    #[schemars(extend("x-names" = "calendar"))]
    pub calendar: String,
    /// The keys that must be there: one value each, or a list of values if the table has several key columns.
    #[serde(default, deserialize_with = "some_keys")]
    pub keys: Option<Vec<Key>>,
    /// A table of its own that lists the keys, instead of `keys`.
    #[serde(default)]
    pub keys_from: Option<KeysFrom>,
    /// What a believable row is. A row that breaks one of the rules is wrong.
    #[schemars(length(min = 1))]
    pub rules: Vec<Rule>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.detector("invalid", "finds the slots of a series whose rows break a rule", Invalid::new);
}

/// The detector `invalid`. Crates for one kind of row make it with rules of their own.
#[derive(Debug)]
pub struct Invalid {
    series: GapsConfig,
    interval: Interval,
    rules: Vec<Rule>,
}

impl Invalid {
    /// The detector as a step configures it.
    ///
    /// # Errors
    /// `invalid` if a rule says nothing, or what cannot be.
    pub fn new(config: InvalidConfig) -> Result<Self> {
        let InvalidConfig { table, from, to, calendar, keys, keys_from, rules } = config;
        if rules.is_empty() {
            return Err(Error::invalid("`rules` is empty, so everything would be believed; write at least one rule"));
        }
        rules.iter().try_for_each(Rule::check)?;
        let series = GapsConfig { table, from, to, calendar, keys, keys_from };
        let interval = series.interval()?;
        Ok(Self { series, interval, rules })
    }

    /// The columns that the rules read, after checking that the table has them.
    fn columns(&self, table: &Table, schema: &Schema) -> Result<Vec<String>> {
        let columns: BTreeSet<&str> = self.rules.iter().flat_map(Rule::columns).collect();
        match columns.iter().find(|name| schema.field_with_name(name).is_err()) {
            Some(unknown) => Err(Error::invalid(format!(
                "a rule is about column `{unknown}`, which table `{}` has not; {}",
                table.name,
                shape::names(schema)
            ))),
            None => Ok(columns.into_iter().map(str::to_owned).collect()),
        }
    }
}

#[async_trait]
impl Detector for Invalid {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.series.scope(context, self.interval).await?,
        };
        let (base, _) = search(context, &scope, again).await?;
        let looked_at = LookedAt::of(context, &scope, again)?;
        let Some(hull) = looked_at.hull() else { return Ok(Findings { kind: DefectKind::Invalid, ..base }) };
        let table = context.table(&scope.table)?;
        let schema = context.lake.describe(table).await.map_err(could_not_look)?;
        let columns = self.columns(table, &schema)?;
        let is_own = |name: &str| name == table.time || table.key.iter().any(|key| key == name);
        let has_others = schema.fields().iter().any(|field| !is_own(field.name()) && !columns.contains(field.name()));
        let look = Look { context, table, grid: scope.grid, rules: &self.rules, columns: &columns, has_others, looked_at: &looked_at };
        let keys = looked_at.keys();
        let mut found = Found::default();
        let windows = windows(scope.grid, hull, keys.len());
        let total = windows.len() as u64;
        for (done, window) in (0u64..).zip(windows) {
            context.check_cancelled()?;
            if let Some((window, keys)) = narrowed(&looked_at, window, &keys) {
                look.look(window, &keys, &mut found).await?;
            }
            context.progress.advance(&context.step, done + 1, total);
        }
        let gaps = found.gaps();
        let mut counts = base.counts;
        (counts.defective, counts.replaced, counts.changed) = (gaps.missing(), found.replaced, found.changed);
        counts.gaps = gaps.len() as u64;
        let mut usage = base.usage;
        usage += found.usage;
        Ok(Findings { kind: DefectKind::Invalid, scope, counts, gaps, judged: found.judged, told: found.told, usage })
    }
}

/// Whole days, as many as are looked at at once.
fn windows(grid: SlotGrid, hull: SlotRange, keys: usize) -> Vec<SlotRange> {
    let per_day = i64::from((DAY_S / grid.cadence.seconds()).max(1));
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

/// The part of a window that needs a look, and the keys: for a second look, from the first slot found before to the last.
fn narrowed(looked_at: &LookedAt<'_>, window: SlotRange, keys: &[Key]) -> Option<(SlotRange, Vec<Key>)> {
    let LookedAt::Again(gaps) = looked_at else { return Some((window, keys.to_vec())) };
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
