//! `repair query`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use repair::core::text::visible;
use repair::reading::Rows;
use repair::{Error, Repair};

use super::export::{RowFormat, destination, file_format};
use crate::exit::Exit;
use crate::open::{LakeArg, by_name, parameter};
use crate::output::{Failure, count, failure_of_rows, print, print_json, remark, table};

/// How many rows people see.
const MOST_SHOWN: usize = 1_000;

/// Ask in SQL over a workflow's tables and their repaired views. It only reads.
///
/// Each table has its own name, and its repaired view has that name with `_repaired`, such as `bars_repaired`. In a lake in a folder, the
/// dialect is that of DataFusion; in S3, it is that of Athena.
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The query: one SELECT.
    sql: String,
    /// The workflow whose tables the query names.
    #[arg(long, value_name = "FILE")]
    workflow: PathBuf,
    /// Where the tables are, by its name under `profiles` [default: local, or the only one].
    #[arg(long)]
    profile: Option<String>,
    /// A parameter of the workflow; may be repeated. Separate the values of a list by commas.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// How rows are written [default: as the name of the file ends; without a file, as a table].
    #[arg(long)]
    format: Option<AnswerFormat>,
    /// The file to write, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long, requires = "out")]
    force: bool,
    /// Print a JSON object: what was written to the file, or the first rows, as text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AnswerFormat {
    /// The first 1,000 rows, for people.
    Table,
    /// Comma-separated values.
    Csv,
    /// One JSON object on each line.
    Jsonl,
    /// Apache Parquet; needs a file.
    Parquet,
}

impl AnswerFormat {
    fn of_file(self) -> Option<RowFormat> {
        match self {
            Self::Table => None,
            Self::Csv => Some(RowFormat::Csv),
            Self::Jsonl => Some(RowFormat::Jsonl),
            Self::Parquet => Some(RowFormat::Parquet),
        }
    }
}

impl Query {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let format = self.format.and_then(AnswerFormat::of_file);
        let as_table = format.is_none() && (self.out.is_none() || self.format.is_some());
        if as_table && self.out.is_some() {
            return Err(Error::invalid("a table is for people, and is not written to a file; use --format csv, jsonl or parquet").into());
        }
        let opening = Repair::open(self.workflow).profile(self.profile.as_deref()).params(by_name(self.params)?);
        if as_table {
            let repair = self.lake.connect(lake_before, opening).await?;
            let rows = repair.query(self.sql).first(MOST_SHOWN).await?;
            note(&rows.unread);
            if self.json {
                print_json(&rows)?;
            } else {
                print(&shown(&rows))?;
            }
            return Ok(Exit::Success);
        }
        let out = self.out.as_deref().unwrap_or(Path::new("-"));
        let format = file_format(out, format)?;
        let to = destination(out, format, self.force, self.json)?;
        let is_file = to.path().is_some();
        let repair = self.lake.connect(lake_before, opening).await?;
        let queried = repair.query(self.sql).write(format, to).await.map_err(failure_of_rows)?;
        note(&queried.unread);
        if self.json {
            print_json(&queried)?;
            return Ok(Exit::Success);
        }
        let scanned = scanned(queried.bytes_scanned);
        if is_file {
            print(&visible(&format!("{} written to {}{scanned}", count(queried.rows, "row"), out.display())))?;
        } else if queried.rows == 0 || !scanned.is_empty() {
            remark(&format!("{}{scanned}", count(queried.rows, "row")));
        }
        Ok(Exit::Success)
    }
}

/// Says, beside the rows, which rows of the tables are not seen.
fn note(unread: &[String]) {
    unread.iter().for_each(|unread| remark(&format!("note: {unread}")));
}

/// The first rows, for people.
fn shown(rows: &Rows) -> String {
    let columns: Vec<_> = rows.columns.iter().map(|name| visible(name)).collect();
    let cells: Vec<Vec<String>> = rows.rows.iter().map(|row| row.iter().map(|cell| cell.clone().unwrap_or_default()).collect()).collect();
    let scanned = scanned(rows.bytes_scanned);
    let end = if rows.has_more {
        format!("note: these are the first {MOST_SHOWN} rows; --format csv writes all{scanned}")
    } else {
        format!("{}{scanned}", count(rows.rows.len() as u64, "row"))
    };
    if rows.rows.is_empty() {
        return end;
    }
    format!("{}\n\n{end}", table(&columns.iter().map(AsRef::as_ref).collect::<Vec<_>>(), &cells))
}

fn scanned(bytes: Option<u64>) -> String {
    bytes.map(|bytes| format!("; the query read {bytes} bytes")).unwrap_or_default()
}
