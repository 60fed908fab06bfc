//! How accurate guesses were, and which strategy is best. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use arrow::util::display::array_value_to_string;
use rust_decimal::Decimal;
use serde::Serialize;

use repair_core::lake::shape::KeyTime;
use repair_core::model::{GapList, Key, Table};
use repair_core::price::dollars;
use repair_core::{Error, Result};

/// The numbers of rows, by key and place in time: a slot, or a time in microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// The columns that hold numbers, in the table's order.
    pub columns: Vec<String>,
    /// Of each row, the value of each column.
    pub rows: BTreeMap<(Key, i64), Vec<Option<f64>>>,
}

/// The columns of a table that hold numbers, other than key and time.
pub fn number_columns(table: &Table, schema: &Schema) -> Vec<String> {
    let own = |name: &String| *name == table.time || table.key.contains(name);
    let numbers = schema.fields().iter().filter(|field| field.data_type().is_numeric() && !own(field.name()));
    numbers.map(|field| field.name().clone()).collect()
}

/// The columns that hold neither numbers nor what is true or false. A row of a table that only an aggregate describes is known by them.
pub fn other_columns(schema: &Schema) -> Vec<String> {
    schema
        .fields()
        .iter()
        .filter(|field| !field.data_type().is_numeric() && *field.data_type() != DataType::Boolean)
        .map(|field| field.name().clone())
        .collect()
}

impl Numbers {
    /// The rows of batches, each known by the values of some columns; several with the same values by their order among these. Without such columns, a row
    /// is known by all of its numbers, so that rows are the same or are not.
    ///
    /// # Errors
    /// If a value cannot be read.
    pub fn of_rows(columns: Vec<String>, known_by: &[String], batches: &[RecordBatch]) -> Result<Self> {
        let mut rows: Vec<(Key, Vec<Option<f64>>)> = Vec::new();
        for batch in batches {
            let mut numbers = Vec::with_capacity(columns.len());
            for name in &columns {
                numbers.push(batch.column_by_name(name).map(|column| cast(column, &DataType::Float64)).transpose()?);
            }
            let known: Vec<&ArrayRef> = known_by.iter().filter_map(|name| batch.column_by_name(name)).collect();
            for row in 0..batch.num_rows() {
                let values: Vec<Option<f64>> = numbers.iter().map(|column| number(column.as_ref(), row)).collect();
                let key = if known.is_empty() {
                    Key::new(values.iter().map(|value| value.map_or_else(String::new, |value| format!("{value:.8e}"))))
                } else {
                    Key::new(known.iter().map(|column| Ok(array_value_to_string(column, row)?)).collect::<Result<Vec<_>>>()?)
                };
                rows.push((key, values));
            }
        }
        let of = |value: &Option<f64>| value.unwrap_or(f64::NEG_INFINITY);
        let order = |one: &[Option<f64>], other: &[Option<f64>]| {
            one.iter().zip(other).map(|(one, other)| of(one).total_cmp(&of(other))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        };
        rows.sort_by(|(key, values), (other, of_other)| key.cmp(other).then_with(|| order(values, of_other)));
        let mut all = Self::of_columns(columns);
        let mut at = 0;
        let mut last: Option<Key> = None;
        for (key, values) in rows {
            at = if last.as_ref() == Some(&key) { at + 1 } else { 0 };
            last = Some(key.clone());
            all.rows.insert((key, at), values);
        }
        Ok(all)
    }

    /// No rows of these columns.
    pub fn of_columns(columns: Vec<String>) -> Self {
        Self { columns, rows: BTreeMap::new() }
    }

    /// Adds rows of other places, with the same columns.
    pub fn append(&mut self, mut other: Self) {
        if self.columns.is_empty() {
            self.columns = other.columns;
        }
        self.rows.append(&mut other.rows);
    }

    /// The same rows, known to be those of a round, so that they differ from the same rows of another.
    #[must_use]
    pub fn of_round(&self, round: usize) -> Self {
        let round = round.to_string();
        let of_round = |key: &Key| Key::new(key.values().chain([round.as_str()]));
        Self {
            columns: self.columns.clone(),
            rows: self.rows.iter().map(|((key, at), values)| ((of_round(key), *at), values.clone())).collect(),
        }
    }

    /// Adds rows of a batch: those for which `place` returns a place, given their key and time (in microseconds). Columns that the batch lacks
    /// are null.
    ///
    /// # Errors
    /// `invalid` if the batch is not in the shape of a lake.
    pub fn add(&mut self, table: &Table, batch: &RecordBatch, place: impl Fn(&Key, i64) -> Option<i64>) -> Result<()> {
        let places = KeyTime::of(table, batch)?;
        let mut columns = Vec::with_capacity(self.columns.len());
        for name in &self.columns {
            columns.push(batch.column_by_name(name).map(|column| cast(column, &DataType::Float64)).transpose()?);
        }
        for row in 0..batch.num_rows() {
            let key = places.key(row);
            let Some(place) = place(&key, places.times.value(row)) else { continue };
            self.rows.insert((key, place), columns.iter().map(|column| number(column.as_ref(), row)).collect());
        }
        Ok(())
    }
}

/// A number of a row.
fn number(column: Option<&ArrayRef>, row: usize) -> Option<f64> {
    let column = column?.as_primitive::<Float64Type>();
    column.is_valid(row).then(|| column.value(row)).filter(|value| !value.is_nan())
}

/// How far the guesses of one column were from the truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ColumnErrors {
    /// Values compared.
    pub count: u64,
    /// Values that the truth has and the guess left open, or the other way round.
    pub unmatched: u64,
    /// The mean difference, without sign; `None` if no value was compared.
    pub mean_absolute: Option<f64>,
    /// The mean difference as a part of the true value, without sign, where that is not zero; `None` if it is nowhere.
    pub mean_relative: Option<f64>,
    /// The mean difference, guess less truth: whether guesses are too high; `None` if no value was compared.
    pub bias: Option<f64>,
    /// The largest difference, without sign; `None` if no value was compared.
    pub worst_absolute: Option<f64>,
    /// The mean [loss] over all that was hidden, from 0 (all correct) to 1; `None` if no value was.
    pub loss: Option<f64>,
}

/// The loss of a guess: its error as a part of the true value, at most 1; and 1 for a slot that was left open. If the true value is zero, the loss
/// is 0 for a guess of zero, and 1 otherwise.
pub fn loss(guess: Option<f64>, truth: f64) -> f64 {
    match guess {
        None => 1.0,
        Some(guess) if guess == truth => 0.0,
        Some(_) if truth == 0.0 => 1.0,
        Some(guess) => ((guess - truth) / truth).abs().min(1.0),
    }
}

#[derive(Default)]
struct Sums {
    count: u64,
    unmatched: u64,
    relative: u64,
    hidden: u64,
    absolute_sum: f64,
    relative_sum: f64,
    signed_sum: f64,
    loss_sum: f64,
    worst: f64,
}

impl Sums {
    fn add(&mut self, guess: Option<f64>, truth: Option<f64>) {
        if let Some(truth) = truth {
            self.hidden += 1;
            self.loss_sum += loss(guess, truth);
        }
        let (Some(guess), Some(truth)) = (guess, truth) else { return };
        let difference = guess - truth;
        self.count += 1;
        self.absolute_sum += difference.abs();
        self.signed_sum += difference;
        self.worst = self.worst.max(difference.abs());
        if truth != 0.0 {
            self.relative += 1;
            self.relative_sum += (difference / truth).abs();
        }
    }

    fn errors(&self) -> ColumnErrors {
        #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
        let mean = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64);
        ColumnErrors {
            count: self.count,
            unmatched: self.unmatched,
            mean_absolute: mean(self.absolute_sum, self.count),
            mean_relative: mean(self.relative_sum, self.relative),
            bias: mean(self.signed_sum, self.count),
            worst_absolute: (self.count > 0).then_some(self.worst),
            loss: mean(self.loss_sum, self.hidden),
        }
    }
}

/// Compares guesses with the truth, column by column: rows that the guesses lack count as left open.
pub fn errors(truth: &Numbers, guesses: &Numbers) -> BTreeMap<String, ColumnErrors> {
    let mut all = BTreeMap::new();
    for (index, name) in truth.columns.iter().enumerate() {
        let of_guess = guesses.columns.iter().position(|column| column == name);
        let mut sums = Sums::default();
        for (place, values) in &truth.rows {
            let guess = guesses.rows.get(place);
            let value = guess.and_then(|guess| guess.get(of_guess?).copied().flatten());
            let of_truth = values.get(index).copied().flatten();
            sums.add(value, of_truth);
            sums.unmatched += u64::from(guess.is_some() && value.is_some() != of_truth.is_some());
        }
        all.insert(name.clone(), sums.errors());
    }
    all
}

/// Numbers that differ by no more than this part of the larger one are the same: sums of the same numbers differ so by the order of addition.
const SAME: f64 = 1e-9;

fn are_same(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other || (one - other).abs() <= SAME * one.abs().max(other.abs()),
        (one, other) => one.is_some() == other.is_some(),
    }
}

/// How many rows differ in any column, and how many only one side has.
pub fn differing(truth: &Numbers, guesses: &Numbers) -> (u64, u64) {
    let common = truth.rows.iter().filter_map(|(place, values)| Some((values, guesses.rows.get(place)?)));
    let (mut differ, mut shared) = (0, 0);
    for (values, guess) in common {
        shared += 1;
        differ += u64::from(values.len() != guess.len() || values.iter().zip(guess).any(|(value, guess)| !are_same(*value, *guess)));
    }
    (differ, truth.rows.len() as u64 + guesses.rows.len() as u64 - 2 * shared)
}

/// The losses of one run of hidden slots: for each deciding column, how many values were hidden, and the sum of their [losses](loss).
#[derive(Debug, Clone, PartialEq)]
pub struct RunLoss {
    /// The key.
    pub key: Key,
    /// How many slots it has.
    pub slots: u64,
    /// Of each column, in their order.
    pub columns: Vec<(f64, f64)>,
}

/// The losses of each run of hidden slots, in the deciding columns.
pub fn runs(truth: &Numbers, guesses: &Numbers, hidden: &GapList, decisive: &[String]) -> Vec<RunLoss> {
    let place = |numbers: &Numbers, name: &String| numbers.columns.iter().position(|column| column == name);
    let columns: Vec<(Option<usize>, Option<usize>)> = decisive.iter().map(|name| (place(truth, name), place(guesses, name))).collect();
    let mut runs = Vec::with_capacity(hidden.len());
    for (key, gap) in hidden.iter() {
        let mut run = RunLoss { key: key.clone(), slots: gap.len(), columns: vec![(0.0, 0.0); decisive.len()] };
        let rows = truth.rows.range((key.clone(), gap.first)..(key.clone(), gap.end));
        for (place, values) in rows {
            let guess = guesses.rows.get(place);
            for ((of_truth, of_guess), (count, sum)) in columns.iter().zip(&mut run.columns) {
                let Some(truth) = of_truth.and_then(|at| values.get(at).copied().flatten()) else { continue };
                *count += 1.0;
                *sum += loss(guess.zip(*of_guess).and_then(|(guess, at)| guess.get(at).copied().flatten()), truth);
            }
        }
        runs.push(run);
    }
    runs
}

/// The mean over the deciding columns of their mean loss in some runs; `None` if no value was hidden in them.
pub fn mean_loss<'a>(runs: impl Iterator<Item = &'a RunLoss>) -> Option<f64> {
    let mut columns: Vec<(f64, f64)> = Vec::new();
    for run in runs {
        columns.resize(run.columns.len().max(columns.len()), (0.0, 0.0));
        columns.iter_mut().zip(&run.columns).for_each(|(all, one)| *all = (all.0 + one.0, all.1 + one.1));
    }
    let means: Vec<f64> = columns.iter().filter(|(count, _)| *count > 0.0).map(|(count, sum)| sum / count).collect();
    #[expect(clippy::cast_precision_loss, reason = "a count of columns")]
    let count = means.len() as f64;
    (!means.is_empty()).then(|| means.iter().sum::<f64>() / count)
}

/// How often runs are drawn again for an interval, at most; less often if there are very many.
const RESAMPLES: usize = 1_000;
const LEAST_RESAMPLES: usize = 100;
const MOST_DRAWS: usize = 2_000_000;

/// The interval in which the mean loss lies in 95 % of cases, if the hidden runs were drawn anew: the percentile bootstrap over runs, since slots of
/// one run are guessed well or badly together (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). `None` for fewer than two runs.
/// The same seed draws the same runs, for every strategy.
pub fn interval(runs: &[&RunLoss], seed: u64) -> Option<[f64; 2]> {
    if runs.len() < 2 {
        return None;
    }
    let columns = runs.iter().map(|run| run.columns.len()).max().unwrap_or(1).max(1);
    let resamples = (MOST_DRAWS / (runs.len() * columns)).clamp(LEAST_RESAMPLES, RESAMPLES);
    let mut state = seed;
    let mut means: Vec<f64> = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        let drawn = (0..runs.len()).filter_map(|_| runs.get(drawn(&mut state, runs.len())).copied());
        means.extend(mean_loss(drawn));
    }
    means.sort_unstable_by(f64::total_cmp);
    let last = means.len().checked_sub(1)?;
    let at = |thousandths: usize| means.get((last * thousandths + 500) / 1_000).copied();
    Some([at(25)?, at(975)?])
}

/// A number below `count`: SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014).
fn drawn(state: &mut u64, count: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    usize::try_from((u128::from(mixed) * count as u128) >> 64).unwrap_or(0)
}

/// The lengths by which runs are grouped, in slots: each group ends with one of these, and the last has no end.
pub const LENGTHS: [u64; 5] = [1, 5, 24, 100, 500];

/// The losses of some of the runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartLoss {
    /// Which: a key, or a range of lengths in slots.
    pub part: String,
    /// Runs of hidden slots.
    pub runs: u64,
    /// Hidden slots.
    pub hidden: u64,
    /// The mean loss of the deciding columns.
    pub loss: f64,
    /// The interval of the loss, if there are several runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

fn part(part: String, runs: &[&RunLoss], seed: u64) -> Option<PartLoss> {
    let hidden = runs.iter().map(|run| run.slots).sum();
    Some(PartLoss { part, runs: runs.len() as u64, hidden, loss: mean_loss(runs.iter().copied())?, interval: interval(runs, seed) })
}

/// The losses by key.
pub fn by_key(runs: &[RunLoss], seed: u64) -> Vec<PartLoss> {
    let mut keys: BTreeMap<&Key, Vec<&RunLoss>> = BTreeMap::new();
    runs.iter().for_each(|run| keys.entry(&run.key).or_default().push(run));
    keys.into_iter().filter_map(|(key, runs)| part(key.to_string(), &runs, seed)).collect()
}

/// The losses by length, the shortest first.
pub fn by_length(runs: &[RunLoss], seed: u64) -> Vec<PartLoss> {
    let mut parts = Vec::new();
    let mut from = 1;
    for to in LENGTHS.into_iter().map(Some).chain([None]) {
        let of_part: Vec<&RunLoss> = runs.iter().filter(|run| run.slots >= from && to.is_none_or(|to| run.slots <= to)).collect();
        let name = match to {
            Some(to) if to == from => from.to_string(),
            Some(to) => format!("{from}–{to}"),
            None => format!("{from} or more"),
        };
        parts.extend(part(name, &of_part, seed));
        from = to.map_or(from, |to| to + 1);
    }
    parts
}

/// The limits within which the best strategy is chosen.
#[derive(Debug, Clone, Default)]
pub struct CostLimit {
    /// The most dollars that it may cost.
    pub usd: Option<Decimal>,
    /// The most calls that it may make.
    pub calls: Option<u64>,
}

impl CostLimit {
    /// A limit as people write it: dollars as a plain decimal number.
    ///
    /// # Errors
    /// `invalid` if the dollars are none.
    pub fn parse(usd: Option<&str>, calls: Option<u64>) -> Result<Self> {
        let usd = usd.map(|text| dollars(text).map_err(|why| Error::invalid(format!("`{text}` {why}")))).transpose()?;
        Ok(Self { usd, calls })
    }
}

/// What decides about one strategy.
#[derive(Debug, Clone)]
pub struct Contender {
    /// The mean [loss] of the columns that count.
    pub loss: f64,
    /// What it cost, if that is known.
    pub usd: Option<Decimal>,
    /// The calls it made.
    pub calls: u64,
    /// Whether it repaired anything.
    pub useful: bool,
}

/// The best strategy: of those that repaired anything and fit the limit, the one with the least loss; of several with the same loss, the cheapest,
/// then the one with the fewest calls, then the first. One whose cost is not known fits no limit in dollars.
pub fn best(contenders: &[Contender], limit: &CostLimit) -> Option<usize> {
    let fits = |contender: &Contender| {
        let affordable = limit.usd.is_none_or(|most| contender.usd.is_some_and(|usd| usd <= most));
        contender.useful && affordable && limit.calls.is_none_or(|most| contender.calls <= most)
    };
    let fitting = contenders.iter().enumerate().filter(|(_, contender)| fits(contender));
    let order = |contender: &Contender| (contender.usd.is_none(), contender.usd, contender.calls);
    fitting.min_by(|(_, a), (_, b)| a.loss.total_cmp(&b.loss).then_with(|| order(a).cmp(&order(b)))).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rows: &[(&str, i64, [Option<f64>; 2])]) -> Numbers {
        Numbers {
            columns: vec!["price".to_owned(), "volume".to_owned()],
            rows: rows.iter().map(|(key, time, values)| ((Key::from(*key), *time), values.to_vec())).collect(),
        }
    }

    #[test]
    fn errors_are_those_of_pencil_and_paper() {
        let truth = numbers(&[
            ("a", 0, [Some(10.0), Some(0.0)]),
            ("a", 1, [Some(20.0), Some(4.0)]),
            ("b", 0, [Some(-8.0), None]),
            ("b", 1, [Some(5.0), Some(1.0)]),
        ]);
        let guesses = numbers(&[("a", 0, [Some(11.0), Some(0.0)]), ("a", 1, [Some(18.0), None]), ("b", 0, [Some(-8.0), Some(1.0)])]);
        let all = errors(&truth, &guesses);
        let price = all["price"];
        assert_eq!(
            (price.count, price.unmatched, price.mean_absolute, price.bias, price.worst_absolute),
            (3, 0, Some(1.0), Some(-1.0 / 3.0), Some(2.0))
        );
        assert!((price.mean_relative.unwrap() - 0.2 / 3.0).abs() < 1e-15);
        assert!((price.loss.unwrap() - 1.2 / 4.0).abs() < 1e-15, "what was left open loses all of it");
        let volume = all["volume"];
        assert_eq!((volume.count, volume.unmatched, volume.mean_absolute, volume.mean_relative), (1, 2, Some(0.0), None));
        assert!((volume.loss.unwrap() - 2.0 / 3.0).abs() < 1e-15, "zero for zero is right; what the truth has not is not lost");
        assert_eq!(differing(&truth, &guesses), (3, 1));
        assert_eq!(differing(&truth, &truth), (0, 0));
        assert_eq!([loss(Some(1.0), 0.0), loss(Some(50.0), 2.0), loss(None, 2.0), loss(Some(1.0), 2.0)], [1.0, 1.0, 1.0, 0.5]);
    }

    #[test]
    fn rows_of_an_aggregate_are_matched_by_all_that_is_no_number_in_any_order() {
        let batch = |sensors: Vec<&str>, days: Vec<&str>, sums: Vec<f64>| {
            RecordBatch::try_from_iter([
                ("sensor", std::sync::Arc::new(arrow::array::StringArray::from(sensors)) as ArrayRef),
                ("day", std::sync::Arc::new(arrow::array::StringArray::from(days)) as ArrayRef),
                ("s", std::sync::Arc::new(arrow::array::Float64Array::from(sums)) as ArrayRef),
            ])
            .unwrap()
        };
        let of = |batch: RecordBatch, known_by: &[&str]| {
            let known_by: Vec<String> = known_by.iter().map(|name| (*name).to_owned()).collect();
            Numbers::of_rows(vec!["s".to_owned()], &known_by, &[batch]).unwrap()
        };
        let truth = || batch(vec!["a", "b", "a", "b"], vec!["1", "1", "2", "2"], vec![1.0, 2.0, 3.0, 0.3]);
        let other = || batch(vec!["b", "a", "b", "a"], vec!["2", "2", "1", "1"], vec![0.1 + 0.2, 3.5, 2.0, 1.0]);
        assert_eq!(other_columns(&truth().schema()), ["sensor", "day"]);
        let by_both = |batch| of(batch, &["sensor", "day"]);
        assert_eq!((by_both(truth()).rows.len(), differing(&by_both(truth()), &by_both(other()))), (4, (1, 0)));
        // Where a day has several rows, all of them count.
        let by_day = |batch| of(batch, &["day"]);
        assert_eq!((by_day(truth()).rows.len(), differing(&by_day(truth()), &by_day(other()))), (4, (1, 0)));
        // Known by nothing but their numbers, they are the same or are not.
        let by_none = |batch| of(batch, &[]);
        assert_eq!(differing(&by_none(truth()), &by_none(other())), (0, 2));
    }

    #[test]
    fn losses_are_grouped_by_key_and_length_and_drawn_again_by_run() {
        let truth = numbers(&[
            ("a", 0, [Some(10.0), None]),
            ("a", 1, [Some(10.0), Some(4.0)]),
            ("a", 9, [Some(10.0), Some(4.0)]),
            ("b", 0, [Some(10.0), Some(4.0)]),
        ]);
        let guesses = numbers(&[("a", 0, [Some(11.0), None]), ("a", 1, [Some(11.0), Some(4.0)]), ("b", 0, [Some(15.0), Some(5.0)])]);
        let mut hidden = GapList::default();
        for (key, first, end) in [("a", 0, 2), ("a", 9, 10), ("b", 0, 1)] {
            hidden.push(&Key::from(key), repair_core::model::SlotRange::new(first, end));
        }
        let price = runs(&truth, &guesses, &hidden, &["price".to_owned()]);
        let near = |one: f64, other: f64| assert!((one - other).abs() < 1e-12, "{one} {other}");
        near(mean_loss(price.iter()).unwrap(), (0.1 + 0.1 + 1.0 + 0.5) / 4.0);
        let both = runs(&truth, &guesses, &hidden, &["price".to_owned(), "volume".to_owned()]);
        near(mean_loss(both.iter()).unwrap(), (1.7 / 4.0 + (0.0 + 1.0 + 0.25) / 3.0) / 2.0);
        let of_keys: Vec<(String, u64, u64)> = by_key(&price, 7).into_iter().map(|part| (part.part, part.runs, part.hidden)).collect();
        assert_eq!(of_keys, [("a".to_owned(), 2, 3), ("b".to_owned(), 1, 1)]);
        let lengths: Vec<(String, u64)> = by_length(&price, 7).into_iter().map(|part| (part.part, part.runs)).collect();
        assert_eq!(lengths, [("1".to_owned(), 2), ("2–5".to_owned(), 1)]);
        let all: Vec<&RunLoss> = price.iter().collect();
        let [low, high] = interval(&all, 7).unwrap();
        near(low, 0.1);
        near(high, 1.0);
        assert_eq!(interval(&all, 7), interval(&all, 7));
        assert_eq!(interval(&all[..1], 7), None, "one run shows no spread");
    }

    #[test]
    fn an_interval_covers_the_truth_about_as_often_as_it_says() {
        // Runs of one value each, whose losses are spread evenly between 0 and 1.
        let mut state = 5;
        let mut covered = 0;
        for sample in 0..200 {
            let runs: Vec<RunLoss> = (0..40)
                .map(|_| RunLoss { key: Key::from("a"), slots: 1, columns: vec![(1.0, drawn(&mut state, 10_001) as f64 / 10_000.0)] })
                .collect();
            let [low, high] = interval(&runs.iter().collect::<Vec<_>>(), sample).unwrap();
            covered += usize::from((low..=high).contains(&0.5));
        }
        assert!((178..=198).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn the_best_is_the_least_wrong_that_fits() {
        let contender = |loss: f64, cents: Option<i64>, calls: u64| Contender {
            loss,
            usd: cents.map(|cents| Decimal::new(cents, 2)),
            calls,
            useful: loss < 1.0,
        };
        let contenders = [
            contender(0.2, Some(0), 0),
            contender(0.0, Some(30), 12),
            contender(0.0, Some(20), 40),
            contender(0.0, None, 1),
            contender(1.0, Some(0), 0),
        ];
        let limit = |cents: Option<i64>, calls: Option<u64>| CostLimit { usd: cents.map(|cents| Decimal::new(cents, 2)), calls };
        assert_eq!(best(&contenders, &limit(None, None)), Some(2), "equally accurate, and cheaper; an unknown cost comes last");
        assert_eq!(best(&contenders, &limit(Some(25), Some(20))), Some(0));
        assert_eq!(best(&contenders, &limit(Some(30), Some(20))), Some(1));
        assert_eq!(best(&contenders, &limit(None, Some(5))), Some(3));
        assert_eq!(best(&contenders[4..], &limit(None, None)), None, "a strategy that repaired nothing is never the best");
    }
}
