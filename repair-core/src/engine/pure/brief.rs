//! A run in brief: what a listing shows of it, from its first and last event. Pure.
//!
//! A journal may keep this beside the events, so it is written as JSON, and new fields always have a default.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::pure::event::{Event, Outcome};

/// How a run began, in brief.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// When.
    pub at: Timestamp,
    /// The workflow's name.
    pub workflow: String,
    /// The run that runs it as a step, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

impl Begun {
    /// By the first event of a run, and when it was appended. An event that does not start a run names no workflow.
    pub fn of(at: Timestamp, first: &Event) -> Self {
        match first {
            Event::RunStarted { workflow, environment, .. } => {
                let parent = environment.get("parent").and_then(|parent| parent.as_str()).map(str::to_owned);
                Self { at, workflow: workflow.clone(), parent }
            }
            _ => Self { at, workflow: String::new(), parent: None },
        }
    }
}

/// The last that a run recorded, in brief.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// When.
    pub at: Timestamp,
    /// How the run ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Whether it is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Until when it waits, if the last thing that it did was to begin a wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_until: Option<Timestamp>,
}

impl Latest {
    /// By the last event of a run, and when it was appended.
    pub fn of(at: Timestamp, last: &Event) -> Self {
        let outcome = if let Event::RunEnded { outcome, .. } = last { Some(*outcome) } else { None };
        let waits_until = match last {
            Event::TimerSet { due, .. } | Event::RetryScheduled { due, .. } => Some(*due),
            _ => None,
        };
        Self { at, outcome, paused: matches!(last, Event::RunPaused), waits_until }
    }

    /// Whether the run has stopped by itself, so that nothing drives it.
    pub fn is_at_rest(&self) -> bool {
        self.outcome.is_some() || self.paused
    }
}
