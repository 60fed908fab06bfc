//! `repair apply`

use std::path::PathBuf;

use clap::Args;
use repair::Repair;
use repair::notify::Notifications;

use super::notify::settle;
use super::run::{finish, run_id};
use crate::exit::Exit;
use crate::format::FormatArg;
use crate::open::LakeArg;
use crate::output::Failure;

/// Do what a plan says, or refuse if the plan is out of date.
///
/// It is refused, with exit code 6 and before anything is written, if the workflow means something else now, or if other slots are missing than
/// when it was planned. Applying a plan again reports the same run.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The plan, as `repair plan -o` wrote it.
    plan: PathBuf,
    /// The run's id [default: one that follows from the plan].
    #[arg(long, visible_alias = "run", value_name = "ID", value_parser = run_id)]
    run_id: Option<String>,
    /// Begin although a budget cannot be met: the run does what the budget allows, and ends as over budget.
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    pub(crate) format: FormatArg,
    #[command(flatten)]
    lake: LakeArg,
}

impl Apply {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let plan = repair::plan::Plan::read(&self.plan)?;
        let format = self.format.get();
        let notifications = Notifications::new();
        let opening = Repair::planned(plan.clone()).notify(&notifications);
        let repair = self.lake.opening(format, lake_before, opening).connect().await?;
        let done = repair.apply(&plan).id(self.run_id.as_deref()).anyway(self.anyway).await;
        settle(&notifications).await;
        finish(&done?, format, None)
    }
}
