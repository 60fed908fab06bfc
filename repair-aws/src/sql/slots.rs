//! The slots of a table in SQL: the slot of a time, and the time of a slot.

use repair_core::Result;
use repair_core::lake::partition::TimeBounds;
use repair_core::model::{Cadence, GridPart, SlotGrid, TimeMark};

use super::time::{Clock, DAY_MS, Doubt};
use super::{BEFORE_ALL_S, partition};

/// How far from bounds a clock must be right: slots may be a year long.
const AROUND_US: i64 = 400 * 86_400 * partition::SECOND_US;

/// The months from the start of the year 0 to 1970.
const MONTHS_TO_1970: i64 = 1970 * 12;

/// The slots of a grid, for times within bounds.
pub(super) struct Slots {
    grid: SlotGrid,
    parts: Vec<GridPart>,
    clock: Clock,
    /// A whole second before all rows.
    from_s: i64,
}

impl Slots {
    pub(super) fn new(grid: SlotGrid, bounds: &TimeBounds) -> Result<Self> {
        let is_all = *bounds == TimeBounds::ALL;
        let around = (!is_all).then(|| (bounds.from_us.saturating_sub(AROUND_US), bounds.to_us.saturating_add(AROUND_US)));
        let from_s = if is_all { BEFORE_ALL_S } else { bounds.from_us.div_euclid(partition::SECOND_US) };
        Ok(Self { grid, parts: grid.parts()?, clock: Clock::new(&grid.zone(), around), from_s })
    }

    /// What is added to the seconds of a row's time, so that the slot in which it then lies is its own.
    fn shift_s(&self) -> i64 {
        let tolerance_s = i64::from(self.grid.tolerance_s());
        match self.grid.marks() {
            TimeMark::Start => tolerance_s,
            TimeMark::End => -1 - tolerance_s,
        }
    }

    /// The slot that a time in milliseconds marks, as the core counts slots.
    pub(super) fn slot(&self, time_ms: &str) -> String {
        self.choose(
            |part| self.slot_of(part, time_ms),
            |first, slot| {
                let start_s = self.grid.start_of(first).as_second() - self.shift_s();
                (format!("{time_ms} < {}", start_s * 1_000), format!("least({slot}, {})", first - 1))
            },
        )
    }

    /// When a slot begins, in milliseconds.
    pub(super) fn start_ms(&self, slot: &str) -> String {
        self.choose(|part| self.start_of(part, slot), |first, start| (format!("{slot} < {first}"), start))
    }

    /// Whether a row is too far from the time of its slot to belong to it. It must have the columns `repair_ms` and `repair_slot`.
    pub(super) fn is_off(&self) -> String {
        let time = match self.grid.marks() {
            TimeMark::Start => self.start_ms("repair_slot"),
            TimeMark::End => self.start_ms("(repair_slot + 1)"),
        };
        match i64::from(self.grid.tolerance_s()) * 1_000 {
            0 => format!("repair_ms <> {time}"),
            tolerance_ms => format!("abs(repair_ms - ({time})) > {tolerance_ms}"),
        }
    }

    /// The condition that a row belongs to a slot, or cannot be read. Without bounds, the clock of a zone is known for a hundred years, and rows
    /// of other times are not judged.
    pub(super) fn is_kept(&self) -> String {
        format!("coalesce(NOT ({}), true)", self.is_off())
    }

    /// An expression of the part in which something lies. `until` makes the condition to lie before a part that begins with a slot, and what holds
    /// there.
    fn choose(&self, of: impl Fn(&GridPart) -> String, until: impl Fn(i64, String) -> (String, String)) -> String {
        let mut cases = String::new();
        for pair in self.parts.windows(2) {
            let (condition, value) = until(pair[1].first.unwrap_or(i64::MIN), of(&pair[0]));
            cases.push_str(&format!("WHEN {condition} THEN {value} "));
        }
        let last = self.parts.last().map(of).unwrap_or_default();
        if cases.is_empty() { last } else { format!("CASE {cases}ELSE {last} END") }
    }

    fn slot_of(&self, part: &GridPart, time_ms: &str) -> String {
        let (grid, shift_s) = (part.grid, self.shift_s());
        let plus = |number: i64| if number == 0 { String::new() } else { format!(" + ({number})") };
        if let Some(step_s) = grid.step_s() {
            // A whole slot before all rows that are read.
            let from = jiff::Timestamp::from_second(self.from_s).unwrap_or(jiff::Timestamp::MIN);
            let base = grid.slot_at(from) - 1;
            let second = format!("({time_ms} - ({})) / 1000", grid.start_of(base).as_second() * 1_000);
            let second = match shift_s {
                0 => second,
                -1 => format!("{second} - 1"),
                shift_s => format!("{second} + ({shift_s})"),
            };
            return format!("({second}) / {step_s} + ({})", base + part.shift);
        }
        let at = grid.rule().at.unwrap_or_default();
        // What the clock shows when the slot has begun, and how long that is after midnight, in days since 1970.
        let local = self.clock.local(&if shift_s == 0 { time_ms.to_owned() } else { format!("({time_ms} + ({}))", shift_s * 1_000) });
        let base_days = BEFORE_ALL_S / 86_400 - 7;
        let days = |before: i64| {
            let base_ms = (base_days + before) * DAY_MS + i64::from(at.time_s()) * 1_000;
            format!("({local} - ({base_ms})) / {DAY_MS}")
        };
        match grid.cadence().months() {
            Some(months) => {
                let date = format!("date_add('day', {} + ({base_days}), DATE '1970-01-01')", days(i64::from(at.day()) - 1));
                let month = format!("year({date}) * 12 + month({date}) - {}", at.month());
                format!("({month}) / {months}{}", plus(part.shift - MONTHS_TO_1970 / i64::from(months)))
            }
            None if grid.cadence() == Cadence::WEEK => {
                // The base is a whole number of weeks before the first.
                let weeks = base_days / 7 - 1;
                let base_ms = (weeks * 7 - 3 + i64::from(at.weekday())) * DAY_MS + i64::from(at.time_s()) * 1_000;
                format!("({local} - ({base_ms})) / {}{}", 7 * DAY_MS, plus(weeks + part.shift))
            }
            None => format!("{}{}", days(0), plus(base_days + part.shift)),
        }
    }

    fn start_of(&self, part: &GridPart, slot: &str) -> String {
        let grid = part.grid;
        let slot = if part.shift == 0 { slot.to_owned() } else { format!("({slot} - ({}))", part.shift) };
        if let Some(step_s) = grid.step_s() {
            let at_ms = grid.start_of(0).as_second() * 1_000;
            let start = format!("{slot} * {}", step_s * 1_000);
            return if at_ms == 0 { start } else { format!("({start} + ({at_ms}))") };
        }
        let at = grid.rule().at.unwrap_or_default();
        let time_ms = i64::from(at.time_s()) * 1_000;
        let local = match grid.cadence().months() {
            Some(months) => {
                let date = format!("date_add('month', {slot} * {months} + {}, DATE '1970-01-01')", at.month() - 1);
                format!("(date_diff('day', DATE '1970-01-01', {date}) * {DAY_MS} + {})", i64::from(at.day() - 1) * DAY_MS + time_ms)
            }
            None if grid.cadence() == Cadence::WEEK => {
                format!("({slot} * {} + ({}))", 7 * DAY_MS, (i64::from(at.weekday()) - 3) * DAY_MS + time_ms)
            }
            None => format!("({slot} * {DAY_MS} + {time_ms})"),
        };
        self.clock.instant(&local, Doubt::Start)
    }
}
