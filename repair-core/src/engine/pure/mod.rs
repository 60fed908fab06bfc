//! The deciding half of the engine: what happened, the state that results, what to do next. No clock, no I/O, no async; randomness comes
//! from the run's seed.

pub(crate) mod budget;
pub mod control;
pub(crate) mod decide;
pub(crate) mod event;
pub mod retry;
pub(crate) mod state;
pub(crate) mod units;
