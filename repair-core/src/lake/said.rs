//! What people and other systems say to a run, for steps that wait for it. It is kept as artifacts of the run, so it is there before the step is, after a crash,
//! and on any machine.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Artifacts, known};
use crate::error::{Error, ErrorKind, Result};

/// That something has happened, which a step with `wait: { until: { event: NAME } }` waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Happened {
    /// When it was said.
    pub at: Timestamp,
    /// Who said it.
    pub by: String,
    /// What was said with it; null if nothing was.
    #[serde(default)]
    pub payload: Value,
}

/// A person's answer to a step with `wait: { until: { approval: … } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decision {
    /// Whether the run may go on.
    pub approved: bool,
    /// Which attempt of the step's visit asked, from 1.
    pub attempt: u32,
    /// When it was decided.
    pub at: Timestamp,
    /// Who decided.
    pub by: String,
    /// Why, if anybody said.
    #[serde(default)]
    pub reason: Option<String>,
    /// What it is about, as it was shown to who decided: how many rows the steps that follow would change, and what that takes; null if that was not known.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub proposed: Value,
}

impl Happened {
    /// Said by somebody at a time.
    pub fn new(by: impl Into<String>, at: Timestamp, payload: Value) -> Self {
        Self { at, by: by.into(), payload }
    }

    /// What was last said to a run of an event; `None` if nothing was.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub async fn read(lake: &(impl Artifacts + ?Sized), run: &str, event: &str) -> Result<Option<Self>> {
        read(lake, run, &format!("event {event}")).await
    }

    /// Says it to a run. What was said of the event before no longer counts.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn say(&self, lake: &(impl Artifacts + ?Sized), run: &str, event: &str) -> Result<()> {
        say(lake, run, &format!("event {event}"), self).await
    }
}

impl Decision {
    /// The answer to an attempt, decided by somebody at a time.
    pub fn new(approved: bool, attempt: u32, by: impl Into<String>, at: Timestamp, reason: Option<String>) -> Self {
        Self { approved, attempt, at, by: by.into(), reason, proposed: Value::Null }
    }

    /// The same, about what was shown.
    #[must_use]
    pub fn about(self, proposed: Value) -> Self {
        Self { proposed, ..self }
    }

    /// Whether it answers an attempt: an approval answers all attempts of its visit, and a rejection its own.
    pub fn answers(&self, attempt: u32) -> bool {
        self.approved || self.attempt == attempt
    }

    /// What was decided about a visit of a step; `None` if nothing was.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub async fn read(lake: &(impl Artifacts + ?Sized), run: &str, step: &str, visit: u32) -> Result<Option<Self>> {
        read(lake, run, &format!("decision {visit} {step}")).await
    }

    /// Says it to a run.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn say(&self, lake: &(impl Artifacts + ?Sized), run: &str, step: &str, visit: u32) -> Result<()> {
        say(lake, run, &format!("decision {visit} {step}"), self).await
    }
}

async fn read<T: for<'de> Deserialize<'de>>(lake: &(impl Artifacts + ?Sized), run: &str, name: &str) -> Result<Option<T>> {
    match known::text_of(lake, run, name).await {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Error::invalid(format!("what was said to run `{run}` is damaged ({name}); say it again")).because(error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn say<T: Serialize + Sync>(lake: &(impl Artifacts + ?Sized), run: &str, name: &str, said: &T) -> Result<()> {
    let text = serde_json::to_string(said).map_err(|error| Error::internal("what is said to a run is not JSON").because(error))?;
    known::put_text(lake, run, name, text).await.map(drop)
}
