//! Messages about runs arrive at least once and in order, whatever happens to whoever receives or sends them, and no run waits for them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use repair::arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
use repair::core::engine::{Event, Journal, ListedRun, Recorded, RunHead, Signal};
use repair::core::lake::Lake;
use repair::core::plugin::{Deliver, Message};
use repair::core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair::jiff::Timestamp;
use repair::notify::{Notifications, PATIENCE, Settled};
use repair::{Error, ErrorKind, OpenLake, Registry, Repair, Workflow};
use serde_json::Value;

const WORKFLOW: &str = "
workflow: nightly
kind: state-machine
tables: { t: { location: t, format: csv, time: ts, cadence: 1h } }
start: find
steps:
  find: { detect: gaps, with: { table: t, from: 2024-03-04, to: 2024-03-04 }, next: [{ when: $output.missing = 24, goto: over }, { goto: done }] }
  over: { fail: nothing is there }
  done: { task: usage, end: true }
notify:
  ops: { to: { command: { run: [page] } }, on: [succeeded, succeeded-with-exceptions, failed, changed] }
";

/// A lake and a journal, which several processes use in turn.
struct World {
    lake: Arc<MemoryLake>,
    journal: Arc<MemoryJournal>,
    workflow: String,
    /// When the next process begins.
    now: Mutex<Timestamp>,
}

impl World {
    fn new(notify: &str) -> Self {
        let workflow = WORKFLOW
            .replace("succeeded-with-exceptions, failed, changed] }", &format!("succeeded-with-exceptions, failed, changed]{notify} }}"));
        let world =
            Self { lake: Arc::default(), journal: Arc::default(), workflow, now: Mutex::new("2024-03-05T02:00:00Z".parse().unwrap()) };
        world.has(24);
        world
    }

    /// The table has so many of its 24 hours.
    fn has(&self, hours: i64) {
        let table = Workflow::parse("w.yaml", &self.workflow, &Registry::default()).unwrap().tables["t"].clone();
        let times: Vec<i64> = (0..hours).map(|hour| (1_709_510_400 + hour * 3_600) * 1_000_000).collect();
        let values = Float64Array::from(vec![1.0; times.len()]);
        let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let rows = RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef), ("v", Arc::new(values) as ArrayRef)]).unwrap();
        self.lake.put_table(&table, &[rows]).unwrap();
    }

    /// A process, in which time passes only while nobody works. What it has not finished when it ends is gone.
    fn process<T>(&self, work: impl AsyncFnOnce(VirtualClock) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let began = *self.now.lock().unwrap();
        runtime.block_on(async {
            let clock = VirtualClock::starting_at(began);
            let done = work(clock).await;
            *self.now.lock().unwrap() = repair::core::plugin::Clock::now(&clock);
            done
        })
    }

    fn sleep(&self, time: Duration) {
        let mut now = self.now.lock().unwrap();
        *now = now.checked_add(time).unwrap();
    }

    fn adapters(&self) -> (Arc<dyn Lake>, Arc<dyn Journal>) {
        (self.lake.clone(), self.journal.clone())
    }

    async fn run(&self, id: &str, clock: VirtualClock, notifications: &Notifications) -> repair::RunReport {
        let (lake, journal) = self.adapters();
        let opening = Repair::text("w.yaml", self.workflow.clone()).adapters(lake, journal).clock(Arc::new(clock)).notify(notifications);
        let repair = opening.connect().await.unwrap_or_else(|error| panic!("{}", error.full()));
        repair.run().id(id).await.unwrap()
    }

    /// A whole process that runs the workflow, and waits for receivers so long.
    fn nightly(&self, id: &str, to: &Arc<Inbox>, within: Duration) -> Settled {
        self.process(async |clock| {
            let notifications = Notifications::new().receiver("ops", to.clone());
            self.run(id, clock, &notifications).await;
            notifications.settle(within).await
        })
    }

    fn pending(&self, to: &Arc<Inbox>, within: Duration) -> Settled {
        self.process(async |clock| {
            let notifications = Notifications::new().receiver("ops", to.clone());
            let (lake, journal) = self.adapters();
            OpenLake::of(lake, journal).clock(Arc::new(clock)).deliver_pending(&notifications, within).await.unwrap()
        })
    }
}

/// What a receiver does with an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Does {
    /// It notes the message and says so.
    Takes,
    /// It notes the message and says that it failed, or its answer is lost.
    TakesAndFails,
    /// It notes the message and never answers.
    TakesAndHangs,
    Fails,
    Hangs,
    Refuses,
}

/// A receiver that does something else with each attempt.
pub(crate) struct Inbox {
    does: Box<dyn Fn(usize) -> Does + Send + Sync>,
    attempts: Mutex<usize>,
    pub(crate) got: Mutex<Vec<Message>>,
}

impl Inbox {
    pub(crate) fn new(does: impl Fn(usize) -> Does + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { does: Box::new(does), attempts: Mutex::new(0), got: Mutex::default() })
    }

    /// The ids, in order.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.got.lock().unwrap().iter().map(|message| message.id.clone()).collect()
    }

    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.got.lock().unwrap().iter().map(|message| message.body.clone()).collect()
    }
}

#[async_trait]
impl Deliver for Inbox {
    async fn deliver(&self, message: &Message) -> repair::Result<()> {
        let attempt = {
            let mut attempts = self.attempts.lock().unwrap();
            *attempts += 1;
            *attempts - 1
        };
        let does = (self.does)(attempt);
        if matches!(does, Does::Takes | Does::TakesAndFails | Does::TakesAndHangs) {
            self.got.lock().unwrap().push(message.clone());
        }
        match does {
            Does::Takes => Ok(()),
            Does::TakesAndFails | Does::Fails => Err(Error::new(ErrorKind::Transient, "it could not be reached")),
            Does::TakesAndHangs | Does::Hangs => std::future::pending().await,
            Does::Refuses => Err(Error::new(ErrorKind::Denied, "it refused")),
        }
    }
}

const LONG: Duration = Duration::from_secs(24 * 3_600);

fn what(body: &Value) -> (String, String) {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (text("run"), text("what"))
}

#[test]
fn a_message_says_what_happened() {
    let world = World::new("");
    world.has(20);
    let inbox = Inbox::new(|_| Does::Takes);
    let settled = world.nightly("one", &inbox, PATIENCE);
    assert_eq!((settled.delivered, settled.left.len()), (2, 0));
    let bodies = inbox.bodies();
    assert_eq!(bodies.iter().map(|body| body["what"].as_str().unwrap()).collect::<Vec<_>>(), ["changed", "succeeded-with-exceptions"]);
    let ended = &bodies[1];
    assert_eq!((&ended["format"], &ended["run"], &ended["workflow"]), (&1.into(), &"one".into(), &"nightly".into()));
    assert_eq!((&ended["outcome"], &ended["missing"], &ended["to"]), (&"succeeded-with-exceptions".into(), &4.into(), &"ops".into()));
    assert!(ended["text"].as_str().unwrap().contains("run `one` of workflow `nightly` succeeded with exceptions"), "{ended}");
    assert!(ended["text"].as_str().unwrap().contains("4 slots are still missing"), "{ended}");
    let change = &bodies[0]["change"];
    assert_eq!(
        (&change["table"], &change["from"], &change["to"], &change["missing"]),
        (&"t".into(), &Value::Null, &"missing".into(), &4.into())
    );
    assert_eq!(inbox.got.lock().unwrap()[1].id, ended["id"].as_str().unwrap());
    // Nothing is left for a later process.
    assert_eq!(world.pending(&inbox, LONG).delivered, 0);
    assert_eq!(inbox.ids().len(), 2);
}

#[test]
fn every_message_arrives_at_least_once_and_in_order_whatever_the_receiver_does() {
    for seed in 0..60_u64 {
        let world = World::new("");
        // It may do anything, but not for ever.
        let inbox = Inbox::new(move |attempt| {
            let mut random = SmallRng::seed_from_u64(seed * 1_000 + attempt as u64);
            let all = [Does::Takes, Does::TakesAndFails, Does::TakesAndHangs, Does::Fails, Does::Hangs];
            if attempt > 40 { Does::Takes } else { all[random.random_range(0..all.len())] }
        });
        let mut expected = Vec::new();
        for (night, hours) in [20, 20, 24, 0].into_iter().enumerate() {
            world.has(hours);
            world.nightly(&format!("night-{night}"), &inbox, if seed % 2 == 0 { LONG } else { PATIENCE });
            expected.push(night);
        }
        world.pending(&inbox, LONG);
        let mut of_runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut first = BTreeMap::new();
        for message in inbox.got.lock().unwrap().iter() {
            // A message that comes again is the same.
            let before = first.entry(message.id.clone()).or_insert_with(|| (message.body.clone(), message.text.clone()));
            assert_eq!(*before, (message.body.clone(), message.text.clone()), "seed {seed}");
            let (run, what) = what(&message.body);
            let of_run = of_runs.entry(run).or_default();
            if of_run.last() != Some(&what) {
                of_run.push(what);
            }
        }
        let all: Vec<(&str, Vec<&str>)> =
            of_runs.iter().map(|(run, what)| (run.as_str(), what.iter().map(String::as_str).collect())).collect();
        let expected = [
            ("night-0", vec!["changed", "succeeded-with-exceptions"]),
            ("night-1", vec!["succeeded-with-exceptions"]),
            ("night-2", vec!["changed", "succeeded"]),
            ("night-3", vec!["changed", "failed"]),
        ];
        assert_eq!(all, expected, "seed {seed}");
        assert_eq!(world.pending(&inbox, LONG), Settled::default(), "seed {seed}: nothing is left");
    }
}

#[test]
fn a_receiver_that_never_answers_delays_nothing() {
    let world = World::new("");
    let inbox = Inbox::new(|_| Does::Hangs);
    let left = world.process(async |clock| {
        let notifications = Notifications::new().receiver("ops", inbox.clone());
        let began = repair::core::plugin::Clock::now(&clock);
        world.run("one", clock, &notifications).await;
        // Time passes only while everybody waits: the run has waited for nothing.
        assert_eq!(repair::core::plugin::Clock::now(&clock), began);
        let settled = notifications.settle(PATIENCE).await;
        let waited = repair::core::plugin::Clock::now(&clock).duration_since(began);
        assert!(waited.as_millis() <= 10_001, "it waits as long as it says: {waited}");
        settled.left
    });
    assert_eq!(left.iter().map(|left| (left.run.as_str(), left.to.as_str(), left.messages)).collect::<Vec<_>>(), [("one", "ops", 1)]);
}

#[test]
fn a_receiver_that_refuses_is_asked_again_by_the_next_process() {
    let world = World::new("");
    let inbox = Inbox::new(|attempt| if attempt < 2 { Does::Refuses } else { Does::Takes });
    for run in ["one", "two"] {
        let settled = world.nightly(run, &inbox, LONG);
        if run == "one" {
            assert_eq!((settled.left.len(), settled.left[0].messages), (1, 1), "{settled:?}");
            assert_eq!(settled.left[0].error.as_deref(), Some("it refused"));
        }
    }
    // The next run of the workflow delivers what was left of the one before, too.
    world.pending(&inbox, LONG);
    let mut all: Vec<(String, String)> = inbox.bodies().iter().map(what).collect();
    all.sort();
    assert_eq!(all, [("one".to_owned(), "succeeded".to_owned()), ("two".to_owned(), "succeeded".to_owned())]);
}

#[test]
fn what_a_killed_process_had_delivered_but_not_noted_comes_again_with_the_same_id() {
    let world = World::new("");
    world.has(3);
    let (killed, later) = (Inbox::new(|_| Does::TakesAndHangs), Inbox::new(|_| Does::Takes));
    // It has the first message, and the process ends before it has an answer.
    world.nightly("one", &killed, Duration::from_secs(1));
    assert_eq!(killed.ids().len(), 1);
    let settled = world.pending(&later, LONG);
    assert_eq!(settled.delivered, 2);
    assert_eq!(later.ids()[0], killed.ids()[0]);
    assert_eq!(later.bodies()[0], killed.bodies()[0]);
    assert_eq!(world.pending(&later, LONG).delivered, 0);
}

#[test]
fn a_message_that_is_too_old_is_left_out() {
    let world = World::new("");
    let dead = Inbox::new(|_| Does::Fails);
    world.nightly("one", &dead, PATIENCE);
    world.sleep(Duration::from_secs(8 * 24 * 3_600));
    let later = Inbox::new(|_| Does::Takes);
    assert_eq!(world.pending(&later, LONG).delivered, 0);
    assert_eq!(later.ids(), Vec::<String>::new());
}

#[test]
fn a_table_changes_once_however_often_it_is_looked_at() {
    let world = World::new("");
    let inbox = Inbox::new(|_| Does::Takes);
    for (night, hours) in [24, 24, 20, 20, 19, 24, 24, 20].into_iter().enumerate() {
        world.has(hours);
        world.nightly(&format!("night-{night}"), &inbox, LONG);
        world.sleep(LONG);
    }
    let changes = inbox.bodies().into_iter().filter(|body| body["what"] == "changed");
    let changes: Vec<(String, String)> =
        changes.map(|body| (body["run"].as_str().unwrap().to_owned(), body["change"]["to"].as_str().unwrap().to_owned())).collect();
    let expected = [("night-2", "missing"), ("night-5", "repaired"), ("night-7", "missing")];
    assert_eq!(changes, expected.map(|(run, to)| (run.to_owned(), to.to_owned())));
}

#[test]
fn a_run_that_is_redriven_says_how_it_ends_each_time() {
    let world = World::new("");
    world.has(0);
    let inbox = Inbox::new(|_| Does::Takes);
    world.nightly("one", &inbox, LONG);
    world.has(24);
    world.process(async |clock| {
        let notifications = Notifications::new().receiver("ops", inbox.clone());
        let (lake, journal) = world.adapters();
        OpenLake::of(lake, journal).clock(Arc::new(clock)).notify(&notifications).redrive("one").await.unwrap();
        notifications.settle(LONG).await;
    });
    let all: Vec<String> = inbox.bodies().iter().map(|body| what(body).1).collect();
    assert_eq!(all, ["changed", "failed", "changed", "succeeded"]);
    assert_eq!(inbox.bodies()[2]["change"]["to"], "repaired");
}

#[test]
fn a_digest_gathers_what_happens_within_its_time() {
    let world = World::new(", digest: 1d");
    let inbox = Inbox::new(|_| Does::Takes);
    let hour = Duration::from_secs(3_600);
    world.has(20);
    // The first is sent at once: there was none within a day.
    assert_eq!(world.nightly("a", &inbox, PATIENCE).delivered, 1);
    for run in ["b", "c"] {
        world.sleep(hour);
        let settled = world.nightly(run, &inbox, PATIENCE);
        assert_eq!(settled.delivered, 0);
        assert!(settled.left.iter().all(|left| left.due.is_some() && left.error.is_none()), "{settled:?}");
    }
    assert_eq!(world.pending(&inbox, PATIENCE).delivered, 0);
    world.sleep(LONG);
    assert_eq!(world.pending(&inbox, PATIENCE).delivered, 1);
    let bodies = inbox.bodies();
    let gathered: Vec<Vec<(String, String)>> =
        bodies.iter().map(|body| body["messages"].as_array().unwrap().iter().map(what).collect()).collect();
    let pair = |run: &str, what: &str| (run.to_owned(), what.to_owned());
    let with = "succeeded-with-exceptions";
    assert_eq!(gathered, [vec![pair("a", "changed"), pair("a", with)], vec![pair("b", with), pair("c", with)]]);
    assert!(bodies.iter().all(|body| body["what"] == "digest" && body["to"] == "ops"));
    assert_eq!(world.pending(&inbox, LONG).delivered, 0);
}

#[test]
fn a_digest_that_was_being_sent_when_the_process_was_killed_comes_again_as_it_was() {
    let world = World::new(", digest: 1h");
    let (killed, later) = (Inbox::new(|_| Does::TakesAndHangs), Inbox::new(|_| Does::Takes));
    world.nightly("a", &killed, Duration::from_secs(1));
    // More has happened since.
    world.nightly("b", &later, PATIENCE);
    assert_eq!(killed.ids(), later.ids());
    assert_eq!(killed.bodies(), later.bodies());
    world.sleep(LONG);
    world.pending(&later, PATIENCE);
    let gathered: Vec<Vec<(String, String)>> =
        later.bodies().iter().map(|body| body["messages"].as_array().unwrap().iter().map(what).collect()).collect();
    assert_eq!(gathered, [vec![("a".to_owned(), "succeeded".to_owned())], vec![("b".to_owned(), "succeeded".to_owned())]]);
}

#[test]
fn a_workflow_without_notify_costs_nothing() {
    let mut world = World::new("");
    world.workflow = world.workflow.split("notify:").next().unwrap().to_owned();
    let inbox = Inbox::new(|_| Does::Takes);
    assert_eq!(world.nightly("one", &inbox, PATIENCE), Settled::default());
    let quiet = world.lake.requests("put_artifact");
    let plain = World { workflow: world.workflow.clone(), ..World::new("") };
    plain.process(async |clock| {
        let (lake, journal) = plain.adapters();
        Repair::text("w.yaml", plain.workflow.clone())
            .adapters(lake, journal)
            .clock(Arc::new(clock))
            .connect()
            .await
            .unwrap()
            .run()
            .id("one")
            .await
            .unwrap();
    });
    assert_eq!(quiet, plain.lake.requests("put_artifact"), "nothing is kept about messages that nobody wants");
}

/// A journal whose answers are on their way for a while, so that a run goes on, and may end, before they arrive.
struct Late {
    inner: Arc<MemoryJournal>,
    longest_ms: u64,
    numbers: Mutex<SmallRng>,
}

#[async_trait]
impl Journal for Late {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> repair::Result<()> {
        self.inner.append(run, expected, at, events).await
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> repair::Result<Vec<Recorded>> {
        let read = self.inner.read(run, from, limit).await;
        let wait = self.numbers.lock().unwrap().random_range(0..=self.longest_ms);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        read
    }

    async fn runs(&self) -> repair::Result<Vec<RunHead>> {
        self.inner.runs().await
    }

    async fn listed(&self, now: Timestamp) -> repair::Result<Vec<ListedRun>> {
        self.inner.listed(now).await
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> repair::Result<()> {
        self.inner.acquire(run, driver, now, ttl).await
    }

    async fn release(&self, run: &str, driver: &str) -> repair::Result<()> {
        self.inner.release(run, driver).await
    }

    async fn driver(&self, run: &str, now: Timestamp) -> repair::Result<Option<String>> {
        self.inner.driver(run, now).await
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> repair::Result<()> {
        self.inner.signal(run, signal).await
    }

    async fn signaled(&self, run: &str) -> repair::Result<Option<Signal>> {
        self.inner.signaled(run).await
    }
}

/// A run may end while it is being read whether there is anybody to hear of it. Time is virtual here, so the wait is counted and not measured.
#[test]
fn nobody_waits_at_the_end_of_a_run_of_which_nobody_is_to_hear() {
    let (mut quiet, to_someone) = (World::new(""), World::new(""));
    quiet.workflow = quiet.workflow.split_once("notify:").unwrap().0.to_owned();
    for (world, messages) in [(quiet, 0), (to_someone, 1)] {
        for seed in testdata::seeds(60, 600) {
            let _printed = testdata::PrintedOnPanic::seed(seed);
            world.process(async |clock| {
                let notifications = Notifications::new().receiver("ops", Inbox::new(|_| Does::Takes));
                let longest_ms = [1, 20, 500][usize::try_from(seed % 3).unwrap()];
                let journal = Late { inner: world.journal.clone(), longest_ms, numbers: Mutex::new(SmallRng::seed_from_u64(seed)) };
                let opening = Repair::text("w.yaml", world.workflow.clone()).adapters(world.lake.clone(), Arc::new(journal));
                let repair = opening.clock(Arc::new(clock)).notify(&notifications).connect().await.unwrap();
                repair.run().id(format!("seed-{seed}").as_str()).await.unwrap();
                let ended = tokio::time::Instant::now();
                let settled = notifications.settle(Duration::from_secs(3_600)).await;
                assert_eq!((settled.delivered, settled.left.len()), (messages, 0));
                assert!(ended.elapsed() < Duration::from_secs(60), "it waited for {:?}", ended.elapsed());
            });
        }
    }
}

/// The events of OpenLineage, by the required fields of its specification 2-0-2.
#[test]
fn lineage_says_how_a_run_began_and_ended() {
    let mut world = World::new("");
    world.workflow = format!("{}lineage: {{ url_env: NOBODY_SETS_THIS }}\n", world.workflow);
    let inbox = Inbox::new(|_| Does::Takes);
    let lineage = Inbox::new(|attempt| if attempt == 1 { Does::Fails } else { Does::Takes });
    let uuid = "0190a6a8-3d0e-7c1a-9b2f-0123456789ab";
    for (run, hours) in [("one", 24), (uuid, 0)] {
        world.has(hours);
        world.process(async |clock| {
            let notifications = Notifications::new().receiver("ops", inbox.clone()).receiver("lineage", lineage.clone());
            world.run(run, clock, &notifications).await;
            assert_eq!(notifications.settle(LONG).await.left, []);
        });
    }
    let events = lineage.bodies();
    assert_eq!(events.iter().map(|event| event["eventType"].as_str().unwrap()).collect::<Vec<_>>(), ["START", "COMPLETE", "START", "FAIL"]);
    for event in &events {
        assert!(event["eventTime"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert!(event["producer"].as_str().unwrap().starts_with("urn:repair:"));
        assert_eq!(event["schemaURL"], "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent");
        assert_eq!((&event["job"]["namespace"], &event["job"]["name"]), (&"repair".into(), &"nightly".into()));
        let id = event["run"]["runId"].as_str().unwrap();
        assert!(id.len() == 36 && id.split('-').map(str::len).eq([8, 4, 4, 4, 12]), "{id}");
        let input = &event["inputs"][0];
        assert_eq!((&input["namespace"], &input["name"]), (&"repair".into(), &"t".into()));
        for facet in event["run"]["facets"].as_object().unwrap().values() {
            assert!(facet["_producer"].is_string() && facet["_schemaURL"].is_string());
        }
        assert!(event.get("to").is_none(), "it has no field that the specification does not know");
    }
    assert_eq!(events[0]["run"]["runId"], events[1]["run"]["runId"]);
    assert_eq!(events[2]["run"]["runId"], uuid);
    assert!(events[3]["run"]["facets"]["errorMessage"]["message"].as_str().unwrap().contains("nothing is there"));
}

/// A future that a test awaits elsewhere.
fn _is_send(notifications: &Notifications) -> impl Future<Output = Settled> + Send + '_ {
    notifications.settle(PATIENCE)
}
