//! `repair except`: what a person knows about slots that have no row.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use repair_core::engine::new_run_id;
use repair_core::lake::overlay::retraction::{Kind, Part, Retracted, Retraction};
use repair_core::lake::overlay::story::published;
use repair_core::lake::{StageRequest, StageScope, overlay};
use repair_core::model::{Absence, Fix, Interval, Key};
use repair_core::{Error, ErrorKind};

use super::subject::{self, Changed, Subject, TableArg};
use super::undo::{tell, write};
use crate::output::Failure;

/// When an exception without an end is asked about again: never, as far as any lake can write.
const NEVER: &str = "9999-01-01T00:00:00Z";

/// More slots than this are more likely a slip of the hand than knowledge.
const MOST_SLOTS: u64 = 10_000_000;

/// The step of a person's exception.
const STEP: &str = "except";

/// Say that slots have no row and need none, or take such a word back.
#[derive(Debug, Args)]
pub(crate) struct Except {
    #[command(flatten)]
    table: TableArg,
    /// Which series; the values of a key of several columns are separated by commas.
    #[arg(long)]
    key: Option<String>,
    /// The first slot: an instant, or a date.
    #[arg(long)]
    from: String,
    /// The instant before which it ends, or the last date.
    #[arg(long)]
    to: String,
    /// How you know.
    #[arg(long)]
    reason: String,
    /// When to ask again: an instant [default: never].
    #[arg(long, conflicts_with = "remove")]
    until: Option<Timestamp>,
    /// Take back all exceptions of these slots, whoever made them.
    #[arg(long)]
    remove: bool,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Except {
    /// Does it.
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<ExitCode, Failure> {
        if self.reason.trim().is_empty() {
            return Err(Error::invalid("--reason is empty; say how you know, for those who ask later").into());
        }
        let interval = Interval::parse(&self.from, &self.to)?;
        let subject = self.table.open(lake_before).await?;
        let key = subject::key(&subject.table, self.key.as_deref())?;
        if self.remove {
            remove(&subject, &key, interval, &self.reason, self.json).await
        } else {
            add(&subject, key, interval, self.until, &self.reason, self.json).await
        }
    }
}

async fn add(
    subject: &Subject,
    key: Key,
    interval: Interval,
    until: Option<Timestamp>,
    reason: &str,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let Subject { opened, table, lake } = subject;
    let never = NEVER.parse().map_err(|error| Error::internal("an instant of ours is none").because(error))?;
    let slots = table.grid()?.slots_in(&interval);
    if slots.is_empty() || slots.len() > MOST_SLOTS {
        let message = format!("{interval} holds {} slots of table `{}`; give from one to {MOST_SLOTS}", slots.len(), table.name);
        return Err(Error::invalid(message).into());
    }
    let (run, asked_at) = (format!("except-{}", new_run_id()), Timestamp::now());
    let recheck_after = until.unwrap_or(never);
    if recheck_after <= asked_at {
        return Err(Error::invalid(format!("--until {recheck_after} is past; give a later instant")).into());
    }
    let source = format!("person:{}", subject::user());
    let absence = Absence { key: key.clone(), slots, source: source.clone(), asked_at, answer: reason.to_owned(), recheck_after };
    let fix = Fix { absent: vec![absence], source, ..Fix::default() };
    let scope = StageScope { run: &run, step: STEP, visit: 1, table };
    let units = [STEP.to_owned()];
    lake.stage(&scope, &StageRequest { unit: STEP, strategy: "person", repaired_at: asked_at, fix: &fix, replaces: None }).await?;
    let mut changed = Changed { table: table.name.clone(), rows: 0, absent: slots.len(), interval, stale: Vec::new() };
    let change =
        Retraction { id: run.clone(), parts: Vec::new(), undoes: None, at: asked_at, by: subject::user(), reason: reason.to_owned() };
    subject::mark_stale(opened, lake.as_ref(), &change, &run, &mut changed).await?;
    lake.publish(&scope, 0, &units).await?;
    lake.discard_staged(&scope, &units).await?;
    tell(&run, "recorded", &[changed], as_json, "take it back with `repair except --remove`")
}

async fn remove(subject: &Subject, key: &Key, interval: Interval, reason: &str, as_json: bool) -> Result<ExitCode, Failure> {
    let Subject { opened, table, lake } = subject;
    let retracted = Retracted::of(table, &lake.retractions(table).await?);
    let mut runs = BTreeSet::new();
    for row in published(lake.as_ref(), table, overlay::exceptions, Some(interval), Some(std::slice::from_ref(key))).await? {
        let provenance = row.provenance(&retracted, Kind::Exceptions)?;
        if provenance.retracted_by.is_none() {
            runs.insert(provenance.run);
        }
    }
    let of_table = (!table.key.is_empty()).then(|| key.clone());
    let part = |run: &String| Part { key: of_table.clone(), interval: Some(interval), kind: Kind::Exceptions, ..Part::of_run(run) };
    let parts: Vec<Part> = runs.iter().map(part).collect();
    let changed = if parts.is_empty() { None } else { subject::meant(lake.as_ref(), table, &parts).await? };
    let Some(changed) = changed else {
        let message = format!("no exceptions of {key} in table `{}` from {interval}: nothing was changed", table.name);
        return Err(Error::new(ErrorKind::NotFound, message).into());
    };
    let id = format!("undo-{}", new_run_id());
    let retraction =
        Retraction { id: id.clone(), parts, undoes: None, at: Timestamp::now(), by: subject::user(), reason: reason.to_owned() };
    let run = runs.first().cloned().unwrap_or_default();
    let changed = write(opened, lake.as_ref(), table, &retraction, &run, changed).await?;
    tell(&id, "taken back", &[changed], as_json, &format!("show it again with `repair redo {id}`"))
}
