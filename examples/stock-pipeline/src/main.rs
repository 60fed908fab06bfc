//! The demo: a ticker pipeline with a glitch, and the workflow that finds what it lost, repairs it, verifies, and only then computes
//! the hourly bars. `cargo run --release -p stock-pipeline`; the README beside it tells the rest.

mod clock;
mod feed;
mod hours;
mod lake_folder;
mod pipeline;
mod report;
mod scenario;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use jiff::civil::Date;
use repair_core::engine::event::Outcome;
use repair_core::engine::{Engine, RunReport, StartRequest, new_run_id};
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;
use repair_local::{LocalLake, SqliteJournal};
use serde_json::{Value, json};

use crate::clock::SkippingClock;
use crate::lake_folder::LakeFolder;
use crate::pipeline::{Captured, Pipeline};
use crate::report::{Steps, Summary, say};
use crate::scenario::{Choices, Scenario, table};

/// The workflow is part of the binary, so that it runs wherever it is installed.
const WORKFLOW: &str = include_str!("../workflows/ticker-hourly.yaml");
/// Where its text is, from the root of the repository.
const WORKFLOW_FILE: &str = "examples/stock-pipeline/workflows/ticker-hourly.yaml";

/// Runs a ticker pipeline with a glitch, then the workflow that finds and repairs what it lost.
///
/// The market is simulated, or replayed from real bars with --data. Time is simulated too: a trading day takes seconds.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The day to simulate. The market is not the real one of that day.
    #[arg(long, value_name = "DATE", default_value = "2026-03-05", conflicts_with = "data")]
    date: Date,
    /// Replay the real bars in this folder: CSV files with the columns symbol, ts, open, high, low, close, volume.
    #[arg(long, value_name = "DIR", conflicts_with = "quiet")]
    data: Option<PathBuf>,
    /// When bars are expected: XNYS, XTKS or 24x7.
    #[arg(long, value_name = "NAME", default_value = "XNYS")]
    calendar: String,
    /// Where to make the lake. A folder that holds anything else is refused.
    #[arg(long, value_name = "DIR", default_value = "./lake")]
    lake: PathBuf,
    /// How many stocks the glitch drops each minute; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1)]
    glitch: usize,
    /// Another seed is another market, and another choice of what is dropped [default: the workflow's].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The share of minutes in which a simulated stock does not trade [default: the workflow's].
    #[arg(long, value_name = "SHARE")]
    quiet: Option<f64>,
    /// Keep the lake of an earlier run, with its bars and repairs, instead of making it anew.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads to work with");
    match runtime.and_then(|runtime| runtime.block_on(Box::pin(demo(&args)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The whole demo; an error if anything is not as it should be at the end.
async fn demo(args: &Args) -> Result<()> {
    let mut registry = Registry::default();
    repair_stocks::register(&mut registry);
    let registry = Arc::new(registry);
    let workflow = Workflow::parse(WORKFLOW_FILE, WORKFLOW, &registry)?;
    let choices = Choices { date: args.date, data: args.data.as_deref(), calendar: &args.calendar, seed: args.seed, quiet: args.quiet };
    let scenario = Scenario::new(&choices, &workflow, &registry).await?;
    let bars = table(&workflow, "bars")?;
    let hourly = table(&workflow, "hourly")?;

    let folder = LakeFolder::claim(&args.lake)?;
    match capture(args, &scenario, &folder).await? {
        Some(captured) => say(&report::pipeline(&captured, scenario.agreed.symbols.len(), args.glitch)),
        None => say(&format!("The bars in {} are kept from an earlier run.", folder.root().display())),
    }

    let lake = Arc::new(LocalLake::open(folder.root())?);
    let before = hours::captured(lake.as_ref(), bars, &scenario.agreed.symbols, &scenario.expected).await?;
    say(&format!("\n{}", report::before(&before)));

    let journal = Arc::new(SqliteJournal::open(folder.journal()?)?);
    let mut engine = Engine::new(registry, lake.clone(), journal);
    engine.clock = Arc::new(SkippingClock::default());
    engine.observer = Arc::new(Steps);
    say(&format!("\nThe workflow {}:\n", workflow.name));
    let first = run(&engine, &workflow, &scenario).await?;

    let after = hours::aggregated(lake.as_ref(), hourly, &scenario.interval).await?;
    say(&format!("\n{}", report::after(&after)));
    let summary = Summary {
        hours: &after,
        missing: missing(&first)?,
        requests: first.usage.source_requests,
        hourly: &folder.root().join(&hourly.location),
        run: &first.run,
    };
    say(&format!("\n{summary}"));

    say("\nThe workflow again, on the same lake:\n");
    let second = run(&engine, &workflow, &scenario).await?;
    let (still_missing, requests) = (missing(&second)?, second.usage.source_requests);
    ensure!(after.len() == before.len(), "{} stock-hours were expected, and {} were written", before.len(), after.len());
    ensure!(after.iter().all(|hour| hour.complete), "not all hours are complete");
    ensure!(still_missing == 0 && requests == 0, "the second run found {still_missing} minutes missing and made {requests} requests");
    say("\nnothing to do: 0 missing, 0 requests");

    say(&format!("\n{}", report::by_hand(WORKFLOW_FILE, folder.root(), &scenario.given, &first.run)));
    Ok(())
}

/// Runs the pipeline, into a lake that is empty but for it; or not, if the bars that are there are to be kept.
async fn capture(args: &Args, scenario: &Scenario, folder: &LakeFolder) -> Result<Option<Captured>> {
    let symbols = &scenario.agreed.symbols;
    if args.glitch >= symbols.len() {
        bail!("a glitch that drops {} of {} stocks leaves no bars at all; choose a smaller --glitch", args.glitch, symbols.len());
    }
    let bars = folder.root().join("bars");
    if args.keep && bars.exists() {
        return Ok(None);
    }
    folder.clear(&["bars", "hourly"])?;
    let pipeline = Pipeline {
        symbols: symbols.iter().map(|symbol| symbol.as_str().into()).collect(),
        minutes: scenario.expected.iter().collect(),
        feed: scenario.feed.clone(),
        dropped_per_minute: args.glitch,
        seed: scenario.agreed.seed,
        bars,
    };
    pipeline.run().await.map(Some)
}

/// One run of the workflow, to its end.
async fn run(engine: &Engine, workflow: &Workflow, scenario: &Scenario) -> Result<RunReport> {
    // What `repair resume` needs to go on with it, should it be stopped.
    let environment = json!({ "lake": "local", "profile": "local" });
    let request = StartRequest { run: new_run_id(), params: scenario.params.clone(), environment };
    let done = engine.start(workflow, request).await?;
    if done.outcome != Some(Outcome::Succeeded) {
        bail!("run {} did not succeed: {}", done.run, done.problems.join("; "));
    }
    Ok(done)
}

/// How many minutes a run found missing at its beginning.
fn missing(report: &RunReport) -> Result<u64> {
    let output = report.step("find_gaps").map(|step| &step.output);
    output.and_then(|output| output.get("missing")).and_then(Value::as_u64).context("the run does not say what it found missing")
}
