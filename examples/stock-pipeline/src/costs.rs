//! What the pipeline itself used goes into the same ledger as what its repair used, so that they can be compared.

use std::path::Path;

use anyhow::{Result, ensure};
use repair::{Outcome, PriceBook, Repair};

use crate::pipeline::Captured;

/// The workflow that records it, a part of the binary as the other is.
const WORKFLOW: &str = include_str!("../workflows/pipeline-usage.yaml");
/// Where its text is, from the root of the repository.
const WORKFLOW_FILE: &str = "examples/stock-pipeline/workflows/pipeline-usage.yaml";
/// Where the prices are, from the root of the repository.
const PRICES_FILE: &str = "prices/aws-us-east-1.yaml";
/// What things cost.
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
