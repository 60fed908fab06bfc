//! The deciding half of the engine: what happened, the state that results, what to do next. No clock, no I/O, no async; randomness comes
//! from the run's seed.

mod answers;
pub(crate) mod brief;
pub(crate) mod budget;
pub mod control;
pub(crate) mod decide;
pub(crate) mod event;
pub(crate) mod items;
pub(crate) mod kept;
pub mod retry;
pub(crate) mod state;
pub(crate) mod units;
