//! Durable workflows that find what is broken in a lake of data, wait, repair it, verify, and only then aggregate.

pub mod bakeoff;
pub mod builtin;
pub mod cost;
pub mod engine;
pub mod error;
pub mod lake;
pub mod model;
pub mod plan;
pub mod plugin;
#[cfg(feature = "testing")]
pub mod testing;
pub mod workflow;

pub use cost::Usage;
pub use error::{Error, ErrorKind, Result};
