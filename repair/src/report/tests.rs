//! The pictures and the page of small models, and of one that is as large as they get.

use jiff::{Timestamp, ToSpan};

use super::csv::Csv;
use super::model::*;
use super::picture::heat::{self, When};
use super::picture::{STYLE, Size, calendar, candles, graph, points, series, timeline};
use crate::status::{DayStatus, KeyStatus, Look, States, TableStatus};
use repair_core::engine::{JsonFormat, Outcome};
use repair_core::model::{DefectKind, Interval, Key, Zone};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A cell: expected, own, repaired, absent.
fn cell([expected, own, repaired, absent]: [u32; 4]) -> Cell {
    Cell { expected, own, repaired, absent }
}

fn table(starts: Vec<Timestamp>, bucket: Bucket, keys: Vec<(&str, Vec<Cell>)>) -> TableReport {
    let mut total = CellSum::default();
    keys.iter().flat_map(|(_, cells)| cells).for_each(|cell| total.add(*cell));
    TableReport {
        table: "bars".to_owned(),
        step: "find".to_owned(),
        interval: Interval::new(starts[0], starts[starts.len() - 1].checked_add(24.hours()).unwrap()).unwrap(),
        calendar: "XNYS".to_owned(),
        zone: "UTC".to_owned(),
        cadence: "1m".to_owned(),
        bucket,
        starts,
        all_keys: keys.len(),
        keys: keys.into_iter().map(|(key, cells)| KeyCells { key: Key::from(key), cells }).collect(),
        total,
        series: None,
    }
}

fn small() -> TableReport {
    let starts = ["2026-03-05T14:00:00Z", "2026-03-05T15:00:00Z", "2026-03-06T14:00:00Z"].map(at).to_vec();
    let ibm = [[30, 27, 2, 1], [60, 60, 0, 0], [60, 0, 0, 0]].map(cell).to_vec();
    let spy = [[30, 30, 0, 0], [60, 57, 3, 0], [0, 0, 0, 0]].map(cell).to_vec();
    table(starts, Bucket::Hour, vec![("IBM", ibm), ("SPY", spy)])
}

fn report(tables: Vec<TableReport>) -> Report {
    let none = || Listing { total: 0, rows: Vec::new(), csv: Csv::Nothing };
    Report {
        format: JsonFormat,
        subject: Subject::Run {
            run: "monday".to_owned(),
            workflow: "ticker".to_owned(),
            started_at: at("2026-03-06T22:00:00Z"),
            ended_at: Some(at("2026-03-06T22:01:40Z")),
            outcome: Some(Outcome::Succeeded),
        },
        made_at: at("2026-03-07T00:00:00Z"),
        sentence: "Nothing is left.".to_owned(),
        numbers: Numbers { expected: 240, found: 66, repaired: 5, absent: 1, left: 60 },
        tables,
        held: Vec::new(),
        status: None,
        candles: Vec::new(),
        graph: None,
        timeline: None,
        defects: none(),
        fixes: Listing { total: 0, rows: Vec::new(), csv: Csv::Nothing },
        exceptions: Listing { total: 0, rows: Vec::new(), csv: Csv::Nothing },
        costs: None,
        lake_costs: None,
        left: Vec::new(),
        notes: Vec::new(),
    }
}

/// One element to a line.
fn lines(picture: &super::picture::Picture) -> String {
    picture.element().into_text().replace("><", ">\n<")
}

#[test]
fn a_map_has_a_stroke_for_cells_of_one_colour_side_by_side() {
    insta::assert_snapshot!("map_before", lines(&heat::map(&small(), When::Before)));
    insta::assert_snapshot!("map_after", lines(&heat::map(&small(), When::After)));
}

#[test]
fn data_points_stand_below_the_line_of_what_is_expected() {
    insta::assert_snapshot!("points", lines(&points::chart(&small(), Size::Wide)));
}

/// The status of a table: for each key, the states of its days from 2026-03-02 on.
fn status(keys: Vec<(&str, Vec<Option<States>>)>) -> TableStatus {
    let first = jiff::civil::date(2026, 3, 2);
    let (mut total, mut never_looked, mut last) = (States::default(), 0, first);
    let of_key = |(key, days): (&str, Vec<Option<States>>)| {
        let mut of = KeyStatus { key: Key::from(key), total: States::default(), never_looked: 0, days: Vec::new() };
        for (day, states) in (0i64..).zip(days) {
            let date = first.checked_add(day.days()).unwrap();
            last = last.max(date);
            match states {
                Some(states) => {
                    assert!(states.add_up());
                    of.total += states;
                    of.days.push(DayStatus { date, states, look: 0, part: None });
                }
                None => of.never_looked += 1,
            }
        }
        total += of.total;
        never_looked += of.never_looked;
        of
    };
    let keys = keys.into_iter().map(of_key).collect();
    let look = Look {
        run: "monday".to_owned(),
        workflow: "ticker".to_owned(),
        step: "find".to_owned(),
        of: "find".to_owned(),
        kind: DefectKind::Missing,
        at: at("2026-03-06T22:00:30Z"),
        interval: Interval::new(at("2026-03-02T00:00:00Z"), at("2026-03-07T00:00:00Z")).unwrap(),
        again: false,
        absent_until: None,
    };
    TableStatus {
        table: "bars".to_owned(),
        zone: "America/New_York".to_owned(),
        cadence: "1m".to_owned(),
        days: Some((first, last)),
        total,
        never_looked,
        looks: vec![look],
        decisions: Default::default(),
        keys,
        notes: vec!["2 slots were repaired since".to_owned()],
    }
}

fn week() -> TableStatus {
    let of = |states: States| Some(States { expected: 390, ..states });
    let none = States::default();
    let ibm = vec![
        of(States { complete: 390, ..none }),
        of(States { complete: 389, missing: 1, ..none }),
        of(States { repaired: 389, absent: 1, ..none }),
        of(States { absent: 390, ..none }),
        None,
    ];
    let spy = vec![
        of(States { complete: 380, wrong: 10, ..none }),
        of(States { complete: 380, frozen: 10, ..none }),
        of(States { complete: 389, absent: 1, ..none }),
        Some(none),
        of(States { complete: 388, suspect: 2, ..none }),
    ];
    status(vec![("IBM", ibm), ("SPY", spy)])
}

#[test]
fn a_calendar_has_the_colour_of_what_a_reader_should_know_of_each_day() {
    insta::assert_snapshot!("calendar", lines(&calendar::map(&week()).unwrap()));
}

#[test]
fn a_report_on_a_table_shows_the_status_of_its_days() {
    let mut report = report(vec![small()]);
    report.status = Some(week());
    let html = report.html();
    let (_, of) = html.split_once("<h2>Status of bars by key and day</h2>").unwrap();
    let of = of.split_once("\n<h2>").unwrap().0;
    insta::assert_snapshot!("status", of.split_once("<svg").unwrap().0);
    insta::assert_snapshot!("status_numbers", of.split_once("</svg>").unwrap().1.replace("><", ">\n<"));
    // The same picture as everywhere else, with a text for those who do not see it.
    assert!(of.contains(&calendar::map(&week()).unwrap().into_element()));
    assert!(of.contains("role=\"img\" aria-label=\"Status of table bars, 2 keys from 2026-03-02 to 2026-03-06"), "{of}");
    // Among data points and listings, JSON has what all days come to, and not each of them.
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["status"]["total"]["missing"], &json["status"]["days"][1]), (&1.into(), &"2026-03-06".into()));
    assert_eq!((&json["status"]["keys"], &json["status"]["latest"]["run"]), (&2.into(), &"monday".into()));
}

#[test]
fn an_incomplete_candle_is_marked() {
    let candle = |hour: &str, prices, complete, repaired| Candle { at: at(hour), prices, complete, repaired };
    let of = KeyCandles {
        key: Key::from("IBM"),
        candles: vec![
            candle("2026-03-05T14:00:00Z", Some([100.0, 102.0, 99.0, 101.0]), true, 0),
            candle("2026-03-05T15:00:00Z", Some([101.0, 101.5, 98.0, 98.5]), true, 3),
            candle("2026-03-05T16:00:00Z", Some([98.5, 99.0, 98.0, 99.0]), false, 0),
            candle("2026-03-05T17:00:00Z", None, false, 0),
        ],
    };
    insta::assert_snapshot!("candles", lines(&candles::chart(&of, &Zone::utc())));
}

#[test]
fn repaired_stretches_have_the_colour_of_their_strategy() {
    let point = |minute: u8, value, by: Option<&str>, absent| Point {
        at: at(&format!("2026-03-05T14:{minute:02}:00Z")),
        value,
        repaired_by: by.map(str::to_owned),
        // Only the second strategy says how far it may be off.
        estimated: (by == Some("carry-forward")).then_some([2.5, 5.0]),
        absent,
    };
    let of = Series {
        key: Key::from("IBM"),
        column: "close".to_owned(),
        points: vec![
            point(0, Some(1.0), None, false),
            point(1, Some(2.0), Some("backfill"), false),
            point(2, Some(3.0), Some("carry-forward"), false),
            point(3, Some(4.0), None, false),
            point(4, None, None, true),
            point(5, None, None, false),
            point(6, Some(2.0), None, false),
        ],
    };
    insta::assert_snapshot!("series", lines(&series::chart(&of, &Zone::utc(), Size::Wide)));
}

fn path() -> Graph {
    let node = |name: &str, what: &str, visits| Node { name: name.to_owned(), what: what.to_owned(), visits, failed: false };
    let edge = |from, to, label: &str, taken| Edge { from, to, label: label.to_owned(), catches: false, taken };
    Graph {
        nodes: vec![
            node("find", "detect gaps", 1),
            node("fill", "repair backfill", 2),
            node("check", "verify find", 2),
            node("give_up", "fail", 0),
        ],
        edges: vec![edge(0, 1, "", 1), edge(1, 2, "", 2), edge(2, 1, "$output.missing > 0", 1), edge(1, 3, "denied", 0)],
    }
}

#[test]
fn the_path_of_a_run_is_drawn_through_its_workflow() {
    insta::assert_snapshot!("graph", lines(&graph::chart(&path())));
}

#[test]
fn attempts_and_waits_are_drawn_in_time() {
    let span = |from: &str, to: &str, doing| Span { from: at(from), to: at(to), doing };
    let of = Timeline {
        from: at("2026-03-05T14:00:00Z"),
        to: at("2026-03-05T14:01:40Z"),
        rows: vec![
            TimelineRow {
                step: "fill".to_owned(),
                spans: vec![
                    span("2026-03-05T14:00:00Z", "2026-03-05T14:00:10Z", Doing::Failed),
                    span("2026-03-05T14:00:10Z", "2026-03-05T14:00:20Z", Doing::Backoff),
                    span("2026-03-05T14:00:20Z", "2026-03-05T14:00:30Z", Doing::Succeeded),
                ],
                more: 0,
            },
            TimelineRow {
                step: "settle".to_owned(),
                spans: vec![span("2026-03-05T14:00:30Z", "2026-03-05T14:01:40Z", Doing::Waited)],
                more: 0,
            },
        ],
    };
    insta::assert_snapshot!("timeline", lines(&timeline::chart(&of)));
}

/// A year of minutes of 500 keys, in which 4 million are missing at random, and the longest listings.
#[test]
fn a_year_of_500_keys_with_4_million_gaps_stays_below_three_megabytes() {
    let first = at("2025-01-01T00:00:00Z");
    let starts: Vec<Timestamp> = (0..365).map(|day| first.checked_add((day * 24i64).hours()).unwrap()).collect();
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let names: Vec<String> = (0..500).map(|key| format!("KEY-{key:04}")).collect();
    let mut missing = 0u64;
    let keys = names.iter().map(|name| {
        let cells = (0..365).map(|_| {
            // From a tenth of a day to a whole one, so that all colours are there.
            let lost = u32::try_from(if next() % 50 == 0 { next() % 390 } else { next() % 40 }).unwrap();
            missing += u64::from(lost);
            cell([390, 390 - lost, lost - lost.min(u32::from(next() % 9 == 0)), 0])
        });
        (name.as_str(), cells.collect())
    });
    let of = table(starts, Bucket::Day, keys.collect());
    assert!(missing > 4_000_000, "{missing}");
    let mut report = report(vec![of]);
    let defect = |index: i64| Defect {
        table: "bars".to_owned(),
        step: "find".to_owned(),
        kind: DefectKind::Missing,
        key: Key::from("KEY-0001"),
        from: first.checked_add(index.minutes()).unwrap(),
        to: first.checked_add((index + 1).minutes()).unwrap(),
        slots: 1,
        repaired: 1,
        absent: 0,
        arrived: 0,
    };
    // All colours of the calendar, side by side.
    let mut day = || {
        let states = [10, 0, 0, 3, 0, 0, 5, 0, 380, 390].map(|most: u64| if next() % 3 == 0 { most } else { 0 });
        let [missing, wrong, suspect, unexamined, given_up, frozen, elsewhere, absent, repaired, complete] = states;
        let expected = states.iter().sum();
        Some(States { expected, missing, wrong, suspect, unexamined, given_up, frozen, elsewhere, absent, repaired, complete })
    };
    report.status = Some(status(names.iter().map(|name| (name.as_str(), (0..365).map(|_| day()).collect())).collect()));
    let long = || Csv::Embedded("x".repeat(super::csv::MOST_EMBEDDED));
    report.defects = Listing { total: 4_000_000, rows: (0..1_000).map(defect).collect(), csv: long() };
    report.fixes.csv = long();
    report.exceptions.csv = long();
    let html = report.html();
    assert!(html.len() < 3_000_000, "{} bytes", html.len());
    assert!(html.matches("<path").count() < 2_000, "{} paths", html.matches("<path").count());
}

/// What an attacker would write where a key, a source or an answer stands.
const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>\u{1b}[31m\u{202e}'&";

#[test]
fn data_that_looks_like_html_or_a_terminal_escape_does_no_harm() {
    let mut of = small();
    of.table = HOSTILE.to_owned();
    of.calendar = HOSTILE.to_owned();
    of.keys[0].key = Key::from(HOSTILE);
    let mut graph = path();
    graph.nodes[0].name = HOSTILE.to_owned();
    graph.edges[0].label = HOSTILE.to_owned();
    let mut report = report(vec![of]);
    report.graph = Some(graph);
    report.sentence = HOSTILE.to_owned();
    report.left = vec![HOSTILE.to_owned()];
    report.notes = vec![HOSTILE.to_owned()];
    let mut of_days = week();
    (of_days.table, of_days.zone, of_days.notes) = (HOSTILE.to_owned(), HOSTILE.to_owned(), vec![HOSTILE.to_owned()]);
    of_days.keys[0].key = Key::from(HOSTILE);
    of_days.looks[0].run = HOSTILE.to_owned();
    report.status = Some(of_days);
    let time = at("2026-03-05T14:00:00Z");
    let absence = Exception {
        table: HOSTILE.to_owned(),
        key: Key::from(HOSTILE),
        from: time,
        to: time,
        slots: 1,
        source: HOSTILE.to_owned(),
        answer: HOSTILE.to_owned(),
        at: time,
        recheck_after: time,
        run: HOSTILE.to_owned(),
        step: HOSTILE.to_owned(),
        retracted_by: Some(HOSTILE.to_owned()),
    };
    report.exceptions = Listing { total: 1, rows: vec![absence], csv: Csv::Embedded(HOSTILE.to_owned()) };
    let clean = self::report(vec![small()]).html();
    for text in [report.html(), report.svg().unwrap()] {
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "a control character is in the page");
        assert!(text.contains("&lt;script&gt;alert(1)"), "the data is not shown");
        let scripts = |text: &str| text.matches("<script").count();
        assert!(scripts(&text) <= scripts(&clean) && !text.contains("<img"), "data has become an element");
        // Nothing but the program's own elements has attributes: every quotation mark of data is escaped.
        assert!(!text.contains("onerror=alert(1)>"), "data has become an attribute");
    }
}

#[test]
fn the_policy_allows_the_styles_and_the_script_of_the_page_and_no_more() {
    use sha2::{Digest, Sha256};
    let html = report(vec![small()]).html();
    let (_, policy) = html.split_once("Content-Security-Policy\" content=\"").unwrap();
    let policy = policy.split_once('"').unwrap().0.replace("&#39;", "'");
    let mut texts = vec![("script", super::page::SCRIPT), ("style", super::page::PAGE_STYLE), ("style", STYLE)];
    for (element, text) in texts.drain(..) {
        assert!(html.contains(&format!("<{element}>{text}</{element}>")), "the {element} is not in the page as it is");
        let hash = super::picture::markup::base64(&Sha256::digest(text.as_bytes()));
        assert!(policy.contains(&format!("'sha256-{hash}'")), "the policy lacks the hash sha256-{hash} of the {element} in {policy}");
    }
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert!(!html.contains(" style=\"") && !html.contains(" on"), "the policy would forbid a style or a handler in the page");
}

#[test]
fn a_report_without_a_table_says_that_this_proves_nothing() {
    let html = report(Vec::new()).html();
    assert!(html.contains("No table could be looked at") && html.contains("does not mean that nothing is missing"));
}
