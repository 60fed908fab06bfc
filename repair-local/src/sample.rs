//! A look at a few files of a folder, for those who must guess how to describe it. It must not know what a guess is.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use arrow::datatypes::DataType;
use repair_core::model::{Csv, Encoding, Format, Table};
use repair_core::{Error, ErrorKind, Result};

use crate::files::{self, DataFile, Kind, Listed};
use crate::{owner, read};

pub use crate::read::{Stamp, stamp};

/// How many files are looked at: the first, the last, and some between.
pub const MOST_FILES: usize = 20;

/// How many rows are looked at, of all files together.
pub const MOST_ROWS: usize = 50_000;

/// How many bytes of each text file are looked at for its delimiter and its encoding.
const HEAD_BYTES: u64 = 256 << 10;

/// A folder with more files than this is a lake, not a table.
const MOST_NAMES: usize = 1_000_000;

const FORMATS: [Format; 3] = [Format::Parquet, Format::Csv, Format::Jsonl];

/// A few files of a folder.
#[derive(Debug)]
pub struct Sample {
    format: Format,
    ignore: Vec<String>,
    files: Vec<DataFile>,
    /// The names of folders and file of each.
    names: Vec<Vec<String>>,
    looked_at: Vec<usize>,
}

/// Rows of one file, as text.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SampledRows {
    /// The names of the columns; of one within a record, its path, with dots.
    pub names: Vec<String>,
    /// Whether each column is within a record.
    pub nested: Vec<bool>,
    /// The types of the columns, where the file has types.
    pub kinds: Vec<Option<DataType>>,
    /// The values of each column; none where a value is missing or empty.
    pub columns: Vec<Vec<Option<String>>>,
    /// How many records have another number of fields than the header, or are no records.
    pub odd: usize,
    /// Whether these are all rows of the file.
    pub is_whole: bool,
}

/// How the text of a file begins.
#[derive(Debug)]
#[non_exhaustive]
pub struct Head {
    /// The text, without a line that is cut.
    pub text: String,
    /// How it is encoded, unless a mark in the file says so.
    pub encoding: Encoding,
}

/// The names of the files below a folder, as [`files::list`] sees them.
#[derive(Default)]
struct Names {
    files: Vec<(String, std::path::PathBuf)>,
    /// Folders in which a table format seems to keep its log.
    has_log: bool,
}

impl Names {
    fn walk(&mut self, folder: &Path, depth: usize) -> Result<()> {
        if depth > files::MAX_DEPTH {
            return Ok(());
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| files::io_error(error, "list", folder))?;
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            self.has_log |= files::LOGS.iter().any(|(log, _)| *log == name);
            if name.starts_with(['.', '_']) {
                continue;
            }
            if files::is_folder(&path)? {
                if !owner::is_overlay(&path)? {
                    self.walk(&path, depth + 1)?;
                }
            } else {
                self.files.push((name, path));
            }
            if self.files.len() > MOST_NAMES {
                return Err(Error::invalid(format!("there are more than {MOST_NAMES} files below it; name the folder of one table")));
            }
        }
        Ok(())
    }
}

/// What the content of a file without an ending is.
fn format_of_content(path: &Path) -> Option<Format> {
    let mut start = [0; 4];
    let read = files::open(path).ok()?.read(&mut start).ok()?;
    Some(match start.get(..read)? {
        b"PAR1" => Format::Parquet,
        [b'{', ..] => Format::Jsonl,
        [] => return None,
        _ => Format::Csv,
    })
}

/// Whether a file of this name holds rows, and whether some lines of it are enough to look at; `None` if it is no file of rows.
pub fn has_lines(name: &str) -> Option<bool> {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    if !name.contains('.') {
        return Some(false);
    }
    let format = FORMATS.iter().find(|format| Kind::of(**format, name).is_some())?;
    let is_plain = name.rsplit_once('.').is_some_and(|(_, ending)| format.endings().iter().any(|known| ending.eq_ignore_ascii_case(known)));
    Some(*format != Format::Parquet && is_plain)
}

impl Sample {
    /// Lists the files of a folder, and chooses those that are looked at.
    ///
    /// # Errors
    /// `not-found` if there is no such folder or no file with rows in it; `invalid` if its files have several formats; `blind` if it is a table
    /// of Delta Lake, Apache Hudi or Apache Iceberg.
    pub fn open(folder: &Path) -> Result<Self> {
        let named = |error: Error| error.on("folder", folder.display());
        match fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(named(Error::invalid("it is a file; name the folder in which the files of the table are"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no folder {}; correct the name", folder.display())));
            }
            Err(error) => return Err(files::io_error(error, "look at", folder)),
        }
        let mut names = Names::default();
        names.walk(folder, 0)?;
        let mut of_format: [Vec<&str>; 3] = Default::default();
        let (mut ignore, mut without_ending) = (BTreeSet::new(), Vec::new());
        for (name, path) in &names.files {
            match (name.contains('.'), FORMATS.iter().position(|format| Kind::of(*format, name).is_some())) {
                (true, Some(at)) => of_format[at].push(name),
                (false, _) => without_ending.push(path),
                (true, None) => {
                    ignore.insert(format!("*.{}", name.rsplit_once('.').map_or("", |(_, ending)| ending)));
                }
            }
        }
        let found: Vec<usize> = (0..FORMATS.len()).filter(|&at| !of_format[at].is_empty()).collect();
        let ignore: Vec<String> = ignore.into_iter().collect();
        let format = match found.as_slice() {
            [one] => FORMATS[*one],
            [] => match without_ending.iter().find_map(|path| format_of_content(path)) {
                Some(format) => format,
                None if names.has_log => Format::Parquet,
                None => {
                    let others = if ignore.is_empty() { String::new() } else { format!(" (there are only {})", ignore.join(", ")) };
                    return Err(named(Error::new(
                        ErrorKind::NotFound,
                        format!(
                            "there is no file of rows in it{others}; name the folder that holds the files of a table: .csv, .parquet or .jsonl"
                        ),
                    )));
                }
            },
            several => {
                let counted: Vec<String> =
                    several.iter().map(|&at| format!("{} of {}", of_format[at].len(), FORMATS[at].as_str())).collect();
                return Err(named(Error::invalid(format!(
                    "its files have several formats: {}; a table has one, so name a folder for each, or move the others away",
                    counted.join(", ")
                ))));
            }
        };
        let listed = Listed { format, ignore: &ignore, except: &[], only: None, is_left_out: Some(owner::is_overlay), are_ours: false };
        let files = files::list(folder, &listed)?.unwrap_or_default();
        let with_bytes: Vec<usize> = (0..files.len()).filter(|&at| files[at].bytes > 0).collect();
        let (all, most) = (with_bytes.len(), with_bytes.len().min(MOST_FILES));
        if most == 0 {
            return Err(named(Error::new(ErrorKind::NotFound, "all of its files are empty; name a folder of files with rows")));
        }
        // The first, the last, and those between at equal distances.
        let looked_at = (0..most).map(|nth| with_bytes[if most == 1 { 0 } else { nth * (all - 1) / (most - 1) }]).collect();
        let names = files.iter().map(|file| file.names().into_iter().map(str::to_owned).collect()).collect();
        Ok(Self { format, ignore, files, names, looked_at })
    }

    /// The format of its files.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Globs of the files that are not named like files of the format.
    pub fn ignore(&self) -> &[String] {
        &self.ignore
    }

    /// The names of folders and file of each file below the folder.
    pub fn paths(&self) -> impl Iterator<Item = &[String]> {
        self.names.iter().map(Vec::as_slice)
    }

    /// How many files are looked at.
    pub fn files(&self) -> usize {
        self.looked_at.len()
    }

    fn file(&self, nth: usize) -> Result<&DataFile> {
        let file = self.looked_at.get(nth).and_then(|&at| self.files.get(at));
        file.ok_or_else(|| Error::internal("a file was asked for that the sample does not have"))
    }

    /// The names of folders and file of a file that is looked at.
    pub fn path(&self, nth: usize) -> &[String] {
        self.looked_at.get(nth).and_then(|&at| self.names.get(at)).map_or(&[], Vec::as_slice)
    }

    /// The values of columns in the path of a file that is looked at, as in folders named `column=value`.
    pub fn path_values(&self, nth: usize) -> &[(String, String)] {
        self.file(nth).map_or(&[], |file| &file.values)
    }

    /// How the text of a file begins.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn head(&self, nth: usize) -> Result<Head> {
        let file = self.file(nth)?;
        read::guarded(file, || read::head(file, HEAD_BYTES))
    }

    /// Rows of a file: the first ones, and the last ones where they can be reached without reading the whole file. Of the table, only what it
    /// says about its text counts.
    ///
    /// # Errors
    /// If the file cannot be read in this way.
    pub fn rows(&self, nth: usize, csv: &Csv) -> Result<SampledRows> {
        let file = self.file(nth)?;
        let mut table = Table::new("sample", self.format, "");
        table.csv = csv.clone();
        let most = MOST_ROWS / self.files();
        read::guarded(file, || read::sample(&table, file, most))
    }
}
