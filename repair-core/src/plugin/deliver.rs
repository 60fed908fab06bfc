//! Where messages about runs go.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use crate::error::Result;

/// A message about a run, as it is sent.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Its id. A message that is sent again has the same one, so a receiver can leave out what it has.
    pub id: String,
    /// What it is about, in a few words.
    pub subject: String,
    /// All of it as text, for people.
    pub text: String,
    /// All of it as JSON, for programs.
    pub body: Value,
    /// When it is sent.
    pub sent_at: Timestamp,
}

impl Message {
    /// A message with its id, subject, text and JSON, which is sent at a time.
    pub fn new(id: impl Into<String>, subject: impl Into<String>, text: impl Into<String>, body: Value, sent_at: Timestamp) -> Self {
        Self { id: id.into(), subject: subject.into(), text: text.into(), body, sent_at }
    }
}

/// Delivers messages to one receiver. Whoever calls it repeats a call that failed, waits no longer than it wants, and then drops the call.
///
/// ```
/// use std::sync::Mutex;
///
/// use async_trait::async_trait;
/// use repair_core::Result;
/// use repair_core::plugin::{Deliver, Message};
///
/// /// Keeps the texts.
/// #[derive(Default)]
/// struct Inbox(Mutex<Vec<String>>);
///
/// #[async_trait]
/// impl Deliver for Inbox {
///     async fn deliver(&self, message: &Message) -> Result<()> {
///         self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(message.text.clone());
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Delivers a message. When it returns, the receiver has it.
    ///
    /// # Errors
    /// `transient`, `throttled` or `timeout` if another attempt may succeed soon; another kind if somebody must do something first. The error holds
    /// no secret.
    async fn deliver(&self, message: &Message) -> Result<()>;
}
