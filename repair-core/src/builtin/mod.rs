//! Plug-ins for any kind of data, and the parts from which crates for one kind of data build their own.
//!
//! | name | kind | what it does |
//! | --- | --- | --- |
//! | `gaps` | detector | finds the expected slots that hold no row |
//! | `arrivals` | detector, sensor | finds partitions that did not arrive or hold too few rows |
//! | `duplicates` | detector | finds the expected slots that hold several rows |
//! | `invalid` | detector | finds the expected slots whose rows break a rule |
//! | `stale` | detector | finds where an aggregate must be computed again |
//! | `backfill` | repairer | requests missing rows from a source, and checks its answers |
//! | `carry-forward` | repairer | repeats the last row |
//! | `keep` | repairer | keeps one of several rows |
//! | `interpolate` | repairer | draws a line between the rows before and after a gap |
//! | `shifted` | repairer | copies the row from the same time of another day |
//! | `carry-backward` | repairer | repeats the next row |
//! | `regress` | repairer | estimates a gap from other series, what repeats, and its edges |
//! | `seasonal` | repairer | estimates a gap from what repeats, and its edges |
//! | `sql` | detector, repairer, source, aggregator, task | runs a query of the user's own, whose rows are defects, repairs, answers, a table, or an output |
//! | `event`, `approval` | sensor | whether something was said to have happened, and whether a person has approved |
//! | `usage` | task | records what another system used |
//!
//! Nothing here may know a lake, a query engine, or one kind of row.

mod aggregate;
pub mod detect;
mod period;
pub mod repair;
mod sensor;
mod source;
mod sql;
pub mod target;
mod task;

pub use period::Period;
pub use sql::check_selected;

use crate::plugin::Registry;

impl Default for Registry {
    /// A registry with the built-in plug-ins and the calendar `always`.
    fn default() -> Self {
        let mut registry = Self::empty();
        detect::register(&mut registry);
        repair::register(&mut registry);
        sensor::register(&mut registry);
        source::register(&mut registry);
        aggregate::register(&mut registry);
        task::register(&mut registry);
        registry
    }
}
