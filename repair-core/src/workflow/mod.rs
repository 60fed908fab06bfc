//! The workflow language: what a checked workflow is, and the expressions in it.

pub mod definition;
mod duration;
pub mod expression;
mod references;

pub use definition::*;
pub use duration::{MAX_DURATION, parse_duration, parse_rate};
pub use expression::Expression;
