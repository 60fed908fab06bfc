//! APIs over HTTP as plug-ins: how they are asked, and what their answers mean, is in the workflow.
//!
//! Keys come from the environment alone. They go to one host, and into nothing that is shown or kept.

mod answers;
mod api;
mod ask;
mod auth;
mod pages;
mod request;
mod shape;
pub mod source;
mod times;

pub use answers::{AnswerRule, Means};
pub use api::Words;
pub(crate) use api::{Api, header, place, seconds, shown};
pub use ask::{HttpSensorConfig, HttpTaskConfig};
pub use auth::{AuthConfig, Named, Variable};
pub use pages::{OtherHosts, PagesConfig};
pub use request::{QueryConfig, RequestMethod};
pub use shape::RowsConfig;
pub use times::TimeConfig;

use repair_core::plugin::Registry;

use crate::allowed::Options;

/// The name of all plug-ins of this module.
pub const NAME: &str = "http";

pub(crate) fn register(registry: &mut Registry, options: &Options) {
    source::register(registry, options);
    ask::register(registry, options);
}
