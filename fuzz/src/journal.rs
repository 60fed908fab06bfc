//! The parts of `repair-aws` of this name.

#[path = "../../repair-aws/src/journal/segment.rs"]
pub(crate) mod segment;
