//! `repair run`, `resume`, `redrive`, `cancel` and `pause`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use repair_core::engine::{RunReport, Signal, StartRequest, new_run_id};
use repair_core::workflow::Workflow;

use crate::output::{Failure, exit_code, print, print_json, report};
use crate::session::{Place, engine, journal, registry};

/// Run a workflow.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The workflow.
    file: PathBuf,
    /// Where to run, by its name under `profiles` [default: local, or the only one].
    #[arg(long)]
    profile: Option<String>,
    /// A parameter; once for each. A list is separated by commas.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// The run's id. Starting one that exists with the same input goes on with it [default: a new id].
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "write it as NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Run {
    /// Does it.
    pub(crate) async fn execute(self, lake: Option<&Path>) -> Result<ExitCode, Failure> {
        let registry = Arc::new(registry());
        let workflow = Workflow::load(&self.file, &registry)?;
        let given: BTreeMap<String, String> = self.params.into_iter().collect();
        let params = workflow.bind(&given)?;
        let place = Place::of(&workflow, self.profile.as_deref(), lake, &params)?;
        let engine = engine(Some((&workflow, &params)), place.root(), registry).await?;
        let run = self.run_id.unwrap_or_else(new_run_id);
        let done = engine.start(&workflow, StartRequest { run, params, environment: place.environment() }).await?;
        finish(&done, self.json)
    }
}

/// `repair resume` and `repair redrive`
#[derive(Debug, Args)]
pub(crate) struct TakeUp {
    /// The run's id; see `repair runs`.
    run: String,
    /// A mended workflow to go on with, in place of the one that the run started with. Refused if what the run already did would mean
    /// something else by it.
    #[arg(long = "with", value_name = "FILE")]
    mended: Option<PathBuf>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

impl TakeUp {
    /// Does it.
    pub(crate) async fn execute(self, lake: Option<&Path>, redrive: bool) -> Result<ExitCode, Failure> {
        let (root, _) = journal(lake)?;
        let registry = Arc::new(registry());
        let mended = match &self.mended {
            Some(file) => Some(Workflow::load(file, &registry)?),
            None => None,
        };
        let engine = engine(None, &root, registry).await?;
        let done = match (&mended, redrive) {
            (mended, true) => engine.redrive(&self.run, mended.as_ref()).await?,
            (Some(mended), false) => engine.resume_with(&self.run, mended).await?,
            (None, false) => engine.resume(&self.run).await?,
        };
        finish(&done, self.json)
    }
}

/// `repair cancel` and `repair pause`
pub(crate) async fn ask(run: &str, lake: Option<&Path>, signal: Signal) -> Result<ExitCode, Failure> {
    let (root, _) = journal(lake)?;
    let engine = engine(None, &root, Arc::new(registry())).await?;
    let stopped = match signal {
        Signal::Cancel => engine.cancel(run).await?,
        Signal::Pause => engine.pause(run).await?,
    };
    match stopped {
        Some(report) => print(&format!("run {run} is {}", report.outcome.map_or("paused", |outcome| outcome.as_str())))?,
        None => print(&format!("the process that drives run {run} was asked to {}; it stops what is under way first", signal.as_str()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn finish(done: &RunReport, json: bool) -> Result<ExitCode, Failure> {
    if json {
        print_json(done)?;
    } else {
        print(&report(done))?;
    }
    Ok(exit_code(done))
}
