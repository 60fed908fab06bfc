//! What a run has spent and set aside, and whether more fits. Pure.
//!
//! A unit of a repair step starts only when what it takes at worst is set aside, in the journal. When it ends, what it really took takes
//! that place; of one that failed, or whose end a crash has hidden, what was set aside counts as spent. So a budget in calls or dollars of
//! calls is not passed, whatever happens. Of other work, what it reads is known only when it ends: the next step does not begin over budget.

use super::event::Event;
use super::state::{RunState, StepState};
use crate::cost::{Budget, CallPrice, Spend, Usage};
use crate::error::{Error, ErrorKind, Result};
use crate::workflow::{Step, StepKind, Template, Workflow};

/// What was set aside of what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// How many units, the first of those that were asked for.
    pub units: usize,
    /// Why not the next one.
    pub refused: Option<String>,
}

/// The budgets that a step is under, each with whether it is the run's.
pub fn limits<'a>(workflow: &'a Workflow, step: &'a Step) -> impl Iterator<Item = (&'a Budget, bool)> {
    let own = match &step.kind {
        StepKind::Repair { budget, .. } => budget.as_ref(),
        _ => None,
    };
    workflow.budget.as_ref().map(|budget| (budget, true)).into_iter().chain(own.map(|budget| (budget, false)))
}

/// How many of these units fit into the budgets of a step, beside all that is spent and set aside.
///
/// # Errors
/// `invalid` if there is a limit in dollars and the price book has no price for what a unit takes.
pub fn grant(state: &RunState, workflow: &Workflow, step: &str, asked: &[(u32, Usage)]) -> Result<Granted> {
    let step = workflow.step(step).ok_or_else(|| Error::internal(format!("the workflow has no step `{step}`")))?;
    let mut limits: Vec<(&Budget, bool, Spend)> =
        limits(workflow, step).map(|(budget, whole)| (budget, whole, spent(state, workflow, step, whole))).collect();
    let in_dollars = limits.iter().any(|(budget, _, _)| budget.usd.is_some());
    for (index, (_, worst)) in asked.iter().enumerate() {
        if in_dollars && worst.source_requests > 0 && call_price(workflow, step).is_none() {
            let known = workflow.prices.as_ref().map_or("--prices", |book| book.file.as_str());
            let message = format!("the price book {known} has no price for the source of step `{}`; add it under `sources`", step.name);
            return Err(Error::invalid(message));
        }
        let more = price(workflow, step, worst);
        for (budget, whole, spent) in &limits {
            if let Err(exceeded) = budget.fits(*spent, more) {
                let up_to = if more.calls > 1 { format!(", and a unit takes up to {} calls", more.calls) } else { String::new() };
                return Ok(Granted { units: index, refused: Some(format!("{}{up_to}", told(step, *whole, &exceeded.to_string()))) });
            }
        }
        limits.iter_mut().for_each(|(_, _, spent)| *spent = *spent + more);
    }
    Ok(Granted { units: asked.len(), refused: None })
}

/// The events that set aside what units take at worst.
pub fn reserved(step: &str, units: &[(u32, Usage)]) -> Vec<Event> {
    units
        .chunk_by(|(_, a), (_, b)| a == b)
        .filter_map(|alike| {
            let worst = alike.first()?.1;
            Some(Event::UnitsReserved { step: step.to_owned(), units: alike.iter().map(|(unit, _)| *unit).collect(), worst })
        })
        .collect()
}

/// Whether a step may begin: not if a budget it is under is passed already.
///
/// # Errors
/// `budget`.
pub fn may_begin(state: &RunState, workflow: &Workflow, step: &Step) -> Result<()> {
    for (budget, whole) in limits(workflow, step) {
        if let Err(exceeded) = budget.fits(spent(state, workflow, step, whole), Spend::default()) {
            return Err(Error::new(ErrorKind::Budget, told(step, whole, &exceeded.to_string())));
        }
    }
    Ok(())
}

fn told(step: &Step, whole: bool, what: &str) -> String {
    let whose = if whole { "the run".to_owned() } else { format!("step `{}`", step.name) };
    format!("the budget of {whose} is {what}")
}

/// What a step, or the whole run, has spent and set aside.
fn spent(state: &RunState, workflow: &Workflow, step: &Step, whole: bool) -> Spend {
    let of = |name: &str, done: &StepState| {
        let usage = [done.usage, done.assumed].into_iter().chain(done.reserved.values().copied()).sum();
        workflow.step(name).map(|step| price(workflow, step, &usage)).unwrap_or_default()
    };
    state.steps.iter().filter(|(name, _)| whole || **name == step.name).map(|(name, done)| of(name, done)).sum()
}

/// What a step's usage comes to, at worst.
fn price(workflow: &Workflow, step: &Step, usage: &Usage) -> Spend {
    let calls = call_price(workflow, step).map(|price| price.worst() * rust_decimal::Decimal::from(usage.source_requests));
    let usd = workflow.prices.as_ref().map(|book| book.worst(usage)).unwrap_or_default() + calls.unwrap_or_default();
    Spend { usd, calls: usage.source_requests, bytes: usage.bytes_scanned }
}

/// What a call costs that a step makes.
pub(crate) fn call_price<'a>(workflow: &'a Workflow, step: &Step) -> Option<&'a CallPrice> {
    let source = source_of(step)?;
    let plugin = workflow.sources.get(&source).map(|used| used.plugin.as_str());
    workflow.prices.as_ref()?.calls(std::iter::once(source.as_str()).chain(plugin))
}

/// The source that a step's configuration names, if it does so in plain words.
pub(crate) fn source_of(step: &Step) -> Option<String> {
    let (_, _, with) = step.kind.plugin()?;
    let source = match with {
        Template::Value(with) => with.get("source"),
        Template::Map(entries) => entries.iter().find_map(|(key, value)| match value {
            Template::Value(value) if key == "source" => Some(value),
            _ => None,
        }),
        Template::Computed(_) | Template::List(_) => None,
    };
    source.and_then(serde_json::Value::as_str).map(str::to_owned)
}
