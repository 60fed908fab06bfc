//! A listing as comma-separated values. While it is small it stays in memory, to be embedded in the page; what is larger is written to a
//! file as it comes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use repair_core::{Error, ErrorKind, Result};

/// How much is kept in memory and embedded in the page. With three listings, a page stays well below three megabytes.
pub(super) const MOST_EMBEDDED: usize = 160 << 10;

/// All rows of a listing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Csv {
    /// There is nothing.
    #[default]
    Nothing,
    /// The text itself.
    Embedded(String),
    /// The text is in a file beside the page.
    Beside(PathBuf),
    /// The text was too long to be kept, and there was no page beside which to put it.
    LeftOut,
}

/// Writes a listing.
pub(super) struct CsvWriter {
    text: String,
    /// Where it goes if it gets too long.
    path: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    is_full: bool,
}

impl CsvWriter {
    /// A listing with these columns, which goes to a file of this name if it gets long.
    pub(super) fn new(columns: &[&str], path: Option<PathBuf>) -> Self {
        let mut writer = Self { text: String::new(), path, file: None, is_full: false };
        writer.text = line(columns.iter().map(|name| (*name).to_owned()));
        writer
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) -> Result<()> {
        if self.is_full {
            return Ok(());
        }
        self.text.push_str(&line(cells));
        if self.text.len() <= MOST_EMBEDDED {
            return Ok(());
        }
        let Some(path) = &self.path else {
            self.is_full = true;
            self.text = String::new();
            return Ok(());
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(BufWriter::new(File::create(path).map_err(|error| unwritten(path, error))?)),
        };
        file.write_all(self.text.as_bytes()).map_err(|error| unwritten(path, error))?;
        self.text.clear();
        Ok(())
    }

    /// All of it.
    pub(super) fn finish(mut self, rows: u64) -> Result<Csv> {
        if self.is_full {
            return Ok(Csv::LeftOut);
        }
        match (self.file.as_mut(), self.path) {
            (Some(file), Some(path)) => {
                let written = file.write_all(self.text.as_bytes()).and_then(|()| file.flush());
                written.map_err(|error| unwritten(&path, error))?;
                Ok(Csv::Beside(path))
            }
            _ if rows == 0 => Ok(Csv::Nothing),
            _ => Ok(Csv::Embedded(self.text)),
        }
    }
}

fn unwritten(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, format!("{} cannot be written; choose another place for the report", path.display())).because(error)
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|cell| quoted(&cell)).collect();
    format!("{}\n", cells.join(","))
}

/// A cell. A spreadsheet would compute what begins like a formula, so such text gets an apostrophe in front; control characters are
/// escaped.
fn quoted(cell: &str) -> String {
    let text = super::picture::markup::visible(cell);
    let text = repair_core::text::inert(&text);
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_data_to_whatever_opens_it() {
        let cells = ["IBM", "a,b", "say \"hi\"", "=1+1", "-4.5", "-cmd", "\u{1b}[31m"].map(quoted);
        assert_eq!(cells, ["IBM", "\"a,b\"", "\"say \"\"hi\"\"\"", "'=1+1", "-4.5", "'-cmd", "\\u{1b}[31m"]);
    }

    #[test]
    fn what_is_long_goes_to_a_file_and_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("defects.csv");
        let mut writer = CsvWriter::new(&["number"], Some(path.clone()));
        let rows = 100_000u64;
        (0..rows).for_each(|number| writer.row([number.to_string()]).unwrap());
        assert_eq!(writer.finish(rows).unwrap(), Csv::Beside(path.clone()));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!((text.lines().count() as u64, text.lines().last()), (rows + 1, Some("99999")));
        let mut nowhere = CsvWriter::new(&["number"], None);
        (0..rows).for_each(|number| nowhere.row([number.to_string()]).unwrap());
        assert_eq!(nowhere.finish(rows).unwrap(), Csv::LeftOut);
    }
}
