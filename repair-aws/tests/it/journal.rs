//! The journal in a bucket, against S3 on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::time::Duration;

use crate::common::PATIENCE;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sandbox::{Condition, Fault, Metadata, Options, Rule, Sandbox, Service};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_types::retry::RetryConfig;
use bytes::Bytes;
use futures::future::join_all;
use jiff::Timestamp;
use repair_aws::{Connection, S3Journal};
use repair_core::ErrorKind;
use repair_core::engine::{Event, Journal, Recorded, Signal, for_each_event};
use repair_core::testing::journal_suite;

const BUCKET: &str = "lake";
const TTL: Duration = Duration::from_secs(30);

async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.store().create_bucket(BUCKET).unwrap();
    sandbox
}

/// A journal as another process would open it.
fn open(sandbox: &Sandbox) -> S3Journal {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("any", "any", None, None, "test")))
        .region(Region::new("us-east-1"))
        .endpoint_url(sandbox.endpoint())
        .retry_config(RetryConfig::disabled())
        .build();
    S3Journal::open(&Connection::of(config).with_patience(PATIENCE), "s3://lake/some/journal").unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn event(text: &str, visit: u32) -> Event {
    Event::StepEntered { step: text.to_owned(), visit }
}

/// Appends events one by one.
async fn grow(journal: &S3Journal, run: &str, from: u32, count: u32) {
    for number in from..from + count {
        journal.append(run, u64::from(number), at(0), &[event("step", number)]).await.unwrap();
    }
}

async fn whole(journal: &S3Journal, run: &str) -> Vec<Recorded> {
    let mut history = Vec::new();
    for_each_event(journal, run, |recorded| {
        history.push(recorded);
        Ok(())
    })
    .await
    .unwrap();
    for (number, recorded) in (0..).zip(&history) {
        assert_eq!(recorded.sequence, number);
    }
    history
}

fn segment(run: &str, first: u64) -> String {
    format!("some/journal/events/{run}/{first:020}.jsonl")
}

fn folds(sandbox: &Sandbox, run: &str) -> Vec<String> {
    let listed = sandbox.store().list(BUCKET, &format!("some/journal/folded/{run}/"), None, 10_000).unwrap();
    listed.into_iter().map(|object| object.key).collect()
}

/// Waits for what is folded in the background.
async fn folded(sandbox: &Sandbox, run: &str, count: usize) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while folds(sandbox, run).len() < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
}

fn overwrite(sandbox: &Sandbox, key: &str, bytes: Bytes) {
    sandbox.store().put(BUCKET, key, bytes, Condition::Always, Metadata::default()).unwrap();
}

/// A failure that no retry gets past.
fn lost_for_good(operation: &str, fault: Fault) -> Rule {
    Rule::new(Service::S3, operation, fault).times(3)
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_promises_of_a_journal() {
    let sandbox = sandbox().await;
    journal_suite::all(&open(&sandbox)).await;
}

#[tokio::test]
async fn an_append_is_one_put() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    sandbox.store().reset();
    grow(&journal, "run", 0, 50).await;
    let total = sandbox.store().counted().total();
    assert_eq!((total.puts, total.requests()), (50, 50));
    // One that resumes has read the history, and so knows where it ends.
    let resumed = open(&sandbox);
    assert_eq!(whole(&resumed, "run").await.len(), 50);
    sandbox.store().reset();
    grow(&resumed, "run", 50, 10).await;
    assert_eq!(sandbox.store().counted().total().requests(), 10);
    assert_eq!(journal.signaled("run").await.unwrap(), None);
    assert_eq!(sandbox.store().counted().total().requests(), 11, "to ask for a signal is one request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_is_read_in_few_requests() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    let events: u32 = testdata::by_length(600, 2_000);
    grow(&journal, "run", 0, events).await;
    journal.compact("run").await.unwrap();
    let kept = folds(&sandbox, "run").len();
    assert_eq!(kept, events as usize / 128);
    sandbox.store().reset();
    assert_eq!(whole(&open(&sandbox), "run").await.len(), events as usize);
    let total = sandbox.store().counted().total();
    assert!(total.gets <= kept as u64 + 128 && total.lists <= 4, "{total:?}");
    assert_eq!(total.puts, 0);
    sandbox.store().reset();
    let heads = journal.runs().await.unwrap();
    assert_eq!((heads[0].first.sequence, heads[0].last.sequence), (0, u64::from(events) - 1));
    let total = sandbox.store().counted().total();
    assert!(total.requests() <= 6, "{total:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_folds_while_it_appends() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    grow(&journal, "run", 0, 129).await;
    folded(&sandbox, "run", 1).await;
    grow(&journal, "run", 129, 131).await;
    folded(&sandbox, "run", 2).await;
    assert_eq!(whole(&open(&sandbox), "run").await.len(), 260);
    let large = "x".repeat(1_500_000);
    for number in 0..6 {
        journal.append("large", number, at(0), &[event(&large, 0)]).await.unwrap();
    }
    folded(&sandbox, "large", 1).await;
    assert_eq!(whole(&open(&sandbox), "large").await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_processes_that_append_the_same_one_wins() {
    let sandbox = sandbox().await;
    let journals: Vec<S3Journal> = (0..4).map(|_| open(&sandbox)).collect();
    let rounds = testdata::by_length(50, 300);
    for round in 0..rounds {
        // The same events at the same time: only the append itself tells them apart. Some use one journal side by side.
        let racers = journals.iter().chain(&journals[..2]);
        let attempts = join_all(racers.map(|journal| async { journal.append("run", round, at(0), &[event("same", 1)]).await })).await;
        assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1, "round {round}");
        assert!(attempts.iter().flat_map(|attempt| attempt.as_ref().err()).all(|error| error.kind() == ErrorKind::Conflict));
    }
    assert_eq!(whole(&journals[0], "run").await.len() as u64, rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_processes_that_want_to_drive_one_does() {
    let sandbox = sandbox().await;
    let journals: Vec<S3Journal> = (0..5).map(|_| open(&sandbox)).collect();
    for round in 0..testdata::by_length(40, 200) {
        let attempts = join_all(
            (0..)
                .zip(&journals)
                .map(|(number, journal)| async move { journal.acquire("run", &format!("driver {number}"), at(round * 30), TTL).await }),
        )
        .await;
        assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1, "round {round}");
        assert!(attempts.iter().flat_map(|attempt| attempt.as_ref().err()).all(|error| error.kind() == ErrorKind::Conflict));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_was_away_while_others_appended_and_folded_appends_nothing() {
    let sandbox = sandbox().await;
    let away = open(&sandbox);
    grow(&away, "run", 0, 3).await;
    let other = open(&sandbox);
    assert_eq!(whole(&other, "run").await.len(), 3);
    grow(&other, "run", 3, 300).await;
    other.compact("run").await.unwrap();
    assert_eq!(folds(&sandbox, "run").len(), 2);
    for number in [3, 2, 0] {
        assert_eq!(away.append("run", number, at(9), &[event("late", 0)]).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert_eq!(whole(&away, "run").await, whole(&open(&sandbox), "run").await);
    grow(&away, "run", 303, 1).await;
}

#[tokio::test]
async fn a_lost_reply_is_no_conflict() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    for operation in 0..4 {
        sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::DropAfter).times(1));
        match operation {
            0 => journal.append("run", 0, at(0), &[event("a", 0)]).await.unwrap(),
            1 => journal.acquire("run", "a", at(0), TTL).await.unwrap(),
            2 => journal.release("run", "a").await.unwrap(),
            _ => journal.signal("run", Some(Signal::Pause)).await.unwrap(),
        }
    }
    journal.acquire("run", "b", at(0), TTL).await.unwrap();
    assert_eq!(whole(&journal, "run").await.len(), 1);
    assert_eq!(journal.signaled("run").await.unwrap(), Some(Signal::Pause));
}

#[tokio::test]
async fn an_append_that_failed_without_an_answer_may_be_tried_again_by_its_own_process() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    grow(&journal, "run", 0, 1).await;
    let events = [event("paid", 1)];
    // It is written, but neither that nor what is there can be told.
    sandbox.faults().add(lost_for_good("PutObject", Fault::DropAfter));
    sandbox.faults().add(lost_for_good("GetObject", Fault::DropBefore));
    assert_eq!(journal.append("run", 1, at(1), &events).await.unwrap_err().kind(), ErrorKind::Transient);
    // Another process has not written it, though it says the same; and this one did not write other events.
    assert_eq!(open(&sandbox).append("run", 1, at(1), &events).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(journal.append("run", 1, at(1), &[event("other", 1)]).await.unwrap_err().kind(), ErrorKind::Conflict);
    // Having read meanwhile changes nothing.
    assert_eq!(whole(&journal, "run").await.len(), 2);
    journal.append("run", 1, at(1), &events).await.unwrap();
    assert_eq!(journal.append("run", 1, at(1), &events).await.unwrap_err().kind(), ErrorKind::Conflict, "once");
    assert_eq!(whole(&journal, "run").await.len(), 2);
    grow(&journal, "run", 2, 1).await;
}

#[tokio::test]
async fn all_replies_lost_but_the_object_is_there_is_a_success() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    sandbox.faults().add(lost_for_good("PutObject", Fault::DropAfter));
    journal.append("run", 0, at(1), &[event("a", 1)]).await.unwrap();
    assert_eq!(whole(&journal, "run").await.len(), 1);
    sandbox.faults().add(lost_for_good("PutObject", Fault::DropBefore));
    assert_eq!(journal.append("run", 1, at(1), &[event("b", 1)]).await.unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(whole(&journal, "run").await.len(), 1);
    journal.append("run", 1, at(2), &[event("b", 1)]).await.unwrap();
}

#[tokio::test]
async fn an_append_that_nobody_waited_for_may_be_tried_again() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::DropAfter).times(1));
    sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::Delay { delay_ms: 60_000 }).times(1));
    let events = [event("a", 1)];
    let is_written = async {
        while !sandbox.faults().log().iter().any(|served| served.fault == Some(Fault::DropAfter)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = journal.append("run", 0, at(1), &events) => panic!("it ended, though nobody answered: {ended:?}"),
        () = is_written => {}
    }
    // If it was given up before it asked once more, the next request would be delayed.
    sandbox.faults().clear();
    assert_eq!(whole(&open(&sandbox), "run").await.len(), 1, "it was written before it was given up");
    journal.append("run", 0, at(1), &events).await.unwrap();
}

#[tokio::test]
async fn slow_down_is_absorbed() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    for operation in ["PutObject", "GetObject", "ListObjectsV2", "PutObject", "PutObject"] {
        sandbox.faults().add(Rule::new(Service::S3, operation, Fault::SlowDown).times(2));
        journal.acquire("run", "a", at(0), TTL).await.unwrap();
        let next = journal.read("run", 0, usize::MAX).await.unwrap().len() as u64;
        journal.append("run", next, at(0), &[event("a", 0)]).await.unwrap();
        assert_eq!(journal.runs().await.unwrap()[0].last.sequence, next);
        sandbox.faults().clear();
    }
    sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::Conflict).times(2));
    journal.append("run", 5, at(0), &[event("a", 0)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_may_fail_at_any_request() {
    // It is written elsewhere, where it may be folded in the background meanwhile. Here nothing happens but what is asked for.
    let (elsewhere, sandbox) = (sandbox().await, sandbox().await);
    let journal = open(&sandbox);
    // A large one and a small one fill a fold: few requests, of every sort.
    let large = "x".repeat(4_200_000);
    for (number, text) in (0..).zip([&large, "small", &large, "small", "last"]) {
        open(&elsewhere).append("run", number, at(0), &[event(text, 0)]).await.unwrap();
        let (key, object) = (segment("run", number), elsewhere.store().get(BUCKET, &segment("run", number)).unwrap());
        sandbox.store().put(BUCKET, &key, object.bytes, Condition::Always, Metadata::clone(&object.metadata)).unwrap();
    }
    let history = whole(&journal, "run").await;
    assert_eq!((history.len(), folds(&sandbox, "run").len()), (5, 0));
    for (fault, times) in [(Fault::AccessDenied, 1), (Fault::DropAfter, 3)] {
        let mut failures = 0;
        for skip in 0..10 {
            for key in folds(&sandbox, "run") {
                sandbox.store().delete(BUCKET, &key).unwrap();
            }
            sandbox.faults().add(Rule::new(Service::S3, "*", fault.clone()).skip(skip).times(times));
            let compacted = open(&sandbox).compact("run").await;
            sandbox.faults().clear();
            // Also while it is half done, and when it is done after all.
            assert_eq!(whole(&open(&sandbox), "run").await, history, "{fault:?} at request {skip}");
            journal.compact("run").await.unwrap();
            assert_eq!(folds(&sandbox, "run").len(), 2);
            assert_eq!(journal.read("run", 3, 2).await.unwrap(), history[3..5]);
            failures += u32::from(compacted.is_err());
        }
        // Segments are read side by side, which may share the faults so that each gets past them.
        if times == 1 {
            assert_eq!(failures, 2 + 4 + 2, "two listings, four segments, two folds");
        }
        assert!(failures >= 4, "{fault:?}: {failures}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compactions_and_readers_and_an_appender_at_once_agree() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    let others: Vec<S3Journal> = (0..3).map(|_| open(&sandbox)).collect();
    let events: u32 = testdata::by_length(300, 600);
    let readers = join_all(others.iter().map(|other| async {
        let mut seen = 0;
        while seen < events as usize {
            let history = whole(other, "run").await;
            assert!(history.len() >= seen, "what was seen stays");
            seen = history.len();
            other.compact("run").await.unwrap();
        }
    }));
    futures::future::join(readers, grow(&journal, "run", 0, events)).await;
    journal.compact("run").await.unwrap();
    let ends: Vec<String> = folds(&sandbox, "run").iter().map(|key| key[key.len() - 26..key.len() - 6].to_owned()).collect();
    let all: Vec<String> = (1..=events / 128).map(|fold| format!("{:020}", fold * 128)).collect();
    assert_eq!(ends, all, "all folded the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_and_names_the_object() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    let store = sandbox.store();
    grow(&journal, "run", 0, 20).await;
    let key = segment("run", 7);
    let good = store.get(BUCKET, &key).unwrap().bytes;
    let other = store.get(BUCKET, &segment("run", 8)).unwrap().bytes;
    let cut = good.slice(..good.len() - 5);
    for bad in [None, Some(cut), Some(Bytes::new()), Some(Bytes::from_static(b"<xml>\n")), Some(other)] {
        match bad {
            Some(bad) => overwrite(&sandbox, &key, bad),
            None => store.delete(BUCKET, &key).unwrap(),
        }
        for from in [0, 7] {
            let error = open(&sandbox).read("run", from, 100).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.message().contains(&format!("s3://lake/{key}")), "{error}");
        }
        assert_eq!(journal.read("run", 0, 7).await.unwrap().len(), 7, "what comes before is whole");
    }
    overwrite(&sandbox, &key, good);
    assert_eq!(whole(&journal, "run").await.len(), 20);

    store.delete(BUCKET, &segment("run", 0)).unwrap();
    for error in [journal.read("run", 0, 100).await.unwrap_err(), journal.runs().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.message().contains(&segment("run", 0)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_fold_is_told_and_may_be_removed() {
    let sandbox = sandbox().await;
    let journal = open(&sandbox);
    grow(&journal, "run", 0, 300).await;
    journal.compact("run").await.unwrap();
    let history = whole(&journal, "run").await;
    let keys = folds(&sandbox, "run");
    assert_eq!(keys.len(), 2);
    for key in keys {
        let bytes = sandbox.store().get(BUCKET, &key).unwrap().bytes;
        overwrite(&sandbox, &key, bytes.slice(..bytes.len() / 2));
        let error = journal.read("run", 0, 500).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(&key) && error.message().contains("you can remove it"), "{error}");
        sandbox.store().delete(BUCKET, &key).unwrap();
        assert_eq!(whole(&journal, "run").await, history);
        assert_eq!(journal.read("run", 130, 5).await.unwrap(), history[130..135]);
        journal.compact("run").await.unwrap();
        assert_eq!(sandbox.store().get(BUCKET, &key).unwrap().bytes, bytes, "made again, the same");
    }
    // Where only folds are left, the end is lost.
    for number in 256..300 {
        sandbox.store().delete(BUCKET, &segment("run", number)).unwrap();
    }
    assert_eq!(journal.read("run", 0, 500).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn without_the_bucket_nothing_passes_for_empty() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let journal = open(&sandbox);
    assert_eq!(journal.read("run", 0, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(journal.signaled("run").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(journal.runs().await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = journal.acquire("run", "a", at(0), TTL).await.unwrap_err();
    assert!(error.message().contains("create the bucket"), "{error}");
}
