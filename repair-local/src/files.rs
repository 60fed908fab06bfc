//! Files: finding them, opening them, and writing them whole or not at all. This module knows nothing of columns.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use glob::{MatchOptions, Pattern};
use repair_core::lake::partition::TimeBounds;
use repair_core::model::Format;
use repair_core::{Error, ErrorKind, Result};

use crate::disk::{self, Act};
use crate::held::Held;
use crate::stamp::Stamp;
use crate::threads;

/// Folders deeper than this are in a loop of symbolic links.
pub(crate) const MAX_DEPTH: usize = 32;

/// A row of text is mostly longer.
const LIKELY_ROW_BYTES: u64 = 16;

/// How a file is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Compression {
    #[default]
    None,
    Gzip,
    Zstd,
    Bzip2,
}

impl Compression {
    /// The compression that an ending stands for.
    fn of(ending: &str) -> Option<Self> {
        Some(match ending.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => Self::Gzip,
            "zst" | "zstd" => Self::Zstd,
            "bz2" | "bzip2" => Self::Bzip2,
            _ => return None,
        })
    }

    /// The usual ending of its files, without the dot.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "gz",
            Self::Zstd => "zst",
            Self::Bzip2 => "bz2",
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "nothing",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
        })
    }
}

/// A file of a table, and what its path says.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// How it is compressed, by its name.
    pub(crate) compression: Compression,
    /// Whether its name has an ending; if not, its content shows how it is compressed.
    pub(crate) has_ending: bool,
    /// The names of its folders below the table's location. The files of a folder share them.
    pub(crate) folders: Arc<[String]>,
    /// The values of columns in its path: the `column=value` pairs of its folders, outermost first, and those of the table's pattern. Where that has
    /// none, the files of a folder share them.
    pub(crate) values: Arc<[(String, String)]>,
    /// The time that its folder covers, if the path says so.
    pub(crate) span: Option<TimeBounds>,
    /// The time of its rows that are used: that of its folder, and the table's slack around it.
    pub(crate) reach: Option<TimeBounds>,
    /// The time of all its rows, if the path holds it.
    pub(crate) time_us: Option<i64>,
    /// Whether it is of our own state, and must be what we wrote.
    pub(crate) is_ours: bool,
    /// When it was last written, as it was listed.
    pub(crate) stamp: Stamp,
    /// A time before it was listed.
    pub(crate) listed: SystemTime,
    /// What it holds, for whoever has read it already; it is not opened then.
    pub(crate) held: Option<Held>,
}

impl DataFile {
    /// What the path says about a column.
    pub(crate) fn path_value(&self, column: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| name == column).map(|(_, value)| value.as_str())
    }

    /// The same, with what it holds.
    pub(crate) fn with(&self, held: &Held) -> Self {
        Self { held: Some(held.clone()), ..self.clone() }
    }

    /// Whether every write after it was listed changes its stamp.
    pub(crate) fn is_settled(&self, settles: Duration) -> bool {
        self.stamp.is_settled(self.listed, settles)
    }

    /// Whether its path says the same as that of another file, but for their own names.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let is_same_folder = Arc::ptr_eq(&self.folders, &other.folders) && Arc::ptr_eq(&self.values, &other.values);
        is_same_folder && (self.span, self.reach, self.time_us) == (other.span, other.reach, other.time_us)
    }

    /// About how many rows of text it has, and no more than `most`: for so many there is room at first.
    pub(crate) fn likely_rows(&self, most: usize) -> usize {
        match self.compression {
            Compression::None if self.has_ending => usize::try_from(self.bytes / LIKELY_ROW_BYTES + 1).map_or(most, |rows| rows.min(most)),
            _ => most,
        }
    }

    /// Its own name.
    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The names of its folders below the table's location, and its own.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.folders.iter().map(String::as_str).chain([self.name()]).collect()
    }
}

/// Which files below a folder are data.
pub(crate) struct Listed<'a> {
    /// The format of the files.
    pub(crate) format: Format,
    /// Files that are not data: globs of their names, or of their paths below the folder.
    pub(crate) ignore: &'a [String],
    /// Folders that are left out.
    pub(crate) except: &'a [&'a Path],
    /// If only some files are meant: a glob of their paths below the folder.
    pub(crate) only: Option<&'a Pattern>,
    /// Which folders below it are something else, with all that they hold.
    pub(crate) is_left_out: Option<fn(&Path) -> Result<bool>>,
    /// Whether they are of our own state.
    pub(crate) are_ours: bool,
}

impl Listed<'_> {
    /// All Parquet files, as we write them.
    pub(crate) const OURS: Listed<'static> =
        Listed { format: Format::Parquet, ignore: &[], except: &[], only: None, is_left_out: None, are_ours: true };
}

/// Files that were found.
#[derive(Debug)]
pub(crate) struct Found {
    /// In order of path.
    pub(crate) files: Vec<DataFile>,
    /// The folders that were listed, each with its stamp from before.
    pub(crate) folders: Vec<(PathBuf, Stamp)>,
}

/// A folder before it is listed.
#[derive(Debug)]
pub(crate) struct Folder<'a> {
    pub(crate) path: &'a Path,
    pub(crate) stamp: Stamp,
    /// The names of the folders down to it, from below the location, its own included.
    pub(crate) names: &'a [String],
    /// The `column=value` pairs among them.
    pub(crate) hive: &'a [(String, String)],
}

/// Says of which folders nothing is wanted.
pub(crate) type Skip<'a> = &'a (dyn Fn(&Folder<'_>) -> bool + Sync);

/// In a glob of a path, `*` stays within a name.
const PATHS: MatchOptions = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Folders and files in which table formats keep their logs.
pub(crate) const LOGS: [(&str, &str); 3] = [("_delta_log", "Delta Lake"), (".hoodie", "Apache Hudi"), ("metadata", "Apache Iceberg")];

/// The files below a folder, in order of path; a path that is a file is used whatever its name. `None` if nothing is at the path. Names
/// that begin with `.` or `_` are left out, as all lake readers do, since they are unfinished or not data; so are ignored ones.
///
/// # Errors
/// `blind` if there is a file of which nobody said whether it is data, or the log of a table format, whose data are not all of its files.
pub(crate) fn list(path: &Path, listed: &Listed<'_>) -> Result<Option<Vec<DataFile>>> {
    Ok(find(path, listed, None)?.map(|found| found.files))
}

/// As [`list`], with the folders, without those that are to be skipped.
///
/// # Errors
/// As [`list`], for what is not skipped.
pub(crate) fn find(path: &Path, listed: &Listed<'_>, skip: Option<Skip<'_>>) -> Result<Option<Found>> {
    let begun = SystemTime::now();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error, "look at", path)),
    };
    let found = Found { files: Vec::new(), folders: Vec::new() };
    let (folders, values) = (Arc::default(), Arc::default());
    let mut walk =
        Walk { root: path, listed, skip, begun, ignore: Vec::new(), names: Vec::new(), hive: Vec::new(), folders, values, found };
    for glob in listed.ignore {
        walk.ignore.push(Pattern::new(glob).map_err(|error| Error::invalid(format!("`{glob}` under `ignore` is not a glob: {error}")))?);
    }
    if metadata.is_file() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = Kind::of(listed.format, &name);
        walk.add(path.to_owned(), &metadata, kind.unwrap_or(Kind { compression: Compression::None, has_ending: false }));
    } else if !metadata.is_dir() {
        return Err(Error::invalid(format!("{} is a pipe or a device, not a file or folder", path.display())));
    } else {
        walk.folder(path, Stamp::of(&metadata), 0)?;
    }
    Ok(Some(walk.found))
}

/// What the name of a data file says.
pub(crate) struct Kind {
    compression: Compression,
    has_ending: bool,
}

impl Kind {
    /// `None` if a file of this name is not of the format.
    pub(crate) fn of(format: Format, name: &str) -> Option<Self> {
        let known = |ending: &str| format.endings().iter().any(|known| ending.eq_ignore_ascii_case(known));
        let Some((stem, ending)) = name.rsplit_once('.') else {
            return Some(Self { compression: Compression::None, has_ending: false });
        };
        if known(ending) {
            return Some(Self { compression: Compression::None, has_ending: true });
        }
        // Parquet compresses within its files.
        let compression = Compression::of(ending).filter(|_| format != Format::Parquet)?;
        let is_data = stem.rsplit_once('.').is_none_or(|(_, ending)| known(ending));
        is_data.then_some(Self { compression, has_ending: true })
    }
}

/// The compression of a file of the format that cannot be read, by its name.
fn unread_compression(format: Format, name: &str) -> Option<&'static str> {
    const OTHERS: [(&str, &str); 12] = [
        ("br", "Brotli"),
        ("lz4", "LZ4"),
        ("xz", "xz"),
        ("lzma", "LZMA"),
        ("snappy", "Snappy"),
        ("sz", "Snappy"),
        ("lzo", "LZO"),
        ("zip", "zip"),
        ("7z", "7-Zip"),
        ("z", "compress"),
        ("deflate", "deflate"),
        ("zz", "zlib"),
    ];
    let (stem, ending) = name.rsplit_once('.')?;
    let is_data = stem.rsplit_once('.').is_some_and(|(_, inner)| format.endings().iter().any(|known| inner.eq_ignore_ascii_case(known)));
    let other = OTHERS.iter().find(|(known, _)| ending.eq_ignore_ascii_case(known)).map(|(_, compression)| *compression);
    let known = || {
        Some(match Compression::of(ending)? {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Bzip2 | Compression::None => "bzip2",
        })
    };
    other.or_else(known).filter(|_| is_data)
}

/// A folder of ours is listed again while its names change, at most so often: while it is compacted, a listing may come too late for a file that is removed
/// and too early for the one that has its rows. If that goes on, somebody publishes, which no listing has to see.
const MOST_LISTINGS: usize = 5;

/// What is in a folder, with its names.
fn entries_of(folder: &Path) -> Result<Vec<(OsString, fs::DirEntry)>> {
    disk::note(Act::List, folder);
    let named = |entry: io::Result<fs::DirEntry>| entry.map(|entry| (entry.file_name(), entry));
    fs::read_dir(folder).and_then(|entries| entries.map(named).collect()).map_err(|error| io_error(error, "list", folder))
}

/// So many folders are listed on several threads.
const MIN_PARALLEL_FOLDERS: usize = if cfg!(debug_assertions) { 2 } else { 8 };

/// A folder that is to be listed, within another.
struct Below {
    path: PathBuf,
    stamp: Stamp,
    names: Vec<String>,
    hive: Vec<(String, String)>,
    /// How many files of the other come before it.
    after: usize,
}

struct Walk<'a> {
    root: &'a Path,
    listed: &'a Listed<'a>,
    skip: Option<Skip<'a>>,
    /// A time before anything was listed.
    begun: SystemTime,
    ignore: Vec<Pattern>,
    names: Vec<String>,
    hive: Vec<(String, String)>,
    /// The names and pairs that the files share that are found now.
    folders: Arc<[String]>,
    values: Arc<[(String, String)]>,
    found: Found,
}

impl Walk<'_> {
    fn add(&mut self, path: PathBuf, metadata: &fs::Metadata, kind: Kind) {
        if *self.folders != self.names[..] {
            self.folders = self.names.as_slice().into();
        }
        if *self.values != self.hive[..] {
            self.values = self.hive.as_slice().into();
        }
        let (folders, values, is_ours) = (self.folders.clone(), self.values.clone(), self.listed.are_ours);
        let (Kind { compression, has_ending }, bytes, stamp) = (kind, metadata.len(), Stamp::of(metadata));
        let (span, reach, time_us, listed, held) = (None, None, None, self.begun, None);
        let file = DataFile { path, bytes, compression, has_ending, folders, values, span, reach, time_us, is_ours, stamp, listed, held };
        self.found.files.push(file);
    }

    fn folder(&mut self, folder: &Path, stamp: Stamp, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("folders are nested more than {MAX_DEPTH} deep; is there a loop of symbolic links?"))
                .on("folder", folder.display()));
        }
        let (mut stamp, mut entries) = (stamp, entries_of(folder)?);
        for _ in 0..if self.listed.are_ours { MOST_LISTINGS } else { 0 } {
            let now = fs::metadata(folder).map_err(|error| io_error(error, "look at", folder))?;
            if Stamp::of(&now) == stamp {
                break;
            }
            (stamp, entries) = (Stamp::of(&now), entries_of(folder)?);
        }
        self.found.folders.push((folder.to_owned(), stamp));
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut below = Vec::new();
        let looked_at = entries.into_iter().try_for_each(|(name, entry)| {
            let path = folder.join(&name);
            let Some(name) = name.to_str() else {
                let help = "a name is not UTF-8; rename it, or begin it with `_` if it is not data";
                return Err(Error::invalid(help).on("path", path.display()));
            };
            if let Some((log, format)) = LOGS.iter().find(|(log, _)| *log == name) {
                self.refuse_log(folder, &path, log, format)?;
            }
            if name.starts_with(['.', '_']) || self.listed.except.contains(&path.as_path()) || self.is_ignored(name) {
                return Ok(());
            }
            self.entry(folder, &entry, path, name, &mut below)
        });
        // What is wrong in a folder before is found first.
        self.below(&below, depth)?;
        looked_at
    }

    /// Lists folders, and puts what is in them where they are among the files.
    fn below(&mut self, below: &[Below], depth: usize) -> Result<()> {
        let list = |below: &Below| {
            let Below { path, stamp, names, hive, .. } = below;
            let found = Found { files: Vec::new(), folders: Vec::new() };
            let (folders, values) = (names.as_slice().into(), hive.as_slice().into());
            let (ignore, names, hive) = (self.ignore.clone(), names.clone(), hive.clone());
            let (root, listed, skip, begun) = (self.root, self.listed, self.skip, self.begun);
            let mut walk = Walk { root, listed, skip, begun, ignore, names, hive, folders, values, found };
            walk.folder(path, *stamp, depth + 1)?;
            Ok(walk.found)
        };
        let found = if below.len() >= MIN_PARALLEL_FOLDERS {
            threads::map_parallel(below, list)?
        } else {
            below.iter().map(list).collect::<Result<_>>()?
        };
        if found.is_empty() {
            return Ok(());
        }
        let own = std::mem::take(&mut self.found.files);
        self.found.files.reserve(own.len() + found.iter().map(|found| found.files.len()).sum::<usize>());
        let mut own = own.into_iter().enumerate().peekable();
        for (Below { after, .. }, found) in below.iter().zip(found) {
            while let Some((_, file)) = own.next_if(|(at, _)| at < after) {
                self.found.files.push(file);
            }
            self.found.files.extend(found.files);
            self.found.folders.extend(found.folders);
        }
        self.found.files.extend(own.map(|(_, file)| file));
        Ok(())
    }

    fn entry(&mut self, folder: &Path, entry: &fs::DirEntry, path: PathBuf, name: &str, folders: &mut Vec<Below>) -> Result<()> {
        let kind = entry.file_type().map_err(|error| io_error(error, "look at", &path))?;
        // Follows symbolic links. Where there is none, the name alone is looked up, in the folder that is open.
        let metadata = match if kind.is_symlink() { fs::metadata(&path) } else { entry.metadata() } {
            Ok(metadata) => metadata,
            // Its target may have been a folder of rows.
            Err(error) if error.kind() == io::ErrorKind::NotFound && kind.is_symlink() => {
                return Err(io_error(error, "follow the symbolic link", &path));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = format!("{} was removed while its folder was being listed; try again", path.display());
                return Err(Error::new(ErrorKind::Transient, message).because(error));
            }
            Err(error) => return Err(io_error(error, "look at", &path)),
        };
        if metadata.is_dir() {
            if let Some(is_left_out) = self.listed.is_left_out
                && is_left_out(&path)?
            {
                return Ok(());
            }
            if kind.is_symlink() {
                refuse_circle(folder, &path)?;
            }
            let value = name.split_once('=').map(|(column, value)| (percent_decode(column), percent_decode(value)));
            let names: Vec<String> = self.names.iter().cloned().chain([percent_decode(name)]).collect();
            let hive: Vec<(String, String)> = self.hive.iter().cloned().chain(value).collect();
            let stamp = Stamp::of(&metadata);
            let below = Folder { path: &path, stamp, names: &names, hive: &hive };
            if self.skip.is_none_or(|skip| !skip(&below)) {
                folders.push(Below { path, stamp, names, hive, after: self.found.files.len() });
            }
            return Ok(());
        }
        if let Some(only) = self.listed.only
            && !only.matches_with(&self.path_of(name), PATHS)
        {
            return Ok(());
        }
        if !metadata.is_file() {
            // Opening a pipe would wait for ever.
            return Err(Error::invalid(format!("{} is a pipe or a device, not a file; remove it", path.display())));
        }
        match Kind::of(self.listed.format, name) {
            Some(kind) => self.add(path, &metadata, kind),
            // A glob that names the file means it.
            None if self.listed.only.is_some() => {
                self.add(path, &metadata, Kind { compression: Compression::None, has_ending: true });
            }
            None => {
                if let Some(compression) = unread_compression(self.listed.format, name) {
                    let remedy = match self.listed.format {
                        Format::Parquet => "decompress it, since Parquet compresses within its files",
                        _ => "decompress it, or compress it with gzip, zstd or bzip2",
                    };
                    let path = path.display();
                    let message = format!(
                        "{path} is compressed with {compression}, which is not read here; {remedy}; or, if it holds no rows, begin its name with `_`"
                    );
                    return Err(Error::new(ErrorKind::Blind, message));
                }
                let endings: Vec<String> = self.listed.format.endings().iter().map(|ending| format!(".{ending}")).collect();
                let by_ending = name.rsplit_once('.').map_or_else(|| name.to_owned(), |(_, ending)| format!("*.{ending}"));
                return Err(Error::new(
                    ErrorKind::Blind,
                    format!(
                        "{} is not named like {} file ({}), so it is not clear whether it holds rows; if it does not, add `ignore: \
                         [\"{by_ending}\"]` to the table, or begin its name with `_`; if it does, rename it, or correct `format`",
                        path.display(),
                        match self.listed.format {
                            Format::Csv => "a CSV",
                            Format::Jsonl => "a JSON lines",
                            _ => "a Parquet",
                        },
                        endings.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The path below the location of a name in this folder.
    fn path_of(&self, name: &str) -> String {
        self.names.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("/")
    }

    fn is_ignored(&self, name: &str) -> bool {
        !self.ignore.is_empty() && {
            let below = self.path_of(name);
            self.ignore.iter().any(|glob| glob.matches_with(name, PATHS) || glob.matches_with(&below, PATHS))
        }
    }

    /// Refuses a folder in which a table format keeps its log: its files hold rows that were deleted or superseded, too.
    fn refuse_log(&self, folder: &Path, log: &Path, name: &str, format: &str) -> Result<()> {
        if self.listed.except.contains(&log) || self.is_ignored(name) {
            return Ok(());
        }
        if !is_folder(log)? {
            return Ok(());
        }
        // Only Iceberg's folder has a name that other folders may have.
        if name == "metadata" {
            let entries: Vec<fs::DirEntry> = fs::read_dir(log).and_then(Iterator::collect).map_err(|error| io_error(error, "list", log))?;
            if !entries.iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".metadata.json")) {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Blind,
            format!(
                "{} is a table of {format}: its files also hold rows that were deleted or replaced, so reading them as they are would give wrong \
                 numbers; export it to plain Parquet files and name that folder, or use a lake whose engine reads {format}, such as Athena",
                if folder.as_os_str().is_empty() { self.root.display() } else { folder.display() }
            ),
        ))
    }
}

/// Rejects a symbolic link to a folder that contains it, since its rows would be counted again and again.
fn refuse_circle(folder: &Path, link: &Path) -> Result<()> {
    let resolved = |path: &Path| path.canonicalize().map_err(|error| io_error(error, "follow the symbolic link", path));
    if resolved(folder)?.starts_with(resolved(link)?) {
        return Err(Error::invalid(format!("the symbolic link {} leads back to a folder that contains it; remove it", link.display())));
    }
    Ok(())
}

/// Hive writes `%XX` for characters that a folder's name cannot contain.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let coded = (first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match coded.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> Result<File> {
    disk::note(Act::Open, path);
    File::open(path).map_err(|error| io_error(error, "read", path))
}

/// What an error of the file system means to a workflow.
pub(crate) fn io_error(error: io::Error, doing: &str, path: &Path) -> Error {
    use io::ErrorKind as Io;
    let path = path.display();
    let (kind, message) = match error.kind() {
        Io::NotFound => (ErrorKind::NotFound, format!("could not {doing} {path}: it does not exist; did something else remove it?")),
        Io::PermissionDenied => (
            ErrorKind::Denied,
            format!("not allowed to {doing} {path}; give that permission to the user that runs this, or choose another place"),
        ),
        Io::ReadOnlyFilesystem => {
            (ErrorKind::Denied, format!("could not {doing} {path}: its file system is read-only; choose another place"))
        }
        Io::StorageFull | Io::QuotaExceeded => {
            (ErrorKind::Transient, format!("could not {doing} {path}: the disk is full; free some space"))
        }
        Io::AlreadyExists => {
            (ErrorKind::Invalid, format!("could not {doing} {path}: something else is there under that name; move it away"))
        }
        Io::NotADirectory | Io::IsADirectory | Io::InvalidData | Io::UnexpectedEof | Io::InvalidFilename => {
            (ErrorKind::Invalid, format!("could not {doing} {path}"))
        }
        _ => (ErrorKind::Transient, format!("could not {doing} {path}")),
    };
    Error::new(kind, message).because(error)
}

/// What is at a path, symbolic links followed; `None` if nothing is. What cannot be looked at is an error and never "nothing": who takes the
/// one for the other begins anew, or reads what it should not.
pub(crate) fn there(path: &Path) -> Result<Option<fs::FileType>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(io_error(error, "look at", path)),
    }
}

/// Whether a folder is at a path.
pub(crate) fn is_folder(path: &Path) -> Result<bool> {
    Ok(there(path)?.is_some_and(|kind| kind.is_dir()))
}

/// A path without symbolic links; `None` if nothing is there.
pub(crate) fn real(path: &Path) -> Result<Option<PathBuf>> {
    match path.canonicalize() {
        Ok(real) => Ok(Some(real)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(io_error(error, "follow the links of", path)),
    }
}

/// Folders whose own names are known to be on the disk. Whatever is above one of them, is too.
static KEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Beyond this many known folders all are forgotten, and looked after again: a table may have a folder for each hour of many years.
const MAX_KEPT: usize = 65_536;

fn kept() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets a folder and those below it. They follow each other, since paths are in the order of their names; to look at all would take long where many
/// are known.
fn forget_below(folder: &Path) {
    let mut kept = kept();
    let below: Vec<PathBuf> = kept.range(folder.to_owned()..).take_while(|known| known.starts_with(folder)).cloned().collect();
    for known in below {
        kept.remove(&known);
    }
}

/// A folder that was there before us, so that its name is not ours to keep.
pub(crate) fn trust_folder(folder: &Path) {
    kept().insert(folder.to_owned());
}

/// Creates a folder and those above it, so that they survive a loss of power. That includes those which are there: another thread, or a
/// process that was killed, may have made one just now, and what we put into it must not be lost with its name.
pub(crate) fn create_folder(folder: &Path) -> Result<()> {
    let is_kept = kept().contains(folder);
    let mut missing = Vec::new();
    for above in folder.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        if is_folder(above)? {
            break;
        }
        missing.push(above);
    }
    if is_kept && missing.is_empty() {
        return Ok(());
    }
    if let Some(highest) = missing.last() {
        forget_below(highest);
        fs::create_dir_all(folder).map_err(|error| io_error(error, "create the folder", folder))?;
    }
    let to_keep: Vec<&Path> = {
        let kept = kept();
        folder.ancestors().take_while(|above| !kept.contains(*above)).collect()
    };
    for made in to_keep.iter().rev() {
        let Some(parent) = made.parent().filter(|parent| !parent.as_os_str().is_empty()) else { continue };
        match sync_folder(parent) {
            // Others made it, where we may not look, or where folders cannot be flushed.
            Err(error) if !missing.contains(made) && !matches!(error.kind(), ErrorKind::Transient) => {}
            synced => synced?,
        }
    }
    let mut kept = kept();
    if kept.len() + to_keep.len() > MAX_KEPT {
        // Those of the folders that are always there come back with the next write.
        kept.clear();
    }
    kept.extend(to_keep.into_iter().map(Path::to_owned));
    Ok(())
}

/// Removes a folder if it is empty.
pub(crate) fn remove_empty_folder(folder: &Path) {
    forget_below(folder);
    // One into which someone has put something meanwhile stays.
    let _ = fs::remove_dir(folder);
}

/// Makes changes of names in a folder survive a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Windows has no handle of a folder to sync; its journal keeps names.
    if cfg!(unix) {
        open(folder)?.sync_all().map_err(|error| io_error(error, "write to", folder))?;
    }
    Ok(())
}

/// The prefix and suffix of the name of an unfinished file.
const UNFINISHED: (&str, &str) = (".writing-", ".tmp");

/// An unfinished file, under a name that no table includes; removed when it is dropped.
pub(crate) fn temporary_in(folder: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED.0).suffix(UNFINISHED.1);
    // Temporary files are private to their owner, but these become tables, which other programs read.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(|error| io_error(error, "write to", folder))
}

/// Writes a file whole or not at all: to a hidden name beside it, to disk, then renamed. Creates its folders. Returns its size.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<u64> {
    let folder = path.parent().ok_or_else(|| Error::internal("a file to write has no folder").on("path", path.display()))?;
    create_folder(folder)?;
    let temporary = temporary_in(folder)?;
    // The lock shows cleaners that it is being written; where files cannot be locked, its age does.
    let _ = temporary.as_file().try_lock();
    let mut writer = BufWriter::with_capacity(1 << 18, temporary.as_file());
    write(&mut writer)?;
    writer.flush().map_err(|error| io_error(error, "write", path))?;
    drop(writer);
    temporary.as_file().sync_all().map_err(|error| io_error(error, "write", path))?;
    let bytes = temporary.as_file().metadata().map_err(|error| io_error(error, "look at", path))?.len();
    temporary.persist(path).map_err(|error| io_error(error.error, "write", path))?;
    sync_folder(folder)?;
    Ok(bytes)
}

/// Makes a finished file, which nobody changes in place, known by a second name, in place of what has that name. Creates its folders. Where files
/// cannot have two names, it is copied.
pub(crate) fn link_whole(source: &Path, path: &Path) -> Result<()> {
    let folder = path.parent().ok_or_else(|| Error::internal("a file to write has no folder").on("path", path.display()))?;
    create_folder(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED.0).suffix(UNFINISHED.1);
    let Ok(linked) = builder.make_in(folder, |name| fs::hard_link(source, name)) else {
        let mut from = open(source)?;
        write_whole(path, |file| io::copy(&mut from, file).map(|_| ()).map_err(|error| io_error(error, "copy", source)))?;
        return Ok(());
    };
    let linked = linked.into_temp_path();
    let unfinished = linked.to_path_buf();
    linked.persist(path).map_err(|error| io_error(error.error, "write", path))?;
    // To rename a file to another of its names does nothing.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error, "remove", &unfinished)),
        _ => {}
    }
    sync_folder(folder)
}

/// Writes a small file whole, unless there is one; then that one stays. Creates its folders.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().ok_or_else(|| Error::internal("a file to write has no folder").on("path", path.display()))?;
    create_folder(folder)?;
    let mut temporary = temporary_in(folder)?;
    let _ = temporary.as_file().try_lock();
    temporary.write_all(bytes).and_then(|()| temporary.as_file().sync_all()).map_err(|error| io_error(error, "write", path))?;
    match temporary.persist_noclobber(path) {
        Ok(_) => {}
        // Its writer may not have flushed its name yet.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        // Some file systems have no way to rename without replacing. Theirs are not shared by processes that begin at the same instant.
        Err(error)
            if matches!(error.error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) && there(path)?.is_none() =>
        {
            error.file.persist(path).map_err(|error| io_error(error.error, "write", path))?;
        }
        Err(error) => return Err(io_error(error.error, "write", path)),
    }
    sync_folder(folder)
}

/// Removes a file, which may be gone already: then the one who removed it may have been killed before that was on the disk. Returns whether
/// it was there.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    let was_there = match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(io_error(error, "remove", path)),
    };
    match path.parent() {
        Some(folder) if was_there || is_folder(folder)? => sync_folder(folder)?,
        _ => {}
    }
    Ok(was_there)
}

/// Removes files of a folder, which may be gone already, and syncs the folder once.
pub(crate) fn remove_all(folder: &Path, paths: &[PathBuf]) -> Result<()> {
    let mut removed = false;
    for path in paths {
        match fs::remove_file(path) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(error, "remove", path)),
        }
    }
    if removed { sync_folder(folder) } else { Ok(()) }
}

/// An unfinished file that nobody holds, and that nobody has written to for this long, was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(86_400);

/// Removes unfinished files below a folder that dead processes have left. A live writer's file is locked, so it stays, however old. What
/// cannot be checked or removed stays too, since nobody reads it.
pub(crate) fn remove_abandoned(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let (name, kind) = (entry.file_name(), entry.file_type());
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                folders.push(entry.path());
                continue;
            }
            let is_unfinished = name.to_str().is_some_and(is_unfinished);
            let is_old = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED));
            if is_unfinished && is_old && kind.is_ok_and(|kind| kind.is_file()) && is_unlocked(&entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether a name is that of an unfinished file, or of one that SQLite keeps beside it.
fn is_unfinished(name: &str) -> bool {
    let name = ["-journal", "-wal", "-shm"].iter().find_map(|beside| name.strip_suffix(beside)).unwrap_or(name);
    name.starts_with(UNFINISHED.0) && name.ends_with(UNFINISHED.1)
}

fn is_unlocked(path: &Path) -> bool {
    File::options().write(true).open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Checks that a folder can be written to, with a file that is removed before anyone sees it.
pub(crate) fn check_writable(folder: &Path) -> Result<()> {
    let mut temporary = temporary_in(folder)?;
    temporary
        .write_all(b"may this be written?")
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(|error| io_error(error, "write to", folder))?;
    temporary.close().map_err(|error| io_error(error, "remove a file in", folder))
}
