//! Files that a command writes for people: whole or not at all, and on the disk once the command has ended.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Whoever may read files that are made here.
    Usual,
    /// Its owner alone.
    OfOwner,
}

/// Writes a text into a file beside it, flushes that, and gives it the name; a file that had the name is replaced.
pub(crate) fn write_whole(path: &Path, text: &str, rights: Rights) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.suffix(".part");
    #[cfg(unix)]
    if rights == Rights::Usual {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // Windows has no handle of a folder to flush.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
