//! Messages about runs: to webhooks, channels, programs and mailboxes, as the `notify` of a workflow says; and OpenLineage events, as its `lineage` says.
//!
//! **At least once, in the order of the run, beside it.** The messages about a run follow from its journal. What was delivered is kept in the lake, after it was
//! delivered: a crash between the two sends a message again, with the same id. Each receiver is served on its own. A run waits for none of them; one that
//! cannot be reached is asked again, more and more slowly. When a process ends, it waits for a while ([`Notifications::settle`]). What is left then is
//! delivered beside the next run of the workflow, or by [`OpenLake::deliver_pending`], for [`MOST_AGE`].
//!
//! Two processes that deliver messages about the same run at the same time may both deliver one. They have the same id.
//!
//! What schedules have to say is kept and delivered by [`schedule`](crate::schedule), with the same promises.
//!
//! This module must not know how a receiver is reached.

mod desk;
mod digest;
mod lineage;
mod said;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use repair_core::engine::{Journal, JsonFormat, new_run_id};
use repair_core::lake::Lake;
use repair_core::plugin::{Clock, Deliver, Message, Registry, SystemClock};
use repair_core::workflow::{Receiver, Workflow};
use repair_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::json;

use self::desk::Desk;
pub(crate) use self::desk::{AtDesk, attempt, wait_after};
pub(crate) use self::lineage::At;
use crate::open::OpenLake;

/// For how long after it happened something is worth a message. Then it is left out, and a line in the log says so.
pub const MOST_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How long the command waits for receivers when it ends.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Delivers messages about runs: give it to [`Opening::notify`](crate::Opening::notify) or [`OpenLake::notify`], and settle it in the end. Clones deliver
/// together.
///
/// ```no_run
/// # async fn example() -> repair::Result<()> {
/// use repair::Repair;
/// use repair::notify::{Notifications, PATIENCE};
///
/// let notifications = Notifications::new();
/// let repair = Repair::open("ticker-hourly.yaml").notify(&notifications).connect().await?;
/// let report = repair.run().await?;
/// for left in notifications.settle(PATIENCE).await.left {
///     eprintln!("{} messages for `{}` are still to be delivered", left.messages, left.to);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Notifications {
    own: BTreeMap<String, Arc<dyn Deliver>>,
    #[cfg(feature = "connect")]
    options: repair_connect::Options,
    desks: Arc<Mutex<Vec<Arc<Desk>>>>,
}

/// What became of messages.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Settled {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// How many messages were delivered, a gathered one once.
    pub delivered: u64,
    /// What is still to be delivered.
    pub left: Vec<Left>,
}

/// Messages about a run that are still to be delivered.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Left {
    /// The run.
    pub run: String,
    /// The receiver, by its name in the workflow; `lineage` for OpenLineage events.
    pub to: String,
    /// How many messages.
    pub messages: usize,
    /// Why they were not delivered, if an attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When they are due, if they are gathered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
}

/// What came of a test message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tested {
    /// The receiver, by its name in the workflow.
    pub to: String,
    /// Its kind, such as `webhook`.
    pub kind: String,
    /// Why it did not get the message, if it did not.
    pub error: Option<String>,
}

/// What came of test messages to all receivers of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tests {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The receivers.
    pub tested: Vec<Tested>,
}

impl Notifications {
    /// Delivers to the receivers that workflows name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Delivers what a workflow says to the notifier of this name with something of your own.
    #[must_use]
    pub fn receiver(mut self, name: impl Into<String>, deliver: Arc<dyn Deliver>) -> Self {
        self.own.insert(name.into(), deliver);
        self
    }

    /// Which programs may be run, and where variables of the environment come from.
    #[cfg(feature = "connect")]
    #[must_use]
    pub fn options(mut self, options: repair_connect::Options) -> Self {
        self.options = options;
        self
    }

    /// Waits until everything that there is to say so far is delivered, but no longer than this. What is left goes on being delivered as long as the process
    /// lives.
    pub async fn settle(&self, within: Duration) -> Settled {
        let desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let deadline = tokio::time::Instant::now() + within;
        let mut settled = Settled::default();
        for desk in desks {
            let (delivered, left) = desk.settle(deadline).await;
            settled.delivered += delivered;
            settled.left.extend(left);
        }
        settled
    }

    /// Sends a test message to each receiver of a workflow, whatever its occasions are, and says what came of it. It is sent once. OpenLineage has no test
    /// messages, so `lineage` is left out.
    ///
    /// # Errors
    /// `not-found` if the workflow has no `notify`. That a receiver did not get its message is in the result.
    pub async fn test(&self, workflow: &Workflow) -> Result<Tests> {
        if workflow.notify.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("workflow `{}` has no `notify`", workflow.name)));
        }
        let now = SystemClock.now();
        let mut tested = Vec::new();
        for (name, notifier) in &workflow.notify {
            let id = format!("test.{}.{name}", new_run_id());
            let text = format!("test message of workflow `{}` to `{name}`: it arrives", workflow.name);
            let body = json!({
                "format": JsonFormat, "id": id, "to": name, "workflow": workflow.name, "what": "test", "at": now, "text": text,
            });
            let message = Message::new(id, format!("[repair] {}: test", workflow.name), text, body, now);
            let sent = match self.deliver_to(name, &notifier.to) {
                Ok(deliver) => attempt(deliver.as_ref(), &message).await,
                Err(error) => Err(error),
            };
            tested.push(Tested { to: name.clone(), kind: notifier.to.word().to_owned(), error: sent.err().map(|error| error.full()) });
        }
        Ok(Tests { format: JsonFormat, tested })
    }

    /// A desk for the runs of an engine.
    pub(crate) fn desk(
        &self,
        lake: Arc<dyn Lake>,
        journal: Arc<dyn Journal>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        at: lineage::At,
    ) -> Arc<Desk> {
        let desk = Arc::new(Desk::new(lake, journal, registry, clock, self.clone_without_desks(), at));
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).push(desk.clone());
        desk
    }

    /// A desk must not keep itself alive.
    fn clone_without_desks(&self) -> Self {
        Self { desks: Arc::default(), ..self.clone() }
    }

    /// What delivers to a notifier.
    pub(crate) fn deliver_to(&self, name: &str, to: &Receiver) -> Result<Arc<dyn Deliver>> {
        if let Some(own) = self.own.get(name) {
            return Ok(own.clone());
        }
        if let Receiver::Sns { topic } = to {
            #[cfg(feature = "aws")]
            return Ok(Arc::new(repair_aws::Messages::to(topic.clone())));
            #[cfg(not(feature = "aws"))]
            return Err(Error::invalid(format!("this program was built without `sns`, so nothing is published to {}", topic.arn()))
                .hint(repair_core::Hint::Feature { name: "aws" }));
        }
        #[cfg(feature = "connect")]
        return repair_connect::notify::receiver(to, &self.options);
        #[cfg(not(feature = "connect"))]
        Err(Error::invalid(format!("this program was built without `{}`", to.word())).hint(repair_core::Hint::Feature { name: "connect" }))
    }

    /// What delivers OpenLineage events.
    pub(crate) fn lineage_to(&self, to: &repair_core::workflow::Lineage) -> Result<Arc<dyn Deliver>> {
        if let Some(own) = self.own.get(said::LINEAGE) {
            return Ok(own.clone());
        }
        #[cfg(feature = "connect")]
        return repair_connect::notify::lineage(to, &self.options);
        #[cfg(not(feature = "connect"))]
        {
            let _ = to;
            Err(Error::invalid("this program was built without `lineage`").hint(repair_core::Hint::Feature { name: "connect" }))
        }
    }
}

impl OpenLake {
    /// Delivers what is left to say about runs that no process drives, and waits for it, but no longer than `within`.
    ///
    /// # Errors
    /// `not-found` if nothing was ever run in the lake; those of the journal. That a receiver cannot be reached is in the result.
    pub async fn deliver_pending(&self, notifications: &Notifications, within: Duration) -> Result<Settled> {
        let journal = self.journal().await?;
        let runs = desk::left_over(journal.as_ref(), self.around.clock.as_ref(), None, usize::MAX).await?;
        for (run, _) in runs {
            // A run's lake is as the run had it.
            let lake = self.lake_of(Some((journal.as_ref(), &run))).await?;
            let (registry, clock) = (self.around.registry.clone(), self.around.clock.clone());
            notifications.desk(lake, journal.clone(), registry, clock, self.root.lineage()).open_alone(&run);
        }
        Ok(notifications.settle(within).await)
    }
}
