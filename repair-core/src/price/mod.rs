//! What countable things cost, how much may be spent, and what was used. It must not know who used it, or why.

mod book;
mod budget;
mod meter;

pub use book::{CallPrice, Item, MAX_DECIMALS, MAX_USD, Price, PriceBook, counts, dollars};
pub(crate) use book::{number_text, size};
pub use budget::{Budget, Exceeded, Spend};
pub use meter::{Meter, Metered, Query};
