//! What users implement: small traits, one for each kind of step, and the registry in which a workflow finds them by name.
//!
//! After a crash, every method may be called again with the same input, so it must have no effect except its result; the engine stages,
//! publishes and journals. A plug-in that works for long checks [`StepContext::cancel`] between pieces of work.

mod aggregator;
mod context;
mod deliver;
mod detector;
mod query;
mod registry;
mod repairer;
mod sensor;
mod source;
mod task;
mod unseen;

pub use aggregator::{AggregateRequest, Aggregated, Aggregator, LEFT_OUT};
pub use context::{Calls, Clock, Elsewhere, Progress, ScaledClock, StepContext, SystemClock};
pub use deliver::{Deliver, Message};
pub use detector::{Asks, Detector, GapSink};
pub use query::{QueryRows, UserQuery};
pub use registry::{ConfigError, Drawing, PathSegment, Plugin, PluginEntry, PluginKind, Registry};
pub(crate) use registry::{OWN_HELP, OWN_PREFIX};
pub use repairer::{PlannedUnits, Reads, Repairer};
pub use sensor::Sensor;
pub use source::{Answer, Covered, Limits, Request, Source};
pub use task::Task;
pub(crate) use unseen::named_in;
pub use unseen::{doubt, is_named_in, left_out, strays};
