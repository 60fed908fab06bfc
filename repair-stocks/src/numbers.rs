//! Columns of numbers: casts that fail rather than lose anything.

use arrow::array::{Array, ArrayRef};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use repair_core::{Error, Result};

/// Casts a column to another type. A value that would change is an error, because Arrow itself silently cuts off fractions.
///
/// # Errors
/// `invalid` if there is no such cast, or if it would change a value.
pub(crate) fn cast_exact(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let from = column.data_type();
    if from == to {
        return Ok(column.clone());
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let done = cast_with_options(column, to, &strict)?;
    let back = cast_with_options(&done, from, &strict)?;
    if not_distinct(column, &back)?.true_count() == column.len() {
        Ok(done)
    } else {
        Err(Error::invalid(format!("a number of type {from} would change as {to}")))
    }
}

/// Whether a column of this type can hold prices and volumes.
pub(crate) fn is_number(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_floating() || kind.is_decimal()
}

/// A type that holds the numbers of both types.
pub(crate) fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Decimal128, Float64};
    match (a, b) {
        _ if a == b => Some(a.clone()),
        _ if !is_number(a) || !is_number(b) => None,
        (kind, other) if kind.is_floating() || other.is_floating() => Some(Float64),
        (Decimal128(_, scale), Decimal128(_, other)) => Some(Decimal128(38, *scale.max(other))),
        (Decimal128(_, scale), other) | (other, Decimal128(_, scale)) if other.is_integer() => Some(Decimal128(38, *scale)),
        (kind, other) if kind.is_integer() && other.is_integer() => Some(DataType::Int64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn what_would_be_lost_is_refused() {
        let halves: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None]));
        let whole: ArrayRef = Arc::new(Float64Array::from(vec![Some(2.0), None]));
        let huge: ArrayRef = Arc::new(Int64Array::from(vec![(1 << 53) + 1]));
        assert!(cast_exact(&halves, &DataType::Int64).is_err());
        assert!(cast_exact(&huge, &DataType::Float64).is_err());
        assert_eq!(cast_exact(&whole, &DataType::Int64).unwrap().null_count(), 1);
        assert!(cast_exact(&halves, &DataType::Decimal128(38, 1)).is_ok());
    }

    #[test]
    fn numbers_of_all_kinds_have_a_type_in_common() {
        use DataType::{Boolean, Decimal128, Float64, Int64, UInt32, Utf8};
        for (a, b, common) in [
            (Int64, Float64, Some(Float64)),
            (Decimal128(10, 2), Float64, Some(Float64)),
            (Decimal128(38, 2), Decimal128(38, 4), Some(Decimal128(38, 4))),
            (Decimal128(38, 2), Int64, Some(Decimal128(38, 2))),
            (UInt32, Int64, Some(Int64)),
            (Utf8, Utf8, Some(Utf8)),
            (Utf8, Int64, None),
            (Boolean, Int64, None),
        ] {
            assert_eq!(common_type(&a, &b), common, "{a} {b}");
            assert_eq!(common_type(&b, &a), common, "{b} {a}");
        }
    }
}
