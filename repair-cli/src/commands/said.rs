//! `repair signal`, `approve` and `reject`

use std::path::PathBuf;

use clap::Args;
use repair::Error;
use repair::said::{AwaitedApproval, AwaitedApprovals, Said};

use crate::exit::Exit;
use crate::open::{LakeArg, run_meant};
use crate::output::{Failure, print, print_json};

/// `repair signal`
#[derive(Debug, Args)]
pub(crate) struct Signal {
    /// The run's id or the beginning of it (see `repair runs`), or `last`.
    run: String,
    /// The event, as the workflow names it under `wait: { until: { event: … } }`.
    event: String,
    /// What to say with it, as JSON; later steps see it as `$output.payload`.
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Who says it; by default, who is logged in.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Signal {
    pub(crate) async fn run(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let payload = match self.payload.as_deref().map(serde_json::from_str) {
            None => serde_json::Value::Null,
            Some(Ok(payload)) => payload,
            Some(Err(error)) => return Err(Error::invalid("`--payload` is not JSON; text needs quotes of its own").because(error).into()),
        };
        let lake = self.lake.open(lake_before)?;
        let run = run_meant(&lake, self.run).await?;
        said(&lake.signal(&run, &self.event, self.by.as_deref(), payload).await?, self.json)
    }
}

/// `repair approve` and `repair reject`
#[derive(Debug, Args)]
pub(crate) struct Decide {
    /// The run's id or the beginning of it (see `repair runs`), or `last`.
    run: String,
    /// The step that waits, if several do.
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Why; it is kept with the decision.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who decides; by default, who is logged in.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Decide nothing, and show what the run waits for: what the steps that follow would change, and what that takes.
    #[arg(long, conflicts_with_all = ["reason", "by"])]
    list: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Decide {
    pub(crate) async fn run(self, approved: bool, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let lake = self.lake.open(lake_before)?;
        let run = run_meant(&lake, self.run).await?;
        if self.list {
            let mut awaited = lake.awaited_approvals(&run).await?;
            awaited.approvals.retain(|approval| self.step.as_ref().is_none_or(|step| approval.step == *step));
            match (self.json, awaited.approvals.is_empty()) {
                (true, _) => print_json(&awaited)?,
                (false, true) => print(&format!("run {run} waits for no approval now"))?,
                (false, false) => print(&waits(&awaited))?,
            }
            return Ok(Exit::Success);
        }
        said(&lake.decide(&run, self.step.as_deref(), approved, self.by.as_deref(), self.reason).await?, self.json)
    }
}

/// What a run waits for, a paragraph for each approval.
pub(super) fn waits(awaited: &AwaitedApprovals) -> String {
    let of = |approval: &AwaitedApproval| {
        let about = approval.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        let lines: String = approval.lines().iter().map(|line| format!("\n  {line}")).collect();
        format!("step {} waits for an approval{about}{lines}", approval.step)
    };
    awaited.approvals.iter().map(of).collect::<Vec<_>>().join("\n")
}

fn said(said: &Said, json: bool) -> Result<Exit, Failure> {
    if json {
        print_json(said)?;
    } else {
        let Said { run, about, by, .. } = said;
        let what = match said.approved {
            Some(true) => format!("{by} has approved step {about}"),
            Some(false) => format!("{by} has rejected step {about}"),
            None => format!("{by} has said that {about} happened"),
        };
        let lines: String = said.proposal.iter().flat_map(|proposal| proposal.lines()).map(|line| format!("\n  {line}")).collect();
        print(&format!("{what} of run {run}; it goes on when it next looks, if it is being driven{lines}"))?;
    }
    Ok(Exit::Success)
}
