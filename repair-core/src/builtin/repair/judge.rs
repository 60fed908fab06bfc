//! Checks whether the answer of a source is plausible. Pure: it takes an answer, and returns what it holds or why it cannot be right.
//!
//! A source that ignores the request looks like a success, because it returns rows. So rows that are outside the request, out of order, in
//! the future, or the same as for another request, are an error and not a repair.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, SortField};
use jiff::Timestamp;

use crate::builtin::repair::by_day;
use crate::error::{Error, Result};
use crate::lake::{rollup, shape};
use crate::model::{AnswerPrint, Key, SlotGrid, SlotRange, SlotSet, Table};
use crate::plugin::Answer;

/// Answers with fewer rows may be equal by chance.
const FEWEST_ROWS_TO_COMPARE: usize = 10;
/// Answers with fewer distinct values (a counter that stands still, a price in a quiet hour) may be equal by chance.
const FEWEST_VALUES_TO_COMPARE: usize = 5;
/// How many answers one step remembers, at about 100 bytes each. Later answers are still compared with these.
const MOST_REMEMBERED: usize = 1 << 18;

/// What was requested.
pub(in crate::builtin) struct Question<'a> {
    /// What is asked: a source, or a repairer that computes rows.
    pub(in crate::builtin) asked: &'static str,
    pub(in crate::builtin) source: &'a str,
    pub(in crate::builtin) table: &'a Table,
    pub(in crate::builtin) grid: SlotGrid,
    pub(in crate::builtin) keys: Vec<&'a Key>,
    pub(in crate::builtin) slots: SlotRange,
    pub(in crate::builtin) now: Timestamp,
    /// The columns that rows must have: those of the table; none while the table is empty.
    pub(in crate::builtin) columns: Option<&'a Schema>,
}

/// What a plausible answer holds for each requested key.
pub(in crate::builtin) struct Judged<'a> {
    pub(in crate::builtin) answered: BTreeMap<&'a Key, SlotSet>,
    pub(in crate::builtin) rows: u64,
    prints: Vec<AnswerPrint>,
}

/// The origin of an answer: its key, and its first slot.
type Origin = (Key, i64);

/// The rows of one key that were seen so far.
struct Seen {
    answered: SlotSet,
    first: Option<i64>,
    last: i64,
    rows: usize,
    values: HashSet<[u8; 32]>,
    hasher: blake3::Hasher,
}

impl Question<'_> {
    /// Checks an answer by itself.
    ///
    /// # Errors
    /// `invalid` if a row's key was not requested; if its time is outside the request, off the grid or in the future; if times do not
    /// increase for each key; or if rows lack a column of the table, or a value that may not be null.
    pub(in crate::builtin) fn judge(&self, batches: &[RecordBatch]) -> Result<Judged<'_>> {
        let new = || Seen {
            answered: SlotSet::new(self.grid.cadence(), self.slots),
            first: None,
            last: i64::MIN,
            rows: 0,
            values: HashSet::new(),
            hasher: blake3::Hasher::new(),
        };
        let mut seen: BTreeMap<&Key, Seen> = self.keys.iter().map(|&key| (key, new())).collect();
        for batch in batches {
            self.judge_batch(batch, &mut seen)?;
        }
        let mut judged = Judged { answered: BTreeMap::new(), rows: 0, prints: Vec::new() };
        for (key, seen) in seen {
            judged.rows += seen.rows as u64;
            if let (Some(first), true) = (seen.first, seen.rows >= FEWEST_ROWS_TO_COMPARE && seen.values.len() >= FEWEST_VALUES_TO_COMPARE)
            {
                // Half of the digest is enough against chance, and is kept in the journal for each answer.
                let print = seen.hasher.finalize().to_hex().as_str().get(..32).unwrap_or_default().to_owned();
                judged.prints.push(AnswerPrint { print, key: key.clone(), first });
            }
            judged.answered.insert(key, seen.answered);
        }
        Ok(judged)
    }

    fn judge_batch(&self, batch: &RecordBatch, seen: &mut BTreeMap<&Key, Seen>) -> Result<()> {
        let in_shape = |error: Error| error.on(self.asked, self.source);
        let keys = rollup::key_columns(self.table, batch).map_err(in_shape)?;
        let times = times(self.table, batch).map_err(in_shape)?;
        self.is_whole(batch)?;
        if times.null_count() > 0 || keys.iter().any(|column| column.null_count() > 0) {
            return Err(self.implausible("a row without key or time"));
        }
        let own = |name: &str| name == self.table.time || self.table.key.iter().any(|key| key == name);
        let mut values: Vec<(&str, &ArrayRef)> = Vec::new();
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if !own(field.name()) {
                values.push((field.name(), column));
            }
        }
        values.sort_unstable_by_key(|(name, _)| *name);
        let converter = RowConverter::new(values.iter().map(|(_, column)| SortField::new(column.data_type().clone())).collect())?;
        let columns: Vec<ArrayRef> = values.iter().map(|(_, column)| (*column).clone()).collect();
        // A converter of no columns does not know how many rows there are.
        let values = if columns.is_empty() { None } else { Some(converter.convert_columns(&columns)?) };
        let rows = shape::KeyTime { keys, times };
        let mut hashed = Vec::new();
        for run in rows.runs() {
            let key = rows.key(run.start);
            let Some(seen) = seen.get_mut(&key) else {
                let time = instant(times.value(run.start));
                return Err(self.implausible(&format!("a row of {key} at {time}, which was not requested")));
            };
            // What is hashed at once has the same digest as what is hashed value by value.
            hashed.clear();
            for row in run {
                let time_us = times.value(row);
                let slot = self.slot(&key, time_us)?;
                if slot <= seen.last {
                    let at = instant(time_us);
                    return Err(self.implausible(&if slot == seen.last {
                        format!("twice a row of {key} at {at}")
                    } else {
                        format!("rows out of order: one of {key} at {at} follows a later one")
                    }));
                }
                seen.last = slot;
                seen.rows += 1;
                seen.answered.insert(slot);
                let first = *seen.first.get_or_insert(slot);
                hashed.extend_from_slice(&(slot - first).to_le_bytes());
                if let Some(values) = &values {
                    let bytes = values.row(row);
                    let bytes = bytes.as_ref();
                    hashed.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                    hashed.extend_from_slice(bytes);
                    if seen.values.len() < FEWEST_VALUES_TO_COMPARE {
                        seen.values.insert(*blake3::hash(bytes).as_bytes());
                    }
                }
            }
            seen.hasher.update(&hashed);
        }
        Ok(())
    }

    /// Checks that rows have all columns of the table. Missing ones would become nulls that nobody measured.
    fn is_whole(&self, batch: &RecordBatch) -> Result<()> {
        let table = &self.table.name;
        for field in self.columns.into_iter().flat_map(|columns| columns.fields()).filter(|_| batch.num_rows() > 0) {
            let name = field.name();
            match shape::find_column(batch, name)? {
                None => return Err(self.implausible(&format!("rows without the column `{name}` of table `{table}`"))),
                Some(values) if !field.is_nullable() && values.logical_null_count() > 0 => {
                    return Err(self.implausible(&format!("a row without a value of `{name}`, which every row of table `{table}` has")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn slot(&self, key: &Key, time_us: i64) -> Result<i64> {
        let slot = self.grid.slot_of_us(time_us);
        if !self.slots.contains(slot) {
            let asked = self.grid.interval_of(self.slots).map(|interval| interval.to_string()).unwrap_or_default();
            return Err(self.implausible(&format!("a row of {key} at {}, outside the requested {asked}", instant(time_us))));
        }
        if self.grid.slot_of_row(time_us).is_none() {
            let cadence = self.grid.cadence();
            return Err(self.implausible(&format!("a row of {key} at {}, where no slot of {cadence} begins or ends", instant(time_us))));
        }
        if time_us > self.now.as_microsecond() {
            return Err(self.implausible(&format!("a row of {key} at {}, although it is only {}", instant(time_us), self.now)));
        }
        Ok(slot)
    }

    fn implausible(&self, what: &str) -> Error {
        let Self { asked, source, .. } = self;
        Error::invalid(format!("{asked} `{source}` answered with {what}; the answer was discarded, check the {asked}"))
    }
}

/// The answers that one step has accepted, by their content.
#[derive(Debug, Default)]
pub(in crate::builtin) struct Accepted(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    origins: HashMap<[u8; 16], Origin>,
    /// Each key once, since a unit has its keys for itself.
    keys: HashSet<Key>,
}

impl Remembered {
    fn get(&self, print: &str) -> Option<&Origin> {
        self.origins.get(&digest(print))
    }

    /// Whether there is room to remember an answer, which is then remembered.
    fn add(&mut self, answer: &AnswerPrint) -> bool {
        let print = digest(&answer.print);
        if self.origins.contains_key(&print) {
            return true;
        }
        if self.origins.len() >= MOST_REMEMBERED {
            return false;
        }
        let key = match self.keys.get(&answer.key) {
            Some(key) => key.clone(),
            None => {
                self.keys.insert(answer.key.clone());
                answer.key.clone()
            }
        };
        self.origins.insert(print, (key, answer.first));
        true
    }
}

/// The bytes that a digest in hexadecimal stands for. Any other text has a digest of its own.
fn digest(print: &str) -> [u8; 16] {
    match u128::from_str_radix(print, 16) {
        Ok(number) if print.len() == 32 => number.to_be_bytes(),
        _ => {
            let mut short = [0; 16];
            short.copy_from_slice(&blake3::hash(print.as_bytes()).as_bytes()[..16]);
            short
        }
    }
}

impl Accepted {
    /// Remembers an answer, unless another request returned the same rows, and returns what it remembers of it. A repeated request is not
    /// another one.
    ///
    /// # Errors
    /// `invalid` if the same values came for another key or time.
    pub(in crate::builtin) fn add(&self, question: &Question<'_>, judged: &Judged<'_>) -> Result<Vec<AnswerPrint>> {
        // No code that can panic runs under the lock, so the data behind a poisoned lock is intact.
        let mut accepted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for AnswerPrint { print, key, first } in &judged.prints {
            let origin = &(key.clone(), *first);
            if let Some(other) = accepted.get(print).filter(|&other| other != origin) {
                let from = |(key, slot): &Origin| format!("{key} from {}", question.grid.start_of(*slot));
                return Err(question.implausible(&format!(
                    "the same values for {} as for {}, so it seems to ignore the request",
                    from(origin),
                    from(other)
                )));
            }
        }
        Ok(judged.prints.iter().filter(|print| accepted.add(print)).cloned().collect())
    }

    /// Remembers answers that were accepted before.
    pub(in crate::builtin) fn recall(&self, answers: &[AnswerPrint]) {
        let mut accepted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().for_each(|answer| _ = accepted.add(answer));
    }
}

/// The slots of a key, within those asked for, in which a source vouches that it has all rows. Those that have not ended at the end of a
/// stretch are not among them.
pub(in crate::builtin) fn vouched(grid: SlotGrid, answer: &Answer, key: &Key, asked: SlotRange) -> SlotSet {
    let mut covered = SlotSet::new(grid.cadence(), asked);
    for stretch in answer.covered.iter().filter(|covered| covered.key == *key) {
        let slots = grid.slots_in(&stretch.interval);
        covered.insert_range(SlotRange::new(slots.first, slots.end.min(by_day::slots_over(grid, stretch.interval.to()))));
    }
    covered
}

/// The time column of a batch.
pub(super) fn times<'a>(table: &Table, batch: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
    rollup::column(batch, &table.time)?
        .as_any()
        .downcast_ref()
        .ok_or_else(|| Error::invalid(format!("time column `{}` is not a timestamp in microseconds", table.time)))
}

fn instant(time_us: i64) -> String {
    Timestamp::from_microsecond(time_us).map_or_else(|_| format!("{time_us} µs"), |instant| instant.to_string())
}
