//! The nouns of the engine: intervals, series, calendars, presence, defects, fixes. Values only: nothing here does I/O, knows a
//! lake or a workflow.

pub mod calendar;
pub mod defect;
pub mod fix;
pub mod interval;
pub mod presence;
pub mod series;
pub mod table;

pub use calendar::{Always, Calendar, Session};
pub use defect::{Counts, DefectKind, Findings, Fingerprint, Fingerprints, Gap, GapList, Scope};
pub use fix::{Absence, Conflicts, Fix, Suspect, Suspects, Unit, Wanted};
pub use interval::Interval;
pub use presence::{KeyPresence, Presence, SlotRange, SlotSet, TablePresence};
pub use series::{Cadence, Key, SlotGrid, TimeMark};
pub use table::{Format, Partition, PartitionUnit, Table};
