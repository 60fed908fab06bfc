//! Artifacts hold, as columns, what is too big for the journal: the gaps that a detector found, and the units of a repair step.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Int64Array, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::{Stream, StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::lake::rollup::column;
use crate::lake::{Artifacts, BatchStream};
use crate::model::{BadCells, Cells, Fingerprint, Fingerprints, GapList, Key, Quarantine, Runs, SlotRange, Unit};
use crate::plugin::PlannedUnits;

const KEY: &str = "key";
const FIRST: &str = "first_slot";
const END: &str = "end_slot";
const JUDGED: &str = "judged";
const CELLS: &str = "cells";
const DELETED: &str = "deleted";
const UNIT: &str = "unit";

/// Gaps as columns. If the judged rows or cells are known, there is one row per slot, with the fingerprint of those rows or cells, the
/// columns of the cells, and whether its row is to be removed.
///
/// # Errors
/// If a key cannot be written as JSON.
pub(crate) fn gaps_to_batch(gaps: &GapList, judged: &Fingerprints, cells: &Cells, deleted: &GapList) -> Result<RecordBatch> {
    if !judged.is_empty() || !cells.is_empty() || !deleted.is_empty() {
        return slots_to_batch(gaps, judged, cells, deleted);
    }
    let mut keys = StringBuilder::new();
    let (mut first, mut end) = (Vec::with_capacity(gaps.len()), Vec::with_capacity(gaps.len()));
    for (key, runs) in gaps.runs() {
        let text = to_json(&key.values().collect::<Vec<_>>())?;
        for slots in runs.iter() {
            keys.append_value(&text);
            first.push(slots.first);
            end.push(slots.end);
        }
    }
    let (first, end) = (Int64Array::from(first), Int64Array::from(end));
    let schema = Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        Field::new(FIRST, DataType::Int64, false),
        Field::new(END, DataType::Int64, false),
    ]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys.finish()), Arc::new(first), Arc::new(end)])?)
}

/// Rows that could not be read, as columns.
///
/// # Errors
/// If they do not fit one batch.
pub(crate) fn quarantine_to_batch(quarantine: &Quarantine) -> Result<RecordBatch> {
    let columns: [(&str, ArrayRef); 4] = [
        ("file", Arc::new(quarantine.iter().map(|row| Some(row.file.as_str())).collect::<StringArray>())),
        ("line", Arc::new(quarantine.iter().map(|row| row.line.and_then(|line| i64::try_from(line).ok())).collect::<Int64Array>())),
        ("column", Arc::new(quarantine.iter().map(|row| row.column.as_deref()).collect::<StringArray>())),
        ("reason", Arc::new(quarantine.iter().map(|row| Some(row.reason.as_str())).collect::<StringArray>())),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?)
}

fn slots_to_batch(gaps: &GapList, judged: &Fingerprints, cells: &Cells, deleted: &GapList) -> Result<RecordBatch> {
    let (mut keys, mut slots, mut prints) = (StringBuilder::new(), Vec::new(), StringBuilder::new());
    let (mut names, mut removals) = (StringBuilder::new(), BooleanBuilder::new());
    for (key, range) in gaps.iter() {
        let text = to_json(&key.values().collect::<Vec<_>>())?;
        for slot in range.first..range.end {
            keys.append_value(&text);
            slots.push(slot);
            let of_cells = cells.get(key, slot);
            let print = of_cells.map(|cells| cells.judged).or_else(|| judged.get(key, slot));
            prints.append_option(print.map(|fingerprint| fingerprint.to_string()));
            names.append_option(of_cells.map(|cells| to_json(&cells.columns)).transpose()?);
            removals.append_value(deleted.contains(key, slot));
        }
    }
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (KEY, Arc::new(keys.finish())),
        (FIRST, Arc::new(Int64Array::from_iter_values(slots.iter().copied()))),
        (END, Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| slot + 1)))),
        (JUDGED, Arc::new(prints.finish())),
    ];
    if !cells.is_empty() {
        columns.push((CELLS, Arc::new(names.finish())));
    }
    if !deleted.is_empty() {
        columns.push((DELETED, Arc::new(removals.finish())));
    }
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), [JUDGED, CELLS].contains(name));
    let fields: Vec<Field> = columns.iter().map(field).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect())?)
}

/// Gaps, the fingerprints of judged rows, wrong cells, and the slots whose rows are to be removed, from columns. The gaps of a key are in order; all
/// gaps are in order of key, or in several stretches of time, one after the other, each in order of key.
///
/// # Errors
/// `invalid` if the columns do not hold gaps.
pub(crate) async fn gaps_from_batches(mut batches: BatchStream) -> Result<(GapList, Fingerprints, Cells, GapList)> {
    let (mut judged, mut cells) = (Fingerprints::default(), Cells::default());
    let (mut gaps, mut deleted): (BTreeMap<Key, Runs>, BTreeMap<Key, Runs>) = Default::default();
    let mut lists: HashMap<String, Arc<[String]>> = HashMap::new();
    while let Some(batch) = batches.try_next().await? {
        let batch = &batch;
        let keys = text(batch, KEY)?;
        let number = |name| column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| not_ours(name));
        let (first, end) = (number(FIRST)?, number(END)?);
        let slots = |row: usize| SlotRange::new(first.value(row), end.value(row));
        let prints = batch.column_by_name(JUDGED).map(|_| self::text(batch, JUDGED)).transpose()?;
        let names = batch.column_by_name(CELLS).map(|_| self::text(batch, CELLS)).transpose()?;
        let removals = batch.column_by_name(DELETED).map(|column| column.as_boolean_opt().ok_or_else(|| not_ours(DELETED))).transpose()?;
        let mut begin = 0;
        while begin < batch.num_rows() {
            // There are many gaps of a key, one after the other.
            let text = keys.value(begin);
            let of_key = begin..(begin + 1..batch.num_rows()).find(|row| keys.value(*row) != text).unwrap_or(batch.num_rows());
            begin = of_key.end;
            let key = Key::new(from_json::<Vec<String>>(text)?);
            let runs = gaps.entry(key.clone()).or_default();
            of_key.clone().for_each(|row| runs.push(slots(row)));
            if let Some(removals) = removals {
                for row in of_key.clone().filter(|row| removals.value(*row)) {
                    deleted.entry(key.clone()).or_default().push(slots(row));
                }
            }
            let Some(prints) = prints else { continue };
            for row in of_key.filter(|row| prints.is_valid(*row)) {
                let print = Fingerprint::parse(prints.value(row))?;
                match names.filter(|names| names.is_valid(row)).map(|names| names.value(row)) {
                    None => judged.insert(&key, first.value(row), print),
                    Some(list) => {
                        let columns = match lists.get(list) {
                            Some(known) => known.clone(),
                            None => {
                                let columns: Arc<[String]> = from_json::<Vec<String>>(list)?.into();
                                lists.insert(list.to_owned(), columns.clone());
                                columns
                            }
                        };
                        cells.insert(&key, first.value(row), BadCells { columns, judged: print });
                    }
                }
            }
        }
    }
    Ok((GapList::of_keys(gaps), judged, cells, GapList::of_keys(deleted)))
}

/// The gaps that a detector found, from the artifact that its findings name.
///
/// # Errors
/// `not-found` if the run has no such artifact; `invalid` if it does not hold gaps; those of the lake.
pub async fn gaps_of(lake: &dyn Artifacts, run: &str, artifact: &str) -> Result<GapList> {
    Ok(gaps_from_batches(lake.get_artifact(run, artifact).await?).await?.0)
}

/// Units of a plan, each with its index.
pub(crate) type UnitStream = Pin<Box<dyn Stream<Item = Result<(u32, Unit)>> + Send>>;

/// How many units one batch of an artifact holds.
const UNITS_PER_BATCH: usize = 4_096;

/// How many units a stream held, and how many slots they repair.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Units.
    pub units: u64,
    /// Slots.
    pub slots: u64,
}

/// Units as a column, a batch at a time. `counted` counts what passed through.
pub(crate) fn units_to_batches(mut units: PlannedUnits, counted: Arc<Mutex<Counted>>) -> BatchStream {
    let batches = std::iter::from_fn(move || {
        let mut texts = StringBuilder::new();
        let mut seen = Counted::default();
        for unit in units.by_ref().take(UNITS_PER_BATCH) {
            match unit.and_then(|unit| Ok((unit.slots(), to_json(&unit)?))) {
                Ok((slots, text)) => {
                    seen = Counted { units: seen.units + 1, slots: seen.slots + slots };
                    texts.append_value(text);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        if seen.units == 0 {
            return None;
        }
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted = Counted { units: counted.units + seen.units, slots: counted.slots + seen.slots };
        let schema = Schema::new(vec![Field::new(UNIT, DataType::Utf8, false)]);
        Some(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(texts.finish())]).map_err(Error::from))
    });
    futures::stream::iter(batches).boxed()
}

/// The units of an artifact whose index is wanted, each with its index, in order. Other units are not even parsed.
pub(crate) fn units_from_batches(batches: BatchStream, wanted: impl Fn(u32) -> bool + Send + 'static) -> UnitStream {
    let mut index = 0u32;
    let units = batches.map(move |batch| {
        let batch = batch?;
        let texts = text(&batch, UNIT)?.clone();
        let first = index;
        index = index.saturating_add(u32::try_from(texts.len()).unwrap_or(u32::MAX));
        let wanted: Vec<u32> = (first..index).filter(|index| wanted(*index)).collect();
        // Each is parsed when its turn comes.
        let unit = move |index: u32| -> Result<(u32, Unit)> { Ok((index, from_json(texts.value((index - first) as usize))?)) };
        Ok::<_, Error>(futures::stream::iter(wanted.into_iter().map(unit)))
    });
    units.try_flatten().boxed()
}

pub(crate) fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| not_ours(name))
}

pub(crate) fn not_ours(name: &str) -> Error {
    Error::invalid(format!("column `{name}` of an artifact does not have the type that this program writes"))
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("a value cannot be written as JSON").because(error))
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::invalid("an artifact is damaged").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gaps_and_units_come_back_as_they_were() {
        let mut gaps = GapList::default();
        // In order of key, as any list.
        gaps.push(&Key::default(), SlotRange::new(0, 1));
        gaps.push(&Key::from("A"), SlotRange::new(1, 4));
        gaps.push(&Key::from("A"), SlotRange::new(9, 10));
        gaps.push(&Key::new(["B", "x/y"]), SlotRange::new(-7, -5));
        let mut judged = Fingerprints::default();
        for known in [Fingerprints::default(), {
            judged.insert(&Key::from("A"), 2, Fingerprint::new([7; 16]));
            judged.insert(&Key::default(), 0, Fingerprint::new([0; 16]));
            judged
        }] {
            let mut cells = Cells::default();
            for cells in [Cells::default(), {
                cells.insert(
                    &Key::new(["B", "x/y"]),
                    -6,
                    BadCells { columns: ["a".into(), "b,c".into()].into(), judged: Fingerprint::new([3; 16]) },
                );
                cells
            }] {
                let mut deleted = GapList::default();
                for deleted in [GapList::default(), {
                    deleted.push(&Key::from("A"), SlotRange::new(3, 4));
                    deleted.push(&Key::from("A"), SlotRange::new(9, 10));
                    deleted
                }] {
                    let written = futures::stream::iter([gaps_to_batch(&gaps, &known, &cells, &deleted)]).boxed();
                    let read = gaps_from_batches(written).await.unwrap();
                    assert_eq!(read, (gaps.clone(), known.clone(), cells.clone(), deleted));
                }
            }
        }
        // In two stretches of time.
        let (mut earlier, mut later) = (GapList::default(), GapList::default());
        earlier.push(&Key::from("A"), SlotRange::new(1, 4));
        later.push(&Key::default(), SlotRange::new(0, 1));
        later.push(&Key::from("A"), SlotRange::new(9, 10));
        later.push(&Key::new(["B", "x/y"]), SlotRange::new(-7, -5));
        let none = (Fingerprints::default(), Cells::default(), GapList::default());
        let stretches = [&earlier, &later].map(|part| gaps_to_batch(part, &none.0, &none.1, &none.2));
        assert_eq!(gaps_from_batches(futures::stream::iter(stretches).boxed()).await.unwrap().0, gaps);
        let interval = crate::model::Interval::parse("2024-03-04", "2024-03-04").unwrap();
        let wanted = vec![crate::model::Wanted { key: Key::from("A"), slots: vec![SlotRange::new(1, 4)] }];
        let units = vec![Unit { interval, wanted }, Unit { interval, wanted: Vec::new() }];
        let counted = Arc::new(Mutex::new(Counted::default()));
        let written = units_to_batches(Box::new(units.clone().into_iter().map(Ok)), counted.clone());
        let read: Vec<(u32, Unit)> = units_from_batches(written, |index| index == 1).try_collect().await.unwrap();
        assert_eq!(read, [(1, units[1].clone())]);
        assert_eq!(*counted.lock().unwrap(), Counted { units: 2, slots: 3 });
        assert_ne!(units[0].id("t", "s"), units[1].id("t", "s"));
    }
}
