//! What a rule with `equals` compares: a value with the sum, the mean, the least, the greatest or the number of the rows of another table that
//! belong to it. Pure.

use std::cmp;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use schemars::JsonSchema;
use serde::Deserialize;

use super::related::comparable;
use super::rule::{Breach, Broken};
use crate::error::{Error, Result};
use crate::lake::{rollup, shape};
use crate::model::{Key, SlotGrid, Table};

/// What a value must equal.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`{ table: items, sum: amount }`, with `sum`, `mean`, `min`, `max` or `count`")]
pub enum Equals {
    /// A total of another table.
    Total(TotalOf),
    /// The same, with the names of both tables.
    #[serde(skip)]
    Related(Arc<Related>),
    /// The totals themselves.
    #[serde(skip)]
    Known(Arc<Totals>),
}

impl PartialEq for Equals {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Total(one), Self::Total(other)) => one == other,
            (Self::Related(one), Self::Related(other)) => Arc::ptr_eq(one, other),
            (Self::Known(one), Self::Known(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// One value of all rows of another table that belong to a row, as the repaired view of that table shows them. Exactly one of `sum`, `mean`,
/// `min`, `max` and `count` is given.
///
/// The rows that belong to a row have its key. If the row is one of a series, they also lie within its slot: those of another series begin there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TotalOf {
    /// The other table.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The column of that table to sum up.
    #[serde(default)]
    pub sum: Option<String>,
    /// The column of that table whose mean counts.
    #[serde(default)]
    pub mean: Option<String>,
    /// The column of that table whose smallest value counts.
    #[serde(default)]
    pub min: Option<String>,
    /// The column of that table whose largest value counts.
    #[serde(default)]
    pub max: Option<String>,
    /// `true` counts the rows, and a column counts its values.
    #[serde(default)]
    pub count: Option<Counted>,
    /// Which rows belong to a row: columns of the other table, each with the column of this one that it equals, such as `{ order: id }`. By default, the
    /// key columns of this table, under the same names.
    #[serde(default)]
    pub by: Option<BTreeMap<String, String>>,
    /// How far the value may be from the total, in the column's unit; default 0. What floating-point numbers are rounded by is no difference.
    #[serde(default)]
    pub tolerance: f64,
    /// The same, as a part of the total: 0.001 is one in a thousand. If both are given, the one that allows more counts.
    #[serde(default)]
    pub relative: f64,
    /// What happens to a row of which the other table lacks something.
    #[serde(default)]
    pub incomplete: Option<Incomplete>,
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`true`, which counts rows, or the name of a column, which counts its values")]
pub enum Counted {
    /// All rows, if true.
    Rows(bool),
    /// The values of a column.
    Values(String),
}

/// What happens to a row of which the other table lacks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Incomplete {
    /// It is not judged, and counted as `unjudged`: the default where both tables are series, and each slot of the other one must have its row. Otherwise
    /// only rows to which no row belongs are not judged.
    Skip,
    /// It is judged by the rows that are there. Of no rows, the sum and the count are 0, and no value is their mean, their least or their greatest.
    Judge,
}

/// How values become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Sum,
    Mean,
    Min,
    Max,
    Count,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
        }
    }
}

impl TotalOf {
    /// The function, and its column; none if rows are counted.
    ///
    /// # Errors
    /// `invalid` if not exactly one is given.
    pub(super) fn function(&self) -> Result<(Function, Option<&str>)> {
        let of = |function, column: &'_ Option<String>| column.is_some().then_some(function);
        let given: Vec<Function> = [
            of(Function::Sum, &self.sum),
            of(Function::Mean, &self.mean),
            of(Function::Min, &self.min),
            of(Function::Max, &self.max),
            self.count.is_some().then_some(Function::Count),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [function] = given.as_slice() else {
            let given: Vec<&str> = given.iter().map(|function| function.name()).collect();
            let given = if given.is_empty() { "none of them".to_owned() } else { format!("`{}`", given.join("` and `")) };
            return Err(Error::invalid(format!(
                "`equals` needs one of `sum`, `mean`, `min`, `max` and `count`, and has {given}; write e.g. `equals: {{ table: {}, sum: amount }}`",
                self.table
            )));
        };
        let column = match function {
            Function::Sum => self.sum.as_deref(),
            Function::Mean => self.mean.as_deref(),
            Function::Min => self.min.as_deref(),
            Function::Max => self.max.as_deref(),
            Function::Count => match &self.count {
                Some(Counted::Values(column)) => Some(column.as_str()),
                Some(Counted::Rows(false)) => {
                    return Err(Error::invalid(
                        "`count: false` counts nothing; write `count: true` for rows, or the name of a column for its values",
                    ));
                }
                _ => None,
            },
        };
        Ok((*function, column))
    }

    /// Checks what can be checked without a table.
    ///
    /// # Errors
    /// `invalid`, with what to write instead.
    pub(super) fn check(&self) -> Result<()> {
        self.function()?;
        for (name, value) in [("tolerance", self.tolerance), ("relative", self.relative)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(format!("`{name}` of `equals` is {value}; use a number of 0 or more")));
            }
        }
        Ok(())
    }
}

impl fmt::Display for TotalOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ table: {}", self.table)?;
        if let Ok((function, column)) = self.function() {
            write!(f, ", {}: {}", function.name(), column.unwrap_or("true"))?;
        }
        f.write_str(" }")
    }
}

/// A rule about a total, with the names that both tables use.
#[derive(Debug)]
pub struct Related {
    /// As it was written.
    pub(super) of: TotalOf,
    /// How values become one.
    pub(super) function: Function,
    /// The column of the other table; none if its rows are counted.
    pub(super) column: Option<String>,
    /// Columns of the other table, each with the one of this table.
    pub(super) by: Vec<(String, String)>,
    /// This table.
    pub(super) table: Table,
    /// Its slots, if it is a series.
    pub(super) grid: Option<SlotGrid>,
    /// The columns of this table that it reads, other than key and time.
    pub(super) reads: Vec<String>,
    /// What happens to rows of which something is lacking.
    pub(super) incomplete: Incomplete,
    /// Whether each slot of the other table is known to be expected for each row.
    pub(super) is_checked: bool,
    /// Whether any row was judged so far.
    pub(super) has_judged: AtomicBool,
}

/// The totals to which the rows of a stretch of time are compared.
#[derive(Debug)]
pub struct Totals {
    /// What they are about.
    pub(super) related: Arc<Related>,
    /// By the values of the columns of `by`, and by slot; 0 if the table has no slots.
    pub(super) all: HashMap<Key, HashMap<i64, Total>>,
}

/// The total of the rows that belong to one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Total {
    /// It is known; none if no value is one.
    Known(Option<Measured>),
    /// Not all that it needs is there.
    Incomplete,
}

/// A number with what it may be off by, because floating-point numbers are rounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::builtin::detect) struct Measured {
    pub(in crate::builtin::detect) number: Number,
    pub(super) rounding: f64,
}

/// A number as its column holds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::builtin::detect) enum Number {
    /// Digits, and how many of them are behind the point.
    Exact(i128, i8),
    /// The mean of so many such numbers, which have this sum.
    Mean(i128, i8, u64),
    /// A floating-point number.
    Float(f64),
}

/// So many powers of ten are exact as 64-bit floats.
const EXACT_POWERS: i32 = 22;

impl Number {
    pub(in crate::builtin::detect) fn as_float(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "the nearest float is wanted")]
            Self::Exact(digits, scale) => {
                let power = 10f64.powi(i32::from(scale).abs().min(EXACT_POWERS * 2));
                if scale >= 0 { digits as f64 / power } else { digits as f64 * power }
            }
            #[expect(clippy::cast_precision_loss, reason = "the nearest float is wanted")]
            Self::Mean(digits, scale, count) => Self::Exact(digits, scale).as_float() / count as f64,
            Self::Float(float) => float,
        }
    }

    /// Which of two numbers of a column is the larger one.
    fn compare(self, other: Self) -> Option<cmp::Ordering> {
        match (self, other) {
            (Self::Exact(one, scale), Self::Exact(other, others)) if scale == others => Some(one.cmp(&other)),
            (one, other) => one.as_float().partial_cmp(&other.as_float()),
        }
    }

    /// How far two numbers are apart; exact if both are, but for a last rounding.
    pub(in crate::builtin::detect) fn distance(self, other: Self) -> f64 {
        if let (Self::Exact(one, scale), Self::Mean(sum, others, count)) = (self, other)
            && let Some(many) = one.checked_mul(i128::from(count))
        {
            #[expect(clippy::cast_precision_loss, reason = "it is rounded last")]
            return Self::Exact(many, scale).distance(Self::Exact(sum, others)) / count as f64;
        }
        if let (Self::Exact(one, scale), Self::Exact(other, others)) = (self, other) {
            let common = scale.max(others);
            let scaled = |digits: i128, scale: i8| {
                let more = u32::try_from(i32::from(common) - i32::from(scale)).ok()?;
                digits.checked_mul(10i128.checked_pow(more)?)
            };
            if let (Some(one), Some(other)) = (scaled(one, scale), scaled(other, others))
                && let Some(between) = one.checked_sub(other)
            {
                return Self::Exact(between, common).as_float().abs();
            }
        }
        (self.as_float() - other.as_float()).abs()
    }
}

/// The numbers of a column.
pub(in crate::builtin::detect) enum Numbers {
    /// Whole numbers and decimals.
    Exact(Decimal128Array, i8),
    /// Floating-point numbers, and the distance of the column's type from 1 to the next number.
    Float(Float64Array, f64),
}

impl Numbers {
    /// # Errors
    /// `invalid` if the column holds something else, or a number of more than 38 digits.
    pub(in crate::builtin::detect) fn of(name: &str, values: &ArrayRef) -> Result<Self> {
        let kind = values.data_type();
        let scale = match kind {
            kind if kind.is_integer() => Some(0),
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => Some(*scale),
            kind if kind.is_floating() => None,
            _ => return Err(Error::invalid(format!("a rule with `equals` needs numbers, and column `{name}` is {kind}"))),
        };
        Ok(match scale {
            Some(scale) => {
                let exact = shape::cast_strict(values, &DataType::Decimal128(38, scale))?;
                Self::Exact(exact.as_primitive::<Decimal128Type>().clone(), scale)
            }
            None => {
                let epsilon = match kind {
                    DataType::Float16 => 2f64.powi(-10),
                    DataType::Float32 => f64::from(f32::EPSILON),
                    _ => f64::EPSILON,
                };
                Self::Float(shape::cast_strict(values, &DataType::Float64)?.as_primitive::<Float64Type>().clone(), epsilon)
            }
        })
    }

    /// The number of a row, with what it may be rounded by; none for null.
    pub(in crate::builtin::detect) fn get(&self, row: usize) -> Option<Measured> {
        match self {
            Self::Exact(values, scale) => {
                values.is_valid(row).then(|| Measured { number: Number::Exact(values.value(row), *scale), rounding: 0.0 })
            }
            Self::Float(values, epsilon) => values.is_valid(row).then(|| {
                let value = values.value(row);
                Measured { number: Number::Float(value), rounding: value.abs() * epsilon }
            }),
        }
    }
}

/// Values as they are added up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gathered {
    /// Rows that have a value, or all if rows are counted.
    count: u64,
    /// The exact sum and its scale, while all values are exact and it is not too large.
    exact: Option<(i128, i8)>,
    is_rounded: bool,
    sum: f64,
    /// The sum of all values without sign, and of what they may be rounded by.
    absolute: f64,
    rounding: f64,
    least: Option<Measured>,
    greatest: Option<Measured>,
}

impl Gathered {
    /// A row without a value to add up.
    pub(super) fn add_row(&mut self) {
        self.count += 1;
    }

    /// A row with its value.
    pub(super) fn add(&mut self, value: Measured) {
        self.count += 1;
        let float = value.number.as_float();
        match value.number {
            Number::Exact(digits, scale) if !self.is_rounded => {
                let sum = self.exact.map_or(Some(digits), |(sum, _)| sum.checked_add(digits));
                self.exact = sum.map(|sum| (sum, scale));
                self.is_rounded = sum.is_none();
            }
            _ => (self.exact, self.is_rounded) = (None, true),
        }
        self.sum += float;
        self.absolute += float.abs();
        self.rounding += value.rounding;
        let known = |known: Option<Measured>, nearer: cmp::Ordering| {
            known.filter(|known| value.number.compare(known.number) != Some(nearer)).or(Some(value))
        };
        self.least = known(self.least, cmp::Ordering::Less);
        self.greatest = known(self.greatest, cmp::Ordering::Greater);
    }

    /// The total. Of no rows, the sum and the count are 0.
    #[expect(clippy::cast_precision_loss, reason = "the rounding of a count is below that of the sum")]
    pub(super) fn total(&self, function: Function) -> Option<Measured> {
        let count = self.count as f64;
        // N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2: a sum in any order is off by less than n - 1 roundings of
        // the sum of absolute values.
        let rounding = self.rounding + count * f64::EPSILON * self.absolute;
        match function {
            Function::Count => Some(Measured { number: Number::Exact(i128::from(self.count), 0), rounding: 0.0 }),
            Function::Min => self.least,
            Function::Max => self.greatest,
            Function::Sum => Some(match self.exact {
                Some((sum, scale)) => Measured { number: Number::Exact(sum, scale), rounding: 0.0 },
                None if self.count == 0 => Measured { number: Number::Exact(0, 0), rounding: 0.0 },
                None => Measured { number: Number::Float(self.sum), rounding },
            }),
            Function::Mean if self.count == 0 => None,
            Function::Mean => Some(match self.exact {
                Some((sum, scale)) => {
                    let number = Number::Mean(sum, scale, self.count);
                    Measured { number, rounding: 2.0 * f64::EPSILON * number.as_float().abs() }
                }
                None => {
                    let mean = self.sum / count;
                    Measured { number: Number::Float(mean), rounding: rounding / count + 2.0 * f64::EPSILON * mean.abs() }
                }
            }),
        }
    }
}

impl TotalOf {
    /// Whether a value is too far from a total. What is no finite number is.
    fn is_far(&self, value: Measured, total: Option<Measured>) -> bool {
        let Some(total) = total else { return true };
        if !value.number.as_float().is_finite() {
            return true;
        }
        let allowed = self.tolerance.max(self.relative * total.number.as_float().abs());
        let distance = value.number.distance(total.number);
        match (value.number, total.number) {
            (Number::Exact(..), Number::Exact(..)) => return distance > allowed,
            // Only the division has rounded the difference.
            (Number::Exact(..), Number::Mean(..)) => return distance > allowed + 2.0 * f64::EPSILON * allowed,
            _ => {}
        }
        // The tolerance and the difference were rounded, too.
        let rounding = value.rounding + total.rounding + f64::EPSILON * (value.number.as_float().abs() + total.number.as_float().abs());
        distance > allowed + rounding
    }
}

impl Totals {
    /// Marks the rows of a batch that do not equal their total, and those of which that cannot be said.
    ///
    /// # Errors
    /// `invalid` if a column cannot be compared.
    pub(super) fn mark(&self, values: (&str, &ArrayRef), batch: &RecordBatch, breach: Breach, wrong: &mut [Broken]) -> Result<()> {
        let related = &self.related;
        let values = Numbers::of(values.0, values.1)?;
        let times = shape::KeyTime::of(&related.table, batch)?.times;
        let by = related.by.iter().map(|(_, own)| comparable(own, rollup::column(batch, own)?)).collect::<Result<Vec<StringArray>>>()?;
        for (row, wrong) in wrong.iter_mut().enumerate() {
            let Some(value) = values.get(row).filter(|_| by.iter().all(|column| column.is_valid(row))) else { continue };
            let slot = match related.grid {
                Some(grid) => grid.slot_of_us(times.value(row)),
                None => 0,
            };
            let key = Key::new(by.iter().map(|column| column.value(row)));
            match self.of(&key, slot) {
                Total::Incomplete => wrong.leave_open(breach),
                Total::Known(total) => {
                    related.has_judged.store(true, Ordering::Relaxed);
                    if related.of.is_far(value, total) {
                        wrong.add(breach);
                    }
                }
            }
        }
        Ok(())
    }

    /// The total of the rows that belong to a row.
    fn of(&self, key: &Key, slot: i64) -> Total {
        let known = self.all.get(key).and_then(|of_key| of_key.get(&slot)).copied();
        known.unwrap_or_else(|| match self.related.incomplete {
            Incomplete::Skip => Total::Incomplete,
            Incomplete::Judge => Total::Known(Gathered::default().total(self.related.function)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[Measured], function: Function) -> Option<Measured> {
        let mut gathered = Gathered::default();
        values.iter().for_each(|value| gathered.add(*value));
        gathered.total(function)
    }

    fn float(value: f64) -> Measured {
        Measured { number: Number::Float(value), rounding: value.abs() * f64::EPSILON }
    }

    fn cents(value: i128) -> Measured {
        Measured { number: Number::Exact(value, 2), rounding: 0.0 }
    }

    #[test]
    fn what_floats_are_rounded_by_is_no_difference_and_anything_more_is_one() {
        let rule = TotalOf::default();
        let tenths = of(&[float(0.1); 10], Function::Sum);
        assert!(!rule.is_far(float(1.0), tenths) && rule.is_far(float(1.000_000_000_1), tenths));
        assert!(!rule.is_far(cents(100), tenths) && rule.is_far(cents(101), tenths));
        let thirds = of(&[float(1.0), float(1.0), float(2.0)], Function::Mean);
        assert!(!rule.is_far(float(4.0 / 3.0), thirds) && rule.is_far(float(1.333), thirds));
        let half = TotalOf { tolerance: 0.01, ..TotalOf::default() };
        assert!(!half.is_far(float(1.01), tenths) && !half.is_far(float(0.99), tenths) && half.is_far(float(1.02), tenths));
        let part = TotalOf { relative: 0.05, ..TotalOf::default() };
        assert!(!part.is_far(float(1.05), tenths) && part.is_far(float(1.06), tenths));
        assert!(rule.is_far(float(f64::NAN), tenths) && rule.is_far(float(f64::INFINITY), tenths));
    }

    #[test]
    fn whole_numbers_and_decimals_are_compared_to_the_last_digit() {
        let rule = TotalOf::default();
        // 2^53 + 1 is no float.
        let large = [Number::Exact(9_007_199_254_740_992, 0), Number::Exact(1, 0)].map(|number| Measured { number, rounding: 0.0 });
        let sum = of(&large, Function::Sum);
        let whole = |digits| Measured { number: Number::Exact(digits, 0), rounding: 0.0 };
        assert!(!rule.is_far(whole(9_007_199_254_740_993), sum) && rule.is_far(whole(9_007_199_254_740_992), sum));
        let cent = TotalOf { tolerance: 0.01, ..TotalOf::default() };
        let sum = of(&[cents(1999), cents(502)], Function::Sum);
        assert!(!cent.is_far(cents(2500), sum) && cent.is_far(cents(2499), sum) && rule.is_far(cents(2500), sum));
        let (near, nearer) = (cents(900_719_925_474_099_306), cents(900_719_925_474_099_307));
        assert_eq!((of(&[near, nearer], Function::Max), of(&[nearer, near], Function::Min)), (Some(nearer), Some(near)));
        let mean = of(&[near, nearer, nearer], Function::Mean);
        assert!(rule.is_far(near, mean) && rule.is_far(nearer, mean) && !cent.is_far(near, mean));
        let mean = of(&[near, cents(900_719_925_474_099_308)], Function::Mean);
        assert!(rule.is_far(near, mean) && !rule.is_far(nearer, mean) && !cent.is_far(near, mean));
        let (least, greatest) = (of(&[cents(5), cents(-3), cents(4)], Function::Min), of(&[cents(5), cents(-3), cents(4)], Function::Max));
        assert_eq!((least, greatest), (Some(cents(-3)), Some(cents(5))));
    }

    #[test]
    fn of_no_rows_the_sum_and_the_count_are_0_and_nothing_is_their_mean() {
        let none = |function| of(&[], function).map(|total| total.number);
        assert_eq!((none(Function::Sum), none(Function::Count)), (Some(Number::Exact(0, 0)), Some(Number::Exact(0, 0))));
        assert_eq!((none(Function::Mean), none(Function::Min), none(Function::Max)), (None, None, None));
        assert!(TotalOf::default().is_far(float(0.0), None));
    }
}
