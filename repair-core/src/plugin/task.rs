//! Anything else a workflow does.

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::model::Usage;
use crate::plugin::{StepContext, UserQuery};

/// A step of the user's own.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use async_trait::async_trait;
/// use repair_core::engine::{Engine, StartRequest};
/// use repair_core::model::Usage;
/// use repair_core::plugin::{Registry, StepContext, Task};
/// use repair_core::testing::{MemoryJournal, MemoryLake};
/// use repair_core::workflow::{Step, Workflow};
/// use serde_json::{Value, json};
///
/// /// Sends a message. Whoever receives it knows by its id whether it is a repetition.
/// struct Notify(Arc<Mutex<Vec<String>>>);
///
/// #[async_trait]
/// impl Task for Notify {
///     async fn perform(&self, context: &StepContext) -> repair_core::Result<(Value, Usage)> {
///         let id = format!("{}/{}/{}", context.run, context.step, context.visit);
///         self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(id);
///         Ok((json!({ "sent": true }), Usage::default()))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sent = Arc::default();
/// let built = Workflow::state_machine("notify").step("notify", Step::task(Notify(Arc::clone(&sent))).end()).build(Registry::default())?;
/// let engine = Engine::new(Arc::new(built.registry), Arc::new(MemoryLake::default()), Arc::new(MemoryJournal::default()));
/// let report = engine.start(&built.workflow, StartRequest::new("first")).await?;
/// assert_eq!(report.step("notify").map(|step| &step.output), Some(&json!({ "sent": true })));
/// assert_eq!(*sent.lock().unwrap(), ["first/notify/1"]);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Task: Send + Sync {
    /// The SQL that it has the lake run, so that it can be checked before a run begins. The default runs none.
    fn query(&self) -> Option<UserQuery<'_>> {
        None
    }

    /// Does it, and returns what later conditions see as `$output` and what it used. Doing it twice must have the effect of doing it once:
    /// after a crash it is done again.
    ///
    /// # Errors
    /// Of the kind by which the workflow decides what to do.
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)>;
}
