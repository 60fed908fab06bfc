//! The promises of the trading calendars.

#![expect(clippy::unwrap_used, reason = "clippy's exception for tests does not reach their helper functions")]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use exchange_hours::{Exchange, SessionKind, calendar_for_exchange};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use repair_core::ErrorKind;
use repair_core::model::{Calendar, Interval, Session};
use repair_stocks::calendar::{calendar, calendars};

fn market(name: &str) -> Arc<dyn Calendar> {
    calendar(name).unwrap()
}

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

/// The session of one date.
fn session(market_name: &str, on: &str) -> Option<Session> {
    market(market_name).sessions(date(on), date(on)).unwrap().pop()
}

fn open_minutes(session: &Session) -> i64 {
    session.open().iter().map(minutes).sum()
}

fn minutes(interval: &Interval) -> i64 {
    (interval.to().as_second() - interval.from().as_second()) / 60
}

#[test]
fn markets_go_by_their_identifier_code() {
    let names: Vec<_> = calendars().iter().map(|calendar| calendar.name().to_owned()).collect();
    assert_eq!(names, ["XNYS", "XTKS"]);
    assert_eq!(market("XNYS").coverage(), Some((date("1990-01-01"), date("2026-12-31"))));
    assert_eq!(market("XTKS").coverage(), Some((date("2011-11-21"), date("2026-12-31"))));
    assert!(calendar("NYSE").is_none() && calendar("xnys").is_none() && calendar("24x7").is_none());
}

#[test]
fn new_york_is_open_390_minutes_and_210_on_half_days() {
    assert_eq!(open_minutes(&session("XNYS", "2018-04-04").unwrap()), 390);
    for half_day in ["2013-11-29", "2015-12-24", "1999-12-31", "2013-07-03", "2026-11-27"] {
        assert_eq!(open_minutes(&session("XNYS", half_day).unwrap()), 210, "{half_day}");
    }
    // Half days lasted until 14:00 then.
    assert_eq!(open_minutes(&session("XNYS", "1992-12-24").unwrap()), 270);
}

#[test]
fn an_opening_keeps_its_local_time_across_daylight_saving() {
    let opens = |on: &str| session("XNYS", on).unwrap().hours.from().to_string();
    assert_eq!(opens("2024-03-08"), "2024-03-08T14:30:00Z");
    assert_eq!(opens("2024-03-11"), "2024-03-11T13:30:00Z");
    assert_eq!(opens("2024-11-01"), "2024-11-01T13:30:00Z");
    assert_eq!(opens("2024-11-04"), "2024-11-04T14:30:00Z");
    // Before 2007 it began in April and ended in October.
    assert_eq!(opens("2006-03-31"), "2006-03-31T14:30:00Z");
    assert_eq!(opens("2006-04-03"), "2006-04-03T13:30:00Z");
}

#[test]
fn days_nobody_could_have_planned_are_closed() {
    let attacks = ["2001-09-11", "2001-09-12", "2001-09-13", "2001-09-14"];
    let hurricane = ["2012-10-29", "2012-10-30"];
    let mourning = ["1994-04-27", "2004-06-11", "2007-01-02", "2018-12-05", "2025-01-09"];
    for closed in attacks.into_iter().chain(hurricane).chain(mourning) {
        assert_eq!(session("XNYS", closed), None, "{closed}");
    }
    for open in ["2001-09-10", "2001-09-17", "2012-10-26", "2012-10-31", "2007-01-03", "2018-12-04", "2025-01-08"] {
        assert!(session("XNYS", open).is_some(), "{open}");
    }
    assert_eq!(session("XTKS", "2020-10-01"), None, "the trading system had failed");
}

#[test]
fn new_holidays_begin_with_their_year() {
    assert!(session("XNYS", "1997-01-20").is_some() && session("XNYS", "1998-01-19").is_none(), "Martin Luther King Jr. Day");
    assert!(session("XNYS", "2021-06-18").is_some() && session("XNYS", "2022-06-20").is_none(), "Juneteenth");
}

#[test]
fn a_lunch_break_makes_two_stretches() {
    let day = |text: &str| Interval::parse(text, text).unwrap();
    let stretches = |on: &str| -> Vec<String> { market("XTKS").open(&day(on)).unwrap().iter().map(ToString::to_string).collect() };
    let morning = "2024-11-01T00:00:00Z to 2024-11-01T02:30:00Z";
    assert_eq!(stretches("2024-11-01"), [morning, "2024-11-01T03:30:00Z to 2024-11-01T06:00:00Z"]);
    // The close moved from 15:00 to 15:30.
    let morning = "2024-11-05T00:00:00Z to 2024-11-05T02:30:00Z";
    assert_eq!(stretches("2024-11-05"), [morning, "2024-11-05T03:30:00Z to 2024-11-05T06:30:00Z"]);
    assert_eq!(open_minutes(&session("XTKS", "2024-11-05").unwrap()), 330);
}

#[test]
fn what_is_open_is_clipped_to_what_was_asked() {
    let asked = Interval::parse("2018-04-04T15:00:00Z", "2018-04-05T13:31:00Z").unwrap();
    let open: Vec<_> = market("XNYS").open(&asked).unwrap().iter().map(minutes).collect();
    assert_eq!(open, [300, 1]);
    let weekend = Interval::parse("2018-04-07", "2018-04-08").unwrap();
    assert_eq!(market("XNYS").open(&weekend).unwrap(), []);
}

#[test]
fn the_first_and_last_covered_day_can_be_asked_for() {
    let whole = Interval::parse("1990-01-01", "2026-12-31").unwrap();
    assert_eq!(market("XNYS").open(&whole).unwrap().len(), 9_318);
}

#[test]
fn no_sessions_lie_between_dates_in_the_wrong_order() {
    assert_eq!(market("XNYS").sessions(date("2018-04-05"), date("2018-04-04")).unwrap(), []);
}

#[test]
fn dates_past_the_table_are_refused_as_blind() {
    let past = market("XNYS").sessions(date("2026-12-28"), date("2027-01-04")).unwrap_err();
    assert_eq!(past.kind(), ErrorKind::Blind);
    assert_eq!(
        past.message(),
        "calendar XNYS covers 1990-01-01 to 2026-12-31, and does not know what is expected from 2026-12-28 to 2027-01-04; \
         choose dates that it covers, or extend its table"
    );
    let before = market("XNYS").open(&Interval::parse("1989-12-31T23:59:00Z", "1990-01-03").unwrap()).unwrap_err();
    assert_eq!(before.kind(), ErrorKind::Blind);
}

/// The digest is computed from exchange_calendars' own UTC schedule, not from our tables: see `tables/generate.py`.
#[test]
fn every_session_is_the_one_exchange_calendars_lists() {
    let pinned: Vec<&str> = include_str!("../src/calendar/tables/digest.csv").lines().skip(1).collect();
    let ours: Vec<String> = calendars().iter().flat_map(digest).collect();
    assert_eq!(ours, pinned);
}

/// One line per year: `market,year,sessions,minutes,crc32`.
fn digest(calendar: &Arc<dyn Calendar>) -> Vec<String> {
    let (first, last) = calendar.coverage().unwrap();
    let mut years: BTreeMap<i16, (usize, i64, String)> = BTreeMap::new();
    for session in calendar.sessions(first, last).unwrap() {
        let (sessions, minutes, lines) = years.entry(session.date.year()).or_default();
        *sessions += 1;
        *minutes += open_minutes(&session);
        lines.push_str(&format!("{},{},{}", session.date, session.hours.from(), session.hours.to()));
        for pause in &session.breaks {
            lines.push_str(&format!(",{},{}", pause.from(), pause.to()));
        }
        lines.push('\n');
    }
    let line = |(year, (sessions, minutes, lines)): (i16, (usize, i64, String))| {
        format!("{},{year},{sessions},{minutes},{:08x}", calendar.name(), crc32(lines.as_bytes()))
    };
    years.into_iter().map(line).collect()
}

/// The CRC-32 of zlib: reflected, polynomial 0xEDB88320.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))))
}

/// The open stretches between two dates in the crate exchange-hours, whose data comes from the exchanges' own pages.
fn oracle(exchange: Exchange, from: Date, to: Date) -> Vec<Interval> {
    let calendar = calendar_for_exchange(exchange);
    let mut stretches = Vec::new();
    // Its dates are chrono's, which we don't depend on, so we walk on from one that it gives us, to the day before or, since it knows
    // none before 2010, New Year's Day.
    let mut day = calendar.holiday_coverage().unwrap().first();
    while day.succ_opt().unwrap().to_string() < from.to_string() {
        day = day.succ_opt().unwrap();
    }
    let mut instant = day.and_hms_opt(12, 0, 0).unwrap().and_utc();
    while let Some((open, close)) = calendar.next_session_after_with(instant, SessionKind::Regular).unwrap() {
        if open.date_naive().to_string() > to.to_string() {
            break;
        }
        let utc = |second| Timestamp::from_second(second).unwrap();
        stretches.push(Interval::new(utc(open.timestamp()), utc(close.timestamp())).unwrap());
        instant = open;
    }
    stretches
}

#[test]
fn new_york_agrees_with_a_second_source_since_2010() {
    let (from, to) = (date("2010-01-01"), date("2026-12-31"));
    let ours = market("XNYS").open(&Interval::parse("2010-01-01", "2026-12-31").unwrap()).unwrap();
    // The oracle holds what NYSE's yearly pages print, and lacks this closure: NYSE announced it on 2018-12-01 ("will be closed on
    // Wednesday, December 5, 2018 in observance of the National Day of Mourning"), https://www.tmcnet.com/usubmit/2018/12/01/8860763.htm
    let mourning = ["+ 2018-12-05T14:30:00Z to 2018-12-05T21:00:00Z"];
    assert_eq!(differences(&ours, &oracle(Exchange::Nyse, from, to)), mourning);
}

#[test]
fn tokyo_agrees_with_a_second_source() {
    let (from, to) = market("XTKS").coverage().unwrap();
    let mut ours = market("XTKS").open(&Interval::parse(&from.to_string(), &to.to_string()).unwrap()).unwrap();
    // Since 2024-11-05 the last five minutes are a closing auction, which the oracle leaves out and we, with JPX, count as session.
    for stretch in ours.iter_mut().filter(|stretch| minutes(stretch) == 180) {
        *stretch = Interval::new(stretch.from(), stretch.to() - 5.minutes()).unwrap();
    }
    // JPX stopped all trading on 2020-10-01, https://www.jpx.co.jp/english/corporate/news/news-releases/0060/20201019-01.html; the
    // oracle holds only the holidays that were announced.
    let failure = ["+ 2020-10-01T00:00:00Z to 2020-10-01T02:30:00Z", "+ 2020-10-01T03:30:00Z to 2020-10-01T06:00:00Z"];
    assert_eq!(differences(&ours, &oracle(Exchange::Tse, from, to)), failure);
}

/// The stretches that are open only in our calendar (`-`) or only in the other one (`+`), in order of time.
fn differences(ours: &[Interval], theirs: &[Interval]) -> Vec<String> {
    let only = |sign: &'static str, these: &[Interval], those: &[Interval]| -> Vec<(Interval, String)> {
        let those: HashSet<_> = those.iter().collect();
        these.iter().filter(|one| !those.contains(one)).map(|one| (*one, format!("{sign} {one}"))).collect()
    };
    let mut all = only("-", ours, theirs);
    all.extend(only("+", theirs, ours));
    all.sort();
    all.into_iter().map(|(_, line)| line).collect()
}
