//! Serves the receivers of messages about the runs of one engine: each receiver of each run on its own, beside the run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use repair_core::engine::news::may_be_news;
use repair_core::engine::{Event, Journal, Observer, Recorded, RunState};
use repair_core::lake::Lake;
use repair_core::lake::notified::Notified;
use repair_core::plugin::{Clock, Deliver, Message, Progress, Registry};
use repair_core::workflow::Notifier;
use repair_core::{Error, ErrorKind, Result};
use tokio::sync::{Notify, watch};

use super::digest::Due;
use super::said::{LINEAGE, Reading, Said};
use super::{Left, MOST_AGE, Notifications, lineage};

/// How long one attempt to deliver a message may take, whatever the receiver's own limits are.
const ATTEMPT: Duration = Duration::from_secs(90);
/// How long to wait after the first attempt that failed; then twice as long each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long to wait after an error about which somebody must do something.
const LATER: Duration = Duration::from_secs(3_600);
/// The longest wait that a receiver can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);
/// How many runs of the same workflow are looked at for messages that an earlier process left.
const RUNS_LEFT: usize = 20;

/// Serves the receivers of messages about the runs of one engine.
pub(crate) struct Desk {
    pub(super) lake: Arc<dyn Lake>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Arc<dyn Clock>,
    notifications: Notifications,
    pub(super) at: lineage::At,
    runs: Mutex<BTreeMap<String, Arc<Run>>>,
    /// What was delivered about runs, as the lake has it.
    notified: tokio::sync::Mutex<HashMap<String, Notified>>,
    /// Held while messages are gathered for a notifier and sent, since they are of several runs.
    pub(super) gathering: tokio::sync::Mutex<()>,
    /// Something has changed that somebody may wait for.
    moved: Notify,
    delivered: Mutex<u64>,
}

/// A run that there may be something to say about.
struct Run {
    id: String,
    /// Counts the events that may be worth a message.
    woken: watch::Sender<u64>,
    reading: tokio::sync::Mutex<Reading>,
    lines: Mutex<BTreeMap<String, Line>>,
    /// Up to which count its receivers are known.
    seen: Mutex<Option<u64>>,
    /// Why it cannot be read.
    unread: Mutex<Option<String>>,
    /// Whether its definition names nobody who is to hear of it.
    is_silent: Mutex<bool>,
    /// Whether other runs of the workflow were looked at.
    looked_back: Mutex<bool>,
    /// Whether an earlier process has left something to say about it, so that this is not looked for again.
    is_left_over: bool,
}

/// A receiver by its name, what the workflow says of it, unless it gets OpenLineage events, and what delivers to it.
type Named = (String, Option<Notifier>, Result<Arc<dyn Deliver>>);

/// What a run does.
enum At {
    /// Nobody is to hear of it.
    Silent,
    /// It goes on.
    Work,
    /// It has ended or is paused.
    Rest,
}

/// How far a receiver of a run is.
#[derive(Debug, Clone, Default)]
struct Line {
    /// The count of events after which it came to rest.
    rested_at: Option<u64>,
    left: usize,
    error: Option<String>,
    due: Option<Timestamp>,
    /// Whether its task has ended.
    is_over: bool,
}

/// Whom a line serves.
pub(super) struct Served {
    pub(super) name: String,
    pub(super) workflow: String,
    /// `None` for OpenLineage events.
    pub(super) notifier: Option<Notifier>,
    pub(super) deliver: Arc<dyn Deliver>,
}

impl Served {
    pub(super) fn wants(&self, said: &Said) -> bool {
        match (&self.notifier, said.what) {
            (Some(notifier), Some(what)) => notifier.on.contains(&what),
            (None, None) => true,
            _ => false,
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    pub(super) fn new(
        lake: Arc<dyn Lake>,
        journal: Arc<dyn Journal>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        notifications: Notifications,
        at: lineage::At,
    ) -> Self {
        Self {
            lake,
            journal,
            registry,
            clock,
            notifications,
            at,
            runs: Mutex::default(),
            notified: tokio::sync::Mutex::default(),
            gathering: tokio::sync::Mutex::default(),
            moved: Notify::new(),
            delivered: Mutex::default(),
        }
    }

    /// Begins to serve the receivers of a run, or says that there may be more to say.
    pub(super) fn open(self: &Arc<Self>, run: &str) {
        self.open_as(run, false);
    }

    /// As [`Desk::open`], and looks for nothing that is left to say about other runs.
    pub(super) fn open_alone(self: &Arc<Self>, run: &str) {
        self.open_as(run, true);
    }

    fn open_as(self: &Arc<Self>, run: &str, is_left_over: bool) {
        let mut runs = held(&self.runs);
        if let Some(run) = runs.get(run) {
            // Nobody looks at a silent run any more, so it must not wait to be looked at.
            if !*held(&run.is_silent) {
                run.woken.send_modify(|count| *count += 1);
            }
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!(run, "there is no runtime here, so messages about the run wait for the next process");
            return;
        };
        let opened = Arc::new(Run {
            id: run.to_owned(),
            woken: watch::Sender::new(1),
            reading: tokio::sync::Mutex::new(Reading::new(run, self.at.clone())),
            lines: Mutex::default(),
            seen: Mutex::default(),
            unread: Mutex::default(),
            is_silent: Mutex::default(),
            looked_back: Mutex::default(),
            is_left_over,
        });
        runs.insert(run.to_owned(), opened.clone());
        drop(runs);
        runtime.spawn(self.clone().attend(opened));
    }

    /// Begins to serve what earlier processes have left to say about runs of a workflow.
    async fn open_left_over(self: Arc<Self>, workflow: String) {
        match left_over(self.journal.as_ref(), self.clock.as_ref(), Some(&workflow), RUNS_LEFT).await {
            Ok(runs) => {
                for (run, last_at) in runs {
                    match Notified::read(self.lake.as_ref(), &run).await {
                        Ok(notified) if notified.all_at.is_some_and(|all_at| all_at >= last_at) => {}
                        _ => self.open_as(&run, true),
                    }
                }
            }
            Err(error) => tracing::warn!(error = error.full(), "what earlier runs have left to say cannot be found"),
        }
    }

    /// Finds out who is to hear of a run, and sees that each is served.
    async fn attend(self: Arc<Self>, run: Arc<Run>) {
        let mut woken = run.woken.subscribe();
        loop {
            let count = *woken.borrow_and_update();
            let is_at_rest = match self.attend_once(&run, count).await {
                Ok(At::Silent) => {
                    // Nobody wants to hear of it, as long as its definition stays as it is.
                    let is_at_rest = run.reading.lock().await.is_at_rest();
                    let mut runs = held(&self.runs);
                    // What was recorded while it was read may be its end, or another definition. Who wakes it holds the same lock.
                    if *run.woken.borrow() != count {
                        continue;
                    }
                    *held(&run.is_silent) = true;
                    *held(&run.seen) = Some(count);
                    if is_at_rest {
                        runs.remove(&run.id);
                    }
                    drop(runs);
                    self.moved.notify_waiters();
                    return;
                }
                Ok(at) => {
                    *held(&run.unread) = None;
                    matches!(at, At::Rest)
                }
                Err(error) => {
                    tracing::warn!(run = run.id, error = error.full(), "messages about the run cannot be found now");
                    *held(&run.unread) = Some(error.full());
                    // A definition that cannot be read now cannot be read later.
                    error.kind() == ErrorKind::Invalid
                }
            };
            *held(&run.seen) = Some(count);
            self.moved.notify_waiters();
            // Once all is said, and nothing more can happen without somebody who opens it again, it is forgotten.
            loop {
                let moved = self.moved.notified();
                let is_over = is_at_rest && held(&run.lines).values().all(|line| line.is_over && line.left == 0);
                if is_over {
                    let mut runs = held(&self.runs);
                    if *run.woken.borrow() == count && held(&run.unread).is_none() {
                        runs.remove(&run.id);
                        drop(runs);
                        self.moved.notify_waiters();
                        return;
                    }
                }
                tokio::select! {
                    changed = woken.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                    () = moved => {}
                }
            }
        }
    }

    async fn attend_once(self: &Arc<Self>, run: &Arc<Run>, count: u64) -> Result<At> {
        let mut reading = run.reading.lock().await;
        reading.read(self.journal.as_ref(), &self.registry).await?;
        let Some(follower) = reading.follower() else { return Ok(At::Rest) };
        let workflow = follower.workflow();
        if workflow.notify.is_empty() && workflow.lineage.is_none() {
            return Ok(At::Silent);
        }
        let mut all: Vec<Named> = Vec::new();
        for (name, notifier) in &workflow.notify {
            all.push((name.clone(), Some(notifier.clone()), self.notifications.deliver_to(name, &notifier.to)));
        }
        if let Some(to) = &workflow.lineage {
            all.push((LINEAGE.to_owned(), None, self.notifications.lineage_to(to)));
        }
        let mut begun = Vec::new();
        {
            // All are known before the first of them is served: who is last to have everything is decided by that.
            let mut lines = held(&run.lines);
            for (name, notifier, deliver) in all {
                let key = key_of(&name, notifier.is_some());
                if lines.get(&key).is_some_and(|line| !line.is_over) {
                    continue;
                }
                match deliver {
                    Ok(deliver) => {
                        lines.insert(key.clone(), Line::default());
                        begun.push((key, Served { name, workflow: workflow.name.clone(), notifier, deliver }));
                    }
                    Err(error) => {
                        tracing::warn!(run = run.id, to = name, error = error.full(), "messages cannot be delivered");
                        let line = Line { rested_at: Some(count), error: Some(error.full()), is_over: true, ..Line::default() };
                        lines.insert(key, line);
                    }
                }
            }
        }
        for (key, served) in begun {
            tokio::spawn(self.clone().serve(run.clone(), key, served));
        }
        if !std::mem::replace(&mut *held(&run.looked_back), true) && !run.is_left_over {
            tokio::spawn(self.clone().open_left_over(workflow.name.clone()));
        }
        Ok(if reading.is_at_rest() { At::Rest } else { At::Work })
    }

    /// Delivers messages about a run to one receiver, in order, as long as there may be more.
    async fn serve(self: Arc<Self>, run: Arc<Run>, key: String, served: Served) {
        let mut woken = run.woken.subscribe();
        let mut failures = 0;
        loop {
            let count = *woken.borrow_and_update();
            let step = match self.serve_once(&run, &served).await {
                Ok(step) => step,
                Err(error) => Step::Failed { error, left: held(&run.lines).get(&key).map_or(1, |line| line.left.max(1)) },
            };
            let mut line = Line::default();
            let mut could_not_be_reached = false;
            let pause = match step {
                Step::Delivered => {
                    failures = 0;
                    continue;
                }
                Step::AllSaid { is_over } => {
                    line = Line { rested_at: Some(count), is_over, ..line };
                    None
                }
                Step::Waits { due, left } => {
                    line = Line { rested_at: Some(count), left, due: Some(due), ..line };
                    Some(due)
                }
                Step::Failed { error, left } => {
                    let may_pass = may_pass(&error);
                    tracing::warn!(run = run.id, to = served.name, may_pass, error = error.full(), "a message was not delivered");
                    line = Line { rested_at: (!may_pass).then_some(count), left, error: Some(error.full()), ..line };
                    let wait = wait_after(&error, &format!("{} {}", run.id, served.name), failures);
                    failures += 1;
                    could_not_be_reached = may_pass;
                    Some(self.clock.now().saturating_add(wait).unwrap_or(Timestamp::MAX))
                }
            };
            let is_over = line.is_over;
            {
                let mut lines = held(&run.lines);
                // Whoever wakes it later must find that it is over, or be seen by it.
                if is_over && *run.woken.borrow() != count {
                    continue;
                }
                lines.insert(key.clone(), line);
            }
            self.moved.notify_waiters();
            if is_over {
                return;
            }
            let due = async {
                match pause {
                    Some(due) => self.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            if could_not_be_reached {
                // More to say is no reason to ask a receiver sooner that could not be reached.
                due.await;
                continue;
            }
            tokio::select! {
                () = due => {}
                changed = woken.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn serve_once(&self, run: &Run, served: &Served) -> Result<Step> {
        let (said, next, is_at_rest, last_at) = {
            let mut reading = run.reading.lock().await;
            let said = reading.read(self.journal.as_ref(), &self.registry).await?.to_vec();
            (said, reading.next(), reading.is_at_rest(), reading.last_at())
        };
        let pending = self.pending(&run.id, served, &said).await?;
        let Some(first) = pending.first() else {
            if is_at_rest {
                self.all_said(run, served, next, last_at).await?;
            }
            return Ok(Step::AllSaid { is_over: is_at_rest });
        };
        if let Some(line) = held(&run.lines).get_mut(&key_of(&served.name, served.notifier.is_some())) {
            line.left = pending.len();
        }
        let is_gathered = served.notifier.as_ref().and_then(|notifier| notifier.digest);
        if let Some(digest) = is_gathered {
            return match self.gather(served, digest, &run.id).await {
                Ok(Due::Delivered) => {
                    *held(&self.delivered) += 1;
                    Ok(Step::Delivered)
                }
                Ok(Due::At(due)) => Ok(Step::Waits { due, left: pending.len() }),
                Err(error) => Ok(Step::Failed { error, left: pending.len() }),
            };
        }
        match attempt(served.deliver.as_ref(), &first.message(&served.name, self.clock.now())).await {
            Ok(()) => {
                self.note(&run.id, served, [(first.sequence, first.id.as_str())]).await?;
                *held(&self.delivered) += 1;
                tracing::debug!(run = run.id, to = served.name, id = first.id, "a message was delivered");
                Ok(Step::Delivered)
            }
            Err(error) => Ok(Step::Failed { error, left: pending.len() }),
        }
    }

    /// What a receiver does not have yet, in order, without what is too old.
    pub(super) async fn pending(&self, run: &str, served: &Served, said: &[Arc<Said>]) -> Result<Vec<Arc<Said>>> {
        let mut notified = self.notified.lock().await;
        let known = self.known(&mut notified, run).await?;
        let delivered = known.to.get(&key_of(&served.name, served.notifier.is_some())).cloned().unwrap_or_default();
        let oldest = self.clock.now().saturating_sub(MOST_AGE).unwrap_or(Timestamp::MIN);
        let mut pending = Vec::new();
        for said in said.iter().filter(|said| served.wants(said) && !delivered.has(said.sequence, &said.id)) {
            if said.at < oldest {
                tracing::warn!(run, to = served.name, id = said.id, "a message could not be delivered in time, and is left out");
            } else {
                pending.push(said.clone());
            }
        }
        Ok(pending)
    }

    async fn known<'a>(&self, notified: &'a mut HashMap<String, Notified>, run: &str) -> Result<&'a mut Notified> {
        if !notified.contains_key(run) {
            notified.insert(run.to_owned(), Notified::read(self.lake.as_ref(), run).await?);
        }
        notified.get_mut(run).ok_or_else(|| Error::internal("what was delivered is not known"))
    }

    /// Notes that messages are delivered.
    pub(super) async fn note<'a>(&self, run: &str, served: &Served, ids: impl IntoIterator<Item = (u64, &'a str)>) -> Result<()> {
        let mut notified = self.notified.lock().await;
        let known = self.known(&mut notified, run).await?;
        let delivered = known.to.entry(key_of(&served.name, served.notifier.is_some())).or_default();
        for (sequence, id) in ids {
            delivered.note(sequence, id);
        }
        known.keep(self.lake.as_ref(), run).await
    }

    /// Notes that a receiver has all there is to say about a run that rests; and if all have, that nobody need look again.
    async fn all_said(&self, run: &Run, served: &Served, next: u64, last_at: Option<Timestamp>) -> Result<()> {
        let keys: Vec<String> = held(&run.lines).keys().cloned().collect();
        let mut notified = self.notified.lock().await;
        let known = self.known(&mut notified, &run.id).await?;
        let before = known.clone();
        known.to.entry(key_of(&served.name, served.notifier.is_some())).or_default().through(next);
        if keys.iter().all(|key| known.to.get(key).is_some_and(|delivered| delivered.next >= next)) {
            known.all_at = last_at;
        }
        if *known == before { Ok(()) } else { known.keep(self.lake.as_ref(), &run.id).await }
    }

    /// Waits until nothing is left to do, or the deadline. Returns how many messages were delivered, and what is left.
    pub(super) async fn settle(&self, deadline: tokio::time::Instant) -> (u64, Vec<Left>) {
        loop {
            let moved = self.moved.notified();
            let is_settled = held(&self.runs).values().all(|run| {
                let count = *run.woken.borrow();
                *held(&run.seen) == Some(count) && held(&run.lines).values().all(|line| line.is_over || line.rested_at == Some(count))
            });
            if is_settled || tokio::time::timeout_at(deadline, moved).await.is_err() {
                break;
            }
        }
        let mut left = Vec::new();
        for run in held(&self.runs).values() {
            if let Some(error) = held(&run.unread).clone() {
                left.push(Left { run: run.id.clone(), to: "everybody".to_owned(), messages: 0, error: Some(error), due: None });
            }
            for (key, line) in held(&run.lines).iter().filter(|(_, line)| line.left > 0 || line.error.is_some()) {
                let to = key.strip_prefix("to ").unwrap_or(key).to_owned();
                left.push(Left { run: run.id.clone(), to, messages: line.left, error: line.error.clone(), due: line.due });
            }
        }
        (std::mem::take(&mut *held(&self.delivered)), left)
    }
}

/// The name under which is kept what a receiver has. A notifier may have the name under which OpenLineage events go.
fn key_of(name: &str, is_notifier: bool) -> String {
    if is_notifier { format!("to {name}") } else { name.to_owned() }
}

/// What came of looking for something to say.
enum Step {
    /// A message was delivered; there may be another.
    Delivered,
    /// There is nothing to say now; if it is over, nor will there be.
    AllSaid { is_over: bool },
    /// Messages are gathered until then.
    Waits { due: Timestamp, left: usize },
    /// A message was not delivered.
    Failed { error: Error, left: usize },
}

/// Whether another attempt may succeed without somebody doing something first.
fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Timeout)
}

/// How long to wait before another attempt: longer after each that failed, and never as long as somebody else who began at the same time.
pub(crate) fn wait_after(error: &Error, who: &str, failures: u32) -> Duration {
    if !may_pass(error) {
        return LATER;
    }
    let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE);
    let hash = blake3::hash(format!("{who} {failures}").as_bytes());
    // From a half to the whole of it.
    let share = f64::from(hash.as_bytes().first().copied().unwrap_or_default()) / f64::from(u8::MAX);
    let pause = longest.mul_f64(0.5 + share / 2.0);
    error.wait_hint().map_or(pause, |asked| pause.max(asked.min(LONGEST_ASKED)))
}

/// One attempt to deliver a message.
pub(crate) async fn attempt(deliver: &dyn Deliver, message: &Message) -> Result<()> {
    match tokio::time::timeout(ATTEMPT, deliver.deliver(message)).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(ErrorKind::Timeout, format!("the receiver took longer than {} s", ATTEMPT.as_secs()))),
    }
}

/// The runs, of a workflow if one is named, that no process drives and that recorded something not too long ago; the last so many, oldest first, each with when
/// that was.
pub(super) async fn left_over(
    journal: &dyn Journal,
    clock: &dyn Clock,
    workflow: Option<&str>,
    most: usize,
) -> Result<Vec<(String, Timestamp)>> {
    let oldest = clock.now().saturating_sub(MOST_AGE).unwrap_or(Timestamp::MIN);
    let listed = journal.listed(clock.lease_now()).await?.into_iter();
    let recent = listed.filter(|run| run.latest.at >= oldest && run.driver.is_none());
    let of_workflow = recent.filter(|run| workflow.is_none_or(|name| run.begun.workflow == name));
    let mut runs: Vec<(String, Timestamp)> = of_workflow.map(|run| (run.run, run.latest.at)).collect();
    runs.drain(..runs.len().saturating_sub(most));
    Ok(runs)
}

/// Sees what happens in the runs of an engine, and waits for nothing.
pub(crate) struct AtDesk(pub(crate) Arc<Desk>);

impl Progress for AtDesk {
    fn advance(&self, _: &str, _: u64, _: u64) {}
}

impl Observer for AtDesk {
    fn recorded(&self, _: &Recorded, _: &RunState) {}

    fn recorded_of(&self, run: &str, recorded: &Recorded, state: &RunState) {
        let mut runs = held(&self.0.runs);
        if let Some(known) = runs.get(run) {
            if *held(&known.is_silent) {
                match recorded.event {
                    Event::DefinitionReplaced { .. } => drop(runs.remove(run)),
                    Event::RunEnded { .. } | Event::RunPaused => {
                        runs.remove(run);
                        return;
                    }
                    _ => return,
                }
            } else if !may_be_news(&recorded.event, state.started.definition.contains("budget")) {
                return;
            }
        }
        drop(runs);
        self.0.open(run);
    }
}
