//! Values as text: as Trino's `CAST(… AS varchar)` returns them, and as Athena writes them in a result. The two agree for all types that
//! can be cast; arrays, rows and maps occur only in results.

use arrow::array::{Array, ArrayRef, AsArray as _};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::Result;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::types::precision;

/// The value of a row; `None` is null.
pub(crate) fn text(array: &dyn Array, row: usize) -> Result<Option<String>> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Null => return Ok(None),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Float64 => double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => real(array.as_primitive::<Float32Type>().value(row)),
        DataType::Date32 => date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(unit, zone) => {
            let value = match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
                TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row),
            };
            timestamp(value, *unit, zone.as_deref())
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            format!("[{}]", (0..items.len()).map(|item| nested(&items, item)).collect::<Result<Vec<_>>>()?.join(", "))
        }
        DataType::Struct(fields) => {
            let values = array.as_struct();
            let members =
                fields.iter().zip(values.columns()).map(|(field, column)| Ok(format!("{}={}", field.name(), nested(column, row)?)));
            format!("{{{}}}", members.collect::<Result<Vec<_>>>()?.join(", "))
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let members = (0..entries.len()).map(|entry| Ok(format!("{}={}", nested(keys, entry)?, nested(values, entry)?)));
            format!("{{{}}}", members.collect::<Result<Vec<_>>>()?.join(", "))
        }
        DataType::Binary => {
            let bytes = array.as_binary::<i32>().value(row);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
        }
        _ => ArrayFormatter::try_new(array, &FormatOptions::default())?.value(row).to_string(),
    }))
}

fn nested(array: &ArrayRef, row: usize) -> Result<String> {
    Ok(text(array.as_ref(), row)?.unwrap_or_else(|| "null".to_owned()))
}

/// A double as Java prints it: plain between 10⁻³ and 10⁷, otherwise with an exponent; always with a point.
pub(crate) fn double(value: f64) -> String {
    java_number(&format!("{value:e}"), value.is_nan(), value.is_infinite(), value.is_sign_negative())
}

fn real(value: f32) -> String {
    java_number(&format!("{value:e}"), value.is_nan(), value.is_infinite(), value.is_sign_negative())
}

/// `shortest` has the fewest digits that parse to the same number, in the form `-1.25e-7`.
fn java_number(shortest: &str, nan: bool, infinite: bool, negative: bool) -> String {
    if nan {
        return "NaN".to_owned();
    }
    if infinite {
        return if negative { "-Infinity" } else { "Infinity" }.to_owned();
    }
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if negative { "-" } else { "" };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if !(-3..7).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let rest = if rest.is_empty() { "0" } else { rest };
        return format!("{sign}{first}.{rest}E{exponent}");
    }
    match usize::try_from(exponent) {
        Ok(exponent) => {
            let whole_digits = exponent + 1;
            let padded = format!("{digits:0<whole_digits$}");
            let (whole, fraction) = padded.split_at(whole_digits);
            let fraction = if fraction.is_empty() { "0" } else { fraction };
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) => {
            let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
            format!("{sign}0.{zeros}{digits}")
        }
    }
}

fn date(days: i32) -> String {
    civil_day(i64::from(days)).map_or_else(|| days.to_string(), |date| date.to_string())
}

/// The day this many days after 1970-01-01.
pub(crate) fn civil_day(days: i64) -> Option<Date> {
    let second = days.checked_mul(86_400)?;
    Some(TimeZone::UTC.to_datetime(Timestamp::from_second(second).ok()?).date())
}

fn timestamp(value: i64, unit: TimeUnit, zone: Option<&str>) -> String {
    let per_second: i64 = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let (second, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let Ok(instant) = Timestamp::from_second(second) else { return value.to_string() };
    let time_zone = zone.map_or(Some(TimeZone::UTC), zone_named).unwrap_or(TimeZone::UTC);
    let civil: DateTime = time_zone.to_datetime(instant);
    let fraction = match usize::from(precision(unit)) {
        0 => String::new(),
        digits => format!(".{fraction:0digits$}"),
    };
    let zone = zone.map(|zone| format!(" {}", if matches!(zone, "+00:00" | "Z") { "UTC" } else { zone })).unwrap_or_default();
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{fraction}{zone}",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second()
    )
}

/// A zone by its name or its offset.
pub(crate) fn zone_named(name: &str) -> Option<TimeZone> {
    if matches!(name, "UTC" | "Z" | "+00:00") {
        return Some(TimeZone::UTC);
    }
    if name.starts_with(['+', '-']) {
        let (hours, minutes) = name[1..].split_once(':').unwrap_or((&name[1..], "0"));
        let seconds = hours.parse::<i32>().ok()? * 3_600 + minutes.parse::<i32>().ok()? * 60;
        let offset = jiff::tz::Offset::from_seconds(if name.starts_with('-') { -seconds } else { seconds }).ok()?;
        return Some(TimeZone::fixed(offset));
    }
    TimeZone::get(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_in_java() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (1.25e-3, "0.00125"),
            (9.99e-4, "9.99E-4"),
            (123_456.789, "123456.789"),
            (-1.5e300, "-1.5E300"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(double(value), text);
        }
        assert_eq!(real(0.1), "0.1");
    }

    #[test]
    fn instants_print_with_their_precision_and_zone() {
        assert_eq!(timestamp(-1, TimeUnit::Millisecond, None), "1969-12-31 23:59:59.999");
        assert_eq!(timestamp(0, TimeUnit::Second, Some("+00:00")), "1970-01-01 00:00:00 UTC");
        assert_eq!(timestamp(0, TimeUnit::Microsecond, Some("America/New_York")), "1969-12-31 19:00:00.000000 America/New_York");
        assert_eq!(date(-1), "1969-12-31");
    }
}
