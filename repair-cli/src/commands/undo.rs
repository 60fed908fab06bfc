//! `repair undo` and `repair redo`

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use repair_core::engine::{Event, for_each_event, load, new_run_id};
use repair_core::lake::Lake;
use repair_core::lake::overlay::retraction::{Part, Retraction, in_force};
use repair_core::model::{Interval, Table};
use repair_core::{Error, ErrorKind};
use serde_json::json;

use super::subject::{self, Changed, Opened};
use crate::output::{Failure, count, print, print_json};
use crate::session::LakeArg;

/// Take back what a run added to its tables, wholly or in part. It stays where it is, hidden; `repair redo` shows it again.
#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// The run's id; see `repair runs`.
    run: String,
    /// Only what this step added.
    #[arg(long)]
    step: Option<String>,
    /// Only of this series; once for each. The values of a key of several columns are separated by commas.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Only slots from here on: an instant, or a date.
    #[arg(long, requires = "to")]
    from: Option<String>,
    /// Only slots before this instant, or up to the end of this date.
    #[arg(long, requires = "from")]
    to: Option<String>,
    /// Why, for those who ask later.
    #[arg(long, default_value = "no reason was given")]
    reason: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Undo {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let opened = Opened::new(self.lake.or(lake_before).as_deref()).await?;
        let state = load(opened.journal.as_ref(), &self.run).await?;
        if state.ended.is_none() {
            let message = format!("run `{0}` has not ended, and may still add to its tables; end it with `repair cancel {0}`", self.run);
            return Err(Error::new(ErrorKind::Conflict, message).into());
        }
        let mut repaired = BTreeSet::new();
        for_each_event(opened.journal.as_ref(), &self.run, |recorded| {
            if let Event::UnitsPlanned { table, .. } = recorded.event {
                repaired.insert(table);
            }
            Ok(())
        })
        .await?;
        let workflow = opened.workflow(&state)?;
        if let Some(step) = self.step.as_deref().filter(|step| workflow.step(step).is_none()) {
            return Err(Error::invalid(format!("run `{}` has no step `{step}`", self.run)).into());
        }
        let interval = match (&self.from, &self.to) {
            (Some(from), Some(to)) => Some(Interval::parse(from, to)?),
            _ => None,
        };
        let lake = opened.lake(Some(&self.run)).await?;
        let id = format!("undo-{}", new_run_id());
        let mut all = Vec::new();
        for table in repaired.iter().filter_map(|name| workflow.tables.get(name)) {
            let whole = Part { step: self.step.clone(), interval, ..Part::of_run(&self.run) };
            let parts = if self.keys.is_empty() {
                vec![whole]
            } else {
                let keys = self.keys.iter().map(|text| subject::key(table, Some(text)));
                keys.map(|key| Ok(Part { key: Some(key?), ..whole.clone() })).collect::<Result<_, Error>>()?
            };
            let Some(changed) = subject::meant(lake.as_ref(), table, &parts).await? else { continue };
            let retraction =
                Retraction { id: id.clone(), parts, undoes: None, at: Timestamp::now(), by: subject::user(), reason: self.reason.clone() };
            all.push(write(&opened, lake.as_ref(), table, &retraction, &self.run, changed).await?);
        }
        if all.is_empty() {
            let part = if self.step.is_some() || interval.is_some() || !self.keys.is_empty() { " of that part" } else { "" };
            return Err(Error::new(ErrorKind::NotFound, format!("run `{}` has added nothing{part}: nothing was changed", self.run)).into());
        }
        tell(&id, "taken back", &all, self.json, &format!("show it again with `repair redo {id}`"))
    }
}

/// Writes a retraction, after marking what was computed: a mark too many costs a computation, one too few a wrong number.
pub(super) async fn write(
    opened: &Opened,
    lake: &dyn Lake,
    table: &Table,
    retraction: &Retraction,
    run: &str,
    mut changed: Changed,
) -> Result<Changed, Error> {
    subject::mark_stale(opened, lake, retraction, run, &mut changed).await?;
    lake.retract(table, retraction).await?;
    Ok(changed)
}

/// Says what was changed.
pub(super) fn tell(id: &str, what: &str, all: &[Changed], as_json: bool, then: &str) -> Result<ExitCode, Failure> {
    if as_json {
        print_json(&json!({ "id": id, "tables": all }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = Vec::new();
    for changed in all {
        let (rows, absent) = (count(changed.rows, "repaired row"), count(changed.absent, "exception"));
        lines.push(format!("table {}: {rows} and {absent} {what}, of {}", changed.table, changed.interval));
        lines.extend(changed.stale.iter().map(|into| format!("table {into}: stale there, until a run computes it again")));
    }
    lines.push(format!("{id}; {then}"));
    print(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Show again what an undo has taken back.
#[derive(Debug, Args)]
pub(crate) struct Redo {
    /// The id that `repair undo` told; `repair why` tells it too.
    undo: String,
    /// Why, for those who ask later.
    #[arg(long, default_value = "no reason was given")]
    reason: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Redo {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let opened = Opened::new(self.lake.or(lake_before).as_deref()).await?;
        let id = format!("redo-{}", self.undo);
        let (mut all, mut known) = (Vec::new(), false);
        for (table, run) in opened.tables().await? {
            let lake = opened.lake(Some(&run)).await?;
            let retractions = lake.retractions(&table).await?;
            known |= retractions.iter().any(|retraction| retraction.id == self.undo);
            let Some(undone) = in_force(&retractions).find(|retraction| retraction.id == self.undo).cloned() else { continue };
            let Some(changed) = subject::meant(lake.as_ref(), &table, &undone.parts).await? else { continue };
            let run = undone.parts.first().map(|part| part.run.clone()).unwrap_or_default();
            let redo = Retraction {
                id: id.clone(),
                parts: Vec::new(),
                undoes: Some(undone.id),
                at: Timestamp::now(),
                by: subject::user(),
                reason: self.reason.clone(),
            };
            all.push(write(&opened, lake.as_ref(), &table, &redo, &run, changed).await?);
        }
        if all.is_empty() {
            let message = if known {
                format!("`{}` hides nothing any more: nothing was changed", self.undo)
            } else {
                format!("no undo `{}` here; `repair why` tells which there are", self.undo)
            };
            return Err(Error::new(ErrorKind::NotFound, message).into());
        }
        tell(&id, "shown again", &all, self.json, "undo it once more with `repair undo`")
    }
}
