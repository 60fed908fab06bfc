//! What is sent to Athena: all SQL of this crate is printed here, from values. No I/O.
//!
//! The dialect is Trino's, except that statements which create tables and partitions use Hive's, as Athena requires. These rules hold
//! throughout:
//! - Times are whole numbers of milliseconds since 1970, which is what Athena keeps of a timestamp, so nothing is rounded.
//! - Division of whole numbers rounds towards zero, so the dividend is first made positive, by counting from a base before all rows.
//! - Our names begin with `repair_`, as in the overlay, to avoid a user's columns.
//! - How a table's text, times and folders are read concerns its own rows only: the overlay has timestamps and types of its own.

pub(crate) mod cells;
mod folders;
mod regex;
mod slots;
mod time;
pub(crate) mod values;
mod versions;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use repair_core::lake::Layer;
use repair_core::lake::overlay::retraction::{Kind as RetractedKind, Part};
use repair_core::lake::overlay::{self, Op, columns};
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::lake::rollup::{Function, Rollup};
use repair_core::model::{
    Format, Key, MAX_EXAMPLES, OnBadRow, PartitionUnit, PathPattern, PathPiece, SlotGrid, SlotRange, Table, TimeForm, Zone,
};
use repair_core::{Error, Result};

use self::folders::Folders;
use self::regex::Group;
use self::slots::Slots;
use self::time::{Clock, Doubt, Groups};
use crate::catalog::{Kind, Relation};

/// The longest statement that Athena accepts, in bytes: <https://docs.aws.amazon.com/athena/latest/ug/service-limits.html>.
pub(crate) const MAX_STATEMENT_BYTES: usize = 262_144;

/// Partitions that one statement adds.
pub(crate) const PARTITIONS_A_STATEMENT: usize = 100;

/// Microseconds in a millisecond.
pub(crate) const MILLI_US: i64 = 1_000;

/// A time before all rows, from which seconds are counted if nothing else bounds them: the start of the year 1.
const BEFORE_ALL_S: i64 = -62_135_596_800;

/// A name in a query.
pub(crate) fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A name in a statement of Hive's dialect.
fn hive_name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// The order of repairs: the newer counts; of two from the same instant, the one whose run, then unit, sorts last by name.
fn newest_first() -> String {
    [columns::AT, columns::RUN, columns::UNIT].map(|column| format!("{} DESC", name(column))).join(", ")
}

/// A string literal in a query.
pub(crate) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Whole milliseconds, rounded up; used for bounds, which lie between rows.
fn bound_ms(us: i64) -> i64 {
    us.div_euclid(MILLI_US) + i64::from(us.rem_euclid(MILLI_US) > 0)
}

/// An instant, rounded up to milliseconds.
fn instant(us: i64) -> String {
    let ms = bound_ms(us);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(if us < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX });
    format!("TIMESTAMP '{}'", jiff::tz::TimeZone::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S.%3f"))
}

/// How values are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As text that can be read back without loss, for a scan.
    Exact,
    /// As the table has them, for people who read the view.
    Native,
}

/// A table with what Athena knows about it, and about the tables beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) table: &'a Table,
    pub(crate) raw: &'a Relation,
    /// `None` if nothing has been repaired.
    pub(crate) repairs: Option<&'a Relation>,
    /// `None` if nothing has been confirmed absent.
    pub(crate) exceptions: Option<&'a Relation>,
    /// What is retracted of repairs and exceptions; `None` if nothing is.
    pub(crate) retracted: Option<&'a [Part]>,
}

/// The wanted rows and columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) bounds: TimeBounds,
    pub(crate) keys: Option<&'a [Key]>,
    /// The columns other than key and time, in order.
    pub(crate) columns: &'a [&'a str],
}

/// How the time of a table's own rows is read.
#[derive(Debug, Clone)]
enum Timing {
    /// A column that is an instant, or a date in UTC.
    Plain,
    /// Milliseconds on a clock, or since 1970 if there is none.
    Wall { wall: String, clock: Option<Zone>, doubt: Doubt },
    /// A whole number of milliseconds since 1970, once a column of the row is cut to it.
    Number { number: String, ms: String },
    /// A text with the groups of an expression.
    Text { text: String, pattern: String, groups: Vec<Group>, form: TextForm },
    /// The first instant of the row's folder.
    Folder,
}

/// What the groups of a text are.
#[derive(Debug, Clone)]
enum TextForm {
    /// A date, perhaps a time of day, perhaps an offset from UTC. Without an offset, the zone decides; without a zone, a date alone is in
    /// `date_zone` if `dates`.
    Calendar { clock: Option<Zone>, doubt: Doubt, dates: bool, date_zone: Zone, leap_second: bool },
    /// A number since 1970, with digits after its mark.
    Number { ms: String },
}

/// Rows of a table on their way to values, with `repair_ms`, `repair_far` (0 in the folder of their time, 1 near it, 2 farther away),
/// `repair_reason` (the column that cannot be read, `/` for the folder) and `repair_file`.
struct Prepared {
    sql: String,
}

impl<'a> Source<'a> {
    /// How the time of the table's own rows is read.
    ///
    /// # Errors
    /// `invalid` if Athena cannot read it like this.
    fn timing(&self) -> Result<Timing> {
        let (table, raw) = (self.table, self.raw);
        let reading = &table.reading;
        // A zone that shows UTC still says that times carry none.
        let clock = reading.zone.clone();
        let date_zone = table.date_zone();
        let doubt = Doubt::Table(reading.repeated, reading.skipped);
        if let TimeForm::Path(path) = &reading.form {
            let (pattern, groups) = regex::of_path(path);
            let clock = clock.unwrap_or_default();
            let date_zone = clock.clone();
            let form = TextForm::Calendar { clock: Some(clock), doubt: Doubt::Start, dates: true, date_zone, leap_second: false };
            return Ok(Timing::Text { text: raw.path().to_owned(), pattern, groups, form });
        }
        let columns = table.time_columns();
        let cells: Option<Vec<(&str, values::Cell)>> =
            columns.iter().map(|column| Some((*column, values::cell(table, raw, column)?))).collect();
        let Some(cells) = cells.filter(|_| !self.is_in_folders()) else {
            if self.is_in_folders() {
                return Ok(Timing::Folder);
            }
            let missing = columns.iter().find(|column| values::cell(table, raw, column).is_none()).copied().unwrap_or_default();
            return Err(Error::invalid(format!(
                "table `{}` has no time column `{missing}` in Athena; it has {}",
                table.name,
                crate::catalog::list(&raw.columns)
            )));
        };
        let words = |(column, cell): &(&str, values::Cell)| match cell.kind() {
            Kind::Text => values::words_removed(table, column, &cell.expression),
            _ => format!("CAST({} AS varchar)", cell.expression),
        };
        let refuse = |why: String| Err(Error::invalid(format!("time column `{}` of table `{}` {why}", columns.join("`, `"), table.name)));
        let only = match cells.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        let kind = only.map(|(_, cell)| cell.kind());
        // A date alone is a time in tables of days, and where the column was named for it.
        let dates = table.cadence.is_none_or(repair_core::model::Cadence::is_days);
        match (&reading.form, kind) {
            (TimeForm::Pattern(_) | TimeForm::Epoch(_), Some(Kind::Instant | Kind::Date)) => {
                refuse("is a timestamp or a date in Athena already; remove `format` or `epoch` under `time`".to_owned())
            }
            (TimeForm::Iso, Some(Kind::Instant)) if clock.as_ref().is_none_or(Zone::is_utc) => Ok(Timing::Plain),
            (TimeForm::Iso, Some(Kind::Date)) if date_zone.is_utc() => Ok(Timing::Plain),
            (TimeForm::Iso, Some(Kind::Instant)) => {
                let wall = only.map(|(_, cell)| milliseconds(&cell.expression)).unwrap_or_default();
                Ok(Timing::Wall { wall, clock, doubt })
            }
            (TimeForm::Iso, Some(Kind::Date)) => {
                let wall = only.map(|(_, cell)| milliseconds(&format!("CAST({} AS timestamp(3))", cell.expression))).unwrap_or_default();
                Ok(Timing::Wall { wall, clock: Some(date_zone), doubt: Doubt::Start })
            }
            (TimeForm::Epoch(units), Some(Kind::Whole)) => {
                let number = only.map(|(_, cell)| format!("CAST({} AS bigint)", cell.expression)).unwrap_or_default();
                Ok(Timing::Number { number, ms: time::of_epoch(units, "repair_number", None) })
            }
            (TimeForm::Epoch(units), Some(Kind::Text | Kind::Float | Kind::Decimal)) => {
                let text = only.map_or_else(String::new, |cell| match cell.1.kind() {
                    // Six digits are all that a float has behind the mark of seconds.
                    Kind::Float => format!("CAST(TRY_CAST({} AS decimal(38,6)) AS varchar)", cell.1.expression),
                    _ => words(cell),
                });
                let groups = vec![Group::Epoch, Group::Fraction];
                let ms = time::of_epoch(units, "TRY_CAST(repair_g1 AS bigint)", Some("repair_g2"));
                Ok(Timing::Text {
                    text,
                    pattern: "\\A(-?[0-9]{1,19})(?:\\.([0-9]*))?\\z".to_owned(),
                    groups,
                    form: TextForm::Number { ms },
                })
            }
            (TimeForm::Iso, Some(Kind::Whole | Kind::Float | Kind::Decimal)) => refuse(format!(
                "is `{}` in Athena, not a timestamp; if it counts from 1970, say in which unit, e.g. `time: {{ column: {}, epoch: ms }}`",
                only.map(|(_, cell)| cell.declared.as_str()).unwrap_or_default(),
                columns.first().unwrap_or(&"")
            )),
            (form, _) if cells.iter().all(|(_, cell)| !matches!(cell.kind(), Kind::Other | Kind::Bool | Kind::Float)) => {
                let text = cells.iter().map(words).collect::<Vec<_>>().join(" || ' ' || ");
                let (pattern, groups, leap_second) = match form {
                    TimeForm::Pattern(pattern) => {
                        let (expression, groups) = regex::of_strptime(pattern)?;
                        (expression, groups, true)
                    }
                    _ => {
                        let (expression, groups) = regex::iso();
                        (expression, groups, false)
                    }
                };
                let is_pattern = leap_second;
                let has = |group: &Group| groups.contains(group);
                let has_hour = has(&Group::Hour) || has(&Group::Hour12);
                if is_pattern && clock.is_none() && !has(&Group::Offset) && !has(&Group::Epoch) && (has_hour || !dates) {
                    return refuse(
                        "has no time zone; add the zone of its clock, e.g. `zone: Europe/Berlin` or `zone: UTC`, under `time`".to_owned(),
                    );
                }
                let dates = if is_pattern { !has_hour } else { dates || reading.columns.len() == 1 };
                Ok(Timing::Text { text, pattern, groups, form: TextForm::Calendar { clock, doubt, dates, date_zone, leap_second } })
            }
            _ => refuse(format!(
                "is `{}` in Athena, which cannot hold a time; declare it as `timestamp` or `string`, or make a view of the table, and name the view",
                cells.iter().map(|(_, cell)| cell.declared.as_str()).collect::<Vec<_>>().join("`, `")
            )),
        }
    }

    /// Whether the time column is one of the columns in the folders that carry the time.
    fn is_in_folders(&self) -> bool {
        let (table, raw) = (self.table, self.raw);
        if raw.partition_kind(&table.time).is_none() || !table.reading.columns.is_empty() {
            return false;
        }
        let same = |column: &str| column.eq_ignore_ascii_case(&table.time);
        match (&table.layout, table.partition_by.as_slice()) {
            (None, [by]) => same(&by.column),
            (Some(layout), _) => layout.path.parts().iter().any(|part| PathPattern::column_of(part).is_some_and(same)),
            _ => false,
        }
    }

    /// Whether rows are judged one by one. If not, every row has a time as it is, and no folder says another.
    ///
    /// # Errors
    /// `invalid` if Athena cannot read the table as it is declared.
    pub(crate) fn is_judged(&self, columns: &[&str]) -> Result<bool> {
        let mut judged = self.table.on_bad_row != OnBadRow::Refuse
            || !matches!(self.timing()?, Timing::Plain)
            || Folders::of(self.table, self.raw)?.is_some();
        for column in columns {
            judged |= values::value(self.table, self.raw, column)?.is_some_and(|value| value.bad.is_some());
        }
        Ok(judged)
    }

    /// Whether the rows of a layer are judged one by one, if some columns are asked for.
    ///
    /// # Errors
    /// As [`Source::is_judged`].
    pub(crate) fn is_judged_in(&self, layer: Layer, columns: &[&str]) -> Result<bool> {
        let read = self.read_for(layer, columns);
        self.is_judged(&read.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Checks that Athena can read the table as it is declared.
    ///
    /// # Errors
    /// `invalid` if it cannot.
    pub(crate) fn check(&self) -> Result<()> {
        let columns: Vec<&str> = self.table.columns.keys().map(String::as_str).collect();
        self.is_judged(&columns).map(|_| ())
    }

    /// The condition that the object of a row is data: not ignored, and not of the overlay of another table below this one. A view has no
    /// objects.
    fn is_data(&self) -> Option<String> {
        let place = self.raw.location.as_deref().map(|at| regex::escape(at.trim_end_matches('/')));
        let globs = self.table.ignore.iter().map(|glob| {
            let place = place.as_deref().unwrap_or_default();
            format!("(?:.*/{}|{place}/{})", regex::of_glob(glob, "[^/]*"), regex::of_glob(glob, ".*"))
        });
        let overlays = place.as_deref().filter(|_| !self.raw.is_view).map(|place| format!("{place}/{}", regex::of_overlays()));
        let all: Vec<String> = globs.chain(overlays).collect();
        (!all.is_empty()).then(|| format!("NOT regexp_like({}, {})", self.raw.path(), text(&format!("\\A(?:{})\\z", all.join("|")))))
    }

    /// The conditions on objects: partitions that may hold rows within bounds, and files that are data.
    fn objects(&self, bounds: &TimeBounds) -> Result<Vec<String>> {
        let mut all = Vec::new();
        let folders = match Folders::of(self.table, self.raw)? {
            Some(folders) => Some(folders),
            None => Folders::of_time_in_path(self.table, self.raw),
        };
        if let Some(folders) = folders {
            all.extend(folders.prune(bounds)?);
        }
        all.extend(self.is_data());
        Ok(all)
    }

    /// How many rows there are in the objects that a scan of bounds reads.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn count(&self, bounds: &TimeBounds) -> Result<String> {
        Ok(format!("SELECT count(*) FROM {}{}", self.raw.quoted(), filter(&self.objects(bounds)?)))
    }

    /// The rows of the table, judged one by one. With `all`, rows of other times come too, if they are in objects that are read anyway.
    fn prepared(&self, wanted: &Wanted<'_>, shape: Shape, all: bool) -> Result<Prepared> {
        let (table, raw, bounds) = (self.table, self.raw, &wanted.bounds);
        let (timing, folders) = (self.timing()?, Folders::of(table, raw)?);
        let names: Vec<String> = self.key_names();
        let mut select: Vec<String> = self.raw_keys().into_iter().zip(&names).map(|(value, key)| format!("{value} AS {key}")).collect();
        let mut unfit = Vec::new();
        for column in wanted.columns {
            let Some(value) = values::value(table, raw, column)? else { continue };
            let shown = match (shape, crate::catalog::kind_of(&value.declared)) {
                (Shape::Exact, Kind::Instant) => milliseconds(&value.expression),
                _ => value.expression,
            };
            select.push(format!("{shown} AS {}", name(column)));
        }
        // Whether a row is quarantined must not depend on what is asked of it.
        let declared: Vec<&str> = match table.on_bad_row {
            OnBadRow::Refuse => Vec::new(),
            _ => table.columns.keys().map(String::as_str).filter(|column| !wanted.columns.contains(column)).collect(),
        };
        for column in wanted.columns.iter().copied().chain(declared) {
            let is_own = table.key.iter().any(|key| key.eq_ignore_ascii_case(column)) || column.eq_ignore_ascii_case(&table.time);
            let bad = values::value(table, raw, column)?.and_then(|value| value.bad).filter(|_| !is_own);
            unfit.extend(bad.map(|bad| format!("WHEN {bad} THEN {}", text(column))));
        }
        let mut conditions = self.objects(bounds)?;
        let clock_bounds = match &folders {
            Some(folders) => folders.reach(bounds)?,
            None if *bounds == TimeBounds::ALL || bounds.from_us >= bounds.to_us => None,
            // Days that a clock may be away from UTC, and more.
            None => {
                let margin_us = 3 * 86_400 * partition::SECOND_US;
                Some((bounds.from_us.saturating_sub(margin_us), bounds.to_us.saturating_add(margin_us)))
            }
        };
        let clock = |zone: &Option<Zone>| zone.as_ref().map(|zone| Clock::new(zone, clock_bounds));
        // What is added layer by layer, so that nothing is written twice.
        let mut layers: Vec<Vec<String>> = Vec::new();
        let ms = match &timing {
            Timing::Plain => {
                select.push(format!("{} AS repair_ms", self.time_ms(raw)));
                if !all && *bounds != TimeBounds::ALL {
                    let (time, null) = (self.time(raw), self.time_column(raw));
                    conditions.push(format!(
                        "(({time} >= {} AND {time} < {}) OR {null} IS NULL)",
                        instant(bounds.from_us),
                        instant(bounds.to_us)
                    ));
                }
                None
            }
            Timing::Wall { wall, clock: zone, doubt } => {
                select.push(format!("{wall} AS repair_wall"));
                Some(clock(zone).map_or_else(|| "repair_wall".to_owned(), |clock| clock.instant("repair_wall", *doubt)))
            }
            Timing::Number { number, ms } => {
                select.push(format!("{number} AS repair_number"));
                Some(ms.clone())
            }
            Timing::Text { text: value, pattern, groups, form } => {
                select.push(format!("{value} AS repair_text"));
                let extract = |at: usize| format!("regexp_extract(repair_text, {}, {at}) AS repair_g{at}", text(pattern));
                layers.push((1..=groups.len()).map(extract).collect());
                let groups = Groups { groups, prefix: "repair_g" };
                Some(match form {
                    TextForm::Number { ms } => ms.clone(),
                    TextForm::Calendar { clock: zone, doubt, dates, date_zone, leap_second } => {
                        let null = || "CAST(NULL AS bigint)".to_owned();
                        let wall = groups.wall_ms(*leap_second).unwrap_or_else(null);
                        let offset = groups.offset_ms().unwrap_or_else(null);
                        layers.push(vec![format!("{wall} AS repair_wall"), format!("{offset} AS repair_offset")]);
                        let mut cases = Vec::new();
                        if let Some(epoch) = groups.column(&Group::Epoch) {
                            cases.push(format!("WHEN {epoch} IS NOT NULL THEN TRY_CAST({epoch} AS bigint) * 1000"));
                        }
                        if let Some(offset) = groups.column(&Group::Offset) {
                            cases.push(format!("WHEN {offset} IS NOT NULL THEN repair_wall - repair_offset"));
                        }
                        if let Some(utc) = groups.column(&Group::Utc) {
                            cases.push(format!("WHEN {utc} IS NOT NULL THEN repair_wall"));
                        }
                        // A date alone would be taken for its first hour where it cannot be one.
                        let is_date = groups.column(&Group::Hour).map(|hour| format!("{hour} IS NULL"));
                        if let (false, Some(is_date)) = (*dates, &is_date) {
                            cases.push(format!("WHEN {is_date} THEN NULL"));
                        }
                        let of_date = Clock::new(date_zone, clock_bounds).instant("repair_wall", Doubt::Start);
                        let local = match (clock(zone), is_date) {
                            (_, None) if *dates => of_date,
                            (None, Some(is_date)) if *dates => format!("CASE WHEN {is_date} THEN {of_date} END"),
                            (Some(clock), Some(is_date)) if *dates && zone.as_ref() != Some(date_zone) => {
                                format!("CASE WHEN {is_date} THEN {of_date} ELSE {} END", clock.instant("repair_wall", *doubt))
                            }
                            (Some(clock), _) => clock.instant("repair_wall", *doubt),
                            (None, _) => "NULL".to_owned(),
                        };
                        if cases.is_empty() { local } else { format!("CASE {} ELSE {local} END", cases.join(" ")) }
                    }
                })
            }
            Timing::Folder => match &folders {
                Some(folders) => Some(folders.first_instant(bounds)?),
                None => Some("CAST(NULL AS bigint)".to_owned()),
            },
        };
        let mut reasons = Vec::new();
        if let Some(folders) = &folders {
            let (parts, start) = folders.start(raw);
            // The clock of the folders comes before the time, which may be taken from it.
            select.extend(parts);
            layers.insert(0, vec![format!("{start} AS repair_f")]);
            reasons.push("WHEN repair_f IS NULL THEN '/'".to_owned());
        }
        if let Some(ms) = ms {
            layers.push(vec![format!("{ms} AS repair_ms")]);
        }
        reasons.extend(names.iter().zip(&table.key).map(|(key, column)| format!("WHEN {key} IS NULL THEN {}", text(column))));
        reasons.push(format!("WHEN repair_ms IS NULL THEN {}", text(&table.time)));
        if !unfit.is_empty() {
            select.push(format!("CASE {} END AS repair_unfit", unfit.join(" ")));
            reasons.push("WHEN repair_unfit IS NOT NULL THEN repair_unfit".to_owned());
        }
        select.push(format!("{} AS repair_file", raw.path()));
        let mut sql = format!("SELECT {} FROM {}{}", select.join(", "), raw.quoted(), filter(&conditions));
        for layer in layers {
            sql = format!("SELECT *, {} FROM ({sql})", layer.join(", "));
        }
        let far = match &folders {
            Some(folders) => {
                let (rows, far) = folders.far(sql, bounds)?;
                sql = rows;
                far
            }
            None => "0".to_owned(),
        };
        Ok(Prepared { sql: format!("SELECT *, {far} AS repair_far, CASE {} END AS repair_reason FROM ({sql})", reasons.join(" ")) })
    }

    /// The time column of a relation, as it is.
    fn time_column(&self, relation: &Relation) -> String {
        if std::ptr::eq(relation, self.raw) {
            let column = self.table.time_columns().first().copied().unwrap_or(&self.table.time);
            return values::cell(self.table, relation, column).map_or_else(|| name(column), |cell| cell.expression);
        }
        name(&self.table.time)
    }

    /// The keys of the table's own rows as text.
    fn raw_keys(&self) -> Vec<String> {
        let key = |key: &String| values::key(self.table, self.raw, key).unwrap_or_else(|| "CAST(NULL AS varchar)".to_owned());
        self.table.key.iter().map(key).collect()
    }

    /// The time of a row as a timestamp.
    fn time(&self, relation: &Relation) -> String {
        let column = self.time_column(relation);
        let kind = if std::ptr::eq(relation, self.raw) {
            self.table.time_columns().first().and_then(|column| values::cell(self.table, relation, column)).map(|cell| cell.kind())
        } else {
            relation.kind(&self.table.time)
        };
        match kind {
            Some(Kind::Date) => format!("CAST({column} AS timestamp(3))"),
            _ => column,
        }
    }

    /// The time of a row in milliseconds.
    fn time_ms(&self, relation: &Relation) -> String {
        milliseconds(&self.time(relation))
    }

    /// The slot of a row, as the core counts slots. In a table without cadence, every time is a slot.
    fn slot(&self, time_ms: &str, bounds: &TimeBounds) -> Result<String> {
        match self.table.grid() {
            Ok(grid) => Ok(Slots::new(grid, bounds)?.slot(time_ms)),
            Err(_) => Ok(time_ms.to_owned()),
        }
    }

    /// Those of raw rows that belong to slots, and those that cannot be read. In a table without cadence, all.
    fn aligned(&self, rows: String, bounds: &TimeBounds) -> Result<String> {
        match self.table.grid() {
            Ok(grid) => Ok(format!("SELECT * FROM ({rows}) WHERE {}", Slots::new(grid, bounds)?.is_kept())),
            Err(_) => Ok(rows),
        }
    }

    fn keys(&self, relation: &Relation) -> Vec<String> {
        if std::ptr::eq(relation, self.raw) {
            return self.raw_keys();
        }
        self.table
            .key
            .iter()
            .map(|key| match relation.kind(key) {
                Some(Kind::Text) => name(key),
                _ => format!("CAST({} AS varchar)", name(key)),
            })
            .collect()
    }

    /// The conditions that select rows within bounds: partitions first, then times. Rows without a time are always selected, so that they
    /// are noticed.
    fn within(&self, relation: &Relation, bounds: &TimeBounds) -> Result<Vec<String>> {
        let mut all = Vec::new();
        if *bounds == TimeBounds::ALL {
            return Ok(all);
        }
        if !std::ptr::eq(relation, self.raw) {
            all.extend(self.partitions(relation, bounds)?);
        }
        let (time, null) = (self.time(relation), self.time_column(relation));
        all.push(format!("(({time} >= {} AND {time} < {}) OR {null} IS NULL)", instant(bounds.from_us), instant(bounds.to_us)));
        Ok(all)
    }

    /// The condition on the partitions of an overlay. We wrote it, so each row is in its folder.
    fn partitions(&self, relation: &Relation, bounds: &TimeBounds) -> Result<Option<String>> {
        let Some(by) = partition::time_partition(self.table)? else { return Ok(None) };
        let Some(kind) = relation.partition_kind(&by.column) else { return Ok(None) };
        if bounds.from_us >= bounds.to_us {
            return Ok(Some("false".to_owned()));
        }
        let (first, _) = partition::of_time(by.unit, bounds.from_us)?;
        let (last, _) = partition::of_time(by.unit, bounds.to_us - 1)?;
        let column = name(&by.column);
        let value = |value: &str| match kind {
            Kind::Text => Ok(text(value)),
            Kind::Date if by.unit == PartitionUnit::Day => Ok(format!("DATE {}", text(value))),
            Kind::Whole if by.unit == PartitionUnit::Year => Ok(value.to_owned()),
            _ => Err(Error::invalid(format!(
                "partition column `{}` of table `{}` is {kind} in Athena, and `partition_by` says it holds one {:?} each, such as `{value}`; \
                 declare the column as `string` in Athena, or correct `partition_by`",
                by.column, self.table.name, by.unit
            ))),
        };
        Ok(Some(if first == last {
            format!("{column} = {}", value(&first)?)
        } else {
            format!("{column} BETWEEN {} AND {}", value(&first)?, value(&last)?)
        }))
    }

    fn key_filter(&self, relation: &Relation, keys: Option<&[Key]>) -> Option<String> {
        keys.map(|keys| one_of(&self.keys(relation), keys))
    }

    /// The condition that a row of the overlay is not retracted; `None` if no row of its kind is retracted.
    fn not_retracted(&self, relation: &Relation, kind: RetractedKind) -> Option<String> {
        let parts = self.retracted.unwrap_or_default().iter().filter(|part| part.kind == RetractedKind::All || part.kind == kind);
        let hidden: Vec<String> = parts
            .map(|part| {
                let mut all = vec![format!("{} = {}", name(columns::RUN), text(&part.run))];
                all.extend(part.step.as_ref().map(|step| format!("{} = {}", name(columns::STEP), text(step))));
                if let Some(key) = &part.key {
                    all.extend(self.keys(relation).iter().zip(key.values()).map(|(column, value)| format!("{column} = {}", text(value))));
                }
                if part.interval.is_some() {
                    let bounds = TimeBounds::of_interval(self.table, part.interval.as_ref());
                    let time = self.time(relation);
                    all.push(format!("{time} >= {} AND {time} < {}", instant(bounds.from_us), instant(bounds.to_us)));
                }
                format!("({})", all.join(" AND "))
            })
            .collect();
        (!hidden.is_empty()).then(|| format!("NOT ({})", hidden.join(" OR ")))
    }

    /// A column in the selected form.
    fn value(&self, relation: &Relation, column: &str, shape: Shape) -> String {
        let quoted = name(column);
        match (shape, relation.kind(column)) {
            (Shape::Native, _) => quoted,
            (Shape::Exact, Some(Kind::Instant)) => milliseconds(&quoted),
            (Shape::Exact, _) => quoted,
        }
    }

    /// The raw rows, as `repair_raw`: key, `repair_slot`, `repair_ms`, and columns. Judged rows have `repair_path`, too: which column cannot
    /// be read, and the object. Rows that cannot be read come whatever was asked for, without a slot.
    fn raw_rows(&self, wanted: &Wanted<'_>, shape: Shape) -> Result<String> {
        if !self.is_judged(wanted.columns)? {
            let mut select = self.slot_columns(self.raw, &wanted.bounds)?;
            for column in wanted.columns {
                let Some(value) = values::value(self.table, self.raw, column)? else { continue };
                let shown = match (shape, crate::catalog::kind_of(&value.declared)) {
                    (Shape::Exact, Kind::Instant) => milliseconds(&value.expression),
                    _ => value.expression,
                };
                select.push(format!("{shown} AS {}", name(column)));
            }
            let mut conditions = self.within(self.raw, &wanted.bounds)?;
            conditions.extend(self.is_data());
            conditions.extend(self.key_filter(self.raw, wanted.keys));
            return Ok(format!("SELECT {} FROM {}{}", select.join(", "), self.raw.quoted(), filter(&conditions)));
        }
        let Prepared { sql } = self.prepared(wanted, shape, false)?;
        let mut select = self.key_names();
        select.push(format!("CASE WHEN repair_reason IS NULL THEN {} END AS repair_slot", self.slot("repair_ms", &wanted.bounds)?));
        select.push("repair_ms".to_owned());
        select.extend(wanted.columns.iter().map(|column| name(column)));
        select.push(format!("{REPORT} AS repair_path"));
        let mut good = vec!["repair_reason IS NULL".to_owned(), "repair_far < 2".to_owned()];
        good.extend(in_bounds(&wanted.bounds));
        good.extend(wanted.keys.map(|keys| one_of(&self.key_names(), keys)));
        Ok(format!("SELECT {} FROM ({sql}) WHERE repair_reason IS NOT NULL OR ({})", select.join(", "), good.join(" AND ")))
    }

    fn slot_columns(&self, relation: &Relation, bounds: &TimeBounds) -> Result<Vec<String>> {
        let time_ms = self.time_ms(relation);
        let keys = self.keys(relation).into_iter().zip(&self.table.key).map(|(value, key)| format!("{value} AS {}", name(&key_name(key))));
        Ok(keys.chain([format!("{} AS repair_slot", self.slot(&time_ms, bounds)?), format!("{time_ms} AS repair_ms")]).collect())
    }

    /// The live repair of each slot: the newest; of two from the same instant, the one whose run, then unit, sorts last by name. If the key
    /// alone identifies a row, those of all rows that may have versions within the bounds.
    fn winners(&self, repairs: &Relation, wanted: &Wanted<'_>, shape: Shape) -> Result<String> {
        let bounds = self.around_versions(&wanted.bounds);
        let mut select = self.slot_columns(repairs, &bounds)?;
        for column in wanted.columns {
            let value = match repairs.kind(column) {
                Some(_) => self.value(repairs, column, shape),
                // Repairs may have been made before the table had the column.
                None => "NULL".to_owned(),
            };
            select.push(format!("{value} AS {}", name(column)));
        }
        select.extend([name(columns::OP), name(columns::STRATEGY), name(columns::RUN), name(columns::UNIT), name(columns::AT)]);
        let mut conditions = self.within(repairs, &bounds)?;
        conditions.extend(self.key_filter(repairs, wanted.keys));
        conditions.extend(self.not_retracted(repairs, RetractedKind::Repairs));
        // A patch is no row.
        conditions.push(format!("{} IS DISTINCT FROM {}", name(columns::OP), text(Op::Patch.as_str())));
        let by = self.slot_names();
        let newest = format!(
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY {}) AS repair_rank FROM (SELECT {} FROM {}{})) WHERE \
             repair_rank = 1",
            by.join(", "),
            newest_first(),
            select.join(", "),
            repairs.quoted(),
            filter(&conditions)
        );
        Ok(self.not_outdated(newest))
    }

    fn key_names(&self) -> Vec<String> {
        self.table.key.iter().map(|key| name(&key_name(key))).collect()
    }

    /// The columns that a slot is identified by.
    fn slot_names(&self) -> Vec<String> {
        self.key_names().into_iter().chain(["repair_slot".to_owned()]).collect()
    }

    /// Rows without repaired cells: those of `raw` that are neither replaced nor removed, and those of `fix` that are needed and within bounds. Returns
    /// statements that are named, and one that selects from them; `raw_out` and `fix_out` are what it selects of `a`, with `repaired_by`
    /// behind it.
    fn base(&self, (raw, raw_out): (&str, &str), (fix, fix_out): (&str, &str), bounds: &TimeBounds) -> (String, String) {
        let (op, replace, remove) = (name(columns::OP), text(Op::Replace.as_str()), text(Op::Remove.as_str()));
        // A reader may not know yet that rows have been removed, so it always looks for that.
        let (hiding, is_row) = (format!("({replace}, {remove})"), format!("(a.{op} IS DISTINCT FROM {remove})"));
        let slot = self.slot_names().join(", ");
        let named = format!("repair_raw AS ({raw}), repair_fix AS ({fix}), repair_had AS (SELECT DISTINCT {slot} FROM repair_raw)");
        let (by, strategy) = (name(overlay::REPAIRED_BY), name(columns::STRATEGY));
        let rows = match self.same_row() {
            // Several repairs may be near one row, and several rows near one repair.
            Some(same) => format!(
                "SELECT {raw_out}, CAST(NULL AS varchar) AS {by} FROM repair_raw a LEFT JOIN repair_fix b ON {same} AND b.{op} IN {hiding} \
                 WHERE b.repair_slot IS NULL \
                 UNION ALL SELECT {fix_out}, a.{strategy} FROM repair_fix a LEFT JOIN repair_had b ON {same} AND a.{op} <> {replace} \
                 WHERE b.repair_slot IS NULL AND {is_row}{within}",
                within = in_bounds(bounds).map(|within| format!(" AND {within}")).unwrap_or_default(),
            ),
            None => format!(
                "SELECT {raw_out}, CAST(NULL AS varchar) AS {by} FROM repair_raw a LEFT JOIN repair_fix b ON {same} \
                 WHERE b.{op} IS NULL OR b.{op} NOT IN {hiding} \
                 UNION ALL SELECT {fix_out}, a.{strategy} FROM repair_fix a LEFT JOIN repair_had b ON {same} \
                 WHERE (b.repair_slot IS NULL OR a.{op} = {replace}) AND {is_row}",
                same = self.same_slot(),
            ),
        };
        (named, rows)
    }

    /// The rows of a layer: key as `repair_key_…`, `repair_slot`, `repair_ms`, the columns, and in the view `repaired_by` and
    /// `repaired_cells`.
    fn rows(&self, layer: Layer, wanted: &Wanted<'_>) -> Result<String> {
        match (layer, self.repairs) {
            (Layer::Raw, _) => self.raw_rows(wanted, Shape::Exact),
            (Layer::Repaired, None) => Ok(format!(
                "SELECT *, CAST(NULL AS varchar) AS {}, CAST(NULL AS varchar) AS {} FROM ({})",
                name(overlay::REPAIRED_BY),
                name(overlay::REPAIRED_CELLS),
                self.aligned(self.raw_rows(wanted, Shape::Exact)?, &wanted.bounds)?
            )),
            (Layer::Repaired, Some(repairs)) => {
                let read = self.read_for(layer, wanted.columns);
                let read: Vec<&str> = read.iter().map(String::as_str).collect();
                let wanted = Wanted { columns: &read, ..*wanted };
                let mut out: Vec<String> = self.table.key.iter().map(|key| key_name(key)).collect();
                out.extend(["repair_slot".to_owned(), "repair_ms".to_owned()]);
                out.extend(read.iter().map(|&column| column.to_owned()));
                let of_a = out.iter().map(|column| format!("a.{}", name(column))).collect::<Vec<_>>().join(", ");
                let (mut raw_out, mut fix_out) = (of_a.clone(), of_a);
                if self.is_judged(&read)? {
                    out.push("repair_path".to_owned());
                    raw_out.push_str(", a.repair_path");
                    fix_out.push_str(", CAST(NULL AS varchar) AS repair_path");
                }
                let raw = self.aligned(self.raw_rows(&wanted, Shape::Exact)?, &wanted.bounds)?;
                let fix = self.winners(repairs, &wanted, Shape::Exact)?;
                let (named, rows) = self.base((&raw, &raw_out), (&fix, &fix_out), &wanted.bounds);
                self.with_cells((&named, &rows), &out, repairs, &wanted, Shape::Exact)
            }
        }
    }

    /// The condition that two rows, `a` and `b`, are in the same slot.
    fn same_slot(&self) -> String {
        self.slot_names().iter().map(|column| format!("a.{column} = b.{column}")).collect::<Vec<_>>().join(" AND ")
    }

    /// A scan. Its result has the key, the time in milliseconds, the wanted columns, and in the view who repaired the row and its cells. If
    /// rows are judged, the last column is null for a row that is used, and says what cannot be read of any other.
    ///
    /// # Errors
    /// `invalid` if the partition column's type cannot hold the declared partitions.
    pub(crate) fn scan(&self, layer: Layer, wanted: &Wanted<'_>) -> Result<String> {
        let mut out = self.key_names();
        out.push("repair_ms".to_owned());
        out.extend(wanted.columns.iter().map(|column| name(column)));
        if layer == Layer::Repaired {
            out.extend([name(overlay::REPAIRED_BY), name(overlay::REPAIRED_CELLS)]);
        }
        if self.is_judged_in(layer, wanted.columns)? {
            out.push("repair_path".to_owned());
        }
        Ok(format!("SELECT {} FROM ({})", out.join(", "), self.rows(layer, wanted)?))
    }

    /// The number of rows of a table without a cadence in stretches of time, counted from one that begins at `base_s`. The columns of the
    /// result are the key, if it is wanted, then the stretch, how many rows there are, how many of them have no key, and what cannot be read
    /// of them; those have no stretch.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn row_counts(&self, wanted: &Wanted<'_>, by_key: bool, (base_s, every_s): (i64, i64)) -> Result<String> {
        let names = self.key_names();
        let keys = if by_key { names.iter().map(|key| format!("{key}, ")).collect() } else { String::new() };
        let no_key = match names.iter().map(|key| format!("{key} IS NULL")).collect::<Vec<_>>() {
            none if none.is_empty() => "false".to_owned(),
            some => some.join(" OR "),
        };
        let path = if self.is_judged(&[])? { "repair_path" } else { "CAST(NULL AS varchar) AS repair_path" };
        Ok(format!(
            "SELECT {keys}repair_stretch, count(*), count(*) FILTER (WHERE repair_no_key), repair_path FROM (SELECT *, CASE WHEN repair_path IS NULL \
             THEN (repair_ms - {base}) / {every} END AS repair_stretch FROM (SELECT {keys}repair_ms, {no_key} AS repair_no_key, {path} FROM ({rows}))) \
             GROUP BY {keys}repair_stretch, repair_path",
            base = base_s * 1_000,
            every = every_s * 1_000,
            rows = self.rows(Layer::Raw, wanted)?,
        ))
    }

    /// Presence, as bits of slots. The result has one row for each word (a group of neighbouring slots) of each requested key, and some for
    /// all other rows. Its columns are the key, the word counted from the first, whether the key was requested, and the bits of the raw rows;
    /// then how many raw rows there are, how many of them are off the grid, and how many have no key; then the bits of repairs that insert,
    /// of repairs that replace, of exceptions, and of repairs that remove; then how many raw rows are in the folder of another time, and what cannot be read of them.
    /// The word of rows of other keys is -1, and that of rows that are not used is one of [`words`]. The last column is null, except for rows of
    /// other keys: of these, there is a row for each of the first few keys, and all of them say how many raw rows other keys have together.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn presence(&self, grid: &SlotGrid, slots: SlotRange, keys: Option<&[Key]>, as_of: jiff::Timestamp) -> Result<String> {
        let bounds = TimeBounds::of_slots(grid, slots);
        let per_word = i64::from(grid.cadence().slots_per_word());
        let key_names = self.key_names();
        let key_list = |prefix: &str| key_names.iter().map(|key| format!("{prefix}{key}, ")).collect::<String>();
        let wanted = Wanted { bounds, keys: None, columns: &[] };
        let off = Slots::new(*grid, &bounds)?.is_off();
        let plain = "0, CAST(NULL AS varchar)";
        let mut layers = vec![if self.is_judged(&[])? {
            let Prepared { sql } = self.prepared(&wanted, Shape::Exact, true)?;
            let inside = in_bounds(&bounds).unwrap_or_else(|| "true".to_owned());
            format!(
                "SELECT {keys}0 AS repair_layer, CASE WHEN repair_class < 2 THEN repair_slot END AS repair_slot, {off} AS repair_off, repair_class, \
                 repair_path FROM (SELECT *, CASE WHEN repair_reason IS NOT NULL THEN {bad} WHEN repair_far = 2 THEN {stray} WHEN {inside} THEN \
                 repair_far ELSE {outside} END AS repair_class, CASE WHEN repair_reason IS NOT NULL THEN repair_reason || '|' || repair_file WHEN \
                 repair_far = 2 THEN repair_file END AS repair_path, {slot} AS repair_slot FROM ({sql}))",
                keys = key_list(""),
                bad = -words::BAD,
                stray = -words::STRAY,
                outside = -words::OUTSIDE,
                slot = self.slot("repair_ms", &bounds)?,
            )
        } else {
            format!(
                "SELECT {}0 AS repair_layer, repair_slot, {off} AS repair_off, 0 AS repair_class, CAST(NULL AS varchar) AS repair_path FROM ({})",
                key_list(""),
                self.raw_rows(&wanted, Shape::Exact)?
            )
        }];
        if let Some(repairs) = self.repairs {
            layers.push(format!(
                "SELECT {}CASE {} WHEN {} THEN 2 WHEN {} THEN 4 ELSE 1 END, repair_slot, false, {plain} FROM ({})",
                key_list(""),
                name(columns::OP),
                text(Op::Replace.as_str()),
                text(Op::Remove.as_str()),
                self.winners(repairs, &wanted, Shape::Exact)?
            ));
        }
        if let Some(exceptions) = self.exceptions {
            let mut conditions = self.within(exceptions, &bounds)?;
            conditions.extend(self.not_retracted(exceptions, RetractedKind::Exceptions));
            conditions.push(format!("{} > {}", name(columns::RECHECK_AFTER), instant(as_of.as_microsecond())));
            layers.push(format!(
                "SELECT {}3, repair_slot, false, {plain} FROM (SELECT {} FROM {}{})",
                key_list(""),
                self.slot_columns(exceptions, &bounds)?.join(", "),
                exceptions.quoted(),
                filter(&conditions)
            ));
        }
        let asked = match keys {
            None => "repair_class < 2".to_owned(),
            Some(keys) => format!("repair_class < 2 AND coalesce({}, false)", one_of(&key_names, keys)),
        };
        let no_key = match key_names.iter().map(|key| format!("{key} IS NULL")).collect::<Vec<_>>() {
            none if none.is_empty() => "false".to_owned(),
            some => format!("repair_class < 2 AND ({})", some.join(" OR ")),
        };
        // Other keys are named, unless there is something wrong with their rows.
        let is_shown = "repair_asked OR (repair_class < 2 AND repair_slot IS NOT NULL)";
        let shown = key_names.iter().map(|key| format!("CASE WHEN {is_shown} THEN {key} END AS {key}, ")).collect::<String>();
        // Words count from the first slot's, so that nothing negative is divided; a row without a time has no word.
        let first_word = slots.first.div_euclid(per_word);
        let base = first_word * per_word;
        let bits =
            |layer: u8| format!("bitwise_or_agg(repair_bit) FILTER (WHERE repair_asked AND repair_layer = {layer} AND NOT repair_off)");
        let words = format!(
            "SELECT {keys}repair_word, repair_asked, {raw} AS repair_raw, count(*) FILTER (WHERE repair_layer = 0) AS repair_rows, \
             count(*) FILTER (WHERE repair_layer = 0 AND repair_asked AND repair_off) AS repair_off, \
             count(*) FILTER (WHERE repair_layer = 0 AND repair_no_key) AS repair_keyless, {inserted} AS repair_inserted, \
             {replaced} AS repair_replaced, {absent} AS repair_absent, {removed} AS repair_removed, \
             count(*) FILTER (WHERE repair_asked AND repair_class = 1) AS repair_misplaced, repair_path \
             FROM (SELECT {shown}CASE WHEN repair_class > 1 THEN -repair_class WHEN repair_asked OR repair_slot IS NULL THEN (repair_slot - {base}) / \
             {per_word} ELSE -1 END AS repair_word, repair_asked, repair_layer, repair_off, repair_no_key, repair_class, repair_path, \
             bitwise_left_shift(BIGINT '1', CAST((repair_slot - {base}) % {per_word} AS integer)) AS repair_bit \
             FROM (SELECT *, {asked} AS repair_asked, {no_key} AS repair_no_key FROM ({layers}))) \
             GROUP BY {keys}repair_word, repair_asked, repair_path",
            keys = key_list(""),
            raw = bits(0),
            inserted = bits(1),
            replaced = bits(2),
            absent = bits(3),
            removed = bits(4),
            layers = layers.join(" UNION ALL "),
        );
        let rest = "repair_inserted, repair_replaced, repair_absent, repair_removed, repair_misplaced, repair_path";
        if key_names.is_empty() || keys.is_none() {
            return Ok(format!(
                "SELECT {keys}repair_word, repair_asked, repair_raw, repair_rows, repair_off, repair_keyless, {rest}, CAST(NULL AS bigint) FROM ({words})",
                keys = key_list("")
            ));
        }
        // The rows of a key that was asked for are a window of their own, so that no window is large but that of other keys.
        let window = key_names.iter().map(|key| format!("CASE WHEN NOT repair_other THEN {key} END")).collect::<Vec<_>>().join(", ");
        let window = format!("PARTITION BY repair_other, {window}");
        Ok(format!(
            "SELECT {keys}repair_word, repair_asked, repair_raw, repair_rows, repair_off, \
             CASE WHEN repair_other THEN repair_all_keyless ELSE repair_keyless END, {rest}, CASE WHEN repair_other THEN repair_all END \
             FROM (SELECT *, row_number() OVER ({window} ORDER BY CASE WHEN repair_rows > 0 THEN 0 ELSE 1 END, {by}) AS repair_place, \
             sum(repair_rows) OVER ({window}) AS repair_all, sum(repair_keyless) OVER ({window}) AS repair_all_keyless \
             FROM (SELECT *, NOT repair_asked AND coalesce(repair_word, 0) = -1 AS repair_other FROM ({words}))) \
             WHERE NOT repair_other OR repair_place <= {MAX_EXAMPLES}",
            keys = key_list(""),
            by = key_names.join(", "),
        ))
    }

    /// A rollup. Its result has the key, the bucket counted from `first_bucket`, the measures, then how many slots are observed, how many
    /// are repaired, and how many rows there are beyond one for each slot. If a slot has several rows, the same one counts as in the core. If
    /// rows are judged, the last column says what cannot be read of rows that have no bucket.
    /// Floats are added in order of time by a running sum, since an aggregate would add them in any order and round differently each time.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn rollup(&self, grid: &SlotGrid, rollup: &Rollup, first_bucket: i64) -> Result<String> {
        let slots = grid.slots_in(&rollup.interval);
        let mut columns: Vec<&str> = rollup.measures.iter().map(|measure| measure.column.as_str()).collect();
        columns.sort_unstable();
        columns.dedup();
        let wanted = Wanted { bounds: TimeBounds::of_slots(grid, slots), keys: Some(&rollup.keys), columns: &columns };
        let start_ms = Slots::new(*grid, &wanted.bounds)?.start_ms("repair_slot");
        let every_s = i64::from(rollup.every.seconds());
        let keys = self.key_names();
        let key_list: String = keys.iter().map(|key| format!("{key}, ")).collect();
        let expected = match ranges(grid, rollup) {
            ranges if ranges.is_empty() => String::new(),
            ranges => format!(
                " WHERE repair_slot IS NULL OR {}",
                ranges
                    .iter()
                    .map(|range| format!("repair_slot BETWEEN {} AND {}", range.first, range.end - 1))
                    .collect::<Vec<_>>()
                    .join(" OR ")
            ),
        };
        // A row with repaired cells counts as repaired, though it is the table's own.
        let by = format!("coalesce({}, {})", name(overlay::REPAIRED_BY), name(overlay::REPAIRED_CELLS));
        let mut least = vec![format!("CASE WHEN {by} IS NULL THEN 0 ELSE 1 END")];
        least.extend(rollup.measures.iter().map(|measure| format!("{} ASC NULLS FIRST", name(&measure.column))));
        let bucket = format!("PARTITION BY {key_list}repair_bucket");
        let whole = "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING";
        let mut measures = String::new();
        for (number, measure) in rollup.measures.iter().enumerate() {
            let column = name(&measure.column);
            let value = match values::declared(self.table, self.raw, &measure.column).map(|declared| crate::catalog::kind_of(&declared)) {
                Some(Kind::Float) => format!("CAST({column} AS double)"),
                Some(Kind::Whole) => format!("CAST({column} AS bigint)"),
                _ => column.clone(),
            };
            let computed = match measure.function {
                Function::First => format!("first_value({value}) IGNORE NULLS OVER ({bucket} ORDER BY repair_slot {whole})"),
                Function::Last => format!("last_value({value}) IGNORE NULLS OVER ({bucket} ORDER BY repair_slot {whole})"),
                Function::Min => format!("min({value}) OVER ({bucket})"),
                Function::Max => format!("max({value}) OVER ({bucket})"),
                Function::Sum => {
                    format!("sum({value}) OVER ({bucket} ORDER BY repair_slot ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)")
                }
            };
            let _ = write!(measures, "{computed} AS repair_m{number}, ");
        }
        let results: String = (0..rollup.measures.len()).map(|number| format!("repair_m{number}, ")).collect();
        let (path, first_path) = if self.is_judged_in(Layer::Repaired, &columns)? {
            (", repair_path", format!("min(repair_path) OVER ({bucket}) AS repair_path, "))
        } else {
            ("", String::new())
        };
        Ok(format!(
            "SELECT {key_list}repair_bucket, {results}repair_slots - repair_fixed, repair_fixed, repair_rows - repair_slots{path} FROM (\
             SELECT {key_list}repair_bucket, {first_path}{measures}repair_rows, count(*) OVER ({bucket}) AS repair_slots, count({by}) OVER ({bucket}) AS repair_fixed, \
             row_number() OVER ({bucket} ORDER BY repair_slot DESC) AS repair_place FROM (\
             SELECT *, count(*) OVER ({bucket}) AS repair_rows, row_number() OVER (PARTITION BY {key_list}repair_slot ORDER BY {least}) AS repair_place_in_slot FROM (\
             SELECT *, ({start_ms} - {base_ms}) / {every_ms} AS repair_bucket FROM ({rows}){expected})) \
             WHERE repair_place_in_slot = 1) WHERE repair_place = 1",
            least = least.join(", "),
            base_ms = first_bucket * every_s * 1_000,
            every_ms = every_s * 1_000,
            rows = self.rows(Layer::Repaired, &wanted)?,
        ))
    }

    /// The columns of the repaired view: those of the table with its time as an instant, its partitions, and who repaired a row and its cells.
    ///
    /// # Errors
    /// `invalid` if Athena cannot read the table as it is declared.
    pub(crate) fn view_columns(&self) -> Result<Vec<String>> {
        let (mut all, others, _) = self.shown()?;
        all.extend(others);
        all.extend([overlay::REPAIRED_BY, overlay::REPAIRED_CELLS].map(str::to_owned));
        Ok(all)
    }

    /// The columns that the view has of the table's objects, and of its partitions; and whether its time column is one that we compute.
    fn shown(&self) -> Result<(Vec<String>, Vec<String>, bool)> {
        let names = |columns: &[crate::catalog::Column]| {
            columns.iter().map(|column| column.name.clone()).filter(|column| !overlay::is_ours(column)).collect::<Vec<_>>()
        };
        let (mut own, mut others) = (names(&self.raw.columns), names(&self.raw.partitions));
        let nested = self.table.columns.iter().filter(|(_, rule)| rule.path.is_some()).map(|(column, _)| column.clone());
        for column in nested {
            if !own.iter().any(|known| known.eq_ignore_ascii_case(&column)) {
                own.push(column);
            }
        }
        let is_time = |column: &String| column.eq_ignore_ascii_case(&self.table.time);
        let computed = !matches!(self.timing()?, Timing::Plain);
        if computed && !own.iter().any(is_time) {
            own.push(self.table.time.to_ascii_lowercase());
            others.retain(|column| !is_time(column));
        }
        Ok((own, others, computed))
    }

    /// The repaired view, for anyone who reads with SQL. A condition on the partitions prunes the table; repaired rows have the partitions
    /// that rows of their time are in.
    pub(crate) fn create_view(&self, database: &str, repairs: &Relation) -> Result<String> {
        let all = TimeBounds::ALL;
        let (own, others, computed) = self.shown()?;
        let folders = Folders::of(self.table, self.raw)?;
        let is_time = |column: &str| computed && column.eq_ignore_ascii_case(&self.table.time);
        let columns: Vec<&str> = own.iter().chain(&others).map(String::as_str).collect();
        let read: Vec<&str> = columns.iter().copied().filter(|column| !is_time(column)).collect();
        let wanted = Wanted { bounds: all, keys: None, columns: &read };
        let raw = if self.is_judged(&read)? {
            let mut select = self.key_names();
            select.push(format!("CASE WHEN repair_reason IS NULL THEN {} END AS repair_slot", self.slot("repair_ms", &all)?));
            select.push("repair_ms".to_owned());
            for column in &columns {
                let quoted = name(column);
                select.push(if is_time(column) { format!("{} AS {quoted}", time::timestamp("repair_ms")) } else { quoted });
            }
            // A row that cannot be read is a problem of the table unless it is quarantined, so the view does not hide it.
            let used = match self.table.on_bad_row {
                OnBadRow::Refuse => "repair_far < 2 OR repair_reason IS NOT NULL",
                _ => "repair_far < 2 AND repair_reason IS NULL",
            };
            format!("SELECT {} FROM ({}) WHERE {used}", select.join(", "), self.prepared(&wanted, Shape::Native, false)?.sql)
        } else {
            self.raw_rows(&wanted, Shape::Native)?
        };
        let raw = self.aligned(raw, &all)?;
        let keys = |column: &str| {
            let key = self.table.key.iter().find(|key| key.eq_ignore_ascii_case(column)).map(|key| key_name(key));
            key.map_or_else(|| "NULL".to_owned(), |key| format!("a.{}", name(&key)))
        };
        // What the folders of a row's time are called is computed once for all of them.
        let local = folders.as_ref().map_or_else(|| "repair_ms".to_owned(), |folders| folders.local("repair_ms"));
        // Columns that repairs lack are null in a repaired row; keys have the table's own type.
        let mut known: Vec<&str> = Vec::new();
        let mut fixed: Vec<String> = Vec::new();
        for column in &columns {
            let declared = values::declared(self.table, self.raw, column).unwrap_or_else(|| "string".to_owned());
            let is_partition = self.raw.partition_kind(column).is_some() && !is_time(column);
            let in_folders = folders.as_ref().filter(|_| is_partition);
            let computed = in_folders.and_then(|folders| folders.value_for(column, &declared, "a.repair_local", keys));
            fixed.push(match (computed, repairs.kind(column)) {
                (Some(value), _) => value,
                (None, Some(_)) if is_time(column) => {
                    known.push(column);
                    format!("a.{}", name(column))
                }
                (None, Some(_)) => {
                    known.push(column);
                    format!("CAST(a.{} AS {})", name(column), crate::catalog::trino_type(&declared))
                }
                // Hive's names of nested types are not Trino's; the other half of the view determines the type.
                (None, None) => "NULL".to_owned(),
            });
        }
        let wanted = Wanted { bounds: all, keys: None, columns: &known };
        let fix = format!("SELECT *, {local} AS repair_local FROM ({})", self.winners(repairs, &wanted, Shape::Native)?);
        let mut raw_out: Vec<String> = columns.iter().map(|column| format!("a.{}", name(column))).collect();
        if !self.patched(repairs).is_empty() {
            let slot = || self.slot_names().into_iter().map(|column| format!("a.{column}"));
            raw_out.extend(slot());
            fixed.extend(slot());
        }
        let (named, rows) = self.base((&raw, &raw_out.join(", ")), (&fix, &fixed.join(", ")), &all);
        let out: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        Ok(format!(
            "CREATE OR REPLACE VIEW {database}.{view} AS {rows}",
            database = name(database),
            view = name(&overlay::repaired_view(&self.raw.name)),
            rows = self.with_cells((&named, &rows), &out, repairs, &wanted, Shape::Native)?,
        ))
    }
}

/// The words of rows that are not used, in a result of presence.
pub(crate) mod words {
    /// Rows in a folder of a time far from theirs.
    pub(crate) const STRAY: i64 = -2;
    /// Rows that cannot be read.
    pub(crate) const BAD: i64 = -3;
    /// Rows of other times.
    pub(crate) const OUTSIDE: i64 = -4;
}

/// What is reported of a row that cannot be read: the column, and the object. Null for any other row.
const REPORT: &str = "CASE WHEN repair_reason IS NOT NULL THEN repair_reason || '|' || repair_file END";

/// The condition that a time in milliseconds is within bounds; `None` if any time is.
fn in_bounds(bounds: &TimeBounds) -> Option<String> {
    (*bounds != TimeBounds::ALL).then(|| format!("repair_ms >= {} AND repair_ms < {}", bound_ms(bounds.from_us), bound_ms(bounds.to_us)))
}

/// The slots within the interval that a calendar expects; empty if it expects all.
fn ranges(grid: &SlotGrid, rollup: &Rollup) -> Vec<SlotRange> {
    let all = grid.slots_in(&rollup.interval);
    let within = rollup.within.iter().map(|interval| grid.slots_over(interval).intersection(&all));
    let some: Vec<SlotRange> = within.filter(|range| !range.is_empty()).collect();
    // No expected slot is within the interval. That selects no slot, which is not the same as all.
    if some.is_empty() && !rollup.within.is_empty() { vec![SlotRange::new(0, 0)] } else { some }
}

/// Whether repairs may remove rows: only then they keep what a source answered. A view that an older version made knows of none.
pub(crate) fn has_removals(repairs: &Relation) -> bool {
    repairs.kind(columns::ANSWER).is_some()
}

/// The name that we give to a key column.
fn key_name(key: &str) -> String {
    format!("repair_key_{key}")
}

fn filter(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// Milliseconds since 1970 of a timestamp, exactly.
fn milliseconds(timestamp: &str) -> String {
    format!("date_diff('millisecond', TIMESTAMP '1970-01-01 00:00:00.000', {timestamp})")
}

/// The condition that a key is one of those given. Keys of several columns are grouped by the first, since Trino needs seconds to plan
/// `IN` with thousands of rows.
fn one_of(columns: &[String], keys: &[Key]) -> String {
    let values: Vec<Vec<&str>> = keys.iter().map(|key| key.values().collect()).collect();
    one_of_values(columns, &values.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn one_of_values(columns: &[String], values: &[&[&str]]) -> String {
    match columns {
        _ if values.is_empty() => "false".to_owned(),
        [] => "true".to_owned(),
        [column] => {
            let values: Vec<String> = values.iter().flat_map(|value| value.first()).map(|value| text(value)).collect();
            format!("{column} IN ({})", values.join(", "))
        }
        [column, others @ ..] => {
            let mut by_first: BTreeMap<&str, Vec<&[&str]>> = BTreeMap::new();
            for value in values {
                if let [first, rest @ ..] = value {
                    by_first.entry(first).or_default().push(rest);
                }
            }
            let all: Vec<String> =
                by_first.iter().map(|(first, rest)| format!("({column} = {} AND {})", text(first), one_of_values(others, rest))).collect();
            format!("({})", all.join(" OR "))
        }
    }
}

/// A table of ours: Parquet at a location, with the partitions of the table it belongs to.
pub(crate) fn create_table(
    database: &str,
    table: &str,
    columns: &[(String, String)],
    partitions: &[(String, String)],
    location: &str,
) -> String {
    let list = |columns: &[(String, String)]| {
        columns.iter().map(|(column, kind)| format!("{} {kind}", hive_name(column))).collect::<Vec<_>>().join(", ")
    };
    let partitioned = if partitions.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", list(partitions)) };
    format!(
        "CREATE EXTERNAL TABLE IF NOT EXISTS {}.{} ({}){partitioned} STORED AS PARQUET LOCATION {} TBLPROPERTIES ('parquet.compression'='ZSTD')",
        hive_name(database),
        hive_name(table),
        list(columns),
        text(location)
    )
}

/// Adds columns to a table of ours.
pub(crate) fn add_columns(database: &str, table: &str, columns: &[(String, String)]) -> String {
    let list: Vec<String> = columns.iter().map(|(column, kind)| format!("{} {kind}", hive_name(column))).collect();
    format!("ALTER TABLE {}.{} ADD COLUMNS ({})", hive_name(database), hive_name(table), list.join(", "))
}

/// Adds partitions to a table of ours.
pub(crate) fn add_partitions(database: &str, table: &str, column: &str, partitions: &[(String, String)]) -> String {
    let list: Vec<String> = partitions
        .iter()
        .map(|(value, location)| format!("PARTITION ({} = {}) LOCATION {}", hive_name(column), text(value), text(location)))
        .collect();
    format!("ALTER TABLE {}.{} ADD IF NOT EXISTS {}", hive_name(database), hive_name(table), list.join(" "))
}

/// A template for declaring a missing table, with what is known of it; the user adds the columns.
pub(crate) fn suggested_table(database: &str, table: &Table, location: &str) -> String {
    let keys = table.key.iter().map(|key| format!("{} string", hive_name(key)));
    let kind = match (table.format, &table.reading.form) {
        (Format::Parquet, TimeForm::Iso) => "timestamp",
        (Format::Parquet, TimeForm::Epoch(_)) => "bigint",
        _ => "string",
    };
    let times = table.time_columns().into_iter().map(|column| format!("{} {kind}", hive_name(column)));
    let partitions: Vec<String> = match &table.layout {
        Some(layout) => {
            let named = |(number, part): (usize, &Vec<PathPiece>)| match PathPattern::column_of(part) {
                Some(column) => hive_name(column),
                None => hive_name(&format!("folder{}", number + 1)),
            };
            let folders = layout.path.parts().len() - usize::from(layout.path.names_a_file());
            layout.path.parts().iter().take(folders).enumerate().map(named).map(|column| format!("{column} string")).collect()
        }
        None => table.partition_by.iter().map(|by| format!("{} string", hive_name(&by.column))).collect(),
    };
    let partitioned = if partitions.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", partitions.join(", ")) };
    let csv = &table.csv;
    let stored = match (table.format, csv.quote) {
        (Format::Parquet, _) => "STORED AS PARQUET".to_owned(),
        (Format::Csv, None) => format!("ROW FORMAT DELIMITED FIELDS TERMINATED BY {}", text(&csv.delimiter.to_string())),
        (Format::Csv, Some(quote)) => {
            let plain = csv.delimiter == ',' && quote == '"';
            let properties = format!(
                " WITH SERDEPROPERTIES ('separatorChar' = {}, 'quoteChar' = {})",
                text(&csv.delimiter.to_string()),
                text(&quote.to_string())
            );
            format!("ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde'{}", if plain { "" } else { &properties })
        }
        (Format::Jsonl, _) => "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'".to_owned(),
        _ => "STORED AS …".to_owned(),
    };
    let before = csv.skip_lines + u32::from(csv.header);
    let properties = if table.format == Format::Csv && before > 0 {
        format!(" TBLPROPERTIES ('skip.header.line.count'='{before}')")
    } else {
        String::new()
    };
    let columns: Vec<String> = keys.chain(times).chain(["…".to_owned()]).collect();
    format!(
        "CREATE EXTERNAL TABLE {}.{} ({}){partitioned} {stored} LOCATION {}{properties}",
        hive_name(database),
        hive_name(&table.name),
        columns.join(", "),
        text(location)
    )
}
