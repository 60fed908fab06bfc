//! What steps consume.

pub mod meter;
pub mod usage;

pub use meter::{Meter, Metered, Query};
pub use usage::Usage;
