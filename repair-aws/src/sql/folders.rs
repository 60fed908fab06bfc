//! Folders that carry the time, as partition columns of the catalog: which of them may hold rows of a stretch of time, what they say about a
//! row, and what they would be for a row that is not in one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use repair_core::lake::partition::{self, SECOND_US, TimeBounds};
use repair_core::model::{PartitionUnit, PathField, PathPattern, PathPiece, Slack, Table, TimeForm, Zone};
use repair_core::{Error, Result};

use super::regex::{self, Group};
use super::time::{self, Clock, DAY_MS, Doubt, Groups, HOUR_MS, Written};
use super::{name, text};
use crate::catalog::{Kind, Relation};

/// Values that are listed one by one; beyond, a condition names the first and the last.
const MOST_LISTED: usize = 500;

/// A partition column, and what its values look like.
#[derive(Debug, Clone, PartialEq)]
struct Column {
    name: String,
    kind: Kind,
    pieces: Vec<PathPiece>,
}

/// The folders of a table.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    unit: PartitionUnit,
    zone: Zone,
    columns: Vec<Column>,
    /// The name of the file, if it is a part of the layout.
    file: Option<Vec<PathPiece>>,
    /// Whether values have all their digits, as in the short form.
    is_padded: bool,
    /// Whether rows may be in other folders.
    slack: Option<Slack>,
    /// How far from its folder a row may be too, where a version of it lies in the folder of the day on which it was written.
    lookback_us: i64,
}

fn fields(pieces: &[PathPiece]) -> impl Iterator<Item = PathField> + '_ {
    pieces.iter().filter_map(|piece| match piece {
        PathPiece::Field(field) => Some(*field),
        _ => None,
    })
}

fn says_something(pieces: &[PathPiece]) -> bool {
    pieces.iter().any(|piece| matches!(piece, PathPiece::Field(_) | PathPiece::Key(_)))
}

/// The value of a part such as `day=%d`, and the whole of any other.
fn value_of(part: &[PathPiece]) -> Vec<PathPiece> {
    match part {
        [PathPiece::Text(first), rest @ ..] if PathPattern::column_of(part).is_some() => {
            let value = first.split_once('=').map(|(_, value)| value).filter(|value| !value.is_empty());
            value.map(|value| PathPiece::Text(value.to_owned())).into_iter().chain(rest.iter().cloned()).collect()
        }
        _ => part.to_vec(),
    }
}

/// The pieces of a unit's name in the short form.
fn of_unit(unit: PartitionUnit) -> Vec<PathPiece> {
    let all = [PathField::Year, PathField::Month, PathField::Day, PathField::Hour];
    let count = match unit {
        PartitionUnit::Year => 1,
        PartitionUnit::Month => 2,
        PartitionUnit::Day => 3,
        PartitionUnit::Hour => 4,
    };
    let mut pieces = Vec::new();
    for field in all.into_iter().take(count) {
        if !pieces.is_empty() {
            pieces.push(PathPiece::Text("-".to_owned()));
        }
        pieces.push(PathPiece::Field(field));
    }
    pieces
}

fn unit_of(field: PathField) -> PartitionUnit {
    match field {
        PathField::Year => PartitionUnit::Year,
        PathField::Month => PartitionUnit::Month,
        PathField::Day | PathField::DayOfYear => PartitionUnit::Day,
        _ => PartitionUnit::Hour,
    }
}

fn floor(unit: PartitionUnit, at: DateTime) -> DateTime {
    let date = at.date();
    match unit {
        PartitionUnit::Year => date.first_of_year().at(0, 0, 0, 0),
        PartitionUnit::Month => date.first_of_month().at(0, 0, 0, 0),
        PartitionUnit::Day => date.at(0, 0, 0, 0),
        PartitionUnit::Hour => date.at(at.hour(), 0, 0, 0),
    }
}

/// So many units later.
fn later(unit: PartitionUnit, at: DateTime, count: i64) -> Result<DateTime> {
    let span = match unit {
        PartitionUnit::Year => Span::new().try_years(count),
        PartitionUnit::Month => Span::new().try_months(count),
        PartitionUnit::Day => Span::new().try_days(count),
        PartitionUnit::Hour => Span::new().try_hours(count),
    };
    let too_far =
        |error: jiff::Error| Error::invalid(format!("{at} has no folder: folders are named for the years 0 to 9999")).because(error);
    at.checked_add(span.map_err(too_far)?).map_err(too_far)
}

/// How far from its folder a version of a row may be, unless the slack says another distance.
fn lookback_us(table: &Table) -> i64 {
    match table.slack {
        Slack::Seconds(_) => 0,
        _ => table.identity().lookback_us().unwrap_or(0),
    }
}

impl Folders {
    /// The folders of a table that say which time their rows have; `None` if none do.
    ///
    /// # Errors
    /// `invalid` if the catalog's partition columns are not those of the table's folders.
    pub(crate) fn of(table: &Table, relation: &Relation) -> Result<Option<Self>> {
        if let Some(layout) = &table.layout {
            let Some(unit) = layout.path.unit() else { return Ok(None) };
            let (columns, file) = mapped(table, relation, &layout.path)?;
            let slack = Some(table.slack);
            let folders = Self { unit, zone: layout.zone.clone(), columns, file, is_padded: false, slack, lookback_us: lookback_us(table) };
            folders.check(table)?;
            return Ok(Some(folders));
        }
        let Some(by) = partition::time_partition(table)? else { return Ok(None) };
        // A view shows the partitions of its table as columns.
        let kind = relation.partition_kind(&by.column).or_else(|| relation.kind(&by.column).filter(|_| relation.is_view));
        let Some(kind) = kind else { return Ok(None) };
        let column = Column { name: by.column.clone(), kind, pieces: of_unit(by.unit) };
        let folders = Self {
            unit: by.unit,
            zone: Zone::utc(),
            columns: vec![column],
            file: None,
            is_padded: true,
            slack: Some(table.slack),
            lookback_us: lookback_us(table),
        };
        folders.check(table)?;
        Ok(Some(folders))
    }

    /// The folders that hold the time of rows, if no layout says more about them: rows are never in others. `None` also if the catalog has
    /// no such partitions.
    pub(crate) fn of_time_in_path(table: &Table, relation: &Relation) -> Option<Self> {
        let (None, TimeForm::Path(path)) = (&table.layout, &table.reading.form) else { return None };
        let unit = path.unit()?;
        if path.finest().is_some_and(|finest| finest > PathField::Hour) {
            return None;
        }
        let (columns, file) = mapped(table, relation, path).ok()?;
        let zone = table.reading.zone.clone().unwrap_or_default();
        let folders = Self { unit, zone, columns, file, is_padded: false, slack: None, lookback_us: 0 };
        folders.check(table).ok()?;
        Some(folders)
    }

    fn check(&self, table: &Table) -> Result<()> {
        for column in &self.columns {
            let all: Vec<PathField> = fields(&column.pieces).collect();
            let is_date = column.pieces == of_unit(PartitionUnit::Day);
            let only_fields = all.len() == column.pieces.len();
            let fits = match column.kind {
                _ if all.is_empty() => true,
                Kind::Text => true,
                Kind::Date => is_date,
                Kind::Whole => only_fields,
                _ => false,
            };
            if fits {
                continue;
            }
            let example = written(&column.pieces, jiff::civil::date(2024, 3, 4).at(9, 0, 0, 0), false);
            return Err(Error::invalid(match &table.layout {
                None => format!(
                    "partition column `{}` of table `{}` is {} in Athena, and `partition_by` says it holds one {:?} each, such as `{example}`; \
                     declare the column as `string` in Athena, or correct `partition_by`",
                    column.name, table.name, column.kind, self.unit
                ),
                Some(layout) => format!(
                    "partition column `{}` of table `{}` is {} in Athena, and by `{}` under `partition_by` its values look like `{example}`; declare \
                     the column as `string` in Athena, or correct `partition_by`",
                    column.name, table.name, column.kind, layout.path
                ),
            }));
        }
        Ok(())
    }

    /// The columns that carry the time, from the coarsest.
    fn of_time(&self) -> Vec<&Column> {
        let mut columns: Vec<&Column> = self.columns.iter().filter(|column| fields(&column.pieces).next().is_some()).collect();
        columns.sort_by_key(|column| fields(&column.pieces).max());
        columns
    }

    /// The folders that may hold rows within bounds, in order: the first and the last.
    fn around(&self, bounds: &TimeBounds) -> Result<(DateTime, DateTime)> {
        let refuse = |us: i64| {
            Error::invalid(format!("a time of {us} µs since 1970 has no partition: partitions are named for the years 0 to 9999"))
        };
        let at = |us: i64| Timestamp::from_microsecond(us).map(|at| floor(self.unit, self.zone.local(at))).map_err(|_| refuse(us));
        let (reach_us, before, after) = match self.slack {
            Some(Slack::Seconds(seconds)) => (i64::from(seconds) * SECOND_US, 0, 0),
            // Where a clock skips an hour, the folder before the next one is not there.
            Some(_) if self.unit == PartitionUnit::Hour && !self.zone.is_utc() => (0, 2, 2),
            Some(_) => (0, 1, 1),
            None if self.zone.is_utc() => (0, 0, 0),
            // A folder named for a time that the clock skips may hold rows of the time after it. Clocks skip two hours at most (Troll), or a day (Samoa).
            None if self.unit == PartitionUnit::Hour => (0, 2, 0),
            None => (0, 1, 0),
        };
        let (from_us, last_us) = (bounds.from_us, bounds.to_us.saturating_sub(1));
        let first = later(self.unit, at(from_us.saturating_sub(reach_us))?, -before)?;
        let last = later(self.unit, at(last_us.saturating_add(reach_us))?, after)?;
        if self.lookback_us == 0 {
            return Ok((first, last));
        }
        Ok((first.min(at(from_us.saturating_sub(self.lookback_us))?), last.max(at(last_us.saturating_add(self.lookback_us))?)))
    }

    /// The condition on partition columns that selects the folders which may hold rows within bounds; `None` if all may.
    ///
    /// # Errors
    /// `invalid` if no folder can be named for the bounds.
    pub(crate) fn prune(&self, bounds: &TimeBounds) -> Result<Option<String>> {
        if *bounds == TimeBounds::ALL {
            return Ok(None);
        }
        if bounds.from_us >= bounds.to_us {
            return Ok(Some("false".to_owned()));
        }
        let columns = self.of_time();
        // Values with open text in them cannot be printed, nor what depends on them.
        let known = columns.iter().take_while(|column| {
            column.pieces.iter().all(|piece| match piece {
                PathPiece::Text(_) => true,
                PathPiece::Field(field) => *field <= PathField::Hour,
                _ => false,
            })
        });
        let columns: Vec<&Column> = known.copied().collect();
        let Some(unit) = columns.iter().flat_map(|column| fields(&column.pieces)).max().map(unit_of) else { return Ok(None) };
        let (first, last) = self.around(bounds)?;
        self.between(&columns, unit, floor(unit, first), floor(unit, last), None).map(Some)
    }

    /// The condition that columns hold one of the units of a stretch. What the columns before have already fixed is `within`.
    fn between(
        &self,
        columns: &[&Column],
        unit: PartitionUnit,
        first: DateTime,
        last: DateTime,
        within: Option<PartitionUnit>,
    ) -> Result<String> {
        let Some((column, rest)) = columns.split_first() else { return Ok("true".to_owned()) };
        let finest = fields(&column.pieces).max().map_or(unit, unit_of);
        // A column may repeat only what a coarser one says.
        let own = within.map_or(finest, |within| within.max(finest));
        if rest.is_empty() || own >= unit {
            return self.values(column, own.min(unit), floor(own.min(unit), first), floor(own.min(unit), last));
        }
        let (from, to) = (floor(own, first), floor(own, last));
        let both = |at: DateTime, first: DateTime, last: DateTime| -> Result<String> {
            let one = self.values(column, own, at, at)?;
            let end = later(unit, later(own, at, 1)?, -1)?;
            if first == at && last == end {
                return Ok(one);
            }
            Ok(format!("({one} AND {})", self.between(rest, unit, first, last, Some(own))?))
        };
        if from == to {
            return both(from, first, last);
        }
        let mut all = Vec::new();
        let (mut whole_from, mut whole_to) = (from, to);
        if first != from {
            all.push(both(from, first, later(unit, later(own, from, 1)?, -1)?)?);
            whole_from = later(own, from, 1)?;
        }
        let end = later(unit, later(own, to, 1)?, -1)?;
        let tail = if last == end {
            None
        } else {
            whole_to = later(own, to, -1)?;
            Some(both(to, to, last)?)
        };
        if whole_from <= whole_to {
            all.push(self.values(column, own, whole_from, whole_to)?);
        }
        all.extend(tail);
        Ok(if all.len() == 1 { all.remove(0) } else { format!("({})", all.join(" OR ")) })
    }

    /// The condition that a column has the value of one of some units.
    fn values(&self, column: &Column, unit: PartitionUnit, first: DateTime, last: DateTime) -> Result<String> {
        let quoted = name(&column.name);
        let (from, to) = (written(&column.pieces, first, false), written(&column.pieces, last, false));
        let several = fields(&column.pieces).count() > 1;
        match column.kind {
            Kind::Date if first == last => return Ok(format!("{quoted} = DATE {}", text(&from))),
            Kind::Date => return Ok(format!("{quoted} BETWEEN DATE {} AND DATE {}", text(&from), text(&to))),
            Kind::Whole => {
                let number = |text: &str| text.trim_start_matches('0').to_owned();
                let number = |text: &str| Some(number(text)).filter(|text| !text.is_empty()).unwrap_or_else(|| "0".to_owned());
                // A number with fewer digits may be one whose parts are not padded.
                let short = format!("1{}", "0".repeat(from.len().saturating_sub(1)));
                let range = format!("{quoted} BETWEEN {} AND {}", number(&from), number(&to));
                if several {
                    return Ok(format!("({range} OR {quoted} < {short})"));
                }
                // A single part runs on from 1 only if nothing coarser wraps it.
                if number(&from).len() <= number(&to).len() && is_run(unit, first, last) {
                    return Ok(range);
                }
            }
            _ => {}
        }
        if self.is_padded {
            return Ok(if first == last {
                format!("{quoted} = {}", text(&from))
            } else {
                format!("{quoted} BETWEEN {} AND {}", text(&from), text(&to))
            });
        }
        let mut listed: Vec<String> = Vec::new();
        let mut at = first;
        while at <= last {
            if listed.len() > MOST_LISTED * 4 && column.kind == Kind::Text {
                return Ok(format!("({quoted} BETWEEN {} AND {} OR length({quoted}) <> {})", text(&from), text(&to), from.chars().count()));
            }
            for value in variants(&column.pieces, at) {
                if !listed.contains(&value) {
                    listed.push(value);
                }
            }
            at = later(unit, at, 1)?;
        }
        let shown = |value: &String| if column.kind == Kind::Whole { value.trim_start_matches('0').to_owned() } else { text(value) };
        let mut listed: Vec<String> = listed.iter().map(shown).map(|value| if value.is_empty() { "0".to_owned() } else { value }).collect();
        listed.dedup();
        Ok(match listed.as_slice() {
            [one] => format!("{quoted} = {one}"),
            _ => format!("{quoted} IN ({})", listed.join(", ")),
        })
    }

    /// The expression of what the folder of a row says: the columns that it needs, each with its name, and then the expression of the
    /// folder's start on the clock of the zone in milliseconds, which is null if the folder's name is none.
    pub(crate) fn start(&self, relation: &Relation) -> (Vec<String>, String) {
        if let [column] = self.of_time().as_slice()
            && column.kind == Kind::Date
        {
            let part = format!("{} AS repair_date", name(&column.name));
            return (vec![part], format!("date_diff('day', DATE '1970-01-01', repair_date) * {DAY_MS}"));
        }
        let (mut select, mut groups): (Vec<String>, Vec<Group>) = (Vec::new(), Vec::new());
        let mut conditions = Vec::new();
        let mut add = |expression: &str, pattern: &str, own: Vec<Group>| {
            for (at, group) in own.into_iter().enumerate() {
                select.push(format!("regexp_extract({expression}, {}, {}) AS repair_d{}", text(pattern), at + 1, groups.len() + 1));
                // Whatever says the same thing twice must say the same.
                if let Some(before) = groups.iter().position(|known| *known == group) {
                    let number = |at: usize| format!("TRY_CAST(repair_d{at} AS bigint)");
                    conditions.push(format!("{} = {}", number(before + 1), number(groups.len() + 1)));
                }
                groups.push(group);
            }
        };
        for column in self.of_time() {
            let mut own = Vec::new();
            let pattern = format!("\\A{}\\z", regex::of_name(&column.pieces, &mut own));
            let value = if column.kind == Kind::Text { name(&column.name) } else { format!("CAST({} AS varchar)", name(&column.name)) };
            add(&value, &pattern, own);
        }
        if let Some(file) = &self.file {
            let mut own = Vec::new();
            let pattern = format!("/{}\\z", regex::of_name(file, &mut own));
            add(relation.path(), &pattern, own);
        }
        let wall =
            Groups { groups: &groups, prefix: "repair_d" }.wall_ms(Written::Path).unwrap_or_else(|| "CAST(NULL AS bigint)".to_owned());
        let start = if conditions.is_empty() { wall } else { format!("CASE WHEN {} THEN {wall} END", conditions.join(" AND ")) };
        (select, start)
    }

    /// The start of a unit so many units after the start of one.
    fn units_later(&self, ms: &str, count: i64) -> String {
        let date = |unit: &str| {
            format!(
                "date_diff('day', DATE '1970-01-01', date_add('{unit}', {count}, date_add('day', ({ms}) / {DAY_MS}, DATE '1970-01-01'))) * {DAY_MS}"
            )
        };
        match self.unit {
            PartitionUnit::Hour => format!("{ms} + {}", count * HOUR_MS),
            PartitionUnit::Day => format!("{ms} + {}", count * DAY_MS),
            PartitionUnit::Month => date("month"),
            PartitionUnit::Year => date("year"),
        }
    }

    /// A clock for all folders that may hold rows within bounds, and their neighbours.
    fn clock(&self, bounds: &TimeBounds) -> Result<Clock> {
        Ok(Clock::new(&self.zone, self.reach(bounds)?))
    }

    /// The time for which a clock must be right: that of all folders that may hold rows within bounds, and of rows that are used if they are
    /// in one of these. `None` for all time.
    pub(crate) fn reach(&self, bounds: &TimeBounds) -> Result<Option<(i64, i64)>> {
        if *bounds == TimeBounds::ALL || bounds.from_us >= bounds.to_us {
            return Ok(None);
        }
        let (first, last) = self.around(bounds)?;
        let slack_us = match self.slack {
            Some(Slack::Seconds(seconds)) => i64::from(seconds) * SECOND_US,
            _ => self.lookback_us,
        };
        let at = |local: DateTime| self.zone.start(local).map(Timestamp::as_microsecond);
        let (first, last) = (at(later(self.unit, first, -3)?)?, at(later(self.unit, last, 4)?)?);
        let margin_us = slack_us.saturating_add(3 * 86_400 * SECOND_US);
        Ok(Some((first.saturating_sub(margin_us), last.saturating_add(margin_us))))
    }

    /// Wraps rows that have `repair_ms`, and `repair_f`, the start of their folder on its clock, and says how far a row is from its folder: 0
    /// if it is in it, 1 if it is near enough to be used, and otherwise 2.
    ///
    /// # Errors
    /// As [`Folders::prune`].
    pub(crate) fn far(&self, rows: String, bounds: &TimeBounds) -> Result<(String, String)> {
        let clock = self.clock(bounds)?;
        let is_duration = matches!(self.slack, Some(Slack::Seconds(_))) || self.lookback_us > 0;
        // Where a clock is set, folders of hours do not follow each other hour by hour, and seconds are not those of the clock.
        let (rows, time) = if clock.is_fixed() || (self.unit != PartitionUnit::Hour && !is_duration) {
            let local = clock.local("repair_ms");
            if local == "repair_ms" {
                (rows, "repair_ms")
            } else {
                (format!("SELECT *, {local} AS repair_local FROM ({rows})"), "repair_local")
            }
        } else {
            return Ok((self.spans(&rows, &clock), ranges("repair_ms", "repair_from", "repair_to", "repair_lo", "repair_hi")));
        };
        let slack_ms = match (self.slack, self.unit) {
            (Some(Slack::Seconds(seconds)), _) => Some(i64::from(seconds) * 1_000),
            (Some(_), PartitionUnit::Hour) => Some(HOUR_MS.max(self.lookback_ms())),
            (Some(_), PartitionUnit::Day) => Some(DAY_MS.max(self.lookback_ms())),
            (Some(_), _) => None,
            (None, _) => Some(0),
        };
        let next = self.units_later("repair_f", 1);
        let (lo, hi, rows) = match slack_ms {
            Some(slack_ms) if matches!(self.unit, PartitionUnit::Hour | PartitionUnit::Day) => {
                (format!("repair_f - {slack_ms}"), format!("{next} + {slack_ms}"), rows)
            }
            Some(slack_ms) => {
                let rows = format!("SELECT *, {next} AS repair_next FROM ({rows})");
                (format!("repair_f - {slack_ms}"), format!("repair_next + {slack_ms}"), rows)
            }
            None => {
                let (before, after) = (self.units_later("repair_f", -1), self.units_later("repair_f", 2));
                let rows = format!("SELECT *, {next} AS repair_next, {before} AS repair_lo, {after} AS repair_hi FROM ({rows})");
                let (lo, hi) = self.around_folder("repair_f", "repair_next", "repair_lo", "repair_hi");
                (lo, hi, rows)
            }
        };
        let next = if matches!(self.unit, PartitionUnit::Hour | PartitionUnit::Day) { next } else { "repair_next".to_owned() };
        Ok((rows, ranges(time, "repair_f", &next, &lo, &hi)))
    }

    /// The lookback, up to a whole millisecond.
    fn lookback_ms(&self) -> i64 {
        super::bound_ms(self.lookback_us)
    }

    /// A time that no folder of the unit is longer than, though a clock be set by a day.
    fn longest_ms(&self) -> i64 {
        match self.unit {
            // Those of hours are looked up.
            PartitionUnit::Hour | PartitionUnit::Day => 50 * HOUR_MS,
            PartitionUnit::Month => 33 * DAY_MS,
            PartitionUnit::Year => 368 * DAY_MS,
        }
    }

    /// Between which times rows of a folder are used that covers `from` to `to`, if one folder each way is `before` to `after`.
    fn around_folder(&self, from: &str, to: &str, before: &str, after: &str) -> (String, String) {
        match self.lookback_ms() {
            0 => (before.to_owned(), after.to_owned()),
            lookback_ms => (format!("least({before}, {from} - {lookback_ms})"), format!("greatest({after}, {to} + {lookback_ms})")),
        }
    }

    /// How far before and after a folder of an hour its rows are used, in milliseconds, from its start in `repair_f`: by the folder beside it, or by
    /// the lookback if that is longer. A folder is as long as an hour, except where the clock is set. These few are computed here: as
    /// expressions, the folders beside a folder would hold the whole clock several times over, each time inside the other.
    fn reach_of_hours(&self, clock: &Clock) -> [String; 2] {
        let usual_ms = HOUR_MS.max(self.lookback_ms());
        let mut odd: [BTreeMap<i64, BTreeSet<i64>>; 2] = Default::default();
        for (at_s, offsets_s) in clock.settings() {
            let shown_s = offsets_s.map(|offset_s| at_s + offset_s);
            let hour = |second: i64| (second * 1_000).div_euclid(HOUR_MS);
            let [first, last] = [shown_s.into_iter().min(), shown_s.into_iter().max()].map(|second| hour(second.unwrap_or(at_s)));
            for start_ms in (first - 2..=last + 2).map(|hour| hour * HOUR_MS) {
                for (odd, reach_us) in odd.iter_mut().zip(self.beside_us(start_ms).unwrap_or_default()) {
                    let reach_ms = (reach_us / 1_000).max(self.lookback_ms());
                    if reach_ms != usual_ms {
                        odd.entry(reach_ms).or_default().insert(start_ms);
                    }
                }
            }
        }
        odd.map(|odd| {
            let case = |(reach_ms, starts): (&i64, &BTreeSet<i64>)| {
                let starts: Vec<String> = starts.iter().map(ToString::to_string).collect();
                format!("WHEN repair_f IN ({}) THEN {reach_ms}", starts.join(", "))
            };
            let cases: Vec<String> = odd.iter().map(case).collect();
            if cases.is_empty() { usual_ms.to_string() } else { format!("(CASE {} ELSE {usual_ms} END)", cases.join(" ")) }
        })
    }

    /// How long the folders before and after a folder are, by its start on its clock in milliseconds.
    fn beside_us(&self, start_ms: i64) -> Option<[i64; 2]> {
        let start = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(start_ms).ok()?);
        let span = partition::span_of(self.unit, start, &self.zone)?;
        let folder = |us: i64| {
            let local = self.zone.local(Timestamp::from_microsecond(us).ok()?);
            partition::span_of(self.unit, floor(self.unit, local), &self.zone)
        };
        Some([span.from_us - folder(span.from_us - 1)?.from_us, folder(span.to_us)?.to_us - span.to_us])
    }

    /// Adds the instants between which the times of a folder lie, and between which times are used.
    fn spans(&self, rows: &str, clock: &Clock) -> String {
        let start = |local: &str| clock.instant(local, Doubt::Start);
        let next = self.units_later("repair_f", 1);
        let rows = format!("SELECT *, {next} AS repair_next FROM ({rows})");
        let rows = format!("SELECT *, {} AS repair_from, {} AS repair_to FROM ({rows})", start("repair_f"), start("repair_next"));
        match self.slack {
            Some(Slack::Seconds(seconds)) => {
                let slack_ms = i64::from(seconds) * 1_000;
                format!("SELECT *, repair_from - {slack_ms} AS repair_lo, repair_to + {slack_ms} AS repair_hi FROM ({rows})")
            }
            // One folder each way is no farther.
            Some(_) if self.unit != PartitionUnit::Hour && self.lookback_ms() >= self.longest_ms() => {
                let lookback_ms = self.lookback_ms();
                format!("SELECT *, repair_from - {lookback_ms} AS repair_lo, repair_to + {lookback_ms} AS repair_hi FROM ({rows})")
            }
            Some(_) if self.unit != PartitionUnit::Hour => {
                let (before, after) = (start(&self.units_later("repair_f", -1)), start(&self.units_later("repair_f", 2)));
                let (lo, hi) = self.around_folder("repair_from", "repair_to", &before, &after);
                format!("SELECT *, {lo} AS repair_lo, {hi} AS repair_hi FROM ({rows})")
            }
            Some(_) => {
                let [before, after] = self.reach_of_hours(clock);
                format!("SELECT *, repair_from - {before} AS repair_lo, repair_to + {after} AS repair_hi FROM ({rows})")
            }
            None => format!("SELECT *, repair_from AS repair_lo, repair_to AS repair_hi FROM ({rows})"),
        }
    }

    /// The first instant of a row's folder in milliseconds, from `repair_f`.
    pub(crate) fn first_instant(&self, bounds: &TimeBounds) -> Result<String> {
        Ok(self.clock(bounds)?.instant("repair_f", Doubt::Start))
    }

    /// The clock that its folders are named by, at all times.
    pub(crate) fn local(&self, ms: &str) -> String {
        Clock::new(&self.zone, None).local(ms)
    }

    /// What a partition column would hold for a row whose local time is in `local`, in milliseconds, and whose keys are in columns;
    /// `None` if that cannot be known.
    pub(crate) fn value_for(&self, column: &str, declared: &str, local: &str, key: impl Fn(&str) -> String) -> Option<String> {
        let of = self.columns.iter().find(|known| known.name.eq_ignore_ascii_case(column))?;
        let at = time::timestamp(local);
        if of.kind == Kind::Date {
            return Some(format!("CAST({at} AS date)"));
        }
        let padded = |part: String, length: u8| format!("lpad(CAST({part} AS varchar), {length}, '0')");
        let mut parts = Vec::new();
        for piece in &of.pieces {
            parts.push(match piece {
                PathPiece::Text(value) => text(value),
                PathPiece::Key(column) => key(column),
                PathPiece::Field(PathField::Year) => padded(format!("year({at})"), 4),
                PathPiece::Field(PathField::Month) => padded(format!("month({at})"), 2),
                PathPiece::Field(PathField::Day) => padded(format!("day({at})"), 2),
                PathPiece::Field(PathField::DayOfYear) => padded(format!("day_of_year({at})"), 3),
                PathPiece::Field(PathField::Hour) => padded(format!("hour({at})"), 2),
                _ => return None,
            });
        }
        let value = parts.join(" || ");
        Some(format!("CAST({value} AS {})", crate::catalog::trino_type(declared)))
    }
}

/// How far a time is from a stretch, and from a wider one around it.
fn ranges(time: &str, from: &str, to: &str, lo: &str, hi: &str) -> String {
    format!("CASE WHEN {time} >= {from} AND {time} < {to} THEN 0 WHEN {time} >= {lo} AND {time} < {hi} THEN 1 ELSE 2 END")
}

/// Whether the values of a part rise from the first unit to the last without a gap.
fn is_run(unit: PartitionUnit, first: DateTime, last: DateTime) -> bool {
    match unit {
        PartitionUnit::Year => true,
        PartitionUnit::Month => first.year() == last.year(),
        PartitionUnit::Day => (first.year(), first.month()) == (last.year(), last.month()),
        PartitionUnit::Hour => first.date() == last.date(),
    }
}

/// The parts of a pattern as partition columns, by their names where they have one, and otherwise in order; and the name of the file.
type Mapped = (Vec<Column>, Option<Vec<PathPiece>>);

fn mapped(table: &Table, relation: &Relation, path: &PathPattern) -> Result<Mapped> {
    let mut parts: Vec<&[PathPiece]> = path.parts().iter().map(Vec::as_slice).collect();
    let file = if path.names_a_file() { parts.pop().map(<[PathPiece]>::to_vec) } else { None };
    let known = if relation.is_view { &relation.columns } else { &relation.partitions };
    let mut columns = Vec::new();
    let mut unnamed: Vec<Vec<PathPiece>> = Vec::new();
    for part in parts {
        let Some(named) = PathPattern::column_of(part) else {
            if says_something(part) {
                unnamed.push(part.to_vec());
            }
            continue;
        };
        let Some(kind) =
            known.iter().find(|column| column.name.eq_ignore_ascii_case(named)).map(|column| crate::catalog::kind_of(&column.declared))
        else {
            let pieces = value_of(part);
            if !says_something(&pieces) {
                continue;
            }
            return Err(Error::invalid(format!(
                "table `{}` has no partition column `{named}` in Athena; its partitions are {}; declare it with the partitions of `{path}`, or correct \
                 `partition_by`",
                table.name,
                crate::catalog::list(known)
            )));
        };
        columns.push(Column { name: named.to_owned(), kind, pieces: value_of(part) });
    }
    if unnamed.is_empty() {
        return Ok((columns, file.filter(|file| says_something(file))));
    }
    let rest: Vec<_> = known.iter().filter(|column| !columns.iter().any(|mapped| mapped.name.eq_ignore_ascii_case(&column.name))).collect();
    let add = |columns: &mut Vec<Column>, column: &crate::catalog::Column, pieces: Vec<PathPiece>| {
        columns.push(Column { name: column.name.clone(), kind: crate::catalog::kind_of(&column.declared), pieces });
    };
    match rest.as_slice() {
        rest if rest.len() == unnamed.len() && !relation.is_view => {
            for (column, pieces) in rest.iter().zip(unnamed) {
                add(&mut columns, column, pieces);
            }
        }
        // One column for all of them, as with partition projection: `2024/03/04/09`.
        [one] if !relation.is_view => {
            let mut pieces: Vec<PathPiece> = Vec::new();
            for part in unnamed {
                if !pieces.is_empty() {
                    pieces.push(PathPiece::Text("/".to_owned()));
                }
                pieces.extend(part);
            }
            add(&mut columns, one, pieces);
        }
        _ => {
            return Err(Error::invalid(format!(
                "the folders of table `{}` are `{path}`, and its partition columns in Athena are {}, so it is not clear which folder is which; declare it \
                 with one partition column for each folder, in the same order, or write the columns' names, as in `year=%Y`",
                table.name,
                crate::catalog::list(&relation.partitions)
            )));
        }
    }
    Ok((columns, file.filter(|file| says_something(file))))
}

/// How pieces are written for a time; with as few digits as can be, if that is wanted of a field.
fn written(pieces: &[PathPiece], at: DateTime, short: bool) -> String {
    spelled(pieces, at, &|_| short)
}

fn spelled(pieces: &[PathPiece], at: DateTime, short: &dyn Fn(usize) -> bool) -> String {
    let mut value = String::new();
    for (number, piece) in pieces.iter().enumerate() {
        let (part, length) = match piece {
            PathPiece::Text(text) => {
                value.push_str(text);
                continue;
            }
            PathPiece::Field(PathField::Year) => (i64::from(at.year()), 4),
            PathPiece::Field(PathField::Month) => (i64::from(at.month()), 2),
            PathPiece::Field(PathField::Day) => (i64::from(at.day()), 2),
            PathPiece::Field(PathField::DayOfYear) => (i64::from(at.day_of_year()), 3),
            PathPiece::Field(PathField::Hour) => (i64::from(at.hour()), 2),
            _ => continue,
        };
        let length = if length == 2 && short(number) { 1 } else { length };
        value.push_str(&format!("{part:0length$}"));
    }
    value
}

/// All ways in which pieces may be written for a time: numbers of two digits may lack the zero in front.
fn variants(pieces: &[PathPiece], at: DateTime) -> Vec<String> {
    let open: Vec<usize> = pieces
        .iter()
        .enumerate()
        .filter(|(_, piece)| matches!(piece, PathPiece::Field(PathField::Month | PathField::Day | PathField::Hour)))
        .map(|(number, _)| number)
        .collect();
    let mut all: Vec<String> = Vec::new();
    for choice in 0..1usize << open.len() {
        let short = |number: usize| open.iter().position(|at| *at == number).is_some_and(|bit| choice >> bit & 1 == 1);
        let value = spelled(pieces, at, &short);
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use repair_core::model::Format;

    use super::*;
    use crate::catalog::Column as Declared;

    fn relation(partitions: &[(&str, &str)]) -> Relation {
        let of = |(name, declared): &(&str, &str)| Declared { name: (*name).to_owned(), declared: (*declared).to_owned() };
        Relation { name: "t".to_owned(), database: "d".to_owned(), partitions: partitions.iter().map(of).collect(), ..Relation::default() }
    }

    fn pruned(path: &str, zone: &str, partitions: &[(&str, &str)], from: &str, to: &str) -> Result<String> {
        let table = Table::new("t", Format::Parquet, "ts").with_layout(path.parse()?, zone.parse()?);
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        let folders = Folders::of(&table, &relation(partitions))?.ok_or_else(|| Error::internal("no folders"))?;
        Ok(folders.prune(&TimeBounds { from_us: at(from), to_us: at(to) })?.unwrap_or_default())
    }

    #[test]
    fn only_the_folders_around_a_stretch_are_read() {
        let day = ("2024-03-05T00:00:00Z", "2024-03-06T00:00:00Z");
        let of = |path: &str, partitions: &[(&str, &str)]| pruned(path, "UTC", partitions, day.0, day.1).unwrap();
        assert_eq!(
            of("dt=%Y%m%d", &[("dt", "string")]),
            "\"dt\" IN ('20240304', '2024304', '2024034', '202434', '20240305', '2024305', '2024035', '202435', '20240306', '2024306', '2024036', \
             '202436')"
        );
        assert_eq!(of("dt=%Y%m%d", &[("dt", "int")]), "(\"dt\" BETWEEN 20240304 AND 20240306 OR \"dt\" < 10000000)");
        assert_eq!(of("dt=%F", &[("dt", "date")]), "\"dt\" BETWEEN DATE '2024-03-04' AND DATE '2024-03-06'");
        let hive = "year=%Y/month=%m/day=%d";
        assert_eq!(
            of(hive, &[("year", "int"), ("month", "int"), ("day", "int")]),
            "(\"year\" BETWEEN 2024 AND 2024 AND (\"month\" BETWEEN 3 AND 3 AND \"day\" BETWEEN 4 AND 6))"
        );
        assert_eq!(
            of(hive, &[("year", "string"), ("month", "string"), ("day", "string")]),
            "(\"year\" = '2024' AND (\"month\" IN ('03', '3') AND \"day\" IN ('04', '4', '05', '5', '06', '6')))"
        );
        // By order, where names say nothing.
        let hours = pruned(
            "%Y/%m/%d/%H",
            "UTC",
            &[("y", "int"), ("m", "int"), ("d", "int"), ("h", "int")],
            "2024-03-05T22:00:00Z",
            "2024-03-05T23:00:00Z",
        );
        assert_eq!(
            hours.unwrap(),
            "(\"y\" BETWEEN 2024 AND 2024 AND (\"m\" BETWEEN 3 AND 3 AND (\"d\" BETWEEN 5 AND 5 AND \"h\" BETWEEN 21 AND 23)))"
        );
        let one = pruned("%Y/%m/%d", "UTC", &[("day", "string")], day.0, day.1).unwrap();
        assert!(one.starts_with("\"day\" IN ('2024/03/04', '2024/3/04', "), "{one}");
    }

    #[test]
    fn long_stretches_are_grouped() {
        let hive = "year=%Y/month=%m/day=%d";
        let columns = [("year", "int"), ("month", "int"), ("day", "int")];
        assert_eq!(
            pruned(hive, "UTC", &columns, "2022-11-16T00:00:00Z", "2025-02-02T00:00:00Z").unwrap(),
            "((\"year\" BETWEEN 2022 AND 2022 AND ((\"month\" BETWEEN 11 AND 11 AND \"day\" BETWEEN 15 AND 30) OR \"month\" BETWEEN 12 AND 12)) OR \"year\" \
             BETWEEN 2023 AND 2024 OR (\"year\" BETWEEN 2025 AND 2025 AND (\"month\" BETWEEN 1 AND 1 OR (\"month\" BETWEEN 2 AND 2 AND \"day\" BETWEEN 1 AND \
             2))))"
        );
        let many = pruned("dt=%Y%m%d", "UTC", &[("dt", "string")], "1990-01-01T00:00:00Z", "2024-01-01T00:00:00Z").unwrap();
        assert_eq!(many, "(\"dt\" BETWEEN '19891231' AND '20240101' OR length(\"dt\") <> 8)");
    }

    #[test]
    fn folders_of_a_zone_are_those_of_its_days() {
        let sydney = pruned("dt=%F", "Australia/Sydney", &[("dt", "date")], "2024-03-05T14:00:00Z", "2024-03-05T15:00:00Z").unwrap();
        assert_eq!(sydney, "\"dt\" BETWEEN DATE '2024-03-05' AND DATE '2024-03-07'");
    }

    /// What is printed as the reach of folders of hours is what the core says, at every change of a clock, and it is short.
    #[test]
    fn folders_of_hours_reach_as_far_as_the_core_says() {
        let layout: PathPattern = "%Y/%m/%d/%H".parse().unwrap();
        let partitions = [("y", "int"), ("m", "int"), ("d", "int"), ("h", "int")];
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "Antarctica/Casey"];
        for (name, lookback_h) in zones.into_iter().flat_map(|name| [0u64, 1, 2, 25].map(|lookback_h| (name, lookback_h))) {
            let zone: Zone = name.parse().unwrap();
            let mut table = Table::new("t", Format::Parquet, "ts").with_key(["k"]).with_layout(layout.clone(), zone.clone());
            if lookback_h > 0 {
                table = table.with_rows(repair_core::model::Rows::Unique);
                table.lookback = Some(std::time::Duration::from_secs(lookback_h * 3_600));
            }
            let folders = Folders::of(&table, &relation(&partitions)).unwrap().unwrap();
            let clock = folders.clock(&TimeBounds::ALL).unwrap();
            let printed = folders.reach_of_hours(&clock);
            assert!(printed.iter().map(String::len).sum::<usize>() < 8_000, "{name}: {printed:?}");
            let of = |printed: &str, start_ms: i64| -> i64 {
                let listed = |case: &&str| case.split_once(") THEN ").unwrap().0.split(", ").any(|known| known == start_ms.to_string());
                let found = printed.split("WHEN repair_f IN (").skip(1).find(listed).map(|case| case.split_once(") THEN ").unwrap().1);
                let usual = || printed.rsplit("ELSE ").next().unwrap();
                found.unwrap_or_else(usual).split([' ', ')']).next().unwrap().parse().unwrap()
            };
            for (at_s, [before_s, _]) in clock.settings() {
                for hour in -30..30 {
                    let start_ms = (at_s + before_s).div_euclid(3_600) * HOUR_MS + hour * HOUR_MS;
                    let start = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(start_ms).unwrap());
                    let span = partition::span_of(PartitionUnit::Hour, start, &zone).unwrap();
                    let used = partition::with_slack(&table, span);
                    let expected = [span.from_us - used.from_us, used.to_us - span.to_us].map(|us| us / 1_000);
                    assert_eq!([of(&printed[0], start_ms), of(&printed[1], start_ms)], expected, "{name}, {lookback_h} h: {start}");
                }
            }
        }
    }

    #[test]
    fn folders_that_are_not_the_partitions_are_refused() {
        let day = ("2024-03-05T00:00:00Z", "2024-03-06T00:00:00Z");
        for (path, partitions, named) in [
            ("dt=%Y%m%d", &[("date", "string")][..], "no partition column `dt`"),
            ("%Y/%m", &[("a", "int"), ("b", "int"), ("c", "int")], "not clear which folder is which"),
            ("%Y/%m", &[], "not clear which folder is which"),
            ("dt=%Y-%m-%d", &[("dt", "int")], "a whole number in Athena"),
            ("dt=%Y%m%d", &[("dt", "date")], "a date in Athena"),
        ] {
            let error = pruned(path, "UTC", partitions, day.0, day.1).unwrap_err();
            assert!(error.message().contains(named), "{path}: {error}");
        }
    }
}
