//! Numbers as rules compare them: whole numbers and decimals with all their digits, all others as 64-bit floats. Pure.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type};

use super::rule::numbers;
use crate::error::Result;

/// A number as it is compared: whole numbers and decimals with all their digits.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A whole number.
    Whole(i128),
    /// A decimal of more digits than a float keeps: all of them, and how many are behind the point.
    Decimal(i128, u8),
    /// Any other number. Beside a decimal, it is the decimal that is written with the fewest digits of which it is the nearest float.
    Float(f64),
}

/// Any decimal with fewer digits is found again in the shortest text of the float that is nearest to it: 10^15.
const FLOAT_DIGITS: u128 = 1_000_000_000_000_000;

/// The most digits behind the point with which that holds of numbers that are not close to 0.
const FLOAT_SCALE: u8 = 22;

impl Value {
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is wanted")]
    pub(super) fn as_float(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            // Of a text, the nearest float is read.
            Self::Decimal(digits, scale) => format!("{digits}e-{scale}").parse().unwrap_or(f64::NAN),
            Self::Float(float) => float,
        }
    }

    /// Its digits, and how many of them are behind the point; `None` if it is not finite, or has too many.
    fn digits(self) -> Option<(i128, u8)> {
        match self {
            Self::Whole(whole) => Some((whole, 0)),
            Self::Decimal(digits, scale) => Some((digits, scale)),
            Self::Float(float) if float.is_finite() => {
                let text = float.to_string();
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                Some((format!("{whole}{fraction}").parse().ok()?, u8::try_from(fraction.len()).ok().filter(|scale| *scale <= MOST_SCALE)?))
            }
            Self::Float(_) => None,
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
            (Self::Decimal(..), _) | (_, Self::Decimal(..)) => match one_minus(self, other) {
                Some(distance) => distance.compare(Self::Float(most)).is_some_and(Ordering::is_gt),
                None => (self.as_float() - other.as_float()).abs() > most,
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
            (Self::Decimal(digits, scale), Self::Decimal(..) | Self::Whole(_)) => Some(compare_digits((digits, scale), other.digits()?)),
            (Self::Whole(whole), Self::Decimal(digits, scale)) => Some(compare_digits((whole, 0), (digits, scale))),
            (Self::Decimal(digits, scale), Self::Float(float)) => against_decimal((digits, scale), float),
            (Self::Float(float), Self::Decimal(digits, scale)) => against_decimal((digits, scale), float).map(Ordering::reverse),
        }
    }
}

/// The most digits behind the point.
const MOST_SCALE: u8 = 38;

/// Compares decimals by their digits and how many of these are behind the point, at most [`MOST_SCALE`].
fn compare_digits((one, scale): (i128, u8), (other, others): (i128, u8)) -> Ordering {
    let common = scale.max(others);
    let parts = |digits: i128, scale: u8| match 10i128.checked_pow(scale.into()) {
        // What is left has fewer digits than its scale, so with the common scale it still has 38 at most.
        Some(power) => (digits.div_euclid(power), digits.rem_euclid(power) * 10i128.pow((common - scale).into())),
        None => (digits, 0),
    };
    parts(one, scale).cmp(&parts(other, others))
}

/// Compares a decimal with a float, which stands for the shortest decimal of which it is the nearest float.
fn against_decimal((digits, scale): (i128, u8), float: f64) -> Option<Ordering> {
    // To round does not change which of two is larger, but may make them equal.
    let order = Value::Decimal(digits, scale).as_float().partial_cmp(&float)?;
    let shortest = || Value::Float(float).digits();
    Some(order.then_with(|| shortest().map_or(Ordering::Equal, |shortest| compare_digits((digits, scale), shortest))))
}

/// How far two numbers are apart, of which one at least is a decimal; `None` if that has too many digits.
fn one_minus(one: Value, other: Value) -> Option<Value> {
    let ((one, scale), (other, others)) = (one.digits()?, other.digits()?);
    let common = scale.max(others);
    let scaled = |digits: i128, scale: u8| digits.checked_mul(10i128.checked_pow((common - scale).into())?);
    Some(Value::Decimal(scaled(one, scale)?.checked_sub(scaled(other, others)?)?.checked_abs()?, common))
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
    /// Decimals, how many of their digits are behind the point, and the floats that are nearest to them.
    Decimal(Decimal128Array, u8, Float64Array),
    Float(Float64Array),
}

impl Values {
    /// # Errors
    /// As [`numbers`].
    pub(super) fn of(name: &str, values: &ArrayRef) -> Result<Self> {
        let scale = match values.data_type() {
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => u8::try_from(*scale).ok(),
            kind => kind.is_integer().then_some(0),
        };
        if let Some(scale) = scale.filter(|scale| (1..=MOST_SCALE).contains(scale)) {
            let kind = DataType::Decimal128(38, i8::try_from(scale).unwrap_or(0));
            let digits = cast(values, &kind)?.as_primitive::<Decimal128Type>().clone();
            return Ok(Self::Decimal(digits, scale, numbers(name, values)?));
        }
        let is_whole = scale == Some(0);
        if is_whole {
            return Ok(Self::Whole(cast(values, &DataType::Decimal128(38, 0))?.as_primitive::<Decimal128Type>().clone()));
        }
        numbers(name, values).map(Self::Float)
    }

    pub(super) fn get(&self, row: usize) -> Option<Value> {
        match self {
            Self::Whole(values) => values.is_valid(row).then(|| Value::Whole(values.value(row))),
            Self::Decimal(values, scale, floats) => values.is_valid(row).then(|| {
                let digits = values.value(row);
                let is_float = digits.unsigned_abs() < FLOAT_DIGITS && *scale <= FLOAT_SCALE;
                if is_float { Value::Float(floats.value(row)) } else { Value::Decimal(digits, *scale) }
            }),
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
            (Self::Ratio(above, below), value) => {
                value.as_float().partial_cmp(&(Value::Whole(above).as_float() / Value::Whole(below).as_float()))
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

    #[test]
    fn decimals_are_compared_with_all_their_digits() {
        let near = |digits: i128| Value::Decimal(1_000_000_000_000_000_000 + digits, 18);
        let orders = [near(1).compare(Value::Float(1.0)), near(0).compare(Value::Float(1.0)), near(-1).compare(Value::Float(1.0))];
        assert_eq!(orders, [Some(Ordering::Greater), Some(Ordering::Equal), Some(Ordering::Less)]);
        assert_eq!((near(1).compare(near(2)), Value::Float(1.0).compare(near(1))), (Some(Ordering::Less), Some(Ordering::Less)));
        assert_eq!((near(0).compare(Value::Whole(1)), Value::Whole(2).compare(near(5))), (Some(Ordering::Equal), Some(Ordering::Greater)));
        assert_eq!(Value::Decimal(-15, 1).compare(Value::Whole(-1)), Some(Ordering::Less));
        let long = Value::Decimal(i128::MAX, 38);
        assert_eq!(
            (long.compare(Value::Decimal(17, 1)), long.compare(Value::Whole(i128::MIN))),
            (Some(Ordering::Greater), Some(Ordering::Greater))
        );
        assert_eq!((near(1).compare(Value::Float(f64::NAN)), near(1).compare(Value::Float(f64::INFINITY))), (None, Some(Ordering::Less)));
        // 0.1 is the decimal 0.10, though no float is.
        assert_eq!(Value::Decimal(10, 2).compare(Value::Float(0.1)), Some(Ordering::Equal));
        let cents = |digits| Value::Decimal(digits, 2);
        assert!(cents(900_719_925_474_099_306).is_further_than(0.05, cents(900_719_925_474_099_300)));
        assert!(!cents(900_719_925_474_099_305).is_further_than(0.05, cents(900_719_925_474_099_300)));
        assert!(near(1).is_beyond_floats() && !near(0).is_beyond_floats());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// As all other decimals are compared: with so few digits that a larger scale holds both.
        #[test]
        fn decimals_compare_as_with_a_common_scale(one in any::<i64>(), scale in 0u8..18, other in any::<i64>(), others in 0u8..18) {
            let (long, longs) = (i128::from(one) * 10i128.pow(18 - u32::from(scale)), i128::from(other) * 10i128.pow(18 - u32::from(others)));
            let compared = Value::Decimal(one.into(), scale).compare(Value::Decimal(other.into(), others));
            prop_assert_eq!(compared, Some(long.cmp(&longs)));
        }

        #[test]
        fn a_decimal_of_few_digits_is_the_shortest_text_of_its_float(digits in -999_999_999_999_999i64..=999_999_999_999_999, scale in 0u8..=FLOAT_SCALE) {
            let decimal = Value::Decimal(digits.into(), scale);
            prop_assert_eq!(decimal.compare(Value::Float(decimal.as_float())), Some(Ordering::Equal));
        }

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
