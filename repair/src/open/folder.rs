//! Lakes in a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use repair_core::engine::Journal;
use repair_core::lake::Lake;
use repair_core::{Error, Result};

/// The folder that a profile with `lake: local` names.
pub(super) fn root_of(profile: &str, with: Value) -> Result<PathBuf> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        root: PathBuf,
    }
    let config: Config = serde_json::from_value(with).map_err(|error| {
        Error::invalid(format!("the `with` of profile `{profile}` is not usable; it takes `root`, the folder of the lake")).because(error)
    })?;
    Ok(config.root)
}

#[cfg(feature = "local")]
mod with_local {
    use repair_core::{ErrorKind, Hint};
    use repair_local::{LocalLake, SqliteJournal};

    use super::*;

    fn open(path: &Path, profile: Option<&str>) -> Result<LocalLake> {
        let lake = LocalLake::open(path).map_err(|error| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let hint = Hint::MissingLake { profile: profile.map(str::to_owned) };
            match error.kind() {
                ErrorKind::NotFound => {
                    Error::new(ErrorKind::NotFound, format!("there is no folder {} for the lake", path.display())).hint(hint)
                }
                ErrorKind::Invalid => Error::invalid(format!("{} is a file, but a lake is a folder", path.display())).hint(Hint::OtherLake),
                _ => error,
            }
        })?;
        #[cfg(feature = "sql")]
        let lake = lake.with_query_engine(Arc::new(repair_sql::DataFusion));
        Ok(lake)
    }

    /// The lake of a folder.
    pub(in crate::open) fn lake(path: &Path, profile: Option<&str>) -> Result<Arc<dyn Lake>> {
        Ok(Arc::new(open(path, profile)?))
    }

    /// The lake of a folder, in which nothing is written.
    pub(in crate::open) fn lake_to_read(path: &Path, profile: Option<&str>) -> Result<Arc<dyn Lake>> {
        Ok(Arc::new(open(path, profile)?.only_read()))
    }

    /// Where a lake's journal is.
    fn journal_path(root: &Path) -> PathBuf {
        root.join(".repair").join("journal.db")
    }

    /// The journal of a folder in which something was run.
    pub(in crate::open) fn journal_to_read(path: &Path, profile: Option<&str>) -> Result<Arc<dyn Journal>> {
        open(path, profile)?;
        let path = journal_path(path);
        let journal = SqliteJournal::open_to_read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let message = format!("there is no journal at {}: nothing was ever run there", path.display());
                Error::new(ErrorKind::NotFound, message).hint(Hint::OtherLake)
            }
            _ => not_usable(error),
        })?;
        Ok(Arc::new(journal))
    }

    /// The journal of a folder, created if it is not there.
    pub(in crate::open) fn journal_to_write(path: &Path, profile: Option<&str>) -> Result<Arc<dyn Journal>> {
        let lake = open(path, profile)?;
        Ok(Arc::new(SqliteJournal::create(journal_path(lake.root())).map_err(not_usable)?))
    }

    /// What is no journal, or may not be opened, is in a lake that can be named otherwise.
    fn not_usable(error: Error) -> Error {
        let of_the_file = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Denied) && error.remedy().is_none();
        if of_the_file { error.hint(Hint::OtherLake) } else { error }
    }
}

#[cfg(feature = "local")]
pub(super) use with_local::{journal_to_read, journal_to_write, lake, lake_to_read};

#[cfg(not(feature = "local"))]
mod without_local {
    use repair_core::Hint;

    use super::*;

    fn missing(path: &Path) -> Error {
        Error::invalid(format!("{} is a lake in a folder, and this program was built without support for it", path.display()))
            .hint(Hint::Feature { name: "local" })
    }

    pub(in crate::open) fn lake(path: &Path, _: Option<&str>) -> Result<Arc<dyn Lake>> {
        Err(missing(path))
    }

    pub(in crate::open) fn lake_to_read(path: &Path, _: Option<&str>) -> Result<Arc<dyn Lake>> {
        Err(missing(path))
    }

    pub(in crate::open) fn journal_to_read(path: &Path, _: Option<&str>) -> Result<Arc<dyn Journal>> {
        Err(missing(path))
    }

    pub(in crate::open) fn journal_to_write(path: &Path, _: Option<&str>) -> Result<Arc<dyn Journal>> {
        Err(missing(path))
    }
}

#[cfg(not(feature = "local"))]
pub(super) use without_local::{journal_to_read, journal_to_write, lake, lake_to_read};
