//! Dates and instants. All arithmetic is on microseconds since 1970 in UTC: an instant with another zone is shown in that zone, but its
//! parts are computed in UTC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::super::text::{text, zone_named};
use super::super::types::TIMESTAMP;
use super::{Function, bad_argument, bad_type};

pub(super) fn functions() -> impl Iterator<Item = Function> {
    let parts = [
        part("year", |columns, _| parts(columns, |at| i64::from(at.year()))),
        part("quarter", |columns, _| parts(columns, |at| i64::from((at.month() + 2) / 3))),
        part("month", |columns, _| parts(columns, |at| i64::from(at.month()))),
        part("week", |columns, _| parts(columns, |at| i64::from(at.date().iso_week_date().week()))),
        part("week_of_year", |columns, _| parts(columns, |at| i64::from(at.date().iso_week_date().week()))),
        part("year_of_week", |columns, _| parts(columns, |at| i64::from(at.date().iso_week_date().year()))),
        part("yow", |columns, _| parts(columns, |at| i64::from(at.date().iso_week_date().year()))),
        part("day", |columns, _| parts(columns, |at| i64::from(at.day()))),
        part("day_of_month", |columns, _| parts(columns, |at| i64::from(at.day()))),
        part("day_of_week", |columns, _| parts(columns, |at| i64::from(at.weekday().to_monday_one_offset()))),
        part("dow", |columns, _| parts(columns, |at| i64::from(at.weekday().to_monday_one_offset()))),
        part("day_of_year", |columns, _| parts(columns, |at| i64::from(at.day_of_year()))),
        part("doy", |columns, _| parts(columns, |at| i64::from(at.day_of_year()))),
        part("hour", |columns, _| parts(columns, |at| i64::from(at.hour()))),
        part("minute", |columns, _| parts(columns, |at| i64::from(at.minute()))),
        part("second", |columns, _| parts(columns, |at| i64::from(at.second()))),
        part("millisecond", |columns, _| parts(columns, |at| i64::from(at.subsec_nanosecond() / 1_000_000))),
    ];
    let others = [
        Function::new("to_unixtime", (1, 1), |kinds, _| temporal("to_unixtime", kinds, DataType::Float64), to_unixtime),
        Function::new("from_unixtime", (1, 1), |_, _| Ok(zoned(TimeUnit::Millisecond)), from_unixtime),
        Function::new("from_unixtime_nanos", (1, 1), |_, _| Ok(zoned(TimeUnit::Nanosecond)), from_unixtime_nanos),
        Function::new("from_iso8601_timestamp", (1, 1), |_, _| Ok(zoned(TimeUnit::Millisecond)), from_iso8601_timestamp),
        Function::new("from_iso8601_date", (1, 1), |_, _| Ok(DataType::Date32), from_iso8601_date),
        Function::new(
            "$try_from_iso8601_timestamp",
            (1, 1),
            |_, _| Ok(zoned(TimeUnit::Millisecond)),
            |columns, kind| {
                let instants: Int64Array = texts(&columns[0])?.iter().map(|value| iso8601(value?)).collect();
                Ok(cast(&instants, kind)?)
            },
        ),
        Function::new(
            "$try_from_iso8601_date",
            (1, 1),
            |_, _| Ok(DataType::Date32),
            |columns, kind| {
                let values: StringArray = texts(&columns[0])?
                    .iter()
                    .map(|value| value.filter(|value| value.parse::<Date>().is_ok() && !value.contains(['T', ' '])))
                    .collect();
                Ok(cast(&values, kind)?)
            },
        ),
        Function::new(
            "$try_date_parse",
            (2, 2),
            |_, _| Ok(TIMESTAMP),
            |columns, kind| {
                let (values, formats) = (texts(&columns[0])?, texts(&columns[1])?);
                as_given(values.iter().zip(formats.iter()).map(|(value, format)| mysql_parse(value?, format?)).collect(), kind)
            },
        ),
        Function::new("to_iso8601", (1, 1), |kinds, _| temporal("to_iso8601", kinds, DataType::Utf8), to_iso8601),
        Function::new("date_trunc", (2, 2), second_type, date_trunc),
        Function::new("date_diff", (3, 3), |_, _| Ok(DataType::Int64), date_diff),
        Function::new("date_add", (3, 3), third_type, date_add),
        Function::new("date_format", (2, 2), |_, _| Ok(DataType::Utf8), date_format),
        Function::new("date_parse", (2, 2), |_, _| Ok(TIMESTAMP), date_parse),
        Function::new("last_day_of_month", (1, 1), |_, _| Ok(DataType::Date32), last_day_of_month),
        Function::new("at_timezone", (2, 2), at_timezone_type, |columns, kind| {
            // A time without a zone is in the session's zone, UTC, so the instant stays the same.
            let instant = match columns[0].data_type() {
                DataType::Timestamp(unit, None) => cast(&columns[0], &zoned(*unit))?,
                _ => Arc::clone(&columns[0]),
            };
            Ok(cast(&instant, kind)?)
        }),
        Function::new("with_timezone", (2, 2), at_timezone_type, with_timezone),
    ];
    parts.into_iter().chain(others)
}

fn zoned(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, Some("UTC".into()))
}

fn temporal(function: &str, kinds: &[DataType], result: DataType) -> Result<DataType> {
    match &kinds[0] {
        DataType::Date32 | DataType::Timestamp(..) | DataType::Null => Ok(result),
        _ => Err(bad_type(function, kinds)),
    }
}

/// Microseconds since 1970 of a date or an instant; finer parts are cut off.
fn micros(column: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    match column.data_type() {
        DataType::Date32 | DataType::Timestamp(..) | DataType::Null => {}
        other => return Err(bad_type("of dates and times", std::slice::from_ref(other))),
    }
    // The zone is removed without changing the instant.
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let instants = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(instants.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>))
}

fn civil(micros: i64) -> Option<DateTime> {
    Some(TimeZone::UTC.to_datetime(Timestamp::from_microsecond(micros).ok()?))
}

fn micros_of(at: DateTime) -> Option<i64> {
    Some(TimeZone::UTC.to_timestamp(at).ok()?.as_microsecond())
}

fn part(name: &'static str, evaluate: super::Evaluate) -> Function {
    Function::new(name, (1, 1), |kinds, _| temporal("of a part of a date", kinds, DataType::Int64), evaluate)
}

fn parts(columns: &[ArrayRef], of: fn(DateTime) -> i64) -> Result<ArrayRef> {
    Ok(Arc::new(micros(&columns[0])?.iter().map(|at| civil(at?).map(of)).collect::<Int64Array>()))
}

#[expect(clippy::cast_precision_loss, reason = "microseconds are exact in a double until the year 2255")]
fn to_unixtime(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    Ok(Arc::new(micros(&columns[0])?.iter().map(|at| at.map(|at| at as f64 / 1e6)).collect::<Float64Array>()))
}

#[expect(clippy::cast_possible_truncation, reason = "a double beyond the range gives the end of the range, as in Trino")]
fn from_unixtime(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let seconds = cast(&columns[0], &DataType::Float64)?;
    let millis: Int64Array = seconds.as_primitive::<Float64Type>().unary(|second| (second * 1_000.0).round() as i64);
    Ok(cast(&millis, kind)?)
}

fn from_unixtime_nanos(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    Ok(cast(&cast(&columns[0], &DataType::Int64)?, kind)?)
}

fn texts(column: &ArrayRef) -> Result<StringArray> {
    match column.data_type() {
        DataType::Utf8 | DataType::Null => Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone()),
        other => Err(bad_type("of text", std::slice::from_ref(other))),
    }
}

fn from_iso8601_timestamp(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let mut instants = Vec::new();
    for value in &texts(&columns[0])? {
        instants.push(match value {
            None => None,
            Some(value) => Some(iso8601(value).ok_or_else(|| bad_argument(format!("Invalid format: \"{value}\"")))?),
        });
    }
    Ok(cast(&Int64Array::from(instants), kind)?)
}

/// Milliseconds since 1970; a time without a zone is in UTC, a date is its midnight.
fn iso8601(value: &str) -> Option<i64> {
    if let Ok(instant) = value.parse::<Timestamp>() {
        return value.contains('T').then(|| instant.as_millisecond());
    }
    let at: DateTime = match value.parse::<Date>() {
        Ok(date) if !value.contains(['T', ' ']) => date.into(),
        _ if value.contains('T') => value.parse().ok()?,
        _ => return None,
    };
    Some(TimeZone::UTC.to_timestamp(at).ok()?.as_millisecond())
}

fn from_iso8601_date(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let values = texts(&columns[0])?;
    for value in values.iter().flatten() {
        if value.parse::<Date>().is_err() || value.contains(['T', ' ']) {
            return Err(bad_argument(format!("Invalid format: \"{value}\"")));
        }
    }
    Ok(cast(&values, kind)?)
}

fn to_iso8601(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let column = &columns[0];
    let has_zone = matches!(column.data_type(), DataType::Timestamp(_, Some(_)));
    let mut values = Vec::new();
    for row in 0..column.len() {
        values.push(text(column.as_ref(), row)?.map(|value| {
            let value = value.replacen(' ', "T", 1);
            if has_zone { value.replace(" UTC", "Z") } else { value }
        }));
    }
    Ok(Arc::new(StringArray::from(values)))
}

/// A unit of time, as the first argument of the `date_` functions names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A number of microseconds.
    Fixed(i64),
    /// A number of months.
    Months(i64),
}

fn unit(name: &str) -> Result<Unit> {
    Ok(match name.to_lowercase().as_str() {
        "millisecond" => Unit::Fixed(1_000),
        "second" => Unit::Fixed(1_000_000),
        "minute" => Unit::Fixed(60_000_000),
        "hour" => Unit::Fixed(3_600_000_000),
        "day" => Unit::Fixed(86_400_000_000),
        "week" => Unit::Fixed(7 * 86_400_000_000),
        "month" => Unit::Months(1),
        "quarter" => Unit::Months(3),
        "year" => Unit::Months(12),
        _ => return Err(bad_argument(format!("'{name}' is not a valid Timestamp field"))),
    })
}

fn second_type(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    temporal("date_trunc", &kinds[1..], kinds[1].clone())
}

fn third_type(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    temporal("date_add", &kinds[2..], kinds[2].clone())
}

/// Microseconds as the argument's type.
fn as_given(values: Vec<Option<i64>>, kind: &DataType) -> Result<ArrayRef> {
    let zone = match kind {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let values = TimestampMicrosecondArray::from(values).with_timezone_opt(zone);
    Ok(cast(&values, kind)?)
}

fn truncated(name: &str, at: i64) -> Result<Option<i64>> {
    Ok(match unit(name)? {
        // The first Monday of 1970 is the 5th of January.
        Unit::Fixed(length) if length == 7 * 86_400_000_000 => {
            let monday = 4 * 86_400_000_000;
            Some((at - monday).div_euclid(length) * length + monday)
        }
        Unit::Fixed(length) => Some(at.div_euclid(length) * length),
        Unit::Months(months) => civil(at).and_then(|at| {
            let month = i64::from(at.month() - 1) / months * months + 1;
            micros_of(Date::new(at.year(), i8::try_from(month).ok()?, 1).ok()?.into())
        }),
    })
}

fn date_trunc(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let (names, instants) = (texts(&columns[0])?, micros(&columns[1])?);
    let mut values = Vec::with_capacity(instants.len());
    for (name, at) in names.iter().zip(instants.iter()) {
        values.push(match (name, at) {
            (Some(name), Some(at)) => truncated(name, at)?,
            _ => None,
        });
    }
    as_given(values, kind)
}

/// This many months later; the last day of the month if it has no such day.
fn months_later(at: i64, months: i64) -> Option<i64> {
    micros_of(civil(at)?.checked_add(Span::new().try_months(months).ok()?).ok()?)
}

fn whole_units(unit: Unit, from: i64, to: i64) -> Option<i64> {
    match unit {
        Unit::Fixed(length) => Some((to - from) / length),
        Unit::Months(_) if to < from => Some(-whole_units(unit, to, from)?),
        Unit::Months(length) => {
            let (first, last) = (civil(from)?, civil(to)?);
            let mut months = (i64::from(last.year()) - i64::from(first.year())) * 12 + i64::from(last.month() - first.month());
            while months > 0 && months_later(from, months)? > to {
                months -= 1;
            }
            Some(months / length)
        }
    }
}

fn date_diff(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let (names, from, to) = (texts(&columns[0])?, micros(&columns[1])?, micros(&columns[2])?);
    let mut values = Vec::with_capacity(from.len());
    for ((name, from), to) in names.iter().zip(from.iter()).zip(to.iter()) {
        values.push(match (name, from, to) {
            (Some(name), Some(from), Some(to)) => whole_units(unit(name)?, from, to),
            _ => None,
        });
    }
    Ok(Arc::new(Int64Array::from(values)))
}

fn date_add(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let (names, counts, instants) = (texts(&columns[0])?, cast(&columns[1], &DataType::Int64)?, micros(&columns[2])?);
    let counts = counts.as_primitive::<Int64Type>();
    let mut values = Vec::with_capacity(instants.len());
    for ((name, count), at) in names.iter().zip(counts.iter()).zip(instants.iter()) {
        values.push(match (name, count, at) {
            (Some(_), Some(count), Some(_)) if i32::try_from(count).is_err() => {
                return Err(super::super::error::QueryError::user("NUMERIC_VALUE_OUT_OF_RANGE", "integer overflow").into());
            }
            (Some(name), Some(count), Some(at)) => match unit(name)? {
                Unit::Fixed(length) => count.checked_mul(length).and_then(|span| at.checked_add(span)),
                Unit::Months(length) => count.checked_mul(length).and_then(|months| months_later(at, months)),
            },
            _ => None,
        });
    }
    as_given(values, kind)
}

fn last_day_of_month(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let values = micros(&columns[0])?.iter().map(|at| micros_of(civil(at?)?.last_of_month())).collect();
    as_given(values, kind)
}

fn date_format(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let (instants, formats) = (micros(&columns[0])?, texts(&columns[1])?);
    let mut values = Vec::with_capacity(instants.len());
    for (at, format) in instants.iter().zip(formats.iter()) {
        values.push(match (at.and_then(civil), format) {
            (Some(at), Some(format)) => Some(mysql_format(at, format)?),
            _ => None,
        });
    }
    Ok(Arc::new(StringArray::from(values)))
}

/// Names of days and months use jiff's `%a %A %b %B`; numbers are written here.
fn mysql_format(at: DateTime, format: &str) -> Result<String> {
    let hour12 = (at.hour() + 11) % 12 + 1;
    let week = at.date().iso_week_date();
    let mut written = String::new();
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            written.push(c);
            continue;
        }
        let Some(c) = characters.next() else {
            written.push('%');
            break;
        };
        written.push_str(&match c {
            'Y' => format!("{:04}", at.year()),
            'y' => format!("{:02}", at.year() % 100),
            'm' => format!("{:02}", at.month()),
            'c' => at.month().to_string(),
            'd' => format!("{:02}", at.day()),
            'e' => at.day().to_string(),
            'H' => format!("{:02}", at.hour()),
            'k' => at.hour().to_string(),
            'h' | 'I' => format!("{hour12:02}"),
            'l' => hour12.to_string(),
            'i' => format!("{:02}", at.minute()),
            's' | 'S' => format!("{:02}", at.second()),
            'f' => format!("{:06}", at.subsec_nanosecond() / 1_000_000 * 1_000),
            'p' => if at.hour() < 12 { "AM" } else { "PM" }.to_owned(),
            'j' => format!("{:03}", at.day_of_year()),
            'v' => format!("{:02}", week.week()),
            'x' => format!("{:04}", week.year()),
            'b' => at.strftime("%b").to_string(),
            'M' => at.strftime("%B").to_string(),
            'a' => at.strftime("%a").to_string(),
            'W' => at.strftime("%A").to_string(),
            'T' => format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second()),
            'r' => format!("{hour12:02}:{:02}:{:02} {}", at.minute(), at.second(), if at.hour() < 12 { "AM" } else { "PM" }),
            'D' | 'U' | 'u' | 'V' | 'w' | 'X' => return Err(bad_argument(format!("%{c} not supported in date format string"))),
            other => other.to_string(),
        });
    }
    Ok(written)
}

fn date_parse(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let (values, formats) = (texts(&columns[0])?, texts(&columns[1])?);
    let mut instants = Vec::with_capacity(values.len());
    for (value, format) in values.iter().zip(formats.iter()) {
        instants.push(match (value, format) {
            (Some(value), Some(format)) => {
                Some(mysql_parse(value, format).ok_or_else(|| bad_argument(format!("Invalid format: \"{value}\"")))?)
            }
            _ => None,
        });
    }
    as_given(instants, &TIMESTAMP)
}

fn mysql_parse(value: &str, format: &str) -> Option<i64> {
    // The same letters in strptime's spelling.
    let mut pattern = String::new();
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            pattern.push(c);
            continue;
        }
        pattern.push_str(match characters.next()? {
            'i' => "%M",
            's' | 'S' => "%S",
            'M' => "%B",
            'W' => "%A",
            'h' => "%I",
            'c' => "%m",
            'T' => "%H:%M:%S",
            'r' => "%I:%M:%S %p",
            'Y' => "%Y",
            'y' => "%y",
            'm' => "%m",
            'd' | 'e' => "%d",
            'H' | 'k' => "%H",
            'I' | 'l' => "%I",
            'f' => "%f",
            'p' => "%p",
            'j' => "%j",
            'b' => "%b",
            'a' => "%a",
            '%' => "%%",
            _ => return None,
        });
    }
    let parsed = jiff::fmt::strtime::parse(&pattern, value).ok()?;
    let at = match parsed.to_datetime() {
        Ok(at) => at,
        Err(_) => parsed.to_date().ok()?.into(),
    };
    micros_of(at)
}

fn at_timezone_type(kinds: &[DataType], constants: &[Option<&ScalarValue>]) -> Result<DataType> {
    let zone = match constants.get(1) {
        Some(Some(ScalarValue::Utf8(Some(zone)))) => zone.as_str(),
        _ => return Err(bad_argument("a time zone must be a constant")),
    };
    if zone_named(zone).is_none() {
        return Err(bad_argument(format!("'{zone}' is not a valid time zone")));
    }
    match &kinds[0] {
        DataType::Timestamp(unit, _) => Ok(DataType::Timestamp(*unit, Some(zone.into()))),
        DataType::Null => Ok(DataType::Timestamp(TimeUnit::Millisecond, Some(zone.into()))),
        _ => Err(bad_type("at_timezone", &kinds[..1])),
    }
}

/// The local time in a zone, as an instant.
fn with_timezone(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let DataType::Timestamp(_, Some(zone)) = kind else { return Err(bad_type("with_timezone", std::slice::from_ref(kind))) };
    let time_zone = zone_named(zone).ok_or_else(|| bad_argument(format!("'{zone}' is not a valid time zone")))?;
    let values = micros(&columns[0])?.iter().map(|at| Some(time_zone.to_timestamp(civil(at?)?).ok()?.as_microsecond())).collect();
    as_given(values, kind)
}
