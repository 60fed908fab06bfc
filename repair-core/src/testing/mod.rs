//! For authors of adapters and plug-ins: a world in memory to run things in, and suites that check the promises of a trait. Behind the
//! feature `testing`.
//!
//! A suite panics with the broken promise, so call each in a test of its own. Nothing here may know an adapter.

mod context;
mod definition;
pub mod journal_suite;
pub mod lake_suite;
pub mod liar;
pub mod plugin_suite;
pub mod random_tables;
pub mod world;

pub use context::{context, minute_table};
pub use definition::definition;
pub use lake_suite::LakeSetup;
pub use world::{
    CRASHED, CrashingJournal, CrashingLake, FailingLake, FlakyJournal, Life, MemoryJournal, MemoryLake, Moment, Schedule, VirtualClock,
    is_crash,
};
