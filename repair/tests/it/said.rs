//! Runs wait for people and for other systems, for as long as it takes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use repair::{CancellationToken, ErrorKind, OpenLake, Outcome, Repair};
use serde_json::json;

struct World(tempfile::TempDir);

impl World {
    fn new(steps: &str) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let readings = world.0.path().join("lake/t");
        std::fs::create_dir_all(&readings).unwrap();
        std::fs::write(readings.join("0.csv"), "key,ts,v\na,2024-03-04T00:00:00Z,1\n").unwrap();
        let text = format!(
            "workflow: w\nkind: state-machine\ntables:\n  t: {{ location: t, format: csv, key: [key], time: ts, cadence: 1h }}\nstart: ask\nsteps:\n{steps}"
        );
        std::fs::write(world.0.path().join("w.yaml"), text).unwrap();
        world
    }

    async fn repair(&self) -> Repair {
        let opening = Repair::open(self.0.path().join("w.yaml")).lake(self.0.path().join("lake"));
        opening.connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
    }

    async fn lake(&self) -> OpenLake {
        OpenLake::at(self.0.path().join("lake")).unwrap()
    }

    /// Waits until a run waits for an approval.
    async fn awaits(&self, run: &str) {
        for _ in 0..600 {
            if let Ok(awaited) = self.lake().await.awaited_approvals(run).await
                && !awaited.is_empty()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it waits for nothing");
    }
}

const APPROVAL: &str = "  ask:\n    wait: { until: { approval: write 3 rows?, every: 50ms } }\n    catch: [{ on: [denied], goto: rejected }]\n    next: done\n  \
                        done: { task: usage, end: true }\n  rejected: { fail: nobody wanted it }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_waits_until_somebody_approves_or_rejects() {
    for (approved, outcome) in [(true, Outcome::Succeeded), (false, Outcome::Failed)] {
        let world = World::new(APPROVAL);
        let repair = world.repair().await;
        let running = tokio::spawn(async move { repair.run().id("one").await });
        world.awaits("one").await;
        let lake = world.lake().await;
        let awaited = lake.awaited_approvals("one").await.unwrap();
        assert_eq!((awaited[0].step.as_str(), awaited[0].message.as_deref()), ("ask", Some("write 3 rows?")));
        assert_eq!(lake.decide("one", Some("done"), true, None, None).await.unwrap_err().kind(), ErrorKind::Conflict);
        lake.decide("one", None, approved, Some("Ada"), Some("it is Monday".to_owned())).await.unwrap();
        let report = running.await.unwrap().unwrap();
        assert_eq!(report.outcome, Some(outcome), "{:?}", report.reason);
        let ask = report.step("ask").unwrap();
        if approved {
            assert_eq!((&ask.output["by"], &ask.output["reason"]), (&json!("Ada"), &json!("it is Monday")));
        } else {
            let said = report.problems.join("\n");
            assert!(said.contains("Ada has rejected `write 3 rows?`: it is Monday"), "{said}");
        }
        let late = lake.decide("one", None, true, None, None).await.unwrap_err();
        assert!(late.kind() == ErrorKind::Conflict && late.full().contains("has ended"), "{}", late.full());
        assert_eq!(lake.signal("no-such-run", "x", None, json!(null)).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// Who rejects a run does not reject it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_run_that_is_redriven_asks_again() {
    let world = World::new("  ask: { wait: { until: { approval: write?, every: 50ms } }, end: true }\n");
    let repair = world.repair().await;
    let running = tokio::spawn(async move { repair.run().id("one").await });
    world.awaits("one").await;
    world.lake().await.decide("one", None, false, Some("Ada"), None).await.unwrap();
    assert_eq!(running.await.unwrap().unwrap().outcome, Some(Outcome::Failed));
    let lake = world.lake().await;
    let redriven = tokio::spawn(async move { lake.redrive("one").await });
    world.awaits("one").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!redriven.is_finished(), "it waits for another answer");
    world.lake().await.decide("one", None, true, Some("Bo"), None).await.unwrap();
    let report = redriven.await.unwrap().unwrap();
    assert_eq!((report.outcome, &report.step("ask").unwrap().output["by"]), (Some(Outcome::Succeeded), &json!("Bo")));
}

/// A decision is kept, whether or not anybody drives the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_while_nobody_drives_the_run_counts_when_it_is_resumed() {
    let world = World::new(APPROVAL);
    let stop = CancellationToken::new();
    let opening = Repair::open(world.0.path().join("w.yaml")).lake(world.0.path().join("lake")).stop(stop.clone());
    let repair = opening.connect().await.unwrap();
    let running = tokio::spawn(async move { repair.run().id("one").await.map(drop) });
    world.awaits("one").await;
    stop.cancel();
    let _ = running.await.unwrap();
    let lake = world.lake().await;
    lake.decide("one", None, true, Some("Ada"), None).await.unwrap();
    let report = lake.resume("one").await.unwrap();
    assert_eq!((report.outcome, &report.step("ask").unwrap().output["by"]), (Some(Outcome::Succeeded), &json!("Ada")));
}

/// What is said before the step is reached counts for its first visit, and a later visit waits for something new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_waited_for_with_what_is_said_of_it() {
    let steps = "  ask: { wait: { until: { approval: go on?, every: 50ms } }, next: landed }\n  \
                 landed: { wait: { until: { event: file landed, every: 50ms, timeout: 1m } }, next: [{ when: $visits = 1, goto: landed }, { goto: done }], max_visits: 3 }\n  \
                 done: { task: usage, end: true }\n";
    let world = World::new(steps);
    let repair = world.repair().await;
    let running = tokio::spawn(async move { repair.run().id("one").await });
    world.awaits("one").await;
    let lake = world.lake().await;
    lake.signal("one", "file landed", Some("the uploader"), json!({ "rows": 7 })).await.unwrap();
    lake.decide("one", None, true, None, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!running.is_finished(), "the second visit waits");
    lake.signal("one", "another event", None, json!(1)).await.unwrap();
    lake.signal("one", "file landed", Some("the uploader"), json!({ "rows": 8 })).await.unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{:?}", report.reason);
    let landed = report.step("landed").unwrap();
    assert_eq!((landed.visits, &landed.output["payload"], &landed.output["by"]), (2, &json!({ "rows": 8 }), &json!("the uploader")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_waited_for_longer_than_the_step_says() {
    let world = World::new("  ask: { wait: { until: { event: never, every: 20ms, timeout: 100ms } }, end: true }\n");
    let report = world.repair().await.run().await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Failed));
    assert!(report.reason.unwrap().contains("did not hold within 100ms"));
    for (steps, said) in [
        ("  ask: { wait: { until: { event: \"\" } }, end: true }\n", "`event` is empty"),
        ("  ask: { wait: { until: { approval: x, with: { a: 1 } } }, end: true }\n", "with"),
    ] {
        let world = World::new(steps);
        let refused = Repair::open(world.0.path().join("w.yaml")).lake(world.0.path().join("lake")).connect().await.err().unwrap().full();
        assert!(refused.contains(said), "{refused}");
    }
}
