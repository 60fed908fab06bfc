//! Leases of what is not a run, so that it is done by one process at a time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use repair_core::Result;
use repair_core::engine::Journal;

/// How long a hold lasts unless it is renewed, which whoever holds it does three times in that time.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// The lease of something that is not a run, held in the journal. Its name has a point, which the id of a run never has.
pub(crate) struct Hold {
    journal: Arc<dyn Journal>,
    name: String,
    holder: String,
}

impl Hold {
    pub(crate) async fn take(journal: Arc<dyn Journal>, name: String, now: Timestamp) -> Result<Self> {
        let holder = format!("{}-{}", std::process::id(), repair_core::engine::new_run_id());
        journal.acquire(&name, &holder, now, LEASE).await?;
        Ok(Self { journal, name, holder })
    }

    pub(crate) async fn renew(&self, now: Timestamp) -> Result<()> {
        self.journal.acquire(&self.name, &self.holder, now, LEASE).await
    }

    pub(crate) async fn release(self) {
        if let Err(error) = self.journal.release(&self.name, &self.holder).await {
            tracing::warn!(name = self.name, error = error.full(), "the hold could not be released; it expires by itself");
        }
    }
}
