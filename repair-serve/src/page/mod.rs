//! The pages. What they show comes from others; data reaches them only escaped.

mod run;
mod tables;

use std::sync::Arc;

use jiff::Timestamp;
use repair::Result;
use repair::core::workflow::{Param, Workflow};
use repair::report::markup::{Attributes, Markup, count, grouped, shortened};
use repair::run::{RunStatus, RunSummary};
use repair::schedule::{ScheduleStatus, upcoming};
use repair::{Error, Outcome};

use crate::action::Planned;
use crate::folder::Loaded;
use crate::server::Shared;

pub(crate) use run::run;
pub(crate) use tables::{status_of, tables};

/// The script of all pages.
pub(crate) const SCRIPT: &str = include_str!("page.js");
/// How many runs the first page lists.
const MOST_RUNS: usize = 50;
/// How many next ticks are shown.
const NEXT_TICKS: usize = 5;
/// How many characters of a text are shown in a table.
const MOST_TEXT: usize = 400;

/// The style of all pages: that of the report, and what only live pages have.
pub(crate) fn style() -> String {
    let [page, pictures] = repair::report::STYLES;
    format!("{page}\n{pictures}\n{}", include_str!("page.css"))
}

/// A page with its frame.
fn page(title: &str, body: &Markup) -> String {
    let mut page = Markup::default();
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.leaf("title", &[], format!("{title} · repair"));
    page.raw("<link rel=\"stylesheet\" href=\"/page.css\"><link rel=\"icon\" href=\"data:,\"></head>\n<body><nav aria-label=\"Pages\"><a class=\"brand\" href=\"/\">repair</a>");
    page.raw("<a href=\"/tables\">Tables</a><a href=\"/#runs\">Runs</a><a href=\"/#workflows\">Workflows</a><a href=\"/metrics\">Metrics</a><span id=\"connection\" role=\"status\">not live</span></nav>\n");
    page.add(body).raw("<script src=\"/page.js\" defer></script></body></html>\n");
    page.into_text()
}

/// A part that is replaced when something has changed.
fn live(body: &mut Markup, id: &'static str, fill: impl FnOnce(&mut Markup)) {
    body.open("div", &[("id", &id), ("data-live", &"")]);
    fill(body);
    body.close("div");
}

/// A page about an error.
pub(crate) fn error(_: &Shared, error: &Error) -> String {
    let mut body = Markup::default();
    body.raw("<header><h1>This cannot be shown or done</h1></header><main>");
    body.leaf("p", &[("class", &"lead")], error.message());
    body.leaf("pre", &[("tabindex", &"0")], error.full()).raw("<p><a href=\"/\">All runs and workflows</a></p></main>");
    page("Error", &body)
}

/// A word for what a run does or how it ended, in the colour of that.
fn state(body: &mut Markup, run: &RunSummary) {
    state_of(body, run.status, run.outcome, run.word());
}

fn state_of(body: &mut Markup, status: RunStatus, outcome: Option<Outcome>, word: &str) {
    let class = match (outcome, status) {
        (Some(Outcome::Succeeded), _) => "state good",
        (Some(Outcome::SucceededWithExceptions), _) => "state",
        (Some(_), _) | (None, RunStatus::Stopped) => "state bad",
        (None, RunStatus::Running | RunStatus::Waiting) => "state busy",
        _ => "state",
    };
    body.leaf("span", &[("class", &class)], word);
}

/// An instant.
fn instant(body: &mut Markup, at: Timestamp) {
    let shown = at.strftime("%Y-%m-%d %H:%M:%S");
    body.leaf("time", &[("datetime", &format_args!("{at:.0}"))], format!("{shown} UTC"));
}

fn took(run: &RunSummary) -> String {
    let seconds = run.last_at.duration_since(run.started_at).as_secs();
    match (seconds / 3_600, seconds % 3_600 / 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A table that may be wider than the page.
fn table(body: &mut Markup, about: &str, heads: &[&str], fill: impl FnOnce(&mut Markup)) {
    body.open("div", &[("class", &"scroll"), ("tabindex", &"0"), ("role", &"region"), ("aria-label", &about)]).raw("<table><thead><tr>");
    for head in heads {
        body.leaf("th", &[("scope", &"col")], head);
    }
    body.raw("</tr></thead><tbody>");
    fill(body);
    body.raw("</tbody></table></div>");
}

fn link(body: &mut Markup, place: &str, text: &str) {
    body.leaf("a", &[("href", &place)], text);
}

/// The path of a workflow's page. Names of workflows are letters, digits, `-` and `_`.
fn place_of(workflow: &str) -> String {
    format!("/workflows/{workflow}")
}

/// All runs and workflows.
pub(crate) fn overview(shared: &Shared) -> String {
    let mut body = Markup::default();
    body.raw("<header><h1>Standing repair</h1>");
    body.leaf("p", &[("class", &"dim")], format!("The workflows of {}", shared.options.folder.display()));
    live(&mut body, "numbers", |body| numbers(body, shared));
    body.raw("</header>\n<main>");
    live(&mut body, "alerts", |body| alerts(body, shared));
    body.raw("<h2 id=\"workflows\">Workflows</h2>");
    live(&mut body, "workflow-list", |body| workflows(body, shared));
    body.raw("<h2 id=\"runs\">Runs</h2>");
    live(&mut body, "run-list", |body| runs(body, shared, None));
    body.raw("</main>");
    page("Standing repair", &body)
}

fn all_runs(shared: &Shared) -> Vec<(usize, RunSummary)> {
    let lakes = shared.lakes();
    let of_lake = |(number, watched): (usize, &Arc<crate::watch::Watched>)| {
        watched.seen().runs.iter().map(|run| (number, run.clone())).collect::<Vec<_>>()
    };
    let mut runs: Vec<(usize, RunSummary)> = lakes.iter().enumerate().flat_map(of_lake).collect();
    runs.sort_by_key(|(_, run)| std::cmp::Reverse(run.started_at));
    runs
}

fn numbers(body: &mut Markup, shared: &Shared) {
    let runs = all_runs(shared);
    let of = |wanted: &dyn Fn(&RunSummary) -> bool| u64::try_from(runs.iter().filter(|(_, run)| wanted(run)).count()).unwrap_or(u64::MAX);
    let day_ago = shared.options.clock.now().checked_sub(jiff::SignedDuration::from_hours(24)).unwrap_or(Timestamp::MIN);
    let bad = |run: &RunSummary| {
        run.last_at > day_ago && matches!(run.outcome, Some(Outcome::Failed | Outcome::Blind | Outcome::OverBudget | Outcome::Cancelled))
    };
    body.raw("<dl class=\"numbers\">");
    let stopped = of(&|run| run.status == RunStatus::Stopped);
    let failed = of(&bad);
    for (words, number, is_bad) in [
        ("runs", u64::try_from(runs.len()).unwrap_or(u64::MAX), false),
        ("at work or waiting", of(&|run| matches!(run.status, RunStatus::Running | RunStatus::Waiting)), false),
        ("succeeded in 24 h", of(&|run| run.last_at > day_ago && run.outcome.is_some() && !bad(run)), false),
        ("not succeeded in 24 h", failed, failed > 0),
        ("driven by nobody", stopped, stopped > 0),
    ] {
        body.open("div", &[("class", &if is_bad { "bad" } else { "" })])
            .leaf("dt", &[], words)
            .leaf("dd", &[], grouped(number))
            .close("div");
    }
    body.raw("</dl>");
}

fn alerts(body: &mut Markup, shared: &Shared) {
    let (alerts, broken) = (shared.alerts(), shared.folder());
    let unread: Vec<(String, String)> =
        shared.lakes().iter().filter_map(|watched| Some((watched.place.clone(), watched.seen().error.clone()?))).collect();
    if alerts.is_empty() && broken.broken.is_empty() && unread.is_empty() {
        return;
    }
    body.raw("<section class=\"alerts\" aria-labelledby=\"alerts-head\"><h2 id=\"alerts-head\">Needs somebody</h2><ul class=\"plain\">");
    for (file, why) in &broken.broken {
        body.raw("<li>").leaf("strong", &[], format!("{} cannot be used", file.display()));
        body.leaf("pre", &[("tabindex", &"0")], why).raw("</li>");
    }
    for (place, why) in unread {
        body.leaf("li", &[], format!("the lake {place} cannot be looked at: {why}"));
    }
    for (at, alert) in alerts.iter().take(10) {
        body.raw("<li>");
        instant(body, *at);
        body.text(": ").text(shortened(&alert.to_string(), MOST_TEXT)).raw("</li>");
    }
    body.raw("</ul></section>");
}

fn workflows(body: &mut Markup, shared: &Shared) {
    let folder = shared.folder();
    if folder.workflows.is_empty() {
        body.raw(
            "<p>There is no workflow in the folder. Put a file with <code>workflow: NAME</code> there; it is noticed within seconds.</p>",
        );
        return;
    }
    let (schedules, runs) = (shared.schedules(), all_runs(shared));
    table(body, "Workflows", &["Workflow", "Starts", "Next", "Last run", "Last event", "Status"], |body| {
        for loaded in &folder.workflows {
            let last = runs.iter().find(|(_, run)| run.workflow == loaded.name());
            body.raw("<tr><td>");
            link(body, &place_of(loaded.name()), loaded.name());
            body.raw("</td><td>");
            match (schedules.get(loaded.name()), &loaded.workflow.schedule) {
                (Some(status), _) => {
                    body.text(&status.starts).raw("</td><td>");
                    next_of(body, status);
                }
                (None, Some(_)) => drop(body.text("its lake cannot be opened").raw("</td><td>")),
                (None, None) => drop(body.text("by hand").raw("</td><td>")),
            }
            body.raw("</td><td>");
            if let Some((lake, run)) = last {
                link(body, &format!("/lakes/{lake}/runs/{}", run.run), &shortened(&run.run, 40));
                body.raw("</td><td>");
                instant(body, run.last_at);
                body.raw("</td><td>");
                state(body, run);
            } else {
                body.raw("none</td><td></td><td>");
            }
            body.raw("</td></tr>");
        }
    });
}

fn next_of(body: &mut Markup, status: &ScheduleStatus) {
    match (&status.held, &status.current, status.next) {
        (Some(held), ..) => drop(body.leaf("span", &[("class", &"state bad")], format!("held until {:.0}", held.until))),
        (None, Some(_), _) => drop(body.leaf("span", &[("class", &"state busy")], "at work")),
        (None, None, Some(next)) => instant(body, next),
        (None, None, None) => {}
    }
}

fn runs(body: &mut Markup, shared: &Shared, workflow: Option<&str>) {
    let mut runs = all_runs(shared);
    runs.retain(|(_, run)| workflow.is_none_or(|workflow| run.workflow == workflow));
    if runs.is_empty() {
        body.raw("<p>Nothing has run yet.</p>");
        return;
    }
    table(body, "Runs", &["Run", "Workflow", "Started", "Took", "Status"], |body| {
        for (lake, run) in runs.iter().take(MOST_RUNS) {
            body.raw("<tr><td>");
            link(body, &format!("/lakes/{lake}/runs/{}", run.run), &shortened(&run.run, 48));
            body.raw("</td><td>");
            link(body, &place_of(&run.workflow), &run.workflow);
            body.raw("</td><td>");
            instant(body, run.started_at);
            body.raw("</td><td>").text(took(run)).raw("</td><td>");
            state(body, run);
            body.raw("</td></tr>");
        }
    });
    if runs.len() > MOST_RUNS {
        let more = u64::try_from(runs.len() - MOST_RUNS).unwrap_or(u64::MAX);
        body.leaf("p", &[("class", &"dim")], format!("and {} that are older; `repair runs` lists all", count(more, "run")));
    }
}

/// A form that does something, behind a question.
fn ask(
    body: &mut Markup,
    shared: &Shared,
    question: &'static str,
    place: &str,
    button: &'static str,
    fields: &[(&'static str, &str, &'static str)],
) {
    body.raw("<details><summary>").raw(question).raw("</summary>");
    body.open("form", &[("method", &"post"), ("action", &place), ("class", &"fields")]);
    secret(body, shared);
    for (name, value, label) in fields {
        if label.is_empty() {
            body.empty("input", &[("type", &"hidden"), ("name", name), ("value", value)]);
        } else {
            body.raw("<label>").text(label).empty("input", &[("type", &"text"), ("name", name), ("value", value)]).raw("</label>");
        }
    }
    body.raw("<div class=\"buttons\">").leaf("button", &[("type", &"submit"), ("class", &"danger")], button).raw("</div></form></details>");
}

fn secret(body: &mut Markup, shared: &Shared) {
    body.empty("input", &[("type", &"hidden"), ("name", &"secret"), ("value", &shared.guard.secret)]);
}

/// A workflow: when it starts, how to start it, and its runs.
pub(crate) fn workflow(shared: &Shared, loaded: &Loaded) -> Result<String> {
    let workflow = &loaded.workflow;
    let mut body = Markup::default();
    body.raw("<header>").leaf("h1", &[], &workflow.name);
    body.leaf("p", &[("class", &"dim")], loaded.file.display()).raw("</header><main>");
    live(&mut body, "schedule", |body| {
        if let Some(status) = shared.schedules().get(&workflow.name) {
            schedule(body, shared, workflow, status);
        }
    });
    body.raw("<h2>Start it</h2>");
    let place = place_of(&workflow.name);
    body.open("form", &[("method", &"post"), ("class", &"fields")]);
    secret(&mut body, shared);
    for (name, param) in &workflow.params {
        field(&mut body, name, param);
    }
    let buttons: [(&str, &str, Attributes<'_>); 2] = [("plan", "Plan", &[]), ("run", "Run now", &[])];
    body.raw("<div class=\"buttons\">");
    for (action, words, _) in buttons {
        let class = if action == "plan" { "main" } else { "" };
        body.leaf("button", &[("type", &"submit"), ("class", &class), ("formaction", &format!("{place}/{action}"))], words);
    }
    body.raw("</div></form><p class=\"dim\">A plan shows what is broken and what repairing it would take; it writes nothing and asks no source. A run repairs.</p>");
    body.raw("<h2>Runs</h2>");
    live(&mut body, "run-list", |body| runs(body, shared, Some(&workflow.name)));
    body.raw("<h2>Definition</h2><details><summary>Show the file</summary>")
        .leaf("pre", &[("tabindex", &"0")], &workflow.text)
        .raw("</details></main>");
    Ok(page(&workflow.name, &body))
}

fn schedule(body: &mut Markup, shared: &Shared, workflow: &Workflow, status: &ScheduleStatus) {
    body.raw("<h2>When it starts</h2>").leaf("p", &[], &status.starts);
    if let Some(held) = &status.held {
        body.leaf("p", &[], format!("The run of {} waits until {:.0}: {}.", held.tick, held.until, held.why));
    }
    if let Some(error) = &status.error {
        body.raw("<p>The last attempt to start a run failed; it is tried again.</p>").leaf("pre", &[("tabindex", &"0")], error);
    }
    let next =
        workflow.schedule.as_ref().and_then(|schedule| upcoming(schedule, shared.options.clock.now(), NEXT_TICKS).ok()).unwrap_or_default();
    if !next.is_empty() {
        body.raw("<p>Next: ");
        for (number, tick) in next.into_iter().enumerate() {
            body.raw(if number > 0 { ", " } else { "" });
            instant(body, tick);
        }
        body.raw("</p>");
    }
    let since = status.since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
    body.leaf("p", &[("class", &"dim")], format!("It has started {}{since}.", count(status.turns, "run")));
}

fn field(body: &mut Markup, name: &str, param: &Param) {
    let default = match &param.default {
        None => "needed".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let about = param.about.clone().unwrap_or_else(|| param.kind.form().to_owned());
    let id = format!("param.{name}");
    body.raw("<label>").text(format!("{name}: {}", shortened(&about, 120)));
    let mut attributes: Vec<(&'static str, &dyn std::fmt::Display)> =
        vec![("type", &"text"), ("name", &id), ("placeholder", &default), ("autocomplete", &"off")];
    if param.default.is_none() {
        attributes.push(("required", &"required"));
    }
    body.empty("input", &attributes).raw("</label>");
}

/// A plan, and how to do what it says.
pub(crate) fn plan(shared: &Shared, planned: &Planned) -> String {
    let plan = &planned.plan;
    let mut body = Markup::default();
    body.raw("<header>").leaf("h1", &[], format!("Plan of {}", plan.definition.workflow));
    body.raw("<p class=\"dim\">made at ");
    instant(&mut body, planned.made_at);
    body.raw("</p>");
    let repairs: usize = plan.repairs.iter().map(|repair| repair.strategies.len()).sum();
    body.raw("<dl class=\"numbers\">");
    for (words, number, bad) in [
        ("missing or wrong", grouped(plan.missing()), plan.missing() > 0),
        ("tables looked at", grouped(u64::try_from(plan.looks.len()).unwrap_or(0)), false),
        ("strategies", grouped(u64::try_from(repairs).unwrap_or(0)), false),
    ] {
        body.open("div", &[("class", &if bad { "bad" } else { "" })]).leaf("dt", &[], words).leaf("dd", &[], number).close("div");
    }
    body.raw("</dl></header><main><h2>What was found</h2>");
    table(&mut body, "What was found", &["Step", "Table", "From", "To", "Counts"], |body| {
        for look in &plan.looks {
            body.raw("<tr>").leaf("td", &[], &look.step).leaf("td", &[], &look.table);
            body.leaf("td", &[], look.interval.from()).leaf("td", &[], look.interval.to());
            let counts = serde_json::to_string(&look.counts).unwrap_or_default();
            body.leaf(
                "td",
                &[("class", &"text")],
                shortened(&counts.replace(['{', '}', '"'], "").replace(':', ": ").replace(',', ", "), MOST_TEXT),
            )
            .raw("</tr>");
        }
    });
    if plan.has_work() {
        body.raw("<h2>Do it</h2><div class=\"actions\">");
        ask(&mut body, shared, "Apply this plan…", &format!("/plans/{}/apply", planned.id), "Apply it now", &[]);
        body.raw("</div><p class=\"dim\">It is refused if the tables have changed in a way that matters since the plan was made.</p>");
    } else {
        body.raw("<p>There is nothing to repair.</p>");
    }
    body.raw("<h2>The whole plan</h2><details><summary>Show it as JSON</summary>");
    body.leaf("pre", &[("tabindex", &"0")], plan.to_text().unwrap_or_default()).raw("</details></main>");
    page("Plan", &body)
}
