//! A source that asks another lake than the one the workflow works on, which is only read.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use repair::{OpenLake, Opening, Outcome, Repair};

struct World(tempfile::TempDir);

impl World {
    /// Two stations, of which `a` lacks hours 3 and 7 and `b` hour 3; the old lake has all hours but the seventh.
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let lacks = |station: &str, hour: u32| (station, hour) == ("a", 7) || hour == 3;
        let hours = |more: i32, lacks: &dyn Fn(&str, u32) -> bool| -> String {
            let all = ["a", "b"].into_iter().flat_map(|station| (0..12).map(move |hour| (station, hour)));
            let there = all.filter(|(station, hour)| !lacks(station, *hour));
            there.map(|(station, hour)| format!("{station},2024-03-04T{hour:02}:00:00Z,{}\n", i64::from(hour) + i64::from(more))).collect()
        };
        world.write("lake/hours/0.csv", &format!("station,ts,value\n{}", hours(0, &lacks)));
        world.write("old/archive/0.csv", &format!("place,at,reading\n{}", hours(100, &|_, hour| hour == 7)));
        // What a lake keeps of its own files would go here.
        std::fs::create_dir_all(world.path().join("old/.repair")).unwrap();
        world
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// All files of the other lake with what is in them.
    fn old(&self) -> BTreeMap<String, Vec<u8>> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.path().join("old")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path.clone()),
                    false => drop(found.insert(path.display().to_string(), std::fs::read(&path).unwrap())),
                }
                found.entry(format!("{}/", path.display())).or_default();
            }
        }
        found
    }

    fn workflow(&self, query: &str, steps: &str) -> String {
        let old = self.path().join("old");
        format!(
            "workflow: w\nkind: dag\nparams: {{ more: {{ type: integer, default: 0 }} }}\ntables:\n  hours: {{ location: hours, format: csv, key: [station], time: ts, cadence: 1h, columns: {{ value: {{ type: \
             number }} }} }}\n  archive: {{ lake: old, location: archive, format: csv, csv: {{ names: [place, at, reading], header: true }}, key: [place], time: at, cadence: 1h, columns: {{ reading: {{ type: number }} \
             }} }}\nsources:\n  asked: {{ source: sql, with: {{ lake: old, query: \"{query}\" }} }}\nprofiles:\n  local: {{ lake: local, with: {{ root: {} }} }}\n  old: {{ lake: local, with: \
             {{ root: {} }} }}\nsteps:\n{steps}",
            self.path().join("lake").display(),
            old.display()
        )
    }

    fn opening(&self, query: &str, steps: &str) -> Opening {
        self.write("w.yaml", &self.workflow(query, steps));
        Repair::open(self.path().join("w.yaml"))
    }
}

const ALL: &str = "SELECT a.place AS station, a.at AS ts, a.reading + :more AS value FROM archive a JOIN $keys k ON k.station = a.place WHERE a.at >= :from AND a.at < :to";
const GAPS: &str = "  gaps: { detect: gaps, with: { table: hours, keys: [a, b], from: 2024-03-04T00:00:00Z, to: 2024-03-04T12:00:00Z } }\n";
const FILL: &str = "  fill: { after: [gaps], repair: backfill, of: gaps, with: { source: asked } }\n";

async fn values(repair: &Repair) -> Vec<String> {
    let sql = "SELECT station || ' ' || CAST(CAST(value AS bigint) AS varchar) AS row FROM hours_repaired WHERE repaired_by IS NOT NULL ORDER BY 1";
    let rows = repair.query(sql).first(100).await.unwrap_or_else(|error| panic!("{}", error.full())).rows;
    rows.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

#[tokio::test]
async fn rows_come_from_another_lake_in_which_nothing_is_written() {
    let world = World::new();
    let before = world.old();
    let steps = format!("{GAPS}{FILL}");
    let repair = world.opening(ALL, &steps).connect().await.unwrap_or_else(|error| panic!("{}", error.full()));
    let plan = repair.plan().await.unwrap();
    assert_eq!((plan.missing(), plan.total.high.queries), (3, 0), "nobody is paid for reading files");
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    let output = &report.step("fill").unwrap().output;
    assert_eq!((&output["repaired"], report.usage.source_requests > 0), (&2.into(), true), "{report:?}");
    assert_eq!(values(&repair).await, ["a 103", "b 103"]);
    assert_eq!(world.old(), before);
    // A run that is resumed or done again knows where the other lake is, and so does one of its own process.
    let story = repair.why("hours", "2024-03-04T03:00:00Z".parse().unwrap()).key("a").await.unwrap();
    assert_eq!(story.repairs[0].repair.provenance.source, "asked");
    assert!(repair.report_on(report.run.as_str()).await.is_ok());
}

/// A query of the repaired view sees the repairs of that lake.
#[tokio::test]
async fn a_query_of_another_lake_may_ask_its_repaired_view() {
    let world = World::new();
    let own = "workflow: of_old\nkind: dag\ntables:\n  archive: { location: archive, format: csv, key: [place], time: at, cadence: 1h, columns: { reading: { type: number } } }\nsteps:\n  \
               gaps: { detect: gaps, with: { table: archive, keys: [a, b], from: 2024-03-04T00:00:00Z, to: 2024-03-04T12:00:00Z } }\n  fill: { after: [gaps], repair: interpolate, of: \
               gaps, with: { columns: [reading] } }\n";
    world.write("of_old.yaml", own);
    Repair::open(world.path().join("of_old.yaml")).lake(world.path().join("old")).connect().await.unwrap().run().await.unwrap();
    let before = world.old();
    let repair = world.opening(&ALL.replace("FROM archive", "FROM archive_repaired"), &format!("{GAPS}{FILL}")).connect().await.unwrap();
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(report.step("fill").unwrap().output["repaired"], 3, "{report:?}");
    assert_eq!(values(&repair).await, ["a 103", "a 107", "b 103"]);
    assert_eq!(world.old(), before);
}

/// The first run meets a file that cannot be read. It is corrected, and the same run goes on in a process that knows nothing but the lake.
#[tokio::test]
async fn a_run_that_is_redriven_finds_the_other_lake_again() {
    let world = World::new();
    let good = std::fs::read_to_string(world.path().join("old/archive/0.csv")).unwrap();
    world.write("old/archive/0.csv", &good.replace("103", "much"));
    let repair = world.opening(ALL, &format!("{GAPS}{FILL}")).connect().await.unwrap();
    let failed = repair.run().id("one").await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(failed.outcome, Some(Outcome::Failed), "{failed:?}");
    world.write("old/archive/0.csv", &good);
    let lake = OpenLake::at(world.path().join("lake")).unwrap();
    let done = lake.redrive("one").await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(
        (done.outcome, &done.step("fill").unwrap().output["repaired"]),
        (Some(Outcome::SucceededWithExceptions), &2.into()),
        "{done:?}"
    );
    // Where the other lake is gone, that is said.
    std::fs::rename(world.path().join("old"), world.path().join("gone")).unwrap();
    let error = lake.redrive("one").await.unwrap_err();
    assert!(error.full().contains("there is no folder") && error.full().contains("old"), "{}", error.full());
}

/// A table there may be called as one here: the workflow calls it something else, and the query sees the one of the other lake.
#[tokio::test]
async fn a_table_of_the_other_lake_may_have_the_name_of_an_own_one() {
    let world = World::new();
    let text = world.workflow(&ALL.replace("FROM archive a", "FROM hours a"), &format!("{GAPS}{FILL}"));
    let text = text.replace("archive: { lake: old,", "theirs: { lake: old, name: hours,");
    world.write("w.yaml", &text);
    let repair = Repair::open(world.path().join("w.yaml")).connect().await.unwrap_or_else(|error| panic!("{}", error.full()));
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(report.step("fill").unwrap().output["repaired"], 2, "{report:?}");
    assert_eq!(values(&repair).await, ["a 103", "b 103"]);
    for (text, said) in [
        (text.replace("name: hours", "name: \"ho urs\""), "ho urs"),
        (text.replace("hours: { location", "hours: { name: minutes, location"), "`name` is what a table of another lake is called there"),
        (
            text.replace("theirs: {", "more: { lake: old, name: HOURS, location: x, format: csv, time: at }\n  theirs: {"),
            "in the lake of profile `old`, too",
        ),
    ] {
        let refused = repair::core::workflow::Workflow::parse("w.yaml", &text, &repair::registry()).unwrap_err().to_string();
        assert!(refused.contains(said), "{said}: {refused}");
    }
    let built = repair::core::workflow::Workflow::dag("built");
    let own = repair::core::model::Table::new("hours", repair::core::model::Format::Csv, "ts");
    let built = built.table(own.clone()).table_in("old", "theirs", own.with_location("archive"));
    let built = built.profile("old", "local", serde_json::json!({ "root": "old" }));
    let built = built.step("costs", repair::core::workflow::Step::task("usage"));
    let built = built.build(repair::registry()).unwrap_or_else(|error| panic!("{error}"));
    let built = built.workflow;
    assert_eq!((built.tables["hours"].location.as_str(), built.elsewhere["old"]["hours"].location.as_str()), ("hours", "archive"));
}

/// The steps within a map read it, too, each in a run of its own.
#[tokio::test]
async fn runs_within_a_run_read_the_other_lake() {
    let world = World::new();
    let map = "  each:\n    map: { over: [a, b] }\n    start: look\n    steps:\n      look: { detect: gaps, with: { table: hours, keys: [\"{% $item %}\"], from: 2024-03-04T00:00:00Z, to: \
               2024-03-04T12:00:00Z }, next: fill }\n      fill: { repair: backfill, of: look, with: { source: asked }, end: true }\n";
    let repair = world.opening(ALL, map).connect().await.unwrap_or_else(|error| panic!("{}", error.full()));
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!(report.step("each").unwrap().output["items"], 2, "{report:?}");
    assert_eq!(values(&repair).await, ["a 103", "b 103"]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_asked() {
    let world = World::new();
    let refusal = |text: String| {
        world.write("w.yaml", &text);
        async {
            let opened = Repair::open(world.path().join("w.yaml")).connect().await;
            match opened {
                Err(error) => error.full(),
                Ok(repair) => match repair.run().await {
                    Err(error) => error.full(),
                    Ok(report) => panic!("{report:?}"),
                },
            }
        }
    };
    let steps = format!("{GAPS}{FILL}");
    let good = || world.workflow(ALL, &steps);
    for (text, said) in [
        (good().replace("archive: { lake: old", "archive: { lake: odl"), "there is no profile `odl`"),
        (good().replace("with: { lake: old, query", "with: { lake: ancient, query"), "no table is in a lake `ancient`"),
        (good().replace("archive: { lake: old", "archive: { lake: local"), "no table is in a lake `old`"),
        (
            good().replace("table: hours", "table: archive"),
            "table `archive` is in the lake of profile `old`, and only queries of sources see it",
        ),
        (good().replace("a.reading + :more", "a.raeding"), "names column `raeding`"),
        (good().replace("a.reading + :more", "a.reading + :mroe"), "mroe"),
        (good().replace("FROM archive a", "FROM hours a"), "hours"),
        (good().replace("lake: old, location: archive", "lake: old, location: elsewhere"), "elsewhere"),
        (good().replace(&world.path().join("old").display().to_string(), "/nowhere/at/all"), "there is no folder /nowhere/at/all"),
    ] {
        let refused = refusal(text).await;
        assert!(refused.contains(said), "{said}: {refused}");
    }
    assert!(!world.path().join("lake/.repair").exists(), "no run has begun");
    let workflow =
        repair::core::workflow::Workflow::parse("w.yaml", &good().replace("a.reading + :more", "a.raeding"), &repair::registry()).unwrap();
    let registry = Arc::new(repair::registry());
    let refused = repair::plan::refusals(&registry, &workflow, &BTreeMap::new(), jiff::Timestamp::now()).await.unwrap();
    let said: HashSet<String> = refused.iter().map(repair::Error::full).collect();
    assert!(said.iter().any(|error| error.contains("names column `raeding`") && error.contains("w.yaml:")), "{said:?}");
}

/// In a comparison, a query of another lake must not be a way to the hidden rows.
#[tokio::test]
async fn a_comparison_refuses_another_lake_that_has_the_table_that_is_hidden() {
    let world = World::new();
    let steps = format!("{GAPS}{FILL}");
    let repair = world.opening(ALL, &steps).connect().await.unwrap();
    let report = repair.compare().share("20%".parse().unwrap()).seed(3).await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert!(report.hidden > 0 && report.strategies.iter().all(|strategy| strategy.problems.is_empty()), "{report:?}");
    // The same table by another profile.
    let text = world
        .workflow(ALL, &steps)
        .replace("lake: old, location: archive", "lake: old, location: hours")
        .replace("names: [place, at, reading]", "names: [station, ts, value]");
    let text = text
        .replace("key: [place], time: at", "key: [station], time: ts")
        .replace("a.place AS station, a.at AS ts, a.reading + :more", "a.station, a.ts, a.value");
    let text =
        text.replace("= a.place WHERE a.at >= :from AND a.at < :to", "= a.station").replace("columns: { reading", "columns: { value");
    let text = text.replace(&world.path().join("old").display().to_string(), &world.path().join("lake").display().to_string());
    world.write("same.yaml", &text);
    let repair = Repair::open(world.path().join("same.yaml")).connect().await.unwrap_or_else(|error| panic!("{}", error.full()));
    let error = repair.compare().share("20%".parse().unwrap()).seed(3).await.unwrap_err();
    assert!(error.full().contains("would run some"), "{}", error.full());
}
