//! What makes two rows of a table the same row.

use crate::model::{Interval, SlotGrid};

/// What makes two rows with the same key the same row, so that one of them may stand for the other.
///
/// ```
/// use repair_core::model::{Format, Rows, Table};
///
/// let orders = Table::new("orders", Format::Jsonl, "created_at").with_key(["id"]).with_rows(Rows::Unique);
/// let (monday_us, day_us) = (1_709_510_400_000_000, 86_400_000_000);
/// assert!(orders.identity().are_same(monday_us, monday_us + 30 * day_us), "versions of one order");
/// assert!(!orders.identity().are_same(monday_us, monday_us + 31 * day_us));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// They are in the same slot: a table with a cadence.
    Slot(SlotGrid),
    /// They have the same time: a table without one.
    Time,
    /// They are not too far apart in time: a table whose key identifies a row, see [`Rows::Unique`](super::Rows::Unique).
    Key {
        /// How far apart the versions of a row may lie, both ways, in microseconds.
        lookback_us: i64,
    },
}

impl Identity {
    /// The numbers by which rows are named: slots, or instants if there are none.
    pub fn grid(&self) -> SlotGrid {
        match self {
            Self::Slot(grid) => *grid,
            Self::Time | Self::Key { .. } => SlotGrid::instants(),
        }
    }

    /// The number of a row by its time in microseconds, whether or not it is near enough to its slot.
    #[inline]
    pub fn slot(&self, time_us: i64) -> i64 {
        match self {
            Self::Slot(grid) => grid.slot_of_us(time_us),
            Self::Time | Self::Key { .. } => time_us,
        }
    }

    /// The number of a row of the table; `None` if it is too far from its slot, so that it is no part of the series.
    #[inline]
    pub fn of_row(&self, time_us: i64) -> Option<i64> {
        match self {
            Self::Slot(grid) => grid.slot_of_row(time_us),
            Self::Time | Self::Key { .. } => Some(time_us),
        }
    }

    /// How far apart the versions of a row may lie, if only its key identifies it.
    #[inline]
    pub fn lookback_us(&self) -> Option<i64> {
        match self {
            Self::Key { lookback_us } => Some(*lookback_us),
            Self::Slot(_) | Self::Time => None,
        }
    }

    /// Whether two rows with the same key are the same row, by their times in microseconds.
    pub fn are_same(&self, one_us: i64, other_us: i64) -> bool {
        self.are_same_slots(self.slot(one_us), self.slot(other_us))
    }

    /// Whether two rows with the same key are the same row, by their numbers.
    pub fn are_same_slots(&self, one: i64, other: i64) -> bool {
        match self {
            Self::Key { lookback_us } => one.abs_diff(other) <= lookback_us.unsigned_abs(),
            Self::Slot(_) | Self::Time => one == other,
        }
    }

    /// Which of some numbers of rows with the same key is that of the row with this one: the nearest, and of two that are equally near, the
    /// earlier.
    pub fn same_as(&self, slot: i64, among: impl IntoIterator<Item = i64>) -> Option<i64> {
        among.into_iter().filter(|other| self.are_same_slots(slot, *other)).min_by_key(|other| (slot.abs_diff(*other), *other))
    }

    /// The interval in which the versions of the rows of an interval lie: longer by so many lookbacks, each way.
    #[must_use]
    pub fn widened(&self, interval: &Interval, lookbacks: i64) -> Interval {
        let Self::Key { lookback_us } = self else { return *interval };
        let by = jiff::SignedDuration::from_micros(lookback_us.saturating_mul(lookbacks));
        let from = interval.from().checked_sub(by).unwrap_or(jiff::Timestamp::MIN);
        let to = interval.to().checked_add(by).unwrap_or(jiff::Timestamp::MAX);
        Interval::new(from, to).unwrap_or(*interval)
    }
}
