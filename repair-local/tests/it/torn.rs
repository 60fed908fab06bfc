//! A journal whose file or log was cut or scratched anywhere: what is read is what was written, up to some append, or a clean error.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use repair_core::engine::{Event, Journal, Recorded};
use repair_local::SqliteJournal;
use rusqlite::Connection;

/// Prime, so that it meets every place within a page sooner or later.
const STRIDE: usize = 97;

/// Places that are tried where tests may not take long; those that come first are spread over all of the file.
const MOST: usize = 250;

/// What was appended, by run: for each append the events there were after it.
type Written = BTreeMap<String, Vec<usize>>;

struct World {
    folder: tempfile::TempDir,
    histories: BTreeMap<String, Vec<Recorded>>,
    written: Written,
    file: Vec<u8>,
    log: Vec<u8>,
}

/// A journal of several runs, whose appends took turns, as a crash leaves it: all that was appended is in the log, and nothing of it in the
/// file.
async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.db");
    let journal = SqliteJournal::open(&path).unwrap();
    // Who reads keeps the log from being copied into the file.
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM runs;").unwrap();
    let mut written = Written::new();
    for round in 0..4u32 {
        for run in 0..4u32 {
            let (name, count) = (format!("run {run}"), round % 3 + 1);
            let ends = written.entry(name.clone()).or_default();
            let begin = ends.last().copied().unwrap_or(0);
            let long = "a name that takes some room ".repeat(usize::try_from(run * 10).unwrap());
            let events: Vec<Event> =
                (0..count).map(|number| Event::StepEntered { step: format!("{long}{round}"), visit: number }).collect();
            journal.append(&name, begin as u64, Timestamp::from_second(i64::from(round)).unwrap(), &events).await.unwrap();
            ends.push(begin + events.len());
        }
    }
    let mut histories = BTreeMap::new();
    for run in written.keys() {
        histories.insert(run.clone(), journal.read(run, 0, usize::MAX).await.unwrap());
    }
    let file = std::fs::read(&path).unwrap();
    let log = std::fs::read(folder.path().join("runs.db-wal")).unwrap();
    drop((journal, reader));
    World { folder, histories, written, file, log }
}

/// Places all over a file, spread.
fn places(length: usize) -> Vec<usize> {
    let all: Vec<usize> = (0..length).step_by(STRIDE).collect();
    let spread = (0..16).flat_map(|first| all.iter().skip(first).step_by(16).copied().collect::<Vec<_>>());
    spread.take(testdata::by_length(MOST, usize::MAX)).collect()
}

impl World {
    fn place(&self, file: &[u8], log: &[u8]) -> PathBuf {
        let path = self.folder.path().join("broken.db");
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.folder.path().join(format!("broken.db{end}")));
        }
        std::fs::write(&path, file).unwrap();
        if !log.is_empty() {
            std::fs::write(self.folder.path().join("broken.db-wal"), log).unwrap();
        }
        path
    }

    /// How many events of each run are there, if the journal can be read. Panics unless they are the first that were written, and end with
    /// an append; and unless an error names the file.
    async fn there(&self, path: &Path, to_write: bool, what: &str) -> Option<BTreeMap<String, usize>> {
        let told = |error: repair_core::Error| {
            assert!(error.full().contains(path.to_str().unwrap()), "{what}: an error must name the file: {}", error.full());
        };
        let opened = if to_write { SqliteJournal::open(path) } else { SqliteJournal::open_to_read(path) };
        let journal = opened.map_err(told).ok()?;
        let mut there = BTreeMap::new();
        let mut is_whole = true;
        for (run, history) in &self.histories {
            // In small pages, so that damage is met within one and at its end.
            let mut found: Vec<Recorded> = Vec::new();
            let page = loop {
                match journal.read(run, found.len() as u64, 3).await {
                    Ok(page) => {
                        let is_last = page.len() < 3;
                        found.extend(page);
                        if is_last {
                            break Ok(());
                        }
                    }
                    Err(error) => break Err(error),
                }
            };
            assert!(history.starts_with(&found), "{what}: run {run} is not what was written");
            match page {
                Ok(()) => {
                    let ends = &self.written[run];
                    assert!(found.is_empty() || ends.contains(&found.len()), "{what}: {run} ends within an append");
                    there.insert(run.clone(), found.len());
                }
                Err(error) => {
                    told(error);
                    is_whole = false;
                }
            }
        }
        match journal.runs().await {
            Ok(heads) if is_whole => {
                for head in heads {
                    let history = &self.histories[&head.run][..there[&head.run]];
                    assert_eq!((Some(&head.first), Some(&head.last)), (history.first(), history.last()), "{what}");
                }
            }
            Ok(_) => {}
            Err(error) => {
                told(error);
                is_whole = false;
            }
        }
        is_whole.then_some(there)
    }

    fn all(&self) -> BTreeMap<String, usize> {
        self.histories.iter().map(|(run, history)| (run.clone(), history.len())).collect()
    }
}

/// Of appends that took turns: whether these are what there was after some append, each run's with those before it.
fn is_after_some_append(written: &Written, there: &BTreeMap<String, usize>) -> bool {
    let mut now: BTreeMap<String, usize> = written.keys().map(|run| (run.clone(), 0)).collect();
    let mut known = vec![now.clone()];
    for round in 0..written.values().map(Vec::len).max().unwrap_or(0) {
        for (run, ends) in written {
            now.insert(run.clone(), ends[round]);
            known.push(now.clone());
        }
    }
    known.contains(there)
}

#[tokio::test]
async fn a_log_that_is_cut_anywhere_holds_the_appends_before_the_cut() {
    let world = world().await;
    let path = world.place(&world.file, &world.log);
    assert_eq!(world.there(&path, true, "whole").await, Some(world.all()), "all is in the log");
    let mut seen = std::collections::BTreeSet::new();
    for (number, cut) in places(world.log.len()).into_iter().enumerate() {
        let path = world.place(&world.file, &world.log[..cut]);
        let there = world.there(&path, number % 8 == 0, &format!("cut at {cut}")).await;
        let there = there.unwrap_or_else(|| panic!("a log that is cut at {cut} is one that a crash left"));
        assert!(is_after_some_append(&world.written, &there), "cut at {cut}: {there:?}");
        seen.insert(there);
    }
    assert!(seen.len() > 10, "cuts between most appends were tried, {}", seen.len());
}

#[tokio::test]
async fn a_log_that_is_scratched_anywhere_holds_the_appends_before_the_scratch() {
    let world = world().await;
    for (number, at) in places(world.log.len()).into_iter().enumerate() {
        let mut log = world.log.clone();
        log[at] ^= [0x01, 0x80, 0xFF][number % 3];
        let path = world.place(&world.file, &log);
        if let Some(there) = world.there(&path, number % 8 == 0, &format!("scratched at {at}")).await {
            assert!(is_after_some_append(&world.written, &there), "scratched at {at}: {there:?}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_scratched_or_cut_anywhere_holds_all_or_tells() {
    let world = world().await;
    // Whole, in the file, with no log: as a journal that was closed.
    let path = world.place(&world.file, &world.log);
    drop(SqliteJournal::open(&path).unwrap());
    let file = std::fs::read(&path).unwrap();
    assert!(!world.folder.path().join("broken.db-wal").exists());
    let mut told = 0;
    for (number, at) in places(file.len()).into_iter().enumerate() {
        let mut scratched = file.clone();
        scratched[at] ^= [0x01, 0x80, 0xFF][number % 3];
        let cut = file[..at].to_vec();
        for (bytes, what) in [(scratched, "scratched"), (cut, "cut")] {
            let path = world.place(&bytes, &[]);
            let what = format!("{what} at {at}");
            match world.there(&path, number % 8 == 0, &what).await {
                Some(there) => assert_eq!(there, world.all(), "{what}: without a log, nothing was left to a crash"),
                None => told += 1,
            }
        }
    }
    assert!(told > 100, "{told}");
}
