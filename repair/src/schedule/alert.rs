//! What people should know of a schedule, and how whoever is to hear of it does: it is kept in the lake, and delivered from there.
//!
//! What was raised is kept by who raises it, and what was delivered by who delivers it, each while it holds a lease, so no two processes write the same.
//! Delivering goes on where another process ended. What was delivered is noted afterwards, so a crash between the two sends a message again, with the same id.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use repair_core::engine::JsonFormat;
use repair_core::lake::standing;
use repair_core::plugin::{Deliver, Message};
use repair_core::workflow::{Notifier, Occasion};
use repair_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::hold::Hold;
use crate::notify::{MOST_AGE, Notifications, attempt, wait_after};
use crate::open::Repair;

/// How often is looked for what another process has raised.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// How long is waited if the lake or the journal does not answer.
const AFTER_ERROR: SignedDuration = SignedDuration::from_secs(60);
/// How many alerts are kept of each kind of who raises them. There is at most one of a sort for a tick, so more are of a schedule that has failed for days.
const MOST_KEPT: usize = 1_000;

/// Something about a schedule that people should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
#[non_exhaustive]
pub enum Alert {
    /// The run of the last tick before a deadline had not ended well by then.
    DeadlineMissed {
        /// The workflow.
        workflow: String,
        /// The deadline.
        deadline: Timestamp,
        /// The tick whose run was to end before it.
        tick: Timestamp,
        /// What has become of the run.
        run: String,
    },
    /// A run is due, but what may start or be spent on this day is used up.
    HeldBack {
        /// The workflow.
        workflow: String,
        /// The tick.
        tick: Timestamp,
        /// Until when.
        until: Timestamp,
        /// Why.
        why: String,
    },
    /// A run could not start or go on. It is tried again.
    NotStarted {
        /// The workflow.
        workflow: String,
        /// The tick.
        tick: Timestamp,
        /// Why.
        why: String,
    },
}

impl std::fmt::Display for Alert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DeadlineMissed { workflow, deadline, tick, run } => {
                write!(f, "{workflow}: the run of {tick} was to end well by {deadline}, but {run}")
            }
            Self::HeldBack { workflow, tick, until, why } => write!(f, "{workflow}: the run of {tick} waits until {until}: {why}"),
            Self::NotStarted { workflow, tick, why } => write!(f, "{workflow}: the run of {tick} could not start or go on: {why}"),
        }
    }
}

impl Alert {
    /// What it is about, for those who want to hear of some things only, and the instant that makes it the only one of its kind.
    fn about(&self) -> (Occasion, Timestamp) {
        match self {
            Self::DeadlineMissed { deadline, .. } => (Occasion::Deadline, *deadline),
            Self::HeldBack { tick, .. } => (Occasion::Budget, *tick),
            Self::NotStarted { tick, .. } => (Occasion::Failed, *tick),
        }
    }
}

/// The occasions that alerts are about.
const OCCASIONS: [Occasion; 3] = [Occasion::Deadline, Occasion::Budget, Occasion::Failed];

/// Who raises alerts. Each has a lease of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raiser {
    /// Who starts runs.
    Schedule,
    /// Who watches deadlines.
    Deadline,
}

impl Raiser {
    const ALL: [Self; 2] = [Self::Schedule, Self::Deadline];

    /// The name under which its alerts stand.
    fn name(self, workflow: &str) -> String {
        match self {
            Self::Schedule => format!("alerts schedule {workflow}"),
            Self::Deadline => format!("alerts deadline {workflow}"),
        }
    }
}

/// An alert that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Its id, without the receiver.
    id: String,
    /// When it was raised.
    at: Timestamp,
    /// The word of its occasion.
    what: String,
    text: String,
    alert: Value,
}

impl Kept {
    fn of(workflow: &str, alert: &Alert, at: Timestamp) -> Result<Self> {
        let (occasion, instant) = alert.about();
        let what = occasion.as_str();
        let id = format!("schedule.{workflow}.{what}.{}", instant.as_second());
        let value = serde_json::to_value(alert).map_err(|error| Error::internal("an alert is not JSON").because(error))?;
        Ok(Self { id, at, what: what.to_owned(), text: alert.to_string(), alert: value })
    }

    fn is_for(&self, notifier: &Notifier) -> bool {
        notifier.on.iter().any(|occasion| occasion.as_str() == self.what)
    }

    fn is_too_old(&self, now: Timestamp) -> bool {
        self.at < now.saturating_sub(MOST_AGE).unwrap_or(Timestamp::MIN)
    }

    fn message(&self, workflow: &str, to: &str, now: Timestamp) -> Message {
        let id = format!("{}.{to}", self.id);
        let body = json!({
            "format": JsonFormat, "id": id, "to": to, "workflow": workflow, "what": self.what, "at": self.at, "text": self.text, "alert": self.alert,
        });
        Message::new(id, format!("[repair] {workflow}: {}", self.what), self.text.clone(), body, now)
    }
}

/// The alerts of a schedule.
#[derive(Clone)]
pub(super) struct Alerts {
    repair: Repair,
    /// Counts what was raised in this process.
    raised: Arc<watch::Sender<u64>>,
}

impl Alerts {
    pub(super) fn of(repair: Repair) -> Self {
        Self { repair, raised: Arc::new(watch::Sender::new(0)) }
    }

    fn workflow(&self) -> &str {
        &self.repair.workflow.name
    }

    fn now(&self) -> Timestamp {
        self.repair.around().clock.now()
    }

    /// What stands under a name. What is damaged is as nothing: what was delivered comes again then, and what was raised before is lost.
    async fn standing<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T> {
        match standing::read(self.repair.opened.as_ref(), name).await {
            Ok(stands) => Ok(stands.unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Invalid => {
                tracing::warn!(name, error = error.full(), "alerts of the schedule cannot be read, and begin anew");
                Ok(T::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps an alert for those who are to hear of it. The caller holds the lease of who raises it.
    ///
    /// # Errors
    /// Those of the lake; then it is not kept.
    pub(super) async fn keep(&self, raiser: Raiser, alert: &Alert) -> Result<()> {
        let (workflow, now) = (self.workflow(), self.now());
        let alert = Kept::of(workflow, alert, now)?;
        if !self.repair.workflow.notify.values().any(|notifier| alert.is_for(notifier)) {
            return Ok(());
        }
        let name = raiser.name(workflow);
        let mut kept: Vec<Kept> = self.standing(&name).await?;
        if kept.iter().any(|known| known.id == alert.id) {
            return Ok(());
        }
        kept.retain(|known| !known.is_too_old(now));
        let most = kept.len().saturating_sub(MOST_KEPT - 1);
        for gone in kept.drain(..most) {
            tracing::warn!(workflow, id = gone.id, "there are too many alerts, and the oldest is left out");
        }
        kept.push(alert);
        standing::write(self.repair.opened.as_ref(), &name, &kept).await?;
        self.raised.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Delivers alerts, until the token of the opening is cancelled.
    pub(super) async fn deliver(&self) {
        let Some(notifications) = self.repair.around().notifications() else { return };
        let concerned = self.repair.workflow.notify.iter().filter(|(_, notifier)| OCCASIONS.iter().any(|of| notifier.on.contains(of)));
        join_all(concerned.map(|(name, notifier)| self.serve(notifications, name, notifier))).await;
    }

    /// Delivers alerts to one receiver.
    async fn serve(&self, notifications: &Notifications, name: &str, notifier: &Notifier) {
        let deliver = match notifications.deliver_to(name, &notifier.to) {
            Ok(deliver) => deliver,
            Err(error) => return tracing::error!(to = name, error = error.full(), "alerts of the schedule cannot be delivered"),
        };
        let around = self.repair.around();
        let line = Line { alerts: self, name, notifier, deliver };
        let mut raised = self.raised.subscribe();
        while !around.stop.is_cancelled() {
            raised.borrow_and_update();
            let pause = match line.deliver_pending().await {
                Ok(()) => LOOK_AGAIN,
                // Another process delivers.
                Err(error) if error.kind() == ErrorKind::Conflict => LOOK_AGAIN,
                Err(error) => {
                    tracing::warn!(to = name, error = error.full(), "alerts of the schedule cannot be delivered now");
                    AFTER_ERROR
                }
            };
            let due = self.now().checked_add(pause).unwrap_or(Timestamp::MAX);
            tokio::select! {
                () = around.clock.sleep_until(due) => {}
                _ = raised.changed() => {}
                () = around.stop.cancelled() => {}
            }
        }
    }
}

/// A receiver of alerts.
struct Line<'a> {
    alerts: &'a Alerts,
    name: &'a str,
    notifier: &'a Notifier,
    deliver: Arc<dyn Deliver>,
}

impl Line<'_> {
    /// The name under which stands what was delivered.
    fn standing_name(&self) -> String {
        format!("alerted {} {}", self.name, self.alerts.workflow())
    }

    /// What the receiver does not have yet, in order; and what is kept and it has.
    async fn pending(&self) -> Result<(Vec<Kept>, BTreeSet<String>)> {
        let mut delivered: BTreeSet<String> = self.alerts.standing(&self.standing_name()).await?;
        let mut all: Vec<Kept> = Vec::new();
        for raiser in Raiser::ALL {
            all.extend(self.alerts.standing::<Vec<Kept>>(&raiser.name(self.alerts.workflow())).await?);
        }
        delivered.retain(|id| all.iter().any(|kept| kept.id == *id));
        all.retain(|kept| kept.is_for(self.notifier) && !delivered.contains(&kept.id));
        all.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        Ok((all, delivered))
    }

    /// Delivers what is there, unless another process does. It returns when nothing is left, or it is to stop.
    ///
    /// # Errors
    /// `conflict` if another process delivers; those of the lake and the journal. An error of the receiver is none: it is asked again.
    async fn deliver_pending(&self) -> Result<()> {
        if self.pending().await?.0.is_empty() {
            return Ok(());
        }
        let repair = &self.alerts.repair;
        let around = repair.around();
        let journal = repair.lake().root.journal_to_write().await?;
        let hold = Hold::take(journal, format!("alerts.{}.{}", self.alerts.workflow(), self.name), around.clock.as_ref()).await?;
        let done = tokio::select! {
            done = self.deliver_all() => done,
            lost = hold.lost(around.clock.as_ref()) => Err(lost),
            () = around.stop.cancelled() => Ok(()),
        };
        hold.release().await;
        done
    }

    async fn deliver_all(&self) -> Result<()> {
        let (clock, lake, workflow) = (&self.alerts.repair.around().clock, &self.alerts.repair.opened, self.alerts.workflow());
        let mut failures = 0;
        loop {
            let (pending, mut delivered) = self.pending().await?;
            let Some(first) = pending.into_iter().next() else { return Ok(()) };
            let now = clock.now();
            if first.is_too_old(now) {
                tracing::warn!(to = self.name, id = first.id, "an alert could not be delivered in time, and is left out");
            } else if let Err(error) = attempt(self.deliver.as_ref(), &first.message(workflow, self.name, now)).await {
                tracing::warn!(to = self.name, id = first.id, error = error.full(), "an alert was not delivered; it is tried again");
                let wait = wait_after(&error, &format!("{} {}", first.id, self.name), failures);
                failures += 1;
                clock.sleep_until(clock.now().checked_add(wait).unwrap_or(Timestamp::MAX)).await;
                continue;
            }
            failures = 0;
            delivered.insert(first.id);
            standing::write(lake.as_ref(), &self.standing_name(), &delivered).await?;
        }
    }
}
