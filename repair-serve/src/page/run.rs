//! The page of a run: what it does, what its steps have done, and what can be done with it.

use repair::Result;
use repair::core::engine::{Phase, RunState, StepState};
use repair::report::markup::{Markup, grouped, shortened};
use repair::run::RunStatus;
use serde_json::Value;

use super::{ask, instant, link, live, page, place_of, state_of, table};
use crate::server::Shared;
use crate::watch::Watched;

/// How many characters of an output are shown.
const MOST_OUTPUT: usize = 600;

/// The page of a run.
///
/// # Errors
/// `not-found` if there is no such run; those of the journal.
pub(crate) async fn run(shared: &Shared, lake: usize, run: &str) -> Result<String> {
    let watched = shared.lake(lake)?;
    let state = watched.lake.state(run).await?;
    let approvals = watched.lake.awaited_approvals(run).await.map(|awaited| awaited.approvals).unwrap_or_default();
    let report = repair::RunReport::new(run, &state);
    let place = format!("/lakes/{lake}/runs/{run}");
    let status = status(&watched, run, &state);
    let mut body = Markup::default();
    body.raw("<header>").leaf("h1", &[], format!("Run {run}"));
    live(&mut body, "facts", |body| {
        body.raw("<p>");
        state_of(
            body,
            status,
            state.ended.as_ref().map(|ended| ended.outcome),
            state.ended.as_ref().map_or(status.as_str(), |ended| ended.outcome.as_str()),
        );
        body.raw(" · ");
        link(body, &place_of(&state.started.workflow), &state.started.workflow);
        body.raw(" · started ");
        instant(body, state.started.at);
        if let Some(ended) = &state.ended {
            body.raw(", ended ");
            instant(body, ended.at);
        }
        body.raw("</p>");
        if let Some(reason) = &report.reason {
            body.leaf("p", &[("class", &"lead")], shortened(reason, MOST_OUTPUT));
        }
        body.raw("<dl class=\"numbers\">");
        for (words, number, bad) in [
            ("still missing or wrong", report.missing, report.missing > 0),
            ("calls to sources", report.usage.source_requests, false),
            ("rows written", report.usage.rows_written, false),
            ("steps begun", u64::try_from(report.steps.len()).unwrap_or(0), false),
            ("problems", u64::try_from(report.problems.len()).unwrap_or(0), !report.problems.is_empty()),
        ] {
            body.open("div", &[("class", &if bad { "bad" } else { "" })])
                .leaf("dt", &[], words)
                .leaf("dd", &[], grouped(number))
                .close("div");
        }
        body.raw("</dl>");
    });
    body.raw("</header><main>");
    live(&mut body, "actions", |body| {
        body.raw("<div class=\"actions\">");
        if state.ended.is_none() {
            for approval in &approvals {
                let about = approval.message.clone().unwrap_or_else(|| "An approval".to_owned());
                body.leaf("p", &[], format!("Step {} waits for an approval: {}", approval.step, shortened(&about, MOST_OUTPUT)));
                body.raw("<ul class=\"plain\">");
                for line in approval.lines() {
                    body.leaf("li", &[], shortened(&line, MOST_OUTPUT));
                }
                body.raw("</ul>");
                let fields = [("step", approval.step.as_str(), ""), ("reason", "", "Why"), ("by", "", "Who decides")];
                ask(body, shared, "Approve…", &format!("{place}/approve"), "Approve it", &fields);
                ask(body, shared, "Reject…", &format!("{place}/reject"), "Reject it", &fields);
            }
            if matches!(status, RunStatus::Stopped | RunStatus::Paused) {
                ask(body, shared, "Resume…", &format!("{place}/resume"), "Resume it", &[]);
            } else {
                ask(body, shared, "Pause…", &format!("{place}/pause"), "Pause it", &[]);
            }
            ask(body, shared, "Cancel…", &format!("{place}/cancel"), "Cancel it", &[]);
        } else if !state
            .ended
            .as_ref()
            .is_some_and(|ended| matches!(ended.outcome, repair::Outcome::Succeeded | repair::Outcome::SucceededWithExceptions))
        {
            ask(body, shared, "Redrive…", &format!("{place}/redrive"), "Go on from where it failed", &[]);
        }
        link(body, &format!("{place}/report"), "Report with pictures");
        body.raw("</div>");
    });
    live(&mut body, "problems", |body| {
        if !report.problems.is_empty() {
            body.raw("<h2>Problems</h2><ul class=\"plain\">");
            for problem in &report.problems {
                body.leaf("li", &[], shortened(problem, MOST_OUTPUT));
            }
            body.raw("</ul>");
        }
    });
    body.raw("<h2>Steps</h2>");
    live(&mut body, "steps", |body| steps(body, &state));
    body.raw("<h2>Parameters</h2>");
    table(&mut body, "Parameters", &["Parameter", "Value"], |body| {
        for (name, value) in &state.started.params {
            body.raw("<tr>").leaf("td", &[], name).leaf("td", &[("class", &"text")], plain(value)).raw("</tr>");
        }
    });
    body.leaf("p", &[("class", &"dim")], format!("In {}; relative dates are counted from {:.0}.", watched.place, state.started.now))
        .raw("</main>");
    Ok(page(&format!("Run {run}"), &body))
}

/// What a run does, as its lake was seen last.
fn status(watched: &Watched, run: &str, state: &RunState) -> RunStatus {
    let seen = watched.seen();
    let listed = seen.runs.iter().find(|listed| listed.run == run).map(|listed| listed.status);
    match listed {
        _ if state.ended.is_some() => RunStatus::Ended,
        _ if state.paused => RunStatus::Paused,
        Some(RunStatus::Ended) | None => RunStatus::Running,
        Some(status) => status,
    }
}

fn steps(body: &mut Markup, state: &RunState) {
    let mut steps: Vec<(&String, &StepState)> = state.steps.iter().collect();
    steps.sort_by_key(|(_, step)| step.order);
    if steps.is_empty() {
        body.raw("<p>No step has begun.</p>");
        return;
    }
    table(body, "Steps", &["Step", "Now", "Visits", "Units", "Latest output"], |body| {
        for (name, step) in steps {
            body.raw("<tr>").leaf("td", &[], name).raw("<td>");
            match state.active.get(name).map(|position| &position.phase) {
                None | Some(Phase::Done) => drop(body.raw("done")),
                Some(_) if state.ended.is_some() => drop(body.raw("ended")),
                Some(Phase::Waiting { due }) => {
                    body.raw("waits until ");
                    instant(body, *due);
                }
                Some(Phase::Backoff { due }) => {
                    body.raw("is tried again at ");
                    instant(body, *due);
                }
                Some(Phase::Failed(error)) => drop(body.leaf("span", &[("class", &"state bad")], shortened(&error.message, 120))),
                Some(_) => drop(body.leaf("span", &[("class", &"state busy")], "at work")),
            }
            body.raw("</td>").leaf("td", &[("class", &"n")], step.visits).raw("<td>");
            if let Some(units) = step.units.as_ref().filter(|units| !units.is_empty()) {
                let done = units.len() - units.pending();
                body.leaf("progress", &[("max", &units.len()), ("value", &done), ("aria-label", &format_args!("{name}: units done"))], "");
                body.text(format!(" {} of {}", grouped(done), grouped(units.len())));
                if units.failed() > 0 {
                    body.text(format!(", {} failed", grouped(units.failed())));
                }
            }
            body.raw("</td>").leaf("td", &[("class", &"text")], plain(&step.output)).raw("</tr>");
        }
    });
}

/// A value for people: without the signs of JSON where it is flat.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| format!("{name}: {}", plain(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    shortened(&text, MOST_OUTPUT)
}
