//! Plug-ins for any kind of data, and the parts from which crates for one kind build theirs.
//!
//! | name | kind | what it does |
//! | --- | --- | --- |
//! | `gaps` | detector | finds the expected slots that hold nothing ([`gaps`]) |
//! | `duplicates` | detector | finds the expected slots that hold several rows ([`duplicates`]) |
//! | `invalid` | detector | finds the expected slots whose rows break a rule ([`invalid`]) |
//! | `stale` | detector | finds where an aggregate is to be computed again ([`stale`]) |
//! | `backfill` | repairer | asks a source for missing rows, and judges its answers ([`backfill`]) |
//! | `carry-forward` | repairer | repeats the last row ([`carry_forward`]) |
//! | `keep` | repairer | keeps one of several rows ([`keep`]) |
//! | `interpolate` | repairer | draws a line between the rows before and after a gap ([`interpolate`]) |
//! | `shifted` | repairer | takes the row of the same time of another day ([`shifted`]) |
//! | `sql` | aggregator | writes the result of a query as a table ([`sql`]) |
//! | `usage` | task | records what another system used ([`usage`]) |
//!
//! Nothing here may know a lake, a query engine, or one kind of row.

pub mod backfill;
pub mod by_day;
pub mod carry_forward;
pub mod duplicates;
pub mod expected;
pub mod gaps;
pub mod interpolate;
pub mod invalid;
mod judge;
pub mod keep;
mod line;
mod neighbours;
pub mod period;
pub mod requests;
pub mod shifted;
pub mod sql;
pub mod stale;
pub mod target;
pub mod usage;

pub use backfill::{Backfill, RowRule};
pub use carry_forward::{CarryForward, CarryRule};
pub use gaps::find_gaps;
pub use interpolate::Interpolate;
pub use invalid::{Invalid, InvalidConfig};
pub use period::Period;
pub use shifted::Shifted;

use crate::plugin::Registry;

/// Adds the built-in plug-ins to a registry.
pub(crate) fn register(registry: &mut Registry) {
    gaps::register(registry);
    duplicates::register(registry);
    invalid::register(registry);
    stale::register(registry);
    backfill::register(registry);
    carry_forward::register(registry);
    keep::register(registry);
    interpolate::register(registry);
    shifted::register(registry);
    sql::register(registry);
    usage::register(registry);
}
