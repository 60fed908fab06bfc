//! Plug-ins that reach outside: programs in any language, and APIs over HTTP.
//!
//! | name | kind | what it does |
//! | --- | --- | --- |
//! | `command` | source | asks a program for missing rows ([`command::source`]) |
//! | `command` | repairer | gives a program what is wrong, and takes its rows ([`command::repair`]) |
//! | `command` | detector | asks a program which rows are wrong ([`command::detect`]) |
//! | `command` | sensor | asks a program whether something has happened ([`command::sensor`]) |
//! | `command` | task | runs a program ([`command::task`]) |
//! | `http` | source | asks an API for missing rows (feature `http`) |
//! | `http` | sensor, task | looks at an answer of an API; sends a request to one (feature `http`) |
//!
//! It also delivers messages about runs: see [`notify`].
//!
//! ```
//! use repair_connect::{Commands, Options};
//! use repair_core::plugin::{PluginKind, Registry};
//! use serde_json::json;
//!
//! // A server starts only the programs that its operator allows.
//! let mut registry = Registry::default();
//! repair_connect::register_with(&mut registry, &Options::default().with_commands(Commands::only(["rsync"])));
//! assert!(registry.make(PluginKind::Task, "command", &json!({ "run": ["rsync", "-a", "from/", "to/"] })).is_ok());
//! let refused = registry.make(PluginKind::Task, "command", &json!({ "run": ["rm", "-rf", "/"] })).err();
//! assert!(refused.is_some_and(|error| error.full().contains("may not be run here")));
//! ```
//!
//! Nothing here may know which lake it works on, how a workflow runs, or one kind of row.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod allowed;
mod columns;
pub mod command;
#[cfg(feature = "http")]
pub mod http;
pub mod notify;
mod rows;
pub mod secret;
mod template;

pub use allowed::{Commands, Options};
pub use secret::Environment;

use repair_core::model::Usage;
use repair_core::plugin::Registry;

/// Adds all plug-ins of this crate to a registry. Every program may be run.
pub fn register(registry: &mut Registry) {
    register_with(registry, &Options::default());
}

/// Adds all plug-ins of this crate to a registry, with these options.
pub fn register_with(registry: &mut Registry, options: &Options) {
    command::register(registry, options);
    #[cfg(feature = "http")]
    http::register(registry, options);
}

/// One call to whatever it goes.
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
