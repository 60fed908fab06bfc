//! Calendars that a workflow defines: what they mean, how mistakes in them are reported, and that a run keeps the files they name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use jiff::civil::{Date, Weekday};
use repair_core::ErrorKind;
use repair_core::engine::{Engine, Outcome, RunReport, StartRequest};
use repair_core::model::{Cadence, Calendar, Format, Hours, Interval, Table, Week, WeeklyCalendar};
use repair_core::plugin::Registry;
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::{CalendarRule, Document, Step, Workflow};

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

/// A registry with a market that has published its days for 2024: Monday to Friday with a break, closed on the first day.
fn registry() -> Registry {
    let week = Week::from_monday_to_friday(&"09:30-12:00 13:00-16:00".parse().unwrap());
    let market = WeeklyCalendar::new("MARKET", "Asia/Hong_Kong".parse().unwrap(), week).with_day(date("2024-01-01"), Hours::CLOSED);
    let mut registry = Registry::default();
    registry.add_calendar(Arc::new(market.covering(date("2024-01-01"), date("2024-12-31"), date("2024-01-01"))));
    registry
}

fn parse(calendars: &str, files: &[(&str, &str)]) -> Result<Workflow, String> {
    let text = format!("workflow: w\nkind: dag\ncalendars:\n{calendars}steps:\n  rest: {{ wait: {{ for: 1s }} }}\n");
    let files: BTreeMap<String, String> = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Workflow::parse_with("w.yaml", &text, &registry(), &files).map_err(|mistakes| mistakes.to_string())
}

/// The only calendar that is defined.
fn only(calendars: &str) -> Arc<dyn Calendar> {
    let workflow = parse(calendars, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    workflow.calendars.into_values().next().unwrap()
}

fn open(calendar: &Arc<dyn Calendar>, from: &str, to: &str) -> Vec<String> {
    calendar.open(&Interval::parse(from, to).unwrap()).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn a_week_has_stretches_breaks_and_nights_by_a_local_clock() {
    let fx = only("  fx: { zone: America/New_York, open: { sun: \"17:00-24:00\", mon-thu: \"00:00-24:00\", fri: \"00:00-17:00\" } }\n");
    // From Sunday evening, in winter time, to Friday afternoon, in summer time two weeks later.
    let week = fx.open(&Interval::parse("2024-03-02T00:00:00Z", "2024-03-09T12:00:00Z").unwrap()).unwrap();
    assert_eq!(week.first().unwrap().from().to_string(), "2024-03-03T22:00:00Z");
    assert_eq!(week.last().unwrap().to().to_string(), "2024-03-08T22:00:00Z");
    assert!(week.windows(2).all(|pair| pair[0].to() == pair[1].from()), "without a break");
    assert_eq!(
        open(&fx, "2024-03-15", "2024-03-16"),
        ["2024-03-15T00:00:00Z to 2024-03-15T04:00:00Z", "2024-03-15T04:00:00Z to 2024-03-15T21:00:00Z"]
    );
    assert_eq!(fx.coverage(), None, "it covers all dates");

    let night = only("  night: { zone: Europe/Berlin, open: { fri-sat: \"22:00-05:00\", mon: [\"09:30-12:00\", \"13:00-16:00\"] } }\n");
    // The clock is set forward in the night from Saturday to Sunday.
    assert_eq!(open(&night, "2024-03-31", "2024-03-31"), ["2024-03-31T00:00:00Z to 2024-03-31T03:00:00Z"]);
    assert_eq!(open(&night, "2024-04-08", "2024-04-08").len(), 2);
    // A night belongs to the date on which it begins.
    assert_eq!(night.days(date("2024-03-29"), date("2024-03-31")).unwrap(), [date("2024-03-29"), date("2024-03-30")]);
}

#[test]
fn days_that_differ_replace_those_of_the_week() {
    let office = only(
        "  office:\n    zone: UTC\n    open: { mon-fri: \"09:00-17:00\" }\n    closed: [2024-12-25, 2024-12-26]\n    special: { 2024-12-24: \
         \"09:00-12:00\", 2024-12-28: [\"10:00-11:00\", \"12:00-13:00\"] }\n",
    );
    let expected = [
        "2024-12-23T09:00:00Z to 2024-12-23T17:00:00Z",
        "2024-12-24T09:00:00Z to 2024-12-24T12:00:00Z",
        "2024-12-27T09:00:00Z to 2024-12-27T17:00:00Z",
        "2024-12-28T10:00:00Z to 2024-12-28T11:00:00Z",
        "2024-12-28T12:00:00Z to 2024-12-28T13:00:00Z",
    ];
    assert_eq!(open(&office, "2024-12-23", "2024-12-29"), expected);
}

#[test]
fn a_calendar_extends_another_and_goes_on_where_that_one_ends() {
    let hk = only("  hk: { extends: MARKET, closed: [2024-09-06], special: { 2024-12-24: \"09:30-12:00\" } }\n");
    assert_eq!(open(&hk, "2024-09-05", "2024-09-06").len(), 2);
    assert_eq!(open(&hk, "2024-12-24", "2024-12-24"), ["2024-12-24T01:30:00Z to 2024-12-24T04:00:00Z"]);
    // It knows no more dates than the other, and says what to do.
    let blind = hk.open(&Interval::parse("2024-12-30", "2025-01-02").unwrap()).unwrap_err();
    assert_eq!(blind.kind(), ErrorKind::Blind);
    assert!(blind.message().contains("define a calendar with `extends: hk` and your own days `until` a later date"), "{}", blind.message());

    let on = only("  hk: { extends: MARKET, until: 2025-01-31, closed: [2025-01-01, 2025-01-29, 2025-01-30, 2025-01-31] }\n");
    assert_eq!(on.coverage(), Some((date("2024-01-01"), date("2025-01-31"))));
    let days = on.days(date("2024-12-31"), date("2025-01-31")).unwrap();
    assert_eq!((days.len(), days[0], days[1]), (20, date("2024-12-31"), date("2025-01-02")));
    assert_eq!(open(&on, "2025-01-02", "2025-01-02").len(), 2, "with the break of ordinary days");
    assert!(on.sessions(date("2025-01-31"), date("2025-02-03")).is_err());

    // One may extend another that the workflow defines, in any order.
    let workflow = parse("  a: { extends: b, closed: [2024-03-04] }\n  b: { extends: MARKET, closed: [2024-03-05] }\n", &[]).unwrap();
    assert_eq!(open(&workflow.calendars["a"], "2024-03-04", "2024-03-06").len(), 2);
}

#[test]
fn days_and_sessions_come_from_files_which_a_run_keeps() {
    let calendars = "  \
        office: { zone: UTC, open: { mon-fri: \"09:00-17:00\" }, closed: { file: ../days/closed.csv }, special: { file: half.csv } }\n  \
        listed: { zone: America/Chicago, sessions: { file: sessions.csv } }\n";
    let texts = [
        ("days/closed.csv", "\u{feff}date,name\r\n2024-12-25,Christmas\r\n\r\n2024-12-26,\"Boxing, Day\"\r\n"),
        ("flows/half.csv", "date,open\n2024-12-24,09:00-12:00\n"),
        ("flows/sessions.csv", "date,open,note\n2024-03-11,<17:00-16:00,\n2024-03-08,<17:00-15:15 15:30-16:00,\n"),
    ];
    let text = format!("workflow: w\nkind: dag\ncalendars:\n{calendars}steps:\n  rest: {{ wait: {{ for: 1s }} }}\n");
    let files: BTreeMap<String, String> = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let workflow = Workflow::parse_with("flows/w.yaml", &text, &registry(), &files).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(workflow.children, files, "a run keeps what it began with");
    let office = &workflow.calendars["office"];
    assert_eq!(office.days(date("2024-12-23"), date("2024-12-27")).unwrap().len(), 3);
    assert_eq!(open(office, "2024-12-24", "2024-12-26"), ["2024-12-24T09:00:00Z to 2024-12-24T12:00:00Z"]);

    let listed = &workflow.calendars["listed"];
    assert_eq!(listed.coverage(), Some((date("2024-03-08"), date("2024-03-11"))));
    let monday = listed.sessions(date("2024-03-11"), date("2024-03-11")).unwrap();
    assert_eq!(monday[0].hours.to_string(), "2024-03-10T22:00:00Z to 2024-03-11T21:00:00Z");
    // What may be open on the evening after the last session is not known.
    assert!(listed.open(&Interval::parse("2024-03-11", "2024-03-11").unwrap()).is_err());
    assert_eq!(open(listed, "2024-03-09T00:00:00Z", "2024-03-11T21:00:00Z").len(), 1);

    // In an included file, names are relative to that file.
    let shared = "calendars:\n  office: { zone: UTC, open: { mon-fri: \"09:00-17:00\" }, closed: { file: closed.csv } }\n";
    let files: BTreeMap<String, String> = [("days/lake.yaml", shared), ("days/closed.csv", texts[0].1)]
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    let text = "workflow: w\nkind: dag\ninclude: [days/lake.yaml]\nsteps:\n  rest: { wait: { for: 1s } }\n";
    let workflow = Workflow::parse_with("w.yaml", text, &registry(), &files).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!((workflow.children.len(), workflow.calendars.len()), (2, 1));
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("lake.yaml", shared), ("closed.csv", texts[0].1)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let Ok(Document::Shared(shared)) = Document::load(&folder.path().join("lake.yaml"), &registry(), None) else { panic!("not shared") };
    assert!(shared.calendars.contains_key("office"));
}

#[test]
fn all_mistakes_in_calendars_are_reported_at_once() {
    let calendars = "  \
        nothing: {}\n  \
        both: { zone: UTC, open: { mon: \"09:00-17:00\" }, extends: MARKET }\n  \
        no-zone: { open: { mon: \"09:00-17:00\" } }\n  \
        words: { zone: UTC, open: { monday: \"09:00-17:00\", tue-wed: \"9-17\", thu: [] } }\n  \
        twice: { zone: UTC, open: { mon-fri: \"09:00-17:00\", wed: closed } }\n  \
        over: { zone: UTC, open: { mon: \"22:00-05:00\", tue: \"04:00-06:00\" } }\n  \
        never: { zone: UTC, open: { mon: closed } }\n  \
        days: { zone: UTC, open: { mon: \"09:00-17:00\" }, closed: [2024-12-25, 2024-13-01], special: { 2024-12-25: \"09:00-10:00\" } }\n  \
        until: { zone: UTC, open: { mon: \"09:00-17:00\" }, until: 2024-12-31 }\n  \
        MARKET: { zone: UTC, open: { mon: \"09:00-17:00\" } }\n  \
        unknown: { extends: MARKT }\n  \
        circle: { extends: round }\n  \
        round: { extends: circle }\n  \
        beyond: { extends: MARKET, closed: [2025-01-01] }\n  \
        gone: { zone: UTC, sessions: { file: gone.csv } }\n  \
        bad: { zone: UTC, sessions: { file: bad.csv } }\n  \
        head: { zone: UTC, open: { mon: \"09:00-17:00\" }, closed: { file: head.csv } }\n";
    let files = [("bad.csv", "date,open\n2024-03-04,09:00-10:00\n2024-03-05,9-10\n"), ("head.csv", "2024-03-04\n")];
    insta::assert_snapshot!(parse(calendars, &files).unwrap_err());
}

const RUN: &str = "
workflow: nightly
kind: state-machine
tables:
  readings: { location: readings, format: csv, time: ts, cadence: 1h }
calendars:
  office: { zone: Europe/Berlin, open: { mon-fri: [\"09:00-12:00\", \"13:00-17:00\"] }, closed: [2024-03-05] }
start: look
steps:
  look: { detect: gaps, with: { table: readings, calendar: office, from: 2024-03-04, to: 2024-03-10 }, end: true }
";

/// An engine over a table with one row.
fn engine(workflow: &Workflow, registry: Registry) -> Engine {
    let lake = MemoryLake::default();
    let times = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
    let rows = RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef)]).unwrap();
    lake.put_table(&workflow.tables["readings"], &[rows]).unwrap();
    let mut engine = Engine::new(Arc::new(registry), Arc::new(lake), Arc::new(MemoryJournal::default()));
    engine.clock = Arc::new(VirtualClock::starting_at("2024-03-11T06:00:00Z".parse().unwrap()));
    engine
}

async fn run(workflow: Workflow, registry: Registry) -> RunReport {
    let report = engine(&workflow, registry).start(&workflow, StartRequest::new("one")).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{report:?}");
    report
}

fn expected(report: &RunReport) -> u64 {
    report.step("look").unwrap().output["expected"].as_u64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn detectors_find_the_calendars_of_the_workflow() {
    let workflow = Workflow::parse("w.yaml", RUN, &registry()).unwrap();
    assert_eq!(expected(&run(workflow, registry()).await), 4 * 7);

    // A misspelt name is found when the workflow is read, with the names of both kinds.
    let mistake = Workflow::parse("w.yaml", &RUN.replace("calendar: office", "calendar: ofice"), &registry()).unwrap_err().to_string();
    assert!(mistake.contains("there is no calendar `ofice`") && mistake.contains("did you mean `office`?"), "{mistake}");
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_with_the_calendars_that_it_has_used() {
    let written =
        RUN.replace("to: 2024-03-10 }, end: true", "to: 2024-03-10 }, next: stop").replace("steps:\n", "steps:\n  stop: { fail: early }\n");
    // The step may name its calendar by an expression, and the calendar may extend another.
    let computed = written.replace("calendar: office", "calendar: \"{% 'off' & 'ice' %}\"");
    let extending = written
        .replace("calendar: office", "calendar: branch")
        .replace("start: look", "  branch: { extends: office, closed: [2024-03-06] }\nstart: look");
    for text in [&written, &computed, &extending] {
        let parse = |text: &str| Workflow::parse("w.yaml", text, &registry()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let workflow = parse(text);
        let engine = engine(&workflow, registry());
        let report = engine.start(&workflow, StartRequest::new("one")).await.unwrap();
        assert_eq!(report.outcome, Some(Outcome::Failed), "{report:?}");
        let changed = parse(&text.replace("closed: [2024-03-05]", "closed: [2024-03-07]"));
        let refused = engine.redrive("one", Some(&changed)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.message().contains("has changed, and the run has used it"), "{refused}");
        // Nothing depends on another calendar, or on how one is written.
        let other = text
            .replace("closed: [2024-03-05]", "closed: [\"2024-03-05\"]")
            .replace("calendars:\n", "calendars:\n  more: { extends: MARKET }\n");
        let report = engine.redrive("one", Some(&parse(&other))).await.unwrap();
        assert_eq!(report.outcome, Some(Outcome::Failed), "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_what_a_calendar_covers_is_reported_ninety_days_before() {
    let notices = async |from: &str, to: &str| {
        let text = RUN.replace("calendar: office", "calendar: MARKET").replace("2024-03-04, to: 2024-03-10", &format!("{from}, to: {to}"));
        let report = run(Workflow::parse("w.yaml", &text, &registry()).unwrap(), registry()).await;
        report.problems.into_iter().filter(|problem| problem.contains("covers")).collect::<Vec<_>>()
    };
    assert_eq!(notices("2024-09-01", "2024-10-01").await, [""; 0]);
    let notices = notices("2024-09-01", "2024-10-02").await;
    assert_eq!(notices.len(), 1);
    assert!(notices[0].contains("calendar MARKET covers dates to 2024-12-31 only"), "{}", notices[0]);
}

#[tokio::test(start_paused = true)]
async fn a_workflow_in_rust_has_rules_and_calendars_of_its_own() {
    let week = Week::default()
        .with(Weekday::Monday, "22:00-05:00".parse().unwrap())
        .with(Weekday::Friday, "09:00-12:00 13:00-24:00".parse().unwrap());
    let rule = CalendarRule::weekly("Europe/Berlin".parse().unwrap(), week.clone())
        .with_day(date("2024-03-08"), Hours::CLOSED)
        .with_day(date("2024-03-09"), "<17:00-16:00".parse().unwrap());
    let own = WeeklyCalendar::new("own", "UTC".parse().unwrap(), Week::from_monday_to_friday(&"10:00-12:00".parse().unwrap()));
    let look = |calendar: &str| serde_json::json!({ "table": "readings", "calendar": calendar, "from": "2024-03-04", "to": "2024-03-10" });
    let builder = |calendar: &str| {
        Workflow::state_machine("w")
            .table(Table::new("readings", Format::Csv, "ts").with_cadence(Cadence::HOUR))
            .calendar("rule", rule.clone())
            .calendar("more", CalendarRule::extending("MARKET", Some(date("2025-01-31"))).with_day(date("2025-01-01"), Hours::CLOSED))
            .own_calendar(Arc::new(own.clone()))
            .step("look", Step::detect("gaps").with(look(calendar)).end())
    };
    let built = builder("own").build(registry()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let more = &built.workflow.calendars["more"];
    assert_eq!(more.coverage(), Some((date("2024-01-01"), date("2025-01-31"))));
    assert_eq!(more.days(date("2024-12-31"), date("2025-01-03")).unwrap().len(), 3);
    let (said, printed) = (rule.calendar("rule", None).unwrap(), &built.workflow.calendars["rule"]);
    let sessions = |calendar: &Arc<dyn Calendar>| calendar.sessions(date("2024-03-01"), date("2024-04-30")).unwrap();
    assert_eq!(sessions(printed), sessions(&said));
    assert_eq!(expected(&run(built.workflow, built.registry).await), 5 * 2);
    // A name that is taken is refused.
    let taken = WeeklyCalendar::new("MARKET", "UTC".parse().unwrap(), week);
    let refused = builder("own").own_calendar(Arc::new(taken)).build(registry()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("there is a calendar `MARKET` already"), "{refused}");
}
