//! How many appends the journal takes, of one run and of many side by side, and how long it takes to list many runs:
//! `cargo bench -p repair-local --bench journal`. `RUNS=10000` sets how many runs there are to list, of `EVENTS=20` events each;
//! `JOURNAL` names a file in which they stay for the next time.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails, panics")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use repair_core::engine::{Event, FORMAT, Journal, Outcome};
use repair_local::SqliteJournal;

const APPENDS: u64 = 500;

/// How often runs are listed.
const LISTINGS: usize = 9;

/// Runs that are begun side by side.
const TASKS: u64 = 64;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

async fn appends(path: &Path) {
    let journal = Arc::new(SqliteJournal::open(path).unwrap());
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

/// The events of a run that has ended.
fn history(run: u64, events: u64) -> Vec<Event> {
    let mut history = vec![Event::RunStarted {
        format: FORMAT,
        workflow: format!("workflow-{}", run % 10),
        definition: "steps:\n  a: { task: something }\n".repeat(60),
        file: "workflow.yaml".into(),
        children: BTreeMap::default(),
        params: BTreeMap::default(),
        now: None,
        environment: serde_json::json!({ "lake": "/a/lake", "profile": null }),
        seed: run,
        expressions: None,
        turn: 0,
        budget: Default::default(),
    }];
    history.extend((2..events).map(|event| Event::StepEntered { step: "a".into(), visit: u32::try_from(event).unwrap() }));
    history.push(Event::RunEnded { outcome: Outcome::Succeeded, step: "a".into(), reason: None, error: None });
    history
}

async fn listings(path: &Path) {
    let (runs, events) = (number("RUNS", 10_000), number("EVENTS", 20));
    if !path.exists() {
        let journal = Arc::new(SqliteJournal::open(path).unwrap());
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    for run in (task..runs).step_by(usize::try_from(TASKS).unwrap()) {
                        let at = Timestamp::from_second(i64::try_from(run).unwrap()).unwrap();
                        journal.append(&format!("run-{run:08}-0123456789abcdef"), 0, at, &history(run, events)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    let (mut briefly, mut by_events) = (Vec::new(), Vec::new());
    for _ in 0..LISTINGS {
        // As a process of its own does.
        let begun = Instant::now();
        let journal = SqliteJournal::open_to_read(path).unwrap();
        assert_eq!(journal.listed(Timestamp::UNIX_EPOCH).await.unwrap().len() as u64, runs);
        briefly.push(begun.elapsed());
        let begun = Instant::now();
        let journal = SqliteJournal::open_to_read(path).unwrap();
        assert_eq!(journal.runs().await.unwrap().len() as u64, runs);
        by_events.push(begun.elapsed());
    }
    let middle = |all: &mut Vec<Duration>| {
        all.sort_unstable();
        all[all.len() / 2]
    };
    println!("{runs} runs of {events} events: listed in {:?}; by their events in {:?}", middle(&mut briefly), middle(&mut by_events));
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    appends(&folder.path().join("appends.db")).await;
    let listed = std::env::var_os("JOURNAL").map_or_else(|| folder.path().join("listings.db"), Into::into);
    listings(&listed).await;
}
