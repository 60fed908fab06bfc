//! What stands in for lakes in S3 in a program that is built without them: whatever wants one is refused.

use std::convert::Infallible;
use std::sync::Arc;

use repair_core::engine::Journal;
use repair_core::lake::Lake;
use repair_core::{Error, Result};
use serde_json::Value;

/// A lake in S3, of which this program has none.
#[derive(Debug, Clone)]
pub(crate) struct Bucket(Infallible);

fn missing(what: &str) -> Error {
    Error::invalid(format!("{what}, and this program was built without AWS; build it with the feature `aws`"))
}

impl Bucket {
    /// Refuses the lake at a place.
    pub(crate) fn at(location: &str) -> Result<Self> {
        Err(missing(&format!("{location} is a lake in S3")))
    }

    /// Refuses the lake of a profile.
    #[expect(clippy::needless_pass_by_value, reason = "as the one that is built with AWS")]
    pub(crate) fn of_profile(profile: &str, _: Value) -> Result<Self> {
        Err(missing(&format!("profile `{profile}` is of a lake in S3")))
    }

    /// The same, elsewhere.
    pub(crate) fn moved_to(self, _: Self) -> Self {
        match self.0 {}
    }

    /// What a later process needs to know to go on.
    pub(crate) fn with(&self) -> Value {
        match self.0 {}
    }

    /// The lake itself.
    pub(crate) async fn lake(&self, _: Option<(&dyn Journal, &str)>) -> Result<Arc<dyn Lake>> {
        match self.0 {}
    }

    /// Its journal.
    pub(crate) async fn journal(&self) -> Result<Arc<dyn Journal>> {
        match self.0 {}
    }
}
