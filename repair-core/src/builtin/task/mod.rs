//! Tasks for any kind of data.

mod sql;
mod usage;

use crate::plugin::Registry;

/// Adds these plug-ins to a registry.
pub(super) fn register(registry: &mut Registry) {
    sql::register(registry);
    usage::register(registry);
}
