//! `repair runs` and `repair show`

use std::path::PathBuf;

use clap::Args;
use repair::run::RunSummary;
use repair::{Error, RunReport};
use serde_json::Value;

use crate::exit::Exit;
use crate::open::LakeArg;
use crate::output::{Failure, print, print_json, report, table};

/// List the runs of a lake, oldest first.
#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Runs {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let runs = self.lake.open(lake_before)?.runs().await?;
        if self.json {
            print_json(&runs)?;
        } else {
            let row = |run: &RunSummary| {
                let not_ended = if run.paused { "paused" } else { "not ended" };
                let outcome = run.outcome.map_or(not_ended, |outcome| outcome.as_str());
                vec![run.run.clone(), run.workflow.clone(), format!("{:.0}", run.started_at), outcome.to_owned()]
            };
            print(&table(&["run", "workflow", "started", "outcome"], &runs.runs.iter().map(row).collect::<Vec<_>>()))?;
        }
        Ok(Exit::Success)
    }
}

/// Show what a run did.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The run's id; see `repair runs`.
    run: String,
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
        if self.events {
            let mut lines = Vec::new();
            lake.events(&self.run, |recorded| {
                lines.push(serde_json::to_string(&recorded).map_err(|error| Error::internal("an event is not JSON").because(error))?);
                Ok(())
            })
            .await?;
            print(&lines.join("\n"))?;
            return Ok(Exit::Success);
        }
        let state = lake.state(&self.run).await?;
        let done = RunReport::new(&self.run, &state);
        if self.json {
            print_json(&done)?;
        } else {
            let started = &state.started;
            let params = Value::Object(started.params.clone().into_iter().collect());
            let head = format!("workflow {} from {}, started {:.0}, with {params}", started.workflow, started.file, started.at);
            print(&format!("{head}\n\n{}", report(&done)))?;
        }
        Ok(Exit::Success)
    }
}
