//! Programs in any language as plug-ins: what they are asked, and what their answers mean.
//!
//! A program receives one request as JSON on its input, and answers on its output. Its answers are judged as those of any source: by the core, not here.
//! A program decides nothing about the run. It sees no secret but those that its `env` names, and what it writes reaches a report only without them.

pub mod detect;
mod process;
mod program;
pub mod repair;
mod rows;
pub mod sensor;
pub mod source;
pub mod task;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use repair_core::model::{Interval, Key, Table, Usage};
use repair_core::plugin::{Registry, StepContext};
use repair_core::{ErrorKind, Result};
use tokio::sync::Mutex;

pub use program::Meaning;
pub use rows::RowFormat;

use crate::allowed::Options;
use template::Values;

/// The name of all plug-ins of this module, and of their calls in a price book that a step names no other for.
pub const NAME: &str = "command";

/// How many bytes rows may have by default.
const ROW_BYTES: u64 = 64 << 20;
/// How many bytes an answer may have by default that is kept in the journal.
const OUTPUT_BYTES: u64 = 1 << 20;

pub(crate) fn register(registry: &mut Registry, options: &Options) {
    source::register(registry, options);
    repair::register(registry, options);
    detect::register(registry, options);
    sensor::register(registry, options);
    task::register(registry, options);
}

/// One call of a program.
const ONE_CALL: Usage = Usage {
    source_requests: 1,
    source_rows: 0,
    rows_read: 0,
    bytes_scanned: 0,
    rows_written: 0,
    bytes_written: 0,
    objects_written: 0,
    queries: 0,
    engine_ms: 0,
    storage_reads: 0,
    storage_writes: 0,
    queue_messages: 0,
    stream_records: 0,
    compute_ms: 0,
};

/// The columns of tables, each looked up once.
#[derive(Default)]
struct TableColumns(Mutex<BTreeMap<String, SchemaRef>>);

impl TableColumns {
    /// The columns of a table; `None` if it has no file yet.
    async fn of(&self, context: &StepContext, table: &Table) -> Result<Option<SchemaRef>> {
        let mut known = self.0.lock().await;
        if let Some(columns) = known.get(&table.name) {
            return Ok(Some(columns.clone()));
        }
        match context.lake.describe(table).await {
            Ok(columns) => {
                known.insert(table.name.clone(), columns.clone());
                Ok(Some(columns))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The values that calls about a table have, for arguments and variables.
const OF_TABLE: [&str; 6] = ["table", "from", "to", "from_date", "to_date", "keys"];

fn values_of(table: &Table, interval: &Interval, keys: &[Key]) -> Values {
    let keys: Vec<String> = keys.iter().map(|key| key.values().collect::<Vec<_>>().join("/")).collect();
    // The last date on which a part of the interval lies, and not the end, which is not part of it.
    let (from_date, to_date) = interval.dates();
    Values::from([
        ("table", table.name.clone()),
        ("from", interval.from().to_string()),
        ("to", interval.to().to_string()),
        ("from_date", from_date.to_string()),
        ("to_date", to_date.to_string()),
        ("keys", keys.join(",")),
    ])
}

/// What identifies a call: the same work has the same id, also after a crash.
fn id_of(parts: &[&str], table: &Table, interval: &Interval, keys: &[Key]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    parts.iter().for_each(|part| add(part));
    add(&table.name);
    add(&interval.to_string());
    for key in keys {
        add("key");
        key.values().for_each(&mut add);
    }
    hasher.finalize().to_hex().as_str().get(..24).unwrap_or_default().to_owned()
}

/// A table that a decoder may keep.
fn kept(table: &Table) -> Arc<Table> {
    Arc::new(table.clone())
}
