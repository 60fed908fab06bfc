//! `repair run` and `repair resume`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use repair_core::engine::{RunReport, StartRequest, new_run_id};
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

/// `repair resume`
pub(crate) async fn resume(run: &str, lake: Option<&Path>, json: bool) -> Result<ExitCode, Failure> {
    let (root, _) = journal(lake)?;
    let engine = engine(None, &root, Arc::new(registry())).await?;
    finish(&engine.resume(run).await?, json)
}

fn finish(done: &RunReport, json: bool) -> Result<ExitCode, Failure> {
    if json {
        print_json(done)?;
    } else {
        print(&report(done))?;
    }
    Ok(exit_code(done))
}
