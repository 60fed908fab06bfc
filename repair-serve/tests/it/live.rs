//! What is due runs, whatever is shown of it, and what a reader starts is seen to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use repair::core::plugin::{Clock as _, ScaledClock, SystemClock};

use crate::world::{World, workflow};

#[tokio::test]
async fn a_run_that_is_started_from_the_page_is_seen_to_end() {
    let asks = workflow("nightly", "").replace("for: 2s", "until: { approval: go on, every: 50ms }");
    let world = World::new(&[("nightly.yaml", &asks)], |options| options).await;
    world.until("/", "nightly").await;
    let mut messages = world.messages().await;
    assert!(messages.next().await.is_some());
    let answer = world.post("/workflows/nightly/run", &[("param.day", "2024-03-04")]).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    let page = world.until(answer.location(), "waits for an approval").await;
    assert!(page.contains("state busy"), "{page}");
    assert_eq!(world.post(&format!("{}/approve", answer.location()), &[("by", "Ada")]).await.status, 303);
    // Each change is a message; the last of them is that it has ended.
    loop {
        messages.next().await.expect("the run ends");
        if world.get(answer.location()).await.body.contains("state good") {
            break;
        }
    }
    let report = world.get(&format!("{}/report", answer.location())).await;
    assert!(report.status == 200 && report.body.contains("Completeness of readings"), "{}", report.body);
    let tables = world.get("/tables").await.body;
    assert!(tables.contains("<h2>readings</h2>") && tables.contains("<svg") && tables.contains("repaired"), "{tables}");
    let status: serde_json::Value = serde_json::from_str(&world.get("/api/status").await.body).unwrap();
    assert_eq!(status["lakes"][0]["status"]["tables"][0]["table"], "readings", "{status}");
    // They are of what was seen last, which may be a moment ago.
    world.until("/metrics", "repair_runs{workflow=\"nightly\",status=\"succeeded\"} 1").await;
    world.end().await;
    assert!(messages.next().await.is_none() || messages.next().await.is_none(), "the messages end with the server");
}

#[tokio::test]
async fn a_plan_is_shown_and_applied() {
    let world = World::new(&[("nightly.yaml", &workflow("nightly", ""))], |options| options).await;
    world.until("/", "nightly").await;
    let plan = world.post("/workflows/nightly/plan", &[]).await;
    assert_eq!(plan.status, 303, "{}", plan.body);
    let page = world.get(plan.location()).await.body;
    assert!(page.contains("missing: 1") && page.contains("Apply it now"), "{page}");
    let run = world.post(&format!("{}/apply", plan.location()), &[]).await;
    world.until(run.location(), "state good").await;
    // What the reader gave wrong is said, and nothing runs.
    let refused = world.post("/workflows/nightly/run", &[("param.day", "yesterdy")]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("yesterdy"), "{}", refused.body);
    let missing = world.get("/lakes/0/runs/nothing").await;
    assert_eq!(missing.status, 404);
    world.end().await;
}

#[tokio::test]
async fn a_run_is_cancelled_and_goes_on_from_the_page() {
    let slow = workflow("nightly", "").replace("for: 2s", "for: 1h");
    let world = World::new(&[("nightly.yaml", &slow)], |options| options).await;
    world.until("/", "nightly").await;
    let run = world.post("/workflows/nightly/run", &[]).await;
    world.until(run.location(), "waits until").await;
    assert_eq!(world.post(&format!("{}/cancel", run.location()), &[]).await.status, 303);
    world.until(run.location(), "cancelled").await;
    // Its driver may still hold the run for a moment after it has recorded the end.
    let began = std::time::Instant::now();
    let redriven = loop {
        let answer = world.post(&format!("{}/redrive", run.location()), &[]).await;
        if answer.status != 409 || began.elapsed() > std::time::Duration::from_secs(90) {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(redriven.status, 303, "{}", redriven.body);
    world.until(run.location(), "waits until").await;
    // The server stops, and another one goes on.
    let place = run.location().to_owned();
    let world = World::again(world.end().await, |options| options).await;
    world.until(&place, "stopped").await;
    world.post(&format!("{place}/resume"), &[]).await;
    world.until(&place, "waits until").await;
    world.end().await;
}

#[tokio::test]
async fn schedules_run_and_changes_are_noticed() {
    let often = workflow("often", "schedule: { every: 2s }").replace("for: 2s", "for: 10ms");
    let world =
        World::new(&[("often.yaml", &often), ("broken.yaml", "workflow: broken\nkind: dag\nsteps: {}\nextra: 1\n")], |options| options)
            .await;
    let page = world.until("/", "often-20").await;
    assert!(page.contains("every 2s") && page.contains("broken.yaml cannot be used") && page.contains("extra"), "{page}");
    // Another file comes, one is repaired, one goes.
    std::fs::write(world.path().join("workflows/later.yaml"), workflow("later", "")).unwrap();
    std::fs::remove_file(world.path().join("workflows/broken.yaml")).unwrap();
    std::fs::remove_file(world.path().join("workflows/often.yaml")).unwrap();
    let page = world.until("/", "/workflows/later").await;
    assert!(!page.contains("broken.yaml") && !page.contains("every 2s"), "{page}");
    let api: serde_json::Value = serde_json::from_str(&world.get("/api/runs").await.body).unwrap();
    let runs = api["lakes"][0]["runs"].as_array().unwrap();
    assert!(!runs.is_empty() && runs.iter().all(|run| run["workflow"] == "often"), "{api}");
    world.end().await;
}

/// Who approves on the page sees what it is about.
#[tokio::test]
async fn an_approval_on_the_page_shows_rows_and_price() {
    let ask = "    next: ask\n  ask: { wait: { until: { approval: go on with it, every: 50ms } }, next: fill }\n";
    let asks = workflow("nightly", "").replacen("    next: fill\n", ask, 1);
    let world = World::new(&[("nightly.yaml", &asks)], |options| options).await;
    world.until("/", "nightly").await;
    let run = world.post("/workflows/nightly/run", &[]).await;
    let page = world.until(run.location(), "waits for an approval").await;
    assert!(page.contains("go on with it") && page.contains(": 1 slot of table readings is missing, in 1 gap of 1 key; by "), "{page}");
    assert_eq!(world.post(&format!("{}/approve", run.location()), &[("by", "Ada")]).await.status, 303);
    world.until(run.location(), "state good").await;
    world.end().await;
}

/// A lease says for how long a process may be silent, so it lasts as long as ever, however fast the clock of the workflows is.
#[tokio::test]
async fn a_run_that_waits_by_a_fast_clock_is_not_shown_as_stopped() {
    let asks = workflow("nightly", "").replace("for: 2s", "until: { approval: go on, every: 1m }");
    let clock = ScaledClock::new(SystemClock.now(), 600).unwrap();
    let world = World::new(&[("nightly.yaml", &asks)], |options| options.with_clock(Arc::new(clock))).await;
    world.until("/", "nightly").await;
    let run = world.post("/workflows/nightly/run", &[("param.day", "2024-03-04")]).await;
    assert_eq!(run.status, 303, "{}", run.body);
    // By that clock a minute passes in a tenth of a second, and the lease would have expired twice.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let page = world.get(run.location()).await.body;
        assert!(!page.contains("stopped"), "{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.until(run.location(), "waits for an approval").await;
    let runs: serde_json::Value = serde_json::from_str(&world.get("/api/runs").await.body).unwrap();
    assert_ne!(runs["lakes"][0]["runs"][0]["status"], "stopped", "{runs}");
    // Others, whose clocks are not fast, see the same.
    let seen = repair::OpenLake::at(world.path().join("lake")).unwrap().runs().await.unwrap();
    assert_ne!(serde_json::to_value(&seen).unwrap()["runs"][0]["status"], "stopped");
    world.end().await;
}
