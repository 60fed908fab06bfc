//! The detector `stocks.minute-gaps`: the minutes in which the market was open and of which a stock has no bar.
//!
//! The search is the core's [`find_gaps`]; this adds that the calendar must be named, because no stock trades always, and the stocks too:
//! read from the captured data, a stock that never came would be missed.

use async_trait::async_trait;
use repair_core::builtin::detect::find_gaps;
use repair_core::model::{Cadence, Findings, Interval, Key, Scope, Table};
use repair_core::plugin::{Detector, Registry, StepContext};
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What `with` says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MinuteGapsConfig {
    /// The table of bars: one key column, and `cadence: 1m`.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The calendar that says when the market is open, e.g. XNYS.
    #[schemars(extend("x-names" = "calendar"))]
    pub calendar: String,
    /// The stocks that must be there, by the values of the key column.
    #[serde(deserialize_with = "some_symbols")]
    pub symbols: Vec<String>,
    /// Where to begin: a date (from its first instant, UTC) or an instant.
    pub from: String,
    /// Where to end: a date (the whole of it, UTC) or an instant (not included).
    pub to: String,
}

/// Refuses what names no stock where it is written: nothing missing of no stocks would look like a clean table.
pub(crate) fn some_symbols<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let symbols = Vec::<String>::deserialize(deserializer)?;
    if symbols.is_empty() {
        return Err(D::Error::custom("`symbols` is empty, so nothing would be looked at; name the stocks that must be there"));
    }
    if symbols.iter().any(|symbol| symbol.trim().is_empty()) {
        return Err(D::Error::custom("a symbol under `symbols` is empty; take it out, or name the stock"));
    }
    Ok(symbols)
}

pub(crate) fn register(registry: &mut Registry) {
    registry.detector("stocks.minute-gaps", "finds the minutes of a session that hold no bar", |config: MinuteGapsConfig| {
        let interval = Interval::parse(&config.from, &config.to)?;
        Ok(MinuteGaps { config, interval })
    });
}

/// The detector `stocks.minute-gaps`.
struct MinuteGaps {
    config: MinuteGapsConfig,
    interval: Interval,
}

impl MinuteGaps {
    fn scope(&self, table: &Table) -> Result<Scope> {
        check_minutes(table)?;
        Ok(Scope {
            table: table.name.clone(),
            grid: table.grid()?,
            keys: self.config.symbols.iter().map(|symbol| Key::from(symbol.as_str())).collect(),
            interval: self.interval,
            calendar: self.config.calendar.clone(),
        })
    }
}

#[async_trait]
impl Detector for MinuteGaps {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.scope(context.table(&self.config.table)?)?,
        };
        find_gaps(context, &scope, again).await
    }
}

/// Checks that a table holds minute bars, told apart by one column.
///
/// # Errors
/// `invalid`, with what to do instead.
pub(crate) fn check_minutes(table: &Table) -> Result<()> {
    if table.key.len() != 1 {
        let has = match table.key.as_slice() {
            [] => "has none".to_owned(),
            several => format!("has {}", several.join(", ")),
        };
        return Err(Error::invalid(format!(
            "minute bars have one key column, the symbol, and table `{}` {has}; write `key: [symbol]`, or use `gaps` for other series",
            table.name
        )));
    }
    let grid = table.grid()?;
    if grid.cadence != Cadence::MINUTE {
        return Err(Error::invalid(format!(
            "minute bars come once a minute, and table `{}` has a cadence of {}; write `cadence: 1m`, or use `gaps` for other series",
            table.name, grid.cadence
        )));
    }
    Ok(())
}
