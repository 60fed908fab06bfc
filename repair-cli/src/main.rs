//! `repair`: the command. It parses arguments, calls the crate `repair`, and prints; it decides nothing itself.

mod commands;
mod exit;
mod files;
mod format;
mod hint;
mod open;
mod output;
#[cfg(test)]
mod pages;
mod progress;
mod terminal;
#[cfg(feature = "otlp")]
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::exit::Exit;
use crate::format::Format;
use crate::output::Failure;
use crate::terminal::TerminalArgs;

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failed or cancelled, 2 bad input, 3 blind, 4 stopped (can be resumed), 5 over budget, \
     6 the plan is out of date, 7 another process drives the run, 8 see run --fail-on, 10 see plan --detailed-exitcode.";

/// Finds what is broken in a lake of data, waits, repairs it, verifies, and only then aggregates.
#[derive(Debug, Parser)]
#[command(name = "repair", version, after_help = EXIT_CODES)]
struct Cli {
    /// The same `--lake` that commands take, written before the command.
    #[arg(long, hide = true, value_name = "DIR")]
    lake: Option<PathBuf>,
    #[command(flatten)]
    terminal: TerminalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the files of a folder, and write a workflow that finds and repairs what is broken in them.
    Init(commands::init::Init),
    /// Check a workflow and report all its mistakes at once.
    Validate(commands::workflow::Validate),
    /// Show what is broken and what repairing it would take, before anything is spent or written.
    Plan(commands::plan::Plan),
    /// Do what a plan says, or refuse if the plan is out of date.
    Apply(commands::apply::Apply),
    /// Run a workflow: plan and apply in one.
    Run(commands::run::Run),
    /// Continue a run that was stopped, paused or killed.
    Resume(commands::run::Continue),
    /// Continue a run that failed or was cancelled, from where it failed. What succeeded is not done again.
    Redrive(commands::run::Continue),
    /// Cancel a run. What is under way is stopped and accounted for first.
    Cancel(commands::run::Stop),
    /// Pause a run, to be resumed.
    Pause(commands::run::Stop),
    /// Say to a run that something happened, for which a step of it waits.
    Signal(commands::said::Signal),
    /// Let a run go on that waits for an approval.
    Approve(commands::said::Decide),
    /// Do not let a run go on that waits for an approval: its step fails.
    Reject(commands::said::Decide),
    /// Run the workflows of a folder by their schedules, and show what they do on a live page.
    #[cfg(feature = "serve")]
    Serve(commands::serve::Serve),
    /// Show when a workflow starts by itself, or write its schedule for cron, systemd or EventBridge.
    Schedule(commands::schedule::Schedule),
    /// List the runs of a lake, newest first.
    #[command(visible_aliases = ["ls", "history"])]
    Runs(commands::show::Runs),
    /// Show what a run did.
    Show(commands::show::Show),
    /// Print what a run did, a line for each thing; with --follow, also what it does next.
    #[command(visible_alias = "log")]
    Logs(commands::show::Logs),
    /// Check that the journal, artifacts, staged units and repairs of a lake are what was written.
    VerifyState(commands::state::VerifyState),
    /// Remove what is kept for runs that ended long ago: lists of gaps and units, and units that stayed staged.
    Prune(commands::prune::Prune),
    /// Join the many small objects in which the repairs of a table lie: one for each run, batch and partition.
    Compact(commands::compact::Compact),
    /// Send a test message to everybody whom a workflow notifies, or deliver messages that earlier runs have left.
    Notify(commands::notify::Notify),
    /// Look at everything that runs need, and say what to do about what is not in order.
    Doctor(commands::doctor::Doctor),
    /// Explain why a slot of a table is as it is.
    Why(commands::why::Why),
    /// Hide what a run added to its tables.
    Undo(commands::undo::Undo),
    /// Show again what an undo has hidden.
    Redo(commands::undo::Redo),
    /// Record that slots have no row and need none, or remove such records.
    Except(commands::except::Except),
    /// Compare repairs with rows that arrived later: how accurate each strategy has been.
    Accuracy(commands::accuracy::Accuracy),
    /// Compare strategies on rows that are there: hide them, repair them, and compare with the truth.
    Compare(commands::compare::Compare),
    /// Show what runs used and what that cost.
    Costs(commands::costs::CostsOf),
    /// Write what a run found and did, or how complete a table is, as one HTML file with pictures.
    Report(commands::report::ReportOn),
    /// Write a table's repaired view, or its own rows, to a file that other tools read.
    Export(commands::export::Export),
    /// Show the status of every slot, by table, key and day, as runs last saw it.
    Status(commands::status::StatusOf),
    /// List what is missing or wrong: each key, from when to when.
    Gaps(commands::gaps::Gaps),
    /// Ask in SQL over a workflow's tables and their repaired views.
    Query(commands::query::Query),
    /// Show how DuckDB, Polars, pandas or Athena reads a table's repaired view.
    View(commands::view::View),
    /// Draw a workflow.
    Graph(commands::workflow::Graph),
    /// Print the JSON Schema of the workflow language, for editors.
    Schema(commands::workflow::Schema),
    /// List the sessions of a calendar, in UTC, or what calendars cover.
    Calendar(commands::calendar::Calendar),
    /// Print what completes the command's arguments in a shell.
    Completions(commands::help::Completions),
    /// Write the manual: a page of `man` for each command.
    Man(commands::help::Man),
}

impl Command {
    /// How the result, and so an error too, is wanted.
    fn format(&self) -> Format {
        let json = match self {
            Self::Validate(command) => return command.format.get(),
            Self::Apply(command) => return command.format.get(),
            Self::Run(command) => return command.format.get(),
            Self::Resume(command) | Self::Redrive(command) => return command.format.get(),
            Self::Init(command) => command.json,
            Self::Plan(command) => command.json,
            Self::Cancel(command) | Self::Pause(command) => command.json,
            Self::Signal(command) => command.json,
            Self::Approve(command) | Self::Reject(command) => command.json,
            Self::Runs(command) => command.json,
            Self::Show(command) => command.json,
            Self::Logs(command) => command.json,
            Self::VerifyState(command) => command.json,
            Self::Prune(command) => command.json,
            Self::Compact(command) => command.json,
            Self::Notify(command) => command.json,
            Self::Doctor(command) => command.json,
            Self::Why(command) => command.json,
            Self::Undo(command) => command.json,
            Self::Redo(command) => command.json,
            Self::Except(command) => command.json,
            Self::Accuracy(command) => command.json,
            Self::Compare(command) => command.json,
            Self::Costs(command) => command.json,
            Self::Report(command) => command.json,
            Self::Export(command) => command.json,
            Self::Status(command) => command.json,
            Self::Gaps(command) => command.json,
            Self::Query(command) => command.json,
            Self::View(command) => command.json,
            Self::Graph(command) => command.json,
            Self::Schema(command) => command.json,
            Self::Calendar(command) => command.json,
            Self::Schedule(command) => command.json,
            #[cfg(feature = "serve")]
            Self::Serve(_) => false,
            Self::Completions(_) | Self::Man(_) => false,
        };
        Format::json(json)
    }

    async fn execute(self, lake: Option<PathBuf>) -> Result<Exit, Failure> {
        match self {
            Self::Plan(command) => command.execute(lake).await,
            Self::Apply(command) => command.execute(lake).await,
            Self::Run(command) => command.execute(lake).await,
            Self::Resume(command) => command.resume(lake).await,
            Self::Redrive(command) => command.redrive(lake).await,
            Self::Cancel(command) => command.cancel(lake).await,
            Self::Pause(command) => command.pause(lake).await,
            Self::Signal(command) => command.run(lake).await,
            Self::Approve(command) => command.run(true, lake).await,
            Self::Reject(command) => command.run(false, lake).await,
            Self::Runs(command) => command.execute(lake).await,
            Self::Show(command) => command.execute(lake).await,
            Self::Logs(command) => command.execute(lake).await,
            Self::VerifyState(command) => command.execute(lake).await,
            Self::Prune(command) => command.execute(lake).await,
            Self::Compact(command) => command.execute(lake).await,
            Self::Notify(command) => command.execute(lake).await,
            Self::Doctor(command) => command.execute(lake).await,
            Self::Why(command) => command.execute(lake).await,
            Self::Undo(command) => command.execute(lake).await,
            Self::Redo(command) => command.execute(lake).await,
            Self::Except(command) => command.execute(lake).await,
            Self::Accuracy(command) => command.execute(lake).await,
            Self::Compare(command) => command.execute(lake).await,
            Self::Costs(command) => command.execute(lake).await,
            Self::Report(command) => command.execute(lake).await,
            Self::Export(command) => command.execute(lake).await,
            Self::Status(command) => command.execute(lake).await,
            Self::Gaps(command) => command.execute(lake).await,
            Self::Query(command) => command.execute(lake).await,
            Self::View(command) => command.execute(lake).await,
            Self::Schedule(command) => command.execute(lake),
            #[cfg(feature = "serve")]
            Self::Serve(command) => command.execute(lake).await,
            _ if lake.is_some() => Err(repair::Error::invalid("this command works on no lake; leave out --lake").into()),
            Self::Init(command) => command.execute().await,
            Self::Validate(command) => command.execute().await,
            Self::Graph(command) => command.execute(),
            Self::Schema(command) => command.execute(),
            Self::Calendar(command) => command.execute(),
            Self::Completions(command) => command.execute(),
            Self::Man(command) => command.execute(),
        }
    }
}

/// The command with its help, in which the commands are grouped by what they are for.
fn command() -> clap::Command {
    let command = Cli::command();
    let help = commands::help::grouped(&command);
    command.help_template(help)
}

fn main() -> ExitCode {
    repair::init();
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return output::refused_arguments(&error),
    };
    let logs = cli.terminal.apply();
    let format = cli.command.format();
    let runtime = match repair::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Refused(error).report(format).into(),
    };
    let done = runtime.block_on(Box::pin(cli.command.execute(cli.lake)));
    let exit = done.unwrap_or_else(|failure| failure.report(format));
    // Spans that are still open end with it.
    drop(runtime);
    logs.end();
    exit.into()
}
