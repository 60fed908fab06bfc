//! Columns of numbers: casts that lose nothing, or say so.

use arrow::array::{Array, ArrayRef};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use repair_core::{Error, Result};

/// A column as another type. A value that would not come back the same is an error: Arrow itself cuts fractions off in silence.
///
/// # Errors
/// `invalid` if there is no such cast, or it would lose something.
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
        Err(Error::invalid(format!("a number of type {from} would not be the same as {to}")))
    }
}

/// Whether a column can hold prices and volumes.
pub(crate) fn is_number(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_floating() || kind.is_decimal()
}

/// What the numbers of both types fit into.
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
