//! What a schedule has to say arrives at least once and in order, whatever happens to whoever receives it and to the servers, and delays nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use repair::core::engine::{Journal, Outcome};
use repair::core::plugin::Clock;
use repair::core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair::notify::Notifications;
use repair::schedule::{Alert, Scheduler};
use repair::{CancellationToken, Repair};
use tokio::task::JoinHandle;

use crate::notify::{Does, Inbox};

/// A run takes two hours, so it misses its deadline each night.
const LATE: &str = "cron: \"30 2 * * *\", complete_by: \"03:00\"";
/// A second run a day is due, and not allowed.
const HELD: &str = "cron: \"0 2,14 * * *\", per_day: { runs: 1 }";

struct World {
    clock: Arc<VirtualClock>,
    lake: Arc<MemoryLake>,
    journal: Arc<MemoryJournal>,
    workflow: String,
    raised: Arc<Mutex<Vec<Alert>>>,
}

struct Server {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Server {
    /// Ends it between two instructions, as a crash does.
    async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

impl World {
    fn new(schedule: &str, more: &str) -> Self {
        let workflow = format!(
            "workflow: nightly
kind: state-machine
schedule: {{ {schedule} }}
notify:
  ops: {{ to: {{ command: {{ run: [page] }} }}, on: [deadline, budget, failed] }}
  log: {{ to: {{ command: {{ run: [log] }} }}, on: [deadline, budget, succeeded] }}
{more}
start: rest
steps:
  rest: {{ wait: {{ for: 2h }}, end: true }}
"
        );
        let clock = Arc::new(VirtualClock::starting_at("2024-03-04T00:00:00Z".parse().unwrap()));
        Self { clock, lake: Arc::default(), journal: Arc::default(), workflow, raised: Arc::default() }
    }

    async fn server(&self, ops: &Arc<Inbox>, log: &Arc<Inbox>) -> Server {
        let (stop, raised) = (CancellationToken::new(), self.raised.clone());
        let notifications = Notifications::new().receiver("ops", ops.clone()).receiver("log", log.clone());
        let opening = Repair::text("w.yaml", self.workflow.clone()).adapters(self.lake.clone(), self.journal.clone());
        let repair = opening.clock(self.clock.clone()).stop(stop.clone()).notify(&notifications).connect().await.unwrap();
        let scheduler = Scheduler::of(repair).unwrap().alerts(move |alert| raised.lock().unwrap().push(alert.clone()));
        Server { stop, running: tokio::spawn(async move { scheduler.run().await }) }
    }

    async fn sleep(&self, hours: i64) {
        self.clock.sleep_until(self.clock.now() + SignedDuration::from_hours(hours)).await;
    }

    /// How long each run of the schedule took that has ended.
    async fn runs(&self) -> Vec<SignedDuration> {
        let listed = self.journal.listed(self.clock.now()).await.unwrap();
        let ended = listed.iter().filter(|listed| listed.latest.outcome == Some(Outcome::Succeeded));
        ended.map(|listed| listed.latest.at.duration_since(listed.begun.at)).collect()
    }
}

fn takes() -> Arc<Inbox> {
    Inbox::new(|_| Does::Takes)
}

/// What was missed on a day of March.
fn deadline(day: i8, to: &str) -> String {
    let at: Timestamp = format!("2024-03-{day:02}T03:00:00Z").parse().unwrap();
    format!("schedule.nightly.deadline.{}.{to}", at.as_second())
}

#[tokio::test(start_paused = true)]
async fn what_a_server_could_not_deliver_is_delivered_by_the_next_one() {
    let world = World::new(LATE, "");
    let (dead, back, log) = (Inbox::new(|_| Does::Fails), takes(), takes());
    let first = world.server(&dead, &log).await;
    world.sleep(24 * 3).await;
    first.kill().await;
    assert_eq!(dead.ids(), Vec::<String>::new());
    // Nobody waited for it: neither the schedule, nor the other receiver.
    assert_eq!(world.runs().await, vec![SignedDuration::from_hours(2); 3]);
    let of_schedule = |inbox: &Inbox| inbox.ids().into_iter().filter(|id| id.starts_with("schedule.")).collect::<Vec<_>>();
    assert_eq!(of_schedule(&log), [4, 5, 6].map(|day| deadline(day, "log")));
    let second = world.server(&back, &log).await;
    world.sleep(1).await;
    assert_eq!(of_schedule(&back), [4, 5, 6].map(|day| deadline(day, "ops")));
    let body = &back.bodies()[0];
    assert_eq!((&body["what"], &body["workflow"], &body["to"]), (&"deadline".into(), &"nightly".into(), &"ops".into()));
    assert_eq!(body["alert"]["what"], "deadline-missed");
    assert_eq!(body["at"], "2024-03-04T03:00:00Z", "it says when it was raised, not when it was sent");
    assert!(body["text"].as_str().unwrap().contains("has not ended"), "{body}");
    // What comes later comes later, and nothing comes twice.
    world.sleep(24).await;
    second.end().await;
    let third = world.server(&back, &log).await;
    world.sleep(1).await;
    third.end().await;
    assert_eq!(of_schedule(&back), [4, 5, 6, 7].map(|day| deadline(day, "ops")));
    assert_eq!(of_schedule(&log), [4, 5, 6, 7].map(|day| deadline(day, "log")));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_never_answers_delays_neither_the_schedule_nor_others() {
    let world = World::new(LATE, "");
    let (hangs, log) = (Inbox::new(|_| Does::Hangs), takes());
    let server = world.server(&hangs, &log).await;
    world.sleep(24 * 5).await;
    assert_eq!(world.runs().await, vec![SignedDuration::from_hours(2); 5]);
    assert_eq!(log.ids().iter().filter(|id| id.starts_with("schedule.")).count(), 5);
    let began = world.clock.now();
    server.end().await;
    assert_eq!(world.clock.now(), began, "a server that ends waits for nobody");
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_server_had_delivered_but_not_noted_comes_again_with_the_same_id() {
    let world = World::new(LATE, "");
    let (killed, later, log) = (Inbox::new(|_| Does::TakesAndHangs), takes(), takes());
    let first = world.server(&killed, &log).await;
    world.clock.sleep_until("2024-03-04T03:00:30Z".parse().unwrap()).await;
    first.kill().await;
    assert_eq!(killed.ids(), [deadline(4, "ops")]);
    let second = world.server(&later, &log).await;
    world.sleep(1).await;
    second.end().await;
    assert_eq!((later.ids(), later.bodies()), (killed.ids(), killed.bodies()));
}

#[tokio::test(start_paused = true)]
async fn two_servers_deliver_each_alert_once() {
    let world = World::new(LATE, "");
    let (ops, log) = (Inbox::new(|attempt| if attempt % 3 == 0 { Does::Takes } else { Does::Fails }), takes());
    let (first, second) = (world.server(&ops, &log).await, world.server(&ops, &log).await);
    world.sleep(24 * 4).await;
    first.end().await;
    second.end().await;
    assert_eq!(ops.ids(), (4..8).map(|day| deadline(day, "ops")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_nobody_could_be_given_for_a_week_is_left_out() {
    let world = World::new(LATE, "");
    let (dead, back, log) = (Inbox::new(|_| Does::Refuses), takes(), takes());
    let first = world.server(&dead, &log).await;
    world.sleep(24).await;
    first.end().await;
    world.sleep(24 * 8).await;
    let second = world.server(&back, &log).await;
    world.sleep(24).await;
    second.end().await;
    let missed: Vec<String> = back.ids().into_iter().filter(|id| id.contains("deadline")).collect();
    assert!(!missed.contains(&deadline(4, "ops")) && missed.contains(&deadline(13, "ops")), "{missed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_a_day_is_said_once_however_often_servers_come_back() {
    let world = World::new(HELD, "");
    let (ops, log) = (takes(), takes());
    for _ in 0..8 {
        let server = world.server(&ops, &log).await;
        world.sleep(6).await;
        server.kill().await;
    }
    // What is held back on one day is the run of the next one, so that day's first tick has to wait, too.
    let ticks = ["2024-03-04T14:00:00Z", "2024-03-05T02:00:00Z", "2024-03-05T14:00:00Z"];
    let id = |tick: &str| format!("schedule.nightly.budget.{}.ops", tick.parse::<Timestamp>().unwrap().as_second());
    assert_eq!(ops.ids(), ticks.map(id));
    assert!(ops.bodies()[0]["text"].as_str().unwrap().contains("waits until 2024-03-05T00:00:00Z"), "{:?}", ops.bodies());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_start_is_said() {
    // The table is not there, so no run can begin.
    let mut world = World::new("cron: \"30 2 * * *\"", "tables: { t: { location: t, format: csv, time: ts, cadence: 1h, key: [k] } }");
    let looks = "detect: gaps, with: { table: t, keys: [a], from: 2024-03-04, to: 2024-03-04 }";
    world.workflow = world.workflow.replace("wait: { for: 2h }", looks);
    let (ops, log) = (Inbox::new(|attempt| if attempt < 3 { Does::Fails } else { Does::Takes }), takes());
    let server = world.server(&ops, &log).await;
    world.sleep(4).await;
    server.end().await;
    let second = "2024-03-04T02:30:00Z".parse::<Timestamp>().unwrap().as_second();
    assert_eq!(ops.ids(), [format!("schedule.nightly.failed.{second}.ops")], "{:?}", world.raised.lock().unwrap());
    assert_eq!(ops.bodies()[0]["alert"]["what"], "not-started");
    assert_eq!(log.ids(), Vec::<String>::new(), "it does not want to hear of that");
}

/// Servers come and go, receivers do what they like, and in the end everybody has everything.
#[tokio::test(start_paused = true)]
async fn every_alert_arrives_at_least_once_and_in_order_whatever_happens() {
    for seed in testdata::seeds(2, 100) {
        let world = World::new(LATE, "");
        let wild = |salt: u64| {
            Inbox::new(move |attempt| {
                let mut random = SmallRng::seed_from_u64(seed * 1_000_003 + salt * 10_007 + attempt as u64);
                let all = [Does::Takes, Does::TakesAndFails, Does::TakesAndHangs, Does::Fails, Does::Hangs, Does::Refuses];
                all[random.random_range(0..all.len())]
            })
        };
        let (ops, log) = (wild(1), wild(2));
        let mut random = SmallRng::seed_from_u64(seed);
        let mut there: Vec<Server> = Vec::new();
        for _ in 0..8 {
            while there.len() < random.random_range(1..=2) {
                there.push(world.server(&ops, &log).await);
            }
            world.sleep(random.random_range(1..20)).await;
            let gone = there.swap_remove(random.random_range(0..there.len()));
            if random.random_bool(0.5) { gone.kill().await } else { gone.end().await }
        }
        for server in there {
            server.kill().await;
        }
        let (calm_ops, calm_log) = (takes(), takes());
        let last = world.server(&calm_ops, &calm_log).await;
        world.sleep(1).await;
        last.end().await;
        for (name, wild, calm) in [("ops", &ops, &calm_ops), ("log", &log, &calm_log)] {
            let mut first: BTreeMap<String, usize> = BTreeMap::new();
            let mut bodies = BTreeMap::new();
            let all = [wild.got.lock().unwrap().clone(), calm.got.lock().unwrap().clone()].concat();
            for (place, message) in all.iter().filter(|message| message.id.starts_with("schedule.")).enumerate() {
                first.entry(message.id.clone()).or_insert(place);
                let before = bodies.entry(message.id.clone()).or_insert_with(|| message.body.clone());
                assert_eq!(*before, message.body, "seed {seed}: what comes again is the same");
            }
            let expected: Vec<String> = world
                .raised
                .lock()
                .unwrap()
                .iter()
                .map(|alert| match alert {
                    Alert::DeadlineMissed { deadline, .. } => format!("schedule.nightly.deadline.{}.{name}", deadline.as_second()),
                    other => panic!("seed {seed}: {other}"),
                })
                .collect();
            assert!(expected.iter().all(|id| first.contains_key(id)), "seed {seed}: {name} has {first:?}, but {expected:?} were raised");
            // Ids of deadlines are in order of time.
            let places: Vec<usize> = first.values().copied().collect();
            assert!(places.is_sorted(), "seed {seed}: {name} got {first:?}");
        }
    }
}
