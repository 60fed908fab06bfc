//! The events of a run: the only source of truth about it.
//!
//! Events are JSON in the journal. New fields always have a default, and the meaning of a kind never changes, so that old journals can
//! always be read. [`FORMAT`] is written with each run in case that ever becomes impossible.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::pure::items::ItemResult;
use crate::error::{Error, ErrorKind};
use crate::lake::overlay::accuracy::Errors;
use crate::model::Usage;
use crate::model::{AnswerPrint, BadRow, Conflicts, Counts, DefectKind, OtherKeys, Scope, Suspects};
use crate::price::{Budget, Query, Spend};
use crate::workflow::StepEnd;

/// The version of the event format.
pub const FORMAT: u32 = 1;

/// An event with its number and time in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its number within the run, from 0, without gaps.
    pub sequence: u64,
    /// When it was appended, by the driver's clock.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// An error as the journal stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// The kind of error.
    pub kind: ErrorKind,
    /// The whole message, causes included.
    pub message: String,
    /// How long the other side asked us to wait before a retry.
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

/// The findings of a detect or verify step, as the journal stores them. The gaps themselves are an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingsRecord {
    /// The detect step that these findings belong to; for a verify step, the detect step that it repeats.
    pub of: String,
    /// The kind of defect that the step detects.
    #[serde(default, skip_serializing_if = "DefectKind::is_missing")]
    pub kind: DefectKind,
    /// What was examined.
    pub scope: Scope,
    /// How many slots were in each state.
    pub counts: Counts,
    /// The artifact that holds the gaps.
    pub artifact: String,
    /// Descriptions of the first few defects.
    #[serde(default, rename = "told", skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
    /// The first few rows of the table that could not be read, and were left out. All of them are an artifact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_rows: Vec<BadRow>,
    /// What looks wrong with the table as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// The first few keys that the table holds and the step does not expect.
    #[serde(default, skip_serializing_if = "OtherKeys::is_empty")]
    pub other_keys: OtherKeys,
    /// The run that found this, if it was taken over because nothing had changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_from: Option<String>,
    /// What was seen of slots beside those with the defect. Older journals do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenRecord>,
}

/// What a look saw of slots beside those that have the defect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// The artifact that holds the slots; `None` if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Whether only the gaps of an earlier look were looked at.
    #[serde(default)]
    pub again: bool,
    /// When the first evidence expires by which a slot counts as absent; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_until: Option<jiff::Timestamp>,
    /// Whether the detector says which slots are repaired and which absent. If not, only what people have set aside is in the artifact.
    #[serde(default)]
    pub complete: bool,
}

impl FindingsRecord {
    /// How many slots have this kind of defect.
    pub fn wrong(&self) -> u64 {
        self.counts.wrong(self.kind)
    }
}

/// A unit that failed in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFailed {
    /// Its index in the list of units of the visit.
    pub unit: u32,
    /// Why.
    pub error: ErrorRecord,
}

/// The final result of a step in a DAG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Settled {
    /// The step succeeded.
    Succeeded,
    /// The step failed for good.
    Failed {
        /// Why.
        error: ErrorRecord,
    },
    /// The step did not run.
    Skipped {
        /// Why.
        why: String,
    },
}

impl Settled {
    /// How the step ended, without the reason.
    pub fn end(&self) -> StepEnd {
        match self {
            Self::Succeeded => StepEnd::Succeeded,
            Self::Failed { .. } => StepEnd::Failed,
            Self::Skipped { .. } => StepEnd::Skipped,
        }
    }
}

/// How accurate a strategy was, measured by rows that arrived after it had repaired their slots.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LateTruth {
    /// Slots that the strategy repaired, and for which the table now has a row of its own.
    pub slots: u64,
    /// How many of these no step of any run has reported before. Over all runs, each slot is new once.
    pub new: u64,
    /// How far the repairs were from the truth, by numeric column.
    pub columns: BTreeMap<String, Errors>,
}

/// Why a run must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StopReason {
    /// Somebody cancelled the run.
    Cancel,
    /// Somebody paused the run.
    Pause,
    /// The run took longer than its `timeout`.
    Timeout,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The run completed, and nothing is left to repair.
    Succeeded,
    /// The run completed, but something is still wrong: tolerated units failed, slots are still missing, or an error was caught.
    SucceededWithExceptions,
    /// The run ended with an error, or at a `fail` step.
    Failed,
    /// Somebody cancelled the run.
    Cancelled,
    /// Some of the data could not be examined, so nothing is known about it.
    Blind,
    /// The budget did not allow the remaining work. Units that were running were finished.
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

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A run started. Everything that it works on is fixed here.
    RunStarted {
        /// The event format, [`FORMAT`].
        format: u32,
        /// The workflow's name.
        workflow: String,
        /// The text of the workflow.
        definition: String,
        /// The file that the text came from, for messages.
        file: String,
        /// The texts of the workflows that it runs as steps, by the name under which it refers to them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        children: BTreeMap<String, String>,
        /// The parameters, including defaults. None is relative to now any more.
        params: BTreeMap<String, Value>,
        /// The now that was given to the run, from which relative dates are counted. If none was, it is when the run started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        now: Option<Timestamp>,
        /// What a later process needs to open the same lake. The engine only stores it.
        environment: Value,
        /// The seed for jitter.
        seed: u64,
        /// What evaluates its expressions, with its exact version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expressions: Option<String>,
        /// Which turn of a schedule it is, from 1; 0 if no schedule started it. With each turn, other keys come first.
        #[serde(default, skip_serializing_if = "is_zero")]
        turn: u64,
        /// What it may spend, beside the budget of the workflow.
        #[serde(default, skip_serializing_if = "Budget::is_unlimited")]
        budget: Budget,
    },
    /// Another driver took over the run. From here on, the journal rejects events from the previous one.
    DriverStarted {
        /// The driver's id.
        driver: String,
        /// What evaluates expressions from here on, if that is another version than the one that the run began with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expressions: Option<String>,
    },
    /// The run must stop. Running steps are asked to stop, and awaited.
    StopRequested {
        /// Why.
        why: StopReason,
    },
    /// The run stopped for now, and can be resumed.
    RunPaused,
    /// A run that had ended continues from where it failed.
    RunRedriven {
        /// Steps at which the run ended, and the steps it goes back to instead: from a `fail` step to the one that led there.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        back: BTreeMap<String, String>,
    },
    /// The run continues with a corrected definition.
    DefinitionReplaced {
        /// The text of the workflow.
        definition: String,
        /// The file that the text came from, for messages.
        file: String,
        /// The texts of the workflows that it runs as steps.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        children: BTreeMap<String, String>,
        /// Descriptions of what changed.
        changes: Vec<String>,
    },
    /// The run entered a step.
    StepEntered {
        /// The step.
        step: String,
        /// Which visit, from 1.
        visit: u32,
    },
    /// The branches of a parallel step started.
    BranchesStarted {
        /// The step.
        step: String,
        /// The names of the branches.
        branches: Vec<String>,
    },
    /// A branch of a parallel step ended.
    BranchEnded {
        /// The parallel step.
        step: String,
        /// The branch.
        branch: String,
        /// The last step of the branch.
        at: String,
        /// Why it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorRecord>,
    },
    /// A step of a DAG succeeded, failed for good, or was skipped.
    StepSettled {
        /// The step.
        step: String,
        /// Its result.
        result: Settled,
    },
    /// A step began to wait.
    TimerSet {
        /// The step.
        step: String,
        /// When the wait ends.
        due: Timestamp,
    },
    /// The units of a repair step were planned.
    UnitsPlanned {
        /// The step.
        step: String,
        /// The detect step whose findings they repair.
        of: String,
        /// The table being repaired.
        table: String,
        /// The name of the strategy.
        strategy: String,
        /// The number of units.
        units: u32,
        /// The number of slots to repair.
        slots: u64,
        /// The artifact that lists them.
        artifact: String,
        /// Tags for their costs.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        tags: BTreeMap<String, String>,
        /// What earlier strategies left to repair; none for the first strategy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left: Option<Box<FindingsRecord>>,
        /// What planning used, including the detection of what was left.
        #[serde(default)]
        usage: Usage,
    },
    /// A strategy of a repair step ended; the next one gets what it left.
    StrategyEnded {
        /// The step.
        step: String,
        /// The strategy.
        strategy: String,
        /// The error that ended it, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorRecord>,
    },
    /// Units are about to start, and their worst-case usage is reserved until they end. So is that of a request that a detector is about to make.
    /// Recorded only where a budget applies.
    UnitsReserved {
        /// The step.
        step: String,
        /// The indexes of the units, or the numbers of the requests.
        units: Vec<u32>,
        /// The worst-case usage of each.
        worst: Usage,
    },
    /// A group of units ended.
    UnitsEnded {
        /// The step.
        step: String,
        /// Units that are staged. They are paid for, and never requested again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        staged: Vec<u32>,
        /// What the staged units used in total.
        #[serde(default)]
        usage: Usage,
        /// Slots where a source disagreed with the table.
        #[serde(default, skip_serializing_if = "Conflicts::is_empty")]
        conflicts: Conflicts,
        /// Slots for which a source had nothing, without that proving that they are absent.
        #[serde(default, skip_serializing_if = "Suspects::is_empty")]
        suspects: Suspects,
        /// What to remember of the answers of a source.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        answers: Vec<AnswerPrint>,
        /// Units that failed in this attempt.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failed: Vec<UnitFailed>,
        /// Units that were stopped before they requested anything. Their reservation is released.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        released: Vec<u32>,
    },
    /// A request of a detector to a source ended, or a call that a detector, a task or a sensor made by itself.
    RequestEnded {
        /// The step.
        step: String,
        /// The number of the request within the attempt.
        request: u32,
        /// What it used, if the source answered.
        #[serde(default)]
        usage: Usage,
        /// Whether the source gave no answer. What was reserved for the request then counts as used.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        failed: bool,
    },
    /// Staged units are no longer there, or are not what was staged. They are pending again, and what they used stays used.
    UnitsLost {
        /// The step.
        step: String,
        /// The indexes of the units.
        units: Vec<u32>,
    },
    /// Staged units are about to be published. After a crash, the publication is repeated from here.
    PublishStarted {
        /// The step.
        step: String,
        /// The number of the batch within the visit.
        batch: u32,
        /// The indexes of the units.
        units: Vec<u32>,
    },
    /// The batch is published: readers see it.
    PublishEnded {
        /// The step.
        step: String,
        /// The batch.
        batch: u32,
        /// Rows added to the overlay.
        rows: u64,
        /// Slots recorded as absent.
        absent: u64,
        /// What writing used.
        usage: Usage,
    },
    /// A detect step found rows that arrived after their slots had been repaired. Those rows count now, and show how accurate the repairs
    /// were. If a run has several of these for one step, the last one counts.
    LateTruth {
        /// The step.
        step: String,
        /// The table.
        table: String,
        /// The accuracy over the whole interval that was examined, by strategy.
        strategies: BTreeMap<String, LateTruth>,
    },
    /// The list of a map is known. It stays as it is for this visit, so that an item keeps its run.
    ItemsPlanned {
        /// The step.
        step: String,
        /// The items.
        items: Vec<Value>,
        /// Which rows the query that gave them did not see, in words. Events of earlier versions do not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unread: Option<String>,
    },
    /// A run within this one may spend up to this, over all its attempts; or it has. Recorded only where a budget applies, before it spends it.
    InnerSpend {
        /// The step.
        step: String,
        /// The index of the item in a map; 0 for a workflow step.
        item: u32,
        /// How much.
        spend: Spend,
    },
    /// A run within this one ended, and left something missing or otherwise wrong. Recorded for a workflow step; the end of an item says it itself.
    InnerMissing {
        /// The step.
        step: String,
        /// How many slots.
        missing: u64,
    },
    /// The run for an item of a map ended.
    ItemEnded {
        /// The step.
        step: String,
        /// The index of the item.
        item: u32,
        /// How.
        result: Box<ItemResult>,
    },
    /// A step succeeded.
    StepSucceeded {
        /// The step.
        step: String,
        /// What conditions see as `$output`.
        output: Value,
        /// What a detect or verify step found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        findings: Option<Box<FindingsRecord>>,
        /// What is still wrong, if the step ran a workflow that succeeded with exceptions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exceptions: Option<String>,
        /// What it used, not counting its units.
        usage: Usage,
    },
    /// An attempt of a step failed.
    StepFailed {
        /// The step.
        step: String,
        /// Why; if units failed, the error of one of them.
        error: ErrorRecord,
        /// Whether all units were attempted, and some failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        units: bool,
    },
    /// An attempt of a step used what no other event records: queries, and work that failed or was abandoned.
    Metered {
        /// The step.
        step: String,
        /// What it used.
        #[serde(default)]
        usage: Usage,
        /// All queries that ran, including those whose usage is in another event.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        queries: Vec<Query>,
    },
    /// A failed step will be retried.
    RetryScheduled {
        /// The step.
        step: String,
        /// The indexes of the retry rules that apply; each uses up one attempt.
        rules: Vec<u32>,
        /// The kinds of error to retry. In a repair step, only units that failed with one of them are repeated.
        kinds: Vec<ErrorKind>,
        /// When, including jitter.
        due: Timestamp,
    },
    /// The run moved from one step to another.
    Moved {
        /// The step it left.
        from: String,
        /// The step it goes to.
        to: String,
        /// Why: the condition that held, or the error that was caught.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The run ended.
    RunEnded {
        /// Its outcome.
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

impl Event {
    /// The word for its kind, as in the journal: `step-succeeded`.
    pub fn kind(&self) -> String {
        let event = serde_json::to_value(self).unwrap_or_default();
        event.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
