//! Which column holds the time, how it is written, and in which zone its clock seems to be.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{Timestamp, ToSpan};
use repair_core::model::{EpochUnit, Instants, LocalClock, TimeForm, Zone};
use repair_local::sample::{Stamp, stamp};

use super::values::Column;
use super::{Guess, Sure};

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3_600 * SECOND_US;

/// How dates are written, those first that cannot be confused. ISO is looked for before.
const DATES: [&str; 16] = [
    "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y", "%d %b %Y", "%b %d %Y",
    "%d-%b-%y", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%Y-%m-%d",
];

/// How times of day are written after a date.
const CLOCKS: [&str; 8] = ["%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%H%M", "%H%M%S", "%H.%M"];

/// Parts of names of columns that hold a time of the row, and of those that hold another time.
const OWN: [&str; 8] = ["time", "ts", "date", "stamp", "day", "month", "week", "_at"];
const OTHER: [&str; 14] =
    ["updat", "modif", "load", "insert", "receiv", "ingest", "close_time", "end", "expir", "until", "import", "process", "deliver", "ship"];

/// Parts of names of columns that hold hours of the day.
const HOURS: [&str; 5] = ["hour", "stunde", "heure", "hora", "uur"];

/// Names of columns that hold years, and parts of names of those that hold months and days of the month.
const YEARS: [&str; 7] = ["year", "yr", "yyyy", "jahr", "annee", "année", "anno"];
const MONTHS: [&str; 6] = ["month", "monat", "mois", "mese", "maand", "mm"];
const DAYS: [&str; 6] = ["day", "tag", "jour", "giorno", "dag", "dd"];

/// A column of days of the month has at least so many different ones; one of days of the week has seven.
const FEWEST_DAYS: usize = 8;

/// A column of hours of the day has at least so many different ones.
const FEWEST_HOURS: usize = 20;

/// Zones whose changes of the clock are looked for, the most common of each rule first.
pub(super) const ZONES: [&str; 16] = [
    "Europe/Berlin",
    "America/New_York",
    "Europe/London",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "Australia/Sydney",
    "Europe/Athens",
    "America/Toronto",
    "America/Halifax",
    "Australia/Adelaide",
    "Pacific/Auckland",
    "America/Santiago",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Jerusalem",
];

/// Values of a column that are tried first.
const FIRST_VALUES: usize = 200;

/// The column or columns of the time, and how it is written.
#[derive(Debug, Clone)]
pub(super) struct TimeGuess {
    pub(super) columns: Vec<String>,
    pub(super) form: TimeForm,
    /// The time of each row as it is written.
    pub(super) stamps: Vec<Option<Stamp>>,
    /// Whether each time is where its slot ends, as hours from 1 to 24 are.
    pub(super) is_end: bool,
}

fn has_part(name: &str, parts: &[&str]) -> bool {
    let name = name.to_lowercase();
    parts.iter().any(|part| name.contains(part))
}

fn share(form: &TimeForm, values: &[&str]) -> f64 {
    values.iter().filter(|text| stamp(form, text).is_some()).count() as f64 / values.len().max(1) as f64
}

/// Some values of a text, from the whole of it.
fn some<T: Copy>(values: &[T]) -> Vec<T> {
    let step = values.len().div_ceil(FIRST_VALUES).max(1);
    values.iter().step_by(step).copied().collect()
}

/// The forms that fit values of texts, those first that cannot be confused.
fn forms(name: &str, values: &[&str]) -> Vec<TimeForm> {
    let few = some(values);
    let mut found = Vec::new();
    let fits = |form: &TimeForm| share(form, &few) >= 0.9;
    if fits(&TimeForm::Iso) {
        return vec![TimeForm::Iso];
    }
    // Whole numbers of the years 2000 to 2050 in one unit, or in several.
    let mut units = Vec::new();
    let is_epoch = few.iter().all(|text| {
        let Some(number) = text.parse::<i128>().ok() else { return false };
        let Some(unit) = EpochUnit::of_size(number) else { return false };
        let seconds = number / i128::from(unit.per_second());
        if !units.contains(&unit) {
            units.push(unit);
        }
        (946_684_800..2_524_608_000).contains(&seconds)
    });
    if is_epoch && !few.is_empty() {
        units.sort_by_key(|unit| unit.per_second());
        return vec![TimeForm::Epoch(units)];
    }
    for date in DATES {
        // Numbers of eight digits are dates only where the name says so.
        if date == "%Y%m%d" && !has_part(name, &OWN) {
            continue;
        }
        let patterns = std::iter::once(date.to_owned())
            .chain(CLOCKS.iter().flat_map(|clock| [format!("{date} {clock}"), format!("{date}T{clock}"), format!("{date} {clock} %z")]));
        found.extend(patterns.map(TimeForm::Pattern).filter(fits));
    }
    found
}

/// Of several forms that fit, such as 03/04 as March or April, that in which the days follow each other.
fn best_form(forms: Vec<TimeForm>, values: &[&str], day_first: bool) -> Option<(TimeForm, bool)> {
    let mut scored: Vec<(usize, usize, TimeForm)> = Vec::new();
    for form in forms {
        let days: BTreeSet<i64> = values.iter().filter_map(|text| day_of(&form, text)).collect();
        let read = values.iter().filter(|text| stamp(&form, text).is_some()).count();
        let follow = days.iter().filter(|day| days.contains(&(*day + 1))).count();
        scored.push((read, follow, form));
    }
    let most = scored.iter().map(|(read, follow, _)| (*read, *follow)).max()?;
    scored.retain(|(read, follow, _)| (*read, *follow) == most);
    let is_day_first = |form: &TimeForm| matches!(form, TimeForm::Pattern(pattern) if pattern.starts_with("%d"));
    let is_open = scored.len() > 1;
    let at = scored.iter().position(|(_, _, form)| is_day_first(form) == day_first).unwrap_or(0);
    Some((scored.swap_remove(at).2, is_open))
}

fn day_of(form: &TimeForm, text: &str) -> Option<i64> {
    Some(local_us(stamp(form, text)?).div_euclid(24 * HOUR_US))
}

pub(super) fn local_us(stamp: Stamp) -> i64 {
    match stamp {
        Stamp::Instant(us) | Stamp::Local(us) | Stamp::Date(us) => us,
    }
}

/// The time column; `None` if no column holds times.
pub(super) fn guess(columns: &[Column], day_first: bool, guesses: &mut Vec<Guess>) -> Option<TimeGuess> {
    struct Candidate<'a> {
        column: &'a Column,
        form: TimeForm,
        is_open: bool,
        stamps: Vec<Option<Stamp>>,
        has_clock: bool,
        distinct: usize,
    }
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for column in columns {
        let values: Vec<&str> = column.present().collect();
        let kind_fits = column.is_time()
            || column.kind.as_ref().is_none_or(|kind| {
                kind.is_integer()
                    || matches!(
                        kind,
                        arrow::datatypes::DataType::Utf8 | arrow::datatypes::DataType::LargeUtf8 | arrow::datatypes::DataType::Utf8View
                    )
            });
        if values.is_empty() || !kind_fits {
            continue;
        }
        let found = if column.is_time() { vec![TimeForm::Iso] } else { forms(&column.name, &values) };
        let Some((form, is_open)) = best_form(found, &some(&values), day_first).and_then(|_| {
            let found = if column.is_time() { vec![TimeForm::Iso] } else { forms(&column.name, &values) };
            best_form(found, &values, day_first)
        }) else {
            continue;
        };
        // A number of seconds may also be an amount.
        if matches!(form, TimeForm::Epoch(_)) && !has_part(&column.name, &OWN) && !column.name.starts_with("column") {
            continue;
        }
        let stamps: Vec<Option<Stamp>> = column.values.iter().map(|value| value.as_deref().and_then(|text| stamp(&form, text))).collect();
        let has_clock = stamps.iter().flatten().any(|stamp| !matches!(stamp, Stamp::Date(_)));
        let distinct = stamps.iter().flatten().map(|stamp| local_us(*stamp)).collect::<BTreeSet<_>>().len();
        candidates.push(Candidate { column, form, is_open, stamps, has_clock, distinct });
    }
    // The first of those that no other is better than.
    let rank = |one: &Candidate<'_>| (!has_part(&one.column.name, &OTHER), one.has_clock, one.distinct, has_part(&one.column.name, &OWN));
    let Some((_, best)) = candidates.iter().enumerate().max_by_key(|(at, one)| (rank(one), std::cmp::Reverse(*at))) else {
        return with_year(columns, guesses);
    };
    if !best.has_clock
        && let Some(joined) =
            with_clock(columns, best.column, day_first, guesses).or_else(|| with_hour(columns, best.column, &best.form, guesses))
    {
        return Some(joined);
    }
    let others: Vec<String> =
        candidates.iter().filter(|one| one.column.name != best.column.name).map(|one| format!("`{}`", one.column.name)).collect();
    let sure = if others.is_empty() { Sure::Sure } else { Sure::Likely };
    let why = if others.is_empty() {
        "it is the only column of times".to_owned()
    } else {
        format!("it looks like the time of the row; {} {} times too", others.join(", "), if others.len() == 1 { "holds" } else { "hold" })
    };
    guesses.push(Guess::new("time", &best.column.name, why, sure));
    say_form(&best.form, best.column.is_time(), best.is_open, &best.stamps, guesses);
    Some(TimeGuess { columns: vec![best.column.name.clone()], form: best.form.clone(), stamps: best.stamps.clone(), is_end: false })
}

fn say_form(form: &TimeForm, is_typed: bool, is_open: bool, stamps: &[Option<Stamp>], guesses: &mut Vec<Guess>) {
    let (value, why) = match form {
        _ if is_typed => return,
        TimeForm::Pattern(pattern) if is_open => (pattern.clone(), "day and month may also be the other way round: look at the data"),
        TimeForm::Pattern(pattern) => (pattern.clone(), "the times are written so"),
        TimeForm::Epoch(units) => {
            (format!("epoch {}", units.iter().map(|unit| unit.as_str()).collect::<Vec<_>>().join(", ")), "the numbers are of that size")
        }
        _ => ("ISO 8601".to_owned(), "the times are written so"),
    };
    let all = stamps.iter().flatten().count();
    let sure = if is_open {
        Sure::Guess
    } else if all * 100 >= stamps.len() * 99 {
        Sure::Sure
    } else {
        Sure::Likely
    };
    guesses.push(Guess::new("time format", value, why, sure));
}

/// A column of dates, with one of times of day.
fn with_clock(columns: &[Column], date: &Column, day_first: bool, guesses: &mut Vec<Guess>) -> Option<TimeGuess> {
    for clock in columns.iter().filter(|column| column.name != date.name && column.kind.is_none()) {
        let looks = |text: &str| {
            text.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
                && (text.contains(':') || (has_part(&clock.name, &["time", "hour"]) && matches!(text.len(), 4 | 6)))
        };
        if clock.present().next().is_none() || !clock.present().all(looks) {
            continue;
        }
        let joined: Vec<Option<String>> = (0..date.values.len()).map(|row| Some(format!("{} {}", date.at(row)?, clock.at(row)?))).collect();
        let values: Vec<&str> = joined.iter().filter_map(|value| value.as_deref()).collect();
        let Some((form, is_open)) = best_form(forms("date time", &values), &values, day_first) else { continue };
        let stamps: Vec<Option<Stamp>> = joined.iter().map(|value| value.as_deref().and_then(|text| stamp(&form, text))).collect();
        if !stamps.iter().flatten().any(|stamp| matches!(stamp, Stamp::Local(_))) {
            continue;
        }
        let names = format!("{}, {}", date.name, clock.name);
        guesses.push(Guess::new("time", names, "one column holds dates, and the other times of day", Sure::Likely));
        say_form(&form, false, is_open, &stamps, guesses);
        return Some(TimeGuess { columns: vec![date.name.clone(), clock.name.clone()], form, stamps, is_end: false });
    }
    None
}

/// A column of dates, with one of the hours of the day, from 0 to 23 or from 1 to 24.
fn with_hour(columns: &[Column], date: &Column, form: &TimeForm, guesses: &mut Vec<Guess>) -> Option<TimeGuess> {
    let pattern = match form {
        TimeForm::Pattern(pattern) => pattern.as_str(),
        TimeForm::Iso if date.kind.is_none() => "%Y-%m-%d",
        _ => return None,
    };
    let form = TimeForm::Pattern(format!("{pattern} %H"));
    for hour in columns.iter().filter(|column| column.name != date.name && has_part(&column.name, &HOURS)) {
        // Hours that somebody worked are not those of the day.
        let Some(numbers) = numbers_within(hour, &(0..=24)).filter(|numbers| numbers.len() >= FEWEST_HOURS) else { continue };
        // Hours that are counted from 1 to 24 are named for their end.
        let is_end = numbers.contains(&24) && !numbers.contains(&0);
        let stamp_of = |row: usize| stamp(&form, &format!("{} {}", date.at(row)?, hour.at(row)?));
        let stamps: Vec<Option<Stamp>> = (0..date.values.len()).map(stamp_of).collect();
        if stamps.iter().flatten().count() * 10 < stamps.len() * 9 {
            continue;
        }
        let names = format!("{}, {}", date.name, hour.name);
        guesses.push(Guess::new("time", names, "one column holds dates, and the other hours of the day", Sure::Likely));
        say_form(&form, false, false, &stamps, guesses);
        say_marks(is_end, guesses);
        return Some(TimeGuess { columns: vec![date.name.clone(), hour.name.clone()], form, stamps, is_end });
    }
    None
}

/// Whether a column holds whole numbers of a range, and how many different ones.
fn numbers_within(column: &Column, range: &std::ops::RangeInclusive<u16>) -> Option<BTreeSet<u16>> {
    let numbers: Option<BTreeSet<u16>> = column.present().map(|text| text.parse().ok().filter(|number| range.contains(number))).collect();
    numbers.filter(|numbers| !numbers.is_empty())
}

/// A column of years, with those of months, days and hours, where there are some.
fn with_year(columns: &[Column], guesses: &mut Vec<Guess>) -> Option<TimeGuess> {
    let is_year =
        |column: &&Column| YEARS.contains(&column.name.to_lowercase().as_str()) && numbers_within(column, &(1_500..=2_200)).is_some();
    let mut parts = vec![(columns.iter().find(is_year)?, "%Y")];
    let month = |column: &Column| {
        let pattern = match numbers_within(column, &(1..=12)) {
            Some(_) => "%m",
            None => {
                let is_name = |pattern: &str| {
                    let reads = |text: &str| stamp(&TimeForm::Pattern(format!("%Y %d {pattern}")), &format!("2024 1 {text}")).is_some();
                    column.present().next().is_some() && column.present().all(reads)
                };
                ["%b", "%B"].into_iter().find(|pattern| is_name(pattern))?
            }
        };
        has_part(&column.name, &MONTHS).then_some(pattern)
    };
    parts.extend(columns.iter().find_map(|column| Some((column, month(column)?))));
    let mut is_end = false;
    if parts.len() == 2 {
        let is_day = |column: &&Column| {
            has_part(&column.name, &DAYS) && numbers_within(column, &(1..=31)).is_some_and(|numbers| numbers.len() >= FEWEST_DAYS)
        };
        parts.extend(columns.iter().find(is_day).map(|column| (column, "%d")));
    }
    if parts.len() == 3 {
        let hours = |column: &&Column| {
            let numbers = numbers_within(column, &(0..=24)).filter(|numbers| numbers.len() >= FEWEST_HOURS)?;
            has_part(&column.name, &HOURS).then_some(numbers)
        };
        if let Some((column, numbers)) = columns.iter().find_map(|column| Some((column, hours(&column)?))) {
            is_end = numbers.contains(&24) && !numbers.contains(&0);
            parts.push((column, "%H"));
        }
    }
    let form = TimeForm::Pattern(parts.iter().map(|(_, pattern)| *pattern).collect::<Vec<_>>().join(" "));
    let rows = parts.first().map_or(0, |(column, _)| column.values.len());
    let stamp_of = |row: usize| {
        let texts: Option<Vec<&str>> = parts.iter().map(|(column, _)| column.at(row)).collect();
        stamp(&form, &texts?.join(" "))
    };
    let stamps: Vec<Option<Stamp>> = (0..rows).map(stamp_of).collect();
    if stamps.iter().flatten().count() * 10 < rows * 9 {
        return None;
    }
    let names: Vec<String> = parts.iter().map(|(column, _)| column.name.clone()).collect();
    let why = if names.len() == 1 { "its numbers are years" } else { "together they are the time of a row" };
    guesses.push(Guess::new("time", names.join(", "), why, Sure::Likely));
    say_form(&form, false, false, &stamps, guesses);
    say_marks(is_end, guesses);
    Some(TimeGuess { columns: names, form, stamps, is_end })
}

fn say_marks(is_end: bool, guesses: &mut Vec<Guess>) {
    if is_end {
        guesses.push(Guess::new("marks", "end", "the hours go from 1 to 24, so each is named for its end", Sure::Likely));
    }
}

/// What is known about the clock of times that carry no zone.
#[derive(Debug, Clone)]
pub(super) struct ZoneGuess {
    pub(super) zone: Zone,
    /// Whether times occur twice in autumn.
    pub(super) is_doubled: bool,
    /// Whether times occur that the clock skips.
    pub(super) is_shown: bool,
}

/// The zone of local times: UTC, unless the hour is doubled that a known zone's clock shows twice, or that is missing which it skips.
pub(super) fn zone(stamps: &[Option<Stamp>], key_of: &dyn Fn(usize) -> String, guesses: &mut Vec<Guess>) -> Option<ZoneGuess> {
    let utc = ZoneGuess { zone: Zone::utc(), is_doubled: false, is_shown: false };
    if !stamps.iter().flatten().any(|stamp| matches!(stamp, Stamp::Local(_))) {
        return None;
    }
    let mut hours: HashMap<i64, u64> = HashMap::new();
    let mut twice: BTreeMap<i64, u64> = BTreeMap::new();
    let mut seen: BTreeSet<(String, i64)> = BTreeSet::new();
    for (row, local) in stamps.iter().enumerate().filter_map(|(row, stamp)| stamp.map(|stamp| (row, local_us(stamp)))) {
        *hours.entry(local.div_euclid(HOUR_US)).or_default() += 1;
        if !seen.insert((key_of(row), local)) {
            *twice.entry(local.div_euclid(HOUR_US)).or_default() += 1;
        }
    }
    let (Some(first), Some(last)) = (hours.keys().min(), hours.keys().max()) else { return Some(utc) };
    let at = |hour: i64| Timestamp::from_microsecond(hour * HOUR_US).unwrap_or_default();
    let mut best: Option<(u64, &str, String, bool)> = None;
    for name in ZONES {
        let Ok(zone) = name.parse::<Zone>() else { continue };
        let changes = zone
            .changes(at(*first).saturating_sub(48.hours()).unwrap_or_default(), at(*last).saturating_add(48.hours()).unwrap_or_default());
        let (mut score, mut why, mut doubled) = (0, String::new(), false);
        for pair in changes.windows(2) {
            let [(_, before_s), (instant_s, after_s)] = pair else { continue };
            let shown = |offset: i32| (instant_s + i64::from(offset)).div_euclid(3_600);
            let rows = |hour: i64| hours.get(&hour).copied().unwrap_or(0);
            if after_s < before_s {
                // The clock goes back: the hour that begins at the new time is shown twice.
                let hour = shown(*after_s);
                let (here, twice_here) = (rows(hour), twice.get(&hour).copied().unwrap_or(0));
                if here == 0 || rows(hour - 1) == 0 {
                    continue;
                }
                if twice_here * 3 >= here {
                    score += 10;
                    doubled = true;
                    why = format!("the hour from {} is doubled, as its clock does in autumn", hour_text(hour));
                } else {
                    score = 0;
                    why.clear();
                    break;
                }
            } else {
                let hour = shown(*before_s);
                if rows(hour - 1) > 0 && rows(hour + 1) > 0 {
                    if rows(hour) > 0 {
                        score = 0;
                        why.clear();
                        break;
                    }
                    score += 1;
                    if why.is_empty() {
                        why = format!("the hour from {} is missing, as its clock skips it in spring", hour_text(hour));
                    }
                }
            }
        }
        if score > best.as_ref().map_or(0, |(score, ..)| *score) {
            best = Some((score, name, why, doubled));
        }
    }
    let Some((score, name, why, is_doubled)) = best else {
        guesses.push(Guess::new("zone", "UTC", "the times carry no zone, and no change of a clock is seen in them", Sure::Guess));
        return Some(utc);
    };
    let sure = if score >= 10 { Sure::Likely } else { Sure::Guess };
    guesses.push(Guess::new("zone", name, format!("{why}; other zones change at the same time"), sure));
    Some(ZoneGuess { zone: name.parse().unwrap_or_default(), is_doubled, is_shown: false })
}

fn hour_text(hour: i64) -> String {
    Timestamp::from_second(hour * 3_600)
        .map(|time| jiff::tz::TimeZone::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M").to_string())
        .unwrap_or_default()
}

/// The instants of rows, in microseconds. Of a doubled hour, the second begins where the clock goes back within a series.
pub(super) fn instants(time: &TimeGuess, zone: Option<&mut ZoneGuess>, key_of: &dyn Fn(usize) -> String) -> Vec<Option<i64>> {
    let Some(zone) = zone.filter(|zone| !zone.zone.is_utc()) else {
        return time.stamps.iter().map(|stamp| stamp.map(local_us)).collect();
    };
    let mut clock = LocalClock::new(zone.zone.clone());
    let mut last: HashMap<String, (i64, bool)> = HashMap::new();
    let mut found = Vec::with_capacity(time.stamps.len());
    for (row, stamp) in time.stamps.iter().enumerate() {
        let Some(stamp) = stamp else {
            found.push(None);
            continue;
        };
        let local = local_us(*stamp);
        found.push(match (stamp, clock.instants(local)) {
            (Stamp::Instant(us), _) => Some(*us),
            (_, Some(Instants::One(us))) => {
                last.insert(key_of(row), (local, false));
                Some(us)
            }
            (_, Some(Instants::Two(earlier, later))) => {
                let entry = last.entry(key_of(row)).or_insert((i64::MIN, false));
                *entry = (local, entry.1 || local <= entry.0);
                Some(if entry.1 { later } else { earlier })
            }
            (_, Some(Instants::None(us))) => {
                zone.is_shown = true;
                Some(us)
            }
            (_, None) => None,
        });
    }
    found
}
