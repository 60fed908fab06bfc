//! Findings of earlier runs that are taken over: where nothing that they rest on has changed, another look would find the same.
//!
//! The latest findings of each detect step are kept in the lake as an artifact that belongs to no run. They are safe to delete, and so is the
//! run that found them: what is gone, damaged, or of another version is not used.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::pure::event::FindingsRecord;
use crate::error::{Error, Result};
use crate::lake::{ArtifactName, known};
use crate::model::Usage;
use crate::plugin::StepContext;
use crate::workflow::StepKind;

/// The version of what is kept.
const VERSION: u32 = 1;

/// Findings, and what they rest on.
#[derive(Serialize, Deserialize)]
struct Known {
    /// What is kept of earlier versions does not say what was seen beside the gaps.
    #[serde(default)]
    version: u32,
    rests_on: String,
    until: Timestamp,
    run: String,
    findings: FindingsRecord,
}

/// Where the findings of a step are kept.
pub(crate) struct Place<'a> {
    context: &'a StepContext,
    name: String,
    rests_on: String,
}

impl<'a> Place<'a> {
    /// The place of a step with this configuration, whose findings rest on this now.
    pub(crate) fn of(context: &'a StepContext, kind: &StepKind, rests_on: String) -> Self {
        let step = blake3::hash(format!("{:?} {kind:?}", context.step).as_bytes());
        Self { context, name: step.to_hex().to_string(), rests_on }
    }

    /// Earlier findings that rest on the same, if they still hold. Their gaps become the artifact of that name.
    pub(crate) async fn take_over(&self, artifact: &str, seen: &str) -> Result<Option<(FindingsRecord, Usage)>> {
        let (context, lake) = (self.context, self.context.lake.as_ref());
        let Some(known) = self.read().await? else { return Ok(None) };
        if *known.run == *context.run {
            // This run looks once more, and its artifact will not be that of these findings.
            known::forget(lake, &self.name).await?;
            return Ok(None);
        }
        if known.version != VERSION || known.rests_on != self.rests_on || known.until <= context.entered_at {
            return Ok(None);
        }
        let from = ArtifactName { run: &known.run, name: &known.findings.artifact };
        let usage = match lake.copy_artifact(from, ArtifactName { run: &context.run, name: artifact }).await {
            Ok(usage) => usage,
            Err(error) => return known::without(error).map(|()| None),
        };
        let mut record = known.findings.clone();
        let mut usage = usage;
        if let Some(kept) = &mut record.seen
            && let Some(name) = &mut kept.artifact
        {
            let from = ArtifactName { run: &known.run, name };
            match lake.copy_artifact(from, ArtifactName { run: &context.run, name: seen }).await {
                Ok(used) => usage += used,
                Err(error) => return known::without(error).map(|()| None),
            }
            seen.clone_into(name);
        }
        // That run forgets its findings before it writes other gaps, so if they are still known, these are theirs.
        if !matches!(self.read().await?, Some(now) if (&now.run, &now.rests_on) == (&known.run, &known.rests_on)) {
            return Ok(None);
        }
        tracing::info!(step = &*context.step, run = known.run, "nothing has changed since that run looked, so its findings are taken over");
        Ok(Some((FindingsRecord { artifact: artifact.to_owned(), taken_from: Some(known.run), ..record }, usage)))
    }

    /// Keeps findings for later runs, until they hold no more. An error is no error of the step.
    pub(crate) async fn keep(&self, until: Option<Timestamp>, record: &FindingsRecord) -> Usage {
        let Some(until) = until else { return Usage::default() };
        // Late rows were put on record by this run, and bad rows have an artifact of their own.
        if record.counts.overtaken > 0
            || record.counts.overtaken_cells > 0
            || record.counts.quarantined > 0
            || record.counts.unread_elsewhere > 0
        {
            return Usage::default();
        }
        let known =
            Known { version: VERSION, rests_on: self.rests_on.clone(), until, run: self.context.run.to_string(), findings: record.clone() };
        let text = serde_json::to_string(&known).map_err(|error| Error::internal("findings are not JSON").because(error));
        let kept = match text {
            Ok(text) => known::keep(self.context.lake.as_ref(), &self.name, text).await,
            Err(error) => Err(error),
        };
        kept.unwrap_or_else(|error| {
            tracing::warn!(step = &*self.context.step, error = error.full(), "what was found is not kept for later runs");
            Usage::default()
        })
    }

    async fn read(&self) -> Result<Option<Known>> {
        let Some(text) = known::read(self.context.lake.as_ref(), &self.name).await? else { return Ok(None) };
        serde_json::from_str(&text)
            .or_else(|error| known::without(Error::invalid("what was found before is not in its shape").because(error)).map(|()| None))
    }
}
