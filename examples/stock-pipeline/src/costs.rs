//! Records what the pipeline itself used in the same ledger as its repair, so that both can be shown side by side.

use std::path::Path;

use anyhow::{Result, ensure};
use repair::{Outcome, PriceBook, Repair};

use crate::pipeline::Captured;

/// The workflow that records the usage, which is part of the binary like the other one.
const WORKFLOW: &str = include_str!("../workflows/pipeline-usage.yaml");
/// The path of the workflow, from the root of the repository.
const WORKFLOW_FILE: &str = "examples/stock-pipeline/workflows/pipeline-usage.yaml";
/// The path of the price book, from the root of the repository.
const PRICES_FILE: &str = "prices/aws-us-east-1.yaml";
/// The price book.
const PRICES: &str = include_str!("../../../prices/aws-us-east-1.yaml");

/// Records what the pipeline used, as a run of its own.
///
/// # Errors
/// If it cannot be recorded.
pub(crate) async fn record(lake: &Path, captured: &Captured) -> Result<()> {
    let Captured { requests, dropped: _, bars, files, bytes } = *captured;
    let counts = [("requests", requests), ("bars", bars), ("files", files), ("bytes", bytes)];
    let done = Repair::text(WORKFLOW_FILE, WORKFLOW).params(counts).lake(lake).connect().await?.run().await?;
    ensure!(done.outcome == Some(Outcome::Succeeded), "what the pipeline used could not be recorded: {}", done.problems.join("; "));
    Ok(())
}

/// What things cost.
///
/// # Errors
/// If the price book has mistakes.
pub(crate) fn prices() -> Result<PriceBook> {
    Ok(PriceBook::parse(PRICES_FILE, PRICES)?)
}
