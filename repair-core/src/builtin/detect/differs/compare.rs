//! Compares the answers of a source with a table: the rows of some requests are read at once, and each answer is compared as it comes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use crate::builtin::detect::differs::deleted::Removal;
use crate::builtin::detect::differs::values::{Beside, Column, Verdict};
use crate::builtin::detect::expected::blind_if_missing;
use crate::builtin::repair::judge::{Judged, vouched};
use crate::builtin::repair::requests::Asked;
use crate::error::{Error, Result};
use crate::lake::overlay::base::{BaseRow, BaseRows};
use crate::lake::overlay::fingerprint::{Hashing, RowHashes, of_hashes};
use crate::lake::overlay::patch::Patched;
use crate::lake::shape;
use crate::lake::shape::KeyTime;
use crate::model::{
    BadCells, Cells, ComparedCounts, Findings, Fingerprints, GapList, Key, MAX_EXAMPLES, Scope, SlotGrid, SlotRange, SlotSet, Table, Usage,
};
use crate::plugin::{Answer, StepContext};

/// How many slots a notice names.
const NAMED: usize = 3;

/// What is the same for all requests of a step.
pub(super) struct Comparison<'a> {
    pub(super) context: &'a StepContext,
    pub(super) table: &'a Table,
    pub(super) grid: SlotGrid,
    pub(super) source: &'a str,
    pub(super) columns: &'a [Column],
    /// Whether cells are found, and not rows.
    pub(super) patch: bool,
    /// Whether rows are found that the source does not have.
    pub(super) removal: Option<Removal>,
    /// The earlier findings that are checked again.
    pub(super) again: Option<&'a Findings>,
}

impl Comparison<'_> {
    fn place(&self, key: &Key, slot: i64) -> String {
        if key.values().len() == 0 { self.grid.time_of(slot).to_string() } else { format!("{key} at {}", self.grid.time_of(slot)) }
    }
}

/// Slots to report: how many, and the first few in words.
#[derive(Default)]
struct Named {
    slots: u64,
    first: Vec<String>,
}

impl Named {
    fn add(&mut self, place: impl FnOnce() -> String) {
        self.slots += 1;
        if self.first.len() < NAMED {
            self.first.push(place());
        }
    }

    /// A sentence about them, made of how it begins for one slot and for more; none if there are none.
    fn words(&self, one: &str, more: impl FnOnce(u64) -> String) -> Option<String> {
        let begin = match self.slots {
            0 => return None,
            1 => one.to_owned(),
            slots => more(slots),
        };
        let rest = if self.slots > self.first.len() as u64 { "; and more" } else { "" };
        Some(format!("{begin}: {}{rest}", self.first.join("; ")))
    }
}

fn insert(sets: &mut BTreeMap<Key, BTreeSet<i64>>, key: &Key, slot: i64) {
    match sets.get_mut(key) {
        Some(slots) => {
            slots.insert(slot);
        }
        None => {
            sets.insert(key.clone(), BTreeSet::from([slot]));
        }
    }
}

fn as_list(sets: &BTreeMap<Key, BTreeSet<i64>>) -> GapList {
    let mut list = GapList::default();
    for (key, slots) in sets {
        slots.iter().for_each(|&slot| list.push(key, SlotRange::new(slot, slot + 1)));
    }
    list
}

/// What was found so far.
#[derive(Default)]
pub(super) struct Found {
    wrong: BTreeMap<Key, BTreeSet<i64>>,
    /// Of these, the slots whose rows are to be removed.
    deleted: BTreeMap<Key, BTreeSet<i64>>,
    pub(super) judged: Fingerprints,
    pub(super) cells: Cells,
    /// Descriptions of the first few.
    pub(super) examples: Vec<String>,
    pub(super) counts: ComparedCounts,
    pub(super) replaced: u64,
    pub(super) patched: u64,
    /// The slots of those that are replaced or patched.
    pub(super) standing: Vec<(Key, i64)>,
    pub(super) changed: u64,
    pub(super) overtaken: u64,
    pub(super) usage: Usage,
    silent: Named,
    several: Named,
    only_source: Named,
    only_table: Named,
    only_table_deleted: Named,
    only_table_empty: Named,
    returned: Named,
    only_table_values: Named,
    /// Columns that the source did not have in some answer.
    lacking: BTreeSet<String>,
}

impl Found {
    /// The different slots.
    pub(super) fn gaps(&self) -> GapList {
        as_list(&self.wrong)
    }

    /// Of these, the slots whose rows are to be removed.
    pub(super) fn deleted(&self) -> GapList {
        as_list(&self.deleted)
    }

    fn add(&mut self, key: &Key, slot: i64) {
        insert(&mut self.wrong, key, slot);
    }

    /// Adds a slot whose row is to be removed. The engine looks up which rows these are.
    fn add_deleted(&mut self, key: &Key, slot: i64) {
        self.add(key, slot);
        insert(&mut self.deleted, key, slot);
    }

    fn example(&mut self, words: impl FnOnce() -> Result<String>) -> Result<()> {
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(words()?);
        }
        Ok(())
    }

    /// Whether no row was compared, and the source vouched for no slot with a row either.
    pub(super) fn saw_nothing(&self) -> bool {
        self.counts.slots + self.counts.only_table + self.counts.removed + self.counts.returned == 0
    }

    /// The error where nothing was seen: that must not look like a table that is right.
    pub(super) fn blind(&self, table: &Table, source: &str, scope: &Scope) -> Error {
        let table = &table.name;
        let why = if self.counts.asked == 0 {
            format!("no slot that is expected in {} has ended yet; examine an earlier interval", scope.interval)
        } else if self.counts.not_compared > 0 {
            let more =
                |slots| format!("it has no row in all {slots} slots in which the table has one, and does not vouch that there is none");
            let silent =
                self.silent.words("it has no row in the only slot in which the table has one, and does not vouch that there is none", more);
            let several = self
                .several
                .words("the table has several rows in the only slot", |slots| format!("the table has several rows in {slots} slots"));
            let words: Vec<String> = [silent, several].into_iter().flatten().collect();
            format!("{}. Check the keys, the interval and the source, and repair duplicates first", words.join("; "))
        } else {
            format!("the table has no row in the {} slots that were asked for; fill the gaps first (`detect: gaps`)", self.counts.asked)
        };
        Error::blind(format!("nothing of table `{table}` was compared with source `{source}`: {why}"))
    }

    /// What a person should know, beside what is different.
    pub(super) fn notices(&self, table: &Table, source: &str) -> Vec<String> {
        let table = &table.name;
        let silent = format!("not compared, because source `{source}` has no row there and does not vouch that there is none");
        let several = "not compared, because the table has several rows there; repair the duplicates first";
        let no_delete = "they stay, unless `deleted: remove` is set";
        let empty = "in an answer without any row of its key; they stay, unless `deleted` has `empty_answers: true`";
        let lacking: Vec<String> = self.lacking.iter().map(|name| format!("`{name}`")).collect();
        let (columns, were, them) = if lacking.len() == 1 { ("column", "was", "it") } else { ("columns", "were", "them") };
        let lacking = (!lacking.is_empty()).then(|| {
            format!(
                "{columns} {} of table `{table}` {were} not compared, because source `{source}` does not have {them}",
                lacking.join(", ")
            )
        });
        [
            self.silent.words(&format!("1 slot of table `{table}` was {silent}"), |slots| {
                format!("{slots} slots of table `{table}` were {silent}")
            }),
            self.several.words(&format!("1 slot of table `{table}` was {several}"), |slots| {
                format!("{slots} slots of table `{table}` were {several}")
            }),
            lacking,
            self.only_source.words(
                &format!("source `{source}` has a row in 1 slot where table `{table}` has none, which `detect: gaps` finds"),
                |slots| format!("source `{source}` has rows in {slots} slots where table `{table}` has none, which `detect: gaps` finds"),
            ),
            self.only_table.words(
                &format!("source `{source}` says that there is no row in 1 slot where table `{table}` has one ({no_delete})"),
                |slots| {
                    format!("source `{source}` says that there are no rows in {slots} slots where table `{table}` has some ({no_delete})")
                },
            ),
            self.only_table_deleted.words(
                &format!("source `{source}` says that there is no row in 1 slot where table `{table}` has one, which a repair removes"),
                |slots| {
                    format!("source `{source}` says that there are no rows in {slots} slots where table `{table}` has some, which a repair removes")
                },
            ),
            self.only_table_empty.words(
                &format!("source `{source}` says that there is no row in 1 slot where table `{table}` has one, {empty}"),
                |slots| format!("source `{source}` says that there are no rows in {slots} slots where table `{table}` has some, {empty}"),
            ),
            self.returned.words(
                &format!("source `{source}` has a row again in 1 slot whose row in table `{table}` was removed"),
                |slots| format!("source `{source}` has rows again in {slots} slots whose rows in table `{table}` were removed"),
            ),
            self.only_table_values
                .words(&format!("source `{source}` has no value in 1 slot where table `{table}` has one, which stays"), |slots| {
                    format!("source `{source}` has no value in {slots} slots where table `{table}` has some, which stay")
                }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A row that is different: its slot, the row that readers see there, and the numbers of the columns.
struct Different {
    key: Key,
    slot: i64,
    row: (usize, usize),
    columns: Vec<usize>,
}

/// The rows of some requests.
pub(super) struct Group {
    base: BaseRows,
    /// The rows as readers see them, for each batch with repaired cells.
    shown: Vec<Option<Patched>>,
    different: Vec<Different>,
}

impl Group {
    /// Reads the rows of some requests.
    pub(super) async fn read(comparison: &Comparison<'_>, requests: &[Asked], found: &mut Found) -> Result<Self> {
        let Comparison { context, table, grid, columns, patch, .. } = comparison;
        let mut wanted: BTreeMap<Key, Vec<SlotRange>> = BTreeMap::new();
        for of_key in requests.iter().flat_map(|asked| &asked.wanted) {
            wanted.entry(of_key.key.clone()).or_default().extend(&of_key.slots);
        }
        let bounds = |slots: &mut Vec<SlotRange>| {
            slots.sort_unstable_by_key(|slots| slots.first);
            Some((slots.first()?.first, slots.last()?.end))
        };
        let hull = wanted.values_mut().filter_map(bounds).reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        let (first, end) = hull.ok_or_else(|| Error::internal("a request asks for nothing"))?;
        let interval = grid.interval_of(SlotRange::new(first, end)).ok_or_else(|| Error::invalid("the time of a slot is out of range"))?;
        let keys: Vec<Key> = wanted.keys().cloned().collect();
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let is_wanted = |key: &Key, slot: i64| {
            wanted
                .get(key)
                .is_some_and(|all| all.get(all.partition_point(|slots| slots.end <= slot)).is_some_and(|slots| slots.contains(slot)))
        };
        let base = BaseRows::read(context.lake.as_ref(), table, (interval, &keys), (&names, !patch), is_wanted);
        let base = base.await.map_err(blind_if_missing)?;
        found.usage.rows_read += base.rows_read();
        let shown = (0..base.batches().len()).map(|batch| base.patched(table, batch)).collect::<Result<_>>()?;
        Ok(Self { base, shown, different: Vec::new() })
    }

    /// Compares an answer with the rows.
    pub(super) fn compare(
        &mut self,
        comparison: &Comparison<'_>,
        asked: &Asked,
        answer: &Answer,
        judged: &Judged<'_>,
        found: &mut Found,
    ) -> Result<()> {
        let wanted: BTreeMap<&Key, &[SlotRange]> = asked.wanted.iter().map(|wanted| (&wanted.key, wanted.slots.as_slice())).collect();
        for batch in answer.rows.iter().filter(|batch| batch.num_rows() > 0) {
            self.compare_batch(comparison, &wanted, batch, found)?;
        }
        for wanted in &asked.wanted {
            found.counts.asked += wanted.len();
            let mut silent = SlotSet::new(comparison.grid.cadence(), asked.slots);
            wanted.slots.iter().for_each(|&slots| silent.insert_range(slots));
            if let Some(answered) = judged.answered.get(&wanted.key) {
                silent.subtract(answered);
            }
            if silent.is_empty() {
                continue;
            }
            let vouched = vouched(comparison.grid, answer, &wanted.key, asked.slots);
            let answered = judged.answered.get(&wanted.key).map_or(0, SlotSet::count);
            for slot in silent.iter() {
                let place = || comparison.place(&wanted.key, slot);
                match self.base.get(&wanted.key, slot) {
                    None => found.counts.removed += u64::from(self.is_removed(&wanted.key, slot) && vouched.contains(slot)),
                    Some(BaseRow::Several) => {
                        found.counts.not_compared += 1;
                        found.several.add(place);
                        self.keep(comparison, &wanted.key, slot, "the table has several rows", found)?;
                    }
                    Some(BaseRow::One(..)) if vouched.contains(slot) => {
                        found.counts.only_table += 1;
                        let is_known = comparison.again.is_some_and(|before| before.deleted.contains(&wanted.key, slot));
                        found.counts.deleted += u64::from(is_known);
                        match comparison.removal {
                            Some(removal) if comparison.again.is_none() && removal.believes(answered) => {
                                found.counts.deleted += 1;
                                found.add_deleted(&wanted.key, slot);
                                found.only_table_deleted.add(place);
                                found.example(|| Ok(format!("{}: the source says that there is no row", place())))?;
                            }
                            Some(_) if comparison.again.is_none() => found.only_table_empty.add(place),
                            _ => found.only_table.add(place),
                        }
                        self.keep(comparison, &wanted.key, slot, "the source says that there is no row", found)?;
                    }
                    Some(BaseRow::One(..)) => {
                        found.counts.not_compared += 1;
                        found.silent.add(place);
                        self.keep(comparison, &wanted.key, slot, "the source has no row, so it was not compared again", found)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A slot that was found different, and cannot be compared again, is still different.
    fn keep(&self, comparison: &Comparison<'_>, key: &Key, slot: i64, why: &str, found: &mut Found) -> Result<()> {
        let Some(before) = comparison.again else { return Ok(()) };
        if before.deleted.contains(key, slot) {
            found.add_deleted(key, slot);
        }
        found.add(key, slot);
        if let Some(cells) = before.cells.get(key, slot) {
            found.cells.insert(key, slot, cells.clone());
        } else if let Some(rows) = before.judged.get(key, slot) {
            found.judged.insert(key, slot, rows);
        }
        found.example(|| Ok(format!("{}: {why}", comparison.place(key, slot))))
    }

    fn compare_batch(
        &mut self,
        comparison: &Comparison<'_>,
        wanted: &BTreeMap<&Key, &[SlotRange]>,
        theirs: &RecordBatch,
        found: &mut Found,
    ) -> Result<()> {
        let Comparison { table, grid, columns, source, .. } = comparison;
        let in_shape = |error: Error| error.on("source", source);
        let mut values: Vec<Option<&ArrayRef>> = Vec::with_capacity(columns.len());
        for column in *columns {
            let of_source = shape::find_column(theirs, &column.name).map_err(in_shape)?;
            if of_source.is_none() {
                found.lacking.insert(column.name.clone());
            }
            values.push(of_source);
        }
        if values.iter().all(Option::is_none) {
            let names: Vec<String> = columns.iter().map(|column| format!("`{}`", column.name)).collect();
            return Err(Error::blind(format!(
                "source `{source}` has none of the columns of table `{}` ({}), so there is nothing to compare",
                table.name,
                names.join(", ")
            )));
        }
        let mut beside: HashMap<(usize, usize), Beside> = HashMap::new();
        let rows = KeyTime::of(table, theirs).map_err(in_shape)?;
        for run in rows.runs() {
            let key = rows.key(run.start);
            let Some(slots) = wanted.get(&key) else { continue };
            for row in run {
                let slot = grid.slot_of_seconds(rows.times.value(row).div_euclid(1_000_000));
                if !slots.iter().any(|slots| slots.contains(slot)) {
                    continue;
                }
                match self.base.get(&key, slot) {
                    None if self.is_removed(&key, slot) => {
                        // The whole row is wrong, since the table should have one; the engine looks up which rows it has.
                        found.counts.returned += 1;
                        found.returned.add(|| comparison.place(&key, slot));
                        found.add(&key, slot);
                        found.example(|| {
                            Ok(format!("{}: the row was removed, and the source has one again", comparison.place(&key, slot)))
                        })?;
                    }
                    None => {
                        found.counts.only_source += 1;
                        found.only_source.add(|| comparison.place(&key, slot));
                    }
                    Some(BaseRow::Several) => {
                        found.counts.not_compared += 1;
                        found.several.add(|| comparison.place(&key, slot));
                        self.keep(comparison, &key, slot, "the table has several rows", found)?;
                    }
                    Some(BaseRow::One(number, own)) => {
                        found.counts.slots += 1;
                        self.compare_row(comparison, (&key, slot), (number, own), (&values, row), &mut beside, found)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a repair removes the rows of a slot.
    fn is_removed(&self, key: &Key, slot: i64) -> bool {
        self.base.live().get(key, slot).is_some_and(|live| live.removes)
    }

    /// The rows of a batch as readers see them.
    fn shown(&self, number: usize) -> Option<&RecordBatch> {
        match self.shown.get(number)? {
            Some(patched) => Some(&patched.rows),
            None => self.base.batches().get(number),
        }
    }

    fn compare_row(
        &mut self,
        comparison: &Comparison<'_>,
        (key, slot): (&Key, i64),
        (number, own): (usize, usize),
        (values, row): (&[Option<&ArrayRef>], usize),
        beside: &mut HashMap<(usize, usize), Beside>,
        found: &mut Found,
    ) -> Result<()> {
        let shown = self.shown(number).ok_or_else(|| Error::internal("a row is in no batch"))?;
        let mut different = Vec::new();
        let mut only_table = None;
        for (at, (column, theirs)) in comparison.columns.iter().zip(values).enumerate() {
            let Some(theirs) = theirs else { continue };
            let beside = match beside.entry((number, at)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let of = Beside::of(column, shape::find_column(shown, &column.name)?, theirs);
                    unknown.insert(of.map_err(|error| error.on("source", comparison.source))?)
                }
            };
            match beside.verdict(own, row) {
                Verdict::Same => {}
                Verdict::OnlyTable => only_table = only_table.or(Some(at)),
                Verdict::Different => different.push(at),
            }
        }
        let words = |at: &usize| -> Result<String> {
            let (column, beside) = (&comparison.columns[*at].name, beside.get(&(number, *at)));
            let (own, theirs) = beside.ok_or_else(|| Error::internal("a column was not compared"))?.words(own, row)?;
            Ok(format!("{column} is {own} in the table, {theirs} in the source"))
        };
        if let Some(at) = &only_table {
            found.counts.only_table_values += 1;
            let words = format!("{}: {}", comparison.place(key, slot), words(at)?);
            found.only_table_values.add(|| words);
        }
        let patched = self.shown.get(number).and_then(Option::as_ref);
        found.overtaken += u64::from(patched.is_some_and(|patched| patched.overtaken.contains(&own)));
        if different.is_empty() {
            let replaces = self.base.live().get(key, slot).is_some_and(|live| live.replaces);
            let is_patched = !replaces && patched.is_some_and(|patched| patched.cells.contains_key(&own));
            found.replaced += u64::from(replaces);
            found.patched += u64::from(is_patched);
            found.standing.extend((replaces || is_patched).then(|| (key.clone(), slot)));
            found.changed += u64::from(!replaces && patched.is_some_and(|patched| patched.changed.contains(&own)));
            return Ok(());
        }
        found.example(|| {
            let all: Vec<String> = different.iter().map(words).collect::<Result<_>>()?;
            Ok(format!("{}: {}", comparison.place(key, slot), all.join(", ")))
        })?;
        self.different.push(Different { key: key.clone(), slot, row: (number, own), columns: different });
        Ok(())
    }

    /// Adds the different rows to what was found, once it is known which of them there are.
    pub(super) fn finish(self, comparison: &Comparison<'_>, found: &mut Found) -> Result<()> {
        for different in &self.different {
            found.add(&different.key, different.slot);
        }
        if comparison.patch {
            return self.cells(comparison, found);
        }
        let wanted: BTreeSet<(&Key, i64)> = self.different.iter().map(|different| (&different.key, different.slot)).collect();
        let mut hashing = Hashing::default();
        for batch in self.base.own() {
            hashing.add(comparison.table, comparison.grid, batch, |key, slot| wanted.contains(&(key, slot)))?;
        }
        for (key, slot) in wanted {
            found.judged.insert(key, slot, hashing.fingerprint(key, slot));
        }
        Ok(())
    }

    fn cells(&self, comparison: &Comparison<'_>, found: &mut Found) -> Result<()> {
        let mut alike: BTreeMap<(usize, &[usize]), Vec<&Different>> = BTreeMap::new();
        for different in &self.different {
            alike.entry((different.row.0, &different.columns)).or_default().push(different);
        }
        for ((number, columns), rows) in alike {
            let batch = self.base.batches().get(number).ok_or_else(|| Error::internal("a row is in no batch"))?;
            let mut names: Vec<String> = columns.iter().map(|at| comparison.columns[*at].name.clone()).collect();
            names.sort_unstable();
            let names: Arc<[String]> = names.into();
            // Cells are judged as the table has them, without their repairs.
            let hashes = RowHashes::of_cells(batch, &names)?;
            for different in rows {
                let judged = of_hashes(&mut [hashes.of_row(different.row.1)?]);
                found.cells.insert(&different.key, different.slot, BadCells { columns: names.clone(), judged });
            }
        }
        Ok(())
    }
}
