//! The promises of [`Journal`], one function each. They use runs of their own, so they can run against a journal that is in use, and more
//! than once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a suite that fails, panics")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;

use crate::engine::PAGE;
use crate::engine::{Begun, Event, FORMAT, Fold, Journal, Latest, ListedRun, Outcome, Recorded, Signal, for_each_event};
use crate::error::ErrorKind;

/// Calls every function of this module.
pub async fn all(journal: &dyn Journal) {
    events_come_back_as_they_were_in_order(journal).await;
    an_append_out_of_turn_is_a_conflict_and_changes_nothing(journal).await;
    an_append_of_nothing_only_checks_the_number(journal).await;
    pages_hold_what_was_asked_for(journal).await;
    a_long_history_is_read_page_by_page(journal).await;
    a_run_that_never_began_has_no_events(journal).await;
    runs_come_oldest_first_with_first_and_last_event(journal).await;
    a_listing_shows_each_run_as_its_events_do(journal).await;
    what_is_kept_of_a_run_comes_back_whole_or_not_at_all(journal).await;
    unusual_and_long_texts_come_back_as_they_were(journal).await;
    runs_of_similar_names_are_different_runs(journal).await;
    many_runs_are_appended_to_side_by_side(journal).await;
    of_appends_that_race_one_wins(journal).await;
    a_second_driver_learns_who_drives(journal).await;
    a_lease_is_taken_over_once_it_has_expired(journal).await;
    a_driver_renews_its_lease(journal).await;
    a_released_lease_is_free(journal).await;
    only_the_holder_releases(journal).await;
    leases_of_runs_are_apart_from_each_other_and_from_events(journal).await;
    of_drivers_that_race_one_wins(journal).await;
    a_signal_stays_until_it_is_taken_back(journal).await;
    a_signal_to_no_run_is_not_found(journal).await;
}

fn new_run() -> String {
    format!("suite-{}", uuid::Uuid::now_v7())
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + second, 123_456_789).unwrap()
}

/// An event that holds a text and a number.
fn event(text: &str, number: u32) -> Event {
    Event::StepEntered { step: text.to_owned(), visit: number }
}

fn events(first: u32, count: u32) -> Vec<Event> {
    (first..first + count).map(|number| event("step", number)).collect()
}

async fn whole(journal: &dyn Journal, run: &str) -> Vec<Recorded> {
    let mut history = Vec::new();
    for_each_event(journal, run, |recorded| {
        history.push(recorded);
        Ok(())
    })
    .await
    .unwrap();
    for (number, recorded) in (0..).zip(&history) {
        assert_eq!(recorded.sequence, number, "events are numbered from 0, without gaps");
    }
    history
}

fn bodies(history: &[Recorded]) -> Vec<Event> {
    history.iter().map(|recorded| recorded.event.clone()).collect()
}

/// Appended events are read back unchanged and in order, with their numbers and the time of the append.
pub async fn events_come_back_as_they_were_in_order(journal: &dyn Journal) {
    let run = new_run();
    journal.append(&run, 0, at(5), &events(0, 2)).await.unwrap();
    journal.append(&run, 2, at(7), &events(2, 1)).await.unwrap();
    // The driver's clock may go backwards; its times are kept as they are.
    journal.append(&run, 3, at(6), &events(3, 3)).await.unwrap();
    let history = whole(journal, &run).await;
    assert_eq!(bodies(&history), events(0, 6));
    let times: Vec<Timestamp> = history.iter().map(|recorded| recorded.at).collect();
    assert_eq!(times, [at(5), at(5), at(7), at(6), at(6), at(6)]);
}

/// An append whose number is not the next is a conflict, and none of its events is kept.
pub async fn an_append_out_of_turn_is_a_conflict_and_changes_nothing(journal: &dyn Journal) {
    let run = new_run();
    assert_eq!(journal.append(&run, 1, at(0), &events(0, 1)).await.unwrap_err().kind(), ErrorKind::Conflict, "it has not begun");
    journal.append(&run, 0, at(0), &events(0, 2)).await.unwrap();
    for expected in [0, 1, 3, u64::from(u32::MAX)] {
        let error = journal.append(&run, expected, at(1), &events(9, 2)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    assert_eq!(bodies(&whole(journal, &run).await), events(0, 2));
    journal.append(&run, 2, at(2), &events(2, 1)).await.unwrap();
}

/// An append of no events checks the number, and does not begin a run.
pub async fn an_append_of_nothing_only_checks_the_number(journal: &dyn Journal) {
    let run = new_run();
    journal.append(&run, 0, at(0), &[]).await.unwrap();
    assert_eq!(journal.append(&run, 1, at(0), &[]).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(journal.runs().await.unwrap().iter().all(|head| head.run != run), "a run begins with its first event");
    journal.append(&run, 0, at(0), &events(0, 1)).await.unwrap();
    journal.append(&run, 1, at(0), &[]).await.unwrap();
    assert_eq!(whole(journal, &run).await.len(), 1);
    assert_eq!(journal.runs().await.unwrap().iter().filter(|head| head.run == run).count(), 1);
}

/// A page holds at most `limit` events, starting with the requested number; after the end there are none.
pub async fn pages_hold_what_was_asked_for(journal: &dyn Journal) {
    let run = new_run();
    journal.append(&run, 0, at(0), &events(0, 7)).await.unwrap();
    let all = whole(journal, &run).await;
    for from in 0..=9 {
        for limit in 0..=9 {
            let page = journal.read(&run, from as u64, limit).await.unwrap();
            let expected: Vec<Recorded> = all.iter().skip(from).take(limit).cloned().collect();
            assert_eq!(page, expected, "at most {limit} from {from} on");
        }
    }
    assert_eq!(journal.read(&run, 0, usize::MAX).await.unwrap(), all);
    assert!(journal.read(&run, u64::MAX, usize::MAX).await.unwrap().is_empty());
}

/// A history longer than a page, or of exactly one page, is read whole; appended events are seen at once.
pub async fn a_long_history_is_read_page_by_page(journal: &dyn Journal) {
    let run = new_run();
    let page = u32::try_from(PAGE).unwrap();
    journal.append(&run, 0, at(0), &events(0, page)).await.unwrap();
    assert_eq!(whole(journal, &run).await.len(), PAGE, "exactly one page");
    assert!(journal.read(&run, PAGE as u64, PAGE).await.unwrap().is_empty());
    journal.append(&run, PAGE as u64, at(0), &events(page, 1)).await.unwrap();
    assert_eq!(journal.read(&run, PAGE as u64, PAGE).await.unwrap().len(), 1);
    assert_eq!(bodies(&whole(journal, &run).await), events(0, page + 1));
    assert_eq!(journal.read(&run, 0, usize::MAX).await.unwrap().len(), PAGE + 1, "a request for more than a page gets it");
}

/// A run that never began has no events, and asking for them is no error.
pub async fn a_run_that_never_began_has_no_events(journal: &dyn Journal) {
    let run = new_run();
    assert!(journal.read(&run, 0, PAGE).await.unwrap().is_empty());
    assert!(journal.read(&run, 5, PAGE).await.unwrap().is_empty());
    assert_eq!(journal.signaled(&run).await.unwrap(), None);
}

/// Runs are listed in the order in which they began, each with its first and last event.
pub async fn runs_come_oldest_first_with_first_and_last_event(journal: &dyn Journal) {
    let runs: Vec<String> = (0..5).map(|_| new_run()).collect();
    for (second, run) in (0..).zip(&runs) {
        journal.append(run, 0, at(second), &events(0, 3)).await.unwrap();
    }
    journal.append(&runs[0], 3, at(100), &events(3, 1)).await.unwrap();
    let listed = journal.runs().await.unwrap();
    let ours: Vec<_> = listed.iter().filter(|head| runs.contains(&head.run)).collect();
    assert_eq!(ours.iter().map(|head| &head.run).collect::<Vec<_>>(), runs.iter().collect::<Vec<_>>(), "oldest first");
    for head in ours {
        let history = whole(journal, &head.run).await;
        assert_eq!((Some(&head.first), Some(&head.last)), (history.first(), history.last()));
    }
}

/// A listing has every run, oldest first, as its first and last event and its lease say.
pub async fn a_listing_shows_each_run_as_its_events_do(journal: &dyn Journal) {
    let started = |workflow: &str, environment: serde_json::Value| Event::RunStarted {
        format: FORMAT,
        workflow: workflow.to_owned(),
        definition: "a long text".repeat(1_000),
        file: "w.yaml".to_owned(),
        children: BTreeMap::default(),
        params: BTreeMap::default(),
        now: None,
        environment,
        seed: 7,
        expressions: None,
        turn: 0,
        budget: Default::default(),
    };
    let ended = Event::RunEnded { outcome: Outcome::OverBudget, step: "a".to_owned(), reason: None, error: None };
    let waits = Event::TimerSet { step: "a".to_owned(), due: at(5_000) };
    let retries = Event::RetryScheduled { step: "a".to_owned(), rules: vec![0], kinds: vec![ErrorKind::Transient], due: at(6_000) };
    let parent = new_run();
    let histories: Vec<(String, Vec<Vec<Event>>)> = vec![
        (parent.clone(), vec![vec![started("short", serde_json::json!({ "lake": "here" })), event("a", 1)]]),
        (new_run(), vec![vec![started("child \u{1F600}", serde_json::json!({ "parent": parent }))], vec![event("a", 1)], vec![ended]]),
        (new_run(), vec![vec![started("waits", serde_json::Value::Null)], vec![event("a", 1), waits.clone()]]),
        (new_run(), vec![vec![started("waited", serde_json::Value::Null)], vec![waits], vec![event("a", 2)]]),
        (new_run(), vec![vec![started("tries again", serde_json::Value::Null), retries]]),
        (new_run(), vec![vec![started("paused", serde_json::Value::Null)], vec![Event::RunPaused]]),
        // Which is not how a run starts, but a journal need not know.
        (new_run(), vec![vec![event("a", 1)]]),
    ];
    let mut expected = Vec::new();
    for (number, (run, appends)) in (0..).zip(&histories) {
        let mut next = 0;
        for (later, events) in (0..).zip(appends) {
            journal.append(run, next, at(10 * number + later), events).await.unwrap();
            next += events.len() as u64;
        }
        let driver = (number % 2 == 0).then(|| format!("driver of {number}"));
        if let Some(driver) = &driver {
            journal.acquire(run, driver, at(1_000), TTL).await.unwrap();
        }
        let history = whole(journal, run).await;
        let (first, last) = (&history[0], &history[history.len() - 1]);
        let (begun, latest) = (Begun::of(first.at, &first.event), Latest::of(last.at, &last.event));
        let driver = driver.filter(|_| !latest.is_at_rest());
        expected.push(ListedRun { run: run.clone(), begun, latest, driver });
    }
    let ours = |listed: Vec<ListedRun>| -> Vec<ListedRun> {
        listed.into_iter().filter(|listed| histories.iter().any(|(run, _)| *run == listed.run)).collect()
    };
    assert_eq!(ours(journal.listed(at(1_010)).await.unwrap()), expected);
    expected.iter_mut().for_each(|listed| listed.driver = None);
    assert_eq!(ours(journal.listed(at(1_030)).await.unwrap()), expected, "an expired lease drives nothing");
    for (number, (run, _)) in (0..).zip(&histories) {
        journal.release(run, &format!("driver of {number}")).await.unwrap();
    }
}

/// What the first events of a run add up to is kept, replaced, and never that of another run. A journal may keep nothing.
pub async fn what_is_kept_of_a_run_comes_back_whole_or_not_at_all(journal: &dyn Journal) {
    let (run, other) = (new_run(), new_run());
    for run in [&run, &other] {
        assert_eq!(journal.kept(run).await.unwrap(), None, "there is nothing to keep");
        journal.append(run, 0, at(0), &events(0, 5)).await.unwrap();
        assert_eq!(journal.kept(run).await.unwrap(), None);
    }
    let long = "a long state \u{1F600} \u{0} ".repeat(100_000);
    for (events, state) in [(3, "{}"), (5, &*long), (5, ""), (4, "another")] {
        let fold = Fold { events, state: state.to_owned() };
        journal.keep(&run, fold.clone()).await.unwrap();
        let kept = journal.kept(&run).await.unwrap();
        assert!(kept.is_none() || kept == Some(fold), "it is this one or none");
        assert_eq!(journal.kept(&other).await.unwrap(), None);
    }
    let before = journal.kept(&run).await.unwrap();
    journal.append(&run, 5, at(1), &events(5, 1)).await.unwrap();
    assert_eq!(journal.kept(&run).await.unwrap(), before, "later events do not change it");
    assert_eq!(bodies(&whole(journal, &run).await), events(0, 6), "and it changes no event");
}

/// Texts of any length and script come back unchanged, also as the id of a run or the name of a driver.
pub async fn unusual_and_long_texts_come_back_as_they_were(journal: &dyn Journal) {
    let long = "a long line \u{1F600} ".repeat(60_000);
    let texts =
        ["", " ", "é", "line\nbreak\r\n", "quote \" ' ` \\", "\u{0}", "{% $x %}", "../..", "%2F", "שלום \u{202E}", "\u{FFFF}", &long];
    for text in texts {
        let short: String = text.chars().take(20).filter(|&char| char != '\u{0}').collect();
        let run = format!("{} {short}", new_run());
        journal.append(&run, 0, at(0), &[event(text, 1), event(text, 2)]).await.unwrap();
        assert_eq!(bodies(&whole(journal, &run).await), [event(text, 1), event(text, 2)]);
        assert!(journal.runs().await.unwrap().iter().any(|head| head.run == run));
        let driver = format!("driver {short}");
        journal.acquire(&run, &driver, at(0), Duration::from_secs(60)).await.unwrap();
        let refused = journal.acquire(&run, "another", at(1), Duration::from_secs(60)).await.unwrap_err();
        assert!(refused.full().contains(&driver), "{refused}");
        journal.release(&run, &driver).await.unwrap();
    }
}

/// Runs whose ids differ only in case, by a space or by characters that file names cannot hold are different runs.
pub async fn runs_of_similar_names_are_different_runs(journal: &dyn Journal) {
    let run = new_run();
    let names: Vec<String> =
        ["-a", "-A", "-a ", " -a", "-a/b", "-a%2Fb", "-a_b", "-a-b", "-á", "-a\u{301}"].map(|end| format!("{run}{end}")).into();
    for (number, name) in (0..).zip(&names) {
        journal.append(name, 0, at(0), &events(number, 1)).await.unwrap();
        journal.acquire(name, &format!("driver {number}"), at(0), Duration::from_secs(60)).await.unwrap();
    }
    for (number, name) in (0..).zip(&names) {
        assert_eq!(bodies(&whole(journal, name).await), events(number, 1), "{name}");
        journal.release(name, &format!("driver {number}")).await.unwrap();
    }
}

/// Appends to many runs at once all succeed.
pub async fn many_runs_are_appended_to_side_by_side(journal: &dyn Journal) {
    let runs: Vec<String> = (0..20).map(|_| new_run()).collect();
    join_all((0..).zip(&runs).map(|(number, run)| async move {
        for sequence in 0..10u32 {
            journal.append(run, u64::from(sequence), at(i64::from(number)), &events(number + sequence, 1)).await.unwrap();
        }
    }))
    .await;
    for (number, run) in (0..).zip(&runs) {
        assert_eq!(bodies(&whole(journal, run).await), events(number, 10));
    }
}

/// When appends of the same number race, one wins and the others are conflicts; the winner's events are kept, whole.
pub async fn of_appends_that_race_one_wins(journal: &dyn Journal) {
    let run = new_run();
    for round in 0..10u32 {
        let sequence = u64::from(round) * 2;
        let attempts = join_all((0..16u32).map(|racer| {
            let run = &run;
            async move { journal.append(run, sequence, at(0), &[event("first", racer), event("second", racer)]).await }
        }))
        .await;
        let won: Vec<u32> = (0..).zip(&attempts).filter(|(_, attempt)| attempt.is_ok()).map(|(racer, _)| racer).collect();
        assert_eq!(won.len(), 1, "exactly one wins");
        assert!(attempts.iter().flat_map(|attempt| attempt.as_ref().err()).all(|error| error.kind() == ErrorKind::Conflict));
        let page = journal.read(&run, sequence, PAGE).await.unwrap();
        assert_eq!(bodies(&page), [event("first", won[0]), event("second", won[0])]);
    }
}

const TTL: Duration = Duration::from_secs(30);

/// While a lease is held, a second driver gets a conflict that names the holder and says when the lease expires.
pub async fn a_second_driver_learns_who_drives(journal: &dyn Journal) {
    let run = new_run();
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    assert_eq!(journal.driver(&run, now).await.unwrap(), None);
    journal.acquire(&run, "the first driver", now, TTL).await.unwrap();
    for later in [0, 1, 29] {
        let now = Timestamp::from_second(1_700_000_000 + later).unwrap();
        let error = journal.acquire(&run, "the second driver", now, TTL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.full().contains("the first driver"), "names the holder: {error}");
        assert!(error.full().contains("2023-11-14T22:13:50Z"), "says when the lease expires: {error}");
        assert_eq!(journal.driver(&run, now).await.unwrap().as_deref(), Some("the first driver"));
    }
    assert_eq!(journal.driver(&run, now + TTL).await.unwrap(), None, "an expired lease drives nothing");
    journal.release(&run, "the first driver").await.unwrap();
    assert_eq!(journal.driver(&run, now).await.unwrap(), None);
}

/// Once a lease has expired, another driver can take over, and the former holder is refused.
pub async fn a_lease_is_taken_over_once_it_has_expired(journal: &dyn Journal) {
    let run = new_run();
    journal.acquire(&run, "a", at(0), TTL).await.unwrap();
    journal.acquire(&run, "b", at(30), TTL).await.unwrap();
    assert_eq!(journal.driver(&run, at(31)).await.unwrap().as_deref(), Some("b"));
    assert_eq!(journal.acquire(&run, "a", at(31), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    // The former holder can no longer release the lease.
    journal.release(&run, "a").await.unwrap();
    assert_eq!(journal.acquire(&run, "c", at(32), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    journal.acquire(&run, "a", at(61), TTL).await.unwrap();
    journal.release(&run, "a").await.unwrap();
}

/// A driver that acquires again renews its lease from the new time on, even an expired one that nobody else took.
pub async fn a_driver_renews_its_lease(journal: &dyn Journal) {
    let run = new_run();
    for second in [0, 20, 40, 90] {
        journal.acquire(&run, "a", at(second), TTL).await.unwrap();
        assert_eq!(journal.acquire(&run, "b", at(second + 29), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    journal.release(&run, "a").await.unwrap();
}

/// A released lease is free at once; releasing it again is no error.
pub async fn a_released_lease_is_free(journal: &dyn Journal) {
    let run = new_run();
    journal.acquire(&run, "a", at(0), TTL).await.unwrap();
    journal.release(&run, "a").await.unwrap();
    journal.acquire(&run, "b", at(0), TTL).await.unwrap();
    journal.release(&run, "a").await.unwrap();
    journal.release(&run, "b").await.unwrap();
    journal.release(&run, "b").await.unwrap();
}

/// Releasing another driver's lease changes nothing.
pub async fn only_the_holder_releases(journal: &dyn Journal) {
    let run = new_run();
    journal.acquire(&run, "a", at(0), TTL).await.unwrap();
    journal.release(&run, "b").await.unwrap();
    assert_eq!(journal.acquire(&run, "b", at(1), TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    journal.release(&run, "a").await.unwrap();
}

/// A lease belongs to one run, which need not have begun. It neither lists the run nor keeps anyone from appending.
pub async fn leases_of_runs_are_apart_from_each_other_and_from_events(journal: &dyn Journal) {
    let (one, other) = (new_run(), new_run());
    journal.acquire(&one, "a", at(0), TTL).await.unwrap();
    journal.acquire(&other, "b", at(0), TTL).await.unwrap();
    assert!(journal.runs().await.unwrap().iter().all(|head| head.run != one && head.run != other), "a run begins with its first event");
    assert!(journal.read(&one, 0, PAGE).await.unwrap().is_empty());
    journal.append(&one, 0, at(0), &events(0, 1)).await.unwrap();
    for (run, driver) in [(&one, "a"), (&other, "b")] {
        journal.release(run, driver).await.unwrap();
    }
}

/// When many drivers try at once, one becomes the driver, also when a lease has expired.
pub async fn of_drivers_that_race_one_wins(journal: &dyn Journal) {
    let run = new_run();
    let drivers: Vec<String> = (0..16).map(|number| format!("driver {number}")).collect();
    for second in [0, 30, 60] {
        let attempts = join_all(drivers.iter().map(|driver| journal.acquire(&run, driver, at(second), TTL))).await;
        assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1, "exactly one wins");
        assert!(attempts.iter().flat_map(|attempt| attempt.as_ref().err()).all(|error| error.kind() == ErrorKind::Conflict));
    }
    for driver in &drivers {
        journal.release(&run, driver).await.unwrap();
    }
}

/// A signal stays until another replaces it or it is removed, and belongs to one run.
pub async fn a_signal_stays_until_it_is_taken_back(journal: &dyn Journal) {
    let (run, other) = (new_run(), new_run());
    for run in [&run, &other] {
        journal.append(run, 0, at(0), &events(0, 1)).await.unwrap();
    }
    assert_eq!(journal.signaled(&run).await.unwrap(), None);
    for signal in [Some(Signal::Pause), Some(Signal::Cancel), Some(Signal::Cancel), None, None, Some(Signal::Pause)] {
        journal.signal(&run, signal).await.unwrap();
        assert_eq!(journal.signaled(&run).await.unwrap(), signal);
        assert_eq!(journal.signaled(&run).await.unwrap(), signal, "reading does not remove it");
    }
    assert_eq!(journal.signaled(&other).await.unwrap(), None);
    journal.append(&run, 1, at(1), &events(1, 1)).await.unwrap();
    assert_eq!(journal.signaled(&run).await.unwrap(), Some(Signal::Pause), "events do not remove it");
    assert_eq!(whole(journal, &run).await.len(), 2, "a signal is not an event");
}

/// Signalling a run that has not begun is an error, even if someone holds its lease.
pub async fn a_signal_to_no_run_is_not_found(journal: &dyn Journal) {
    let run = new_run();
    journal.acquire(&run, "a", at(0), TTL).await.unwrap();
    for signal in [Some(Signal::Cancel), None] {
        assert_eq!(journal.signal(&run, signal).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    journal.release(&run, "a").await.unwrap();
}
