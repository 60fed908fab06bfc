//! Detectors for any kind of data.

mod arrivals;
mod clock;
mod differs;
mod duplicates;
mod expected;
mod gaps;
mod invalid;
mod reference;
mod sql;
mod stale;
mod unique;

pub use expected::GapsConfig;
pub(super) use gaps::{check_alignment, windows};
pub use gaps::{find_gaps, find_gaps_allow_empty, find_gaps_into, gaps_rest_on};
pub use invalid::{
    Bound, ColumnComparison, ColumnOf, Counted, Equals, FromTable, Incomplete, Invalid, InvalidConfig, OneOf, Outlier, Rule, Sentinel,
    TimesMedian, TotalOf,
};

use crate::plugin::Registry;

/// Adds these plug-ins to a registry.
pub(super) fn register(registry: &mut Registry) {
    gaps::register(registry);
    arrivals::register(registry);
    differs::register(registry);
    duplicates::register(registry);
    invalid::register(registry);
    sql::register(registry);
    stale::register(registry);
}
