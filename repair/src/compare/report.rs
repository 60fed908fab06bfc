//! What a comparison found.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;

use crate::compare::mask::{Pattern, Share, Unlike};
use crate::compare::score::{ColumnErrors, PartLoss};
use repair_core::engine::JsonFormat;
use repair_core::model::{Interval, Key, Usage};

/// What a comparison of strategies found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CompareReport {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The workflow.
    pub workflow: String,
    /// The detect step that says which rows are expected.
    pub of: String,
    /// The table.
    pub table: String,
    /// From when to when.
    pub interval: Interval,
    /// How the hidden slots are distributed.
    pub pattern: Pattern,
    /// The share that was to be hidden.
    pub share: Share,
    /// The seed from which the hidden slots were drawn.
    pub seed: u64,
    /// In how many rounds they were hidden; no slot in two of them. All counts and losses are of all rounds together.
    pub rounds: u32,
    /// Slots with a row that could be hidden.
    pub there: u64,
    /// Slots that were hidden.
    pub hidden: u64,
    /// Runs of neighbouring hidden slots.
    pub gaps: u64,
    /// Which slots were hidden.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden_slots: Vec<Hidden>,
    /// A hash of the hidden slots: two comparisons with the same hash hid the same slots.
    pub mask: String,
    /// The price book, and the day of its prices.
    pub prices: Option<(String, Date)>,
    /// The columns whose loss decides.
    pub decisive: Vec<String>,
    /// Each strategy, in the order in which they were named.
    pub strategies: Vec<StrategyReport>,
    /// The best strategy, if one repaired anything and fits the limits.
    pub best: Option<String>,
    /// Gaps that no hidden run is like, because the table holds no such stretch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlike: Option<Unlike>,
    /// The best strategy, or its chain, as the part of a repair step, in YAML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommended: Option<String>,
    /// Aggregate steps that could not be compared, and why.
    pub not_compared: Vec<String>,
}

/// A run of hidden slots of one key, all in one round. If cells are hidden, those of the same columns.
#[derive(Debug, Clone, Serialize)]
pub struct Hidden {
    /// In which round they were hidden, from 1.
    pub round: u32,
    /// The key.
    pub key: Key,
    /// From where the first begins to where the last ends.
    pub interval: Interval,
    /// The columns whose cells were hidden; empty if whole rows were.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub columns: Arc<[String]>,
}

/// How one strategy did.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct StrategyReport {
    /// Its name.
    pub name: String,
    /// The repairer; of a chain, the first.
    pub plugin: String,
    /// Its configuration; of a chain, that of the first.
    pub with: Value,
    /// Of a chain, each of its strategies in order; else empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Link>,
    /// Slots that were hidden.
    pub hidden: u64,
    /// Slots for which it produced a row.
    pub repaired: u64,
    /// Slots that it confirmed absent, which is wrong for each of them.
    pub absent: u64,
    /// Slots that it left open.
    pub left: u64,
    /// Units that were planned.
    pub units: u64,
    /// Units that failed.
    pub failed: u64,
    /// Units that did not begin, because a budget had no room for them.
    pub not_begun: u64,
    /// How far its rows were from the truth, by column.
    pub columns: BTreeMap<String, ColumnErrors>,
    /// How far the aggregates were from their values when nothing is hidden, by table.
    pub aggregates: BTreeMap<String, AggregateErrors>,
    /// Calls to a source.
    pub calls: u64,
    /// What it used, without what writing its repairs would use.
    pub usage: Usage,
    /// What that costs in dollars, if all prices are known.
    pub usd: Option<Decimal>,
    /// Why the cost is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpriced: Option<String>,
    /// Elapsed milliseconds.
    pub ms: u64,
    /// The mean loss of the decisive columns, from 0 (all correct) to 1.
    pub loss: f64,
    /// The interval in which the loss lies in 95 % of cases, if runs like these were hidden anew; none if there are not several runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The loss by key.
    pub by_key: Vec<PartLoss>,
    /// The loss by the length of the hidden runs, in slots.
    pub by_length: Vec<PartLoss>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// One strategy of a chain.
#[derive(Debug, Clone, Serialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The repairer.
    pub plugin: String,
    /// Its configuration.
    pub with: Value,
    /// Slots for which it produced a row, of those that were left for it.
    pub repaired: u64,
}

/// How far an aggregate was from its values when nothing is hidden.
#[derive(Debug, Clone, Serialize)]
pub struct AggregateErrors {
    /// Rows there are when nothing is hidden, counted once for each round.
    pub rows: u64,
    /// Rows of these with another number.
    pub differ: u64,
    /// Rows that only one side has.
    pub unmatched: u64,
    /// By column.
    pub columns: BTreeMap<String, ColumnErrors>,
}
