//! The nouns of the engine: tables, intervals, series, calendars, presence, defects, fixes, usage. They are plain values: nothing here
//! does I/O, or knows a lake or a workflow.

mod bad_row;
mod cadence;
mod calendar;
mod cells;
mod defect;
mod estimates;
mod fix;
mod grid;
mod hours;
mod interval;
mod key;
mod keys;
mod lifetime;
mod moment;
mod other_keys;
mod presence;
pub(crate) mod runs;
mod slot_start;
mod table;
mod usage;
mod weekly;
mod zone;

pub use bad_row::{BadRow, Quarantine, unread};
pub use cadence::Cadence;
pub use calendar::{Always, Calendar, Session, outside};
pub use cells::{BadCells, Cells};
pub use defect::{
    ComparedCounts, Counts, DefectKind, Findings, Fingerprint, Fingerprints, Gap, GapList, MAX_EXAMPLES, Scope, Seen, UnitCounts,
};
pub use estimates::Estimates;
pub use fix::{Absence, AnswerPrint, Conflicts, Fix, Suspect, Suspects, Unit, Wanted};
pub use grid::{GridPart, SlotGrid, SlotRule, TimeMark};
pub use hours::Hours;
pub use interval::{Interval, day_start, utc_date};
pub use key::Key;
pub use keys::{ExpectedKeys, KeysFrom};
pub use lifetime::{ExpectedSlots, Lifetime, Lifetimes};
pub use moment::{Fixed, Moment, Relative};
pub use other_keys::{KeyRows, OtherKeys};
pub(crate) use presence::within;
pub use presence::{KeyPresence, Presence, SlotRange, SlotSet, TablePresence, expected_slots, open_slots};
pub(crate) use runs::Runs;
pub use slot_start::SlotStart;
pub use table::{
    BadRowLimit, ColumnRule, ColumnType, Csv, DateParts, Encoding, EpochUnit, Format, Identity, Layout, OnBadRow, Partition, PartitionUnit,
    PathFacts, PathField, PathPattern, PathPiece, Repeated, Rows, Skipped, Slack, Table, TimeForm, TimeReading,
};
pub use usage::Usage;
pub use weekly::{ExtendedCalendar, ListedCalendar, Week, WeeklyCalendar};
pub use zone::{Instants, LocalClock, Zone};
