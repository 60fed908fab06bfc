//! Examines one window of a table: its rows, the live repairs, and how the rules judge both.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, Float64Array, RecordBatch};
use futures::TryStreamExt;

use crate::builtin::detect::expected::{Examined, blind_if_missing};
use crate::builtin::detect::invalid::rule::{Broken, Rule, numbers};
use crate::builtin::detect::invalid::series;
use crate::builtin::detect::invalid::series::Point;
use crate::error::{Error, Result};
use crate::lake::overlay::fingerprint::Hashing;
use crate::lake::overlay::live::{Live, LiveRepairs};
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, ScanRequest};
use crate::model::MAX_EXAMPLES;
use crate::model::Usage;
use crate::model::{Fingerprints, GapList, Key, SlotGrid, SlotRange, Table};
use crate::plugin::StepContext;

/// What is the same for all windows of a step.
pub(super) struct Examination<'a> {
    pub(super) context: &'a StepContext,
    pub(super) table: &'a Table,
    pub(super) grid: SlotGrid,
    /// The rules as written.
    pub(super) rules: &'a [Rule],
    /// The rules for the table's columns.
    pub(super) of_table: &'a [Rule],
    /// The columns that the rules read.
    pub(super) columns: &'a [String],
    /// Whether the table has more columns.
    pub(super) has_others: bool,
    pub(super) examined: &'a Examined<'a>,
}

/// The findings so far.
#[derive(Default)]
pub(super) struct Found {
    wrong: BTreeMap<Key, Vec<i64>>,
    pub(super) judged: Fingerprints,
    /// Descriptions of the first few.
    pub(super) examples: Vec<String>,
    pub(super) replaced: u64,
    pub(super) changed: u64,
    pub(super) usage: Usage,
}

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
    /// For each row: its slot and time, the row rule that it breaks, and the index of its `values`.
    rows: Vec<(i64, i64, Broken, usize)>,
    /// For each row, its value in the column of each neighbour rule; NaN where it has none.
    values: Vec<f64>,
}

/// The rows of repairs, by batch and row: the row rule that each breaks, and its values for neighbour rules.
struct Shown {
    wrong: Vec<Vec<Broken>>,
    values: Vec<Vec<Option<Float64Array>>>,
}

/// The table's rows in one slot.
#[derive(Default)]
struct OfSlot {
    /// The row rule that one of them breaks; `None` if there is no row.
    own: Option<Broken>,
    /// The index of the values of the first.
    first: Option<usize>,
}

/// How the rules judge a slot.
struct Verdict<'a> {
    slot: i64,
    /// The rule that the table's own rows break; `None` if there is no row.
    own: Option<Broken>,
    /// The repair of the slot, and the rule that its row breaks.
    repair: Option<(&'a Live, Broken)>,
}

impl Verdict<'_> {
    /// Whether the rows of the slot must be read in full.
    fn matters(&self) -> bool {
        let replaced = self.repair.is_some_and(|(live, _)| live.replaces);
        replaced || self.own.flatten().is_some() || (self.own.is_none() && self.repair.is_some_and(|(_, broken)| broken.is_some()))
    }
}

impl Examination<'_> {
    /// Examines a window of slots of some keys.
    pub(super) async fn examine(&self, window: SlotRange, keys: &[Key], found: &mut Found) -> Result<()> {
        let reach = self.rules.iter().map(Rule::reach).max().unwrap_or(0);
        let wide = SlotRange::new(window.first.saturating_sub(reach), window.end.saturating_add(reach));
        let interval = self.grid.interval_of(wide).ok_or_else(|| Error::invalid("the time of a slot is out of range"))?;
        let live = LiveRepairs::read(self.context.lake.as_ref(), self.table, interval, keys, self.columns).await?;
        let shown = self.shown(&live)?;
        let scan =
            |columns: Option<Vec<String>>| ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys.to_vec()).with_columns(columns);
        if self.has_others {
            let (rows, _) = self.read(&scan(Some(self.columns.to_vec())), false, found).await?;
            let is_clean = |key: &Key| self.verdicts(key, window, &rows, &live, &shown).iter().all(|verdict| !verdict.matters());
            if keys.iter().all(is_clean) {
                return Ok(());
            }
        }
        // Reads all columns and judges again, because the rows may have changed in between.
        let (rows, batches) = self.read(&scan(None), true, found).await?;
        let verdicts: Vec<(&Key, Vec<Verdict<'_>>)> = keys
            .iter()
            .map(|key| {
                let verdicts = self.verdicts(key, window, &rows, &live, &shown).into_iter();
                (key, verdicts.filter(Verdict::matters).collect())
            })
            .collect();
        let matter: BTreeMap<&Key, BTreeSet<i64>> =
            verdicts.iter().map(|(key, verdicts)| (*key, verdicts.iter().map(|verdict| verdict.slot).collect())).collect();
        let mut hashing = Hashing::default();
        for batch in &batches {
            hashing.add(self.table, self.grid, batch, |key, slot| matter.get(key).is_some_and(|slots| slots.contains(&slot)))?;
        }
        for (key, verdicts) in verdicts {
            verdicts.iter().for_each(|verdict| self.settle(found, key, verdict, &mut hashing));
        }
        Ok(())
    }

    /// Adds the verdict on a slot to the findings, once the fingerprint of its rows is known.
    fn settle(&self, found: &mut Found, key: &Key, verdict: &Verdict<'_>, hashing: &mut Hashing) {
        let slot = verdict.slot;
        let fingerprint = hashing.fingerprint(key, slot);
        let own = verdict.own.flatten().map(|rule| (rule, "its row"));
        let shown = |broken: Broken| broken.map(|rule| (rule, "its repair"));
        let wrong = match verdict.repair {
            Some((live, broken)) if live.replaces => {
                let has_changed = live.replaced != Some(fingerprint);
                let wrong = shown(broken).or(own.filter(|_| has_changed));
                found.replaced += u64::from(wrong.is_none());
                found.changed += u64::from(wrong.is_none() && has_changed);
                wrong
            }
            Some((_, broken)) if verdict.own.is_none() => shown(broken),
            _ => own,
        };
        let Some((rule, what)) = wrong else { return };
        found.judged.insert(key, slot, fingerprint);
        match found.wrong.get_mut(key) {
            Some(slots) => slots.push(slot),
            None => {
                found.wrong.insert(key.clone(), vec![slot]);
            }
        }
        if found.examples.len() < MAX_EXAMPLES
            && let Some(rule) = self.rules.get(rule)
        {
            found.examples.push(format!("{key} at {}: {what} breaks `{rule}`", self.grid.time_of(slot)));
        }
    }

    async fn read(&self, request: &ScanRequest, keep: bool, found: &mut Found) -> Result<(BTreeMap<Key, Rows>, Vec<RecordBatch>)> {
        let mut batches = self.context.lake.scan(self.table, request).await.map_err(blind_if_missing)?;
        let (mut rows, mut kept): (BTreeMap<Key, Rows>, _) = (BTreeMap::new(), Vec::new());
        while let Some(batch) = batches.try_next().await? {
            self.context.check_cancelled()?;
            found.usage.rows_read += batch.num_rows() as u64;
            self.add(&mut rows, &batch)?;
            if keep {
                kept.push(batch);
            }
        }
        rows.values_mut().for_each(|rows| rows.rows.sort_unstable_by_key(|row| (row.0, row.1)));
        Ok((rows, kept))
    }

    fn add(&self, all: &mut BTreeMap<Key, Rows>, batch: &RecordBatch) -> Result<()> {
        let places = KeyTime::of(self.table, batch)?;
        let (wrong, values) = (self.marked(batch)?, self.values(batch)?);
        for run in places.runs() {
            let rows = all.entry(places.key(run.start)).or_default();
            for row in run {
                let time_us = places.times.value(row);
                let Some(slot) = self.grid.slot_of_row(time_us) else { continue };
                rows.rows.push((slot, time_us, wrong[row], rows.values.len()));
                rows.values.extend(values.iter().map(|values| value(values.as_ref(), row).unwrap_or(f64::NAN)));
            }
        }
        Ok(())
    }

    fn marked(&self, batch: &RecordBatch) -> Result<Vec<Broken>> {
        let mut wrong = vec![None; batch.num_rows()];
        self.of_table.iter().enumerate().try_for_each(|(number, rule)| rule.mark(batch, number, &mut wrong))?;
        Ok(wrong)
    }

    /// The neighbour rules, each with its number.
    fn among_neighbours(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.of_table.iter().enumerate().filter(|(_, rule)| rule.is_among_neighbours())
    }

    fn values(&self, batch: &RecordBatch) -> Result<Vec<Option<Float64Array>>> {
        let named = self.among_neighbours().filter_map(|(_, rule)| rule.column.as_deref());
        named.map(|name| batch.column_by_name(name).map(|column| numbers(name, column)).transpose()).collect()
    }

    fn shown(&self, live: &LiveRepairs) -> Result<Shown> {
        let mut shown = Shown { wrong: Vec::new(), values: Vec::new() };
        for batch in live.batches() {
            shown.wrong.push(self.marked(batch)?);
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
        let mut slots: BTreeMap<i64, OfSlot> = BTreeMap::new();
        for &(slot, _, wrong, values) in &rows.rows {
            let of_slot = slots.entry(slot).or_default();
            of_slot.own = Some(of_slot.own.flatten().or(wrong));
            of_slot.first.get_or_insert(values);
        }
        for (slot, _) in live.of_key(key) {
            slots.entry(slot).or_default();
        }
        let mut among_neighbours: Vec<Broken> = vec![None; slots.len()];
        for (number, (of_rule, rule)) in self.among_neighbours().enumerate() {
            let points: Vec<Point> = slots
                .iter()
                .map(|(&slot, &OfSlot { first, .. })| {
                    let own = first.and_then(|first| rows.values.get(first + number)).copied().filter(|value| !value.is_nan());
                    let repair = live.get(key, slot).filter(|live| live.replaces || first.is_none());
                    let repaired = |live: &Live| value(shown.values[live.batch].get(number).and_then(Option::as_ref), live.row);
                    Point { slot, own, shown: repair.map_or(own, repaired) }
                })
                .collect();
            let mut wrong = vec![false; points.len()];
            if let Some(outlier) = &rule.outlier {
                series::outliers(&points, outlier, &mut wrong);
            }
            if let Some(most) = rule.frozen {
                series::frozen(&points, most, &mut wrong);
            }
            let newly = among_neighbours.iter_mut().zip(wrong).filter(|(broken, wrong)| broken.is_none() && *wrong);
            newly.for_each(|(broken, _)| *broken = Some(of_rule));
        }
        let verdict = |((slot, OfSlot { own, .. }), among): ((i64, OfSlot), Broken)| {
            let repair = live.get(key, slot).map(|live| (live, shown.wrong[live.batch][live.row]));
            Verdict { slot, own: own.map(|own| own.or(among)), repair }
        };
        let examined = |slot: i64| window.contains(slot) && self.examined.contains(key, slot);
        slots.into_iter().zip(among_neighbours).filter(|((slot, _), _)| examined(*slot)).map(verdict).collect()
    }
}

fn value(values: Option<&Float64Array>, row: usize) -> Option<f64> {
    values.filter(|values| values.is_valid(row)).map(|values| values.value(row))
}
