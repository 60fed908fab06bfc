//! What a schedule has to say arrives at a receiver on loopback that is dead at first, from a server that has replaced the one that had to say it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use repair::core::plugin::{Clock, ScaledClock, SystemClock};
use repair::jiff::tz::TimeZone;
use repair::jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use crate::world::World;

/// A fast clock that begins at eight in the morning, and can be set forward.
struct Settable {
    inner: ScaledClock,
    ahead_s: AtomicI64,
}

impl Settable {
    fn at_eight() -> Self {
        let inner = ScaledClock::new(SystemClock.now(), 60).unwrap();
        let now = inner.now();
        let tomorrow = TimeZone::UTC.to_datetime(now).date().tomorrow().unwrap();
        let eight = TimeZone::UTC.to_timestamp(tomorrow.at(8, 0, 0, 0)).unwrap();
        Self { inner, ahead_s: AtomicI64::new(eight.duration_since(now).as_secs()) }
    }

    fn set_forward(&self, by: SignedDuration) {
        self.ahead_s.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for Settable {
    fn now(&self) -> Timestamp {
        self.inner.now() + SignedDuration::from_secs(self.ahead_s.load(Ordering::SeqCst))
    }

    async fn sleep_until(&self, due: Timestamp) {
        while self.now() < due {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn lease_now(&self) -> Timestamp {
        self.inner.lease_now()
    }
}

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
    // It refuses connections until it listens.
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = reserved.local_addr().unwrap();
    let clock = Arc::new(Settable::at_eight());
    // A run takes a day, so none has ended by noon.
    let workflow = format!(
        "workflow: nightly
kind: state-machine
schedule: {{ cron: \"* * * * *\", complete_by: \"12:00\" }}
notify: {{ ops: {{ to: {{ webhook: {{ url: \"http://{address}/hook\" }} }}, on: deadline }} }}
start: rest
steps: {{ rest: {{ wait: {{ for: 1d }}, end: true }} }}
"
    );
    let first = World::new(&[("nightly.yaml", &workflow)], |options| options.with_clock(clock.clone())).await;
    // The deadline comes after the schedule has begun, however long that takes.
    first.until("/api/schedules", "\"since\":\"2").await;
    clock.set_forward(SignedDuration::from_hours(5));
    first.until("/", "was to end well by").await;
    // Nobody is there to hear of it, and the server ends. Another one is there when somebody is.
    let folder = first.end().await;
    let got = receive(reserved.listen(16).unwrap());
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
