//! The acting half of the engine: performs what the deciding half decides, appends events to the journal, and asks again.

pub(crate) mod artifact;
mod asking;
pub(crate) mod engine;
mod inner;
mod known;
mod late;
mod purse;
pub(super) mod seen;
mod session;
mod tried;
mod units;
pub(crate) mod work;
