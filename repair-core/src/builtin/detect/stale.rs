//! The detector `stale`: finds where an aggregate was computed from repairs that were undone since, and has not been computed again.
//!
//! It reads the marks beside the aggregate's table. Its findings are slots of the table from which the aggregate is computed, and its scope
//! is narrowed to them, so that an aggregate step `of` it recomputes that interval and removes the marks.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::detect::expected::{Examined, GapsConfig, nothing_expected};
use crate::builtin::detect::gaps::find_gaps_allow_empty;
use crate::builtin::target::{into_name, target};
use crate::error::Result;
use crate::lake::stale;
use crate::model::Table;
use crate::model::{Cells, DefectKind, ExpectedKeys, Findings, Fingerprints, GapList, Interval, KeysFrom, Scope, SlotRange, SlotSet};
use crate::plugin::{Detector, Registry, StepContext};

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StaleConfig {
    /// The table from which the aggregate is computed; it needs a `cadence`.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The table that the aggregate step writes.
    #[serde(deserialize_with = "into_name")]
    pub into: String,
    /// The start of the interval: a date (from its first instant, in the table's zone), an instant, or relative to the run's now, such as
    /// `yesterday` or `now - 7d`.
    pub from: String,
    /// The end of the interval: a date (included, in the table's zone), an instant (not included), or relative to the run's now: `today` and
    /// other days are included.
    pub to: String,
    /// The calendar that defines which slots are expected.
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
}

pub(super) fn register(registry: &mut Registry) {
    registry.detector("stale", "finds where an aggregate was computed from repairs that were undone since", |config: StaleConfig| {
        let StaleConfig { table, into, from, to, calendar, keys, keys_from, allow_empty } = config;
        let series = GapsConfig { table, from, to, calendar, keys, keys_from, allow_empty };
        series.check()?;
        Ok(Stale { series, into })
    });
}

/// The detector `stale`.
struct Stale {
    series: GapsConfig,
    into: String,
}

#[async_trait]
impl Detector for Stale {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let into = target(&context.tables, &self.into, Some(&self.series.table), || Table::implicit(&self.into, "time"))?;
        let whole = match again {
            Some(before) => before.scope.clone(),
            None => self.series.scope(context).await?,
        };
        if again.is_none() && !self.series.allow_empty && Examined::of(context, &whole, None)?.is_empty() {
            return Err(nothing_expected(context, &whole)?);
        }
        let marks = stale::stale(context.lake.as_ref(), &into).await?;
        let stretches: Vec<Interval> = marks.iter().filter_map(|(stretch, _)| stretch.intersection(&whole.interval)).collect();
        let hull = stretches.iter().copied().reduce(|one, other| one.hull(&other));
        let scope = match (again, hull) {
            (None, Some(interval)) => Scope { interval, ..whole },
            _ => whole,
        };
        let base = find_gaps_allow_empty(context, &scope, again).await?;
        let examined = Examined::of(context, &scope, again)?;
        let mut gaps = GapList::default();
        for key in examined.keys() {
            let mut slots = SlotSet::new(scope.grid.cadence(), scope.slots());
            for stretch in &stretches {
                let marked = scope.grid.slots_in(stretch);
                let wanted = (marked.first..marked.end).filter(|&slot| examined.contains(&key, slot));
                wanted.for_each(|slot| slots.insert_range(SlotRange::new(slot, slot + 1)));
            }
            gaps.extend(&key, &slots);
        }
        let mut counts = base.counts;
        (counts.defective, counts.gaps) = (gaps.missing(), gaps.len() as u64);
        Ok(Findings {
            kind: DefectKind::Stale,
            scope: base.scope,
            counts,
            gaps,
            judged: Fingerprints::default(),
            cells: Cells::default(),
            deleted: GapList::default(),
            aside: GapList::default(),
            seen: None,
            examples: Vec::new(),
            quarantine: base.quarantine,
            notices: base.notices,
            other_keys: base.other_keys,
            hold_until: None,
            others: Vec::new(),
            usage: base.usage,
        })
    }
}
