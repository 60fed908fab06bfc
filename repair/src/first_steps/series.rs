//! Which columns identify a series, how often each has a row, and when rows are expected.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use repair_core::model::Zone;

use super::dialect::percent;
use super::times::ZONES;
use super::values::Column;
use super::{Guess, Sure};

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;

/// Columns with more different values than this are no keys of series.
const MOST_KEYS: usize = 2_000;

/// Columns that are tried as keys.
const MOST_CANDIDATES: usize = 8;

/// Parts of names of columns that identify something, for columns of numbers.
const ID_PARTS: [&str; 18] = [
    "id", "key", "code", "meter", "sensor", "station", "device", "site", "symbol", "ticker", "pair", "store", "region", "channel", "plant",
    "unit", "name", "node",
];

/// Parts of names of columns that number the versions of a row.
const VERSION_PARTS: [&str; 6] = ["updat", "modif", "rev", "version", "ingest", "load"];

/// Lengths of slots in common use, in seconds.
const USUAL: [i64; 19] = [1, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 43_200];

pub(super) fn is_version(name: &str) -> bool {
    let name = name.to_lowercase();
    VERSION_PARTS.iter().any(|part| name.contains(part))
}

fn is_id(name: &str) -> bool {
    let name = name.to_lowercase();
    ID_PARTS.iter().any(|part| {
        name == *part
            || name.ends_with(&format!("_{part}"))
            || name.ends_with(&format!(" {part}"))
            || (part.len() > 3 && name.contains(part))
            || (*part == "id" && name.ends_with("id"))
    })
}

/// The key of a row, from several columns.
pub(super) fn joined(key: &[&Column], row: usize) -> String {
    key.iter().map(|column| column.at(row).unwrap_or_default()).collect::<Vec<_>>().join("\u{0}")
}

fn duplicates(key: &[&Column], times: &[Option<i64>]) -> usize {
    let mut seen = HashSet::with_capacity(times.len());
    times
        .iter()
        .enumerate()
        .filter_map(|(row, time)| time.map(|time| (row, time)))
        .filter(|(row, time)| !seen.insert((joined(key, *row), *time)))
        .count()
}

/// Whether a column holds whole numbers alone.
fn is_whole(column: &Column) -> bool {
    column.present().all(|value| value.parse::<i64>().is_ok())
}

/// Whether so many series have a row at half of the times, as a key of them has. Measured whole numbers that happen to differ at each time have not: most of their values are
/// at few times.
fn is_dense(key: &[&Column], times: &[Option<i64>]) -> bool {
    let with_time = || times.iter().enumerate().filter_map(|(row, time)| time.map(|time| (row, time)));
    let series = with_time().map(|(row, _)| joined(key, row)).collect::<HashSet<_>>().len();
    let instants = with_time().map(|(_, time)| time).collect::<HashSet<_>>().len();
    2 * with_time().count() >= series * instants
}

/// Further columns of a key, which hold whole numbers, and how many rows are still at the time of another one of their series.
fn with_whole_numbers<'a>(
    columns: &[&'a Column],
    times: &[Option<i64>],
    (mut left, mut chosen): (usize, Vec<&'a Column>),
) -> (usize, Vec<&'a Column>) {
    let rows = times.iter().flatten().count();
    // Whole numbers may be measured, too, so their name or their pattern must say that they identify something.
    while chosen.len() < 3 && left * 50 > rows {
        let is_candidate = |column: &&&Column| {
            let distinct = column.distinct();
            is_whole(column)
                && column.present().count() == column.values.len()
                && !is_version(&column.name)
                && (2..=MOST_KEYS).contains(&distinct)
                && !chosen.iter().any(|known: &&Column| known.name == column.name)
        };
        let tried = columns.iter().filter(is_candidate).take(2 * MOST_CANDIDATES).map(|one| {
            let with: Vec<&Column> = chosen.iter().copied().chain([*one]).collect();
            (duplicates(&with, times), with)
        });
        match tried.filter(|(_, with)| is_dense(with, times)).min_by_key(|(duplicates, _)| *duplicates) {
            Some((duplicates, with)) if duplicates * 10 <= left => (left, chosen) = (duplicates, with),
            _ => break,
        }
    }
    (left, chosen)
}

/// The columns that identify a series: few texts that repeat over times, or whole numbers that do. None if times are unique without them.
pub(super) fn key<'a>(
    columns: &[&'a Column],
    times: &[Option<i64>],
    is_number: &dyn Fn(&Column) -> bool,
    guesses: &mut Vec<Guess>,
) -> Vec<&'a Column> {
    let rows = times.iter().flatten().count();
    let without = duplicates(&[], times);
    let candidates: Vec<&Column> = columns
        .iter()
        .copied()
        .filter(|column| {
            let distinct = column.distinct();
            let is_full = column.present().count() * 100 >= column.values.len() * 99;
            let is_like = !is_number(column) || is_id(&column.name);
            is_full
                && is_like
                && !is_version(&column.name)
                && !column.is_time()
                && distinct > 1
                && distinct <= MOST_KEYS
                && distinct * 2 <= rows
        })
        .take(MOST_CANDIDATES)
        .collect();
    let mut chosen: Vec<&Column> = Vec::new();
    let mut left = without;
    // Each further column must separate at least half of the rows that are left at the same time.
    while chosen.len() < 3 && left * 50 > rows {
        let tried = candidates.iter().filter(|one| !chosen.iter().any(|known| known.name == one.name)).map(|one| {
            let with: Vec<&Column> = chosen.iter().copied().chain([*one]).collect();
            (duplicates(&with, times), *one)
        });
        match tried.min_by_key(|(duplicates, _)| *duplicates) {
            Some((duplicates, one)) if duplicates * 2 <= left => {
                chosen.push(one);
                left = duplicates;
            }
            _ => break,
        }
    }
    (left, chosen) = with_whole_numbers(columns, times, (left, chosen));
    // Words such as remarks may seem to be part of the key where whole numbers are all of it.
    if left * 50 > rows && !chosen.is_empty() {
        let alone = with_whole_numbers(columns, times, (without, Vec::new()));
        (left, chosen) = if alone.0 * 50 <= rows { alone } else { (left, chosen) };
    }
    if chosen.is_empty() {
        // Another series may be in files that are yet to come.
        let names_one = |column: &&&Column| {
            !column.is_time() && column.distinct() == 1 && (!is_number(column) || is_id(&column.name) || is_whole(column))
        };
        let one_word = columns.iter().find(names_one);
        let (why, sure) = if let (0, Some(column)) = (without, one_word) {
            (
                format!("no two rows have the same time; if column `{}`, which has one value, names a series, it is the key", column.name),
                Sure::Likely,
            )
        } else if without == 0 {
            ("no two rows have the same time".to_owned(), Sure::Sure)
        } else {
            (format!("{without} of {rows} rows have a time that another row has, and no column separates them"), Sure::Likely)
        };
        guesses.push(Guess::new("key", "none", why, sure));
        return chosen;
    }
    let names: Vec<String> = chosen.iter().map(|column| column.name.clone()).collect();
    let keys = (0..times.len()).map(|row| joined(&chosen, row)).collect::<BTreeSet<_>>().len();
    let why = if left == 0 {
        format!("no two rows of one of its {keys} values have the same time")
    } else {
        format!("it has {keys} values, and few rows of one have the same time ({left} of {rows})")
    };
    guesses.push(Guess::new("key", names.join(", "), why, if left == 0 { Sure::Sure } else { Sure::Likely }));
    chosen
}

/// How often a series has a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CadenceGuess {
    /// As in a workflow, such as `15m`.
    pub(super) every: String,
    pub(super) seconds: i64,
    /// Where slots begin, if not at the round time.
    pub(super) at: Option<String>,
    pub(super) tolerance_s: i64,
    /// The share of rows off the grid that is allowed, in percent, if it is more than usual.
    pub(super) misaligned: Option<u32>,
    /// The zone of its days, if it is not that of the times.
    pub(super) zone: Option<Zone>,
}

fn local_s(us: i64, zone: &Zone) -> i64 {
    let s = us.div_euclid(SECOND_US);
    Timestamp::from_second(s).map_or(s, |time| s + i64::from(zone.time_zone().to_offset(time).seconds()))
}

fn date_of(us: i64, zone: &Zone) -> Option<Date> {
    Timestamp::from_microsecond(us).ok().map(|time| zone.local(time).date())
}

fn duration(seconds: i64) -> String {
    match seconds {
        s if s % DAY_S == 0 => format!("{}d", s / DAY_S),
        s if s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

pub(super) fn times_as(slots: i64, cadence: &CadenceGuess) -> String {
    duration(slots * cadence.seconds)
}

/// The times of each series, in order, each once.
fn by_series(times: &[Option<i64>], key_of: &dyn Fn(usize) -> String) -> HashMap<String, Vec<i64>> {
    let mut series: HashMap<String, Vec<i64>> = HashMap::new();
    for (row, time) in times.iter().enumerate() {
        if let Some(time) = time {
            series.entry(key_of(row)).or_default().push(*time);
        }
    }
    for times in series.values_mut() {
        times.sort_unstable();
        times.dedup();
    }
    series
}

/// The most frequent of some values, and the share of those that are it.
fn mode(values: impl Iterator<Item = i64>) -> Option<(i64, f64)> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    let mut all = 0usize;
    for value in values {
        *counts.entry(value).or_default() += 1;
        all += 1;
    }
    let (value, count) = counts.into_iter().max_by_key(|(value, count)| (*count, std::cmp::Reverse(*value)))?;
    Some((value, count as f64 / all as f64))
}

fn clock_text(seconds: i64) -> String {
    format!("{:02}:{:02}", seconds / 3_600, seconds / 60 % 60)
}

/// The length that all differences are multiples of, for series in which no difference is frequent, or many rows are off the grid of the
/// `frequent` one. So many holes are rare, so rows must fill a twelfth of its slots at least.
fn finer(series: &HashMap<String, Vec<i64>>, all: &[i64], frequent: i64, guesses: &mut Vec<Guess>) -> Option<CadenceGuess> {
    let pairs = || series.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]));
    let unit = pairs().fold(0, gcd);
    let seconds = unit / SECOND_US;
    let slots: i64 = series.values().filter_map(|times| Some((times.last()? - times.first()?) / unit.max(1) + 1)).sum();
    let is_dense = slots <= 12 * i64::try_from(all.len()).unwrap_or(i64::MAX);
    if unit % SECOND_US != 0 || !USUAL.contains(&seconds) || !is_dense {
        return None;
    }
    let (at, aligned) = mode(all.iter().map(|us| us.rem_euclid(unit)))?;
    if aligned < 0.95 || at % SECOND_US != 0 {
        return None;
    }
    let at = begin(at / SECOND_US, seconds)?;
    let why = format!("all differences between the times of a series are multiples of it; the most frequent one is {}", duration(frequent));
    let every = duration(seconds);
    guesses.push(Guess::new("cadence", &every, why, Sure::Guess));
    Some(CadenceGuess { every, seconds, at, tolerance_s: 0, misaligned: None, zone: None })
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Where slots of a length begin, as in a workflow; `None` if a workflow has no word for it.
fn begin(at_s: i64, length: i64) -> Option<Option<String>> {
    match length {
        _ if at_s == 0 => Some(None),
        l if l <= 60 && at_s < 60 => None,
        l if l <= 3_600 && at_s % 60 == 0 => Some(Some(format!(":{:02}", at_s / 60))),
        _ if at_s % 60 == 0 => Some(Some(clock_text(at_s))),
        _ => None,
    }
}

/// How often a series has a row; `None` if no difference of times is frequent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds between instants, and clamped shares")]
pub(super) fn cadence(
    times: &[Option<i64>],
    zone: &Zone,
    key_of: &dyn Fn(usize) -> String,
    guesses: &mut Vec<Guess>,
) -> Option<CadenceGuess> {
    let series = by_series(times, key_of);
    let gaps = || series.values().flat_map(|times| times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / SECOND_US as f64));
    let (exact, share) = mode(gaps().map(|gap| gap.round() as i64))?;
    if exact == 0 {
        return None;
    }
    let all: Vec<i64> = times.iter().flatten().copied().collect();
    let whole =
        |every: String, seconds: i64, at: Option<String>| CadenceGuess { every, seconds, at, tolerance_s: 0, misaligned: None, zone: None };
    let sure = |share: f64| if share >= 0.9 { Sure::Sure } else { Sure::Likely };
    let between = |low: f64, high: f64| {
        gaps().filter(|gap| (low..=high).contains(&(gap / DAY_S as f64))).count() as f64 / gaps().count().max(1) as f64
    };
    // Months, quarters and years have several lengths.
    for (every, low, high, days) in [("1mo", 28.0, 31.1, 31), ("3mo", 89.0, 92.1, 92), ("1y", 365.0, 366.1, 366)] {
        let of_month = mode(all.iter().filter_map(|us| date_of(*us, zone)).map(|date| i64::from(date.day())))?;
        if between(low, high) >= 0.6 && of_month.1 >= 0.95 && of_month.0 <= 28 {
            let at = (of_month.0 != 1 && every == "1mo").then(|| of_month.0.to_string());
            guesses.push(Guess::new("cadence", every, "rows are a month, a quarter or a year apart", sure(between(low, high))));
            return Some(whole(every.to_owned(), days * DAY_S, at));
        }
    }
    if exact >= 23 * 3_600 {
        return days(&all, zone, guesses, &between);
    }
    // Times that are not exact: the round length that most differences are near.
    let near =
        |length: i64| gaps().filter(|gap| (gap - length as f64).abs() <= length as f64 * 0.2).count() as f64 / gaps().count().max(1) as f64;
    let (length, share, is_exact) =
        if share >= 0.5 || (share >= 0.25 && gaps().filter(|gap| (gap.round() as i64) % exact == 0).count() * 10 >= gaps().count() * 9) {
            (exact, share, true)
        } else {
            let best =
                USUAL.into_iter().filter(|length| *length >= 10).map(|length| (length, near(length))).max_by(|a, b| a.1.total_cmp(&b.1))?;
            if best.1 < 0.7 {
                return finer(&series, &all, exact, guesses);
            }
            (best.0, best.1, false)
        };
    if length < 1 || DAY_S % length != 0 {
        return finer(&series, &all, exact, guesses);
    }
    let unit = SECOND_US * length;
    let phase = |us: i64| us.rem_euclid(unit);
    let (at_s, aligned) = if is_exact {
        let (at, aligned) = mode(all.iter().map(|us| phase(*us)))?;
        if aligned < 0.75
            && let Some(finer) = finer(&series, &all, length, guesses)
        {
            return Some(finer);
        }
        (at.div_euclid(SECOND_US), aligned)
    } else {
        (0, 1.0)
    };
    let mut found = whole(duration(length), length, None);
    if !is_exact {
        let off: Vec<i64> = all
            .iter()
            .map(|us| {
                let phase = phase(*us);
                phase.min(unit - phase)
            })
            .collect();
        let most = off.iter().copied().max().unwrap_or(0).div_euclid(SECOND_US) + 1;
        found.tolerance_s = most.min((length - 1) / 2);
        let outside = off.iter().filter(|us| **us > found.tolerance_s * SECOND_US).count();
        if outside * 2 > all.len() {
            return None;
        }
    } else if aligned < 0.5 {
        return None;
    }
    found.at = begin(at_s, length)?;
    let off = 1.0 - aligned;
    if off > 0.04 {
        found.misaligned = Some((off * 150.0).ceil().clamp(5.0, 60.0) as u32);
    }
    let mut why =
        format!("{} of the differences between the times of a series are {}it", percent(share), if is_exact { "" } else { "near " });
    if let Some(at) = &found.at {
        why.push_str(&format!("; slots begin at {at}"));
    }
    guesses.push(Guess::new("cadence", &found.every, why, sure(share)));
    Some(found)
}

/// A cadence of days or weeks.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a clamped share")]
fn days(all: &[i64], zone: &Zone, guesses: &mut Vec<Guess>, between: &dyn Fn(f64, f64) -> f64) -> Option<CadenceGuess> {
    let of_days = between(0.95, 1.05);
    let (every, seconds, share) = if of_days >= 0.5 {
        ("1d", DAY_S, of_days)
    } else if between(6.95, 7.05) >= 0.5 {
        ("1w", 7 * DAY_S, between(6.95, 7.05))
    } else {
        return None;
    };
    // The zone in which all times are at one time of day.
    let others = ZONES.into_iter().filter_map(|name| name.parse::<Zone>().ok());
    let mut best: Option<(f64, i64, Zone)> = None;
    for zone in std::iter::once(zone.clone()).chain(others) {
        let (of_day, share) = mode(all.iter().map(|us| local_s(*us, &zone).rem_euclid(DAY_S)))?;
        if best.as_ref().is_none_or(|(known, ..)| share > *known + 0.02) {
            best = Some((share, of_day, zone));
        }
    }
    let (aligned, of_day, own) = best?;
    if aligned < 0.5 || of_day % 60 != 0 {
        return None;
    }
    let mut at = (of_day != 0).then(|| clock_text(of_day));
    if every == "1w" {
        let weekday = mode(all.iter().filter_map(|us| date_of(*us, &own)).map(|date| i64::from(date.weekday().to_monday_zero_offset())))?;
        let name = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][usize::try_from(weekday.0).unwrap_or(0).min(6)];
        if weekday.0 != 0 || at.is_some() {
            at = Some(at.map_or_else(|| name.to_owned(), |at| format!("{name} {at}")));
        }
    }
    let mut why = format!("{} of the differences between the times of a series are it", percent(share));
    if let Some(at) = &at {
        why.push_str(&format!("; slots begin at {at} in {own}"));
    }
    guesses.push(Guess::new("cadence", every, why, if share >= 0.9 { Sure::Sure } else { Sure::Likely }));
    let misaligned = (aligned < 0.96).then(|| ((1.0 - aligned) * 150.0).ceil().clamp(5.0, 60.0) as u32);
    let own = (own != *zone).then_some(own);
    Some(CadenceGuess { every: every.to_owned(), seconds, at, tolerance_s: 0, misaligned, zone: own })
}

/// When rows are expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CalendarGuess {
    Always,
    /// A calendar that is built in.
    Named(&'static str),
    /// From Monday to Friday.
    Weekdays,
}

/// A calendar that all rows fit.
pub(super) fn calendar(times: &[Option<i64>], cadence: &CadenceGuess, zone: &Zone, guesses: &mut Vec<Guess>) -> CalendarGuess {
    let all: Vec<i64> = times.iter().flatten().copied().collect();
    let zone = cadence.zone.as_ref().unwrap_or(zone);
    let dates: BTreeSet<Date> = all.iter().filter_map(|us| date_of(*us, zone)).collect();
    let (Some(first), Some(last)) = (dates.first().copied(), dates.last().copied()) else { return CalendarGuess::Always };
    let is_weekday = |date: &Date| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
    let seen: BTreeSet<i8> = dates.iter().map(|date| date.weekday().to_monday_zero_offset()).collect();
    let is_short = (last - first).get_days() < 7;
    let always = if seen.len() == 7 || (is_short && dates.iter().any(|date| !is_weekday(date))) {
        (CalendarGuess::Always, "rows come at weekends, too", Sure::Likely)
    } else {
        (
            CalendarGuess::Always,
            "some days of the week have no row, but no known calendar fits; write one if none is expected then",
            Sure::Guess,
        )
    };
    let spans_weekend = first.series(jiff::ToSpan::days(1)).take_while(|date| *date <= last).take(14).any(|date| !is_weekday(&date));
    let weekdays = spans_weekend && dates.len() >= 4 && dates.iter().all(is_weekday);
    let (found, why, sure) = if cadence.seconds > 7 * DAY_S || cadence.every == "1w" {
        (CalendarGuess::Always, "every slot may have a row", Sure::Likely)
    } else if let Some((days, sure)) = of_new_york(&all, cadence, &dates, weekdays) {
        guesses.push(Guess::new("calendar", "XNYS", days, sure));
        return CalendarGuess::Named("XNYS");
    } else if weekdays {
        (CalendarGuess::Weekdays, "no row is on a Saturday or Sunday; holidays are not known, so add them under `closed`", Sure::Likely)
    } else if !spans_weekend {
        (CalendarGuess::Always, "the rows span no weekend, so nothing shows whether rows come then", Sure::Guess)
    } else {
        always
    };
    let name = if found == CalendarGuess::Weekdays { "weekdays" } else { "24x7" };
    guesses.push(Guess::new("calendar", name, why, sure));
    found
}

/// Why the rows seem to be of New York's stock exchange, if all of them are within its sessions.
#[cfg(feature = "stocks")]
fn of_new_york(all: &[i64], cadence: &CadenceGuess, dates: &BTreeSet<Date>, weekdays: bool) -> Option<(String, Sure)> {
    let calendar = repair_stocks::calendar::calendar("XNYS")?;
    let (first, last) = (*dates.first()?, *dates.last()?);
    if cadence.seconds >= DAY_S {
        let sessions: BTreeSet<Date> = calendar.days(first, last).ok()?.into_iter().collect();
        // A holiday on a weekday distinguishes an exchange from an office.
        let holidays = first
            .series(jiff::ToSpan::days(1))
            .take_while(|date| *date <= last)
            .filter(|date| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday) && !sessions.contains(date));
        let holidays = holidays.count();
        let fits = weekdays && dates.is_subset(&sessions) && holidays > 0 && cadence.at.is_none();
        return fits.then(|| (format!("all days are sessions of New York, and none is one of its {holidays} holidays"), Sure::Likely));
    }
    let sessions = calendar.sessions(first.yesterday().ok()?, last.tomorrow().ok()?).ok()?;
    let (mut inside, mut full, mut days) = (0, 0, 0);
    for session in sessions {
        let (open, close) = (session.hours.from().as_microsecond(), session.hours.to().as_microsecond());
        // An hourly bar may begin before the opening that it holds.
        let of_session: Vec<i64> =
            all.iter().copied().filter(|us| *us + (cadence.seconds - 1) * SECOND_US >= open && *us < close).collect();
        let (Some(least), Some(greatest)) = (of_session.iter().min(), of_session.iter().max()) else { continue };
        inside += of_session.len();
        days += 1;
        let near = 2 * cadence.seconds.max(900) * SECOND_US;
        full += usize::from(*least <= open + near && *greatest >= close - near);
    }
    let fits = days > 0 && inside == all.len() && full * 2 > days;
    fits.then(|| {
        (
            "all rows are within the hours of its sessions, and reach from the opening to the close".to_owned(),
            if days > 1 { Sure::Likely } else { Sure::Guess },
        )
    })
}

#[cfg(not(feature = "stocks"))]
fn of_new_york(_: &[i64], _: &CadenceGuess, _: &BTreeSet<Date>, _: bool) -> Option<(String, Sure)> {
    None
}

/// The first and the last day that was seen.
pub(super) fn days_seen(times: &[Option<i64>], zone: &Zone) -> Option<(Date, Date)> {
    let first = times.iter().flatten().min()?;
    let last = times.iter().flatten().max()?;
    Some((date_of(*first, zone)?, date_of(*last, zone)?))
}

/// What was seen of slots with several rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubled {
    pub(super) rows: usize,
    /// Whether all rows of each such slot are the same.
    pub(super) are_same: bool,
}

/// Rows that have the time of another one of their series.
pub(super) fn doubled(columns: &[Column], times: &[Option<i64>], key_of: &dyn Fn(usize) -> String) -> Option<Doubled> {
    let mut first: HashMap<(String, i64), usize> = HashMap::new();
    let mut found = Doubled { rows: 0, are_same: true };
    for (row, time) in times.iter().enumerate() {
        let Some(time) = time else { continue };
        match first.entry((key_of(row), *time)) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(row);
            }
            std::collections::hash_map::Entry::Occupied(entry) => {
                found.rows += 1;
                found.are_same &= columns.iter().all(|column| column.at(row) == column.at(*entry.get()));
            }
        }
    }
    (found.rows > 0).then_some(found)
}

/// The column that identifies a row, where there is no cadence: nearly each value occurs once.
pub(super) fn identity<'a>(columns: &[&'a Column]) -> Option<&'a Column> {
    let is_unique = |column: &&&Column| {
        let rows = column.values.len();
        column.present().count() == rows && column.distinct() * 10 >= rows * 7 && rows > 1
    };
    let unique: Vec<&&Column> = columns.iter().filter(is_unique).collect();
    unique.iter().find(|column| is_id(&column.name) && !is_version(&column.name)).map(|column| **column)
}
