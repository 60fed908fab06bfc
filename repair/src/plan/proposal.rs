//! What an approval is about: what the repair steps after it would change, given what the run has found so far, and what that takes. Nothing is written, and
//! no source is asked, as for a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::make::{Found, Making, Planner};
use super::reach::Known;
use super::{Amount, Definition, Estimate, NotPlanned, Plan};
use repair_core::Result;
use repair_core::engine::prepare::{self, Setting};
use repair_core::engine::{RunState, findings_of};
use repair_core::model::{DefectKind, Usage};
use repair_core::text::count;
use repair_core::workflow::{AfterIf, RunIf, Step, StepKind, Variables, Wait, Workflow};

/// What the steps after an approval would change, and what that takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Proposal {
    /// The repair steps up to the next approval, in the order of the text, whose findings are known.
    pub repairs: Vec<ProposedRepair>,
    /// The steps of which it is not known yet, and why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_known: Vec<NotPlanned>,
    /// What all of these repairs take. At least, nothing, since it may depend on the run which of them it comes to.
    pub total: Estimate,
}

/// What a repair step after an approval would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProposedRepair {
    /// The step.
    pub step: String,
    /// The detect step whose findings it repairs.
    pub of: String,
    /// The table.
    pub table: String,
    /// What is wrong.
    pub kind: DefectKind,
    /// How many slots, each with at most one row to write.
    pub slots: u64,
    /// In how many gaps.
    pub gaps: u64,
    /// How many cells, if the rows are there and only cells of them are wrong.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cells: u64,
    /// Of how many keys.
    pub keys: u64,
    /// The strategies, in order. The first gets everything, and each other what is left.
    pub strategies: Vec<String>,
    /// What it takes: at least each unit of the first once with one call; at most each unit of each as often as it may be tried.
    pub estimate: Estimate,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Proposal {
    /// Slots that would be changed.
    pub fn slots(&self) -> u64 {
        self.repairs.iter().map(|repair| repair.slots).sum()
    }

    /// What it says, a line for each step.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.repairs.iter().map(ToString::to_string).collect();
        lines.extend(self.not_known.iter().map(|step| format!("{}: {}", step.step, step.why)));
        if lines.is_empty() {
            lines.push("no repair step follows".to_owned());
        }
        lines
    }
}

impl fmt::Display for ProposedRepair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, table, kind, slots, gaps, cells, keys, strategies, estimate, .. } = self;
        write!(f, "{step}: {} of table {table} {} {}", count(*slots, "slot"), if *slots == 1 { "is" } else { "are" }, kind.as_str())?;
        if *cells > 0 {
            write!(f, " in {}", count(*cells, "cell"))?;
        }
        if *slots > 0 {
            write!(f, ", in {} of {}", count(*gaps, "gap"), count(*keys, "key"))?;
        }
        write!(f, "; by {}; {estimate}", strategies.join(", then "))
    }
}

/// `3 to 12 calls, 1 query, USD 0.01 to 0.04`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high } = self;
        let mut parts = vec![range(low.calls, high.calls, "call", "calls")];
        if high.queries > 0 {
            parts.push(range(low.queries, high.queries, "query", "queries"));
        }
        parts.push(match (low.usd, high.usd) {
            (Some(low), Some(high)) if low == high => format!("USD {high}"),
            (Some(low), Some(high)) => format!("USD {low} to {high}"),
            (_, Some(high)) => format!("at most USD {high}"),
            _ if high.calls == 0 && high.queries == 0 => return write!(f, "{}", parts.join(", ")),
            _ => "the price is not known".to_owned(),
        });
        write!(f, "{}", parts.join(", "))
    }
}

fn range(low: u64, high: u64, one: &str, many: &str) -> String {
    let what = if high == 1 { one } else { many };
    if low == high { format!("{high} {what}") } else { format!("{low} to {high} {what}") }
}

/// Whether a step waits for an approval.
pub(crate) fn is_approval(step: &Step) -> bool {
    matches!(&step.kind, StepKind::Wait(Wait::Sensor(wait)) if wait.plugin == "approval")
}

/// The steps to which a run may come from a step that succeeds, without passing another approval. In order of name.
fn following(workflow: &Workflow, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending = after(workflow, from, true);
    while let Some(name) = pending.pop() {
        let Some(step) = workflow.step(&name).filter(|step| !is_approval(step)) else { continue };
        if found.insert(name.clone()) {
            pending.extend(after(workflow, &step.name, false));
        }
    }
    found
}

/// The steps that may come directly after a step; only those after it has succeeded, if that is asked for.
fn after(workflow: &Workflow, name: &str, succeeded: bool) -> Vec<String> {
    let Some(step) = workflow.step(name) else { return Vec::new() };
    let mut next: Vec<String> = step.next.iter().map(|branch| branch.goto.clone()).collect();
    if !succeeded {
        next.extend(step.catch.iter().map(|rule| rule.goto.clone()));
    }
    if let StepKind::Parallel { branches } = &step.kind {
        next.extend(branches.iter().map(|branch| branch.start.clone()));
    }
    // When the branches have ended, the parallel step goes on.
    if let Some(inside) = &step.inside
        && let Some(outer) = workflow.step(&inside.step)
    {
        next.extend(outer.next.iter().map(|branch| branch.goto.clone()));
    }
    let is_next = |other: &&Step| {
        let Some(at) = other.after.iter().position(|before| before == name) else { return false };
        !succeeded
            || match other.after_if.get(at) {
                Some(wanted) => !matches!(wanted, AfterIf::Failed | AfterIf::Skipped),
                None => other.run_if != RunIf::AnyFailed,
            }
    };
    next.extend(workflow.steps.iter().filter(is_next).map(|other| other.name.clone()));
    next
}

impl Planner {
    /// What the steps after an approval would change, given what a run has found so far. Nothing is written, and no source is asked.
    ///
    /// # Errors
    /// If findings of the run cannot be read, or a step that follows cannot be made ready.
    pub async fn propose(&self, workflow: &Workflow, run: &str, state: &RunState, approval: &str) -> Result<Proposal> {
        let started = &state.started;
        let variables = Variables::at_start(&started.params, started.at, started.now).with_items(workflow.items.clone());
        let setting = Setting {
            run: run.into(),
            now: started.now,
            turn: started.turn,
            lake: self.lake.clone(),
            lakes: self.lakes.clone(),
            clock: self.clock.clone(),
            cancel: self.stop.clone(),
            progress: self.progress.clone(),
        };
        let context = prepare::shared_context(&self.registry, workflow, &variables, setting)?;
        let mut known = Known::new(variables);
        for (name, step) in state.steps.iter().filter(|(_, step)| !step.output.is_null()) {
            known.add(name, step.output.clone());
        }
        let following = following(workflow, approval);
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for step in workflow.steps.iter().filter(|step| following.contains(&step.name)) {
            let StepKind::Repair { of, .. } = &step.kind else { continue };
            if let (false, Some(record)) = (found.contains_key(of), state.findings.get(of)) {
                let findings = findings_of(self.lake.as_ref(), run, record).await.map_err(|error| error.on("step", of))?;
                // A lake that is queried answers the reads of repairs by queries, too.
                let usage = Usage { queries: u64::from(self.lake.is_queried()), ..Usage::default() };
                found.insert(of.clone(), Found { findings, usage, bytes: 0 });
            }
        }
        let plan = Plan { params: started.params.clone(), ..empty(workflow, state) };
        let mut making = Making::of(self, workflow, context, known, found, plan);
        for step in workflow.steps.iter().filter(|step| following.contains(&step.name)) {
            self.check_stop()?;
            match &step.kind {
                StepKind::Repair { of, .. } => making.repair(step, of).await.map_err(|error| error.on("step", &step.name))?,
                StepKind::Workflow { name, .. } => making.not_counted(step, format!("it runs `{name}` as a run of its own")),
                StepKind::Map(_) => making.not_counted(step, "it runs its steps for each item, as runs of their own".to_owned()),
                _ => {}
            }
        }
        Ok(making.proposal())
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(repair_core::Error::new(repair_core::ErrorKind::Cancelled, "it was stopped while it looked at what follows"));
        }
        Ok(())
    }
}

/// A plan to which repairs are added. Nobody will apply it, so it has nothing that a run would need.
fn empty(workflow: &Workflow, state: &RunState) -> Plan {
    let definition = Definition {
        workflow: workflow.name.clone(),
        file: workflow.file.clone(),
        text: String::new(),
        children: BTreeMap::new(),
        prices: None,
    };
    Plan::of_nothing(definition, state.updated_at, state.started.now)
}

impl Making<'_> {
    /// What was planned of repairs.
    fn proposal(self) -> Proposal {
        let zero = Amount { usd: self.workflow.prices.as_ref().map(|_| Decimal::ZERO), ..Amount::default() };
        let mut proposal = Proposal { repairs: Vec::new(), not_known: self.plan.not_planned, total: Estimate { low: zero, high: zero } };
        for planned in self.plan.repairs {
            let Some(Found { findings, .. }) = self.found.get(&planned.of) else { continue };
            let mut estimate = Estimate { low: zero, high: zero };
            planned.strategies.iter().for_each(|strategy| estimate += strategy.estimate);
            proposal.total.high += estimate.high;
            proposal.repairs.push(ProposedRepair {
                step: planned.step,
                of: planned.of,
                table: planned.table,
                kind: findings.kind,
                slots: findings.gaps.missing(),
                gaps: findings.gaps.len() as u64,
                cells: findings.cells.len(),
                keys: findings.gaps.by_key().len() as u64,
                strategies: planned.strategies.into_iter().map(|strategy| strategy.name).collect(),
                estimate,
            });
        }
        proposal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repair_core::plugin::Registry;

    fn names(text: &str, from: &str) -> Vec<String> {
        let workflow = Workflow::parse("w.yaml", text, &Registry::default()).unwrap_or_else(|error| panic!("{error}"));
        following(&workflow, from).into_iter().collect()
    }

    #[test]
    fn what_follows_an_approval_ends_at_the_next_and_leaves_out_what_is_done_after_a_rejection() {
        let head = "workflow: w\ntables: { t: { location: t, format: csv, time: ts, cadence: 1h } }\n";
        let look = "{ detect: gaps, with: { table: t, from: 2024-03-04, to: 2024-03-04 }";
        let machine = format!(
            "{head}kind: state-machine\nstart: look\nsteps:\n  look: {look}, next: ask }}\n  ask: {{ wait: {{ until: {{ approval: a }} }}, catch: [{{ on: denied, \
             goto: rejected }}], next: fill }}\n  fill: {{ repair: carry-forward, of: look, next: check, catch: [{{ on: any, goto: other }}] }}\n  other: {{ repair: interpolate, of: look, next: check }}\n  \
             check: {{ verify: look, next: again }}\n  again: {{ wait: {{ until: {{ approval: b }} }}, next: last }}\n  last: {{ repair: interpolate, of: look, end: true }}\n  \
             rejected: {{ fail: no }}\n"
        );
        assert_eq!(names(&machine, "ask"), ["check", "fill", "other"]);
        assert_eq!(names(&machine, "again"), ["last"]);
        let dag = format!(
            "{head}kind: dag\nsteps:\n  look: {look} }}\n  ask: {{ after: [look], wait: {{ until: {{ approval: a }} }} }}\n  fill: {{ after: [ask], repair: carry-forward, of: look }}\n  \
             no: {{ after: {{ ask: failed }}, repair: interpolate, of: look }}\n  check: {{ after: [fill], verify: look }}\n"
        );
        assert_eq!(names(&dag, "ask"), ["check", "fill"]);
    }

    #[test]
    fn what_it_takes_is_said_in_words() {
        let amount = |calls, usd: Option<&str>| Amount { calls, usd: usd.map(|usd| usd.parse().unwrap()), ..Amount::default() };
        let said = |low, high| Estimate { low, high }.to_string();
        assert_eq!(said(amount(3, Some("0.01")), amount(12, Some("0.04"))), "3 to 12 calls, USD 0.01 to 0.04");
        assert_eq!(said(amount(1, Some("0.01")), amount(1, Some("0.01"))), "1 call, USD 0.01");
        assert_eq!(said(amount(0, None), amount(2, None)), "0 to 2 calls, the price is not known");
        assert_eq!(said(amount(0, None), amount(0, None)), "0 calls");
        assert_eq!(said(amount(0, Some("0")), amount(0, Some("0"))), "0 calls, USD 0");
    }
}
