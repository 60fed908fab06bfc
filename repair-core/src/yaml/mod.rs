//! YAML text in which everything knows its position, and the mistakes found in it. Must not know what the text means.

mod closest;
mod diagnostic;
mod file;
pub(crate) mod tree;

pub(crate) use closest::close_name;
pub use closest::closest;
pub use diagnostic::{Diagnostic, Diagnostics};
pub(crate) use file::{read_text, too_big};
