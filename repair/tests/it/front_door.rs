//! The front door, as a Rust program uses it: plan, apply, run, undo, redo, why, except, accuracy, compare, costs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use repair::core::lake::overlay::story::Standing;
use repair::core::testing::{MemoryJournal, MemoryLake};
use repair::{ErrorKind, Hint, Interval, Notice, OpenLake, Outcome, PriceBook, Repair};

const WORKFLOW: &str = "\
workflow: air-quality
kind: state-machine
params: { day: { type: date } }
tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h }
sources:
  vendor: { source: stocks.archive, with: { location: archive, format: csv } }
start: find
steps:
  find: { detect: gaps, with: { table: readings, keys: [co, no2], from: \"{% $params.day %}\", to: \"{% $params.day %}\" }, next: fill }
  fill: { repair: backfill, of: find, with: { source: vendor }, next: check }
  check: { verify: find, end: true }
profiles:
  local: { lake: local, with: { root: lake } }
  elsewhere: { lake: local, with: { root: nowhere } }
  cloud: { lake: athena, with: { location: 's3://bucket/lake', database: air, workgroup: repair } }
";

const PRICES: &str = "prices: test\nas_of: 2026-11-01\ncurrency: USD\nsources:\n  vendor: { usd_per_call: 0.01, source: the contract }\n";

/// A lake in a folder, in which three of 48 rows are missing.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (table, lost) in [("archive", &[][..]), ("readings", &[("co", 7), ("co", 8), ("no2", 15)])] {
            let mut text = "sensor,ts,value\n".to_owned();
            for (sensor, hour) in ["co", "no2"].into_iter().flat_map(|sensor| (0..24).map(move |hour| (sensor, hour))) {
                if !lost.contains(&(sensor, hour)) {
                    text.push_str(&format!("{sensor},2024-03-04T{hour:02}:00:00Z,{}\n", hour * 3 % 7));
                }
            }
            std::fs::create_dir_all(folder.path().join("lake").join(table)).unwrap();
            std::fs::write(folder.path().join("lake").join(table).join("2024-03-04.csv"), text).unwrap();
        }
        let world = Self(folder);
        world.write("workflow.yaml", WORKFLOW);
        world.write("prices.yaml", PRICES);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn lake(&self) -> PathBuf {
        self.path("lake")
    }

    async fn open(&self) -> Repair {
        Repair::open(self.path("workflow.yaml")).lake(self.lake()).param("day", "2024-03-04").connect().await.unwrap()
    }

    /// Adds the row that a source had, as if it arrived late.
    fn arrives(&self, row: &str) {
        std::fs::write(self.lake().join("readings/late.csv"), format!("sensor,ts,value\n{row}\n")).unwrap();
    }
}

fn at(text: &str) -> repair::jiff::Timestamp {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_plan_is_applied_undone_redone_and_priced() {
    let world = World::new();
    let repair = world.open().await;
    let plan = repair.plan().await.unwrap();
    assert_eq!((plan.missing(), plan.has_work()), (3, true));
    assert!(!world.lake().join(".repair").exists(), "a plan writes nothing, not even a journal");

    let report = repair.apply(&plan).await.unwrap();
    assert_eq!((report.outcome, report.missing, report.usage.source_requests), (Some(Outcome::Succeeded), 0, 1));
    assert_eq!(repair.apply(&plan).await.unwrap(), report, "applied twice, it is one run");
    assert!(!repair.plan().await.unwrap().has_work());
    let why = || async { repair.why("readings", at("2024-03-04T07:30:00Z")).key("co").await.unwrap() };
    let story = why().await;
    assert_eq!((story.standing, story.repairs.len(), story.repairs[0].attempts), (Standing::Repaired, 1, Some(1)));

    let undone = repair.undo(&report.run).reason("only a trial").await.unwrap();
    assert_eq!((undone.rows(), undone.tables.len()), (3, 1));
    let story = why().await;
    assert_eq!((story.standing, story.retractions[0].reason.as_str()), (Standing::Missing, "only a trial"));
    let redone = repair.redo(&undone.id).await.unwrap();
    assert_eq!(redone.rows(), 3);
    assert_eq!(why().await.standing, Standing::Repaired);
    let error = repair.redo(&undone.id).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("hides nothing any more"), "{error}");
    let part = repair.undo(&report.run).key("no2").step("fill").await.unwrap();
    assert_eq!(part.rows(), 1);

    let book = PriceBook::parse("prices.yaml", PRICES).unwrap();
    let costs = repair.costs().group_by(["workflow", "idea"]).prices(book).await.unwrap();
    assert_eq!((costs.total.usd.unwrap().normalize().to_string(), costs.total.rows_repaired), ("0.01".to_owned(), 3));
    let spent: Vec<_> = costs.groups.iter().map(|group| (group.tags["idea"].as_str(), group.usage.source_requests)).collect();
    assert_eq!(spent, [("-", 0), ("backfill", 1)]);
}

#[tokio::test]
async fn what_is_returned_is_what_json_prints() {
    let world = World::new();
    let repair = world.open().await;
    let plan = repair.plan().await.unwrap();
    let report = repair.run().id("monday").await.unwrap();
    let interval = Interval::parse("2024-03-04T07:00:00Z", "2024-03-04T08:00:00Z").unwrap();
    let results = [
        serde_json::to_value(&plan),
        serde_json::to_value(&report),
        serde_json::to_value(repair.runs().await.unwrap()),
        serde_json::to_value(repair.why("readings", at("2024-03-04T07:30:00Z")).key("co").await.unwrap()),
        serde_json::to_value(repair.compare().strategies(["carry-forward"]).await.unwrap()),
        serde_json::to_value(repair.costs().await.unwrap()),
        serde_json::to_value(repair.accuracy("readings").await.unwrap()),
        serde_json::to_value(repair.undo("monday").await.unwrap()),
        serde_json::to_value(repair.except("readings", interval, "it was switched off").key("co").await.unwrap()),
    ];
    for result in results.map(Result::unwrap) {
        assert_eq!(result["format"], 1, "{result}");
    }
    let runs = repair.runs().await.unwrap();
    assert_eq!((runs.runs[0].run.as_str(), runs.runs[0].outcome, runs.runs[0].paused), ("monday", Some(Outcome::Succeeded), false));
}

#[tokio::test]
async fn a_plan_that_is_out_of_date_is_refused() {
    let world = World::new();
    let repair = world.open().await;
    let plan = repair.plan().await.unwrap();
    let refused = |error: repair::Error, words: &str| {
        assert_eq!((error.kind(), error.remedy()), (ErrorKind::Conflict, Some(&Hint::PlanAgain)), "{error}");
        assert!(error.message().contains(words), "{error}");
    };
    world.write("workflow.yaml", &WORKFLOW.replace("repair: backfill", "repair: stocks.backfill"));
    refused(repair.apply(&plan).await.unwrap_err(), "plug-in of step `fill` has changed");
    world.write("workflow.yaml", &format!("# the same\n{WORKFLOW}"));
    world.arrives("co,2024-03-04T07:00:00Z,1");
    refused(repair.apply(&plan).await.unwrap_err(), "1 no longer missing of co on 2024-03-04");
    assert!(!world.lake().join(".repair").exists());

    // Another table changes, and the notice says so.
    let notices = Arc::new(Mutex::new(Vec::new()));
    let seen = notices.clone();
    let opening = Repair::open(world.path("workflow.yaml")).lake(world.lake()).param("day", "2024-03-04");
    let repair = opening.notices(move |notice| seen.lock().unwrap().push(notice)).connect().await.unwrap();
    let plan = repair.plan().await.unwrap();
    world.arrives("co,2024-03-04T07:00:00Z,2");
    repair.apply(&plan).await.unwrap();
    assert_eq!(*notices.lock().unwrap(), [Notice::TablesChanged(vec!["readings".to_owned()])]);
    let text = plan.to_text().unwrap();
    let planned = Repair::planned(repair::plan::Plan::from_text(&text).unwrap()).connect().await.unwrap();
    assert_eq!(planned.apply(&plan).await.unwrap().run, plan.run_id());
}

#[tokio::test]
async fn a_lake_by_itself_has_its_runs() {
    let world = World::new();
    let repair = world.open().await;
    let lake = OpenLake::at(world.lake()).unwrap();
    let error = lake.runs().await.unwrap_err();
    assert_eq!((error.kind(), error.remedy()), (ErrorKind::NotFound, Some(&Hint::OtherLake)), "{error}");
    repair.run().id("monday").await.unwrap();
    assert_eq!(lake.report("monday").await.unwrap().run, "monday");
    assert_eq!(lake.resume("monday").await.unwrap().outcome, Some(Outcome::Succeeded));
    let error = lake.redrive("monday").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(lake.cancel("monday").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(lake.pause("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
    let mut kinds = 0;
    lake.events("monday", |_| {
        kinds += 1;
        Ok(())
    })
    .await
    .unwrap();
    assert!(kinds > 5);
    let error = lake.events("nobody", |_| Ok(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_person_excepts_slots_and_late_truth_judges_repairs() {
    let world = World::new();
    let workflow =
        WORKFLOW.replace("repair: backfill, of: find, with: { source: vendor }", "repair: carry-forward, of: find, with: { max_age: 5h }");
    world.write("workflow.yaml", &workflow);
    let repair = world.open().await;
    repair.run().id("monday").await.unwrap();
    world.arrives("no2,2024-03-04T15:00:00Z,5");
    let report = repair.accuracy("readings").await.unwrap();
    let strategy = report.strategies.values().next().unwrap();
    assert_eq!((strategy.repaired, strategy.judged), (3, 1));

    repair.undo("monday").key("co").await.unwrap();
    let interval = Interval::parse("2024-03-04T07:00:00Z", "2024-03-04T09:00:00Z").unwrap();
    let error = repair.except("readings", interval, "switched off").await.unwrap_err();
    assert_eq!(error.remedy(), Some(&Hint::Key { columns: vec!["sensor".to_owned()] }), "{error}");
    let error = repair.except("readings", interval, " ").key("co").await.unwrap_err();
    assert!(error.message().contains("the reason is empty"), "{error}");
    let excepted = repair.except("readings", interval, "switched off").key("co").await.unwrap();
    assert_eq!(excepted.tables[0].absent, 2);
    assert!(!repair.plan().await.unwrap().has_work(), "nothing is expected of these slots any more");
    let removed = repair.unexcept("readings", interval, "it was on").key("co").await.unwrap();
    assert_eq!(removed.tables[0].absent, 2);
    assert_eq!(repair.plan().await.unwrap().missing(), 2);
    repair.redo(removed.id).await.unwrap();
    assert!(!repair.plan().await.unwrap().has_work());
}

#[tokio::test]
async fn a_key_that_a_table_has_never_had_is_refused() {
    let world = World::new();
    let repair = world.open().await;
    repair.run().id("monday").await.unwrap();
    let (then, hour) = (at("2024-03-04T07:30:00Z"), Interval::parse("2024-03-04T07:00:00Z", "2024-03-04T08:00:00Z").unwrap());
    let errors = [
        repair.why("readings", then).key("cO").await.unwrap_err(),
        repair.except("readings", hour, "switched off").key("n02").await.unwrap_err(),
        repair.unexcept("readings", hour, "it was on").key("noo2").await.unwrap_err(),
        repair.undo("monday").key("co").key("no3").await.unwrap_err(),
    ];
    let meant = ["co", "no2", "no2", "no2"];
    for (error, meant) in errors.into_iter().zip(meant) {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error.message().contains("has never had the key") && error.message().contains(&format!("did you mean `{meant}`?")),
            "{error}"
        );
    }
    let far = repair.why("readings", then).key("pressure").await.unwrap_err();
    assert!(far.message().ends_with("its keys are `co`, `no2`"), "{far}");
    // A row makes a key known, whether or not a run expects it.
    world.arrives("benzene,2024-03-04T09:00:00Z,1");
    assert_eq!(repair.why("readings", then).key("benzene").await.unwrap().standing, Standing::Missing);
}

#[tokio::test]
async fn a_plan_and_its_run_count_days_from_the_same_now() {
    let world = World::new();
    let opening = |now: &str| Repair::open(world.path("workflow.yaml")).lake(world.lake()).param("day", "yesterday").now(at(now));
    let repair = opening("2024-03-05T23:59:59Z").connect().await.unwrap();
    let plan = repair.plan().await.unwrap();
    assert_eq!((plan.missing(), &plan.params["day"], plan.now), (3, &"2024-03-04".into(), Some(at("2024-03-05T23:59:59Z"))));
    // The next day it is still the plan of that day.
    let text = plan.to_text().unwrap();
    let planned = Repair::planned(repair::plan::Plan::from_text(&text).unwrap());
    let error = Repair::planned(plan.clone()).now(at("2024-03-06T00:00:00Z")).connect().await.err().unwrap();
    assert!(error.message().contains("a plan has its own now, 2024-03-05T23:59:59Z"), "{error}");
    let report = planned.connect().await.unwrap().apply(&plan).await.unwrap();
    assert_eq!((report.outcome, report.missing), (Some(Outcome::Succeeded), 0));
    let state = repair.state(&report.run).await.unwrap();
    assert_eq!((state.started.now, &state.started.params["day"]), (at("2024-03-05T23:59:59Z"), &"2024-03-04".into()));

    // A run that is begun again without a now is the run that it was.
    let run = repair.run().id("nightly").await.unwrap();
    let later = Repair::open(world.path("workflow.yaml")).lake(world.lake()).param("day", "yesterday").connect().await.unwrap();
    assert_eq!(later.run().id("nightly").await.unwrap(), run);
    let other = opening("2024-03-07T02:00:00Z").connect().await.unwrap();
    assert_eq!(other.run().id("nightly").await.unwrap_err().kind(), ErrorKind::Conflict);

    let moving = WORKFLOW.replace("with: { root: lake }", "with: { root: \"{% 'lake' & $params.day %}\" }");
    world.write("moving.yaml", &moving);
    let error = Repair::open(world.path("moving.yaml")).param("day", "yesterday").connect().await.err().unwrap();
    assert!(error.message().contains("depends on a parameter that is relative to now"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_opened_is_refused_with_a_hint() {
    let world = World::new();
    let opening = |profile: &'static str| Repair::open(world.path("workflow.yaml")).profile(profile).param("day", "2024-03-04");
    let error = opening("elsewhere").connect().await.err().unwrap();
    assert_eq!((error.kind(), error.remedy()), (ErrorKind::NotFound, Some(&Hint::MissingLake { profile: Some("elsewhere".to_owned()) })));
    let error = opening("moon").connect().await.err().unwrap();
    let known = ["cloud", "elsewhere", "local"].map(str::to_owned).to_vec();
    assert_eq!(error.remedy(), Some(&Hint::Profile { known }), "{error}");
    if cfg!(not(feature = "aws")) {
        let error = opening("cloud").connect().await.err().unwrap();
        assert_eq!((error.kind(), error.remedy()), (ErrorKind::Invalid, Some(&Hint::Feature { name: "aws" })), "{error}");
        let error = OpenLake::at(Path::new("s3://bucket/lake")).err().unwrap();
        assert_eq!((error.kind(), error.remedy()), (ErrorKind::Invalid, Some(&Hint::Feature { name: "aws" })), "{error}");
    }
    world.write("workflow.yaml", &WORKFLOW.replace("detect: gaps", "detect: gasp"));
    let error = opening("local").connect().await.err().unwrap();
    assert!(matches!(error.remedy(), Some(Hint::CorrectFile { .. })) && error.full().contains("did you mean `gaps`"), "{error}");
    let error = Repair::text("w.yaml", WORKFLOW).lake(world.lake()).connect().await.err().unwrap();
    assert!(error.message().contains("day"), "{error}");
}

#[tokio::test]
async fn a_price_book_in_place_of_the_workflows_stays_with_the_run() {
    let world = World::new();
    for opening in [Repair::open(world.path("workflow.yaml")), Repair::text("w.yaml", WORKFLOW)] {
        let repair = opening.lake(world.lake()).param("day", "2024-03-04").prices(world.path("prices.yaml")).connect().await.unwrap();
        let report = repair.run().await.unwrap();
        let costs = OpenLake::at(world.lake()).unwrap().costs().runs([&report.run]).await.unwrap();
        assert_eq!(costs.prices.iter().collect::<Vec<_>>(), ["test of 2026-11-01"]);
    }
}

#[tokio::test]
async fn a_workflow_value_runs_on_adapters_of_its_own() {
    let registry = Arc::new(repair::registry());
    let text = "workflow: w\nkind: state-machine\nstart: done\nsteps:\n  done: { succeed: }\n";
    let workflow = repair::Workflow::parse("w.yaml", text, &registry).unwrap();
    let (lake, journal) = (Arc::new(MemoryLake::default()), Arc::new(MemoryJournal::default()));
    let repair = Repair::of(workflow).registry(registry).adapters(lake.clone(), journal.clone()).connect().await.unwrap();
    let plan = repair.plan().await.unwrap();
    assert!(!plan.has_work());
    let report = repair.apply(&plan).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded));
    assert_eq!(OpenLake::of(lake, journal).runs().await.unwrap().runs.len(), 1);
}
