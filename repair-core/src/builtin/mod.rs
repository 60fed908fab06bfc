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
//! | `sql` | aggregator | writes the result of a query as a table ([`sql`]) |
//!
//! Nothing here may know a lake, a query engine, or one kind of row.

pub mod backfill;
pub mod carry_forward;
mod days;
pub mod duplicates;
pub mod expected;
pub mod gaps;
pub mod invalid;
mod judge;
pub mod keep;
mod neighbours;
pub mod period;
pub mod requests;
pub mod sql;
pub mod stale;
pub mod target;

pub use backfill::{Backfill, RowRule};
pub use carry_forward::{CarryForward, CarryRule};
pub use gaps::find_gaps;
pub use invalid::{Invalid, InvalidConfig};
pub use period::Period;

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
    sql::register(registry);
}
