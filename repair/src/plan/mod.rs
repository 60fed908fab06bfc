//! Plans: what is broken, and what it takes to repair it, told before anything is spent or written.
//!
//! A plan holds what it was made from (the workflow's text, parameters, what the lake looked like), so that to apply it is to do what it
//! says or to be refused: [`differences`] compares definitions, [`changes`] what was found.

mod cost;
mod found;
mod make;
mod reach;
mod same;
mod steps;
mod verdict;

use std::collections::BTreeMap;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use found::{Defects, Gaps, changes};
pub use make::{PlanRequest, Planner};
pub use same::differences;
pub use verdict::Verdict;

use repair_core::lake::extent::Extent;
use repair_core::model::{Counts, DefectKind, Interval, SlotGrid};
use repair_core::{Error, Hint, Result};

/// The format of plans that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Bytes of a plan's text; ours bound what they list.
pub const MAX_PLAN_BYTES: u64 = 256 << 20;

/// What a run of a workflow would find and take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The format.
    pub format: u32,
    /// A digest of all that follows; empty while the plan is made.
    pub digest: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// The workflow, as it was then.
    pub definition: Definition,
    /// The parameters, defaults included.
    pub params: BTreeMap<String, Value>,
    /// What a run keeps of where it runs; not looked at here.
    pub environment: Value,
    /// The lake that the command named, if it named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lake: Option<String>,
    /// What the detect steps found, in the order of the text.
    pub looks: Vec<Look>,
    /// What the repair steps would do.
    pub repairs: Vec<RepairPlan>,
    /// What other steps would read.
    pub reads: Vec<Reading>,
    /// What will be made in a catalog, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub creates: Vec<String>,
    /// The steps of which nothing is known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_planned: Vec<NotPlanned>,
    /// The steps to which a run may come again: what they take then is not in the plan, as it depends on what is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<String>,
    /// All of it, each step once.
    pub total: Estimate,
    /// Whether budgets can be met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetPlan>,
}

/// A workflow as it was when it was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The file of the price book that was given beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<String>,
}

/// Whether a run comes to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// It does, unless something fails before.
    Surely,
    /// That depends on what earlier steps put out, or on what fails.
    Perhaps,
}

/// What a detect step found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The step.
    pub step: String,
    /// The detector.
    pub plugin: String,
    /// What it looked for.
    #[serde(default, skip_serializing_if = "DefectKind::is_missing")]
    pub kind: DefectKind,
    /// Whether a run comes to it.
    pub reach: Reach,
    /// The table it looked at.
    pub table: String,
    /// The slots of its series.
    pub grid: SlotGrid,
    /// The stretch of time.
    pub interval: Interval,
    /// What was counted.
    pub counts: Counts,
    /// What is missing, or otherwise wrong, by key and day.
    pub defects: Vec<Defects>,
    /// Missing slots that are not listed there, because there are too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted: u64,
    /// A digest of what was looked at and of all gaps.
    pub digest: String,
    /// What lay there.
    pub extents: Vec<TableExtent>,
    /// What looking takes: what it took now, and takes again when the plan is applied.
    pub estimate: Estimate,
}

/// What lay in a table when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableExtent {
    /// The table.
    pub table: String,
    /// Within which stretch of time; in all of it if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// What.
    #[serde(flatten)]
    pub extent: Extent,
}

/// What a repair step would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairPlan {
    /// The step.
    pub step: String,
    /// The detect step whose gaps it repairs.
    pub of: String,
    /// The table.
    pub table: String,
    /// Whether a run comes to it.
    pub reach: Reach,
    /// Its repair ideas, in order: the first gets all gaps, each other what is left.
    pub strategies: Vec<StrategyPlan>,
    /// At most so many objects are added beside the table.
    pub objects: u64,
}

/// What one repair idea would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StrategyPlan {
    /// Its name.
    pub name: String,
    /// The repairer.
    pub plugin: String,
    /// Whether it gets only what others leave, so perhaps nothing.
    pub rest: bool,
    /// Units of work, if all comes to it.
    pub units: u64,
    /// Slots that they are to repair.
    pub slots: u64,
    /// How often a unit is tried at most.
    pub attempts: u64,
    /// What it takes: at least each unit once, with one call; at most each as often as it may be tried, with all calls that it may make.
    pub estimate: Estimate,
}

/// What a step would read that is neither a detect nor a repair step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The step.
    pub step: String,
    /// The word of the language for what it does.
    pub kind: String,
    /// The table.
    pub table: String,
    /// Whether a run comes to it.
    pub reach: Reach,
    /// What it takes.
    pub estimate: Estimate,
}

/// A step of which nothing is known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotPlanned {
    /// The step.
    pub step: String,
    /// Why not.
    pub why: String,
}

/// What something takes, at least and at most, once through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// At least, as far as it can be known.
    pub low: Amount,
    /// At most.
    pub high: Amount,
}

/// So much of what is counted and paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Calls to sources.
    pub calls: u64,
    /// Queries of the lake's engine.
    pub queries: u64,
    /// Bytes read by queries or from files.
    pub bytes: u64,
    /// Dollars, by the price book; none if there is none, or if it does not know a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<Decimal>,
}

/// Whether a budget can be met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetPlan {
    /// The step whose budget, or that of whose strategy, it is; none if it is the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The strategy of the step whose budget it is; none if it is the step's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Whether the run comes to what is under it.
    pub reach: Reach,
    /// Whether it can.
    pub verdict: Verdict,
    /// Why, in words.
    pub why: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Plan {
    /// The run that comes of it: applied twice, it is the same.
    pub fn run_id(&self) -> String {
        const DIGITS: usize = 24;
        format!("plan-{}", self.digest.chars().take(DIGITS).collect::<String>())
    }

    /// Whether some budget cannot be met, as far as the run surely comes to what is under it.
    pub fn is_over_budget(&self) -> bool {
        self.budgets.iter().any(|budget| budget.verdict == Verdict::CannotBeMet && budget.reach == Reach::Surely)
    }

    /// Whether what it found may be otherwise by now though no object of the tables it looked at has changed: evidence of absent slots expires,
    /// what was not over yet is some day, and what is stale is marked beside the table that is computed.
    pub fn must_look_again(&self) -> bool {
        let may_differ = |look: &Look| look.counts.absent > 0 || look.interval.to() > self.made_at || look.kind == DefectKind::Stale;
        self.looks.iter().any(may_differ)
    }

    /// Its text, sealed: a plan that was changed since is not read.
    ///
    /// # Errors
    /// Only if it cannot be written as JSON.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| Error::internal("the plan is not JSON").because(error))
    }

    /// A plan from its text.
    ///
    /// # Errors
    /// `invalid` if it is none, was written by a newer version, or was changed.
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
            return Err(Error::invalid("the plan was changed after it was made; plan again, and change the workflow instead"));
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
