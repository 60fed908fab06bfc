//! Plans the requests to a source that cover gaps at the lowest cost. Pure: it takes gaps and limits, and returns requests.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::error::{Error, Result};
use crate::model::runs::{read, write};
use crate::model::{Key, SlotGrid, SlotRange, Unit, Wanted};
use crate::plugin::Limits;

/// How many requests one repair step may plan. No source would accept more.
const MOST_REQUESTS: usize = 1 << 20;

/// One request: a range of slots from its first gap to its last (or [a little wider](with_neighbours)), and the wanted slots of each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The slots to request, for every key in `wanted`.
    pub slots: SlotRange,
    /// The gaps in this range, by key.
    pub wanted: Vec<Wanted>,
}

impl Asked {
    /// How many rows it may return: its slots times its keys.
    pub fn slots_asked(&self) -> u64 {
        self.slots.len().saturating_mul(self.wanted.len() as u64)
    }
}

/// The requests that cover the gaps of each key (in order, disjoint): the fewest requests and, among such plans, the fewest slots. No
/// request covers more slots than `rows_per_request`, over all its keys. [`plan`] returns the same, in less memory.
///
/// If the source takes one key per request, the number of requests is the minimum: each starts at the first gap not yet covered, and
/// extends as far as the limit allows. If it takes several, plans with 1, 2, 4 and so on keys per request, up to the limit, are tried; the
/// best is never worse than one key per request, but not provably the minimum.
///
/// The order is round-robin over their first keys, so that the backlog of one key does not starve the others.
///
/// # Errors
/// `invalid` if the limits allow nothing, or if too many requests would be needed.
///
/// ```
/// use std::collections::BTreeMap;
/// use repair_core::builtin::repair::requests::cover;
/// use repair_core::model::{Key, SlotRange};
/// use repair_core::plugin::Limits;
///
/// let gaps = BTreeMap::from([(Key::from("IBM"), vec![SlotRange::new(10, 12), SlotRange::new(15, 16), SlotRange::new(90, 91)])]);
/// let plan = cover(&gaps, Limits::new(50, 1))?;
/// let asked: Vec<_> = plan.iter().map(|request| (request.slots.first, request.slots.end)).collect();
/// assert_eq!(asked, [(10, 16), (90, 91)]);
/// # Ok::<(), repair_core::Error>(())
/// ```
pub fn cover(gaps: &BTreeMap<Key, Vec<SlotRange>>, limits: Limits) -> Result<Vec<Asked>> {
    Ok(plan(gaps, limits)?.collect())
}

/// The requests that cover gaps, as [`cover`] says, one after the other. Until its turn comes, a request takes about 30 bytes.
///
/// # Errors
/// As [`cover`].
pub fn plan(gaps: &BTreeMap<Key, Vec<SlotRange>>, limits: Limits) -> Result<Plan> {
    planned(gaps, limits, MOST_REQUESTS)
}

fn planned(gaps: &BTreeMap<Key, Vec<SlotRange>>, limits: Limits, most: usize) -> Result<Plan> {
    if limits.rows_per_request == 0 || limits.keys_per_request == 0 {
        return Err(Error::invalid(
            "the source allows no rows or no keys per request; set `rows_per_request` and `keys_per_request` to 1 or more",
        ));
    }
    let gaps: Vec<(&Key, &[SlotRange])> =
        gaps.iter().filter(|(_, slots)| slots.iter().any(|slots| !slots.is_empty())).map(|(key, slots)| (key, slots.as_slice())).collect();
    let most_keys = limits.keys_per_request.min(gaps.len()).min(usize::try_from(limits.rows_per_request).unwrap_or(usize::MAX));
    let mut best: Option<(usize, u64, usize)> = None;
    let mut too_many = None;
    for keys in keys_a_request(most_keys) {
        let (mut requests, mut asked) = (0, 0u64);
        let counted = sweep(&gaps, limits.rows_per_request, (keys, most), |slots, taken| {
            requests += 1;
            asked = asked.saturating_add(slots.len().saturating_mul(taken.len() as u64));
        });
        match counted {
            Ok(()) if best.is_none_or(|(fewest, slots, _)| (requests, asked) < (fewest, slots)) => best = Some((requests, asked, keys)),
            Ok(()) => {}
            // More keys in a request may need fewer.
            Err(error) => too_many = Some(error),
        }
    }
    let mut plan = Plan { keys: gaps.iter().map(|(key, _)| (*key).clone()).collect(), packed: Vec::new(), order: Vec::new(), next: 0 };
    match (best, too_many) {
        (Some((requests, _, keys)), _) => {
            plan.order.reserve_exact(requests);
            let mut turns = vec![0u32; gaps.len()];
            sweep(&gaps, limits.rows_per_request, (keys, most), |slots, taken| plan.pack(&mut turns, slots, taken))?;
            plan.packed.shrink_to_fit();
            // The first request of each key, then the second of each, and so on.
            plan.order.sort_unstable();
            Ok(plan)
        }
        (None, Some(error)) => Err(error),
        (None, None) => Ok(plan),
    }
}

/// Which of so many comes first in a turn.
pub(super) fn first_of_turn(turn: u64, count: u32) -> u32 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    u32::try_from((u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(count)) >> 64).unwrap_or(0)
}

/// Requests that are planned, one after the other.
#[derive(Debug, Clone)]
pub struct Plan {
    keys: Vec<Key>,
    /// The numbers of each request: its slots, how many keys, and for each key its place in `keys` and its slots.
    packed: Vec<u8>,
    /// The turn of each request among those of that of its keys for which it comes first, this key, and where its numbers begin.
    order: Vec<(u32, u32, usize)>,
    next: usize,
}

impl Plan {
    /// The same requests, where another key comes first in each turn. The steps between first keys are a golden section of `all` keys that may ever have
    /// gaps, so that in a few turns each part of them comes first, and each key does in less than three turns for each, whatever gaps the others have
    /// meanwhile.
    #[must_use]
    pub fn of_turn(mut self, turn: u64, all: &[Key]) -> Self {
        let mut all: Vec<&Key> = all.iter().collect();
        let first = first_of_turn(turn, u32::try_from(all.len()).unwrap_or(u32::MAX));
        let at = usize::try_from(first).unwrap_or(usize::MAX);
        if at == 0 || at >= all.len() {
            return self;
        }
        let (_, first, _) = all.select_nth_unstable(at);
        let keys = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        let offset = u32::try_from(self.keys.partition_point(|key| key < *first)).unwrap_or(0);
        if 0 < offset && offset < keys {
            self.order.sort_unstable_by_key(|(turn, first, at)| (*turn, (first + (keys - offset)) % keys, *at));
        }
        self
    }

    fn pack(&mut self, turns: &mut [u32], slots: SlotRange, taken: &[(usize, Vec<SlotRange>)]) {
        // Of its keys, the one counts that has come least often: otherwise a key with few gaps would wait for all those of the key that it is asked with.
        let mut place = (u32::MAX, u32::MAX);
        for (key, _) in taken {
            let turn = turns.get_mut(*key).map_or(0, |turn| {
                *turn += 1;
                *turn
            });
            place = place.min((turn, u32::try_from(*key).unwrap_or(u32::MAX)));
        }
        self.order.push((place.0, place.1, self.packed.len()));
        let packed = &mut self.packed;
        let mut put = |number: i64| write(packed, number);
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        put(slots.first);
        put(slots.end.wrapping_sub(slots.first));
        put(count(taken.len()));
        for (key, gaps) in taken {
            put(count(*key));
            put(count(gaps.len()));
            let mut end = slots.first;
            for gap in gaps {
                put(gap.first.wrapping_sub(end));
                put(gap.end.wrapping_sub(gap.first));
                end = gap.end;
            }
        }
    }

    fn unpack(&self, at: usize) -> Option<Asked> {
        let mut bytes = self.packed.get(at..)?;
        let mut get = || read(&mut bytes);
        let first = get()?;
        let slots = SlotRange::new(first, first.wrapping_add(get()?));
        let keys = get()?;
        let mut wanted = Vec::with_capacity(usize::try_from(keys).ok()?);
        for _ in 0..keys {
            let key = self.keys.get(usize::try_from(get()?).ok()?)?.clone();
            let gaps = get()?;
            let (mut of_key, mut end) = (Vec::with_capacity(usize::try_from(gaps).ok()?), slots.first);
            for _ in 0..gaps {
                let first = end.wrapping_add(get()?);
                end = first.wrapping_add(get()?);
                of_key.push(SlotRange::new(first, end));
            }
            wanted.push(Wanted { key, slots: of_key });
        }
        Some(Asked { slots, wanted })
    }
}

impl Iterator for Plan {
    type Item = Asked;

    fn next(&mut self) -> Option<Asked> {
        let (_, _, at) = *self.order.get(self.next)?;
        self.next += 1;
        self.unpack(at)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.order.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Plan {}

/// Widens a request by the slot before its first gap and the slot after its last, if the limits leave room, so that the neighbours of
/// gaps are requested without a further request. Slots at or after `end` have not ended, and are never requested.
///
/// ```
/// use std::collections::BTreeMap;
/// use repair_core::builtin::repair::requests::{cover, with_neighbours};
/// use repair_core::model::{Key, SlotRange};
/// use repair_core::plugin::Limits;
///
/// let gaps = BTreeMap::from([(Key::from("IBM"), vec![SlotRange::new(10, 12)])]);
/// let limits = Limits::new(50, 1);
/// let asked = with_neighbours(cover(&gaps, limits)?.remove(0), limits, 1_000);
/// assert_eq!(asked.slots, SlotRange::new(9, 13));
/// # Ok::<(), repair_core::Error>(())
/// ```
#[must_use]
pub fn with_neighbours(mut asked: Asked, limits: Limits, end: i64) -> Asked {
    for wider in [|slots: SlotRange| (slots.first - 1, slots.end), |slots: SlotRange| (slots.first, slots.end + 1)] {
        let (first, last) = wider(asked.slots);
        let slots = SlotRange::new(first, last);
        if last <= end && slots.len().saturating_mul(asked.wanted.len() as u64) <= limits.rows_per_request {
            asked.slots = slots;
        }
    }
    asked
}

/// A request, as a unit of a repair step.
///
/// # Errors
/// `invalid` if slots are out of the range of instants.
pub fn unit(asked: Asked, grid: SlotGrid) -> Result<Unit> {
    let interval = grid.interval_of(asked.slots).ok_or_else(|| Error::invalid("the time of a gap is out of range"))?;
    Ok(Unit { interval, wanted: asked.wanted })
}

/// The numbers 1, 2, 4 and so on below `most`, then `most`.
fn keys_a_request(most: usize) -> impl Iterator<Item = usize> {
    let doubling = std::iter::successors(Some(1usize), |keys| keys.checked_mul(2)).take_while(move |&keys| keys < most);
    doubling.chain((most > 0).then_some(most))
}

/// The gaps of one key that are not covered yet.
struct Left<'a> {
    gaps: &'a [SlotRange],
    /// The first slot that is not covered yet, within the first of `gaps`.
    next: i64,
}

impl Left<'_> {
    /// Takes the gaps before `end`.
    fn take(&mut self, end: i64) -> Vec<SlotRange> {
        let mut taken = Vec::new();
        while let Some(gap) = self.gaps.first() {
            let from = self.next.max(gap.first);
            if from >= end {
                break;
            }
            if from < gap.end {
                taken.push(SlotRange::new(from, gap.end.min(end)));
            }
            if gap.end > end {
                self.next = end;
                break;
            }
            self.gaps = &self.gaps[1..];
        }
        taken
    }

    fn first(&mut self) -> Option<i64> {
        while self.gaps.first()?.is_empty() {
            self.gaps = &self.gaps[1..];
        }
        self.gaps.first().map(|gap| self.next.max(gap.first))
    }
}

/// Plans requests in order of time, and visits each: its slots, and the places and gaps of its keys. Each starts at the earliest slot not yet
/// covered, and includes up to `keys` keys whose next gaps start within its reach. With fewer keys, a request reaches further.
///
/// # Errors
/// `invalid` if there are more than `most`.
fn sweep(
    gaps: &[(&Key, &[SlotRange])],
    rows_per_request: u64,
    (keys, most): (usize, usize),
    mut visit: impl FnMut(SlotRange, &[(usize, Vec<SlotRange>)]),
) -> Result<()> {
    let mut left: Vec<Left<'_>> = gaps.iter().map(|(_, slots)| Left { gaps: slots, next: i64::MIN }).collect();
    let mut queue: BinaryHeap<Reverse<(i64, usize)>> =
        left.iter_mut().enumerate().filter_map(|(key, left)| Some(Reverse((left.first()?, key)))).collect();
    let reach = |first: i64, keys: usize| first.saturating_add_unsigned(rows_per_request / (keys.max(1) as u64));
    let mut requests = 0;
    while let Some(Reverse((first, key))) = queue.pop() {
        let mut taken = vec![key];
        // Each further key shortens the reach of all, so only keys within the reach of the full number are included.
        let shared_end = reach(first, keys);
        while taken.len() < keys
            && let Some(&Reverse((next, key))) = queue.peek()
            && next < shared_end
        {
            queue.pop();
            taken.push(key);
        }
        let end = reach(first, taken.len());
        taken.sort_unstable();
        let mut wanted = Vec::with_capacity(taken.len());
        let mut last = first;
        for key in taken {
            let slots = left[key].take(end);
            last = slots.last().map_or(last, |slots| last.max(slots.end));
            wanted.push((key, slots));
            queue.extend(left[key].first().map(|first| Reverse((first, key))));
        }
        requests += 1;
        if requests > most {
            return Err(Error::invalid(format!(
                "more than {most} requests of {rows_per_request} rows would be needed; repair a shorter interval at a time, or use a \
                 source that returns more rows per request"
            )));
        }
        visit(SlotRange::new(first, last), &wanted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn slot_set(gaps: &[SlotRange]) -> BTreeSet<i64> {
        gaps.iter().flat_map(|gap| gap.first..gap.end).collect()
    }

    /// Gaps from a set of slots.
    fn runs(slots: &BTreeSet<i64>) -> Vec<SlotRange> {
        let mut runs: Vec<SlotRange> = Vec::new();
        for &slot in slots {
            match runs.last_mut() {
                Some(last) if last.end == slot => last.end += 1,
                _ => runs.push(SlotRange::new(slot, slot + 1)),
            }
        }
        runs
    }

    /// The least number of intervals of `width` slots that cover some slots, by trying every way to cut them.
    fn fewest(slots: &[i64], width: i64) -> usize {
        let Some(&first) = slots.first() else { return 0 };
        (1..=slots.len()).filter(|&taken| slots[taken - 1] - first < width).map(|taken| 1 + fewest(&slots[taken..], width)).min().unwrap()
    }

    fn gaps() -> impl Strategy<Value = BTreeMap<Key, Vec<SlotRange>>> {
        prop::collection::vec(prop::collection::btree_set(-20i64..40, 0..9), 1..5)
            .prop_map(|keys| keys.iter().enumerate().map(|(index, slots)| (Key::from(format!("K{index}").as_str()), runs(slots))).collect())
    }

    fn limits(rows: u64, keys: usize) -> Limits {
        Limits { rows_per_request: rows, keys_per_request: keys }
    }

    proptest! {
        #[test]
        fn a_source_of_one_key_a_request_is_asked_the_fewest_times_possible(gaps in gaps(), rows in 1u64..20) {
            let plan = cover(&gaps, limits(rows, 1)).unwrap();
            let fewest: usize = gaps.values().map(|gaps| fewest(&slot_set(gaps).into_iter().collect::<Vec<_>>(), rows as i64)).sum();
            prop_assert_eq!(plan.len(), fewest);
        }

        #[test]
        fn every_gap_is_asked_for_once_within_the_limits_and_no_wider_than_needed(gaps in gaps(), rows in 1u64..20, keys in 1usize..6) {
            let plan = cover(&gaps, limits(rows, keys)).unwrap();
            let mut asked: BTreeMap<Key, BTreeSet<i64>> = gaps.keys().map(|key| (key.clone(), BTreeSet::new())).collect();
            for request in &plan {
                prop_assert!(request.slots_asked() <= rows && request.wanted.len() <= keys && !request.wanted.is_empty());
                let (mut first, mut end) = (i64::MAX, i64::MIN);
                for wanted in &request.wanted {
                    prop_assert!(!wanted.is_empty());
                    first = first.min(wanted.slots[0].first);
                    end = end.max(wanted.slots[wanted.slots.len() - 1].end);
                    for slot in slot_set(&wanted.slots) {
                        prop_assert!(asked.get_mut(&wanted.key).unwrap().insert(slot), "asked twice for {slot}");
                    }
                }
                prop_assert_eq!(request.slots, SlotRange::new(first, end));
            }
            for (key, gaps) in &gaps {
                prop_assert_eq!(&asked[key], &slot_set(gaps));
            }
            prop_assert!(plan.len() <= cover(&gaps, limits(rows, 1)).unwrap().len(), "worse than one key at a time");
        }
    }

    proptest! {
        #[test]
        fn neighbours_are_asked_for_within_the_limits_and_the_past(gaps in gaps(), rows in 1u64..20, keys in 1usize..6, end in 40i64..45) {
            let limits = limits(rows, keys);
            let plan = cover(&gaps, limits).unwrap();
            for (narrow, wide) in plan.iter().map(|asked| (asked, with_neighbours(asked.clone(), limits, end))) {
                prop_assert_eq!(&wide.wanted, &narrow.wanted);
                prop_assert!(wide.slots_asked() <= rows && wide.slots.end <= end);
                let (before, after) = (narrow.slots.first - wide.slots.first, wide.slots.end - narrow.slots.end);
                prop_assert!((0..=1).contains(&before) && (0..=1).contains(&after));
                let room = narrow.slots_asked() + 2 * narrow.wanted.len() as u64 <= rows;
                prop_assert!(!room || (before == 1 && (after == 1 || narrow.slots.end == end)), "there was room for both");
            }
        }
    }

    #[test]
    fn one_outage_of_all_keys_is_one_request_where_the_source_allows_it() {
        let gaps: BTreeMap<Key, Vec<SlotRange>> = ["A", "B", "C"].map(|key| (Key::from(key), vec![SlotRange::new(0, 30)])).into();
        assert_eq!(cover(&gaps, limits(100, 10)).unwrap().len(), 1);
        assert_eq!(cover(&gaps, limits(100, 1)).unwrap().len(), 3);
        assert_eq!(cover(&gaps, limits(60, 10)).unwrap().len(), 2, "90 rows in requests of 60");
    }

    #[test]
    fn fair_shares() {
        let gaps: BTreeMap<Key, Vec<SlotRange>> =
            [("A", vec![SlotRange::new(0, 50)]), ("B", vec![SlotRange::new(40, 41)]), ("C", vec![SlotRange::new(90, 95)])]
                .map(|(key, gaps)| (Key::from(key), gaps))
                .into();
        let plan = cover(&gaps, limits(10, 1)).unwrap();
        let order: Vec<String> = plan.iter().map(|request| request.wanted[0].key.to_string()).collect();
        assert_eq!(order, ["A", "B", "C", "A", "A", "A", "A"]);
    }

    #[test]
    fn a_key_does_not_wait_for_those_that_it_is_asked_with() {
        let gaps: BTreeMap<Key, Vec<SlotRange>> = [
            ("A", (0..20).map(|gap| SlotRange::new(100 * gap, 100 * gap + 10)).collect()),
            ("B", vec![SlotRange::new(1_900, 1_910)]),
            ("C", (0..20).map(|gap| SlotRange::new(100 * gap + 20, 100 * gap + 30)).collect::<Vec<_>>()),
        ]
        .map(|(key, gaps)| (Key::from(key), gaps))
        .into();
        let plan = cover(&gaps, limits(60, 3)).unwrap();
        let of_b = plan.iter().position(|request| request.wanted.iter().any(|wanted| wanted.key == Key::from("B"))).unwrap();
        assert!(plan.len() >= 20 && of_b < 3, "{of_b} of {}", plan.len());
    }

    #[test]
    fn each_key_comes_first_in_some_turn() {
        for keys in [1usize, 2, 3, 11, 100] {
            let gaps: BTreeMap<Key, Vec<SlotRange>> =
                (0..keys).map(|key| (Key::from(format!("K{key:03}").as_str()), vec![SlotRange::new(0, 50)])).collect();
            let mut first = std::collections::BTreeSet::new();
            for turn in 1..=4 * keys as u64 {
                let all: Vec<Key> = gaps.keys().cloned().collect();
                let order: Vec<Asked> = plan(&gaps, limits(50, 1)).unwrap().of_turn(turn, &all).collect();
                assert_eq!(order.len(), keys, "none is lost");
                first.insert(order[0].wanted[0].key.clone());
            }
            assert_eq!(first.len(), keys);
        }
    }

    #[test]
    fn a_planned_request_takes_few_bytes() {
        const REQUESTS: i64 = 100_000;
        let of_key =
            |key: i64| (0..REQUESTS / 100).map(move |gap| SlotRange::new(20_000_000 + 700 * gap + key, 20_000_000 + 700 * gap + key + 3));
        let gaps: BTreeMap<Key, Vec<SlotRange>> =
            (0..100).map(|key| (Key::from(format!("K{key}").as_str()), of_key(key).collect())).collect();
        let plan = plan(&gaps, limits(100, 1)).unwrap();
        assert_eq!(i64::try_from(plan.len()).unwrap(), REQUESTS);
        let bytes = plan.packed.capacity() + plan.order.capacity() * std::mem::size_of::<(u32, u32, usize)>();
        assert!(bytes <= 32 * plan.len(), "{} bytes a request", bytes / plan.len());
    }

    #[test]
    fn where_one_key_a_request_is_too_many_several_may_do() {
        // Each key has more gaps than half of what is allowed, and all have them at the same time.
        let slots: Vec<SlotRange> = (0..60).map(|gap| SlotRange::new(100 * gap, 100 * gap + 1)).collect();
        let gaps: BTreeMap<Key, Vec<SlotRange>> = ["A", "B"].map(|key| (Key::from(key), slots.clone())).into();
        assert!(planned(&gaps, limits(50, 1), 100).is_err());
        assert_eq!(planned(&gaps, limits(50, 2), 100).unwrap().len(), slots.len());
    }

    #[test]
    fn a_plan_without_end_is_refused() {
        let gaps = BTreeMap::from([(Key::from("A"), vec![SlotRange::new(0, 1 << 40)])]);
        assert!(cover(&gaps, limits(1, 1)).unwrap_err().message().contains("shorter interval"));
        assert!(cover(&gaps, limits(0, 1)).is_err() && cover(&gaps, limits(1, 0)).is_err());
    }
}
