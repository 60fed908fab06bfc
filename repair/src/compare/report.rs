//! What a comparison found.

use std::collections::BTreeMap;

use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;

use crate::compare::mask::{Pattern, Share};
use crate::compare::score::ColumnErrors;
use repair_core::model::Usage;
use repair_core::model::{Interval, Key};

/// What a comparison of ideas found.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The workflow.
    pub workflow: String,
    /// The detect step that says which rows are expected.
    pub of: String,
    /// The table.
    pub table: String,
    /// From when to when.
    pub interval: Interval,
    /// How hidden slots lie.
    pub pattern: Pattern,
    /// The part that was to be hidden.
    pub share: Share,
    /// What it was drawn from.
    pub seed: u64,
    /// Slots with a row that could be hidden.
    pub there: u64,
    /// Of these, slots that were.
    pub hidden: u64,
    /// Runs of neighbouring hidden slots.
    pub gaps: u64,
    /// Which slots were hidden.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden_slots: Vec<Hidden>,
    /// A print of which slots were hidden: two comparisons with the same print hid the same.
    pub mask: String,
    /// The price book, and the day of its prices.
    pub prices: Option<(String, Date)>,
    /// The columns whose loss decides.
    pub decisive: Vec<String>,
    /// Each idea, in the order in which they were named.
    pub ideas: Vec<IdeaReport>,
    /// The best idea, if one repaired anything and fits the limits.
    pub best: Option<String>,
    /// Aggregate steps that could not be compared, and why.
    pub not_compared: Vec<String>,
}

/// A run of hidden slots of one key.
#[derive(Debug, Clone, Serialize)]
pub struct Hidden {
    /// Whose.
    pub key: Key,
    /// From where the first begins to where the last ends.
    pub interval: Interval,
}

/// How one idea did.
#[derive(Debug, Clone, Serialize)]
pub struct IdeaReport {
    /// Its name.
    pub name: String,
    /// The repairer.
    pub plugin: String,
    /// Its configuration.
    pub with: Value,
    /// Slots that were hidden.
    pub hidden: u64,
    /// Slots for which it brought a row.
    pub repaired: u64,
    /// Slots that it claimed to hold nothing, which is wrong of all.
    pub absent: u64,
    /// Slots that it left open.
    pub left: u64,
    /// Units that were planned.
    pub units: u64,
    /// Units that failed.
    pub failed: u64,
    /// Units that the workflow's budget left no room for.
    pub not_begun: u64,
    /// How far its rows were from the truth, by column.
    pub columns: BTreeMap<String, ColumnErrors>,
    /// How far the aggregates were from what they are when nothing is hidden, by table.
    pub aggregates: BTreeMap<String, AggregateErrors>,
    /// Calls to a source.
    pub calls: u64,
    /// What it took, without what writing its repairs would take.
    pub usage: Usage,
    /// What that costs in dollars, if all prices are known.
    pub usd: Option<Decimal>,
    /// Why the cost is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpriced: Option<String>,
    /// Milliseconds it took on the clock.
    pub ms: u64,
    /// The mean loss of the decisive columns, from 0 (all right) to 1.
    pub loss: f64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// How far an aggregate was from what it is when nothing is hidden.
#[derive(Debug, Clone, Serialize)]
pub struct AggregateErrors {
    /// Rows there are when nothing is hidden.
    pub rows: u64,
    /// Of these, rows with another number.
    pub differ: u64,
    /// Rows that only one side has.
    pub unmatched: u64,
    /// By column.
    pub columns: BTreeMap<String, ColumnErrors>,
}
