//! What the pipeline itself used goes into the same ledger as what its repair took, so that they can be told side by side.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use repair::ledger::{Costs, Tally};
use repair_core::engine::Outcome;
use repair_core::engine::{Engine, Journal, StartRequest, for_each_event, new_run_id};
use repair_core::plugin::Registry;
use repair_core::price::PriceBook;
use repair_core::workflow::Workflow;
use serde_json::json;

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
/// If it can't be recorded.
pub(crate) async fn record(engine: &Engine, captured: &Captured) -> Result<()> {
    let workflow = Workflow::parse(WORKFLOW_FILE, WORKFLOW, &engine.registry)?;
    let Captured { requests, dropped: _, bars, files, bytes } = *captured;
    let counts = [("requests", requests), ("bars", bars), ("files", files), ("bytes", bytes)];
    let given: BTreeMap<String, String> = counts.map(|(name, count)| (name.to_owned(), count.to_string())).into();
    let environment = json!({ "lake": "local", "profile": "local" });
    let request = StartRequest { run: new_run_id(), params: workflow.bind(&given)?, environment };
    let done = engine.start(&workflow, request).await?;
    ensure!(done.outcome == Some(Outcome::Succeeded), "what the pipeline used could not be recorded: {}", done.problems.join("; "));
    Ok(())
}

/// What all runs of a journal cost.
///
/// # Errors
/// If the journal can't be read.
pub(crate) async fn of_all(journal: &dyn Journal, registry: &Registry) -> Result<Costs> {
    let prices = PriceBook::parse(PRICES_FILE, PRICES)?;
    let mut entries = Vec::new();
    for head in journal.runs().await? {
        let mut tally = Tally::begin(&head.run, &head.first)?;
        for_each_event(journal, &head.run, |recorded| {
            tally.apply(&recorded);
            Ok(())
        })
        .await?;
        let workflow = Workflow::parse_with(&tally.file, &tally.definition, registry, &tally.children)
            .with_context(|| format!("the definition of run {} can't be read", head.run))?;
        entries.extend(tally.entries(Some(&workflow), "local"));
    }
    Ok(Costs::new(&entries, &["component", "workflow", "idea"].map(str::to_owned), Some(&prices)))
}
