//! What is too big for the journal, as columns: the gaps a detector found, and the units of a repair step.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use crate::error::{Error, Result};
use crate::lake::rollup::column;
use crate::model::{GapList, Key, SlotRange, Unit};

const KEY: &str = "key";
const FIRST: &str = "first_slot";
const END: &str = "end_slot";
const UNIT: &str = "unit";

/// Gaps as columns.
///
/// # Errors
/// Only if a key cannot be written as JSON.
pub fn gaps_to_batch(gaps: &GapList) -> Result<RecordBatch> {
    let mut keys = Vec::with_capacity(gaps.len());
    for (key, _) in gaps.iter() {
        keys.push(to_json(&key.values().collect::<Vec<_>>())?);
    }
    let first: Int64Array = gaps.iter().map(|(_, slots)| slots.first).collect();
    let end: Int64Array = gaps.iter().map(|(_, slots)| slots.end).collect();
    let schema = Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        Field::new(FIRST, DataType::Int64, false),
        Field::new(END, DataType::Int64, false),
    ]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(keys)), Arc::new(first), Arc::new(end)])?)
}

/// Gaps from columns.
///
/// # Errors
/// `invalid` if these are not the columns of gaps.
pub fn gaps_from_batches(batches: &[RecordBatch]) -> Result<GapList> {
    let mut gaps = GapList::default();
    let mut last: Option<(&str, Key)> = None;
    for batch in batches {
        let keys = text(batch, KEY)?;
        let number = |name| column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| not_ours(name));
        let (first, end) = (number(FIRST)?, number(END)?);
        for row in 0..batch.num_rows() {
            let text = keys.value(row);
            let key = match &last {
                Some((known, key)) if *known == text => key.clone(),
                _ => Key::new(from_json::<Vec<String>>(text)?),
            };
            gaps.push(&key, SlotRange::new(first.value(row), end.value(row)));
            last = Some((text, key));
        }
    }
    Ok(gaps)
}

/// Units as a column.
///
/// # Errors
/// Only if a unit cannot be written as JSON.
pub fn units_to_batch(units: &[Unit]) -> Result<RecordBatch> {
    let texts: Vec<String> = units.iter().map(to_json).collect::<Result<_>>()?;
    let schema = Schema::new(vec![Field::new(UNIT, DataType::Utf8, false)]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(texts))])?)
}

/// Units from a column.
///
/// # Errors
/// `invalid` if this is not the column of units.
pub fn units_from_batches(batches: &[RecordBatch]) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for batch in batches {
        let texts = text(batch, UNIT)?;
        for row in 0..texts.len() {
            units.push(from_json(texts.value(row))?);
        }
    }
    Ok(units)
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| not_ours(name))
}

fn not_ours(name: &str) -> Error {
    Error::invalid(format!("an artifact's column `{name}` is not as this program writes it"))
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("cannot be written as JSON").because(error))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::invalid("an artifact is damaged").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_units_come_back_as_they_were() {
        let mut gaps = GapList::default();
        gaps.push(&Key::from("A"), SlotRange::new(1, 4));
        gaps.push(&Key::from("A"), SlotRange::new(9, 10));
        gaps.push(&Key::new(["B", "x/y"]), SlotRange::new(-7, -5));
        gaps.push(&Key::default(), SlotRange::new(0, 1));
        assert_eq!(gaps_from_batches(&[gaps_to_batch(&gaps).unwrap()]).unwrap(), gaps);
        let interval = crate::model::Interval::parse("2024-03-04", "2024-03-04").unwrap();
        let wanted = vec![crate::model::Wanted { key: Key::from("A"), slots: vec![SlotRange::new(1, 4)] }];
        let units = vec![Unit { interval, wanted }, Unit { interval, wanted: Vec::new() }];
        assert_eq!(units_from_batches(&[units_to_batch(&units).unwrap()]).unwrap(), units);
        assert_ne!(units[0].id("t", "s"), units[1].id("t", "s"));
    }
}
