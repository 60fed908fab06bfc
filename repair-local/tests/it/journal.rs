//! The journal: what is appended is there, in order, once; and damage is told.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails, panics"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use repair_core::ErrorKind;
use repair_core::engine::{Event, Fold, Journal, ListedRun, Recorded, Signal};
use repair_local::SqliteJournal;
use rusqlite::Connection;
use tempfile::TempDir;

const ALL: usize = usize::MAX;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.db");
    (folder, path)
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 123_456_789).unwrap()
}

fn entered(step: &str, visit: u32) -> Event {
    Event::StepEntered { step: step.into(), visit }
}

fn steps(history: &[Recorded]) -> Vec<(u64, Event)> {
    history.iter().map(|recorded| (recorded.sequence, recorded.event.clone())).collect()
}

#[tokio::test]
async fn what_is_appended_is_read_back_by_a_later_process() {
    let (_folder, path) = place();
    {
        let journal = SqliteJournal::open(&path).unwrap();
        journal.append("b", 0, at(5), &[entered("é\n\"", 1), entered("two", 2)]).await.unwrap();
        journal.append("a", 0, at(6), &[entered("one", 1)]).await.unwrap();
        journal.append("b", 2, at(7), &[entered("three", 3)]).await.unwrap();
        journal.append("b", 3, at(7), &[]).await.unwrap();
        assert!(journal.read("nobody", 0, ALL).await.unwrap().is_empty());
    }
    let journal = SqliteJournal::open(&path).unwrap();
    let history = journal.read("b", 0, ALL).await.unwrap();
    assert_eq!(steps(&history), [(0, entered("é\n\"", 1)), (1, entered("two", 2)), (2, entered("three", 3))]);
    assert_eq!(history.iter().map(|recorded| recorded.at).collect::<Vec<_>>(), [at(5), at(5), at(7)]);
    let heads = journal.runs().await.unwrap();
    assert_eq!(heads.iter().map(|head| head.run.as_str()).collect::<Vec<_>>(), ["b", "a"], "oldest first");
    assert_eq!((&heads[0].first, &heads[0].last), (&history[0], &history[2]));
}

#[tokio::test]
async fn an_append_out_of_turn_is_a_conflict_and_changes_nothing() {
    let (_folder, path) = place();
    let journal = SqliteJournal::open(&path).unwrap();
    journal.append("run", 0, at(1), &[entered("one", 1)]).await.unwrap();
    for expected in [0, 2] {
        let error = journal.append("run", expected, at(2), &[entered("two", 1), entered("three", 1)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains(&format!("next event is number 1, not {expected}")), "{error}");
    }
    assert_eq!(journal.append("run", 5, at(2), &[]).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(journal.append("new", 1, at(2), &[entered("one", 1)]).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(journal.read("run", 0, ALL).await.unwrap().len(), 1);
    assert_eq!(journal.runs().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_that_are_committed_together_fail_each_for_itself() {
    let (_folder, path) = place();
    let journal = Arc::new(SqliteJournal::open(&path).unwrap());
    let tasks: Vec<_> = (0..40u32)
        .map(|number| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let run = format!("run-{}", number % 20);
                let mut won = 0;
                for sequence in 0..10 {
                    match journal.append(&run, sequence, at(i64::from(number)), &[entered("step", number)]).await {
                        Ok(()) => won += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                    }
                }
                (run, won)
            })
        })
        .collect();
    let mut won: BTreeMap<String, usize> = BTreeMap::new();
    for task in tasks {
        let (run, count) = task.await.unwrap();
        *won.entry(run).or_default() += count;
    }
    for (run, won) in won {
        // Two raced for each number: as many events as wins, and no number was passed over by both.
        assert_eq!(journal.read(&run, 0, ALL).await.unwrap().len(), won, "{run}");
        assert_eq!(won, 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_processes_that_race_exactly_one_wins() {
    let (_folder, path) = place();
    let opened: Vec<_> = (0..2)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || SqliteJournal::open(path).unwrap())
        })
        .collect();
    let handles: Vec<Arc<SqliteJournal>> = opened.into_iter().map(|thread| Arc::new(thread.join().unwrap())).collect();
    for sequence in 0..50 {
        let tasks: Vec<_> = handles
            .iter()
            .enumerate()
            .map(|(number, journal)| {
                let journal = journal.clone();
                let number = u32::try_from(number).unwrap();
                tokio::spawn(async move { journal.append("run", sequence, at(1), &[entered("step", number)]).await })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(()) => won += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        assert_eq!(won, 1);
    }
    for journal in &handles {
        assert_eq!(journal.read("run", 0, ALL).await.unwrap().len(), 50);
    }
}

#[tokio::test]
async fn a_copy_taken_at_any_instant_holds_whole_appends() {
    let (folder, path) = place();
    let journal = SqliteJournal::open(&path).unwrap();
    for append in 0..10u64 {
        journal.append("run", append * 3, at(1), &[entered("a", 1), entered("b", 1), entered("c", 1)]).await.unwrap();
        // What a crash leaves: the file and its log, as they are on the disk.
        let copy = folder.path().join(format!("{append}.db"));
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(folder.path().join("runs.db-wal"), folder.path().join(format!("{append}.db-wal"))).unwrap();
        assert_eq!(SqliteJournal::open(&copy).unwrap().read("run", 0, ALL).await.unwrap().len() as u64, (append + 1) * 3);
        // And one that tore the end of the log off: earlier appends are whole, the torn one is not there.
        let torn = folder.path().join(format!("torn-{append}.db"));
        std::fs::copy(&path, &torn).unwrap();
        let log = std::fs::read(folder.path().join("runs.db-wal")).unwrap();
        std::fs::write(folder.path().join(format!("torn-{append}.db-wal")), &log[..log.len() - 100]).unwrap();
        assert_eq!(SqliteJournal::open(&torn).unwrap().read("run", 0, ALL).await.unwrap().len() as u64 % 3, 0);
    }
}

async fn damaged(sql: &str, words: &[&str]) {
    let (_folder, path) = place();
    {
        let journal = SqliteJournal::open(&path).unwrap();
        journal.append("run", 0, at(1), &[entered("one", 1), entered("two", 1), entered("three", 1)]).await.unwrap();
        journal.append("good", 0, at(1), &[entered("one", 1)]).await.unwrap();
    }
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let journal = SqliteJournal::open(&path).unwrap();
    let error = journal.read("run", 0, ALL).await.unwrap_err();
    let text = error.full();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
    for word in words.iter().chain([&path.to_str().unwrap(), &"run: run"]) {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    assert_eq!(journal.read("good", 0, ALL).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_history_is_told_and_never_cut() {
    damaged("DELETE FROM events WHERE run = 'run' AND sequence = 1", &["event 1 is missing"]).await;
    damaged("DELETE FROM events WHERE run = 'run' AND sequence = 2", &["3 events were written, 2 are there"]).await;
    damaged("DELETE FROM events WHERE run = 'run'", &["3 events were written, 0 are there"]).await;
    damaged("DELETE FROM runs WHERE run = 'run'", &["0 events were written, 3 are there"]).await;
    damaged("UPDATE events SET body = replace(body, 'two', 'too') WHERE run = 'run'", &["event 1 is not what was written"]).await;
    damaged("UPDATE events SET at = '2018-04-04T00:00:00Z' WHERE run = 'run' AND sequence = 2", &["event 2 is not what was written"]).await;
    damaged(
        "UPDATE events SET body = (SELECT body FROM events WHERE run = 'good') WHERE run = 'run' AND sequence = 1",
        &["event 1 is not what"],
    )
    .await;
}

#[tokio::test]
async fn a_list_of_runs_that_was_cut_is_told() {
    for sql in ["DELETE FROM runs WHERE run = 'run'", "DELETE FROM events WHERE run = 'run'", "DELETE FROM events WHERE sequence = 1"] {
        let (_folder, path) = place();
        {
            let journal = SqliteJournal::open(&path).unwrap();
            journal.append("run", 0, at(1), &[entered("one", 1), entered("two", 1), entered("three", 1)]).await.unwrap();
            journal.append("another", 0, at(1), &[entered("one", 1)]).await.unwrap();
        }
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let error = SqliteJournal::open(&path).unwrap().runs().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.full().contains("run: run"), "{}", error.full());
    }
}

#[tokio::test]
async fn an_event_of_a_newer_version_is_told() {
    let (_folder, path) = place();
    {
        let journal = SqliteJournal::open(&path).unwrap();
        journal.append("run", 0, at(1), &[entered("one", 1)]).await.unwrap();
    }
    // With the hash that a newer program would have written.
    let body = "{\"kind\":\"step-dreamt\"}";
    let time = at(1).to_string();
    let mut hasher = blake3::Hasher::new();
    for part in ["run", &time, body] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&0u64.to_le_bytes());
    let hash = hasher.finalize().as_bytes()[..16].to_vec();
    Connection::open(&path).unwrap().execute("UPDATE events SET body = ?1, hash = ?2", (body, hash)).unwrap();
    let error = SqliteJournal::open(&path).unwrap().read("run", 0, ALL).await.unwrap_err();
    assert!(error.full().contains("event 0 cannot be read") && error.full().contains("newer version"), "{}", error.full());
}

fn refused(path: &Path) -> String {
    let error = SqliteJournal::open(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.full().contains(path.to_str().unwrap()), "{}", error.full());
    error.full()
}

#[tokio::test]
async fn a_file_that_is_not_a_journal_is_refused_and_left_alone() {
    let (folder, path) = place();
    std::fs::write(&path, "dear diary, ".repeat(1_000)).unwrap();
    assert!(refused(&path).contains("nor any other SQLite database"));
    assert!(std::fs::read(&path).unwrap().starts_with(b"dear diary"));
    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    assert!(refused(&other).contains("a database of another program"));
    let newer = folder.path().join("newer.db");
    drop(SqliteJournal::open(&newer).unwrap());
    Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(refused(&newer).contains("is of version 99, and this program knows version 2"));
    let error = SqliteJournal::open(folder.path().join("no/runs.db")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_torn_file_is_told() {
    let (_folder, path) = place();
    {
        let journal = SqliteJournal::open(&path).unwrap();
        let events: Vec<Event> = (0..2_000).map(|visit| entered("a step with a rather long name, so that pages fill", visit)).collect();
        journal.append("run", 0, at(1), &events).await.unwrap();
    }
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = match SqliteJournal::open(&path) {
        Ok(journal) => journal.read("run", 0, ALL).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.full());
    assert!(error.full().contains("is damaged"), "{}", error.full());
    // A flipped bit within an event.
    let mut scratched = bytes.clone();
    let at = bytes.windows(4).rposition(|window| window == b"step").unwrap();
    scratched[at] ^= 1;
    std::fs::write(&path, &scratched).unwrap();
    let error = SqliteJournal::open(&path).unwrap().read("run", 0, ALL).await.unwrap_err();
    assert!(error.full().contains("is not what was written"), "{}", error.full());
}

#[tokio::test]
async fn every_commit_is_flushed_and_readers_do_not_wait() {
    let (_folder, path) = place();
    let journal = SqliteJournal::open(&path).unwrap();
    journal.append("run", 0, at(1), &[entered("one", 1)]).await.unwrap();
    let connection = Connection::open(&path).unwrap();
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    // Another process writes for long: reading goes on.
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(journal.read("run", 0, ALL).await.unwrap().len(), 1);
    connection.execute_batch("COMMIT").unwrap();
    journal.append("run", 1, at(1), &[entered("two", 1)]).await.unwrap();
}

/// What the test that started this process asks of it.
fn ordered(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("another test starts this, with {variable}"))
}

/// What a process that the tests below start does: it appends to a run, and says the number of each event once it is appended.
#[tokio::test]
#[ignore = "started by other tests, as a process of its own"]
async fn append_as_another_process() {
    let journal = SqliteJournal::open(ordered("REPAIR_TEST_JOURNAL")).unwrap();
    for sequence in 0..ordered("REPAIR_TEST_EVENTS").parse().unwrap() {
        match journal.append("run", sequence, at(1), &[entered("step", std::process::id())]).await {
            // In one write, so that to be killed leaves no half of a line.
            Ok(()) => std::io::stderr().write_all(format!("won {sequence}\n").as_bytes()).unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}

fn another_process(path: &Path, events: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["journal::append_as_another_process", "--exact", "--ignored", "--nocapture"])
        .env("REPAIR_TEST_JOURNAL", path)
        .env("REPAIR_TEST_EVENTS", events.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The numbers that a process has won so far; ends with it.
fn won(child: &mut Child) -> impl Iterator<Item = u64> + use<> {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.map_while(std::result::Result::ok).filter_map(|line| line.strip_prefix("won ").map(|number| number.parse().unwrap()))
}

#[tokio::test]
async fn processes_that_make_and_drive_the_same_journal_win_each_number_once() {
    let (_folder, path) = place();
    let mut children: Vec<Child> = (0..3).map(|_| another_process(&path, 40)).collect();
    let mut all: Vec<u64> = Vec::new();
    for child in &mut children {
        all.extend(won(child));
        assert!(child.wait().unwrap().success());
    }
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    let journal = SqliteJournal::open(&path).unwrap();
    assert_eq!(journal.read("run", 0, ALL).await.unwrap().len(), 40);
    // Nobody left anything beside it.
    drop(journal);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_there_and_can_be_read_while_it_writes() {
    let (_folder, path) = place();
    let mut child = another_process(&path, 1_000_000);
    let mut told = 0;
    let mut reader = None;
    for sequence in won(&mut child) {
        told = sequence;
        let journal = reader.get_or_insert_with(|| SqliteJournal::open_to_read(&path).unwrap());
        if sequence % 20 == 0 {
            assert!(journal.read("run", 0, ALL).await.unwrap().len() as u64 > sequence);
        }
        if sequence == 100 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    drop(reader);
    for journal in [SqliteJournal::open_to_read(&path).unwrap(), SqliteJournal::open(&path).unwrap()] {
        assert!(journal.read("run", 0, ALL).await.unwrap().len() as u64 > told);
    }
    assert!(told >= 100);
}

#[tokio::test]
async fn to_look_for_a_journal_makes_none() {
    let (folder, path) = place();
    let error = SqliteJournal::open_to_read(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.message(), format!("no journal at {}: nothing has been run here", path.display()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    SqliteJournal::open(&path).unwrap().append("run", 0, at(1), &[entered("one", 1)]).await.unwrap();
    let before = std::fs::read(&path).unwrap();
    {
        let journal = SqliteJournal::open_to_read(&path).unwrap();
        assert_eq!((journal.read("run", 0, ALL).await.unwrap().len(), journal.runs().await.unwrap().len()), (1, 1));
        assert!(journal.append("run", 1, at(1), &[entered("two", 1)]).await.unwrap_err().message().contains("was opened for reading"));
    }
    assert_eq!(before, std::fs::read(&path).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_journal_that_was_emptied_or_lost_is_not_begun_anew() {
    let (folder, path) = place();
    {
        let journal = SqliteJournal::open(&path).unwrap();
        journal.append("run", 0, at(1), &[entered("one", 1)]).await.unwrap();
        // As a crash leaves it: with its log.
        std::fs::copy(path.with_extension("db-wal"), folder.path().join("kept-wal")).unwrap();
    }
    std::fs::write(&path, "").unwrap();
    assert!(refused(&path).contains("is empty, so it is damaged"));
    assert_eq!(SqliteJournal::open_to_read(&path).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(folder.path().join("kept-wal"), path.with_extension("db-wal")).unwrap();
    assert!(refused(&path).contains("is gone, but its log"));
    assert_eq!(SqliteJournal::open_to_read(&path).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(!path.exists());
}

const TTL: Duration = Duration::from_secs(3_600);

/// What a process that the test below starts does: it becomes the driver of a run, and then does nothing.
#[tokio::test]
#[ignore = "started by other tests, as a process of its own"]
async fn drive_as_another_process() {
    let journal = SqliteJournal::open(ordered("REPAIR_TEST_JOURNAL")).unwrap();
    journal.acquire("run", "the other", at(0), TTL).await.unwrap();
    std::io::stderr().write_all(b"won 0\n").unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

#[tokio::test]
async fn nobody_waits_for_the_lease_of_a_dead_process() {
    let (folder, path) = place();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["journal::drive_as_another_process", "--exact", "--ignored", "--nocapture"])
        .env("REPAIR_TEST_JOURNAL", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(won(&mut child).next(), Some(0));
    let journal = SqliteJournal::open(&path).unwrap();
    let error = journal.acquire("run", "me", at(1), TTL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let expires = at(3_600).to_string();
    for word in ["the other", &format!("process {}", child.id()), &expires] {
        assert!(error.full().contains(word), "no `{word}` in: {error}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    journal.acquire("run", "me", at(2), TTL).await.unwrap();
    assert_eq!(journal.acquire("run", "the other", at(3), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    // Of the dead, nothing is left; nor of the living, once they are done.
    let locks = || std::fs::read_dir(folder.path().join("runs.db-leases")).map_or(0, Iterator::count);
    assert_eq!(locks(), 1);
    journal.release("run", "me").await.unwrap();
    assert_eq!(locks(), 0);
    journal.acquire("run", "me", at(3), TTL).await.unwrap();
    drop(journal);
    SqliteJournal::open(&path).unwrap().acquire("run", "another", at(4), TTL).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_nothing_proves_counts_until_it_expires() {
    let (folder, path) = place();
    drop(SqliteJournal::open(&path).unwrap());
    // Of another machine, whose locks are not seen here; of a file system without locks; and of a file that somebody removed.
    for (host, lock) in [("'elsewhere'", "'elsewhere.lock'"), ("'elsewhere'", "NULL"), ("host", "'gone.lock'")] {
        {
            let journal = SqliteJournal::open(&path).unwrap();
            journal.acquire("run", "the holder", at(0), TTL).await.unwrap();
        }
        std::fs::write(folder.path().join("runs.db-leases/elsewhere.lock"), "").unwrap();
        Connection::open(&path).unwrap().execute_batch(&format!("UPDATE leases SET host = {host}, lock = {lock}")).unwrap();
        let journal = SqliteJournal::open(&path).unwrap();
        assert_eq!(journal.acquire("run", "me", at(3_599), TTL).await.unwrap_err().kind(), ErrorKind::Conflict, "{host} {lock}");
        journal.acquire("run", "me", at(3_600), TTL).await.unwrap();
        journal.release("run", "me").await.unwrap();
    }
}

#[tokio::test]
async fn two_handles_of_one_process_are_two_holders() {
    let (_folder, path) = place();
    let (one, two) = (SqliteJournal::open(&path).unwrap(), SqliteJournal::open(&path).unwrap());
    one.acquire("run", "a", at(0), TTL).await.unwrap();
    assert_eq!(two.acquire("run", "b", at(1), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    two.acquire("run", "a", at(1), TTL).await.unwrap();
    drop(one);
    two.acquire("run", "a", at(2), TTL).await.unwrap();
    let three = SqliteJournal::open(&path).unwrap();
    assert_eq!(three.acquire("run", "b", at(3), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// A program that is just being started has the locks of the process that starts it, until it runs.
#[tokio::test]
async fn a_lock_that_another_has_proves_nothing_of_a_driver() {
    let (folder, path) = place();
    let driver = SqliteJournal::open(&path).unwrap();
    drop({
        let before = SqliteJournal::open(&path).unwrap();
        before.acquire("run", "a", at(0), TTL).await.unwrap();
        before
    });
    let mut locks = std::fs::read_dir(folder.path().join("runs.db-leases")).unwrap();
    let starting = std::fs::File::options().write(true).open(locks.next().unwrap().unwrap().path()).unwrap();
    starting.try_lock().unwrap();
    driver.acquire("run", "a", at(1), TTL).await.unwrap();
    drop(starting);
    let another = SqliteJournal::open(&path).unwrap();
    assert_eq!(another.acquire("run", "b", at(2), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    // Once it has the lock itself, the lock shows that it is gone.
    driver.acquire("run", "a", at(3), TTL).await.unwrap();
    assert_eq!(another.acquire("run", "b", at(4), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    drop(driver);
    another.acquire("run", "b", at(5), TTL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_handles_that_race_for_a_run_one_wins_also_when_the_holder_is_gone() {
    let (_folder, path) = place();
    let mut handles: Vec<Arc<SqliteJournal>> = (0..6).map(|_| Arc::new(SqliteJournal::open(&path).unwrap())).collect();
    while !handles.is_empty() {
        let round = i64::try_from(handles.len()).unwrap();
        let tasks: Vec<_> = handles
            .iter()
            .enumerate()
            .map(|(number, journal)| {
                let journal = journal.clone();
                tokio::spawn(async move { journal.acquire("run", &format!("{round} {number}"), at(0), TTL).await })
            })
            .collect();
        let mut winner = None;
        for (number, task) in tasks.into_iter().enumerate() {
            match task.await.unwrap() {
                Ok(()) => assert_eq!(winner.replace(number), None, "exactly one wins"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        // Gone without a word, as a process that died; its lease has not expired.
        drop(handles.remove(winner.unwrap()));
    }
}

#[tokio::test]
async fn a_journal_of_version_1_is_read_and_brought_up_to_date() {
    let (_folder, path) = place();
    {
        let journal = SqliteJournal::open(&path).unwrap();
        journal.append("run", 0, at(1), &[entered("one", 1), entered("two", 1)]).await.unwrap();
    }
    let first = "DROP TABLE leases; DROP TABLE signals; PRAGMA user_version = 1;";
    Connection::open(&path).unwrap().execute_batch(first).unwrap();
    let version = || Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap();
    let reader = SqliteJournal::open_to_read(&path).unwrap();
    let before = reader.read("run", 0, ALL).await.unwrap();
    assert_eq!((before.len(), reader.signaled("run").await.unwrap(), version()), (2, None, 1), "to read it changes nothing");
    // Several processes may find it so at once.
    let opened: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || SqliteJournal::open(path).unwrap())
        })
        .collect();
    let journals: Vec<SqliteJournal> = opened.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(version(), 2);
    journals[0].signal("run", Some(Signal::Cancel)).await.unwrap();
    journals[1].acquire("run", "me", at(1), TTL).await.unwrap();
    assert_eq!(reader.signaled("run").await.unwrap(), Some(Signal::Cancel));
    assert_eq!(reader.read("run", 0, ALL).await.unwrap(), before);
    assert_eq!(reader.signal("run", None).await.unwrap_err().kind(), ErrorKind::Internal, "it was opened for reading");
}

#[tokio::test]
async fn a_page_tells_damage_within_it_and_at_its_end() {
    let (_folder, path) = place();
    {
        let journal = SqliteJournal::open(&path).unwrap();
        let events: Vec<Event> = (0..10).map(|visit| entered("step", visit)).collect();
        journal.append("run", 0, at(1), &events).await.unwrap();
    }
    let journal = SqliteJournal::open(&path).unwrap();
    let change = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    change("DELETE FROM events WHERE sequence = 9");
    assert_eq!(journal.read("run", 0, 9).await.unwrap().len(), 9, "a full page holds what was appended");
    for (from, limit) in [(0, 10), (5, 5), (9, 1), (9, 5)] {
        assert_eq!(journal.read("run", from, limit).await.unwrap_err().kind(), ErrorKind::Invalid, "{limit} from {from} on");
    }
    change("UPDATE runs SET events = 9; DELETE FROM events WHERE sequence = 4");
    for (from, limit) in [(0, 5), (3, 5), (4, 5), (4, 1), (0, 100)] {
        assert_eq!(journal.read("run", from, limit).await.unwrap_err().kind(), ErrorKind::Invalid, "{limit} from {from} on");
    }
    assert_eq!(journal.read("run", 0, 4).await.unwrap().len(), 4);
    assert_eq!(journal.read("run", 5, 4).await.unwrap().len(), 4);
    change("UPDATE runs SET events = 3");
    assert_eq!(journal.read("run", 0, 4).await.unwrap_err().kind(), ErrorKind::Invalid, "more are there than were written");
}

/// How many commits the log holds: frames that say how large the file is after them.
fn commits_in_log(path: &Path) -> usize {
    const HEADER: usize = 32;
    const FRAME: usize = 24 + 4_096;
    let log = std::fs::read(path.with_extension("db-wal")).unwrap();
    log[HEADER..].chunks_exact(FRAME).filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn appends_that_wait_together_are_one_commit() {
    let (_folder, path) = place();
    let journal = Arc::new(SqliteJournal::open(&path).unwrap());
    // The writer has to wait for this one, and all others for the writer.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.append(&format!("run-{number}"), 0, at(1), &[entered("one", 1)]).await })
        })
        .collect();
    // Not all of them are begun within one turn.
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    other.execute_batch("ROLLBACK").unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(commits_in_log(&path) <= 3, "{} commits", commits_in_log(&path));
    assert_eq!(journal.runs().await.unwrap().len(), 100);
}

async fn listed(path: &Path) -> Result<Vec<ListedRun>, repair_core::Error> {
    SqliteJournal::open_to_read(path).unwrap().listed(at(0)).await
}

/// What the columns of the list of runs are that an earlier program does not have.
const BRIEF: &str = "begun, latest, brief_hash";

#[tokio::test]
async fn a_listing_reads_no_events() {
    let (_folder, path) = place();
    {
        let journal = SqliteJournal::open(&path).unwrap();
        for run in ["a", "b", "c"] {
            journal.append(run, 0, at(1), &[entered("one", 1), Event::RunPaused]).await.unwrap();
        }
    }
    let before = listed(&path).await.unwrap();
    assert_eq!(
        before.iter().map(|listed| (listed.run.as_str(), listed.latest.paused)).collect::<Vec<_>>(),
        [("a", true), ("b", true), ("c", true)]
    );
    Connection::open(&path).unwrap().execute_batch("UPDATE events SET body = 'nothing that can be read'").unwrap();
    assert_eq!(listed(&path).await.unwrap(), before);
    assert_eq!(SqliteJournal::open(&path).unwrap().runs().await.unwrap_err().kind(), ErrorKind::Invalid);
    // Without what is kept in the list the events are read, and what is wrong with them is reported.
    for sql in [
        "UPDATE runs SET latest = replace(latest, 'true', 'false')",
        "UPDATE runs SET events = events + 1",
        "UPDATE runs SET brief_hash = NULL",
    ] {
        let copy = path.with_extension("copy");
        std::fs::copy(&path, &copy).unwrap();
        Connection::open(&copy).unwrap().execute_batch(sql).unwrap();
        assert_eq!(listed(&copy).await.unwrap_err().kind(), ErrorKind::Invalid, "{sql}");
        std::fs::remove_file(copy).unwrap();
    }
}

#[tokio::test]
async fn a_listing_is_right_where_an_earlier_program_has_appended() {
    let (_folder, path) = place();
    let append = async |run: &str, first: u64, event: Event| {
        SqliteJournal::open(&path).unwrap().append(run, first, at(10), &[event]).await.unwrap();
    };
    append("run", 0, entered("one", 1)).await;
    let waits = Event::TimerSet { step: "one".into(), due: at(100) };
    append("run", 1, waits).await;
    append("other", 0, entered("one", 1)).await;
    // It appends an event and leaves the rest as it was.
    let sql = |text: &str| Connection::open(&path).unwrap().execute_batch(text).unwrap();
    sql(&format!("CREATE TABLE before AS SELECT run, {BRIEF} FROM runs"));
    append("run", 2, entered("two", 1)).await;
    let right = listed(&path).await.unwrap();
    assert_eq!(right[0].latest.waits_until, None);
    sql(&format!("UPDATE runs SET ({BRIEF}) = (SELECT {BRIEF} FROM before WHERE before.run = runs.run); DROP TABLE before"));
    assert_eq!(listed(&path).await.unwrap(), right);
    // A whole file of its own, read and then written to.
    for drop in ["begun", "latest", "brief_hash"] {
        sql(&format!("ALTER TABLE runs DROP COLUMN {drop}"));
    }
    sql("DROP TABLE folds");
    assert_eq!(listed(&path).await.unwrap(), right);
    assert_eq!(SqliteJournal::open_to_read(&path).unwrap().kept("run").await.unwrap(), None);
    append("run", 3, Event::RunPaused).await;
    let latest = listed(&path).await.unwrap();
    assert_eq!((latest.len(), latest[0].latest.paused, &latest[1]), (2, true, &right[1]));
    let journal = SqliteJournal::open(&path).unwrap();
    assert_eq!(journal.read("run", 0, ALL).await.unwrap().len(), 4);
    let kept: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM runs WHERE begun IS NOT NULL AND latest IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 1, "the run that was appended to");
    // And a program that has the file open while another adds to it goes on.
    journal.append("run", 4, at(11), &[entered("three", 1)]).await.unwrap();
    assert!(!listed(&path).await.unwrap()[0].latest.paused);
}

#[tokio::test]
async fn what_is_kept_of_a_run_is_not_believed_once_it_or_its_events_have_changed() {
    let (_folder, path) = place();
    let fold = Fold { events: 2, state: "{\"some\":\"state\"}".into() };
    {
        let journal = SqliteJournal::open(&path).unwrap();
        for run in ["run", "other"] {
            journal.append(run, 0, at(1), &[entered("one", 1), entered("two", 1), entered("three", 1)]).await.unwrap();
            journal.keep(run, fold.clone()).await.unwrap();
        }
        for events in [0, 4, u64::MAX] {
            journal.keep("run", Fold { events, state: String::new() }).await.unwrap_err();
        }
        journal.keep("nobody", fold.clone()).await.unwrap_err();
    }
    let sound = std::fs::read(&path).unwrap();
    let kept = async |run: &str| SqliteJournal::open_to_read(&path).unwrap().kept(run).await.unwrap();
    assert_eq!(kept("run").await.as_ref(), Some(&fold), "what could not be kept has changed nothing");
    for sql in [
        "UPDATE folds SET state = replace(state, 'some', 'none') WHERE run = 'run'",
        "UPDATE folds SET state = CAST(x'FF' AS TEXT) WHERE run = 'run'",
        "UPDATE folds SET events = 3 WHERE run = 'run'",
        "UPDATE folds SET events = -1 WHERE run = 'run'",
        "UPDATE folds SET hash = x'00' WHERE run = 'run'",
        "UPDATE folds SET (events, last, state, hash) = (SELECT events, last, state, hash FROM folds WHERE run = 'other') WHERE run = 'run'",
        "UPDATE events SET body = replace(body, 'two', 'too') WHERE run = 'run'",
        "UPDATE events SET hash = x'00' WHERE run = 'run' AND sequence = 1",
        "DELETE FROM events WHERE run = 'run' AND sequence > 0; UPDATE runs SET events = 1 WHERE run = 'run'",
        "DELETE FROM folds WHERE run = 'run'",
    ] {
        std::fs::write(&path, &sound).unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        assert_eq!(kept("run").await, None, "{sql}");
        assert_eq!(kept("other").await.as_ref(), Some(&fold), "{sql}");
    }
    std::fs::write(&path, &sound).unwrap();
    Connection::open(&path).unwrap().execute_batch("DROP TABLE folds").unwrap();
    assert_eq!((kept("run").await, kept("other").await), (None, None));
    // To write to it again makes the table anew.
    let journal = SqliteJournal::open(&path).unwrap();
    journal.keep("run", fold.clone()).await.unwrap();
    assert_eq!(journal.kept("run").await.unwrap(), Some(fold));
}
