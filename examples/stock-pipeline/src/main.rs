//! The demo: a ticker pipeline with a glitch, and the workflow that finds what it lost, repairs it, verifies the repair, and only then
//! computes the hourly bars. Run it with `cargo run --release -p stock-pipeline`; its README explains the rest.

mod clock;
mod costs;
mod feed;
mod hours;
mod lake_folder;
mod live;
mod pipeline;
mod report;
mod scenario;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use repair::jiff::civil::Date;
use repair::local::LocalLake;
use repair::{ErrorKind, Outcome, Registry, Repair, RunReport, Workflow};
use serde_json::Value;

use crate::clock::SkippingClock;
use crate::lake_folder::LakeFolder;
use crate::pipeline::{Captured, Pipeline};
use crate::report::{Steps, Summary, say};
use crate::scenario::{Choices, Scenario, WHOLE_REPLAY, table};

/// The workflow, which is part of the binary, so that the demo runs wherever it is installed.
const WORKFLOW: &str = include_str!("../workflows/ticker-hourly.yaml");
/// The error if the demo cannot be printed.
const UNWRITTEN: &str = "standard output cannot be written; the lake may still be whole, and `--keep` shows whether it is";
/// Where its text is, from the root of the repository.
const WORKFLOW_FILE: &str = "examples/stock-pipeline/workflows/ticker-hourly.yaml";

/// The exit code if something failed after the demo had begun.
const FAILED: u8 = 1;
/// The exit code if the flags make no sense; nothing was done.
const REFUSED: u8 = 2;
/// The exit code if something could not be checked.
const BLIND: u8 = 3;

/// Runs a ticker pipeline with a glitch, then the workflow that finds and repairs what it lost.
///
/// The market is simulated, or replayed from real bars with --data. Time is simulated too: a trading day takes seconds.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 all is complete, 1 something failed, 2 refused, nothing was done, 3 blind: something could not be looked at."
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The day to simulate. The market is not the real one of that day.
    #[arg(long, value_name = "DATE", default_value = "2026-03-05", conflicts_with = "data")]
    date: Date,
    /// Replay the real bars in this folder: CSV files with the columns symbol, ts, open, high, low, close, volume.
    #[arg(long, value_name = "DIR", conflicts_with = "quiet")]
    data: Option<PathBuf>,
    /// When bars are expected: XNYS, another exchange, or 24x7.
    #[arg(long, value_name = "NAME", default_value = "XNYS")]
    calendar: String,
    /// Where to create the lake. A folder that holds anything else is refused.
    #[arg(long, value_name = "DIR", default_value = "./lake")]
    lake: PathBuf,
    /// How many stocks the glitch drops each minute; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    glitch: usize,
    /// The seed of the market and of what is dropped [default: the workflow's].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The share of minutes in which a simulated stock does not trade, from 0 to less than 1 [default: the workflow's].
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    quiet: Option<f64>,
    /// Continue with the lake of an earlier run, its bars, its repairs and the flags that created it, instead of creating a new one.
    #[arg(long, conflicts_with_all = ["date", "data", "calendar", "glitch", "seed", "quiet"])]
    keep: bool,
}

/// What it does beside the demo.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Live(live::Live),
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => {
            Err("give a share from 0 (every stock trades in every minute) to less than 1 (at 1, there would be no bars at all)".to_owned())
        }
    }
}

fn main() -> ExitCode {
    repair::init();
    let mut args = Args::parse();
    let runtime = match repair::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return ended(&error.into(), FAILED),
    };
    runtime.block_on(Box::pin(async {
        if let Some(Command::Live(live)) = args.command.take() {
            let done = live.perform(&Arc::new(repair::registry())).await;
            return done.map_or_else(|error| ended(&error, FAILED), |()| ExitCode::SUCCESS);
        }
        match Demo::prepare(&args).await {
            Err(error) => ended(&error, REFUSED),
            Ok(demo) => demo.perform().await.map_or_else(|error| ended(&error, FAILED), |()| ExitCode::SUCCESS),
        }
    }))
}

/// Prints why the demo ended early, and returns the exit code.
fn ended(error: &anyhow::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
    let is_blind = error.downcast_ref::<repair::Error>().is_some_and(|error| error.kind() == ErrorKind::Blind);
    ExitCode::from(if is_blind { BLIND } else { code })
}

/// A demo whose flags were checked.
struct Demo {
    registry: Arc<Registry>,
    workflow: Workflow,
    choices: Choices,
    scenario: Scenario,
    folder: LakeFolder,
    keep: bool,
}

impl Demo {
    /// Checks everything that can be checked before anything is written, and finally claims the folder.
    async fn prepare(args: &Args) -> Result<Self> {
        let registry = Arc::new(repair::registry());
        let workflow = Workflow::parse(WORKFLOW_FILE, WORKFLOW, &registry)?;
        let (kept, choices) = if args.keep {
            let (folder, choices) = LakeFolder::kept(&args.lake)?;
            (Some(folder), choices)
        } else {
            (None, chosen(args)?)
        };
        let scenario = Scenario::new(&choices, &workflow, &registry).await?;
        let (folder, keep) = match kept {
            Some(folder) => (folder, true),
            None => (LakeFolder::claim(&args.lake)?, false),
        };
        Ok(Self { registry, workflow, choices, scenario, folder, keep })
    }

    /// Runs the whole demo.
    ///
    /// # Errors
    /// Fails if anything is not as it should be at the end.
    async fn perform(self) -> Result<()> {
        let Self { registry, workflow, choices, scenario, folder, keep } = self;
        let bars = table(&workflow, "bars")?;
        let hourly = table(&workflow, "hourly")?;
        let mut used = None;
        if keep {
            print(&format!("The bars in {} are kept from an earlier run.", folder.root().display()))?;
        } else {
            let captured = capture(&choices, &scenario, &folder).await?;
            print(&report::pipeline(&captured, scenario.agreed.symbols.len(), choices.glitch))?;
            used = Some(captured);
        }
        if choices.data.is_some() {
            print(&report::replay(WHOLE_REPLAY))?;
        }

        let lake = LocalLake::open(folder.root())?;
        let before = hours::captured(&lake, bars, &scenario.agreed.symbols, &scenario.expected).await?;
        print(&format!("\n{}", report::before(&before)))?;

        if let Some(captured) = &used {
            costs::record(folder.root(), captured).await?;
        }
        let steps = Arc::new(Steps::default());
        let repair = Repair::of(workflow.clone()).params(scenario.given.clone()).lake(folder.root()).registry(registry);
        let repair = repair.clock(Arc::new(SkippingClock::default())).observer(steps.clone()).connect().await?;
        print(&format!("\nThe workflow {}:\n", workflow.name))?;
        let first = run(&repair, &steps).await?;

        let after = hours::aggregated(&lake, hourly, &scenario.interval).await?;
        print(&format!("\n{}", report::after(&after)))?;
        let summary = Summary {
            hours: &after,
            missing: missing(&first)?,
            requests: first.usage.source_requests,
            hourly: &folder.root().join(&hourly.location),
            run: &first.run,
        };
        print(&format!("\n{summary}"))?;

        print("\nThe workflow again, on the same lake:\n")?;
        let second = run(&repair, &steps).await?;
        let (still_missing, requests) = (missing(&second)?, second.usage.source_requests);
        ensure!(after.len() == before.len(), "{} stock-hours were expected, but {} were written", before.len(), after.len());
        ensure!(after.iter().all(|hour| hour.complete), "not all hours are complete");
        ensure!(still_missing == 0 && requests == 0, "the second run found {still_missing} minutes missing and made {requests} requests");
        print("\nnothing to do: 0 missing, 0 requests")?;

        let costs = repair.costs().prices(costs::prices()?).await?;
        print(&format!("\n{}", report::costs(&costs)))?;

        let page = folder.page(&repair.report_on(&first.run).prices(costs::prices()?).await?)?;
        print(&format!("\nREPORT, for a browser: {}", page.display()))?;

        print(&format!("\n{}", report::by_hand(WORKFLOW_FILE, folder.root(), &scenario.given, &first.run)))
    }
}

/// The choices that the flags make.
fn chosen(args: &Args) -> Result<Choices> {
    // The path is kept with the lake, so it must mean the same from any folder.
    let absolute = |folder: &PathBuf| folder.canonicalize().with_context(|| format!("the folder {} cannot be opened", folder.display()));
    Ok(Choices {
        date: args.date,
        data: args.data.as_ref().map(absolute).transpose()?,
        calendar: args.calendar.clone(),
        glitch: args.glitch,
        seed: args.seed,
        quiet: args.quiet,
    })
}

fn print(text: &str) -> Result<()> {
    say(text).context(UNWRITTEN)
}

/// Runs the pipeline, which writes into an otherwise empty lake.
async fn capture(choices: &Choices, scenario: &Scenario, folder: &LakeFolder) -> Result<Captured> {
    folder.clear(&["bars", "hourly"])?;
    let pipeline = Pipeline {
        symbols: scenario.agreed.symbols.iter().map(|symbol| symbol.as_str().into()).collect(),
        minutes: scenario.expected.iter().collect(),
        feed: scenario.feed.clone(),
        dropped_per_minute: choices.glitch,
        seed: scenario.agreed.seed,
        bars: folder.root().join("bars"),
    };
    let captured = pipeline.run().await?;
    folder.remember(choices)?;
    Ok(captured)
}

/// One run of the workflow, to its end.
async fn run(repair: &Repair, steps: &Steps) -> Result<RunReport> {
    let done = repair.run().await?;
    steps.printed().context(UNWRITTEN)?;
    let problems = done.problems.join("; ");
    match done.outcome {
        Some(Outcome::Succeeded) => {}
        Some(Outcome::Blind) => return Err(repair::Error::blind(format!("run {} could not look: {problems}", done.run)).into()),
        _ => bail!("run {} did not succeed: {problems}", done.run),
    }
    Ok(done)
}

/// How many minutes a run found missing at the beginning.
fn missing(report: &RunReport) -> Result<u64> {
    let output = report.step("find_gaps").map(|step| &step.output);
    output.and_then(|output| output.get("missing")).and_then(Value::as_u64).context("the run does not report what it found missing")
}
