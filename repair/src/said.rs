//! What people and other systems say to a run: that something happened, and whether it may go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use repair_core::engine::{JsonFormat, RunState};
use repair_core::lake::said::{Decision, Happened};
use repair_core::workflow::{StepKind, Template, Variables, Wait, Workflow};
use repair_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::Value;

use crate::open::OpenLake;
use crate::plan::{Planner, Proposal, is_approval};
use crate::provenance::user;

/// An approval that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AwaitedApproval {
    /// The step.
    pub step: String,
    /// Which visit of it.
    pub visit: u32,
    /// Which attempt of the visit, from 1. After a rejection, a redrive is another one.
    pub attempt: u32,
    /// What is to be approved; `None` if it is computed.
    pub message: Option<String>,
    /// What the steps that follow would change, by what was found so far, and what that takes; `None` if it cannot be said now.
    pub proposal: Option<Arc<Proposal>>,
    /// Why it cannot be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_proposed: Option<String>,
}

/// The approvals that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AwaitedApprovals {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The run.
    pub run: String,
    /// The approvals, by name of their step.
    pub approvals: Vec<AwaitedApproval>,
}

impl AwaitedApproval {
    /// What is proposed, a line for each step; or that it cannot be said, and why.
    pub fn lines(&self) -> Vec<String> {
        match (&self.proposal, &self.not_proposed) {
            (Some(proposal), _) => proposal.lines(),
            (None, Some(why)) => vec![format!("what the steps that follow would change is not known: {why}")],
            (None, None) => Vec::new(),
        }
    }
}

/// How many proposals are kept in memory.
const MOST_KEPT: usize = 16;

/// Proposals that were made, by the run, the step, and the findings that they rest on: whoever looks again and again at a run that waits need not read them
/// anew.
#[derive(Debug, Default)]
pub(crate) struct Proposals(Mutex<BTreeMap<String, Arc<Proposal>>>);

impl Proposals {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Proposal>>> {
        // Nothing that panics runs under the lock, so a poisoned one is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, key: String, proposal: &Arc<Proposal>) {
        let mut known = self.known();
        while known.len() >= MOST_KEPT {
            known.pop_first();
        }
        known.insert(key, proposal.clone());
    }
}

/// What was said to a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Said {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The run.
    pub run: String,
    /// The event, or the step that waits for the approval.
    pub about: String,
    /// Whether an approval was given; `None` for an event.
    pub approved: Option<bool>,
    /// Who said it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What was approved or rejected; `None` for an event, and if it could not be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Arc<Proposal>>,
}

impl OpenLake {
    /// Says to a run that something happened. A step that waits for the event goes on with `payload`, now or when the run gets there.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `conflict` if it has ended; those of the lake.
    pub async fn signal(&self, run: &str, event: &str, by: Option<&str>, payload: Value) -> Result<Said> {
        let state = self.state(run).await?;
        refuse_ended(run, state.ended.is_some())?;
        let at = now(&state);
        if event.trim().is_empty() {
            return Err(Error::invalid("the name of the event is empty"));
        }
        let by = &who(by);
        let lake = self.lake_of_run(run).await?;
        Happened::new(by.as_str(), at, payload).say(lake.as_ref(), run, event).await?;
        Ok(Said { format: JsonFormat, run: run.to_owned(), about: event.to_owned(), approved: None, by: by.clone(), at, proposal: None })
    }

    /// The approvals that a run waits for now, each with what the steps that follow it would change, and what that takes.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `invalid` if its definition cannot be read.
    pub async fn awaited_approvals(&self, run: &str) -> Result<AwaitedApprovals> {
        let state = self.state(run).await?;
        let all = |approvals| AwaitedApprovals { format: JsonFormat, run: run.to_owned(), approvals };
        if state.ended.is_some() {
            return Ok(all(Vec::new()));
        }
        let workflow = self.workflow_of(&state)?;
        let mut awaited = Vec::new();
        for (name, position) in &state.active {
            let Some(step) = workflow.step(name).filter(|step| is_approval(step)) else { continue };
            let StepKind::Wait(Wait::Sensor(wait)) = &step.kind else { continue };
            let message = match &wait.with {
                Template::Value(with) => with.get("message").and_then(Value::as_str).map(str::to_owned),
                other => other
                    .resolve(&Variables::default().with_items(workflow.items.clone()))
                    .ok()
                    .and_then(|with| Some(with.get("message")?.as_str()?.to_owned())),
            };
            let (proposal, not_proposed) = match self.proposal(run, &state, &workflow, name).await {
                Ok(proposal) => (Some(proposal), None),
                Err(error) => (None, Some(error.full())),
            };
            let (step, visit, attempt) = (name.clone(), position.visit, position.attempt);
            awaited.push(AwaitedApproval { step, visit, attempt, message, proposal, not_proposed });
        }
        Ok(all(awaited))
    }

    /// What the steps after an approval would change, and what that takes.
    async fn proposal(&self, run: &str, state: &RunState, workflow: &Workflow, step: &str) -> Result<Arc<Proposal>> {
        // While the run waits, only new findings change what is proposed.
        let rests_on = state.findings.iter().map(|(of, record)| (of, &record.artifact)).collect::<Vec<_>>();
        let key = format!("{run}\n{step}\n{}\n{rests_on:?}", state.started.definition.len());
        if let Some(known) = self.around.proposals.known().get(&key) {
            return Ok(known.clone());
        }
        let planner = Planner {
            registry: self.around.registry.clone(),
            lake: self.lake_of_run(run).await?,
            lakes: self.lakes_of_run(self.journal().await?.as_ref(), run, None).await?,
            clock: self.around.clock.clone(),
            progress: Arc::new(()),
            stop: self.around.stop.clone(),
        };
        let proposal = Arc::new(Box::pin(planner.propose(workflow, run, state, step)).await?);
        self.around.proposals.keep(key, &proposal);
        Ok(proposal)
    }

    /// Approves or rejects what a run waits for. The step need be named only if several wait.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `conflict` if it waits for no approval, for several and none is named, or if it was decided already; those of the
    /// lake.
    pub async fn decide(&self, run: &str, step: Option<&str>, approved: bool, by: Option<&str>, reason: Option<String>) -> Result<Said> {
        let state = self.state(run).await?;
        refuse_ended(run, state.ended.is_some())?;
        let at = now(&state);
        let mut awaited = self.awaited_approvals(run).await?.approvals;
        awaited.retain(|awaited| step.is_none_or(|step| awaited.step == step));
        let conflict = |message: String| Err(Error::new(ErrorKind::Conflict, message));
        let one = match awaited.as_slice() {
            [one] => one,
            [] => {
                let which = step.map(|step| format!(" at step `{step}`")).unwrap_or_default();
                return conflict(format!("run `{run}` waits for no approval{which} now"));
            }
            several => {
                let names: Vec<String> = several.iter().map(|one| format!("`{}`", one.step)).collect();
                return conflict(format!("run `{run}` waits for several approvals, at {}; name the step", names.join(", ")));
            }
        };
        let by = &who(by);
        let lake = self.lake_of_run(run).await?;
        // The run may not have looked yet; whoever decided first was answered that it counts.
        if let Some(first) = Decision::read(lake.as_ref(), run, &one.step, one.visit).await?.filter(|first| first.answers(one.attempt)) {
            let word = if first.approved { "approved" } else { "rejected" };
            return conflict(format!(
                "step `{}` of run `{run}` was {word} by {} at {:.0}, and the first decision counts",
                one.step, first.by, first.at
            ));
        }
        let proposed = one.proposal.as_ref().and_then(|proposal| serde_json::to_value(proposal).ok()).unwrap_or_default();
        let decision = Decision::new(approved, one.attempt, by.as_str(), at, reason).about(proposed);
        decision.say(lake.as_ref(), run, &one.step, one.visit).await?;
        let (about, proposal) = (one.step.clone(), one.proposal.clone());
        Ok(Said { format: JsonFormat, run: run.to_owned(), about, approved: Some(approved), by: by.clone(), at, proposal })
    }

    async fn lake_of_run(&self, run: &str) -> Result<Arc<dyn repair_core::lake::Lake>> {
        let journal = self.journal().await?;
        self.lake_of(Some((journal.as_ref(), run))).await
    }
}

/// When it is said. The clock of this machine may be behind that of the machine which drives the run, and what is said now comes after all that has happened.
fn now(state: &RunState) -> Timestamp {
    Timestamp::now().max(state.updated_at)
}

/// Who says it: the given name, or the user of this process.
fn who(given: Option<&str>) -> String {
    given.map(str::to_owned).filter(|name| !name.trim().is_empty()).unwrap_or_else(user)
}

fn refuse_ended(run: &str, has_ended: bool) -> Result<()> {
    if has_ended { Err(Error::new(ErrorKind::Conflict, format!("run `{run}` has ended; nothing waits there any more"))) } else { Ok(()) }
}
