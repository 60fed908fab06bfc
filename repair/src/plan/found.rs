//! What was found, in a form that people can read, and that shows later what has changed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::Look;
use repair_core::Result;
use repair_core::model::{Findings, Interval, Key, SlotGrid, SlotRange, Zone};

/// At most this many keys and days are listed. What else is missing is counted, and is in the digest.
const MOST_LISTED: usize = 50_000;
/// With more gaps than this, a plan keeps no single gaps, only how many slots of each key and day are missing.
const MOST_GAPS: usize = 20_000;
/// At most this many differences are reported.
const MOST_REPORTED: usize = 20;

/// What is missing of one key on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defects {
    /// The key.
    pub key: Key,
    /// The day, in the table's zone.
    pub day: Date,
    /// How many slots.
    pub missing: u64,
    /// The gaps; left out if there are too many in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gaps>,
}

/// A run of missing slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// When the first slot begins.
    pub from: Timestamp,
    /// How many slots.
    pub slots: u64,
}

/// What is missing, by key and day of the table's zone, and how many missing slots are not listed.
pub(super) fn defects(findings: &Findings, zone: &Zone) -> Result<(Vec<Defects>, u64)> {
    let grid = findings.scope.grid;
    let keep_gaps = findings.gaps.len() <= MOST_GAPS;
    let (mut all, mut unlisted): (Vec<Defects>, u64) = (Vec::new(), 0);
    for (key, gap) in findings.gaps.iter() {
        let mut rest = gap;
        while !rest.is_empty() {
            let from = grid.start_of(rest.first);
            let day = zone.local(from).date();
            let slots = SlotRange::new(rest.first, first_slot_after(grid, zone, day)?.clamp(rest.first + 1, rest.end));
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

fn first_slot_after(grid: SlotGrid, zone: &Zone, day: Date) -> Result<i64> {
    let next = zone.day(day)?.to();
    Ok(Interval::new(next, Timestamp::MAX).map_or(i64::MAX, |rest| grid.slots_in(&rest).first))
}

/// A digest of what was searched and of all gaps, and of the rows in slots whose rows are wrong.
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
    for lifetime in scope.lifetimes.iter() {
        add("lifetime");
        lifetime.key.values().for_each(&mut add);
        add(lifetime.calendar.as_deref().unwrap_or_default());
        add(&lifetime.every.map(|every| every.to_string()).unwrap_or_default());
        lifetime.alive.iter().flatten().for_each(|stretch| add(&stretch.to_string()));
    }
    let mut last: Option<&Key> = None;
    for (key, slots) in findings.gaps.iter() {
        if last != Some(key) {
            add("gaps");
            key.values().for_each(&mut add);
            last = Some(key);
        }
        add(&format!("{} {}", slots.first, slots.end));
        if !findings.judged.is_empty() {
            (slots.first..slots.end).filter_map(|slot| findings.judged.get(key, slot)).for_each(|rows| add(&rows.to_string()));
        }
        for (slot, cells) in findings.cells.of_key(key, slots) {
            add(&format!("cells {slot} {}", cells.judged));
            cells.columns.iter().for_each(|name| add(name));
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// What a detect step finds differently than when the plan was made, in words. Empty if all gaps are the same.
pub fn changes(before: &Look, now: &Look) -> Vec<String> {
    if before.digest == now.digest {
        return Vec::new();
    }
    let mut found = Vec::new();
    if (&before.table, before.grid, before.interval) != (&now.table, now.grid, now.interval) {
        found.push(format!(
            "it searches {} of table `{}`, but searched {} of `{}` before",
            now.interval, now.table, before.interval, before.table
        ));
    }
    if (before.counts.expected, before.counts.audited_keys) != (now.counts.expected, now.counts.audited_keys) {
        let of = |look: &Look| format!("{} slots of {} keys", look.counts.expected, look.counts.audited_keys);
        found.push(format!("it expects {}, but expected {} before", of(now), of(before)));
    }
    let by_key_and_day = |look: &Look| -> BTreeMap<(Key, Date), Defects> {
        look.defects.iter().map(|defects| ((defects.key.clone(), defects.day), defects.clone())).collect()
    };
    let (old, new) = (by_key_and_day(before), by_key_and_day(now));
    let places: BTreeSet<&(Key, Date)> = old.keys().chain(new.keys()).collect();
    let (listed, mut more) = (found.len(), 0u64);
    for place in places {
        let (come, gone) = moved(old.get(place), new.get(place), now.grid);
        let (key, day) = place;
        for (count, what) in [(come, "more"), (gone, "no longer")] {
            if count > 0 && found.len() - listed < MOST_REPORTED {
                found.push(format!("{count} {what} {} of {key} on {day}", now.kind.as_str()));
            } else if count > 0 {
                more += 1;
            }
        }
    }
    if more > 0 {
        found.push(format!("and {more} more keys and days differ"));
    }
    if found.is_empty() {
        let (wrong, what) = (now.counts.wrong(now.kind), now.kind.as_str());
        let what = if now.kind.is_of_rows() { format!("slots or rows are {what}") } else { format!("slots are {what}") };
        found.push(format!("other {what}: {wrong} in {} gaps, as many as before", now.counts.gaps));
    }
    found
}

/// How many slots of a key and day are missing now and were not before, and the reverse. Where single gaps are not kept, the difference.
fn moved(old: Option<&Defects>, new: Option<&Defects>, grid: SlotGrid) -> (u64, u64) {
    let count = |defects: Option<&Defects>| defects.map_or(0, |defects| defects.missing);
    let kept = |defects: Option<&Defects>| defects.is_none_or(|defects| !defects.gaps.is_empty());
    if !kept(old) || !kept(new) {
        return (count(new).saturating_sub(count(old)), count(old).saturating_sub(count(new)));
    }
    let slots = |defects: Option<&Defects>| -> BTreeSet<i64> {
        let gaps = defects.map(|defects| defects.gaps.as_slice()).unwrap_or_default();
        let first = |gap: &Gaps| grid.slot_at(gap.from);
        gaps.iter().flat_map(|gap| (first(gap)..).take(usize::try_from(gap.slots).unwrap_or(usize::MAX))).collect()
    };
    let (old, new) = (slots(old), slots(new));
    (new.difference(&old).count() as u64, old.difference(&new).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Estimate, Reach};
    use repair_core::model::Usage;
    use repair_core::model::{Cadence, Counts, GapList, Lifetimes, OtherKeys, Scope, TimeMark};

    fn findings_of(gaps: &[(&str, i64, i64)]) -> Findings {
        let mut list = GapList::default();
        gaps.iter().for_each(|(key, first, end)| list.push(&Key::from(*key), SlotRange::new(*first, *end)));
        let missing = list.missing();
        let scope = Scope {
            table: "bars".to_owned(),
            grid: SlotGrid::new(Cadence::MINUTE, TimeMark::End),
            keys: vec![Key::from("A"), Key::from("B")],
            interval: Interval::parse("1970-01-01", "1970-01-03").unwrap(),
            calendar: "24x7".to_owned(),
            lifetimes: Lifetimes::default(),
        };
        let counts = Counts { expected: 8_640, missing, gaps: list.len() as u64, audited_keys: 2, ..Counts::default() };
        Findings::of_gaps(scope, counts, list, Usage::default())
    }

    fn look(findings: &Findings) -> Look {
        let (defects, unlisted) = defects(findings, &Zone::utc()).unwrap();
        Look {
            step: "find".to_owned(),
            plugin: "gaps".to_owned(),
            reach: Reach::Surely,
            table: findings.scope.table.clone(),
            grid: findings.scope.grid,
            interval: findings.scope.interval,
            kind: findings.kind,
            counts: findings.counts,
            defects,
            unlisted,
            bad_rows: Vec::new(),
            notices: Vec::new(),
            other_keys: OtherKeys::default(),
            digest: digest(findings),
            extents: Vec::new(),
            estimate: Estimate::default(),
        }
    }

    #[test]
    fn gaps_are_cut_into_days_and_what_has_changed_is_reported_by_day() {
        let before = look(&findings_of(&[("A", 1_430, 1_450), ("A", 1_460, 1_461), ("B", 0, 2_881)]));
        let listed: Vec<_> = before.defects.iter().map(|of| (of.key.to_string(), of.day.to_string(), of.missing, of.gaps.len())).collect();
        let of = |key: &str, day: &str, missing, gaps| (key.to_owned(), day.to_owned(), missing, gaps);
        let days = [
            of("A", "1970-01-01", 10, 1),
            of("A", "1970-01-02", 11, 2),
            of("B", "1970-01-01", 1_440, 1),
            of("B", "1970-01-02", 1_440, 1),
            of("B", "1970-01-03", 1, 1),
        ];
        assert_eq!(listed, days);
        assert_eq!(changes(&before, &before), [""; 0]);
        let now = look(&findings_of(&[("A", 1_435, 1_455), ("A", 1_460, 1_461), ("B", 0, 2_880)]));
        let found =
            ["5 no longer missing of A on 1970-01-01", "5 more missing of A on 1970-01-02", "1 no longer missing of B on 1970-01-03"];
        assert_eq!(changes(&before, &now), found);
        // Without single gaps, numbers are compared; where these are the same, the digest differs.
        let without = |look: &Look| {
            let defects = look.defects.iter().map(|of| Defects { gaps: Vec::new(), ..of.clone() }).collect();
            Look { defects, ..look.clone() }
        };
        assert_eq!(changes(&without(&before), &now), found);
        let moved = look(&findings_of(&[("A", 1_430, 1_450), ("A", 1_461, 1_462), ("B", 0, 2_881)]));
        let found = changes(&without(&before), &without(&moved));
        assert_eq!(found, ["other slots are missing: 2902 in 3 gaps, as many as before"]);
    }
}
