//! How many runs have asked in vain for a slot, kept in an artifact that belongs to no run: one for each table and detect step. When so many have as a repair
//! step allows, the slot is given up: that is recorded as if a person had decided it, and nothing asks for it any more.
//!
//! A run counts once for a slot, however often it asks, and only where it was answered: that a source cannot be reached says nothing about a slot. What a run has
//! asked for is written when its units have ended, and compared with what is still wrong when a later run begins to repair. Whatever is cut short
//! between is done again, and comes to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{Int64Type, UInt32Type};
use futures::{StreamExt, TryStreamExt, stream};

use crate::engine::drive::artifact::{from_json, not_ours, text, to_json};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Artifacts;
use crate::lake::overlay::aside::{GIVEN_UP, in_place_of_people};
use crate::lake::overlay::retraction::{MAX_PARTS, Part, Retraction};
use crate::lake::rollup::column;
use crate::model::{Findings, GapList, Key, SlotRange, Table};
use crate::plugin::StepContext;

/// The name of no run, under which the artifacts are kept.
const RUN: &str = ".tried";

const KEY: &str = "key";
const FIRST: &str = "first_slot";
const END: &str = "end_slot";
const RUNS: &str = "runs";
const LAST: &str = "last_run";

/// Slots for which as many runs have asked, the same one last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    slots: SlotRange,
    /// How many runs.
    runs: u32,
    last: Arc<str>,
}

/// What runs have asked for, by key: the stretches of each are in order, and none meets another.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tried(BTreeMap<Key, Vec<Stretch>>);

/// Which artifact it is.
fn name(table: &Table, of: &str) -> String {
    let hash = blake3::hash(format!("{:?}", (&table.name, &table.location, of)).as_bytes()).to_hex();
    hash.get(..32).unwrap_or_default().to_owned()
}

/// The bounds of ranges within one, in order.
fn bounds(ranges: impl IntoIterator<Item = SlotRange>) -> Vec<SlotRange> {
    let all: BTreeSet<i64> = ranges.into_iter().flat_map(|range| [range.first, range.end]).collect();
    let all: Vec<i64> = all.into_iter().collect();
    all.windows(2).map(|pair| SlotRange::new(pair[0], pair[1])).collect()
}

/// Which of some ranges in order holds a slot, if slots are asked about in order.
struct Along<'a, T> {
    items: &'a [T],
    range: fn(&T) -> SlotRange,
}

impl<'a, T> Along<'a, T> {
    fn holding(&mut self, slot: i64) -> Option<&'a T> {
        while let Some((first, rest)) = self.items.split_first() {
            let range = (self.range)(first);
            if range.end > slot {
                return (range.first <= slot).then_some(first);
            }
            self.items = rest;
        }
        None
    }
}

fn push(into: &mut Vec<Stretch>, stretch: Stretch) {
    match into.last_mut() {
        Some(last) if last.slots.end == stretch.slots.first && (last.runs, &last.last) == (stretch.runs, &stretch.last) => {
            last.slots.end = stretch.slots.end;
        }
        _ => into.push(stretch),
    }
}

impl Tried {
    async fn read(lake: &(impl Artifacts + ?Sized), name: &str) -> Result<Self> {
        let read = async {
            let mut tried = Self::default();
            let mut batches = lake.get_artifact(RUN, name).await?;
            while let Some(batch) = batches.try_next().await? {
                tried.add(&batch)?;
            }
            Ok::<Self, Error>(tried)
        };
        match read.await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            // A count that begins anew gives up later, and never too early.
            Err(error) if error.kind() == ErrorKind::Invalid => {
                tracing::warn!(error = error.full(), "how many runs have asked in vain cannot be read, so it is counted anew");
                Ok(Self::default())
            }
            read => read,
        }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let (keys, lasts) = (text(batch, KEY)?, text(batch, LAST)?);
        let number = |name| column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| not_ours(name));
        let (first, end) = (number(FIRST)?, number(END)?);
        let runs = column(batch, RUNS)?.as_primitive_opt::<UInt32Type>().ok_or_else(|| not_ours(RUNS))?;
        for row in 0..batch.num_rows() {
            let of_key = self.0.entry(Key::new(from_json::<Vec<String>>(keys.value(row))?)).or_default();
            let slots = SlotRange::new(first.value(row), end.value(row));
            if slots.is_empty() || of_key.last().is_some_and(|last| last.slots.end > slots.first) {
                return Err(Error::invalid("what runs have asked for is damaged"));
            }
            let last = match of_key.last() {
                Some(before) if *before.last == *lasts.value(row) => before.last.clone(),
                _ => lasts.value(row).into(),
            };
            of_key.push(Stretch { slots, runs: runs.value(row), last });
        }
        Ok(())
    }

    async fn write(&self, lake: &(impl Artifacts + ?Sized), name: &str) -> Result<()> {
        let all = || self.0.iter().flat_map(|(key, of_key)| of_key.iter().map(move |stretch| (key, stretch)));
        let keys = all().map(|(key, _)| to_json(&key.values().collect::<Vec<_>>()).map(Some)).collect::<Result<StringArray>>()?;
        let columns: [(&str, ArrayRef); 5] = [
            (KEY, Arc::new(keys)),
            (FIRST, Arc::new(Int64Array::from_iter_values(all().map(|(_, stretch)| stretch.slots.first)))),
            (END, Arc::new(Int64Array::from_iter_values(all().map(|(_, stretch)| stretch.slots.end)))),
            (RUNS, Arc::new(UInt32Array::from_iter_values(all().map(|(_, stretch)| stretch.runs)))),
            (LAST, Arc::new(all().map(|(_, stretch)| Some(stretch.last.as_ref())).collect::<StringArray>())),
        ];
        let batch = RecordBatch::try_from_iter(columns)?;
        lake.put_artifact(RUN, name, stream::iter([Ok(batch)]).boxed()).await.map(drop)
    }

    /// Counts a run for slots of a key, unless it is counted for them.
    fn count(&mut self, key: &Key, asked: &[SlotRange], run: &Arc<str>) {
        let known = self.0.remove(key).unwrap_or_default();
        let (mut before, mut now) =
            (Along { items: &known, range: |stretch: &Stretch| stretch.slots }, Along { items: asked, range: |range| *range });
        let mut counted = Vec::new();
        for slots in bounds(known.iter().map(|stretch| stretch.slots).chain(asked.iter().copied())) {
            let stretch = match (before.holding(slots.first), now.holding(slots.first)) {
                (None, None) => continue,
                (Some(known), is_asked) if is_asked.is_none() || known.last == *run => Stretch { slots, ..known.clone() },
                (known, _) => Stretch { slots, runs: known.map_or(0, |known| known.runs).saturating_add(1), last: run.clone() },
            };
            push(&mut counted, stretch);
        }
        if !counted.is_empty() {
            self.0.insert(key.clone(), counted);
        }
    }

    /// Takes out the slots for which so many runs have asked before this one, and forgets those that were examined and are not wrong any more.
    fn take_due(&mut self, findings: &Findings, most: u32, run: &str) -> GapList {
        let (examined, mut wrong) = (findings.scope.slots(), findings.gaps.by_key());
        let keys: BTreeSet<&Key> = findings.scope.keys.iter().collect();
        let mut due = GapList::default();
        for (key, of_key) in &mut self.0 {
            if !keys.contains(key) && !wrong.contains_key(key) {
                continue;
            }
            let gaps = wrong.remove(key).unwrap_or_default();
            let known = std::mem::take(of_key);
            let (mut stretches, mut missing) =
                (Along { items: &known, range: |stretch: &Stretch| stretch.slots }, Along { items: &gaps, range: |range| *range });
            for slots in bounds(known.iter().map(|stretch| stretch.slots).chain(gaps.iter().copied()).chain([examined])) {
                let is_wrong = missing.holding(slots.first).is_some();
                let Some(stretch) = stretches.holding(slots.first) else { continue };
                let earlier = stretch.runs - u32::from(*stretch.last == *run);
                match (examined.contains(slots.first), is_wrong) {
                    (true, false) => {}
                    (true, true) if earlier >= most => due.push(key, slots),
                    _ => push(of_key, Stretch { slots, ..stretch.clone() }),
                }
            }
        }
        self.0.retain(|_, of_key| !of_key.is_empty());
        due
    }
}

/// Counts this run for slots for which it has asked, and was answered. `asked` are the slots of each key, in any order.
///
/// # Errors
/// Those of the lake.
pub(crate) async fn count(context: &StepContext, table: &Table, of: &str, asked: BTreeMap<Key, Vec<SlotRange>>) -> Result<()> {
    let (name, lake) = (name(table, of), context.lake.as_ref());
    let mut tried = Tried::read(lake, &name).await?;
    for (key, ranges) in asked {
        tried.count(&key, &joined(ranges), &context.run);
    }
    tried.write(lake, &name).await
}

/// Ranges in order, none of which touches another.
fn joined(mut ranges: Vec<SlotRange>) -> Vec<SlotRange> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.first);
    let mut joined: Vec<SlotRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Gives up what so many runs before this one have asked for in vain.
///
/// # Errors
/// Those of the lake.
pub(crate) async fn give_up(context: &StepContext, table: &Table, of: &str, most: u32, findings: &Findings) -> Result<()> {
    let (name, lake) = (name(table, of), context.lake.as_ref());
    let mut tried = Tried::read(lake, &name).await?;
    if tried.0.is_empty() {
        return Ok(());
    }
    let due = tried.take_due(findings, most, &context.run);
    let grid = table.identity().grid();
    let mut parts = Vec::with_capacity(due.len());
    for (key, slots) in due.iter() {
        let interval = grid.interval_of(slots).ok_or_else(|| Error::invalid("a slot is out of the range of instants"))?;
        parts.push(Part { key: Some(key.clone()), interval: Some(interval), ..Part::of_run(GIVEN_UP) });
    }
    // The decision comes first: if the count is not written afterwards, the same is decided again, under the same name.
    for parts in parts.chunks(MAX_PARTS) {
        let text = to_json(&(&context.run, &context.step, &table.name, parts))?;
        let hash = blake3::hash(text.as_bytes()).to_hex();
        let record = Retraction {
            id: in_place_of_people(hash.get(..16).unwrap_or_default()),
            parts: parts.to_vec(),
            undoes: None,
            at: context.clock.now(),
            by: format!("{}/{}", context.run, context.step),
            reason: format!("{most} {} asked for it in vain", if most == 1 { "run has" } else { "runs have" }),
        };
        lake.retract(table, &record).await?;
        let (slots, id) = (due.missing(), &record.id);
        tracing::warn!(step = &*context.step, table = table.name, slots, id, "slots are given up, since runs have asked for them in vain");
    }
    tried.write(lake, &name).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cadence, Counts, Interval, Scope, Usage};
    use crate::testing::MemoryLake;

    fn table() -> Table {
        Table { key: vec!["symbol".into()], cadence: Some(Cadence::MINUTE), ..Table::implicit("bars", "ts") }
    }

    /// Findings of an hour in which these minutes are missing.
    fn findings(missing: &[(&str, i64, i64)]) -> Findings {
        let grid = table().grid().unwrap();
        let interval = Interval::parse("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z").unwrap();
        let keys = vec![Key::from("A"), Key::from("B")];
        let scope = Scope { table: "bars".into(), grid, keys, interval, calendar: String::new(), lifetimes: Default::default() };
        let mut gaps = GapList::default();
        missing.iter().for_each(|(key, first, end)| gaps.push(&Key::from(*key), SlotRange::new(*first, *end)));
        Findings::of_gaps(scope, Counts::default(), gaps, Usage::default())
    }

    fn count(tried: &mut Tried, run: &str, asked: &[(&str, i64, i64)]) {
        let run: Arc<str> = run.into();
        asked.iter().for_each(|(key, first, end)| tried.count(&Key::from(*key), &[SlotRange::new(*first, *end)], &run));
    }

    fn due(tried: &mut Tried, run: &str, most: u32, missing: &[(&str, i64, i64)]) -> Vec<(String, i64, i64)> {
        let due = tried.take_due(&findings(missing), most, run);
        due.iter().map(|(key, slots)| (key.to_string(), slots.first, slots.end)).collect()
    }

    fn one(key: &str, first: i64, end: i64) -> (String, i64, i64) {
        (key.to_owned(), first, end)
    }

    #[test]
    fn a_run_counts_once_and_only_what_is_still_wrong_becomes_due() {
        let mut tried = Tried::default();
        for run in ["one", "one", "two"] {
            count(&mut tried, run, &[("A", 0, 10), ("B", 5, 6)]);
        }
        count(&mut tried, "two", &[("A", 8, 12), ("A", 70, 80)]);
        // The run that asks now does not count for itself.
        assert_eq!(due(&mut tried, "two", 2, &[("A", 0, 12), ("B", 5, 6)]), []);
        // Of what both asked for, a part was repaired meanwhile, and B as a whole.
        assert_eq!(due(&mut tried, "three", 2, &[("A", 2, 5), ("A", 9, 12)]), [one("A", 2, 5), one("A", 9, 10)]);
        // What was given up or repaired is forgotten, and what was not examined stays.
        let left: Vec<(i64, i64, u32)> = tried.0[&Key::from("A")].iter().map(|of| (of.slots.first, of.slots.end, of.runs)).collect();
        assert_eq!((left, tried.0.len()), (vec![(10, 12, 1), (70, 80, 1)], 1));
        // After somebody has lifted that, it takes as many runs again.
        count(&mut tried, "three", &[("A", 2, 5)]);
        assert_eq!(due(&mut tried, "four", 2, &[("A", 2, 5)]), []);
        count(&mut tried, "four", &[("A", 2, 5)]);
        assert_eq!(due(&mut tried, "five", 2, &[("A", 2, 5)]), [one("A", 2, 5)]);
    }

    #[tokio::test]
    async fn counts_come_back_as_they_were_and_damaged_ones_begin_anew() {
        let (lake, mut tried) = (MemoryLake::default(), Tried::default());
        assert_eq!(Tried::read(&lake, "x").await.unwrap(), tried);
        count(&mut tried, "one", &[("A", 0, 10), ("B", -7, -5)]);
        count(&mut tried, "two", &[("A", 3, 4)]);
        tried.write(&lake, "x").await.unwrap();
        assert_eq!(Tried::read(&lake, "x").await.unwrap(), tried);
        let odd = RecordBatch::try_from_iter([(KEY, Arc::new(StringArray::from(vec!["A"])) as ArrayRef)]).unwrap();
        lake.put_artifact(RUN, "x", stream::iter([Ok(odd)]).boxed()).await.unwrap();
        assert_eq!(Tried::read(&lake, "x").await.unwrap(), Tried::default());
    }
}
