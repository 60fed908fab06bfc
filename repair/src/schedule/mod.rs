//! Runs workflows by their schedules: each tick once, one run at a time, whoever else runs them, and whatever crashes.
//!
//! The id of a run follows from its tick, and a run of an id exists once. How far a schedule has come stands in the lake, and is written before a run
//! starts and after it has ended, by who holds the lease of the schedule. So a process that dies is followed by another, which first ends the run that
//! was begun.
//!
//! What people should know of a schedule (a missed deadline, a run that cannot start) is kept in the lake before anything else follows from it, and until
//! whoever is to hear of it has it.
//!
//! ```no_run
//! # async fn example() -> repair::Result<()> {
//! use repair::Repair;
//! use repair::schedule::Scheduler;
//!
//! let repair = Repair::open("ticker-hourly.yaml").lake("./lake").connect().await?;
//! // Returns when the token of the opening is cancelled.
//! Scheduler::of(repair)?.run().await;
//! # Ok(())
//! # }
//! ```

mod alert;
mod choose;
mod export;
mod scheduler;

pub use alert::Alert;
pub use export::{Exported, Timer, export, upcoming};
pub use scheduler::{HeldBack, ScheduleStatus, Scheduler, Step};
