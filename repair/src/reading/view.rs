//! How another tool reads a table's repaired view. A tool that knows nothing of repairs reads a file with the view's rows; Athena has the
//! view itself.

use std::path::Path;

use serde::Serialize;

use super::table;
use crate::open::OpenLake;
use crate::provenance::subject::TableName;
use crate::request::awaitable;
use repair_core::engine::JsonFormat;
use repair_core::lake::{name, overlay};
use repair_core::{Error, Result};

/// A tool that reads tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tool {
    /// DuckDB, in SQL.
    DuckDb,
    /// Polars, in Python.
    Polars,
    /// pandas, in Python, with pyarrow.
    Pandas,
    /// Amazon Athena, in SQL.
    Athena,
}

/// How a tool reads a repaired view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReadingView {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The table.
    pub table: String,
    /// The tool.
    pub tool: Tool,
    /// The Parquet file to which the table is exported first; `None` if the tool reads the lake itself.
    pub export_to: Option<String>,
    /// What the tool then runs.
    pub snippet: String,
}

/// Asks how a tool reads a repaired view: await it. [`OpenLake::view`] makes it.
#[must_use = "nothing is looked up before this is awaited"]
pub struct ViewRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
    tool: Tool,
}

impl ViewRequest<'_> {
    /// Takes the table from this workflow instead of the latest run that had it.
    pub fn declared_in<'b>(mut self, workflow: impl Into<Option<&'b Path>>) -> Self {
        self.table.declared_in(workflow.into());
        self
    }

    async fn perform(self) -> Result<ReadingView> {
        let Self { open, table, tool } = self;
        let found = table::find(&table, open).await?;
        let table = found.subject.table.name;
        // The variable or view that the snippet makes.
        let plain = |text: &str| text.chars().map(|of| if of.is_ascii_alphanumeric() { of } else { '_' }).collect::<String>();
        let shown = if found.is_computed { plain(&table) } else { overlay::repaired_view(&plain(&table)) };
        let shown = if shown.starts_with(|first: char| first.is_ascii_digit()) { format!("_{shown}") } else { shown };
        let file = format!("{}.parquet", if found.is_computed { name::part(&table) } else { overlay::repaired_view(&name::part(&table)) });
        let in_sql = format!("'{}'", file.replace('\'', "''"));
        let in_python = serde_json::to_string(&file).map_err(|error| Error::internal("a text cannot be written as JSON").because(error))?;
        let snippet = match tool {
            Tool::DuckDb => format!("CREATE VIEW {shown} AS SELECT * FROM read_parquet({in_sql});"),
            Tool::Polars => format!("import polars as pl\n\n{shown} = pl.read_parquet({in_python})"),
            Tool::Pandas => format!("import pandas as pd  # with pyarrow\n\n{shown} = pd.read_parquet({in_python})"),
            Tool::Athena => {
                if !open.is_in_bucket() {
                    let message = format!("table `{table}` is in a folder, and Athena reads what is in S3; choose another tool");
                    return Err(Error::invalid(message));
                }
                // The lake makes the view with the first run that repairs the table, and keeps its name in lower case.
                format!("SELECT * FROM \"{}\";", shown.to_lowercase())
            }
        };
        let export_to = (tool != Tool::Athena).then_some(file);
        Ok(ReadingView { format: JsonFormat, table, tool, export_to, snippet })
    }
}

awaitable!(ViewRequest => ReadingView);

impl OpenLake {
    /// Says how a tool reads a table's repaired view: from a Parquet file, to which the table is exported first, or by its view in Athena.
    ///
    /// # Errors
    /// `not-found` if there is no such table; `invalid` if the tool cannot read this lake.
    pub fn view(&self, table: impl Into<String>, tool: Tool) -> ViewRequest<'_> {
        ViewRequest { open: self, table: TableName::new(table.into()), tool }
    }
}
