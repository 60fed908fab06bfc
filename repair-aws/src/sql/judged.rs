//! The rows of a table, judged one by one: whether they can be read, and whether they are in the folder of their time.

use repair_core::Result;
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::model::{OnBadRow, Zone};

use super::folders::Folders;
use super::regex::{self, Group};
use super::time::{self, Clock, Doubt, Groups};
use super::timing::{TextForm, Timing};
use super::{Shape, Source, Wanted, filter, instant, milliseconds, name, text, values};
use crate::catalog::Kind;

/// What is shown at most of a value that cannot be read.
const MOST_SHOWN: usize = 100;

/// What a refusal begins and ends with in the message of a query that failed.
const REFUSAL: [&str; 2] = ["<<repair: ", ">>"];

/// The column that has what cannot be read of a column.
fn unread(number: usize) -> String {
    format!("repair_unread_{number}")
}

/// A whole number that nobody gets: what is cast is why, and a cast of text that is no number fails with this text. No function does that which Athena
/// documents.
fn refusal(why: &str) -> String {
    let [begin, end] = REFUSAL.map(text);
    format!("CAST({begin} || {why} || ' (' || repair_file || ')' || {end} AS bigint)")
}

/// Why a query of a person was refused, if that is why it failed.
pub(crate) fn refused(message: &str) -> Option<&str> {
    let [begin, end] = REFUSAL;
    let (_, rest) = message.split_once(begin)?;
    rest.rsplit_once(end).map(|(why, _)| why)
}

/// Rows of a table on their way to values, with `repair_ms`, `repair_far` (0 in the folder of their time, 1 near it, 2 farther away),
/// `repair_reason` (the column that cannot be read, `/` for the folder) and `repair_file`.
pub(super) struct Prepared {
    pub(super) sql: String,
}

impl Source<'_> {
    /// The condition that the object of a row is data: not ignored, and not of the overlay of another table below this one. A view has no
    /// objects.
    pub(super) fn is_data(&self) -> Option<String> {
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

    /// Whether values that cannot be read are refused by the statement itself, and not reported by it: a person's query has no place for reports.
    pub(super) fn refuses(&self, shape: Shape) -> bool {
        shape == Shape::Native && self.table.on_bad_row == OnBadRow::Refuse
    }

    /// The table's own rows for a person's query, judged: key, `repair_slot`, `repair_ms`, and columns, of which `time` is the instant of the row. Where
    /// the table refuses rows that cannot be read, the query fails that asks for one; where it leaves them out, they are not there.
    pub(super) fn rows_for_people(&self, columns: &[&str], is_time: impl Fn(&str) -> bool) -> Result<String> {
        let all = TimeBounds::ALL;
        let read: Vec<&str> = columns.iter().copied().filter(|column| !is_time(column)).collect();
        let wanted = Wanted { bounds: all, keys: None, columns: &read };
        if !self.is_judged(&read)? {
            return self.raw_rows(&wanted, Shape::Native);
        }
        let refuses = self.refuses(Shape::Native);
        let table = &self.table.name;
        let reason = format!(
            "CASE repair_reason WHEN '/' THEN {} ELSE {} || repair_reason || {} END",
            text(&format!("a folder of table `{table}` has a name that is not as `partition_by` says")),
            text("there is no value in column `"),
            text(&format!("` of table `{table}` that can be read as the table declares it")),
        );
        let mut select = self.key_names();
        select.push(format!("CASE WHEN repair_reason IS NULL THEN {} END AS repair_slot", self.slot("repair_ms", &all)?));
        select.push("repair_ms".to_owned());
        for column in columns {
            let quoted = name(column);
            let number = read.iter().position(|known| known == column);
            let value = match number.map(|number| values::value(self.table, self.raw, column).map(|value| (number, value))).transpose()? {
                None if refuses => format!(
                    "CASE WHEN repair_reason IS NULL THEN {} ELSE {} END AS {quoted}",
                    time::timestamp("repair_ms"),
                    time::timestamp(&refusal(&reason))
                ),
                None => format!("{} AS {quoted}", time::timestamp("repair_ms")),
                Some((number, Some(value))) if refuses && value.bad.is_some() => {
                    let unread = unread(number);
                    let why = format!(
                        "{} || substr({unread}, 1, {MOST_SHOWN}) || {}",
                        text(&format!("column `{column}` of table `{table}` has the value `")),
                        text("`, which cannot be read as the table declares it")
                    );
                    format!(
                        "CASE WHEN {unread} IS NULL THEN {quoted} ELSE CAST({} AS {}) END AS {quoted}",
                        refusal(&why),
                        crate::catalog::trino_type(&value.declared)
                    )
                }
                Some(_) => quoted,
            };
            select.push(value);
        }
        let used = if refuses {
            // A row that cannot be read is a problem of the table, so no query leaves it out.
            format!("CASE WHEN repair_reason IS NULL THEN repair_far < 2 ELSE CAST({} AS boolean) END", refusal(&reason))
        } else {
            "repair_far < 2 AND repair_reason IS NULL".to_owned()
        };
        Ok(format!("SELECT {} FROM ({}) WHERE {used}", select.join(", "), self.prepared(&wanted, Shape::Native, false)?.sql))
    }

    /// How many rows there are in the objects that a scan of bounds reads.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn count(&self, bounds: &TimeBounds) -> Result<String> {
        Ok(format!("SELECT count(*) FROM {}{}", self.raw.quoted(), filter(&self.objects(bounds)?)))
    }

    /// The rows of the table, judged one by one. With `all`, rows of other times come too, if they are in objects that are read anyway.
    pub(super) fn prepared(&self, wanted: &Wanted<'_>, shape: Shape, all: bool) -> Result<Prepared> {
        let (table, raw, bounds) = (self.table, self.raw, &wanted.bounds);
        let (timing, folders) = (self.timing()?, Folders::of(table, raw)?);
        let names: Vec<String> = self.key_names();
        let mut select: Vec<String> = self.raw_keys().into_iter().zip(&names).map(|(value, key)| format!("{value} AS {key}")).collect();
        let mut unfit = Vec::new();
        // A reader of values as they are is refused each that cannot be read, once it asks for it. So these rows are no problem of the others.
        let refuses = self.refuses(shape);
        for (number, column) in wanted.columns.iter().enumerate() {
            let Some(value) = values::value(table, raw, column)? else { continue };
            if let (true, Some(bad)) = (refuses, &value.bad) {
                let cell = values::cell(table, raw, column).map(|cell| cell.expression).unwrap_or_default();
                select.push(format!("CASE WHEN {bad} THEN CAST({cell} AS varchar) END AS {}", unread(number)));
            }
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
        for column in wanted.columns.iter().copied().filter(|_| !refuses).chain(declared) {
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
                    TextForm::Calendar { clock: zone, doubt, dates, date_zone, written } => {
                        let null = || "CAST(NULL AS bigint)".to_owned();
                        let wall = groups.wall_ms(*written).unwrap_or_else(null);
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
}
