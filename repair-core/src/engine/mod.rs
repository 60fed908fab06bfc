//! Runs workflows. [`state`] and [`decide`] are pure: no clock, no I/O, no async.

pub mod artifact;
pub mod decide;
pub mod event;
pub mod journal;
pub mod report;
pub mod retry;
pub mod state;

pub use event::{Event, Outcome, Recorded};
pub use journal::{Journal, RunHead};
pub use report::{RunReport, StepReport};
pub use state::RunState;
