//! Plug-ins for any kind of data, and the parts from which crates for one kind build theirs.
//!
//! | name | kind | what it does |
//! | --- | --- | --- |
//! | `gaps` | detector | finds the expected slots that hold nothing ([`gaps`]) |
//! | `backfill` | repairer | asks a source for missing rows, and judges its answers ([`backfill`]) |
//! | `carry-forward` | repairer | repeats the last row ([`carry_forward`]) |
//! | `interpolate` | repairer | draws a line between the rows before and after a gap ([`interpolate`]) |
//! | `shifted` | repairer | takes the row of the same time of another day ([`shifted`]) |
//! | `sql` | aggregator | writes the result of a query as a table ([`sql`]) |
//!
//! Nothing here may know a lake, a query engine, or one kind of row.

pub mod backfill;
pub mod by_day;
pub mod carry_forward;
pub mod gaps;
pub mod interpolate;
mod judge;
mod line;
mod neighbours;
pub mod period;
pub mod requests;
pub mod shifted;
pub mod sql;
pub mod target;

pub use backfill::{Backfill, RowRule};
pub use carry_forward::{CarryForward, CarryRule};
pub use gaps::find_gaps;
pub use interpolate::Interpolate;
pub use period::Period;
pub use shifted::Shifted;

use crate::plugin::Registry;

/// Adds the built-in plug-ins to a registry.
pub(crate) fn register(registry: &mut Registry) {
    gaps::register(registry);
    backfill::register(registry);
    carry_forward::register(registry);
    interpolate::register(registry);
    shifted::register(registry);
    sql::register(registry);
}
