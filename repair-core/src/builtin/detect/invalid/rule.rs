//! The rules of the detector `invalid`: on the columns of one row, and on a row among its neighbours.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float64Type, Schema};
use arrow::util::display::array_value_to_string;
use schemars::JsonSchema;
use serde::Deserialize;

use super::equals::{Equals, TotalOf};
use super::related::comparable;
use super::value::{KeyBound, Median, Value, Values};
use crate::error::{Error, Result};
use crate::lake::shape::{self, is_text};
use crate::model::{Key, Table};

/// One rule: either `column` with conditions on its values, or `holds`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The column to which the conditions apply.
    #[serde(default)]
    pub column: Option<String>,
    /// The smallest valid value, in the column's unit: for all keys, or for each key.
    #[serde(default)]
    pub min: Option<Bound>,
    /// The largest valid value, in the column's unit: for all keys, or for each key.
    #[serde(default)]
    pub max: Option<Bound>,
    /// Values that stand for no value, such as -200 for a sensor that was off.
    #[serde(default)]
    pub not: Vec<Sentinel>,
    /// Whether a row must have a value.
    #[serde(default)]
    pub not_null: bool,
    /// Another table, one of whose rows must have the value: `{ table: customers, column: id }`. A null refers to nothing, and is not judged.
    #[serde(default, rename = "in")]
    pub one_of: Option<OneOf>,
    /// A total of the rows of another table that belong to the row, which the value must equal: `{ table: items, sum: amount }`. A null is not judged.
    #[serde(default)]
    pub equals: Option<Equals>,
    /// Refuses values that are too far from the values around them.
    #[serde(default)]
    pub outlier: Option<Outlier>,
    /// How many equal values in a row mean a frozen sensor. The first of them was measured, and stays valid.
    #[serde(default)]
    #[schemars(range(min = 2))]
    pub frozen: Option<u32>,
    /// Whether values never fall from one slot to a later one, as those of a meter. The fewest values are wrong without which the others never fall.
    #[serde(default)]
    pub never_falls: bool,
    /// How far a value may be from the last right one before it, in the column's unit. If ten or more values in a row are further away, and near each
    /// other, this is a new level, and they are right.
    #[serde(default)]
    pub jump: Option<f64>,
    /// A comparison of two columns, or of a column and a number, such as `low <= open`.
    #[serde(default)]
    pub holds: Option<ColumnComparison>,
    /// The columns whose values are wrong where the rule is broken, so that a repair changes them and keeps all others. By default, a rule
    /// with `column` blames that column, and a rule with `holds` the whole row.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub columns: Option<Vec<String>>,
}

/// The values that a column may have.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`{ table: customers, column: id }`")]
pub enum OneOf {
    /// Those of a column of another table.
    Column(ColumnOf),
    /// These, as text.
    #[serde(skip)]
    Values(Arc<HashSet<String>>),
}

/// A column of another table, as its repaired view shows it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnOf {
    /// The table.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The column.
    pub column: String,
}

/// The smallest or the largest valid value.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, or `{ times_median: 5 }`, or `{ table: limits, column: highest }`")]
pub enum Bound {
    /// The same for all keys: a whole number that no 64-bit float holds, such as 9007199254740993.
    #[schemars(skip)]
    Whole(#[serde(deserialize_with = "beyond_floats")] i128),
    /// The same for all keys.
    Number(f64),
    /// Of each key, a multiple of the median of its values in the interval, without sign. A key with fewer than eight values, or with a median of 0,
    /// is not judged.
    Median(TimesMedian),
    /// Of each key, what a table says.
    Table(FromTable),
    /// Of each key that has one.
    #[serde(skip)]
    PerKey(Arc<BTreeMap<Key, Value>>),
}

/// A multiple of the median of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimesMedian {
    /// The factor, above 0.
    pub times_median: f64,
}

/// A column of another table with the same key. If it has several rows of a key, the latest counts. Keys without a value are not judged.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromTable {
    /// The table.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The column with the bound.
    pub column: String,
}

impl Bound {
    /// The number, if it is the same for all keys.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Whole(whole) => Some(Value::Whole(*whole).as_float()),
            _ => None,
        }
    }

    /// As [`Bound::number`], with all digits.
    fn exact(&self) -> Option<Value> {
        match self {
            Self::Number(number) => Some(Value::Float(*number)),
            Self::Whole(whole) => Some(Value::Whole(*whole)),
            _ => None,
        }
    }

    /// The bound of a key, given the median of its values.
    fn of_key(&self, key: &Key, median: Option<Median>) -> Option<KeyBound> {
        match self {
            Self::Median(TimesMedian { times_median }) => KeyBound::times(*times_median, median?),
            Self::PerKey(bounds) => bounds.get(key).copied().map(KeyBound::Value),
            Self::Number(_) | Self::Whole(_) | Self::Table(_) => None,
        }
    }
}

impl From<f64> for Bound {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Whole(whole) => write!(f, "{whole}"),
            Self::Median(TimesMedian { times_median }) => write!(f, "{{ times_median: {times_median} }}"),
            Self::Table(FromTable { table, column }) => write!(f, "{{ table: {table}, column: {column} }}"),
            Self::PerKey(_) => f.write_str("that of its key"),
        }
    }
}

/// A value that stands for no value.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Sentinel {
    /// In a column of numbers: a whole number that no 64-bit float holds, such as 9223372036854775807.
    #[schemars(skip)]
    Whole(#[serde(deserialize_with = "beyond_floats")] i128),
    /// In a column of numbers.
    Number(f64),
    /// In a column of text.
    Text(String),
}

impl Sentinel {
    fn exact(&self) -> Option<Value> {
        match self {
            Self::Number(number) => Some(Value::Float(*number)),
            Self::Whole(whole) => Some(Value::Whole(*whole)),
            Self::Text(_) => None,
        }
    }
}

/// A whole number that no 64-bit float holds. All others are read as floats.
fn beyond_floats<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Integer {
        Signed(i64),
        Unsigned(u64),
    }
    let whole = match Integer::deserialize(deserializer)? {
        Integer::Signed(whole) => i128::from(whole),
        Integer::Unsigned(whole) => i128::from(whole),
    };
    if is_beyond_floats(whole) { Ok(whole) } else { Err(serde::de::Error::custom("a float holds it")) }
}

fn is_beyond_floats(whole: i128) -> bool {
    Value::Whole(whole).is_beyond_floats()
}

/// Hampel's identifier: a value is an outlier if it is further from the median of the values around it than `threshold` times their spread,
/// which is 1.4826 times the median of the distances from the median. Nulls, and slots without rows, are left out; a value with fewer than
/// half of the values around it is not judged.
///
/// F. R. Hampel, The influence curve and its role in robust estimation, JASA 69 (1974) 383-393; L. Davies and U. Gather, The
/// identification of multiple outliers, JASA 88 (1993) 782-792.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outlier {
    /// How many slots on each side count as neighbours.
    #[schemars(range(min = 1, max = 10_000))]
    pub window: u32,
    /// How many spreads a value may be away from the median; 3 is usual.
    #[serde(default = "three")]
    pub threshold: f64,
    /// A distance from the median, in the column's unit, that is never an outlier, however small the spread is. If more than half of the
    /// values are equal, the spread is zero, and values are judged only if this is given.
    #[serde(default)]
    pub at_least: Option<f64>,
}

fn three() -> f64 {
    3.0
}

/// A comparison of the columns of a row. It does not judge a row that lacks one of the values.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct ColumnComparison {
    left: Operand,
    operator: Operator,
    right: Operand,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Column(String),
    Number(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    Unequal,
}

/// The operators. Longer ones come first, because each is found by its text.
const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("!=", Operator::Unequal),
    ("<", Operator::Below),
    (">", Operator::Above),
    ("=", Operator::Equal),
];

impl TryFrom<String> for ColumnComparison {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl std::str::FromStr for ColumnComparison {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused =
            || Error::invalid(format!("`{text}` is not a comparison; write two columns, or a column and a number, such as `low <= open`"));
        let found = OPERATORS.iter().find_map(|(sign, operator)| Some((text.split_once(sign)?, *operator)));
        let ((left, right), operator) = found.ok_or_else(refused)?;
        let operand = |text: &str| match text.trim() {
            text if text.is_empty() || text.contains(['<', '>', '=', '!']) => Err(refused()),
            text => Ok(match (text.parse::<i128>(), text.parse::<f64>()) {
                (Ok(whole), _) if is_beyond_floats(whole) => Operand::Number(Value::Whole(whole)),
                (_, Ok(float)) => Operand::Number(Value::Float(float)),
                (_, Err(_)) => Operand::Column(text.to_owned()),
            }),
        };
        let (left, right) = (operand(left)?, operand(right)?);
        match (&left, &right) {
            (Operand::Number(_), Operand::Number(_)) => Err(refused()),
            _ => Ok(Self { left, operator, right }),
        }
    }
}

impl fmt::Display for ColumnComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator).map_or("", |(sign, _)| sign);
        let operand = |operand: &Operand| match operand {
            Operand::Column(name) => name.clone(),
            Operand::Number(Value::Float(number)) => number.to_string(),
            Operand::Number(Value::Whole(whole)) => whole.to_string(),
            Operand::Number(number @ Value::Decimal(..)) => number.as_float().to_string(),
        };
        write!(f, "{} {sign} {}", operand(&self.left), operand(&self.right))
    }
}

/// The rule as it is written in YAML.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(comparison) = &self.holds {
            return write!(f, "holds: {comparison}");
        }
        write!(f, "column: {}", self.column.as_deref().unwrap_or_default())?;
        let bounds = [("min", &self.min), ("max", &self.max)];
        let bounds = bounds.into_iter().filter_map(|(name, bound)| Some((name, bound.as_ref()?)));
        bounds.into_iter().try_for_each(|(name, bound)| write!(f, ", {name}: {bound}"))?;
        for not in &self.not {
            match not {
                Sentinel::Number(number) => write!(f, ", not: {number}")?,
                Sentinel::Whole(whole) => write!(f, ", not: {whole}")?,
                Sentinel::Text(text) => write!(f, ", not: {text}")?,
            }
        }
        if self.not_null {
            f.write_str(", not_null")?;
        }
        if let Some(OneOf::Column(ColumnOf { table, column })) = &self.one_of {
            write!(f, ", in: {{ table: {table}, column: {column} }}")?;
        }
        if let Some(total) = self.total() {
            write!(f, ", equals: {total}")?;
        }
        if let Some(outlier) = self.outlier {
            write!(f, ", outlier of {} slots on each side", outlier.window)?;
        }
        if let Some(frozen) = self.frozen {
            write!(f, ", frozen: {frozen}")?;
        }
        if self.never_falls {
            f.write_str(", never_falls")?;
        }
        self.jump.map_or(Ok(()), |jump| write!(f, ", jump: {jump}"))
    }
}

impl Operator {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::AtMost => order.is_le(),
            Self::Below => order.is_lt(),
            Self::AtLeast => order.is_ge(),
            Self::Above => order.is_gt(),
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
        }
    }
}

impl Rule {
    /// Checks what can be checked without a table.
    ///
    /// # Errors
    /// `invalid`, with what to write instead.
    pub(super) fn check(&self) -> Result<()> {
        let by_itself = self.min.is_some()
            || self.max.is_some()
            || !self.not.is_empty()
            || self.not_null
            || self.one_of.is_some()
            || self.equals.is_some();
        let of_column = by_itself || self.is_among_neighbours();
        match (&self.column, &self.holds) {
            (Some(column), None) if !of_column => {
                let message = format!(
                    "the rule for column `{column}` has no condition; add `min`, `max`, `not`, `not_null`, `in`, `equals`, `outlier`, `frozen`, `never_falls` \
                     or `jump`"
                );
                return Err(Error::invalid(message));
            }
            (Some(_), None) => {}
            (None, Some(_)) if !of_column => {}
            _ => return Err(Error::invalid("a rule needs either `column` and conditions on its values, or `holds`")),
        }
        if self.columns.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid("`columns` of a rule is empty; list the columns whose values are wrong, or leave it out"));
        }
        self.total().map_or(Ok(()), TotalOf::check)?;
        let number = |bound: &Option<Bound>| bound.as_ref().and_then(Bound::number);
        for bound in [&self.min, &self.max].into_iter().flatten() {
            if let Bound::Median(TimesMedian { times_median }) = bound
                && !(times_median.is_finite() && *times_median > 0.0)
            {
                return Err(Error::invalid(format!("`times_median` is {times_median}; use a factor above 0, such as 5")));
            }
        }
        if let Some(jump) = self.jump
            && !(jump.is_finite() && jump > 0.0)
        {
            return Err(Error::invalid(format!("`jump` is {jump}; use a distance above 0, in the column's unit")));
        }
        if let (Some(min), Some(max)) = (number(&self.min), number(&self.max))
            && min > max
        {
            return Err(Error::invalid(format!("no value is between `min: {min}` and `max: {max}`")));
        }
        if let Some(outlier) = self.outlier
            && !(outlier.window >= 1
                && outlier.window <= 10_000
                && outlier.threshold > 0.0
                && outlier.at_least.is_none_or(|least| least >= 0.0))
        {
            return Err(Error::invalid(
                "`outlier` is out of range; use a `window` of 1 to 10000, a `threshold` above 0, and an `at_least` of 0 or more",
            ));
        }
        if self.frozen.is_some_and(|frozen| !(2..=10_000).contains(&frozen)) {
            return Err(Error::invalid("`frozen` is out of range; use 2 to 10000 equal values in a row"));
        }
        Ok(())
    }

    /// The total that values must equal, as it is written.
    pub(super) fn total(&self) -> Option<&TotalOf> {
        match self.equals.as_ref()? {
            Equals::Total(of) => Some(of),
            Equals::Related(related) => Some(&related.of),
            Equals::Known(totals) => Some(&totals.related.of),
        }
    }

    /// Whether it judges a row among others of its key.
    pub(super) fn is_among_neighbours(&self) -> bool {
        self.outlier.is_some() || self.frozen.is_some() || self.is_of_all()
    }

    /// Whether it judges a row by all values of its key, so that it must see them also when few slots are looked at again.
    pub(super) fn is_of_all(&self) -> bool {
        let is_of_key = |bound: &Option<Bound>| bound.as_ref().is_some_and(|bound| bound.number().is_none());
        self.never_falls || self.jump.is_some() || is_of_key(&self.min) || is_of_key(&self.max)
    }

    /// What it asks of a row among others, as it is written; none if it judges each row by itself.
    pub(super) fn among(&self) -> Option<&'static str> {
        let is_of_key = |bound: &Option<Bound>| bound.as_ref().is_some_and(|bound| bound.number().is_none());
        let all = [
            ("outlier", self.outlier.is_some()),
            ("frozen", self.frozen.is_some()),
            ("never_falls", self.never_falls),
            ("jump", self.jump.is_some()),
            ("min", is_of_key(&self.min)),
            ("max", is_of_key(&self.max)),
        ];
        all.into_iter().find(|(_, is_there)| *is_there).map(|(name, _)| name)
    }

    /// Whether the values of its column are needed: to judge a row among others, or to see how far its bound is from them.
    pub(super) fn needs_values(&self) -> bool {
        self.is_among_neighbours() || self.max.as_ref().is_some_and(|max| max.number().is_some())
    }

    /// The bounds of a key, given the median of its values; none that are the same for all keys.
    pub(super) fn bounds_of(&self, key: &Key, median: Option<Median>) -> (Option<KeyBound>, Option<KeyBound>) {
        let of_key = |bound: &Option<Bound>| bound.as_ref().and_then(|bound| bound.of_key(key, median));
        (of_key(&self.min), of_key(&self.max))
    }

    /// The tables that hold its bounds.
    pub(super) fn tables(&mut self) -> impl Iterator<Item = &mut Bound> {
        [&mut self.min, &mut self.max].into_iter().flatten().filter(|bound| matches!(bound, Bound::Table(_)))
    }

    /// The rule for a table's columns: with the table's own names for them, and each literal as its column would hold it, so that
    /// `min: 0.7` admits the 0.7 of a column of 32-bit floats, which is a little less.
    ///
    /// # Errors
    /// `invalid` if the table lacks a column.
    pub(super) fn of_table(&self, of: &Table, schema: &Schema) -> Result<Self> {
        let table = of.name.as_str();
        let is_own = |name: &str| name == of.time || of.key.iter().any(|key| key == name);
        let find = |name: &mut String| -> Result<DataType> {
            let unknown = || {
                let names = shape::names(schema);
                Error::invalid(format!("a rule names column `{name}`, which table `{table}` does not have; {names}"))
            };
            let field = shape::find(schema, name).map_err(|error| error.on("table", table))?.ok_or_else(unknown)?;
            name.clone_from(field.name());
            Ok(field.data_type().clone())
        };
        let mut rule = self.clone();
        for name in rule.columns.iter_mut().flatten() {
            find(name)?;
            if is_own(name) {
                return Err(Error::invalid(format!(
                    "`columns` of a rule lists `{name}`, which is key or time of table `{table}`; list others"
                )));
            }
        }
        if let (true, Some(name)) = (rule.equals.is_some(), rule.column.as_deref())
            && is_own(name)
        {
            return Err(Error::invalid(format!(
                "a rule with `equals` is about `{name}`, which is key or time of table `{table}`, and no repair changes these; name another column"
            )));
        }
        if let (Some(_), Some(name)) = (&rule.one_of, rule.column.as_deref())
            && is_own(name)
        {
            return Err(Error::invalid(format!(
                "a rule with `in` is about `{name}`, which is key or time of table `{table}`, and no repair changes these; compare keys by `keys`"
            )));
        }
        if let Some(kind) = rule.column.as_mut().map(find).transpose()? {
            for bound in [&mut rule.min, &mut rule.max].into_iter().flatten() {
                if let Bound::Number(number) = bound {
                    *number = held(&kind, *number)?;
                }
            }
            for not in &mut rule.not {
                if let Sentinel::Number(number) = not {
                    *number = held(&kind, *number)?;
                }
            }
        }
        if let Some(ColumnComparison { left, right, .. }) = &mut rule.holds {
            match (left, right) {
                (Operand::Column(name), Operand::Number(number)) | (Operand::Number(number), Operand::Column(name)) => {
                    let kind = find(name)?;
                    if let Value::Float(number) = number {
                        *number = held(&kind, *number)?;
                    }
                }
                (Operand::Column(left), Operand::Column(right)) => {
                    find(left)?;
                    find(right)?;
                }
                (Operand::Number(_), Operand::Number(_)) => {}
            }
        }
        Ok(rule)
    }

    /// The columns whose values are wrong where it is broken; none if the whole row is.
    pub(super) fn blamed(&self) -> &[String] {
        self.columns.as_deref().or(self.column.as_ref().map(std::slice::from_ref)).unwrap_or_default()
    }

    /// How many slots on each side it needs.
    pub(super) fn reach(&self) -> i64 {
        let outlier = self.outlier.map_or(0, |outlier| outlier.window);
        let level = if self.is_of_all() { NEW_LEVEL } else { 0 };
        i64::from(outlier.max(self.frozen.unwrap_or(0)).max(level))
    }

    /// The columns that it reads.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        let operands = self.holds.iter().flat_map(|comparison| [&comparison.left, &comparison.right]);
        let compared = operands.filter_map(|operand| match operand {
            Operand::Column(name) => Some(name.as_str()),
            Operand::Number(_) => None,
        });
        let related = match &self.equals {
            Some(Equals::Related(related)) => Some(related),
            Some(Equals::Known(totals)) => Some(&totals.related),
            _ => None,
        };
        let belonging = related.into_iter().flat_map(|related| related.reads.iter().map(String::as_str));
        self.column.as_deref().into_iter().chain(compared).chain(belonging).chain(self.columns.iter().flatten().map(String::as_str))
    }

    /// Marks the rows of a batch that break this rule by themselves. A column that the batch does not have is not judged.
    ///
    /// # Errors
    /// `invalid` if a column must hold numbers and does not.
    pub(super) fn mark(&self, batch: &RecordBatch, number: Breach, wrong: &mut [Broken]) -> Result<()> {
        if let Some(comparison) = &self.holds {
            return comparison.mark(batch, number, wrong);
        }
        let Some(values) = self.column.as_ref().and_then(|name| batch.column_by_name(name)) else { return Ok(()) };
        if self.not_null {
            let nulls = values.logical_nulls();
            mark(wrong, number, |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)));
        }
        for sentinel in &self.not {
            if let Sentinel::Text(text) = sentinel {
                let values = texts(self.column.as_deref().unwrap_or_default(), values)?;
                let values = values.as_string::<i32>();
                mark(wrong, number, |row| values.is_valid(row) && values.value(row) == text);
            }
        }
        if let Some(OneOf::Values(known)) = &self.one_of {
            let values = comparable(self.column.as_deref().unwrap_or_default(), values)?;
            mark(wrong, number, |row| values.is_valid(row) && !known.contains(values.value(row)));
        }
        if let Some(Equals::Known(totals)) = &self.equals {
            totals.mark((self.column.as_deref().unwrap_or_default(), values), batch, number, wrong)?;
        }
        let (min, max) = self.bounds();
        let is_of_numbers = min.is_some() || max.is_some() || self.not.iter().any(|not| not.exact().is_some());
        if is_of_numbers {
            let values = Values::of(self.column.as_deref().unwrap_or_default(), values)?;
            mark(wrong, number, |row| values.get(row).is_some_and(|value| self.refuses(value)));
        }
        Ok(())
    }

    /// The bounds that are the same for all keys.
    fn bounds(&self) -> (Option<Value>, Option<Value>) {
        (self.min.as_ref().and_then(Bound::exact), self.max.as_ref().and_then(Bound::exact))
    }

    fn refuses(&self, value: Value) -> bool {
        let (min, max) = self.bounds();
        let is = |bound: Option<Value>, order: Ordering| bound.is_some_and(|bound| value.compare(bound) == Some(order));
        ((min.is_some() || max.is_some()) && !value.is_finite())
            || is(min, Ordering::Less)
            || is(max, Ordering::Greater)
            || self.not.iter().any(|not| is(not.exact(), Ordering::Equal))
    }
}

/// So many values in a row that are far from the last right one, and near each other, are a new level.
pub(super) const NEW_LEVEL: u32 = 10;

/// The most columns that the rules of one step can blame.
pub(super) const MOST_BLAMED: usize = 128;

/// What it means that a row breaks a rule: the number of the rule, and the columns that it blames, as bits; none if it blames the whole row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) rule: u32,
    pub(super) cells: u128,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Broken {
    /// The first rule that it breaks.
    pub(super) rule: Option<u32>,
    /// Whether the whole row is wrong.
    pub(super) whole: bool,
    /// The columns whose values are wrong, as bits.
    pub(super) cells: u128,
    /// The first rule that cannot judge it, and the columns that such rules blame.
    pub(super) open: Option<Breach>,
}

impl Broken {
    /// Notes that a rule cannot judge the row.
    pub(super) fn leave_open(&mut self, breach: Breach) {
        let known = self.open.map_or(0, |open| open.cells);
        self.open = Some(Breach { rule: self.open.map_or(breach.rule, |open| open.rule), cells: known | breach.cells });
    }

    pub(super) fn add(&mut self, breach: Breach) {
        self.rule.get_or_insert(breach.rule);
        self.whole |= breach.cells == 0;
        self.cells |= breach.cells;
    }

    /// What is wrong with one of two rows.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            rule: self.rule.or(other.rule),
            whole: self.whole || other.whole,
            cells: self.cells | other.cells,
            open: self.open.or(other.open),
        }
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.rule.is_some()
    }

    /// The same, if something is wrong in these cells, and of these alone.
    pub(super) fn only(self, cells: u128) -> Self {
        if self.cells & cells != 0 { Self { whole: false, cells: self.cells & cells, ..self } } else { Self::default() }
    }

    /// The same, if what is wrong is not only in these cells.
    pub(super) fn without(self, cells: u128) -> Self {
        let rest = Self { cells: self.cells & !cells, ..self };
        if rest.whole || rest.cells != 0 { rest } else { Self::default() }
    }
}

fn mark(wrong: &mut [Broken], breach: Breach, breaks: impl Fn(usize) -> bool) {
    wrong.iter_mut().enumerate().filter(|(row, _)| breaks(*row)).for_each(|(_, wrong)| wrong.add(breach));
}

impl ColumnComparison {
    fn mark(&self, batch: &RecordBatch, number: Breach, wrong: &mut [Broken]) -> Result<()> {
        let columns = [&self.left, &self.right].map(|operand| match operand {
            Operand::Number(_) => Ok(None),
            Operand::Column(name) => batch.column_by_name(name).map(|column| Values::of(name, column)).transpose(),
        });
        let [left, right] = columns;
        let (left, right) = (left?, right?);
        // A comparison with a column that the batch does not have judges nothing.
        let value = |operand: &Operand, column: &Option<Values>, row: usize| match operand {
            Operand::Number(number) => Some(*number),
            Operand::Column(_) => column.as_ref()?.get(row),
        };
        mark(wrong, number, |row| {
            let Some((left, right)) = value(&self.left, &left, row).zip(value(&self.right, &right, row)) else { return false };
            // NaN compares with nothing, so only `!=` would hold.
            let order = left.compare(right).filter(|_| left.is_finite() && right.is_finite());
            !order.is_some_and(|order| self.operator.holds(order))
        });
        Ok(())
    }
}

/// A literal as a column of that type holds it. One that such a column cannot hold at all, because it is too large or too close to 0,
/// stays as it is: it equals no value of the column, and is on the right side of all of them.
///
/// # Errors
/// `invalid` if the column is a decimal, and the literal has so many digits that it may not be what was written.
fn held(kind: &DataType, literal: f64) -> Result<f64> {
    type Half = <Float16Type as ArrowPrimitiveType>::Native;
    #[expect(clippy::cast_possible_truncation, reason = "the nearest narrower float is wanted")]
    let held = match kind {
        DataType::Float16 => Half::from_f64(literal).to_f64(),
        DataType::Float32 => f64::from(literal as f32),
        _ => literal,
    };
    let scale = match kind {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            *scale
        }
        _ => 0,
    };
    let digits = || format!("{literal:e}").split('e').next().map_or(0, |digits| digits.bytes().filter(u8::is_ascii_digit).count());
    if scale > 0 && digits() > LITERAL_DIGITS {
        return Err(Error::invalid(format!(
            "the number {literal} in a rule may not be what was written, since only {LITERAL_DIGITS} digits of it are kept beside a decimal; write fewer, or \
             name a column of a table that has it"
        )));
    }
    Ok(if held.is_finite() && (held == 0.0) == (literal == 0.0) { held } else { literal })
}

/// A number with a point and so many digits is found again in the float that it is read as.
const LITERAL_DIGITS: usize = 15;

/// The numbers of a column, each as the float that is nearest to it: a literal is one too, so 0.1 in a rule is the 0.10 of a decimal.
///
/// # Errors
/// `invalid` if it holds anything else.
pub(in crate::builtin::detect) fn numbers(name: &str, values: &ArrayRef) -> Result<Float64Array> {
    let kind = values.data_type();
    // Of a column that is empty in all files, no type is known, and none is needed.
    if !kind.is_numeric() && values.logical_null_count() == values.len() {
        return Ok(Float64Array::new_null(values.len()));
    }
    if !kind.is_numeric() {
        return Err(Error::invalid(format!("the rule for column `{name}` needs numbers, and the column is {kind}")));
    }
    let floats = cast(values, &DataType::Float64)?.as_primitive::<Float64Type>().clone();
    let scale = match kind {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            i32::from(*scale)
        }
        _ => return Ok(floats),
    };
    // The cast divides by a power of ten, which rounds only once if both numbers are exact as floats.
    let is_nearest = |float: f64| (0..=MAX_EXACT_POWER).contains(&scale) && float.abs() * 10f64.powi(scale) < MAX_EXACT;
    let nearest = |row: usize| {
        let float = floats.is_valid(row).then(|| floats.value(row));
        match float {
            Some(float) if !is_nearest(float) => {
                let text = array_value_to_string(values, row)?;
                text.parse().map(Some).map_err(|_| Error::internal(format!("the decimal {text} is not a number")))
            }
            float => Ok(float),
        }
    };
    (0..values.len()).map(nearest).collect()
}

/// All whole numbers below it are exact as 64-bit floats: 2^53.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The largest power of ten that is exact as a 64-bit float.
const MAX_EXACT_POWER: i32 = 22;

fn texts(name: &str, values: &ArrayRef) -> Result<ArrayRef> {
    if !is_text(values.data_type()) {
        let kind = values.data_type();
        return Err(Error::invalid(format!("the rule for column `{name}` has text under `not`, but the column is {kind}")));
    }
    Ok(cast(values, &DataType::Utf8)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float32Array, Int64Array, UInt64Array};
    use serde_json::json;

    use super::*;

    /// The rows that break a rule.
    fn broken(rule: &serde_json::Value, column: ArrayRef) -> Vec<usize> {
        let rule = Rule::deserialize(rule).unwrap();
        let batch = RecordBatch::try_from_iter([("v", column)]).unwrap();
        let mut wrong = vec![Broken::default(); batch.num_rows()];
        let rule = rule.of_table(&Table::implicit("t", "ts"), &batch.schema()).unwrap();
        rule.mark(&batch, Breach { rule: 0, cells: 1 }, &mut wrong).unwrap();
        (0..wrong.len()).filter(|&row| wrong[row].is_wrong()).collect()
    }

    #[test]
    fn a_literal_is_the_value_that_a_narrow_float_holds() {
        let floats = |values: &[f32]| Arc::new(Float32Array::from(values.to_vec())) as ArrayRef;
        let values = || floats(&[0.7, 0.69, 0.71, f32::NAN]);
        assert_eq!(broken(&json!({"column": "v", "min": 0.7}), values()), [1, 3]);
        assert_eq!(broken(&json!({"column": "v", "max": 0.7}), values()), [2, 3]);
        assert_eq!(broken(&json!({"column": "v", "not": [0.7, 5]}), values()), [0]);
        assert_eq!(broken(&json!({"holds": "v >= 0.7"}), values()), [1, 3]);
        assert_eq!(broken(&json!({"holds": "0.7 = v"}), values()), [1, 2, 3]);
        assert_eq!(broken(&json!({"column": "v", "not": [-28316.818359]}), floats(&[-28_316.818, -28_316.82])), [0]);
        let edges = || floats(&[0.0, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE]);
        assert_eq!(broken(&json!({"column": "v", "not": [1e300, 1e-60]}), edges()), [] as [usize; 0]);
        assert_eq!(broken(&json!({"holds": "v > 1e-60"}), edges()), [0, 1]);
        assert_eq!(broken(&json!({"column": "v", "max": 1e300}), edges()), [1]);
        let halves = cast(&floats(&[0.1, 0.2]), &DataType::Float16).unwrap();
        assert_eq!(broken(&json!({"column": "v", "min": 0.1, "max": 0.2}), halves), [] as [usize; 0]);
    }

    #[test]
    fn a_literal_equals_the_decimal_of_the_same_digits() {
        let decimals = |precision: u8, scale: i8, values: &[i128]| {
            Arc::new(Decimal128Array::from(values.to_vec()).with_data_type(DataType::Decimal128(precision, scale))) as ArrayRef
        };
        assert_eq!(broken(&json!({"column": "v", "not": [0.1]}), decimals(10, 2, &[10, 11])), [0]);
        assert_eq!(broken(&json!({"column": "v", "min": 0.1, "max": 0.3}), decimals(10, 2, &[9, 10, 30, 31])), [0, 3]);
        let rule_of = |column: &ArrayRef| {
            let literal = array_value_to_string(column, 0).unwrap();
            json!({ "column": "v", "not": [literal.parse::<f64>().unwrap()] })
        };
        for (scale, value) in [(1, 123_456_789_012_345), (7, 333_333_333_333_333), (24, 7), (30, 123), (-3, 7), (-2, 1_234_567)] {
            let column = decimals(38, scale, &[value]);
            assert_eq!(broken(&rule_of(&column), column.clone()), [0], "{column:?}");
        }
        // Of more digits, not all may be there any more.
        for (scale, value) in [(1, 1_234_567_890_123_456_789), (7, 33_333_333_333_333_333_333)] {
            let column = decimals(38, scale, &[value]);
            let rule = Rule::deserialize(&rule_of(&column)).unwrap();
            let schema = RecordBatch::try_from_iter([("v", column)]).unwrap().schema();
            let error = rule.of_table(&Table::implicit("t", "ts"), &schema).unwrap_err();
            assert!(error.message().contains("may not be what was written"), "{error}");
        }
    }

    #[test]
    fn whole_numbers_are_compared_with_all_their_digits() {
        const BEYOND: i64 = 9_007_199_254_740_992; // 2^53
        let wholes = || Arc::new(Int64Array::from(vec![BEYOND - 1, BEYOND, BEYOND + 1, i64::MAX])) as ArrayRef;
        assert_eq!(broken(&json!({"column": "v", "max": BEYOND}), wholes()), [2, 3]);
        assert_eq!(broken(&json!({"column": "v", "min": BEYOND + 1}), wholes()), [0, 1]);
        assert_eq!(broken(&json!({"column": "v", "not": [BEYOND]}), wholes()), [1]);
        assert_eq!(broken(&json!({"column": "v", "not": [BEYOND + 1, i64::MAX]}), wholes()), [2, 3]);
        assert_eq!(broken(&json!({"holds": "v <= 9007199254740993"}), wholes()), [3]);
        assert_eq!(broken(&json!({"holds": "9007199254740993 != v"}), wholes()), [2]);
        // Half a step is no whole number, and lies between two of them.
        assert_eq!(broken(&json!({"column": "v", "max": 2.5}), Arc::new(Int64Array::from(vec![2, 3])) as ArrayRef), [1]);
        assert_eq!(broken(&json!({"column": "v", "min": -2.5}), Arc::new(Int64Array::from(vec![-3, -2])) as ArrayRef), [0]);
        let unsigned = Arc::new(UInt64Array::from(vec![u64::MAX - 1, u64::MAX])) as ArrayRef;
        assert_eq!(broken(&json!({"column": "v", "not": [u64::MAX]}), unsigned), [1]);
        let decimals = Decimal128Array::from(vec![i128::from(BEYOND), i128::from(BEYOND) + 1]).with_data_type(DataType::Decimal128(38, 0));
        assert_eq!(broken(&json!({"column": "v", "max": BEYOND}), Arc::new(decimals)), [1]);
        // Decimals, too: 1.000000000000000001, 1 and 1.000000000000000003.
        let unit = 1_000_000_000_000_000_000;
        let close =
            || Arc::new(Decimal128Array::from(vec![unit + 1, unit, unit + 3]).with_data_type(DataType::Decimal128(38, 18))) as ArrayRef;
        assert_eq!(broken(&json!({"column": "v", "max": 1}), close()), [0, 2]);
        assert_eq!(broken(&json!({"column": "v", "min": 1.000_000_000_000_01}), close()), [0, 1, 2]);
        assert_eq!(broken(&json!({"column": "v", "not": [1]}), close()), [1]);
        assert_eq!(broken(&json!({"holds": "v <= 1"}), close()), [0, 2]);
        // Two columns are compared as they are, also where one holds floats.
        let two = |left: ArrayRef, right: ArrayRef| {
            let rule: Rule = serde_json::from_value(json!({"holds": "a = b"})).unwrap();
            let batch = RecordBatch::try_from_iter([("a", left), ("b", right)]).unwrap();
            let mut wrong = vec![Broken::default(); batch.num_rows()];
            rule.mark(&batch, Breach { rule: 0, cells: 1 }, &mut wrong).unwrap();
            (0..wrong.len()).filter(|&row| wrong[row].is_wrong()).collect::<Vec<_>>()
        };
        let other = Arc::new(Int64Array::from(vec![BEYOND - 1, BEYOND + 1, BEYOND + 1, i64::MAX - 1])) as ArrayRef;
        assert_eq!(two(wholes(), other), [1, 3]);
        assert_eq!(two(wholes(), cast(&wholes(), &DataType::Float64).unwrap()), [2, 3]);
        let next = Decimal128Array::from(vec![unit + 1, unit + 2, unit + 3]).with_data_type(DataType::Decimal128(38, 18));
        assert_eq!(two(close(), Arc::new(next)), [1]);
        assert_eq!(serde_json::from_value::<Bound>(json!(5)).unwrap(), Bound::Number(5.0));
        assert_eq!(serde_json::from_value::<Bound>(json!(BEYOND + 1)).unwrap().to_string(), "9007199254740993");
    }
}
