//! `max_by`, `min_by`, `any_value` and `approx_percentile`.

use std::cmp::Ordering;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::bad_argument;

pub(super) fn functions() -> Vec<AggregateUDF> {
    let by = |name, wanted| AggregateUDF::new_from_impl(By { name, wanted, signature: Signature::user_defined(Volatility::Immutable) });
    vec![
        by("max_by", Wanted::Greatest),
        by("min_by", Wanted::Least),
        by("any_value", Wanted::Any),
        AggregateUDF::new_from_impl(Percentile { signature: Signature::user_defined(Volatility::Immutable) }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    Greatest,
    Least,
    /// The first non-null value.
    Any,
}

/// The value of the row in which another value is greatest or least.
#[derive(Debug, PartialEq, Eq, Hash)]
struct By {
    name: &'static str,
    wanted: Wanted,
    signature: Signature,
}

impl AggregateUDFImpl for By {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = if self.wanted == Wanted::Any { 1 } else { 2 };
        if arguments.len() != wanted {
            return Err(super::bad_type(self.name, arguments));
        }
        Ok(arguments.to_vec())
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let kinds: Vec<DataType> = arguments.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        let by = kinds.get(1).unwrap_or(&kinds[0]);
        Ok(Box::new(ByState { wanted: self.wanted, value: ScalarValue::try_from(&kinds[0])?, by: ScalarValue::try_from(by)? }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let value = arguments.input_fields[0].data_type().clone();
        let by = arguments.input_fields.get(1).map_or_else(|| value.clone(), |field| field.data_type().clone());
        Ok(vec![
            Arc::new(Field::new(format!("{}_value", arguments.name), value, true)),
            Arc::new(Field::new(format!("{}_by", arguments.name), by, true)),
        ])
    }
}

#[derive(Debug)]
struct ByState {
    wanted: Wanted,
    value: ScalarValue,
    by: ScalarValue,
}

impl Accumulator for ByState {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let by = columns.get(1).unwrap_or(&columns[0]);
        for row in 0..by.len() {
            if by.is_null(row) || (self.wanted == Wanted::Any && !self.by.is_null()) {
                continue;
            }
            let candidate = ScalarValue::try_from_array(by, row)?;
            let better = self.by.is_null()
                || match candidate.partial_cmp(&self.by) {
                    Some(Ordering::Greater) => self.wanted == Wanted::Greatest,
                    Some(Ordering::Less) => self.wanted == Wanted::Least,
                    _ => false,
                };
            if better {
                self.value = ScalarValue::try_from_array(&columns[0], row)?.compacted();
                self.by = candidate.compacted();
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), self.by.clone()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.value.size() + self.by.size()
    }
}

/// `approx_percentile(x, p)`. Trino's result is near the percentile; this one is exact, the value of that rank.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    signature: Signature,
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        "approx_percentile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [value, _] if value.is_numeric() => Ok(vec![value.clone(), DataType::Float64]),
            _ => Err(super::bad_type("approx_percentile", arguments)),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(PercentileState { values: Vec::new(), percentile: None, kind: arguments.return_field.data_type().clone() }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let values = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
        Ok(vec![
            Arc::new(Field::new(format!("{}_values", arguments.name), values, true)),
            Arc::new(Field::new(format!("{}_percentile", arguments.name), DataType::Float64, true)),
        ])
    }
}

#[derive(Debug)]
struct PercentileState {
    values: Vec<f64>,
    percentile: Option<f64>,
    kind: DataType,
}

impl PercentileState {
    fn take_percentile(&mut self, column: &ArrayRef) -> Result<()> {
        let percentiles = cast(column, &DataType::Float64)?;
        for percentile in percentiles.as_primitive::<Float64Type>().iter().flatten() {
            if !(0.0..=1.0).contains(&percentile) {
                return Err(bad_argument("Percentile must be between 0 and 1"));
            }
            self.percentile = Some(percentile);
        }
        Ok(())
    }
}

impl Accumulator for PercentileState {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.take_percentile(&columns[1])?;
        let values = cast(&columns[0], &DataType::Float64)?;
        self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.take_percentile(&states[1])?;
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.values.extend(list.as_primitive::<Float64Type>().iter().flatten());
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.values.iter().map(|value| ScalarValue::Float64(Some(*value))).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64)), ScalarValue::Float64(self.percentile)])
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is between 0 and the count"
    )]
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let Some(percentile) = self.percentile.filter(|_| !self.values.is_empty()) else {
            return ScalarValue::try_from(&self.kind);
        };
        self.values.sort_by(f64::total_cmp);
        let rank = (percentile * self.values.len() as f64).ceil() as usize;
        let value: ArrayRef = Arc::new(Float64Array::from(vec![self.values[rank.clamp(1, self.values.len()) - 1]]));
        ScalarValue::try_from_array(&cast(&value, &self.kind)?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<f64>()
    }
}
