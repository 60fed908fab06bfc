//! How a run within a run spends: it asks the outer run first, which puts on record how much it may. So a budget is never exceeded, however many runs
//! spend side by side, and whatever crashes.

use async_trait::async_trait;

use crate::engine::drive::work::Recorder;
use crate::engine::pure::budget::Granted;
use crate::error::Result;
use crate::price::Spend;

/// What a run within another run may spend.
#[async_trait]
pub(crate) trait Purse: Send + Sync {
    /// How many of these are granted: rising totals of what the run has spent and set aside, over all its attempts. Durable when it returns.
    ///
    /// # Errors
    /// `cancelled` if the outer run no longer needs this one.
    async fn allow(&self, totals: Vec<Spend>) -> Result<Granted>;

    /// Whether a budget in dollars applies, so that everything must have a price.
    fn is_in_dollars(&self) -> bool;
}

/// The purse of one run that a step runs.
pub(crate) struct ItemPurse {
    pub(crate) recorder: Recorder,
    /// The index of the item in a map; 0 for a workflow step.
    pub(crate) item: u32,
    pub(crate) in_dollars: bool,
}

#[async_trait]
impl Purse for ItemPurse {
    async fn allow(&self, totals: Vec<Spend>) -> Result<Granted> {
        self.recorder.allow(self.item, totals).await
    }

    fn is_in_dollars(&self) -> bool {
        self.in_dollars
    }
}
