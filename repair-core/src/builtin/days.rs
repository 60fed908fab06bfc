//! Units of a day of all keys, for repairers that read the table and ask nobody: what a unit costs is reading the day, whoever is in it.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::model::{Key, SlotGrid, SlotRange, Unit, Wanted};
use crate::plugin::Units;

/// Keys of one unit, so that its rows (a day's, of each) stay within some hundred megabytes.
const KEYS_PER_UNIT: usize = 1_000;

const DAY_S: i64 = 86_400;

/// Slots, in order of key, then time, cut into units of a day.
pub(super) fn units_by_day<'a>(grid: SlotGrid, slots: impl Iterator<Item = (&'a Key, SlotRange)>) -> Units {
    let cadence_s = i64::from(grid.cadence.seconds());
    let mut days: BTreeMap<i64, Vec<Wanted>> = BTreeMap::new();
    for (key, mut rest) in slots {
        while !rest.is_empty() {
            let day = (rest.first * cadence_s).div_euclid(DAY_S);
            let slots = SlotRange::new(rest.first, rest.end.min((day + 1) * DAY_S / cadence_s));
            let of_day = days.entry(day).or_default();
            match of_day.last_mut() {
                Some(last) if last.key == *key => last.slots.push(slots),
                _ => of_day.push(Wanted { key: key.clone(), slots: vec![slots] }),
            }
            rest.first = slots.end;
        }
    }
    let of_day = move |of_day: Vec<Wanted>| -> Vec<_> { of_day.chunks(KEYS_PER_UNIT).map(|wanted| unit(grid, wanted.to_vec())).collect() };
    Box::new(days.into_values().flat_map(of_day))
}

fn unit(grid: SlotGrid, wanted: Vec<Wanted>) -> Result<Unit> {
    let slots = || wanted.iter().flat_map(|wanted| &wanted.slots);
    let hull = slots().map(|slots| slots.first).min().zip(slots().map(|slots| slots.end).max());
    let interval = hull.and_then(|(first, end)| grid.interval_of(SlotRange::new(first, end)));
    Ok(Unit { interval: interval.ok_or_else(|| Error::invalid("a gap is out of the range of instants"))?, wanted })
}
