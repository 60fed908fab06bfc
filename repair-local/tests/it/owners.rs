//! An overlay belongs to one location, however it is written and wherever the lake is moved, and no table reads it as rows of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::{Layer, Overlay, ReadLake};
use repair_core::model::{SlotRange, Table};
use repair_core::{Error, ErrorKind};
use repair_local::{LocalLake, SqliteJournal};

const RAW: &str = "2018-04-04T00:00:00Z";
const FIXED: &str = "2018-04-04T00:01:00Z";

/// A folder of rows outside any lake.
fn outside(name: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join(name).to_str().unwrap().to_owned();
    write_table(Path::new("/"), &bars().with_location(&location), &[row("A", RAW, 1.0)], 1, &Stored::default());
    (folder, location)
}

fn named(name: &str, location: &str) -> Table {
    Table { name: name.to_owned(), ..bars().with_location(location) }
}

/// A table of the lake with one row.
fn inside(world: &World, name: &str, location: &str) -> Table {
    let table = named(name, location);
    write_table(world.root(), &table, &[row("A", RAW, 1.0)], 1, &Stored::default());
    table
}

async fn fill(lake: &LocalLake, table: &Table, run: &str) {
    repair(lake, table, run, &[row("A", FIXED, 2.0)], vec![]).await;
}

fn retraction(id: &str) -> Retraction {
    Retraction {
        id: id.to_owned(),
        parts: vec![Part::of_run("one")],
        undoes: None,
        at: at("2018-05-02T00:00:00Z"),
        by: "somebody".to_owned(),
        reason: "wrong".to_owned(),
    }
}

/// Who repaired the rows of the view.
async fn shown(lake: &LocalLake, table: &Table) -> Vec<Option<String>> {
    let stream = lake.scan(table, &all(Layer::Repaired)).await.unwrap_or_else(|error| panic!("{}: {}", table.location, error.full()));
    seen(&collect(stream).await.unwrap()).into_iter().map(|(_, by)| by).collect()
}

fn both() -> Vec<Option<String>> {
    vec![None, Some("backfill".to_owned())]
}

/// The errors of everything that reads an overlay or adds to it.
async fn refusals(lake: &LocalLake, table: &Table) -> Vec<Error> {
    let mut errors = Vec::new();
    errors.push(lake.repairs_of(table).await.map(|_| ()).unwrap_err());
    let slots = whole(table, "2018-04-04", "2018-04-05", &["A"]);
    errors.push(lake.presence(table, &slots).await.map(|_| ()).unwrap_err());
    let scan = match lake.scan(table, &all(Layer::Repaired)).await {
        Ok(stream) => collect(stream).await.map(|_| ()),
        Err(error) => Err(error),
    };
    errors.push(scan.unwrap_err());
    errors.push(lake.extent(table, None).await.map(|_| ()).unwrap_err());
    errors.push(lake.retractions(table).await.map(|_| ()).unwrap_err());
    errors.push(lake.to_create(table).await.map(|_| ()).unwrap_err());
    errors.push(lake.retract(table, &retraction("other")).await.unwrap_err());
    let (of_table, fix) = (scope(table, "other"), fix(&[row("A", FIXED, 3.0)], vec![]));
    errors.push(lake.stage(&of_table, &request("unit", &fix)).await.map(|_| ()).unwrap_err());
    // Staged before the overlay became another's.
    let free = Table { name: "free".to_owned(), ..table.clone() };
    let free = if table.location == "bars" { named("free", "deep/free") } else { free };
    lake.stage(&scope(&free, "other"), &request("unit", &fix)).await.unwrap();
    errors.push(lake.publish(&of_table, 0, &["unit".to_owned()]).await.map(|_| ()).unwrap_err());
    // This is what users' SQL reads.
    errors.push(lake.rows_of(table, Layer::Repaired, TimeBounds::ALL, Vec::new()).await.map(|_| ()).unwrap_err());
    errors
}

#[tokio::test]
async fn a_table_never_reads_or_adds_to_the_repairs_of_another() {
    let ((_first, one), (_second, two)) = (outside("bars"), outside("bars"));
    let world = World::new();
    inside(&world, "own", "bars");
    inside(&world, "free", "deep/free");
    let tables =
        [named("bars", &one), named("bars", &two), named("own", "bars"), named("bars", "bars/*.parquet"), named("bars", "*/0.parquet")];
    for (at, owner) in tables.iter().enumerate() {
        for kind in ["_repairs", "_exceptions", "_retractions"] {
            let _ = fs::remove_dir_all(world.root().join(format!("bars{kind}")));
        }
        fill(&world.lake, owner, "one").await;
        assert_eq!(shown(&world.lake, owner).await, both(), "{}", owner.location);
        let before = tree(&world.root().join("bars_repairs"));
        for other in tables.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other) {
            for error in refusals(&world.lake, other).await {
                let said = error.full();
                assert_eq!(error.kind(), ErrorKind::Conflict, "{} and {}: {said}", owner.location, other.location);
                let written = |table: &Table| said.contains(&table.location) && said.contains("bars_repairs/_owner.json");
                assert!(written(owner) && written(other), "{} and {}: {said}", owner.location, other.location);
            }
            // Its own rows are read as ever.
            let raw = seen(&collect(world.lake.scan(other, &all(Layer::Raw)).await.unwrap()).await.unwrap());
            assert!(!raw.is_empty() && raw.iter().all(|(row, _)| row.time_us == us(RAW)), "{}", other.location);
            // A table of another name has an overlay of its own.
            fill(&world.lake, &Table { name: "other".to_owned(), ..tables[1].clone() }, "one").await;
        }
        assert_eq!(tree(&world.root().join("bars_repairs")), before);
        assert!(!world.root().join("bars_retractions").exists());
    }
}

#[tokio::test]
async fn one_location_written_in_many_ways_is_one_owner() {
    let (folder, one) = outside("bars");
    let world = World::new();
    inside(&world, "t", "raw/t");
    let link = folder.path().join("link");
    let root = folder.path().join("root");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&one, &link).unwrap();
        std::os::unix::fs::symlink(world.root(), &root).unwrap();
        std::os::unix::fs::symlink(world.root().join("raw"), world.root().join("way")).unwrap();
    }
    let up = "../".repeat(world.root().components().count() - 1);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let relative = format!("{up}{}", one.trim_start_matches('/'));
    let elsewhere = [one.clone(), format!("{one}/"), format!("{one}/../bars/."), relative, path(&link)];
    let within = [
        "raw/t".to_owned(),
        "./raw//t/".to_owned(),
        "raw/../raw/t".to_owned(),
        path(&world.root().join("raw/t")),
        path(&root.join("raw/t")),
    ];
    let globs = ["raw/t/*.parquet".to_owned(), "./raw/t/*.parquet".to_owned(), path(&world.root().join("raw/t/*.parquet"))];
    for (name, spellings) in [("bars", &elsewhere[..]), ("t", &within[..]), ("g", &globs[..])] {
        let spellings: Vec<Table> = spellings.iter().map(|location| named(name, location)).collect();
        for (run, table) in spellings.iter().enumerate() {
            fill(&world.lake, table, &format!("run-{run}")).await;
            for other in &spellings {
                assert_eq!(shown(&world.lake, other).await, both(), "{} and {}", table.location, other.location);
            }
        }
    }
    // The folder of the overlay is reached by another name, too.
    assert_eq!(shown(&world.lake, &named("t", "way/t")).await, both());
}

fn copied(from: &Path, to: &Path) {
    for (path, bytes) in tree(from) {
        let path = to.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[tokio::test]
async fn a_lake_that_is_moved_or_opened_at_another_root_keeps_its_repairs() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a/lake"), folder.path().join("b/lake"));
    fs::create_dir_all(&first).unwrap();
    let lake = LocalLake::open(&first).unwrap();
    let tables = [named("t", "raw/t"), named("g", "raw/t/*.parquet"), named("n", "../near")];
    for location in ["raw/t", "../near"] {
        write_table(lake.root(), &named("t", location), &[row("A", RAW, 1.0)], 1, &Stored::default());
    }
    for table in &tables {
        fill(&lake, table, "one").await;
    }
    copied(&folder.path().join("a"), &folder.path().join("b"));
    fs::remove_dir_all(folder.path().join("a")).unwrap();
    let moved = LocalLake::open(&second).unwrap();
    for table in &tables {
        assert_eq!(shown(&moved, table).await, both(), "{}", table.location);
        fill(&moved, table, "two").await;
    }
    // Another root changes how a location is written, and a renamed folder its name.
    let lake = LocalLake::open(second.join("raw")).unwrap();
    assert_eq!(shown(&lake, &named("t", "t")).await, both());
    fs::rename(second.join("raw/t"), second.join("raw/u")).unwrap();
    fs::rename(second.join("raw/t_repairs"), second.join("raw/u_repairs")).unwrap();
    assert_eq!(shown(&lake, &named("t", "u")).await, both());
}

/// An overlay as earlier versions left it: without a record.
fn unmarked(root: &Path) {
    for path in tree(root).into_keys().filter(|path| path.ends_with("_owner.json")) {
        fs::remove_file(root.join(path)).unwrap();
    }
}

#[tokio::test]
async fn an_overlay_without_a_record_is_found_and_gets_one_with_the_next_write() {
    let (_folder, one) = outside("bars");
    for location in [one.as_str(), "bars", "bars/*.parquet"] {
        let world = World::new();
        inside(&world, "own", "bars");
        inside(&world, "free", "deep/free");
        let table = named("bars", location);
        fill(&world.lake, &table, "one").await;
        unmarked(world.root());
        assert_eq!(shown(&world.lake, &table).await, both(), "{location}");
        let before = tree(world.root());
        world.lake.extent(&table, None).await.unwrap();
        assert_eq!(tree(world.root()), before, "to read writes nothing");
        world.lake.retract(&table, &retraction("undo-1")).await.unwrap();
        assert_eq!(shown(&world.lake, &table).await, [None]);
        assert!(world.root().join("bars_repairs/_owner.json").is_file(), "{location}");
        let other = if location == "bars" { "bars/*.parquet" } else { "bars" };
        assert!(refusals(&world.lake, &named("bars", other)).await.iter().all(|error| error.kind() == ErrorKind::Conflict));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_write_first_at_once_one_is_refused() {
    for round in 0..10 {
        let ((_first, one), (_second, two)) = (outside("bars"), outside("bars"));
        let world = World::new();
        let publish = async |location: &str, run: &str| {
            let (table, fix) = (named("bars", location), fix(&[row("A", FIXED, 2.0)], vec![]));
            let lake = LocalLake::open(world.root()).unwrap();
            let scope = scope(&table, run);
            // The slower one may be refused before it publishes.
            lake.stage(&scope, &request("unit", &fix)).await?;
            lake.publish(&scope, 0, &["unit".to_owned()]).await.map(|_| ())
        };
        let (first, second) = tokio::join!(publish(&one, "one"), publish(&two, "two"));
        let refused = [first, second].into_iter().filter_map(Result::err).map(|error| error.kind()).collect::<Vec<_>>();
        assert_eq!(refused, [ErrorKind::Conflict], "round {round}");
        let files: Vec<String> = tree(&world.root().join("bars_repairs")).into_keys().collect();
        assert_eq!(files.len(), 2, "{files:?}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_refused() {
    let world = World::new();
    let table = inside(&world, "bars", "bars");
    for (record, kind) in [
        ("", ErrorKind::Invalid),
        ("{}", ErrorKind::Invalid),
        (r#"{"format":2,"table":"bars","location":"bars","beside":true}"#, ErrorKind::Invalid),
    ] {
        world.write("bars_repairs/_owner.json", record);
        let error = world.lake.retractions(&table).await.unwrap_err();
        assert!(error.kind() == kind && error.full().contains("_owner.json"), "{}", error.full());
    }
}

/// A table whose location holds others, their overlays and its own.
#[tokio::test]
async fn overlays_below_a_table_are_not_its_rows() {
    for is_marked in [true, false] {
        let (_folder, one) = outside("away");
        let world = World::new();
        let (first, second) = (inside(&world, "one", "data/one"), inside(&world, "two", "data/deep/region=x"));
        let day = first.grid().unwrap().slot_of(at(FIXED));
        for table in [&first, &second, &named("away", &one)] {
            repair(
                &world.lake,
                table,
                "one",
                &[row("A", FIXED, 2.0)],
                vec![absence("A", SlotRange::new(day + 5, day + 9), "2029-01-01T00:00:00Z")],
            )
            .await;
            world.lake.retract(table, &retraction("undo-1")).await.unwrap();
        }
        let daily = Table { partition_by: by(repair_core::model::PartitionUnit::Day), ..inside(&world, "three", "data/three") };
        fs::remove_file(world.root().join("data/three/0.parquet")).unwrap();
        write_table(world.root(), &daily, &[row("B", RAW, 1.0)], 1, &Stored::default());
        repair(&world.lake, &daily, "one", &[row("B", FIXED, 2.0)], vec![]).await;
        if !is_marked {
            unmarked(world.root());
        }
        for (location, rows) in [("data", 3), (".", 3), ("data/deep", 1), ("**/*.parquet", 3), ("data/*/*.parquet", 1)] {
            let table = named("all", location);
            let raw = seen(&collect(world.lake.scan(&table, &all(Layer::Raw)).await.unwrap()).await.unwrap());
            assert_eq!(raw.len(), rows, "{location}: {raw:?}");
            let presence = world.lake.presence(&table, &whole(&table, "2018-04-04", "2018-04-05", &["A", "B"])).await.unwrap();
            assert!(presence.raw.keys.values().all(|key| key.present.iter().count() <= 1), "{location}");
            assert_eq!(world.lake.extent(&table, None).await.unwrap().objects, rows as u64, "{location}");
        }
        // Who names an overlay, means it.
        for location in ["data/one_repairs", "data/*_repairs/*.parquet"] {
            let raw = seen(&collect(world.lake.scan(&named("ours", location), &all(Layer::Raw)).await.unwrap()).await.unwrap());
            assert_eq!(raw.len(), 1, "{location}: {raw:?}");
        }
    }
}

#[tokio::test]
async fn rows_in_a_folder_that_is_only_named_like_an_overlay_are_read() {
    let world = World::new();
    for location in ["data/car_repairs", "data/car_exceptions/x", "data/paper_retractions", "data/_repairs"] {
        write_table(world.root(), &named("x", location), &[row("A", RAW, 1.0)], 1, &Stored::default());
    }
    let raw = seen(&collect(world.lake.scan(&named("all", "data"), &all(Layer::Raw)).await.unwrap()).await.unwrap());
    assert_eq!(raw.len(), 3);
}

#[cfg(unix)]
#[tokio::test]
async fn the_overlay_of_a_table_behind_a_link_stays_within_the_root() {
    let (folder, _) = outside("bars");
    let world = World::new();
    std::os::unix::fs::symlink(folder.path(), world.root().join("link")).unwrap();
    let table = named("t", "link/bars");
    let before = tree(folder.path());
    fill(&world.lake, &table, "one").await;
    assert_eq!(shown(&world.lake, &table).await, both());
    assert_eq!(tree(folder.path()), before);
    assert!(world.root().join("t_repairs").is_dir());
    // What an earlier version wrote there is not forgotten.
    fs::create_dir(folder.path().join("bars_repairs")).unwrap();
    let error = world.lake.retractions(&table).await.unwrap_err();
    let said = error.full();
    let places: [PathBuf; 2] = [folder.path().canonicalize().unwrap().join("bars_repairs"), world.root().join("t_repairs")];
    assert!(places.iter().all(|place| said.contains(place.to_str().unwrap())), "{said}");
}

/// A link that leads to itself cannot be followed, as on a disk that fails: nobody knows what is there.
#[cfg(unix)]
#[tokio::test]
async fn what_cannot_be_looked_at_is_not_taken_for_nothing() {
    let world = World::new();
    let table = inside(&world, "one", "data/one");
    fill(&world.lake, &table, "one").await;
    let circle = |path: PathBuf| std::os::unix::fs::symlink(&path, &path).unwrap();
    let of_the_disk = |error: &Error, what: &str| {
        assert!(error.kind() == ErrorKind::Transient && error.full().contains(what), "{}", error.full());
    };

    // Whether this is an overlay: if not, its rows would be the table's own.
    let record = world.root().join("data/one_repairs/_owner.json");
    fs::remove_file(&record).unwrap();
    circle(record);
    of_the_disk(&world.lake.scan(&named("all", "data"), &all(Layer::Raw)).await.map(|_| ()).unwrap_err(), "_owner.json");

    // Whether a location is a glob, and where it leads.
    circle(world.root().join("loop[1]"));
    of_the_disk(&world.lake.describe(&named("all", "loop[1]")).await.unwrap_err(), "loop[1]");

    // Whether there is a journal, a log of it, or a folder for both: if not, a new one would be begun.
    let folder = world.root().join("kept");
    circle(folder.clone());
    for open in [SqliteJournal::open(folder.join("journal.db")), SqliteJournal::create(folder.join("journal.db"))] {
        of_the_disk(&open.unwrap_err(), "kept");
    }
    circle(world.root().join("journal.db-wal"));
    of_the_disk(&SqliteJournal::open(world.root().join("journal.db")).unwrap_err(), "journal.db");

    // Whether the folder of the log of a table format is one.
    let table = inside(&world, "log", "log");
    circle(world.root().join("log/_delta_log"));
    of_the_disk(&world.lake.describe(&table).await.unwrap_err(), "_delta_log");
}
