//! `repair view`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use repair::reading::{ReadingView, Tool};

use super::TableArg;
use crate::exit::Exit;
use crate::output::{Failure, print, print_json};

/// Show how DuckDB, Polars, pandas or Athena reads a table's repaired view.
///
/// It prints what to run: first `repair export`, then a statement or some lines of Python. Athena has the view itself.
#[derive(Debug, Args)]
pub(crate) struct View {
    #[command(flatten)]
    table: TableArg,
    /// The tool.
    #[arg(long = "for", value_name = "TOOL")]
    tool: ToolArg,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ToolArg {
    /// DuckDB, in SQL.
    Duckdb,
    /// Polars, in Python.
    Polars,
    /// pandas, in Python, with pyarrow.
    Pandas,
    /// Amazon Athena, in SQL.
    Athena,
}

impl View {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let (table, workflow, lake) = self.table.open(lake_before)?;
        let tool = match self.tool {
            ToolArg::Duckdb => Tool::DuckDb,
            ToolArg::Polars => Tool::Polars,
            ToolArg::Pandas => Tool::Pandas,
            ToolArg::Athena => Tool::Athena,
        };
        let view = lake.view(table, tool).declared_in(workflow.as_deref()).await?;
        if self.json {
            print_json(&view)?
        } else {
            print(&text(&view))?
        }
        Ok(Exit::Success)
    }
}

fn text(view: &ReadingView) -> String {
    let comment = if matches!(view.tool, Tool::DuckDb | Tool::Athena) { "--" } else { "#" };
    match &view.export_to {
        Some(file) => {
            format!("{comment} first, in a shell: repair export {} --out {} --force\n{}", word(&view.table), word(file), view.snippet)
        }
        None => view.snippet.clone(),
    }
}

/// A word of a shell.
fn word(text: &str) -> String {
    let is_plain = |of: char| of.is_ascii_alphanumeric() || matches!(of, '_' | '-' | '.' | '/');
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
