//! Which messages about a run were delivered, and to whom. It is kept as an artifact of the run, so that after a crash, and on any machine, delivery goes
//! on where it was. If it is lost, messages are delivered again, with the ids that they had.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Artifacts, known};
use crate::error::{Error, ErrorKind, Result};

/// The name of the artifact.
const NAME: &str = "notified";

/// How far the messages about a run were delivered to one receiver. They follow from the run's events, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Delivered {
    /// All messages about events before this one are delivered.
    pub next: u64,
    /// The ids of the messages about this event that are delivered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
}

impl Delivered {
    /// Whether a message about an event is delivered.
    pub fn has(&self, sequence: u64, id: &str) -> bool {
        sequence < self.next || (sequence == self.next && self.ids.iter().any(|known| known == id))
    }

    /// Notes that a message is delivered, and all messages about earlier events.
    pub fn note(&mut self, sequence: u64, id: &str) {
        if sequence > self.next {
            (self.next, self.ids) = (sequence, Vec::new());
        }
        if !self.has(sequence, id) {
            self.ids.push(id.to_owned());
        }
    }

    /// Notes that nothing is left to say about events before this one.
    pub fn through(&mut self, next: u64) {
        if next > self.next {
            (self.next, self.ids) = (next, Vec::new());
        }
    }
}

/// What was delivered about a run to one receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Notified {
    /// The receivers, by the name that the workflow gives them.
    #[serde(default)]
    pub to: BTreeMap<String, Delivered>,
    /// When the run recorded the last event about which all of them have everything; none if that was never so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_at: Option<Timestamp>,
}

impl Notified {
    /// What was delivered about a run. What is damaged is as nothing.
    ///
    /// # Errors
    /// If it cannot be read now.
    pub async fn read(lake: &(impl Artifacts + ?Sized), run: &str) -> Result<Self> {
        match known::text_of(lake, run, NAME).await {
            Ok(text) => Ok(serde_json::from_str(&text).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Keeps it, in place of what was known of the run before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn keep(&self, lake: &(impl Artifacts + ?Sized), run: &str) -> Result<()> {
        let text =
            serde_json::to_string(self).map_err(|error| Error::internal("what was delivered cannot be written as JSON").because(error))?;
        known::put_text(lake, run, NAME, text).await?;
        Ok(())
    }
}

/// When a receiver that gathers messages got the last one, and which it is being sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Digests {
    /// When the last one was delivered.
    #[serde(default)]
    pub last: Option<Timestamp>,
    /// What is being sent. After a crash, exactly this is sent again.
    #[serde(default)]
    pub sending: Option<Gathered>,
}

/// The messages that one message gathers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gathered {
    /// The id of the whole.
    pub id: String,
    /// When they were gathered.
    pub at: Timestamp,
    /// For each run, the events and ids of its messages, in order.
    pub of: Vec<(String, Vec<(u64, String)>)>,
}

impl Gathered {
    /// Messages of runs, gathered at a time under an id.
    pub fn new(id: impl Into<String>, at: Timestamp, of: Vec<(String, Vec<(u64, String)>)>) -> Self {
        Self { id: id.into(), at, of }
    }
}

impl Digests {
    fn name(workflow: &str, notifier: &str) -> String {
        format!("digest {notifier} {workflow}")
    }

    /// What is known of a receiver of a workflow.
    ///
    /// # Errors
    /// If it cannot be read now.
    pub async fn read(lake: &(impl Artifacts + ?Sized), workflow: &str, notifier: &str) -> Result<Self> {
        let text = known::read(lake, &Self::name(workflow, notifier)).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Keeps it, in place of what was known before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn keep(&self, lake: &(impl Artifacts + ?Sized), workflow: &str, notifier: &str) -> Result<()> {
        let text =
            serde_json::to_string(self).map_err(|error| Error::internal("what was gathered cannot be written as JSON").because(error))?;
        known::keep(lake, &Self::name(workflow, notifier), text).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_delivered_is_known_event_by_event() {
        let mut delivered = Delivered::default();
        assert!(!delivered.has(0, "a"));
        delivered.note(3, "a");
        assert!(delivered.has(2, "anything") && delivered.has(3, "a") && !delivered.has(3, "b") && !delivered.has(4, "a"));
        delivered.note(3, "b");
        delivered.note(3, "b");
        assert_eq!(delivered.ids, ["a", "b"]);
        // What is older changes nothing.
        delivered.note(1, "z");
        delivered.through(2);
        assert!(delivered.has(3, "b"));
        delivered.through(7);
        assert!(delivered.has(6, "x") && !delivered.has(7, "a"));
    }
}
