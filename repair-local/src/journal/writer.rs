//! The one thread that writes: it commits together whatever waits for it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use repair_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension, Savepoint, TransactionBehavior};
use tokio::sync::oneshot;

use super::{checksum, sql_error};

/// Appends in one commit: enough that the flush does not count, few enough that the first of them does not wait long.
const MAX_GROUP: usize = 256;

/// Nothing to write for so long, and the log is copied into the file; in between, commits would wait for it.
const IDLE: Duration = Duration::from_millis(250);

/// The thread, and how to reach it.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` only while it is dropped.
    sender: Option<Sender<Append>>,
    thread: Option<JoinHandle<()>>,
}

struct Append {
    run: String,
    expected: u64,
    at: Timestamp,
    bodies: Vec<String>,
    reply: oneshot::Sender<Result<()>>,
}

impl Writer {
    pub(super) fn start(path: PathBuf, connection: Connection) -> Result<Self> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write(&path, connection, &receiver))
            .map_err(|error| Error::new(ErrorKind::Transient, "could not start the journal's thread").because(error))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Appends; returns when it is on the disk. If the caller goes away meanwhile, it is appended all the same, or not at all.
    pub(super) async fn append(&self, run: String, expected: u64, at: Timestamp, bodies: Vec<String>) -> Result<()> {
        let gone = || Error::internal("the journal's thread broke down");
        let (reply, answer) = oneshot::channel();
        let sender = self.sender.as_ref().ok_or_else(gone)?;
        sender.send(Append { run, expected, at, bodies, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    /// Waits until what was asked for is written and the file is closed.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(path: &Path, mut connection: Connection, receiver: &Receiver<Append>) {
    let mut log_grew = false;
    loop {
        let first = if log_grew {
            match receiver.recv_timeout(IDLE) {
                Ok(append) => append,
                Err(RecvTimeoutError::Timeout) => {
                    log_grew = false;
                    checkpoint(path, &connection);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        } else {
            match receiver.recv() {
                Ok(append) => append,
                Err(_) => break,
            }
        };
        let mut group = vec![first];
        group.extend(receiver.try_iter().take(MAX_GROUP - 1));
        let results = commit(path, &mut connection, &group);
        for (append, result) in group.into_iter().zip(results) {
            // Who asked may have gone away; what was written stays.
            let _ = append.reply.send(result);
        }
        log_grew = true;
    }
}

/// Copies the log into the file. It need not succeed: the log is as durable as the file.
fn checkpoint(path: &Path, connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::debug!(journal = %path.display(), %error, "the log could not be copied into the journal; later, then");
    }
}

/// Commits a group; each append succeeds or fails by itself, unless the commit fails.
fn commit(path: &Path, connection: &mut Connection, group: &[Append]) -> Vec<Result<()>> {
    let all_failed = |error: rusqlite::Error| {
        // An error can't be cloned: each gets its own, of the same kind and words.
        let error = sql_error(path, "write to", error);
        group.iter().map(|_| Err(Error::new(error.kind(), error.full()))).collect()
    };
    // Takes the lock before it reads the next number, so that of two processes one sees what the other wrote.
    let mut transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => return all_failed(error),
    };
    let mut results = Vec::with_capacity(group.len());
    for append in group {
        let result = match transaction.savepoint() {
            Ok(savepoint) => insert(path, savepoint, append),
            Err(error) => Err(sql_error(path, "write to", error)),
        };
        results.push(result.map_err(|error| error.on("run", &append.run)));
        if transaction.is_autocommit() {
            // A full disk makes SQLite undo the whole transaction: what came before is gone, what came after would stand alone.
            return group.iter().map(|_| Err(undone(path, results.last()))).collect();
        }
    }
    match transaction.commit() {
        Ok(()) => results,
        Err(error) => all_failed(error),
    }
}

/// The error of all appends of a group that was undone.
fn undone(path: &Path, last: Option<&Result<()>>) -> Error {
    match last {
        Some(Err(error)) => Error::new(error.kind(), error.full()),
        _ => Error::new(ErrorKind::Transient, format!("could not write to the journal {}: SQLite undid it", path.display())),
    }
}

/// Inserts the events of one append, all or none: a savepoint that is dropped is undone.
fn insert(path: &Path, savepoint: Savepoint<'_>, append: &Append) -> Result<()> {
    let failed = |error| sql_error(path, "write to", error);
    let next: Option<i64> = savepoint
        .prepare_cached("SELECT events FROM runs WHERE run = ?1")
        .and_then(|mut statement| statement.query_row([&append.run], |row| row.get(0)).optional())
        .map_err(failed)?;
    let next = super::unsigned(next.unwrap_or(0));
    if next != append.expected {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the run's next event is number {next}, not {}: another process has appended; let one of them drive the run",
                append.expected
            ),
        ));
    }
    if append.bodies.is_empty() {
        return Ok(());
    }
    let at = append.at.to_string();
    let mut sequence = next;
    {
        let mut event =
            savepoint.prepare_cached("INSERT INTO events (run, sequence, at, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)").map_err(failed)?;
        for body in &append.bodies {
            let hash = checksum(&append.run, sequence, &at, body);
            event.execute((&append.run, stored(sequence)?, &at, body, hash)).map_err(|error| match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::ConstraintViolation) => {
                    super::damaged(path, &append.run, format!("it has an event {sequence} too many"))
                }
                _ => failed(error),
            })?;
            sequence += 1;
        }
        savepoint
            .prepare_cached(
                "INSERT INTO runs (run, created_us, events) VALUES (?1, ?2, ?3) ON CONFLICT (run) DO UPDATE SET events = excluded.events",
            )
            .and_then(|mut statement| {
                statement.execute((&append.run, append.at.as_microsecond(), i64::try_from(sequence).unwrap_or(i64::MAX)))
            })
            .map_err(failed)?;
    }
    savepoint.commit().map_err(failed)
}

fn stored(sequence: u64) -> Result<i64> {
    i64::try_from(sequence).map_err(|_| Error::internal("a run has too many events"))
}
