//! Compares the slots next to gaps: the table's rows there with the source's. A source that counts the trades of a missing minute into the
//! minute before it disagrees with the table there, and filling the gap alone would count those trades twice.
//!
//! The table's rows stay as they are. A difference is only reported, as a conflict.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, filter_record_batch, take};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;

use crate::builtin::repair::judge::{Question, times};
use crate::error::{ErrorKind, Result};
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, ScanRequest, overlay, rollup, shape};
use crate::model::{Conflicts, Findings, Key, SlotGrid, SlotRange, SlotSet, Table, Wanted};
use crate::plugin::{Answer, StepContext};

/// How many slots one step compares, at 24 bytes each and their rows. Slots next to later gaps are not compared, and such gaps are
/// counted.
const MOST_COMPARED: usize = 1 << 18;

/// The position of a row: the batch, and the row in it.
type Place = (usize, usize);

/// A slot next to a gap.
#[derive(Clone, Copy)]
struct Neighbour {
    slot: i64,
    /// Its row, if the table has exactly one.
    row: Row,
    /// Whether the gap is after it; if it is between two gaps, the later one counts, so that only one unit compares it.
    is_before: bool,
}

impl Neighbour {
    /// The missing slot next to it.
    fn gap(&self) -> i64 {
        if self.is_before { self.slot + 1 } else { self.slot - 1 }
    }
}

#[derive(Clone, Copy)]
enum Row {
    None,
    /// The number of the batch, and that of the row in it.
    One(u32, u32),
    /// The slot has several rows, and which one counts is unknown.
    Several,
}

impl Row {
    fn one((batch, row): Place) -> Self {
        u32::try_from(batch).and_then(|batch| Ok(Self::One(batch, u32::try_from(row)?))).unwrap_or(Self::Several)
    }
}

/// The slots next to the gaps of a key, in order, each once.
type OfKey = Vec<Neighbour>;

/// Finds slots among items in order of theirs, quickly if those that are sought come in order, too.
#[derive(Default)]
struct Cursor(usize);

impl Cursor {
    fn find<'a, T>(&mut self, items: &'a mut [T], slot: i64, of: impl Fn(&T) -> i64) -> Option<&'a mut T> {
        /// So many steps take about as long as a search.
        const STEPS: usize = 8;
        let is_before = |at: usize| items.get(at).is_some_and(|item| of(item) < slot);
        let is_behind = self.0.checked_sub(1).is_some_and(|last| !is_before(last));
        self.0 = match (self.0..self.0 + STEPS).find(|at| !is_before(*at)) {
            Some(at) if !is_behind => at,
            _ => items.partition_point(|item| of(item) < slot),
        };
        items.get_mut(self.0).filter(|item| of(item) == slot)
    }
}

/// A slot that is compared.
struct Pair {
    slot: i64,
    own: Place,
    theirs: Option<Place>,
}

/// The table's own rows next to the gaps that a step repairs.
pub(super) struct Neighbours {
    by_key: HashMap<Key, OfKey>,
    rows: Vec<RecordBatch>,
    /// The first gap, in the order of keys and slots, from which on nothing is compared; none if everything is.
    left: Option<(Key, i64)>,
}

impl Neighbours {
    /// Reads the rows, in one scan from the first gap to the last, for all units of a step.
    pub(super) async fn read(context: &StepContext, table: &Table, findings: &Findings) -> Result<Self> {
        let grid = findings.scope.grid;
        let mut neighbours = Self::beside(findings, MOST_COMPARED);
        let hull = findings.gaps.hull().map(|hull| SlotRange::new(hull.first - 1, hull.end + 1));
        let Some(interval) = hull.and_then(|hull| grid.interval_of(hull)) else { return Ok(neighbours) };
        let mut keys: Vec<Key> = neighbours.by_key.keys().cloned().collect();
        keys.sort_unstable();
        // A row that a repair replaces or removes is not what readers see, and the repair is none of the table's own rows.
        let scan = ScanRequest::new(Layer::Repaired).in_interval(interval).of_keys(keys);
        let mut batches = match context.lake.scan(table, &scan).await {
            Ok(batches) => batches,
            // A table without files has nothing to compare.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(neighbours),
            Err(error) => return Err(error),
        };
        while let Some(batch) = batches.try_next().await? {
            context.check_cancelled()?;
            neighbours.keep(table, grid, &batch)?;
        }
        Ok(neighbours)
    }

    fn beside(findings: &Findings, most: usize) -> Self {
        let mut by_key: HashMap<Key, OfKey> = HashMap::new();
        let (mut count, mut left) = (0, None);
        for (key, gap) in findings.gaps.iter() {
            if count >= most {
                tracing::warn!(slots = count, "there are too many gaps to compare all slots next to them with the source");
                left = Some((key.clone(), gap.first));
                break;
            }
            let slots = by_key.entry(key.clone()).or_default();
            for (slot, is_before) in [(gap.first - 1, true), (gap.end, false)] {
                let neighbour = Neighbour { slot, row: Row::None, is_before };
                match slots.last_mut() {
                    Some(last) if last.slot == slot => *last = neighbour,
                    _ => {
                        slots.push(neighbour);
                        count += 1;
                    }
                }
            }
        }
        // Gaps are in order and apart. Should any touch, the slots between them are none of the table's.
        for slots in by_key.values_mut().filter(|slots| !slots.is_sorted_by(|one, next| one.slot < next.slot)) {
            slots.sort_by_key(|neighbour| neighbour.slot);
            slots.dedup_by_key(|neighbour| neighbour.slot);
        }
        by_key.values_mut().for_each(Vec::shrink_to_fit);
        Self { by_key, rows: Vec::new(), left }
    }

    fn keep(&mut self, table: &Table, grid: SlotGrid, batch: &RecordBatch) -> Result<()> {
        let rows = KeyTime { keys: rollup::key_columns(table, batch)?, times: times(table, batch)? };
        let repaired_by = rollup::column(batch, overlay::REPAIRED_BY)?;
        let (index, mut kept) = (self.rows.len(), 0);
        let mut wanted = BooleanBufferBuilder::new(batch.num_rows());
        for run in rows.runs() {
            let Some(of_key) = self.by_key.get_mut(&rows.key(run.start)) else {
                wanted.append_n(run.len(), false);
                continue;
            };
            let mut cursor = Cursor::default();
            for row in run {
                let slot = grid.slot_of_row(rows.times.value(row)).filter(|_| rows.times.is_valid(row) && repaired_by.is_null(row));
                let neighbour = slot.and_then(|slot| cursor.find(of_key, slot, |neighbour| neighbour.slot));
                wanted.append(neighbour.is_some());
                if let Some(neighbour) = neighbour {
                    neighbour.row = if matches!(neighbour.row, Row::None) { Row::one((index, kept)) } else { Row::Several };
                    kept += 1;
                }
            }
        }
        if kept > 0 {
            self.rows.push(filter_record_batch(batch, &BooleanArray::new(wanted.finish(), None))?);
        }
        Ok(())
    }

    /// Where a plausible answer differs from the table next to the gaps of a unit.
    pub(super) fn conflicts(&self, question: &Question<'_>, wanted: &[Wanted], answer: &Answer) -> Result<Conflicts> {
        let mut compared: BTreeMap<&Key, Vec<Pair>> = BTreeMap::new();
        for of_key in wanted {
            let Some(slots) = self.by_key.get(&of_key.key) else { continue };
            let mut gaps = SlotSet::new(question.grid.cadence(), question.slots);
            of_key.slots.iter().for_each(|&gap| gaps.insert_range(gap));
            let first = slots.partition_point(|neighbour| neighbour.slot < question.slots.first);
            for neighbour in slots.iter().skip(first).take_while(|neighbour| neighbour.slot < question.slots.end) {
                if let Row::One(batch, row) = neighbour.row
                    && gaps.contains(neighbour.gap())
                {
                    let own = (batch as usize, row as usize);
                    compared.entry(&of_key.key).or_default().push(Pair { slot: neighbour.slot, own, theirs: None });
                }
            }
        }
        // A key may be wanted more than once.
        for pairs in compared.values_mut() {
            pairs.sort_by_key(|pair| pair.slot);
            pairs.dedup_by_key(|pair| pair.slot);
        }
        let mut conflicts = Conflicts { not_compared: self.not_compared(wanted), ..Conflicts::default() };
        if compared.is_empty() {
            return Ok(conflicts);
        }
        for (index, batch) in answer.rows.iter().enumerate() {
            let rows = KeyTime { keys: rollup::key_columns(question.table, batch)?, times: times(question.table, batch)? };
            for run in rows.runs() {
                let Some(pairs) = compared.get_mut(&rows.key(run.start)) else { continue };
                let mut cursor = Cursor::default();
                for row in run {
                    if let Some(pair) = cursor.find(pairs, question.grid.slot_of_us(rows.times.value(row)), |pair| pair.slot) {
                        pair.theirs = Some((index, row));
                    }
                }
            }
        }
        let pairs = compared.values().flatten().filter_map(|pair| Some((pair.own, pair.theirs?)));
        let mut same = self.are_same(question.table, answer, &pairs.collect::<Vec<_>>()).into_iter();
        for (key, slots) in compared {
            for Pair { slot, own, theirs } in slots {
                let differs = match theirs {
                    Some(_) if same.next() == Some(true) => None,
                    Some(theirs) => self.difference(question.table, own, (answer, theirs)),
                    None => {
                        let start = question.grid.start_of(slot);
                        let vouched = answer.covered.iter().any(|covered| covered.key == *key && covered.interval.contains(start));
                        vouched.then(|| "the table has a row, but the source says that there is none".to_owned())
                    }
                };
                if let Some(differs) = differs {
                    conflicts.add(format!("{key} at {}: {differs}", question.grid.time_of(slot)));
                }
            }
        }
        Ok(conflicts)
    }

    /// Whether rows are surely the same, in the order of the pairs. All of one batch of each side are compared at once; those that are not
    /// surely the same have to be compared one by one.
    fn are_same(&self, table: &Table, answer: &Answer, pairs: &[(Place, Place)]) -> Vec<bool> {
        let mut same = vec![false; pairs.len()];
        let mut by_batches: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (pair, (own, theirs)) in pairs.iter().enumerate() {
            by_batches.entry((own.0, theirs.0)).or_default().push(pair);
        }
        for ((own, theirs), of_both) in by_batches {
            let (Some(batch), Some(other)) = (self.rows.get(own), answer.rows.get(theirs)) else { continue };
            let rows = |of: fn(&(Place, Place)) -> usize| {
                UInt64Array::from_iter_values(of_both.iter().filter_map(|pair| pairs.get(*pair)).map(|pair| of(pair) as u64))
            };
            let (ours, others) = (rows(|pair| pair.0.1), rows(|pair| pair.1.1));
            let mut all = BooleanBuffer::new_set(of_both.len());
            for (column, column_of_other, _) in compared_columns(table, batch, other) {
                let (Ok(ours), Ok(others)) = (take(column, &ours, None), take(column_of_other, &others, None)) else {
                    all = BooleanBuffer::new_unset(of_both.len());
                    break;
                };
                all = &all & &same_values(&ours, &others);
            }
            of_both.iter().zip(&all).for_each(|(pair, is_same)| same[*pair] = is_same);
        }
        same
    }

    /// How many of the gaps that are wanted are past those next to which slots are compared.
    fn not_compared(&self, wanted: &[Wanted]) -> u64 {
        let Some((key, first)) = &self.left else { return 0 };
        let gaps = wanted.iter().flat_map(|of_key| of_key.slots.iter().map(move |gap| (&of_key.key, &gap.first)));
        gaps.filter(|gap| *gap >= (key, first)).count() as u64
    }

    /// The columns in which two rows differ, with their values; none if they are equal.
    fn difference(&self, table: &Table, own: Place, (answer, theirs): (&Answer, Place)) -> Option<String> {
        let (batch, other) = (self.rows.get(own.0)?, answer.rows.get(theirs.0)?);
        let mut differences = Vec::new();
        for (column, column_of_other, name) in compared_columns(table, batch, other) {
            let (ours, others) = (column.slice(own.1, 1), column_of_other.slice(theirs.1, 1));
            if !same_values(&ours, &others).value(0) {
                differences.push(format!("{name} is {} in the table, {} in the source", text(&ours), text(&others)));
            }
        }
        (!differences.is_empty()).then(|| differences.join(", "))
    }
}

/// The columns of values that a row of the table and one of a source both have, and their names.
fn compared_columns<'a>(
    table: &'a Table,
    batch: &'a RecordBatch,
    other: &'a RecordBatch,
) -> impl Iterator<Item = (&'a ArrayRef, &'a ArrayRef, &'a str)> {
    let columns = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).zip(batch.columns());
    let values = columns.filter(|(name, _)| *name != table.time && !table.key.iter().any(|key| key == name));
    values.filter_map(|(name, column)| Some((column, shape::find_column(other, name).ok().flatten()?, name)))
}

/// Which values are equal at the precision of both types: a column of 32-bit floats cannot hold every 64-bit value. A whole number equals
/// no fraction. Values that cannot be compared count as equal.
fn same_values(one: &ArrayRef, other: &ArrayRef) -> BooleanBuffer {
    let equal = |a: &ArrayRef, b: &ArrayRef| shape::same_values(a, b).ok();
    let is_whole = |kind: &DataType| kind.is_integer() || *kind == DataType::Boolean;
    let cast_equal = |a: &ArrayRef, b: &ArrayRef| {
        let loses = is_whole(a.data_type()) && !is_whole(b.data_type()) && b.data_type().is_numeric();
        if loses { None } else { cast(b, a.data_type()).ok().and_then(|b| equal(a, &b)) }
    };
    match (cast_equal(one, other), cast_equal(other, one)) {
        (Some(one), Some(other)) => &one | &other,
        (Some(same), None) | (None, Some(same)) => same,
        (None, None) => BooleanBuffer::new_set(one.len()),
    }
}

fn text(value: &ArrayRef) -> String {
    if value.is_null(0) {
        return "null".to_owned();
    }
    array_value_to_string(value, 0).unwrap_or_else(|_| "a value that cannot be shown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cadence, Counts, GapList, Scope, TimeMark, Usage};

    #[test]
    fn a_cursor_finds_slots_in_any_order() {
        let mut items: Vec<i64> = (0..100).map(|number| number * number % 7 + number * 3).collect();
        items.sort_unstable();
        items.dedup();
        let mut cursor = Cursor::default();
        let mut state = 7i64;
        for turn in 0..5_000 {
            state = (state * 48_271) % 2_147_483_647;
            let slot = if turn % 3 == 0 { state % 320 - 5 } else { turn / 20 };
            let expected = items.binary_search(&slot).ok().map(|at| items[at]);
            assert_eq!(cursor.find(&mut items, slot, |item| *item).copied(), expected, "{slot}");
        }
        assert!(cursor.find(&mut Vec::<i64>::new(), 5, |item| *item).is_none());
    }

    #[test]
    fn a_slot_next_to_a_gap_takes_24_bytes() {
        assert_eq!(std::mem::size_of::<Neighbour>(), 24);
    }

    #[test]
    fn gaps_past_the_limit_are_counted_as_not_compared() {
        let grid = SlotGrid::new(Cadence::MINUTE, TimeMark::Start);
        let (a, b) = (Key::from("a"), Key::from("b"));
        let gaps = [(&a, SlotRange::new(10, 12)), (&a, SlotRange::new(20, 21)), (&b, SlotRange::new(10, 12)), (&b, SlotRange::new(30, 40))];
        let mut list = GapList::default();
        gaps.iter().for_each(|(key, gap)| list.push(key, *gap));
        let scope = Scope {
            table: "readings".into(),
            grid,
            keys: vec![a.clone(), b.clone()],
            interval: grid.interval_of(SlotRange::new(0, 100)).unwrap(),
            calendar: "24x7".into(),
            lifetimes: Default::default(),
        };
        let findings = Findings::of_gaps(scope, Counts::default(), list, Usage::default());
        let wanted: Vec<Wanted> = gaps.iter().map(|(key, gap)| Wanted { key: (*key).clone(), slots: vec![*gap] }).collect();
        for (most, left) in [(1 << 18, 0), (8, 0), (6, 1), (5, 1), (4, 2), (1, 3), (0, 4)] {
            let neighbours = Neighbours::beside(&findings, most);
            assert_eq!(neighbours.not_compared(&wanted), left, "{most} slots are compared");
        }
        // Half of a gap that one request could not cover counts once, and what is compared does not count.
        let neighbours = Neighbours::beside(&findings, 6);
        assert_eq!(neighbours.not_compared(&[Wanted { key: b, slots: vec![SlotRange::new(35, 40)] }]), 1);
        assert_eq!(neighbours.not_compared(&[Wanted { key: a, slots: vec![SlotRange::new(10, 21)] }]), 0);
    }
}
