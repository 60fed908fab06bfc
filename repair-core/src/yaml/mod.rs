//! YAML text as a tree that knows the position of everything in it, and the mistakes found there. It must not know what the text means.

mod closest;
mod diagnostic;
mod file;
pub(crate) mod tree;

pub(crate) use closest::close_name;
pub use closest::closest;
pub use diagnostic::{Diagnostic, Diagnostics};
pub(crate) use file::{read_text, too_big};
