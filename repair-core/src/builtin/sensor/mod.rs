//! Sensors that wait for people and for other systems.

mod approval;
mod event;

use crate::plugin::Registry;

/// Adds these plug-ins to a registry.
pub(super) fn register(registry: &mut Registry) {
    approval::register(registry);
    event::register(registry);
}
