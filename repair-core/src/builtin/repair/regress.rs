//! The repairer `regress`: estimates a hole from what other series show at the same time, from what repeats, and from the values at its edges.
//!
//! It is a ridge regression in a window around the hole, on the hours of the day, the days of the week, and other series: other keys, other
//! columns, and columns of other tables. What is left at both edges is carried into the hole. [`estimate`](super::estimate) has the method
//! and its literature.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::period::Period;
use crate::builtin::repair::holes::{Model, On, OtherTable, Plan};
use crate::error::{Error, Result};
use crate::model::{Findings, Fix, Key, Unit, Usage, Zone};
use crate::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};

const NAME: &str = "regress";

/// The share of the known slots that another series must have, by default, in percent.
const OVERLAP: u8 = 80;

/// The ridge by default: about one known slot in a window of hundreds, which changes nothing but where columns hardly differ.
pub(super) const RIDGE: f64 = 1.0;

/// The configuration, `with`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegressConfig {
    /// The columns to estimate; all numeric columns by default. Other columns are null.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// What to regress on; all other keys of the table by default.
    #[serde(default)]
    pub on: Option<OnConfig>,
    /// What repeats; a day and a week by default. A period that is not longer than a slot, or that the window does not hold twice, does not count.
    #[serde(default)]
    pub periods: Option<Vec<Period>>,
    /// The time zone whose clock the periods follow; the table's by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub zone: Option<Zone>,
    /// How much time on each side of a hole is looked at, in addition to as much as the hole is long; 28 days by default, but from 200 to 3,000 slots.
    #[serde(default)]
    pub window: Option<Period>,
    /// The percentage of the known slots that another series must have; 80 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub min_overlap: Option<u8>,
    /// What is added to the squares of each column; 1 by default. More makes weights smaller.
    #[serde(default)]
    #[schemars(range(min = 0.000_001))]
    pub ridge: Option<f64>,
    /// The longest gap that is estimated; 65,536 slots by default. A longer gap stays missing as a whole.
    #[serde(default)]
    pub max_gap: Option<Period>,
}

/// What to regress on.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnConfig {
    /// The keys of the table whose series count; all that are expected by default, none if the list is empty.
    #[serde(default)]
    pub keys: Option<Vec<Key>>,
    /// Columns of other tables, such as the weather.
    #[serde(default)]
    pub tables: Vec<OnTable>,
}

/// Columns of another table. Each of its keys is a series; a slot has the mean of the values in it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnTable {
    /// The table.
    pub table: String,
    /// The columns.
    pub columns: Vec<String>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer(NAME, "estimates a gap from other series at the same time, from what repeats, and from its edges", Regress::new);
    registry.needs_one_row(PluginKind::Repairer, NAME);
}

/// Estimates holes from other series at the same time, from what repeats, and from the values at both edges.
///
/// - It uses values of the table itself, never repairs, and never values that were found to be wrong; and of other tables, what readers see.
/// - Values far outside what is usual do not count, even if no rule found them.
/// - Another series counts for a hole if it has nine tenths of its slots, and enough of the known ones. The 24 that correlate most are used.
/// - Columns are estimated one by one. What holds between the columns of a row, such as `low ≤ high`, need not hold between estimates.
/// - Where no known value is below zero, no estimate is. Whole numbers are rounded.
/// - A hole with fewer than eight known values around stays missing, as does one longer than `max_gap`, and slots that have not ended.
#[derive(Debug)]
pub struct Regress {
    plan: Plan,
}

impl Regress {
    /// Creates the repairer from its configuration.
    ///
    /// # Errors
    /// `invalid` if a list is empty that must not be, or a number is out of range.
    pub fn new(config: RegressConfig) -> Result<Self> {
        let ridge = config.ridge.unwrap_or(RIDGE);
        if !(ridge.is_finite() && ridge >= 1e-6) {
            return Err(Error::invalid(format!("`ridge` is {ridge}; choose a number of at least 0.000001, such as 1")));
        }
        let overlap = config.min_overlap.unwrap_or(OVERLAP);
        if !(1..=100).contains(&overlap) {
            return Err(Error::invalid(format!("`min_overlap` is {overlap}; choose a percentage from 1 to 100")));
        }
        let on = config.on.unwrap_or_default();
        if let Some(empty) = on.tables.iter().find(|on| on.columns.is_empty()) {
            return Err(Error::invalid(format!("no column of table `{}` is listed to regress on; list some under `columns`", empty.table)));
        }
        let tables = on.tables.into_iter().map(|on| OtherTable { table: on.table, columns: on.columns }).collect();
        let plan = Plan {
            name: NAME,
            columns: config.columns,
            periods: config.periods,
            zone: config.zone,
            window: config.window,
            max_gap: config.max_gap,
            on: On { others: true, keys: on.keys, tables },
            model: Model::Regression { ridge, overlap: f64::from(overlap) / 100.0 },
        };
        plan.check()?;
        Ok(Self { plan })
    }
}

#[async_trait]
impl Repairer for Regress {
    /// There is no source to call.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    /// A unit is all gaps that begin in the same window.
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        self.plan.units(context, findings).await
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        self.plan.fix(context, findings, unit).await
    }
}
