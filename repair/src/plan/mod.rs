//! Plans: what is broken, and what repairing it would take, before anything is spent or written.
//!
//! A plan holds what it was made from (the workflow's text, its parameters, what the lake looked like), so that applying it does what it says or is
//! refused: [`differences`] compares definitions, [`changes`] compares findings.

mod apply;
mod columns;
mod cost;
mod found;
mod make;
mod proposal;
mod reach;
mod rehearsal;
mod same;
mod steps;
mod unread;
mod verdict;

use std::collections::BTreeMap;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use apply::ApplyRequest;
pub(crate) use columns::check as check_columns;
pub use found::{Defects, Gaps, changes};
pub use make::{PlanRequest, Planner};
pub(crate) use proposal::is_approval;
pub use proposal::{Proposal, ProposedRepair};
pub use rehearsal::refusals;
pub use same::differences;
pub use verdict::Verdict;

use repair_core::lake::extent::Extent;
use repair_core::model::{BadRow, Counts, DefectKind, Interval, OtherKeys, SlotGrid};
use repair_core::{Error, Hint, Result};

/// The format of plans that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// A plan's text has at most this many bytes. A plan bounds what it lists, so a longer one is not a plan.
pub const MAX_PLAN_BYTES: u64 = 256 << 20;

/// What a run of a workflow would find and take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The format.
    pub format: u32,
    /// A digest of all that follows; empty while the plan is made.
    pub digest: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// The now from which relative dates are counted, in the plan and in the run that applies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Timestamp>,
    /// The workflow, as it was then.
    pub definition: Definition,
    /// The parameters, defaults included.
    pub params: BTreeMap<String, Value>,
    /// What a run keeps of where it runs; not looked at here.
    pub environment: Value,
    /// The lake that was named in place of the profile's, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lake: Option<String>,
    /// What the detect steps found, in the order of the text.
    pub looks: Vec<Look>,
    /// What the repair steps would do.
    pub repairs: Vec<RepairPlan>,
    /// What other steps would read.
    pub reads: Vec<Reading>,
    /// What will be created in a catalog, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub creates: Vec<String>,
    /// The steps about which nothing is known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_planned: Vec<NotPlanned>,
    /// The steps that a run may visit again. What they take then is not in the plan, since it depends on what is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<String>,
    /// The sum, with each step once.
    pub total: Estimate,
    /// Whether budgets can be met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetPlan>,
}

/// A workflow as it was when it was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Definition {
    /// Its name.
    pub workflow: String,
    /// Where its text was.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The texts of the files that it names, by the names it gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<String, String>,
    /// The file of the price book that was given in place of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<String>,
}

/// Whether a run gets to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// It does, unless something fails before.
    Surely,
    /// That depends on the output of earlier steps, or on what fails.
    Perhaps,
}

/// What a detect step found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Look {
    /// The step.
    pub step: String,
    /// The detector.
    pub plugin: String,
    /// What it looked for.
    #[serde(default, skip_serializing_if = "DefectKind::is_missing")]
    pub kind: DefectKind,
    /// Whether a run gets to it.
    pub reach: Reach,
    /// The table that it searched.
    pub table: String,
    /// The slots of its series.
    pub grid: SlotGrid,
    /// The interval that it searched.
    pub interval: Interval,
    /// What was counted.
    pub counts: Counts,
    /// What is missing, or otherwise wrong, by key and day.
    pub defects: Vec<Defects>,
    /// Missing slots that are not listed there, because there are too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted: u64,
    /// The first few rows of the table that cannot be read, and were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_rows: Vec<BadRow>,
    /// What looks wrong with the table as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// The first few keys that the table holds and the step does not expect.
    #[serde(default, skip_serializing_if = "OtherKeys::is_empty")]
    pub other_keys: OtherKeys,
    /// A digest of what was searched and of all gaps.
    pub digest: String,
    /// What files or objects were there.
    pub extents: Vec<TableExtent>,
    /// What the search takes: what it took now, and will take again when the plan is applied.
    pub estimate: Estimate,
}

/// What files or objects a table had when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TableExtent {
    /// The table.
    pub table: String,
    /// The interval; the whole table if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// What was there.
    #[serde(flatten)]
    pub extent: Extent,
}

/// What a repair step would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RepairPlan {
    /// The step.
    pub step: String,
    /// The detect step whose gaps it repairs.
    pub of: String,
    /// The table.
    pub table: String,
    /// Whether a run gets to it.
    pub reach: Reach,
    /// Its strategies, in order. The first gets all gaps, and each other what is left.
    pub strategies: Vec<StrategyPlan>,
    /// At most this many objects are added beside the table.
    pub objects: u64,
}

/// What one strategy would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StrategyPlan {
    /// Its name.
    pub name: String,
    /// The repairer.
    pub plugin: String,
    /// Whether it gets only what others leave, which may be nothing.
    pub rest: bool,
    /// Units of work, if it gets everything.
    pub units: u64,
    /// Slots that they are to repair.
    pub slots: u64,
    /// How often a unit is tried at most.
    pub attempts: u64,
    /// What it takes: at least each unit once with one call; at most each unit as often as it may be tried, with all calls that it may make.
    pub estimate: Estimate,
}

/// What a step would read, if it is neither a repair step nor a detect step that was performed. A detect step that asks a source is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reading {
    /// The step.
    pub step: String,
    /// The word of the language for what it does.
    pub kind: String,
    /// The table.
    pub table: String,
    /// Whether a run gets to it.
    pub reach: Reach,
    /// What it takes.
    pub estimate: Estimate,
}

/// A step about which nothing is known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NotPlanned {
    /// The step.
    pub step: String,
    /// Why not.
    pub why: String,
    /// Whether the run may get there and do something that the plan does not count: then there may be work, and no price includes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_work: bool,
}

/// What something takes, at least and at most, in one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// At least, as far as it can be known.
    pub low: Amount,
    /// At most.
    pub high: Amount,
}

/// An amount of what is counted and paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Calls to sources.
    pub calls: u64,
    /// Queries of the lake's engine.
    pub queries: u64,
    /// Bytes read by queries or from files.
    pub bytes: u64,
    /// Dollars, by the price book; `None` if there is none, or if it does not know a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<Decimal>,
}

/// Whether a budget can be met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BudgetPlan {
    /// The step to which the budget, or the strategy with the budget, belongs; `None` if it is the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The strategy of the step that has the budget; `None` if it is the step's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Whether the run gets to what the budget is for.
    pub reach: Reach,
    /// Whether it can be met.
    pub verdict: Verdict,
    /// Why, in words.
    pub why: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Plan {
    /// A plan that says nothing yet.
    fn of_nothing(definition: Definition, made_at: Timestamp, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            digest: String::new(),
            made_at,
            now: Some(now),
            definition,
            params: BTreeMap::new(),
            environment: serde_json::Value::Null,
            lake: None,
            looks: Vec::new(),
            repairs: Vec::new(),
            reads: Vec::new(),
            creates: Vec::new(),
            not_planned: Vec::new(),
            again: Vec::new(),
            total: Estimate::default(),
            budgets: Vec::new(),
        }
    }

    /// The id of the run that applies it, so that a plan that is applied twice is one run.
    pub fn run_id(&self) -> String {
        const DIGITS: usize = 24;
        format!("plan-{}", self.digest.chars().take(DIGITS).collect::<String>())
    }

    /// Slots that are missing, or otherwise wrong, in all that was searched.
    pub fn missing(&self) -> u64 {
        self.looks.iter().map(|look| look.counts.wrong(look.kind)).sum()
    }

    /// Whether there is anything to do: something is missing, or otherwise wrong, or what a step would find is not known, since it would ask a source,
    /// or runs other runs.
    pub fn has_work(&self) -> bool {
        self.missing() > 0 || self.not_planned.iter().any(|step| step.may_work) || self.reads.iter().any(|read| read.kind == "detect")
    }

    /// Whether a budget cannot be met for work that the run surely gets to.
    pub fn is_over_budget(&self) -> bool {
        self.budgets.iter().any(|budget| budget.verdict == Verdict::CannotBeMet && budget.reach == Reach::Surely)
    }

    /// Whether its findings may be out of date although no object of the tables that it searched has changed: evidence of absent slots expires, an
    /// interval that was not over when the plan was made may be over now, and what is stale is marked beside the table that is computed.
    pub fn must_look_again(&self) -> bool {
        let may_differ = |look: &Look| look.counts.absent > 0 || look.interval.to() > self.made_at || look.kind == DefectKind::Stale;
        self.looks.iter().any(may_differ)
    }

    /// Its text, with its digest: a plan that is changed later is refused.
    ///
    /// # Errors
    /// Only if it cannot be written as JSON.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| Error::internal("the plan is not JSON").because(error))
    }

    /// Reads a plan from its text.
    ///
    /// # Errors
    /// `invalid` if it is not a plan, was written by a newer version, or was changed.
    pub fn from_text(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let not_ours = |error: serde_json::Error| {
            Error::invalid("this is not a plan file that this program wrote").because(error).hint(Hint::PlanAgain)
        };
        let head: Head = serde_json::from_str(text).map_err(not_ours)?;
        if head.format > FORMAT {
            let message = format!("the plan has format {}, and this program knows {FORMAT}; use a newer version of it", head.format);
            return Err(Error::invalid(message));
        }
        let plan: Self = serde_json::from_str(text).map_err(not_ours)?;
        if plan.clone().sealed()?.digest != plan.digest {
            return Err(Error::invalid("the plan was changed after it was made; change the workflow instead").hint(Hint::PlanAgain));
        }
        Ok(plan)
    }

    fn sealed(mut self) -> Result<Self> {
        self.digest.clear();
        let bytes = serde_json::to_vec(&self).map_err(|error| Error::internal("the plan is not JSON").because(error))?;
        self.digest = blake3::hash(&bytes).to_hex().to_string();
        Ok(self)
    }
}
