//! Tables of the lake, as a workflow declares them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Cadence, SlotGrid, TimeMark};

/// How a table's files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    Jsonl,
}

impl Format {
    /// The name used in workflows, such as `parquet`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
        }
    }

    /// The file endings of the format, without the dot.
    pub fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Parquet => &["parquet"],
            Self::Csv => &["csv"],
            Self::Jsonl => &["jsonl", "ndjson", "json"],
        }
    }
}

/// The unit of time in the name of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartitionUnit {
    /// A year, such as `2024`.
    Year,
    /// A month, such as `2024-03`.
    Month,
    /// A day, such as `2024-03-04`.
    Day,
    /// An hour, such as `2024-03-04-09`.
    Hour,
}

/// A Hive partition column that is a unit of the table's time column, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The column, as in a folder named `column=value`.
    pub column: String,
    /// The unit of time that its values name.
    pub unit: PartitionUnit,
}

/// A table of the lake, as a workflow declares it.
///
/// ```
/// use repair_core::model::{Cadence, Format, PartitionUnit, Table};
///
/// let bars = Table::new("bars", Format::Parquet, "ts")
///     .with_location("market/bars")
///     .with_key(["symbol"])
///     .with_partition("date", PartitionUnit::Day)
///     .with_cadence(Cadence::MINUTE);
/// assert_eq!(bars.grid()?.cadence.seconds(), 60);
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    /// The name that steps use.
    pub name: String,
    /// Where its files are: a folder (or one file), absolute or relative to the lake's root.
    pub location: String,
    /// The format of its files.
    pub format: Format,
    /// How its files are partitioned by time; at most one column.
    pub partition_by: Vec<Partition>,
    /// The columns that identify a series; none if the table is one series.
    pub key: Vec<String>,
    /// The time column.
    pub time: String,
    /// Whether a row's time is the start or the end of its slot.
    pub time_marks: TimeMark,
    /// How often a series has a row, if it is a series.
    pub cadence: Option<Cadence>,
}

impl Table {
    /// A table in a folder of the same name, without partitions, key or cadence.
    pub fn new(name: impl Into<String>, format: Format, time: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            location: name.clone(),
            name,
            format,
            partition_by: Vec::new(),
            key: Vec::new(),
            time: time.into(),
            time_marks: TimeMark::Start,
            cadence: None,
        }
    }

    /// A table of Parquet files in a folder of the same name, without partitions, key or cadence.
    pub fn implicit(name: &str, time: &str) -> Self {
        Self::new(name, Format::Parquet, time)
    }

    /// Sets where its files are, if not in the folder of its name.
    #[must_use]
    pub fn with_location(mut self, location: impl Into<String>) -> Self {
        self.location = location.into();
        self
    }

    /// Sets the columns that identify a series.
    #[must_use]
    pub fn with_key<T: Into<String>>(mut self, columns: impl IntoIterator<Item = T>) -> Self {
        self.key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the column that partitions the files by time, and the unit of its values.
    #[must_use]
    pub fn with_partition(mut self, column: impl Into<String>, unit: PartitionUnit) -> Self {
        self.partition_by = vec![Partition { column: column.into(), unit }];
        self
    }

    /// Sets whether a row's time is the start or the end of its slot.
    #[must_use]
    pub fn with_time_marks(mut self, marks: TimeMark) -> Self {
        self.time_marks = marks;
        self
    }

    /// Sets how often a series has a row.
    #[must_use]
    pub fn with_cadence(mut self, cadence: Cadence) -> Self {
        self.cadence = Some(cadence);
        self
    }

    /// The slots of its series.
    ///
    /// # Errors
    /// `invalid` if the table has no cadence.
    pub fn grid(&self) -> Result<SlotGrid> {
        let cadence = self.cadence.ok_or_else(|| {
            Error::invalid(format!("table `{}` has no `cadence`, so its expected rows are unknown; add one, e.g. `cadence: 1m`", self.name))
        })?;
        Ok(SlotGrid { cadence, marks: self.time_marks })
    }
}
