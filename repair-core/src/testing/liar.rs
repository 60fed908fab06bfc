//! A source that lies: it knows the truth, and answers with something else. For each lie it is known what a repair must make of it.
//!
//! [`Liar`] wraps any source; [`Truth`] is one whose rows are known. [`register`] makes a liar available to workflows in YAML:
//!
//! ```yaml
//! sources: { market: { source: liar, with: { lie: same-values } } }
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
    new_null_array,
};
use arrow::compute::{cast, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::rollup;
use crate::model::{Interval, Key, Table};
use crate::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};

/// What a repair by `backfill`, or `stocks.backfill` for bars, must make of a lie if the table has rows beside its gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The answer is an error, which says this, and nothing of it is published.
    Refused(&'static str),
    /// What is published may be wrong, and the report says so, in these words.
    Reported(&'static str),
    /// Whatever is published is true, and nothing is confirmed absent.
    Harmless,
    /// Nobody could know.
    Believed,
}

macro_rules! lies {
    ($($(#[$doc:meta])* $name:ident => $verdict:expr,)*) => {
        /// What is wrong with the answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Lie { $($(#[$doc])* $name,)* }

        impl Lie {
            /// All lies.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What a repair must make of it.
            pub fn verdict(self) -> Verdict {
                use Verdict::{Believed, Harmless, Refused};
                match self { $(Self::$name => $verdict,)* }
            }
        }
    };
}

/// What is said of a row beside a gap that the source has otherwise.
const DIFFERS: Verdict = Verdict::Reported("the source differs from table");

lies! {
    /// All times are a minute late.
    TimesAMinuteLate => Refused("outside the requested"),
    /// All times are an hour late, as in the wrong half of a year.
    TimesAnHourLate => Refused("outside the requested"),
    /// All times are those of another zone.
    TimesOfAnotherZone => Refused("outside the requested"),
    /// All times are a day early.
    TimesADayEarly => Refused("outside the requested"),
    /// Times are taken for another unit, which makes them times of 1970.
    TimesInTheWrongUnit => Refused("outside the requested"),
    /// The last row is of 2035.
    OneRowInTheFuture => Refused("outside the requested"),
    /// Times are half a minute late.
    TimesOffTheGrid => Refused("where no slot of 1m begins or ends"),
    /// Times are a microsecond late.
    TimesAMicrosecondLate => Refused("where no slot of 1m begins or ends"),
    /// Two rows have changed places.
    OutOfOrder => Refused("out of order"),
    /// The latest row comes first.
    Reversed => Refused("out of order"),
    /// One row comes twice.
    RowTwice => Refused("twice a row"),
    /// One row comes twice, with other values.
    RowTwiceOtherwise => Refused("twice a row"),
    /// The whole answer comes twice.
    AnswerTwice => Refused("out of order"),
    /// The first half comes once more before the second, as if a page were repeated.
    PageRepeated => Refused("out of order"),
    /// One row has no time.
    NullTime => Refused("a row without"),
    /// Times are text.
    TimeAsText => Refused("is not a timestamp in microseconds"),
    /// Times have no parts of a second.
    TimeInSeconds => Refused("is not a timestamp in microseconds"),
    /// There are no times.
    NoTimeColumn => Refused("`ts`"),
    /// Times carry no zone.
    TimeWithoutZone => Harmless,
    /// The same instants are written in another zone.
    TimeInAnotherZone => Harmless,
    /// All rows are of a key that was not requested.
    AnotherKey => Refused("which was not requested"),
    /// Keys are in lower case.
    KeysInLowerCase => Refused("which was not requested"),
    /// Keys end with a space.
    KeysWithASpace => Refused("which was not requested"),
    /// Keys are empty.
    EmptyKeys => Refused("which was not requested"),
    /// One row has no key.
    NullKey => Refused("a row without"),
    /// There are no keys.
    NoKeyColumn => Refused("`symbol`"),
    /// Keys are numbers.
    KeysAsNumbers => Refused("`symbol`"),
    /// Keys are text in a dictionary.
    KeysInADictionary => Refused("`symbol`"),
    /// Rows of another key come too.
    RowsOfAnotherKeyToo => Refused("which was not requested"),
    /// The values of another key.
    ValuesOfAnotherKey => DIFFERS,
    /// The values of the first key, whichever is requested.
    ValuesOfTheFirstKey => Refused("the same values"),
    /// The first answer, whatever is requested.
    SameAnswer => Refused("outside the requested"),
    /// The values of the first answer at the requested times, whatever is requested.
    SameValues => Refused("the same values"),
    /// The rows of two days.
    IgnoresTheTime => Refused("outside the requested"),
    /// One row more, before what is requested.
    RowBefore => Refused("outside the requested"),
    /// One row more, after what is requested.
    RowAfter => Refused("outside the requested"),
    /// The values of the minute before.
    ValuesAMinuteLate => DIFFERS,
    /// The values of the hour before.
    ValuesAnHourLate => DIFFERS,
    /// The values of the day before.
    ValuesOfYesterday => DIFFERS,
    /// The first row's values in all rows.
    Stuck => DIFFERS,
    /// The second half is missing, and is said not to exist.
    HalfVouched => DIFFERS,
    /// Every other row is missing, and is said not to exist.
    EveryOtherRowVouched => DIFFERS,
    /// Nothing, and nothing is said to exist.
    NothingVouched => DIFFERS,
    /// Nothing.
    Nothing => Harmless,
    /// Only every third row, of which the source says no more.
    EveryThirdRow => Harmless,
    /// Vouches for a key that was not requested.
    VouchesForAnotherKey => Harmless,
    /// Vouches for all of time.
    VouchesForEver => Harmless,
    /// Vouches for nothing.
    VouchesForNothing => Harmless,
    /// All values are 0.
    Zeros => Refused("is not above 0"),
    /// All values are 42.
    Constant => DIFFERS,
    /// One value is not a number.
    NotANumber => Refused("is NaN"),
    /// One value is infinite.
    Infinite => Refused("is inf"),
    /// One value is null.
    NullValue => Refused("close"),
    /// Values have the wrong sign.
    Negative => Refused("is not above 0"),
    /// Values are as large as numbers can be.
    Huge => DIFFERS,
    /// Prices are twice as high, as before a split.
    NotAdjusted => DIFFERS,
    /// Prices are a tenth.
    TenthOfThePrice => DIFFERS,
    /// Prices are in cents.
    InCents => DIFFERS,
    /// Prices are rounded to whole numbers.
    Rounded => DIFFERS,
    /// Values are off by one in a thousand.
    SlightlyOff => DIFFERS,
    /// Volumes are half as large.
    HalfTheVolume => DIFFERS,
    /// The columns have changed places, as far as a bar allows.
    ColumnsExchanged => DIFFERS,
    /// The high of one bar is below its low.
    HighBelowLow => Refused("is above"),
    /// One bar opens outside its range.
    OpenOutside => Refused("is above"),
    /// One volume is below 0.
    NegativeVolume => Refused("is below 0"),
    /// One value within the gap is wrong.
    OneValue => Believed,
    /// Numbers are text.
    NumbersAsText => Refused("must hold numbers"),
    /// Numbers are whole, and what follows the point is lost.
    WholeNumbers => DIFFERS,
    /// Numbers have 32 bits, which is all that this source has.
    ShortNumbers => Believed,
    /// Numbers are decimals with all their digits.
    Decimals => Harmless,
    /// One column is missing.
    NoColumn => Refused("without the column `close`"),
    /// One column is more than the table has.
    AnotherColumn => Refused("`vwap`"),
    /// One column comes twice.
    ColumnTwice => Refused("close"),
    /// Columns are in another order.
    ColumnsInAnotherOrder => Harmless,
    /// The names of columns are in upper case.
    ColumnsInUpperCase => Harmless,
    /// Each row is a batch.
    ManyBatches => Harmless,
    /// Some batches have no rows.
    EmptyBatches => Harmless,
    /// The second batch lacks a column of the first.
    BatchesDisagree => Refused("without the column `close`"),
    /// It says much.
    SaysMuch => Harmless,
    /// What it says would act on a terminal.
    SaysControlCharacters => Harmless,
    /// It says that it took no request.
    CountsNoRequest => Harmless,
    /// It says that it took more requests than can be counted.
    CountsTooManyRequests => Harmless,
    /// It has an error each time.
    Fails => Refused("the market is closed"),
    /// It has an error each second time.
    FailsSometimes => Refused("the market is closed"),
    /// It panics.
    Panics => Refused("panicked"),
}

/// A source of which all rows are known. It vouches for the keys of its rows.
#[derive(Debug, Clone)]
pub struct Truth {
    rows: RecordBatch,
    limits: Limits,
}

impl Truth {
    /// A source that has these rows, in the lake's shape and in order of time within each key.
    pub fn new(rows: RecordBatch, limits: Limits) -> Self {
        Self { rows, limits }
    }

    fn of(&self, table: &Table, keys: &[Key], interval: &Interval) -> Result<RecordBatch> {
        let names = rollup::key_columns(table, &self.rows)?;
        let times = times(table, &self.rows)?;
        let wanted = (0..self.rows.num_rows()).map(|row| {
            let key = Key::new(names.iter().map(|column| column.value(row)));
            let at = Timestamp::from_microsecond(times.value(row)).is_ok_and(|at| interval.contains(at));
            Some(at && keys.contains(&key))
        });
        Ok(filter_record_batch(&self.rows, &wanted.collect::<BooleanArray>())?)
    }
}

#[async_trait]
impl Source for Truth {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        let rows = self.of(&request.table, &request.keys, &request.interval)?;
        let names = rollup::key_columns(&request.table, &self.rows)?;
        let knows = |key: &Key| (0..self.rows.num_rows()).any(|row| *key == Key::new(names.iter().map(|column| column.value(row))));
        let covered = request.keys.iter().filter(|key| knows(key));
        let covered = covered.map(|key| Covered { key: key.clone(), interval: request.interval }).collect();
        Ok(Answer::new(vec![rows]).with_covered(covered).with_said("the truth"))
    }
}

/// A source that knows the truth from another, and lies.
pub struct Liar {
    truth: Arc<dyn Source>,
    lie: Lie,
    keys: Vec<Key>,
    first: Mutex<Option<Answer>>,
    asked: AtomicU64,
}

impl std::fmt::Debug for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Liar").field("lie", &self.lie).finish_non_exhaustive()
    }
}

/// The configuration of a liar in a workflow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LiarConfig {
    /// What is wrong with its answers.
    lie: Lie,
}

/// Adds the source `liar`, which knows the truth from another source about some keys.
pub fn register(registry: &mut Registry, truth: Arc<dyn Source>, keys: Vec<Key>) {
    registry.source("liar", "answers with something that is not true", move |config: LiarConfig| {
        Ok(Liar::new(truth.clone(), config.lie, keys.clone()))
    });
}

impl Liar {
    /// A source that knows the truth about some keys, of which it may confuse one with another.
    pub fn new(truth: Arc<dyn Source>, lie: Lie, keys: Vec<Key>) -> Self {
        Self { truth, lie, keys, first: Mutex::default(), asked: AtomicU64::new(0) }
    }

    /// The truth about keys at other times and of other keys, as if it were that which is requested.
    async fn about(&self, context: &StepContext, request: &Request, other: impl Fn(&Key) -> Key, ago: SignedDuration) -> Result<Answer> {
        let interval = moved(&request.interval, -ago)?;
        let mut rows = Vec::new();
        for key in &request.keys {
            let asked = Request::new(request.table.clone(), vec![other(key)], interval);
            for batch in self.truth.fetch(context, &asked).await?.rows {
                let batch = with_times(&request.table, &batch, |_, time_us| time_us + micros(ago))?;
                rows.push(with_keys(&request.table, &batch, |_| key.values().next().unwrap_or_default().to_owned())?);
            }
        }
        let covered = request.keys.iter().map(|key| Covered { key: key.clone(), interval: request.interval }).collect();
        Ok(Answer::new(rows).with_covered(covered))
    }

    fn after(&self, key: &Key) -> Key {
        let at = self.keys.iter().position(|known| known == key).map_or(0, |at| at + 1);
        self.keys.get(at).or_else(|| self.keys.first()).cloned().unwrap_or_else(|| key.clone())
    }

    async fn answer(&self, context: &StepContext, request: &Request, asked: u64) -> Result<Answer> {
        let table = &request.table;
        let minutes = SignedDuration::from_mins;
        let own = |key: &Key| key.clone();
        let first = || self.keys.first().cloned();
        match self.lie {
            Lie::Fails => return Err(Error::new(ErrorKind::Failed, "the market is closed")),
            Lie::FailsSometimes if asked % 2 == 1 => return Err(Error::new(ErrorKind::Failed, "the market is closed")),
            #[expect(clippy::panic, reason = "a source of somebody else may panic")]
            Lie::Panics => panic!("the source fell over"),
            Lie::ValuesOfAnotherKey => return self.about(context, request, |key| self.after(key), minutes(0)).await,
            Lie::ValuesOfTheFirstKey => {
                return self.about(context, request, |key| first().unwrap_or_else(|| key.clone()), minutes(0)).await;
            }
            Lie::ValuesAMinuteLate => return self.about(context, request, own, minutes(1)).await,
            Lie::ValuesAnHourLate => return self.about(context, request, own, minutes(60)).await,
            Lie::ValuesOfYesterday => return self.about(context, request, own, minutes(24 * 60)).await,
            Lie::IgnoresTheTime => {
                let day = SignedDuration::from_hours(24);
                let interval = Interval::new(request.interval.from() - day, request.interval.to() + day)?;
                return self.truth.fetch(context, &Request::new(table.clone(), request.keys.clone(), interval)).await;
            }
            Lie::RowBefore | Lie::RowAfter => {
                let (mut from, mut to) = (request.interval.from(), request.interval.to());
                if self.lie == Lie::RowBefore {
                    from -= minutes(1);
                } else {
                    to += minutes(1);
                }
                return self.truth.fetch(context, &Request::new(table.clone(), request.keys.clone(), Interval::new(from, to)?)).await;
            }
            Lie::RowsOfAnotherKeyToo => {
                let mut answer = self.truth.fetch(context, request).await?;
                let others = request.keys.iter().map(|key| self.after(key)).collect();
                answer.rows.extend(self.truth.fetch(context, &Request::new(table.clone(), others, request.interval)).await?.rows);
                return Ok(answer);
            }
            _ => {}
        }
        let mut answer = self.truth.fetch(context, request).await?;
        let Some(schema) = answer.rows.first().map(RecordBatch::schema) else { return Ok(answer) };
        let rows = concat_batches(&schema, &answer.rows)?;
        let (rows, before) = self.falsified(table, request, &rows, &mut answer)?;
        answer.rows = rows;
        if let Some(before) = before {
            answer.rows.insert(0, before);
        }
        Ok(answer)
    }

    /// The rows that come instead, in one batch or several.
    fn falsified(
        &self,
        table: &Table,
        request: &Request,
        rows: &RecordBatch,
        answer: &mut Answer,
    ) -> Result<(Vec<RecordBatch>, Option<RecordBatch>)> {
        let count = rows.num_rows();
        let last = count.saturating_sub(1);
        let order = |order: Vec<usize>| -> Result<RecordBatch> {
            let order: UInt64Array = order.into_iter().map(|row| row as u64).collect();
            Ok(take_record_batch(rows, &order)?)
        };
        let all = || (0..count).collect::<Vec<usize>>();
        let minute = 60_000_000;
        let late = |by: i64| with_times(table, rows, |_, time| time + by);
        let keyed = |of: fn(&str) -> String| with_keys(table, rows, of);
        let numbers = |of: &dyn Fn(&str, usize, f64) -> f64| with_numbers(table, rows, of);
        let is_price = |name: &str| name != "volume";
        let one = match self.lie {
            Lie::TimesAMinuteLate => late(minute)?,
            Lie::TimesAnHourLate => late(60 * minute)?,
            Lie::TimesOfAnotherZone => late(-5 * 60 * minute)?,
            Lie::TimesADayEarly => late(-24 * 60 * minute)?,
            Lie::TimesInTheWrongUnit => with_times(table, rows, |_, time| time / 1_000_000 * 1_000 / minute * minute)?,
            Lie::OneRowInTheFuture => with_times(table, rows, |row, time| if row == last { 2_051_222_400_000_000 } else { time })?,
            Lie::TimesOffTheGrid => late(minute / 2)?,
            Lie::TimesAMicrosecondLate => late(1)?,
            Lie::OutOfOrder => {
                let mut rows = all();
                rows.swap(0, last.min(1));
                order(rows)?
            }
            Lie::Reversed => order((0..count).rev().collect())?,
            Lie::RowTwice => order(all().into_iter().flat_map(|row| if row == last { vec![row, row] } else { vec![row] }).collect())?,
            Lie::RowTwiceOtherwise => {
                let twice = order(all().into_iter().chain([last]).collect())?;
                with_numbers(table, &twice, &|_, row, value| if row == count { value * 2.0 } else { value })?
            }
            Lie::AnswerTwice => order([all(), all()].concat())?,
            Lie::PageRepeated => order([(0..count / 2).collect(), all()].concat())?,
            Lie::NullTime => with_null(rows, &table.time, last)?,
            Lie::NullKey => with_null(rows, key_name(table), last)?,
            Lie::NullValue => with_null(rows, number_name(table, rows, "close"), last)?,
            Lie::TimeAsText => cast_column(rows, &table.time, &DataType::Utf8)?,
            Lie::TimeInSeconds => cast_column(rows, &table.time, &DataType::Timestamp(TimeUnit::Second, Some("UTC".into())))?,
            Lie::TimeWithoutZone => cast_column(rows, &table.time, &DataType::Timestamp(TimeUnit::Microsecond, None))?,
            Lie::TimeInAnotherZone => {
                cast_column(rows, &table.time, &DataType::Timestamp(TimeUnit::Microsecond, Some("America/New_York".into())))?
            }
            Lie::NoTimeColumn => without(rows, &table.time)?,
            Lie::AnotherKey => keyed(|_| "ZZZ".to_owned())?,
            Lie::KeysInLowerCase => keyed(str::to_lowercase)?,
            Lie::KeysWithASpace => keyed(|key| format!("{key} "))?,
            Lie::EmptyKeys => keyed(|_| String::new())?,
            Lie::NoKeyColumn => without(rows, key_name(table))?,
            Lie::KeysAsNumbers => with(rows, key_name(table), Arc::new(Int64Array::from(vec![7; count])))?,
            Lie::KeysInADictionary => {
                cast_column(rows, key_name(table), &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))?
            }
            Lie::SameAnswer | Lie::SameValues => {
                let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
                let before = first.get_or_insert_with(|| answer.clone()).clone();
                if self.lie == Lie::SameAnswer {
                    *answer = before;
                    return Ok((std::mem::take(&mut answer.rows), None));
                }
                let Some(values) = before.rows.first() else { return Ok((Vec::new(), None)) };
                let from_us = |batch: &RecordBatch| -> Result<i64> { Ok(times(table, batch)?.iter().flatten().next().unwrap_or_default()) };
                let by = request.interval.from().as_microsecond() - from_us(values)?;
                let moved = with_times(table, values, |_, time| time + by)?;
                let key = request.keys.first().and_then(|key| key.values().next()).unwrap_or_default().to_owned();
                with_keys(table, &moved, |_| key.clone())?
            }
            Lie::Stuck => {
                let stuck = order(vec![0; count])?;
                let own = times(table, rows)?;
                with_times(table, &stuck, |row, _| own.value(row))?
            }
            Lie::HalfVouched => rows.slice(0, count / 2),
            Lie::EveryOtherRowVouched => order(
                (0..count).step_by(2).map(|row| (row + 1).min(last)).collect::<std::collections::BTreeSet<_>>().into_iter().collect(),
            )?,
            Lie::NothingVouched => rows.slice(0, 0),
            Lie::Nothing => {
                answer.covered.clear();
                rows.slice(0, 0)
            }
            Lie::EveryThirdRow => {
                answer.covered.clear();
                order((0..count).step_by(3).collect())?
            }
            Lie::VouchesForAnotherKey => {
                answer.covered = request.keys.iter().map(|key| Covered { key: self.after(key), interval: request.interval }).collect();
                rows.slice(0, count / 2)
            }
            Lie::VouchesForEver => {
                let ever = Interval::new(Timestamp::UNIX_EPOCH, Timestamp::MAX)?;
                answer.covered = self.keys.iter().map(|key| Covered { key: key.clone(), interval: ever }).collect();
                rows.clone()
            }
            Lie::VouchesForNothing => {
                answer.covered.clear();
                rows.clone()
            }
            Lie::Zeros => numbers(&|_, _, _| 0.0)?,
            Lie::Constant => numbers(&|_, _, _| 42.0)?,
            Lie::NotANumber => numbers(&|_, row, value| if row == last { f64::NAN } else { value })?,
            Lie::Infinite => numbers(&|_, row, value| if row == last { f64::INFINITY } else { value })?,
            Lie::Negative => numbers(&|_, _, value| -value)?,
            Lie::Huge => numbers(&|_, _, _| f64::MAX)?,
            Lie::NotAdjusted => numbers(&|name, _, value| if is_price(name) { value * 2.0 } else { value })?,
            Lie::TenthOfThePrice => numbers(&|name, _, value| if is_price(name) { value / 10.0 } else { value })?,
            Lie::InCents => numbers(&|name, _, value| if is_price(name) { value * 100.0 } else { value })?,
            Lie::Rounded => numbers(&|name, _, value| if is_price(name) { value.round() } else { value })?,
            Lie::SlightlyOff => numbers(&|_, _, value| value * 1.001)?,
            Lie::HalfTheVolume => numbers(&|name, _, value| if is_price(name) { value } else { value / 2.0 })?,
            Lie::ColumnsExchanged => exchanged(rows)?,
            Lie::HighBelowLow => numbers(&|name, row, value| if row == last && name == "high" { value / 2.0 } else { value })?,
            Lie::OpenOutside => numbers(&|name, row, value| if row == last && name == "open" { value * 2.0 } else { value })?,
            Lie::NegativeVolume => numbers(&|name, row, value| if row == last && name == "volume" { -value } else { value })?,
            Lie::OneValue => numbers(&|name, row, value| if row == count / 2 && name == "volume" { value + 1.0 } else { value })?,
            Lie::NumbersAsText => cast_numbers(table, rows, &DataType::Utf8)?,
            Lie::WholeNumbers => cast_numbers(table, rows, &DataType::Int64)?,
            Lie::ShortNumbers => cast_numbers(table, rows, &DataType::Float32)?,
            Lie::Decimals => cast_numbers(table, rows, &DataType::Decimal128(24, 8))?,
            Lie::NoColumn => without(rows, number_name(table, rows, "close"))?,
            Lie::AnotherColumn => with(rows, "vwap", Arc::new(Float64Array::from(vec![1.0; count])))?,
            Lie::ColumnTwice => {
                let name = number_name(table, rows, "close").to_owned();
                with(rows, &name.to_uppercase(), Arc::new(Float64Array::from(vec![1.0; count])))?
            }
            Lie::ColumnsInAnotherOrder => rows.project(&(0..rows.num_columns()).rev().collect::<Vec<_>>())?,
            Lie::ColumnsInUpperCase => {
                let own = |name: &str| name == table.time || table.key.iter().any(|key| key == name);
                let named = |field: &Arc<Field>| {
                    if own(field.name()) { field.as_ref().clone() } else { field.as_ref().clone().with_name(field.name().to_uppercase()) }
                };
                let fields: Vec<Field> = rows.schema_ref().fields().iter().map(named).collect();
                RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().to_vec())?
            }
            Lie::ManyBatches => return Ok(((0..count).map(|row| rows.slice(row, 1)).collect(), None)),
            Lie::EmptyBatches => return Ok((vec![rows.slice(0, 0), rows.clone(), rows.slice(0, 0)], None)),
            Lie::BatchesDisagree => {
                let half = count / 2;
                let second = without(&rows.slice(half, count - half), number_name(table, rows, "close"))?;
                return Ok((vec![second], Some(rows.slice(0, half))));
            }
            Lie::SaysMuch => {
                answer.said = "and so on ".repeat(100_000);
                rows.clone()
            }
            Lie::SaysControlCharacters => {
                answer.said = "\u{1b}[2J\u{7}\nrun succeeded\r\u{202e}".to_owned();
                rows.clone()
            }
            Lie::CountsNoRequest => {
                answer.requests = 0;
                rows.clone()
            }
            Lie::CountsTooManyRequests => {
                answer.requests = u64::MAX;
                rows.clone()
            }
            _ => rows.clone(),
        };
        Ok((vec![one], None))
    }
}

#[async_trait]
impl Source for Liar {
    fn limits(&self) -> Limits {
        self.truth.limits()
    }

    fn requests_at_worst(&self) -> u64 {
        self.truth.requests_at_worst()
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        self.answer(context, request, asked).await
    }
}

fn micros(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(0)
}

fn moved(interval: &Interval, by: SignedDuration) -> Result<Interval> {
    Interval::new(interval.from() + by, interval.to() + by)
}

fn times<'a>(table: &Table, batch: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
    let column = rollup::column(batch, &table.time)?;
    column.as_primitive_opt().ok_or_else(|| Error::invalid("the truth has no times in microseconds"))
}

fn key_name(table: &Table) -> &str {
    table.key.first().map_or("", String::as_str)
}

/// A column of numbers: one of this name, or the first.
fn number_name<'a>(table: &Table, rows: &'a RecordBatch, name: &str) -> &'a str {
    let fields = || rows.schema_ref().fields().iter().map(|field| field.name().as_str());
    let own = |known: &str| known != table.time && table.key.iter().all(|key| key != known);
    fields().find(|known| *known == name).or_else(|| fields().find(|known| own(known))).unwrap_or_default()
}

/// A batch with one column more, or with another of this name.
fn with(rows: &RecordBatch, name: &str, column: ArrayRef) -> Result<RecordBatch> {
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (rows.schema_ref().fields().to_vec(), rows.columns().to_vec());
    let field = Arc::new(Field::new(name, column.data_type().clone(), true));
    match fields.iter().position(|field| field.name() == name) {
        Some(at) => (fields[at], columns[at]) = (field, column),
        None => {
            fields.push(field);
            columns.push(column);
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn without(rows: &RecordBatch, name: &str) -> Result<RecordBatch> {
    let kept: Vec<usize> = (0..rows.num_columns()).filter(|at| rows.schema_ref().field(*at).name() != name).collect();
    Ok(rows.project(&kept)?)
}

fn with_null(rows: &RecordBatch, name: &str, row: usize) -> Result<RecordBatch> {
    let column = rollup::column(rows, name)?;
    let null = new_null_array(column.data_type(), 1);
    let (before, after) = (column.slice(0, row), column.slice((row + 1).min(rows.num_rows()), rows.num_rows().saturating_sub(row + 1)));
    with(rows, name, arrow::compute::concat(&[before.as_ref(), null.as_ref(), after.as_ref()])?)
}

fn cast_column(rows: &RecordBatch, name: &str, kind: &DataType) -> Result<RecordBatch> {
    with(rows, name, cast(rollup::column(rows, name)?, kind)?)
}

fn with_times(table: &Table, rows: &RecordBatch, of: impl Fn(usize, i64) -> i64) -> Result<RecordBatch> {
    let changed = times(table, rows)?.values().iter().enumerate().map(|(row, time)| of(row, *time));
    with(rows, &table.time, Arc::new(TimestampMicrosecondArray::from_iter_values(changed).with_timezone("UTC")))
}

fn with_keys(table: &Table, rows: &RecordBatch, of: impl Fn(&str) -> String) -> Result<RecordBatch> {
    let columns = rollup::key_columns(table, rows)?;
    let Some(keys) = columns.first() else { return Ok(rows.clone()) };
    with(rows, key_name(table), Arc::new(StringArray::from_iter_values((0..rows.num_rows()).map(|row| of(keys.value(row))))))
}

fn is_number(table: &Table, rows: &RecordBatch, name: &str) -> bool {
    let kind = rows.column_by_name(name).map(|column| column.data_type().clone());
    kind == Some(DataType::Float64) && name != table.time && table.key.iter().all(|key| key != name)
}

fn with_numbers(table: &Table, rows: &RecordBatch, of: &dyn Fn(&str, usize, f64) -> f64) -> Result<RecordBatch> {
    let mut changed = rows.clone();
    for field in rows.schema_ref().fields() {
        let name = field.name();
        if is_number(table, rows, name) {
            let values = rollup::column(rows, name)?.as_primitive::<Float64Type>();
            let values = values.values().iter().enumerate().map(|(row, value)| of(name, row, *value));
            changed = with(&changed, name, Arc::new(Float64Array::from_iter_values(values)))?;
        }
    }
    Ok(changed)
}

fn cast_numbers(table: &Table, rows: &RecordBatch, kind: &DataType) -> Result<RecordBatch> {
    let mut changed = rows.clone();
    for field in rows.schema_ref().fields() {
        if is_number(table, rows, field.name()) {
            changed = cast_column(&changed, field.name(), kind)?;
        }
    }
    Ok(changed)
}

/// Open for close and close for open; of other tables, the first two numbers for each other.
fn exchanged(rows: &RecordBatch) -> Result<RecordBatch> {
    let (open, close) = (rollup::column(rows, "open")?.clone(), rollup::column(rows, "close")?.clone());
    with(&with(rows, "open", close)?, "close", open)
}
