//! One value for each of many cells, computed from slices of columns that come in order of time. It works on values only.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use repair_core::lake::rollup::{Function, Number, greatest, least};

/// A column of a batch, in the type in which it is computed.
pub(super) enum Numbers {
    Floats(ArrayRef),
    Wholes(ArrayRef),
    Decimals(ArrayRef),
}

impl Numbers {
    /// A column of one of the types of a rollup's results; `None` if it is of another.
    pub(super) fn of(column: ArrayRef) -> Option<Self> {
        match column.data_type() {
            DataType::Float64 => Some(Self::Floats(column)),
            DataType::Int64 => Some(Self::Wholes(column)),
            DataType::Decimal128(_, _) => Some(Self::Decimals(column)),
            _ => None,
        }
    }
}

/// Nothing came yet.
const NOTHING: u8 = 0;
/// There is a value.
const VALUE: u8 = 1;
/// A sum was too large.
const OVERFLOW: u8 = 2;

/// The values of a measure, one for each cell.
pub(super) struct Fold {
    function: Function,
    states: Vec<u8>,
    values: Values,
}

enum Values {
    Floats(Vec<f64>),
    Exact(Vec<i128>),
}

impl Fold {
    /// Nothing in any cell. Memory is used when a cell gets its first value.
    pub(super) fn new(function: Function, kind: &DataType, cells: usize) -> Self {
        let values = if *kind == DataType::Float64 { Values::Floats(vec![0.0; cells]) } else { Values::Exact(vec![0; cells]) };
        Self { function, states: vec![NOTHING; cells], values }
    }

    /// Adds rows to a cell, later than those that it has.
    #[inline]
    pub(super) fn add(&mut self, cell: usize, column: &Numbers, rows: Range<usize>) {
        match (&mut self.values, column) {
            (Values::Floats(cells), Numbers::Floats(column)) => {
                let values = column.as_primitive::<Float64Type>();
                let state = (&mut self.states[cell], &mut cells[cell]);
                match values.nulls() {
                    None => floats(self.function, state, &values.values()[rows]),
                    Some(nulls) => {
                        there(nulls, rows, |row| floats(self.function, (&mut *state.0, &mut *state.1), &values.values()[row..=row]));
                    }
                }
            }
            (Values::Exact(cells), Numbers::Wholes(column)) => {
                let values = column.as_primitive::<Int64Type>();
                let state = (&mut self.states[cell], &mut cells[cell]);
                match values.nulls() {
                    None => exact(self.function, state, values.values()[rows].iter().map(|value| i128::from(*value))),
                    Some(nulls) => there(nulls, rows, |row| {
                        exact(self.function, (&mut *state.0, &mut *state.1), std::iter::once(i128::from(values.value(row))));
                    }),
                }
            }
            (Values::Exact(cells), Numbers::Decimals(column)) => {
                let values = column.as_primitive::<Decimal128Type>();
                let state = (&mut self.states[cell], &mut cells[cell]);
                match values.nulls() {
                    None => exact(self.function, state, values.values()[rows].iter().copied()),
                    Some(nulls) => there(nulls, rows, |row| {
                        exact(self.function, (&mut *state.0, &mut *state.1), std::iter::once(values.value(row)));
                    }),
                }
            }
            // A column is always brought to the type of its measure.
            _ => self.states[cell] = OVERFLOW,
        }
    }

    /// The value of a cell.
    pub(super) fn number(&self, cell: usize) -> Number {
        match (&self.values, self.states[cell]) {
            (_, OVERFLOW) => Number::Overflow,
            (Values::Floats(_), NOTHING) => Number::Float(None),
            (Values::Exact(_), NOTHING) => Number::Exact(None),
            (Values::Floats(values), _) => Number::Float(Some(values[cell])),
            (Values::Exact(values), _) => Number::Exact(Some(values[cell])),
        }
    }
}

/// Calls for each row that is not null.
fn there(nulls: &NullBuffer, rows: Range<usize>, mut add: impl FnMut(usize)) {
    rows.filter(|row| nulls.is_valid(*row)).for_each(&mut add);
}

#[inline]
fn floats(function: Function, (state, value): (&mut u8, &mut f64), rows: &[f64]) {
    let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else { return };
    let is_new = std::mem::replace(state, VALUE) == NOTHING;
    match function {
        Function::First if is_new => *value = first,
        Function::First => {}
        Function::Last => *value = last,
        Function::Min => *value = best(rows, (!is_new).then_some(*value), f64::INFINITY, |a, b| a < b, least),
        Function::Max => *value = best(rows, (!is_new).then_some(*value), f64::NEG_INFINITY, |a, b| a > b, greatest),
        Function::Sum => {
            let (sum, rows) = if is_new { (first, &rows[1..]) } else { (*value, rows) };
            *value = rows.iter().fold(sum, |sum, row| sum + row);
        }
    }
}

/// The smallest or largest of some floats, as `combine` finds it one by one. Several at a time are compared where that cannot make a difference:
/// where the result is neither a zero, of which there are two, nor what all are compared with.
#[inline]
fn best(rows: &[f64], known: Option<f64>, worst: f64, is_better: impl Fn(f64, f64) -> bool, combine: impl Fn(f64, f64) -> f64) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [worst; LANES];
    let (eights, rest) = rows.as_chunks::<LANES>();
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane = if is_better(*value, *lane) { *value } else { *lane };
        }
    }
    let found = rest.iter().chain(&lanes).chain(&known).fold(worst, |best, value| if is_better(*value, best) { *value } else { best });
    if found != 0.0 && found != worst {
        return found;
    }
    let (first, rows) = match (known, rows) {
        (Some(known), rows) => (known, rows),
        (None, [first, rows @ ..]) => (*first, rows),
        (None, []) => return worst,
    };
    rows.iter().fold(first, |best, value| combine(best, *value))
}

#[inline]
fn exact(function: Function, (state, value): (&mut u8, &mut i128), mut rows: impl DoubleEndedIterator<Item = i128>) {
    if *state == OVERFLOW {
        return;
    }
    let mut last = None;
    if *state == NOTHING {
        let Some(first) = rows.next() else { return };
        (*state, *value) = (VALUE, first);
    }
    match function {
        Function::First => {}
        Function::Last => last = rows.next_back(),
        Function::Min => *value = rows.fold(*value, i128::min),
        Function::Max => *value = rows.fold(*value, i128::max),
        Function::Sum => match rows.try_fold(*value, i128::checked_add) {
            Some(sum) => *value = sum,
            None => *state = OVERFLOW,
        },
    }
    if let Some(last) = last {
        *value = last;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// To the last bit, whichever zero or NaN came first.
        #[test]
        fn several_at_a_time_are_the_same_as_one_by_one(
            rows in proptest::collection::vec(prop::sample::select(vec![0.0, -0.0, 1.0, -1.5, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 7.25]), 1..40),
            known in proptest::option::of(prop::sample::select(vec![0.0, -0.0, f64::NAN, 2.0, -2.0])),
        ) {
            let one_by_one = |combine: fn(f64, f64) -> f64| known.iter().chain(&rows).copied().reduce(combine).unwrap().to_bits();
            let low = best(&rows, known, f64::INFINITY, |a, b| a < b, least);
            let high = best(&rows, known, f64::NEG_INFINITY, |a, b| a > b, greatest);
            prop_assert_eq!((low.to_bits(), high.to_bits()), (one_by_one(least), one_by_one(greatest)));
        }
    }
}
