//! The columns that were seen: numbers or text, words for no value, values that stand for something else.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::DataType;
use repair_core::model::Csv;

use super::{Guess, Sure};

/// A column with at most so many different words among twice as many numbers is one of numbers, as the lake sees it, too.
const MOST_WORDS: usize = 3;

/// Words that mean no value wherever they stand.
const USUAL_NULLS: [&str; 15] = ["n/a", "na", "#n/a", "-", "--", "?", "null", "none", "nan", "nil", ".", "missing", "\\n", "*", "x"];

/// Numbers that stand for something else in many data: so many nines, and some others.
const USUAL_SENTINELS: [f64; 15] =
    [-1.0, -9.0, -99.0, -999.0, -9_999.0, -99_999.0, -999.9, -99.9, -200.0, 999.0, 9_999.0, 99_999.0, 32_767.0, 65_535.0, -32_768.0];

/// A column that was seen, in all files together.
#[derive(Debug, Default)]
pub(super) struct Column {
    pub(super) name: String,
    /// Where it is, if it is within a record.
    pub(super) path: Option<String>,
    pub(super) kind: Option<DataType>,
    pub(super) values: Vec<Option<String>>,
}

impl Column {
    pub(super) fn present(&self) -> impl Iterator<Item = &str> {
        self.values.iter().filter_map(|value| value.as_deref())
    }

    pub(super) fn at(&self, row: usize) -> Option<&str> {
        self.values.get(row).and_then(|value| value.as_deref())
    }

    pub(super) fn is_time(&self) -> bool {
        matches!(self.kind, Some(DataType::Timestamp(..) | DataType::Date32 | DataType::Date64))
    }

    /// How many different values it has.
    pub(super) fn distinct(&self) -> usize {
        self.present().collect::<std::collections::HashSet<_>>().len()
    }

    /// Its values as numbers, and the words between them that mean no value; `None` if it is not a column of numbers.
    pub(super) fn numbers(&self, csv: &Csv) -> Option<(Vec<Option<f64>>, Vec<String>)> {
        if self.is_time() || self.kind.as_ref().is_some_and(|kind| !kind.is_numeric()) {
            return None;
        }
        let mut words: Vec<String> = Vec::new();
        let (mut numbers, mut others) = (0, 0);
        let mut values = Vec::with_capacity(self.values.len());
        for value in &self.values {
            let number = value.as_deref().and_then(|text| number(text, csv));
            values.push(number);
            match (value, number) {
                (_, Some(_)) => numbers += 1,
                (None, None) => {}
                (Some(word), None) => {
                    others += 1;
                    if words.len() <= MOST_WORDS && !words.contains(word) {
                        words.push(word.clone());
                    }
                }
            }
        }
        (numbers > 0 && words.len() <= MOST_WORDS && numbers >= 2 * others).then_some((values, words))
    }
}

/// A number as the files write it. Codes, which begin with a zero, are none; nor are words such as `nan`.
pub(super) fn number(text: &str, csv: &Csv) -> Option<f64> {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            mark if Some(mark) == csv.thousands => {}
            mark if mark == csv.decimal => plain.push('.'),
            '.' => return None,
            other => plain.push(other),
        }
    }
    let digits = plain.strip_prefix('-').unwrap_or(&plain).as_bytes();
    let is_code = matches!(digits, [b'0', b'0'..=b'9', ..]);
    let begins = digits.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.');
    (begins && !is_code).then(|| plain.parse::<f64>().ok()).flatten().filter(|number| number.is_finite())
}

/// The words for no value in columns of numbers.
pub(super) fn nulls(csv: &Csv, columns: &[Column], guesses: &mut Vec<Guess>) -> Vec<String> {
    let mut found: BTreeMap<String, &str> = BTreeMap::new();
    for column in columns.iter().filter(|column| column.kind.is_none()) {
        for word in column.numbers(csv).map(|(_, words)| words).unwrap_or_default() {
            found.entry(word).or_insert(&column.name);
        }
    }
    for (word, column) in &found {
        let sure = if USUAL_NULLS.contains(&word.to_lowercase().as_str()) { Sure::Likely } else { Sure::Guess };
        guesses.push(Guess::new("nulls", word, format!("column `{column}` is numbers otherwise"), sure));
    }
    found.into_keys().collect()
}

/// A number in a column that stands for something else.
#[derive(Debug, Clone)]
pub(super) struct Sentinel {
    pub(super) column: String,
    pub(super) value: f64,
}

/// Numbers outside all others that occur often; or once, if they are far outside and usually stand for something else.
pub(super) fn sentinels(csv: &Csv, columns: &[&Column], guesses: &mut Vec<Guess>) -> Vec<Sentinel> {
    let mut found = Vec::new();
    for column in columns {
        let Some((numbers, _)) = column.numbers(csv) else { continue };
        let mut numbers: Vec<f64> = numbers.into_iter().flatten().collect();
        numbers.sort_by(f64::total_cmp);
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for number in &numbers {
            *counts.entry(number.to_bits()).or_default() += 1;
        }
        for at_end in [false, true] {
            let Some(&value) = (if at_end { numbers.last() } else { numbers.first() }) else { continue };
            let rest: Vec<f64> = numbers.iter().copied().filter(|number| *number != value).collect();
            let (Some(&least), Some(&greatest)) = (rest.first(), rest.last()) else { continue };
            let spread = (greatest - least).max(greatest.abs().max(least.abs()) * 0.01);
            let away = if at_end { value - greatest } else { least - value };
            let occurs = counts.get(&value.to_bits()).copied().unwrap_or(0);
            let is_usual = USUAL_SENTINELS.contains(&value);
            let is_far = away > 10.0 * spread;
            let is_one = match is_usual {
                true => (occurs >= 2 && away > spread) || (is_far && value.abs() >= 99.0),
                false => occurs >= 5 && is_far,
            };
            // A value that most rows have is what is normal.
            if is_one && occurs * 3 < numbers.len() {
                let sure = if is_usual && occurs >= 2 { Sure::Likely } else { Sure::Guess };
                let times = if occurs == 1 { "once".to_owned() } else { format!("{occurs} times") };
                let why = format!("it occurs {times} in column `{}`, and all others are from {least} to {greatest}", column.name);
                guesses.push(Guess::new("sentinel", value.to_string(), why, sure));
                found.push(Sentinel { column: column.name.clone(), value });
                numbers = rest;
            }
        }
    }
    found
}
