//! `repair why`: the story of a slot.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use repair_core::Error;
use repair_core::engine::load;
use repair_core::lake::overlay::story;
use repair_core::lake::overlay::story::{Provenance, Standing, Story};
use repair_core::lake::stale;
use repair_core::model::{Interval, Key, Table};
use serde_json::{Value, json};

use super::subject::{self, Opened, TableArg};
use crate::output::{Failure, count, print, print_json, short};

/// Tell why a slot is as it is: raw, repaired (by what, from where, when), absent (on what evidence, until when), or missing.
#[derive(Debug, Args)]
pub(crate) struct Why {
    #[command(flatten)]
    table: TableArg,
    /// Which series; the values of a key of several columns are separated by commas.
    #[arg(long)]
    key: Option<String>,
    /// An instant within the slot, `2024-03-04T14:31:00Z`.
    #[arg(long)]
    at: Timestamp,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Why {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let subject = self.table.open(lake_before).await?;
        let (table, lake) = (&subject.table, subject.lake.as_ref());
        let key = subject::key(table, self.key.as_deref())?;
        let story = story::tell(lake, table, &key, self.at, Timestamp::now()).await?;
        let slot = story::slot(table, self.at)?;
        let mut stale_in = Vec::new();
        for into in subject.opened.computed_from(&table.name).await? {
            let marks = stale::stale(lake, &into).await?;
            if marks.iter().any(|(stretch, _)| stretch.intersection(&slot).is_some()) {
                stale_in.push(into.name);
            }
        }
        let mut attempts = Vec::new();
        for repair in &story.repairs {
            attempts.push(attempts_of(&subject.opened, &repair.provenance).await);
        }
        let suspect = match story.standing {
            Standing::Missing => subject.opened.suspect(&table.name, &slot).await?,
            _ => None,
        };
        if self.json {
            let mut object = serde_json::to_value(&story).map_err(|error| Error::internal("a story is not JSON").because(error))?;
            if let Some(repairs) = object.get_mut("repairs").and_then(Value::as_array_mut) {
                for (repair, attempts) in repairs.iter_mut().zip(&attempts) {
                    repair["attempts"] = json!(attempts);
                }
            }
            let about = [("table", json!(table.name)), ("key", json!(key)), ("slot", json!(slot)), ("stale", json!(stale_in))];
            about.into_iter().for_each(|(name, value)| object[name] = value);
            if let Some((run, suspect)) = &suspect {
                object["suspect"] = json!({ "run": run, "interval": suspect.interval, "source": suspect.source, "keys": suspect.keys });
            }
            print_json(&object)?;
        } else {
            let mut lines = text(table, &key, &slot, &story, &attempts, &stale_in);
            lines.extend(suspect.map(|(run, suspect)| format!("  suspect: {suspect} (run {run}): a collector may have failed")));
            print(&lines.join("\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How many attempts the step took that brought something; none of what was not brought by a run, such as a person's exception.
async fn attempts_of(opened: &Opened, of: &Provenance) -> Option<u32> {
    let state = load(opened.journal.as_ref(), &of.run).await.ok()?;
    state.steps.get(&of.step).map(|step| step.attempts)
}

fn text(table: &Table, key: &Key, slot: &Interval, story: &Story, attempts: &[Option<u32>], stale_in: &[String]) -> Vec<String> {
    let what = match story.standing {
        Standing::Raw => "raw: the table has a row of its own",
        Standing::Repaired => "repaired",
        Standing::Absent => "absent: confirmed to have no row",
        Standing::Missing => "missing: there is no row, and nothing says why",
    };
    let mut lines = vec![format!("table {}, {key}, {slot}", table.name), what.to_owned()];
    lines.extend(story.raw.iter().map(|row| format!("  raw: {}", short(row))));
    for (repair, attempts) in story.repairs.iter().zip(attempts) {
        let after = attempts.map(|attempts| format!("; the step took {} in all", count(attempts.into(), "attempt"))).unwrap_or_default();
        let counts = match (&repair.provenance.retracted_by, repair.counts, story.raw.is_empty()) {
            (Some(_), ..) => "retracted",
            (None, true, _) if repair.changed => "it counts, though the table's rows are others by now than those it replaces",
            (None, true, _) if repair.replaced.is_some() => "it counts, and replaces the table's rows",
            (None, true, _) => "it counts",
            (None, false, false) => "raw wins",
            (None, false, true) => "a newer one counts",
        };
        lines.push(format!("  repair ({counts}): {}", short(&repair.row)));
        lines.push(format!("    {}{after}", by(&repair.provenance)));
    }
    for exception in &story.exceptions {
        let counts = match (&exception.provenance.retracted_by, exception.counts) {
            (Some(_), _) => "retracted",
            (None, true) => "it counts",
            (None, false) => "expired",
        };
        lines.push(format!("  absent ({counts}): {}, to be asked again after {:.0}", exception.answer, exception.recheck_after));
        lines.push(format!("    {}", by(&exception.provenance)));
    }
    for retraction in &story.retractions {
        lines.push(format!("  retracted by {} at {:.0}: {} ({})", retraction.by, retraction.at, retraction.reason, retraction.id));
    }
    lines.extend(story.conflict.iter().map(|conflict| format!("  conflict: {conflict}")));
    lines.extend(stale_in.iter().map(|into| format!("  table {into} is stale here, until a run computes it again")));
    lines
}

fn by(of: &Provenance) -> String {
    let Provenance { run, step, unit, strategy, source, at, .. } = of;
    format!("by run {run}, step {step}, unit {unit}, strategy {strategy}, from {source}, at {at:.0}")
}
