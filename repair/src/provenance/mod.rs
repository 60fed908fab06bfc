//! Why slots are as they are, and what a person may change about that: undo, redo, exceptions, decisions; and how accurate repairs were.
//!
//! A table's definition, and which tables are computed from it, are found in the journal, in the runs that had it. Raw data is never touched.

mod accuracy;
mod aside;
mod except;
pub(crate) mod subject;
mod undo;
mod why;

pub use accuracy::{AccuracyReport, AccuracyRequest};
pub use aside::{AsidesReport, AsidesRequest, Decided, LiftRequest, SetAsideRequest};
pub use except::{ExceptRequest, UnexceptRequest};
pub use repair_core::lake::overlay::aside::{Aside, Asides, Verdict};
pub use undo::{Change, RedoRequest, TableChange, UndoRequest};
pub use why::{OtherSlot, RepairStory, SlotStory, SuspectSilence, WhyRequest};

/// The reason of a change for which none was given.
const NO_REASON: &str = "no reason was given";

/// The user of this process, as its environment says.
pub(crate) fn user() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "unknown".to_owned())
}
