//! What people and other systems say to a run: that something happened, and whether it may go on.

use jiff::Timestamp;
use repair_core::engine::{JsonFormat, RunState};
use repair_core::lake::said::{Decision, Happened};
use repair_core::workflow::{StepKind, Template, Variables, Wait};
use repair_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::Value;

use crate::open::OpenLake;
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
        Ok(Said { format: JsonFormat, run: run.to_owned(), about: event.to_owned(), approved: None, by: by.clone(), at })
    }

    /// The approvals that a run waits for now.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `invalid` if its definition cannot be read.
    pub async fn awaited_approvals(&self, run: &str) -> Result<Vec<AwaitedApproval>> {
        let state = self.state(run).await?;
        if state.ended.is_some() {
            return Ok(Vec::new());
        }
        let workflow = self.workflow_of(&state)?;
        let mut awaited = Vec::new();
        for (name, position) in &state.active {
            let Some(StepKind::Wait(Wait::Sensor(wait))) = workflow.step(name).map(|step| &step.kind) else { continue };
            if wait.plugin != "approval" {
                continue;
            }
            let message = match &wait.with {
                Template::Value(with) => with.get("message").and_then(Value::as_str).map(str::to_owned),
                other => other
                    .resolve(&Variables::default().with_items(workflow.items.clone()))
                    .ok()
                    .and_then(|with| Some(with.get("message")?.as_str()?.to_owned())),
            };
            awaited.push(AwaitedApproval { step: name.clone(), visit: position.visit, attempt: position.attempt, message });
        }
        Ok(awaited)
    }

    /// Approves or rejects what a run waits for. The step need be named only if several wait.
    ///
    /// # Errors
    /// `not-found` if there is no such run; `conflict` if it waits for no approval, or for several and none is named; those of the lake.
    pub async fn decide(&self, run: &str, step: Option<&str>, approved: bool, by: Option<&str>, reason: Option<String>) -> Result<Said> {
        let state = self.state(run).await?;
        refuse_ended(run, state.ended.is_some())?;
        let at = now(&state);
        let mut awaited = self.awaited_approvals(run).await?;
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
        Decision::new(approved, one.attempt, by.as_str(), at, reason).say(lake.as_ref(), run, &one.step, one.visit).await?;
        Ok(Said { format: JsonFormat, run: run.to_owned(), about: one.step.clone(), approved: Some(approved), by: by.clone(), at })
    }

    async fn lake_of_run(&self, run: &str) -> Result<std::sync::Arc<dyn repair_core::lake::Lake>> {
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
