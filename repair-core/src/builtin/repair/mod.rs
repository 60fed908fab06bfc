//! Repairers for any kind of data.

mod backfill;
pub mod by_day;
mod carry_forward;
mod estimate;
mod holes;
mod interpolate;
pub(super) mod judge;
pub(super) mod keep;
pub(super) mod latest;
mod line;
mod mean;
mod neighbours;
mod regress;
pub mod requests;
mod seasonal;
mod set;
mod shifted;
pub(super) mod sql;

pub use backfill::{Backfill, BackfillConfig, RowRule};
pub use carry_forward::{CarryForward, CarryForwardConfig, CarryRule};
pub use interpolate::Interpolate;
pub use regress::Regress;
pub use seasonal::Seasonal;
pub use shifted::Shifted;

use crate::plugin::Registry;

/// Adds these plug-ins to a registry.
pub(super) fn register(registry: &mut Registry) {
    backfill::register(registry);
    carry_forward::register(registry);
    keep::register(registry);
    interpolate::register(registry);
    regress::register(registry);
    seasonal::register(registry);
    set::register(registry);
    shifted::register(registry);
    sql::register(registry);
}
