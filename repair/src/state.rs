//! Checks what the lake and the journal keep themselves.

use repair_core::Result;
use repair_core::engine::{Journal, JsonFormat, load_whole};
use repair_core::lake::{Damaged, StateCheck};
use serde::Serialize;

use crate::open::OpenLake;

/// What a check of our own state found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct StateReport {
    /// The format of this object as JSON.
    pub format: JsonFormat,
    /// Runs whose whole history was read.
    pub runs: u64,
    /// The events of these runs.
    pub events: u64,
    /// Artifacts, staged units and overlays.
    #[serde(flatten)]
    pub objects: StateCheck,
}

impl StateReport {
    /// Whether nothing is damaged.
    pub fn is_intact(&self) -> bool {
        self.objects.damaged.is_empty()
    }
}

impl OpenLake {
    /// Reads everything that is kept about runs and repairs: the journal with all events, artifacts, staged units, and the overlays of all
    /// tables in the lake. Reports what is not what was written. Changes nothing.
    ///
    /// # Errors
    /// `not-found` if nothing was ever run in the lake; if its objects cannot be listed.
    pub async fn verify_state(&self) -> Result<StateReport> {
        let journal = self.journal().await?;
        let lake = self.lake_of(None).await?;
        let mut report = StateReport { format: JsonFormat, runs: 0, events: 0, objects: lake.check_state().await? };
        let mut damaged = |place: String, error: repair_core::Error| {
            report.objects.damaged.push(Damaged { place, what: error.full() });
        };
        match journal.runs().await {
            Err(error) => damaged("journal".to_owned(), error),
            Ok(heads) => {
                for head in heads {
                    match history(journal.as_ref(), &head.run).await {
                        Ok(events) => {
                            report.runs += 1;
                            report.events += events;
                        }
                        Err(error) => damaged(format!("run {}", head.run), error),
                    }
                }
            }
        }
        Ok(report)
    }
}

/// Reads and folds the history of a run; returns how many events it has.
async fn history(journal: &dyn Journal, run: &str) -> Result<u64> {
    Ok(load_whole(journal, run).await?.next_sequence)
}
