//! The lake of files and the journal in SQLite keep the promises of their traits.
#![allow(clippy::unwrap_used, reason = "a test that fails, panics")]

use repair_core::testing::journal_suite;
use repair_local::SqliteJournal;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_in_sqlite_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(folder.path().join("runs.db")).unwrap();
    journal_suite::all(&journal).await;
    // A journal that holds other runs, and that other handles use.
    journal_suite::all(&SqliteJournal::open(journal.path()).unwrap()).await;
}
