//! What people and programs read: errors on standard error, results on standard output.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use repair_core::engine::Outcome;
use repair_core::engine::{RunReport, StepReport};
use repair_core::yaml::Diagnostics;
use repair_core::{Error, ErrorKind};
use serde_json::Value;

/// The run failed.
const FAILED: u8 = 1;
/// The input is not usable.
const BAD_INPUT: u8 = 2;
/// It could not be told.
const BLIND: u8 = 3;

/// It was paused or told to stop, and can be resumed.
const STOPPED: u8 = 4;
/// Its budget did not allow what was left to do.
const OVER_BUDGET: u8 = 5;
/// A plan does not hold any more.
const OUTDATED: u8 = 6;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A workflow has mistakes.
    Workflow(Diagnostics),
    /// Anything that the engine says.
    Engine(Error),
    /// A budget that cannot be met.
    OverBudget(String),
    /// A plan that does not hold any more.
    Outdated(String),
    /// Anything else: writing to a closed pipe, say.
    Other(anyhow::Error),
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Workflow(diagnostics)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// Tells it, and says with which code to exit.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Workflow(diagnostics) => {
                let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                complain(&diagnostics.render(color));
                ExitCode::from(BAD_INPUT)
            }
            Self::Engine(error) => {
                complain(&format!("error: {}", error.full()));
                ExitCode::from(code_of(error.kind()))
            }
            Self::OverBudget(why) => {
                complain(&format!("error: {why}"));
                ExitCode::from(OVER_BUDGET)
            }
            Self::Outdated(why) => {
                complain(&format!("error: {why}"));
                ExitCode::from(OUTDATED)
            }
            Self::Other(error) => {
                // A reader that has seen enough, such as `head`, is no failure of ours.
                let closed = error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
                if !closed {
                    complain(&format!("error: {error:#}"));
                }
                ExitCode::from(FAILED)
            }
        }
    }
}

/// The exit code of an error before or outside a run.
fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Conflict => BAD_INPUT,
        ErrorKind::Blind => BLIND,
        ErrorKind::Cancelled => STOPPED,
        _ => FAILED,
    }
}

/// The exit code of a run that has ended.
pub(crate) fn exit_code(report: &RunReport) -> ExitCode {
    match (report.outcome, report.error) {
        (Some(Outcome::Succeeded | Outcome::SucceededWithExceptions), _) => ExitCode::SUCCESS,
        (Some(Outcome::Blind), _) => ExitCode::from(BLIND),
        (Some(Outcome::OverBudget), _) => ExitCode::from(OVER_BUDGET),
        (None, _) => ExitCode::from(STOPPED),
        // Data that is not what it must be is bad input, also when it is found on the way.
        (_, Some(ErrorKind::Invalid)) => ExitCode::from(BAD_INPUT),
        _ => ExitCode::from(FAILED),
    }
}

/// What a plan exits with: told before anything is spent.
pub(crate) fn over_budget() -> ExitCode {
    ExitCode::from(OVER_BUDGET)
}

/// Refuses to go on, for want of something.
pub(crate) fn refuse(message: &str) -> ExitCode {
    complain(&format!("error: {message}"));
    ExitCode::from(FAILED)
}

fn complain(text: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(anstream::stderr(), "{}", text.trim_end());
}

/// Tells something beside the result.
pub(crate) fn tell(text: &str) {
    complain(text);
}

/// Writes a result.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.trim_end().as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes a result as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value).context("the result can't be written as JSON")?)
}

/// A table with aligned columns and no frame.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let numbers = !rows.is_empty() && rows.iter().all(|row| row.get(index).is_some_and(|cell| cell.parse::<f64>().is_ok()));
        column.set_cell_alignment(if numbers { CellAlignment::Right } else { CellAlignment::Left });
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Rows as comma-separated values; what has a comma, quote or line break in it is quoted.
pub(crate) fn csv(rows: &[Vec<String>]) -> String {
    let quoted = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
    let cell = |cell: &String| if cell.contains([',', '"', '\n', '\r']) { quoted(cell) } else { cell.clone() };
    rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",")).collect::<Vec<_>>().join("\n")
}

/// A run's report, for people.
pub(crate) fn report(report: &RunReport) -> String {
    let mut text = table(&["step", "visits", "attempts", "output"], &report.steps.iter().map(step_row).collect::<Vec<_>>());
    let usage: BTreeMap<String, Value> =
        serde_json::to_value(report.usage).ok().and_then(|usage| serde_json::from_value(usage).ok()).unwrap_or_default();
    let usage: Vec<String> =
        usage.iter().filter(|(_, count)| **count != 0).map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
    if !usage.is_empty() {
        text.push_str(&format!("\n\nusage: {}", usage.join(", ")));
    }
    for problem in once(&report.problems, report.reason.as_deref()) {
        text.push_str(&format!("\nproblem: {problem}"));
    }
    text.push_str(&match report.outcome {
        Some(Outcome::SucceededWithExceptions) => {
            let why = report.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("\n\nrun {} {}{why}", report.run, Outcome::SucceededWithExceptions.as_str())
        }
        Some(outcome) => format!("\n\nrun {} {}", report.run, outcome.as_str()),
        None => {
            let why = report.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("\n\nrun {} has not ended{why}; go on with `repair resume {}`", report.run, report.run)
        }
    });
    text
}

/// Problems, but of those that say why the run ended only the first: its step and units each say it again.
fn once<'a>(problems: &'a [String], why: Option<&'a str>) -> impl Iterator<Item = &'a String> {
    let mut told = false;
    problems.iter().filter(move |problem| {
        let says_why = why.is_some_and(|why| problem.ends_with(why));
        !(says_why && std::mem::replace(&mut told, true))
    })
}

fn step_row(step: &StepReport) -> Vec<String> {
    let output = step.skipped.as_ref().map_or_else(|| short(&step.output), |why| format!("skipped: {why}"));
    vec![step.name.clone(), step.visits.to_string(), step.attempts.to_string(), output]
}

/// A number and what it counts: `1 unit`, `2 units`.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// An output on one line, zeros left out.
pub(crate) fn short(output: &Value) -> String {
    let Value::Object(fields) = output else { return if output.is_null() { String::new() } else { output.to_string() } };
    if let (2, Some(due), true) = (fields.len(), fields.get("due").and_then(Value::as_str), fields.contains_key("entered_at")) {
        return format!("until {}", to_the_second(due));
    }
    let shown = fields.iter().filter(|(_, value)| **value != 0).map(|(name, value)| match value {
        Value::String(text) => format!("{name}: {}", to_the_second(text)),
        Value::Array(strategies) if name == "strategies" => format!("{name}: {}", of_strategies(strategies)),
        other => format!("{name}: {other}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Of each strategy of a repair step, how much it has repaired.
fn of_strategies(strategies: &[Value]) -> String {
    let told = strategies.iter().map(|strategy| {
        let name = strategy.get("strategy").and_then(Value::as_str).unwrap_or_default();
        let counted = |name: &str| strategy.get(name).and_then(Value::as_u64).unwrap_or(0);
        let failed = if strategy.get("error").is_some() { ", and failed" } else { "" };
        format!("{name} {} of {}{failed}", counted("repaired"), counted("slots"))
    });
    told.collect::<Vec<_>>().join("; ")
}

/// An instant without fractions of a second; any other text as it is.
fn to_the_second(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |instant| format!("{instant:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_output_is_told_in_a_line_that_people_read() {
        let wait = json!({ "entered_at": "2024-03-04T12:00:00.123456789Z", "due": "2024-03-04T12:01:30.123456789Z" });
        assert_eq!(short(&wait), "until 2024-03-04T12:01:30Z");
        let output = json!({ "last": "2024-03-04T12:00:00.5Z", "missing": 0, "rows": 1, "table": "2024" });
        assert_eq!(short(&output), "last: 2024-03-04T12:00:00Z, rows: 1, table: 2024");
        let strategies = json!({ "repaired": 5, "strategies": [
            { "strategy": "ask", "slots": 6, "repaired": 3, "error": { "kind": "denied" } }, { "strategy": "guess", "slots": 3, "repaired": 2 }
        ] });
        assert_eq!(short(&strategies), "repaired: 5, strategies: ask 3 of 6, and failed; guess 2 of 3");
        assert_eq!([0, 1, 2].map(|number| count(number, "unit")), ["0 units", "1 unit", "2 units"]);
    }
}
