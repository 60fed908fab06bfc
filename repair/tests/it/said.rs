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
        for _ in 0..6_000 {
            if let Ok(awaited) = self.lake().await.awaited_approvals(run).await
                && !awaited.approvals.is_empty()
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
        let awaited = lake.awaited_approvals("one").await.unwrap().approvals;
        assert_eq!(awaited[0].lines(), ["no repair step follows"]);
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
    // What is said replaces what was said before, so the first visit must have had it.
    while lake.state("one").await.unwrap().steps.get("landed").is_none_or(|landed| landed.visits < 2) {
        assert!(!running.is_finished(), "it went on without a second visit");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
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

/// Who decides sees what would be changed and what that takes, and both are kept with the decision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_shows_what_would_be_changed_and_what_it_takes() {
    let steps = "  find: { detect: gaps, with: { table: t, keys: [a], from: 2024-03-04T00:00:00Z, to: 2024-03-04T06:00:00Z }, next: ask }\n  ask: { wait: { until: { \
                 approval: write them?, every: 50ms } }, next: fill }\n  fill:\n    repair:\n      - { strategy: stocks.backfill, name: vendor, with: { source: vendor }, retry: [{ \
                 on: [transient], attempts: 2 }] }\n      - { strategy: carry-forward, with: { max_age: 2h } }\n    of: find\n    next: later\n  later: { detect: gaps, with: { table: t, keys: \
                 [b], from: 2024-03-04T00:00:00Z, to: 2024-03-04T01:00:00Z }, next: more }\n  more: { repair: carry-forward, of: later, end: true }\n";
    let world = World::new(steps);
    let file = world.0.path().join("w.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("start: ask", "start: find").replace(
        "tables:",
        "prices: p.yaml\nsources: { vendor: { source: stocks.archive, with: { location: archive, format: csv } } }\ntables:",
    );
    std::fs::write(&file, text).unwrap();
    std::fs::write(
        world.0.path().join("p.yaml"),
        "prices: p\nas_of: 2026-11-01\ncurrency: USD\nsources: { vendor: { usd_per_call: 0.25, source: made up } }\n",
    )
    .unwrap();
    let archive = world.0.path().join("lake/archive");
    std::fs::create_dir_all(&archive).unwrap();
    let rows: String = (0..5).map(|hour| format!("a,2024-03-04T0{hour}:00:00Z,{hour}\n")).collect();
    std::fs::write(archive.join("0.csv"), format!("key,ts,v\n{rows}")).unwrap();
    let repair = world.repair().await;
    let running = tokio::spawn(async move { repair.run().id("one").await });
    world.awaits("one").await;
    let lake = world.lake().await;
    let awaited = lake.awaited_approvals("one").await.unwrap().approvals;
    let proposal = awaited[0].proposal.clone().unwrap_or_else(|| panic!("{:?}", awaited[0].not_proposed));
    let [fill] = &proposal.repairs[..] else { panic!("{proposal:?}") };
    assert_eq!((fill.step.as_str(), fill.of.as_str(), fill.table.as_str()), ("fill", "find", "t"));
    assert_eq!((fill.slots, fill.gaps, fill.keys, fill.cells, proposal.slots()), (5, 1, 1, 0, 5));
    assert_eq!(fill.strategies, ["vendor", "carry-forward"]);
    // One call at least; at most three attempts of the unit, each with one call.
    let usd = |amount: repair::plan::Amount| amount.usd.unwrap().to_string();
    assert_eq!((fill.estimate.low.calls, usd(fill.estimate.low), usd(proposal.total.low)), (1, "0.25".to_owned(), "0".to_owned()));
    assert_eq!((fill.estimate.high.calls, usd(fill.estimate.high), proposal.total.high), (3, "0.75".to_owned(), fill.estimate.high));
    let lines = awaited[0].lines();
    assert_eq!(
        lines[0],
        "fill: 5 slots of table t are missing, in 1 gap of 1 key; by vendor, then carry-forward; 1 to 3 calls, USD 0.25 to 0.75"
    );
    assert!(lines[1].starts_with("more: what step `later` finds is known only when the run gets there"), "{lines:?}");
    let again = lake.awaited_approvals("one").await.unwrap().approvals;
    assert!(again[0].proposal.as_ref().is_some_and(|kept| std::sync::Arc::ptr_eq(kept, &proposal)), "it is not computed for every look");
    let said = lake.decide("one", None, true, Some("Ada"), None).await.unwrap();
    assert_eq!(said.proposal.as_deref(), Some(&*proposal));
    let report = running.await.unwrap().unwrap();
    let ask = &report.step("ask").unwrap().output;
    assert_eq!((&ask["proposed"]["repairs"][0]["slots"], &ask["proposed"]["total"]["high"]["usd"]), (&json!(5), &json!("0.75")));
    // The archive has no bars, so the vendor fails, and what is known is carried for two hours.
    assert_eq!(report.step("fill").unwrap().output["repaired"], json!(2), "{:?} {:?}", report.reason, report.problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_decision_stands() {
    let world = World::new(APPROVAL);
    let stop = CancellationToken::new();
    let opening = Repair::open(world.0.path().join("w.yaml")).lake(world.0.path().join("lake")).stop(stop.clone());
    let repair = opening.connect().await.unwrap();
    let running = tokio::spawn(async move { repair.run().id("one").await.map(drop) });
    world.awaits("one").await;
    // While both decide, nobody drives the run, which would end with the first decision.
    stop.cancel();
    let _ = running.await.unwrap();
    let lake = world.lake().await;
    lake.decide("one", None, false, Some("ann"), None).await.unwrap();
    let error = lake.decide("one", None, true, Some("bob"), None).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.message().contains("was rejected by ann at"), "{error}");
    assert_eq!(lake.resume("one").await.unwrap().outcome, Some(Outcome::Failed));
}
