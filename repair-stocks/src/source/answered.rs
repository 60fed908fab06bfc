//! Turns the bars of HTTP sources into answers: rows in the lake's shape, and the stretches for which the source vouches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::SchemaRef;
use jiff::Timestamp;
use repair_core::builtin::Period;
use repair_core::lake::shape;
use repair_core::model::{Interval, Key, Table};
use repair_core::plugin::{Answer, Covered, Request, StepContext};
use repair_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;

use crate::bar::Bar;

/// The default time after a minute in which its bar may still arrive or change, because feeds lag and trades are reported late.
const SETTLES_AFTER: Period = Period::minutes(15);

/// The column of the number of trades in a bar, filled if the table has it.
const TRADE_COUNT: &str = "trade_count";
/// The column of the volume-weighted average price, filled if the table has it.
const VWAP: &str = "vwap";

/// Bars as they arrive, page by page.
#[derive(Default)]
pub(super) struct Bars {
    symbols: Vec<String>,
    starts_us: Vec<i64>,
    bars: Vec<Bar>,
    trade_counts: Vec<Option<i64>>,
    vwaps: Vec<Option<f64>>,
}

impl Bars {
    /// Adds the bar of a minute that begins at `start_us`. The core judges whether it was requested.
    pub(super) fn push(&mut self, symbol: &str, start_us: i64, bar: Bar, trade_count: Option<i64>, vwap: Option<f64>) {
        self.symbols.push(symbol.to_owned());
        self.starts_us.push(start_us);
        self.bars.push(bar);
        self.trade_counts.push(trade_count);
        self.vwaps.push(vwap);
    }

    /// The answer with all bars. Before `vouches_until`, if given, silence means that nothing traded. The answer vouches for no symbol without
    /// any bar, because these APIs leave out unknown symbols in the same way.
    pub(super) fn answer(
        self,
        request: &Request,
        columns: Option<&SchemaRef>,
        vouches_until: Option<Timestamp>,
        requests: u64,
        said: String,
    ) -> Result<Answer> {
        let grid = request.table.grid()?;
        // A bar is known by the start of its minute; a row's time marks the start or the end, depending on the table.
        let mark_us = grid.time_of_seconds(0).saturating_mul(1_000_000);
        let times_us = self.starts_us.iter().map(|start| start.saturating_add(mark_us)).collect();
        let symbols: Vec<&str> = self.symbols.iter().map(String::as_str).collect();
        let more: [(&str, ArrayRef); 2] =
            [(TRADE_COUNT, Arc::new(Int64Array::from(self.trade_counts))), (VWAP, Arc::new(Float64Array::from(self.vwaps)))];
        let is_wanted = |name: &str| columns.is_some_and(|columns| matches!(shape::find(columns, name), Ok(Some(_))));
        let more: Vec<(&str, ArrayRef)> = more.into_iter().filter(|(name, _)| is_wanted(name)).collect();
        let rows = super::rows(&request.table.key, &request.table.time, &symbols, times_us, &self.bars, more)?;
        let known: BTreeSet<&str> = symbols.into_iter().collect();
        let until = vouches_until.map(|until| until.min(request.interval.to()));
        let interval = until.and_then(|until| Interval::new(request.interval.from(), until).ok());
        let is_known = |key: &&Key| key.single().is_some_and(|symbol| known.contains(symbol));
        let covered = interval.map_or_else(Vec::new, |interval| {
            request.keys.iter().filter(is_known).map(|key| Covered { key: key.clone(), interval }).collect()
        });
        Ok(Answer::new(vec![rows]).with_covered(covered).with_requests(requests).with_said(said))
    }
}

/// The symbol of a key, checked for use in a URL.
pub(super) fn symbol(key: &Key) -> Result<&str> {
    let symbol = key.single().ok_or_else(|| Error::invalid(format!("`{key}` is not one symbol")))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '^' | '/' | '=' | '+');
    if symbol.is_empty() || symbol.chars().all(|c| c == '.') || !symbol.chars().all(fits) {
        return Err(Error::invalid(format!("`{key}` cannot be a symbol; correct `symbols`")));
    }
    Ok(symbol)
}

/// The columns of tables, each looked up once: they decide which optional columns a source fills.
#[derive(Default)]
pub(super) struct Columns(Mutex<BTreeMap<String, Option<SchemaRef>>>);

impl Columns {
    /// The columns of a table; `None` if it has no file yet.
    pub(super) async fn of(&self, context: &StepContext, table: &Table) -> Result<Option<SchemaRef>> {
        let mut known = self.0.lock().await;
        if let Some(columns) = known.get(&table.name) {
            return Ok(columns.clone());
        }
        let columns = match context.lake.describe(table).await {
            Ok(columns) => Some(columns),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        known.insert(table.name.clone(), columns.clone());
        Ok(columns)
    }
}

/// The instant before which a source vouches for the minutes that it leaves out.
pub(super) fn settled_before(now: Timestamp, settles_after: Option<Period>) -> Result<Timestamp> {
    now.checked_sub(settles_after.unwrap_or(SETTLES_AFTER).signed())
        .map_err(|error| Error::invalid("`settles_after` is out of range").because(error))
}
