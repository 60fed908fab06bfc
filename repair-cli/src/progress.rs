//! Shows on standard error what a run does: what is under way on a terminal, and a line for each step that has ended.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use repair::core::engine::{Event, Observer, Recorded, RunState, Settled, StopReason};
use repair::core::plugin::Progress;
use repair::core::text::visible;
use repair::jiff::Timestamp;

use crate::output::{count, lasted, short};
use crate::terminal;

/// How often what is shown on a terminal is drawn again while nothing happens.
const TICK: Duration = Duration::from_millis(250);

/// What is under way, on the last line of the terminal. There is one for the process, as there is one terminal.
static UNDER_WAY: Mutex<Option<UnderWay>> = Mutex::new(None);

/// What is under way.
struct UnderWay {
    step: String,
    bar: ProgressBar,
    is_counting: bool,
}

/// Prints a line above what is under way.
pub(crate) fn above(line: &str) {
    let line = visible(line);
    match &*UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(under_way) => under_way.bar.println(&line),
        // Nothing can be reported if standard error is closed.
        None => drop(writeln!(anstream::stderr(), "{line}")),
    }
}

/// Shows what happens in a run.
pub(crate) struct Console {
    terminal: bool,
    quiet: bool,
    /// When each step that is under way was entered.
    entered: Mutex<HashMap<String, Timestamp>>,
}

impl Console {
    /// For this process's standard error.
    pub(crate) fn new() -> Self {
        let quiet = terminal::is_quiet();
        Self { terminal: std::io::stderr().is_terminal() && !quiet, quiet, entered: Mutex::default() }
    }

    pub(crate) fn line(&self, text: &str) {
        if !self.quiet {
            above(text);
        }
    }

    /// Shows that a step is under way, with how long it has been.
    fn begin(&self, step: &str, what: &str, left: Option<Timestamp>) {
        if !self.terminal {
            return;
        }
        let template = if left.is_some() { "{prefix}: {msg}, {left} left" } else { "{prefix}: {msg} {elapsed}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        let left = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let left = left.map(|due| Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default());
            // Writing to a string does not fail.
            let _ = out.write_str(&lasted(left.unwrap_or_default()));
        };
        // What is set later is drawn at once, before the rest is there.
        let bar = ProgressBar::new_spinner().with_prefix(visible(step).into_owned()).with_message(what.to_owned());
        let bar = bar.with_style(style.with_key("left", left));
        bar.enable_steady_tick(TICK);
        self.show(Some(UnderWay { step: step.to_owned(), bar, is_counting: false }));
    }

    /// Shows something else, or nothing, as under way.
    fn show(&self, next: Option<UnderWay>) {
        let mut shown = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = std::mem::replace(&mut *shown, next) {
            before.bar.finish_and_clear();
        }
    }

    /// How long a step took that was entered before, and now has ended.
    fn took(&self, step: &str, at: Timestamp) -> String {
        let entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner).remove(step);
        let Some(took) = entered.and_then(|entered| Duration::try_from(at.duration_since(entered)).ok()) else { return String::new() };
        format!(" ({})", lasted(took))
    }
}

impl Progress for Console {
    fn advance(&self, step: &str, done: u64, total: u64) {
        if !self.terminal {
            return;
        }
        let bar = match &mut *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(under_way) if under_way.is_counting && under_way.step == step => Some(under_way.bar.clone()),
            _ => None,
        };
        let bar = bar.unwrap_or_else(|| {
            let style = ProgressStyle::with_template("{prefix}: {bar:24} {human_pos} of {human_len} units, {elapsed}, {eta} left");
            let bar = ProgressBar::new(total).with_prefix(visible(step).into_owned());
            let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(TICK);
            self.show(Some(UnderWay { step: step.to_owned(), bar: bar.clone(), is_counting: true }));
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
    }
}

impl Observer for Console {
    fn recorded(&self, recorded: &Recorded, _: &RunState) {
        if self.quiet {
            return;
        }
        match &recorded.event {
            Event::StepEntered { step, visit } => {
                self.entered.lock().unwrap_or_else(PoisonError::into_inner).insert(step.clone(), recorded.at);
                let visit = if *visit > 1 { format!("under way, visit {visit},") } else { "under way".to_owned() };
                return self.begin(step, &visit, None);
            }
            Event::TimerSet { step, due } => self.begin(step, "waiting", Some(*due)),
            Event::RetryScheduled { step, due, .. } => self.begin(step, "waiting to try again", Some(*due)),
            Event::RunEnded { .. } | Event::RunPaused => self.show(None),
            Event::StepSucceeded { step, .. } | Event::StepFailed { step, .. } => {
                let is_shown = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|shown| shown.step == *step);
                if is_shown {
                    self.show(None);
                }
            }
            _ => {}
        }
        let Some(line) = describe(&recorded.event) else { return };
        let took = match &recorded.event {
            Event::StepSucceeded { step, .. } | Event::StepFailed { step, .. } => self.took(step, recorded.at),
            _ => String::new(),
        };
        self.line(&format!("{line}{took}"));
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.show(None);
    }
}

/// An event on one line, if a person may want to know about it.
pub(crate) fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::RunStarted { workflow, .. } => format!("{workflow}: started"),
        Event::TimerSet { step, due } => format!("{step}: waiting until {due:.0}"),
        Event::UnitsPlanned { step, units, slots, strategy, .. } => {
            format!("{step}: {strategy}: {} for {}", count(u64::from(*units), "unit"), count(*slots, "slot"))
        }
        Event::ItemsPlanned { step, items, .. } if items.is_empty() => format!("{step}: the list is empty, so nothing runs"),
        Event::ItemsPlanned { step, items, .. } => format!("{step}: {}", count(items.len() as u64, "item")),
        Event::ItemEnded { step, item, result } => {
            let error = result.error.as_ref()?;
            format!("{step}: item {item}, run {}: {}: {}", result.run, error.kind, error.message)
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
