//! `repair run`, `resume`, `redrive`, `cancel` and `pause`

use std::path::PathBuf;

use clap::Args;
use repair::RunReport;
use repair::notify::Notifications;
use repair::run::StopReport;

use super::notify::settle;
use crate::exit::{Exit, FailOn};
use crate::format::{Format, FormatArg, problems};
use crate::open::{LakeArg, WorkflowArgs, run_meant};
use crate::output::{Failure, print, print_json, print_json_line, report};

/// Run a workflow.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    workflow: WorkflowArgs,
    /// The run's id. If a run with this id was started with the same input, it is continued [default: a new id].
    #[arg(long, value_name = "ID", value_parser = run_id)]
    run_id: Option<String>,
    /// Exit with 8 if the run reaches its end, but not without exceptions (or problems).
    #[arg(long, value_enum, value_name = "LEVEL")]
    fail_on: Option<FailOn>,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// Reads the id of a run. Ids are used in file names and on command lines, where a leading dash would make them options. The engine checks
/// the rest of the id.
pub(super) fn run_id(text: &str) -> Result<String, String> {
    if text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err("a run's id must begin with a letter or digit, followed by letters, digits, `-` and `_`".to_owned())
    }
}

impl Run {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let format = self.format.get();
        let notifications = Notifications::new();
        let repair = self.workflow.open_to_run(format, lake_before, &notifications).await?;
        let done = repair.run().id(self.run_id.as_deref()).await;
        settle(&notifications).await;
        finish(&done?, format, self.fail_on)
    }
}

/// `repair resume` and `repair redrive`
#[derive(Debug, Args)]
pub(crate) struct Continue {
    /// The run's id or the beginning of it (see `repair runs`), or `last`.
    run: String,
    /// A corrected workflow to continue with, instead of the one that the run started with. It is refused if what the run already did would
    /// mean something else.
    #[arg(long = "with", value_name = "FILE")]
    corrected: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: FormatArg,
    #[command(flatten)]
    lake: LakeArg,
}

impl Continue {
    pub(crate) async fn resume(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let format = self.format.get();
        let notifications = Notifications::new();
        let lake = self.lake.open_for(format, lake_before)?.notify(&notifications);
        let run = run_meant(&lake, self.run).await?;
        let done = lake.resume(run).with_file(self.corrected.as_deref()).await;
        settle(&notifications).await;
        finish(&done?, format, None)
    }

    pub(crate) async fn redrive(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let format = self.format.get();
        let notifications = Notifications::new();
        let lake = self.lake.open_for(format, lake_before)?.notify(&notifications);
        let run = run_meant(&lake, self.run).await?;
        let done = lake.redrive(run).with_file(self.corrected.as_deref()).await;
        settle(&notifications).await;
        finish(&done?, format, None)
    }
}

/// `repair cancel` and `repair pause`
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The run's id or the beginning of it (see `repair runs`), or `last`.
    run: String,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Stop {
    pub(crate) async fn cancel(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let notifications = Notifications::new();
        let lake = self.lake.open(lake_before)?.notify(&notifications);
        let run = run_meant(&lake, self.run).await?;
        // A run without a driver is ended here.
        let done = lake.cancel(&run).await;
        settle(&notifications).await;
        stopped(&done?, self.json)
    }

    pub(crate) async fn pause(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let lake = self.lake.open(lake_before)?;
        let run = run_meant(&lake, self.run).await?;
        stopped(&lake.pause(&run).await?, self.json)
    }
}

fn stopped(done: &StopReport, json: bool) -> Result<Exit, Failure> {
    let run = &done.run;
    if json {
        print_json(done)?;
    } else if done.stopped {
        print(&format!("run {run} is {}", done.outcome.map_or("paused", |outcome| outcome.as_str())))?;
    } else {
        let signal = done.signal.as_str();
        print(&format!("the process that drives run {run} was asked to {signal} it; it first stops what is under way"))?;
    }
    Ok(Exit::Success)
}

pub(super) fn finish(done: &RunReport, format: Format, fail_on: Option<FailOn>) -> Result<Exit, Failure> {
    match format {
        Format::Text => print(&report(done))?,
        Format::Json => print_json(done)?,
        Format::Ndjson => print_json_line(done)?,
        Format::Github => {
            print(&report(done))?;
            for line in problems(done) {
                print(&line)?;
            }
        }
    }
    Ok(Exit::of_run(done, fail_on))
}
