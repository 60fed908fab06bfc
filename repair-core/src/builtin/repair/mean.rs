//! The mean of a column of several rows.
//!
//! It does not depend on the order of the rows: integers and decimals are added exactly and rounded once, half up; floats are sorted before
//! they are added.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use arrow::row::{RowConverter, SortField};

use super::line::is_number;
use crate::error::Result;
use crate::lake::shape::cast_strict;

/// The mean of a column, as an array of one value.
pub(super) enum Mean {
    /// The value that all rows have; or the mean of the numbers that are not null, and null if there are none.
    Of(ArrayRef),
    /// There is none: the values differ and are not numbers, or one of them is not finite, or their sum is out of range.
    None,
}

/// The mean of a column.
pub(super) fn mean(column: &ArrayRef) -> Result<Mean> {
    if are_same(column)? {
        return Ok(Mean::Of(column.slice(0, column.len().min(1))));
    }
    let kind = column.data_type();
    if !is_number(kind) {
        return Ok(Mean::None);
    }
    let value: Option<ArrayRef> = if kind.is_floating() {
        float(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>())
            .map(|mean| Arc::new(Float64Array::from(vec![mean])) as ArrayRef)
    } else {
        let scale = match kind {
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => *scale,
            _ => 0,
        };
        let exact = DataType::Decimal128(38, scale);
        let whole = whole(cast_strict(column, &exact)?.as_primitive::<Decimal128Type>());
        whole.map(|mean| Arc::new(Decimal128Array::from(vec![mean]).with_data_type(exact)) as ArrayRef)
    };
    value.map_or(Ok(Mean::None), |value| Ok(Mean::Of(if kind.is_floating() { cast(&value, kind)? } else { cast_strict(&value, kind)? })))
}

fn are_same(column: &ArrayRef) -> Result<bool> {
    let rows = RowConverter::new(vec![SortField::new(column.data_type().clone())])?.convert_columns(std::slice::from_ref(column))?;
    let mut rows = rows.iter();
    let first = rows.next();
    Ok(rows.all(|row| Some(row) == first))
}

/// The mean of finite numbers.
fn float(numbers: &Float64Array) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.iter().flatten().collect();
    if numbers.iter().any(|number| !number.is_finite()) {
        return None;
    }
    numbers.sort_unstable_by(f64::total_cmp);
    let (least, most) = (*numbers.first()?, *numbers.last()?);
    #[expect(clippy::cast_precision_loss, reason = "the rows of a slot are far below 2^52")]
    let count = numbers.len() as f64;
    let sum: f64 = numbers.iter().sum();
    let mean = if sum.is_finite() { sum / count } else { numbers.iter().map(|number| number / count).sum() };
    Some(mean.clamp(least, most))
}

/// The mean of whole numbers, rounded half up.
fn whole(numbers: &Decimal128Array) -> Option<i128> {
    let (mut sum, mut count) = (0i128, 0i128);
    for number in numbers.iter().flatten() {
        (sum, count) = (sum.checked_add(number)?, count + 1);
    }
    let twice = sum.checked_mul(2)?.checked_add(count)?;
    (count > 0).then(|| twice.div_euclid(2 * count))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Int64Array, StringArray, UInt64Array};
    use arrow::datatypes::{Int64Type, UInt64Type};
    use proptest::prelude::*;

    use super::*;

    fn of(column: impl Array + 'static) -> Option<ArrayRef> {
        match mean(&(Arc::new(column) as ArrayRef)).unwrap() {
            Mean::Of(value) => Some(value),
            Mean::None => None,
        }
    }

    proptest! {
        #[test]
        fn the_order_of_rows_does_not_matter(rows in prop::collection::vec(prop::option::of(-1e300f64..1e300), 1..8), turn in 0usize..8) {
            let mut turned = rows.clone();
            let at = turn % rows.len();
            turned.rotate_left(at);
            let bits = |rows: Vec<Option<f64>>| {
                let mean = of(Float64Array::from(rows))?;
                mean.as_primitive::<Float64Type>().iter().next().flatten().map(f64::to_bits)
            };
            prop_assert_eq!(bits(rows), bits(turned));
        }
    }

    #[test]
    fn numbers_of_any_kind_have_a_mean() {
        let whole = |rows: Vec<Option<i64>>| of(Int64Array::from(rows)).unwrap().as_primitive::<Int64Type>().iter().next().flatten();
        assert_eq!(whole(vec![Some(1), Some(2)]), Some(2), "half up");
        assert_eq!(whole(vec![Some(-1), Some(-2)]), Some(-1), "half up");
        assert_eq!(whole(vec![Some(1), None, Some(4)]), Some(3), "nulls are left out");
        assert_eq!(whole(vec![None, None]), None);
        let large = of(UInt64Array::from(vec![u64::MAX, u64::MAX - 2])).unwrap();
        assert_eq!(large.as_primitive::<UInt64Type>().value(0), u64::MAX - 1);
        let decimal = Decimal128Array::from(vec![100, 201]).with_data_type(DataType::Decimal128(10, 2));
        assert_eq!(of(decimal).unwrap().as_primitive::<Decimal128Type>().value(0), 151);
        let narrow = of(Float32Array::from(vec![1.0, 2.0])).unwrap();
        assert_eq!(narrow.data_type(), &DataType::Float32);
        let greatest = of(Float64Array::from(vec![f64::MAX, f64::MAX / 2.0])).unwrap();
        assert!(greatest.as_primitive::<Float64Type>().value(0).is_finite());
    }

    #[test]
    fn other_values_have_a_mean_only_if_they_are_the_same() {
        assert!(of(StringArray::from(vec!["a", "a"])).is_some());
        assert!(of(StringArray::from(vec!["a", "b"])).is_none());
        assert!(of(StringArray::from(vec![Some("a"), None])).is_none());
        assert!(of(Float64Array::from(vec![1.0, f64::INFINITY])).is_none());
        assert!(of(Float64Array::from(vec![f64::INFINITY, f64::INFINITY])).is_some());
    }
}
