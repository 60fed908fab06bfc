//! The workflow language: from text to a checked graph.

pub mod definition;
pub mod expression;

pub use definition::*;
pub use expression::Expression;
