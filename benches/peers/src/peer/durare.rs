//! durare: an ordinary async function whose step results are checkpointed, in the schema of DBOS.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use durare::{DurableContext, DurableEngine, Error, SqliteProvider, WorkflowOptions};
use futures::{StreamExt, TryStreamExt};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{Measured, Peer, Running, Work};
use crate::store::{self, Synchronous};

pub(super) struct Durare {
    pub(super) name: &'static str,
    pub(super) synchronous: Synchronous,
}

async fn perform(context: DurableContext, work: Work, performed: Arc<AtomicUsize>) -> durare::Result<()> {
    let step = || {
        let performed = performed.clone();
        context.step("nothing", move || async move {
            performed.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Error>(())
        })
    };
    match work {
        Work::Sequence { steps } => {
            for _ in 0..steps {
                step().await?;
            }
            Ok(())
        }
        // A step gets its position when it is created, and steps are created in order.
        Work::FanOut { units, concurrency } => {
            futures::stream::iter(0..units).map(|_| step()).buffer_unordered(concurrency).try_for_each(|()| async { Ok(()) }).await
        }
    }
}

impl Peer for Durare {
    fn name(&self) -> &str {
        self.name
    }

    fn run<'a>(&'a self, work: Work, database: &'a Path) -> Running<'a> {
        Box::pin(async move {
            // This does what durare's own `connect` does, except that the pool can be configured and asked for its settings.
            let options = SqliteConnectOptions::from_str(&store::url(database))?
                .foreign_keys(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(match self.synchronous {
                    Synchronous::Full => SqliteSynchronous::Full,
                    Synchronous::AsItComes => SqliteSynchronous::Normal,
                })
                .busy_timeout(Duration::from_secs(5));
            let pool = SqlitePoolOptions::new().max_connections(5).connect_with(options).await?;
            let performed = Arc::new(AtomicUsize::new(0));
            let mut engine = DurableEngine::new(Arc::new(SqliteProvider::from_pool(pool.clone()))).await?;
            let counter = performed.clone();
            engine.register("work", move |context: DurableContext, (): ()| perform(context, work, counter.clone()));
            engine.launch().await?;
            let begun = Instant::now();
            let handle = engine.start::<_, ()>("work", (), WorkflowOptions::with_id("bench")).await?;
            handle.await?;
            let took = begun.elapsed();
            engine.shutdown(Duration::from_secs(5)).await?;
            let durability = store::durability(&pool).await?;
            pool.close().await;
            Ok(Measured { took, performed: performed.load(Ordering::Relaxed), durability })
        })
    }

    fn count_of_completions(&self) -> &'static str {
        "SELECT count(*) FROM operation_outputs WHERE function_name = 'nothing' AND error IS NULL"
    }
}
