//! `differs` of tables whose key identifies a row: finds rows that only the source has, and rows of which the source has other values.
//!
//! The source is asked for all rows of each day, since nothing says which there should be. Of several versions the latest counts, on whichever side
//! it is. It holds the rows that the source has in the interval, and those of the table for [`KEYS_AT_ONCE`] of their keys at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use jiff::Timestamp;
use serde_json::Value;

use super::values::{Beside, Column, Verdict};
use super::{Differs, named_columns};
use crate::builtin::detect::expected::blind_if_missing;
use crate::builtin::detect::unique::{self, KEYS_AT_ONCE};
use crate::builtin::repair::keep::ranks;
use crate::builtin::repair::latest::{Latest, Question};
use crate::error::{Error, Result};
use crate::lake::overlay::base::{BaseRow, BaseRows};
use crate::lake::overlay::fingerprint::{RowHashes, of_hashes};
use crate::lake::overlay::patch::Patched;
use crate::lake::shape::{self, KeyTime};
use crate::lake::{Layer, ScanRequest};
use crate::model::{BadCells, ComparedCounts, DefectKind, Findings, GapList, Interval, Key, MAX_EXAMPLES, Rows, SlotRange, Table};
use crate::plugin::{Asks, Covered, Request, StepContext};

/// The most rows that a source may have in one interval, so that they stay within some gigabytes.
const MOST_ROWS: usize = 4_000_000;

/// How many rows a notice names.
const NAMED: usize = 3;

/// Checks that a step does not ask for what only series have.
///
/// # Errors
/// `invalid` with what does not fit.
pub(super) fn fits(with: &Value, table: &Table) -> Result<()> {
    unique::fits(with, table)?;
    if table.rows != Rows::Unique {
        return Ok(());
    }
    let given = |name: &str| with.get(name).is_some_and(|value| !value.is_null() && value.as_str() != Some("keep"));
    let why = match ["sample", "seed", "deleted"].into_iter().find(|name| given(name)) {
        None => return Ok(()),
        Some("deleted") => {
            "`deleted` removes rows of slots in which a source has none; remove `deleted`, and rows that only the table has are counted"
        }
        Some(_) => "`sample` draws days of series; remove it, and choose a shorter interval to compare less",
    };
    Err(Error::invalid(format!("{why}: table `{}` has `rows: unique`, so it has no slots", table.name)))
}

/// The stretches of time to ask for: the days of an interval, as far as they have begun.
fn days(context: &StepContext, table: &Table, interval: Interval) -> Result<Vec<Interval>> {
    let (zone, now) = (table.day_zone(), context.clock.now());
    let Ok(interval) = Interval::new(interval.from(), interval.to().min(now)) else { return Ok(Vec::new()) };
    let mut days = Vec::new();
    let mut from = interval.from();
    while from < interval.to() {
        let to = zone.day(zone.local(from).date())?.to().min(interval.to());
        days.push(Interval::new(from, to)?);
        from = to;
    }
    Ok(days)
}

/// What the step asks of its source.
pub(super) fn asks(differs: &Differs, context: &StepContext) -> Result<Asks> {
    let scope = unique::scope(context, &differs.series)?;
    let days = days(context, context.table(&scope.table)?, scope.interval)?;
    let calls = context.source(&differs.source)?.requests_at_worst();
    let asks = Asks::new(&differs.source, &scope.table, scope.interval, 0, days.len() as u64);
    // The rows that there are, and those that the source has too, once for so many keys.
    Ok(asks.with_calls_at_worst(calls).with_reads(2, 4))
}

/// What was found so far.
#[derive(Default)]
struct Found {
    wrong: BTreeMap<Key, BTreeSet<i64>>,
    counts: ComparedCounts,
    examples: Vec<String>,
    notices: [(u64, Vec<String>); 6],
    /// Columns that the source did not have.
    lacking: BTreeSet<String>,
}

/// What a notice is about.
#[derive(Clone, Copy)]
enum Notice {
    OnlySource,
    OnlyTable,
    Silent,
    Several,
    Older,
    OnlyTableValues,
}

impl Found {
    fn notice(&mut self, notice: Notice, place: impl FnOnce() -> String) {
        let (count, named) = &mut self.notices[notice as usize];
        *count += 1;
        if named.len() < NAMED {
            named.push(place());
        }
    }

    fn add(&mut self, key: &Key, slot: i64, words: impl FnOnce() -> Result<String>) -> Result<()> {
        self.wrong.entry(key.clone()).or_default().insert(slot);
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(words()?);
        }
        Ok(())
    }

    fn gaps(&self) -> GapList {
        let mut list = GapList::default();
        for (key, slots) in &self.wrong {
            slots.iter().for_each(|&slot| list.push(key, SlotRange::new(slot, slot + 1)));
        }
        list
    }

    fn words(&self, table: &str, source: &str) -> Vec<String> {
        use Notice::{Older, OnlySource, OnlyTable, OnlyTableValues, Several, Silent};
        let of = |notice: Notice, one: String, more: &dyn Fn(u64) -> String| {
            let (count, named) = &self.notices[notice as usize];
            let begin = match count {
                0 => return None,
                1 => one,
                count => more(*count),
            };
            let rest = if *count > named.len() as u64 { "; and more" } else { "" };
            Some(format!("{begin}: {}{rest}", named.join("; ")))
        };
        let silent = format!("not compared, because source `{source}` has no such row and does not vouch that it has all");
        let several = "not compared, because the table has several versions of it; repair the duplicates first";
        let lacking: Vec<String> = self.lacking.iter().map(|name| format!("`{name}`")).collect();
        let lacking = (!lacking.is_empty())
            .then(|| format!("not compared, because source `{source}` does not have it: {} of table `{table}`", lacking.join(", ")));
        [
            of(OnlySource, format!("1 row is only in source `{source}`, and a repair adds it to table `{table}`"), &|count| {
                format!("{count} rows are only in source `{source}`, and a repair adds them to table `{table}`")
            }),
            of(OnlyTable, format!("1 row is only in table `{table}`, of which source `{source}` says that it has none; it stays"), &|count| {
                format!("{count} rows are only in table `{table}`, of which source `{source}` says that it has none; they stay")
            }),
            of(Silent, format!("1 row of table `{table}` was {silent}"), &|count| format!("{count} rows of table `{table}` were {silent}")),
            of(Several, format!("1 row of table `{table}` was {several}"), &|count| {
                format!("{count} rows of table `{table}` were not compared, because the table has several versions of each; repair the duplicates first")
            }),
            of(Older, format!("1 row of source `{source}` is an older version than that of table `{table}`, which counts"), &|count| {
                format!("{count} rows of source `{source}` are older versions than those of table `{table}`, which count")
            }),
            of(
                OnlyTableValues,
                format!("source `{source}` has no value in 1 row where table `{table}` has one, which stays"),
                &|count| format!("source `{source}` has no value in {count} rows where table `{table}` has some, which stay"),
            ),
            lacking,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Finds the rows that differ. `again` are the findings of an earlier look.
pub(super) async fn detect(context: &StepContext, differs: &Differs, again: Option<&Findings>) -> Result<Findings> {
    let scope = match again {
        Some(before) => before.scope.clone(),
        None => unique::scope(context, &differs.series)?,
    };
    let mut findings = unique::nothing(context, scope, again).await?;
    let table = context.table(&findings.scope.table)?;
    let (identity, interval) = (table.identity(), findings.scope.interval);
    let asked_again: Option<BTreeMap<Key, Vec<SlotRange>>> = again.map(|before| before.gaps.by_key());
    let schema = context.lake.describe(table).await.map_err(blind_if_missing)?;
    let columns = differs.compared(table, &schema)?;
    let needed = named_columns(differs, &columns, &schema);
    let is_asked = |day: &Interval| {
        let from_us = |time: Timestamp| time.as_microsecond();
        asked_again
            .as_ref()
            .is_none_or(|asked| asked.values().flatten().any(|slots| slots.first < from_us(day.to()) && slots.end > from_us(day.from())))
    };
    let days: Vec<Interval> = days(context, table, interval)?.into_iter().filter(is_asked).collect();
    let (rows, covered) = fetched(context, differs, table, &days, needed.as_ref()).await?;
    let mut latest = Latest::of(&differs.source, table, &rows)?;
    drop(rows);
    if let Some(asked) = &asked_again {
        latest.of_key.retain(|key, _| asked.contains_key(key));
    }
    let mut found = Found::default();
    found.counts.asked = latest.len();
    let place = |key: &Key, slot: i64| format!("{key} at {}", identity.grid().time_of(slot));
    // The rows that only the table has.
    if again.is_none() {
        let request = ScanRequest::new(Layer::Repaired).in_interval(interval).with_columns(Vec::new());
        let mut shown = context.lake.scan(table, &request).await?;
        while let Some(batch) = shown.try_next().await? {
            context.check_cancelled()?;
            findings.usage.rows_read += batch.num_rows() as u64;
            findings.counts.present += batch.num_rows() as u64;
            let places = KeyTime::of(table, &batch)?;
            for row in 0..batch.num_rows() {
                let (key, time_us) = (places.key(row), places.times.value(row));
                let theirs = latest.of_key.get(&key).into_iter().flatten().map(|(their_us, _)| *their_us);
                if identity.same_as(time_us, theirs).is_some() || latest.of_key.get(&key).is_some_and(Vec::is_empty) {
                    continue;
                }
                if is_covered(&covered, &key, time_us) {
                    found.counts.only_table += 1;
                    found.notice(Notice::OnlyTable, || place(&key, time_us));
                } else {
                    found.counts.not_compared += 1;
                    found.notice(Notice::Silent, || place(&key, time_us));
                }
            }
        }
    }
    let comparison = Comparison { context, table, differs, columns: &columns, interval };
    let keys: Vec<Key> = latest.of_key.keys().cloned().collect();
    for keys in keys.chunks(KEYS_AT_ONCE) {
        context.check_cancelled()?;
        comparison.compare(&latest, keys, &schema, &mut found, &mut findings).await?;
    }
    if let Some(before) = again {
        // What was found different, and cannot be compared again, is still different.
        for (key, slots) in before.gaps.iter() {
            let is_there = |slot: i64| {
                let theirs = latest.of_key.get(key).into_iter().flatten().map(|(their_us, _)| *their_us);
                identity.same_as(slot, theirs).is_some()
            };
            for slot in (slots.first..slots.end).filter(|slot| !is_there(*slot)) {
                let words = "the source has no such row any more, so it was not compared again";
                found.add(key, slot, || Ok(format!("{}: {words}", place(key, slot))))?;
            }
        }
    } else if found.counts.slots + found.counts.only_table + found.counts.only_source == 0
        && (findings.counts.present > 0 || covered.is_empty())
    {
        return Err(Error::blind(format!(
            "nothing of table `{}` was compared with source `{}`: it has no row in {interval}, and does not vouch that there is none, or the table has \
             several versions of all; check the source and the interval, and repair duplicates first",
            table.name, differs.source
        )));
    }
    let counts = &mut findings.counts;
    counts.missing = found.counts.only_source;
    if again.is_some() {
        counts.present = found.counts.slots + found.counts.not_compared;
    }
    counts.expected = counts.present + counts.missing;
    counts.audited_keys = counts.expected;
    let gaps = found.gaps();
    (counts.defective, counts.gaps, counts.cells) = (gaps.missing(), gaps.len() as u64, findings.cells.len());
    counts.conflicts += found.counts.only_table;
    counts.compared = Some(found.counts);
    match again {
        Some(before) => findings.notices.clone_from(&before.notices),
        None => {
            findings.notices.extend(found.words(&table.name, &differs.source));
            findings.notices.extend(latest.unclear.iter().take(NAMED).cloned());
        }
    }
    Ok(Findings { kind: DefectKind::Different, gaps, examples: found.examples, ..findings })
}

/// The rows that the source has on some days, and where it vouches that it has all.
async fn fetched(
    context: &StepContext,
    differs: &Differs,
    table: &Table,
    days: &[Interval],
    needed: Option<&Schema>,
) -> Result<(Vec<RecordBatch>, Vec<Covered>)> {
    let source = context.source(&differs.source)?;
    let (mut rows, mut covered, mut count) = (Vec::new(), Vec::new(), 0);
    for (done, day) in (1u64..).zip(days) {
        context.check_cancelled()?;
        let request = Request { table: table.clone(), keys: Vec::new(), interval: *day };
        let answer = source.fetch(context, &request).await.map_err(|error| error.on("source", &differs.source))?;
        let question = Question { source: &differs.source, table, interval: *day, now: context.clock.now(), columns: needed };
        question.judge(&answer.rows)?;
        count += answer.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        if count > MOST_ROWS {
            return Err(Error::invalid(format!(
                "source `{}` has more than {MOST_ROWS} rows up to {}, too many to compare in one step; use a shorter interval",
                differs.source,
                day.to()
            )));
        }
        rows.extend(answer.rows);
        covered.extend(answer.covered);
        context.progress.advance(&context.step, done, days.len() as u64);
    }
    Ok((rows, covered))
}

/// Whether a source vouches that it has all rows of a key, or of all keys, at a time.
fn is_covered(covered: &[Covered], key: &Key, time_us: i64) -> bool {
    let is_of = |covered: &Covered| covered.key == *key || covered.key == Key::default();
    let holds = |interval: &Interval| interval.from().as_microsecond() <= time_us && time_us < interval.to().as_microsecond();
    covered.iter().any(|covered| is_of(covered) && holds(&covered.interval))
}

struct Comparison<'a> {
    context: &'a StepContext,
    table: &'a Table,
    differs: &'a Differs,
    columns: &'a [Column],
    interval: Interval,
}

/// A row that both have: its key, the time of the source's row and where it is, and where the table's is.
struct Pair<'a> {
    key: &'a Key,
    slot: i64,
    theirs: usize,
    own_slot: i64,
    own: (usize, usize),
}

impl Comparison<'_> {
    /// Compares the rows of some keys.
    async fn compare(&self, latest: &Latest, keys: &[Key], schema: &SchemaRef, found: &mut Found, findings: &mut Findings) -> Result<()> {
        let Self { context, table, columns, .. } = self;
        let Some(theirs) = &latest.rows else { return Ok(()) };
        let (identity, lake) = (table.identity(), context.lake.as_ref());
        let mut names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        for version in &table.version {
            let known = shape::find(schema, version)?.map(|field| field.name().clone());
            names.extend(known.filter(|name| !names.contains(name)));
        }
        let base = BaseRows::read(lake, table, (self.interval, keys), (&names, false), |_, _| true).await?;
        findings.usage.rows_read += base.rows_read();
        let shown: Vec<Option<Patched>> = (0..base.batches().len()).map(|batch| base.patched(table, batch)).collect::<Result<_>>()?;
        let place = |key: &Key, slot: i64| format!("{key} at {}", identity.grid().time_of(slot));
        let mut pairs: Vec<Pair<'_>> = Vec::new();
        for key in keys {
            for &(slot, row) in latest.of_key.get(key).into_iter().flatten() {
                match base.same_as(identity, key, slot) {
                    None => {
                        found.counts.only_source += 1;
                        found.notice(Notice::OnlySource, || place(key, slot));
                        found.add(key, slot, || Ok(format!("{}: only the source has the row", place(key, slot))))?;
                    }
                    Some((_, BaseRow::Several)) => {
                        found.counts.not_compared += 1;
                        found.notice(Notice::Several, || place(key, slot));
                    }
                    Some((own_slot, BaseRow::One(batch, own))) => pairs.push(Pair { key, slot, theirs: row, own_slot, own: (batch, own) }),
                }
            }
        }
        let older = self.older(theirs, &base, &shown, &pairs)?;
        let mut beside: HashMap<(usize, usize), Beside> = HashMap::new();
        let mut of_source: Vec<Option<&ArrayRef>> = Vec::with_capacity(columns.len());
        for column in *columns {
            let column_of_source = shape::find_column(theirs, &column.name).map_err(|error| error.on("source", &self.differs.source))?;
            if column_of_source.is_none() {
                found.lacking.insert(column.name.clone());
            }
            of_source.push(column_of_source);
        }
        for (pair, is_older) in pairs.iter().zip(older) {
            found.counts.slots += 1;
            if is_older {
                found.notice(Notice::Older, || place(pair.key, pair.slot));
                continue;
            }
            self.compare_row(pair, (&base, &shown), &of_source, &mut beside, found, findings)?;
        }
        Ok(())
    }

    /// Whether the source's row of each pair is an older version than the table's.
    fn older(&self, theirs: &RecordBatch, base: &BaseRows, shown: &[Option<Patched>], pairs: &[Pair<'_>]) -> Result<Vec<bool>> {
        let table = self.table;
        let mut none = vec![false; pairs.len()];
        if table.version.is_empty() || pairs.is_empty() {
            return Ok(none);
        }
        // The pairs by the batch in which the table's row is, so that columns are taken at once.
        let mut by_batch: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, pair) in pairs.iter().enumerate() {
            by_batch.entry(pair.own.0).or_default().push(number);
        }
        for (batch, numbers) in by_batch {
            let Some(own) = seen(base, shown, batch) else { continue };
            let index = |of: &dyn Fn(&Pair<'_>) -> usize| numbers.iter().map(|number| of(&pairs[*number]) as u64).collect::<UInt64Array>();
            let (own_rows, their_rows) = (index(&|pair| pair.own.1), index(&|pair| pair.theirs));
            let (mut fields, mut both): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
            for name in &table.version {
                let (Some(own), Some(theirs)) = (shape::find_column(own, name)?, shape::find_column(theirs, name)?) else {
                    return Ok(none);
                };
                let (own, theirs) = (take(own, &own_rows, None)?, take(theirs, &their_rows, None)?);
                let Ok(theirs) = shape::cast_exact(&theirs, own.data_type()) else { return Ok(none) };
                fields.push(Field::new(name, own.data_type().clone(), true));
                both.push(concat(&[own.as_ref(), theirs.as_ref()])?);
            }
            let ranks = ranks(table, &RecordBatch::try_new(Arc::new(Schema::new(fields)), both)?, &table.version, false)?;
            for (at, number) in numbers.iter().enumerate() {
                none[*number] = ranks.row(numbers.len() + at) < ranks.row(at);
            }
        }
        Ok(none)
    }

    fn compare_row(
        &self,
        pair: &Pair<'_>,
        (base, shown): (&BaseRows, &[Option<Patched>]),
        of_source: &[Option<&ArrayRef>],
        beside: &mut HashMap<(usize, usize), Beside>,
        found: &mut Found,
        findings: &mut Findings,
    ) -> Result<()> {
        let Pair { key, slot, theirs: row, own_slot, own: (number, own) } = *pair;
        let time = |slot: i64| self.table.identity().grid().time_of(slot);
        let visible = seen(base, shown, number).ok_or_else(|| Error::internal("a row is in no batch"))?;
        let (mut different, mut only_table) = (Vec::new(), false);
        for (at, (column, theirs)) in self.columns.iter().zip(of_source).enumerate() {
            let Some(theirs) = theirs else { continue };
            let beside = match beside.entry((number, at)) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(unknown) => {
                    let of = Beside::of(column, shape::find_column(visible, &column.name)?, theirs);
                    unknown.insert(of.map_err(|error| error.on("source", &self.differs.source))?)
                }
            };
            match beside.verdict(own, row) {
                Verdict::Same => {}
                Verdict::OnlyTable => only_table = true,
                Verdict::Different => different.push(at),
            }
        }
        if only_table {
            found.counts.only_table_values += 1;
            found.notice(Notice::OnlyTableValues, || format!("{key} at {}", time(own_slot)));
        }
        let live = base.live().get(key, own_slot);
        if different.is_empty() && own_slot == slot {
            let is_patched = shown.get(number).and_then(Option::as_ref).is_some_and(|patched| patched.cells.contains_key(&own));
            findings.counts.replaced += u64::from(live.is_some_and(|live| live.replaces));
            findings.counts.repaired += u64::from(live.is_some_and(|live| !live.replaces));
            findings.counts.patched += u64::from(live.is_none() && is_patched);
            return Ok(());
        }
        found.add(key, slot, || {
            let mut words: Vec<String> = Vec::new();
            if own_slot != slot {
                words.push(format!("{} is {} in the table, {} in the source", self.table.time, time(own_slot), time(slot)));
            }
            for at in &different {
                let beside = beside.get(&(number, *at)).ok_or_else(|| Error::internal("a column was not compared"))?;
                let (own, theirs) = beside.words(own, row)?;
                words.push(format!("{} is {own} in the table, {theirs} in the source", self.columns[*at].name));
            }
            Ok(format!("{key} at {}: {}", time(slot), words.join(", ")))
        })?;
        // The engine looks up which rows a row replaces.
        if self.differs.patch && own_slot == slot {
            let mut names: Vec<String> = different.iter().map(|at| self.columns[*at].name.clone()).collect();
            names.sort_unstable();
            let names: Arc<[String]> = names.into();
            // Cells are judged as the table has them, without their repairs.
            let batch = base.batches().get(number).ok_or_else(|| Error::internal("a row is in no batch"))?;
            let judged = of_hashes(&mut [RowHashes::of_cells(batch, &names)?.of_row(own)?]);
            findings.cells.insert(key, slot, BadCells { columns: names, judged });
        }
        Ok(())
    }
}

/// The rows of a batch as readers see them.
fn seen<'a>(base: &'a BaseRows, shown: &'a [Option<Patched>], batch: usize) -> Option<&'a RecordBatch> {
    shown.get(batch).and_then(Option::as_ref).map(|patched| &patched.rows).or_else(|| base.batches().get(batch))
}
