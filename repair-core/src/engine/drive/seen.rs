//! What looks saw of slots beside those with a defect, as columns of an artifact: the status of a table is made of it.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::{StreamExt, TryStreamExt, stream};

use crate::engine::drive::artifact::{from_json, not_ours, text, to_json};
use crate::engine::pure::event::{FindingsRecord, SeenRecord};
use crate::error::{Error, Result};
use crate::lake::Artifacts;
use crate::lake::rollup::column;
use crate::model::{Findings, GapList, Key, Seen, SlotRange, Usage};

const STATE: &str = "state";
const KEY: &str = "key";
const FIRST: &str = "first_slot";
const END: &str = "end_slot";

/// The names of the lists in the artifact.
const STATES: [&str; 5] = ["repaired", "absent", "replaced", "aside", "examined"];

/// Slots that a look saw, beside those with the defect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenSlots {
    /// Expected slots that hold only a repair.
    pub repaired: GapList,
    /// Expected slots confirmed absent, or whose rows a repair removes.
    pub absent: GapList,
    /// Expected slots with rows of the table's own that a repair replaces or changes.
    pub replaced: GapList,
    /// Slots with the defect that people had set aside.
    pub aside: GapList,
    /// The slots that were looked at, if these were only the gaps of an earlier look.
    pub examined: GapList,
}

impl SeenSlots {
    /// What findings saw; `again` are the earlier findings whose gaps were looked at.
    pub(crate) fn of(found: &Findings, again: Option<&Findings>) -> Self {
        let Seen { repaired, absent, replaced } = found.seen.clone().unwrap_or_default();
        let before = again.map(|before| &before.aside);
        Self {
            repaired,
            absent,
            replaced,
            aside: before.map_or_else(|| found.aside.clone(), |before| before.merged(&found.aside)),
            examined: again.map(|before| before.gaps.clone()).unwrap_or_default(),
        }
    }

    fn lists(&self) -> [&GapList; 5] {
        [&self.repaired, &self.absent, &self.replaced, &self.aside, &self.examined]
    }

    fn lists_mut(&mut self) -> [&mut GapList; 5] {
        [&mut self.repaired, &mut self.absent, &mut self.replaced, &mut self.aside, &mut self.examined]
    }

    fn is_empty(&self) -> bool {
        self.lists().into_iter().all(GapList::is_empty)
    }

    fn to_batch(&self) -> Result<RecordBatch> {
        let (mut states, mut keys, mut first, mut end) = (StringBuilder::new(), StringBuilder::new(), Vec::new(), Vec::new());
        for (state, list) in STATES.into_iter().zip(self.lists()) {
            let mut last: Option<(&Key, String)> = None;
            for (key, range) in list.iter() {
                let known = match last.take() {
                    Some((of, known)) if of == key => known,
                    _ => to_json(&key.values().collect::<Vec<_>>())?,
                };
                states.append_value(state);
                keys.append_value(&known);
                first.push(range.first);
                end.push(range.end);
                last = Some((key, known));
            }
        }
        let of_text = |name: &str| Field::new(name, DataType::Utf8, false);
        let of_number = |name: &str| Field::new(name, DataType::Int64, false);
        let schema = Schema::new(vec![of_text(STATE), of_text(KEY), of_number(FIRST), of_number(END)]);
        let (first, end) = (Int64Array::from(first), Int64Array::from(end));
        Ok(RecordBatch::try_new(
            Arc::new(schema),
            vec![Arc::new(states.finish()), Arc::new(keys.finish()), Arc::new(first), Arc::new(end)],
        )?)
    }

    fn add(&mut self, batch: &RecordBatch, last: &mut Option<(String, Key)>) -> Result<()> {
        let (states, keys) = (text(batch, STATE)?, text(batch, KEY)?);
        let number = |name| column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| not_ours(name));
        let (first, end) = (number(FIRST)?, number(END)?);
        for row in 0..batch.num_rows() {
            let text = keys.value(row);
            let key = match last {
                Some((known, key)) if known == text => key.clone(),
                _ => Key::new(from_json::<Vec<String>>(text)?),
            };
            let list = STATES.iter().position(|state| *state == states.value(row)).and_then(|at| self.lists_mut().into_iter().nth(at));
            let list = list.ok_or_else(|| Error::invalid("an artifact is damaged: it has a state that this program does not know"))?;
            list.push(&key, SlotRange::new(first.value(row), end.value(row)));
            *last = Some((text.to_owned(), key));
        }
        Ok(())
    }
}

/// Keeps what findings saw as an artifact of that name, if there is anything to keep.
pub(crate) async fn keep(
    lake: &(impl Artifacts + ?Sized),
    (run, name): (&str, &str),
    found: &Findings,
    again: Option<&Findings>,
) -> Result<(Option<SeenRecord>, Usage)> {
    let slots = SeenSlots::of(found, again);
    let complete = found.seen.is_some();
    let absent_until = found.hold_until.filter(|until| !slots.absent.is_empty() && *until < jiff::Timestamp::MAX);
    if slots.is_empty() {
        let record = complete.then(|| SeenRecord { artifact: None, again: again.is_some(), absent_until, complete });
        return Ok((record, Usage::default()));
    }
    let usage = lake.put_artifact(run, name, stream::iter([slots.to_batch()]).boxed()).await?;
    Ok((Some(SeenRecord { artifact: Some(name.to_owned()), again: again.is_some(), absent_until, complete }), usage))
}

/// What a look of a run saw of slots beside those with the defect, from the artifact that its record names.
///
/// # Errors
/// `not-found` if the run no longer has the artifact; `invalid` if it is damaged; those of the lake.
pub async fn seen_of(lake: &(impl Artifacts + ?Sized), run: &str, findings: &FindingsRecord) -> Result<SeenSlots> {
    let mut slots = SeenSlots::default();
    let Some(name) = findings.seen.as_ref().and_then(|seen| seen.artifact.as_deref()) else { return Ok(slots) };
    let mut batches = lake.get_artifact(run, name).await?;
    let mut last = None;
    while let Some(batch) = batches.try_next().await? {
        slots.add(&batch, &mut last)?;
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_as_they_were() {
        let list = |ranges: &[(&str, i64, i64)]| {
            let mut list = GapList::default();
            ranges.iter().for_each(|(key, first, end)| list.push(&Key::from(*key), SlotRange::new(*first, *end)));
            list
        };
        let slots = SeenSlots {
            repaired: list(&[("A", -3, 2), ("A", 5, 6), ("B", 0, 1)]),
            absent: list(&[("B", 7, 9)]),
            replaced: GapList::default(),
            aside: list(&[("A", 9, 10)]),
            examined: list(&[("A", -3, 10), ("C", 1, 2)]),
        };
        let mut read = SeenSlots::default();
        read.add(&slots.to_batch().unwrap(), &mut None).unwrap();
        assert_eq!(read, slots);
    }
}
