//! What is sent to Athena: all SQL of this crate is printed here, from values. No I/O.
//!
//! The dialect is Trino's, except that statements which create tables and partitions use Hive's, as Athena requires. These rules hold
//! throughout:
//! - Times are whole numbers of milliseconds since 1970, which is what Athena keeps of a timestamp, so nothing is rounded.
//! - Division of whole numbers rounds towards zero, so the dividend is first made positive, by counting from a base before all rows.
//! - Our names begin with `repair_`, as in the overlay, to avoid a user's columns.
//! - How a table's text, times and folders are read concerns its own rows only: the overlay has timestamps and types of its own.

pub(crate) mod cells;
mod define;
mod folders;
mod judged;
mod presence;
mod regex;
mod retracted;
mod rollup;
mod rows;
mod slots;
mod time;
mod timing;
pub(crate) mod values;
mod versions;
mod view;

use std::collections::BTreeMap;

use repair_core::lake::overlay::columns;
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::model::{Key, Table};

pub(crate) use self::define::{add_columns, add_partitions, create_table, drop_table, suggested_table};
pub(crate) use self::judged::refused;
pub(crate) use self::presence::words;
use crate::catalog::Relation;

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

/// The order of repairs: the newer counts; of two from the same instant, the one whose run, then unit, sorts last by name.
fn newest_first() -> String {
    [columns::AT, columns::RUN, columns::UNIT].map(|column| format!("{} DESC", name(column))).join(", ")
}

/// A string literal in a query.
pub(crate) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Whole milliseconds, rounded up; used for bounds, which lie between rows.
pub(crate) fn bound_ms(us: i64) -> i64 {
    us.div_euclid(MILLI_US) + i64::from(us.rem_euclid(MILLI_US) > 0)
}

/// An instant, rounded up to milliseconds.
pub(crate) fn instant(us: i64) -> String {
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
    /// The retractions of repairs and exceptions; `None` if there are none.
    pub(crate) retracted: Option<&'a Relation>,
}

/// The wanted rows and columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) bounds: TimeBounds,
    pub(crate) keys: Option<&'a [Key]>,
    /// The columns other than key and time, in order.
    pub(crate) columns: &'a [&'a str],
}

/// The condition that a time in milliseconds is within bounds; `None` if any time is.
fn in_bounds(bounds: &TimeBounds) -> Option<String> {
    (*bounds != TimeBounds::ALL).then(|| format!("repair_ms >= {} AND repair_ms < {}", bound_ms(bounds.from_us), bound_ms(bounds.to_us)))
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
