//! What we keep ourselves: whatever is lost or changed in it, a run ends with the same rows or says what is wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::common::copy;
use async_trait::async_trait;
use futures::TryStreamExt;
use repair::arrow::array::AsArray;
use repair::arrow::datatypes::Float64Type;
use repair::core::engine::{Event, Fold, Journal, ListedRun, Recorded, RunHead, Signal};
use repair::core::lake::{Layer, ReadLake, ScanRequest};
use repair::jiff::Timestamp;
use repair::{Outcome, Repair, Result, RunReport};
use repair_local::{LocalLake, SqliteJournal};
use tokio::sync::Notify;

const WORKFLOW: &str = "\
workflow: air-quality
kind: state-machine
tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h }
sources:
  vendor: { source: stocks.archive, with: { location: archive, format: csv, keys_per_request: 1 } }
start: find
steps:
  find: { detect: gaps, with: { table: readings, keys: [co, no2], from: 2024-03-04, to: 2024-03-04 }, next: fill }
  fill: { repair: backfill, of: find, with: { source: vendor }, next: check }
  check: { verify: find, end: true }
";

/// The run of these tests.
const RUN: &str = "run";

/// A lake in which three of 48 rows are missing.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (table, lost) in [("archive", &[][..]), ("readings", &[("co", 7), ("co", 8), ("no2", 15)])] {
        let mut text = "sensor,ts,value\n".to_owned();
        for (sensor, hour) in ["co", "no2"].into_iter().flat_map(|sensor| (0..24).map(move |hour| (sensor, hour))) {
            if !lost.contains(&(sensor, hour)) {
                text.push_str(&format!("{sensor},2024-03-04T{hour:02}:00:00Z,{}\n", hour * 3 % 7));
            }
        }
        std::fs::create_dir_all(folder.path().join(table)).unwrap();
        std::fs::write(folder.path().join(table).join("2024-03-04.csv"), text).unwrap();
    }
    folder
}

/// A journal whose process stops when it is about to append an event.
struct Stopping {
    inner: SqliteJournal,
    at: fn(&Event) -> bool,
    stopped: Notify,
}

#[async_trait]
impl Journal for Stopping {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        if events.iter().any(self.at) {
            self.stopped.notify_one();
            std::future::pending::<()>().await;
        }
        self.inner.append(run, expected, at, events).await
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
        self.inner.read(run, from, limit).await
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        self.inner.runs().await
    }

    async fn listed(&self, now: Timestamp) -> Result<Vec<ListedRun>> {
        self.inner.listed(now).await
    }

    async fn keep(&self, run: &str, fold: Fold) -> Result<()> {
        self.inner.keep(run, fold).await
    }

    async fn kept(&self, run: &str) -> Result<Option<Fold>> {
        self.inner.kept(run).await
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        self.inner.acquire(run, driver, now, ttl).await
    }

    async fn release(&self, run: &str, driver: &str) -> Result<()> {
        self.inner.release(run, driver).await
    }

    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
        self.inner.driver(run, now).await
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
        self.inner.signal(run, signal).await
    }

    async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
        self.inner.signaled(run).await
    }
}

fn journal_of(root: &Path) -> PathBuf {
    root.join(".repair/journal.db")
}

async fn opened(root: &Path, journal: Arc<dyn Journal>) -> Result<Repair> {
    Repair::text("workflow.yaml", WORKFLOW).adapters(Arc::new(LocalLake::open(root)?), journal).connect().await
}

/// Runs until the process is about to append such an event; returns the lake as it is left if the process is killed there.
async fn killed_at(at: fn(&Event) -> bool) -> tempfile::TempDir {
    let (root, left) = (lake(), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(root.path().join(".repair")).unwrap();
    let journal = Arc::new(Stopping { inner: SqliteJournal::open(journal_of(root.path())).unwrap(), at, stopped: Notify::new() });
    let repair = opened(root.path(), journal.clone()).await.unwrap();
    tokio::select! {
        report = repair.run().id(RUN) => panic!("it ended: {report:?}"),
        () = journal.stopped.notified() => copy(root.path(), left.path()),
    }
    left
}

/// A lake in which the run has ended.
async fn ended() -> tempfile::TempDir {
    let root = lake();
    std::fs::create_dir_all(root.path().join(".repair")).unwrap();
    let repair = opened(root.path(), Arc::new(SqliteJournal::open(journal_of(root.path())).unwrap())).await.unwrap();
    repair.run().id(RUN).await.unwrap();
    drop(repair);
    testdata::wait_until("the journal is closed", || !root.path().join(".repair/journal.db-wal").exists());
    root
}

async fn resumed(root: &Path) -> Result<RunReport> {
    let repair = opened(root, Arc::new(SqliteJournal::open(journal_of(root))?)).await?;
    repair.resume(RUN).await
}

/// The repaired view of the table: each row's sensor and value, in order of sensor and time.
async fn view(root: &Path) -> Result<Vec<(String, f64)>> {
    let repair = opened(root, Arc::new(SqliteJournal::open(journal_of(root))?)).await?;
    let table = &repair.workflow().tables["readings"];
    let rows: Vec<_> = LocalLake::open(root)?.scan(table, &ScanRequest::new(Layer::Repaired)).await?.try_collect().await?;
    let mut all = Vec::new();
    for batch in rows {
        let times = batch.column_by_name("ts").unwrap().as_primitive::<repair::arrow::datatypes::TimestampMicrosecondType>().clone();
        let values = repair::arrow::compute::cast(batch.column_by_name("value").unwrap(), &repair::arrow::datatypes::DataType::Float64)?;
        for row in 0..batch.num_rows() {
            let sensor = batch.column_by_name("sensor").unwrap().as_string::<i32>().value(row).to_owned();
            all.push((sensor, times.value(row), values.as_primitive::<Float64Type>().value(row)));
        }
    }
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    Ok(all.into_iter().map(|(sensor, _, value)| (sensor, value)).collect())
}

fn truth() -> Vec<(String, f64)> {
    ["co", "no2"].into_iter().flat_map(|sensor| (0..24).map(move |hour| (sensor.to_owned(), f64::from(hour * 3 % 7)))).collect()
}

/// Everything that is not the user's own.
fn own_files(root: &Path) -> Vec<PathBuf> {
    let is_own = |path: &PathBuf| !path.starts_with(root.join("readings")) && !path.starts_with(root.join("archive"));
    testdata::paths(root).into_iter().filter(is_own).collect()
}

fn staged(root: &Path) -> Vec<PathBuf> {
    testdata::paths(&root.join(".repair")).into_iter().filter(|path| path.components().any(|part| part.as_os_str() == "staged")).collect()
}

fn flip(path: &Path, byte: usize, bit: u32) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_staged_unit_that_is_lost_damaged_or_another_is_repaired_again_and_paid_for_again() {
    for (stop, is_begun) in [
        ((|event| matches!(event, Event::PublishStarted { .. })) as fn(&Event) -> bool, false),
        (|event| matches!(event, Event::PublishEnded { .. }), true),
    ] {
        let stopped = killed_at(stop).await;
        let units = staged(stopped.path());
        assert_eq!(units.len(), 2, "{units:?}");
        for harm in 0..4 {
            let world = tempfile::tempdir().unwrap();
            copy(stopped.path(), world.path());
            let units = staged(world.path());
            match harm {
                0 => std::fs::remove_file(&units[0]).unwrap(),
                1 => std::fs::write(&units[0], "not Parquet").unwrap(),
                2 => flip(&units[0], 40, 3),
                _ => drop(std::fs::copy(&units[1], &units[0]).unwrap()),
            }
            let report = resumed(world.path()).await.unwrap_or_else(|error| panic!("{harm}: {}", error.full()));
            let asked = report.usage.source_requests;
            assert_eq!((report.outcome, report.missing, asked), (Some(Outcome::Succeeded), 0, 3), "{harm} {is_begun}: {:?}", report.reason);
            assert_eq!(view(world.path()).await.unwrap(), truth(), "{harm} {is_begun}");
            assert!(staged(world.path()).is_empty());
        }
    }
}

/// Of so many bytes, one is flipped for each seed. With all seeds below this number, every byte is.
const STRIDE: u64 = 1_009;

/// For each flip of a bit of our own state that a seed draws, one at a time, what `answer` gives.
async fn each_flip<T>(stopped: &Path, seed: u64, answer: impl AsyncFn(&Path) -> Result<T>, mut judge: impl FnMut(&str, Result<T>)) {
    let mut position = 0;
    for file in own_files(stopped) {
        let bytes = std::fs::metadata(&file).unwrap().len();
        let below = file.strip_prefix(stopped).unwrap();
        let is_due = |byte: u64| {
            (position + byte) % STRIDE == seed % STRIDE && ((position + byte) / STRIDE).is_multiple_of(testdata::by_length(2, 1))
        };
        for byte in (0..bytes).filter(|byte| is_due(*byte)) {
            let world = tempfile::tempdir().unwrap();
            copy(stopped, world.path());
            let bit = u32::try_from((position + byte) % 8).unwrap();
            flip(&world.path().join(below), usize::try_from(byte).unwrap(), bit);
            judge(&format!("bit {bit} of byte {byte} of {}", below.display()), answer(world.path()).await);
        }
        position += bytes;
    }
}

#[tokio::test]
async fn a_flipped_bit_of_our_own_state_never_gives_another_answer() {
    let (mut flipped, mut refused) = (0, 0);
    for seed in testdata::seeds(1, 4) {
        let _seed = testdata::PrintedOnPanic::seed(seed);
        // Stopped while units are staged: the run that continues ends with the same rows, or says why not.
        let stopped = killed_at(|event| matches!(event, Event::PublishStarted { .. })).await;
        let continued = async |root: &Path| {
            let report = resumed(root).await?;
            Ok((report.outcome, report.reason, view(root).await?))
        };
        each_flip(stopped.path(), seed, continued, |what, answer| {
            flipped += 1;
            match answer {
                Ok((Some(Outcome::Succeeded), _, rows)) => assert_eq!(rows, truth(), "{what}"),
                Ok((outcome, reason, _)) => {
                    refused += 1;
                    assert!(reason.is_some(), "{what}: {outcome:?}");
                }
                Err(_) => refused += 1,
            }
        })
        .await;
        // Ended: its report, its costs and the repaired rows are the same, or refused.
        let ended = ended().await;
        let read = async |root: &Path| {
            let repair = opened(root, Arc::new(SqliteJournal::open(journal_of(root))?)).await?;
            let report = repair.report(RUN).await?;
            Ok((report, serde_json::to_value(repair.costs().await?).unwrap(), view(root).await?))
        };
        let whole = read(ended.path()).await.unwrap();
        assert_eq!(whole.2, truth());
        each_flip(ended.path(), seed, read, |what, answer| {
            flipped += 1;
            match answer {
                Ok(answer) => assert_eq!(answer, whole, "{what}"),
                Err(_) => refused += 1,
            }
        })
        .await;
    }
    println!("{flipped} bits flipped, {refused} refused");
    assert!(flipped > 0 && (testdata::seeds_are_given() || refused > 10), "{refused} of {flipped}");
}

#[tokio::test]
async fn what_is_kept_is_checked_to_the_last_object() {
    let lake = ended().await;
    let check = async |root: &Path| {
        let repair = opened(root, Arc::new(SqliteJournal::open(journal_of(root)).unwrap())).await.unwrap();
        repair.verify_state().await.unwrap()
    };
    let whole = check(lake.path()).await;
    assert!(whole.is_intact() && whole.runs == 1 && whole.events > 5, "{whole:?}");
    let objects = own_files(lake.path()).into_iter().filter(|path| !path.to_string_lossy().contains("journal.db")).collect::<Vec<_>>();
    assert_eq!((whole.objects.intact, whole.objects.unsealed), (objects.len() as u64, 0), "{objects:?}");
    for object in objects {
        let below = object.strip_prefix(lake.path()).unwrap();
        let world = tempfile::tempdir().unwrap();
        copy(lake.path(), world.path());
        flip(&world.path().join(below), 20, 0);
        let found = check(world.path()).await;
        let places: Vec<&str> = found.objects.damaged.iter().map(|damaged| damaged.place.as_str()).collect();
        assert_eq!(places, [below.to_str().unwrap()], "{found:?}");
    }
    // A history with an event that is not what was written.
    let connection = rusqlite::Connection::open(journal_of(lake.path())).unwrap();
    connection.execute("UPDATE events SET body = replace(body, 'fill', 'fall') WHERE sequence = 4", []).unwrap();
    drop(connection);
    let found = check(lake.path()).await;
    assert!(found.objects.damaged.len() == 1 && found.objects.damaged[0].place == "run run", "{found:?}");
}
