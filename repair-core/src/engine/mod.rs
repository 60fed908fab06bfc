//! Runs workflows. [`budget`], [`state`], [`decide`], [`control`], [`retry`] and [`units`] are pure: no clock, no I/O, no async.

pub mod artifact;
pub mod budget;
pub mod control;
pub mod decide;
pub mod driver;
pub mod event;
pub(crate) mod fanout;
pub mod journal;
mod late;
mod rate;
pub mod report;
pub mod retry;
mod session;
pub mod stale;
pub mod state;
pub mod units;
mod work;

pub(crate) use driver::{make, sources};
pub(crate) use fanout::check_fix;
pub(crate) use rate::RateLimiter;

pub use driver::{Engine, Observer, Options, StartRequest, child_run_id, load, new_run_id, preflight};
pub use event::{Event, Outcome, Recorded};
pub use journal::{Journal, RunHead, Signal, for_each_event};
pub use report::{RunReport, StepReport};
pub use state::RunState;
