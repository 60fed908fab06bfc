//! Programs in any language as plug-ins: what they are asked, and what their answers mean.
//!
//! A program receives one request as JSON on its input, and answers on its output. Its answers are judged as those of any source: by the core, not here.
//! A program decides nothing about the run. It sees no secret but those that its `env` names, and what it writes reaches a report only without them.

pub mod detect;
mod process;
pub(crate) mod program;
pub mod repair;
pub mod sensor;
pub mod source;
pub mod task;

use std::sync::Arc;

use repair_core::model::{Interval, Key, Table};
use repair_core::plugin::Registry;

pub use crate::rows::RowFormat;
pub use program::Meaning;

use crate::allowed::Options;
use crate::template::Values;

/// The name of all plug-ins of this module.
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
