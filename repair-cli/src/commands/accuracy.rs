//! `repair accuracy`

use std::path::PathBuf;

use clap::Args;
use repair::provenance::AccuracyReport;

use super::{IntervalArg, TableArg};
use crate::exit::Exit;
use crate::output::{Failure, print, print_json, table as columns};

/// Compare repairs with the rows that the table has received since: how accurate each strategy has been so far.
#[derive(Debug, Args)]
pub(crate) struct Accuracy {
    #[command(flatten)]
    table: TableArg,
    #[command(flatten)]
    interval: IntervalArg,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Accuracy {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let within = self.interval.within();
        let (table, workflow, lake) = self.table.open(lake_before)?;
        let report = lake.accuracy(table).interval(within).declared_in(workflow.as_deref()).await?;
        if self.json {
            print_json(&report)?;
        } else {
            print(&text(&report))?;
        }
        Ok(Exit::Success)
    }
}

fn text(report: &AccuracyReport) -> String {
    let mut rows = Vec::new();
    for (strategy, accuracy) in &report.strategies {
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
    columns(&header, &rows)
}
