//! What is kept of a status between two questions: which looks there are, and what they add up to, day by day. It is derived from the journals and the
//! artifacts of runs, in artifacts that belong to no run, and safe to delete: what is gone, damaged or of another version is made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use super::fold::Cell;
use super::model::{Look, States};
use futures::{StreamExt, TryStreamExt, stream};
use repair_core::lake::{Lake, known};
use repair_core::model::{Key, SlotGrid, SlotRange};
use repair_core::{Error, Result};

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{Int32Type, Int64Type, UInt32Type};

/// The version of what is kept. Another one is made anew.
const VERSION: &str = concat!("2 ", env!("CARGO_PKG_VERSION"));
/// The name of the list of looks.
const INDEX: &str = "status";

const HEAD: &str = "head";
const KEY: &str = "key";
const DAY: &str = "day";
const LOOK: &str = "look";
const FIRST: &str = "first_slot";
const END: &str = "end_slot";
/// The states, in this order: `complete` is what they leave of `expected`.
const STATES: [&str; 10] =
    ["expected", "repaired", "missing", "absent", "suspect", "wrong", "given_up", "frozen", "elsewhere", "unexamined"];

/// How far the events of a run have been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// How many.
    pub(super) events: u64,
    /// When the run had recorded the last of them.
    pub(super) at: Timestamp,
    /// Whether it had stopped by itself.
    pub(super) rests: bool,
    /// The repair steps that had planned units, each with the table and the detect step whose findings it repairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) planned: BTreeMap<String, Planned>,
}

/// What a repair step repairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) table: String,
    pub(super) of: String,
}

/// A look, and where its findings are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptLook {
    #[serde(flatten)]
    pub(super) look: Look,
    /// The number of its event.
    pub(super) event: u64,
    /// A digest of the keys that it examined.
    pub(super) keys: String,
    /// How many keys these are.
    pub(super) of_keys: u64,
    /// How many slots it found missing or wrong.
    pub(super) found: u64,
}

/// What a run has published in a table of what repairs one detect step's findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    pub(super) run: String,
    /// The detect step.
    pub(super) of: String,
    /// The place of its look in the list.
    pub(super) look: usize,
    /// The number of the last event that says so, and when that was.
    pub(super) event: u64,
    pub(super) at: Timestamp,
    pub(super) slots: u64,
}

/// The looks at a table, in the order in which they were found in journals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Looks {
    pub(super) looks: Vec<KeptLook>,
    /// What was published, and may have changed what a look found, since that step looked there.
    pub(super) published: Vec<Published>,
}

/// All looks of all runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    version: String,
    pub(super) runs: BTreeMap<String, Mark>,
    pub(super) tables: BTreeMap<String, Looks>,
}

impl Index {
    pub(super) async fn read(lake: &dyn Lake) -> Result<Self> {
        let read: Option<Self> = match known::read(lake, INDEX).await? {
            Some(text) => match serde_json::from_str(&text) {
                Ok(read) => Some(read),
                Err(error) => {
                    known::without(Error::invalid("what is known of looks is not in its shape").because(error))?;
                    None
                }
            },
            None => None,
        };
        Ok(read.filter(|read| read.version == VERSION).unwrap_or_else(|| Self { version: VERSION.to_owned(), ..Self::default() }))
    }

    pub(super) async fn keep(&self, lake: &dyn Lake) -> Result<()> {
        let text = serde_json::to_string(self).map_err(|error| Error::internal("looks are not JSON").because(error))?;
        known::keep(lake, INDEX, text).await.map(drop)
    }

    /// Forgets all looks.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.tables.clear();
    }
}

/// What the days of a table rest on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    version: String,
    /// How many of the table's looks, from the first on, and a digest of them.
    pub(super) looks: usize,
    pub(super) of_looks: String,
    /// A digest of what people have set aside.
    pub(super) decisions: String,
    pub(super) zone: String,
    pub(super) grid: SlotGrid,
    /// What is left out, and why.
    pub(super) notes: Vec<String>,
    keys: Vec<Key>,
}

/// The days of a table, by key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Days {
    pub(super) head: Head,
    pub(super) of_key: BTreeMap<Key, Vec<Cell>>,
}

impl Days {
    /// No days yet.
    pub(super) fn new(zone: String, grid: SlotGrid) -> Self {
        let (of_looks, decisions) = (String::new(), String::new());
        let head = Head { version: VERSION.to_owned(), looks: 0, of_looks, decisions, zone, grid, notes: Vec::new(), keys: Vec::new() };
        Self { head, of_key: BTreeMap::new() }
    }

    fn name(table: &str) -> String {
        format!("status-{}", blake3::hash(table.as_bytes()).to_hex())
    }

    /// The days that are kept of a table; `None` if there are none of this version, or they are damaged.
    pub(super) async fn read(lake: &dyn Lake, table: &str) -> Result<Option<Self>> {
        let batches = async { lake.get_artifact(known::RUN, &Self::name(table)).await?.try_collect::<Vec<_>>().await }.await;
        let days = batches.and_then(|batches| Self::from_batches(&batches));
        match days {
            Ok(days) => Ok(days),
            Err(error) => known::without(error).map(|()| None),
        }
    }

    pub(super) async fn keep(&mut self, lake: &dyn Lake, table: &str) -> Result<()> {
        let batch = self.write();
        lake.put_artifact(known::RUN, &Self::name(table), stream::iter([batch]).boxed()).await.map(drop)
    }

    fn write(&mut self) -> Result<RecordBatch> {
        self.head.keys = self.of_key.keys().cloned().collect();
        let head = serde_json::to_string(&self.head).map_err(|error| Error::internal("a status is not JSON").because(error))?;
        let epoch = Date::constant(1970, 1, 1);
        let rows = 1 + self.of_key.values().map(Vec::len).sum::<usize>();
        let mut heads = vec![None; rows];
        heads[0] = Some(head);
        let (mut keys, mut days, mut looks) = (vec![0u32], vec![0i32], vec![0u32]);
        let (mut first, mut end) = (vec![None::<i64>], vec![None::<i64>]);
        let mut states: [Vec<u32>; 10] = [(); 10].map(|()| vec![0]);
        let small = |number: u64| u32::try_from(number).map_err(|_| Error::internal("a day has more slots than can be kept"));
        for (number, cells) in (0u32..).zip(self.of_key.values()) {
            for cell in cells {
                keys.push(number);
                days.push((cell.date - epoch).get_days());
                looks.push(small(cell.look as u64)?);
                first.push(cell.part.map(|part| part.first));
                end.push(cell.part.map(|part| part.end));
                for (to, count) in states.iter_mut().zip(kept_states(&cell.states)) {
                    to.push(small(count)?);
                }
            }
        }
        let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
            (HEAD, Arc::new(StringArray::from(heads)), true),
            (KEY, Arc::new(UInt32Array::from(keys)), false),
            (DAY, Arc::new(Int32Array::from(days)), false),
            (LOOK, Arc::new(UInt32Array::from(looks)), false),
            (FIRST, Arc::new(Int64Array::from(first)), true),
            (END, Arc::new(Int64Array::from(end)), true),
        ];
        columns.extend(STATES.into_iter().zip(states).map(|(name, counts)| (name, Arc::new(UInt32Array::from(counts)) as ArrayRef, false)));
        Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
    }

    fn from_batches(batches: &[RecordBatch]) -> Result<Option<Self>> {
        let odd = || Error::invalid("what is kept of a status is not in its shape");
        let column = |batch: &RecordBatch, name: &str| batch.column_by_name(name).cloned().ok_or_else(odd);
        let mut days: Option<Self> = None;
        for batch in batches {
            let heads = column(batch, HEAD)?;
            let heads = heads.as_string_opt::<i32>().ok_or_else(odd)?;
            let number = |name: &str| Ok::<_, Error>(column(batch, name)?.as_primitive_opt::<UInt32Type>().ok_or_else(odd)?.clone());
            let slot = |name: &str| Ok::<_, Error>(column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(odd)?.clone());
            let (keys, looks, first, end) = (number(KEY)?, number(LOOK)?, slot(FIRST)?, slot(END)?);
            let dates = column(batch, DAY)?.as_primitive_opt::<Int32Type>().ok_or_else(odd)?.clone();
            let states = STATES.iter().map(|name| number(name)).collect::<Result<Vec<_>>>()?;
            let mut row = 0;
            if days.is_none() {
                if batch.num_rows() == 0 {
                    continue;
                }
                if !heads.is_valid(0) {
                    return Err(odd());
                }
                let head: Head = match serde_json::from_str(heads.value(0)) {
                    Ok(head) => head,
                    // Another version may have written more or less.
                    Err(error) => return Err(odd().because(error)),
                };
                if head.version != VERSION {
                    return Ok(None);
                }
                days = Some(Self { head, of_key: BTreeMap::new() });
                row = 1;
            }
            let Some(days) = &mut days else { continue };
            while row < batch.num_rows() {
                let number = keys.value(row);
                let key = usize::try_from(number).ok().and_then(|number| days.head.keys.get(number)).ok_or_else(odd)?;
                let cells = days.of_key.entry(key.clone()).or_default();
                while row < batch.num_rows() && keys.value(row) == number {
                    let date = Date::constant(1970, 1, 1).checked_add(dates.value(row).days()).map_err(|error| odd().because(error))?;
                    let part = (first.is_valid(row) && end.is_valid(row)).then(|| SlotRange::new(first.value(row), end.value(row)));
                    let mut counts = [0u64; 10];
                    for (count, column) in counts.iter_mut().zip(&states) {
                        *count = u64::from(column.value(row));
                    }
                    cells.push(Cell { date, states: states_of(counts).ok_or_else(odd)?, look: looks.value(row) as usize, part });
                    row += 1;
                }
            }
        }
        if let Some(days) = &mut days {
            let keys = std::mem::take(&mut days.head.keys);
            keys.into_iter().for_each(|key| _ = days.of_key.entry(key).or_default());
        }
        Ok(days)
    }
}

fn kept_states(states: &States) -> [u64; 10] {
    let States { expected, repaired, missing, absent, suspect, wrong, given_up, frozen, elsewhere, unexamined, .. } = *states;
    [expected, repaired, missing, absent, suspect, wrong, given_up, frozen, elsewhere, unexamined]
}

fn states_of([expected, repaired, missing, absent, suspect, wrong, given_up, frozen, elsewhere, unexamined]: [u64; 10]) -> Option<States> {
    let others = repaired + missing + absent + suspect + wrong + given_up + frozen + elsewhere + unexamined;
    let complete = expected.checked_sub(others)?;
    Some(States { expected, complete, repaired, missing, absent, suspect, wrong, given_up, frozen, elsewhere, unexamined })
}

#[cfg(test)]
mod tests {
    use super::*;
    use repair_core::model::{Cadence, TimeMark};

    fn days() -> Days {
        let mut days = Days::new("UTC".to_owned(), SlotGrid::new(Cadence::HOUR, TimeMark::Start));
        days.head.notes.push("a note".to_owned());
        let cell = |day, missing, part| {
            let states = states_of([24, 1, missing, 2, 0, 0, 0, 3, 0, 0]).unwrap();
            Cell {
                date: Date::constant(1969, 12, 30).checked_add(i64::from(day).days()).unwrap(),
                states,
                look: usize::try_from(day).unwrap(),
                part,
            }
        };
        days.of_key.insert(Key::from("A"), vec![cell(0, 4, None), cell(3, 0, Some(SlotRange::new(-5, 7)))]);
        days.of_key.insert(Key::new(["B", "x,y"]), Vec::new());
        days.of_key.insert(Key::new(["B", "z"]), vec![cell(1, 18, None)]);
        days
    }

    #[test]
    fn days_come_back_as_they_were_and_nothing_damaged_is_used() {
        let mut days = days();
        let batch = days.write().unwrap();
        days.head.keys.clear();
        assert_eq!(Days::from_batches(std::slice::from_ref(&batch)).unwrap().unwrap(), days);
        let halves = [batch.slice(0, 2), batch.slice(2, batch.num_rows() - 2)];
        assert_eq!(Days::from_batches(&halves).unwrap().unwrap(), days);
        assert!(Days::from_batches(&[batch.slice(1, 2)]).is_err(), "there is no head");
        assert!(Days::from_batches(&[batch.project(&[0, 1, 2]).unwrap()]).is_err(), "columns are gone");
        assert!(states_of([1, 1, 1, 0, 0, 0, 0, 0, 0, 0]).is_none(), "the states are more than what is expected");
        let mut other = days.clone();
        other.head.version = "0".to_owned();
        assert!(Days::from_batches(&[other.write().unwrap()]).unwrap().is_none(), "another version");
    }
}
