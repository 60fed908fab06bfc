//! `repair`: runs data-repair workflows.
//!
//! Exit codes: 0 the run succeeded, 1 it failed or was cancelled, 2 the input is not usable, 3 it could not tell (blind), 4 it was paused
//! or told to stop and can be resumed, 5 its budget does not allow it, 6 a plan does not hold any more.

mod aws;
mod commands;
mod output;
mod progress;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use repair_core::Error;
use repair_core::engine::Signal;

use crate::session::LakeArg;

const EXIT_CODES: &str = "Exit codes: 0 succeeded, 1 failed or cancelled, 2 bad input, 3 could not tell (blind), 4 stopped, to be resumed, 5 over budget, \
     6 the plan does not hold any more.";

/// Finds what is broken in a lake of data, waits, repairs it, verifies, and only then aggregates.
#[derive(Debug, Parser)]
#[command(name = "repair", version, after_help = EXIT_CODES)]
struct Cli {
    /// The same `--lake` that commands take, written before the command.
    #[arg(long, hide = true, value_name = "DIR")]
    lake: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a workflow file and report all its mistakes at once.
    Validate {
        /// The workflow.
        file: PathBuf,
        /// A price book, in place of the one that the workflow names.
        #[arg(long, value_name = "FILE")]
        prices: Option<PathBuf>,
    },
    /// Tell what is broken, and what it takes to repair it, before anything is spent or written.
    Plan(commands::plan::Plan),
    /// Do what a plan says, or refuse if it does not hold any more.
    Apply(commands::apply::Apply),
    /// Run a workflow: plan and apply in one.
    Run(commands::run::Run),
    /// Go on with a run that was stopped, paused or killed.
    Resume(commands::run::TakeUp),
    /// Take up a run that failed or was cancelled, where it failed; what succeeded is not done again.
    Redrive(commands::run::TakeUp),
    /// Cancel a run: what is under way is told, waited for, and accounted.
    Cancel {
        /// The run's id; see `repair runs`.
        run: String,
        #[command(flatten)]
        lake: LakeArg,
    },
    /// Pause a run, to be resumed.
    Pause {
        /// The run's id; see `repair runs`.
        run: String,
        #[command(flatten)]
        lake: LakeArg,
    },
    /// List the runs of a lake, oldest first.
    Runs {
        /// Print a JSON list.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        lake: LakeArg,
    },
    /// Show what a run did.
    Show {
        /// The run's id.
        run: String,
        /// Print the same JSON object as `run --json`.
        #[arg(long, conflicts_with = "events")]
        json: bool,
        /// Print the journal: one event a line, as JSON.
        #[arg(long)]
        events: bool,
        #[command(flatten)]
        lake: LakeArg,
    },
    /// Tell why a slot of a table is as it is.
    Why(commands::why::Why),
    /// Take back what a run added to its tables.
    Undo(commands::undo::Undo),
    /// Show again what an undo has taken back.
    Redo(commands::undo::Redo),
    /// Say that slots have no row and need none, or take such a word back.
    Except(commands::except::Except),
    /// Tell how right each repair idea has been, where the truth came late.
    Accuracy(commands::accuracy::Accuracy),
    /// Compare repair ideas on rows that are there: hidden, repaired, and held against the truth.
    Compare(commands::compare::Compare),
    /// Tell what runs took and what that cost.
    Costs(commands::costs::CostsOf),
    /// Draw a workflow.
    Graph {
        /// The workflow.
        file: PathBuf,
        /// What to write.
        #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
        format: GraphFormat,
    },
    /// Print the JSON Schema of the workflow language, for editors.
    Schema,
    /// List the sessions of a trading calendar, in UTC.
    Calendar(commands::calendar::Calendar),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraphFormat {
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::refuse(&format!("no threads to work with: {error}")),
    };
    let done = runtime.block_on(Box::pin(async {
        let before = cli.lake;
        match cli.command {
            Command::Plan(plan) => plan.execute(before).await,
            Command::Apply(apply) => apply.execute(before).await,
            Command::Run(run) => run.execute(before).await,
            Command::Resume(run) => run.execute(before, false).await,
            Command::Redrive(run) => run.execute(before, true).await,
            Command::Cancel { run, lake } => commands::run::ask(&run, lake.or(before).as_deref(), Signal::Cancel).await,
            Command::Pause { run, lake } => commands::run::ask(&run, lake.or(before).as_deref(), Signal::Pause).await,
            Command::Runs { json, lake } => commands::show::runs(lake.or(before).as_deref(), json).await,
            Command::Show { run, json, events, lake } => commands::show::show(&run, lake.or(before).as_deref(), json, events).await,
            Command::Why(why) => why.execute(before).await,
            Command::Undo(undo) => undo.execute(before).await,
            Command::Redo(redo) => redo.execute(before).await,
            Command::Except(except) => except.execute(before).await,
            Command::Accuracy(accuracy) => accuracy.execute(before).await,
            Command::Compare(compare) => compare.execute(before).await,
            Command::Costs(costs) => costs.execute(before).await,
            _ if before.is_some() => Err(Error::invalid("this command works on no lake; leave out --lake").into()),
            Command::Validate { file, prices } => commands::validate(&file, prices.as_deref()),
            Command::Graph { file, format } => commands::graph(&file, format),
            Command::Schema => commands::schema(),
            Command::Calendar(calendar) => calendar.execute(),
        }
    }));
    done.unwrap_or_else(output::Failure::report)
}
