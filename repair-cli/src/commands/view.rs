//! `repair view`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use repair::core::text::visible;
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
        let named = self.table.lake.named().map(Path::to_owned).or_else(|| lake_before.clone());
        let (table, workflow, lake) = self.table.open(lake_before)?;
        let tool = match self.tool {
            ToolArg::Duckdb => Tool::DuckDb,
            ToolArg::Polars => Tool::Polars,
            ToolArg::Pandas => Tool::Pandas,
            ToolArg::Athena => Tool::Athena,
        };
        let view = lake.view(table, tool).declared_in(workflow.as_deref()).await?;
        if self.json {
            print_json(&view)?;
        } else {
            print(&text(&view, workflow.as_deref(), named.as_deref()))?;
        }
        Ok(Exit::Success)
    }
}

fn text(view: &ReadingView, workflow: Option<&Path>, lake: Option<&Path>) -> String {
    let Some(file) = &view.export_to else { return view.snippet.clone() };
    let comment = if view.tool == Tool::DuckDb { "--" } else { "#" };
    let mut command = format!("repair export {} --out {}", word(&view.table), word(file));
    for (flag, path) in [("--workflow", workflow), ("--lake", lake)] {
        command.extend(path.map(|path| format!(" {flag} {}", word(&path.display().to_string()))));
    }
    format!("{comment} first, in a shell: {}\n{}", visible(&command), view.snippet)
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
