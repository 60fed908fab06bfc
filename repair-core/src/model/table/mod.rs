//! Tables of the lake, as a workflow declares them.

mod identity;
mod path;
mod rows;
mod text;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::identity::Identity;
pub use self::path::{PathFacts, PathField, PathPattern, PathPiece};
pub use self::rows::Rows;
pub use self::text::{BadRowLimit, ColumnRule, ColumnType, Csv, Encoding, OnBadRow};
pub use self::time::{DateParts, EpochUnit, Repeated, Skipped, TimeForm, TimeReading};
use crate::error::{Error, Result};
use crate::model::{Cadence, ExpectedKeys, SlotGrid, SlotRule, TimeMark, Zone};

/// How a table's files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Separated values, one record on each line.
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
            Self::Csv => &["csv", "tsv", "psv", "txt", "dat"],
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

impl PartitionUnit {
    /// Its length, at most, in seconds.
    pub fn seconds(self) -> i64 {
        match self {
            Self::Year => 366 * 86_400,
            Self::Month => 31 * 86_400,
            Self::Day => 86_400,
            Self::Hour => 3_600,
        }
    }
}

/// A Hive partition column that is a unit of the table's time column, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The column, as in a folder named `column=value`.
    pub column: String,
    /// The unit of time that its values name.
    pub unit: PartitionUnit,
}

/// How far from its folder a row may be and still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Slack {
    /// In the folder before or after, as by a clock that is a little wrong; in a table whose key identifies a row, also within the lookback.
    #[default]
    OneFolder,
    /// So many seconds.
    Seconds(u32),
}

/// Folders that say which time, and perhaps which keys, their files hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layout {
    /// The names of folders below the table's location, and perhaps of the file.
    pub path: PathPattern,
    /// The zone of the times in them.
    #[serde(default)]
    pub zone: Zone,
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
/// assert_eq!(bars.grid()?.cadence().seconds(), 60);
/// # Ok::<(), repair_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    /// The name that steps use.
    pub name: String,
    /// Where its files are: a folder, a file or a glob, absolute or relative to the lake's root.
    pub location: String,
    /// The format of its files.
    pub format: Format,
    /// Files that are not data: globs of their names, or of their paths below the location.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// How its files are written, if they are CSV.
    #[serde(default, skip_serializing_if = "Csv::is_plain")]
    pub csv: Csv,
    /// Words that mean, in any column of text, that there is no value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nulls: Vec<String>,
    /// What is declared about columns, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, ColumnRule>,
    /// What happens to rows that cannot be read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_bad_row: OnBadRow,
    /// How its repairs are partitioned by time, and its files too, unless `layout` says otherwise; at most one column.
    pub partition_by: Vec<Partition>,
    /// How its folders carry time and keys, if not by one Hive column of a time in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// How far from its folder a row may be and still be used.
    #[serde(default, skip_serializing_if = "is_default")]
    pub slack: Slack,
    /// The columns that identify a series; none if the table is one series.
    pub key: Vec<String>,
    /// Its keys that are expected, unless a step says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<ExpectedKeys>,
    /// The name of the time column in batches.
    pub time: String,
    /// How times are read.
    #[serde(default, skip_serializing_if = "TimeReading::is_plain")]
    pub reading: TimeReading,
    /// What a day of the table is, if not a day of the zone of its times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// Whether a row's time is the start or the end of its slot.
    pub time_marks: TimeMark,
    /// How often a series has a row, if it is a series.
    pub cadence: Option<Cadence>,
    /// Where slots begin, how exact times are, and which cadences there were before.
    #[serde(default, skip_serializing_if = "SlotRule::is_plain")]
    pub slots: SlotRule,
    /// How many rows may have a time that is too far from that of their slot; [`Table::MISALIGNED`] if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misaligned: Option<BadRowLimit>,
    /// How many rows a slot holds where nothing is wrong.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rows: Rows,
    /// The columns that say which of several versions of a row is the latest, if its key identifies it: the next decides where one is equal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub version: Vec<String>,
    /// How far apart the versions of a row may lie in time, both ways, if its key identifies it; [`Table::LOOKBACK`] if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookback: Option<Duration>,
    /// How long after its end a slot may still be without its row. Younger slots are not expected yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles_after: Option<Duration>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A longer lookback would read a table as a whole for each day of it.
const MOST_LOOKBACK: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The column under which repairs are partitioned if the table's own folders do not have one Hive column.
const LAYOUT_COLUMN: &str = "repair_part";

impl Table {
    /// How many rows may be off the grid if a table does not say it: one in twenty.
    pub const MISALIGNED: BadRowLimit = BadRowLimit::PerMillion(50_000);

    /// How far apart the versions of a row may lie if a table does not say it: thirty days.
    pub const LOOKBACK: Duration = Duration::from_secs(30 * 86_400);

    /// The most columns that decide between versions.
    pub const MOST_VERSION_COLUMNS: usize = 4;

    /// A table in a folder of the same name, without partitions, key or cadence.
    pub fn new(name: impl Into<String>, format: Format, time: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            location: name.clone(),
            name,
            format,
            ignore: Vec::new(),
            csv: Csv::default(),
            nulls: Vec::new(),
            columns: BTreeMap::new(),
            on_bad_row: OnBadRow::Refuse,
            partition_by: Vec::new(),
            layout: None,
            slack: Slack::OneFolder,
            key: Vec::new(),
            keys: None,
            time: time.into(),
            reading: TimeReading::default(),
            zone: None,
            time_marks: TimeMark::Start,
            cadence: None,
            slots: SlotRule::default(),
            misaligned: None,
            rows: Rows::One,
            version: Vec::new(),
            lookback: None,
            settles_after: None,
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

    /// Sets which keys are expected, unless a step says otherwise.
    #[must_use]
    pub fn with_keys(mut self, keys: ExpectedKeys) -> Self {
        self.keys = Some(keys);
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

    /// Sets where slots begin, how exact times are, and which cadences there were before.
    #[must_use]
    pub fn with_slots(mut self, slots: SlotRule) -> Self {
        self.slots = slots;
        self
    }

    /// Sets how many rows may have a time that is too far from that of their slot.
    #[must_use]
    pub fn with_misaligned(mut self, limit: BadRowLimit) -> Self {
        self.misaligned = Some(limit);
        self
    }

    /// Sets how many rows a slot holds where nothing is wrong.
    #[must_use]
    pub fn with_rows(mut self, rows: Rows) -> Self {
        self.rows = rows;
        self
    }

    /// Sets the columns that say which of several versions of a row is the latest, in a table whose key identifies a row.
    #[must_use]
    pub fn with_version<T: Into<String>>(mut self, columns: impl IntoIterator<Item = T>) -> Self {
        self.version = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how far apart the versions of a row may lie in time, both ways, in a table whose key identifies a row.
    #[must_use]
    pub fn with_lookback(mut self, lookback: Duration) -> Self {
        self.lookback = Some(lookback);
        self
    }

    /// Sets how long after its end a slot may still be without its row.
    #[must_use]
    pub fn with_settling(mut self, settles_after: Duration) -> Self {
        self.settles_after = Some(settles_after);
        self
    }

    /// Leaves out files that are not data, by globs.
    #[must_use]
    pub fn with_ignored<T: Into<String>>(mut self, globs: impl IntoIterator<Item = T>) -> Self {
        self.ignore = globs.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how its CSV files are written.
    #[must_use]
    pub fn with_csv(mut self, csv: Csv) -> Self {
        self.csv = csv;
        self
    }

    /// Sets the words that mean that there is no value.
    #[must_use]
    pub fn with_nulls<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.nulls = words.into_iter().map(Into::into).collect();
        self
    }

    /// Declares a column.
    #[must_use]
    pub fn with_column(mut self, name: impl Into<String>, rule: ColumnRule) -> Self {
        self.columns.insert(name.into(), rule);
        self
    }

    /// Sets what happens to rows that cannot be read.
    #[must_use]
    pub fn with_bad_rows(mut self, on_bad_row: OnBadRow) -> Self {
        self.on_bad_row = on_bad_row;
        self
    }

    /// Sets how its folders carry time and keys. Its repairs are then partitioned by the same unit of time, under a column of ours.
    #[must_use]
    pub fn with_layout(mut self, path: PathPattern, zone: Zone) -> Self {
        self.partition_by = path.unit().map(|unit| Partition { column: LAYOUT_COLUMN.to_owned(), unit }).into_iter().collect();
        self.layout = Some(Layout { path, zone });
        self
    }

    /// Sets how far from its folder a row may be and still be used.
    #[must_use]
    pub fn with_slack(mut self, slack: Slack) -> Self {
        self.slack = slack;
        self
    }

    /// Sets how times are read.
    #[must_use]
    pub fn with_time(mut self, reading: TimeReading) -> Self {
        self.reading = reading;
        self
    }

    /// Sets what a day of the table is.
    #[must_use]
    pub fn with_zone(mut self, zone: Zone) -> Self {
        self.zone = Some(zone);
        self
    }

    /// The zone of its days: its own, or that of its times, or UTC.
    pub fn day_zone(&self) -> Zone {
        self.zone.clone().or_else(|| self.reading.zone.clone()).unwrap_or_default()
    }

    /// The zone in which a date without a time of day begins, where such a date is a time: that of its days. In a table with slots of less than a
    /// day, it is that of its times.
    pub fn date_zone(&self) -> Zone {
        if self.cadence.is_none_or(Cadence::is_days) { self.day_zone() } else { self.reading.zone.clone().unwrap_or_default() }
    }

    /// Whether a date without a time of day is the time of a row: in tables of days and longer, in those without a cadence, and where the only column of the
    /// time is named for it.
    pub fn takes_dates(&self) -> bool {
        self.cadence.is_none_or(Cadence::is_days) || self.reading.columns.len() == 1
    }

    /// Which parts of a date are a time: in a table of months, a month is one, and in a table of years, a year.
    pub fn date_parts(&self) -> DateParts {
        match self.cadence.and_then(Cadence::months) {
            Some(12) => DateParts::Year,
            Some(_) => DateParts::Month,
            None => DateParts::Day,
        }
    }

    /// The same table as its repairs are stored: Parquet files of ours, with times in UTC.
    #[must_use]
    pub fn of_repairs(&self) -> Self {
        Self {
            name: self.name.clone(),
            location: self.location.clone(),
            partition_by: self.partition_by.clone(),
            key: self.key.clone(),
            time: self.time.clone(),
            time_marks: self.time_marks,
            cadence: self.cadence,
            slots: self.slots.clone(),
            zone: Some(self.day_zone()).filter(|zone| !zone.is_utc()),
            rows: if self.rows == Rows::Unique { Rows::Unique } else { Rows::One },
            lookback: self.lookback,
            ..Self::implicit(&self.name, &self.time)
        }
    }

    /// The words that mean, in a column, that there is no value.
    pub fn nulls_of<'a>(&'a self, column: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let own = self.rule(column).map(|rule| rule.nulls.as_slice()).unwrap_or_default();
        self.nulls.iter().chain(own).map(String::as_str)
    }

    /// The declared type of a column.
    pub fn type_of(&self, column: &str) -> Option<ColumnType> {
        self.rule(column).and_then(|rule| rule.kind)
    }

    /// What is declared about a column. If nothing is under this name, but under one that differs only in case, that is meant: an engine
    /// may keep all names in lower case.
    pub fn rule(&self, column: &str) -> Option<&ColumnRule> {
        self.columns.get(column).or_else(|| {
            let mut others = self.columns.iter().filter(|(name, _)| name.eq_ignore_ascii_case(column));
            others.next().filter(|_| others.next().is_none()).map(|(_, rule)| rule)
        })
    }

    /// The names of all columns, if they are declared: those of a table whose files do not name them.
    pub fn declared_columns(&self) -> Option<Vec<&str>> {
        if self.csv.names.is_empty() || self.layout.is_some() {
            return None;
        }
        let partitions = self.partition_by.iter().map(|by| by.column.as_str());
        let all = self.csv.names.iter().map(String::as_str).chain(self.key.iter().map(String::as_str)).chain([self.time.as_str()]);
        let mut known = BTreeSet::new();
        let all = all.chain(self.columns.keys().map(String::as_str)).chain(partitions);
        Some(all.filter(|name| known.insert(name.to_lowercase())).collect())
    }

    /// The columns of the files that hold the time; none if the path does.
    pub fn time_columns(&self) -> Vec<&str> {
        match &self.reading.form {
            TimeForm::Path(_) => Vec::new(),
            _ if self.reading.columns.is_empty() => vec![self.time.as_str()],
            _ => self.reading.columns.iter().map(String::as_str).collect(),
        }
    }

    /// Checks that its settings do not contradict each other.
    ///
    /// # Errors
    /// `invalid` with the contradiction.
    pub fn check(&self) -> Result<()> {
        self.csv.check()?;
        self.reading.check()?;
        if let (Some(parts), TimeForm::Pattern(pattern)) = (self.reading.date_parts(), &self.reading.form)
            && parts < self.date_parts()
        {
            let (lacks, cadence) = if parts == DateParts::Year { ("month", "1y") } else { ("day", "1mo") };
            let rows = self.cadence.map(|cadence| format!(", and table `{}` has a row every {cadence}", self.name)).unwrap_or_default();
            return Err(Error::invalid(format!(
                "`{pattern}` has no {lacks}{rows}; add the parts that are missing, or say `cadence: {cadence}` if there is one row for each"
            )));
        }
        if let (Some(cadence), TimeForm::Pattern(pattern)) = (self.cadence, &self.reading.form)
            && !cadence.is_days()
            && !self.reading.has_time_of_day()
        {
            return Err(Error::invalid(format!(
                "`{pattern}` has no time of day, and table `{}` has a row every {cadence}; add the parts that are missing, e.g. %H, and the column that holds them, or \
                 say `cadence: 1d` if there is one row for each day",
                self.name
            )));
        }
        if !self.csv.is_plain() && self.format != Format::Csv {
            return Err(Error::invalid(format!("`csv` describes CSV files, and the format is {}", self.format.as_str())));
        }
        for glob in &self.ignore {
            glob::Pattern::new(glob).map_err(|error| Error::invalid(format!("`{glob}` under `ignore` is not a glob: {error}")))?;
        }
        if let Some(keys) = &self.keys {
            keys.check(&self.name, &self.key)?;
        }
        if self.settles_after.is_some() && self.cadence.is_none() {
            return Err(Error::invalid(
                "`settles_after` says when a slot is expected, and a table without a `cadence` has no slots; add one",
            ));
        }
        self.check_unique()?;
        if self.rows == Rows::Many && self.cadence.is_none() {
            return Err(Error::invalid(
                "`rows: many` says how many rows a slot holds, and a table without a `cadence` has no slots; add one, or remove `rows`",
            ));
        }
        match self.cadence {
            Some(cadence) => self.slots.check(cadence)?,
            None if !self.slots.is_plain() => return Err(Error::invalid("where slots begin is given, but no `cadence`; add one")),
            None => {}
        }
        if let (Some(at), Repeated::Later, true) = (self.slots.at, self.reading.repeated, self.cadence.is_some_and(Cadence::is_days))
            && !at.whole_days()
            && self.day_zone().repeats(at.time_s())
        {
            return Err(Error::invalid(format!(
                "slots begin at `{at}`, which comes twice when the clock goes back, and then they begin with the first of the two; with `repeated: later`, the                  row of that day would not be in its slot; write `repeated: earlier`"
            )));
        }
        if let Some(layout) = &self.layout {
            if layout.path.finest().is_some_and(|finest| finest > PathField::Hour) {
                return Err(Error::invalid(format!("the finest part of `{}` under `partition_by` can be the hour, %H", layout.path)));
            }
            if let Some(other) = layout.path.keys().find(|column| !self.key.iter().any(|key| key == column)) {
                return Err(Error::invalid(format!("`{}` holds {{{other}}}, which is not among the columns of `key`", layout.path)));
            }
        }
        if let TimeForm::Path(path) = &self.reading.form {
            if path.finest().is_none() {
                return Err(Error::invalid(format!("`{path}` names no time; write e.g. `%Y-%m-%d`")));
            }
            if let Some(other) = path.keys().find(|column| !self.key.iter().any(|key| key == column)) {
                return Err(Error::invalid(format!("`{path}` holds {{{other}}}, which is not among the columns of `key`")));
            }
        }
        Ok(())
    }

    /// Checks what is said about rows whose key identifies them.
    fn check_unique(&self) -> Result<()> {
        if self.rows != Rows::Unique {
            let other = [("version", !self.version.is_empty()), ("lookback", self.lookback.is_some())];
            return match other.into_iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(Error::invalid(format!(
                    "`{name}` is about versions of rows with the same key, which only a table with `rows: unique` has; add it, or remove `{name}`"
                ))),
                None => Ok(()),
            };
        }
        if self.key.is_empty() {
            return Err(Error::invalid(
                "`rows: unique` says that the key identifies a row, and the table has no `key`; add it, e.g. `key: [id]`",
            ));
        }
        if self.cadence.is_some() {
            return Err(Error::invalid(
                "`rows: unique` says that the key alone identifies a row, and a `cadence` that a series has a row for each slot; remove one of them",
            ));
        }
        if self.keys.is_some() {
            return Err(Error::invalid(
                "`keys` says which series are expected, and the keys of a table with `rows: unique` are those of its rows; remove `keys`",
            ));
        }
        if self.version.len() > Self::MOST_VERSION_COLUMNS {
            return Err(Error::invalid(format!("`version` lists one column or several, up to {}", Self::MOST_VERSION_COLUMNS)));
        }
        if let Some(key) = self.version.iter().find(|column| self.key.contains(column)) {
            return Err(Error::invalid(format!(
                "`version` names `{key}`, which is the same in all versions of a row, because it is a column of `key`"
            )));
        }
        if self.lookback.is_some_and(|lookback| lookback.is_zero() || lookback > MOST_LOOKBACK) {
            return Err(Error::invalid("`lookback` must be longer than nothing, and at most ten years, e.g. `30d`"));
        }
        Ok(())
    }

    /// What makes two of its rows with the same key the same row.
    pub fn identity(&self) -> Identity {
        if self.rows == Rows::Unique {
            let lookback = self.lookback.unwrap_or(Self::LOOKBACK);
            return Identity::Key { lookback_us: i64::try_from(lookback.as_micros()).unwrap_or(i64::MAX) };
        }
        self.grid().map_or(Identity::Time, Identity::Slot)
    }

    /// Checks that it can be repaired: a repair is stored for a slot or a key, and a table without a cadence has no slots.
    ///
    /// # Errors
    /// `invalid` if it cannot.
    pub fn check_repairable(&self) -> Result<()> {
        if self.cadence.is_some() || self.rows == Rows::Unique {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "table `{}` has no `cadence`, so it cannot be repaired: a repair is stored for a slot, and without a cadence there are none; add a \
             cadence if it is a series, write `rows: unique` if its key identifies a row, or have its files delivered again",
            self.name
        )))
    }

    /// Checks that its slots hold one row each, where nothing is wrong, as `what` needs.
    ///
    /// # Errors
    /// `invalid` if they may hold several.
    pub fn check_one_row(&self, what: &str) -> Result<()> {
        match self.rows {
            Rows::One => Ok(()),
            Rows::Many => Err(Error::invalid(format!(
                "{what} needs a table with one row in each slot, and table `{}` has `rows: many`; aggregate it to one row per slot first, e.g. with \
                 `aggregate: sql`, or remove `rows: many` if a second row is a duplicate",
                self.name
            ))),
            Rows::Unique => Err(Error::invalid(format!(
                "{what} needs a series with slots, and table `{}` has `rows: unique`, which has none; such a table is for `arrivals`, `differs`, \
                 `duplicates`, `invalid`, `backfill`, `keep`, `set` and `aggregate: sql`; `differs` finds rows that only a source has, and `backfill` of what it \
                 finds adds them",
                self.name
            ))),
        }
    }

    /// Checks that one row can replace those that were found wrong: all rows of a slot, or all versions of a row.
    ///
    /// # Errors
    /// `invalid` if its slots may hold several rows.
    pub fn check_replaceable(&self, what: &str) -> Result<()> {
        if self.rows == Rows::Unique { Ok(()) } else { self.check_one_row(what) }
    }

    /// The slots of its series.
    ///
    /// # Errors
    /// `invalid` if the table has no cadence.
    pub fn grid(&self) -> Result<SlotGrid> {
        if self.rows == Rows::Unique {
            self.check_one_row("this")?;
        }
        let cadence = self.cadence.ok_or_else(|| {
            Error::invalid(format!("table `{}` has no `cadence`, so its expected rows are unknown; add one, e.g. `cadence: 1m`", self.name))
        })?;
        SlotGrid::with_rule(cadence, self.time_marks, &self.slots, &self.day_zone())
    }
}
