//! The arguments that say what a command works on, and how it is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use repair::jiff::Timestamp;
use repair::notify::Notifications;
use repair::{CancellationToken, Error, ErrorKind, Notice, OpenLake, Opening, Repair, Result};

use crate::format::{EventLines, Format};
use crate::progress::Console;

/// Where a lake is when nothing says otherwise.
const DEFAULT_LAKE: &str = "./lake";

/// Which lake a command works on.
#[derive(Debug, Args)]
pub(crate) struct LakeArg {
    /// The lake: a folder, or a place in S3 (`s3://bucket/lake`), instead of the one that the profile names. Its journal is in it
    /// [env: REPAIR_LAKE] [default: ./lake].
    #[arg(long, value_name = "DIR")]
    lake: Option<PathBuf>,
}

impl LakeArg {
    /// The lake that was named here.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.lake.as_deref()
    }

    /// The lake that was named here, else before the command, else by the environment.
    fn or(self, before: Option<PathBuf>) -> Option<PathBuf> {
        let environment = || std::env::var_os("REPAIR_LAKE").filter(|lake| !lake.is_empty()).map(PathBuf::from);
        self.lake.or(before).or_else(environment)
    }

    /// The lake that was named here or before the command, if one was.
    pub(crate) fn given_here(&self, before: Option<PathBuf>) -> Option<PathBuf> {
        self.lake.clone().or(before)
    }

    /// The lake that was named at all.
    #[cfg(feature = "serve")]
    pub(crate) fn given(self, before: Option<PathBuf>) -> Option<PathBuf> {
        self.or(before)
    }

    /// Opens the lake by itself.
    pub(crate) fn open(self, before: Option<PathBuf>) -> Result<OpenLake> {
        self.open_for(Format::Text, before)
    }

    /// Opens the lake by itself, for a command that drives runs and reports them so.
    pub(crate) fn open_for(self, format: Format, before: Option<PathBuf>) -> Result<OpenLake> {
        Ok(heard(OpenLake::at(self.or(before).unwrap_or_else(|| DEFAULT_LAKE.into()))?, format))
    }

    /// Opens the lake of a workflow, chosen as for a run of it.
    pub(crate) fn open_of(self, before: Option<PathBuf>, workflow: &Path, profile: Option<&str>) -> Result<OpenLake> {
        Ok(heard(OpenLake::of_workflow(workflow, profile, self.or(before).as_deref())?, Format::Text))
    }

    /// Opens a workflow in the lake, if one was named.
    pub(crate) async fn connect(self, before: Option<PathBuf>, opening: Opening) -> Result<Repair> {
        self.opening(Format::Text, before, opening).connect().await
    }

    /// A workflow that is about to be opened in the lake, if one was named.
    pub(crate) fn opening(self, format: Format, before: Option<PathBuf>, mut opening: Opening) -> Opening {
        if let Some(lake) = self.or(before) {
            opening = opening.lake(lake);
        }
        let console = Arc::new(Console::new());
        opening = opening.observer(console.clone());
        if format == Format::Ndjson {
            opening = opening.observer(Arc::new(EventLines));
        }
        opening.stop(stop_on_signal()).notices(move |notice| console.line(&described(&notice)))
    }
}

/// A lake whose events people hear of.
fn heard(mut lake: OpenLake, format: Format) -> OpenLake {
    let console = Arc::new(Console::new());
    lake = lake.observer(console.clone());
    if format == Format::Ndjson {
        lake = lake.observer(Arc::new(EventLines));
    }
    lake.stop(stop_on_signal()).notices(move |notice| console.line(&described(&notice)))
}

/// The run that a name means, as [`OpenLake::find_run`] has it. A name that means none is returned as it is: what is then asked of the lake
/// says best what is missing.
pub(crate) async fn run_meant(lake: &OpenLake, name: String) -> Result<String> {
    Ok(lake.find_run(&name).await?.unwrap_or(name))
}

/// As [`run_meant`], where the name may also be that of a table, which `error` says it is not.
pub(crate) async fn subject_meant(lake: &OpenLake, name: &str, error: Error) -> Result<String> {
    match error.kind() {
        ErrorKind::NotFound => lake.find_run(name).await?.filter(|run| run != name).ok_or(error),
        _ => Err(error),
    }
}

/// Which workflow a command works on, and where.
#[derive(Debug, Args)]
pub(crate) struct WorkflowArgs {
    /// The workflow.
    file: PathBuf,
    /// Where to run, by its name under `profiles` [default: local, or the only one].
    #[arg(long)]
    profile: Option<String>,
    /// A parameter; may be repeated. Separate the values of a list by commas.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// A price book, instead of the one that the workflow names.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Count relative dates such as `yesterday` from this instant, e.g. 2024-03-05T02:00:00Z [default: when the command begins].
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    now: Option<Timestamp>,
    #[command(flatten)]
    lake: LakeArg,
}

impl WorkflowArgs {
    /// Opens the workflow.
    pub(crate) async fn open(self, lake_before: Option<PathBuf>) -> Result<Repair> {
        let (lake, opening) = self.opening()?;
        lake.connect(lake_before, opening).await
    }

    /// Opens the workflow, for a command that drives runs, reports them so, and sends messages about them.
    pub(crate) async fn open_to_run(self, format: Format, lake_before: Option<PathBuf>, notifications: &Notifications) -> Result<Repair> {
        let (lake, opening) = self.opening()?;
        lake.opening(format, lake_before, opening.notify(notifications)).connect().await
    }

    /// Which lake was named, and the workflow that is to be opened.
    fn opening(self) -> Result<(LakeArg, Opening)> {
        let mut opening = Repair::open(self.file).profile(self.profile.as_deref()).params(by_name(self.params)?).now(self.now);
        if let Some(prices) = self.prices {
            opening = opening.prices(prices);
        }
        Ok((self.lake, opening))
    }
}

pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "it must be an instant with its zone, such as 2024-03-05T02:00:00Z".to_owned())
}

pub(crate) fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "write it as NAME=VALUE".to_owned())?;
    if name.trim().is_empty() {
        return Err("the name is missing; write it as NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The parameters by name.
pub(crate) fn by_name(params: Vec<(String, String)>) -> Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    for (name, value) in params {
        if given.contains_key(&name) {
            let message = format!("--param {name} is given twice; give it once, with the values of a list separated by commas");
            return Err(Error::invalid(message));
        }
        given.insert(name, value);
    }
    Ok(given)
}

/// What is reported before a run begins.
fn described(notice: &Notice) -> String {
    match notice {
        Notice::WillCreate(what) => format!("will be created when it is first needed: {what}"),
        Notice::AppliedBefore { run } => format!("the plan was applied before, as run {run}"),
        Notice::TablesChanged(tables) => {
            format!("table {} has changed since the plan was made, but the same slots are missing", tables.join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// A token that is cancelled when the process is asked to stop: by Ctrl-C, or SIGTERM.
pub(crate) fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        asked_to_stop().await;
        cancelled.cancel();
    });
    stop
}

async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the process just ends, which a run survives.
        std::future::pending::<()>().await;
    }
}
