//! Leases of what is not a run, so that it is done by one process at a time.

use std::sync::Arc;
use std::time::Duration;

use repair_core::engine::Journal;
use repair_core::plugin::Clock;
use repair_core::{Error, ErrorKind, Result};

/// How long a hold lasts unless it is renewed, which happens three times in that time.
const LEASE: Duration = Duration::from_secs(30);

/// The lease of something that is not a run, held in the journal. Its name has a point, which the id of a run never has.
pub(crate) struct Hold {
    journal: Arc<dyn Journal>,
    name: String,
    holder: String,
}

impl Hold {
    pub(crate) async fn take(journal: Arc<dyn Journal>, name: String, clock: &dyn Clock) -> Result<Self> {
        let holder = format!("{}-{}", std::process::id(), repair_core::engine::new_run_id());
        journal.acquire(&name, &holder, clock.lease_now(), LEASE).await?;
        Ok(Self { journal, name, holder })
    }

    pub(crate) async fn renew(&self, clock: &dyn Clock) -> Result<()> {
        self.journal.acquire(&self.name, &self.holder, clock.lease_now(), LEASE).await
    }

    /// Renews it, until it is lost. Returns why.
    pub(crate) async fn lost(&self, clock: &dyn Clock) -> Error {
        let mut failed = 0;
        loop {
            tokio::time::sleep(LEASE / 3).await;
            match self.renew(clock).await {
                Ok(()) => failed = 0,
                Err(error) if error.kind() != ErrorKind::Conflict && failed < 2 => failed += 1,
                Err(error) => return error,
            }
        }
    }

    pub(crate) async fn release(self) {
        if let Err(error) = self.journal.release(&self.name, &self.holder).await {
            tracing::warn!(name = self.name, error = error.full(), "the hold could not be released; it expires by itself");
        }
    }
}
