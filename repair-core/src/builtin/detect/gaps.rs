//! The detector `gaps`, and its search, which detectors for one kind of data share.
//!
//! It asks the lake for presence, and computes *missing = expected − present − repaired − confirmed absent*. What is expected comes from the
//! workflow and the calendar, never from the captured data, because an outage would delete its own evidence. It reads rows only where repairs
//! replace some among duplicates, to count those that are left.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use serde_json::Value;

use crate::builtin::detect::clock::{self, Clocks};
use crate::builtin::detect::expected::GapsConfig;
use crate::builtin::detect::expected::{MOST_KEYS, blind_if_missing, expected_of, nothing_expected, settled};
use crate::engine::aside;
use crate::error::{Error, Result};
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, PresenceRequest, ScanRequest};
use crate::model::Usage;
use crate::model::{
    Cadence, Counts, DefectKind, ExpectedSlots, Findings, GapList, Key, KeyPresence, OtherKeys, Quarantine, Rows, Runs, Scope, Seen,
    SlotGrid, SlotRange, SlotSet, SlotStart, Table, TablePresence, TimeMark, within as bits_within,
};
use crate::plugin::{Detector, GapSink, Registry, Sensor, StepContext};

/// How many presence words a lake that is queried is asked for at once, over all keys. At about 28 bytes each, they take some hundred megabytes.
/// 4 M words are a year of minutes of 450 keys.
const WORDS_AT_ONCE: u64 = 4 << 20;

/// How many words a piece has that a lake of files is asked for: a week and a half of minutes of 500 keys. Debug builds use so few that tests see
/// several pieces.
const WORDS_OF_PIECE: u64 = if cfg!(debug_assertions) { 1 << 9 } else { 1 << 17 };

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
        // Whoever waits for slots does not wait for those that people have set aside.
        let counts = aside::detect(self, context, None, None, None).await?.counts;
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

    async fn detect_into(&self, context: &StepContext, again: Option<&Findings>, sink: &GapSink) -> Result<Findings> {
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.config.scope(context).await?,
        };
        find_gaps_into(context, &scope, again, self.config.allow_empty, sink).await
    }

    async fn rests_on(&self, context: &StepContext) -> Result<Option<String>> {
        gaps_rest_on(context, &self.config.scope(context).await?, self.config.allow_empty).await
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

/// As [`find_gaps`], or as [`find_gaps_allow_empty`], but the gaps are handed over as they are found, and the findings have none of their own. What
/// is in memory then does not grow with the time that is examined, nor with the gaps; only by a few bytes for each stretch that is repaired or absent.
///
/// # Errors
/// As [`find_gaps`], and if the gaps are no longer taken.
pub async fn find_gaps_into(
    context: &StepContext,
    scope: &Scope,
    again: Option<&Findings>,
    allow_empty: bool,
    sink: &GapSink,
) -> Result<Findings> {
    let Searched { findings, replaced, .. } = search(context, scope, again, allow_empty, Some(sink), &mut |_, _, _| {}).await?;
    without_replaced(context, findings, &replaced).await
}

/// What [`find_gaps_into`] rests on when it looks for the first time, as a digest; see [`Detector::rests_on`].
///
/// # Errors
/// None of the lake: if it cannot say, the search itself will.
pub async fn gaps_rest_on(context: &StepContext, asked: &Scope, allow_empty: bool) -> Result<Option<String>> {
    let table = context.table(&asked.table)?;
    let Some(scope) = settled(context, asked)? else { return Ok(None) };
    // Rows may lie outside their folders, so all files count.
    let Ok(extent) = context.lake.extent(table, None).await else { return Ok(None) };
    let Some(evidence) = extent.evidence else { return Ok(None) };
    let mut hasher = blake3::Hasher::new();
    let version = env!("CARGO_PKG_VERSION");
    hasher.update(format!("{version} {evidence} {allow_empty} {table:?} {scope:?}").as_bytes());
    expected_of(context, &scope, scope.slots())?.digest(&mut hasher);
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

/// Sees, of each key and piece of time, which slots are expected, and which of these are missing.
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
    let Searched { findings, replaced, .. } = search(context, asked, again, allow_empty, None, observer).await?;
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

/// Searches for gaps, and for slots that may hold several rows. With a sink, the gaps are handed over.
pub(super) async fn search(
    context: &StepContext,
    asked: &Scope,
    again: Option<&Findings>,
    allow_empty: bool,
    sink: Option<&GapSink>,
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
    if sink.is_some() {
        search.found = Found::HandedOver { gaps: GapList::default(), open: vec![None; search.keys.len()], count: 0 };
    }
    let stretches = search.stretches(scope.grid, context.lake.is_queried());
    let total = stretches.iter().map(|(_, pieces)| pieces.len() as u64).sum();
    let keys: Vec<Key> = search.keys.iter().map(|(key, _)| key.clone()).collect();
    let mut done = 0;
    for (slots, pieces) in stretches {
        let request = PresenceRequest { slots, keys: keys.clone(), as_of: context.entered_at };
        let mut presences = context.lake.presence_in_pieces(table, &request, &pieces);
        for &slots in &pieces {
            context.check_cancelled()?;
            let expected = match again {
                Some(_) => None,
                None => Some(expected_of(context, scope, slots)?),
            };
            let presence = presences.try_next().await.map_err(blind_if_missing)?;
            let presence = presence.ok_or_else(|| Error::internal("the lake has answered only a part of what it was asked"))?;
            done += 1;
            search.count(scope.grid.cadence(), slots, expected.as_ref(), presence, done == total, observer);
            if let Some(sink) = sink {
                search.hand_over(sink).await?;
            }
            context.progress.advance(&context.step, done, total);
        }
        if presences.try_next().await.map_err(blind_if_missing)?.is_some() {
            return Err(Error::internal("the lake has answered more than it was asked"));
        }
    }
    if again.is_none() {
        let off = search.counts.misaligned;
        check_alignment(table, off, off + search.aligned, "nothing can be said about what is missing")?;
    }
    if again.is_none() && search.counts.expected == 0 && !allow_empty {
        return Err(nothing_expected(context, scope)?);
    }
    let crowded = list(&search.keys, std::mem::take(&mut search.crowded));
    let replaced = list(&search.keys, std::mem::take(&mut search.replaced));
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
    cut(cadence, slots, keys, WORDS_AT_ONCE, &[])
}

/// Pieces of slots, in order, with about so many words of all keys each. If a piece is longer than a day, its bounds are days. What is `whole`
/// is not cut.
fn cut(cadence: Cadence, slots: SlotRange, keys: usize, words: u64, whole: &[SlotRange]) -> Vec<SlotRange> {
    let per_word = u64::from(cadence.slots_per_word());
    let keys = u64::try_from(keys).unwrap_or(u64::MAX).max(1);
    let slots_at_once = (words / keys).max(1).saturating_mul(per_word);
    let per_day = (DAY_S / u64::from(cadence.seconds())).max(1);
    let unit = if slots_at_once >= per_day { per_day } else { per_word };
    let (unit, length) = (i64::try_from(unit).unwrap_or(1), i64::try_from(slots_at_once / unit * unit).unwrap_or(i64::MAX));
    let is_cut = |at: i64| whole.iter().any(|range| range.first < at && at < range.end);
    let mut pieces = Vec::new();
    let mut first = slots.first;
    while first < slots.end {
        let aligned = first.div_euclid(unit) * unit;
        let mut end = aligned.saturating_add(length);
        while end < slots.end && is_cut(end) {
            end = end.saturating_add(unit);
        }
        let end = end.min(slots.end);
        pieces.push(SlotRange::new(first, end));
        first = end;
    }
    pieces
}

/// The state of a search.
struct Search {
    /// The slots to examine.
    hull: SlotRange,
    /// The keys, in order; when checking again, with the gaps of the earlier findings.
    keys: Vec<(Key, Option<Runs>)>,
    /// The gaps found.
    found: Found,
    /// For each key, the expected slots that hold rows, in words with more rows than such slots.
    crowded: Vec<Runs>,
    /// For each key, those of them whose rows a repair replaces.
    replaced: Vec<Runs>,
    /// For each key, the expected slots that hold only a repair.
    repaired: Vec<Runs>,
    /// For each key, the expected slots that are confirmed absent.
    absent: Vec<Runs>,
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
    /// When the first evidence of an absence expires; `None` if the lake does not say.
    absent_until: Option<Timestamp>,
    usage: Usage,
}

/// What becomes of gaps.
enum Found {
    /// They are kept, for each key.
    Kept(Vec<Runs>),
    /// They are handed over piece by piece.
    HandedOver {
        /// Those of the piece.
        gaps: GapList,
        /// For each key, the gap that reaches the end of the piece, and may go on in the next.
        open: Vec<Option<SlotRange>>,
        /// How many were handed over.
        count: u64,
    },
}

impl Search {
    fn first(scope: &Scope, keys: Vec<Key>) -> Self {
        Self::new(scope.slots(), keys.into_iter().map(|key| (key, None)).collect())
    }

    fn again(scope: &Scope, before: &Findings) -> Self {
        let nothing = SlotRange::new(scope.slots().first, scope.slots().first);
        let keys = before.gaps.runs().map(|(key, gaps)| (key.clone(), Some(gaps.clone()))).collect();
        Self::new(before.gaps.hull().unwrap_or(nothing), keys)
    }

    fn new(hull: SlotRange, keys: Vec<(Key, Option<Runs>)>) -> Self {
        let counts = Counts { audited_keys: keys.len() as u64, ..Counts::default() };
        let none = vec![Runs::default(); keys.len()];
        Self {
            hull,
            found: Found::Kept(none.clone()),
            crowded: none.clone(),
            replaced: none.clone(),
            repaired: none.clone(),
            absent: none,
            counts_duplicates: true,
            keys,
            counts,
            quarantine: Quarantine::default(),
            stray: BTreeMap::new(),
            other_keys: OtherKeys::default(),
            clocks: None,
            aligned: 0,
            absent_until: Some(Timestamp::MAX),
            usage: Usage::default(),
        }
    }

    /// The part of a window to examine: when checking again, from the first gap of the earlier findings to the last.
    fn narrow(&self, window: SlotRange) -> Option<SlotRange> {
        let mut narrowed: Option<SlotRange> = None;
        for (_, gaps) in &self.keys {
            let Some(gaps) = gaps else { return Some(window) };
            let hull = gaps.within(window).reduce(|first, last| SlotRange::new(first.first, last.end));
            if let Some(hull) = hull {
                let hull = hull.intersection(&window);
                narrowed = Some(narrowed.map_or(hull, |so_far| SlotRange::new(so_far.first.min(hull.first), so_far.end.max(hull.end))));
            }
        }
        narrowed
    }

    /// The stretches of time to ask the lake for, each in its pieces.
    fn stretches(&self, grid: SlotGrid, is_queried: bool) -> Vec<(SlotRange, Vec<SlotRange>)> {
        let (cadence, keys) = (grid.cadence(), self.keys.len());
        // A lake of files reads each of them once for all pieces. Of earlier findings, what lies between gaps need not be read.
        let is_first = self.keys.iter().any(|(_, gaps)| gaps.is_none());
        let windows = if is_first && !is_queried { vec![self.hull] } else { windows(cadence, self.hull, keys) };
        let whole = self.clocks.as_ref().map(|clocks| clocks.looked_at(self.hull)).unwrap_or_default();
        let narrowed = windows.into_iter().filter_map(|window| self.narrow(window)).filter(|slots| !slots.is_empty());
        let pieces = |slots| if is_queried { vec![slots] } else { cut(cadence, slots, keys, WORDS_OF_PIECE, &whole) };
        narrowed.map(|slots| (slots, pieces(slots))).collect()
    }

    /// Counts one piece. `expected` holds the expected slots of each key; `None` when checking again.
    fn count(
        &mut self,
        cadence: Cadence,
        slots: SlotRange,
        expected: Option<&ExpectedSlots<'_>>,
        mut presence: TablePresence,
        is_last: bool,
        observer: &mut (dyn FnMut(&Key, &SlotSet, &SlotSet) + Send),
    ) {
        self.usage += presence.usage;
        self.absent_until = self.absent_until.and_then(|until| Some(until.min(presence.absent_until?)));
        if expected.is_some() {
            let raw = &presence.raw;
            self.counts.misaligned += raw.misaligned_rows;
            self.aligned += raw.keys.values().flat_map(|key| &key.rows).map(|rows| u64::from(*rows)).sum::<u64>();
            self.counts.misplaced += raw.misplaced_rows;
            self.counts.other_keys += raw.other_rows;
            self.other_keys.merge(&raw.other_keys);
        }
        if let Some(clocks) = &mut self.clocks {
            clocks.look(slots, &presence);
        }
        // Of a file that is read for several windows, all of its bad rows are seen each time.
        self.quarantine.merge(std::mem::take(&mut presence.raw.quarantine));
        for (file, rows) in std::mem::take(&mut presence.raw.stray_rows) {
            let seen = self.stray.entry(file).or_default();
            *seen = (*seen).max(rows);
        }
        for (at, (key, gaps)) in self.keys.iter().enumerate() {
            let raw = presence.raw.keys.get(key);
            let of_key = [&presence.repaired, &presence.overtaken, &presence.absent, &presence.removed].map(|sets| sets.get(key));
            let expected_of_key = match expected {
                Some(expected) => expected.of_key(key),
                None => gap_set(cadence, slots, gaps.as_ref()),
            };
            let examined = expected.map(|expected| expected.examined_of(key));
            let mut missing = SlotSet::new(cadence, slots);
            let counts = &mut self.counts;
            for number in (expected_of_key.first_word()..).take(expected_of_key.words().len()) {
                let expected = expected_of_key.word(number);
                let own = raw.map_or(0, |raw| raw.present.word(number));
                let [repaired, overtaken, absent, removed] = of_key.map(|set| set.map_or(0, |set| set.word(number)));
                if expected | own | repaired | overtaken | absent | removed == 0 {
                    continue;
                }
                let seen = if raw.is_some() { (own | repaired) & !removed } else { 0 };
                if let (Some(examined), true) = (examined, seen & !expected != 0) {
                    counts.unexpected += ones(bits_within(seen & !expected, number, cadence, examined));
                }
                let more = raw.map_or(0, |raw| more_rows(raw, number));
                // Rows beyond one are counted wherever they are, so that all counts add up to the rows that there are.
                let is_unexpected = examined.is_some_and(|examined| bits_within(own & !expected, number, cadence, examined) != 0);
                if self.counts_duplicates && more > 0 && own & expected == 0 && is_unexpected {
                    counts.duplicates += more;
                }
                if self.counts_duplicates && more > 0 && own & expected != 0 {
                    counts.duplicates += more;
                    runs_of(cadence, number, own & expected, &mut self.crowded[at]);
                    // Where the table has a row of its own, a repair replaces it, removes it, or is overtaken.
                    if examined.is_some() {
                        runs_of(cadence, number, own & expected & ((repaired & !overtaken) | removed), &mut self.replaced[at]);
                    }
                }
                let held = seen & expected;
                counts.overtaken += ones(overtaken & expected);
                counts.conflicts += ones(absent & held);
                counts.removed += ones(removed & expected);
                let wanting = expected & !held & !absent & !removed;
                counts.expected += ones(expected);
                counts.present += ones(held);
                counts.repaired += ones(held & !own);
                counts.absent += ones(expected & !held) - ones(wanting);
                runs_of(cadence, number, held & !own, &mut self.repaired[at]);
                runs_of(cadence, number, expected & !held & !wanting, &mut self.absent[at]);
                counts.missing += ones(wanting);
                missing.insert_word(number, wanting);
            }
            observer(key, &expected_of_key, &missing);
            match &mut self.found {
                Found::Kept(kept) => missing.runs().for_each(|run| kept[at].push(run)),
                Found::HandedOver { gaps, open, .. } => {
                    let open = &mut open[at];
                    let mut of_key = Runs::default();
                    for run in missing.runs() {
                        match open {
                            Some(before) if before.end == run.first => before.end = run.end,
                            _ => open.replace(run).into_iter().for_each(|done| of_key.push(done)),
                        }
                    }
                    if is_last || open.is_some_and(|open| open.end != slots.end) {
                        open.take().into_iter().for_each(|done| of_key.push(done));
                    }
                    gaps.push_key(key, of_key);
                }
            }
        }
    }

    /// Hands over the gaps of a piece.
    async fn hand_over(&mut self, sink: &GapSink) -> Result<()> {
        let Found::HandedOver { gaps, count, .. } = &mut self.found else { return Ok(()) };
        let gaps = std::mem::take(gaps);
        *count += gaps.len() as u64;
        if gaps.is_empty() { Ok(()) } else { sink.put(gaps).await }
    }

    fn findings(mut self, scope: &Scope) -> Findings {
        let (gaps, count) = match self.found {
            Found::Kept(kept) => {
                let gaps = list(&self.keys, kept);
                let count = gaps.len() as u64;
                (gaps, count)
            }
            Found::HandedOver { count, .. } => (GapList::default(), count),
        };
        self.counts.gaps = count;
        self.counts.stray = self.stray.values().sum();
        self.counts.quarantined = self.quarantine.rows();
        let (quarantine, other_keys) = (self.quarantine, self.other_keys);
        let hold_until = self.absent_until;
        let (repaired, absent) = (list(&self.keys, self.repaired), list(&self.keys, self.absent));
        let seen = Some(Seen { repaired, absent, replaced: GapList::default() });
        Findings { quarantine, other_keys, hold_until, seen, ..Findings::of_gaps(scope.clone(), self.counts, gaps, self.usage) }
    }
}

/// The gaps of all keys as one list.
fn list(keys: &[(Key, Option<Runs>)], runs: Vec<Runs>) -> GapList {
    let mut list = GapList::default();
    keys.iter().zip(runs).for_each(|((key, _), runs)| list.push_key(key, runs));
    list
}

fn ones(bits: u64) -> u64 {
    u64::from(bits.count_ones())
}

/// Adds the slots of a word.
fn runs_of(cadence: Cadence, number: i64, bits: u64, to: &mut Runs) {
    let base = number * i64::from(cadence.slots_per_word());
    let mut rest = bits;
    while rest != 0 {
        let slot = base + i64::from(rest.trailing_zeros());
        to.push(SlotRange::new(slot, slot + 1));
        rest &= rest - 1;
    }
}

/// How many rows a word has in excess of one per slot.
fn more_rows(raw: &KeyPresence, number: i64) -> u64 {
    let rows = usize::try_from(number - raw.present.first_word()).ok().and_then(|index| raw.rows.get(index)).copied().unwrap_or(0);
    u64::from(rows.saturating_sub(raw.present.word(number).count_ones()))
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
    let where_slots_begin = SlotStart::example(grid.cadence()).map_or_else(String::new, |at| {
        let at = at.to_string();
        let at = if at.contains(':') { format!("\"{at}\"") } else { at };
        format!("where slots begin, e.g. `cadence: {{ every: {}, at: {at} }}`, ", grid.cadence())
    });
    Err(Error::blind(format!(
        "{off} of {all} rows of table `{}` have a time that is not {near} where {} slots {}, and `misaligned` allows {limit}; such rows belong to no \
         slot, and {so}. Write {where_slots_begin}a `tolerance`, the right `marks` or `zone`, or a larger `misaligned`",
        table.name,
        grid.cadence(),
        match grid.marks() {
            TimeMark::Start => "begin",
            TimeMark::End => "end",
        },
    )))
}

/// The slots of gaps within a range.
fn gap_set(cadence: Cadence, slots: SlotRange, gaps: Option<&Runs>) -> SlotSet {
    let mut set = SlotSet::new(cadence, slots);
    gaps.into_iter().flat_map(|gaps| gaps.within(slots)).for_each(|gap| set.insert_range(gap));
    set
}
