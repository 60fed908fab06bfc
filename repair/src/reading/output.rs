//! Where rows go: a file that is there whole or not at all, or a writer of the caller's.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use repair_core::{Error, ErrorKind, Hint, Result};
use tempfile::NamedTempFile;

/// How much is written at once.
const BUFFER_BYTES: usize = 1 << 18;

/// Where rows are to be written.
#[non_exhaustive]
pub enum Destination {
    /// A file. Until all rows are written, they are in a hidden file beside it.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it may replace a file that is there.
        replace: bool,
    },
    /// Anything that bytes can be written to. If writing fails, it has got a part of them.
    Writer(Box<dyn Write + Send>),
}

impl Destination {
    /// A new file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), replace: false }
    }

    /// A file, which may replace one that is there.
    pub fn replacing(path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), replace: true }
    }

    /// Anything that bytes can be written to.
    pub fn writer(writer: impl Write + Send + 'static) -> Self {
        Self::Writer(Box::new(writer))
    }

    /// The path of the file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Writer(_) => None,
        }
    }
}

/// A file that is being written.
struct Part {
    file: NamedTempFile,
    path: PathBuf,
    replace: bool,
}

/// A destination that has been opened.
pub(super) struct Output {
    writer: Option<Box<dyn Write + Send>>,
    part: Option<Part>,
}

impl Output {
    /// Opens a destination.
    ///
    /// # Errors
    /// `conflict` if a file is there that may not be replaced; `not-found` if its folder is not there.
    pub(super) fn open(destination: Destination) -> Result<Self> {
        let (path, replace) = match destination {
            Destination::Writer(writer) => return Ok(Self { writer: Some(writer), part: None }),
            Destination::File { path, replace } => (path, replace),
        };
        match path.symlink_metadata() {
            Ok(there) if !there.is_file() && !there.is_symlink() => {
                return Err(Error::invalid(format!("{} is there, and is not a file; name another file", path.display())));
            }
            Ok(_) if !replace => return Err(is_there(&path)),
            _ => {}
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let prefix = format!(".{name}.");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        #[cfg(unix)]
        {
            // A file gets the rights that files get here; a temporary one would be its writer's alone.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder_of(&path)).map_err(|error| unwritten(&path, error))?;
        let handle: File = file.as_file().try_clone().map_err(|error| unwritten(&path, error))?;
        let writer = Box::new(BufWriter::with_capacity(BUFFER_BYTES, handle));
        Ok(Self { writer: Some(writer), part: Some(Part { file, path, replace }) })
    }

    /// What rows are written to, once.
    pub(super) fn writer(&mut self) -> Box<dyn Write + Send> {
        self.writer.take().unwrap_or_else(|| Box::new(std::io::sink()))
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> String {
        self.part.as_ref().map_or_else(|| "the output".to_owned(), |part| part.path.display().to_string())
    }

    /// Shows the file under its name, when all is written and flushed. Returns its size, if it is a file.
    ///
    /// # Errors
    /// `conflict` if another has written a file of that name meanwhile.
    pub(super) fn finish(self) -> Result<Option<u64>> {
        let Some(Part { file, path, replace }) = self.part else { return Ok(None) };
        file.as_file().sync_all().map_err(|error| unwritten(&path, error))?;
        let bytes = file.as_file().metadata().map_err(|error| unwritten(&path, error))?.len();
        let kept = if replace { file.persist(&path) } else { file.persist_noclobber(&path) };
        kept.map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => is_there(&path),
            _ => unwritten(&path, error.error),
        })?;
        // Its name, too; Windows has no handle of a folder to flush.
        if cfg!(unix) {
            File::open(folder_of(&path)).and_then(|folder| folder.sync_all()).map_err(|error| unwritten(&path, error))?;
        }
        Ok(Some(bytes))
    }
}

/// The folder in which a file lies.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_there(path: &Path) -> Error {
    Error::new(ErrorKind::Conflict, format!("{} is there already, and was not changed", path.display())).hint(Hint::Replace)
}

fn unwritten(path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("{} cannot be written; choose another place", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_none_is_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let names = || {
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<Vec<_>>()
        };
        let mut given_up = Output::open(Destination::file(&path)).unwrap();
        given_up.writer().write_all(b"half").unwrap();
        drop(given_up);
        assert!(names().is_empty());

        let (mut first, mut second) = (Output::open(Destination::file(&path)).unwrap(), Output::open(Destination::file(&path)).unwrap());
        for (output, text) in [(&mut first, "one"), (&mut second, "two")] {
            let mut writer = output.writer();
            writer.write_all(text.as_bytes()).unwrap();
            writer.flush().unwrap();
        }
        assert_eq!(first.finish().unwrap(), Some(3));
        assert_eq!(second.finish().unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!((std::fs::read_to_string(&path).unwrap(), names().len()), ("one".to_owned(), 1));
        let error = Output::open(Destination::file(&path)).err().unwrap();
        assert_eq!((error.kind(), error.remedy()), (ErrorKind::Conflict, Some(&Hint::Replace)));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::write(folder.path().join("plain"), "").unwrap();
            let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode("rows.csv"), mode("plain"));
        }
        assert_eq!(Output::open(Destination::replacing(folder.path())).err().unwrap().kind(), ErrorKind::Invalid);
    }
}
