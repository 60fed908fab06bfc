//! How the command uses a terminal: colours, how wide, how much it says; and the log of the process.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use anstream::{AutoStream, ColorChoice};
use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::progress;

/// A narrower terminal is treated as one of this width: fewer columns cannot be read.
const NARROWEST: usize = 40;

/// What all commands take.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct TerminalArgs {
    /// When to use colours. `auto` follows NO_COLOR, CLICOLOR and CLICOLOR_FORCE, and uses them on terminals.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = HEADING)]
    color: Color,
    /// Say nothing about progress. Errors and results are still printed.
    #[arg(long, short, global = true, help_heading = HEADING)]
    quiet: bool,
    /// Log what happens, to standard error: -v what is done, -vv in detail, -vvv also of libraries. The environment variable RUST_LOG, such as
    /// `repair_core=debug`, replaces it. Without either, only warnings are logged.
    #[arg(long, short, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet", help_heading = HEADING)]
    verbose: u8,
    /// How log lines are written.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = HEADING)]
    log_format: LogFormat,
}

const HEADING: &str = "Terminal";

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Whether nothing about progress is printed.
static QUIET: OnceLock<bool> = OnceLock::new();

/// Whether progress is not wanted.
pub(crate) fn is_quiet() -> bool {
    QUIET.get().copied().unwrap_or(false)
}

/// Whether to write colours to standard error.
pub(crate) fn has_color() -> bool {
    AutoStream::choice(&std::io::stderr()) != ColorChoice::Never
}

/// How many columns results may take: those of the terminal, or what COLUMNS says. `None` if a program or a file reads them.
pub(crate) fn width() -> Option<usize> {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    let terminal = || std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten().map(|(width, _)| usize::from(width.0));
    asked.or_else(terminal).filter(|width| *width > 0).map(|width| width.max(NARROWEST))
}

impl TerminalArgs {
    /// Follows the arguments from now on. Returns what the command ends with.
    pub(crate) fn apply(self) -> Logs {
        let choice = match self.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        choice.write_global();
        // It is set once, before anything is done.
        let _ = QUIET.set(self.quiet);
        self.log()
    }

    /// Writes log lines to standard error, and sends spans where the environment says.
    fn log(self) -> Logs {
        let asked = std::env::var("RUST_LOG").ok().filter(|levels| !levels.trim().is_empty());
        let (levels, refused) = match asked.map(|levels| levels.parse::<Targets>()) {
            Some(Ok(levels)) => (levels, None),
            Some(Err(error)) => (self.levels(), Some(error)),
            None => (self.levels(), None),
        };
        let lines = tracing_subscriber::fmt::layer().with_writer(BesideProgress).with_ansi(false);
        let lines = match self.log_format {
            LogFormat::Text => lines.without_time().with_target(false).compact().with_filter(levels).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_filter(levels).boxed(),
        };
        let (layers, logs, warnings) = Logs::begin(lines);
        // Nobody else sets a subscriber before the command does.
        let _ = tracing_subscriber::registry().with(layers).try_init();
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if let Some(error) = refused {
            tracing::warn!(%error, "RUST_LOG cannot be read, and is ignored; write it as LEVEL or TARGET=LEVEL, separated by commas");
        }
        logs
    }

    /// What is logged without RUST_LOG.
    fn levels(self) -> Targets {
        let (ours, others) = match self.verbose {
            0 => (LevelFilter::WARN, LevelFilter::ERROR),
            1 => (LevelFilter::INFO, LevelFilter::WARN),
            2 => (LevelFilter::DEBUG, LevelFilter::WARN),
            _ => (LevelFilter::TRACE, LevelFilter::DEBUG),
        };
        // A target matches all that begin with it: `repair`, `repair_core`, …
        Targets::new().with_default(others).with_target("repair", ours)
    }
}

/// What observes what happens in the process.
type Layers = Vec<Box<dyn Layer<Registry> + Send + Sync>>;

/// What has to be ended when the command ends.
#[derive(Default)]
pub(crate) struct Logs {
    #[cfg(feature = "otlp")]
    traces: Option<crate::traces::Traces>,
}

impl Logs {
    /// Begins what the environment asks for, beside the log lines. Returns what to warn of, too.
    #[cfg(feature = "otlp")]
    fn begin(lines: Box<dyn Layer<Registry> + Send + Sync>) -> (Layers, Self, Vec<String>) {
        let begun = crate::traces::begin();
        let (layer, traces) = begun.sending.unzip();
        (std::iter::once(lines).chain(layer).collect(), Self { traces }, begun.warnings)
    }

    /// Begins what the environment asks for, beside the log lines: nothing without the feature `otlp`.
    #[cfg(not(feature = "otlp"))]
    fn begin(lines: Box<dyn Layer<Registry> + Send + Sync>) -> (Layers, Self, Vec<String>) {
        (vec![lines], Self::default(), Vec::new())
    }

    /// Ends it.
    pub(crate) fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            traces.end();
        }
    }
}

/// Writes log lines above what shows the progress.
struct BesideProgress;

impl<'a> MakeWriter<'a> for BesideProgress {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

/// A log line, printed when it is complete.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for line in String::from_utf8_lossy(&self.0).lines() {
            progress::above(line);
        }
    }
}
