//! First steps: looks at some files of a folder, guesses how to describe them, and writes a workflow that finds and repairs what is broken.
//!
//! Each guess has a value, a reason and a [`Sure`]: a workflow is a start, which a person reads and corrects. Nothing is written here, and only
//! some rows of some files are read. It must not know how a format is read; `repair_local::sample` does.
//!
//! ```
//! # fn main() -> repair::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let readings = folder.path().join("readings");
//! # std::fs::create_dir(&readings).unwrap();
//! # let rows = (0..24).filter(|hour| *hour != 7).map(|hour| format!("2024-03-04T{hour:02}:00:00Z;{hour},5\n")).collect::<String>();
//! # std::fs::write(readings.join("a.csv"), format!("at;kwh\n{rows}")).unwrap();
//! let found = repair::first_steps::Look::at(&readings).now()?;
//! assert_eq!(found.guess("delimiter").map(|guess| guess.value.as_str()), Some(";"));
//! assert_eq!(found.guess("cadence").map(|guess| guess.value.as_str()), Some("1h"));
//! assert!(found.workflow.contains("cadence: 1h"));
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "aws")]
mod bucket;
mod dialect;
mod folders;
mod series;
mod times;
mod values;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use repair_core::engine::JsonFormat;
use repair_core::model::{Csv, Format, TimeForm, Zone};
use repair_core::text::visible;
use repair_core::workflow::Workflow;
use repair_core::{Error, Result};
use repair_local::sample::{Head, Sample, SampledRows, Stamp};
use serde::Serialize;

use self::series::{CadenceGuess, CalendarGuess, Doubled};
use self::times::{TimeGuess, ZoneGuess};
use self::values::{Column, Sentinel};

/// How sure a guess is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Sure {
    /// All that was seen says so.
    #[serde(rename = "sure")]
    Sure,
    /// Most of what was seen says so.
    #[serde(rename = "likely")]
    Likely,
    /// Something had to be written; look at it.
    #[serde(rename = "a guess")]
    Guess,
}

impl Sure {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sure => "sure",
            Self::Likely => "likely",
            Self::Guess => "a guess",
        }
    }
}

/// One thing that was guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Guess {
    /// What it is about, such as `cadence`.
    pub what: String,
    /// What was guessed.
    pub value: String,
    /// Why.
    pub why: String,
    /// How sure it is.
    pub sure: Sure,
}

impl Guess {
    fn new(what: &str, value: impl AsRef<str>, why: impl AsRef<str>, sure: Sure) -> Self {
        let seen = |text: &str| visible(text).into_owned();
        Self { what: what.to_owned(), value: seen(value.as_ref()), why: seen(why.as_ref()), sure }
    }
}

/// What was guessed, and the workflow that follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FirstSteps {
    /// The version of this format.
    pub format: JsonFormat,
    /// The name of the table.
    pub table: String,
    /// The folder of the lake, in which the table's folder is.
    pub lake: String,
    /// How many files the folder has.
    pub files: usize,
    /// How many of them were looked at.
    pub files_read: usize,
    /// How many rows were looked at.
    pub rows_read: usize,
    /// What was listed and read in S3, for a table that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectsRead>,
    /// The guesses.
    pub guesses: Vec<Guess>,
    /// The text of the workflow.
    pub workflow: String,
}

impl FirstSteps {
    /// The first guess about something.
    pub fn guess(&self, what: &str) -> Option<&Guess> {
        self.guesses.iter().find(|guess| guess.what == what)
    }
}

/// What a look at objects in S3 took. None of it is written anywhere but to a temporary folder, which is gone afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ObjectsRead {
    /// How many objects were listed.
    pub listed: u64,
    /// Whether there are more of them, which were not listed.
    pub are_more: bool,
    /// How many were read.
    pub read: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// Whether all of them were read, as a whole.
    pub is_whole: bool,
}

/// Where a table in S3 is, which was copied to a folder here.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "without AWS there is no such table"))]
struct InS3 {
    /// The place around that of the table.
    lake: String,
    objects: ObjectsRead,
    database: String,
    workgroup: String,
}

/// A request to look at a folder.
#[derive(Debug, Clone)]
#[must_use = "nothing is looked at before `now`"]
pub struct Look {
    folder: PathBuf,
    table: Option<String>,
    source: Option<PathBuf>,
    #[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "it is for a table in S3"))]
    database: Option<String>,
    #[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "it is for a table in S3"))]
    workgroup: Option<String>,
}

/// All that the workflow is written from.
struct Picture {
    table: String,
    lake: String,
    /// The database and the workgroup, for a table in S3.
    athena: Option<(String, String)>,
    location: String,
    format: Format,
    ignore: Vec<String>,
    csv: Csv,
    /// The columns that are within records, and the path of each.
    nested: Vec<(String, String)>,
    nulls: Vec<String>,
    quarantine: Option<u32>,
    key: Vec<String>,
    keys: Vec<Vec<String>>,
    time: TimeGuess,
    zone: Option<ZoneGuess>,
    is_typed: bool,
    cadence: Option<CadenceGuess>,
    calendar: CalendarGuess,
    partition: Option<String>,
    days: (jiff::civil::Date, jiff::civil::Date),
    numbers: Vec<String>,
    doubled: Option<Doubled>,
    version: Vec<String>,
    sentinels: Vec<Sentinel>,
    source: Option<(String, Format)>,
    identity: Option<String>,
}

/// A name that workflows take, from that of a folder.
fn as_name(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).take(48).collect();
    if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        name.insert(0, '_');
    }
    name
}

/// The folder in which a folder is, and its name in it.
fn within(folder: &Path) -> Result<(String, String)> {
    let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let not_named =
        || Error::invalid("the folder has no folder around it to keep repairs in; move it into one").on("folder", folder.display());
    let name = absolute.file_name().and_then(|name| name.to_str()).ok_or_else(not_named)?;
    // As it was written, where that says which folder is around it.
    let written = folder.file_name().and_then(|name| name.to_str()) == Some(name);
    let lake = match folder.parent() {
        Some(parent) if written && parent.as_os_str().is_empty() => ".".to_owned(),
        Some(parent) if written => parent.display().to_string(),
        _ => absolute.parent().ok_or_else(not_named)?.display().to_string(),
    };
    Ok((lake, name.to_owned()))
}

/// The columns of all rows, in the order of the files; a column that a file lacks has no values there.
fn together(rows: Vec<(SampledRows, Vec<(String, String)>)>) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let mut before = 0;
    for (mut rows, in_path) in rows {
        let length = rows.columns.first().map_or(0, Vec::len);
        for (name, value) in in_path {
            if !rows.names.contains(&name) {
                rows.names.push(name);
                rows.nested.push(false);
                rows.kinds.push(None);
                rows.columns.push(vec![Some(value); length]);
            }
        }
        for (((name, nested), kind), values) in rows.names.into_iter().zip(rows.nested).zip(rows.kinds).zip(rows.columns) {
            let path = nested.then(|| name.clone());
            let at = columns.iter().position(|column| column.name == name && column.path == path).unwrap_or_else(|| {
                columns.push(Column { name, path, kind: kind.clone(), values: vec![None; before] });
                columns.len() - 1
            });
            columns[at].values.extend(values);
        }
        before += length;
        columns.iter_mut().for_each(|column| column.values.resize(before, None));
    }
    name_nested(&mut columns);
    columns
}

/// Gives each column within a record a name of its own: its last, or all of its path where another column is called so.
fn name_nested(columns: &mut [Column]) {
    let mut taken: BTreeSet<String> =
        columns.iter().filter(|column| column.path.is_none()).map(|column| column.name.to_lowercase()).collect();
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for path in columns.iter().filter_map(|column| column.path.as_deref()) {
        *times.entry(last(path).to_lowercase()).or_default() += 1;
    }
    for column in columns {
        let Some(path) = column.path.as_deref() else { continue };
        let (short, whole) = (last(path), path.replace('.', "_"));
        let is_only = times.get(&short.to_lowercase()) == Some(&1);
        let numbered = (2..).map(|nth| format!("{whole}_{nth}"));
        let mut names = is_only.then_some(short).into_iter().chain([whole.clone()]).chain(numbered);
        column.name = names.find(|name| taken.insert(name.to_lowercase())).unwrap_or_default();
    }
}

impl Look {
    /// Looks at the files of this folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), table: None, source: None, database: None, workgroup: None }
    }

    /// Gives the table this name, instead of that of the folder.
    pub fn table(mut self, name: impl Into<Option<String>>) -> Self {
        self.table = name.into();
        self
    }

    /// Fills gaps from the files of this folder, such as a vendor's.
    pub fn source(mut self, folder: impl Into<Option<PathBuf>>) -> Self {
        self.source = folder.into();
        self
    }

    /// Names the database that has the table, for a table in S3. Without it, `default` is written, for a person to correct.
    pub fn database(mut self, name: impl Into<Option<String>>) -> Self {
        self.database = name.into();
        self
    }

    /// Names the workgroup in which queries run, for a table in S3. Without it, `primary` is written, for a person to correct.
    pub fn workgroup(mut self, name: impl Into<Option<String>>) -> Self {
        self.workgroup = name.into();
        self
    }

    /// Looks, and guesses, also at a table in S3 such as `s3://bucket/lake/bars`, with the feature `aws`: at most 20,000 objects are listed, and at most 64 MB of
    /// at most 20 of them are read.
    ///
    /// # Errors
    /// As [`Look::now`]; those of S3.
    #[cfg(feature = "aws")]
    pub async fn anywhere(self) -> Result<FirstSteps> {
        if bucket::is_place(&self.folder) { bucket::look(self).await } else { self.now() }
    }

    /// Looks, and guesses.
    ///
    /// # Errors
    /// `invalid` if the folder or the source is a place in S3;
    /// `not-found` if there is no folder, or no file with rows in it; `invalid` if its files have several formats, or nothing can be guessed about
    /// its times; `blind` if it is a table of Delta Lake, Apache Hudi or Apache Iceberg.
    pub fn now(self) -> Result<FirstSteps> {
        self.of(None)
    }

    /// Looks at a folder, or at the copy of a table in S3.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a clamped share")]
    fn of(self, in_s3: Option<InS3>) -> Result<FirstSteps> {
        on_this_machine(&self.folder)?;
        self.source.as_deref().map_or(Ok(()), on_this_machine)?;
        let named = |error: Error| error.on("folder", self.folder.display());
        let sample = Sample::open(&self.folder)?;
        let mut guesses = Vec::new();
        let (mut lake, location) = within(&self.folder)?;
        if let Some(in_s3) = &in_s3 {
            lake.clone_from(&in_s3.lake);
        }
        let files = sample.paths().count();
        let format = sample.format();
        let which = if files == 1 { "its one file is of it".to_owned() } else { format!("all {files} files are of it") };
        guesses.push(Guess::new("format", format.as_str(), which, Sure::Sure));
        for glob in sample.ignore() {
            guesses.push(Guess::new(
                "ignore",
                glob,
                "files of this name are not of the format; rename them if they hold rows",
                Sure::Likely,
            ));
        }
        let mut csv = Csv::default();
        if format != Format::Parquet {
            let heads: Vec<Head> = (0..sample.files()).map(|nth| sample.head(nth)).collect::<Result<_>>()?;
            if format == Format::Csv {
                csv = dialect::guess(&heads, &mut guesses);
            }
        }
        let mut rows = Vec::with_capacity(sample.files());
        let (mut odd, mut is_whole) = (0, sample.files() == files && in_s3.as_ref().is_none_or(|in_s3| in_s3.objects.is_whole));
        for nth in 0..sample.files() {
            let of_file = sample.rows(nth, &csv)?;
            odd += of_file.odd;
            is_whole &= of_file.is_whole;
            rows.push((of_file, sample.path_values(nth).to_vec()));
        }
        let columns = together(rows);
        let rows_read = columns.first().map_or(0, |column| column.values.len());
        if rows_read == 0 {
            return Err(named(Error::invalid(
                "no row could be read; look at the first lines of a file, and describe it by hand (see docs/workflows/your-own-tables.md)",
            )));
        }
        let is_text = format != Format::Parquet;
        if format == Format::Csv {
            dialect::marks(&mut csv, &columns, &mut guesses);
        }
        let day_first = csv.decimal == ',' || csv.delimiter == ';';
        let Some(time) = times::guess(&columns, day_first, &mut guesses) else {
            let names: Vec<String> = columns.iter().map(|column| format!("`{}`", visible(&column.name))).collect();
            return Err(named(Error::invalid(format!(
                "no column holds times that are understood: {}; write the table by hand, with `time` as in docs/workflows/your-own-tables.md",
                names.join(", ")
            ))));
        };
        let nulls = values::nulls(&csv, &columns, &mut guesses);
        let is_typed = columns.iter().any(|column| time.columns.contains(&column.name) && column.is_time());
        let bad = time.stamps.iter().filter(|stamp| stamp.is_none()).count();
        let others: Vec<&Column> = columns.iter().filter(|column| !time.columns.contains(&column.name)).collect();
        let is_number = |column: &Column| column.numbers(&csv).is_some();
        let local: Vec<Option<i64>> = time.stamps.iter().map(|stamp| stamp.map(times::local_us)).collect();
        let key = series::key(&others, &local, &is_number, &mut guesses);
        let key_of = |row: usize| series::joined(&key, row);
        let mut zone = if is_typed && !time.stamps.iter().flatten().any(|stamp| matches!(stamp, Stamp::Local(_))) {
            None
        } else {
            times::zone(&time.stamps, &key_of, &mut guesses)
        };
        let instants = times::instants(&time, zone.as_mut(), &key_of);
        let of_times = zone.as_ref().map_or_else(Zone::utc, |zone| zone.zone.clone());
        let cadence = series::cadence(&instants, &of_times, &key_of, &mut guesses);
        // A table of days keeps its dates.
        let is_dates = time.stamps.iter().flatten().all(|stamp| matches!(stamp, Stamp::Date(_)));
        if is_dates && cadence.as_ref().is_some_and(|cadence| cadence.seconds < 86_400) {
            return Err(named(Error::invalid(
                "the times are dates without a time of day, in a table with several rows a day and no key that separates them; write the table by hand, with `rows: many`",
            )));
        }
        let names: Vec<String> = key.iter().map(|column| column.name.clone()).collect();
        let paths: Vec<&[String]> = sample.paths().collect();
        let partition = folders::guess(&paths, &names, &mut guesses).filter(|_| !is_dates || is_text || is_typed);
        let days_zone = cadence.as_ref().and_then(|cadence| cadence.zone.clone()).unwrap_or_else(|| of_times.clone());
        // Where times are the ends of slots, their beginnings say in which day and hour they are.
        let slot_us = cadence.as_ref().filter(|_| time.is_end).map_or(0, |cadence| cadence.seconds * 1_000_000);
        let begins: Vec<Option<i64>> = instants.iter().map(|at| at.map(|us| us - slot_us)).collect();
        let Some(days) = series::days_seen(&begins, &days_zone) else {
            return Err(named(Error::invalid("no time could be read")));
        };
        let sure = if is_whole { Sure::Sure } else { Sure::Likely };
        let which = if is_whole { "all rows were looked at" } else { "of the rows that were looked at; there may be more" };
        guesses.push(Guess::new("from, to", format!("{}, {}", days.0, days.1), format!("the first and the last day: {which}"), sure));
        let bad_rows = odd + bad;
        let quarantine = (bad_rows > 0).then(|| {
            let share = bad_rows as f64 / (rows_read + odd).max(1) as f64;
            let percent = (share * 200.0).ceil().clamp(1.0, 50.0) as u32;
            let why = format!("{bad_rows} of {} rows cannot be read: their time is none, or they have too few fields", rows_read + odd);
            guesses.push(Guess::new("on_bad_row", format!("quarantine: {percent}%"), why, Sure::Guess));
            percent
        });
        let numbers: Vec<&Column> = others.iter().copied().filter(|column| is_number(column) && !names.contains(&column.name)).collect();
        let mut keys: Vec<Vec<String>> = Vec::new();
        let mut picture = Picture {
            table: as_name(self.table.as_deref().unwrap_or(&location)),
            lake,
            athena: in_s3.as_ref().map(|in_s3| (in_s3.database.clone(), in_s3.workgroup.clone())),
            location,
            format,
            ignore: sample.ignore().to_vec(),
            csv: csv.clone(),
            nested: columns.iter().filter_map(|column| Some((column.name.clone(), column.path.clone()?))).collect(),
            nulls,
            quarantine,
            key: names.clone(),
            keys: Vec::new(),
            time: time.clone(),
            zone: zone.clone(),
            is_typed,
            cadence: cadence.clone(),
            calendar: CalendarGuess::Always,
            partition,
            days,
            numbers: numbers.iter().map(|column| column.name.clone()).collect(),
            doubled: None,
            version: others.iter().filter(|column| series::is_version(&column.name)).map(|column| column.name.clone()).collect(),
            sentinels: Vec::new(),
            source: None,
            identity: None,
        };
        if let Some(cadence) = &cadence {
            picture.calendar = series::calendar(&begins, cadence, &of_times, &mut guesses);
            picture.doubled = series::doubled(&columns, &instants, &key_of);
            if let Some(doubled) = picture.doubled.filter(|doubled| !doubled.are_same && 4 * doubled.rows > rows_read) {
                return Err(named(Error::invalid(format!(
                    "{} of {rows_read} rows have the time of another one of their series and differ from it, and no column was found that separates them. A rule that keeps one of \
                     them would lose rows; write the table by hand, with all columns of its `key`, or with `rows: many`",
                    doubled.rows
                ))));
            }
            if let Some(doubled) = picture.doubled {
                let same = if doubled.are_same { "and the rest is the same" } else { "and the rest differs" };
                let why = format!("{} of {rows_read} rows: the time is that of another one of their series, {same}", doubled.rows);
                guesses.push(Guess::new(
                    "duplicates",
                    write::keep_of(&picture, doubled),
                    why,
                    if doubled.are_same { Sure::Sure } else { Sure::Guess },
                ));
            }
            picture.sentinels = values::sentinels(&csv, &numbers, &mut guesses);
            let mut seen = BTreeSet::new();
            for row in 0..rows_read {
                if !key.is_empty() && key.iter().all(|column| column.at(row).is_some()) {
                    seen.insert(key.iter().filter_map(|column| column.at(row)).map(str::to_owned).collect::<Vec<_>>());
                }
            }
            keys.extend(seen);
            picture.keys = keys;
        } else {
            let Some(identity) = series::identity(&others) else {
                let examples: Vec<String> = columns.iter().map(|column| format!("`{}`", visible(&column.name))).collect();
                return Err(named(Error::invalid(format!(
                    "no cadence can be guessed, since no distance between the times of a series is frequent, and no column identifies a row; of the \
                     columns {}, write which identify a series (`key` and `cadence`) or a row (`key` with `rows: unique`), as in \
                     docs/workflows/tables.md",
                    examples.join(", ")
                ))));
            };
            guesses.retain(|guess| guess.what != "key");
            guesses.push(Guess::new("key", &identity.name, "its values are unique, or nearly so, and no cadence was found", Sure::Guess));
            guesses.push(Guess::new("rows", "unique", "rows come when they come, and each is identified by the key", Sure::Guess));
            if identity.distinct() < rows_read {
                picture.doubled = Some(Doubled { rows: rows_read - identity.distinct(), are_same: false });
            }
            picture.identity = Some(identity.name.clone());
        }
        if let Some(folder) = &self.source {
            let of_source = Sample::open(folder)?;
            let path = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let root = Path::new(&picture.lake).canonicalize().unwrap_or_default();
            let place = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            picture.source = Some((place, of_source.format()));
        }
        let text = write::workflow(&picture, &guesses);
        // What is written must be accepted: it is checked as any workflow is.
        Workflow::parse("the workflow that was written", &text, &crate::registry()).map_err(|mistakes| {
            Error::internal("the guesses do not make a workflow; write it by hand, and report this").because(Error::from(mistakes))
        })?;
        Ok(FirstSteps {
            format: JsonFormat,
            table: picture.table,
            lake: picture.lake,
            files,
            files_read: sample.files(),
            rows_read,
            objects: in_s3.map(|in_s3| in_s3.objects),
            guesses,
            workflow: text,
        })
    }
}

/// The zone that times without one are in, as a table writes it; `None` if it need not be written.
fn zone_to_write(picture: &Picture) -> Option<&Zone> {
    let zone = picture.zone.as_ref()?;
    // Parquet's times without a zone are in UTC, unless the table says otherwise.
    (!(picture.is_typed && zone.zone.is_utc())).then_some(&zone.zone)
}

/// Whether the time column is written as it is.
fn is_plain_time(picture: &Picture) -> bool {
    picture.time.columns.len() == 1 && (picture.is_typed || picture.time.form == TimeForm::Iso) && zone_to_write(picture).is_none()
}

/// Refuses a place that is not on this machine.
fn on_this_machine(folder: &Path) -> Result<()> {
    let text = folder.to_string_lossy();
    let Some((scheme, _)) =
        text.split_once(":/").filter(|(scheme, _)| scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric()))
    else {
        return Ok(());
    };
    Err(Error::invalid(format!(
        "`{text}` is not a folder of this machine ({scheme}), and first steps look at files here; copy a few files of the table into a folder of the \
         table's name, in the same subfolders, look at that folder, and give the workflow a profile for the lake (see docs/aws.md): what is guessed holds \
         there too, and the table's `location` is then relative to the lake's"
    )))
}
