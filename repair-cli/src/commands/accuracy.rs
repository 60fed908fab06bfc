//! `repair accuracy`: how right each repair idea has been, where the truth came late.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use repair_core::lake::overlay::story::accuracy;
use repair_core::model::Interval;
use serde_json::json;

use super::subject::TableArg;
use crate::output::{Failure, print, print_json, table as columns};

/// Compare repairs with the rows that the table has got since: how right each idea has been so far.
#[derive(Debug, Args)]
pub(crate) struct Accuracy {
    #[command(flatten)]
    table: TableArg,
    /// Only slots from here on: an instant, or a date.
    #[arg(long, requires = "to")]
    from: Option<String>,
    /// Only slots before this instant, or up to the end of this date.
    #[arg(long, requires = "from")]
    to: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Accuracy {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let interval = match (&self.from, &self.to) {
            (Some(from), Some(to)) => Some(Interval::parse(from, to)?),
            _ => None,
        };
        let subject = self.table.open(lake_before).await?;
        let ideas = accuracy(subject.lake.as_ref(), &subject.table, interval).await?;
        if self.json {
            print_json(&json!({ "table": subject.table.name, "strategies": ideas }))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = Vec::new();
        for (strategy, accuracy) in &ideas {
            let mut row = vec![strategy.clone(), accuracy.repaired.to_string(), accuracy.judged.to_string()];
            if accuracy.columns.is_empty() {
                row.extend(std::iter::repeat_n("-".to_owned(), 5));
                rows.push(row);
                continue;
            }
            for (column, errors) in &accuracy.columns {
                let mut row = row.clone();
                row.push(column.clone());
                row.extend([errors.mean_absolute, errors.worst_absolute].map(|error| format!("{error:.4}")));
                row.extend([errors.mean_relative, errors.worst_relative].map(|error| format!("{:.4} %", error * 100.0)));
                rows.push(row);
            }
        }
        let header = ["strategy", "repaired", "judged", "column", "mean error", "worst", "mean relative", "worst relative"];
        print(&columns(&header, &rows))?;
        Ok(ExitCode::SUCCESS)
    }
}
