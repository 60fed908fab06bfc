//! What runs used, by what and for what, and what that cost.

mod account;
mod costs;
mod tally;

pub use account::{CostsRequest, DEFAULT_TAGS, since};
pub use costs::{CostGroup, Costs, PlanUse};
pub use tally::{INFRASTRUCTURE, LedgerEntry, NONE, REPAIR, TAGS, Tally};
