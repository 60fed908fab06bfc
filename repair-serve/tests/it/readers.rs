//! Two hundred readers delay no run, whatever they do.

use std::time::{Duration, Instant};

use crate::world::{World, workflow};

/// Readers that hang: they ask for messages, and never read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_readers_see_a_run_end_and_delay_nothing() {
    let world = World::new(&[("nightly.yaml", &workflow("nightly", ""))], |options| options).await;
    world.until("/", "nightly").await;
    let mut readers = Vec::new();
    for number in 0..200 {
        let mut messages = world.messages().await;
        if number % 4 == 0 {
            // These hang for as long as the run takes.
            readers.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                drop(messages);
                true
            }));
            continue;
        }
        assert!(messages.next().await.is_some());
        readers.push(tokio::spawn(async move {
            let mut seen = 0;
            while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(30), messages.next()).await {
                seen += 1;
                if seen >= 2 {
                    return true;
                }
            }
            false
        }));
    }
    let run = world.post("/workflows/nightly/run", &[]).await;
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
    for reader in readers {
        assert!(reader.await.unwrap(), "each reader sees what happens");
    }
    println!("the slowest page took {slowest:?}");
    world.end().await;
}
