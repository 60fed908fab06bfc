//! Numbers as rules compare them: whole numbers with all their digits, all others as 64-bit floats. Pure.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type};

use super::rule::numbers;
use crate::error::Result;

/// A number as it is compared: whole numbers with all their digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(i128),
    /// Any other number.
    Float(f64),
}

impl Value {
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is wanted")]
    pub(super) fn as_float(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Float(float) => float,
        }
    }

    pub(super) fn is_finite(self) -> bool {
        self.as_float().is_finite()
    }

    /// Whether the two are further apart than a distance, without rounding the difference of whole numbers.
    pub(super) fn is_further_than(self, most: f64, other: Self) -> bool {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => match one.checked_sub(other) {
                Some(distance) => against_float(distance.abs(), most).is_some_and(Ordering::is_gt),
                None => true,
            },
            (one, other) => (one.as_float() - other.as_float()).abs() > most,
        }
    }

    /// Whether no float is the number.
    pub(super) fn is_beyond_floats(self) -> bool {
        self.compare(Self::Float(self.as_float())) != Some(Ordering::Equal)
    }

    /// Which is the larger one, whatever their digits; none if one is not a number.
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            (Self::Float(one), Self::Float(other)) => one.partial_cmp(&other),
            (Self::Whole(whole), Self::Float(float)) => against_float(whole, float),
            (Self::Float(float), Self::Whole(whole)) => against_float(whole, float).map(Ordering::reverse),
        }
    }
}

/// Compares a whole number with a float without rounding it.
fn against_float(whole: i128, float: f64) -> Option<Ordering> {
    // Up to here, the whole part of a float is exact as an integer: 2^126.
    const MOST: f64 = 85_070_591_730_234_615_865_843_651_857_942_052_864.0;
    if float.is_nan() || float.abs() > MOST {
        return Value::Whole(whole).as_float().partial_cmp(&float);
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and not too large")]
    let below = float.floor() as i128;
    Some(whole.cmp(&below).then(if float > float.floor() { Ordering::Less } else { Ordering::Equal }))
}

/// The numbers of a column, as they are compared.
pub(super) enum Values {
    Whole(Decimal128Array),
    Float(Float64Array),
}

impl Values {
    /// # Errors
    /// As [`numbers`].
    pub(super) fn of(name: &str, values: &ArrayRef) -> Result<Self> {
        // Decimals with digits behind the point stay floats: a literal is the float that is nearest to what is written, as such a decimal is.
        let is_whole = match values.data_type() {
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => *scale == 0,
            kind => kind.is_integer(),
        };
        if is_whole {
            return Ok(Self::Whole(cast(values, &DataType::Decimal128(38, 0))?.as_primitive::<Decimal128Type>().clone()));
        }
        numbers(name, values).map(Self::Float)
    }

    pub(super) fn get(&self, row: usize) -> Option<Value> {
        match self {
            Self::Whole(values) => values.is_valid(row).then(|| Value::Whole(values.value(row))),
            Self::Float(values) => values.is_valid(row).then(|| Value::Float(values.value(row))),
        }
    }
}

/// A bound of one key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum KeyBound {
    /// A number.
    Value(Value),
    /// A whole number divided by another, which is above 0.
    Ratio(i128, i128),
}

impl KeyBound {
    /// A multiple of a median without sign; `None` if it is 0.
    pub(super) fn times(factor: f64, median: Median) -> Option<Self> {
        let bound = match (median, decimal(factor)) {
            (Median::Halves(halves), Some((digits, below))) => {
                // What has too many digits for both is computed as other numbers are.
                match (halves.checked_abs().and_then(|halves| halves.checked_mul(digits)), below.checked_mul(2)) {
                    (Some(above), Some(below)) => Self::Ratio(above, below),
                    _ => Self::Value(Value::Float(median.as_float().abs() * factor)),
                }
            }
            _ => Self::Value(Value::Float(median.as_float().abs() * factor)),
        };
        let is_above_zero = match bound {
            Self::Value(value) => value.compare(Value::Float(0.0)).is_some_and(Ordering::is_gt),
            Self::Ratio(above, _) => above > 0,
        };
        is_above_zero.then_some(bound)
    }

    /// Whether a value is below (`Less`) or above (`Greater`) the bound.
    pub(super) fn compare(self, value: Value) -> Option<Ordering> {
        match (self, value) {
            (Self::Value(bound), value) => value.compare(bound),
            (Self::Ratio(above, below), Value::Whole(whole)) => match whole.checked_mul(below) {
                Some(whole) => Some(whole.cmp(&above)),
                // It is larger than any other product.
                None => Some(whole.cmp(&0)),
            },
            (Self::Ratio(above, below), Value::Float(float)) => {
                float.partial_cmp(&(Value::Whole(above).as_float() / Value::Whole(below).as_float()))
            }
        }
    }
}

/// The digits of a positive number as it is written, and the power of ten by which they are divided; `None` if there are too many.
fn decimal(factor: f64) -> Option<(i128, i128)> {
    let text = factor.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let below = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some((format!("{whole}{fraction}").parse().ok()?, below))
}

/// The middle of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Median {
    /// Of whole numbers, twice the median, which is whole.
    Halves(i128),
    /// Of others.
    Float(f64),
}

impl Median {
    /// The median as a float.
    pub(super) fn as_float(self) -> f64 {
        match self {
            Self::Halves(halves) => Value::Whole(halves).as_float() / 2.0,
            Self::Float(float) => float,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A fraction with as many digits as it takes, as the digits of its numerator over a power of ten.
    fn exceeds(value: i64, factor: (u32, u32), halves: i128) -> Ordering {
        // value > (digits / 10^places) · halves / 2, in numbers that hold every product.
        let (digits, places) = factor;
        let left = wide(i128::from(value), 2 * 10i128.pow(places));
        let right = wide(halves, i128::from(digits));
        left.cmp(&right)
    }

    /// A product as its high and low parts of 64 bits, which compare as it does.
    fn wide(one: i128, other: i128) -> (i128, u64) {
        let (high, low) = (one >> 64, u64::try_from(one & i128::from(u64::MAX)).unwrap());
        let low = i128::from(low) * other;
        (high * other + (low >> 64), u64::try_from(low & i128::from(u64::MAX)).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_multiple_of_a_median_is_compared_without_rounding(
            median in 1i64..i64::MAX, factor in 1u32..100_000, places in 0u32..4, off in -3i128..4,
        ) {
            let halves = 2 * i128::from(median) - 1;
            let text = format!("{factor}e-{places}");
            let bound = KeyBound::times(text.parse().unwrap(), Median::Halves(halves)).unwrap();
            // Values on both sides of the bound, where a float would be off by hundreds.
            let near = i128::from(factor).checked_mul(halves).map(|product| product / (2 * 10i128.pow(places)) + off);
            if let Some(value) = near.and_then(|near| i64::try_from(near).ok()) {
                prop_assert_eq!(bound.compare(Value::Whole(i128::from(value))), Some(exceeds(value, (factor, places), halves)));
            }
        }

        #[test]
        fn distances_of_whole_numbers_are_not_rounded(one in any::<i64>(), step in 0i64..1 << 40, most in 0i64..1 << 40) {
            let other = i128::from(one) + i128::from(step);
            #[expect(clippy::cast_precision_loss, reason = "it is below 2^53")]
            let most_as_float = most as f64;
            prop_assert_eq!(Value::Whole(i128::from(one)).is_further_than(most_as_float, Value::Whole(other)), step > most);
        }
    }

    #[test]
    fn factors_are_what_is_written() {
        assert_eq!((decimal(5.0), decimal(0.1), decimal(2.25)), (Some((5, 1)), Some((1, 10)), Some((225, 100))));
        assert_eq!((decimal(1e-300), KeyBound::times(5.0, Median::Halves(0))), (None, None));
        let tenth = KeyBound::times(0.1, Median::Halves(200)).unwrap();
        assert_eq!(tenth.compare(Value::Whole(10)), Some(Ordering::Equal));
    }
}
