//! The words of a workflow engine for data with holes: the model, and the traits of lakes and plug-ins.

pub mod builtin;
pub mod cost;
pub mod error;
pub mod lake;
pub mod model;
pub mod plugin;

pub use cost::Usage;
pub use error::{Error, ErrorKind, Result};
