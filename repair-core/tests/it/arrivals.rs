//! Units of time that did not arrive, or hold too few rows: which are expected, what is found in them, and that nothing is clean unseen.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![allow(clippy::needless_pass_by_value, reason = "settings are written where they are used")]
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use jiff::Timestamp;
use repair_core::engine::{Engine, Outcome, StartRequest};
use repair_core::model::{Cadence, Findings, Format, PartitionUnit, Table, UnitCounts};
use repair_core::plugin::{Detector, Plugin, PluginKind, Registry, StepContext};
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock, context, plugin_suite};
use repair_core::workflow::Workflow;
use repair_core::{ErrorKind, Result};
use serde_json::{Value, json};

/// Events without a cadence, in a folder for each day.
fn events() -> Table {
    Table::new("events", Format::Parquet, "ts").with_key(["shop"]).with_partition("date", PartitionUnit::Day)
}

/// Hourly readings, in a folder for each day.
fn readings() -> Table {
    Table { cadence: Some(Cadence::HOUR), ..events() }
}

/// Rows of shops: so many of each day, an hour apart.
fn rows(of: &[(&str, &str, i64)]) -> RecordBatch {
    let (mut shops, mut times) = (Vec::new(), Vec::new());
    for (shop, day, count) in of {
        let midnight: Timestamp = format!("{day}T00:00:00Z").parse().unwrap();
        shops.extend((0..*count).map(|_| *shop));
        times.extend((0..*count).map(|hour| midnight.as_microsecond() + hour * 3_600_000_000));
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("shop", Arc::new(StringArray::from(shops))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"))),
        ("value", Arc::new(Float64Array::from(vec![1.0; times.len()]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// 2024-03-04 is a Monday. Tuesday has nothing, Thursday little, Saturday some.
fn a_week() -> RecordBatch {
    rows(&[
        ("north", "2024-03-04", 20),
        ("south", "2024-03-04", 4),
        ("north", "2024-03-06", 24),
        ("south", "2024-03-07", 3),
        ("north", "2024-03-08", 22),
        ("south", "2024-03-08", 24),
        ("north", "2024-03-09", 2),
    ])
}

fn world(table: &Table, held: &RecordBatch) -> StepContext {
    let lake = MemoryLake::default();
    lake.put_table(table, std::slice::from_ref(held)).unwrap();
    context(Arc::new(lake), [table.clone()], Arc::new(VirtualClock::starting_at("2024-03-12T06:00:00Z".parse().unwrap())))
}

fn detector(with: Value) -> Arc<dyn Detector> {
    match Registry::default().make(PluginKind::Detector, "arrivals", &with).unwrap() {
        Plugin::Detector(detector) => detector,
        other => panic!("{:?}", other.kind()),
    }
}

fn with(table: &str, more: Value) -> Value {
    let mut with = json!({ "table": table, "from": "2024-03-04", "to": "2024-03-08" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with
}

async fn found(context: &StepContext, with: Value) -> Result<Findings> {
    detector(with).detect(context, None).await
}

fn units(found: &Findings) -> (u64, u64, u64) {
    let UnitCounts { expected, missing, short, .. } = found.counts.units.unwrap();
    (expected, missing, short)
}

/// The gaps, as keys with the instants from which and until which they last.
fn gaps(found: &Findings) -> Vec<String> {
    let grid = found.scope.grid;
    found.gaps.iter().map(|(key, slots)| format!("{key} {} to {}", grid.start_of(slots.first), grid.start_of(slots.end))).collect()
}

#[tokio::test(start_paused = true)]
async fn units_of_a_table_without_a_cadence_are_found_as_a_whole() {
    let context = world(&events(), &a_week());
    let week = found(&context, with("events", json!({ "min_rows": 10 }))).await.unwrap();
    assert_eq!(units(&week), (5, 1, 1));
    assert_eq!((week.counts.expected, week.counts.present, week.counts.missing, week.counts.gaps), (5, 3, 2, 2));
    assert_eq!(gaps(&week), ["(all) 2024-03-05T00:00:00Z to 2024-03-06T00:00:00Z", "(all) 2024-03-07T00:00:00Z to 2024-03-08T00:00:00Z"]);
    let said = "of 5 days of table `events`, 1 did not arrive: 2024-03-05; 1 holds too few rows: 2024-03-07 (3 of at least 10 rows)";
    assert_eq!(week.notices, [said]);
    // One row is enough if nothing is said; a share compares with the other days; of keys, only their rows count.
    assert_eq!(units(&found(&context, with("events", json!({}))).await.unwrap()), (5, 1, 0));
    let share = found(&context, with("events", json!({ "min_rows": "50%" }))).await.unwrap();
    assert!(share.notices[0].contains("2024-03-07 (3 of at least 12 rows)"), "{:?}", share.notices);
    assert_eq!(units(&found(&context, with("events", json!({ "keys": ["south"] }))).await.unwrap()), (5, 2, 0));
    let each = found(&context, with("events", json!({ "keys": ["south", "north"], "per_key": true, "min_rows": 4 }))).await.unwrap();
    assert_eq!((units(&each), each.counts.audited_keys, each.counts.expected), ((10, 4, 1), 2, 10));
    assert_eq!(gaps(&each)[0], "north 2024-03-05T00:00:00Z to 2024-03-06T00:00:00Z");
    assert_eq!(gaps(&each)[2], "south 2024-03-05T00:00:00Z to 2024-03-08T00:00:00Z");
    // Units need not be folders.
    let halves = found(&context, with("events", json!({ "every": "12h", "from": "2024-03-06", "to": "2024-03-07" }))).await.unwrap();
    assert_eq!((units(&halves), gaps(&halves)), ((4, 1, 0), vec!["(all) 2024-03-07T12:00:00Z to 2024-03-08T00:00:00Z".to_owned()]));
    let month = found(&context, with("events", json!({ "every": "1mo", "from": "2024-02-01", "to": "2024-03-31" }))).await.unwrap();
    assert_eq!((units(&month), month.counts.missing), ((2, 1, 0), 1));
    let local = Table { zone: Some("Europe/Berlin".parse().unwrap()), partition_by: Vec::new(), ..events() };
    let context = world(&local, &a_week());
    // The day on which the clock is set is one unit, too; a part of it is counted in hours.
    let days = found(&context, with("events", json!({ "every": "1d", "from": "2024-03-29", "to": "2024-04-01" }))).await.unwrap();
    assert_eq!((units(&days), days.counts.missing), ((4, 4, 0), 4));
    let parts = found(&context, with("events", json!({ "every": "12h", "from": "2024-03-31", "to": "2024-03-31" }))).await.unwrap();
    assert_eq!((units(&parts), parts.counts.missing), ((2, 2, 0), 23));
}

#[tokio::test(start_paused = true)]
async fn slots_of_a_series_are_found_in_units_that_did_not_arrive_and_in_no_others() {
    let context = world(&readings(), &a_week());
    let week = found(&context, with("readings", json!({ "keys": ["north", "south"], "min_rows": 24 }))).await;
    assert_eq!(week.unwrap_err().kind(), ErrorKind::Invalid, "the table has another name");
    let table = Table { name: "readings".to_owned(), ..readings() };
    let context = world(&table, &a_week());
    let week = found(&context, with("readings", json!({ "keys": ["north", "south"], "min_rows": 24 }))).await.unwrap();
    // Of Monday, 24 of 48 slots hold a row, which is enough.
    assert_eq!((units(&week), week.counts.missing), ((5, 1, 1), 48 + 45));
    assert_eq!(week.counts.expected, week.counts.present + week.counts.missing);
    let of_days = [
        "north 2024-03-05T00:00:00Z to 2024-03-06T00:00:00Z",
        "north 2024-03-07T00:00:00Z to 2024-03-08T00:00:00Z",
        "south 2024-03-05T00:00:00Z to 2024-03-06T00:00:00Z",
        "south 2024-03-07T03:00:00Z to 2024-03-08T00:00:00Z",
    ];
    assert_eq!(gaps(&week), of_days);
    assert!(week.notices[0].ends_with("1 holds too few slots: 2024-03-07 (3 of at least 24 slots)"), "{:?}", week.notices);
    // A day has no room for a thousand rows, so it needs all that it has room for.
    assert_eq!(units(&found(&context, with("readings", json!({ "keys": ["north"], "min_rows": 1_000 }))).await.unwrap()), (5, 2, 2));
    let each = found(&context, with("readings", json!({ "keys": ["north", "south"], "per_key": true }))).await.unwrap();
    assert_eq!((units(&each), each.counts.missing), ((10, 4, 0), 4 * 24));
    assert!(each.notices[0].contains("north 2024-03-05, north 2024-03-07, south 2024-03-05, south 2024-03-06"), "{:?}", each.notices);
}

#[tokio::test(start_paused = true)]
async fn it_keeps_what_detectors_promise() {
    for (table, more) in [
        (readings(), json!({ "keys": ["north", "south"], "min_rows": 24 })),
        (readings(), json!({ "keys": ["north", "south"], "per_key": true, "min_rows": "90%" })),
        (events(), json!({ "min_rows": 10 })),
        (events(), json!({ "keys": ["north", "south"], "per_key": true, "min_rows": "50%" })),
    ] {
        let context = world(&table, &a_week());
        plugin_suite::detector(detector(with("events", more)).as_ref(), &context).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_expected_or_nothing_can_be_judged_the_step_is_blind() {
    let context = world(&events(), &a_week());
    let blind = async |more: Value| {
        let error = found(&context, with("events", more)).await.map(|found| found.counts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Blind, "{error}");
        error.message().to_owned()
    };
    // Days younger than two hours are not expected yet; the run's now is six in the morning of Tuesday the 12th.
    let settling = |after: &str| json!({ "from": "2024-03-11", "to": "2024-03-12", "settles_after": after });
    assert_eq!(units(&found(&context, with("events", settling("2h"))).await.unwrap()), (1, 1, 0));
    let said = blind(settling("8h")).await;
    assert!(said.contains("days that ended less than 8h ago are not expected yet") && said.contains("allow_empty: true"), "{said}");
    let mut fine = settling("8h");
    fine["allow_empty"] = json!(true);
    let nothing = found(&context, with("events", fine)).await.unwrap();
    assert_eq!((units(&nothing), nothing.counts.missing, nothing.gaps.len()), ((0, 0, 0), 0, 0));
    // A single day has nothing to be compared with.
    let said = blind(json!({ "to": "2024-03-04", "min_rows": "50%" })).await;
    assert!(said.contains("no other holds rows: 2024-03-04") && said.contains("give `min_rows` as a number"), "{said}");
    // Without folders or a length, nobody knows what a unit is.
    let flat = Table { partition_by: Vec::new(), ..events() };
    let error = found(&world(&flat, &a_week()), with("events", json!({}))).await.unwrap_err();
    assert!(error.message().contains("give their length, e.g. `every: 1d`"), "{error}");
    let error = found(&world(&events(), &a_week()), with("events", json!({ "per_key": true }))).await.unwrap_err();
    assert!(error.message().contains("no keys are given"), "{error}");
    for refused in [json!({ "min_rows": 0 }), json!({ "every": "7h" }), json!({ "settles_after": "soon" })] {
        assert!(Registry::default().make(PluginKind::Detector, "arrivals", &with("events", refused.clone())).is_err(), "{refused}");
    }
}

const CALENDAR: &str = "calendars: { work: { zone: UTC, open: { mon-fri: \"08:00-16:00\" }, closed: [2024-03-05] } }\n";

async fn run(table: &str, held: &RecordBatch, steps: &str) -> repair_core::engine::RunReport {
    let registry = Arc::new(Registry::default());
    let text = format!("workflow: w\nkind: state-machine\ntables: {{ events: {{ {table} }} }}\n{CALENDAR}start: look\nsteps:\n{steps}");
    let workflow = Workflow::parse_with("w.yaml", &text, &registry, &BTreeMap::new()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let lake = MemoryLake::default();
    lake.put_table(&events(), std::slice::from_ref(held)).unwrap();
    let mut engine = Engine::new(registry, Arc::new(lake), Arc::new(MemoryJournal::default()));
    engine.clock = Arc::new(VirtualClock::starting_at("2024-03-12T06:00:00Z".parse().unwrap()));
    engine.start(&workflow, StartRequest::new("run")).await.unwrap()
}

const EVENTS: &str = "location: events, format: parquet, key: [shop], time: ts, partition_by: [{ date: day }]";

#[tokio::test(start_paused = true)]
async fn a_calendar_says_which_units_are_expected() {
    let look = |more: &str| {
        format!(
            "  look: {{ detect: arrivals, with: {{ table: events, calendar: work, from: 2024-03-04, to: 2024-03-10, {more} }}, end: true }}"
        )
    };
    // Tuesday is a holiday, and there is a weekend.
    let report = run(EVENTS, &a_week(), &look("min_rows: 10")).await;
    assert_eq!(report.step("look").unwrap().output["units"], json!({ "expected": 4, "missing": 0, "short": 1 }));
    assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions));
    let said = "look: of 4 days of table `events`, 1 holds too few rows: 2024-03-07 (3 of at least 10 rows)";
    assert!(report.problems.contains(&said.to_owned()), "{:?}", report.problems);
    // Hours are expected while it is open.
    let report = run(EVENTS, &a_week(), &look("every: 1h")).await;
    assert_eq!(report.step("look").unwrap().output["units"], json!({ "expected": 32, "missing": 8, "short": 0 }));
    // Of a week, one open day is enough.
    let report = run(EVENTS, &a_week(), &look("every: 1w")).await;
    assert_eq!(report.step("look").unwrap().output["units"], json!({ "expected": 1, "missing": 0, "short": 0 }));
    let closed = look("every: 1d").replace("from: 2024-03-04, to: 2024-03-10", "from: 2024-03-05, to: 2024-03-05");
    assert_eq!(run(EVENTS, &a_week(), &closed).await.outcome, Some(Outcome::Blind));
}

#[tokio::test(start_paused = true)]
async fn a_wait_goes_on_when_the_unit_has_arrived() {
    let wait = |day: &str| {
        format!(
            "  look:\n    wait: {{ until: {{ sensor: arrivals, with: {{ table: events, from: {day}, to: {day} }}, when: $output.units.missing = 0, \
             every: 5m, timeout: 1h }} }}\n    end: true"
        )
    };
    assert_eq!(run(EVENTS, &a_week(), &wait("2024-03-06")).await.outcome, Some(Outcome::Succeeded));
    let late = run(EVENTS, &a_week(), &wait("2024-03-05")).await;
    assert_eq!(late.error, Some(ErrorKind::Timeout));
}

#[tokio::test(start_paused = true)]
async fn any_repairer_fills_the_slots_of_a_unit_that_did_not_arrive() {
    let steps = "  look: { detect: arrivals, with: { table: events, keys: [north], from: 2024-03-04, to: 2024-03-06 }, next: fill }\n  \
                 fill: { repair: shifted, of: look, with: { shift: -1d }, next: check }\n  check: { verify: look, end: true }";
    let held = rows(&[("north", "2024-03-04", 24), ("north", "2024-03-06", 20)]);
    let report = run(&format!("{EVENTS}, cadence: 1h"), &held, steps).await;
    assert_eq!(report.step("look").unwrap().output["units"], json!({ "expected": 3, "missing": 1, "short": 0 }));
    let check = &report.step("check").unwrap().output;
    assert_eq!((&check["missing"], &check["units"]), (&json!(0), &json!({ "expected": 1, "missing": 0, "short": 0 })), "{report:?}");
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
}

#[test]
fn a_table_without_slots_is_not_repaired() {
    let text = format!(
        "workflow: w\nkind: state-machine\ntables: {{ events: {{ {EVENTS} }} }}\nstart: look\nsteps:\n  look: {{ detect: arrivals, with: {{ table: \
         events, from: 2024-03-04, to: 2024-03-06 }}, next: fill }}\n  fill: {{ repair: carry-forward, of: look, with: {{ max_age: 1h }}, end: true }}"
    );
    let mistakes = Workflow::parse("w.yaml", &text, &Registry::default()).unwrap_err().to_string();
    assert!(mistakes.contains("step `fill` cannot repair what `look` finds: table `events` has no `cadence`"), "{mistakes}");
}
