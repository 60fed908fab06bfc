//! Bits and rounding.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;

use super::{Function, bad_argument, bad_type};

pub(super) fn functions() -> impl Iterator<Item = Function> {
    [
        Function::new("bitwise_and", (2, 2), bigint, |columns, _| pairs(columns, |a, b| a & b)),
        Function::new("bitwise_or", (2, 2), bigint, |columns, _| pairs(columns, |a, b| a | b)),
        Function::new("bitwise_xor", (2, 2), bigint, |columns, _| pairs(columns, |a, b| a ^ b)),
        Function::new("bitwise_not", (1, 1), bigint, |columns, _| {
            Ok(Arc::new(integers(&columns[0])?.unary::<_, Int64Type>(|value| !value)))
        }),
        Function::new("bitwise_left_shift", (2, 2), first, left_shift),
        Function::new("bitwise_right_shift", (2, 2), first, right_shift),
        Function::new("bitwise_right_shift_arithmetic", (2, 2), bigint, |columns, _| {
            pairs(columns, |value, by| value >> u32::try_from(by).map_or(63, |by| by.min(63)))
        }),
        Function::new("bit_count", (2, 2), bigint, bit_count),
        Function::new("floor", (1, 1), whole, |columns, kind| rounded(&columns[0], kind, f64::floor, i128::div_euclid)),
        Function::new("ceil", (1, 1), whole, |columns, kind| {
            rounded(&columns[0], kind, f64::ceil, |value, unit| -(-value).div_euclid(unit))
        }),
        Function::new("round", (1, 2), round_type, round),
        Function::new("truncate", (1, 1), whole, |columns, kind| rounded(&columns[0], kind, f64::trunc, |value, unit| value / unit)),
        Function::new("power", (2, 2), |_, _| Ok(DataType::Float64), power),
    ]
    .into_iter()
}

fn integers(column: &ArrayRef) -> Result<Int64Array> {
    let kind = column.data_type();
    if !kind.is_integer() && *kind != DataType::Null {
        return Err(bad_type("bitwise", std::slice::from_ref(kind)));
    }
    Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn bigint(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    match kinds.iter().find(|kind| !kind.is_integer() && **kind != DataType::Null) {
        Some(_) => Err(bad_type("bitwise function", kinds)),
        None => Ok(DataType::Int64),
    }
}

fn first(kinds: &[DataType], constants: &[Option<&ScalarValue>]) -> Result<DataType> {
    bigint(kinds, constants)?;
    // Trino shifts only by an integer. A literal is one there, but a bigint here, so a constant is allowed.
    if kinds[1] == DataType::Int64 && matches!(constants.get(1), Some(None)) {
        return Err(bad_type("bitwise_left_shift", kinds));
    }
    Ok(if kinds[0] == DataType::Null { DataType::Int64 } else { kinds[0].clone() })
}

fn pairs(columns: &[ArrayRef], combine: impl Fn(i64, i64) -> i64) -> Result<ArrayRef> {
    let (left, right) = (integers(&columns[0])?, integers(&columns[1])?);
    let values = left.iter().zip(right.iter()).map(|pair| match pair {
        (Some(left), Some(right)) => Some(combine(left, right)),
        _ => None,
    });
    Ok(Arc::new(values.collect::<Int64Array>()))
}

/// The number of bits of values of a type.
fn width(kind: &DataType) -> u32 {
    match kind {
        DataType::Int8 => 8,
        DataType::Int16 => 16,
        DataType::Int32 => 32,
        _ => 64,
    }
}

fn shifted(columns: &[ArrayRef], kind: &DataType, shift: impl Fn(u64, u32) -> Option<u64>) -> Result<ArrayRef> {
    let bits = width(kind);
    let mask = u64::MAX >> (64 - bits);
    let values = pairs(columns, |value, by| {
        let unsigned = value.cast_unsigned() & mask;
        let by = u32::try_from(by).unwrap_or(u32::MAX);
        let moved = if by >= bits { 0 } else { shift(unsigned, by).unwrap_or(0) & mask };
        // The topmost bit of the type is its sign.
        let spare = 64 - bits;
        (moved << spare).cast_signed() >> spare
    })?;
    Ok(cast(&values, kind)?)
}

fn left_shift(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    shifted(columns, kind, u64::checked_shl)
}

fn right_shift(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    shifted(columns, kind, u64::checked_shr)
}

fn bit_count(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let (values, bits) = (integers(&columns[0])?, integers(&columns[1])?);
    let mut counts = Vec::with_capacity(values.len());
    for (value, bits) in values.iter().zip(bits.iter()) {
        counts.push(match (value, bits) {
            (Some(value), Some(bits)) => {
                let Some(spare) = u32::try_from(bits).ok().filter(|bits| (2..=64).contains(bits)).map(|bits| 64 - bits) else {
                    return Err(bad_argument(format!("Bits specified in bit_count must be between 2 and 64, got {bits}")));
                };
                if (value << spare) >> spare != value {
                    return Err(bad_argument(format!(
                        "Number must be representable with the bits specified. {value} cannot be represented with {bits} bits"
                    )));
                }
                Some(i64::from((value.cast_unsigned() & (u64::MAX >> spare)).count_ones()))
            }
            _ => None,
        });
    }
    Ok(Arc::new(Int64Array::from(counts)))
}

/// A whole number of the same type; a decimal loses its fraction.
fn whole(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(match &kinds[0] {
        DataType::Decimal128(precision, scale) => {
            let scale = u8::try_from(*scale).unwrap_or(0);
            DataType::Decimal128(precision.saturating_sub(scale).saturating_add(scale.min(1)).clamp(1, 38), 0)
        }
        kind if kind.is_numeric() => kind.clone(),
        DataType::Null => DataType::Float64,
        _ => return Err(bad_type("floor", kinds)),
    })
}

fn rounded(column: &ArrayRef, kind: &DataType, of_double: fn(f64) -> f64, of_decimal: impl Fn(i128, i128) -> i128) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Float64 => Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(of_double)),
        #[expect(clippy::cast_possible_truncation, reason = "a rounded float is a float again")]
        DataType::Float32 => {
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| of_double(f64::from(value)) as f32))
        }
        DataType::Decimal128(_, scale) => {
            let unit = 10_i128.pow(u32::try_from(*scale).unwrap_or(0));
            let values: Decimal128Array = column.as_primitive::<Decimal128Type>().unary(|value| of_decimal(value, unit));
            Arc::new(values.with_data_type(kind.clone()))
        }
        _ => cast(column, kind)?,
    })
}

fn round_type(kinds: &[DataType], constants: &[Option<&ScalarValue>]) -> Result<DataType> {
    match (&kinds[0], kinds.len()) {
        (DataType::Decimal128(precision, scale), 2) => Ok(DataType::Decimal128(precision.saturating_add(1).min(38), *scale)),
        _ => whole(kinds, constants),
    }
}

/// Half away from zero, as in Trino.
fn round(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let half_up = |value: i128, unit: i128| (value + value.signum() * (unit / 2)) / unit;
    let Some(places) = columns.get(1) else {
        return rounded(&columns[0], kind, f64::round, half_up);
    };
    let places = integers(places)?;
    match columns[0].data_type() {
        DataType::Float64 | DataType::Float32 => {
            let doubles = cast(&columns[0], &DataType::Float64)?;
            let values = doubles.as_primitive::<Float64Type>().iter().zip(places.iter()).map(|pair| match pair {
                (Some(value), Some(places)) if value.is_finite() => {
                    let factor = 10_f64.powi(i32::try_from(places).unwrap_or(0));
                    let scaled = (value * factor).round() / factor;
                    Some(if scaled.is_finite() { scaled } else { value })
                }
                (value, Some(_)) => value,
                _ => None,
            });
            Ok(cast(&values.collect::<Float64Array>(), kind)?)
        }
        DataType::Decimal128(_, scale) => {
            let scale = i64::from(*scale);
            let decimals = columns[0].as_primitive::<Decimal128Type>();
            let values = decimals.iter().zip(places.iter()).map(|pair| match pair {
                (Some(value), Some(places)) => {
                    let dropped = u32::try_from(scale - places).unwrap_or(0).min(38);
                    let unit = 10_i128.pow(dropped);
                    Some(half_up(value, unit) * unit)
                }
                _ => None,
            });
            Ok(Arc::new(values.collect::<Decimal128Array>().with_data_type(kind.clone())))
        }
        _ => {
            let values = pairs(columns, |value, places| match u32::try_from(-places) {
                Ok(dropped) if dropped < 19 => {
                    let unit = 10_i64.pow(dropped);
                    (value + value.signum() * (unit / 2)) / unit * unit
                }
                Ok(_) => 0,
                Err(_) => value,
            })?;
            Ok(cast(&values, kind)?)
        }
    }
}

fn power(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let (base, exponent) = (cast(&columns[0], &DataType::Float64)?, cast(&columns[1], &DataType::Float64)?);
    let values = base.as_primitive::<Float64Type>().iter().zip(exponent.as_primitive::<Float64Type>().iter());
    Ok(Arc::new(values.map(|(base, exponent)| Some(base?.powf(exponent?))).collect::<Float64Array>()))
}
