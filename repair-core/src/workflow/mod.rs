//! The workflow language: from text to a checked workflow, and the expressions in it.

mod bind;
mod check;
pub mod definition;
pub mod diagnostic;
mod duration;
pub mod expression;
pub mod graph;
mod parse;
mod read;
mod references;
pub mod schema;
pub(crate) mod tree;

pub use bind::{MAX_PARAM_BYTES, MAX_PARAM_ITEMS};
pub use definition::*;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use duration::{MAX_DURATION, parse_duration, parse_rate};
pub use expression::Expression;
pub(crate) use parse::read_text;
