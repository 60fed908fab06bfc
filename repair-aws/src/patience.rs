//! How calls to AWS are repeated: after waits that grow and are random, so that processes are not in step, for a bounded time.

use std::time::Duration;

use jiff::Timestamp;
use repair_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

/// The longest first wait. It doubles from attempt to attempt.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(20);

/// A call is made so many times, even if one alone has taken longer than all may.
pub(crate) const LEAST_TRIES: u32 = 3;

/// How long a call is repeated if AWS is busy or out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience(pub(crate) Duration);

impl Default for Patience {
    /// S3 scales up, and queries of others end, within minutes.
    fn default() -> Self {
        Self(Duration::from_secs(180))
    }
}

/// Whether a call that failed like this may be made again.
pub(crate) fn may_repeat(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Transient | ErrorKind::Timeout)
}

impl Patience {
    /// Repeats a call that has the same effect twice as once.
    pub(crate) async fn retried<T, F: Future<Output = Result<T>>>(&self, call: impl FnMut() -> F) -> Result<T> {
        self.retried_unless(std::future::pending(), call).await
    }

    /// As [`Patience::retried`], but waits no longer once `stopped` is ready. A call in progress is not interrupted.
    pub(crate) async fn retried_unless<T, F: Future<Output = Result<T>>>(
        &self,
        stopped: impl Future<Output = ()>,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        let mut stopped = std::pin::pin!(stopped);
        let began = Instant::now();
        let (mut most, mut tries) = (FIRST, 0);
        loop {
            tries += 1;
            let error = match call().await {
                Err(error) if may_repeat(&error) => error,
                result => return result,
            };
            let left = self.0.saturating_sub(began.elapsed());
            if left.is_zero() && tries >= LEAST_TRIES {
                return Err(error);
            }
            let wait = below(most).max(error.wait_hint().unwrap_or_default());
            let wait = wait.min(if left.is_zero() { most } else { left });
            tracing::debug!(error = error.full(), ?wait, "a call to AWS will be made again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = &mut stopped => return Err(error),
            }
            most = LONGEST.min(most * 2);
        }
    }
}

/// A random time that is shorter: full jitter, from the clock's noise.
fn below(most: Duration) -> Duration {
    let noise = u64::from(Timestamp::now().subsec_nanosecond().unsigned_abs());
    let hash = blake3::hash(&noise.to_le_bytes());
    let number = hash.as_bytes().first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    most.mul_f64(f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn failing(patience: Duration, times: u32) -> (Result<()>, u32, Duration) {
        let (calls, began) = (AtomicU32::new(0), Instant::now());
        let result = Patience(patience)
            .retried(|| async {
                let before = calls.fetch_add(1, Ordering::Relaxed);
                if before < times { Err(Error::new(ErrorKind::Throttled, "slow down")) } else { Ok(()) }
            })
            .await;
        (result, calls.into_inner(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_a_minute_is_waited_for_and_one_without_end_is_not() {
        let (result, calls, _) = failing(Duration::from_secs(180), 9).await;
        assert!(result.is_ok() && calls == 10);
        let (result, calls, passed) = failing(Duration::from_secs(180), u32::MAX).await;
        assert!(result.is_err() && (10..200).contains(&calls), "{calls} calls");
        assert!(passed >= Duration::from_secs(180) && passed < Duration::from_secs(182), "{passed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_must_not_be_repeated_is_made_once_and_who_stops_waits_no_longer() {
        let calls = AtomicU32::new(0);
        let denied = Patience::default()
            .retried(|| async {
                calls.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(Error::new(ErrorKind::Denied, "no"))
            })
            .await;
        assert!(denied.is_err() && calls.into_inner() == 1);
        let began = Instant::now();
        let stopped = tokio::time::sleep(Duration::from_secs(5));
        let busy = || async { Err::<(), _>(Error::new(ErrorKind::Throttled, "slow down")) };
        assert!(Patience::default().retried_unless(stopped, busy).await.is_err());
        assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    }
}
