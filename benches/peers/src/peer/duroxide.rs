//! duroxide: orchestrations are replayed from their history, and activities go through a queue in the same database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use duroxide::providers::sqlite::SqliteProvider;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{OrchestrationStatus, Runtime, RuntimeOptions};
use duroxide::{ActivityContext, Client, OrchestrationContext, OrchestrationRegistry};

use super::{Measured, Peer, Running, Work};
use crate::store::{self, Synchronous};

#[derive(Clone, Copy)]
pub(super) struct Duroxide {
    pub(super) name: &'static str,
    pub(super) synchronous: Synchronous,
    /// How long a dispatcher sleeps after it finds nothing to do.
    pub(super) poll: Duration,
    /// The number of workers in a fan-out, if it differs from that of the work.
    pub(super) workers: Option<usize>,
    pub(super) share: usize,
}

/// The longest wait for a run.
const PATIENCE: Duration = Duration::from_secs(600);

impl Peer for Duroxide {
    fn name(&self) -> &str {
        self.name
    }

    fn run<'a>(&'a self, work: Work, database: &'a Path) -> Running<'a> {
        Box::pin(async move {
            let provider = Arc::new(SqliteProvider::new(&store::url(database), None).await?);
            if self.synchronous == Synchronous::Full {
                store::set_full(provider.get_pool()).await?;
            }
            let performed = Arc::new(AtomicUsize::new(0));
            let counter = performed.clone();
            let activities = ActivityRegistry::builder()
                .register("nothing", move |_: ActivityContext, _: String| {
                    let counter = counter.clone();
                    async move {
                        counter.fetch_add(1, Ordering::Relaxed);
                        Ok(String::new())
                    }
                })
                .build();
            let orchestrations = OrchestrationRegistry::builder()
                .register("work", move |context: OrchestrationContext, _: String| async move {
                    match work {
                        Work::Sequence { steps } => {
                            for _ in 0..steps {
                                context.schedule_activity("nothing", "").await?;
                            }
                        }
                        // All are scheduled at once; the runtime's workers limit how many run at a time.
                        Work::FanOut { units, .. } => {
                            let activities = (0..units).map(|_| context.schedule_activity("nothing", "")).collect();
                            for done in context.join(activities).await {
                                done?;
                            }
                        }
                    }
                    Ok(String::new())
                })
                .build();
            let worker_concurrency = match work {
                Work::Sequence { .. } => 1,
                Work::FanOut { concurrency, .. } => self.workers.unwrap_or(concurrency),
            };
            // There is one orchestration, so a second dispatcher would only poll.
            let options = RuntimeOptions {
                dispatcher_min_poll_interval: self.poll,
                orchestration_concurrency: 1,
                worker_concurrency,
                ..RuntimeOptions::default()
            };
            let runtime = Runtime::start_with_options(provider.clone(), activities, orchestrations, options).await;
            let client = Client::new(provider.clone());
            let begun = Instant::now();
            client.start_orchestration("bench", "work", "").await?;
            let status = client.wait_for_orchestration("bench", PATIENCE).await?;
            let took = begun.elapsed();
            // This comes before the shutdown, which closes connections of the pool; their replacements would not have our settings.
            let durability = store::durability(provider.get_pool()).await?;
            runtime.shutdown(None).await;
            provider.get_pool().close().await;
            if !matches!(status, OrchestrationStatus::Completed { .. }) {
                return Err(format!("the orchestration did not complete: {status:?}").into());
            }
            Ok(Measured { took, performed: performed.load(Ordering::Relaxed), durability })
        })
    }

    fn share(&self) -> usize {
        self.share
    }

    fn count_of_completions(&self) -> &'static str {
        "SELECT count(*) FROM history WHERE event_type = 'ActivityCompleted'"
    }
}
