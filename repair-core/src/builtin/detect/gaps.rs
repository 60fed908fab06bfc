//! The detector `gaps`, and its search, which detectors for one kind of data share.
//!
//! It asks the lake for presence, and computes *missing = expected − present − repaired − confirmed absent*. What is expected comes from the
//! workflow and the calendar, never from the captured data, because an outage would delete its own evidence. It reads rows only where repairs
//! replace some among duplicates, to count those that are left.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::TryStreamExt;
use serde_json::Value;

use crate::builtin::detect::clock::{self, Clocks};
use crate::builtin::detect::expected::GapsConfig;
use crate::builtin::detect::expected::{MOST_KEYS, blind_if_missing, expected_of, nothing_expected, settled};
use crate::error::{Error, Result};
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, PresenceRequest, ScanRequest};
use crate::model::Usage;
use crate::model::{
    Cadence, Counts, DefectKind, ExpectedSlots, Findings, GapList, Key, KeyPresence, OtherKeys, Quarantine, Rows, Scope, SlotRange,
    SlotSet, Table, TablePresence, TimeMark,
};
use crate::plugin::{Detector, Registry, Sensor, StepContext};

/// How many presence words are held at once, over all keys. At about 28 bytes each, they take some hundred megabytes. 4 M words are a year
/// of minutes of 450 keys.
const WORDS_AT_ONCE: u64 = 4 << 20;

const DAY_S: u64 = 86_400;

pub(super) fn register(registry: &mut Registry) {
    registry.detector("gaps", "finds the expected slots of a series that hold no row", Gaps::new);
    registry.finds("gaps", DefectKind::Missing);
    registry.sensor("gaps", "counts the expected slots of a series that hold no row", Gaps::new);
}

/// The detector `gaps`.
struct Gaps {
    config: GapsConfig,
}

impl Gaps {
    fn new(config: GapsConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config })
    }
}

#[async_trait]
impl Sensor for Gaps {
    async fn sense(&self, context: &StepContext) -> Result<Value> {
        let counts = self.detect(context, None).await?.counts;
        serde_json::to_value(counts).map_err(|error| Error::internal("counts are not JSON").because(error))
    }
}

#[async_trait]
impl Detector for Gaps {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.config.scope(context).await?,
        };
        examined(context, &scope, again, self.config.allow_empty).await
    }
}

/// Finds the expected slots of a scope that hold no row, and counts the slots in each state.
///
/// With `again`, only the gaps of those findings are examined and counted.
///
/// Slots that have not settled yet are not expected, and the scope of the findings ends before them. If no slot at all is expected, the search is
/// blind; [`find_gaps_allow_empty`] then finds nothing.
///
/// Duplicates are counted by presence word (an hour of minutes), in the words with at least one expected slot that holds a row. Rows that a
/// repair replaces do not count, nor do those of a table in which slots hold many rows.
///
/// # Errors
/// `invalid` if the keys do not fit the table; `blind` if the calendar does not cover the interval or expects nothing there, or the table does
/// not exist; and those of the lake.
pub async fn find_gaps(context: &StepContext, scope: &Scope, again: Option<&Findings>) -> Result<Findings> {
    examined(context, scope, again, false).await
}

/// As [`find_gaps`], if it is fine that no slot at all is expected.
///
/// # Errors
/// As [`find_gaps`], except that.
pub async fn find_gaps_allow_empty(context: &StepContext, scope: &Scope, again: Option<&Findings>) -> Result<Findings> {
    examined(context, scope, again, true).await
}

/// Sees, of each key and window, which slots are expected, and which of these are missing.
pub(super) type Observer<'a> = &'a mut (dyn FnMut(&Key, &SlotSet, &SlotSet) + Send);

/// As [`find_gaps`] or [`find_gaps_allow_empty`].
pub(super) async fn examined(context: &StepContext, asked: &Scope, again: Option<&Findings>, allow_empty: bool) -> Result<Findings> {
    observed(context, asked, again, allow_empty, &mut |_, _, _| {}).await
}

/// As [`examined`], under the eyes of an observer.
pub(super) async fn observed(
    context: &StepContext,
    asked: &Scope,
    again: Option<&Findings>,
    allow_empty: bool,
    observer: Observer<'_>,
) -> Result<Findings> {
    let Searched { findings, replaced, .. } = search(context, asked, again, allow_empty, observer).await?;
    without_replaced(context, findings, &replaced).await
}

/// What a search found.
pub(super) struct Searched {
    /// The gaps, and the counts. Among the duplicates are the rows that a repair replaces.
    pub(super) findings: Findings,
    /// The slots that may hold several rows. The count of a word does not show which of its slots do.
    pub(super) crowded: GapList,
    /// Of these, the slots whose rows a repair replaces.
    replaced: GapList,
}

/// Takes the rows that a repair replaces from the count of duplicates. Only their slots are read, in one scan.
async fn without_replaced(context: &StepContext, mut findings: Findings, replaced: &GapList) -> Result<Findings> {
    let scope = &findings.scope;
    let Some(interval) = replaced.hull().and_then(|hull| scope.grid.interval_of(hull)) else { return Ok(findings) };
    let table = context.table(&scope.table)?;
    let keys: Vec<Key> = replaced.by_key().into_keys().collect();
    let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys).with_columns(Vec::new());
    let mut batches = context.lake.scan(table, &request).await.map_err(blind_if_missing)?;
    let (mut seen, mut hidden): (BTreeSet<(Key, i64)>, u64) = Default::default();
    while let Some(batch) = batches.try_next().await? {
        context.check_cancelled()?;
        findings.usage.rows_read += batch.num_rows() as u64;
        let rows = KeyTime::of(table, &batch)?;
        for run in rows.runs() {
            let key = rows.key(run.start);
            for &time_us in &rows.times.values()[run] {
                let slot = scope.grid.slot_of_row(time_us).filter(|slot| replaced.contains(&key, *slot));
                hidden += slot.map_or(0, |slot| u64::from(!seen.insert((key.clone(), slot))));
            }
        }
    }
    findings.counts.duplicates = findings.counts.duplicates.saturating_sub(hidden);
    Ok(findings)
}

/// Searches for gaps, and for slots that may hold several rows.
pub(super) async fn search(
    context: &StepContext,
    asked: &Scope,
    again: Option<&Findings>,
    allow_empty: bool,
    observer: Observer<'_>,
) -> Result<Searched> {
    let nothing_found = |findings| Searched { findings, crowded: GapList::default(), replaced: GapList::default() };
    let table = context.table(&asked.table)?;
    // A table that lists keys may have none for the interval.
    let keys = if asked.keys.is_empty() && allow_empty { Vec::new() } else { checked_keys(table, &asked.keys)? };
    let scope = if again.is_some() { Some(asked.clone()) } else { settled(context, asked)? };
    let scope = match &scope {
        Some(scope) => scope,
        None if allow_empty => {
            let counts = Counts { audited_keys: keys.len() as u64, ..Counts::default() };
            return Ok(nothing_found(Findings::of_gaps(asked.clone(), counts, GapList::default(), Usage::default())));
        }
        None => return Err(nothing_expected(context, asked)?),
    };
    let mut search = match again {
        Some(before) => Search { counts_duplicates: table.rows == Rows::One, ..Search::again(scope, before) },
        None => Search {
            counts_duplicates: table.rows == Rows::One,
            clocks: clock::applies(table).then(|| Clocks::new(scope.grid)),
            ..Search::first(scope, keys)
        },
    };
    let windows = windows(scope.grid.cadence(), search.hull, search.keys.len());
    let total = windows.len() as u64;
    for (done, window) in (0u64..).zip(windows) {
        context.check_cancelled()?;
        let Some(slots) = search.narrow(window) else { continue };
        let expected = match again {
            Some(_) => None,
            None => Some(expected_of(context, scope, slots)?),
        };
        let keys = search.keys.iter().map(|(key, _)| key.clone()).collect();
        let request = PresenceRequest { slots, keys, as_of: context.entered_at };
        let presence = context.lake.presence(table, &request).await.map_err(blind_if_missing)?;
        search.count(scope.grid.cadence(), slots, expected.as_ref(), &presence, observer);
        context.progress.advance(&context.step, done + 1, total);
    }
    if again.is_none() {
        let off = search.counts.misaligned;
        check_alignment(table, off, off + search.aligned, "nothing can be said about what is missing")?;
    }
    if again.is_none() && search.counts.expected == 0 && !allow_empty {
        return Err(nothing_expected(context, scope)?);
    }
    let (crowded, replaced) = (search.list(&search.crowded), search.list(&search.replaced));
    let zone = search.clocks.as_ref().and_then(Clocks::found).cloned();
    let notices = zone.iter().map(|zone| clock::notice(table, zone)).collect();
    Ok(Searched { findings: Findings { notices, ..search.findings(scope) }, crowded, replaced })
}

/// The keys, in order, after checking that they fit the table.
fn checked_keys(table: &Table, keys: &[Key]) -> Result<Vec<Key>> {
    if keys.is_empty() {
        return Err(Error::invalid(format!("no keys are given for table `{}`; list at least one", table.name)));
    }
    if keys.len() > MOST_KEYS {
        return Err(Error::invalid(format!("{} keys are given, and at most {MOST_KEYS} are allowed; examine fewer at a time", keys.len())));
    }
    for key in keys {
        if key.values().len() != table.key.len() {
            return Err(Error::invalid(format!(
                "key `{key}` has {} values, but table `{}` has {} key columns ({})",
                key.values().len(),
                table.name,
                table.key.len(),
                table.key.join(", ")
            )));
        }
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid(format!("key `{}` is listed twice and would be counted twice; list it once", pair[0])));
    }
    Ok(sorted)
}

/// Windows of slots, in order, small enough that the words of all keys fit in memory. If a window is longer than a day, its bounds are
/// days, so that no partition is read twice.
pub(crate) fn windows(cadence: Cadence, slots: SlotRange, keys: usize) -> Vec<SlotRange> {
    let per_word = u64::from(cadence.slots_per_word());
    let keys = u64::try_from(keys).unwrap_or(u64::MAX).max(1);
    let slots_at_once = (WORDS_AT_ONCE / keys).max(1).saturating_mul(per_word);
    let per_day = (DAY_S / u64::from(cadence.seconds())).max(1);
    let unit = if slots_at_once >= per_day { per_day } else { per_word };
    let (unit, length) = (i64::try_from(unit).unwrap_or(1), i64::try_from(slots_at_once / unit * unit).unwrap_or(i64::MAX));
    let mut windows = Vec::new();
    let mut first = slots.first;
    while first < slots.end {
        let aligned = first.div_euclid(unit) * unit;
        let end = aligned.saturating_add(length).min(slots.end);
        windows.push(SlotRange::new(first, end));
        first = end;
    }
    windows
}

/// The state of a search.
struct Search {
    /// The slots to examine.
    hull: SlotRange,
    /// The keys, in order; when checking again, with the gaps of the earlier findings.
    keys: Vec<(Key, Option<Vec<SlotRange>>)>,
    /// The gaps found, for each key.
    missing: Vec<Vec<SlotRange>>,
    /// For each key, the expected slots that hold rows, in words with more rows than such slots.
    crowded: Vec<Vec<SlotRange>>,
    /// For each key, those of them whose rows a repair replaces.
    replaced: Vec<Vec<SlotRange>>,
    /// Whether a second row of a slot is a duplicate.
    counts_duplicates: bool,
    counts: Counts,
    /// The rows that could not be read.
    quarantine: Quarantine,
    /// The rows of each file that are too far from their folder.
    stray: BTreeMap<String, u64>,
    other_keys: OtherKeys,
    /// Whether times that are read as UTC follow a local clock.
    clocks: Option<Clocks>,
    /// How many rows of the keys were seen whose time is near that of their slot.
    aligned: u64,
    usage: Usage,
}

impl Search {
    fn first(scope: &Scope, keys: Vec<Key>) -> Self {
        Self::new(scope.slots(), keys.into_iter().map(|key| (key, None)).collect())
    }

    fn again(scope: &Scope, before: &Findings) -> Self {
        let nothing = SlotRange::new(scope.slots().first, scope.slots().first);
        let keys = before.gaps.by_key().into_iter().map(|(key, gaps)| (key, Some(gaps))).collect();
        Self::new(before.gaps.hull().unwrap_or(nothing), keys)
    }

    fn new(hull: SlotRange, keys: Vec<(Key, Option<Vec<SlotRange>>)>) -> Self {
        let counts = Counts { audited_keys: keys.len() as u64, ..Counts::default() };
        let none = vec![Vec::new(); keys.len()];
        Self {
            hull,
            missing: none.clone(),
            crowded: none.clone(),
            replaced: none,
            counts_duplicates: true,
            keys,
            counts,
            quarantine: Quarantine::default(),
            stray: BTreeMap::new(),
            other_keys: OtherKeys::default(),
            clocks: None,
            aligned: 0,
            usage: Usage::default(),
        }
    }

    /// The part of a window to examine: when checking again, from the first gap of the earlier findings to the last.
    fn narrow(&self, window: SlotRange) -> Option<SlotRange> {
        let mut narrowed: Option<SlotRange> = None;
        for (_, gaps) in &self.keys {
            let Some(gaps) = gaps else { return Some(window) };
            let within = within(gaps, window);
            if let (Some(first), Some(last)) = (within.first(), within.last()) {
                let hull = SlotRange::new(first.first, last.end).intersection(&window);
                narrowed = Some(narrowed.map_or(hull, |so_far| SlotRange::new(so_far.first.min(hull.first), so_far.end.max(hull.end))));
            }
        }
        narrowed
    }

    /// Counts one window. `expected` holds the expected slots of each key; `None` when checking again.
    fn count(
        &mut self,
        cadence: Cadence,
        slots: SlotRange,
        expected: Option<&ExpectedSlots<'_>>,
        presence: &TablePresence,
        observer: &mut (dyn FnMut(&Key, &SlotSet, &SlotSet) + Send),
    ) {
        self.usage += presence.usage;
        if expected.is_some() {
            let raw = &presence.raw;
            self.counts.misaligned += raw.misaligned_rows;
            self.aligned += raw.keys.values().flat_map(|key| &key.rows).map(|rows| u64::from(*rows)).sum::<u64>();
            self.counts.misplaced += raw.misplaced_rows;
            self.counts.other_keys += raw.other_rows;
            self.other_keys.merge(&raw.other_keys);
        }
        if let Some(clocks) = &mut self.clocks {
            clocks.look(slots, presence);
        }
        // Of a file that is read for several windows, all of its bad rows are seen each time.
        self.quarantine.merge(presence.raw.quarantine.clone());
        for (file, rows) in &presence.raw.stray_rows {
            let seen = self.stray.entry(file.clone()).or_default();
            *seen = (*seen).max(*rows);
        }
        let nothing = KeyPresence::new(cadence, slots);
        let lists = self.missing.iter_mut().zip(&mut self.crowded).zip(&mut self.replaced);
        for ((key, gaps), ((found, crowded), replaced)) in self.keys.iter().zip(lists) {
            let raw = presence.raw.keys.get(key).unwrap_or(&nothing);
            let repaired = presence.repaired.get(key);
            let expected_of_key = match expected {
                Some(expected) => expected.of_key(key),
                None => gap_set(cadence, slots, gaps.as_deref().unwrap_or_default()),
            };
            let held = presence.held(key);
            let mut held = held.unwrap_or_else(|| SlotSet::new(cadence, slots));
            if let Some(expected) = expected {
                let mut unexpected = SlotSet::new(cadence, slots);
                unexpected.insert_range(expected.examined_of(key));
                unexpected.intersect(&held);
                unexpected.subtract(&expected_of_key);
                self.counts.unexpected += unexpected.count();
            }
            for (word, more) in duplicates(raw, &expected_of_key).filter(|_| self.counts_duplicates) {
                self.counts.duplicates += more;
                let mut slots = SlotSet::new(cadence, slots);
                slots.insert_word(word, u64::MAX);
                slots.intersect(&raw.present);
                slots.intersect(&expected_of_key);
                slots.runs().for_each(|run| append(crowded, run));
                // Where the table has a row of its own, a repair replaces it, removes it, or is overtaken.
                if let (Some(repaired), true) = (repaired, expected.is_some()) {
                    let mut hiding = repaired.clone();
                    if let Some(overtaken) = presence.overtaken.get(key) {
                        hiding.subtract(overtaken);
                    }
                    if let Some(removed) = presence.removed.get(key) {
                        hiding.union(removed);
                    }
                    slots.intersect(&hiding);
                    slots.runs().for_each(|run| append(replaced, run));
                }
            }
            let removed = presence.removed.get(key).filter(|removed| !removed.is_empty());
            held.intersect(&expected_of_key);
            if let Some(overtaken) = presence.overtaken.get(key) {
                self.counts.overtaken += common(overtaken, &expected_of_key);
            }
            if let Some(absent) = presence.absent.get(key) {
                self.counts.conflicts += common(absent, &held);
            }
            let mut missing = expected_of_key.clone();
            self.counts.expected += missing.count();
            missing.subtract(&held);
            let not_present = missing.count();
            if let Some(absent) = presence.absent.get(key) {
                missing.subtract(absent);
            }
            if let Some(removed) = removed {
                self.counts.removed += common(removed, &expected_of_key);
                missing.subtract(removed);
            }
            let still_missing = missing.count();
            self.counts.present += held.count();
            held.subtract(&raw.present);
            self.counts.repaired += held.count();
            self.counts.absent += not_present - still_missing;
            self.counts.missing += still_missing;
            observer(key, &expected_of_key, &missing);
            missing.runs().for_each(|run| append(found, run));
        }
    }

    /// The gaps of all keys as one list.
    fn list(&self, runs: &[Vec<SlotRange>]) -> GapList {
        let mut list = GapList::default();
        for ((key, _), runs) in self.keys.iter().zip(runs) {
            runs.iter().for_each(|&slots| list.push(key, slots));
        }
        list
    }

    fn findings(mut self, scope: &Scope) -> Findings {
        let gaps = self.list(&self.missing);
        self.counts.gaps = gaps.len() as u64;
        self.counts.stray = self.stray.values().sum();
        self.counts.quarantined = self.quarantine.rows();
        let (quarantine, other_keys) = (self.quarantine, self.other_keys);
        Findings { quarantine, other_keys, ..Findings::of_gaps(scope.clone(), self.counts, gaps, self.usage) }
    }
}

/// Checks that not more rows are off the grid than the table allows. They hold no slot, so a wrong grid would make everything missing.
///
/// # Errors
/// `blind` if more are; `so` says what follows from that.
pub(crate) fn check_alignment(table: &Table, off: u64, all: u64, so: &str) -> Result<()> {
    let limit = table.misaligned.unwrap_or(Table::MISALIGNED);
    if !limit.is_exceeded(off, all) {
        return Ok(());
    }
    let grid = table.grid()?;
    let near = match grid.tolerance_s() {
        0 => "exactly".to_owned(),
        seconds => format!("within {seconds} s"),
    };
    Err(Error::blind(format!(
        "{off} of {all} rows of table `{}` have a time that is not {near} where {} slots {}, and `misaligned` allows {limit}; such rows belong to no \
         slot, and {so}. Write where slots begin, e.g. `cadence: {{ every: {}, at: \":51\" }}`, a `tolerance`, the right `marks` or `zone`, or a \
         larger `misaligned`",
        table.name,
        grid.cadence(),
        match grid.marks() {
            TimeMark::Start => "begin",
            TimeMark::End => "end",
        },
        grid.cadence(),
    )))
}

/// The gaps that overlap a range. The gaps must be in order and disjoint.
fn within(gaps: &[SlotRange], range: SlotRange) -> &[SlotRange] {
    let start = gaps.partition_point(|gap| gap.end <= range.first);
    let end = gaps.partition_point(|gap| gap.first < range.end);
    gaps.get(start..end).unwrap_or_default()
}

/// How many slots are in both sets.
fn common(one: &SlotSet, other: &SlotSet) -> u64 {
    let mut both = one.clone();
    both.intersect(other);
    both.count()
}

fn gap_set(cadence: Cadence, slots: SlotRange, gaps: &[SlotRange]) -> SlotSet {
    let mut set = SlotSet::new(cadence, slots);
    for &gap in within(gaps, slots) {
        set.insert_range(gap);
    }
    set
}

/// Adds a range of slots, or extends the last one.
fn append(runs: &mut Vec<SlotRange>, run: SlotRange) {
    match runs.last_mut() {
        Some(last) if last.end == run.first => last.end = run.end,
        _ => runs.push(run),
    }
}

/// Rows in excess of one per slot, by word number, in the words that hold an expected slot with a row.
fn duplicates<'a>(raw: &'a KeyPresence, expected: &'a SlotSet) -> impl Iterator<Item = (i64, u64)> + 'a {
    (raw.present.first_word()..)
        .zip(raw.present.words().iter().zip(&raw.rows))
        .filter(|(number, (word, _))| {
            let expected = usize::try_from(number - expected.first_word()).ok().and_then(|index| expected.words().get(index));
            *word & expected.copied().unwrap_or(0) != 0
        })
        .map(|(number, (word, rows))| (number, u64::from(rows.saturating_sub(word.count_ones()))))
        .filter(|(_, more)| *more > 0)
}
