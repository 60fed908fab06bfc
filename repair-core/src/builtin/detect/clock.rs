//! The signature of a local clock: times without a zone are read as UTC, but in spring an hour is missing, and in autumn the rows of an hour
//! are there twice, exactly where the clock of some zone is set. Such times are wrong by hours, and nothing else shows it.

use jiff::Timestamp;

use crate::model::{Interval, KeyPresence, SlotGrid, SlotRange, Table, TablePresence, TimeForm, Zone};

/// Zones whose clocks are set at different local times. Others with the same rules have the same signature.
const ZONES: [&str; 9] = [
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "Australia/Sydney",
    "America/Santiago",
    "Asia/Jerusalem",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "America/Asuncion",
];

/// Looks for the signatures of clocks.
#[derive(Debug)]
pub(super) struct Clocks {
    grid: SlotGrid,
    zones: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    zone: Zone,
    /// How often an hour was missing where the clock is set forward, and how often it was not.
    skipped: (u32, u32),
    /// How often an hour was doubled where the clock is set back, and how often it was not.
    repeated: (u32, u32),
}

impl Clocks {
    pub(super) fn new(grid: SlotGrid) -> Self {
        // Slots of days and longer do not show an hour.
        let zones =
            if grid.cadence().seconds() <= 3_600 { ZONES.iter().filter_map(|name| name.parse().ok()).collect() } else { Vec::new() };
        Self { grid, zones: zones.into_iter().map(|zone| Seen { zone, skipped: (0, 0), repeated: (0, 0) }).collect() }
    }

    /// Looks at the presence of some slots.
    pub(super) fn look(&mut self, slots: SlotRange, presence: &TablePresence) {
        let Some(interval) = self.grid.interval_of(slots) else { return };
        for seen in &mut self.zones {
            let changes = seen.zone.changes(interval.from(), interval.to());
            for pair in changes.windows(2) {
                let ([(_, before_s), (at_s, after_s)], shift_s) = (pair, pair[1].1 - pair[0].1) else { continue };
                // What the clock shows around the change, taken for UTC.
                let (first_s, last_s) = (at_s + i64::from(*before_s.min(after_s)), at_s + i64::from(*before_s.max(after_s)));
                let Some(hour) = stretch(first_s, last_s) else { continue };
                let around = stretch(first_s - 3 * 3_600, first_s).zip(stretch(last_s, last_s + 3 * 3_600));
                let Some((before, after)) = around else { continue };
                if !interval.covers(&before) || !interval.covers(&after) {
                    continue;
                }
                let (hour, before, after) = (self.grid.slots_in(&hour), self.grid.slots_in(&before), self.grid.slots_in(&after));
                for key in presence.raw.keys.values() {
                    let is_running = full(key, before) && full(key, after);
                    if !is_running || hour.is_empty() {
                        continue;
                    }
                    let (signs, has_it) = if shift_s > 0 {
                        (&mut seen.skipped, key.present.count_in(hour) == 0)
                    } else {
                        (&mut seen.repeated, is_doubled(self.grid, key, hour))
                    };
                    if has_it { signs.0 += 1 } else { signs.1 += 1 }
                }
            }
        }
    }

    /// The slots that must be looked at together, around each change of a clock in a range.
    pub(super) fn looked_at(&self, slots: SlotRange) -> Vec<SlotRange> {
        let Some(interval) = self.grid.interval_of(slots) else { return Vec::new() };
        let mut all = Vec::new();
        for seen in &self.zones {
            for pair in seen.zone.changes(interval.from(), interval.to()).windows(2) {
                let ([(_, before_s), (at_s, after_s)], margin_s) = (pair, 3 * 3_600) else { continue };
                let (first_s, last_s) = (at_s + i64::from(*before_s.min(after_s)), at_s + i64::from(*before_s.max(after_s)));
                // The change itself, and what the clock shows around it.
                let around = stretch((at_s - 1).min(first_s - margin_s), (at_s + 1).max(last_s + margin_s));
                all.extend(around.map(|around| self.grid.slots_over(&around)));
            }
        }
        all
    }

    /// The zone whose clock the times seem to follow.
    pub(super) fn found(&self) -> Option<&Zone> {
        let mostly = |(yes, no): (u32, u32)| yes > 0 && yes >= 9 * no;
        self.zones.iter().find(|seen| mostly(seen.skipped) && mostly(seen.repeated)).map(|seen| &seen.zone)
    }
}

fn stretch(from_s: i64, to_s: i64) -> Option<Interval> {
    let at = |second: i64| Timestamp::from_second(second).ok();
    Interval::new(at(from_s)?, at(to_s)?).ok()
}

/// Whether most slots hold a row.
fn full(key: &KeyPresence, slots: SlotRange) -> bool {
    key.present.count_in(slots) * 10 >= slots.len() * 8 && !slots.is_empty()
}

/// Whether the words of a range of slots hold about as many rows more than slots as the range has slots.
fn is_doubled(grid: SlotGrid, key: &KeyPresence, slots: SlotRange) -> bool {
    let words = key.present.first_word()..;
    let per_word = i64::from(grid.cadence().slots_per_word());
    let (first, last) = (slots.first.div_euclid(per_word), (slots.end - 1).div_euclid(per_word));
    let more: u64 = words
        .zip(key.present.words().iter().zip(&key.rows))
        .filter(|(number, _)| (first..=last).contains(number))
        .map(|(_, (word, rows))| u64::from(rows.saturating_sub(word.count_ones())))
        .sum();
    more * 10 >= slots.len() * 8
}

/// Whether the times of a table may be those of a clock although they are read as UTC.
pub(super) fn applies(table: &Table) -> bool {
    table.reading.zone.as_ref().is_none_or(Zone::is_utc) && !matches!(table.reading.form, TimeForm::Epoch(_))
}

/// What a person should know about times that seem to follow the clock of a zone.
pub(super) fn notice(table: &Table, zone: &Zone) -> String {
    format!(
        "the times of table `{}` are read as UTC, but they seem to follow a clock such as that of {zone}: an hour is missing where that clock is set \
         forward in spring, and doubled where it is set back in autumn; if they do, say so: `time: {{ column: {}, zone: {zone}, repeated: \
         file-order }}`",
        table.name, table.time
    )
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::model::{Cadence, Key, Presence, TimeMark, Usage};

    fn presence(grid: SlotGrid, slots: SlotRange, times: &[i64]) -> TablePresence {
        let mut raw = Presence::new(grid, slots, [&Key::default()]);
        let key = raw.keys.get_mut(&Key::default()).unwrap();
        for time_s in times {
            key.add_row(grid.slot_of_seconds(*time_s));
        }
        TablePresence {
            raw,
            repaired: Default::default(),
            overtaken: Default::default(),
            absent: Default::default(),
            removed: Default::default(),
            absent_until: None,
            usage: Usage::default(),
        }
    }

    /// A year of rows whose local times are taken for UTC.
    fn found(zone: &str, minutes: u32) -> Option<String> {
        let grid = SlotGrid::new(Cadence::from_seconds(minutes * 60).unwrap(), TimeMark::Start);
        let year = Interval::parse("2024-01-01", "2024-12-31").unwrap();
        let zone: Zone = zone.parse().unwrap();
        let step = i64::from(minutes) * 60;
        let times: Vec<i64> = (year.from().as_second()..year.to().as_second())
            .step_by(usize::try_from(step).unwrap())
            .map(|at| TimeZone::UTC.to_timestamp(zone.local(Timestamp::from_second(at).unwrap())).unwrap().as_second())
            .collect();
        let slots = grid.slots_in(&year);
        let mut clocks = Clocks::new(grid);
        clocks.look(slots, &presence(grid, slots, &times));
        clocks.found().map(ToString::to_string)
    }

    #[test]
    fn a_clock_that_is_set_is_recognised() {
        for minutes in [15, 60] {
            assert_eq!(found("Europe/Berlin", minutes).as_deref(), Some("Europe/Berlin"));
            assert_eq!(found("America/Chicago", minutes).as_deref(), Some("America/New_York"));
            assert_eq!(found("UTC", minutes), None);
            assert_eq!(found("+05:30", minutes), None);
        }
    }
}
