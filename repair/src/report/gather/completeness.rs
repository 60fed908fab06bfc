//! How complete a table is, by key and stretch of time. Only presence is asked for, a few days at a time, so no row is held in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::report::model::{Bucket, Cell, CellSum, KeyCells, TableReport};
use repair_core::engine::FindingsRecord;
use repair_core::lake::overlay::live::LiveRepairs;
use repair_core::lake::{Lake, PresenceRequest};
use repair_core::model::{
    Calendar, ExpectedSlots, GapList, Identity, Interval, Key, Scope, SlotRange, SlotSet, Table, TablePresence, Zone,
};
use repair_core::{Error, Result};

/// With more cells than this, a stretch is a day instead of an hour.
const MOST_HOUR_CELLS: usize = 50_000;
/// With more hours than this, a stretch is a day: a column would be narrower than a pixel.
const MOST_HOURS: usize = 1_000;
/// With more cells than this, a stretch is longer than a day. Each takes 16 bytes.
const MOST_CELLS: usize = 4 << 20;
/// With more stretches than this, they get longer.
const MOST_STRETCHES: usize = 4_000;
/// How many cells a picture has, and how many keys: a row would be lower than a pixel.
const MOST_DRAWN: usize = 200_000;
const MOST_KEYS_DRAWN: usize = 500;
/// How many presence words are held at once, over all keys.
const WORDS_AT_ONCE: u64 = 1 << 20;
/// How many keys are asked for at once.
const KEYS_AT_ONCE: usize = 50_000;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// A table, and what is expected of it.
pub(super) struct Examined<'a> {
    pub(super) lake: &'a dyn Lake,
    pub(super) table: &'a Table,
    pub(super) step: &'a str,
    pub(super) scope: &'a Scope,
    /// Slots that end after this are not expected.
    pub(super) last: Timestamp,
    /// Exceptions that have expired by this time do not count.
    pub(super) as_of: Timestamp,
    pub(super) calendars: &'a BTreeMap<String, Arc<dyn Calendar>>,
}

/// What became of the gaps that a detect step found.
pub(super) struct Found {
    pub(super) step: String,
    pub(super) findings: FindingsRecord,
    pub(super) gaps: GapList,
    slots: Vec<SlotRange>,
    /// Where the gaps of each key are in the list.
    of_key: HashMap<Key, (usize, usize)>,
    /// By gap: the slots that are repaired, confirmed absent, and there by now.
    pub(super) became: Vec<[u64; 3]>,
}

impl Found {
    pub(super) fn new(step: String, findings: FindingsRecord, gaps: GapList) -> Self {
        let mut of_key: HashMap<Key, (usize, usize)> = HashMap::new();
        let mut slots = Vec::with_capacity(gaps.len());
        for (index, (key, range)) in gaps.iter().enumerate() {
            slots.push(range);
            match of_key.get_mut(key) {
                Some((_, end)) => *end = index + 1,
                None => drop(of_key.insert(key.clone(), (index, index + 1))),
            }
        }
        let became = vec![[0; 3]; slots.len()];
        Self { step, findings, gaps, slots, of_key, became }
    }

    /// Counts a slot of whose row a repair changes cells. Presence does not show these.
    pub(super) fn patched(&mut self, key: &Key, slot: i64) {
        if !self.findings.kind.is_of_rows() {
            return;
        }
        let Some(&(start, end)) = self.of_key.get(key) else { return };
        let at = start + self.slots[start..end].partition_point(|gap| gap.end <= slot);
        if let Some((gap, became)) = self.slots[..end].get(at).zip(self.became.get_mut(at)).filter(|(gap, _)| gap.contains(slot)) {
            became[0] = (became[0] + 1).min(gap.len());
        }
    }

    /// Counts rows that a live repair stands for, in a table without slots: of such a table presence shows nothing.
    pub(super) fn repaired_rows(&mut self, identity: Identity, live: &LiveRepairs) {
        for ((key, rows), became) in self.gaps.iter().zip(&mut self.became) {
            if live.of_key(key).any(|(slot, _)| identity.are_same_slots(slot, rows.first)) {
                became[0] = rows.len();
            }
        }
    }

    fn count(&mut self, key: &Key, within: SlotRange, repaired: &SlotSet, absent: Option<&SlotSet>, own: &SlotSet) {
        let Some(&(start, end)) = self.of_key.get(key) else { return };
        let of_key = &self.slots[start..end];
        let first = of_key.partition_point(|gap| gap.end <= within.first);
        let are_missing = self.findings.kind.is_missing();
        for (gap, became) in of_key[first..].iter().zip(&mut self.became[start + first..end]).take_while(|(gap, _)| gap.first < within.end)
        {
            let gap = gap.intersection(&within);
            became[0] += repaired.count_in(gap);
            if are_missing {
                became[1] += absent.map_or(0, |absent| absent.count_in(gap));
                became[2] += own.count_in(gap);
            }
        }
    }
}

/// A stretch of time: when it begins, and its slots.
type Stretch = (Timestamp, SlotRange);

impl Examined<'_> {
    fn expected(&self, slots: SlotRange) -> Result<ExpectedSlots<'_>> {
        ExpectedSlots::of(self.scope, slots, self.last, |name| {
            let unknown = || Error::invalid(format!("this program has no calendar `{name}`, by which the run expected rows"));
            self.calendars.get(name).ok_or_else(unknown)
        })
    }

    /// The slots that are expected of any key.
    fn expected_of_any(&self) -> Result<SlotSet> {
        let slots = self.scope.slots();
        let expected = self.expected(slots)?;
        let mut any = SlotSet::new(self.scope.grid.cadence(), slots);
        let alike = if self.scope.lifetimes.is_empty() { 1 } else { self.scope.keys.len() };
        self.scope.keys.iter().take(alike).for_each(|key| any.union(&expected.of_key(key)));
        Ok(any)
    }

    /// The stretches in which something is expected, as short as a picture can show.
    fn stretches(&self, zone: &Zone) -> Result<(Bucket, Vec<Stretch>)> {
        let any = self.expected_of_any()?;
        let (cadence_s, keys) = (i64::from(self.scope.grid.cadence().seconds()), self.scope.keys.len());
        let tries = [
            (Bucket::Hour, HOUR_S, MOST_HOUR_CELLS, MOST_HOURS),
            (Bucket::Day, DAY_S, MOST_CELLS, MOST_STRETCHES),
            (Bucket::Week, 7 * DAY_S, MOST_CELLS, MOST_STRETCHES),
            (Bucket::Month, 28 * DAY_S, MOST_CELLS, MOST_STRETCHES),
        ];
        for (bucket, length_s, cells, columns) in tries {
            if cadence_s > length_s {
                continue;
            }
            let all = self.cut(bucket, zone)?.into_iter().filter(|(_, slots)| any.count_in(*slots) > 0);
            let kept: Vec<Stretch> = all.collect();
            if kept.len() <= columns && kept.len().saturating_mul(keys) <= cells {
                return Ok((bucket, kept));
            }
        }
        Ok((Bucket::Whole, vec![(self.scope.interval.from(), self.scope.slots())]))
    }

    /// The interval, cut into stretches.
    fn cut(&self, bucket: Bucket, zone: &Zone) -> Result<Vec<Stretch>> {
        let whole = self.scope.interval;
        let mut all = Vec::new();
        let mut push = |from: Timestamp, to: Timestamp| {
            if let Some(within) = Interval::new(from, to).ok().and_then(|stretch| stretch.intersection(&whole)) {
                let slots = self.scope.grid.slots_in(&within);
                if !slots.is_empty() {
                    all.push((within.from(), slots));
                }
            }
        };
        if bucket == Bucket::Hour {
            let mut from_s = whole.from().as_second().div_euclid(HOUR_S) * HOUR_S;
            while from_s < whole.to().as_second() + 1 {
                let at = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
                push(at(from_s), at(from_s + HOUR_S));
                from_s += HOUR_S;
            }
            return Ok(all);
        }
        let mut date = zone.local(whole.from()).date();
        if bucket == Bucket::Month {
            date = date.first_of_month();
        }
        let step = match bucket {
            Bucket::Week => 7.days(),
            Bucket::Month => 1.month(),
            _ => 1.day(),
        };
        loop {
            let from = zone.day(date)?.from();
            if from >= whole.to() {
                return Ok(all);
            }
            let next = date.checked_add(step).map_err(|error| Error::invalid("a date is out of range").because(error))?;
            push(from, zone.day(next)?.from());
            date = next;
        }
    }

    /// Looks at the table, and at what became of gaps.
    pub(super) async fn look(&self, found: &mut [&mut Found]) -> Result<TableReport> {
        let zone = self.table.day_zone();
        let (bucket, stretches) = self.stretches(&zone)?;
        let keys = &self.scope.keys;
        let mut cells = vec![vec![Cell::default(); stretches.len()]; keys.len()];
        for (first, group) in (0..).step_by(KEYS_AT_ONCE).zip(keys.chunks(KEYS_AT_ONCE)) {
            for window in self.windows(&stretches, group.len()) {
                let all = &stretches[window.clone()];
                let Some(slots) = all.first().zip(all.last()).map(|(first, last)| SlotRange::new(first.1.first, last.1.end)) else {
                    continue;
                };
                let request = PresenceRequest::new(slots, group.to_vec(), self.as_of);
                let presence = self.lake.presence(self.table, &request).await?;
                let expected = self.expected(slots)?;
                for (key, of_key) in group.iter().zip(&mut cells[first..]) {
                    let part = of_key.get_mut(window.clone()).unwrap_or_default();
                    self.count(key, &expected, &presence, all, part, found);
                }
            }
        }
        Ok(self.report(zone.name().to_owned(), bucket, &stretches, cells))
    }

    /// Ranges of stretches whose presence is asked for at once. They end where a day of UTC does, so that no partition is read twice.
    fn windows(&self, stretches: &[Stretch], keys: usize) -> Vec<std::ops::Range<usize>> {
        let per_word = u64::from(self.scope.grid.cadence().slots_per_word()).max(1);
        let most = (WORDS_AT_ONCE / u64::try_from(keys).unwrap_or(u64::MAX).max(1)).max(1).saturating_mul(per_word);
        let day = |stretch: &Stretch| stretch.0.as_second().div_euclid(DAY_S);
        let (mut windows, mut start) = (Vec::new(), 0);
        for (index, pair) in stretches.windows(2).enumerate() {
            let long = SlotRange::new(stretches[start].1.first, pair[1].1.end).len() > most;
            if long && day(&pair[0]) != day(&pair[1]) {
                windows.push(start..index + 1);
                start = index + 1;
            }
        }
        if start < stretches.len() {
            windows.push(start..stretches.len());
        }
        windows
    }

    fn count(
        &self,
        key: &Key,
        expected: &ExpectedSlots<'_>,
        presence: &TablePresence,
        stretches: &[Stretch],
        cells: &mut [Cell],
        found: &mut [&mut Found],
    ) {
        let expected = expected.of_key(key);
        let cadence = self.scope.grid.cadence();
        let mut own = presence.raw.keys.get(key).map_or_else(|| SlotSet::new(cadence, expected.range()), |of_key| of_key.present.clone());
        let of = |sets: &BTreeMap<Key, SlotSet>| sets.get(key).cloned().unwrap_or_else(|| SlotSet::new(cadence, expected.range()));
        let (replaced, absences) = (of(&presence.repaired), of(&presence.absent));
        for found in found.iter_mut() {
            found.count(key, expected.range(), &replaced, Some(&without(&absences, &[&replaced, &own])), &without(&own, &[&replaced]));
        }
        own.intersect(&expected);
        let mut repaired = without(&replaced, &[&own]);
        repaired.intersect(&expected);
        let mut absent = without(&absences, &[&own, &repaired]);
        absent.intersect(&expected);
        let count = |set: &SlotSet, slots: SlotRange| u32::try_from(set.count_in(slots)).unwrap_or(u32::MAX);
        for ((_, slots), cell) in stretches.iter().zip(cells) {
            cell.add(Cell {
                expected: count(&expected, *slots),
                own: count(&own, *slots),
                repaired: count(&repaired, *slots),
                absent: count(&absent, *slots),
            });
        }
    }

    fn report(&self, zone: String, bucket: Bucket, stretches: &[Stretch], cells: Vec<Vec<Cell>>) -> TableReport {
        let mut total = CellSum::default();
        cells.iter().flatten().for_each(|cell| total.add(*cell));
        let all_keys = cells.len();
        let most = (MOST_DRAWN / stretches.len().max(1)).clamp(1, MOST_KEYS_DRAWN);
        let mut keys: Vec<KeyCells> = self.scope.keys.iter().zip(cells).map(|(key, cells)| KeyCells { key: key.clone(), cells }).collect();
        if keys.len() > most {
            let lacking = |of: &KeyCells| of.cells.iter().map(|cell| u64::from(cell.expected - cell.own.min(cell.expected))).sum::<u64>();
            keys.sort_by_cached_key(|of| std::cmp::Reverse(lacking(of)));
            keys.truncate(most);
        }
        keys.sort_by(|a, b| a.key.cmp(&b.key));
        TableReport {
            table: self.table.name.clone(),
            step: self.step.to_owned(),
            interval: self.scope.interval,
            calendar: self.scope.calendars().join(", "),
            zone,
            cadence: self.scope.grid.cadence().to_string(),
            bucket,
            starts: stretches.iter().map(|(start, _)| *start).collect(),
            keys,
            all_keys,
            total,
            series: None,
        }
    }
}

/// What one set holds and none of the others.
fn without(set: &SlotSet, others: &[&SlotSet]) -> SlotSet {
    let mut rest = set.clone();
    others.iter().for_each(|other| rest.subtract(other));
    rest
}

/// The instant by which a slot must have ended to be expected, if the table says how long rows take to settle.
pub(crate) fn last_expected(table: &Table, now: Timestamp) -> Timestamp {
    let Some(after) = table.settles_after else { return Timestamp::MAX };
    now.checked_sub(SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MIN)
}
