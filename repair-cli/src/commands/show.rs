//! `repair runs`, `repair show` and `repair logs`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use repair::core::engine::Recorded;
use repair::run::{RunStatus, RunSummary};
use repair::{Error, Outcome, RunReport};
use serde_json::Value;

use super::said::waits;
use crate::exit::Exit;
use crate::format;
use crate::open::{LakeArg, run_meant};
use crate::output::{Failure, count, print, print_json, print_json_text, print_lines, remark, report, table};
use crate::progress::describe;

/// List the runs of a lake, newest first.
#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// At most so many.
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// Only runs that are now so; may be repeated.
    #[arg(long = "status", value_enum, value_name = "STATUS")]
    statuses: Vec<Status>,
    /// Only runs of this workflow.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

/// What a run does now, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    /// A process drives it.
    Running,
    /// A process drives it, and waits.
    Waiting,
    /// It was paused.
    Paused,
    /// Nothing drives it, and it can be resumed.
    Stopped,
    /// It reached its end, perhaps with exceptions.
    Succeeded,
    /// It failed, was blind, or went over its budget.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl Status {
    fn fits(self, run: &RunSummary) -> bool {
        match (self, run.outcome) {
            (Self::Succeeded, Some(Outcome::Succeeded | Outcome::SucceededWithExceptions)) => true,
            (Self::Cancelled, Some(outcome)) => outcome == Outcome::Cancelled,
            (Self::Failed, Some(outcome)) => !matches!(outcome, Outcome::Succeeded | Outcome::SucceededWithExceptions | Outcome::Cancelled),
            (Self::Running, None) => run.status == RunStatus::Running,
            (Self::Waiting, None) => run.status == RunStatus::Waiting,
            (Self::Paused, None) => run.status == RunStatus::Paused,
            (Self::Stopped, None) => run.status == RunStatus::Stopped,
            _ => false,
        }
    }
}

impl Runs {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let mut runs = self.lake.open(lake_before)?.runs().await?;
        runs.runs.retain(|run| {
            let is_wanted = self.statuses.is_empty() || self.statuses.iter().any(|status| status.fits(run));
            is_wanted && self.workflow.as_ref().is_none_or(|workflow| run.workflow == *workflow)
        });
        let older = runs.runs.len().saturating_sub(self.limit.unwrap_or(usize::MAX));
        runs.runs.truncate(self.limit.unwrap_or(usize::MAX));
        if self.json {
            print_json(&runs)?;
            return Ok(Exit::Success);
        }
        let row = |run: &RunSummary| {
            let until = run.waits_until.filter(|_| run.status == RunStatus::Waiting);
            let status = until.map_or_else(|| run.word().to_owned(), |due| format!("waiting until {due:.0}"));
            vec![run.run.clone(), run.workflow.clone(), format!("{:.0}", run.started_at), status]
        };
        print(&table(&["run", "workflow", "started", "status"], &runs.runs.iter().map(row).collect::<Vec<_>>()))?;
        if older > 0 {
            remark(&format!("note: {} more; leave out --limit to see all", count(older as u64, "run")));
        }
        Ok(Exit::Success)
    }
}

/// Show what a run did.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The run's id or the beginning of it (see `repair runs`), or `last`.
    run: String,
    /// First show what it does as it does it, until it ends, is paused, or nothing drives it any more.
    #[arg(long, short, conflicts_with = "events")]
    follow: bool,
    /// Print the same JSON object as `run --json`.
    #[arg(long, conflicts_with = "events")]
    pub(crate) json: bool,
    /// Print the journal: one event per line, as JSON.
    #[arg(long)]
    events: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Show {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let lake = self.lake.open(lake_before)?;
        let run = run_meant(&lake, self.run).await?;
        if self.events {
            let mut lines = Vec::new();
            lake.events(&run, |recorded| {
                lines.push(format::event_line(&recorded).map_err(|error| Error::internal("an event is not JSON").because(error))?);
                Ok(())
            })
            .await?;
            print_json_text(&lines.join("\n"))?;
            return Ok(Exit::Success);
        }
        if self.follow {
            lake.follow(&run, |recorded| {
                if let Some(line) = line(&recorded) {
                    remark(&line);
                }
                Ok(())
            })
            .await?;
        }
        let state = lake.state(&run).await?;
        let done = RunReport::new(&run, &state);
        if self.json {
            print_json(&done)?;
        } else {
            let started = &state.started;
            let params = Value::Object(started.params.clone().into_iter().collect());
            let head = format!("workflow {} from {}, started {:.0}, with {params}", started.workflow, started.file, started.at);
            // A definition that this program cannot read says nothing of approvals, and what the run did is shown.
            let awaited = lake.awaited_approvals(&run).await.ok().filter(|awaited| !awaited.approvals.is_empty());
            let waits = awaited.map(|awaited| format!("\n\n{}", waits(&awaited))).unwrap_or_default();
            print(&format!("{head}\n\n{}{waits}", report(&done)))?;
        }
        Ok(Exit::Success)
    }
}

/// Print what a run did, a line for each thing, with its time.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The run's id or the beginning of it (see `repair runs`), or `last`.
    run: String,
    /// Go on as more happens, until the run ends, is paused, or nothing drives it any more.
    #[arg(long, short)]
    follow: bool,
    /// Print each event of the journal as a JSON object on a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Logs {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let lake = self.lake.open(lake_before)?;
        let run = run_meant(&lake, self.run).await?;
        let mut failed = None;
        let mut visit = |recorded: Recorded| {
            let printed = match (self.json, line(&recorded)) {
                (true, _) => event_line(&recorded).and_then(|line| print_json_text(&line).map_err(Failure::from)),
                (false, Some(line)) => print_lines(&[line]).map_err(Failure::from),
                (false, None) => Ok(()),
            };
            printed.map_err(|failure| {
                failed = Some(failure);
                Error::internal("the line cannot be printed")
            })
        };
        let done = if self.follow { lake.follow(&run, &mut visit).await } else { lake.events(&run, &mut visit).await };
        match (failed, done) {
            (Some(failure), _) => Err(failure),
            (None, done) => Ok(done.map(|()| Exit::Success)?),
        }
    }
}

/// An event as a line of JSON.
pub(super) fn event_line(recorded: &Recorded) -> Result<String, Failure> {
    Ok(format::event_line(recorded).map_err(|error| Error::internal("an event is not JSON").because(error))?)
}

/// An event with its time, if a person may want to know about it.
fn line(recorded: &Recorded) -> Option<String> {
    describe(&recorded.event).map(|what| format!("{:.0}  {what}", recorded.at))
}
