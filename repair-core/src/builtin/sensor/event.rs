//! The sensor `event`: whether something was said to have happened.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::lake::said::Happened;
use crate::plugin::{Registry, Sensor, StepContext};

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EventConfig {
    /// The name of the event, as `repair signal RUN NAME` says it.
    name: String,
}

pub(super) fn register(registry: &mut Registry) {
    registry.sensor("event", "whether `repair signal` has said that something happened", |config: EventConfig| {
        if config.name.trim().is_empty() {
            return Err(Error::invalid("the name of the event is empty"));
        }
        Ok(Event { config })
    });
}

/// The sensor `event`.
struct Event {
    config: EventConfig,
}

#[async_trait]
impl Sensor for Event {
    /// What a step waits for when it comes again must be said again; what was said before the step came first counts for its first visit.
    async fn sense(&self, context: &StepContext) -> Result<Value> {
        let said = Happened::read(context.lake.as_ref(), &context.run, &self.config.name).await?;
        Ok(match said.filter(|said| context.visit == 1 || said.at >= context.entered_at) {
            Some(Happened { at, by, payload }) => json!({ "received": true, "at": at, "by": by, "payload": payload }),
            None => json!({ "received": false }),
        })
    }
}
