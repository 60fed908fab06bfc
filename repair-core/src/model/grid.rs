//! The slots of a series: where each begins, and which row belongs to which.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{LazyLock, Mutex, PoisonError};

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cadence::DAY_S;
use crate::error::{Error, Result};
use crate::model::{Cadence, Interval, SlotRange, SlotStart, Zone};

/// Whether a row's time is the start or the end of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeMark {
    /// A row's time is where its slot begins.
    #[default]
    Start,
    /// A row's time is where its slot ends.
    End,
}

/// What is said about the slots of a series besides how long they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SlotRule {
    /// Where slots begin. For days and longer this is a time in the zone of the grid, and for shorter ones in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<SlotStart>,
    /// How far a row's time may be from that of its slot, either way, in seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tolerance_s: u32,
    /// The cadences before dates on which the cadence changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<Date, Cadence>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Zones are followed between these years. Outside them, slots go on with the length that they have there.
const YEARS: (i16, i16) = (1900, 2200);

impl SlotRule {
    /// Whether nothing is said.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Checks it against the cadence that it belongs to.
    ///
    /// # Errors
    /// `invalid` with what does not fit.
    pub fn check(&self, cadence: Cadence) -> Result<()> {
        let all = || self.before.values().copied().chain([cadence]);
        if let Some(at) = self.at {
            all().try_for_each(|cadence| at.check(cadence))?;
        }
        if let Some(short) = all().find(|cadence| u64::from(self.tolerance_s) * 2 >= u64::from(shortest_s(*cadence))) {
            return Err(Error::invalid(format!(
                "a tolerance of {} s is half a slot of {short} or more, so that a row could belong to two; choose a smaller one",
                self.tolerance_s
            )));
        }
        if let Some((date, _)) = self.before.iter().find(|(date, _)| !(YEARS.0..YEARS.1).contains(&date.year())) {
            return Err(Error::invalid(format!("a cadence cannot change on {date}; choose a date from {} on", YEARS.0)));
        }
        let cadences: Vec<Cadence> = all().collect();
        if let Some(pair) = cadences.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!("the cadence is {} before and after a date under `before`; remove the date", pair[0])));
        }
        Ok(())
    }
}

/// A length that no slot falls below: a clock may be set forward by two hours, and February has 28 days.
fn shortest_s(cadence: Cadence) -> u32 {
    match cadence.months() {
        Some(months) => months * 28 * DAY_S - 7_200,
        None if cadence.is_days() => cadence.seconds() - 7_200,
        None => cadence.seconds(),
    }
}

/// The slots of a table, which are numbered in order. A row belongs to the slot that its time marks.
///
/// Slots of less than a day are multiples of the cadence since the Unix epoch, in UTC, or begin so long [after](SlotRule::at) them. Days are
/// numbered by their dates since 1970-01-01, weeks by their Mondays since 1969-12-29, and months since January 1970; they begin when they do in
/// a zone, so that they may differ in length. Where a cadence [changes](SlotRule::before), the numbers go on.
///
/// ```
/// use repair_core::model::{Cadence, Interval, SlotGrid, SlotRule, TimeMark};
///
/// let grid = SlotGrid::new(Cadence::MINUTE, TimeMark::Start);
/// let morning = grid.slots_in(&Interval::parse("2024-03-04T09:00:00Z", "2024-03-04T12:00:00Z")?);
/// assert_eq!(morning.len(), 180);
/// assert_eq!(grid.start_of(morning.first), "2024-03-04T09:00:00Z".parse()?);
/// assert_eq!(grid.slot_of("2024-03-04T09:00:59Z".parse()?), morning.first);
///
/// // Bars of a currency pair, which begin at five in the afternoon in New York.
/// let rule = SlotRule { at: Some("17:00".parse()?), ..SlotRule::default() };
/// let days = SlotGrid::with_rule(Cadence::DAY, TimeMark::Start, &rule, &"America/New_York".parse()?)?;
/// let spring = days.slots_in(&Interval::parse("2024-03-09", "2024-03-12")?);
/// assert_eq!(days.start_of(spring.first), "2024-03-09T22:00:00Z".parse()?);
/// assert_eq!(days.start_of(spring.first + 1), "2024-03-10T21:00:00Z".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotGrid {
    cadence: Cadence,
    marks: TimeMark,
    /// `None` if slots are multiples of a number of seconds.
    special: Option<&'static Special>,
}

/// A grid of which more is said. It is made once for each rule and kept, so that grids can be copied.
struct Special {
    cadence: Cadence,
    rule: SlotRule,
    zone: Zone,
    slots: Slots,
    /// Whether every slot begins with a date of the zone.
    by_date: bool,
    /// The slots of no length: a date that a zone skipped.
    skipped: Vec<i64>,
    /// The first slot of each cadence but the first.
    changes: Vec<(i64, Cadence)>,
}

/// Where slots begin.
#[derive(Debug)]
enum Slots {
    /// Slot `n` begins at `at_s + n × length_s`.
    Even { at_s: i64, length_s: i64 },
    /// Stretches of slots of one length each, in order. The first one goes on before its start, and the last one for ever.
    Pieces(Vec<Piece>),
    /// Slot `n` is microsecond `n` since the epoch.
    Instants,
}

/// A part of a grid in which the cadence does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridPart {
    /// Its first slot; `None` if it has no beginning.
    pub first: Option<i64>,
    /// The same slots as a grid of its own.
    pub grid: SlotGrid,
    /// What to add to the number of a slot of that grid.
    pub shift: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Where its first slot begins, in seconds since the epoch.
    start_s: i64,
    first: i64,
    length_s: i64,
}

impl PartialEq for Special {
    fn eq(&self, other: &Self) -> bool {
        (self.cadence, &self.rule, &self.zone) == (other.cadence, &other.rule, &other.zone)
    }
}

impl Eq for Special {}

impl Hash for Special {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.cadence, &self.rule, &self.zone).hash(state);
    }
}

/// All special grids of this process. There are as many as different settings in its workflows.
static SPECIAL: LazyLock<Mutex<HashMap<Name, &'static Special>>> = LazyLock::new(Mutex::default);

/// The grid of instants.
static INSTANTS: LazyLock<&'static Special> = LazyLock::new(|| {
    Box::leak(Box::new(Special {
        cadence: Cadence::SECOND,
        rule: SlotRule::default(),
        zone: Zone::utc(),
        slots: Slots::Instants,
        by_date: false,
        skipped: Vec::new(),
        changes: Vec::new(),
    }))
});

const SECOND_US: i64 = 1_000_000;

/// The settings of a special grid.
type Name = (Cadence, SlotRule, Zone);

impl Special {
    fn of(cadence: Cadence, rule: &SlotRule, zone: &Zone) -> Result<&'static Self> {
        let mut known = SPECIAL.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (cadence, rule.clone(), zone.clone());
        if let Some(special) = known.get(&name) {
            return Ok(*special);
        }
        let special: &'static Self = Box::leak(Box::new(Self::build(cadence, rule, zone)?));
        known.insert(name, special);
        Ok(special)
    }

    fn build(cadence: Cadence, rule: &SlotRule, zone: &Zone) -> Result<Self> {
        let at = rule.at.unwrap_or_default();
        let offset_s = zone.time_zone().to_fixed_offset().ok().map(|offset| i64::from(offset.seconds()));
        let slots = match offset_s {
            Some(offset_s) if rule.before.is_empty() && cadence.months().is_none() => even(cadence, at, offset_s),
            _ if rule.before.is_empty() && !cadence.is_days() => even(cadence, at, 0),
            _ => Slots::Pieces(changing(cadence, rule, zone)?),
        };
        let mut changes = Vec::new();
        for (date, after) in rule.before.keys().zip(rule.before.values().skip(1).copied().chain([cadence])) {
            changes.push((slots.first_from(zone.start(date.at(0, 0, 0, 0))?.as_second()), after));
        }
        let skipped = match &slots {
            Slots::Even { .. } | Slots::Instants => Vec::new(),
            Slots::Pieces(pieces) => {
                let last = pieces.iter().skip(1).map(|piece| (piece.first - 1, piece.start_s));
                last.filter(|(slot, end_s)| slots.start_s(*slot) >= *end_s).map(|(slot, _)| slot).collect()
            }
        };
        let by_date = at.whole_days() && rule.before.values().copied().chain([cadence]).all(Cadence::is_days);
        Ok(Self { cadence, rule: rule.clone(), zone: zone.clone(), slots, by_date, skipped, changes })
    }
}

/// Checks that slots end where the next ones begin, also where the cadence changes: a time that marks the end of a slot must be the end of one.
fn check_ends(cadence: Cadence, rule: &SlotRule, zone: &Zone) -> Result<()> {
    let at = rule.at.unwrap_or_default();
    let later = rule.before.values().skip(1).copied().chain([cadence]);
    for ((date, before), after) in rule.before.iter().zip(later) {
        let change_s = zone.start(date.at(0, 0, 0, 0))?.as_second();
        for cadence in [*before, after] {
            let slots =
                Slots::Pieces(if cadence.is_days() { civil(cadence, at, zone)? } else { vec![around(cadence, at, year_s(YEARS.0)?)] });
            if slots.start_s(slots.first_from(change_s)) != change_s {
                return Err(Error::invalid(format!(
                    "the cadence changes with {date} in {zone}, where no slot of {cadence} begins, so one of the slots around it has no end that a time could mark; \
                     leave out `before`, and make a table of the files of each cadence, or let times mark the start of their slots"
                )));
            }
        }
    }
    Ok(())
}

/// The slots of days or weeks of a zone that is never set, or of a part of a day in UTC.
fn even(cadence: Cadence, at: SlotStart, offset_s: i64) -> Slots {
    let day_s = i64::from(DAY_S);
    let at_s = i64::from(at.time_s())
        + match cadence {
            Cadence::WEEK => (i64::from(at.weekday()) - 3) * day_s - offset_s,
            cadence if cadence.is_days() => -offset_s,
            _ => 0,
        };
    Slots::Even { at_s, length_s: i64::from(cadence.seconds()) }
}

/// The pieces of a grid whose cadence may change.
fn changing(cadence: Cadence, rule: &SlotRule, zone: &Zone) -> Result<Vec<Piece>> {
    let at = rule.at.unwrap_or_default();
    let until = rule.before.keys().map(|date| Some(*date)).chain([None]);
    let mut all: Vec<Piece> = Vec::new();
    let (mut from_s, mut number) = (None, None);
    for (until, cadence) in until.zip(rule.before.values().copied().chain([cadence])) {
        let pieces = if cadence.is_days() { civil(cadence, at, zone)? } else { vec![around(cadence, at, year_s(YEARS.0)?)] };
        let slots = Slots::Pieces(pieces.clone());
        let to_s = until.map(|date| zone.start(date.at(0, 0, 0, 0))).transpose()?.map(Timestamp::as_second);
        let first = from_s.map_or(pieces.first().map_or(0, |piece| piece.first), |from_s| slots.first_from(from_s));
        let end = to_s.map_or(i64::MAX, |to_s| slots.first_from(to_s));
        let shift = number.map_or(0, |number: i64| number - first);
        let ends = pieces.iter().skip(1).map(|piece| piece.first).chain([i64::MAX]);
        for (piece, next) in pieces.iter().zip(ends).filter(|(piece, next)| piece.first < end && *next > first) {
            let begin = piece.first.max(first).min(next);
            all.push(Piece {
                start_s: piece.start_s + (begin - piece.first) * piece.length_s,
                first: begin + shift,
                length_s: piece.length_s,
            });
        }
        (from_s, number) = (to_s, Some(end.saturating_add(shift)));
    }
    Ok(all)
}

/// The first slot of a part of a day that begins at or before an instant, and all others.
fn around(cadence: Cadence, at: SlotStart, instant_s: i64) -> Piece {
    let (at_s, length_s) = (i64::from(at.time_s()), i64::from(cadence.seconds()));
    let first = (instant_s - at_s).div_euclid(length_s);
    Piece { start_s: at_s + first * length_s, first, length_s }
}

fn year_s(year: i16) -> Result<i64> {
    let date = Date::new(year, 1, 1).map_err(|error| Error::internal("a year is out of range").because(error))?;
    Ok(days_since_1970(date) * i64::from(DAY_S))
}

fn days_since_1970(date: Date) -> i64 {
    Date::constant(1970, 1, 1).until(date).map_or(0, |span| i64::from(span.get_days()))
}

/// The days, weeks or months of a zone.
fn civil(cadence: Cadence, at: SlotStart, zone: &Zone) -> Result<Vec<Piece>> {
    let too_far = |error| Error::invalid("a slot is out of the range of dates").because(error);
    let (hour, minute, second) = (at.time_s() / 3_600, at.time_s() / 60 % 60, at.time_s() % 60);
    let part = |part: u32| i8::try_from(part).unwrap_or(0);
    let weekday = i64::from(at.weekday());
    let epoch = Date::constant(1970, 1, 1);
    let start = |slot: i64| -> Result<i64> {
        let date = match cadence.months() {
            Some(months) => {
                let month = slot * i64::from(months) + i64::from(at.month()) - 1;
                let year = i16::try_from(1970 + month.div_euclid(12)).unwrap_or(i16::MAX);
                let month = i8::try_from(month.rem_euclid(12) + 1).unwrap_or(1);
                Date::new(year, month, i8::try_from(at.day()).unwrap_or(1)).map_err(too_far)?
            }
            None => {
                let days = if cadence == Cadence::WEEK { 7 * slot - 3 + weekday } else { slot };
                epoch.checked_add(days.days()).map_err(too_far)?
            }
        };
        let local = date.at(part(hour), part(minute), part(second), 0);
        // A day begins with its first instant. Any other time means what it means in a row of the table, unless its whole date is skipped.
        let shifted = zone.shifted(local)?;
        let is_time = !at.whole_days() && zone.local(shifted).date() == date;
        Ok(if is_time { shifted } else { zone.start(local)? }.as_second())
    };
    let (first_s, last_s) = (year_s(YEARS.0)?, year_s(YEARS.1)?);
    let (first, last) = match cadence.months() {
        Some(months) => {
            let since = |year: i16| (i64::from(year) - 1970) * 12 / i64::from(months);
            (since(YEARS.0), since(YEARS.1))
        }
        None => {
            let length_s = i64::from(cadence.seconds());
            (first_s / length_s, last_s / length_s)
        }
    };
    // Between changes of the clock, all days are equally long, and all weeks.
    let mut exact: BTreeSet<i64> = if cadence.months().is_some() { (first..=last).collect() } else { [first, first + 1, last].into() };
    if cadence.months().is_none() {
        let per_slot = if cadence == Cadence::WEEK { 7 } else { 1 };
        let instant = |seconds: i64| Timestamp::from_second(seconds).map_err(too_far);
        for (change_s, _) in zone.changes(instant(first_s)?, instant(last_s)?) {
            let near = days_since_1970(zone.local(instant(change_s)?).date()).div_euclid(per_slot);
            exact.extend((near - 2..=near + 3).filter(|slot| (first..=last).contains(slot)));
        }
    }
    let length_s = i64::from(cadence.seconds());
    let mut pieces: Vec<Piece> = Vec::new();
    for slot in exact {
        let start_s = start(slot)?;
        let goes_on = pieces.last().is_some_and(|piece| piece.start_s + (slot - piece.first) * length_s == start_s);
        if !goes_on {
            pieces.push(Piece { start_s, first: slot, length_s });
        }
    }
    Ok(pieces)
}

impl Slots {
    /// The slot in which an instant lies.
    fn at(&self, time_s: i64) -> i64 {
        match self {
            Self::Even { at_s, length_s } => (time_s - at_s).div_euclid(*length_s),
            Self::Instants => time_s.saturating_mul(SECOND_US),
            Self::Pieces(pieces) => {
                let next = pieces.partition_point(|piece| piece.start_s <= time_s);
                let Some(piece) = pieces.get(next.saturating_sub(1)) else { return 0 };
                let slot = piece.first + (time_s - piece.start_s).div_euclid(piece.length_s);
                // The last slot of a piece may be longer than the others.
                if next == 0 { slot } else { pieces.get(next).map_or(slot, |next| slot.min(next.first - 1)) }
            }
        }
    }

    /// Where a slot begins.
    fn start_s(&self, slot: i64) -> i64 {
        match self {
            Self::Even { at_s, length_s } => slot.saturating_mul(*length_s).saturating_add(*at_s),
            Self::Instants => slot.div_euclid(SECOND_US),
            Self::Pieces(pieces) => {
                let next = pieces.partition_point(|piece| piece.first <= slot);
                let Some(piece) = pieces.get(next.saturating_sub(1)) else { return 0 };
                slot.saturating_sub(piece.first).saturating_mul(piece.length_s).saturating_add(piece.start_s)
            }
        }
    }

    /// The first slot that begins at or after an instant.
    fn first_from(&self, time_s: i64) -> i64 {
        let slot = self.at(time_s);
        if self.start_s(slot) >= time_s { slot } else { slot + 1 }
    }
}

impl SlotGrid {
    /// The slots of a cadence, in UTC.
    ///
    /// # Panics
    /// Never: weeks, months and years of UTC are always within range.
    pub fn new(cadence: Cadence, marks: TimeMark) -> Self {
        let plain = Self { cadence, marks, special: None };
        if cadence.seconds() <= DAY_S {
            return plain;
        }
        Self::with_rule(cadence, marks, &SlotRule::default(), &Zone::utc()).unwrap_or(plain)
    }

    /// The slots of a cadence, as a rule says. Days, weeks, months and years are those of the zone.
    ///
    /// # Errors
    /// `invalid` if the rule does not fit the cadence.
    pub fn with_rule(cadence: Cadence, marks: TimeMark, rule: &SlotRule, zone: &Zone) -> Result<Self> {
        rule.check(cadence)?;
        let is_local = rule.before.values().copied().chain([cadence]).any(Cadence::is_days) && !zone.is_utc();
        // The dates on which a cadence changes are those of the zone too.
        let zone = if is_local || !rule.before.is_empty() { zone.clone() } else { Zone::utc() };
        let is_plain = rule.is_plain() && !is_local && cadence.seconds() <= DAY_S;
        if marks == TimeMark::End {
            check_ends(cadence, rule, &zone)?;
        }
        let special = if is_plain { None } else { Some(Special::of(cadence, rule, &zone)?) };
        Ok(Self { cadence, marks, special })
    }

    /// No slots, but the instants themselves: slot `n` is microsecond `n` since the epoch. Findings of a table without a cadence name its rows by
    /// these.
    pub fn instants() -> Self {
        Self { cadence: INSTANTS.cadence, marks: TimeMark::Start, special: Some(*INSTANTS) }
    }

    /// Whether its slots are the instants themselves.
    pub fn is_instants(&self) -> bool {
        self.special.is_some_and(|special| matches!(special.slots, Slots::Instants))
    }

    /// The slot that a time in microseconds since the epoch marks, as [`SlotGrid::slot_of_seconds`].
    #[inline]
    pub fn slot_of_us(&self, time_us: i64) -> i64 {
        if self.is_instants() { time_us } else { self.slot_of_seconds(time_us.div_euclid(SECOND_US)) }
    }

    /// The slots of another cadence by the same rule, as far as it fits: where slots begin only for the cadence that it was written for.
    ///
    /// # Errors
    /// `invalid` if the tolerance does not fit the cadence.
    pub fn with_cadence(&self, cadence: Cadence) -> Result<Self> {
        let rule = self.rule();
        let at = rule.at.filter(|at| cadence == self.cadence || (!cadence.is_days() && at.check(cadence).is_ok()));
        let before = if cadence == self.cadence { rule.before } else { BTreeMap::new() };
        Self::with_rule(cadence, self.marks, &SlotRule { at, before, ..rule }, &self.zone())
    }

    /// How often there is a row; where the cadence changes, the one that holds now.
    pub fn cadence(&self) -> Cadence {
        self.cadence
    }

    /// Whether a row's time is the start or the end of its slot.
    pub fn marks(&self) -> TimeMark {
        self.marks
    }

    /// How often there is a row at a slot, where the cadence changes.
    pub fn cadence_at(&self, slot: i64) -> Cadence {
        let Some(special) = self.special else { return self.cadence };
        let later = special.changes.iter().rev().find(|(first, _)| *first <= slot);
        later.map_or_else(|| special.rule.before.values().next().copied().unwrap_or(self.cadence), |(_, cadence)| *cadence)
    }

    /// How many slots a length of time spans near a slot: whole ones, and for months by their mean length.
    pub fn slots_of(&self, seconds: i64, near: i64) -> i64 {
        seconds / i64::from(self.cadence_at(near).seconds())
    }

    /// How far a row's time may be from that of its slot, in seconds.
    pub fn tolerance_s(&self) -> u32 {
        self.special.map_or(0, |special| special.rule.tolerance_s)
    }

    /// The zone in which its days are counted.
    pub fn zone(&self) -> Zone {
        self.special.map(|special| special.zone.clone()).unwrap_or_default()
    }

    /// The length of a slot in seconds, if all are equally long.
    pub fn step_s(&self) -> Option<i64> {
        match self.special.map(|special| &special.slots) {
            None => Some(i64::from(self.cadence.seconds())),
            Some(Slots::Even { length_s, .. }) => Some(*length_s),
            Some(Slots::Pieces(_) | Slots::Instants) => None,
        }
    }

    /// Whether its slots are multiples of a number of seconds since the epoch.
    pub fn is_plain(&self) -> bool {
        self.special.is_none_or(|special| matches!(special.slots, Slots::Even { at_s: 0, .. }))
    }

    #[inline]
    fn at_s(&self, time_s: i64) -> i64 {
        match self.special {
            None => time_s.div_euclid(i64::from(self.cadence.seconds())),
            Some(special) => special.slots.at(time_s),
        }
    }

    #[inline]
    fn start_s(&self, slot: i64) -> i64 {
        match self.special {
            None => slot.saturating_mul(i64::from(self.cadence.seconds())),
            Some(special) => special.slots.start_s(slot),
        }
    }

    /// The slot that a row's time marks, whether or not the row is near enough to it: see [`SlotGrid::slot_of_row`]. `time_s` is in whole seconds
    /// since the epoch, fractions rounded down.
    #[inline]
    pub fn slot_of_seconds(&self, time_s: i64) -> i64 {
        match self.marks {
            TimeMark::Start => self.at_s(time_s + i64::from(self.tolerance_s())),
            // An instant within a slot marks the end of that same slot.
            TimeMark::End => self.at_s(time_s - 1 - i64::from(self.tolerance_s())),
        }
    }

    /// The slot that a row's time marks, as [`SlotGrid::slot_of_seconds`].
    pub fn slot_of(&self, time: Timestamp) -> i64 {
        if self.is_instants() {
            return floor_us(time);
        }
        // Seconds and fraction have the same sign: before 1970, a fraction belongs to the second before.
        self.slot_of_seconds(time.as_second() - i64::from(time.subsec_nanosecond() < 0))
    }

    /// The slot of a row by its time in microseconds since the epoch; `None` if the time is further from that of the slot than the tolerance. Such
    /// a row is no part of the series.
    #[inline]
    pub fn slot_of_row(&self, time_us: i64) -> Option<i64> {
        if self.special.is_none() {
            let step_us = i64::from(self.cadence.seconds()) * 1_000_000;
            let mark = i64::from(self.marks == TimeMark::End);
            return (time_us % step_us == 0).then(|| time_us / step_us - mark);
        }
        if self.is_instants() {
            return Some(time_us);
        }
        let slot = self.slot_of_seconds(time_us.div_euclid(1_000_000));
        let off_us = time_us.abs_diff(self.time_of_seconds(slot).saturating_mul(1_000_000));
        (off_us <= u64::from(self.tolerance_s()) * 1_000_000).then_some(slot)
    }

    /// The slot in which an instant lies, whatever rows mark.
    pub fn slot_at(&self, instant: Timestamp) -> i64 {
        if self.is_instants() {
            return floor_us(instant);
        }
        self.at_s(instant.as_second() - i64::from(instant.subsec_nanosecond() < 0))
    }

    /// The time that a row of this slot carries, in seconds since the epoch.
    #[inline]
    pub fn time_of_seconds(&self, slot: i64) -> i64 {
        match self.marks {
            TimeMark::Start => self.start_s(slot),
            TimeMark::End => self.start_s(slot + 1),
        }
    }

    /// The time that a row of this slot carries.
    pub fn time_of(&self, slot: i64) -> Timestamp {
        if self.is_instants() {
            return Timestamp::from_microsecond(slot).unwrap_or(Timestamp::MAX);
        }
        Timestamp::from_second(self.time_of_seconds(slot)).unwrap_or(Timestamp::MAX)
    }

    /// The instant at which a slot begins.
    pub fn start_of(&self, slot: i64) -> Timestamp {
        if self.is_instants() {
            return Timestamp::from_microsecond(slot).unwrap_or(Timestamp::MAX);
        }
        Timestamp::from_second(self.start_s(slot)).unwrap_or(Timestamp::MAX)
    }

    /// The slots that begin within an interval.
    pub fn slots_in(&self, interval: &Interval) -> SlotRange {
        if self.is_instants() {
            return SlotRange::new(ceil_us(interval.from()), ceil_us(interval.to()));
        }
        SlotRange::new(self.first_from_seconds(ceil_s(interval.from())), self.first_from_seconds(ceil_s(interval.to())))
    }

    /// The first slot that begins at or after an instant, in seconds since the epoch.
    pub fn first_from_seconds(&self, time_s: i64) -> i64 {
        match self.special {
            None => -(-time_s).div_euclid(i64::from(self.cadence.seconds())),
            Some(special) => special.slots.first_from(time_s),
        }
    }

    /// The slots of which a part lies within an interval.
    pub fn slots_over(&self, interval: &Interval) -> SlotRange {
        if self.is_instants() {
            return SlotRange::new(floor_us(interval.from()), ceil_us(interval.to()));
        }
        SlotRange::new(self.slot_at(interval.from()), self.at_s(ceil_s(interval.to()) - 1) + 1)
    }

    /// The time that a range of slots covers; `None` if the range is empty.
    pub fn interval_of(&self, slots: SlotRange) -> Option<Interval> {
        Interval::new(self.start_of(slots.first), self.start_of(slots.end)).ok()
    }

    /// The bounds on the time column that select the rows of a range of slots: `from <= time < to`, in seconds since the epoch.
    pub fn time_bounds_s(&self, slots: SlotRange) -> (i64, i64) {
        let shift = match self.marks {
            TimeMark::Start => -i64::from(self.tolerance_s()),
            TimeMark::End => 1 + i64::from(self.tolerance_s()),
        };
        (self.start_s(slots.first) + shift, self.start_s(slots.end) + shift)
    }

    /// Whether every slot begins with a date of the zone, so that slots and the sessions of a calendar match by date.
    pub fn is_by_date(&self) -> bool {
        self.special.map_or(self.cadence.is_days(), |special| special.by_date)
    }

    /// The dates on which a range of slots begins and ends; `None` if the range is empty.
    pub fn dates_of(&self, slots: SlotRange) -> Option<(Date, Date)> {
        let interval = self.interval_of(slots)?;
        let zone = self.zone();
        let last = interval.to().checked_sub(1.nanosecond()).unwrap_or(interval.to());
        Some((zone.local(interval.from()).date(), zone.local(last).date()))
    }

    /// The slot that the first instant of a date lies in.
    ///
    /// # Errors
    /// `invalid` at the ends of the range of instants.
    pub fn slot_of_date(&self, date: Date) -> Result<i64> {
        match self.special {
            None => Ok(self.at_s(days_since_1970(date) * i64::from(DAY_S))),
            Some(special) => Ok(special.slots.at(special.zone.start(date.at(0, 0, 0, 0))?.as_second())),
        }
    }

    /// The slots of a range that have no length, because a zone skipped their date. No row can belong to them.
    pub fn skipped(&self, slots: SlotRange) -> impl Iterator<Item = i64> + use<> {
        self.special.into_iter().flat_map(|special| &special.skipped).copied().filter(move |slot| slots.contains(*slot))
    }

    /// The rule of its slots; plain if nothing is said.
    pub fn rule(&self) -> SlotRule {
        self.special.map(|special| special.rule.clone()).unwrap_or_default()
    }

    /// The parts of a grid whose cadence changes, in order, from which statements in SQL are made. A grid that does not change is its only part.
    ///
    /// # Errors
    /// `internal` if a part cannot be by itself, which does not happen.
    pub fn parts(&self) -> Result<Vec<GridPart>> {
        let Some(special) = self.special.filter(|special| !special.changes.is_empty()) else {
            return Ok(vec![GridPart { first: None, grid: *self, shift: 0 }]);
        };
        let firsts = [None].into_iter().chain(special.changes.iter().map(|(first, _)| Some(*first)));
        let cadences = special.rule.before.values().copied().chain([special.cadence]);
        let part = |(first, cadence): (Option<i64>, Cadence)| {
            let rule = SlotRule { before: BTreeMap::new(), ..special.rule.clone() };
            let grid = Self::with_rule(cadence, self.marks, &rule, &special.zone)?;
            let shift = first.map_or(0, |first| first - grid.at_s(self.start_s(first)));
            Ok(GridPart { first, grid, shift })
        };
        firsts.zip(cadences).map(part).collect()
    }
}

fn floor_us(instant: Timestamp) -> i64 {
    let cut = instant.as_microsecond();
    cut - i64::from(instant.as_nanosecond() < i128::from(cut) * 1_000)
}

fn ceil_us(instant: Timestamp) -> i64 {
    let cut = instant.as_microsecond();
    cut + i64::from(instant.as_nanosecond() > i128::from(cut) * 1_000)
}

fn ceil_s(instant: Timestamp) -> i64 {
    instant.as_second() + i64::from(instant.subsec_nanosecond() > 0)
}

impl fmt::Debug for SlotGrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("SlotGrid");
        if self.is_instants() {
            return all.field("instants", &true).finish();
        }
        all.field("cadence", &self.cadence).field("marks", &self.marks);
        if let Some(special) = self.special {
            all.field("rule", &special.rule).field("zone", &special.zone);
        }
        all.finish()
    }
}

/// A grid as it is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    cadence: Cadence,
    marks: TimeMark,
    #[serde(default, skip_serializing_if = "SlotRule::is_plain")]
    rule: SlotRule,
    #[serde(default, skip_serializing_if = "Zone::is_utc")]
    zone: Zone,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    instants: bool,
}

impl Serialize for SlotGrid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rule = self.special.map(|special| special.rule.clone()).unwrap_or_default();
        Written { cadence: self.cadence, marks: self.marks, rule, zone: self.zone(), instants: self.is_instants() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SlotGrid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { cadence, marks, rule, zone, instants } = Written::deserialize(deserializer)?;
        if instants {
            return Ok(Self::instants());
        }
        Self::with_rule(cadence, marks, &rule, &zone).map_err(|error| serde::de::Error::custom(error.message()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Always, expected_slots};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn instants_are_their_own_slots() {
        let grid = SlotGrid::instants();
        let written = serde_json::to_string(&grid).unwrap();
        assert_eq!(serde_json::from_str::<SlotGrid>(&written).unwrap(), grid);
        assert_ne!(grid, SlotGrid::new(Cadence::SECOND, TimeMark::Start));
        for time_us in [-1_500_001, -1, 0, 1_522_800_000_123_456] {
            let time = Timestamp::from_microsecond(time_us).unwrap();
            assert_eq!((grid.slot_of_us(time_us), grid.slot_of_row(time_us), grid.slot_of(time)), (time_us, Some(time_us), time_us));
            assert_eq!((grid.time_of(time_us), grid.start_of(time_us)), (time, time));
            let one = grid.interval_of(SlotRange::new(time_us, time_us + 1)).unwrap();
            assert_eq!(grid.slots_in(&one), SlotRange::new(time_us, time_us + 1));
        }
    }

    #[test]
    fn a_row_that_marks_the_end_belongs_to_the_slot_before() {
        let ends = SlotGrid::new(Cadence::HOUR, TimeMark::End);
        let starts = SlotGrid::new(Cadence::HOUR, TimeMark::Start);
        let one = at("2018-01-01T01:00:00Z");
        assert_eq!(ends.slot_of(one), starts.slot_of(one) - 1);
        for grid in [ends, starts] {
            for slot in [-3, 0, 7] {
                assert_eq!(grid.slot_of(grid.time_of(slot)), slot);
                let (from, to) = grid.time_bounds_s(SlotRange::new(slot, slot + 1));
                assert!((from..to).contains(&grid.time_of_seconds(slot)));
                assert!(!(from..to).contains(&grid.time_of_seconds(slot + 1)));
                assert!(!(from..to).contains(&grid.time_of_seconds(slot - 1)));
            }
        }
    }

    #[test]
    fn only_slots_that_begin_within_are_in() {
        let grid = SlotGrid::new(Cadence::MINUTE, TimeMark::Start);
        let interval = Interval::parse("2018-04-04T00:00:30Z", "2018-04-04T00:02:00.5Z").unwrap();
        let slots = grid.slots_in(&interval);
        assert_eq!(grid.start_of(slots.first), at("2018-04-04T00:01:00Z"));
        assert_eq!(slots.len(), 2);
        assert_eq!(grid.slots_over(&interval).len(), 3);
    }

    #[test]
    fn a_rule_that_does_not_fit_is_refused() {
        let refused = |cadence: &str, at: &str| {
            let rule = SlotRule { at: Some(at.parse().unwrap()), ..SlotRule::default() };
            rule.check(cadence.parse().unwrap()).is_err()
        };
        for (cadence, fits) in [("1h", ":51"), ("1d", "17:00"), ("1w", "sun 17:00"), ("1mo", "15"), ("1y", "04-01"), ("3mo", "02-01")] {
            assert!(!refused(cadence, fits), "{cadence} at {fits}");
        }
        for (cadence, other) in
            [("30m", ":51"), ("1h", "17:00"), ("1h", "sun"), ("1d", "sun"), ("1w", "15"), ("1mo", "sun"), ("1mo", "04-01")]
        {
            assert!(refused(cadence, other), "{cadence} at {other}");
        }
        let near = |tolerance_s| SlotRule { tolerance_s, ..SlotRule::default() }.check(Cadence::MINUTE);
        assert!(near(29).is_ok() && near(30).is_err());
    }

    /// Every date on which a zone has a day is a slot, and it is as long as the day.
    #[test]
    fn days_of_a_zone_are_its_days() {
        for name in
            ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "America/Havana", "Asia/Kolkata", "-03:30"]
        {
            let zone: Zone = name.parse().unwrap();
            let grid = SlotGrid::with_rule(Cadence::DAY, TimeMark::Start, &SlotRule::default(), &zone).unwrap();
            let mut date = Date::constant(1999, 12, 1);
            while date < Date::constant(2031, 2, 1) {
                let day = zone.day(date).unwrap();
                let slot = days_since_1970(date);
                assert_eq!(grid.interval_of(SlotRange::new(slot, slot + 1)), Some(day), "{date} in {name}");
                assert_eq!(grid.slot_of_date(date).unwrap(), slot);
                assert_eq!((grid.slot_at(day.from()), grid.slot_at(day.to() - 1.second())), (slot, slot), "{date} in {name}");
                date = date.tomorrow().unwrap();
            }
        }
    }

    /// A time of day that the clock skips is what `skipped: shift` makes of it in rows, so that the row of that day is in its slot.
    #[test]
    fn a_time_that_the_clock_skips_is_later() {
        for (zone, at, from, times) in [
            ("America/New_York", "02:30", "2024-03-09", ["2024-03-09T07:30:00Z", "2024-03-10T07:30:00Z", "2024-03-11T06:30:00Z"]),
            ("Europe/Berlin", "02:00", "2024-03-30", ["2024-03-30T01:00:00Z", "2024-03-31T01:00:00Z", "2024-04-01T00:00:00Z"]),
            ("Europe/Berlin", "03:00", "2024-03-30", ["2024-03-30T02:00:00Z", "2024-03-31T01:00:00Z", "2024-04-01T01:00:00Z"]),
            ("Australia/Lord_Howe", "02:15", "2024-10-05", ["2024-10-04T15:45:00Z", "2024-10-05T15:45:00Z", "2024-10-06T15:15:00Z"]),
        ] {
            let zone: Zone = zone.parse().unwrap();
            let rule = SlotRule { at: Some(at.parse().unwrap()), ..SlotRule::default() };
            let grid = SlotGrid::with_rule(Cadence::DAY, TimeMark::Start, &rule, &zone).unwrap();
            let first = days_since_1970(from.parse().unwrap());
            let starts = [0, 1, 2].map(|day| grid.interval_of(SlotRange::new(first + day, first + day + 1)).unwrap().from());
            assert_eq!(starts, times.map(self::at), "{at} in {zone:?}");
        }
        let repeats = |zone: &str, time_s: u32| zone.parse::<Zone>().unwrap().repeats(time_s);
        assert!(repeats("America/New_York", 5_400) && !repeats("America/New_York", 7_200) && !repeats("America/New_York", 3_599));
        assert!(repeats("Europe/Berlin", 7_200) && repeats("Europe/Berlin", 10_799) && !repeats("Europe/Berlin", 10_800));
        assert!(!repeats("UTC", 5_400) && !repeats("Asia/Kolkata", 5_400));
    }

    #[test]
    fn a_date_that_a_zone_skipped_has_no_slot() {
        // Samoa went from the 29th to the 31st.
        let zone: Zone = "Pacific/Apia".parse().unwrap();
        let grid = SlotGrid::with_rule(Cadence::DAY, TimeMark::Start, &SlotRule::default(), &zone).unwrap();
        let december =
            grid.slots_in(&Interval::new(zone.start("2011-12-01T00:00".parse().unwrap()).unwrap(), at("2012-01-02T00:00:00Z")).unwrap());
        let skipped: Vec<i64> = grid.skipped(december).collect();
        assert_eq!(skipped, [days_since_1970(Date::constant(2011, 12, 30))]);
        let open = crate::model::open_slots(grid, december, &[grid.interval_of(december).unwrap()]);
        assert_eq!(open.count(), december.len() - 1);
    }

    /// Times mark the ends of slots only where each slot ends with the next.
    #[test]
    fn a_cadence_changes_where_slots_of_both_begin_if_times_mark_ends() {
        for (cadence, at, before, zone, fits) in [
            ("15m", "", "1h", "Europe/Berlin", true),
            ("2h", "", "1h", "Europe/Berlin", false),
            ("2h", ":60", "1h", "Europe/Berlin", false),
            ("15m", "", "1h", "Asia/Kolkata", false),
            ("15m", "", "30m", "Asia/Kolkata", true),
            ("1d", "", "1h", "America/New_York", true),
            ("1d", "17:00", "1h", "America/New_York", false),
            ("6h", "", "1h", "UTC", true),
        ] {
            let at = at.parse().ok();
            let rule =
                SlotRule { at, before: BTreeMap::from([(Date::constant(2024, 3, 5), before.parse().unwrap())]), ..SlotRule::default() };
            let of = |marks| SlotGrid::with_rule(cadence.parse().unwrap(), marks, &rule, &zone.parse().unwrap());
            assert_eq!(of(TimeMark::End).is_ok(), fits, "{cadence} {zone}");
            assert!(of(TimeMark::Start).is_ok() || at.is_some(), "{cadence} {zone}");
        }
    }

    #[test]
    fn a_cadence_may_change() {
        let rule = SlotRule { before: BTreeMap::from([(Date::constant(2025, 10, 1), Cadence::HOUR)]), ..SlotRule::default() };
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let quarter: Cadence = "15m".parse().unwrap();
        let grid = SlotGrid::with_rule(quarter, TimeMark::Start, &rule, &zone).unwrap();
        // The day changes at ten in the evening in UTC.
        let evening = grid.slots_in(&Interval::parse("2025-09-30T20:00:00Z", "2025-09-30T23:00:00Z").unwrap());
        let starts: Vec<String> = (evening.first..evening.end).map(|slot| grid.start_of(slot).to_string()).collect();
        assert_eq!(
            starts,
            [
                "2025-09-30T20:00:00Z",
                "2025-09-30T21:00:00Z",
                "2025-09-30T22:00:00Z",
                "2025-09-30T22:15:00Z",
                "2025-09-30T22:30:00Z",
                "2025-09-30T22:45:00Z"
            ]
        );
        assert_eq!((grid.slots_of(3_600, evening.first), grid.slots_of(3_600, evening.end)), (1, 4));
        assert_eq!(grid.slot_of_row(at("2025-09-30T21:15:00Z").as_microsecond()), None, "before, slots were hours");
        assert_eq!(SlotGrid::new(Cadence::HOUR, TimeMark::Start).slot_at(at("2025-09-30T20:00:00Z")), evening.first);
    }

    fn grids() -> impl Strategy<Value = SlotGrid> {
        let rules = [
            ("1m", ""),
            ("15m", ":05"),
            ("1h", ":51"),
            ("4h", "01:30"),
            ("1d", ""),
            ("1d", "17:00"),
            ("1d", "02:30"),
            ("1w", ""),
            ("1w", "sun 17:00"),
            ("1mo", ""),
            ("1mo", "15 06:00"),
            ("3mo", ""),
            ("3mo", "02-01"),
            ("1y", "04-01"),
        ];
        let zones = ["UTC", "America/New_York", "Australia/Sydney", "Pacific/Apia", "Asia/Kathmandu", "Africa/Casablanca", "+05:30"];
        let dates = [None, Some(Date::constant(2011, 12, 31)), Some(Date::constant(1983, 3, 7))];
        let before = ["1m", "1h", "1d", "1mo"];
        (
            prop::sample::select(rules.to_vec()),
            prop::sample::select(zones.to_vec()),
            prop::sample::select(dates.to_vec()),
            prop::sample::select(before.to_vec()),
            any::<bool>(),
            0u32..3,
        )
            .prop_filter_map("does not fit", |((cadence, at), zone, date, earlier, ends, tolerance)| {
                let cadence: Cadence = cadence.parse().unwrap();
                let at = (!at.is_empty()).then(|| at.parse().unwrap());
                let before = date.into_iter().map(|date| (date, earlier.parse().unwrap())).collect();
                let rule = SlotRule { at, tolerance_s: tolerance * 13, before };
                let marks = if ends { TimeMark::End } else { TimeMark::Start };
                SlotGrid::with_rule(cadence, marks, &rule, &zone.parse().unwrap()).ok()
            })
    }

    proptest! {
        /// Slots follow each other without gaps, whatever they are made of, and every way to ask for a slot gives the same one.
        #[test]
        fn slots_cover_time(grid in grids(), time_s in -4_000_000_000i64..4_000_000_000, off_s in -40i64..40) {
            let instant = Timestamp::from_second(time_s).unwrap();
            let slot = grid.slot_at(instant);
            let (start, end) = (grid.start_of(slot), grid.start_of(slot + 1));
            prop_assert!(start <= instant && instant < end, "{:?}: {instant} in slot {slot}, {start} to {end}", grid);
            prop_assert_eq!(grid.slot_at(start), slot);
            prop_assert_eq!(grid.first_from_seconds(start.as_second()), slot - i64::from(grid.start_of(slot - 1) == start));
            prop_assert_eq!(grid.slots_in(&Interval::new(instant, end + 1.second()).unwrap()).end, slot + 2);
            // A row near the time of a slot belongs to it, and keeps to it as far as the tolerance goes.
            let tolerance_s = i64::from(grid.tolerance_s());
            let row_us = (grid.time_of_seconds(slot) + off_s) * 1_000_000;
            prop_assert_eq!(grid.slot_of_row(row_us) == Some(slot), off_s.abs() <= tolerance_s, "{:?} {} {}", grid, slot, off_s);
            if off_s.abs() <= tolerance_s {
                let (from, to) = grid.time_bounds_s(SlotRange::new(slot, slot + 1));
                prop_assert!((from..to).contains(&(row_us / 1_000_000)));
            }
            // Statements in SQL are made of its parts.
            let parts = grid.parts().unwrap();
            let part = parts.iter().rev().find(|part| part.first.is_none_or(|first| first <= slot)).unwrap();
            prop_assert_eq!(part.grid.start_of(slot - part.shift), start);
            // It is written, and read again.
            let written = serde_json::to_string(&grid).unwrap();
            prop_assert_eq!(serde_json::from_str::<SlotGrid>(&written).unwrap(), grid);
        }

        /// A calendar that is always open expects every slot that has a length, once.
        #[test]
        fn all_slots_are_expected_around_the_clock(grid in grids(), from_s in -2_000_000_000i64..3_000_000_000) {
            let first = grid.slot_at(Timestamp::from_second(from_s).unwrap());
            let slots = SlotRange::new(first, first + 100);
            let expected = expected_slots(grid, slots, &Always).unwrap();
            prop_assert_eq!(expected.count(), 100 - grid.skipped(slots).count() as u64, "{:?} {}", grid, first);
        }
    }
}
