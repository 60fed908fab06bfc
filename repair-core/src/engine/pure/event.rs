//! What happened in a run: the only source of truth about it.
//!
//! Events are JSON in the journal. A field is only ever added with a default, and a kind is never given another meaning, so that old
//! journals always fold; [`FORMAT`] is written with each run for the day that this is not enough.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::lake::overlay::story::Errors;
use crate::model::Usage;
use crate::model::{Conflicts, Counts, DefectKind, Scope, Suspects};
use crate::price::Query;

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

impl From<ErrorRecord> for Error {
    fn from(record: ErrorRecord) -> Self {
        let error = Error::new(record.kind, record.message);
        match record.retry_after_ms {
            Some(wait_ms) => error.retry_after(std::time::Duration::from_millis(wait_ms)),
            None => error,
        }
    }
}

/// What a detect or verify step found, small enough for the journal; the gaps are an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingsRecord {
    /// The detect step whose findings these are; of a verify step, the one it looked at again.
    pub of: String,
    /// What was looked for.
    #[serde(default, skip_serializing_if = "DefectKind::is_missing")]
    pub kind: DefectKind,
    /// What was looked at.
    pub scope: Scope,
    /// What was counted.
    pub counts: Counts,
    /// The artifact that holds the gaps.
    pub artifact: String,
    /// What is wrong with the first few slots, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
}

impl FindingsRecord {
    /// How many slots are wrong in the way that was looked for.
    pub fn wrong(&self) -> u64 {
        self.counts.wrong(self.kind)
    }
}

/// A unit that failed in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFailed {
    /// Its index in the visit's list of units.
    pub unit: u32,
    /// Why.
    pub error: ErrorRecord,
}

/// How a step of a DAG, or a branch, came to rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settled {
    /// It did its work.
    Succeeded,
    /// It failed for good.
    Failed {
        /// Why.
        error: ErrorRecord,
    },
    /// It was never begun.
    Skipped {
        /// Why.
        why: String,
    },
}

/// How right a repair idea was, where rows came late.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LateTruth {
    /// Slots that it had repaired, and of which the table has a row of its own by now.
    pub slots: u64,
    /// Of these, those that no step of a run has told before: over all runs, each slot is new once.
    pub new: u64,
    /// How far it was from the truth, by column that holds numbers.
    pub columns: BTreeMap<String, Errors>,
}

/// Why a run is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// Somebody cancelled it.
    Cancel,
    /// Somebody paused it.
    Pause,
    /// It took longer than its `timeout`.
    Timeout,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// It did what it was to do.
    Succeeded,
    /// It came to its end, but not all is well: units failed within what is tolerated, slots are still missing, an error was caught.
    SucceededWithExceptions,
    /// It ended with an error, or at a `fail` step.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// It could not look at everything, so nothing is known.
    Blind,
    /// Its budget did not allow what was left to do; what was under way was finished.
    OverBudget,
}

impl Outcome {
    /// The word, the same in reports, listings and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::SucceededWithExceptions => "succeeded-with-exceptions",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Blind => "blind",
            Self::OverBudget => "over-budget",
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
        /// The texts of the workflows that it runs as steps, by the name it gives them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        children: BTreeMap<String, String>,
        /// The parameters, defaults filled in.
        params: BTreeMap<String, Value>,
        /// What the lake was opened with, for a later process: whatever the program that drives the run needs.
        environment: Value,
        /// Where jitter begins.
        seed: u64,
    },
    /// Another driver took up the run: what the one before still writes no longer fits.
    DriverStarted {
        /// Who.
        driver: String,
    },
    /// The run is to stop; what is under way is told, and waited for.
    StopRequested {
        /// Why.
        why: StopReason,
    },
    /// The run stopped for now, to be resumed.
    RunPaused,
    /// A run that had ended is taken up again where it failed.
    RunRedriven {
        /// Steps at which it was, and those it goes back to instead: from a `fail` step to the one that led there.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        back: BTreeMap<String, String>,
    },
    /// The run goes on with a mended definition.
    DefinitionReplaced {
        /// The text of the workflow.
        definition: String,
        /// Where that text was, for messages.
        file: String,
        /// The texts of the workflows that it runs as steps.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        children: BTreeMap<String, String>,
        /// What changed, for people.
        changes: Vec<String>,
    },
    /// The run came to a step.
    StepEntered {
        /// The step.
        step: String,
        /// Which visit, from 1.
        visit: u32,
    },
    /// The branches of a parallel step begin.
    BranchesStarted {
        /// The step.
        step: String,
        /// Their names.
        branches: Vec<String>,
    },
    /// A branch of a parallel step came to its end.
    BranchEnded {
        /// The parallel step.
        step: String,
        /// The branch.
        branch: String,
        /// The step at which it ended.
        at: String,
        /// Why it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorRecord>,
    },
    /// A step of a DAG came to rest.
    StepSettled {
        /// The step.
        step: String,
        /// How.
        result: Settled,
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
        /// The detect step whose findings they are to repair.
        of: String,
        /// The table repaired.
        table: String,
        /// The repair idea, by its name in the step.
        strategy: String,
        /// How many units.
        units: u32,
        /// How many slots they are to repair.
        slots: u64,
        /// The artifact that lists them.
        artifact: String,
        /// Tags on what they cost.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        tags: BTreeMap<String, String>,
        /// What the strategies before it left, if there were any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left: Option<Box<FindingsRecord>>,
        /// What planning took, the look at what was left included.
        #[serde(default)]
        usage: Usage,
    },
    /// A strategy of a repair step has done what it can; what it leaves goes to the next.
    StrategyEnded {
        /// The step.
        step: String,
        /// The strategy.
        strategy: String,
        /// Why it could do no more, if that was an error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorRecord>,
    },
    /// Units are about to start: at worst, each takes so much, which is set aside until they end. Only where there is a budget.
    UnitsReserved {
        /// The step.
        step: String,
        /// Their indexes.
        units: Vec<u32>,
        /// What each takes at worst.
        worst: Usage,
    },
    /// Units ended, in one group.
    UnitsEnded {
        /// The step.
        step: String,
        /// Those that are staged: paid for, and never asked again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        staged: Vec<u32>,
        /// What those took, all together.
        #[serde(default)]
        usage: Usage,
        /// Where sources said otherwise than the table.
        #[serde(default, skip_serializing_if = "Conflicts::is_empty")]
        conflicts: Conflicts,
        /// Where sources have nothing, and that proves nothing.
        #[serde(default, skip_serializing_if = "Suspects::is_empty")]
        suspects: Suspects,
        /// Those that failed in this attempt.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failed: Vec<UnitFailed>,
        /// Those that were told to stop before they asked for anything: what was set aside for them is given back.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        released: Vec<u32>,
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
    /// A detect step found slots that were repaired before the table got a row of its own. That row counts now, and tells how right the
    /// repairs were. Of several of a run about one step, the last counts.
    LateTruth {
        /// The step.
        step: String,
        /// The table.
        table: String,
        /// Of the whole interval that was looked at, by repair idea.
        strategies: BTreeMap<String, LateTruth>,
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
        /// What is not well, though it came to its end: of a workflow that was run as a step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exceptions: Option<String>,
        /// What it took, besides what its units took.
        usage: Usage,
    },
    /// An attempt of a step failed.
    StepFailed {
        /// The step.
        step: String,
        /// Why; if units failed, why one of them did.
        error: ErrorRecord,
        /// Whether it did all it could, and units failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        units: bool,
    },
    /// An attempt of a step took what no other event tells: queries, and what failed or was given up.
    Metered {
        /// The step.
        step: String,
        /// What it took.
        #[serde(default)]
        usage: Usage,
        /// Every query that was run, also those whose usage another event tells.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        queries: Vec<Query>,
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
