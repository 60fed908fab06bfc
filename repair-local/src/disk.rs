//! The disk that a lake is on, and what is done to it.

use std::path::Path;

use repair_core::Result;

/// How many bytes this user may still write to the disk on which a folder is; `None` where the system does not say.
///
/// # Errors
/// That of the disk, or of the folder.
pub fn free_space(folder: &Path) -> Result<Option<u64>> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder).map_err(|error| crate::files::io_error(error.into(), "look at the disk of", folder))?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        Ok(None)
    }
}

/// What is done to a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// The names in a folder are listed, and each is looked at.
    List,
    /// A file is opened to be read.
    Open,
}

/// Notes what is done, for tests that count it.
#[cfg(not(test))]
#[inline]
pub(crate) fn note(_: Act, _: &Path) {}

#[cfg(test)]
pub(crate) use self::watched::{Watch, note};

/// Counting what is done below folders. Tests of one program run side by side, so each watches a folder of its own.
#[cfg(test)]
mod watched {
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, PoisonError};

    use super::Act;

    /// What was done, and where.
    type Acts = Vec<(Act, PathBuf)>;

    static WATCHED: Mutex<Vec<(PathBuf, Acts)>> = Mutex::new(Vec::new());

    /// Watches a folder until it is dropped.
    pub(crate) struct Watch(PathBuf);

    impl Watch {
        pub(crate) fn of(folder: &Path) -> Self {
            WATCHED.lock().unwrap_or_else(PoisonError::into_inner).push((folder.to_owned(), Vec::new()));
            Self(folder.to_owned())
        }

        /// What was done since it was asked last, below the folder.
        pub(crate) fn take(&self, act: Act) -> Vec<PathBuf> {
            let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
            let mut taken = Vec::new();
            for (_, acts) in watched.iter_mut().filter(|(folder, _)| *folder == self.0) {
                acts.retain(|(of, path)| {
                    if *of == act {
                        taken.push(path.clone());
                    }
                    *of != act
                });
            }
            taken
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            WATCHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|(folder, _)| *folder != self.0);
        }
    }

    pub(crate) fn note(act: Act, path: &Path) {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, acts) in watched.iter_mut().filter(|(folder, _)| path.starts_with(folder)) {
            acts.push((act, path.to_owned()));
        }
    }
}
