//! Parts of time as people give them. What a date means depends on the table, so it is known only when the table is.

use repair_core::Result;
use repair_core::model::{Interval, Table};

/// Which part of a table's time is meant: all of it, an interval, or two bounds as people write them. A bound is an instant, or a date, which is
/// a day of the table's zone, as in a detect step; as the last bound, a date is included.
///
/// ```
/// use repair::Within;
///
/// let days: Within = ("2024-03-04", "2024-03-05").into();
/// assert!(!days.is_all());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Within(Part);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Part {
    #[default]
    All,
    Exact(Interval),
    Written {
        from: String,
        to: String,
    },
}

impl Within {
    /// Whether all of a table's time is meant.
    pub fn is_all(&self) -> bool {
        self.0 == Part::All
    }

    /// The part of a table's time; `None` if it is all of it.
    ///
    /// # Errors
    /// `invalid` if a bound is neither an instant nor a date, or if the interval would be empty.
    pub fn of(&self, table: &Table) -> Result<Option<Interval>> {
        match &self.0 {
            Part::All => Ok(None),
            Part::Exact(interval) => Ok(Some(*interval)),
            Part::Written { from, to } => Interval::parse_in(from, to, &table.day_zone()).map(Some),
        }
    }
}

impl From<Interval> for Within {
    fn from(interval: Interval) -> Self {
        Self(Part::Exact(interval))
    }
}

impl From<Option<Interval>> for Within {
    fn from(interval: Option<Interval>) -> Self {
        Self(interval.map_or(Part::All, Part::Exact))
    }
}

impl From<(&str, &str)> for Within {
    fn from((from, to): (&str, &str)) -> Self {
        Self(Part::Written { from: from.to_owned(), to: to.to_owned() })
    }
}

impl From<Option<(&str, &str)>> for Within {
    fn from(bounds: Option<(&str, &str)>) -> Self {
        bounds.map_or_else(Self::default, Self::from)
    }
}
