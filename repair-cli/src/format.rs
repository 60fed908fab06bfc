//! The forms in which commands that drive runs, and `validate`, report: for people, for programs, and for checks that run elsewhere.

use std::io::Write;

use clap::{Args, ValueEnum};
use repair::core::engine::{Observer, Recorded, RunState};
use repair::core::plugin::Progress;
use repair::core::text::{visible, visible_json};
use repair::core::yaml::Diagnostics;
use repair::{JsonFormat, Outcome, RunReport};
use serde::Serialize;

/// How results and errors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object, at the end.
    Json,
    /// A JSON object on a line for each event, as soon as it is recorded; the last line is the object of `json`.
    Ndjson,
    /// As text; and what went wrong as annotations of GitHub Actions.
    Github,
}

impl Format {
    /// Whether programs read it.
    pub(crate) fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Ndjson)
    }

    /// JSON, or text.
    pub(crate) fn json(wanted: bool) -> Self {
        if wanted { Self::Json } else { Self::Text }
    }
}

/// How a command reports.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FormatArg {
    /// Print one JSON object at the end; the same as --format json.
    #[arg(long)]
    json: bool,
    /// How to report.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    format: Option<Format>,
}

impl FormatArg {
    /// The format that was asked for.
    pub(crate) fn get(self) -> Format {
        self.format.unwrap_or(Format::json(self.json))
    }
}

/// An event as an object of its own, which says its format as all objects do.
#[derive(Serialize)]
struct EventObject<'a> {
    format: JsonFormat,
    #[serde(flatten)]
    recorded: &'a Recorded,
}

/// An event as a line of JSON.
///
/// # Errors
/// If it cannot be written so.
pub(crate) fn event_line(recorded: &Recorded) -> serde_json::Result<String> {
    serde_json::to_string(&EventObject { format: JsonFormat, recorded })
}

/// Prints each event of a run as a line of JSON.
pub(crate) struct EventLines;

impl Progress for EventLines {
    fn advance(&self, _: &str, _: u64, _: u64) {}
}

impl Observer for EventLines {
    fn recorded(&self, recorded: &Recorded, _: &RunState) {
        if let Ok(line) = event_line(recorded) {
            let mut out = std::io::stdout().lock();
            // A reader that has seen enough does not stop the run; what is printed at the end notices it.
            let _ = writeln!(out, "{}", visible_json(&line)).and_then(|()| out.flush());
        }
    }
}

/// An annotation of GitHub Actions: a command on a line of standard output.
fn annotation(level: &str, properties: &[(&str, String)], message: &str) -> String {
    let escaped = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |(name, value): &(&str, String)| format!("{name}={}", escaped(value).replace(':', "%3A").replace(',', "%2C"));
    let properties: Vec<String> = properties.iter().map(property).collect();
    let space = if properties.is_empty() { "" } else { " " };
    format!("::{level}{space}{}::{}", properties.join(","), escaped(&visible(message)))
}

/// The mistakes of a file as annotations of its lines.
pub(crate) fn mistakes(mistakes: &Diagnostics) -> Vec<String> {
    let annotated = mistakes.iter().map(|mistake| {
        let mut properties = vec![("file", mistake.file.to_string())];
        if mistake.line > 0 {
            properties.extend([("line", mistake.line.to_string()), ("col", mistake.column.to_string())]);
        }
        let help = mistake.help.as_ref().map(|help| format!("\n{help}")).unwrap_or_default();
        annotation("error", &properties, &format!("{}{help}", mistake.message))
    });
    annotated.collect()
}

/// An error as an annotation.
pub(crate) fn error(message: &str) -> String {
    annotation("error", &[("title", "repair".to_owned())], message)
}

/// The problems of a run as annotations: errors if it did not reach its end, else warnings.
pub(crate) fn problems(report: &RunReport) -> Vec<String> {
    let has_ended_well = matches!(report.outcome, Some(Outcome::Succeeded | Outcome::SucceededWithExceptions));
    let level = if has_ended_well { "warning" } else { "error" };
    let title = format!("repair: run {}", report.run);
    let mut texts: Vec<&String> = report.problems.iter().collect();
    if let Some(reason) = report.reason.as_ref().filter(|reason| !report.problems.iter().any(|problem| problem.ends_with(reason.as_str())))
    {
        texts.push(reason);
    }
    texts.into_iter().map(|text| annotation(level, &[("title", title.clone())], text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_an_annotation_stays_in_it() {
        let line = annotation("error", &[("file", "a:b,c.yaml".to_owned()), ("line", "3".to_owned())], "50 %\n::error::forged\u{1b}[1m");
        assert_eq!(line, "::error file=a%3Ab%2Cc.yaml,line=3::50 %25\\n::error::forged\\u{1b}[1m");
    }
}
