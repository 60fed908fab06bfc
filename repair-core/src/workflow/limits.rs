//! The budgets that apply to a step, and the prices that it pays.

use rust_decimal::Decimal;

use super::{Step, StepKind, Strategy, Template, Workflow};
use crate::model::Usage;
use crate::price::{Budget, CallPrice, PriceBook, Spend};

/// A budget, and what it limits.
#[derive(Debug, Clone, Copy)]
pub struct BudgetLimit<'a> {
    /// The budget.
    pub budget: &'a Budget,
    /// What it limits.
    pub of: BudgetScope<'a>,
}

/// What a budget limits.
#[derive(Debug, Clone, Copy)]
pub enum BudgetScope<'a> {
    /// The whole run.
    Run,
    /// A step, over all its visits.
    Step,
    /// A strategy of a step, over all the step's visits.
    Strategy(&'a Strategy),
}

/// The budgets that apply to a step while one of its strategies is at work.
pub fn limits<'a>(workflow: &'a Workflow, step: &'a Step, strategy: Option<&'a Strategy>) -> impl Iterator<Item = BudgetLimit<'a>> {
    let own = match &step.kind {
        StepKind::Repair { budget, .. } => budget.as_ref(),
        _ => None,
    };
    let run = workflow.budget.as_ref().map(|budget| BudgetLimit { budget, of: BudgetScope::Run });
    let step = own.map(|budget| BudgetLimit { budget, of: BudgetScope::Step });
    let strategy =
        strategy.and_then(|strategy| Some(BudgetLimit { budget: strategy.budget.as_ref()?, of: BudgetScope::Strategy(strategy) }));
    [run, step, strategy].into_iter().flatten()
}

/// The prices that a step pays: those of a price book, and that of a call to its source. Every worst-case price is computed here, so that a
/// run, a plan and a comparison all set aside the same amount.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prices<'a> {
    /// The price book, if there is one.
    pub book: Option<&'a PriceBook>,
    /// The name of the source that the step asks, if any.
    pub source: Option<&'a str>,
    /// The price of a call to that source, if the book has one.
    pub call: Option<&'a CallPrice>,
}

impl<'a> Prices<'a> {
    /// The prices of a step that asks `source`. The workflow's price book lists it under its own name or its plug-in's.
    pub fn of(workflow: &'a Workflow, source: Option<&'a str>) -> Self {
        let book = workflow.prices.as_deref();
        let plugin = source.and_then(|source| workflow.sources.get(source)).map(|used| used.plugin.as_str());
        Self { book, source, call: book.and_then(|book| book.calls(source.into_iter().chain(plugin))) }
    }

    /// The most that some usage costs, as a budget counts it. A call without a price costs nothing; see [`Prices::lack`].
    pub fn worst(&self, usage: &Usage) -> Spend {
        let calls = self.call.map(|price| price.worst() * Decimal::from(usage.source_requests));
        let usd = self.book.map(|book| book.worst(usage)).unwrap_or_default() + calls.unwrap_or_default();
        Spend { usd, calls: usage.source_requests, bytes: usage.bytes_scanned }
    }

    /// Whether some usage includes calls that have no price.
    pub fn lack(&self, usage: &Usage) -> bool {
        usage.source_requests > 0 && self.call.is_none()
    }
}

/// The configuration of the detector that a step runs: its own, or that of the step whose findings it checks again.
pub fn detector_of<'a>(workflow: &'a Workflow, step: &'a Step) -> Option<&'a Template> {
    let detect = match &step.kind {
        StepKind::Detect { .. } => step,
        StepKind::Verify { of } | StepKind::Repair { of, .. } => workflow.step(of)?,
        _ => return None,
    };
    match &detect.kind {
        StepKind::Detect { with, .. } => Some(with),
        _ => None,
    }
}

/// The source that a configuration names under `source`, unless the name is computed.
pub fn source_of(with: &Template) -> Option<&str> {
    with.text_of("source")
}
