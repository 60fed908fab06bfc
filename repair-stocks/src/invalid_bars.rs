//! The detector `stocks.invalid-bars`: minutes of a session whose bar no market can have produced.
//!
//! The core's [`Invalid`] does the search; this module adds the rules for bars, which are those of [`Bar::flaw`](crate::bar::Bar::flaw): every
//! number is present, prices are above 0, low ≤ open and close ≤ high, and the volume is not below 0. A step may add rules of its own, such as
//! one for outliers.

use repair_core::builtin::detect::{Bound, Invalid, InvalidConfig, Rule};
use repair_core::model::DefectKind;
use repair_core::plugin::Registry;
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bar::{COLUMNS, VOLUME};
use crate::minute_gaps::{expected, some_symbols};

/// The configuration of `stocks.invalid-bars`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct InvalidBarsConfig {
    /// The table of bars: one key column, and a `cadence`.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The calendar that defines when the market is open, e.g. XNYS.
    #[schemars(extend("x-names" = "calendar"))]
    pub calendar: String,
    /// The stocks that must be present, as values of the key column; by default those under `keys` of the table.
    #[serde(default, deserialize_with = "some_symbols")]
    pub symbols: Option<Vec<String>>,
    /// The beginning: a date (from its first instant, in the table's zone), an instant, or relative to the run's now, such as `yesterday` or
    /// `now - 7d`.
    pub from: String,
    /// The end: a date (included, in the table's zone), an instant (not included), or relative to the run's now: `today` and other days are
    /// included.
    pub to: String,
    /// Whether it is fine that no slot at all is expected, as on a day on which a market is closed. Otherwise the step is blind then.
    #[serde(default)]
    pub allow_empty: bool,
    /// Rules in addition to those for bars, written as for `invalid`.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

pub(crate) fn register(registry: &mut Registry) {
    registry.detector("stocks.invalid-bars", "finds the bars that no market can have produced", |config: InvalidBarsConfig| {
        let InvalidBarsConfig { table, calendar, symbols, from, to, allow_empty, rules } = config;
        let keys = expected(symbols.as_deref());
        let rules = bar_rules()?.into_iter().chain(rules).collect();
        Invalid::new(InvalidConfig { table, from, to, calendar, keys, keys_from: None, allow_empty, rules })
    });
    registry.finds("stocks.invalid-bars", DefectKind::Invalid);
}

/// The rules for bars.
fn bar_rules() -> Result<Vec<Rule>> {
    let present = COLUMNS.map(|column| {
        let min = (column == VOLUME).then_some(Bound::Number(0.0));
        Ok(Rule { column: Some(column.to_owned()), not_null: true, min, ..Rule::default() })
    });
    let compared = ["low > 0", "low <= open", "low <= close", "low <= high", "open <= high", "close <= high"]
        .map(|comparison| Ok::<_, Error>(Rule { holds: Some(comparison.parse()?), ..Rule::default() }));
    present.into_iter().chain(compared).collect()
}
