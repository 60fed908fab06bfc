//! What steps consume, what that costs, and how much it may be.

pub mod budget;
pub mod costs;
pub mod ledger;
pub mod meter;
pub mod price;
pub mod usage;

pub use budget::{Budget, Spend};
pub use costs::{Costs, Group};
pub use ledger::{Entry, Tally};
pub use meter::{Meter, Metered, Query};
pub use price::{CallPrice, Item, Price, PriceBook};
pub use usage::Usage;
