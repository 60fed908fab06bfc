//! Points on a line between two columns of numbers.
//!
//! Every computation here is monotone in both ends, even after rounding: a column that is not above another at either end is not above it
//! between them. For floats, `a × (1 − w) + b × w` is monotone, because products with non-negative numbers, sums and roundings keep order,
//! and so does clamping the result to the ends. (`a + (b − a) × w` is not monotone.) For integers and decimals, the exact value is rounded
//! once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Schema};

use crate::error::{Error, Result};
use crate::lake::shape::{self, cast_strict};
use crate::model::Table;

/// How far a point is from the first end towards the second: `part` of `whole`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// Slots from the first end; at least one.
    pub(super) part: i64,
    /// Slots between the ends; more than `part`.
    pub(super) whole: i64,
}

/// Whether a column can be interpolated.
pub(super) fn is_number(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_floating() || kind.is_decimal()
}

/// The columns of numbers of a table that a repairer is to work on: those that are listed, or all. `what` is the verb for it.
///
/// # Errors
/// `invalid` if there are none, or if a listed column is none.
pub(super) fn chosen_columns(table: &Table, schema: &Schema, listed: Option<&[String]>, what: &str) -> Result<Vec<String>> {
    let own = |name: &str| name == table.time || table.key.iter().any(|key| key == name);
    let numbers: Vec<&Field> =
        schema.fields().iter().map(AsRef::as_ref).filter(|field| !own(field.name()) && is_number(field.data_type())).collect();
    let Some(listed) = listed else {
        return if numbers.is_empty() {
            Err(Error::invalid(format!("table `{}` has no numeric column to {what}; {}", table.name, shape::names(schema))))
        } else {
            Ok(numbers.iter().map(|field| field.name().clone()).collect())
        };
    };
    let find = |name: &String| {
        let field = shape::find(schema, name).map_err(|error| error.on("table", &table.name))?;
        let number = field.and_then(|field| numbers.iter().find(|number| number.name() == field.name()));
        number.map(|number| number.name().clone()).ok_or_else(|| {
            Error::invalid(format!(
                "`columns` lists `{name}`, which is not a numeric column of table `{}`; its numeric columns are {}",
                table.name,
                numbers.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
            ))
        })
    };
    listed.iter().map(find).collect()
}

/// For each row of a numeric column, whether it holds a finite number.
pub(super) fn finite(column: &ArrayRef) -> Result<BooleanArray> {
    if !column.data_type().is_floating() {
        return Ok((0..column.len()).map(|row| Some(column.is_valid(row))).collect());
    }
    let numbers = cast(column, &DataType::Float64)?;
    Ok(numbers.as_primitive::<Float64Type>().iter().map(|number| Some(number.is_some_and(f64::is_finite))).collect())
}

/// The points on the lines between two columns of the same type; null where an end is null or not finite, or where a point does not fit the
/// type.
pub(super) fn between(before: &ArrayRef, after: &ArrayRef, weights: &[Weight]) -> Result<ArrayRef> {
    let kind = before.data_type();
    if kind.is_floating() {
        let ends = [cast(before, &DataType::Float64)?, cast(after, &DataType::Float64)?];
        let [from, to] = ends.each_ref().map(|end| end.as_primitive::<Float64Type>());
        let points: Float64Array = weights.iter().zip(from.iter().zip(to.iter())).map(|(weight, (a, b))| float(a?, b?, *weight)).collect();
        return Ok(cast(&(Arc::new(points) as ArrayRef), kind)?);
    }
    let scale = match kind {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            *scale
        }
        _ => 0,
    };
    let exact = DataType::Decimal128(38, scale);
    let ends = [cast_strict(before, &exact)?, cast_strict(after, &exact)?];
    let [from, to] = ends.each_ref().map(|end| end.as_primitive::<Decimal128Type>());
    let points: Decimal128Array = weights.iter().zip(from.iter().zip(to.iter())).map(|(weight, (a, b))| whole(a?, b?, *weight)).collect();
    cast_strict(&(Arc::new(points.with_data_type(exact)) as ArrayRef), kind)
}

fn float(a: f64, b: f64, weight: Weight) -> Option<f64> {
    if !a.is_finite() || !b.is_finite() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "slots of a gap are far below 2^52")]
    let w = weight.part as f64 / weight.whole as f64;
    Some((a * (1.0 - w) + b * w).clamp(a.min(b), a.max(b)))
}

/// `(a × (whole − part) + b × part) / whole`, rounded half up.
fn whole(a: i128, b: i128, Weight { part, whole }: Weight) -> Option<i128> {
    let (part, whole) = (i128::from(part), i128::from(whole));
    let weighted = a.checked_mul(whole - part)?.checked_add(b.checked_mul(part)?)?;
    let twice = weighted.checked_mul(2)?.checked_add(whole)?;
    Some(twice.div_euclid(2 * whole))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the nearest narrower float is wanted")]
mod tests {
    use arrow::array::{Float32Array, Int64Array, UInt64Array};
    use proptest::prelude::*;

    use super::*;

    fn weight() -> impl Strategy<Value = Weight> {
        (2i64..2_000).prop_flat_map(|whole| (1..whole).prop_map(move |part| Weight { part, whole }))
    }

    /// Two bars: low, open, close, high.
    fn bars() -> impl Strategy<Value = [[f64; 4]; 2]> {
        let bar = || {
            prop::array::uniform4(prop_oneof![0.0001f64..1_000_000.0, Just(0.1), Just(f64::MAX / 4.0), Just(f64::MIN_POSITIVE)]).prop_map(
                |mut bar| {
                    bar.sort_by(f64::total_cmp);
                    bar
                },
            )
        };
        [bar(), bar()]
    }

    proptest! {
        #[test]
        fn a_bar_between_two_bars_is_a_bar(ends in bars(), weight in weight()) {
            let [low, open, close, high] = std::array::from_fn(|at| float(ends[0][at], ends[1][at], weight).unwrap());
            prop_assert!(low <= open && low <= close && open <= high && close <= high, "{ends:?} {weight:?}");
            for ((a, b), point) in ends[0].into_iter().zip(ends[1]).zip([low, open, close, high]) {
                prop_assert!(a.min(b) <= point && point <= a.max(b));
            }
            let narrow = |at: usize| {
                let end = |end: usize| Arc::new(Float32Array::from(vec![ends[end][at] as f32])) as ArrayRef;
                between(&end(0), &end(1), &[weight]).unwrap().as_primitive::<arrow::datatypes::Float32Type>().iter().next().unwrap()
            };
            let bar: Vec<Option<f32>> = (0..4).map(narrow).collect();
            let known = bar.iter().flatten().count() == 4;
            prop_assert!(!known || bar.windows(2).all(|pair| pair[0] <= pair[1]), "{bar:?}");
        }

        #[test]
        fn whole_numbers_are_the_nearest_and_keep_their_order(a in any::<i64>(), b in any::<i64>(), up in 0i64..1_000, weight in weight()) {
            let point = whole(a.into(), b.into(), weight).unwrap();
            // Twice the distance to the exact value is at most one.
            let (part, all) = (i128::from(weight.part), i128::from(weight.whole));
            let exact = i128::from(a) * (all - part) + i128::from(b) * part;
            prop_assert!((point * all - exact).abs() * 2 <= all);
            let above = whole(i128::from(a) + i128::from(up), b.into(), weight).unwrap();
            prop_assert!(point <= above);
        }
    }

    #[test]
    fn ends_of_any_kind_of_number() {
        let weights = [Weight { part: 1, whole: 2 }, Weight { part: 1, whole: 4 }];
        let [from, to]: [ArrayRef; 2] =
            [Arc::new(UInt64Array::from(vec![u64::MAX, 1])), Arc::new(UInt64Array::from(vec![u64::MAX - 2, 2]))];
        let points = between(&from, &to, &weights).unwrap();
        assert_eq!(points.as_primitive::<arrow::datatypes::UInt64Type>().values().as_ref(), [u64::MAX - 1, 1]);
        let decimal = |values: Vec<i128>| Arc::new(Decimal128Array::from(values).with_data_type(DataType::Decimal128(10, 2))) as ArrayRef;
        let points = between(&decimal(vec![100, -10]), &decimal(vec![201, -20]), &weights).unwrap();
        assert_eq!(points.as_primitive::<Decimal128Type>().values().as_ref(), [151, -12], "half up");
        let [from, to]: [ArrayRef; 2] =
            [Arc::new(Int64Array::from(vec![None, Some(4)])), Arc::new(Int64Array::from(vec![Some(1), Some(8)]))];
        let points = between(&from, &to, &weights).unwrap();
        assert_eq!(points.as_primitive::<arrow::datatypes::Int64Type>().iter().collect::<Vec<_>>(), [None, Some(5)]);
        assert_eq!(float(f64::NAN, 1.0, weights[0]), None);
    }
}
