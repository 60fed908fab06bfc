//! Strict parsing: what is read from CSV and JSON lines is what is written there, or an error that says where.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use repair_core::lake::overlay;
use repair_core::{Error, Result};

use repair_core::lake::partition::SECOND_US;

/// How many rows of each file are read to infer the types of its columns. A later row of another type is an error, so this is more than a
/// day of minutes of thirty series; it costs some hundredths of a second for each file.
pub(crate) const INFER_ROWS: usize = 50_000;

/// The narrowest type for a text; `None` for no text.
pub(crate) fn type_of(text: &str) -> DataType {
    let digits = text.strip_prefix('-').unwrap_or(text);
    match digits.as_bytes() {
        // A number does not begin with a zero; this is a code.
        [b'0', b'0'..=b'9', ..] => DataType::Utf8,
        [first, ..] if first.is_ascii_digit() || *first == b'.' => {
            if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                // A whole number too long for 64 bits would be rounded as a float, so it is a code, too.
                if text.parse::<i64>().is_ok() { DataType::Int64 } else { DataType::Utf8 }
            } else if text.parse::<f64>().is_ok() {
                DataType::Float64
            } else {
                DataType::Utf8
            }
        }
        _ if boolean(text).is_some() => DataType::Boolean,
        _ if ["nan", "inf", "infinity"].iter().any(|word| digits.eq_ignore_ascii_case(word)) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// The type that both can be read as.
pub(crate) fn widen(a: &DataType, b: &DataType) -> DataType {
    match (a, b) {
        _ if a == b => a.clone(),
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Where a column's values are in their file: the line of each row.
pub(crate) trait Lines {
    /// The line of a row of the batch, from 1.
    fn line(&self, row: usize) -> u64;
}

/// The values of a text column, as a type.
///
/// # Errors
/// `invalid`, with the line, for a text that is not of that type.
pub(crate) fn values(column: &str, text: &StringArray, kind: &DataType, lines: &dyn Lines) -> Result<ArrayRef> {
    let refuse = |row: usize| {
        Error::invalid(format!(
            "line {}: `{}` in column `{column}` is not a {}, as the column's first {INFER_ROWS} rows are; correct the line, or \
             rewrite the table as Parquet",
            lines.line(row),
            shortened(text.value(row)),
            match kind {
                DataType::Int64 => "whole number",
                DataType::Float64 => "number",
                _ => "true or false",
            },
        ))
    };
    macro_rules! parse {
        ($array:ty, $parse:expr) => {{
            let parse = $parse;
            let mut values = Vec::with_capacity(text.len());
            for row in 0..text.len() {
                values.push(if text.is_null(row) { None } else { Some(parse(text.value(row)).ok_or_else(|| refuse(row))?) });
            }
            Arc::new(<$array>::from(values)) as ArrayRef
        }};
    }
    Ok(match kind {
        DataType::Int64 => parse!(Int64Array, |text: &str| text.parse::<i64>().ok()),
        DataType::Float64 => parse!(Float64Array, |text: &str| text.parse::<f64>().ok()),
        DataType::Boolean => parse!(BooleanArray, boolean),
        _ => Arc::new(text.clone()),
    })
}

/// The instants in a text column. In a table of days or without cadence, a date is the start of its day in UTC, as in Parquet; in all
/// others a date is an instant that was cut off, and an error.
///
/// # Errors
/// `invalid`, with the line, for a text that is not an instant in the form of RFC 3339.
pub(crate) fn times(column: &str, text: &StringArray, dates: bool, lines: &dyn Lines) -> Result<ArrayRef> {
    let mut values = Vec::with_capacity(text.len());
    for row in 0..text.len() {
        if text.is_null(row) {
            return Err(missing("time", column, lines.line(row)));
        }
        let value = text.value(row);
        let time = instant(value.as_bytes()).or_else(|| if dates { date(value.as_bytes()) } else { None });
        values.push(time.ok_or_else(|| {
            Error::invalid(format!(
                "line {}: `{}` in time column `{column}` is not an instant with a time zone; write it like 2024-03-04T14:30:00Z",
                lines.line(row),
                shortened(value)
            ))
        })?);
    }
    Ok(Arc::new(TimestampMicrosecondArray::from(values).with_data_type(overlay::instant_type())))
}

/// Rejects a row without a value in a key column.
pub(crate) fn refuse_missing_key(column: &str, text: &StringArray, lines: &dyn Lines) -> Result<()> {
    match (0..text.len()).find(|&row| text.is_null(row)) {
        None => Ok(()),
        Some(row) => Err(missing("key", column, lines.line(row))),
    }
}

fn missing(role: &str, column: &str, line: u64) -> Error {
    Error::invalid(format!(
        "line {line}: there is no value in {role} column `{column}`, so the row belongs to no slot; remove the row, or add the value"
    ))
}

/// The start of a text, for messages.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// An instant in the form of RFC 3339, section 5.6, in microseconds; finer digits are cut. `None` if it is not one. Written by hand,
/// because more lenient parsers (no zone, no seconds) would silently shift a user's data.
fn instant(text: &[u8]) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to)?.iter().try_fold(0i64, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, allowed: &[u8]| text.get(at).is_some_and(|byte| allowed.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second has no instant of its own in Unix time.
    if !(1..=days_of_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut micros = 0;
    if is(at, b".") {
        let digits = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..6 {
            let digit = if place < digits { i64::from(text[at + 1 + place] - b'0') } else { 0 };
            micros = micros * 10 + digit;
        }
        at += 1 + digits;
    }
    let offset_s = match text.get(at)? {
        b'Z' | b'z' if text.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if text.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3_600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_s;
    Some(seconds * SECOND_US + micros)
}

/// The start of a UTC day, in microseconds; `None` if the text is not a date.
fn date(text: &[u8]) -> Option<i64> {
    let mut whole = [0; 20];
    let (day, rest) = whole.split_at_mut(10);
    if text.len() != day.len() {
        return None;
    }
    day.copy_from_slice(text);
    rest.copy_from_slice(b"T00:00:00Z");
    instant(&whole)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, by Howard Hinnant's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn instants_are_rfc_3339_and_nothing_else() {
        for good in ["2018-04-04T00:00:00Z", "2018-04-04t00:00:00.5z", "2018-04-04 00:00:00+02:00", "0000-02-29T23:59:59.1234567-23:59"] {
            assert!(instant(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "2018-04-04",
            "2018-04-04T00:00:00",
            "2018-04-04T00:00Z",
            "2018-02-29T00:00:00Z",
            "2018-04-04T24:00:00Z",
            "2018-04-04T00:00:60Z",
            "2018-04-04T00:00:00.Z",
            "2018-04-04T00:00:00+0200",
            "2018-04-04T00:00:00Zx",
            "1522800000",
            "",
            "éééééééééééééé",
        ] {
            assert_eq!(instant(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_date_is_the_beginning_of_its_day() {
        assert_eq!(date(b"2018-04-04"), instant(b"2018-04-04T00:00:00Z"));
        for bad in ["2018-4-04", "2018-04-31", "2018-04-04T", "20180404", ""] {
            assert_eq!(date(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn codes_stay_text() {
        for (text, kind) in [
            ("00123", DataType::Utf8),
            ("0", DataType::Int64),
            ("-0.5", DataType::Float64),
            ("1e5", DataType::Float64),
            ("99999999999999999999", DataType::Utf8),
            ("true", DataType::Boolean),
            ("NaN", DataType::Float64),
            ("2018-04-04", DataType::Utf8),
            ("+5", DataType::Utf8),
            (" 5", DataType::Utf8),
        ] {
            assert_eq!(type_of(text), kind, "{text}");
        }
    }

    proptest! {
        #[test]
        fn instants_agree_with_jiff(micros in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            let text = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
            prop_assert_eq!(instant(text.as_bytes()), Some(micros));
        }
    }
}
