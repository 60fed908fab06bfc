//! A world in memory: a journal, a lake, a clock that tests control, and crashes at chosen moments.
//!
//! All of it is deterministic: no threads, no randomness, no time except the clock's. A clone of a store is the same store, so a process
//! that crashes is a wrapper that is dropped, and its restart is a new wrapper around the same store.

mod clock;
mod faults;
mod journal;
mod lake;
mod rows;

pub use clock::VirtualClock;
pub use faults::{CRASHED, CrashingJournal, CrashingLake, FailingLake, FlakyJournal, Life, Moment, Schedule, is_crash};
pub use journal::MemoryJournal;
pub use lake::MemoryLake;
