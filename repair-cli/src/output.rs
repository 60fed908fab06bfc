//! What people and programs read: results on standard output, errors on standard error; with `--json`, errors too on standard output.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use repair::core::engine::StepReport;
pub(crate) use repair::core::text::count;
use repair::core::text::{grouped, inert, visible, visible_json, visible_lines};
use repair::core::yaml::Diagnostics;
use repair::jiff::Timestamp;
use repair::{Error, ErrorKind, Hint, Outcome, RunReport};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::format::{self, Format};
use crate::hint::advice;
use crate::terminal::{has_color, width};

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for was refused, or failed.
    Refused(Error),
    /// Several things were refused, each for itself; there is at least one.
    Several(Vec<Error>),
    /// Anything else, such as writing to a closed pipe.
    Other(anyhow::Error),
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Refused(diagnostics.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Whether a reader has seen enough, such as `head`, which is not a failure of ours.
fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Says on standard error what could not be printed as JSON, as on a disk that is full, and why not.
fn or_complain(printed: anyhow::Result<()>, said: &[String]) {
    if let Err(error) = printed
        && !is_closed(&error)
    {
        said.iter().for_each(|said| complain(said));
        complain(&format!("error: standard output takes nothing: {error:#}"));
    }
}

/// An instant so late that it means never, as an exception without an end has it.
pub(crate) fn is_never(at: repair::jiff::Timestamp) -> bool {
    // 9999-01-01T00:00:00Z
    const NEVER_S: i64 = 253_370_764_800;
    at.as_second() >= NEVER_S
}

impl Failure {
    /// Prints the error, and returns the code to exit with.
    pub(crate) fn report(self, format: Format) -> Exit {
        let as_json = format.is_json();
        match self {
            Self::Refused(error) => {
                match format {
                    Format::Json => or_complain(print_json(&object(&error)), &[text(&error)]),
                    Format::Ndjson => or_complain(print_json_line(&object(&error)), &[text(&error)]),
                    Format::Text => complain(&text(&error)),
                    Format::Github => {
                        complain(&text(&error));
                        let lines = mistakes(&error).map_or_else(|| vec![format::error(&text(&error))], format::mistakes);
                        drop(print(&lines.join("\n")));
                    }
                }
                Exit::of_error(&error)
            }
            Self::Several(errors) => {
                match format {
                    Format::Json => or_complain(print_json(&objects(&errors)), &errors.iter().map(text).collect::<Vec<_>>()),
                    Format::Ndjson => or_complain(print_json_line(&objects(&errors)), &errors.iter().map(text).collect::<Vec<_>>()),
                    Format::Text => errors.iter().for_each(|error| complain(&text(error))),
                    Format::Github => {
                        errors.iter().for_each(|error| complain(&text(error)));
                        let lines: Vec<String> = errors.iter().map(|error| format::error(&text(error))).collect();
                        drop(print(&lines.join("\n")));
                    }
                }
                errors.first().map_or(Exit::BadInput, Exit::of_error)
            }
            Self::Other(error) => {
                let closed = is_closed(&error);
                if !closed && as_json {
                    let printed = print_json(&json!({
                        "format": repair::JsonFormat,
                        "error": { "kind": ErrorKind::Internal, "message": format!("{error:#}"), "context": {}, "hint": Value::Null },
                    }));
                    or_complain(printed, &[format!("error: {error:#}")]);
                } else if !closed {
                    complain(&format!("error: {error:#}"));
                }
                Exit::Failed
            }
        }
    }
}

/// Prints what is wrong with the arguments; or the help, if that was asked for.
pub(crate) fn refused_arguments(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if !(error.use_stderr() && wants_json) {
        // Nothing is left to report to if it cannot be printed.
        let _ = error.print();
        return if error.use_stderr() { Exit::BadInput.into() } else { Exit::Success.into() };
    }
    let message = error.render().to_string();
    let message = message.trim().trim_start_matches("error: ");
    let object = json!({
        "format": repair::JsonFormat,
        "error": { "kind": ErrorKind::Invalid, "message": message, "context": {}, "hint": "see --help" },
    });
    let _ = print_json(&object);
    Exit::BadInput.into()
}

/// The mistakes of a file, if these are the error.
fn mistakes(error: &Error) -> Option<&Diagnostics> {
    match error.remedy() {
        Some(Hint::CorrectFile { .. }) => error.source().and_then(|source| source.downcast_ref()),
        _ => None,
    }
}

/// An error, for people.
fn text(error: &Error) -> String {
    if let Some(mistakes) = mistakes(error) {
        let color = has_color();
        return if color { mistakes.render(color) } else { visible_lines(&mistakes.render(color)).into_owned() };
    }
    let advice = error.remedy().and_then(advice).map(|advice| format!("; {advice}")).unwrap_or_default();
    visible(&format!("error: {}{advice}", error.full())).into_owned()
}

/// Several errors, for programs: the first as the error, and all of them.
fn objects(errors: &[Error]) -> Value {
    let all: Vec<Value> = errors.iter().map(|error| object(error)["error"].clone()).collect();
    let mut first = errors.first().map_or(Value::Null, object);
    first["errors"] = Value::Array(all);
    first
}

/// An error, for programs.
fn object(error: &Error) -> Value {
    let context: BTreeMap<&str, &String> = error.context().iter().map(|(name, value)| (*name, value)).collect();
    let hint = error.remedy().and_then(advice);
    let mut object = json!({ "kind": error.kind(), "message": error.message(), "context": context, "hint": hint });
    if let Some(mistakes) = mistakes(error) {
        object["message"] = json!(format!("`{}` has mistakes", mistakes.file()));
        object["mistakes"] = json!(mistakes);
    } else {
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        if !causes.is_empty() {
            object["causes"] = json!(causes);
        }
    }
    json!({ "format": repair::JsonFormat, "error": object })
}

fn complain(text: &str) {
    // Nothing can be reported if standard error is closed.
    let _ = writeln!(anstream::stderr(), "{}", text.trim_end());
}

/// Writes a result.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(visible_lines(text.trim_end()).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes a result of several lines, each of which stays one whatever the data in it hold.
pub(crate) fn print_lines(lines: &[String]) -> anyhow::Result<()> {
    print(&lines.iter().map(|line| visible(line)).collect::<Vec<_>>().join("\n"))
}

/// Writes a result as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("the result can't be written as JSON")?;
    let mut out = std::io::stdout().lock();
    out.write_all(visible_json(&text).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes a result as JSON on one line.
pub(crate) fn print_json_line(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print_json_text(&serde_json::to_string(value).context("the result can't be written as JSON")?)
}

/// Writes lines of JSON. What acts on a terminal is escaped as JSON escapes it, so each line stays one that programs read.
pub(crate) fn print_json_text(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(visible_json(text).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Which rows go to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsAs {
    /// Lines of text.
    Lines,
    /// JSON.
    Json,
}

/// Standard output for rows. A program gets them as they are. On a terminal, characters that would act on it are written out.
pub(crate) fn rows_out(rows: RowsAs) -> Box<dyn Write + Send> {
    let out = std::io::stdout();
    if out.is_terminal() { Box::new(Shown { out, rows, line: Vec::new() }) } else { Box::new(std::io::BufWriter::new(out)) }
}

/// Writes to a terminal, line by line.
struct Shown<W: Write> {
    out: W,
    rows: RowsAs,
    line: Vec<u8>,
}

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.line.split_off(end + 1);
            let lines = std::mem::replace(&mut self.line, rest);
            let text = String::from_utf8_lossy(&lines);
            let shown = match self.rows {
                RowsAs::Lines => visible_lines(&text),
                RowsAs::Json => visible_json(&text),
            };
            self.out.write_all(shown.as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// The failure of a command that writes rows. A reader that has seen enough, such as `head`, is not a failure of ours.
pub(crate) fn failure_of_rows(error: Error) -> Failure {
    let mut cause = error.source();
    while let Some(source) = cause {
        if source.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return Failure::Other(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
        }
        cause = source.source();
    }
    Failure::Refused(error)
}

/// Says something beside the rows on standard output.
pub(crate) fn remark(text: &str) {
    complain(&visible_lines(text));
}

/// A table with aligned columns and no frame, not wider than the terminal.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    if let Some(width) = width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let numbers =
            !rows.is_empty() && rows.iter().all(|row| row.get(index).is_some_and(|cell| cell.replace(',', "").parse::<f64>().is_ok()));
        column.set_cell_alignment(if numbers { CellAlignment::Right } else { CellAlignment::Left });
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A text in lines of at most so many characters.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A text of which no line is wider than the terminal: a longer one goes on in the next, further in.
pub(crate) fn fit(text: &str) -> String {
    let Some(width) = width() else { return text.to_owned() };
    let fitted = |line: &str| {
        if line.chars().count() <= width {
            return line.to_owned();
        }
        let indent = " ".repeat(line.len() - line.trim_start().len());
        let lines = wrapped(line, width.saturating_sub(indent.len() + 2).max(1));
        format!("{indent}{}", lines.join(&format!("\n{indent}  ")))
    };
    text.lines().map(fitted).collect::<Vec<_>>().join("\n")
}

/// Rows as comma-separated values. A cell with a comma, quote or line break is quoted, and one that a spreadsheet would compute is text.
pub(crate) fn csv(rows: &[Vec<String>]) -> String {
    let quoted = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
    let cell = |cell: &String| {
        let cell = inert(cell);
        if cell.contains([',', '"', '\n', '\r']) { quoted(&cell) } else { cell.into_owned() }
    };
    rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",")).collect::<Vec<_>>().join("\n")
}

/// A run's report, for people.
pub(crate) fn report(report: &RunReport) -> String {
    let mut text = table(&["step", "visits", "attempts", "output"], &report.steps.iter().map(step_row).collect::<Vec<_>>());
    let usage: BTreeMap<String, Value> =
        serde_json::to_value(report.usage).ok().and_then(|usage| serde_json::from_value(usage).ok()).unwrap_or_default();
    let usage: Vec<String> = usage
        .iter()
        .filter(|(_, count)| **count != 0)
        .map(|(name, count)| format!("{} {}", name.replace('_', " "), count.as_u64().map_or_else(|| count.to_string(), grouped)))
        .collect();
    if !usage.is_empty() {
        text.push_str(&format!("\n\nusage: {}", usage.join(", ")));
    }
    for problem in once(&report.problems, report.reason.as_deref()) {
        text.push_str(&format!("\nproblem: {}", visible(problem)));
    }
    for step in report.steps.iter().filter(|step| !step.other_keys.is_empty()) {
        let rows = step.output.get("other_keys").and_then(Value::as_u64).unwrap_or_default();
        text.push_str(&format!("\nnote: {}: {rows} rows have keys that it does not expect: {}", step.name, step.other_keys.describe(rows)));
    }
    text.push_str(&format!("\n\n{}", visible(&last_line(report))));
    fit(&text)
}

/// How a run ended, and whether slots are still missing.
fn last_line(report: &RunReport) -> String {
    let run = &report.run;
    let why = report.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut line = match report.outcome {
        Some(Outcome::SucceededWithExceptions) => format!("run {run} {}{why}", Outcome::SucceededWithExceptions.as_str()),
        Some(outcome) => format!("run {run} {}", outcome.as_str()),
        None => format!("run {run} has not ended{why}; continue with `repair resume {run}`"),
    };
    if report.missing > 0 && !line.contains("missing") {
        let are = if report.missing == 1 { "is" } else { "are" };
        line.push_str(&format!("; {} {are} still missing or wrong", count(report.missing, "slot")));
    }
    line
}

/// All problems, but only one of those that say why the run ended: its step and its units repeat it.
fn once<'a>(problems: &'a [String], why: Option<&'a str>) -> impl Iterator<Item = &'a String> {
    let mut said = false;
    problems.iter().filter(move |problem| {
        let says_why = why.is_some_and(|why| problem.ends_with(why));
        !(says_why && std::mem::replace(&mut said, true))
    })
}

fn step_row(step: &StepReport) -> Vec<String> {
    let output = step.skipped.as_ref().map_or_else(|| short(&step.output), |why| format!("skipped: {why}"));
    vec![step.name.clone(), step.visits.to_string(), step.attempts.to_string(), output]
}

/// How long something took, in at most two units: `12 ms`, `1.5 s`, `2 min 3 s`, `1 h 40 min`, `3 d 4 h`.
pub(crate) fn lasted(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..10 => format!("{:.1} s", (duration.as_secs_f64() * 10.0).floor() / 10.0),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
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
        Value::Object(_) if ["units", "compared"].contains(&name.as_str()) => format!("{name}: ({})", short(value)),
        Value::Number(number) => format!("{name}: {}", number.as_u64().map_or_else(|| number.to_string(), grouped)),
        other => format!("{name}: {other}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// How much each strategy of a repair step has repaired.
fn of_strategies(strategies: &[Value]) -> String {
    let strategies = strategies.iter().map(|strategy| {
        let name = strategy.get("strategy").and_then(Value::as_str).unwrap_or_default();
        let counted = |name: &str| strategy.get(name).and_then(Value::as_u64).unwrap_or(0);
        let failed = if strategy.get("error").is_some() { ", and failed" } else { "" };
        format!("{name} {} of {}{failed}", grouped(counted("repaired")), grouped(counted("slots")))
    });
    strategies.collect::<Vec<_>>().join("; ")
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
    fn hostile_text_does_nothing_on_a_terminal_and_stays_the_same_json() {
        let text = "esc\u{1b}[31m\u{202e}\u{9b}";
        let json = serde_json::to_string_pretty(&json!({ "key": text })).unwrap();
        let shown = visible_json(&json);
        assert!(shown.chars().all(|character| character == '\n' || !character.is_control()) && !shown.contains('\u{202e}'), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["key"], text);
        let mut out = Vec::new();
        let mut terminal = Shown { out: &mut out, rows: RowsAs::Lines, line: Vec::new() };
        terminal.write_all("a,\u{1b}".as_bytes()).unwrap();
        terminal.write_all(b"[2K\nb,\"x\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a,\\u{1b}[2K\nb,\"x\n");
    }

    #[test]
    fn an_output_is_one_line_that_people_can_read() {
        let wait = json!({ "entered_at": "2024-03-04T12:00:00.123456789Z", "due": "2024-03-04T12:01:30.123456789Z" });
        assert_eq!(short(&wait), "until 2024-03-04T12:01:30Z");
        let output = json!({ "last": "2024-03-04T12:00:00.5Z", "missing": 0, "rows": 1, "table": "2024" });
        assert_eq!(short(&output), "last: 2024-03-04T12:00:00Z, rows: 1, table: 2024");
        let strategies = json!({ "repaired": 5, "strategies": [
            { "strategy": "ask", "slots": 6, "repaired": 3, "error": { "kind": "denied" } }, { "strategy": "guess", "slots": 3, "repaired": 2 }
        ] });
        assert_eq!(short(&strategies), "repaired: 5, strategies: ask 3 of 6, and failed; guess 2 of 3");
        let took = [0.012, 1.56, 59.9, 123.0, 6_000.0, 273_600.0].map(|seconds| lasted(Duration::from_secs_f64(seconds)));
        assert_eq!(took, ["12 ms", "1.5 s", "59 s", "2 min 3 s", "1 h 40 min", "3 d 4 h"]);
    }
}
