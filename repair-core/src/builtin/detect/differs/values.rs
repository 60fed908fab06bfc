//! Compares the values of a row with those that a source has. Pure.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, Float64Array};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;

use crate::builtin::detect::invalid::{Number, Numbers, numbers};
use crate::error::{Error, Result};
use crate::lake::overlay::patch::{Same, same_values};
use crate::lake::shape;

/// How long a value in a message may be, in characters.
const LONGEST_SHOWN: usize = 40;

/// How far the numbers of a column may be apart and still be the same: by so much, or by such a part of the source's number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tolerance {
    pub(super) absolute: f64,
    pub(super) relative: f64,
}

impl Tolerance {
    pub(super) fn is_exact(self) -> bool {
        self.absolute == 0.0 && self.relative == 0.0
    }

    /// Whether two numbers are the same, where numbers carry an error of `precision`, as a part of them.
    fn allows(self, own: f64, theirs: f64, precision: f64) -> bool {
        if own.is_nan() || theirs.is_nan() {
            return own.is_nan() && theirs.is_nan();
        }
        if own == theirs || !own.is_finite() || !theirs.is_finite() || self.is_exact() {
            return own == theirs;
        }
        // 0.03 - 0.02 is a little more than 0.01: two numbers that are written with digits are off by half a unit in the last place each.
        let rounding = 4.0 * precision * own.abs().max(theirs.abs());
        (own - theirs).abs() <= self.absolute.max(self.relative * theirs.abs()) + rounding
    }

    /// As [`Tolerance::allows`], for whole numbers and decimals, whose difference is not rounded.
    fn allows_exact(self, own: Number, theirs: Number) -> bool {
        // A part of a number is rounded when it is computed.
        let part = self.relative * theirs.as_float().abs() * (1.0 + 4.0 * f64::EPSILON);
        own.distance(theirs) <= self.absolute.max(part)
    }
}

/// A column that is compared.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Its name in the table.
    pub(super) name: String,
    pub(super) tolerance: Tolerance,
}

/// How the values of a cell compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    Different,
    /// The table has a value, and the source has none.
    OnlyTable,
}

/// The values of one column: the table's, as readers see them, beside the source's.
pub(super) struct Beside {
    own: Option<ArrayRef>,
    theirs: ArrayRef,
    /// Exact comparison, where the source's values fit the table's column.
    same: Option<Same>,
    /// Both with all their digits, for whole numbers and decimals that may be apart or do not fit.
    digits: Option<(Numbers, Numbers)>,
    /// Both as floats, for other numbers that may be apart or do not fit, and how precise they are.
    numbers: Option<(Float64Array, Float64Array, f64)>,
    tolerance: Tolerance,
}

impl Beside {
    /// # Errors
    /// `invalid` if the source's values are not of the kind that the table has.
    pub(super) fn of(column: &Column, own: Option<&ArrayRef>, theirs: &ArrayRef) -> Result<Self> {
        // A column of which no value is known yet has no type.
        let own = own.filter(|own| *own.data_type() != DataType::Null).cloned();
        let mut beside = Self { own, theirs: theirs.clone(), same: None, digits: None, numbers: None, tolerance: column.tolerance };
        let Some(own) = beside.own.clone() else { return Ok(beside) };
        let name = column.name.as_str();
        let are_numbers = own.data_type().is_numeric() && theirs.data_type().is_numeric();
        match shape::cast_exact(theirs, own.data_type()) {
            Ok(theirs) => {
                let same = same_values(&own, &theirs, name).map_err(|error| {
                    let message = format!(
                        "values of column `{name}`, which are {}, cannot be compared; list other columns under `columns`",
                        own.data_type()
                    );
                    Error::invalid(message).because(error)
                })?;
                beside.same = Some(same);
                beside.theirs = theirs;
            }
            // Compared below.
            Err(_) if are_numbers => {}
            Err(error) => {
                let (theirs, own) = (theirs.data_type(), own.data_type());
                let message = format!(
                    "its values of column `{name}` are {theirs} and do not fit the table's, which are {own}; list under `columns` what to compare"
                );
                return Err(Error::invalid(message).because(error));
            }
        }
        if are_numbers && (beside.same.is_none() || !column.tolerance.is_exact()) {
            let are_exact = [&own, theirs].iter().all(|values| values.data_type().is_integer() || values.data_type().is_decimal());
            // One of more than 38 digits is compared as a float.
            beside.digits = match are_exact {
                true => Numbers::of(name, &own).ok().zip(Numbers::of(name, theirs).ok()),
                false => None,
            };
            if beside.digits.is_some() {
                return Ok(beside);
            }
            let is_narrow = [&own, theirs].iter().any(|values| matches!(values.data_type(), DataType::Float16 | DataType::Float32));
            let precision = if is_narrow { f64::from(f32::EPSILON) } else { f64::EPSILON };
            beside.numbers = Some((numbers(name, &own)?, numbers(name, theirs)?, precision));
        }
        Ok(beside)
    }

    pub(super) fn verdict(&self, own_row: usize, their_row: usize) -> Verdict {
        let is_own = self.own.as_ref().is_some_and(|own| own.is_valid(own_row));
        let is_theirs = *self.theirs.data_type() != DataType::Null && self.theirs.is_valid(their_row);
        match (is_own, is_theirs) {
            (false, false) => Verdict::Same,
            (false, true) => Verdict::Different,
            (true, false) => Verdict::OnlyTable,
            (true, true) => {
                let is_same = self.same.as_ref().is_some_and(|same| same(own_row, their_row))
                    || self.digits.as_ref().is_some_and(|(own, theirs)| {
                        let pair = own.get(own_row).zip(theirs.get(their_row));
                        pair.is_some_and(|(own, theirs)| self.tolerance.allows_exact(own.number, theirs.number))
                    })
                    || self.numbers.as_ref().is_some_and(|(own, theirs, precision)| {
                        self.tolerance.allows(own.value(own_row), theirs.value(their_row), *precision)
                    });
                if is_same { Verdict::Same } else { Verdict::Different }
            }
        }
    }

    /// The two values of a cell, in words.
    pub(super) fn words(&self, own_row: usize, their_row: usize) -> Result<(String, String)> {
        let own = match &self.own {
            Some(own) => shown(own, own_row)?,
            None => "empty".to_owned(),
        };
        Ok((own, shown(&self.theirs, their_row)?))
    }
}

fn shown(values: &ArrayRef, row: usize) -> Result<String> {
    if values.is_null(row) {
        return Ok("empty".to_owned());
    }
    let text = array_value_to_string(values, row)?;
    let cut = text.char_indices().nth(LONGEST_SHOWN).map(|(at, _)| at);
    let text = match cut {
        Some(at) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(&text),
    };
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Float32Array, Int64Array, NullArray, StringArray};

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "short to call")]
    fn verdicts(tolerance: Tolerance, own: ArrayRef, theirs: ArrayRef) -> Vec<Verdict> {
        let column = Column { name: "v".to_owned(), tolerance };
        let beside = Beside::of(&column, Some(&own), &theirs).unwrap_or_else(|error| panic!("{}", error.full()));
        (0..theirs.len()).map(|row| beside.verdict(row, row)).collect()
    }

    fn floats(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    #[test]
    fn numbers_are_compared_whatever_their_types() {
        use Verdict::{Different, OnlyTable, Same};
        let exact = Tolerance::default();
        let own = || floats(&[Some(1.0), Some(2.5), None, Some(4.0), None, Some(f64::NAN), Some(-0.0)]);
        let theirs = floats(&[Some(1.0), Some(2.6), Some(3.0), None, None, Some(f64::NAN), Some(0.0)]);
        assert_eq!(verdicts(exact, own(), theirs), [Same, Different, Different, OnlyTable, Same, Same, Same]);
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        assert_eq!(verdicts(exact, whole.clone(), floats(&[Some(1.0), Some(2.5), Some(3.0)])), [Same, Different, Same]);
        let narrow: ArrayRef = Arc::new(Float32Array::from(vec![187.6, 0.1, 2.0]));
        assert_eq!(verdicts(exact, narrow, floats(&[Some(187.6), Some(0.1), Some(2.1)])), [Same, Same, Different]);
        let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![18_750, 10, 12]).with_precision_and_scale(10, 2).unwrap());
        assert_eq!(verdicts(exact, decimals.clone(), floats(&[Some(187.5), Some(0.1), Some(0.123)])), [Same, Same, Different]);
        let near = Tolerance { absolute: 0.005, relative: 0.0 };
        assert_eq!(verdicts(near, decimals, floats(&[Some(187.51), Some(0.1), Some(0.123)])), [Different, Same, Same]);
        let nulls: ArrayRef = Arc::new(NullArray::new(3));
        assert_eq!(verdicts(exact, whole, nulls), [OnlyTable; 3]);
    }

    #[test]
    fn a_tolerance_includes_its_bound_as_it_is_written() {
        let of = |absolute: f64, relative: f64, own: f64, theirs: f64| Tolerance { absolute, relative }.allows(own, theirs, f64::EPSILON);
        assert!(of(0.01, 0.0, 0.02, 0.03) && of(0.01, 0.0, 187.51, 187.50) && !of(0.01, 0.0, 187.511, 187.50));
        assert!(of(0.0, 0.01, 99.0, 100.0) && !of(0.0, 0.01, 98.9, 100.0) && of(0.0, 0.01, -99.0, -100.0));
        assert!(of(2.0, 0.01, 98.0, 100.0), "the larger of the two counts");
        assert!(!of(5.0, 0.0, f64::INFINITY, 1.0) && of(5.0, 0.0, f64::INFINITY, f64::INFINITY) && !of(5.0, 0.0, f64::NAN, 1.0));
    }

    #[test]
    fn a_tolerance_hides_no_digit_of_whole_numbers_and_decimals() {
        use Verdict::{Different, Same};
        let wholes = |values: [i64; 3]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let big = 2_305_843_009_213_694_914;
        let one = Tolerance { absolute: 1.0, relative: 0.0 };
        assert_eq!(verdicts(one, wholes([big + 5, big + 1, big]), wholes([big; 3])), [Different, Same, Same]);
        let decimals = |values: [i128; 3], scale: i8| {
            Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(38, scale).unwrap()) as ArrayRef
        };
        let cent = Tolerance { absolute: 0.01, relative: 0.0 };
        let amount = 900_719_925_474_099_309;
        assert_eq!(verdicts(cent, decimals([amount - 2, amount - 1, amount + 1], 2), decimals([amount; 3], 2)), [Different, Same, Same]);
        // Of another scale.
        let theirs = decimals([amount * 10 + 1, amount * 10 + 10, amount * 10 - 10], 3);
        assert_eq!(verdicts(cent, decimals([amount - 1, amount, amount], 2), theirs.clone()), [Different, Same, Same]);
        assert_eq!(verdicts(Tolerance::default(), decimals([amount; 3], 2), theirs), [Different; 3]);
        let tenth = Tolerance { absolute: 0.0, relative: 0.1 };
        assert_eq!(verdicts(tenth, decimals([27, 33, 34], 2), decimals([30; 3], 2)), [Same, Same, Different]);
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        let column = Column { name: "v".to_owned(), tolerance: Tolerance::default() };
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let Err(error) = Beside::of(&column, Some(&floats(&[Some(1.0), None])), &texts) else { panic!("text fits numbers") };
        assert!(error.message().contains("column `v` are Utf8") && error.message().contains("`columns`"), "{error}");
        let beside = Beside::of(&column, None, &texts).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(beside.verdict(0, 0), Verdict::Different);
        assert_eq!(beside.words(0, 1).unwrap(), ("empty".to_owned(), "b".to_owned()));
    }
}
