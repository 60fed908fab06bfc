//! What users implement: small traits, one for each kind of step, and the registry in which a workflow finds them by name.
//!
//! Every method may be called again for the same input after a crash, so it must have no effect but its result; the engine stages,
//! publishes and journals. A plug-in that works long looks at [`StepContext::cancel`] between pieces of work.

mod aggregator;
mod context;
mod detector;
mod registry;
mod repairer;
mod sensor;
mod source;
mod task;

pub use aggregator::{AggregateRequest, Aggregated, Aggregator};
pub use context::{Clock, Progress, StepContext, SystemClock};
pub use detector::Detector;
pub use registry::{ConfigError, Entry, PathSegment, Plugin, PluginKind, Registry};
pub use repairer::{Reads, Repairer, Units};
pub use sensor::Sensor;
pub use source::{Answer, Covered, Limits, Request, Source};
pub use task::Task;
