//! journio: step results are recorded, and before each step all results of the workflow are read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use journio_core::{Config, JournioContext, StepFunc, WorkflowContext, WorkflowFn};
use journio_sqlite::SqliteSystemDatabase;
use serde_json::Value;

use super::{Measured, Peer, Running, Work};
use crate::store::{self, Synchronous};

pub(super) struct Journio {
    pub(super) name: &'static str,
    pub(super) synchronous: Synchronous,
}

async fn perform(context: WorkflowContext, work: Work, performed: Arc<AtomicUsize>) -> journio_core::error::JournioResult<Value> {
    let step = Arc::new(StepFunc::new("nothing", move |_: WorkflowContext| {
        let performed = performed.clone();
        Box::pin(async move {
            performed.fetch_add(1, Ordering::Relaxed);
            Ok(Value::Null)
        }) as _
    }));
    match work {
        Work::Sequence { steps } => {
            for _ in 0..steps {
                context.run_as_step(step.clone()).await?;
            }
        }
        Work::FanOut { units, concurrency } => {
            futures::stream::iter(0..units)
                .map(|_| context.run_as_step(step.clone()))
                .buffer_unordered(concurrency)
                .try_for_each(|_| async { Ok(()) })
                .await?;
        }
    }
    Ok(Value::Null)
}

impl Peer for Journio {
    fn name(&self) -> &str {
        self.name
    }

    fn run<'a>(&'a self, work: Work, database: &'a Path) -> Running<'a> {
        Box::pin(async move {
            let system = Arc::new(SqliteSystemDatabase::connect(&store::url(database)).await?);
            let pool = system.pool().clone();
            if self.synchronous == Synchronous::Full {
                store::set_full(&pool).await?;
            }
            let config = Config { app_name: "bench".to_owned(), system_db: Some(system), ..Config::default() };
            let context = JournioContext::new(config).await?;
            let performed = Arc::new(AtomicUsize::new(0));
            let counter = performed.clone();
            context.register_workflow(Arc::new(WorkflowFn::new("work", move |context, _: Value| {
                Box::pin(perform(context, work, counter.clone()))
            })))?;
            context.launch().await?;
            let begun = Instant::now();
            let handle = context.run_workflow("work", Value::Null).await?;
            handle.get_result(None).await?;
            let took = begun.elapsed();
            let durability = store::durability(&pool).await?;
            context.shutdown(Duration::from_secs(5)).await?;
            Ok(Measured { took, performed: performed.load(Ordering::Relaxed), durability })
        })
    }

    fn count_of_completions(&self) -> &'static str {
        "SELECT count(*) FROM operation_outputs WHERE function_name = 'nothing' AND error IS NULL"
    }
}
