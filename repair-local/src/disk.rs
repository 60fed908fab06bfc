//! The disk that a lake is on.

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
