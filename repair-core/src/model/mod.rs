//! The nouns of the engine: tables, intervals, series, calendars, presence, defects, fixes, usage. They are plain values: nothing here
//! does I/O, or knows a lake or a workflow.

mod calendar;
mod defect;
mod fix;
mod interval;
mod presence;
mod series;
mod table;
mod usage;

pub use calendar::{Always, Calendar, Session, outside};
pub use defect::{Counts, DefectKind, Findings, Fingerprint, Fingerprints, Gap, GapList, MAX_EXAMPLES, Scope};
pub use fix::{Absence, Conflicts, Fix, Suspect, Suspects, Unit, Wanted};
pub use interval::{Interval, day_start, utc_date};
pub use presence::{KeyPresence, Presence, SlotRange, SlotSet, TablePresence, expected_slots};
pub use series::{Cadence, Key, SlotGrid, TimeMark};
pub use table::{Format, Partition, PartitionUnit, Table};
pub use usage::Usage;
