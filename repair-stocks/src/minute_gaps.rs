//! The detector `stocks.minute-gaps`: the minutes in which the market was open and a stock has no bar.
//!
//! The core's [`find_gaps`] does the search. This module requires a calendar, because no stock trades all the time, and a list of stocks, its own or
//! that of the table, because a stock that never arrived would go unnoticed if they were read from the captured data.

use async_trait::async_trait;
use repair_core::builtin::detect::{GapsConfig, find_gaps, find_gaps_allow_empty, find_gaps_into, gaps_rest_on};
use repair_core::model::{Cadence, DefectKind, ExpectedKeys, Findings, Interval, Key, Scope, Table};
use repair_core::plugin::{Detector, Drawing, GapSink, PluginKind, Registry, StepContext};
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::bar::CLOSE;

/// The configuration of `stocks.minute-gaps`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MinuteGapsConfig {
    /// The table of bars: one key column, and `cadence: 1m`.
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
}

/// Refuses a list without stocks when it is read, because an audit of no stocks would look like a clean table.
pub(crate) fn some_symbols<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let symbols = Vec::<String>::deserialize(deserializer)?;
    if symbols.is_empty() {
        return Err(D::Error::custom("`symbols` is empty, so nothing would be checked; list the stocks that must be present"));
    }
    if symbols.iter().any(|symbol| symbol.trim().is_empty()) {
        return Err(D::Error::custom("`symbols` holds an empty symbol; remove it, or name the stock"));
    }
    Ok(Some(symbols))
}

/// Stocks as expected keys.
pub(crate) fn expected(symbols: Option<&[String]>) -> Option<ExpectedKeys> {
    symbols.map(|symbols| ExpectedKeys::List(symbols.iter().map(|symbol| Key::from(symbol.as_str())).collect()))
}

pub(crate) fn register(registry: &mut Registry) {
    registry.detector("stocks.minute-gaps", "finds the minutes of a session that hold no bar", |config: MinuteGapsConfig| {
        Interval::check(&config.from, &config.to)?;
        Ok(MinuteGaps { config })
    });
    registry.finds("stocks.minute-gaps", DefectKind::Missing);
    registry.drawn_as(PluginKind::Detector, "stocks.minute-gaps", Drawing::Line { value: CLOSE.to_owned() });
}

/// The detector `stocks.minute-gaps`.
struct MinuteGaps {
    config: MinuteGapsConfig,
}

impl MinuteGaps {
    async fn scope(&self, context: &StepContext) -> Result<Scope> {
        let MinuteGapsConfig { table, calendar, symbols, from, to, allow_empty } = self.config.clone();
        check_minutes(context.table(&table)?)?;
        let keys = expected(symbols.as_deref());
        GapsConfig { table, from, to, calendar, keys, keys_from: None, allow_empty }.scope(context).await
    }
}

#[async_trait]
impl Detector for MinuteGaps {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.scope(context).await?,
        };
        if self.config.allow_empty { find_gaps_allow_empty(context, &scope, again).await } else { find_gaps(context, &scope, again).await }
    }

    async fn detect_into(&self, context: &StepContext, again: Option<&Findings>, sink: &GapSink) -> Result<Findings> {
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.scope(context).await?,
        };
        find_gaps_into(context, &scope, again, self.config.allow_empty, sink).await
    }

    async fn rests_on(&self, context: &StepContext) -> Result<Option<String>> {
        let scope = self.scope(context).await?;
        gaps_rest_on(context, &scope, self.config.allow_empty).await
    }
}

/// Checks that a table holds minute bars with one key column.
///
/// # Errors
/// `invalid`, with what to do instead.
pub(crate) fn check_minutes(table: &Table) -> Result<()> {
    if table.key.len() != 1 {
        let has = match table.key.as_slice() {
            [] => "none".to_owned(),
            several => several.join(", "),
        };
        return Err(Error::invalid(format!(
            "minute bars need one key column, the symbol, but table `{}` has {has}; write `key: [symbol]`, or use `gaps` for other series",
            table.name
        )));
    }
    let grid = table.grid()?;
    if grid.cadence() != Cadence::MINUTE {
        return Err(Error::invalid(format!(
            "minute bars need a cadence of 1m, but that of table `{}` is {}; write `cadence: 1m`, or use `gaps` for other series",
            table.name,
            grid.cadence()
        )));
    }
    if !grid.is_plain() {
        return Err(Error::invalid(format!(
            "minute bars begin with whole minutes, but those of table `{}` do not, by `at` or `before` under `cadence`; use `gaps` for such series",
            table.name
        )));
    }
    Ok(())
}
