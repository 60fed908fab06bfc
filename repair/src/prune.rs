//! Removes what is kept for runs that ended long ago, and that nothing needs any more: lists of gaps, lists of units, units that stayed staged, and states by
//! which a long history is read sooner.
//!
//! The journal with all events stays, and so do repairs, exceptions and retractions: what runs did and cost, why a slot is as it is, how accurate
//! strategies were, and what can be undone is known as before. What is gone is what a report of such a run shows slot by slot, and that it can be
//! redriven.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use repair_core::Result;
use repair_core::engine::{JsonFormat, Outcome};
use repair_core::lake::{KeptObject, known, name};
use serde::Serialize;

use crate::notify::MOST_AGE;
use crate::open::OpenLake;
use crate::request::awaitable;

/// How long ago a run must have ended.
const OLDER_THAN: Duration = Duration::from_secs(30 * 86_400);

/// The area that has a record for each run that was pruned, so that nobody takes what is gone for lost. No run is named like it.
pub(crate) const PRUNED: &str = ".pruned";

/// What was delivered about a run is kept as long as messages about it may be.
const NOTIFIED: &str = "notified";

/// Looks for what can be removed: await it. [`OpenLake::prunable`] makes it.
#[must_use = "nothing is looked for before this is awaited"]
pub struct PrunableRequest<'a> {
    open: &'a OpenLake,
    older_than: Duration,
    keep: usize,
}

impl PrunableRequest<'_> {
    /// Of runs that ended longer ago than this; 30 days unless given.
    pub fn older_than(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.older_than = time.into().unwrap_or(OLDER_THAN);
        self
    }

    /// Keeps what there is of so many runs of each workflow, those that ended last; of one at least, from which the gaps of its tables are listed.
    pub fn keep(mut self, runs: impl Into<Option<usize>>) -> Self {
        self.keep = runs.into().unwrap_or_default();
        self
    }

    async fn perform(self) -> Result<Prunable> {
        let now = self.open.around.clock.now();
        let oldest = now.checked_sub(self.older_than).unwrap_or(Timestamp::MIN);
        let journal = self.open.journal().await?;
        let mut ended = ended(journal.listed(now).await?);
        ended.sort_by(|one, other| (other.ended_at, &other.run).cmp(&(one.ended_at, &one.run)));
        let mut newer: BTreeMap<String, usize> = BTreeMap::new();
        ended.retain(|run| {
            let newer = newer.entry(run.workflow.clone()).or_default();
            *newer += 1;
            *newer > self.keep.max(1) && run.ended_at < oldest
        });
        // The lake as it is now: where the objects of runs are does not depend on how a run had it.
        let latest = journal.runs().await?.pop().map(|head| head.run);
        let lake = self.open.lake_of(latest.as_deref().map(|run| (journal.as_ref(), run))).await?;
        let mut objects: BTreeMap<String, Vec<KeptObject>> = BTreeMap::new();
        for kept in lake.kept().await? {
            objects.entry(kept.area.clone()).or_default().push(kept);
        }
        let unsent = now.saturating_sub(MOST_AGE).unwrap_or(Timestamp::MIN);
        let mut runs = Vec::new();
        for mut run in ended {
            let of_run = objects.remove(&name::part(&run.run)).unwrap_or_default();
            run.objects = of_run.into_iter().filter(|kept| kept.name != NOTIFIED || run.ended_at < unsent).collect();
            run.staged = run.objects.iter().filter(|kept| kept.is_staged()).count();
            run.artifacts = run.objects.len() - run.staged;
            let state = journal.kept(&run.run).await?.map_or(0, |fold| fold.state.len() as u64);
            run.has_state = state > 0;
            run.bytes = run.objects.iter().map(|kept| kept.bytes).sum::<u64>() + state;
            if !run.objects.is_empty() || run.has_state {
                runs.push(run);
            }
        }
        runs.reverse();
        Ok(Prunable { format: JsonFormat, bytes: runs.iter().map(|run| run.bytes).sum(), runs })
    }
}

awaitable!(PrunableRequest => Prunable);

fn ended(listed: Vec<repair_core::engine::ListedRun>) -> Vec<PrunableRun> {
    let of = |run: repair_core::engine::ListedRun| {
        let outcome = run.latest.outcome?;
        Some(PrunableRun {
            run: run.run,
            workflow: run.begun.workflow,
            outcome,
            ended_at: run.latest.at,
            artifacts: 0,
            staged: 0,
            has_state: false,
            bytes: 0,
            objects: Vec::new(),
        })
    };
    listed.into_iter().filter_map(of).collect()
}

/// What can be removed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Prunable {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// How large it is in all.
    pub bytes: u64,
    /// The runs that it belongs to, oldest first.
    pub runs: Vec<PrunableRun>,
}

/// What can be removed of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PrunableRun {
    /// Its id.
    pub run: String,
    /// Its workflow.
    pub workflow: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How many artifacts it has: lists of gaps and of units, rows that could not be read, what was said to it.
    pub artifacts: usize,
    /// How many units stayed staged.
    pub staged: usize,
    /// Whether its state is kept beside its events.
    pub has_state: bool,
    /// The size of all that.
    pub bytes: u64,
    #[serde(skip)]
    objects: Vec<KeptObject>,
}

impl OpenLake {
    /// Looks for what can be removed of runs that ended long ago. Changes nothing; give the result to [`OpenLake::prune`].
    ///
    /// # Errors
    /// `not-found` if nothing was ever run in the lake; those of the lake and the journal.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// let prunable = lake.prunable().keep(10).await?;
    /// println!("{} bytes of {} runs", prunable.bytes, prunable.runs.len());
    /// lake.prune(&prunable).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn prunable(&self) -> PrunableRequest<'_> {
        PrunableRequest { open: self, older_than: OLDER_THAN, keep: 0 }
    }

    /// Removes what was found, and returns what of it was removed: a run that somebody has continued since keeps everything. If it is broken off, it can
    /// be repeated.
    ///
    /// # Errors
    /// Those of the lake and the journal.
    pub async fn prune(&self, found: &Prunable) -> Result<Prunable> {
        let journal = self.root.journal_to_write().await?;
        let now: BTreeSet<(String, Timestamp)> =
            ended(journal.listed(self.around.clock.now()).await?).into_iter().map(|run| (run.run, run.ended_at)).collect();
        let mut removed = Prunable { format: JsonFormat, bytes: 0, runs: Vec::new() };
        for run in &found.runs {
            if !now.contains(&(run.run.clone(), run.ended_at)) {
                continue;
            }
            let lake = self.lake_of(Some((journal.as_ref(), &run.run))).await?;
            known::put_text(lake.as_ref(), PRUNED, &run.run, "{}".to_owned()).await.map_err(|error| error.on("run", &run.run))?;
            lake.remove_kept(&run.objects).await.map_err(|error| error.on("run", &run.run))?;
            journal.forget(&run.run).await.map_err(|error| error.on("run", &run.run))?;
            removed.bytes += run.bytes;
            removed.runs.push(run.clone());
        }
        Ok(removed)
    }
}
