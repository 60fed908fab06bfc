//! What steps consume.

pub mod usage;

pub use usage::Usage;
