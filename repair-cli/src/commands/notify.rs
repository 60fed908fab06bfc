//! `repair notify`, and what is left to deliver when a command ends that drove a run

use std::path::PathBuf;

use clap::Args;
use repair::notify::{Notifications, PATIENCE, Settled};
use repair::{Error, Workflow};

use crate::exit::Exit;
use crate::open::LakeArg;
use crate::output::{Failure, count, print_json, print_lines};

/// Send a test message to everybody whom a workflow notifies, or deliver messages that earlier runs have left.
///
/// The workflow's `notify` says who hears of its runs, and of what. Messages are sent beside a run, which waits for nobody. What could not be
/// delivered within 10 s after a run is sent with the next run of the workflow, or by `repair notify --pending`, for 7 days.
#[derive(Debug, Args)]
pub(crate) struct Notify {
    /// The workflow.
    #[arg(required_unless_present = "pending", conflicts_with = "pending")]
    file: Option<PathBuf>,
    /// Send a test message to each, and show what came of it.
    #[arg(long, conflicts_with = "pending", required_unless_present = "pending")]
    test: bool,
    /// Deliver what is left of all runs of the lake that nobody drives.
    #[arg(long)]
    pending: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Notify {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let notifications = Notifications::new();
        let Some(file) = self.file else {
            let settled = self.lake.open(lake_before)?.deliver_pending(&notifications, PATIENCE).await?;
            if self.json {
                print_json(&settled)?;
            } else {
                let mut lines = vec![format!("delivered {}", count(settled.delivered, "message"))];
                lines.extend(lines_of(&settled));
                print_lines(&lines)?;
            }
            return Ok(if settled.left.iter().any(|left| left.error.is_some()) { Exit::Failed } else { Exit::Success });
        };
        let workflow = Workflow::load(&file, &repair::registry()).map_err(Error::from)?;
        let tests = notifications.test(&workflow).await?;
        let has_failed = tests.tested.iter().any(|tested| tested.error.is_some());
        if self.json {
            print_json(&tests)?;
        } else {
            let line = |tested: &repair::notify::Tested| match &tested.error {
                None => format!("{} ({}): delivered", tested.to, tested.kind),
                Some(error) => format!("{} ({}): failed: {error}", tested.to, tested.kind),
            };
            print_lines(&tests.tested.iter().map(line).collect::<Vec<_>>())?;
        }
        Ok(if has_failed { Exit::Failed } else { Exit::Success })
    }
}

fn lines_of(settled: &Settled) -> Vec<String> {
    let line = |left: &repair::notify::Left| {
        let what = count(left.messages as u64, "message");
        let why = match (&left.error, left.due) {
            (Some(error), _) => format!(": {error}"),
            (None, Some(due)) => format!(": gathered until {due:.0}"),
            (None, None) => ": no answer yet".to_owned(),
        };
        format!("notify: {what} about run {} left for `{}`{why}", left.run, left.to)
    };
    settled.left.iter().map(line).collect()
}

/// Waits for receivers after a run, and says on standard error what is left. It changes nothing about how the command ends.
pub(crate) async fn settle(notifications: &Notifications) {
    let settled = notifications.settle(PATIENCE).await;
    for line in lines_of(&settled) {
        anstream::eprintln!("{line}");
    }
    if settled.left.iter().any(|left| left.error.is_some()) {
        anstream::eprintln!("notify: the next run of the workflow sends what is left, or `repair notify --pending`");
    }
}
