//! Rate limits: the generic cell rate algorithm, on the engine's clock. A limited source is a wrapper around the source.

#![deny(clippy::missing_trait_methods, reason = "a wrapper that forgets a method would answer for itself")]

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::error::Result;
use crate::model::Table;
use crate::plugin::{Answer, Clock, Limits, Request, Source, StepContext, UserQuery};
use crate::workflow::Rate;

/// Allows a number of operations per period, evenly spread.
pub(crate) struct RateLimiter {
    clock: Arc<dyn Clock>,
    spacing: SignedDuration,
    next: Mutex<Timestamp>,
}

impl RateLimiter {
    /// A limiter for a rate.
    pub(crate) fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        let spacing = SignedDuration::try_from(rate.per / rate.count.max(1)).unwrap_or(SignedDuration::ZERO);
        Self { clock, spacing, next: Mutex::new(Timestamp::MIN) }
    }

    /// Waits until the next operation is allowed.
    pub(crate) async fn acquire(&self) {
        let due = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let due = (*next).max(self.clock.now());
            *next = due.saturating_add(self.spacing).unwrap_or(due);
            due
        };
        self.clock.sleep_until(due).await;
    }
}

/// A source that is called no more often than its rate limit allows.
pub(crate) struct RateLimited {
    pub(crate) inner: Arc<dyn Source>,
    pub(crate) limiter: RateLimiter,
}

#[async_trait]
impl Source for RateLimited {
    fn query(&self) -> Option<UserQuery<'_>> {
        self.inner.query()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn requests_at_worst(&self) -> u64 {
        self.inner.requests_at_worst()
    }

    async fn ready(&self) -> Result<()> {
        self.inner.ready().await
    }

    async fn doubt(&self, context: &StepContext, table: &Table) -> Result<Option<String>> {
        self.inner.doubt(context, table).await
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        self.limiter.acquire().await;
        self.inner.fetch(context, request).await
    }
}
