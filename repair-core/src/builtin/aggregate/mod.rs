//! Aggregators for any kind of data.

pub(super) mod sql;
mod unseen;

use crate::plugin::Registry;

/// Adds these plug-ins to a registry.
pub(super) fn register(registry: &mut Registry) {
    sql::register(registry);
}
