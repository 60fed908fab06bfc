//! Counts what a detector, a task or a sensor asks outside: of sources, or by calls of its own. Each request is reserved before it is made if a budget
//! applies, and its usage is on record when it ends, whatever becomes of the attempt.

#![deny(clippy::missing_trait_methods, reason = "a wrapper that forgets a method would answer for itself")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;

use crate::engine::drive::work::Recorder;
use crate::engine::pure::event::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Table, Usage};
use crate::plugin::{Answer, Calls, Limits, Request, Source, StepContext, UserQuery};

/// The same context, with calls that are counted: those of sources, and those that a plug-in makes itself.
pub(crate) fn counted(context: &StepContext, recorder: &Recorder, budgeted: bool) -> StepContext {
    let calls: Arc<dyn Calls> = Arc::new(Counter { recorder: recorder.clone(), budgeted, next: AtomicU32::new(0) });
    let counted = |(name, inner): (&String, &Arc<dyn Source>)| {
        let source: Arc<dyn Source> = Arc::new(Counted { inner: inner.clone(), calls: calls.clone() });
        (name.clone(), source)
    };
    context.clone().with_sources(context.sources.iter().map(counted)).with_calls(calls.clone())
}

struct Counter {
    recorder: Recorder,
    budgeted: bool,
    /// The number of the attempt's next request, to whatever it goes.
    next: AtomicU32,
}

#[async_trait]
impl Calls for Counter {
    async fn begin(&self, worst: Usage) -> Result<u32> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.budgeted {
            let granted = self.recorder.reserve(vec![(number, worst)]).await?;
            if let Some(why) = granted.refused {
                return Err(Error::new(ErrorKind::Budget, format!("{why}; requests made before it: {number}")));
            }
        }
        Ok(number)
    }

    async fn end(&self, call: u32, used: Option<Usage>) -> Result<()> {
        let failed = used.is_none();
        let ended = Event::RequestEnded { step: self.recorder.step.clone(), request: call, usage: used.unwrap_or_default(), failed };
        self.recorder.record(vec![ended]).await
    }
}

struct Counted {
    inner: Arc<dyn Source>,
    calls: Arc<dyn Calls>,
}

#[async_trait]
impl Source for Counted {
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
        context.check_cancelled()?;
        // At least one call, even if the source declares none, because it is called.
        let worst = Usage { source_requests: self.requests_at_worst().max(1), ..Usage::default() };
        let call = self.calls.begin(worst).await?;
        let answer = self.inner.fetch(context, request).await;
        let used = answer.as_ref().ok().map(|answer| {
            let source_rows = answer.rows.iter().map(|batch| batch.num_rows() as u64).sum();
            Usage { source_requests: answer.requests.max(1), source_rows, ..Usage::default() }
        });
        self.calls.end(call, used).await?;
        answer
    }
}
