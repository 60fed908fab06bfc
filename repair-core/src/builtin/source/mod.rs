//! Sources for any data.

mod sql;

use crate::plugin::Registry;

/// Adds these plug-ins to a registry.
pub(super) fn register(registry: &mut Registry) {
    sql::register(registry);
}
