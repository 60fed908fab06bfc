//! Runs workflows. [`state`] and [`decide`] are pure: no clock, no I/O, no async. [`driver`] performs what they decide, and is thin.

pub mod event;
pub mod journal;

pub use event::{Event, Outcome, Recorded};
pub use journal::{Journal, RunHead};
