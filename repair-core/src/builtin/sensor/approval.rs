//! The sensor `approval`: whether a person lets a run go on.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::said::Decision;
use crate::plugin::{Registry, Sensor, StepContext};

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApprovalConfig {
    /// What is to be approved, in a sentence.
    message: String,
}

pub(super) fn register(registry: &mut Registry) {
    registry.sensor("approval", "whether a person has approved, by `repair approve` or `repair reject`", |config: ApprovalConfig| {
        if config.message.trim().is_empty() {
            return Err(Error::invalid("say what is to be approved; the message is empty"));
        }
        Ok(Approval { config })
    });
}

/// The sensor `approval`.
struct Approval {
    config: ApprovalConfig,
}

#[async_trait]
impl Sensor for Approval {
    /// A rejection ends the attempt in which it was said. After a redrive, the step asks again.
    async fn sense(&self, context: &StepContext) -> Result<Value> {
        let message = &self.config.message;
        match Decision::read(context.lake.as_ref(), &context.run, &context.step, context.visit).await? {
            Some(Decision { approved: true, at, by, reason, proposed, .. }) => {
                let mut said = json!({ "received": true, "at": at, "by": by, "reason": reason });
                if let (false, Some(said)) = (proposed.is_null(), said.as_object_mut()) {
                    said.insert("proposed".to_owned(), proposed);
                }
                Ok(said)
            }
            Some(Decision { attempt, at, by, reason, .. }) if attempt == context.attempt && at >= context.entered_at => {
                let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                Err(Error::new(ErrorKind::Denied, format!("{by} has rejected `{message}`{why}")))
            }
            _ => Ok(json!({ "received": false })),
        }
    }
}
