//! A context to call a plug-in in, as the engine would.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::lake::Lake;
use crate::model::{Cadence, Table};
use crate::plugin::{Clock, Registry, StepContext};

/// A table with a row per minute: Parquet in a folder of its name, with one key column, and `ts` as its time.
pub fn minute_table(name: &str, key: &str) -> Table {
    Table { key: vec![key.to_owned()], cadence: Some(Cadence::MINUTE), ..Table::implicit(name, "ts") }
}

/// A context of a lake, tables and a clock, with the calendars that any workflow has and without sources. What else a plug-in needs is added
/// with [`StepContext::with_sources`] and its siblings.
pub fn context(lake: Arc<dyn Lake>, tables: impl IntoIterator<Item = Table>, clock: Arc<dyn Clock>) -> StepContext {
    StepContext {
        run: "run".into(),
        step: "step".into(),
        visit: 1,
        attempt: 1,
        entered_at: clock.now(),
        now: clock.now(),
        turn: 0,
        lake,
        elsewhere: Arc::new(BTreeMap::new()),
        tables: Arc::new(tables.into_iter().map(|table| (table.name.clone(), table)).collect()),
        sources: Arc::new(BTreeMap::new()),
        params: Arc::new(BTreeMap::new()),
        calendars: Arc::new(Registry::default().calendars().clone()),
        clock,
        cancel: CancellationToken::new(),
        progress: Arc::new(()),
        calls: Arc::new(()),
    }
}
