//! The repairer `seasonal`: estimates a hole of a series from what repeats in it, such as the hours of a day, and from the values at its edges.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::period::Period;
use crate::builtin::repair::holes::{Model, On, Plan};
use crate::builtin::repair::regress::RIDGE;
use crate::error::Result;
use crate::model::{Findings, Fix, Unit, Usage, Zone};
use crate::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};

const NAME: &str = "seasonal";

/// How a value follows from what repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SeasonalModel {
    /// A regression on what repeats, and what is left at the edges, as far as it usually lasts.
    #[default]
    Smoother,
    /// The median of each place of the shortest period, moved to the level of the values next to the gap.
    Medians,
}

/// The configuration, `with`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeasonalConfig {
    /// The columns to estimate; all numeric columns by default. Other columns are null.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
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
    /// The longest gap that is estimated; 65,536 slots by default. A longer gap stays missing as a whole.
    #[serde(default)]
    pub max_gap: Option<Period>,
    /// How a value follows from what repeats: `smoother` by default, or `medians`, which no few wrong values change.
    #[serde(default)]
    pub model: SeasonalModel,
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer(NAME, "estimates a gap from what repeats, and from its edges", Seasonal::new);
    registry.needs_one_row(PluginKind::Repairer, NAME);
}

/// Estimates holes from what repeats in a series, and from the values at both edges. What is said of [`Regress`](super::Regress) holds here too, but
/// that nothing else is looked at.
#[derive(Debug)]
pub struct Seasonal {
    plan: Plan,
}

impl Seasonal {
    /// Creates the repairer from its configuration.
    ///
    /// # Errors
    /// `invalid` if a list is empty that must not be.
    pub fn new(config: SeasonalConfig) -> Result<Self> {
        let model = match config.model {
            SeasonalModel::Smoother => Model::Regression { ridge: RIDGE, overlap: 1.0 },
            SeasonalModel::Medians => Model::Medians,
        };
        let plan = Plan {
            name: NAME,
            columns: config.columns,
            periods: config.periods,
            zone: config.zone,
            window: config.window,
            max_gap: config.max_gap,
            on: On::default(),
            model,
        };
        plan.check()?;
        Ok(Self { plan })
    }
}

#[async_trait]
impl Repairer for Seasonal {
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
