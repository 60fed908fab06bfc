//! Which slots are hidden. Pure: what is there in, what is hidden out, the same for the same seed on any machine and in any version.
//!
//! Every draw is a hash of the seed and of what it is drawn for, so whether a slot is hidden does not depend on the order of keys.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use repair_core::lake::veil::Veil;
use repair_core::model::{GapList, Interval, Key, SlotGrid, SlotRange, SlotSet, Table};
use repair_core::{Error, Result};

/// Slots that one comparison hides; their rows are held in memory, about a hundred bytes a column.
pub const MOST_HIDDEN: usize = 1_000_000;
/// The shortest and the longest run of [`Pattern::Runs`], in slots.
pub const RUNS: (u64, u64) = (5, 60);

const DAY_S: i64 = 86_400;

/// So many days before and after a run like a gap, no other run of its key is hidden at the same time of day: strategies copy from the days before and
/// after, and from those a week away.
pub const APART_DAYS: i64 = 7;

/// How hidden slots lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// In runs like the real gaps: as long, of the same keys, and at the same times of day; gaps of several keys that are mostly at the same time are
    /// hidden at the same time. Where nothing is missing, or no gap is like a stretch that is there, as [`Pattern::Runs`].
    #[default]
    LikeGaps,
    /// Each by itself.
    Random,
    /// In runs of neighbouring slots of one key, [5 to 60](RUNS) long, all lengths alike.
    Runs,
    /// Whole UTC days of one key each.
    WholeDay,
    /// One stretch of one key, at most half of what it holds.
    OneKey,
}

/// The part of what is there that is hidden: more than nothing, at most half, since guesses need something to go by.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share {
    percent: f64,
}

impl Share {
    /// So many of so many slots, at least one.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of slots are far below 2^52, and a share is between 0 and 1"
    )]
    fn of(self, slots: u64) -> u64 {
        ((slots as f64 * self.percent / 100.0).round() as u64).clamp(1, slots.max(1))
    }
}

impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 50.0);
        let percent =
            percent.ok_or_else(|| Error::invalid(format!("`{text}` is not a share; write one above 0% and up to 50%, e.g. 5%")))?;
        Ok(Self { percent })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The slots that are hidden, by key: their rows, or some cells of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    grid: SlotGrid,
    keys: BTreeMap<Key, SlotSet>,
    cells: Option<HiddenCells>,
}

/// Which cells of a row are hidden: those of one of these groups of columns, drawn for each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HiddenCells {
    groups: Vec<Arc<[String]>>,
    seed: u64,
}

impl HiddenCells {
    /// The group of a slot.
    fn drawn(&self, key: &Key, slot: i64) -> usize {
        let drawn = Draws::new(self.seed, "column", key).number(slot) % u64::try_from(self.groups.len()).unwrap_or(1);
        usize::try_from(drawn).unwrap_or(0)
    }
}

impl Mask {
    /// Hides nothing.
    pub fn nothing(grid: SlotGrid) -> Self {
        Self { grid, keys: BTreeMap::new(), cells: None }
    }

    /// The slots of the table.
    pub fn grid(&self) -> SlotGrid {
        self.grid
    }

    /// Whether a slot is hidden.
    pub fn contains(&self, key: &Key, slot: i64) -> bool {
        self.keys.get(key).is_some_and(|slots| slots.contains(slot))
    }

    /// The hidden slots of a key.
    pub fn of_key(&self, key: &Key) -> Option<&SlotSet> {
        self.keys.get(key)
    }

    /// The hidden slots of each key that has some.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, &SlotSet)> {
        self.keys.iter()
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.keys.values().map(SlotSet::count).sum()
    }

    /// Whether none.
    pub fn is_empty(&self) -> bool {
        self.keys.values().all(SlotSet::is_empty)
    }

    /// Hides cells instead of rows: in each slot the columns of one of these groups, drawn from the seed.
    #[must_use]
    pub fn of_cells(self, groups: Vec<Arc<[String]>>, seed: u64) -> Self {
        Self { cells: (!groups.is_empty()).then_some(HiddenCells { groups, seed }), ..self }
    }

    /// Whether cells are hidden, and not rows.
    pub fn is_of_cells(&self) -> bool {
        self.cells.is_some()
    }

    /// The hidden columns of a slot; `None` if the slot is not hidden, or its whole row is.
    pub fn hidden_columns(&self, key: &Key, slot: i64) -> Option<&Arc<[String]>> {
        let cells = self.cells.as_ref().filter(|_| self.contains(key, slot))?;
        cells.groups.get(cells.drawn(key, slot))
    }

    /// The same as a veil over a table.
    pub fn veil(&self, table: &Table) -> Veil {
        let veil = Veil::new(table, self.grid, self.keys.clone());
        match &self.cells {
            None => veil,
            Some(cells) => veil.of_cells(cells.groups.clone(), |key, slot| cells.drawn(key, slot)),
        }
    }

    /// All columns that are hidden somewhere.
    pub fn columns(&self) -> BTreeSet<&str> {
        let groups = self.cells.iter().flat_map(|cells| &cells.groups);
        groups.flat_map(|group| group.iter().map(String::as_str)).collect()
    }

    /// As gaps.
    pub fn gaps(&self) -> GapList {
        let mut gaps = GapList::default();
        self.keys.iter().for_each(|(key, slots)| gaps.extend(key, slots));
        gaps
    }

    /// From the first to the last.
    pub fn hull(&self) -> Option<Interval> {
        self.gaps().hull().and_then(|hull| self.grid.interval_of(hull))
    }
}

/// Chooses what to hide of what is there, each key's slots with one row each.
///
/// - `like-gaps`: as `runs`, because nothing is known of gaps here; [`like_gaps`] knows them.
/// - `random`: the share, each slot with the same chance.
/// - `runs`: the share, in runs that begin anywhere with the same chance; two may meet. Slots of a run that are not there are not hidden.
/// - `whole-day`: days of a key in a drawn order, until the share is reached; so at least one, and it may be more than the share.
/// - `one-key`: a drawn key, and of it a stretch as long as the share, but at most half of it.
///
/// # Errors
/// `invalid` if nothing is there, or more than [`MOST_HIDDEN`] would be hidden.
///
/// ```
/// use std::collections::BTreeMap;
/// use repair::compare::mask::{Pattern, choose};
/// use repair_core::model::{Cadence, Key, SlotGrid, SlotRange, SlotSet, TimeMark};
///
/// let grid = SlotGrid::new(Cadence::MINUTE, TimeMark::Start);
/// let mut there = SlotSet::new(grid.cadence(), SlotRange::new(0, 1_000));
/// there.insert_range(SlotRange::new(100, 900));
/// let there = BTreeMap::from([(Key::from("IBM"), there)]);
/// let mask = choose(grid, &there, "5%".parse()?, Pattern::Random, 7)?;
/// assert_eq!(mask.len(), 40);
/// assert_eq!(mask, choose(grid, &there, "5%".parse()?, Pattern::Random, 7)?);
/// # Ok::<(), repair_core::Error>(())
/// ```
pub fn choose(grid: SlotGrid, there: &BTreeMap<Key, SlotSet>, share: Share, pattern: Pattern, seed: u64) -> Result<Mask> {
    let all: u64 = there.values().map(SlotSet::count).sum();
    if all == 0 {
        return Err(Error::invalid("the table holds no row of an expected slot that could be hidden; compare where it holds some"));
    }
    let wanted = usize::try_from(share.of(all)).unwrap_or(usize::MAX);
    if wanted > MOST_HIDDEN {
        return Err(too_many(wanted));
    }
    let mut choice = Choice::new(grid, there, seed);
    match pattern {
        Pattern::Random => choice.random(wanted),
        Pattern::Runs | Pattern::LikeGaps => choice.runs(wanted),
        Pattern::WholeDay => choice.whole_days(wanted)?,
        Pattern::OneKey => choice.one_key(wanted),
    }
    choice.hidden.retain(|_, slots| !slots.is_empty());
    Ok(Mask { grid, keys: choice.hidden, cells: None })
}

fn too_many(slots: usize) -> Error {
    Error::invalid(format!("{slots} slots would be hidden, more than {MOST_HIDDEN}; hide a smaller share, or compare a shorter stretch"))
}

/// The seed of a round: that of the comparison for the first, and for each other one another.
pub fn of_round(seed: u64, round: usize) -> u64 {
    if round == 0 {
        return seed;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"round").update(&seed.to_le_bytes()).update(&(round as u64).to_le_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// Gaps that no hidden run is like, because the table holds no such stretch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Unlike {
    /// How many.
    pub gaps: u64,
    /// The slots of the longest.
    pub longest: u64,
}

/// After so many turns in which no gap has found a place, there is none.
const MOST_IN_VAIN: usize = 8;

/// How many places are tried for gaps that are at the same time. The table may hold no stretch without holes as long as they are.
const MOST_TRIES: u64 = 256;

/// Chooses runs like real gaps: each as long as one of them, of the same key, and a whole number of days away. Gaps that are mostly at the same time
/// move together, so that what is missing for one key is also missing for the others. They are drawn, all once before one is drawn again, until the
/// share is reached; so it may be more than the share. Of a key at most half is hidden. Of a run, slots that are not there are not hidden; it is
/// placed where most of it is there. Two runs of one key are never at the same time of day and at most [`APART_DAYS`] apart, so what is hidden may be less
/// than the share, too. If no gap is like a stretch that is there, nothing is hidden.
///
/// # Errors
/// `invalid` if nothing is there, or if more than [`MOST_HIDDEN`] would be hidden.
pub fn like_gaps(grid: SlotGrid, there: &BTreeMap<Key, SlotSet>, gaps: &GapList, share: Share, seed: u64) -> Result<(Mask, Unlike)> {
    let all: u64 = there.values().map(SlotSet::count).sum();
    if all == 0 {
        return Err(Error::invalid("the table holds no row of an expected slot that could be hidden; compare where it holds some"));
    }
    let wanted = usize::try_from(share.of(all)).unwrap_or(usize::MAX);
    if wanted > MOST_HIDDEN {
        return Err(too_many(wanted));
    }
    let clusters = at_the_same_time(gaps);
    let mut choice = Choice::new(grid, there, seed);
    let mut unlike = Unlike::default();
    let mut placed: BTreeSet<usize> = BTreeSet::new();
    let mut in_vain = 0;
    for round in 0..wanted {
        let before = choice.count;
        let mut order: Vec<(u64, usize)> = Vec::with_capacity(clusters.len());
        for (index, cluster) in clusters.iter().enumerate() {
            if let Some((key, first)) = cluster.first() {
                let turn = i64::try_from(round).unwrap_or(i64::MAX);
                order.push((Draws::new(seed ^ first.first.unsigned_abs(), "turn", key).number(turn), index));
            }
        }
        order.sort_unstable();
        // As many as are wanted; of these the longest first, while there is room for them.
        let mut left = wanted.saturating_sub(choice.count);
        let mut turn: Vec<(u64, usize)> = Vec::new();
        for (_, index) in order {
            if left == 0 {
                break;
            }
            let length: u64 = clusters.get(index).into_iter().flatten().map(|(_, gap)| gap.len()).sum();
            left = left.saturating_sub(usize::try_from(length).unwrap_or(usize::MAX));
            turn.push((length, index));
        }
        turn.sort_unstable_by_key(|(length, index)| (std::cmp::Reverse(*length), *index));
        for (_, index) in turn {
            let Some(cluster) = clusters.get(index) else { continue };
            match choice.place(cluster, round) {
                Placed::Hidden => {
                    placed.insert(index);
                }
                Placed::Nowhere if !placed.contains(&index) && round == 0 => {
                    unlike.gaps += cluster.len() as u64;
                    unlike.longest = unlike.longest.max(cluster.iter().map(|(_, gap)| gap.len()).max().unwrap_or(0));
                }
                Placed::Nowhere | Placed::TooNear => {}
            }
        }
        // What has no place this time may leave one to others.
        in_vain = if choice.count == before { in_vain + 1 } else { 0 };
        if choice.count >= wanted || in_vain >= MOST_IN_VAIN {
            break;
        }
    }
    if choice.count > MOST_HIDDEN {
        return Err(too_many(choice.count));
    }
    choice.hidden.retain(|_, slots| !slots.is_empty());
    Ok((Mask { grid, keys: choice.hidden, cells: None }, unlike))
}

/// Gaps in groups: those of different keys that are at the same time for at least half of the longer one.
fn at_the_same_time(gaps: &GapList) -> Vec<Vec<(Key, SlotRange)>> {
    let mut all: Vec<(SlotRange, &Key)> = gaps.iter().map(|(key, gap)| (gap, key)).collect();
    all.sort_unstable_by(|(one, key), (other, other_key)| (one.first, one.end, *key).cmp(&(other.first, other.end, *other_key)));
    let mut clusters: Vec<Vec<(Key, SlotRange)>> = Vec::new();
    // Those that a later gap can still be with, in the order in which they began.
    let mut open: Vec<usize> = Vec::new();
    for (gap, key) in all {
        open.retain(|&index| clusters.get(index).into_iter().flatten().any(|(_, other)| other.end > gap.first));
        let is_with = |index: &usize| {
            let cluster = clusters.get(*index).map(Vec::as_slice).unwrap_or_default();
            let is_at_once = |(_, other): &(Key, SlotRange)| 2 * gap.intersection(other).len() >= gap.len().max(other.len());
            cluster.iter().any(is_at_once) && cluster.iter().all(|(other, _)| other != key)
        };
        match open.iter().copied().find(|index| is_with(index)) {
            Some(index) => clusters.get_mut(index).into_iter().for_each(|cluster| cluster.push((key.clone(), gap))),
            None => {
                open.push(clusters.len());
                clusters.push(vec![(key.clone(), gap)]);
            }
        }
    }
    clusters
}

/// What became of runs like gaps that are at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    /// They are hidden.
    Hidden,
    /// The table holds stretches like them, each too near to what is hidden.
    TooNear,
    /// It holds none.
    Nowhere,
}

/// Why a run cannot be hidden in a place, or how many of its slots are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Free(u64),
    TooNear(u64),
    Taken,
}

struct Choice<'a> {
    grid: SlotGrid,
    there: &'a BTreeMap<Key, SlotSet>,
    seed: u64,
    hidden: BTreeMap<Key, SlotSet>,
    count: usize,
    /// Of each key, how many slots are there, and how many of them are hidden.
    counts: BTreeMap<&'a Key, (u64, u64)>,
}

impl<'a> Choice<'a> {
    fn new(grid: SlotGrid, there: &'a BTreeMap<Key, SlotSet>, seed: u64) -> Self {
        let counts = there.iter().map(|(key, slots)| (key, (slots.count(), 0))).collect();
        Self { grid, there, seed, hidden: BTreeMap::new(), count: 0, counts }
    }

    fn hide(&mut self, key: &Key, slot: i64) {
        let Some(there) = self.there.get(key).filter(|there| there.contains(slot)) else { return };
        let hidden = self.hidden.entry(key.clone()).or_insert_with(|| SlotSet::new(self.grid.cadence(), there.range()));
        if hidden.insert(slot) {
            self.count += 1;
            self.counts.get_mut(key).into_iter().for_each(|(_, hidden)| *hidden += 1);
        }
    }

    /// Hides runs like gaps that are at the same time, moved by one number of days, to where most of them are there.
    fn place(&mut self, cluster: &[(Key, SlotRange)], round: usize) -> Placed {
        let Some(((key, first), range)) = cluster.first().zip(self.there.values().next().map(SlotSet::range)) else {
            return Placed::Nowhere;
        };
        let hull = cluster.iter().fold(*first, |hull, (_, gap)| SlotRange::new(hull.first.min(gap.first), hull.end.max(gap.end)));
        let second = |slot: i64| self.grid.start_of(slot).as_second();
        // Slots of a day or longer have no time of day.
        let step_s = DAY_S.max(i64::from(self.grid.cadence_at(first.first).seconds()));
        let (back, on) = ((second(hull.first) - second(range.first)) / step_s, (second(range.end) - second(hull.end)) / step_s);
        let Ok(places) = u64::try_from(back.saturating_add(on).saturating_add(1)) else { return Placed::Nowhere };
        let draws = Draws::new(self.seed ^ first.first.unsigned_abs(), "place", key);
        let slots: u64 = cluster.iter().map(|(_, gap)| gap.len()).sum();
        let mut best: Option<(u64, i64)> = None;
        let mut failed = Placed::Nowhere;
        for attempt in 0..MOST_TRIES.min(places.saturating_mul(4)) {
            let number = i64::try_from(round as u64 * MOST_TRIES + attempt).unwrap_or(i64::MAX);
            let days = i64::try_from(draws.number(number) % places).unwrap_or(0) - back;
            let (mut found, mut is_near, mut is_taken) = (0, false, false);
            for (key, gap) in cluster {
                match self.free(key, self.moved(*gap, days * step_s)) {
                    Place::Free(there) => found += there,
                    Place::TooNear(there) => (found, is_near) = (found + there, true),
                    Place::Taken => is_taken = true,
                }
            }
            if is_taken || 2 * found < slots {
                continue;
            }
            if is_near {
                failed = Placed::TooNear;
                continue;
            }
            if best.is_none_or(|(most, _)| found > most) {
                best = Some((found, days));
            }
            if found == slots {
                break;
            }
        }
        let Some((_, days)) = best else { return failed };
        for (key, gap) in cluster {
            let moved = self.moved(*gap, days * step_s);
            (moved.first..moved.end).for_each(|slot| self.hide(key, slot));
        }
        Placed::Hidden
    }

    /// A gap as many seconds later.
    fn moved(&self, gap: SlotRange, by_s: i64) -> SlotRange {
        let first = self.grid.first_from_seconds(self.grid.start_of(gap.first).as_second().saturating_add(by_s));
        SlotRange::new(first, first.saturating_add(i64::try_from(gap.len()).unwrap_or(i64::MAX)))
    }

    /// How many slots of a run are there, unless it would touch another run, or more than half of the key would be hidden; and whether another run is at
    /// the same time of day on a day near it.
    fn free(&self, key: &Key, run: SlotRange) -> Place {
        let Some(there) = self.there.get(key) else { return Place::Taken };
        let range = there.range();
        if run.first < range.first || run.end > range.end {
            return Place::Taken;
        }
        let found = there.count_in(run);
        let (all, hidden) = self.counts.get(key).copied().unwrap_or_default();
        if 2 * (hidden + found) > all {
            return Place::Taken;
        }
        let Some(hidden) = self.hidden.get(key) else { return Place::Free(found) };
        let is_hidden_in = |run: SlotRange| {
            let within = SlotRange::new(run.first.max(range.first), run.end.min(range.end));
            !within.is_empty() && hidden.count_in(within) > 0
        };
        if is_hidden_in(SlotRange::new(run.first - 1, run.end + 1)) {
            return Place::Taken;
        }
        let is_near = |days: i64| is_hidden_in(self.moved(run, days * DAY_S)) || is_hidden_in(self.moved(run, -days * DAY_S));
        if (1..=APART_DAYS).any(is_near) { Place::TooNear(found) } else { Place::Free(found) }
    }

    /// The slots with the lowest draws, in that order.
    fn lowest(&self, what: &str, wanted: usize) -> Vec<(Key, i64)> {
        let mut lowest: BinaryHeap<([u8; 16], &Key, i64)> = BinaryHeap::with_capacity(wanted + 1);
        for (key, slots) in self.there {
            let draws = Draws::new(self.seed, what, key);
            for slot in slots.iter() {
                lowest.push((draws.of(slot), key, slot));
                if lowest.len() > wanted {
                    lowest.pop();
                }
            }
        }
        lowest.into_sorted_vec().into_iter().map(|(_, key, slot)| (key.clone(), slot)).collect()
    }

    fn random(&mut self, wanted: usize) {
        for (key, slot) in self.lowest("slot", wanted) {
            self.hide(&key, slot);
        }
    }

    fn runs(&mut self, wanted: usize) {
        // Each begins at a slot of its own, so that many suffice.
        for (key, first) in self.lowest("run", wanted) {
            let (shortest, longest) = RUNS;
            let length = shortest + Draws::new(self.seed, "length", &key).number(first) % (longest - shortest + 1);
            for slot in (first..).take(usize::try_from(length).unwrap_or(1)) {
                if self.count >= wanted {
                    return;
                }
                self.hide(&key, slot);
            }
        }
    }

    fn whole_days(&mut self, wanted: usize) -> Result<()> {
        let grid = self.grid;
        let day_of = |slot: i64| grid.start_of(slot).as_second().div_euclid(DAY_S);
        let mut days: Vec<([u8; 16], &Key, i64)> = Vec::new();
        for (key, slots) in self.there {
            let draws = Draws::new(self.seed, "day", key);
            for run in slots.runs() {
                for day in day_of(run.first)..=day_of(run.end - 1) {
                    if days.last().is_none_or(|(_, last_key, last)| (*last_key, *last) != (key, day)) {
                        days.push((draws.of(day), key, day));
                    }
                }
            }
        }
        days.sort_unstable();
        for (_, key, day) in days {
            if self.count >= wanted {
                break;
            }
            for slot in grid.first_from_seconds(day * DAY_S)..grid.first_from_seconds((day + 1) * DAY_S) {
                self.hide(key, slot);
            }
        }
        if self.count > MOST_HIDDEN { Err(too_many(self.count)) } else { Ok(()) }
    }

    fn one_key(&mut self, wanted: usize) {
        let there = self.there.iter().filter(|(_, slots)| !slots.is_empty());
        let drawn = there.map(|(key, slots)| (Draws::new(self.seed, "key", key).of(0), key, slots)).min_by_key(|(draw, _, _)| *draw);
        let Some((_, key, slots)) = drawn else { return };
        let count = usize::try_from(slots.count()).unwrap_or(usize::MAX);
        let length = wanted.min((count / 2).max(1));
        let starts = u64::try_from(count - length + 1).unwrap_or(1);
        let first = usize::try_from(Draws::new(self.seed, "stretch", key).number(0) % starts).unwrap_or(0);
        for slot in slots.iter().skip(first).take(length) {
            self.hide(key, slot);
        }
    }
}

/// Draws for one key.
struct Draws(blake3::Hasher);

impl Draws {
    fn new(seed: u64, what: &str, key: &Key) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        for text in std::iter::once(what).chain(key.values()) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        Self(hasher)
    }

    fn of(&self, number: i64) -> [u8; 16] {
        let mut hasher = self.0.clone();
        let mut draw = [0; 16];
        draw.copy_from_slice(&hasher.update(&number.to_le_bytes()).finalize().as_bytes()[..16]);
        draw
    }

    fn number(&self, number: i64) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.of(number)[..8]);
        u64::from_le_bytes(bytes)
    }
}

/// The slots of a presence that can be hidden: expected, and with exactly one row. In a word of slots with more rows than slots, it is
/// not known which slot has several, so none of it is hidden.
pub fn known_good(expected: &SlotSet, present: &repair_core::model::KeyPresence, grid: SlotGrid) -> SlotSet {
    let mut good = present.present.clone();
    good.intersect(expected);
    let per_word = i64::from(grid.cadence().slots_per_word());
    let mut doubtful = SlotSet::new(grid.cadence(), good.range());
    for ((number, word), &rows) in (present.present.first_word()..).zip(present.present.words()).zip(&present.rows) {
        if rows > word.count_ones() {
            doubtful.insert_range(SlotRange::new(number * per_word, (number + 1) * per_word));
        }
    }
    good.subtract(&doubtful);
    good
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use repair_core::model::{Cadence, TimeMark};

    fn grid() -> SlotGrid {
        SlotGrid::new(Cadence::HOUR, TimeMark::Start)
    }

    fn gaps(of: &[(&str, i64, i64)]) -> GapList {
        let mut list = GapList::default();
        of.iter().for_each(|(key, first, end)| list.push(&Key::from(*key), SlotRange::new(*first, *end)));
        list
    }

    proptest! {
        #[test]
        fn what_is_hidden_is_like_the_gaps(seed: u64, lengths in prop::collection::vec((0usize..2, 1i64..60), 1..6)) {
            let mut list: BTreeMap<usize, Vec<(i64, i64)>> = BTreeMap::new();
            for (at, (key, length)) in lengths.iter().enumerate() {
                let first = at as i64 * 137 + 11;
                list.entry(*key).or_default().push((first, first + length));
            }
            let names = ["a", "b"];
            let flat: Vec<(&str, i64, i64)> =
                list.iter().flat_map(|(key, gaps)| gaps.iter().map(|(first, end)| (names[*key], *first, *end))).collect();
            let real = gaps(&flat);
            let range = SlotRange::new(0, 24 * 300);
            let there: BTreeMap<Key, SlotSet> = names.iter().map(|name| {
                let mut set = SlotSet::new(grid().cadence(), range);
                set.insert_range(range);
                let mut missing = SlotSet::new(grid().cadence(), range);
                flat.iter().filter(|gap| gap.0 == *name).for_each(|gap| missing.insert_range(SlotRange::new(gap.1, gap.2)));
                set.subtract(&missing);
                (Key::from(*name), set)
            }).collect();
            let (mask, unlike) = like_gaps(grid(), &there, &real, "0.1%".parse().unwrap(), seed).unwrap();
            prop_assert_eq!(unlike, Unlike::default());
            prop_assert_eq!(&like_gaps(grid(), &there, &real, "0.1%".parse().unwrap(), seed).unwrap().0, &mask);
            prop_assert!(mask.len() >= 14, "a thousandth of what is there");
            for (key, run) in mask.gaps().iter() {
                // Runs are never longer than a week here, so what is near on a day is another run.
                let other = |slot: &i64| mask.contains(key, *slot) && !(run.first..run.end).contains(slot);
                let near = |slot: i64| (1..=APART_DAYS).flat_map(|days| [slot - 24 * days, slot + 24 * days]).find(other);
                prop_assert_eq!((run.first..run.end).find_map(near), None, "{} {:?} is beside another in {:?}", key, run, mask);
                let is_like = |(of, gap): (&Key, SlotRange)| of == key && gap.len() == run.len() && (gap.first - run.first) % 24 == 0;
                prop_assert!(real.iter().any(is_like), "{key} {run:?} {real:?}");
                prop_assert!((run.first..run.end).all(|slot| there[key].contains(slot)));
            }
        }
    }

    #[test]
    fn gaps_at_the_same_time_are_hidden_at_the_same_time_and_long_ones_that_fit_nowhere_are_counted() {
        let range = SlotRange::new(0, 2_400);
        let mut whole = SlotSet::new(grid().cadence(), range);
        whole.insert_range(range);
        let there: BTreeMap<Key, SlotSet> = ["a", "b", "c"].map(|name| (Key::from(name), whole.clone())).into();
        let real = gaps(&[("a", 100, 200), ("a", 500, 510), ("b", 110, 190), ("b", 502, 503), ("c", 0, 1_300)]);
        assert_eq!(at_the_same_time(&real).len(), 4, "an hour within ten is not the same outage");
        let (mask, unlike) = like_gaps(grid(), &there, &real, "25%".parse().unwrap(), 3).unwrap();
        assert_eq!(unlike, Unlike { gaps: 1, longest: 1_300 }, "more than half of a key");
        let runs = |key: &str, length: u64| -> Vec<i64> {
            mask.gaps().iter().filter(|(of, run)| **of == Key::from(key) && run.len() == length).map(|(_, run)| run.first).collect()
        };
        let (a, b) = (runs("a", 100), runs("b", 80));
        assert!(!a.is_empty() && a.iter().map(|first| first + 10).eq(b), "{mask:?}");
        let none = gaps(&[("c", 0, 1_300)]);
        let (mask, unlike) = like_gaps(grid(), &there, &none, "2%".parse().unwrap(), 3).unwrap();
        assert_eq!((mask.len(), unlike), (0, Unlike { gaps: 1, longest: 1_300 }));
    }

    /// What a strategy copies from the day before, or from a week before, is not hidden as well, and a gap for which no place is left is not unlike the table.
    #[test]
    fn runs_of_one_round_are_not_at_the_same_time_on_days_near_each_other() {
        let range = SlotRange::new(0, 24 * 12);
        let mut whole = SlotSet::new(grid().cadence(), range);
        whole.insert_range(range);
        let there = BTreeMap::from([(Key::from("a"), whole)]);
        let real = gaps(&[("a", 8, 11), ("a", 33, 35), ("a", 62, 64)]);
        for seed in 0..200 {
            let (mask, unlike) = like_gaps(grid(), &there, &real, "10%".parse().unwrap(), seed).unwrap();
            assert_eq!(unlike, Unlike::default(), "{seed}");
            let of_day: Vec<(i64, i64)> = mask.keys().flat_map(|(_, slots)| slots.iter().map(|slot| (slot % 24, slot / 24))).collect();
            assert!(of_day.len() >= 3, "{seed} {mask:?}");
            for (hour, day) in &of_day {
                let near = of_day.iter().find(|(other, at)| other == hour && at != day && (at - day).abs() <= APART_DAYS);
                assert_eq!(near, None, "{seed} {mask:?}");
            }
        }
    }

    const PATTERNS: [Pattern; 4] = [Pattern::Random, Pattern::Runs, Pattern::WholeDay, Pattern::OneKey];

    fn there() -> impl Strategy<Value = BTreeMap<Key, SlotSet>> {
        prop::collection::vec(prop::collection::vec((-500i64..1_500, 1i64..200), 0..6), 1..5).prop_map(|keys| {
            let set = |runs: Vec<(i64, i64)>| {
                let mut set = SlotSet::new(grid().cadence(), SlotRange::new(-400, 1_400));
                runs.into_iter().for_each(|(first, length)| set.insert_range(SlotRange::new(first, first + length)));
                set
            };
            keys.into_iter().enumerate().map(|(at, runs)| (Key::from(format!("K{at}").as_str()), set(runs))).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_hidden_was_there_and_is_as_much_as_was_asked_for(there in there(), percent in 1u32..=50, seed: u64) {
            let share: Share = format!("{percent}%").parse().unwrap();
            let all: u64 = there.values().map(SlotSet::count).sum();
            for pattern in PATTERNS {
                let Ok(mask) = choose(grid(), &there, share, pattern, seed) else {
                    prop_assert_eq!(all, 0);
                    continue;
                };
                for (key, slots) in mask.keys() {
                    prop_assert!(!slots.is_empty() && slots.iter().all(|slot| there[key].contains(slot)));
                }
                let wanted = share.of(all);
                match pattern {
                    Pattern::Random | Pattern::Runs | Pattern::LikeGaps => prop_assert_eq!(mask.len(), wanted),
                    Pattern::WholeDay => {
                        prop_assert!(mask.len() >= wanted);
                        for (key, slots) in mask.keys() {
                            for slot in slots.iter() {
                                let day = slot.div_euclid(24) * 24;
                                prop_assert!((day..day + 24).all(|slot| !there[key].contains(slot) || slots.contains(slot)));
                            }
                        }
                    }
                    Pattern::OneKey => {
                        let [(key, slots)] = mask.keys().collect::<Vec<_>>()[..] else { panic!("{mask:?}") };
                        let count = there[key].count();
                        prop_assert_eq!(slots.count(), wanted.min((count / 2).max(1)));
                        let hull = SlotRange::new(slots.iter().next().unwrap(), slots.iter().last().unwrap() + 1);
                        prop_assert_eq!(there[key].count_in(hull), slots.count(), "a stretch without holes of its own");
                    }
                }
                prop_assert_eq!(mask.gaps().missing(), mask.len());
                prop_assert_eq!(&choose(grid(), &there, share, pattern, seed).unwrap(), &mask);
            }
        }
    }

    /// Written down, so that no change of ours changes what a seed means.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut set = SlotSet::new(grid().cadence(), SlotRange::new(0, 100));
        set.insert_range(SlotRange::new(0, 100));
        let there = BTreeMap::from([(Key::from("a"), set.clone()), (Key::from("b"), set)]);
        let chosen = |pattern| {
            let mask = choose(grid(), &there, "4%".parse().unwrap(), pattern, 7).unwrap();
            mask.gaps().iter().map(|(key, gap)| format!("{key} {}..{}", gap.first, gap.end)).collect::<Vec<_>>().join(", ")
        };
        insta::assert_snapshot!(PATTERNS.map(chosen).join("\n"));
        let shares = ["0%", "51%", "5", "x%", "-1%", "NaN%"];
        assert!(shares.iter().all(|share| share.parse::<Share>().is_err()));
    }

    #[test]
    fn slots_that_may_hold_several_rows_are_not_hidden() {
        let range = SlotRange::new(0, 72);
        let mut present = repair_core::model::KeyPresence::new(grid().cadence(), range);
        assert!((0..72).all(|slot| present.add_row(slot)));
        assert!(!present.add_row(30));
        let mut expected = SlotSet::new(grid().cadence(), range);
        expected.insert_range(SlotRange::new(10, 72));
        let good = known_good(&expected, &present, grid());
        assert_eq!(good.runs().collect::<Vec<_>>(), [SlotRange::new(10, 24), SlotRange::new(48, 72)]);
    }
}
