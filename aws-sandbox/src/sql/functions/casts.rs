//! Casts that differ between Trino and Arrow: numbers are rounded, not cut, and text looks as Java prints it.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Decimal128Array, Float64Array, Int64Array, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit};
use datafusion::error::Result;
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::super::error::QueryError;
use super::super::text::{text, zone_named};
use super::super::types::{precision, trino_name};
use super::{Function, bad_type};

pub(super) fn functions() -> impl Iterator<Item = Function> {
    [
        Function::new("$cast_varchar", (1, 1), |_, _| Ok(DataType::Utf8), to_varchar),
        Function::new("$cast_bigint", (1, 1), |_, _| Ok(DataType::Int64), |columns, kind| to_integer(&columns[0], kind, false)),
        Function::new("$cast_integer", (1, 1), |_, _| Ok(DataType::Int32), |columns, kind| to_integer(&columns[0], kind, false)),
        Function::new("$cast_smallint", (1, 1), |_, _| Ok(DataType::Int16), |columns, kind| to_integer(&columns[0], kind, false)),
        Function::new("$cast_tinyint", (1, 1), |_, _| Ok(DataType::Int8), |columns, kind| to_integer(&columns[0], kind, false)),
        Function::new("$try_cast_bigint", (1, 1), |_, _| Ok(DataType::Int64), |columns, kind| to_integer(&columns[0], kind, true)),
        Function::new("$try_cast_integer", (1, 1), |_, _| Ok(DataType::Int32), |columns, kind| to_integer(&columns[0], kind, true)),
        Function::new("$try_cast_smallint", (1, 1), |_, _| Ok(DataType::Int16), |columns, kind| to_integer(&columns[0], kind, true)),
        Function::new("$try_cast_tinyint", (1, 1), |_, _| Ok(DataType::Int8), |columns, kind| to_integer(&columns[0], kind, true)),
        Function::new(
            "$cast_timestamp3",
            (1, 1),
            |_, _| Ok(timestamp(TimeUnit::Millisecond)),
            |columns, kind| to_timestamp(&columns[0], kind, false),
        ),
        Function::new(
            "$cast_timestamp6",
            (1, 1),
            |_, _| Ok(timestamp(TimeUnit::Microsecond)),
            |columns, kind| to_timestamp(&columns[0], kind, false),
        ),
        Function::new(
            "$cast_timestamp9",
            (1, 1),
            |_, _| Ok(timestamp(TimeUnit::Nanosecond)),
            |columns, kind| to_timestamp(&columns[0], kind, false),
        ),
        Function::new(
            "$try_cast_timestamp3",
            (1, 1),
            |_, _| Ok(timestamp(TimeUnit::Millisecond)),
            |columns, kind| to_timestamp(&columns[0], kind, true),
        ),
        Function::new(
            "$try_cast_timestamp6",
            (1, 1),
            |_, _| Ok(timestamp(TimeUnit::Microsecond)),
            |columns, kind| to_timestamp(&columns[0], kind, true),
        ),
        Function::new(
            "$try_cast_timestamp9",
            (1, 1),
            |_, _| Ok(timestamp(TimeUnit::Nanosecond)),
            |columns, kind| to_timestamp(&columns[0], kind, true),
        ),
        Function::new(
            "typeof",
            (1, 1),
            |_, _| Ok(DataType::Utf8),
            |columns, _| Ok(Arc::new(StringArray::from(vec![trino_name(columns[0].data_type()); columns[0].len()]))),
        ),
    ]
    .into_iter()
}

fn to_varchar(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let column = &columns[0];
    if column.data_type().is_nested() {
        return Err(
            QueryError::user("TYPE_MISMATCH", format!("line 1:1: Cannot cast {} to varchar", trino_name(column.data_type()))).into()
        );
    }
    if *column.data_type() == DataType::Utf8 {
        return Ok(Arc::clone(column));
    }
    if matches!(column.data_type(), DataType::Float32 | DataType::Float64) {
        // In a cast, unlike in a result, doubles always have an exponent.
        let doubles = cast(column, &DataType::Float64)?;
        let narrow = *column.data_type() == DataType::Float32;
        let texts = doubles.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| scientific(value, narrow)));
        return Ok(Arc::new(texts.collect::<StringArray>()));
    }
    Ok(Arc::new((0..column.len()).map(|row| text(column.as_ref(), row)).collect::<Result<StringArray>>()?))
}

/// `1.0E7`, `1.5E-1`, `0E0`.
fn scientific(value: f64, narrow: bool) -> String {
    if !value.is_finite() {
        return super::super::text::double(value);
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0E0" } else { "0E0" }.to_owned();
    }
    #[expect(clippy::cast_possible_truncation, reason = "the value was a float before")]
    let shortest = if narrow { format!("{:e}", value as f32) } else { format!("{value:e}") };
    match shortest.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => format!("{mantissa}E{exponent}"),
        Some((mantissa, exponent)) => format!("{mantissa}.0E{exponent}"),
        None => shortest,
    }
}

fn timestamp(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, None)
}

/// `2026-01-01`, `2026-01-01 12:30`, `2026-01-01 12:30:00.123`; a zone at the end is dropped, a `T` is refused.
fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let mut parts = text.split_whitespace();
    let (date, time) = (parts.next()?, parts.next());
    if date.contains('T') || parts.clone().count() > 1 {
        return None;
    }
    let date: Date = date.parse().ok()?;
    let at = match time {
        None => date.to_datetime(Time::midnight()),
        Some(time) => date.to_datetime(time.parse().ok()?),
    };
    TimeZone::UTC.to_timestamp(at).ok()
}

fn to_timestamp(column: &ArrayRef, kind: &DataType, or_null: bool) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Utf8 => {
            let mut nanos = Vec::with_capacity(column.len());
            for value in column.as_string::<i32>() {
                let instant = value.and_then(parse_timestamp);
                if let (Some(value), None, false) = (value, instant, or_null) {
                    return Err(QueryError::user("INVALID_CAST_ARGUMENT", format!("Value cannot be cast to timestamp: {value}")).into());
                }
                nanos.push(instant.and_then(|instant| i64::try_from(instant.as_nanosecond()).ok()));
            }
            let nanos: ArrayRef = Arc::new(Int64Array::from(nanos));
            rounded_to(&cast(&nanos, &timestamp(TimeUnit::Nanosecond))?, kind)
        }
        DataType::Timestamp(unit, Some(zone)) => {
            // The local time of its zone is kept.
            let time_zone = zone_named(zone).ok_or_else(|| super::bad_argument(format!("'{zone}' is not a valid time zone")))?;
            let nanos = cast(&cast(column, &DataType::Timestamp(TimeUnit::Nanosecond, Some(Arc::clone(zone))))?, &DataType::Int64)?;
            let shown = nanos.as_primitive::<Int64Type>().iter().map(|nanos| {
                let instant = Timestamp::from_nanosecond(i128::from(nanos?)).ok()?;
                i64::try_from(TimeZone::UTC.to_timestamp(time_zone.to_datetime(instant)).ok()?.as_nanosecond()).ok()
            });
            let shown: ArrayRef = Arc::new(shown.collect::<Int64Array>());
            let shown = cast(&cast(&shown, &timestamp(TimeUnit::Nanosecond))?, &timestamp(*unit))?;
            rounded_to(&shown, kind)
        }
        DataType::Timestamp(..) => rounded_to(column, kind),
        DataType::Date32 | DataType::Null => Ok(cast(column, kind)?),
        other => Err(bad_type("cast to timestamp", std::slice::from_ref(other))),
    }
}

/// An instant in a coarser unit, rounded half up.
fn rounded_to(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    let (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) = (column.data_type(), kind) else { return Ok(cast(column, kind)?) };
    let digits = u32::from(precision(*from).saturating_sub(precision(*to)));
    if digits == 0 {
        return Ok(cast(column, kind)?);
    }
    let unit = 10_i64.pow(digits);
    let values = cast(column, &DataType::Int64)?;
    let rounded: ArrayRef =
        Arc::new(values.as_primitive::<Int64Type>().unary::<_, Int64Type>(|value| value.saturating_add(unit / 2).div_euclid(unit)));
    Ok(cast(&rounded, kind)?)
}

fn to_integer(column: &ArrayRef, kind: &DataType, or_null: bool) -> Result<ArrayRef> {
    let options = CastOptions { safe: or_null, ..CastOptions::default() };
    let whole: ArrayRef = match column.data_type() {
        // Trino rounds half up, and negative values half away from zero.
        DataType::Float32 | DataType::Float64 => {
            let doubles = cast(column, &DataType::Float64)?;
            let rounded: Float64Array = doubles.as_primitive::<Float64Type>().unary(f64::round);
            Arc::new(rounded)
        }
        DataType::Decimal128(precision, scale) => {
            let unit = 10_i128.pow(u32::try_from(*scale).unwrap_or(0));
            let rounded: Decimal128Array =
                column.as_primitive::<Decimal128Type>().unary(|value| (value + value.signum() * (unit / 2)) / unit);
            Arc::new(rounded.with_data_type(DataType::Decimal128(*precision, 0)))
        }
        DataType::Timestamp(..) | DataType::Date32 => return Err(bad_type("cast to a number", std::slice::from_ref(column.data_type()))),
        _ => Arc::clone(column),
    };
    Ok(cast_with_options(&whole, kind, &options)?)
}
