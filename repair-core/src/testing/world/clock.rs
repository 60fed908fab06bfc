//! A clock that follows Tokio's.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::plugin::Clock;

/// The longest single sleep, since Tokio's timers reach only two years.
const LONGEST_SLEEP: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);

/// A clock that starts at a given time and follows Tokio's. In a runtime whose time is paused (`#[tokio::test(start_paused = true)]`),
/// nobody waits: when all tasks sleep, time jumps to when the first of them wakes.
///
/// ```
/// use repair_core::plugin::Clock;
/// use repair_core::testing::VirtualClock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = VirtualClock::starting_at("2024-03-04T09:00:00Z".parse()?);
/// clock.sleep_until("2024-03-07T09:00:00Z".parse()?).await;
/// assert_eq!(clock.now(), "2024-03-07T09:00:00Z".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    base: Timestamp,
    begun: Instant,
}

impl VirtualClock {
    /// A clock that shows `base` now. It must be made within the runtime whose time it follows.
    pub fn starting_at(base: Timestamp) -> Self {
        Self { base, begun: Instant::now() }
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.begun.elapsed()).unwrap_or(SignedDuration::MAX);
        self.base.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    async fn sleep_until(&self, due: Timestamp) {
        while let Ok(left) = std::time::Duration::try_from(due.duration_since(self.now())) {
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}
