//! What runs used, by whom and for what, and what that cost.

mod costs;
mod tally;

pub use costs::{Amount, Costs, Group};
pub use tally::{Entry, INFRASTRUCTURE, NONE, REPAIR, TAGS, Tally};
