//! Shows on standard error what a run does: a bar on a terminal, plain lines otherwise.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use repair::core::engine::{Event, Observer, Recorded, RunState, Settled, StopReason};
use repair::core::plugin::Progress;
use repair::core::text::visible;

use crate::output::{count, short};

/// Shows what happens in a run.
pub(crate) struct Console {
    terminal: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Console {
    /// For this process's standard error.
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), bar: Mutex::new(None) }
    }

    pub(crate) fn line(&self, text: &str) {
        let text = visible(text);
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match &*bar {
            Some(bar) => bar.println(&text),
            // Nothing can be reported if standard error is closed.
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }
}

impl Progress for Console {
    fn advance(&self, step: &str, done: u64, total: u64) {
        if !self.terminal {
            return;
        }
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} units, {eta} left");
            ProgressBar::new(total).with_prefix(step.to_owned()).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        shown.set_length(total);
        shown.set_position(done);
        if done >= total
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Console {
    fn recorded(&self, recorded: &Recorded, _: &RunState) {
        if let Some(line) = describe(&recorded.event) {
            self.line(&line);
        }
    }
}

/// An event on one line, if a person may want to know about it.
fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::RunStarted { workflow, .. } => format!("{workflow}: started"),
        Event::StepEntered { step, visit: 1 } => format!("{step}: …"),
        Event::StepEntered { step, visit } => format!("{step}: … (visit {visit})"),
        Event::TimerSet { step, due } => format!("{step}: waiting until {due:.0}"),
        Event::UnitsPlanned { step, units, slots, strategy, .. } => {
            format!("{step}: {strategy}: {} for {}", count(u64::from(*units), "unit"), count(*slots, "slot"))
        }
        Event::StrategyEnded { step, strategy, error: Some(error) } => {
            format!("{step}: {strategy} stopped: {}: {}", error.kind, error.message)
        }
        // What follows shows that a wait is over.
        Event::StepSucceeded { output, .. } if output.get("entered_at").is_some() => return None,
        Event::StepSucceeded { step, output, .. } => format!("{step}: {}", short(output)),
        Event::StepFailed { step, error, .. } => format!("{step}: {}: {}", error.kind, error.message),
        Event::RetryScheduled { step, due, .. } => format!("{step}: trying again at {due:.0}"),
        // The step's line before it and the report after it say why.
        Event::RunEnded { outcome, .. } => outcome.as_str().to_owned(),
        Event::StepSettled { step, result: Settled::Skipped { why } } => format!("{step}: skipped: {why}"),
        Event::BranchEnded { step, branch, error: Some(error), .. } => {
            format!("{step}: branch {branch} failed: {}: {}", error.kind, error.message)
        }
        Event::StopRequested { why } => match why {
            StopReason::Cancel => "cancelling; what is under way is stopped first".to_owned(),
            StopReason::Pause => "pausing; what is under way is stopped first".to_owned(),
            StopReason::Timeout => "the run takes too long; what is under way is stopped".to_owned(),
            _ => "stopping; what is under way is stopped first".to_owned(),
        },
        Event::RunPaused => "paused".to_owned(),
        Event::RunRedriven { .. } => "continued from where it failed".to_owned(),
        Event::DefinitionReplaced { changes, .. } if changes.is_empty() => "continues with the corrected definition".to_owned(),
        Event::DefinitionReplaced { changes, .. } => format!("continues with the corrected definition: {}", changes.join(", ")),
        Event::LateTruth { step, table, strategies } => {
            let slots: u64 = strategies.values().map(|truth| truth.slots).sum();
            format!("{step}: late rows of table `{table}` show how accurate repairs were of {}", count(slots, "slot"))
        }
        Event::DriverStarted { .. } => "continued".to_owned(),
        _ => return None,
    })
}
