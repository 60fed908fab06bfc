//! What a run has spent and reserved, and whether more fits its budgets. Pure.
//!
//! A unit of a repair step starts only after its worst-case usage is reserved in the journal. When the unit ends, its actual usage replaces
//! the reservation; if it failed, or a crash hid how it ended, the whole reservation counts as spent. So a budget for calls, or for dollars
//! paid for calls, is never exceeded. What other steps read is known only when they end, so a step does not begin once a budget is
//! exceeded.
//!
//! The requests that a detector makes are counted in the same way, each as one unit. A run within this one may spend as much as this one has put on
//! record for it.

use crate::engine::pure::event::Event;
use crate::engine::pure::state::{RunState, StepState};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Usage;
use crate::price::Spend;
use crate::workflow::{BudgetLimit, BudgetScope, Prices, Step, Strategy, Workflow, detector_of, limits, source_of};

/// How much of a requested reservation was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    /// How many units were granted: the first of those requested.
    pub units: usize,
    /// Why the next unit was refused, if one was.
    pub refused: Option<String>,
}

/// The strategy that a step is currently using.
pub(crate) fn at_work<'a>(state: &RunState, step: &'a Step) -> Option<&'a Strategy> {
    step.kind.strategies().get(state.steps.get(&step.name).map_or(0, |done| done.strategy))
}

/// The strategy of which units are planned. Until they are, a detector is at work.
fn with_units<'a>(state: &RunState, step: &'a Step) -> Option<&'a Strategy> {
    let has_units = state.steps.get(&step.name).is_some_and(|done| done.units.is_some());
    at_work(state, step).filter(|_| has_units)
}

/// The prices that the step pays now.
fn prices_now<'a>(state: &RunState, workflow: &'a Workflow, step: &'a Step) -> Prices<'a> {
    let strategy = with_units(state, step);
    Prices::of(workflow, strategy.map_or_else(|| detector_of(workflow, step), |strategy| Some(&strategy.with)).and_then(source_of))
}

fn no_price(workflow: &Workflow, step: &Step) -> Error {
    let known = workflow.prices.as_ref().map_or("in use", |book| book.file.as_str());
    Error::invalid(format!("the price book {known} has no price for the source of step `{}`; add it under `sources`", step.name))
}

/// How many of these units fit the budgets that apply to a step, on top of everything spent and reserved.
///
/// # Errors
/// `invalid` if a budget is in dollars and the price book has no price for what a unit uses.
pub(crate) fn grant(state: &RunState, workflow: &Workflow, step: &str, asked: &[(u32, Usage)]) -> Result<Granted> {
    let step = workflow.step(step).ok_or_else(|| Error::internal(format!("the workflow has no step `{step}`")))?;
    let strategy = with_units(state, step);
    let prices = prices_now(state, workflow, step);
    let mut limits: Vec<(BudgetLimit<'_>, Spend)> =
        limits(workflow, step, strategy).map(|limit| (limit, spent(state, workflow, step, limit.of))).collect();
    let in_dollars = limits.iter().any(|(limit, _)| limit.budget.usd.is_some());
    for (index, (_, worst)) in asked.iter().enumerate() {
        if in_dollars && prices.lack(worst) {
            return Err(no_price(workflow, step));
        }
        let more = prices.worst(worst);
        for (limit, spent) in &limits {
            if let Err(exceeded) = limit.budget.fits(*spent, more) {
                let what = if strategy.is_some() { "unit" } else { "request" };
                let up_to = if more.calls > 1 { format!(", and a {what} takes up to {} calls", more.calls) } else { String::new() };
                return Ok(Granted {
                    units: index,
                    refused: Some(format!("{}{up_to}", over_budget(step, limit.of, &exceeded.to_string()))),
                });
            }
        }
        limits.iter_mut().for_each(|(_, spent)| *spent = *spent + more);
    }
    Ok(Granted { units: asked.len(), refused: None })
}

/// What the whole run has spent and reserved, with what the runs within it may spend.
pub(crate) fn spent_in_run(state: &RunState, workflow: &Workflow) -> Spend {
    state
        .steps
        .iter()
        .map(|(name, done)| workflow.step(name).map(|step| spent_by(workflow, step, done, BudgetScope::Run)).unwrap_or_default())
        .sum()
}

/// The totals of the run once each of these reservations is made, one after the other.
///
/// # Errors
/// `invalid` if a budget is in dollars and there is no price for what a unit uses.
pub(crate) fn totals(state: &RunState, workflow: &Workflow, step: &str, asked: &[(u32, Usage)], in_dollars: bool) -> Result<Vec<Spend>> {
    let step = workflow.step(step).ok_or_else(|| Error::internal(format!("the workflow has no step `{step}`")))?;
    let prices = prices_now(state, workflow, step);
    let mut total = spent_in_run(state, workflow);
    asked
        .iter()
        .map(|(_, worst)| {
            if in_dollars && prices.lack(worst) {
                return Err(no_price(workflow, step));
            }
            total = total + prices.worst(worst);
            Ok(total)
        })
        .collect()
}

/// How many of these totals of a run within this one fit the budget of this one.
pub(crate) fn allow(state: &RunState, workflow: &Workflow, step: &Step, item: u32, totals: &[Spend]) -> Granted {
    let known = known_of(state, step, item);
    let spent = spent_in_run(state, workflow);
    for (index, total) in totals.iter().enumerate() {
        for limit in limits(workflow, step, None).filter(|limit| matches!(limit.of, BudgetScope::Run)) {
            if let Err(exceeded) = limit.budget.fits(spent, total.beyond(known)) {
                return Granted { units: index, refused: Some(over_budget(step, limit.of, &exceeded.to_string())) };
            }
        }
    }
    Granted { units: totals.len(), refused: None }
}

/// What a run within this one may spend by now.
pub(crate) fn known_of(state: &RunState, step: &Step, item: u32) -> Spend {
    state.steps.get(&step.name).and_then(|done| done.inner.get(&item)).copied().unwrap_or_default()
}

/// The events that reserve the worst-case usage of units.
pub(crate) fn reserved(step: &str, units: &[(u32, Usage)]) -> Vec<Event> {
    units
        .chunk_by(|(_, a), (_, b)| a == b)
        .filter_map(|alike| {
            let worst = alike.first()?.1;
            Some(Event::UnitsReserved { step: step.to_owned(), units: alike.iter().map(|(unit, _)| *unit).collect(), worst })
        })
        .collect()
}

/// Checks that a step may begin: no budget that applies to it is exceeded yet.
///
/// # Errors
/// `budget` if one is exceeded.
pub(crate) fn may_begin(state: &RunState, workflow: &Workflow, step: &Step) -> Result<()> {
    for limit in limits(workflow, step, at_work(state, step)) {
        if let Err(exceeded) = limit.budget.fits(spent(state, workflow, step, limit.of), Spend::default()) {
            return Err(Error::new(ErrorKind::Budget, over_budget(step, limit.of, &exceeded.to_string())));
        }
    }
    Ok(())
}

/// How much of the run's budget is used, as a share of it: that of the limit of which most is used. What is only set aside does not count, so it never
/// falls. `None` without a budget.
pub(crate) fn used(state: &RunState, workflow: &Workflow) -> Option<Used> {
    let budget = workflow.budget.as_ref()?;
    let steps = state.steps.iter().filter_map(|(name, done)| Some((workflow.step(name)?, done)));
    let spent: Spend = steps
        .map(|(step, done)| {
            let taken = done.taken.iter();
            let taken = taken.map(|(name, taken)| prices_of(workflow, step, name).worst(&[taken.usage, taken.assumed].into_iter().sum()));
            taken.sum::<Spend>()
        })
        .sum();
    let percent = |used: rust_decimal::Decimal, limit: rust_decimal::Decimal| {
        let share = used.checked_mul(rust_decimal::Decimal::ONE_HUNDRED).and_then(|used| used.checked_div(limit));
        // Of a limit of nothing, all is used as soon as anything is.
        share.map_or(if used.is_zero() { 0 } else { 100 }, |share| share.try_into().unwrap_or(100))
    };
    let usd = budget.usd.map(|limit| (percent(spent.usd, limit), format!("{} of {limit} USD", spent.usd.normalize())));
    let calls = budget.calls.map(|limit| (percent(spent.calls.into(), limit.into()), format!("{} of {limit} calls", spent.calls)));
    let bytes = budget.bytes.map(|limit| (percent(spent.bytes.into(), limit.into()), format!("{} of {limit} bytes", spent.bytes)));
    let most = [usd, calls, bytes].into_iter().flatten().max_by_key(|(percent, _)| *percent);
    most.map(|(percent, what)| Used { percent, what })
}

/// How much of a budget is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    /// In percent.
    pub percent: u64,
    /// In words: `9 of 10 calls`.
    pub what: String,
}

fn over_budget(step: &Step, of: BudgetScope<'_>, what: &str) -> String {
    let whose = match of {
        BudgetScope::Run => "the run".to_owned(),
        BudgetScope::Step => format!("step `{}`", step.name),
        BudgetScope::Strategy(strategy) => format!("strategy `{}` of step `{}`", strategy.name, step.name),
    };
    format!("the budget of {whose} is {what}")
}

/// What a run has spent and reserved, as budgets count it: at worst-case prices.
pub fn spend_of(state: &RunState, workflow: &Workflow) -> Spend {
    workflow.steps.first().map(|any| spent(state, workflow, any, BudgetScope::Run)).unwrap_or_default()
}

/// What a strategy, a step or the whole run has spent and reserved.
fn spent(state: &RunState, workflow: &Workflow, step: &Step, of: BudgetScope<'_>) -> Spend {
    let steps = state.steps.iter().filter(|(name, _)| matches!(of, BudgetScope::Run) || **name == step.name);
    steps.map(|(name, done)| workflow.step(name).map(|step| spent_by(workflow, step, done, of)).unwrap_or_default()).sum()
}

fn spent_by(workflow: &Workflow, step: &Step, done: &StepState, of: BudgetScope<'_>) -> Spend {
    let counts = |name: &str| !matches!(of, BudgetScope::Strategy(strategy) if strategy.name != name);
    let prices = |name: &str| prices_of(workflow, step, name);
    let taken = done.taken.iter().filter(|(name, _)| counts(name));
    let taken = taken.map(|(name, taken)| prices(name).worst(&[taken.usage, taken.assumed].into_iter().sum()));
    let now = done.strategy_name();
    let reserved: Usage = if counts(now) { done.reserved.values().copied().sum() } else { Usage::default() };
    let inner = done.inner.values().copied().chain([done.inner_before]);
    taken.chain([prices(now).worst(&reserved)]).chain(inner).sum()
}

/// The prices that a step pays when it uses a strategy or, for other steps, its plug-in.
fn prices_of<'a>(workflow: &'a Workflow, step: &'a Step, strategy: &str) -> Prices<'a> {
    let source = match step.kind.strategies().iter().find(|known| known.name == strategy) {
        Some(strategy) => source_of(&strategy.with),
        // Without units of a strategy, only a detector asks.
        None => detector_of(workflow, step)
            .and_then(source_of)
            .or_else(|| step.kind.plugins().into_iter().find_map(|(_, _, with)| source_of(with))),
    };
    Prices::of(workflow, source)
}
