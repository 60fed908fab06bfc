//! Whole workflows whose truth is known by construction: cadences, calendars, lifetimes and relative dates, drawn from a seed.
//!
//! The truth is computed here from local clocks, day by day and slot by slot, and uses neither grids nor calendars of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

use super::LakeSetup;
use super::tables::{Numbers, Row, batch, put, read, seen};
use crate::engine::{Engine, StartRequest};
use crate::error::Result;
use crate::lake::{Lake, Layer};
use crate::model::{Key, Table};
use crate::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use crate::testing::{MemoryJournal, VirtualClock};
use crate::workflow::Workflow;

/// A slot: when it begins and ends.
type Slot = (Timestamp, Timestamp);

/// How often a table has rows, and since when a calendar day knows it by its date.
struct Kind {
    every: &'static str,
    at: &'static str,
    /// Whether slots begin with a date, so that they are expected by the dates of sessions.
    by_date: bool,
    /// How many days a run looks back.
    days: i64,
}

const KINDS: [Kind; 11] = [
    Kind { every: "15m", at: "", by_date: false, days: 3 },
    Kind { every: "30m", at: "", by_date: false, days: 4 },
    Kind { every: "1h", at: "", by_date: false, days: 6 },
    Kind { every: "1h", at: ":51", by_date: false, days: 6 },
    Kind { every: "4h", at: "01:30", by_date: false, days: 12 },
    Kind { every: "1d", at: "", by_date: true, days: 30 },
    Kind { every: "1d", at: "17:00", by_date: false, days: 30 },
    Kind { every: "1w", at: "", by_date: true, days: 90 },
    Kind { every: "1w", at: "sun 17:00", by_date: false, days: 90 },
    Kind { every: "1mo", at: "", by_date: true, days: 300 },
    Kind { every: "1mo", at: "15 06:00", by_date: false, days: 300 },
];

const ZONES: [&str; 6] = ["Europe/Berlin", "America/New_York", "UTC", "Australia/Sydney", "Asia/Kolkata", "Africa/Cairo"];

/// Days on which a run looks: around changes of clocks, the ends of months and years, and a plain one.
const TODAYS: [&str; 8] = ["2024-03-31", "2024-04-01", "2024-10-28", "2024-11-04", "2024-04-08", "2024-01-02", "2024-03-01", "2024-06-12"];

/// The hours of a day, and from which day each stretch counts: `-1` is the day before.
type Stretches = &'static [((i64, i8, i8), (i64, i8, i8))];

/// Ways to be open. Those of one group never overlap, on whichever days they are.
const HOURS: [&[(&str, Stretches)]; 3] = [
    &[
        ("\"09:00-17:00\"", &[((0, 9, 0), (0, 17, 0))]),
        ("[\"09:00-12:30\", \"14:00-18:30\"]", &[((0, 9, 0), (0, 12, 30)), ((0, 14, 0), (0, 18, 30))]),
        ("\"18:00-24:00\"", &[((0, 18, 0), (1, 0, 0))]),
        ("\"00:00-24:00\"", &[((0, 0, 0), (1, 0, 0))]),
    ],
    &[
        ("\"22:00-05:00\"", &[((0, 22, 0), (1, 5, 0))]),
        ("\"08:00-10:15 22:00-05:00\"", &[((0, 8, 0), (0, 10, 15)), ((0, 22, 0), (1, 5, 0))]),
    ],
    &[("\"<17:00-16:00\"", &[((-1, 17, 0), (0, 16, 0))]), ("\"<17:00-12:00\"", &[((-1, 17, 0), (0, 12, 0))])],
];

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// The instant of what a local clock shows. A time that the clock skips is as far behind the change as it would be without it.
fn instant(zone: &TimeZone, clock: DateTime) -> Timestamp {
    zone.to_ambiguous_timestamp(clock).compatible().unwrap()
}

fn pick<T: Copy>(numbers: &mut Numbers, of: &[T]) -> T {
    of[usize::try_from(numbers.below(of.len() as u64)).unwrap()]
}

/// A calendar of the workflow.
struct Open {
    text: String,
    zone: TimeZone,
    week: BTreeMap<usize, Stretches>,
    /// Days that differ; without stretches, they are closed.
    days: BTreeMap<Date, Option<Stretches>>,
}

impl Open {
    fn drawn(numbers: &mut Numbers, today: Date, days: i64) -> Self {
        let (zone, hours) = (pick(numbers, &ZONES), pick(numbers, &HOURS));
        let mut text = format!("{{ zone: {zone}, open: {{ ");
        let mut week = BTreeMap::new();
        for (number, (name, _)) in WEEKDAYS.iter().enumerate() {
            if numbers.below(7) < 5 || (number == 6 && week.is_empty()) {
                let (written, stretches) = pick(numbers, hours);
                write!(text, "{name}: {written}, ").unwrap();
                week.insert(number, stretches);
            }
        }
        text.push_str("}, closed: [");
        let mut other = BTreeMap::new();
        let some = |numbers: &mut Numbers| today - i64::try_from(numbers.below(u64::try_from(days).unwrap() + 2)).unwrap().days();
        for day in (0..numbers.below(3)).map(|_| some(numbers)).collect::<BTreeSet<_>>() {
            write!(text, "{day}, ").unwrap();
            other.insert(day, None);
        }
        text.push_str("], special: { ");
        for day in (0..numbers.below(3)).map(|_| some(numbers)).collect::<BTreeSet<_>>() {
            let (written, stretches) = pick(numbers, hours);
            if let std::collections::btree_map::Entry::Vacant(free) = other.entry(day) {
                write!(text, "{day}: {written}, ").unwrap();
                free.insert(Some(stretches));
            }
        }
        text.push_str("} }");
        Self { text, zone: TimeZone::get(zone).unwrap(), week, days: other }
    }

    /// The hours of a date, if it has a session.
    fn session(&self, date: Date) -> Option<Stretches> {
        let by_week = || {
            let number = WEEKDAYS.iter().position(|(_, weekday)| *weekday == date.weekday()).unwrap();
            self.week.get(&number).copied()
        };
        self.days.get(&date).copied().unwrap_or_else(by_week)
    }

    fn expects(&self, slot: Slot, by_date: bool, zone: &TimeZone) -> bool {
        if by_date {
            let (mut date, end) = (zone.to_datetime(slot.0).date(), zone.to_datetime(slot.1).date());
            while date < end {
                if self.session(date).is_some() {
                    return true;
                }
                date = date.tomorrow().unwrap();
            }
            return false;
        }
        let mut date = self.zone.to_datetime(slot.0).date() - 2.days();
        let last = self.zone.to_datetime(slot.1).date() + 2.days();
        while date <= last {
            for ((from_day, from_hour, from_minute), (to_day, to_hour, to_minute)) in self.session(date).unwrap_or_default() {
                let of = |day: i64, hour, minute| instant(&self.zone, (date + day.days()).at(hour, minute, 0, 0));
                if of(*from_day, *from_hour, *from_minute) < slot.1 && slot.0 < of(*to_day, *to_hour, *to_minute) {
                    return true;
                }
            }
            date = date.tomorrow().unwrap();
        }
        false
    }
}

/// All slots that begin from one instant to another.
fn slots(kind: &Kind, zone: &TimeZone, changed: Option<Date>, from: Timestamp, to: Timestamp) -> Vec<Slot> {
    let mut begins: Vec<Timestamp> = Vec::new();
    let clock = |text: &str| -> Time { text.parse().unwrap() };
    let first = TimeZone::UTC.to_datetime(from - 24.hours()).date() - Span::new().days(40);
    let last = to + 1200.hours();
    let mut date = first;
    let by_day = |begins: &mut Vec<Timestamp>, keep: &dyn Fn(Date) -> bool, at: Time| {
        let mut date = first;
        while instant(zone, date.to_datetime(Time::midnight())) < last {
            if keep(date) {
                begins.push(instant(zone, date.to_datetime(at)));
            }
            date = date.tomorrow().unwrap();
        }
    };
    match (kind.every, kind.at) {
        ("1d", "") => by_day(&mut begins, &|_| true, Time::midnight()),
        ("1d", at) => by_day(&mut begins, &|_| true, clock(at)),
        ("1w", "") => by_day(&mut begins, &|date| date.weekday() == Weekday::Monday, Time::midnight()),
        ("1w", at) => by_day(&mut begins, &|date| date.weekday() == Weekday::Sunday, clock(at.strip_prefix("sun ").unwrap())),
        ("1mo", "") => by_day(&mut begins, &|date| date.day() == 1, Time::midnight()),
        ("1mo", at) => by_day(&mut begins, &|date| date.day() == 15, clock(at.strip_prefix("15 ").unwrap())),
        (every, at) => {
            let minutes = |every: &str| match every {
                "15m" => 15,
                "30m" => 30,
                "1h" => 60,
                _ => 240,
            };
            let off = match at {
                "" => 0,
                ":51" => 51,
                _ => 90,
            };
            let changed = changed.map(|date| instant(zone, date.to_datetime(Time::midnight())));
            let mut day = date.to_datetime(Time::midnight());
            while instant(&TimeZone::UTC, day) < last {
                let start = instant(&TimeZone::UTC, day);
                // Before the change, an hour.
                for minute in (0..1_440i64).filter(|minute| (minute - off).rem_euclid(minutes(every)) == 0) {
                    let begin = start + minute.minutes();
                    if changed.is_none_or(|changed| begin >= changed) || minute % 60 == 0 {
                        begins.push(begin);
                    }
                }
                date = date.tomorrow().unwrap();
                day = date.to_datetime(Time::midnight());
            }
        }
    }
    begins.windows(2).map(|pair| (pair[0], pair[1])).filter(|(begin, _)| *begin >= from && *begin < to).collect()
}

/// One row of the table of keys.
struct Life {
    since: Option<(String, Timestamp)>,
    until: Option<(String, Timestamp)>,
}

/// What the keys are expected to have.
#[derive(Default)]
struct Site {
    lives: Vec<Life>,
    calendar: Option<usize>,
    hourly: bool,
}

impl Site {
    fn lives_at(&self, at: Timestamp) -> bool {
        self.lives.iter().any(|life| {
            life.since.as_ref().is_none_or(|(_, since)| *since <= at) && life.until.as_ref().is_none_or(|(_, until)| at < *until)
        })
    }

    fn lives_within(&self, from: Timestamp, to: Timestamp) -> bool {
        self.lives.iter().any(|life| {
            let since = life.since.as_ref().map_or(from, |(_, since)| (*since).max(from));
            let until = life.until.as_ref().map_or(to, |(_, until)| (*until).min(to));
            since < until
        })
    }
}

/// A source that has every row but some.
struct Kept(Arc<BTreeMap<Key, Vec<(Timestamp, Row)>>>);

#[async_trait]
impl Source for Kept {
    fn limits(&self) -> Limits {
        Limits::new(100_000, 3)
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        let within = |begin: &Timestamp| *begin >= request.interval.from() && *begin < request.interval.to();
        let known = request.keys.iter().filter_map(|key| self.0.get(key));
        let rows: Vec<Row> = known.flatten().filter(|(begin, _)| within(begin)).map(|(_, row)| row.clone()).collect();
        let covered = request.keys.iter().map(|key| Covered { key: key.clone(), interval: request.interval }).collect();
        Ok(Answer::new(vec![batch(&request.table, &rows)]).with_covered(covered).with_said("the whole table"))
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

const NAMES: [&str; 4] = ["A", "B", "lower case", "D"];

/// A workflow over a table with holes finds exactly what is missing, and repairs exactly that: for a cadence, calendars, keys, lifetimes,
/// zone and dates that are drawn from a seed. The truth is computed from local clocks, by other means than the engine's.
pub async fn what_is_expected_is_found_and_repaired(lake: &Arc<dyn Lake>, setup: &dyn LakeSetup, seed: u64) {
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x51_7c_c1_b7);
    let numbers = &mut numbers;
    let kind = &KINDS[usize::try_from(numbers.below(KINDS.len() as u64)).unwrap()];
    let is_plain = kind.every == "15m" || kind.every == "30m";
    let changes = kind.every == "15m" && numbers.below(2) == 0;
    // An hour that a change of cadence cuts in two is another matter.
    let zone_name = if changes { pick(numbers, &ZONES[..4]) } else { pick(numbers, &ZONES) };
    let zone = TimeZone::get(zone_name).unwrap();
    let today: Date = pick(numbers, &TODAYS).parse().unwrap();
    let tolerance_s = pick(numbers, &[0, 0, 3, 20]);
    let is_end = numbers.below(3) == 0;
    let changed = changes.then(|| today - 1.days());
    let calendars: Vec<Open> = (0..2).map(|_| Open::drawn(numbers, today, kind.days)).collect();
    let own = (numbers.below(4) > 0).then_some(0);

    // When the run looks, and at what.
    let now = instant(&zone, today.at(pick(numbers, &[0, 3, 9, 23]), pick(numbers, &[0, 20]), 0, 0));
    let midnight = |date: Date| instant(&zone, date.to_datetime(Time::midnight()));
    let days = kind.days;
    let back = |days: i64| instant(&zone, zone.to_datetime(now) - days.days());
    let monday = today - i64::from(today.weekday().to_monday_zero_offset()).days();
    let (from_text, from) = pick_one(
        numbers,
        [
            (format!("today - {days}d"), midnight(today - days.days())),
            (format!("{}", today - days.days()), midnight(today - days.days())),
            (format!("now - {days}d"), back(days)),
            (format!("startof(week) - {days}d"), midnight(monday - days.days())),
            (format!("startof(month) - {days}d"), midnight(today.first_of_month() - days.days())),
        ],
    );
    let (to_text, to) = pick_one(
        numbers,
        [
            ("today".to_owned(), midnight(today.tomorrow().unwrap())),
            ("now".to_owned(), now),
            ("yesterday".to_owned(), midnight(today)),
            (format!("{}", today.yesterday().unwrap()), midnight(today)),
            ("now - 5h".to_owned(), now - 5.hours()),
        ],
    );
    let settle_minutes = pick(numbers, &[0i64, 0, 90]);
    let is_settled = |slot: &Slot| slot.1 + settle_minutes.minutes() <= now;
    let all = slots(kind, &zone, changed, from - 2_000.hours(), to + 2_000.hours());

    // The keys.
    let by_table = numbers.below(3) > 0;
    let mut sites: BTreeMap<&str, Site> = BTreeMap::new();
    for name in &NAMES[..3] {
        let site = sites.entry(name).or_default();
        let lives = if by_table { 1 + numbers.below(2) } else { 0 };
        if !by_table {
            site.lives.push(Life { since: None, until: None });
            continue;
        }
        site.calendar = (numbers.below(3) == 0).then_some(1);
        site.hourly = is_plain && !is_end && tolerance_s == 0 && changed.is_none() && numbers.below(3) == 0;
        for _ in 0..lives {
            let mut drawn = |is_until: bool| {
                let date = today - i64::try_from(numbers.below(u64::try_from(days).unwrap() + 4)).unwrap().days();
                match numbers.below(3) {
                    0 => None,
                    // A date is a whole day.
                    1 => Some((date.to_string(), midnight(if is_until { date.tomorrow().unwrap() } else { date }))),
                    _ => {
                        let at = instant(&zone, date.at(11, 15, 0, 0));
                        Some((at.to_string(), at))
                    }
                }
            };
            let (since, until) = (drawn(false), drawn(true));
            let is_backwards = matches!((&since, &until), (Some((_, since)), Some((_, until))) if since >= until);
            site.lives.push(if is_backwards { Life { since, until: None } } else { Life { since, until } });
        }
    }

    // The rows, and what each slot of each key comes to.
    let mut table_rows: Vec<Row> = Vec::new();
    let mut kept: BTreeMap<Key, Vec<(Timestamp, Row)>> = BTreeMap::new();
    let mut shown: Vec<Row> = Vec::new();
    let mut filled: Vec<Row> = Vec::new();
    let [mut expected, mut present, mut missing, mut absent, mut unexpected, mut misaligned, mut others] = [0u64; 7];
    let mut audited = 0;
    for name in NAMES {
        let key = Key::from(name);
        let site = sites.get(name);
        let examined_key = site.filter(|site| site.lives_within(from, to));
        audited += u64::from(examined_key.is_some());
        let hourly = site.is_some_and(|site| site.hourly);
        for slot in &all {
            let slot = match hourly {
                true if slot.0.as_second() % 3_600 != 0 => continue,
                true => (slot.0, slot.0 + 1.hours()),
                false => *slot,
            };
            let is_examined = slot.0 >= from && slot.0 < to && is_settled(&slot);
            let calendar = site.and_then(|site| site.calendar).or(own).map(|at| &calendars[at]);
            let is_expected = site.is_some_and(|site| site.lives_at(slot.0))
                && calendar.is_none_or(|calendar| calendar.expects(slot, kind.by_date, &zone));
            let time = if is_end { slot.1 } else { slot.0 };
            let price = f64::from(u32::try_from(numbers.below(1 << 30)).unwrap()) / 8.0;
            let row = |off_s: i64| Row {
                key: key.clone(),
                time_us: (time + off_s.seconds()).as_microsecond(),
                price: Some(price),
                volume: Some(1),
            };
            let chance = numbers.below(100);
            let (has_row, is_off) = match is_expected {
                true => (chance < 80, chance >= 78),
                false => (chance < 15, chance >= 13),
            };
            let knows = numbers.below(20) > 0;
            if knows {
                kept.entry(key.clone()).or_default().push((slot.0, row(0)));
            }
            let off_s = match (is_off, tolerance_s) {
                // Within its slot, which ends or begins with its time.
                (true, _) if is_end => -tolerance_s - 1,
                (true, _) => tolerance_s + 1,
                (false, 0) => 0,
                (false, most) => i64::try_from(numbers.below(u64::try_from(2 * most + 1).unwrap())).unwrap() - most,
            };
            if has_row {
                table_rows.push(row(off_s));
                if !is_off {
                    shown.push(row(off_s));
                }
            }
            if !is_examined {
                continue;
            }
            if examined_key.is_none() {
                others += u64::from(has_row);
                continue;
            }
            misaligned += u64::from(has_row && is_off);
            let holds = has_row && !is_off;
            if is_expected {
                expected += 1;
                present += u64::from(holds);
                missing += u64::from(!holds);
                match (holds, knows) {
                    (true, _) => {}
                    (false, true) => filled.push(row(0)),
                    (false, false) => absent += 1,
                }
            } else {
                unexpected += u64::from(holds);
            }
        }
    }

    // The workflow.
    let name = format!("expected_{}", uuid::Uuid::now_v7().simple());
    let text = {
        let at = if kind.at.is_empty() { String::new() } else { format!(", at: \"{}\"", kind.at) };
        let before = changed.map_or_else(String::new, |date| format!(", before: {{ {date}: 1h }}"));
        let marks = if is_end { "end" } else { "start" };
        let keys = match by_table {
            true => format!(
                "{{ table: {name}_sites, columns: [site], since: opened, until: closed, calendar: hours{} }}",
                if is_plain { ", cadence: every" } else { "" }
            ),
            false => "[A, B, lower case]".to_owned(),
        };
        let calendar = own.map_or_else(String::new, |_| ", calendar: own".to_owned());
        let partition = match numbers.below(3) {
            0 => String::new(),
            1 => "\n    partition_by: [{ part: day }]".to_owned(),
            _ => "\n    partition_by: [{ part: month }]".to_owned(),
        };
        let sites = if by_table {
            format!("\n  {name}_sites: {{ location: {name}_sites, format: parquet, time: entered }}")
        } else {
            String::new()
        };
        format!(
            "workflow: expected
kind: state-machine
calendars:
  own: {}
  other: {}
tables:
  {name}:
    location: {name}
    format: parquet
    key: [symbol]
    time: ts
    time_marks: {marks}
    zone: {zone_name}
    settles_after: {settle_minutes}m
    keys: {keys}
    cadence: {{ every: {}{at}, tolerance: {tolerance_s}s, misaligned: 100%{before} }}{partition}{sites}
sources: {{ kept: {{ source: kept }} }}
start: look
steps:
  look: {{ detect: gaps, with: {{ table: {name}, from: {from_text}, to: {to_text}, allow_empty: true{calendar} }}, next: fill }}
  fill: {{ repair: backfill, of: look, with: {{ source: kept }}, next: check }}
  check: {{ verify: look, end: true }}
",
            calendars[0].text, calendars[1].text, kind.every
        )
    };
    let mut registry = Registry::default();
    let source = Arc::new(kept);
    registry.source("kept", "has every row but some", move |_: Nothing| Ok(Kept(source.clone())));
    let registry = Arc::new(registry);
    let workflow = Workflow::parse("expected.yaml", &text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
    let table = &workflow.tables[&name];
    put(setup, table, &table_rows).await;
    if by_table {
        put_sites(setup, &workflow.tables[&format!("{name}_sites")], &sites).await;
    }

    let clock = VirtualClock::starting_at(now);
    let mut engine = Engine::new(registry, lake.clone(), Arc::new(MemoryJournal::default()));
    engine.clock = Arc::new(clock);
    let report = engine.start(&workflow, StartRequest::new(&name).with_now(now)).await;
    let report = report.unwrap_or_else(|error| panic!("{}\n{text}", error.full()));
    let outcome = report.outcome.as_ref().map(|outcome| outcome.as_str().to_owned()).unwrap_or_default();
    if audited == 0 {
        assert!(!outcome.starts_with("succeeded"), "nobody lives, so nothing was looked at: {outcome}\n{text}");
        return;
    }
    let Some(look) = report.step("look") else { panic!("{outcome}: {:?}\n{text}", report.problems) };
    let found = |step: &serde_json::Value, names: &[&str]| -> Vec<u64> {
        names.iter().map(|name| step[*name].as_u64().unwrap_or(u64::MAX)).collect()
    };
    let names = ["audited_keys", "expected", "present", "missing", "unexpected", "misaligned", "other_keys"];
    let truth = vec![audited, expected, present, missing, unexpected, misaligned, others];
    assert_eq!(found(&look.output, &names), truth, "{names:?} of seed {seed}, at {now}: {:?}\n{text}", report.problems);
    assert!(outcome.starts_with("succeeded"), "{outcome} of seed {seed}: {:?}\n{text}", report.problems);
    let check = report.step("check").unwrap();
    assert_eq!(found(&check.output, &["absent", "missing"]), [absent, 0], "{:?} of seed {seed}\n{text}", report.problems);
    let wanted = seen(table, &[batch(table, &[shown, filled.clone()].concat())]);
    let read = read(lake.as_ref(), table, Layer::Repaired).await;
    let plain = |rows: &[super::tables::Seen]| -> Vec<_> { rows.iter().map(|row| (row.0.clone(), row.1, row.2)).collect() };
    assert_eq!(plain(&read), plain(&wanted), "the rows of seed {seed}\n{text}");
    assert_eq!(read.iter().filter(|row| row.4.is_some()).count(), filled.len(), "repaired rows of seed {seed}\n{text}");
}

fn pick_one<const N: usize>(numbers: &mut Numbers, of: [(String, Timestamp); N]) -> (String, Timestamp) {
    let at = usize::try_from(numbers.below(N as u64)).unwrap();
    of.into_iter().nth(at).unwrap()
}

/// A row of the table of keys.
type Listed<'a> = (&'a str, &'a Site, &'a Life);

async fn put_sites(setup: &dyn LakeSetup, table: &Table, sites: &BTreeMap<&str, Site>) {
    let rows: Vec<Listed<'_>> = sites.iter().flat_map(|(name, site)| site.lives.iter().map(move |life| (*name, site, life))).collect();
    let texts = |value: &dyn Fn(&Listed<'_>) -> Option<String>| Arc::new(rows.iter().map(value).collect::<StringArray>()) as ArrayRef;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("entered", Arc::new(TimestampMicrosecondArray::from(vec![0; rows.len()]).with_timezone("UTC"))),
        ("site", texts(&|row| Some(row.0.to_owned()))),
        ("opened", texts(&|row| row.2.since.as_ref().map(|(text, _)| text.clone()))),
        ("closed", texts(&|row| row.2.until.as_ref().map(|(text, _)| text.clone()))),
        ("hours", texts(&|row| row.1.calendar.map(|_| "other".to_owned()))),
        ("every", texts(&|row| row.1.hourly.then(|| "1h".to_owned()))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    setup.add_rows(table, &[batch]).await.unwrap();
}
