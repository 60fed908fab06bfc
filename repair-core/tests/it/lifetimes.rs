//! The keys of a table may be listed by another one, each with its lifetime and its calendar. What is expected of a key is then its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![allow(clippy::needless_pass_by_value, reason = "settings are written where they are used")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;
use repair_core::ErrorKind;
use repair_core::model::{
    Cadence, Calendar, ExpectedKeys, Findings, Format, Hours, Key, KeysFrom, Scope, Table, Week, WeeklyCalendar, Zone,
};
use repair_core::plugin::{Detector, PluginKind, Registry, StepContext};
use repair_core::testing::{MemoryLake, VirtualClock, context, plugin_suite};
use repair_core::workflow::Workflow;
use serde_json::{Value, json};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const FROM: &str = "2024-03-29";
const TO: &str = "2024-04-02";

fn zone() -> Zone {
    "Europe/Berlin".parse().unwrap()
}

/// How a table of sites writes when one opened or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Dates,
    Instants,
    Texts,
}

/// A row of the table of sites. Times are in quarters of an hour, from a day before the clock is set forward.
#[derive(Debug, Clone)]
struct Site {
    key: &'static str,
    since: Option<i64>,
    until: Option<i64>,
    office: bool,
}

fn sites() -> impl Strategy<Value = Vec<Site>> {
    let quarter = || prop::option::weighted(0.7, -200i64..700);
    let site = (prop::sample::select(&KEYS[..3]), quarter(), quarter());
    let sites = prop::collection::vec(site, 1..6);
    (sites, any::<[bool; 4]>()).prop_map(|(sites, office)| {
        let in_order = |since: Option<i64>, until: Option<i64>| match (since, until) {
            (Some(since), Some(until)) => (Some(since.min(until)), Some(since.max(until))),
            other => other,
        };
        let of = |key: &str| KEYS.iter().position(|known| *known == key).is_some_and(|at| office[at]);
        sites
            .into_iter()
            .map(|(key, since, until)| {
                let (since, until) = in_order(since, until);
                Site { key, since, until, office: of(key) }
            })
            .collect()
    })
}

fn instant(quarter: i64) -> Timestamp {
    "2024-03-30T00:00:00Z".parse::<Timestamp>().unwrap() + (quarter * 15).minutes()
}

fn date(quarter: i64) -> Date {
    zone().local(instant(quarter)).date()
}

fn column(written: Written, quarters: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    match written {
        Written::Dates => {
            let days = quarters.map(|at| at.map(|at| date(at).since(Date::constant(1970, 1, 1)).unwrap().get_days()));
            Arc::new(days.collect::<Date32Array>())
        }
        Written::Instants => Arc::new(
            quarters.map(|at| at.map(|at| instant(at).as_microsecond())).collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
        ),
        // Every other one is a date, and an empty text is none.
        Written::Texts => Arc::new(StringArray::from_iter_values(quarters.map(|at| match at {
            None => String::new(),
            Some(at) if at % 2 == 0 => date(at).to_string(),
            Some(at) => instant(at).to_string(),
        }))),
    }
}

/// Whether a site is alive at an instant, by its clock.
fn is_alive(site: &Site, written: Written, at: Timestamp) -> bool {
    let by_date = |quarter: i64| written == Written::Dates || (written == Written::Texts && quarter % 2 == 0);
    let today = zone().local(at).date();
    site.since.is_none_or(|since| if by_date(since) { date(since) <= today } else { instant(since) <= at })
        && site.until.is_none_or(|until| if by_date(until) { today <= date(until) } else { at < instant(until) })
}

fn rows(of: &[(&str, Timestamp)]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("meter", Arc::new(StringArray::from_iter_values(of.iter().map(|(key, _)| *key)))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(of.iter().map(|(_, at)| at.as_microsecond())).with_timezone("UTC"))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn meters(keys: KeysFrom) -> Table {
    Table::new("meters", Format::Parquet, "ts")
        .with_key(["meter"])
        .with_cadence("30m".parse::<Cadence>().unwrap())
        .with_zone(zone())
        .with_keys(ExpectedKeys::Table(keys))
}

/// A context with meters and a table of sites. The time of that table is of no interest here.
fn world(meters: &Table, held: &[(&str, Timestamp)], sites: &[Site], written: Written) -> StepContext {
    let lake = MemoryLake::default();
    lake.put_table(meters, &[rows(held)]).unwrap();
    let reference = Table::new("sites", Format::Parquet, "entered");
    let columns: [(&str, ArrayRef); 5] = [
        ("entered", Arc::new(TimestampMicrosecondArray::from_iter_values(sites.iter().map(|_| 0)).with_timezone("UTC"))),
        ("meter", Arc::new(StringArray::from_iter_values(sites.iter().map(|site| site.key)))),
        ("opened", column(written, sites.iter().map(|site| site.since))),
        ("closed", column(written, sites.iter().map(|site| site.until))),
        ("hours", Arc::new(sites.iter().map(|site| site.office.then_some("office")).collect::<StringArray>())),
    ];
    lake.put_table(
        &reference,
        &[RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()],
    )
    .unwrap();
    let clock = Arc::new(VirtualClock::starting_at("2024-05-01T00:00:00Z".parse().unwrap()));
    let built_in = Registry::default().calendars()["24x7"].clone();
    context(Arc::new(lake), [meters.clone(), reference], clock).with_calendars([office(), built_in])
}

fn office() -> Arc<dyn Calendar> {
    let hours: Hours = "08:00-18:00".parse().unwrap();
    Arc::new(WeeklyCalendar::new("office", zone(), Week::from_monday_to_friday(&hours)))
}

fn detector(config: Value) -> Arc<dyn Detector> {
    Registry::default().make(PluginKind::Detector, "gaps", &config).and_then(Arc::<dyn Detector>::try_from).unwrap()
}

fn found(findings: &Findings) -> BTreeSet<(String, i64)> {
    findings.gaps.iter().flat_map(|(key, slots)| (slots.first..slots.end).map(|slot| (key.to_string(), slot))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testdata::by_length(40, 192)))]

    /// A slot is expected of a key if it begins while the key is alive and its calendar is open: counted here slot by slot.
    #[test]
    fn of_each_key_the_slots_of_its_lifetime_are_expected(
        sites in sites(), written in prop::sample::select(vec![Written::Dates, Written::Instants, Written::Texts]),
        held in prop::collection::btree_set((prop::sample::select(&KEYS[..]), 0i64..240), 0..200), by_calendar in any::<bool>(),
    ) {
        let calendar = by_calendar.then(|| "hours".to_owned());
        let keys = KeysFrom { calendar, ..KeysFrom::table("sites").with_lifetime(Some("opened"), Some("closed")) };
        let table = meters(keys);
        let interval = repair_core::model::Interval::parse_in(FROM, TO, &zone()).unwrap();
        let slots = table.grid().unwrap().slots_in(&interval);
        let held: Vec<(&str, Timestamp)> = held.into_iter().map(|(key, at)| (key, table.grid().unwrap().start_of(slots.first + at))).collect();
        let context = world(&table, &held, &sites, written);
        let open = office().open(&interval).unwrap();
        let (mut expected, mut missing, mut alive, mut others) = (0, BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let (mut unexpected, mut rows_of_others) = (0, 0);
        for key in KEYS {
            let of_key: Vec<&Site> = sites.iter().filter(|site| site.key == key).collect();
            let lives = |slot: i64| of_key.iter().any(|site| is_alive(site, written, table.grid().unwrap().start_of(slot)));
            // A key is examined if it is alive at any time of the interval, even between two slots.
            let quarters = (slots.len() * 2) as i64;
            let first = interval.from();
            let examined = (0..quarters).any(|quarter| of_key.iter().any(|site| is_alive(site, written, first + (quarter * 15).minutes())));
            for slot in slots.first..slots.end {
                let start = table.grid().unwrap().start_of(slot);
                let has_row = held.contains(&(key, start));
                let is_open = !by_calendar || of_key.iter().all(|site| !site.office) || open.iter().any(|open| open.contains(start));
                let is_expected = lives(slot) && is_open;
                expected += u64::from(is_expected);
                unexpected += u64::from(examined && has_row && !is_expected);
                rows_of_others += u64::from(!examined && has_row);
                if !examined && has_row {
                    *others.entry(Key::from(key)).or_insert(0u64) += 1;
                }
                if is_expected && !has_row {
                    missing.insert((key.to_owned(), slot));
                }
            }
            if examined {
                alive.insert(Key::from(key));
            }
        }
        let detector = detector(json!({ "table": "meters", "from": FROM, "to": TO, "allow_empty": true }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let findings = detector.detect(&context, None).await.unwrap();
            let counts = findings.counts;
            assert_eq!((counts.expected, counts.missing, counts.unexpected), (expected, missing.len() as u64, unexpected));
            assert_eq!(found(&findings), missing);
            assert_eq!(findings.scope.keys.iter().cloned().collect::<BTreeSet<_>>(), alive);
            if !alive.is_empty() {
                assert_eq!(counts.other_keys, rows_of_others);
                assert!(findings.other_keys.iter().eq(others.iter().map(|(key, rows)| (key, *rows))), "{:?}", findings.other_keys);
            }
            // What a journal keeps of it is read back, and checking again finds the same.
            let kept: Scope = serde_json::from_str(&serde_json::to_string(&findings.scope).unwrap()).unwrap();
            assert_eq!(kept, findings.scope);
            let again = detector.detect(&context, Some(&findings)).await.unwrap();
            assert_eq!(found(&again), missing);
            if expected > 0 {
                plugin_suite::detector(detector.as_ref(), &context).await;
            }
        });
    }
}

#[test]
fn scopes_without_lifetimes_are_written_and_read_as_before() {
    let text = r#"{"table":"t","grid":{"cadence":"1h","marks":"start"},"keys":["a"],"interval":{"from":"2024-03-04T00:00:00Z","to":"2024-03-05T00:00:00Z"},"calendar":"24x7"}"#;
    let scope: Scope = serde_json::from_str(text).unwrap();
    assert!(scope.lifetimes.is_empty());
    assert_eq!(serde_json::to_string(&scope).unwrap(), text);
}

#[tokio::test(start_paused = true)]
async fn what_a_table_of_keys_cannot_say_is_refused_by_name() {
    let at = |quarter: i64| instant(quarter);
    let site = |since, until| Site { key: "a", since, until, office: false };
    let lifetime = || KeysFrom::table("sites").with_lifetime(Some("opened"), Some("closed"));
    let detect = |keys: KeysFrom, sites: Vec<Site>, written| async move {
        let table = meters(keys);
        let context = world(&table, &[("a", at(0))], &sites, written);
        let config = json!({ "table": "meters", "from": FROM, "to": TO });
        detector(config).detect(&context, None).await.unwrap_err()
    };
    let backwards = detect(lifetime(), vec![site(Some(300), Some(100))], Written::Dates).await;
    assert!(
        backwards.kind() == ErrorKind::Invalid && backwards.message().contains("ends at 2024-03-31, before it begins at 2024-04-02"),
        "{backwards}"
    );
    let ended = detect(lifetime(), vec![site(None, Some(-200))], Written::Instants).await;
    assert!(ended.kind() == ErrorKind::Blind && ended.message().contains("no key that table `sites` lists is expected"), "{ended}");
    let none = detect(lifetime(), Vec::new(), Written::Dates).await;
    assert!(none.kind() == ErrorKind::Blind && none.message().contains("lists no keys"), "{none}");
    let column = detect(KeysFrom::table("sites").with_lifetime(Some("open"), None), vec![site(None, None)], Written::Dates).await;
    assert!(column.message().contains("has no column `open`; its columns are") && column.message().contains("`opened`"), "{column}");
    let time = detect(KeysFrom::table("sites").with_lifetime(None, Some("entered")), vec![site(None, None)], Written::Dates).await;
    assert!(time.message().contains("cannot be empty where a key is still expected"), "{time}");
    let number = KeysFrom { calendar: Some("opened".to_owned()), ..KeysFrom::table("sites") };
    let number = detect(number, vec![site(None, None)], Written::Dates).await;
    assert!(number.message().contains("must be text"), "{number}");
    let calendar = KeysFrom { calendar: Some("meter".to_owned()), ..KeysFrom::table("sites") };
    let calendar = detect(calendar, vec![site(None, None)], Written::Dates).await;
    assert!(calendar.message().contains("no calendar `a`"), "{calendar}");
}

/// A workflow with meters and sites, and what is wrong with it.
fn mistakes(tables: &str, with: &str, files: &[(&str, &str)]) -> String {
    let text = format!(
        "workflow: w\nkind: state-machine\ntables:\n{tables}\nstart: look\nsteps:\n  look: {{ detect: gaps, with: {{ table: meters, from: 2024-03-04, to: \
         2024-03-05{with} }}, end: true }}\n"
    );
    let files: BTreeMap<String, String> = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Workflow::parse_with("w.yaml", &text, &Registry::default(), &files).err().map(|mistakes| mistakes.to_string()).unwrap_or_default()
}

#[test]
fn mistakes_about_keys_are_found_before_a_run() {
    let meters = |keys: &str| format!("  meters: {{ location: m, format: csv, key: [meter], time: ts, cadence: 1h{keys} }}\n");
    let sites = "  sites: { location: s.csv, format: csv, csv: { names: [meter, opened, closed] }, time: opened }\n";
    let both = |keys: &str| format!("{}{sites}", meters(keys));
    for (tables, with, expected) in [
        (both(", keys: { table: sites, since: opened, until: closed }"), "", ""),
        (both(""), ", keys: { table: sites, since: opened }", ""),
        (both(""), ", keys: [a, b]", ""),
        (meters(", keys: { file: keys.csv }"), "", ""),
        (meters(""), ", keys: { file: keys.csv }", ""),
        (both(", keys: { table: site }"), "", "there is no table `site`\n"),
        (both(""), ", keys: { table: site }", "there is no table `site`\n"),
        (both(", keys: { table: meters }"), "", "table `meters` cannot list its own expected keys"),
        (both(", keys: { table: sites, since: open }"), "", "table `sites` has no column `open`"),
        (both(", keys: { table: sites, until: close, sinc: x }"), "", "unknown key `sinc` in `keys`"),
        (both(", keys: []"), "", "`keys` is empty"),
        (both(", keys: [4711]"), "", "put it in quotes"),
        (both(", keys: [[a, b]]"), "", "key `a/b` has 2 values, but table `meters` has 1 key columns"),
        (both(", keys: all"), "", "`keys` must be a list or a mapping"),
        (both(""), ", keys: { table: sites, since: opened, untli: closed }", "unknown key `untli`"),
        (meters(", keys: { file: lost.csv }"), "", "`lost.csv` cannot be read"),
        (meters(", keys: { file: other.csv }"), "", "must have a line of names with the key columns, `meter`"),
        (meters(""), ", keys: { file: gap.csv }", "the key is empty"),
    ] {
        let files = [("keys.csv", "name,meter\nOne,a\n\"Two, too\",b\n"), ("other.csv", "a\nb\n"), ("gap.csv", "meter,name\na,x\n,y\n")];
        let found = mistakes(&tables, with, &files);
        assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected.trim_end()) }, "{tables}{with}: {found}");
    }
    // The mistakes of a file are reported by line, and nothing else is said to be wrong because of them.
    let files = [("keys.csv", "meter\na\n\"b\n,\nc\n\"\"\n")];
    for (tables, with) in [(meters(", keys: { file: keys.csv }"), ""), (meters(""), ", keys: { file: keys.csv }")] {
        let found = mistakes(&tables, with, &files);
        let places: Vec<&str> = found.lines().filter_map(|line| line.trim().strip_prefix("--> ")).collect();
        assert_eq!(places, ["keys.csv:3:1", "keys.csv:4:1", "keys.csv:6:1"], "{found}");
    }
    let circle = "  meters: { location: m, format: csv, key: [meter], time: ts, cadence: 1h, keys: { table: plants, columns: [meter] } }\n  plants: { location: p, \
                  format: csv, key: [plant], time: ts, cadence: 1h, keys: { table: meters, columns: [plant] } }\n";
    let found = mistakes(circle, "", &[]);
    assert!(found.contains("tables list the expected keys of each other: `meters` from `plants` from `meters`"), "{found}");
}
