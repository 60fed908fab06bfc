//! Opens what a command works on: the registry, the lake of a profile, its journal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use repair::plan::Planner;
use repair_core::engine::prepare::preflight;
use repair_core::engine::{Engine, Journal, load};
use repair_core::lake::Lake;
use repair_core::model::Table;
use repair_core::plugin::{Registry, SystemClock};
use repair_core::workflow::{StepKind, Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};
use repair_local::{LocalLake, SqliteJournal};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::aws;
use crate::progress::Console;

/// Where a lake is when nobody says otherwise.
const DEFAULT_LAKE: &str = "./lake";

/// All plug-ins of this program.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    registry
}

/// Which lake a command works on.
#[derive(Debug, Args)]
pub(crate) struct LakeArg {
    /// The folder of the lake, or its place in S3 (`s3://bucket/lake`), instead of the one the profile names; its journal is below it
    /// [env: REPAIR_LAKE] [default: ./lake].
    #[arg(long, value_name = "DIR")]
    lake: Option<PathBuf>,
}

impl LakeArg {
    /// The lake that was named here, else before the command, else by the environment.
    pub(crate) fn or(self, before: Option<PathBuf>) -> Option<PathBuf> {
        let environment = || std::env::var_os("REPAIR_LAKE").filter(|lake| !lake.is_empty()).map(PathBuf::from);
        self.lake.or(before).or_else(environment)
    }
}

/// Where a lake is.
#[derive(Debug, Clone)]
pub(crate) enum Root {
    /// In a folder.
    Folder {
        /// The folder.
        path: PathBuf,
        /// The profile that names it; none if the command does, or nobody.
        profile: Option<String>,
    },
    /// In a bucket.
    Bucket(aws::Bucket),
}

impl Root {
    fn of_command(lake: Option<&Path>) -> Result<Self> {
        let path = lake.unwrap_or(Path::new(DEFAULT_LAKE));
        Ok(match path.to_str().filter(|path| path.starts_with("s3://")) {
            Some(location) => Self::Bucket(aws::Bucket::at(location)?),
            None => Self::Folder { path: path.to_owned(), profile: None },
        })
    }

    /// The lake itself, for a workflow that is yet to run, or for a run that has begun.
    pub(crate) async fn open(&self, run: Option<(&dyn Journal, &str)>) -> Result<Arc<dyn Lake>> {
        match self {
            Self::Folder { path, profile } => Ok(Arc::new(open_folder(path, profile.as_deref())?)),
            Self::Bucket(bucket) => bucket.lake(run).await,
        }
    }

    /// The journal of a lake in which something was run.
    async fn open_to_read(&self) -> Result<Arc<dyn Journal>> {
        match self {
            Self::Folder { path, profile } => {
                open_folder(path, profile.as_deref())?;
                let path = journal_path(path);
                let journal = SqliteJournal::open_to_read(&path).map_err(|error| match error.kind() {
                    ErrorKind::NotFound => {
                        let message =
                            format!("no journal at {}: nothing was ever run there; name the lake with --lake DIR", path.display());
                        Error::new(ErrorKind::NotFound, message)
                    }
                    _ => of_a_lake(error),
                })?;
                Ok(Arc::new(journal))
            }
            Self::Bucket(bucket) => bucket.journal().await,
        }
    }

    /// The journal of a lake that may have none yet. It is made only once the lake is known to be there and writable.
    async fn open_or_create_journal(&self) -> Result<Arc<dyn Journal>> {
        match self {
            Self::Folder { path, profile } => Ok(Arc::new(open_or_create_journal(&open_folder(path, profile.as_deref())?)?)),
            Self::Bucket(bucket) => bucket.journal().await,
        }
    }
}

/// The lake of a folder.
fn open_folder(path: &Path, profile: Option<&str>) -> Result<LocalLake> {
    LocalLake::open(path).map_err(|error| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let how = match profile {
            Some(profile) => format!("mend `root` of profile `{profile}`, or name another with --lake DIR"),
            None => "name another with --lake DIR".to_owned(),
        };
        if path.is_file() {
            Error::invalid(format!("{} is a file, and a lake is a folder; {how}", path.display()))
        } else if error.kind() == ErrorKind::NotFound {
            Error::new(ErrorKind::NotFound, format!("no folder {} for the lake; create it, or {how}", path.display()))
        } else {
            error
        }
    })
}

/// Where a workflow is to run.
pub(crate) struct Place {
    /// The profile's name, if it has profiles.
    profile: Option<String>,
    /// The lake.
    root: Root,
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
                return Ok(Self { profile: None, root: Root::of_command(lake)? });
            }
            return Err(Error::invalid(format!("say where to run with --profile: the workflow has {}", known())));
        };
        let Some(profile) = workflow.profiles.get(name) else {
            let there = if workflow.profiles.is_empty() { "no profiles".to_owned() } else { format!("the profiles {}", known()) };
            return Err(Error::invalid(format!("the workflow has no profile `{name}`; it has {there}")));
        };
        let variables = Variables { params: Value::Object(params.clone().into_iter().collect()), ..Variables::default() };
        let with = profile.with.resolve(&variables)?;
        let root = match (profile.lake.as_str(), lake.map(|lake| Root::of_command(Some(lake))).transpose()?) {
            ("local", Some(root)) => root,
            ("local", None) => {
                let config: LocalConfig = serde_json::from_value(with).map_err(|error| {
                    Error::invalid(format!("the `with` of profile `{name}` is not usable; it takes `root`, the lake's folder"))
                        .because(error)
                })?;
                Root::Folder { path: config.root, profile: Some(name.to_owned()) }
            }
            ("athena", root) => {
                let bucket = aws::Bucket::of_profile(name, with)?;
                match root {
                    None => Root::Bucket(bucket),
                    Some(Root::Bucket(other)) => Root::Bucket(bucket.moved_to(other)),
                    Some(Root::Folder { path, .. }) => {
                        return Err(Error::invalid(format!(
                            "profile `{name}` is of a lake in S3, and --lake names a folder, {}; name a place such as s3://bucket/lake, or another profile",
                            path.display()
                        )));
                    }
                }
            }
            (other, _) => {
                return Err(Error::invalid(format!(
                    "profile `{name}` wants a lake of kind `{other}`; this program knows `local` and `athena`"
                )));
            }
        };
        Ok(Self { profile: Some(name.to_owned()), root })
    }

    /// What a later process needs to know to go on.
    pub(crate) fn environment(&self) -> Value {
        match &self.root {
            // Where the lake is follows from where its journal is.
            Root::Folder { .. } => json!({ "profile": self.profile, "lake": "local" }),
            Root::Bucket(bucket) => json!({ "profile": self.profile, "lake": "athena", "with": bucket.with() }),
        }
    }

    /// Where its lake is.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }
}

/// Where a lake's journal is.
fn journal_path(root: &Path) -> PathBuf {
    root.join(".repair").join("journal.db")
}

/// The journal of the lake a command names.
pub(crate) async fn journal(lake: Option<&Path>) -> Result<(Root, Arc<dyn Journal>)> {
    let root = Root::of_command(lake)?;
    let journal = root.open_to_read().await?;
    Ok((root, journal))
}

/// An error of the journal, in words that the command has: it names lakes, not journals.
fn of_a_lake(error: Error) -> Error {
    let said = error.full();
    let mended = said.replace("name another file", "name another lake with --lake DIR");
    if mended == said { error } else { Error::new(error.kind(), mended) }
}

fn open_or_create_journal(lake: &LocalLake) -> Result<SqliteJournal> {
    let path = journal_path(lake.root());
    if !path.exists() {
        let folder = lake.root().join(".repair");
        std::fs::create_dir_all(&folder).map_err(|error| {
            Error::new(ErrorKind::Denied, "the folder for the journal can't be made").on("path", folder.display()).because(error)
        })?;
    }
    SqliteJournal::open(&path).map_err(of_a_lake)
}

/// What an engine is to drive.
pub(crate) enum Drive<'a> {
    /// A workflow that is yet to run.
    New(&'a Workflow, &'a BTreeMap<String, Value>),
    /// A run that has begun.
    Begun(&'a str),
}

/// The tables that a workflow repairs.
fn repaired<'a>(workflow: &'a Workflow, params: &BTreeMap<String, Value>) -> Vec<&'a Table> {
    let variables = Variables { params: Value::Object(params.clone().into_iter().collect()), ..Variables::default() };
    let mut tables: Vec<&Table> = Vec::new();
    for step in &workflow.steps {
        let StepKind::Repair { of, .. } = &step.kind else { continue };
        let plugins = workflow.step(of).map(|detect| detect.kind.plugins()).unwrap_or_default();
        for with in plugins.iter().filter_map(|(_, _, with)| with.resolve(&variables).ok()) {
            let table = with.get("table").and_then(Value::as_str).and_then(|table| workflow.tables.get(table));
            tables.extend(table.filter(|table| !tables.contains(table)));
        }
    }
    tables
}

/// An engine on a lake, which stops soon when the process is told to.
pub(crate) async fn engine(drive: Drive<'_>, root: &Root, registry: Arc<Registry>) -> Result<Engine> {
    let console = Arc::new(Console::new());
    let (lake, journal) = match drive {
        Drive::New(workflow, params) => {
            let lake = root.open(None).await?;
            // Nothing is written, not even a journal, for a workflow that can't begin.
            preflight(&registry, lake.as_ref(), workflow, params).await?;
            for table in repaired(workflow, params) {
                for what in lake.to_create(table).await? {
                    console.line(&format!("will be made when it is first needed: {what}"));
                }
            }
            (lake, root.open_or_create_journal().await?)
        }
        Drive::Begun(run) => {
            let journal = root.open_or_create_journal().await?;
            (root.open(Some((journal.as_ref(), run))).await?, journal)
        }
    };
    let mut engine = Engine::new(registry, lake, journal);
    engine.observer = console;
    cancel_when_told(&engine.stop);
    Ok(engine)
}

/// What makes plans on a lake, and stops soon when the process is told to.
pub(crate) async fn planner(root: &Root, registry: Arc<Registry>) -> Result<Planner> {
    let planner = Planner {
        registry,
        lake: root.open(None).await?,
        clock: Arc::new(SystemClock),
        progress: Arc::new(Console::new()),
        stop: CancellationToken::new(),
    };
    cancel_when_told(&planner.stop);
    Ok(planner)
}

fn cancel_when_told(stop: &CancellationToken) {
    let stop = stop.clone();
    tokio::spawn(async move {
        told_to_stop().await;
        stop.cancel();
    });
}

/// What a run of a lake keeps of where it runs; none if there is no such run. A lake without a journal has none.
pub(crate) async fn environment_of(root: &Root, run: &str) -> Result<Option<Value>> {
    let state = match root.open_to_read().await {
        Ok(journal) => load(journal.as_ref(), run).await,
        Err(error) => Err(error),
    };
    match state {
        Ok(state) => Ok(Some(state.started.environment)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns when the process is told to stop: by Ctrl-C, or SIGTERM.
pub(crate) async fn told_to_stop() {
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
