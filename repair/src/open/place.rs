//! Where a workflow runs: its profile says which lake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::bucket::Bucket;
use super::folder;
use crate::notify::At;
use repair_core::engine::Journal;
use repair_core::lake::Lake;
use repair_core::plugin::Registry;
use repair_core::workflow::{Document, Variables, Workflow};
use repair_core::{Error, Hint, Result};

/// Where a lake is when nothing says otherwise.
const DEFAULT_LAKE: &str = "./lake";

/// Where a lake is.
#[derive(Clone)]
pub(crate) enum Root {
    /// In a folder.
    Folder {
        /// The folder.
        path: PathBuf,
        /// The profile that names it, if a profile does.
        profile: Option<String>,
    },
    /// In a bucket.
    Bucket(Bucket),
    /// The caller has opened it.
    Given {
        /// The lake.
        lake: Arc<dyn Lake>,
        /// Its journal.
        journal: Arc<dyn Journal>,
    },
}

/// Whether a place is one in S3, and no folder.
fn is_in_s3(lake: &Path) -> bool {
    lake.to_str().is_some_and(|path| path.starts_with("s3://"))
}

impl Root {
    /// The place that a workflow in a file names, whatever values its parameters get.
    ///
    /// # Errors
    /// `invalid` if the file cannot be read, or where the lake is depends on a parameter.
    pub(super) fn of_file(file: &Path, registry: &Registry, profile: Option<&str>, lake: Option<&Path>) -> Result<Self> {
        match (lake, profile, Document::load(file, registry, None)?) {
            // What a folder is needs no profile.
            (Some(lake), None, _) if !is_in_s3(lake) => Self::at(lake),
            (_, _, Document::Workflow(workflow)) => {
                let places = workflow.bind_with_examples(&BTreeMap::new())?;
                let places = places.iter().map(|params| Place::of(&workflow, profile, lake, params)).collect::<Result<Vec<_>>>()?;
                let is_one = places.windows(2).all(|pair| matches!(pair, [one, other] if one.root.is_at(&other.root)));
                places.into_iter().next().filter(|_| is_one).map(|place| place.root).ok_or_else(|| {
                    Error::invalid("where the lake of the profile is depends on a parameter of the workflow, so it must be named")
                        .hint(Hint::OtherLake)
                })
            }
            (_, Some(profile), _) => {
                Err(Error::invalid(format!("{} is a file that workflows include, which has no profile `{profile}`", file.display())))
            }
            (lake, None, _) => Self::at(lake.unwrap_or(Path::new(DEFAULT_LAKE))),
        }
    }

    /// Whether another is the same place.
    fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder { path, .. }, Self::Folder { path: other, .. }) => path == other,
            (Self::Bucket(bucket), Self::Bucket(other)) => (bucket.location(), bucket.with()) == (other.location(), other.with()),
            _ => false,
        }
    }

    /// The lake at a path, or at `s3://…`.
    pub(super) fn at(lake: &Path) -> Result<Self> {
        Ok(match lake.to_str().filter(|_| is_in_s3(lake)) {
            Some(location) => Self::Bucket(Bucket::at(location)?),
            None => Self::Folder { path: lake.to_owned(), profile: None },
        })
    }

    /// Where it is, in the words of OpenLineage.
    pub(crate) fn lineage(&self) -> At {
        match self {
            Self::Folder { path, .. } => {
                let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                At { namespace: "file".to_owned(), prefix: whole.display().to_string().trim_end_matches('/').to_owned() }
            }
            Self::Bucket(bucket) => {
                let location = bucket.location();
                let rest = location.strip_prefix("s3://").unwrap_or(location).trim_end_matches('/');
                let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                At { namespace: format!("s3://{name}"), prefix: prefix.to_owned() }
            }
            Self::Given { .. } => At { namespace: "repair".to_owned(), prefix: String::new() },
        }
    }

    /// The lake itself, for a workflow that has not run yet, or as a run had it.
    pub(super) async fn open(&self, run: Option<(&dyn Journal, &str)>) -> Result<Arc<dyn Lake>> {
        match self {
            Self::Folder { path, profile } => folder::lake(path, profile.as_deref()),
            Self::Bucket(bucket) => bucket.lake(run).await,
            Self::Given { lake, .. } => Ok(lake.clone()),
        }
    }

    /// The lake itself, to read it and nothing else.
    pub(super) async fn open_to_read(&self, profile: &str) -> Result<Arc<dyn Lake>> {
        match self {
            Self::Folder { path, .. } => folder::lake_to_read(path, Some(profile)),
            Self::Bucket(bucket) => bucket.lake_to_read().await,
            Self::Given { lake, .. } => Ok(lake.clone()),
        }
    }

    /// The journal of a lake in which something was run.
    pub(super) async fn journal_to_read(&self) -> Result<Arc<dyn Journal>> {
        match self {
            Self::Folder { path, profile } => folder::journal_to_read(path, profile.as_deref()),
            Self::Bucket(bucket) => bucket.journal_to_read().await,
            Self::Given { journal, .. } => Ok(journal.clone()),
        }
    }

    /// The journal of a lake that may have none yet. It is created only once the lake is known to be there.
    pub(crate) async fn journal_to_write(&self) -> Result<Arc<dyn Journal>> {
        match self {
            Self::Folder { path, profile } => folder::journal_to_write(path, profile.as_deref()),
            Self::Bucket(bucket) => bucket.journal_to_write().await,
            Self::Given { journal, .. } => Ok(journal.clone()),
        }
    }
}

/// Where a workflow is to run.
pub(crate) struct Place {
    /// The profile's name, if the workflow has profiles.
    profile: Option<String>,
    /// The lake.
    pub(super) root: Root,
}

impl Place {
    /// A lake and a journal that the caller has opened.
    pub(super) fn of_adapters(profile: Option<String>, lake: Arc<dyn Lake>, journal: Arc<dyn Journal>) -> Self {
        Self { profile, root: Root::Given { lake, journal } }
    }

    /// The place that a profile names: the profile asked for, or `local`, or the only one. If a lake in S3 is named and no profile, the only one that says
    /// which database has its tables.
    pub(super) fn of(workflow: &Workflow, profile: Option<&str>, lake: Option<&Path>, params: &BTreeMap<String, Value>) -> Result<Self> {
        let known = || workflow.profiles.keys().cloned().collect::<Vec<_>>();
        let only = || if workflow.profiles.len() == 1 { workflow.profiles.keys().next().map(String::as_str) } else { None };
        let local = || workflow.profiles.contains_key("local").then_some("local");
        let fitting = || {
            lake.filter(|lake| is_in_s3(lake))?;
            let mut fitting = workflow.profiles.iter().filter(|(_, profile)| profile.lake == "athena").map(|(name, _)| name.as_str());
            fitting.next().filter(|_| fitting.next().is_none())
        };
        let Some(name) = profile.or_else(fitting).or_else(local).or_else(only) else {
            if workflow.profiles.is_empty() {
                return Ok(Self { profile: None, root: Root::at(lake.unwrap_or(Path::new(DEFAULT_LAKE)))? });
            }
            return Err(
                Error::invalid("the workflow has several profiles, and none of them is `local`").hint(Hint::Profile { known: known() })
            );
        };
        Ok(Self { profile: Some(name.to_owned()), root: Root::of_profile(workflow, name, lake, params)? })
    }

    /// What a later process needs to know to continue.
    pub(super) fn environment(&self) -> Value {
        match &self.root {
            // Where the lake is follows from where its journal is.
            Root::Folder { .. } => json!({ "profile": self.profile, "lake": "local" }),
            Root::Bucket(bucket) => json!({ "profile": self.profile, "lake": "athena", "with": bucket.with() }),
            Root::Given { .. } => json!({ "profile": self.profile, "lake": "given" }),
        }
    }
}

impl Root {
    /// The lake of a profile, or the one that is named in its place.
    pub(super) fn of_profile(workflow: &Workflow, name: &str, lake: Option<&Path>, params: &BTreeMap<String, Value>) -> Result<Self> {
        let Some(profile) = workflow.profiles.get(name) else {
            let there = if workflow.profiles.is_empty() { "; it has no profiles" } else { "" };
            let error = Error::invalid(format!("the workflow has no profile `{name}`{there}"));
            let known = || workflow.profiles.keys().cloned().collect::<Vec<_>>();
            return Err(if workflow.profiles.is_empty() { error } else { error.hint(Hint::Profile { known: known() }) });
        };
        // A profile is opened before a run starts, and later by its journal: it must not depend on when that is.
        let now = jiff::Timestamp::UNIX_EPOCH;
        let fixed = workflow.fix(params, now)?;
        let variables = Variables::at_start(&fixed, now, now);
        let with = profile.with.resolve(&variables)?;
        if fixed != *params && with != profile.with.resolve(&Variables::at_start(params, now, now))? {
            return Err(Error::invalid(format!(
                "where profile `{name}` is depends on a parameter that is relative to now; give that parameter a date or an instant"
            )));
        }
        Ok(match (profile.lake.as_str(), lake.map(Root::at).transpose()?) {
            ("local", Some(root)) => root,
            ("local", None) => Root::Folder { path: folder::root_of(name, with)?, profile: Some(name.to_owned()) },
            ("athena", root) => {
                let bucket = Bucket::of_profile(name, with)?;
                match root {
                    Some(Root::Bucket(other)) => Root::Bucket(bucket.moved_to(other)),
                    Some(Root::Folder { path, .. }) => {
                        let message = format!(
                            "profile `{name}` needs a lake in S3, such as s3://bucket/lake, but the lake that was named is the folder {}",
                            path.display()
                        );
                        return Err(Error::invalid(message).hint(Hint::OtherLake));
                    }
                    _ => Root::Bucket(bucket),
                }
            }
            (other, _) => {
                return Err(Error::invalid(format!("profile `{name}` needs a lake of kind `{other}`; the kinds are `local` and `athena`")));
            }
        })
    }
}
