//! Artifacts: what a run keeps that is too big for its journal.

use async_trait::async_trait;

use super::BatchStream;
use crate::error::{Error, Result};
use crate::model::Usage;

/// The name of an artifact, and the run that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactName<'a> {
    /// The run.
    pub run: &'a str,
    /// The name within the run.
    pub name: &'a str,
}

/// The part of a [`Lake`](super::Lake) that keeps artifacts.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Keeps rows under a name within a run, in place of what had the name. The write is atomic: a reader sees the old artifact or the
    /// new one. To put the same rows again changes nothing. If the call is dropped or the stream fails, the old artifact stays.
    ///
    /// Rows are written as they come, so they need not fit in memory. All batches must have the columns of the first.
    ///
    /// # Errors
    /// If it cannot be written, and those of the stream.
    async fn put_artifact(&self, run: &str, name: &str, batches: BatchStream) -> Result<Usage>;

    /// Reads an artifact back: rows in the order in which they came, in batches of any size. It may be called any number of times.
    ///
    /// # Errors
    /// `not-found` if there is none of that name.
    async fn get_artifact(&self, run: &str, name: &str) -> Result<BatchStream>;

    /// Keeps an artifact of one run as that of another, in place of what had the name there. Either may be removed without the other. A lake
    /// need not read it, so what is wrong with it shows when it is read.
    ///
    /// # Errors
    /// `not-found` if there is none of the name; as [`Artifacts::put_artifact`].
    async fn copy_artifact(&self, from: ArtifactName<'_>, to: ArtifactName<'_>) -> Result<Usage>;

    /// Lists what is kept for runs, in the order of areas and names: artifacts, and units that are staged. Only names are read.
    ///
    /// # Errors
    /// If they cannot be listed.
    async fn kept(&self) -> Result<Vec<KeptObject>>;

    /// Removes objects that [`Artifacts::kept`] has listed. One that is not there is no error, so a call that was dropped halfway can be repeated.
    ///
    /// # Errors
    /// `invalid` if an object is none that is listed; if one cannot be removed.
    async fn remove_kept(&self, objects: &[KeptObject]) -> Result<()>;
}

/// An object that is kept for a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct KeptObject {
    /// The area of the run: its id as [`name::part`](super::name::part) writes it.
    pub area: String,
    /// The name within the area: that of an artifact, as a part of a name; or `staged/`, the step and visit, and the unit.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl KeptObject {
    /// An object of an area, with its name and size.
    pub fn new(area: impl Into<String>, name: impl Into<String>, bytes: u64) -> Self {
        Self { area: area.into(), name: name.into(), bytes }
    }

    /// Whether it is a unit that is staged.
    pub fn is_staged(&self) -> bool {
        self.name.starts_with(STAGED)
    }

    /// Its path below the folder of all areas.
    ///
    /// # Errors
    /// `invalid` if it is none that a lake lists.
    pub fn path(&self) -> Result<String> {
        let mut parts = std::iter::once(self.area.as_str()).chain(self.name.split('/'));
        if parts.any(|part| part.is_empty() || part.starts_with('.') || part.contains('\\')) {
            return Err(Error::invalid(format!("`{}/{}` is no object that is kept for a run", self.area, self.name)));
        }
        Ok(format!("{}/{}{ENDING}", self.area, self.name))
    }

    /// The object at a path below the folder of all areas; `None` if that is none.
    pub fn at(path: &str, bytes: u64) -> Option<Self> {
        let (area, name) = path.strip_suffix(ENDING)?.split_once('/')?;
        let is_one = !name.contains('/') || name.starts_with(STAGED);
        is_one.then(|| Self::new(area, name, bytes)).filter(|kept| kept.path().is_ok())
    }
}

/// How the names of staged units begin.
const STAGED: &str = "staged/";
/// How the paths of objects end.
const ENDING: &str = ".parquet";
