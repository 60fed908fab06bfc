//! Looks whether something has happened outside.

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::plugin::StepContext;

/// Looks at something outside, such as whether a file has landed. A `wait` step polls it until the step's condition holds.
///
/// ```
/// use std::path::PathBuf;
/// use std::sync::Arc;
///
/// use async_trait::async_trait;
/// use repair_core::Result;
/// use repair_core::plugin::{Sensor, StepContext};
/// use repair_core::testing::{MemoryLake, VirtualClock, context};
/// use serde_json::{Value, json};
///
/// /// Looks whether a file is there, and how big it is: `when: $output.bytes > 0`.
/// struct Landed(PathBuf);
///
/// #[async_trait]
/// impl Sensor for Landed {
///     async fn sense(&self, _: &StepContext) -> Result<Value> {
///         match std::fs::metadata(&self.0) {
///             Ok(file) => Ok(json!({ "bytes": file.len() })),
///             Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(json!({ "bytes": 0 })),
///             Err(error) => Err(repair_core::Error::blind("the file cannot be looked at").on("file", self.0.display()).because(error)),
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let context = context(Arc::new(MemoryLake::default()), [], Arc::new(VirtualClock::starting_at("2024-03-05T00:00:00Z".parse()?)));
/// let folder = tempfile::tempdir()?;
/// let landed = Landed(folder.path().join("export.csv"));
/// assert_eq!(landed.sense(&context).await?, json!({ "bytes": 0 }));
/// std::fs::write(&landed.0, "ts,value\n")?;
/// assert_eq!(landed.sense(&context).await?, json!({ "bytes": 9 }));
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Sensor: Send + Sync {
    /// Looks once.
    ///
    /// # Errors
    /// If it could not look.
    async fn sense(&self, context: &StepContext) -> Result<Value>;
}
