//! Runs workflows. [`state`] and [`decide`] are pure: no clock, no I/O, no async.

pub mod artifact;
pub mod decide;
pub mod driver;
pub mod event;
mod fanout;
pub mod journal;
mod rate;
pub mod report;
pub mod retry;
pub mod state;

pub use driver::{Engine, Observer, StartRequest, load, new_run_id, preflight};
pub use event::{Event, Outcome, Recorded};
pub use journal::{Journal, RunHead, Signal, for_each_event};
pub use report::{RunReport, StepReport};
pub use state::RunState;
