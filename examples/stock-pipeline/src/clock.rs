//! The clock of the demo: real time plus all skipped waiting.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use repair::core::plugin::Clock;
use repair::jiff::{SignedDuration, Timestamp};

/// Jumps to an instant instead of waiting for it, so that a workflow's wait of 90 seconds takes no time. It otherwise behaves like time: it
/// never goes back, and what happens after a wait is later than what happened before.
#[derive(Debug, Default)]
pub(crate) struct SkippingClock {
    skipped_ms: AtomicI64,
}

#[async_trait]
impl Clock for SkippingClock {
    fn now(&self) -> Timestamp {
        let skipped = SignedDuration::from_millis(self.skipped_ms.load(Ordering::Acquire));
        Timestamp::now().checked_add(skipped).unwrap_or(Timestamp::MAX)
    }

    async fn sleep_until(&self, due: Timestamp) {
        // One millisecond is added because fractions are cut off, and nobody may wake early.
        let ahead_ms = due.duration_since(Timestamp::now()).as_millis().saturating_add(1);
        // If several wait at once, the latest instant counts; none can turn the clock back.
        self.skipped_ms.fetch_max(i64::try_from(ahead_ms).unwrap_or(i64::MAX), Ordering::AcqRel);
        tokio::task::yield_now().await;
    }

    fn lease_now(&self) -> Timestamp {
        Timestamp::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_takes_no_time_and_yet_has_passed() {
        let clock = SkippingClock::default();
        let started = std::time::Instant::now();
        let due = clock.now() + SignedDuration::from_hours(72);
        clock.sleep_until(due).await;
        assert!(clock.now() >= due);
        assert!(started.elapsed().as_secs() < 60);
    }

    #[tokio::test]
    async fn it_never_goes_back() {
        let clock = SkippingClock::default();
        let late = clock.now() + SignedDuration::from_hours(2);
        clock.sleep_until(late).await;
        clock.sleep_until(late - SignedDuration::from_hours(1)).await;
        assert!(clock.now() >= late);
    }
}
