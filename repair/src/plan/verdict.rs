//! Whether budgets can be met, before anything is spent. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cost::{Pricing, Take};
use super::{BudgetPlan, Reach};
use repair_core::price::{Budget, Spend};
use repair_core::workflow::Prices;

/// Whether a budget can be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The most that may be needed fits.
    Fits,
    /// The least that is needed fits, but the most does not: the run may leave something undone.
    MayPass,
    /// Not even the least that is needed fits.
    CannotBeMet,
    /// There is no price for something.
    Unknown,
}

impl Verdict {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::MayPass => "may pass",
            Self::CannotBeMet => "cannot be met",
            Self::Unknown => "not known",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a budget is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner<'a> {
    /// The run.
    Run,
    /// A step.
    Step(&'a str),
    /// A strategy of a step.
    Strategy {
        /// The step.
        step: &'a str,
        /// The strategy.
        name: &'a str,
        /// Whether no other takes over what it leaves.
        is_last: bool,
    },
}

/// What steps under one budget take, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    least: Spend,
    /// What must be free at once for the last unit to begin.
    aside: Spend,
    most: Spend,
    unpriced: bool,
}

impl Sum {
    /// Adds a step.
    pub(super) fn add(&mut self, take: &Take, prices: &Prices<'_>, reach: Reach) {
        let (most, priced) = prices.spend(&take.high);
        self.most = self.most + most;
        self.unpriced |= !priced;
        if reach == Reach::Surely {
            let (least, _) = prices.spend(&take.certain);
            self.least = self.least + least;
            let (aside, _) = prices.spend(&repair_core::model::Usage { source_requests: take.aside, ..Default::default() });
            self.aside = Spend { calls: self.aside.calls.max(aside.calls), usd: self.aside.usd.max(aside.usd), bytes: 0 };
        }
    }

    /// What that means for a budget. Steps to which a run may come `again` may take more than was added.
    pub(super) fn against(&self, budget: &Budget, whose: Owner<'_>, reach: Reach, again: bool) -> BudgetPlan {
        let if_it_comes = if reach == Reach::Perhaps { ", if the run comes there" } else { "" };
        let (step, strategy, has_next) = match whose {
            Owner::Run => (None, None, false),
            Owner::Step(step) => (Some(step), None, false),
            Owner::Strategy { step, name, is_last } => (Some(step), Some(name), !is_last),
        };
        let left = if has_next { "what then is left goes to the next strategy" } else { "what then is left is not done" };
        let of = |verdict, why: String| {
            let [step, strategy] = [step, strategy].map(|name| name.map(str::to_owned));
            BudgetPlan { step, strategy, reach, verdict, why: format!("{why}{if_it_comes}") }
        };
        match passed(budget, &(self.least + self.aside)) {
            Some(what) if has_next => return of(Verdict::MayPass, format!("needs at least {what}; {left}")),
            Some(what) => return of(Verdict::CannotBeMet, format!("needs at least {what}")),
            None => {}
        }
        if self.unpriced && budget.usd.is_some() {
            return of(Verdict::Unknown, "asks a source of which the price book has no price; add it under `sources`".to_owned());
        }
        match passed(budget, &self.most) {
            Some(what) => of(Verdict::MayPass, format!("takes up to {what}; {left}")),
            None => {
                let once = if again { ", once through" } else { "" };
                of(Verdict::Fits, format!("takes at most {}{once}", all_of(budget, &self.most)))
            }
        }
    }
}

/// What of a budget is passed, in words.
fn passed(budget: &Budget, spend: &Spend) -> Option<String> {
    if let Some(calls) = budget.calls.filter(|calls| spend.calls > *calls) {
        return Some(format!("{} calls, and {calls} are allowed", spend.calls));
    }
    if let Some(usd) = budget.usd.filter(|usd| spend.usd > *usd) {
        return Some(format!("{} USD, and {usd} are allowed", spend.usd.normalize()));
    }
    let bytes = budget.bytes.filter(|bytes| spend.bytes > *bytes)?;
    Some(format!("{} bytes, and {bytes} are allowed", spend.bytes))
}

/// What a budget limits, of what is spent.
fn all_of(budget: &Budget, spend: &Spend) -> String {
    let calls = budget.calls.map(|calls| format!("{} of {calls} calls", spend.calls));
    let usd = budget.usd.map(|usd| format!("{} of {usd} USD", spend.usd.normalize()));
    let bytes = budget.bytes.map(|bytes| format!("{} of {bytes} bytes", spend.bytes));
    [calls, usd, bytes].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use repair_core::model::Usage;

    #[test]
    fn a_budget_is_judged_by_what_units_need_to_begin() {
        let calls = |source_requests| Usage { source_requests, ..Usage::default() };
        let prices = Prices::default();
        // Ten units of one call at least and three at most, each tried up to twice: the last needs three calls to be free.
        let take = Take { low: calls(10), certain: calls(10), high: calls(60), aside: 2 };
        let judged = |limit, reach| {
            let mut sum = Sum::default();
            sum.add(&take, &prices, reach);
            sum.against(&Budget { calls: Some(limit), ..Budget::default() }, Owner::Run, reach, false)
        };
        let verdicts = [11, 12, 59, 60].map(|limit| judged(limit, Reach::Surely).verdict);
        assert_eq!(verdicts, [Verdict::CannotBeMet, Verdict::MayPass, Verdict::MayPass, Verdict::Fits]);
        assert_eq!(judged(11, Reach::Surely).why, "needs at least 12 calls, and 11 are allowed");
        assert_eq!(judged(11, Reach::Perhaps).verdict, Verdict::MayPass);
        let mut sum = Sum::default();
        sum.add(&take, &prices, Reach::Surely);
        let first = Owner::Strategy { step: "fill", name: "vendor", is_last: false };
        let judged = sum.against(&Budget { calls: Some(3), ..Budget::default() }, first, Reach::Surely, false);
        assert_eq!(judged.verdict, Verdict::MayPass, "another takes over");
        let in_dollars = Budget { usd: Some(rust_decimal::Decimal::ONE), ..Budget::default() };
        assert_eq!(sum.against(&in_dollars, Owner::Step("fill"), Reach::Surely, false).verdict, Verdict::Unknown);
    }
}
