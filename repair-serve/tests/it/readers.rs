//! Two hundred readers delay no run, whatever they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use repair::CancellationToken;

use crate::world::{World, workflow};

/// Readers that hang: they ask for messages, and never read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_readers_see_a_run_end_and_delay_nothing() {
    let asks = workflow("nightly", "").replace("for: 2s", "until: { approval: go on, every: 50ms }");
    let world = World::new(&[("nightly.yaml", &asks)], |options| options).await;
    world.until("/", "nightly").await;
    let mut readers = Vec::new();
    // How many have seen something of the run; and whether it is over.
    let (informed, over) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
    for number in 0..200 {
        let mut messages = world.messages().await;
        if number % 4 == 0 {
            // These hang for as long as the run takes.
            let over = over.clone();
            readers.push(tokio::spawn(async move {
                over.cancelled().await;
                drop(messages);
                true
            }));
            continue;
        }
        assert!(messages.next().await.is_some());
        let informed = informed.clone();
        readers.push(tokio::spawn(async move {
            let mut seen = 0;
            while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(120), messages.next()).await {
                seen += 1;
                if seen == 1 {
                    informed.fetch_add(1, Ordering::SeqCst);
                }
                if seen >= 2 {
                    return true;
                }
            }
            false
        }));
    }
    let run = world.post("/workflows/nightly/run", &[]).await;
    // Changes that come together may be one message, so the run goes on once each reader has seen that it has begun.
    world.until(run.location(), "waits for an approval").await;
    let began = Instant::now();
    while informed.load(Ordering::SeqCst) < 150 {
        assert!(began.elapsed() < Duration::from_secs(120), "{} of 150 readers have seen the run begin", informed.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.post(&format!("{}/approve", run.location()), &[]).await.status, 303);
    let mut slowest = Duration::ZERO;
    loop {
        let began = Instant::now();
        let page = world.get(run.location()).await.body;
        slowest = slowest.max(began.elapsed());
        if page.contains("state good") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    over.cancel();
    for reader in readers {
        assert!(reader.await.unwrap(), "each reader sees what happens");
    }
    println!("the slowest page took {slowest:?}");
    world.end().await;
}
