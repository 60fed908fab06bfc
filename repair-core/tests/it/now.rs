//! Dates that are relative to a run's now: which days and instants they are, and that a run keeps them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use jiff::Timestamp;
use repair_core::engine::{Engine, RunState, StartRequest, load};
use repair_core::plugin::Registry;
use repair_core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair_core::workflow::Workflow;

fn parse(text: &str) -> Result<Workflow, String> {
    Workflow::parse("now.yaml", text, &Registry::default()).map_err(|mistakes| mistakes.to_string())
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NIGHTLY: &str = "
workflow: nightly
kind: state-machine
params:
  from: { type: date, default: yesterday }
  to: { type: date, default: yesterday }
tables:
  readings: { location: readings, format: csv, time: ts, zone: America/New_York, cadence: 1h }
start: look
steps:
  look: { detect: gaps, with: { table: readings, from: '{% $params.from %}', to: '{% $params.to %}' }, end: true }
";

/// A lake whose tables hold one row of 1970, with a journal of its own.
struct World {
    lake: Arc<MemoryLake>,
    journal: Arc<MemoryJournal>,
}

impl World {
    fn of(workflow: &Workflow) -> Self {
        let lake = MemoryLake::default();
        let times = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
        let rows = RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef)]).unwrap();
        workflow.tables.values().for_each(|table| lake.put_table(table, std::slice::from_ref(&rows)).unwrap());
        Self { lake: Arc::new(lake), journal: Arc::new(MemoryJournal::default()) }
    }

    fn engine(&self, now: Timestamp) -> Engine {
        let mut engine = Engine::new(Arc::new(Registry::default()), self.lake.clone(), self.journal.clone());
        engine.clock = Arc::new(VirtualClock::starting_at(now));
        engine
    }

    async fn state(&self, run: &str) -> RunState {
        load(self.journal.as_ref(), run).await.unwrap()
    }
}

fn request(workflow: &Workflow, run: &str) -> StartRequest {
    StartRequest::new(run).with_params(workflow.bind(&BTreeMap::new()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_nightly_job_looks_at_every_hour_of_a_year_once() {
    let workflow = parse(NIGHTLY).unwrap();
    let world = World::of(&workflow);
    // Each night at half past midnight in New York, from the first of January to the next.
    let zone = jiff::tz::TimeZone::get("America/New_York").unwrap();
    let (mut night, mut end, mut hours) = (jiff::civil::date(2024, 1, 2), at("2024-01-01T05:00:00Z"), BTreeMap::new());
    while night <= jiff::civil::date(2025, 1, 1) {
        let now = zone.to_ambiguous_timestamp(night.at(0, 30, 0, 0)).compatible().unwrap();
        let run = format!("night-{night}");
        world.engine(now).start(&workflow, request(&workflow, &run)).await.unwrap();
        let state = world.state(&run).await;
        let found = &state.findings["look"];
        assert_eq!(found.scope.interval.from(), end, "{night}");
        assert_eq!(state.started.params["from"], night.yesterday().unwrap().to_string());
        *hours.entry(found.counts.expected).or_insert(0) += 1;
        (night, end) = (night.tomorrow().unwrap(), found.scope.interval.to());
    }
    assert_eq!(end, at("2025-01-01T05:00:00Z"));
    assert_eq!(hours, BTreeMap::from([(23, 1), (24, 364), (25, 1)]), "one day is an hour shorter, and one an hour longer");
}

#[tokio::test(start_paused = true)]
async fn a_run_counts_from_when_it_started_however_long_it_takes() {
    let text = NIGHTLY
        .replace("start: look", "start: rest")
        .replace("steps:\n", "steps:\n  rest: { wait: { for: 1h }, next: look }\n")
        .replace("'{% $params.to %}'", "now + 1h");
    let workflow = parse(&text).unwrap();
    let world = World::of(&workflow);
    // It looks after midnight.
    world.engine(at("2024-03-06T04:30:00Z")).start(&workflow, request(&workflow, "run")).await.unwrap();
    let state = world.state("run").await;
    assert_eq!(state.findings["look"].scope.interval.to_string(), "2024-03-04T05:00:00Z to 2024-03-06T05:30:00Z");
    // The same command a week later is the same run; another now is another run.
    let later = world.engine(at("2024-03-12T16:30:00Z"));
    assert!(later.start(&workflow, request(&workflow, "run")).await.unwrap().outcome.is_some());
    let other = later.start(&workflow, request(&workflow, "run").with_now(at("2024-03-12T16:30:00Z"))).await.unwrap_err();
    assert!(other.message().contains("already exists and was started with other input"), "{other}");
    // A now that was given is the run's.
    later.start(&workflow, request(&workflow, "past").with_now(at("2023-03-06T04:30:00Z"))).await.unwrap();
    let state = world.state("past").await;
    assert_eq!(state.findings["look"].scope.interval.to_string(), "2023-03-04T05:00:00Z to 2023-03-06T05:30:00Z");
    assert_eq!((state.started.now, state.started.at), (at("2023-03-06T04:30:00Z"), at("2024-03-12T16:30:00Z")));
}

#[tokio::test(start_paused = true)]
async fn any_with_may_depend_on_the_run_and_on_steps_before() {
    let text = NIGHTLY.replace("start: look", "start: first").replace(
        "  look: { detect: gaps, with: { table: readings, from: '{% $params.from %}', to: '{% $params.to %}' }, end: true }",
        "  first:
    detect: gaps
    with: { table: readings, from: \"{% $substringBefore($run.now, 'T') %}\", to: '{% $run.started_at %}' }
    next: second
  second:
    detect: gaps
    with: { table: readings, from: \"{% '2024-03-0' & $string($steps.first.output.gaps) %}\", to: today }
    end: true",
    );
    let workflow = parse(&text).unwrap();
    let world = World::of(&workflow);
    world.engine(at("2024-03-05T16:30:00Z")).start(&workflow, request(&workflow, "run")).await.unwrap();
    let state = world.state("run").await;
    let interval = |step: &str| state.findings[step].scope.interval.to_string();
    assert_eq!(interval("first"), "2024-03-05T05:00:00Z to 2024-03-05T16:30:00Z");
    assert_eq!(interval("second"), "2024-03-01T05:00:00Z to 2024-03-06T05:00:00Z");
}

#[test]
fn what_a_relative_parameter_means_must_be_clear() {
    let two_zones = NIGHTLY.replace("start:", "  others: { location: others, format: csv, time: ts, cadence: 1h }\nstart:");
    let zoned = two_zones.replace("default: yesterday }", "default: yesterday, zone: Europe/Berlin }");
    let workflow = parse(&zoned).unwrap();
    let fixed = workflow.fix(&workflow.bind(&BTreeMap::new()).unwrap(), at("2024-03-04T23:30:00Z")).unwrap();
    assert_eq!(fixed["from"], "2024-03-04");
    let absolute = parse(&two_zones.replace("yesterday", "2024-03-04")).unwrap();
    let given = BTreeMap::from([("from".to_owned(), "startof(week)".to_owned())]);
    let refused = absolute.fix(&absolute.bind(&given).unwrap(), at("2024-03-04T23:30:00Z")).unwrap_err();
    let mistakes = NIGHTLY.replace("from: { type: date, default: yesterday }", "from: { type: date, default: tomorow }").replace(
        "to: { type: date, default: yesterday }",
        "to: { type: string, zone: UTC, one_of: [today] }\n  day: { type: date, one_of: [today] }",
    );
    insta::assert_snapshot!(format!(
        "{}\n\n{}\n\n{}\n\n{}",
        parse(&two_zones).unwrap_err(),
        refused.full(),
        parse(&mistakes).unwrap_err(),
        parse(NIGHTLY).unwrap().bind(&BTreeMap::from([("from".to_owned(), "now-7w".to_owned())])).unwrap_err().full()
    ));
}

#[tokio::test(start_paused = true)]
async fn slots_that_have_not_settled_are_not_expected() {
    let settling = NIGHTLY.replace("cadence: 1h }", "cadence: 1h, settles_after: 2h }");
    let now = at("2024-03-05T16:30:00Z");
    for marks in ["start", "end"] {
        for (detector, rules) in [("gaps", ""), ("duplicates", ""), ("invalid", ", rules: [{ column: ts, not_null: true }]")] {
            let text = settling
                .replace("time: ts,", &format!("time: ts, time_marks: {marks},"))
                .replace("detect: gaps", &format!("detect: {detector}"))
                .replace("to: '{% $params.to %}' }", &format!("to: today{rules} }}"));
            let workflow = parse(&text).unwrap();
            let world = World::of(&workflow);
            world.engine(now).start(&workflow, request(&workflow, "run")).await.unwrap();
            let state = world.state("run").await;
            let found = &state.findings["look"];
            // The hour from 13:00 to 14:00 ended more than two hours before, and the next one did not.
            assert_eq!(found.scope.interval.to_string(), "2024-03-04T05:00:00Z to 2024-03-05T14:00:00Z", "{detector}");
            assert_eq!((found.counts.expected, found.counts.missing), (33, 33), "{detector}");
        }
    }
    assert!(parse(&settling.replace("cadence: 1h, ", "")).unwrap_err().contains("without a `cadence` has no slots"));
}

#[tokio::test(start_paused = true)]
async fn nothing_expected_is_blind_unless_that_is_fine() {
    let now = at("2024-03-05T16:30:00Z");
    // Nothing has settled; and no hour begins within these minutes.
    for (settles_after, from, to) in [("3h", "now - 2h", "now"), ("0s", "now - 20m", "now - 10m")] {
        for (detector, rules) in
            [("gaps", ""), ("duplicates", ""), ("invalid", ", rules: [{ column: ts, not_null: true }]"), ("stale", ", into: hours")]
        {
            let text = |allow: &str| {
                NIGHTLY
                    .replace("cadence: 1h }", &format!("cadence: 1h, settles_after: {settles_after} }}"))
                    .replace("detect: gaps", &format!("detect: {detector}"))
                    .replace("from: '{% $params.from %}', to: '{% $params.to %}'", &format!("from: {from}, to: {to}{rules}{allow}"))
            };
            let outcome = async |text: &str| {
                let workflow = parse(text).unwrap();
                let world = World::of(&workflow);
                let report = world.engine(now).start(&workflow, request(&workflow, "run")).await.unwrap();
                let expected = report.step("look").unwrap().output["expected"].clone();
                (report.outcome.unwrap().as_str(), report.reason.unwrap_or_default(), expected)
            };
            let (refused, why, _) = outcome(&text("")).await;
            assert!(
                refused == "blind" && why.contains("no slot of table `readings` is expected") && why.contains("allow_empty: true"),
                "{why}"
            );
            let allowed = outcome(&text(", allow_empty: true")).await;
            assert_eq!((allowed.0, allowed.2), ("succeeded", 0.into()), "{detector}: {}", allowed.1);
        }
    }
}
