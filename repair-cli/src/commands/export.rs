//! `repair export`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use repair::core::lake::Layer;
use repair::core::model::Format;
use repair::reading::{Destination, Exported, format_of};
use repair::{Error, Hint, Result};

use super::{IntervalArg, TableArg};
use crate::exit::Exit;
use crate::output::{Failure, RowsAs, count, failure_of_rows, print_json, print_lines, remark, rows_out};

/// Write a table's repaired view, or its own rows, to a file that other tools read.
///
/// The table is one that a workflow declares, or one that an aggregate step has made. The rows come in no particular order. Times are
/// ISO 8601 in UTC; in CSV, nulls are empty. A file is there whole or not at all, and is never written into a table or its repairs.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    table: TableArg,
    /// The file to write; `-` writes CSV or JSON lines to standard output.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// How rows are written [default: as the name of the file ends: .csv, .jsonl or .parquet].
    #[arg(long)]
    format: Option<RowFormat>,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
    /// Which rows: the repaired view, or the table's own.
    #[arg(long, default_value = "repaired")]
    layer: LayerArg,
    /// Only this series; may be repeated. Separate the values of a key of several columns by commas.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    interval: IntervalArg,
    /// Print a JSON object about what was written.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A format of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// Comma-separated values.
    Csv,
    /// One JSON object on each line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl From<RowFormat> for Format {
    fn from(format: RowFormat) -> Self {
        match format {
            RowFormat::Csv => Self::Csv,
            RowFormat::Jsonl => Self::Jsonl,
            RowFormat::Parquet => Self::Parquet,
        }
    }
}

/// A layer of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayerArg {
    /// The table's rows with its repairs; two more columns say which are repaired, and by what.
    Repaired,
    /// The table's own rows.
    Raw,
}

impl Export {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let format = file_format(&self.out, self.format)?;
        let to = destination(&self.out, format, self.force, self.json)?;
        let (within, is_file) = (self.interval.within(), to.path().is_some());
        let (table, workflow, lake) = self.table.open(lake_before)?;
        let layer = match self.layer {
            LayerArg::Repaired => Layer::Repaired,
            LayerArg::Raw => Layer::Raw,
        };
        let request = lake.export(table, format, to).layer(layer).keys(self.keys).interval(within).declared_in(workflow.as_deref());
        let exported = request.await.map_err(failure_of_rows)?;
        if let Some(unread) = &exported.unread {
            remark(&format!("note: {unread}"));
        }
        if self.json {
            print_json(&exported)?;
        } else if is_file {
            print_lines(&said(&exported))?;
        } else {
            remark(&said(&exported).join("\n"));
        }
        Ok(Exit::Success)
    }
}

/// The format that was named, or that of the file's name.
pub(super) fn file_format(out: &Path, named: Option<RowFormat>) -> Result<Format> {
    if let Some(named) = named {
        return Ok(named.into());
    }
    format_of(out).ok_or_else(|| {
        let what =
            if out == Path::new("-") { "standard output has no name".to_owned() } else { format!("{} does not end in one", out.display()) };
        Error::invalid(format!("nothing says in which format to write, since {what}; use --format csv, jsonl or parquet"))
    })
}

/// Where rows go: a file, or standard output.
pub(super) fn destination(out: &Path, format: Format, force: bool, json: bool) -> Result<Destination> {
    if out != Path::new("-") {
        return Ok(if force { Destination::replacing(out) } else { Destination::file(out) });
    }
    if json {
        return Err(Error::invalid("standard output takes either rows or --json; write the rows to a file with --out FILE"));
    }
    match format {
        Format::Csv => Ok(Destination::writer(rows_out(RowsAs::Lines))),
        Format::Jsonl => Ok(Destination::writer(rows_out(RowsAs::Json))),
        _ => {
            Err(Error::invalid("Parquet is not written to standard output; name a file with --out FILE")
                .hint(Hint::FileFormat { name: "csv" }))
        }
    }
}

/// What was written, for people.
fn said(exported: &Exported) -> Vec<String> {
    let Exported { table, layer, path, rows, repaired, patched, stale, left_out, .. } = exported;
    let to = path.as_ref().map(|path| format!(" to {}", path.display())).unwrap_or_default();
    let of = match layer {
        Layer::Repaired => format!("{repaired} of them repaired, {patched} with repaired cells"),
        Layer::Raw => "its own rows".to_owned(),
    };
    let mut lines = vec![format!("{} of table {table} written{to}: {of}", count(*rows, "row"))];
    lines.extend(left_out.iter().map(|why| format!("note: {why}, so it is not in the rows; write it in one way in all files")));
    lines.extend(stale.iter().map(|part| format!("note: stale in {part}: rows it was computed from have been undone since")));
    lines
}
