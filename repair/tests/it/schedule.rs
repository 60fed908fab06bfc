//! Schedules in simulated time: outages, crashes, two servers on one lake, days of 23 and 25 hours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use repair::core::engine::{Journal, Outcome};
use repair::core::model::Usage;
use repair::core::plugin::{Clock, Registry, StepContext, Task};
use repair::core::testing::{MemoryJournal, MemoryLake, VirtualClock};
use repair::core::workflow::schedule::{Missed, Schedule, Starts};
use repair::core::workflow::{Step, Workflow};
use repair::schedule::{Alert, Scheduler};
use repair::{CancellationToken, Repair, Result};
use serde_json::{Value, json};

/// What happened in a world.
#[derive(Default)]
struct Seen {
    working: AtomicU32,
    most: AtomicU32,
    /// Each attempt: its run, its now, and when it began.
    attempts: Mutex<Vec<(String, Timestamp, Timestamp)>>,
    alerts: Mutex<Vec<Alert>>,
}

/// Takes some time, which follows from the run's now.
#[derive(Clone)]
struct Work {
    seen: Arc<Seen>,
    clock: Arc<dyn Clock>,
    most_s: u64,
}

struct Working(Arc<Seen>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Task for Work {
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        let now = self.clock.now();
        self.seen.attempts.lock().unwrap().push((context.run.to_string(), context.now, now));
        let working = self.seen.working.fetch_add(1, Ordering::SeqCst) + 1;
        let _working = Working(self.seen.clone());
        self.seen.most.fetch_max(working, Ordering::SeqCst);
        let takes = SmallRng::seed_from_u64(context.now.as_second().unsigned_abs()).random_range(1..=self.most_s);
        self.clock.sleep_until(now + SignedDuration::from_secs(i64::try_from(takes).unwrap())).await;
        Ok((json!({}), Usage::default()))
    }
}

struct World {
    seen: Arc<Seen>,
    clock: Arc<VirtualClock>,
    lake: Arc<MemoryLake>,
    journal: Arc<MemoryJournal>,
    workflow: Workflow,
    registry: Arc<Registry>,
}

impl World {
    fn new(schedule: Schedule, start: &str, most_s: u64) -> Self {
        let seen = Arc::new(Seen::default());
        let clock = Arc::new(VirtualClock::starting_at(start.parse().unwrap()));
        let work = Work { seen: seen.clone(), clock: clock.clone(), most_s };
        let built = Workflow::state_machine("nightly").schedule(schedule).step("work", Step::task(work).end()).build(Registry::default());
        let built = built.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let (lake, journal) = (Arc::new(MemoryLake::default()), Arc::new(MemoryJournal::default()));
        Self { seen, clock, lake, journal, workflow: built.workflow, registry: Arc::new(built.registry) }
    }

    async fn scheduler(&self, stop: CancellationToken) -> Scheduler {
        let opening = Repair::of(self.workflow.clone()).adapters(self.lake.clone(), self.journal.clone());
        let repair = opening.registry(self.registry.clone()).clock(self.clock.clone()).stop(stop).connect().await.unwrap();
        let seen = self.seen.clone();
        Scheduler::of(repair).unwrap().alerts(move |alert| seen.alerts.lock().unwrap().push(alert.clone()))
    }

    fn schedule(&self) -> &Schedule {
        self.workflow.schedule.as_ref().unwrap()
    }

    async fn sleep(&self, seconds: i64) {
        self.clock.sleep_until(self.clock.now() + SignedDuration::from_secs(seconds)).await;
    }
}

/// A server that runs for a while, is killed or stopped, and comes back, until the end. Returns when it was there.
async fn server(world: Arc<World>, seed: u64, end: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut there = Vec::new();
    while world.clock.now() < end {
        let began = world.clock.now();
        let stop = CancellationToken::new();
        let scheduler = world.scheduler(stop.clone()).await;
        let running = tokio::spawn(async move { scheduler.run().await });
        world.sleep(random.random_range(60..200_000)).await;
        there.push((began, world.clock.now()));
        if random.random_bool(0.3) {
            stop.cancel();
            running.await.unwrap();
        } else {
            running.abort();
            let _ = running.await;
        }
        world.sleep(if random.random_bool(0.5) { random.random_range(1..600) } else { random.random_range(600..100_000) }).await;
    }
    there
}

/// The schedules of the short test: of each kind one.
const SHORT: [usize; 3] = [6, 9, 19];

fn schedules() -> Vec<Schedule> {
    let berlin = |starts: Starts| {
        let mut schedule = Schedule::new(starts);
        schedule.zone = "Europe/Berlin".parse().unwrap();
        schedule
    };
    let mut all = Vec::new();
    for missed in [Missed::All, Missed::One, Missed::None] {
        for cron in ["30 2 * * *", "*/30 0-5,12 * * *", "0 */3 * * mon-fri"] {
            let mut schedule = berlin(Starts::Cron(cron.parse().unwrap()));
            schedule.missed = missed;
            all.push(schedule.clone());
            schedule.jitter = Duration::from_secs(300);
            all.push(schedule);
        }
        let mut schedule = berlin(Starts::Every(Duration::from_secs(5_400)));
        schedule.missed = missed;
        schedule.per_day.runs = Some(7);
        all.push(schedule);
    }
    all
}

/// Over a month with a change of the clock, two servers that come and go on one lake: each tick has one run at most, none is lost that was to have
/// one, no two run at once, and no day has more runs than it may.
#[tokio::test(start_paused = true)]
async fn each_tick_once_whatever_happens() {
    for (number, schedule) in schedules().into_iter().enumerate().filter(|(number, _)| testdata::long() || SHORT.contains(number)) {
        for seed in testdata::seeds(1, 20) {
            let start = if (number as u64 + seed).is_multiple_of(2) { "2024-03-15T10:00:00Z" } else { "2024-10-10T10:00:00Z" };
            let what = format!("schedule {number} ({:?}, {:?}), seed {seed}, {start}", schedule.starts, schedule.missed);
            month(schedule.clone(), seed, start, &what).await;
        }
    }
}

async fn month(schedule: Schedule, seed: u64, start: &str, what: &str) {
    let world = Arc::new(World::new(schedule, start, 1_500));
    let (schedule, begun) = (world.schedule().clone(), world.clock.now());
    let end = begun + SignedDuration::from_hours(24 * 30);
    let (first, second) = tokio::join!(server(world.clone(), 2 * seed, end), server(world.clone(), 2 * seed + 1, end));
    let there: Vec<(Timestamp, Timestamp)> = first.into_iter().chain(second).collect();
    // Afterwards one of them stays, so that what is left is made up for.
    let stop = CancellationToken::new();
    let last = world.scheduler(stop.clone()).await;
    let running = tokio::spawn(async move { last.run().await });
    world.sleep(86_400 * if schedule.missed == Missed::All { 40 } else { 3 }).await;
    stop.cancel();
    running.await.unwrap();

    assert!(world.seen.most.load(Ordering::SeqCst) <= 1, "{what}: runs overlap");
    let listed = world.journal.listed(world.clock.now()).await.unwrap();
    let mut runs: BTreeMap<Timestamp, (Timestamp, Timestamp)> = BTreeMap::new();
    for (run, now, _) in world.seen.attempts.lock().unwrap().iter() {
        let of_run = listed.iter().find(|listed| listed.run == *run).unwrap();
        let earlier = runs.insert(*now, (of_run.begun.at, of_run.latest.at));
        assert!(earlier.is_none_or(|earlier| earlier.0 == of_run.begun.at), "{what}: two runs of {now}");
    }
    assert_eq!(listed.len(), runs.len(), "{what}: each run worked");
    let done = |listed: &&repair::core::engine::ListedRun| listed.latest.outcome == Some(Outcome::Succeeded);
    let open = listed.iter().filter(|listed| !done(listed)).count();
    assert!(open <= 1, "{what}: {open} runs have not ended");
    let ticks: BTreeSet<Timestamp> = schedule.ticks(begun, end, usize::MAX).unwrap().into_iter().collect();
    assert!(runs.keys().filter(|now| **now <= end).all(|now| ticks.contains(now)), "{what}: a run of no tick");
    if let Some(most) = schedule.per_day.runs {
        let mut days: BTreeMap<Timestamp, u32> = BTreeMap::new();
        runs.values().for_each(|(at, _)| *days.entry(schedule.day_of(*at).unwrap()).or_default() += 1);
        assert!(days.values().all(|count| *count <= most), "{what}: {days:?}");
    }
    for tick in &ticks {
        let due = schedule.due("nightly", *tick);
        match (schedule.missed, runs.get(tick)) {
            // With seven runs a day for sixteen ticks, not all can be made up for.
            (Missed::All, None) => assert!(schedule.per_day.runs.is_some(), "{what}: {tick} was lost"),
            (_, Some((at, _))) => {
                assert!(*at >= due, "{what}: {tick} started early");
                let late = at.duration_since(due);
                assert!(schedule.missed != Missed::None || late <= SignedDuration::from_secs(60), "{what}: {tick} started {late:?} late");
            }
            (_, None) => {
                // The lease of one that was killed lasts half a minute; it may have been taken just before, and that of its run after it.
                let busy = |from: Timestamp, to: Timestamp| {
                    from <= due + SignedDuration::from_secs(1) && due < to + SignedDuration::from_secs(180)
                };
                let was_busy = runs.values().any(|(from, to)| busy(*from, *to));
                let from = due - SignedDuration::from_secs(180);
                let was_there = there.iter().any(|(began, ended)| *began <= from && *ended > due + SignedDuration::from_secs(180));
                assert!(!was_there || was_busy || schedule.per_day.runs.is_some(), "{what}: {tick} was lost while a server was there");
            }
        }
    }
    if schedule.missed == Missed::One {
        let last = ticks.last().unwrap();
        assert!(runs.keys().any(|now| now >= last), "{what}: nothing made up for the last ticks");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missed_deadline_is_known_once() {
    let mut schedule = Schedule::new(Starts::Cron("30 2 * * *".parse().unwrap()));
    schedule.complete_by = Some("03:00".parse().unwrap());
    // A run takes up to two hours.
    let world = Arc::new(World::new(schedule, "2024-03-04T00:00:00Z", 7_200));
    let stop = CancellationToken::new();
    for _ in 0..2 {
        let scheduler = world.scheduler(stop.clone()).await;
        tokio::spawn(async move { scheduler.run().await });
    }
    world.sleep(10 * 86_400).await;
    stop.cancel();
    let listed = world.journal.listed(world.clock.now()).await.unwrap();
    let late: BTreeSet<Timestamp> = listed
        .iter()
        .filter_map(|listed| {
            let deadline = world.schedule().deadline(listed.begun.at + SignedDuration::from_hours(1)).unwrap().unwrap();
            (listed.latest.at > deadline).then_some(deadline)
        })
        .collect();
    assert!(!late.is_empty() && late.len() < 10, "{late:?}");
    let alerts = world.seen.alerts.lock().unwrap();
    let missed: Vec<Timestamp> = alerts
        .iter()
        .map(|alert| match alert {
            Alert::DeadlineMissed { deadline, .. } => *deadline,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(missed.iter().copied().collect::<BTreeSet<_>>(), late);
    assert_eq!(missed.len(), late.len(), "each once");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_due_at_a_deadline_has_until_the_next() {
    // A run takes up to two hours, or up to some days.
    for (most_s, is_late) in [(7_200, false), (250_000, true)] {
        let mut schedule = Schedule::new(Starts::Cron("0 3 * * *".parse().unwrap()));
        schedule.complete_by = Some("03:00".parse().unwrap());
        let world = Arc::new(World::new(schedule, "2024-03-04T00:00:00Z", most_s));
        let stop = CancellationToken::new();
        let scheduler = world.scheduler(stop.clone()).await;
        tokio::spawn(async move { scheduler.run().await });
        world.sleep(6 * 86_400).await;
        stop.cancel();
        assert!(world.journal.listed(world.clock.now()).await.unwrap().len() > 1);
        let alerts = world.seen.alerts.lock().unwrap();
        let missed = alerts.iter().filter(|alert| matches!(alert, Alert::DeadlineMissed { .. })).count();
        assert_eq!(missed > 0, is_late, "{alerts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_follows_each_run_that_wrote_the_table() {
    let upstream = World::new(Schedule::new(Starts::Every(Duration::from_secs(3_600))), "2024-03-04T00:30:00Z", 60);
    let (seen, stop) = (Arc::new(Seen::default()), CancellationToken::new());
    let work = Work { seen: seen.clone(), clock: upstream.clock.clone(), most_s: 60 };
    let mut schedule = Schedule::new(Starts::AfterTable("bars".to_owned()));
    schedule.missed = Missed::All;
    let built = Workflow::state_machine("follower").schedule(schedule).step("work", Step::task(work).end()).build(Registry::default());
    let built = built.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let follower = async |stop: CancellationToken| {
        let opening = Repair::of(built.workflow.clone()).adapters(upstream.lake.clone(), upstream.journal.clone());
        let repair = opening.registry(built.registry.clone()).clock(upstream.clock.clone()).stop(stop).connect().await.unwrap();
        Scheduler::of(repair).unwrap().writers(|table| if table == "bars" { vec!["nightly".to_owned()] } else { Vec::new() })
    };
    let first = follower(stop.clone()).await;
    tokio::spawn(async move { first.run().await });
    let ticking = upstream.scheduler(stop.clone()).await;
    tokio::spawn(async move { ticking.run().await });
    upstream.sleep(5 * 3_600).await;
    // The follower is away for some hours, and then makes up for all of them.
    stop.cancel();
    upstream.sleep(1).await;
    let stop = CancellationToken::new();
    let ticking = upstream.scheduler(stop.clone()).await;
    tokio::spawn(async move { ticking.run().await });
    upstream.sleep(5 * 3_600).await;
    let again = follower(stop.clone()).await;
    tokio::spawn(async move { again.run().await });
    upstream.sleep(1_800).await;
    stop.cancel();
    let listed = upstream.journal.listed(upstream.clock.now()).await.unwrap();
    let ended = |name: &str| listed.iter().filter(|listed| listed.begun.workflow == name && listed.latest.outcome.is_some()).count();
    assert_eq!((ended("nightly"), ended("follower")), (10, 10));
    assert_eq!(seen.attempts.lock().unwrap().len(), 10);
}
