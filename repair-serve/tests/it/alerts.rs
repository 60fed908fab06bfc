//! What a schedule has to say arrives at a receiver on loopback that is dead at first, from a server that has replaced the one that had to say it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use repair::core::plugin::{Clock, ScaledClock, SystemClock};
use repair::jiff::SignedDuration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::World;

/// Answers each request with 204, and keeps it.
fn receive(listener: TcpListener) -> Arc<Mutex<Vec<String>>> {
    let got = Arc::<Mutex<Vec<String>>>::default();
    let kept = got.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            let mut chunk = [0; 4_096];
            while let Ok(length @ 1..) = stream.read(&mut chunk).await {
                text.push_str(&String::from_utf8_lossy(&chunk[..length]));
                let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                    length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| body.len() >= length)
                });
                if is_whole {
                    kept.lock().unwrap().push(text);
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
                    break;
                }
            }
        }
    });
    got
}

#[tokio::test]
async fn a_missed_deadline_reaches_a_receiver_that_was_dead_and_a_server_that_came_later() {
    let address: SocketAddr = {
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        reserved.local_addr().unwrap()
    };
    let clock = Arc::new(ScaledClock::new(SystemClock.now() - SignedDuration::from_secs(1), 60).unwrap());
    let deadline = (clock.now() + SignedDuration::from_mins(4)).strftime("%H:%M").to_string();
    // A run takes a day, so none has ended by then.
    let workflow = format!(
        "workflow: nightly
kind: state-machine
schedule: {{ cron: \"* * * * *\", complete_by: \"{deadline}\" }}
notify: {{ ops: {{ to: {{ webhook: {{ url: \"http://{address}/hook\" }} }}, on: deadline }} }}
start: rest
steps: {{ rest: {{ wait: {{ for: 1d }}, end: true }} }}
"
    );
    let first = World::new(&[("nightly.yaml", &workflow)], |options| options.with_clock(clock.clone())).await;
    first.until("/", "was to end well by").await;
    // Nobody is there to hear of it, and the server ends. Another one is there when somebody is.
    let folder = first.end().await;
    let got = receive(TcpListener::bind(address).await.unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(got.lock().unwrap().len(), 0, "no server is there that could say it");
    let second = World::again(folder, |options| options.with_clock(clock.clone())).await;
    let began = std::time::Instant::now();
    while got.lock().unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "the alert never arrived");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    second.end().await;
    let got = got.lock().unwrap().clone();
    let (head, body) = got[0].split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["what"], &body["alert"]["what"], &body["to"]), (&"deadline".into(), &"deadline-missed".into(), &"ops".into()));
    let id = body["id"].as_str().unwrap();
    assert!(id.starts_with("schedule.nightly.deadline."), "{id}");
    assert!(head.to_lowercase().contains(&format!("repair-message-id: {id}")), "{head}");
    let ids: std::collections::BTreeSet<String> = got.iter().map(|request| request.split_once("\r\n\r\n").unwrap().1.to_owned()).collect();
    assert_eq!(ids.len(), got.len(), "nothing came twice: {got:?}");
}
