//! A table of the lake, as a workflow declares it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Cadence, SlotGrid, TimeMark};

/// How a table's files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl Format {
    /// The file endings of the format.
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
    /// `2024`
    Year,
    /// `2024-03`
    Month,
    /// `2024-03-04`
    Day,
    /// `2024-03-04-09`
    Hour,
}

/// A Hive partition column that is a unit of the table's time column, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The column, as in `column=value` of a folder's name.
    pub column: String,
    /// What its value is.
    pub unit: PartitionUnit,
}

/// A table of the lake, as a workflow declares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    /// The name that steps use.
    pub name: String,
    /// Where its files are: a folder (or one file), relative to the lake's root, or absolute.
    pub location: String,
    /// How its files are written.
    pub format: Format,
    /// How its files are partitioned by time; at most one.
    pub partition_by: Vec<Partition>,
    /// The columns that identify a series; none if the table is one series.
    pub key: Vec<String>,
    /// The time column.
    pub time: String,
    /// Which end of a slot the time is.
    pub time_marks: TimeMark,
    /// How often a series has a row, if it is a series.
    pub cadence: Option<Cadence>,
}

impl Table {
    /// A table of this name in a folder of this name: Parquet, without partitions, key or cadence.
    pub fn implicit(name: &str, time: &str) -> Self {
        Self {
            name: name.to_owned(),
            location: name.to_owned(),
            format: Format::Parquet,
            partition_by: Vec::new(),
            key: Vec::new(),
            time: time.to_owned(),
            time_marks: TimeMark::Start,
            cadence: None,
        }
    }

    /// The slots of its series.
    ///
    /// # Errors
    /// `invalid` if the table has no cadence.
    pub fn grid(&self) -> Result<SlotGrid> {
        let cadence = self.cadence.ok_or_else(|| {
            Error::invalid(format!(
                "table `{}` has no `cadence`, so nothing says how many rows to expect; add one, e.g. `cadence: 1m`",
                self.name
            ))
        })?;
        Ok(SlotGrid { cadence, marks: self.time_marks })
    }
}
