//! Who drives a run: a row with the expiry of the lease and, as a sign of life, a file that the holder keeps locked.
//!
//! The operating system releases a lock when its process ends, however it ends, so nobody has to wait for the lease of a dead holder to
//! expire. These files are taken while the journal is locked for writing, and removed once what makes them useless is committed: a commit
//! that fails, as on a full disk, must not remove the proof that a holder is dead. A file that is missing, or is another machine's, proves
//! nothing; then the lease alone counts.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use repair_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, TransactionBehavior};

use super::{damaged, sql_error};
use crate::files;

/// The leases that a process holds, and the folder of their lock files.
#[derive(Debug)]
pub(super) struct Leases {
    journal: PathBuf,
    folder: PathBuf,
    host: String,
    /// The locked files, by name.
    held: HashMap<String, File>,
}

/// A lease as it is stored.
pub(super) struct Lease {
    driver: String,
    host: String,
    pid: i64,
    until: Timestamp,
    /// The name of the file that its holder keeps locked, if it was able to.
    lock: Option<String>,
}

impl Leases {
    /// The leases of a journal.
    pub(super) fn of(journal: &Path) -> Self {
        let mut folder = journal.as_os_str().to_owned();
        folder.push("-leases");
        Self { journal: journal.to_owned(), folder: folder.into(), host: host(), held: HashMap::new() }
    }

    /// Makes a driver the driver of a run, or renews its lease.
    pub(super) fn acquire(&mut self, connection: &mut Connection, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        let path = self.journal.clone();
        let failed = |error| sql_error(&path, "write to", error);
        // Takes the lock before reading, so that a process sees what another has written.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut dead = None;
        if let Some(lease) = read(&path, &transaction, run)?
            && lease.driver != driver
        {
            dead = self.lock_of_the_dead(&lease);
            if dead.is_none() && lease.until > now {
                let error = Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "run {run} is driven by {}, process {} on {}, whose lease expires at {}; stop that process, or wait for it to end",
                        lease.driver, lease.pid, lease.host, lease.until
                    ),
                );
                // Of a holder on another machine, or in another container, only its lease is known.
                let left = Duration::try_from(lease.until.duration_since(now)).unwrap_or_default();
                return Err(if self.is_alive(&lease) { error } else { error.retry_after(left) });
            }
        }
        let name = lock_name(run, driver);
        let (lock, locked) = match self.held.contains_key(&name) {
            true => (Some(&name), None),
            false => match self.lock(&name) {
                Ok(file) => (Some(&name), Some(file)),
                // Another handle of the same driver has it, which may be gone before this one; or a program that this process is just starting,
                // which has it from a handle that is gone. So it proves nothing of this handle.
                Err(TryLockError::WouldBlock) => (None, None),
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(journal = %path.display(), %error, "no lock file shows that this process is alive; only its lease counts");
                    (None, None)
                }
            },
        };
        let until = now.checked_add(ttl).unwrap_or(Timestamp::MAX).to_string();
        transaction
            .prepare_cached("INSERT OR REPLACE INTO leases (run, driver, host, pid, until, lock) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
            .and_then(|mut statement| statement.execute((run, driver, &self.host, std::process::id(), until, lock)))
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        if let Some(file) = locked {
            self.held.insert(name, file);
        }
        if let Some((name, file)) = dead {
            self.remove(&name, file);
        }
        Ok(())
    }

    /// Releases a driver's lease.
    pub(super) fn release(&mut self, connection: &mut Connection, run: &str, driver: &str) -> Result<()> {
        let failed = |error| sql_error(&self.journal, "write to", error);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction
            .prepare_cached("DELETE FROM leases WHERE run = ?1 AND driver = ?2")
            .and_then(|mut statement| statement.execute((run, driver)))
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        let name = lock_name(run, driver);
        if let Some(file) = self.held.remove(&name) {
            self.remove(&name, file);
        }
        Ok(())
    }

    /// The lock of a dead holder, now ours; `None` if it is alive, or may be.
    fn lock_of_the_dead(&self, lease: &Lease) -> Option<(String, File)> {
        let name = lease.lock.as_ref().filter(|_| lease.host == self.host)?;
        let file = File::options().write(true).open(self.folder.join(name)).ok()?;
        file.try_lock().ok().map(|()| (name.clone(), file))
    }

    /// Whether a holder proves to be alive: it is on this machine, and keeps its file locked.
    fn is_alive(&self, lease: &Lease) -> bool {
        let Some(name) = lease.lock.as_ref().filter(|_| lease.host == self.host) else { return false };
        let file = File::options().write(true).open(self.folder.join(name));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Who drives a run that has this lease at `now`.
    pub(super) fn driver(&self, lease: &Lease, now: Timestamp) -> Option<String> {
        (lease.until > now && !self.is_dead(lease)).then(|| lease.driver.clone())
    }

    /// Whether a holder is known to be dead: it was on this machine, and nobody keeps its file locked.
    fn is_dead(&self, lease: &Lease) -> bool {
        let Some(name) = lease.lock.as_ref().filter(|_| lease.host == self.host) else { return false };
        File::open(self.folder.join(name)).is_ok_and(|file| file.try_lock_shared().is_ok())
    }

    fn lock(&self, name: &str) -> Result<File, TryLockError> {
        let failed = |error: Error| TryLockError::Error(io::Error::other(error));
        let path = self.folder.join(name);
        let open = || {
            files::create_folder(&self.folder).map_err(failed)?;
            File::options().create(true).truncate(false).write(true).open(&path).map_err(TryLockError::Error)
        };
        // Another process may have removed the empty folder meanwhile.
        let file = open().or_else(|_| open())?;
        file.try_lock().map(|()| file)
    }

    /// Removes a file while it is locked.
    fn remove(&self, name: &str, file: File) {
        // A file that cannot be removed is empty, and the next lease of its name reuses it.
        let _ = fs::remove_file(self.folder.join(name));
        unlock(&file);
        drop(file);
        files::remove_empty_folder(&self.folder);
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.held.values().for_each(unlock);
    }
}

/// Gives up a lock. To close the file alone would not do: a program that this process is just starting has it open, too, until it runs.
fn unlock(file: &File) {
    // What cannot be unlocked is closed, which unlocks it a little later.
    let _ = file.unlock();
}

/// Who drives a run at `now`, as far as is known without writing.
pub(super) fn holder(path: &Path, connection: &Connection, run: &str, now: Timestamp) -> Result<Option<String>> {
    if super::schema::is_older(connection).map_err(|error| sql_error(path, "read", error))? {
        return Ok(None);
    }
    Ok(read(path, connection, run)?.and_then(|lease| Leases::of(path).driver(&lease, now)))
}

/// All leases, by run.
pub(super) fn all(path: &Path, connection: &Connection) -> Result<HashMap<String, Lease>> {
    let failed = |error| sql_error(path, "read", error);
    if super::schema::is_older(connection).map_err(failed)? {
        return Ok(HashMap::new());
    }
    let mut statement = connection.prepare_cached("SELECT driver, host, pid, until, lock, run FROM leases").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut leases = HashMap::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let run: String = row.get(5).map_err(failed)?;
        let lease = lease(path, &run, row)?;
        leases.insert(run, lease);
    }
    Ok(leases)
}

fn read(path: &Path, connection: &Connection, run: &str) -> Result<Option<Lease>> {
    let failed = |error| sql_error(path, "read", error);
    let mut statement = connection.prepare_cached("SELECT driver, host, pid, until, lock FROM leases WHERE run = ?1").map_err(failed)?;
    let mut rows = statement.query([run]).map_err(failed)?;
    rows.next().map_err(failed)?.map(|row| lease(path, run, row)).transpose()
}

fn lease(path: &Path, run: &str, row: &rusqlite::Row<'_>) -> Result<Lease> {
    let failed = |error| sql_error(path, "read", error);
    let until: String = row.get(3).map_err(failed)?;
    let (driver, host) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
    let (pid, lock) = (row.get(2).map_err(failed)?, row.get(4).map_err(failed)?);
    let until = until.parse().map_err(|error| damaged(path, run, format!("its lease expires at `{until}`: {error}")))?;
    Ok(Lease { driver, host, pid, until, lock })
}

/// The name of a lease's lock file. It is a hash, since drivers may have any name.
fn lock_name(run: &str, driver: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(run.len() as u64).to_le_bytes()).update(run.as_bytes()).update(driver.as_bytes());
    format!("{}-{}.lock", repair_core::lake::name::part(run), &hasher.finalize().to_hex()[..16])
}

/// The name of this machine: locks are evidence only on the machine where they were taken.
fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits fail, as on a full disk, after everything before them has worked.
    const FULL: &str = "PRAGMA foreign_keys = ON; CREATE TABLE one (id INTEGER PRIMARY KEY); \
        CREATE TABLE other (id REFERENCES one (id) DEFERRABLE INITIALLY DEFERRED); \
        CREATE TRIGGER added AFTER INSERT ON leases BEGIN INSERT INTO other VALUES (1); END; \
        CREATE TRIGGER removed AFTER DELETE ON leases BEGIN INSERT INTO other VALUES (1); END;";
    const FREE: &str = "DROP TRIGGER added; DROP TRIGGER removed; DROP TABLE other; DROP TABLE one;";

    #[test]
    fn a_dead_holder_is_known_to_be_dead_after_a_commit_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let mut journal = Connection::open(&path).unwrap();
        journal.execute_batch(crate::journal::schema::LEASES).unwrap();
        let now: Timestamp = "2024-03-04T00:00:00Z".parse().unwrap();
        let acquire = |leases: &mut Leases, journal: &mut Connection, driver: &str| {
            leases.acquire(journal, "run", driver, now, Duration::from_secs(30))
        };
        let mut dead = Leases::of(&path);
        acquire(&mut dead, &mut journal, "first").unwrap();
        drop(dead);
        journal.execute_batch(FULL).unwrap();
        assert_ne!(acquire(&mut Leases::of(&path), &mut journal, "second").unwrap_err().kind(), ErrorKind::Conflict);
        journal.execute_batch(FREE).unwrap();
        let mut third = Leases::of(&path);
        acquire(&mut third, &mut journal, "third").unwrap();
        assert_eq!(acquire(&mut Leases::of(&path), &mut journal, "alive").unwrap_err().kind(), ErrorKind::Conflict);
        // The same where the holder itself cannot commit that it has ended, and then ends.
        journal.execute_batch(FULL).unwrap();
        third.release(&mut journal, "run", "third").unwrap_err();
        journal.execute_batch(FREE).unwrap();
        drop(third);
        let mut last = Leases::of(&path);
        acquire(&mut last, &mut journal, "last").unwrap();
        last.release(&mut journal, "run", "last").unwrap();
    }

    #[test]
    fn what_a_program_inherited_while_it_started_does_not_outlive_a_holder() {
        let folder = tempfile::tempdir().unwrap();
        let of = || Leases::of(&folder.path().join("runs.db"));
        let mut leases = of();
        let file = leases.lock("run.lock").unwrap();
        let inherited = file.try_clone().unwrap();
        leases.held.insert("run.lock".to_owned(), file);
        assert!(matches!(of().lock("run.lock"), Err(TryLockError::WouldBlock)));
        drop(leases);
        of().lock("run.lock").unwrap();
        drop(inherited);
    }
}
