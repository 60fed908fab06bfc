//! Examines one window of a table: its rows, the live repairs, and how the rules judge both.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use crate::builtin::detect::expected::{Examined, blind_if_missing};
use crate::builtin::detect::invalid::rule::{Bound, Breach, Broken, NEW_LEVEL, Rule};
use crate::builtin::detect::invalid::series;
use crate::builtin::detect::invalid::series::Point;
use crate::builtin::detect::invalid::value::{Median, Value, Values};
use crate::error::{Error, Result};
use crate::lake::overlay::fingerprint::{Hashing, RowHash, RowHashes, of_hashes};
use crate::lake::overlay::live::{Live, LiveRepairs};
use crate::lake::overlay::patch::Patched;
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, ScanRequest};
use crate::model::MAX_EXAMPLES;
use crate::model::Usage;
use crate::model::{BadCells, Cells, Findings, Fingerprints, GapList, Key, SlotGrid, SlotRange, Table};
use crate::plugin::StepContext;

/// What is the same for all windows of a step.
pub(super) struct Examination<'a> {
    pub(super) context: &'a StepContext,
    pub(super) table: &'a Table,
    pub(super) grid: SlotGrid,
    /// The rules as written, and the same for the table's columns.
    pub(super) rules: (&'a [Rule], &'a [Rule]),
    /// The columns that the rules blame, each of which is one bit of a row's wrong cells.
    pub(super) blamed: &'a [String],
    /// The columns that the rules read or blame.
    pub(super) columns: &'a [String],
    /// Whether the table has more columns.
    pub(super) has_others: bool,
    pub(super) examined: &'a Examined<'a>,
    /// The findings that are looked at again.
    pub(super) before: Option<&'a Findings>,
}

/// The findings so far.
#[derive(Default)]
pub(super) struct Found {
    wrong: BTreeMap<Key, Vec<i64>>,
    pub(super) judged: Fingerprints,
    pub(super) cells: Cells,
    /// Descriptions of the first few.
    pub(super) examples: Vec<String>,
    pub(super) replaced: u64,
    pub(super) patched: u64,
    /// The slots of those that are replaced or patched.
    pub(super) standing: Vec<(Key, i64)>,
    pub(super) changed: u64,
    pub(super) overtaken: u64,
    /// Slots that a rule could not judge, and descriptions of the first few.
    pub(super) unjudged: u64,
    pub(super) unjudged_examples: Vec<String>,
    /// For each rule whose `max` is far from the values of some keys, these with their medians.
    far: BTreeMap<usize, BTreeMap<Key, f64>>,
    pub(super) usage: Usage,
}

/// How many slots that could not be judged are named.
const MOST_NAMED: usize = 3;

/// A bound of more than this many medians is far from a key's values.
const FAR: f64 = 10.0;

impl Found {
    /// The invalid slots.
    pub(super) fn gaps(&self) -> GapList {
        let mut gaps = GapList::default();
        for (key, slots) in &self.wrong {
            slots.iter().for_each(|&slot| gaps.push(key, SlotRange::new(slot, slot + 1)));
        }
        gaps
    }
}

/// The table's rows of one key, in order of time.
#[derive(Default)]
struct Rows {
    /// For each row: its slot and time, the index of its `values`, and that of what is odd about it.
    rows: Vec<(i64, i64, u32, Option<u32>)>,
    /// For each row, its value in the column of each neighbour rule; NaN where it has none.
    values: Vec<f64>,
    /// The values that no float holds, by their place in `values`.
    exact: HashMap<usize, Value>,
    /// For each neighbour rule, whether its column holds whole numbers.
    are_whole: Vec<bool>,
    odd: Vec<Odd>,
}

/// What is odd about a row.
#[derive(Default)]
struct Odd {
    /// The row rules that it breaks, with its repaired cells.
    broken: Broken,
    /// Its repaired cells.
    fixed: u128,
    /// Whether patches of it no longer hold.
    changed: bool,
    /// Whether it has other values than those that were repaired.
    overtaken: bool,
    /// Its values for neighbour rules with its repaired cells; empty if it has none.
    shown: Vec<Option<Value>>,
}

/// The rows of repairs, by batch and row: what is wrong with each, and its values for neighbour rules.
struct Shown {
    broken: Vec<Vec<Broken>>,
    values: Vec<Vec<Option<Values>>>,
}

/// The table's rows in one slot.
#[derive(Default)]
struct OfSlot<'a> {
    rows: u32,
    broken: Broken,
    fixed: u128,
    changed: bool,
    overtaken: bool,
    /// The index of the values of the first.
    first: Option<usize>,
    /// Its values with repaired cells.
    shown: Option<&'a [Option<Value>]>,
}

/// How the rules judge a slot.
struct Verdict<'a> {
    slot: i64,
    /// What is wrong with the table's own rows; `None` if there is no row.
    own: Option<Broken>,
    /// Whether cells of the table's own row are repaired.
    is_patched: bool,
    /// Whether repairs of cells no longer hold.
    has_changed: bool,
    /// Whether the table has other values than those that were repaired.
    is_overtaken: bool,
    /// The repair of the slot, and what is wrong with its row.
    repair: Option<(&'a Live, Broken)>,
}

/// A row that is wrong.
#[derive(Clone, Copy)]
enum Culprit<'a> {
    Own(Broken),
    Repair(&'a Live, Broken),
}

impl<'a> Verdict<'a> {
    /// Whether the slot counts for the findings.
    fn matters(&self) -> bool {
        let replaced = self.repair.is_some_and(|(live, _)| live.replaces);
        let is_wrong = |broken: Broken| broken.is_wrong();
        replaced
            || self.is_patched
            || self.has_changed
            || self.is_overtaken
            || self.own.is_some_and(is_wrong)
            || (self.own.is_none() && self.repair.is_some_and(|(_, broken)| is_wrong(broken)))
    }

    /// Whether a rule could not judge what readers see there, and no other finds it wrong.
    fn is_open(&self) -> bool {
        let shown = match (self.repair, self.own) {
            (Some((live, broken)), _) if live.replaces => Some(broken),
            (_, Some(own)) => Some(own),
            (repair, None) => repair.map(|(_, broken)| broken),
        };
        shown.is_some_and(|broken| broken.open.is_some() && !broken.is_wrong())
    }

    /// Whether the rows of the slot must be read in full.
    fn needs_all(&self) -> bool {
        self.repair.is_some_and(|(live, _)| live.replaces) || self.culprit(true).is_some_and(|culprit| culprit.broken().whole)
    }

    /// The row that is wrong, if one is; `has_changed` is whether the table's rows are not those that a repair replaced.
    fn culprit(&self, has_changed: bool) -> Option<Culprit<'a>> {
        let own = self.own.filter(|broken| broken.is_wrong()).map(Culprit::Own);
        let repair = |live, broken: Broken| Some(Culprit::Repair(live, broken)).filter(|_| broken.is_wrong());
        match self.repair {
            // A cell of a row that is not shown cannot be repaired.
            Some((live, broken)) if live.replaces => repair(live, broken).or(own.filter(|_| has_changed).map(Culprit::as_whole)),
            Some((live, broken)) if self.own.is_none() => repair(live, broken),
            _ => own,
        }
    }
}

impl Culprit<'_> {
    fn as_whole(self) -> Self {
        match self {
            Self::Own(broken) => Self::Own(Broken { whole: true, ..broken }),
            Self::Repair(live, broken) => Self::Repair(live, Broken { whole: true, ..broken }),
        }
    }

    fn broken(self) -> Broken {
        match self {
            Self::Own(broken) | Self::Repair(_, broken) => broken,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Own(_) => "its row",
            Self::Repair(..) => "its repair",
        }
    }
}

/// The hashes of cells of the table's own rows.
#[derive(Default)]
struct CellHashes(BTreeMap<Key, BTreeMap<i64, Vec<RowHash>>>);

impl Examination<'_> {
    /// Examines a window of slots of some keys.
    pub(super) async fn examine(&self, window: SlotRange, keys: &[Key], found: &mut Found) -> Result<()> {
        let reach = self.rules.0.iter().map(Rule::reach).max().unwrap_or(0);
        let wide = SlotRange::new(window.first.saturating_sub(reach), window.end.saturating_add(reach));
        let interval = self.grid.interval_of(wide).ok_or_else(|| Error::invalid("the time of a slot is out of range"))?;
        let live = LiveRepairs::read(self.context.lake.as_ref(), self.table, interval, keys, self.columns).await?;
        let shown = self.shown(&live)?;
        let scan =
            |columns: Option<Vec<String>>| ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys.to_vec()).with_columns(columns);
        let some = Some(self.columns.to_vec());
        let mut needed = None;
        if self.has_others {
            let (rows, _) = self.read(&scan(some.clone()), false, &live, found).await?;
            self.far_bounds(keys, &rows, found);
            let (mut matters, mut needs_all) = (false, false);
            for key in keys {
                for verdict in self.verdicts(key, window, &rows, &live, &shown) {
                    matters |= verdict.matters();
                    needs_all |= verdict.needs_all();
                    self.count_open(key, &verdict, found);
                }
            }
            if !matters {
                return Ok(());
            }
            needed = some.filter(|_| !needs_all);
        }
        // Reads what is needed to identify the wrong rows, and judges again, because the rows may have changed in between.
        let (rows, batches) = self.read(&scan(needed.clone()), true, &live, found).await?;
        if !self.has_others {
            self.far_bounds(keys, &rows, found);
        }
        let verdicts: Vec<(&Key, Vec<Verdict<'_>>)> = keys
            .iter()
            .map(|key| {
                let mut verdicts = self.verdicts(key, window, &rows, &live, &shown);
                if !self.has_others {
                    verdicts.iter().for_each(|verdict| self.count_open(key, verdict, found));
                }
                verdicts.retain(Verdict::matters);
                (key, verdicts)
            })
            .collect();
        if needed.is_some() && verdicts.iter().flat_map(|(_, verdicts)| verdicts).any(Verdict::needs_all) {
            return Err(Error::new(
                crate::error::ErrorKind::Transient,
                format!("table `{}` changed while it was examined; run the step again", self.table.name),
            ));
        }
        let mut hashing = Hashing::default();
        let whole: BTreeMap<&Key, BTreeSet<i64>> = verdicts
            .iter()
            .map(|(key, verdicts)| (*key, verdicts.iter().filter(|verdict| verdict.needs_all()).map(|verdict| verdict.slot).collect()))
            .collect();
        let mut of_cells: BTreeMap<&Key, BTreeMap<i64, u128>> = BTreeMap::new();
        for (key, verdicts) in &verdicts {
            let cells = verdicts.iter().filter_map(|verdict| match verdict.culprit(true)? {
                Culprit::Own(broken) if !broken.whole => Some((verdict.slot, broken.cells)),
                _ => None,
            });
            of_cells.insert(key, cells.collect());
        }
        let mut lists = Lists { blamed: self.blamed, known: HashMap::new() };
        let mut cells = CellHashes::default();
        for batch in &batches {
            if needed.is_none() {
                hashing.add(self.table, self.grid, batch, |key, slot| whole.get(key).is_some_and(|slots| slots.contains(&slot)))?;
            }
            self.hash_cells(batch, &of_cells, &mut lists, &mut cells)?;
        }
        for (key, verdicts) in verdicts {
            for verdict in &verdicts {
                self.settle(found, (key, verdict), &live, &mut hashing, (&cells, &mut lists))?;
            }
        }
        Ok(())
    }

    /// Counts a slot that a rule could not judge.
    fn count_open(&self, key: &Key, verdict: &Verdict<'_>, found: &mut Found) {
        if !verdict.is_open() {
            return;
        }
        found.unjudged += 1;
        if found.unjudged_examples.len() < MOST_NAMED {
            found.unjudged_examples.push(format!("{key} at {}", self.grid.time_of(verdict.slot)));
        }
    }

    /// What is wrong with a row, where a rule that found it wrong before can no longer judge it: that proves nothing.
    fn held(&self, key: &Key, slot: i64, mut broken: Broken) -> Broken {
        let (Some(open), Some(before)) = (broken.open, self.before) else { return broken };
        let is_blamed = |name: &String| self.blamed.iter().position(|blamed| blamed == name).is_some_and(|at| open.cells >> at & 1 == 1);
        let was_wrong = match before.cells.get(key, slot) {
            Some(cells) => cells.columns.iter().any(is_blamed),
            None => before.gaps.contains(key, slot),
        };
        if was_wrong {
            broken.add(open);
        }
        broken
    }

    /// Notes keys whose values are far below a bound that is the same for all keys, so that it would find little of what is wrong with them.
    fn far_bounds(&self, keys: &[Key], rows: &BTreeMap<Key, Rows>, found: &mut Found) {
        let of_rules = self.among_neighbours().count();
        for (index, (number, rule)) in self.among_neighbours().enumerate() {
            let Some(max) = rule.max.as_ref().and_then(Bound::number) else { continue };
            for key in keys {
                let Some(of_key) = rows.get(key) else { continue };
                let values = (index..of_key.values.len()).step_by(of_rules.max(1)).map(|at| of_key.value(at));
                let points: Vec<Point> =
                    values.map(|value| value.filter(|value| value.is_finite())).map(|own| Point { slot: 0, own, shown: own }).collect();
                if let Some(median) = series::usual(&points).map(Median::as_float).filter(|median| *median > 0.0 && max > FAR * median) {
                    found.far.entry(number).or_default().insert(key.clone(), median);
                }
            }
        }
    }

    /// What is to be said about bounds that are far from the values of some keys.
    pub(super) fn notices(&self, found: &Found) -> Vec<String> {
        let notice = |(number, far): (&usize, &BTreeMap<Key, f64>)| {
            let (rule, (key, median)) = (self.rules.0.get(*number)?, far.iter().min_by(|(_, one), (_, other)| one.total_cmp(other))?);
            let keys = if far.len() == 1 { "1 key".to_owned() } else { format!("{} keys", far.len()) };
            Some(format!(
                "`{rule}` allows more than {FAR} times the median of {keys}, such as {key} with a median of {median}, so it finds few wrong values \
                 there; write `max: {{ times_median: 5 }}` for a bound of each key's own"
            ))
        };
        found.far.iter().filter_map(notice).collect()
    }

    /// Hashes the wrong cells of rows.
    fn hash_cells(
        &self,
        batch: &RecordBatch,
        wanted: &BTreeMap<&Key, BTreeMap<i64, u128>>,
        lists: &mut Lists<'_>,
        into: &mut CellHashes,
    ) -> Result<()> {
        let places = KeyTime::of(self.table, batch)?;
        let mut rows: Vec<(u128, usize, Key, i64)> = Vec::new();
        for run in places.runs() {
            let key = places.key(run.start);
            let Some(slots) = wanted.get(&key).filter(|slots| !slots.is_empty()) else { continue };
            for row in run {
                let slot = self.grid.slot_of_row(places.times.value(row));
                if let Some((slot, cells)) = slot.and_then(|slot| Some((slot, *slots.get(&slot)?))) {
                    rows.push((cells, row, key.clone(), slot));
                }
            }
        }
        rows.sort_unstable_by_key(|row| row.0);
        for group in rows.chunk_by(|one, other| one.0 == other.0) {
            let Some(first) = group.first() else { continue };
            let columns = lists.of(first.0);
            let hashes = RowHashes::of_cells(batch, &columns)?;
            for (_, row, key, slot) in group {
                let hash = hashes.of_row(*row)?;
                into.0.entry(key.clone()).or_default().entry(*slot).or_default().push(hash);
            }
        }
        Ok(())
    }

    /// Adds the verdict on a slot to the findings, once it is known which rows were judged.
    fn settle(
        &self,
        found: &mut Found,
        (key, verdict): (&Key, &Verdict<'_>),
        live: &LiveRepairs,
        hashing: &mut Hashing,
        (cells, lists): (&CellHashes, &mut Lists<'_>),
    ) -> Result<()> {
        let slot = verdict.slot;
        let fingerprint = if verdict.needs_all() { Some(hashing.fingerprint(key, slot)) } else { None };
        let replaces = verdict.repair.filter(|(live, _)| live.replaces);
        let has_changed = replaces.is_some_and(|(live, _)| live.replaced != fingerprint);
        found.overtaken += u64::from(verdict.is_overtaken);
        let Some(culprit) = verdict.culprit(has_changed) else {
            let is_replaced = replaces.is_some_and(|(live, _)| !live.removes);
            let is_patched = replaces.is_none() && verdict.is_patched;
            found.replaced += u64::from(is_replaced);
            found.patched += u64::from(is_patched);
            found.standing.extend((is_replaced || is_patched).then(|| (key.clone(), slot)));
            found.changed += u64::from(has_changed || (replaces.is_none() && verdict.has_changed));
            return Ok(());
        };
        let broken = culprit.broken();
        if broken.whole {
            found.judged.insert(key, slot, fingerprint.unwrap_or_else(|| hashing.fingerprint(key, slot)));
        } else {
            let columns = lists.of(broken.cells);
            let judged = match culprit {
                Culprit::Own(_) => cells.0.get(key).and_then(|slots| slots.get(&slot)).map(|hashes| of_hashes(&mut hashes.clone())),
                Culprit::Repair(repair, _) => match live.batches().get(repair.batch) {
                    Some(batch) => Some(of_hashes(&mut [RowHashes::of_cells(batch, &columns)?.of_row(repair.row)?])),
                    None => None,
                },
            };
            let judged = judged.ok_or_else(|| Error::internal(format!("the cells of {key} in slot {slot} were not read")))?;
            found.cells.insert(key, slot, BadCells { columns, judged });
        }
        match found.wrong.get_mut(key) {
            Some(slots) => slots.push(slot),
            None => {
                found.wrong.insert(key.clone(), vec![slot]);
            }
        }
        if found.examples.len() < MAX_EXAMPLES
            && let Some(rule) = broken.rule.and_then(|rule| self.rules.0.get(rule as usize))
        {
            found.examples.push(format!("{key} at {}: {} breaks `{rule}`", self.grid.time_of(slot), culprit.what()));
        }
        Ok(())
    }

    async fn read(
        &self,
        request: &ScanRequest,
        keep: bool,
        live: &LiveRepairs,
        found: &mut Found,
    ) -> Result<(BTreeMap<Key, Rows>, Vec<RecordBatch>)> {
        let mut batches = self.context.lake.scan(self.table, request).await.map_err(blind_if_missing)?;
        let (mut rows, mut kept): (BTreeMap<Key, Rows>, _) = (BTreeMap::new(), Vec::new());
        while let Some(batch) = batches.try_next().await? {
            self.context.check_cancelled()?;
            found.usage.rows_read += batch.num_rows() as u64;
            self.add(&mut rows, live, &batch)?;
            if keep {
                kept.push(batch);
            }
        }
        rows.values_mut().for_each(|rows| rows.rows.sort_unstable_by_key(|row| (row.0, row.1)));
        Ok((rows, kept))
    }

    fn add(&self, all: &mut BTreeMap<Key, Rows>, live: &LiveRepairs, batch: &RecordBatch) -> Result<()> {
        let places = KeyTime::of(self.table, batch)?;
        let slot = |time_us: i64| self.grid.slot_of_seconds(time_us.div_euclid(1_000_000));
        let patched = live.patches().apply(self.table, batch, slot, |time_us| self.grid.slot_of_row(time_us).is_some())?;
        let patched = patched.as_ref();
        let broken = self.marked(patched.map_or(batch, |patched| &patched.rows))?;
        let values = self.values(batch)?;
        let shown = patched.map(|patched| self.values(&patched.rows)).transpose()?;
        let of_row =
            |values: &[Option<Values>], row| -> Vec<Option<Value>> { values.iter().map(|values| value(values.as_ref(), row)).collect() };
        for run in places.runs() {
            let rows = all.entry(places.key(run.start)).or_default();
            for row in run {
                let time_us = places.times.value(row);
                let Some(slot) = self.grid.slot_of_row(time_us) else { continue };
                let fixed = patched.map_or(0, |patched| self.fixed(patched, row));
                let changed = patched.is_some_and(|patched| patched.changed.contains(&row));
                let overtaken = patched.is_some_and(|patched| patched.overtaken.contains(&row));
                let odd = if broken[row].is_wrong() || broken[row].open.is_some() || fixed != 0 || changed || overtaken {
                    let shown = if fixed == 0 { Vec::new() } else { shown.as_deref().map(|shown| of_row(shown, row)).unwrap_or_default() };
                    rows.odd.push(Odd { broken: broken[row], fixed, changed, overtaken, shown });
                    u32::try_from(rows.odd.len() - 1).ok()
                } else {
                    None
                };
                let number = u32::try_from(rows.rows.len()).map_err(|_| Error::invalid("a key has too many rows in one window"))?;
                rows.rows.push((slot, time_us, number, odd));
                rows.push(values.iter().map(|values| value(values.as_ref(), row)));
            }
        }
        Ok(())
    }

    /// The repaired cells of a row.
    fn fixed(&self, patched: &Patched, row: usize) -> u128 {
        let cells = patched.cells.get(&row).into_iter().flatten();
        let bits = cells.map(|(column, _)| self.blamed.iter().position(|name| **name == **column).map_or(0, |at| 1u128 << at));
        bits.fold(0, |all, bit| all | bit)
    }

    /// What a breach of a rule means.
    fn breach(&self, number: usize, rule: &Rule) -> Breach {
        let bit = |name: &String| self.blamed.iter().position(|blamed| blamed == name).map_or(0, |at| 1u128 << at);
        Breach { rule: u32::try_from(number).unwrap_or(u32::MAX), cells: rule.blamed().iter().map(bit).fold(0, |all, bit| all | bit) }
    }

    fn marked(&self, batch: &RecordBatch) -> Result<Vec<Broken>> {
        let mut broken = vec![Broken::default(); batch.num_rows()];
        let rules = self.rules.1.iter().enumerate();
        rules.clone().try_for_each(|(number, rule)| rule.mark(batch, self.breach(number, rule), &mut broken))?;
        Ok(broken)
    }

    /// The rules that need the values of their column, each with its number.
    fn among_neighbours(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.rules.1.iter().enumerate().filter(|(_, rule)| rule.needs_values())
    }

    fn values(&self, batch: &RecordBatch) -> Result<Vec<Option<Values>>> {
        let named = self.among_neighbours().filter_map(|(_, rule)| rule.column.as_deref());
        named.map(|name| batch.column_by_name(name).map(|column| Values::of(name, column)).transpose()).collect()
    }

    fn shown(&self, live: &LiveRepairs) -> Result<Shown> {
        let mut shown = Shown { broken: Vec::new(), values: Vec::new() };
        let slot = |time_us: i64| self.grid.slot_of_us(time_us);
        for batch in live.batches() {
            let patched = live.patches().apply(self.table, batch, slot, |_| true)?.map(|patched| patched.rows);
            let batch = patched.as_ref().unwrap_or(batch);
            shown.broken.push(self.marked(batch)?);
            shown.values.push(self.values(batch)?);
        }
        Ok(shown)
    }

    /// How the rules judge the examined slots of a key.
    fn verdicts<'a>(
        &self,
        key: &Key,
        window: SlotRange,
        rows: &BTreeMap<Key, Rows>,
        live: &'a LiveRepairs,
        shown: &Shown,
    ) -> Vec<Verdict<'a>> {
        let nothing = Rows::default();
        let rows = rows.get(key).unwrap_or(&nothing);
        let of_rules = self.among_neighbours().count();
        let mut slots: BTreeMap<i64, OfSlot<'_>> = BTreeMap::new();
        for &(slot, _, number, odd) in &rows.rows {
            let of_slot = slots.entry(slot).or_default();
            of_slot.rows += 1;
            let odd = odd.and_then(|odd| rows.odd.get(odd as usize));
            if let Some(odd) = odd {
                of_slot.broken = of_slot.broken.or(odd.broken);
                of_slot.fixed |= odd.fixed;
                of_slot.changed |= odd.changed;
                of_slot.overtaken |= odd.overtaken;
            }
            if of_slot.first.is_none() {
                of_slot.first = Some(number as usize * of_rules);
                of_slot.shown = odd.filter(|odd| odd.fixed != 0).map(|odd| odd.shown.as_slice());
            }
        }
        for (slot, _) in live.of_key(key) {
            slots.entry(slot).or_default();
        }
        let mut among_neighbours = vec![Broken::default(); slots.len()];
        // Bounds of a key also judge what a repair shows, as bounds for all keys do.
        let mut of_repairs = vec![Broken::default(); slots.len()];
        for (index, (number, rule)) in self.among_neighbours().enumerate() {
            let points: Vec<Point> = slots
                .iter()
                .map(|(&slot, of_slot)| {
                    let own = of_slot.first.and_then(|first| rows.value(first + index));
                    let patched = of_slot.shown.and_then(|shown| shown.get(index)).copied().flatten();
                    let patched = if of_slot.shown.is_some() { patched } else { own };
                    let repair = live.get(key, slot).filter(|live| live.replaces || of_slot.first.is_none());
                    let repaired = |live: &Live| value(shown.values[live.batch].get(index).and_then(Option::as_ref), live.row);
                    Point { slot, own, shown: repair.map_or(patched, repaired) }
                })
                .collect();
            let mut wrong = vec![false; points.len()];
            if let Some(outlier) = &rule.outlier {
                series::outliers(&points, outlier, &mut wrong);
            }
            if let Some(most) = rule.frozen {
                series::frozen(&points, most, &mut wrong);
            }
            if rule.is_of_all() {
                if let Some(most) = rule.jump {
                    series::jumps(&points, most, NEW_LEVEL as usize, &mut wrong);
                }
                if rule.never_falls {
                    series::falls(&points, &mut wrong);
                }
                let bounds = rule.bounds_of(key, series::usual(&points));
                series::beyond(&points, bounds, |point| point.own, &mut wrong);
                let mut shown = vec![false; points.len()];
                series::beyond(&points, bounds, |point| point.shown, &mut shown);
                let breach = self.breach(number, rule);
                of_repairs.iter_mut().zip(shown).filter(|(_, wrong)| *wrong).for_each(|(broken, _)| broken.add(breach));
            }
            let breach = self.breach(number, rule);
            among_neighbours.iter_mut().zip(wrong).filter(|(_, wrong)| *wrong).for_each(|(broken, _)| broken.add(breach));
        }
        let verdict = |((slot, of_slot), (among, of_repair)): ((i64, OfSlot<'_>), (Broken, Broken))| {
            let is_shown = |live: &Live| live.replaces || of_slot.first.is_none();
            // The row of a removal has no values that could be wrong.
            let broken = |live: &Live| match live.removes {
                true => Broken::default(),
                false if is_shown(live) => shown.broken[live.batch][live.row].or(of_repair),
                false => shown.broken[live.batch][live.row],
            };
            let repair = live.get(key, slot).map(|live| (live, self.held(key, slot, broken(live))));
            let own = of_slot.broken.or(among.without(of_slot.fixed));
            let own = if of_slot.fixed == 0 { own } else { own.or(of_repair.only(of_slot.fixed)) };
            Verdict {
                slot,
                own: (of_slot.rows > 0).then(|| self.held(key, slot, own)),
                is_patched: of_slot.fixed != 0,
                has_changed: of_slot.changed,
                is_overtaken: of_slot.overtaken,
                repair,
            }
        };
        let examined = |slot: i64| window.contains(slot) && self.examined.contains(key, slot);
        slots.into_iter().zip(among_neighbours.into_iter().zip(of_repairs)).filter(|((slot, _), _)| examined(*slot)).map(verdict).collect()
    }
}

/// Lists of blamed columns, by the bits that stand for them.
struct Lists<'a> {
    blamed: &'a [String],
    known: HashMap<u128, Arc<[String]>>,
}

impl Lists<'_> {
    fn of(&mut self, cells: u128) -> Arc<[String]> {
        match self.known.entry(cells) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(unknown) => {
                let named = self.blamed.iter().enumerate().filter(|(at, _)| cells >> at & 1 == 1).map(|(_, name)| name.clone());
                unknown.insert(named.collect()).clone()
            }
        }
    }
}

/// The value of a row; `None` if it has none, or one that is not a number.
fn value(values: Option<&Values>, row: usize) -> Option<Value> {
    values?.get(row).filter(|value| !value.as_float().is_nan())
}

impl Rows {
    /// Adds the values of a row, one for each neighbour rule.
    fn push(&mut self, values: impl Iterator<Item = Option<Value>>) {
        for (column, value) in values.enumerate() {
            if self.are_whole.len() <= column {
                self.are_whole.push(false);
            }
            if let Some(exact @ (Value::Whole(_) | Value::Decimal(..))) = value {
                self.are_whole[column] |= matches!(exact, Value::Whole(_));
                if exact.is_beyond_floats() {
                    self.exact.insert(self.values.len(), exact);
                }
            }
            self.values.push(value.map_or(f64::NAN, Value::as_float));
        }
    }

    /// The value at a place of `values`.
    fn value(&self, at: usize) -> Option<Value> {
        let float = self.values.get(at).copied().filter(|value| !value.is_nan())?;
        if let Some(exact) = self.exact.get(&at) {
            return Some(*exact);
        }
        let column = at.checked_rem(self.are_whole.len())?;
        if !self.are_whole.get(column).copied().unwrap_or(false) {
            return Some(Value::Float(float));
        }
        #[expect(clippy::cast_possible_truncation, reason = "the float is the whole number that it was made of")]
        let whole = float as i128;
        Some(Value::Whole(whole))
    }
}
