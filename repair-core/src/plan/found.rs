//! What was found, in a form that people read and that tells later what has changed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::Look;
use crate::error::Result;
use crate::model::interval::{day_start, utc_date};
use crate::model::{Findings, Interval, Key, SlotGrid, SlotRange};

/// Keys and days that a plan lists. What is missing beyond is counted, and in the digest.
const MOST_LISTED: usize = 50_000;
/// Of more gaps than these a plan keeps no single ones, only how many slots of each key and day are missing.
const MOST_GAPS: usize = 20_000;
/// So many differences are told.
const MOST_TOLD: usize = 20;

/// What is missing of one key on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defects {
    /// Whose.
    pub key: Key,
    /// The UTC day.
    pub day: Date,
    /// How many slots.
    pub missing: u64,
    /// Which; left out if there are too many in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gaps>,
}

/// A run of missing slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// When the first begins.
    pub from: Timestamp,
    /// How many.
    pub slots: u64,
}

/// What is missing, by key and day, and how many missing slots are not listed.
pub(super) fn defects(findings: &Findings) -> Result<(Vec<Defects>, u64)> {
    let grid = findings.scope.grid;
    let keep_gaps = findings.gaps.len() <= MOST_GAPS;
    let (mut all, mut unlisted): (Vec<Defects>, u64) = (Vec::new(), 0);
    for (key, gap) in findings.gaps.iter() {
        let mut rest = gap;
        while !rest.is_empty() {
            let from = grid.start_of(rest.first);
            let day = utc_date(from);
            let slots = SlotRange::new(rest.first, first_slot_after(grid, day)?.clamp(rest.first + 1, rest.end));
            rest.first = slots.end;
            let known = all.last().is_some_and(|last| last.key == *key && last.day == day);
            if !known && all.len() >= MOST_LISTED {
                unlisted += slots.len();
                continue;
            }
            if !known {
                all.push(Defects { key: key.clone(), day, missing: 0, gaps: Vec::new() });
            }
            if let Some(last) = all.last_mut() {
                last.missing += slots.len();
                if keep_gaps {
                    last.gaps.push(Gaps { from, slots: slots.len() });
                }
            }
        }
    }
    Ok((all, unlisted))
}

fn first_slot_after(grid: SlotGrid, day: Date) -> Result<i64> {
    let Ok(next) = day.tomorrow() else { return Ok(i64::MAX) };
    let next = day_start(next)?;
    Ok(Interval::new(next, Timestamp::MAX).map_or(i64::MAX, |rest| grid.slots_in(&rest).first))
}

/// A digest of what was looked at and of all gaps.
pub(super) fn digest(findings: &Findings) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    let scope = &findings.scope;
    add(&scope.table);
    add(&format!("{:?}", scope.grid));
    add(&scope.interval.to_string());
    add(&scope.calendar);
    add(&findings.counts.expected.to_string());
    for key in &scope.keys {
        add("key");
        key.values().for_each(&mut add);
    }
    let mut last: Option<&Key> = None;
    for (key, slots) in findings.gaps.iter() {
        if last != Some(key) {
            add("gaps");
            key.values().for_each(&mut add);
            last = Some(key);
        }
        add(&format!("{} {}", slots.first, slots.end));
    }
    hasher.finalize().to_hex().to_string()
}

/// What a detect step finds otherwise than it did when the plan was made, in words; nothing if all gaps are the same.
pub fn changes(before: &Look, now: &Look) -> Vec<String> {
    if before.digest == now.digest {
        return Vec::new();
    }
    let mut told = Vec::new();
    if (&before.table, before.grid, before.interval) != (&now.table, now.grid, now.interval) {
        told.push(format!("looks at {} of table `{}`, and looked at {} of `{}`", now.interval, now.table, before.interval, before.table));
    }
    if (before.counts.expected, before.counts.audited_keys) != (now.counts.expected, now.counts.audited_keys) {
        let of = |look: &Look| format!("{} slots of {} keys", look.counts.expected, look.counts.audited_keys);
        told.push(format!("expects {}, and expected {}", of(now), of(before)));
    }
    let by_key_and_day = |look: &Look| -> BTreeMap<(Key, Date), Defects> {
        look.defects.iter().map(|defects| ((defects.key.clone(), defects.day), defects.clone())).collect()
    };
    let (old, new) = (by_key_and_day(before), by_key_and_day(now));
    let places: BTreeSet<&(Key, Date)> = old.keys().chain(new.keys()).collect();
    let (listed, mut more) = (told.len(), 0u64);
    for place in places {
        let (come, gone) = moved(old.get(place), new.get(place), now.grid);
        let (key, day) = place;
        for (count, what) in [(come, "more missing"), (gone, "no longer missing")] {
            if count > 0 && told.len() - listed < MOST_TOLD {
                told.push(format!("{count} {what} of {key} on {day}"));
            } else if count > 0 {
                more += 1;
            }
        }
    }
    if more > 0 {
        told.push(format!("and {more} more keys and days differ"));
    }
    if told.is_empty() {
        told.push(format!("other slots are missing: {} in {} gaps, as many as before", now.counts.missing, now.counts.gaps));
    }
    told
}

/// How many slots of a key and day are missing that were not, and the other way round. Where single gaps are not kept, the difference.
fn moved(old: Option<&Defects>, new: Option<&Defects>, grid: SlotGrid) -> (u64, u64) {
    let count = |defects: Option<&Defects>| defects.map_or(0, |defects| defects.missing);
    let kept = |defects: Option<&Defects>| defects.is_none_or(|defects| !defects.gaps.is_empty());
    if !kept(old) || !kept(new) {
        return (count(new).saturating_sub(count(old)), count(old).saturating_sub(count(new)));
    }
    let slots = |defects: Option<&Defects>| -> BTreeSet<i64> {
        let gaps = defects.map(|defects| defects.gaps.as_slice()).unwrap_or_default();
        let first = |gap: &Gaps| gap.from.as_second().div_euclid(i64::from(grid.cadence.seconds()));
        gaps.iter().flat_map(|gap| (first(gap)..).take(usize::try_from(gap.slots).unwrap_or(usize::MAX))).collect()
    };
    let (old, new) = (slots(old), slots(new));
    (new.difference(&old).count() as u64, old.difference(&new).count() as u64)
}
