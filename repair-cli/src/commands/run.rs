//! `repair run`, `resume`, `redrive`, `cancel` and `pause`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use repair_core::engine::{RunReport, Signal, StartRequest, new_run_id};
use repair_core::workflow::Workflow;
use repair_core::{Error, Result};

use crate::output::{Failure, exit_code, print, print_json, report};
use crate::session::{Drive, LakeArg, Place, engine, journal, registry};

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
    #[arg(long, value_name = "ID", value_parser = run_id)]
    run_id: Option<String>,
    /// A price book, in place of the one that the workflow names; kept with the run.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

pub(super) fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "write it as NAME=VALUE".to_owned())?;
    if name.trim().is_empty() {
        return Err("the name is missing; write it as NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// An id names files, and stands on command lines: there, what begins with a dash is an option. The engine checks the rest of it.
pub(super) fn run_id(text: &str) -> Result<String, String> {
    if text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err("a run's id must begin with a letter or digit; then come letters, digits, `-` and `_`".to_owned())
    }
}

/// The parameters by name.
pub(super) fn by_name(params: Vec<(String, String)>) -> Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    for (name, value) in params {
        if given.contains_key(&name) {
            let message = format!("--param {name} is given twice; give it once, the values of a list separated by commas");
            return Err(Error::invalid(message));
        }
        given.insert(name, value);
    }
    Ok(given)
}

impl Run {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let lake = self.lake.or(lake_before);
        let registry = Arc::new(registry());
        let workflow = Workflow::load_with_prices(&self.file, &registry, self.prices.as_deref())?;
        let given = by_name(self.params)?;
        let params = workflow.bind(&given)?;
        let place = Place::of(&workflow, self.profile.as_deref(), lake.as_deref(), &params)?;
        let engine = engine(Drive::New(&workflow, &params), place.root(), registry).await?;
        let run = self.run_id.unwrap_or_else(new_run_id);
        let done = engine.start(&workflow, StartRequest::new(run).with_params(params).with_environment(place.environment())).await?;
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
    #[command(flatten)]
    lake: LakeArg,
}

impl TakeUp {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>, redrive: bool) -> Result<ExitCode, Failure> {
        let (root, _) = journal(self.lake.or(lake_before).as_deref()).await?;
        let registry = Arc::new(registry());
        let mended = match &self.mended {
            Some(file) => Some(Workflow::load(file, &registry)?),
            None => None,
        };
        let engine = engine(Drive::Begun(&self.run), &root, registry).await?;
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
    let (root, _) = journal(lake).await?;
    let engine = engine(Drive::Begun(run), &root, Arc::new(registry())).await?;
    let stopped = match signal {
        Signal::Cancel => engine.cancel(run).await?,
        Signal::Pause => engine.pause(run).await?,
        other => return Err(Error::internal(format!("there is no command to {} a run", other.as_str())).into()),
    };
    match stopped {
        Some(report) => print(&format!("run {run} is {}", report.outcome.map_or("paused", |outcome| outcome.as_str())))?,
        None => print(&format!("the process that drives run {run} was asked to {}; it stops what is under way first", signal.as_str()))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn finish(done: &RunReport, json: bool) -> Result<ExitCode, Failure> {
    if json {
        print_json(done)?;
    } else {
        print(&report(done))?;
    }
    Ok(exit_code(done))
}
