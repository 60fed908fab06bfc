//! What happened in a run: the only source of truth about it.
//!
//! Events are JSON in the journal. A field is only ever added with a default, and a kind is never given another meaning, so that old
//! journals always fold; [`FORMAT`] is written with each run for the day that this is not enough.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cost::Usage;
use crate::error::{Error, ErrorKind};
use crate::model::{Counts, Scope};

/// The version of the event format.
pub const FORMAT: u32 = 1;

/// An event, with its place in the journal and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its number within the run, from 0, without holes.
    pub sequence: u64,
    /// When it was appended, by the driver's clock.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// An error, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// What kind.
    pub kind: ErrorKind,
    /// The whole message, causes included.
    pub message: String,
    /// How long the other side asked us to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl From<&Error> for ErrorRecord {
    fn from(error: &Error) -> Self {
        let retry_after_ms = error.wait_hint().and_then(|wait| u64::try_from(wait.as_millis()).ok());
        Self { kind: error.kind(), message: error.full(), retry_after_ms }
    }
}

/// What a detect or verify step found, small enough for the journal; the gaps are an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingsRecord {
    /// The detect step whose findings these are; of a verify step, the one it looked at again.
    pub of: String,
    /// What was looked at.
    pub scope: Scope,
    /// What was counted.
    pub counts: Counts,
    /// The artifact that holds the gaps.
    pub artifact: String,
}

/// How a unit ended in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitEnded {
    /// Its index in the visit's list of units.
    pub unit: u32,
    /// What came of it.
    pub result: UnitResult,
}

/// What came of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitResult {
    /// It is staged: paid for, and never asked again.
    Staged {
        /// Rows repaired.
        rows: u64,
        /// Slots confirmed absent.
        absent: u64,
        /// What it took.
        usage: Usage,
    },
    /// It failed in this attempt.
    Failed {
        /// Why.
        error: ErrorRecord,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// It did what it was to do.
    Succeeded,
    /// It ended with an error, or at a `fail` step.
    Failed,
    /// It could not look at everything, so nothing is known.
    Blind,
}

impl Outcome {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Blind => "blind",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Event {
    /// A run was started: everything it works on is fixed here.
    RunStarted {
        /// [`FORMAT`]
        format: u32,
        /// The workflow's name.
        workflow: String,
        /// The text of the workflow, as it was.
        definition: String,
        /// Where that text was, for messages.
        file: String,
        /// The parameters, defaults filled in.
        params: BTreeMap<String, Value>,
        /// What the lake was opened with, for a later process: whatever the program that drives the run needs.
        environment: Value,
        /// Where jitter begins.
        seed: u64,
    },
    /// The run came to a step.
    StepEntered {
        /// The step.
        step: String,
        /// Which visit, from 1.
        visit: u32,
    },
    /// A step is to wait.
    TimerSet {
        /// The step.
        step: String,
        /// Until when.
        due: Timestamp,
    },
    /// The work of a repair step was fixed.
    UnitsPlanned {
        /// The step.
        step: String,
        /// The table repaired.
        table: String,
        /// The repair idea.
        strategy: String,
        /// How many units.
        units: u32,
        /// How many slots they are to repair.
        slots: u64,
        /// The artifact that lists them.
        artifact: String,
    },
    /// Units ended, in one group.
    UnitsEnded {
        /// The step.
        step: String,
        /// Which, and how.
        units: Vec<UnitEnded>,
    },
    /// Staged units are about to be published; what is half done after a crash is done again from here.
    PublishStarted {
        /// The step.
        step: String,
        /// The batch's number within the visit.
        batch: u32,
        /// Indexes of the units.
        units: Vec<u32>,
    },
    /// Readers see the batch.
    PublishEnded {
        /// The step.
        step: String,
        /// The batch.
        batch: u32,
        /// Rows added to the overlay.
        rows: u64,
        /// Slots recorded as absent.
        absent: u64,
        /// What writing took.
        usage: Usage,
    },
    /// A step did its work.
    StepSucceeded {
        /// The step.
        step: String,
        /// What conditions see as `$output`.
        output: Value,
        /// What a detect or verify step found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        findings: Option<Box<FindingsRecord>>,
        /// What it took, besides what its units took.
        usage: Usage,
    },
    /// An attempt of a step failed.
    StepFailed {
        /// The step.
        step: String,
        /// Why.
        error: ErrorRecord,
    },
    /// A failed step is tried again.
    RetryScheduled {
        /// The step.
        step: String,
        /// Which of its retry rules apply, each counted once.
        rules: Vec<u32>,
        /// The kinds of error they name: of a repair step, only units that failed with one of them are tried again.
        kinds: Vec<ErrorKind>,
        /// When, jitter included.
        due: Timestamp,
    },
    /// The run left a step for another.
    Moved {
        /// From where.
        from: String,
        /// To where.
        to: String,
        /// Why: the condition that held, or the error that was caught.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The run ended.
    RunEnded {
        /// How.
        outcome: Outcome,
        /// The last step.
        step: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The kind of the error it ended with, if it ended with one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorKind>,
    },
}
