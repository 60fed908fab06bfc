//! Opens what a command works on: the registry, the lake of a profile, its journal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use repair_core::engine::{Engine, preflight};
use repair_core::plugin::Registry;
use repair_core::workflow::{Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};
use repair_local::{LocalLake, SqliteJournal};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::progress::Console;

/// Where a lake is when nobody says otherwise.
const DEFAULT_LAKE: &str = "./lake";

/// All plug-ins of this program.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    registry
}

/// Where a workflow is to run.
pub(crate) struct Place {
    /// The profile's name, if it has profiles.
    profile: Option<String>,
    /// The lake's folder.
    root: PathBuf,
}

/// The `with` of a profile with `lake: local`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalConfig {
    root: PathBuf,
}

impl Place {
    /// The place that a profile names: the one asked for, or `local`, or the only one.
    pub(crate) fn of(workflow: &Workflow, profile: Option<&str>, lake: Option<&Path>, params: &BTreeMap<String, Value>) -> Result<Self> {
        let only = || if workflow.profiles.len() == 1 { workflow.profiles.keys().next().map(String::as_str) } else { None };
        let local = || workflow.profiles.contains_key("local").then_some("local");
        let known = || workflow.profiles.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let Some(name) = profile.or_else(local).or_else(only) else {
            if workflow.profiles.is_empty() {
                return Ok(Self { profile: None, root: lake.unwrap_or(Path::new(DEFAULT_LAKE)).to_owned() });
            }
            return Err(Error::invalid(format!("say where to run with --profile: the workflow has {}", known())));
        };
        let Some(profile) = workflow.profiles.get(name) else {
            let there = if workflow.profiles.is_empty() { "no profiles".to_owned() } else { format!("the profiles {}", known()) };
            return Err(Error::invalid(format!("the workflow has no profile `{name}`; it has {there}")));
        };
        if profile.lake != "local" {
            return Err(Error::invalid(format!("profile `{name}` wants a lake of kind `{}`; this program knows `local`", profile.lake)));
        }
        let variables = Variables { params: Value::Object(params.clone().into_iter().collect()), ..Variables::default() };
        let config: LocalConfig = serde_json::from_value(profile.with.resolve(&variables)?).map_err(|error| {
            Error::invalid(format!("the `with` of profile `{name}` is not usable; it takes `root`, the lake's folder")).because(error)
        })?;
        Ok(Self { profile: Some(name.to_owned()), root: lake.map_or(config.root, Path::to_owned) })
    }

    /// What a later process needs to know; where the lake is follows from where its journal is.
    pub(crate) fn environment(&self) -> Value {
        json!({ "profile": self.profile, "lake": "local" })
    }

    /// The lake's folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// Where a lake's journal is.
fn journal_path(root: &Path) -> PathBuf {
    root.join(".repair").join("journal.db")
}

/// The journal of the lake a command names.
pub(crate) fn journal(lake: Option<&Path>) -> Result<(PathBuf, SqliteJournal)> {
    let root = lake.unwrap_or(Path::new(DEFAULT_LAKE));
    let path = journal_path(root);
    if !path.is_file() {
        let message = format!("no journal at {}; name the lake with --lake DIR", path.display());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    Ok((root.to_owned(), SqliteJournal::open_to_read(&path)?))
}

/// A journal for a lake that may have none yet. It is made only once the lake is known to be there and writable.
fn open_or_create_journal(lake: &LocalLake) -> Result<SqliteJournal> {
    let path = journal_path(lake.root());
    if !path.exists() {
        let folder = lake.root().join(".repair");
        std::fs::create_dir_all(&folder).map_err(|error| {
            Error::new(ErrorKind::Denied, "the folder for the journal can't be made").on("path", folder.display()).because(error)
        })?;
    }
    SqliteJournal::open(&path)
}

/// An engine on a local lake, which stops soon when the process is told to.
pub(crate) async fn engine(
    workflow: Option<(&Workflow, &BTreeMap<String, Value>)>,
    root: &Path,
    registry: Arc<Registry>,
) -> Result<Engine> {
    let lake = LocalLake::open(root)?;
    if let Some((workflow, params)) = workflow {
        // Nothing is written, not even a journal, for a workflow that can't begin.
        preflight(&registry, &lake, workflow, params).await?;
    }
    let journal = open_or_create_journal(&lake)?;
    let mut engine = Engine::new(registry, Arc::new(lake), Arc::new(journal));
    engine.observer = Arc::new(Console::new());
    let stop = engine.stop.clone();
    tokio::spawn(async move {
        told_to_stop().await;
        stop.cancel();
    });
    Ok(engine)
}

/// Returns when the process is told to stop: by Ctrl-C, or SIGTERM.
async fn told_to_stop() {
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
