//! How many appends the journal takes, of one run and of many side by side: `cargo bench -p repair-local --bench journal`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails, panics")]

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use repair_core::engine::{Event, Journal};
use repair_local::SqliteJournal;

const APPENDS: u64 = 500;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(SqliteJournal::open(folder.path().join("runs.db")).unwrap());
    for runs in [1u64, 8, 64] {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..runs)
            .map(|run| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    for sequence in 0..APPENDS {
                        let event = Event::StepEntered { step: "step".into(), visit: 1 };
                        journal.append(&format!("{runs}-{run}"), sequence, Timestamp::UNIX_EPOCH, &[event]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let took = begun.elapsed();
        println!("{runs:>3} runs: {} appends in {took:?}, {:?} each", runs * APPENDS, took / u32::try_from(runs * APPENDS).unwrap());
    }
}
