//! The sensor and the task `http`: look at an answer, and send a request, such as to a webhook.

use async_trait::async_trait;
use repair_core::model::Usage;
use repair_core::plugin::{Registry, Sensor, StepContext, Task};
use repair_core::{Error, Result};
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::ONE_CALL;
use crate::allowed::Options;
use crate::http::NAME;
use crate::http::answers::{AnswerRule, check_pointer, ruling};
use crate::http::api::Words;
use crate::http::request::{Requests, config};

/// The largest answer that is kept as the output of a step.
const MOST_BYTES: usize = 1 << 20;

config! {
    /// The configuration of the sensor.
    pub struct HttpSensorConfig {
        /// The place in the answer that is `$output`, as a JSON Pointer such as `/status`; by default an object with `status` and `body`.
        #[serde(default)]
        pub at: Option<String>,
        /// Rules about what answers mean, before their status decides.
        #[serde(default)]
        pub answers: Vec<AnswerRule>,
    }
}

config! {
    /// The configuration of the task.
    pub struct HttpTaskConfig {
        /// Rules about what answers mean, before their status decides.
        #[serde(default)]
        pub answers: Vec<AnswerRule>,
    }
}

pub(super) fn register(registry: &mut Registry, options: &Options) {
    let environment = options.environment.clone();
    registry.sensor(NAME, "looks at an answer of an API", move |config: HttpSensorConfig| {
        if let Some(at) = &config.at {
            check_pointer(at)?;
        }
        Ok(Asking::new(Requests::new(config.request(), Method::GET, &[], &[], &environment, Words::default())?, config.answers)?
            .at(config.at))
    });
    let environment = options.environment.clone();
    registry.task(NAME, "sends a request to an API", move |config: HttpTaskConfig| {
        Asking::new(Requests::new(config.request(), Method::POST, &[], &[], &environment, Words::default())?, config.answers)
    });
}

struct Asking {
    requests: Requests,
    answers: Vec<AnswerRule>,
    at: Option<String>,
}

impl Asking {
    fn new(requests: Requests, answers: Vec<AnswerRule>) -> Result<Self> {
        answers.iter().try_for_each(AnswerRule::check)?;
        Ok(Self { requests, answers, at: None })
    }

    fn at(self, at: Option<String>) -> Self {
        Self { at, ..self }
    }

    /// Sends the request once, and returns its status and body.
    async fn ask(&self, context: &StepContext) -> Result<(u16, Value)> {
        let id = format!("{}/{}/{}", context.run, context.step, context.visit);
        let no_value = |name: &str, _: Option<&str>| Err(Error::internal(format!("no value for `{{{name}}}`")));
        let mut call = self.requests.call(context, &id, &no_value)?;
        // The same for each attempt, so that a service which was asked before a crash can know it.
        let key = HeaderName::from_static("idempotency-key");
        if call.method != Method::GET
            && !call.headers.iter().any(|(name, _)| *name == key)
            && let Ok(id) = HeaderValue::from_str(&id)
        {
            call.headers.push((key, id));
        }
        let number = context.calls.begin(ONE_CALL).await?;
        let reply = self.requests.api.send(context, &call).await;
        context.calls.end(number, reply.is_ok().then_some(ONE_CALL)).await?;
        let reply = reply?;
        let status = reply.status.as_u16();
        let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
        match ruling(&self.answers, status, body.as_ref()) {
            Some(rule) => {
                if let Some(kind) = rule.means.kind() {
                    return Err(self.requests.api.refused_as(context, &call, &reply, rule, kind));
                }
            }
            None if reply.status.is_success() => {}
            None => return Err(self.requests.api.refusal(context, &call, &reply)),
        }
        self.requests.check_secrets(&call, &reply.body)?;
        if reply.body.len() > MOST_BYTES {
            return Err(self.requests.api.unusable(
                &call,
                &format!("more than {MOST_BYTES} bytes, which no journal should keep"),
                &reply.body,
            ));
        }
        Ok((status, body.unwrap_or_else(|| String::from_utf8_lossy(&reply.body).into())))
    }
}

#[async_trait]
impl Sensor for Asking {
    async fn sense(&self, context: &StepContext) -> Result<Value> {
        let (status, body) = self.ask(context).await?;
        Ok(match &self.at {
            Some(at) => body.pointer(at).cloned().unwrap_or(Value::Null),
            None => json!({ "status": status, "body": body }),
        })
    }
}

#[async_trait]
impl Task for Asking {
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        let (status, body) = self.ask(context).await?;
        Ok((json!({ "status": status, "body": body }), Usage::default()))
    }
}
