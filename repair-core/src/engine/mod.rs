//! Runs workflows. The deciding half (`pure`) has no clock, no I/O and no async. The acting half (`drive`) performs its decisions.

pub(crate) mod aside;
mod cells;
mod drive;
mod journal;
pub mod news;
pub mod prepare;
mod pure;
mod rate;
mod report;
mod unit;

pub use drive::artifact::gaps_of;
pub use drive::engine::{Engine, EngineOptions, Observer, StartRequest, child_run_id, item_run_id, load, load_whole, new_run_id};
pub use drive::seen::{SeenSlots, seen_of};
pub use drive::work::findings_of;
pub use journal::{Fold, Journal, ListedRun, PAGE, RunHead, Signal, for_each_event};
pub use pure::brief::{Begun, Latest};
pub use pure::budget::spend_of;
pub use pure::decide::{Decision, decide};
pub use pure::event::{
    ErrorRecord, Event, FORMAT, FindingsRecord, LateTruth, Outcome, Recorded, SeenRecord, Settled, StopReason, UnitFailed,
};
pub use pure::items::{ItemResult, MapState};
pub use pure::state::{BranchState, Ended, Phase, Position, RunState, Started, StepState, Taken};
pub use pure::units::{Batch, EarlierStrategy, UnitState, UnitStates};
pub use pure::{control, retry};
pub use report::{JsonFormat, RunReport, StepError, StepReport};
