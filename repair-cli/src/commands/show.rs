//! `repair runs` and `repair show`

use std::path::Path;
use std::process::ExitCode;

use repair_core::Error;
use repair_core::engine::{Event, RunHead, RunReport, for_each_event, load};
use serde_json::{Value, json};

use crate::output::{Failure, print, print_json, report, table};
use crate::session::journal;

/// `repair runs`
pub(crate) async fn runs(lake: Option<&Path>, as_json: bool) -> Result<ExitCode, Failure> {
    let (_, journal) = journal(lake).await?;
    let runs = journal.runs().await?;
    if as_json {
        print_json(&runs.iter().map(as_object).collect::<Vec<_>>())?;
    } else {
        let rows = runs.iter().map(|head| {
            let workflow = workflow_of(head).to_owned();
            vec![head.run.clone(), workflow, format!("{:.0}", head.first.at), outcome_of(head).unwrap_or("not ended").to_owned()]
        });
        print(&table(&["run", "workflow", "started", "outcome"], &rows.collect::<Vec<_>>()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_object(head: &RunHead) -> Value {
    json!({ "run": head.run, "workflow": workflow_of(head), "started_at": head.first.at, "outcome": outcome_of(head) })
}

fn workflow_of(head: &RunHead) -> &str {
    if let Event::RunStarted { workflow, .. } = &head.first.event { workflow } else { "" }
}

fn outcome_of(head: &RunHead) -> Option<&'static str> {
    match &head.last.event {
        Event::RunEnded { outcome, .. } => Some(outcome.as_str()),
        Event::RunPaused => Some("paused"),
        _ => None,
    }
}

/// `repair show`
pub(crate) async fn show(run: &str, lake: Option<&Path>, as_json: bool, events: bool) -> Result<ExitCode, Failure> {
    let (_, journal) = journal(lake).await?;
    let state = load(journal.as_ref(), run).await?;
    if events {
        let mut lines = Vec::new();
        for_each_event(journal.as_ref(), run, |recorded| {
            lines.push(serde_json::to_string(&recorded).map_err(|error| Error::internal("an event is not JSON").because(error))?);
            Ok(())
        })
        .await?;
        print(&lines.join("\n"))?;
    } else if as_json {
        print_json(&RunReport::new(run, &state))?;
    } else {
        let params = Value::Object(state.started.params.clone().into_iter().collect());
        let head =
            format!("workflow {} from {}, started {:.0}, with {params}", state.started.workflow, state.started.file, state.started.at);
        print(&format!("{head}\n\n{}", report(&RunReport::new(run, &state))))?;
    }
    Ok(ExitCode::SUCCESS)
}
