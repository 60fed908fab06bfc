//! The partitions of a table and where they lie: registered ones from the catalog, projected ones from its properties.
//!
//! Pure; [`super::table`] decides which of them a query needs.

use std::fmt::Write as _;

use jiff::civil::DateTime;
use jiff::{Span, Timestamp};

use crate::catalog::{Column, Table};

use super::error::QueryError;

/// A projection of more values than this for one key is a mistake in its range.
const MAX_VALUES: usize = 1_000_000;

/// The values of one projected partition key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Projected {
    /// All of them.
    Values(Vec<String>),
    /// Those that the query names.
    Injected,
}

fn invalid(table: &Table, column: &str, why: &str) -> QueryError {
    let name = &table.name;
    QueryError::user("INVALID_TABLE_PROPERTY", format!("Table {name} is configured for partition projection, but column {column} {why}"))
}

/// The values of a partition key that the table's properties project.
pub(crate) fn projected(table: &Table, key: &Column, now: Timestamp) -> Result<Projected, QueryError> {
    let column = key.name.as_str();
    let property = |name: &str| {
        let wanted = format!("projection.{column}.{name}");
        table.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(&wanted)).map(|(_, value)| value.as_str())
    };
    let missing = |name: &str| invalid(table, column, &format!("lacks the property projection.{column}.{name}"));
    let kind = property("type").ok_or_else(|| missing("type"))?;
    let values = match kind.to_lowercase().as_str() {
        "injected" => return Ok(Projected::Injected),
        "enum" => property("values").ok_or_else(|| missing("values"))?.split(',').map(|value| value.trim().to_owned()).collect(),
        "integer" => {
            let range = property("range").ok_or_else(|| missing("range"))?;
            let number = |text: &str| text.trim().parse::<i64>().map_err(|_| invalid(table, column, &format!("has the range {range:?}")));
            let (first, last) = range.split_once(',').ok_or_else(|| invalid(table, column, &format!("has the range {range:?}")))?;
            let (first, last) = (number(first)?, number(last)?);
            let interval = property("interval").map_or(Ok(1), number)?.max(1);
            let digits = property("digits").map_or(Ok(0), number)?.clamp(0, 20);
            let width = usize::try_from(digits).unwrap_or(0);
            let mut values = Vec::new();
            let mut value = first;
            while value <= last {
                if values.len() >= MAX_VALUES {
                    return Err(invalid(table, column, &format!("projects more than {MAX_VALUES} values")));
                }
                values.push(format!("{value:0width$}"));
                let Some(next) = value.checked_add(interval) else { break };
                value = next;
            }
            values
        }
        "date" => {
            let range = property("range").ok_or_else(|| missing("range"))?;
            let format = property("format").ok_or_else(|| missing("format"))?;
            dates(range, format, property("interval"), property("interval.unit"), now).map_err(|why| invalid(table, column, &why))?
        }
        other => return Err(invalid(table, column, &format!("has the unknown projection type {other:?}"))),
    };
    Ok(Projected::Values(values))
}

fn dates(range: &str, format: &str, interval: Option<&str>, unit: Option<&str>, now: Timestamp) -> Result<Vec<String>, String> {
    let now = jiff::tz::TimeZone::UTC.to_datetime(now);
    let (first, last) = range.split_once(',').ok_or_else(|| format!("has the range {range:?}"))?;
    let (first, last) = (bound(first, format, now)?, bound(last, format, now)?);
    // Athena's default is the finest unit in the format, down to days.
    let unit = match unit.map(str::to_uppercase) {
        Some(unit) => unit,
        None if format.contains('d') => "DAYS".to_owned(),
        None if format.contains('M') => "MONTHS".to_owned(),
        None => "YEARS".to_owned(),
    };
    let interval: i64 = interval.map_or(Ok(1), str::parse).map_err(|_| format!("has the interval {interval:?}"))?;
    let step = span(interval.max(1), &unit)?;
    let mut values: Vec<String> = Vec::new();
    let mut at = first;
    let mut count = 0_i64;
    let pieces = pieces(format);
    while at <= last {
        if values.len() >= MAX_VALUES {
            return Err(format!("projects more than {MAX_VALUES} values"));
        }
        let value = write_date(at, &pieces);
        if values.last() != Some(&value) {
            values.push(value);
        }
        // Always from the first value, so that the 31st of a month does not become the 28th for good.
        count += 1;
        let Ok(next) = step.checked_mul(count).and_then(|span| first.checked_add(span)) else { break };
        at = next;
    }
    Ok(values)
}

fn span(count: i64, unit: &str) -> Result<Span, String> {
    let span = Span::new();
    match unit.trim_end_matches('S') {
        "YEAR" => span.try_years(count),
        "MONTH" => span.try_months(count),
        "WEEK" => span.try_weeks(count),
        "DAY" => span.try_days(count),
        "HOUR" => span.try_hours(count),
        "MINUTE" => span.try_minutes(count),
        "SECOND" => span.try_seconds(count),
        _ => return Err(format!("has the interval unit {unit:?}")),
    }
    .map_err(|error| error.to_string())
}

/// An end of a date range: a date in the table's format, or `NOW`, or `NOW-3YEARS`.
fn bound(text: &str, format: &str, now: DateTime) -> Result<DateTime, String> {
    let text = text.trim();
    let Some(offset) = text.strip_prefix("NOW") else {
        return parse_date(text, format).ok_or_else(|| format!("has the range bound {text:?}, which is not of the format {format:?}"));
    };
    let offset: String = offset.chars().filter(|c| !c.is_whitespace()).collect();
    if offset.is_empty() {
        return Ok(now);
    }
    let unit_at = offset.find(|c: char| c.is_alphabetic()).ok_or_else(|| format!("has the range bound {text:?}"))?;
    let count: i64 = offset[..unit_at].parse().map_err(|_| format!("has the range bound {text:?}"))?;
    now.checked_add(span(count, &offset[unit_at..].to_uppercase())?).map_err(|error| error.to_string())
}

/// The parts of a Java date format: runs of one letter, quoted text, and the rest.
fn pieces(format: &str) -> Vec<(Option<char>, String)> {
    let mut pieces: Vec<(Option<char>, String)> = Vec::new();
    let mut quoted = false;
    for c in format.chars() {
        if c == '\'' {
            quoted = !quoted;
            continue;
        }
        let letter = (c.is_ascii_alphabetic() && !quoted).then_some(c);
        match pieces.last_mut() {
            Some((last, text)) if *last == letter => text.push(c),
            _ => pieces.push((letter, c.to_string())),
        }
    }
    pieces
}

/// Writes a date in the pieces of a Java format, such as `yyyy/MM/dd`.
fn write_date(at: DateTime, pieces: &[(Option<char>, String)]) -> String {
    let mut written = String::with_capacity(16);
    for (letter, text) in pieces {
        let width = text.len();
        let number = match letter {
            Some('y' | 'u') if width == 2 => i64::from(at.year() % 100),
            Some('y' | 'u') => i64::from(at.year()),
            Some('M' | 'L') => i64::from(at.month()),
            Some('d') => i64::from(at.day()),
            Some('H') => i64::from(at.hour()),
            Some('m') => i64::from(at.minute()),
            Some('s') => i64::from(at.second()),
            Some('S') => i64::from(at.subsec_nanosecond()) / 10_i64.pow(9_u32.saturating_sub(u32::try_from(width).unwrap_or(9))),
            _ => {
                written.push_str(text);
                continue;
            }
        };
        // A `String` takes all that is written to it.
        let _ = write!(written, "{number:0width$}");
    }
    written
}

/// Parses a date in a Java format; fields that the format lacks are as small as possible.
pub(crate) fn parse_date(text: &str, format: &str) -> Option<DateTime> {
    let (mut year, mut month, mut day, mut hour, mut minute, mut second) = (1970_i16, 1_i8, 1_i8, 0_i8, 0_i8, 0_i8);
    let mut rest = text;
    let pieces = pieces(format);
    for (index, (letter, piece)) in pieces.iter().enumerate() {
        let Some(letter) = letter else {
            rest = rest.strip_prefix(piece.as_str())?;
            continue;
        };
        // A number directly before another has the format's width; otherwise it ends where the digits end.
        let bounded = pieces.get(index + 1).is_some_and(|(next, _)| next.is_some());
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let length = if bounded { digits.min(piece.len()) } else { digits };
        let (number, left) = rest.split_at(length);
        rest = left;
        match letter {
            'y' | 'u' => year = number.parse::<i16>().ok().map(|year| if piece.len() == 2 { 2000 + year } else { year })?,
            'M' | 'L' => month = number.parse().ok()?,
            'd' => day = number.parse().ok()?,
            'H' => hour = number.parse().ok()?,
            'm' => minute = number.parse().ok()?,
            's' => second = number.parse().ok()?,
            _ => return None,
        }
    }
    if !rest.is_empty() {
        return None;
    }
    DateTime::new(year, month, day, hour, minute, second, 0).ok()
}

/// Where a projected partition lies.
pub(crate) fn projected_location(table: &Table, values: &[String]) -> String {
    if let Some(template) = table.parameters.get("storage.location.template") {
        let mut location = template.clone();
        for (key, value) in table.partition_keys.iter().zip(values) {
            location = location.replace(&format!("${{{}}}", key.name), value);
        }
        return location;
    }
    hive_location(table, values)
}

/// The default place of a partition: `key=value` folders below the table.
pub(crate) fn hive_location(table: &Table, values: &[String]) -> String {
    let mut location = table.location().unwrap_or_default().trim_end_matches('/').to_owned();
    for (key, value) in table.partition_keys.iter().zip(values) {
        location.push_str(&format!("/{}={}", key.name, escape(value)));
    }
    location
}

/// Hive percent-encodes characters with a meaning in paths or in its own names.
fn escape(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        if c.is_control() || "\"#%'*/:=?\\{[]^".contains(c) {
            escaped.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Undoes [`escape`].
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, left)) = rest.split_first() {
        let code = (first == b'%').then(|| left.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &left[2..];
            }
            None => {
                bytes.push(first);
                rest = left;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bucket and key prefix of an `s3://` location; the prefix ends with a slash unless it is empty.
pub(crate) fn bucket_and_prefix(location: &str) -> Option<(&str, String)> {
    let rest = ["s3://", "s3a://", "s3n://"].iter().find_map(|scheme| location.strip_prefix(scheme))?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = if key.is_empty() || key.ends_with('/') { key.to_owned() } else { format!("{key}/") };
    (!bucket.is_empty()).then_some((bucket, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::StorageDescriptor;

    fn table(properties: &[(&str, &str)]) -> Table {
        Table {
            name: "bars".to_owned(),
            partition_keys: vec![Column::new("day", "string")],
            storage_descriptor: Some(StorageDescriptor { location: Some("s3://lake/bars/".to_owned()), ..StorageDescriptor::default() }),
            parameters: properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Table::default()
        }
    }

    fn values(properties: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let table = table(properties);
        match projected(&table, &table.partition_keys[0], "2026-03-05T12:00:00Z".parse().unwrap()) {
            Ok(Projected::Values(values)) => Ok(values),
            Ok(Projected::Injected) => Ok(vec!["injected".to_owned()]),
            Err(error) => Err(error.message),
        }
    }

    #[test]
    fn dates_are_projected_in_their_format_and_interval() {
        let day =
            [("projection.day.type", "date"), ("projection.day.format", "yyyy/MM/dd"), ("projection.day.range", "2026/02/27,2026/03/01")];
        assert_eq!(values(&day).unwrap(), ["2026/02/27", "2026/02/28", "2026/03/01"]);
        let hour = [
            ("projection.day.type", "date"),
            ("projection.day.format", "yyyy-MM-dd-HH"),
            ("projection.day.range", "2026-03-05-00,NOW"),
            ("projection.day.interval", "6"),
            ("projection.day.interval.unit", "HOURS"),
        ];
        assert_eq!(values(&hour).unwrap(), ["2026-03-05-00", "2026-03-05-06", "2026-03-05-12"]);
        let month = [("projection.day.type", "date"), ("projection.day.format", "yyyyMM"), ("projection.day.range", "NOW-2MONTHS,NOW")];
        assert_eq!(values(&month).unwrap(), ["202601", "202602", "202603"]);
    }

    #[test]
    fn integers_and_enumerations_are_projected() {
        let integer = [
            ("projection.day.type", "integer"),
            ("projection.day.range", "-1,5"),
            ("projection.day.interval", "3"),
            ("projection.day.digits", "2"),
        ];
        assert_eq!(values(&integer).unwrap(), ["-1", "02", "05"]);
        assert_eq!(values(&[("projection.day.type", "enum"), ("projection.day.values", "a, b")]).unwrap(), ["a", "b"]);
        assert_eq!(values(&[("projection.day.type", "injected")]).unwrap(), ["injected"]);
    }

    #[test]
    fn what_is_missing_of_a_projection_is_named() {
        assert!(values(&[]).unwrap_err().contains("lacks the property projection.day.type"));
        let error = values(&[("projection.day.type", "date"), ("projection.day.format", "yyyy"), ("projection.day.range", "x,NOW")]);
        assert!(error.unwrap_err().contains("\"x\", which is not of the format"));
    }

    #[test]
    fn locations_follow_the_template_or_hive() {
        let values = ["2026-01-01 00:00".to_owned()];
        assert_eq!(hive_location(&table(&[]), &values), "s3://lake/bars/day=2026-01-01 00%3A00");
        assert_eq!(unescape("2026-01-01 00%3A00"), values[0]);
        let table = table(&[("storage.location.template", "s3://other/x/${day}/y")]);
        assert_eq!(projected_location(&table, &values), "s3://other/x/2026-01-01 00:00/y");
        assert_eq!(bucket_and_prefix("s3://lake/bars"), Some(("lake", "bars/".to_owned())));
        assert_eq!(bucket_and_prefix("file:///x"), None);
    }
}
